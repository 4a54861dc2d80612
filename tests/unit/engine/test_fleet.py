"""Agents that share a store, in virtual time: who owns which slot, and until when it may send requests.

The real `Fleet` runs around a database of a few lines. Agents are stopped, cut off and killed, and every call of the
database takes its time before and after it takes effect. Whatever happens, no slot has two agents that may send.
"""

import asyncio
import random
from collections.abc import Collection, Sequence
from contextlib import suppress
from types import SimpleNamespace
from typing import Any

import pytest

from crawler.core.ownership import AgentSeen, Ownership, is_over, share_of
from crawler.core.url import SLOTS
from crawler.engine.fleet import INBOX_MOST, Fleet
from crawler.engine.monitoring.counters import CrawlCounters
from crawler.frontier.base import FrontierFull, FrontierLocked, Look
from tests.support.virtual_time import run, virtual_loop

LEASE_S = 15.0


class Database:
    """Rows of agents and slots. A transaction of an incarnation that was taken over fails."""

    def __init__(self) -> None:
        self.owner: list[str | None] = [None] * SLOTS
        self.last: list[str | None] = [None] * SLOTS
        self.agents: dict[str, list[Any]] = {}  # name → incarnation, renewal, has_left


class Agent:
    """An agent with its `Fleet`. `base.Agents`; also the store and the scheduler that the fleet sees."""

    def __init__(self, name: str, db: Database, rng: random.Random) -> None:
        self.name, self.lease_s = name, LEASE_S
        self._db, self._rng = db, rng
        self._goes_on = asyncio.Event()
        self._goes_on.set()
        self.is_cut_off = False
        self.inbox = self.failures = self.starts = 0
        self._slots: list[int] = []
        self._owned: set[int] = set()
        self.rested: dict[int, float] = {}
        self.in_flight: dict[int, float] = {}  # slots that are given back → when nothing of them is in memory
        row = db.agents.setdefault(name, [0, 0, False])
        row[:] = [row[0] + 1, row[1] + 1, False]
        self.incarnation = row[0]
        loop = virtual_loop()
        self.clock = SimpleNamespace(mono=lambda: loop.time() + 1000.0 * len(name), now=loop.time)
        self.fleet = Fleet(
            self,
            frontier=self,  # type: ignore[arg-type]
            scheduler=SimpleNamespace(
                workbench=self, host_table=SimpleNamespace(rest=self.rest_slots), address_limiter=self, due_urls=self,
                wake=lambda: None,
                url_limits=SimpleNamespace(max_urls=None, is_reached=False, allotted=None),
                share_limits=lambda agents: None,
                revisits=SimpleNamespace(hint_after_s=None),
            ),  # type: ignore[arg-type]
            reevaluation=SimpleNamespace(load=lambda sweep: None, read_marks=lambda: None),  # type: ignore[arg-type]
            url_policy=SimpleNamespace(learn_places=lambda places: None),  # type: ignore[arg-type]
            counters=CrawlCounters(),
            clock=self.clock,
            lease_clock=self.clock.mono,
            on_event=lambda name, fields: None,
            on_slots=self.look_again,
            status=lambda: "",
        )  # fmt: skip
        self.task = asyncio.create_task(self._live())
        self.task.add_done_callback(lambda task: task.cancelled() or task.exception())

    async def _live(self) -> None:
        try:
            while True:
                try:
                    await self.fleet.open()
                    break
                except FrontierFull:
                    await asyncio.sleep(1)
            await self.fleet.run()
        finally:
            await self.fleet.close()

    # -- what happens to it

    def stop(self) -> None:
        self._goes_on.clear()

    def go_on(self) -> None:
        self._goes_on.set()

    @property
    def is_stopped(self) -> bool:
        return not self._goes_on.is_set()

    async def kill(self) -> None:
        self.go_on()
        self.task.cancel()
        with suppress(asyncio.CancelledError, FrontierLocked):
            await self.task

    def sends_to(self) -> list[int]:
        """The slots whose hosts may get a request from it now."""
        if self.is_stopped or self.task.done() or not self.fleet.may_send():
            return []
        return self._slots

    # -- the database

    async def _call(self) -> None:
        """Wait until a call takes effect."""
        await asyncio.sleep(self._rng.expovariate(20))
        await self._goes_on.wait()
        if self.is_cut_off:
            await asyncio.sleep(self._rng.uniform(0, 4))
            raise FrontierFull("cut off")

    async def _return(self) -> None:
        await asyncio.sleep(self._rng.expovariate(20))
        await self._goes_on.wait()
        if self.is_cut_off:
            raise FrontierFull("the answer was lost")

    def _check(self) -> None:
        if self._db.agents[self.name][0] != self.incarnation:
            raise FrontierLocked("taken over")

    async def renew(self, status: str | None = None) -> None:
        await self._call()
        self._check()
        self._db.agents[self.name][1] += 1
        await self._return()

    async def look(self) -> Look:
        await self._call()
        owner = self._db.owner
        agents = [AgentSeen(name, *row, owner.count(name)) for name, row in self._db.agents.items()]
        free = [slot for slot, one in enumerate(owner) if one is None]
        await self._return()
        return Look(agents, free, 0, self.inbox)

    @property
    def own(self) -> Sequence[int]:
        return self._slots

    @property
    def owns_all(self) -> bool:
        return len(self._owned) == SLOTS

    async def count(self) -> None:
        await self._call()

    async def disown(self, agent: AgentSeen) -> bool:
        await self._call()
        self._check()
        row = self._db.agents[agent.name]
        if row[:2] != [agent.incarnation, agent.renewal]:
            return False
        row[:] = [row[0] + 1, row[1], True]
        self._db.owner = [None if one == agent.name else one for one in self._db.owner]
        await self._return()
        return True

    async def take(self, slots: Collection[int]) -> list[int]:
        await self._call()
        self._check()
        taken = [slot for slot in slots if self._db.owner[slot] is None]
        foreign = [slot for slot in taken if self._db.last[slot] != self.name]
        for slot in taken:
            self._db.owner[slot] = self._db.last[slot] = self.name
        with suppress(FrontierFull):  # an answer that is lost is read back
            await self._return()
        self._owned.update(taken)
        self._slots = sorted({*self._slots, *taken})
        return foreign

    def stop_reading(self, slots: Collection[int]) -> None:
        self._slots = sorted(set(self._slots).difference(slots))

    async def give_back(self, slots: Collection[int]) -> None:
        await self._call()
        self._check()
        for slot in slots:
            self._db.owner[slot] = None
        with suppress(FrontierFull):
            await self._return()
        self._owned.difference_update(slots)

    async def empty_inbox(self, *, now: float, hint_after_s: float | None) -> None:
        await self._call()

    transactions = 0

    async def rest(self, transactions: int) -> bool:
        return False

    async def scope_hosts(self) -> list[str]:
        return []

    async def stored_robots(self, origin: object) -> None:
        return

    def owns_host(self, name: str) -> bool:
        return True

    async def behind(self, number: int) -> set[int]:
        return set(self._slots)

    began_after = 0

    async def commands(self) -> list[tuple[int, str, dict[str, Any]]]:
        return []

    async def allot(self, limit: int, wanted: int) -> int:
        return limit

    async def close(self) -> None:
        return

    # -- the scheduler and the store

    async def sweep(self) -> None:
        return

    async def look_again(self) -> None:
        if self.failures:
            self.failures -= 1
            raise FrontierFull("away just now")

    def delay_all(self) -> None:
        return

    def start(self) -> None:
        self.starts += 1

    def took(self, slots: Collection[int]) -> None:
        for slot in slots:
            self.in_flight.pop(slot, None)

    def let_go(self, slots: Collection[int]) -> None:
        now = virtual_loop().time()
        self.in_flight.update((slot, now + self._rng.uniform(0, 3)) for slot in slots)

    def slots_in_memory(self, slots: Collection[int]) -> set[int]:
        now = virtual_loop().time()
        return {slot for slot in slots if self.in_flight.get(slot, 0.0) > now}

    def rest_slots(self, slots: Collection[int]) -> None:
        self.rested.update((slot, virtual_loop().time()) for slot in slots)


