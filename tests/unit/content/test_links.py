"""Links of one page, as they are handed on."""

from crawler.content.html import extract
from crawler.core.vocabulary import Source


def test_a_picture_that_is_also_linked_is_both() -> None:
    """A thumbnail that links to itself elsewhere is needed to show the page, though as a link it is out of scope."""
    page = b'<a href="https://cdn.net/x.jpg"><img src="https://cdn.net/x.jpg"></a><img src="y.jpg">'
    found = extract(page, "https://e.org/", requisites=True, max_links=10)
    assert [(link.url, link.source) for link in found.links] == [
        ("https://cdn.net/x.jpg", Source.LINK),
        ("https://e.org/y.jpg", Source.REQUISITE),
        ("https://cdn.net/x.jpg", Source.REQUISITE),
    ]
