"""Copies a whole store: from a SQLite file into a PostgreSQL database, and back. Reads a database beside its crawl.

Of several agents a file has what they counted together, and the output files of all. What one agent noted for itself
(how far it has come with new rules) is not copied.

Rows are compared in one form, that of SQLite, where an id is the sequence number of the other's; several agents number
for themselves, and then they are numbered anew, in the same order. Of each table the rows
are counted and their digests added up on both sides: the copy counts if all are equal.

Invariants: the source does not change. What is read of a database is its state at one moment.
"""

import time
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import asyncpg
import orjson
from xxhash import xxh3_128_intdigest

from crawler.core.formatting import count
from crawler.core.ownership import ONLY_AGENT, SLOT_BITS, slot_in
from crawler.core.url import name_hash
from crawler.frontier.base import BlockedHost, FrontierError, FrontierLocked
from crawler.frontier.postgresql.connection import LOCK, SESSION_OF_READER, address_of
from crawler.frontier.postgresql.fleet_control import snapshot, summed
from crawler.frontier.postgresql.readiness import KEY_MODE
from crawler.frontier.postgresql.slots import CRAWL, end_of, key_id_of, made_id, slot_of_host
from crawler.frontier.postgresql.sql import BLOCKS, INBOX, LIVING
from crawler.frontier.postgresql.store import PostgresFrontier
from crawler.frontier.rows import KEY_NAMES, MARKS
from crawler.frontier.sqlite import sql
from crawler.frontier.sqlite.database import Database
from crawler.frontier.sqlite.insertions import use_index
from crawler.frontier.sqlite.store import SqliteFrontier
from crawler.frontier.sqlite.writer import TIMES

Row = tuple[Any, ...]
_ROWS_AT_ONCE: Final = 5_000
_HOST: Final = "host"  # kinds of columns: ids of …
_URL: Final = "url"
_KEY: Final = "key"
_MARK: Final = "unswept:"  # names in `meta` of what the database has in tables of its own, or by host
_ERROR_PAGES: Final = "error_pages:"


@dataclass(frozen=True, slots=True)
class Table:
    """A table in both stores. `columns`: its names in SQLite, with what their values are ids of. `renamed`: names in
    PostgreSQL that differ. `slot_by`: the column by which its rows have a slot, an id or a host name; "": the crawl's.
    """

    name: str
    columns: Mapping[str, str]
    database_name: str = ""
    renamed: Mapping[str, str] = field(default_factory=dict)
    slot_by: str = ""
    order: str = ""  # of the rows in SQLite, where it has a meaning

    @property
    def in_database(self) -> str:
        return self.database_name or self.name

    @property
    def database_columns(self) -> list[str]:
        return [self.renamed.get(name, name) for name in self.columns]


def _columns(text: str, **kinds: str) -> dict[str, str]:
    return {name: kinds.get(name, "") for name in text.split()}


