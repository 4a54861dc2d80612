"""Limits on the number of URLs fetched: `scope.max_urls` and `scope.max_urls_per_host`.

They count first attempts at pages: not retries, not robots.txt, not what a rule denied. Invariant: a first attempt
counts from the moment its task is leased, so neither limit is ever exceeded.
"""

from collections.abc import Sequence

from crawler.core.models import Task
from crawler.core.options import ScopeOptions
from crawler.engine.scheduling.host import Host


class UrlLimits:
    """`first_attempts` are those stored over the life of the directory, `reserved` those leased and not stored yet."""

    def __init__(self, options: ScopeOptions) -> None:
        self.first_attempts = 0
        self.reserved = 0
        self._hosts_at_limit: dict[Host, None] = {}
        self.reconfigure(options)

    def reconfigure(self, options: ScopeOptions) -> None:
        """Apply new limits. Hosts held back by the former ones are released; the caller schedules them again."""
        self._max_urls = options.max_urls
        self._max_urls_per_host = options.max_urls_per_host
        self.reopen_all()

    @property
    def is_reached(self) -> bool:
        """Whether a limit holds back queued URLs."""
        return bool(self._hosts_at_limit)

    def reserve(self, host: Host, task: Task) -> bool:
        """Count a task that is about to be leased. False: a limit forbids it."""
        if not task.is_first:
            return True
        total_full = self._max_urls is not None and self.first_attempts + self.reserved >= self._max_urls
        host_full = self._max_urls_per_host is not None and host.fetched + host.reserved >= self._max_urls_per_host
        if total_full or host_full:
            return False
        host.reserved += 1
        self.reserved += 1
        return True

    def unreserve(self, host: Host, task: Task) -> None:
        """Uncount a leased task that came back without an attempt."""
        if task.is_first:
            host.reserved -= 1
            self.reserved -= 1

    def attempt_stored(self, host: Host, task: Task, *, fetched: bool) -> Sequence[Host]:
        """Count an attempt that was stored. `fetched`: a request was made for it. If none was made, the limits have
        room for another URL: returns the hosts that are released.
        """
        self.unreserve(host, task)
        if not task.is_first:
            return ()
        if fetched:
            host.fetched += 1
            self.first_attempts += 1
            return ()
        return self.reopen_all()

    def hold(self, host: Host) -> None:
        """Hold back a host that has only first attempts left, which a limit forbids."""
        host.limit_reached = True
        self._hosts_at_limit[host] = None

    def reopen(self, host: Host) -> None:
        """Release a host: it may have a task that no limit forbids."""
        host.limit_reached = False
        self._hosts_at_limit.pop(host, None)

    def reopen_all(self) -> Sequence[Host]:
        """Release all hosts that were held back, and return them."""
        hosts = tuple(self._hosts_at_limit)
        for host in hosts:
            self.reopen(host)
        return hosts
