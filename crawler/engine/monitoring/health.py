"""Health of the crawl, for the watchdog and /healthz: does it make progress, or has it a good reason to wait?

A pause, closed hours, a full disk, an outage and a long Crawl-delay are good reasons.
Invariant: any other wait is shorter than the limits in this file.
"""

from collections.abc import Callable, Sequence
from typing import Final

from crawler.core.clock import Clock
from crawler.core.formatting import duration
from crawler.engine.committer import Committer
from crawler.engine.crawl import Crawl
from crawler.engine.monitoring.counters import CrawlCounters
from crawler.engine.pages.worker import Worker
from crawler.engine.scheduling.scheduler import Scheduler

OWN_WORK_S: Final = 120.0  # the longest step that needs no server: reading a page, a commit, a lease


class Health:
    """Watches progress. `check` must be called every few seconds. `attempt_s` gives the longest time that one attempt
    may take (`fetch.total_timeout`).
    """

    def __init__(
        self,
        *,
        crawl: Crawl,
        scheduler: Scheduler,
        committer: Committer,
        workers: Sequence[Worker],
        counters: CrawlCounters,
        clock: Clock,
        attempt_s: Callable[[], float],
    ) -> None:
        self._crawl = crawl
        self._scheduler = scheduler
        self._committer = committer
        self._workers = workers
        self._counters = counters
        self._clock = clock
        self._attempt_s = attempt_s
        self._seen: tuple[int, int, int] = (-1, -1, -1)
        self.progress_mono = clock.mono()
        self.progress_at = clock.now()

    def check(self) -> None:
        """Record the time if there was progress since the last call, or a good reason for none."""
        seen = (sum(self._counters.outcomes.values()), self._counters.links_new, self._committer.commits)
        if seen != self._seen or self._has_reason_to_wait():
            self._seen = seen
            self.progress_mono, self.progress_at = self._clock.mono(), self._clock.now()

    def stall(self) -> str:
        """What has made no progress for too long; "" if all is well."""
        still_s = self._clock.mono() - self.progress_mono
        if still_s <= OWN_WORK_S or self._has_reason_to_wait():
            return ""
        stages = {worker.stage for worker in self._workers if worker.task is not None}
        if "fetch" in stages and still_s <= self._attempt_s() + OWN_WORK_S:
            return ""
        where = ", ".join(sorted(stages)) or "URLs that may be requested get no request"
        return f"nothing has happened for {duration(still_s)}: {where}"

    def _has_reason_to_wait(self) -> bool:
        """Whether there is a good reason for no progress."""
        crawl, scheduler = self._crawl, self._scheduler
        if crawl.disk_reason or crawl.is_held or crawl.is_draining or scheduler.crawl_rate_limiter.closed_s() > 0:
            return True
        return not scheduler.leases_out and self._committer.is_idle and scheduler.oldest_ready_s() < 1.0
