"""Sitemaps and feeds: where they are named, and which of the URLs they list are worth storing.

A sitemap speaks for the site it is found on. It may list URLs of another only if that site's robots.txt names it, or
the index that led to it. Lists are judged in slices, since one may have 50,000 entries.

It does not fetch or parse (`content.url_lists.formats` does), nor store. Invariant: what is found in a list passes
the same scope as a link; only sitemaps themselves, which are no pages, may lie on another host.
"""

import asyncio
from collections.abc import Callable, Iterable
from typing import Final, Protocol

from crawler.content.robots_txt import RobotsTxt
from crawler.content.url_lists.url_list import UrlList, UrlListEntry, UrlListKind
from crawler.core.enums import DenyReason, Source, TaskKind
from crawler.core.models import Denied, Discovered, Origin, RobotsRecord, SitemapHint, Task
from crawler.core.scope import Scope
from crawler.core.url import UrlError, key_of, kind_key_of, parse, registrable_domain
from crawler.engine.pages.recent_urls import RecentKeys
from crawler.engine.pages.response_processor import KEPT_HOPS, ProcessedResponse, SkippedLink
from crawler.frontier.base import Frontier, FrontierFull

SLICE: Final = 500  # entries judged before others have their turn; some 3 ms
MAX_INDEXES: Final = 2  # an index may list an index, whose sitemaps are read; sitemaps.org allows no nesting at all
EAGER: Final = 8  # sitemaps of an index that are read at once, the newest first; the others when pages run out
NAMED_PRIORITY: Final = -1  # a sitemap goes before pages that nothing is known of …
LATER_PRIORITY: Final = 20  # … and the rest of an index behind them
MAX_ENDORSERS: Final = 100  # other sites whose robots.txt is looked at for one sitemap


class Modes:
    """The values of crawl.sitemaps."""

    OFF: Final = "off"
    PROBE: Final = "probe"


class TrustsDates(Protocol):
    """Whether a host's sitemaps tell the truth about changes (`engine.pages.revisits`)."""

    def __call__(self, host_id: int) -> bool: ...


