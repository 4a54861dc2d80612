"""What a pool counts: who waits for a connection, in order of arrival, and which connections are open."""

import asyncio
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from crawler.core.enums import CloseReason
from crawler.core.models import Origin
from crawler.fetch.connection import Connection, Exchange
from crawler.fetch.net.dial import CLOSE_NOTIFY_S


@dataclass(slots=True, eq=False)
class Waiter:
    """Someone at a cap. Granted is a connection, or None: a place in which to open one."""

    origin: Origin
    granted: asyncio.Future[Connection | None]
    number: int  # order of arrival


class WaitQueue:
    """Waiters, first come first served. Those whose wait is over by themselves, cancelled, do not count."""

    __slots__ = ("_waiters",)

    def __init__(self) -> None:
        self._waiters: deque[Waiter] = deque()

    def join(self, waiter: Waiter) -> None:
        """Stand where one's arrival entitles one to."""
        waiters = self._waiters
        at = len(waiters)
        while at and waiters[at - 1].number > waiter.number:
            at -= 1
        waiters.insert(at, waiter)

    def first(self) -> Waiter | None:
        waiters = self._waiters
        while waiters and waiters[0].granted.done():
            waiters.popleft()
        return waiters[0] if waiters else None

    def pop(self) -> Waiter:
        """Take the first out; there must be one."""
        return self._waiters.popleft()

    def leave(self, waiter: Waiter) -> None:
        if waiter in self._waiters:
            self._waiters.remove(waiter)

    def drain(self) -> list[Waiter]:
        """Everyone who still waits, taken out."""
        waiting = [waiter for waiter in self._waiters if not waiter.granted.done()]
        self._waiters.clear()
        return waiting

    def __len__(self) -> int:
        return len(self._waiters)


@dataclass(slots=True, eq=False)
class OriginSlots:
    """One origin's share. `taken` counts places: idle, lent and opening connections. Someone waits here only while all
    of the origin's places are taken.
    """

    taken: int = 0
    idle: list[Connection] = field(default_factory=list)
    line: WaitQueue = field(default_factory=WaitQueue)


class OpenConnections:
    """`per_address`: how many connections to one address are not too many; None: any number."""

    __slots__ = ("_all", "_at", "_per_address")

    def __init__(self, per_address: int | None) -> None:
        self._per_address = per_address
        self._all: set[Connection] = set()
        self._at: dict[str, int] = {}  # open connections by peer

    def add(self, connection: Connection) -> None:
        """It has been opened."""
        self._all.add(connection)
        if self._per_address is not None:
            address = connection.dialled.peer_address
            self._at[address] = self._at.get(address, 0) + 1

    def closed(self, connection: Connection) -> None:
        """It is closed, and forgotten once its transport is gone. Called once for each that was added."""
        if self._per_address is not None:
            address = connection.dialled.peer_address
            left = self._at.pop(address) - 1
            if left:
                self._at[address] = left
        connection.when_gone(self._all.discard)

    def is_crowded(self, address: str) -> bool:
        """Whether an address has more open connections than it may."""
        return self._per_address is not None and self._at.get(address, 0) > self._per_address

    def in_order(self) -> list[Connection]:
        """Those that are open, in the order in which they were opened."""
        return sorted((c for c in self._all if c.is_open), key=lambda c: c.id)

    def exchanges(self) -> dict[Origin, list[Exchange]]:
        """The requests under way on connections that are open, for each origin those sent first first."""
        found: dict[Origin, list[Exchange]] = {}
        for connection in sorted(self._all, key=lambda one: one.sent_mono):
            if (exchange := connection.exchange_now()) is not None:
                found.setdefault(connection.origin, []).append(exchange)
        return found

    def cut(self, covers: Callable[[Origin], bool]) -> int:
        """Close the connections to these origins at once, whatever they are at. Returns how many."""
        cut = [connection for connection in self._all if connection.is_open and covers(connection.origin)]
        for connection in cut:
            connection.abort(CloseReason.BLOCKED)
        return len(cut)

    async def close(self) -> None:
        """Close all of them in order, and wait until their transports are gone."""
        alive = list(self._all)
        for connection in alive:
            connection.close(CloseReason.SHUTDOWN)
        if alive:
            async with asyncio.timeout(2 * CLOSE_NOTIFY_S + 1.0):
                await asyncio.gather(*(connection.wait_closed() for connection in alive))

    def __contains__(self, connection: Connection) -> bool:
        return connection in self._all

    def __iter__(self) -> Iterator[Connection]:
        return iter(self._all)
