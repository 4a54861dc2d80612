"""Crawls of the test site: its hosts and configuration, waiting for a moment of one, and what one must store."""

import subprocess
import time
from collections import Counter
from collections.abc import Callable

from tests.support.commands import TIMEOUT_S, Crawl, Sections, read_lines
from tests.support.nginx import Nginx
from tests.support.warcs import records, wrong_digests

BARE, WWW, DOCS, OTHER, CDN = "alpha.test", "www.alpha.test", "docs.alpha.test", "beta.test", "cdn.gamma.test"
# Two hosts of one domain at two addresses, and another domain at the address of the first.
ADDRESS_OF = {BARE: "127.0.0.1", WWW: "127.0.0.1", DOCS: "127.0.0.2", OTHER: "127.0.0.1", CDN: "127.0.0.3"}


def sections(server: Nginx, *hosts: str, **keys: dict[str, object]) -> Sections:
    """A configuration that crawls `hosts` as fast as it can; `keys` are added to it, section by section."""
    base: dict[str, dict[str, object]] = {
        "crawl": {"seeds": [server.url(host) for host in hosts], "linger": "5s"},
        "scope": {},
        "politeness": {"delay": 0, "connections_per_host": 8},
        "network": {
            "allow_private": ["127.0.0.0/8"],
            "ca_file": server.ca_file,
            "resolve": {host: [address] for host, address in ADDRESS_OF.items()},
        },
    }
    return {name: base.get(name, {}) | keys.get(name, {}) for name in base | keys}


# -- interrupted crawls

# A delay makes a crawl last: at full speed it would end before a test could interrupt it.
SLOWLY: dict[str, object] = {"delay": "4ms", "adaptive": False, "connections_per_host": 1}


def wait_until(is_so: Callable[[], bool], process: subprocess.Popen[str]) -> bool:
    """Wait until `is_so()`. False: the process ended before that."""
    deadline = time.monotonic() + TIMEOUT_S
    while not is_so():
        if process.poll() is not None:
            return False
        assert time.monotonic() < deadline, "the crawl makes no progress"
        time.sleep(0.001)
    return True


def wait_for_requests(server: Nginx, process: subprocess.Popen[str], count: int) -> bool:
    """Wait until the server has had `count` requests. False: the process ended before that."""
    return wait_until(lambda: server.count() >= count, process)


def wait_for_event(crawl: Crawl, process: subprocess.Popen[str], name: str) -> bool:
    """Wait until events.jsonl has an event of this name. False: the process ended before that."""
    path = crawl.logs / "events.jsonl"
    return wait_until(lambda: path.exists() and any(line["event"] == name for line in read_lines(path)), process)


def assert_everything_is_stored_once(server: Nginx, crawl: Crawl) -> None:
    """The archive and pages/ have every URL of the site once."""
    stored = Counter(
        record.url for path in crawl.warcs() for record in records(path) if record.kind in ("response", "revisit")
    )
    wanted = {server.url(*place) for place in server.site.wanted()}
    robots = {server.url(host, "/robots.txt") for host in server.site.hosts}
    assert {url for url in stored if url not in robots} == wanted
    assert [url for url, times in stored.items() if times > 1 and url not in robots] == []
    pages = Counter(line["url"] for line in crawl.page_lines())
    assert set(pages) == {server.url(*place) for place in server.site.pages | server.site.requisites}
    assert max(pages.values()) == 1
    assert [wrong for path in crawl.warcs() for wrong in wrong_digests(path)] == []
    assert [path.name for path in crawl.output.glob("*/*.open")] == []
