"""Other options for some hosts, in a crawl."""

import asyncio
import random
from dataclasses import replace
from typing import Any

import pytest

from crawler.core.enums import Source
from crawler.core.models import HostRow, KeyRow, Origin, RobotsRecord
from crawler.core.options import ANY_DEPTH, NO_OVERRIDE, Override, PolitenessOptions, ScopeOptions, ScopeRule
from crawler.core.scope import Overrides, Scope
from crawler.core.url import parse
from crawler.engine.options import EngineConfiguration, EngineOptions
from crawler.engine.scheduling.host_table import HostTable
from tests.support.engine import POLITE, Harness
from tests.support.fetching import FakeClock
from tests.support.scripted_web import page, response
from tests.support.virtual_time import elapse, run

A, B = "https://a.test/", "https://b.test/"
DAEMON = EngineOptions(workers=4, linger_s=None, min_free=0, drain_s=5.0)


def harness(*overrides: Override, scope: ScopeOptions | None = None, robots: int = 404) -> Harness:
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
            Override(("*.test",), delay_s=9.0, robots="ignore"),
            Override(("*.a.test", "[::1]"), delay_s=3.0),
            Override(("www.a.test",), max_urls=5),
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
        crawl = harness(Override(("a.test",), delay_s=4.0))
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
        off = Override(("b.test",), "crawler.toml:3", enabled=False)
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
        crawl = harness(Override(("b.test",), "crawler.toml:3", enabled=False))
        refused, _ = await crawl.engine.open(await crawl.frontier.open())
        assert refused == [f'seed {B}: denied by crawler.toml:3  override "b.test" enabled = false']
        assert not crawl.engine._permits(Origin("https", "b.test", 443))
        assert crawl.engine._permits(Origin("https", "a.test", 443))
        await crawl.close()

    run(main())


@pytest.mark.parametrize("at_once", [True, False])
def test_robots_txt_of_some_hosts_is_ignored(at_once: bool) -> None:
    """From the start, or after a reload: a host that is held because its robots.txt cannot be read is requested."""

    async def main() -> None:
        ignoring = Override(("a.test",), robots="ignore")
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
        overrides = Override(("a.test",), max_urls=0), Override(("b.test",), max_urls=3)
        crawl = harness(*overrides, scope=ScopeOptions(max_urls_per_host=5))
        await crawl.open()
        running = asyncio.ensure_future(crawl.engine.run())
        await elapse(40.0)
        assert (len(requested(crawl, A)), len(requested(crawl, B))) == (22, 4)
        more = Overrides([Override(("b.test",), max_urls=6)])
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
        overrides=Overrides([Override(("www.a.test",), delay_s=1.0), Override(("m.a.test",), delay_s=2.0)]),
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
        (Override(("a.test",), max_crawl_delay_s=3.0), 3.0),
        (Override(("a.test",), robots="ignore"), 1.0),
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

    def fingerprint(*overrides: Override) -> str:
        return EngineConfiguration(overrides=Overrides(overrides)).fingerprint

    off, ignoring = Override(("a.test",), enabled=False), Override(("b.test",), robots="ignore")
    assert fingerprint() == fingerprint(Override(("a.test",), delay_s=3.0, max_urls=3))
    assert len({fingerprint(), fingerprint(off), fingerprint(ignoring), fingerprint(off, ignoring)}) == 4
    assert fingerprint(off, ignoring) == fingerprint(ignoring, replace(off, place="crawler.toml:3"))


def judged(overrides: list[Override], url: str, *, scope: ScopeOptions | None = None, **more: Any) -> tuple[str, str]:
    """The word and the rule of a refusal; ("", "") for none."""
    href, origin = parse(url)
    options = scope or ScopeOptions(exclude=(ScopeRule("**/no/**", "c:1"),), max_depth=3)
    rules = Scope(options, ["a.test"], overrides=Overrides(overrides))
    what: dict[str, Any] = {"depth": 1, "hop_path": "L", "source": Source.LINK} | more
    denied = rules.judge(href, origin, **what)
    return ("", "") if denied is None else (denied.reason.value, denied.rule)


