"""`python -m bench.fleet`: what several agents on PostgreSQL cost, beside one process on SQLite.

All crawl the same site (64 hosts of a domain each, TLS by nginx on loopback, no delay): one process with SQLite, then
1, 2 and 4 agents with a database each time, in turn. The server is its own, on a Unix socket, and as safe as by default
(fsync, full_page_writes, synchronous_commit). Every page must be stored once over all agents.

Figures are those of the crawl alone, from a fifth of its pages on until the last is stored. CPU is user and system
time, by /proc, of the server with all its processes. A page is whatever is requested, pictures and robots.txt too.
"ceiling": how much faster than one agent two cores can be, twice the CPU of an agent by that of all; "reached": the
share of their CPU time that the crawl used.
"""

import argparse
import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Final

from bench.database import server_cpu_s
from crawler.core.url import SLOTS
from tests.support.agents import Agents, domains
from tests.support.commands import Crawl, run
from tests.support.nginx import Nginx, Site, nginx
from tests.support.postgresql import Server

HOSTS: Final = 64
AGENTS: Final = (0, 1, 2, 4)  # 0: SQLite
FIRST: Final = "/img/paper.png"  # with it they start, before anything is measured
TICK: Final = os.sysconf("SC_CLK_TCK")
WAIT_S: Final = 120.0
WARM_UP: Final = 0.2  # share of the pages before the measurement: statements are compiled, all agents have hosts


@dataclass(frozen=True)
class Cost:
    """The measured part of a crawl, in seconds of CPU and of the clock."""

    pages: int
    agents_s: float
    database_s: float
    nginx_s: float
    wal_bytes: float
    wall_s: float


