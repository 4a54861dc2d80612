"""The wall clock is set while a crawl runs, or between two: stamps follow it, waits stay as long as they were."""

import asyncio
import time
from itertools import pairwise
from pathlib import Path

import pytest

from crawler.core.enums import ErrorType, StoppedBy
from crawler.core.options import RecrawlOptions
from crawler.engine.crawl import StepWatch
from crawler.engine.engine import SystemClock
from crawler.engine.options import EngineOptions
from crawler.frontier.sqlite.store import SqliteFrontier
from tests.support.engine import POLITE, Harness
from tests.support.memory_frontier import MemoryFrontier
from tests.support.scripted_web import failed, page, response
from tests.support.virtual_time import EPOCH, InThread, elapse, run

ROOT = "https://a.test/"
ROBOTS = "https://a.test/robots.txt"
HOUR, DAY = 3_600.0, 86_400.0
BROKEN = failed(ErrorType.READ_TIMEOUT)  # the URL is tried again, and its host does not rest


def test_the_time_of_day_is_the_wall_clock_s_however_it_is_set(monkeypatch: pytest.MonkeyPatch) -> None:
    """A clock that was ahead for a moment is ahead for that moment only; a step is noticed once."""
    wall, ticks = [1_000_000.0], [50.0]
    monkeypatch.setattr(SystemClock, "now", lambda self: wall[0])
    monkeypatch.setattr(SystemClock, "mono", lambda self: ticks[0])
    watch = StepWatch(SystemClock())
    seen = []
    for ahead_s in (0.0, 3_600.0, 3_600.0, 0.0, -86_400.0, -86_399.5, 0.0):
        ticks[0] += 6.0
        wall[0] = 1_000_000.0 - 50.0 + ticks[0] + ahead_s
        seen.append(watch.step_s())
    assert seen == pytest.approx([0.0, 3_600.0, 0.0, -3_600.0, -86_400.0, 0.0, 86_400.0])


def test_the_system_s_clock_is_the_wall_clock() -> None:
    """Nothing is remembered of what it said before: a later start and another process would see something else."""
    before = time.time()
    assert before <= SystemClock().now() <= time.time()
    assert SystemClock.now is time.time


def test_the_clock_set_back_or_forward_neither_storms_nor_stalls() -> None:
    """Delays are on the monotonic clock; only what waits for a date moves with the wall clock."""

    async def main() -> None:
        engine = Harness(ROOT, web={ROOT: response(200, page(*(f"/{n}" for n in range(20))))})

        async def jump() -> None:
            for skew in (7_200.0, -3_600.0, 0.0):
                await elapse(5.0)
                engine.loop.clock_skew = skew

        async with asyncio.TaskGroup() as group:
            group.create_task(jump())
            assert await engine.run() is StoppedBy.EMPTY
        begins = [one.begin for one in engine.web.requests]
        assert all(1.1 <= after - before < 1.2 for before, after in pairwise(begins))

    run(main())


async def skewed(engine: Harness, steps: list[tuple[float, float]]) -> StoppedBy:
    """Run the engine while the wall clock is set: after so many seconds, to be so far ahead."""

    async def jump() -> None:
        for after_s, skew in steps:
            await elapse(after_s)
            engine.loop.clock_skew = skew

    async with asyncio.TaskGroup() as group:
        jumping = group.create_task(jump())
        ended = await engine.run()
        jumping.cancel()
    return ended


