"""Fetching one URL: the request, when it is sent twice, and the result."""

import asyncio
import errno

import pytest

from crawler.core.enums import CloseReason, ErrorType, TaskKind, TruncatedReason
from crawler.core.models import Failed, Fetched, Origin, Task
from crawler.core.outcomes import is_throttled
from crawler.fetch.fetcher import AddressNotReady, Fetcher, OriginBlocked
from crawler.fetch.http1.message import LocalProtocolError
from crawler.fetch.options import FetchOptions, IdentityOptions
from tests.support.fetching import RecordingLimiter, client, until
from tests.support.scripted_server import Certificates, ok, serve, table


@pytest.fixture(scope="module")
def certificates(tmp_path_factory):
    return Certificates(tmp_path_factory.mktemp("ca"))


HELLO = table({"/": ok(b"hello")})


async def test_the_request_is_as_configured():
    """The fields of a plain request in order, and exactly the bytes of `request_bytes`."""
    identity = IdentityOptions(user_agent="crawlerd/1 (+https://c.example)", from_address="bot@c.example")
    fetch = FetchOptions(encodings=("gzip", "br"), headers=(("X-Reason", "research"), ("accept", "text/html")))
    async with serve(HELLO) as server, client(identity=identity, fetch=fetch) as c:
        result = await c.get(f"http://a.test:{server.port}/")
        assert server.requests == [result.request_bytes]
        assert result.request_bytes.decode().split("\r\n") == [
            "GET / HTTP/1.1",
            f"Host: a.test:{server.port}",
            "User-Agent: crawlerd/1 (+https://c.example)",
            "Accept-Encoding: gzip, br",
            "From: bot@c.example",
            "X-Reason: research",
            "accept: text/html",
            "",
            "",
        ]


@pytest.mark.parametrize(
    ("task", "lines"),
    [
        ({"etag": '"v1"', "last_modified": "Sat, 01 Nov 2025 00:00:00 GMT"}, ["None-Match", "Modified-Since"]),
        ({"etag": 'W/"v1"'}, ["None-Match"]),
        ({"last_modified": "Sat, 01 Nov 2025 00:00:00 GMT"}, ["Modified-Since"]),
        ({"etag": "broken\r\nX: y"}, []),
        ({}, []),
    ],
)
async def test_validators_make_the_request_conditional(task, lines):
    """ETag and Last-Modified are sent as stored, unless HTTP does not allow them."""
    answer = b"HTTP/1.1 304 Not Modified\r\n\r\n"
    async with serve(table({"/": answer})) as server, client() as c:
        result = await c.get(f"http://a.test:{server.port}/", **task)
        assert result.head.status_code == 304
        sent = server.requests[0].decode()
        assert [word for word in ("None-Match", "Modified-Since") if f"\r\nIf-{word}: " in sent] == lines
        assert "X: y" not in sent


async def test_headers_that_cannot_be_sent_are_refused_at_the_start():
    """A configured field with a line break is refused before any request."""
    async with client() as c:
        with pytest.raises(LocalProtocolError):
            Fetcher(
                pool=c.pool,
                options=FetchOptions(headers=(("X-A", "b\r\nHost: evil"),)),
                identity=IdentityOptions(),
                address_limiter=RecordingLimiter(),
                clock=c.clock,
            )


async def test_a_host_has_the_header_fields_of_its_most_specific_pattern():
    """Besides those of every host, and instead of those of their names."""
    async with client() as c:
        fetcher = Fetcher(
            pool=c.pool,
            options=FetchOptions(
                headers=(("X-A", "all"), ("X-B", "all")),
                host_headers=(
                    ("*.a.test", (("x-a", "below"),)),
                    ("www.a.test", (("X-C", "www"), ("User-Agent", "w/1"))),
                ),
            ),
            identity=IdentityOptions(user_agent="bot/1"),
            address_limiter=RecordingLimiter(),
            clock=c.clock,
        )
        for host, expected in (
            ("a.test", ["X-A: all", "X-B: all"]),
            ("m.a.test", ["X-B: all", "x-a: below"]),
            ("www.a.test", ["X-A: all", "X-B: all", "X-C: www"]),
        ):
            origin = Origin("https", host, 443)
            sent = fetcher.request_for(origin, Task(1, f"{origin}/")).decode().split("\r\n")
            assert [line for line in sent if line.lower().startswith("x-")] == expected
            assert ("User-Agent: w/1" in sent, "User-Agent: bot/1" in sent) == (host[:3] == "www", host[:3] != "www")