def test_the_most_specific_pattern_of_urls_decides() -> None:
    """The one with the most characters before its first wildcard; of equals the last. A scheme and the order of the
    file count for nothing else, and a regular expression has no such characters.
    """
    ordered = [
        Override(urls=("a.test/x/y/**",), max_depth=1),
        Override(urls=("re:.",), max_depth=9),
        Override(urls=("https://a.test/x/*/z",), max_depth=2),
        Override(urls=("a.test/x/**", "/never"), max_depth=3, requisites=False),
        Override(("a.test",), max_depth=4, recrawl=False, delay_s=7.0),
    ]
    for overrides in (ordered, ordered[::-1]):
        found = Overrides(overrides)
        assert found.of("a.test", "https://a.test/x/y/z").max_depth == 1
        assert found.of("a.test", "https://a.test/x/1").max_depth == 3
        assert found.of("a.test", "https://a.test/w").max_depth == 9
        assert found.of("b.test", "https://b.test/w").max_depth == 9
        assert found.of("a.test").max_depth == 4
        both = found.of("a.test", "https://a.test/x/y/z")
        assert (both.requisites, both.recrawl, both.delay_s) == (False, False, 7.0)
    assert Overrides(ordered).of("a.test", "https://a.test/x/1/z").max_depth == 3  # as long, and later
    assert Overrides(ordered[::-1]).of("a.test", "https://a.test/x/1/z").max_depth == 2


def test_some_urls_are_included_or_excluded() -> None:
    """Of the overrides that do either, the most specific decides; it counts more than the lists of scope."""
    out, back = (
        Override(urls=("a.test/x/**",), place="c:3", exclude=True),
        Override(urls=("a.test/x/y**",), exclude=False),
    )
    inside = Override(urls=("b.test/in/**",), place="c:5", include=True)
    all_of = [out, back, inside]
    excluded = ("scope_exclude", 'c:3  override "a.test/x/**" exclude = true')
    assert judged(all_of, "https://a.test/x/1") == excluded
    assert judged(all_of, "https://a.test/x/1", source=Source.SEED) == excluded
    assert judged(all_of, "https://a.test/x/1", source=Source.REQUISITE, hop_path="LE") == excluded
    assert judged(all_of, "https://a.test/x/y/1") == judged(all_of, "https://a.test/x/y/no/1") == ("", "")
    assert judged(all_of, "https://a.test/no/1") == ("scope_exclude", 'c:1  exclude "**/no/**"')
    assert judged(all_of, "https://b.test/in/no/1") == ("", "")
    assert judged(all_of, "https://b.test/in/1", depth=4) == ("scope_depth", "scope.max_depth = 3")
    assert judged(all_of, "https://b.test/") == ("scope_host", "scope.hosts = seed-hosts")
    only = ScopeOptions(include=(ScopeRule("**/yes/**"),))
    assert judged(all_of, "https://b.test/in/1", scope=only) == ("", "")
    assert judged(all_of, "https://a.test/x/y/1", scope=only)[0] == "scope_include"
    not_in = [Override(urls=("a.test/x/**",), place="c:3", include=False)]
    denied = ("scope_include", 'c:3  override "a.test/x/**" include = false')
    assert judged(not_in, "https://a.test/x/1") == denied
    assert judged(not_in, "https://a.test/x/1", source=Source.SEED) == ("", "")
    assert judged(not_in, "https://a.test/x/no/1") == ("scope_exclude", 'c:1  exclude "**/no/**"')


