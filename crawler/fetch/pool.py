"""The connection pool: lends connections to origins, within caps for each origin and for all of them together.

A connection needs a slot, from before it is dialled until it is closed. A slot is new until its connection was given
back for the first time: it may be that of a silent host. `Pool.acquire` describes how a request gets a connection. All
decisions are synchronous; only opening a connection and waiting for a slot are asynchronous.

Invariants:
- At most `fetch.connections` slots are taken in all, and at most `connections_per_host` for one origin. Up to
  `first_contacts` new slots do not count, so that silent hosts take none from the others.
- A slot that is taken is freed exactly once.
- Only connections that are open and not expired are lent.
- A caller waits only while no idle connection and no free slot is of use to it. So closing an idle connection never
  helps a waiting caller, and each slot or connection that is given back goes to at most one.
- If an address has more than `connections_per_address` connections, none of them is idle.
"""

import asyncio
import itertools
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from crawler.core.clock import Clock
from crawler.core.enums import CloseReason, ErrorType
from crawler.core.models import Origin
from crawler.fetch.connection import Connection, ConnectionState, Exchange
from crawler.fetch.limits import Bandwidth, ByteBudget
from crawler.fetch.net.dial import CLOSE_NOTIFY_S, Dialer
from crawler.fetch.net.errors import DialError
from crawler.fetch.options import FetchOptions, HostOptions
from crawler.fetch.pool_statistics import ConnectionStatistics, HostConnections, OnEvent, PoolStats

_MIN_SWEEP_DELAY_S: Final = 0.25
_LOOKED_AT: Final = 16  # of the longest idle connections, for one that is not wanted


class PoolClosed(RuntimeError):
    """The pool is closed and lends no connections: its caller should have ended before."""


@dataclass(slots=True, eq=False)
class OriginSlots:
    """The slots of one origin. `taken` counts its connections: idle, lent and being opened. `idle` is a stack."""

    taken: int = 0
    idle: list[Connection] = field(default_factory=list)


