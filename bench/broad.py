"""A broad crawl: many hosts on loopback, a few pages each, of which most are dead.

    python -m bench.broad [--hosts 200000] [--quick] [--runs dead live plain] [--limit SECONDS] [--directory DIR]

Of 60 hosts in random order 6 refuse connections, 6 do not respond (half of these drop every packet, half accept and say
nothing), 20 have no name, and 28 have pages, over TLS, each at an address of its own. Names are resolved by a name
server of the bench. Three crawls: all of these hosts; those alone that have pages; the same without TLS. CPU is the
crawler's own. The time of a rate is from the first request to the one with which 95 % of the pages were served, by the
server's log, so that the last tries of dead hosts do not count.
"""

import argparse
import json
import os
import random
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import apsw

from bench.loopback import LoggedRequest, Network, address_of, breaches, network
from tests.support.nameserver import NXDOMAIN, Answer, Zone

ROOT = Path(__file__).parents[1]
HOSTS, QUICK = 200_000, 2_000
RUNS = ("dead", "live", "plain")
DELAY_S = 1.0
MEASURED = 0.95  # share of the pages
# Which of 60 hosts are what; the others have pages.
REFUSING, MUTE, DROPPING, NAMELESS = range(6), range(6, 9), range(9, 12), range(12, 32)
NEVER_REQUESTED = """
SELECT count(*) FROM host
WHERE NOT EXISTS (SELECT 1 FROM url JOIN visit ON visit.url = url.id WHERE url.host = host.id)
  AND NOT EXISTS (SELECT 1 FROM robots WHERE robots.host = host.id)"""


def name_of(number: int) -> str:
    return f"h{number:07}.many.test"


def is_live(number: int) -> bool:
    return number % 60 >= NAMELESS.stop


def answer(name: str, _family: int) -> Answer:
    """What the name server knows of a host."""
    number = int(name[1:8])
    return NXDOMAIN if number % 60 in NAMELESS else Zone([address_of(number)], ttl=86_400)


def seed(number: int, served: Network, *, tls: bool = True) -> str:
    """The line of a host."""
    port = served.tls if tls else served.plain
    for kind, of_kind in ((REFUSING, served.refusing), (MUTE, served.mute), (DROPPING, served.dropping)):
        if number % 60 in kind:
            port = of_kind
    return f"http{'s' * tls}://{name_of(number)}:{port}/\n"


@dataclass(frozen=True)
class Crawled:
    """What one crawl took. Times in seconds; `rate` in responses a second while the first 95 % of the pages came."""

    hosts: int
    live: int
    requests: list[LoggedRequest]
    cpu_s: float
    wall_s: float
    peak_bytes: int
    never: int
    code: int

    @property
    def handshakes(self) -> int:
        return len({request.connection for request in self.requests})

    @property
    def rate(self) -> float:
        ends = sorted(request.end for request in self.requests)
        measured = int(len(ends) * MEASURED)
        return measured / (ends[measured - 1] - ends[0])

    def show(self, label: str, pages: int) -> None:
        count, shaken = len(self.requests), self.handshakes
        resumed = len({request.connection for request in self.requests if request.resumed})
        of_pages = [request for request in self.requests if request.target != "/robots.txt"]
        asked = {request.host for request in self.requests}
        twice = len(of_pages) - len({(request.host, request.target) for request in of_pages})
        print(f"-- {label}: {self.hosts:,} hosts, {self.live:,} with {pages} pages; exit code {self.code}")
        print(f"responses            {count:,} ({len(of_pages):,} pages of {self.live * pages:,}, {twice} twice)")
        print(f"connections          {shaken:,}, {resumed:,} of them resumed: {count / shaken:.2f} responses each")
        print(f"crawler's CPU        {self.cpu_s:.1f} s in {self.wall_s:.0f} s: {self.cpu_s / self.hosts * 1e3:.2f} ms "
              f"a host, {self.cpu_s / shaken * 1e3:.2f} ms a connection")  # fmt: skip
        print(f"per CPU-second       {count / self.cpu_s:.0f} responses, {shaken / self.cpu_s:.0f} connections")
        print(f"rate                 {self.rate:.0f} responses a second until {MEASURED:.0%} had come")
        print(f"peak memory          {self.peak_bytes / 2**20:.0f} MiB")
        print(f"delays not kept      {breaches(self.requests, DELAY_S)}")
        print(f"never requested      {self.never} hosts by the store, {self.live - len(asked)} live ones by the server")
        print(f"load average         {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores", flush=True)


