"""Directives to robots, Link fields, redirects and refreshes."""

import time

import pytest

from crawler.content.page_headers import MAX_LOCATION, Directives, header_links, link_values, location, page_directives
from crawler.core.enums import DenyReason, Source
from crawler.core.models import Head
from crawler.core.url import UrlError

Meta = list[tuple[str | None, str]]


@pytest.mark.parametrize(
    ("meta", "fields", "expected"),
    [
        ([], [], Directives()),
        ([(None, "")], [""], Directives()),
        ([(None, "index, follow, all")], ["all"], Directives()),
        ([(None, "NoIndex")], [], Directives(noindex=True)),
        ([(None, "noindex nofollow")], [], Directives(noindex=True, nofollow=True)),
        ([(None, "none")], [], Directives(noindex=True, nofollow=True)),
        ([(None, "follow"), (None, "nofollow")], [], Directives(nofollow=True)),
        ([(None, "index")], ["noindex"], Directives(noindex=True)),
        ([("ourbot", "noarchive")], [], Directives()),
        ([("otherbot", "none")], [], Directives()),
        ([("ourbot", "all"), (None, "noindex")], [], Directives(noindex=True)),
        ([], ["noindex", "nofollow, noarchive"], Directives(noindex=True, nofollow=True)),
        ([], ["OurBot: nofollow"], Directives(nofollow=True)),
        ([], ["otherbot: none"], Directives()),
        ([], ["otherbot: noindex, nofollow"], Directives()),
        ([], ["otherbot: noindex, ourbot: nofollow"], Directives(nofollow=True)),
        ([], ["ourbot: noindex, nofollow"], Directives(noindex=True, nofollow=True)),
        ([], ["unavailable_after: 25 Jun 2010 15:00:00 PST"], Directives()),
        ([], ["unavailable_after: Fri, 25 Jun 2010 15:00:00 PST, nofollow"], Directives(nofollow=True)),
        ([], ["max-snippet: 5, noindex"], Directives(noindex=True)),
        ([], ["nonsense, nofollows, no-index"], Directives()),
    ],
)
def test_directives(meta: Meta, fields: list[str], expected: Directives) -> None:
    """Directives for all and for us are joined, those for others ignored."""
    assert expected == page_directives(meta, fields, "ourBot")


# -- link fields: what they say, however they are spelt


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
    """RFC 8288 §3 and appendix B."""
    assert list(link_values([field])) == [(target, parameters)]


@pytest.mark.parametrize("field", ["", ",,,", "junk", "<unclosed", "rel=next"])
def test_values_without_a_link(field: str) -> None:
    """They are ignored."""
    assert list(link_values([field])) == []


def test_several_links_and_fields() -> None:
    """A comma in a target or in quotes does not separate links."""
    found = link_values(['<a,b>; rel=next, <c>; title="d,e"; rel=prev', "<f>; rel=alternate"])
    assert [(one.target, one.relations) for one in found] == [("a,b", ["next"]), ("c", ["prev"]), ("f", ["alternate"])]


def test_which_links_are_followed() -> None:
    """By relation, resolved against the page; links with an anchor are about another page."""
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
    """UTF-8 is not escaped twice, and other bytes are not replaced. `Head` has bytes as latin-1."""
    fields = ["</caf\xc3\xa9>; rel=next, </caf\xe9?\xef>; rel=next", '</a>; rel=prev; anchor="/caf\xc3\xa9"']
    links, _ = header_links(fields, "https://a.test/caf%C3%A9", requisites=True, max_links=10)
    assert [link.url for link in links] == [f"https://a.test/{path}" for path in ("caf%C3%A9", "caf%E9?%EF", "a")]


def test_bounds() -> None:
    """Links and characters are bounded, and time is proportional."""
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


# -- where redirects lead


REDIRECTED = "https://example.org/a/b?c"


def head(*values: str) -> Head:
    return Head(301, "Moved", "1.1", tuple(("location", value) for value in values))


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("https://other.example/x", "https://other.example/x"),
        ("x#frag", "https://example.org/a/x"),
        ("/x", "https://example.org/x"),
        ("//other.example", "https://other.example/"),
        ("?d", "https://example.org/a/b?d"),
        ("#x", "https://example.org/a/b?c"),
        ("../..//x", "https://example.org//x"),
        ("http://user:secret@other.example/", "http://other.example/"),
        ("/a b", "https://example.org/a%20b"),
        ("/sch\xc3\xb6n", "https://example.org/sch%C3%B6n"),  # UTF-8, as `Head` holds it
        ("/sch\xf6n", "https://example.org/sch%F6n"),  # not UTF-8: the byte as it came
        ("/sch\xf6n/\xc3\xb6?\xef\xf0=\x81", "https://example.org/sch%F6n/%C3%B6?%EF%F0=%81"),
        ("https://b\xc3\xbccher.example/", "https://xn--bcher-kva.example/"),
        ("\\x", "https://example.org/x"),
    ],
)
def test_locations(value: str, expected: str) -> None:
    """A Location is resolved as browsers do, without fragment and userinfo."""
    assert expected == location(head(value), REDIRECTED)


def test_the_first_location_counts() -> None:
    """The first of several fields counts."""
    assert location(head("/x", "/y"), REDIRECTED) == "https://example.org/x"


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ([], DenyReason.URL_INVALID),
        ([""], DenyReason.URL_INVALID),
        (["  "], DenyReason.URL_INVALID),
        (["/a\r\nSet-Cookie: x"], DenyReason.URL_INVALID),
        (["/a\nb"], DenyReason.URL_INVALID),
        (["/a\0b"], DenyReason.URL_INVALID),
        (["/" + "x" * MAX_LOCATION], DenyReason.URL_TOO_LONG),
        (["/" + "x" * 3000], DenyReason.URL_TOO_LONG),
        (["javascript:alert(1)"], DenyReason.SCOPE_SCHEME),
        (["file:///etc/passwd"], DenyReason.SCOPE_SCHEME),
        (["https://["], DenyReason.URL_INVALID),
        (["https://b\xfccher.example/"], DenyReason.URL_INVALID),
        (["https://h:25/"], DenyReason.PORT_BLOCKED),
    ],
)
def test_refused_locations(values: list[str], reason: DenyReason) -> None:
    """An unusable target is refused with its reason."""
    with pytest.raises(UrlError) as caught:
        location(head(*values), REDIRECTED)
    assert reason == caught.value.reason
