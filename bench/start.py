"""A store of millions of hosts: how long a start takes, and memory after it and in a crawl.

    python -m bench.start [--hosts 10000000] [--crawl 60] [--directory DIR]

The store is that of `bench.many_hosts`, three URLs a host. The daemon is started with the file out of the page cache,
then again, with its `fetch.hours` closed; and once more to crawl for `--crawl` seconds with default options, over TLS,
from nginx on loopback with an address for each domain. Time is from the start of the process to its `ready` event.
"""

import argparse
import asyncio
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from datetime import datetime
from pathlib import Path

from bench.loopback import Network, address_of, breaches, network
from bench.many_hosts import ENVIRONMENT, URLS, fill, memory_of
from bench.polite import cpu_of
from crawler.settings.loading import load
from tests.support.nameserver import Answer, Zone

HOSTS = 10_000_000
PORT = 18_450  # of every host in the store
AFTER_S = 5.0  # from `ready` to the reading of memory after a start: the first hosts are in memory then
CONFIGURATION = """
[crawl]
seeds = ["https://www0.site1.example:{port}/"]
[identity]
user_agent = "bench/1.0 (+https://www.site1.example/about; bench@site1.example)"
[scope]
hosts = ["*.example"]
[network]
nameservers = [{nameserver}]
allow_private = ["127.0.0.0/8"]
[tls]
verify = false
[fetch]
hours = {hours}
[output]
directory = {directory}
"""


def answer(name: str, _family: int) -> Answer:
    """Every domain has an address."""
    number = int(name.rpartition(".site")[2].partition(".")[0])
    return Zone([address_of(number % 8_000_000)], ttl=86_400)


def configure(path: Path, served: Network, *, is_open: bool) -> Path:
    hours = [] if is_open else ["03:00-03:01"]
    path.write_text(
        CONFIGURATION.format(
            port=PORT, nameserver=json.dumps(served.nameserver), hours=json.dumps(hours),
            directory=json.dumps(str(path.parent / "data")),
        )
    )  # fmt: skip
    return path


def leave_page_cache(path: Path) -> None:
    """Drop a file from the page cache."""
    with path.open("rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def read_bytes(pid: int) -> int:
    """Bytes that a process has had read from the disk. Source: proc_pid_io(5)."""
    return int(Path(f"/proc/{pid}/io").read_text().partition("\nread_bytes:")[2].split()[0])


def start(config: Path) -> tuple[subprocess.Popen[bytes], float, float]:
    """Start the daemon. Returns it, and its wall and CPU time until it was ready."""
    log = config.parent / "data" / "logs" / "events.jsonl"
    seen = log.stat().st_size if log.exists() else 0
    with (config.parent / "said").open("wb") as said:
        begin = time.time()
        process = subprocess.Popen(
            [sys.executable, "-m", "crawler", "run", "-c", str(config)], env=ENVIRONMENT, stdout=said, stderr=said
        )
    while process.poll() is None:
        cpu_s = cpu_of(process.pid)
        if log.exists():
            with log.open("rb") as file:
                file.seek(seen)
                for line in file.read().splitlines():
                    if b'"event":"ready"' in line:
                        return process, datetime.fromisoformat(json.loads(line)["ts"]).timestamp() - begin, cpu_s
        time.sleep(0.02)
    sys.exit(f"the daemon ended: {(config.parent / 'said').read_text()}")


def stop(process: subprocess.Popen[bytes]) -> float:
    """Stop the daemon. Returns how long that took."""
    begin = time.monotonic()
    process.send_signal(signal.SIGTERM)
    process.wait()
    return time.monotonic() - begin


def show(what: str, words: str) -> None:
    print(f"{what:30} {words}; load {os.getloadavg()[0]:.1f}", flush=True)


def measure_start(config: Path, label: str) -> None:
    process, wall_s, cpu_s = start(config)
    at_once, read = memory_of(process.pid)[0], read_bytes(process.pid)
    time.sleep(AFTER_S)
    later, peak = memory_of(process.pid)
    stopped_s = stop(process)
    show(label, f"{wall_s:.2f} s, {cpu_s:.2f} CPU-s, {read / 2**20:.0f} MiB read; {at_once / 2**20:.0f} MiB when "
                f"ready, {later / 2**20:.0f} MiB {AFTER_S:.0f} s later, {peak / 2**20:.0f} MiB at most; "
                f"stopped in {stopped_s:.1f} s")  # fmt: skip


def measure_crawl(config: Path, served: Network, seconds: float) -> None:
    begin = time.time()
    process, *_ = start(config)
    cpu_s, peak = cpu_of(process.pid), 0
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and process.poll() is None:
        time.sleep(1)
        peak = memory_of(process.pid)[1]
    cpu_s = cpu_of(process.pid) - cpu_s
    stopped_s = stop(process)
    requests = served.requests(begin, time.time())
    hosts, handshakes = ({getattr(r, name) for r in requests} for name in ("host", "connection"))
    show(f"crawl of {seconds:.0f} s", f"{peak / 2**20:.0f} MiB at most; {len(requests):,} responses of {len(hosts):,} "
         f"hosts over {len(handshakes):,} connections, {len(requests) / cpu_s:.0f} a CPU-second; delays not kept: "
         f"{breaches(requests, 1.0)}; stopped in {stopped_s:.1f} s")  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hosts", type=int, default=HOSTS)
    parser.add_argument("--crawl", type=float, default=60.0, help="seconds")
    parser.add_argument("--directory", type=Path, help="where the store is made, unless it is there")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="crawler-start-", dir=options.directory) as temporary:
        served_from = Path(temporary)
        served_from.chmod(0o755)
        directory = options.directory or served_from
        store = directory / "data" / "frontier.db"
        with network(served_from, answer, pages=4, first_port=PORT) as served:
            config = configure(directory / "crawler.toml", served, is_open=False)
            if not store.exists():
                store.parent.mkdir(parents=True)
                begin, cpu_s = time.perf_counter(), time.process_time()
                rules = load(config, [], {}, "run").settings.engine_configuration("run").fingerprint
                asyncio.run(fill(store, options.hosts, port=PORT, judged_by=rules))
                show("filled", f"{time.perf_counter() - begin:.0f} s, {time.process_time() - cpu_s:.0f} CPU-s")
            size = store.stat().st_size
            show("store", f"{size / 2**20:,.0f} MiB: {size / options.hosts:.0f} bytes a host with {URLS} URLs")
            leave_page_cache(store)
            measure_start(config, "start, file not in memory")
            measure_start(config, "start again")
            configure(config, served, is_open=True)
            measure_crawl(config, served, options.crawl)


if __name__ == "__main__":
    main()
