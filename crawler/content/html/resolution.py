"""Resolve a page's references against its base, fast where they are plain.

ada-url (through `core.url`) decides; what is done here in its stead are the forms that nearly every link has and whose
result is a matter of joining text: a path, with or without leading "../", of characters the URL standard leaves alone,
and an http(s) URL with a plain host. Everything else goes to ada. Invariant, held by tests: the answer is always ada's.
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

# What the URL standard escapes in the query of an http(s) URL (special-query percent-encode set), as latin-1 text.
_ESCAPED: Final = re.compile("[\\x00-\\x20\"#<>'\\x7f-\\xff]")
_NOT_ENCODABLE: Final = "%26%23{}%3B"  # "&#N;", escaped
# Pages in these send UTF-8, as the "output encoding" of the Encoding standard says.
_UTF8: Final = frozenset(("utf-8", "utf-16le", "utf-16be", "replacement"))


def output_encoding(encoding: str | None) -> str | None:
    """The encoding in which a page in `encoding` sends its queries; None: UTF-8, as every reference does by itself."""
    return None if encoding in _UTF8 else encoding


def with_query_in(encoding: str, reference: str) -> str:
    """`reference` with a query in ASCII: what stands for its characters in `encoding`, escaped.

    A character that the encoding does not have becomes the escapes of "&#N;". Source: URL standard §4.4, query state,
    and §1.3, "percent-encode after encoding"; Encoding standard, by encoding_rs. Never raises.
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


# Characters that neither end a path nor are escaped in it; "%" is not here because %2E is a dot (URL standard §4.1).
_CHAR: Final = r"[A-Za-z0-9_~!$&()*+,;=@-]"
_NO_COLON: Final = r"[A-Za-z0-9_~!$&()*+,;=@.-]"
_DOTTED: Final = r"[A-Za-z0-9_~!$&()*+,;=@:.-]"
# A segment that cannot be "." or "..": it holds a character other than a dot. Possibly empty.
_SEGMENT: Final = rf"(?:\.*[A-Za-z0-9_~!$&()*+,;=@:-]{_DOTTED}*)?"
_PATH: Final = rf"{_SEGMENT}(?:/{_SEGMENT})*"
_QUERY: Final = r"(?:\?[A-Za-z0-9_~!$&()*+,;=@:./?%-]*)?"
# The first segment of a relative path holds no ":", which would make it a scheme, and is not empty, which would make it
# a host or an absolute path.
_RELATIVE = re.compile(rf"((?:\.\./)*)\.*{_CHAR}{_NO_COLON}*(?:/{_SEGMENT})*{_QUERY}")
_ABSOLUTE = re.compile(rf"/(?!/){_PATH}{_QUERY}")
# Lower-case labels; the last begins with a letter, so it is no IPv4 address; "xn--" is ada's to judge.
_HOST: Final = r"(?:(?!xn--)[a-z0-9_-]+\.)*(?!xn--)[a-z][a-z0-9-]*"
_WHOLE = re.compile(rf"(https?)://({_HOST})((?:/{_PATH})?)({_QUERY})")


_MAX_DEPTH: Final = 32  # folders of a base that are worth preparing; a deeper one is left to ada


class ReferenceResolver:
    """Resolves references against one base, an absolute URL as `core.url.parse` returns it.

    `encoding` is that of the page they stand on (a name of the Encoding standard): their queries are sent in it.
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
        """The base itself."""
        return self._base

    @property
    def folder(self) -> str | None:
        """The URL that relative references are appended to, and behind a space an encoding other than UTF-8: bases that
        share it resolve every reference alike, but for those that begin with "?". None for a base too deep to be worth
        it.
        """
        if not self._folders:
            return None
        return self._folders[0] if self.encoding is None else f"{self._folders[0]} {self.encoding}"

    def resolve(self, reference: str) -> tuple[str, Origin]:
        """The URL that `reference` means and its origin: what `core.url.parse(reference, base)` says, with the query in
        the encoding of the page. Raises UrlError.

        `reference` is what `clean` returned, and not empty.
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
                reference = with_query_in(self.encoding, reference)
            return core_url.parse(reference, self._base)
        if len(href) > MAX_URL_BYTES:
            raise UrlError(DenyReason.URL_TOO_LONG, f"longer than {MAX_URL_BYTES} bytes")
        return href, self._origin

    def legacy_url(self, reference: str, url: str) -> str | None:
        """What `reference` meant when queries of every page were in UTF-8, if that is not `url`, which it means now."""
        if self.encoding is None or reference.isascii():
            return None
        with suppress(UrlError):
            before = core_url.parse(reference, self._base)[0]
            return None if before == url else before
        return None


@lru_cache(1_024)
def _layout(folder: str) -> tuple[Origin, str, Sequence[str]]:
    """The origin of a folder's URL, its root without "/", and what a reference is appended to, with no, one, two …
    leading "../": beyond the root it stays the root. No folders where they are too deep. Raises UrlError.
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
    """A reference as it is written → what of it counts: no outer white space, tab, newline or fragment.

    Returns "" for what is no other page: empty, a fragment alone, or a scheme other than http and https.
    """
    reference = reference.strip(_STRIPPED)
    if not reference.isprintable():  # a quick look: tab and newline are not printable
        reference = reference.translate(_TABS_AND_NEWLINES)
    if "#" in reference:
        kept = reference.partition("#")[0]
        # A space before "#" is part of the path, and would be lost at the end: ada cuts that fragment.
        if kept[-1:] > " " or not kept:
            reference = kept
    if ":" in reference:
        scheme = _SCHEME.match(reference)
        if scheme is not None and scheme[1].lower() not in ("http", "https"):
            return ""
    return reference


_BEYOND_ASCII = re.compile(r"[^\x00-\x7f]")


def from_field(value: str) -> str:
    """A reference as a field of a head has it (`Head` holds bytes as latin-1) → the same in ASCII, each other byte
    escaped as it is.

    Servers send UTF-8 there, or what their files are named in: either reaches the URL unchanged, as in browsers, which
    do the same. In a host the escapes are read as UTF-8 (URL standard §3.5).
    """
    return value if value.isascii() else _BEYOND_ASCII.sub(lambda match: f"%{ord(match[0]):02X}", value)


_NO_UTF8 = re.compile("[\udc80-\udcff]")


def from_bytes(data: bytes) -> str:
    """Text that holds references, in UTF-8; a byte that is none becomes its escape, as in `from_field`."""
    text = data.decode("utf-8", "surrogateescape")
    return text if text.isascii() else _NO_UTF8.sub(lambda match: f"%{ord(match[0]) & 0xFF:02X}", text)
