"""Agents that share a database are killed and stopped, as is the database: every page is stored once over all of them,
and no host gets two requests within its delay. (By the server's log and the files.)
"""

import json
import random
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.parse import quote

import pytest

from tests.support.agents import LEASE_S, Agents, address_of, breaches, domains
from tests.support.commands import TIMEOUT_S
from tests.support.nginx import Site, nginx
from tests.support.postgresql import Server, new_database, shared_server

pytestmark = pytest.mark.e2e
PROVE = [pytest.mark.prove, pytest.mark.timeout(1_800)]
TEMPORARY = (75,)  # it lost its slots: it is to be started again


class Running:
    """Agents that are started again when they end before the crawl does."""

    def __init__(self, agents: Agents, *, lives_s: float = TIMEOUT_S) -> None:
        self.agents = agents
        self._end = time.monotonic() + lives_s
        self.processes = {n: agents.start(n) for n in range(1, len(agents.crawls) + 1)}
        self.codes: list[int] = []

    def look(self) -> bool:
        """Start those again that were killed or lost their slots. False: all have ended by themselves."""
        for n, process in self.processes.items():
            if process.poll() in (None, 0):
                continue
            self.codes.append(process.returncode)
            _, stderr = process.communicate()
            assert process.returncode in (-signal.SIGKILL, *TEMPORARY), stderr
            assert "Traceback" not in stderr
            self.processes[n] = self.agents.start(n)
        assert time.monotonic() < self._end, "the crawl does not end"
        return any(process.poll() is None for process in self.processes.values())

    def living(self) -> list["subprocess.Popen[str]"]:
        return [process for process in self.processes.values() if process.poll() is None]

    def end(self) -> list[str]:
        """How each of them ended."""
        while self.look():
            time.sleep(0.02)
        return [json.loads(process.communicate()[0])["stopped_by"] for process in self.processes.values()]


@contextmanager
def running(agents: Agents, **more: float) -> Iterator[Running]:
    one = Running(agents, **more)
    try:
        yield one
    finally:
        for process in one.processes.values():
            process.kill()
            process.communicate()


def assert_whole(agents: Agents) -> None:
    """Every page once, and no host too often."""
    stored = agents.stored()
    assert set(stored) == agents.wanted()
    assert [url for url, n in stored.items() if n > 1] == []
    assert breaches(agents.server.requests(), agents.delay_s) == []


def after_requests(agents: Agents, one: Running, number: int, act: Callable[[], None]) -> None:
    """Act when the server has had so many requests."""
    while agents.server.count() < number and one.look():
        time.sleep(0.01)
    act()


def kill_one(one: Running, rng: random.Random) -> None:
    if living := one.living():
        rng.choice(living).kill()


def stop_one(one: Running, rng: random.Random) -> None:
    """Stop an agent for longer than its lease, and let it go on."""
    if len(living := one.living()) > 1:
        process = rng.choice(living)
        process.send_signal(signal.SIGSTOP)
        end = time.monotonic() + 1.6 * LEASE_S
        while time.monotonic() < end:
            one.look()
            time.sleep(0.05)
        process.send_signal(signal.SIGCONT)


@pytest.mark.parametrize(
    ("kills", "stops"), [(0, 0), (5, 0), (0, 2), pytest.param(100, 20, marks=PROVE)]
)  # fmt: skip
def test_agents_that_are_killed_or_stopped_lose_and_double_nothing(tmp_path: Path, kills: int, stops: int) -> None:
    """Three agents; those that are killed come back."""
    pages = 40 if kills + stops < 50 else 500
    with nginx(Site(dict.fromkeys(domains(24), pages))) as server:
        agents = Agents.of(tmp_path, server, new_database(), 3)
        rng = random.Random(kills + stops)
        events = [kill_one] * kills + [stop_one] * stops
        rng.shuffle(events)
        share = len(agents.wanted()) // (len(events) + 2)
        with running(agents, lives_s=TIMEOUT_S * (1 + kills / 10)) as one:
            for n, act in enumerate(events, 1):
                after_requests(agents, one, n * share, lambda act=act: act(one, rng))  # type: ignore[misc]
            assert set(one.end()) == {"empty"}
        assert_whole(agents)


