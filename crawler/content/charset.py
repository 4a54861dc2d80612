"""Character encodings: finds the encoding of a page and converts the page to UTF-8.

The sources of an encoding, in order: byte order mark, header, meta elements, XML declaration, detection by chardetng as
in Firefox. If all fail, the page counts as windows-1252, which decodes any bytes, so that no function here raises.
Labels are those of the Encoding standard, looked up by webencodings; decoders are those of encoding_rs (endec).
"""

import codecs
import re
from collections.abc import Iterator
from functools import lru_cache
from typing import Final

import endec
import webencodings
from chardetng_py import EncodingDetector

from crawler.content.html.tags import ScanLimitError, TagFinder, read_tag
from crawler.core.media_types import charset_of

FALLBACK: Final = "windows-1252"
# Bytes that the detection reads, from the first byte beyond ASCII on; Firefox also decides within the first kilobytes.
MAX_DETECTED: Final = 64 * 1024
_BEFORE: Final = 64  # bytes before the first beyond ASCII that it reads too: the letters beside it help
_MOSTLY: Final = 8  # valid characters for each invalid one that make a text UTF-8: no other encoding has so many

_AT_CHARSET: Final = re.compile(rb'@charset "([^"]{1,40})";')
_BEYOND_ASCII: Final = re.compile(rb"[\x1b\x80-\xff]")

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
# Encodings in which an ASCII byte may be another character.
_NOT_ASCII: Final = frozenset(("utf-16le", "utf-16be", "iso-2022-jp", "replacement"))


def sniff(data: bytes, content_type: str | None) -> str:
    """The name of the encoding of `data` in the Encoding standard ("utf-8", "windows-1252"). Never raises."""
    stated = _by_mark(data) or _lookup(charset_of(content_type) or "")
    if stated is not None:
        return stated
    for label in _declared(data):
        found = _lookup(label)
        if found is not None:
            # A declaration that is readable as ASCII is not in UTF-16 (§13.2.3.2, step 15), nor user-defined.
            if found.startswith("utf-16"):
                return "utf-8"
            return FALLBACK if found == "x-user-defined" else found
    return _by_wide_declaration(data) or _detect(data)


def _declared(data: bytes) -> Iterator[str]:
    """The labels in a page: of meta elements at the beginning, of all meta elements, then of an XML declaration."""
    yield from declared_labels(data)
    yield from late_labels(data)
    yield xml_label(data) or ""


def sniff_xml(data: bytes, content_type: str | None) -> str:
    """The encoding of an XML document, from its byte order mark, the header or its declaration; else UTF-8.

    Source: RFC 7303 §3, XML 1.0 §F. A document that is readable as ASCII is not in UTF-16, even if it declares so.
    """
    marked = _by_mark(data) or _by_wide_declaration(data)
    if marked is not None:
        return marked
    for label in (charset_of(content_type), xml_label(data.lstrip(b"\t\n\r "))):
        found = _lookup(label or "")
        if found is not None:
            return "utf-8" if found.startswith("utf-16") else found
    return "utf-8"


def sniff_css(data: bytes, content_type: str | None) -> str:
    """The encoding of a style sheet, from its byte order mark, the header or its @charset; else UTF-8.

    Source: CSS Syntax §3.2, except that the encoding of the page that links to it is not considered.
    """
    stated = _by_mark(data) or _lookup(charset_of(content_type) or "")
    if stated is not None:
        return stated
    at_charset = _AT_CHARSET.match(data)
    found = _lookup(at_charset[1].decode("ascii", "replace")) if at_charset is not None else None
    return "utf-8" if found is None or found.startswith("utf-16") else found


def _by_wide_declaration(data: bytes) -> str | None:
    """UTF-16 without a byte order mark, recognised by an XML declaration (HTML standard §13.2.3.2)."""
    if data.startswith(b"<\0?\0x\0"):
        return "utf-16le"
    return "utf-16be" if data.startswith(b"\0<\0?\0x") else None