_TABLES: Final = (
    Table(
        "host",
        _columns(
            "id scheme host port domain state queued fetched ok errors bytes found_at last_at key suspects ready_at "
            "parked failures reason responded",
            id=_HOST, key=_KEY,
        ),
        slot_by="id",
    ),
    Table("politeness_key", _columns("id requested_at open_at ready_at crawl_delay_s active", id=_KEY), slot_by="id"),
    Table(
        "robots",
        _columns(
            "host verdict status_code body fetched_at expires_at crawl_delay_s failing_since error", host=_HOST
        ),
        slot_by="host",
    ),
    Table(
        "robots_version",
        _columns("host id fetched_at status_code verdict digest body", host=_HOST),
        renamed={"id": "number"}, slot_by="host", order="host, id",
    ),
    Table(
        "url",
        _columns(
            "id host hash priority depth state target via source hop_path redirects found_at kind",
            id=_URL, host=_HOST, via=_URL,
        ),
        slot_by="id",
    ),
    Table(
        "visit",
        _columns(
            "url next_at attempts last_at last_status last_error last_rule etag last_modified digest change_a change_t "
            "warc_file warc_offset visits changed_at gone_count in_links ended content_file content_offset pages_file",
            url=_URL,
        ),
        slot_by="url",
    ),
    Table("sitemap_hint", _columns("url priority lastmod seen_at", url=_URL), slot_by="url"),
    Table("sampled_page", _columns("url host words", url=_URL, host=_HOST), slot_by="url"),
    Table(
        "url_template", _columns("host template pages spent good since_at released_at", host=_HOST), slot_by="host"
    ),
    Table("suspect", _columns("url host template", url=_URL, host=_HOST), slot_by="url"),
    Table("rest", _columns("key until_at strikes reason"), "backoff", {"strikes": "failures"}, slot_by="key"),
    Table("pace", _columns("key response_s updated_at"), "slow_response", slot_by="key"),
    Table("scope_host", _columns("host added_at")),
    Table("blocked", _columns("name kind at reason")),
    Table("forgotten_host", _columns("host at"), slot_by="host"),
    Table("first_mark", _columns("host hash", host=_HOST), "legacy_mark", slot_by="host"),
    Table("takedown", _columns("id url warc_file warc_offset at"), renamed={"id": "number"}, slot_by=""),
    Table("sink_file", _columns("id sink name state committed_bytes")),
)  # fmt: skip
# What a file that is only read has of agents.
_OF_AGENTS: Final = {
    "slot_agent": "SELECT id, CASE WHEN NOT is_free THEN agent END FROM slot",
    "agent_file": "SELECT id, agent FROM sink_file",
}
_NAMED_TWICE: Final = "SELECT sink, name FROM sink_file GROUP BY sink, name HAVING count(*) > 1 LIMIT 1"
_NUMBERED: Final = {"robots_version", "takedown"}  # their `id` only orders rows: it is not compared


@dataclass(slots=True)
class Content:
    """Number of rows and sum of their digests."""

    rows: int = 0
    digest: int = 0

    def add(self, table: str, row: Row) -> None:
        values = [value.hex() if isinstance(value, bytes) else float(value) if isinstance(value, bool) else value
                  for value in row]  # fmt: skip
        if table in _NUMBERED:
            values.pop(1 if table == "robots_version" else 0)
        self.rows += 1
        self.digest = (self.digest + xxh3_128_intdigest(orjson.dumps(values))) % (1 << 128)


@dataclass(slots=True)
class _KeyIds:
    """The ids of politeness keys in both stores, by the names of hosts that were seen."""

    name_of: Callable[[str], str]
    to_database: dict[int, int] = field(default_factory=dict)
    to_sqlite: dict[int, int] = field(default_factory=dict)

    def see(self, host: str) -> None:
        name = self.name_of(host)
        ours, theirs = name_hash(name), key_id_of(name)
        self.to_database[ours], self.to_sqlite[theirs] = theirs, ours


async def copy_store(source: str, target: str) -> dict[str, int]:
    """Copy a store between a SQLite file (or a directory with frontier.db) and the database of a DSN. Both are opened
    as a crawl would, so no crawl may run, and no agent of one. Returns the number of rows of each table.

    Raises FrontierError, FileNotFoundError, FileExistsError.
    """
    if is_dsn(source) == is_dsn(target):
        raise FrontierError("a store is copied from a directory to a database, or from a database to a directory")
    if is_dsn(source):
        path = _file(target)
        if path.exists():
            raise FileExistsError(17, "exists already: a copy overwrites nothing", str(path))
        await _end_sharing(source)
        return await export_to(path, source)
    path = _file(source)
    if not path.exists():
        raise FileNotFoundError(2, "there is no store of a crawl", str(path))
    store = SqliteFrontier(path)
    recovered = await store.open()
    await store.close(clean=recovered.clean)
    return await _import_from(path, target)


def is_dsn(text: str) -> bool:
    return text.startswith(("postgresql://", "postgres://"))


def _file(text: str) -> Path:
    path = Path(text)
    return path / "frontier.db" if path.is_dir() else path


# -- from a database


