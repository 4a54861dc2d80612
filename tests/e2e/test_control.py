"""The running daemon is told what to do: reload, block, pause, stop, and asked how it stands."""

import json
import os
import signal
import subprocess
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from crawler.admin.control_socket import Control
from tests.support.commands import Crawl, Ran, ended, run, running
from tests.support.nginx import Nginx
from tests.support.raw_servers import closed_port
from tests.support.site_crawls import CDN, DOCS, OTHER, WWW, sections, wait_for_requests, wait_until

pytestmark = pytest.mark.e2e

AGENT = {"user_agent": "tested/1.0 (+https://example.org/bot)"}


def configured(server: Nginx, directory: Path, *hosts: str, **keys: dict[str, object]) -> Crawl:
    """A daemon's configuration; call it again with other keys to change the file."""
    output = directory / "out"
    more: dict[str, dict[str, object]] = {"identity": dict(AGENT), "output": {"directory": output}}
    return Crawl.of(directory, sections(server, *hosts, **more, **keys), output=output)


@contextmanager
def daemon(crawl: Crawl) -> Iterator[subprocess.Popen[str]]:
    """It runs and answers; it is killed at the end if the test has not stopped it."""
    with running("run", "-c", crawl.config) as process:
        assert wait_until(lambda: (crawl.output / "control.sock").exists(), process), ended(process).stderr
        yield process


def tell(crawl: Crawl, *arguments: object) -> Ran:
    return run(*arguments, "--output", crawl.output)


def stopped(process: subprocess.Popen[str]) -> Ran:
    process.send_signal(signal.SIGTERM)
    done = ended(process, timeout=60)
    assert "Traceback" not in done.stderr
    return done


def events(crawl: Crawl, name: str) -> list[dict[str, Any]]:
    return [line for line in crawl.events() if line["event"] == name]


def test_status_pause_resume_and_stop(server: Nginx, tmp_path: Path) -> None:
    """Found by -c as by --output; paused it asks for nothing, resumed it goes on, stop ends it as SIGTERM does."""
    crawl = configured(server, tmp_path, WWW, politeness={"delay": "20ms", "adaptive": False})
    with daemon(crawl) as process:
        assert wait_for_requests(server, process, 5)
        status = json.loads(run("status", "-c", crawl.config, "--json").stdout)
        assert (status["pid"], status["mode"], status["state"]) == (process.pid, "run", "crawling")
        assert status["counts"]["responses"] >= 4
        assert all(one["limit"] is None or one["held"] <= one["limit"] for one in status["memory"])
        assert tell(crawl, "pause").stdout == "paused\n"
        assert wait_until(lambda: not json.loads(tell(crawl, "status", "--json").stdout)["in_flight"], process)
        before = server.count()
        # each of these takes a process's start, many of the delays of 20 ms after which an unpaused crawl would ask
        assert all("paused by the operator" in tell(crawl, "status").stdout for _ in range(3))
        assert server.count() == before
        assert tell(crawl, "resume").stdout == "resumed\n"
        assert wait_for_requests(server, process, before + 5)
        assert tell(crawl, "block", WWW).code == 0
        assert wait_until(lambda: tell(crawl, "status").stdout.partition(":")[0].endswith("is idle"), process)
        idle = json.loads(tell(crawl, "status", "--json").stdout)
        assert (idle["state"], idle["bottleneck"]) == ("idle", "empty")
        assert f"{idle['urls']['queued']:,} URLs of https://{WWW}" in idle["sentence"]
        assert "blocked by the operator" in idle["sentence"]
        assert tell(crawl, "stop", "--wait").stdout == "stopped\n"
        assert ended(process, timeout=20).code == 0
    assert [(line["event"], line["reason"]) for line in crawl.events() if line["event"] in ("drain", "stop")] == [
        ("drain", "operator"), ("stop", "operator"),
    ]  # fmt: skip
    gone = tell(crawl, "status")
    assert (gone.code, gone.stdout) == (69, "")
    assert "no crawler is running here" in gone.stderr
    assert [line["command"] for line in events(crawl, "control")] == ["pause", "resume", "block", "stop"]


