"""An event loop whose time is ours: where it would wait for a timer, time jumps to that timer.

`run` drives a coroutine on that loop. Nothing here sleeps for real: hours of politeness take milliseconds. A test that
waits for something that cannot happen (a lost wake-up) fails with `Stalled` instead of hanging.
"""

import asyncio
import selectors
from collections.abc import Awaitable, Callable, Coroutine
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from typing import Any, TypeVar

from crawler.frontier.base import Frontier

T = TypeVar("T")
EPOCH = 1_700_000_000.0


class Stalled(Exception):
    """The test waits for ever: nothing is due and no thread is at work, or the loop goes round without time passing."""


_MAX_ROUNDS = 20_000  # of the loop at one instant
_ROUND_S = 1e-9  # time never stands quite still, or a timer that is due this very instant would never be past
_THREAD_S = 20.0  # real seconds that a thread may take


class _JumpingSelector(selectors.DefaultSelector):
    """Real for what comes from threads and signals; where the loop would wait for a timer, time jumps."""

    def __init__(self) -> None:
        super().__init__()
        self.time = 0.0
        self.rounds = 0
        self.calls_in_threads = 0
        self._rounds_now = 0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        self.rounds += 1
        self.time += _ROUND_S
        self._rounds_now += 1
        if self._rounds_now > _MAX_ROUNDS:
            self._rounds_now = 0
            raise Stalled(f"the loop went round {_MAX_ROUNDS} times at {self.time}")
        ready = super().select(0)
        if ready or timeout == 0:
            return ready
        if self.calls_in_threads:  # a thread's result is due at this very instant: wait for it, not for the timer
            ready = super().select(_THREAD_S)
            if not ready:
                raise Stalled(f"a thread took longer than {_THREAD_S} s")
            return ready
        if timeout is None:
            raise Stalled("nothing is due, and nothing can happen any more")
        self.time += timeout
        self._rounds_now = 0
        return ready


class VirtualLoop(asyncio.SelectorEventLoop):
    """A loop on which time passes only where nothing else is left to do. `clock_skew` is what the wall clock was set
    forward by, in seconds.

    Invariant: what runs on it runs in the same order each time. A job for a thread is run to its end before anything
    else happens, and its result is there in the next round of the loop, however busy the machine is.
    """

    def __init__(self) -> None:
        self._jumping = _JumpingSelector()
        super().__init__(self._jumping)
        self._clock_resolution = 0.0
        self._worker = ThreadPoolExecutor(max_workers=1)
        self.clock_skew = 0.0

    def time(self) -> float:
        return self._jumping.time

    @property
    def rounds(self) -> int:
        """How often the loop went round."""
        return self._jumping.rounds

    def run_in_executor(  # type: ignore[override]
        self, executor: Executor | None, func: Callable[..., Any], *args: Any
    ) -> "asyncio.Future[Any]":
        job = (executor or self._worker).submit(func, *args)
        job.exception(_THREAD_S)
        future = self.create_future()
        self.call_soon(_copy_result, job, future)
        return future

    async def in_thread(self, call: Awaitable[T]) -> T:
        """Await what a thread started by somebody else completes; time stands still meanwhile."""
        self._jumping.calls_in_threads += 1
        try:
            return await call
        finally:
            self._jumping.calls_in_threads -= 1

    def close(self) -> None:
        super().close()
        self._worker.shutdown()


def _copy_result(job: "Future[Any]", future: "asyncio.Future[Any]") -> None:
    if future.cancelled():
        return
    if (error := job.exception()) is not None:
        future.set_exception(error)
    else:
        future.set_result(job.result())


class LoopClock:
    """The crawler's clock on a `VirtualLoop`."""

    def __init__(self, loop: VirtualLoop) -> None:
        self.mono = loop.time
        self._loop = loop

    def now(self) -> float:
        return EPOCH + self._loop.time() + self._loop.clock_skew


def run(main: Coroutine[Any, Any, T]) -> T:
    """Run to the end on a `VirtualLoop`. Raises Stalled."""
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(main)


def virtual_loop() -> VirtualLoop:
    loop = asyncio.get_running_loop()
    assert isinstance(loop, VirtualLoop)
    return loop


async def elapse(seconds: float) -> None:
    """Let so much of the loop's own time pass: on a `VirtualLoop` that takes none, and nothing depends on how fast the
    machine is.
    """
    virtual_loop()
    await asyncio.sleep(seconds)


class InThread:
    """Makes a frontier with a thread of its own usable on a `VirtualLoop`."""

    def __init__(self, frontier: Frontier) -> None:
        self._frontier = frontier

    def __getattr__(self, name: str) -> Callable[..., Awaitable[Any]]:
        method = getattr(self._frontier, name)
        if name == "agents":
            return None
        if name in ("take_counts", "totals"):  # they do not wait
            return method  # type: ignore[no-any-return]
        return lambda *args, **kwargs: virtual_loop().in_thread(method(*args, **kwargs))
