"""Reads a list of URLs for programs, whatever its format: a sitemap or an index of sitemaps
(sitemaps.org/protocol.html), as XML or as lines of text, RSS 0.9 to 2.0, or Atom (RFC 4287).

The content decides about the format, not the name or type: the root element, else lines of text. A gzip file without
Content-Encoding (sitemap.xml.gz) is unpacked. It reads a stream: 50 MB of XML are never in memory. Large payloads have
to be read off the event loop. Invariant: no bytes make it raise.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import chain
from typing import Final

from crawler.content.charset import to_utf8
from crawler.content.decode import DecodedPieces
from crawler.content.html.links import ReferenceResolver, from_bytes
from crawler.content.url_lists.url_list import (
    MAX_BYTES,
    MAX_VALUE,
    Collector,
    Texts,
    UrlList,
    UrlListKind,
    date_at,
    priority_of,
)
from crawler.content.url_lists.xml_stream import Handler, StopReading, XmlRefused, read_xml
from crawler.core.body import Body
from crawler.core.enums import CodingFault

_CUT: Final = (CodingFault.TRUNCATED, CodingFault.DAMAGED)  # faults that explain errors of the format
_GZIP_MAGIC: Final = b"\x1f\x8b"
_SNIFFED: Final = 16  # bytes that distinguish gzip, XML and text, after white space
_MOST_SNIFFED: Final = 64 * 1024  # the most bytes read for that
_UTF16_MARKS: Final = (b"\xff\xfe", b"\xfe\xff")
_KINDS: Final = {
    "urlset": UrlListKind.URLS,
    "sitemapindex": UrlListKind.INDEX,
    "rss": UrlListKind.FEED,
    "rdf": UrlListKind.FEED,
    "feed": UrlListKind.FEED,
}
_VALUES: Final = frozenset(("loc", "lastmod", "priority"))
MAX_LINE: Final = 8 * 1024  # of a text sitemap; a longer line is no URL

_ITEM: Final = frozenset(("item", "entry"))
_DATES: Final = ("updated", "modified", "date", "pubdate", "published", "issued")  # the most precise first
_FIELDS: Final = frozenset(("link", "guid", *_DATES))
_MORE: Final = frozenset(("next", "previous", "prev-archive", "next-archive"))
# Relations of links to a page. Without a relation it is "alternate" (RFC 4287 §4.2.7.2).
_PAGE: Final = frozenset(("", "alternate", "http://www.iana.org/assignments/relation/alternate"))


def read_url_list(
    payload: Body,
    codings: Sequence[str],
    *,
    url: str,
    content_type: str | None,
    max_expansion: int,
    text_too: bool,
) -> UrlList:
    """Read the URL list at `url`. `codings`: the values of its Content-Encoding fields.

    `text_too`: lines of text may be a sitemap; without it a page that begins with a URL is none. At most MAX_BYTES
    decoded bytes are read, and `max_expansion` for each coded one.
    """
    pieces = DecodedPieces(payload, codings, max_decoded=MAX_BYTES, max_expansion=max_expansion)
    stream = iter(pieces)
    first = _beginning(stream)
    if first.startswith(_GZIP_MAGIC):
        pieces = DecodedPieces(payload, ("gzip", *codings), max_decoded=MAX_BYTES, max_expansion=max_expansion)
        stream = iter(pieces)
        first = _beginning(stream)
    collector = Collector(url)
    url_list = _read(chain((first,), stream), collector, content_type, text_too, first)
    error = url_list.error
    if pieces.error is not None and pieces.fault is not CodingFault.TRAILING:
        error = pieces.error if error is None or pieces.fault in _CUT or pieces.bomb else error
    return replace(url_list, capped=url_list.capped or pieces.bomb, error=error, size=pieces.size)


def _beginning(stream: Iterator[bytes]) -> bytes:
    """The first bytes, enough to recognise the format."""
    first = b""
    while len(first) < _MOST_SNIFFED and len(first.lstrip()) < _SNIFFED:
        piece = next(stream, b"")
        if not piece:
            break
        first += piece
    return first


def _read(
    stream: Iterator[bytes], collector: Collector, content_type: str | None, text_too: bool, first: bytes
) -> UrlList:
    start = first.removeprefix(b"\xef\xbb\xbf").lstrip()[:1]
    if start == b"<" or (first[:2] in _UTF16_MARKS and b"<" in first[2:8]):
        root = _Root(collector)
        try:
            error = read_xml(stream, root, content_type=content_type)
        except XmlRefused as refused:
            return UrlList(root.kind, error=str(refused))
        return UrlList(root.kind, collector.entries, collector.capped, error)
    if not text_too:
        return UrlList(None)
    error = read_text(stream, collector)
    kind = UrlListKind.URLS if error is None else None
    return UrlList(kind, collector.entries, collector.capped, error)


class _Root:
    """Passes a document to the reader of its root element. `kind` is None as long as that is unknown."""

    def __init__(self, collector: Collector) -> None:
        self._collector = collector
        self._reader: Handler | None = None
        self.kind: UrlListKind | None = None

    def start(self, name: str, attributes: dict[str, str]) -> None:
        if self._reader is None:
            local = name.rpartition(":")[2]
            self.kind = _KINDS.get(local)
            match self.kind:
                case UrlListKind.URLS | UrlListKind.INDEX:
                    self._reader = SitemapReader(self._collector, nested=self.kind is UrlListKind.INDEX)
                case UrlListKind.FEED:
                    self._reader = FeedReader(self._collector)
                case None:
                    raise XmlRefused(f"neither sitemap nor feed: {local[:40]}")
        self._reader.start(name, attributes)

    def text(self, data: str) -> None:
        if self._reader is not None:
            self._reader.text(data)

    def end(self, name: str) -> None:
        if self._reader is not None:
            self._reader.end(name)


class SitemapReader:
    """Reads `urlset`, and `sitemapindex` (`nested`): the values of an entry are two levels below the root.

    A list within a list is read as that list.
    """

    def __init__(self, collector: Collector, *, nested: bool) -> None:
        self._collector = collector
        self._nested = nested
        self._list, self._element = ("sitemapindex", "sitemap") if nested else ("urlset", "url")
        self._lists = 0  # lists within each other
        self._prefix = ""  # of the entry
        self._depth = 0
        self._within = False
        self._field = ""  # the value whose text is being read
        self._fresh = False  # its text begins
        self._values = Texts()
        self._alternates: list[str] = []

    def start(self, name: str, attributes: dict[str, str]) -> None:
        prefix, _, name = name.rpartition(":")
        if name == self._list and self._depth == min(self._lists, 1):
            self._lists += 1
            self._depth = 1
            return
        self._depth += 1
        self._field = ""
        if self._depth == 2:
            self._within = name == self._element
            self._prefix = prefix
            self._values = Texts()
            self._alternates = []
            self._field = "bare" if self._within else ""  # some sites write the URL here, without a loc
        elif self._depth == 3 and self._within:
            if name in _VALUES and prefix == self._prefix:
                self._field = name
            elif name == "link" and attributes.get("rel", "").lower() == "alternate" and "href" in attributes:
                self._alternates.append(attributes["href"])
        self._fresh = True

    def text(self, data: str) -> None:
        if not self._field or (self._fresh and data.isspace()):
            return
        if self._fresh:
            self._fresh = False
            self._values.begin(self._field)
        self._values.add(self._field, data)

    def end(self, name: str) -> None:
        if self._depth == 1:
            self._lists -= 1
            self._depth = min(self._lists, 1)
            return
        self._depth -= 1
        self._field = "bare" if self._depth == 2 and self._within else ""
        self._fresh = True
        if self._depth != 1 or not self._within:
            return
        self._within = False
        values = self._values
        for written in values.of("loc") or [values.first("bare")]:
            self._collector.add(
                written,
                nested=self._nested,
                modified_at=date_at(values.first("lastmod")),
                priority=priority_of(values.first("priority")),
            )
        for alternate in self._alternates:
            self._collector.add(alternate)


def read_text(pieces: Iterator[bytes], collector: Collector) -> str | None:
    """Read a sitemap with a URL on each line, in UTF-8. Returns what is wrong with it, None if nothing.

    A file whose first line is no URL is no sitemap. Later lines that are no URL are ignored.
    """
    found = False
    try:
        for line in _lines(pieces):
            if not line:
                continue
            if not line.lower().startswith(("http://", "https://")):
                if not found:
                    return "neither XML nor a list of URLs"
                continue
            found = True
            collector.add(line)
    except StopReading:
        pass
    return None if found else "empty"


def _lines(pieces: Iterator[bytes]) -> Iterator[str]:
    kept = b""
    began = False
    for piece in pieces:
        data = kept + piece
        if not began:
            began = True
            if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
                data = to_utf8(data, "utf-16le" if data[0] == 0xFF else "utf-16be")
        *lines, kept = data.replace(b"\r", b"\n").split(b"\n")
        kept = kept[: MAX_LINE + 1]
        for line in lines:
            yield _line(line)
    yield _line(kept)


def _line(line: bytes) -> str:
    return "" if len(line) > MAX_LINE else from_bytes(line).strip("\ufeff \t\0")


class FeedReader:
    """Reads feeds of all formats, which have the same items at different levels."""

    def __init__(self, collector: Collector) -> None:
        self._collector = collector
        self._depth = 0
        self._item_depth = 0  # of the item that is read; 0: none
        self._field = ""
        self._values = Texts()
        self._links: list[tuple[str, ReferenceResolver | None]] = []
        self._bases: list[tuple[int, ReferenceResolver | None]] = []

    def start(self, name: str, attributes: dict[str, str]) -> None:
        name = name.rpartition(":")[2]
        self._depth += 1
        if "xml:base" in attributes:
            outer = self._base
            self._bases.append((self._depth, self._collector.base(attributes["xml:base"][:MAX_VALUE], outer)))
        self._field = ""
        if name in _ITEM and not self._item_depth:
            self._item_depth = self._depth
            self._values = Texts()
            self._links = []
            return
        if name == "link" and "href" in attributes:
            self._link(attributes["href"], attributes.get("rel", "").strip().lower())
        elif self._item_depth and self._depth == self._item_depth + 1 and name in _FIELDS:
            self._field = name
        elif name == "link" and not self._item_depth and self._depth == 3:  # of an RSS channel
            self._field = name
            self._values = Texts()
        if self._field:
            self._values.begin(self._field)

    def _link(self, href: str, relation: str) -> None:
        within = self._item_depth if self._item_depth else 0
        if relation in _PAGE:
            if within and self._depth == within + 1:
                self._links.append((href[:MAX_VALUE], self._base))
            elif not within and self._depth <= 3:
                self._collector.add(href, base=self._base)
        elif relation in _MORE and not within and self._depth <= 3:
            self._collector.add(href, nested=True, base=self._base)

    def text(self, data: str) -> None:
        if self._field:
            self._values.add(self._field, data)

    def end(self, name: str) -> None:
        if self._item_depth == self._depth:
            self._item_depth = 0
            self._add_item()
        elif self._field == "link" and not self._item_depth:
            self._collector.add(self._values.first("link"), base=self._base)
        self._field = ""
        if self._bases and self._bases[-1][0] == self._depth:
            self._bases.pop()
        self._depth -= 1

    def _add_item(self) -> None:
        values = self._values
        dates = (text for field in _DATES for text in values.of(field))
        modified_at = next((at for text in dates if (at := date_at(text)) is not None), None)
        links = list(self._links)
        # A guid is a URL unless it says otherwise; if an item has no link it is tried in any case.
        links += [(written, self._base) for written in values.of("link")]
        if not links and (written := values.first("guid")):
            links.append((written, self._base))
        for written, base in links:
            self._collector.add(written, modified_at=modified_at, base=base)

    @property
    def _base(self) -> ReferenceResolver | None:
        return self._bases[-1][1] if self._bases else None
