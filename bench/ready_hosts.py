"""A million hosts that may all be requested: whose turn it is, and what choosing costs.

    python -m bench.ready_hosts cost [--hosts 1000000] [--pages 3]
    python -m bench.ready_hosts turns [--hosts 1000000] [--pages 1]
    python -m bench.ready_hosts shares [--hosts 1000000]

The whole program with its store, output files and logs, in real time; its HTTP client alone is replaced by one that
responds to everything after 20 ms, without connections. Hosts are added to the store before. The delay is one second.

`cost`: requests for each second of the process's CPU with so many hosts and with 10,000, of as many pages.
`turns`: how long until a page of every host was requested, as a multiple of the time of one page of each host (hosts /
pages a second), and of one turn of all hosts: a host has up to QUANTUM requests in a turn, robots.txt among them.
`shares`: hosts of one politeness key, and hosts of one address, beside 200 hosts that have their own and were found
after them: what each of both gets.
"""

import argparse
import asyncio
import itertools
import json
import math
import os
import resource
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any
from unittest import mock

from bench.loopback import address_of
from crawler import app
from crawler.core.enums import Source, TaskKind
from crawler.core.models import Discovered, FetchResult, Origin, Task
from crawler.core.url import key_of, parse_seed
from crawler.engine.scheduling.ready_queue import QUANTUM
from crawler.fetch.fetcher import AddressNotReady, AddressRateLimit
from crawler.frontier.sqlite.store import SqliteFrontier
from crawler.settings.loading import load
from tests.support.scripted_web import Web, page, response

TAKES_S = 0.02
DELAY_S = 1.0
FEW = 10_000
OTHERS, OTHERS_PAGES = 200, 200
SLICE = 20_000  # URLs of one call of the store
LIMIT_S = 3_600  # of a crawl
ONE_ADDRESS = "198.51.100.1"


@dataclass(frozen=True)
class Plan:
    """What is crawled: `hosts` with `pages` each, whose names end in `suffix`, and OTHERS if `beside`. The crawl ends
    after so many requests or seconds, or when every host was requested if `until_all`.
    """

    hosts: int
    pages: int
    suffix: str = "many.test"
    key: str = "host"
    one_address: bool = False
    beside: bool = False
    warm_up: int = 0  # requests
    requests: int = sys.maxsize
    seconds: float = LIMIT_S
    until_all: bool = False
    options: tuple[str, ...] = ()

    def name(self, number: int) -> str:
        return f"h{number:07}.{self.suffix}"

    def address(self, host: str) -> str:
        return ONE_ADDRESS if self.one_address and host[0] == "h" else address_of(int(host[1:8]))


@dataclass
class Taken:
    """What the client saw. Times in seconds; CPU time is that of the process from the end of the warm-up on."""

    requests: int = 0
    pages: int = 0
    of_others: int = 0
    hosts: int = 0  # of which a page was requested
    breaches: int = 0
    begun_mono: float = 0.0
    cpu_s: float = 0.0
    wall_s: float = 0.0
    all_after_s: float = math.nan  # from the first request to the first page of the last host
    peak_bytes: int = 0

    @property
    def rate(self) -> float:
        return self.requests / self.wall_s

    @property
    def per_cpu_s(self) -> float:
        return self.requests / self.cpu_s


class Simulated(Web):
    """The HTTP client in place of the program's own. Responds to robots.txt with 404, to all else with a page."""

    def __init__(self, plan: Plan, taken: Taken, *_: Any, address_limiter: AddressRateLimit, clock: Any, **__: Any):
        super().__init__(clock=clock, address_limiter=address_limiter)
        self._plan = plan
        self._taken = taken
        self._ended_mono: dict[str, float] = {}
        self._hosts: set[str] = set()  # of which a page was requested
        self._is_warm = self._is_over = False

    def first_address(self, origin: Origin) -> str | None:
        return self._plan.address(origin.host)

    async def fetch(self, origin: Origin, task: Task) -> FetchResult:
        host, address, limiter = origin.host, self._plan.address(origin.host), self.address_limiter
        assert limiter is not None
        if (until := limiter.enter(address)) is not None:
            raise AddressNotReady(address, until)
        try:
            self._note(host, task, self.clock.mono())
            await asyncio.sleep(TAKES_S)
        finally:
            limiter.leave(address)
        self._ended_mono[host] = self.clock.mono()
        if task.url.endswith("/robots.txt"):
            return response(404, address=address)
        return response(body=page(title=task.url) + task.url.encode() * 40, address=address)

    def _note(self, host: str, task: Task, mono: float) -> None:
        taken, plan = self._taken, self._plan
        if taken.requests == plan.warm_up and not self._is_warm:
            self._is_warm = True
            taken.requests = taken.pages = taken.of_others = 0
            taken.begun_mono, taken.cpu_s = mono, time.process_time()
        taken.requests += 1
        taken.of_others += host[0] == "o"
        taken.breaches += mono - self._ended_mono.get(host, -math.inf) < DELAY_S
        if task.kind is TaskKind.PAGE:
            taken.pages += 1
            self._hosts.add(host)
            taken.hosts = len(self._hosts)
            if taken.hosts == plan.hosts + OTHERS * plan.beside and math.isnan(taken.all_after_s):
                taken.all_after_s = mono - taken.begun_mono
        is_over = taken.requests >= plan.requests or mono - taken.begun_mono >= plan.seconds
        is_over |= plan.until_all and not math.isnan(taken.all_after_s)
        if is_over and self._is_warm and not self._is_over:
            self._is_over = True
            taken.cpu_s, taken.wall_s = time.process_time() - taken.cpu_s, mono - taken.begun_mono
            os.kill(os.getpid(), signal.SIGTERM)


