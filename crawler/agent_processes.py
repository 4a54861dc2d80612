"""Several agents of one configuration on this machine: a parent process that starts them and keeps them running.

Each agent is a `crawler run` with a name and an output directory of its own; they share a PostgreSQL store. The parent
opens no store and crawls nothing: it hands signals on (`daemon.serve`), starts an agent again that ended unexpectedly,
and tells systemd how all are.
Invariants: no agent outlives the parent, however that ends: the stdin of each is a pipe that closes with it. None is
started once the stop has begun. The parent waits for nothing that an agent may withhold but its end, and for that no
longer than the agent asks for.
"""

import asyncio
import math
import os
import re
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from enum import Enum, auto
from functools import partial
from pathlib import Path
from typing import BinaryIO, Final

import orjson

from crawler.core.enums import Exit, StoppedBy
from crawler.core.formatting import count, duration
from crawler.daemon import EXTEND_BY_S, Notifier, is_journal_stream, serve
from crawler.obs.log_files import write_all
from crawler.settings.schema import plain_toml
from crawler.settings.settings import Settings

AGENTS_AT_MOST: Final = 256
FIRST_PAUSE_S: Final = 1.0  # before an agent starts again; twice as long each time, …
LONGEST_PAUSE_S: Final = 60.0  # … up to this. For one that ran for so long it is the first again
AT_ONCE_S: Final = 5.0  # for agents to end after a second signal
_CHECK_S: Final = 1.0  # between two looks at agents that take longer to end than they asked for
_LAST_LINES_S: Final = 1.0
_LONGEST_LINE: Final = 64 * 1024  # bytes of a line of stderr; a longer one is cut into several
_NO_RESTART: Final = (Exit.STATE_CORRUPT, Exit.PERMISSION, Exit.CONFIGURATION, Exit.USAGE)  # as in the unit
_AS_CONFIGURED: Final = _NO_RESTART[1:]  # what another configuration may mend
_SIGNALS: Final = {128 + number: f" ({number.name})" for number in signal.Signals}
_STOPPED: Final = (Exit.OK, 128 + signal.SIGINT, 128 + signal.SIGTERM)  # as was asked for, of one agent
_LONGEST_NAME: Final = 59  # of 64 characters of frontier.agent
_NOT_IN_A_NAME: Final = re.compile(r"[^A-Za-z0-9_.-]+")


# -- what each agent is started with


def agent_names(base: str, number: int) -> list[str]:
    """The names of the agents of this machine, by `frontier.agent`; "": by the name of the machine."""
    machine = _NOT_IN_A_NAME.sub("-", socket.gethostname().partition(".")[0]).strip("-")[:_LONGEST_NAME]
    base = base or machine or "agent"
    return [f"{base}-{k}" for k in range(1, number + 1)]


def agent_overrides(settings: Settings, name: str, place: int) -> list[str]:
    """The values in which the agent `name` differs from the configuration; `place` counts from 0.

    What the configuration puts outside the output directory is apart for each agent too. Raises ValueError if there is
    no such port.
    """
    output = settings.output_directory.absolute() / name
    changed: dict[str, object] = {"frontier.agent": name, "output.directory": output}
    if settings.log.directory:
        changed["log.directory"] = Path(settings.log.directory) / name
    if settings.frontier.path:
        changed["frontier.path"] = output / "frontier.db"  # names the lock alone
    if settings.admin.socket:
        changed["admin.socket"] = _beside(settings.admin.socket, name)
    if (listen := settings.admin.listen) is not None:
        changed["admin.listen"] = _beside(listen, name) if listen.startswith("/") else _with_port(listen, place)
    return [f"{key}={plain_toml(str(value))}" for key, value in changed.items()]


def _beside(path: str, name: str) -> Path:
    """/run/crawler/control.sock of all is /run/crawler/control-NAME.sock of one."""
    return Path(path).with_name(f"{Path(path).stem}-{name}{Path(path).suffix}")


