"""Snapshots of a whole store, for backup, export and the checks of `verify`. A crawl may run meanwhile.

No lock is taken, and the store is not changed. Invariant: each copy, list or check shows the store as it was at one
moment.
"""

import errno
import os
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import apsw
import orjson

from crawler.core.enums import TaskKind
from crawler.core.formatting import count, counts
from crawler.core.models import UNTIL_EVENT
from crawler.core.url import every_key_of, legacy_key_of, parse
from crawler.frontier.sqlite.sql import COPIED_AT, PUT_META, TAKEDOWNS
from crawler.frontier.sqlite.store_reader import StoreReader

_ORIGIN: Final = """{0}.scheme || '://' || {0}.host ||
  CASE WHEN {0}.port = iif({0}.scheme = 'https', 443, 80) THEN '' ELSE ':' || {0}.port END"""

# -- backup and export

COPY_PAGES: Final = 4_096  # of one step: 16 MiB between two calls of `progress`

URL_FIELDS: Final = (
    "url", "state", "kind", "depth", "priority", "source", "hop_path", "via", "found_at", "attempts", "visits",
    "last_at", "last_status", "last_error", "last_rule", "next_at", "etag", "last_modified", "digest", "warc_file",
    "warc_offset",
)  # fmt: skip
HOST_FIELDS: Final = (
    "origin", "domain", "state", "queued", "fetched", "ok", "errors", "bytes", "found_at", "last_at", "robots",
    "robots_fetched_at", "crawl_delay_s",
)  # fmt: skip

_URLS: Final = f"""
SELECT {_ORIGIN.format("h")} || u.target, u.state, {{kind}}, u.depth, u.priority, u.source, u.hop_path,
       {_ORIGIN.format("vh")} || vu.target, u.found_at, coalesce(v.attempts, 0), {{visits}}, v.last_at, v.last_status,
       v.last_error, v.last_rule, v.next_at, v.etag, v.last_modified, v.digest, f.name, v.warc_offset
FROM url AS u CROSS JOIN host AS h ON h.id = u.host LEFT JOIN visit AS v ON v.url = u.id
LEFT JOIN url AS vu ON vu.id = u.via LEFT JOIN host AS vh ON vh.id = vu.host
LEFT JOIN sink_file AS f ON f.id = v.warc_file
WHERE u.state <> 'forgotten' AND (?1 IS NULL OR u.state = ?1) ORDER BY u.id"""  # noqa: S608 - made of constants of this file
_HOSTS: Final = f"""
SELECT {_ORIGIN.format("h")}, domain, state, queued, fetched, ok, errors, bytes, found_at, last_at, r.verdict,
       r.fetched_at, r.crawl_delay_s
FROM host AS h LEFT JOIN robots AS r ON r.host = h.id ORDER BY h.id"""  # noqa: S608 - as above


class StoreBackup(StoreReader):
    """A store reader that copies the store or lists all of it. Raises the errors of StoreReader."""

    def urls(self, state: str | None = None) -> Iterator[tuple[Any, ...]]:
        """The values of URL_FIELDS for every URL that was not taken down, the first found URL first."""
        new = self.version >= 2
        kind, visits = ("coalesce(u.kind, 'page')", "coalesce(v.visits, 0)") if new else ("'page'", "0")
        yield from self._execute(_URLS.format(kind=kind, visits=visits), (state,))

    def takedowns(self) -> Iterator[tuple[Any, ...]]:
        """The records to remove from WARC files: URL, file, offset, and time of the takedown (UTC)."""
        if "takedown" in self._tables:
            yield from self._execute(TAKEDOWNS)

    def hosts_listed(self) -> Iterator[tuple[Any, ...]]:
        """The values of HOST_FIELDS for every host."""
        yield from self._execute(_HOSTS)

    def backup(self, target: Path, progress: Callable[[int, int], None]) -> None:
        """Copy the store as it is now to `target`, which must not exist. `progress` is called with the number of copied
        pages and of all pages. Raises FileExistsError, OSError.

        The crawl continues meanwhile; its write-ahead log grows, because a read transaction is held. The copy is marked
        as not cleanly closed: a crawl resumed from it first waits for every host's delay. It is also marked as
        restored: such a crawl keeps what its output files have beyond the copy.
        """
        if target.exists():
            raise FileExistsError(errno.EEXIST, "exists already: a backup overwrites nothing", str(target))
        partial = target.with_name(target.name + ".partial")
        partial.unlink(missing_ok=True)
        try:
            self._copy(partial, progress)
            with partial.open("rb") as file:
                os.fsync(file.fileno())
            os.link(partial, target)  # unlike a rename, this fails if the target exists by now
        finally:
            for suffix in ("", "-journal", "-wal"):
                partial.with_name(partial.name + suffix).unlink(missing_ok=True)
        folder = os.open(target.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

    def _copy(self, partial: Path, progress: Callable[[int, int], None]) -> None:
        try:
            copy = apsw.Connection(str(partial))
        except apsw.CantOpenError:
            raise FileNotFoundError(errno.ENOENT, "cannot be written there", str(partial)) from None
        try:
            with self._explained():
                # With a snapshot, a commit of the owner does not restart the copy.
                self._connection.execute("BEGIN; SELECT count(*) FROM meta").get  # noqa: B018 - takes the snapshot
                try:
                    with copy.backup("main", self._connection, "main") as backup:
                        while not backup.done:
                            backup.step(COPY_PAGES)
                            progress(backup.page_count - backup.remaining, backup.page_count)
                finally:
                    self._connection.execute("COMMIT")
            copy.pragma("journal_mode", "delete")
            copy.execute(PUT_META, ("clean", "0")).get  # noqa: B018 - runs it
            copy.execute(PUT_META, (COPIED_AT, str(int(time.time())))).get  # noqa: B018 - runs it
        except apsw.FullError as error:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(partial)) from error
        finally:
            copy.close()


