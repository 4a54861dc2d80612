"""One connection: bytes go out, bytes come in and straight into the response reader, deadlines hold.

It does not know HTTP (`wire` does), when it is lent (`pool`) or what is asked (`fetcher`). Invariants: it is idle, lent
or closed, never two of them; it stays open after an exchange only if the reader says that the answer was framed
strictly and read to its last byte; a byte that nobody asked for closes it; so does a cancelled exchange.

How ends are told apart (CPython 3.11 and uvloop 0.23 alike): an orderly end, TLS close_notify or a plain FIN, calls
`eof_received` first; a TLS stream cut without close_notify calls `connection_lost(None)` alone; a reset brings an
error.
"""

import asyncio
import select
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, cast

from crawler.core.clock import Clock
from crawler.core.values import ConnectionInfo, Origin, Timings
from crawler.core.vocabulary import CloseReason, ErrorType
from crawler.fetch.bandwidth import Bandwidth
from crawler.fetch.budget import ByteBudget
from crawler.fetch.deadlines import next_deadline
from crawler.fetch.dial import CLOSE_NOTIFY_S, Dialled
from crawler.fetch.errors import ExchangeError, describe
from crawler.fetch.options import FetchOptions
from crawler.fetch.wire import RemoteProtocolError, ResponseReader

_TIMER_SLACK_S: Final = 0.001  # uvloop's timers run on whole milliseconds and may come that much early
# A body in chunks of a few bytes costs a hundred times what its bytes would. A read of more than so many is followed by
# a rest of ten times what they took: such a server gets a tenth of the loop's time, and others' answers go first.
_MANY_PIECES: Final = 1_000
_REST_A_PIECE_S: Final = 4e-6
_PAUSED_LOOK_S: Final = 1.0  # when the deadlines of an exchange are looked at again that we ourselves hold up


class State(StrEnum):
    """Where a connection stands."""

    IDLE = "idle"
    LENT = "lent"
    CLOSED = "closed"


@dataclass(frozen=True, slots=True)
class Exchange:
    """A request under way: on which connection, its how manyth, since when, and what has come back so far."""

    conn_id: int
    request_n: int
    sent_mono: float
    received_bytes: int


