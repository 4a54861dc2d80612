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
from crawler.content.scan import Occurrence, ScanLimitError
from crawler.content.tags import TagFinder
from crawler.core.frozen import dataclass
from crawler.core.url import UrlError

MAX_DIRECTIVES: Final = 64  # meta elements that speak to robots


@dataclass(frozen=True, slots=True)
class Html:
    """What `extract` found. URLs are absolute.

    `links` are in document order (see `LinkSet.resolve`), without those that are known to be stored, which
    `links_count` includes; `canonical` is among them, `refresh` is not. `robots` holds the meta elements that speak to
    robots: the agent they name, lower case (None: all), and their directives as written. `invalid` counts references
    that are no http(s) URL worth fetching. `capped`: the page has more than `max_links`. `cut`: only its
    beginning could be read, the rest takes more steps than PCRE2 allows.
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
    cut: bool


_LINKING: Final = ("a", "area", "link", "iframe", "frame", "base", "meta", "title", "html")
_REQUIRED: Final = (
    "img", "image", "source", "video", "audio", "track", "script", "style", "input", "embed", "object", "use",
    "body",
)  # fmt: skip
_LINKS_ONLY: Final = TagFinder(_LINKING)
_WITH_REQUISITES: Final = TagFinder((*_LINKING, *_REQUIRED))
_EVERY_TAG: Final = TagFinder(None)  # only where any element may refer to something
_IN_ANY: Final = (
    Occurrence(r"\((?<=[uU][rR][lL]\(|-[sS][eE][tT]\()"),  # url(, image-set(: a bracket is found fastest
    Occurrence(r"[bB][aA][cC][kK][gG][rR][oO][uU][nN][dD][\t\n\f\r ]*="),
)
_LAZY_IN_ANY: Final = Occurrence(r"[dD][aA][tT][aA]-[bB][gGaA]")  # data-bg, data-background


def extract(
    data: bytes,
    url: str,
    *,
    requisites: bool,
    lazy: bool = False,
    max_links: int,
    known: KnownLinks | None = None,
    encoding: str = "utf-8",
    xml: bool = False,
) -> Html:
    """Read a page, UTF-8 bytes as `charset.to_utf8` returns them, found at `url`.

    `encoding` is what it came in, for the queries of its links. `xml`: it is application/xhtml+xml. `requisites`: also
    what the page needs to be shown; `lazy`: and what scripts put in place. At most `max_links` different references are
    kept. `known` saves time, and the links that are stored. Never raises for what the bytes are; UrlError only where
    `url` is not what `core.url.parse` returned.
    """
    shows = said.NONE if not requisites else said.LAZY_TOO if lazy else said.SHOWN
    read = data
    while True:
        page = _Page(max_links, shows)
        try:
            if xml:
                page.read_xml(read)
            else:
                page.read(read)
        except ScanLimitError:
            read = read[: len(read) // 2]
        else:
            return page.finish(Resolver(url, encoding), known, cut=len(read) < len(data))


class _Page:
    """What has been seen of one page so far."""

    def __init__(self, max_links: int, requisites: int) -> None:
        self._requisites = requisites
        self._links = LinkSet(max_links)
        self._base_href: str | None = None
        self._title: str | None = None
        self._language: str | None = None
        self._canonical: str | None = None
        self._refresh: str | None = None
        self._robots: list[tuple[str | None, str]] = []

    def _pieces(self, data: bytes) -> Iterable[str]:
        requisites = self._requisites
        if requisites == said.NONE:
            finder = _LINKS_ONLY
        elif any(each.is_in(data) for each in _IN_ANY) or (requisites == said.LAZY_TOO and _LAZY_IN_ANY.is_in(data)):
            finder = _EVERY_TAG
        else:
            finder = _WITH_REQUISITES
        return dict.fromkeys(finder.pieces(data))  # two thirds of all anchors end where another does

    def read_xml(self, data: bytes) -> None:
        for statement in xhtml.statements(data, requisites=self._requisites):
            self._note(*statement)

    def _read_within(self, text: str) -> None:
        """The page of an iframe: only its references count, and no other page in it."""
        for piece in self._pieces(text.encode("utf-8", "replace")):
            if piece[:1] != "<":
                self._links.add(piece, LINK)
                continue
            for what, reference, kind in said.statements(piece, requisites=self._requisites):
                if what == said.REFERENCE:
                    self._links.add_clean(reference, cast(int, kind))

    def read(self, data: bytes) -> None:
        links, requisites = self._links, self._requisites
        add = links.add_clean
        for piece in self._pieces(data):
            if piece[:1] != "<":
                if piece:
                    add(piece, LINK)
            else:
                for what, text, detail in said.statements(piece, requisites=requisites):
                    if what == said.REFERENCE:
                        add(text, cast(int, detail))
                    else:
                        self._note(what, text, detail)
            if links.capped:
                return

    def _note(self, what: int, text: str, detail: int | str | None) -> None:
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
                self._base_href = text if self._base_href is None else self._base_href
            case said.ROBOTS:
                if len(self._robots) < MAX_DIRECTIVES:
                    self._robots.append((cast(str | None, detail), text))
            case said.DOCUMENT:
                self._read_within(text)
            case said.REFERENCE:
                self._links.add_clean(text, cast(int, detail))

    def finish(self, own: Resolver, known: KnownLinks | None, *, cut: bool) -> Html:
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
            cut=cut,
        )

    def _base(self, own: Resolver) -> Resolver:
        """Where references start from: the first base with an href, itself resolved against the page's URL, which stays
        where that is unusable (HTML standard §4.2.3).
        """
        absolute = _absolute(self._base_href, own)
        return own if absolute is None else Resolver(absolute, own.encoding)


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
