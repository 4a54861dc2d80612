"""What happens while hosts leave memory and enter it: nothing is forgotten, requested too early, or kept for ever."""

import asyncio
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

from crawler.core.enums import DenyReason, ErrorType, Source, StoppedBy, TaskKind, UrlState
from crawler.core.models import Denied, FetchResult, Origin, RobotsRecord, Task
from crawler.core.options import PolitenessOptions, ScopeOptions
from crawler.engine.options import EngineOptions
from crawler.engine.scheduling.workbench import AT_ONCE
from crawler.frontier.base import BlockedHost, Frontier
from crawler.frontier.sqlite.store import SqliteFrontier
from tests.support.engine import Harness, seed
from tests.support.quick_frontier import QuickFrontier
from tests.support.scripted_web import failed, page, response
from tests.support.virtual_time import InThread, elapse, run

ALL = ScopeOptions(hosts=("*.test",))


def options(active_hosts: int, linger_s: float | None = 600.0) -> EngineOptions:
    return EngineOptions(workers=8, linger_s=linger_s, min_free=0, active_hosts=active_hosts)


def with_pages(engine: Harness, *paths: str) -> Harness:
    """No robots.txt; every page links to these paths of its host."""

    def respond(origin: Origin, task: Task) -> FetchResult:
        if task.kind is TaskKind.ROBOTS:
            return response(404)
        return response(200, page(*(f"{origin}{path}" for path in paths)))

    engine.web.other = respond
    return engine


def hosts_with_a_page(engine: Harness) -> set[str]:
    return {one.origin.host for one in engine.web.requests if one.task.kind is TaskKind.PAGE}


def on_sqlite(main: Callable[[Frontier], Any]) -> None:
    with TemporaryDirectory() as folder:

        async def whole() -> None:
            await main(InThread(SqliteFrontier(Path(folder) / "frontier.db")))  # type: ignore[arg-type]

        run(whole())


@pytest.mark.parametrize(("hosts", "places"), [(2, 1), (4, 2), (5, 3)])
def test_keys_that_leave_as_the_last_ones_are_not_forgotten(hosts: int, places: int) -> None:
    """In the transaction in which they leave all others enter."""

    async def main(frontier: Frontier) -> None:
        seeds = [f"https://h{n}.d{n}.test/" for n in range(hosts)]
        engine = Harness(*seeds, scope=ALL, engine=options(places), frontier=frontier)
        with_pages(engine, *(f"/{n}" for n in range(50)))
        assert await engine.run() is StoppedBy.EMPTY
        assert len(set(engine.web.page_urls)) == hosts * 51

    on_sqlite(main)


def test_a_url_that_is_queued_while_its_host_leaves_is_requested() -> None:
    """The host had no other work, and is not parked."""

    async def main(frontier: Frontier) -> None:
        engine = with_pages(
            Harness("https://a.test/", "https://b.test/", scope=ALL, engine=options(1), frontier=frontier)
        )
        await engine.open()
        await frontier.deny(1, [(1, Denied(DenyReason.ROBOTS, "x"))], now=0.0)
        engine.scheduler.note_counts()
        adding = asyncio.ensure_future(frontier.add([seed("https://a.test/x")], now=0.0))
        leaving = asyncio.ensure_future(engine.scheduler.workbench.exchange())
        engine.scheduler.discoveries_stored(await adding)
        await leaving
        assert await engine.crawl.run() is StoppedBy.EMPTY
        assert "https://a.test/x" in engine.web.page_urls
        await engine.close()

    on_sqlite(main)


