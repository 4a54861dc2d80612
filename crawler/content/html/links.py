"""The links of a page: collected as written, made unique, then resolved.

Links are cheap because fragments and repetitions are removed before resolving: of 121 references of an average JavaDoc
page 32 are left.

Most references need no URL parser, because joining text resolves them: http(s) URLs with a simple host, and paths, with
or without leading "../", of characters that the URL standard does not escape. ada-url (through `core.url`) resolves all
others. Invariant, checked by tests: the result is always that of ada-url.
"""

import re
from collections import OrderedDict
from collections.abc import Collection, Container, Sequence
from contextlib import suppress
from functools import lru_cache
from typing import Final, NamedTuple

import endec
from endec.exceptions import EncodeError

from crawler.core import url as core_url
from crawler.core.enums import DenyReason, Source
from crawler.core.models import Origin, dataclass
from crawler.core.url import MAX_HOST_CHARS, MAX_URL_BYTES, UrlError

# -- references

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


# -- links


class Link(NamedTuple):
    """A link to another URL. A NamedTuple, not a dataclass, because dozens are made for each page."""

    url: str  # absolute, http(s), without fragment
    origin: Origin
    source: Source
    nofollow: bool  # in all its occurrences
    legacy_url: str | None = None  # its URL before queries were in the encoding of their page, if another


# Kinds of references. Of several kinds of one URL the smallest counts. Plain integers: comparing members of an
# enumeration takes ten times as long, and this is done for every reference.
FEED: Final = 0
LINK: Final = 1
ALTERNATE: Final = 2
CANONICAL: Final = 3
REQUISITE: Final = 4
NOFOLLOW: Final = 5

_SOURCES: Final = (Source.FEED, Source.LINK, Source.ALTERNATE, Source.CANONICAL, Source.REQUISITE, Source.LINK)

_STYLES: Final = frozenset(("stylesheet", "icon", "apple-touch-icon", "apple-touch-icon-precomposed", "mask-icon",
                            "manifest", "modulepreload"))  # fmt: skip
_PRELOADED: Final = frozenset(("style", "script", "image", "font"))
FEED_TYPES: Final = frozenset(("application/rss+xml", "application/atom+xml", "application/rdf+xml"))


def relation_kind(relations: Collection[str], as_: str, type_: str) -> int | None:
    """The kind of a link element or Link field with these relations (lower case); None: it is not followed. `as_` and
    `type_`: its parameters of these names, any case.
    """
    if "canonical" in relations:
        return CANONICAL
    if not _STYLES.isdisjoint(relations) or ("preload" in relations and as_.lower() in _PRELOADED):
        return REQUISITE
    if "nofollow" in relations:
        return NOFOLLOW
    if "alternate" in relations:
        return FEED if type_.partition(";")[0].strip().lower() in FEED_TYPES else ALTERNATE
    if "next" in relations or "prev" in relations or "previous" in relations:
        return LINK
    return None


_KINDS: Final = {source: kind for kind, source in reversed(list(enumerate(_SOURCES)))}


def _kind_of(link: Link) -> int:
    return NOFOLLOW if link.nofollow else _KINDS[link.source]


# References that depend on the name of the page, not only on its folder: "?x", "https:?x", "https:" (URL standard
# §4.4).
_OF_THE_PAGE: Final = re.compile(r"\?|[hH][tT][tT][pP][sS]?:(?!//)")
MAX_KNOWN: Final = 32_768  # about 12 MiB: the references of a few hundred folders


class KnownFolder:
    """The resolved references of the pages of one folder."""

    __slots__ = ("links", "stored")

    def __init__(self) -> None:
        self.links: dict[str, Link] = {}  # by reference
        self.stored: dict[str, str] = {}  # reference → URL of a link that is stored and needs nothing more


