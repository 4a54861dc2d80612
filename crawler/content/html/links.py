"""The links of a page: collected as written, made unique, then resolved.

Links are cheap because fragments and repetitions are removed before resolving: of 121 references of an average JavaDoc
page 32 are left.
"""

import re
from collections import OrderedDict
from collections.abc import Collection, Container
from contextlib import suppress
from typing import Final, NamedTuple

from crawler.content.html.resolution import ReferenceResolver, clean
from crawler.core.enums import Source
from crawler.core.models import Origin, dataclass
from crawler.core.url import UrlError


class Link(NamedTuple):
    """A link to another URL. A NamedTuple, not a dataclass, because dozens are made for each page."""

    url: str  # absolute, http(s), without fragment
    origin: Origin
    source: Source
    nofollow: bool  # in all its occurrences
    legacy_url: str | None = None  # its URL before queries were in the encoding of their page, if another


# Kinds of references. Of several kinds of one URL the smallest counts. Plain integers: comparing members of an
# enumeration takes ten times as long, and this is done for every reference.
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
    """The kind of a link element or Link field with these relations (lower case); None: it is not followed. `as_` and
    `type_`: its parameters of these names, any case.
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


# References that depend on the name of the page, not only on its folder: "?x", "https:?x", "https:" (URL standard
# §4.4).
_OF_THE_PAGE: Final = re.compile(r"\?|[hH][tT][tT][pP][sS]?:(?!//)")
MAX_KNOWN: Final = 32_768  # about 12 MiB: the references of a few hundred folders


class KnownFolder:
    """The resolved references of the pages of one folder."""

    __slots__ = ("links", "stored")

    def __init__(self) -> None:
        self.links: dict[str, Link] = {}  # by reference
        self.stored: dict[str, str] = {}  # reference → URL of a link that is stored and needs nothing more


class KnownLinks:
    """A cache of resolved references, by the folder of their page. Pages of one folder share most of their links, and
    resolving them again would cost more than everything else that is done with them.

    `stored`: the URLs that need not be found again; it may grow, and be emptied. It has at most `limit` references, a
    folder counting as one more; the least recently used folders are dropped first. Not for use by several threads.
    """

    def __init__(self, stored: Container[str] = (), *, limit: int = MAX_KNOWN) -> None:
        self.stored = stored
        self._limit = limit
        self._folders: OrderedDict[str, KnownFolder] = OrderedDict()
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def folder(self, folder: str) -> KnownFolder:
        """The plain links known of a folder. Call `added` for what is added to it."""
        known = self._folders.get(folder)
        if known is None:
            known = self._folders[folder] = KnownFolder()
            self.added(1)
        else:
            self._folders.move_to_end(folder)
        return known

    def added(self, count: int) -> None:
        """Count references that were added to the folder returned last."""
        self._count += count
        while self._count > self._limit:
            _, forgotten = self._folders.popitem(last=False)
            self._count -= 1 + len(forgotten.links) + len(forgotten.stored)


@dataclass(frozen=True, slots=True)
class Resolved:
    """The resolved links of a page."""

    links: tuple[Link, ...]  # each URL once, in the order in which they occur, without those that are stored
    count: int  # with those that are stored


class LinkSet:
    """Collects up to `limit` different references. `capped`: there were more."""

    __slots__ = ("_kinds", "_limit", "_required_too", "capped")

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._kinds: dict[str, int] = {}
        self._required_too: set[str] = set()  # both linked and needed to show the page
        self.capped = False

    def add(self, written: str, kind: int) -> None:
        """Add a reference as written, with character references replaced."""
        reference = clean(written)
        if reference:
            self.add_clean(reference, kind)

    def add_clean(self, reference: str, kind: int) -> None:
        """Add a reference that `clean` would not change."""
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
        """Resolve the references. A URL that is both linked and needed to show the page occurs again at the end as a
        requisite, since as a link it may be out of scope. `known` is read first and gets what it lacks.
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
