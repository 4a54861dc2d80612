"""The life of the process around a crawl: signals, the watchdog, regular calls, and what systemd hears of it.

This is the one place that handles signals. The first SIGTERM or SIGINT drains, the second ends at once; SIGHUP reloads
where there is a configuration to read again, and drains where there is none. Of a crawl it knows `run` and `drain`
alone. Without systemd (no NOTIFY_SOCKET) nothing is sent.
"""

import asyncio
import os
import signal
import socket
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
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
EXTEND_S: Final = 5.0  # how often a drain asks the manager for more time …
EXTEND_BY_S: Final = 15.0  # … and for how much: each asking replaces the one before (sd_notify(3))
CLOSING_S: Final = 60.0  # for ending the output files, once all is stored


class Stoppable(Protocol):
    """A crawl, as the daemon sees it."""

    def drain(self, reason: StoppedBy = ...) -> None:
        """Finish what is in flight, then end."""

    async def run(self) -> StoppedBy:
        """Until it ends by itself or is stopped."""


class EndedAtOnce(Exception):
    """A second signal came: nothing more is waited for. `number` is the signal's."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.number = number


class EarlyHangup:
    """What SIGHUP does until the daemon listens to it: it is noted, where it would end the process; `serve` reloads."""

    def __init__(self) -> None:
        self.came = False

    def __call__(self, number: int, frame: object) -> None:
        self.came = True


def note_hangups() -> None:
    """Let no SIGHUP end the process from now on: whoever starts a daemon may send one before it is there."""
    signal.signal(signal.SIGHUP, EarlyHangup())


def ask_to_stop() -> None:
    """What SIGTERM does, for the control socket: signals are the one way to end a crawl from outside."""
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
) -> StoppedBy:
    """Run a crawl to its end. `status` is one line for systemd. `services` run, and what is `periodic` is called,
    until it has ended. `on_hangup` is what SIGHUP does; without it, SIGHUP drains. The watchdog is fed while `is_alive`
    says so. Raises EndedAtOnce.
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

    def tell_status() -> None:
        notifier.send(f"STATUS={status()}")

    def feed_watchdog() -> None:
        if is_alive():
            notifier.send("WATCHDOG=1")

    async def extend_while_draining() -> None:
        await stopping.wait()
        await _every(EXTEND_S, lambda: notifier.send(f"EXTEND_TIMEOUT_USEC={_usec(EXTEND_BY_S)}"))

    async def heed_hangups() -> None:
        assert on_hangup is not None
        while True:
            await hung_up.wait()
            hung_up.clear()
            await on_hangup()

    regularly: list[Periodic] = [(STATUS_S, tell_status), *periodic]
    if notifier.watchdog_s is not None:
        regularly.append((notifier.watchdog_s / 2, feed_watchdog))
    beside = [_every(seconds, act) for seconds, act in regularly]
    beside += [_end_at_once(ended_at_once), extend_while_draining()]
    if on_hangup is not None:
        beside.append(heed_hangups())
    beside += [service() for service in services]

    numbers = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
    early = signal.getsignal(signal.SIGHUP)
    if isinstance(early, EarlyHangup) and early.came:
        on_signal(signal.SIGHUP)
    for number in numbers:
        loop.add_signal_handler(number, on_signal, number)
    reason: StoppedBy | None = None
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(one) for one in beside]
            await asyncio.sleep(0)  # services take their places before anybody hears that they are there
            notifier.send("READY=1", f"STATUS={status()}")
            reason = await crawl.run()
            for task in tasks:
                task.cancel()
    except* EndedAtOnce:
        reason = None  # raised below: CPython before 3.11.4 wraps what is raised here into another group
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
        waited_for = act()
        if waited_for is not None:
            await waited_for
