"""Alive or not: every legitimate idle is one, and what stands still is found. Hours pass in milliseconds."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from crawler.core.enums import StoppedBy, TaskKind
from crawler.core.models import Fetched, Origin, Task
from crawler.engine.monitoring.bottleneck import OWN_WORK_S, Health
from crawler.engine.options import EngineOptions
from crawler.fetch.options import FetchOptions
from tests.support.engine import Harness
from tests.support.scripted_web import page, response
from tests.support.virtual_time import elapse, run

RESPONSE_S = FetchOptions().total_timeout_s
DAEMON = EngineOptions(workers=4, linger_s=None, min_free=0, drain_s=5.0)


@asynccontextmanager
async def watched(engine: Harness, seen: list[str]) -> AsyncIterator[Health]:
    """The engine runs, and is looked at every ten seconds; every stall is noted in `seen`."""

    async def look() -> None:
        while True:
            await elapse(10.0)
            health.check()
            if stall := health.stall():
                seen.append(stall)

    await engine.open()
    health = engine.engine.health
    async with asyncio.TaskGroup() as group:
        crawling = group.create_task(engine.crawl.run())
        looking = group.create_task(look())
        yield health
        engine.crawl.drain(StoppedBy.SIGNAL)
        await crawling
        looking.cancel()


def test_a_crawl_with_nothing_to_do_is_alive() -> None:
    """For a day: nothing is queued."""

    async def main() -> None:
        seen: list[str] = []
        async with watched(Harness("https://a.test/", engine=DAEMON), seen):
            await elapse(86_400.0)
        assert seen == []

    run(main())


def test_a_paused_crawl_is_alive() -> None:
    """However long the operator's pause lasts, with URLs that could be asked."""

    async def main() -> None:
        seen: list[str] = []
        engine = Harness(*(f"https://a.test/{n}" for n in range(50)), engine=DAEMON)
        async with watched(engine, seen):
            await elapse(5.0)
            engine.crawl.hold(True)
            await elapse(10_000.0)
            assert seen == []
            engine.crawl.hold(False)
            await elapse(100.0)
        assert seen == []

    run(main())


def test_an_answer_that_takes_its_time_is_waited_for() -> None:
    """Up to fetch.total_timeout, with every worker waiting."""

    async def main() -> None:
        seen: list[str] = []
        engine = Harness("https://a.test/", engine=DAEMON)
        engine.web.takes_s = lambda origin, task: RESPONSE_S - 1.0
        async with watched(engine, seen):
            await elapse(4 * RESPONSE_S)
        assert seen == []

    run(main())


def test_a_fetch_without_end_is_found() -> None:
    """Longer than any deadline allows: somebody's bug; it is found once the longest attempt should have ended."""

    async def main() -> None:
        seen: list[str] = []
        engine = Harness("https://a.test/", engine=DAEMON)
        engine.web.takes_s = lambda origin, task: 10 * RESPONSE_S
        async with watched(engine, seen) as health:
            await elapse(RESPONSE_S + OWN_WORK_S - 20.0)
            assert seen == []
            await elapse(60.0)
            assert health.stall()
            assert "fetch" in seen[0]

    run(main())


def test_due_urls_that_nobody_hands_out_are_found() -> None:
    """The scheduler's own standstill, with workers idle."""

    async def main() -> None:
        seen: list[str] = []
        engine = Harness(*(f"https://a.test/{n}" for n in range(50)), engine=DAEMON)

        async def stands_still() -> None:
            while not engine.scheduler.stopping:
                await elapse(1.0)

        engine.scheduler.run = stands_still  # type: ignore[method-assign]  # the fault
        async with watched(engine, seen) as health:
            await elapse(OWN_WORK_S + 30.0)
            assert health.stall()
            assert "URLs that may be requested get no request" in seen[0]

    run(main())


def test_a_long_rest_is_no_standstill() -> None:
    """A host that asks for hours of rest, and one whose robots.txt cannot be read."""

    async def main() -> None:
        seen: list[str] = []
        engine = Harness("https://a.test/", "https://b.test/", engine=DAEMON)

        def other(origin: Origin, task: Task) -> Fetched:
            if origin.host == "b.test" and task.kind is TaskKind.ROBOTS:
                return response(500)
            return response(429, page(), retry_after="7200")

        engine.web.other = other
        async with watched(engine, seen):
            await elapse(3 * 7_200.0)
        assert seen == []

    run(main())
