"""Resolves the references of a page against its base URL, quickly if they are simple.

Most references need no URL parser, because joining text resolves them: http(s) URLs with a simple host, and paths, with
or without leading "../", of characters that the URL standard does not escape. ada-url (through `core.url`) resolves all
others. Invariant, checked by tests: the result is always that of ada-url.
"""

import re
from collections.abc import Sequence
from contextlib import suppress
from functools import lru_cache
from typing import Final

import endec
from endec.exceptions import EncodeError

from crawler.core import url as core_url
from crawler.core.enums import DenyReason
from crawler.core.models import Origin
from crawler.core.url import MAX_HOST_CHARS, MAX_URL_BYTES, UrlError

# Characters that the URL standard escapes in the query of an http(s) URL (special-query percent-encode set).
_ESCAPED: Final = re.compile("[\\x00-\\x20\"#<>'\\x7f-\\xff]")
_NOT_ENCODABLE: Final = "%26%23{}%3B"  # "&#N;", escaped
# Pages in these encodings send UTF-8 ("output encoding" of the Encoding standard).
_UTF8: Final = frozenset(("utf-8", "utf-16le", "utf-16be", "replacement"))


def output_encoding(encoding: str | None) -> str | None:
    """The encoding of queries in the links of a page in `encoding`; None: UTF-8."""
    return None if encoding in _UTF8 else encoding


def encode_query(encoding: str, reference: str) -> str:
    """Return `reference` with its query encoded in `encoding` and escaped, so that the query is ASCII.

    A character that the encoding lacks becomes "&#N;", escaped. Source: URL standard §4.4, query state, and §1.3,
    "percent-encode after encoding"; Encoding standard, by encoding_rs. Never raises.
    """
    path, mark, query = reference.partition("?")
    if query.isascii():
        return reference
    query, mark_of_fragment, fragment = query.partition("#")
    try:
        data = endec.encode(query, encoding)
    except EncodeError:
        data = endec.encode("".join(_encodable(char, encoding) for char in query), encoding, "xmlcharrefreplace")
    query = _ESCAPED.sub(lambda match: f"%{ord(match[0]):02X}", data.decode("latin-1"))
    return f"{path}{mark}{query}{mark_of_fragment}{fragment}"


def _encodable(char: str, encoding: str) -> str:
    if char.isascii():
        return char
    with suppress(EncodeError):
        endec.encode(char, encoding)
        return char
    return _NOT_ENCODABLE.format(ord(char))


# Characters that neither end a path nor are escaped in it. "%" is not among them: %2E is a dot (URL standard §4.1).
_CHAR: Final = r"[A-Za-z0-9_~!$&()*+,;=@-]"
_NO_COLON: Final = r"[A-Za-z0-9_~!$&()*+,;=@.-]"
_DOTTED: Final = r"[A-Za-z0-9_~!$&()*+,;=@:.-]"
# A segment, perhaps empty, that is not "." or "..": it has another character than dots.
_SEGMENT: Final = rf"(?:\.*[A-Za-z0-9_~!$&()*+,;=@:-]{_DOTTED}*)?"
_PATH: Final = rf"{_SEGMENT}(?:/{_SEGMENT})*"
_QUERY: Final = r"(?:\?[A-Za-z0-9_~!$&()*+,;=@:./?%-]*)?"
# The first segment of a relative path has no ":", which would make it a scheme, and is not empty, which would make it a
# host or an absolute path.
_RELATIVE = re.compile(rf"((?:\.\./)*)\.*{_CHAR}{_NO_COLON}*(?:/{_SEGMENT})*{_QUERY}")
_ABSOLUTE = re.compile(rf"/(?!/){_PATH}{_QUERY}")
# Lower-case labels. The last begins with a letter, so it is no IPv4 address. "xn--" is left to ada.
_HOST: Final = r"(?:(?!xn--)[a-z0-9_-]+\.)*(?!xn--)[a-z][a-z0-9-]*"
_WHOLE = re.compile(rf"(https?)://({_HOST})((?:/{_PATH})?)({_QUERY})")


_MAX_DEPTH: Final = 32  # folders of a base; ada resolves the references of a deeper one


