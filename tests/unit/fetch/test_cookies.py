"""Which host may set which cookie, where it is sent, and how many are kept."""

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crawler.core.enums import TaskKind
from crawler.core.models import Fetched
from crawler.core.url import parse, target_of
from crawler.fetch.credentials import CookieJar, CookieLimits
from crawler.fetch.http1.message import build_request
from crawler.fetch.options import FetchOptions
from crawler.sinks.warc import mask_request
from tests.support.fetching import client
from tests.support.scripted_server import Certificates, ok, serve, table

NOW = 1_700_000_000.0


def place(url):
    href, origin = parse(url)
    return origin, target_of(href)


def jar_after(*steps, limits=None):
    """A jar that received responses: (url, Set-Cookie…)."""
    jar = CookieJar(limits or CookieLimits())
    for url, *fields in steps:
        jar.receive(*place(url), fields, NOW)
    return jar


CASES = [
    # what one answer sets, where it is asked for afterwards, what is sent
    ("https://a.test/", "k=v", "https://a.test/", "k=v"),
    ("https://a.test/", "k=v", "https://a.test:8443/x", "k=v"),
    ("https://a.test/", "k=v", "http://a.test/", "k=v"),
    ("https://a.test/", "k=v", "https://www.a.test/", None),
    ("https://a.test/", "k=v", "https://b.test/", None),
    ("https://a.test/", "k=v; Domain=a.test", "https://www.a.test/", "k=v"),
    ("https://www.a.test/", "k=v; Domain=a.test", "https://other.a.test/", "k=v"),
    ("https://www.a.test/", "k=v; Domain=.A.Test", "https://a.test/", "k=v"),
    ("https://www.a.test/", "k=v; Domain=www.a.test", "https://a.test/", None),
    ("https://www.a.test/", "k=v; Domain=www.a.test", "https://x.www.a.test/", "k=v"),
    ("https://a.test/", "k=v; Domain=www.a.test", "https://www.a.test/", None),
    ("https://a.test/", "k=v; Domain=b.test", "https://b.test/", None),
    ("https://xa.test/", "k=v; Domain=a.test", "https://a.test/", None),
    ("https://a.test/", "k=v; Domain=\xe9.test", "https://a.test/", None),
    # public suffixes
    ("https://a.test/", "k=v; Domain=test", "https://a.test/", None),
    ("https://a.co.uk/", "k=v; Domain=co.uk", "https://b.co.uk/", None),
    ("https://a.github.io/", "k=v; Domain=github.io", "https://b.github.io/", None),
    ("https://github.io/", "k=v; Domain=github.io", "https://github.io/", "k=v"),
    ("https://github.io/", "k=v; Domain=github.io", "https://a.github.io/", None),
    ("https://localhost/", "k=v; Domain=localhost", "https://localhost/", "k=v"),
    # addresses
    ("https://127.0.0.1/", "k=v", "https://127.0.0.1/", "k=v"),
    ("https://127.0.0.1/", "k=v; Domain=127.0.0.1", "https://127.0.0.1/", "k=v"),
    ("https://127.0.0.1/", "k=v; Domain=0.0.1", "https://127.0.0.1/", None),
    ("https://[::1]/", "k=v; Domain=[::1]", "https://[::1]/", "k=v"),
    # paths
    ("https://a.test/x/y", "k=v", "https://a.test/x/z", "k=v"),
    ("https://a.test/x/y", "k=v", "https://a.test/x", "k=v"),
    ("https://a.test/x/y", "k=v", "https://a.test/xy", None),
    ("https://a.test/x/y", "k=v", "https://a.test/", None),
    ("https://a.test/x?y=/z/", "k=v", "https://a.test/", "k=v"),
    ("https://a.test/", "k=v; Path=/x/", "https://a.test/x", None),
    ("https://a.test/", "k=v; Path=/x/", "https://a.test/x/y", "k=v"),
    ("https://a.test/", "k=v; Path=/x", "https://a.test/x?y", "k=v"),
    ("https://a.test/", "k=v; Path=/X", "https://a.test/x", None),
    # Secure
    ("https://a.test/", "k=v; Secure", "https://a.test/", "k=v"),
    ("https://a.test/", "k=v; Secure", "http://a.test/", None),
    ("http://a.test/", "k=v; Secure", "https://a.test/", None),
    ("https://a.test/", "k=v; SameSite=None", "https://a.test/", None),
    ("https://a.test/", "k=v; SameSite=None; Secure", "https://a.test/", "k=v"),
    ("https://a.test/", "k=v; SameSite=Strict; HttpOnly", "https://a.test/", "k=v"),
    # prefixes
    ("https://a.test/", "__Secure-k=v", "https://a.test/", None),
    ("https://a.test/", "__secure-k=v; Secure", "https://a.test/", "__secure-k=v"),
    ("https://a.test/", "__Host-k=v; Secure; Path=/", "https://a.test/", "__Host-k=v"),
    ("https://a.test/", "__Host-k=v; Secure", "https://a.test/", None),
    ("https://a.test/", "__Host-k=v; Path=/", "https://a.test/", None),
    ("https://a.test/", "__Host-k=v; Secure; Path=/; Domain=a.test", "https://a.test/", None),
    ("https://a.test/", "__Host-k=v; Secure; Path=/x", "https://a.test/x", None),
    ("https://a.test/", "=__Host-k=v; Secure; Path=/", "https://a.test/", None),
    ("https://a.test/", "__Secure-k; Secure", "https://a.test/", None),
    # expiry
    ("https://a.test/", "k=v; Max-Age=0", "https://a.test/", None),
    ("https://a.test/", "k=v; Expires=Thu, 01 Jan 1970 00:00:00 GMT", "https://a.test/", None),
    ("https://a.test/", "novalue", "https://a.test/", "novalue"),
]