def crawl(served: Network, directory: Path, numbers: Sequence[int], *, tls: bool, options: Sequence[str]) -> Crawled:
    """Crawl these hosts to the end."""
    (directory / "seeds").write_text("".join(seed(number, served, tls=tls) for number in numbers))
    output = directory / "out"
    values = [
        f"crawl.seed_files={json.dumps([str(directory / 'seeds')])}",
        "crawl.linger=10",  # hosts that did not respond three times back off for longer
        'politeness.key="host"',
        f"politeness.delay={DELAY_S}",
        "politeness.adaptive=false",
        f"network.nameservers={json.dumps([served.nameserver])}",
        'network.allow_private=["127.0.0.0/8"]',
        f"network.ca_file={json.dumps(str(served.ca_file))}",
        *options,
    ]
    command = [sys.executable, "-m", "crawler", "crawl", "--output", str(output), "--json"]
    for value in values:
        command += ["-o", value]
    begin = time.time()
    with (directory / "said").open("wb") as said:
        process = subprocess.Popen(command, cwd=ROOT, stdout=said, stderr=said)
        _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    end = time.time()
    requests = served.requests(begin, end + 2)
    if not requests:
        sys.exit(f"the crawl ended with {process.returncode}: {(directory / 'said').read_text()[-2_000:]}")
    store = apsw.Connection(str(output / "frontier.db"), flags=apsw.SQLITE_OPEN_READONLY)
    never = store.execute(NEVER_REQUESTED).get
    store.close()
    shutil.rmtree(output)
    return Crawled(
        len(numbers), sum(map(is_live, numbers)), requests, usage.ru_utime + usage.ru_stime, end - begin,
        usage.ru_maxrss * 1024, never, process.returncode,
    )  # fmt: skip


def compare(taken: dict[str, Crawled]) -> None:
    """Print what only two crawls together say."""
    if "live" not in taken:
        return
    live = taken["live"]
    if "dead" in taken:
        dead = taken["dead"]
        print(f"-- live hosts' rate beside the dead ones: {dead.rate / live.rate:.1%} of what they have alone")
        extra = (dead.cpu_s - live.cpu_s) / (dead.hosts - dead.live)
        print(f"-- a dead host costs {extra * 1e3:.2f} ms of CPU")
    if "plain" in taken:
        extra = (live.cpu_s - taken["plain"].cpu_s) / live.handshakes
        print(f"-- a handshake costs {extra * 1e3:.2f} ms of CPU, encryption of what follows included")


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hosts", type=int, default=HOSTS, help="all of them; 28 of 60 have pages")
    parser.add_argument("--pages", type=int, default=4, help="of each host")
    parser.add_argument("--quick", action="store_true", help=f"{QUICK:,} hosts")
    parser.add_argument("--runs", nargs="+", choices=RUNS, default=RUNS)
    parser.add_argument("--limit", type=int, help="seconds after which a crawl is ended")
    parser.add_argument("--directory", type=Path, help="where everything is written, and deleted at the end")
    parser.add_argument("-o", dest="options", action="append", default=[], help="an option of the crawler")
    chosen = parser.parse_args(argv)
    if chosen.limit:
        chosen.options.append(f"crawl.max_duration={chosen.limit}")
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    numbers = list(range(QUICK if chosen.quick else chosen.hosts))
    random.Random(1).shuffle(numbers)
    live = [number for number in numbers if is_live(number)]
    with tempfile.TemporaryDirectory(prefix="crawler-broad-", dir=chosen.directory) as folder:
        directory = Path(folder)
        directory.chmod(0o755)  # nginx's worker reads the pages
        with network(directory, answer, pages=chosen.pages) as served:
            taken = {}
            for run in chosen.runs:
                hosts, tls = (numbers if run == "dead" else live), run != "plain"
                taken[run] = crawl(served, directory, hosts, tls=tls, options=chosen.options)
                taken[run].show(run, chosen.pages)
        compare(taken)


if __name__ == "__main__":
    main()
