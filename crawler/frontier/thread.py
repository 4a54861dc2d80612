"""One thread that does blocking work in order, for an event loop that must not block.

A database connection lives in such a thread: every job runs there, one after the other, so the connection needs no lock
and a transaction cannot be interleaved. The thread knows nothing of databases.

Invariant: a job handed in is run to its end exactly once, whatever becomes of the task that awaits it. Cancelling the
await gives up the result, not the work.
"""

import asyncio
import contextlib
from collections.abc import Callable
from queue import SimpleQueue
from threading import Thread
from typing import Any, TypeVar

T = TypeVar("T")
_Job = tuple[Callable[[], Any], asyncio.AbstractEventLoop, "asyncio.Future[Any]", bool]


class OneThread:
    """Runs at once. It is no daemon thread: a transaction is never cut off by the interpreter's exit, so the owner must
    end it with `finish`.
    """

    def __init__(self, name: str) -> None:
        self._jobs: SimpleQueue[_Job] = SimpleQueue()
        self._finished = False
        self._thread = Thread(target=self._work, name=name, daemon=False)
        self._thread.start()

    @property
    def is_alive(self) -> bool:
        return self._thread.is_alive()

    async def run(self, job: Callable[[], T]) -> T:
        """Run `job` in the thread, after the jobs before it; returns or raises what it does."""
        return await self._submit(job, last=False)

    async def finish(self, job: Callable[[], T]) -> T:
        """Run `job` as the last one, then end the thread: it ends even if this await is cancelled."""
        result = await self._submit(job, last=True)
        self._thread.join()  # it delivered its last result as its last act: this waits for microseconds
        return result

    def _submit(self, job: Callable[[], T], *, last: bool) -> "asyncio.Future[T]":
        if self._finished:
            raise RuntimeError("the thread has finished")
        self._finished = last
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()
        self._jobs.put((job, loop, future, last))
        return future

    def _work(self) -> None:
        last = False
        while not last:
            job, loop, future, last = self._jobs.get()
            result, error = None, None
            try:
                result = job()
            except BaseException as raised:  # whatever it is, it is the awaiting task's
                error = raised
            # A closed loop has nobody left who waits.
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(_deliver, future, result, error)
            del job, loop, future, result, error  # hold nothing of it while waiting for the next


def _deliver(future: "asyncio.Future[Any]", result: Any, error: BaseException | None) -> None:
    if future.done():  # cancelled
        return
    if error is not None:
        future.set_exception(error)
    else:
        future.set_result(result)
