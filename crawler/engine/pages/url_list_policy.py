"""Policy for sitemaps and feeds: which sitemaps are requested, and which of the listed URLs are stored.

A sitemap may list URLs of its own site. It may list URLs of another site only if that site's robots.txt names it, or
names the index that led to it. Long lists (up to 50,000 entries) are judged in slices.

Invariant: URLs of a list pass the same scope as links; only sitemaps, which are no pages, may be on another host.
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
from crawler.engine.pages.response_processor import MAX_HOP_PATH, ProcessedResponse, SkippedLink
from crawler.frontier.base import FrontierFull, RowQueries

SLICE: Final = 500  # entries judged before other tasks may run; some 3 ms
MAX_INDEXES: Final = 2  # an index may list an index, whose sitemaps are read; sitemaps.org allows no nesting at all
EAGER: Final = 8  # sitemaps of an index that are requested before pages, the newest first; the others after pages
NAMED_PRIORITY: Final = -1  # before pages of the usual priority
LATER_PRIORITY: Final = 20  # after them
MAX_OTHER_SITES: Final = 100  # other origins of one sitemap whose robots.txt is looked up


class SitemapModes:
    """Values of crawl.sitemaps; the third is "named"."""

    OFF: Final = "off"
    PROBE: Final = "probe"


class TrustsDates(Protocol):
    """Whether the date of a URL in a host's sitemaps can be relied on (`Revisits.trusts_dates_of`)."""

    def __call__(self, host_id: int, url: str) -> bool: ...


