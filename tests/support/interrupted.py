"""What tests of interrupted crawls share: waiting for a moment, and what must hold whatever was interrupted."""

import subprocess
import time
from collections import Counter
from collections.abc import Callable

from tests.support.commands import TIMEOUT_S, Crawl, read_lines
from tests.support.nginx import Nginx
from tests.support.warcs import records, wrong_digests

# The delay is there to make a crawl last: at full speed it would be over before anything could interrupt it.
SLOWLY: dict[str, object] = {"delay": "4ms", "adaptive": False, "connections_per_host": 1}


def wait_until(is_so: Callable[[], bool], process: subprocess.Popen[str]) -> bool:
    """False: the process ended before that."""
    deadline = time.monotonic() + TIMEOUT_S
    while not is_so():
        if process.poll() is not None:
            return False
        assert time.monotonic() < deadline, "the crawl stands still"
        time.sleep(0.001)
    return True


def wait_for_requests(server: Nginx, process: subprocess.Popen[str], count: int) -> bool:
    """Until the server has answered `count` requests. False: the process ended before that."""
    return wait_until(lambda: server.count() >= count, process)


def wait_for_event(crawl: Crawl, process: subprocess.Popen[str], name: str) -> bool:
    """Until events.jsonl has such a line. False: the process ended before that."""
    path = crawl.logs / "events.jsonl"
    return wait_until(lambda: path.exists() and any(line["event"] == name for line in read_lines(path)), process)


def assert_everything_is_there_once(server: Nginx, crawl: Crawl) -> None:
    """The archive, pages/ and the server's site agree, URL by URL."""
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
