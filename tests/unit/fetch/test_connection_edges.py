"""Rare events of a connection over a transport that only records calls, and the next deadline of an exchange."""

import asyncio

import pytest

from crawler.core.enums import CloseReason, ErrorType
from crawler.core.models import Origin, Timings
from crawler.fetch.connection import Connection, Exchange, next_deadline
from crawler.fetch.http1.wire import ResponseReader
from crawler.fetch.net.dial import Dialled
from crawler.fetch.net.errors import DialError, ExchangeError
from crawler.fetch.options import FetchOptions
from crawler.fetch.pool import Pool, PoolClosed
from crawler.fetch.spool import BodySink
from tests.support.fetching import FakeClock, FakeDialer, RecordingTransport

A = Origin("https", "a.test", 443)
RESPONSE = b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx"
TINY_CHUNKS = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + b"1\r\nx\r\n" * 2_000


class FakeTransport(RecordingTransport):
    def write(self, data):
        self.calls.append(data)

    def pause_reading(self):
        self.calls.append("pause")

    def resume_reading(self):
        self.calls.append("resume")


class RunningExchange:
    """A lent connection with a request under way."""

    def __init__(self):
        self.clock = FakeClock()
        self.connection = Connection(7, A, options=FetchOptions(), clock=self.clock, on_closed=lambda connection: None)
        self.transport = FakeTransport(self.connection)
        self.connection.connection_made(self.transport)
        self.connection.dialled = Dialled("192.0.2.1", 443, Timings(), "1.3", False, None)
        self.reader = ResponseReader(FetchOptions(), BodySink(1 << 20))
        self.task = asyncio.ensure_future(self.connection.exchange(b"GET", self.reader))


@pytest.fixture
async def running():
    made = RunningExchange()
    await asyncio.sleep(0)
    assert made.transport.calls == [b"GET"]
    yield made
    made.connection.abort(CloseReason.SHUTDOWN)
    await asyncio.gather(made.task, return_exceptions=True)


@pytest.mark.parametrize("data", [RESPONSE, b"SSH-2.0"], ids=["response", "garbage"])
async def test_a_response_that_arrives_with_a_cancellation_is_dropped(running, data):
    """The exchange ends as cancelled, and the connection is closed."""
    running.task.cancel()
    running.connection.data_received(data)
    with pytest.raises(asyncio.CancelledError):
        await running.task
    assert not running.connection.is_open


async def test_bytes_after_the_close_are_ignored(running):
    """A transport may still deliver what it had read."""
    running.connection.abort(CloseReason.BLOCKED)
    running.connection.data_received(RESPONSE)
    assert running.connection.close_reason is CloseReason.BLOCKED
    with pytest.raises(ExchangeError, match=r"this crawler closed it \(blocked\)") as caught:
        await running.task
    assert caught.value.error_type is ErrorType.RESET


async def test_a_timer_left_over_from_an_exchange_does_nothing(running):
    """It fires after the response: no exchange is under way that could be late."""
    running.connection.data_received(RESPONSE)
    await running.task
    running.clock.time += 10_000
    running.connection._on_timer()
    assert running.connection.is_open


async def test_a_read_that_comes_while_reading_is_paused_pauses_it_once(running):
    """A transport may deliver one more read: there is one pause, and one end of it."""
    running.connection.data_received(TINY_CHUNKS)
    running.connection.data_received(b"1\r\nx\r\n" * 2_000)
    assert running.transport.calls == [b"GET", "pause"]
    running.connection._resume()
    assert running.transport.calls == [b"GET", "pause", "resume"]


async def test_reading_is_not_resumed_on_a_closed_connection(running):
    """The pause after an expensive read may end later than the connection."""
    running.connection.data_received(TINY_CHUNKS)
    running.connection.abort(CloseReason.TIMEOUT)
    running.connection._resume()
    assert "resume" not in running.transport.calls


async def test_a_request_under_way_can_be_looked_at(running):
    """Its connection, its number there and the bytes received; None after the response."""
    running.connection.data_received(RESPONSE[:10])
    assert running.connection.current_exchange == Exchange(7, 1, 10)
    running.connection.data_received(RESPONSE[10:])
    await running.task
    assert running.connection.current_exchange is None


async def test_a_connection_that_was_never_made_sends_nothing():
    """There is no transport to write a request to."""
    connection = Connection(1, A, options=FetchOptions(), clock=FakeClock(), on_closed=lambda connection: None)
    with pytest.raises(ExchangeError, match="closed before the request was written"):
        await connection.exchange(b"GET", ResponseReader(FetchOptions(), BodySink(1)))


