"""Lease selection: the next lease of a politeness key that is due, and the time at which the key is checked again.

It reads the host table, both rate limiters, the prefetched tasks and the contacts.

Invariant: a request is leased only when its politeness key, its origin and, as far as known, its address are open, and
its origin's robots verdict is known. Except in an outage, the name of its origin was looked up.
"""

import itertools
from collections.abc import Callable
from typing import Final

from crawler.core.clock import Clock
from crawler.core.enums import TaskKind
from crawler.core.models import Lease, Origin, Task
from crawler.core.options import PolitenessOptions
from crawler.engine.options import EngineOptions
from crawler.engine.scheduling.host import AuxiliaryRequest, Host, PolitenessKey
from crawler.engine.scheduling.host_table import HostTable
from crawler.engine.scheduling.prefetch import Contacts, Prefetch
from crawler.engine.scheduling.ready_queue import ANY_WIDTH, NEVER, ReadyQueue
from crawler.engine.scheduling.restrictions import CrawlRateLimiter

HORIZON_S: Final = 30.0  # what may be requested within this time is in memory before what may not
FEW_HOSTS: Final = 8  # of a key that may be requested within HORIZON_S: below, others are read from the store
USEFUL_CONNECTIONS: Final = 64  # requests in flight that keep two cores busy, without a delay