def senders(agents: Collection[Agent]) -> None:
    """No slot has two agents that may send."""
    seen: dict[int, str] = {}
    for agent in agents:
        for slot in agent.sends_to():
            assert slot not in seen, f"{seen[slot]} and {agent.name} own slot {slot} at {virtual_loop().time()}"
            seen[slot] = agent.name


async def watched(agents: Collection[Agent], seconds: float, step_s: float = 0.05) -> None:
    for _ in range(round(seconds / step_s)):
        senders(agents)
        await asyncio.sleep(step_s)


async def until_shared(agents: Collection[Agent]) -> float:
    """Seconds until every slot has one of these agents, which have their fair shares."""
    begun = virtual_loop().time()
    wanted = sorted(share_of(place, len(agents)) for place in range(len(agents)))
    while sorted(len(agent.sends_to()) for agent in agents) != wanted:
        senders(agents)
        await asyncio.sleep(0.05)
        assert virtual_loop().time() - begun < 20 * LEASE_S
    senders(agents)
    return virtual_loop().time() - begun


def test_slots_are_shared_as_agents_come_and_go() -> None:
    """From one to four and back, and after a kill all slots are owned again within a lease and five seconds."""

    async def main() -> None:
        db, rng = Database(), random.Random(1)
        agents = [Agent("a", db, rng)]
        await until_shared(agents)
        for name in "bcd":
            agents.append(Agent(name, db, rng))
            assert await until_shared(agents) < 10
        while len(agents) > 1:
            gone = agents.pop(rng.randrange(len(agents)))
            await gone.kill()
            assert await until_shared(agents) < 1.2 * LEASE_S + 5
        await agents[0].kill()

    run(main())


