"""`crawler run --agents N`: real agents with a real database, and the parent that keeps them."""

import json
import os
import select
import signal
import socket
import subprocess
import tomllib
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

import pytest

from tests.e2e.test_guides import blocks
from tests.support.commands import TIMEOUT_S, Crawl, ended, environment, read_lines, run, running
from tests.support.nginx import Nginx, Site, nginx
from tests.support.postgresql import new_database
from tests.support.site_crawls import DOCS, OTHER, sections, wait_until

pytestmark = pytest.mark.e2e

IDENTITY: dict[str, object] = {"user_agent": "tested/1.0 (+https://example.org/bot)"}
NUMBER = 3
NAMES = [f"t-{k}" for k in range(1, NUMBER + 1)]


@pytest.fixture(scope="module")
def site() -> Iterator[Nginx]:
    with nginx(Site({DOCS: 30, OTHER: 30})) as server:
        yield server


def configured(server: Nginx, directory: Path) -> Crawl:
    """A configuration with a new database."""
    keys: dict[str, dict[str, object]] = {
        "identity": IDENTITY,
        "output": {"directory": directory / "out"},
        "frontier": {"store": "postgresql", "dsn": new_database(), "agent": "t"},
    }
    return Crawl.of(directory, sections(server, DOCS, OTHER, **keys))


class Manager:
    """systemd's side of sd_notify: `states` in the order in which they came."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self.states: list[str] = []

    def count(self, beginning: str) -> int:
        """How many states that begin so have come so far."""
        with suppress(BlockingIOError):
            while True:
                self.states += self._sock.recv(4096).decode().split("\n")
        return sum(state.startswith(beginning) for state in self.states)


@contextmanager
def managed(
    crawl: Crawl, *options: str, stderr: int | IO[str] = subprocess.PIPE, **more: str
) -> Iterator[tuple[subprocess.Popen[str], Manager]]:
    """A parent with its agents, as systemd starts it, once all are ready."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind("")
        sock.setblocking(False)
        env = environment(NOTIFY_SOCKET="@" + sock.getsockname()[1:].decode(), **more)
        manager = Manager(sock)
        with running("run", "--agents", NUMBER, "-c", crawl.config, *options, env=env, stderr=stderr) as process:
            assert wait_until(lambda: manager.count("READY=1") > 0, process), ended(process).stderr
            yield process, manager


def pid_of(crawl: Crawl, name: str) -> int:
    """The process of an agent, by its lock; 0 if it does not run."""
    lock = crawl.output / name / "frontier.db.lock"
    pid = int(lock.read_text().strip() or 0) if lock.exists() else 0
    return pid if pid and Path(f"/proc/{pid}").exists() else 0


def events(crawl: Crawl, name: str) -> list[str]:
    """Lines are written a little later than what they tell happens."""
    path = crawl.output / name / "logs" / "events.jsonl"
    return [line["event"] for line in read_lines(path)] if path.exists() else []


def test_the_commands_of_the_page_on_scaling_run(site: Nginx, tmp_path: Path) -> None:
    """Two agents with its settings, but for the database and the directory."""
    text = (Path(__file__).parents[2] / "docs/SCALING.md").read_text()
    ((begin, look, check),) = [block.splitlines() for block in blocks(text, "sh agents")]
    (settings,) = blocks(text, "toml")
    stored = tomllib.loads(settings)["frontier"] | {"dsn": new_database()}
    site.forget()
    output: dict[str, object] = {"directory": tmp_path / "archive"}
    keys: dict[str, dict[str, object]] = {"identity": IDENTITY, "frontier": stored, "output": output}
    Crawl.of(tmp_path, sections(site, DOCS, OTHER, **keys))
    wanted = site.site.wanted(DOCS, OTHER)
    with running(*begin.split()[1:], cwd=tmp_path) as process:
        assert wait_until(lambda: site.count() >= len(wanted) and wanted <= set(site.places()), process)
        seen = run(*look.split()[1:], cwd=tmp_path)
        assert (seen.code, seen.stderr) == (0, "")
        assert all(name in seen.stdout for name in ("a-1", "a-2"))
        process.send_signal(signal.SIGTERM)
        assert ended(process).code == 0
    checked = run(*check.split()[1:], cwd=tmp_path)
    assert checked.code == 0, checked.stdout


