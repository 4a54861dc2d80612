"""`python -m bench.site`: a whole documentation site over TLS, crawled by this program and its peers in turn.

Each crawls https://localhost/ with eight connections; responses are counted by the server's log. This program writes
its store, WARC, pages/ and logs, wget2 plain files, the others nothing. Runs of wget2 are paired with runs of this
program and repeated. A peer that takes more than a minute runs once, to its end: the first pages of a site are larger
than the later ones.
"""

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

from bench.serve import JAVADOC, Served, connections, need, nginx

CONNECTIONS = 8
ROOT = Path(__file__).parents[1]
SLOW = ("scrapy", "aiohttp")
PEERS_PYTHON = ROOT / ".venv-bench/bin/python"  # the peers' libraries are installed apart from ours
PARTS = {
    "without WARC": {"output.warc": "false"},
    "without WARC and pages/": {"output.warc": "false", "output.pages": "false"},
    "without robots.txt": {"politeness.robots": '"ignore"'},
    "without reuse": {"fetch.max_requests_per_connection": "1"},
}


@dataclass(frozen=True)
class Cost:
    """Seconds; MiB of the largest process."""

    wall_s: float
    cpu_s: float
    rss_mib: float


def run(command: Sequence[str], cwd: Path, *, env: dict[str, str] | None = None) -> Cost:
    """Run a command to its end, its output thrown away."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    begun = time.monotonic()
    with subprocess.Popen(
        command, cwd=cwd, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env={**os.environ, **(env or {})}
    ) as process:
        _, status, own = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    wall_s = time.monotonic() - begun
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu_s = after.ru_utime + after.ru_stime - usage.ru_utime - usage.ru_stime
    return Cost(wall_s, cpu_s, own.ru_maxrss / 1024)


@dataclass
class Taken:
    """The runs of one program."""

    costs: list[Cost] = field(default_factory=list)
    responses: list[int] = field(default_factory=list)
    opened: list[int] = field(default_factory=list)

    @property
    def rates(self) -> list[float]:
        """Responses per CPU-second."""
        return [n / cost.cpu_s for n, cost in zip(self.responses, self.costs, strict=True)]


def crawler(served: Served, output: Path, extra: dict[str, str] | None = None) -> list[str]:
    """This program's command line."""
    values = {
        "scope.requisites": "false",
        "politeness.delay": "0",
        "politeness.connections_per_host": str(CONNECTIONS),
        "network.allow_private": '["127.0.0.0/8"]',
        "network.ca_file": json.dumps(str(served.ca_file)),
        **(extra or {}),
    }
    options = [part for key, value in values.items() for part in ("-o", f"{key}={value}")]
    return [sys.executable, "-m", "crawler", "crawl", served.url, "--output", str(output), *options]


def wget2(served: Served) -> list[str]:
    options = ["-q", "-r", "-l", "inf", f"--max-threads={CONNECTIONS}", "--no-http2"]
    return ["wget2", *options, f"--ca-certificate={served.ca_file}", served.url]


def scrapy(served: Served) -> list[str]:
    return [str(PEERS_PYTHON), str(ROOT / "bench/peers/scrapy_site.py"), served.url, str(CONNECTIONS)]


def aiohttp(served: Served) -> list[str]:
    script = str(ROOT / "bench/peers/aiohttp_site.py")
    return [str(PEERS_PYTHON), script, served.url, str(CONNECTIONS), str(served.ca_file)]


PEERS: dict[str, Callable[[Served], list[str]]] = {"wget2": wget2, "scrapy": scrapy, "aiohttp": aiohttp}


class Bench:
    """One server, and what was taken on it."""

    def __init__(self, served: Served) -> None:
        self.served = served
        self.taken: dict[str, Taken] = {}

    def take(self, name: str, command: list[str], cwd: Path) -> None:
        """One run."""
        mark = self.served.mark()
        cost = run(command, cwd, env={"SSL_CERT_FILE": str(self.served.ca_file)})
        requests = self.served.since(mark)
        taken = self.taken.setdefault(name, Taken())
        taken.costs.append(cost)
        taken.responses.append(len(requests))
        taken.opened.append(connections(requests)[0])
        rate = taken.rates[-1]
        print(f"  {name:26} {len(requests):6} responses {cost.wall_s:7.1f} s {cost.cpu_s:7.1f} CPU-s {rate:7.0f}/CPU-s",
              flush=True)  # fmt: skip

    def ours(self, name: str = "crawler", extra: dict[str, str] | None = None) -> None:
        """Run this program once."""
        output = self.served.folder / "out"
        self.take(name, crawler(self.served, output, extra), ROOT)
        shutil.rmtree(output)

    def peer(self, name: str) -> None:
        """Run a peer once."""
        folder = self.served.folder / "peer"
        folder.mkdir()
        self.take(name, PEERS[name](self.served), folder)
        shutil.rmtree(folder)

    def table(self) -> str:
        """The medians of all programs as a Markdown table."""
        rows = ["| | responses | wall s | CPU s | per CPU-s | peak MiB | connections | ours to it |", "|---" * 8 + "|"]
        own = self.taken["crawler"]
        for name, taken in self.taken.items():
            if len(taken.rates) == len(own.rates):
                ratio = median([a / b for a, b in zip(own.rates, taken.rates, strict=True)])
            else:  # it ran once, after all runs of ours
                ratio = median(own.rates) / median(taken.rates)
            wall, cpu, rss = (median([getattr(c, key) for c in taken.costs]) for key in ("wall_s", "cpu_s", "rss_mib"))
            rows.append(
                f"| {name} ({len(taken.costs)}) | {median(taken.responses):,.0f} | {wall:.1f} | {cpu:.1f} "
                f"| {median(taken.rates):,.0f} | {rss:.0f} | {median(taken.opened):.0f} | {ratio:.2f} |"
            )
        return "\n".join(rows)


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.site", description=__doc__)
    parser.add_argument("--site", type=Path, default=JAVADOC, help="folder of HTML to serve")
    parser.add_argument("--runs", type=int, default=5, help="of this program and of wget2, in turn")
    parser.add_argument("--quick", action="store_true", help="wget2 alone, three runs")
    chosen = parser.parse_args(argv)
    need("nginx", "wget2")
    with nginx(chosen.site) as served:
        bench = Bench(served)
        for n in range(3 if chosen.quick else chosen.runs):
            print(f"pair {n + 1}:", flush=True)
            bench.ours()
            bench.peer("wget2")
        if not chosen.quick:
            for name in SLOW:
                if PEERS_PYTHON.exists():
                    bench.peer(name)
                else:
                    print(f"  {name} is left out: .venv-bench is missing (make bench makes it)")
            print("parts:", flush=True)
            for name, extra in PARTS.items():
                bench.ours(name, extra)
        print("\n" + bench.table())


if __name__ == "__main__":
    main()
