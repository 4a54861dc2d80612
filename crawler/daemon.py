"""The life of the process around a crawl, or around several: signals, the watchdog, regular calls, and what systemd
hears of it.

No other module handles signals. The first SIGTERM or SIGINT drains, the second ends at once; SIGHUP reloads
where there is a configuration to read again, and drains where there is none. It calls `run` and `drain` of a crawl
and nothing else. Without systemd (no NOTIFY_SOCKET) nothing is sent.
"""

import asyncio
import os
import signal
import socket
import threading
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from contextlib import suppress
from typing import Any, Final, Protocol

from crawler.core.enums import StoppedBy


class Notifier:
    """Sends states to systemd's socket, if the environment names one.

    Never raises: a manager that does not listen is no reason to stop crawling.
    """

    def __init__(self, environ: Mapping[str, str]) -> None:
        address = environ.get("NOTIFY_SOCKET", "")
        # "@" marks the abstract namespace (sd_notify(3)); anything else but a path is ignored
        self._address = "\0" + address[1:] if address.startswith("@") else address
        if not address.startswith(("/", "@")):
            self._address = ""
        usec = environ.get("WATCHDOG_USEC", "")
        is_ours = environ.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
        usec_is_set = usec.isascii() and usec.isdigit() and int(usec) > 0  # 0 would mean a message without pause
        self.watchdog_s = int(usec) / 1e6 if usec_is_set and is_ours else None

    def send(self, *states: str) -> None:
        """Lines such as "READY=1" or "STATUS=…"."""
        if not self._address:
            return
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
                sock.setblocking(False)
                sock.sendto("\n".join(states).encode(), self._address)
        except OSError:
            return


def is_journal_stream(environ: Mapping[str, str], fd: int) -> bool:
    """Whether `fd` is the journal's own stream (systemd.exec(5), JOURNAL_STREAM: device:inode)."""
    try:
        device, _, inode = environ.get("JOURNAL_STREAM", "").partition(":")
        stat = os.fstat(fd)
        return (int(device), int(inode)) == (stat.st_dev, stat.st_ino)
    except (ValueError, OSError):
        return False


Periodic = tuple[float, Callable[[], Awaitable[None] | None]]  # the interval in seconds, and what to call

STATUS_S: Final = 5.0
PROGRESS_S: Final = 60.0
EXTEND_S: Final = 5.0  # between two requests for more time from systemd while draining …
EXTEND_BY_S: Final = 15.0  # … and the time requested: each request replaces the one before (sd_notify(3))
CLOSING_S: Final = 60.0  # for closing the output files after the last commit


class Stoppable(Protocol):
    """A crawl, as the daemon sees it."""

    def drain(self, reason: StoppedBy = ...) -> None:
        """Finish what is in flight, then end."""

    async def run(self) -> StoppedBy:
        """Run until it ends by itself or is stopped."""


