"""Prefetch: tasks and rules of robots.txt, read from the store before hosts need them for a lease, and names, looked up
before.

Tasks are taken within the limits on URLs. Invariant: a task is in one buffer, in one lease, or in the store only.
"""

import asyncio
import contextlib
import itertools
import math
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from typing import Any, Final

from crawler.core.clock import Clock
from crawler.core.models import Lease, Origin, Task
from crawler.engine.pages.traps import TrapWatch
from crawler.engine.pages.url_policy import RobotsCache
from crawler.engine.scheduling.host import Host, PolitenessKey
from crawler.engine.scheduling.host_table import HostTable
from crawler.engine.scheduling.restrictions import UrlLimits
from crawler.frontier.base import Frontier, FrontierFull

PREFETCH_WITH_DELAY: Final = 4  # tasks prefetched for a host with a delay
PREFETCH_WITHOUT_DELAY: Final = 512  # for one without a delay: enough to continue while a commit keeps the store busy …
PREFETCH_TOTAL: Final = (
    8_192  # … and for all hosts together, except that each host has the tasks of at least two leases
)
DISK_FULL_RETRY_S: Final = 1.0  # until the store is tried again after its disk was full
# Lookups of names under way, and hosts with an address that wait for room. A third of all names takes the 5 s of a
# timeout at worst: that is 600 new hosts a second. Unbound serves 1,024 clients at once by default.
LOOKUPS_AT_ONCE: Final = 1_000
FRESH_AT_ONCE: Final = 128  # first contacts that were issued within …
FRESH_S: Final = 1.0  # … and may get a response soon


