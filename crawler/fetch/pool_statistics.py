"""The pool's books: how many connections were opened, resumed, closed and why, what each host's connections were worth,
and the events that say so.

It decides nothing and opens nothing. Invariants: every connection that was opened is counted as closed exactly once;
totals are exact, while what is known by host is bounded and the host that has been known longest is forgotten first.
"""

import heapq
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from crawler.core.clock import Clock
from crawler.core.enums import CloseReason
from crawler.core.models import Origin
from crawler.fetch.connection import Connection
from crawler.fetch.net.errors import DialError
from crawler.obs.events import Event

OnEvent = Callable[[str, dict[str, object]], None]

_ORIGINS: Final = 16_384  # whose connections are counted apart; about 200 bytes each
REQUEST_BOUNDS: Final = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1_000, 10_000)  # of PoolStats.requests_at_close


@dataclass(frozen=True, slots=True)
class PoolStats:
    """Counts since the start, and how things stand now (`open` = idle + lent; `waiting`: for a place).

    `reused` are the requests that went over a connection that had carried one before. `requests_at_close` counts closed
    connections by how many requests each had carried: for each of REQUEST_BOUNDS those with no more than that (and more
    than the bound before), then the rest. `bytes` came in over connections that are closed.
    """

    opened: int
    closed: Mapping[CloseReason, int]
    failed: int  # connections that did not come about
    requests: int
    reused: int
    tls_handshakes: int
    tls_resumed: int
    bytes: int
    requests_at_close: tuple[int, ...]
    requests_closed: int  # carried by those connections, all together
    open: int
    idle: int
    opening: int
    waiting: int

    @property
    def requests_per_connection(self) -> float:
        """Of those that were opened; 0 where none was."""
        return round(self.requests / self.opened, 1) if self.opened else 0.0

    @property
    def reuse_ratio(self) -> float:
        """The share of requests that needed no new connection; 0 where there was none."""
        return self.reused / self.requests if self.requests else 0.0


@dataclass(slots=True)
class HostConnections:
    """What one origin's connections were worth, since the start."""

    opened: int = 0
    requests: int = 0
    reused: int = 0
    tls_handshakes: int = 0
    tls_resumed: int = 0

    @property
    def reuse_ratio(self) -> float:
        """As PoolStats.reuse_ratio."""
        return self.reused / self.requests if self.requests else 0.0


@dataclass(frozen=True, slots=True)
class ConnectionFacts:
    """One open connection, as an operator wants to see it. Ages in seconds; `idle_s` is None while it is lent."""

    id: int
    origin: Origin
    state: str
    peer_address: str
    age_s: float
    idle_s: float | None
    requests: int
    bytes: int
    tls_version: str | None
    tls_resumed: bool
    alpn: str | None


