"""Sitemaps and feeds in a crawl: where they are looked for, what is believed of them, and what they cost."""

import gzip
from itertools import pairwise

import pytest

from crawler.core.enums import DenyReason, StoppedBy, TaskKind
from crawler.core.models import FetchResult
from crawler.core.options import ScopeOptions
from crawler.engine.pages.url_list_policy import EAGER
from tests.support.engine import Harness
from tests.support.scripted_web import page, response
from tests.support.virtual_time import run

ROOT = "https://a.test/"
ROBOTS = "https://a.test/robots.txt"
MAP = "https://a.test/sitemap.xml"
NAMES_MAP = response(200, b"Sitemap: https://a.test/sitemap.xml\nUser-agent: *\nDisallow: /no\n")


def urlset(*urls: str, **values: str) -> bytes:
    more = "".join(f"<{name}>{value}</{name}>" for name, value in values.items())
    return ("<urlset>" + "".join(f"<url><loc>{url}</loc>{more}</url>" for url in urls) + "</urlset>").encode()


def index(*urls: str, lastmod: str = "") -> bytes:
    return (
        "<sitemapindex>" + "".join(f"<sitemap><loc>{url}</loc></sitemap>" for url in urls) + "</sitemapindex>"
    ).encode()


def xml(body: bytes, **fields: str) -> FetchResult:
    return response(200, body, content_type="application/xml", **fields)


def crawled(
    web: dict[str, FetchResult | list[FetchResult]],
    *,
    sitemaps: str = "named",
    scope: ScopeOptions | None = None,
    ends: StoppedBy = StoppedBy.EMPTY,
) -> Harness:
    """Crawl ROOT; what is not in `web` is an empty page, robots.txt is not there."""

    async def main() -> Harness:
        engine = Harness(ROOT, sitemaps=sitemaps, scope=scope)
        engine.web.pages = dict(web)
        engine.web.other = lambda _, task: response(404 if task.kind is TaskKind.ROBOTS else 200)
        assert await engine.run() is ends
        return engine

    return run(main())


def kinds(engine: Harness) -> dict[str, str]:
    return {each.url: each.task.kind.value for each in engine.web.requests}


def test_a_sitemap_that_robots_txt_names_is_read_before_pages() -> None:
    """As a task of its own kind: stored, logged, and no page. Its entries are pages like others."""
    engine = crawled({ROBOTS: NAMES_MAP, MAP: xml(urlset("/x", "/y", "/no/z", "https://b.test/w"))})
    assert engine.web.urls[:2] == [ROBOTS, ROOT] or engine.web.urls[:2] == [ROBOTS, MAP]
    assert kinds(engine)[MAP] == "sitemap"
    assert engine.settled == {
        ROOT: "done", "https://a.test/x": "done", "https://a.test/y": "done", "https://a.test/no/z": "denied",
    }  # fmt: skip
    assert engine.counters.pages == 3
    assert engine.host("a.test").fetched == 3
    assert [(link.url, link.reason) for link in engine.skipped] == [("https://b.test/w", DenyReason.CROSS_SITE)]
    stored = {visited.settlement.task.url: visited.settlement for visited, _, _ in engine.visits}
    x = stored["https://a.test/x"].task
    assert (x.source.value, x.depth, x.hop_path, x.via) == ("sitemap", 1, "MM", MAP)
    record = stored[MAP].record
    assert record is not None
    assert record.page is None


@pytest.mark.parametrize(
    ("mode", "robots", "asked"),
    [
        ("named", response(404), False),
        ("probe", response(404), True),
        ("probe", response(200, b"User-agent: *\nDisallow: /no\n"), True),
        ("probe", response(200, b"User-agent: *\nDisallow: /sitemap.xml\n"), False),
        ("probe", response(200, b"Sitemap: /other.xml"), False),
        ("off", NAMES_MAP, False),
        ("named", NAMES_MAP, True),
    ],
)
def test_where_sitemaps_are_looked_for(mode: str, robots: FetchResult, asked: bool) -> None:
    """/sitemap.xml is a guess that has to be asked for, and never made where one is named."""
    engine = crawled({ROBOTS: robots, MAP: response(404)}, sitemaps=mode)
    assert (MAP in engine.web.urls) is asked


