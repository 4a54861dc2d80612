"""Requests through a proxy: tunnels for https, absolute targets for http, and the proxy's own failures."""

import asyncio
import os

import pytest

from crawler.core.enums import ErrorType
from crawler.core.models import Failed, Fetched
from crawler.core.outcomes import is_connection_error, is_permanent
from crawler.fetch.credentials import basic
from crawler.fetch.net.dial import MAX_HEAD
from crawler.fetch.options import FetchOptions, NetworkOptions, ProxyOptions
from crawler.sinks.warc import mask_request
from tests.support.fetching import client
from tests.support.proxy_server import OPENED, proxy
from tests.support.raw_servers import closed_port
from tests.support.scripted_server import Certificates, ok, serve, table

HELLO = table({"/": ok(b"hello"), "/a?b=c": ok(b"query")})


@pytest.fixture(scope="module")
def certificates(tmp_path_factory):
    return Certificates(tmp_path_factory.mktemp("ca"))


def through(port, authorization=None, host="127.0.0.1"):
    return ProxyOptions(host, port, authorization)


def network(ca_file=None):
    """No private address may be dialled and no name is known, except the proxy's."""
    return NetworkOptions(resolve=(("proxy.test", ("127.0.0.1",)),), ca_file=ca_file)


async def test_https_goes_through_a_tunnel(certificates):
    """The certificate is the origin's, one tunnel serves several requests, and the next one resumes the session."""
    async with (
        serve(HELLO, tls=certificates.server("a.test")) as server,
        proxy() as p,
        client(network=network(certificates.ca_file), proxy=through(p.port, host="proxy.test")) as c,
    ):
        for _ in range(3):
            result = await c.get(f"https://a.test:{server.port}/")
            assert isinstance(result, Fetched), result
            assert result.payload.prefix(10) == b"hello"
        assert p.connects == [f"a.test:{server.port}"]
        assert b"Proxy-Authorization" not in p.heads[0]
        assert server.requests[0].startswith(b"GET / HTTP/1.1\r\nHost: a.test:")
        assert result.timings.connect_s == 0
        c.pool.close_idle()
        result = await c.get(f"https://a.test:{server.port}/")
        assert result.connection.tls_resumed
        assert result.timings.connect_s > 0


async def test_http_is_requested_with_the_whole_url():
    """Absolute form with the usual Host; the response is the origin's."""
    async with serve(HELLO) as server, proxy() as p, client(network=network(), proxy=through(p.port)) as c:
        for path, body in (("/", b"hello"), ("/a?b=c", b"query"), ("/none", b"")):
            result = await c.get(f"http://a.test:{server.port}{path}")
            assert isinstance(result, Fetched), result
            assert result.payload.prefix(10) == body
        assert p.connects == []
        assert p.plain == [f"http://a.test:{server.port}{path}" for path in ("/", "/a?b=c", "/none")]
        assert all(f"\r\nHost: a.test:{server.port}\r\n".encode() in head for head in p.heads)
        assert p.accepted == 1


@pytest.mark.parametrize("scheme", ["http", "https"])
async def test_each_origin_has_connections_of_its_own(certificates, scheme):
    """A connection to a proxy serves one origin only, tunnel or not."""
    tls = certificates.server("a.test", "b.test") if scheme == "https" else None
    async with (
        serve(HELLO, tls=tls) as server,
        proxy() as p,
        client(network=network(certificates.ca_file), proxy=through(p.port)) as c,
    ):
        for host in ("a.test", "b.test", "a.test"):
            assert isinstance(await c.get(f"{scheme}://{host}:{server.port}/"), Fetched)
        assert p.accepted == 2


@pytest.mark.parametrize("scheme", ["http", "https"])
async def test_credentials_go_to_the_proxy_only(certificates, scheme):
    """Basic, with CONNECT or with the plain request; the origin sees none, and WARC masks them."""
    tls = certificates.server("a.test") if scheme == "https" else None
    async with (
        serve(HELLO, tls=tls) as server,
        proxy(credentials="crawler:s3cr3t") as p,
        client(network=network(certificates.ca_file), proxy=through(p.port, basic("crawler", "s3cr3t"))) as c,
    ):
        result = await c.get(f"{scheme}://a.test:{server.port}/")
        assert isinstance(result, Fetched), result
        assert result.payload.prefix(10) == b"hello"
        assert b"proxy-authorization" not in server.requests[0].lower()
        secret = basic("crawler", "s3cr3t").encode()
        assert secret in p.heads[0]
        assert secret not in mask_request(result.request_bytes)
        assert (secret in result.request_bytes) is (scheme == "http")
        assert "Basic" not in repr(through(p.port, basic("crawler", "s3cr3t")))


