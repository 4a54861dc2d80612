"""The committer: when it commits, in which order, and that a full disk loses and doubles nothing."""

import asyncio
import errno
from collections.abc import Callable
from dataclasses import replace
from typing import Any
from unittest.mock import patch

import pytest

from crawler.core.enums import SinkFileState, TaskKind, UrlState
from crawler.core.models import Counters, Lease, Record, RecordLocation, Settlement, SinkFile, Task
from crawler.engine.committer import LAST_ATTEMPTS, RETRY_S
from crawler.engine.observer import Visited
from crawler.engine.options import EngineOptions
from crawler.frontier.base import Batch, FrontierFull, Receipt
from tests.support.engine import Harness
from tests.support.memory_frontier import MemoryFrontier
from tests.support.scripted_web import response
from tests.support.sinks import ListSink
from tests.support.virtual_time import elapse, run

OPTIONS = EngineOptions(workers=4, min_free=0, commit_settlements=10, commit_bytes=10_000, commit_interval_s=0.2)
FULL = OSError(errno.ENOSPC, "No space left on device")


class Store(MemoryFrontier):
    """Notes each transaction; `fails` is raised by the next ones. `calls` is shared with the sinks."""

    def __init__(self, calls: list[str]) -> None:
        super().__init__()
        self.calls = calls
        self.batches: list[Batch] = []
        self.fails: Callable[[], BaseException | None] = lambda: None
        self.takes_s = 0.0

    async def settle(self, batch: Batch) -> Receipt:
        self.calls.append("settle")
        error = self.fails()
        if error is not None:
            raise error
        await elapse(self.takes_s)
        receipt = await super().settle(batch)
        self.batches.append(batch)
        return receipt


class Case:
    """A committer whose loop runs, with one host of as many queued URLs as a test hands over."""

    def __init__(
        self, options: EngineOptions = OPTIONS, *, urls: int = 200, full_at: int = 1_000_000, sinks: int = 2
    ) -> None:
        self.sinks = [ListSink(name, full_at=full_at) for name in ("warc", "pages")[:sinks]]
        calls = self.sinks[0].calls if sinks else []
        for sink in self.sinks[1:]:
            sink.calls = calls
        self.calls = calls
        self.store = Store(calls)
        self.engine = Harness(
            *(f"https://a.test/{n}" for n in range(urls)), sinks=self.sinks, frontier=self.store, engine=options
        )
        self.committer = self.engine.committer
        self.tasks: list[Task] = []
        self.next = 0

    async def start(self, group: asyncio.TaskGroup) -> None:
        await self.engine.open()
        self.tasks = await self.store.take(1, 1_000, leased=())
        self.engine.host("a.test").leased.update(task.id for task in self.tasks)
        self.engine.scheduler.url_limits.reserved = self.engine.host("a.test").reserved = len(self.tasks)
        self.calls.clear()
        self.running = group.create_task(self.committer.run())
        # one that has work is out, so that nobody is hungry
        self.engine.scheduler.leases_out[0] = Lease(0, self.engine.host("a.test").origin, 1, ())
        self.engine.host("a.test").queued += 1

    def be_hungry(self) -> None:
        self.engine.scheduler.leases_out.clear()

    def visit(self, size: int = 10, **more: Any) -> Visited:
        task = self.tasks[self.next]
        self.next += 1
        fetched = response(200, b"x" * size)
        record = Record(task, fetched, "sha256:x")
        settlement = Settlement(task, 1, fetched, UrlState.DONE, record=record, **more)
        return Visited(settlement, Lease(1, self.engine.host("a.test").origin, 1, (task,)), 0.0, 0.0)

    async def put(self, count: int, **more: Any) -> None:
        for _ in range(count):
            await self.committer.put(self.visit(**more))

    @property
    def sizes(self) -> list[int]:
        return [len(batch.settlements) for batch in self.store.batches]


def with_case(test: Callable[[Case], Any], *args: Any, **options: Any) -> None:
    """Run a test beside a committer, and end that afterwards."""

    async def main() -> None:
        case = Case(*args, **options)
        async with asyncio.TaskGroup() as group:
            await case.start(group)
            await test(case)
            case.committer.finish()
        await case.committer.close()
        assert case.committer.is_idle

    run(main())


