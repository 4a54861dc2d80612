"""Other options for some hosts, in a crawl."""

import asyncio
import random
from dataclasses import replace

import pytest

from crawler.core.models import HostRow, KeyRow, Origin, RobotsRecord
from crawler.core.options import NO_OVERRIDE, HostOverride, Overrides, PolitenessOptions, ScopeOptions
from crawler.engine.options import EngineConfiguration, EngineOptions
from crawler.engine.scheduling.host_table import HostTable
from tests.support.engine import POLITE, Harness
from tests.support.fetching import FakeClock
from tests.support.scripted_web import page, response
from tests.support.virtual_time import elapse, run

A, B = "https://a.test/", "https://b.test/"
DAEMON = EngineOptions(workers=4, linger_s=None, min_free=0, drain_s=5.0)


def harness(*overrides: HostOverride, scope: ScopeOptions | None = None, robots: int = 404) -> Harness:
    pages = page(*(f"/{n}" for n in range(20)))
    crawl = Harness(
        A, B, overrides=overrides, scope=scope, engine=DAEMON, web={A: response(200, pages), B: response(200, pages)}
    )
    crawl.web.other = lambda origin, task: response(robots if task.url.endswith("robots.txt") else 200, page())
    return crawl


def requested(crawl: Harness, start: str) -> list[str]:
    return [url for url in crawl.web.urls if url.startswith(start)]


def test_the_most_specific_pattern_that_gives_an_option_decides() -> None:
    """The name itself, then the longest "*.name"; "*.name" is not the name."""
    overrides = Overrides(
        [
            HostOverride(("*.test",), delay_s=9.0, robots="ignore"),
            HostOverride(("*.a.test", "[::1]"), delay_s=3.0),
            HostOverride(("www.a.test",), max_urls=5),
        ]
    )
    www = overrides.of("WWW.a.test.")
    assert (www.max_urls, www.delay_s, www.robots) == (5, 3.0, "ignore")
    assert overrides.of("a.test").delay_s == 9.0
    assert overrides.of("[::1]").delay_s == 3.0
    assert overrides.of("test") is NO_OVERRIDE


def test_hosts_have_the_delay_of_their_override() -> None:
    """And others that of the crawl; a reload changes both."""

    async def main() -> None:
        crawl = harness(HostOverride(("a.test",), delay_s=4.0))
        await crawl.open()
        running = asyncio.ensure_future(crawl.engine.run())
        await elapse(16.0)
        assert (len(requested(crawl, A)), len(requested(crawl, B))) == (4, 15)
        await crawl.engine.reconfigure(replace(crawl.engine.options, overrides=Overrides()))
        await elapse(8.0)
        assert len(requested(crawl, A)) >= 10
        crawl.engine.drain()
        await running
        await crawl.close()

    run(main())


def test_a_host_that_is_switched_off_gets_no_request_until_it_is_on_again() -> None:
    """Not even for robots.txt. Its seeds are refused, and its stored URLs denied; switched on, they come back."""

    async def main() -> None:
        off = HostOverride(("b.test",), "crawler.toml:3", enabled=False)
        crawl = harness()
        await crawl.open()
        running = asyncio.ensure_future(crawl.engine.run())
        await elapse(3.5)
        before = len(requested(crawl, B))
        await crawl.engine.reconfigure(replace(crawl.engine.options, overrides=Overrides([off])))
        await elapse(60.0)
        assert len(requested(crawl, B)) == before
        assert len(requested(crawl, A)) == 22
        assert crawl.engine.status().urls["queued"] == 0
        await crawl.engine.reconfigure(replace(crawl.engine.options, overrides=Overrides()))
        await elapse(60.0)
        assert len(requested(crawl, B)) == 22
        crawl.engine.drain()
        await running
        await crawl.close()

    run(main())


def test_a_seed_of_a_host_that_is_off_is_told() -> None:
    """With the place of the override."""

    async def main() -> None:
        crawl = harness(HostOverride(("b.test",), "crawler.toml:3", enabled=False))
        refused, _ = await crawl.engine.open(await crawl.frontier.open())
        assert refused == [f'{B}: denied by crawler.toml:3  override "b.test" enabled = false']
        assert not crawl.engine._permits(Origin("https", "b.test", 443))
        assert crawl.engine._permits(Origin("https", "a.test", 443))
        await crawl.close()

    run(main())