async def test_a_result_has_everything_for_the_record(certificates):
    """Head, bodies, timings, connection and time of a response over TLS."""
    async with (
        serve(HELLO, tls=certificates.server("a.test")) as server,
        client(ca_file=certificates.ca_file) as c,
    ):
        before = c.clock.now()
        result = await c.get(f"https://a.test:{server.port}/")
        assert isinstance(result, Fetched)
        assert result.raw_head == b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n"
        assert result.raw_body is result.payload
        assert (result.head.status_code, result.head.get("content-length")) == (200, "5")
        timings = result.timings
        assert min(timings.connect_s, timings.tls_s, timings.first_byte_s) > 0
        assert timings.body_s >= 0
        assert result.connection.peer_address == "127.0.0.1"
        assert before <= result.started_at <= c.clock.now()
        assert (result.tainted, result.truncated, result.error_type, result.resend_count) == (False, None, None, 0)


async def test_a_blocked_origin_is_not_even_connected_to():
    """If it is blocked while the connection is opened, no request is sent and the connection is closed."""
    async with serve(HELLO) as server, client() as c:
        answers = [False]

        def fetcher():
            return Fetcher(
                pool=c.pool, options=FetchOptions(), identity=IdentityOptions(), clock=c.clock,
                address_limiter=c.address_limiter, permits=lambda origin: answers.pop(0),
            )  # fmt: skip

        origin = Origin("http", "a.test", server.port)
        task = Task(1, f"{origin}/")
        with pytest.raises(OriginBlocked):
            await fetcher().fetch(origin, task)
        assert c.pool.stats().opened == 0
        answers[:] = [True, False]
        with pytest.raises(OriginBlocked):
            await fetcher().fetch(origin, task)
        stats = c.pool.stats()
        assert (stats.opened, stats.open, stats.closed) == (1, 0, {CloseReason.BLOCKED: 1})
        assert server.requests == []
        assert c.address_limiter.is_balanced


async def then_close(a):
    """Respond once, then close at the next request without a byte."""
    await a.request()
    await a.send(ok(b"first"))
    await a.request()


async def then_reset(a):
    await then_close(a)
    await a.reset()


async def then_cut(a):
    await then_close(a)
    await a.cut()


@pytest.mark.parametrize("scheme", ["https", "http"])
@pytest.mark.parametrize("ending", [then_close, then_reset, then_cut])
async def test_a_stale_connection_costs_one_resend(certificates, scheme, ending):
    """The server closes a used connection as we send: the same request is sent again over a fresh one."""

    async def script(a):
        if len(server.accepted) == 1:
            await ending(a)
        else:
            await HELLO(a)

    tls = certificates.server("a.test") if scheme == "https" else None
    async with serve(script, tls=tls) as server, client(ca_file=certificates.ca_file) as c:
        url = f"{scheme}://a.test:{server.port}/"
        assert (await c.get(url)).payload.prefix(9) == b"first"
        second = await c.get(url)
        assert isinstance(second, Fetched), second
        assert second.payload.prefix(9) == b"hello"
        assert second.resend_count == 1
        assert (second.connection.id, second.connection.request_n) == (2, 1)
        assert second.timings.connect_s > 0
        assert [len(a.requests) for a in server.accepted] == [2, 1]
        # the address stayed taken from the first attempt to the end of the second
        assert c.address_limiter.log == [("enter", "127.0.0.1"), ("leave", "127.0.0.1")] * 2


async def test_a_request_is_resent_once_and_no_more():
    """If the fresh connection ends without a byte too, the fetch fails."""

    async def script(a):
        if len(server.accepted) == 1:
            await then_close(a)
        else:
            await a.request()

    async with serve(script) as server, client() as c:
        url = f"http://a.test:{server.port}/"
        await c.get(url)
        second = await c.get(url)
        assert isinstance(second, Failed)
        assert (second.error_type, second.resend_count) == (ErrorType.SERVER_CLOSED, 1)
        assert second.connection.id == 2
        assert [len(a.requests) for a in server.accepted] == [2, 1]
        assert c.address_limiter.is_balanced


