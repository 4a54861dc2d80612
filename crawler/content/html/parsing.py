"""Reads pages, in HTML or in XML (application/xhtml+xml): their links, title, directives to robots.

In XML any element may be closed at once, prefixes are namespaces, CDATA sections are text, and a page ends where it is
not well-formed: what came before that counts.
"""

from collections.abc import Iterable
from contextlib import suppress
from typing import Final, cast

from crawler.content.html import tag_meaning
from crawler.content.html.links import LINK, KnownLinks, Link, LinkSet, ReferenceResolver
from crawler.content.html.tag_meaning import TagMeaning
from crawler.content.html.tags import Occurrence, ScanLimitError, TagFinder, attributes_of
from crawler.content.url_lists.xml_stream import StopReading, XmlRefused, read_document
from crawler.core.models import dataclass

MAX_DIRECTIVES: Final = 64  # meta elements with directives to robots


@dataclass(frozen=True, slots=True)
class ParsedPage:
    """The facts from the HTML of a page. URLs are absolute."""

    title: str | None
    language: str | None
    canonical: str | None
    links: tuple[Link, ...]  # in document order, with `canonical`, without those that are stored
    links_count: int  # with those that are stored
    refresh: str | None
    robots: tuple[tuple[str | None, str], ...]  # agent, lower case (None: all), and directives of meta elements
    capped: bool  # it has more than `max_links`
    cut: bool  # only its beginning was read: the rest takes more steps than PCRE2 allows


_LINKING: Final = ("a", "area", "link", "iframe", "frame", "base", "meta", "title", "html")
_REQUIRED: Final = (
    "img", "image", "source", "video", "audio", "track", "script", "style", "input", "embed", "object", "use",
    "body",
)  # fmt: skip
_LINKS_ONLY: Final = TagFinder(_LINKING)
_WITH_REQUISITES: Final = TagFinder((*_LINKING, *_REQUIRED))
_EVERY_TAG: Final = TagFinder(None)  # only where any element may refer to something
_IN_ANY: Final = (
    Occurrence(r"\((?<=[uU][rR][lL]\(|-[sS][eE][tT]\()"),  # url(, image-set(: a bracket is fastest to find
    Occurrence(r"[bB][aA][cC][kK][gG][rR][oO][uU][nN][dD][\t\n\f\r ]*="),
)
_LAZY_IN_ANY: Final = Occurrence(r"[dD][aA][tT][aA]-[bB][gGaA]")  # data-bg, data-background


def parse_page(
    data: bytes,
    url: str,
    *,
    requisites: bool,
    lazy: bool = False,
    max_links: int,
    known: KnownLinks | None = None,
    encoding: str = "utf-8",
    xml: bool = False,
) -> ParsedPage:
    """Read the page at `url`, in UTF-8 as of `charset.to_utf8`.

    `encoding`: its encoding before that, for the queries of its links. `xml`: it is application/xhtml+xml.
    `requisites`: with what is needed to show the page; `lazy`: and with what scripts load later. At most `max_links`
    different references are read. `known` saves time, and leaves out links that are stored. No bytes make it raise;
    raises UrlError if `url` is no result of `core.url.parse`.
    """
    shows = tag_meaning.NONE if not requisites else tag_meaning.LAZY_TOO if lazy else tag_meaning.SHOWN
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
            return page.finish(ReferenceResolver(url, encoding), known, cut=len(read) < len(data))