@pytest.mark.parametrize("scheme", ["http", "https"])
@pytest.mark.parametrize(("given", "words"), [(None, "wants its credentials"), ("x:y", "wants other credentials")])
async def test_a_407_is_a_failure_of_the_proxy(scheme, given, words):
    """Without credentials or with wrong ones: a permanent error of its own, for both schemes."""
    authorization = None if given is None else basic(*given.split(":"))
    async with (
        serve(HELLO) as server,
        proxy(credentials="crawler:s3cr3t") as p,
        client(network=network(), proxy=through(p.port, authorization)) as c,
    ):
        result = await c.get(f"{scheme}://a.test:{server.port}/")
        assert isinstance(result, Failed)
        assert result.error_type is ErrorType.PROXY_AUTH
        assert words in result.detail
        assert not result.retryable
        assert is_permanent(result.error_type)
        assert is_connection_error(result.error_type)
        assert server.accepted == []
        assert c.address_limiter.is_balanced


@pytest.mark.parametrize(
    ("status", "field", "words"),
    [
        (
            "503 Service Unavailable",
            "X-Squid-Error: ERR_CONNECT_FAIL 111",
            "itself sent status 503: ERR_CONNECT_FAIL 111",
        ),
        ("502 Bad Gateway", "Proxy-Status: p.test; error=dns_error", "itself sent status 502: p.test; error=dns_error"),
        ("403 Forbidden", "X-Squid-Error: ERR_ACCESS_DENIED 0", "itself sent status 403"),
        ("504 Gateway Timeout", "Proxy-Status: cdn.test; received-status=504", None),
        ("503 Service Unavailable", "Retry-After: 5", None),
        ("200 OK", "Proxy-Status: p.test; error=http_response_timeout", None),
    ],
)
async def test_an_error_page_of_the_proxy_is_a_failure(status, field, words):
    """A field of the proxy marks it; any other response is the origin's. In a tunnel every response is."""
    script = table({"/": ok(b"sorry", field, status=status)})
    async with serve(script) as server, proxy() as p, client(network=network(), proxy=through(p.port)) as c:
        result = await c.get(f"http://a.test:{server.port}/")
        if words is None:
            assert isinstance(result, Fetched)
            return
        assert isinstance(result, Failed)
        assert result.error_type is ErrorType.PROXY_REFUSED
        assert words in result.detail
        assert result.retryable
        assert c.address_limiter.is_balanced


@pytest.mark.parametrize(
    ("answer", "word", "words"),
    [
        (b"HTTP/1.1 403 Forbidden\r\nContent-Length: 9\r\n\r\nforbidden", ErrorType.PROXY_REFUSED, "403 Forbidden"),
        (b"HTTP/1.0 502 \xe9\x1b[31m\r\n\r\n", ErrorType.PROXY_REFUSED, "502 ??[31m"),
        (b"HTTP/1.1 504\r\n\r\n", ErrorType.PROXY_REFUSED, "504"),
        (b"HTTP/1.1 301 Moved\r\nLocation: https://b.test/\r\n\r\n", ErrorType.PROXY_REFUSED, "301 Moved"),
        (b"HTTP/1.1 101 Switching\r\n\r\nHTTP/1.1 403 No\r\n\r\n", ErrorType.PROXY_REFUSED, "403 No"),
        (b"SSH-2.0-OpenSSH\r\n\r\n", ErrorType.PROXY_FAILED, "no HTTP/1.1"),
        (b"HTTP/2 200\r\n\r\n", ErrorType.PROXY_FAILED, "no HTTP/1.1"),
        (OPENED + b"early", ErrorType.PROXY_FAILED, "5 bytes before the tunnel was used"),
        (b"HTTP/1.1 200 OK\r\nX: " + b"x" * (MAX_HEAD + 8_192), ErrorType.PROXY_FAILED, f"over {MAX_HEAD} bytes"),
    ],
)
async def test_a_proxy_that_opens_no_tunnel_is_a_failure(answer, word, words):
    """Refusals and garbage have types of their own, with the response; no byte of it counts as the origin's."""
    async with proxy(answer=answer) as p, client(network=network(), proxy=through(p.port)) as c:
        result = await c.get("https://a.test:443/")
        assert isinstance(result, Failed)
        assert result.error_type is word, result.detail
        assert words in result.detail
        assert is_connection_error(word)
        assert result.retryable
        (event, fields) = c.events[0]
        assert (event, fields["stage"], fields["error_type"]) == ("conn_fail", "proxy", word)
        assert (fields["server_address"], fields["network_peer_port"]) == ("a.test", p.port)
        assert c.pool._slots == {}