@pytest.mark.parametrize("why", ["limit", "dead", "blocked"])
def test_hosts_that_cannot_be_requested_keep_no_others_of_their_key_away(why: str) -> None:
    """Sixteen of a key enter together."""

    async def main() -> None:
        names = [f"h{n:02}.d.test" for n in range(40)]
        scope = ScopeOptions(hosts=("*.test",), max_urls_per_host=1) if why == "limit" else ALL
        engine = Harness(*(f"https://{name}/" for name in names), scope=scope, engine=options(1_000))
        with_pages(engine, "/1", "/2")
        alive = engine.web.other
        if why == "dead":
            dead = set(names[:16])
            engine.web.other = lambda origin, task: (
                failed(ErrorType.CONNECT_REFUSED) if origin.host in dead else alive(origin, task)
            )
        await engine.open()
        crawling = asyncio.ensure_future(engine.crawl.run())
        if why == "blocked":
            await elapse(5.0)
            await engine.frontier.block(BlockedHost("d.test", "domain", 0.0, ""))
            engine.host_table.blocklist.load(await engine.frontier.blocks())
            engine.scheduler.blocklist_changed()
        await elapse(3_000.0)
        assert crawling.done()
        found = {"limit": set(names), "dead": set(names[16:])}
        if why in found:
            assert hosts_with_a_page(engine) == found[why]
        await engine.close()

    run(main())


def test_an_address_is_never_idle_while_its_hosts_wait_on_disk() -> None:
    """More of them than it serves in the time for which they can have a turn each."""

    async def main() -> None:
        polite = PolitenessOptions(delay_s=1.0, address_delay_s=30.0, adaptive=False, robots="ignore")
        seeds = [f"https://h{n}.d{n}.test/" for n in range(400)]
        engine = with_pages(Harness(*seeds, scope=ALL, engine=options(16), frontier=QuickFrontier(), politeness=polite))
        assert await engine.run() is StoppedBy.EMPTY
        begins = [one.begin for one in engine.web.requests]
        assert len(hosts_with_a_page(engine)) == 400
        assert max(after - before for before, after in pairwise(begins)) < 120.0

    run(main())


def test_a_key_that_leaves_gets_no_request_meanwhile() -> None:
    """Not even if another host's robots.txt is redirected to it, and its delay is just over."""

    async def main(frontier: Frontier) -> None:
        slow = PolitenessOptions(delay_s=30.0, address_delay_s=0.0, adaptive=False)
        engine = with_pages(
            Harness(
                "https://a.test/", "https://b.test/", scope=ALL, engine=options(10), frontier=frontier, politeness=slow
            ),
            "/1",
        )
        await engine.open()
        workbench = engine.scheduler.workbench
        crawling = asyncio.ensure_future(engine.crawl.run())
        await elapse(0.5)
        a, b = engine.host("a.test"), engine.host("b.test")
        await elapse(a.key.politeness.open_mono - engine.clock.mono() - 1e-4)
        workbench._choose = lambda number: ([a], 1)  # type: ignore[method-assign]
        workbench._active_hosts, workbench._next_mono = 2, 0.0
        exchange = frontier.exchange

        async def late(*args: Any) -> Any:
            entered = await exchange(*args)
            await elapse(0.005)
            return entered

        frontier.exchange = late  # type: ignore[method-assign]
        leaving = asyncio.ensure_future(workbench.exchange())
        await elapse(0.00002)
        assert a.key.is_leaving
        b.robots_pending = True
        engine.scheduler.add_auxiliary(b, a.origin, Task(0, "https://a.test/robots.txt", TaskKind.ROBOTS, redirects=1))
        await leaving
        del workbench._choose
        workbench._active_hosts = 10
        await elapse(200.0)
        begins = [one.begin for one in engine.web.requests if one.origin == a.origin]
        assert len(begins) >= 3
        assert all(after - before >= 30.0 for before, after in pairwise(begins))
        assert all(key.politeness.in_flight >= 0 for key in engine.host_table.keys.values())
        engine.crawl.drain()
        await crawling
        await engine.close()

    on_sqlite(main)


