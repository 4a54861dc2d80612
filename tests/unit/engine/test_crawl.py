"""A crawl's end: why it ends, that it ends, and that nothing it fetched is lost on the way."""

import asyncio
import errno
from dataclasses import replace
from typing import Any

import pytest

from crawler.core.enums import StoppedBy, TaskKind
from crawler.core.models import Origin, Task
from crawler.core.options import ScopeOptions
from crawler.engine.committer import LAST_ATTEMPTS
from crawler.engine.options import EngineOptions
from crawler.engine.pages.response_processor import LARGE_BYTES
from crawler.frontier.sqlite.store import SqliteFrontier
from tests.support.engine import AT_ONCE, POLITE, Harness
from tests.support.memory_frontier import MemoryFrontier
from tests.support.scripted_web import page, response
from tests.support.sinks import ListSink
from tests.support.virtual_time import InThread, elapse, run

ROOT = "https://a.test/"
OPTIONS = EngineOptions(workers=4, min_free=0, linger_s=600.0, drain_s=5.0)
FULL = OSError(errno.ENOSPC, "No space left on device")


def numbered(count: int) -> bytes:
    return page(*(f"/{n}" for n in range(count)))


# -- why it ends


def test_without_seeds_it_is_empty() -> None:
    """At once."""

    async def main() -> None:
        engine = Harness()
        assert await engine.run() is StoppedBy.EMPTY
        assert engine.clock.mono() < 0.1

    run(main())


def test_it_is_empty_when_all_was_answered() -> None:
    """And it ends right then, not after the linger."""

    async def main() -> None:
        engine = Harness(ROOT, politeness=AT_ONCE, web={ROOT: response(200, numbered(50))})
        assert await engine.run() is StoppedBy.EMPTY
        assert len(engine.settled) == 51
        assert engine.clock.mono() < 3.0
        assert engine.drained_for == [StoppedBy.EMPTY]

    run(main())


@pytest.mark.parametrize("linger_s", [0.0, 0.5])
def test_a_delay_longer_than_the_linger_does_not_end_it(linger_s: float) -> None:
    """What is queued and only waits its turn is not "due later"; nor under a Crawl-delay."""

    async def main() -> None:
        engine = Harness(ROOT, "https://b.test/", engine=replace(OPTIONS, linger_s=linger_s))
        engine.web.pages = {
            ROOT: response(200, numbered(3)),
            "https://b.test/robots.txt": response(200, b"User-agent: *\nCrawl-delay: 20"),
            "https://b.test/": response(200, numbered(2)),
        }
        assert await engine.run() is StoppedBy.EMPTY
        assert len(engine.settled) == 7

    run(main())


@pytest.mark.parametrize(("linger_s", "ends"), [(50.0, StoppedBy.WAITING), (70.0, StoppedBy.EMPTY)])
def test_what_is_due_within_the_linger_is_waited_for(linger_s: float, ends: StoppedBy) -> None:
    """A rest that is longer ends it, with its URLs left for the next time."""

    async def main() -> None:
        engine = Harness(ROOT, engine=replace(OPTIONS, linger_s=linger_s))
        engine.web.pages = {ROOT: [response(503, retry_after="60"), response(200)]}
        states: set[str] = set()
        monitor = engine.monitor

        async def look() -> None:
            while not engine.drained_for:
                states.add(monitor.status().state)
                await elapse(0.7)

        async with asyncio.TaskGroup() as group:
            group.create_task(look())
            assert await engine.run() is ends
        assert ("lingering" in states) == (ends is StoppedBy.EMPTY)
        assert engine.settled == {ROOT: "waiting" if ends is StoppedBy.WAITING else "done"}

    run(main())


def test_one_host_that_rests_does_not_end_what_others_have_to_do() -> None:
    """Only when nothing else is left."""

    async def main() -> None:
        engine = Harness(ROOT, "https://b.test/", engine=replace(OPTIONS, linger_s=10.0))
        engine.web.pages = {ROOT: response(429, retry_after="3600"), "https://b.test/": response(200, numbered(30))}
        assert await engine.run() is StoppedBy.WAITING
        assert sum("b.test" in url for url in engine.settled) == 31

    run(main())


def test_max_urls_ends_it() -> None:
    """With more queued."""

    async def main() -> None:
        engine = Harness(ROOT, scope=ScopeOptions(max_urls=3), web={ROOT: response(200, numbered(9))})
        assert await engine.run() is StoppedBy.MAX_URLS
        assert engine.host("a.test").queued == 7

    run(main())


def test_a_directory_that_has_had_its_urls_gets_no_more() -> None:
    """The limit is the directory's: a second run ends at once."""

    async def main() -> None:
        store = MemoryFrontier()
        for begun in range(2):
            engine = Harness(
                ROOT, scope=ScopeOptions(max_urls=3), frontier=store, web={ROOT: response(200, numbered(9))}
            )
            assert await engine.run() is StoppedBy.MAX_URLS
            assert len(engine.web.page_urls) == (3 if begun == 0 else 0)

    run(main())


