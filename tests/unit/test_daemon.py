"""The life of the process: signals, regular calls, and what is sent to systemd."""

import asyncio
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from crawler.core.enums import StoppedBy
from crawler.daemon import EndedAtOnce, Notifier, defer_hangups, is_journal_stream, serve
from tests.support.virtual_time import run


@pytest.fixture(params=["path", "abstract"])
def manager(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[str, socket.socket]]:
    """NOTIFY_SOCKET and the socket behind it."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.settimeout(5)
        name = str(tmp_path / "notify") if request.param == "path" else f"@crawler-test-{os.getpid()}"
        sock.bind("\0" + name[1:] if name.startswith("@") else name)
        yield name, sock


def test_states_go_out_as_one_datagram(manager: tuple[str, socket.socket]) -> None:
    """A line each."""
    name, sock = manager
    Notifier({"NOTIFY_SOCKET": name}).send("READY=1", "STATUS=crawling: 3 pages")
    assert sock.recv(4096) == b"READY=1\nSTATUS=crawling: 3 pages"


@pytest.mark.parametrize(
    "address", ["", "vsock:2:1234", "relative/path", "/nonexistent/notify", "@nobody-listens-here"]
)
def test_without_a_listener_nothing_happens(address: str) -> None:
    """No reason to stop crawling."""
    before = len(list(Path("/proc/self/fd").iterdir()))
    for environ in ({"NOTIFY_SOCKET": address}, {}):
        notifier = Notifier(environ)
        notifier.send("READY=1")
        assert notifier.watchdog_s is None
    assert len(list(Path("/proc/self/fd").iterdir())) == before  # no socket is left behind


def test_a_manager_that_does_not_read_is_not_waited_for(manager: tuple[str, socket.socket]) -> None:
    """Its queue fills, and what does not fit is dropped."""
    name, sock = manager
    notifier = Notifier({"NOTIFY_SOCKET": name})
    for n in range(2_000):
        notifier.send(f"STATUS={n}")
    assert sock.recv(4096) == b"STATUS=0"


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({}, None),
        ({"WATCHDOG_USEC": "30000000"}, 30.0),
        ({"WATCHDOG_USEC": "500000", "WATCHDOG_PID": str(os.getpid())}, 0.5),
        ({"WATCHDOG_USEC": "500000", "WATCHDOG_PID": "1"}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "-5"}, None),
        ({"WATCHDOG_USEC": "²"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
    ],
)
def test_the_watchdog_is_ours_or_none(environ: dict[str, str], expected: float | None) -> None:
    """sd_watchdog_enabled(3): for this process, and a time above 0."""
    assert Notifier(environ).watchdog_s == expected


def test_the_journals_stream_is_known_by_device_and_inode(tmp_path: Path) -> None:
    """systemd.exec(5); a redirected stderr is not the journal's."""
    with (tmp_path / "stream").open("w") as stream, (tmp_path / "other").open("w") as other:
        stat = os.fstat(stream.fileno())
        environ = {"JOURNAL_STREAM": f"{stat.st_dev}:{stat.st_ino}"}
        assert is_journal_stream(environ, stream.fileno())
        assert not is_journal_stream(environ, other.fileno())


@pytest.mark.parametrize("value", ["", "8", ":", "8:", "a:b", "8:9:10"])
def test_a_malformed_journal_stream_is_none(value: str) -> None:
    """Nor is a descriptor that is closed."""
    assert not is_journal_stream({"JOURNAL_STREAM": value}, 2)
    assert not is_journal_stream({"JOURNAL_STREAM": "8:9"}, 1_000_000)


class FakeCrawl:
    """Runs `lasts_s`, and `drains_s` more once it is stopped."""

    def __init__(self, *, lasts_s: float = 1e9, drains_s: float = 1.0) -> None:
        self.lasts_s = lasts_s
        self.drains_s = drains_s
        self.stops: list[StoppedBy] = []
        self.cancelled = False
        self.stopped = asyncio.Event()

    def drain(self, reason: StoppedBy = StoppedBy.SIGNAL) -> None:
        self.stops.append(reason)
        self.stopped.set()

    async def run(self) -> StoppedBy:
        try:
            try:
                async with asyncio.timeout(self.lasts_s):
                    await self.stopped.wait()
            except TimeoutError:
                return StoppedBy.EMPTY
            await asyncio.sleep(self.drains_s)
            return self.stops[0]
        except asyncio.CancelledError:
            self.cancelled = True
            raise


