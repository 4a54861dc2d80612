"""Revisits: when visited URLs are requested again, by the history of each page, the price of a visit and the budget.

`core.revisit` decides. This file has the data for it: the price, which is computed at intervals from a sample of the
store, the budget, counts of in-links, and whether the dates in a host's sitemaps can be relied on. Histories are kept
even if `enabled` is false, for a later run with revisits.

Invariant: in any 24 hours no more revisits begin than the budget of a day and one hour.
"""

import asyncio
import math
import random
import zlib
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import replace
from typing import Final

from crawler.core.clock import Clock
from crawler.core.enums import TaskKind, UrlState
from crawler.core.models import Failed, Fetched, NotModified, Outcome, PageHistory, Task
from crawler.core.options import RecrawlOptions
from crawler.core.outcomes import response_of
from crawler.core.revisit import (
    DAY_S,
    Allowance,
    PageClass,
    VisitResult,
    change_rate,
    classify,
    importance,
    interval_s,
    learn,
    solve_price,
)
from crawler.core.scope import Overrides, compile_pattern
from crawler.core.url import check_href, key_of
from crawler.engine.pages.recent_urls import InLinks
from crawler.frontier.base import Frontier, FrontierFull, UndatedPage, VisitedPage

SOLVE_EVERY_S: Final = 600.0
SAMPLE_BLOCKS: Final = 64
SAMPLE_ROWS: Final = 256  # 64 · 256 pages give the price to a few percent, and are read in some 50 ms
DAYS_A_VISIT: Final = 7  # without visits_per_day: the mean time between visits of a page
BURST_S: Final = 3_600.0  # after a pause, the budget of so many seconds may be spent at once
URL_LIST_MAX_S: Final = DAY_S  # sitemaps and feeds lead to new pages: they are requested daily at least
PAGES_LEAST: Final = 0.5  # share of visits_per_day for pages, even if there are very many sitemaps and feeds
PROMOTE_AT_ONCE: Final = 1_000
STORE_EVERY_S: Final = 600.0  # in-links: 2 MiB, some hundred KiB compressed
_IN_LINKS: Final = "in_links"
_OVERRIDES: Final = "recrawl_overrides"  # those by which all URLs have dates
DATING_ROWS: Final = 1_024  # URLs of one search for pages without a date: some 10 ms if it finds none
DATING_PAUSE_S: Final = 0.05  # after each slice: ten million URLs then take 20 minutes
_DATING_MARK: Final = 64  # after so many slices the progress is stored, even if no page was found
_DISK_FULL_PAUSE_S: Final = 5.0
_RELOAD_PAUSE_S: Final = 10.0  # after a reload: visits without a date may not be stored yet
_GONE: Final = frozenset((404, 410))
_JITTER: Final = 0.05  # share of the interval, so that pages found together do not stay due together

_TRUST_AFTER: Final = 8  # number of revisits because of sitemaps before their dates may be distrusted
_TRUST_LEAST: Final = 0.2  # the share of these that must find a change
_TRUST_HOSTS: Final = 4_096
_MAX_URL_LISTS: Final = 65_536  # sitemaps and feeds whose rate of visits is in memory