# -- checks

_GATHER: Final = """
PRAGMA temp_store = file;
CREATE TEMP TABLE record (
  file INTEGER, at INTEGER, url TEXT, digest TEXT, scheme TEXT, host TEXT, port INTEGER, hash INTEGER,
  auxiliary INTEGER, pages INTEGER DEFAULT 0, PRIMARY KEY (file, at)
) WITHOUT ROWID;
CREATE TEMP TABLE held (id INTEGER PRIMARY KEY);
CREATE TEMP TABLE lost (id INTEGER PRIMARY KEY, name TEXT);
CREATE TEMP TABLE elsewhere (id INTEGER PRIMARY KEY, agent TEXT);"""
_FIND_LOST: Final = """
INSERT INTO lost SELECT id, sink || '/' || name FROM main.sink_file
WHERE state IN ('losing', 'lost') AND id NOT IN (SELECT id FROM elsewhere)"""
# In a copy of a database: the output files of agents whose directories are not checked.
_FIND_ELSEWHERE: Final = """
INSERT INTO elsewhere SELECT id, agent FROM main.agent_file WHERE agent NOT IN (SELECT value FROM json_each(?))"""
_COUNT_ELSEWHERE: Final = """
SELECT e.agent, count(DISTINCT v.url) FROM visit AS v
CROSS JOIN elsewhere AS e ON e.id IN (v.warc_file, v.content_file, v.pages_file) GROUP BY e.agent ORDER BY e.agent"""
_RECORD: Final = """
INSERT OR REPLACE INTO record (file, at, url, digest, scheme, host, port, hash, auxiliary)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"""
_KNOWN: Final = "CREATE TEMP VIEW known AS SELECT id, host, hash, state FROM main.url"
_KNOWN_SORTED: Final = """
CREATE TEMP TABLE known (host INTEGER, hash INTEGER, id INTEGER, state TEXT, PRIMARY KEY (host, hash)) WITHOUT ROWID;
INSERT INTO known SELECT host, hash, id, state FROM main.url ORDER BY host, hash"""
_VISITS: Final = f"""
SELECT {_ORIGIN.format("h")} || u.target, f.name, v.warc_offset, r.url
FROM visit AS v CROSS JOIN held ON held.id = v.warc_file CROSS JOIN sink_file AS f ON f.id = v.warc_file
CROSS JOIN url AS u ON u.id = v.url CROSS JOIN host AS h ON h.id = u.host
LEFT JOIN record AS r ON r.file = v.warc_file AND r.at = v.warc_offset
WHERE r.url IS NULL OR r.url <> {_ORIGIN.format("h")} || u.target"""  # noqa: S608 - as above
# The digest is that of the content. The last record may be another one: a revisit record, a redirect, an error.
_DIGESTS: Final = f"""
SELECT {_ORIGIN.format("h")} || u.target, f.name, r.at, v.digest, r.digest
FROM visit AS v CROSS JOIN record AS r
  ON r.file = coalesce(v.content_file, v.warc_file) AND r.at = coalesce(v.content_offset, v.warc_offset)
CROSS JOIN sink_file AS f ON f.id = r.file
CROSS JOIN url AS u ON u.id = v.url CROSS JOIN host AS h ON h.id = u.host
WHERE r.digest <> v.digest"""  # noqa: S608 - as above
# Auxiliary requests (robots.txt and its redirects, probes) are no visits of URLs: the store has none of their records.
# Records of one URL are neighbours only after sorting, which SQLite does on the disk.
_TWICE: Final = """
SELECT r.url, count(*), coalesce(max(v.visits), 0)
FROM record AS r LEFT JOIN host AS h ON h.host = r.host AND h.scheme = r.scheme AND h.port = r.port
LEFT JOIN known AS u ON u.host = h.id AND u.hash = r.hash LEFT JOIN visit AS v ON v.url = u.id
WHERE NOT r.auxiliary
GROUP BY r.url HAVING u.id IS NOT NULL AND u.state <> 'forgotten' AND count(*) > max(1, coalesce(max(v.visits), 0))"""
_UNKNOWN: Final = """
SELECT r.url, f.name, r.at FROM record AS r CROSS JOIN sink_file AS f ON f.id = r.file
LEFT JOIN host AS h ON h.host = r.host AND h.scheme = r.scheme AND h.port = r.port
LEFT JOIN known AS u ON u.host = h.id AND u.hash = r.hash
WHERE u.id IS NULL AND NOT r.auxiliary AND NOT EXISTS (SELECT 1 FROM takedown AS t WHERE t.url = r.url)"""
_VANISHED: Final = f"""
SELECT {_ORIGIN.format("h")} || u.target, u.state, r.name, c.name, p.name
FROM visit AS v CROSS JOIN url AS u ON u.id = v.url CROSS JOIN host AS h ON h.id = u.host
LEFT JOIN lost AS r ON r.id = v.warc_file LEFT JOIN lost AS c ON c.id = v.content_file
LEFT JOIN lost AS p ON p.id = v.pages_file
WHERE u.state <> 'forgotten' AND (r.id IS NOT NULL OR c.id IS NOT NULL OR p.id IS NOT NULL)"""  # noqa: S608 - as above
_LOST: Final = """
SELECT count(*) FROM url LEFT JOIN visit ON visit.url = url.id WHERE state = 'waiting' AND next_at IS NULL"""
_QUEUED: Final = """
SELECT h.host, h.queued, (SELECT count(*) FROM url AS u WHERE u.host = h.id AND u.state = 'queued') AS found
FROM host AS h WHERE h.queued <> found"""

