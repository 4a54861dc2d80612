"""Seeds on many hosts: hosts a CPU-second that `SqliteFrontier.add` inserts into an empty store, in slices.

    python -m bench.seeds [--hosts 500000] [--slice 20000] [--directory DIR]

Every URL has a host of its own; their order is random. CPU time is that of the whole process. Each step of the way of a
line is also measured by itself.
"""

import argparse
import asyncio
import gc
import random
import resource
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from crawler.app import GC_THRESHOLD
from crawler.core.enums import Source
from crawler.core.models import Discovered
from crawler.core.url import key_of, name_hash, parse_seed, registrable_domain, slot_of
from crawler.frontier.sqlite.store import SqliteFrontier

NOW = 1_795_424_400.0
SUFFIXES = ("com", "org", "net", "de", "co.uk", "github.io", "fr", "com.br")
SAMPLE = 20_000  # hosts that each step is measured with


def line(n: int) -> str:
    """Line number n of a list of hosts; a third of them have a scheme and a "www."."""
    name = f"{n * 2_654_435_761 % 2**32:08x}-{n}.{SUFFIXES[n % len(SUFFIXES)]}"
    return f"https://www.{name}/" if n % 3 == 0 else name


def discovered(text: str) -> Discovered:
    url, origin = parse_seed(text)
    return Discovered(url, origin, key_of(url), 0, "", Source.SEED)


async def insert(path: Path, lines: Sequence[str], slice_size: int) -> tuple[float, float]:
    """Insert all lines. Returns the CPU-seconds of parsing and of inserting."""
    frontier = SqliteFrontier(path)
    await frontier.open()
    parsing_s = inserting_s = 0.0
    for start in range(0, len(lines), slice_size):
        begun = time.process_time()
        found = [discovered(text) for text in lines[start : start + slice_size]]
        parsed = time.process_time()
        await frontier.add(found, now=NOW)
        parsing_s += parsed - begun
        inserting_s += time.process_time() - parsed
    await frontier.close(clean=True)
    return parsing_s, inserting_s


def measure_steps(lines: Sequence[str]) -> None:
    hosts = [parse_seed(text)[1].host for text in lines]
    domains = [registrable_domain(host) for host in hosts]
    registrable_domain.cache_clear()
    steps: list[tuple[str, Callable[[str], object], Sequence[str]]] = [
        ("parse_seed", parse_seed, lines),
        ("registrable_domain", registrable_domain, hosts),
        ("slot_of", slot_of, domains),
        ("name_hash", name_hash, hosts),
    ]
    for name, step, texts in steps:
        begun = time.process_time()
        for text in texts:
            step(text)
        print(f"{name:20} {(time.process_time() - begun) / len(texts) * 1e6:6.2f} us")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hosts", type=int, default=500_000)
    parser.add_argument("--slice", type=int, default=20_000)
    parser.add_argument("--directory")
    options = parser.parse_args()
    gc.set_threshold(GC_THRESHOLD, 50, 100)  # as in a crawl
    lines = [line(n) for n in range(options.hosts)]
    random.Random(1).shuffle(lines)
    measure_steps(lines[:SAMPLE])
    registrable_domain.cache_clear()
    gc.freeze()
    with tempfile.TemporaryDirectory(dir=options.directory) as directory:
        path = Path(directory) / "frontier.db"
        parsing_s, inserting_s = asyncio.run(insert(path, lines, options.slice))
        stored = path.stat().st_size
    print(f"parsing   {options.hosts / parsing_s:10,.0f} lines a CPU-second")
    print(f"inserting {options.hosts / inserting_s:10,.0f} hosts a CPU-second")
    print(f"stored    {stored / options.hosts:10,.0f} bytes a host")
    print(f"memory    {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:10,.0f} MiB, with all lines in a list")


if __name__ == "__main__":
    main()
