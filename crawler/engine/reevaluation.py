"""Re-evaluates stored URLs when the scope or a robots.txt changed.

Queued URLs that the rules now refuse are denied. Denied URLs that they now allow are queued again. The URLs of a host
are judged in slices, so that neither the event loop nor the store is blocked. URLs in leases are left out, since they
are judged when they are leased. The store knows which hosts are still to be re-evaluated (`Frontier.judge_by`,
`reevaluated`): after a crash their re-evaluation starts again.

Invariant: a host counts as re-evaluated when all of its URLs were judged by the current rules. While its robots.txt
cannot be read, its URLs are judged by the other rules, and the host must still be re-evaluated.
"""

import asyncio
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import Final

from crawler.core.clock import Clock
from crawler.core.enums import DenyReason, UrlState
from crawler.core.models import Denied
from crawler.core.scope import Scope
from crawler.engine.pages.url_policy import UrlPolicy
from crawler.engine.scheduling.host import Host
from crawler.engine.scheduling.scheduler import Scheduler
from crawler.frontier.base import Frontier, FrontierFull, UrlRow
from crawler.obs.events import Event

SLICE: Final = 500
COUNT_LIMIT: Final = 200_000  # URLs that a preview judges
COUNT_S: Final = 1.0  # for which it judges them
MAX_LINES_SHOWN: Final = 50  # of the lines that a robots.txt got, and of those that it lost
_ROBOTS_CHECK_S: Final = 60.0  # how often expired robots.txt files are searched
_RETRY_S: Final = 5.0  # until a host that could not be re-evaluated is tried again
_BY_ROBOTS: Final = frozenset((DenyReason.ROBOTS, DenyReason.ROBOTS_UNREACHABLE))


@dataclass(slots=True)
class _ReevaluatedTotals:
    """Counts of the changes that a re-evaluation of all hosts made."""

    hosts: int = 0
    denied: int = 0
    queued: int = 0


