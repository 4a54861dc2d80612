"""Parsing of Set-Cookie fields (RFC 6265bis §5.6) and their dates (§5.1.1)."""

from calendar import timegm

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crawler.fetch.credentials import MAX_AGE_S, MAX_FIELD_BYTES, SetCookie, parse_cookie_date, parse_set_cookie

NOW = 1_700_000_000.0

FIELDS = [
    ("a=b", SetCookie("a", "b")),
    (" a\t= b c ", SetCookie("a", "b c")),
    ("a=", SetCookie("a", "")),
    ("a", SetCookie("", "a")),
    ("=a", SetCookie("", "a")),
    ("==a", SetCookie("", "=a")),
    ('a="b; c"', SetCookie("a", '"b')),
    ("a=b=c", SetCookie("a", "b=c")),
    ("", None),
    (";Secure", None),
    ("  =  ", None),
    ("a=b\x00", None),
    ("a=b\r\nX: y", None),
    ("a=b\x7f", None),
    ("a=b\tc", SetCookie("a", "b\tc")),
    ("a=\xe9", SetCookie("a", "\xe9")),
    ("a=" + "x" * 4_095, SetCookie("a", "x" * 4_095)),
    ("a=" + "x" * 4_096, None),
    ("a=b;" + " " * MAX_FIELD_BYTES, None),
    ("a=b" + "; x" * 31 + "; Secure", SetCookie("a", "b", secure=True)),
    ("a=b" + ";" * 33, None),
    ("a=b; Secure; HttpOnly; SameSite=Lax", SetCookie("a", "b", secure=True)),
    ("a=b; secure=no;samesite = NONE", SetCookie("a", "b", secure=True, same_site_none=True)),
    ("a=b; Domain=.Example.ORG; Path=/x", SetCookie("a", "b", "example.org", "/x")),
    ("a=b; Domain=; Path=x", SetCookie("a", "b")),
    ("a=b; Domain=a.test; Domain=", SetCookie("a", "b")),
    ("a=b; Path=/x; Path=y", SetCookie("a", "b")),
    ("a=b; Path=/" + "x" * 1_024, SetCookie("a", "b")),
    ("a=b; Max-Age=60", SetCookie("a", "b", expires_at=NOW + 60)),
    ("a=b; Max-Age=0", SetCookie("a", "b", expires_at=0.0)),
    ("a=b; Max-Age=-1", SetCookie("a", "b", expires_at=0.0)),
    ("a=b; Max-Age=1s", SetCookie("a", "b")),
    ("a=b; Max-Age=+1", SetCookie("a", "b")),
    ("a=b; Max-Age=" + "9" * 500, SetCookie("a", "b", expires_at=NOW + MAX_AGE_S)),
    ("a=b; Max-Age=60; Expires=Wed, 01 Jan 2020 00:00:00 GMT", SetCookie("a", "b", expires_at=NOW + 60)),
    ("a=b; Expires=Wed, 01 Jan 2020 00:00:00 GMT", SetCookie("a", "b", expires_at=1_577_836_800.0)),
    ("a=b; Expires=Fri, 01 Jan 2999 00:00:00 GMT", SetCookie("a", "b", expires_at=NOW + MAX_AGE_S)),
    ("a=b; Expires=never", SetCookie("a", "b")),
]


@pytest.mark.parametrize(("text", "cookie"), FIELDS)
def test_a_field_is_read_as_browsers_read_it(text, cookie):
    """Name, value and attributes; None for an unusable field."""
    assert parse_set_cookie(text, NOW) == cookie


def date(*parts):
    return float(timegm(parts))


DATES = [
    ("Sun, 06 Nov 1994 08:49:37 GMT", date(1994, 11, 6, 8, 49, 37)),
    ("Sunday, 06-Nov-94 08:49:37 GMT", date(1994, 11, 6, 8, 49, 37)),
    ("Sun Nov  6 08:49:37 1994", date(1994, 11, 6, 8, 49, 37)),
    ("06-NOVEMBER-1994 8:49:37", date(1994, 11, 6, 8, 49, 37)),
    ("1 1:2:3 jan 69", date(2069, 1, 1, 1, 2, 3)),
    ("1 1:2:3 jan 70", date(1970, 1, 1, 1, 2, 3)),
    ("Thu, 29 Feb 2024 00:00:00 GMT", date(2024, 2, 29, 0, 0, 0)),
    ("Thu, 29 Feb 2000 00:00:00 GMT", date(2000, 2, 29, 0, 0, 0)),
    ("29 Feb 2023 00:00:00", None),
    ("29 Feb 2100 00:00:00", None),
    ("31 Apr 2023 00:00:00", None),
    ("0 Jan 2023 00:00:00", None),
    ("1 Jan 1600 00:00:00", None),
    ("1 Jan 2023 24:00:00", None),
    ("1 Jan 2023 00:60:00", None),
    ("1 Jan 2023 00:00:60", None),
    ("1 Jan 2023", None),
    ("Jan 2023 00:00:00", None),
    ("1 2023 00:00:00", None),
    ("1 Jan 00:00:00", None),
    ("", None),
    ("2023-01-01T00:00:00Z", None),
]


@pytest.mark.parametrize(("text", "moment"), DATES)
def test_dates_are_read_whatever_their_order(text, moment):
    """The three formats of HTTP and similar ones; a date that does not exist is None."""
    assert parse_cookie_date(text) == moment


@given(st.text(alphabet=st.characters(max_codepoint=255), max_size=300))
def test_no_text_breaks_the_parser(text):
    """The result is a cookie that fits into a header line, or None."""
    cookie = parse_set_cookie(text, NOW)
    if cookie is not None:
        assert not set(cookie.pair) & set("\r\n\x00;")
    parse_cookie_date(text)
