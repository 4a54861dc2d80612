"""Crawl-wide limits of requests, hours and bandwidth, with a clock of the test."""

from datetime import UTC, datetime
from typing import Any

import pytest

from crawler.core.clock import Hours
from crawler.core.enums import StoppedBy
from crawler.engine.options import EngineOptions
from crawler.engine.scheduling.restrictions import CrawlRateLimiter
from crawler.fetch.limits import Bandwidth
from tests.support.engine import AT_ONCE, POLITE, Harness
from tests.support.fetching import FakeClock
from tests.support.scripted_web import page, response
from tests.support.virtual_time import EPOCH, run

ROOT = "https://a.test/"
STARTED = datetime.fromtimestamp(EPOCH, UTC)  # 22:13:20


def hours(*windows: str) -> Hours:
    return Hours(windows, lambda at: 0.0)


def minutes_from_now(n: int) -> str:
    minute = (STARTED.hour * 60 + STARTED.minute + n) % 1_440
    return f"{minute // 60:02}:{minute % 60:02}"


def window(first: int, last: int) -> str:
    """From so many minutes after the start of the crawl to so many."""
    return f"{minutes_from_now(first)}-{minutes_from_now(last)}"


def numbered(count: int) -> dict[str, Any]:
    return {ROOT: response(200, page(*(f"/{n}" for n in range(count))))}


# -- the rate limiter alone


def test_without_hours_and_limits_it_is_open() -> None:
    """For everybody."""
    limiter = CrawlRateLimiter(FakeClock())
    assert (limiter.closed_s(), limiter.host_opens_mono("a.test"), limiter.closed_until_at) == (0.0, 0.0, None)
    assert not limiter.is_limited_by_bandwidth


def test_it_tells_of_each_change_once() -> None:
    """When it is closed at the start, when it opens, when it closes again; not when nothing changed."""
    clock = FakeClock(mono=0.0)  # UTC is 22:13:20
    told: list[tuple[bool, float]] = []
    limiter = CrawlRateLimiter(
        clock,
        hours("23:00-01:00"),
        on_hours=lambda is_open, until_at: told.append((is_open, until_at - 1_700_000_000.0)),
    )
    opens, closes = 2_800.0, 10_000.0
    for clock.time in (0.0, 1.0, opens - 1, opens, opens + 5, closes - 1, closes, closes + 5):
        closed_s = limiter.closed_s()
        assert (closed_s > 0) is not (opens <= clock.time < closes)
        assert (limiter.closed_until_at is None) is (closed_s == 0)
    assert told == [(False, opens), (True, closes), (False, opens + 86_400)]


def test_a_wall_clock_that_is_set_back_is_noticed() -> None:
    """What was worked out holds from the moment it was worked out, not before."""
    clock = FakeClock(mono=3_000.0)
    limiter = CrawlRateLimiter(clock, hours("23:00-01:00"))
    assert limiter.closed_s() == 0.0
    clock.time = 1_000.0
    assert limiter.closed_s() == 1_800.0


def test_other_hours_come_into_force_at_once() -> None:
    """A reload."""
    limiter = CrawlRateLimiter(FakeClock(mono=0.0), hours("23:00-01:00"))
    assert limiter.closed_s() > 0
    limiter.set_hours(hours("22:00-23:00"))
    assert limiter.closed_s() == 0.0
    limiter.set_hours(None)
    assert limiter.closed_until_at is None


def test_hours_that_are_taken_away_open_it() -> None:
    """And that is told, for good."""
    told: list[tuple[bool, float]] = []
    limiter = CrawlRateLimiter(
        FakeClock(mono=0.0),
        hours("23:00-01:00"),
        on_hours=lambda is_open, until_at: told.append((is_open, until_at)),
    )
    assert limiter.closed_s() > 0
    limiter.set_hours(None)
    limiter.set_hours(None)
    assert told[1:] == [(True, float("inf"))]


def test_a_debt_of_bandwidth_shuts_it() -> None:
    """For all while the whole crawl owes, for one host while that does."""
    clock = FakeClock(mono=10.0)
    bandwidth = Bandwidth(whole=1_000, per_host=500)
    limiter = CrawlRateLimiter(clock, None, bandwidth)
    bandwidth.spend("a.test", 2_500, clock.mono())
    assert limiter.closed_s() == pytest.approx(1.5)
    assert limiter.host_opens_mono("a.test") == pytest.approx(14.0)
    assert limiter.is_limited_by_bandwidth
    assert limiter.closed_until_at is None
    clock.time = 12.0
    assert limiter.closed_s() == 0.0
    clock.time = 12.6
    assert not limiter.is_limited_by_bandwidth