@pytest.mark.parametrize(("set_at", "field", "asked", "sent"), CASES)
def test_a_cookie_is_sent_only_where_it_belongs(set_at, field, asked, sent):
    """Domain, public suffix, path, scheme, prefixes and expiry decide."""
    assert jar_after((set_at, field)).field(*place(asked), NOW) == sent


@pytest.mark.parametrize(
    ("field", "began"),
    [
        ("k=v", True),
        ("k=v; Domain=a.test; Path=/x", True),
        ("k=v; Path=/y", False),
        ("old=2", False),
        ("k=v; Max-Age=0", False),
        ("k=v; Domain=b.test", False),
        ("nonsense\x00", False),
    ],
)
def test_a_response_that_begins_a_session_is_recognised(field, began):
    """It sets a cookie that was not there and that the same request would send, not a new value."""
    jar = jar_after(("https://a.test/x/1", "old=1"))
    assert jar.receive(*place("https://a.test/x/1?q"), [field], NOW) is began


def test_longer_paths_come_first_then_the_older():
    """Servers rely on this order (§5.8.3); a cookie that is set again keeps its age."""
    jar = jar_after(
        ("https://a.test/x/y", "old=1; Path=/", "deep=1; Path=/x/y", "mid=1; Path=/x"),
        ("https://a.test/x/y", "new=1; Path=/", "old=2; Path=/"),
    )
    assert jar.field(*place("https://a.test/x/y"), NOW) == "deep=1; mid=1; old=2; new=1"


def test_cookies_of_one_name_differ_by_domain_and_path():
    """Three cookies of one name are kept."""
    jar = jar_after(("https://w.a.test/x/", "k=1", "k=2; Path=/", "k=3; Domain=a.test; Path=/", "k=4; Domain=w.a.test"))
    assert jar.field(*place("https://w.a.test/x/"), NOW) == "k=1; k=4; k=2; k=3"
    assert jar.field(*place("https://v.a.test/x/"), NOW) == "k=3"


def test_a_cookie_lasts_until_it_expires():
    """Max-Age holds to the second; a cookie without an expiry lasts as long as the jar."""
    jar = jar_after(("https://a.test/", "short=1; Max-Age=10", "session=1"))
    assert jar.field(*place("https://a.test/"), NOW + 9.9) == "short=1; session=1"
    assert jar.field(*place("https://a.test/"), NOW + 10) == "session=1"
    assert len(jar) == 1
    assert jar.field(*place("https://a.test/"), NOW + 1e9) == "session=1"


def test_a_server_can_remove_a_cookie():
    """An expiry in the past removes it, also if there is none."""
    jar = jar_after(("https://a.test/", "k=v", "j=v"), ("https://a.test/", "k=; Max-Age=0", "nothing=; Max-Age=0"))
    assert jar.field(*place("https://a.test/"), NOW) == "j=v"