@pytest.mark.parametrize("at_once", [True, False])
def test_robots_txt_of_some_hosts_is_ignored(at_once: bool) -> None:
    """From the start, or after a reload: a host that is held because its robots.txt cannot be read is requested."""

    async def main() -> None:
        ignoring = HostOverride(("a.test",), robots="ignore")
        crawl = harness(*([ignoring] if at_once else []), robots=500)
        await crawl.open()
        running = asyncio.ensure_future(crawl.engine.run())
        await elapse(30.0)
        if not at_once:
            assert requested(crawl, A) == [f"{A}robots.txt"]
            await crawl.engine.reconfigure(replace(crawl.engine.options, overrides=Overrides([ignoring])))
            await elapse(40.0)
        pages = [url for url in requested(crawl, A) if not url.endswith("robots.txt")]
        assert len(pages) == 21
        assert (len(pages) == len(requested(crawl, A))) is at_once
        assert set(requested(crawl, B)) == {f"{B}robots.txt"}
        crawl.engine.drain()
        await running
        await crawl.close()

    run(main())


def test_the_limit_of_some_hosts_is_another() -> None:
    """Less, or none; raised by a reload, the crawl of the host goes on."""

    async def main() -> None:
        overrides = HostOverride(("a.test",), max_urls=0), HostOverride(("b.test",), max_urls=3)
        crawl = harness(*overrides, scope=ScopeOptions(max_urls_per_host=5))
        await crawl.open()
        running = asyncio.ensure_future(crawl.engine.run())
        await elapse(40.0)
        assert (len(requested(crawl, A)), len(requested(crawl, B))) == (22, 4)
        more = Overrides([HostOverride(("b.test",), max_urls=6)])
        await crawl.engine.reconfigure(replace(crawl.engine.options, overrides=more))
        await elapse(40.0)
        assert len(requested(crawl, B)) == 7
        crawl.engine.drain()
        await running
        await crawl.close()

    run(main())


def test_hosts_of_one_key_keep_the_longest_of_their_delays() -> None:
    """Of those in memory, not that of the domain itself."""
    table = HostTable(
        politeness=PolitenessOptions(delay_s=5.0, adaptive=False),
        clock=FakeClock(1_000.0),
        rng=random.Random(1),
        on_event=lambda event, fields: None,
        overrides=Overrides([HostOverride(("www.a.test",), delay_s=1.0), HostOverride(("m.a.test",), delay_s=2.0)]),
    )
    table.enter(KeyRow(1, "a.test", None, 0.0, None, None, 0.0, (), False))
    delays = [table.keys["a.test"].delay_s]
    for number, name in enumerate(("www.a.test", "m.a.test", "other.a.test"), 1):
        table.admit([HostRow(number, Origin("https", name, 443), 0, queued=1)])
        delays.append(table.keys["a.test"].delay_s)
    assert delays == [5.0, 1.0, 2.0, 5.0]
    table.reconfigure(PolitenessOptions(delay_s=0.5), Overrides())
    assert table.keys["a.test"].delay_s == 0.5


def test_a_shorter_limit_of_crawl_delay_holds_for_its_hosts() -> None:
    """And robots = ignore leaves the Crawl-delay out."""
    record = RobotsRecord("rules", 200, None, 0.0, 1e12, crawl_delay_s=30.0)
    for override, expected in (
        (HostOverride(("a.test",), max_crawl_delay_s=3.0), 3.0),
        (HostOverride(("a.test",), robots="ignore"), 1.0),
        (NO_OVERRIDE, 30.0),
    ):
        table = HostTable(
            politeness=POLITE,
            clock=FakeClock(1_000.0),
            rng=random.Random(1),
            on_event=lambda event, fields: None,
            overrides=Overrides([override]),
        )
        (host,) = table.admit([HostRow(1, Origin("https", "a.test", 443), 0, queued=1, robots=record)])
        assert host.key.delay_s == expected


def test_what_overrides_change_of_judging_is_in_the_fingerprint() -> None:
    """A delay is not, nor where an override was written, nor their order; without any it is as before."""

    def fingerprint(*overrides: HostOverride) -> str:
        return EngineConfiguration(overrides=Overrides(overrides)).fingerprint

    off, ignoring = HostOverride(("a.test",), enabled=False), HostOverride(("b.test",), robots="ignore")
    assert fingerprint() == fingerprint(HostOverride(("a.test",), delay_s=3.0, max_urls=3))
    assert len({fingerprint(), fingerprint(off), fingerprint(ignoring), fingerprint(off, ignoring)}) == 4
    assert fingerprint(off, ignoring) == fingerprint(ignoring, replace(off, place="crawler.toml:3"))
