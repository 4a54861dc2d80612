"""Parsing of Content-Type fields."""

import pytest

from crawler.core.media_types import charset_of, mime_type
from crawler.core.models import Head


@pytest.mark.parametrize(
    ("content_type", "mime", "charset"),
    [
        (None, "", None),
        ("", "", None),
        ("text/html", "text/html", None),
        (" Text/HTML ; charset=utf-8", "text/html", "utf-8"),
        ("text/html;", "text/html", None),
        ("application/xhtml+xml", "application/xhtml+xml", None),
        ("text", "", None),
        ("text/", "", None),
        ("/html", "", None),
        ("text/html x", "", None),
        ("te xt/html", "", None),
        ("*/*", "", None),
        ("unknown/unknown", "", None),
        ("application/unknown; charset=x", "", "x"),
        # the examples of the Fetch standard, and more of their kind
        ("text/plain;charset=gbk, text/html", "text/html", None),
        ("text/html;charset=gbk;a=b, text/html;x=y", "text/html", "gbk"),
        ("text/html;charset=gbk;a=b, text/html;x=y;charset=utf-8", "text/html", "utf-8"),
        ("text/html;charset=gbk, x/x, text/html;x=y", "text/html", None),
        ("text/html, */*", "text/html", None),
        ("text/html;charset=gbk, */*;charset=koi8-r", "text/html", "gbk"),
        ("text/html, cannot parse", "text/html", None),
        ("cannot parse, text/html", "text/html", None),
        ('text/html;charset=",text/plain"', "text/html", ",text/plain"),
        ('text/html;x=", a/b;charset=koi8-r', "text/html", "koi8-r"),  # a quote left open takes all
        ("text/html, unknown/unknown", "", None),
        (",,text/html,", "text/html", None),
    ],
)
def test_the_last_valid_type_counts(content_type: str | None, mime: str, charset: str | None) -> None:
    """Its charset may come from an earlier value of the same type. Values without a type are ignored."""
    assert (mime_type(content_type), charset_of(content_type)) == (mime, charset)


@pytest.mark.parametrize(
    ("values", "expected"),
    [((), None), (("text/html",), "text/html"), (("a/b", "text/html;charset=x"), "a/b, text/html;charset=x")],
)
def test_fields_of_that_name_are_one_list(values: tuple[str, ...], expected: str | None) -> None:
    """They are combined as RFC 9110 §5.3 says."""
    assert Head(200, "", "1.1", tuple(("content-type", value) for value in values)).content_type == expected
