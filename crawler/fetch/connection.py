"""One connection: bytes go out, bytes come in and straight into the response reader, deadlines hold.

It does not know HTTP (`wire` does), when it is lent (`pool`) or what is asked (`fetcher`); what is known of it is in
`standing`. Invariants: it is idle, lent or closed, never two of them; it stays open after an exchange only if the
reader says that the answer was framed strictly and read to its last byte; a byte that nobody asked for closes it, also
one that TLS holds in an unfinished record when the next request is about to leave; so does a cancelled exchange.

What comes before the first request is kept: a server that is overloaded may say so to whoever connects. It is read in
place of the answer, and the request is not written.

How ends are told apart: an orderly end, TLS close_notify or a plain FIN, calls `eof_received` first; a TLS stream cut
without close_notify calls `connection_lost(None)` alone; a reset, an alert or a damaged record brings an error.
"""

import asyncio
import select
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, cast

from crawler.core.clock import Clock
from crawler.core.enums import CloseReason, ErrorType
from crawler.core.formatting import count, duration
from crawler.core.models import Origin
from crawler.fetch.connection_state import ConnectionRecord, ConnectionState
from crawler.fetch.http1.wire import RemoteProtocolError, ResponseReader
from crawler.fetch.limits import Bandwidth, ByteBudget
from crawler.fetch.net.dial import CLOSE_NOTIFY_S
from crawler.fetch.net.errors import ExchangeError, describe
from crawler.fetch.net.tls import stream_error
from crawler.fetch.net.tls_stream import TlsStream
from crawler.fetch.options import KIB, FetchOptions


def next_deadline(
    options: FetchOptions, *, sent: float, first: float, last: float, received: int, held_up_s: float
) -> tuple[float, ErrorType]:
    """The first of the deadlines that hold now, on the monotonic clock, and what missing it is called.

    `sent` is when the request was written, `first` when the first byte came (0.0: none yet), `last` when the latest
    did, `received` how many. `held_up_s` is for how long we did not read: that much is not the server's fault.
    """
    when, error_type = sent + held_up_s + options.total_timeout_s, ErrorType.TOTAL_TIMEOUT
    if first == 0.0:
        if sent + options.first_byte_timeout_s < when:
            return sent + options.first_byte_timeout_s, ErrorType.FIRST_BYTE_TIMEOUT
        return when, error_type
    if last + options.read_timeout_s < when:
        when, error_type = last + options.read_timeout_s, ErrorType.READ_TIMEOUT
    if options.min_rate:
        # the moment the average falls below the limit if not a byte more comes
        too_slow = first + held_up_s + max(options.min_rate_after_s, received / options.min_rate)
        if too_slow < when:
            when, error_type = too_slow, ErrorType.TOO_SLOW
    return when, error_type


_TIMER_SLACK_S: Final = 0.001  # uvloop's timers run on whole milliseconds and may come that much early
# A body in chunks of a few bytes costs a hundred times what its bytes would. A read of more than so many is followed by
# a rest of ten times what they took: such a server gets a tenth of the loop's time, and others' answers go first.
_MANY_PIECES: Final = 1_000
_REST_A_PIECE_S: Final = 4e-6
_MOST_HEARD: Final = 256 * KIB  # of what comes before the first request; it is one read, or a few
_PAUSED_LOOK_S: Final = 1.0  # when the deadlines of an exchange are looked at again that we ourselves hold up


@dataclass(frozen=True, slots=True)
class Exchange:
    """A request under way: on which connection, its how manyth, since when, and what has come back so far."""

    conn_id: int
    request_n: int
    sent_mono: float
    received_bytes: int


