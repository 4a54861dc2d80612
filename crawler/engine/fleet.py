"""One agent among others that share a store: it renews its lease, takes slots over and gives slots back, and takes in
what others found for it.

`core.ownership` decides which slots; this file does it. A slot is given back in three steps: no work is read from it
any more, what is in memory of it is finished, stored and leaves, and only then is it free.

Invariants: no request leaves after `Ownership.until_mono` (`may_send`, asked in the same step as the write to the
socket). A politeness key of a slot that another agent owned rests for its whole delay first.
"""

import asyncio
from collections.abc import Awaitable, Callable, Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final

from crawler.core.clock import Clock
from crawler.core.enums import Bottleneck, Exit
from crawler.core.formatting import count
from crawler.core.ownership import Ownership
from crawler.engine.monitoring.counters import CrawlCounters
from crawler.engine.pages.url_policy import UrlPolicy
from crawler.engine.reevaluation import Reevaluation
from crawler.engine.scheduling.host_table import OnEvent
from crawler.engine.scheduling.scheduler import Scheduler
from crawler.frontier.base import Agents, Frontier, FrontierFull, FrontierLocked
from crawler.obs.events import Event

TICK_S: Final = 0.25  # between two looks into the inbox
LOOK_S: Final = 0.5  # between two looks at the other agents, and at what operators told them
_FAILED_S: Final = 0.5  # until a renewal that failed is tried again
INBOX_MOST: Final = 1_000_000  # URLs on their way to other agents: some 200 MB. More are not looked for then
STOP: Final = "stop"
OF_PROCESS: Final = (STOP, "pause", "resume", "reload", "add")  # commands; the others are for hosts
_ALLOTMENTS: Final = 16  # so many parts of `scope.max_urls` are given out
_LEAST_ALLOTMENT: Final = 64


@dataclass(frozen=True, slots=True)
class FleetFigures:
    """What the agent `agent` knows. `alive` agents are known to live, `slots` are its own. `renewed_s`: time since the
    last renewal of the lease; `look_s`: how long the database took for the last look at the other agents.
    """

    agent: str
    alive: int
    slots: int
    renewed_s: float
    lease_s: float
    inbox_urls: int
    look_s: float


