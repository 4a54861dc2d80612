"""A robots.txt that changes during a crawl: stored URLs are re-evaluated, and events say how many changed."""

import asyncio
from pathlib import Path

import pytest

from crawler.core.enums import TaskKind, UrlState
from crawler.core.models import FetchResult, Origin, Task
from crawler.core.options import PolitenessOptions
from crawler.engine.options import EngineOptions
from crawler.engine.scheduling.host import Host
from crawler.frontier.base import Frontier
from crawler.frontier.sqlite.store import SqliteFrontier
from tests.support.engine import Harness
from tests.support.memory_frontier import MemoryFrontier
from tests.support.scripted_web import page, response
from tests.support.virtual_time import InThread, elapse, run

HOUR, DAY = 3_600.0, 86_400.0
POLITE = PolitenessOptions(delay_s=HOUR, address_delay_s=0.0, adaptive=False)
LINKS = [f"/{folder}/{n}" for folder in ("a", "b", "c") for n in range(25)]


def engine_on(frontier: Frontier, *texts: str) -> Harness:
    """A host whose robots.txt says another of `texts` each day, and whose front page links to 75 pages."""
    engine = Harness(
        "https://a.test/",
        politeness=POLITE,
        engine=EngineOptions(workers=4, linger_s=None, min_free=0),
        frontier=frontier,
    )

    def respond(origin: Origin, task: Task) -> FetchResult:
        if task.kind is TaskKind.ROBOTS:
            text = texts[min(int(engine.clock.mono() // DAY), len(texts) - 1)]
            return response(200, text.encode(), content_type="text/plain")
        return response(200, page(*LINKS) if task.url == "https://a.test/" else page())

    engine.web.other = respond
    return engine


@pytest.fixture(autouse=True)
def _days_pass_quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    """The crawl checks every second whether it has ended: too often for tests of days."""
    monkeypatch.setattr("crawler.engine.crawl._CHECK_S", 600.0)


def fetched(engine: Harness, folder: str) -> int:
    return sum(f"a.test/{folder}/" in url for url in engine.web.urls)


@pytest.fixture(params=["memory", "sqlite"])
def frontier(request: pytest.FixtureRequest, tmp_path: Path) -> object:
    """Both, as far as a `VirtualLoop` can tell them apart."""
    return None if request.param == "memory" else tmp_path / "frontier.db"


def store(place: object) -> Frontier:
    return MemoryFrontier() if place is None else InThread(SqliteFrontier(place))  # type: ignore[return-value, arg-type]


def test_a_new_disallow_denies_queued_urls_and_its_removal_queues_them_again(frontier: object) -> None:
    """At once, not only when a URL is leased; in the end all allowed pages are fetched."""

    async def main() -> None:
        forbids = "User-agent: *\nDisallow: /b/\nDisallow: /c/\n"
        engine = engine_on(store(frontier), "User-agent: *\nDisallow: /x\n", forbids, "User-agent: *\nDisallow: /c/\n")
        crawling = asyncio.ensure_future(engine.run())
        await elapse(DAY + 3 * HOUR)
        (changed,), (reevaluated,) = engine.events_named("robots_changed"), engine.events_named("reevaluated")
        assert changed["added"] == ["Disallow: /b/", "Disallow: /c/"]
        assert changed["removed"] == ["Disallow: /x"]
        totals = engine.frontier.totals()
        before = fetched(engine, "b") + fetched(engine, "c")
        assert reevaluated["queued"] == 0
        assert 40 <= int(str(reevaluated["denied"])) <= totals.denied <= 50 - before
        assert fetched(engine, "a") > 20
        assert engine.host("a.test").queued == totals.queued
        await elapse(5 * DAY)
        engine.crawl.drain()
        await crawling
        assert fetched(engine, "a") == fetched(engine, "b") == 25
        assert fetched(engine, "c") < 25
        counts = [(line["denied"], line["queued"]) for line in engine.events_named("reevaluated")]
        assert len(counts) == 2
        assert int(str(counts[1][1])) >= 20
        host = engine.host("a.test")
        assert (host.queued, len(host.leased), len(host.buffer)) == (0, 0, 0)

    run(main())


def test_a_reevaluation_that_a_crash_interrupted_is_done_after_the_restart() -> None:
    """The store knows which hosts are to be re-evaluated."""

    async def main() -> None:
        frontier = MemoryFrontier()
        engine = engine_on(frontier, "User-agent: *\nDisallow: /a/\n", "User-agent: *\n")

        async def never(_: Host) -> None:
            await asyncio.Event().wait()

        crawling = asyncio.ensure_future(engine.run())
        await elapse(0.9 * DAY)
        engine.reevaluation._reevaluate = never  # type: ignore[method-assign, assignment]
        await elapse(4 * DAY)
        denied = (frontier.totals()).denied
        assert denied == 25
        assert all(url.state is not UrlState.QUEUED for url in frontier._urls.values())
        crawling.cancel()
        await asyncio.wait({crawling})
        await frontier.close(clean=False)
        again = engine_on(frontier, "User-agent: *\n")
        crawling = asyncio.ensure_future(again.run())
        await elapse(3 * DAY)
        again.crawl.drain()
        await crawling
        assert fetched(again, "a") == denied
        await again.frontier.open()
        assert await again.frontier.marked_hosts(after=0, limit=9) == []

    run(main())


def test_a_host_that_cannot_be_judged_remains_to_be_reevaluated() -> None:
    """While its robots.txt is unreachable, its URLs are not changed."""

    async def main() -> None:
        engine = engine_on(MemoryFrontier(), "User-agent: *\n")
        await engine.open()
        host = engine.host("a.test")
        engine.web.pages["https://a.test/robots.txt"] = response(500)
        crawling = asyncio.ensure_future(engine.crawl.run())
        await elapse(HOUR)
        assert host.is_held
        sweep = await engine.frontier.judge_by("others")
        assert sweep is not None
        engine.reevaluation.rules_changed(sweep)
        await elapse(60)
        assert engine.reevaluation.is_idle
        assert engine.events_named("reevaluated") == []
        assert await engine.frontier.reevaluation_mark(host.id) == 1
        engine.crawl.drain()
        await crawling
        await engine.close()

    run(main())
