"""The checks of `verify` on a store: whether it is consistent in itself and with the records in the output files.

The records are collected in a temporary table on the disk, so that memory stays bounded for any size of archive.
Invariant: everything is compared with one snapshot of the store.
"""

from collections.abc import Iterator, Sequence
from typing import Final

import orjson

from crawler.core.enums import TaskKind
from crawler.core.formatting import count, counts
from crawler.core.url import every_key_of, legacy_key_of, parse
from crawler.frontier.sqlite.store_reader import StoreReader

_GATHER: Final = """
PRAGMA temp_store = file;
CREATE TEMP TABLE record (
  file INTEGER, at INTEGER, url TEXT, digest TEXT, host TEXT, hash INTEGER, auxiliary INTEGER, pages INTEGER DEFAULT 0,
  PRIMARY KEY (file, at)
) WITHOUT ROWID;
CREATE TEMP TABLE held (id INTEGER PRIMARY KEY);
CREATE TEMP TABLE lost (id INTEGER PRIMARY KEY, name TEXT);"""
_FIND_LOST: Final = (
    "INSERT INTO lost SELECT id, sink || '/' || name FROM main.sink_file WHERE state IN ('losing', 'lost')"
)
_RECORD: Final = """
INSERT OR REPLACE INTO record (file, at, url, digest, host, hash, auxiliary) VALUES (?, ?, ?, ?, ?, ?, ?)"""
_KNOWN: Final = "CREATE TEMP VIEW known AS SELECT id, host, hash, state FROM main.url"
_KNOWN_SORTED: Final = """
CREATE TEMP TABLE known (host INTEGER, hash INTEGER, id INTEGER, state TEXT, PRIMARY KEY (host, hash)) WITHOUT ROWID;
INSERT INTO known SELECT host, hash, id, state FROM main.url ORDER BY host, hash"""
_ORIGIN: Final = """h.scheme || '://' || h.host ||
  CASE WHEN h.port = iif(h.scheme = 'https', 443, 80) THEN '' ELSE ':' || h.port END"""
_VISITS: Final = f"""
SELECT {_ORIGIN} || u.target, f.name, v.warc_offset, r.url, v.digest, r.digest
FROM visit AS v CROSS JOIN held ON held.id = v.warc_file CROSS JOIN sink_file AS f ON f.id = v.warc_file
CROSS JOIN url AS u ON u.id = v.url CROSS JOIN host AS h ON h.id = u.host
LEFT JOIN record AS r ON r.file = v.warc_file AND r.at = v.warc_offset
WHERE r.url IS NULL OR r.url <> {_ORIGIN} || u.target OR (v.digest IS NOT NULL AND r.digest <> v.digest)"""  # noqa: S608
# Auxiliary requests (robots.txt and its redirects, probes) are no visits of URLs: the store has none of their records.
# Records of one URL are neighbours only after sorting, which SQLite does on the disk.
_TWICE: Final = """
SELECT r.url, count(*), coalesce(max(v.visits), 0)
FROM record AS r LEFT JOIN host AS h ON h.scheme || '://' || h.host || ':' || h.port = r.host
LEFT JOIN known AS u ON u.host = h.id AND u.hash = r.hash LEFT JOIN visit AS v ON v.url = u.id
WHERE NOT r.auxiliary
GROUP BY r.url HAVING u.id IS NOT NULL AND u.state <> 'forgotten' AND count(*) > max(1, coalesce(max(v.visits), 0))"""
_UNKNOWN: Final = """
SELECT r.url, f.name, r.at FROM record AS r CROSS JOIN sink_file AS f ON f.id = r.file
LEFT JOIN host AS h ON h.scheme || '://' || h.host || ':' || h.port = r.host
LEFT JOIN known AS u ON u.host = h.id AND u.hash = r.hash
WHERE u.id IS NULL AND NOT r.auxiliary AND NOT EXISTS (SELECT 1 FROM takedown AS t WHERE t.url = r.url)"""
_VANISHED: Final = f"""
SELECT {_ORIGIN} || u.target, u.state, r.name, c.name, p.name
FROM visit AS v CROSS JOIN url AS u ON u.id = v.url CROSS JOIN host AS h ON h.id = u.host
LEFT JOIN lost AS r ON r.id = v.warc_file LEFT JOIN lost AS c ON c.id = v.content_file
LEFT JOIN lost AS p ON p.id = v.pages_file
WHERE u.state <> 'forgotten' AND (r.id IS NOT NULL OR c.id IS NOT NULL OR p.id IS NOT NULL)"""  # noqa: S608
_LOST: Final = """
SELECT count(*) FROM url LEFT JOIN visit ON visit.url = url.id WHERE state = 'waiting' AND next_at IS NULL"""
_QUEUED: Final = """
SELECT h.host, h.queued, (SELECT count(*) FROM url AS u WHERE u.host = h.id AND u.state = 'queued') AS found
FROM host AS h WHERE h.queued <> found"""


