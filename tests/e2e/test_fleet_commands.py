"""Commands that look at agents which share a database: while they crawl, and when they have ended."""

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.support.commands import Crawl, ended, run, running
from tests.support.nginx import Nginx, Site, ask, nginx
from tests.support.postgresql import new_database
from tests.support.site_crawls import wait_until

pytestmark = pytest.mark.e2e

HOSTS = [f"site{n}.d{n}.test" for n in range(10)]
AGENTS = ("a1", "a2")


class Fleet:
    """Agents with a configuration each and one database."""

    def __init__(self, server: Nginx, folder: Path) -> None:
        self.server = server
        self.folder = folder
        self.dsn = new_database()
        self.crawls = [self._agent(number, name) for number, name in enumerate(AGENTS, 1)]

    def _agent(self, number: int, name: str) -> Crawl:
        keys: dict[str, dict[str, object]] = {
            "identity": {"user_agent": "tested/1.0 (+https://example.org/bot)"},
            "crawl": {"seeds": [self.server.url(HOSTS[0], "/img/paper.png")]},
            "scope": {"hosts": ["*.test"]},
            "politeness": {"delay": 0, "connections_per_host": 8},
            "network": {
                "allow_private": ["127.0.0.0/8"], "ca_file": self.server.ca_file,
                "bind_address": f"127.0.1.{number}", "resolve": {host: ["127.0.0.1"] for host in HOSTS},
            },
            "output": {"directory": str(self.folder / name / "out")},
            "admin": {"listen": str(self.folder / name / "page.sock")},
            "frontier": {"store": "postgresql", "dsn": self.dsn, "agent": name, "lease": "5s"},
        }  # fmt: skip
        (self.folder / name).mkdir()
        return Crawl.of(self.folder / name, keys)

    def look(self) -> dict[str, Any]:
        """`crawler fleet`; without agents before the first one has made the tables."""
        shown = run("fleet", "-c", self.crawls[0].config, "--json").stdout
        found: dict[str, Any] = json.loads(shown) if shown else {"agents": []}
        return found

    def slots(self) -> list[int]:
        return [one["slots"] for one in self.look()["agents"]]

    @contextmanager
    def started(self) -> Iterator[list[subprocess.Popen[str]]]:
        """Both agents, when each has half of the slots."""
        with running("run", "-c", self.crawls[0].config) as one, running("run", "-c", self.crawls[1].config) as two:
            assert wait_until(lambda: self.slots() == [512, 512], two), ended(two).stderr
            yield [one, two]

    def is_done(self) -> bool:
        found = self.look()
        urls = found["urls"]
        wanted = len(self.server.site.wanted())
        return urls["queued"] == urls["waiting"] == found["inbox_urls"] == 0 and urls["done"] >= wanted


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    """Two agents that have crawled everything, each its hosts."""
    with nginx(Site(dict.fromkeys(HOSTS, 8))) as server:
        fleet = Fleet(server, tmp_path_factory.mktemp("fleet"))
        with fleet.started() as processes:
            added = run("add", server.url(HOSTS[0]), "-c", fleet.crawls[0].config)
            assert added.code == 0, added.stderr
            assert wait_until(fleet.is_done, processes[0]), ended(processes[0]).stderr
            for process in processes:
                process.send_signal(signal.SIGTERM)
            for process in processes:
                assert ended(process).code == 0
        yield fleet


def test_verify_checks_the_directory_of_each_agent_and_all_together(fleet: Fleet) -> None:
    """Alone, nothing of another agent is missing. Together they have everything, once; one that is left out is said."""
    one, two = (crawl.output for crawl in fleet.crawls)
    for folder in (one, two):
        alone = run("verify", folder)
        assert (alone.code, alone.stdout) == (0, ""), alone.stdout
        assert "in files of other agents" in alone.stderr
    both = run("verify", one, two)
    assert (both.code, both.stdout, "other agents" in both.stderr) == (0, "", False), both.stdout
    twice = run("verify", one, one)
    assert (twice.code, "2 of these directories are of the agent a1" in twice.stderr) == (2, True), twice.stderr


def test_verify_finds_a_file_in_the_directory_of_another_agent(fleet: Fleet) -> None:
    one, two = (crawl.output for crawl in fleet.crawls)
    foreign = two / "warc" / fleet.crawls[0].warcs()[0].name
    os.link(fleet.crawls[0].warcs()[0], foreign)
    try:
        both = run("verify", one, two)
    finally:
        foreign.unlink()
    assert (both.code, both.stdout) == (1, f"warc/{foreign.name}: unknown to the store\n")


def test_reading_commands_have_the_counts_of_the_whole_crawl(fleet: Fleet) -> None:
    """From the directory of either agent."""
    urls, reports = [], []
    for crawl in fleet.crawls:
        exported = run("export", "urls", "--output", crawl.output)
        assert exported.code == 0, exported.stderr
        urls.append(sorted(json.loads(line)["url"] for line in exported.stdout.splitlines()))
        report = run("report", "--output", crawl.output, "--json")
        assert report.code == 0, report.stderr
        reports.append(report.summary["urls"])
    assert urls[0] == urls[1]
    assert {fleet.server.url(*place) for place in fleet.server.site.wanted()} <= set(urls[0])
    assert reports[0] == reports[1]


