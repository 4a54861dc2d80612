"""The workbench: which hosts and politeness keys are in memory.

The store has all of them, and knows which keys have work and when they may be requested. Those that may be requested
first are in memory, up to `engine.active_hosts` hosts. There are two cases:
1. There is room. Keys enter that have work, now or later, the longest ready first, each with a few of its hosts.
   Nothing leaves: a host without work costs nothing but its place.
2. There is none, and the store has keys with work. For each host that is to enter, one leaves. A key leaves with all of
   its hosts if none of them has work. If keys in the store have work within HORIZON_S, it leaves too if it backs off
   for longer than that, or if they are ready and it had its QUANTUM of requests for each of its hosts with work, or
   waits for an address that too many wait for. Of other keys, hosts leave that have no URLs, or that may not be
   requested within HORIZON_S while others may.

Invariants: a host in use does not leave (`Host.is_pinned`), so its visits are stored first. What a key or host learned
enters with it again: its delay, back-off, robots verdict and limits hold as if it had never left. A key that is in
memory has all its hosts with work there, but for those that have some from `more_mono` on.
"""

import asyncio
import itertools
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Final

from crawler.core.clock import Clock
from crawler.core.models import UNTIL_EVENT, HostReadiness, HostRow
from crawler.core.ownership import slot_in
from crawler.engine.pages.url_policy import RobotsCache
from crawler.engine.scheduling.host import Host, PolitenessKey
from crawler.engine.scheduling.host_table import HostTable
from crawler.engine.scheduling.lease_selection import HORIZON_S, LeaseSelection
from crawler.engine.scheduling.ready_queue import NEVER, QUANTUM, ReadyQueue
from crawler.engine.scheduling.restrictions import UrlLimits
from crawler.frontier.base import Entered, Frontier, FrontierFull, HostCount, Leaving, Wanted

ADDRESS_SHARE: Final = 8  # the share of the places that keys of one address may wait in: an eighth
HOSTS_OF_KEY: Final = 16  # hosts of one key that enter together, and that it has with work if it has so many
AT_ONCE: Final = 512  # hosts that enter or leave in one transaction
PAUSE_S: Final = 0.1  # between two transactions, while hosts must leave for others …
LOOK_S: Final = 0.000_2  # … and for each key that was looked at: that takes 4 µs, so 2 % of the time
_LOOKED_AT: Final = 4  # keys looked at for each host that is to leave
_FAILED_S: Final = 1.0  # until the next transaction after one that failed, or that nothing could leave for


