"""Where redirects lead."""

import pytest

from crawler.content.page_headers import MAX_LOCATION, location
from crawler.core.enums import DenyReason
from crawler.core.models import Head
from crawler.core.url import UrlError

URL = "https://example.org/a/b?c"


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
    assert expected == location(head(value), URL)


def test_the_first_location_counts() -> None:
    """Of several fields the first is taken."""
    assert location(head("/x", "/y"), URL) == "https://example.org/x"


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
    """What is no usable address is refused with its reason."""
    with pytest.raises(UrlError) as caught:
        location(head(*values), URL)
    assert reason == caught.value.reason