async def test_a_request_on_a_fresh_connection_is_not_resent():
    """If its first request gets no byte, the fetch fails."""

    async def script(a):
        await a.request()

    async with serve(script) as server, client() as c:
        result = await c.get(f"http://a.test:{server.port}/")
        assert isinstance(result, Failed)
        assert (result.error_type, result.resend_count, result.retryable) == (ErrorType.SERVER_CLOSED, 0, True)
        assert len(server.requests) == 1


LATE = ok(b"", "Connection: close", status="408 Request Timeout")


@pytest.mark.parametrize("scheme", ["https", "http"])
@pytest.mark.parametrize("answer", [LATE, LATE.replace(b"Length: 0", b"Length: 9"), b"HTTP/1.0 408 Slow\r\n\r\n<p>"])
async def test_a_408_that_crosses_the_request_costs_one_resend(certificates, scheme, answer):
    """The server ended a used connection as we wrote: its 408 is no response to this request."""

    async def script(a):
        await a.request()
        await a.send(ok(b"first"))
        await a.request()
        await a.send(answer if len(server.accepted) == 1 else ok(b"second"))

    tls = certificates.server("a.test") if scheme == "https" else None
    async with serve(script, tls=tls) as server, client(ca_file=certificates.ca_file) as c:
        url = f"{scheme}://a.test:{server.port}/"
        await c.get(url)
        second = await c.get(url)
        assert isinstance(second, Fetched), second
        assert second.payload.prefix(9) == b"first"
        assert (second.connection.id, second.resend_count) == (2, 1)
        assert c.address_limiter.is_balanced


@pytest.mark.parametrize("field", ["Connection: close", "X: y"])
async def test_a_408_to_the_request_is_a_response(field):
    """On a fresh connection, also that of a resend; and if the connection stays open."""

    async def script(a):
        if len(server.accepted) == 1 and field == "X: y":
            await a.request()
            await a.send(ok(b"first"))
        while await a.request():
            await a.send(ok(b"", field, status="408 Request Timeout"))

    async with serve(script) as server, client() as c:
        url = f"http://a.test:{server.port}/"
        if field == "X: y":
            await c.get(url)
        result = await c.get(url)
        assert (result.head.status_code, result.resend_count) == (408, 0)


class SpeaksFirst:
    """A server that sends bytes to every client that connects, and a client that has them before the first request."""

    def __init__(self, c, said: asyncio.Event) -> None:
        dial = c.pool._dialer.dial
        self.heard = 0

        async def dial_slowly(origin, factory):
            connection, dialled = await dial(origin, factory)
            await said.wait()
            if not self.heard:
                await until(lambda: connection.bytes_received)
            self.heard = connection.bytes_received
            return connection, dialled

        c.pool._dialer.dial = dial_slowly


BUSY = ok(b"busy", "Retry-After: 120", status="503 Service Unavailable")


@pytest.mark.both_loops
@pytest.mark.parametrize("scheme", ["https", "http"])
@pytest.mark.parametrize("then", ["close", "wait", "more"])
async def test_a_503_before_the_request_is_the_response(certificates, scheme, then):
    """With Retry-After, before any request: the host backs off, and the request is not sent."""
    said, heard = asyncio.Event(), asyncio.Event()

    async def script(a):
        begun = BUSY[:-2] if then == "more" else BUSY
        await a.send(begun)
        await a.arrived()
        said.set()
        if then == "more":
            await heard.wait()
            await a.send(BUSY[-2:])
        if then != "close":
            assert await a.client_closed() == b""

    tls = certificates.server("a.test") if scheme == "https" else None
    async with serve(script, tls=tls) as server, client(ca_file=certificates.ca_file) as c:
        first = SpeaksFirst(c, said)
        fetching = asyncio.ensure_future(c.get(f"{scheme}://a.test:{server.port}/"))
        await until(lambda: first.heard)
        heard.set()
        result = await fetching
        assert isinstance(result, Fetched), result
        assert (result.head.status_code, result.head.get("retry-after")) == (503, "120")
        assert is_throttled(result)
        assert result.payload.prefix(9) == b"busy"
        assert c.pool._slots == {}
        await server.accepted[0].ended.wait()
        assert server.requests == []
        assert c.address_limiter.is_balanced


