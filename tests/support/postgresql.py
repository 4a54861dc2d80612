"""A PostgreSQL server for tests, and its databases: on a Unix socket in a folder of its own, without a port.

PostgreSQL refuses to run as root. Then the server runs as the user `postgres` that its package adds, or `nobody`.
"""

import asyncio
import atexit
import contextlib
import itertools
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote

import asyncpg
import pytest

from crawler.core.models import (
    HostReadiness,
    HostRow,
    HostTemplates,
    KeyRow,
    Settlement,
    Suspects,
    Task,
    TemplateRow,
)
from crawler.core.ownership import SLOT_BITS
from crawler.core.url import name_hash, registrable_domain
from crawler.frontier.base import (
    Batch,
    Entered,
    Forgotten,
    FoundHosts,
    HostsBelow,
    HostSearch,
    Leaving,
    Receipt,
    Recovered,
    Sweep,
    UndatedPage,
    UrlPlace,
    UrlRow,
    UrlSelection,
    Wanted,
)
from crawler.frontier.postgresql.slots import end_of, key_id_of
from crawler.frontier.postgresql.store import PostgresFrontier
from crawler.frontier.rows import NewRows
from tests.support.frontiers import Store

T = TypeVar("T")
MISSING = "PostgreSQL's server is not installed (apt-get install postgresql)"
USER = "crawler"


def binaries() -> Path | None:
    """The folder of the newest installed server, as Debian has them; None if there is none."""
    found = [path.parent for path in Path("/usr/lib/postgresql").glob("*/bin/postgres")]
    return max(found, key=lambda path: int(path.parent.name), default=None)


def _as_user() -> tuple[list[str], int]:
    """What runs a command as a user that the server accepts, until we end, and the id of that user."""
    ends_with_us = ["setpriv", "--pdeathsig=QUIT"]
    if os.getuid() != 0:
        return ends_with_us, os.getuid()
    known = {one.pw_name: one for one in pwd.getpwall()}
    user = known.get("postgres") or known["nobody"]
    return [*ends_with_us, f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--clear-groups"], user.pw_uid


class Server:
    """A running server. `options` are settings of postgresql.conf."""

    def __init__(self, folder: Path, **options: str) -> None:
        programs = binaries()
        if programs is None:
            pytest.skip(MISSING)
        self.folder = folder
        self._prefix, uid = _as_user()
        self._data = folder / "data"
        self._program = programs / "postgres"
        os.chown(folder, uid, -1)
        folder.chmod(0o711)
        initdb = [programs / "initdb", "-D", self._data, "-U", USER, "--auth=trust", "--no-sync", "-E", "UTF8"]
        subprocess.run(
            [*self._prefix, *initdb, "--locale=C.UTF-8"], check=True, capture_output=True, cwd=folder, timeout=60
        )
        settings = {
            "listen_addresses": "''", "unix_socket_directories": f"'{folder}'", "fsync": "off",
            "full_page_writes": "off", "max_connections": "40", "shared_buffers": "64MB", "autovacuum": "off",
            "max_wal_size": "1GB", "min_wal_size": "80MB", "log_statement": "none", **options,
        }  # fmt: skip
        text = "".join(f"{name} = {value}\n" for name, value in settings.items())
        with (self._data / "postgresql.conf").open("a") as file:
            file.write(text)
        self.process: subprocess.Popen[bytes] | None = None
        self.start()

    def start(self) -> None:
        """Start the server, and wait until it accepts connections."""
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [*self._prefix, self._program, "-D", self._data], stdout=log, stderr=log, cwd=self.folder
            )
        end = time.monotonic() + 30
        while True:
            with contextlib.suppress(OSError, asyncpg.PostgresError):
                return run(self._ping())
            if time.monotonic() > end or self.process.poll() is not None:
                raise AssertionError((self.folder / "log").read_text())
            time.sleep(0.02)  # a socket that does not exist yet cannot be waited for

    async def _ping(self) -> None:
        await (await asyncpg.connect(self.dsn("postgres"))).close()

    def stop(self, *, at_once: bool = False) -> None:
        """End the server; `at_once`: as a crash would."""
        if self.process is not None:
            self.process.send_signal(signal.SIGQUIT if at_once else signal.SIGINT)
            self.process.wait(timeout=30)
            self.process = None

    def dsn(self, database: str) -> str:
        return f"postgresql://{USER}@/{database}?host={quote(str(self.folder), safe='')}"

    def execute_all(self, statements: list[str], database: str) -> None:
        """Run statements in one transaction."""

        async def execute() -> None:
            connection = await asyncpg.connect(self.dsn(database))
            try:
                await connection.execute(";".join(statements))
            finally:
                await connection.close()

        run(execute())

    def execute(self, statement: str, database: str = "postgres") -> list[Any]:
        """Run a statement, and return its rows."""

        async def execute() -> list[Any]:
            connection = await asyncpg.connect(self.dsn(database))
            try:
                rows: list[Any] = await connection.fetch(statement)
                return rows
            finally:
                await connection.close()

        return run(execute())


