"""The encoding a page declares: the HTML standard's prescan of its first 1024 bytes (§13.2.3.2), and what meta elements
say behind them (§13.2.3.4).

It works on bytes before their encoding is known. It does not know labels from encodings: `charset` looks them up.
"""

import re
from collections.abc import Iterator
from typing import Final

from crawler.content.scan import ScanLimitError
from crawler.content.tags import TagFinder, read_tag

LENGTH: Final = 1_024
_METAS: Final = TagFinder(("meta",))

_TOKEN = re.compile(
    rb"<(?:!--|(meta)(?=[\t\n\f\r /])|(/?[a-z][^\t\n\f\r >]*)|[!/?][^>]*>?)",
    re.IGNORECASE,
)
_COMMENT_END = re.compile(rb"-->")
# §13.2.3.2 "get an attribute": name, then perhaps a quoted or bare value.
_ATTRIBUTE = re.compile(
    rb"[\t\n\f\r /]*(?:([^\t\n\f\r />=][^\t\n\f\r />=]*|=[^\t\n\f\r />=]*)"
    rb"(?:[\t\n\f\r ]*=[\t\n\f\r ]*(?:\"([^\"]*)\"|'([^']*)'|([^\t\n\f\r >\"'][^\t\n\f\r >]*))?)?)"
)
_CHARSET = re.compile(
    rb"charset[\t\n\f\r ]*=[\t\n\f\r ]*(?:\"([^\"]*)\"|'([^']*)'|([^\"'\t\n\f\r ;][^\t\n\f\r ;]*))",
    re.IGNORECASE,
)


_XML_DECLARATION = re.compile(
    rb"<\?xml[^>]*?encoding[\x00-\x20]*=[\x00-\x20]*(?:\"([^\"\x00-\x20>]*)\"|'([^'\x00-\x20>]*)')[^>]*>"
)


def xml_label(data: bytes) -> str | None:
    """The label in an XML declaration at the very start, as it is written: "get an XML encoding"."""
    match = _XML_DECLARATION.match(data[:LENGTH])
    return (match[1] or match[2] or b"").decode("ascii", "replace") if match is not None else None


def declared_labels(data: bytes) -> Iterator[str]:
    """Yield the encoding labels that the meta elements of a page declare, in order, lower case, as they are written."""
    data = data[:LENGTH]
    position = 0
    while (match := _TOKEN.search(data, position)) is not None:
        if match[1] is not None:
            attributes, position = _attributes(data, match.end())
            if not data[position:].strip(b"\t\n\f\r /"):
                return  # cut off: what was read may be half a label
            label = _label(attributes)
            if label:
                yield label.decode("ascii", "replace")
        elif match[2] is not None:
            _, position = _attributes(data, match.end())
        elif match[0] == b"<!--":
            # "<!-->" is a whole comment: its end may share the dashes of the beginning.
            end = _COMMENT_END.search(data, match.end() - 2)
            if end is None:
                return
            position = end.end()
        else:
            position = match.end()


def _attributes(data: bytes, position: int) -> tuple[dict[bytes, bytes], int]:
    """The attributes from `position` on, the first of each name, and where they end."""
    found: dict[bytes, bytes] = {}
    while (match := _ATTRIBUTE.match(data, position)) is not None:
        found.setdefault(match[1].lower(), (match[2] or match[3] or match[4] or b"").lower())
        position = match.end()
    return found, position


def late_labels(data: bytes) -> Iterator[str]:
    """Yield the labels of all meta elements of a page, wherever they stand, as they are written."""
    if b"charset" not in data[LENGTH:].lower():
        return
    try:
        pieces = _METAS.pieces(data)
    except ScanLimitError:
        return
    for piece in pieces:
        name, attributes, _ = read_tag(piece)
        if name != "meta":
            continue
        if "charset" in attributes:
            yield attributes["charset"]
        if attributes.get("http-equiv", "").lower() == "content-type":
            label = _label_in(attributes.get("content", "").encode("ascii", "replace"))
            if label:
                yield label.decode("ascii", "replace")


def _label(attributes: dict[bytes, bytes]) -> bytes | None:
    """The label one meta element declares: charset, or http-equiv with content."""
    if b"charset" in attributes:
        return attributes[b"charset"].strip()
    if attributes.get(b"http-equiv") != b"content-type":
        return None
    return _label_in(attributes.get(b"content", b""))


def _label_in(content: bytes) -> bytes | None:
    """The label in "text/html; charset=…": "extracting a character encoding from a meta element"."""
    match = _CHARSET.search(content)
    return (match[1] or match[2] or match[3] or b"").strip() if match is not None else None
