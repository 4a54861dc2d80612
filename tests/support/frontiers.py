"""Builds what a frontier is told, and the frontiers that the contract suite is held against."""

import contextlib
from collections.abc import AsyncIterator, Callable, Iterable
from pathlib import Path
from typing import Any

import apsw

from crawler.core.body import BytesBody
from crawler.core.url import key_of, parse
from crawler.core.values import (
    ConnectionInfo,
    Discovered,
    Fetched,
    Head,
    Outcome,
    Settlement,
    Task,
    Timings,
    Written,
)
from crawler.core.vocabulary import ErrorType, Source, TruncatedReason, UrlState
from crawler.frontier.base import Batch, Frontier, Recovered
from crawler.frontier.memory import MemoryFrontier
from crawler.frontier.sqlite import SqliteFrontier

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
        connection=ConnectionInfo(1, 1, "192.0.2.1", 443),
        started_at=NOW,
        truncated=truncated,
        error_type=error_type,
    )


def visit(task: Task, outcome: Outcome | None = None, *, host_id: int = 1, **more: Any) -> Settlement:
    """A visit that ended well unless told otherwise."""
    more = {"state": UrlState.DONE, "finished_at": NOW, **more}
    return Settlement(task, host_id, outcome if outcome is not None else answer(), **more)


def batch(*settlements: Settlement, written: Iterable[Written | None] | None = None, **more: Any) -> Batch:
    places = list(written) if written is not None else [None] * len(settlements)
    return Batch(settlements, places, **more)


class Store:
    """Where a frontier keeps its URLs. `make` gives a frontier on it, as a new process would."""

    def __init__(self, make: Callable[[], Frontier]) -> None:
        self.make = make

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


STORES = {"sqlite": sqlite_store, "memory": memory_store}


class FaultyFiles(apsw.VFS):
    """SQLite's files, failing where a test says: set `fails` to a function of the call ("write", "sync") and the end of
    the file's name ("db", "wal") that returns what to raise, or None.
    """

    def __init__(self) -> None:
        self.name = f"faulty-{id(self)}"
        self.fails: Callable[[str, str], apsw.Error | None] = lambda call, name: None
        super().__init__(self.name, "")

    def xOpen(self, name: Any, flags: list[int]) -> apsw.VFSFile:
        return _FaultyFile(self, name, flags)


class _FaultyFile(apsw.VFSFile):
    def __init__(self, files: FaultyFiles, name: Any, flags: list[int]) -> None:
        path = name.filename() if isinstance(name, apsw.URIFilename) else name or ""
        self._kind = "wal" if path.endswith("-wal") else "db"
        self._files = files
        super().__init__("", name, flags)

    def _may_fail(self, call: str) -> None:
        error = self._files.fails(call, self._kind)
        if error is not None:
            raise error

    def xWrite(self, data: Any, offset: int) -> None:
        self._may_fail("write")
        super().xWrite(data, offset)

    def xSync(self, flags: int) -> None:
        self._may_fail("sync")
        super().xSync(flags)
