"""Statistics of the pool's connections, in all and by origin, and the events conn_open, conn_close and conn_fail.

Invariants: every opened connection is counted as closed exactly once. Totals are exact. The number of origins with
counts of their own is bounded: the oldest is dropped first.
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

_MAX_ORIGINS: Final = 16_384  # origins with counts of their own; about 200 bytes each
REQUEST_BOUNDS: Final = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1_000, 10_000)  # of PoolStats.requests_at_close


@dataclass(frozen=True, slots=True)
class PoolStats:
    """Counts since the start, and the present state (`open` = idle + lent; `waiting`: requests without a connection).

    `reused` counts all requests but the first of each connection. `requests_at_close` is a histogram of closed
    connections by their number of requests: one count for each of REQUEST_BOUNDS (upper bounds), then the rest.
    """

    opened: int
    closed: Mapping[CloseReason, int]
    failed: int  # connections that could not be opened
    requests: int
    reused: int
    tls_handshakes: int
    tls_resumed: int
    requests_at_close: tuple[int, ...]
    requests_closed: int  # the requests of closed connections
    open: int
    idle: int
    opening: int
    waiting: int

    @property
    def requests_per_connection(self) -> float:
        """Mean number of requests per opened connection; 0 if none was opened."""
        return round(self.requests / self.opened, 1) if self.opened else 0.0

    @property
    def reuse_ratio(self) -> float:
        """The share of requests that needed no new connection; 0 if there were no requests."""
        return self.reused / self.requests if self.requests else 0.0


@dataclass(slots=True)
class HostConnections:
    """Counts of one origin since the start. `reused` and `reuse_ratio` are as in PoolStats."""

    opened: int = 0
    requests: int = 0
    reused: int = 0
    tls_handshakes: int = 0
    tls_resumed: int = 0

    @property
    def reuse_ratio(self) -> float:
        return self.reused / self.requests if self.requests else 0.0


class ConnectionStatistics:
    """Counts connections and requests, and reports each connection to `on_event`."""

    def __init__(self, clock: Clock, on_event: OnEvent | None, *, max_origins: int = _MAX_ORIGINS) -> None:
        self._clock = clock
        self._on_event = on_event
        self._max_origins = max_origins
        self._opened = self._failed = self._requests = self._reused = self._handshakes = self._resumed = 0
        self._closed: dict[CloseReason, int] = {}
        self._requests_closed = 0
        self._requests_at_close = [0] * (len(REQUEST_BOUNDS) + 1)
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
            requests_at_close=tuple(self._requests_at_close),
            requests_closed=self._requests_closed,
            open=self._opened - sum(self._closed.values()),
            idle=idle,
            opening=opening,
            waiting=waiting,
        )

    def most_opened(self, limit: int) -> list[tuple[Origin, HostConnections]]:
        """The origins with the most connections opened, most first."""
        return heapq.nlargest(limit, self._by_origin.items(), key=lambda item: item[1].opened)

    def requested(self, connection: Connection) -> bool:
        """Count the requests since the last call. Returns whether the connection had its first response since then."""
        counted, connection.requests_counted = connection.requests_counted, connection.requests
        made = connection.requests - counted
        if not made:
            return False
        reused = made - (counted == 0)
        self._requests += made
        self._reused += reused
        host = self._by_origin.get(connection.origin)
        if host is not None:
            host.requests += made
            host.reused += reused
        return counted == 0 and not connection.got_no_byte

    def opened(self, connection: Connection) -> None:
        dialled = connection.dialled
        self._opened += 1
        host = self._by_origin.get(connection.origin)
        if host is None:
            if len(self._by_origin) >= self._max_origins:
                del self._by_origin[next(iter(self._by_origin))]
            host = self._by_origin[connection.origin] = HostConnections()
        host.opened += 1
        if dialled.tls_version is not None:
            self._handshakes += 1
            self._resumed += dialled.tls_resumed
            host.tls_handshakes += 1
            host.tls_resumed += dialled.tls_resumed
        timings = dialled.timings
        self._emit(
            Event.CONN_OPEN,
            connection.origin,
            **_identity(connection),
            network_peer_port=dialled.peer_port,
            dns_ms=_ms(timings.resolve_s),
            connect_ms=_ms(timings.connect_s),
            tls_ms=_ms(timings.tls_s),
        )

    def closed(self, connection: Connection) -> None:
        reason = connection.close_reason
        assert reason is not None
        self._closed[reason] = self._closed.get(reason, 0) + 1
        requests = connection.requests
        self._requests_closed += requests
        self._requests_at_close[sum(requests > bound for bound in REQUEST_BOUNDS)] += 1
        self._emit(
            Event.CONN_CLOSE,
            connection.origin,
            **_identity(connection),
            requests=requests,
            age_ms=_ms(self._clock.mono() - connection.opened_mono),
            bytes=connection.bytes_received,
            reason=reason.value,
            **self._of_host(connection),
        )

    def failed(self, origin: Origin, error: DialError) -> None:
        self._failed += 1
        timings = error.timings
        address, port = error.peer if error.peer is not None else (None, None)
        self._emit(
            Event.CONN_FAIL,
            origin,
            stage=error.stage.value,
            error_type=error.error_type.value,
            detail=error.detail,
            dur_ms=_ms(timings.resolve_s + timings.connect_s + timings.tls_s),
            network_peer_address=address,
            network_peer_port=port,
        )

    def _of_host(self, connection: Connection) -> dict[str, object]:
        """The counts of the connection's host, including the connection's requests that are not counted yet."""
        host = self._by_origin.get(connection.origin)
        if host is None:
            return {}
        uncounted = connection.requests - connection.requests_counted
        requests = host.requests + uncounted
        reused = host.reused + max(0, uncounted - (connection.requests_counted == 0))
        ratio = round(reused / requests, 4) if requests else 0.0
        return {"host_connections": host.opened, "host_requests": requests, "host_reuse_ratio": ratio}

    def _emit(self, event: Event, origin: Origin, **fields: object) -> None:
        """Report an event; fields that are None are left out."""
        if self._on_event is not None:
            present = {name: value for name, value in fields.items() if value is not None}
            self._on_event(event.value, {"server_address": origin.host, "server_port": origin.port, **present})


def _identity(connection: Connection) -> dict[str, object]:
    """The fields that conn_open and conn_close have in common."""
    dialled = connection.dialled
    ssl_object = dialled.ssl_object
    return {
        "conn_id": connection.id,
        "network_peer_address": dialled.peer_address,
        "tls_protocol_version": dialled.tls_version,
        "tls_resumed": dialled.tls_resumed,
        "tls_next_protocol": None if ssl_object is None else ssl_object.selected_alpn_protocol(),  # RFC 7301
    }


def _ms(seconds: float) -> float:
    return round(seconds * 1000, 1)
