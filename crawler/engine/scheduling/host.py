"""What is remembered of one host and one politeness key while they have work.

Plain mutable records and the questions asked of them; no I/O and no decisions on order. Readiness lives here, in
memory; what must survive a restart is in the frontier.
"""

from collections import OrderedDict, deque
from dataclasses import dataclass, field

from crawler.content.robots_txt import RuleSet
from crawler.core.formatting import unreadable_robots
from crawler.core.models import Origin, RobotsRecord, Task
from crawler.core.politeness import OPEN, PolitenessState


@dataclass(slots=True, eq=False)
class Host:
    """One origin. `queued` counts its queued rows in the store; those handed out are in `leased` as well."""

    id: int
    origin: Origin
    key: "PolitenessKey"
    queued: int = 0
    fetched: int = 0
    reserved: int = 0  # first attempts handed out and not settled: they count against the limits already
    leased: set[int] = field(default_factory=set)
    buffer: deque[Task] = field(default_factory=deque)
    leases: int = 0
    filling: bool = False
    in_rotation: bool = False  # it is in key.hosts
    politeness: PolitenessState = OPEN
    ever_responded: bool = False
    peer: str | None = None  # the address it was last reached at
    robots: RobotsRecord | None = None  # without its text: that is in the store
    rules: RuleSet | None = None  # those that hold for us (`engine.pages.url_policy`)
    robots_pending: bool = False
    rules_pending: bool = False
    limit_reached: bool = False
    is_blocked: bool = False  # by an operator
    transient_failures: int = 0  # answers as 500 in a row
    retries: int = 0  # queued again in the store: these need no place under a limit
    has_suspects: bool = (
        False  # set aside, of which some may be fetched once nothing else is queued (`engine.pages.traps`)
    )

    @property
    def backlog(self) -> int:
        """Queued URLs that no worker has been handed yet."""
        return max(0, self.queued - len(self.leased)) + len(self.buffer)

    @property
    def has_work(self) -> bool:
        if self.limit_reached or self.is_blocked:
            return False
        return bool(self.buffer) or self.queued > len(self.leased) or (self.has_suspects and not self.leased)

    def robots_due(self, now_at: float) -> bool:
        """Whether robots.txt must be read before a page may be leased."""
        return self.robots is None or self.robots.expires_at <= now_at

    @property
    def is_held(self) -> bool:
        """robots.txt could not be read, and no good copy is left: nothing may be fetched (RFC 9309 §2.3.1.4)."""
        return self.robots is not None and self.robots.verdict == "unreachable"

    @property
    def robots_problem(self) -> str:
        """Why robots.txt cannot be read: "robots.txt cannot be read (dns_not_found)"."""
        error = (self.robots and self.robots.error) or (self.politeness.reason if self.politeness.failures else None)
        return unreadable_robots(None if self.robots is None else self.robots.status_code, error)

    @property
    def needs_rules(self) -> bool:
        """There are rules for it, and they are not at hand."""
        return self.rules is None and self.robots is not None and self.robots.verdict == "rules"


@dataclass(frozen=True, slots=True)
class AuxiliaryRequest:
    """A robots.txt or probe to fetch for `host`, from `origin`: another one after a redirect of robots.txt."""

    host: Host
    origin: Origin
    task: Task


@dataclass(slots=True, eq=False)
class PolitenessKey:
    """Whose patience is spent: a registrable domain or a host, with the hosts that have work."""

    name: str
    delay_s: float
    politeness: PolitenessState = OPEN
    hosts: deque[Host] = field(default_factory=deque)  # those with work; the first has waited longest
    auxiliary: deque[AuxiliaryRequest] = field(default_factory=deque)  # requests not leased yet
    auxiliary_open_mono: float = 0.0  # until then their address is closed
    slow_s: float = 0.0  # what the last answer's slowness makes of the delay (adaptive)
    slow_stored_s: float = 0.0  # as the store has it
    scheduled_mono: float | None = None  # time of its valid entry in the ready queue
    last_end_mono: float | None = None
    reservation: "AddressQueue | None" = None  # of the address that is reserved for its next lease

    def ended(self, mono: float) -> None:
        """A request ended, however it ended: the delay runs from `mono`."""
        self.politeness = self.politeness.ended(mono, delay_s=max(self.delay_s, self.slow_s))
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
    scheduled_mono: float | None = None  # time of its valid entry in the ready queue

    def is_reserved(self, mono: float) -> bool:
        return self.reserved_until_mono > mono