def test_slots_of_another_agent_rest() -> None:
    """Those that were its own before, and those that nobody had, do not."""

    async def main() -> None:
        db, rng = Database(), random.Random(2)
        one = Agent("a", db, rng)
        await until_shared([one])
        assert set(one.rested) == set(range(SLOTS))  # it cannot know that nobody had them
        two = Agent("b", db, rng)
        await until_shared([one, two])
        assert set(two.rested) == set(two.own)
        for agent in (one, two):
            await agent.kill()

    run(main())


def test_an_agent_that_is_stopped_or_cut_off_sends_nothing_when_it_goes_on() -> None:
    """Its slots are others' by then, and it ends."""

    async def main(*, cut: bool) -> None:
        db, rng = Database(), random.Random(3)
        agents = [Agent(name, db, rng) for name in "ab"]
        await until_shared(agents)
        if cut:
            agents[0].is_cut_off = True
        else:
            agents[0].stop()
        await watched(agents, 2 * LEASE_S)
        assert len(agents[1].sends_to()) == SLOTS
        agents[0].is_cut_off = False
        agents[0].go_on()
        assert agents[0].sends_to() == []
        await watched(agents, LEASE_S)
        assert isinstance(agents[0].task.exception(), FrontierLocked)
        await agents[1].kill()

    run(main(cut=True))
    run(main(cut=False))


def test_a_database_that_was_away_for_everybody_takes_nothing_from_anybody() -> None:
    """All pause within a lease, and go on when it is back."""

    async def main() -> None:
        db, rng = Database(), random.Random(4)
        agents = [Agent(name, db, rng) for name in "abc"]
        await until_shared(agents)
        shares = [list(agent.own) for agent in agents]
        for agent in agents:
            agent.is_cut_off = True
        await watched(agents, LEASE_S)
        assert [agent.sends_to() for agent in agents] == [[], [], []]
        for agent in agents:
            agent.is_cut_off = False
        await watched(agents, 6)
        assert [agent.sends_to() for agent in agents] == shares
        for agent in agents:
            await agent.kill()

    run(main())