def _with_port(listen: str, place: int) -> str:
    host, _, first = listen.rpartition(":")
    if (port := int(first) + place) > 65_535:
        raise ValueError(f"admin.listen = {listen}: there is no port {port}, for agent {place + 1}")
    return f"{host}:{port}"


# -- decisions


class AfterEnd(Enum):
    """What the end of an agent means, if no stop has begun."""

    RESTART = auto()  # it ended unexpectedly
    STAYS_STOPPED = auto()  # somebody stopped this one
    ENDS_ALL = auto()  # a restart would not help


def after_end(code: int, *, all_were_ready: bool = False) -> AfterEnd:
    """`all_were_ready`: the configuration was right for all, so that somebody may be editing it if it is not now."""
    if code in _NO_RESTART and not (all_were_ready and code in _AS_CONFIGURED):
        return AfterEnd.ENDS_ALL
    return AfterEnd.STAYS_STOPPED if code in _STOPPED else AfterEnd.RESTART


def worst(codes: Iterable[int]) -> int:
    """The exit code of the parent: 65, 77, 78 or 2, the first of these that an agent ended with; else the largest."""
    found = set(codes)
    return next((code for code in _NO_RESTART if code in found), max(found, default=Exit.OK))


@dataclass(slots=True)
class Agent:
    """One agent, as the parent knows it. Times are of the event loop's clock."""

    name: str
    command: Sequence[str]
    process: subprocess.Popen[bytes] | None = None
    failures: int = 0  # ends in succession, each before LONGEST_PAUSE_S
    is_ready: bool = False  # from READY=1 to its end, or the beginning of it
    was_ready: bool = False  # once, in whichever process
    missed_hangup: bool = False
    is_done: bool = False  # its last end was final
    code: int | None = None  # of its last end
    started: float = 0.0
    sign: float = 0.0  # the last sign for the watchdog
    is_aborted: bool = False  # for want of a sign
    ends_by: float = 0.0  # how long it asked for, once a stop has begun
    starts: float | None = None  # the next start, while it waits for one

    def begin(self, now: float) -> None:
        self.started, self.starts, self.code = now, None, None
        self.is_ready, self.is_aborted, self.missed_hangup = False, False, False

    def hear(self, message: bytes, now: float) -> None:
        """Take what it sent to its NOTIFY_SOCKET (sd_notify(3))."""
        for line in message.decode(errors="replace").split("\n"):
            match line.partition("="):
                case "READY", _, "1":
                    self.is_ready = self.was_ready = True
                    self.sign = now
                case "WATCHDOG", _, "1":
                    self.sign = now
                case "STOPPING", _, "1":  # closing files takes longer than a watchdog's interval
                    self.is_ready = False
                case "EXTEND_TIMEOUT_USEC", _, text if text.isascii() and text.isdigit():
                    self.ends_by = now + int(text) / 1e6

    def end(self, code: int, now: float) -> float:
        """Take note of its end. Returns the pause until its next start."""
        self.is_ready, self.code = False, code
        self.failures = 1 if now - self.started >= LONGEST_PAUSE_S else self.failures + 1
        pause = min(FIRST_PAUSE_S * 2.0 ** min(self.failures - 1, 30), LONGEST_PAUSE_S)
        self.starts = now + pause
        return pause

    def is_silent(self, now: float, within_s: float) -> bool:
        """Whether it owes a sign. None is due while it starts, waits or ends."""
        return self.is_ready and now - self.sign > within_s


def status_line(agents: Sequence[Agent], now: float, *, is_stopping: bool) -> str:
    """How all agents are, for systemd's STATUS."""
    running = sum(agent.process is not None for agent in agents)
    if is_stopping:
        return f"stopping: {running} of {count(len(agents), 'agent')} still {'runs' if running == 1 else 'run'}"
    ready = sum(agent.is_ready for agent in agents)
    waiting = [(one, one.starts - now) for one in agents if one.starts is not None]
    later = [f"{one.name} starts again in {duration(rest_s)} (exit code {one.code})" for one, rest_s in waiting]
    return "; ".join([f"{ready} of {count(len(agents), 'agent')} ready", *later])