def _by_mark(data: bytes) -> str | None:
    """The encoding of a byte order mark. Source: Encoding standard §6.1, "BOM sniff"."""
    if data.startswith(codecs.BOM_UTF8):
        return "utf-8"
    if data.startswith(codecs.BOM_UTF16_LE):
        return "utf-16le"
    if data.startswith(codecs.BOM_UTF16_BE):
        return "utf-16be"
    return None


@lru_cache(maxsize=256)
def _lookup(label: str) -> str | None:
    """The encoding of a label. "replacement" (hz, iso-2022-kr …) counts as no encoding: it makes a page unreadable."""
    encoding = webencodings.lookup(label.strip()) if len(label) < 64 else None
    return str(encoding.name) if encoding is not None and encoding.name != "replacement" else None


def _detect(data: bytes) -> str:
    first = _BEYOND_ASCII.search(data)
    if first is None:
        return FALLBACK  # all ASCII: any encoding will do
    if _is_utf8(data):
        return "utf-8"
    looked_at = data[max(0, first.start() - _BEFORE) : first.start() + MAX_DETECTED]
    detector = EncodingDetector()
    detector.feed(looked_at, last=first.start() + MAX_DETECTED >= len(data))
    return _lookup(detector.guess(tld=None, allow_utf8=False)) or FALLBACK


def _is_utf8(data: bytes) -> bool:
    """Whether `data` is UTF-8. A few invalid characters are accepted, and an incomplete one at the end. Text in another
    encoding is very rarely valid UTF-8.
    """
    text = codecs.utf_8_decode(data, "replace", False)[0]
    characters = len(text) - len(text.encode("ascii", "ignore"))
    if "\ufffd" not in text:
        return characters > 0
    broken = text.count("\ufffd") - data.count(b"\xef\xbf\xbd")
    return characters - broken >= max(1, _MOSTLY * broken)


def to_utf8(data: bytes, encoding: str) -> bytes:
    """Convert `data` to UTF-8 without a byte order mark. Returns the same object if it has this form already.

    Invalid bytes become U+FFFD. `encoding`: a result of `sniff`, or any label; an unknown one counts as windows-1252.
    """
    if data.isascii() and encoding not in _NOT_ASCII:
        return data
    if encoding == "utf-8":
        if data.startswith(codecs.BOM_UTF8):
            data = data[3:]
        try:
            data.decode()
        except UnicodeDecodeError:
            return data.decode("utf-8", "replace").encode()
        return data
    try:
        text = endec.decode(data, encoding, "replace", bom="strip")
    except LookupError:
        text = endec.decode(data, FALLBACK, "replace", bom="strip")
    return text.encode()


# -- labels that a document declares


def xml_label(data: bytes) -> str | None:
    """The label in an XML declaration at the very start, as written ("get an XML encoding")."""
    match = _XML_DECLARATION.match(data[:LENGTH])
    return (match[1] or match[2] or b"").decode("ascii", "replace") if match is not None else None


def declared_labels(data: bytes) -> Iterator[str]:
    """Yield the labels in meta elements at the beginning of a page, in order and lower case."""
    data = data[:LENGTH]
    position = 0
    while (match := _TOKEN.search(data, position)) is not None:
        if match[1] is not None:
            attributes, position = _attributes(data, match.end())
            if not data[position:].strip(b"\t\n\f\r /"):
                return  # cut off: the label may be incomplete
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
    """The attributes from `position` on, the first of each name, and the position of their end."""
    found: dict[bytes, bytes] = {}
    while (match := _ATTRIBUTE.match(data, position)) is not None:
        found.setdefault(match[1].lower(), (match[2] or match[3] or match[4] or b"").lower())
        position = match.end()
    return found, position


def late_labels(data: bytes) -> Iterator[str]:
    """Yield the labels in all meta elements of a page, wherever they are, as written."""
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
    """The label in one meta element: charset, or http-equiv with content."""
    if b"charset" in attributes:
        return attributes[b"charset"].strip()
    if attributes.get(b"http-equiv") != b"content-type":
        return None
    return _label_in(attributes.get(b"content", b""))


def _label_in(content: bytes) -> bytes | None:
    """The label in "text/html; charset=…" ("extracting a character encoding from a meta element")."""
    match = _CHARSET.search(content)
    return (match[1] or match[2] or match[3] or b"").strip() if match is not None else None
