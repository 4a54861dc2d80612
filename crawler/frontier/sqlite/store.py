"""The frontier of one process: a SQLite file, through apsw, in a thread of its own.

This file opens, recovers and closes the store and answers questions; `writer` has the transactions, `database` the
connection. apsw brings a current SQLite: versions before 3.51.3 could corrupt a database in WAL mode.

Invariants: one process owns the file, from before it is read until it is closed. The event loop never touches the disk.
"""

import contextlib
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TypeVar

import orjson

from crawler.core.enums import SinkFileState, UrlState
from crawler.core.models import (
    Backoff,
    Denied,
    Discovered,
    HostRow,
    HostTemplates,
    Origin,
    SampledPage,
    SinkFile,
    SlowResponse,
    Suspects,
    Task,
    TemplateRow,
)
from crawler.core.url import parse
from crawler.frontier.base import (
    Batch,
    BlockedHost,
    EndedWith,
    Forgotten,
    FrontierFull,
    LearnedPage,
    Receipt,
    Recovered,
    RobotsVersion,
    Totals,
    UndatedPage,
    UrlRow,
)
from crawler.frontier.sqlite import maintenance, sql, takedown
from crawler.frontier.sqlite.bloom_filter import BloomFilters, use_index
from crawler.frontier.sqlite.database import Database, OneThread, OwnerLock, explained
from crawler.frontier.sqlite.rows import counters_from, host_row, sample_ranges, task_of, url_row_of
from crawler.frontier.sqlite.writer import Writer

T = TypeVar("T")


def _learned(span: tuple[int, int], database: Database, _: Writer) -> str:
    columns: str = database.get(sql.LEARNED, span)
    return columns


