"""When requests may leave: limits per IP address, hours of the week, and debts of bandwidth."""

from collections.abc import Callable
from typing import Final

from crawler.core.clock import NEVER, Clock, Hours
from crawler.core.options import PolitenessOptions
from crawler.core.politeness import OPEN, PolitenessState, address_delay, address_width
from crawler.fetch.limits import Bandwidth

_PRUNE_OVER: Final = 4_096  # addresses remembered before those whose delay is over are dropped


class AddressRateLimiter:
    """`on_leave` is told which address became free and when it opens (monotonic)."""

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
        self._unknown = OPEN  # the turn of an address not asked since the start
        self._prune_at = _PRUNE_OVER
        self._on_leave = on_leave

    def reconfigure(self, options: PolitenessOptions) -> None:
        """Other options are in force. Rests that run keep the end they have."""
        self._delay_s = address_delay(options)
        self._width = address_width(options)

    def delay_all(self) -> None:
        """An earlier run may have asked any address a moment ago: each rests its delay first."""
        self._unknown = OPEN.began().ended(self._clock.mono(), delay_s=self._delay_s)

    @property
    def width(self) -> int:
        """Requests in flight to one address where it has no delay."""
        return self._width

    @property
    def has_delay(self) -> bool:
        return self._delay_s > 0

    def opens_at(self, address: str) -> float | None:
        """None: open now. Otherwise the monotonic time it opens; infinity while what is in flight must end first."""
        state = self._states.get(address, self._unknown)
        return state.opens_at(self._clock.mono(), delay_s=self._delay_s, width=self._width)

    def enter(self, address: str) -> float | None:
        """Take the address, or say when to come back."""
        opens = self.opens_at(address)
        if opens is None:
            self._states[address] = self._states.get(address, self._unknown).began()
        return opens

    def leave(self, address: str) -> None:
        """The request to the address ended, however."""
        now = self._clock.mono()
        state = self._states[address].ended(now, delay_s=self._delay_s)
        self._states[address] = state
        if len(self._states) > self._prune_at:
            self._states = {a: t for a, t in self._states.items() if t.in_flight or t.open_mono > now}
            self._prune_at = max(_PRUNE_OVER, 2 * len(self._states))
        self._on_leave(address, state.open_mono)


HOURS_RECHECK_S: Final = 15.0  # the scheduler looks at closed hours this often: the wall clock may be set


class CrawlRateLimiter:
    """`hours` None: always open. `on_hours` gets whether they are open and until when (UTC; infinity: for good)."""

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
        """Put other windows in force; what is in flight finishes."""
        self._hours = hours
        self._known_from_at = self._known_until_at = 0.0
        self._is_open = True
        if hours is None and not self._was_open:
            self._was_open = True
            self._on_hours(True, NEVER)

    def closed_s(self) -> float:
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
        """Whether, a moment ago at the latest, requests were held back by `fetch.bandwidth`."""
        return self._bandwidth.is_limited and self._bandwidth.opens_mono > self._clock.mono() - 1.0

    def _in_hours(self, hours: Hours) -> bool:
        now = self._clock.now()
        if not self._known_from_at <= now < self._known_until_at:
            self._is_open = hours.is_open(now)
            self._known_from_at, self._known_until_at = now, hours.changes_at(now)
            if self._is_open is not self._was_open:
                self._was_open = self._is_open
                self._on_hours(self._is_open, self._known_until_at)
        return self._is_open
