"""One fetch, traced: what is asked, what is shown of it, and what a crawl would make of it."""

import io
import re
import ssl
from pathlib import Path
from typing import Any

import orjson
import pytest
from rich.console import Console

from crawler.core.enums import DenyReason, ErrorType
from crawler.frontier.base import BlockedHost
from crawler.frontier.sqlite.store import SqliteFrontier
from crawler.settings.loading import load
from crawler.trace.facts import facts
from crawler.trace.terminal import show
from crawler.trace.tracer import trace
from tests.support.proxy_server import proxy
from tests.support.scripted_server import Certificates, chunked, ok, serve, table

HTML = "Content-Type: text/html; charset=utf-8"
PAGE = ok(b'<title>T</title><a href="/a">a</a><a href="/a">b</a><a href="https://other.test/">c</a>', HTML)


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return Certificates(tmp_path_factory.mktemp("ca"))


Facts = dict[str, Any]


async def traced(url: str, *overrides: str, robots: bool = True, waits: list[Any] | None = None) -> Facts:
    """Fetch with loopback allowed, every .test found there and no delay; the facts as a script reads them."""
    given = [
        "network.allow_private=127.0.0.0/8",
        "network.resolve={'*.test'=['127.0.0.1']}",
        "politeness.delay=0",
        *overrides,
    ]
    noted: list[Any] = [] if waits is None else waits
    settings = load(None, given, {}, "crawl").settings
    found = await trace(settings, url, robots=robots, on_wait=lambda seconds, why: noted.append((seconds, why)))
    return orjson.loads(orjson.dumps(facts(found)))


def shown(found: Facts, *, terminal: bool = False, width: int = 120, all_links: bool = False) -> str:
    out = io.StringIO()
    show(found, console=Console(file=out, force_terminal=terminal, width=width), all_links=all_links)
    return out.getvalue()


def line(found: Facts, label: str) -> str:
    """The text of the first line of that label, without its time."""
    (text,) = [text for text in shown(found, width=400).splitlines() if text.startswith(f"  {label:<13}")][:1]
    return text[15:].split("   ")[0].rstrip()


async def test_a_page_is_requested_as_by_a_crawl() -> None:
    """robots.txt first, on the same connection, and the request shown is the one that was sent."""
    async with serve(table({"/": PAGE})) as server:
        found = await traced(f"http://a.test:{server.port}/")
        assert [a.paths for a in server.accepted] == [["/robots.txt", "/"]]
        assert found["request"] == server.requests[-1].decode().split("\r\n")[:-2]
    assert found["is_fine"]
    assert (found["verdict"], found["would"]) == (
        "200 OK",
        "would archive it, list it in pages/, and queue 1 URL",
    )
    size = found["http_response_body_size"]
    assert line(found, "framing") == f"Content-Length: {size}; the connection can be used again"
    assert [(link["url_full"].partition("/")[2], link.get("deny_reason")) for link in found["links"]["list"]] == [
        (f"/a.test:{server.port}/a", None),
        ("/other.test/", "scope_host"),
    ]


async def test_tls_is_shown_with_its_certificate(certificates: Certificates) -> None:
    """Version, cipher, ALPN, whom it is for, who signed it, and that it was verified."""
    async with serve(table({"/": PAGE}), tls=certificates.server("a.test", "b.test")) as server:
        found = await traced(f"https://a.test:{server.port}/", f"network.ca_file={certificates.ca_file}")
    connection = found["connection"]
    assert connection["tls"]["tls_protocol_version"] == "1.3"
    assert connection["tls"]["tls_cipher"].startswith("TLS_")
    assert connection["certificate"]["verified"] is True
    assert connection["certificate"]["names"] == ["a.test", "b.test"]
    assert "trustme" in connection["certificate"]["issuer"]
    assert len(connection["certificate"]["sha256"]) == 64
    assert "verified     yes" not in shown(found)  # the label is indented
    assert "  verified   yes" in shown(found)


