"""Feeds: RSS 0.9 to 2.0 (RDF among them) and Atom (RFC 4287), read for the pages they announce.

Readers are told of elements by `xmlstream` and put entries into a Collector. What is read: where an item leads, when it
changed, the site the feed is of, and the feed's further pages (RFC 5005).
"""

from typing import Final

from crawler.content.listed import MAX_VALUE, Collector, Texts, date_at
from crawler.content.resolve import Resolver

_ITEM: Final = frozenset(("item", "entry"))
_DATES: Final = ("updated", "modified", "date", "pubdate", "published", "issued")  # the one that says most comes first
_FIELDS: Final = frozenset(("link", "guid", *_DATES))
_MORE: Final = frozenset(("next", "previous", "prev-archive", "next-archive"))
# Relations that lead to a page: RFC 4287 §4.2.7.2 has "alternate" where none is given.
_PAGE: Final = frozenset(("", "alternate", "http://www.iana.org/assignments/relation/alternate"))


class FeedReader:
    """Reads any feed: the formats differ in where items stand, not in what they are called."""

    def __init__(self, collector: Collector) -> None:
        self._collector = collector
        self._depth = 0
        self._item_depth = 0  # of the item being read; 0: none is
        self._field = ""
        self._values = Texts()
        self._links: list[tuple[str, Resolver | None]] = []
        self._guid_is_link = True
        self._bases: list[tuple[int, Resolver | None]] = []

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
        # A guid is an address unless it says otherwise, and where an item has no link it may be one all the same.
        links += [(written, self._base) for written in values.of("link")]
        if not links and (written := values.first("guid")):
            links.append((written, self._base))
        for written, base in links:
            self._collector.add(written, modified_at=modified_at, base=base)

    @property
    def _base(self) -> Resolver | None:
        return self._bases[-1][1] if self._bases else None