def test_a_named_sitemap_may_lie_anywhere_and_relative() -> None:
    """It is no page: scope does not keep it out. What it lists is judged as ever."""
    named = "https://cdn.test/a.xml.gz"
    robots = f"Sitemap: {named}\nSitemap: maps/two.txt\nSitemap: mailto:x\n".encode()
    engine = crawled(
        {
            ROBOTS: response(200, robots),
            named: response(
                200, gzip.compress(urlset(f"{ROOT}x", "https://cdn.test/y")), content_type="application/gzip"
            ),
            "https://a.test/maps/two.txt": response(200, f"{ROOT}t\n".encode(), content_type="text/plain"),
        }
    )
    assert set(engine.settled) == {ROOT, f"{ROOT}x", f"{ROOT}t"}
    assert [(link.url, link.reason) for link in engine.skipped] == [("https://cdn.test/y", DenyReason.SCOPE_HOST)]


def test_another_site_is_believed_only_where_that_site_says_so() -> None:
    """Its robots.txt names the sitemap, or the index that led to it."""
    web = {
        ROBOTS: response(200, b"Sitemap: https://b.test/index.xml"),
        "https://b.test/index.xml": xml(index("https://b.test/one.xml")),
        "https://b.test/one.xml": xml(urlset(f"{ROOT}x", "https://c.test/y")),
    }
    engine = crawled(web, scope=ScopeOptions(hosts=("a.test", "b.test", "c.test")))
    assert set(engine.settled) == {ROOT, f"{ROOT}x"}
    assert [(link.url, link.reason) for link in engine.skipped] == [("https://c.test/y", DenyReason.CROSS_SITE)]


def test_an_index_is_followed_two_levels_down() -> None:
    """A third is refused, with its reason."""
    levels = [f"{ROOT}{n}.xml" for n in range(4)]
    web: dict[str, FetchResult | list[FetchResult]] = {ROBOTS: response(200, f"Sitemap: {levels[0]}".encode())}
    web |= {here: xml(index(there)) for here, there in pairwise(levels)}
    engine = crawled(web)
    assert [url for url in levels if url in engine.web.urls] == levels[:3]
    assert [(link.url, link.reason) for link in engine.skipped] == [(levels[3], DenyReason.SCOPE_DEPTH)]


def test_a_large_index_does_not_keep_pages_waiting() -> None:
    """A few sitemaps first, the others when there is nothing better to do."""
    maps = [f"{ROOT}{n}.xml" for n in range(30)]
    web: dict[str, FetchResult | list[FetchResult]] = {ROBOTS: NAMES_MAP, MAP: xml(index(*maps))}
    web |= {url: xml(urlset(f"{url}/page")) for url in maps}
    engine = crawled(web)
    order = engine.web.urls
    first_page = min(order.index(f"{url}/page") for url in maps)
    assert sum(order.index(url) < first_page for url in maps) <= EAGER
    assert {f"{url}/page" for url in maps} <= set(order)


def test_priorities_order_pages() -> None:
    """What the site thinks more of comes first."""
    body = b"<urlset>" + b"".join(
        f"<url><loc>/{n}</loc><priority>{n / 4}</priority></url>".encode() for n in range(5)
    ) + b"</urlset>"  # fmt: skip
    engine = crawled({ROBOTS: NAMES_MAP, MAP: xml(body)})
    assert [url[-1] for url in engine.web.page_urls if url != ROOT] == ["4", "3", "2", "1", "0"]


@pytest.mark.parametrize(
    "body",
    [b'<!DOCTYPE x [<!ENTITY a "b">]><urlset><url><loc>/&a;</loc></url></urlset>', page("/y"), b"\x00\x01", b""],
    ids=["bomb", "a page", "noise", "nothing"],
)
def test_what_is_no_sitemap_is_an_error_of_its_content(body: bytes) -> None:
    """Said once, not tried again, and nothing else suffers."""
    engine = crawled({ROBOTS: NAMES_MAP, MAP: xml(body), ROOT: response(200, page("/x"))})
    assert engine.web.urls.count(MAP) == 1
    assert engine.counters.error_types == {"content_error": 1}
    assert engine.settled == {ROOT: "done", f"{ROOT}x": "done"}