@pytest.mark.parametrize(
    ("names", "days", "trusted", "error_type"),
    [
        (["a.test"], (-20, -10), True, ErrorType.TLS_CERT_EXPIRED),
        (["a.test"], (10, 20), True, ErrorType.TLS_CERT_NOT_YET_VALID),
        (["b.test"], (None, None), True, ErrorType.TLS_HOST_MISMATCH),
        (["a.test"], (None, None), False, ErrorType.TLS_UNKNOWN_ISSUER),
    ],
)
async def test_a_certificate_that_fails_is_shown_all_the_same(
    certificates: Certificates, names: list[str], days: Any, trusted: bool, error_type: ErrorType
) -> None:
    """By a second handshake; the server is sent no request in either."""
    context = certificates.server(*names, since_days=days[0], until_days=days[1])
    overrides = [f"network.ca_file={certificates.ca_file}"] if trusted else []
    async with serve(table({"/": PAGE}), tls=context) as server:
        found = await traced(f"https://a.test:{server.port}/", *overrides)
        assert server.requests == []
    assert (found["verdict"], found["is_fine"]) == (f"error: {error_type}", False)
    certificate = found["connection"]["certificate"]
    assert (certificate["verified"], certificate["names"]) == (False, names)
    assert certificate["problem"]
    text = shown(found)
    assert "verified   no: " in text
    assert "no request was sent" in text
    assert "GET /" not in text  # nothing was asked
    assert found["would"].startswith("would back off from the host for ")


async def test_verification_that_is_off_is_shown(certificates: Certificates) -> None:
    """A green certificate that nobody checked would be a lie."""
    async with serve(table({"/": PAGE}), tls=certificates.server("b.test")) as server:
        found = await traced(f"https://a.test:{server.port}/", "tls.verify=false")
    assert found["is_fine"]
    assert found["connection"]["certificate"]["verified"] is False
    assert "no: tls.verify = false" in shown(found)


async def test_a_handshake_that_fails_otherwise_shows_the_certificate_too(certificates: Certificates) -> None:
    """A server that speaks an older TLS than the configuration wants: looking is not choosy."""
    context = certificates.server("a.test", max_version=ssl.TLSVersion.TLSv1_2)
    overrides = [f"network.ca_file={certificates.ca_file}", "tls.min_version='1.3'"]
    async with serve(table({}), tls=context) as server:
        found = await traced(f"https://a.test:{server.port}/", *overrides)
    assert found["verdict"].startswith("error: tls_")
    assert found["connection"]["certificate"]["names"] == ["a.test"]


