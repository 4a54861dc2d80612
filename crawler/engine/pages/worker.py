"""Visits the URLs of leases: URL policy, request, response processing, commit.

A worker never waits for politeness: if an address may not be requested yet, the lease goes back to the scheduler. While
it waits for the committer, it has no connection (the fetcher gives the connection back after the last byte). The worker
decides what an outcome means for the URL, and tells the scheduler what it means for the host.
"""

import asyncio
import random
import sys
from dataclasses import replace
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
    URL_LIST_KINDS,
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
from crawler.fetch.fetcher import AddressNotReady, OriginBlocked, SendingPaused, blocked


class Fetches(Protocol):
    """The HTTP client, as workers see it."""

    async def fetch(self, origin: Origin, task: Task) -> FetchResult:
        """Request the URL of a task. Raises AddressNotReady, OriginBlocked."""


class Commits(Protocol):
    """The committer, as workers see it."""

    async def put(self, visited: Visited) -> None:
        """Hand over a visit. Waits while too much is uncommitted."""

    def processing_began(self) -> None:
        """Note that a response of an ended lease is being processed, and that its visit follows."""

    def processing_ended(self) -> None:
        """Note that such a response is processed, or that its worker was cancelled."""

    def request_commit(self, *, now: bool = False) -> None:
        """Commit at once if workers wait for the URLs that pending visits found, or if `now`."""

    def add_scope_host(self, place: str) -> None:
        """Store a place with the next commit that the redirect of a seed added to the scope (`Scope.added`)."""


