"""What a page says: its links, title, language, canonical address, refresh and directives to robots.

It sees start tags in order (`tags`), each with what it says (`said`), and no tree; a page in XML is read by `xhtml`. It
does not know scope, robots or what becomes of a link. Invariant: whatever the bytes, it returns; work and memory are
proportional to them.
"""

from collections.abc import Iterable
from typing import Final, cast

from crawler.content import said, xhtml
from crawler.content.links import LINK, KnownLinks, Link, LinkSet
from crawler.content.resolve import Resolver, clean
from crawler.content.tags import TagFinder
from crawler.core.url import UrlError
from crawler.core.value import dataclass

MAX_DIRECTIVES: Final = 64  # meta elements that speak to robots
_MAX_BASES: Final = 16


@dataclass(frozen=True, slots=True)
class Html:
    """What `extract` found. URLs are absolute.

    `links` are in document order (see `LinkSet.resolve`), without those that are known to be stored, which
    `links_count` includes; `canonical` is among them, `refresh` is not. `robots` holds the meta elements that speak to
    robots: the agent they name, lower case (None: all), and their directives as written. `invalid` counts references
    that are no http(s) URL worth fetching. `capped`: the page has more than `max_links`.
    """

    title: str | None
    language: str | None
    canonical: str | None
    links: tuple[Link, ...]
    links_count: int
    refresh: str | None
    robots: tuple[tuple[str | None, str], ...]
    capped: bool
    invalid: int


_LINKING: Final = ("a", "area", "link", "iframe", "frame", "base", "meta", "title", "html")
_REQUIRED: Final = (
    "img", "image", "source", "video", "audio", "track", "script", "style", "input", "embed", "object", "use",
    "body",
)  # fmt: skip
_LINKS_ONLY: Final = TagFinder(_LINKING)
_WITH_REQUISITES: Final = TagFinder((*_LINKING, *_REQUIRED))
_EVERY_TAG: Final = TagFinder(None)  # only where style attributes may refer to something


def extract(
    data: bytes,
    url: str,
    *,
    requisites: bool,
    max_links: int,
    known: KnownLinks | None = None,
    encoding: str = "utf-8",
    xml: bool = False,
) -> Html:
    """Read a page, UTF-8 bytes as `charset.to_utf8` returns them, found at `url`.

    `encoding` is what it came in, for the queries of its links. `xml`: it is application/xhtml+xml. `requisites`: also
    what the page needs to be shown. At most `max_links` different references are kept. `known` saves time, and the
    links that are stored. Never raises for what the bytes are; UrlError only where `url` is not what `core.url.parse`
    returned.
    """
    page = _Page(max_links)
    if xml:
        for statement in xhtml.statements(data, requisites=requisites):
            page.note(*statement)
        return page.finish(Resolver(url, encoding), known)
    if not requisites:
        finder = _LINKS_ONLY
    else:
        finder = _EVERY_TAG if b"url(" in data or b"URL(" in data else _WITH_REQUISITES
    page.read(finder.pieces(data), requisites)
    return page.finish(Resolver(url, encoding), known)


class _Page:
    """What has been seen of one page so far."""

    def __init__(self, max_links: int) -> None:
        self._links = LinkSet(max_links)
        self._bases: list[str] = []
        self._title: str | None = None
        self._language: str | None = None
        self._canonical: str | None = None
        self._refresh: str | None = None
        self._robots: list[tuple[str | None, str]] = []

    def read(self, pieces: Iterable[str], requisites: bool) -> None:
        links = self._links
        add = links.add_clean
        for piece in dict.fromkeys(pieces):  # two thirds of all anchors end where another does
            if piece[:1] != "<":
                if piece:
                    add(piece, LINK)
            else:
                for what, text, detail in said.statements(piece, requisites=requisites):
                    if what == said.REFERENCE:
                        add(text, cast(int, detail))
                    else:
                        self.note(what, text, detail)
            if links.capped:
                return

    def note(self, what: int, text: str, detail: int | str | None) -> None:
        """Take note of what was said. The first of several counts, but of links."""
        match what:
            case said.TITLE:
                self._title = text if self._title is None else self._title
            case said.LANGUAGE:
                self._language = self._language or text or None
            case said.NAMED_CANONICAL:
                self._canonical = text if self._canonical is None else self._canonical
            case said.REFRESH:
                self._refresh = self._refresh or text
            case said.BASE:
                if len(self._bases) < _MAX_BASES:
                    self._bases.append(text)
            case said.ROBOTS:
                if len(self._robots) < MAX_DIRECTIVES:
                    self._robots.append((cast(str | None, detail), text))
            case said.REFERENCE:
                self._links.add_clean(text, cast(int, detail))

    def finish(self, own: Resolver, known: KnownLinks | None) -> Html:
        base = self._base(own)
        resolved = self._links.resolve(base, known)
        return Html(
            title=self._title or None,
            language=self._language,
            canonical=_absolute(self._canonical, base),
            links=resolved.links,
            links_count=resolved.count,
            refresh=_absolute(self._refresh, base),
            robots=tuple(self._robots),
            capped=self._links.capped,
            invalid=resolved.invalid,
        )

    def _base(self, own: Resolver) -> Resolver:
        """Where references start from: the first base that is an http(s) URL, itself resolved against the page's."""
        for written in self._bases:
            absolute = _absolute(written, own)
            if absolute is not None:
                return Resolver(absolute, own.encoding)
        return own


def _absolute(written: str | None, base: Resolver) -> str | None:
    if written is None:
        return None
    reference = clean(written)
    if not reference:
        return None
    try:
        return base.resolve(reference)[0]
    except UrlError:
        return None
