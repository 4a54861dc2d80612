"""The command as others start it: by systemd, in a pipe, on a terminal, as `make run` does."""

import json
import os
import pty
import signal
import socket
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest

from tests.support.commands import TIMEOUT_S, Crawl, ended, environment, read_lines, run, running
from tests.support.nginx import Nginx
from tests.support.site_crawls import OTHER, sections, wait_until
from tests.support.warcs import records

pytestmark = pytest.mark.e2e

ESCAPE = "\x1b"


def daemon_config(server: Nginx, directory: Path) -> Crawl:
    output = directory / "out"
    identity: dict[str, object] = {"user_agent": "tested/1.0 (+https://example.org/bot)"}
    keys = sections(server, OTHER, identity=identity, output={"directory": output}, scope={"max_urls": 20})
    return Crawl.of(directory, keys, output=output)


def pages(server: Nginx) -> list[tuple[str, str]]:
    """What was asked and counts as a URL: /sitemap.xml is an errand, like robots.txt."""
    return [place for place in server.places() if place[1] != "/sitemap.xml"]


def test_the_daemon_tells_systemd_when_it_is_ready_and_when_it_stops(server: Nginx, tmp_path: Path) -> None:
    """READY=1, STATUS=… and STOPPING=1 on NOTIFY_SOCKET; it goes on when nothing is left; SIGTERM ends it with 0."""
    crawl = daemon_config(server, tmp_path)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as told:
        address = f"\0crawler-test-{os.getpid()}"  # the abstract namespace: a path below tmp_path may be too long
        told.bind(address)
        told.settimeout(TIMEOUT_S)
        env = environment(NOTIFY_SOCKET="@" + address[1:])
        with running("run", "-c", crawl.config, env=env) as process:
            first = told.recv(4096).decode()
            assert wait_until(lambda: len(pages(server)) >= 20, process)
            assert process.poll() is None
            process.send_signal(signal.SIGTERM)
            stopped = ended(process, timeout=20)
        told.setblocking(False)
        rest = []
        while True:
            try:
                rest.append(told.recv(4096).decode())
            except BlockingIOError:
                break
    assert first.startswith("READY=1\nSTATUS=")
    assert sum("STOPPING=1" in states.split("\n") for states in rest) == 1
    assert (stopped.code, stopped.stdout) == (0, "")
    assert "Traceback" not in stopped.stderr
    assert len(pages(server)) == 20  # scope.max_urls
    assert len(crawl.page_lines()) > 10


def test_a_redirected_daemon_prints_its_events(server: Nginx, tmp_path: Path) -> None:
    """In a file or a collector of logs: a line when it begins, where it is reached, what goes wrong, the end."""
    crawl = daemon_config(server, tmp_path)
    with running("run", "-c", crawl.config, "-o", "tls.verify=false") as process:
        assert process.stderr is not None
        assert process.stderr.readline().startswith("crawler: warning: ")  # of the configuration, as `check` says it
        said = [process.stderr.readline() for _ in range(3)]
        assert wait_until(lambda: len(pages(server)) > 1, process)
        process.send_signal(signal.SIGTERM)
        stopped = ended(process, timeout=20)
    assert stopped.code == 0
    lines = "".join([*said, stopped.stderr])
    shown = [line.split(" ") for line in lines.splitlines()]
    assert all(datetime.fromisoformat(words[0]).tzinfo == UTC for words in shown)
    named = [(words[1], words[2]) for words in shown]
    assert named[:3] == [("info", "start"), ("warning", "tls_verify_off"), ("info", "ready")]
    assert named[-1] == ("info", "stop")
    assert f"socket={crawl.output / 'control.sock'}" in shown[2]
    assert ESCAPE not in lines
    assert not any(line.startswith("<") for line in lines.splitlines())


def test_the_status_for_systemd_is_that_of_the_status_command(server: Nginx, tmp_path: Path) -> None:
    """A daemon with nothing to do is idle, in both."""
    crawl = daemon_config(server, tmp_path)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as told:
        address = f"\0crawler-status-{os.getpid()}"
        told.bind(address)
        told.settimeout(TIMEOUT_S)
        env = environment(NOTIFY_SOCKET="@" + address[1:])
        with running("run", "-c", crawl.config, "-o", "scope.max_urls=1", env=env) as process:
            while not (states := told.recv(4096).decode()).startswith("STATUS=idle: nothing to do"):
                assert process.poll() is None
            status = json.loads(run("status", "--output", crawl.output, "--json").stdout)
            assert states.startswith(f"STATUS={status['state']}: {status['sentence'].partition(';')[0]}")
            process.send_signal(signal.SIGTERM)
            assert ended(process, timeout=20).code == 0


