"""What is known of a connection: whose it is, how it was opened, what it has carried, and how long it may be used.

It neither reads nor writes, and changes nothing: the connection itself does (`connection`), or who lends it (`pool`).
Invariant: `close_reason` is set exactly when the state is closed.
"""

import ssl
from enum import StrEnum

from crawler.core.clock import Clock
from crawler.core.enums import CloseReason
from crawler.core.models import ConnectionInfo, Origin, Timings
from crawler.fetch.net.dial import Dialled
from crawler.fetch.options import FetchOptions


class ConnectionState(StrEnum):
    """Where a connection stands."""

    IDLE = "idle"
    LENT = "lent"
    CLOSED = "closed"


class ConnectionRecord:
    """A connection as it stands. It is born lent.

    `sent_mono`, `first_mono` and `end_mono` say of the last exchange when the request had been written, the first byte
    came (0.0: none did) and the exchange ended. `spoke_first`: that exchange sent no request, but read what the server
    had said before it.
    """

    __slots__ = ("_dialled", "_early", "_options", "_received", "bytes_received", "close_reason", "end_mono",
                 "first_mono", "id", "idle_since_mono", "keep_alive_max", "keep_alive_timeout_s", "opened_mono",
                 "origin", "requests", "requests_booked", "sent_mono", "spoke_first", "state")  # fmt: skip

    def __init__(self, id: int, origin: Origin, options: FetchOptions, clock: Clock) -> None:
        self.id = id
        self.origin = origin
        self.state = ConnectionState.LENT
        self.close_reason: CloseReason | None = None
        self.requests = 0
        self.requests_booked = 0  # the pool's note of how many it has counted
        self.bytes_received = 0
        self.opened_mono = self.idle_since_mono = clock.mono()
        self.sent_mono = self.first_mono = self.end_mono = 0.0
        self.keep_alive_timeout_s: float | None = None
        self.keep_alive_max: int | None = None
        self._options = options
        self._dialled: Dialled | None = None
        self._early = b""  # what came before the first request, not heard yet
        self.spoke_first = False
        self._received = 0  # bytes of the last exchange's answer

    def opened(self, dialled: Dialled) -> None:
        """The dialer is done; called once, before the first exchange."""
        self._dialled = dialled

    @property
    def dialled(self) -> Dialled:
        assert self._dialled is not None
        return self._dialled

    @property
    def info(self) -> ConnectionInfo:
        """This connection, at its present request, as the log shows it."""
        dialled = self.dialled
        return ConnectionInfo(
            self.id,
            self.requests,
            dialled.peer_address,
            dialled.peer_port,
            dialled.tls_version,
            dialled.tls_resumed,
        )

    @property
    def timings(self) -> Timings:
        """Of the last exchange; what opening the connection took counts for its first request."""
        first, end = self.first_mono, self.end_mono
        first_byte_s = (first or end) - self.sent_mono if self.sent_mono else 0.0
        body_s = end - first if first else 0.0
        if self.requests > 1:
            return Timings(0.0, 0.0, 0.0, first_byte_s, body_s)
        opening = self.dialled.timings
        return Timings(opening.resolve_s, opening.connect_s, opening.tls_s, first_byte_s, body_s)

    @property
    def is_open(self) -> bool:
        return self.state is not ConnectionState.CLOSED

    @property
    def is_idle(self) -> bool:
        return self.state is ConnectionState.IDLE

    @property
    def ssl_object(self) -> ssl.SSLObject | None:
        return None if self._dialled is None else self._dialled.ssl_object

    @property
    def alpn(self) -> str | None:
        """The protocol agreed on in the TLS handshake (RFC 7301); None without TLS, or if the server named none."""
        ssl_object = self.ssl_object
        return None if ssl_object is None else ssl_object.selected_alpn_protocol()

    @property
    def nothing_came_back(self) -> bool:
        """Whether the last exchange got not a single byte: only then may its request be sent again."""
        return self._received == 0

    def expires_mono(self) -> tuple[float, CloseReason]:
        """When this connection, being idle, must be closed, and why.

        A second before the server would (`Keep-Alive: timeout=`), so that a request never meets its close half-way.
        """
        idle_s, reason = self._options.idle_timeout_s, CloseReason.IDLE_TIMEOUT
        if self.keep_alive_timeout_s is not None:
            idle_s = min(idle_s, max(self.keep_alive_timeout_s - 1.0, self.keep_alive_timeout_s / 2))
        expires = self.idle_since_mono + idle_s
        if self._options.max_connection_age_s is not None:
            too_old = self.opened_mono + self._options.max_connection_age_s
            if too_old < expires:
                return too_old, CloseReason.MAX_AGE
        return expires, reason

    def spent(self) -> CloseReason | None:
        """Why this connection, though sound, shall not serve another request; None if it may."""
        if self._early:  # nobody heard it
            return CloseReason.UNSOLICITED
        limit = self._options.max_requests_per_connection
        if limit is not None and self.requests >= limit:
            return CloseReason.MAX_REQUESTS
        if self.keep_alive_max is not None and self.keep_alive_max <= 0:
            return CloseReason.SERVER_CLOSE
        return None

    def __repr__(self) -> str:
        reason = f" ({self.close_reason})" if self.close_reason is not None else ""
        return f"<Connection {self.id} {self.origin} {self.state}{reason}, requests: {self.requests}>"
