"""Several agents on one machine: what each is started with, what its end means, and how the parent keeps them.

The processes are small programs in place of a crawl; tests/e2e/test_agents.py has real ones.
"""

import asyncio
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Coroutine
from functools import partial
from pathlib import Path
from typing import Any

import orjson
import pytest

from crawler import agent_processes
from crawler.agent_processes import AfterEnd, Agent, Parent, after_end, agent_names, agent_overrides, worst
from crawler.core.enums import StoppedBy
from crawler.settings.loading import load

# -- what each agent is started with


def given(directory: Path, *overrides: str) -> dict[str, list[str]]:
    """The overrides of the second agent, of a configuration with these, as key and value."""
    settings = load(None, [f"output.directory={directory}", *overrides], {}, "crawl").settings
    pairs = [one.partition("=") for one in agent_overrides(settings, "h-2", 1)]
    return {key: orjson.loads(value) for key, _, value in pairs}


def test_agents_are_named_for_the_machine_or_as_the_configuration_says(monkeypatch: pytest.MonkeyPatch) -> None:
    """Counted from 1. A name of a machine has no dots, and nothing that a name may not have."""
    monkeypatch.setattr(socket, "gethostname", lambda: "crawl ö.example.org")
    assert agent_names("", 2) == ["crawl-1", "crawl-2"]
    assert agent_names("north", 1) == ["north-1"]


def test_each_agent_has_an_output_directory_of_its_own(tmp_path: Path) -> None:
    assert given(tmp_path) == {"frontier.agent": "h-2", "output.directory": f"{tmp_path}/h-2"}


def test_what_is_outside_of_the_output_directory_is_apart_too(tmp_path: Path) -> None:
    found = given(
        tmp_path,
        "log.directory=/logs",
        "admin.socket=/run/c.sock",
        "admin.listen=127.0.0.1:9090",
        "frontier.path=/f.db",
    )
    assert found == {
        "frontier.agent": "h-2",
        "output.directory": f"{tmp_path}/h-2",
        "log.directory": "/logs/h-2",
        "admin.socket": "/run/c-h-2.sock",
        "admin.listen": "127.0.0.1:9091",
        "frontier.path": f"{tmp_path}/h-2/frontier.db",
    }
    assert given(tmp_path, "admin.listen=/run/page.sock")["admin.listen"] == "/run/page-h-2.sock"


def test_ports_that_do_not_exist_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="there is no port 65536, for agent 2"):
        given(tmp_path, "admin.listen=127.0.0.1:65535")


# -- decisions


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        (0, AfterEnd.STAYS_STOPPED), (130, AfterEnd.STAYS_STOPPED), (143, AfterEnd.STAYS_STOPPED),
        (2, AfterEnd.ENDS_ALL), (65, AfterEnd.ENDS_ALL), (77, AfterEnd.ENDS_ALL), (78, AfterEnd.ENDS_ALL),
        (1, AfterEnd.RESTART), (70, AfterEnd.RESTART), (74, AfterEnd.RESTART), (75, AfterEnd.RESTART),
        (129, AfterEnd.RESTART), (134, AfterEnd.RESTART), (137, AfterEnd.RESTART),
    ],
)  # fmt: skip
def test_what_an_end_means(code: int, expected: AfterEnd) -> None:
    assert after_end(code) is expected


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        (2, AfterEnd.RESTART), (77, AfterEnd.RESTART), (78, AfterEnd.RESTART), (137, AfterEnd.RESTART),
        (65, AfterEnd.ENDS_ALL), (0, AfterEnd.STAYS_STOPPED),
    ],
)  # fmt: skip
def test_once_all_were_ready_a_wrong_configuration_ends_only_one(code: int, expected: AfterEnd) -> None:
    """Somebody may be editing it. A damaged store is not mended by that."""
    assert after_end(code, all_were_ready=True) is expected


def test_codes_that_the_unit_does_not_restart_are_final() -> None:
    """RestartPreventExitStatus= of the unit."""
    unit = (Path(__file__).parents[2] / "systemd/crawler.service").read_text()
    listed = next(line for line in unit.splitlines() if line.startswith("RestartPreventExitStatus="))
    assert set(map(int, listed.partition("=")[2].split())) == {
        code for code in range(256) if after_end(code) is AfterEnd.ENDS_ALL
    }


@pytest.mark.parametrize(
    ("codes", "expected"),
    [((), 0), ((0, 0), 0), ((0, 75, 74), 75), ((137, 70), 137), ((137, 2, 78), 78), ((77, 65), 65)],
)
def test_the_worst_exit_code(codes: tuple[int, ...], expected: int) -> None:
    """What no restart mends comes first, then the largest."""
    assert worst(codes) == expected