@pytest.mark.parametrize("restarts", [2, pytest.param(20, marks=PROVE)])
def test_a_database_that_is_killed_and_comes_back_loses_nothing(tmp_path: Path, restarts: int) -> None:
    """The agents pause, and go on by themselves."""
    shared_server()  # skips without one
    pages = 40 if restarts < 10 else 300
    with TemporaryDirectory(prefix="crawler-pg-") as folder, nginx(Site(dict.fromkeys(domains(24), pages))) as server:
        database = Server(Path(folder), fsync="on", full_page_writes="on")
        try:
            database.execute("CREATE DATABASE crawl")
            agents = Agents.of(tmp_path, server, database.dsn("crawl"), 3)

            def paused() -> int:
                return sum(line["event"] == "disk_low" for crawl in agents.crawls for line in crawl.events())

            def restart() -> None:
                before = paused()
                database.stop(at_once=True)
                while paused() == before:  # until one has found that nothing can be stored
                    assert one.look()
                    time.sleep(0.01)
                database.start()

            share = len(agents.wanted()) // (restarts + 2)
            with running(agents, lives_s=TIMEOUT_S * (1 + restarts / 5)) as one:
                for n in range(1, restarts + 1):
                    after_requests(agents, one, n * share, restart)
                assert set(one.end()) == {"empty"}
            assert one.codes == []
        finally:
            database.stop(at_once=True)
        assert_whole(agents)


class Valve:
    """Between an agent and the database: it may be shut, as by a firewall that drops packets, and slow."""

    def __init__(self, server: Server, folder: Path, *, delay_s: float = 0.0) -> None:
        self._to = server.folder / ".s.PGSQL.5432"
        self._delay_s = delay_s
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(folder / ".s.PGSQL.5432"))
        self._listener.listen()
        self.folder = folder
        self.is_open = threading.Event()
        self.is_open.set()
        self._sockets: list[socket.socket] = [self._listener]
        self._threads: list[threading.Thread] = []
        self._run(self._accept)

    def _run(self, target: Callable[..., None], *values: object) -> None:
        self._threads.append(threading.Thread(target=target, args=values, daemon=True))
        self._threads[-1].start()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                server = socket.socket(socket.AF_UNIX)
                self._sockets += [client, server]
                server.connect(str(self._to))
                for source, target in ((client, server), (server, client)):
                    self._run(self._pass, source, target)

    def _pass(self, source: socket.socket, target: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(65_536):
                self.is_open.wait()
                time.sleep(self._delay_s)
                target.sendall(data)
        for one in (source, target):
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self.is_open.set()
        for one in self._sockets:
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()
        for one in self._sockets:
            one.close()


def test_an_agent_that_is_cut_off_stops_before_others_take_over(tmp_path: Path) -> None:
    """Its connections stay open and say nothing for longer than its lease; another one's are slow."""
    with (
        TemporaryDirectory() as cut_folder, TemporaryDirectory() as slow_folder,
        nginx(Site(dict.fromkeys(domains(24), 30))) as server,
    ):  # fmt: skip
        dsn = new_database()
        valves = [Valve(shared_server(), Path(cut_folder)), Valve(shared_server(), Path(slow_folder), delay_s=0.005)]
        agents = Agents.of(tmp_path, server, dsn, 3)
        for crawl, valve in zip(agents.crawls, valves, strict=False):
            text = crawl.config.read_text()
            to, through = (quote(str(one.folder), safe="") for one in (shared_server(), valve))
            crawl.config.write_text(text.replace(to, through))
        try:
            with running(agents) as one:
                after_requests(agents, one, len(agents.wanted()) // 4, valves[0].is_open.clear)
                cut_at = time.time()
                while time.time() < cut_at + 2 * LEASE_S:
                    one.look()
                    time.sleep(0.05)
                valves[0].is_open.set()
                opened_at = time.time()
                assert set(one.end()) == {"empty"}
        finally:
            for valve in valves:
                valve.close()
        assert_whole(agents)
        ours = [one.begin_ms / 1000 for one in agents.server.requests() if one.address == address_of(1)]
        assert [at for at in ours if cut_at + LEASE_S < at < opened_at] == []


def test_an_agent_whose_disk_is_full_leaves_its_hosts_to_others(tmp_path: Path) -> None:
    """It ends, and the crawl with it only where nobody can go on."""
    with nginx(Site(dict.fromkeys(domains(8), 5))) as server:
        agents = Agents.of(tmp_path, server, new_database(), 2, crawl={"linger": "3s"})
        config = agents.crawls[1].config
        config.write_text(config.read_text().replace("[output]", '[output]\nmin_free = "900TiB"'))
        full = agents.start(2)
        try:
            while not (tmp_path / "a2" / "out" / "run.json").exists():  # it has all slots
                time.sleep(0.02)
            other = agents.start(1)
            ends = [process.communicate(timeout=TIMEOUT_S) for process in (other, full)]
        finally:
            full.kill()
        assert (other.returncode, full.returncode) == (0, 74), ends
        assert_whole(agents)