def test_a_redirected_sitemap_is_a_sitemap() -> None:
    """Not a page."""
    moved = response(301, location="/s.xml")
    engine = crawled({ROBOTS: NAMES_MAP, MAP: moved, f"{ROOT}s.xml": xml(urlset("/x"))})
    assert kinds(engine)[f"{ROOT}s.xml"] == "sitemap"
    assert set(engine.settled) == {ROOT, f"{ROOT}x"}


def test_sitemaps_do_not_count_against_a_limit_of_urls() -> None:
    """It is one on pages, and exact."""
    many = xml(urlset(*(f"/{n}" for n in range(50))))
    engine = crawled({ROBOTS: NAMES_MAP, MAP: many}, scope=ScopeOptions(max_urls=7), ends=StoppedBy.MAX_URLS)
    assert MAP in engine.web.urls
    assert len(engine.web.page_urls) == 7


def test_fifty_thousand_entries_leave_the_loop_free() -> None:
    """They are read in a thread and judged in slices, and all of them are stored."""
    body = urlset(*(f"/{n}" for n in range(20_000)), lastmod="2026-01-01")

    async def main() -> None:
        engine = Harness(ROOT, scope=ScopeOptions(max_urls=3))
        engine.web.pages = {ROBOTS: NAMES_MAP, MAP: xml(body)}
        engine.web.other = lambda _, task: response(200)
        before = engine.loop.rounds
        await engine.run()
        assert engine.loop.rounds - before > 20_000 / 500
        assert engine.host("a.test").queued == 20_000 + 1 - 3

    run(main())


# -- feeds

RSS = b"""<rss><channel><link>/about</link><item><link>/1</link></item><item><link>https://b.test/2</link></item>
</channel></rss>"""


def test_a_feed_that_a_page_names_is_read_as_one() -> None:
    """It is no page; what it announces are links."""
    head = b'<link rel=alternate type="application/rss+xml" href=/feed>'
    web = {ROOT: response(200, head), f"{ROOT}feed": response(200, RSS, content_type="application/rss+xml")}
    engine = crawled(web)
    assert kinds(engine)[f"{ROOT}feed"] == "feed"
    assert set(engine.settled) == {ROOT, f"{ROOT}about", f"{ROOT}1"}
    assert [(link.url, link.reason) for link in engine.skipped] == [("https://b.test/2", DenyReason.SCOPE_HOST)]


def test_a_feed_for_each_page_is_not_without_limit() -> None:
    """Beyond the first few of a host they count as pages; one that every page names is one."""
    names = [f"{ROOT}{n}" for n in range(30)]
    feed = '<link rel=alternate type="application/rss+xml" href="{}">'
    web: dict[str, FetchResult | list[FetchResult]] = {ROOT: response(200, page(*names))}
    web |= {url: response(200, (feed.format(f"{url}/feed") + feed.format("/all")).encode()) for url in names}
    engine = crawled(web)
    found = [kind for url, kind in kinds(engine).items() if url.endswith(("/feed", "/all"))]
    assert (found.count("feed"), found.count("page")) == (16, 15)
    assert engine.web.urls.count(f"{ROOT}all") == 1


@pytest.mark.parametrize("content_type", ["text/xml", "application/atom+xml; charset=utf-8", "application/xml"])
def test_a_feed_that_is_linked_as_a_page_is_read_too(content_type: str) -> None:
    """By its root element."""
    engine = crawled({ROOT: response(200, page("/f")), f"{ROOT}f": response(200, RSS, content_type=content_type)})
    assert set(engine.settled) == {ROOT, f"{ROOT}f", f"{ROOT}about", f"{ROOT}1"}


def test_other_xml_is_a_page_without_links() -> None:
    """And no error."""
    engine = crawled({ROOT: xml(b"<note><to>x</to></note>")})
    assert (engine.settled, engine.counters.errors) == ({ROOT: "done"}, 0)


def test_link_fields_lead_on() -> None:
    """Of any content; those of a page that asks not to be followed do not."""
    web = {
        ROOT: response(200, b"text", content_type="text/plain", link="</x>; rel=next, </y>; rel=prefetch"),
        f"{ROOT}x": response(200, page(), link="</z>; rel=next", x_robots_tag="nofollow"),
    }
    assert set(crawled(web).settled) == {ROOT, f"{ROOT}x"}
