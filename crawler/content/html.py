"""What a page says: its links, title, language, canonical address, refresh and directives to robots.

It sees start tags in order (`tags`), no tree. It does not know scope, robots or what becomes of a link. Invariant:
whatever the bytes, it returns; work and memory are proportional to them.
"""

import re
from html import unescape
from typing import Final

from crawler.content.css import written_references
from crawler.content.links import CANONICAL, LINK, NOFOLLOW, REQUISITE, KnownLinks, Link, LinkSet, relation_kind
from crawler.content.resolve import Resolver, clean
from crawler.content.tags import TagFinder, anchor_attributes, attributes_of
from crawler.core.url import UrlError
from crawler.core.value import dataclass

MAX_TITLE: Final = 512  # characters that are kept; search engines show some 60
MAX_LANGUAGE: Final = 35  # RFC 5646 §4.4.1: what a tag may need
MAX_DIRECTIVES: Final = 64  # meta elements that speak to robots
MAX_DIRECTIVE_CHARS: Final = 1_024


@dataclass(frozen=True, slots=True)
class Html:
    """What `extract` found. URLs are absolute.

    `links` are in document order (see `LinkSet.resolve`); `canonical` is among them, `refresh` is not. `robots` holds
    the meta elements that speak to robots: the agent they name, lower case (None: all), and their directives as
    written. `invalid` counts references that are no http(s) URL worth fetching. `capped`: the page has more than
    `max_links`.
    """

    title: str | None
    language: str | None
    canonical: str | None
    links: tuple[Link, ...]
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

_REFRESH: Final = re.compile(
    r"[\t\n\f\r ]*+(?:[0-9]++(?:\.[0-9.]*+)?+|\.[0-9.]*+)(?:[\t\n\f\r ]*+[;,]|[\t\n\f\r ])[\t\n\f\r ]*+"
    r"(?:[uU][rR][lL][\t\n\f\r ]*+=[\t\n\f\r ]*+)?+(?:\"([^\"]*+)|'([^']*+)|([\s\S]*+))"
)
_CANDIDATE: Final = re.compile(r"[\t\n\f\r ,]*+([^\t\n\f\r ]++)([^,]*+)")
_DIRECTIVE: Final = re.compile(r"no(?:index|follow|archive|ne)\b")

# Attributes that hold one URL of what a page needs to be shown, by element.
_SOURCES: Final = {
    "img": ("src",),
    "image": ("href", "xlink:href"),
    "use": ("href", "xlink:href"),
    "source": ("src",),
    "video": ("src", "poster"),
    "audio": ("src",),
    "track": ("src",),
    "script": ("src", "href", "xlink:href"),
    "embed": ("src",),
    "object": ("data",),
    "body": ("background",),
}


def extract(data: bytes, url: str, *, requisites: bool, max_links: int, known: KnownLinks | None = None) -> Html:
    """Read a page, UTF-8 bytes as `charset.to_utf8` returns them, found at `url`.

    `requisites`: also what the page needs to be shown. At most `max_links` different references are kept. `known` saves
    time and changes nothing. Never raises for what the bytes are; UrlError only where `url` is not what
    `core.url.parse` returned.
    """
    page = _Page(max_links, requisites)
    text = data.decode("utf-8", "replace")
    if not requisites:
        finder = _LINKS_ONLY
    else:
        finder = _EVERY_TAG if "url(" in text or "URL(" in text else _WITH_REQUISITES
    page.read(text, finder)
    return page.finish(url, known)


def _may_matter(attributes: str) -> bool:
    """Whether a meta element can be a refresh or speak to robots; most are descriptions."""
    lower = attributes.lower()
    return "robots" in lower or "refresh" in lower or "&" in lower or _DIRECTIVE.search(lower) is not None