class Connection(asyncio.Protocol):
    """A stream to one origin. It is born lent; `on_closed` is called once, at the moment it is closed or lost.

    After an exchange, `sent_mono`, `first_mono` and `end_mono` say when the request had been written, the first byte
    came (0.0: none did) and the exchange ended.
    """

    __slots__ = ("_bandwidth", "_budget", "_clock", "_dialled", "_eof", "_finishes", "_gone", "_held_up_s",
                 "_last_mono", "_loop", "_on_closed", "_options", "_paused_mono", "_poll", "_reader", "_received",
                 "_timer", "_timer_mono", "_transport", "_waiter", "bytes_received", "close_reason", "end_mono",
                 "first_mono", "id", "idle_since_mono", "keep_alive_max", "keep_alive_timeout_s", "opened_mono",
                 "origin", "requests", "requests_booked", "sent_mono", "state")  # fmt: skip

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
        self.state = State.LENT
        self.close_reason: CloseReason | None = None
        self.requests = 0
        self.requests_booked = 0  # the pool's note of how many it has counted
        self.bytes_received = 0
        self.opened_mono = self.idle_since_mono = clock.mono()
        self.sent_mono = self.first_mono = self.end_mono = 0.0
        self.keep_alive_timeout_s: float | None = None
        self.keep_alive_max: int | None = None
        self._options = options
        self._clock = clock
        self._on_closed = on_closed
        self._budget = budget
        self._bandwidth = bandwidth
        self._loop = asyncio.get_running_loop()
        self._gone: asyncio.Future[None] = self._loop.create_future()
        self._transport: asyncio.Transport | None = None
        self._poll: select.poll | None = None
        self._dialled: Dialled | None = None
        self._reader: ResponseReader | None = None
        self._waiter: asyncio.Future[Exception | None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._timer_mono = 0.0
        self._last_mono = 0.0
        self._received = 0
        self._paused_mono = 0.0  # since when we have not been reading; 0.0: we are
        self._held_up_s = 0.0  # how long of this exchange we did not read: not the server's fault
        self._finishes = False  # let on by the budget to read this body to its end
        self._eof = False

    # -- what it is

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

    def exchange_now(self) -> Exchange | None:
        """The exchange under way, if there is one."""
        if self._waiter is None:
            return None
        return Exchange(self.id, self.requests, self.sent_mono, self._received)

    @property
    def is_open(self) -> bool:
        return self.state is not State.CLOSED

    @property
    def is_idle(self) -> bool:
        return self.state is State.IDLE

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
        limit = self._options.max_requests_per_connection
        if limit is not None and self.requests >= limit:
            return CloseReason.MAX_REQUESTS
        if self.keep_alive_max is not None and self.keep_alive_max <= 0:
            return CloseReason.SERVER_CLOSE
        return None

    def __repr__(self) -> str:
        reason = f" ({self.close_reason})" if self.close_reason is not None else ""
        return f"<Connection {self.id} {self.origin} {self.state}{reason}, requests: {self.requests}>"

    # -- one exchange

    async def exchange(self, request: bytes, reader: ResponseReader) -> None:
        """Send a request and feed the answer to `reader` until it is complete.

        Afterwards the connection is open if it can serve another request, else closed. Raises ExchangeError if the
        answer did not come whole (what came is in `reader`), and whatever the reader's sink raised.
        """
        self._received = 0
        if self.requests and self._something_is_there():
            await asyncio.sleep(0)  # what came and was not read yet: let the loop read it, it may close us
            await asyncio.sleep(0)
        self._held_up_s = self.first_mono = 0.0
        self.sent_mono = self._last_mono = self.end_mono = now = self._clock.mono()
        self.requests += 1
        transport = self._transport
        if self.state is not State.LENT or transport is None:
            raise ExchangeError(ErrorType.SERVER_CLOSED, f"closed before the request was written ({self.close_reason})")
        # an error is this future's result, not its exception: nobody may be left to retrieve it
        waiter: asyncio.Future[Exception | None] = self._loop.create_future()
        self._waiter = waiter
        self._reader = reader
        self._arm(now)
        transport.write(request)
        try:
            error = await waiter
        except asyncio.CancelledError:
            self.abort(CloseReason.SHUTDOWN)
            raise
        finally:
            self._waiter = None
            self._reader = None
            if self._finishes and self._budget is not None:
                self._finishes = False
                self._budget.finished()
        if error is not None:
            raise error

    def _something_is_there(self) -> bool:
        """Whether the kernel holds bytes, or an end, that the loop has not handed over. They came before the request
        that is about to be written, so they cannot be its answer. Costs a microsecond.
        """
        return self._poll is not None and bool(self._poll.poll(0))

    def data_received(self, data: bytes) -> None:
        size = len(data)
        self.bytes_received += size
        reader = self._reader
        if reader is None:
            if self.state is not State.CLOSED:  # idle, or lent with no request under way: nobody asked for this
                self.abort(CloseReason.UNSOLICITED)
            return
        self._last_mono = now = self._clock.mono()
        read_on_mono = 0.0 if self._bandwidth is None else self._bandwidth.spend(self.origin.host, size, now)
        is_first = not self._received
        if is_first:
            self.first_mono = now
        self._received += size
        try:
            reader.feed(data)
        except RemoteProtocolError as error:
            self._fail(ExchangeError(ErrorType.PROTOCOL_ERROR, describe(error)), CloseReason.PROTOCOL_ERROR)
        except Exception as error:  # the sink's, or a bug: it belongs to who awaits the exchange
            self._fail(error, CloseReason.SHUTDOWN)
        else:
            if reader.complete:
                self._complete(reader, now)
                return
            if is_first:
                self._arm(now)  # from here on other deadlines hold, which may be nearer
            if reader.pieces > _MANY_PIECES:
                read_on_mono = max(read_on_mono, now + reader.pieces * _REST_A_PIECE_S)
            if read_on_mono > now:
                if self._pause(now):
                    self._loop.call_later(read_on_mono - now, self._resume)
            elif self._budget is not None and not self._finishes and self._budget.is_spent() and self._pause(now):
                self._budget.wait(self._resume)

    def _complete(self, reader: ResponseReader, now: float) -> None:
        """The last byte was read: decide whether the connection lives, then let the exchange return."""
        self.end_mono = self.idle_since_mono = now
        self._reader = None
        self.keep_alive_timeout_s = reader.keep_alive_timeout_s
        self.keep_alive_max = reader.keep_alive_max
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
        if reader.extra:
            self.abort(CloseReason.UNSOLICITED)
        elif not reader.reusable:
            unread = reader.truncated is not None and reader.error_type is None
            reason = CloseReason.UNREAD if unread else CloseReason.PROTOCOL_ERROR
            self.abort(CloseReason.SERVER_CLOSE if reader.closes else reason)

    def _fail(self, error: Exception, reason: CloseReason) -> None:
        self.end_mono = self._clock.mono()
        self._reader = None
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(error)
        self.abort(reason)

    def _pause(self, now: float) -> bool:
        """Stop reading, and see to it that `_resume` is called; the server meets a full window. False: it is paused
        already.
        """
        if self._transport is None or self._paused_mono:
            return False
        self._paused_mono = now
        self._transport.pause_reading()
        return True

    def _resume(self, finishes: bool = False) -> None:
        now = self._clock.mono()
        self._held_up_s += now - self._paused_mono
        self._last_mono = now
        self._paused_mono = 0.0
        if finishes and self._budget is not None:
            if self._waiter is None:  # the exchange ended meanwhile
                self._budget.finished()
            else:
                self._finishes = True
        if self.state is not State.CLOSED and self._transport is not None:
            self._transport.resume_reading()
            self._arm(now)

    # -- deadlines: one timer a connection, re-armed when it fires and not when bytes come

    def _arm(self, now: float) -> None:
        when, _ = self._deadline()
        if self._timer is not None:
            if self._timer_mono <= when:
                return  # it fires early enough, and looks again then
            self._timer.cancel()
        self._timer_mono = when
        self._timer = self._loop.call_later(max(when - now, 0.0) + _TIMER_SLACK_S, self._on_timer)

    def _on_timer(self) -> None:
        self._timer = None
        if self._reader is None:
            return
        now = self._clock.mono()
        if self._paused_mono:
            self._timer_mono = now + _PAUSED_LOOK_S
            self._timer = self._loop.call_later(_PAUSED_LOOK_S, self._on_timer)
            return
        when, error_type = self._deadline()
        if now >= when:
            waited_s = now - self.sent_mono
            detail = f"{error_type.replace('_', ' ')} after {waited_s:.1f} s and {self._received} bytes"
            self._fail(ExchangeError(error_type, detail), CloseReason.TIMEOUT)
        else:
            self._arm(now)

    def _deadline(self) -> tuple[float, ErrorType]:
        return next_deadline(
            self._options,
            sent=self.sent_mono,
            first=self.first_mono,
            last=self._last_mono,
            received=self._received,
            held_up_s=self._held_up_s,
        )

    # -- the transport's end

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's do not derive from asyncio's
        sock = transport.get_extra_info("socket")
        if sock is not None:
            self._poll = select.poll()
            self._poll.register(sock.fileno(), select.POLLIN)

    def eof_received(self) -> None:
        self._eof = True  # None lets the transport close itself; `connection_lost` follows
        if self._reader is not None:
            self._ended(None)

    def connection_lost(self, exc: Exception | None) -> None:
        if self.state is not State.CLOSED:
            self._ended(exc)
        if not self._gone.done():
            self._gone.set_result(None)

    def _ended(self, error: Exception | None) -> None:
        """The server ended the stream, in order, cut off, or by a reset."""
        reader = self._reader
        if reader is None:
            self.abort(CloseReason.SERVER_CLOSE if error is None else CloseReason.RESET)
        elif error is not None:
            self._fail(ExchangeError(ErrorType.RESET, describe(error)), CloseReason.RESET)
        else:
            reader.feed_eof(clean=self._eof)
            error_type = reader.error_type
            if error_type is None:
                self._complete(reader, self._clock.mono())
                self.abort(CloseReason.SERVER_CLOSE)
            else:
                after = f"after {self._received} bytes" if self._received else "before a byte"
                detail = f"the server closed the connection {after} of the answer"
                self._fail(ExchangeError(error_type, detail), CloseReason.SERVER_CLOSE)

    # -- closing

    def abort(self, reason: CloseReason) -> None:
        """Close at once, whatever is under way: after the last byte, and after any fault."""
        if self._mark_closed(reason) and self._transport is not None:
            self._transport.abort()

    def close(self, reason: CloseReason) -> None:
        """Close in order, as one does while idle: close_notify is sent, and the peer given a second to answer it."""
        if self._mark_closed(reason) and (transport := self._transport) is not None:
            transport.close()
            # uvloop may leave a TLS transport open for ever when the peer does not answer
            backstop = self._loop.call_later(CLOSE_NOTIFY_S, transport.abort)
            self._gone.add_done_callback(lambda _: backstop.cancel())

    def when_gone(self, call: Callable[["Connection"], None]) -> None:
        """Have `call` called, with this connection, once its transport is gone."""
        self._gone.add_done_callback(lambda _: call(self))

    async def wait_closed(self) -> None:
        """Until the transport of a closed connection is gone."""
        if self._transport is not None:
            await asyncio.shield(self._gone)

    def _mark_closed(self, reason: CloseReason) -> bool:
        if self.state is State.CLOSED:
            return False
        self.state = State.CLOSED
        self.close_reason = reason
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(ExchangeError(ErrorType.RESET, f"this crawler closed it ({reason})"))
        self._reader = None
        self._on_closed(self)
        return True
