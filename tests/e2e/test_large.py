"""Large bodies of whole crawls: in files beyond spool_over, within engine.memory, parsed up to content.max_html."""

import hashlib
import threading
from collections.abc import Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tests.support.commands import Crawl, Sections
from tests.support.warcs import records

pytestmark = pytest.mark.e2e

KIB, MIB = 1024, 1024 * 1024
HOSTS = ("a.test", "b.test", "c.test", "d.test")


class _Site(ThreadingHTTPServer):
    """Pages by path. A body of `numbers` is that many bytes that no coding could shrink, different for each."""

    daemon_threads = True
    pages: Mapping[str, tuple[str, bytes]]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Site

    def do_GET(self) -> None:
        content_type, body = self.server.pages.get(self.path, ("text/plain", b""))
        self.send_response(200 if self.path in self.server.pages else 404)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Nothing on stderr."""


@pytest.fixture
def site() -> Iterator[_Site]:
    with _Site(("127.0.0.1", 0), _Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def noise(size: int, name: str) -> bytes:
    """Incompressible and told apart by `name`."""
    return hashlib.shake_128(name.encode()).digest(size)


def sections(site: _Site, **keys: dict[str, object]) -> Sections:
    port = site.server_address[1]
    return {
        "crawl": {"seeds": [f"http://{host}:{port}/" for host in HOSTS], "linger": "2s"},
        "politeness": {"delay": 0, "connections_per_host": 4, "connections_per_address": 64, "address_delay": 0},
        "network": {"allow_private": ["127.0.0.0/8"], "resolve": {host: ["127.0.0.1"] for host in HOSTS}},
    } | keys


def with_files(site: _Site, number: int, size: int) -> dict[str, bytes]:
    """A start page that links to so many files of a size; the files, by path."""
    files = {f"/{n}.bin": noise(size, f"{n}/{size}") for n in range(number)}
    links = "".join(f'<a href="{path}">' for path in files)
    pages = {path: ("application/octet-stream", body) for path, body in files.items()}
    site.pages = {"/": ("text/html", links.encode())} | pages
    return files


def archived_digests(crawl: Crawl) -> dict[str, str]:
    """SHA-256 of each response in the archive, by its URL; the reader checks its own digests as well."""
    found = {}
    for path in crawl.warcs():
        for record in records(path):
            assert record.complaints == ()
            if record.kind == "response":
                found[record.url] = hashlib.sha256(record.payload).hexdigest()
    return found


def test_bodies_beyond_the_limit_lie_in_files(site: _Site, tmp_path: Path) -> None:
    """24 bodies of 4 MiB at once cost a fraction of that, all of them are archived whole, and no file is left."""
    small = Crawl.of(
        _folder(tmp_path, "small"), sections(site, engine={"memory": "1MiB"}, fetch={"spool_over": "64KiB"})
    )
    with_files(site, 6, 32 * KIB)
    before = small.run()
    files = with_files(site, 6, 4 * MIB)
    large = Crawl.of(
        _folder(tmp_path, "large"), sections(site, engine={"memory": "1MiB"}, fetch={"spool_over": "64KiB"})
    )
    after = large.run(timeout=120)
    assert (before.code, after.code) == (0, 0), after.stderr
    assert after.summary["pages"] == 4 + 4 * 6
    grown = after.summary["max_rss_bytes"] - before.summary["max_rss_bytes"]
    assert grown <= 32 * MIB, f"{grown / MIB:.0f} MiB"
    digests = archived_digests(large)
    port = site.server_address[1]
    for host in HOSTS:
        for path, body in files.items():
            assert digests[f"http://{host}:{port}{path}"] == hashlib.sha256(body).hexdigest()
    left = {path.name for path in large.output.iterdir()}
    assert left <= {
        "frontier.db",
        "frontier.db-wal",
        "frontier.db-shm",
        "frontier.db.lock",
        "warc",
        "pages",
        "logs",
        "run.json",
    }


def test_bodies_in_memory_wait_for_each_other(site: _Site, tmp_path: Path) -> None:
    """With a budget of one body, 12 of that size still come, one after the other, whole and within their deadlines."""
    files = with_files(site, 3, 900 * KIB)
    limits = {"spool_over": "1MiB", "read_timeout": "20s"}
    crawl = Crawl.of(tmp_path, sections(site, engine={"memory": "1MiB"}, fetch=limits))
    ran = crawl.run(timeout=120)
    assert (ran.code, ran.summary["errors"]) == (0, 0)
    assert ran.summary["pages"] == 4 + 4 * len(files)
    assert {line["outcome"] for line in crawl.fetches() if line["url_full"].endswith(".bin")} == {"ok"}
    assert set(archived_digests(crawl).values()) >= {hashlib.sha256(body).hexdigest() for body in files.values()}


def test_a_page_is_parsed_up_to_its_limit_and_archived_whole(site: _Site, tmp_path: Path) -> None:
    """Links before content.max_html are followed, those beyond are not; the size that is told is the whole one."""
    limit = 300 * KIB  # beyond what is read on the event loop
    text = '<a href="/early">' + "x" * (limit - 20) + '<a href="/late">' + "y" * limit
    site.pages = {
        "/": ("text/html", text.encode()),
        "/early": ("text/html", b"<p>"),
        "/late": ("text/html", b"<p>"),
    }
    crawl = Crawl.of(tmp_path, sections(site, content={"max_html": limit}))
    ran = crawl.run()
    assert ran.code == 0
    asked = {line["url_full"].rpartition("/")[2] for line in crawl.fetches()}
    assert asked == {"", "early", "robots.txt"}
    roots = [line for line in crawl.fetches() if line["url_full"].endswith("/")]
    assert {line["content_size"] for line in roots} == {len(text)}
    assert hashlib.sha256(text.encode()).hexdigest() in archived_digests(crawl).values()


def _folder(parent: Path, name: str) -> Path:
    folder = parent / name
    folder.mkdir()
    return folder