# -- a crawl with it


def test_nothing_leaves_outside_the_hours() -> None:
    """Three windows of two minutes, a day apart from the third on: every request lies in one, and all pages come."""

    async def main() -> None:
        engine = Harness(ROOT, politeness=POLITE, web=numbered(300), engine=EngineOptions(workers=4, min_free=0))
        engine.scheduler.crawl_rate_limiter.set_hours(hours(window(2, 4), window(8, 10)))
        assert await engine.run() is StoppedBy.WAITING
        begins = [each.begin + EPOCH for each in engine.web.requests]
        assert len(begins) > 200
        assert all(hours(window(2, 4), window(8, 10)).is_open(at) for at in begins)

    run(main())


def test_a_crawl_waits_for_hours_that_open_within_its_linger() -> None:
    """It lingers; with a shorter linger it ends as one whose URLs are due later."""

    async def main(linger_s: float) -> tuple[StoppedBy, int, float]:
        options = EngineOptions(workers=4, min_free=0, linger_s=linger_s)
        engine = Harness(ROOT, politeness=POLITE, web=numbered(10), engine=options)
        engine.scheduler.crawl_rate_limiter.set_hours(hours(window(5, 20)))
        assert engine.monitor.status().state == "off_hours"
        return await engine.run(), len(engine.settled), engine.clock.mono()

    stopped_by, settled, took_s = run(main(600.0))
    assert (stopped_by, settled) == (StoppedBy.EMPTY, 11)
    assert 260 <= took_s <= 300
    stopped_by, settled, took_s = run(main(60.0))
    assert (stopped_by, settled) == (StoppedBy.WAITING, 0)
    assert took_s < 5


def test_what_is_in_flight_when_the_hours_end_finishes() -> None:
    """And the rest of its lease goes back, to be fetched in the next window."""

    async def main() -> None:
        options = EngineOptions(workers=4, min_free=0, linger_s=1_000.0)
        engine = Harness(ROOT, politeness=AT_ONCE, web=numbered(600), engine=options)
        engine.web.takes_s = lambda origin, task: 3.0
        closing = 60 - STARTED.second  # seconds to the end of this minute
        engine.scheduler.crawl_rate_limiter.set_hours(hours(window(0, 1), window(10, 60)))
        assert await engine.run() is StoppedBy.EMPTY
        assert len(engine.settled) == 601
        early = [each for each in engine.web.requests if each.begin < closing]
        assert 0 < len(early) < 400
        assert any(each.end > closing for each in early)
        opening = closing + 9 * 60 - 1e-6  # seconds since 1970 are told to a quarter of a microsecond
        assert all(each.begin >= opening for each in engine.web.requests if each not in early)
        assert len({each.url for each in engine.web.requests}) == len(engine.web.requests)

    run(main())


def test_bandwidth_holds_for_many_small_pages() -> None:
    """Each is read in one piece, so it is the next request that waits: 1,000 pages of 1 kB at 10 kB/s."""

    async def main() -> None:
        engine = Harness(ROOT, politeness=AT_ONCE, web=numbered(1_000))
        engine.bandwidth.limit(10_000, None)

        def before(origin: Any, task: Any) -> None:
            engine.bandwidth.spend(origin.host, 1_000, engine.clock.mono())

        engine.web.before = before
        assert await engine.run() is StoppedBy.EMPTY
        assert len(engine.settled) == 1_001
        assert 98 <= engine.clock.mono() <= 110

    run(main())


def test_one_host_at_its_limit_does_not_hold_up_the_others() -> None:
    """The one takes ten times as long."""

    async def main() -> None:
        other = "https://b.test/"
        web = numbered(100) | {other: response(200, page(*(f"/{n}" for n in range(100))))}
        engine = Harness(ROOT, other, politeness=AT_ONCE, web=web)
        engine.bandwidth.limit(None, 10_000)

        def before(origin: Any, task: Any) -> None:
            engine.bandwidth.spend(origin.host, 10_000 if origin.host == "a.test" else 100, engine.clock.mono())

        engine.web.before = before
        assert await engine.run() is StoppedBy.EMPTY
        ends = {host: max(e.end for e in engine.web.requests if e.origin.host == host) for host in ("a.test", "b.test")}
        assert ends["a.test"] >= 95
        assert ends["b.test"] <= 10

    run(main())
