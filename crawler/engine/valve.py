"""When requests may leave at all, whoever is asked: `fetch.hours`, and the debts of `fetch.limits`.

It holds nothing back itself: the scheduler asks before it leases and workers before each request. Politeness is not its
business. Invariant: `on_hours` is told of every change it sees of whether the hours are open, once.
"""

from collections.abc import Callable

from crawler.core.clock import Clock
from crawler.core.hours import NEVER, Hours
from crawler.fetch.limits import Bandwidth

LOOK_S = 15.0  # the wall clock may be set: nobody sleeps longer than this for it


class Valve:
    """`hours` None: always open. `on_hours` gets whether they are open and until when (UTC; infinity: for good)."""

    def __init__(self, clock: Clock, hours: Hours | None = None, bandwidth: Bandwidth | None = None) -> None:
        self._clock = clock
        self._bandwidth = bandwidth if bandwidth is not None else Bandwidth()
        self.on_hours: Callable[[bool, float], None] = lambda is_open, until_at: None
        self._was_open = True
        self.set_hours(hours)

    def set_bandwidth(self, bandwidth: Bandwidth) -> None:
        """Another client is in force, with buckets of its own."""
        self._bandwidth = bandwidth

    def set_hours(self, hours: Hours | None) -> None:
        """Put other windows in force; what is in flight finishes."""
        self._hours = hours
        self._known_from_at = self._known_until_at = 0.0
        self._is_open = True
        if hours is None and not self._was_open:
            self._was_open = True
            self.on_hours(True, NEVER)

    def shut_s(self) -> float:
        """Seconds until a request may leave; 0: now."""
        if self._hours is not None and not self._in_hours(self._hours):
            return self._known_until_at - self._clock.now()
        if self._bandwidth.is_limited:
            return max(0.0, self._bandwidth.opens_mono - self._clock.mono())
        return 0.0

    def host_opens_mono(self, host: str) -> float:
        """When one host may be asked again, as far as its own bandwidth goes; not after now: at once."""
        return self._bandwidth.host_opens_mono(host) if self._bandwidth.is_limited else 0.0

    @property
    def closed_until_at(self) -> float | None:
        """While the hours are closed, when they open (UTC); None: they are open."""
        if self._hours is None or self._in_hours(self._hours):
            return None
        return self._known_until_at

    @property
    def is_throttled(self) -> bool:
        """Whether, a moment ago at the latest, requests were held back by `fetch.limits`."""
        return self._bandwidth.is_limited and self._bandwidth.opens_mono > self._clock.mono() - 1.0

    def _in_hours(self, hours: Hours) -> bool:
        now = self._clock.now()
        if not self._known_from_at <= now < self._known_until_at:
            self._is_open = hours.is_open(now)
            self._known_from_at, self._known_until_at = now, hours.changes_at(now)
            if self._is_open is not self._was_open:
                self._was_open = self._is_open
                self.on_hours(self._is_open, self._known_until_at)
        return self._is_open
