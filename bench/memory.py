"""`python -m bench.memory`: memory of an idle connection, and whether memory stays flat over a long crawl.

`connections`: thousands of keep-alive TLS connections through this program's own pool, each idle after one page, for
several sizes of page; each size in a process of its own. `flat`: one crawl of many hosts, each with the whole site; the
process's resident memory is read each second, and a straight line is fitted through it after the warm-up.
"""

import argparse
import asyncio
import gc
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import uvloop

from bench.serve import PORT, Served, nginx
from bench.trips import NoRateLimit
from crawler.core.models import Fetched, Origin, Task
from crawler.engine.engine import SystemClock
from crawler.fetch.http_client import HttpClient
from crawler.settings.loading import load

SIZES = (0, 8_000, 26_000, 96_000)
AT_ONCE = 50
LAG_S = 10  # readings closer than this are not independent: the interval is taken over means of so many seconds


def rss_bytes(pid: int | str = "self") -> int:
    """Resident memory of a process. Source: proc_pid_statm(5)."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * resource.getpagesize()


# -- idle connections


async def hold(ca_file: Path, count: int, size: int, buffer: int) -> None:
    """Open the connections, one page over each, and print the bytes that each costs."""
    names = [f"h{n:05}.many.test" for n in range(count)]
    table = ", ".join(f'"{name}" = ["127.0.0.1"]' for name in names)
    options = [
        'crawl.seeds=["https://localhost/"]',
        'network.allow_private=["127.0.0.0/8"]',
        f"network.resolve={{{table}}}",
        f"network.ca_file={json.dumps(str(ca_file))}",
        f"fetch.connections={count + 100}",
        f"fetch.receive_buffer={buffer}",
        'fetch.idle_timeout="10m"',
        f"politeness.connections_per_address={count + 100}",
        "politeness.delay=0",
    ]
    settings = load(None, options, {}, "crawl").settings
    client = HttpClient(settings.client_options(), clock=SystemClock(), address_limiter=NoRateLimit(), memory=64 << 20)
    left = iter(names)

    async def work() -> None:
        for name in left:
            origin = Origin("https", name, PORT)
            result = await client.fetch(origin, Task(1, f"{origin}/{size}.html"))
            if not isinstance(result, Fetched) or result.payload.size != size:
                raise SystemExit(f"a fetch failed: {result}")

    gc.collect()
    before = rss_bytes()
    async with asyncio.TaskGroup() as group:
        for _ in range(AT_ONCE):
            group.create_task(work())
    gc.collect()
    stats = client.stats()
    if stats.idle != count or stats.tls_handshakes != count:
        raise SystemExit(f"{stats.idle} connections are idle, of {stats.tls_handshakes}")
    after = rss_bytes()
    each_kib, whole_mib = (after - before) / count / 1024, after / 2**20
    label = f"{count:,} idle after a page of {size:6,} bytes, read through {buffer // 1024} KiB"
    print(f"{label}: {each_kib:6.1f} KiB each, {whole_mib:.0f} MiB in all", flush=True)
    await client.close()


def connections(count: int) -> None:
    with tempfile.TemporaryDirectory(prefix="crawler-bench-") as name:
        pages = Path(name)
        for size in SIZES:
            (pages / f"{size}.html").write_bytes(b"x" * size)
        with nginx(pages) as served:
            for buffer in (64, 16):
                for size in SIZES:
                    numbers = [str(count), str(size), str(buffer * 1024)]
                    only = ["--only", str(served.ca_file), *numbers]
                    subprocess.run([sys.executable, "-m", "bench.memory", *only], check=True)


# -- a long crawl


def flat(fetches: int, warm_up: int) -> None:
    """Crawl until so many responses came, and print the slope of memory over responses."""
    with nginx() as served, tempfile.TemporaryDirectory(prefix="crawler-bench-") as name:
        readings = _readings(served, Path(name), fetches)
    used = [(n, rss) for n, rss in readings if n >= warm_up]
    print(f"{readings[-1][0]:,} responses, {len(used)} readings after the first {warm_up:,}")
    print(f"resident at the first of them {used[0][1] / 2**20:.0f} MiB, at the last {used[-1][1] / 2**20:.0f} MiB, "
          f"at most {max(rss for _, rss in readings) / 2**20:.0f} MiB")  # fmt: skip
    for words, part in (("all of them", used), ("their second half", used[len(used) // 2 :])):
        low, slope, high = line(_means(part, LAG_S))
        print(f"slope over {words}: {slope:.1f} bytes a response (95 %: {low:.1f} to {high:.1f})")


def _readings(served: Served, folder: Path, fetches: int) -> list[tuple[int, int]]:
    hosts = [f"h{n:05}.many.test" for n in range(max(1, fetches // 10_000))]
    values = {
        "crawl.name": '"flat"',
        "crawl.seeds": json.dumps([f"https://{host}:{PORT}/" for host in hosts]),
        "scope.requisites": "false",
        "scope.max_urls": str(fetches),
        "politeness.key": '"host"',
        "politeness.delay": "0",
        "politeness.connections_per_host": "2",
        "network.allow_private": '["127.0.0.0/8"]',
        "network.ca_file": json.dumps(str(served.ca_file)),
        "network.resolve": "{" + ", ".join(f'"{host}" = ["127.0.0.1"]' for host in hosts) + "}",
        "output.pages": "false",
        "output.directory": json.dumps(str(folder / "out")),
    }
    options = [part for key, value in values.items() for part in ("-o", f"{key}={value}")]
    command = [sys.executable, "-m", "crawler", "crawl", *options]
    readings: list[tuple[int, int]] = []
    with subprocess.Popen(command, cwd=Path(__file__).parents[1]) as process, Lines(served.log) as lines:
        while process.poll() is None:
            time.sleep(1)
            try:
                if rss := rss_bytes(process.pid):  # 0: it has ended, and was not waited for yet
                    readings.append((lines.count(), rss))
            except (OSError, IndexError):  # it ended meanwhile
                break
            if len(readings) % 30 == 0:
                print(f"  {readings[-1][0]:9,} responses, {readings[-1][1] / 2**20:.0f} MiB", flush=True)
        if process.wait() != 0:
            raise SystemExit(f"the crawl ended with {process.returncode}")
    return readings


class Lines:
    """Counts the lines of a growing file, reading each byte once."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lines = 0

    def __enter__(self) -> "Lines":
        self._path.touch()
        self._file = self._path.open("rb")
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def count(self) -> int:
        while data := self._file.read(1 << 20):
            self._lines += data.count(b"\n")
        return self._lines