def test_depth_and_requisites_are_those_of_the_url_or_its_host() -> None:
    """With the override as the rule."""
    overrides = [
        Override(("a.test",), "c:3", max_depth=1, requisites=False),
        Override(urls=("a.test/deep/**",), place="c:4", max_depth=ANY_DEPTH, requisites=True),
    ]
    assert judged(overrides, "https://a.test/x", depth=2) == ("scope_depth", 'c:3  override "a.test" max_depth = 1')
    assert judged(overrides, "https://a.test/deep/x", depth=99) == ("", "")
    part: dict[str, Any] = {"source": Source.REQUISITE, "hop_path": "LE"}
    off = ("requisites_off", 'c:3  override "a.test" requisites = false')
    assert judged(overrides, "https://a.test/x.png", **part) == off
    assert judged(overrides, "https://a.test/x.png", source=Source.REDIRECT, hop_path="LER") == off
    assert judged(overrides, "https://a.test/deep/x.png", **part) == ("", "")
    assert judged(overrides, "https://cdn.test/x.png", **part) == ("", "")
    none = ScopeOptions(requisites=False)
    assert judged(overrides, "https://a.test/deep/x.png", scope=none, **part) == ("", "")
    assert judged(overrides, "https://cdn.test/x.png", scope=none, **part)[1] == "scope.requisites = false"


def test_requisites_of_some_hosts_are_fetched_though_others_are_not() -> None:
    """Pages are read for them all the same."""

    async def main() -> None:
        image, other = "https://img.test/1.png", "https://cdn.test/2.png"
        body = f'<img src="{image}"><img src="{other}">'.encode()
        override = Override(("img.test",), requisites=True)
        crawl = Harness(A, web={A: response(200, body)}, scope=ScopeOptions(requisites=False), overrides=[override])
        await crawl.run()
        assert image in crawl.web.urls
        assert other not in crawl.web.urls

    run(main())


def test_a_reload_of_overrides_for_urls_judges_stored_urls_anew() -> None:
    """What is excluded is denied, and comes back; what is included is fetched although its host is out of scope."""

    async def main() -> None:
        links = page(*(f"/x/{n}" for n in range(6)), *(f"/{n}" for n in range(6)), "https://b.test/in/1")
        crawl = Harness(A, engine=DAEMON, web={A: response(200, links)})
        await crawl.open()
        running = asyncio.ensure_future(crawl.engine.run())
        await elapse(1.5)
        before = crawl.engine.options
        out = Override(urls=("a.test/x/**",), exclude=True)
        await crawl.engine.reconfigure(replace(before, overrides=Overrides([out])))
        await elapse(60.0)
        fetched = [url for url in crawl.web.page_urls if url.startswith(A)]
        assert len(fetched) == 7 + sum("/x/" in url for url in fetched)
        assert sum("/x/" in url for url in fetched) <= 2  # requested before the reload
        await crawl.engine.reconfigure(before)
        await elapse(60.0)
        assert len([url for url in crawl.web.page_urls if url.startswith(A)]) == 13
        crawl.engine.drain()
        await running
        await crawl.close()

    run(main())


def test_what_overrides_for_urls_change_of_judging_is_in_the_fingerprint() -> None:
    """When pages are visited again is not. The order counts between patterns of one length only."""

    def fingerprint(*overrides: Override) -> str:
        return EngineConfiguration(overrides=Overrides(overrides)).fingerprint

    shallow, out = Override(("a.test",), max_depth=1), Override(urls=("a.test/x/**",), exclude=True)
    back, longer = replace(out, exclude=False), Override(urls=("a.test/xy/**",), exclude=False)
    assert fingerprint() == fingerprint(Override(urls=("a.test/x",), recrawl=False, min_interval_s=9.0))
    assert len({fingerprint(), fingerprint(shallow), fingerprint(out), fingerprint(back), fingerprint(out, back)}) == 5
    assert fingerprint(out, back) != fingerprint(back, out)
    assert fingerprint(out, longer) == fingerprint(longer, replace(out, place="c:3"))
