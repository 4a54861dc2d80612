"""The life of the process around a crawl: signals, the minute's progress line, the watchdog.

This is the one place that handles signals. The first SIGTERM, SIGINT or SIGHUP drains, the second ends at once. It
knows a crawl only by what it is asked here.
"""

import asyncio
import signal
from collections.abc import Awaitable, Callable
from typing import Final, Protocol

from crawler.core.vocabulary import StoppedBy
from crawler.systemd import Notifier

STATUS_S: Final = 10.0
PROGRESS_S: Final = 60.0


class Stoppable(Protocol):
    """A crawl, as the daemon sees it."""

    def stop(self, reason: StoppedBy = ...) -> None:
        """Finish what is in flight, then end."""

    async def run(self) -> StoppedBy:
        """Until it ends by itself or is stopped."""


class EndedAtOnce(Exception):
    """A second signal came: nothing more is waited for. `number` is the signal's."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.number = number


async def serve(
    crawl: Stoppable,
    *,
    notifier: Notifier,
    status: Callable[[], str],
    on_progress: Callable[[], None],
    refresh: Callable[[], Awaitable[None]],
    on_tick: Callable[[], None] | None = None,
    tick_s: float = 0.2,
    drain_s: float,
) -> StoppedBy:
    """Run a crawl to its end. `status` is one line in words for systemd, `on_progress` is called each minute, `on_tick`
    every `tick_s` for a view, `refresh` before each status. Raises EndedAtOnce.
    """
    loop = asyncio.get_running_loop()
    ended_at_once: asyncio.Future[int] = loop.create_future()
    signals_seen = 0

    def on_signal(number: int) -> None:
        nonlocal signals_seen
        signals_seen += 1
        if signals_seen == 1:
            notifier.send("STOPPING=1", f"EXTEND_TIMEOUT_USEC={int((drain_s + 10) * 1e6)}", "STATUS=draining")
            crawl.stop(StoppedBy.SIGNAL)
        elif not ended_at_once.done():
            ended_at_once.set_result(number)

    numbers = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
    for number in numbers:
        loop.add_signal_handler(number, on_signal, number)

    async def tell_status() -> None:
        await refresh()
        notifier.send(f"STATUS={status()}")

    beats: list[tuple[float, Callable[[], Awaitable[None] | None]]] = [
        (STATUS_S, tell_status),
        (PROGRESS_S, on_progress),
    ]
    if notifier.watchdog_s is not None:
        beats.append((notifier.watchdog_s / 2, lambda: notifier.send("WATCHDOG=1")))
    if on_tick is not None:
        beats.append((tick_s, on_tick))
    reason: StoppedBy | None = None
    try:
        async with asyncio.TaskGroup() as group:
            beside = [group.create_task(_every(seconds, act)) for seconds, act in beats]
            beside.append(group.create_task(_end_at_once(ended_at_once)))
            notifier.send("READY=1", f"STATUS={status()}")
            reason = await crawl.run()
            for task in beside:
                task.cancel()
    except* EndedAtOnce:
        reason = None  # raised below: CPython before 3.11.4 wraps what is raised here into another group
    finally:
        for number in numbers:
            loop.remove_signal_handler(number)
    if reason is None:
        raise EndedAtOnce(ended_at_once.result())
    return reason


async def _end_at_once(signalled: asyncio.Future[int]) -> None:
    raise EndedAtOnce(await signalled)


async def _every(seconds: float, act: Callable[[], Awaitable[None] | None]) -> None:
    while True:
        await asyncio.sleep(seconds)
        waited_for = act()
        if waited_for is not None:
            await waited_for
