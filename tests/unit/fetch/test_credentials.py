"""Credentials: how they are written, and that they go to their origin alone."""

import pytest

from crawler.core.enums import TaskKind
from crawler.core.models import Fetched, Origin
from crawler.fetch.credentials import BadCredential, basic, bearer
from crawler.fetch.options import FetchOptions, Secrets
from crawler.sinks.warc import mask_request
from tests.support.fetching import client
from tests.support.scripted_server import Certificates, ok, serve, table


def test_basic_is_base64_of_utf8():
    """The examples of RFC 7617 §2 and §2.1."""
    assert basic("Aladdin", "open sesame") == "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ=="
    assert basic("test", "123\u00a3") == "Basic dGVzdDoxMjPCow=="
    assert basic("user", "with:colon") == "Basic dXNlcjp3aXRoOmNvbG9u"
    assert bearer("mF_9.B5f-4.1JqM") == "Bearer mF_9.B5f-4.1JqM"


@pytest.mark.parametrize(
    "make",
    [
        lambda: basic("a:b", "hunter2"),
        lambda: basic("a", "hunter2\n"),
        lambda: basic("hunter2\x7f", ""),
        lambda: bearer(""),
        lambda: bearer("hunter2 x"),
        lambda: bearer("hunter2\r\nX: y"),
        lambda: bearer("=hunter2"),
    ],
)
def test_invalid_credentials_are_refused_without_showing_them(make):
    """The message may be logged."""
    with pytest.raises(BadCredential) as caught:
        make()
    assert "hunter2" not in str(caught.value)


def test_secrets_are_not_in_a_repr():
    """So they are neither in tracebacks nor in a log of options."""
    secrets = Secrets({Origin("https", "a.test", 443): "Bearer s3cr3t"}, "Basic s3cr3t")
    assert "s3cr3t" not in repr(secrets)
    assert "s3cr3t" not in str(secrets)


async def test_an_origins_credentials_go_to_that_origin_only(tmp_path):
    """Another port, scheme or host gets none, even after a redirect to it; robots.txt of the origin does."""
    certificates = Certificates(tmp_path)
    script = table(
        {
            "/": ok(b"hello"),
            "/robots.txt": ok(b""),
            "/away": ok(b"", "Location: /", status="302 Found"),
        }
    )
    async with (
        serve(script, tls=certificates.server("a.test", "b.test")) as server,
        serve(script, tls=certificates.server("a.test")) as other_port,
        serve(script) as plain,
    ):
        secrets = Secrets({Origin("https", "a.test", server.port): basic("u", "s3cr3t")})
        async with client(secrets=secrets, ca_file=certificates.ca_file) as c:
            base = f"https://a.test:{server.port}"
            for url, kind in (
                (f"{base}/robots.txt", TaskKind.ROBOTS),
                (f"{base}/", TaskKind.PAGE),
                (f"{base}/away", TaskKind.PAGE),
                (f"https://b.test:{server.port}/", TaskKind.PAGE),
                (f"https://a.test:{other_port.port}/", TaskKind.PAGE),
                (f"http://a.test:{plain.port}/", TaskKind.PAGE),
            ):
                result = await c.get(url, kind=kind, via=f"{base}/away")
                assert isinstance(result, Fetched), result
                told = basic("u", "s3cr3t").encode() in result.request_bytes
                assert told is url.startswith(f"{base}/"), url
                assert b"dTpzM2NyM3Q=" not in mask_request(result.request_bytes)
        assert all(b"authorization" not in head.lower() for head in other_port.requests + plain.requests)
        assert [b"\r\nAuthorization: Basic " in head for head in server.requests] == [True, True, True, False]


async def test_an_origins_credentials_replace_those_for_everyone():
    """There is one Authorization field at most; other configured fields keep their order."""
    async with serve(table({"/": ok(b"hello")})) as server:
        secrets = Secrets({Origin("http", "a.test", server.port): bearer("own")})
        fetch = FetchOptions(headers=(("authorization", "Bearer everyone"), ("X-Team", "crawl")))
        async with client(secrets=secrets, fetch=fetch) as c:
            for host in ("a.test", "b.test"):
                await c.get(f"http://{host}:{server.port}/")
    own, everyone = (head.lower() for head in server.requests)
    assert own.count(b"authorization:") == everyone.count(b"authorization:") == 1
    assert b"\r\nauthorization: bearer own\r\n" in own
    assert b"\r\nauthorization: bearer everyone\r\n" in everyone
    assert b"\r\nx-team: crawl\r\n" in own


async def test_configured_headers_are_sent_with_every_request():
    """fetch.headers: for pages and robots.txt, each field once; a field of the same name replaces the default."""
    fetch = FetchOptions(headers=(("X-Team", "crawl"), ("ACCEPT", "text/html"), ("Accept-Language", "de")))
    async with serve(table({"/": ok(b"hello"), "/robots.txt": ok(b"")})) as server, client(fetch=fetch) as c:
        for path, kind in (("/robots.txt", TaskKind.ROBOTS), ("/", TaskKind.PAGE)):
            await c.get(f"http://a.test:{server.port}{path}", kind=kind)
    assert len(server.requests) == 2
    for head in server.requests:
        lines = head.split(b"\r\n")
        assert lines.count(b"X-Team: crawl") == lines.count(b"Accept-Language: de") == 1
        assert [line for line in lines if line.lower().startswith(b"accept:")] == [b"ACCEPT: text/html"]