class Workbench:
    """`active_hosts`: most hosts in memory, apart from those that cannot leave. `on_change` is called when hosts
    have entered, or are to enter.
    """

    def __init__(
        self,
        *,
        host_table: HostTable,
        ready_queue: ReadyQueue,
        lease_selection: LeaseSelection,
        url_limits: UrlLimits,
        rules: RobotsCache,
        frontier: Frontier,
        clock: Clock,
        active_hosts: int,
        on_change: Callable[[], None],
    ) -> None:
        self._host_table = host_table
        self._ready_queue = ready_queue
        self._lease_selection = lease_selection
        self._url_limits = url_limits
        self._rules = rules
        self._frontier = frontier
        self._clock = clock
        self._active_hosts = active_hosts
        self._most_waiting = max(1, active_hosts // ADDRESS_SHARE)
        self._on_change = on_change
        self._order: dict[PolitenessKey, None] = {}  # keys in memory, those first that are looked at first
        self._next_mono = NEVER  # when a key of the store has work, at the earliest
        self._again_mono = 0.0  # no transaction before …
        self._failed_mono = 0.0  # … nor before this for hosts that an operation needs
        self._far_mono = 0.0  # … nor before this for keys that have no work within HORIZON_S
        self._unknown: dict[PolitenessKey, None] = {}  # keys that are needed, and whose state is not read yet
        self._short: dict[PolitenessKey, None] = {}  # keys that may have other hosts with work
        self._needed: dict[int, None] = {}  # ids of hosts that are needed, whether they have work or not
        self._exchanged = asyncio.Event()  # set and replaced after each transaction
        self._is_running = False
        self._meanwhile: dict[int, HostCount] = {}  # counts that changed while a transaction ran
        self._given: set[int] = set()  # slots of a shared store that are given back, or were
        self._letting_go: dict[PolitenessKey, None] = {}  # keys in memory of these slots

    # -- what the store has

    def start(self) -> None:
        """The store may have work, of keys in memory too."""
        self._next_mono = self._clock.mono()
        for key in self._host_table.keys_by_id.values():
            key.more_mono = self._next_mono
            self._short[key] = None

    def note_counts(self, new_hosts: Iterable[HostRow] = ()) -> None:
        """Take over what changed in the store: the queues of hosts in memory, and that others have work. Of
        `new_hosts` those enter at once whose politeness key is in memory, while there is room.
        """
        for row in new_hosts if self._host_table.keys else ():
            key = self._host_table.known_key(row.origin)
            has_room = len(self._host_table.hosts) < self._active_hosts
            if key is not None and len(key.members) < HOSTS_OF_KEY and has_room and row.queued:
                self._admit([row])
        changed = self._frontier.take_counts()
        if self._is_running:  # the hosts and keys of the transaction may be in an older state
            self._meanwhile.update(changed)
        self._apply(changed)

    def _apply(self, changed: Mapping[int, HostCount]) -> None:
        for host_id, count in changed.items():
            host = self._host_table.hosts.get(host_id)
            if host is not None:
                host.queued = count.queued
                if not host.is_leaving:
                    self._lease_selection.schedule_host(host)
                    continue
            if count.queued > 0:
                self._has_work(count)

    def _has_work(self, count: HostCount) -> None:
        """A host has work that is not in memory."""
        key = self._host_table.keys_by_id.get(count.key_id)
        if key is None or key.is_leaving:
            self._next_mono = min(self._next_mono, self._clock.mono())
        else:
            key.more_mono = min(key.more_mono, self._clock.mono())
            self._short[key] = None

    def need_key(self, key: PolitenessKey) -> None:
        """Have the state of a key read that needs a request."""
        self._unknown[key] = None

    def is_short(self, key: PolitenessKey) -> None:
        """Have other hosts of a key read that has few hosts with work in memory."""
        self._short[key] = None

    def need_hosts(self, host_ids: Iterable[int]) -> None:
        """Have hosts read even if no other host may enter: their URLs are subject to no limit."""
        self._needed.update((host_id, None) for host_id in host_ids if host_id not in self._host_table.hosts)

    async def load_host(self, host_id: int) -> Host | None:
        """A host, which is read into memory if need be, and pinned: the caller must subtract from its `pins`. None if
        it is unknown.
        """
        for _ in range(2):
            host = self._host_table.hosts.get(host_id)
            if host is not None and not host.is_leaving:
                host.pins += 1
                return host
            self._needed[host_id] = None
            while host_id in self._needed:
                if self._is_running:
                    await self._exchanged.wait()
                    continue
                await self.exchange()
                if host_id in self._needed:  # the disk is full
                    await asyncio.sleep(_FAILED_S)
        return None

    # -- slots of a store that agents share

    def let_go(self, slots: Iterable[int]) -> None:
        """Have everything of these slots leave memory: no lease of it is issued from now on."""
        self._given.update(slots)
        for key in self._host_table.keys_by_id.values():
            if slot_in(key.id) in self._given:
                self._let_go(key)
        self._again_mono = self._clock.mono()

    def _let_go(self, key: PolitenessKey) -> None:
        key.is_given_back = True
        self._letting_go[key] = None
        self._lease_selection.drop_auxiliary(key)

    def took(self, slots: Iterable[int]) -> None:
        """These slots belong to this agent (again)."""
        self._given.difference_update(slots)

    def slots_in_memory(self, slots: Collection[int]) -> set[int]:
        """Those of these slots of which something is in memory, or being read into it."""
        if self._is_running:
            return set(slots)
        table = self._host_table
        return {slot for id_ in (*table.keys_by_id, *table.hosts) if (slot := slot_in(id_)) in slots}

    # -- transactions

    @property
    def next_mono(self) -> float:
        """When a host that is not in memory may be requested, at the earliest; NEVER if none has work, or none may be
        requested because of `scope.max_urls`.
        """
        return NEVER if self._url_limits.is_full else self._next_mono

    @property
    def is_quiet(self) -> bool:
        """Whether nothing is to be read from the store now."""
        is_wanted = self._unknown or self._short or self._needed
        return not (self._is_running or is_wanted or min(self.next_mono, self._later_mono) <= self._clock.mono())

    def wait_s(self) -> float:
        """Seconds until the next transaction."""
        return NEVER if self._is_running else max(0.0, self._wait_mono() - self._clock.mono())

    def _wait_mono(self) -> float:
        if self._needed:
            return self._failed_mono
        if self._unknown or self._short or self._letting_go:
            return self._again_mono
        return max(self._again_mono, min(self.next_mono - HORIZON_S, self._later_mono))

    @property
    def _later_mono(self) -> float:
        """When a key that has work, but not soon, may enter, or one of too many hosts leave; NEVER if there is none."""
        if self.next_mono == NEVER and not self.is_over_bound:
            return NEVER
        return self._far_mono if len(self._host_table.hosts) >= self._active_hosts else 0.0

    @property
    def places_missing(self) -> int:
        """`active_hosts` if no other host may enter memory, and one that is not in it may be requested now; else 0."""
        is_full = len(self._host_table.hosts) >= self._active_hosts and self.next_mono <= self._clock.mono()
        return self._active_hosts if is_full else 0

    @property
    def is_over_bound(self) -> bool:
        """Whether more hosts are in memory than should be, since operations needed them."""
        return len(self._host_table.hosts) > self._active_hosts + AT_ONCE

    def look_again(self) -> None:
        """A host in memory may have no more work: another may enter, if it has work only later."""
        self._far_mono = 0.0

    def start_if_due(self, group: asyncio.TaskGroup, *, paused: bool) -> None:
        """Start a transaction if one is due; if the crawl is paused, only for hosts that an operation needs."""
        if not self._is_running and self._wait_mono() <= self._clock.mono() and (self._needed or not paused):
            self._is_running = True
            group.create_task(self.exchange(), name="workbench")

    async def exchange(self) -> None:
        """Let hosts leave and enter, in one transaction."""
        self._is_running = True
        self._meanwhile = {}
        mono = self._clock.mono()
        unknown, self._unknown = self._unknown, {}
        short, self._short = self._short, {}
        needed = list(itertools.islice(self._needed, AT_ONCE))
        is_due, is_soon = self.next_mono < NEVER, self.next_mono <= mono + HORIZON_S
        room = self._active_hosts - len(self._host_table.hosts)
        is_wanted = is_due or short or self.is_over_bound
        leaving, looked_at = self._of_given_slots(), 0
        if room < AT_ONCE and is_wanted and not leaving:
            leaving, looked_at = self._choose(AT_ONCE - max(0, room))
        room = max(0, min(AT_ONCE, room + len(leaving)))
        if is_soon and not room:  # all are in use
            self._again_mono = mono + _FAILED_S
        elif not (room or leaving):
            self._far_mono = mono + HORIZON_S
        elif leaving or self._letting_go:
            self._again_mono = mono + max(PAUSE_S, looked_at * LOOK_S)
        keys = self._keys_of(leaving)
        wanted = Wanted(
            ready_by=self._host_table.schedule_at(mono + HORIZON_S) if is_soon else UNTIL_EVENT,
            places=room if is_due else 0,
            hosts=HOSTS_OF_KEY,
            names=[key.name for key in unknown],
            host_ids=needed,
            more={key.id: list(key.members) for key in short if self._stays(key)},
        )
        for host in leaving:
            host.is_leaving = True
        next_mono, self._next_mono = self._next_mono, NEVER  # what comes meanwhile is not in the store's result
        try:
            await self._commit(leaving, keys, wanted)
        except FrontierFull:  # the next commit fails as well, and reports it
            self._again_mono = self._failed_mono = self._clock.mono() + _FAILED_S
            self._next_mono = min(self._next_mono, next_mono)
            self._unknown.update(unknown)
            self._short.update(short)
        finally:
            self._is_running = False
            self._exchanged.set()
            self._exchanged = asyncio.Event()
            for key in keys:
                key.is_leaving = False
                if self._stays(key):
                    self._lease_selection.schedule_key(key)
            for host in leaving:
                host.is_leaving = False
                if host.id in self._host_table.hosts:  # it did not leave
                    self._lease_selection.schedule_host(host)
            self._on_change()

    def _of_given_slots(self) -> list[Host]:
        """The hosts of slots that are given back, of keys of which nothing is in flight or not stored yet."""
        found: list[Host] = []
        for key in itertools.islice(self._letting_go, AT_ONCE):
            self._lease_selection.drop_auxiliary(key)
            hosts = [self._host_table.hosts[host_id] for host_id in key.members]
            if not key.politeness.in_flight and not any(host.is_pinned or host.id in self._needed for host in hosts):
                found += hosts
        return found

    def _choose(self, number: int) -> tuple[list[Host], int]:
        """Hosts that may leave: `number`, or a few more. Returns also the number of keys that were looked at."""
        mono = self._clock.mono()
        others_are_soon, others_are_ready = self._next_mono <= mono + HORIZON_S, self._next_mono <= mono
        chosen: list[Host] = []
        looked_at = 0
        for key in list(itertools.islice(self._order, _LOOKED_AT * number)):
            if len(chosen) >= number:
                break
            looked_at += 1
            del self._order[key]
            self._order[key] = None
            chosen += self._may_leave(key, mono, others_are_soon=others_are_soon, others_are_ready=others_are_ready)
        return chosen, looked_at

    def _may_leave(
        self, key: PolitenessKey, mono: float, *, others_are_soon: bool, others_are_ready: bool
    ) -> list[Host]:
        """The hosts of a key that may leave: all of them, or else those that have nothing to do."""
        is_crowded = others_are_ready and self._ready_queue.is_crowded(key, self._most_waiting)
        if is_crowded:
            self._lease_selection.drop_robots_requests(key)
        hosts = [self._host_table.hosts[host_id] for host_id in key.members]
        free = [host for host in hosts if not self._is_in_use(host)]
        working = [host for host in hosts if host.has_work]
        opens_mono = min((host.politeness.open_mono for host in working), default=NEVER)
        is_far = max(opens_mono, key.politeness.open_mono) > mono + HORIZON_S or all(host.is_held for host in working)
        is_far = is_far and (others_are_soon or not working)
        had_quantum = others_are_ready and sum(host.requests for host in hosts) >= QUANTUM * len(working)
        is_too_many = self.is_over_bound and not self._url_limits.is_full  # else only what is needed may enter again
        is_to_leave = is_far or had_quantum or is_crowded or is_too_many
        if len(free) == len(hosts) and not key.auxiliary and not key.politeness.in_flight and is_to_leave:
            return hosts
        may_have_others = others_are_soon or key.more_mono <= mono + HORIZON_S or self.is_over_bound
        return [
            host
            for host in free
            if not (host.queued or host.has_suspects) or (may_have_others and not host.is_soon(mono + HORIZON_S))
        ]

    def _is_in_use(self, host: Host) -> bool:
        return host.is_pinned or host.id in self._needed or self._host_table.is_suspected(host)

    def _stays(self, key: PolitenessKey) -> bool:
        return self._host_table.keys_by_id.get(key.id) is key and not key.is_leaving

    def _keys_of(self, leaving: Iterable[Host]) -> list[PolitenessKey]:
        """The keys that leave with these hosts, and those that had no host."""
        of_key = Counter(host.key for host in leaving)
        keys = [key for key, number in of_key.items() if number == len(key.members)]
        keys += self._host_table.without_hosts
        keys = [key for key in keys if not key.auxiliary and not key.politeness.in_flight]
        for key in keys:
            key.is_leaving = True
        return keys

    async def _commit(self, leaving: list[Host], keys: list[PolitenessKey], wanted: Wanted) -> None:
        table, mono = self._host_table, self._clock.mono()
        backoffs, slow_responses = table.take_backoffs(), table.take_slow_responses_of(keys)
        readiness = [table.readiness(host, leaves=True) for host in leaving]
        left = Leaving(
            readiness,
            [self._state_of(key, max(mono, self._ready_queue.book(key, self._most_waiting))) for key in keys],
            backoffs,
            slow_responses,
        )
        try:
            entered = await self._frontier.exchange(left, wanted)
            for host_id in wanted.host_ids:  # unknown ones too
                self._needed.pop(host_id, None)
        except FrontierFull:
            table.give_back(backoffs, slow_responses)
            raise
        for key_id, (_, more_at) in entered.more.items():  # as it was before hosts left
            if (known := table.keys_by_id.get(key_id)) is not None:
                known.more_mono = NEVER if more_at is None else table.mono_of(more_at)
        for host, state in zip(leaving, readiness, strict=True):
            self._remove(host)
            if state.ready_at < UNTIL_EVENT and (host.queued or host.has_suspects):
                host.key.more_mono = min(host.key.more_mono, table.mono_of(state.ready_at))
                self._lease_selection.schedule_key(host.key)
        for key in keys:
            table.remove_key(key)
            self._order.pop(key, None)
            self._letting_go.pop(key, None)
            self._ready_queue.remove(key)
            if key.auxiliary:  # added meanwhile
                table.add_unknown(key)
                self._unknown[key] = None
        self._add(entered)
        meanwhile, self._meanwhile = self._meanwhile, {}
        self._apply(meanwhile)

    def _state_of(self, key: PolitenessKey, open_mono: float) -> tuple[int, float | None, float]:
        table = self._host_table
        requested_at = None if key.last_end_mono is None else table.schedule_at(key.last_end_mono)
        return key.id, requested_at, table.schedule_at(max(key.politeness.open_mono, open_mono))

    async def store_all(self) -> None:
        """Store the state of everything in memory, at the end of a crawl. Raises FrontierFull.

        Hosts that could not be reached are tried at once by the next run: whoever starts it may have mended that.
        """
        table, mono = self._host_table, self._clock.mono()
        now_at = table.schedule_at(mono)
        hosts = [HostReadiness(host.id, now_at, has_responded=host.ever_responded) for host in table.hosts.values()]
        keys = [self._state_of(key, mono) for key in table.keys_by_id.values()]
        await self._frontier.exchange(
            Leaving(hosts, keys, table.take_backoffs(), table.take_slow_responses_of(table.keys_by_id.values())),
            Wanted(),
        )

    def _remove(self, host: Host) -> None:
        self._lease_selection.remove(host)
        self._url_limits.reopen(host)
        self._rules.put(host, None, stored=True)
        self._host_table.remove(host)

    def _add(self, entered: Entered) -> None:
        for row in entered.keys:
            key = self._host_table.enter(row)
            if slot_in(row.id) in self._given:
                self._let_go(key)
            self._admit(row.hosts)
            self._lease_selection.schedule_key(key)
        for key_id, (rows, _) in entered.more.items():
            if (known := self._host_table.keys_by_id.get(key_id)) is not None:
                self._admit(rows)
                self._lease_selection.schedule_key(known)
        self._admit(entered.hosts)
        if entered.next_at is not None:
            self._next_mono = min(self._next_mono, self._host_table.mono_of(entered.next_at))
        self.note_counts()

    def _admit(self, rows: Iterable[HostRow]) -> None:
        for host in self._host_table.admit(rows):
            self._order[host.key] = None
            self._lease_selection.schedule_host(host)