async def test_interim_responses_and_fields_of_a_proxy_are_ignored(certificates):
    """A 2xx opens the tunnel whatever its fields are; its Content-Length is ignored (RFC 9110 §9.3.6)."""
    async with serve(HELLO, tls=certificates.server("a.test")) as server:

        async def wordy(reader, writer):
            await reader.readuntil(b"\r\n\r\n")
            upstream_reader, upstream_writer = await asyncio.open_connection("127.0.0.1", server.port)
            writer.write(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.0 201 Fine\nContent-Length: 500\nX: y\n\n")

            async def copy(source, sink):
                while data := await source.read(65_536):
                    sink.write(data)
                sink.transport.abort()

            await asyncio.gather(copy(reader, upstream_writer), copy(upstream_reader, writer))

        listener = await asyncio.start_server(wordy, "127.0.0.1", 0)
        port = listener.sockets[0].getsockname()[1]
        async with listener, client(network=network(certificates.ca_file), proxy=through(port)) as c:
            result = await c.get(f"https://a.test:{server.port}/")
            assert isinstance(result, Fetched), result


@pytest.mark.parametrize("scheme", ["http", "https"])
async def test_an_unreachable_proxy_is_proxy_failed(scheme):
    """Its port is closed or its name unknown: the attempt is retried."""
    port = closed_port()
    async with client(network=network(), proxy=through(port)) as c:
        result = await c.get(f"{scheme}://a.test:443/")
        assert isinstance(result, Failed)
        assert result.error_type is ErrorType.PROXY_FAILED
        assert f"127.0.0.1:{port}" in result.detail
        assert result.retryable
    from crawler.fetch.net.errors import ResolveError
    from tests.support.fetching import ScriptedLookup

    lookup = ScriptedLookup({"gone.test": ResolveError(ErrorType.DNS_NOT_FOUND, "gone.test: NXDOMAIN")})
    async with client(network=NetworkOptions(), proxy=through(port, host="gone.test"), lookup=lookup) as c:
        result = await c.get(f"{scheme}://a.test:443/")
        assert isinstance(result, Failed)
        assert result.error_type is ErrorType.PROXY_FAILED
        assert "NXDOMAIN" in result.detail
        assert lookup.asked == ["gone.test"]


@pytest.mark.parametrize("closes", [True, False])
async def test_a_proxy_that_hangs_up_or_stalls_ends_in_time(closes):
    """Without a response to CONNECT: connect_timeout bounds it, and the socket is closed."""
    ended = asyncio.Event()

    async def script(a):
        await a.reader.readuntil(b"\r\n\r\n")
        if not closes:
            await a.client_closed()
        ended.set()

    async with (
        serve(script) as server,
        client(network=network(), proxy=through(server.port), fetch=FetchOptions(connect_timeout_s=0.1)) as c,
    ):
        result = await c.get("https://a.test:443/")
        assert isinstance(result, Failed)
        assert result.error_type is ErrorType.PROXY_FAILED
        assert ("closed the connection" if closes else "in time") in result.detail
        await asyncio.wait_for(ended.wait(), 5)


async def test_a_cancelled_tunnel_leaves_no_descriptor():
    """The request is cancelled before the proxy responds."""
    asked = asyncio.Event()

    async def script(a):
        await a.reader.readuntil(b"\r\n\r\n")
        asked.set()
        await a.client_closed()

    async with serve(script) as server, client(network=network(), proxy=through(server.port)) as c:
        before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208 - counting, not walking
        task = asyncio.ensure_future(c.get("https://a.test:443/"))
        await asked.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await server.accepted[0].ended.wait()
        await asyncio.sleep(0)
        assert len(os.listdir("/proc/self/fd")) <= before  # noqa: PTH208
        assert c.pool._slots == {}


async def test_a_handshake_that_fails_in_a_tunnel_is_the_origins(certificates):
    """Certificates are verified as without a proxy."""
    async with (
        serve(HELLO, tls=certificates.server("b.test")) as server,
        proxy() as p,
        client(network=network(certificates.ca_file), proxy=through(p.port)) as c,
    ):
        result = await c.get(f"https://a.test:{server.port}/")
        assert isinstance(result, Failed)
        assert result.error_type is ErrorType.TLS_HOST_MISMATCH
        assert server.requests == []


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "[::1]", "10.0.0.1", "[::ffff:7f00:1]", "[64:ff9b::7f00:1]", "127.0.0.1."]
)
@pytest.mark.parametrize("scheme", ["http", "https"])
async def test_a_denied_address_is_not_requested_from_a_proxy(host, scheme):
    """The proxy resolves names; an address in the URL is checked here."""
    async with proxy() as p, client(network=network(), proxy=through(p.port)) as c:
        result = await c.get(f"{scheme}://{host}:443/")
        assert isinstance(result, Failed)
        assert result.error_type is ErrorType.ADDRESS_DENIED
        assert p.accepted == 0
    async with proxy(answer=b"HTTP/1.1 502 No\r\n\r\n") as p, client(network=network(), proxy=through(p.port)) as c:
        await c.get("https://1.1.1.1:443/")
        assert p.connects == ["1.1.1.1:443"]


async def test_without_a_proxy_there_are_no_origin_credentials():
    """A request then costs one comparison with None."""
    async with client() as c:
        assert c.fetcher._credentials is None