class EndedAtOnce(Exception):
    """A second signal came: the process ends without waiting. `number` is that of the signal."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.number = number


class EarlyHangup:
    """The handler of SIGHUP until `serve` runs, which then reloads. Without it SIGHUP would end the process."""

    def __init__(self) -> None:
        self.received = False

    def __call__(self, number: int, frame: object) -> None:
        self.received = True


def defer_hangups() -> None:
    """Keep SIGHUP from ending the process: one may be sent before the daemon has started."""
    signal.signal(signal.SIGHUP, EarlyHangup())


def end_with_stdin() -> None:
    """Drain when stdin ends: that of an agent is a pipe, which closes when its parent has ended, however that was."""

    def wait() -> None:
        with suppress(OSError):
            while os.read(0, 4096):
                pass
        terminate()

    threading.Thread(target=wait, name="end-with-stdin", daemon=True).start()


def terminate() -> None:
    """Send ourselves SIGTERM, for the control socket: a crawl is ended from outside by signals only."""
    os.kill(os.getpid(), signal.SIGTERM)


async def serve(
    crawl: Stoppable,
    *,
    notifier: Notifier,
    status: Callable[[], str],
    drain_s: float,
    services: Sequence[Callable[[], Coroutine[Any, Any, None]]] = (),
    on_hangup: Callable[[], Awaitable[None]] | None = None,
    is_alive: Callable[[], bool] = lambda: True,
    periodic: Sequence[Periodic] = (),
    ready: Callable[[], Coroutine[Any, Any, None]] | None = None,
) -> StoppedBy:
    """Run a crawl to its end, and `services` and `periodic` calls beside it.

    `status` is a line for systemd. `on_hangup` is what SIGHUP does; without it, SIGHUP drains. The watchdog gets its
    messages while `is_alive` returns True. `ready` returns when the crawl is ready; without it, it is from the start.
    Raises EndedAtOnce.
    """
    loop = asyncio.get_running_loop()
    ended_at_once: asyncio.Future[int] = loop.create_future()
    stopping = asyncio.Event()
    hung_up = asyncio.Event()

    def on_signal(number: int) -> None:
        if number == signal.SIGHUP and on_hangup is not None:
            hung_up.set()
        elif not stopping.is_set():
            stopping.set()
            notifier.send("STOPPING=1", f"EXTEND_TIMEOUT_USEC={_usec(drain_s + EXTEND_BY_S)}", "STATUS=draining")
            crawl.drain(StoppedBy.SIGNAL)
        elif not ended_at_once.done():
            ended_at_once.set_result(number)

    def send_status() -> None:
        notifier.send(f"STATUS={status()}")

    def feed_watchdog() -> None:
        if is_alive():
            notifier.send("WATCHDOG=1")

    def send_ready() -> None:
        notifier.send("READY=1", f"STATUS={status()}")

    async def wait_for(ready: Callable[[], Coroutine[Any, Any, None]]) -> None:
        await ready()
        if not stopping.is_set():
            send_ready()

    async def extend_while_draining() -> None:
        await stopping.wait()
        await _every(EXTEND_S, lambda: notifier.send(f"EXTEND_TIMEOUT_USEC={_usec(EXTEND_BY_S)}"))

    async def handle_hangups() -> None:
        assert on_hangup is not None
        while True:
            await hung_up.wait()
            hung_up.clear()
            await on_hangup()

    regularly: list[Periodic] = [(STATUS_S, send_status), *periodic]
    if notifier.watchdog_s is not None:
        regularly.append((notifier.watchdog_s / 2, feed_watchdog))
    background = [_every(seconds, act) for seconds, act in regularly]
    background += [_end_at_once(ended_at_once), extend_while_draining()]
    if on_hangup is not None:
        background.append(handle_hangups())
    background += [service() for service in services]

    numbers = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
    early = signal.getsignal(signal.SIGHUP)
    if isinstance(early, EarlyHangup) and early.received:
        on_signal(signal.SIGHUP)
    for number in numbers:
        loop.add_signal_handler(number, on_signal, number)
    reason: StoppedBy | None = None
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(one) for one in background]
            await asyncio.sleep(0)  # services start before READY=1 is sent
            if ready is None:
                send_ready()
            else:
                tasks.append(group.create_task(wait_for(ready)))
            reason = await crawl.run()
            for task in tasks:
                task.cancel()
    except* EndedAtOnce:
        reason = None  # raised below: CPython before 3.11.4 would wrap it into another group here
    finally:
        for number in numbers:
            loop.remove_signal_handler(number)
    if reason is None:
        raise EndedAtOnce(ended_at_once.result())
    if stopping.is_set():
        notifier.send(f"EXTEND_TIMEOUT_USEC={_usec(CLOSING_S)}", "STATUS=closing the output files")
    return reason


def _usec(seconds: float) -> int:
    return int(seconds * 1e6)


async def _end_at_once(signalled: asyncio.Future[int]) -> None:
    raise EndedAtOnce(await signalled)


async def _every(seconds: float, act: Callable[[], Awaitable[None] | None]) -> None:
    while True:
        await asyncio.sleep(seconds)
        result = act()
        if result is not None:
            await result
