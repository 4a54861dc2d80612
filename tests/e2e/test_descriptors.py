"""File descriptors: too few for the connections that are asked for, and none at all for a while."""

import asyncio
import resource
import subprocess
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.commands import Crawl, command, environment, running
from tests.support.scripted_server import Accepted, Certificates, ok, serve

pytestmark = pytest.mark.e2e

HOSTS = 100
FEW = 60


@dataclass
class Site:
    crawl: Crawl
    asked: Counter[str]


@asynccontextmanager
async def site(directory: Path, delay: str) -> AsyncIterator[Site]:
    """As many hosts as connections that stay, each with two pages. `asked` counts by host and path."""
    certificates = Certificates(directory)
    asked: Counter[str] = Counter()

    async def script(a: Accepted) -> None:
        while path := await a.request():
            line = next(line for line in a.requests[-1].split(b"\r\n") if line.lower().startswith(b"host: "))
            asked[line[6:].decode() + path] += 1
            if path == "/robots.txt":
                await a.send(ok(b"", "Content-Type: text/plain"))
            else:
                await a.send(ok(b"<title>x</title><a href=/b>b</a>", "Content-Type: text/html"))

    async with serve(script, tls=certificates.server("*.fd.test")) as server:
        seeds = [f"https://h{n}.fd.test:{server.port}/" for n in range(HOSTS)]
        keys = {
            "crawl": {"seeds": seeds, "linger": "30s"},
            "politeness": {"delay": delay, "adaptive": False, "key": "host", "address_delay": "0s"},
            "network": {
                "ca_file": certificates.ca_file,
                "allow_private": ["127.0.0.0/8"],
                "resolve": {"*.test": ["127.0.0.1"]},
            },
        }
        yield Site(Crawl.of(directory, keys), asked)


def pages(site: Site) -> int:
    return len({line["url"] for line in site.crawl.page_lines()})


async def test_with_too_few_the_pool_is_narrower_and_everything_is_fetched(tmp_path: Path) -> None:
    """The limit leaves two thirds for the crawler itself: idle connections never keep the output from being written."""

    def limited() -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (FEW, FEW))

    async with site(tmp_path, "0s") as s:
        arguments = command(*s.crawl.arguments())
        ran = await asyncio.to_thread(
            subprocess.run, arguments, capture_output=True, text=True, timeout=80, env=environment(),
            preexec_fn=limited,
        )  # fmt: skip
        assert ran.returncode == 0, ran.stderr
        assert f"{FEW} file descriptors (ulimit -n) allow {FEW // 3} connections" in ran.stderr
        assert pages(s) == 2 * HOSTS
        events = Counter(line["event"] for line in s.crawl.events())
        assert events["descriptors_few"] == 1
        assert [e for e in s.crawl.events() if e["event"].startswith("disk")] == []
        assert events["conn_fail"] < HOSTS / 4


def cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / 100


async def when(condition: Callable[[], bool], within_s: float = 30.0) -> None:
    deadline = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.05)  # another process is at work; nothing here could be awaited


async def test_without_any_nothing_spins_and_the_crawl_goes_on_when_there_are_some(tmp_path: Path) -> None:
    """Taken away in the middle: connections fail, at leisure; given back, every page is fetched, none given up."""
    async with site(tmp_path, "1s") as s:
        with running(*s.crawl.arguments()) as process:
            await when(lambda: len(s.asked) > HOSTS // 10)
            before = resource.prlimit(process.pid, resource.RLIMIT_NOFILE)
            resource.prlimit(process.pid, resource.RLIMIT_NOFILE, (3, before[1]))
            events = s.crawl.logs / "events.jsonl"
            await when(lambda: b"no_file_descriptors" in events.read_bytes() or b"disk_low" in events.read_bytes())
            spent, at = cpu_s(process.pid), time.monotonic()
            with pytest.raises(subprocess.TimeoutExpired):  # it does not end for that, and costs little
                await asyncio.to_thread(process.wait, 3)
            share = (cpu_s(process.pid) - spent) / (time.monotonic() - at)
            resource.prlimit(process.pid, resource.RLIMIT_NOFILE, before)
            stdout, stderr = await asyncio.to_thread(process.communicate, timeout=80)
        assert process.returncode == 0, stderr
        assert share < 0.5, share
        assert pages(s) == 2 * HOSTS, stdout
        assert {line["next"] for line in s.crawl.fetches()} <= {"done", "retry"}
        assert "Traceback" not in stderr
