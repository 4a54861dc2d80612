"""The transactions on a database: seeds, settlements, promotions, takedowns, and what enters and leaves memory.

The totals are also in memory, as are the ids of recently used hosts and of output files, and what was taken down by
name. Invariant: memory changes only after the commit that stores the same, so a failed transaction leaves no trace in
either, and a job may be run again.
"""

import contextlib
from collections import Counter, OrderedDict, defaultdict
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Sequence
from typing import Any, Final

import orjson

from crawler.core.enums import SinkFileState, TaskKind, UrlState
from crawler.core.models import (
    Backoff,
    Denied,
    Discovered,
    HostReadiness,
    HostRow,
    KeyRow,
    Origin,
    RecordLocation,
    RobotsRecord,
    Round,
    Settlement,
    SinkFile,
    SlowResponse,
)
from crawler.core.outcomes import OUTAGE_ERRORS
from crawler.core.ownership import ONLY_AGENT, SLOT_BITS, slot_in
from crawler.core.url import (
    SLOTS,
    every_key_of,
    key_of,
    kind_key_of,
    legacy_key_of,
    name_hash,
    registrable_domain,
    slot_of,
    target_of,
)
from crawler.core.url_templates import ERROR_PAGE_LINKS
from crawler.frontier.base import (
    ROBOTS_VERSIONS_KEPT,
    Batch,
    BlockedHost,
    Entered,
    Forgotten,
    HostCount,
    Leaving,
    Receipt,
    UrlPlace,
    UrlSelection,
    Wanted,
)
from crawler.frontier.postgresql import sql
from crawler.frontier.postgresql.connection import LOCK, PendingState, PostgresConnection
from crawler.frontier.postgresql.inbox import INBOX_AT_ONCE, Found, inbox_rows, inbox_urls
from crawler.frontier.rows import (
    FORGOTTEN_ERROR,
    KEY_NAMES,
    MARKS,
    PAGES_SINK,
    ROUND,
    ROUND_COUNTS,
    WARC_SINK,
    PendingChange,
    check_batch,
    clip,
    counters_from,
    host_row,
    host_state,
    robots_digest,
    round_from,
    round_text,
    totals_from,
    visit_row,
)

ALL_SLOTS: Final = list(range(SLOTS))
CRAWL: Final = 0  # the slot of values of the whole crawl
LOWEST: Final = -(1 << 63)  # before every key of a host's URLs
REQUEUE_SLICE: Final = 5_000  # URLs of one transaction, for which other calls wait
ERASE_SLICE: Final = 2_000  # URLs of one transaction of a takedown
HOST_SLICE: Final = 20_000  # hosts of one statement
UNPARK_SLICE: Final = 2_000
HOSTS_CACHED: Final = 65_536  # origins whose id is in memory
DATED_ALL: Final = b"all"
WITH_WORK: Final = "hosts_with_work"  # in the totals
KEY_MODE: Final = "politeness_key"  # a value of the crawl: what the keys of hosts were made by
_KEYS_AT_ONCE: Final = 64  # of one statement that reads hosts that enter memory
_ENDED: Final = (UrlState.DONE, UrlState.GAVE_UP)
_UNFINISHED: Final = "forgetting"  # a value of the crawl: hosts whose takedown is not finished, as JSON
StateRow = tuple[int, int, str]  # id, host id and state of a URL


def slot_of_host(host: str) -> int:
    """The slot of a host name, and of the name of a politeness key."""
    return slot_of(registrable_domain(host))


def made_id(number: int, slot: int) -> int:
    return number << SLOT_BITS | slot


def end_of(number: int) -> int:
    """An id after all with this sequence number, and before the next."""
    return made_id(number, (1 << SLOT_BITS) - 1)


def key_id_of(name: str) -> int:
    """The id of the politeness key of that name."""
    return name_hash(name) >> SLOT_BITS << SLOT_BITS | slot_of_host(name)


def columns(rows: Sequence[Sequence[Any]], width: int) -> list[list[Any]]:
    """Rows as one list for each column."""
    return [list(column) for column in zip(*rows, strict=True)] if rows else [[] for _ in range(width)]


def _text(value: str | None) -> str | None:
    """A text of a server as the database takes it: without NUL."""
    return value.replace("\0", "") if value is not None and "\0" in value else value


