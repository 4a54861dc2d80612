"""Judges stored URLs anew when the rules of their host have changed: a robots.txt, a quarantine, the scope.

What is queued and refused now is denied, with the rule; what was denied and is allowed now is queued again. It goes
through a host in slices, so that neither the event loop nor the store is held. URLs that are handed out are left out:
they are judged when they are leased. Which hosts are still to be swept is in the store.

Invariant: a host is swept once its rules are at hand and its robots.txt is readable; until then its URLs stay.
"""

import asyncio
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from typing import Final

from crawler.core.clock import Clock
from crawler.core.values import Denied, Task
from crawler.core.vocabulary import DenyReason, UrlState
from crawler.engine.admission import Admission
from crawler.engine.hosts import Host
from crawler.engine.scheduler import Scheduler
from crawler.frontier.base import Frontier, FrontierFull, UrlRow
from crawler.obs.events import Event

SLICE: Final = 500
LINES_TOLD: Final = 50  # of what a robots.txt says now and did not, and the other way round
_ROBOTS_S: Final = 60.0  # how often it is looked whose robots.txt to read again
_AGAIN_S: Final = 5.0  # a host that cannot be swept yet is looked at again


class Rejudger:
    """`on_event` gets a `rejudged` line for each host of which anything changed."""

    def __init__(
        self,
        *,
        frontier: Frontier,
        scheduler: Scheduler,
        admission: Admission,
        clock: Clock,
        on_event: Callable[[Event, dict[str, object]], None],
    ) -> None:
        self._frontier = frontier
        self._scheduler = scheduler
        self._admission = admission
        self._clock = clock
        self._on_event = on_event
        self._wanted: dict[int, None] = {}
        self._new_robots: set[int] = set()
        self._wake = asyncio.Event()
        self._sweeping = False

    def want(self, host_ids: Iterable[int]) -> None:
        """The rules of these hosts changed, and the store knows it."""
        self._wanted.update(dict.fromkeys(host_ids))
        if self._wanted:
            self._wake.set()

    def changed(self, robots_changed: Sequence[int], quarantined: Sequence[int]) -> None:
        """What a commit brought."""
        self._new_robots.update(robots_changed)
        self.want((*robots_changed, *quarantined))

    @property
    def is_idle(self) -> bool:
        """Nothing can be swept now."""
        return not self._sweeping and not any(self._can_sweep(host_id) for host_id in self._wanted)

    async def run(self) -> None:
        """Sweep until cancelled."""
        while True:
            self._read_robots_again()
            host_id = next((one for one in self._wanted if self._can_sweep(one)), None)
            if host_id is None:
                self._wake.clear()
                with suppress(TimeoutError):
                    async with asyncio.timeout(_AGAIN_S if self._wanted else _ROBOTS_S):
                        await self._wake.wait()
                continue
            del self._wanted[host_id]
            self._sweeping = True
            try:
                await self._sweep(self._scheduler.books.hosts[host_id])
            except FrontierFull:
                self._wanted[host_id] = None
                await asyncio.sleep(_AGAIN_S)
            finally:
                self._sweeping = False
            self._scheduler.wake()

    def _read_robots_again(self) -> None:
        """A host of which all that is left is forbidden has no turn that would have its robots.txt read."""
        now = self._clock.now()
        for host in self._scheduler.books.denied:
            if host.robots_due(now) and not host.has_work:
                self._scheduler.turns.ask_robots(host)

    def _can_sweep(self, host_id: int) -> bool:
        host = self._scheduler.books.hosts.get(host_id)
        return host is not None and not host.is_held and not (self._admission.obey and host.robots is None)

    async def _sweep(self, host: Host) -> None:
        self._scheduler.books.denied.discard(host)
        if host.id in self._new_robots:
            self._new_robots.discard(host.id)
            await self._say_what_changed(host)
        refused = await self._go_through(host, UrlState.QUEUED)
        let_in = await self._go_through(host, UrlState.DENIED)
        if host.id not in self._wanted:
            await self._frontier.swept(host.id)
        if refused or let_in:
            self._on_event(
                Event.REJUDGED,
                {
                    "server_address": host.origin.host,
                    "server_port": host.origin.port,
                    "denied": refused,
                    "queued": let_in,
                },
            )

    async def _say_what_changed(self, host: Host) -> None:
        versions = (await self._frontier.robots_versions(host.id))[:2]
        rules = [await asyncio.to_thread(self._admission.rules.parse, version.body or b"") for version in versions]
        new, old = (one.lines() for one in rules) if len(rules) == 2 else (set(), set())
        self._on_event(
            Event.ROBOTS_CHANGED,
            {
                **_where(host),
                "added": sorted(new - old)[:LINES_TOLD],
                "removed": sorted(old - new)[:LINES_TOLD],
            },
        )

    async def _go_through(self, host: Host, state: UrlState) -> int:
        """Returns how many URLs changed."""
        changed = 0
        after: UrlRow | None = None
        while rows := await self._frontier.url_rows(host.id, state, after=after, limit=SLICE):
            after = rows[-1]
            await self._scheduler.load_rules(host)
            verdicts = [(row, self._admission.judge(_task_of(row), host.origin, host)) for row in rows]
            if any(denied is not None and denied.reason is DenyReason.ROBOTS for _, denied in verdicts):
                self._scheduler.books.denied.add(host)
            if state is UrlState.QUEUED:
                changed += await self._deny(host, [(row.id, denied) for row, denied in verdicts if denied is not None])
            elif allowed := [row.id for row, denied in verdicts if denied is None]:
                queued = await self._frontier.queue_again(allowed)
                self._scheduler.queued_again(queued)
                changed += sum(queued.values())
        return changed

    async def _deny(self, host: Host, refused: list[tuple[int, Denied]]) -> int:
        free = [(url_id, denied) for url_id, denied in refused if url_id not in host.leased]
        if not free:
            return 0
        host.leased.update(url_id for url_id, _ in free)  # nobody takes them meanwhile
        try:
            count = await self._frontier.deny(host.id, free, now=self._clock.now())
        finally:
            host.leased.difference_update(url_id for url_id, _ in free)
        host.queued -= count
        return count


def _task_of(row: UrlRow) -> Task:
    return Task(row.id, row.url, depth=row.depth, hop_path=row.hop_path, source=row.source)


def _where(host: Host) -> dict[str, object]:
    return {"server_address": host.origin.host, "server_port": host.origin.port}