def test_the_daemon_feeds_the_watchdog(server: Nginx, tmp_path: Path) -> None:
    """WATCHDOG=1 at least twice in each WATCHDOG_USEC."""
    crawl = daemon_config(server, tmp_path)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as told:
        address = f"\0crawler-watchdog-{os.getpid()}"
        told.bind(address)
        told.settimeout(TIMEOUT_S)
        env = environment(NOTIFY_SOCKET="@" + address[1:], WATCHDOG_USEC="200000")
        with running("run", "-c", crawl.config, env=env) as process:
            while told.recv(4096) != b"WATCHDOG=1":
                assert process.poll() is None
            process.send_signal(signal.SIGTERM)
            assert ended(process, timeout=20).code == 0


def test_run_json_has_the_paths_of_the_daemon(server: Nginx, tmp_path: Path) -> None:
    """Its pid, its configuration, its logs: how other commands find it by its output directory."""
    crawl = daemon_config(server, tmp_path)
    with running("run", "-c", crawl.config) as process:
        assert wait_until(lambda: server.count() >= 1, process)
        found = json.loads((crawl.output / "run.json").read_text())
        assert found["pid"] == process.pid
        assert found["configuration"] == str(crawl.config)
        assert found["logs"] == str(crawl.output / "logs")
        process.send_signal(signal.SIGTERM)
        assert ended(process, timeout=20).code == 0


def test_nothing_is_drawn_where_nobody_watches(server: Nginx, tmp_path: Path) -> None:
    """In a pipe: stderr has but what keeps URLs that are left, and without --json stdout is empty."""
    crawl = Crawl.of(tmp_path, sections(server, OTHER, scope={"max_urls": 5}))
    ran = run("crawl", "-c", crawl.config, "--output", crawl.output)
    assert (ran.code, ran.stdout) == (0, "")
    assert [line.partition(" ")[0] for line in ran.stderr.splitlines()] == ["crawler:"]
    assert "held back by scope.max_urls = 5" in ran.stderr
    crawl = Crawl.of(tmp_path, sections(server, OTHER))
    ran = run("crawl", "-c", crawl.config, "--output", crawl.output)
    assert (ran.code, ran.stdout, ran.stderr) == (0, "", "")


def test_a_terminal_gets_a_view_and_a_table(server: Nginx, tmp_path: Path) -> None:
    """With stderr a terminal: progress while it runs and a summary at the end; stdout has nothing."""
    crawl = Crawl.of(tmp_path, sections(server, OTHER, scope={"max_urls": 25}))
    ours, theirs = pty.openpty()
    shown = b""
    arguments = ("crawl", "-c", crawl.config, "--output", crawl.output)
    with running(*arguments, env=environment(TERM="xterm", COLUMNS="100"), stderr=theirs) as process:
        os.close(theirs)
        try:
            while chunk := os.read(ours, 65_536):
                shown += chunk
        except OSError:  # EIO: the other side of the terminal was closed
            pass
        done = ended(process)
    os.close(ours)
    text = shown.decode()
    assert (done.code, done.stdout) == (0, "")
    assert ESCAPE in text
    assert "scope.max_urls was reached" in text
    assert "requests each" in text


def test_the_demo_ends_well_and_stores_its_pages(tmp_path: Path) -> None:
    """`python -m crawler.demo`: exit 0, the pages of all its hosts in the archive, its log on what it skipped."""
    command = [sys.executable, "-m", "crawler.demo", "--json", "-o", "politeness.delay=0"]
    done = subprocess.run(
        command, cwd=tmp_path, env=environment(), capture_output=True, text=True, timeout=TIMEOUT_S, check=False
    )
    assert done.returncode == 0, done.stderr
    (said,) = done.stderr.splitlines()  # nothing is amiss: no more than what it does
    assert said.startswith("A small site is served here")
    output = tmp_path / "crawl" / "demo"
    stored = {record.url for path in (output / "warc").iterdir() for record in records(path) if record.status == 200}
    titles = {line["title"] for path in (output / "pages").iterdir() for line in read_lines(path)}
    assert {"The Keeper", "The handbook", "Glossaire", "Notes", "About", "Chapter 10"} <= titles
    assert "Log" not in titles  # robots.txt forbids it
    assert "Hidden" not in titles  # only a nofollow page leads there
    assert sum("/articles/" in url for url in stored) >= 36