class SqliteFrontier:
    """A `Frontier` (base.py) in the file `path`; its folder must exist. `duplicates`: "exact" or "filter" (see
    `filter`). `vfs` names an apsw VFS, for tests.
    """

    def __init__(self, path: Path, *, duplicates: str = "exact", vfs: str | None = None) -> None:
        self._duplicates = duplicates
        self._path = path
        self._vfs = vfs
        self._lock = OwnerLock(path.with_name(path.name + ".lock"))
        self._thread: OneThread | None = None
        self._database: Database | None = None
        self._writer: Writer | None = None

    # -- open and close

    async def open(self) -> Recovered:
        if self._thread is not None:
            raise RuntimeError("the frontier is open already")
        self._thread = thread = OneThread("frontier")
        try:
            return await thread.run(self._open)
        except BaseException:  # a cancelled open may have succeeded after all
            self._thread = None
            await thread.finish(self._release)
            raise

    def _open(self) -> Recovered:
        self._lock.acquire()
        self._database = database = Database(self._path, vfs=self._vfs)
        with explained(database.explain_opening):
            return self._recover(database)

    def _recover(self, database: Database) -> Recovered:
        maintenance.bring_up(database)
        exact = self._duplicates == "exact"
        use_index(database, unique=exact)
        seen = None if exact else BloomFilters(self._path.with_name(self._path.name + ".filter"), database)
        self._writer = writer = Writer(database, seen)
        takedown.finish_all(writer)
        writer.finish_losing()
        files = database.rows(sql.SINK_FILES)
        recovered = Recovered(
            clean=database.get(sql.META, ("clean",)) != "0",
            hosts=tuple(host_row(columns) for columns in database.rows(sql.ALL_HOSTS)),
            backoffs=tuple(Backoff(*columns) for columns in database.rows(sql.BACKOFFS)),
            sink_files=tuple(SinkFile(sink, name, SinkFileState(state), size) for sink, name, state, size in files),
            counters=counters_from(database.get(sql.META, ("counters",))),
            scope_hosts=tuple(host for (host,) in database.rows(sql.SCOPE_HOSTS)),
            suspects=tuple(host_id for (host_id,) in database.rows(sql.SUSPECT_HOSTS)),
            slow_responses=tuple(SlowResponse(*columns) for columns in database.rows(sql.SLOW_RESPONSES)),
            unswept=tuple(host_id for (host_id,) in database.rows(sql.UNSWEPT)),
            is_copy=database.get(sql.META, (sql.COPIED_AT,)) is not None,
        )
        self._writer.set_clean(False)
        return recovered

    async def close(self, *, clean: bool) -> None:
        """What a failing disk keeps it from storing it leaves out: the next start then finds an unclean end."""
        if self._thread is None:
            return
        thread, self._thread = self._thread, None

        def close() -> None:
            try:
                if clean and self._database is not None and self._writer is not None:
                    with contextlib.suppress(FrontierFull), explained(self._database.explain):
                        self._writer.set_clean(True)
                        if self._writer.seen is not None:
                            self._writer.seen.save()
            finally:
                self._release()

        await thread.finish(close)

    def _release(self) -> None:
        database, self._database, self._writer = self._database, None, None
        try:
            if database is not None:
                database.close()
        finally:
            self._lock.release()

    # -- the rest of the Protocol

    async def add(self, discovered: Sequence[Discovered], *, now: float) -> Receipt:
        return await self._run(lambda _, writer: writer.add(discovered, now))

    async def settle(self, batch: Batch) -> Receipt:
        return await self._run(lambda _, writer: writer.settle(batch))

    async def take(self, host_id: int, limit: int, *, leased: Collection[int]) -> list[Task]:
        without = orjson.dumps(list(leased)).decode()  # now: the caller goes on changing it

        def read(database: Database, _writer: Writer) -> list[Task]:
            rows = database.get(sql.TAKE, (host_id, without, max(0, limit)))
            return [task_of(columns) for columns in orjson.loads(rows)]

        return await self._run(read)

    async def promote(self, *, now: float, limit: int = 1_000) -> dict[int, int]:
        return await self._run(lambda _, writer: writer.promote(now, limit))

    async def hasten(self, *, since_at: float, now: float) -> None:
        await self._run(lambda _, writer: writer.hasten(since_at, now))

    async def redate(self, *, now: float, revisits_by: float) -> None:
        await self._run(lambda _, writer: writer.redate(now, revisits_by))

    async def next_due(self) -> float | None:
        due: float | None = await self._run(lambda database, _: database.get(sql.NEXT_DUE))
        return due

    async def promote_revisits(self, *, now: float, limit: int) -> dict[int, int]:
        return await self._run(lambda _, writer: writer.promote(now, limit, revisits=True))

    async def next_revisit(self) -> float | None:
        due: float | None = await self._run(lambda database, _: database.get(sql.NEXT_AGAIN))
        return due

    async def learned(self, *, blocks: int, rows: int, phase: float) -> list[LearnedPage]:
        found: list[LearnedPage] = []
        last_id = await self._run(lambda database, _: int(database.get(sql.LAST_URL)))
        for span in sample_ranges(last_id, blocks=blocks, rows=rows, phase=phase):
            # one call each: whoever settles or takes meanwhile is let in between
            columns = await self._run(partial(_learned, span))
            found += (LearnedPage(*row) for row in orjson.loads(columns))
        return found

    async def dated_to(self) -> int | None:
        return await self._run(lambda database, _: maintenance.dated_to(database))

    async def undated(self, *, after: int, rows: int) -> tuple[list[UndatedPage], int | None]:
        return await self._run(lambda database, _: maintenance.undated(database, after, rows))

    async def put_dates(self, dates_of: Sequence[tuple[int, float]], *, dated_to: int | None) -> None:
        await self._run(lambda database, _: maintenance.put_dates(database, dates_of, dated_to))

    async def keep(self, name: str, value: bytes) -> None:
        await self._run(lambda _, writer: writer.keep(name, value))

    async def kept(self, name: str) -> bytes | None:
        value: bytes | None = await self._run(lambda database, _: database.get(sql.META, (f"kept:{name}",)))
        return value

    async def record_sink_files(self, files: Sequence[SinkFile]) -> None:
        await self._run(lambda _, writer: writer.record_sink_files(files))

    async def lose(self, sink: str, name: str) -> dict[int, int]:
        file_id = await self._run(lambda _, writer: writer.begin_losing(sink, name))
        if file_id is None:
            return {}
        queued: dict[int, int] = {}
        after: int | None = 0
        while after is not None:
            part, after = await self._run(partial(_lose_slice, file_id=file_id, after=after))
            for host_id, count in part.items():
                queued[host_id] = queued.get(host_id, 0) + count
        await self._run(lambda _, writer: writer.end_losing(file_id))
        return queued

    async def output_agrees(self) -> None:
        await self._run(lambda _, writer: writer.output_agrees())

    async def robots_versions(self, host_id: int) -> list[RobotsVersion]:
        return await self._run(
            lambda database, _: [RobotsVersion(*columns) for columns in database.rows(sql.ROBOTS_VERSIONS, (host_id,))]
        )

    async def url_rows(self, host_id: int, state: UrlState, *, after: UrlRow | None, limit: int) -> list[UrlRow]:
        statement = sql.URL_ROWS_QUEUED if state is UrlState.QUEUED else sql.URL_ROWS_DENIED
        place = (-(2**62), 0, 0) if after is None else (after.priority, after.depth, after.id)

        def read(database: Database, _writer: Writer) -> list[UrlRow]:
            origin = database.get(sql.ORIGIN, (host_id,))
            if origin is None:
                return []
            prefix = str(Origin(*orjson.loads(origin)))
            rows = orjson.loads(database.get(statement, (host_id, *place, limit)))
            return [url_row_of(prefix, columns) for columns in rows]

        return await self._run(read)

    async def queue_again(self, ids: Sequence[int]) -> dict[int, int]:
        return await self._run(lambda _, writer: writer.queue_again(ids))

    async def blocks(self) -> list[BlockedHost]:
        return await self._run(lambda database, _: [BlockedHost(*columns) for columns in database.rows(sql.BLOCKS)])

    async def block(self, block: BlockedHost) -> bool:
        return await self._run(lambda _, writer: writer.block(block))

    async def unblock(self, name: str) -> bool:
        return await self._run(lambda _, writer: writer.unblock(name))

    async def robots_body(self, host_id: int) -> bytes | None:
        body: bytes | None = await self._run(lambda database, _: database.get(sql.ROBOTS_BODY, (host_id,)))
        return body

    async def deny(self, host_id: int, denied: Sequence[tuple[int, Denied]], *, now: float) -> int:
        return await self._run(lambda _, writer: writer.deny(host_id, denied, now))

    async def judge_by(self, rules: str) -> list[int]:
        return await self._run(lambda database, _: maintenance.judge_by(database, rules))

    async def sweep_mark(self, host_id: int) -> int:
        return await self._run(lambda database, _: maintenance.mark_of(database, host_id))

    async def swept(self, host_id: int, mark: int) -> None:
        await self._run(lambda database, _: maintenance.swept(database, host_id, mark))

    async def set_aside(self, host_id: int, suspects: Sequence[tuple[int, str]]) -> list[int]:
        return await self._run(lambda _, writer: writer.set_aside(host_id, suspects))

    async def queue_suspects(self, host_id: int, template: str, limit: int) -> list[int]:
        return await self._run(lambda _, writer: writer.queue_suspects(host_id, template, limit))

    async def templates_of_host(self, host_id: int) -> HostTemplates:
        def read(database: Database, _writer: Writer) -> HostTemplates:
            return HostTemplates(
                tuple(SampledPage(*columns) for columns in database.rows(sql.SAMPLES, (host_id,))),
                tuple(TemplateRow(*columns) for columns in database.rows(sql.TEMPLATES, (host_id,))),
                tuple(Suspects(*columns) for columns in database.rows(sql.SUSPECTS_OF_HOST, (host_id,))),
                database.get(sql.ERROR_PAGES, (host_id,)) or b"",
            )

        return await self._run(read)

    async def suspects(self, *, limit: int = 1_000) -> list[Suspects]:
        def read(database: Database, _writer: Writer) -> list[Suspects]:
            found = [Suspects(*columns) for columns in database.rows(sql.SUSPECTS, (limit,))]
            examples = [database.rows(sql.SUSPECT_EXAMPLES, (one.host_id, one.template)) for one in found]
            return [
                replace(one, examples=tuple(url for (url,) in urls)) for one, urls in zip(found, examples, strict=True)
            ]

        return await self._run(read)

    async def totals(self) -> Totals:
        return self._opened()[1].totals

    async def requeue(self, ending: EndedWith, *, dry_run: bool = False) -> dict[int, int]:
        requeued: dict[int, int] = {}
        after: int | None = 0
        while after is not None:
            part, after = await self._run(partial(_requeue, ending=ending, after=after, dry_run=dry_run))
            for host_id, count in part.items():
                requeued[host_id] = requeued.get(host_id, 0) + count
        return requeued

    async def forget_url(self, url: str, *, now: float) -> Forgotten:
        href, origin = parse(url)
        return await self._run(lambda _, writer: takedown.forget_url(writer, href, origin, now))

    async def forget_host(self, host: str, *, now: float) -> Forgotten:
        forgotten = await self._run(lambda _, writer: takedown.forget_host(writer, host, now))
        erased = 0
        queued: dict[int, int] = {}
        for host_id in forgotten.host_ids:
            after: int | None = takedown.LOWEST
            while after is not None:
                part, after = await self._run(partial(_forget_slice, host_id=host_id, after=after, now=now))
                erased += part.urls
                for id_, count in part.queued.items():
                    queued[id_] = queued.get(id_, 0) + count
        await self._run(lambda _, writer: takedown.finish_host(writer, host))
        return replace(forgotten, urls=erased, queued=queued)

    async def forgotten(self, found: Sequence[Discovered]) -> list[Discovered]:
        return await self._run(lambda _, writer: takedown.forgotten(writer, found))

    async def find_host(self, origin: Origin) -> HostRow | None:
        key = (origin.host, origin.scheme, origin.port)
        columns = await self._run(lambda database, _: database.get(sql.ONE_HOST, key))
        return None if columns is None else host_row(columns)

    # -- the thread

    def _opened(self) -> tuple[Database, Writer]:
        if self._thread is None or self._database is None or self._writer is None:
            raise RuntimeError("the frontier is not open")
        return self._database, self._writer

    async def _run(self, job: Callable[[Database, Writer], T]) -> T:
        database, writer = self._opened()
        assert self._thread is not None

        def run() -> T:
            with explained(database.explain):
                return job(database, writer)

        return await self._thread.run(run)


def _requeue(
    _: Database, writer: Writer, *, ending: EndedWith, after: int, dry_run: bool
) -> tuple[dict[int, int], int | None]:
    return writer.requeue(ending, after, dry_run=dry_run)


def _lose_slice(_: Database, writer: Writer, *, file_id: int, after: int) -> tuple[dict[int, int], int | None]:
    return writer.lose_slice(file_id, after)


def _forget_slice(_: Database, writer: Writer, *, host_id: int, after: int, now: float) -> tuple[Forgotten, int | None]:
    return takedown.forget_slice(writer, host_id, after, now)
