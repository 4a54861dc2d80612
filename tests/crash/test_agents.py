"""Agents that share a database are killed and stopped, as is the database: every page is stored once over all of them,
and no host gets two requests within its delay. (By the server's log and the files.)
"""

import json
import random
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from tests.support.agents import LEASE_S, Agents, breaches, domains
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

            def restart() -> None:
                database.stop(at_once=True)
                time.sleep(0.5)  # for which it is away
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
