"""Many hosts on loopback: nginx on every address of 127.0.0.0/8, a name server, and what never responds.

The bench says which names exist, and where. All pages are the same on every host. nginx serves them over TLS with one
certificate, and without TLS; it logs each request.
"""

import asyncio
import itertools
import math
import os
import random
import socket
import subprocess
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

import trustme

from bench.serve import need, program
from tests.support.nameserver import Answer, nameserver

PAGE = "words that a page is made of and that are read once; " * 100


@dataclass(frozen=True, slots=True)
class LoggedRequest:
    """A line of the access log, times in seconds."""

    host: str
    target: str
    begin: float
    end: float
    connection: int
    resumed: bool


@dataclass(frozen=True)
class Network:
    """What runs, with its files in `folder`: nginx on ports `tls` and `plain`; `mute`, which accepts connections and
    says nothing; `dropping`, which drops every packet; and the name server, by address and port. Nobody listens on
    `refusing`.
    """

    folder: Path
    tls: int
    plain: int
    refusing: int
    mute: int
    dropping: int
    nameserver: str = ""

    @property
    def ca_file(self) -> Path:
        return self.folder / "ca.pem"

    def requests(self, begin: float = 0.0, end: float = math.inf) -> list[LoggedRequest]:
        """The requests that ended between two times of the wall clock."""
        found = []
        with (self.folder / "access.log").open() as lines:
            for line in lines:
                host, target, ended, took, connection, resumed = line.split()
                if begin <= float(ended) < end:
                    found.append(
                        LoggedRequest(
                            host, target, float(ended) - float(took), float(ended), int(connection), resumed == "r"
                        )
                    )
        return found


def address_of(number: int) -> str:
    """The address of host `number`, below 8 million."""
    return f"127.{number // 65_536 + 1}.{number // 256 % 256}.{number % 256}"


def breaches(requests: list[LoggedRequest], delay_s: float) -> int:
    """How often a host's request began before the delay after the one before it was over, by whole milliseconds."""
    of_host: defaultdict[str, list[LoggedRequest]] = defaultdict(list)
    for request in requests:
        of_host[request.host].append(request)
    found = 0
    for line in of_host.values():
        line.sort(key=lambda request: request.begin)
        found += sum(b.begin - a.end < delay_s - 1e-6 for a, b in itertools.pairwise(line))
    return found


def free_ports() -> int:
    """The first of five ports in a row that nobody uses, below those that the kernel gives to connections."""
    while True:
        first = random.randrange(20_000, 32_000)
        with ExitStack() as stack, suppress(OSError):
            for port in range(first, first + 5):
                stack.enter_context(socket.create_server(("", port)))
            return first


@contextmanager
def network(
    folder: Path, answer: Callable[[str, int], Answer], *, pages: int, first_port: int | None = None
) -> Iterator[Network]:
    """Serve `pages` pages of every host, the first of which links to the others, and answer queries by `answer`."""
    need("nginx")
    first = first_port or free_ports()
    served = Network(folder, *range(first, first + 5))
    with _nginx(served, pages), _in_thread(answer, served.mute) as nameserver, _full_queue(served.dropping):
        yield replace(served, nameserver=nameserver)


@contextmanager
def _nginx(served: Network, pages: int) -> Iterator[None]:
    folder, www = served.folder, served.folder / "www"
    www.mkdir()
    links = "".join(f'<li><a href="/{n}.html">page {n}</a>' for n in range(1, pages))
    for n in range(pages):
        (www / ("index.html" if n == 0 else f"{n}.html")).write_text(
            f"<!doctype html><title>Page {n}</title><p>{PAGE}<ul>{links if n == 0 else ''}</ul>"
        )
    authority = trustme.CA()
    authority.cert_pem.write_to_path(folder / "ca.pem")
    authority.issue_cert("*.many.test").private_key_and_cert_chain_pem.write_to_path(folder / "leaf.pem")
    (folder / "nginx.conf").write_text(
        f"worker_processes 1; pid {folder}/pid; error_log {folder}/error.log; daemon off; worker_rlimit_nofile 20000;\n"
        + ("user root;\n" if os.geteuid() == 0 else "")
        + "events { worker_connections 16384; }\n"
        "http { default_type text/html; keepalive_requests 1000000; keepalive_timeout 600s; open_file_cache max=1000;\n"
        " log_format timed '$host $request_uri $msec $request_time $connection $ssl_session_reused';\n"
        f" access_log {folder}/access.log timed; allow 127.0.0.0/8; deny all;\n"
        f" ssl_certificate {folder}/leaf.pem; ssl_certificate_key {folder}/leaf.pem; ssl_session_cache shared:S:10m;\n"
        f" server {{ listen {served.tls} ssl backlog=4096; listen {served.plain} backlog=4096;\n"
        f"  root {www}; index index.html; location /section/ {{ rewrite ^ /1.html break; }} }} }}\n"
    )
    server = subprocess.Popen([str(program("nginx")), "-c", str(folder / "nginx.conf")], stderr=subprocess.DEVNULL)
    try:
        time.sleep(0.5)
        if server.poll() is not None:
            sys.exit(f"nginx did not start: {(folder / 'error.log').read_text()}")
        yield
    finally:
        server.terminate()
        server.wait()


@contextmanager
def _full_queue(port: int) -> Iterator[None]:
    """A port whose queue of connections is full: the kernel drops every SYN. The queue of length 0 has room for one."""
    with socket.create_server(("", port), backlog=0), socket.socket() as only, socket.socket() as more:
        only.connect(("127.0.0.1", port))
        more.setblocking(False)
        more.connect_ex(("127.0.0.1", port))
        yield


@contextmanager
def _in_thread(answer: Callable[[str, int], Answer], mute_port: int) -> Iterator[str]:
    """The name server, and a port that accepts connections and sends nothing, in a thread of their own."""
    loop = asyncio.new_event_loop()
    ended = asyncio.Event()

    async def serve() -> None:
        mute = await loop.create_server(asyncio.Protocol, "0.0.0.0", mute_port, backlog=4096)
        async with mute, nameserver({"*.many.test": answer, "*.example": answer}) as server:
            addresses.append(server.address)
            is_ready.set()
            await ended.wait()

    addresses: list[str] = []
    is_ready = threading.Event()
    thread = threading.Thread(target=loop.run_until_complete, args=(serve(),), name="loopback", daemon=True)
    thread.start()
    is_ready.wait()
    try:
        yield addresses[0]
    finally:
        loop.call_soon_threadsafe(ended.set)
        thread.join()
        loop.close()
