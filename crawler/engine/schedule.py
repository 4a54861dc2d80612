"""The schedule of a daemon: when its seeds, or everything, are visited anew (`[schedule]`).

The store has the time of the last visit by the schedule. What was missed while no daemon ran is caught up once, as by
Persistent= of a timer of systemd. Another schedule begins at the time it comes into force.
"""

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Final

import orjson

from crawler.core.calendar_expression import first_after
from crawler.core.clock import Clock
from crawler.core.formatting import timestamp
from crawler.core.models import Discovered
from crawler.core.options import ScheduleOptions
from crawler.engine.rounds import Rounds, to_the_end
from crawler.engine.scheduling.host_table import OnEvent
from crawler.engine.scheduling.scheduler import Scheduler
from crawler.frontier.base import Frontier, FrontierFull
from crawler.obs.events import Event

SEEDS_AT_ONCE: Final = 1_000  # of a transaction
CHECK_S: Final = 60.0  # how soon it is noticed that the machine's clock or time zone was set
_DISK_FULL_PAUSE_S: Final = 5.0
_STORED: Final = "schedule"


class Schedule:
    """`next_at` is the time of the next visit (UTC); None if there is none."""

    def __init__(
        self,
        options: ScheduleOptions,
        *,
        seeds: Callable[[], Sequence[Discovered]],
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
            since_at = min(float(known["at"]), now) if is_same else now
            if not is_same:
                await self._store(options, now)
            if self._options is not options:  # a reload
                return 0.0
            self._since_at = since_at
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
            fields["queued"] = await self._queue_seeds()
        await self._store(options, now)
        if self._options is options:
            self._since_at, self.next_at = now, first_after(options.at, now)
            if self.next_at is not None:
                fields["next"] = timestamp(self.next_at)
        self._on_event(Event.SCHEDULE, fields)

    async def _queue_seeds(self) -> int:
        seeds, total = self._seeds(), 0
        for start in range(0, len(seeds), SEEDS_AT_ONCE):
            queued = await self._frontier.queue_visited(seeds[start : start + SEEDS_AT_ONCE])
            self._scheduler.requeued(queued)
            total += sum(queued.values())
        return total

    async def _store(self, options: ScheduleOptions, at: float) -> None:
        await self._frontier.store_value(_STORED, orjson.dumps({"at": at, "schedule": _words(options)}))


def _words(options: ScheduleOptions) -> list[str]:
    return [options.what, *options.at]
