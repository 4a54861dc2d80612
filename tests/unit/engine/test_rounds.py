"""Rounds: everything that was visited is visited once more, however often the round is interrupted."""

import asyncio
from collections import Counter
from dataclasses import replace

import pytest

from crawler.core.enums import ErrorType, StoppedBy
from crawler.core.models import FetchResult, Origin, Round, RoundCounts, Task
from crawler.core.options import ScopeOptions, ScopeRule
from crawler.engine.options import EngineOptions
from crawler.engine.rounds import begin_round
from crawler.frontier.base import Frontier
from tests.support.engine import AT_ONCE, Harness
from tests.support.memory_frontier import MemoryFrontier
from tests.support.scripted_web import failed, page, response
from tests.support.virtual_time import elapse, run

ROOT = "https://a.test/"
PAGES = [f"{ROOT}{n}" for n in range(40)]
WEB = {ROOT: response(body=page(*PAGES))} | {url: response(body=page(title=url)) for url in PAGES}
ENGINE = EngineOptions(workers=4, linger_s=10.0, min_free=0, drain_s=5.0, max_attempts=2)


@pytest.fixture(autouse=True)
def _small_slices(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("crawler.frontier.sqlite.writer.REQUEUE_SLICE", 7)


def crawled(
    web: dict[str, FetchResult],
    frontier: Frontier,
    *,
    again: bool = False,
    stop_after: int | None = None,
    scope: ScopeOptions | None = None,
    engine: EngineOptions = ENGINE,
) -> Harness:
    """A run of the crawl of ROOT; `stop_after` so many requests it is stopped."""

    async def main() -> Harness:
        harness = Harness(ROOT, politeness=AT_ONCE, frontier=frontier, web=dict(web), scope=scope, engine=engine)

        def before(_origin: Origin, _task: Task) -> None:
            if stop_after is not None and len(harness.web.requests) >= stop_after:
                harness.engine.drain()

        harness.web.before = before
        recovered = await frontier.open()
        last = recovered.last_round
        if again:
            last = await begin_round(frontier, last, now=harness.clock.now())
        await harness.engine.open(recovered)
        harness.engine.rounds.load(last)
        harness.stopped_by = await harness.engine.run()
        await harness.engine.ending(harness.stopped_by)  # store and scheduler agree
        await harness.close()
        return harness

    return run(main())


def requested(*runs: Harness) -> Counter[str]:
    urls = Counter(each.url for one in runs for each in one.web.requests)
    urls.pop(f"{ROOT}robots.txt", None)
    return urls


def round_of(harness: Harness) -> Round:
    assert harness.engine.rounds.current is not None
    return harness.engine.rounds.current


def test_a_round_visits_everything_once_more_and_says_what_it_found() -> None:
    """Requests are conditional; what failed before is tried with all attempts; new links are followed."""
    frontier = MemoryFrontier()
    gone, changed, down, moved, tagged = PAGES[:5]
    before = WEB | {
        down: failed(ErrorType.READ_TIMEOUT),
        moved: response(301, location=ROOT),
        tagged: response(body=b"x", etag='"1"'),
    }
    first = crawled(before, frontier)
    after = before | {
        gone: response(404),
        changed: response(body=page(f"{ROOT}new")),
        f"{ROOT}new": response(body=page()),
        tagged: response(304),
    }
    second = crawled(after, frontier, again=True)
    once = Counter(dict.fromkeys([ROOT, *PAGES, f"{ROOT}new"], 1)) | Counter({down: 2})
    assert requested(second) == once
    [conditional] = [each.task for each in second.web.requests if each.url == tagged]
    assert (conditional.etag, conditional.visits) == ('"1"', 1)
    assert round_of(second).counts == RoundCounts(visited=41, unchanged=38, changed=1, gone=1, failed=1, new=1)
    assert not round_of(second).is_under_way
    assert first.engine.rounds.current is None
    assert requested(crawled(after, frontier)) == Counter()
    assert round_of(crawled(after, frontier, again=True)).number == 2


@pytest.mark.parametrize("again", [True, False])
@pytest.mark.parametrize("requests", [1, 9, 30])
def test_an_interrupted_round_goes_on_where_it_stopped(requests: int, again: bool) -> None:
    """With the same command and with a plain one; counts are those of all its runs."""
    frontier = MemoryFrontier()
    crawled(WEB, frontier)
    begun = crawled(WEB, frontier, again=True, stop_after=requests)
    assert begun.stopped_by is StoppedBy.SIGNAL
    assert round_of(begun).is_under_way
    rest = crawled(WEB, frontier, again=again)
    assert rest.stopped_by is StoppedBy.EMPTY
    assert requested(begun, rest) == Counter([ROOT, *PAGES])
    assert round_of(rest).counts == RoundCounts(visited=41, unchanged=41)
    assert (round_of(rest).number, round_of(rest).is_under_way) == (1, False)


def test_a_round_takes_in_what_was_of_another_agent_when_it_began() -> None:
    """What it queued or visited before is not visited twice."""
    frontier = MemoryFrontier()
    crawled(WEB, frontier)

    async def main() -> Harness:
        harness = Harness(ROOT, politeness=AT_ONCE, frontier=frontier, web=dict(WEB), engine=ENGINE)
        recovered = await frontier.open()
        begun = await begin_round(frontier, None, now=harness.clock.now())
        empty = replace(begun, last_id=0)  # of an agent without slots
        await frontier.put_round(empty)
        await harness.engine.open(recovered)
        harness.engine.rounds.load(empty)
        assert not harness.engine.rounds.is_queueing
        running = asyncio.create_task(harness.engine.run())
        for _ in range(2):
            await harness.engine.rounds.look_again()
            await elapse(0.05)
        await running
        await harness.close()
        return harness

    assert requested(run(main())) == Counter([ROOT, *PAGES])


def test_a_round_that_was_done_when_it_was_killed_is_over() -> None:
    """Its end was not stored any more: the same command begins another one."""
    frontier = MemoryFrontier()
    crawled(WEB, frontier)
    put_round = frontier.put_round

    async def lost(one: Round) -> None:
        if one.is_under_way:
            await put_round(one)
        else:
            frontier.put_round = put_round  # type: ignore[method-assign]

    frontier.put_round = lost  # type: ignore[method-assign]
    crawled(WEB, frontier, again=True)
    last = crawled(WEB, frontier, again=True)
    assert round_of(last).number == 2
    assert requested(last) == Counter([ROOT, *PAGES])


def test_urls_queued_before_the_round_are_visited_once_in_it() -> None:
    """An unfinished crawl: what it had visited is visited again, the rest for the first time."""
    frontier = MemoryFrontier()
    begun = crawled(WEB, frontier, stop_after=10)
    second = crawled(WEB, frontier, again=True)
    assert requested(second) == Counter([ROOT, *PAGES])
    visited = len(requested(begun))
    assert round_of(second).counts == RoundCounts(visited=visited, unchanged=visited, new=41 - visited)


def test_limits_hold_back_first_visits_and_no_others() -> None:
    frontier = MemoryFrontier()
    limited = ScopeOptions(max_urls=20)
    crawled(WEB, frontier, scope=limited)
    second = crawled(WEB, frontier, again=True, scope=limited)
    assert second.stopped_by is StoppedBy.MAX_URLS
    assert round_of(second).counts == RoundCounts(visited=20, unchanged=20)
    assert not round_of(second).is_under_way


def test_denied_and_forgotten_urls_are_left_out() -> None:
    """What another scope denies is denied, and what it allows again is visited."""
    frontier = MemoryFrontier()
    crawled(WEB, frontier, scope=ScopeOptions(exclude=(ScopeRule("/1"),)))

    async def forget() -> None:
        await frontier.open()
        await frontier.forget_url(PAGES[3], now=0.0)
        await frontier.close(clean=True)

    run(forget())
    second = crawled(WEB, frontier, again=True, scope=ScopeOptions(exclude=(ScopeRule("/2"),)))
    assert requested(second).keys() == {ROOT, *PAGES} - {PAGES[2], PAGES[3]}


def test_a_round_is_over_although_a_host_does_not_answer() -> None:
    """Else one dead host would keep all others from ever being visited again."""
    frontier = MemoryFrontier()
    other = "https://b.test/"
    web = WEB | {ROOT: response(body=page(*PAGES, other)), other: response(body=page())}
    scope = ScopeOptions(hosts=("a.test", "b.test"))
    crawled(web, frontier, scope=scope)
    for number in (1, 2):
        down = web | {other: failed(ErrorType.CONNECT_TIMEOUT)}
        second = crawled(down, frontier, again=True, scope=scope)
        assert second.stopped_by is StoppedBy.WAITING
        assert (round_of(second).number, round_of(second).is_under_way) == (number, False)
        assert requested(second).keys() >= {ROOT, *PAGES}


def test_a_daemon_goes_on_with_a_round_and_ends_it() -> None:
    frontier = MemoryFrontier()
    crawled(WEB, frontier)
    crawled(WEB, frontier, again=True, stop_after=5)

    async def main() -> Round | None:
        engine = EngineOptions(workers=4, linger_s=None, min_free=0, drain_s=5.0)
        daemon = Harness(ROOT, politeness=AT_ONCE, frontier=frontier, web=dict(WEB), engine=engine)
        await daemon.open()
        running = asyncio.ensure_future(daemon.engine.run())
        await elapse(30.0)
        daemon.engine.drain()
        await running
        await daemon.close()
        return daemon.engine.rounds.current

    current = run(main())
    assert current is not None
    assert not current.is_under_way
    assert current.counts.visited == 41
