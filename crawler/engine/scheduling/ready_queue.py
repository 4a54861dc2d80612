"""When each politeness key is looked at again, and which keys wait in line for an IP address.

A heap of times; an entry is valid only while it is the one its key or line remembers, so rescheduling costs no search.
It decides nothing about a key that is due: that is the scheduler's business.
"""

import heapq
import itertools
import math
from collections import Counter
from collections.abc import Callable
from typing import Final

from crawler.core.clock import Clock
from crawler.core.options import PolitenessOptions
from crawler.engine.scheduling.host import AddressQueue, PolitenessKey
from crawler.engine.scheduling.rate_limits import AddressRateLimiter

NEVER: Final = math.inf
ANY_WIDTH: Final = 1 << 30
ADDRESS_POLL_S: Final = 1.0  # a line at an address is looked at this often, should whom it called not have gone


class ReadyQueue:
    """`options` are those of addresses. `wake` is called whenever an entry was made: it may be earlier than what the
    scheduler sleeps for.
    """

    def __init__(self, options: PolitenessOptions, clock: Clock, wake: Callable[[], None]) -> None:
        self.address_limiter = AddressRateLimiter(options, clock, self._address_left)
        self._clock = clock
        self._wake = wake
        self._heap: list[tuple[float, int, PolitenessKey | AddressQueue]] = []
        self._sequence = itertools.count()
        self._lines: dict[str, AddressQueue] = {}  # by address
        self._runs: dict[int, str] = {}  # leases out where no address has a delay, and where they go
        self._running: Counter[str] = Counter()  # how many of them, by address

    def schedule(self, due: PolitenessKey | AddressQueue, when_mono: float) -> None:
        """Look at a key (or a line) then, if it is not to be looked at earlier already. NEVER: somebody will say."""
        if when_mono == NEVER or (due.scheduled_mono is not None and due.scheduled_mono <= when_mono):
            return
        due.scheduled_mono = when_mono
        heapq.heappush(self._heap, (when_mono, next(self._sequence), due))
        self._wake()

    def take_due(self) -> PolitenessKey | float:
        """The next key that is due, or the seconds until one is."""
        while self._heap:
            when, _, due = self._heap[0]
            if due.scheduled_mono != when:
                heapq.heappop(self._heap)  # superseded by an earlier entry
                continue
            wait_s = when - self._clock.mono()
            if wait_s > 0:
                return wait_s
            heapq.heappop(self._heap)
            due.scheduled_mono = None
            if isinstance(due, PolitenessKey):
                return due
            self._call_next(due)
        return NEVER

    @property
    def first_mono(self) -> float:
        """When the first entry is due, valid or not; NEVER if there is none."""
        return self._heap[0][0] if self._heap else NEVER

    # -- lines at addresses

    def line_up(self, key: PolitenessKey, address: str, opens_mono: float) -> None:
        """Let a key wait until it is called."""
        line = self._line_at(address)
        line.keys[key] = None
        self.schedule(line, min(opens_mono, self._clock.mono() + ADDRESS_POLL_S))

    def passes(self, key: PolitenessKey, address: str) -> bool:
        """Whether a key that finds the address open is the next to use it; otherwise it stands in line now. Under a
        delay the address is then kept for it, until a request has left or its time is over: others would only meet it
        shut, and whoever comes by at the right moment would go before all that wait.
        """
        if not self.address_limiter.has_delay:
            return self._has_room(key, address)
        line, mono = self._line_at(address), self._clock.mono()
        if key.holds is not line:
            if line.is_kept(mono) or len(line.keys) > (key in line.keys):
                self.line_up(key, address, line.kept_mono if line.is_kept(mono) else mono)
                return False
            self._keep(line, key, mono)
        self._step_out(key, address)
        return True

    def _has_room(self, key: PolitenessKey, address: str) -> bool:
        """The same without a delay: so many leases may be out to the address as requests may be in flight. Counted by
        leases, since one that goes from request to request never leaves the address for longer than an instant.
        """
        running, line = self._running[address], self._lines.get(address)
        if line is None and running < self.address_limiter.width:
            return True
        line = self._line_at(address)
        if key.holds is not line:
            is_full = running + len(line.called) >= self.address_limiter.width
            if is_full or len(line.keys) > (key in line.keys):
                self.line_up(key, address, NEVER if is_full else self._clock.mono())
                return False
        self._step_out(key, address)
        return True

    def let_go(self, key: PolitenessKey) -> None:
        """A key has no use for the address that is kept for it: the next in line is called."""
        line = key.holds
        self.used(key)
        if line is not None:
            line.kept_mono = 0.0
            self.schedule(line, self._clock.mono())

    def used(self, key: PolitenessKey) -> None:
        """A lease was issued for the key that was called."""
        if key.holds is not None:
            key.holds.called.discard(key)
            key.holds = None

    def run_began(self, lease_id: int, address: str) -> None:
        """A lease is out that will ask this address, as far as is known."""
        self._runs[lease_id] = address
        self._running[address] += 1

    def run_ended(self, lease_id: int) -> None:
        """It is not out any more: the next in line is called."""
        address = self._runs.pop(lease_id, None)
        if address is None:
            return
        self._running[address] -= 1
        if not self._running[address]:
            del self._running[address]
        if (line := self._lines.get(address)) is not None:
            self.schedule(line, self._clock.mono())

    def came_too_late(self, key: PolitenessKey, address: str, opens_mono: float) -> None:
        """A request of the key met the address shut although it was its turn: it is the first to be called."""
        line = self._line_at(address)
        line.keys[key] = None
        line.keys.move_to_end(key, last=False)
        self.schedule(line, min(opens_mono, self._clock.mono() + ADDRESS_POLL_S))

    def _line_at(self, address: str) -> AddressQueue:
        line = self._lines.get(address)
        if line is None:
            line = self._lines[address] = AddressQueue(address)
        return line

    def _step_out(self, key: PolitenessKey, address: str) -> None:
        line = self._lines.get(address)
        if line is not None and not key.auxiliary:  # these may wait for the same address
            line.keys.pop(key, None)

    def _keep(self, line: AddressQueue, key: PolitenessKey, mono: float) -> None:
        if key.holds is not None:
            self.let_go(key)
        key.holds, line.kept_mono = line, mono + ADDRESS_POLL_S
        self.schedule(line, line.kept_mono)

    def _address_left(self, address: str, opens_mono: float) -> None:
        line = self._lines.get(address)
        if line is not None and (self.address_limiter.has_delay or self._running[address] < self.address_limiter.width):
            line.kept_mono = 0.0
            self.schedule(line, opens_mono)

    def _call_next(self, line: AddressQueue) -> None:
        """If the address is open, let the first in line go that can, as many as there is room for."""
        mono = self._clock.mono()
        opens = self.address_limiter.opens_at(line.address)
        if opens is None and line.is_kept(mono):
            opens = line.kept_mono
        elif opens is None:
            opens, places = NEVER, 1
            if not self.address_limiter.has_delay:
                places = self.address_limiter.width - self._running[line.address] - len(line.called)
            while line.keys and places > 0:
                key, _ = line.keys.popitem(last=False)
                key.auxiliary_open_mono = min(key.auxiliary_open_mono, mono)
                if key.politeness.opens_at(mono, delay_s=key.delay_s, width=ANY_WIDTH) is None:
                    places -= 1
                    self._call(line, key, mono)
                self.schedule(key, max(mono, key.politeness.open_mono))
        if line.keys or line.called or line.is_kept(mono):
            self.schedule(line, min(opens, mono + ADDRESS_POLL_S))
        else:
            self._lines.pop(line.address, None)

    def _call(self, line: AddressQueue, key: PolitenessKey, mono: float) -> None:
        if self.address_limiter.has_delay:
            self._keep(line, key, mono)
            return
        if key.holds is not None:
            self.let_go(key)
        key.holds = line
        line.called.add(key)
