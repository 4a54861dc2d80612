"""Several agents on one database: slots, takeovers, the inbox, commands. On a real server."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any

import pytest

from crawler.core.models import Origin, RobotsRecord, Task
from crawler.core.url import SLOTS
from crawler.engine.operations import requeue
from crawler.frontier.base import (
    FrontierFull,
    FrontierLocked,
    FrontierMismatch,
    FrontierUnreachable,
    Leaving,
    UrlSelection,
    Wanted,
)
from crawler.frontier.postgresql.fleet_control import read_fleet, session
from crawler.frontier.postgresql.slots import slot_of_host
from crawler.frontier.postgresql.store import PostgresFrontier
from tests.support.frontiers import NOW, batch, found, links, response, visit
from tests.support.postgresql import new_database, shared_server

HOSTS = [f"https://www.site{n}.test/" for n in range(40)]


@pytest.fixture
async def stack() -> AsyncIterator[AsyncExitStack]:
    async with AsyncExitStack() as one:
        yield one


async def opened(stack: AsyncExitStack, dsn: str, name: str, **more: Any) -> PostgresFrontier:
    frontier = PostgresFrontier(dsn, agent=name, **more)
    await frontier.open()
    stack.push_async_callback(frontier.close, clean=True)
    return frontier


async def two(stack: AsyncExitStack) -> tuple[PostgresFrontier, PostgresFrontier]:
    """Two agents that own half of the slots each."""
    dsn = new_database()
    one, other = await opened(stack, dsn, "a"), await opened(stack, dsn, "b")
    assert (len(one.agents.own), len(other.agents.own)) == (SLOTS, 0)  # the first took all
    await give(one, other, range(SLOTS // 2))
    return one, other


async def give(one: PostgresFrontier, other: PostgresFrontier, slots: range) -> list[int]:
    one.agents.stop_reading(slots)
    await one.agents.give_back(slots)
    return await other.agents.take(slots)


async def queued(frontier: PostgresFrontier) -> dict[str, int]:
    return {row.origin.host: row.queued for row in await frontier.host_rows(after=0, limit=1_000)}


async def test_no_slot_is_taken_twice(stack: AsyncExitStack) -> None:
    """Of two that want the same free slots each gets some or none."""
    one, other = await two(stack)
    third = await opened(stack, one.connection._dsn, "c")
    slots = range(SLOTS // 2, SLOTS)
    one.agents.stop_reading(slots)
    await one.agents.give_back(slots)
    await asyncio.gather(*(agent.agents.take(slots) for agent in (other, third, one)))
    owned = [set(agent.agents.own) for agent in (one, other, third)]
    assert set().union(*owned) == set(range(SLOTS))
    assert sum(map(len, owned)) == SLOTS


async def test_urls_go_to_the_agent_that_owns_their_host(stack: AsyncExitStack) -> None:
    """In the transaction that finds them, and once: whoever finds them again."""
    one, other = await two(stack)
    await one.add([found(url) for url in HOSTS], now=NOW)
    await one.add([found(url) for url in HOSTS], now=NOW)
    ours = {row.origin.host: row.slot for row in await one.host_rows(after=0, limit=1_000)}
    assert ours.keys() == {url[8:-1] for url in HOSTS if slot_of_host(url[8:-1]) >= SLOTS // 2}
    assert await queued(other) == {}
    look = await other.agents.look()
    assert look.inbox_urls == 2 * (len(HOSTS) - len(ours))
    receipt = await other.agents.empty_inbox(now=NOW, hint_after_s=None)
    assert receipt is not None
    assert sum(receipt.links_new) == len(HOSTS) - len(ours)
    assert await queued(other) == {url[8:-1]: 1 for url in HOSTS if url[8:-1] not in ours}
    assert await other.agents.empty_inbox(now=NOW, hint_after_s=None) is None
    await one.agents.count()
    assert one.totals().queued == len(HOSTS)


async def test_a_page_found_elsewhere_knows_where(stack: AsyncExitStack) -> None:
    """`via` leads to a page of another agent."""
    one, other = await two(stack)
    owner = {True: one, False: other}
    first = next(url for url in HOSTS if slot_of_host(url[8:-1]) >= SLOTS // 2)
    second = next(url for url in HOSTS if slot_of_host(url[8:-1]) < SLOTS // 2)
    receipt = await owner[True].add([found(first)], now=NOW)
    (task,) = await one.take(receipt.hosts[0].id, 9, leased=())
    settled = await one.settle(batch(visit(task, host_id=receipt.hosts[0].id, discovered=links(second))))
    assert list(settled.links_new) == [0]
    await other.agents.empty_inbox(now=NOW, hint_after_s=None)
    (row,) = await other.host_rows(after=0, limit=9)
    (task,) = await other.take(row.id, 9, leased=())
    assert (task.url, task.via) == (second, first)


async def test_an_agent_that_is_taken_over_stores_nothing_more(stack: AsyncExitStack) -> None:
    """And the ids that the next owner makes are above all of its own."""
    one, other = await two(stack)
    mine = [url for url in HOSTS if slot_of_host(url[8:-1]) >= SLOTS // 2]
    receipt = await one.add([found(url) for url in mine], now=NOW)
    (seen,) = [agent for agent in (await other.agents.look()).agents if agent.name == "a"]
    await one.agents.renew()
    assert not await other.agents.disown(seen)  # it lives
    (seen,) = [agent for agent in (await other.agents.look()).agents if agent.name == "a"]
    assert await other.agents.disown(seen)
    with pytest.raises(FrontierFull):  # its connections were ended
        await one.agents.renew()
    with pytest.raises(FrontierLocked):
        await one.agents.renew()
    with pytest.raises(FrontierLocked):
        await one.add([found(url) for url in HOSTS], now=NOW)
    foreign = await other.agents.take((await other.agents.look()).free)
    assert len(foreign) == SLOTS // 2
    more = await other.add([found(f"{url}more") for url in mine], now=NOW)
    assert await queued(other) == {url[8:-1]: 2 for url in mine}
    (urls,) = await other._rows(
        "SELECT min(id) FILTER (WHERE target <> '/'), max(id) FILTER (WHERE target = '/') FROM url"
    )
    assert urls[0] >> 10 > urls[1] >> 10
    assert sum(more.links_new) == len(mine) == sum(row.queued for row in receipt.hosts)


async def test_keys_in_memory_of_a_killed_agent_enter_that_of_another(stack: AsyncExitStack) -> None:
    """They are not taken for active."""
    one, other = await two(stack)
    mine = [url for url in HOSTS if slot_of_host(url[8:-1]) >= SLOTS // 2]
    await one.add([found(url) for url in mine], now=NOW)
    wanted = Wanted(ready_by=2 * NOW, places=100, hosts=4)
    assert len((await one.exchange(Leaving(), wanted)).keys) == len(mine)
    assert (await other.exchange(Leaving(), wanted)).keys == []
    (seen,) = [agent for agent in (await other.agents.look()).agents if agent.name == "a"]
    assert await other.agents.disown(seen)
    await other.agents.take((await other.agents.look()).free)
    assert len((await other.exchange(Leaving(), wanted)).keys) == len(mine)


async def test_what_belongs_to_another_agent_does_not_change(stack: AsyncExitStack) -> None:
    """Not by an id, and not by a takedown."""
    one, other = await two(stack)
    mine = next(url for url in HOSTS if slot_of_host(url[8:-1]) >= SLOTS // 2)
    receipt = await one.add([found(mine)], now=NOW)
    (task,) = await one.take(receipt.hosts[0].id, 9, leased=())
    assert await other.queue_urls([task.id]) == {}
    assert (await other.forget_url(mine, now=NOW)).urls == 0
    assert (await other.forget_host(mine[8:-1], now=NOW)).host_ids == ()
    assert await other.hosts_named(mine[8:-1]) == []
    assert (await one.forget_host(mine[8:-1], now=NOW)).urls == 1


async def test_agents_of_other_rules_are_refused(stack: AsyncExitStack) -> None:
    """While one that lives has them; one that is gone does not count."""
    dsn = new_database()
    one = await opened(stack, dsn, "a", rules="x", lease_s=2.0)

    async def lives() -> None:
        while True:
            await one.agents.renew()
            await asyncio.sleep(0.1)

    living = asyncio.create_task(lives())
    with pytest.raises(FrontierMismatch, match=r"the agent a of .* has other rules"):
        await PostgresFrontier(dsn, agent="b", rules="y", lease_s=2.0).open()
    with pytest.raises(FrontierMismatch, match=r"has another frontier\.lease"):
        await PostgresFrontier(dsn, agent="b", rules="x", lease_s=3.0).open()
    living.cancel()
    await asyncio.gather(living, return_exceptions=True)
    await opened(stack, dsn, "b", rules="y", lease_s=2.0)
    with pytest.raises(FrontierLocked):
        await one.agents.renew()


async def test_a_command_reaches_who_was_not_there(stack: AsyncExitStack) -> None:
    """All that are connected answer; for a slot without an owner the next one carries it out."""
    one, other = await two(stack)
    slots = range(SLOTS // 2, SLOTS)
    one.agents.stop_reading(slots)
    await one.agents.give_back(slots)
    for agent in (one, other):
        assert await agent.agents.commands() == []
    asking = asyncio.create_task(one.agents.ask("requeue", {"status": ["404"]}))
    for agent in (one, other):
        while not (told := await agent.agents.commands()):
            await asyncio.sleep(0)
        ((number, name, arguments),) = told
        assert (name, arguments) == ("requeue", {"status": ["404"]})
        await agent.agents.answer(number, {"result": {"urls": 1}}, agent.agents.own)
        assert await agent.agents.commands() == []
    assert await asking == {"a": {"result": {"urls": 1}}, "b": {"result": {"urls": 1}}}
    await other.agents.take(slots)
    assert [name for _, name, _ in await other.agents.commands()] == ["requeue"]


async def test_a_command_while_an_agent_joins_is_answered_by_it(stack: AsyncExitStack) -> None:
    """Whether it owns slots already or not."""
    dsn = new_database()
    one, other = await opened(stack, dsn, "a"), await opened(stack, dsn, "b")
    asking = asyncio.create_task(one.agents.ask("block", {"name": "x.test"}))
    while not (told := await one.agents.commands()):
        await asyncio.sleep(0)
    await one.agents.answer(told[0][0], {"result": None}, one.agents.own)
    await give(one, other, range(10))
    ((number, name, _),) = await other.agents.commands()
    await other.agents.answer(number, {"result": None}, other.agents.own)
    assert (name, await asking) == ("block", {"a": {"result": None}, "b": {"result": None}})


async def test_slots_taken_while_a_command_is_carried_out_do_not_miss_it(stack: AsyncExitStack) -> None:
    one, other = await two(stack)
    asking = asyncio.create_task(one.agents.ask("forget", {}, agent="b"))
    while not (told := await other.agents.commands()):
        await asyncio.sleep(0)
    before = list(other.agents.own)
    await give(one, other, range(SLOTS // 2, SLOTS))
    await other.agents.answer(told[0][0], {"result": None}, before)
    await asking
    assert [number for number, *_ in await other.agents.commands()] == [told[0][0]]


async def test_a_pause_is_of_those_that_are_paused(stack: AsyncExitStack) -> None:
    """One that joins has it too; if all were started again it is over."""
    one, other = await two(stack)
    shared_server().execute(
        "INSERT INTO command (name, arguments, sent_by) VALUES ('pause', '{}', '')",
        one.connection._dsn.partition("@/")[2].partition("?")[0],
    )
    await one.agents.renew('{"bottleneck": "operator"}')
    assert await other.agents.last_of(("pause", "resume"), "operator") == "pause"
    await one.close(clean=True)
    assert await other.agents.last_of(("pause", "resume"), "operator") is None
    await opened(stack, one.connection._dsn, "a")
    assert await other.agents.last_of(("pause", "resume"), "operator") is None


async def test_a_user_without_rights_is_told_so(stack: AsyncExitStack) -> None:
    one = await opened(stack, new_database(), "a")
    shared_server().execute("CREATE USER powerless")
    dsn = one.connection._dsn.replace("crawler@", "powerless@")
    with pytest.raises(FrontierUnreachable, match="permission denied"):
        await read_fleet(dsn)
    with pytest.raises(FrontierUnreachable, match="permission denied"):
        async with session(dsn, None) as ask:
            await ask("pause", {})


async def test_what_another_agent_fetched_can_be_taken_down(stack: AsyncExitStack) -> None:
    """By an agent that has stored nothing yet; only the sum of both is a number of URLs."""
    dsn = new_database()
    one, other = await opened(stack, dsn, "a"), await opened(stack, dsn, "b")
    receipt = await one.add([found(HOSTS[0])], now=NOW)
    host = receipt.hosts[0].id
    (task,) = await one.take(host, 1, leased=[])
    await one.settle(batch(visit(task, host_id=host)))
    await give(one, other, range(SLOTS))
    assert (await other.forget_host(HOSTS[0][8:-1], now=NOW)).urls == 1
    await other.agents.count()
    assert (other.totals().done, other.totals().queued) == (0, 0)


async def test_parts_of_a_limit_are_given_out_once(stack: AsyncExitStack) -> None:
    """Never more than the limit, and what one that leaves did not use goes to others."""
    one, other = await two(stack)
    assert await one.agents.allot(100, 70) == 70
    assert await other.agents.allot(100, 70) == 30
    assert await one.agents.allot(100, 70) == 70
    await one.close(clean=True)
    assert await other.agents.allot(100, 200) == 100


async def test_a_crawl_is_over_when_all_rest(stack: AsyncExitStack) -> None:
    """Not while one has work, and not while something is on its way."""
    one, other = await two(stack)
    assert not await one.agents.rest(one.agents.transactions)
    assert await other.agents.rest(other.agents.transactions)
    foreign = next(url for url in HOSTS if slot_of_host(url[8:-1]) < SLOTS // 2)
    await one.add([found(foreign)], now=NOW)
    assert not await one.agents.rest(one.agents.transactions)
    await other.agents.empty_inbox(now=NOW, hint_after_s=None)
    assert not await one.agents.rest(one.agents.transactions)
    before = other.agents.transactions
    await other.store_value("x", b"y")
    assert not await other.agents.rest(before)  # something happened since
    assert await other.agents.rest(other.agents.transactions)
    assert await one.agents.rest(one.agents.transactions)


async def test_what_all_agents_have_in_common(stack: AsyncExitStack) -> None:
    """The time of the database's clock, what redirects of seeds added to the scope, and the last id of a URL."""
    dsn = new_database()
    one, other = PostgresFrontier(dsn, agent="a"), PostgresFrontier(dsn, agent="b")
    recovered = [await frontier.open() for frontier in (one, other)]
    for frontier in (one, other):
        stack.push_async_callback(frontier.close, clean=True)
    first, second = (found_.now_at for found_ in recovered)
    assert first is not None
    assert second is not None
    assert 0 < second - first < 60
    await one.add([found(url) for url in HOSTS], now=NOW)
    last = await one.last_url_id()
    await one.settle(batch(scope_hosts=["www.site1.test"]))
    assert await other.agents.scope_hosts() == ["www.site1.test"]
    await give(one, other, range(SLOTS))
    assert await one.last_url_id() >= last
    assert await other.last_url_id() >= last


