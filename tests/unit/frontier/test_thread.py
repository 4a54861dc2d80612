"""The thread runs each job once, in order, also if callers are cancelled."""

import asyncio
import threading

import pytest

from crawler.frontier.sqlite.database import OneThread


def has_ended(thread: OneThread) -> bool:
    [worker] = thread._executor._threads
    worker.join(10)
    return not worker.is_alive()


async def test_jobs_run_in_order_in_a_thread_of_their_own() -> None:
    """A connection belongs to that thread."""
    thread = OneThread("test")
    order: list[tuple[int, int]] = []
    await asyncio.gather(*(thread.run(lambda n=n: order.append((n, threading.get_ident()))) for n in range(50)))
    assert [n for n, _ in order] == list(range(50))
    idents = {ident for _, ident in order}
    assert len(idents) == 1
    assert threading.get_ident() not in idents
    assert await thread.finish(lambda: "last") == "last"


@pytest.mark.parametrize("error", [ValueError("no"), KeyboardInterrupt(), SystemExit(3)])
async def test_an_error_of_a_job_reaches_its_caller(error: BaseException) -> None:
    """Even SystemExit; the thread goes on."""
    thread = OneThread("test")

    def fail() -> None:
        raise error

    # Not raised through a task: asyncio lets these two through to its caller.
    future = thread._submit(fail)
    while not future.done():
        await thread.run(lambda: None)
    assert future.exception() is error
    assert await thread.finish(lambda: 1) == 1


async def test_a_cancelled_caller_leaves_its_job_and_the_others_alone() -> None:
    """The job runs to its end, and so does the next one."""
    thread = OneThread("test")
    started, go = threading.Event(), threading.Event()
    done: list[str] = []

    def slow() -> None:
        started.set()
        assert go.wait(10)
        done.append("slow")

    running = asyncio.ensure_future(thread.run(slow))
    waiting = asyncio.ensure_future(thread.run(lambda: done.append("waiting")))
    await asyncio.to_thread(started.wait, 10)
    running.cancel()
    waiting.cancel()
    results = await asyncio.gather(running, waiting, return_exceptions=True)
    assert [type(result) for result in results] == [asyncio.CancelledError] * 2
    assert done == []
    go.set()
    await thread.run(lambda: done.append("later"))
    assert done == ["slow", "waiting", "later"]
    await thread.finish(lambda: None)


async def test_the_error_of_a_cancelled_job_is_dropped() -> None:
    """There is no caller to raise it to."""
    thread = OneThread("test")
    go = threading.Event()

    def fail() -> None:
        assert go.wait(10)
        raise ValueError

    task = asyncio.ensure_future(thread.run(fail))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    go.set()
    assert await thread.run(lambda: 5) == 5
    await thread.finish(lambda: None)


async def test_the_thread_ends_with_its_last_job_even_if_that_is_cancelled() -> None:
    """Otherwise the interpreter could not exit."""
    thread = OneThread("test")
    go = threading.Event()
    finishing = asyncio.ensure_future(thread.finish(lambda: go.wait(10)))
    await asyncio.sleep(0)
    finishing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await finishing
    go.set()
    assert await asyncio.to_thread(has_ended, thread)
    with pytest.raises(RuntimeError):
        await thread.run(lambda: None)


def test_a_closed_loop_does_not_stop_the_thread() -> None:
    """The result is dropped; the next loop is served."""
    thread = OneThread("test")
    go = threading.Event()

    async def leave() -> None:
        thread._submit(lambda: go.wait(10))

    asyncio.run(leave())
    go.set()

    async def finish() -> int:
        return await thread.finish(lambda: 7)

    assert asyncio.run(finish()) == 7
    assert has_ended(thread)
