"""When requests leave, by the server's clock: the delay holds for a host, a domain and an address."""

import itertools
import signal
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.support.commands import Crawl, running
from tests.support.nginx import Nginx, Request
from tests.support.site_crawls import DOCS, OTHER, WWW, sections, wait_for_requests, wait_until

pytestmark = pytest.mark.e2e

DELAY_MS = 150
ADDRESS_DELAY_MS = 60
POLITE = {
    "delay": f"{DELAY_MS}ms",
    "address_delay": f"{ADDRESS_DELAY_MS}ms",
    "connections_per_host": 1,
    "adaptive": False,
}


class Paced(NamedTuple):
    """One polite crawl, and the server's log of it."""

    requests: list[Request]
    lines: list[dict[str, object]]


@pytest.fixture(scope="module")
def paced(running_server: Nginx, tmp_path_factory: pytest.TempPathFactory) -> Paced:
    """Three hosts: www and docs of one domain at two addresses, and beta at the address of www."""
    running_server.forget()
    scope: dict[str, object] = {"max_urls_per_host": 9, "requisites": False}
    crawl = Crawl.of(
        tmp_path_factory.mktemp("paced"),
        sections(running_server, WWW, DOCS, OTHER, scope=scope, politeness=dict(POLITE)),
    )
    assert crawl.run().code == 0
    return Paced(running_server.requests(), crawl.fetches())


def gaps_ms(requests: list[Request]) -> list[int]:
    """From the end of each request to the beginning of the next."""
    line = sorted(requests, key=lambda request: request.begin_ms)
    return [after.begin_ms - before.end_ms for before, after in itertools.pairwise(line)]


IS_OF: dict[str, tuple[Callable[[Request], bool], int]] = {
    "host www": (lambda r: r.host == WWW, DELAY_MS),
    "host docs": (lambda r: r.host == DOCS, DELAY_MS),
    "host beta": (lambda r: r.host == OTHER, DELAY_MS),
    "domain alpha.test": (lambda r: r.host in (WWW, DOCS), DELAY_MS),
    "address of two hosts": (lambda r: r.address == "127.0.0.1", ADDRESS_DELAY_MS),
}


@pytest.mark.parametrize("group", IS_OF)
def test_no_request_begins_before_its_delay_is_over(paced: Paced, group: str) -> None:
    """Measured from the end of the one before; the first request of each host, robots.txt, counts like any other."""
    is_of, delay_ms = IS_OF[group]
    gaps = gaps_ms([request for request in paced.requests if is_of(request)])
    assert len(gaps) >= 9  # robots.txt and nine pages of each host
    assert min(gaps) >= delay_ms


def test_the_delay_is_not_kept_where_it_need_not_be(paced: Paced) -> None:
    """Two domains at one address take turns: between their requests is less than the delay of either. Else this test
    could not tell one delay for all from one delay for each.
    """
    assert min(gaps_ms([r for r in paced.requests if r.address == "127.0.0.1"])) < DELAY_MS


def test_politeness_costs_no_connections(paced: Paced) -> None:
    """Between two requests the connection stays open: one for each host, all requests on it."""
    assert len({request.connection for request in paced.requests}) == 3


def test_the_log_has_the_time_that_politeness_took(paced: Paced) -> None:
    """Every request after a key's first has waited the delay, and its line says so."""
    waited = [line["politeness_ms"] for line in paced.lines if "conn_request_n" in line]
    assert len(waited) == len(paced.requests)
    assert sum(isinstance(ms, float) and ms >= DELAY_MS for ms in waited) == len(waited) - 2


def test_hosts_of_a_domain_may_have_a_delay_each(server: Nginx, tmp_path: Path) -> None:
    """With politeness.key = "host", www and docs keep it apart."""
    scope: dict[str, object] = {"max_urls": 12, "requisites": False}
    keys = sections(server, WWW, DOCS, scope=scope, politeness=POLITE | {"key": "host"})
    assert Crawl.of(tmp_path, keys).run().code == 0
    requests = server.requests()
    for host in (WWW, DOCS):
        assert min(gaps_ms([request for request in requests if request.host == host])) >= DELAY_MS
    assert min(gaps_ms(requests)) < DELAY_MS


LONG_S = 5


def test_a_kill_during_a_long_delay_neither_shortens_it_nor_begins_it_anew(server: Nginx, tmp_path: Path) -> None:
    """The next request comes when the delay is over since the last answer, by the server's log."""
    politeness: dict[str, object] = {"delay": f"{LONG_S}s", "adaptive": False}
    scope: dict[str, object] = {"max_urls": 1}
    crawl = Crawl.of(tmp_path, sections(server, OTHER, politeness=politeness, scope=scope))

    def is_stored() -> bool:
        with closing(sqlite3.connect(f"file:{crawl.output}/frontier.db?mode=ro", uri=True, timeout=10)) as store:
            return store.execute("SELECT count(*) FROM host WHERE last_at IS NOT NULL").fetchone() == (1,)

    with running(*crawl.arguments()) as process:
        assert wait_for_requests(server, process, 1)
        assert wait_until(is_stored, process)
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert crawl.run().code == 0
    robots, page = (request for request in server.requests() if request.host == OTHER)
    assert (robots.target, page.target) == ("/robots.txt", "/")
    assert LONG_S * 1_000 <= page.begin_ms - robots.end_ms < LONG_S * 1_000 + 500