class PostgresWriter:
    """Runs transactions. Each public method is a job of `PostgresConnection.job`."""

    def __init__(self, connection: PostgresConnection) -> None:
        self.db = connection
        self.key_name: Callable[[str], str] = registrable_domain
        self._host_ids: OrderedDict[Origin, int] = OrderedDict()
        self._forgotten_hosts: set[str] = set()
        self._legacy_marks: set[tuple[int, int]] = set()
        self._error_page_hosts: set[int] = set()  # with suspects that only error pages link to
        self._changed: dict[int, HostCount] = {}  # since `take_counts`
        self._files: dict[str, int] = {}  # ids of output files by name; names of two sinks end differently
        self._counts: dict[str, int] = {}
        self._others: Counter[str] = Counter()  # the counts of other agents, as of the last look
        self.totals = totals_from({})
        self.owned: set[int] = set()  # slots whose rows may be changed
        self.slots: list[int] = []  # those of them from which work is read: not those that are given back

    async def load(self, key_mode: str | None) -> None:
        """Read what is kept in memory, and give hosts the keys of `key_mode` (None: as they have)."""
        db = self.db
        self._counts = db.state.counts
        await self._count_others()
        self._own(row[0] for row in await db.rows(sql.OWN_SLOTS, db.agent))
        self._forgotten_hosts = {row[0] for row in await db.rows(sql.FORGOTTEN_HOSTS, ALL_SLOTS)}
        self._legacy_marks = {(row[0], row[1]) for row in await db.rows(sql.LEGACY_MARKS, ALL_SLOTS)}
        rows = await db.rows(sql.ERROR_PAGE_HOSTS, self.slots, ERROR_PAGE_LINKS)
        self._error_page_hosts = {row[0] for row in rows}
        await self._assign_keys(key_mode)
        async with db.transaction() as pending:
            pending.replace(clean=False)
            await db.run(sql.END_ACTIVITY, self.slots)

    async def _assign_keys(self, mode: str | None) -> None:
        """Give every host its politeness key anew, if politeness.key was changed to `mode`."""
        db = self.db
        stored = await self.value(KEY_MODE)
        before = None if stored is None else stored.decode()
        mode = mode or before or "domain"
        self.key_name = name_of = KEY_NAMES[mode]
        if mode == before:
            return
        async with db.transaction():
            after = 0
            while hosts := await db.rows(sql.HOST_NAMES, ALL_SLOTS, after, HOST_SLICE):
                after = hosts[-1][0]
                keys = [key_id_of(name_of(host)) for _, host in hosts]
                await db.run(sql.PUT_HOST_KEYS, [id_ for id_, _ in hosts], keys)
            for statement in sql.MAKE_KEYS:
                await db.run(statement, ALL_SLOTS)
            await db.run(sql.PUT_VALUE, CRAWL, KEY_MODE, mode.encode())

    # -- slots of several agents

    def _own(self, slots: Iterable[int]) -> None:
        self.slots = sorted(slots)
        self.owned = set(self.slots)

    @property
    def owns_all(self) -> bool:
        return len(self.owned) == SLOTS

    def _ours(self, ids: Iterable[int]) -> list[int]:
        """Those of these ids that are in slots of this agent."""
        return list(ids) if self.owns_all else [id_ for id_ in ids if slot_in(id_) in self.owned]

    async def count_others(self) -> None:
        """Read the totals of other agents, and what was taken down by name."""
        await self._count_others()
        self._forgotten_hosts = {row[0] for row in await self.db.rows(sql.FORGOTTEN_HOSTS, ALL_SLOTS)}

    async def _count_others(self) -> None:
        self._others = Counter()
        for totals, marks in await self.db.rows(sql.TOTALS_OF_OTHERS, self.db.agent):
            self._others.update({} if totals is None else orjson.loads(totals))
            self._others[MARKS] += marks
        self._add_up()

    def _add_up(self) -> None:
        """What one agent stored as queued another may have fetched: only the sum of all is a number of URLs."""
        counts = self._others.copy()
        counts.update(self._counts)
        self.totals = totals_from(counts, self.db.state.marks + self._others[MARKS])

    async def is_alone(self) -> bool:
        """Whether all other agents have left."""
        return all(row[3] for row in await self.db.rows(sql.AGENTS) if row[0] != self.db.agent)

    async def take_slots(self, slots: Sequence[int]) -> list[int]:
        """Own those of these slots that are free. Returns those that another agent owned last.

        Ids that are made from now on are above all others, so that they are above those of the slots.
        """
        db = self.db
        async with db.transaction() as pending:
            rows = await db.rows(sql.TAKE_SLOTS, db.agent, db.incarnation, list(slots))
            taken = [row[0] for row in rows]
            await db.run(sql.END_ACTIVITY, taken)
            last_host, last_url, schedule_at = (await db.rows(sql.HIGHEST))[0]
            state = db.state
            pending.replace(
                last_host=max(state.last_host, last_host),
                last_url=max(state.last_url, last_url),
                schedule_at=max(state.schedule_at, schedule_at),
            )
            self._forgotten_hosts = {row[0] for row in await db.rows(sql.FORGOTTEN_HOSTS, ALL_SLOTS)}
            errors = await db.rows(sql.ERROR_PAGE_HOSTS, taken, ERROR_PAGE_LINKS)
            for before in {row[2] for row in rows if not row[1]}:
                await self._go_on_for(before)
        self.slots = sorted({*self.slots, *taken})
        self.owned.update(taken)
        self._error_page_hosts |= {row[0] for row in errors}
        return [slot for slot, was_ours, _ in rows if not was_ours]

    async def _go_on_for(self, before: str) -> None:
        """Begin what the former owner of slots may not have ended in them: re-evaluation by new rules, and dates for
        revisits.
        """
        rules = await self.value(self.named("rules"))
        is_swept = await self.value(f"rules@{before}" if before != ONLY_AGENT else "rules") == rules
        if rules is not None and not (is_swept and await self._value_of(before, "sweep") is None):
            stored = await self.value(self.named("sweep"))
            generation = 1 + (0 if stored is None else orjson.loads(stored)[0])
            last = await self.db.fetchval(sql.LAST_HOST_ID, ALL_SLOTS) or 0
            await self._put_value(self.named("sweep"), orjson.dumps((generation, 0, last)))
        if await self.value(self.named("dated")) is not None and await self._value_of(before, "dated") != DATED_ALL:
            await self._put_value(self.named("dated"), b"0")

    def named(self, name: str) -> str:
        """The name of a value of the crawl that each agent has for itself."""
        return name if self.db.agent == ONLY_AGENT else f"{name}@{self.db.agent}"

    async def _value_of(self, agent: str, name: str) -> bytes | None:
        return await self.value(name if agent == ONLY_AGENT else f"{name}@{agent}")

    def stop_reading(self, slots: Iterable[int]) -> None:
        """Read no more work from slots that are to be given back."""
        given = set(slots)
        self.slots = [slot for slot in self.slots if slot not in given]

    async def give_back(self, slots: Sequence[int]) -> None:
        """Own these slots no more. Nothing of them is in memory."""
        async with self.db.transaction():
            await self.db.run(sql.END_ACTIVITY, list(slots))
            await self.db.run(sql.FREE, self.db.agent, list(slots))
        self.owned.difference_update(slots)

    async def disown(self, agent: str, incarnation: int, renewal: int) -> bool:
        """Take the slots of an agent away that is gone, unless it renewed its lease meanwhile. Returns whether it was
        so.
        """
        async with self.db.transaction():
            if await self.db.fetchval(sql.DISOWN, agent, incarnation, renewal) is None:
                return False
            await self.db.run(sql.FREE_ALL, agent)
            await self.db.run(sql.END_ALLOTMENT, agent)
        return True

    async def leave(self, *, clean: bool) -> None:
        """Give up all slots, as the last transaction. `clean`: nothing was in flight."""
        db = self.db
        async with db.transaction() as pending:
            pending.replace(clean=clean)
            await db.run(sql.END_ACTIVITY, list(self.owned))
            await db.run(sql.FREE_ALL, db.agent)
            await db.run(sql.LEAVE, db.agent, db.incarnation)
            used = counters_from(db.state.counters).urls_fetched
            pending.replace(allotted=min(db.state.allotted, used))

    async def rest(self) -> None:
        """Store that this agent has nothing left to do."""
        if not self.db.state.is_idle:
            async with self.db.transaction() as pending:
                used = counters_from(self.db.state.counters).urls_fetched
                pending.replace(is_idle=True, allotted=min(self.db.state.allotted, used))

    async def allot(self, limit: int, wanted: int) -> int:
        """Have up to `wanted` more of the first attempts of `limit` (scope.max_urls), which all agents share. Returns
        the number that this agent may make in all.
        """
        async with self.db.transaction() as pending:
            await self.db.run("SELECT pg_advisory_xact_lock($1::integer, 2)", LOCK)
            left = limit - (await self.db.fetchval(sql.ALLOTTED) or 0)
            used = max(self.db.state.allotted, counters_from(self.db.state.counters).urls_fetched)
            pending.replace(allotted=used + max(0, min(wanted, left)), is_idle=self.db.state.is_idle)
        return self.db.state.allotted

    async def empty_inbox(self, now: float, hint_after_s: float | None) -> Receipt | None:
        """Store URLs that other agents found in slots of this one. None: there were none."""
        rows = await self.db.rows(sql.TAKE_INBOX, self.slots, INBOX_AT_ONCE)
        if not rows:
            return None
        found = [one for row in rows for one in inbox_urls(row[2])]
        async with self.change() as change:
            new = await self._insert(found, change, hint_after_s)
            await self.db.run(sql.END_INBOX, *columns([(row[0], row[1]) for row in rows], 2))
        return change.receipt([len(new)])

    def take_counts(self) -> dict[int, HostCount]:
        """See Frontier.take_counts."""
        changed, self._changed = self._changed, {}
        return changed

    # -- values of the crawl

    async def value(self, name: str, slot: int = CRAWL) -> bytes | None:
        found: bytes | None = await self.db.fetchval(sql.VALUE, slot, name)
        return found

    async def put_value(self, name: str, value: bytes | None) -> None:
        """Store a value of the crawl; None removes it."""
        async with self.db.transaction():
            await self._put_value(name, value)

    async def _put_value(self, name: str, value: bytes | None, slot: int = CRAWL) -> None:
        if value is None:
            await self.db.run(sql.END_VALUE, slot, name)
        else:
            await self.db.run(sql.PUT_VALUE, slot, name, value)

    # -- the transactions

    async def add(self, discovered: Sequence[Discovered], now: float) -> Receipt:
        """See Frontier.add."""
        async with self.change() as change:
            found = [(number, None, now, one) for number, one in enumerate(discovered)]
            new = await self._insert(found, change, None)
        links_new = [0] * len(discovered)
        for number, *_ in new:
            links_new[number] = 1
        return change.receipt(links_new)

    async def settle(self, batch: Batch) -> Receipt:
        """See Frontier.settle."""
        check_batch(batch)
        async with self.change() as change:
            await self._put_sink_files(batch.sink_files, change)
            await self._put_visits(batch, change)
            links_new = await self._put_found(batch.settlements, batch.hint_after_s, change)
            await self._put_robots(batch.settlements, change)
            await self._put_backoffs(batch.backoffs)
            await self._put_readiness(batch.readiness)
            if batch.requested:
                last = dict(sorted(batch.requested, key=lambda one: one[1]))
                await self.db.run(sql.PUT_REQUESTED, list(last), list(last.values()))
            change.schedule_at = batch.schedule_at
            change.last_visit_at = max((one.finished_at for one in batch.settlements), default=None)
            if batch.counters is not None:
                change.counters = orjson.dumps(batch.counters).decode()
            if batch.scope_hosts:
                added_at = max((settlement.finished_at for settlement in batch.settlements), default=0.0)
                await self.db.run(sql.PUT_SCOPE_HOSTS, list(batch.scope_hosts), added_at)
            await self._put_slow_responses(batch.slow_responses)
            await self._put_notes(batch.settlements)
            if batch.templates:
                rows = {(one.host_id, one.template): one for one in batch.templates}
                flat = [(one.host_id, one.template, one.spent, one.good, one.since_at, one.released_at)
                        for one in rows.values()]  # fmt: skip
                await self.db.run(sql.PUT_TEMPLATES, *columns(flat, 6))
            for host_id, value in batch.error_pages:
                await self._put_value(f"error_pages:{host_id}", value, slot_in(host_id))
            if batch.round_counts is not None:
                await self._put_value(self.named(ROUND_COUNTS), orjson.dumps(batch.round_counts))
        return change.receipt(links_new)

    async def deny(self, denied: Sequence[tuple[int, Denied]], now: float) -> int:
        """See Frontier.deny."""
        async with self.change() as change:
            ids = await self._unqueue([url_id for url_id, _ in denied], UrlState.DENIED, change)
            rows = [(url_id, verdict.reason.value, _text(clip(verdict.rule))) for url_id, verdict in denied
                    if url_id in ids]  # fmt: skip
            urls, errors, rules = columns(rows, 3)
            await self.db.run(sql.DENY, urls, now, errors, rules)
        return len(rows)

    async def make_suspects(self, host_id: int, suspects: Sequence[tuple[int, str]]) -> list[int]:
        """See Frontier.make_suspects."""
        async with self.change() as change:
            ids = await self._unqueue([url_id for url_id, _ in suspects], UrlState.SUSPECT, change)
            found = [(url_id, host_id, template) for url_id, template in suspects if url_id in ids]
            await self.db.run(sql.PUT_SUSPECTS, *columns(found, 3))
        return [url_id for url_id, *_ in found]

    async def queue_suspects(self, host_id: int, template: str, limit: int) -> list[int]:
        """See Frontier.queue_suspects."""
        rows = await self.db.rows(sql.SUSPECTS_OF, slot_in(host_id), host_id, template, limit)
        ids = [row[0] for row in rows]
        if ids:
            async with self.change() as change:
                await self._set_state([(id_, host_id, UrlState.SUSPECT) for id_ in ids], UrlState.QUEUED, change)
                await self.db.run(sql.END_SUSPECTS, ids)
        return ids

    async def retry_now(self, since_at: float, now: float) -> None:
        """See Frontier.retry_now."""
        async with self.db.transaction():
            await self.db.run(sql.RETRY_NOW, self.slots, now, sorted(OUTAGE_ERRORS), since_at)

    async def clock_set_back(self, now: float, revisits_by: float) -> None:
        """See Frontier.clock_set_back."""
        async with self.db.transaction():
            await self.db.run(sql.REDATE_WAITING, self.slots, now, now)
            await self.db.run(sql.REDATE_REVISITS, self.slots, now, revisits_by)

    async def promote(self, now: float, limit: int, *, revisits: bool) -> dict[int, int]:
        """See Frontier.promote."""
        due = await self._state_rows(sql.DUE_AGAIN if revisits else sql.DUE_FIRST, self.slots, now, max(0, limit))
        if due:
            async with self.change() as change:
                ids = await self._set_state(due, UrlState.QUEUED, change)
                await self.db.run(sql.START_OVER if revisits else sql.NOT_DUE, ids)
        return _by_host(due)

    async def settled_urls(
        self, selection: UrlSelection, after: int | None, host_id: int | None
    ) -> tuple[list[UrlPlace], int | None]:
        """See Frontier.settled_urls. Of one host, `after` is the key of a URL."""
        if host_id is None:
            first = after or 0
            end = end_of((first >> SLOT_BITS) + REQUEUE_SLICE)
            statement, values = sql.settled(selection, by_ids=False)
            found = await self.db.rows(statement, self.slots, first, end, *values)
            return [UrlPlace(*row) for row in found], self._unless_last(end)
        slot, key = slot_in(host_id), LOWEST if after is None else after
        rows = await self.db.rows(sql.URLS_OF_HOST, slot, host_id, key, REQUEUE_SLICE)
        statement, values = sql.settled(selection, by_ids=True)
        found = await self.db.rows(statement, [row[0] for row in rows], *values)
        return [UrlPlace(*row) for row in found], rows[-1][1] if len(rows) == REQUEUE_SLICE else None

    async def queue_urls(self, ids: Sequence[int], states: Collection[UrlState]) -> dict[int, int]:
        """See Frontier.queue_urls."""
        kept = (UrlState.QUEUED, UrlState.FORGOTTEN)
        rows = [row for row in await self._states(ids) if (row[2] in states if states else row[2] not in kept)]
        if rows:
            async with self.change() as change:
                queued = await self._set_state(rows, UrlState.QUEUED, change)
                await self.db.run(sql.START_AGAIN, queued)
                await self.db.run(sql.END_SUSPECTS, queued)
                await self.db.run(sql.NO_ERROR, [row[0] for row in rows if row[2] == UrlState.DENIED])
        return _by_host(rows)

    async def last_round(self) -> Round | None:
        """The last round, None if there was none."""
        texts = [await self.value(self.named(name)) for name in (ROUND, ROUND_COUNTS)]
        return round_from(*(None if text is None else text.decode() for text in texts))

    async def put_round(self, one: Round) -> None:
        """See Frontier.put_round."""
        before = await self.last_round()
        async with self.db.transaction():
            await self._put_value(self.named(ROUND), round_text(one).encode())
            if before is None or before.number != one.number:
                await self._put_value(self.named(ROUND_COUNTS), None)

    async def block(self, block: BlockedHost) -> bool:
        """See Frontier.block."""
        rows = await self.db.rows(sql.BLOCK_OF, block.name)
        had = BlockedHost(*rows[0]) if rows else None
        after = block.joined_with(had)
        if after != had:
            async with self.db.transaction():
                await self.db.run(sql.BLOCK, after.name, after.kind, after.at, _text(after.reason))
        return after != had

    async def unblock(self, name: str) -> bool:
        """See Frontier.unblock."""
        is_blocked = bool(await self.db.rows(sql.BLOCK_OF, name))
        if is_blocked:
            async with self.db.transaction():
                await self.db.run(sql.UNBLOCK, name)
        return is_blocked

    async def record_sink_files(self, files: Sequence[SinkFile]) -> None:
        """See Frontier.record_sink_files."""
        async with self.change() as change:
            await self._put_sink_files(files, change)

    async def swept(self, sweep: tuple[int, int, int] | None, marked: Collection[int]) -> None:
        """Store how far a sweep came, unless it is None, and mark hosts."""
        async with self.db.transaction():
            if marked:
                await self.db.run(sql.MARK_HOSTS, list(marked))
            if sweep is not None:
                await self._put_value(self.named("sweep"), orjson.dumps(sweep) if sweep[1] < sweep[2] else None)

    async def begin_sweep(self, rules: str, sweep: tuple[int, int, int] | None) -> None:
        """Store the fingerprint of other rules, and the sweep that it begins."""
        async with self.db.transaction():
            await self._put_value(self.named("rules"), rules.encode())
            if sweep is not None:
                await self._put_value(self.named("sweep"), orjson.dumps(sweep))

    async def reevaluated(self, host_id: int, mark: int) -> None:
        """See Frontier.reevaluated."""
        async with self.db.transaction():
            await self.db.run(sql.REEVALUATED, slot_in(host_id), host_id, mark)

    async def put_dates(self, dates: Sequence[tuple[int, float]], mark: str) -> None:
        """See Frontier.put_dates."""
        async with self.db.transaction():
            await self.db.run(sql.PUT_DATES, *columns(dates, 2))
            await self._put_value(self.named("dated"), mark.encode())

    async def unpark_slice(self, parked: str, at: float, after: int, ids: Sequence[int] | None) -> list[int]:
        """Make up to UNPARK_SLICE parked hosts ready. Returns their ids."""
        if ids is None:
            rows = await self.db.rows(sql.PARKED, self.slots, parked, after, UNPARK_SLICE)
        else:
            rows = await self.db.rows(sql.PARKED_OF, ids, parked, UNPARK_SLICE)
        found = [row[0] for row in rows]
        if found:
            async with self.db.transaction():
                await self.db.run(sql.UNPARK, found, at)
                await self.db.run(sql.WAKE_KEYS, found)
        return found

    # -- lost files

    async def begin_losing(self, sink: str, name: str) -> int | None:
        """The first transaction of Frontier.lose_file. From now on the next start finishes it if need be. Returns the
        id of the file, None if it is unknown.
        """
        files = await self.db.rows(sql.SINK_FILES, self.db.agent)
        file_id = next((row[4] for row in files if (row[0], row[1]) == (sink, name)), None)
        if file_id is not None:
            await self.set_file_state(file_id, SinkFileState.LOSING)
        return file_id

    async def lose_slice(self, after: int, file_id: int) -> tuple[dict[int, int], int | None]:
        """A slice of Frontier.lose_file, as `settled_urls`."""
        end = end_of((after >> SLOT_BITS) + REQUEUE_SLICE)
        found = await self._state_rows(sql.IN_FILE, self.slots, after, end, file_id)
        ended = [row for row in found if row[2] in _ENDED]
        if found:
            async with self.change() as change:
                await self.db.run(sql.NOTHING_HELD, [url_id for url_id, *_ in found])
                await self.db.run(sql.START_AGAIN, await self._set_state(ended, UrlState.QUEUED, change))
        return _by_host(ended), self._unless_last(end)

    async def set_file_state(self, file_id: int, state: SinkFileState) -> None:
        async with self.db.transaction():
            await self.db.run(sql.SET_FILE_STATE, file_id, state.value)

    # -- what enters and leaves memory

    async def exchange(self, leaving: Leaving, wanted: Wanted) -> Entered:
        """See Frontier.exchange."""
        async with self.db.transaction():
            await self._put_backoffs(leaving.backoffs)
            await self._put_slow_responses(leaving.slow_responses)
            keys, more, named = await self._enter(wanted)
            await self._put_readiness(leaving.hosts)
            if keys_left := [one for one in leaving.keys if slot_in(one[0]) in self.owned]:
                await self.db.run(sql.LEAVE_KEYS, *columns(keys_left, 3))
            return Entered(keys, more, named, await self.db.fetchval(sql.NEXT_READY, self.slots))

    async def _enter(
        self, wanted: Wanted
    ) -> tuple[list[KeyRow], dict[int, tuple[tuple[HostRow, ...], float | None]], list[HostRow]]:
        """The parts of Entered but `next_at`."""
        db = self.db
        named: list[HostRow] = []
        if wanted.host_ids:
            named = [host_row(list(row)) for row in await db.rows(sql.HOSTS_OF_IDS, self._ours(set(wanted.host_ids)))]
        names = {key_id_of(name): name for name in (*wanted.names, *(self.key_name(row.origin.host) for row in named))}
        foreign = {id_: name for id_, name in names.items() if slot_in(id_) not in self.owned}
        names = {id_: name for id_, name in names.items() if id_ not in foreign}
        if names:
            active = {row[0] for row in await db.rows(sql.ACTIVE_KEYS, list(names))}
            names = {id_: name for id_, name in names.items() if id_ not in active}
            await db.run(sql.ADD_KEYS, list(names))
        hosts_of = await self._hosts_of(list(names), (), wanted.hosts)
        places = wanted.places
        if places > 0:
            rows = await db.rows(sql.READY_KEYS, self.slots, wanted.ready_by, places + len(names))
            ready = [row[0] for row in rows if row[0] not in names]
            while ready and places > 0:
                some, ready = ready[:_KEYS_AT_ONCE], ready[_KEYS_AT_ONCE:]
                for id_, found in (await self._hosts_of(some, (), wanted.hosts)).items():
                    if places <= 0:
                        break
                    hosts_of[id_] = found
                    if hosts := found[0]:
                        places -= len(hosts)
                        names[id_] = self.key_name(hosts[0].origin.host)
        keys = [*await self._keys(names, hosts_of), *await self._foreign_keys(foreign)]
        if empty := [id_ for id_ in hosts_of if id_ not in names]:  # their hosts have no work any more
            await db.run(sql.LEAVE_KEYS, empty, [None] * len(empty), [0.0] * len(empty))
        known = [host_id for ids in wanted.more.values() for host_id in ids]
        more = await self._hosts_of(list(wanted.more), known, wanted.hosts) if wanted.more else {}
        entering = [*named, *(row for hosts, _ in (*hosts_of.values(), *more.values()) for row in hosts)]
        if parked := [row.id for row in entering if row.parked is not None]:
            await db.run(sql.ENTER_HOSTS, parked)
        return keys, more, named

    async def _keys(
        self, names: dict[int, str], hosts_of: dict[int, tuple[tuple[HostRow, ...], float | None]]
    ) -> list[KeyRow]:
        """Make keys active, and read them."""
        if not names:
            return []
        db = self.db
        ids = list(names)
        rows = {row[0]: row for row in await db.rows(sql.KEYS, ids)}
        await db.run(sql.ACTIVATE_KEYS, ids)
        slots = [slot_in(id_) for id_ in ids]
        backoffs = {row[0]: Backoff(*row) for row in await db.rows(sql.BACKOFFS_OF, slots, list(names.values()))}
        slow = {row[0]: row[1] for row in await db.rows(sql.SLOW_RESPONSES_OF, slots, list(names.values()))}
        return [
            KeyRow(
                id_,
                name,
                rows[id_][1],
                rows[id_][2],
                rows[id_][3],
                backoffs.get(name),
                slow.get(name, 0.0),
                *hosts_of[id_],
            )
            for id_, name in names.items()
        ]

    async def _foreign_keys(self, names: dict[int, str]) -> list[KeyRow]:
        """Keys of another agent's slots, to which a robots.txt was redirected: as they are, without hosts."""
        rows = {row[0]: row for row in await self.db.rows(sql.KEYS, list(names))} if names else {}
        found = [(id_, name, rows.get(id_, (id_, None, 0.0, None))) for id_, name in names.items()]
        return [KeyRow(id_, name, row[1], row[2], row[3], None, 0.0, (), None) for id_, name, row in found]

    async def _hosts_of(
        self, key_ids: Sequence[int], known: Sequence[int], limit: int
    ) -> dict[int, tuple[tuple[HostRow, ...], float | None]]:
        """Of each key, the hosts that are first to be requested, and when another one has work."""
        found: dict[int, list[HostRow]] = {id_: [] for id_ in key_ids}
        if key_ids:
            for key_id, *row in await self.db.rows(sql.READY_HOSTS, list(key_ids), list(known), limit + 1):
                found[key_id].append(host_row(row))
        return {
            id_: (tuple(rows[:limit]), rows[limit].ready_at if len(rows) > limit else None)
            for id_, rows in found.items()
        }

    # -- takedowns

    async def forget_url(self, url: str, origin: Origin, now: float) -> Forgotten:
        """See Frontier.forget_url. Of a host of another agent nothing changes, as with the next."""
        db = self.db
        if slot_of_host(origin.host) not in self.owned:
            return Forgotten()
        async with self.change() as change:
            host_id = (await self._ids_of([origin], now, change))[origin]
            if host_id == 0:
                return Forgotten(again=True)
            keys = list(dict.fromkeys(every_key_of(url)))
            known = [(keys[n - 1], url_id, state) for n, url_id, state in
                     await db.rows(sql.KNOWN, [host_id] * len(keys), keys)]  # fmt: skip
            rows: list[StateRow] = [(id_, host_id, state) for _, id_, state in known if state != UrlState.FORGOTTEN]
            await self._erase(rows, now, change)
            new = [key for key in keys if key not in {known_key for known_key, *_ in known}]
            records = []
            for key in new:
                change.last_url += 1
                records.append(
                    (slot_in(host_id), made_id(change.last_url, slot_in(host_id)), host_id, key, None, 0, 0, 0, now,
                     UrlState.FORGOTTEN.value, "", "", None, "")
                )  # fmt: skip
            await db.copy("url", sql.URL_COLUMNS, records)
            change.add(UrlState.FORGOTTEN, len(new))
            was_forgotten = any(key == key_of(url) and state == UrlState.FORGOTTEN for key, _, state in known)
            change.marks += len(rows) + len(new) - (not was_forgotten)
        ids = tuple(sorted(url_id for url_id, *_ in rows))
        return Forgotten(len(rows), _queued(rows), ids, (host_id,), list(change.receipt(()).hosts), was_forgotten)

    async def forget_host(self, host: str, now: float) -> Forgotten:
        """The first transaction of Frontier.forget_host."""
        if slot_of_host(host) not in self.owned:
            return Forgotten()
        async with self.db.transaction():
            await self.db.run(sql.PUT_FORGOTTEN_HOST, slot_of_host(host), host, now)
            unfinished = {*await self.unfinished(), host}
            await self._put_value(_UNFINISHED, orjson.dumps(sorted(unfinished)))
        again = host in self._forgotten_hosts
        self._forgotten_hosts.add(host)
        for origin in [origin for origin in self._host_ids if origin.host == host]:
            del self._host_ids[origin]
        return Forgotten(host_ids=tuple(await self.host_ids(host)), again=again)

    async def host_ids(self, host: str) -> list[int]:
        """The ids of the origins of a host name."""
        return [row[0] for row in await self.db.rows(sql.IDS_OF_HOST_NAME, slot_of_host(host), host)]

    async def forget_slice(
        self, after: int, host_id: int, now: float, erased: list[int]
    ) -> tuple[dict[int, int], int | None]:
        """Erase up to ERASE_SLICE URLs of a host after the key `after`; their number is added to `erased`."""
        rows = await self.db.rows(sql.URLS_OF_HOST, slot_in(host_id), host_id, after, ERASE_SLICE)
        stored: list[StateRow] = [(url_id, host_id, state) for url_id, _, state in rows if state != UrlState.FORGOTTEN]
        async with self.change() as change:
            await self._erase(stored, now, change)
        erased.append(len(stored))
        return _queued(stored), rows[-1][1] if len(rows) == ERASE_SLICE else None

    async def finish_host(self, host: str) -> None:
        """The last transaction of Frontier.forget_host: erase what is known about the host itself."""
        async with self.db.transaction():
            for host_id in await self.host_ids(host):
                for statement in sql.ERASE_HOST:
                    await self.db.run(statement, slot_in(host_id), host_id)
                await self._put_value(f"error_pages:{host_id}", None, slot_in(host_id))
            left = [name for name in await self.unfinished() if name != host]
            await self._put_value(_UNFINISHED, orjson.dumps(left))

    async def unfinished(self) -> list[str]:
        """Hosts whose takedown is not finished."""
        stored = await self.value(_UNFINISHED)
        return [] if stored is None else list(orjson.loads(stored))

    async def forgotten(self, found: Sequence[Discovered]) -> list[Discovered]:
        """See Frontier.forgotten."""
        if not self.totals.forgotten and not self._forgotten_hosts:
            return []
        rows, ids = await self._known(found)
        gone = {number for number, (_, state) in rows.items() if state == UrlState.FORGOTTEN}
        return [
            one
            for number, one in enumerate(found)
            if one.origin.host in self._forgotten_hosts
            or number in gone
            or self._was_forgotten(ids.get(one.origin, 0), one)
        ]

    async def known_ids(self, found: Sequence[Discovered]) -> list[int]:
        """See Frontier.known_ids."""
        rows, _ = await self._known(found)
        return list({url_id for url_id, state in rows.values() if state != UrlState.FORGOTTEN})

    async def _known(self, found: Sequence[Discovered]) -> tuple[dict[int, tuple[int, str]], dict[Origin, int]]:
        """Number in `found` → id and state of those that are known, and the ids of their origins."""
        ids = await self._stored_ids(list(dict.fromkeys(one.origin for one in found)))
        hosts = [ids.get(one.origin, 0) for one in found]
        rows = await self.db.rows(sql.KNOWN, hosts, [one.key for one in found])
        return {number - 1: (url_id, state) for number, url_id, state in rows}, ids

    async def _erase(self, rows: Sequence[StateRow], now: float, change: PendingChange) -> None:
        """List the records of URLs in the table `takedown`, then erase all about the URLs except their keys."""
        if not rows:
            return
        ids = [url_id for url_id, *_ in rows]
        await self.db.run(sql.LIST_TAKEDOWNS, ids, now)
        for statement in sql.ERASE_URLS:
            await self.db.run(statement, ids)
        await self.db.run(sql.PUT_FORGOTTEN_VISITS, ids, now, FORGOTTEN_ERROR)
        for _, host_id, state in rows:
            change.move(host_id, state, UrlState.FORGOTTEN)

    # -- parts of transactions

    @contextlib.asynccontextmanager
    async def change(self) -> AsyncIterator["DatabaseChange"]:
        """A transaction that changes totals. They are stored with it, and kept in memory after it."""
        before = self.db.state
        change = DatabaseChange(dict(self._counts), last_host=before.last_host, last_url=before.last_url)
        async with self.db.transaction() as pending:
            yield change
            changed = await self._add_to_hosts(change)
            self._fill(pending, change)
        self._changed |= changed
        self._counts = change.counts
        self._files |= change.files
        self._error_page_hosts |= change.error_page_hosts
        self._add_up()
        self._host_ids.update(change.ids)
        while len(self._host_ids) > HOSTS_CACHED:
            self._host_ids.popitem(last=False)

    def _fill(self, pending: PendingState, change: "DatabaseChange") -> None:
        """The state of the agent after a change."""
        before = self.db.state
        ends = [at for at in (change.last_visit_at, before.last_visit_at) if at is not None]
        pending.replace(
            last_host=change.last_host,
            last_url=change.last_url,
            marks=before.marks + change.marks,
            schedule_at=max(before.schedule_at, change.schedule_at),
            last_visit_at=max(ends, default=None),
            totals=orjson.dumps({str(word): n for word, n in change.counts.items()}).decode(),
            counters=change.counters or before.counters,
        )

    async def _state_rows(self, statement: str, *values: Any) -> list[StateRow]:
        return [(row[0], row[1], row[2]) for row in await self.db.rows(statement, *values)]

    async def _states(self, ids: Sequence[int]) -> list[StateRow]:
        ours = self._ours(dict.fromkeys(ids))
        return await self._state_rows(sql.STATES, ours) if ours else []

    async def _set_state(self, rows: Sequence[StateRow], state: UrlState, change: PendingChange) -> list[int]:
        """Give URLs another state. Returns their ids."""
        ids = [url_id for url_id, *_ in rows]
        await self.db.run(sql.SET_STATES, ids, [state.value] * len(ids))
        for _, host_id, before in rows:
            change.move(host_id, before, state)
        return ids

    async def _unqueue(self, ids: Sequence[int], state: UrlState, change: PendingChange) -> set[int]:
        """Give another state to those URLs that are still queued. Returns their ids."""
        queued = [row for row in await self._states(ids) if row[2] == UrlState.QUEUED]
        return set(await self._set_state(queued, state, change))

    def _unless_last(self, end: int) -> int | None:
        """`end`, None if no URL comes after it."""
        return end if end >> SLOT_BITS < self.db.state.last_url else None

    async def _put_visits(self, batch: Batch, change: "DatabaseChange") -> None:
        if not batch.settlements:
            return
        await self._check_hosts(batch.settlements)
        before = {row[0]: row for row in await self._states([one.task.id for one in batch.settlements if one.task.id])}
        moved: list[tuple[int, str]] = []
        rows: list[tuple[Any, ...]] = []
        gone: list[tuple[Any, ...]] = []
        lines = batch.lines or (None,) * len(batch.written)
        for settlement, record, line in zip(batch.settlements, batch.written, lines, strict=True):
            task, host_id = settlement.task, settlement.host_id
            change.hosts[host_id].add(settlement)
            if task.id == 0:
                continue
            _, stored_host_id, state = before.get(task.id, (0, None, ""))
            if stored_host_id != host_id:
                raise ValueError(f"{task.url}: no url {task.id} of host {host_id}")
            if state == UrlState.FORGOTTEN:  # taken down while it was fetched
                if record is not None:
                    self._file_id(WARC_SINK, record, change)
                    gone.append((slot_in(host_id), record.name, record.offset, task.url, settlement.finished_at))
                continue
            if state != settlement.state:
                moved.append((task.id, settlement.state.value))
                change.move(host_id, state, settlement.state)
            warc_file = None if record is None else self._file_id(WARC_SINK, record, change)
            pages_file = None if line is None else self._file_id(PAGES_SINK, line, change)
            rows.append(visit_row(settlement, warc_file, None if record is None else record.offset, pages_file))
        if moved:
            await self.db.run(sql.SET_STATES, *columns(moved, 2))
        if rows:
            values = columns(rows, 20)
            for texts in (values[6], values[7], values[8]):  # last_rule, etag, last_modified
                texts[:] = map(_text, texts)
            await self.db.run(sql.UPSERT_VISITS, *values)
        if gone:
            await self.db.run(sql.PUT_TAKEDOWNS, *columns(gone, 5))

    async def _check_hosts(self, settlements: Sequence[Settlement]) -> None:
        """Raises ValueError for a host without a row. (Of URLs their rows tell.)"""
        ids = {settlement.host_id for settlement in settlements if settlement.task.id == 0}
        if ids:
            known = {row[0] for row in await self.db.rows(sql.KNOWN_HOSTS, list(ids))}
            if unknown := ids - known:
                raise ValueError(f"no host {unknown.pop()}")

    async def _put_found(
        self, settlements: Sequence[Settlement], hint_after_s: float | None, change: "DatabaseChange"
    ) -> list[int]:
        """Insert the URLs that visits discovered, with the visited URL as `via`. Returns the number of new URLs of each
        settlement; a URL that several of them found counts for the first.
        """
        links_new = [0] * len(settlements)
        found = [
            (index, settlement.task.id or None, settlement.finished_at, one)
            for index, settlement in enumerate(settlements)
            for one in settlement.discovered
        ]
        if not found:
            return links_new
        first_by_via: dict[int | None, int] = {}
        for index, via, _, _ in found:
            first_by_via.setdefault(via, index)
        new = await self._insert(found, change, hint_after_s)
        new_on: defaultdict[int, list[tuple[int, int, str]]] = defaultdict(list)  # URL id → as in Receipt.trial_links
        for number, url_id, host_id in new:
            _, via, _, one = found[number]
            links_new[first_by_via[via]] += 1
            if via is not None:
                new_on[via].append((url_id, host_id, target_of(one.url)))
        await self._note_suspects(settlements, new_on, change)
        return links_new

    async def _note_suspects(
        self,
        settlements: Sequence[Settlement],
        new_on: dict[int, list[tuple[int, int, str]]],
        change: "DatabaseChange",
    ) -> None:
        """Make new URLs of error pages suspects, and note the new URLs of trials in `change.trial_links`."""
        for settlement in settlements:
            note, url_id, host_id = settlement.note, settlement.task.id, settlement.host_id
            if note is None or not settlement.discovered:
                continue
            new = new_on.get(url_id, [])
            if note.trial is not None:
                change.trial_links[url_id] = list(new)
            if note.is_error_page:
                ids = [id_ for id_, host, _ in new if host == host_id]
                change.error_page_hosts.add(host_id)
                if ids:
                    await self.db.run(sql.SET_STATES, ids, [UrlState.SUSPECT.value] * len(ids))
                    await self.db.run(
                        sql.PUT_SUSPECTS, ids, [host_id] * len(ids), [ERROR_PAGE_LINKS] * len(ids)
                    )  # fmt: skip
                    change.make_suspects(host_id, ERROR_PAGE_LINKS, len(ids))
        hosts = self._error_page_hosts | change.error_page_hosts
        links = {
            (host_id, one.key)
            for settlement in settlements
            if (host_id := settlement.host_id) in hosts
            and (settlement.note is None or not settlement.note.is_error_page)
            for one in settlement.discovered
            if (self._host_ids.get(one.origin) or change.ids.get(one.origin)) == host_id
        }
        if not links:
            return
        linked = await self.db.rows(sql.LINKED_SUSPECTS, *columns(list(links), 2), ERROR_PAGE_LINKS)
        ids = [row[0] for row in linked]
        if ids:
            await self.db.run(sql.SET_STATES, ids, [UrlState.QUEUED.value] * len(ids))
            await self.db.run(sql.END_SUSPECTS, ids)
        for _, host_id in linked:
            change.queue_again(host_id, UrlState.SUSPECT)
            change.linked.append(host_id)

    async def _insert(
        self,
        found: Sequence[Found],
        change: "DatabaseChange",
        hint_after_s: float | None,
    ) -> list[tuple[int, int, int]]:
        """Insert those URLs that are unknown: a number, the id of the page, a time and the URL of each. Returns index
        in `found`, id and host id of those.
        """
        at = found[0][2] if found else 0.0
        origins = {one.origin for *_, one in found} if self.owns_all else await self._send_foreign(found)
        ids = await self._ids_of([one.origin for *_, one in found if one.origin in origins], at, change)
        first: dict[tuple[int, int], int] = {}  # host id and key → index of the first
        hosts: list[int] = []
        for index, (*_, one) in enumerate(found):
            host_id = ids.get(one.origin, 0)
            if host_id and self._legacy_marks and self._was_forgotten(host_id, one):
                host_id = 0
            hosts.append(host_id)
            if host_id:
                first.setdefault((host_id, one.key), index)
        asked = [pair for pair in first if pair[0] not in change.new_hosts]
        rows = await self.db.rows(sql.KNOWN, *columns(asked, 2)) if asked else []
        known = {asked[row[0] - 1]: row[1] for row in rows}
        new: list[tuple[int, int, int]] = []
        records: list[tuple[Any, ...]] = []
        for (host_id, key), index in first.items():
            if (host_id, key) in known:
                continue
            _, via, found_at, one = found[index]
            change.last_url += 1
            slot = slot_in(host_id)
            url_id = known[host_id, key] = made_id(change.last_url, slot)
            records.append(
                (slot, url_id, host_id, key, via, one.priority, one.depth, one.redirects, float(int(found_at)),
                 "queued", one.source.value, one.hop_path, None if one.kind is TaskKind.PAGE else one.kind.value,
                 target_of(one.url))
            )  # fmt: skip
            new.append((index, url_id, host_id))
        change.insert(Counter(host_id for *_, host_id in new))
        await self.db.copy("url", sql.URL_COLUMNS, records)
        await self._put_hints(found, hosts, known, hint_after_s)
        return new

    async def _send_foreign(self, found: Sequence[Found]) -> set[Origin]:
        """Put URLs in slots of others in their inbox. Returns the origins of all other URLs."""
        slots = {one.origin: slot_of_host(one.origin.host) for *_, one in found}
        ours = {origin for origin, slot in slots.items() if slot in self.owned}
        foreign = [
            (slots[one[3].origin], one)
            for one in found
            if one[3].origin not in ours and one[3].origin.host not in self._forgotten_hosts
        ]
        if foreign:
            await self.db.run(sql.PUT_IN_INBOX, *columns(inbox_rows(foreign), 3))
        return ours

    async def _put_hints(
        self,
        found: Sequence[Found],
        hosts: Sequence[int],
        known: dict[tuple[int, int], int],
        after_s: float | None,
    ) -> None:
        """Store what sitemaps say, and make URLs due sooner that have changed since their last visit."""
        hints: dict[int, tuple[Any, ...]] = {}
        for (_, _, seen_at, one), host_id in zip(found, hosts, strict=True):
            if one.hint is not None and host_id:
                url_id = known[host_id, one.key]
                hints[url_id] = (url_id, one.hint.priority, one.hint.lastmod, seen_at)
        if not hints:
            return
        await self.db.run(sql.PUT_HINTS, *columns(list(hints.values()), 4))
        if after_s is not None:
            dated = [(url_id, min(lastmod, at), at) for url_id, _, lastmod, at in hints.values() if lastmod is not None]
            urls, changed, seen = columns(dated, 3)
            await self.db.run(sql.BRING_FORWARD, urls, changed, after_s, seen)

    def _was_forgotten(self, host_id: int, one: Discovered) -> bool:
        """Whether the URL was taken down under a legacy key."""
        keys = [legacy_key_of(one.url, one.kind)]
        if one.legacy_url is not None:
            keys += [kind_key_of(one.legacy_url, one.kind), legacy_key_of(one.legacy_url, one.kind)]
        return any(key is not None and (host_id, key) in self._legacy_marks for key in keys)

    async def _ids_of(self, origins: Iterable[Origin], found_at: float, change: "DatabaseChange") -> dict[Origin, int]:
        """The id of each origin, whose host is inserted if need be; 0 if its host was taken down."""
        ids: dict[Origin, int] = {}
        missing: list[Origin] = []
        for origin in origins:
            if origin not in ids:
                known = self._host_ids.get(origin) or change.ids.get(origin)
                if known is None and origin.host not in self._forgotten_hosts:
                    missing.append(origin)
                ids[origin] = known or 0
        if not missing:
            return ids
        stored = await self._stored_ids(missing)
        for origin in missing:
            host_id = stored.get(origin)
            if host_id is None:
                domain = registrable_domain(origin.host)
                slot = slot_of(domain)
                change.last_host += 1
                host_id = made_id(change.last_host, slot)
                change.new_hosts[host_id] = (origin, slot, domain, key_id_of(self.key_name(origin.host)), found_at)
                change.add_hosts(1)
            ids[origin] = change.ids[origin] = host_id
        return ids

    async def _stored_ids(self, origins: Sequence[Origin]) -> dict[Origin, int]:
        """The ids of those origins that have a row."""
        names = [(slot_of_host(origin.host), origin.host, origin.scheme, origin.port) for origin in origins]
        rows = await self.db.rows(sql.HOST_IDS_OF, *columns(names, 4))
        return {origins[number - 1]: host_id for number, host_id in rows}

    async def _add_to_hosts(self, change: "DatabaseChange") -> dict[int, HostCount]:
        """Store the changes of hosts. Returns the counts of those whose queue changed."""
        change.schedule_at = now = max(self.db.state.schedule_at, change.schedule_at)
        await self._insert_hosts(change, now)
        counts: dict[int, HostCount] = {}
        flat: list[tuple[Any, ...]] = []
        for host_id, one in change.hosts.items():
            if host_id in change.new_hosts:
                if one.queued or one.suspects:
                    counts[host_id] = HostCount(one.queued, change.new_hosts[host_id][3])
                    change.counts[WITH_WORK] = change.counts.get(WITH_WORK, 0) + 1
                continue
            flat.append((host_id, one.queued, one.fetched, one.ok, one.errors, one.bytes, one.last_at, one.suspects,
                         one.again))  # fmt: skip
        if not flat:
            return counts
        woken: list[int] = []
        for host_id, queued, suspects, key_id in await self.db.rows(sql.ADD_TO_HOSTS, *columns(flat, 9), now):
            one = change.hosts[host_id]
            if not (one.queued or one.suspects):
                continue
            has_work, had_work = queued + suspects > 0, queued + suspects > one.queued + one.suspects
            change.counts[WITH_WORK] = change.counts.get(WITH_WORK, 0) + has_work - had_work
            counts[host_id] = HostCount(queued, key_id)
            if one.queued > 0 or (has_work and not had_work):
                woken.append(host_id)
        if woken:
            await self.db.run(sql.WAKE_KEYS, woken)
        return counts

    async def _insert_hosts(self, change: "DatabaseChange", now: float) -> None:
        """Insert the rows of new hosts and of their politeness keys, when all their URLs are counted."""
        if not change.new_hosts:
            return
        records: list[tuple[Any, ...]] = []
        keys: dict[int, float | None] = {}
        for host_id, (origin, slot, domain, key, found_at) in change.new_hosts.items():
            counted = change.hosts.get(host_id)
            queued, suspects = (counted.queued, counted.suspects) if counted is not None else (0, 0)
            has_work = queued + suspects > 0
            records.append(
                (slot, host_id, origin.scheme, origin.host, origin.port, domain, found_at, key, queued, suspects,
                 has_work, now if has_work else 0.0)
            )  # fmt: skip
            if has_work or key not in keys:
                keys[key] = now if has_work else None
        await self.db.copy("host", sql.HOST_COLUMNS, records)
        await self.db.run(sql.PUT_NEW_KEYS, list(keys), list(keys.values()))

    async def _put_robots(self, settlements: Sequence[Settlement], change: PendingChange) -> None:
        """Store verdicts; those of one host one after the other."""
        found = [(one.host_id, one.robots) for one in settlements if one.robots is not None]
        while found:
            wave: dict[int, RobotsRecord] = {}
            later: list[tuple[int, RobotsRecord]] = []
            for host_id, robots in found:
                if host_id in wave:
                    later.append((host_id, robots))
                else:
                    wave[host_id] = robots
            await self._put_robots_of(wave, change)
            found = later

    async def _put_robots_of(self, records: dict[int, RobotsRecord], change: PendingChange) -> None:
        db = self.db
        before = {row[0]: row for row in await db.rows(sql.ROBOTS_BEFORE, list(records))}
        rows = [
            (host_id, one.verdict, one.status_code, one.body, one.fetched_at, one.expires_at, one.crawl_delay_s,
             one.failing_since, one.error)
            for host_id, one in records.items()
        ]  # fmt: skip
        await db.run(sql.PUT_ROBOTS, *columns(rows, 9))
        await db.run(sql.SET_HOST_STATES, list(records), [host_state(one).value for one in records.values()])
        raised: list[tuple[int, float]] = []
        lowered: list[int] = []
        versions: list[tuple[Any, ...]] = []
        marked: list[int] = []
        for host_id, one in records.items():
            _, before_s, digest_before, number, mark = before[host_id]
            if (one.crawl_delay_s or 0.0) < (before_s or 0.0):
                lowered.append(host_id)
            elif one.crawl_delay_s is not None:
                raised.append((host_id, one.crawl_delay_s))
            if one.verdict == "unreachable":
                continue
            is_marked = mark is not None
            if one.verdict != "rules" or one.body is not None:
                digest = robots_digest(one)
                if digest != digest_before:
                    if digest_before is not None:
                        change.robots_changed.append(host_id)
                        marked.append(host_id)
                        is_marked = True
                    versions.append((host_id, (number or 0) + 1, one.fetched_at, one.status_code, one.verdict, digest,
                                     one.body))  # fmt: skip
            if is_marked:
                change.to_reevaluate.append(host_id)
        if raised:
            await db.run(sql.RAISE_CRAWL_DELAYS, *columns(raised, 2))
        if lowered:
            await db.run(sql.COMPUTE_CRAWL_DELAYS, lowered)
        if versions:
            await db.run(sql.ADD_ROBOTS_VERSIONS, *columns(versions, 7))
            hosts, numbers = columns([row[:2] for row in versions], 2)
            await db.run(sql.CUT_ROBOTS_VERSIONS, hosts, numbers, ROBOTS_VERSIONS_KEPT)
        if marked:
            await db.run(sql.MARK_HOSTS, marked)

    async def _put_backoffs(self, backoffs: Sequence[Backoff]) -> None:
        last = {one.key: one for one in backoffs}
        put = [(slot_of_host(one.key), one.key, one.until_at, one.failures, one.reason)
               for one in last.values() if one.until_at != 0]  # fmt: skip
        ended = [(slot_of_host(one.key), one.key) for one in last.values() if one.until_at == 0]
        if put:
            await self.db.run(sql.PUT_BACKOFFS, *columns(put, 5))
        if ended:
            await self.db.run(sql.END_BACKOFFS, *columns(ended, 2))

    async def _put_slow_responses(self, slow_responses: Sequence[SlowResponse]) -> None:
        last = {one.key: one for one in slow_responses}
        put = [(slot_of_host(one.key), one.key, one.response_s, one.updated_at)
               for one in last.values() if one.response_s > 0]  # fmt: skip
        ended = [(slot_of_host(one.key), one.key) for one in last.values() if one.response_s <= 0]
        if put:
            await self.db.run(sql.PUT_SLOW_RESPONSES, *columns(put, 4))
        if ended:
            await self.db.run(sql.END_SLOW_RESPONSES, *columns(ended, 2))

    async def _put_readiness(self, hosts: Iterable[HostReadiness]) -> None:
        rows = {
            one.host_id: (one.host_id, one.ready_at, one.parked, one.failures, one.reason, int(one.has_responded),
                          one.queued)
            for one in hosts
        }  # fmt: skip
        if rows:
            await self.db.run(sql.PUT_READINESS, *columns(list(rows.values()), 7))

    async def _put_notes(self, settlements: Sequence[Settlement]) -> None:
        """Store what pages contribute to the verdicts on their templates."""
        samples: list[tuple[Any, ...]] = []
        counts: Counter[tuple[int, str]] = Counter()
        for settlement in settlements:
            if (note := settlement.note) is None:
                continue
            if note.words is not None:
                samples.append((settlement.task.id, settlement.host_id, note.words))
            counts.update((settlement.host_id, template) for template in note.counted)
        if samples:
            await self.db.run(sql.PUT_SAMPLES, *columns(samples, 3))
        if counts:
            flat = [(host_id, template, n) for (host_id, template), n in counts.items()]
            await self.db.run(sql.ADD_TO_TEMPLATES, *columns(flat, 3))

    async def _put_sink_files(self, files: Sequence[SinkFile], change: PendingChange) -> None:
        last = {(file.sink, file.name): file for file in files}
        if last:
            rows = [(file.sink, file.name, file.state.value, file.committed_bytes) for file in last.values()]
            stored = await self.db.rows(sql.PUT_SINK_FILES, self.db.agent, *columns(rows, 4))
            change.files.update((name, file_id) for name, file_id in stored)

    def _file_id(self, sink: str, place: RecordLocation, change: PendingChange) -> int:
        file_id = change.files.get(place.name) or self._files.get(place.name)
        if file_id is None:
            raise ValueError(f"no output file {place.name} is known")
        return file_id

    def know_files(self, rows: Sequence[Any]) -> None:
        """Keep the ids of output files (rows of sql.SINK_FILES)."""
        self._files = {row[1]: row[4] for row in rows}


class DatabaseChange(PendingChange):
    """The changes of a transaction, with the sequence numbers that it uses."""

    __slots__ = ("error_page_hosts", "last_host", "last_url")

    def __init__(self, counts: dict[str, int], *, last_host: int, last_url: int) -> None:
        super().__init__(counts)
        self.last_host = last_host
        self.last_url = last_url
        self.error_page_hosts: set[int] = set()  # with new suspects that only error pages link to

    def add_hosts(self, count: int) -> None:
        self.counts["hosts"] = self.counts.get("hosts", 0) + count


def _by_host(rows: Sequence[StateRow]) -> dict[int, int]:
    """Host id → number of URLs."""
    return dict(Counter(host_id for _, host_id, _ in rows))


def _queued(rows: Sequence[StateRow]) -> dict[int, int]:
    return dict(Counter(host_id for _, host_id, state in rows if state == UrlState.QUEUED))
