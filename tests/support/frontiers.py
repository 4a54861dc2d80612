"""Builds what a frontier is told, and the frontiers that the contract suite is held against."""

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
    """A URL as it comes out of scope."""
    href, origin = parse(url)
    hop_path = more.pop("hop_path", "L" * depth)
    return Discovered(href, origin, key_of(href), depth, hop_path, source, **more)


def links(*urls: str, depth: int = 1) -> tuple[Discovered, ...]:
    return tuple(found(url, depth=depth, source=Source.LINK) for url in urls)


def answer(
    status_code: int = 200,
    *,
    fields: tuple[tuple[str, str], ...] = (),
    body: bytes = b"hello",
    truncated: TruncatedReason | None = None,
    error_type: ErrorType | None = None,
) -> Fetched:
    """A response: its head is 20 bytes long."""
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
    """A visit that ended well unless told otherwise."""
    more = {"state": UrlState.DONE, "finished_at": NOW, **more}
    return Settlement(task, host_id, outcome if outcome is not None else answer(), **more)


def batch(*settlements: Settlement, written: Iterable[RecordLocation | None] | None = None, **more: Any) -> Batch:
    places = list(written) if written is not None else [None] * len(settlements)
    return Batch(settlements, places, **more)


async def takedowns(frontier: Frontier) -> list[tuple[Any, ...]]:
    """Records of erased URLs in the WARC files, as `crawler forget` lists them: URL, file, offset, time."""
    if isinstance(frontier, MemoryFrontier):
        return list(frontier.takedowns.values())
    assert isinstance(frontier, SqliteFrontier)
    return await frontier._run(lambda writer: list(writer.database.rows(sql.TAKEDOWNS)))


class Store:
    """Where a frontier keeps its URLs. `make` gives a frontier on it, as a new process would."""

    def __init__(self, make: Callable[[], Frontier]) -> None:
        self.make = make
        self.hears_of_known = True  # what a sitemap says of a known URL is stored

    @contextlib.asynccontextmanager
    async def opened(self, *, clean: bool = True) -> AsyncIterator[tuple[Frontier, Recovered]]:
        """Open, and close at the end as `clean` says."""
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
    store.hears_of_known = False
    return store


STORES = {"sqlite": sqlite_store, "filter": filter_store, "memory": memory_store}


class FaultyFiles(apsw.VFS):
    """SQLite's files, whose writes and syncs can be watched and made to fail. One connection at a time.

    `before` is called before each, with its word ("write" or "sync"), `synced` with a file's path after each sync,
    `on_failure` after a failure was arranged for. The call that fails is set by `fail`.
    """

    def __init__(self) -> None:
        self.name = f"faulty-{id(self)}"
        self.before: Callable[[str], None] | None = None
        self.synced: Callable[[str], None] | None = None
        self.mend()
        super().__init__(self.name, "")

    def fail(self, call: str, nth: int, error: tuple[type[apsw.Error], int], *, for_ever: bool = False) -> None:
        """The `nth` call from now fails, or all from that one on. `error` is a class and its extended code."""
        self._failing = call
        self._left = nth
        self._error: tuple[type[apsw.Error], int] | None = error
        self._for_ever = for_ever

    def mend(self) -> None:
        """Nothing fails any more."""
        self._failing, self._left, self._error, self._for_ever = "", 0, None, False
        self.on_failure: Callable[[], None] | None = None

    def about_to(self, call: str) -> None:
        """Raises if this call is to fail."""
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
    """What a new process would find if this one ended now. The -shm file is rebuilt by the first to open."""
    to.parent.mkdir()
    for suffix in ("", "-wal"):
        if Path(f"{path}{suffix}").exists():
            shutil.copyfile(f"{path}{suffix}", f"{to}{suffix}")


@contextlib.contextmanager
def fast_folder() -> Iterator[Path]:
    """A folder in memory where the system has one, for tests in which nothing crashes: a store there is the same, and
    its many fsyncs cost nothing.
    """
    memory = Path("/dev/shm")
    with TemporaryDirectory(dir=memory if os.access(memory, os.W_OK) else None) as folder:
        yield Path(folder)
