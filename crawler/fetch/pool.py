"""Which connections are open, who has them, and who waits: per origin, last in, first out.

It does not know what is sent over a connection, nor whether a request may leave now (the gate). Decisions are
synchronous; only opening a connection and waiting for a place take time. Invariants: connections being opened or lent,
idle ones included, are never more than `fetch.connections` in all and `connections_per_host` for one origin; a place
that is taken is given back exactly once; a connection is lent only while it `is_open` and has not expired; where there
is a cap for one address, no connection is idle at an address that has more than that.
"""

import asyncio
from collections.abc import Callable
from types import TracebackType
from typing import Final, Protocol

from crawler.core.clock import Clock
from crawler.core.enums import CloseReason, ErrorType
from crawler.core.models import Origin
from crawler.fetch.connection import Connection, Exchange
from crawler.fetch.connection_state import ConnectionState
from crawler.fetch.limits import Bandwidth, ByteBudget
from crawler.fetch.net.dial import Dialer
from crawler.fetch.net.errors import DialError
from crawler.fetch.options import FetchOptions
from crawler.fetch.pool_slots import OpenConnections, OriginSlots, Waiter, WaitQueue
from crawler.fetch.pool_statistics import ConnectionFacts, ConnectionStatistics, HostConnections, OnEvent, PoolStats


class Lender(Protocol):
    """The pool, as far as a loan needs it; see there."""

    async def acquire(self, origin: Origin) -> Connection: ...

    def release(self, connection: Connection, *, cancelled: bool = False) -> None: ...

    async def replace(self, connection: Connection) -> Connection: ...


class Loan:
    """One connection, lent for as long as its `async with` lasts."""

    __slots__ = ("_connection", "_origin", "_pool")

    def __init__(self, pool: Lender, origin: Origin) -> None:
        self._pool = pool
        self._origin = origin
        self._connection: Connection | None = None

    async def __aenter__(self) -> Connection:
        self._connection = connection = await self._pool.acquire(self._origin)
        return connection

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            self._pool.release(connection, cancelled=kind is not None and issubclass(kind, asyncio.CancelledError))

    async def replace(self) -> Connection:
        """Close the lent connection and lend a fresh one in its place. Raises DialError; nothing is lent then."""
        connection, self._connection = self._connection, None
        assert connection is not None
        self._connection = await self._pool.replace(connection)
        return self._connection


_SWEEP_AT_LEAST_S: Final = 0.25


class PoolClosed(RuntimeError):
    """Lending from a pool that has been closed: the caller should have ended before it."""


