"""The workbench: few hosts in memory are as good as all of them, whatever leaves and enters."""

import asyncio
from collections import Counter
from dataclasses import replace

import pytest

from crawler.core.enums import StoppedBy, TaskKind
from crawler.core.models import FetchResult, Origin, Task
from crawler.core.options import PolitenessOptions, ScopeOptions
from crawler.engine.options import EngineOptions
from crawler.engine.scheduling.ready_queue import QUANTUM
from crawler.frontier.base import BlockedHost, Entered, Leaving, Wanted
from tests.support.engine import Harness, seed
from tests.support.quick_frontier import QuickFrontier
from tests.support.scripted_web import ADDRESS, page, response
from tests.support.virtual_time import elapse, run

DELAYED = PolitenessOptions(delay_s=1.0, address_delay_s=0.0, adaptive=False)
ALL = ScopeOptions(hosts=("*.test",))


def options(active_hosts: int, linger_s: float) -> EngineOptions:
    return EngineOptions(workers=8, linger_s=linger_s, min_free=0, active_hosts=active_hosts)


def names(domains: int, hosts: int) -> list[str]:
    return [f"https://h{host}.d{domain}.test" for domain in range(domains) for host in range(hosts)]


def engine_of(
    origins: list[str],
    active_hosts: int,
    *,
    pages: int,
    frontier: QuickFrontier | None = None,
    scope: ScopeOptions = ALL,
    politeness: PolitenessOptions = DELAYED,
    linger_s: float = 600.0,
) -> Harness:
    """Every host has `pages` pages, which its front page links to."""
    engine = Harness(
        *(f"{origin}/" for origin in origins),
        politeness=politeness,
        scope=scope,
        engine=options(active_hosts, linger_s),
        frontier=frontier or QuickFrontier(),
    )

    def respond(origin: Origin, task: Task) -> FetchResult:
        if task.kind is TaskKind.ROBOTS:
            return response(404)
        return response(200, page(*(f"{origin}/{n}" for n in range(pages - 1))))

    engine.web.other = respond
    return engine


@pytest.mark.parametrize(("domains", "hosts", "active_hosts"), [(30, 1, 4), (4, 9, 3), (1, 40, 2), (1, 40, 20)])
def test_every_url_is_fetched_with_few_hosts_in_memory(domains: int, hosts: int, active_hosts: int) -> None:
    """Of many domains, of some with several hosts, and of one with many; memory stays bounded."""

    async def main() -> None:
        origins = names(domains, hosts)
        engine = engine_of(origins, active_hosts, pages=25)
        most = 0

        async def watch() -> None:
            nonlocal most
            while True:
                most = max(most, len(engine.host_table.hosts))
                await elapse(0.05)

        watching = asyncio.ensure_future(watch())
        assert await engine.run() is StoppedBy.EMPTY
        watching.cancel()
        assert len(set(engine.web.page_urls)) == len(engine.web.page_urls) == len(origins) * 25
        assert most <= active_hosts + 2 * 16  # those of a key enter together
        assert len(engine.host_table.hosts) <= len(engine.host_table.keys_by_id) * 16

    run(main())


def test_hosts_that_wait_are_requested_in_turn() -> None:
    """None gets more than its turn, twice over, before each was requested once."""

    async def main() -> None:
        origins = names(40, 1)
        engine = engine_of(origins, 5, pages=400)
        crawling = asyncio.ensure_future(engine.run())
        requested: Counter[str] = Counter()
        while len(requested) < len(origins):
            await elapse(5.0)
            requested = Counter(str(one.origin) for one in engine.web.requests)
            assert engine.clock.mono() < 40 / 5 * QUANTUM * 2
        engine.crawl.drain()
        await crawling
        assert max(requested.values()) <= 2 * QUANTUM + 4

    run(main())


@pytest.mark.parametrize(("address_delay_s", "takes_s"), [(0.5, 0.1), (0.0, 4.0)])
def test_many_hosts_of_one_address_leave_places_for_others(address_delay_s: float, takes_s: float) -> None:
    """Those of other addresses are requested as if they were alone, and the address is used all the time."""

    async def main() -> None:
        crowd, others = names(500, 1), [f"https://other{n}.test" for n in range(30)]
        engine = engine_of(
            [origin for pair in zip(crowd[:30], others, strict=True) for origin in pair] + crowd[30:],
            40,
            pages=20,
            politeness=replace(DELAYED, address_delay_s=address_delay_s),
        )
        engine.web.addresses = {f"other{n}.test": f"192.0.2.{n + 2}" for n in range(30)}
        engine.web.takes_s = lambda origin, _: 0.1 if "other" in origin.host else takes_s
        crawling = asyncio.ensure_future(engine.run())
        await elapse(120.0)
        requests = [one for one in engine.web.requests if one.address != ADDRESS]
        assert len(requests) == len(others) * 21
        assert max(one.end for one in requests) < 60.0  # alone each takes 21 delays
        width = 1 if address_delay_s else engine.scheduler.address_limiter.width
        assert len(engine.web.requests) - len(requests) > 0.9 * 120.0 / (address_delay_s + takes_s) * width
        assert engine.web.shut < 3 * len(engine.web.requests)
        engine.crawl.drain()
        await crawling

    run(main())