class ReferenceResolver:
    """Resolves references against one base, an absolute URL as `core.url.parse` returns it.

    `encoding` is the encoding of the page (a name of the Encoding standard), in which queries are sent.
    """

    __slots__ = ("_base", "_folders", "_origin", "_root", "encoding")

    def __init__(self, base: str, encoding: str | None = None) -> None:
        self.encoding = None if encoding is None else output_encoding(encoding)  # None: UTF-8
        end = base.find("?")
        cut = base.rfind("/", 0, None if end < 0 else end) + 1
        self._base = base
        self._origin, self._root, self._folders = _layout(base[:cut])

    @property
    def url(self) -> str:
        """The base URL."""
        return self._base

    @property
    def folder(self) -> str | None:
        """A key for bases that resolve all references alike, except references that begin with "?": the URL of the
        base's folder, followed by a space and the encoding if that is not UTF-8. None for a base that is too deep.
        """
        if not self._folders:
            return None
        return self._folders[0] if self.encoding is None else f"{self._folders[0]} {self.encoding}"

    def resolve(self, reference: str) -> tuple[str, Origin]:
        """Return the URL of a reference and its origin, as `core.url.parse(reference, base)` does, but with the query
        in the encoding of the page. `reference` is a result of `clean` that is not empty. Raises UrlError.
        """
        href = None
        if len(reference) >= MAX_URL_BYTES:
            pass
        elif reference[0] == "/":
            if _ABSOLUTE.fullmatch(reference) is not None:
                href = self._root + reference
        elif reference.startswith("http"):
            match = _WHOLE.fullmatch(reference)
            if match is not None and len(match[2]) <= MAX_HOST_CHARS:
                scheme, host, path, query = match.groups()
                origin = Origin(scheme, host, 443 if scheme == "https" else 80)
                return (reference if path else f"{scheme}://{host}/{query}"), origin
        elif self._folders:
            match = _RELATIVE.fullmatch(reference)
            if match is not None:
                above = match.end(1)
                if above:
                    href = self._folders[min(above // 3, len(self._folders) - 1)] + reference[above:]
                else:
                    href = self._folders[0] + reference
        if href is None:
            if self.encoding is not None and not reference.isascii():
                reference = encode_query(self.encoding, reference)
            return core_url.parse(reference, self._base)
        if len(href) > MAX_URL_BYTES:
            raise UrlError(DenyReason.URL_TOO_LONG, f"longer than {MAX_URL_BYTES} bytes")
        return href, self._origin

    def absolute(self, written: str) -> str | None:
        """The URL of a reference as written; None if it names no other page or is no http(s) URL."""
        with suppress(UrlError):
            if reference := clean(written):
                return self.resolve(reference)[0]
        return None

    def legacy_url(self, reference: str, url: str) -> str | None:
        """The URL that earlier versions made of a reference, with its query in UTF-8; None if it is `url`, as now."""
        if self.encoding is None or reference.isascii():
            return None
        with suppress(UrlError):
            before = core_url.parse(reference, self._base)[0]
            return None if before == url else before
        return None


@lru_cache(1_024)
def _layout(folder: str) -> tuple[Origin, str, Sequence[str]]:
    """The origin of the URL of a folder, its root without "/", and the URLs of the folder and of those above it, to
    which a reference with none, one, two … leading "../" is appended. No URLs if it is too deep. Raises UrlError.
    """
    href, origin = core_url.check_href(folder)
    start = href.index("/", href.index("://") + 3)
    root = href[:start]
    segments = href[start:].split("/")[1:-1]
    depth = len(segments)
    if depth > _MAX_DEPTH:
        return origin, root, ()
    return origin, root, ["/".join((root, *segments[:count], "")) for count in range(depth, -1, -1)]


_STRIPPED: Final = "".join(map(chr, range(0x21)))  # C0 control or space (URL standard §4.4, step 1)
_TABS_AND_NEWLINES: Final = {9: None, 10: None, 13: None}
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*):")


def clean(reference: str) -> str:
    """Remove outer white space, tabs, newlines and the fragment from a reference as written.

    Returns "" for a reference that names no other page: empty, a fragment alone, or a scheme other than http and https.
    """
    reference = reference.strip(_STRIPPED)
    if not reference.isprintable():  # fast; tab and newline are not printable
        reference = reference.translate(_TABS_AND_NEWLINES)
    if "#" in reference:
        kept = reference.partition("#")[0]
        # A space before "#" is part of the path and would be lost at the end: here ada removes the fragment.
        if kept[-1:] > " " or not kept:
            reference = kept
    if ":" in reference:
        scheme = _SCHEME.match(reference)
        if scheme is not None and scheme[1].lower() not in ("http", "https"):
            return ""
    return reference


_BEYOND_ASCII = re.compile(r"[^\x00-\x7f]")


def from_field(value: str) -> str:
    """Escape the bytes beyond ASCII in a reference from a header field (`Head` has bytes as latin-1).

    Servers send UTF-8 or the encoding of their file names. Both reach the URL unchanged, as in browsers. In a host the
    escapes are decoded as UTF-8 (URL standard §3.5).
    """
    return value if value.isascii() else _BEYOND_ASCII.sub(lambda match: f"%{ord(match[0]):02X}", value)


_NO_UTF8 = re.compile("[\udc80-\udcff]")


def from_bytes(data: bytes) -> str:
    """Decode text with references as UTF-8. Bytes that are no UTF-8 are escaped, as in `from_field`."""
    text = data.decode("utf-8", "surrogateescape")
    return text if text.isascii() else _NO_UTF8.sub(lambda match: f"%{ord(match[0]) & 0xFF:02X}", text)