def test_a_reload_comes_into_force_whole_or_not_at_all(server: Nginx, tmp_path: Path) -> None:
    """A preview changes nothing; a mistake is told with its place and leaves everything as it was; a good file is in
    force at once, by command as by SIGHUP; what needs a restart is named and left.
    """
    slow: dict[str, object] = {"delay": "50ms", "adaptive": False}
    crawl = configured(server, tmp_path, WWW, politeness=slow)
    with daemon(crawl) as process:
        assert wait_for_requests(server, process, 8)
        configured(server, tmp_path, WWW, politeness=slow, scope={"exclude": ["/gz/**"]}, engine={"workers": 3})
        preview = json.loads(tell(crawl, "reload", "--dry-run", "--json").stdout)
        assert [one["key"] for one in preview["changed"]] == ["scope.exclude"]
        assert preview["needs_restart"] == ["engine.workers"]
        assert preview["preview"]["queued_dropped"] > 0
        crawl.config.write_text(crawl.config.read_text() + "[scoop]\n")
        refused = tell(crawl, "reload")
        assert refused.code == 78
        assert 'unknown section "scoop"' in refused.stderr
        assert "the current configuration stays" in refused.stderr
        assert "last warnings\n" in tell(crawl, "status").stdout
        assert "reload_failed" in tell(crawl, "status").stdout
        configured(server, tmp_path, WWW, politeness=slow, scope={"exclude": ["/gz/**"]}, engine={"workers": 3})
        done = tell(crawl, "reload")
        assert (done.code, done.stderr) == (0, "")
        assert "changed: scope.exclude" in done.stdout
        assert "needs a restart: engine.workers" in done.stdout
        assert "reload_failed" not in tell(crawl, "status").stdout, "a mistake that was mended is no warning"
        before = len(server.places())
        assert wait_until(lambda: len(server.places()) >= before + 12, process)
        assert sum(target.startswith("/gz/") for _, target in server.places()[before + 1 :]) == 0
        configured(server, tmp_path, WWW, politeness=slow)
        process.send_signal(signal.SIGHUP)
        assert wait_until(lambda: len(events(crawl, "reevaluation_over")) >= 2, process)
        assert events(crawl, "reevaluation_over")[-1]["queued"] > 0
        before = len(server.places())
        assert wait_until(lambda: any(target.startswith("/gz/") for _, target in server.places()[before:]), process), (
            "what the wider scope allows again was not asked for"
        )
        stopped(process)
    (failed,) = events(crawl, "reload_failed")
    assert (failed["file"], failed["line"], failed["column"]) == (str(crawl.config), failed["line"], 2)
    first, second = events(crawl, "reload_ok")
    assert first["changed"] == second["changed"] == ["scope.exclude"]
    assert (first["old"], first["new"]) == ({"scope.exclude": "[]"}, {"scope.exclude": '["/gz/**"]'})
    assert (second["old"], second["new"]) == (first["new"], first["old"])


def test_a_crawl_that_was_started_with_a_file_reads_it_again(server: Nginx, tmp_path: Path) -> None:
    """So it can be slowed down while it runs. What was given beside the file stays: the URL and the options."""
    crawl = configured(server, tmp_path, WWW, politeness={"delay": "50ms", "adaptive": False})
    url = server.url(WWW)
    with running("crawl", url, "-c", crawl.config, "--exclude", "/gz/**") as process:
        assert wait_for_requests(server, process, 5)
        assert tell(crawl, "reload").stdout == "nothing changed\n"
        configured(server, tmp_path, WWW, politeness={"delay": "60s", "adaptive": False})
        assert tell(crawl, "reload").stdout == 'changed: politeness.delay = "1m"   (was "50ms")\n'
        process.send_signal(signal.SIGHUP)  # as when its terminal is closed: it ends
        assert ended(process, timeout=30).code == 75
    assert [line["changed"] for line in events(crawl, "reload_ok")][-1] == ["politeness.delay"]


def test_a_refused_reload_opens_the_logs_anew_all_the_same(server: Nginx, tmp_path: Path) -> None:
    """Logrotate moves a file away and reloads: a mistake in the configuration must not send lines to the old file."""
    crawl = configured(server, tmp_path, OTHER, scope={"max_urls": 1})
    with daemon(crawl) as process:
        (crawl.logs / "events.jsonl").rename(crawl.logs / "events.jsonl-20261129")
        crawl.config.write_text(crawl.config.read_text() + "[scoop]\n")
        assert tell(crawl, "reload").code == 78
        assert wait_until((crawl.logs / "events.jsonl").exists, process)
        stopped(process)
    assert "reload_failed" in [line["event"] for line in crawl.events()]