def test_pauses_grow_until_an_agent_ran_for_a_minute() -> None:
    agent, now, pauses = Agent("a", []), 0.0, []
    for ran_s in [0.5] * 9 + [60.0, 0.5]:
        agent.begin(now)
        now += ran_s
        pauses.append(agent.end(75, now))
        assert agent.starts == now + pauses[-1]
        now += pauses[-1]
    assert pauses == [1, 2, 4, 8, 16, 32, 60, 60, 60, 1, 2]


def test_a_sign_is_due_from_ready_to_the_beginning_of_the_end() -> None:
    """Not while it starts, closes its files or waits for its next start."""
    agent = Agent("a", [])
    agent.begin(0.0)
    assert not agent.is_silent(1e6, 10.0)
    agent.hear(b"READY=1\nSTATUS=crawling", 5.0)
    assert [agent.is_silent(now, 10.0) for now in (15.0, 15.1)] == [False, True]
    agent.hear(b"STATUS=is no sign", 15.0)
    assert agent.is_silent(16.0, 10.0)
    agent.hear(b"WATCHDOG=1", 17.0)
    assert not agent.is_silent(27.0, 10.0)
    agent.hear(b"STOPPING=1\nEXTEND_TIMEOUT_USEC=45000000", 30.0)
    assert (agent.is_silent(1e6, 10.0), agent.ends_by) == (False, 75.0)
    agent.hear(b"EXTEND_TIMEOUT_USEC=soon\nREADY\n\xff", 31.0)
    assert (agent.is_ready, agent.ends_by) == (False, 75.0)


def test_the_status_counts_and_names_who_waits() -> None:
    waiting, ready = Agent("h-1", []), Agent("h-2", [])
    waiting.begin(0.0)
    waiting.end(137, 1.0)
    ready.begin(0.0)
    ready.hear(b"READY=1", 1.0)
    line = agent_processes.status_line([waiting, ready], 1.0, is_stopping=False)
    assert line == "1 of 2 agents ready; h-1 starts again in 1 s (exit code 137)"
    assert agent_processes.status_line([waiting, ready], 1.0, is_stopping=True) == "stopping: 0 of 2 agents still run"


def test_lines_of_agents_bear_their_names() -> None:
    """Of JSON as a field, so that it stays JSON."""
    assert agent_processes.text_line("h-1", b"12:00:00Z warning disk_low\n") == b"h-1: 12:00:00Z warning disk_low\n"
    assert agent_processes.json_line("h-1", b'{"event":"stop"}\n') == b'{"agent_name":"h-1","event":"stop"}\n'
    assert agent_processes.json_line("h-1", b"Fatal Python error\n") == b"h-1: Fatal Python error\n"


# -- processes

PROGRAM = """
import os, signal, socket, sys, threading
heard = {signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1}
signal.pthread_sigmask(signal.SIG_BLOCK, heard)
def send(text):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.sendto(text.encode(), "\\0" + os.environ["NOTIFY_SOCKET"][1:])
def note(text):
    with open(sys.argv[1], "a") as log:
        log.write(text + "\\n")
def watch():
    while os.read(0, 1): pass
    os._exit(99)
threading.Thread(target=watch, daemon=True).start()
note("begun")
start, _, code = sys.argv[2].rpartition(":")
if code.isdigit() and open(sys.argv[1]).read().count("begun") == int(start or 1):
    os.write(2, b"it fails")
    os._exit(int(code))
if sys.argv[2] == "slow":
    signal.sigwait({signal.SIGUSR1})
send("READY=1")
while True:
    number = signal.sigwait(heard)
    note(number.name)
    if number == signal.SIGTERM:
        if sys.argv[2] != "deaf":
            os._exit(0)
        send("STOPPING=1\\nEXTEND_TIMEOUT_USEC=1")
"""


class Case:
    """A parent with fake agents. `modes`: what each does: "steady"; "deaf" to SIGTERM; "slow": it is ready after
    SIGUSR1; an exit code with which it ends the first time; "2:78": the second time, with 78.
    """

    def __init__(self, folder: Path, *modes: str, **more: Any) -> None:
        self.told: list[str] = []
        self.logs = [folder / f"{n}.log" for n, _ in enumerate(modes, 1)]
        self.agents = [
            Agent(f"h-{n}", [sys.executable, "-S", "-c", PROGRAM, str(log), mode])
            for n, (log, mode) in enumerate(zip(self.logs, modes, strict=True), 1)
        ]
        self.more = more

    def run(self, act: Callable[[Parent, asyncio.Task[StoppedBy]], Coroutine[Any, Any, None]]) -> int:
        """Run the parent beside `act`. Returns its exit code."""

        async def main() -> int:
            parent = Parent(self.agents, drain_s=30.0, tell=self.told.append, **self.more)
            async with asyncio.timeout(60):
                running = asyncio.ensure_future(parent.run())
                await act(parent, running)
                await asyncio.wait([running])
            return parent.exit_code()

        return asyncio.run(main())

    def lines(self, n: int) -> list[str]:
        return self.logs[n].read_text().split() if self.logs[n].exists() else []


