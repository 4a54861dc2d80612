"""Decides who is asked next: turns queued URLs into leases, each as soon as politeness lets it.

Keys wait in a heap by the time they may next be asked; no worker ever sleeps for politeness. The scheduler knows the
books, the frontier (where tasks come from) and the address gate; it knows nothing of how a page is fetched or read.

Invariant: a request is leased only when its politeness key, its origin and, as far as known, its address are open, and
its origin's robots verdict is known.
"""

import asyncio
import heapq
import itertools
import math
from collections import deque
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import replace
from typing import Final

from crawler.core.clock import Clock
from crawler.core.options import PolitenessOptions
from crawler.core.values import Lease, Origin, Task
from crawler.core.vocabulary import TaskKind
from crawler.engine.books import Books
from crawler.engine.gate import AddressGate
from crawler.engine.hosts import Errand, Host, Key
from crawler.engine.options import EngineOptions
from crawler.frontier.base import Frontier, Receipt

NEVER: Final = math.inf
PREFETCH_POLITE: Final = 4  # tasks held ready for a host under a delay
PREFETCH_FREE: Final = 512  # and at delay 0: enough to work on while a commit keeps the store busy
_ANY_WIDTH: Final = 1 << 30
_GATE_POLL_S: Final = 1.0  # a key that waits for an address looks again after this, if nobody woke it before


