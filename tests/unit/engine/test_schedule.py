"""The schedule of a daemon: seeds or everything visited anew, missed times caught up once, another one live."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import replace

import pytest

from crawler.core.calendar_expression import first_after
from crawler.core.options import RecrawlOptions, ScheduleOptions
from crawler.engine import crawl
from crawler.engine.options import EngineOptions
from crawler.frontier.base import Frontier
from tests.support.engine import AT_ONCE, Harness
from tests.support.memory_frontier import MemoryFrontier
from tests.support.scripted_web import page, response
from tests.support.virtual_time import EPOCH, elapse, run

ROOT, CHILD = "https://a.test/", "https://a.test/child"
WEB = {ROOT: response(body=page(CHILD)), CHILD: response(body=page())}
HOUR, DAY = 3_600.0, 86_400.0
HOURLY = ScheduleOptions(at=("hourly UTC",))  # EPOCH is at 22:13:20


@pytest.fixture(autouse=True)
def _look_by_the_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(crawl, "_CHECK_S", 60.0)


def daemon(
    schedule: ScheduleOptions,
    meanwhile: Callable[[Harness], Awaitable[None]],
    *,
    frontier: Frontier | None = None,
    linger_s: float | None = None,
) -> Harness:
    """A daemon that runs until `meanwhile` is done."""

    async def main() -> Harness:
        engine = EngineOptions(workers=2, linger_s=linger_s, min_free=0, drain_s=5.0)
        harness = Harness(
            ROOT,
            politeness=AT_ONCE,
            frontier=frontier or MemoryFrontier(),
            web=dict(WEB),
            engine=engine,
            recrawl=RecrawlOptions(enabled=False),
        )
        harness.engine.options = replace(harness.engine.options, schedule=schedule)
        harness.engine.schedule.reconfigure(schedule)
        await harness.open()
        running = asyncio.ensure_future(harness.engine.run())
        await meanwhile(harness)
        harness.engine.drain()
        await running
        await harness.close()
        return harness

    return run(main())


def times(harness: Harness, url: str) -> list[float]:
    """When it was requested, in whole seconds since the start."""
    return [round(each.begin) for each in harness.web.requests if each.url == url]


def test_seeds_are_visited_anew_at_each_time_and_nothing_else_is() -> None:
    """What is new on them is followed."""

    async def meanwhile(harness: Harness) -> None:
        await elapse(2 * HOUR)
        harness.web.pages[ROOT] = response(body=page(CHILD, f"{ROOT}new"))
        await elapse(HOUR)

    harness = daemon(HOURLY, meanwhile)
    first = round(first_after(HOURLY.at, EPOCH) or 0.0) - EPOCH
    assert times(harness, ROOT) == [0, first, first + HOUR, first + 2 * HOUR]
    assert (len(times(harness, CHILD)), times(harness, f"{ROOT}new")) == (1, [first + 2 * HOUR])
    assert harness.events_named("schedule")[0] == {
        "what": "seeds",
        "queued": 1,
        "next": "2023-11-15T00:00:00.000Z",
    }
    assert harness.engine.status().as_json()["scheduled_at"] == EPOCH + first + 3 * HOUR


def test_everything_is_visited_anew_as_a_round() -> None:
    async def meanwhile(_harness: Harness) -> None:
        await elapse(2 * HOUR)

    harness = daemon(replace(HOURLY, what="all"), meanwhile)
    assert len(times(harness, ROOT)) == len(times(harness, CHILD)) == 3
    assert [each["round"] for each in harness.events_named("schedule")] == [1, 2]
    assert harness.engine.rounds.current is not None
    assert (harness.engine.rounds.current.number, harness.engine.rounds.current.is_under_way) == (2, False)
    assert [each["visited"] for each in harness.events_named("round_over")] == [2, 2]


@pytest.mark.parametrize("missed", [0, 1, 30])
def test_what_was_missed_is_caught_up_once(missed: int) -> None:
    """At the start after it; the next time is that of the schedule again."""
    frontier = MemoryFrontier()

    async def once(_harness: Harness) -> None:
        await elapse(60.0)

    daemon(HOURLY, once, frontier=frontier)

    async def earlier() -> None:
        await frontier.open()
        known = await frontier.stored_value("schedule")
        assert known is not None
        at = EPOCH - missed * HOUR
        await frontier.store_value("schedule", known.replace(b"%r" % EPOCH, b"%r" % at))
        await frontier.close(clean=True)

    run(earlier())
    harness = daemon(HOURLY, once, frontier=frontier)
    assert len(times(harness, ROOT)) == (1 if missed else 0)
    assert harness.engine.schedule.next_at == first_after(HOURLY.at, EPOCH)


def test_another_schedule_comes_into_force_live() -> None:
    """It begins then: nothing of it was missed. An empty one visits nothing."""

    async def meanwhile(harness: Harness) -> None:
        await elapse(2 * HOUR)
        assert times(harness, ROOT) == [0]
        options = harness.engine.options
        await harness.engine.reconfigure(replace(options, schedule=ScheduleOptions(at=("*:0/15 UTC", "daily UTC"))))
        await elapse(0.5 * HOUR)
        assert len(times(harness, ROOT)) == 3
        await harness.engine.reconfigure(options)
        await elapse(DAY)

    harness = daemon(ScheduleOptions(), meanwhile)
    assert len(times(harness, ROOT)) == 3
    assert harness.engine.schedule.next_at is None


@pytest.mark.parametrize("back_s", [DAY, 365 * DAY])
def test_a_clock_that_was_set_back_stops_no_schedule(back_s: float) -> None:
    """It had been ahead: the visits go on by the clock as it is, without a restart and after one."""
    frontier = MemoryFrontier()

    async def meanwhile(harness: Harness) -> None:
        await elapse(10.0)
        harness.loop.clock_skew = back_s
        await elapse(300.0)
        harness.loop.clock_skew = 0.0
        await elapse(3 * HOUR)

    harness = daemon(HOURLY, meanwhile, frontier=frontier)
    first = round(first_after(HOURLY.at, EPOCH) or 0.0) - EPOCH
    caught_up = [at for at in times(harness, ROOT) if at < first]
    assert len(caught_up) == 2  # at the start, and for the time that the clock left out
    assert times(harness, ROOT)[2:] == [first + n * HOUR for n in range(3)]

    async def ahead(harness: Harness) -> None:
        harness.loop.clock_skew = back_s
        await elapse(2 * HOUR)

    daemon(HOURLY, ahead, frontier=frontier)

    async def later(_harness: Harness) -> None:
        await elapse(2 * HOUR)

    assert times(daemon(HOURLY, later, frontier=frontier), ROOT) == [first, first + HOUR]


def test_a_clock_that_was_set_back_by_seconds_visits_nothing_twice() -> None:
    async def meanwhile(harness: Harness) -> None:
        await elapse((first_after(HOURLY.at, EPOCH) or 0.0) - EPOCH + 1.0)
        harness.loop.clock_skew = -30.0
        await elapse(0.5 * HOUR)

    assert len(times(daemon(HOURLY, meanwhile), ROOT)) == 2


def test_a_crawl_that_ends_has_no_schedule() -> None:
    async def meanwhile(_harness: Harness) -> None:
        await elapse(2 * HOUR)

    assert Counter(each.url for each in daemon(HOURLY, meanwhile, linger_s=DAY).web.requests)[ROOT] == 1