async def until(is_so: Callable[[], bool]) -> None:
    while not is_so():
        await asyncio.sleep(0.005)


@pytest.fixture
def make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Case]:
    monkeypatch.setattr(agent_processes, "FIRST_PAUSE_S", 0.01)
    monkeypatch.setattr(agent_processes, "_CHECK_S", 0.01)
    return partial(Case, tmp_path)


def test_all_are_drained(make: Callable[..., Case]) -> None:
    """Once: a second drain sends nothing."""
    case = make("steady", "steady")

    async def act(parent: Parent, running: asyncio.Task[StoppedBy]) -> None:
        await parent.ready()
        parent.drain()
        parent.drain()

    assert case.run(act) == 0
    assert [case.lines(n) for n in (0, 1)] == [["begun", "SIGTERM"]] * 2
    assert case.told == []


def test_it_is_ready_when_all_are(make: Callable[..., Case]) -> None:
    case = make("steady", "slow")

    async def act(parent: Parent, running: asyncio.Task[StoppedBy]) -> None:
        await until(lambda: case.agents[0].is_ready and case.lines(1) == ["begun"])
        assert not parent._all_ready.is_set()
        assert parent.status() == "1 of 2 agents ready"
        assert case.agents[1].process is not None
        case.agents[1].process.send_signal(signal.SIGUSR1)
        await parent.ready()
        parent.drain()

    assert case.run(act) == 0


@pytest.mark.parametrize("code", [1, 75])
def test_one_that_ends_unexpectedly_starts_again(make: Callable[..., Case], code: int) -> None:
    case = make(str(code), "steady")

    async def act(parent: Parent, running: asyncio.Task[StoppedBy]) -> None:
        await parent.ready()
        parent.drain()

    assert case.run(act) == 0
    assert case.lines(0) == ["begun", "begun", "SIGTERM"]
    assert case.told == [f"agent h-1 ended with exit code {code}; it starts again in 10 ms"]


def test_one_that_is_killed_starts_again(make: Callable[..., Case]) -> None:
    case = make("steady")

    async def act(parent: Parent, running: asyncio.Task[StoppedBy]) -> None:
        await parent.ready()
        assert case.agents[0].process is not None
        case.agents[0].process.kill()
        await until(lambda: case.lines(0).count("begun") == 2 and case.agents[0].is_ready)
        parent.drain()

    assert case.run(act) == 0
    assert case.told == ["agent h-1 ended with exit code 137 (SIGKILL); it starts again in 10 ms"]


def test_one_that_no_restart_mends_ends_all(make: Callable[..., Case]) -> None:
    case = make("78", "steady")

    async def act(parent: Parent, running: asyncio.Task[StoppedBy]) -> None: ...

    assert case.run(act) == 78
    assert case.lines(0) == ["begun"]
    assert case.told == ["agent h-1 ended with exit code 78, and a restart would not help: all agents end"]


def test_once_all_were_ready_one_with_a_wrong_configuration_starts_again(make: Callable[..., Case]) -> None:
    case = make("2:78", "steady")

    async def act(parent: Parent, running: asyncio.Task[StoppedBy]) -> None:
        await parent.ready()
        assert case.agents[0].process is not None
        case.agents[0].process.kill()
        await until(lambda: case.lines(0).count("begun") == 3 and case.agents[0].is_ready)
        parent.drain()

    assert case.run(act) == 0
    assert case.lines(1) == ["begun", "SIGTERM"]
    assert case.told == [
        "agent h-1 ended with exit code 137 (SIGKILL); it starts again in 10 ms",
        "agent h-1 ended with exit code 78: its configuration or a permission is wrong; the other agents go on; "
        "it starts again in 20 ms",
    ]


def test_one_that_was_stopped_stays_so(make: Callable[..., Case]) -> None:
    """As by `crawler stop`; with the last one the parent ends."""
    case = make("steady", "steady")

    async def act(parent: Parent, running: asyncio.Task[StoppedBy]) -> None:
        await parent.ready()
        for agent in case.agents:
            assert agent.process is not None
            agent.process.terminate()
            await until(lambda ended=agent: ended.is_done)  # type: ignore[misc]  # its type is that of `agent`

    assert case.run(act) == 0
    assert case.told == [f"agent h-{n} was stopped, and stays so until `crawler run` is started again" for n in (1, 2)]


