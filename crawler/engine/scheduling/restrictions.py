"""What holds requests back beside the delays of politeness keys: rate limits of IP addresses and of the whole crawl
(hours and bandwidth), limits on the number of URLs, and hosts and domains that an operator blocked.

Invariants: a first attempt counts for the limits on URLs from the moment its task is leased, so that none is exceeded.
What a block covers does not depend on the order in which blocks were added and removed.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from typing import Final

from crawler.core.clock import NEVER, Clock, Hours
from crawler.core.enums import DenyReason
from crawler.core.models import Origin, Task
from crawler.core.options import PolitenessOptions, ScopeOptions
from crawler.core.politeness import OPEN, PolitenessState, address_delay, address_width
from crawler.core.url import UrlError, parse_seed, parse_typed
from crawler.engine.scheduling.host import Host
from crawler.fetch.limits import Bandwidth
from crawler.frontier.base import BlockedHost

HOURS_RECHECK_S: Final = 15.0  # how often closed hours are checked, since the wall clock may be set
_PRUNE_OVER: Final = 4_096  # beyond so many addresses, those whose delay is over are dropped
MAX_REASON = 1_000  # characters
HOST = "host"
DOMAIN = "domain"


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
        self._agents = 1
        self.reconfigure(options)
        self._states: dict[str, PolitenessState] = {}
        self._initial_state = OPEN  # of an address that had no request since the start
        self._prune_at = _PRUNE_OVER
        self._on_leave = on_leave

    def reconfigure(self, options: PolitenessOptions) -> None:
        """Apply new options. A delay that has begun keeps its end."""
        self._options = options
        self._delay_s = address_delay(options) * self._agents
        self._width = max(1, address_width(options) // self._agents)

    def share(self, agents: int) -> None:
        """Send so many times fewer requests to an address: as many agents send some."""
        self._agents = agents
        self.reconfigure(self._options)

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

    @property
    def interval_s(self) -> float:
        """Seconds between two requests to an address: its delay, or else an estimate for responses within a second."""
        return self._delay_s or 1.0 / self._width

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

    def share(self, agents: int) -> None:
        """Keep to one of so many equal shares of the bandwidth."""
        self._bandwidth.share(agents)

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


# -- numbers of URLs


class UrlLimits:
    """Limits on the number of URLs fetched: `scope.max_urls` and `scope.max_urls_per_host`. They count first attempts
    at pages: not retries, not robots.txt, not what a rule denied. `first_attempts` are those stored over the life of
    the directory, `reserved` those leased and not stored yet.
    """

    def __init__(self, options: ScopeOptions) -> None:
        self.first_attempts = 0
        self.reserved = 0
        self.allotted: int | None = None  # of `max_urls`, to this agent of several; None: it has all
        self._hosts_at_limit: dict[Host, None] = {}
        self.reconfigure(options)

    def reconfigure(self, options: ScopeOptions) -> None:
        """Apply new limits. Hosts held back by the former ones are released; the caller schedules them again."""
        self.max_urls = options.max_urls
        self._max_urls_per_host = options.max_urls_per_host
        self.reopen_all()

    @property
    def is_reached(self) -> bool:
        """Whether a limit holds back queued URLs of a host in memory."""
        return bool(self._hosts_at_limit)

    @property
    def is_full(self) -> bool:
        """Whether `max_urls` forbids all first attempts."""
        limit = self.max_urls if self.allotted is None else self.allotted
        return self.max_urls is not None and limit is not None and self.first_attempts + self.reserved >= limit

    def reserve(self, host: Host, task: Task) -> bool:
        """Count a task that is about to be leased. False: a limit forbids it."""
        if not task.is_first:
            return True
        limit = self._max_urls_per_host if host.override.max_urls is None else host.override.max_urls or None
        if self.is_full or (limit is not None and host.fetched + host.reserved >= limit):
            return False
        host.reserved += 1
        self.reserved += 1
        return True

    def unreserve(self, host: Host, task: Task) -> None:
        """Uncount a leased task that came back without an attempt."""
        if task.is_first:
            host.reserved -= 1
            self.reserved -= 1

    def attempt_stored(self, host: Host, task: Task, *, fetched: bool) -> Sequence[Host]:
        """Count an attempt that was stored. `fetched`: a request was made for it. If none was made, the limits have
        room for another URL: returns the hosts that are released.
        """
        self.unreserve(host, task)
        if not task.is_first:
            return ()
        if fetched:
            host.fetched += 1
            self.first_attempts += 1
            return ()
        return self.reopen_all()

    def hold(self, host: Host) -> None:
        """Hold back a host that has only first attempts left, which a limit forbids."""
        host.limit_reached = True
        self._hosts_at_limit[host] = None

    def reopen(self, host: Host) -> None:
        """Release a host: it may have a task that no limit forbids."""
        host.limit_reached = False
        self._hosts_at_limit.pop(host, None)

    def reopen_all(self) -> Sequence[Host]:
        """Release all hosts that were held back, and return them."""
        hosts = tuple(self._hosts_at_limit)
        for host in hosts:
            self.reopen(host)
        return hosts


# -- blocks


def block_of(text: str, *, host_only: bool, reason: str, at: float) -> BlockedHost:
    """Make a block of a host, a domain or a URL, which stands for its host. The name is spelled as in URLs:
    IDNA-encoded, in lower case. An IP address is always a host. Raises UrlError.
    """
    bare = text.strip().removeprefix("*.")
    host = parse_seed(bare)[1].host.rstrip(".")
    if host_only and bare != text.strip():
        raise UrlError(DenyReason.URL_INVALID, f'"*." means all below {host}, --host-only means none of them')
    is_address = host.startswith("[") or host.replace(".", "").isdigit()
    return BlockedHost(host, HOST if host_only or is_address else DOMAIN, at, reason)


def blocked_name(text: str) -> str:
    """The name of a stored block, also one that only older versions allowed. Raises UrlError."""
    return parse_typed(text.strip().removeprefix("*."))[1].host.rstrip(".")


class Blocklist:
    """The current blocks, by name."""

    def __init__(self) -> None:
        self._by_name: dict[str, BlockedHost] = {}

    def load(self, blocks: Iterable[BlockedHost]) -> None:
        self._by_name = {block.name: block for block in blocks}

    def add(self, block: BlockedHost) -> None:
        """Add a block, joined with an earlier one of its name."""
        self._by_name[block.name] = block.joined_with(self._by_name.get(block.name))

    def remove(self, name: str) -> None:
        self._by_name.pop(name, None)

    def get(self, name: str) -> BlockedHost | None:
        """The block of exactly this name."""
        return self._by_name.get(name)

    def covers(self, host: str) -> BlockedHost | None:
        """The block that covers a host: of several the one with the longest name. A host block covers its name only."""
        if not self._by_name:
            return None
        block = self._by_name.get(host.rstrip("."))
        rest = host.rstrip(".")
        while block is None and "." in rest:
            rest = rest.partition(".")[2]
            above = self._by_name.get(rest)
            if above is not None and above.kind == DOMAIN:
                block = above
        return block

    def why_not(self, name: str) -> str:
        """A sentence for who wants to unblock a name that has no block of its own."""
        above = self.covers(name)
        return f"{name} is blocked by {above.name}" if above is not None else f"{name} is not blocked"

    def permits(self, origin: Origin) -> bool:
        """Whether requests to an origin are allowed."""
        return not self._by_name or self.covers(origin.host) is None

    def all(self) -> list[BlockedHost]:
        """All blocks, in order of their names."""
        return [self._by_name[name] for name in sorted(self._by_name)]


def block_result(block: BlockedHost, was: BlockedHost | None, hosts: int) -> dict[str, object]:
    """The result of a command: a block, the number of hosts that it covers, and the block of its name that there was
    before.
    """
    return asdict(block) | {"was": None if was is None else asdict(was), "hosts": hosts}
