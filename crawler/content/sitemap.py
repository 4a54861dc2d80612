"""Sitemaps and sitemap indexes (sitemaps.org/protocol.html), in XML or as plain text.

Readers are told of elements by `xmlstream` and put entries into a Collector. Extensions (images, news, video) have
elements of their own in an entry, told by their prefix, and are passed over, but for alternates in other languages,
which are pages.
"""

from collections.abc import Iterator
from typing import Final

from crawler.content.charset import to_utf8
from crawler.content.listed import Collector, Texts, date_at, priority_of
from crawler.content.resolve import from_bytes
from crawler.content.xmlstream import Enough

_VALUES: Final = frozenset(("loc", "lastmod", "priority"))
MAX_LINE: Final = 8 * 1024  # of a text sitemap; a longer one is no URL


class SitemapReader:
    """Reads `urlset` and `sitemapindex` (`nested`): two levels down from the root are an entry's values.

    A list in a list is read as that list.
    """

    def __init__(self, collector: Collector, *, nested: bool) -> None:
        self._collector = collector
        self._nested = nested
        self._list, self._element = ("sitemapindex", "sitemap") if nested else ("urlset", "url")
        self._lists = 0  # in one another
        self._prefix = ""  # of the entry
        self._depth = 0
        self._within = False
        self._field = ""  # whose text is being read
        self._fresh = False  # it begins anew
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
            self._field = "bare" if self._within else ""  # some put the URL there, without a loc
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
    """A sitemap that has a URL a line, in UTF-8. Returns in words what is wrong with it.

    A file whose first line is no URL is something else. A line that is none, later on, is passed over.
    """
    found = False
    try:
        for line in _lines(pieces):
            if not line:
                continue
            if not line.lower().startswith(("http://", "https://")):
                if not found:
                    return "neither XML nor a list of URLs"
                collector.invalid += 1
                continue
            found = True
            collector.add(line)
    except Enough:
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