@pytest.mark.parametrize(
    ("said", "word"),
    [
        (ok(b"EVIL"), ErrorType.CONNECT_FAILED),
        (ok(b"", status="403 Forbidden"), ErrorType.CONNECT_FAILED),
        (b"SSH-2.0-OpenSSH_9.2\r\n", ErrorType.PROTOCOL_ERROR),
        (b"HTTP/1.1 503 Busy\r\nRetry-Aft", ErrorType.TRUNCATED),
    ],
)
async def test_other_bytes_before_the_request_are_no_response(said, word):
    """The URL was not requested; a later attempt may succeed."""
    sent = asyncio.Event()

    async def script(a):
        await a.send(said)
        await a.arrived()
        sent.set()

    async with serve(script) as server, client() as c:
        SpeaksFirst(c, sent)
        result = await c.get(f"http://a.test:{server.port}/")
        assert isinstance(result, Failed)
        assert result.error_type is word, result.detail
        assert c.pool._slots == {}


async def test_a_408_before_the_request_costs_one_resend():
    """The server timed out waiting for a request: it is sent over another connection."""
    said = asyncio.Event()

    async def script(a):
        if len(server.accepted) == 1:
            await a.send(LATE)
            await a.arrived()
            said.set()
        await HELLO(a)

    async with serve(script) as server, client() as c:
        SpeaksFirst(c, said)
        result = await c.get(f"http://a.test:{server.port}/")
        assert isinstance(result, Fetched), result
        assert (result.payload.prefix(9), result.resend_count, result.connection.id) == (b"hello", 1, 2)


async def test_bytes_on_an_unused_connection_close_it():
    """It was opened, the rate limit refused the request, and it went back to the pool."""
    said = asyncio.Event()

    async def script(a):
        await a.send(BUSY)
        await a.arrived()
        said.set()

    async with serve(script) as server, client() as c:
        SpeaksFirst(c, said)
        c.address_limiter.shut["127.0.0.1"] = 4_711.0
        with pytest.raises(AddressNotReady):
            await c.get(f"http://a.test:{server.port}/")
        assert c.pool.stats().open == 0


async def test_a_flood_before_the_first_request_ends():
    """The bytes kept are bounded."""
    said = asyncio.Event()

    async def script(a):
        for _ in range(64):
            await a.send(b"x" * 65_536)
            if a.writer.transport.is_closing():
                break
        said.set()
        await a.client_closed()

    async with serve(script) as server, client() as c:
        SpeaksFirst(c, said)
        result = await c.get(f"http://a.test:{server.port}/")
        assert isinstance(result, Failed)
        assert result.error_type in (ErrorType.SERVER_CLOSED, ErrorType.PROTOCOL_ERROR)
        assert c.closings()[0] == "unsolicited"


async def test_one_byte_of_a_response_forbids_a_resend():
    """A request that the server may have acted on is not sent again."""

    async def script(a):
        await a.request()
        await a.send(ok(b"first"))
        await a.request()
        await a.send(b"H")

    async with serve(script) as server, client() as c:
        url = f"http://a.test:{server.port}/"
        await c.get(url)
        second = await c.get(url)
        assert isinstance(second, Failed)
        assert (second.error_type, second.resend_count) == (ErrorType.TRUNCATED, 0)
        assert len(server.accepted) == 1


async def test_a_timeout_on_a_used_connection_is_not_resent():
    """A silent connection is not stale."""

    async def script(a):
        await a.request()
        await a.send(ok(b"first"))
        await a.request()
        await a.client_closed()

    async with serve(script) as server, client(fetch=FetchOptions(first_byte_timeout_s=0.05)) as c:
        url = f"http://a.test:{server.port}/"
        await c.get(url)
        second = await c.get(url)
        assert isinstance(second, Failed)
        assert (second.error_type, second.resend_count) == (ErrorType.FIRST_BYTE_TIMEOUT, 0)
        assert len(server.accepted) == 1


async def test_a_stale_connection_whose_server_is_gone_fails():
    """The fresh connection cannot be opened: that is the failure, and the rate limit is left."""
    async with client() as c:
        async with serve(then_close) as server:
            url = f"http://a.test:{server.port}/"
            await c.get(url)
            stale = next(iter(c.pool._connections))
            await until(lambda: len(server.accepted) == 1)
        await until(lambda: not stale.is_open)
        result = await c.get(url)
        assert isinstance(result, Failed)
        assert result.error_type is ErrorType.CONNECT_REFUSED
        assert c.address_limiter.is_balanced