def _means(readings: list[tuple[int, int]], width: int) -> list[tuple[float, float]]:
    groups = [readings[i : i + width] for i in range(0, len(readings), width)]
    return [(sum(n for n, _ in g) / len(g), sum(rss for _, rss in g) / len(g)) for g in groups]


def line(points: list[tuple[float, float]]) -> tuple[float, float, float]:
    """Least squares: the slope, and the ends of its 95 % interval (normal approximation)."""
    count = len(points)
    if count < 3:
        raise SystemExit("too few readings for a slope")
    mean_x, mean_y = sum(x for x, _ in points) / count, sum(y for _, y in points) / count
    spread = sum((x - mean_x) ** 2 for x, _ in points)
    slope = sum((x - mean_x) * (y - mean_y) for x, y in points) / spread
    residual = sum((y - mean_y - slope * (x - mean_x)) ** 2 for x, y in points)
    error = (residual / (count - 2) / spread) ** 0.5
    return slope - 1.96 * error, slope, slope + 1.96 * error


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.memory", description=__doc__)
    parser.add_argument("what", nargs="?", choices=("connections", "flat"), help="default: both")
    parser.add_argument("--connections", type=int, default=5_000)
    parser.add_argument("--fetches", type=int, default=500_000)
    parser.add_argument("--warm-up", type=int, default=100_000, help="responses before the line begins")
    parser.add_argument("--only", nargs=4, metavar=("CA", "COUNT", "SIZE", "BUFFER"), help=argparse.SUPPRESS)
    chosen = parser.parse_args(argv)
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    if chosen.only:
        ca_file, *numbers = chosen.only
        uvloop.run(hold(Path(ca_file), *map(int, numbers)))
        return
    if chosen.what in (None, "connections"):
        connections(chosen.connections)
    if chosen.what in (None, "flat"):
        flat(chosen.fetches, chosen.warm_up)


if __name__ == "__main__":
    main()
