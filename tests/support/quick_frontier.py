"""A frontier in memory that is fast with many thousand URLs."""

import heapq
from collections import Counter, defaultdict
from collections.abc import Callable, Collection
from typing import Any

from crawler.core.enums import UrlState
from crawler.core.models import Discovered, RecordLocation, Settlement, Task
from crawler.core.url import registrable_domain
from tests.support.memory_frontier import MemoryFrontier


class QuickFrontier(MemoryFrontier):
    """A MemoryFrontier that indexes queued and waiting URLs."""

    def __init__(self, key_name: Callable[[str], str] = registrable_domain) -> None:
        super().__init__(key_name)
        self._queued: defaultdict[int, dict[int, Any]] = defaultdict(dict)
        self._waiting: dict[int, Any] = {}

    def _insert(self, found: Discovered, via: int | None, new_hosts: list[Any], queued: Counter[int]) -> int:
        inserted = super()._insert(found, via, new_hosts, queued)
        if inserted:
            url = self._urls[len(self._urls)]
            self._queued[url.host_id][url.id] = url
        return inserted

    def _set_state(self, url: Any, state: UrlState) -> None:
        super()._set_state(url, state)
        if state is UrlState.QUEUED:
            self._queued[url.host_id][url.id] = url
        else:
            self._queued[url.host_id].pop(url.id, None)
        self._waiting.pop(url.id, None)

    def _put_visit(self, settlement: Settlement, record: RecordLocation | None, line: RecordLocation | None) -> None:
        super()._put_visit(settlement, record, line)
        url = self._urls.get(settlement.task.id)
        if url is not None and url.next_at is not None:
            self._waiting[url.id] = url

    async def take(self, host_id: int, limit: int, *, leased: Collection[int]) -> list[Task]:
        free = [url for url in self._queued[host_id].values() if url.id not in leased]
        first = heapq.nsmallest(limit, free, key=lambda url: (url.found.priority, url.found.depth, url.id))
        return [self._task_of(url) for url in first]

    async def promote(self, *, now: float, limit: int = 1_000, revisits: bool = False) -> dict[int, int]:
        if revisits:
            return await super().promote(now=now, limit=limit, revisits=True)
        everything, self._urls = self._urls, self._waiting
        try:
            return await super().promote(now=now, limit=limit)
        finally:
            self._urls = everything

    async def next_due(self, *, revisits: bool = False) -> float | None:
        if revisits:
            return await super().next_due(revisits=True)
        return min((url.next_at for url in self._waiting.values() if url.state is UrlState.WAITING), default=None)