def test_a_start_with_a_wider_scope_takes_back_what_a_narrower_one_denied(server: Nginx, tmp_path: Path) -> None:
    """A directory is crawled, resumed under a scope that drops half of it, and resumed under the first one again."""
    crawl = configured(server, tmp_path, OTHER, scope={"max_urls": 10})
    assert crawl.run().code == 0
    configured(server, tmp_path, OTHER, scope={"exclude": ["/pages/**"]})
    assert crawl.run().code == 0
    asked = len(server.places())
    listed = run("export", "urls", "--state", "denied", "--output", crawl.output).stdout.splitlines()
    denied = {line["url"] for line in map(json.loads, listed) if line["last_error"] == "scope_exclude"}
    assert len(denied) > 5
    configured(server, tmp_path, OTHER)
    assert crawl.run().code == 0
    again = [server.url(*place) for place in server.places()[asked:]]
    assert denied <= set(again)
    assert max(Counter(server.places()).values()) == 1
    assert events(crawl, "reevaluation_over")[-1]["queued"] == len(denied)


def reloads_under_load(server: Nginx, directory: Path, count: int) -> None:
    """Reload `count` times while a whole site is fetched; every page must be stored once, and no fetch may fail."""
    variants: list[dict[str, dict[str, object]]] = [
        {"fetch": {"read_timeout": "29s"}, "politeness": {"delay": 0, "connections_per_host": 3}},
        {"content": {"max_links": 4_000}, "politeness": {"delay": 0, "connections_per_host": 8}},
        {"scope": {"max_depth": 50}, "log": {"level": "debug"}},
        {"tls": {"min_version": "1.3"}, "fetch": {"idle_timeout": "31s"}},
    ]
    crawl = configured(server, directory, WWW, DOCS, OTHER, **variants[0])
    wanted = server.site.wanted(WWW, DOCS, OTHER)
    with daemon(crawl) as process:
        with Control(crawl.output / "control.sock") as control:
            for n in range(count):
                configured(server, directory, WWW, DOCS, OTHER, **variants[n % len(variants)])
                assert "changed" in control.call("reload", {"dry_run": False}, timeout_s=60)
        assert wait_until(lambda: len(set(server.places()) & wanted) == len(wanted), process)
        stopped(process)
    fetches = crawl.fetches()
    assert Counter(line["outcome"] for line in fetches if line["outcome"] in ("error", "truncated")) == Counter()
    asked = Counter(place for place in server.places() if place[1] != "/robots.txt")
    assert [place for place, times in asked.items() if times > 1] == []
    assert len(events(crawl, "reload_ok")) == count
    stored = Counter(line["url"] for line in crawl.page_lines())
    assert max(stored.values()) == 1
    assert set(stored) == {server.url(*place) for place in wanted if place in server.site.bodies}


def test_reloads_under_load_lose_nothing(server: Nginx, tmp_path: Path) -> None:
    """Options of every kind change under way, connections and scope among them."""
    reloads_under_load(server, tmp_path, 20)


@pytest.mark.prove
def test_two_hundred_reloads_under_load_lose_nothing(server: Nginx, tmp_path: Path) -> None:
    """The full count."""
    reloads_under_load(server, tmp_path, 200)