class Pool:
    """Lends connections. Belongs to one event loop.

    `on_event` gets the fields of conn_open, conn_close and conn_fail. Idle connections are closed by one timer, armed
    only while there are any; a test with a clock of its own calls `sweep`.
    """

    def __init__(
        self,
        *,
        dialer: Dialer,
        options: FetchOptions,
        clock: Clock,
        connections_per_host: int = 1,
        connections_per_address: int | None = None,
        on_event: OnEvent | None = None,
        budget: ByteBudget | None = None,
        bandwidth: Bandwidth | None = None,
        first_id: int = 1,
    ) -> None:
        self._dialer = dialer
        self._options = options
        self._clock = clock
        self._per_host = connections_per_host
        self._per_address = connections_per_address
        self._budget = budget
        self._bandwidth = bandwidth
        self._ledger = ConnectionStatistics(clock, on_event)
        self._places: dict[Origin, OriginSlots] = {}
        self._idle: dict[Connection, None] = {}  # all origins, the longest idle first
        self._starved = WaitQueue()  # blocked by the cap over all origins
        self._waiting = 0
        self._arrivals = 0
        self._taken = 0
        self._opening = 0
        self._alive = OpenConnections(connections_per_address)
        self._shut = False
        self._sweeper: asyncio.TimerHandle | None = None
        self._next_id = first_id - 1
        self._sweep_mono = 0.0  # when the sweeper fires, if it is armed

    # -- lending

    def lend(self, origin: Origin) -> Loan:
        """`async with pool.lend(origin) as connection:`. Entering it raises DialError if none can be opened.

        On leaving, an open connection is idle again, unless the body was cancelled: then it is closed.
        """
        return Loan(self, origin)

    async def acquire(self, origin: Origin) -> Connection:
        """A connection in state lent; it must be given to `release`. Raises DialError. `lend` does both."""
        if self._shut:
            raise PoolClosed("the pool is closed")
        connection = self._take_idle(origin)
        if connection is not None:
            return connection
        if not self._take_place(origin):
            connection = await self._wait(origin)
            if connection is not None and connection.is_open:
                return connection  # else it closed on its way here; its place is ours all the same
        return await self._open_in_place(origin)

    def release(self, connection: Connection, *, cancelled: bool = False) -> None:
        """Take a lent connection back. Open: it serves the next in line or is idle; closed: its place is free."""
        self._settle(connection)
        if connection.is_open:
            if cancelled or self._shut:
                connection.abort(CloseReason.SHUTDOWN)
            elif (spent := connection.spent()) is not None:
                connection.close(spent)
            else:
                now = self._clock.mono()
                expires, reason = connection.expires_mono()
                if expires > now:
                    self._put_back(connection, now, expires)
                    return
                connection.close(reason)
        self._free_place(connection.origin)

    async def replace(self, connection: Connection) -> Connection:
        """A fresh connection in the place of a lent one, which is closed. Raises DialError: the place is then free."""
        self._settle(connection)
        connection.abort(CloseReason.SERVER_CLOSE)
        return await self._open_in_place(connection.origin)

    # -- looking

    @property
    def next_id(self) -> int:
        """One more than the id of the last connection: where a pool that takes over goes on counting."""
        return self._next_id + 1

    def stats(self) -> PoolStats:
        return self._ledger.stats(idle=len(self._idle), opening=self._opening, waiting=self._waiting)

    def origins(self) -> dict[Origin, tuple[int, int, int]]:
        """For each origin with any: places taken, idle connections among them, and how many wait for one of its own."""
        return {o: (p.taken, len(p.idle), len(p.line)) for o, p in self._places.items()}

    def connections(self) -> list[ConnectionFacts]:
        """Every open connection, in the order in which they were opened."""
        return [self._ledger.facts(connection) for connection in self._alive.in_order()]

    def of_host(self, origin: Origin) -> HostConnections | None:
        """What an origin's connections were worth so far; None if none was opened, or that is forgotten."""
        return self._ledger.of(origin)

    def most_opened(self, limit: int) -> list[tuple[Origin, HostConnections]]:
        """The origins that took the most connections, most first."""
        return self._ledger.most_opened(limit)

    def exchanges(self) -> dict[Origin, list[Exchange]]:
        """The requests under way on connections that are open, for each origin those sent first first."""
        return self._alive.exchanges()

    def has_idle(self, origin: Origin) -> bool:
        """Whether a request to the origin could leave without opening a connection."""
        places = self._places.get(origin)
        return places is not None and bool(places.idle)

    def __repr__(self) -> str:
        return f"<Pool taken: {self._taken}, idle: {len(self._idle)}, waiting: {self._waiting}>"

    # -- closing

    def sweep(self) -> None:
        """Close the idle connections whose time is over, and arm the timer for the next that will be."""
        now = self._clock.mono()
        following = None
        for connection in list(self._idle):
            expires, reason = connection.expires_mono()
            if expires <= now:
                connection.close(reason)
            elif following is None or expires < following:
                following = expires
        self._arm(following, now)

    def close_idle(self, reason: CloseReason = CloseReason.EVICTED) -> None:
        """Close every idle connection: descriptors are short, or the options changed."""
        for connection in list(self._idle):
            connection.close(reason)

    def cut(self, covers: Callable[[Origin], bool]) -> int:
        """Close the connections to these origins at once, whatever they are at. Returns how many."""
        return self._alive.cut(covers)

    async def close(self) -> None:
        """Close every connection and wait until the transports are gone. Those who wait for a place get PoolClosed."""
        self._shut = True
        if self._sweeper is not None:
            self._sweeper.cancel()
            self._sweeper = None
        for line in (self._starved, *(places.line for places in self._places.values())):
            for waiter in line.drain():
                waiter.granted.set_exception(PoolClosed("the pool was closed"))
        await self._alive.close()

    # -- places

    def _take_idle(self, origin: Origin) -> Connection | None:
        """The origin's most recently used idle connection, now lent; expired ones on the way are closed."""
        places = self._places.get(origin)
        if places is None or not places.idle:
            return None
        now = self._clock.mono()
        while places.idle:
            connection = places.idle[-1]
            expires, reason = connection.expires_mono()
            if expires > now:
                places.idle.pop()
                del self._idle[connection]
                connection.state = ConnectionState.LENT
                return connection
            connection.close(reason)  # `_on_closed` takes it out of the list
        return None

    def _take_place(self, origin: Origin) -> bool:
        """Take a place in which a connection may be opened, closing another origin's longest idle one if need be."""
        places = self._places.get(origin)
        if places is not None and places.taken >= self._per_host:
            return False
        if self._taken >= self._options.connections and not self._evict():
            return False
        if places is None:  # looked up again: an eviction may have emptied the entry
            places = self._places.setdefault(origin, OriginSlots())
        places.taken += 1
        self._taken += 1
        return True

    def _evict(self) -> bool:
        """Close the connection that has been idle longest. It ends at once: its place is wanted now."""
        for connection in self._idle:
            connection.abort(CloseReason.EVICTED)
            return True
        return False

    def _thin_out(self, address: str) -> None:
        """While an address has more connections than it may, close the one to it that has been idle longest."""
        if self._per_address is None:
            return
        while self._alive.is_crowded(address):
            surplus = next((c for c in self._idle if c.dialled.peer_address == address), None)
            if surplus is None:
                return  # all of them are lent: the surplus is closed as they come back
            surplus.close(CloseReason.EVICTED)

    async def _wait(self, origin: Origin) -> Connection | None:
        """Wait for a connection, or (None) a place. Cancelled, it gives back what it was granted meanwhile."""
        self._arrivals += 1
        waiter = Waiter(origin, asyncio.get_running_loop().create_future(), self._arrivals)
        places = self._places.get(origin)
        line = self._starved if places is None or places.taken < self._per_host else places.line
        line.join(waiter)
        self._waiting += 1
        try:
            return await waiter.granted
        except asyncio.CancelledError:
            if waiter.granted.done() and not waiter.granted.cancelled() and waiter.granted.exception() is None:
                granted = waiter.granted.result()
                if granted is None:
                    self._free_place(origin)
                else:
                    self.release(granted)
            raise
        finally:
            self._waiting -= 1
            self._leave_lines(waiter)

    def _leave_lines(self, waiter: Waiter) -> None:
        self._starved.leave(waiter)
        places = self._places.get(waiter.origin)
        if places is not None:
            places.line.leave(waiter)
            self._drop_if_empty(waiter.origin)

    def _put_back(self, connection: Connection, now: float, expires: float) -> None:
        """An open connection goes to the next in line, makes room for another origin's, or becomes idle."""
        places = self._places[connection.origin]
        own = places.line.first()
        starved = self._starved.first()
        if own is not None and (starved is None or own.number < starved.number):
            places.line.pop()
            own.granted.set_result(connection)
            return
        if starved is not None:
            if starved.origin == connection.origin:
                self._starved.pop()
                starved.granted.set_result(connection)
            else:
                connection.abort(CloseReason.EVICTED)
                self._free_place(connection.origin)
            return
        connection.state = ConnectionState.IDLE
        places.idle.append(connection)
        self._idle[connection] = None
        self._thin_out(connection.dialled.peer_address)
        if not connection.is_open:
            return
        if self._sweeper is None or expires < self._sweep_mono:
            self._arm(expires, now)

    def _free_place(self, origin: Origin) -> None:
        """A place is free: the first in line who can use it gets it."""
        places = self._places[origin]
        places.taken -= 1
        self._taken -= 1
        for waiter in places.line.drain():  # no longer kept by their own origin's cap, they queue with the others
            self._starved.join(waiter)
        while not self._shut and self._starved.first() is not None:
            waiter = self._starved.pop()
            if self._take_place(waiter.origin):
                waiter.granted.set_result(None)
                break
            self._places[waiter.origin].line.join(waiter)  # its origin filled up while it waited
        self._drop_if_empty(origin)

    def _drop_if_empty(self, origin: Origin) -> None:
        places = self._places.get(origin)
        if places is not None and not places.taken and not places.line:
            del self._places[origin]

    # -- opening, and what happens to connections by themselves

    async def _open_in_place(self, origin: Origin) -> Connection:
        """Open a connection in a place that was taken for it. Whatever goes wrong, the place is free again."""
        self._next_id += 1
        number = self._next_id
        bandwidth = self._bandwidth if self._bandwidth is not None and self._bandwidth.is_limited else None

        def make() -> Connection:
            return Connection(
                number,
                origin,
                options=self._options,
                clock=self._clock,
                on_closed=self._on_connection_closed,
                budget=self._budget,
                bandwidth=bandwidth,
            )

        self._opening += 1
        try:
            connection, dialled = await self._dialer.dial(origin, make)
        except BaseException as error:
            self._free_place(origin)
            if isinstance(error, DialError):
                self._ledger.failed(origin, error)
                if error.error_type is ErrorType.NO_FILE_DESCRIPTORS:
                    self._evict()
            raise
        finally:
            self._opening -= 1
        connection.opened(dialled)
        self._alive.add(connection)
        self._ledger.opened(connection)
        self._thin_out(dialled.peer_address)
        if not connection.is_open:  # it ended between the handshake and here; the exchange will say so
            self._count_closed(connection)
        elif self._shut:
            connection.abort(CloseReason.SHUTDOWN)
        return connection

    def _settle(self, connection: Connection) -> None:
        """Book a loan: its requests, and the TLS session once an answer has come."""
        if self._ledger.requested(connection) and connection.ssl_object is not None:
            self._dialer.keep_session(connection.origin, connection.ssl_object)

    def _on_connection_closed(self, connection: Connection) -> None:
        """A connection is closed, by us or by its server. If it was idle its place is free; else its loan frees it."""
        if connection in self._idle:
            del self._idle[connection]
            self._places[connection.origin].idle.remove(connection)
            self._free_place(connection.origin)
        if connection in self._alive:
            self._count_closed(connection)

    def _count_closed(self, connection: Connection) -> None:
        self._ledger.closed(connection)
        self._alive.closed(connection)

    def _arm(self, expires: float | None, now: float) -> None:
        if self._sweeper is not None:
            self._sweeper.cancel()
            self._sweeper = None
        if expires is not None and not self._shut:
            delay_s = max(expires - now, _SWEEP_AT_LEAST_S)
            self._sweep_mono = now + delay_s
            self._sweeper = asyncio.get_running_loop().call_later(delay_s, self.sweep)