async def test_a_refusal_of_the_rate_limit_changes_nothing():
    """Nothing is written, the connection is idle in the pool, and no request has entered."""
    async with serve(HELLO) as server, client() as c:
        url = f"http://a.test:{server.port}/"
        c.address_limiter.shut["127.0.0.1"] = 4_711.0
        with pytest.raises(AddressNotReady) as caught:
            await c.get(url)
        assert (caught.value.address, caught.value.until_mono) == ("127.0.0.1", 4_711.0)
        assert c.address_limiter.log == []
        assert c.pool.stats().idle == 1
        c.address_limiter.shut.clear()
        result = await c.get(url)
        assert isinstance(result, Fetched)
        assert (result.connection.id, result.connection.request_n) == (1, 1)
        assert server.requests == [result.request_bytes]


async def test_another_address_has_its_own_rate_limit():
    """A resend to another address leaves the first one's rate limit and enters the second's."""

    async def script(a):
        if len(server.accepted) == 1:
            await then_close(a)
        else:
            await HELLO(a)

    addresses = iter(["127.0.0.1", "127.0.0.2"])

    class Turning:
        async def resolve(self, host):
            return (next(addresses),)

    async with serve(script, host="0.0.0.0") as server, client() as c:
        c.pool._dialer._resolver = Turning()
        url = f"http://a.test:{server.port}/"
        await c.get(url)
        assert isinstance(await c.get(url), Fetched)
        one, two = "127.0.0.1", "127.0.0.2"
        first = [("enter", one), ("leave", one)]
        assert c.address_limiter.log == [*first, *first, ("enter", two), ("leave", two)]


@pytest.mark.parametrize("stage", ["resolve", "connect", "tls", "place", "answer"])
async def test_cancelled_anywhere_a_fetch_leaves_nothing_behind(certificates, stage):
    """At any stage: no connection, slot or entry of the rate limit stays taken, and the next fetch works."""
    release = asyncio.Event()

    async def script(a):
        while path := await a.request():
            if path == "/slow":
                await release.wait()
            await a.send(ok(b"hello"))

    async def no_handshake(a):
        await a.client_closed()

    real = certificates.server("a.test")
    tls = None if stage == "tls" else real
    async with (
        serve(no_handshake if stage == "tls" else script, tls=tls) as server,
        client(ca_file=certificates.ca_file) as c,
    ):
        base = f"https://a.test:{server.port}"
        target = f"https://silent.example:{server.port}/" if stage == "resolve" else f"{base}/slow"
        holding = None
        if stage == "connect":
            never = asyncio.get_running_loop().create_future
            c.pool._dialer._connect, connect = (lambda address, port: never()), c.pool._dialer._connect
        if stage == "place":
            holding = asyncio.ensure_future(c.get(f"{base}/slow"))
            await until(lambda: server.requests)
        fetching = asyncio.ensure_future(c.get(target))
        if stage == "answer":
            await until(lambda: server.requests)
        elif stage == "tls":
            await until(lambda: server.accepted)
        elif stage == "place":
            await until(lambda: c.pool.stats().waiting == 1)
        else:
            await asyncio.sleep(0)
            await asyncio.sleep(0)
        fetching.cancel()
        with pytest.raises(asyncio.CancelledError):
            await fetching
        stats = c.pool.stats()
        assert (stats.opening, stats.waiting) == (0, 0)
        assert stats.open == (1 if stage == "place" else 0)
        release.set()
        if stage == "connect":
            c.pool._dialer._connect = connect
        if holding is not None:
            assert isinstance(await holding, Fetched)
        if stage != "tls":
            assert isinstance(await c.get(base + "/"), Fetched)
        assert c.address_limiter.is_balanced


async def test_a_body_over_the_limit_is_kept_up_to_it():
    """max_body bytes are kept and marked as truncated, and the connection is not used again."""
    async with serve(table({"/": ok(b"x" * 1000)})) as server, client(fetch=FetchOptions(max_body=100)) as c:
        for _ in range(2):
            result = await c.get(f"http://a.test:{server.port}/")
            assert isinstance(result, Fetched)
            assert result.payload.size == 100
            assert (result.truncated, result.error_type) == (TruncatedReason.LENGTH, None)
        assert len(server.accepted) == 2