def test_why_and_hosts_name_the_agent(fleet: Fleet) -> None:
    """`why` says where the log of the last attempt is. When all have left, no agent has a host."""
    first, second = fleet.crawls
    theirs = next(line["url_full"] for line in second.fetches() if line["url_full"].endswith(".html"))
    ours = next(line["url_full"] for line in first.fetches() if line["url_full"].endswith(".html"))
    for crawl, url, log_agent in ((first, theirs, "a2"), (first, ours, None), (second, ours, "a1")):
        told = run("why", url, "--output", crawl.output, "--json").summary
        assert (told["agent"], told["log_agent"], told["verdict"]) == (None, log_agent, "fetched"), told
        assert len(told["history"]) == (0 if log_agent else 1)
    text = run("why", theirs, "--output", first.output).stdout
    assert "no agent has the host now; the last attempt was a2's, and is in the log in its output directory" in text
    assert "1 of them in the logs of other agents (the last of a2)" in text
    listed = run("hosts", "--output", first.output, "--json").stdout.splitlines()
    assert [json.loads(line)["agent"] for line in listed] == [None] * len(HOSTS)


def test_fleet_says_that_no_agent_lives(fleet: Fleet) -> None:
    shown = run("fleet", "-c", fleet.crawls[0].config)
    assert (shown.code, shown.stderr) == (69, "")
    assert "no agent lives: nothing is crawled" in shown.stdout
    found = fleet.look()
    assert [(one["name"], one["state"], one["slots"]) for one in found["agents"]] == [
        ("a1", "left", 0), ("a2", "left", 0),
    ]  # fmt: skip
    assert (found["alive"], found["free_slots"], found["inbox_urls"]) == (0, 1024, 0)


def test_what_agents_know_of_each_other_while_they_live(fleet: Fleet) -> None:
    """`fleet`, `hosts` and `why` from any directory; `status` and the metrics of one. Their store cannot be copied."""
    first, second = fleet.crawls
    with fleet.started():
        found = fleet.look()
        assert [(agent["state"], agent["slots"]) for agent in found["agents"]] == [("alive", 512)] * 2
        assert (found["alive"], found["free_slots"], found["attention"]) == (2, 0, [])
        assert "2 agents live in the database" in run("fleet", "--output", second.output).stdout
        listed = [json.loads(line) for line in run("hosts", "--output", second.output, "--json").stdout.splitlines()]
        assert {one["agent"] for one in listed} == set(AGENTS)
        told = run("why", listed[0]["origin"] + "/", "--output", second.output, "--json").summary
        assert told["agent"] == listed[0]["agent"]
        status = run("status", "--output", first.output, "--json").summary
        knows = status["fleet"]
        assert (knows["agent"], knows["alive"], knows["slots"], knows["lease_s"]) == ("a1", 2, 512, 5.0)
        assert 0 <= knows["renewed_s"] < 5
        assert 0 < knows["look_s"] < 5
        assert "2 alive; a1 has 512 slots, renewed its lease" in run("status", "--output", first.output).stdout
        page = ask(first.output.parent / "page.sock", "/metrics").decode()
        assert {"crawler_agents_alive 2", "crawler_slots_owned 512", "crawler_inbox_urls 0"} <= set(page.split("\n"))
        refused = run("frontier", "copy", fleet.dsn, fleet.folder / "copy.db")
        assert (refused.code, "in use by the agents a1, a2" in refused.stderr) == (75, True), refused.stderr


def test_fleet_shows_leases_that_are_overdue(fleet: Fleet) -> None:
    """One agent was killed, and the other stands still, so that nobody takes its slots over."""
    with fleet.started() as (one, two):
        one.kill()
        one.wait()
        two.send_signal(signal.SIGSTOP)
        assert wait_until(lambda: fleet.look()["alive"] == 0, two)
        found = fleet.look()
        assert [agent["state"] for agent in found["agents"]] == ["overdue"] * 2
        texts = [entry["text"] for entry in found["attention"]]
        assert texts[0] == "no agent lives: nothing is crawled"
        assert texts[1].startswith("a1 renewed its lease of 5 s ")


def test_a_copy_is_one_store_with_what_all_have_stored(fleet: Fleet) -> None:
    """The output files of all agents, brought together, belong to it."""
    folder = fleet.folder / "one"
    folder.mkdir()
    copied = run("frontier", "copy", fleet.dsn, folder / "frontier.db")
    assert copied.code == 0, copied.stderr
    (folder / "logs").mkdir()
    os.link(fleet.crawls[0].logs / "fetch.jsonl", folder / "logs" / "fetch.jsonl")
    for sink in ("warc", "pages"):
        (folder / sink).mkdir()
        for crawl in fleet.crawls:
            for path in (crawl.output / sink).iterdir():
                os.link(path, folder / sink / path.name)
    checked = run("verify", folder)
    assert (checked.code, checked.stdout) == (0, ""), checked.stderr
