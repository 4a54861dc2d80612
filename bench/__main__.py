"""`make bench`: a whole documentation site over TLS, this program and wget2 in turn, medians.

Serves Debian's JavaDoc (package openjdk-17-doc; or --site DIR) with nginx on loopback and crawls all of it over eight
connections. CPU is that of the process tree, so a noisy machine shows less; what runs beside it still spoils it.
"""

import argparse
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import trustme

JAVADOC = Path("/usr/share/doc/openjdk-17-jre-headless/api")
PORT = 18443
CONNECTIONS = 8


@dataclass(frozen=True)
class Run:
    """One crawl. `responses` by the server's own log; CPU in seconds, memory in MiB."""

    responses: int
    wall_s: float
    cpu_s: float
    rss_mib: float

    @property
    def rate(self) -> float:
        """Responses per CPU-second."""
        return self.responses / self.cpu_s


@contextmanager
def nginx(site: Path, folder: Path) -> Iterator[Path]:
    """Serve `site` on https://localhost:PORT/; yields the access log. The CA is folder/ca.pem."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(folder / "ca.pem")
    leaf = authority.issue_cert("localhost")
    leaf.private_key_and_cert_chain_pem.write_to_path(folder / "leaf.pem")
    log = folder / "access.log"
    (folder / "nginx.conf").write_text(
        f"worker_processes 1; pid {folder}/pid; error_log {folder}/error.log; daemon off;\n"
        + ("user root;\n" if os.geteuid() == 0 else "")
        + "events { worker_connections 4096; }\n"
        f"http {{ include /etc/nginx/mime.types; charset utf-8; sendfile on; tcp_nopush on; tcp_nodelay on;\n"
        f" keepalive_requests 1000000; open_file_cache max=30000 inactive=600s; open_file_cache_valid 600s;\n"
        f" access_log {log} combined buffer=64k flush=1s;\n"
        f" ssl_certificate {folder}/leaf.pem; ssl_certificate_key {folder}/leaf.pem; ssl_session_cache shared:S:10m;\n"
        f" server {{ listen 127.0.0.1:{PORT} ssl; root {site}; index index.html; }} }}\n"
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


def measure(command: Sequence[str], log: Path, cwd: Path) -> Run:
    """Run a crawl to its end."""
    before = log.read_bytes().count(b"\n") if log.exists() else 0
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    begun = time.monotonic()
    with subprocess.Popen(command, cwd=cwd, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        _, status, own = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    wall_s = time.monotonic() - begun
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    time.sleep(1.2)  # nginx flushes its log each second
    responses = log.read_bytes().count(b"\n") - before
    cpu_s = after.ru_utime + after.ru_stime - usage.ru_utime - usage.ru_stime
    return Run(responses, wall_s, cpu_s, own.ru_maxrss / 1024)


def crawler(folder: Path, output: Path) -> list[str]:
    """This program's command line."""
    values = {
        "scope.requisites": "false",
        "politeness.delay": "0",
        "politeness.connections_per_host": str(CONNECTIONS),
        "network.allow_private": '["127.0.0.0/8"]',
        "network.ca_file": json.dumps(str(folder / "ca.pem")),
    }
    options = [part for key, value in values.items() for part in ("-o", f"{key}={value}")]
    return [sys.executable, "-m", "crawler", "crawl", f"https://localhost:{PORT}/", "--output", str(output), *options]


def wget2(folder: Path) -> list[str]:
    """The peer's."""
    options = ["-q", "-r", "-l", "inf", f"--max-threads={CONNECTIONS}", "--no-http2"]
    return ["wget2", *options, f"--ca-certificate={folder}/ca.pem", f"https://localhost:{PORT}/"]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--site", type=Path, default=JAVADOC, help="folder of HTML to serve")
    parser.add_argument("--runs", type=int, default=5)
    chosen = parser.parse_args()
    for program, package in (("nginx", "nginx-light"), ("wget2", "wget2")):
        if shutil.which(program) is None:
            sys.exit(f"{program} is not installed (apt-get install {package})")
    if not chosen.site.is_dir():
        sys.exit(f"{chosen.site} is missing (apt-get install openjdk-17-doc, or --site DIR)")
    runs: dict[str, list[Run]] = {"crawler": [], "wget2": []}
    with tempfile.TemporaryDirectory(prefix="crawler-bench-") as name, nginx(chosen.site, Path(name)) as log:
        folder = Path(name)
        root = Path(__file__).parents[1]
        for n in range(chosen.runs):
            runs["crawler"].append(measure(crawler(folder, folder / f"out{n}"), log, root))
            shutil.rmtree(folder / f"out{n}")
            (folder / "wget").mkdir()
            runs["wget2"].append(measure(wget2(folder), log, folder / "wget"))
            shutil.rmtree(folder / "wget")
            print(f"run {n + 1}: " + ", ".join(f"{who} {r[-1].rate:.0f}/CPU-s" for who, r in runs.items()), flush=True)
    print(f"\n{'':10}{'responses':>10}{'wall s':>9}{'CPU s':>9}{'per CPU-s':>11}{'MiB':>7}")
    for who, taken in runs.items():
        middle = {key: statistics.median(getattr(run, key) for run in taken) for key in Run.__annotations__}
        rate = statistics.median(run.rate for run in taken)
        print(
            f"{who:10}{middle['responses']:>10.0f}{middle['wall_s']:>9.2f}{middle['cpu_s']:>9.2f}"
            f"{rate:>11.0f}{middle['rss_mib']:>7.0f}"
        )
    ratio = statistics.median(a.rate / b.rate for a, b in zip(runs["crawler"], runs["wget2"], strict=True))
    print(f"\nresponses per CPU-second, crawler to wget2, median of pairs: {ratio:.2f}")


if __name__ == "__main__":
    main()
