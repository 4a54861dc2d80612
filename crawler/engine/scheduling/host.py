"""The state in memory of one host, one politeness key, and one IP address with a wait queue.

Plain mutable records. The times at which hosts may be requested are here only; what must survive a restart is also in
the frontier.
"""

import math
from collections import OrderedDict, deque
from dataclasses import dataclass, field

from crawler.content.robots_txt import RuleSet
from crawler.core.formatting import unreadable_robots
from crawler.core.models import Origin, RobotsRecord, Task
from crawler.core.options import NO_OVERRIDE, Override
from crawler.core.politeness import OPEN, PolitenessState


@dataclass(slots=True, eq=False)
class Host:
    """One origin in memory. `queued` counts its queued rows in the store. `leased` has the ids of those that are in
    `buffer`, in a lease, or in a visit that is not stored yet.
    """

    id: int
    origin: Origin
    key: "PolitenessKey"
    override: Override = NO_OVERRIDE
    queued: int = 0
    fetched: int = 0
    reserved: int = 0  # first attempts that are leased and not stored yet; they count for the limits already
    leased: set[int] = field(default_factory=set)
    buffer: deque[Task] = field(default_factory=deque)  # prefetched tasks, not leased yet
    leases: int = 0  # number of its leases
    filling: bool = False  # a prefetch is under way, or prevented
    in_rotation: bool = False  # it is in key.hosts
    politeness: PolitenessState = OPEN
    ever_responded: bool = False
    peer: str | None = None  # IP address of its last connection
    robots: RobotsRecord | None = None  # without its text: that is in the store
    rules: RuleSet | None = None  # of its robots.txt, for this crawler; dropped when memory is short
    robots_pending: bool = False  # a request for robots.txt is queued or in flight
    rules_pending: bool = False  # the rules are being read from the store
    has_address: bool | None = None  # what the lookup ahead of its next lease found; None: there was none
    is_waiting: bool = False  # for a lookup of its name, or for room among first contacts
    limit_reached: bool = False  # a limit on URLs forbids all tasks that it has left
    is_blocked: bool = False  # by an operator
    transient_failures: int = 0  # responses such as 500 in succession
    retries: int = 0  # queued rows that are no first attempts, and so not subject to limits on URLs
    has_suspects: bool = False  # some may be requested when nothing else is queued (`engine.pages.traps`)
    auxiliary: int = 0  # auxiliary requests that are not made, or whose visit is not stored yet
    pins: int = 0  # operations under way that need it in memory
    requests: int = 0  # leased since it entered memory
    is_leaving: bool = False  # its state is being stored; then it is no longer in memory

    @property
    def is_pinned(self) -> bool:
        """Whether it must stay in memory: something of it is in flight, being read, or not stored yet."""
        is_busy = self.leases or self.auxiliary or self.pins or len(self.leased) > len(self.buffer)
        return bool(is_busy or self.filling or self.rules_pending or self.robots_pending or self.is_waiting)

    @property
    def backlog(self) -> int:
        """Number of queued URLs that are in no lease."""
        return max(0, self.queued - len(self.leased)) + len(self.buffer)

    @property
    def has_work(self) -> bool:
        if self.limit_reached or self.is_blocked or self.is_leaving:
            return False
        return bool(self.buffer) or self.queued > len(self.leased) or (self.has_suspects and not self.leased)

    def is_soon(self, mono: float) -> bool:
        """Whether it has work that may be requested by `mono`, as far as its own back-off and robots.txt allow it."""
        return self.has_work and not self.is_held and self.politeness.open_mono <= mono

    def robots_due(self, now_at: float) -> bool:
        """Whether robots.txt must be requested before a page may be leased."""
        return self.robots is None or self.robots.expires_at <= now_at

    def obeys_robots(self, robots: str) -> bool:
        """Whether its robots.txt is obeyed, if `robots` holds for hosts without an override."""
        return (self.override.robots or robots) == "obey"

    @property
    def is_disabled(self) -> bool:
        """Whether an override switches it off: it gets no request, and its URLs are denied."""
        return self.override.enabled is False

    @property
    def is_held(self) -> bool:
        """Whether robots.txt cannot be read and no good copy is left: nothing may be fetched (RFC 9309 §2.3.1.4)."""
        is_unreachable = self.robots is not None and self.robots.verdict == "unreachable"
        return is_unreachable and self.override.robots != "ignore"

    @property
    def robots_problem(self) -> str:
        """Why robots.txt cannot be read: "robots.txt cannot be read (dns_not_found)"."""
        error = (self.robots and self.robots.error) or (self.politeness.reason if self.politeness.failures else None)
        return unreadable_robots(None if self.robots is None else self.robots.status_code, error)

    @property
    def needs_rules(self) -> bool:
        """Whether its robots.txt has rules that must be read from the store first."""
        has_rules = self.robots is not None and self.robots.verdict == "rules"
        return has_rules and self.rules is None and self.override.robots != "ignore"


