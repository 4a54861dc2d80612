"""Documentation of other projects, as Debian packages it, served over TLS by nginx and crawled.

`closure` follows the links from the front page through the files, with another parser than the crawler's and without
HTTP. It says which pages a crawl must fetch.
"""

import html
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from urllib.parse import quote, unquote, urljoin, urlsplit

import pytest
import trustme
from selectolax.lexbor import LexborHTMLParser

from tests.support.commands import Crawl, Ran, command, ended, environment
from tests.support.nginx import ADDRESSES, Nginx, Site, free_port, temporary, wait_until_ready
from tests.support.site_crawls import wait_for_requests

_DOC = Path("/usr/share/doc")
# Name of the site: the package it is in, and its folder. Makers: javadoc, Sphinx, the same, Boost's own, Sphinx,
# gtk-doc, rustdoc, Doxygen.
SITES: Mapping[str, tuple[str, Path]] = {
    "java": ("openjdk-17-doc", _DOC / "openjdk-17-jre-headless/api"),
    "python": ("python3.11-doc", _DOC / "python3.11/html"),
    "jdk": ("openjdk-17-doc", _DOC / "openjdk-17-doc"),
    "boost": ("libboost1.81-doc", _DOC / "libboost1.81-doc"),
    "pandas": ("python-pandas-doc", _DOC / "python-pandas-doc/html"),
    "gtk": ("libgtk-3-doc", _DOC / "libgtk-3-doc"),
    "rust": ("rust-doc", _DOC / "rust-doc/html"),
    "wx": ("wx3.2-doc", _DOC / "wx3.2-doc"),
}
_LINKS = (("a", "href"), ("area", "href"), ("iframe", "src"), ("frame", "src"))
_BAD_ESCAPE = re.compile(r"%(?![0-9A-Fa-f]{2})")
_HTML = frozenset((".html", ".htm", ".shtml"))


def host_of(site: str) -> str:
    return f"{site}.docs.test"


def folder(site: str) -> Path:
    """The folder of a site. Skips the test without its package."""
    package, path = SITES[site]
    if not path.is_dir():
        pytest.skip(f"the package {package} is not installed")
    return path


@cache
def closure(root: Path) -> frozenset[str]:
    """Targets of all HTML pages that links lead to from "/", as nginx serves them: folders without an index.html are
    lists of their files, and folders without a slash behind them redirect.
    """
    found: set[str] = set()
    seen = {"/"}
    todo = ["/"]
    while todo:
        target = todo.pop()
        if _BAD_ESCAPE.search(target):  # 400 from nginx
            continue
        path = Path(os.path.normpath(f"{root}/{unquote(urlsplit(target).path)}"))
        if root != path and root not in path.parents:
            continue
        if path.is_dir():
            if not urlsplit(target).path.endswith("/"):
                links = [f"{urlsplit(target).path}/"]
            elif (path / "index.html").is_file():
                found.add(target)
                links = _links_of(path / "index.html", target)
            else:
                found.add(target)
                links = [
                    quote(name.name) + ("/" if name.is_dir() else "") for name in path.iterdir() if name.name[0] != "."
                ]
                links.append("../")
        elif path.is_file() and path.suffix in _HTML and os.access(path, os.R_OK):
            found.add(target)
            links = _links_of(path, target)
        else:
            continue
        for link in {link.partition("#")[0] for link in links}:
            linked = _resolved(target, link)
            if linked is not None and linked not in seen:
                seen.add(linked)
                todo.append(linked)
    return frozenset(found)


def _links_of(path: Path, target: str) -> list[str]:
    tree = LexborHTMLParser(path.read_bytes())
    links = [value for tag, name in _LINKS for node in tree.css(tag) if (value := node.attributes.get(name))]
    for meta in tree.css("meta[http-equiv][content]"):
        if (meta.attributes["http-equiv"] or "").lower() == "refresh":
            _, _, link = (meta.attributes["content"] or "").partition("url=")
            links.append(link.strip("'\" "))
    base = tree.css_first("base[href]")
    if base is not None:
        links = [urljoin(base.attributes["href"] or "", link) for link in links]
    return links


def _resolved(target: str, link: str) -> str | None:
    """The target that a link leads to on the same host; None for every other link."""
    link = html.unescape(link).strip(" \t\r\n\f")
    for character in "\t\r\n":
        link = link.replace(character, "")
    base = "https://site.test"
    try:
        parts = urlsplit(urljoin(base + target, link.partition("#")[0].replace("\\", "/")))
    except ValueError:
        return None
    if parts.scheme != "https" or parts.netloc != "site.test":
        return None
    path = quote(parts.path or "/", safe="%/:@!$&'()*+,;=-._~|^[]\\")
    return path + (f"?{quote(parts.query, safe='%/:@!$&()*+,;=-._~?|^[]{}`')}" if parts.query else "")


