"""Content-Type fields: the type that a response states, and its charset.

Source: Fetch standard, "extract a MIME type", and MIME Sniffing standard §4.4. It does not know what is done with it.
"""

import re
from functools import lru_cache
from typing import Final

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