# -- processes

Line = Callable[[str, bytes], bytes]  # makes the line to write of an agent's name and a line of its stderr


class Parent:
    """The parent of `agents`: a daemon.Stoppable. `drain_s` is what an agent may take to drain; `watchdog_s`: the
    interval of systemd's watchdog, None without one. `line` makes the lines of stderr; None: agents have the parent's.
    `tell` prints a message.
    """

    def __init__(
        self,
        agents: Sequence[Agent],
        *,
        drain_s: float,
        watchdog_s: float | None = None,
        line: Line | None = None,
        tell: Callable[[str], None],
    ) -> None:
        self.agents = agents
        self._drain_s = drain_s
        # Half of it: the time that passes until an agent is missed counts towards the parent's own
        self._sign_s = watchdog_s / 2 if watchdog_s is not None else None
        self._line = line
        self._tell = tell
        self._stopping = asyncio.Event()
        self._all_ready = asyncio.Event()
        self._sockets: dict[str, str] = {}  # NOTIFY_SOCKET by name
        self._stdin = -1  # the end of the pipe that agents have
        self._copies: list[threading.Thread] = []
        self._write_lock = threading.Lock()

    async def ready(self) -> None:
        """Wait until each agent is ready, or was stopped."""
        await self._all_ready.wait()

    async def run(self) -> StoppedBy:
        """Keep the agents running until all have ended for good."""
        loop = asyncio.get_running_loop()
        self._stdin, lifeline = os.pipe()
        sockets = [_notify_socket() for _ in self.agents]
        try:
            for agent, sock in zip(self.agents, sockets, strict=True):
                self._sockets[agent.name] = "@" + sock.getsockname()[1:].decode()
                loop.add_reader(sock, self._on_message, agent, sock)
            async with asyncio.TaskGroup() as group:
                overdue = group.create_task(self._kill_overdue())
                await asyncio.wait([group.create_task(self._keep(agent)) for agent in self.agents])
                overdue.cancel()
        finally:
            await self._end_at_once()
            for sock in sockets:
                loop.remove_reader(sock)
                sock.close()
            os.close(self._stdin)
            os.close(lifeline)
            await asyncio.to_thread(self._join_copies)
        return StoppedBy.SIGNAL

    def drain(self, reason: StoppedBy = StoppedBy.SIGNAL) -> None:
        """Have all agents drain. A second call has no effect: a second SIGTERM would end them at once."""
        if self._stopping.is_set():
            return
        self._stopping.set()
        ends_by = asyncio.get_running_loop().time() + self._drain_s + EXTEND_BY_S
        for agent in self.agents:
            agent.ends_by = ends_by
            self._signal(agent, signal.SIGTERM)

    async def reload(self) -> None:
        """Have all agents reload. One that starts may have read the configuration already, and not hear yet."""
        for agent in self.agents:
            if agent.is_ready:
                self._signal(agent, signal.SIGHUP)
            else:
                agent.missed_hangup = True

    def is_alive(self) -> bool:
        """Whether each agent gave its sign. One that is silent is aborted, for the stacks of its threads and a new
        start; if it is still there at the next call, all are to be started again.
        """
        now, silent = asyncio.get_running_loop().time(), False
        for agent in self.agents:
            if self._sign_s is not None and agent.is_silent(now, self._sign_s):
                if not agent.is_aborted:
                    self._tell(f"agent {agent.name} gives no sign of life: it is aborted")
                    self._signal(agent, signal.SIGABRT)
                silent, agent.is_aborted = silent or agent.is_aborted, True
        return not silent

    def status(self) -> str:
        return status_line(self.agents, asyncio.get_running_loop().time(), is_stopping=self._stopping.is_set())

    def exit_code(self) -> int:
        """The worst of the last ends."""
        return worst(agent.code for agent in self.agents if agent.code is not None)

    async def _keep(self, agent: Agent) -> None:
        """Start an agent, again and again, until its end is final."""
        loop = asyncio.get_running_loop()
        while not self._stopping.is_set():
            code = await self._run_once(agent)
            how = f"exit code {code}{_SIGNALS.get(code, '')}"
            pause = agent.end(code, loop.time())
            if self._stopping.is_set():
                if code not in _STOPPED:
                    self._tell(f"agent {agent.name} ended with {how}")
                break
            after = after_end(code, all_were_ready=all(one.was_ready or one.is_done for one in self.agents))
            if after is AfterEnd.ENDS_ALL:
                self._tell(f"agent {agent.name} ended with {how}, and a restart would not help: all agents end")
                self.drain()
                break
            if after is AfterEnd.STAYS_STOPPED:
                self._tell(f"agent {agent.name} was stopped, and stays so until `crawler run` is started again")
                break
            if code in _AS_CONFIGURED:
                how += ": its configuration or a permission is wrong; the other agents go on"
            self._tell(f"agent {agent.name} ended with {how}; it starts again in {duration(pause)}")
            with suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._stopping.wait()
        agent.starts, agent.is_done = None, True
        self._see_if_ready()

    async def _run_once(self, agent: Agent) -> int:
        """Run an agent to its end. Returns its exit code."""
        try:
            agent.process = process = self._start(agent)
        except OSError as error:  # no process, memory or descriptor is left
            self._tell(f"agent {agent.name} cannot be started: {error.strerror or error}")
            return Exit.IO
        await _end_of(process)
        agent.process = None
        return process.returncode if process.returncode >= 0 else 128 - process.returncode  # as a shell has it

    def _start(self, agent: Agent) -> subprocess.Popen[bytes]:
        """Start its process. Not by asyncio, which loses the exit code of one that ends while a signal is sent."""
        agent.begin(asyncio.get_running_loop().time())
        environ = {name: value for name, value in os.environ.items() if not name.startswith("WATCHDOG_")}
        environ["NOTIFY_SOCKET"] = self._sockets[agent.name]
        if self._sign_s is not None:
            environ["WATCHDOG_USEC"] = str(int(self._sign_s * 1e6))
        stderr = None if self._line is None else subprocess.PIPE
        # A group of its own: an interrupt on the terminal reaches the agents once, from us
        process = subprocess.Popen(  # noqa: S603 - our own program
            agent.command, stdin=self._stdin, stderr=stderr, env=environ, process_group=0
        )
        if self._line is not None:
            line = partial(self._line, agent.name)
            copy = threading.Thread(target=self._copy, args=(process.stderr, line), daemon=True)
            copy.start()
            self._copies = [*(one for one in self._copies if one.is_alive()), copy]
        return process

    def _copy(self, lines: BinaryIO, changed: Callable[[bytes], bytes]) -> None:
        """Copy what an agent writes to stderr, line by line, on a thread: our stderr may take its time."""
        with lines:
            while line := lines.readline(_LONGEST_LINE):
                with self._write_lock, suppress(OSError):
                    write_all(sys.stderr.fileno(), changed(line if line.endswith(b"\n") else line + b"\n"))

    def _join_copies(self) -> None:
        """Wait for the last lines, but not for a reader of our stderr that hangs."""
        end = time.monotonic() + _LAST_LINES_S
        for copy in self._copies:
            copy.join(max(0.0, end - time.monotonic()))

    def _on_message(self, agent: Agent, sock: socket.socket) -> None:
        with suppress(OSError):
            message, ancillary, _, _ = sock.recvmsg(4096, socket.CMSG_SPACE(_CREDENTIALS.size))
            uids = [_CREDENTIALS.unpack(data)[1] for _, kind, data in ancillary if kind == socket.SCM_CREDENTIALS]
            if uids == [os.geteuid()] and agent.process is not None:
                agent.hear(message, asyncio.get_running_loop().time())
                if agent.is_ready and agent.missed_hangup:
                    agent.missed_hangup = False
                    self._signal(agent, signal.SIGHUP)
                self._see_if_ready()

    def _see_if_ready(self) -> None:
        if all(agent.is_ready or agent.is_done for agent in self.agents):
            self._all_ready.set()

    def _signal(self, agent: Agent, number: int) -> None:
        if agent.process is not None:
            agent.process.send_signal(number)  # not if it has ended

    async def _kill_overdue(self) -> None:
        """Once a stop has begun, kill agents that take longer than they asked for."""
        await self._stopping.wait()
        while True:
            await asyncio.sleep(_CHECK_S)
            for agent in self.agents:
                if agent.process is not None and asyncio.get_running_loop().time() > agent.ends_by:
                    self._tell(f"agent {agent.name} did not end in time: it is killed")
                    self._signal(agent, signal.SIGKILL)
                    agent.ends_by = math.inf

    async def _end_at_once(self) -> None:
        """End what still runs, without draining: after a second signal, or a bug of ours."""
        self._stopping.set()
        for number in (signal.SIGTERM, signal.SIGKILL):
            running = [agent.process for agent in self.agents if agent.process and agent.process.poll() is None]
            for process in running:
                process.send_signal(number)
            ends = [asyncio.ensure_future(_end_of(process)) for process in running]
            for late in (await asyncio.wait(ends, timeout=AT_ONCE_S))[1] if ends else ():
                late.cancel()


