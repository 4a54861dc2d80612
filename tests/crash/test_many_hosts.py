"""Many hosts on few addresses, killed over and over: by the server's log nobody is ever asked too soon.

Every host keeps its delay, and so does every address, from the end of one request to the beginning of the next,
whichever process made them, and whatever that one had in flight when it died.
"""

import itertools
import random
import signal
import time
from collections import defaultdict
from pathlib import Path

import pytest

from tests.support.commands import Crawl, problems, running
from tests.support.nginx import ADDRESSES, Nginx, Request, Site, nginx
from tests.support.site_crawls import wait_for_requests

pytestmark = pytest.mark.e2e

DELAY_MS = 250
ADDRESS_DELAY_MS = 2
LAST_S = 1_000.0  # for all that is left after the kills, on a busy machine


def crawl_of(server: Nginx, hosts: list[str], directory: Path) -> Crawl:
    """Host n has address n modulo their number."""
    keys: dict[str, dict[str, object]] = {
        "crawl": {"seeds": [server.url(host) for host in hosts], "linger": "5s"},
        "politeness": {
            "key": "host",
            "delay": f"{DELAY_MS}ms",
            "address_delay": f"{ADDRESS_DELAY_MS}ms",
            "connections_per_host": 1,
            "adaptive": False,
        },
        "network": {
            "allow_private": ["127.0.0.0/8"],
            "ca_file": server.ca_file,
            "resolve": {host: [ADDRESSES[n % len(ADDRESSES)]] for n, host in enumerate(hosts)},
        },
    }
    return Crawl.of(directory, keys)


def breaches(requests: list[Request]) -> list[tuple[str, int]]:
    """Whose delay was not kept, and the milliseconds that were."""
    lines: defaultdict[str, list[Request]] = defaultdict(list)
    for request in requests:
        lines[request.host].append(request)
        lines[request.address].append(request)
    found = []
    for name, line in lines.items():
        delay_ms = ADDRESS_DELAY_MS if name in ADDRESSES else DELAY_MS
        line.sort(key=lambda request: (request.begin_ms, request.end_ms))
        for before, after in itertools.pairwise(line):
            if after.begin_ms - before.end_ms < delay_ms:
                found.append((name, after.begin_ms - before.end_ms))
    return found


def kill_and_go_on(directory: Path, *, hosts: int, pages: int, kills: int, seed: int) -> tuple[list[Request], int]:
    """Crawl a site of `hosts`, killed `kills` times, then to its end. Returns all requests, and the pages there are."""
    rng = random.Random(seed)
    names = [f"h{n:03}.many.test" for n in range(hosts)]
    with nginx(Site(dict.fromkeys(names, pages))) as server:
        crawl = crawl_of(server, names, directory)
        made = 0
        for _ in range(kills):
            asked = server.count()
            with running(*crawl.arguments()) as process:
                if not wait_for_requests(server, process, asked + rng.randrange(hosts // 2, hosts)):
                    break
                time.sleep(rng.uniform(0, 0.2))
                process.send_signal(signal.SIGKILL)
                made += process.wait() == -signal.SIGKILL
        assert made == kills, "the crawl ended before the last kill"
        last = crawl.run(timeout=LAST_S)
        assert (last.code, problems(last.stderr)) == (0, "")
        assert set(server.places()) >= server.site.wanted()
        return server.requests(), len(server.site.wanted())


def test_nobody_is_asked_too_soon_across_three_kills(tmp_path: Path) -> None:
    """Twenty hosts on eight addresses."""
    requests, wanted = kill_and_go_on(tmp_path, hosts=20, pages=7, kills=3, seed=1)
    assert len(requests) >= wanted + 20
    assert breaches(requests) == []


@pytest.mark.prove
@pytest.mark.timeout(1_200)
def test_nobody_of_two_hundred_hosts_is_asked_too_soon_across_twenty_kills(tmp_path: Path) -> None:
    """Twenty-five hosts on each address."""
    requests, wanted = kill_and_go_on(tmp_path, hosts=200, pages=45, kills=20, seed=2)
    assert len(requests) >= wanted + 200
    assert breaches(requests) == []


def test_the_judge_sees_a_breach() -> None:
    """Else no test above could fail."""

    def request(begin_ms: int, end_ms: int, host: str = "a") -> Request:
        return Request(end_ms, begin_ms, ADDRESSES[0], host, "/", 200, 1, 1, False)

    assert breaches([request(0, 10), request(10 + DELAY_MS, 400)]) == []
    assert ("a", DELAY_MS - 1) in breaches([request(0, 10), request(9 + DELAY_MS, 400)])
    assert breaches([request(0, 10, "a"), request(11, 12, "b")]) == [(ADDRESSES[0], 1)]
