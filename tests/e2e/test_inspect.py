"""Looking at a real crawl with the commands its users have: while it runs, afterwards, and where it is not whole."""

import gzip
import json
import os
import pty
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.e2e.conftest import Whole
from tests.support.commands import Crawl, Ran, command, ended, environment, read_lines, run, running
from tests.support.nginx import Nginx
from tests.support.site_crawls import OTHER, WWW, sections, wait_until

pytestmark = pytest.mark.e2e


def look(whole: Whole, *arguments: object) -> Ran:
    ran = run(*arguments, "--output", whole.crawl.output)
    assert (ran.code, ran.stderr) == (0, ""), ran.stderr
    return ran


def test_logs_are_the_lines_as_they_stand(whole: Whole) -> None:
    """Piped, every line is the JSON of the file; filters choose among them."""
    raw = (whole.crawl.logs / "fetch.jsonl").read_text()
    assert look(whole, "logs").stdout == raw
    assert run("logs", "-c", whole.crawl.config, "--output", whole.crawl.output).stdout == raw
    lines = [json.loads(line) for line in raw.splitlines()]
    chosen = [json.loads(line) for line in look(whole, "logs", "--host", OTHER, "--status", "200").stdout.splitlines()]
    assert chosen == [
        line for line in lines if line["server_address"] == OTHER and line.get("http_response_status_code") == 200
    ]
    assert chosen
    events = look(whole, "logs", "--event", "conn_close").stdout.splitlines()
    assert len(events) == sum(line["event"] == "conn_close" for line in whole.crawl.events())


def test_a_terminal_gets_lines_for_people(whole: Whole) -> None:
    """Colours, columns, no JSON."""
    first, second = pty.openpty()
    told = command("logs", "--outcome", "ok", "-n", "3", "--output", whole.crawl.output)
    ran = subprocess.run(told, stdout=second, stderr=second, env=environment(TERM="xterm"), timeout=30, check=False)
    os.close(second)
    shown = os.read(first, 65_536).decode()
    os.close(first)
    assert ran.returncode == 0
    assert len(shown.splitlines()) == 3
    assert "\x1b[32m200 ok" in shown
    assert "{" not in shown


def test_why_tells_the_end_of_every_page(whole: Whole) -> None:
    """What the log says of a page is what `why` says of it, found by look-ups and one bisection."""
    fetched = [line for line in whole.crawl.fetches() if line["outcome"] == "ok" and line["source"] == "link"]
    for line in (fetched[0], fetched[-1]):
        told = json.loads(look(whole, "why", line["url_full"], "--json").stdout)
        assert told["verdict"] == "fetched"
        assert told["history"] == [line]
        found = next(step for step in told["chain"] if step["step"] == "found")
        assert found["via"][0] == line["via"]
        archive = next(step for step in told["chain"] if step["step"] == "archive")
        assert (archive["file"], archive["offset"]) == (line["warc_file"], line["warc_offset"])
    unseen = json.loads(look(whole, "why", "https://nowhere.test/", "--json").stdout)
    assert (unseen["verdict"], unseen["deny_reason"]) == ("would_deny", "scope_host")
    robots = next(line for line in whole.crawl.fetches() if line.get("kind") == "robots")
    told = json.loads(look(whole, "why", robots["url_full"], "--json").stdout)
    assert told["headline"].startswith("requested as robots.txt, not as a page: status ")
    assert told["history"] == [robots]
    assert "1 attempt" in look(whole, "why", robots["url_full"]).stdout


def test_hosts_and_report_count_what_the_server_saw(whole: Whole) -> None:
    """Requests of the report are those of nginx's log; each host has its line."""
    hosts = [json.loads(line) for line in look(whole, "hosts", "--json").stdout.splitlines()]
    assert {host["host"].partition(":")[0] for host in hosts} >= {WWW, OTHER}
    assert all(host["queued"] == 0 for host in hosts)
    told = json.loads(look(whole, "report", "--json").stdout)
    assert told["connections"]["requests"] == len(whole.requests)
    assert told["totals"]["pages"] == whole.ran.summary["pages"]
    assert told["connections"]["opened"] == whole.ran.summary["connections_opened"]
    assert told["seeds_not_reached"] == {"seeds": [], "all_looked_through": True}
    text = look(whole, "report").stdout
    assert "TLS handshakes" in text
    asked = look(whole, "report", "--host", OTHER, "--json").stdout.splitlines()
    summary = json.loads(asked[-1])
    assert summary["requests"] == len(asked) - 1 - summary["denied"]
    assert summary["requests"] == sum(request.host.partition(":")[0] == OTHER for request in whole.requests)