@pytest.mark.parametrize(
    ("code", "word"), [(errno.ENOSPC, ErrorType.LOCAL_IO), (errno.EMFILE, ErrorType.NO_FILE_DESCRIPTORS)]
)
async def test_a_spool_that_cannot_be_written_is_a_local_failure(monkeypatch, code, word):
    """A full disk, or no descriptor, for a large body: the fetch fails, may be retried, and the pool is sound. If
    descriptors are short, those of idle connections are given up.
    """

    def full(self):
        raise OSError(code, "cannot spill")

    monkeypatch.setattr("crawler.fetch.spool._BodyBuffer._spill", full)
    answers = {"/": ok(b"x" * 1000), "/small": ok(b"x")}
    async with serve(table(answers)) as server, client(fetch=FetchOptions(spool_over=100)) as c:
        assert isinstance(await c.get(f"http://b.test:{server.port}/small"), Fetched)
        result = await c.get(f"http://a.test:{server.port}/")
        assert isinstance(result, Failed)
        assert (result.error_type, result.retryable) == (word, True)
        kept = [] if word is ErrorType.NO_FILE_DESCRIPTORS else ["b.test"]
        assert [origin.host for origin in c.pool._slots] == kept
        assert c.address_limiter.is_balanced


async def test_a_large_body_is_spooled_and_whole(tmp_path):
    """Above spool_over the body is an unnamed file in the given folder."""
    body = bytes(range(256)) * 1000
    async with (
        serve(table({"/": ok(body)})) as server,
        client(fetch=FetchOptions(spool_over=1000), spool_directory=str(tmp_path)) as c,
    ):
        result = await c.get(f"http://a.test:{server.port}/")
        assert b"".join(result.payload.chunks()) == body
        assert list(tmp_path.iterdir()) == []


async def test_a_bug_is_not_a_failed_fetch(monkeypatch):
    """An exception that is no error of the network reaches the caller, and the connection is closed."""

    def broken(self, data):
        raise ZeroDivisionError

    monkeypatch.setattr("crawler.fetch.http1.wire.ResponseReader.feed", broken)
    async with serve(HELLO) as server, client() as c:
        with pytest.raises(ZeroDivisionError):
            await c.fetcher.fetch(Origin("http", "a.test", server.port), Task(1, f"http://a.test:{server.port}/"))
        assert c.pool._slots == {}
        assert c.address_limiter.is_balanced


@pytest.mark.parametrize("connections", [4, 16])  # fewer than the 14 that could be in use, and enough
async def test_a_burst_over_many_origins_ends_sound(certificates, connections):
    """After a hundred fetches, some closed, reset or cut, the counts agree and nothing is open or taken."""

    async def script(a):
        while path := await a.request():
            kind = int(path[1:]) % 5
            if kind == 0:
                await a.send(ok(b"x" * 5_000, "Connection: close"))
                return
            if kind == 1:
                await a.send(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf")
                await a.cut()
                return
            if kind == 2:
                await a.reset()
                return
            await a.send(ok(b"y" * 50_000))

    async with (
        serve(script, tls=certificates.server("*.hosts.test")) as server,
        client(ca_file=certificates.ca_file, connections_per_host=2, fetch=FetchOptions(connections=connections)) as c,
    ):
        urls = [f"https://h{n % 7}.hosts.test:{server.port}/{n}" for n in range(100)]
        results = await asyncio.gather(*(c.get(url) for url in urls))
        assert len(results) == 100
        for n, result in enumerate(results):
            if n % 5 in (3, 4):
                assert isinstance(result, Fetched), result
                assert result.payload.size == 50_000
        assert c.address_limiter.is_balanced
        stats = c.pool.stats()
        assert stats.idle == stats.open
        assert stats.opened - sum(stats.closed.values()) == stats.open
        assert stats.opened == len(server.accepted)
        assert stats.requests == len(server.requests)
        assert (max(len(a.requests) for a in server.accepted) > 1) or connections == 4


async def test_a_robots_txt_without_end_is_cut_at_its_own_limit():
    """Its limit is far below that of pages; nothing beyond it is read."""
    line = b"Disallow: /a-path-that-is-not-short\n"
    endless = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n\r\n" + line * 400_000
    async with serve(table({"/robots.txt": endless, "/page": endless})) as server, client() as c:
        robots = await c.get(f"http://a.test:{server.port}/robots.txt", kind=TaskKind.ROBOTS)
        assert robots.truncated is TruncatedReason.LENGTH
        assert robots.payload.size == FetchOptions().max_robots
        assert (await c.get(f"http://a.test:{server.port}/page")).payload.size > 10 * robots.payload.size
