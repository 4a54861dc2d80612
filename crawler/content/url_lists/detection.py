"""Reads a list of URLs for programs, whatever its format: sitemap, sitemap index or feed.

The content decides about the format, not the name or type: the root element, else lines of text. A gzip file without
Content-Encoding (sitemap.xml.gz) is unpacked. It reads a stream: 50 MB of XML are never in memory. Large payloads have
to be read off the event loop. Invariant: no bytes make it raise.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import chain
from typing import Final

from crawler.content.decode import DecodedPieces
from crawler.content.url_lists.formats import FeedReader, SitemapReader, read_text
from crawler.content.url_lists.url_list import MAX_BYTES, Collector, UrlList, UrlListKind
from crawler.content.url_lists.xml_stream import Handler, XmlRefused, read_xml
from crawler.core.enums import CodingFault
from crawler.core.models import Body

_CUT: Final = (CodingFault.TRUNCATED, CodingFault.DAMAGED)  # faults that explain errors of the format
_GZIP_MAGIC: Final = b"\x1f\x8b"
_TELLING: Final = 16  # bytes that distinguish gzip, XML and text, after white space
_LOOKED_AT: Final = 64 * 1024  # most bytes that are read for that
_UTF16_MARKS: Final = (b"\xff\xfe", b"\xfe\xff")
_KINDS: Final = {
    "urlset": UrlListKind.URLS,
    "sitemapindex": UrlListKind.INDEX,
    "rss": UrlListKind.FEED,
    "rdf": UrlListKind.FEED,
    "feed": UrlListKind.FEED,
}


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
    while len(first) < _LOOKED_AT and len(first.lstrip()) < _TELLING:
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
