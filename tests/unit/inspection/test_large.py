"""A gigabyte of log, and ten million URLs: quick, and in bounded memory."""

import json
import resource
import subprocess
import sys
import time
from pathlib import Path

import pytest

from crawler.core.url import key_of
from crawler.frontier.sqlite.database import Database
from crawler.frontier.sqlite.sql import ManyRows
from tests.support.commands import command, environment
from tests.support.log_lines import fetch_lines, write

LIMIT_S = 15.0
INSERT = ManyRows(7, "INSERT INTO url (host, hash, depth, target, source, hop_path, found_at)")
WHY_S = 0.5
MEMORY = 512 * 1024 * 1024


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


@pytest.mark.parametrize(
    "size", [30_000_000, pytest.param(1_000_000_000, marks=[pytest.mark.prove, pytest.mark.timeout(600)])]
)
def test_a_large_log_is_read_quickly(tmp_path: Path, size: int) -> None:
    """Logs, hosts and report on a log of this size: 15 s of CPU time for a gigabyte at most, within
    half a gigabyte of address space.
    """
    count = write(tmp_path / "logs" / "fetch.jsonl", fetch_lines(10**7, hosts=2_000), limit_bytes=size)
    Database(tmp_path / "frontier.db").close()
    allowed_s = 4.0 + LIMIT_S * size / 1e9  # a start, on a slow machine with other work, takes seconds
    for arguments in (("logs",), ("logs", "--outcome", "error"), ("report", "--all", "--json"),
                      ("hosts", "--since", "2020-01-01", "--json")):  # fmt: skip
        wall_s, cpu_s, out = cost(*arguments, "--output", tmp_path)
        print(f"{size:,} bytes: crawler {' '.join(arguments)}: {wall_s:.1f} s, {cpu_s:.1f} s of CPU", file=sys.stderr)
        assert cpu_s < allowed_s
        if arguments == ("logs",):
            assert out.count("\n") == count
        if arguments[0] == "report":
            assert json.loads(out)["totals"]["attempts"] == count


@pytest.mark.parametrize(
    "urls", [100_000, pytest.param(10_000_000, marks=[pytest.mark.prove, pytest.mark.timeout(3600)])]
)
def test_why_costs_the_same_however_large_the_store_is(tmp_path: Path, urls: int) -> None:
    """Look-ups in indexes alone: half a second of CPU, most of it to start the interpreter."""
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
    assert cpu_s < (WHY_S if urls > 1_000_000 else 6 * WHY_S)  # a slow machine with other work, without bytecode
