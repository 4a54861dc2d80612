"""Support for tests of frontiers: values to store, the stores of the contract suite, and failing files of SQLite."""

import contextlib
import os
import shutil
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import apsw

from crawler.core.body import BytesBody
from crawler.core.enums import ErrorType, Source, TruncatedReason, UrlState
from crawler.core.models import (
    ConnectionInfo,
    Discovered,
    Fetched,
    Head,
    HostRow,
    Origin,
    Outcome,
    RecordLocation,
    Settlement,
    Task,
    Timings,
)
from crawler.core.url import key_of, parse
from crawler.frontier.base import Batch, Frontier, Recovered
from crawler.frontier.sqlite import sql
from crawler.frontier.sqlite.store import SqliteFrontier
from tests.support.memory_frontier import MemoryFrontier

NOW = 1_795_424_400.25  # 2026-11-23T09:00:00.25Z


def found(url: str, *, depth: int = 0, source: Source = Source.SEED, **more: Any) -> Discovered:
    """A discovered URL, parsed and in scope."""
    href, origin = parse(url)
    hop_path = more.pop("hop_path", "L" * depth)
    return Discovered(href, origin, key_of(href), depth, hop_path, source, **more)


def links(*urls: str, depth: int = 1) -> tuple[Discovered, ...]:
    return tuple(found(url, depth=depth, source=Source.LINK) for url in urls)


def response(
    status_code: int = 200,
    *,
    fields: tuple[tuple[str, str], ...] = (),
    body: bytes = b"hello",
    truncated: TruncatedReason | None = None,
    error_type: ErrorType | None = None,
) -> Fetched:
    """A response with a head of 20 bytes."""
    return Fetched(
        head=Head(status_code, "X", "1.1", fields),
        request_bytes=b"",
        raw_head=b"h" * 20,
        raw_body=BytesBody(body),
        payload=BytesBody(body),
        timings=Timings(),
        connection=ConnectionInfo(1, 1, "192.0.2.1"),
        started_at=NOW,
        truncated=truncated,
        error_type=error_type,
    )


def visit(task: Task, outcome: Outcome | None = None, *, host_id: int = 1, **more: Any) -> Settlement:
    """A settlement of a task, by default of a good response."""
    more = {"state": UrlState.DONE, "finished_at": NOW, **more}
    return Settlement(task, host_id, outcome if outcome is not None else response(), **more)


def batch(*settlements: Settlement, written: Iterable[RecordLocation | None] | None = None, **more: Any) -> Batch:
    records = list(written) if written is not None else [None] * len(settlements)
    return Batch(settlements, records, **more)


async def takedowns(frontier: Frontier) -> list[tuple[Any, ...]]:
    """Records of erased URLs in the WARC files, as `crawler forget` lists them: URL, file, offset, time."""
    if isinstance(frontier, MemoryFrontier):
        return list(frontier.takedowns.values())
    if not isinstance(frontier, SqliteFrontier):
        found: list[tuple[Any, ...]] = await frontier.takedowns()  # type: ignore[attr-defined]
        return found
    return await frontier._run(lambda writer: list(writer.database.rows(sql.TAKEDOWNS)))


class Store:
    """A store on the disk or in memory. `make` returns a new frontier for it, as a new process would."""

    def __init__(self, make: Callable[[], Frontier]) -> None:
        self.make = make
        self.hints_known_urls = True  # hints of a sitemap about known URLs are stored

    @contextlib.asynccontextmanager
    async def opened(self, *, clean: bool = True) -> AsyncIterator[tuple[Frontier, Recovered]]:
        """Open a frontier, and close it at the end with `clean`."""
        frontier = self.make()
        recovered = await frontier.open()
        try:
            yield frontier, recovered
        finally:
            await frontier.close(clean=clean)


def memory_store(_folder: Path) -> Store:
    frontier = MemoryFrontier()
    return Store(lambda: frontier)


def sqlite_store(folder: Path) -> Store:
    return Store(lambda: SqliteFrontier(folder / "frontier.db"))


def filter_store(folder: Path) -> Store:
    store = Store(lambda: SqliteFrontier(folder / "frontier.db", duplicates="filter"))
    store.hints_known_urls = False
    return store


def postgresql_store(folder: Path) -> Store:
    from tests.support.postgresql import numbered_store  # needs asyncpg, which is an extra

    return numbered_store(folder)


STORES = {
    "sqlite": sqlite_store, "filter": filter_store, "postgresql": postgresql_store, "memory": memory_store
}  # fmt: skip


class FaultyFiles(apsw.VFS):
    """SQLite's files, whose writes and syncs can be observed and made to fail. One connection at a time.

    `before` is called before each call with its name ("write" or "sync"), `synced` after each sync with the path of the
    file, `on_failure` before an arranged failure is raised. `fail` sets the call that fails.
    """

    def __init__(self) -> None:
        self.name = f"faulty-{id(self)}"
        self.before: Callable[[str], None] | None = None
        self.synced: Callable[[str], None] | None = None
        self.stop_failing()
        super().__init__(self.name, "")

    def fail(self, call: str, nth: int, error: tuple[type[apsw.Error], int], *, for_ever: bool = False) -> None:
        """Let the `nth` call from now fail, or all from that one on. `error`: a class and its extended code."""
        self._failing = call
        self._left = nth
        self._error: tuple[type[apsw.Error], int] | None = error
        self._for_ever = for_ever

    def stop_failing(self) -> None:
        """From now on no call fails."""
        self._failing, self._left, self._error, self._for_ever = "", 0, None, False
        self.on_failure: Callable[[], None] | None = None

    def about_to(self, call: str) -> None:
        """Raise if this call has to fail."""
        if self.before is not None:
            self.before(call)
        if call != self._failing or self._error is None:
            return
        self._left -= 1
        if self._left == 0 or (self._for_ever and self._left < 0):
            kind, code = self._error
            error = kind("arranged by the test")
            error.extendedresult = code  # type: ignore[attr-defined]
            if self.on_failure is not None:
                self.on_failure()
            raise error

    def xOpen(self, name: Any, flags: list[int]) -> apsw.VFSFile:
        return _FaultyFile(self, name, flags)


class _FaultyFile(apsw.VFSFile):
    def __init__(self, files: FaultyFiles, name: Any, flags: list[int]) -> None:
        self._files = files
        self._path = name.filename() if isinstance(name, apsw.URIFilename) else name
        super().__init__("", name, flags)

    def xWrite(self, data: Any, offset: int) -> None:
        self._files.about_to("write")
        super().xWrite(data, offset)

    def xSync(self, flags: int) -> None:
        self._files.about_to("sync")
        super().xSync(flags)
        if self._files.synced is not None and self._path:
            self._files.synced(self._path)


def copy_store(path: Path, to: Path) -> None:
    """Copy what a new process would find if this one ended now. The -shm file is rebuilt at opening."""
    to.parent.mkdir()
    for suffix in ("", "-wal"):
        if Path(f"{path}{suffix}").exists():
            shutil.copyfile(f"{path}{suffix}", f"{to}{suffix}")


@contextlib.contextmanager
def fast_folder() -> Iterator[Path]:
    """A folder in memory, if the system has one, for tests without crashes: its many fsyncs cost no time."""
    memory = Path("/dev/shm")
    with TemporaryDirectory(dir=memory if os.access(memory, os.W_OK) else None) as folder:
        yield Path(folder)


async def find_host(frontier: Frontier, origin: Origin) -> HostRow | None:
    """The row of an origin, None if it is unknown."""
    return next((row for row in await frontier.hosts_named(origin.host) if row.origin == origin), None)