# -- when


def test_a_batch_is_stored_when_it_is_old_enough() -> None:
    """Few visits wait for `commit_interval_s`, not longer."""

    async def test(case: Case) -> None:
        await case.put(3)
        await elapse(0.19)
        assert case.sizes == []
        await elapse(0.02)
        assert case.sizes == [3]

    with_case(test)


@pytest.mark.parametrize(("count", "size"), [(10, 10), (1, 20_000)], ids=["count", "bytes"])
def test_a_batch_is_stored_at_once_when_it_is_large_enough(count: int, size: int) -> None:
    """By number, or by what it holds."""

    async def test(case: Case) -> None:
        await case.put(count, size=size)
        await elapse(0.001)
        assert case.sizes == [count]

    with_case(test)


def test_a_batch_is_stored_at_once_when_workers_are_hungry() -> None:
    """The URLs it found are their next work; also when hunger comes after the visit."""

    async def test(case: Case) -> None:
        await case.put(1)
        case.be_hungry()
        case.committer.request_commit()
        await elapse(0.001)
        assert case.sizes == [1]
        await case.put(1)
        await elapse(0.001)
        assert case.sizes == [1, 1]

    with_case(test)


def test_a_nudge_without_hunger_waits_unless_it_says_now() -> None:
    """A 429 is stored at once."""

    async def test(case: Case) -> None:
        await case.put(1)
        case.committer.request_commit()
        await elapse(0.001)
        assert case.sizes == []
        case.committer.request_commit(now=True)
        await elapse(0.001)
        assert case.sizes == [1]

    with_case(test)


def test_what_comes_during_a_commit_is_the_next_batch() -> None:
    """Nothing is added to a batch that is on its way."""

    async def test(case: Case) -> None:
        case.store.takes_s = 1.0
        await case.put(10)
        await elapse(0.5)
        await case.put(4)
        await elapse(3.0)
        assert case.sizes == [10, 4]

    with_case(test)


# -- in which order


def test_sinks_then_store_then_renames_then_log() -> None:
    """Each sink written, then each synced, before the store knows; all hear of the commit after it."""

    async def test(case: Case) -> None:
        with patch.object(case.engine, "stored", lambda *_: case.calls.append("line")):
            await case.put(10)
            await elapse(0.1)
        assert case.calls[:5] == ["write", "write", "sync", "sync", "settle"]
        assert sorted(case.calls[5:]) == ["line"] * 10 + ["settled"] * 2

    with_case(test)


def test_the_log_is_told_where_the_warc_holds_each_visit() -> None:
    """By the first sink's places, in order; a visit without a record has none."""

    async def test(case: Case) -> None:
        visits = [case.visit(), case.visit(), case.visit()]
        visits[1] = replace(visits[1], settlement=replace(visits[1].settlement, record=None))
        for visited in visits:
            await case.committer.put(visited)
        await elapse(0.3)
        assert [place for _, _, place in case.engine.visits] == [
            RecordLocation("0.warc", 0),
            None,
            RecordLocation("0.warc", 1),
        ]

    with_case(test)


def test_a_closed_file_is_told_to_the_store_with_the_next_commit() -> None:
    """And to the log at once."""

    async def test(case: Case) -> None:
        await case.put(10)
        await elapse(0.1)
        assert [file.state for file in case.engine.closed] == [SinkFileState.CLOSED] * 2
        await case.put(10)
        await elapse(0.1)
        first, second = case.store.batches
        assert not [file for file in first.sink_files if file.state is SinkFileState.CLOSED]
        assert [file.name for file in second.sink_files if file.state is SinkFileState.CLOSED] == ["0.warc", "0.pages"]

    with_case(test, full_at=10)


def test_rests_and_counters_go_with_the_batch() -> None:
    """What the books learnt is stored with the visits that taught it."""

    async def test(case: Case) -> None:
        lease = Lease(1, case.engine.host("a.test").origin, 1, ())
        case.engine.host_table.throttled(lease, 429, 60.0)
        case.committer.add_scope_host("new.test")
        await case.put(10)
        await elapse(0.1)
        [batch] = case.store.batches
        assert [rest.key for rest in batch.backoffs] == ["a.test"]
        assert batch.scope_hosts == ["new.test"]
        assert batch.counters is not None
        assert (batch.counters.urls_fetched, batch.counters.pages) == (10, 10)
        assert case.engine.counters.life == batch.counters

    with_case(test)


