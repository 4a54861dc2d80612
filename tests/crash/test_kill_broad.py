"""kill -9 in a broad crawl, over and over: nothing is lost, nothing is stored twice, no delay is cut short.

Of thirty hosts three refuse connections, ten have no name, and fourteen have four pages each. What was requested is the
server's view; what was settled is read from a copy of the store as the kill left it.
"""

import random
import signal
import time
from collections import Counter
from pathlib import Path

import pytest

from bench.broad import DELAY_S, DROPPING, MUTE, answer, is_live, name_of, seed
from bench.loopback import Network, breaches, network
from bench.serve import program
from tests.crash.test_kill import settled
from tests.support.commands import Crawl, run, running
from tests.support.nginx import Place
from tests.support.site_crawls import wait_until
from tests.support.warcs import records, wrong_digests

pytestmark = pytest.mark.e2e

PAGES = 4
READY = b'"event":"ready"'
LAST_S = 1_800.0  # for all that is left after the kills, on a busy machine


def crawl_of(served: Network, numbers: list[int], directory: Path) -> Crawl:
    (directory / "seeds").write_text("".join(seed(number, served) for number in numbers))
    keys: dict[str, dict[str, object]] = {
        "crawl": {"seed_files": [directory / "seeds"], "linger": "5s"},
        "politeness": {"key": "host", "delay": f"{DELAY_S:g}s", "adaptive": False},
        "network": {
            "allow_private": ["127.0.0.0/8"],
            "ca_file": served.ca_file,
            "nameservers": [served.nameserver],
        },
        "output": {"warc_size": "4MB"},
        "log": {"rotate_size": "1GB"},
    }
    return Crawl.of(directory, keys)


def killed_after(crawl: Crawl, seconds: float, *, once_ready: bool) -> bool:
    """Run the same command as ever, and kill it. False: it ended before."""
    events = crawl.logs / "events.jsonl"
    begin = events.stat().st_size if events.exists() else 0

    def is_ready() -> bool:
        with events.open("rb") as file:
            file.seek(begin)
            return READY in file.read()

    with running(*crawl.arguments()) as process:
        if once_ready and not wait_until(lambda: events.exists() and is_ready(), process):
            return False
        time.sleep(seconds)
        process.send_signal(signal.SIGKILL)
        return process.wait() == -signal.SIGKILL


def kill_and_go_on(directory: Path, *, hosts: int, kills: int, seed_of_moments: int) -> None:
    """Crawl with `kills` kills, then to the end, and look at everything."""
    if program("nginx") is None:
        pytest.skip("nginx is not installed")
    rng = random.Random(seed_of_moments)
    numbers = [number for number in range(hosts) if number % 60 not in (*MUTE, *DROPPING)]
    rng.shuffle(numbers)
    live = [name_of(number) for number in numbers if is_live(number)]
    served_from = directory / "server"
    served_from.mkdir()
    with network(served_from, answer, pages=PAGES) as served:
        crawl = crawl_of(served, numbers, directory)
        done: set[Place] = set()
        requested = 0
        for kill in range(kills):
            once_ready = rng.random() > 1 / 6
            assert killed_after(crawl, rng.uniform(0, 1.5), once_ready=once_ready), f"it ended before kill {kill}"
            places = [(request.host, request.target) for request in served.requests()]
            assert not done & set(places[requested:]), f"settled before kill {kill}, and requested again after it"
            done, requested = settled(crawl, directory / "copy"), len(places)
        last = crawl.run(timeout=LAST_S)
        requests = served.requests()
    assert (last.code, last.summary["stopped_by"]) == (75, "waiting"), last.stderr
    assert not done & {(request.host, request.target) for request in requests[requested:]}
    assert breaches(requests, DELAY_S) == 0
    assert {request.host for request in requests} == set(live)
    stored = Counter(
        record.url for path in crawl.warcs() for record in records(path) if record.kind in ("response", "revisit")
    )
    pages = {f"https://{host}:{served.tls}/{f'{n}.html' if n else ''}" for host in live for n in range(PAGES)}
    assert {url for url in stored if not url.endswith("/robots.txt")} == pages
    assert [url for url in pages if stored[url] > 1] == []
    assert Counter(line["url"] for line in crawl.page_lines()) == Counter(pages)
    assert [wrong for path in crawl.warcs() for wrong in wrong_digests(path)] == []
    checked = run("verify", crawl.output, timeout=LAST_S)
    assert (checked.code, checked.stdout) == (0, ""), checked.stderr


def test_five_kills_of_a_broad_crawl_lose_nothing_and_store_nothing_twice(tmp_path: Path) -> None:
    """Of 600 hosts."""
    kill_and_go_on(tmp_path, hosts=600, kills=5, seed_of_moments=1)


@pytest.mark.prove
@pytest.mark.timeout(3_600)
@pytest.mark.parametrize("kills", [200])
def test_two_hundred_kills_of_a_broad_crawl_lose_nothing_and_store_nothing_twice(tmp_path: Path, kills: int) -> None:
    """Of 20,000 hosts."""
    kill_and_go_on(tmp_path, hosts=20_000, kills=kills, seed_of_moments=2)