class Revisits:
    """Plans and queues revisits. `next_at` is the time at which the next known one is due (UTC).

    `on_date` is called with the date (UTC) given to a URL that had none.
    """

    def __init__(
        self,
        options: RecrawlOptions,
        overrides: Overrides,
        *,
        frontier: Frontier,
        clock: Clock,
        rng: random.Random,
        on_date: Callable[[float], None],
    ) -> None:
        self.next_at: float | None = None
        self.agents = 1  # that share the store, and so its pages and the budget
        self._frontier = frontier
        self._clock = clock
        self._rng = rng
        self._set_options(options, overrides)
        self.in_links = InLinks() if self.enabled else InLinks(0)
        per_s = (options.visits_per_day or 1 / DAYS_A_VISIT) / DAY_S
        # The first price is as if one page had the whole budget. Dates may be too early, but each visit corrects one.
        self.price = solve_price([PageClass(change_rate(None), 1.0, 1)], per_s=per_s, options=options)
        self._allowance = Allowance(per_s, max(1.0, per_s * BURST_S), 1.0, clock.mono())
        self._solved_mono = -math.inf
        self._stored_mono = clock.mono()
        self._solved_pages = 0
        self._planned = 0  # pages since then
        self._solving = False
        self._url_lists: OrderedDict[int, float] = OrderedDict()  # visits per second of sitemaps and feeds, by URL id
        self._url_lists_per_s = 0.0
        self._hints: OrderedDict[int, tuple[int, int]] = OrderedDict()  # by host id: revisits, changes
        self._dated_to: int | None = None  # up to this URL id all have a date; None: all have, or revisits are off
        self._undated = asyncio.Event()
        self._on_date = on_date

    def _set_options(self, options: RecrawlOptions, overrides: Overrides) -> None:
        self.options = options
        self.enabled = _is_enabled(options, overrides)  # any pages are visited again
        self._overrides = overrides
        self._rules = [(compile_pattern(rule.pattern), rule.factor) for rule in options.importance]

    def reconfigure(self, options: RecrawlOptions, overrides: Overrides) -> None:
        """Apply new options to visits planned from now on. Stored dates are kept; the new budget applies to them."""
        if options != self.options or _recrawl_of(overrides) != _recrawl_of(self._overrides):
            self._set_options(options, overrides)
            self._undated.set()
            self.next_at = self._clock.now()  # so that the store is read for the true time
            self._planned, self._solved_mono = 1, -math.inf

    def options_of(self, url: str, kind: TaskKind = TaskKind.PAGE) -> RecrawlOptions:
        """The options of one URL. A sitemap or feed is visited daily at least."""
        options = self.options
        if self._overrides.decide_recrawl:
            options = self._overrides.recrawl_options(options, check_href(url)[1].host, url)
        if kind is TaskKind.PAGE:
            return options
        return replace(options, max_interval_s=max(options.min_interval_s, min(options.max_interval_s, URL_LIST_MAX_S)))

    @property
    def hint_after_s(self) -> float | None:
        """The shortest time from a visit to a revisit because of a sitemap's date (`Batch.hint_after_s`)."""
        return self.options.min_interval_s if self.enabled else None

    # -- after a visit

    def plan(
        self, task: Task, host_id: int, outcome: Outcome, state: UrlState, digest: str | None
    ) -> tuple[PageHistory, float | None]:
        """Return the history after a visit, and the time of the next visit (UTC; None: none without a command)."""
        finding = finding_of(task, outcome, state, digest)
        now = self._clock.now()
        response = response_of(outcome)
        elapsed_s = max(1.0, now - task.visited_at) if task.visited_at is not None else 0.0
        content_at = response.started_at if response is not None else now
        history = learn(task.history, finding, elapsed_s=elapsed_s, content_at=content_at)
        options = self.options_of(task.url, task.kind)
        if not options.enabled:
            return history, None
        linked = self.in_links.take(key_of(task.url))
        if linked:
            history = replace(history, in_links=history.in_links + linked)
        self._record_hint(task, host_id, finding)
        is_page = task.kind is TaskKind.PAGE
        weight = self.weight(task.url, task.depth, history.in_links, None if task.hint is None else task.hint.priority)
        wait_s = interval_s(
            history,
            finding,
            weight=weight if is_page else max(1.0, weight),
            price=self.price,
            options=options,
        )
        if is_page:
            self._planned += 1
        else:
            self._note_url_list(task.id, 1 / wait_s)
        return history, now + max(options.min_interval_s, wait_s * (1 + _JITTER * (2 * self._rng.random() - 1)))

    def _note_url_list(self, task_id: int, per_s: float) -> None:
        self._url_lists_per_s += per_s - self._url_lists.pop(task_id, 0.0)
        self._url_lists[task_id] = per_s
        while len(self._url_lists) > _MAX_URL_LISTS:
            self._url_lists_per_s -= self._url_lists.popitem(last=False)[1]

    def weight(self, url: str, depth: int, in_links: int, priority: float | None) -> float:
        """A page's importance; the first of the operator's rules that matches counts."""
        factor = next((factor for pattern, factor in self._rules if pattern.search(url)), 1.0)
        return importance(depth=depth, in_links=in_links, sitemap_priority=priority, factor=factor)

    # -- dates in sitemaps

    def _record_hint(self, task: Task, host_id: int, finding: VisitResult) -> None:
        lastmod = task.hint.lastmod if task.hint is not None else None
        if lastmod is None or task.visited_at is None or lastmod <= task.visited_at:
            return
        hinted, changed = self._hints.pop(host_id, (0, 0))
        if hinted >= 64:  # older ones count less
            hinted, changed = hinted // 2, changed // 2
        self._hints[host_id] = (hinted + 1, changed + (finding is VisitResult.CHANGED))
        while len(self._hints) > _TRUST_HOSTS:
            self._hints.popitem(last=False)

    def trusts_dates_of(self, host_id: int, url: str) -> bool:
        """Whether the dates in a host's sitemaps were right so far, and may bring a visit of a URL forward: the store
        knows the shortest interval of the crawl, but not a longer one of an override. Some sitemaps always give the
        current date.
        """
        if self._overrides.decide_recrawl and self.options_of(url).min_interval_s > self.options.min_interval_s:
            return False
        hinted, changed = self._hints.get(host_id, (0, 0))
        return hinted < _TRUST_AFTER or changed >= hinted * _TRUST_LEAST

    # -- when they are due

    async def start(self) -> None:
        """Load the stored values, and compute the first price."""
        await self.prepare(self.options, self._overrides)
        if self.enabled:
            if (links := await self._frontier.stored_value(_IN_LINKS)) is not None:
                self.in_links.load(await asyncio.to_thread(zlib.decompress, links))
            self.next_at = await self._frontier.next_due(revisits=True)
            await self.solve()

    async def store_in_links(self) -> None:
        """Store the counts of in-links if they changed. Raises FrontierFull."""
        if self.enabled and self.in_links.is_dirty:
            self.in_links.is_dirty = False
            links = await asyncio.to_thread(zlib.compress, self.in_links.dump(), 1)
            await self._frontier.store_value(_IN_LINKS, links)
        self._stored_mono = self._clock.mono()

    # -- pages without a date

    async def prepare(self, options: RecrawlOptions, overrides: Overrides) -> None:
        """Prepare for new options: when revisits are on again, pages visited while they were off get dates. All are
        searched for such if overrides changed, which may have been off for some pages only.

        Raises FrontierFull.
        """
        before, self._dated_to = self._dated_to, None
        recrawl = repr(_recrawl_of(overrides)).encode() if overrides.decide_recrawl else b""
        try:
            dated_to = await self._frontier.dated_to()
            is_changed = recrawl != (await self._frontier.stored_value(_OVERRIDES) or b"")
            is_enabled = _is_enabled(options, overrides)
            if dated_to != 0 and (is_changed or not is_enabled):
                dated_to = 0
                await self._frontier.put_dates([], dated_to=0)
            self._dated_to = dated_to if is_enabled else None
            if is_changed:
                await self._frontier.store_value(_OVERRIDES, recrawl)
        except FrontierFull:
            self._dated_to = before
            raise

    @property
    def is_dating(self) -> bool:
        """Whether some pages may have no date yet."""
        return self.enabled and self._dated_to is not None

    async def run(self) -> None:
        """Give dates to pages that were visited while revisits were off, slice by slice, until cancelled."""
        slices = 0
        while True:
            if not self.is_dating:
                self._undated.clear()
                await self._undated.wait()
                await asyncio.sleep(_RELOAD_PAUSE_S)
                continue
            slices += 1
            try:
                await self._date_slice(stores=slices % _DATING_MARK == 0)
            except FrontierFull:
                await asyncio.sleep(_DISK_FULL_PAUSE_S)
            await asyncio.sleep(DATING_PAUSE_S)

    async def _date_slice(self, *, stores: bool) -> None:
        after = self._dated_to
        assert after is not None
        pages, dated_to = await self._frontier.undated(after=after, rows=DATING_ROWS)
        if self._dated_to != after:  # a reload
            return
        now = self._clock.now()
        dates = [(page.id, at) for page in pages if (at := self._date_of(page, now)) is not None]
        if dates or stores or dated_to is None:
            await self._frontier.put_dates(dates, dated_to=dated_to)
        if self._dated_to == after:
            self._dated_to = dated_to
        if dates:
            self._on_date(min(at for _, at in dates))

    def _date_of(self, page: UndatedPage, now: float) -> float | None:
        """A random time within the page's interval, because one time for all would make a burst and a long pause; None
        if it is not to be visited again.
        """
        options = self.options_of(page.url, TaskKind.PAGE if page.kind is None else TaskKind(page.kind))
        if not options.enabled:
            return None
        history = PageHistory(
            change_a=page.change_a, change_t=page.change_t, gone_count=page.gone_count, in_links=page.in_links
        )
        finding = VisitResult.FAILED if page.state == UrlState.GAVE_UP else VisitResult.SAME
        weight = self.weight(page.url, page.depth, page.in_links, page.priority)
        wait_s = interval_s(
            history,
            VisitResult.GONE if page.gone_count else finding,
            weight=weight if page.kind is None else max(1.0, weight),
            price=self.price,
            options=options,
        )
        if page.kind is not None:
            self._note_url_list(page.id, 1 / wait_s)
        soonest = now if page.last_at is None else page.last_at + options.min_interval_s
        return max(soonest, now + wait_s * self._rng.random())

    def latest_at(self, now: float) -> float:
        """The latest date that a page visited now may get."""
        longest_s = max(self.options.max_interval_s, *(one.max_interval_s or 0.0 for one in self._overrides.all), 0.0)
        return now + longest_s * (1 + _JITTER)

    def due_at(self, when: float) -> None:
        """Note when a URL is to be visited again (UTC)."""
        if self.next_at is None or when < self.next_at:
            self.next_at = when

    def due_s(self) -> float:
        """Seconds until a revisit may begin."""
        if not self.enabled or self.next_at is None:
            return math.inf
        return max(0.0, self.next_at - self._clock.now(), self._allowance.wait_s(self._clock.mono()))

    async def promote(self) -> dict[int, int]:
        """Queue due URLs, within the budget. Return their number by host id. Raises FrontierFull."""
        now = self._clock.now()
        bucket = self._allowance.filled(self._clock.mono())
        queued = await self._frontier.promote(now=now, limit=min(PROMOTE_AT_ONCE, int(bucket.level)), revisits=True)
        self._allowance = bucket.take(sum(queued.values()))
        self.next_at = await self._frontier.next_due(revisits=True)
        return queued

    # -- the price

    @property
    def wants_price(self) -> bool:
        """Whether the price is to be computed again."""
        if not self.enabled or self._solving or not self._planned:
            return False
        grown = self._planned >= max(1, self._solved_pages)
        return grown or self._clock.mono() - self._solved_mono >= SOLVE_EVERY_S

    async def solve(self) -> None:
        """Compute the price from a sample of the store. Takes some 50 ms, most of it in threads."""
        self._solving = True
        self._planned = 0
        try:
            pages = self._frontier.totals().done // self.agents
            visited = await self._frontier.visited_pages(
                blocks=SAMPLE_BLOCKS, rows=SAMPLE_ROWS, phase=self._rng.random()
            )
            sample = await asyncio.to_thread(self._visited_again, visited)
            pages = pages * len(sample) // max(1, len(visited))
            per_day = self.options.visits_per_day
            if per_day is None:
                for_pages = pages / DAYS_A_VISIT / DAY_S
                per_s = for_pages + self._url_lists_per_s
            else:
                per_s = per_day / DAY_S / self.agents
                for_pages = max(per_s - self._url_lists_per_s, per_s * PAGES_LEAST)
            if sample:
                share = len(sample) / max(len(sample), pages)  # the sample gets its share of the budget
                self.price = await asyncio.to_thread(self._price_of, sample, for_pages * share)
            mono = self._clock.mono()
            bucket = self._allowance.filled(mono)
            self._allowance = replace(bucket, per_s=per_s, most=max(1.0, per_s * BURST_S))
            self._solved_mono, self._solved_pages = mono, pages
            if mono - self._stored_mono >= STORE_EVERY_S:
                await self.store_in_links()
        except FrontierFull:
            self._solved_mono = self._clock.mono()  # the former price stays until the next attempt
        finally:
            self._solving = False

    def _visited_again(self, pages: list[VisitedPage]) -> list[VisitedPage]:
        """The pages that are visited again: all, unless overrides say otherwise."""
        if not self._overrides.decide_recrawl:
            return pages
        return [page for page in pages if self.options_of(page.url).enabled]

    def _price_of(self, sample: list[VisitedPage], per_s: float) -> float:
        classes = classify(
            (
                change_rate(PageHistory(change_a=page.change_a, change_t=page.change_t)),
                self.weight(page.url, page.depth, page.in_links, page.priority),
            )
            for page in sample
        )
        return solve_price(classes, per_s=per_s, options=self.options)


def _is_enabled(options: RecrawlOptions, overrides: Overrides) -> bool:
    return options.enabled or any(one.recrawl for one in overrides.all)


def _recrawl_of(overrides: Overrides) -> list[tuple[object, ...]]:
    """What of the overrides decides when pages are visited again."""
    return [
        (one.hosts, one.urls, one.recrawl, one.min_interval_s, one.max_interval_s)
        for one in overrides.all
        if (one.recrawl, one.min_interval_s, one.max_interval_s) != (None, None, None)
    ]


def finding_of(task: Task, outcome: Outcome, state: UrlState, digest: str | None) -> VisitResult:
    """The result of an ended visit for the plan of the next one."""
    if state is UrlState.GAVE_UP or isinstance(outcome, Failed):
        return VisitResult.FAILED
    if isinstance(outcome, NotModified):
        return VisitResult.SAME
    if isinstance(outcome, Fetched):
        if outcome.head.status_code in _GONE:
            return VisitResult.GONE
        if outcome.head.status_code >= 500:
            return VisitResult.FAILED
    if task.digest is None or not task.is_revisit:
        return VisitResult.NEW
    return VisitResult.SAME if digest == task.digest else VisitResult.CHANGED
