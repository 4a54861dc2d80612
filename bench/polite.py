"""`python -m bench.polite`: how close the request rate of a crawl of many hosts comes to what politeness allows.

A thousand hosts on loopback (hNNNN.many.test, nginx, TLS), each with a second between a response and the next request.
After a warm-up two things are taken from the server's log: the number of requests compared with the sum over hosts of
1 / (delay + response time), and how late each request was. The CPU of the crawler is shown as well, since it is the
first limit at a thousand requests a second.
"""

import argparse
import itertools
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import trustme

PORT = 18444
ADDRESSES = 16
GUARD_S = 0.010  # core.politeness.CLOCK_GUARD_S: part of every delay
PAGES = 400  # of each host; each links to the next twenty


@dataclass(frozen=True)
class LoggedRequest:
    """A line of the access log, in seconds."""

    host: str
    begin: float
    end: float


@contextmanager
def nginx(folder: Path) -> Iterator[Path]:
    """Serve every name below many.test on 127.0.1.1 and the addresses after it; yields the access log."""
    pages = folder / "www"
    pages.mkdir()
    for n in range(PAGES):
        links = "".join(f'<li><a href="/{m}.html">page {m}</a>' for m in range(n + 1, min(n + 21, PAGES)))
        (pages / f"{n}.html").write_text(f"<!doctype html><title>Page {n}</title><p>{'words ' * 300}<ul>{links}</ul>")
    authority = trustme.CA()
    authority.cert_pem.write_to_path(folder / "ca.pem")
    authority.issue_cert("*.many.test").private_key_and_cert_chain_pem.write_to_path(folder / "leaf.pem")
    log = folder / "access.log"
    listen = " ".join(f"listen 127.0.1.{n + 1}:{PORT} ssl backlog=4096;" for n in range(ADDRESSES))
    (folder / "nginx.conf").write_text(
        f"worker_processes 1; pid {folder}/pid; error_log {folder}/error.log; daemon off; worker_rlimit_nofile 8192;\n"
        + ("user root;\n" if os.geteuid() == 0 else "")
        + "events { worker_connections 8000; }\n"
        "http { default_type text/html; keepalive_requests 1000000; keepalive_timeout 600s; open_file_cache max=1000;\n"
        " log_format timed '$host $msec $request_time';\n"
        f" access_log {log} timed buffer=64k flush=1s;\n"
        f" ssl_certificate {folder}/leaf.pem; ssl_certificate_key {folder}/leaf.pem;\n"
        f" server {{ {listen} root {pages}; index 0.html; }} }}\n"
    )
    server = subprocess.Popen(["nginx", "-c", str(folder / "nginx.conf")], stderr=subprocess.DEVNULL)
    try:
        time.sleep(0.5)
        if server.poll() is not None:
            sys.exit(f"nginx did not start: {(folder / 'error.log').read_text()}")
        yield log
    finally:
        server.terminate()
        server.wait()


def configuration(folder: Path, hosts: int, delay_s: float) -> Path:
    """Write the configuration. Its values are JSON, which is valid TOML here."""
    names = [f"h{n:04}.many.test" for n in range(hosts)]
    table = {name: [f"127.0.1.{n % ADDRESSES + 1}"] for n, name in enumerate(names)}
    resolve = "\n".join(f"{json.dumps(name)} = {json.dumps(addresses)}" for name, addresses in table.items())
    path = folder / "polite.toml"
    path.write_text(
        f"[crawl]\nseeds = {json.dumps([f'https://{name}:{PORT}/' for name in names])}\n"
        f'[politeness]\nkey = "host"\ndelay = "{round(delay_s * 1000)}ms"\naddress_delay = 0\nadaptive = false\n'
        f'connections_per_address = {hosts}\n[fetch]\nconnections = {hosts + 100}\nidle_timeout = "10m"\n'
        f'[engine]\nworkers = 256\n[network]\nallow_private = ["127.0.0.0/8"]\n'
        f"ca_file = {json.dumps(str(folder / 'ca.pem'))}\n[network.resolve]\n{resolve}\n"
    )
    return path


def read_log(log: Path, begin: float, end: float) -> list[LoggedRequest]:
    """Requests that ended between two times of the clock."""
    found = []
    for line in log.read_text().splitlines():
        host, ended, took = line.split()
        if begin <= float(ended) < end:
            found.append(LoggedRequest(host, float(ended) - float(took), float(ended)))
    return found


def report(requests: list[LoggedRequest], hosts: int, delay_s: float, span_s: float, cpu: float) -> None:
    """Print the figures of the log."""
    lines: defaultdict[str, list[LoggedRequest]] = defaultdict(list)
    for one in requests:
        lines[one.host].append(one)
    response_s = sum(one.end - one.begin for one in requests) / max(1, len(requests))
    possible = hosts / (delay_s + response_s)
    late, breaches = [], 0
    for line in lines.values():
        line.sort(key=lambda one: one.begin)
        for before, after in itertools.pairwise(line):
            gap = after.begin - before.end
            late.append(gap - delay_s - GUARD_S)
            breaches += gap < delay_s - 1e-6
    late.sort()
    rate = len(requests) / span_s
    print(f"hosts requested   {len(lines)} of {hosts}, mean response {response_s * 1e3:.1f} ms")
    print(f"requests          {rate:.0f}/s of {possible:.0f}/s that politeness allows: {rate / possible:.1%}")
    for share in (0.5, 0.9, 0.99, 1.0):
        index = min(len(late) - 1, int(share * len(late)))
        print(f"late p{share * 100:<12g}{late[index] * 1e3:.0f} ms")
    print(f"delays not kept   {breaches}")
    print(f"crawler's CPU     {cpu:.0%} of a core; load average {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.polite", description=__doc__)
    parser.add_argument("--hosts", type=int, default=1_000)
    parser.add_argument("--delay", type=float, default=1.0, help="seconds")
    parser.add_argument("--warm-up", type=float, default=60.0, help="seconds")
    parser.add_argument("--measure", type=float, default=60.0, help="seconds")
    chosen = parser.parse_args()
    if shutil.which("nginx") is None:
        sys.exit("nginx is not installed (apt-get install nginx-light)")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, max(soft, 8_192)), hard))
    with tempfile.TemporaryDirectory(prefix="crawler-polite-") as name, nginx(Path(name)) as log:
        folder = Path(name)
        config = configuration(folder, chosen.hosts, chosen.delay)
        command = [
            sys.executable,
            "-m",
            "crawler",
            "crawl",
            "-c",
            str(config),
            "--output",
            str(folder / "out"),
            "--json",
        ]
        with subprocess.Popen(
            command, cwd=Path(__file__).parents[1], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        ) as process:
            time.sleep(chosen.warm_up)
            begin, cpu_s = time.time(), cpu_of(process.pid)
            time.sleep(chosen.measure)
            end, cpu_s = time.time(), cpu_of(process.pid) - cpu_s
            process.send_signal(signal.SIGTERM)
            process.wait()
        time.sleep(1.5)  # nginx flushes its log each second
        report(read_log(log, begin, end), chosen.hosts, chosen.delay, end - begin, cpu_s / (end - begin))


def cpu_of(pid: int) -> float:
    """Seconds of CPU that a process has used, its threads included."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


if __name__ == "__main__":
    main()
