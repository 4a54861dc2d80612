"""Names before the whole program: those that do not resolve are told apart, left in peace and never given up, and a
host whose IPv6 leads nowhere costs a quarter of a second once.
"""

import asyncio
import socket
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from tests.support.commands import Crawl
from tests.support.nameserver import NXDOMAIN, REFUSED, SERVFAIL, Zone, nameserver
from tests.support.scripted_server import Accepted, ok, serve

pytestmark = pytest.mark.e2e

HEAD_START_MS = 250.0
PAGES = 5
WORDS = {
    "gone.test": "dns_not_found",
    "bare.test": "dns_not_found",  # it exists, without an address
    "broken.test": "dns_failure",
    "refused.test": "dns_failure",
    "mute.test": "dns_timeout",
    "private.test": "address_denied",
}


async def site(a: Accepted) -> None:
    while path := await a.request():
        links = "".join(f'<a href="/{n}">x</a>' for n in range(1, PAGES)) if path == "/" else ""
        is_robots = path == "/robots.txt"
        await a.send(
            ok(b"", "Content-Type: text/plain") if is_robots else ok(links.encode(), "Content-Type: text/html")
        )


@contextmanager
def black_hole(port: int) -> Iterator[None]:
    """Nobody answers a SYN at [::1]:port: the kernel drops those for a listener whose queue is full."""
    with closing(socket.socket(socket.AF_INET6)) as listener:
        listener.bind(("::1", port))
        listener.listen(0)
        waiting = []
        try:
            for _ in range(4):
                one = socket.socket(socket.AF_INET6)
                one.setblocking(False)
                one.connect_ex(("::1", port))
                waiting.append(one)
            yield
        finally:
            for one in waiting:
                one.close()


def crawl_of(directory: Path, hosts: list[str], port: int, address: str, **fetch: object) -> Crawl:
    return Crawl.of(
        directory,
        {
            "crawl": {"seeds": [f"http://{host}:{port}/" for host in hosts], "linger": "1s", "sitemaps": "off"},
            "politeness": {"delay": 0, "key": "host", "address_delay": "0s", "adaptive": False},
            "network": {
                "nameservers": [address],
                "allow_private": ["127.0.0.1/32", "::1/128"],
            },
            "fetch": fetch,
        },
    )


async def test_names_that_do_not_resolve_are_told_apart_and_back_off(tmp_path: Path) -> None:
    """Each has its word, no URL is given up for it, and no nameserver is asked over and over."""
    zones = {
        "fine.test": Zone(["127.0.0.1"]),
        "gone.test": NXDOMAIN,
        "bare.test": Zone([]),
        "broken.test": SERVFAIL,
        "refused.test": REFUSED,
        "mute.test": None,
        "private.test": Zone(["10.0.0.1", "127.0.0.2"]),
    }
    async with serve(site) as server, nameserver(zones) as ns:
        crawl = crawl_of(tmp_path, list(zones), server.port, ns.address)
        ran = await asyncio.to_thread(crawl.run)
        assert ran.code == 75, ran.stderr
        assert ran.summary["pages"] == PAGES
        said = {(line["server_address"], line["error_type"]) for line in crawl.fetches() if "error_type" in line}
        said |= {
            (line["server_address"], line["error_type"]) for line in crawl.events() if line["event"] == "conn_fail"
        }
        assert said == set(WORDS.items())
        assert {line["next"] for line in crawl.fetches()} <= {"done", "retry"}
        assert f"{len(WORDS)} URLs" in ran.stderr, (ran.stderr, ran.summary.keys())
        asked = Counter(name for name, _ in ns.queries)
        assert max(asked.values()) <= 24, asked


async def test_ipv6_that_leads_nowhere_costs_a_quarter_of_a_second_once(tmp_path: Path) -> None:
    """The first connection falls back to IPv4; those after it go there at once, for it is remembered."""
    async with serve(site) as server, nameserver({"hole.test": Zone(["::1", "127.0.0.1"])}) as ns:
        with black_hole(server.port):
            crawl = crawl_of(tmp_path, ["hole.test"], server.port, ns.address, max_requests_per_connection=1)
            ran = await asyncio.to_thread(crawl.run)
        assert (ran.code, ran.summary["pages"]) == (0, PAGES), ran.stderr
        opened = [line for line in crawl.events() if line["event"] == "conn_open"]
        assert len(opened) == PAGES + 1
        assert {line["network_peer_address"] for line in opened} == {"127.0.0.1"}
        first, *others = (line["connect_ms"] for line in opened)
        assert HEAD_START_MS * 0.95 <= first < 1_000.0
        assert max(others) < HEAD_START_MS * 0.9