class CuttingProxy:
    """Between a client and the server: it cuts a connection at its next COMMIT if `cut` is set: "before" the server has
    it, or "after" the server has answered, which the client does not see. `commits` counts all.
    """

    def __init__(self, server: Server, folder: Path) -> None:
        self._to = server.folder / ".s.PGSQL.5432"
        self._folder = folder
        self.cut: str | None = None
        self.commits = 0
        self.tasks: set[asyncio.Task[None]] = set()

    def dsn(self, dsn: str) -> str:
        """The DSN of the same database through the proxy."""
        return f"{dsn.partition('?')[0]}?host={quote(str(self._folder), safe='')}"

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator["CuttingProxy"]:
        listener = await asyncio.start_unix_server(self._accept, self._folder / ".s.PGSQL.5432")
        try:
            yield self
        finally:
            listener.close()
            for task in self.tasks:
                task.cancel()
            await asyncio.gather(*self.tasks, return_exceptions=True)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.ensure_future(self._serve(reader, writer))
        self.tasks.add(task)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        behind, to_server = await asyncio.open_unix_connection(self._to)
        answers = asyncio.ensure_future(self._answers(behind, writer))
        try:
            while data := await reader.read(65_536):
                if b"COMMIT\0" in data:
                    self.commits += 1
                    if self.cut == "before":
                        self.cut = None
                        return
                    if self.cut == "after":
                        self.cut = None
                        answers.cancel()
                        await asyncio.gather(answers, return_exceptions=True)
                        to_server.write(data)
                        await behind.read(1)
                        return
                to_server.write(data)
        finally:
            answers.cancel()
            for one in (writer, to_server):
                one.close()

    async def _answers(self, behind: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await behind.read(65_536):
            writer.write(data)
        writer.close()


def run(job: Coroutine[Any, Any, T]) -> T:
    """The result of a coroutine, also where a loop is running: in a thread of its own."""
    import threading

    results: list[T] = []
    errors: list[BaseException] = []

    def work() -> None:
        try:
            results.append(asyncio.run(job))
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    if errors:
        raise errors[0]
    return results[0]


_shared: Server | None = None
_numbers = itertools.count(1)
_cleared: str | None = None


def shared_server() -> Server:
    """The server of this process, started at the first call and stopped at its end. Skips the test if there is none."""
    global _shared
    if binaries() is None:
        pytest.skip(MISSING)
    if _shared is None:
        memory = Path("/dev/shm")
        folder = Path(tempfile.mkdtemp(prefix="crawler-pg-", dir=memory if os.access(memory, os.W_OK) else None))
        owner = os.getpid()
        _shared = server = Server(folder)

        def end() -> None:
            if os.getpid() == owner:
                server.stop(at_once=True)
                shutil.rmtree(folder, ignore_errors=True)

        atexit.register(end)
    return _shared


def new_database() -> str:
    """The DSN of a new, empty database."""
    server = shared_server()
    name = f"d{next(_numbers)}"
    server.execute(f"CREATE DATABASE {name}")
    return server.dsn(name)


def cleared_database() -> str:
    """The DSN of a database with our schema and no rows: the same at each call, which is faster than a new one."""
    global _cleared
    server = shared_server()
    if _cleared is None:
        _cleared = new_database()

        async def make(dsn: str) -> None:
            frontier = PostgresFrontier(dsn)
            await frontier.open()
            await frontier.close(clean=True)

        run(make(_cleared))
    tables = server.execute(_TABLES, _cleared.partition("@/")[2].partition("?")[0])
    server.execute_all([f"DELETE FROM {table[0]}" for table in tables], _cleared.partition("@/")[2].partition("?")[0])
    return _cleared


_TABLES = """
SELECT relname FROM pg_class WHERE relkind IN ('r', 'p') AND relnamespace = 'public'::regnamespace
  AND NOT relispartition AND relname NOT IN ('crawler_version', 'slot', 'agent')"""


# -- ids in order


def _shifted(value: Any, to: Callable[[str, int], int]) -> Any:
    """A value of the interface with other ids. `to` gets "host", "url" or "key", and an id."""
    match value:
        case HostRow():
            return value._replace(id=to("host", value.id))
        case Task():
            return replace(value, id=to("url", value.id)) if value.id else value
        case KeyRow():
            return replace(value, id=to("key", value.id), hosts=_shifted(value.hosts, to))
        case UrlRow():
            return replace(value, id=to("url", value.id), host_id=to("host", value.host_id))
        case UrlPlace():
            return UrlPlace(to("url", value.id), to("host", value.host_id))
        case UndatedPage():
            return value._replace(id=to("url", value.id))
        case Sweep():
            return replace(value, after=to("host", value.after), last=to("host", value.last))
        case HostsBelow():
            return HostsBelow([to("host", id_) for id_ in value.ids], value.names)
        case Receipt():
            return replace(
                value,
                queued=_keyed(value.queued, to),
                hosts=_shifted(value.hosts, to),
                robots_changed=[to("host", id_) for id_ in value.robots_changed],
                to_reevaluate=[to("host", id_) for id_ in value.to_reevaluate],
                suspects=_keyed(value.suspects, to),
                linked=[to("host", id_) for id_ in value.linked],
                trial_links={
                    to("url", url): [(to("url", id_), to("host", host), target) for id_, host, target in links]
                    for url, links in value.trial_links.items()
                },
            )
        case Forgotten():
            return replace(
                value,
                queued=_keyed(value.queued, to),
                ids=tuple(to("url", id_) for id_ in value.ids),
                host_ids=tuple(to("host", id_) for id_ in value.host_ids),
                hosts=_shifted(value.hosts, to),
            )
        case Entered():
            more = {to("key", key): (_shifted(hosts, to), at) for key, (hosts, at) in value.more.items()}
            return replace(value, keys=_shifted(value.keys, to), more=more, hosts=_shifted(value.hosts, to))
        case FoundHosts():
            return value._replace(rows=_shifted(value.rows, to))
        case HostTemplates():
            return replace(value, rows=_shifted(value.rows, to), suspects=_shifted(value.suspects, to))
        case Settlement():
            return replace(value, task=_shifted(value.task, to), host_id=to("host", value.host_id))
        case Batch():
            return replace(
                value,
                settlements=_shifted(value.settlements, to),
                readiness=_shifted(value.readiness, to),
                templates=_shifted(value.templates, to),
                error_pages=[(to("host", id_), record) for id_, record in value.error_pages],
                requested=[(to("key", id_), at) for id_, at in value.requested],
            )
        case Leaving():
            keys = [(to("key", id_), at, open_at) for id_, at, open_at in value.keys]
            return replace(value, hosts=_shifted(value.hosts, to), keys=keys)
        case Wanted():
            more = {to("key", key): [to("host", id_) for id_ in ids] for key, ids in value.more.items()}
            return replace(value, host_ids=[to("host", id_) for id_ in value.host_ids], more=more)
        case UrlSelection(host_ids=ids) if ids is not None:
            return replace(value, host_ids=tuple(to("host", id_) for id_ in ids))
        case HostSearch():
            return replace(value, without=[to("host", id_) for id_ in value.without])
        case HostReadiness() | TemplateRow() | Suspects():
            return replace(value, host_id=to("host", value.host_id))
        case list() | tuple() if not hasattr(value, "_fields"):
            return type(value)(_shifted(one, to) for one in value)
        case NewRows():
            return [_shifted(one, to) for one in value]
        case _:
            return value


def _keyed(counts: dict[int, Any], to: Callable[[str, int], int]) -> dict[int, Any]:
    """Values by host id."""
    return {to("host", id_): value for id_, value in counts.items()}


class Numbered:
    """A `PostgresFrontier` whose hosts and URLs have the ids 1, 2, 3 …, as in stores without slots: their sequence
    numbers. An id that does not exist is one of slot 0. The id of a politeness key is the hash of its name.
    """

    def __init__(self, frontier: PostgresFrontier) -> None:
        self.inner = frontier
        self._known: dict[str, dict[int, int]] = {"host": {}, "url": {}, "key": {}}  # id here → id in the database
        self._key_hashes: dict[int, int] = {}  # id in the database → id here

    async def open(self) -> Recovered:
        recovered = await self.inner.open()
        await self._learn()
        return replace(recovered, now_at=None)  # other stores have no clock

    def __getattr__(self, name: str) -> Any:
        method = getattr(self.inner, name)
        if name in ("close", "totals", "agents"):
            return method
        if name == "take_counts":
            return lambda: {
                id_ >> SLOT_BITS: count._replace(key_id=self._key_hashes[count.key_id])
                for id_, count in method().items()
            }

        async def call(*values: Any, **named: Any) -> Any:
            for wanted in values:
                if isinstance(wanted, Wanted):
                    self._know(wanted.names)
            given = [_given(name, n, value, self._inward) for n, value in enumerate(values)]
            given_by_name = {key: _given(name, key, value, self._inward) for key, value in named.items()}
            result = await method(*given, **given_by_name)
            if name in _INSERTING:
                await self._learn()
            return _returned(name, result, self._outward)

        return call

    def _inward(self, kind: str, id_: int) -> int:
        return self._known[kind].get(id_, id_ << SLOT_BITS)

    def _outward(self, kind: str, id_: int) -> int:
        return self._key_hashes[id_] if kind == "key" else id_ >> SLOT_BITS

    async def _learn(self) -> None:
        """Read which ids there are."""
        connection = self.inner.connection
        hosts = await connection.job(lambda: connection.rows("SELECT id, host FROM host"))
        urls = await connection.job(lambda: connection.rows("SELECT id FROM url"))
        self._known["host"] = {row[0] >> SLOT_BITS: row[0] for row in hosts}
        self._known["url"] = {row[0] >> SLOT_BITS: row[0] for row in urls}
        self._know(one for _, host in hosts for one in (host, registrable_domain(host)))

    def _know(self, names: Iterable[str]) -> None:
        """Keep the ids of politeness keys of these names."""
        for name in names:
            self._known["key"][name_hash(name)] = key_id_of(name)
            self._key_hashes[key_id_of(name)] = name_hash(name)


_INSERTING = ("add", "settle", "forget_url", "forget_host")
_HOST_FIRST = (
    "take", "deny", "robots_body", "robots_versions", "reevaluation_mark", "reevaluated", "make_suspects",
    "queue_suspects", "templates_of_host",
)  # fmt: skip
_BY_HOST = ("promote", "lose_file", "queue_urls")


def _given(name: str, place: int | str, value: Any, to: Callable[[str, int], int]) -> Any:
    """An argument of a method with ids of the database. `place`: its position, or its name."""
    match name, place:
        case (_, 0) if name in _HOST_FIRST:
            return to("host", value)
        case "take", "leased":
            return [to("url", id_) for id_ in value]
        case "deny" | "make_suspects", 1:
            return [(to("url", id_), other) for id_, other in value]
        case "put_dates", 0:
            return [(to("url", id_), at) for id_, at in value]
        case ("put_dates", "dated_to") | ("undated", "after"):
            return value and end_of(value)
        case "queue_urls", 0:
            return [to("url", id_) for id_ in value]
        case ("swept", "marked") | ("host_rows_of", 0):
            return [to("host", id_) for id_ in value]
        case "unpark", "host_ids":
            return value and [to("host", id_) for id_ in value]
        case (
            ("settled_urls", "host_id")
            | ("marked_hosts", "after")
            | ("url_rows", 0 | 1)
            | ("host_rows", "after")
            | (
                "search_hosts",
                "after",
            )
        ):
            return None if value is None else to("host", value)
        case _:
            return _shifted(value, to)


def _returned(name: str, value: Any, to: Callable[[str, int], int]) -> Any:
    """A result of a method, with ids as they are here."""
    match name:
        case "marked_hosts" | "known_ids" | "make_suspects" | "queue_suspects":
            return [id_ >> SLOT_BITS for id_ in value]
        case "last_url_id" | "dated_to":
            return value and value >> SLOT_BITS
        case "undated":
            return _shifted(value[0], to), value[1] and value[1] >> SLOT_BITS
        case _ if name in _BY_HOST:
            return _keyed(value, to)
        case _:
            return _shifted(value, to)


def numbered_store(_folder: Path) -> Store:
    dsn = cleared_database()
    return Store(lambda: Numbered(PostgresFrontier(dsn)))  # type: ignore[arg-type, return-value]