def test_a_crawl_is_looked_at_while_it_runs(server: Nginx, tmp_path: Path) -> None:
    """Store, logs and connections of a daemon at work; `logs -f` sees lines as they come; `top` sees it go."""
    identity: dict[str, object] = {"user_agent": "tested/1.0 (+https://example.org/bot)"}
    output = tmp_path / "out"
    keys = sections(
        server, OTHER, identity=identity, output={"directory": output}, politeness={"delay": "50ms"},
    )  # fmt: skip
    crawl = Crawl.of(tmp_path, keys, output=output)
    with running("run", "-c", crawl.config) as process:
        assert wait_until(lambda: server.count() >= 5, process)
        with running("logs", "-c", crawl.config, "-f", "-n", "0") as following:
            assert following.stdout is not None
            assert json.loads(following.stdout.readline())["event"] == "fetch"
        told = json.loads(run("why", server.url(OTHER), "-c", crawl.config, "--json").stdout)
        assert told["verdict"] == "fetched"
        assert told["rules_from"] == "the running crawl"
        (host,) = map(json.loads, run("hosts", "-c", crawl.config, "--host", OTHER, "--json").stdout.splitlines())
        assert host["connections_open"] == 1
        assert host["queued"] > 0
        queued = run("top", "-c", crawl.config, "--json", "-n", "2", "--interval", "0.2").stdout.splitlines()
        assert [json.loads(line)["state"] for line in queued if line] == ["crawling", "crawling"]
        crawl.config.write_text(crawl.config.read_text() + "[content]\n")
        assert "other rules" not in run("why", server.url(OTHER), "-c", crawl.config).stderr
        crawl.config.write_text(crawl.config.read_text().replace("[scope]", '[scope]\nexclude = ["/new/**"]'))
        assert "the running crawl has other rules" in run("why", server.url(OTHER), "-c", crawl.config).stderr
        process.kill()
        ended(process)
    gone = run("top", "-c", crawl.config)
    assert (gone.code, gone.stdout) == (69, "")
    after = run("hosts", "--output", output, "--host", OTHER, "--json")  # beside the write-ahead log that the kill left
    assert (after.code, len(after.stdout.splitlines())) == (0, 1)


def test_rotated_and_compressed_parts_are_one_log(whole: Whole, tmp_path: Path) -> None:
    """Whoever compressed the old parts loses nothing."""
    raw = (whole.crawl.logs / "fetch.jsonl").read_bytes().splitlines(keepends=True)
    logs = tmp_path / "logs"
    logs.mkdir()
    (logs / "fetch.jsonl.2.gz").write_bytes(gzip.compress(b"".join(raw[:100])))
    (logs / "fetch.jsonl.1").write_bytes(b"".join(raw[100:200]))
    (logs / "fetch.jsonl").write_bytes(b"".join(raw[200:]))
    ran = run("logs", "--output", tmp_path)
    assert (ran.code, ran.stdout.encode(), ran.stderr) == (0, b"".join(raw), "")
    assert json.loads(run("report", "--output", tmp_path, "--all", "--json").stdout)["totals"]["attempts"] == len(raw)


def test_what_cannot_be_read_is_reported_and_the_rest_is_shown(whole: Whole, tmp_path: Path) -> None:
    """Malformed lines, a cut archive, a missing store: clear words, the right exit code, and all that is left."""
    copy = tmp_path / "copy"
    shutil.copytree(whole.crawl.output, copy)
    (copy / "run.json").unlink()
    fetches = copy / "logs" / "fetch.jsonl"
    lines = fetches.read_bytes().splitlines(keepends=True)
    fetches.write_bytes(b"".join(lines[:5]) + b"\x00\x00garbage\n" + b"".join(lines[5:]) + b'{"ts":"2026')
    (copy / "logs" / "fetch.jsonl.1.gz").write_bytes(gzip.compress(lines[0] * 3)[:-9])
    ran = run("logs", "--output", copy)
    assert ran.code == 0
    assert ran.stdout.encode().endswith(b"".join(lines))
    assert "left out 2 lines without valid JSON" in ran.stderr
    assert "fetch.jsonl.1.gz: cannot be read to its end" in ran.stderr
    told = run("why", "https://nowhere.test/", "--output", copy)
    assert (told.code, "not known: the crawl left no run.json" in told.stdout) == (0, True)
    (copy / "frontier.db").write_bytes(b"x" * 5000)
    for asked in ("why https://a.test/", "hosts"):
        ran = run(*asked.split(), "--output", copy)
        assert (ran.code, ran.stdout) == (65, ""), asked
        assert re.fullmatch(r"crawler: \S+frontier.db is damaged or no database: .*\n", ran.stderr), ran.stderr
    (copy / "frontier.db").unlink()
    assert run("hosts", "--output", copy).code == 74
    ran = run("report", "--output", copy, "--json")
    assert (ran.code, json.loads(ran.stdout)["seeds_not_reached"]) == (0, None)
    assert "there is no store" in ran.stderr


def test_reading_stops_where_nobody_reads(whole: Whole) -> None:
    """`crawler logs | head` is no error."""
    with running("logs", "--output", whole.crawl.output) as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.stdout.close()
        assert process.wait(timeout=30) == 0
        assert process.stderr is not None
        assert process.stderr.read() == ""
    assert read_lines(whole.crawl.logs / "fetch.jsonl")
