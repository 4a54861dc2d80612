"""Reads a store from outside, beside the crawl that owns it or while none does.

It takes no lock and writes nothing. It reads every version up to this program's; tables that an older version lacks
count as empty. Invariant: every query of one URL or host is a look-up in an index, however large the store is
(`unreached_seeds` has a time limit).

Read access is enough: SQLite reads a write-ahead log whose shared memory (NAME-shm) it may not write. While no crawl
runs and no log is left, the file is opened as immutable: no file is created beside it that could disturb the owner
later.
"""

import contextlib
import errno
import os
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Self
from urllib.parse import quote

import apsw
import orjson

from crawler.core.enums import TaskKind, UrlState
from crawler.core.models import Origin
from crawler.core.url import KEY_RULES, legacy_key_of, name_hash, registrable_domain
from crawler.frontier.base import BlockedHost, FrontierCorrupt, FrontierError
from crawler.frontier.rows import KEY_RULES_MADE, MARKS
from crawler.frontier.sqlite.database import check_version, refuse_foreign_log
from crawler.frontier.sqlite.sql import COUNT_MARKS

Row = Mapping[str, Any]
BUSY_MS: Final = 2_000

_AHEAD: Final = """
SELECT count(*) FROM (
  SELECT 1 FROM url WHERE host = ?1 AND state = 'queued' AND (priority, depth, id) < (?2, ?3, ?4) LIMIT ?5)"""
_SEEDS: Final = """
SELECT u.id, u.host, u.target, u.state, v.* FROM url AS u LEFT JOIN visit AS v ON v.url = u.id
WHERE u.source = 'seed' AND u.via IS NULL
  AND (u.state <> 'done' OR v.last_status IS NULL OR v.last_status >= 400) LIMIT ?"""
# What the hosts of `first_hosts` can be ordered by.
HOST_ORDERS: Final[Mapping[str, str]] = {
    "host": "host",
    "queued": "queued DESC, host",
    "fetched": "fetched DESC, host",
    "errors": "errors DESC, host",
    "bytes": "bytes DESC, host",
    "last": "last_at DESC, host",
    "ready": "ready_at, host",
}
_PARKED: Final = """id IN (
  SELECT id FROM host WHERE parked IN ('blocked', 'backoff', 'robots')
  UNION SELECT host FROM robots WHERE verdict = 'unreachable'
  UNION SELECT id FROM host WHERE key IN (SELECT value FROM json_each(?)))"""
_BESIDE: Final = """
WHERE host.id IN (
  SELECT id FROM host WHERE key IN (SELECT key FROM host WHERE id IN (SELECT value FROM json_each(?)))
    AND id NOT IN (SELECT value FROM json_each(?)) LIMIT ?)"""
_WITH_KEYS: Final = 10  # the version from which on hosts have their politeness key
_WITH_ROBOTS_ERROR: Final = 9  # the version from which on robots has the column `error`


class StoreUnreadable(FrontierError):
    """There is a store that may not be read (exit 77). The message says what it takes."""