def test_a_block_stops_every_request_for_good(server: Nginx, tmp_path: Path) -> None:
    """Within a second, for all hosts below the name, after a restart too; others go on, and unblocked it goes on."""
    keys: dict[str, dict[str, object]] = {"politeness": {"delay": "100ms", "adaptive": False}}
    crawl = configured(server, tmp_path, WWW, DOCS, OTHER, **keys)
    with daemon(crawl) as process:
        assert wait_for_requests(server, process, 10)
        assert "blocked alpha.test: 0 hosts" in tell(crawl, "block", "alpha.test", "--host-only").stdout
        done = tell(crawl, "block", "alpha.test", "--reason", "they asked us to")
        assert "blocked alpha.test and all below it: 2 hosts" in done.stdout
        assert "changed: covers = it and below   (was it alone)" in done.stdout
        assert "changed: reason = they asked us to   (was none given)" in done.stdout
        assert "was blocked already: 2 hosts, 0 connections closed\n" in tell(crawl, "block", "alpha.test").stdout
        blocked_from = len(server.places())
        assert wait_until(lambda: len(server.places()) >= blocked_from + 10, process)
        assert {host for host, _ in server.places()[blocked_from:]} <= {OTHER, CDN}
        assert json.loads(tell(crawl, "status", "--json").stdout)["hosts"]["blocked"] == 2
        os.kill(process.pid, signal.SIGKILL)
        ended(process)
    server.forget()
    with daemon(crawl) as process:
        assert wait_for_requests(server, process, 5)
        assert {host for host, _ in server.places()} <= {OTHER, CDN}
        (block,) = [json.loads(line) for line in tell(crawl, "block", "--list").stdout.splitlines()]
        assert (block["name"], block["kind"], block["reason"]) == ("alpha.test", "domain", "they asked us to")
        wrong = tell(crawl, "unblock", WWW)
        assert (wrong.code, wrong.stderr) == (1, f"crawler: {WWW} is blocked by alpha.test\n")
        stopped(process)
    # while no crawl runs, the store is changed all the same
    assert "alpha.test and all below it was blocked already" in tell(crawl, "block", "https://alpha.test/x").stdout
    assert "they asked us to" in tell(crawl, "unblock", "alpha.test").stdout
    assert tell(crawl, "unblock", "alpha.test").code == 1
    assert tell(crawl, "block", "--list").stdout == ""
    with daemon(crawl) as process:
        assert wait_until(lambda: {WWW, DOCS} <= {host for host, _ in server.places()}, process)
        stopped(process)


def test_an_unblock_counts_the_hosts_that_it_frees(server: Nginx, tmp_path: Path) -> None:
    """Those that are not in memory too."""
    keys: dict[str, dict[str, object]] = {"politeness": {"delay": "100ms"}, "engine": {"active_hosts": 1}}
    crawl = configured(server, tmp_path, WWW, DOCS, OTHER, **keys)
    with daemon(crawl) as process:
        assert wait_for_requests(server, process, 2)
        for host in (WWW, DOCS, OTHER):
            assert f"blocked {host} and all below it: 1 host" in tell(crawl, "block", host).stdout
            assert f"unblocked {host}: 1 host\n" in tell(crawl, "unblock", host).stdout
        stopped(process)


def test_a_host_that_cannot_be_reached_is_retried_when_told(server: Nginx, tmp_path: Path) -> None:
    """At once, by the running crawl as after it; what was done is said, and an unknown host is a mistake."""
    dead = f"http://127.0.0.1:{closed_port()}"
    held = f"{dead}: woken; its robots.txt cannot be read (connect_refused), and is requested again\n"
    crawl = configured(server, tmp_path, OTHER, crawl={"seeds": [f"{dead}/"]})
    with daemon(crawl) as process:
        assert wait_until(lambda: len(events(crawl, "host_state")) >= 3, process)  # then it would wait for 15 minutes
        nobody = tell(crawl, "retry", "nobody.test")
        assert (nobody.code, nobody.stderr) == (1, "crawler: the store knows no host nobody.test\n")
        told = tell(crawl, "retry", "127.0.0.1")
        assert (told.code, told.stdout, told.stderr) == (0, held, "")
        assert wait_until(lambda: len(events(crawl, "host_state")) >= 4, process)
        stopped(process)
    assert tell(crawl, "retry", "127.0.0.1").stdout == held
    assert tell(crawl, "retry", "nobody.test").code == 1


def test_commands_report_that_no_daemon_runs(tmp_path: Path) -> None:
    """Exit 69 and one line, whatever is missing; naming no crawl at all is a mistake of usage."""
    for command in (
        ("status",),
        ("pause",),
        ("resume",),
        ("reload",),
        ("stop",),
    ):
        done = run(*command, "--output", tmp_path / "nowhere")
        assert (done.code, done.stdout) == (69, "")
        assert done.stderr.count("\n") == 1
        assert run(*command, cwd=tmp_path).code == 2
