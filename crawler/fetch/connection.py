"""One connection to an origin: sends a request, feeds the response to a ResponseReader and enforces the deadlines.

Invariants:
- A connection is idle, lent or closed. `close_reason` is set exactly while it is closed.
- It stays open after an exchange only if the reader says that the response was framed strictly and read to its last
  byte.
- Bytes that belong to no response close it. So does an unfinished TLS record when the next request is to be sent, and
  so does a cancelled exchange.

Bytes that arrive before the first request are kept, because an overloaded server may send a 503 to every client that
connects. They are read as the response, and the request is not sent.

The end of a stream is the same for TCP and for TlsStream. An orderly end (TLS close_notify, or a FIN without TLS) calls
`eof_received` and then `connection_lost(None)`. A TLS stream that is cut off without close_notify only calls
`connection_lost(None)`. A reset, a TLS alert or a damaged record calls `connection_lost` with the error.
"""

import asyncio
import select
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, cast

from crawler.core.clock import Clock
from crawler.core.enums import CloseReason, ErrorType
from crawler.core.formatting import count, duration
from crawler.core.models import ConnectionInfo, Origin, Timings
from crawler.fetch.http1.message import RemoteProtocolError
from crawler.fetch.http1.wire import ResponseReader
from crawler.fetch.limits import Bandwidth, ByteBudget
from crawler.fetch.net.dial import CLOSE_NOTIFY_S, Dialled
from crawler.fetch.net.errors import ExchangeError, describe
from crawler.fetch.net.tls import TlsStream, stream_error
from crawler.fetch.options import KIB, FetchOptions

_TIMER_SLACK_S: Final = 0.001  # uvloop's timers have whole milliseconds and may fire that much early
_PAUSED_CHECK_S: Final = 1.0  # between two checks of an exchange's deadlines while reading is paused
_MAX_EARLY_BYTES: Final = 256 * KIB  # bytes before the first request that are kept: one read, or a few
# A body in chunks of a few bytes costs a hundred times as much as the same body in one piece. After a read of more than
# this many chunks, reading pauses for ten times as long as the read took, so that such a server gets a tenth of the
# loop's time, and other responses are read meanwhile.
_MANY_CHUNKS: Final = 1_000
_PAUSE_PER_CHUNK_S: Final = 4e-6


class ConnectionState(StrEnum):
    """The state of a connection. It begins as LENT."""

    IDLE = "idle"
    LENT = "lent"
    CLOSED = "closed"


@dataclass(frozen=True, slots=True)
class Exchange:
    """A request under way: its connection, its number there (from 1) and the bytes received so far."""

    conn_id: int
    request_n: int
    received_bytes: int