@pytest.mark.parametrize(
    ("error", "word"), [(None, ErrorType.TRUNCATED), (ConnectionResetError("reset"), ErrorType.RESET)]
)
async def test_half_a_response_before_the_first_request_fails_it(error, word):
    """The server began a response and closed: the request is not written, and fails with that error."""
    connection = Connection(1, A, options=FetchOptions(), clock=FakeClock(), on_closed=lambda connection: None)
    wire = FakeTransport(connection)
    connection.connection_made(wire)
    connection.data_received(RESPONSE[:-1])
    connection.connection_lost(error)
    reader = ResponseReader(FetchOptions(), BodySink(1 << 20))
    with pytest.raises(ExchangeError) as caught:
        await connection.exchange(b"GET", reader)
    assert caught.value.error_type is word
    assert b"GET" not in wire.calls
    assert (connection.spoke_first, reader.head.status_code) == (True, 200)


async def test_a_connection_dialled_for_a_closed_pool_is_closed():
    """A connection that opens after the close is closed at once; another request is refused."""
    dialing = FakeDialer()
    pool = Pool(dialer=dialing, options=FetchOptions(), clock=FakeClock())
    dialing.gate = asyncio.Event()
    lending = asyncio.ensure_future(pool.acquire(A))
    await asyncio.sleep(0)
    assert pool.stats().opening == 1
    await pool.close()
    dialing.gate.set()
    connection = await lending
    assert connection.close_reason is CloseReason.SHUTDOWN
    assert pool.next_id == 2
    pool.release(connection)
    with pytest.raises(PoolClosed):
        await pool.acquire(A)
    assert not isinstance(PoolClosed(), DialError)


async def test_blocked_origins_are_cut_and_others_are_not():
    """Lent and idle connections are closed, and their number is returned."""
    pool = Pool(dialer=FakeDialer(), options=FetchOptions(), clock=FakeClock(), connections_per_host=2)
    b = Origin("https", "b.test", 443)
    lent, idle, other = await pool.acquire(A), await pool.acquire(A), await pool.acquire(b)
    pool.release(idle)
    assert pool.exchanges() == {}
    assert pool.cut(lambda origin: origin == A) == 2
    assert (lent.close_reason, idle.close_reason, other.is_open) == (CloseReason.BLOCKED, CloseReason.BLOCKED, True)
    pool.release(lent)
    pool.release(other)
    pool.close_idle()
    assert other.close_reason is CloseReason.EVICTED
    await pool.close()


# -- deadlines

DEFAULT_TIMES = FetchOptions(first_byte_timeout_s=30, read_timeout_s=20, total_timeout_s=600, min_rate=None)
WITH_RATE = FetchOptions(read_timeout_s=1000, total_timeout_s=6000, min_rate=100, min_rate_after_s=10)
SHORT_TOTAL = FetchOptions(first_byte_timeout_s=30, read_timeout_s=20, total_timeout_s=5)


@pytest.mark.parametrize(
    ("options", "at", "expected"),
    [
        (DEFAULT_TIMES, {}, (130, ErrorType.FIRST_BYTE_TIMEOUT)),
        (DEFAULT_TIMES, {"first": 110, "last": 115, "received": 1}, (135, ErrorType.READ_TIMEOUT)),
        (DEFAULT_TIMES, {"first": 110, "last": 695, "received": 1}, (700, ErrorType.TOTAL_TIMEOUT)),
        (DEFAULT_TIMES, {"first": 110, "last": 695, "received": 1, "paused_s": 50}, (715, ErrorType.READ_TIMEOUT)),
        (SHORT_TOTAL, {}, (105, ErrorType.TOTAL_TIMEOUT)),
        (WITH_RATE, {"first": 110, "last": 111, "received": 5}, (120, ErrorType.TOO_SLOW)),
        (WITH_RATE, {"first": 110, "last": 111, "received": 5_000}, (160, ErrorType.TOO_SLOW)),
        (WITH_RATE, {"first": 110, "last": 111, "received": 5_000, "paused_s": 7}, (167, ErrorType.TOO_SLOW)),
    ],
)
def test_the_nearest_deadline_counts(options, at, expected):
    """For a request sent at 100: when it fails if nothing more comes, and with which error type."""
    state = {"first": 0.0, "last": 100.0, "received": 0, "paused_s": 0.0} | at
    assert next_deadline(options, sent=100.0, **state) == expected
