"""Hosts with an open connection go ahead: with more hosts than connections these are used again."""

import asyncio
from dataclasses import replace
from itertools import pairwise

import pytest

from crawler.core.enums import CloseReason, StoppedBy
from crawler.core.models import Origin
from crawler.core.options import PolitenessOptions, ScopeOptions
from crawler.engine.options import EngineOptions
from crawler.engine.scheduling.host import Host, PolitenessKey
from crawler.engine.scheduling.ready_queue import QUANTUM, ReadyQueue
from crawler.fetch.options import FetchOptions
from crawler.fetch.pool import Pool
from tests.support.engine import POLITE, Harness
from tests.support.fetching import FakeClock, FakeDialer
from tests.support.scripted_web import page, response
from tests.support.virtual_time import elapse, run


class Connected(Harness):
    """A crawl of `hosts` with `pages` pages each, over at most `connections` connections. Two workers, one more
    for first contacts, and a response time of 0.1 s make 30 requests a second.
    """

    def __init__(
        self,
        hosts: int,
        pages: int,
        *,
        connections: int,
        first_contacts: int = 1,
        politeness: PolitenessOptions = POLITE,
    ) -> None:
        origins = [f"https://h{number}.test" for number in range(hosts)]
        super().__init__(
            *(f"{origin}/" for origin in origins),
            politeness=politeness,
            scope=ScopeOptions(max_depth=None),
            engine=EngineOptions(workers=2, linger_s=600.0, min_free=0),
            first_contacts=first_contacts,
            web={f"{origin}/": response(200, page(*(f"/{n}" for n in range(pages - 1)))) for origin in origins},
        )
        self.web.addresses = {f"h{number}.test": f"192.0.2.{number}" for number in range(hosts)}
        self.dialer = FakeDialer()
        self.web.pool = Pool(
            dialer=self.dialer,  # type: ignore[arg-type] - it has what the pool calls
            options=FetchOptions(connections=connections, idle_timeout_s=600.0),
            clock=self.clock,
            first_contacts=first_contacts,
            is_wanted=self.web.is_wanted,
        )


@pytest.mark.parametrize("connections", [60, 40])
def test_a_connection_serves_all_pages_of_a_host(connections: int) -> None:
    """Where there are as many connections as requests in the time of a delay, and the commit that brings the links."""

    async def main() -> None:
        engine = Connected(200, 5, connections=connections)
        assert await engine.run() is StoppedBy.EMPTY
        assert len(engine.web.requests) == 200 * 6
        assert len(engine.dialer.dialled) < 1.2 * 200
        by_host = sorted(engine.web.requests, key=lambda one: (one.origin, one.begin))
        for before, after in pairwise(by_host):
            assert before.origin != after.origin or after.begin - before.end >= POLITE.delay_s

    run(main())


def test_a_host_goes_ahead_for_a_quantum_of_requests() -> None:
    """After some requests in succession a host waits behind the others: its connection goes to one of them."""

    async def main() -> None:
        engine = Connected(100, 3 * QUANTUM, connections=40)
        assert await engine.run() is StoppedBy.EMPTY
        requests = [one.requests for one in engine.dialer.dialled if one.close_reason is CloseReason.EVICTED]
        assert sum(requests) / len(requests) > QUANTUM / 2
        assert sum(number > QUANTUM + 1 for number in requests) < len(requests) / 50

    run(main())


def test_an_entry_made_during_the_last_request_of_a_quantum_gives_no_precedence() -> None:
    """A visit that is stored meanwhile schedules the key anew, while it still goes ahead."""
    clock = FakeClock()
    queue = ReadyQueue(POLITE, clock, wake=lambda: None, is_connected=lambda origin: True)
    keys = [PolitenessKey(name, 1.0) for name in ("a", "b")]
    for number, key in enumerate(keys):
        key.add_to_rotation(Host(number, Origin("https", f"{key.name}.test", 443), key))
    key, other = keys
    queue.schedule(other, clock.mono())
    clock.time += 0.1
    for lease_id in range(QUANTUM):
        queue.lease_issued(key, lease_id, None)
        queue.schedule(key, clock.mono())
        queue.lease_ended(key, lease_id)
        assert key.goes_ahead is (lease_id < QUANTUM - 1)
    assert queue.take_due() is other
    assert queue.take_due() is key


def test_a_connection_closed_meanwhile_gives_no_precedence() -> None:
    """The key takes its place among the others by the time since when it may be requested."""

    async def main() -> None:
        engine = Connected(30, 4, connections=30)
        pool = engine.web.pool
        assert pool is not None
        engine.web.before = lambda origin, task: pool.close_idle()
        assert await engine.run() is StoppedBy.EMPTY
        assert len(engine.web.requests) == 30 * 5
        assert len(engine.dialer.dialled) == 30 * 5
        ends = {request.origin: request.end for request in engine.web.requests}
        assert max(ends.values()) - min(ends.values()) < 4.0, "all hosts are requested alike"

    run(main())


def test_a_host_whose_address_is_closed_gets_no_connection_yet() -> None:
    """A provider with many hosts at one address sees about as many connections as requests."""

    async def main() -> None:
        politeness = replace(POLITE, address_delay_s=0.25)
        engine = Connected(100, 2, connections=200, first_contacts=50, politeness=politeness)
        engine.web.addresses = {}
        await engine.open()
        crawling = asyncio.ensure_future(engine.crawl.run())
        for _ in range(20):
            await elapse(1.0)
            assert len(engine.dialer.dialled) <= len(engine.web.requests) + 1
        assert len(engine.web.requests) >= 50
        engine.crawl.drain()
        await crawling
        await engine.close()

    run(main())
