"""Re-evaluates stored URLs when the scope or a robots.txt changed.

Queued URLs that the rules now refuse are denied. Denied URLs that they now allow are queued again. After a change of
the rules for all hosts, a sweep judges the URLs of all hosts by what the store has, in slices; only hosts whose URLs
change are read into memory. The store knows how far the sweep came, and which hosts are marked: those with another
robots.txt, and those whose robots.txt could not be read when the sweep passed. After a crash both go on.

URLs in leases are left out, since they are judged when they are leased.

Invariant: a host counts as re-evaluated when all of its URLs were judged by the current rules. While its robots.txt
cannot be read, its URLs are judged by the other rules, and the host must still be re-evaluated.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from typing import Final

from crawler.core.clock import Clock
from crawler.core.enums import DenyReason, UrlState
from crawler.core.models import Denied, HostRow
from crawler.core.scope import Scope
from crawler.engine.pages.url_policy import UrlPolicy
from crawler.engine.scheduling.host import Host
from crawler.engine.scheduling.scheduler import Scheduler
from crawler.frontier.base import Frontier, FrontierFull, Receipt, Sweep, UrlRow
from crawler.obs.events import Event

SLICE: Final = 500  # hosts, or URLs, of one step
COUNT_LIMIT: Final = 200_000  # URLs that a preview judges
COUNT_S: Final = 1.0  # for which it judges them
MAX_LINES_SHOWN: Final = 50  # of the lines that a robots.txt got, and of those that it lost
_ROBOTS_CHECK_S: Final = 60.0  # how often expired robots.txt files are searched
_RETRY_S: Final = 5.0  # until the next attempt if the disk is full
_JUDGED: Final = (UrlState.QUEUED, UrlState.DENIED)
_BY_ROBOTS: Final = frozenset((DenyReason.ROBOTS, DenyReason.ROBOTS_UNREACHABLE))


@dataclass(slots=True)
class _ReevaluatedTotals:
    """Counts of the changes that a sweep over all hosts made in this run."""

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
        self._pending: dict[int, None] = {}  # marked hosts that can be re-evaluated
        self._marked_after: int | None = 0  # those that the last run marked are read from here on; None: all were
        self._new_robots: set[int] = set()
        self._generation: int | None = None  # of the sweep by the rules in force; None: there is none
        self._totals = _ReevaluatedTotals()
        self._wake = asyncio.Event()
        self._is_running = False
        self._robots_mono = 0.0  # time of the last search for expired robots.txt files

    def load(self, sweep: Sweep | None) -> None:
        """Go on with the sweep that the store has, if any."""
        self._generation = None if sweep is None else sweep.generation

    def read_marks(self) -> None:
        """Read the marked hosts of the store again: there may be others."""
        self._marked_after = 0
        self._wake.set()

    def rules_changed(self, sweep: Sweep) -> None:
        """Begin this sweep, because the rules for all hosts changed: from now on others are in force."""
        self._totals = _ReevaluatedTotals()
        self._generation = sweep.generation
        self._wake.set()

    def robots_stored(self, receipt: Receipt) -> None:
        """Re-evaluate hosts of which a commit stored a changed robots.txt, or one that can be read again."""
        self._new_robots.update(receipt.robots_changed)
        self._add(receipt.to_reevaluate)

    def _add(self, host_ids: Iterable[int]) -> None:
        self._pending.update((host_id, None) for host_id in host_ids)
        if self._pending:
            self._wake.set()

    @property
    def is_idle(self) -> bool:
        """Whether there is no host that can be re-evaluated now."""
        is_done = self._generation is None and self._marked_after is None
        return is_done and not (self._is_running or self._pending)

    async def run(self) -> None:
        """Re-evaluate until cancelled."""
        while True:
            self._request_stale_robots()
            if self.is_idle:
                self._wake.clear()
                with suppress(TimeoutError):
                    async with asyncio.timeout(_ROBOTS_CHECK_S):
                        await self._wake.wait()
                continue
            self._is_running = True
            try:
                await self._step()
            except FrontierFull:
                await asyncio.sleep(_RETRY_S)
            finally:
                self._is_running = False
            self._scheduler.wake()

    async def _step(self) -> None:
        """Re-evaluate a marked host, or else a slice of all hosts. Raises FrontierFull: then it is to be repeated."""
        if self._pending:
            host_id = next(iter(self._pending))
            await self._reevaluate(host_id)
            return
        if self._marked_after is not None:
            marked = await self._frontier.marked_hosts(after=self._marked_after, limit=SLICE)
            rows = await self._frontier.host_rows_of(marked)
            self._marked_after = marked[-1] if marked else None
            self._add(host.id for host in map(self._scheduler.host_table.outline, rows) if not host.is_held)
            return
        await self._sweep()

    def _request_stale_robots(self) -> None:
        """Request expired robots.txt files of hosts with denied URLs only: no other request leads to theirs."""
        mono, now = self._clock.mono(), self._clock.now()
        if not self.is_idle and mono - self._robots_mono < _ROBOTS_CHECK_S:
            return
        self._robots_mono = mono
        for host in self._scheduler.host_table.denied:
            if host.robots_due(now) and not host.has_work and not host.is_leaving:
                self._scheduler.request_robots(host)

    # -- all hosts

    async def _sweep(self) -> None:
        """Judge the URLs of the next hosts, and re-evaluate those of which one changes."""
        generation = self._generation
        sweep = await self._frontier.sweep()
        if sweep is None or sweep.generation != generation:  # other rules will be in force in a moment
            self._generation = None if self._generation == generation else self._generation
            return
        rows = await self._frontier.host_rows(after=sweep.after, limit=SLICE)
        changing, held = await self._changing(rows)
        for host_id in changing:
            await self._reevaluate(host_id)
        sweep = replace(sweep, after=min(rows[-1].id, sweep.last) if rows else sweep.last)
        await self._frontier.swept(sweep, marked=held)
        hosts = self._scheduler.host_table.hosts
        self._add(host_id for host_id in held if host_id in hosts and not hosts[host_id].is_held)  # read meanwhile
        if self._generation != generation:
            return
        self._totals.hosts += len(rows)
        if sweep.after >= sweep.last:
            self._generation = None
            self._on_event(Event.REEVALUATION_OVER, asdict(self._totals))

    async def _changing(self, rows: Sequence[HostRow]) -> tuple[list[int], list[int]]:
        """The ids of those of these hosts of which URLs change, and of those that can be judged only in part."""
        changing: dict[int, None] = {}
        held: dict[int, None] = {}
        table = self._scheduler.host_table
        for state in _JUDGED:
            async for verdicts in self._verdicts(rows, state, self._url_policy.scope):
                for host, _, denied in verdicts:
                    if (denied is None) is (state is UrlState.DENIED):
                        changing[host.id] = None
                    if host.is_held:
                        held[host.id] = None
                    if _is_by_robots(denied) and table.hosts.get(host.id) is host:
                        table.denied.add(host)
                await asyncio.sleep(0)
        return list(changing), list(held)

    async def _verdicts(
        self, rows: Sequence[HostRow], state: UrlState, scope: Scope
    ) -> AsyncIterator[list[tuple[Host, UrlRow, Denied | None]]]:
        """Judge the URLs of one state of these hosts, in slices. A host that is not in memory does not enter it."""
        if not rows:
            return
        table = self._scheduler.host_table
        hosts = {row.id: table.outline(row) for row in rows}
        after: UrlRow | None = None
        while found := await self._frontier.url_rows(rows[0].id, rows[-1].id, state, after=after, limit=SLICE):
            after = found[-1]
            verdicts = []
            for row in found:
                if (host := hosts.get(row.host_id)) is not None:
                    verdicts.append((host, row, await self._verdict(row, state, host, scope)))
            for host_id in {row.host_id for row in found} - table.hosts.keys():
                self._url_policy.rules.put(hosts[host_id], None, stored=True)
            yield verdicts

    # -- one host

    async def _reevaluate(self, host_id: int) -> None:
        """Judge all URLs of a host. Raises FrontierFull."""
        host = await self._scheduler.workbench.load_host(host_id)
        if host is None:
            self._pending.pop(host_id, None)
            return
        try:
            mark = await self._frontier.reevaluation_mark(host.id)
            self._pending.pop(host.id, None)
            self._scheduler.host_table.denied.discard(host)
            if host.id in self._new_robots and not host.is_held:
                self._new_robots.discard(host.id)
                await self._report_robots_change(host)
            refused = await self._reevaluate_urls(host, UrlState.QUEUED)
            let_in = await self._reevaluate_urls(host, UrlState.DENIED)
            if not host.is_held:
                await self._frontier.reevaluated(host.id, mark)
        except FrontierFull:
            self._pending[host.id] = None
            raise
        finally:
            host.pins -= 1
        self._totals.denied += refused
        self._totals.queued += let_in
        if refused or let_in:
            self._on_event(Event.REEVALUATED, {**_server_fields(host), "denied": refused, "queued": let_in})

    async def _reevaluate_urls(self, host: Host, state: UrlState) -> int:
        """Judge a host's URLs of one state. Return how many changed."""
        changed = 0
        after: UrlRow | None = None
        while rows := await self._frontier.url_rows(host.id, host.id, state, after=after, limit=SLICE):
            after = rows[-1]
            verdicts = [(row, await self._verdict(row, state, host, self._url_policy.scope)) for row in rows]
            if any(_is_by_robots(denied) for _, denied in verdicts):
                self._scheduler.host_table.denied.add(host)
            if state is UrlState.QUEUED:
                changed += await self._deny(host, [(row.id, denied) for row, denied in verdicts if denied is not None])
            elif allowed := [row.id for row, denied in verdicts if denied is None]:
                queued = await self._frontier.queue_urls(allowed, states=(UrlState.DENIED,))
                self._scheduler.requeued(queued, are_retries=False)
                changed += sum(queued.values())
        return changed

    async def _verdict(self, row: UrlRow, state: UrlState, host: Host, scope: Scope) -> Denied | None:
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
        await self._scheduler.load_rules(host)
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
        rules = [await self._url_policy.rules.parsed(version.body or b"") for version in versions]
        new, old = (one.lines() for one in rules) if len(rules) == 2 else (set(), set())
        self._on_event(
            Event.ROBOTS_CHANGED,
            {
                **_server_fields(host),
                "added": sorted(new - old)[:MAX_LINES_SHOWN],
                "removed": sorted(old - new)[:MAX_LINES_SHOWN],
            },
        )

    async def count(self, scope: Scope) -> dict[str, object]:
        """Count the changes of a new scope: queued URLs that it would deny, and denied URLs that would be queued.

        At most COUNT_LIMIT URLs are judged, for COUNT_S; `complete` says whether all were.
        """
        counts = dict.fromkeys(_JUDGED, 0)
        judged = after = 0
        end_mono = self._clock.mono() + COUNT_S
        while rows := await self._frontier.host_rows(after=after, limit=SLICE):
            after = rows[-1].id
            for state in _JUDGED:
                async for verdicts in self._verdicts(rows, state, scope):
                    judged += len(verdicts)
                    counts[state] += sum((denied is None) is (state is UrlState.DENIED) for _, _, denied in verdicts)
                    if judged >= COUNT_LIMIT or self._clock.mono() >= end_mono:
                        return _preview(counts, judged, complete=False)
                    await asyncio.sleep(0)
        return _preview(counts, judged, complete=True)


def _preview(counts: dict[UrlState, int], judged: int, *, complete: bool) -> dict[str, object]:
    dropped, back = (counts[state] for state in _JUDGED)
    return {"queued_dropped": dropped, "denied_back": back, "judged": judged, "complete": complete}


def _is_by_robots(denied: Denied | None) -> bool:
    return denied is not None and denied.reason is DenyReason.ROBOTS


def _server_fields(host: Host) -> dict[str, object]:
    return {"server_address": host.origin.host, "server_port": host.origin.port}