class ConnectionStatistics:
    """Counts, and tells `on_event` of conn_open, conn_close and conn_fail."""

    def __init__(self, clock: Clock, on_event: OnEvent | None, *, origins: int = _ORIGINS) -> None:
        self._clock = clock
        self._on_event = on_event
        self._origins = origins
        self._opened = self._failed = self._requests = self._reused = self._handshakes = self._resumed = 0
        self._bytes = 0
        self._closed: dict[CloseReason, int] = {}
        self._requests_at_close = [0] * (len(REQUEST_BOUNDS) + 1)
        self._requests_closed = 0
        self._open = 0
        self._by_origin: dict[Origin, HostConnections] = {}

    def stats(self, *, idle: int, opening: int, waiting: int) -> PoolStats:
        return PoolStats(
            opened=self._opened,
            closed=dict(self._closed),
            failed=self._failed,
            requests=self._requests,
            reused=self._reused,
            tls_handshakes=self._handshakes,
            tls_resumed=self._resumed,
            bytes=self._bytes,
            requests_at_close=tuple(self._requests_at_close),
            requests_closed=self._requests_closed,
            open=self._open,
            idle=idle,
            opening=opening,
            waiting=waiting,
        )

    def of(self, origin: Origin) -> HostConnections | None:
        """What is known of an origin's connections; None if none was opened, or that is forgotten."""
        return self._by_origin.get(origin)

    def most_opened(self, limit: int) -> list[tuple[Origin, HostConnections]]:
        """The origins that took the most connections, most first."""
        return heapq.nlargest(limit, self._by_origin.items(), key=lambda item: item[1].opened)

    def facts(self, connection: Connection) -> ConnectionFacts:
        """An open connection's line of the ledger, now."""
        now = self._clock.mono()
        dialled = connection.dialled
        return ConnectionFacts(
            id=connection.id,
            origin=connection.origin,
            state=connection.state.value,
            peer_address=dialled.peer_address,
            age_s=now - connection.opened_mono,
            idle_s=now - connection.idle_since_mono if connection.is_idle else None,
            requests=connection.requests,
            bytes=connection.bytes_received,
            tls_version=dialled.tls_version,
            tls_resumed=dialled.tls_resumed,
            alpn=connection.alpn,
        )

    def requested(self, connection: Connection) -> bool:
        """Count the requests a loan has made. True if the connection's first answer was among what came."""
        booked, connection.requests_booked = connection.requests_booked, connection.requests
        made = connection.requests - booked
        if not made:
            return False
        reused = made - (booked == 0)
        self._requests += made
        self._reused += reused
        host = self._by_origin.get(connection.origin)
        if host is not None:
            host.requests += made
            host.reused += reused
        return booked == 0 and not connection.nothing_came_back

    def opened(self, connection: Connection) -> None:
        dialled = connection.dialled
        self._opened += 1
        self._open += 1
        host = self._host(connection.origin)
        host.opened += 1
        if dialled.tls_version is not None:
            self._handshakes += 1
            self._resumed += dialled.tls_resumed
            host.tls_handshakes += 1
            host.tls_resumed += dialled.tls_resumed
        if self._on_event is not None:
            timings = dialled.timings
            self._emit(
                Event.CONN_OPEN,
                connection.origin,
                conn_id=connection.id,
                network_peer_address=dialled.peer_address,
                network_peer_port=dialled.peer_port,
                tls_protocol_version=dialled.tls_version,
                tls_resumed=dialled.tls_resumed,
                tls_next_protocol=connection.alpn,
                dns_ms=_ms(timings.resolve_s),
                connect_ms=_ms(timings.connect_s),
                tls_ms=_ms(timings.tls_s),
            )

    def closed(self, connection: Connection) -> None:
        reason = connection.close_reason
        assert reason is not None
        self._open -= 1
        self._closed[reason] = self._closed.get(reason, 0) + 1
        self._bytes += connection.bytes_received
        requests = connection.requests
        self._requests_closed += requests
        self._requests_at_close[sum(requests > bound for bound in REQUEST_BOUNDS)] += 1
        if self._on_event is not None:
            dialled = connection.dialled
            self._emit(
                Event.CONN_CLOSE,
                connection.origin,
                conn_id=connection.id,
                network_peer_address=dialled.peer_address,
                requests=requests,
                age_ms=_ms(self._clock.mono() - connection.opened_mono),
                bytes=connection.bytes_received,
                reason=reason.value,
                tls_protocol_version=dialled.tls_version,
                tls_resumed=dialled.tls_resumed,
                tls_next_protocol=connection.alpn,
                **self._of_host(connection),
            )

    def failed(self, origin: Origin, error: DialError) -> None:
        self._failed += 1
        if self._on_event is not None:
            timings = error.timings
            fields: dict[str, object] = {}
            if error.peer is not None:
                fields = {"network_peer_address": error.peer[0], "network_peer_port": error.peer[1]}
            self._emit(
                Event.CONN_FAIL,
                origin,
                stage=error.stage.value,
                error_type=error.error_type.value,
                detail=error.detail,
                dur_ms=_ms(timings.resolve_s + timings.connect_s + timings.tls_s),
                **fields,
            )

    def _host(self, origin: Origin) -> HostConnections:
        hosts = self._by_origin
        host = hosts.get(origin)
        if host is None:
            if len(hosts) >= self._origins:
                del hosts[next(iter(hosts))]
            host = hosts[origin] = HostConnections()
        return host

    def _of_host(self, connection: Connection) -> dict[str, object]:
        """The host's connections and requests so far, those of this connection that are not booked yet among them."""
        host = self._by_origin.get(connection.origin)
        if host is None:
            return {}
        unbooked = connection.requests - connection.requests_booked
        requests = host.requests + unbooked
        reused = host.reused + max(0, unbooked - (connection.requests_booked == 0))
        ratio = round(reused / requests, 4) if requests else 0.0
        return {"host_connections": host.opened, "host_requests": requests, "host_reuse_ratio": ratio}

    def _emit(self, event: Event, origin: Origin, **fields: object) -> None:
        if self._on_event is not None:
            said = {name: value for name, value in fields.items() if value is not None}
            self._on_event(event.value, {"server_address": origin.host, "server_port": origin.port, **said})


def _ms(seconds: float) -> float:
    return round(seconds * 1000, 1)