@pytest.mark.parametrize(
    "over", ["k=evil", "k=evil; Domain=a.test", "k=evil; Path=/x/deeper", "k=; Max-Age=0; Domain=a.test; Path=/x"]
)
def test_plain_http_cannot_push_a_secure_cookie_aside(over):
    """Neither with the same domain and path nor with a longer path (§5.7, "leave secure cookies alone")."""
    jar = jar_after(("https://www.a.test/", "k=good; Secure; Path=/x; Domain=a.test"))
    jar.receive(*place("http://www.a.test/x/"), [over], NOW)
    assert jar.field(*place("https://www.a.test/x/deeper"), NOW) == "k=good"
    jar.receive(*place("http://www.a.test/"), ["k=beside; Path=/"], NOW)
    assert jar.field(*place("https://www.a.test/x"), NOW) == "k=good; k=beside"


def test_a_domain_keeps_the_cookies_used_last():
    """Beyond the bound the least recently used is dropped, those that are not Secure first."""
    limits = CookieLimits(per_domain=3)
    jar = jar_after(("https://a.test/", "s=1; Secure", "a=1; Path=/a", "b=1; Path=/b"), limits=limits)
    assert jar.field(*place("https://a.test/a"), NOW) == "a=1; s=1"
    jar.receive(*place("https://a.test/"), ["c=1"], NOW)
    assert jar.field(*place("https://a.test/b"), NOW) == "s=1; c=1"
    assert len(jar) == 3


def test_the_cookies_of_a_domain_fit_into_a_head():
    """Of fifty cookies of 4 KiB those are kept that fit into 6 KiB."""
    jar = jar_after(("https://a.test/", *(f"k{n}={'x' * 4_000}" for n in range(50))))
    sent = jar.field(*place("https://a.test/"), NOW)
    assert sent is not None
    assert len(sent) < 8_000
    assert sent.startswith("k49=")


def test_the_cookies_of_one_response_are_bounded():
    """Of thousands of fields the first are read."""
    limits = CookieLimits(per_response=5)
    assert len(jar_after(("https://a.test/", *(f"k{n}=v" for n in range(5_000))), limits=limits)) == 5


def test_a_response_full_of_cookies_is_read_quickly():
    """As many and as large as a head may hold: far less than the 50 ms of CPU that a callback may take."""
    fields = [f"k{n}={'x' * 60}" + "; a=b" * 30 for n in range(1_400)] + ["k=v" + ";" * 16_000] * 15
    assert sum(map(len, fields)) > 300 * 1024
    jar = CookieJar()
    origin, target = place("https://a.test/")
    took = []
    for _ in range(5):
        began = time.thread_time()
        jar.receive(origin, target, fields, NOW)
        jar.field(origin, target, NOW)
        took.append(time.thread_time() - began)
    assert min(took) < 0.03
    assert len(jar) == 50


def test_the_jar_is_bounded():
    """The least recently used domain is dropped, by number and by bytes; the counts stay exact."""
    limits = CookieLimits(domains=3)
    jar = jar_after(*((f"https://d{n}.test/", "k=v") for n in range(3)), limits=limits)
    assert jar.field(*place("https://d0.test/"), NOW) == "k=v"
    jar.receive(*place("https://d3.test/"), ["k=v"], NOW)
    assert [jar.field(*place(f"https://d{n}.test/"), NOW) for n in range(4)] == ["k=v", None, "k=v", "k=v"]
    bounded = CookieLimits(bytes_total=20_000)
    jar = CookieJar(bounded)
    for n in range(300):
        jar.receive(*place(f"https://d{n}.test/"), [f"k={'x' * (n * 37 % 4_000)}"], NOW)
        assert jar.held_bytes <= bounded.bytes_total
    assert jar.held_bytes > bounded.bytes_total / 2
    for n in range(300):
        jar.receive(*place(f"https://d{n}.test/"), ["k=; Max-Age=0"], NOW)
    assert (len(jar), jar.held_bytes) == (0, 0)


