"""How a running crawl looks from outside: snapshots and the minute's progress line.

Reads everybody's counters and changes nothing. Totals of the store are refreshed now and then, never waited for.
"""

import resource
from collections import deque
from collections.abc import Callable

from crawler.core.clock import Clock
from crawler.core.formatting import timestamp
from crawler.engine.committer import Committer
from crawler.engine.crawl import Crawl
from crawler.engine.monitoring.counters import CrawlCounters
from crawler.engine.monitoring.snapshot import Snapshot
from crawler.engine.monitoring.summary import peak_rss_bytes
from crawler.engine.scheduling.ready_queue import NEVER
from crawler.engine.scheduling.scheduler import Scheduler
from crawler.fetch.pool_statistics import PoolStats
from crawler.frontier.base import Frontier, Totals

_RATE_OVER_S = 5.0


class Views:
    """`pool_stats` is asked for the connections."""

    def __init__(
        self,
        crawl: Crawl,
        scheduler: Scheduler,
        committer: Committer,
        tally: CrawlCounters,
        pool_stats: Callable[[], PoolStats],
        clock: Clock,
        frontier: Frontier,
    ) -> None:
        self._crawl = crawl
        self._scheduler = scheduler
        self._committer = committer
        self._tally = tally
        self._pool_stats = pool_stats
        self._clock = clock
        self._frontier = frontier
        self._started_mono = clock.mono()
        self._totals = Totals(0, 0, 0, 0, 0, 0)
        self._recent: deque[tuple[float, int]] = deque([(self._started_mono, 0)])
        self._last_progress = (self._started_mono, 0, 0, 0, self._cpu_s())

    @property
    def totals(self) -> Totals:
        """The store's counts as last asked for."""
        return self._totals

    async def refresh_totals(self) -> None:
        """Ask the store for its counts."""
        self._totals = await self._frontier.totals()

    def snapshot(self) -> Snapshot:
        """How things stand now."""
        tally, books, stats, now = self._tally, self._scheduler.books, self._pool_stats(), self._clock.mono()
        recent = self._recent
        recent.append((now, tally.pages))
        while len(recent) > 2 and now - recent[0][0] > _RATE_OVER_S:
            recent.popleft()
        spent_s = now - recent[0][0]
        queued = kept = resting = 0
        for host in books.hosts.values():  # once, for they may be many and this is drawn five times a second
            queued += host.queued
            resting += host.turn.open_mono > now or host.is_held
            if host.limit_reached or host.is_blocked:
                kept += host.backlog
        return Snapshot(
            elapsed_s=now - self._started_mono,
            state=self._crawl.state,
            until_at=self._until_at(),
            responses=tally.responses,
            pages=tally.pages,
            bytes=tally.bytes,
            errors=tally.errors,
            denied=tally.denied,
            links_found=tally.links_found,
            links_new=tally.links_new,
            queued=queued - kept,
            kept=kept,
            waiting=self._totals.waiting,
            in_flight=sum(len(lease.tasks) for lease in self._scheduler.leases_out.values()),
            hosts=len(books.hosts),
            hosts_resting=resting,
            connections_open=stats.open,
            connections_opened=stats.opened,
            requests=stats.requests,
            tls_handshakes=stats.tls_handshakes,
            tls_resumed=stats.tls_resumed,
            rate_now=(tally.pages - recent[0][1]) / spent_s if spent_s > 0 else 0.0,
            last_url=tally.last_url,
        )

    def progress(self) -> dict[str, object]:
        """The fields of a `progress` event, rates since the one before."""
        tally, stats, now = self._tally, self._pool_stats(), self._clock.mono()
        then, responses, pages, size, cpu_s = self._last_progress
        spent_s = max(1e-9, now - then)
        cpu_now_s = self._cpu_s()
        self._last_progress = (now, tally.responses, tally.pages, tally.bytes, cpu_now_s)
        cpu_percent = 100 * (cpu_now_s - cpu_s) / spent_s
        until_at = self._until_at()
        return {
            "responses_per_s": round((tally.responses - responses) / spent_s, 2),
            "pages_per_s": round((tally.pages - pages) / spent_s, 2),
            "bytes_per_s": round((tally.bytes - size) / spent_s),
            "queued": self._totals.queued,
            "waiting": self._totals.waiting,
            "hosts": len(self._scheduler.books.hosts),
            "responses": tally.responses,
            "pages": tally.pages,
            "errors": tally.errors,
            "denied": tally.denied,
            "in_flight": len(self._scheduler.leases_out),
            "connections": stats.open,
            "cpu_percent": round(cpu_percent),
            "max_rss_bytes": peak_rss_bytes(),
            "bottleneck": self._bottleneck(cpu_percent),
            **({} if until_at is None else {"open_at": timestamp(until_at)}),
        }

    def _until_at(self) -> float | None:
        return self._scheduler.valve.closed_until_at if self._crawl.state == "off_hours" else None

    def _bottleneck(self, cpu_percent: float) -> str:
        """What a faster crawl would have to wait less for."""
        if self._crawl.is_held:
            return "operator"
        if self._crawl.state == "paused" or self._committer.uncommitted > 512:
            return "disk"
        if self._scheduler.books.outage.is_on:
            return "outage"
        if cpu_percent > 85:
            return "cpu"
        if self._scheduler.valve.closed_until_at is not None:
            return "hours"
        if self._scheduler.valve.is_throttled:
            return "bandwidth"
        if self._scheduler.leases_out:
            return "network" if len(self._scheduler.leases_out) > 1 else "politeness"
        return "empty" if self._scheduler.next_turn_s() == NEVER else "politeness"

    @staticmethod
    def _cpu_s() -> float:
        usage = resource.getrusage(resource.RUSAGE_SELF)
        return usage.ru_utime + usage.ru_stime
