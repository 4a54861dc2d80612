"""Judges stored URLs again when rules change: those that were denied and are allowed now are queued again.

URLs that fall out of scope need no sweep: they are judged when they are leased, before any request. Host after host and
slice after slice, with the loop's other work between. Invariant: a slice is judged by the rules of the latest change;
a change during a sweep starts it anew.
"""

import asyncio
from collections.abc import Callable
from typing import Final

from crawler.core.scope import Scope
from crawler.core.vocabulary import DenyReason, UrlState
from crawler.engine.scheduler import Scheduler
from crawler.frontier.base import Frontier, FrontierFull, UrlRow

SLICE: Final = 500
COUNT_LIMIT: Final = 200_000  # queued URLs that a preview judges
_FULL_S: Final = 1.0
SCOPE_REASONS: Final = frozenset(
    {
        DenyReason.SCOPE_SCHEME,
        DenyReason.SCOPE_HOST,
        DenyReason.SCOPE_INCLUDE,
        DenyReason.SCOPE_EXCLUDE,
        DenyReason.SCOPE_DEPTH,
        DenyReason.REQUISITES_OFF,
    }
)


class Sweeper:
    """`run` is to run beside the crawl. `on_swept` is told how many URLs a sweep brought back."""

    def __init__(self, frontier: Frontier, scheduler: Scheduler, on_swept: Callable[[int], None]) -> None:
        self._frontier = frontier
        self._scheduler = scheduler
        self._on_swept = on_swept
        self._wanted = asyncio.Event()
        self._scope: Scope | None = None

    def sweep(self, scope: Scope) -> None:
        """Bring back what this scope allows, as soon as may be."""
        self._scope = scope
        self._wanted.set()

    async def run(self) -> None:
        """Sweep when asked to, until cancelled."""
        while True:
            await self._wanted.wait()
            self._wanted.clear()
            scope = self._scope
            assert scope is not None
            await self.sweep_all(scope)

    async def sweep_all(self, scope: Scope) -> None:
        """Bring back what this scope allows, now. Ends early when another scope is to be swept for."""
        brought_back = 0
        for host_id in list(self._scheduler.books.hosts):
            brought_back += await self._sweep_host(host_id, scope)
            if self._wanted.is_set():
                return
        self._on_swept(brought_back)

    async def _sweep_host(self, host_id: int, scope: Scope) -> int:
        after: UrlRow | None = None
        brought_back = 0
        while not self._wanted.is_set():
            try:
                rows = await self._frontier.url_rows(host_id, UrlState.DENIED, after=after, limit=SLICE)
                allowed = [
                    row.id for row in rows if row.reason in SCOPE_REASONS and self._is_allowed(host_id, row, scope)
                ]
                queued = await self._frontier.queue_again(allowed) if allowed else {}
            except FrontierFull:
                await asyncio.sleep(_FULL_S)
                continue
            self._scheduler.queued_again(queued)
            brought_back += sum(queued.values())
            if len(rows) < SLICE:
                break
            after = rows[-1]
            await asyncio.sleep(0)
        return brought_back

    def _is_allowed(self, host_id: int, row: UrlRow, scope: Scope) -> bool:
        origin = self._scheduler.books.hosts[host_id].origin
        denied = scope.judge(row.url, origin, depth=row.depth, hop_path=row.hop_path, source=row.source)
        return denied is None

    async def count(self, scope: Scope) -> dict[str, object]:
        """What a scope would do to the stored URLs: how many queued ones it drops, and how many denied ones come back.
        Exact up to COUNT_LIMIT URLs judged; `complete` says whether all were.
        """
        dropped = back = judged = 0
        complete = True
        for host_id in list(self._scheduler.books.hosts):
            for state in (UrlState.QUEUED, UrlState.DENIED):
                after: UrlRow | None = None
                while complete:
                    rows = await self._frontier.url_rows(host_id, state, after=after, limit=SLICE)
                    for row in rows:
                        if state is UrlState.QUEUED:
                            dropped += not self._is_allowed(host_id, row, scope)
                        elif row.reason in SCOPE_REASONS:
                            back += self._is_allowed(host_id, row, scope)
                    judged += len(rows)
                    complete = judged < COUNT_LIMIT
                    if len(rows) < SLICE:
                        break
                    after = rows[-1]
                    await asyncio.sleep(0)
        return {"queued_dropped": dropped, "denied_back": back, "judged": judged, "complete": complete}
