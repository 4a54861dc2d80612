"""Whose turn it is: of a key that is due, which of its hosts or errands is leased next, and when it is looked at again.

It reads the books, the valve, the address gate and what the stock has at hand; what becomes of a lease is not its
business.

Invariant: a request is leased only when its politeness key, its origin and, as far as known, its address are open, and
its origin's robots verdict is known.
"""

import itertools
from typing import Final

from crawler.core.clock import Clock
from crawler.core.enums import TaskKind
from crawler.core.models import Lease, Origin, Task
from crawler.core.options import PolitenessOptions
from crawler.engine.options import EngineOptions
from crawler.engine.scheduling.host import AuxiliaryRequest, Host, PolitenessKey
from crawler.engine.scheduling.host_table import HostTable
from crawler.engine.scheduling.prefetch import Prefetch
from crawler.engine.scheduling.rate_limits import CrawlRateLimiter
from crawler.engine.scheduling.ready_queue import ANY_WIDTH, NEVER, ReadyQueue

ENOUGH_AT_ONCE: Final = 64  # requests in flight without a delay that keep two cores busy


class LeaseSelection:
    """Everything with work stands in `agenda`, from the moment it is brought here."""

    def __init__(
        self,
        *,
        host_table: HostTable,
        agenda: ReadyQueue,
        stock: Prefetch,
        valve: CrawlRateLimiter,
        clock: Clock,
        politeness: PolitenessOptions,
        options: EngineOptions,
    ) -> None:
        self._host_table = host_table
        self._agenda = agenda
        self._stock = stock
        self._gate = agenda.gate
        self._valve = valve
        self._clock = clock
        self._obeys_robots = politeness.robots == "obey"
        self._connections_per_host = politeness.connections_per_host
        self._enough = min(ENOUGH_AT_ONCE, options.workers)
        self._hosts_listed = 0  # hosts in their keys' rotations: those with work, as far as looked at
        self._lease_size = options.lease_size
        self._lease_ids = itertools.count(1)

    def reconfigure(self, politeness: PolitenessOptions) -> None:
        """Other options are in force; hosts with work are to be brought again."""
        self._obeys_robots = politeness.robots == "obey"
        self._connections_per_host = politeness.connections_per_host

    # -- who has work

    def bring(self, host: Host) -> None:
        """Give a host its place, if it has work."""
        if host.has_work:
            self._hosts_listed += not host.listed
            host.key.list_host(host)
            key = host.key
            self._agenda.schedule(key, max(key.politeness.open_mono, host.politeness.open_mono, self._clock.mono()))

    def ask_robots(self, host: Host) -> None:
        """Have the host's robots.txt read, if that is not under way."""
        if not host.robots_pending:
            host.robots_pending = True
            self.errand(host, host.origin, Task(0, f"{host.origin}/robots.txt", TaskKind.ROBOTS))

    def errand(self, host: Host, origin: Origin, task: Task) -> None:
        """A request that has no row in the store: its turn comes before those of pages."""
        key = self._host_table.key_for(origin)
        key.errands.append(AuxiliaryRequest(host, origin, task))
        self._agenda.schedule(key, max(key.politeness.open_mono, self._clock.mono()))

    # -- choosing

    def next_lease(self, key: PolitenessKey) -> Lease | None:
        """The key's next lease, or None; either way the key is scheduled for when it can have another."""
        mono = self._clock.mono()
        opens = key.politeness.opens_at(mono, delay_s=key.delay_s, width=ANY_WIDTH)
        if opens is not None:
            self._agenda.schedule(key, opens)
            return None
        free = key.delay_s == 0 and not self._gate.has_delay
        lease = self._errand_lease(key, mono)
        later = self._errands_open(key)
        for _ in range(len(key.hosts) if lease is None else 0):
            host = key.hosts.popleft()
            if not host.has_work:
                host.listed = False
                self._hosts_listed -= 1
                continue
            key.hosts.append(host)
            when = self._host_opens(host, mono)
            if when is not None:
                later = min(later, when)
            elif tasks := self._stock.pick(host, self._run_length(host) if free else 1):
                lease = self._issue(key, host, host.origin, tasks, mono)
                break
            if key.errands and lease is None:
                lease = self._errand_lease(key, mono)
                if lease is not None:
                    break
        if lease is None:
            self._agenda.let_go(key)
        self._agenda.schedule(key, mono if lease is not None and key.delay_s == 0 else later)
        return lease

    def _errand_lease(self, key: PolitenessKey, mono: float) -> Lease | None:
        if key.errands_open_mono > mono:
            return None
        for _ in range(len(key.errands)):
            errand = key.errands.popleft()
            if errand.host.is_blocked:  # asked for anew, once it no longer is
                errand.host.robots_pending = False
                continue
            if errand.host.politeness.open_mono <= mono:
                return self._issue(key, errand.host, errand.origin, (errand.task,), mono)
            key.errands.append(errand)
        return None

    def _errands_open(self, key: PolitenessKey) -> float:
        first = min((errand.host.politeness.open_mono for errand in key.errands), default=NEVER)
        return max(key.errands_open_mono, first)

    def _host_opens(self, host: Host, mono: float) -> float | None:
        """None if a page of the host may be leased now, else when to look again."""
        if host.politeness.open_mono > mono:
            return host.politeness.open_mono
        throttled_mono = self._valve.host_opens_mono(host.origin.host)
        if throttled_mono > mono:
            return throttled_mono
        if self._obeys_robots:
            now = self._clock.now()
            if host.robots_pending:
                return NEVER
            if host.robots is None or host.robots_due(now):
                if host.key.errands_open_mono > mono:
                    return host.key.errands_open_mono
                self.ask_robots(host)
                return mono
            if host.is_held:
                return mono + host.robots.expires_at - now
            if host.needs_rules:
                self._stock.want_rules(host)
                return NEVER
        one_at_once = host.key.delay_s > 0 or self._gate.has_delay
        if host.leases >= (1 if one_at_once else self._connections_at_once()):
            return NEVER
        if host.peer is None:
            return None
        opens = self._gate.opens_at(host.peer)
        if opens is not None:
            self._agenda.line_up(host.key, host.peer, opens)
            return NEVER
        return None if self._agenda.passes(host.key, host.peer) else NEVER

    def _connections_at_once(self) -> int:
        """To one host at delay 0: where many hosts have work, a second connection to one of them makes nothing faster,
        and costs memory while it idles.
        """
        return max(1, min(self._connections_per_host, self._enough // max(1, self._hosts_listed)))

    def _run_length(self, host: Host) -> int:
        """Tasks for one connection: short runs while there is little, so that every connection has some."""
        return max(1, min(self._lease_size, len(host.buffer) // self._connections_per_host))

    def _issue(self, key: PolitenessKey, host: Host, origin: Origin, tasks: tuple[Task, ...], mono: float) -> Lease:
        key.politeness = key.politeness.began()
        self._agenda.used(key)
        host.leases += 1
        held = key.delay_s > 0 and key.last_end_mono is not None
        waited_s = max(0.0, mono - key.last_end_mono) if held and key.last_end_mono is not None else 0.0
        lease = Lease(next(self._lease_ids), origin, host.id, tasks, mono, waited_s)
        if host.peer is not None and origin == host.origin and not self._gate.has_delay:
            self._agenda.run_began(lease.id, host.peer)
        return lease