class Auditor(StoreReader):
    """A store reader with one snapshot from `begin` on."""

    def begin(self) -> None:
        self._connection.execute(_GATHER).get  # noqa: B018 - runs it
        self._connection.execute("BEGIN; SELECT count(*) FROM meta").get  # noqa: B018 - takes the snapshot
        with self._explained():
            self._connection.execute(_FIND_LOST).get  # noqa: B018 - runs it
            self._connection.execute(_KNOWN if self._has_key_index else _KNOWN_SORTED).get  # noqa: B018 - runs it

    def own_problems(self) -> Iterator[str]:
        """Inconsistencies within the store."""
        for (word,) in self._execute("PRAGMA main.quick_check(20)"):
            if word != "ok":
                yield f"SQLite: {word}"
        counted = {word: n for word, n in orjson.loads(self.meta("totals") or "{}").items() if word != "hosts" and n}
        found: dict[str, int] = dict(self._execute("SELECT state, count(*) FROM url GROUP BY state"))
        if counted != found:
            yield f"the stored totals are {counts(counted) or 'none'}; the URLs are {counts(found) or 'none'}"
        marks, forgotten = self.marks(), found.get("forgotten", 0)
        if not 0 <= marks <= forgotten:
            yield f"the store counts {marks} of its {forgotten} rows of forgotten URLs as marks beside another row"
        for host, queued, by_urls in self._execute(_QUEUED):
            yield f"host {host}: its counter says {queued} queued, its URLs say {by_urls}"
        lost = self._get(_LOST, ())
        if lost:
            yield f"{count(lost, 'URL')} waiting without a due time: never to be fetched"

    def sink_files(self) -> list[tuple[int, str, str, str, int]]:
        """id, sink, name, state, committed bytes."""
        sql = "SELECT id, sink, name, state, committed_bytes FROM sink_file ORDER BY id"
        return [(i, sink, name, state, size) for i, sink, name, state, size in self._execute(sql)]

    def gather(self, rows: Sequence[tuple[int, int, str, str | None, str, int, bool]]) -> None:
        """Add responses and revisits: file id, offset, URL, payload digest, "scheme://host:port" and key of the URL,
        and whether it was an auxiliary request.
        """
        with self._explained():
            self._connection.executemany(_RECORD, rows)

    def hold(self, file_id: int) -> None:
        """Note that a WARC file was read to its end, so that visits can be compared with it."""
        self._connection.execute("INSERT OR IGNORE INTO held VALUES (?)", (file_id,))

    def is_held(self, file_id: int) -> bool:
        return self._get("SELECT 1 FROM held WHERE id = ?", (file_id,)) is not None

    def record(self, file_id: int, at: int, *, by_page: bool = False) -> tuple[str, str | None, int] | None:
        """URL, digest and number of lines in pages/ of a record; `by_page` counts one more line first."""
        if by_page:
            sql = "UPDATE record SET pages = pages + 1 WHERE file = ? AND at = ?"
            self._connection.execute(sql, (file_id, at))
        row: tuple[str, str | None, int] | None = self._get(
            "SELECT url, digest, pages FROM record WHERE file = ? AND at = ?", (file_id, at)
        )
        return row

    def cross_problems(self) -> Iterator[str]:
        """Differences between store and archive, after all records were added."""
        for url, name, at, found, digest, archived in self._execute(_VISITS):
            if found is None:
                yield f"{url}: the store has it in {name} at byte {at}, where no response begins"
            elif found != url:
                yield f"{url}: the store has it in {name} at byte {at}, where {found} is"
            else:
                yield f"{url}: its digest is {digest} in the store, {archived} in {name} at byte {at}"
        for url, times, visits in self._execute(_TWICE):
            yield f"{url}: archived {count(times, 'time')}, fetched {count(visits, 'time')}"
        for url, name, at in self._execute(_UNKNOWN):
            if not self._knows(url):
                yield f"{url}: archived in {name} at byte {at}, and unknown to the store"

    def lost_problems(self) -> Iterator[str]:
        """URLs whose last record, content or line was in a file that was lost while it was written. (A store of a
        version that lacks a column has no such file.)
        """
        if self._get("SELECT 1 FROM lost LIMIT 1", ()) is None:
            return
        for url, state, record, content, line in self._execute(_VANISHED):
            what, name = ("record", record) if record else ("content", content) if content else ("line", line)
            again = "; it will be fetched again" if state in ("queued", "waiting") else ""
            yield f"{url}: its {what} was in {name}, which is lost{again}"

    def _knows(self, url: str) -> bool:
        """Whether the store has the URL by another key."""
        href, origin = parse(url)
        host = self.host(origin)
        older = (legacy_key_of(href, kind) for kind in TaskKind)
        keys = (*every_key_of(href), *(key for key in older if key is not None))
        marks = ",".join("?" * len(keys))
        sql = f"SELECT 1 FROM known WHERE host = ? AND hash IN ({marks}) LIMIT 1"  # noqa: S608 - question marks
        return host is not None and self._get(sql, (host["id"], *keys)) is not None