def test_max_duration_ends_it_within_the_minute() -> None:
    """What is in flight is still finished."""

    async def main() -> None:
        engine = Harness(ROOT, engine=replace(OPTIONS, max_duration_s=10.5), web={ROOT: response(200, numbered(90))})
        assert await engine.run() is StoppedBy.MAX_DURATION
        assert 10.5 <= engine.clock.mono() < 11.7
        assert len(engine.settled) == len(engine.web.page_urls)

    run(main())


def test_without_a_linger_it_never_ends() -> None:
    """The daemon waits for more; it costs next to nothing."""

    async def main() -> None:
        engine = Harness(ROOT, engine=replace(OPTIONS, linger_s=None))
        await engine.open()
        async with asyncio.TaskGroup() as group:
            running = group.create_task(engine.crawl.run())
            await elapse(3_600.0)
            assert not running.done()
            assert engine.settled == {ROOT: "done"}
            assert engine.loop.rounds < 5 * 3_600
            engine.crawl.drain(StoppedBy.SIGNAL)
        assert running.result() is StoppedBy.SIGNAL
        await engine.close()

    run(main())


# -- how it stops


def stopping(at_s: float, engine: Harness) -> Any:
    async def stop() -> None:
        await elapse(at_s)
        engine.crawl.drain()
        engine.crawl.drain(StoppedBy.MAX_DURATION)  # the first word counts

    return stop()


@pytest.mark.parametrize("politeness", [POLITE, AT_ONCE], ids=["delay", "at once"])
def test_a_stop_finishes_what_is_in_flight_and_begins_nothing(politeness: Any) -> None:
    """Every response that arrived is stored; every lease is back."""

    async def main() -> None:
        engine = Harness(*(f"https://h{n}.test/" for n in range(10)), politeness=politeness, engine=OPTIONS)
        engine.web.other = lambda origin, task: response(404 if task.kind is TaskKind.ROBOTS else 200, numbered(40))
        engine.web.takes_s = lambda origin, task: 0.3
        async with asyncio.TaskGroup() as group:
            group.create_task(stopping(7.1, engine))
            assert await engine.run() is StoppedBy.SIGNAL
        assert engine.clock.mono() < 7.5
        assert not [one for one in engine.web.requests if one.called > 7.1]
        assert sorted(engine.settled) == sorted(engine.web.page_urls)
        assert engine.scheduler.leases_out == {}
        assert engine.scheduler.url_limits.reserved == 0
        assert engine.monitor.status().state == "draining"

    run(main())


def test_a_request_that_does_not_end_is_given_up_after_the_drain() -> None:
    """Its URL is still queued in the store."""

    async def main() -> None:
        engine = Harness(ROOT, "https://b.test/", engine=OPTIONS)
        engine.web.takes_s = lambda origin, task: 900.0 if task.url == ROOT else 0.1
        async with asyncio.TaskGroup() as group:
            group.create_task(stopping(5.0, engine))
            assert await engine.run() is StoppedBy.SIGNAL
        assert engine.clock.mono() == pytest.approx(10.0, abs=0.2)
        assert engine.settled == {"https://b.test/": "done"}
        await engine.frontier.open()
        assert (engine.frontier.totals()).queued == 1

    run(main())


def test_a_page_that_is_being_read_is_waited_for() -> None:
    """It was fetched; a stop does not throw it away."""

    async def main() -> None:
        engine = Harness(ROOT, engine=OPTIONS, web={ROOT: response(200, numbered(9) + b" " * LARGE_BYTES)})

        read = engine.processor.process

        def stop_now(task: Task, outcome: Any, *, on_loop: bool = True) -> Any:
            if task.kind is TaskKind.PAGE:
                engine.loop.call_soon_threadsafe(engine.crawl.drain)
            return read(task, outcome, on_loop=on_loop)

        engine.processor.process = stop_now  # type: ignore[method-assign]
        assert await engine.run() is StoppedBy.SIGNAL
        assert engine.settled == {ROOT: "done"}

    run(main())


def test_a_disk_that_stays_full_ends_it_after_the_linger() -> None:
    """With every worker waiting to hand over: it drains within bounds, says why, and what is not stored."""

    async def main() -> None:
        sink = ListSink()
        sink.fails = lambda call: FULL if call == "write" else None
        options = replace(OPTIONS, linger_s=3.0, commit_settlements=2)
        engine = Harness(*(f"https://h{n}.test/" for n in range(40)), sinks=[sink], engine=options, politeness=AT_ONCE)
        assert await engine.run() is StoppedBy.DISK
        assert engine.clock.mono() < 3.0 + LAST_ATTEMPTS + 2.0
        assert engine.visits == []
        assert engine.committer.unstored == len(engine.web.requests)
        assert not engine.committer.is_idle

    run(main())


