"""Where a redirect or a refresh leads. It does not know whether that may be followed."""

from typing import Final

from crawler.content.resolve import clean, from_field
from crawler.content.said import refresh_target
from crawler.core.enums import DenyReason
from crawler.core.models import Head
from crawler.core.url import UrlError, parse

MAX_LOCATION: Final = 8 * 1024  # characters; servers' own limit for a header line is mostly the same


def location(head: Head, url: str) -> str:
    """Return the absolute http(s) URL that a response to `url` names in its Location field, without fragment.

    Where there are several fields the first counts. Raises UrlError if there is none or it is empty, longer than
    MAX_LOCATION, holds CR or LF, or is no URL worth fetching. Source: RFC 9110 §10.2.2, resolved by the URL standard,
    as browsers do.
    """
    value = head.get("location")
    if value is None or not value.strip():
        raise UrlError(DenyReason.URL_INVALID, "redirect without a Location")
    if len(value) > MAX_LOCATION:
        raise UrlError(DenyReason.URL_TOO_LONG, f"Location longer than {MAX_LOCATION} bytes")
    if "\r" in value or "\n" in value or "\0" in value:
        raise UrlError(DenyReason.URL_INVALID, "Location with a line break or NUL in it")
    return parse(from_field(value), url)[0]


def refresh(head: Head, url: str) -> str | None:
    """The absolute http(s) URL that a response to `url` names in its Refresh field; None if there is none.

    Source: HTML standard §7.4.2.4, "shared declarative refresh steps", as for a meta element.
    """
    value = head.get("refresh")
    if value is None or len(value) > MAX_LOCATION:
        return None
    reference = clean(from_field(refresh_target(value)))
    if not reference:
        return None
    try:
        return parse(reference, url)[0]
    except UrlError:
        return None