async def test_a_server_without_tls_is_shown() -> None:
    """There is no certificate then, and that is said."""

    async def script(c: Any) -> None:
        await c.send(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")

    async with serve(script) as server:
        found = await traced(f"https://a.test:{server.port}/")
    assert found["verdict"].startswith("error: tls_")
    assert found["connection"]["certificate"]["not_shown"].startswith("none was shown")
    assert "none was shown" in shown(found)


async def test_a_denied_address_is_shown_with_its_reason() -> None:
    """Every answer has its verdict; a name with one good address is dialled there."""
    async with serve(table({"/": PAGE})) as server:
        url = f"http://a.test:{server.port}/"
        mixed = await traced(url, "network.resolve={'a.test'=['10.1.2.3', '127.0.0.1']}")
        refused = await traced(url, "network.allow_private=[]")
        assert len(server.accepted) == 1
    answers = mixed["connection"]["resolved"][0]["addresses"]
    assert [(a["address"], a["allowed"]) for a in answers] == [("10.1.2.3", False), ("127.0.0.1", True)]
    assert (answers[0]["why"], answers[1]["why"]) == ("10.1.2.3: private (RFC 1918)", "network.allow_private")
    assert mixed["is_fine"]
    assert refused["verdict"] == "error: address_denied"
    assert "127.0.0.1: loopback (RFC 1122): not dialled; network.allow_private can list its network" in shown(refused)


async def test_attempts_that_fail_are_shown() -> None:
    """The port nobody listens on."""
    async with serve(table({})) as server:
        port = server.port
    found = await traced(f"http://a.test:{port}/")
    assert found["verdict"] == "error: connect_refused"
    attempts = found["connection"]["attempts"]
    assert [(a["address"], a["port"]) for a in attempts] == [("127.0.0.1", port)]
    assert attempts[0]["failed"] == "Connection refused"
    assert line(found, "robots.txt") == "not requested: no connection"


async def test_the_address_of_a_proxy_is_shown_as_such(certificates: Certificates) -> None:
    """Names are the proxy's to resolve; TLS and certificate are the server's all the same."""
    overrides = [f"network.ca_file={certificates.ca_file}", "network.allow_private=[]"]
    async with proxy() as through, serve(table({"/": PAGE}), tls=certificates.server("a.test")) as server:
        given = [*overrides, f"network.proxy=http://127.0.0.1:{through.port}"]
        found = await traced(f"https://a.test:{server.port}/", *given)
        wrong = await traced(f"https://b.test:{server.port}/", *given)
        assert through.connects[0] == f"a.test:{server.port}"
    assert found["is_fine"]
    connection = found["connection"]
    assert connection["certificate"]["names"] == ["a.test"]
    assert connection["resolved"][0]["addresses"] == [
        {"address": "127.0.0.1", "allowed": True, "why": "the proxy's, not checked"}
    ]
    assert "(the proxy)" in shown(found)
    assert wrong["verdict"] == "error: tls_host_mismatch"
    assert wrong["connection"]["certificate"]["not_shown"] == "not read: the server is behind a proxy"


async def test_a_failure_is_explained() -> None:
    """Address, port and reason, and nothing of Python's own."""
    async with serve(table({})) as server:
        port = server.port
    found = await traced(f"http://a.test:{port}/")
    assert found["detail"] == f"no connection to 127.0.0.1 port {port}: Connection refused"
    assert found["detail"] in shown(found, width=400)
    assert not re.search(r"\[Errno|\('|_ssl\.c", shown(found))


# -- robots.txt and scope


async def test_what_robots_txt_forbids_is_not_requested() -> None:
    """The rule is named with its line; --no-robots asks all the same, and does not ask for robots.txt."""
    robots = ok(b"User-agent: *\nDisallow: /private\nCrawl-delay: 2\n")
    async with serve(table({"/robots.txt": robots, "/private": PAGE})) as server:
        url = f"http://a.test:{server.port}/private"
        denied = await traced(url)
        assert [a.paths for a in server.accepted] == [["/robots.txt"]]
        forced = await traced(url, robots=False)
        assert server.accepted[1].paths == ["/private"]
    assert (denied["verdict"], denied["is_fine"], denied["robots"]["deny_reason"]) == (
        "not fetched: robots.txt",
        False,
        DenyReason.ROBOTS,
    )
    assert 'line 2 "Disallow: /private"' in line(denied, "robots.txt")
    assert denied["robots"]["crawl_delay_s"] == 2
    assert denied["would"] == "would not request it"
    assert forced["is_fine"]
    assert line(forced, "robots.txt") == "not requested: --no-robots"


async def test_a_blocked_host_gets_no_request(tmp_path: Path) -> None:
    """The store that the configuration names has the last word; nor is one asked that robots.txt leads to."""
    store = SqliteFrontier(tmp_path / "frontier.db")
    await store.open()
    await store.block(BlockedHost("a.test", "domain", 0.0, "they complained"))
    await store.close(clean=True)
    to_blocked = ok(b"", "Location: http://a.test/robots.txt", status="302 Found")
    async with serve(table({"/": PAGE, "/robots.txt": to_blocked})) as server:
        named = f"output.directory={tmp_path}"
        found = await traced(f"http://www.a.test:{server.port}/", named)
        assert server.accepted == []
        led_there = await traced(f"http://b.test:{server.port}/", named)
        assert [a.paths for a in server.accepted] == [["/robots.txt"]]
        elsewhere = await traced(f"http://www.a.test:{server.port}/", robots=False)
    assert (found["verdict"], found["is_fine"], found["would"]) == (
        "not fetched: blocked",
        False,
        "would not request it",
    )
    assert found["block"] == {"name": "a.test", "kind": "domain", "reason": "they complained"}
    assert "domain a.test is blocked: they complained" in shown(found)
    assert not led_there["robots"]["allowed"]
    assert elsewhere["is_fine"]


async def test_robots_txt_that_fails_forbids_everything() -> None:
    """503 is no answer, as in a crawl."""
    async with serve(table({"/robots.txt": ok(b"", status="503 Busy"), "/": PAGE})) as server:
        found = await traced(f"http://a.test:{server.port}/")
        assert [a.paths for a in server.accepted] == [["/robots.txt"]]
    assert line(found, "robots.txt") == "cannot be read (status 503), so nothing may be fetched"


async def test_redirects_of_robots_txt_are_followed() -> None:
    """Five at most; the sixth counts as none being there."""
    turns = {f"/{n}": ok(b"", f"Location: /{n + 1}", status="301 Moved") for n in range(9)}
    rules = {"/2": ok(b"User-agent: *\nDisallow: /p")}
    async with serve(table({"/robots.txt": ok(b"", "Location: /0", status="302 Found")} | turns | rules)) as server:
        found = await traced(f"http://a.test:{server.port}/p")
    assert [hop["url_full"].rpartition("/")[2] for hop in found["robots"]["hops"]] == ["robots.txt", "0", "1", "2"]
    assert "/2, after 3 redirects" in shown(found)
    assert not found["robots"]["allowed"]
    async with serve(table({"/robots.txt": ok(b"", "Location: /0", status="302 Found"), "/p": PAGE} | turns)) as server:
        found = await traced(f"http://a.test:{server.port}/p")
    assert len(found["robots"]["hops"]) == 6
    assert found["is_fine"]


async def test_robots_txt_is_left_alone_where_it_is_ignored() -> None:
    """politeness.robots = "ignore", and that is said."""
    async with serve(table({"/": PAGE})) as server:
        found = await traced(f"http://a.test:{server.port}/", "politeness.robots=ignore")
        assert [a.paths for a in server.accepted] == [["/"]]
    assert line(found, "robots.txt") == 'not requested: politeness.robots = "ignore"'


async def test_the_delay_is_kept_between_the_two() -> None:
    """That of the configuration, or the longer one of robots.txt."""
    waits: list[Any] = []
    async with serve(table({"/": PAGE})) as server:
        await traced(f"http://a.test:{server.port}/", "politeness.delay=60ms", "politeness.key=host", waits=waits)
    assert [why for _, why in waits] == ["politeness.delay"]
    assert 0.03 < waits[0][0] <= 0.07
    waits.clear()
    slow = ok(b"User-agent: *\nCrawl-delay: 0.1")
    async with serve(table({"/": PAGE, "/robots.txt": slow})) as server:
        found = await traced(f"http://a.test:{server.port}/", "politeness.delay=1ms", waits=waits)
    assert "Crawl-delay of robots.txt" in [why for _, why in waits]
    assert found["timings_ms"]["waited"] >= 90


async def test_the_scope_is_that_of_the_configuration() -> None:
    """A URL that is no seed is judged as a link; out of scope it is fetched and called what it is."""
    async with serve(table({"/x": PAGE})) as server:
        url = f"http://a.test:{server.port}/x"
        link = await traced(url, f"crawl.seeds=http://a.test:{server.port}/")
        foreign = await traced(url, "crawl.seeds=http://b.test/")
        excluded = await traced(url, "scope.exclude='**/x'")
    assert link["scope"] == {"verdict": "ok", "as": "link"}
    assert foreign["scope"]["deny_reason"] == DenyReason.SCOPE_HOST
    assert excluded["scope"]["deny_reason"] == DenyReason.SCOPE_EXCLUDE
    assert excluded["scope"]["as"] == "seed"
    assert [f["is_fine"] for f in (link, foreign, excluded)] == [True, False, False]
    assert foreign["would"] == "would not request it"
    assert foreign["verdict"] == "200 OK"


# -- answers


async def test_a_redirect_is_not_followed_but_judged() -> None:
    """A seed's redirect would bring its host in."""
    moved = ok(b"", "Location: http://www.a.test/y", status="301 Moved")
    async with serve(table({"/": moved})) as server:
        found = await traced(f"http://a.test:{server.port}/")
    assert found["would"] == "would archive it, and queue http://www.a.test/y, bringing www.a.test into scope"
    assert found["redirect_to"] == "http://www.a.test/y"


@pytest.mark.parametrize(
    ("answer", "said", "would"),
    [
        (ok(b"", "Retry-After: 120", status="429 Slow Down"), "429 Slow Down",
         r"would back off from the host for 2 min \(429 Retry-After 120\), then try again"),
        (ok(b"", status="503 Busy"), "503 Busy", r"would back off from the host for 6(\.1)? s \(503\), then try again"),
        (ok(b"gone", HTML, status="404 Not Found"), "404 Not Found", "would archive it, and be done with it"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc", "200 OK, truncated (truncated)",
         r"would try again after [\d.]+ s or more"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 5, 6\r\n\r\nabc", "error: protocol_error",
         "would give it up"),
        (ok(b"<p>", HTML, "X-Robots-Tag: noindex"), "200 OK",
         r"would archive it, leave it out of pages/ \(noindex\), and queue 0 URLs"),
        (ok(b"\x1f\x8b", "Content-Type: image/png"), "200 OK, truncated (content_type)",
         "would archive it, and be done with it"),
    ],
)  # fmt: skip
async def test_what_a_crawl_would_do_with_a_response(answer: bytes, said: str, would: str) -> None:
    """The same decisions, in a sentence."""

    async def script(c: Any) -> None:
        while path := await c.request():
            await c.send(ok(b"", status="404 None") if path == "/robots.txt" else answer)
            if path != "/robots.txt":
                return

    async with serve(script) as server:
        found = await traced(f"http://a.test:{server.port}/", "fetch.content_types='text/*'")
    assert found["verdict"] == said
    assert re.fullmatch(would, found["would"])
    assert shown(found).splitlines()[-1] == f"  a crawl      {found['would']}"


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (chunked(b"abc"), "chunked, to the last chunk; the connection can be used again"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
         "chunked, to the last chunk; read leniently (tainted); the connection is closed"),
        (b"HTTP/1.1 200 OK\r\n\r\nabc",
         "neither length nor chunks: to the end of the connection; the connection is closed"),
        (b"HTTP/1.1 204 None\r\n\r\n", "no body by its status; the connection can be used again"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nConnection: close\r\n\r\nabc",
         "Content-Length: 3; the connection is closed"),
    ],
)  # fmt: skip
async def test_the_framing_is_explained(answer: bytes, words: str) -> None:
    """By what ended the body."""

    async def script(c: Any) -> None:
        while path := await c.request():
            await c.send(ok(b"", status="404 None") if path == "/robots.txt" else answer)
            if path != "/robots.txt" and b"chunked" not in answer and b"204" not in answer:
                return

    async with serve(script) as server:
        found = await traced(f"http://a.test:{server.port}/")
    assert line(found, "framing") == words


