"""Rate limits beside those of politeness keys: of one IP address, and of the whole crawl (hours and bandwidth)."""

from collections.abc import Callable
from typing import Final

from crawler.core.clock import NEVER, Clock, Hours
from crawler.core.options import PolitenessOptions
from crawler.core.politeness import OPEN, PolitenessState, address_delay, address_width
from crawler.fetch.limits import Bandwidth

HOURS_RECHECK_S: Final = 15.0  # how often closed hours are checked, since the wall clock may be set
_PRUNE_OVER: Final = 4_096  # beyond so many addresses, those whose delay is over are dropped


class AddressRateLimiter:
    """Rate limits of IP addresses. When a request ends, `on_leave` is called with its address and the time at which the
    address opens again (monotonic).
    """

    def __init__(
        self,
        options: PolitenessOptions,
        clock: Clock,
        on_leave: Callable[[str, float], None] = lambda address, opens_mono: None,
    ) -> None:
        self._clock = clock
        self._delay_s = address_delay(options)
        self._width = address_width(options)
        self._states: dict[str, PolitenessState] = {}
        self._initial_state = OPEN  # of an address that had no request since the start
        self._prune_at = _PRUNE_OVER
        self._on_leave = on_leave

    def reconfigure(self, options: PolitenessOptions) -> None:
        """Apply new options. A delay that has begun keeps its end."""
        self._delay_s = address_delay(options)
        self._width = address_width(options)

    def delay_all(self) -> None:
        """Delay the first request to every address: an earlier run may have sent one a moment ago."""
        self._initial_state = OPEN.began().ended(self._clock.mono(), delay_s=self._delay_s)

    @property
    def width(self) -> int:
        """Requests in flight to one address where it has no delay."""
        return self._width

    @property
    def has_delay(self) -> bool:
        return self._delay_s > 0

    def opens_at(self, address: str) -> float | None:
        """None: open now. Otherwise the monotonic time it opens; infinity if a request in flight must end first."""
        state = self._states.get(address, self._initial_state)
        return state.opens_at(self._clock.mono(), delay_s=self._delay_s, width=self._width)

    def enter(self, address: str) -> float | None:
        """Begin a request to the address and return None; or return when it opens, as `opens_at`."""
        opens = self.opens_at(address)
        if opens is None:
            self._states[address] = self._states.get(address, self._initial_state).began()
        return opens

    def leave(self, address: str) -> None:
        """End a request to the address, with any result."""
        now = self._clock.mono()
        state = self._states[address].ended(now, delay_s=self._delay_s)
        self._states[address] = state
        if len(self._states) > self._prune_at:
            self._states = {known: one for known, one in self._states.items() if one.in_flight or one.open_mono > now}
            self._prune_at = max(_PRUNE_OVER, 2 * len(self._states))
        self._on_leave(address, state.open_mono)


class CrawlRateLimiter:
    """Limits of the whole crawl: `hours` (None: always open) and `bandwidth`. `on_hours` is called with whether the
    hours are open, and until when (UTC; infinity: without end).
    """

    def __init__(
        self,
        clock: Clock,
        hours: Hours | None = None,
        bandwidth: Bandwidth | None = None,
        on_hours: Callable[[bool, float], None] = lambda is_open, until_at: None,
    ) -> None:
        self._clock = clock
        self._bandwidth = bandwidth if bandwidth is not None else Bandwidth()
        self._on_hours = on_hours
        self._was_open = True
        self.set_hours(hours)

    def set_hours(self, hours: Hours | None) -> None:
        """Apply new hours. Requests in flight finish."""
        self._hours = hours
        self._computed_at = self._changes_at = 0.0
        self._is_open = True
        if hours is None and not self._was_open:
            self._was_open = True
            self._on_hours(True, NEVER)

    def closed_s(self) -> float:
        """Seconds until requests may be sent; 0: they may now."""
        if self._hours is not None and not self._in_hours(self._hours):
            return self._changes_at - self._clock.now()
        if self._bandwidth.is_limited:
            return max(0.0, self._bandwidth.opens_mono - self._clock.mono())
        return 0.0

    def host_opens_mono(self, host: str) -> float:
        """When the bandwidth of one host allows the next request; a time in the past: now."""
        return self._bandwidth.host_opens_mono(host) if self._bandwidth.is_limited else 0.0

    @property
    def closed_until_at(self) -> float | None:
        """When the hours open (UTC); None while they are open."""
        if self._hours is None or self._in_hours(self._hours):
            return None
        return self._changes_at

    @property
    def is_limited_by_bandwidth(self) -> bool:
        """Whether `fetch.bandwidth` held back requests within the last second."""
        return self._bandwidth.is_limited and self._bandwidth.opens_mono > self._clock.mono() - 1.0

    def _in_hours(self, hours: Hours) -> bool:
        now = self._clock.now()
        if not self._computed_at <= now < self._changes_at:
            self._is_open = hours.is_open(now)
            self._computed_at, self._changes_at = now, hours.changes_at(now)
            if self._is_open is not self._was_open:
                self._was_open = self._is_open
                self._on_hours(self._is_open, self._changes_at)
        return self._is_open