async def _end_sharing(dsn: str) -> None:
    """Take all slots, and what agents found for each other, as the only agent. Raises FrontierLocked if one lives."""
    async with snapshot(dsn, None) as connection:
        names = [row[0] for row in await connection.fetch(LIVING, LOCK)]
    if names:
        raise FrontierLocked(
            f"{address_of(dsn)} is in use by {'the agents ' if names[1:] else 'the agent '}{', '.join(names)}: "
            "`crawler stop` ends each, then the store can be copied"
        )
    frontier = PostgresFrontier(dsn)
    recovered = await frontier.open()
    try:
        while await frontier.agents.empty_inbox(now=time.time(), hint_after_s=None) is not None:
            pass
    finally:
        await frontier.close(clean=recovered.clean)


async def export_to(path: Path, dsn: str, *, password: str | None = None, names_agents: bool = False) -> dict[str, int]:
    """Write what a database has now to a new SQLite file, also while a crawl runs, and compare both. `names_agents`:
    the file is read and not crawled with, and says which agent has which slots and output files. Returns the number of
    rows of each table. Raises FrontierLocked if a store for a crawl would lack something, FrontierError, OSError.
    """
    async with snapshot(dsn, password) as connection:
        states = await connection.fetch("SELECT * FROM settled")
        if not states:
            raise FrontierError(f"{address_of(dsn)} has no crawl")
        if twice := await connection.fetchrow(_NAMED_TWICE):
            raise FrontierError(f"{address_of(dsn)} has two output files {'/'.join(twice)}, of different agents")
        if not names_agents and (urls := (await connection.fetchrow(INBOX))[1]):
            raise FrontierLocked(
                f"{address_of(dsn)} has {count(urls, 'URL')} on the way from one agent to another, which a copy would "
                "lose: end the agents, then `crawler frontier copy` takes them along"
            )
        mode = await _value(connection, KEY_MODE) or b"domain"
        keys = _KeyIds(KEY_NAMES[mode.decode()])
        database = Database(path)
        contents: dict[str, Content] = {}
        try:
            with database.transaction():
                if names_agents:
                    numbers: _Number = _same
                else:
                    numbers = _sequence if len(states) == 1 else await _numbered_anew(connection, database)
                for table in _TABLES:
                    rows = _read_database(connection, table, keys, numbers)
                    contents[table.name] = await _write_table(database, table, rows)
                if names_agents:
                    for table_name, statement in _OF_AGENTS.items():
                        database.run(f"CREATE TABLE {table_name} (id INTEGER PRIMARY KEY, agent TEXT)")
                        for row in await connection.fetch(statement):
                            database.run(f"INSERT INTO {table_name} VALUES (?, ?)", tuple(row))
                for name, value in await _meta_of(connection, states, numbers):
                    database.run(sql.PUT_META, (name, value))
                for statement in sql.MAKE_KEYS[1:]:
                    database.run(statement)
            use_index(database, unique=True)
            for table in _TABLES:
                _compare(table.name, contents[table.name], _content(table.name, _read_file(database, table)))
        finally:
            database.close()
    return {name: content.rows for name, content in contents.items()}


async def blocks_of(dsn: str, *, password: str | None = None) -> list[BlockedHost]:
    """The blocks that a database has, also while a crawl runs; none without a crawl. Raises FrontierUnreachable."""
    async with snapshot(dsn, password) as connection:
        if not await connection.fetchval("SELECT to_regclass('crawler_version') IS NOT NULL"):
            return []
        return [BlockedHost(*row) for row in await connection.fetch(BLOCKS)]


_Number = Callable[[str, int], int]  # a kind (_HOST, _URL) and an id in the database → the id in the file


def _same(_kind: str, id_: int) -> int:
    return id_


def _sequence(_kind: str, id_: int) -> int:
    return id_ >> SLOT_BITS


