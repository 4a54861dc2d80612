"""The ready queue: politeness keys by the time at which they may be requested, and wait queues of IP addresses.

It is two heaps of times. Keys whose next host has an open connection are in the second, and those of them that are due
are taken first: else, with more hosts than connections, each connection would be closed before its host may be
requested again. After QUANTUM requests in succession a key is in the first heap again. An entry is valid only if its
time equals the `scheduled_mono` of its key or wait queue: to reschedule, an entry is added, and the former entry is
skipped later. `LeaseSelection` decides what of a due key is leased.
"""

import heapq
import itertools
import math
from collections import Counter
from collections.abc import Callable
from typing import Final

from crawler.core.clock import Clock
from crawler.core.models import Origin
from crawler.core.options import PolitenessOptions
from crawler.engine.scheduling.host import AddressQueue, PolitenessKey
from crawler.engine.scheduling.restrictions import AddressRateLimiter

NEVER: Final = math.inf
ANY_WIDTH: Final = 1 << 30
MOST_WAITED_S: Final = 30.0  # how long a key waits for an address while others need its place
MOST_BOOKED_S: Final = 3_600.0  # after which one that left for that reason comes back at the latest
QUANTUM: Final = 16  # requests of a key in succession before keys go first that have been ready for longer
RESERVATION_S: Final = 1.0  # how long an address is reserved for a key, and how often a wait queue is checked