class Heard(Notifier):
    """A notifier that keeps what it is told, with the time of it."""

    def __init__(self, environ: dict[str, str] | None = None) -> None:
        super().__init__(environ or {})
        self.states: list[tuple[float, str]] = []

    def send(self, *states: str) -> None:
        self.states += [(asyncio.get_running_loop().time(), state) for state in states]

    def times(self, prefix: str) -> list[int]:
        return [round(when) for when, state in self.states if state.startswith(prefix)]


class Case:
    def __init__(self, heard: Heard | None = None, **crawl: float) -> None:
        self.crawl = FakeCrawl(**crawl)
        self.heard = heard or Heard()
        self.progress: list[float] = []
        self.ticks = 0

    def tick(self) -> None:
        self.ticks += 1

    async def serve(self, *, ticking: bool = False, **more: Any) -> StoppedBy:
        loop = asyncio.get_running_loop()
        return await serve(
            self.crawl,
            notifier=self.heard,
            status=lambda: f"{self.ticks} ticks",
            periodic=[(60.0, lambda: self.progress.append(loop.time())), (0.2, self.tick)] if ticking else [],
            drain_s=30.0,
            **more,
        )


def kill(*signals: tuple[float, int]) -> None:
    """Send signals to this process, each after so many seconds."""
    loop = asyncio.get_running_loop()
    for after_s, number in signals:
        loop.call_later(after_s, os.kill, os.getpid(), number)


def test_one_signal_drains() -> None:
    """The crawl is stopped once, the manager is told how long it may take, and the result comes back."""

    async def main() -> None:
        for number in (signal.SIGTERM, signal.SIGINT):
            case = Case()
            kill((3.0, number))
            assert await case.serve() is StoppedBy.SIGNAL
            assert case.crawl.stops == [StoppedBy.SIGNAL]
            told = [state for _, state in case.heard.states]
            assert told == [
                "READY=1",
                "STATUS=0 ticks",
                "STOPPING=1",
                "EXTEND_TIMEOUT_USEC=45000000",
                "STATUS=draining",
                "EXTEND_TIMEOUT_USEC=60000000",
                "STATUS=closing the output files",
            ]

    run(main())


def test_a_second_signal_ends_at_once() -> None:
    """Whichever it is; nothing more is waited for, and no group of exceptions comes out."""

    async def main() -> None:
        case = Case(drains_s=1_000.0)
        kill((5.0, signal.SIGTERM), (6.0, signal.SIGINT))
        with pytest.raises(EndedAtOnce) as caught:
            await case.serve()
        assert caught.value.number == signal.SIGINT
        assert case.crawl.cancelled
        assert case.crawl.stops == [StoppedBy.SIGNAL]
        assert round(asyncio.get_running_loop().time()) == 6

    run(main())


def test_two_signals_in_the_same_instant_are_two() -> None:
    """Both are seen although they come together."""

    async def main() -> None:
        case = Case(drains_s=1_000.0)
        kill((5.0, signal.SIGTERM), (5.0, signal.SIGINT))
        with pytest.raises(EndedAtOnce):
            await case.serve()

    run(main())


@pytest.mark.parametrize("ends", ["by itself", "by a signal", "at once"])
def test_signals_are_given_back(ends: str) -> None:
    """After the crawl they mean again what they meant before it."""

    async def main() -> None:
        case = Case(lasts_s=3.0 if ends == "by itself" else 1e9, drains_s=50.0)
        kill(*((5.0 + n, signal.SIGTERM) for n in range({"by itself": 0, "by a signal": 1, "at once": 2}[ends])))
        try:
            await case.serve()
        except EndedAtOnce:
            assert ends == "at once"
        assert not asyncio.get_running_loop().remove_signal_handler(signal.SIGTERM)
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL

    run(main())


def test_a_crawl_that_ends_by_itself_ends_the_serving() -> None:
    """And every beat with it."""

    async def main() -> None:
        case = Case(lasts_s=25.0)
        assert await case.serve() is StoppedBy.EMPTY
        assert case.crawl.stops == []
        assert asyncio.all_tasks() == {asyncio.current_task()}
        assert case.heard.times("STOPPING") == []

    run(main())


def test_what_is_called_regularly() -> None:
    """STATUS every five seconds, the watchdog at half its time, and what was given at its own pace."""

    async def main() -> None:
        case = Case(Heard({"WATCHDOG_USEC": "30000000"}), lasts_s=121.0)
        await case.serve(ticking=True)
        assert case.heard.times("STATUS") == [0, *range(5, 121, 5)]
        assert case.heard.times("WATCHDOG") == [15, 30, 45, 60, 75, 90, 105, 120]
        assert [round(when) for when in case.progress] == [60, 120]
        assert 600 <= case.ticks <= 605

    run(main())


