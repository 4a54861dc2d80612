"""The store alone: candidate links a second, bytes on the disk, and how a large store starts and leases.

    python -m bench.frontier [--urls 10000000] [--directory DIR]

Each figure is measured in a process of its own. CPU time is that of the whole process, both threads. Candidates are
made before the measurement, as links are parsed before they reach the store. The large store is filled by one SQL
statement with rows as the program writes them; everything else uses the program's own calls.
"""

import argparse
import asyncio
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import apsw

from crawler.core.body import BytesBody
from crawler.core.enums import SinkFileState, Source, UrlState
from crawler.core.models import (
    ConnectionInfo,
    Discovered,
    Fetched,
    Head,
    Origin,
    RecordLocation,
    Settlement,
    SinkFile,
    Task,
    Timings,
)
from crawler.core.url import key_of
from crawler.frontier.base import Batch
from crawler.frontier.sqlite.store import SqliteFrontier

HOSTS = 5_000
PAGE_LINKS = 32
BATCH_PAGES = 256  # of one commit: engine/committer.py
NEW_SHARE = 0.12
KNOWN = 500_000  # URLs in the store before candidates are counted
BATCHES = 40
NOW = 1_795_424_400.0


def origin(n: int) -> Origin:
    return Origin("https", f"host{n}.example", 443)


def link(n: int) -> Discovered:
    """URL number n, with 54 bytes of path and query."""
    host = n * 2_654_435_761 % HOSTS
    url = f"https://host{host}.example/section-{n % 97}/{n * 40_503 % 1_000_003:07d}/page-{n:09d}.html?view=full"
    return Discovered(url, origin(host), key_of(url), 3, "LLL", Source.LINK)


def page(task_id: int, links: list[Discovered], host_id: int) -> Settlement:
    head = Head(200, "OK", "1.1", (("etag", '"5f3a-17c"'), ("last-modified", "Mon, 23 Nov 2026 09:00:00 GMT")))
    fetched = Fetched(
        head, b"", b"h" * 200, BytesBody(b""), BytesBody(b""), Timings(), ConnectionInfo(1, 1, "192.0.2.1"), NOW
    )
    return Settlement(
        Task(task_id, "https://host0.example/", depth=2),
        host_id,
        fetched,
        UrlState.DONE,
        tuple(links),
        digest="sha256:" + "A" * 52 + "====",
        finished_at=NOW,
    )


def batches(first: int, count: int, known: int, rng: random.Random) -> Iterator[list[list[Discovered]]]:
    """Pages of links, NEW_SHARE of them never seen; the others are drawn from those before."""
    fresh = first
    for _ in range(count):
        pages = []
        for _ in range(BATCH_PAGES):
            links = []
            for _ in range(PAGE_LINKS):
                if rng.random() < NEW_SHARE:
                    links.append(link(fresh))
                    fresh += 1
                else:
                    links.append(link(rng.randrange(known)))
            pages.append(links)
        yield pages


def written_bytes() -> int:
    with Path("/proc/self/io").open(encoding="ascii") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("write_bytes"))


def size_of(path: Path) -> int:
    return sum(one.stat().st_size for one in path.parent.iterdir() if one.name.startswith(path.name))


async def candidates(path: Path, duplicates: str) -> None:
    frontier = SqliteFrontier(path, duplicates=duplicates)
    await frontier.open()
    for start in range(0, KNOWN, 20_000):
        await frontier.add([link(n) for n in range(start, start + 20_000)], now=NOW)
    await frontier.close(clean=True)
    filters = path.with_name(path.name + ".filter")
    filter_bytes = filters.stat().st_size if filters.exists() else 0
    print(
        f"  {duplicates:6}  {(size_of(path) - filter_bytes) / KNOWN:6.1f} bytes on the disk a queued URL "
        f"({KNOWN:,} URLs, of 85 bytes), and a filter of {filter_bytes / 1e6:.1f} MB"
    )
    await frontier.open()
    rng = random.Random(1)
    roots = [(task.id, host) for host in (1, 2, 3, 4) for task in await frontier.take(host, 100, leased=())]
    cpu = wall = 0.0
    done = 0
    before = written_bytes()
    for pages in batches(KNOWN, BATCHES, KNOWN, rng):
        batch = Batch([page(roots[n][0], links, roots[n][1]) for n, links in enumerate(pages)], [None] * len(pages))
        cpu_then, then = time.process_time(), time.perf_counter()
        await frontier.settle(batch)
        cpu += time.process_time() - cpu_then
        wall += time.perf_counter() - then
        done += sum(map(len, pages))
    wrote = written_bytes() - before
    print(
        f"  {duplicates:6}  {done / wall:9,.0f} candidates a second, {cpu / done * 1e6:5.2f} µs CPU each "
        f"({done / cpu:9,.0f} a CPU-second), {wrote / done:6.1f} bytes written each, {wrote / wall / 1e6:5.1f} MB/s"
    )
    # What a visit adds: every queued URL of some hosts is settled, with validators, digest and record location.
    file = SinkFile("warc", "crawl-20261123090000-00000.warc.gz", SinkFileState.OPEN, 1)
    await frontier.close(clean=True)
    await frontier.open()
    size, visited = size_of(path), 0
    for host_id in range(5, 205):
        tasks = await frontier.take(host_id, 5_000, leased=())
        for start in range(0, len(tasks), 500):
            part = [page(task.id, [], host_id) for task in tasks[start : start + 500]]
            written = [RecordLocation(file.name, 1_000_000 + n) for n in range(len(part))]
            await frontier.settle(Batch(part, written, sink_files=[file]))
            visited += len(part)
    await frontier.close(clean=True)
    grown = size_of(path) - size
    print(f"  {duplicates:6}  {grown / visited:6.1f} bytes more a visited URL ({visited:,} visits)")


