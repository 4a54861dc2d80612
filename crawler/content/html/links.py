"""The links of one page: collected as written, made unique, then resolved.

Cutting fragments and dropping repetitions before resolving is what makes links cheap: of 121 references in an average
JavaDoc page 32 are left. It does not know where references are written (`html`, `css`), nor whether they will be
followed.
"""

import re
from collections import OrderedDict
from collections.abc import Collection, Container
from contextlib import suppress
from typing import Final, NamedTuple

from crawler.content.html.resolution import ReferenceResolver, clean
from crawler.core.enums import Source
from crawler.core.frozen import dataclass
from crawler.core.models import Origin
from crawler.core.url import UrlError


class Link(NamedTuple):
    """A reference to another URL: absolute, http(s), without fragment. `nofollow`: every mention of it says so.
    `legacy_url`: what the reference meant before queries were in the encoding of their page, if that was another URL.

    A NamedTuple, not a dataclass, because dozens are made for each page. `origin` comes along free of charge.
    """

    url: str
    origin: Origin
    source: Source
    nofollow: bool
    legacy_url: str | None = None


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
    if "next" in relations or "prev" in relations or "previous" in relations:
        return LINK
    return None


_KINDS: Final = {source: kind for kind, source in reversed(list(enumerate(_SOURCES)))}


def _kind_of(link: Link) -> int:
    return NOFOLLOW if link.nofollow else _KINDS[link.source]


# References that hang on the page's own name, not on its folder: "?x", "https:?x" and "https:" (URL standard §4.4).
_OF_THE_PAGE: Final = re.compile(r"\?|[hH][tT][tT][pP][sS]?:(?!//)")
MAX_KNOWN: Final = 32_768  # some 12 MiB: the references of a few hundred folders


class KnownFolder:
    """What references mean on the pages of one folder: `links` by reference, but for those in `stored`, by reference
    too, whose URL alone is kept: whoever finds such a link has nothing to do about it.
    """

    __slots__ = ("links", "stored")

    def __init__(self) -> None:
        self.links: dict[str, Link] = {}
        self.stored: dict[str, str] = {}


class KnownLinks:
    """What references meant on earlier pages, by the folder of the page: pages beside each other share most of their
    links, and resolving them again would cost more than all that is done with them afterwards.

    `stored` are the URLs that need not be found again; it may grow, and be emptied. `limit` references at most; the
    folders not asked for longest go first. Not to be shared between threads.
    """

    def __init__(self, stored: Container[str] = (), *, limit: int = MAX_KNOWN) -> None:
        self.stored = stored
        self._limit = limit
        self._folders: OrderedDict[str, KnownFolder] = OrderedDict()
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def folder(self, folder: str) -> KnownFolder:
        """The plain links known in a folder. What is added is to be counted with `added`."""
        known = self._folders.get(folder)
        if known is None:
            known = self._folders[folder] = KnownFolder()
        else:
            self._folders.move_to_end(folder)
        return known

    def added(self, count: int) -> None:
        """So many references were added to the folder that was asked for last."""
        self._count += count
        while self._count > self._limit:
            _, forgotten = self._folders.popitem(last=False)
            self._count -= len(forgotten.links) + len(forgotten.stored)


@dataclass(frozen=True, slots=True)
class Resolved:
    """The `links` of a page, each URL once, in order of first mention; those left out that are stored. `count` includes
    them.
    """

    links: tuple[Link, ...]
    count: int


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

    def resolve(self, resolver: ReferenceResolver, known: KnownLinks | None = None) -> Resolved:
        """Return what the references mean. A URL that is linked as well as needed to show the page is once more a
        requisite, at the end: as a link it may be out of scope. `known` is asked first, and learns what it did not
        know.
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