def test_all_crawl_and_all_are_drained(site: Nginx, tmp_path: Path) -> None:
    """Each in a directory of its own, and no page is requested twice. READY=1 comes once, when all are ready."""
    site.forget()
    crawl = configured(site, tmp_path)
    with managed(crawl) as (process, manager):
        assert all(pid_of(crawl, name) for name in NAMES)
        wanted = site.site.wanted(DOCS, OTHER)
        assert wait_until(lambda: site.count() >= len(wanted) and wanted <= set(site.places()), process)
        process.send_signal(signal.SIGTERM)
        stopped = ended(process)
        assert [manager.count(state) for state in ("READY=1", "STOPPING=1")] == [1, 1]
    assert (stopped.code, stopped.stdout) == (0, ""), stopped.stderr
    requested = Counter(site.places())
    assert [place for place in wanted if requested[place] != 1] == []
    assert "Traceback" not in stopped.stderr
    first, _, rest = stopped.stderr.partition("\n")
    assert first == f"crawler: {NUMBER} agents started: {', '.join(NAMES)}"
    for name in NAMES:
        assert events(crawl, name)[-1] == "stop"
        assert f"{name}: " in rest
        assert not list((crawl.output / name).glob("*/*.open"))


def test_an_agent_that_is_killed_comes_back(site: Nginx, tmp_path: Path) -> None:
    crawl = configured(site, tmp_path)
    with managed(crawl) as (process, _):
        assert wait_until(lambda: "ready" in events(crawl, "t-1"), process)
        first = pid_of(crawl, "t-1")
        os.kill(first, signal.SIGKILL)
        is_back = wait_until(lambda: events(crawl, "t-1").count("ready") == 2, process)
        assert is_back, ended(process).stderr
        assert pid_of(crawl, "t-1") not in (0, first)
        process.send_signal(signal.SIGTERM)
        stopped = ended(process)
    assert stopped.code == 0, stopped.stderr
    assert "crawler: agent t-1 ended with exit code 137 (SIGKILL); it starts again in 1 s\n" in stopped.stderr


def test_an_agent_that_lost_its_slots_comes_back(site: Nginx, tmp_path: Path) -> None:
    """It was stopped for longer than its lease, and ends by itself when it goes on."""
    crawl = configured(site, tmp_path)
    with managed(crawl, "-o", "frontier.lease=5s") as (process, _):
        assert wait_until(lambda: all("slots" in events(crawl, name) for name in NAMES), process)
        pid = pid_of(crawl, "t-1")
        os.kill(pid, signal.SIGSTOP)
        others = NAMES[1:]
        assert wait_until(lambda: any("agent_gone" in events(crawl, name) for name in others), process)
        os.kill(pid, signal.SIGCONT)
        assert wait_until(lambda: events(crawl, "t-1").count("ready") == 2, process)
        process.send_signal(signal.SIGTERM)
        stopped = ended(process)
    assert stopped.code == 0, stopped.stderr
    assert "crawler: agent t-1 ended with exit code 75" in stopped.stderr
    assert "Traceback" not in stopped.stderr


@pytest.mark.parametrize("kind", ["json", "journal"])
def test_whose_line_it_is_can_be_told(site: Nginx, tmp_path: Path, kind: str) -> None:
    """By a field of JSON. In the journal a record has its process, so it is as that of a single one. The options of the
    parent reach the agents, and what they listen on is apart.
    """
    crawl = configured(site, tmp_path)
    path = tmp_path / "stderr"
    with path.open("w") as stderr:
        stream = os.fstat(stderr.fileno())
        options = ["-o", f"admin.listen={tmp_path}/page.sock"] + (["-o", "log.stderr=json"] if kind == "json" else [])
        more = {"JOURNAL_STREAM": f"{stream.st_dev}:{stream.st_ino}"} if kind == "journal" else {}
        with managed(crawl, *options, stderr=stderr, **more) as (process, _):
            assert all((tmp_path / f"page-{name}.sock").is_socket() for name in NAMES)
            process.send_signal(signal.SIGTERM)
            assert ended(process).code == 0
    lines = [line for line in path.read_text().splitlines() if not line.startswith("crawler: ")]
    if kind == "json":
        found = [json.loads(line) for line in lines]
        assert {line["agent_name"] for line in found if line["event"] == "stop"} == set(NAMES)
        assert all("agent_name" in line for line in found)
    else:
        assert all(line.startswith("<") for line in lines)
        assert len([line for line in lines if line.startswith("<6>stop ")]) == NUMBER


