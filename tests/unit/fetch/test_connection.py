"""One connection: what keeps it open, what closes it, and each deadline."""

import asyncio
import contextlib
import gc
import os

import pytest

from crawler.core.enums import ErrorType, TruncatedReason
from crawler.core.models import Failed, Fetched
from crawler.fetch.limits import ByteBudget
from crawler.fetch.options import FetchOptions
from tests.support.fetching import client, until
from tests.support.scripted_server import Certificates, chunked, ok, serve, table

pytestmark = pytest.mark.parametrize("scheme", ["https", "http"])


@pytest.fixture(scope="module")
def certificates(tmp_path_factory):
    return Certificates(tmp_path_factory.mktemp("ca"))


@pytest.fixture(scope="module")
def tls(certificates):
    return certificates.server("a.test")


@pytest.fixture
def site(scheme, tls, certificates):
    """Start a server and a client that trusts it: `async with site(script) as (server, client, url)`."""

    @contextlib.asynccontextmanager
    async def start(script, **options):
        async with (
            serve(script, tls=tls if scheme == "https" else None) as server,
            client(ca_file=certificates.ca_file, **options) as c,
        ):
            yield server, c, f"{scheme}://a.test:{server.port}"

    return start


async def test_a_connection_serves_several_requests(site):
    """Requests in sequence share a connection and are numbered; only the first has the time of opening it."""
    async with site(table({"/a": ok(b"A"), "/b": chunked(b"B", b"B"), "/c": ok(b"")})) as (server, c, url):
        results = [await c.get(url + path) for path in ("/a", "/b", "/c")]
        assert [r.payload.prefix(9) for r in results] == [b"A", b"BB", b""]
        assert results[1].raw_body.prefix(99) == b"1\r\nB\r\n1\r\nB\r\n0\r\n\r\n"
        assert [(r.connection.id, r.connection.request_n) for r in results] == [(1, 1), (1, 2), (1, 3)]
        assert [r.timings.connect_s > 0 for r in results] == [True, False, False]
        assert all(r.timings.first_byte_s > 0 for r in results)
        assert len(server.accepted) == 1
        assert c.address_limiter.is_balanced
        stats = c.pool.stats()
        assert (stats.opened, stats.requests, stats.idle, stats.open) == (1, 3, 1, 1)