def test_a_crawl_that_is_killed_goes_on_where_it_was() -> None:
    """Hosts that were in memory, and those that were not."""

    async def main() -> None:
        origins, frontier = names(20, 2), QuickFrontier()
        fetched: Counter[str] = Counter()
        for kills in range(4):
            engine = engine_of(origins, 3, pages=6, frontier=frontier)
            await engine.open()
            crawling = asyncio.ensure_future(engine.crawl.run())
            if kills < 3:
                await elapse(15.0)
                crawling.cancel()
                await asyncio.wait({crawling})
                await frontier.close(clean=False)
            else:
                assert await crawling is StoppedBy.EMPTY
                await engine.close()
            fetched.update(engine.settled.keys())
        assert set(fetched) == {f"{origin}/{page}" for origin in origins for page in ("", *range(5))}
        assert set(fetched.values()) == {1}

    run(main())


@pytest.mark.parametrize(("domains", "active_hosts"), [(1, 10), (6, 10), (6, 2), (6, 1)])
@pytest.mark.parametrize("clean", [True, False])
def test_a_delay_that_is_longer_than_a_crawl_lingers_ends_none(domains: int, active_hosts: int, clean: bool) -> None:
    """Not after a stop or a kill either, nor if the hosts that wait are not in memory. Only back-offs do."""

    async def main() -> None:
        origins, frontier = names(domains, 1), QuickFrontier()
        slow = PolitenessOptions(delay_s=60.0, address_delay_s=0.0, adaptive=False)
        fetched: Counter[str] = Counter()
        for begun in range(4):
            engine = engine_of(origins, active_hosts, pages=4, frontier=frontier, politeness=slow, linger_s=5.0)
            await engine.open()
            crawling = asyncio.ensure_future(engine.crawl.run())
            if begun < 3:
                await elapse(50.0)
                if clean:
                    engine.crawl.drain()
                    assert await crawling is StoppedBy.SIGNAL
                    await engine.close()
                else:
                    crawling.cancel()
                    await asyncio.wait({crawling})
                await frontier.close(clean=clean)
            else:
                assert await crawling is StoppedBy.EMPTY
                await engine.close()
            fetched.update(engine.settled.keys())
        assert set(fetched) == {f"{origin}/{page}" for origin in origins for page in ("", *range(3))}

    run(main())


def test_what_a_block_or_a_limit_holds_leaves_memory_and_comes_back() -> None:
    """No request is made for it meanwhile, and none of its URLs is lost."""

    async def main() -> None:
        origins, frontier = names(20, 1), QuickFrontier()
        few = ScopeOptions(hosts=("*.test",), max_urls_per_host=3)
        engine = engine_of(origins, 2, pages=6, frontier=frontier, scope=few)
        await engine.open()
        await frontier.block(BlockedHost("d7.test", "domain", 0.0, ""))
        engine.host_table.blocklist.load(await frontier.blocks())
        engine.scheduler.blocklist_changed()
        assert await engine.crawl.run() is StoppedBy.MAX_URLS
        requested = Counter(str(one.origin) for one in engine.web.requests if one.task.kind is TaskKind.PAGE)
        assert requested == {origin: 3 for origin in origins if ".d7." not in origin}
        parked = await frontier.parked()
        assert parked["limit"][0] + len(engine.host_table.hosts) >= len(origins) - 1
        await engine.close()
        await frontier.close(clean=True)
        again = engine_of(origins, 2, pages=6, frontier=frontier)
        await again.open()
        await frontier.unblock("d7.test")
        again.host_table.blocklist.load(await frontier.blocks())
        again.scheduler.blocklist_changed()
        await again.scheduler.unpark("blocked")
        assert await again.crawl.run() is StoppedBy.EMPTY
        assert len(set(again.web.page_urls) | set(engine.web.page_urls)) == 20 * 6

    run(main())


def test_work_that_comes_while_the_store_is_read_is_not_forgotten() -> None:
    """The result of the read does not have it yet."""

    class Slow(QuickFrontier):
        async def exchange(self, leaving: Leaving, wanted: Wanted) -> Entered:
            entered = await super().exchange(leaving, wanted)
            await elapse(1.0)
            return entered

    async def main() -> None:
        frontier = Slow()
        engine = engine_of(names(1, 1), 10, pages=1, frontier=frontier)
        await engine.open()
        reading = asyncio.ensure_future(engine.scheduler.workbench.exchange())
        await elapse(0.5)
        await frontier.add([seed("https://late.test/")], now=0.0)
        engine.scheduler.note_counts()
        await reading
        assert await engine.crawl.run() is StoppedBy.EMPTY
        assert "https://late.test/" in engine.web.page_urls
        await engine.close()

    run(main())