class Connection(asyncio.Protocol):
    """A stream to one origin, over TCP or TLS. `on_closed` is called once, when the connection is closed or lost.

    Times of the last exchange: `sent_mono` is when the request was written, `first_mono` when the first byte arrived
    (0.0: none has), `end_mono` when the exchange ended. `spoke_first`: the last exchange sent no request, because the
    server had sent bytes before it. `gone` is done once the transport of a closed connection is gone.
    """

    __slots__ = ("_bandwidth", "_budget", "_clock", "_early", "_end_error", "_eof", "_ignores_budget", "_last_mono",
                 "_loop", "_on_closed", "_options", "_paused_s", "_paused_since_mono", "_poll", "_reader",
                 "_received", "_timer", "_timer_mono", "_tls", "_transport", "_waiter", "bytes_received",
                 "close_reason", "dialled", "end_mono", "first_mono", "gone", "id", "idle_since_mono", "is_new",
                 "keep_alive_max", "keep_alive_timeout_s", "opened_mono", "origin", "requests", "requests_counted",
                 "sent_mono", "spoke_first", "state")  # fmt: skip

    dialled: Dialled  # set by the pool as soon as the dialer returns, before the first exchange

    def __init__(
        self,
        id: int,
        origin: Origin,
        *,
        options: FetchOptions,
        clock: Clock,
        on_closed: Callable[["Connection"], None],
        budget: ByteBudget | None = None,
        bandwidth: Bandwidth | None = None,
    ) -> None:
        self.id = id
        self.origin = origin
        self.state = ConnectionState.LENT
        self.close_reason: CloseReason | None = None
        self.is_new = False  # its slot is new
        self.requests = 0
        self.requests_counted = 0  # by the pool's statistics
        self.bytes_received = 0
        self.opened_mono = self.idle_since_mono = clock.mono()
        self.sent_mono = self.first_mono = self.end_mono = 0.0
        self.keep_alive_timeout_s: float | None = None
        self.keep_alive_max: int | None = None
        self.spoke_first = False
        self._options = options
        self._clock = clock
        self._on_closed = on_closed
        self._budget = budget
        self._bandwidth = bandwidth
        self._loop = asyncio.get_running_loop()
        self.gone: asyncio.Future[None] = self._loop.create_future()
        self._transport: asyncio.Transport | None = None
        self._tls: TlsStream | None = None
        self._poll: select.poll | None = None
        self._reader: ResponseReader | None = None
        self._waiter: asyncio.Future[Exception | None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._timer_mono = 0.0
        self._early = b""  # bytes that arrived before the first request and are not read yet
        self._received = 0  # bytes of the last exchange's response
        self._last_mono = 0.0  # when the latest of them arrived
        self._paused_since_mono = 0.0  # 0.0: reading is not paused
        self._paused_s = 0.0  # how long this exchange was paused by us, which must not count against the server
        self._ignores_budget = False  # this response may exceed the budget until its end
        self._eof = False
        self._end_error: Exception | None = None

    @property
    def is_open(self) -> bool:
        return self.state is not ConnectionState.CLOSED

    @property
    def is_idle(self) -> bool:
        return self.state is ConnectionState.IDLE

    @property
    def info(self) -> ConnectionInfo:
        """The connection and its current request, for the log."""
        dialled = self.dialled
        return ConnectionInfo(
            self.id,
            self.requests,
            dialled.peer_address,
            dialled.tls_version,
            dialled.tls_resumed,
        )

    @property
    def timings(self) -> Timings:
        """Timings of the last exchange. Those of opening the connection belong to its first request."""
        first, end = self.first_mono, self.end_mono
        first_byte_s = (first or end) - self.sent_mono if self.sent_mono else 0.0
        body_s = end - first if first else 0.0
        if self.requests > 1:
            return Timings(0.0, 0.0, 0.0, first_byte_s, body_s)
        opening = self.dialled.timings
        return Timings(opening.resolve_s, opening.connect_s, opening.tls_s, first_byte_s, body_s)

    @property
    def got_no_byte(self) -> bool:
        """Whether the last exchange received no byte: only then may its request be sent again."""
        return self._received == 0

    @property
    def current_exchange(self) -> Exchange | None:
        """The request under way, if there is one."""
        return None if self._waiter is None else Exchange(self.id, self.requests, self._received)

    def expires_mono(self) -> tuple[float, CloseReason]:
        """When the connection must be closed if it is idle until then, and why; 0.0 if it may serve no other request.

        An idle connection is closed one second before the server's own limit (`Keep-Alive: timeout=`), so that no
        request crosses the server's close.
        """
        options = self._options
        if self._early:
            return 0.0, CloseReason.UNSOLICITED
        if options.max_requests_per_connection is not None and self.requests >= options.max_requests_per_connection:
            return 0.0, CloseReason.MAX_REQUESTS
        if self.keep_alive_max is not None and self.keep_alive_max <= 0:
            return 0.0, CloseReason.SERVER_CLOSE
        idle_s = options.idle_timeout_s
        if self.keep_alive_timeout_s is not None:
            idle_s = min(idle_s, max(self.keep_alive_timeout_s - 1.0, self.keep_alive_timeout_s / 2))
        expires = self.idle_since_mono + idle_s
        if options.max_connection_age_s is not None and self.opened_mono + options.max_connection_age_s < expires:
            return self.opened_mono + options.max_connection_age_s, CloseReason.MAX_AGE
        return expires, CloseReason.IDLE_TIMEOUT

    def __repr__(self) -> str:
        reason = f" ({self.close_reason})" if self.close_reason is not None else ""
        return f"<Connection {self.id} {self.origin} {self.state}{reason}, requests: {self.requests}>"

    # -- one exchange

    async def exchange(self, request: bytes, reader: ResponseReader) -> None:
        """Send a request and feed the response to `reader` until it is complete.

        Afterwards the connection is open if it can serve another request, else closed. Raises ExchangeError if the
        response is incomplete (`reader` has the part that arrived), and the errors of the reader's sink.
        """
        self._received = 0
        if self._has_unread_bytes():
            await asyncio.sleep(0)  # let the loop read them: they may close the connection
            await asyncio.sleep(0)
        if self._tls is not None and self._tls.is_mid_record and not self._early:
            self.abort(CloseReason.UNSOLICITED)
        self._paused_s = self.first_mono = 0.0
        self.sent_mono = self._last_mono = self.end_mono = now = self._clock.mono()
        self.requests += 1
        transport = self._transport
        if not self._early and (self.state is not ConnectionState.LENT or transport is None):
            raise ExchangeError(ErrorType.SERVER_CLOSED, f"closed before the request was written ({self.close_reason})")
        # An error is the result of this future, not its exception: an exception would have to be retrieved.
        waiter: asyncio.Future[Exception | None] = self._loop.create_future()
        self._waiter = waiter
        self._reader = reader
        if self._early:
            self._read_early(now)
        else:
            assert transport is not None
            self._arm_timer(now)
            transport.write(request)
        try:
            error = await waiter
        except asyncio.CancelledError:
            self.abort(CloseReason.SHUTDOWN)
            raise
        finally:
            self._waiter = None
            self._reader = None
            if self._ignores_budget and self._budget is not None:
                self._ignores_budget = False
                self._budget.finished()
        if error is not None:
            raise error

    def _has_unread_bytes(self) -> bool:
        """Whether the kernel has bytes, or an end of stream, that the loop has not read yet. They arrived before the
        next request is sent, so they are not its response. The call takes a microsecond.
        """
        return self._poll is not None and bool(self._poll.poll(0))

    def _read_early(self, now: float) -> None:
        """Read the bytes that arrived before the first request as its response; `data_received` reads the rest."""
        early, self._early = self._early, b""
        self.spoke_first = True
        is_open = self.is_open
        if is_open:
            self._arm_timer(now)
        self.bytes_received -= len(early)  # `data_received` counts it again
        self.data_received(early)
        if self._reader is not None and not is_open:
            self._stream_ended(self._end_error)

    def data_received(self, data: bytes) -> None:
        size = len(data)
        self.bytes_received += size
        reader = self._reader
        if reader is None:
            if self.state is ConnectionState.LENT and not self.requests and len(self._early) < _MAX_EARLY_BYTES:
                self._early += data
            elif self.state is not ConnectionState.CLOSED:
                self.abort(CloseReason.UNSOLICITED)
            return
        self._last_mono = now = self._clock.mono()
        resume_mono = 0.0 if self._bandwidth is None else self._bandwidth.spend(self.origin.host, size, now)
        is_first = not self._received
        if is_first:
            self.first_mono = now
        self._received += size
        try:
            reader.feed(data)
        except RemoteProtocolError as error:
            self._fail(ExchangeError(ErrorType.PROTOCOL_ERROR, describe(error)), CloseReason.PROTOCOL_ERROR)
        except Exception as error:  # an error of the sink, or a bug: `exchange` raises it
            self._fail(error, CloseReason.SHUTDOWN)
        else:
            if reader.complete:
                self._complete(reader, now)
                return
            if is_first:
                self._arm_timer(now)  # after the first byte other deadlines apply, which may be earlier
            if reader.pieces > _MANY_CHUNKS:
                resume_mono = max(resume_mono, now + reader.pieces * _PAUSE_PER_CHUNK_S)
            if resume_mono > now:
                if self._pause(now):
                    self._loop.call_later(resume_mono - now, self._resume)
            elif self._budget is not None and not self._ignores_budget and self._budget.is_spent() and self._pause(now):
                self._budget.wait(self._resume)

    def _complete(self, reader: ResponseReader, now: float) -> None:
        """End the exchange with a complete response, and close the connection if it cannot be used again."""
        self.end_mono = self.idle_since_mono = now
        self._reader = None
        self.keep_alive_timeout_s = reader.keep_alive_timeout_s
        self.keep_alive_max = reader.keep_alive_max
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
        if reader.extra or self.spoke_first:
            self.abort(CloseReason.UNSOLICITED)
        elif not reader.reusable:
            is_cut = reader.truncated is not None and reader.error_type is None
            reason = CloseReason.UNREAD if is_cut else CloseReason.PROTOCOL_ERROR
            self.abort(CloseReason.SERVER_CLOSE if reader.closes else reason)

    def _fail(self, error: Exception, reason: CloseReason) -> None:
        """End the exchange with an error and close the connection."""
        self.end_mono = self._clock.mono()
        self._reader = None
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(error)
        self.abort(reason)

    def _pause(self, now: float) -> bool:
        """Stop reading: the receive window fills, and the server waits. Returns False if reading was paused already;
        otherwise the caller must have `_resume` called.
        """
        if self._transport is None or self._paused_since_mono:
            return False
        self._paused_since_mono = now
        self._transport.pause_reading()
        return True

    def _resume(self, ignores_budget: bool = False) -> None:
        """Read on. `ignores_budget`: the budget allows it to the end of the response."""
        now = self._clock.mono()
        self._paused_s += now - self._paused_since_mono
        self._last_mono = now
        self._paused_since_mono = 0.0
        if ignores_budget and self._budget is not None:
            if self._waiter is None:  # the exchange ended meanwhile
                self._budget.finished()
            else:
                self._ignores_budget = True
        if self.state is not ConnectionState.CLOSED and self._transport is not None:
            self._transport.resume_reading()
            self._arm_timer(now)

    # -- deadlines: one timer, which is armed again when it fires and not at each read

    def _arm_timer(self, now: float) -> None:
        when, _ = self._deadline()
        if self._timer is not None:
            if self._timer_mono <= when:
                return  # it fires early enough, and computes the deadline again then
            self._timer.cancel()
        self._timer_mono = when
        self._timer = self._loop.call_later(max(when - now, 0.0) + _TIMER_SLACK_S, self._on_timer)

    def _on_timer(self) -> None:
        self._timer = None
        if self._reader is None:
            return
        now = self._clock.mono()
        if self._paused_since_mono:
            self._timer_mono = now + _PAUSED_CHECK_S
            self._timer = self._loop.call_later(_PAUSED_CHECK_S, self._on_timer)
            return
        when, error_type = self._deadline()
        if now >= when:
            waited_s = now - self.sent_mono
            detail = f"{error_type.replace('_', ' ')} after {duration(waited_s)} and {count(self._received, 'byte')}"
            self._fail(ExchangeError(error_type, detail), CloseReason.TIMEOUT)
        else:
            self._arm_timer(now)

    def _deadline(self) -> tuple[float, ErrorType]:
        return next_deadline(
            self._options,
            sent=self.sent_mono,
            first=self.first_mono,
            last=self._last_mono,
            received=self._received,
            paused_s=self._paused_s,
        )

    # -- called by the transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's do not derive from asyncio's
        self._tls = transport if isinstance(transport, TlsStream) else None
        sock = transport.get_extra_info("socket")
        if sock is not None:
            self._poll = select.poll()
            self._poll.register(sock.fileno(), select.POLLIN)

    def eof_received(self) -> None:
        self._eof = True  # returning None lets the transport close itself; `connection_lost` follows
        if self._reader is not None:
            self._stream_ended(None)

    def connection_lost(self, exc: Exception | None) -> None:
        if self.state is not ConnectionState.CLOSED:
            self._stream_ended(exc)
        if not self.gone.done():
            self.gone.set_result(None)

    def _stream_ended(self, error: Exception | None) -> None:
        """End the exchange after the server ended the stream. `error`: a reset, a TLS alert or a damaged record."""
        reader = self._reader
        if reader is None:
            self._end_error = error
            self.abort(CloseReason.SERVER_CLOSE if error is None else CloseReason.RESET)
        elif error is not None:
            self._fail(ExchangeError(stream_error(error), describe(error)), CloseReason.RESET)
        else:
            reader.feed_eof(clean=self._eof)
            error_type = reader.error_type
            if error_type is None:
                self._complete(reader, self._clock.mono())
                self.abort(CloseReason.SERVER_CLOSE)
            else:
                after = f"after {self._received} bytes" if self._received else "before a byte"
                detail = f"the server closed the connection {after} of the response"
                self._fail(ExchangeError(error_type, detail), CloseReason.SERVER_CLOSE)

    # -- closing

    def abort(self, reason: CloseReason) -> None:
        """Close the connection at once, even during an exchange."""
        if self._mark_closed(reason) and self._transport is not None:
            self._transport.abort()

    def close(self, reason: CloseReason) -> None:
        """Close the connection in an orderly way: close_notify is sent, and the peer has a second to respond."""
        if self._mark_closed(reason) and (transport := self._transport) is not None:
            transport.close()
            # uvloop may leave a TLS transport open for ever if the peer does not respond
            backstop = self._loop.call_later(CLOSE_NOTIFY_S, transport.abort)
            self.gone.add_done_callback(lambda _: backstop.cancel())

    def _mark_closed(self, reason: CloseReason) -> bool:
        """Enter the state CLOSED and end the exchange under way. Returns False if the connection was closed before."""
        if self.state is ConnectionState.CLOSED:
            return False
        self.state = ConnectionState.CLOSED
        self.close_reason = reason
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(ExchangeError(ErrorType.RESET, f"this crawler closed it ({reason})"))
        self._reader = None
        self._on_closed(self)
        return True


def next_deadline(
    options: FetchOptions, *, sent: float, first: float, last: float, received: int, paused_s: float
) -> tuple[float, ErrorType]:
    """Compute the next deadline of an exchange, and the error if it passes. Times are monotonic.

    `sent` is when the request was written, `first` when the first byte arrived (0.0: none has), `last` when the latest
    byte arrived, `received` the number of bytes. `paused_s` is the time in which we did not read: it extends deadlines.
    """
    when, error_type = sent + paused_s + options.total_timeout_s, ErrorType.TOTAL_TIMEOUT
    if first == 0.0:
        if sent + options.first_byte_timeout_s < when:
            return sent + options.first_byte_timeout_s, ErrorType.FIRST_BYTE_TIMEOUT
        return when, error_type
    if last + options.read_timeout_s < when:
        when, error_type = last + options.read_timeout_s, ErrorType.READ_TIMEOUT
    if options.min_rate:
        # when the average rate falls below the limit if no other byte comes
        too_slow = first + paused_s + max(options.min_rate_after_s, received / options.min_rate)
        if too_slow < when:
            when, error_type = too_slow, ErrorType.TOO_SLOW
    return when, error_type