NAMES = st.sampled_from(["k", "j", "__Host-k", ""])
ATTRIBUTES = st.lists(
    st.sampled_from(
        ["Secure", "Domain=a.test", "Domain=w.a.test", "Domain=test", "Path=/", "Path=/x", "Max-Age=5", "Max-Age=0",
         "SameSite=None", "Expires=Thu, 01 Jan 2099 00:00:00 GMT"]
    ),
    max_size=4,
)  # fmt: skip
URLS = st.sampled_from(
    ["https://a.test/", "http://a.test/x", "https://w.a.test/x/y", "http://w.a.test/", "https://b.test/"]
)
STEPS = st.lists(st.tuples(URLS, NAMES, st.text("xyz", max_size=3), ATTRIBUTES, st.floats(0, 3)), max_size=30)


@given(STEPS)
@settings(max_examples=150, deadline=None)
def test_counts_stay_exact_whatever_is_set(steps):
    """Counts and bytes are those of the kept cookies; no Secure one is sent over http, none to another domain."""
    limits = CookieLimits(per_domain=3, domains=2, bytes_per_domain=20, bytes_total=3_000)
    jar = CookieJar(limits)
    now = NOW
    for url, name, value, attributes, passes in steps:
        now += passes
        jar.receive(*place(url), ["; ".join([f"{name}={value}", *attributes])], now)
        for other in ("https://a.test/x/y", "http://w.a.test/x/y", "https://b.test/"):
            sent = jar.field(*place(other), now)
            if sent is not None:
                build_request("GET", "/", [("Cookie", sent)])
        kept = [cookie for held in jar._jars.values() for cookie in held.cookies.values()]
        assert jar.held_bytes == sum(cookie.held_bytes for cookie in kept) <= limits.bytes_total
        assert all(len(held.cookies) <= 3 and held.pair_bytes <= 20 for held in jar._jars.values())
        assert all(held.pair_bytes == sum(len(c.pair) for c in held.cookies.values()) for held in jar._jars.values())


async def test_the_client_keeps_a_session_with_each_host(tmp_path):
    """Cookies set by a response, redirects and robots.txt included, are sent with the next request; WARC masks them."""
    certificates = Certificates(tmp_path)
    script = table(
        {
            "/robots.txt": ok(b"", "Set-Cookie: seen=robots; Path=/"),
            "/login": ok(b"", "Set-Cookie: session=s3cr3t; Secure; HttpOnly", "Location: /in", status="302 Found"),
            "/in": ok(b"welcome"),
        }
    )
    async with (
        serve(script, tls=certificates.server("a.test", "b.test")) as server,
        client(fetch=FetchOptions(cookies="session"), ca_file=certificates.ca_file) as c,
    ):
        base = f"https://a.test:{server.port}"
        await c.get(f"{base}/robots.txt", kind=TaskKind.ROBOTS)
        await c.get(f"{base}/login")
        result = await c.get(f"{base}/in")
        await c.get(f"https://b.test:{server.port}/in")
        cookies = [
            [line for line in head.split(b"\r\n") if line.lower().startswith(b"cookie:")] for head in server.requests
        ]
        assert cookies == [[], [b"Cookie: seen=robots"], [b"Cookie: seen=robots; session=s3cr3t"], []]
        assert isinstance(result, Fetched)
        assert b"s3cr3t" not in mask_request(result.request_bytes)


async def test_only_a_redirect_that_begins_a_session_is_marked():
    """A page that sets a cookie is not marked, nor a redirect that sets a known cookie."""
    script = table(
        {
            "/page": ok(b"page", "Set-Cookie: a=1"),
            "/moved": ok(b"", "Set-Cookie: b=1", "Location: /page", status="302 Found"),
        }
    )
    async with serve(script) as server, client(fetch=FetchOptions(cookies="session")) as c:
        base = f"http://a.test:{server.port}"
        began = [(await c.get(base + path)).session_began for path in ("/page", "/moved", "/moved", "/page")]
    assert began == [False, True, False, False]


async def test_without_the_option_no_cookie_is_sent():
    """Cookies are off by default."""
    async with serve(table({"/": ok(b"", "Set-Cookie: k=v")})) as server, client() as c:
        await c.get(f"http://a.test:{server.port}/")
        await c.get(f"http://a.test:{server.port}/")
        assert all(b"\r\ncookie:" not in head.lower() for head in server.requests)