class Prefetch:
    """`on_ready` is called with a host when its tasks or rules have been read."""

    def __init__(
        self,
        *,
        host_table: HostTable,
        url_limits: UrlLimits,
        frontier: Frontier,
        rules: RobotsCache,
        traps: TrapWatch,
        lease_size: int,
        on_ready: Callable[[Host], None],
        note_counts: Callable[[], None],
    ) -> None:
        """`note_counts` is called after a change of what is queued."""
        self._note_counts = note_counts
        self._host_table = host_table
        self._url_limits = url_limits
        self._frontier = frontier
        self.rules = rules
        self._traps = traps
        self._lease_size = lease_size
        self._on_ready = on_ready
        self._wanted: list[Host] = []
        self._rules_wanted: list[Host] = []
        self._running = 0
        self._filled = asyncio.Event()  # set and replaced whenever a prefetch ends

    @property
    def has_unstarted(self) -> bool:
        """Whether there are wanted tasks or rules that are not being read yet."""
        return bool(self._wanted or self._rules_wanted)

    @property
    def is_quiet(self) -> bool:
        """Whether nothing is wanted and nothing is being read."""
        return not self.has_unstarted and self._running == 0

    def start(self, group: asyncio.TaskGroup) -> None:
        """Start reading what is wanted."""
        for host in self._wanted:
            self._running += 1
            group.create_task(self._fill(host))
        for host in self._rules_wanted:
            self._running += 1
            group.create_task(self._load_rules(host))
        self._wanted.clear()
        self._rules_wanted.clear()

    # -- tasks

    def pick(self, host: Host, limit: int) -> tuple[Task, ...]:
        """Take up to `limit` tasks for a lease. If few are left, more will be read."""
        low_water = self._prefetch_size(host) // 2
        is_low = len(host.buffer) < max(limit, low_water) and host.queued > len(host.leased)
        if is_low or (host.has_suspects and not host.leased):
            self._want(host)
        picked: list[Task] = []
        while host.buffer and len(picked) < limit:
            if self._url_limits.reserve(host, host.buffer[0]):
                picked.append(host.buffer.popleft())
            elif (retry := next((task for task in host.buffer if not task.is_first), None)) is not None:
                host.buffer.remove(retry)
                picked.append(retry)
            elif host.filling:  # `on_ready` follows
                break
            elif host.retries:  # refill the buffer: retries come first, since they were found first
                host.retries = 0
                host.leased.difference_update(task.id for task in host.buffer)
                host.buffer.clear()
                self._want(host)
            else:
                self._url_limits.hold(host)
                break
        return tuple(picked)

    def _want(self, host: Host) -> None:
        if not host.filling:
            host.filling = True
            self._wanted.append(host)

    def _prefetch_size(self, host: Host) -> int:
        """Number of tasks to prefetch for a host."""
        if host.key.delay_s > 0:
            return PREFETCH_WITH_DELAY
        share = PREFETCH_TOTAL // max(1, len(self._host_table.hosts))
        return max(2 * self._lease_size, min(PREFETCH_WITHOUT_DELAY, share))

    async def _fill(self, host: Host) -> None:
        """Read tasks of a host from the store into its buffer."""
        tasks: list[Task] = []
        try:
            tasks = await self._take(host)
        except FrontierFull:
            await asyncio.sleep(DISK_FULL_RETRY_S)
        finally:
            self._prefetch_ended(host)
            self._running -= 1
        host.leased.update(task.id for task in tasks)
        host.retries = max(0, host.retries - sum(not task.is_first for task in tasks))
        host.buffer.extend(tasks)
        self._on_ready(host)

    async def _take(self, host: Host) -> list[Task]:
        """Take queued tasks from the store. Those of suspected templates become suspects instead. If nothing else is
        queued, some suspects are queued as trials.
        """
        await self._traps.load(host)
        tasks = await self._frontier.take(host.id, self._prefetch_size(host), leased=host.leased)
        suspects = [(task.id, template) for task in tasks if (template := self._traps.suspect_of(task, host))]
        if suspects:
            set_aside = await self._frontier.make_suspects(host.id, suspects)
            self._note_counts()
            self._traps.suspects_set_aside(host, [template for url_id, template in suspects if url_id in set_aside])
            ids = {url_id for url_id, _ in suspects}
            tasks = [task for task in tasks if task.id not in ids]
        elif not tasks and not host.leased:
            for template, count in self._traps.next_trials(host):
                url_ids = await self._frontier.queue_suspects(host.id, template, count)
                self._note_counts()
                self._traps.trials_queued(host, template, url_ids)
        return tasks

    def drop_suspects(self, host: Host) -> None:
        """A template is suspected now: remove its tasks from the buffer. The next prefetch makes them suspects."""
        for task in [task for task in host.buffer if self._traps.suspect_of(task, host)]:
            host.buffer.remove(task)
            host.leased.discard(task.id)

    @contextlib.asynccontextmanager
    async def without_prefetch(self, hosts: Iterable[Host]) -> AsyncIterator[None]:
        """Prevent prefetches of these hosts while their queued URLs change in the store."""
        held: list[Host] = []
        try:
            for host in hosts:
                while host.filling:
                    await self._filled.wait()
                host.filling = True
                held.append(host)
            yield
        finally:
            for host in held:
                self._prefetch_ended(host)
                self._on_ready(host)

    def _prefetch_ended(self, host: Host) -> None:
        host.filling = False
        self._filled.set()
        self._filled = asyncio.Event()

    # -- rules

    def want_rules(self, host: Host) -> None:
        """Have the rules of a host read again that were dropped from memory."""
        if not host.rules_pending:
            host.rules_pending = True
            self._rules_wanted.append(host)

    async def load_rules(self, host: Host) -> None:
        """Read the rules of a host unless they are in memory or it has none. Raises FrontierFull."""
        while host.needs_rules:
            rules = await self.rules.parsed(await self._frontier.robots_body(host.id) or b"")
            if host.needs_rules:  # a newer robots.txt may have arrived meanwhile
                self.rules.put(host, rules, stored=True)

    async def _load_rules(self, host: Host) -> None:
        try:
            await self.load_rules(host)
        except FrontierFull:
            await asyncio.sleep(DISK_FULL_RETRY_S)
        finally:
            host.rules_pending = False
            self._running -= 1
        self._on_ready(host)