@pytest.mark.parametrize("size", [1, 100_000])
async def test_bodies_arrive_whole_however_they_are_split(site, size):
    """Byte by byte or at once, the body is the same and the connection stays open."""
    body = bytes(range(256)) * (size // 256 + 1)
    answer = ok(body[:size])

    async def dribble(a):
        while await a.request():
            head, _, rest = answer.partition(b"\r\n\r\n")
            await a.send(*(bytes([byte]) for byte in head), b"\r\n", b"\r\n", rest[:1], rest[1:])

    async with site(dribble) as (server, c, url):
        for _ in range(2):
            assert (await c.get(url + "/")).payload.prefix(1 << 20) == body[:size]
        assert len(server.accepted) == 1


@pytest.mark.parametrize("pieces", [(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nEVIL",), (b"x",)])
async def test_a_byte_on_an_idle_connection_closes_it(site, pieces):
    """An unsolicited response is never taken for the response to the next request."""
    push = asyncio.Event()

    async def script(a):
        while path := await a.request():
            await a.send(ok(path.encode()))
            if path == "/1":
                await push.wait()
                await a.send(*pieces)

    async with site(script) as (_, c, url):
        assert (await c.get(url + "/1")).payload.prefix(9) == b"/1"
        push.set()
        await until(lambda: c.pool.stats().open == 0)
        assert c.closings() == ["unsolicited"]
        second = await c.get(url + "/2")
        assert second.payload.prefix(9) == b"/2"
        assert second.connection.id == 2


async def test_bytes_from_before_a_request_are_not_its_response(site):
    """Bytes that only the kernel has yet close the connection too, and the request is resent."""
    async with site(table({"/1": ok(b"one"), "/2": ok(b"two")})) as (server, c, url):
        assert (await c.get(url + "/1")).payload.prefix(9) == b"one"
        os.write(server.accepted[0].writer.get_extra_info("socket").fileno(), ok(b"EVIL"))
        second = await c.get(url + "/2")
        assert second.payload.prefix(9) == b"two"
        assert (second.connection.id, second.resend_count) == (2, 1)
        assert server.accepted[0].paths == ["/1"]


async def test_bytes_after_the_body_close_the_connection(site):
    """The response counts; the bytes after it are never read as another response."""
    extra = ok(b"hello") + ok(b"EVIL")
    async with site(table({"/1": extra, "/2": ok(b"two")})) as (server, c, url):
        assert (await c.get(url + "/1")).payload.prefix(9) == b"hello"
        assert (await c.get(url + "/2")).payload.prefix(9) == b"two"
        assert len(server.accepted) == 2
        assert c.closings() == ["unsolicited"]


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (ok(b"x", "Connection: close"), "server_close"),
        (b"HTTP/1.0 200 OK\r\nContent-Length: 1\r\n\r\nx", "server_close"),
        (b"HTTP/1.1 200 OK\nContent-Length: 1\n\nx", "protocol_error"),
        (ok(b"x", "Keep-Alive: max=0"), "server_close"),
    ],
)
async def test_a_connection_is_not_used_again_if_the_response_forbids_it(site, answer, reason):
    """Announced closes and lenient framing close the connection although the response is good."""
    async with site(table({"/": answer})) as (server, c, url):
        for _ in range(2):
            result = await c.get(url + "/")
            assert isinstance(result, Fetched)
            assert result.payload.prefix(9) == b"x"
        assert len(server.accepted) == 2
        assert c.closings() == [reason, reason]


async def test_a_body_ended_by_an_orderly_close_is_whole(site):
    """Without length and chunks, close_notify (without TLS: FIN) is the end."""

    async def script(a):
        await a.request()
        await a.send(b"HTTP/1.1 200 OK\r\n\r\nto the end")

    async with site(script) as (_, c, url):
        result = await c.get(url + "/")
        assert result.payload.prefix(99) == b"to the end"
        assert result.truncated is None
        assert c.closings() == ["server_close"]


async def test_a_body_ended_without_close_notify_is_truncated(site, scheme):
    """Under TLS a FIN alone may be an attacker's: what came is kept and marked."""

    async def script(a):
        await a.request()
        await a.send(b"HTTP/1.1 200 OK\r\n\r\nto the en")
        await a.cut()

    async with site(script) as (_, c, url):
        result = await c.get(url + "/")
        assert isinstance(result, Fetched)
        assert result.payload.prefix(99) == b"to the en"
        expected = (TruncatedReason.DISCONNECT, ErrorType.TRUNCATED) if scheme == "https" else (None, None)
        assert (result.truncated, result.error_type) == expected


@pytest.mark.parametrize("how", ["close", "cut", "reset"])
async def test_a_body_that_ends_early_is_kept(site, how):
    """A body with fewer bytes than announced is truncated or reset, and the connection is closed."""

    async def script(a):
        await a.request()
        await a.send(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf")
        if how == "cut":
            await a.cut()
        elif how == "reset":
            await half_read.wait()
            await a.reset()

    half_read = asyncio.Event()
    async with site(script) as (_, c, url):
        fetching = asyncio.ensure_future(c.get(url + "/"))
        if how == "reset":  # a reset may overtake what was sent: wait until it was read
            await until(lambda: any(k.bytes_received == 43 for k in c.pool._connections))
            half_read.set()
        result = await fetching
        assert isinstance(result, Fetched)
        assert result.payload.prefix(99) == b"half"
        assert result.truncated is TruncatedReason.DISCONNECT
        assert result.error_type is (ErrorType.RESET if how == "reset" else ErrorType.TRUNCATED)
        assert c.closings() == ["reset" if how == "reset" else "server_close"]
        assert c.pool._slots == {}


@pytest.mark.parametrize(
    ("answer", "word"),
    [
        (b"SSH-2.0-OpenSSH_9.2\r\n", ErrorType.PROTOCOL_ERROR),
        (b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n", ErrorType.PROTOCOL_ERROR),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n", ErrorType.PROTOCOL_ERROR),
        (b"HTTP/1.1 200 OK\r\nContent-Le", ErrorType.TRUNCATED),
        (b"", ErrorType.SERVER_CLOSED),
    ],
)
async def test_invalid_responses_fail(site, answer, word):
    """Garbage, impossible framing, half a head and an early close have an error type each; none is resent."""

    async def script(a):
        await a.request()
        await a.send(answer)

    async with site(script) as (server, c, url):
        result = await c.get(url + "/")
        assert isinstance(result, Failed)
        assert result.error_type is word
        assert result.connection.request_n == 1
        assert result.resend_count == 0
        assert len(server.requests) == 1
        assert c.pool.stats().open == 0


def silence(a):
    return a.client_closed()


async def first_byte_only(a):
    await a.send(b"H")
    await a.client_closed()


async def half_a_body(a):
    await a.send(b"HTTP/1.1 200 OK\r\nContent-Length: 9999\r\n\r\nhalf")
    await a.client_closed()


async def dripping(a):
    await a.send(b"HTTP/1.1 200 OK\r\nContent-Length: 9999\r\n\r\n")
    while not a.writer.transport.is_closing():
        await a.send(b"x")
        await asyncio.sleep(0.01)  # the case itself: a byte every now and then


DEADLINES = [
    (silence, {"first_byte_timeout_s": 0.05}, ErrorType.FIRST_BYTE_TIMEOUT, None),
    (silence, {"total_timeout_s": 0.05}, ErrorType.TOTAL_TIMEOUT, None),
    (first_byte_only, {"read_timeout_s": 0.05}, ErrorType.READ_TIMEOUT, None),
    (half_a_body, {"read_timeout_s": 0.05}, ErrorType.READ_TIMEOUT, TruncatedReason.TIME),
    (dripping, {"read_timeout_s": 5.0, "total_timeout_s": 0.1}, ErrorType.TOTAL_TIMEOUT, TruncatedReason.TIME),
    (dripping, {"min_rate": 10_000, "min_rate_after_s": 0.05}, ErrorType.TOO_SLOW, TruncatedReason.TIME),
]


@pytest.mark.parametrize(("answer", "options", "word", "truncated"), DEADLINES)
async def test_every_deadline_has_its_error_type(site, answer, options, word, truncated):
    """First byte, read, total and rate: each ends the exchange and closes the connection; what came is kept."""

    async def script(a):
        await a.request()
        await answer(a)

    async with site(script, fetch=FetchOptions(**options)) as (server, c, url):
        result = await c.get(url + "/")
        assert result.error_type is word
        if truncated is None:
            assert isinstance(result, Failed)
            assert result.retryable
        else:
            assert isinstance(result, Fetched)
            assert result.truncated is truncated
        assert c.closings() == ["timeout"]
        await asyncio.wait_for(server.accepted[0].ended.wait(), 5)


async def test_the_timer_of_one_request_does_not_end_the_next(site):
    """A timer that is still armed does not end the next exchange before its own deadline."""
    go = asyncio.Event()

    async def script(a):
        await a.request()
        await a.send(ok(b"1"))
        await a.request()
        await go.wait()
        await a.send(ok(b"2"))

    async with site(script, fetch=FetchOptions(first_byte_timeout_s=60.0)) as (server, c, url):
        await c.get(url + "/1")
        c.clock.offset += 40.0
        second = asyncio.ensure_future(c.get(url + "/2"))
        await until(lambda: len(server.requests) == 2)
        c.clock.offset += 30.0
        (connection,) = c.pool._connections
        connection._on_timer()  # the timer armed for the first exchange, whose deadline is over
        assert connection.is_open
        assert not second.done()
        go.set()
        assert (await second).payload.prefix(9) == b"2"


async def test_a_cancelled_fetch_closes_its_connection(site):
    """Nobody reads the rest of the response: the next request gets another connection."""

    async def script(a):
        while path := await a.request():
            await a.send(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf" if path == "/slow" else ok(b"fast"))

    async with site(script) as (_, c, url):
        fetching = asyncio.ensure_future(c.get(url + "/slow"))
        await until(lambda: any(k.bytes_received == 42 for k in c.pool._connections))
        ((under_way,),) = c.pool.exchanges().values()
        assert (under_way.conn_id, under_way.received_bytes) == (1, 42)
        fetching.cancel()
        with pytest.raises(asyncio.CancelledError):
            await fetching
        assert c.pool.stats().open == 0
        assert c.pool._slots == {}
        assert c.address_limiter.is_balanced
        assert (await c.get(url + "/fast")).connection.id == 2
        assert c.closings() == ["shutdown"]


async def test_reading_pauses_while_memory_is_spent(site):
    """While the budget is spent a body waits, beyond its deadlines, and arrives whole when bytes are given back."""
    budget = ByteBudget(100_000)
    body = b"x" * 400_000
    async with site(
        table({"/": ok(body)}),
        budget=budget,
        fetch=FetchOptions(read_timeout_s=0.05, min_rate=10**9, min_rate_after_s=0.05),
    ) as (_, c, url):
        budget.take(100_000)
        fetching = asyncio.ensure_future(c.get(url + "/"))
        await until(lambda: len(budget._waiting) == 1)
        seen = [k.bytes_received for k in c.pool._connections]
        loop = asyncio.get_running_loop()
        started = loop.time()
        await until(lambda: loop.time() > started + 0.15)
        assert [k.bytes_received for k in c.pool._connections] == seen
        assert not fetching.done()
        budget.give(10**9)
        result = await fetching
        assert result.payload.size == len(body)
        assert result.truncated is None


async def test_a_body_in_thousands_of_tiny_chunks_is_read_with_pauses(site):
    """It arrives whole, and the loop serves others between its reads. An ordinary body is read at once."""
    answers = {"/dust": chunked(*[b"x"] * 100_000), "/sound": chunked(*[b"y" * 20_000] * 20)}
    async with site(table(answers)) as (_, c, url):
        sound = await c.get(url + "/sound")
        (connection,) = c.pool._connections
        assert (sound.payload.size, connection._paused_s) == (400_000, 0.0)
        dust = await c.get(url + "/dust")
        assert dust.payload.prefix(200_000) == b"x" * 100_000
        assert dust.connection.id == sound.connection.id
        assert connection._paused_s > 0.0


async def test_bodies_that_hold_all_memory_still_end(site):
    """If half-read bodies hold the whole budget, one of them is read on, so that none waits for ever."""
    budget = ByteBudget(10_000)
    async with site(table({"/": ok(b"x" * 300_000)}), budget=budget, connections_per_host=3) as (_, c, url):
        async with asyncio.timeout(10):
            results = await asyncio.gather(*(c.get(url + "/") for _ in range(3)))
        assert [r.payload.size for r in results] == [300_000] * 3


async def test_a_body_that_resumes_over_the_budget_is_read_to_its_end(site):
    """Each of eight bodies that fill the memory is read whole before the next, not piece by piece."""
    budget = ByteBudget(100_000)
    body = b"x" * 3_000_000
    async with site(table({"/": ok(body)}), budget=budget, connections_per_host=8) as (_, c, url):
        async with asyncio.timeout(8):  # a piece in turn would take a quarter of a second for each of some hundred
            sizes = await asyncio.gather(*(size_of(c.get(url + "/")) for _ in range(8)))
        assert sizes == [3_000_000] * 8
        assert not budget._is_finishing


async def size_of(fetching):
    return (await fetching).payload.size


async def test_the_next_body_resumes_if_the_current_one_is_cancelled(site):
    """However an exchange ends, its read counts as finished."""
    budget = ByteBudget(10_000)
    budget.take(10**6)
    async with site(table({"/": ok(b"x" * 300_000)}), budget=budget, connections_per_host=2) as (_, c, url):
        first = asyncio.ensure_future(c.get(url + "/"))
        await until(lambda: len(budget._waiting) == 1 or first.done())
        first.cancel()
        await asyncio.gather(first, return_exceptions=True)
        second = asyncio.ensure_future(c.get(url + "/"))
        async with asyncio.timeout(5):
            assert (await second).payload.size == 300_000
        assert not budget._is_finishing


async def test_memory_is_given_back_as_soon_as_a_body_is_dropped(site):
    """Nothing in the client, and no reference cycle, keeps a finished body."""
    budget = ByteBudget(10_000_000)
    async with site(table({"/": ok(b"x" * 300_000)}), budget=budget) as (_, c, url):
        gc.disable()
        try:
            result = await c.get(url + "/")
            assert budget.held == 300_000
            del result
            assert budget.held == 0
        finally:
            gc.enable()
