"""nginx on loopback for the benchmarks: one site over TLS, with a log of connections and requests."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import trustme

JAVADOC = Path("/usr/share/doc/openjdk-17-jre-headless/api")
PORT = 18443
FLUSH_S = 1.2  # nginx writes its log each second
PACKAGES = {"nginx": "nginx-light", "wget2": "wget2"}


@dataclass(frozen=True)
class Served:
    """A running server: the folder with ca.pem, and its access log."""

    folder: Path
    log: Path

    @property
    def url(self) -> str:
        return f"https://localhost:{PORT}/"

    @property
    def ca_file(self) -> Path:
        return self.folder / "ca.pem"

    def mark(self) -> int:
        """The length of the log, after all lines are written."""
        time.sleep(FLUSH_S)
        return self.log.stat().st_size if self.log.exists() else 0

    def since(self, mark: int) -> list[dict[str, object]]:
        """The requests after a mark."""
        time.sleep(FLUSH_S)
        with self.log.open("rb") as file:
            file.seek(mark)
            return [json.loads(line) for line in file]


def connections(requests: list[dict[str, object]]) -> tuple[int, int]:
    """How many connections served some requests, and how many of them resumed a TLS session."""
    per_connection = Counter(str(each["conn"]) for each in requests)
    resumed = {str(each["conn"]) for each in requests if each["resumed"] == "r"}
    return len(per_connection), len(resumed)


def need(*programs: str) -> None:
    """End with the package to install where a program is missing."""
    for name in programs:
        if program(name) is None:
            sys.exit(f"{name} is not installed (apt-get install {PACKAGES.get(name, name)})")


def program(name: str) -> str | None:
    """The path of a program; servers are not in the PATH of a user."""
    return shutil.which(name) or shutil.which(name, path="/usr/sbin:/usr/local/sbin")


@contextmanager
def nginx(site: Path = JAVADOC) -> Iterator[Served]:
    """Serve a folder on https://localhost:PORT/ (and any name that ends in .many.test) until the block ends."""
    need("nginx")
    if not site.is_dir():
        sys.exit(f"{site} is missing (apt-get install openjdk-17-doc, or --site DIR)")
    with tempfile.TemporaryDirectory(prefix="crawler-bench-") as name:
        folder = Path(name)
        authority = trustme.CA()
        authority.cert_pem.write_to_path(folder / "ca.pem")
        authority.issue_cert("localhost", "*.many.test").private_key_and_cert_chain_pem.write_to_path(
            folder / "leaf.pem"
        )
        log = folder / "access.jsonl"
        (folder / "nginx.conf").write_text(_configuration(site, folder, log))
        server = subprocess.Popen([str(program("nginx")), "-c", str(folder / "nginx.conf")], stderr=subprocess.DEVNULL)
        try:
            time.sleep(0.5)
            if server.poll() is not None:
                sys.exit(f"nginx did not start: {(folder / 'error.log').read_text()}")
            yield Served(folder, log)
        finally:
            server.terminate()
            server.wait()


def _configuration(site: Path, folder: Path, log: Path) -> str:
    user = "user root;\n" if os.geteuid() == 0 else ""
    return (
        f"worker_processes 1; pid {folder}/pid; error_log {folder}/error.log; daemon off; worker_rlimit_nofile 20000;\n"
        f"{user}events {{ worker_connections 16384; }}\n"
        "http { include /etc/nginx/mime.types; charset utf-8; sendfile on; tcp_nopush on; tcp_nodelay on;\n"
        " keepalive_requests 1000000; open_file_cache max=30000 inactive=600s; open_file_cache_valid 600s;\n"
        ' log_format facts escape=json \'{"t":$msec,"rt":$request_time,"host":"$host","uri":"$request_uri",'
        '"status":$status,"conn":$connection,"resumed":"$ssl_session_reused"}\';\n'
        f" access_log {log} facts buffer=64k flush=1s;\n"
        f" ssl_certificate {folder}/leaf.pem; ssl_certificate_key {folder}/leaf.pem; ssl_session_cache shared:S:10m;\n"
        f" server {{ listen 127.0.0.1:{PORT} ssl; root {site}; index index.html; }} }}\n"
    )
