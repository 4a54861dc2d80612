"""Content-Type fields (RFC 9110 §8.3): the type and charset that a response states, and which types are read."""

import re
from collections.abc import Sequence
from functools import lru_cache
from typing import Final

from crawler.core.models import Head

XHTML: Final = "application/xhtml+xml"  # a page in XML

_PART = re.compile(r'(?:[^,"]+|"[^"]*"?)+')  # a comma in quotes is none
_TOKEN: Final = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_ESSENCE = re.compile(rf"[\t\n\r ]*({_TOKEN}/{_TOKEN})[\t\n\r ]*(?:;|\Z)")
_CHARSET = re.compile(r";[\t ]*charset[\t ]*=[\t ]*(?:\"([^\"]*)\"|'([^']*)'|([^\s;\"']+))", re.IGNORECASE)
_UNKNOWN: Final = frozenset(("unknown/unknown", "application/unknown"))  # MIME Sniffing standard §7: as if absent


def mime_type(content_type: str | None) -> str:
    """The type and subtype in a Content-Type, lower case: "text/html"; "" if there is none that says anything.

    Of several, whether behind commas or in fields of their own (`Head.content_type`), the last that is valid counts.
    """
    return _parts(content_type)[0] if content_type else ""


def charset_of(content_type: str | None) -> str | None:
    """The charset parameter of a Content-Type as it is written; None if there is none. That of an earlier value holds
    where the last is of the same type and has none.
    """
    return _parts(content_type)[1] if content_type else None


def _parts(content_type: str) -> tuple[str, str | None]:
    """Type and charset. A site's pages share a few of these fields; long ones are hostile, and not worth keeping."""
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


_REMEMBERED: Final = 1_024  # spellings of Content-Type whose verdict is kept; sites use a handful


class ContentTypes:
    """`globs` as in "text/*" or "application/*+xml", compared with type and subtype, in lower case."""

    def __init__(self, globs: Sequence[str]) -> None:
        alternatives = "|".join(re.escape(glob.lower()).replace(r"\*", r"[^;,\s]*") for glob in globs)
        self._pattern = re.compile(rf"(?:{alternatives})\Z")
        self._known: dict[str, bool] = {}

    def wants(self, head: Head) -> bool:
        """Whether to read the body."""
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