class KnownLinks:
    """A cache of resolved references, by the folder of their page. Pages of one folder share most of their links, and
    resolving them again would cost more than everything else that is done with them.

    `stored`: the URLs that need not be found again; it may grow, and be emptied. It has at most `limit` references, a
    folder counting as one more; the least recently used folders are dropped first. Not for use by several threads.
    """

    def __init__(self, stored: Container[str] = (), *, limit: int = MAX_KNOWN) -> None:
        self.stored = stored
        self._limit = limit
        self._folders: OrderedDict[str, KnownFolder] = OrderedDict()
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def folder(self, folder: str) -> KnownFolder:
        """The plain links known of a folder. Call `added` for what is added to it."""
        known = self._folders.get(folder)
        if known is None:
            known = self._folders[folder] = KnownFolder()
            self.added(1)
        else:
            self._folders.move_to_end(folder)
        return known

    def added(self, count: int) -> None:
        """Count references that were added to the folder returned last."""
        self._count += count
        while self._count > self._limit:
            _, forgotten = self._folders.popitem(last=False)
            self._count -= 1 + len(forgotten.links) + len(forgotten.stored)


@dataclass(frozen=True, slots=True)
class Resolved:
    """The resolved links of a page."""

    links: tuple[Link, ...]  # each URL once, in the order in which they occur, without those that are stored
    count: int  # with those that are stored


class LinkSet:
    """Collects up to `limit` different references. `capped`: there were more."""

    __slots__ = ("_kinds", "_limit", "_required_too", "capped")

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._kinds: dict[str, int] = {}
        self._required_too: set[str] = set()  # both linked and needed to show the page
        self.capped = False

    def add(self, written: str, kind: int) -> None:
        """Add a reference as written, with character references replaced."""
        reference = clean(written)
        if reference:
            self.add_clean(reference, kind)

    def add_clean(self, reference: str, kind: int) -> None:
        """Add a reference that `clean` would not change."""
        kinds = self._kinds
        known = kinds.get(reference)
        if known is None:
            if len(kinds) < self._limit:
                kinds[reference] = kind
            else:
                self.capped = True
        elif kind != known:
            if kind < known:
                kinds[reference] = kind
            if REQUISITE in (kind, known):
                self._required_too.add(reference)

    def resolve(self, resolver: ReferenceResolver, known: KnownLinks | None = None) -> Resolved:
        """Resolve the references. A URL that is both linked and needed to show the page occurs again at the end as a
        requisite, since as a link it may be out of scope. `known` is read first and gets what it lacks.
        """
        if known is None or resolver.folder is None or self._required_too:
            return self._resolve_all(resolver)
        folder = known.folder(resolver.folder)
        stored = folder.stored
        urls = list(map(stored.get, self._kinds))  # None for few of most pages
        left_out = set(urls)
        if None not in left_out:
            return Resolved((), len(left_out))
        left_out.discard(None)
        found: dict[str, Link] = {}
        fresh = 0
        for (reference, kind), stored_url in zip(self._kinds.items(), urls, strict=True):
            if stored_url is not None:
                continue
            link = folder.links.get(reference) if kind == LINK else None
            if link is None:
                try:
                    url, origin = resolver.resolve(reference)
                except UrlError:
                    continue
                link = Link(url, origin, _SOURCES[kind], kind == NOFOLLOW, resolver.legacy_url(reference, url))
                if kind == LINK and _OF_THE_PAGE.match(reference) is None:
                    folder.links[reference] = link
                    fresh += 1
            if link.url in known.stored:
                left_out.add(link.url)
                if folder.links.pop(reference, None) is not None:
                    stored[reference] = link.url
            elif (before := found.setdefault(link.url, link)) is not link and kind < _kind_of(before):
                found[link.url] = link
        known.added(fresh)
        return Resolved(tuple(found.values()), len(left_out.union(found)))

    def _resolve_all(self, resolver: ReferenceResolver) -> Resolved:
        found: dict[str, Link] = {}
        for reference, kind in self._kinds.items():
            try:
                url, origin = resolver.resolve(reference)
            except UrlError:
                continue
            before = found.get(url)
            if before is None or kind < _kind_of(before):
                legacy_url = resolver.legacy_url(reference, url)
                found[url] = Link(url, origin, _SOURCES[kind], kind == NOFOLLOW, legacy_url)
        links = (*found.values(), *self._requisites(resolver, found))
        return Resolved(links, len(links))

    def _requisites(self, resolver: ReferenceResolver, found: dict[str, Link]) -> list[Link]:
        if not self._required_too:
            return []
        again: dict[str, Link] = {}
        for reference in self._kinds:
            if reference in self._required_too:
                with suppress(UrlError):
                    url, origin = resolver.resolve(reference)
                    if found[url].source is not Source.REQUISITE:
                        again[url] = Link(url, origin, Source.REQUISITE, False)
        return list(again.values())
