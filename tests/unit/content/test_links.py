"""Links of one page, as they are returned."""

import pytest

from crawler.content.html.links import KnownLinks
from crawler.content.html.parsing import parse_page
from crawler.core.enums import Source


def test_a_picture_that_is_also_linked_is_both() -> None:
    """A picture that is linked as well is a requisite although the link is out of scope."""
    page = b'<a href="https://cdn.net/x.jpg"><img src="https://cdn.net/x.jpg"></a><img src="y.jpg">'
    found = parse_page(page, "https://e.org/", requisites=True, max_links=10)
    assert [(link.url, link.source) for link in found.links] == [
        ("https://cdn.net/x.jpg", Source.LINK),
        ("https://e.org/y.jpg", Source.REQUISITE),
        ("https://cdn.net/x.jpg", Source.REQUISITE),
    ]


PAGES = (
    (
        "https://e.test/a/b/one.html",
        '<a href="two.html"><a href="../x"><a href="?q"><a href="/r#f"><a href="//o.test/">',
    ),
    (
        "https://e.test/a/b/two.html?s=1",
        '<a href="?q"><a href="../x" rel=nofollow><a href="one.html"><a href="two.html">',
    ),
    ("https://e.test/a/c/", '<base href="../b/"><a href="two.html"><a href="x:y"><img src="../x"><a href="../x">'),
    ("https://e.test/a/b/", '<link rel=canonical href="two.html"><a href="two.html"><a href="http://[">'),
)


@pytest.mark.parametrize("requisites", [True, False])
def test_cached_links_of_other_pages_change_nothing(requisites: bool) -> None:
    """Pages of a folder share resolved references, except those that depend on the page's name and query."""
    known = KnownLinks()
    for _ in range(2):
        for url, text in PAGES:
            alone = parse_page(text.encode(), url, requisites=requisites, max_links=100)
            assert parse_page(text.encode(), url, requisites=requisites, max_links=100, known=known) == alone
    assert len(known) > 3


def test_the_least_recently_used_folder_is_dropped_first() -> None:
    """The number of references is bounded, and so is that of folders without any."""
    known = KnownLinks(limit=7)
    for folder in ("a", "b", "a", "c"):
        text = '<a href="1"><a href="2">'
        parse_page(text.encode(), f"https://e.test/{folder}/", requisites=False, max_links=100, known=known)
    assert len(known) == 6
    assert known.folder("https://e.test/b/").links == {}
    assert set(known.folder("https://e.test/a/").links) == {"1", "2"}
    for number in range(20):
        parse_page(b"x", f"https://e.test/{number}/", requisites=False, max_links=100, known=known)
    assert len(known) == len(known._folders) == 7


@pytest.mark.parametrize("requisites", [True, False])
def test_links_that_are_stored_are_counted_and_left_out(requisites: bool) -> None:
    """Whatever is stored, the number of links and the links that are not stored are the same."""
    for part in (2, 3, 5):
        stored: set[str] = set()
        known = KnownLinks(stored)
        for _ in range(4):
            for url, text in PAGES:
                whole = parse_page(text.encode(), url, requisites=requisites, max_links=100)
                found = parse_page(text.encode(), url, requisites=requisites, max_links=100, known=known)
                assert found.links_count == len(whole.links) == whole.links_count
                twice = {link.url for link in whole.links if sum(link.url == one.url for one in whole.links) > 1}
                if not twice:
                    assert found.links == tuple(link for link in whole.links if link.url not in stored)
            stored.update([link.url for link in whole.links][::part])


def test_clearing_the_known_links_loses_nothing() -> None:
    """A link that was left out is counted once, whether or not its URL is still known."""
    stored = {"https://e.test/a/1"}
    known = KnownLinks(stored)
    text = b'<a href="1"><a href="2">'
    for _ in range(2):
        found = parse_page(text, "https://e.test/a/", requisites=False, max_links=100, known=known)
        assert ([link.url for link in found.links], found.links_count) == (["https://e.test/a/2"], 2)
    stored.clear()
    found = parse_page(text + b'<a href="../a/1">', "https://e.test/a/", requisites=False, max_links=100, known=known)
    assert found.links_count == 2


def test_references_relative_to_the_page_are_not_cached_for_its_folder() -> None:
    """ "https:?x" is relative to the page, as "?x" is."""
    known = KnownLinks()
    for reference in ("?q=1", "https:?q=1", "HTTPS:"):
        text = f'<a href="{reference}">'.encode()
        for name in ("k", "p"):
            url = f"https://e.test/d/{name}"
            alone = parse_page(text, url, requisites=False, max_links=9)
            assert parse_page(text, url, requisites=False, max_links=9, known=known) == alone
