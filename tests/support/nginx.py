"""A real nginx on loopback, which serves a generated site over TLS and logs every request.

`Site` has the pages, and the URLs that must never be requested; `Nginx` is the running server. It knows nothing of the
crawler. Invariant: every figure here is from the server's own log.
"""

import json
import shutil
import socket
import struct
import subprocess
import tempfile
import time
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

import pytest
import trustme

ADDRESSES = tuple(f"127.0.0.{n}" for n in range(1, 9))
CHILDREN = 5  # links of a page to pages that nothing else needs to lead to
FOLDERS = ("pages", "gz", "packed", "chunked", "pages", "pages")  # page n is in folder n mod 6
PICTURES = 12
READY_S = 20.0

Place = tuple[str, str]  # host and target


@dataclass
class Site:
    """Hosts with linked pages. `hosts`: the number of HTML pages of each. `assets`: a host with their pictures."""

    hosts: Mapping[str, int]
    assets: str | None = None
    bodies: dict[Place, bytes] = field(default_factory=dict)
    pages: set[Place] = field(default_factory=set)
    requisites: set[Place] = field(default_factory=set)
    redirects: dict[Place, str] = field(default_factory=dict)
    missing: set[Place] = field(default_factory=set)
    forbidden: set[Place] = field(default_factory=set)  # by robots.txt, although they are linked and exist

    def fill(self, port: int) -> Self:
        """Make every page, for a server on `port`."""
        for host, count in self.hosts.items():
            self._add_assets(host)
            for n in range(count):
                place = host, page_target(n)
                self.pages.add(place)
                self.bodies[place] = self._page(host, n, count, port)
        if self.assets is not None:
            for n in range(PICTURES):
                self.bodies[self.assets, f"/img/{n}.png"] = picture(n)
            self.bodies[self.assets, "/"] = b"<title>a host of pictures</title>"
        return self

    def wanted(self, *hosts: str) -> set[Place]:
        """What a whole crawl of these hosts requests, once each, without robots.txt."""
        chosen = hosts or tuple(self.hosts)
        of_hosts = self.pages | self.requisites | set(self.redirects) | self.missing
        return {place for place in of_hosts if place[0] in chosen or place[0] == self.assets}

    def _add_assets(self, host: str) -> None:
        self.bodies[host, "/robots.txt"] = b"User-agent: *\nDisallow: /private/\n"
        style = b'@import "more.css";\nbody { background: url("../img/paper.png") }\n'
        assets = {
            "/css/site.css": style,
            "/css/more.css": b"a { color: #a33 }\n",
            "/js/app.js": b'document.title += " ready";\n',
            "/img/paper.png": picture(99),
        }
        for target, body in assets.items():
            self.bodies[host, target] = body
            self.requisites.add((host, target))

    def _page(self, host: str, n: int, count: int, port: int) -> bytes:
        links = [page_target(child) for child in range(CHILDREN * n + 1, min(CHILDREN * n + CHILDREN + 1, count))]
        links += ["/", page_target(n * 7 % count), page_target(n // 2)]
        if n % 10 == 1:
            self.redirects[host, f"/old/{n}"] = page_target(n)
            links.append(f"/old/{n}")
        if n % 15 == 1:
            self.missing.add((host, f"/missing/{n}"))
            links.append(f"/missing/{n}")
        if n % 20 == 1:
            self.forbidden.add((host, f"/private/{n}.html"))
            self.bodies[host, f"/private/{n}.html"] = b"<title>stay away</title>"
            links.append(f"/private/{n}.html")
        if n == 0:
            links += [f"https://{other}:{port}/" for other in self.hosts if other != host]
            links += [f"https://{self.assets}:{port}/"] if self.assets else []
        image = f"/img/{n % PICTURES}.png"
        pictured = self.assets or host
        self.bodies[pictured, image] = picture(n % PICTURES)
        self.requisites.add((pictured, image))
        source = image if pictured == host else f"https://{pictured}:{port}{image}"
        prose = f"<p>Page {n} of {host}. " + f"Line {n * 31 % 97}, and what it says is new. " * (20 + n % 40) + "</p>"
        anchors = "".join(f'<li><a href="{target}">{target}</a></li>' for target in links)
        return (
            f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>Page {n}</title>'
            '<link rel="stylesheet" href="/css/site.css"><script src="/js/app.js"></script></head>'
            f'<body><img src="{source}" alt="">{prose}<ul>{anchors}</ul></body></html>'
        ).encode()


def page_target(n: int) -> str:
    """Page 0 is the front page; the others are in folders that nginx serves in different ways."""
    return f"/{FOLDERS[n % len(FOLDERS)]}/{n}.html" if n else "/"


def picture(n: int) -> bytes:
    """A PNG of one colour."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 2, 2, 8, 2, 0, 0, 0)
    pixels = zlib.compress((b"\0" + bytes((n, 2 * n, 255 - n)) * 2) * 2)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


@dataclass(frozen=True)
class Request:
    """A line of the access log. Times in whole milliseconds, the request's end and its beginning (t - rt)."""

    end_ms: int
    begin_ms: int
    address: str
    host: str
    target: str
    status: int
    connection: int
    nth: int
    resumed: bool

    @property
    def place(self) -> Place:
        return self.host, self.target


class Nginx:
    """A running server; see `nginx`. Every host is served on each of ADDRESSES."""

    def __init__(self, directory: Path, site: Site, port: int) -> None:
        self.site = site
        self.port = port
        self.ca_file = directory / "ca.pem"
        self._directory = directory
        self._marks = 0
        self._seen = 0

    def url(self, host: str, target: str = "/") -> str:
        return f"https://{host}:{self.port}{target}"

    def requests(self) -> list[Request]:
        """The requests since `forget`, in the order of their ends; complete once the crawler has ended."""
        lines = self._lines()[self._seen :]
        return [_request(line) for line in lines if line["host"] != "mark"]

    def places(self) -> list[Place]:
        """Host and target of each request, without robots.txt."""
        return [request.place for request in self.requests() if request.target != "/robots.txt"]

    def forget(self) -> None:
        """Begin a new test."""
        self._seen = len(self._lines())

    def count(self) -> int:
        """The number of requests in the log since `forget`; cheap enough to poll."""
        return (self._directory / "access.jsonl").read_bytes().count(b"\n") - self._seen

    def _lines(self) -> list[dict[str, object]]:
        # nginx answers one after the other: when the mark is in the log, so is all that was answered before it. A
        # client that was killed is noticed in the next turn of its event loop, hence two.
        for _ in range(2):
            self._mark()
        return [json.loads(line) for line in (self._directory / "access.jsonl").read_text().splitlines()]

    def _mark(self) -> None:
        self._marks += 1
        ask(self._directory / "mark.sock", f"/{self._marks}")
        deadline = time.monotonic() + READY_S
        marked = f'"uri":"/{self._marks}","status":204'
        while marked not in (self._directory / "access.jsonl").read_text():
            assert time.monotonic() < deadline, "nginx wrote no log"


def _request(line: Mapping[str, object]) -> Request:
    end_ms = round(float(str(line["t"])) * 1000)
    return Request(
        end_ms=end_ms,
        begin_ms=end_ms - round(float(str(line["rt"])) * 1000),
        address=str(line["addr"]),
        host=str(line["host"]),
        target=str(line["uri"]),
        status=int(str(line["status"])),
        connection=int(str(line["conn"])),
        nth=int(str(line["nth"])),
        resumed=line["resumed"] == "r",
    )


@contextmanager
def nginx(site: Site, *, redirecting: Mapping[str, str] | None = None) -> Iterator[Nginx]:
    """Serve `site`; each host of `redirecting` sends everything to another. Skips the test without nginx."""
    program = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin:/usr/local/sbin")
    if program is None:
        pytest.skip("nginx is not installed")
    with tempfile.TemporaryDirectory(prefix="nginx-") as name:  # tmp_path is too long for a socket's name
        directory = Path(name)
        port = free_port()
        lay_out(directory, site, port, redirecting or {})
        command = [program, "-p", name, "-c", str(directory / "nginx.conf"), "-e", str(directory / "error.log")]
        server = Nginx(directory, site, port)
        with subprocess.Popen(command) as process:
            try:
                wait_until_ready(process, directory)
                yield server
            finally:
                process.terminate()


def lay_out(
    directory: Path, site: Site, port: int, redirecting: Mapping[str, str], *, seen_as: Path | None = None
) -> None:
    """Write pages, certificates and nginx.conf. `seen_as`: where the server will see the directory, if elsewhere."""
    site.fill(port)
    _write_site(directory / "www", site)
    hosts = [*site.hosts, *([site.assets] if site.assets else []), *redirecting]
    authority = trustme.CA()
    authority.cert_pem.write_to_path(directory / "ca.pem")
    authority.issue_cert(*hosts).private_key_and_cert_chain_pem.write_to_path(directory / "server.pem")
    (directory / "nginx.conf").write_text(_configuration(seen_as or directory, port, site, redirecting))


def free_port() -> int:
    """A port that is free on all ADDRESSES now; if another process takes it, nginx does not start."""
    while True:
        with socket.socket() as first:
            first.bind((ADDRESSES[0], 0))
            port: int = first.getsockname()[1]
            if all(_can_bind(address, port) for address in ADDRESSES[1:]):
                return port


def _can_bind(address: str, port: int) -> bool:
    with socket.socket() as sock:
        try:
            sock.bind((address, port))
        except OSError:
            return False
        return True


def ask(path: Path, target: str) -> bytes:
    """The response to a request over a unix socket. Raises OSError while the server does not listen."""
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(READY_S)
        sock.connect(str(path))
        sock.sendall(f"GET {target} HTTP/1.1\r\nHost: mark\r\nConnection: close\r\n\r\n".encode())
        response = b""
        while part := sock.recv(4096):
            response += part
        return response


def wait_until_ready(process: subprocess.Popen[bytes], directory: Path) -> None:
    deadline = time.monotonic() + READY_S
    while True:
        try:
            return ask(directory / "mark.sock", "/ready")
        except OSError:
            log = directory / "error.log"
            said = log.read_text() if log.exists() else ""
            assert process.poll() is None, f"nginx ended: {said}"
            assert time.monotonic() < deadline, f"nginx does not answer: {said}"
            time.sleep(0.01)


def _write_site(root: Path, site: Site) -> None:
    for (host, target), body in site.bodies.items():
        path = root / host / (target.lstrip("/") or "index.html")
        path.parent.mkdir(parents=True, exist_ok=True)
        if target.startswith("/packed/"):
            packer = zlib.compressobj(wbits=31)
            path.with_name(path.name + ".gz").write_bytes(packer.compress(body) + packer.flush())
        path.write_bytes(body)


def _configuration(directory: Path, port: int, site: Site, redirecting: Mapping[str, str]) -> str:
    listen = " ".join(f"listen {address}:{port} ssl;" for address in ADDRESSES)
    # A page has the same name on every host, and so has what redirects to it.
    old = " ".join(f"{target} {to};" for target, to in sorted({t: to for (_, t), to in site.redirects.items()}.items()))
    moved = "".join(
        f"  server {{ {listen} server_name {host}; return 301 https://{to}:{port}$request_uri; }}\n"
        for host, to in redirecting.items()
    )
    return _NGINX.format(directory=directory, listen=listen, old=old, moved=moved, temporary=temporary(directory))


def temporary(directory: Path) -> str:
    kinds: Sequence[str] = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    return " ".join(f"{kind}_temp_path {directory}/temp;" for kind in kinds)


_NGINX = """
daemon off; master_process off; worker_processes 1; pid {directory}/nginx.pid;
events {{ worker_connections 1024; }}
http {{
  types {{ text/html html; text/css css; text/javascript js; image/png png; text/plain txt; }}
  charset utf-8; etag on; absolute_redirect off; server_tokens off; {temporary}
  keepalive_requests 1000000; keepalive_timeout 75s;
  log_format facts escape=json '{{"t":$msec,"rt":$request_time,"addr":"$server_addr","host":"$host",'
    '"uri":"$request_uri","status":$status,"bytes":$body_bytes_sent,"conn":$connection,"nth":$connection_requests,'
    '"resumed":"$ssl_session_reused"}}';
  access_log {directory}/access.jsonl facts;
  map $uri $new {{ default ""; {old} }}
  ssl_certificate {directory}/server.pem; ssl_certificate_key {directory}/server.pem;
  ssl_session_cache shared:S:1m; ssl_protocols TLSv1.2 TLSv1.3;
  server {{ listen unix:{directory}/mark.sock; server_name mark; return 204; }}
  server {{
    {listen} server_name _; root {directory}/www/$host; index index.html;
    location /gz/ {{ gzip on; gzip_min_length 0; }}
    location /packed/ {{ gzip_static on; }}
    location /chunked/ {{ sub_filter "never in a page" ""; }}
    location /old/ {{ if ($new = "") {{ return 404; }} return 301 $new; }}
  }}
{moved}}}
"""