def cpu_s(pid: int) -> float:
    """CPU of a process so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICK


def wait_until(is_so: Callable[[], bool], processes: Sequence["subprocess.Popen[str]"]) -> None:
    end = time.monotonic() + WAIT_S
    while not is_so():
        ended = [process for process in processes if process.poll() is not None]
        if ended or time.monotonic() > end:
            for process in processes:
                process.kill()
            sys.exit("a crawl ended or hangs:\n" + "".join(process.communicate()[1] for process in processes))
        time.sleep(0.05)


class Bench:
    """The site and the database server; `take` makes one crawl."""

    def __init__(self, site: Nginx, server: Server, folder: Path) -> None:
        self.site = site
        self.server = server
        self.folder = folder
        self._number = 0
        self.nginx_pid = int((Path(site.ca_file).parent / "nginx.pid").read_text())

    def take(self, agents: int) -> Cost:
        self._number += 1
        folder = self.folder / f"crawl{self._number}"
        folder.mkdir()
        self.site.forget()
        try:
            with self._started(folder, agents) as (fleet, processes):
                return self._crawl(fleet, processes)
        finally:
            shutil.rmtree(folder)
            if agents:
                self.server.execute(f"DROP DATABASE crawl{self._number} WITH (FORCE)")

    @contextlib.contextmanager
    def _started(self, folder: Path, agents: int) -> Iterator[tuple[Agents, list["subprocess.Popen[str]"]]]:
        """A crawl whose processes are ready, each with its share of the slots."""
        name = f"crawl{self._number}"
        keys: dict[str, dict[str, object]] = {
            "crawl": {"seeds": [self.site.url(next(iter(self.site.site.hosts)), FIRST)], "sitemaps": "named"},
            "politeness": {"delay": 0},
            "recrawl": {"enabled": False},  # what it reads at the start of a crawl and every ten minutes
            "frontier": {"lease": "15s"},
        }
        if agents:
            self.server.execute(f"CREATE DATABASE {name}")
            fleet = Agents.of(folder, self.site, self.server.dsn(name), agents, delay_s=0, **keys)
        else:
            fleet = Agents.of(folder, self.site, "", 1, delay_s=0, **keys)
            fleet.crawls = [_with_sqlite(fleet.crawls[0])]
        processes = [fleet.start(n, verb="run") for n in range(1, len(fleet.crawls) + 1)]
        try:
            wait_until(lambda: self.site.count() >= 2 and self._is_shared(name, agents), processes)
            yield fleet, processes
        finally:
            for process in processes:
                process.kill()
                process.communicate()

    def _is_shared(self, name: str, agents: int) -> bool:
        if agents < 2:
            return True
        rows = self.server.execute("SELECT count(*) FROM slot WHERE NOT is_free GROUP BY agent", name)
        return [row[0] for row in rows] == [SLOTS // agents] * agents

    def _crawl(self, fleet: Agents, processes: list["subprocess.Popen[str]"]) -> Cost:
        wanted = len(fleet.wanted()) + HOSTS  # with robots.txt of each host
        first = self.site.url(next(iter(self.site.site.hosts)))
        done = run("add", "--output", fleet.crawls[0].output, first)
        if done.code != 0:
            sys.exit(done.stderr)
        wait_until(lambda: self.site.count() >= wanted * WARM_UP, processes)
        begun, before, begun_mono = self.site.count(), self._state(processes), time.monotonic()
        wait_until(lambda: self.site.count() >= wanted, processes)
        wall_s = time.monotonic() - begun_mono
        time.sleep(1.0)  # for their last commit, which nothing shows in time
        agents_s, database_s, nginx_s, wal = (b - a for a, b in zip(before, self._state(processes), strict=True))
        for process in processes:
            process.terminate()
        for process in processes:
            if process.wait(timeout=WAIT_S) != 0:
                sys.exit(process.communicate()[1])
        stored = fleet.stored()
        if stored.keys() != fleet.wanted() or max(stored.values()) > 1:
            twice = [url for url, n in stored.items() if n > 1]
            sys.exit(
                f"{len(fleet.wanted() - set(stored))} pages are missing, {len(twice)} are there twice: {twice[:3]}"
            )
        return Cost(wanted - begun, agents_s, database_s, nginx_s, wal, wall_s)

    def _state(self, processes: list["subprocess.Popen[str]"]) -> tuple[float, float, float, float]:
        wal = float(self.server.execute("SELECT pg_current_wal_insert_lsn() - '0/0'::pg_lsn")[0][0])
        agents_s = sum(cpu_s(process.pid) for process in processes)
        return agents_s, server_cpu_s(self.server), cpu_s(self.nginx_pid), wal


def _with_sqlite(crawl: Crawl) -> Crawl:
    """The same configuration with a store of SQLite: what is after [frontier] goes, up to the next section."""
    before, _, after = crawl.config.read_text().partition("[frontier]\n")
    crawl.config.write_text(before + after[after.index("[") :])
    return crawl


def report(costs: dict[int, list[Cost]]) -> None:
    """A line of medians for each number of agents, and the comparison that matters."""

    def of(agents: int, value: Callable[[Cost], float]) -> float:
        return median(value(cost) for cost in costs[agents])

    def both(cost: Cost) -> float:
        return (cost.agents_s + cost.database_s) / cost.pages * 1e6

    one_agent_s = of(1, lambda cost: cost.agents_s / cost.pages)
    print(f"{costs[0][0].pages:,} pages; medians of {len(costs[0])} runs; load {os.getloadavg()[0]:.1f}")
    print("                µs of CPU a page              WAL     pages            of two cores")
    print("            agents database  both  nginx   B a page  a second   ceiling  reached")
    for agents in costs:
        total_s = of(agents, lambda cost: (cost.agents_s + cost.database_s + cost.nginx_s) / cost.pages)
        rate = of(agents, lambda cost: cost.pages / cost.wall_s)
        ceiling = 2 * one_agent_s / total_s
        share = f"{ceiling:8.2f}x {rate * total_s / 2:7.0%}" if agents > 1 else ""
        print(
            f"{f'{agents} agents' if agents else 'SQLite':10} {of(agents, lambda c: c.agents_s / c.pages * 1e6):7.0f}"
            f" {of(agents, lambda c: c.database_s / c.pages * 1e6):8.0f} {of(agents, both):5.0f}"
            f" {of(agents, lambda c: c.nginx_s / c.pages * 1e6):6.0f}"
            f" {of(agents, lambda c: c.wal_bytes / c.pages):10.0f} {rate:9.0f} {share}"
        )
    sqlite = of(0, both)
    for agents in AGENTS[1:]:
        print(f"agents and database, {agents} agents: {of(agents, both) / sqlite:.2f} times one SQLite process")
    print(f"from 1 to {AGENTS[-1]} agents: {of(AGENTS[-1], both) / of(1, both) - 1:+.0%}")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.fleet", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one run of each, of a third of the pages")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--pages", type=int, default=80, help="of each host")
    chosen = parser.parse_args()
    pages, runs = (20, 1) if chosen.quick else (chosen.pages, chosen.runs)
    costs: dict[int, list[Cost]] = {agents: [] for agents in AGENTS}
    with (
        tempfile.TemporaryDirectory(prefix="crawler-bench-", dir="/var/tmp") as name,
        nginx(Site(dict.fromkeys(domains(HOSTS), pages))) as site,
    ):
        (Path(name) / "database").mkdir()
        options = {"fsync": "on", "full_page_writes": "on", "autovacuum": "on", "synchronous_commit": "on"}
        Path(name).chmod(0o711)
        server = Server(Path(name) / "database", shared_buffers="256MB", **options)
        try:
            bench = Bench(site, server, Path(name))
            if not chosen.quick:
                bench.take(1)  # once to warm up
            for _ in range(runs):
                for agents in AGENTS:
                    costs[agents].append(bench.take(agents))
        finally:
            server.stop(at_once=True)
    report(costs)


if __name__ == "__main__":
    main()
