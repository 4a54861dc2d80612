"""Judges stored URLs anew when rules have changed: the scope, a robots.txt.

What is queued and refused now is denied, with the rule; what was denied and is allowed now is queued again. It goes
through a host in slices, so that neither the event loop nor the store is held. URLs that are handed out are left out:
they are judged when they are leased. Which hosts are still to be swept is in the store (`Frontier.judge_by`, `swept`):
a sweep that a crash cut off begins anew with the next start.

Invariant: a host counts as swept once all of its URLs were judged by rules that are in force. Where its robots.txt
cannot be read, its URLs are judged by the other rules, and it waits for the rest.
"""

import asyncio
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
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
LINES_TOLD: Final = 50  # of what a robots.txt says now and did not, and the other way round
_ROBOTS_S: Final = 60.0  # how often it is looked whose robots.txt to read again
_AGAIN_S: Final = 5.0  # a host that cannot be swept yet is looked at again
_BY_ROBOTS: Final = frozenset((DenyReason.ROBOTS, DenyReason.ROBOTS_UNREACHABLE))


@dataclass(slots=True)
class _Sums:
    """What sweeps changed."""

    hosts: int = 0
    denied: int = 0
    queued: int = 0


class Reevaluation:
    """`on_event` gets a `rejudged` line for each host of which anything changed, and `swept` when other rules than
    before were brought to all of them.
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
        self._wanted: dict[int, None] = {}
        self._held: dict[int, None] = {}  # swept, but for what their robots.txt says: it cannot be read
        self._new_robots: set[int] = set()
        self._sums: _Sums | None = None  # since the rules changed for all
        self._wake = asyncio.Event()
        self._sweeping = False
        self._robots_mono = 0.0  # when it was last looked whose robots.txt to read again

    def want(self, host_ids: Iterable[int]) -> None:
        """The rules of these hosts changed, and the store knows it."""
        for host_id in host_ids:
            self._held.pop(host_id, None)
            self._wanted[host_id] = None
        if self._wanted:
            self._wake.set()

    def rules_changed(self, host_ids: Iterable[int]) -> None:
        """Other rules hold for all, and the store knows that these hosts are to be judged by them."""
        self._sums = _Sums()
        self.want(host_ids)
        self._wake.set()

    def changed(self, robots_changed: Sequence[int]) -> None:
        """A commit brought another robots.txt of these hosts."""
        self._new_robots.update(robots_changed)
        self.want(robots_changed)

    @property
    def is_idle(self) -> bool:
        """Nothing can be swept now."""
        return not (self._sweeping or self._wanted or any(map(self._is_readable, self._held)))

    async def run(self) -> None:
        """Sweep until cancelled."""
        while True:
            self._read_robots_again()
            self.want([host_id for host_id in self._held if self._is_readable(host_id)])
            if not self._wanted:
                self._say_swept()
                self._wake.clear()
                with suppress(TimeoutError):
                    async with asyncio.timeout(_AGAIN_S if self._held else _ROBOTS_S):
                        await self._wake.wait()
                continue
            host_id = next(iter(self._wanted))
            del self._wanted[host_id]
            host = self._scheduler.host_table.hosts.get(host_id)
            if host is None:
                continue
            self._sweeping = True
            try:
                await self._sweep(host)
            except FrontierFull:
                self._wanted[host_id] = None
                await asyncio.sleep(_AGAIN_S)
            finally:
                self._sweeping = False
            self._scheduler.wake()

    def _read_robots_again(self) -> None:
        """A host of which all that is left is forbidden has no turn that would have its robots.txt read."""
        mono, now = self._clock.mono(), self._clock.now()
        if self._wanted and mono - self._robots_mono < _ROBOTS_S:
            return
        self._robots_mono = mono
        for host in self._scheduler.host_table.denied:
            if host.robots_due(now) and not host.has_work:
                self._scheduler.request_robots(host)

    def _is_readable(self, host_id: int) -> bool:
        host = self._scheduler.host_table.hosts.get(host_id)
        return host is not None and not host.is_held

    # -- a sweep

    async def _sweep(self, host: Host) -> None:
        mark = await self._frontier.reevaluation_mark(host.id)
        self._scheduler.host_table.denied.discard(host)
        if host.id in self._new_robots and not host.is_held:
            self._new_robots.discard(host.id)
            await self._say_what_changed(host)
        refused = await self._go_through(host, UrlState.QUEUED)
        let_in = await self._go_through(host, UrlState.DENIED)
        if host.id not in self._held and host.id not in self._wanted:
            await self._frontier.reevaluated(host.id, mark)
        if self._sums is not None:
            self._sums = _Sums(self._sums.hosts + 1, self._sums.denied + refused, self._sums.queued + let_in)
        if refused or let_in:
            self._on_event(Event.REJUDGED, {**_where(host), "denied": refused, "queued": let_in})

    async def _go_through(self, host: Host, state: UrlState) -> int:
        """Returns how many URLs changed. A host whose robots.txt cannot be read is held afterwards."""
        changed = 0
        after: UrlRow | None = None
        while rows := await self._frontier.url_rows(host.id, state, after=after, limit=SLICE):
            after = rows[-1]
            await self._scheduler.load_rules(host)
            if host.is_held:
                self._held[host.id] = None
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
        """By all rules that are at hand. What an unreadable robots.txt refused when it could be read stays refused."""
        denied = scope.judge(row.url, host.origin, depth=row.depth, hop_path=row.hop_path, source=row.source)
        if denied is not None:
            return denied
        if not self._url_policy.obey or host.robots is None:
            return None
        if host.is_held:
            if state is UrlState.DENIED and row.reason in _BY_ROBOTS:
                return Denied(DenyReason.ROBOTS_UNREACHABLE, "robots.txt could not be read")
            return None
        return self._url_policy.judge_robots(row.url, host)

    async def _deny(self, host: Host, refused: list[tuple[int, Denied]]) -> int:
        """Deny what is queued and in nobody's hands; the rest is judged when it is leased."""
        if not refused:
            return 0
        async with self._scheduler.without_prefetch([host]):
            free = [(url_id, denied) for url_id, denied in refused if url_id not in host.leased]
            count = await self._frontier.deny(host.id, free, now=self._clock.now()) if free else 0
            host.queued -= count
        return count

    # -- what is told

    async def _say_what_changed(self, host: Host) -> None:
        versions = (await self._frontier.robots_versions(host.id))[:2]
        rules = [await asyncio.to_thread(self._url_policy.rules.parse, version.body or b"") for version in versions]
        new, old = (one.lines() for one in rules) if len(rules) == 2 else (set(), set())
        self._on_event(
            Event.ROBOTS_CHANGED,
            {
                **_where(host),
                "added": sorted(new - old)[:LINES_TOLD],
                "removed": sorted(old - new)[:LINES_TOLD],
            },
        )

    def _say_swept(self) -> None:
        sums, self._sums = self._sums, None
        if sums is not None:
            self._on_event(Event.SWEPT, {"hosts": sums.hosts, "denied": sums.denied, "queued": sums.queued})

    async def count(self, scope: Scope) -> dict[str, object]:
        """What a scope would do to the stored URLs: how many queued ones it drops, and how many denied ones come back
        (those that no other rule keeps out). Exact up to COUNT_LIMIT URLs judged; `complete` says whether all were.
        """
        dropped = back = judged = 0
        complete = True
        for host in list(self._scheduler.host_table.hosts.values()):
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
                    complete = judged < COUNT_LIMIT
                    if len(rows) < SLICE:
                        break
                    after = rows[-1]
                    await asyncio.sleep(0)
        return {"queued_dropped": dropped, "denied_back": back, "judged": judged, "complete": complete}


def _scope_allows(row: UrlRow, host: Host, scope: Scope) -> bool:
    denied = scope.judge(row.url, host.origin, depth=row.depth, hop_path=row.hop_path, source=row.source)
    return denied is None


def _where(host: Host) -> dict[str, object]:
    return {"server_address": host.origin.host, "server_port": host.origin.port}