@pytest.mark.parametrize("seed", [*range(4), *(pytest.param(n, marks=pytest.mark.prove) for n in range(4, 60))])
def test_whatever_happens_no_slot_has_two_senders(seed: int) -> None:
    """Agents come, are killed, stopped and cut off in random order for ten minutes; then all is shared again."""

    async def main() -> None:
        db, rng = Database(), random.Random(seed)
        agents = [Agent("a", db, rng)]
        names = iter("bcdefghijklmnopqrstuvwxyz" * 9)
        for _ in range(60):
            one = rng.choice(agents)
            match rng.randrange(7):
                case 0 if len(agents) < 5:
                    name = next(names)
                    if name not in {agent.name for agent in agents if not agent.task.done()}:
                        agents.append(Agent(name, db, rng))
                case 1 if len(agents) > 2:
                    await one.kill()
                case 2:
                    one.stop()
                case 3:
                    one.is_cut_off = True
                case _:
                    one.go_on()
                    one.is_cut_off = False
            agents = [agent for agent in agents if not agent.task.done()] or [Agent(next(names), db, rng)]
            await watched(agents, rng.expovariate(0.1))
        for agent in agents:
            agent.go_on()
            agent.is_cut_off = False
        await watched(agents, 2 * LEASE_S)
        agents = [agent for agent in agents if not agent.task.done()] or [Agent(next(names), db, rng)]
        await until_shared(agents)
        for agent in agents:
            await agent.kill()

    run(main())


def test_agents_wait_for_one_that_does_not_take_in_what_they_find() -> None:
    """What is on its way to others has a bound."""

    async def main() -> None:
        agent = Agent("a", Database(), random.Random(5))
        await until_shared([agent])
        agent.inbox = INBOX_MOST
        await watched([agent], 2)
        assert agent.fleet.pause_reason() == ""
        agent.inbox += 1
        await watched([agent], 2)
        assert agent.fleet.pause_reason() == "1,000,001 URLs wait in the database for the agents of their hosts"
        agent.inbox, agent.is_cut_off = 0, True
        await watched([agent], LEASE_S)
        assert agent.fleet.pause_reason() == "the database did not renew the lease of this agent in time"
        await agent.kill()

    run(main())


def test_a_crawl_is_not_over_while_slots_are_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    """Their work is stored already, and the scheduler does not know of it yet."""

    async def main() -> None:
        agent = Agent("a", Database(), random.Random(6))
        over: list[bool] = []

        async def is_over() -> bool:
            return await agent.fleet.is_over(lambda: True, leaves=False)

        async def commands() -> list[tuple[int, str, dict[str, Any]]]:
            over.append(await is_over())
            return []

        async def rest(transactions: int) -> bool:
            return True

        monkeypatch.setattr(agent, "commands", commands)
        monkeypatch.setattr(agent, "rest", rest)
        await until_shared([agent])
        await watched([agent], 1)
        assert over == [False]
        assert await is_over()
        await agent.kill()

    run(main())


def test_slots_are_begun_with_when_the_database_is_back() -> None:
    """It went away after they were taken, and before their work was read. Until then the crawl is not over."""

    async def main() -> None:
        agent = Agent("a", Database(), random.Random(6))
        agent.failures = 3
        while len(agent.own) < SLOTS:
            await asyncio.sleep(0.01)
        assert (agent.starts, await agent.fleet.is_over(lambda: True, leaves=False)) == (0, False)
        await watched([agent], 5)
        assert (agent.failures, agent.starts) == (0, 1)
        await agent.kill()

    run(main())


def test_the_shares_of_all_agents_are_all_slots() -> None:
    """And they differ by one at most."""
    for agents in range(1, 40):
        shares = [share_of(place, agents) for place in range(agents)]
        assert (sum(shares), max(shares) - min(shares) <= 1) == (SLOTS, True)


def test_a_crawl_is_over_when_nobody_has_anything_left() -> None:
    """No owner, no free slot, and nothing on its way."""
    assert is_over({"a": True, "b": True}, 0, 0)
    assert not is_over({"a": True, "b": False}, 0, 0)
    assert not is_over({"a": True}, 512, 0)
    assert not is_over({"a": True}, 0, 1)


def test_a_lease_counts_from_before_its_renewal() -> None:
    """A fifth less: the answer may have taken any time."""
    ownership = Ownership("a", 10.0)
    assert not ownership.may_send(0.0)
    ownership.renewed(100.0)
    assert (ownership.may_send(107.9), ownership.may_send(108.0)) == (True, False)
    ownership.renewed(99.0)  # an older answer that came later
    assert ownership.may_send(107.9)
