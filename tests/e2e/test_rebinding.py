"""Names that move to forbidden addresses, before the whole program: seeds, links, redirects, robots.txt, sitemaps."""

import asyncio
from collections import Counter
from pathlib import Path

import pytest

from tests.support.commands import Crawl
from tests.support.rebinding import ALLOWED_NETWORK, HOSTS, rebinding

pytestmark = pytest.mark.e2e


async def test_a_crawl_of_names_that_move_reaches_no_forbidden_address(tmp_path: Path) -> None:
    """Hosts are denied or crawled as their names resolve; the log says which, and nobody else hears of it."""
    async with rebinding(seed=3) as net:
        assert net.nameserver is not None
        crawl = Crawl.of(
            tmp_path,
            {
                "crawl": {"seeds": [net.url(n) for n in range(HOSTS)], "linger": "1s"},
                "scope": {"max_urls": 250},
                "politeness": {"delay": 0, "key": "host", "connections_per_host": 2},
                "network": {"nameservers": [net.nameserver.address], "allow_private": [ALLOWED_NETWORK]},
            },
        )
        ran = await asyncio.to_thread(crawl.run)
        assert ran.code in (0, 75), ran.stderr
        assert net.reached() == 0
        fetches = crawl.fetches()
        outcomes = Counter(line.get("error_type", line["outcome"]) for line in fetches)
        assert outcomes["ok"] > 50, outcomes
        assert outcomes["redirect"] > 10, outcomes
        assert outcomes["address_denied"] > 5, outcomes
        peers = {line["network_peer_address"] for line in fetches if "network_peer_address" in line}
        assert peers <= {f"127.0.1.{n}" for n in range(1, 5)}
        denied = [line for line in crawl.events() if line["event"] == "conn_fail" and line["stage"] == "address"]
        assert denied
        assert all("may not be dialled" in line["detail"] for line in denied)
        assert net.asked["/robots.txt"] > 10
        assert net.asked["/sitemap.xml"] > 10, net.asked