@dataclass(frozen=True, slots=True)
class AuxiliaryRequest:
    """A robots.txt or probe to fetch for `host`, from `origin`: another one after a redirect of robots.txt."""

    host: Host
    origin: Origin
    task: Task


@dataclass(slots=True, eq=False)
class PolitenessKey:
    """Politeness state of one key, a registrable domain or a host, and its hosts that have work."""

    name: str
    delay_s: float
    id: int = 0  # in the store
    crawl_delay_s: float | None = None  # the longest of its hosts
    members: set[int] = field(default_factory=set)  # ids of its hosts in memory
    more_mono: float = math.inf  # when a host of it that is not in memory may have work
    is_entering: bool = False  # its state is being read from the store; until then it gets no request
    is_leaving: bool = False  # its state is being stored; then it is no longer in memory
    is_given_back: bool = False  # to another agent, when nothing of it is in flight: it gets no request any more
    politeness: PolitenessState = OPEN
    hosts: deque[Host] = field(default_factory=deque)  # those with work, in rotation: the first is next
    auxiliary: deque[AuxiliaryRequest] = field(default_factory=deque)  # requests not leased yet
    auxiliary_open_mono: float = 0.0  # until then their address is closed
    adaptive_s: float = 0.0  # delay computed from the time of the last response (politeness.adaptive)
    adaptive_stored_s: float = 0.0  # the same, as stored; 0 if it is not longer than `delay_s`
    scheduled_mono: float | None = None  # time of its valid entry in the ready queue
    goes_ahead: bool = False  # it is taken before other keys that are due: its next host has an open connection
    in_succession: int = 0  # requests in which it went ahead of others, and the one before them
    last_end_mono: float | None = None  # when its last request ended
    reservation: "AddressQueue | None" = None  # of the address that is reserved for its next lease
    wait_queues: "set[AddressQueue]" = field(default_factory=set)  # of addresses that it waits for

    def ended(self, mono: float) -> None:
        """Start the delay after a request that ended at `mono` with any result."""
        self.politeness = self.politeness.ended(mono, delay_s=max(self.delay_s, self.adaptive_s))
        self.last_end_mono = mono

    def add_to_rotation(self, host: Host) -> None:
        """Put a host behind the others, unless it is among them."""
        if not host.in_rotation:
            host.in_rotation = True
            self.hosts.append(host)


@dataclass(slots=True, eq=False)
class AddressQueue:
    """Wait queue of one IP address: keys in order of arrival.

    With an address delay the address is reserved for one key at a time, until `reserved_until_mono`. Without a delay it
    is reserved for all keys in `reserved_for`, each of which counts as one lease.
    """

    address: str
    keys: OrderedDict[PolitenessKey, None] = field(default_factory=OrderedDict)
    reserved_for: set[PolitenessKey] = field(default_factory=set)
    reserved_until_mono: float = 0.0
    booked_until_mono: float = 0.0  # keys that left memory come back for the address until then
    scheduled_mono: float | None = None  # time of its valid entry in the ready queue

    def add(self, key: PolitenessKey) -> None:
        """Add a key at the end, unless it waits already."""
        self.keys[key] = None
        key.wait_queues.add(self)

    def remove(self, key: PolitenessKey) -> None:
        """Remove a key, if it waits."""
        self.keys.pop(key, None)
        key.wait_queues.discard(self)

    def is_reserved(self, mono: float) -> bool:
        return self.reserved_until_mono > mono