class Scheduler:
    """`queue` is where leases go; its bound is the back-pressure."""

    def __init__(
        self,
        *,
        books: Books,
        frontier: Frontier,
        queue: asyncio.Queue[Lease],
        gate: AddressGate,
        clock: Clock,
        politeness: PolitenessOptions,
        options: EngineOptions,
    ) -> None:
        self.books = books
        self._frontier = frontier
        self._queue = queue
        self._gate = gate
        self._clock = clock
        self._obeys_robots = politeness.robots == "obey"
        self._connections_per_host = politeness.connections_per_host
        self._lease_size = options.lease_size
        self._heap: list[tuple[float, int, Key]] = []
        self._sequence = itertools.count()
        self._lease_ids = itertools.count(1)
        self._wake = asyncio.Event()
        self._gate_waiters: dict[str, deque[Key]] = {}
        self._fills_wanted: set[Host] = set()
        self._fills: set[Host] = set()
        self.next_due_at: float | None = None  # when the next waiting URL is due (UTC)
        self.leases_out: dict[int, Lease] = {}
        self.stopping = False
        self.paused = False
        self.on_quiet: Callable[[], None] = lambda: None
        self.on_lease_end: Callable[[], None] = lambda: None
        gate.on_leave = self._address_left

    async def start(self) -> None:
        """After the books were loaded: everything with work gets its place."""
        for host in self.books.hosts.values():
            self._schedule_if_work(host)
        self.next_due_at = await self._frontier.next_due()

    def stored(self, receipt: Receipt) -> None:
        """The store took discoveries: hosts may be new, and have more to do."""
        self.books.admit([replace(row, queued=0) for row in receipt.hosts])
        for host_id, count in receipt.queued.items():
            host = self.books.hosts[host_id]
            host.queued += count
            self._schedule_if_work(host)

    def due_at(self, when: float) -> None:
        """A URL waits until `when` (UTC)."""
        if self.next_due_at is None or when < self.next_due_at:
            self.next_due_at = when
            self._wake.set()

    # -- the loop

    async def run(self) -> None:
        """Lease until `stop`."""
        async with asyncio.TaskGroup() as group:
            while not self.stopping:
                self._wake.clear()
                await self._promote_due()
                wait_s = await self._lease_ready()
                for host in self._fills_wanted - self._fills:
                    self._fills.add(host)
                    group.create_task(self._fill(host))
                self._fills_wanted.clear()
                if self.is_quiet:
                    self.on_quiet()
                await self._sleep(wait_s)

    async def _sleep(self, wait_s: float) -> None:
        if self.next_due_at is not None:
            wait_s = min(wait_s, max(0.0, self.next_due_at - self._clock.now()))
        with suppress(TimeoutError):
            async with asyncio.timeout(None if wait_s == NEVER else wait_s):
                await self._wake.wait()

    def stop(self) -> None:
        """Issue nothing more; what waits in the queue goes back."""
        self.stopping = True
        while not self._queue.empty():
            lease = self._queue.get_nowait()
            self.lease_ended(lease, unfinished=lease.tasks, began=False)
        self._wake.set()

    def wake(self) -> None:
        """Look again: something outside changed."""
        self._wake.set()

    async def _promote_due(self) -> None:
        if self.next_due_at is None or self.next_due_at > self._clock.now():
            return
        for host_id, count in (await self._frontier.promote(now=self._clock.now())).items():
            host = self.books.hosts[host_id]
            host.queued += count
            self._schedule_if_work(host)
        self.next_due_at = await self._frontier.next_due()

    async def _lease_ready(self) -> float:
        """Lease from every key that is due. Returns seconds until the next one."""
        while self._heap and not self.stopping and not self.paused:
            when, _, key = self._heap[0]
            if key.scheduled_mono != when:
                heapq.heappop(self._heap)  # superseded by an earlier entry
                continue
            wait_s = when - self._clock.mono()
            if wait_s > 0:
                return wait_s
            heapq.heappop(self._heap)
            key.scheduled_mono = None
            lease = self._next_lease(key)
            if lease is not None:
                await self._queue.put(lease)
        return NEVER

    # -- choosing

    def _next_lease(self, key: Key) -> Lease | None:
        """The key's next lease, or None; either way the key is scheduled for when it can have another."""
        mono = self._clock.mono()
        opens = key.turn.opens_at(mono, delay_s=key.delay_s, width=_ANY_WIDTH)
        if opens is not None:
            self._schedule(key, opens)
            return None
        free = key.delay_s == 0 and not self._gate.has_delay
        lease = self._errand_lease(key, mono)
        later = key.errands_open_mono if key.errands else NEVER
        for _ in range(len(key.hosts) if lease is None else 0):
            host = key.hosts.popleft()
            if not host.has_work:
                host.listed = False
                continue
            key.hosts.append(host)
            when = self._host_opens(host, mono)
            if when is not None:
                later = min(later, when)
            elif tasks := self._pick(host, self._run_length(host) if free else 1):
                lease = self._issue(key, host, host.origin, tasks, mono)
                break
            if key.errands and lease is None:
                lease = self._errand_lease(key, mono)
                if lease is not None:
                    break
        self._schedule(key, mono if lease is not None and key.delay_s == 0 else later)
        return lease

    def _errand_lease(self, key: Key, mono: float) -> Lease | None:
        if not key.errands or key.errands_open_mono > mono:
            return None
        errand = key.errands.popleft()
        return self._issue(key, errand.host, errand.origin, (errand.task,), mono)

    def _host_opens(self, host: Host, mono: float) -> float | None:
        """None if a page of the host may be leased now, else when to look again."""
        if host.turn.open_mono > mono:
            return host.turn.open_mono
        if self._obeys_robots:
            now = self._clock.now()
            if host.robots_pending:
                return NEVER
            if host.robots is None or host.robots_due(now):
                host.robots_pending = True
                task = Task(0, f"{host.origin}/robots.txt", TaskKind.ROBOTS)
                host.key.errands.append(Errand(host, host.origin, task))
                return mono
            if host.is_held:
                return mono + host.robots.expires_at - now
        if host.leases >= (1 if host.key.delay_s > 0 else self._connections_per_host):
            return NEVER
        if host.peer is None or (opens := self._gate.opens_at(host.peer)) is None:
            return None
        waiters = self._gate_waiters.setdefault(host.peer, deque())
        if host.key not in waiters:
            waiters.append(host.key)
        return min(opens, mono + _GATE_POLL_S)

    def _run_length(self, host: Host) -> int:
        """Tasks for one connection: short runs while there is little, so that every connection has some."""
        return max(1, min(self._lease_size, len(host.buffer) // self._connections_per_host))

    def _pick(self, host: Host, limit: int) -> tuple[Task, ...]:
        low_water = (PREFETCH_FREE // 2) if host.key.delay_s == 0 else 1
        if len(host.buffer) < max(limit, low_water) and host.queued > len(host.leased) and not host.filling:
            host.filling = True
            self._fills_wanted.add(host)
        picked: list[Task] = []
        while host.buffer and len(picked) < limit and self.books.take_place(host, host.buffer[0]):
            picked.append(host.buffer.popleft())
        return tuple(picked)

    def _issue(self, key: Key, host: Host, origin: Origin, tasks: tuple[Task, ...], mono: float) -> Lease:
        key.turn = key.turn.began()
        host.leases += 1
        held = key.delay_s > 0 and key.last_end_mono is not None
        waited_s = max(0.0, mono - key.last_end_mono) if held and key.last_end_mono is not None else 0.0
        lease = Lease(next(self._lease_ids), origin, host.id, tasks, mono, waited_s)
        self.leases_out[lease.id] = lease
        return lease

    async def _fill(self, host: Host) -> None:
        """Fetch tasks of a host from the store."""
        limit = PREFETCH_FREE if host.key.delay_s == 0 else PREFETCH_POLITE
        try:
            tasks = await self._frontier.take(host.id, limit, leased=host.leased)
        finally:
            host.filling = False
            self._fills.discard(host)
        host.leased.update(task.id for task in tasks)
        host.buffer.extend(tasks)
        self._schedule_if_work(host)
        self._wake.set()

    # -- scheduling

    def _schedule(self, key: Key, when_mono: float) -> None:
        if when_mono == NEVER or (key.scheduled_mono is not None and key.scheduled_mono <= when_mono):
            return
        key.scheduled_mono = when_mono
        heapq.heappush(self._heap, (when_mono, next(self._sequence), key))
        self._wake.set()

    def _schedule_if_work(self, host: Host) -> None:
        if host.has_work:
            host.key.list_host(host)
            self._schedule(host.key, max(host.key.turn.open_mono, self._clock.mono()))

    def _address_left(self, address: str, opens_mono: float) -> None:
        waiters = self._gate_waiters.get(address)
        if waiters:
            self._schedule(waiters.popleft(), opens_mono)
            if not waiters:
                del self._gate_waiters[address]

    # -- what comes back

    def lease_ended(self, lease: Lease, *, unfinished: Iterable[Task] = (), began: bool = True) -> None:
        """The last request of a lease ended; `unfinished` tasks go back. `began`: at least one request left."""
        del self.leases_out[lease.id]
        host = self.books.hosts[lease.host_id]
        key = self.books.key_for(lease.origin)
        now = self._clock.mono()
        host.leases -= 1
        if began:
            key.turn = key.turn.ended(now, delay_s=max(key.delay_s, key.slow_s))
            key.last_end_mono = now
        else:
            key.turn = key.turn.abandoned()
        for task in reversed(tuple(unfinished)):
            if task.kind is TaskKind.ROBOTS:
                key.errands.appendleft(Errand(host, lease.origin, task))
            else:
                host.buffer.appendleft(task)
                self.books.give_place_back(host, task)
        self._schedule_if_work(host)
        if key.hosts or key.errands:
            self._schedule(key, max(key.turn.open_mono, now))
        if not self.leases_out:
            self._wake.set()
        self.on_lease_end()

    def gate_was_shut(self, lease: Lease, address: str, until_mono: float) -> None:
        """A worker found the address taken: remember it, so that we look before we lease."""
        self.books.hosts[lease.host_id].peer = address
        self.books.key_for(lease.origin).errands_open_mono = min(until_mono, self._clock.mono() + _GATE_POLL_S)

    def page_settled(self, host_id: int, task: Task, *, fetched: bool) -> None:
        """A page's settlement is in the store. `fetched`: a request was made for it."""
        for host in self.books.settled(self.books.hosts[host_id], task, fetched=fetched):
            self._schedule_if_work(host)

    def robots_settled(self, host_id: int) -> None:
        """The host's robots verdict was reached: its pages may be considered."""
        host = self.books.hosts[host_id]
        host.robots_pending = False
        self._schedule_if_work(host)

    def robots_moved(self, host_id: int, origin: Origin, task: Task) -> None:
        """robots.txt redirects: ask there, on that host's patience."""
        key = self.books.key_for(origin)
        key.errands.append(Errand(self.books.hosts[host_id], origin, task))
        self._schedule(key, max(key.turn.open_mono, self._clock.mono()))

    # -- questions

    @property
    def is_quiet(self) -> bool:
        """Nothing handed out, nothing on its way from the store."""
        return not self.leases_out and not self._fills and not self._fills_wanted

    @property
    def is_hungry(self) -> bool:
        """Workers idle for want of URLs: a commit now would give them some."""
        return self._queue.empty() and not any(
            self.books.hosts[lease.host_id].has_work for lease in self.leases_out.values()
        )

    def next_turn_s(self) -> float:
        """Seconds until some key with work may be asked; infinity when none has work."""
        mono, now = self._clock.mono(), self._clock.now()
        first = NEVER
        for key in self.books.keys.values():
            opens = [key.errands_open_mono] if key.errands else []
            for host in key.hosts:
                if host.has_work:
                    held_s = host.robots.expires_at - now if host.robots is not None and host.is_held else 0.0
                    opens.append(max(host.turn.open_mono, mono + held_s))
            if opens:
                first = min(first, max(key.turn.open_mono, min(opens)) - mono)
        return max(0.0, first)