class ReadyQueue:
    """`options` are the politeness options of addresses. `wake` is called after each new entry, because the entry may
    be due while the scheduler would still sleep. `is_connected` tells whether an idle connection to an origin is open.
    """

    def __init__(
        self,
        options: PolitenessOptions,
        clock: Clock,
        wake: Callable[[], None],
        is_connected: Callable[[Origin], bool] = lambda origin: False,
    ) -> None:
        self.address_limiter = AddressRateLimiter(options, clock, self._address_left)
        self._clock = clock
        self._wake = wake
        self._is_connected = is_connected
        self._heap: list[tuple[float, int, PolitenessKey | AddressQueue]] = []
        self._ahead: list[tuple[float, int, PolitenessKey]] = []  # keys that go ahead
        self._removed = 0  # entries of keys that left memory, at most
        self._sequence = itertools.count()
        self._wait_queues: dict[str, AddressQueue] = {}  # by address
        self._lease_addresses: dict[int, str] = {}  # by lease id; empty if addresses have a delay
        self._lease_counts: Counter[str] = Counter()  # number of leases by address
        self._lease_reservations: dict[int, tuple[AddressQueue, float]] = {}  # by lease id, with its end (monotonic)

    def schedule(self, due: PolitenessKey | AddressQueue, when_mono: float) -> None:
        """Schedule a key or wait queue for `when_mono`, unless it is scheduled earlier. NEVER adds no entry."""
        if when_mono == NEVER or (due.scheduled_mono is not None and due.scheduled_mono <= when_mono):
            return
        due.scheduled_mono = when_mono
        if isinstance(due, PolitenessKey) and due.goes_ahead:
            heapq.heappush(self._ahead, (when_mono, next(self._sequence), due))
        else:
            heapq.heappush(self._heap, (when_mono, next(self._sequence), due))
        self._wake()

    def take_due(self) -> PolitenessKey | float:
        """Remove the next key that is due, or return the seconds until one is."""
        ahead = self._take_ahead()
        if isinstance(ahead, PolitenessKey):
            return ahead
        while self._heap:
            when, _, due = self._heap[0]
            if due.scheduled_mono != when:
                heapq.heappop(self._heap)  # superseded by an earlier entry
                continue
            wait_s = when - self._clock.mono()
            if wait_s > 0:
                return min(wait_s, ahead)
            heapq.heappop(self._heap)
            due.scheduled_mono = None
            if isinstance(due, PolitenessKey):
                due.goes_ahead = False
                return due
            self._serve(due)
        return ahead

    def _take_ahead(self) -> PolitenessKey | float:
        """As `take_due`, of the keys that go ahead. Those that had their quantum, or whose connection was
        closed meanwhile, join the others.
        """
        while self._ahead:
            when, _, key = self._ahead[0]
            wait_s = when - self._clock.mono()
            if wait_s > 0 and key.scheduled_mono == when:
                return wait_s
            heapq.heappop(self._ahead)
            if key.scheduled_mono != when:
                continue
            if key.goes_ahead and self._has_connection(key):
                key.scheduled_mono = None
                return key
            key.goes_ahead = False
            heapq.heappush(self._heap, (when, next(self._sequence), key))
        return NEVER

    def _has_connection(self, key: PolitenessKey) -> bool:
        return bool(key.hosts) and self._is_connected(key.hosts[0].origin)

    @property
    def first_mono(self) -> float:
        """When the first entry is due, valid or not; NEVER if there is none."""
        return min((heap[0][0] for heap in (self._heap, self._ahead) if heap), default=NEVER)

    @property
    def keys_at_addresses(self) -> tuple[int, int]:
        """Numbers of keys that wait for IP addresses, and of those addresses."""
        waiting = [len(queue.keys) for queue in self._wait_queues.values() if queue.keys]
        return sum(waiting), len(waiting)

    # -- leases

    def lease_issued(self, key: PolitenessKey, lease_id: int, address: str | None) -> None:
        """End the key's reservation. If addresses have no delay and `address` is known, count the lease there; if they
        have one, the address stays reserved for a while.
        """
        if key.reservation is not None and self.address_limiter.has_delay:
            self._lease_reservations[lease_id] = key.reservation, key.reservation.reserved_until_mono
        self._clear_reservation(key)
        key.in_succession = key.in_succession + 1 if key.goes_ahead else 1
        if address is not None and not self.address_limiter.has_delay:
            self._lease_addresses[lease_id] = address
            self._lease_counts[address] += 1

    def lease_ended(self, key: PolitenessKey, lease_id: int) -> None:
        """Let the next key use the address of the lease. The key itself goes ahead if it may: then the caller schedules
        it.
        """
        key.goes_ahead = key.delay_s > 0 and key.in_succession < QUANTUM and self._has_connection(key)
        if key.goes_ahead:
            key.scheduled_mono = None  # an entry among the others, made during the lease
        reserved = self._lease_reservations.pop(lease_id, None)
        if reserved is not None and reserved[0].reserved_until_mono == reserved[1]:  # no request was sent
            self._shorten(reserved[0])
        address = self._lease_addresses.pop(lease_id, None)
        if address is None:
            return
        self._lease_counts[address] -= 1
        if not self._lease_counts[address]:
            del self._lease_counts[address]
        if (queue := self._wait_queues.get(address)) is not None:
            self.schedule(queue, self._clock.mono())

    # -- wait queues of addresses

    def wait_for_address(
        self, key: PolitenessKey, address: str, opens_mono: float, *, goes_first: bool = False
    ) -> None:
        """Add a key to the wait queue of an address: at the end, or at the front if it had reserved the address and
        found it closed.
        """
        queue = self._wait_queue_of(address)
        queue.add(key)
        if goes_first:
            queue.keys.move_to_end(key, last=False)
        self.schedule(queue, min(opens_mono, self._clock.mono() + RESERVATION_S))

    def claim_address(self, key: PolitenessKey, address: str) -> bool:
        """Claim an open address for a key. False: other keys came first, and the key now waits behind them.

        If addresses have a delay, the address is reserved for the key until it sends a request, or for RESERVATION_S.
        Without the reservation a key that arrives just when the address opens would overtake those that wait.
        """
        if not self.address_limiter.has_delay:
            return self._claim_without_delay(key, address)
        queue, mono = self._wait_queue_of(address), self._clock.mono()
        if key.reservation is not queue:
            if queue.is_reserved(mono) or len(queue.keys) > (key in queue.keys):
                self.wait_for_address(key, address, queue.reserved_until_mono if queue.is_reserved(mono) else mono)
                return False
            self._reserve(queue, key, mono)
        self._leave_wait_queue(key, address)
        return True

    def remove(self, key: PolitenessKey) -> None:
        """Remove a key: it leaves memory."""
        self._removed += key.scheduled_mono is not None
        key.scheduled_mono = None
        key.auxiliary_open_mono = 0.0
        if self._removed > (len(self._heap) + len(self._ahead)) // 2:  # else they stay until their times have come
            self._heap = [entry for entry in self._heap if entry[2].scheduled_mono == entry[0]]
            self._ahead = [entry for entry in self._ahead if entry[2].scheduled_mono == entry[0]]
            heapq.heapify(self._heap)
            heapq.heapify(self._ahead)
            self._removed = 0
        self.release_address(key)
        for queue in list(key.wait_queues):
            queue.remove(key)

    def is_crowded(self, key: PolitenessKey, most: int) -> bool:
        """Whether a key waits for an address behind more than `most` others, or behind those that it serves within
        MOST_WAITED_S.
        """
        seats = self._seats(most)
        return any(
            len(queue.keys) > seats and key not in itertools.islice(queue.keys, seats) for queue in key.wait_queues
        )

    def book(self, key: PolitenessKey, most: int) -> float:
        """When a key that waits for an address behind too many others is to come back (monotonic). Each has another
        time, the last after MOST_BOOKED_S; then they begin anew.
        """
        mono, interval_s, opens_mono = self._clock.mono(), self.address_limiter.interval_s, 0.0
        for queue in key.wait_queues:
            first_mono = mono + self._seats(most) * interval_s
            queue.booked_until_mono = max(queue.booked_until_mono, first_mono) + interval_s
            if queue.booked_until_mono > mono + MOST_BOOKED_S:
                queue.booked_until_mono = first_mono
            opens_mono = max(opens_mono, queue.booked_until_mono)
        return opens_mono

    def _seats(self, most: int) -> int:
        return max(1, min(most, int(MOST_WAITED_S / self.address_limiter.interval_s)))

    def _claim_without_delay(self, key: PolitenessKey, address: str) -> bool:
        """Claim an address without a delay: it may have as many leases as requests in flight. Leases are counted and
        not requests, because between two requests of a lease there is only an instant.
        """
        leases, queue = self._lease_counts[address], self._wait_queues.get(address)
        if queue is None and leases < self.address_limiter.width:
            return True
        queue = self._wait_queue_of(address)
        if key.reservation is not queue:
            is_full = leases + len(queue.reserved_for) >= self.address_limiter.width
            if is_full or len(queue.keys) > (key in queue.keys):
                self.wait_for_address(key, address, NEVER if is_full else self._clock.mono())
                return False
        self._leave_wait_queue(key, address)
        return True

    def release_address(self, key: PolitenessKey) -> None:
        """End the reservation of a key, if it has one: the next key may use the address."""
        queue = key.reservation
        self._clear_reservation(key)
        if queue is not None:
            queue.reserved_until_mono = 0.0
            self.schedule(queue, self._clock.mono())

    def _clear_reservation(self, key: PolitenessKey) -> None:
        if key.reservation is not None:
            key.reservation.reserved_for.discard(key)
            key.reservation = None

    def _reserve(self, queue: AddressQueue, key: PolitenessKey, mono: float) -> None:
        if key.reservation is not None:
            self.release_address(key)
        key.reservation = queue
        if self.address_limiter.has_delay:
            queue.reserved_until_mono = mono + RESERVATION_S
            self.schedule(queue, queue.reserved_until_mono)
        else:
            queue.reserved_for.add(key)

    def _shorten(self, queue: AddressQueue) -> None:
        """Let the next key have an address after its delay, as if a request had been sent."""
        delayed_mono = self._clock.mono() + self.address_limiter.interval_s
        queue.reserved_until_mono = min(queue.reserved_until_mono, delayed_mono)
        self.schedule(queue, queue.reserved_until_mono)

    def _wait_queue_of(self, address: str) -> AddressQueue:
        queue = self._wait_queues.get(address)
        if queue is None:
            queue = self._wait_queues[address] = AddressQueue(address)
        return queue

    def _leave_wait_queue(self, key: PolitenessKey, address: str) -> None:
        queue = self._wait_queues.get(address)
        if queue is not None and not key.auxiliary:  # an auxiliary request may wait for the same address
            queue.remove(key)

    def _address_left(self, address: str, opens_mono: float) -> None:
        """Serve the wait queue of an address when it opens after a request."""
        queue = self._wait_queues.get(address)
        limiter = self.address_limiter
        if queue is not None and (limiter.has_delay or self._lease_counts[address] < limiter.width):
            queue.reserved_until_mono = 0.0
            self.schedule(queue, opens_mono)

    def _serve(self, queue: AddressQueue) -> None:
        """If an address is open, reserve it for the first waiting keys that may be requested, up to its width."""
        mono = self._clock.mono()
        opens = self.address_limiter.opens_at(queue.address)
        if opens is None and queue.is_reserved(mono):
            opens = queue.reserved_until_mono
        elif opens is None:
            opens, room = NEVER, 1
            if not self.address_limiter.has_delay:
                room = self.address_limiter.width - self._lease_counts[queue.address] - len(queue.reserved_for)
            while queue.keys and room > 0:
                key = next(iter(queue.keys))
                queue.remove(key)
                key.auxiliary_open_mono = min(key.auxiliary_open_mono, mono)
                if key.politeness.opens_at(mono, delay_s=key.delay_s, width=ANY_WIDTH) is None:
                    room -= 1
                    self._reserve(queue, key, mono)
                self.schedule(key, max(mono, key.politeness.open_mono))
        if queue.keys or queue.reserved_for or queue.is_reserved(mono):
            self.schedule(queue, min(opens, mono + RESERVATION_S))
        else:
            self._wait_queues.pop(queue.address, None)
