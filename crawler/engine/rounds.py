"""Rounds, in which every URL that was visited before is visited once more (`crawler crawl --again`), and the schedule
of a daemon: when its seeds, or everything, are visited anew (`[schedule]`).

The store queues the URLs of a round in slices, beside the crawl, and remembers how far it is; what the visits found is
counted in the transactions that store them. A round that was interrupted goes on at the next start, and is over when
the crawl has nothing left to do.

The store has the time of the last visit by the schedule. What was missed while no daemon ran is caught up once, as by
Persistent= of a timer of systemd. Another schedule begins at the time it comes into force, and every schedule at the
time to which the clock was set back.

Invariant: no URL is queued twice by a round, whenever it is killed.
"""

import asyncio
from collections.abc import Callable, Coroutine, Iterable, Iterator
from contextlib import suppress
from dataclasses import asdict, replace
from itertools import islice
from typing import Final

import orjson

from crawler.core.calendar_expression import first_after
from crawler.core.clock import Clock
from crawler.core.enums import UrlState
from crawler.core.formatting import timestamp
from crawler.core.models import Denied, Discovered, Round, RoundCounts, Settlement
from crawler.core.options import ScheduleOptions
from crawler.core.revisit import VisitResult
from crawler.engine.pages.revisits import finding_of
from crawler.engine.scheduling.host_table import OnEvent
from crawler.engine.scheduling.scheduler import Scheduler
from crawler.frontier.base import Frontier, FrontierFull, UrlSelection
from crawler.obs.events import Event

SEEDS_AT_ONCE: Final = 1_000  # of a transaction
CHECK_S: Final = 60.0  # how soon it is noticed that the machine's clock or time zone was set
CLOCK_BACK_S: Final = 60.0  # a time by which the clock was set back is not visited again
_DISK_FULL_PAUSE_S: Final = 5.0
_CROWDED_PAUSE_S: Final = 1.0
_STORED: Final = "schedule"
_ENDS: Final = (UrlState.DONE, UrlState.GAVE_UP)
_COUNTED_AS: Final = {
    VisitResult.NEW: "changed",  # content where no visit before had any
    VisitResult.CHANGED: "changed",
    VisitResult.SAME: "unchanged",
    VisitResult.GONE: "gone",
    VisitResult.FAILED: "failed",
}


async def begin_round(frontier: Frontier, last: Round | None, *, now: float) -> Round:
    """The round that goes on with a start: `last` if something of it is left, else a new one."""
    if last is not None and last.is_under_way:
        totals = frontier.totals()
        if not last.is_queued or totals.queued or totals.waiting:
            return last
        last = replace(last, ended_at=now)  # the run before was killed when it was done
        await frontier.put_round(last)
    return await _begin_next(frontier, last, now=now)


async def _begin_next(frontier: Frontier, last: Round | None, *, now: float) -> Round:
    begun = Round(1 if last is None else last.number + 1, now, last_id=await frontier.last_url_id())
    await frontier.put_round(begun)
    return begun


async def to_the_end(change: Coroutine[None, None, None]) -> None:
    """Await a change of the store and of what the scheduler knows of it, also if this is cancelled: they must agree."""
    task = asyncio.ensure_future(change)
    try:
        await asyncio.shield(task)
    except asyncio.CancelledError:
        with suppress(FrontierFull):
            await task
        raise


class Rounds:
    """`current` is the round that is under way, or ended in this run; None if there is none."""

    def __init__(self, frontier: Frontier, scheduler: Scheduler, clock: Clock, on_event: OnEvent) -> None:
        self.current: Round | None = None
        self._last: Round | None = None  # of an earlier run
        self._frontier = frontier
        self._scheduler = scheduler
        self._clock = clock
        self._on_event = on_event
        self._begun = asyncio.Event()
        self._restarts = 0

    def load(self, last: Round | None) -> None:
        """Go on with the last round of the store, if it is under way."""
        self._last = last
        if last is not None and last.is_under_way:
            self.current = last

    @property
    def is_under_way(self) -> bool:
        return self.current is not None and self.current.is_under_way

    @property
    def is_queueing(self) -> bool:
        """Whether URLs of the round are still to be queued."""
        return self.current is not None and not self.current.is_queued

    async def begin(self, now: float) -> Round:
        """Begin a round, unless one is under way. Return the one under way. Raises FrontierFull."""
        if self.current is None or not self.current.is_under_way:
            self.current = await _begin_next(self._frontier, self.current or self._last, now=now)
        self._begun.set()
        return self.current

    async def look_again(self) -> None:
        """Queue from the beginning if a round is under way: there are URLs that were of another agent. Raises
        FrontierFull.
        """
        if (current := self.current) is not None and current.is_under_way:
            self._restarts += 1
            last_id = max(current.last_id, await self._frontier.last_url_id())
            await self._frontier.put_round(replace(current, last_id=last_id, queued_to=0))
            self.current = replace(self.current or current, last_id=last_id, queued_to=0)
            self._begun.set()

    async def run(self) -> None:
        """Queue the URLs of rounds, slice by slice, until cancelled."""
        while True:
            self._begun.clear()
            if not self.is_queueing:
                await self._begun.wait()
            if self._scheduler.workbench.is_over_bound:  # hosts beyond a limit on URLs enter all the same
                await asyncio.sleep(_CROWDED_PAUSE_S)
                continue
            try:
                await to_the_end(self._queue_slice())
            except FrontierFull:
                await asyncio.sleep(_DISK_FULL_PAUSE_S)

    async def _queue_slice(self) -> None:
        """Queue a slice of the URLs that were visited, but not since the round began. A visit dated later than now
        counts as made before: the clock was set back.
        """
        if (current := self.current) is None or not self.is_queueing:
            return
        restarts = self._restarts
        selection = UrlSelection(_ENDS, not_visited=(current.started_at, self._clock.now()))
        found, after = await self._frontier.settled_urls(selection, after=current.queued_to)
        rows = await self._frontier.host_rows_of({one.host_id for one in found})
        covers = self._scheduler.host_table.blocklist.covers
        open_hosts = {row.id for row in rows if covers(row.origin.host) is None}
        ids = [one.id for one in found if one.id <= current.last_id and one.host_id in open_hosts]
        self._scheduler.requeued(await self._frontier.queue_urls(ids, states=_ENDS))
        if restarts != self._restarts:  # this slice may be without those that came
            return
        queued_to = current.last_id if after is None else min(after, current.last_id)
        await self._frontier.put_round(replace(current, queued_to=queued_to))
        if restarts != self._restarts:
            return
        self.current = replace(self.current or current, queued_to=queued_to)

    def counts_with(self, settlements: Iterable[Settlement]) -> RoundCounts | None:
        """The counts after `settlements` are stored; None if no round is under way."""
        if self.current is None or not self.current.is_under_way:
            return None
        counts = asdict(self.current.counts)
        for settlement in settlements:
            task = settlement.task
            if settlement.state not in _ENDS or not task.id or isinstance(settlement.outcome, Denied):
                continue
            if not task.is_revisit:
                counts["new"] += 1
            elif task.id <= self.current.last_id:
                digest = None if settlement.record is None else settlement.record.payload_digest
                found = finding_of(task, settlement.outcome, settlement.state, digest)
                counts["visited"] += 1
                counts[_COUNTED_AS[found]] += 1
        return RoundCounts(**counts)

    def stored(self, counts: RoundCounts | None) -> None:
        """These counts are in the store."""
        if counts is not None and self.current is not None:
            self.current = replace(self.current, counts=counts)

    async def end(self, now: float) -> None:
        """The round is over, if there is one. Raises FrontierFull."""
        if self.current is not None and self.current.is_under_way:
            current = replace(self.current, ended_at=now)
            await self._frontier.put_round(current)
            self.current = current = replace(self.current, ended_at=now)
            fields = {"round": current.number, "started_at": timestamp(current.started_at)}
            self._on_event(Event.ROUND_OVER, fields | asdict(current.counts))


