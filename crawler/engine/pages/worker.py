"""Takes leases and visits their URLs: URL policy, fetch, response processing, commit.

A worker never waits for politeness: an address that is taken sends the lease back. It gives its connection back before
it waits for the committer (the fetcher returns it with the last byte). It decides what an outcome means for the URL and
tells the scheduler what it means for the host.
"""

import asyncio
import random
import sys
from functools import partial
from typing import Protocol

from crawler.core.clock import Clock
from crawler.core.enums import DenyReason, TaskKind, TruncatedReason, UrlState
from crawler.core.models import (
    Denied,
    Discovered,
    Fetched,
    FetchResult,
    Lease,
    NotModified,
    Origin,
    Outcome,
    PageNote,
    Record,
    Redirected,
    RobotsRecord,
    Settlement,
    Task,
)
from crawler.core.outcomes import RetryDecision, is_http_error, is_throttled, response_of, retry_decision
from crawler.engine.monitoring.counters import CrawlCounters
from crawler.engine.observer import Observer, Visited
from crawler.engine.pages.response_processor import (
    LISTING_KINDS,
    ProcessedResponse,
    ResponseProcessor,
    is_large,
    off_loop_if_large,
)
from crawler.engine.pages.robots import RobotsResponses
from crawler.engine.pages.url_list_policy import UrlListPolicy
from crawler.engine.pages.url_policy import UrlPolicy
from crawler.engine.scheduling.host import Host
from crawler.engine.scheduling.scheduler import Scheduler
from crawler.fetch.fetcher import AddressNotReady, OriginBlocked, blocked


class Fetches(Protocol):
    """The HTTP client, as workers see it."""

    async def fetch(self, origin: Origin, task: Task) -> FetchResult:
        """Raises AddressNotReady when the address is taken."""


class Commits(Protocol):
    """The committer, as workers see it."""

    async def put(self, visited: Visited) -> None:
        """Waits while too much is uncommitted."""

    def nudge(self, *, now: bool = False) -> None:
        """Consider committing at once."""

    def add_scope_host(self, host: str) -> None:
        """A host that a seed's redirect brought in is to be stored."""