class _Page:
    """The facts read from one page so far."""

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
        if requisites == tag_meaning.NONE:
            finder = _LINKS_ONLY
        elif any(each.is_in(data) for each in _IN_ANY) or (
            requisites == tag_meaning.LAZY_TOO and _LAZY_IN_ANY.is_in(data)
        ):
            finder = _EVERY_TAG
        else:
            finder = _WITH_REQUISITES
        return dict.fromkeys(finder.pieces(data))  # two thirds of all anchors end where another does

    def read_xml(self, data: bytes) -> None:
        for meaning in meanings(data, requisites=self._requisites):
            self._note(*meaning)

    def _read_within(self, text: str) -> None:
        """Read the page of an iframe: only its references count, without pages in it."""
        for piece in self._pieces(text.encode("utf-8", "replace")):
            if piece[:1] != "<":
                self._links.add(piece, LINK)
                continue
            for what, reference, kind in tag_meaning.meanings(piece, requisites=self._requisites):
                if what == tag_meaning.REFERENCE:
                    self._links.add_clean(reference, cast(int, kind))

    def read(self, data: bytes) -> None:
        links, requisites = self._links, self._requisites
        add = links.add_clean
        for piece in self._pieces(data):
            if piece[:1] != "<":
                if piece:
                    add(piece, LINK)
            else:
                for what, text, detail in tag_meaning.meanings(piece, requisites=requisites):
                    if what == tag_meaning.REFERENCE:
                        add(text, cast(int, detail))
                    else:
                        self._note(what, text, detail)
            if links.capped:
                return

    def _note(self, what: int, text: str, detail: int | str | None) -> None:
        """Note a meaning. Of several titles, base URLs and the like the first counts."""
        match what:
            case tag_meaning.TITLE:
                self._title = text if self._title is None else self._title
            case tag_meaning.LANGUAGE:
                self._language = self._language or text or None
            case tag_meaning.CANONICAL_URL:
                self._canonical = text if self._canonical is None else self._canonical
            case tag_meaning.REFRESH:
                self._refresh = self._refresh or text
            case tag_meaning.BASE:
                self._base_href = text if self._base_href is None else self._base_href
            case tag_meaning.ROBOTS:
                if len(self._robots) < MAX_DIRECTIVES:
                    self._robots.append((cast(str | None, detail), text))
            case tag_meaning.SRCDOC:
                self._read_within(text)
            case tag_meaning.REFERENCE:
                self._links.add_clean(text, cast(int, detail))

    def finish(self, own: ReferenceResolver, known: KnownLinks | None, *, cut: bool) -> ParsedPage:
        base = self._base(own)
        resolved = self._links.resolve(base, known)
        return ParsedPage(
            title=self._title or None,
            language=self._language,
            canonical=base.absolute(self._canonical or ""),
            links=resolved.links,
            links_count=resolved.count,
            refresh=base.absolute(self._refresh or ""),
            robots=tuple(self._robots),
            capped=self._links.capped,
            cut=cut,
        )

    def _base(self, own: ReferenceResolver) -> ReferenceResolver:
        """The base of references: the href of the first base element, resolved against the page's URL, or that URL if
        it is unusable (HTML standard §4.2.3).
        """
        absolute = own.absolute(self._base_href or "")
        return own if absolute is None else ReferenceResolver(absolute, own.encoding)


# -- pages in XML

_XHTML: Final = "http://www.w3.org/1999/xhtml"
_SVG: Final = "http://www.w3.org/2000/svg"
_PREFIXED: Final = (
    ("http://www.w3.org/1999/xlink href", "xlink:href"),
    ("http://www.w3.org/XML/1998/namespace lang", "lang"),  # it goes before "lang" (HTML standard §3.2.6.2)
)
_WITH_TEXT: Final = frozenset(("title", "style"))
_MAX_TEXT: Final = 512 * 1024  # characters of a title or style sheet that are read
_MAX_MEANINGS: Final = 50_000  # five times as many as a page may have links


def meanings(data: bytes, *, requisites: int) -> list[TagMeaning]:
    """The meanings of a page in XML, in order. `requisites` as in `tag_meaning.meanings`."""
    reader = _XhtmlReader(requisites)
    with suppress(XmlRefused):
        read_document(data.decode("utf-8", "replace"), reader)
    return reader.meanings


class _XhtmlReader:
    """Collects the meanings of elements. Those without namespace count as HTML: their author forgot it."""

    def __init__(self, requisites: int) -> None:
        self.meanings: list[TagMeaning] = []
        self._requisites = requisites
        self._reading = ""  # the title or style whose text is read, with its namespace
        self._attributes: dict[str, str] = {}
        self._text: list[str] = []
        self._room = 0

    def start(self, name: str, attributes: dict[str, str]) -> None:
        namespace, _, local = name.rpartition(" ")
        if namespace not in ("", _XHTML, _SVG):
            return
        if local in _WITH_TEXT and not self._reading:
            self._reading, self._attributes, self._text, self._room = name, attributes, [], _MAX_TEXT
        elif attributes:
            self._add(namespace, local, attributes, "")

    def text(self, data: str) -> None:
        if self._reading and self._room > 0:
            self._text.append(data)
            self._room -= len(data)

    def end(self, name: str) -> None:
        if name == self._reading:
            self._reading = ""
            namespace, _, local = name.rpartition(" ")
            self._add(namespace, local, self._attributes, "".join(self._text))

    def instruction(self, target: str, data: str) -> None:
        """Source: Associating Style Sheets with XML documents 1.0."""
        if target == "xml-stylesheet" and self._requisites:
            self.meanings += tag_meaning.style_sheet_meaning(attributes_of(data).get("href", ""))

    def _add(self, namespace: str, local: str, attributes: dict[str, str], text: str) -> None:
        found = dict(attributes)
        for name, known_as in _PREFIXED:
            if name in found:
                found[known_as] = found.pop(name)
        if namespace == _SVG:
            self.meanings += tag_meaning.svg_meanings(local.lower(), found, text, requisites=self._requisites)
        elif local == "title":
            self.meanings.append(tag_meaning.title_meaning(text))
        else:
            self.meanings += tag_meaning.element_meanings(local, found, text, requisites=self._requisites)
        if len(self.meanings) > _MAX_MEANINGS:
            raise StopReading