class LeaseSelection:
    """A key with work has an entry in `ready_queue`, from the call of `schedule_host` on."""

    def __init__(
        self,
        *,
        host_table: HostTable,
        ready_queue: ReadyQueue,
        prefetch: Prefetch,
        contacts: Contacts,
        crawl_rate_limiter: CrawlRateLimiter,
        clock: Clock,
        politeness: PolitenessOptions,
        options: EngineOptions,
        first_address: Callable[[Origin], str | None],
        on_unknown_key: Callable[[PolitenessKey], None],
        on_short: Callable[[PolitenessKey], None],
    ) -> None:
        """`first_address` is that of the HTTP client. `on_unknown_key` is called with a key that needs a request before
        its state was read from the store, `on_short` with one that has few hosts with work in memory, and perhaps more
        in the store.
        """
        self._first_address = first_address
        self._on_unknown_key = on_unknown_key
        self._on_short = on_short
        self._host_table = host_table
        self._ready_queue = ready_queue
        self._prefetch = prefetch
        self._contacts = contacts
        self._address_limiter = ready_queue.address_limiter
        self._crawl_rate_limiter = crawl_rate_limiter
        self._clock = clock
        self._robots = politeness.robots
        self._connections_per_host = politeness.connections_per_host
        self._workers = options.workers
        self._useful_connections = min(USEFUL_CONNECTIONS, options.workers)
        self._hosts_in_rotation = 0  # with work, or not removed yet since their work ended
        self._lease_size = options.lease_size
        self._lease_ids = itertools.count(1)

    def reconfigure(self, politeness: PolitenessOptions) -> None:
        """Apply new options. The caller then schedules all hosts again."""
        self._robots = politeness.robots
        self._connections_per_host = politeness.connections_per_host

    @property
    def has_many_hosts(self) -> bool:
        """Whether more hosts have work than there are workers."""
        return self._hosts_in_rotation > self._workers

    # -- adding work

    def schedule_host(self, host: Host) -> None:
        """Put a host with work into the rotation of its key, and the key into the ready queue."""
        if host.has_work:
            self._hosts_in_rotation += not host.in_rotation
            key = host.key
            key.add_to_rotation(host)
            if key.is_entering:
                self._on_unknown_key(key)
                return
            open_mono = max(key.politeness.open_mono, host.politeness.open_mono)
            self._ready_queue.schedule(key, max(open_mono, self._clock.mono()))

    def schedule_key(self, key: PolitenessKey) -> None:
        """Schedule a key that may have work or auxiliary requests, after its state was read or stored."""
        if key.hosts or key.auxiliary or key.more_mono < NEVER:
            self._ready_queue.schedule(key, max(key.politeness.open_mono, self._clock.mono()))

    def remove(self, host: Host) -> None:
        """Remove a host from the rotation of its key: it leaves memory."""
        if host.in_rotation:
            host.in_rotation = False
            host.key.hosts.remove(host)
            self._hosts_in_rotation -= 1

    def request_robots(self, host: Host) -> None:
        """Request the host's robots.txt, unless it is requested already."""
        if not host.robots_pending:
            host.robots_pending = True
            self.add_auxiliary(host, host.origin, Task(0, f"{host.origin}/robots.txt", TaskKind.ROBOTS))

    def drop_robots_requests(self, key: PolitenessKey) -> None:
        """Drop the requests of a key for robots.txt of its own hosts. They are made again before a page is leased."""
        for request in [one for one in key.auxiliary if one.task.kind is TaskKind.ROBOTS and one.host.key is key]:
            if request.origin == request.host.origin:
                key.auxiliary.remove(request)
                request.host.robots_pending = False
                request.host.auxiliary -= 1

    def drop_auxiliary(self, key: PolitenessKey) -> None:
        """Drop all requests that have no row in the store. The host of each is then as if it had not been made."""
        while key.auxiliary:
            request = key.auxiliary.popleft()
            request.host.auxiliary -= 1
            if request.task.kind is TaskKind.ROBOTS:
                request.host.robots_pending = False

    def add_auxiliary(self, host: Host, origin: Origin, task: Task) -> None:
        """Add a request that has no row in the store. It is leased before pages."""
        key = self._host_table.key_for(origin)
        key.auxiliary.append(AuxiliaryRequest(host, origin, task))
        host.auxiliary += 1
        if key.is_entering or key.is_leaving:
            self._on_unknown_key(key)
            return
        self._ready_queue.schedule(key, max(key.politeness.open_mono, self._clock.mono()))

    # -- choosing

    def next_lease(self, key: PolitenessKey) -> Lease | None:
        """Return the key's next lease, or None. In both cases schedule the key for the lease after it. None as well for
        a key whose state is being stored or read.
        """
        mono = self._clock.mono()
        if key.is_leaving or key.is_entering or key.is_given_back:
            return None
        opens = key.politeness.opens_at(mono, delay_s=key.delay_s, width=ANY_WIDTH)
        if opens is not None:
            self._ready_queue.schedule(key, opens)
            return None
        without_delay = key.delay_s == 0 and not self._address_limiter.has_delay
        lease = self._auxiliary_lease(key, mono)
        next_check = self._auxiliary_opens(key)
        for _ in range(len(key.hosts) if lease is None else 0):
            host = key.hosts.popleft()
            if not host.has_work:
                host.in_rotation = False
                self._hosts_in_rotation -= 1
                continue
            key.hosts.append(host)
            when = self._host_opens(host, mono)
            if when is not None:
                next_check = min(next_check, when)
            elif tasks := self._prefetch.pick(host, self._lease_length(host) if without_delay else 1):
                lease = self._issue(key, host, host.origin, tasks, mono)
                break
            if key.auxiliary and lease is None:
                lease = self._auxiliary_lease(key, mono)
                if lease is not None:
                    break
        if key.more_mono < NEVER:
            next_check = min(next_check, self._read_more(key, mono))
        if lease is None:
            self._ready_queue.release_address(key)
        self._ready_queue.schedule(key, mono if lease is not None and key.delay_s == 0 else next_check)
        return lease

    def _read_more(self, key: PolitenessKey, mono: float) -> float:
        """Have other hosts of a key read if few of those in memory may be requested soon. Returns when to check it."""
        if sum(host.is_soon(mono + HORIZON_S) for host in key.hosts) >= FEW_HOSTS:
            return NEVER
        if key.more_mono > mono + HORIZON_S:
            return key.more_mono - HORIZON_S
        self._on_short(key)
        return NEVER

    def _auxiliary_lease(self, key: PolitenessKey, mono: float) -> Lease | None:
        if key.auxiliary_open_mono > mono:
            return None
        for _ in range(len(key.auxiliary)):
            request = key.auxiliary.popleft()
            if request.host.is_blocked or request.host.is_disabled:  # after that, its robots.txt is requested again
                request.host.robots_pending = False
                request.host.auxiliary -= 1
                continue
            if request.host.politeness.open_mono <= mono and self._may_begin(request.host, request.origin, key, mono):
                if self._has_address(request.host, request.origin, key):
                    return self._issue(key, request.host, request.origin, (request.task,), mono)
                key.auxiliary_open_mono = NEVER  # until the address is reserved for the key
                key.auxiliary.appendleft(request)
                return None
            key.auxiliary.append(request)
        return None

    def _auxiliary_opens(self, key: PolitenessKey) -> float:
        opens = (one.host.politeness.open_mono for one in key.auxiliary if not one.host.is_waiting)
        first = min(opens, default=NEVER)
        return max(key.auxiliary_open_mono, first)

    def _host_opens(self, host: Host, mono: float) -> float | None:
        """When to check the host again; None: a page of it may be leased now. NEVER: an event schedules the host."""
        if host.politeness.open_mono > mono:
            return host.politeness.open_mono
        bandwidth_mono = self._crawl_rate_limiter.host_opens_mono(host.origin.host)
        if bandwidth_mono > mono:
            return bandwidth_mono
        if host.obeys_robots(self._robots) and not host.is_disabled:  # else its URLs are denied without a request
            now = self._clock.now()
            if host.robots_pending:
                return NEVER
            if host.robots is None or host.robots_due(now):
                if host.key.auxiliary_open_mono > mono:
                    return host.key.auxiliary_open_mono
                self.request_robots(host)
                return mono
            if host.is_held:
                return mono + host.robots.expires_at - now
            if host.needs_rules:
                self._prefetch.want_rules(host)
                return NEVER
        has_delay = host.key.delay_s > 0 or self._address_limiter.has_delay
        if host.leases >= (1 if has_delay else self._connection_limit(host)):
            return NEVER
        if not (host.is_disabled or self._may_begin(host, host.origin, host.key, mono)):
            return NEVER
        return None if self._has_address(host, host.origin, host.key) else NEVER

    def _has_address(self, host: Host, origin: Origin, key: PolitenessKey) -> bool:
        """Claim the address of the next request. False: it is closed, or others came first, and the key waits."""
        address = self._address_of(host, origin)
        if address is None:  # the request finds out whether it is open, over its connection
            return True
        opens = self._address_limiter.opens_at(address)
        if opens is not None:
            self._ready_queue.wait_for_address(key, address, opens)
            return False
        return self._ready_queue.claim_address(key, address)

    def _address_of(self, host: Host, origin: Origin) -> str | None:
        """The address of the last connection to a host, or that to which the next one will be tried first."""
        return host.peer if origin == host.origin and host.peer is not None else self._first_address(origin)

    def _may_begin(self, host: Host, origin: Origin, key: PolitenessKey, mono: float) -> bool:
        """Whether a lease would wait neither for a name server nor for room among first contacts. In an outage the one
        request that leaves waits for both itself.
        """
        return self._host_table.outage.is_on or self._contacts.may_begin(host, origin, key, mono)

    def _connection_limit(self, host: Host) -> int:
        """The most connections to one host without a delay. If many hosts have work, a second connection to one of them
        makes nothing faster, and costs memory while it is idle.
        """
        return max(1, min(self._connections_to(host), self._useful_connections // max(1, self._hosts_in_rotation)))

    def _lease_length(self, host: Host) -> int:
        """Number of tasks in one lease: small if few tasks are prefetched, so that every connection gets some."""
        return max(1, min(self._lease_size, len(host.buffer) // self._connections_to(host)))

    def _connections_to(self, host: Host) -> int:
        return host.override.connections_per_host or self._connections_per_host

    def _issue(self, key: PolitenessKey, host: Host, origin: Origin, tasks: tuple[Task, ...], mono: float) -> Lease:
        key.politeness = key.politeness.began()
        host.leases += 1
        host.requests += len(tasks)
        waited_s = max(0.0, mono - key.last_end_mono) if key.delay_s > 0 and key.last_end_mono is not None else 0.0
        lease = Lease(next(self._lease_ids), origin, host.id, tasks, mono, waited_s)
        self._contacts.issued(lease, host)
        self._ready_queue.lease_issued(key, lease.id, self._address_of(host, origin))
        return lease
