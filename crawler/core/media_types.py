"""Content-Type fields (RFC 9110 §8.3): the type and charset that a response states, and which types are fetched."""

import re
from collections.abc import Sequence
from functools import lru_cache
from typing import Final

from crawler.core.models import Head

XHTML: Final = "application/xhtml+xml"  # a page in XML

_PART = re.compile(r'(?:[^,"]+|"[^"]*"?)+')  # a comma in quotes separates nothing
_TOKEN: Final = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_ESSENCE = re.compile(rf"[\t\n\r ]*({_TOKEN}/{_TOKEN})[\t\n\r ]*(?:;|\Z)")
_CHARSET = re.compile(r";[\t ]*charset[\t ]*=[\t ]*(?:\"([^\"]*)\"|'([^']*)'|([^\s;\"']+))", re.IGNORECASE)
_UNKNOWN: Final = frozenset(("unknown/unknown", "application/unknown"))  # MIME Sniffing standard §7: as if absent


def mime_type(content_type: str | None) -> str:
    """The type and subtype of a Content-Type, lower case: "text/html"; "" without a usable one.

    Of several types, separated by commas or in fields of their own (`Head.content_type`), the last valid one counts.
    """
    return _parts(content_type)[0] if content_type else ""


def charset_of(content_type: str | None) -> str | None:
    """The charset parameter of a Content-Type as written, None without one.

    If the last value has none, that of an earlier value of the same type counts.
    """
    return _parts(content_type)[1] if content_type else None


def _parts(content_type: str) -> tuple[str, str | None]:
    """Type and charset, cached: the pages of a site share a few values. Long values, mostly hostile, are not cached."""
    return _known_parts(content_type) if len(content_type) <= 128 else _read_parts(content_type)


def _read_parts(content_type: str) -> tuple[str, str | None]:
    essence, charset = "", None
    for part in _PART.findall(content_type):
        match = _ESSENCE.match(part)
        if match is None or match[1] == "*/*":
            continue
        if match[1].lower() != essence:
            essence, charset = match[1].lower(), None
        stated = _CHARSET.search(part)
        if stated is not None:
            charset = stated[1] or stated[2] or stated[3] or charset
    return "" if essence in _UNKNOWN else essence, charset


_known_parts = lru_cache(256)(_read_parts)


_REMEMBERED: Final = 1_024  # values of Content-Type whose verdict is cached; sites use a handful


class ContentTypes:
    """The types to fetch. `globs` such as "text/*" or "application/*+xml" are compared with the lower-case type."""

    def __init__(self, globs: Sequence[str]) -> None:
        alternatives = "|".join(re.escape(glob.lower()).replace(r"\*", r"[^;,\s]*") for glob in globs)
        self._pattern = re.compile(rf"(?:{alternatives})\Z")
        self._known: dict[str, bool] = {}

    def wants(self, head: Head) -> bool:
        """Whether to read the body of a response."""
        if not 200 <= head.status_code < 300:
            return True
        value = head.content_type
        if not value:
            return True
        known = self._known.get(value)
        if known is None:
            mime = mime_type(value)
            known = not mime or self._pattern.match(mime) is not None
            if len(self._known) < _REMEMBERED:
                self._known[value] = known
        return known