class Reevaluation:
    """Re-evaluates hosts, one after another.

    `on_event` is called with `reevaluated` for each host with changed URLs, and with `reevaluation_over` when new rules
    were applied to all hosts.
    """

    def __init__(
        self,
        *,
        frontier: Frontier,
        scheduler: Scheduler,
        url_policy: UrlPolicy,
        clock: Clock,
        on_event: Callable[[Event, dict[str, object]], None],
    ) -> None:
        self._frontier = frontier
        self._scheduler = scheduler
        self._url_policy = url_policy
        self._clock = clock
        self._on_event = on_event
        self._pending: dict[int, None] = {}
        self._unreadable: dict[int, None] = {}  # re-evaluated except by their robots.txt, which cannot be read
        self._new_robots: set[int] = set()
        self._totals: _ReevaluatedTotals | None = None  # since the rules changed for all
        self._wake = asyncio.Event()
        self._is_running = False
        self._robots_mono = 0.0  # time of the last search for expired robots.txt files

    def add_hosts(self, host_ids: Iterable[int]) -> None:
        """Re-evaluate hosts whose rules changed, and which the store has as not re-evaluated."""
        for host_id in host_ids:
            self._unreadable.pop(host_id, None)
            self._pending[host_id] = None
        if self._pending:
            self._wake.set()

    def rules_changed(self, host_ids: Iterable[int]) -> None:
        """Re-evaluate hosts because the rules for all hosts changed. The store has them as not re-evaluated."""
        self._totals = _ReevaluatedTotals()
        self.add_hosts(host_ids)
        self._wake.set()

    def robots_changed(self, robots_changed: Sequence[int]) -> None:
        """Re-evaluate hosts whose robots.txt changed with a commit."""
        self._new_robots.update(robots_changed)
        self.add_hosts(robots_changed)

    @property
    def is_idle(self) -> bool:
        """Whether there is no host that can be re-evaluated now."""
        return not (self._is_running or self._pending or any(map(self._is_readable, self._unreadable)))

    async def run(self) -> None:
        """Re-evaluate until cancelled."""
        while True:
            self._request_stale_robots()
            self.add_hosts([host_id for host_id in self._unreadable if self._is_readable(host_id)])
            if not self._pending:
                self._report_end()
                self._wake.clear()
                with suppress(TimeoutError):
                    async with asyncio.timeout(_RETRY_S if self._unreadable else _ROBOTS_CHECK_S):
                        await self._wake.wait()
                continue
            host_id = next(iter(self._pending))
            del self._pending[host_id]
            self._is_running = True
            host = await self._scheduler.workbench.load_host(host_id)
            try:
                if host is not None:
                    await self._reevaluate(host)
            except FrontierFull:
                self._pending[host_id] = None
                await asyncio.sleep(_RETRY_S)
            finally:
                self._is_running = False
                if host is not None:
                    host.pins -= 1
            self._scheduler.wake()

    def _request_stale_robots(self) -> None:
        """Request expired robots.txt files of hosts with denied URLs only: no other request leads to theirs."""
        mono, now = self._clock.mono(), self._clock.now()
        if self._pending and mono - self._robots_mono < _ROBOTS_CHECK_S:
            return
        self._robots_mono = mono
        for host in self._scheduler.host_table.denied:
            if host.robots_due(now) and not host.has_work:
                self._scheduler.request_robots(host)

    def _is_readable(self, host_id: int) -> bool:
        host = self._scheduler.host_table.hosts.get(host_id)
        return host is not None and not host.is_held

    # -- one host

    async def _reevaluate(self, host: Host) -> None:
        mark = await self._frontier.reevaluation_mark(host.id)
        self._scheduler.host_table.denied.discard(host)
        if host.id in self._new_robots and not host.is_held:
            self._new_robots.discard(host.id)
            await self._report_robots_change(host)
        refused = await self._reevaluate_urls(host, UrlState.QUEUED)
        let_in = await self._reevaluate_urls(host, UrlState.DENIED)
        if host.id not in self._unreadable and host.id not in self._pending:
            await self._frontier.reevaluated(host.id, mark)
        if self._totals is not None:
            self._totals.hosts += 1
            self._totals.denied += refused
            self._totals.queued += let_in
        if refused or let_in:
            self._on_event(Event.REEVALUATED, {**_server_fields(host), "denied": refused, "queued": let_in})

    async def _reevaluate_urls(self, host: Host, state: UrlState) -> int:
        """Judge a host's URLs of one state. Return how many changed."""
        changed = 0
        after: UrlRow | None = None
        while rows := await self._frontier.url_rows(host.id, state, after=after, limit=SLICE):
            after = rows[-1]
            await self._scheduler.load_rules(host)
            if host.is_held:
                self._unreadable[host.id] = None
            verdicts = [(row, self._verdict(row, state, host, self._url_policy.scope)) for row in rows]
            if any(denied is not None and denied.reason is DenyReason.ROBOTS for _, denied in verdicts):
                self._scheduler.host_table.denied.add(host)
            if state is UrlState.QUEUED:
                changed += await self._deny(host, [(row.id, denied) for row, denied in verdicts if denied is not None])
            elif allowed := [row.id for row, denied in verdicts if denied is None]:
                queued = await self._frontier.queue_again(allowed)
                self._scheduler.requeued(queued, are_retries=False)
                changed += sum(queued.values())
        return changed

    def _verdict(self, row: UrlRow, state: UrlState, host: Host, scope: Scope) -> Denied | None:
        """Judge a URL by all known rules. While robots.txt cannot be read, URLs that it denied before stay denied."""
        denied = scope.judge(row.url, host.origin, depth=row.depth, hop_path=row.hop_path, source=row.source)
        if denied is not None:
            return denied
        if not self._url_policy.obeys_robots_of(host) or host.robots is None:
            return None
        if host.is_held:
            if state is UrlState.DENIED and row.reason in _BY_ROBOTS:
                return Denied(DenyReason.ROBOTS_UNREACHABLE, "robots.txt could not be read")
            return None
        return self._url_policy.judge_robots(row.url, host)

    async def _deny(self, host: Host, refused: list[tuple[int, Denied]]) -> int:
        """Deny those of these URLs that are queued; URLs in leases are judged by their worker."""
        if not refused:
            return 0
        async with self._scheduler.without_prefetch([host]):
            free = [(url_id, denied) for url_id, denied in refused if url_id not in host.leased]
            count = await self._frontier.deny(host.id, free, now=self._clock.now()) if free else 0
            self._scheduler.note_counts()
        return count

    # -- events and preview

    async def _report_robots_change(self, host: Host) -> None:
        versions = (await self._frontier.robots_versions(host.id))[:2]
        rules = [await asyncio.to_thread(self._url_policy.rules.parse, version.body or b"") for version in versions]
        new, old = (one.lines() for one in rules) if len(rules) == 2 else (set(), set())
        self._on_event(
            Event.ROBOTS_CHANGED,
            {
                **_server_fields(host),
                "added": sorted(new - old)[:MAX_LINES_SHOWN],
                "removed": sorted(old - new)[:MAX_LINES_SHOWN],
            },
        )

    def _report_end(self) -> None:
        totals, self._totals = self._totals, None
        if totals is not None:
            self._on_event(Event.REEVALUATION_OVER, asdict(totals))

    async def count(self, scope: Scope) -> dict[str, object]:
        """Count the changes of a new scope: queued URLs that it would deny, and denied URLs that would be queued.

        At most COUNT_LIMIT URLs are judged, for COUNT_S; `complete` says whether all were.
        """
        dropped = back = judged = 0
        end_mono = self._clock.mono() + COUNT_S
        complete = True
        table, after_id = self._scheduler.host_table, 0
        while complete and (host_rows := await self._frontier.host_rows(after=after_id, limit=SLICE)):
            after_id = host_rows[-1].id
            for host in map(table.outline, host_rows):
                if not complete:
                    break
                for state in (UrlState.QUEUED, UrlState.DENIED):
                    after: UrlRow | None = None
                    while complete:
                        rows = await self._frontier.url_rows(host.id, state, after=after, limit=SLICE)
                        let_in = [row for row in rows if _scope_allows(row, host, scope)]
                        if state is UrlState.QUEUED:
                            dropped += len(rows) - len(let_in)
                        elif let_in:
                            await self._scheduler.load_rules(host)
                            back += sum(self._verdict(row, state, host, scope) is None for row in let_in)
                        judged += len(rows)
                        complete = judged < COUNT_LIMIT and self._clock.mono() < end_mono
                        if len(rows) < SLICE:
                            break
                        after = rows[-1]
                        await asyncio.sleep(0)
                if host.id not in table.hosts:
                    self._url_policy.rules.put(host, None, stored=True)
        return {"queued_dropped": dropped, "denied_back": back, "judged": judged, "complete": complete}


def _scope_allows(row: UrlRow, host: Host, scope: Scope) -> bool:
    denied = scope.judge(row.url, host.origin, depth=row.depth, hop_path=row.hop_path, source=row.source)
    return denied is None


def _server_fields(host: Host) -> dict[str, object]:
    return {"server_address": host.origin.host, "server_port": host.origin.port}