class Schedule:
    """`next_at` is the time of the next visit (UTC); None if there is none."""

    def __init__(
        self,
        options: ScheduleOptions,
        *,
        seeds: Callable[[], Iterator[Discovered]],
        frontier: Frontier,
        scheduler: Scheduler,
        rounds: Rounds,
        clock: Clock,
        on_event: OnEvent,
    ) -> None:
        self.next_at: float | None = None
        self._options = options
        self._seeds = seeds
        self._frontier = frontier
        self._scheduler = scheduler
        self._rounds = rounds
        self._clock = clock
        self._on_event = on_event
        self._since_at: float | None = None  # of the schedule in force: when it began, or last visited; None: unknown
        self._changed = asyncio.Event()

    def reconfigure(self, options: ScheduleOptions) -> None:
        """Put another schedule in force."""
        if options != self._options:
            self._options, self._since_at, self.next_at = options, None, None
            self._changed.set()

    async def run(self) -> None:
        """Visit by the schedule, until cancelled."""
        while True:
            self._changed.clear()
            wait_s = None
            try:
                if self._options.at:
                    wait_s = await self._visit_if_due()
            except FrontierFull:
                wait_s = _DISK_FULL_PAUSE_S
            with suppress(TimeoutError):
                async with asyncio.timeout(wait_s):
                    await self._changed.wait()

    async def _visit_if_due(self) -> float:
        """Return the seconds to wait."""
        options, now = self._options, self._clock.now()
        if self._since_at is None:
            known = orjson.loads(await self._frontier.stored_value(_STORED) or b"{}")
            is_same = known.get("schedule") == _words(options)
            since_at = float(known["at"]) if is_same else now
            if not is_same:
                await self._store(options, now)
            if self._options is not options:  # a reload
                return 0.0
            self._since_at = since_at
        if self._since_at > now + CLOCK_BACK_S:  # the clock was set back: else nothing is visited until then
            self._since_at = now
        self.next_at = first_after(options.at, self._since_at)
        if self.next_at is None or self.next_at > now:
            return CHECK_S if self.next_at is None else min(CHECK_S, self.next_at - now)
        await to_the_end(self._visit(options, now))
        return 0.0

    async def _visit(self, options: ScheduleOptions, now: float) -> None:
        fields: dict[str, object] = {"what": options.what}
        if options.what == "all":
            fields["round"] = (await self._rounds.begin(now)).number
        else:
            try:
                fields["queued"] = await self._queue_seeds()
            except OSError as error:  # a file of seeds is gone: what was queued before it stays queued
                fields["detail"] = f"the seeds cannot be read: {error.strerror}: {error.filename}"
        await self._store(options, now)
        if self._options is options:
            self._since_at, self.next_at = now, first_after(options.at, now)
            if self.next_at is not None:
                fields["next"] = timestamp(self.next_at)
        self._on_event(Event.SCHEDULE, fields)

    async def _queue_seeds(self) -> int:
        seeds, total = self._seeds(), 0
        while part := list(islice(seeds, SEEDS_AT_ONCE)):
            queued = await self._frontier.queue_urls(await self._frontier.known_ids(part), states=_ENDS)
            self._scheduler.requeued(queued)
            total += sum(queued.values())
        return total

    async def _store(self, options: ScheduleOptions, at: float) -> None:
        await self._frontier.store_value(_STORED, orjson.dumps({"at": at, "schedule": _words(options)}))


def _words(options: ScheduleOptions) -> list[str]:
    return [options.what, *options.at]