@pytest.mark.parametrize(("looked_at", "pause_s"), [(1, 0.1), (2_000, 0.4)])
def test_the_more_keys_were_looked_at_the_longer_is_the_pause(looked_at: int, pause_s: float) -> None:
    """So that looking takes a bounded share of the time, however few hosts may leave."""

    async def main(frontier: Frontier) -> None:
        engine = with_pages(
            Harness("https://a.test/", "https://b.test/", scope=ALL, engine=options(10), frontier=frontier)
        )
        await engine.open()
        workbench, a = engine.scheduler.workbench, engine.host("a.test")
        workbench._choose = lambda number: ([a], looked_at)  # type: ignore[method-assign]
        workbench._active_hosts, workbench._next_mono = 2, 0.0
        await workbench.exchange()
        assert workbench.wait_s() == pytest.approx(pause_s, abs=0.01)
        del workbench._choose
        await engine.close()

    on_sqlite(main)


def test_a_request_for_a_key_that_left_crowded_is_made() -> None:
    """Its address is not taken for closed."""

    async def main(frontier: Frontier) -> None:
        engine = with_pages(
            Harness("https://a.test/", "https://b.test/", scope=ALL, engine=options(10), frontier=frontier)
        )
        await engine.open()
        scheduler, workbench = engine.scheduler, engine.scheduler.workbench
        a, b = engine.host("a.test"), engine.host("b.test")
        scheduler.request_robots(a)
        a.key.auxiliary_open_mono = float("inf")
        scheduler._ready_queue.wait_for_address(a.key, "192.0.2.1", engine.clock.mono() + 1)
        scheduler._lease_selection.drop_robots_requests(a.key)
        workbench._choose = lambda number: ([a], 1)  # type: ignore[method-assign]
        workbench._active_hosts, workbench._next_mono = 2, 0.0
        leaving = asyncio.ensure_future(workbench.exchange())
        await asyncio.sleep(0)
        b.robots_pending = True
        scheduler.add_auxiliary(b, a.origin, Task(0, "https://a.test/robots.txt", TaskKind.ROBOTS, redirects=1))
        await leaving
        del workbench._choose
        assert await engine.crawl.run() is StoppedBy.EMPTY
        assert hosts_with_a_page(engine) == {"a.test", "b.test"}
        await engine.close()

    on_sqlite(main)


def test_an_expired_robots_txt_of_a_host_that_leaves_is_not_requested() -> None:
    async def main(frontier: Frontier) -> None:
        engine = with_pages(
            Harness("https://a.test/", "https://b.test/", scope=ALL, engine=options(1), frontier=frontier)
        )
        await engine.open()
        a, now = engine.host("a.test"), engine.clock.now()
        a.robots = RobotsRecord("allow", 404, None, now - 90_000, now - 10)
        engine.host_table.denied.add(a)
        await frontier.deny(a.id, [(1, Denied(DenyReason.ROBOTS, "x"))], now=now)
        engine.scheduler.note_counts()
        leaving = asyncio.ensure_future(engine.scheduler.workbench.exchange())
        await asyncio.sleep(0)
        engine.reevaluation._robots_mono = -100.0
        engine.reevaluation._request_stale_robots()
        await leaving
        assert await engine.crawl.run() is StoppedBy.EMPTY
        await engine.close()

    on_sqlite(main)


def test_hosts_that_fail_without_any_response_leave_for_others() -> None:
    """They never responded, so they are no sign of an outage."""

    async def main() -> None:
        dead = [f"https://dead{n}.d{n}.test/" for n in range(40)]
        good = [f"https://good{n}.g{n}.test/" for n in range(8)]
        engine = with_pages(Harness(*dead, *good, scope=ALL, engine=options(6), frontier=QuickFrontier()))
        alive = engine.web.other
        engine.web.other = lambda origin, task: (
            failed(ErrorType.CONNECT_TIMEOUT) if "dead" in origin.host else alive(origin, task)
        )
        assert await engine.run() is StoppedBy.WAITING
        assert len(hosts_with_a_page(engine)) == 8

    run(main())