async def test_entries_of_a_feed_are_judged_as_links_are() -> None:
    """By the policy of a crawl for sitemaps and feeds."""
    feed = (
        b"<rss><channel><item><link>http://a.test/1</link></item>"
        b"<item><link>http://other.test/2</link></item></channel></rss>"
    )
    async with serve(table({"/feed": ok(feed, "Content-Type: application/rss+xml")})) as server:
        found = await traced(f"http://a.test:{server.port}/feed")
    assert [(link["url_full"], link.get("deny_reason")) for link in found["links"]["list"]] == [
        ("http://a.test/1", None),
        ("http://other.test/2", "scope_host"),
    ]
    assert found["would"] == "would archive it, list it in pages/, and queue 1 URL"


async def test_the_host_is_left_alone_as_long_as_a_crawl_would() -> None:
    """A connection that is closed without a response makes a host that has answered back off for five seconds."""

    async def script(c: Any) -> None:
        if await c.request() == "/robots.txt":
            await c.send(ok(b"", status="404 None"))
            await c.request()
        await c.cut()  # also the connection over which the request is sent again

    async with serve(script) as server:
        found = await traced(f"http://a.test:{server.port}/")
    assert found["error_type"] == "server_closed"
    assert re.fullmatch(
        r"would back off from the host for [56][\d.]* s \(server_closed\), then try again", found["would"]
    )