async def _numbered_anew(connection: asyncpg.Connection, database: Database) -> _Number:
    """Numbers for the ids of hosts and URLs, in their order; of another number that of the last id up to it."""
    for kind in (_HOST, _URL):
        database.run(f"CREATE TEMP TABLE numbered_{kind} (id INTEGER PRIMARY KEY, number INTEGER)")
        number = 0
        async for (id_,) in connection.cursor(f"SELECT id FROM {kind} ORDER BY id", prefetch=_ROWS_AT_ONCE):
            number += 1
            database.run(f"INSERT INTO numbered_{kind} VALUES (?, ?)", (id_, number))

    def number_of(kind: str, id_: int) -> int:
        found = database.get(f"SELECT number FROM numbered_{kind} WHERE id <= ? ORDER BY id DESC LIMIT 1", (id_,))
        return int(found or 0)

    return number_of


async def _read_database(
    connection: asyncpg.Connection, table: Table, keys: _KeyIds, numbers: _Number = _sequence
) -> AsyncIterator[Row]:
    """The rows of a table in the form of SQLite."""
    names = ", ".join(table.database_columns)
    order = " ORDER BY host, number" if table.name == "robots_version" else " ORDER BY number" * (
        table.name == "takedown"
    )  # fmt: skip
    kinds = list(table.columns.values())
    host_at = list(table.columns).index("host") if table.name == "host" else None
    statement = f"SELECT {names} FROM {table.in_database}{order}"
    number = 0
    async for record in connection.cursor(statement, prefetch=_ROWS_AT_ONCE):
        if host_at is not None:
            keys.see(record[host_at])
        row: list[Any] = [_id_in_file(kind, value, keys, numbers) for kind, value in zip(kinds, record, strict=True)]
        if table.name == "politeness_key":
            if row[0] is None:  # a key without hosts
                continue
            row[-1] = int(row[-1])
        if table.name == "robots_version":
            number += 1
            row[1] = number
        yield tuple(row)


def _id_in_file(kind: str, value: Any, keys: _KeyIds, numbers: _Number) -> Any:
    if value is None or not kind:
        return value
    return keys.to_sqlite.get(value) if kind == _KEY else numbers(kind, value)


async def _write_table(database: Database, table: Table, rows: AsyncIterator[Row]) -> Content:
    content = Content()
    names = list(table.columns)
    is_host = table.name == "host"
    head = f"INSERT INTO {table.name} ({', '.join(names)}{', slot' if is_host else ''})"
    marks = ", ".join("?" * (len(names) + is_host))
    async for row in rows:
        content.add(table.name, row)
        more = (slot_of_host(row[names.index("host")]),) if is_host else ()
        database.run(f"{head} VALUES ({marks})", (*row, *more))
    return content


async def _value(connection: asyncpg.Connection, name: str) -> bytes | None:
    found: bytes | None = await connection.fetchval(
        "SELECT value FROM crawl_value WHERE slot = $1 AND name = $2", CRAWL, name
    )
    return found


async def _meta_of(
    connection: asyncpg.Connection, states: Sequence[Mapping[str, Any]], numbers: _Number
) -> list[tuple[str, Any]]:
    """The rows of `meta`: values of the crawl, and what the agents counted."""
    visited = [state["last_visit_at"] for state in states if state["last_visit_at"] is not None]
    times = [max(state["schedule_at"] for state in states), max(visited, default=None)]
    found: list[tuple[str, Any]] = [
        ("clean", str(int(all(state["clean"] for state in states)))),
        (MARKS, str(sum(state["marks"] for state in states))),
        (TIMES, orjson.dumps(times).decode()),
    ]
    for name in ("totals", "counters"):
        if texts := [state[name] for state in states if state[name] is not None]:
            found.append((name, orjson.dumps(summed(texts)).decode()))
    for name, value in await connection.fetch("SELECT name, value FROM crawl_value WHERE name NOT LIKE '%@%'"):
        found.append(_value_in_file(name, value, numbers))
    for host, mark in await connection.fetch("SELECT host, mark FROM reevaluation"):
        found.append((f"{_MARK}{numbers(_HOST, host)}", str(mark)))
    return found