class Worker:
    """One of `engine.workers`; all share everything they are given, `large_pages` (of LARGE_AT_ONCE) among it."""

    def __init__(
        self,
        *,
        scheduler: Scheduler,
        url_policy: UrlPolicy,
        client: Fetches,
        processor: ResponseProcessor,
        robots: RobotsResponses,
        committer: Commits,
        counters: CrawlCounters,
        clock: Clock,
        rng: random.Random,
        max_attempts: int,
        large_pages: asyncio.Semaphore,
        url_list_policy: UrlListPolicy,
        observer: Observer,
    ) -> None:
        self._queue = scheduler.queue
        self._scheduler = scheduler
        self._host_table = scheduler.host_table
        self._url_policy = url_policy
        self._client = client
        self._processor = processor
        self._robots = robots
        self._committer = committer
        self._counters = counters
        self._clock = clock
        self._rng = rng
        self._max_attempts = max_attempts
        self._large_pages = large_pages
        self._revisits = scheduler.revisits
        self._url_list_policy = url_list_policy
        self._traps = scheduler.traps
        self._observer = observer
        # What it is at, for the status: nothing here reads it.
        self.task: Task | None = None
        self.origin: Origin | None = None
        self.stage = "idle"  # fetch, read, store
        self.since_mono = 0.0  # when `task` was begun

    async def run(self) -> None:
        """Work until cancelled."""
        while True:
            await self._visit_lease(await self._queue.get())

    async def _visit_lease(self, lease: Lease) -> None:
        host = self._host_table.hosts[lease.host_id]
        queue_s = self._clock.mono() - lease.leased_mono
        done = 0
        began = False
        last: tuple[Task, FetchResult, float] | None = None
        try:
            for task in lease.tasks:
                if last is not None:
                    answered, last = last, None  # first: a cancelled settling is not begun anew
                    await self._settle(lease, host, *answered, queue_s)
                    # First everything that came in this turn of the loop is read, then the next requests leave: the
                    # code and tables that one needs drive those of the other out of the processor's caches (3 %).
                    await asyncio.sleep(0)
                if self._scheduler.stopping or not self._scheduler.may_begin(lease, first=not began):
                    return
                if task.id != 0:
                    if host.is_held or host.needs_rules:
                        return
                    denied = self._url_policy.judge(task, lease.origin, host)
                    if denied is not None:
                        done += 1
                        await self._settle_denied(lease, task, denied, queue_s)
                        continue
                start = self.since_mono = self._clock.mono()
                self.task, self.origin, self.stage = task, lease.origin, "fetch"
                try:
                    result = await self._client.fetch(lease.origin, task)
                except AddressNotReady as shut:
                    self._scheduler.gate_was_shut(lease, shut.address, shut.until_mono)
                    return
                except OriginBlocked:
                    if task.kind is TaskKind.ROBOTS and not host.is_blocked:  # another host's, by a redirect
                        done += 1
                        last = task, blocked(lease.origin), self._clock.mono() - start
                    return
                began = True
                done += 1
                last = task, result, self._clock.mono() - start
                if not self._host_table.learn_result(lease, task.kind, result):
                    return  # the host rests
        finally:
            # the last answer is read after the turn was given back: reading is our time, not the host's
            if last is not None:
                self._scheduler.reading_began()
            self._scheduler.lease_ended(lease, unfinished=lease.tasks[done:], began=began)
            if last is not None:
                try:
                    await self._settle(lease, host, *last, queue_s)
                finally:
                    self._scheduler.reading_ended()
            self.task = None
            self._committer.nudge()

    async def _settle_denied(self, lease: Lease, task: Task, denied: Denied, queue_s: float) -> None:
        self._counters.attempted(denied, task.kind, task.url)
        if denied.reason is DenyReason.ROBOTS:
            self._host_table.denied.add(self._host_table.hosts[lease.host_id])
        settlement = Settlement(task, lease.host_id, denied, UrlState.DENIED, finished_at=self._clock.now())
        await self._committer.put(Visited(settlement, lease, queue_s, 0.0))

    async def _settle(
        self, lease: Lease, host: Host, task: Task, result: FetchResult, dur_s: float, queue_s: float
    ) -> None:
        self.stage = "read"
        outcome = self._processor.outcome_of(task, result)
        self._counters.attempted(outcome, task.kind, task.url)
        settle = self._settle_page
        if task.kind is TaskKind.ROBOTS:
            settle = self._settle_robots
        elif task.kind is TaskKind.PROBE:
            settle = self._settle_probe
        if is_large(outcome):
            async with self._large_pages:
                await settle(lease, host, task, outcome, dur_s, queue_s)
        else:
            await settle(lease, host, task, outcome, dur_s, queue_s)

    async def _settle_page(
        self, lease: Lease, host: Host, task: Task, outcome: Outcome, dur_s: float, queue_s: float
    ) -> None:
        ends = self._fate(task, outcome)
        if ends.state is UrlState.WAITING:
            reading, note = ProcessedResponse(outcome), None
        else:
            reading, note = await self._read(host, task, outcome)
            if reading.outcome is not outcome:
                self._counters.reconsidered(outcome, reading.outcome, task.kind)
                outcome = reading.outcome
                ends = self._fate(task, outcome)
        if note is None and ends.state is not UrlState.WAITING:
            trial = self._traps.trial_of(host, task)
            note = None if trial is None else PageNote(trial=trial)
        next_at = None
        if ends.after_s is not None:
            next_at = self._clock.now() + self._host_table.due_in_s(lease, outcome, ends.after_s)
        response = response_of(outcome)
        record = None
        if response is not None and reading.payload_digest is not None:
            is_news = isinstance(outcome, Fetched) and reading.payload_digest != task.digest
            page = reading.page if reading.index and is_news else None
            record = Record(task, response, reading.payload_digest, page)
        history = None
        if ends.state in (UrlState.DONE, UrlState.GAVE_UP):
            history, next_at = self._revisits.plan(task, lease.host_id, outcome, ends.state, reading.payload_digest)
        settlement = Settlement(
            task,
            lease.host_id,
            outcome,
            ends.state,
            tuple(reading.discovered),
            record,
            next_at,
            digest=reading.payload_digest if _has_content(task, outcome) else None,
            finished_at=self._clock.now(),
            history=history,
            note=note,
        )
        self._counters.links_found += reading.links_found
        self.stage = "store"
        await self._committer.put(Visited(settlement, lease, queue_s, dur_s, reading.links_found))
        if is_throttled(outcome):
            self._committer.nudge(now=True)

    def _fate(self, task: Task, outcome: Outcome) -> RetryDecision:
        # where nobody answers the URL is not to blame
        attempts = sys.maxsize if self._host_table.outage.is_suspected else self._max_attempts
        return retry_decision(outcome, attempt=task.attempt, max_attempts=attempts, rng=self._rng)

    async def _read(self, host: Host, task: Task, outcome: Outcome) -> tuple[ProcessedResponse, PageNote | None]:
        traps = self._traps
        is_page = isinstance(outcome, Fetched) and 200 <= outcome.head.status_code < 300
        check = traps.begin(host, task) if is_page and task.kind is TaskKind.PAGE else None
        fingerprinted = check is not None and check.looks
        read = partial(self._processor.read, fingerprinted=True) if fingerprinted else self._processor.read
        if is_large(outcome, is_listing=task.kind in LISTING_KINDS):
            reading, links = await asyncio.to_thread(read, task, outcome, on_loop=False)
        else:
            reading, links = read(task, outcome)
        is_error_page = False
        if check is not None and links:
            is_error_page = traps.is_error_page(host, reading)
            if not is_error_page and (target := traps.probe_target(host, task, reading)) is not None:
                self._probe(host, target)
        if isinstance(outcome, Redirected):
            added = self._url_policy.widen(task, outcome)
            if added is not None:
                self._committer.add_scope_host(added)
                self._observer.scope_widened(added, task.url)
        self._processor.judge(task, reading, links, self._url_policy.scope, remembers=not is_error_page)
        if reading.listing is not None:
            await self._url_list_policy.judge(task, host.id, reading, self._url_policy.scope)
        if reading.skipped:
            self._observer.skip(reading.skipped)
        note = None if check is None else traps.note(host, task, check, reading, is_error_page=is_error_page)
        return reading, note

    def _probe(self, host: Host, target: str) -> None:
        """Ask the host for a page that should not exist, if it lets us."""
        url = f"{host.origin}{target}"
        if not host.needs_rules and self._url_policy.judge_robots(url, host) is None:
            self._scheduler.add_auxiliary(host, host.origin, Task(0, url, TaskKind.PROBE))

    async def _settle_probe(
        self, lease: Lease, host: Host, task: Task, outcome: Outcome, dur_s: float, queue_s: float
    ) -> None:
        read = partial(self._processor.read, task, outcome, on_loop=False, fingerprinted=True)
        reading, _ = await off_loop_if_large(outcome, read)
        if response_of(outcome) is not None:
            self._traps.probed(host, reading.fingerprint)
        await self._settle_auxiliary(lease, task, outcome, reading, None, dur_s, queue_s)

    async def _settle_robots(
        self, lease: Lease, host: Host, task: Task, outcome: Outcome, dur_s: float, queue_s: float
    ) -> None:
        robots, sitemaps = await self._robots.take(lease, host, task, outcome)
        reading, _ = await off_loop_if_large(outcome, partial(self._processor.read, task, outcome))
        await self._settle_auxiliary(lease, task, outcome, reading, robots, dur_s, queue_s, sitemaps)

    async def _settle_auxiliary(
        self,
        lease: Lease,
        task: Task,
        outcome: Outcome,
        reading: ProcessedResponse,
        robots: RobotsRecord | None,
        dur_s: float,
        queue_s: float,
        sitemaps: tuple[Discovered, ...] = (),
    ) -> None:
        response = response_of(outcome)
        record = None
        if response is not None and reading.payload_digest is not None:
            record = Record(task, response, reading.payload_digest)
        now = self._clock.now()
        settlement = Settlement(
            task, lease.host_id, outcome, UrlState.DONE, sitemaps, record, robots=robots, finished_at=now
        )
        await self._committer.put(Visited(settlement, lease, queue_s, dur_s))


def _has_content(task: Task, outcome: Outcome) -> bool:
    """A 304 has none, that of a type nobody wants was not read, and an error page is not what was there before."""
    if task.is_revisit and isinstance(outcome, Fetched) and is_http_error(outcome.head.status_code):
        return False
    unread = isinstance(outcome, Fetched) and outcome.truncated is TruncatedReason.CONTENT_TYPE
    return not unread and not isinstance(outcome, NotModified)
