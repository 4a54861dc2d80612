"""The frontier of one process: a SQLite file, used through apsw in a thread of its own.

This file opens, recovers, reads and closes the store. `writer` has the transactions, `database` the connection. apsw
brings a current SQLite: versions before 3.51.3 could corrupt a database in WAL mode.

Invariants: one process owns the file, from before it is read until it is closed. The event loop never touches the disk.
"""

import contextlib
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Final, TypeVar

import orjson

from crawler.core.enums import SinkFileState, UrlState
from crawler.core.models import (
    Denied,
    Discovered,
    HostRow,
    HostTemplates,
    Origin,
    Round,
    SampledPage,
    SinkFile,
    Suspects,
    Task,
    TemplateRow,
)
from crawler.core.url import parse
from crawler.frontier.base import (
    Batch,
    BlockedHost,
    Entered,
    Forgotten,
    FoundHosts,
    FrontierFull,
    HostCount,
    HostsBelow,
    HostSearch,
    Leaving,
    Receipt,
    Recovered,
    RobotsVersion,
    Sweep,
    Totals,
    UndatedPage,
    UrlPlace,
    UrlRow,
    UrlSelection,
    VisitedPage,
    Wanted,
)
from crawler.frontier.rows import counters_from, host_row, sample_ranges, task_of, url_row_of
from crawler.frontier.sqlite import maintenance, readiness, sql
from crawler.frontier.sqlite.database import Database, OneThread, OwnerLock, explained, json_list
from crawler.frontier.sqlite.insertions import BloomFilters, use_index
from crawler.frontier.sqlite.writer import LOWEST, Writer

T = TypeVar("T")
Slice = tuple[dict[int, int], int | None]  # queued URLs of each host, and where the next slice starts

_NAMES_AT_ONCE: Final = 50_000  # of hosts: ten milliseconds, for which other calls wait
_SEARCHED_AT_ONCE: Final = 20_000  # hosts: some ten milliseconds
_LAST_NAME: Final = "\x7f"  # sorts after every host name