# -- a disk that fails


@pytest.mark.parametrize("at", ["write", "sync", "store", "reset too"])
def test_a_full_disk_is_waited_for_and_nothing_is_lost_or_doubled(at: str) -> None:
    """The sinks are cut back, the crawl pauses, and the same batch is tried again, whole."""

    async def test(case: Case) -> None:
        full = True
        warc, pages = case.sinks
        if at == "store":
            case.store.fails = lambda: FrontierFull("no room") if full else None
        else:
            names = ("sync", "reset") if at == "reset too" else (at,)
            pages.fails = lambda call: FULL if full and call in names else None
        await case.put(10)
        await elapse(0.5)
        assert case.engine.scheduler.paused
        assert case.engine.monitor.status().state == "paused"
        assert [reason is not None for reason in case.engine.disk_reasons] == [True]
        await case.put(5)
        await elapse(5.0)
        assert case.engine.visits == []
        full = False
        await elapse(2.0)
        assert case.sizes == [10, 5]
        assert not case.engine.scheduler.paused
        assert [reason is not None for reason in case.engine.disk_reasons] == [True, False]
        urls = [task.url for task in case.tasks[:15]]
        assert warc.stored == pages.stored == urls
        assert [visited.settlement.task.url for visited, _, _ in case.engine.visits] == urls
        assert case.engine.counters.life.urls_fetched == 15
        assert 4 <= case.calls.count("reset") // 2 <= 8

    with_case(test)


def test_what_cannot_be_renamed_is_not_undone() -> None:
    """The commit stands; the other sink hears of it all the same."""

    async def test(case: Case) -> None:
        case.sinks[0].fails = lambda call: FULL if call == "settled" else None
        await case.put(10)
        await elapse(0.1)
        assert case.sinks[1].stored == [task.url for task in case.tasks[:10]]
        assert len(case.engine.visits) == 10
        assert case.engine.disk_reasons == []

    with_case(test)


def test_below_min_free_nothing_is_written() -> None:
    """The reason names both numbers; more room lets it go on."""

    async def test(case: Case) -> None:
        case.committer._options = replace(OPTIONS, min_free=1 << 62)
        await case.put(10)
        await elapse(3.0)
        assert case.calls == []
        assert "output.min_free" in str(case.engine.disk_reasons[0])
        case.committer._options = OPTIONS
        await elapse(1.5)
        assert case.sizes == [10]
        assert case.engine.disk_reasons[-1] is None

    with_case(test)


def test_an_output_folder_that_is_gone_is_a_disk_that_fails() -> None:
    """Not a bug: it may come back."""

    async def test(case: Case) -> None:
        there, case.committer._output = case.committer._output, case.committer._output / "gone"
        await case.put(10)
        await elapse(3.0)
        assert case.sizes == []
        case.committer._output = there
        await elapse(1.5)
        assert case.sizes == [10]

    with_case(test)


def test_who_hands_over_waits_while_too_much_is_uncommitted() -> None:
    """Four commits' worth; then the next waits until a commit is done."""

    async def test(case: Case) -> None:
        case.sinks[0].fails = lambda call: FULL if call == "write" else None
        await case.put(10)  # this batch is on its way
        await elapse(0.1)
        await case.put(41)
        waiting = asyncio.ensure_future(case.put(1))
        await elapse(10.0)
        assert not waiting.done()
        assert case.committer.uncommitted == 41
        case.sinks[0].fails = lambda call: None
        await elapse(2.0)
        assert waiting.done()
        await elapse(1.0)
        assert sum(case.sizes) == 52

    with_case(test)


def test_memory_bounds_what_is_uncommitted() -> None:
    """A quarter of `engine.memory`, and the batch that is being stored counts."""

    async def test(case: Case) -> None:
        case.sinks[0].fails = lambda call: FULL if call == "write" else None
        await case.put(1, size=50_000)
        await elapse(0.3)
        await case.put(2, size=50_000)
        waiting = asyncio.ensure_future(case.put(1))
        await elapse(1.0)
        assert not waiting.done()
        case.sinks[0].fails = lambda call: None
        await waiting

    with_case(test, replace(OPTIONS, memory=500_000))


