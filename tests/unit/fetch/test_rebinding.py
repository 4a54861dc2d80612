"""Names that move to forbidden addresses between check and dial, on reconnect, redirect, robots.txt and sitemap."""

import asyncio
import random
from collections import Counter

import pytest

from crawler.core.enums import ErrorType, TaskKind
from crawler.core.models import Failed, Fetched
from crawler.fetch.net.resolver import AresLookup
from crawler.fetch.options import NetworkOptions
from tests.support.fetching import client
from tests.support.rebinding import ALLOWED_NETWORK, HOSTS, rebinding

AT_ONCE = 16
KIND_OF = {
    "/": TaskKind.PAGE,
    "/redirect": TaskKind.PAGE,
    "/robots.txt": TaskKind.ROBOTS,
    "/sitemap.xml": TaskKind.SITEMAP,
}


async def attempts(count, *, allow, seed=1, strict=True):
    """Fetch from names whose addresses change. Returns the results by kind, and the net."""
    rng = random.Random(seed)
    outcomes = Counter()
    async with rebinding(seed=seed) as net:
        # No answer is kept: every connection that is opened asks DNS anew.
        network = NetworkOptions(
            allow_private=allow, dns_min_ttl_s=0.0, dns_max_ttl_s=0.0, dns_negative_ttl_s=0.0, dns_failure_ttl_s=0.0
        )
        lookup = AresLookup((net.nameserver.address,))
        async with client(network=network, lookup=lookup, connections_per_host=4) as c:
            left = count

            async def visitor():
                nonlocal left
                follow = None
                while left > 0:
                    left -= 1
                    kind = TaskKind.PAGE
                    if follow is not None:
                        what, url = "after a redirect", follow
                    else:
                        path = rng.choice(tuple(KIND_OF))
                        kind = KIND_OF[path]
                        what, url = path, net.url(rng.randrange(HOSTS), path)
                    follow = None
                    if rng.random() < 0.1:
                        c.pool.close_idle()  # the next request to any of them is a reconnect
                    result = await c.get(url, kind=kind)
                    if isinstance(result, Fetched):
                        assert not strict or result.connection.peer_address.startswith("127.0.1."), result.connection
                        outcomes[what, "ok"] += 1
                        follow = result.head.get("location")
                    else:
                        assert isinstance(result, Failed)
                        outcomes[what, result.error_type] += 1

            try:
                async with asyncio.TaskGroup() as group:
                    for _ in range(AT_ONCE):
                        group.create_task(visitor())
            finally:
                await lookup.close()
            reached = net.reached()
            stats = c.pool.stats()
    return outcomes, net, reached, stats


def assert_never_reached(outcomes, net, reached, stats, count):
    """No forbidden address was reached, and every way was tried."""
    assert reached == 0
    assert sum(outcomes.values()) == count
    words = Counter()
    for (_, word), times in outcomes.items():
        words[word] += times
    assert words.pop(ErrorType.DNS_TIMEOUT, 0) <= count / 100, "a loaded machine may be late now and then, not more"
    assert set(words) == {"ok", ErrorType.ADDRESS_DENIED, ErrorType.DNS_FAILURE}
    for what in (*KIND_OF, "after a redirect"):
        assert outcomes[what, "ok"] > count / 40, (what, outcomes)
        assert outcomes[what, ErrorType.ADDRESS_DENIED] > count / 100, (what, outcomes)
    assert min(net.answered[kind] for kind in ("allowed", "forbidden", "both", "none", "forbidden6")) > count / 20
    assert stats.opened > count / 10, "too few connections for a name to move between them"


async def test_a_changing_name_never_leads_to_a_forbidden_address():
    """1,500 attempts; the listeners on the forbidden addresses count 0."""
    assert_never_reached(*await attempts(1_500, allow=(ALLOWED_NETWORK,)), 1_500)


@pytest.mark.prove
@pytest.mark.timeout(3_000)
async def test_a_changing_name_never_leads_there_in_100_000_attempts():
    """The same with more attempts."""
    assert_never_reached(*await attempts(100_000, allow=(ALLOWED_NETWORK,), seed=2), 100_000)


async def test_the_listeners_notice_a_client_without_the_check():
    """A client that may dial all of loopback reaches them hundreds of times, so the 0 above is significant."""
    outcomes, _, reached, _ = await attempts(300, allow=("127.0.0.0/8", "::1/128"), strict=False)
    assert reached > 50
    assert outcomes["/", "ok"] > 10