class Worker:
    """One of `engine.workers` coroutines, or of `fetch.first_contacts`. All of them share the same parts but `queue`,
    which has their leases. `large_pages` is a semaphore of LARGE_AT_ONCE.
    """

    def __init__(
        self,
        *,
        queue: asyncio.Queue[Lease],
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
        self._queue = queue
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
        # The present work, for the status only.
        self.task: Task | None = None
        self.origin: Origin | None = None
        self.stage = "idle"  # fetch, read, store
        self.since_mono = 0.0  # when the request of `task` began

    async def run(self) -> None:
        """Work until cancelled."""
        while True:
            await self._visit_lease(await self._queue.get())

    async def _visit_lease(self, lease: Lease) -> None:
        host = self._host_table.hosts[lease.host_id]
        queue_s = self._clock.mono() - lease.leased_mono
        done = 0
        has_begun = False
        closed: AddressNotReady | None = None
        last: tuple[Task, FetchResult, float] | None = None
        try:
            for task in lease.tasks:
                if last is not None:
                    finished, last = last, None  # before the wait: if that is cancelled, `finally` does not repeat it
                    await self._process_result(lease, host, *finished, queue_s)
                    # All responses of one round of the loop are processed before the next requests leave: mixing
                    # costs 3 %, because the code and tables of one push those of the other out of the CPU's caches.
                    await asyncio.sleep(0)
                if not self._scheduler.may_send(lease, first=not has_begun):
                    return
                if task.id != 0:
                    needs_robots = self._url_policy.obeys_robots_of(host) and not host.is_disabled
                    if needs_robots and (host.is_held or host.needs_rules):
                        return
                    denied = self._url_policy.judge(task, lease.origin, host)
                    if denied is not None:
                        done += 1
                        await self._put_denied(lease, task, denied, queue_s)
                        continue
                start = self.since_mono = self._clock.mono()
                self.task, self.origin, self.stage = task, lease.origin, "fetch"
                try:
                    result = await self._client.fetch(lease.origin, task)
                except AddressNotReady as error:
                    closed = error
                    return
                except SendingPaused:
                    return
                except OriginBlocked:
                    if task.kind is TaskKind.ROBOTS and not (
                        host.is_blocked or host.is_disabled
                    ):  # the redirect target of another host's robots.txt
                        done += 1
                        last = task, blocked(lease.origin), self._clock.mono() - start
                    return
                has_begun = True
                done += 1
                last = task, result, self._clock.mono() - start
                if not self._host_table.learn_result(lease, task.kind, result):
                    return  # the host backs off
        finally:
            # The lease ends before its last response is processed, so that the host does not wait for our processing.
            if last is not None:
                self._committer.processing_began()
            self._scheduler.lease_ended(lease, unfinished=lease.tasks[done:], began=has_begun, closed=closed)
            if last is not None:
                try:
                    await self._process_result(lease, host, *last, queue_s)
                finally:
                    self._committer.processing_ended()
            self.task = None
            self._committer.request_commit()

    async def _put_denied(self, lease: Lease, task: Task, denied: Denied, queue_s: float) -> None:
        self._counters.attempted(denied, task.kind, task.url)
        if denied.reason is DenyReason.ROBOTS:
            self._host_table.denied.add(self._host_table.hosts[lease.host_id])
        settlement = Settlement(task, lease.host_id, denied, UrlState.DENIED, finished_at=self._clock.now())
        await self._committer.put(Visited(settlement, lease, queue_s, 0.0))

    async def _process_result(
        self, lease: Lease, host: Host, task: Task, result: FetchResult, dur_s: float, queue_s: float
    ) -> None:
        self.stage = "read"
        outcome = self._processor.outcome_of(task, result)
        self._counters.attempted(outcome, task.kind, task.url)
        process = self._process_page
        if task.kind is TaskKind.ROBOTS:
            process = self._process_robots
        elif task.kind is TaskKind.PROBE:
            process = self._process_probe
        if is_large(outcome):
            async with self._large_pages:
                await process(lease, host, task, outcome, dur_s, queue_s)
        else:
            await process(lease, host, task, outcome, dur_s, queue_s)

    async def _process_page(
        self, lease: Lease, host: Host, task: Task, outcome: Outcome, dur_s: float, queue_s: float
    ) -> None:
        decision = self._retry_decision(task, outcome)
        if decision.state is UrlState.WAITING:
            processed, note = ProcessedResponse(outcome), None
        else:
            processed, note = await self._process_response(host, task, outcome)
            if processed.outcome is not outcome:
                self._counters.reconsidered(outcome, processed.outcome, task.kind)
                outcome = processed.outcome
                decision = self._retry_decision(task, outcome)
        if note is None and decision.state is not UrlState.WAITING:
            trial = self._traps.trial_of(host, task)
            note = None if trial is None else PageNote(trial=trial)
        next_at = None
        if decision.after_s is not None:
            next_at = self._clock.now() + self._host_table.due_in_s(lease, outcome, decision.after_s)
        response = response_of(outcome)
        record = None
        if response is not None and processed.payload_digest is not None:
            is_news = isinstance(outcome, Fetched) and processed.payload_digest != task.digest
            page = processed.page if processed.index and is_news else None
            if page is not None and (tags := self._url_policy.scope.tags_of(task.url, lease.origin.host)):
                page = replace(page, tags=tags)
            record = Record(task, response, processed.payload_digest, page)
        history = None
        if decision.state in (UrlState.DONE, UrlState.GAVE_UP):
            found = processed.payload_digest
            history, next_at = self._revisits.plan(task, lease.host_id, outcome, decision.state, found)
        settlement = Settlement(
            task,
            lease.host_id,
            outcome,
            decision.state,
            tuple(processed.discovered),
            record,
            next_at,
            digest=processed.payload_digest if _has_content(task, outcome) else None,
            finished_at=self._clock.now(),
            history=history,
            note=note,
        )
        self._counters.links_found += processed.links_found
        self.stage = "store"
        await self._committer.put(Visited(settlement, lease, queue_s, dur_s, processed.links_found))
        if is_throttled(outcome):
            self._committer.request_commit(now=True)

    def _retry_decision(self, task: Task, outcome: Outcome) -> RetryDecision:
        # While no host responds at all, the failure is not the URL's, so its attempts are not limited.
        attempts = sys.maxsize if self._host_table.outage.is_suspected else self._max_attempts
        return retry_decision(outcome, attempt=task.attempt, max_attempts=attempts, rng=self._rng)

    async def _process_response(
        self, host: Host, task: Task, outcome: Outcome
    ) -> tuple[ProcessedResponse, PageNote | None]:
        traps = self._traps
        is_page = isinstance(outcome, Fetched) and 200 <= outcome.head.status_code < 300
        check = traps.check_page(host, task) if is_page and task.kind is TaskKind.PAGE else None
        fingerprinted = check is not None and check.needs_words
        process = partial(self._processor.process, fingerprinted=True) if fingerprinted else self._processor.process
        if is_large(outcome, is_url_list=task.kind in URL_LIST_KINDS):
            processed, links = await asyncio.to_thread(process, task, outcome, on_loop=False)
        else:
            processed, links = process(task, outcome)
        is_error_page = False
        if check is not None and links:
            is_error_page = traps.is_error_page(host, processed)
            if not is_error_page and (target := traps.probe_target(host, task, processed)) is not None:
                self._probe(host, target)
        if isinstance(outcome, Redirected):
            added = self._url_policy.widen(task, outcome)
            if added is not None:
                self._committer.add_scope_host(added.place)
                if added.is_new:
                    self._observer.scope_widened(added.host, task.url)
        self._processor.judge_links(task, processed, links, self._url_policy.scope, remembers=not is_error_page)
        if processed.url_list is not None:
            await self._url_list_policy.judge(task, host.id, processed, self._url_policy.scope)
        if processed.skipped:
            self._observer.skip(processed.skipped)
        note = None if check is None else traps.note_page(host, task, check, processed, is_error_page=is_error_page)
        return processed, note

    def _probe(self, host: Host, target: str) -> None:
        """Request a page that should not exist, if robots.txt allows it."""
        url = f"{host.origin}{target}"
        if not host.needs_rules and self._url_policy.judge_robots(url, host) is None:
            self._scheduler.add_auxiliary(host, host.origin, Task(0, url, TaskKind.PROBE))

    async def _process_probe(
        self, lease: Lease, host: Host, task: Task, outcome: Outcome, dur_s: float, queue_s: float
    ) -> None:
        process = partial(self._processor.process, task, outcome, on_loop=False, fingerprinted=True)
        processed, _ = await off_loop_if_large(outcome, process)
        if response_of(outcome) is not None:
            self._traps.probe_ended(host, processed.fingerprint)
        await self._put_auxiliary(lease, task, outcome, processed, None, dur_s, queue_s)

    async def _process_robots(
        self, lease: Lease, host: Host, task: Task, outcome: Outcome, dur_s: float, queue_s: float
    ) -> None:
        robots, sitemaps = await self._robots.process(lease, host, task, outcome)
        processed, _ = await off_loop_if_large(outcome, partial(self._processor.process, task, outcome))
        await self._put_auxiliary(lease, task, outcome, processed, robots, dur_s, queue_s, sitemaps)

    async def _put_auxiliary(
        self,
        lease: Lease,
        task: Task,
        outcome: Outcome,
        processed: ProcessedResponse,
        robots: RobotsRecord | None,
        dur_s: float,
        queue_s: float,
        sitemaps: tuple[Discovered, ...] = (),
    ) -> None:
        response = response_of(outcome)
        record = None
        if response is not None and processed.payload_digest is not None:
            record = Record(task, response, processed.payload_digest)
        now = self._clock.now()
        settlement = Settlement(
            task, lease.host_id, outcome, UrlState.DONE, sitemaps, record, robots=robots, finished_at=now
        )
        await self._committer.put(Visited(settlement, lease, queue_s, dur_s))


def _has_content(task: Task, outcome: Outcome) -> bool:
    """Whether the digest of the outcome is that of the page's content, which the next visit compares.

    It is not for a 304, for content of an unwanted type (it was not received), and for an error page on a revisit.
    """
    if task.is_revisit and isinstance(outcome, Fetched) and is_http_error(outcome.head.status_code):
        return False
    is_unwanted = isinstance(outcome, Fetched) and outcome.truncated is TruncatedReason.CONTENT_TYPE
    return not is_unwanted and not isinstance(outcome, NotModified)