def test_cancelled_in_the_middle_it_does_not_call_itself_idle() -> None:
    """What was not stored is still counted: the store is then not closed as clean."""

    async def main() -> None:
        case = Case()
        case.sinks[0].fails = lambda call: FULL if call == "write" else None
        async with asyncio.TaskGroup() as group:
            await case.start(group)
            await case.put(10)
            await elapse(1.0)
            case.committer.finish()
            await elapse(10.0)
            case.running.cancel()
        assert not case.committer.is_idle
        assert case.committer.uncommitted == 10
        await case.committer.close()

    run(main())


def test_a_crawl_that_is_to_end_tries_a_commit_only_so_often() -> None:
    """What failed before that does not count; a commit that succeeds starts the count anew."""

    async def main() -> None:
        case = Case()
        full = True
        case.sinks[0].fails = lambda call: FULL if full and call == "write" else None
        given_up: list[float] = []
        async with asyncio.TaskGroup() as group:
            await case.start(group)
            case.running.add_done_callback(lambda _: given_up.append(case.engine.clock.mono()))
            await case.put(10)
            await elapse(20.5)
            case.committer.limit_attempts()
            await elapse(LAST_ATTEMPTS - 1.0)
            full = False
            await elapse(1.0)
            assert case.sizes == [10]
            full = True
            case.calls.clear()
            at = case.engine.clock.mono()
            await case.put(10)
            await case.running
        assert case.calls.count("write") == LAST_ATTEMPTS
        assert [when - at for when in given_up] == [pytest.approx((LAST_ATTEMPTS - 1) * RETRY_S, abs=0.3)]
        assert case.committer.has_given_up
        assert (case.committer.unstored, case.committer.is_idle) == (10, False)
        await case.committer.close()

    run(main())


def test_a_file_that_a_start_completes_is_told_as_closed() -> None:
    """Who uploads what `file_closed` names would miss it otherwise."""

    async def main() -> None:
        case = Case(sinks=1)
        closed = SinkFile("warc", "w", SinkFileState.CLOSED, 7)
        case.sinks[0].open = lambda known, *, is_restored=False: [closed]  # type: ignore[method-assign]
        await case.engine.open()
        assert case.engine.closed == [closed]
        await case.engine.close()

    run(main())


def test_closing_on_a_full_disk_leaves_the_rest_to_the_next_start() -> None:
    """The sinks are closed, no error comes out, and the thread ends."""

    async def main() -> None:
        case = Case()
        async with asyncio.TaskGroup() as group:
            await case.start(group)
            await case.put(10)
            case.committer.finish()
        case.sinks[0].fails = lambda call: FULL if call == "close" else None
        await case.committer.close()
        assert case.calls.count("close") == 2
        assert [file.sink for file in case.engine.closed] == ["pages"]

    run(main())


def test_counters_begin_where_the_store_left_them() -> None:
    """They are those of the directory, not of the run."""

    async def test(case: Case) -> None:
        case.engine.counters.life = Counters(urls_fetched=100, pages=50)
        await case.put(10)
        await elapse(0.1)
        assert case.store.batches[0].counters == replace(case.engine.counters.life)
        assert case.engine.counters.life.urls_fetched == 110

    with_case(test)


def test_the_books_learn_of_a_page_only_when_it_is_stored() -> None:
    """Places and queue lengths follow the store, robots.txt changes neither."""

    async def test(case: Case) -> None:
        host = case.engine.host("a.test")
        before = host.queued
        await case.put(3)
        host.auxiliary += 1
        robots = Settlement(Task(0, "https://a.test/robots.txt", TaskKind.ROBOTS), 1, response(404), UrlState.DONE)
        await case.committer.put(Visited(robots, Lease(1, host.origin, 1, ()), 0.0, 0.0))
        assert host.queued == before
        await elapse(0.3)
        assert host.queued == 200 - 3
        assert host.fetched == 3
        assert len(host.leased) == 197

    with_case(test)


def test_without_sinks_the_store_is_enough() -> None:
    """Both outputs may be switched off."""

    async def test(case: Case) -> None:
        await case.put(10)
        await elapse(0.1)
        assert case.sizes == [10]

    with_case(test, sinks=0)