class SqliteFrontier:
    """A `Frontier` (base.py) in the file `path`, whose folder must exist. `duplicates`: "exact" or "filter" (see
    `insertions`). `politeness_key`: "domain" or "host", None: as it was. `vfs`: an apsw VFS, for tests.
    """

    agents: Final = None

    def __init__(
        self, path: Path, *, duplicates: str = "exact", politeness_key: str | None = None, vfs: str | None = None
    ) -> None:
        self._duplicates = duplicates
        self._politeness_key = politeness_key
        self._path = path
        self._vfs = vfs
        self._lock = OwnerLock(path.with_name(path.name + ".lock"))
        self._thread: OneThread | None = None
        self._database: Database | None = None
        self._writer: Writer | None = None
        self._last_totals = Totals(0, 0, 0, 0, 0, 0)  # when it was closed

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
        maintenance.upgrade_keys(database)
        exact = self._duplicates == "exact"
        use_index(database, unique=exact)
        seen = None if exact else BloomFilters(self._path.with_name(self._path.name + ".filter"), database)
        key_name = readiness.assign_keys(database, self._politeness_key)
        self._writer = writer = Writer(database, seen, key_name)
        maintenance.finish_all(writer)
        writer.finish_losing()
        files = database.rows(sql.SINK_FILES)
        recovered = Recovered(
            clean=database.get(sql.META, ("clean",)) != "0",
            sink_files=tuple(SinkFile(sink, name, SinkFileState(state), size) for sink, name, state, size in files),
            counters=counters_from(database.get(sql.META, ("counters",))),
            scope_hosts=tuple(host for (host,) in database.rows(sql.SCOPE_HOSTS)),
            schedule_at=writer.schedule_at,
            hosts=writer.totals.hosts,
            backoffs=database.get(sql.COUNT_BACKOFFS),
            last_visit_at=writer.last_visit_at,
            last_round=writer.last_round(),
            is_restored=database.get(sql.META, (sql.COPIED_AT,)) is not None,
        )
        self._writer.set_clean(False)
        readiness.end_activity(database)
        return recovered

    async def close(self, *, clean: bool) -> None:
        """On a failing disk nothing more is stored: the next start then finds an unclean end."""
        if self._thread is None:
            return
        thread, self._thread = self._thread, None

        def close() -> None:
            try:
                if clean and (writer := self._writer) is not None:
                    with contextlib.suppress(FrontierFull), explained(writer.database.explain):
                        writer.set_clean(True)
                        if writer.seen is not None:
                            writer.seen.save()
            finally:
                self._release()

        await thread.finish(close)

    def _release(self) -> None:
        self._last_totals = self.totals()
        database, self._database, self._writer = self._database, None, None
        try:
            if database is not None:
                database.close()
        finally:
            self._lock.release()

    # -- the other methods of Frontier

    async def add(self, discovered: Sequence[Discovered], *, now: float) -> Receipt:
        return await self._run(lambda writer: writer.add(discovered, now))

    async def settle(self, batch: Batch) -> Receipt:
        return await self._run(lambda writer: writer.settle(batch))

    async def take(self, host_id: int, limit: int, *, leased: Collection[int]) -> list[Task]:
        without = json_list(list(leased))  # copied here: the caller changes it later

        def read(writer: Writer) -> list[Task]:
            rows = writer.database.get(sql.TAKE, (host_id, without, max(0, limit)))
            return [task_of(columns) for columns in orjson.loads(rows)]

        return await self._run(read)

    async def promote(self, *, now: float, limit: int = 1_000, revisits: bool = False) -> dict[int, int]:
        return await self._run(lambda writer: writer.promote(now, limit, revisits=revisits))

    async def retry_now(self, *, since_at: float, now: float) -> None:
        await self._run(lambda writer: writer.retry_now(since_at, now))

    async def clock_set_back(self, *, now: float, revisits_by: float) -> None:
        await self._run(lambda writer: writer.clock_set_back(now, revisits_by))

    async def next_due(self, *, revisits: bool = False) -> float | None:
        statement = sql.NEXT_AGAIN if revisits else sql.NEXT_DUE
        due: float | None = await self._run(lambda writer: writer.database.get(statement))
        return due

    async def visited_pages(self, *, blocks: int, rows: int, phase: float) -> list[VisitedPage]:
        found: list[VisitedPage] = []
        last_id = await self._run(lambda writer: int(writer.database.get(sql.LAST_URL)))
        for span in sample_ranges(last_id, blocks=blocks, rows=rows, phase=phase):
            # one call for each span, so that other calls run in between
            columns = await self._run(partial(_read_json, sql.VISITED_PAGES, span))
            found += (VisitedPage(*row) for row in columns)
        return found

    async def dated_to(self) -> int | None:
        return await self._run(lambda writer: maintenance.dated_to(writer.database))

    async def undated(self, *, after: int, rows: int) -> tuple[list[UndatedPage], int | None]:
        return await self._run(lambda writer: maintenance.undated(writer.database, after, rows))

    async def put_dates(self, dates_of: Sequence[tuple[int, float]], *, dated_to: int | None) -> None:
        await self._run(lambda writer: maintenance.put_dates(writer.database, dates_of, dated_to))

    async def store_value(self, name: str, value: bytes) -> None:
        await self._run(lambda writer: writer.database.commit(sql.PUT_META, (f"kept:{name}", value)))

    async def stored_value(self, name: str) -> bytes | None:
        value: bytes | None = await self._run(lambda writer: writer.database.get(sql.META, (f"kept:{name}",)))
        return value

    async def record_sink_files(self, files: Sequence[SinkFile]) -> None:
        await self._run(lambda writer: writer.record_sink_files(files))

    async def lose_file(self, sink: str, name: str) -> dict[int, int]:
        file_id = await self._run(lambda writer: writer.begin_losing(sink, name))
        if file_id is None:
            return {}
        queued = await self._run_slices(partial(Writer.lose_slice, file_id=file_id))
        await self._run(lambda writer: writer.end_losing(file_id))
        return queued

    async def clear_restored(self) -> None:
        await self._run(lambda writer: writer.database.commit(sql.END_META, (sql.COPIED_AT,)))

    async def robots_versions(self, host_id: int) -> list[RobotsVersion]:
        return await self._run(
            lambda writer: [RobotsVersion(*row) for row in writer.database.rows(sql.ROBOTS_VERSIONS, (host_id,))]
        )

    async def url_rows(
        self, first: int, last: int, state: UrlState, *, after: UrlRow | None, limit: int
    ) -> list[UrlRow]:
        statement = sql.URL_ROWS_QUEUED if state is UrlState.QUEUED else sql.URL_ROWS_DENIED
        position = (first, -(2**62), 0, 0)
        if after is not None:
            position = (after.host_id, after.priority, after.depth, after.id)

        def read(writer: Writer) -> list[UrlRow]:
            rows = orjson.loads(writer.database.get(statement, (last, *position, limit)))
            origins = orjson.loads(writer.database.get(sql.ORIGINS, (json_list(list({row[0] for row in rows})),)))
            prefixes = {host_id: str(Origin(*origin)) for host_id, *origin in origins}
            return [url_row_of(prefixes[row[0]], row) for row in rows]

        return await self._run(read)

    async def settled_urls(
        self, selection: UrlSelection, *, after: int | None = None, host_id: int | None = None
    ) -> tuple[list[UrlPlace], int | None]:
        return await self._run(lambda writer: writer.settled_urls(selection, after, host_id))

    async def known_ids(self, found: Sequence[Discovered]) -> list[int]:
        return await self._run(lambda writer: writer.known_ids(found))

    async def queue_urls(self, ids: Sequence[int], *, states: Collection[UrlState] = ()) -> dict[int, int]:
        return await self._run(lambda writer: writer.queue_urls(ids, states))

    async def blocks(self) -> list[BlockedHost]:
        return await self._run(lambda writer: [BlockedHost(*columns) for columns in writer.database.rows(sql.BLOCKS)])

    async def block(self, block: BlockedHost) -> bool:
        return await self._run(lambda writer: writer.block(block))

    async def unblock(self, name: str) -> bool:
        return await self._run(lambda writer: writer.unblock(name))

    async def robots_body(self, host_id: int) -> bytes | None:
        body: bytes | None = await self._run(lambda writer: writer.database.get(sql.ROBOTS_BODY, (host_id,)))
        return body

    async def deny(self, host_id: int, denied: Sequence[tuple[int, Denied]], *, now: float) -> int:
        return await self._run(lambda writer: writer.deny(host_id, denied, now))

    async def judge_by(self, rules: str) -> Sweep | None:
        return await self._run(lambda writer: maintenance.judge_by(writer.database, rules))

    async def sweep(self) -> Sweep | None:
        return await self._run(lambda writer: maintenance.sweep(writer.database))

    async def swept(self, sweep: Sweep, *, marked: Collection[int] = ()) -> None:
        await self._run(lambda writer: maintenance.swept(writer.database, sweep, marked))

    async def marked_hosts(self, *, after: int, limit: int) -> list[int]:
        return await self._run(lambda writer: maintenance.marked_hosts(writer.database, after, limit))

    async def reevaluation_mark(self, host_id: int) -> int:
        return await self._run(lambda writer: maintenance.reevaluation_mark(writer.database, host_id))

    async def reevaluated(self, host_id: int, mark: int) -> None:
        await self._run(lambda writer: maintenance.reevaluated(writer.database, host_id, mark))

    async def make_suspects(self, host_id: int, suspects: Sequence[tuple[int, str]]) -> list[int]:
        return await self._run(lambda writer: writer.make_suspects(host_id, suspects))

    async def queue_suspects(self, host_id: int, template: str, limit: int) -> list[int]:
        return await self._run(lambda writer: writer.queue_suspects(host_id, template, limit))

    async def templates_of_host(self, host_id: int) -> HostTemplates:
        def read(writer: Writer) -> HostTemplates:
            database = writer.database
            return HostTemplates(
                tuple(SampledPage(*columns) for columns in database.rows(sql.SAMPLES, (host_id,))),
                tuple(TemplateRow(*columns) for columns in database.rows(sql.TEMPLATES, (host_id,))),
                tuple(Suspects(*columns) for columns in database.rows(sql.SUSPECTS_OF_HOST, (host_id,))),
                database.get(sql.ERROR_PAGES, (host_id,)) or b"",
            )

        return await self._run(read)

    async def suspects(self, *, limit: int = 1_000) -> list[Suspects]:
        def read(writer: Writer) -> list[Suspects]:
            rows = writer.database.rows
            return [
                Suspects(host, template, urls, tuple(url for (url,) in rows(sql.SUSPECT_EXAMPLES, (host, template))))
                for host, template, urls in list(rows(sql.SUSPECTS, (limit,)))
            ]

        return await self._run(read)

    def totals(self) -> Totals:
        return self._last_totals if self._writer is None else self._writer.totals

    async def put_round(self, one: Round) -> None:
        await self._run(lambda writer: writer.put_round(one))

    async def last_url_id(self) -> int:
        return await self._run(lambda writer: int(writer.database.get(sql.LAST_URL)))

    async def forget_url(self, url: str, *, now: float) -> Forgotten:
        href, origin = parse(url)
        return await self._run(lambda writer: maintenance.forget_url(writer, href, origin, now))

    async def forget_host(self, host: str, *, now: float) -> Forgotten:
        forgotten = await self._run(lambda writer: maintenance.forget_host(writer, host, now))
        erased: list[int] = []
        queued: Counter[int] = Counter()
        for host_id in forgotten.host_ids:
            erase = partial(maintenance.forget_slice, host_id=host_id, now=now, erased=erased)
            queued.update(await self._run_slices(erase, LOWEST))
        await self._run(lambda writer: maintenance.finish_host(writer, host))
        return replace(forgotten, urls=sum(erased), queued=dict(queued))

    async def forgotten(self, found: Sequence[Discovered]) -> list[Discovered]:
        return await self._run(lambda writer: maintenance.forgotten(writer, found))

    async def hosts_named(self, host: str) -> list[HostRow]:
        return await self._host_rows(sql.HOSTS_NAMED, (host,))

    async def hosts_below(self, name: str) -> HostsBelow:
        ids: list[int] = []
        names, after = 0, ""
        while after != _LAST_NAME:
            end = await self._run(partial(_end_of_names, after))
            rows = await self._run(partial(_read_json, sql.NAMES_BELOW, (after, end, f".{name}")))
            ids += rows[0]
            names, after = names + rows[1], end
        return HostsBelow(sorted(ids), names)

    async def search_hosts(self, search: HostSearch, *, after: int) -> FoundHosts:
        lists = json_list(list(search.states)), json_list(list(search.without))  # copied: the caller changes it later
        end = after + _SEARCHED_AT_ONCE

        def read(writer: Writer) -> FoundHosts:
            get = writer.database.get
            values = (after, end, search.text, lists[0], search.at, lists[1], search.limit)
            matching, ids = orjson.loads(get(sql.SEARCH[search.order], values))
            rows = orjson.loads(get(sql.HOSTS_OF_IDS, (json_list(ids),)))
            return FoundHosts([host_row(row) for row in rows], matching, end if end < get(sql.LAST_HOST) else None)

        return await self._run(read)

    async def host_rows(self, *, after: int, limit: int, with_work: bool = False) -> list[HostRow]:
        return await self._host_rows(sql.HOSTS_WITH_WORK if with_work else sql.HOSTS_AFTER, (after, limit))

    async def host_rows_of(self, host_ids: Collection[int]) -> list[HostRow]:
        return await self._host_rows(sql.HOSTS_OF_IDS, (json_list(list(host_ids)),))

    async def _host_rows(self, statement: str, values: tuple[Any, ...]) -> list[HostRow]:
        rows = await self._run(lambda writer: writer.database.get(statement, values))
        return [host_row(columns) for columns in orjson.loads(rows)]

    # -- hosts and keys in memory

    def take_counts(self) -> dict[int, HostCount]:
        return self._opened()[1].take_counts()

    async def exchange(self, leaving: Leaving, wanted: Wanted) -> Entered:
        more = {key_id: list(known) for key_id, known in wanted.more.items()}  # copied: the caller changes it later
        return await self._run(lambda writer: writer.exchange(leaving, replace(wanted, more=more)))

    async def unpark(self, parked: str, *, at: float, host_ids: Collection[int] | None = None) -> int:
        ids = None if host_ids is None else sorted(host_ids)
        after = total = 0
        while True:
            slice_of = partial(readiness.unpark_slice, after=after, parked=parked, at=at, ids=ids)
            found = await self._run(lambda writer, slice_of=slice_of: slice_of(writer.database))  # type: ignore[misc]
            total += len(found)
            if len(found) < readiness.UNPARK_SLICE:
                return total
            after = found[-1]

    async def parked(self) -> dict[str, tuple[int, int]]:
        rows = await self._run(lambda writer: writer.database.get(sql.PARKED_COUNTS))
        return {parked: (hosts, urls) for parked, hosts, urls in orjson.loads(rows)}

    # -- the thread

    def _opened(self) -> tuple[OneThread, Writer]:
        if self._thread is None or self._writer is None:
            raise RuntimeError("the frontier is not open")
        return self._thread, self._writer

    async def _run(self, job: Callable[[Writer], T]) -> T:
        """Run a job in the thread of the connection."""
        thread, writer = self._opened()

        def run() -> T:
            with explained(writer.database.explain):
                return job(writer)

        return await thread.run(run)

    async def _run_slices(self, job: Callable[..., Slice], after: int | None = 0) -> dict[int, int]:
        """Run a long change, `job(writer, after=…)`, slice by slice, so that other calls get in between. Returns the
        sum of what the slices queued.
        """
        queued: Counter[int] = Counter()
        while after is not None:
            counts, after = await self._run(partial(job, after=after))
            queued.update(counts)
        return dict(queued)


def _end_of_names(after: str, writer: Writer) -> str:
    """The last name of a slice of host names that begins after `after`."""
    return str(writer.database.get(sql.END_OF_NAMES, (after, _NAMES_AT_ONCE - 1)) or _LAST_NAME)


def _read_json(statement: str, values: tuple[Any, ...], writer: Writer) -> list[Any]:
    rows: list[Any] = orjson.loads(writer.database.get(statement, values))
    return rows