def test_a_reload_reaches_all_and_those_that_start_when_they_are_ready(make: Callable[..., Case]) -> None:
    case = make("steady", "slow")

    async def act(parent: Parent, running: asyncio.Task[StoppedBy]) -> None:
        await until(lambda: case.agents[0].is_ready and case.lines(1) == ["begun"])
        await parent.reload()
        await until(lambda: case.lines(0) == ["begun", "SIGHUP"])
        assert case.lines(1) == ["begun"]
        assert case.agents[1].missed_hangup
        assert case.agents[1].process is not None
        case.agents[1].process.send_signal(signal.SIGUSR1)
        await until(lambda: case.lines(1) == ["begun", "SIGHUP"])
        parent.drain()

    assert case.run(act) == 0


def test_one_that_does_not_end_in_the_time_it_asked_for_is_killed(make: Callable[..., Case]) -> None:
    case = make("deaf")

    async def act(parent: Parent, running: asyncio.Task[StoppedBy]) -> None:
        await parent.ready()
        parent.drain()

    assert case.run(act) == 137
    assert case.told[0] == "agent h-1 did not end in time: it is killed"
    assert case.told[1:] == ["agent h-1 ended with exit code 137 (SIGKILL)"]


def test_a_second_signal_ends_all_at_once(make: Callable[..., Case], monkeypatch: pytest.MonkeyPatch) -> None:
    """`serve` cancels the parent then. Who does not hear is killed."""
    monkeypatch.setattr(agent_processes, "AT_ONCE_S", 0.05)
    case = make("steady", "deaf")

    async def act(parent: Parent, running: asyncio.Task[StoppedBy]) -> None:
        await parent.ready()
        running.cancel()

    case.run(act)
    assert [case.lines(n) for n in (0, 1)] == [["begun", "SIGTERM"]] * 2


def test_what_an_agent_says_is_copied(make: Callable[..., Case], capfd: pytest.CaptureFixture[str]) -> None:
    """Its last line too, though it has no end."""
    case = make("78", line=agent_processes.text_line)

    async def act(parent: Parent, running: asyncio.Task[StoppedBy]) -> None: ...

    assert case.run(act) == 78
    assert capfd.readouterr().err == "h-1: it fails\n"


async def test_a_stranger_cannot_speak_for_an_agent(monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel says who sends: another user is not heard."""
    agent, sock, uid = Agent("h-1", []), agent_processes._notify_socket(), os.geteuid()
    parent = Parent([agent], drain_s=1.0, tell=print)
    agent.process = subprocess.Popen(["true"])
    with sock, socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
        for me, is_heard in ((uid + 1, False), (uid, True)):
            monkeypatch.setattr(os, "geteuid", lambda me=me: me)
            sender.sendto(b"READY=1", sock.getsockname())
            parent._on_message(agent, sock)
            assert agent.is_ready is is_heard
    agent.process.wait()


def test_a_silent_agent_is_aborted_and_if_that_does_not_help_all_are_to_restart(make: Callable[..., Case]) -> None:
    case = make("steady", "steady", watchdog_s=0.2)

    async def act(parent: Parent, running: asyncio.Task[StoppedBy]) -> None:
        await parent.ready()
        case.agents[0].sign = case.agents[1].sign = asyncio.get_running_loop().time() + 1e6
        assert parent.is_alive()
        stopped = case.agents[0].process
        assert stopped is not None
        stopped.send_signal(signal.SIGSTOP)
        case.agents[0].sign = -1e6
        assert parent.is_alive()  # it is given the chance to start again
        assert not parent.is_alive()
        stopped.send_signal(signal.SIGCONT)
        await until(lambda: case.lines(0).count("begun") == 2 and case.agents[0].is_ready)
        case.agents[0].sign = 1e9
        assert parent.is_alive()
        parent.drain()

    assert case.run(act) == 0
    assert case.told == [
        "agent h-1 gives no sign of life: it is aborted",
        "agent h-1 ended with exit code 134 (SIGABRT); it starts again in 10 ms",
    ]


def test_no_agent_outlives_its_parent(tmp_path: Path) -> None:
    """Its stdin ends with the parent, which is killed here."""
    log = tmp_path / "log"
    parent = (
        "import asyncio, sys\n"
        "from crawler.agent_processes import Agent, Parent\n"
        "agent = Agent('h-1', sys.argv[1:])\n"
        "asyncio.run(Parent([agent], drain_s=30.0, tell=print).run())\n"
    )

    async def main() -> None:
        command = [sys.executable, "-c", parent, sys.executable, "-S", "-c", PROGRAM, str(log), "steady"]
        process = subprocess.Popen(command)
        await until(lambda: log.exists() and "begun" in log.read_text())
        child = int(Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text())
        ended = os.pidfd_open(child)
        process.kill()
        process.wait()
        gone = asyncio.Event()
        asyncio.get_running_loop().add_reader(ended, gone.set)
        async with asyncio.timeout(20):
            await gone.wait()
        os.close(ended)
        assert list(Path(f"/proc/{child}/fd").glob("*")) == []  # no process is left, or a zombie

    asyncio.run(main())