def test_a_stop_on_a_full_disk_ends_too() -> None:
    """With leases of many tasks whose workers wait in the middle of them."""

    async def main() -> None:
        sink = ListSink()
        engine = Harness(
            ROOT, sinks=[sink], engine=replace(OPTIONS, commit_settlements=2, linger_s=None), politeness=AT_ONCE
        )
        engine.web.pages = {ROOT: response(200, numbered(200))}
        sink.fails = lambda call: FULL if call == "write" and engine.clock.mono() > 0.5 else None
        async with asyncio.TaskGroup() as group:
            group.create_task(stopping(20.0, engine))
            assert await engine.run() is StoppedBy.SIGNAL
        assert engine.clock.mono() < 20.0 + LAST_ATTEMPTS + 1.0
        assert engine.committer.has_given_up
        assert engine.committer.unstored == len(engine.web.requests) - len(engine.visits)
        urls = [visited.settlement.task.url for visited, _, _ in engine.visits]
        assert sink.stored == urls

    run(main())


def test_a_disk_that_fills_up_during_the_drain_ends_it_soon() -> None:
    """Also while a request is in flight that takes longer; what was stored before that counts."""

    async def main() -> None:
        sink = ListSink()
        engine = Harness(
            ROOT, "https://b.test/", sinks=[sink], engine=replace(OPTIONS, drain_s=500.0), politeness=AT_ONCE
        )
        engine.web.takes_s = lambda origin, task: 400.0 if task.url == ROOT else 2.0
        engine.web.other = lambda origin, task: response(404 if task.kind is TaskKind.ROBOTS else 200, numbered(3))
        sink.fails = lambda call: FULL if call == "write" and engine.clock.mono() > 5.0 else None
        async with asyncio.TaskGroup() as group:
            group.create_task(stopping(5.0, engine))
            assert await engine.run() is StoppedBy.SIGNAL
        assert engine.clock.mono() < 5.0 + 2.0 + LAST_ATTEMPTS + 1.0
        assert "https://b.test/" in engine.settled
        assert engine.committer.unstored > 0

    run(main())


def test_a_disk_that_recovers_during_the_drain_loses_nothing() -> None:
    """What was fetched is stored, and the crawl does not look alive again."""

    async def main() -> None:
        sink = ListSink()
        engine = Harness(ROOT, sinks=[sink], engine=OPTIONS, web={ROOT: response(200, numbered(9))})
        sink.fails = lambda call: FULL if call == "write" and 3.0 < engine.clock.mono() < 9.0 else None
        async with asyncio.TaskGroup() as group:
            group.create_task(stopping(8.0, engine))
            assert await engine.run() is StoppedBy.SIGNAL
        assert [reason is None for reason in engine.disk_reasons] == [False, True]
        assert engine.monitor.status().state == "draining"
        assert sorted(engine.settled) == sorted(engine.web.page_urls)
        assert sink.stored == engine.web.urls

    run(main())


def test_ended_at_once_it_leaves_no_task_behind() -> None:
    """A second signal cancels everything, also a worker that waits for a full disk."""

    async def main() -> None:
        sink = ListSink()
        sink.fails = lambda call: FULL if call == "write" else None
        engine = Harness(
            *(f"https://h{n}.test/" for n in range(40)),
            sinks=[sink],
            engine=replace(OPTIONS, commit_settlements=1, linger_s=None),
        )
        await engine.open()
        running = asyncio.ensure_future(engine.crawl.run())
        await elapse(20.0)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        assert engine.clock.mono() < 20.1
        assert asyncio.all_tasks() == {asyncio.current_task()}
        await engine.close(clean=False)

    run(main())


def test_a_bug_ends_the_crawl() -> None:
    """Nothing is logged and gone on with."""

    async def main() -> None:
        engine = Harness(ROOT)

        def broken(origin: Origin, task: Task) -> Any:
            raise ZeroDivisionError

        engine.web.other = broken
        await engine.open()
        with pytest.raises(ExceptionGroup) as caught:
            await engine.crawl.run()
        assert caught.group_contains(ZeroDivisionError)
        await engine.close(clean=False)

    run(main())


# -- going on


@pytest.mark.parametrize("clean", [True, False])
def test_a_second_run_goes_on_where_the_first_stopped(clean: bool, tmp_path: Any) -> None:
    """Over the real store: every page once, none twice, the delay kept across the restart."""

    async def main() -> None:
        asked = []
        for stop_s in (4.5, None):
            engine = Harness(ROOT, frontier=InThread(SqliteFrontier(tmp_path / "frontier.db")))
            engine.web.pages = {ROOT: response(200, numbered(8))}
            await engine.open()
            begun = engine.clock.mono()
            async with asyncio.TaskGroup() as group:
                if stop_s is not None:
                    group.create_task(stopping(stop_s, engine))
                await engine.crawl.run()
            await engine.close(clean=clean)
            asked.append(engine.web.requests)
        first, second = asked
        assert second[0].begin - begun >= 1.0
        assert second[0].begin - first[-1].end >= 1.0
        urls = [one.url for one in (*first, *second) if one.task.kind is TaskKind.PAGE]
        assert sorted(urls) == sorted([ROOT, *(f"{ROOT}{n}" for n in range(8))])

    run(main())