def test_no_agent_outlives_its_parent(site: Nginx, tmp_path: Path) -> None:
    """They drain when it is killed."""
    crawl = configured(site, tmp_path)
    with managed(crawl) as (process, _):
        descriptors = [os.pidfd_open(pid_of(crawl, name)) for name in NAMES]
        process.kill()
        for descriptor in descriptors:
            assert select.select([descriptor], [], [], TIMEOUT_S)[0]
            os.close(descriptor)
    assert [events(crawl, name)[-1] for name in NAMES] == ["stop"] * NUMBER


def test_a_reload_reaches_all(site: Nginx, tmp_path: Path) -> None:
    crawl = configured(site, tmp_path)
    with managed(crawl) as (process, _):
        process.send_signal(signal.SIGHUP)
        assert wait_until(lambda: all("reload_ok" in events(crawl, name) for name in NAMES), process)
        process.send_signal(signal.SIGTERM)
        assert ended(process).code == 0


def test_the_watchdog_is_fed_until_one_stands_still(site: Nginx, tmp_path: Path) -> None:
    """It is aborted first, which a process that is stopped does not notice. When it goes on it does, and comes back."""
    crawl = configured(site, tmp_path)
    with managed(crawl, WATCHDOG_USEC="2000000") as (process, manager):
        assert wait_until(lambda: manager.count("WATCHDOG=1") > 0, process)
        pid = pid_of(crawl, "t-1")
        os.kill(pid, signal.SIGSTOP)
        manager.states.clear()
        assert wait_until(lambda: manager.count("STATUS=") >= 3, process)  # one every five seconds
        second, third = [n for n, state in enumerate(manager.states) if state.startswith("STATUS=")][1:3]
        assert "WATCHDOG=1" not in manager.states[second:third]
        os.kill(pid, signal.SIGCONT)
        manager.states.clear()
        assert wait_until(lambda: manager.count("WATCHDOG=1") > 0, process)
        process.send_signal(signal.SIGTERM)
        stopped = ended(process)
    assert "crawler: agent t-1 gives no sign of life: it is aborted\n" in stopped.stderr
    assert "ended with exit code 134 (SIGABRT); it starts again in 1 s\n" in stopped.stderr


def test_a_second_signal_ends_all_at_once(site: Nginx, tmp_path: Path) -> None:
    """Nobody waits for one that does not answer."""
    crawl = configured(site, tmp_path)
    with managed(crawl) as (process, manager):
        pid = pid_of(crawl, "t-1")
        os.kill(pid, signal.SIGSTOP)
        process.send_signal(signal.SIGINT)
        assert wait_until(lambda: manager.count("STOPPING=1") > 0, process)
        process.send_signal(signal.SIGINT)
        stopped = ended(process)
    assert stopped.code == 130, stopped.stderr
    assert "SIGINT: ended at once" in stopped.stderr
    assert not Path(f"/proc/{pid}").exists()


def test_a_mistake_that_no_restart_mends_ends_all(site: Nginx, tmp_path: Path) -> None:
    """An agent whose directory is a file, with the exit code for that."""
    crawl = configured(site, tmp_path)
    crawl.output.mkdir()
    (crawl.output / "t-1").touch()
    ran = run("run", "--agents", NUMBER, "-c", crawl.config)
    assert ran.code == 78, ran.stderr
    assert "crawler: agent t-1 ended with exit code 78, and a restart would not help: all agents end\n" in ran.stderr
    assert f"{crawl.output}/t-1 is not a directory" in ran.stderr


@pytest.mark.parametrize(
    ("number", "store", "words"),
    [
        ("2", "sqlite", '--agents needs frontier.store = "postgresql"'),
        ("0", "postgresql", "0 is not in the range 1<=x<=256"),
        ("257", "postgresql", "257 is not in the range 1<=x<=256"),
    ],
)
def test_what_cannot_be_is_refused(tmp_path: Path, number: str, store: str, words: str) -> None:
    keys: dict[str, dict[str, object]] = {
        "crawl": {"seeds": ["https://a.test/"]},
        "identity": IDENTITY,
        "output": {"directory": tmp_path / "out"},
        "frontier": {"store": store},
    }
    crawl = Crawl.of(tmp_path, keys)
    ran = run("run", "--agents", number, "-c", crawl.config)
    assert (ran.code, words in ran.stderr) == (2, True), ran.stderr
    assert not crawl.output.exists()