class Contacts:
    """What a lease waits for before it needs a connection: a lookup of the name, and, if the host never responded, room
    among the first contacts. `needs_lookup` and `look_up` are those of the HTTP client.

    First contacts have workers of their own, `at_once`, since each may wait for a silent host until a timeout. Of those
    that are not silent yet, issued within FRESH_S, there are at most FRESH_AT_ONCE: more would only delay the requests
    to other hosts, whose connections would not be used in time. A host that is let in has its room for FRESH_S. A host
    without an address needs no room: its request fails at once. `schedule` is called with the key of a host that waits
    no longer, and the time since when it could have had a lease.
    """

    def __init__(
        self,
        *,
        needs_lookup: Callable[[Origin], bool],
        look_up: Callable[[Origin], Awaitable[bool]],
        at_once: int,
        clock: Clock,
        schedule: Callable[[PolitenessKey, float], None],
    ) -> None:
        self._needs_lookup = needs_lookup
        self._look_up = look_up
        self.at_once = at_once
        self._clock = clock
        self._schedule = schedule
        self._keys: dict[Host, dict[PolitenessKey, float]] = {}  # that wait for what a host waits for, and since when
        self._wanted: deque[tuple[Host, Origin]] = deque()  # hosts that responded go first
        self._lookups: dict[Host, asyncio.Task[None]] = {}
        self._waiting: dict[Host, None] = {}  # for room, in order of arrival
        self._leases: set[int] = set()  # ids of those for the workers of first contacts
        self._fresh: dict[int, float] = {}  # those of them issued within FRESH_S, and when
        self._let_in: dict[Host, float] = {}  # hosts that were let in and got no lease yet, and when

    @property
    def in_flight(self) -> int:
        """Number of leases that workers of first contacts have, or are to have."""
        return len(self._leases)

    @property
    def lookups(self) -> int:
        """Number of hosts whose name is being looked up, or is to be."""
        return len(self._wanted) + len(self._lookups)

    @property
    def waiting(self) -> int:
        """Number of hosts that wait for room among the first contacts."""
        return len(self._waiting)

    @property
    def has_unstarted(self) -> bool:
        """Whether there are lookups to start."""
        if not self._wanted:
            return False
        waiting = 0 if self._wanted[0][0].ever_responded else len(self._waiting)
        return len(self._lookups) + waiting < LOOKUPS_AT_ONCE

    def start(self, group: asyncio.TaskGroup) -> None:
        """Start the lookups that are wanted, within LOOKUPS_AT_ONCE."""
        while self.has_unstarted:
            host, origin = self._wanted.popleft()
            self._lookups[host] = group.create_task(self._resolve(host, origin))

    def stop(self) -> None:
        """End the lookups."""
        self._wanted.clear()
        for lookup in self._lookups.values():
            lookup.cancel()

    async def _resolve(self, host: Host, origin: Origin) -> None:
        if not (host.is_blocked or host.is_disabled):
            host.has_address = await self._look_up(origin)
        del self._lookups[host]
        self._end_wait(host)

    def _end_wait(self, host: Host) -> None:
        host.is_waiting = False
        for key, since_mono in self._keys.pop(host, {}).items():
            self._schedule(key, since_mono)

    # -- leases

    def may_begin(self, host: Host, origin: Origin, key: PolitenessKey, mono: float) -> bool:
        """Whether a lease of the host may be issued now. If not, its key is scheduled as soon as it may."""
        if host.has_address is None and self._needs_lookup(origin):
            if not host.is_waiting:
                want = self._wanted.appendleft if host.ever_responded else self._wanted.append
                want((host, origin))
            return self._wait(host, key, mono)
        if host.ever_responded or host.has_address is False or host in self._let_in or self._room() > 0:
            return True
        if not host.is_waiting:
            self._waiting[host] = None
        return self._wait(host, key, mono)

    def _wait(self, host: Host, key: PolitenessKey, mono: float) -> bool:
        host.is_waiting = True
        self._keys.setdefault(host, {}).setdefault(key, mono)
        return False

    def issued(self, lease: Lease, host: Host) -> None:
        """Note a lease that was issued."""
        if not (host.ever_responded or host.has_address is False or host.is_disabled):
            self._leases.add(lease.id)
            self._fresh[lease.id] = lease.leased_mono
            self._let_in.pop(host, None)
            if host in self._waiting:
                del self._waiting[host]
                self._end_wait(host)
        host.has_address = None

    def is_first(self, lease: Lease) -> bool:
        """Whether a lease is for the workers of first contacts."""
        return lease.id in self._leases

    def lease_ended(self, lease: Lease) -> None:
        """Let the next host in if the lease was a first contact."""
        if lease.id in self._leases:
            self._leases.discard(lease.id)
            self._fresh.pop(lease.id, None)
            self.fill()

    def fill(self, *, is_idle: bool = False) -> None:
        """Let hosts in for which there is room. `is_idle`: no key is due, so those let in before need none."""
        if is_idle:
            self._let_in.clear()
        mono = self._clock.mono()
        for host in list(itertools.islice(self._waiting, self._room())):
            del self._waiting[host]
            self._let_in[host] = mono
            self._end_wait(host)

    def wait_s(self) -> float:
        """Seconds until there may be room for a host that waits for it, unless a lease ends before."""
        if not self._waiting or len(self._leases) >= self.at_once:
            return math.inf
        if self._room() > 0:
            return 0.0
        first_mono = min(next(iter(times.values())) for times in (self._fresh, self._let_in) if times)
        return first_mono + FRESH_S - self._clock.mono()

    def _room(self) -> int:
        """The number of first contacts that may be issued now, beside those of hosts that were let in."""
        mono = self._clock.mono()
        for times in (self._fresh, self._let_in):
            _drop_old(times, mono)
        return max(0, min(self.at_once - len(self._leases), FRESH_AT_ONCE - len(self._fresh)) - len(self._let_in))


def _drop_old(times: dict[Any, float], mono: float) -> None:
    """Remove what is FRESH_S old, from a mapping in order of time."""
    while times and next(iter(times.values())) + FRESH_S <= mono:
        del times[next(iter(times))]