def test_hosts_that_an_operation_needed_leave_again() -> None:
    """A change of the scope concerns more of them than may be in memory."""

    async def main() -> None:
        count = 2 * AT_ONCE + 300
        frontier = QuickFrontier()
        links = [replace(seed(f"https://h{n}.d{n}.test/x"), source=Source.LINK, depth=1) for n in range(count)]
        engine = with_pages(Harness(scope=replace(ALL, max_depth=0), engine=options(10, None), frontier=frontier))
        engine.web.addresses = {one.origin.host: f"192.0.2.{n}" for n, one in enumerate(links)}
        await engine.open()
        await frontier.add(links, now=0.0)
        for n in range(1, count + 1):
            await frontier.deny(n, [(n, Denied(DenyReason.SCOPE_DEPTH, "x"))], now=0.0)
        frontier.take_counts()
        crawling = asyncio.ensure_future(engine.crawl.run())
        await engine.engine.reconfigure(replace(engine.engine.options, scope=ALL))
        most = 0
        for _ in range(600):
            await elapse(0.5)
            most = max(most, len(engine.host_table.hosts))
        assert frontier.totals().done == count
        assert most <= 10 + AT_ONCE + 100
        engine.crawl.drain()
        await crawling

    run(main())


def test_counts_that_come_before_the_result_of_a_transaction_hold_after_it() -> None:
    """The loop is late: the store ended the transaction and another one meanwhile."""

    async def main() -> None:
        frontier = QuickFrontier()
        engine = with_pages(Harness("https://a.d.test/", scope=ALL, engine=options(100), frontier=frontier))
        await engine.open()
        await frontier.add([seed("https://b.other.test/"), seed("https://c.other.test/")], now=0.0)
        await frontier.deny(3, [(3, Denied(DenyReason.SCOPE_DEPTH, "x"))], now=0.0)
        engine.scheduler.note_counts()
        exchange = frontier.exchange

        async def overtaken(*args: Any) -> Any:
            entered = await exchange(*args)
            frontier.exchange = exchange  # type: ignore[method-assign]
            await frontier.queue_urls([3], states=(UrlState.DENIED,))
            engine.scheduler.note_counts()
            return entered

        frontier.exchange = overtaken  # type: ignore[method-assign]
        await engine.scheduler.workbench.exchange()
        assert await engine.crawl.run() is StoppedBy.EMPTY
        assert hosts_with_a_page(engine) == {"a.d.test", "b.other.test", "c.other.test"}
        await engine.close()

    run(main())


def test_a_host_that_leaves_while_others_of_its_key_are_read_is_not_forgotten() -> None:
    """What the store then tells of the key is as it was before the host left."""

    async def main(frontier: Frontier) -> None:
        seeds = ["https://h0.d.test/", "https://h1.d.test/"]
        engine = with_pages(Harness(*seeds, scope=ALL, engine=options(1), frontier=frontier))
        await engine.open()
        await engine.scheduler.start()
        host, workbench = engine.host("h0.d.test"), engine.scheduler.workbench
        host.politeness = host.politeness.backed_off(engine.clock.mono() + 600.0, "reset")
        workbench.is_short(host.key)
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(workbench, "_choose", lambda number: ([host], 1))
            await workbench.exchange()
        assert host.id not in engine.host_table.hosts
        assert host.key.more_mono == pytest.approx(engine.clock.mono() + 600.0, abs=1.0)
        await engine.close()

    on_sqlite(main)


def test_entries_of_keys_that_left_do_not_stay_in_the_ready_queue() -> None:
    """Their times may be a day away."""

    async def main() -> None:
        engine = Harness(
            *(f"https://h{n}.d{n}.test/" for n in range(300)), scope=ALL, engine=options(20), frontier=QuickFrontier()
        )
        engine.web.other = lambda origin, task: failed(ErrorType.DNS_NOT_FOUND)
        await engine.run()
        assert len(engine.web.requests) >= 300
        assert len(engine.scheduler._ready_queue._heap) <= 4 * len(engine.host_table.keys) + 40

    run(main())