FILL = """
WITH RECURSIVE number (value) AS (SELECT 1 UNION ALL SELECT value + 1 FROM number WHERE value < {urls})
INSERT INTO url (id, host, hash, priority, depth, state, target, via, source, hop_path, redirects, found_at)
SELECT value, 1 + (value * 2654435761) % {hosts}, random(), 0, 3, 'queued',
       '/section-' || (value % 97) || '/' || printf('%07d', value * 40503 % 1000003) || '/page-'
         || printf('%09d', value) || '.html?view=full',
       max(1, value / 8), 'link', 'LLL', 0, 1795424400.0
FROM number"""


async def fill(path: Path, urls: int) -> None:
    frontier = SqliteFrontier(path)
    await frontier.open()
    seeds = [Discovered(f"https://host{n}.example/", origin(n), 1, 0, "", Source.SEED) for n in range(HOSTS)]
    await frontier.add(seeds, now=NOW)
    await frontier.close(clean=True)
    database = apsw.Connection(str(path))
    database.pragma("synchronous", "off")
    database.execute("DELETE FROM url; DROP INDEX url_key; DROP INDEX url_queued")
    database.execute(FILL.format(hosts=HOSTS, urls=urls))
    database.execute("CREATE UNIQUE INDEX url_key ON url (host, hash)")
    database.execute("CREATE INDEX url_queued ON url (host, priority, depth, id) WHERE state = 'queued'")
    database.execute(
        "UPDATE host SET queued = (SELECT count(*) FROM url WHERE url.host = host.id AND state = 'queued')"
    )
    database.execute("INSERT OR REPLACE INTO meta VALUES ('totals', ?)", (f'{{"queued": {urls}, "hosts": {HOSTS}}}',))
    database.close()


async def start_and_lease(path: Path) -> None:
    with path.open("rb") as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)  # a cold start, as far as the system lets us
    then = time.perf_counter()
    frontier = SqliteFrontier(path)
    recovered = await frontier.open()
    opened_s = time.perf_counter() - then
    totals = frontier.totals()
    rng = random.Random(2)
    times, cpu = [], []
    for _ in range(10_000):
        host = rng.choice(recovered.hosts).id
        cpu_then, then = time.process_time(), time.perf_counter()
        tasks = await frontier.take(host, 4, leased=())
        times.append(time.perf_counter() - then)
        cpu.append(time.process_time() - cpu_then)
        assert len(tasks) == 4
    times.sort()
    cpu.sort()
    print(f"  take of 4 tasks, CPU: median {cpu[5_000] * 1e3:.2f} ms, p99 {cpu[9_900] * 1e3:.2f} ms")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(f"  {totals.queued:,} URLs, {totals.hosts:,} hosts, {path.stat().st_size / 1e9:.2f} GB")
    print(f"  start {opened_s:.3f} s; peak memory {peak / 1024:.0f} MiB")
    print(f"  take of 4 tasks: median {times[5_000] * 1e3:.2f} ms, p99 {times[9_900] * 1e3:.2f} ms, "
          f"slowest {times[-1] * 1e3:.1f} ms")  # fmt: skip
    await frontier.close(clean=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--urls", type=int, default=10_000_000)
    parser.add_argument("--directory", type=Path)
    parser.add_argument("--only", nargs=2, metavar=("STAGE", "FILE"))
    arguments = parser.parse_args()
    if arguments.only:
        stage, path = arguments.only[0], Path(arguments.only[1])
        match stage:
            case "exact" | "filter":
                asyncio.run(candidates(path, stage))
            case "fill":
                asyncio.run(fill(path, arguments.urls))
            case "start":
                asyncio.run(start_and_lease(path))
        return
    with tempfile.TemporaryDirectory(dir=arguments.directory) as folder:
        for stage, name in (("exact", "e"), ("filter", "f"), ("fill", "large"), ("start", "large")):
            store = Path(folder, name)
            store.mkdir(exist_ok=True)
            print(f"{stage}:", flush=True)
            subprocess.run(
                [sys.executable, "-m", "bench.frontier", "--urls", str(arguments.urls), "--only", stage,
                 str(store / "frontier.db")], check=True,
            )  # fmt: skip


if __name__ == "__main__":
    main()