class _Page:
    """What has been seen of one page so far."""

    def __init__(self, max_links: int, requisites: bool) -> None:
        self._links = LinkSet(max_links)
        self._requisites = requisites
        self._bases: list[str] = []
        self._title: str | None = None
        self._language: str | None = None
        self._canonical: str | None = None
        self._refresh: str | None = None
        self._robots: list[tuple[str | None, str]] = []

    def read(self, text: str, finder: TagFinder) -> None:
        links = self._links
        add = links.add
        followed: set[str] = set()  # where two thirds of all anchors end
        for plain, rest, text_name, name, attributes, content in finder.groups(text):
            if plain:
                if not rest or "rel" not in rest.lower():
                    if plain not in followed:
                        followed.add(plain)
                        links.add_clean(plain, LINK)
                        if links.capped:
                            return
                    continue
                name, attributes = "a", anchor_attributes(plain, rest)
            elif not name:
                if not text_name:
                    continue
                name = text_name
            name = name.lower()
            if name == "meta" and not _may_matter(attributes):
                continue
            if name == "title":
                if self._title is None:
                    self._title = " ".join(unescape(content[: MAX_TITLE * 8]).split())[:MAX_TITLE]
                continue
            if content and not self._requisites and name != "iframe":
                continue
            found = attributes_of(attributes)
            match name:
                case "a" | "area":
                    href = found.get("href")
                    if href is not None:
                        add(href, NOFOLLOW if "nofollow" in found.get("rel", "").lower().split() else LINK)
                case "link":
                    self._link(found)
                case "iframe" | "frame":
                    add(found.get("src", ""), LINK)
                case "meta":
                    self._meta(found)
                case "base":
                    if "href" in found and len(self._bases) < 16:
                        self._bases.append(found["href"])
                case "html":
                    if self._language is None:
                        self._language = found.get("lang", "").strip()[:MAX_LANGUAGE] or None
                case _:
                    pass
            if self._requisites:
                self._required(name, found, content)
            if links.capped:
                return

    def _link(self, found: dict[str, str]) -> None:
        href = found.get("href")
        relations = found.get("rel", "").lower().split()
        if self._requisites and "imagesrcset" in found and "preload" in relations:
            self._candidates(found["imagesrcset"])
        if href is None:
            return
        kind = relation_kind(relations, found.get("as", ""), found.get("type", ""))
        if kind is None or (kind == REQUISITE and not self._requisites):
            return
        if kind == CANONICAL and self._canonical is None:
            self._canonical = href
        self._links.add(href, kind)

    def _meta(self, found: dict[str, str]) -> None:
        content = found.get("content", "")
        if found.get("http-equiv", "").strip().lower() == "refresh" and self._refresh is None:
            match = _REFRESH.match(content)
            target = (match[1] or match[2] or match[3] or "") if match is not None else ""
            if target.strip():
                self._refresh = target
        agent = found.get("name", "").strip().lower()
        if agent and len(self._robots) < MAX_DIRECTIVES and len(content) <= MAX_DIRECTIVE_CHARS:
            if agent == "robots":
                self._robots.append((None, content))
            elif len(agent) <= 64 and _DIRECTIVE.search(content.lower()) is not None:
                self._robots.append((agent, content))

    def _required(self, name: str, found: dict[str, str], content: str) -> None:
        add = self._links.add
        for attribute in _SOURCES.get(name, ()):
            value = found.get(attribute)
            if value:
                add(value, REQUISITE)
        if name == "input" and found.get("type", "").strip().lower() == "image":
            add(found.get("src", ""), REQUISITE)
        elif name in ("img", "source") and "srcset" in found:
            self._candidates(found["srcset"])
        elif name == "style":
            for written in written_references(content):
                add(written, REQUISITE)
        style = found.get("style")
        if style:
            for written in written_references(style):
                add(written, REQUISITE)

    def _candidates(self, srcset: str) -> None:
        """The URLs of a srcset: "a.png 1x, b.png 2x" (HTML standard §4.8.4.2.3)."""
        position = 0
        while (match := _CANDIDATE.match(srcset, position)) is not None:
            written = match[1]
            self._links.add(written.rstrip(","), REQUISITE)
            # A URL that ends in a comma has no descriptor: the next candidate follows.
            position = match.end(1) if written.endswith(",") else match.end()
            if self._links.capped:
                return

    def finish(self, url: str, known: KnownLinks | None) -> Html:
        own = Resolver(url)
        base = self._base(own)
        links, invalid = self._links.resolve(base, known)
        return Html(
            title=self._title or None,
            language=self._language,
            canonical=_absolute(self._canonical, base),
            links=links,
            refresh=_absolute(self._refresh, base),
            robots=tuple(self._robots),
            capped=self._links.capped,
            invalid=invalid,
        )

    def _base(self, own: Resolver) -> Resolver:
        """Where references start from: the first base that is an http(s) URL, itself resolved against the page's."""
        for written in self._bases:
            absolute = _absolute(written, own)
            if absolute is not None:
                return Resolver(absolute)
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