@pytest.mark.parametrize("ahead_s", [HOUR, 40 * DAY, -HOUR, -DAY])
@pytest.mark.parametrize("after_s", [0.5, 3.0])
def test_a_clock_that_was_off_for_six_seconds_stamps_only_those_wrong(ahead_s: float, after_s: float) -> None:
    """What is read later has the right date, and what failed meanwhile is asked again as soon as ever."""

    async def main() -> None:
        web = {ROOT: response(200, page(*(f"/{n}" for n in range(20))))}
        for n in range(20):
            web[f"{ROOT}{n}"] = [BROKEN, response(200, b"")] if n < 6 else response(200, b"")  # type: ignore[assignment]
        engine = Harness(ROOT, politeness=POLITE, web=web)  # type: ignore[arg-type]
        assert await skewed(engine, [(after_s, ahead_s), (6.0, 0.0)]) is StoppedBy.EMPTY
        assert engine.clock.mono() < 120.0
        begins = [one.begin for one in engine.web.requests]
        assert all(after - before >= 1.1 for before, after in pairwise(begins))
        stamps = [visited.settlement.finished_at for visited, _, _ in engine.visits]
        wrong = [at for at in stamps if not EPOCH <= at <= EPOCH + engine.clock.mono()]
        assert 1 <= len(wrong) <= 7
        steps = [round(fields["step_s"]) for event, fields in engine.events if event == "clock_set"]  # type: ignore[call-overload]
        assert steps == [ahead_s, -ahead_s]

    run(main())


@pytest.mark.parametrize("store", ["memory", "sqlite"])
@pytest.mark.parametrize("back_s", [HOUR, 400 * DAY])
def test_what_waits_is_due_as_soon_when_the_clock_is_set_back(store: str, back_s: float, tmp_path: Path) -> None:
    """A retry waits for seconds, by whatever clock; so does a robots.txt that cannot be read."""

    async def main() -> None:
        frontier = MemoryFrontier() if store == "memory" else InThread(SqliteFrontier(tmp_path / "f.db"))
        web = {
            ROOT: [BROKEN, BROKEN, response(200, page("https://b.test/"))],
            "https://b.test/robots.txt": [response(500), response(404)],
            "https://b.test/": response(200, b""),
        }
        engine = Harness(ROOT, "https://b.test/", frontier=frontier, web=web)  # type: ignore[arg-type]
        assert await skewed(engine, [(2.2, -back_s)]) is StoppedBy.EMPTY
        assert sorted(engine.web.page_urls)[-1] == "https://b.test/"
        assert engine.clock.mono() < 130.0  # the second retry waits for 19 s at most, robots.txt for 60

    run(main())


def test_revisits_are_due_within_their_longest_interval_of_a_clock_set_back() -> None:
    """Dated by a clock that was years ahead, none would come for years."""

    async def main() -> None:
        recrawl = RecrawlOptions(enabled=True, min_interval_s=HOUR, max_interval_s=2 * DAY)
        options = EngineOptions(workers=2, min_free=0, linger_s=4 * DAY, drain_s=5.0, max_duration_s=3 * DAY)
        engine = Harness(ROOT, recrawl=recrawl, engine=options, web={ROOT: response(200, b"x")})
        engine.loop.clock_skew = 1_000 * DAY
        await skewed(engine, [(1.5, 0.0)])
        assert engine.web.page_urls.count(ROOT) >= 2

    run(main())


def test_a_start_under_a_clock_set_back_waits_for_nothing_longer() -> None:
    """The clock was set between two runs: retries, revisits and robots.txt of the first are as near as they were."""

    async def main() -> None:
        frontier = MemoryFrontier()
        web = {
            ROOT: [BROKEN, response(200, b"x")],
            "https://b.test/robots.txt": response(500),
            "https://b.test/": response(200, b""),
        }
        first = Harness(
            ROOT, "https://b.test/", frontier=frontier, web=web,  # type: ignore[arg-type]
            engine=EngineOptions(workers=2, min_free=0, linger_s=600.0, drain_s=5.0, max_duration_s=3.0),
        )  # fmt: skip
        first.loop.clock_skew = 30 * DAY
        assert await first.run() is StoppedBy.MAX_DURATION
        first.loop.clock_skew = 0.0
        second = Harness(frontier=frontier, web={ROOT: response(200, b"x"), "https://b.test/": response(200, b"")})
        begun = second.clock.mono()
        assert await second.run() is StoppedBy.EMPTY
        assert sorted(second.web.page_urls) == [ROOT, "https://b.test/"]
        assert second.clock.mono() - begun < 20.0

    run(main())