async def _end_of(process: subprocess.Popen[bytes]) -> None:
    """Wait until a process has ended, and take its exit code."""
    if process.poll() is not None:
        return
    loop, ended = asyncio.get_running_loop(), asyncio.Event()
    descriptor = os.pidfd_open(process.pid)
    try:
        loop.add_reader(descriptor, ended.set)
        await ended.wait()
        process.wait()
    finally:
        loop.remove_reader(descriptor)
        os.close(descriptor)


_CREDENTIALS: Final = struct.Struct("3i")  # pid, uid, gid


def _notify_socket() -> socket.socket:
    """A socket for the states of one agent: in the abstract namespace, so that no file is left of it, under a name that
    the kernel chooses. Who sends is told by the kernel too.
    """
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
    sock.bind("")
    return sock


def text_line(name: str, line: bytes) -> bytes:
    """A line of an agent's stderr after its name."""
    return b"%s: %s" % (name.encode(), line)


def json_line(name: str, line: bytes) -> bytes:
    """The same of a JSON object: the name is its first field."""
    return b'{"agent_name":%s,%s' % (orjson.dumps(name), line[1:]) if line.startswith(b'{"') else text_line(name, line)


def agents_of(settings: Settings, base_name: str, number: int, command: Sequence[str]) -> list[Agent]:
    """The agents of this machine. `command` is that of one, without what differs. Raises ValueError."""
    agents = []
    for place, name in enumerate(agent_names(base_name, number)):
        options = [word for override in agent_overrides(settings, name, place) for word in ("-o", override)]
        agents.append(Agent(name, [*command, *options]))
    return agents


def run(agents: Sequence[Agent], settings: Settings, tell: Callable[[str], None]) -> int:
    """Run agents until they are stopped. Returns the exit code. Raises EndedAtOnce."""
    line: Line | None = json_line if settings.log.stderr == "json" else text_line
    if settings.log.stderr == "auto" and is_journal_stream(os.environ, 2):
        line = None  # records of the journal tell processes apart
    tell(f"{count(len(agents), 'agent')} started: {', '.join(agent.name for agent in agents)}")
    return asyncio.run(_serve(agents, Notifier(os.environ), settings.engine_options("run").drain_s, line, tell))


async def _serve(
    agents: Sequence[Agent], notifier: Notifier, drain_s: float, line: Line | None, tell: Callable[[str], None]
) -> int:
    parent = Parent(agents, drain_s=drain_s, watchdog_s=notifier.watchdog_s, line=line, tell=tell)
    await serve(
        parent, notifier=notifier, status=parent.status, drain_s=drain_s, on_hangup=parent.reload,
        is_alive=parent.is_alive, ready=parent.ready,
    )  # fmt: skip
    return parent.exit_code()
