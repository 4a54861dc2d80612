"""The pool's books: how many connections were opened, resumed, closed and why, and the events that say so.

It decides nothing. Invariant: every connection that was opened is counted as closed exactly once.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from crawler.core.clock import Clock
from crawler.core.values import Origin
from crawler.core.vocabulary import CloseReason
from crawler.fetch.connection import Connection
from crawler.fetch.errors import DialError
from crawler.obs.events import Event

OnEvent = Callable[[str, dict[str, object]], None]


@dataclass(frozen=True, slots=True)
class PoolStats:
    """Counts since the start, and how things stand now (`open` = idle + lent; `waiting`: for a place)."""

    opened: int
    closed: Mapping[CloseReason, int]
    failed: int  # connections that did not come about
    requests: int
    tls_handshakes: int
    tls_resumed: int
    open: int
    idle: int
    opening: int
    waiting: int


class Ledger:
    """Counts, and tells `on_event` of conn_open, conn_close and conn_fail."""

    def __init__(self, clock: Clock, on_event: OnEvent | None) -> None:
        self._clock = clock
        self._on_event = on_event
        self._opened = self._failed = self._requests = self._handshakes = self._resumed = 0
        self._closed: dict[CloseReason, int] = {}
        self._open = 0

    def stats(self, *, idle: int, taken: int, waiting: int) -> PoolStats:
        return PoolStats(
            opened=self._opened,
            closed=dict(self._closed),
            failed=self._failed,
            requests=self._requests,
            tls_handshakes=self._handshakes,
            tls_resumed=self._resumed,
            open=self._open,
            idle=idle,
            opening=max(0, taken - self._open),
            waiting=waiting,
        )

    def requested(self, connection: Connection) -> bool:
        """Count the requests a loan has made. True if the connection's first answer was among what came."""
        booked, connection.requests_booked = connection.requests_booked, connection.requests
        self._requests += connection.requests - booked
        return booked == 0 and connection.requests > 0 and not connection.nothing_came_back

    def opened(self, connection: Connection) -> None:
        dialled = connection.dialled
        self._opened += 1
        self._open += 1
        if dialled.tls_version is not None:
            self._handshakes += 1
            self._resumed += dialled.tls_resumed
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
                dns_ms=_ms(timings.resolve_s),
                connect_ms=_ms(timings.connect_s),
                tls_ms=_ms(timings.tls_s),
            )

    def closed(self, connection: Connection) -> None:
        reason = connection.close_reason
        assert reason is not None
        self._open -= 1
        self._closed[reason] = self._closed.get(reason, 0) + 1
        if self._on_event is not None:
            self._emit(
                Event.CONN_CLOSE,
                connection.origin,
                conn_id=connection.id,
                network_peer_address=connection.dialled.peer_address,
                requests=connection.requests,
                age_ms=_ms(self._clock.mono() - connection.opened_mono),
                bytes=connection.bytes_received,
                reason=reason.value,
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

    def _emit(self, event: Event, origin: Origin, **fields: object) -> None:
        if self._on_event is not None:
            self._on_event(event.value, {"server_address": origin.host, "server_port": origin.port, **fields})


def _ms(seconds: float) -> float:
    return round(seconds * 1000, 1)