class Fleet:
    """`lease_clock`: monotonic seconds that go on while the machine is suspended. `status` is called for the text that
    other programs see.
    """

    def __init__(
        self,
        agents: Agents,
        *,
        frontier: Frontier,
        scheduler: Scheduler,
        reevaluation: Reevaluation,
        url_policy: UrlPolicy,
        counters: CrawlCounters,
        clock: Clock,
        lease_clock: Callable[[], float],
        on_event: OnEvent,
        on_slots: Callable[[], Awaitable[None]],
        status: Callable[[], str],
    ) -> None:
        self._agents = agents
        self._frontier = frontier
        self._scheduler = scheduler
        self._reevaluation = reevaluation
        self._url_policy = url_policy
        self._counters = counters
        self._clock = clock
        self._lease_mono = lease_clock
        self._on_event = on_event
        self._on_slots = on_slots
        self._status = status
        self.ownership = Ownership(agents.name, agents.lease_s)
        self._giving: set[int] = set()  # slots that are given back as soon as nothing of them is in memory
        self._is_behind = False  # slots are owned, or about to be, whose work the scheduler does not know of yet
        self._looked_mono = 0.0
        self._renewing: asyncio.Task[None] | None = None
        self.inbox_urls = 0  # of all agents, at the last look
        # What operators tell the agents is carried out by what stands around the engine
        self.carry_out: Callable[[str, Mapping[str, Any]], Awaitable[dict[str, Any]]] | None = None
        self._last_command = 0
        self._obeying = asyncio.Lock()
        self._look_s = 0.0

    # -- the lease

    async def open(self) -> None:
        """Renew the lease for the first time, and from now on. Raises FrontierLocked, FrontierFull."""
        await self._renew(is_first=True)
        self._last_command = self._agents.began_after
        self._renewing = asyncio.create_task(self._keep_renewing(), name="lease")
        # `run` raises it, unless a transaction failed for the same reason before
        self._renewing.add_done_callback(lambda task: task.cancelled() or task.exception())

    async def close(self) -> None:
        """Renew the lease no more: nothing is in flight."""
        if self._renewing is not None:
            self._renewing.cancel()
            with suppress(asyncio.CancelledError, FrontierLocked):
                await self._renewing
            self._renewing = None
        await self._agents.close()

    async def _renew(self, *, is_first: bool = False) -> None:
        begun_mono = self._lease_mono()
        await self._agents.renew(None if is_first else self._status())  # it would say that there is no lease
        self.ownership.renewed(begun_mono)

    async def _keep_renewing(self) -> None:
        while True:
            await asyncio.sleep(self.ownership.renew_s)
            while True:
                try:
                    await self._renew()
                    break
                except FrontierFull:  # the next commit fails as well, and reports it
                    await asyncio.sleep(_FAILED_S)

    def may_send(self) -> bool:
        """Whether a request may be sent now."""
        return self.ownership.may_send(self._lease_mono())

    def figures(self) -> FleetFigures:
        """The figures now."""
        ownership, own = self.ownership, self._agents.own
        renewed_s = self._lease_mono() - (ownership.until_mono - ownership.lease_s + ownership.margin_s)
        return FleetFigures(
            ownership.name, ownership.alive, len(own), round(renewed_s, 3), ownership.lease_s, self.inbox_urls,
            round(self._look_s, 6),
        )  # fmt: skip

    def pause_reason(self) -> str:
        """Why no request may be sent now; "": it may."""
        if not self.may_send():
            return "the database did not renew the lease of this agent in time"
        if self.inbox_urls > INBOX_MOST:
            return f"{count(self.inbox_urls, 'URL')} wait in the database for the agents of their hosts"
        return ""

    # -- slots

    async def run(self) -> None:
        """Look after the slots until cancelled. Raises FrontierLocked if other agents took them over."""
        while True:
            if self._renewing is not None and self._renewing.done():
                self._renewing.result()
            with suppress(FrontierFull):  # the next commit fails as well, and reports it
                await self._take_in()
                if self._lease_mono() - self._looked_mono >= LOOK_S:
                    await self._look()
                await self._catch_up()
                await self._finish_giving()
            await asyncio.sleep(TICK_S)

    async def _take_in(self) -> None:
        """Store what other agents found in slots of this one."""
        while True:
            hint_after_s = self._scheduler.revisits.hint_after_s
            receipt = await self._agents.empty_inbox(now=self._clock.now(), hint_after_s=hint_after_s)
            if receipt is None:
                return
            self._counters.links_new += sum(receipt.links_new)
            self._scheduler.discoveries_stored(receipt)

    async def _look(self) -> None:
        agents = self._agents
        begun_mono = self._lease_mono()
        look = await agents.look()
        self._looked_mono = self._lease_mono()
        self.inbox_urls, self._look_s = look.inbox_urls, self._looked_mono - begun_mono
        alive = self.ownership.alive
        moves = self.ownership.look(look.agents, look.free, agents.own, begun_mono, self._looked_mono)
        for dead in moves.dead:
            if await agents.disown(dead):
                self._on_event(Event.AGENT_GONE, {"agent": dead.name, "slots": dead.slots})
        if moves.take and self.may_send():
            await self._take(moves.take)
        if moves.give_back:
            agents.stop_reading(moves.give_back)
            self._giving.update(moves.give_back)
            self._scheduler.workbench.let_go(moves.give_back)
            self._scheduler.wake()
        if not agents.owns_all or alive > 1:
            await agents.count()
            self._url_policy.learn_places(await agents.scope_hosts())
        if self.ownership.alive != alive:
            self._scheduler.share_limits(self.ownership.alive)
        await self._allot()

    async def _take(self, slots: Collection[int]) -> None:
        self._is_behind = True
        before = len(self._agents.own)
        foreign = await self._agents.take(slots)
        scheduler = self._scheduler
        scheduler.host_table.rest(foreign)
        if foreign:
            scheduler.address_limiter.delay_all()
        with suppress(FrontierFull):  # `obey` tries it again
            await self._obey_all()  # what was taken down or blocked meanwhile gets no request
        scheduler.workbench.took(slots)
        own = len(self._agents.own)
        self._on_event(Event.SLOTS, {"taken": own - before, "given_back": 0, "own": own})
        await self._catch_up()

    async def _catch_up(self) -> None:
        """Have the scheduler begin with slots that were taken, unless it has. Raises FrontierFull: then once more."""
        if not self._is_behind:
            return
        scheduler = self._scheduler
        await scheduler.due_urls.look_again()
        await self._on_slots()
        self._reevaluation.load(await self._frontier.sweep())
        self._reevaluation.read_marks()
        scheduler.workbench.start()
        scheduler.wake()
        self._is_behind = False

    async def _finish_giving(self) -> None:
        if not self._giving:
            return
        free = self._giving - self._scheduler.workbench.slots_in_memory(self._giving)
        if free:
            await self._agents.give_back(free)
            self._giving -= free
            own = len(self._agents.own)
            self._on_event(Event.SLOTS, {"taken": 0, "given_back": len(free), "own": own})

    # -- what holds for all agents

    async def _allot(self) -> None:
        limits = self._scheduler.url_limits
        limit = limits.max_urls
        if limit is None:
            return
        part = max(_LEAST_ALLOTMENT, limit // _ALLOTMENTS)
        if limits.allotted is not None:
            left = limits.allotted - limits.first_attempts - limits.reserved
            if left >= part // 2 or not (left > 0 or limits.reserved or limits.is_reached):  # enough, or nothing to do
                return
        before, limits.allotted = limits.allotted, await self._agents.allot(limit, part)
        if before is not None and limits.allotted > before:
            await self._scheduler.limit_raised()

    # -- what operators tell the agents

    async def obey(self) -> None:
        """Carry out commands until cancelled."""
        is_first = True
        while True:
            with suppress(FrontierFull):
                if is_first and self.ownership.alive > 1 and self.carry_out is not None:
                    is_first = False
                    if await self._agents.last_of(("pause", "resume"), Bottleneck.OPERATOR) == "pause":
                        await self.carry_out("pause", {})
                await self._obey_all()
            await asyncio.sleep(LOOK_S)

    async def _obey_all(self) -> None:
        async with self._obeying:
            for number, name, arguments in await self._agents.commands():
                if self.carry_out is None:
                    break
                await self._obey(number, name, arguments)

    async def _obey(self, number: int, name: str, arguments: Mapping[str, Any]) -> None:
        """Carry out a command. One for hosts is carried out once more for slots that come later, which it then has as
        `slots`; one for the process is not, and neither are those from before it began.
        """
        slots = set(self._agents.own)
        if name not in OF_PROCESS and (behind := await self._agents.behind(number)) < slots:
            arguments = {**arguments, "slots": sorted(behind)}
        is_new, self._last_command = number > self._last_command, max(number, self._last_command)
        answer: dict[str, Any] = {"result": None}
        if name == STOP:  # this ends with what it starts
            in_flight = len(self._scheduler.leases_out)
            await self._agents.answer(number, {"result": {"changed": True, "in_flight": in_flight}}, slots)
        if self.carry_out is not None and (is_new or name not in OF_PROCESS):
            answer = await self.carry_out(name, arguments)
        if answer.get("exit_code") in (Exit.IO, Exit.WAITING):  # it could not: the next agent of the slots does it
            slots.clear()
        await self._agents.answer(number, answer, slots.intersection(self._agents.own))

    async def is_over(self, has_ended: Callable[[], bool], leaves: bool) -> bool:
        """Whether the crawl is over for all agents, if it `has_ended` here. If it `leaves` its hosts to others,
        for this one. Raises FrontierFull.
        """
        await self._take_in()
        if leaves and self.ownership.alive > 1:
            return has_ended()
        limits = self._scheduler.url_limits
        if limits.is_reached:  # others may have left something of it
            await self._allot()
        transactions = self._agents.transactions
        if self._is_behind or not has_ended():
            return False
        is_over = await self._agents.rest(transactions)
        if limits.allotted is not None:  # what was not used is of all agents now
            limits.allotted = self._agents.allotted
        if not is_over:
            return False
        await self._agents.count()
        return True