def test_without_a_watchdog_nothing_feeds_it() -> None:
    """Nothing runs that nobody asked for."""

    async def main() -> None:
        case = Case(lasts_s=100.0)
        await case.serve()
        assert case.heard.times("WATCHDOG") == []
        assert case.ticks == 0

    run(main())


@pytest.mark.parametrize("where", ["run", "tick"])
def test_a_bug_comes_out(where: str) -> None:
    """And nothing keeps running."""

    async def main() -> None:
        case = Case(lasts_s=100.0)

        async def fail() -> Any:
            raise ZeroDivisionError

        setattr(case.crawl if where == "run" else case, where, fail)
        with pytest.raises(ExceptionGroup) as caught:
            await case.serve(ticking=True)
        assert caught.group_contains(ZeroDivisionError)
        assert asyncio.all_tasks() == {asyncio.current_task()}

    run(main())


def test_a_long_drain_asks_for_time_again_and_again() -> None:
    """Each request carries the service manager's patience past the next one, however long draining takes."""

    async def main() -> None:
        case = Case(drains_s=22.0)
        kill((5.0, signal.SIGTERM))
        await case.serve()
        assert case.heard.times("EXTEND_TIMEOUT_USEC=15000000") == [10, 15, 20, 25]

    run(main())


def test_a_hang_up_reloads_where_there_is_something_to_reload() -> None:
    """As often as it comes, and neither drains nor counts as a first signal."""

    async def main() -> None:
        case = Case()
        reloads: list[int] = []

        async def reload() -> None:
            reloads.append(round(asyncio.get_running_loop().time()))

        kill((5.0, signal.SIGHUP), (7.0, signal.SIGHUP), (9.0, signal.SIGTERM))
        assert await case.serve(on_hangup=reload) is StoppedBy.SIGNAL
        assert reloads == [5, 7]
        assert case.crawl.stops == [StoppedBy.SIGNAL]

    run(main())


def test_a_hang_up_drains_a_crawl_without_a_configuration_to_reload() -> None:
    """Its terminal is gone."""

    async def main() -> None:
        case = Case()
        kill((5.0, signal.SIGHUP))
        assert await case.serve() is StoppedBy.SIGNAL

    run(main())


def test_the_watchdog_is_fed_only_while_the_crawl_lives() -> None:
    """A loop that turns round is not enough."""

    async def main() -> None:
        case = Case(Heard({"WATCHDOG_USEC": "20000000"}), lasts_s=61.0)
        loop = asyncio.get_running_loop()
        await case.serve(is_alive=lambda: not 25 < loop.time() < 45)
        assert case.heard.times("WATCHDOG") == [10, 20, 50, 60]

    run(main())


def test_services_run_beside_the_crawl_and_end_with_it() -> None:
    """They have begun before the manager hears READY, and are cancelled once the crawl has drained."""

    async def main() -> None:
        case = Case(lasts_s=10.0)
        seen: list[tuple[int, str]] = []

        async def service() -> None:
            seen.append((len(case.heard.states), "begun"))
            try:
                await asyncio.Event().wait()  # nobody ever sets it
            finally:
                seen.append((round(asyncio.get_running_loop().time()), "ended"))

        await case.serve(services=[service])
        assert seen == [(0, "begun"), (10, "ended")]

    run(main())


def test_a_hangup_before_the_daemon_listens_ends_nothing_and_is_made_up_for() -> None:
    """A script that starts it and then sends SIGHUP gets its reload; without one it is as if nothing had come."""
    reloads = 0

    async def reload() -> None:
        nonlocal reloads
        reloads += 1

    async def main() -> None:
        case = Case()
        kill((5.0, signal.SIGTERM))
        assert await case.serve(on_hangup=reload) is StoppedBy.SIGNAL

    before = signal.getsignal(signal.SIGHUP)
    try:
        for hangups in (0, 1):
            defer_hangups()
            for _ in range(hangups):
                os.kill(os.getpid(), signal.SIGHUP)
            run(main())
            assert reloads == hangups
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_daemon_is_safe_from_hangups_before_anything_heavy_is_imported() -> None:
    """Importing the command line and the settings takes a third of a second, in which a SIGHUP ended the process."""
    look = (
        "import signal, sys\n"
        "class Looks:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name == 'click':\n"
        "            print(signal.getsignal(signal.SIGHUP).name)\n"
        "            raise SystemExit\n"
        "sys.meta_path.insert(0, Looks())\n"
        "from crawler.__main__ import main\n"
        "main()\n"
    )
    for arguments, handler in ((["run"], "SIG_IGN"), (["crawl"], "SIG_DFL")):
        command = [sys.executable, "-c", look, *arguments]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        assert (done.stdout, done.stderr) == (f"{handler}\n", "")
