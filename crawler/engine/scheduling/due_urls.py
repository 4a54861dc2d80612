"""Due URLs: when URLs that wait for a retry or a revisit are queued again."""

from collections.abc import AsyncIterator, Mapping
from typing import Final

from crawler.core.clock import Clock
from crawler.engine.pages.revisits import Revisits
from crawler.engine.scheduling.prefetch import DISK_FULL_RETRY_S
from crawler.engine.scheduling.ready_queue import NEVER
from crawler.frontier.base import Frontier, FrontierFull

COMMIT_WITHIN_S: Final = 30.0  # a visit that ended before the clock was set back is stored within this time


class DueUrls:
    """`next_at` is the time of the next retry (UTC), or None; `revisits.next_at` is that of the next revisit."""

    def __init__(self, frontier: Frontier, revisits: Revisits, clock: Clock) -> None:
        self.next_at: float | None = None
        self._frontier = frontier
        self._revisits = revisits
        self._clock = clock
        self._outage_at: float | None = None  # begin of an outage that is over; its waiting URLs are due at once (UTC)
        self._redates_mono: list[float] = []  # when the store's dates in the future are corrected
        self._disk_full_until_mono = 0.0

    async def start(self, *, has_future_dates: bool) -> None:
        """Read from the store what is due next. `has_future_dates`: the clock was set back since the last run."""
        if has_future_dates:
            await self._correct_dates()
        await self._revisits.start()
        self.next_at = await self._frontier.next_due()

    async def look_again(self) -> None:
        """Read what is due next from hosts that another agent had until now. Raises FrontierFull."""
        self.next_at = await self._frontier.next_due()
        if self._revisits.enabled:
            self._revisits.next_at = await self._frontier.next_due(revisits=True)

    def due_at(self, when: float) -> bool:
        """Note that a URL waits until `when` (UTC). Returns whether it is the first of all that wait."""
        is_first = self.next_at is None or when < self.next_at
        if is_first:
            self.next_at = when
        return is_first

    def outage_over(self, since_at: float) -> None:
        """Make the URLs due at once that failed in an outage, which began at `since_at` (UTC) and is over."""
        self._outage_at = since_at

    def clock_set_back(self) -> None:
        """Have the store's dates in the future corrected twice: now, and again when the visits under way are stored."""
        mono = self._clock.mono()
        self._redates_mono = [mono, mono + COMMIT_WITHIN_S]

    @property
    def is_quiet(self) -> bool:
        """Whether the first correction of the store's dates is done, if the clock was set back."""
        return len(self._redates_mono) < 2

    def wait_s(self) -> float:
        """Seconds until `promote` has something to do."""
        due_s = NEVER if self.next_at is None else self.next_at - self._clock.now()
        due_s = min(due_s, self._revisits.due_s())
        if self._redates_mono:
            due_s = min(due_s, self._redates_mono[0] - self._clock.mono())
        if self._outage_at is not None:
            due_s = 0.0
        return max(0.0, due_s, self._disk_full_until_mono - self._clock.mono())

    async def promote(self) -> AsyncIterator[Mapping[int, int]]:
        """Queue what is due. Yields host id → number of URLs, after each transaction."""
        try:
            if self._outage_at is not None:
                await self._frontier.retry_now(since_at=self._outage_at, now=self._clock.now())
                self._outage_at = None
            if self._redates_mono and self._redates_mono[0] <= self._clock.mono():
                await self._correct_dates()
                del self._redates_mono[0]
            if self.next_at is not None:
                yield await self._frontier.promote(now=self._clock.now())
                self.next_at = await self._frontier.next_due()
            if self._revisits.due_s() <= 0:
                yield await self._revisits.promote()
        except FrontierFull:  # the next commit fails as well, and reports it
            self._disk_full_until_mono = self._clock.mono() + DISK_FULL_RETRY_S

    async def _correct_dates(self) -> None:
        now, revisits = self._clock.now(), self._revisits
        await self._frontier.clock_set_back(now=now, revisits_by=revisits.latest_at(now))
        self.next_at = await self._frontier.next_due()
        if revisits.enabled:
            revisits.next_at = await self._frontier.next_due(revisits=True)