async def test_slots_that_are_given_back_are_owned_until_they_are(stack: AsyncExitStack) -> None:
    """Also if others are taken, or given back, meanwhile: visits in flight are stored, and no work is read."""
    one, other = await two(stack)
    mine = next(url for url in HOSTS if slot_of_host(url[8:-1]) >= SLOTS // 2)
    slot = slot_of_host(mine[8:-1])
    receipt = await one.add([found(mine)], now=NOW)
    (task,) = await one.take(receipt.hosts[0].id, 9, leased=())
    one.agents.stop_reading([slot])
    other.agents.stop_reading([0, 1])
    await other.agents.give_back([0, 1])
    await one.agents.take([0, 1])
    others = [some for some in one.agents.own if some > 1][:3]
    one.agents.stop_reading(others)
    await one.agents.give_back(others)
    assert slot not in one.agents.own
    assert (await one.exchange(Leaving(), Wanted(ready_by=2 * NOW, places=100, hosts=4))).keys == []
    await one.settle(batch(visit(task, host_id=receipt.hosts[0].id, discovered=links(f"{mine}more"))))
    assert one.totals().done == 1
    await give(one, other, range(slot, slot + 1))
    assert await queued(other) == {mine[8:-1]: 1}


async def test_an_agent_that_gets_more_of_a_limit_rests_no_more(stack: AsyncExitStack) -> None:
    """Before it has fetched anything: else others would take the crawl for over."""
    one, other = await two(stack)
    assert await one.agents.allot(100, 100) == 100
    assert not await other.agents.rest(other.agents.transactions)
    assert await one.agents.rest(one.agents.transactions)  # what it did not use goes back
    assert await other.agents.allot(100, 0) == 0
    assert await one.agents.rest(one.agents.transactions)
    assert await other.agents.allot(100, 50) == 50
    assert not await one.agents.rest(one.agents.transactions)


async def test_a_command_that_nobody_answers_is_taken_back(stack: AsyncExitStack) -> None:
    """Else the next agent would carry it out, after its sender was told that nobody did."""
    one = await opened(stack, new_database(), "a")
    assert await one.agents.ask("add", {"urls": []}, agent="b") == {}
    assert await one.agents.commands() == []
    assert await one._fetchval("SELECT max(id) FROM command") is None


async def test_a_command_for_one_is_for_an_agent_that_lives(stack: AsyncExitStack) -> None:
    """And for one alone. Without any it is not stored."""
    dsn = new_database()
    async with AsyncExitStack() as lives:
        one, other = await opened(lives, dsn, "a"), await opened(stack, dsn, "b")
        async with session(dsn, None) as send:
            asking = asyncio.create_task(send("add", {"urls": []}, by_one=True))
            while not (told := await one.agents.commands()):
                await asyncio.sleep(0)
            assert await other.agents.commands() == []
            await one.agents.answer(told[0][0], {"result": 1}, ())
            assert await asking == {"a": {"result": 1}}
    await other.close(clean=True)
    async with session(dsn, None) as send:
        assert await send("add", {"urls": []}, by_one=True) == {}


async def test_commands_that_are_sent_at_once_are_all_carried_out(stack: AsyncExitStack) -> None:
    """In the order of their numbers, whichever is stored first."""
    dsn = new_database()
    one = await opened(stack, dsn, "a")
    assert await one.agents.commands() == []
    sent = [asyncio.create_task(one.agents.ask("retry", {"host": [str(n)]})) for n in range(8)]
    told: list[str] = []
    while len(told) < len(sent):
        for number, _, arguments in await one.agents.commands():
            told += arguments["host"]
            await one.agents.answer(number, {"result": number}, one.agents.own)
        await asyncio.sleep(0)
    assert sorted(told) == [str(n) for n in range(8)]
    assert all(answers.keys() == {"a"} for answers in await asyncio.gather(*sent))


async def test_a_command_is_carried_out_for_each_slot_once(stack: AsyncExitStack) -> None:
    """For slots that come later, and not once more for the others."""
    one, other = await two(stack)
    urls = {url: slot_of_host(url[8:-1]) for url in HOSTS}
    for agent in (one, other):
        ours = [found(url) for url, slot in urls.items() if slot in set(agent.agents.own)]
        for row in (await agent.add(ours, now=NOW)).hosts:
            (task,) = await agent.take(row.id, 9, leased=())
            await agent.settle(batch(visit(task, response(404), host_id=row.id)))
        assert await agent.agents.commands() == []
    asking = asyncio.create_task(one.agents.ask("requeue", {"status": ["404"]}, agent="a"))
    while not (told := await one.agents.commands()):
        await asyncio.sleep(0)
    ((number, *_),) = told
    await one.agents.answer(number, {"result": None}, one.agents.own)
    await asking
    before = set(one.agents.own)
    assert await one.agents.behind(number) == set()
    await give(other, one, range(SLOTS // 2))
    behind = await one.agents.behind(number)
    assert behind == set(one.agents.own) - before
    queued_again = await requeue(one, UrlSelection(statuses=(404,)), slots=behind)
    assert {host_id & 1023 for host_id in queued_again} == {slot for slot in urls.values() if slot in behind}


async def test_the_robots_txt_of_another_agents_host_can_be_read(stack: AsyncExitStack) -> None:
    """With its text."""
    one, other = await two(stack)
    mine = next(url for url in HOSTS if slot_of_host(url[8:-1]) >= SLOTS // 2)
    receipt = await one.add([found(mine)], now=NOW)
    robots = RobotsRecord("rules", 200, b"User-agent: *", NOW, NOW + 60, 2.5)
    await one.settle(batch(visit(Task(0, f"{mine}robots.txt"), host_id=receipt.hosts[0].id, robots=robots)))
    assert await other.agents.stored_robots(receipt.hosts[0].origin) == robots
    assert await other.agents.stored_robots(Origin("https", "unknown.test", 443)) is None


async def test_an_agent_that_renews_its_lease_keeps_its_slots(stack: AsyncExitStack) -> None:
    """Even if it is taken for gone in the same moment."""
    one, other = await two(stack)
    (seen,) = [agent for agent in (await other.agents.look()).agents if agent.name == "a"]
    await one.agents.renew()
    assert not await other.connection.disown(*seen[:3])
    assert set(one.agents.own) == set(range(SLOTS // 2, SLOTS))
    assert (await other.agents.look()).free == []


async def test_of_two_agents_that_come_at_once_one_rule_holds() -> None:
    """The second is refused, whichever it is."""
    dsn = new_database()
    first = PostgresFrontier(dsn, agent="a", rules="x", lease_s=2.0)
    await first.open()
    await first.close(clean=True)
    both = [PostgresFrontier(dsn, agent=name, rules=name, lease_s=2.0) for name in "bc"]
    opened_first: list[str] = []

    async def live(one: PostgresFrontier) -> None:
        await one.open()
        opened_first.append(one.connection.agent)
        async with asyncio.timeout(4):
            while True:
                await one.agents.renew()
                await asyncio.sleep(0.05)

    ends = await asyncio.gather(*map(live, both), return_exceptions=True)
    for one in both:
        await one.close(clean=True)
    assert len(opened_first) == 1
    assert {type(end) for end in ends} == {TimeoutError, FrontierMismatch}
