"""The connections there are: each from when it is open until its transport is gone, and how many at which address.

It opens none, and closes them only when told to. Invariant: a connection counts at its address while it is open, and no
longer; addresses are counted only where there is a cap for one.
"""

import asyncio
from collections.abc import Callable, Iterator

from crawler.core.enums import CloseReason
from crawler.core.models import Origin
from crawler.fetch.connection import Connection, Exchange
from crawler.fetch.dial import CLOSE_NOTIFY_S


class Alive:
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