@contextmanager
def real_sites(*sites: str) -> Iterator[Nginx]:
    """Serve sites of SITES, each as host_of(site) at 127.0.0.1. Skips the test without nginx or their packages."""
    program = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin:/usr/local/sbin")
    if program is None:
        pytest.skip("nginx is not installed")
    roots = {host_of(site): folder(site) for site in sites}
    with tempfile.TemporaryDirectory(prefix="nginx-") as name:
        directory = Path(name)
        directory.chmod(0o755)
        port = free_port()
        authority = trustme.CA()
        authority.cert_pem.write_to_path(directory / "ca.pem")
        authority.issue_cert(*roots).private_key_and_cert_chain_pem.write_to_path(directory / "server.pem")
        (directory / "nginx.conf").write_text(
            _NGINX.format(
                directory=directory,
                port=port,
                address=ADDRESSES[0],
                user="user root; " if os.getuid() == 0 else "",
                roots=" ".join(f"{host} {root};" for host, root in roots.items()),
                temporary=temporary(directory),
            )
        )
        command = [program, "-p", name, "-c", str(directory / "nginx.conf"), "-e", str(directory / "error.log")]
        with subprocess.Popen(command) as process:
            try:
                wait_until_ready(process, directory)
                yield Nginx(directory, Site({}), port)
            finally:
                process.terminate()


_NGINX = """
{user}daemon off; master_process off; worker_processes 1; pid {directory}/nginx.pid;
events {{ worker_connections 4096; }}
http {{
  types {{ text/html html htm shtml; text/css css; text/javascript js; image/png png; image/svg+xml svg;
    image/gif gif; image/jpeg jpeg jpg; font/woff woff; font/woff2 woff2; application/pdf pdf; text/plain txt; }}
  charset utf-8; etag on; sendfile on; server_tokens off; {temporary}
  keepalive_requests 1000000; keepalive_timeout 75s;
  log_format facts escape=json '{{"t":$msec,"rt":$request_time,"addr":"$server_addr","host":"$host",'
    '"uri":"$request_uri","status":$status,"bytes":$body_bytes_sent,"conn":$connection,"nth":$connection_requests,'
    '"resumed":"$ssl_session_reused"}}';
  access_log {directory}/access.jsonl facts;
  map $host $root {{ default /nonexistent; {roots} }}
  ssl_certificate {directory}/server.pem; ssl_certificate_key {directory}/server.pem;
  ssl_session_cache shared:S:1m; ssl_protocols TLSv1.2 TLSv1.3;
  server {{ listen unix:{directory}/mark.sock; server_name mark; return 204; }}
  server {{ listen {address}:{port} ssl; server_name _; root $root; index index.html; autoindex on; }}
}}
"""


# -- crawls of real sites

TIMEOUT_S = 1_200.0
# The command with caches of 2^10 keys: a large site is then asked about far more often than it has room for.
_SMALL_CACHES = (
    "import sys; import crawler.engine.pages.recent_urls as seen; seen.RecentKeys.__init__.__defaults__ = (10,); "
    "seen.MAX_URLS = 1_024; from crawler.cli import main; sys.argv[0] = 'crawler'; main()"
)


def crawl_of(server: Nginx, directory: Path, *sites: str, workers: int | None = None) -> Crawl:
    """A configuration that crawls these sites without a delay."""
    hosts = [host_of(site) for site in sites]
    directory.mkdir(parents=True, exist_ok=True)
    return Crawl.of(
        directory,
        {
            "crawl": {"seeds": [server.url(host) for host in hosts], "linger": "5s"},
            "engine": {} if workers is None else {"workers": workers},
            "politeness": {"delay": 0, "connections_per_host": 8},
            "network": {
                "allow_private": ["127.0.0.0/8"],
                "ca_file": server.ca_file,
                "resolve": {host: ["127.0.0.1"] for host in hosts},
            },
        },
    )


def run_small(crawl: Crawl) -> Ran:
    """Run a crawl to its end with small caches of recent keys."""
    arguments = [sys.executable, "-c", _SMALL_CACHES, *map(str, crawl.arguments())]
    done = subprocess.run(arguments, capture_output=True, text=True, timeout=TIMEOUT_S, check=False, env=environment())
    return Ran(done.returncode, done.stdout, done.stderr)


def interrupt(server: Nginx, crawl: Crawl, *, requests: int, number: signal.Signals, delay_s: float = 0.0) -> bool:
    """Run a crawl until the server has had so many more requests, then send a signal and wait for the end. False: it
    ended before.
    """
    asked = server.count()
    with subprocess.Popen(
        command(*crawl.arguments()), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment()
    ) as process:
        try:
            if not wait_for_requests(server, process, asked + requests):
                return False
            time.sleep(delay_s)
            process.send_signal(number)
            ended(process, timeout=TIMEOUT_S)
            return True
        finally:
            process.kill()


def interrupted(
    server: Nginx, crawl: Crawl, pages: int, numbers: Sequence[signal.Signals], rng: random.Random
) -> tuple[int, Ran]:
    """Run a crawl with one interruption for each signal, at random moments, then to its end. Returns how many of the
    interruptions came before it, and how it ended.
    """
    made = 0
    for number in numbers:
        made += interrupt(
            server, crawl, requests=rng.randrange(1, max(2, pages // len(numbers))), number=number,
            delay_s=rng.uniform(0, 0.2),
        )  # fmt: skip
    return made, crawl.run(timeout=TIMEOUT_S)


def missing(server: Nginx, site: str) -> set[str]:
    """Linked pages of the site that were not requested, or whose status was not 200."""
    host = host_of(site)
    served = {request.target for request in server.requests() if request.host == host and request.status == 200}
    return set(closure(folder(site))) - served