class StoreReader:
    """The store at `path`, open for reading. `is_live`: a crawl owns it now. A context manager.

    All methods raise FileNotFoundError, StoreUnreadable, FrontierCorrupt, FrontierVersion or OSError.
    """

    def __init__(self, path: Path, *, is_live: bool) -> None:
        self._path = path
        if not path.exists():
            raise FileNotFoundError(errno.ENOENT, "there is no store of a crawl", str(path))
        if not is_live:  # the owner has checked it, and may be this process: see there
            refuse_foreign_log(path)
        log = path.with_name(path.name + "-wal")
        immutable = not is_live and not (log.exists() and log.stat().st_size > 0)
        name = f"file:{quote(str(path.resolve()))}?mode=ro{'&immutable=1' if immutable else ''}"
        with self._explained():
            self._connection = apsw.Connection(name, flags=apsw.SQLITE_OPEN_READONLY | apsw.SQLITE_OPEN_URI)
            try:
                self._connection.set_busy_timeout(BUSY_MS)
                self.version = self._identify()
                self._tables = {name for (name,) in self._connection.execute("SELECT name FROM sqlite_schema")}
                self._has_key_index = "url_key" in self._tables  # without: frontier.duplicates = "filter"
            except BaseException:
                self._connection.close()
                raise

    def _identify(self) -> int:
        application_id = self._connection.pragma("application_id")
        version = int(self._connection.pragma("user_version"))
        if application_id == 0 and version == 0 and self._path.stat().st_size == 0:
            raise FrontierCorrupt(f"{self._path} is empty: no crawl has stored anything in it yet")
        check_version(self._path, application_id, version)
        return version

    # -- one URL

    def url(self, host_id: int, key: int) -> Row | None:
        """The row of a URL by its host and key."""
        if self._has_key_index:
            return self._row("SELECT * FROM url WHERE host = ? AND hash = ?", (host_id, key))
        by_host = "SELECT * FROM url WHERE host = ?1 AND state {} 'queued' AND hash = ?2"  # each has an index
        return self._row(f"{by_host.format('=')} UNION ALL {by_host.format('<>')}", (host_id, key))

    def url_by_legacy_key(self, host_id: int, url: str) -> Row | None:
        """The row of a page by its legacy key, if that still counts: in a store that no crawl has brought up to date,
        and for a page that was taken down before that.
        """
        key = legacy_key_of(url, TaskKind.PAGE)
        row = None if key is None else self.url(host_id, key)
        if row is None or self.meta(KEY_RULES_MADE) != str(KEY_RULES):
            return row
        marked = "SELECT 1 FROM first_mark WHERE host = ? AND hash = ?"
        return row if row["state"] == UrlState.FORGOTTEN and self._get(marked, (host_id, key)) is not None else None

    def url_by_id(self, url_id: int) -> Row | None:
        return self._row("SELECT * FROM url WHERE id = ?", (url_id,))

    def visit(self, url_id: int) -> Row | None:
        """The last visit of a URL; None before the first attempt."""
        return self._row("SELECT * FROM visit WHERE url = ?", (url_id,))

    def ahead(self, row: Row, limit: int) -> int:
        """The number of queued URLs of its host before a queued URL; at most `limit` are counted."""
        return int(self._get(_AHEAD, (row["host"], row["priority"], row["depth"], row["id"], limit)))

    def sink_file(self, file_id: int) -> Row | None:
        return self._row("SELECT * FROM sink_file WHERE id = ?", (file_id,))

    # -- agents, in a copy of a database that they share

    @property
    def is_shared(self) -> bool:
        """Whether this is a copy that names agents."""
        return "slot_agent" in self._tables

    def slot_agents(self) -> dict[int, str | None]:
        """The owner of each slot, None of a free one; empty if the store is no copy of a database."""
        return {row["id"]: row["agent"] for row in self._rows_if("slot_agent", "SELECT id, agent FROM slot_agent")}

    def slot_agent(self, slot: int) -> str | None:
        """The owner of a slot."""
        rows = self._rows_if("slot_agent", "SELECT agent FROM slot_agent WHERE id = ?", (slot,))
        return rows[0]["agent"] if rows else None

    def file_agent(self, file_id: int) -> str | None:
        """The agent that wrote an output file."""
        rows = self._rows_if("agent_file", "SELECT agent FROM agent_file WHERE id = ?", (file_id,))
        return rows[0]["agent"] if rows else None

    # -- hosts

    def host(self, origin: Origin) -> Row | None:
        """The row of an origin."""
        sql = "SELECT * FROM host WHERE host = ? AND scheme = ? AND port = ?"
        return self._row(sql, (origin.host, origin.scheme, origin.port))

    def host_by_id(self, host_id: int) -> Row | None:
        return self._row("SELECT * FROM host WHERE id = ?", (host_id,))

    def origins_of(self, host: str) -> list[Row]:
        """The origins of a host name, one for each scheme and port."""
        return list(self._rows("SELECT * FROM host WHERE host = ?", (host,)))

    def denied_of(self, host: str) -> int:
        """The number of denied URLs of all origins of a host name."""
        sql = "SELECT count(*) AS urls FROM url WHERE host = ? AND state = 'denied'"
        return sum(row["urls"] for origin in self.origins_of(host) for row in self._rows(sql, (origin["id"],)))

    def first_hosts(
        self, order: str, host: str = "", *, only_parked: bool = False, now: float, limit: int
    ) -> list[int]:
        """The ids of the first `limit` hosts by `order` (of HOST_ORDERS), all or those whose name `host` is ("*.name":
        all below it). `only_parked`: only hosts that may not be requested now: their robots.txt cannot be read, they
        or their domain back off, or they are blocked.

        It looks through all hosts, or all names, without an order by them in memory.
        """
        conditions, values = ["true"], []
        if host.startswith("*."):
            conditions, values = ["substr(host, -length(?)) = ?"], [host[1:], host[1:]]
        elif host:
            conditions, values = ["host IN (?, ?)"], [host, f"[{host}]"]
        if only_parked:
            names = [name for (name,) in self._execute("SELECT key FROM rest WHERE until_at > ? LIMIT ?", (now, limit))]
            names += [block.name for block in self.blocks()[:limit]]
            names += [registrable_domain(name) for name in names]
            conditions.append(_PARKED)
            values.append(orjson.dumps(sorted(set(map(name_hash, names)))).decode())
        where = " AND ".join(conditions)
        sql = f"SELECT id FROM host WHERE {where} ORDER BY {HOST_ORDERS[order]} LIMIT ?"  # noqa: S608 - texts of ours
        return [id_ for (id_,) in self._execute(sql, (*values, limit))]

    def host_ids(self, host: str) -> list[int]:
        """The ids of the origins of a host name, without the brackets of an IPv6 address."""
        return [id_ for (id_,) in self._execute("SELECT id FROM host WHERE host IN (?, ?)", (host, f"[{host}]"))]

    def hosts_beside(self, host_ids: Sequence[int], limit: int) -> list[Row]:
        """Up to `limit` other hosts of the politeness keys of these hosts, as `hosts` has them."""
        ids = orjson.dumps(host_ids).decode()
        return list(self._hosts(_BESIDE, (ids, ids, limit)))

    def hosts(self, host_ids: Sequence[int] | None = None) -> Iterator[Row]:
        """Every host, or those with these ids, with the columns of its robots.txt as `robots_…` but for the text."""
        if host_ids is None:
            return self._hosts("", ())
        return self._hosts("WHERE host.id IN (SELECT value FROM json_each(?))", (orjson.dumps(host_ids).decode(),))

    def _hosts(self, where: str, values: Sequence[Any]) -> Iterator[Row]:
        yield from self._rows(
            f"""SELECT host.*, verdict AS robots_verdict, status_code AS robots_status,
                      fetched_at AS robots_fetched_at, expires_at AS robots_expires_at,
                      crawl_delay_s AS robots_crawl_delay_s, failing_since AS robots_failing_since,
                      {self._robots_error} AS robots_error
               FROM host LEFT JOIN robots ON robots.host = host.id {where}""",  # noqa: S608 - texts of ours
            values,
        )

    @property
    def has_keys(self) -> bool:
        """Whether `first_hosts` and `hosts_beside` may be called: not on a store that an older version wrote."""
        return self.version >= _WITH_KEYS

    @property
    def _robots_error(self) -> str:
        return "error" if self.version >= _WITH_ROBOTS_ERROR else "NULL"

    def unreadable_robots(self) -> list[Row]:
        """Numbers of hosts with an unreadable robots.txt, by `status_code` and `error`, the largest first."""
        by = f"SELECT status_code, {self._robots_error} AS error, count(*) AS hosts FROM robots"  # noqa: S608 - a name of ours
        return list(self._rows(f"{by} WHERE verdict = 'unreachable' GROUP BY 1, 2 ORDER BY 3 DESC, 1, 2"))

    def robots(self, host_id: int) -> Row | None:
        """The robots.txt of a host, with its text. Stores before version 9 have no column `error`."""
        return self._row("SELECT * FROM robots WHERE host = ?", (host_id,))

    def robots_versions(self, host_id: int) -> list[Row]:
        """The versions of a host's robots.txt, the newest first, without the text."""
        sql = "SELECT fetched_at, status_code, verdict, digest FROM robots_version WHERE host = ? ORDER BY id DESC"
        return self._rows_if("robots_version", sql, (host_id,))

    def backoff(self, key: str) -> Row | None:
        """The back-off of a politeness key."""
        return self._row("SELECT * FROM rest WHERE key = ?", (key,))

    def backoffs(self) -> dict[str, Row]:
        return {row["key"]: row for row in self._rows("SELECT * FROM rest")}

    def response_times(self) -> dict[str, float]:
        """The response times of slow politeness keys, in seconds."""
        return {row["key"]: row["response_s"] for row in self._rows_if("pace", "SELECT key, response_s FROM pace")}

    def response_time(self, key: str) -> float:
        """The response time of a slow politeness key, in seconds; 0 if it is not slow."""
        rows = self._rows_if("pace", "SELECT response_s FROM pace WHERE key = ?", (key,))
        return float(rows[0]["response_s"]) if rows else 0.0

    def queues_of_domain(self, host: Row) -> list[int]:
        """The number of queued URLs of each origin of the registrable domain of `host`."""
        sql, values = "SELECT queued FROM host WHERE domain = ?", [host["domain"]]
        if self.meta("politeness_key") == "domain":  # their key has an index
            sql, values = f"{sql} AND key = ?", [*values, host["key"]]
        return [row["queued"] for row in self._rows(sql, values)]

    def suspects(self, host_ids: Sequence[int] | None = None) -> list[Row]:
        """Number of suspects (`urls`) by `host` and `template`, of all hosts or those with these ids."""
        where, values = "", []
        if host_ids is not None:
            where, values = "WHERE host IN (SELECT value FROM json_each(?))", [orjson.dumps(host_ids).decode()]
        sql = f"SELECT host, template, count(*) AS urls FROM suspect {where} GROUP BY host, template"  # noqa: S608
        return self._rows_if("suspect", sql, values)

    def suspect(self, url_id: int) -> str | None:
        """The template that a URL is a suspect of."""
        rows = self._rows_if("suspect", "SELECT template FROM suspect WHERE url = ?", (url_id,))
        return rows[0]["template"] if rows else None

    def templates(self, host_id: int, names: Iterable[str]) -> list[Row]:
        """Those of these URL templates of a host that the store knows, in the given order."""
        sql = "SELECT * FROM url_template WHERE host = ? AND template = ?"
        return [row for name in names for row in self._rows_if("suspect", sql, (host_id, name))]

    def blocks(self) -> list[BlockedHost]:
        """Every blocked host and domain."""
        return [BlockedHost(**row) for row in self._rows_if("blocked", "SELECT name, kind, at, reason FROM blocked")]

    def is_forgotten(self, host: str) -> bool:
        """Whether a host was taken down."""
        return bool(self._rows_if("forgotten_host", "SELECT 1 FROM forgotten_host WHERE host = ?", (host,)))

    def scope_hosts(self) -> tuple[str, ...]:
        """Hosts that a redirect of a seed added to the scope."""
        return tuple(host for (host,) in self._execute("SELECT host FROM scope_host ORDER BY host"))

    # -- the whole

    def meta(self, name: str) -> str | None:
        """A value that the crawl stores about itself ("totals", "counters": JSON)."""
        value: str | None = self._get("SELECT value FROM meta WHERE name = ?", (name,))
        return value

    def totals(self) -> dict[str, int]:
        """Numbers of URLs by state, and "hosts". A URL that was taken down counts once, not once for each mark."""
        counts: dict[str, int] = orjson.loads(self.meta("totals") or "{}")
        if counts.get("forgotten"):
            counts["forgotten"] -= self.marks()
        return counts

    def marks(self) -> int:
        """The number of marks that do not count as URLs. An older store has to be searched for it."""
        stored = self.meta(MARKS)
        return int(self._get(COUNT_MARKS, ()) if stored is None else stored)

    def unreached_seeds(self, limit: int, *, within_s: float) -> tuple[list[Row], bool]:
        """Seeds without a good response, with their visits, and whether all URLs were searched in time: there is no
        index of seeds.
        """
        end_mono = time.monotonic() + within_s
        found: list[Row] = []
        self._connection.set_progress_handler(lambda: time.monotonic() > end_mono, 100_000)
        try:
            found.extend(self._rows(_SEEDS, (limit,)))
        except _TooLong:
            return found, False
        finally:
            self._connection.set_progress_handler(None)
        return found, True

    # -- statements

    def _execute(self, sql: str, values: Sequence[Any] = ()) -> Iterator[tuple[Any, ...]]:
        with self._explained():
            yield from self._connection.execute(sql, values)

    def _get(self, sql: str, values: Sequence[Any]) -> Any:
        with self._explained():
            return self._connection.execute(sql, values).get

    def _rows(self, sql: str, values: Sequence[Any] = ()) -> Iterator[Row]:
        with self._explained():
            cursor = self._connection.execute(sql, values)
            names: tuple[str, ...] | None = None
            for row in cursor:
                if names is None:
                    names = tuple(column[0] for column in cursor.get_description())
                yield dict(zip(names, row, strict=True))

    def _rows_if(self, table: str, sql: str, values: Sequence[Any] = ()) -> list[Row]:
        """The rows of a query on a table that older stores do not have."""
        return list(self._rows(sql, values)) if table in self._tables else []

    def _row(self, sql: str, values: Sequence[Any]) -> Row | None:
        return next(iter(list(self._rows(sql, values))), None)

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except apsw.Error as error:
            raise self._explain(error) from error

    def _explain(self, error: apsw.Error) -> Exception:
        match error:
            case apsw.InterruptError():
                return _TooLong()
            case apsw.NotADBError() | apsw.CorruptError() | apsw.FormatError():
                return FrontierCorrupt(f"{self._path} is damaged or no database: {error}")
            case apsw.ReadOnlyError() | apsw.CantOpenError() | apsw.PermissionsError() | apsw.AuthError():
                if not os.access(self._path, os.R_OK):
                    return PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(self._path))
                return StoreUnreadable(
                    f"{self._path} has a write-ahead log, and {self._path.name}-shm is missing or may not be read: "
                    "look as the crawl's user, or start the crawl once"
                )
            case apsw.IOError() | apsw.BusyError() | apsw.LockedError() | apsw.ProtocolError():
                return OSError(errno.EIO, f"cannot be read now: {error}", str(self._path))
            case _:
                return error

    def close(self) -> None:
        self._connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class _TooLong(Exception):
    """A question took longer than it may."""