class UrlListPolicy:
    """`mode` is crawl.sitemaps; `seen` is shared with the processor. `frontier` None: no other site is known."""

    def __init__(self, *, mode: str, frontier: Frontier | None, seen: RecentKeys, trusts_dates_of: TrustsDates) -> None:
        self.mode = mode
        self._frontier = frontier
        self._seen = seen
        self._trusts_dates_of = trusts_dates_of

    # -- where sitemaps are

    def named(self, origin: Origin, robots: RobotsRecord, scope: Scope) -> tuple[Discovered, ...]:
        """The sitemaps to be read for a host whose robots verdict was reached just now."""
        if self.mode == Modes.OFF or robots.verdict == "unreachable" or not scope.has_host(origin.host):
            return ()
        found: dict[int, Discovered] = {}
        for url, place in sitemap_urls(origin, robots.body):
            one = _sitemap(url, place, "M", Source.ROBOTS, NAMED_PRIORITY)
            if scope.judge(url, place, depth=0, hop_path="M", source=Source.ROBOTS) is None:
                found[one.key] = one
        if not found and self.mode == Modes.PROBE:
            url = f"{origin}/sitemap.xml"
            one = _sitemap(url, origin, "M", Source.ROBOTS, NAMED_PRIORITY)
            if scope.judge(url, origin, depth=0, hop_path="M", source=Source.ROBOTS) is None:
                found[one.key] = one
        return tuple(found.values())

    # -- what they list

    async def judge(self, task: Task, host_id: int, reading: ProcessedResponse, scope: Scope) -> None:
        """Fill `reading.discovered` and `skipped` from `reading.listing`."""
        listing = reading.listing
        if listing is None or listing.kind is None:
            return
        endorsed = await self._endorsed(task, listing)
        trusted = self._trusts_dates_of(host_id)
        entries = listing.entries
        if listing.kind is UrlListKind.INDEX:
            entries = tuple(sorted(entries, key=lambda entry: -(entry.modified_at or 0.0)))
        for start in range(0, len(entries), SLICE):
            for place, entry in enumerate(entries[start : start + SLICE], start):
                self._judge_entry(task, listing.kind, entry, place, reading, scope, endorsed, trusted)
            if len(entries) > SLICE:
                await asyncio.sleep(0)

    def _judge_entry(
        self,
        task: Task,
        kind: UrlListKind,
        entry: UrlListEntry,
        place: int,
        reading: ProcessedResponse,
        scope: Scope,
        endorsed: Callable[[Origin], bool],
        trusted: bool,
    ) -> None:
        if kind is not UrlListKind.FEED and not endorsed(entry.origin):
            rule = f"{entry.origin}/robots.txt does not name {task.url}"
            self._skip(reading, entry, Denied(DenyReason.CROSS_SITE, rule))
            return
        if entry.nested:
            self._judge_nested(task, kind, entry, place, reading, scope)
            return
        key = key_of(entry.url)
        hint = None
        if kind is UrlListKind.URLS:
            lastmod = entry.modified_at if trusted else None
            hint = SitemapHint(entry.priority, lastmod) if (entry.priority, lastmod) != (None, None) else None
        elif entry.modified_at is not None and trusted:
            hint = SitemapHint(None, entry.modified_at)
        if hint is None and self._seen.has(key):
            return
        source = Source.ENTRY if kind is UrlListKind.FEED else Source.SITEMAP
        hop = "L" if kind is UrlListKind.FEED else "M"
        depth, hop_path = task.depth + 1, task.hop_path[-KEPT_HOPS:] + hop
        refused = scope.judge(entry.url, entry.origin, depth=depth, hop_path=hop_path, source=source)
        if refused is not None:
            self._skip(reading, entry, refused)
            return
        self._seen.add(key)
        priority = 0 if entry.priority is None else round(4 * (0.5 - entry.priority))
        reading.discovered.append(
            Discovered(entry.url, entry.origin, key, depth, hop_path, source, priority, hint=hint)
        )

    def _judge_nested(
        self, task: Task, kind: UrlListKind, entry: UrlListEntry, place: int, reading: ProcessedResponse, scope: Scope
    ) -> None:
        """A sitemap that an index lists, or the next page of a feed."""
        if kind is UrlListKind.FEED:
            depth, hop_path = task.depth + 1, task.hop_path[-KEPT_HOPS:] + "L"
            refused = scope.judge(entry.url, entry.origin, depth=depth, hop_path=hop_path, source=Source.FEED)
            if refused is None:
                key = kind_key_of(entry.url, TaskKind.FEED)
                reading.discovered.append(
                    Discovered(entry.url, entry.origin, key, depth, hop_path, Source.FEED, kind=TaskKind.FEED)
                )
        elif self.mode != Modes.OFF:
            hop_path = task.hop_path[-KEPT_HOPS:] + "M"
            refused = scope.judge(entry.url, entry.origin, depth=task.depth, hop_path=hop_path, source=Source.INDEX)
            if len(hop_path) - len(hop_path.rstrip("M")) > MAX_INDEXES + 1:
                refused = Denied(DenyReason.SCOPE_DEPTH, f"indexes of sitemaps nested deeper than {MAX_INDEXES}")
            if refused is None:
                priority = NAMED_PRIORITY if place < EAGER else LATER_PRIORITY
                reading.discovered.append(
                    _sitemap(entry.url, entry.origin, hop_path, Source.INDEX, priority, depth=task.depth)
                )
        else:
            return
        if refused is not None:
            self._skip(reading, entry, refused)

    @staticmethod
    def _skip(reading: ProcessedResponse, entry: UrlListEntry, refused: Denied) -> None:
        reading.skipped.append(SkippedLink(entry.url, entry.origin.host, refused.reason, refused.rule))

    # -- other sites' word

    async def _endorsed(self, task: Task, listing: UrlList) -> Callable[[Origin], bool]:
        """Whether the list may speak for an origin."""
        own = registrable_domain(parse(task.url)[1].host)
        origins = dict.fromkeys(entry.origin for entry in listing.entries)
        others = [origin for origin in origins if registrable_domain(origin.host) != own]
        if listing.kind is UrlListKind.FEED or not others:
            return lambda origin: True
        wanted = {task.url} | ({task.via} if task.via is not None else set())
        allowed: set[Origin] = set()
        for origin in others[:MAX_ENDORSERS]:
            if wanted & await self._sitemaps_named_by(origin):
                allowed.add(origin)
        refused = set(others) - allowed
        return lambda origin: origin not in refused

    async def _sitemaps_named_by(self, origin: Origin) -> set[str]:
        """As the store knows its robots.txt; nothing for a host that was never asked."""
        if self._frontier is None:
            return set()
        try:
            row = await self._frontier.find_host(origin)
            body = None if row is None else await self._frontier.robots_body(row.id)
        except FrontierFull:
            return set()
        if body is None:
            return set()
        return {url for url, _ in await asyncio.to_thread(lambda: list(sitemap_urls(origin, body)))}


def sitemap_urls(origin: Origin, robots_body: bytes | None) -> Iterable[tuple[str, Origin]]:
    """What the Sitemap lines of a host's robots.txt name, resolved; what is no URL is left out."""
    for written in () if robots_body is None else RobotsTxt.parse(robots_body).sitemaps:
        try:
            yield parse(written, f"{origin}/robots.txt")
        except UrlError:
            continue


def _sitemap(url: str, origin: Origin, hop_path: str, source: Source, priority: int, *, depth: int = 0) -> Discovered:
    key = kind_key_of(url, TaskKind.SITEMAP)
    return Discovered(url, origin, key, depth, hop_path, source, priority, kind=TaskKind.SITEMAP)