class UrlListPolicy:
    """`mode` is the value of crawl.sitemaps. `recent_keys` is shared with the response processor. `frontier` has the
    robots.txt of other sites; None: their URLs are refused.
    """

    def __init__(
        self, *, mode: str, frontier: RowQueries | None, recent_keys: RecentKeys, trusts_dates_of: TrustsDates
    ) -> None:
        self.mode = mode
        self._frontier = frontier
        self._recent_keys = recent_keys
        self._trusts_dates_of = trusts_dates_of

    # -- where sitemaps are

    def sitemaps_of(self, origin: Origin, robots: RobotsRecord, scope: Scope) -> tuple[Discovered, ...]:
        """The sitemaps to request for a host whose robots verdict has become known."""
        if self.mode == SitemapModes.OFF or robots.verdict == "unreachable" or not scope.has_host(origin.host):
            return ()
        found: dict[int, Discovered] = {}
        for url, its_origin in sitemap_urls(origin, robots.body):
            one = _sitemap(url, its_origin, "M", Source.ROBOTS, NAMED_PRIORITY)
            if scope.judge(url, its_origin, depth=0, hop_path="M", source=Source.ROBOTS) is None:
                found[one.key] = one
        if not found and self.mode == SitemapModes.PROBE:
            url = f"{origin}/sitemap.xml"
            one = _sitemap(url, origin, "M", Source.ROBOTS, NAMED_PRIORITY)
            if scope.judge(url, origin, depth=0, hop_path="M", source=Source.ROBOTS) is None:
                found[one.key] = one
        return tuple(found.values())

    # -- listed URLs

    async def judge(self, task: Task, host_id: int, processed: ProcessedResponse, scope: Scope) -> None:
        """Fill `processed.discovered` and `skipped` from `processed.url_list`."""
        url_list = processed.url_list
        if url_list is None or url_list.kind is None:
            return
        may_list = await self._origins_allowed(task, url_list)
        entries = url_list.entries
        if url_list.kind is UrlListKind.INDEX:
            entries = tuple(sorted(entries, key=lambda entry: -(entry.modified_at or 0.0)))
        for start in range(0, len(entries), SLICE):
            for position, entry in enumerate(entries[start : start + SLICE], start):
                self._judge_entry(task, url_list.kind, entry, position, processed, scope, may_list, host_id)
            if len(entries) > SLICE:
                await asyncio.sleep(0)

    def _judge_entry(
        self,
        task: Task,
        kind: UrlListKind,
        entry: UrlListEntry,
        position: int,
        processed: ProcessedResponse,
        scope: Scope,
        may_list: Callable[[Origin], bool],
        host_id: int,
    ) -> None:
        if kind is not UrlListKind.FEED and not may_list(entry.origin):
            rule = f"{entry.origin}/robots.txt does not name {task.url}"
            self._skip(processed, entry, Denied(DenyReason.CROSS_SITE, rule))
            return
        if entry.nested:
            self._judge_nested(task, kind, entry, position, processed, scope)
            return
        key = key_of(entry.url)
        trusts_dates = entry.modified_at is not None and self._trusts_dates_of(host_id, entry.url)
        hint = None
        if kind is UrlListKind.URLS:
            lastmod = entry.modified_at if trusts_dates else None
            hint = SitemapHint(entry.priority, lastmod) if (entry.priority, lastmod) != (None, None) else None
        elif trusts_dates:
            hint = SitemapHint(None, entry.modified_at)
        if hint is None and self._recent_keys.has(key):
            return
        source = Source.ENTRY if kind is UrlListKind.FEED else Source.SITEMAP
        hop = "L" if kind is UrlListKind.FEED else "M"
        depth, hop_path = task.depth + 1, task.hop_path[-MAX_HOP_PATH:] + hop
        refused = scope.judge(entry.url, entry.origin, depth=depth, hop_path=hop_path, source=source)
        if refused is not None:
            self._skip(processed, entry, refused)
            return
        self._recent_keys.add(key)
        priority = 0 if entry.priority is None else round(4 * (0.5 - entry.priority))
        processed.discovered.append(
            Discovered(entry.url, entry.origin, key, depth, hop_path, source, priority, hint=hint)
        )

    def _judge_nested(
        self,
        task: Task,
        kind: UrlListKind,
        entry: UrlListEntry,
        position: int,
        processed: ProcessedResponse,
        scope: Scope,
    ) -> None:
        """Judge a sitemap that an index lists, or the next page of a feed."""
        if kind is UrlListKind.FEED:
            depth, hop_path = task.depth + 1, task.hop_path[-MAX_HOP_PATH:] + "L"
            refused = scope.judge(entry.url, entry.origin, depth=depth, hop_path=hop_path, source=Source.FEED)
            if refused is None:
                key = kind_key_of(entry.url, TaskKind.FEED)
                processed.discovered.append(
                    Discovered(entry.url, entry.origin, key, depth, hop_path, Source.FEED, kind=TaskKind.FEED)
                )
        elif self.mode != SitemapModes.OFF:
            hop_path = task.hop_path[-MAX_HOP_PATH:] + "M"
            refused = scope.judge(entry.url, entry.origin, depth=task.depth, hop_path=hop_path, source=Source.INDEX)
            if len(hop_path) - len(hop_path.rstrip("M")) > MAX_INDEXES + 1:
                refused = Denied(DenyReason.SCOPE_DEPTH, f"indexes of sitemaps nested deeper than {MAX_INDEXES}")
            if refused is None:
                priority = NAMED_PRIORITY if position < EAGER else LATER_PRIORITY
                processed.discovered.append(
                    _sitemap(entry.url, entry.origin, hop_path, Source.INDEX, priority, depth=task.depth)
                )
        else:
            return
        if refused is not None:
            self._skip(processed, entry, refused)

    @staticmethod
    def _skip(processed: ProcessedResponse, entry: UrlListEntry, refused: Denied) -> None:
        processed.skipped.append(SkippedLink(entry.url, entry.origin.host, refused.reason, refused.rule))

    # -- URLs of other sites

    async def _origins_allowed(self, task: Task, url_list: UrlList) -> Callable[[Origin], bool]:
        """Return a predicate: may this list have URLs of an origin?"""
        own = registrable_domain(parse(task.url)[1].host)
        origins = dict.fromkeys(entry.origin for entry in url_list.entries)
        others = [origin for origin in origins if registrable_domain(origin.host) != own]
        if url_list.kind is UrlListKind.FEED or not others:
            return lambda origin: True
        wanted = {task.url} | ({task.via} if task.via is not None else set())
        allowed: set[Origin] = set()
        for origin in others[:MAX_OTHER_SITES]:
            if wanted & await self._sitemaps_named_by(origin):
                allowed.add(origin)
        refused = set(others) - allowed
        return lambda origin: origin not in refused

    async def _sitemaps_named_by(self, origin: Origin) -> set[str]:
        """The sitemaps that the stored robots.txt of an origin names; none if it was never requested."""
        if self._frontier is None:
            return set()
        try:
            ids = [row.id for row in await self._frontier.hosts_named(origin.host) if row.origin == origin]
            body = await self._frontier.robots_body(ids[0]) if ids else None
        except FrontierFull:
            return set()
        if body is None:
            return set()
        return {url for url, _ in await asyncio.to_thread(lambda: list(sitemap_urls(origin, body)))}


def sitemap_urls(origin: Origin, robots_body: bytes | None) -> Iterable[tuple[str, Origin]]:
    """URLs of the Sitemap lines of a robots.txt, resolved, with their origins. Invalid ones are left out."""
    for written in () if robots_body is None else RobotsTxt.parse(robots_body).sitemaps:
        try:
            yield parse(written, f"{origin}/robots.txt")
        except UrlError:
            continue


def _sitemap(url: str, origin: Origin, hop_path: str, source: Source, priority: int, *, depth: int = 0) -> Discovered:
    key = kind_key_of(url, TaskKind.SITEMAP)
    return Discovered(url, origin, key, depth, hop_path, source, priority, kind=TaskKind.SITEMAP)
