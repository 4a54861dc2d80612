"""The links of one page: collected as written, made unique, then resolved.

Cutting fragments and dropping repetitions before resolving is what makes links cheap: of 121 references in an average
JavaDoc page 32 are left. It does not know where references are written (`html`, `css`), nor whether they will be
followed.
"""

from collections.abc import Collection
from contextlib import suppress
from typing import Final, NamedTuple

from crawler.content.resolve import Resolver, clean
from crawler.core.url import UrlError
from crawler.core.values import Origin
from crawler.core.vocabulary import Source


class Link(NamedTuple):
    """A reference to another URL: absolute, http(s), without fragment. `nofollow`: every mention of it says so.

    A NamedTuple, not a dataclass, because dozens are made for each page. `origin` comes along free of charge.
    """

    url: str
    origin: Origin
    source: Source
    nofollow: bool


# What a reference is. Where one URL is mentioned in several ways the smallest counts. Plain integers: an enumeration
# compares ten times slower, and this is done for every reference.
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
    """What a link of these relations (lower case) is, whether an element or a Link field states it; None: nothing that
    is followed. `as_` and `type_` are the parameters of those names, any case.
    """
    if "canonical" in relations:
        return CANONICAL
    if not _STYLES.isdisjoint(relations) or ("preload" in relations and as_.lower() in _PRELOADED):
        return REQUISITE
    if "nofollow" in relations:
        return NOFOLLOW
    if "alternate" in relations:
        return FEED if type_.partition(";")[0].strip().lower() in FEED_TYPES else ALTERNATE
    if "next" in relations or "prev" in relations:
        return LINK
    return None


class LinkSet:
    """Collects references up to `limit` different ones; `capped` says that there were more."""

    __slots__ = ("_kinds", "_limit", "_required_too", "capped")

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._kinds: dict[str, int] = {}
        self._required_too: set[str] = set()  # linked as well as needed to show the page
        self.capped = False

    def add(self, written: str, kind: int) -> None:
        """Note a reference as it is written, character references replaced."""
        reference = clean(written)
        if reference:
            self.add_clean(reference, kind)

    def add_clean(self, reference: str, kind: int) -> None:
        """Note a reference that `clean` would return as it is."""
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

    def resolve(self, resolver: Resolver) -> tuple[tuple[Link, ...], int]:
        """Return the links in order of their first mention, and the number of references that are no fetchable URL.
        Each URL stands once; one that is linked as well as needed to show the page is once more a requisite, at the
        end: as a link it may be out of scope.
        """
        found: dict[str, tuple[Origin, int]] = {}
        invalid = 0
        for reference, kind in self._kinds.items():
            try:
                url, origin = resolver.resolve(reference)
            except UrlError:
                invalid += 1
                continue
            known = found.get(url)
            if known is None or kind < known[1]:
                found[url] = (origin, kind)
        links = [Link(url, origin, _SOURCES[kind], kind == NOFOLLOW) for url, (origin, kind) in found.items()]
        if self._required_too:
            links += self._requisites(resolver, found)
        return tuple(links), invalid

    def _requisites(self, resolver: Resolver, found: dict[str, tuple[Origin, int]]) -> list[Link]:
        again: dict[str, Link] = {}
        for reference in self._kinds:
            if reference in self._required_too:
                with suppress(UrlError):
                    url, origin = resolver.resolve(reference)
                    if found[url][1] != REQUISITE:
                        again[url] = Link(url, origin, Source.REQUISITE, False)
        return list(again.values())