async def test_nothing_that_a_server_sends_controls_the_terminal() -> None:
    """Neither head, title nor link carries an escape sequence through; piped there is none at all."""
    evil = ok(b"<title>\x1b[31mred\x07</title><a href='/\x1b]0;x'>", HTML, "X-Evil: \x80\x9b31m")
    async with serve(table({"/": evil})) as server:
        found = await traced(f"http://a.test:{server.port}/", "identity.user_agent=a/1")
    text = shown(found)
    assert all(char.isprintable() or char == "\n" for char in text)
    coloured = shown(found, terminal=True)
    assert "\x1b[31mred" not in coloured
    assert "\x9b" not in coloured
    assert "\x07" not in coloured


async def test_secrets_are_masked(tmp_path: Path) -> None:
    """Credentials go out and are not shown."""
    async with serve(table({"/": PAGE})) as server:
        secrets = tmp_path / "secrets.toml"
        secrets.write_text(f'[origin."http://a.test:{server.port}"]\nbearer = "hush"\n')
        secrets.chmod(0o600)
        found = await traced(f"http://a.test:{server.port}/", f"identity.secrets={secrets}")
        assert b"hush" in server.requests[-1]
    assert "hush" not in shown(found) + orjson.dumps(found).decode()
    assert "Authorization: masked" in shown(found)


async def test_links_are_listed_in_full_on_request() -> None:
    """Else the first few, and how many there are more."""
    body = b"".join(b'<a href="/%d">' % n for n in range(30))
    async with serve(table({"/": ok(body, HTML)})) as server:
        found = await traced(f"http://a.test:{server.port}/")
    assert "… 22 more (--links lists them)" in shown(found)
    assert shown(found, all_links=True).count("✓") == 30
    assert len(found["links"]["list"]) == 30


async def test_the_bar_is_for_wide_terminals() -> None:
    """Piped or narrow, the numbers are enough."""
    async with serve(table({"/": PAGE})) as server:
        found = await traced(f"http://a.test:{server.port}/")
    assert "█" in shown(found, terminal=True, width=100)
    assert "█" not in shown(found, terminal=True, width=60)
    assert "█" not in shown(found)
