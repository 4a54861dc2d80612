"""Link fields: what they say, however they are spelt."""

import time

import pytest

from crawler.content.page_headers import header_links, link_values
from crawler.core.enums import Source

URL = "https://a.test/x/page"


@pytest.mark.parametrize(
    ("field", "target", "parameters"),
    [
        ("</a>; rel=next", "/a", {"rel": "next"}),
        ('</a>;rel="next prev";title="x, y; z"', "/a", {"rel": "next prev", "title": "x, y; z"}),
        ("</a> ; REL = next ; title*=UTF-8''x", "/a", {"rel": "next", "title*": "UTF-8''x"}),
        ('</a>; rel="ne\\xt"', "/a", {"rel": "next"}),
        ("</a>; rel=next; rel=prev", "/a", {"rel": "next"}),  # the first counts (§3.3)
        ("</a>; crossorigin; rel=next", "/a", {"crossorigin": "", "rel": "next"}),
        ("</a>", "/a", {}),
        ("</a>;;;", "/a", {}),
        ('</a>; rel="open', "/a", {"rel": "open"}),
        ("junk, </a>; rel=next", "/a", {"rel": "next"}),
        ("</a>; rel=", "/a", {"rel": ""}),
        ("</a>; rel = next x ; y", "/a", {"rel": "next x", "y": ""}),
        ("<>; rel=next", "", {"rel": "next"}),
    ],
)
def test_one_link(field: str, target: str, parameters: dict[str, str]) -> None:
    """RFC 8288 §3, and what appendix B makes of less."""
    assert list(link_values([field])) == [(target, parameters)]


@pytest.mark.parametrize("field", ["", ",,,", "junk", "<unclosed", "rel=next"])
def test_what_holds_no_link(field: str) -> None:
    """Is passed over."""
    assert list(link_values([field])) == []


def test_several_links_and_fields() -> None:
    """A comma in a target or in quotes separates nothing."""
    found = link_values(['<a,b>; rel=next, <c>; title="d,e"; rel=prev', "<f>; rel=alternate"])
    assert [(one.target, one.relations) for one in found] == [("a,b", ["next"]), ("c", ["prev"]), ("f", ["alternate"])]


def test_what_is_followed() -> None:
    """By relation, resolved against the page; an anchor elsewhere speaks of another page."""
    fields = [
        '<?page=2>; rel="next"',
        "</c>; rel=canonical",
        '<https://b.test/>; rel="alternate"; hreflang=de',
        '</feed>; rel=alternate; type="application/rss+xml; charset=utf-8"',
        "<y>; rel=next; anchor=/elsewhere",
        '<z>; rel=next; anchor="#part"',
        "</s.css>; rel=preload; as=style",
        "</n>; rel=nofollow",
        "<https://c.test>; rel=preconnect",
        "<mailto:a@b.test>; rel=next",
    ]
    links, canonical = header_links(fields, URL, requisites=True, max_links=100)
    assert [(link.url, link.source, link.nofollow) for link in links] == [
        ("https://a.test/x/page?page=2", Source.LINK, False),
        ("https://a.test/c", Source.CANONICAL, False),
        ("https://b.test/", Source.ALTERNATE, False),
        ("https://a.test/feed", Source.FEED, False),
        ("https://a.test/x/z", Source.LINK, False),
        ("https://a.test/s.css", Source.REQUISITE, False),
        ("https://a.test/n", Source.LINK, True),
    ]
    assert canonical == "https://a.test/c"
    without, _ = header_links(fields, URL, requisites=False, max_links=100)
    assert Source.REQUISITE not in {link.source for link in without}


def test_bytes_beyond_ascii_reach_the_url_as_they_are() -> None:
    """UTF-8 is not escaped twice, and what is no UTF-8 is not replaced. `Head` holds bytes as latin-1."""
    fields = ["</caf\xc3\xa9>; rel=next, </caf\xe9?\xef>; rel=next", '</a>; rel=prev; anchor="/caf\xc3\xa9"']
    links, _ = header_links(fields, "https://a.test/caf%C3%A9", requisites=True, max_links=10)
    assert [link.url for link in links] == [f"https://a.test/{path}" for path in ("caf%C3%A9", "caf%E9?%EF", "a")]


def test_bounds() -> None:
    """So many links, so many characters, and time in proportion."""
    began = time.thread_time()
    links, _ = header_links(["<a>; rel=next, " * 50_000], URL, requisites=True, max_links=10)
    assert len(links) == 1
    many = ",".join(f"<{n}>;rel=next" for n in range(50_000))
    links, _ = header_links([many], URL, requisites=True, max_links=10)
    assert len(links) == 10
    assert len(list(link_values([many]))) < 5_000
    for bad in ('<a>;x="' + "\\" * 300_000, "<a>;" * 80_000, "<" * 300_000, "<a>" + " " * 300_000):
        list(link_values([bad]))
    assert time.thread_time() - began < 2