def _value_in_file(name: str, value: bytes, numbers: _Number) -> tuple[str, Any]:
    """A value of the crawl in the form of SQLite: ids in it are others there."""
    if name.startswith(_ERROR_PAGES):
        return f"{_ERROR_PAGES}{numbers(_HOST, int(name.removeprefix(_ERROR_PAGES)))}", value
    if name.startswith("kept:"):
        return name, value
    text = value.decode()
    match name:
        case "dated" if text != "all":
            text = str(numbers(_URL, int(text)))
        case "sweep":
            generation, after, last = orjson.loads(text)
            text = orjson.dumps([generation, numbers(_HOST, after), numbers(_HOST, last)]).decode()
        case "round":
            text = _round_with(text, lambda id_: numbers(_URL, id_))
    return name, text


def _round_with(text: str, to: Callable[[int], int]) -> str:
    one = orjson.loads(text)
    changed = {name: to(one[name]) for name in ("last_id", "queued_to") if one.get(name) is not None}
    return orjson.dumps(one | changed).decode()


# -- from a file


async def _import_from(path: Path, dsn: str) -> dict[str, int]:
    """Write a SQLite file to a database without rows, in one transaction, and compare both."""
    frontier = PostgresFrontier(dsn)  # makes the schema
    recovered = await frontier.open()
    await frontier.close(clean=True)
    if recovered.hosts or recovered.sink_files:
        raise FrontierError(f"{address_of(dsn)} has a crawl already: a copy overwrites nothing")
    database = Database(path)
    connection = await asyncpg.connect(dsn or None, server_settings=SESSION_OF_READER)
    contents: dict[str, Content] = {}
    try:
        meta = dict(database.rows("SELECT name, value FROM meta"))
        keys = _KeyIds(KEY_NAMES[str(meta.get("politeness_key", "domain"))])
        slots: dict[int, int] = {}  # host → slot, for its URLs
        async with connection.transaction():
            for table in _TABLES:
                contents[table.name] = await _load_table(connection, database, table, keys, slots)
            await _load_meta(connection, database, meta, slots)
            for table in _TABLES:
                stored = Content()
                async for row in _read_database(connection, table, keys):
                    stored.add(table.name, row)
                _compare(table.name, contents[table.name], stored)
    finally:
        await connection.close()
        database.close()
    return {name: content.rows for name, content in contents.items()}


def _read_file(database: Database, table: Table) -> Iterator[Row]:
    """The rows of a table of SQLite; of politeness keys those that hosts have."""
    names = ", ".join(table.columns)
    where = " WHERE id IN (SELECT key FROM host)" if table.name == "politeness_key" else ""
    order = f" ORDER BY {table.order}" if table.order else ""
    yield from database.rows(f"SELECT {names} FROM {table.name}{where}{order}")


async def _load_table(
    connection: asyncpg.Connection, database: Database, table: Table, keys: _KeyIds, slots: dict[int, int]
) -> Content:
    content = Content()
    names = table.database_columns
    extra = ["agent"] if table.name == "sink_file" else ["slot"]
    if table.name == "host":
        extra.append("has_work")
    held: list[list[Any]] = []
    url_slots = _UrlSlots(database, slots)
    for row in _read_file(database, table):
        content.add(table.name, row)
        held.append(_in_database(table, row, keys, slots, url_slots))
        if len(held) >= _ROWS_AT_ONCE:
            await connection.copy_records_to_table(table.in_database, records=held, columns=[*names, *extra])
            held.clear()
    if held:
        await connection.copy_records_to_table(table.in_database, records=held, columns=[*names, *extra])
    if table.name in ("sink_file", "takedown"):
        column = "id" if table.name == "sink_file" else "number"
        await connection.execute(
            f"SELECT setval(pg_get_serial_sequence('{table.in_database}', '{column}'), "
            f"(SELECT max({column}) FROM {table.in_database}))"
        )
    return content


class _UrlSlots:
    """The slots of URLs, by their hosts."""

    def __init__(self, database: Database, slots: Mapping[int, int]) -> None:
        self._database = database
        self._slots = slots

    def of(self, url_id: int) -> int:
        return self._slots[self._database.get("SELECT host FROM url WHERE id = ?", (url_id,))]