class Pool:
    """Lends connections. Belongs to one event loop.

    `on_event` is called with the name and the fields of the events conn_open, conn_close and conn_fail. `first_id` is
    the id of the first connection, `next_id` that of the next one. `is_wanted` tells whether the origin of an idle
    connection is to be requested again soon.
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
        first_contacts: int = 0,
        is_wanted: Callable[[Origin], bool] = lambda origin: False,
    ) -> None:
        self._dialer = dialer
        self._options = options
        self._options_of_hosts = HostOptions(options)
        self._clock = clock
        self._per_host = connections_per_host
        self._per_address = connections_per_address
        self._budget = budget
        self._bandwidth = bandwidth
        self._statistics = ConnectionStatistics(clock, on_event)
        self._slots: dict[Origin, OriginSlots] = {}  # origins with a slot taken
        self._taken = 0  # slots of all origins
        self._new = 0  # those of them that are new
        self._first_contacts = first_contacts
        self._is_wanted = is_wanted
        self._opening = 0
        self._idle: dict[Connection, None] = {}  # of all origins, the longest idle first
        self._waiting: dict[asyncio.Future[Connection | None], Origin] = {}  # in order of arrival
        self._connections: set[Connection] = set()  # all whose transport is not gone yet
        self._at_address: dict[str, int] = {}  # open connections
        self._sweep_timer: asyncio.TimerHandle | None = None
        self._sweep_mono = 0.0  # when the timer fires, if it is armed
        self._is_closed = False
        self.next_id = first_id

    # -- lending

    async def acquire(self, origin: Origin) -> Connection:
        """Return a lent connection to the origin; the caller must give it to `release`. Raises DialError.

        There are three cases:
        1. The origin has an idle connection: the most recently used one is lent.
        2. There is a free slot, or an idle connection can be closed for one: a new connection is opened.
        3. Neither: the caller waits until a connection is given back, and gets that connection or its slot.
        """
        if self._is_closed:
            raise PoolClosed("the pool is closed")
        connection = self._take_idle(origin)
        if connection is None and not self._take_slot(origin):
            connection = await self._wait(origin)
        if connection is not None and connection.is_open:
            return connection
        # in the slot taken, or of a granted connection closed since
        return await self._open(origin, is_new=connection is None)

    def release(self, connection: Connection) -> None:
        """Take back a lent connection. It becomes idle; if it is closed or has expired, its slot is freed."""
        self._count_requests(connection)
        if connection.is_new:
            connection.is_new = False
            self._new -= 1
        origin = connection.origin
        now = self._clock.mono()
        expires, reason = connection.expires_mono()
        if connection.is_open and expires <= now:
            connection.close(reason)
        if connection.is_open:
            connection.state = ConnectionState.IDLE
            self._slots[origin].idle.append(connection)
            self._idle[connection] = None
        else:
            self._free_slot(origin)
        if self._waiting:
            self._serve_waiting()
        if self._taken > self._options.connections and self._counted > self._options.connections:
            self._evict_idle()
        if connection.is_idle:
            if self._sweep_timer is None or expires < self._sweep_mono:
                self._arm_sweep(expires, now)
            self._evict_surplus(connection.dialled.peer_address)

    async def replace(self, connection: Connection) -> Connection:
        """Close a lent connection and lend a new one in its slot. If this raises DialError, the slot is free."""
        self._count_requests(connection)
        connection.abort(CloseReason.SERVER_CLOSE)
        return await self._open(connection.origin, is_new=connection.is_new)

    def _take_idle(self, origin: Origin) -> Connection | None:
        """Lend the origin's most recently used idle connection. Expired ones on the way are closed."""
        slots = self._slots.get(origin)
        if slots is None or not slots.idle:
            return None
        now = self._clock.mono()
        while slots.idle:
            connection = slots.idle[-1]
            expires, reason = connection.expires_mono()
            if expires > now:
                slots.idle.pop()
                del self._idle[connection]
                connection.state = ConnectionState.LENT
                return connection
            connection.close(reason)  # `_on_closed` removes it from `slots.idle`
        return None

    def _take_slot(self, origin: Origin) -> bool:
        """Take a slot for a new connection, if need be that of the longest idle connection. False: there is none."""
        slots = self._slots.get(origin)
        if slots is not None and slots.taken >= self._per_host:
            return False
        most = self._options.connections
        does_not_count = self._new < self._first_contacts and self._counted <= most
        if not does_not_count and self._counted >= most and not self._evict_idle():
            return False
        self._slots.setdefault(origin, OriginSlots()).taken += 1  # looked up again: the eviction may have removed it
        self._taken += 1
        self._new += 1
        return True

    @property
    def _counted(self) -> int:
        """The number of slots that count for `fetch.connections`."""
        return self._taken - min(self._new, self._first_contacts)

    def _free_slot(self, origin: Origin) -> None:
        slots = self._slots[origin]
        slots.taken -= 1
        self._taken -= 1
        if not slots.taken:
            del self._slots[origin]

    async def _wait(self, origin: Origin) -> Connection | None:
        """Wait until a connection or a slot (None) is granted. If cancelled, give back what was granted meanwhile."""
        granted: asyncio.Future[Connection | None] = asyncio.get_running_loop().create_future()
        self._waiting[granted] = origin
        try:
            return await granted
        except asyncio.CancelledError:
            if not granted.cancelled() and granted.exception() is None:
                if (connection := granted.result()) is not None:
                    self.release(connection)
                else:
                    self._new -= 1
                    self._free_slot(origin)
                    self._serve_waiting()
            raise
        finally:
            del self._waiting[granted]

    def _serve_waiting(self) -> None:
        """Grant connections and slots that were given back to the first waiting callers that can use them."""
        for granted, origin in self._waiting.items():
            if granted.done():  # granted or cancelled before, and its task has not run since
                continue
            connection = self._take_idle(origin)
            if connection is not None or self._take_slot(origin):
                granted.set_result(connection)

    async def _open(self, origin: Origin, *, is_new: bool) -> Connection:
        """Open a connection in a slot that was taken for it. On any error the slot is freed."""
        number = self.next_id
        self.next_id += 1
        bandwidth = self._bandwidth if self._bandwidth is not None and self._bandwidth.is_limited else None

        def make() -> Connection:
            return Connection(
                number,
                origin,
                options=self._options_of_hosts.of(origin.host),
                clock=self._clock,
                on_closed=self._on_closed,
                budget=self._budget,
                bandwidth=bandwidth,
            )

        self._opening += 1
        try:
            connection, dialled = await self._dialer.dial(origin, make)
        except BaseException as error:
            self._new -= is_new
            self._free_slot(origin)
            self._serve_waiting()
            if isinstance(error, DialError):
                self._statistics.failed(origin, error)
                if error.error_type is ErrorType.NO_FILE_DESCRIPTORS:
                    self._evict_idle()
            raise
        finally:
            self._opening -= 1
        connection.dialled, connection.is_new = dialled, is_new
        self._connections.add(connection)
        connection.gone.add_done_callback(lambda _: self._connections.discard(connection))
        address = dialled.peer_address
        self._at_address[address] = self._at_address.get(address, 0) + 1
        self._statistics.opened(connection)
        if not connection.is_open:  # the server has closed it already: the exchange will fail
            self._count_closed(connection)
        elif self._is_closed:
            connection.abort(CloseReason.SHUTDOWN)
        self._evict_surplus(address)
        return connection

    def _count_requests(self, connection: Connection) -> None:
        """Count the requests since the connection was lent. Keep its TLS session after its first response."""
        if self._statistics.requested(connection) and (ssl_object := connection.dialled.ssl_object) is not None:
            self._dialer.keep_session(connection.origin, ssl_object)

    # -- closing

    def sweep(self) -> None:
        """Close the expired idle connections, and set the timer for the next one to expire."""
        now = self._clock.mono()
        following = None
        for connection in list(self._idle):
            expires, reason = connection.expires_mono()
            if expires <= now:
                connection.close(reason)
            elif following is None or expires < following:
                following = expires
        self._arm_sweep(following, now)

    def close_idle(self) -> None:
        """Close every idle connection, because file descriptors are short or the options have changed."""
        for connection in list(self._idle):
            connection.close(CloseReason.EVICTED)

    def cut(self, covers: Callable[[Origin], bool]) -> int:
        """Close the connections to these origins at once, also during a request. Returns how many were closed."""
        cut = [connection for connection in self._connections if connection.is_open and covers(connection.origin)]
        for connection in cut:
            connection.abort(CloseReason.BLOCKED)
        return len(cut)

    async def close(self) -> None:
        """Close every connection and wait until the transports are gone. Callers waiting for one get PoolClosed."""
        self._is_closed = True
        self._arm_sweep(None, 0.0)
        for granted in self._waiting:
            if not granted.done():
                granted.set_exception(PoolClosed("the pool was closed"))
        connections = list(self._connections)
        for connection in connections:
            connection.close(CloseReason.SHUTDOWN)
        if connections:
            async with asyncio.timeout(2 * CLOSE_NOTIFY_S + 1.0):
                # unlike gather, wait does not cancel the futures if it is cancelled: close may be called again
                await asyncio.wait([connection.gone for connection in connections])

    def _evict_idle(self) -> bool:
        """Close an idle connection at once, to free its slot: of the longest idle ones the first that is not wanted. If
        all of these are, the last one: the others are needed sooner. False: none is idle.
        """
        if not self._idle:
            return False
        longest_idle = itertools.islice(self._idle, _LOOKED_AT)
        unwanted = (one for one in longest_idle if not self._is_wanted(one.origin))
        evicted = next(unwanted, None) or next(reversed(self._idle))
        evicted.abort(CloseReason.EVICTED)
        return True

    def _evict_surplus(self, address: str) -> None:
        """If an address has more connections than allowed, close the longest idle one. If all of them are lent, the
        surplus is closed as they are given back.
        """
        if self._per_address is not None and self._at_address.get(address, 0) > self._per_address:
            surplus = next((c for c in self._idle if c.dialled.peer_address == address), None)
            if surplus is not None:
                surplus.close(CloseReason.EVICTED)

    def _on_closed(self, connection: Connection) -> None:
        """Called once for each connection that is closed, by us or by the server. A lent connection keeps its slot
        until it is given back.
        """
        if connection in self._idle:
            del self._idle[connection]
            self._slots[connection.origin].idle.remove(connection)
            self._free_slot(connection.origin)
        if connection in self._connections:
            self._count_closed(connection)

    def _count_closed(self, connection: Connection) -> None:
        self._statistics.closed(connection)
        address = connection.dialled.peer_address
        self._at_address[address] -= 1
        if not self._at_address[address]:
            del self._at_address[address]

    def _arm_sweep(self, expires: float | None, now: float) -> None:
        """Set the timer that calls `sweep` when the next idle connection expires; None: there is none."""
        if self._sweep_timer is not None:
            self._sweep_timer.cancel()
            self._sweep_timer = None
        if expires is not None and not self._is_closed:
            delay_s = max(expires - now, _MIN_SWEEP_DELAY_S)
            self._sweep_mono = now + delay_s
            self._sweep_timer = asyncio.get_running_loop().call_later(delay_s, self.sweep)

    # -- status

    def has_idle(self, origin: Origin) -> bool:
        """Whether an idle connection to the origin is kept, so that a request needs no new one."""
        slots = self._slots.get(origin)
        return slots is not None and bool(slots.idle)

    def stats(self) -> PoolStats:
        return self._statistics.stats(idle=len(self._idle), opening=self._opening, waiting=len(self._waiting))

    def most_opened(self, limit: int) -> list[tuple[Origin, HostConnections]]:
        """The origins with the most connections opened, most first."""
        return self._statistics.most_opened(limit)

    def exchanges(self) -> dict[Origin, list[Exchange]]:
        """The requests under way by origin, the earliest first."""
        found: dict[Origin, list[Exchange]] = {}
        for connection in sorted(self._connections, key=lambda one: one.sent_mono):
            if (exchange := connection.current_exchange) is not None:
                found.setdefault(connection.origin, []).append(exchange)
        return found