class Connection(ConnectionRecord, asyncio.Protocol):
    """A stream to one origin. `on_closed` is called once, at the moment it is closed or lost."""

    __slots__ = ("_bandwidth", "_budget", "_clock", "_end_error", "_eof", "_finishes", "_gone", "_held_up_s",
                 "_last_mono", "_loop", "_on_closed", "_paused_mono", "_poll", "_reader", "_timer", "_timer_mono",
                 "_tls", "_transport", "_waiter")  # fmt: skip

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
        super().__init__(id, origin, options, clock)
        self._clock = clock
        self._on_closed = on_closed
        self._budget = budget
        self._bandwidth = bandwidth
        self._loop = asyncio.get_running_loop()
        self._gone: asyncio.Future[None] = self._loop.create_future()
        self._transport: asyncio.Transport | None = None
        self._tls: TlsStream | None = None
        self._poll: select.poll | None = None
        self._reader: ResponseReader | None = None
        self._waiter: asyncio.Future[Exception | None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._timer_mono = 0.0
        self._last_mono = 0.0
        self._paused_mono = 0.0  # since when we have not been reading; 0.0: we are
        self._held_up_s = 0.0  # how long of this exchange we did not read: not the server's fault
        self._finishes = False  # let on by the budget to read this body to its end
        self._eof = False
        self._end_error: Exception | None = None  # what ended it, if that was no order

    def exchange_now(self) -> Exchange | None:
        """The exchange under way, if there is one."""
        if self._waiter is None:
            return None
        return Exchange(self.id, self.requests, self.sent_mono, self._received)

    # -- one exchange

    async def exchange(self, request: bytes, reader: ResponseReader) -> None:
        """Send a request and feed the answer to `reader` until it is complete.

        Afterwards the connection is open if it can serve another request, else closed. Raises ExchangeError if the
        answer did not come whole (what came is in `reader`), and whatever the reader's sink raised. Where the server
        spoke first, what it said is read instead, nothing is sent, and `spoke_first` is set.
        """
        self._received = 0
        if self._something_is_there():
            await asyncio.sleep(0)  # what came and was not read yet: let the loop read it, it may close us
            await asyncio.sleep(0)
        if self._tls is not None and self._tls.is_mid_record and not self._early:
            self.abort(CloseReason.UNSOLICITED)
        self._held_up_s = self.first_mono = 0.0
        self.sent_mono = self._last_mono = self.end_mono = now = self._clock.mono()
        self.requests += 1
        transport = self._transport
        if not self._early and (self.state is not ConnectionState.LENT or transport is None):
            raise ExchangeError(ErrorType.SERVER_CLOSED, f"closed before the request was written ({self.close_reason})")
        # an error is this future's result, not its exception: nobody may be left to retrieve it
        waiter: asyncio.Future[Exception | None] = self._loop.create_future()
        self._waiter = waiter
        self._reader = reader
        if self._early:
            self._hear(now)
        else:
            assert transport is not None
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

    def _hear(self, now: float) -> None:
        """Read what the server said before it was asked, and what else it says until that has ended."""
        early, self._early = self._early, b""
        self.spoke_first = True
        is_open = self.is_open
        if is_open:
            self._arm(now)
        self.bytes_received -= len(early)
        self.data_received(early)
        if self._reader is not None and not is_open:
            self._ended(self._end_error)

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
            if self.state is ConnectionState.LENT and not self.requests and len(self._early) < _MOST_HEARD:
                self._early += data
            elif (
                self.state is not ConnectionState.CLOSED
            ):  # idle, or lent with no request under way: nobody asked for this
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
        if reader.extra or self.spoke_first:
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
        if self.state is not ConnectionState.CLOSED and self._transport is not None:
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
            detail = f"{error_type.replace('_', ' ')} after {duration(waited_s)} and {count(self._received, 'byte')}"
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
        self._tls = transport if isinstance(transport, TlsStream) else None
        sock = transport.get_extra_info("socket")
        if sock is not None:
            self._poll = select.poll()
            self._poll.register(sock.fileno(), select.POLLIN)

    def eof_received(self) -> None:
        self._eof = True  # None lets the transport close itself; `connection_lost` follows
        if self._reader is not None:
            self._ended(None)

    def connection_lost(self, exc: Exception | None) -> None:
        if self.state is not ConnectionState.CLOSED:
            self._ended(exc)
        if not self._gone.done():
            self._gone.set_result(None)

    def _ended(self, error: Exception | None) -> None:
        """The server ended the stream, in order, cut off, or by a reset, an alert or a damaged record."""
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