def found(host: str, pages: int) -> Iterator[Discovered]:
    for n in range(pages):
        url, origin = parse_seed(f"https://{host}/{f'page-{n}.html' if n else ''}")
        yield Discovered(url, origin, key_of(url), 0, "", Source.SEED)


async def fill(path: Path, plan: Plan, rules: str) -> None:
    """Add all URLs to a new store, those of OTHERS last."""
    hosts = ((plan.name(n), plan.pages) for n in range(plan.hosts))
    others = ((f"o{plan.hosts + n:07}.other{n}.test", OTHERS_PAGES) for n in range(OTHERS * plan.beside))
    urls = itertools.chain.from_iterable(found(*one) for one in itertools.chain(hosts, others))
    frontier = SqliteFrontier(path, politeness_key=plan.key)
    await frontier.open()
    await frontier.judge_by(rules)
    while some := list(itertools.islice(urls, SLICE)):
        await frontier.add(some, now=time.time())
    await frontier.close(clean=True)


def crawl(plan: Plan, directory: Path) -> Taken:
    """Fill a store and crawl it, in this process."""
    output = Path(tempfile.mkdtemp(prefix="crawler-ready-", dir=directory))
    try:
        values = [
            f"crawl.seeds=[{json.dumps(f'https://{plan.name(0)}/')}]",
            'scope.hosts=["*.test"]',
            f'politeness.key="{plan.key}"',
            f"politeness.delay={DELAY_S}",
            "politeness.adaptive=false",
            f"output.directory={json.dumps(str(output))}",
            *plan.options,
        ]
        settings = load(None, values, {}, "crawl").settings
        asyncio.run(fill(output / "frontier.db", plan, settings.engine_configuration("crawl").fingerprint))
        taken = Taken()
        with mock.patch.object(app, "HttpClient", partial(Simulated, plan, taken)):
            app.run(settings, mode="crawl", view=app.View())
        taken.peak_bytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    finally:
        shutil.rmtree(output)
    return taken


def run(plan: Plan, directory: Path) -> Taken:
    """Crawl in a process of its own."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as process:
        taken = process.submit(crawl, plan, directory).result()
    print(f"{plan.hosts:,} hosts of {plan.pages} pages{', one address' * plan.one_address}, key {plan.key}, "
          f"{plan.suffix}: {taken.requests:,} requests in {taken.wall_s:.0f} s, {taken.cpu_s:.0f} CPU-s: "
          f"{taken.rate:.0f}/s, {taken.per_cpu_s:.0f} a CPU-second; pages of {taken.hosts:,} hosts, "
          f"{taken.of_others / taken.wall_s:.1f}/s of others; delays not kept: {taken.breaches}; "
          f"{taken.peak_bytes / 2**20:.0f} MiB; load {os.getloadavg()[0]:.1f}", flush=True)  # fmt: skip
    return taken


def cost(hosts: int, pages: int, directory: Path, options: tuple[str, ...]) -> None:
    all_of_few = FEW * (pages + 1)  # with robots.txt
    plan = Plan(FEW, pages, requests=all_of_few * 19 // 20, options=options)
    few = run(plan, directory)
    many = run(replace(plan, hosts=hosts, warm_up=all_of_few), directory)  # from when all have left that entered first
    print(f"a CPU-second serves {many.per_cpu_s / few.per_cpu_s:.1%} of the requests that {FEW:,} hosts have")


def turns(hosts: int, pages: int, directory: Path, options: tuple[str, ...]) -> None:
    taken = run(Plan(hosts, pages, until_all=True, options=options), directory)
    page_s = hosts / (taken.pages / taken.wall_s)
    turn_s = hosts * min(pages + 1, QUANTUM) / taken.rate
    print(f"a page of every host was requested after {taken.all_after_s:.0f} s: {taken.all_after_s / page_s:.2f} times "
          f"a page of each host, {taken.all_after_s / turn_s:.2f} times a turn of each host")  # fmt: skip


def shares(hosts: int, seconds: float, directory: Path, options: tuple[str, ...]) -> None:
    for label, plan in {
        "alone": Plan(1, 1, beside=True, seconds=seconds),
        "beside one key": Plan(hosts, 3, suffix="big.test", key="domain", beside=True, seconds=seconds),
        "beside one address": Plan(hosts, 3, one_address=True, beside=True, seconds=seconds),
    }.items():
        taken = run(replace(plan, options=options), directory)
        of_these = (taken.requests - taken.of_others) / taken.wall_s
        print(f"{label}: {taken.of_others / taken.wall_s:.1f}/s of {OTHERS} others, {of_these:.2f}/s of {plan.hosts:,}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("cost", "turns", "shares"))
    parser.add_argument("--hosts", type=int, default=1_000_000)
    parser.add_argument("--pages", type=int, help="of each host; 3, or 1 for `turns`")
    parser.add_argument("--seconds", type=float, default=60.0, help="of each crawl of `shares`")
    parser.add_argument("--directory", type=Path)
    parser.add_argument("-o", dest="options", action="append", default=[], help="an option of the crawler")
    chosen = parser.parse_args()
    options = tuple(chosen.options)
    if chosen.what == "cost":
        cost(chosen.hosts, chosen.pages or 3, chosen.directory, options)
    elif chosen.what == "turns":
        turns(chosen.hosts, chosen.pages or 1, chosen.directory, options)
    else:
        shares(chosen.hosts, chosen.seconds, chosen.directory, options)


if __name__ == "__main__":
    main()