def _in_database(table: Table, row: Row, keys: _KeyIds, slots: dict[int, int], url_slots: _UrlSlots) -> list[Any]:
    """A row with the ids and columns of the database."""
    named = dict(zip(table.columns, row, strict=True))
    if table.name == "host":
        keys.see(named["host"])
        slots[named["id"]] = slot_of_host(named["host"])
    found: list[Any] = []
    for name, kind in table.columns.items():
        value = named[name]
        if kind == _HOST:
            value = made_id(value, slots[value])
        elif kind == _KEY:
            value = keys.to_database[value]
        elif kind == _URL and value is not None:
            is_own = table.name == "url" and name == "id"
            value = made_id(value, slots[named["host"]] if is_own else url_slots.of(value))
        found.append(value)
    by = table.slot_by
    if table.name == "sink_file":
        return [*found, ONLY_AGENT]
    if not by:
        slot = CRAWL
    elif isinstance(named[by], str):
        slot = slot_of_host(named[by])
    else:
        slot = slot_in(found[list(table.columns).index(by)])
    if table.name == "politeness_key":
        found[-1] = bool(found[-1])
    if table.name == "host":
        return [*found, slot, named["queued"] + named["suspects"] > 0]
    return [*found, slot]


async def _load_meta(
    connection: asyncpg.Connection, database: Database, meta: Mapping[str, Any], slots: Mapping[int, int]
) -> None:
    values: list[tuple[int, str, bytes]] = []
    marks: list[tuple[int, int, int]] = []
    for name, value in meta.items():
        if name.startswith(_MARK):
            host = int(name.removeprefix(_MARK))
            marks.append((slots[host], made_id(host, slots[host]), max(1, int(value or 0))))
        elif name.startswith(_ERROR_PAGES):
            host = int(name.removeprefix(_ERROR_PAGES))
            values.append((slots[host], f"{_ERROR_PAGES}{made_id(host, slots[host])}", value))
        elif name not in _OF_AGENT and not name.startswith("filter"):
            values.append((CRAWL, name, _value_in_database(name, value, slots)))
    await connection.execute("DELETE FROM crawl_value")
    await connection.copy_records_to_table("crawl_value", records=values, columns=["slot", "name", "value"])
    await connection.copy_records_to_table("reevaluation", records=marks, columns=["slot", "host", "mark"])
    schedule_at, last_visit_at = orjson.loads(meta.get(TIMES) or "[0, null]")
    await connection.execute(
        """UPDATE settled SET number = number + 1, last_host = $2, last_url = $3, clean = $4, marks = $5,
             schedule_at = $6, last_visit_at = $7, totals = $8, counters = $9 WHERE agent = $1""",
        ONLY_AGENT, database.get(sql.LAST_HOST), database.get(sql.LAST_URL), meta.get("clean") != "0",
        int(meta.get(MARKS) or 0), float(schedule_at), last_visit_at, meta.get("totals"), meta.get("counters"),
    )  # fmt: skip


_OF_AGENT: Final = frozenset(("clean", "totals", "counters", TIMES, MARKS, "undone_commits"))


def _value_in_database(name: str, value: Any, slots: Mapping[int, int]) -> bytes:
    if isinstance(value, bytes):
        return value
    text = str(value)
    match name:
        case "dated" if text != "all":
            text = str(end_of(int(text)) if int(text) else 0)
        case "sweep":
            generation, after, last = orjson.loads(text)
            made = [made_id(id_, slots[id_]) if id_ in slots else end_of(id_) if id_ else 0 for id_ in (after, last)]
            text = orjson.dumps([generation, *made]).decode()
        case "round":
            text = _round_with(text, lambda id_: end_of(id_) if id_ else 0)
    return text.encode()


def _content(table: str, rows: Iterable[Row]) -> Content:
    content = Content()
    for row in rows:
        content.add(table, row)
    return content


def _compare(table: str, source: Content, target: Content) -> None:
    if source != target:
        raise FrontierError(
            f"the copy is not whole: of {table} the source has {source.rows} rows, the copy {target.rows}, "
            f"and their content {'is the same' if source.digest == target.digest else 'differs'}"
        )
