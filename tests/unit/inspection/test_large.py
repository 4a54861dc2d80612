"""A gigabyte of log, and ten million URLs: quick, and in bounded memory.

What takes time is counted: lines that are parsed, steps of SQLite. Seconds are measured with the large inputs only.
"""

import json
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import apsw
import orjson
import pytest
from click.testing import CliRunner

from crawler.cli import cli
from crawler.core.url import key_of
from crawler.frontier.sqlite.database import Database
from crawler.frontier.sqlite.sql import ManyRows
from tests.support.commands import command, environment
from tests.support.log_lines import fetch_lines, write

LIMIT_S = 16.0  # for a gigabyte, with the start
INSERT = ManyRows(7, "INSERT INTO url (host, hash, depth, target, source, hop_path, found_at)")
WHY_S = 0.5
WHY_STEPS = 5_000  # of the virtual machine of SQLite; it takes 500
MEMORY = 512 * 1024 * 1024
LOG_COMMANDS = (
    ("logs",),
    ("logs", "--outcome", "error"),
    ("report", "--all", "--json"),
    ("hosts", "--since", "2020-01-01", "--json"),
)


def cost(*arguments: object) -> tuple[float, float, str]:
    """Wall-clock seconds, seconds of CPU and output of a command that may take MEMORY of address space."""

    def bounded() -> None:
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))

    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    done = subprocess.run(
        command(*arguments), capture_output=True, text=True, check=True, env=environment(), preexec_fn=bounded
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    spent = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return time.monotonic() - began, spent, done.stdout


def run_here(*arguments: object) -> str:
    """The output of a command in this process."""
    done = CliRunner().invoke(cli, [str(one) for one in arguments])
    assert done.exit_code == 0, done.output
    return done.stdout


@pytest.mark.parametrize("arguments", LOG_COMMANDS)
def test_each_line_of_a_log_is_parsed_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...]
) -> None:
    """A few are looked at twice, to find where a part of the log begins and ends."""
    count = write(tmp_path / "logs" / "fetch.jsonl", fetch_lines(10**7, hosts=200), limit_bytes=3_000_000)
    Database(tmp_path / "frontier.db").close()
    parsed, loads = 0, orjson.loads

    def counted(text: str | bytes) -> Any:
        nonlocal parsed
        parsed += 1
        return loads(text)

    monkeypatch.setattr(orjson, "loads", counted)
    run_here(*arguments, "--output", tmp_path)
    assert parsed <= count + 20


@pytest.mark.parametrize(
    "size", [30_000_000, pytest.param(1_000_000_000, marks=[pytest.mark.prove, pytest.mark.timeout(600)])]
)
def test_a_large_log_is_read_quickly(tmp_path: Path, size: int) -> None:
    """Logs, hosts and report on a log of this size, within half a gigabyte of address space; for a gigabyte LIMIT_S of
    CPU time at most.
    """
    count = write(tmp_path / "logs" / "fetch.jsonl", fetch_lines(10**7, hosts=2_000), limit_bytes=size)
    Database(tmp_path / "frontier.db").close()
    for arguments in LOG_COMMANDS:
        wall_s, cpu_s, out = cost(*arguments, "--output", tmp_path)
        print(f"{size:,} bytes: crawler {' '.join(arguments)}: {wall_s:.1f} s, {cpu_s:.1f} s of CPU", file=sys.stderr)
        assert cpu_s < LIMIT_S
        if arguments == ("logs",):
            assert out.count("\n") == count
        if arguments[0] == "report":
            assert json.loads(out)["totals"]["attempts"] == count


@pytest.mark.parametrize(
    "urls", [100_000, pytest.param(10_000_000, marks=[pytest.mark.prove, pytest.mark.timeout(3600)])]
)
def test_why_costs_the_same_however_large_the_store_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, urls: int
) -> None:
    """Look-ups in indexes alone; with ten million URLs half a second of CPU, most of it to start the interpreter."""
    hosts = 5_000
    database = Database(tmp_path / "frontier.db")
    database.run("PRAGMA synchronous = off")
    with database.transaction():
        for host in range(1, hosts + 1):
            database.run(
                "INSERT INTO host (id, slot, scheme, host, port, domain, found_at) "
                "VALUES (?, 1, 'https', ?, 443, ?, 0)",
                (host, f"h{host}.test", f"h{host}.test"),
            )
    for start in range(1, urls + 1, 100_000):
        flat: list[object] = []
        for number in range(start, min(urls + 1, start + 100_000)):
            host = number % hosts + 1
            flat += (host, key_of(f"https://h{host}.test/{number}"), 3, f"/{number}", "link", "LLL", float(number))
        with database.transaction():
            database.run_many(INSERT, flat)
    database.close()
    number = urls - 1
    wall_s, cpu_s, out = cost("why", f"https://h{number % hosts + 1}.test/{number}", "--output", tmp_path, "--json")
    print(f"{urls:,} URLs: crawler why: {wall_s:.2f} s, {cpu_s:.2f} s of CPU", file=sys.stderr)
    assert json.loads(out)["verdict"] == "queued"
    assert urls < 1_000_000 or cpu_s < WHY_S
    steps = 0

    def count() -> bool:
        nonlocal steps
        steps += 100
        return False

    monkeypatch.setattr(apsw, "connection_hooks", [lambda connection: connection.set_progress_handler(count, 100)])
    run_here("why", f"https://h{number % hosts + 1}.test/{number}", "--output", tmp_path, "--json")
    assert 0 < steps < WHY_STEPS