_WITH_WORK: Final = """
SELECT count(*) AS found FROM host AS h
WHERE EXISTS (SELECT 1 FROM url AS u WHERE u.host = h.id AND u.state IN ('queued', 'suspect'))"""
_OUT_OF_TURN: Final = f"""
SELECT h.host FROM host AS h LEFT JOIN politeness_key AS k ON k.id = h.key
WHERE (h.queued + h.suspects) > 0 AND h.ready_at < {UNTIL_EVENT}
  AND (k.id IS NULL OR (k.active = 0 AND (k.ready_at IS NULL OR k.ready_at > max(h.ready_at, k.open_at))))"""  # noqa: S608 - as above
_WITH_READINESS: Final = 10  # the version from which on hosts and politeness keys have their readiness
_NOT_URLS: Final = ("hosts", "hosts_with_work")  # counts in the totals that are no counts of URLs


class Auditor(StoreReader):
    """A store reader that checks whether a store is consistent, by itself and with the records in the output files.

    The records are collected in a temporary table on disk, so that memory stays bounded for an archive of any size.
    Invariant: all comparisons are with the snapshot that `begin` takes.
    """

    def begin(self, agents: Sequence[str] = ()) -> None:
        """Take the snapshot and make the temporary tables. `agents`: whose output files are checked, of a database."""
        self._connection.execute(_GATHER).get  # noqa: B018 - runs it
        self._connection.execute("BEGIN; SELECT count(*) FROM meta").get  # noqa: B018 - takes the snapshot
        with self._explained():
            if "agent_file" in self._tables:
                self._connection.execute(_FIND_ELSEWHERE, (orjson.dumps(agents).decode(),)).get  # noqa: B018 - runs it
            self._connection.execute(_FIND_LOST).get  # noqa: B018 - runs it
            self._connection.execute(_KNOWN if self._has_key_index else _KNOWN_SORTED).get  # noqa: B018 - runs it

    def own_problems(self) -> Iterator[str]:
        """Yield the inconsistencies within the store."""
        for (word,) in self._execute("PRAGMA main.quick_check(20)"):
            if word != "ok":
                yield f"SQLite: {word}"
        totals: dict[str, int] = orjson.loads(self.meta("totals") or "{}")
        counted = {word: n for word, n in totals.items() if word not in _NOT_URLS and n}
        found: dict[str, int] = dict(self._execute("SELECT state, count(*) FROM url GROUP BY state"))
        if counted != found:
            yield f"the stored totals are {counts(counted) or 'none'}; the URLs are {counts(found) or 'none'}"
        marks, forgotten = self.marks(), found.get("forgotten", 0)
        if not 0 <= marks <= forgotten:
            yield f"the store counts {marks} of its {forgotten} rows of forgotten URLs as marks beside another row"
        for host, queued, by_urls in self._execute(_QUEUED):
            yield f"host {host}: its counter says {queued} queued, its URLs say {by_urls}"
        if self.version >= _WITH_READINESS:
            if (with_work := totals.get("hosts_with_work")) not in (None, working := self._get(_WITH_WORK, ())):
                yield f"the store counts {count(with_work or 0, 'host')} with work; by their URLs it is {working}"
            for (host,) in self._execute(_OUT_OF_TURN):
                yield f"host {host}: it has work, and its politeness key is not where the crawl looks for it"
        lost = self._get(_LOST, ())
        if lost:
            yield f"{count(lost, 'URL')} waiting without a due time: never to be fetched"

    def sink_files(self, agent: str) -> list[tuple[int, str, str, str, int]]:
        """Id, sink, name, state and committed bytes of each output file, in a copy of a database those of the agent."""
        of_agent = " WHERE id IN (SELECT id FROM agent_file WHERE agent = ?)" if "agent_file" in self._tables else ""
        sql = f"SELECT id, sink, name, state, committed_bytes FROM sink_file{of_agent} ORDER BY id"  # noqa: S608 - ours
        rows = self._execute(sql, (agent,) if of_agent else ())
        return [(i, sink, name, state, size) for i, sink, name, state, size in rows]

    def elsewhere(self) -> list[tuple[str, int]]:
        """Agents whose directories are not checked, and how many URLs have their last record, content or line there."""
        return [(agent, urls) for agent, urls in self._execute(_COUNT_ELSEWHERE)]

    def gather(self, rows: Sequence[tuple[int, int, str, str | None, str, str, int, int, bool]]) -> None:
        """Add responses and revisits: file id, offset, URL, payload digest, scheme, host, port and key of the URL, and
        whether it was an auxiliary request.
        """
        with self._explained():
            self._connection.executemany(_RECORD, rows)

    def hold(self, file_id: int) -> None:
        """Note that a WARC file was read to its end. Visits are compared with such files only."""
        self._connection.execute("INSERT OR IGNORE INTO held VALUES (?)", (file_id,))

    def is_held(self, file_id: int) -> bool:
        return self._get("SELECT 1 FROM held WHERE id = ?", (file_id,)) is not None

    def record(self, file_id: int, at: int, *, by_page: bool = False) -> tuple[str, str | None, int] | None:
        """Return URL, digest and number of lines in pages/ of a record; None if there is no such record. `by_page`: add
        one to that number first.
        """
        if by_page:
            sql = "UPDATE record SET pages = pages + 1 WHERE file = ? AND at = ?"
            self._connection.execute(sql, (file_id, at))
        row: tuple[str, str | None, int] | None = self._get(
            "SELECT url, digest, pages FROM record WHERE file = ? AND at = ?", (file_id, at)
        )
        return row

    def cross_problems(self) -> Iterator[str]:
        """Yield the differences between store and archive. Call it after all records were added."""
        for url, name, at, found in self._execute(_VISITS):
            if found is None:
                yield f"{url}: the store has it in {name} at byte {at}, where no response begins"
            else:
                yield f"{url}: the store has it in {name} at byte {at}, where {found} is"
        for url, name, at, digest, archived in self._execute(_DIGESTS):
            yield f"{url}: its digest is {digest} in the store, {archived} in {name} at byte {at}"
        for url, times, visits in self._execute(_TWICE):
            yield f"{url}: archived {count(times, 'time')}, fetched {count(visits, 'time')}"
        for url, name, at in self._execute(_UNKNOWN):
            if not self._knows(url):
                yield f"{url}: archived in {name} at byte {at}, and unknown to the store"

    def lost_problems(self) -> Iterator[str]:
        """Yield the URLs whose last record, content or line was in a file that was lost while it was written. (Old
        versions of the store lack a column used here, but such a store has no lost file.)
        """
        if self._get("SELECT 1 FROM lost LIMIT 1", ()) is None:
            return
        for url, state, record, content, line in self._execute(_VANISHED):
            what, name = ("record", record) if record else ("content", content) if content else ("line", line)
            again = "; it will be fetched again" if state in ("queued", "waiting") else ""
            yield f"{url}: its {what} was in {name}, which is lost{again}"

    def _knows(self, url: str) -> bool:
        """Whether the store has the URL under another key."""
        href, origin = parse(url)
        host = self.host(origin)
        older = (legacy_key_of(href, kind) for kind in TaskKind)
        keys = (*every_key_of(href), *(key for key in older if key is not None))
        marks = ",".join("?" * len(keys))
        sql = f"SELECT 1 FROM known WHERE host = ? AND hash IN ({marks}) LIMIT 1"  # noqa: S608 - question marks
        return host is not None and self._get(sql, (host["id"], *keys)) is not None
