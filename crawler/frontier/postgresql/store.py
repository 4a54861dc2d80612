"""The frontier of one agent: a PostgreSQL database, used through asyncpg on the event loop.

This file opens, recovers, reads and closes the store. `writer` has the transactions of the crawl, `maintenance` those
of operators, `agents` those of several agents, `connection` the connection.
Invariant: work is read from, and rows are changed in, the slots that this agent owns.
"""

from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import Any, Final, Protocol, TypeVar

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
from crawler.core.ownership import ONLY_AGENT, SLOT_BITS, slot_in
from crawler.core.url import KEY_RULES, parse
from crawler.frontier.base import (
    Batch,
    BlockedHost,
    Entered,
    Forgotten,
    FoundHosts,
    FrontierError,
    FrontierFull,
    FrontierVersion,
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
from crawler.frontier.postgresql import sql
from crawler.frontier.postgresql.agents import PostgresAgents, SlotTransactions
from crawler.frontier.postgresql.connection import LEASE_S, PostgresConnection, Row
from crawler.frontier.postgresql.maintenance import Maintenance
from crawler.frontier.postgresql.readiness import UNPARK_SLICE
from crawler.frontier.postgresql.slots import ALL_SLOTS, LOWEST, end_of, made_id, slot_of_host
from crawler.frontier.postgresql.writer import PostgresWriter
from crawler.frontier.rows import KEY_RULES_MADE, counters_from, host_row, sample_ranges, task_of, url_row_of

T = TypeVar("T")
Slice = tuple[dict[int, int], int | None]  # queued URLs of each host, and where the next slice starts

OF_ALL_AGENTS: Final = ("seed_files",)  # values of the engine that its agents share
COPIED_AT: Final = "copied_at"  # a value of the crawl after a restore, until its first start
_NAMES_AT_ONCE: Final = 50_000
_SEARCHED_AT_ONCE: Final = 20_000


class Lock(Protocol):
    """What one process at a time holds. `acquire` raises FrontierLocked."""

    def acquire(self) -> None: ...

    def release(self) -> None: ...


class PostgresFrontier:
    """A `Frontier` (base.py) in the database of `dsn`, a URI of libpq; empty: of the environment (PGHOST …).
    `password`: if it is not in these. `politeness_key`: "domain" or "host", None: as it was. `lock` is held while the
    store is open: it tells other programs of this machine that the crawl runs.
    """

    def __init__(
        self,
        dsn: str,
        *,
        password: str | None = None,
        politeness_key: str | None = None,
        lock: Lock | None = None,
        agent: str = ONLY_AGENT,
        rules: str = "",
        lease_s: float = LEASE_S,
        is_alone: bool = False,
    ) -> None:
        self._is_alone = is_alone
        self.connection = PostgresConnection(dsn, agent, password=password, rules=rules, lease_s=lease_s)
        self._lock = lock
        self._politeness_key = politeness_key
        self._begin()
        self.agents = PostgresAgents(self.connection, lease_s, lambda: self.slot_transactions)

    def _begin(self) -> None:
        """Keep nothing in memory."""
        self.writer = PostgresWriter(self.connection)
        self.maintenance = Maintenance(self.writer)
        self.slot_transactions = SlotTransactions(self.writer)

    # -- open and close

    async def open(self) -> Recovered:
        if self.connection.is_open:
            raise RuntimeError("the frontier is open already")
        if self._lock is not None:
            self._lock.acquire()
        try:
            await self.connection.open()
            if self._is_alone:
                await self.connection.require_alone()
            return await self._job(self._recover)
        except BaseException:
            await self._release()
            raise

    async def _release(self) -> None:
        try:
            await self.agents.close()
            await self.connection.close()
        finally:
            if self._lock is not None:
                self._lock.release()

    async def _recover(self) -> Recovered:
        db = self.connection
        self._begin()
        writer, values = self.writer, self.writer.values
        before = db.state
        rules = await values.get(KEY_RULES_MADE)
        if rules is None:
            await values.store(KEY_RULES_MADE, str(KEY_RULES).encode())
        elif rules != str(KEY_RULES).encode():
            raise FrontierVersion(f"{db.address} has keys of version {rules.decode()}, this program makes {KEY_RULES}")
        await writer.load(self._politeness_key)
        if await self.slot_transactions.is_alone():
            await self.slot_transactions.take(ALL_SLOTS)
        await self.maintenance.finish_all()
        files = await db.rows(sql.SINK_FILES, db.agent)
        for file in files:
            if file[2] == SinkFileState.LOSING:
                await self.maintenance.finish_losing(file[4])
        files = await db.rows(sql.SINK_FILES, db.agent)
        writer.know_files(files)
        return Recovered(
            clean=before.clean,
            sink_files=tuple(SinkFile(sink, name, SinkFileState(state), size) for sink, name, state, size, _ in files),
            counters=counters_from(before.counters),
            scope_hosts=tuple(row[0] for row in await db.rows(sql.SCOPE_HOSTS)),
            schedule_at=max(before.schedule_at, (await db.rows(sql.HIGHEST))[0][2] or 0.0),
            now_at=await db.fetchval(sql.NOW),
            hosts=writer.totals.hosts,
            backoffs=await db.fetchval(sql.COUNT_BACKOFFS, writer.slots.read),
            last_visit_at=before.last_visit_at,
            last_round=await writer.last_round(),
            is_restored=await values.get(COPIED_AT) is not None,
        )

    async def close(self, *, clean: bool) -> None:
        """If the database cannot be reached nothing more is stored: the next start then finds an unclean end."""
        if not self.connection.is_open:
            return
        try:
            if clean:
                with suppress(FrontierFull, FrontierError):
                    await self._job(lambda: self.slot_transactions.leave(clean=True))
        finally:
            await self._release()

    # -- the other methods of Frontier

    async def add(self, discovered: Sequence[Discovered], *, now: float) -> Receipt:
        return await self._job(lambda: self.writer.add(discovered, now))

    async def settle(self, batch: Batch) -> Receipt:
        return await self._job(lambda: self.writer.settle(batch))

    async def take(self, host_id: int, limit: int, *, leased: Collection[int]) -> list[Task]:
        without = list(leased)  # copied here: the caller changes it later
        rows, pages, origins = await self._job(partial(self._take, host_id, max(0, limit), without))
        tasks = []
        for row in rows:
            (id_, priority, depth, target, source, hop_path, redirects, via, kind, attempts, etag, last_modified,
             visits, last_at, digest, *learned, is_hinted, hint_priority, lastmod) = row  # fmt: skip
            page = pages.get(via, (None, None, None, None))
            tasks.append(
                task_of(
                    [id_, priority, depth, target, *origins[0][1:], source, hop_path, redirects, page[3], *page[:3],
                     kind, attempts, etag, last_modified, [visits, last_at, digest, *learned] if visits else None,
                     [hint_priority, lastmod] if is_hinted else None]
                )
            )  # fmt: skip
        return tasks

    async def _take(
        self, host_id: int, limit: int, without: list[int]
    ) -> tuple[list[Row], dict[int | None, tuple[Any, ...]], list[Row]]:
        """The rows of queued URLs, origin and target of the pages that they were found on, and their own origin."""
        db = self.connection
        rows = await db.rows(sql.TAKE, slot_in(host_id), host_id, without, limit)
        if not rows:
            return [], {}, []
        vias = list({row[7] for row in rows if row[7] is not None})
        pages: dict[int | None, tuple[Any, ...]] = {}
        if vias:
            pages = {row[0]: tuple(row[1:]) for row in await db.rows(sql.ADDRESSES, vias)}
        return rows, pages, await db.rows(sql.ORIGINS, [host_id])

    async def promote(self, *, now: float, limit: int = 1_000, revisits: bool = False) -> dict[int, int]:
        return await self._job(lambda: self.writer.promote(now, limit, revisits=revisits))

    async def retry_now(self, *, since_at: float, now: float) -> None:
        await self._job(lambda: self.writer.retry_now(since_at, now))

    async def clock_set_back(self, *, now: float, revisits_by: float) -> None:
        await self._job(lambda: self.writer.clock_set_back(now, revisits_by))

    async def next_due(self, *, revisits: bool = False) -> float | None:
        due: float | None = await self._fetchval(sql.NEXT_AGAIN if revisits else sql.NEXT_FIRST, self._slots)
        return due

    async def visited_pages(self, *, blocks: int, rows: int, phase: float) -> list[VisitedPage]:
        self._check_open()
        found: list[VisitedPage] = []
        for first, last in sample_ranges(self.connection.state.last_url, blocks=blocks, rows=rows, phase=phase):
            # one job for each span, so that other calls run in between
            found += map(
                VisitedPage._make,
                await self._rows(sql.VISITED_PAGES, self._slots, made_id(first, 0) - 1, end_of(last)),
            )
        return found

    async def dated_to(self) -> int | None:
        return await self._job(lambda: self.maintenance.dated_to())

    async def undated(self, *, after: int, rows: int) -> tuple[list[UndatedPage], int | None]:
        return await self._job(lambda: self.maintenance.undated(after, rows))

    async def put_dates(self, dates: Sequence[tuple[int, float]], *, dated_to: int | None) -> None:
        await self._job(lambda: self.maintenance.put_dates(dates, dated_to))

    async def store_value(self, name: str, value: bytes) -> None:
        await self._job(lambda: self.writer.values.store(self._kept(name), value))

    async def stored_value(self, name: str) -> bytes | None:
        return await self._value(self._kept(name))

    def _kept(self, name: str) -> str:
        return f"kept:{name}" if name in OF_ALL_AGENTS else self.writer.values.named(f"kept:{name}")

    async def record_sink_files(self, files: Sequence[SinkFile]) -> None:
        await self._job(lambda: self.writer.record_sink_files(files))

    async def lose_file(self, sink: str, name: str) -> dict[int, int]:
        file_id = await self._job(lambda: self.maintenance.begin_losing(sink, name))
        if file_id is None:
            return {}
        queued = await self._slices(lambda after: self.maintenance.lose_slice(after, file_id))
        await self._job(lambda: self.maintenance.set_file_state(file_id, SinkFileState.LOST))
        return queued

    async def clear_restored(self) -> None:
        await self._job(lambda: self.writer.values.store(COPIED_AT, None))

    async def robots_versions(self, host_id: int) -> list[RobotsVersion]:
        rows = await self._rows(sql.ROBOTS_VERSIONS, slot_in(host_id), host_id)
        return [RobotsVersion(*row) for row in rows]

    async def url_rows(
        self, first: int, last: int, state: UrlState, *, after: UrlRow | None, limit: int
    ) -> list[UrlRow]:
        position = (first, -(2**31), 0, 0)
        if after is not None:
            position = (after.host_id, after.priority, after.depth, after.id)
        statement = sql.URL_ROWS_QUEUED if state is UrlState.QUEUED else sql.URL_ROWS_DENIED
        slots = [slot_in(first)] if first == last else self._slots
        rows = await self._rows(statement, slots, last, *position, limit)
        origins = await self._rows(sql.ORIGINS, list({row[0] for row in rows}))
        prefixes = {host_id: str(Origin(*origin)) for host_id, *origin in origins}
        return [url_row_of(prefixes[row[0]], list(row)) for row in rows]

    async def settled_urls(
        self, selection: UrlSelection, *, after: int | None = None, host_id: int | None = None
    ) -> tuple[list[UrlPlace], int | None]:
        return await self._job(lambda: self.maintenance.settled_urls(selection, after, host_id))

    async def known_ids(self, found: Sequence[Discovered]) -> list[int]:
        return await self._job(lambda: self.maintenance.known_ids(found))

    async def queue_urls(self, ids: Sequence[int], *, states: Collection[UrlState] = ()) -> dict[int, int]:
        return await self._job(lambda: self.maintenance.queue_urls(ids, states))

    async def blocks(self) -> list[BlockedHost]:
        return [BlockedHost(*row) for row in await self._rows(sql.BLOCKS)]

    async def block(self, block: BlockedHost) -> bool:
        return await self._job(lambda: self.maintenance.block(block))

    async def unblock(self, name: str) -> bool:
        return await self._job(lambda: self.maintenance.unblock(name))

    async def robots_body(self, host_id: int) -> bytes | None:
        body: bytes | None = await self._fetchval(sql.ROBOTS_BODY, slot_in(host_id), host_id)
        return body

    async def deny(self, host_id: int, denied: Sequence[tuple[int, Denied]], *, now: float) -> int:
        return await self._job(lambda: self.writer.deny(denied, now))

    async def judge_by(self, rules: str) -> Sweep | None:
        return await self._job(lambda: self.maintenance.judge_by(rules))

    async def sweep(self) -> Sweep | None:
        return await self._job(lambda: self.maintenance.sweep())

    async def swept(self, sweep: Sweep, *, marked: Collection[int] = ()) -> None:
        await self._job(lambda: self.maintenance.swept(sweep, marked))

    async def marked_hosts(self, *, after: int, limit: int) -> list[int]:
        return [row[0] for row in await self._rows(sql.MARKED_HOSTS, self._slots, slot_in(after), after, limit)]

    async def reevaluation_mark(self, host_id: int) -> int:
        return int(await self._fetchval(sql.REEVALUATION_MARK, slot_in(host_id), host_id) or 0)

    async def reevaluated(self, host_id: int, mark: int) -> None:
        if mark:
            await self._job(lambda: self.maintenance.reevaluated(host_id, mark))

    async def make_suspects(self, host_id: int, suspects: Sequence[tuple[int, str]]) -> list[int]:
        return await self._job(lambda: self.writer.make_suspects(host_id, suspects))

    async def queue_suspects(self, host_id: int, template: str, limit: int) -> list[int]:
        return await self._job(lambda: self.writer.queue_suspects(host_id, template, limit))

    async def templates_of_host(self, host_id: int) -> HostTemplates:
        async def read() -> HostTemplates:
            place = slot_in(host_id), host_id
            rows = self.connection.rows
            return HostTemplates(
                tuple(SampledPage(*row) for row in await rows(sql.SAMPLES, *place)),
                tuple(TemplateRow(*row) for row in await rows(sql.TEMPLATES, *place)),
                tuple(Suspects(*row) for row in await rows(sql.SUSPECTS_OF_HOST, *place)),
                await self.writer.values.get(f"error_pages:{host_id}", slot_in(host_id)) or b"",
            )

        return await self._job(read)

    async def suspects(self, *, limit: int = 1_000) -> list[Suspects]:
        rows = await self._rows(sql.SUSPECTS, self._slots, limit)
        addresses = await self._rows(sql.ADDRESSES, [id_ for row in rows for id_ in row[3]])
        urls = {id_: f"{Origin(*origin)}{target}" for id_, *origin, target in addresses}
        return [Suspects(host, template, count, tuple(urls[id_] for id_ in ids)) for host, template, count, ids in rows]

    def totals(self) -> Totals:
        return self.writer.totals

    async def put_round(self, one: Round) -> None:
        await self._job(lambda: self.writer.put_round(one))

    async def last_url_id(self) -> int:
        last = self.connection.state.last_url
        found: int | None = await self._fetchval(sql.LAST_URL_ID, self._slots, made_id(last, 0))
        return found or (end_of(last) if last else 0)  # it may belong to another agent now

    async def forget_url(self, url: str, *, now: float) -> Forgotten:
        href, origin = parse(url)
        return await self._job(lambda: self.maintenance.forget_url(href, origin, now))

    async def forget_host(self, host: str, *, now: float) -> Forgotten:
        forgotten = await self._job(lambda: self.maintenance.forget_host(host, now))
        if slot_of_host(host) not in self.writer.slots.owned:
            return forgotten
        erased: list[int] = []
        queued: Counter[int] = Counter()
        for host_id in forgotten.host_ids:
            erase = partial(self.maintenance.forget_slice, host_id=host_id, now=now, erased=erased)
            queued.update(await self._slices(erase, LOWEST))
        await self._job(lambda: self.maintenance.finish_host(host))
        return replace(forgotten, urls=sum(erased), queued=dict(queued))

    async def forgotten(self, found: Sequence[Discovered]) -> list[Discovered]:
        return await self._job(lambda: self.maintenance.forgotten(found))

    async def takedowns(self) -> list[tuple[Any, ...]]:
        """The records to remove from WARC files: URL, file, offset, and time of the takedown (UTC)."""
        return [tuple(row) for row in await self._rows(sql.TAKEDOWNS, ALL_SLOTS)]

    async def hosts_named(self, host: str) -> list[HostRow]:
        slot = slot_of_host(host)
        return await self._hosts(sql.HOSTS_NAMED, slot, host) if slot in self.writer.slots.owned else []

    async def hosts_below(self, name: str) -> HostsBelow:
        ids: list[int] = []
        names: set[str] = set()
        after = 0
        while rows := await self._rows(sql.NAMES_BELOW, self._slots, after, _NAMES_AT_ONCE, f".{name}"):
            for id_, host, is_below in rows:
                after = max(after, id_)
                if is_below:
                    ids.append(id_)
                    names.add(host)
        return HostsBelow(sorted(ids), len(names))

    async def search_hosts(self, search: HostSearch, *, after: int) -> FoundHosts:
        end = end_of((after >> SLOT_BITS) + _SEARCHED_AT_ONCE)
        values = (after, end, search.text, list(search.states), search.at, list(search.without), search.limit)

        async def read() -> FoundHosts:
            rows = self.connection.rows
            ((matching, ids),) = await rows(sql.SEARCH[search.order], self._slots, *values)
            found = [host_row(list(row)) for row in await rows(sql.HOSTS_OF_IDS, ids)]
            is_last = end >> SLOT_BITS >= self.connection.state.last_host
            return FoundHosts(found, matching, None if is_last else end)

        return await self._job(read)

    async def host_rows(self, *, after: int, limit: int, with_work: bool = False) -> list[HostRow]:
        return await self._hosts(sql.HOSTS_WITH_WORK if with_work else sql.HOSTS_AFTER, self._slots, after, limit)

    async def host_rows_of(self, host_ids: Collection[int]) -> list[HostRow]:
        return await self._hosts(sql.HOSTS_OF_IDS, list(set(host_ids)))

    async def _hosts(self, statement: str, *values: Any) -> list[HostRow]:
        return [host_row(list(row)) for row in await self._rows(statement, *values)]

    # -- hosts and keys in memory

    def take_counts(self) -> dict[int, HostCount]:
        self._check_open()
        return self.writer.take_counts()

    async def exchange(self, leaving: Leaving, wanted: Wanted) -> Entered:
        more = {key_id: list(known) for key_id, known in wanted.more.items()}  # copied: the caller changes it later
        return await self._job(lambda: self.writer.readiness.exchange(leaving, replace(wanted, more=more)))

    async def unpark(self, parked: str, *, at: float, host_ids: Collection[int] | None = None) -> int:
        ids = None if host_ids is None else sorted(set(host_ids))
        after = total = 0
        while True:
            found = await self._job(partial(self.writer.readiness.unpark_slice, parked, at, after, ids))
            total += len(found)
            if len(found) < UNPARK_SLICE:
                return total
            after = found[-1]

    async def parked(self) -> dict[str, tuple[int, int]]:
        return {parked: (hosts, urls) for parked, hosts, urls in await self._rows(sql.PARKED_COUNTS, self._slots)}

    # -- jobs

    @property
    def _slots(self) -> list[int]:
        """Work is read from these."""
        return self.writer.slots.read

    def _check_open(self) -> None:
        if not self.connection.is_open:
            raise RuntimeError("the frontier is not open")

    async def _job(self, job: Callable[[], Awaitable[T]]) -> T:
        return await self.connection.job(job)

    async def _rows(self, statement: str, *values: Any) -> list[Row]:
        return await self.connection.job(lambda: self.connection.rows(statement, *values))

    async def _fetchval(self, statement: str, *values: Any) -> Any:
        return await self.connection.job(lambda: self.connection.fetchval(statement, *values))

    async def _value(self, name: str) -> bytes | None:
        return await self.connection.job(lambda: self.writer.values.get(name))

    async def _slices(self, job: Callable[[int], Awaitable[Slice]], first: int = 0) -> dict[int, int]:
        """Run a long change slice by slice, so that other calls get in between. Returns the sum of what the slices
        queued.
        """
        queued: Counter[int] = Counter()
        after: int | None = first
        while after is not None:
            counts, after = await self._job(partial(job, after))
            queued.update(counts)
        return dict(queued)
