"""How many connections a host gets, and that each serves request after request."""

import itertools
from collections import Counter
from pathlib import Path

import pytest

from tests.support.commands import Crawl
from tests.support.nginx import Nginx
from tests.support.site_crawls import DOCS, WWW, sections

pytestmark = pytest.mark.e2e


@pytest.mark.parametrize("width", [1, 8])
def test_a_host_is_crawled_over_exactly_its_connections(server: Nginx, tmp_path: Path, width: int) -> None:
    """At delay 0, connections_per_host connections are opened, and every request goes over one of them."""
    keys = sections(
        server, WWW, scope={"requisites": False}, politeness={"delay": 0, "connections_per_host": width}
    )  # fmt: skip
    ran = Crawl.of(tmp_path, keys).run()
    requests = server.requests()
    per_connection = Counter(request.connection for request in requests)
    assert len(requests) > 400
    assert len(per_connection) == width
    assert ran.summary["connections_opened"] == ran.summary["tls_handshakes"] == width
    for connection, count in per_connection.items():
        # nginx numbers the requests of a connection: none is missing, so none was lost or sent elsewhere
        assert sorted(r.nth for r in requests if r.connection == connection) == list(range(1, count + 1))
        assert count > len(requests) / width / 4, "the work was not shared"


def test_no_connection_has_two_requests_at_once(server: Nginx, tmp_path: Path) -> None:
    """A request begins after the end of the one before it on its connection, and its line says which it was."""
    crawl = Crawl.of(tmp_path, sections(server, WWW, scope={"max_urls": 150, "requisites": False}))
    assert crawl.run().code == 0
    requests = server.requests()
    for connection in {request.connection for request in requests}:
        line = sorted((r for r in requests if r.connection == connection), key=lambda r: r.nth)
        assert all(after.begin_ms >= before.end_ms for before, after in itertools.pairwise(line))
    logged = {(line["url_full"], line["conn_request_n"]) for line in crawl.fetches() if "conn_id" in line}
    assert logged == {(server.url(*request.place), request.nth) for request in requests}


def test_every_opened_connection_is_logged_as_closed(server: Nginx, tmp_path: Path) -> None:
    """events.jsonl has a conn_open and a conn_close for each, and their requests add up to the server's."""
    crawl = Crawl.of(tmp_path, sections(server, WWW, scope={"max_urls": 100}))
    assert crawl.run().code == 0
    opened = [line["conn_id"] for line in crawl.events() if line["event"] == "conn_open"]
    closed = {line["conn_id"]: line for line in crawl.events() if line["event"] == "conn_close"}
    assert sorted(opened) == sorted(closed)
    assert sum(line["requests"] for line in closed.values()) == len(server.requests())
    assert {line["reason"] for line in closed.values()} == {"shutdown"}


def test_every_reconnect_resumes_the_session(server: Nginx, tmp_path: Path) -> None:
    """With five requests to a connection the server sees many handshakes, and only each host's first is a full one."""
    keys = sections(
        server, WWW, DOCS, scope={"max_urls": 100, "requisites": False},
        fetch={"max_requests_per_connection": 5},
    )  # fmt: skip
    ran = Crawl.of(tmp_path, keys).run()
    handshakes: dict[str, dict[int, bool]] = {}
    for request in server.requests():
        handshakes.setdefault(request.host, {})[request.connection] = request.resumed
    assert set(handshakes) >= {WWW, DOCS}
    for host in (WWW, DOCS):
        resumed = [handshakes[host][connection] for connection in sorted(handshakes[host])]
        assert len(resumed) > 5
        assert resumed == [False] + [True] * (len(resumed) - 1)
    summary = ran.summary
    assert summary["tls_resumed"] == sum(sum(each.values()) for each in handshakes.values())
    assert summary["connections_closed"]["max_requests"] >= 10
