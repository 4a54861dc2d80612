"""The scheduler: when and in which order leases are issued; no host is forgotten or looked at in a loop."""

import asyncio
import random
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise

import pytest

from crawler.core.enums import ErrorType, Source, StoppedBy, TaskKind, UrlState
from crawler.core.models import FetchResult, Origin, Task
from crawler.core.options import PolitenessOptions, ScopeOptions, TrapOptions
from crawler.core.politeness import CLOCK_GUARD_S, address_delay, address_width, politeness_key
from crawler.engine.options import EngineOptions
from crawler.engine.scheduling.host import AuxiliaryRequest
from crawler.frontier.base import FrontierFull
from tests.support.engine import AT_ONCE, POLITE, Harness, seed
from tests.support.memory_frontier import MemoryFrontier
from tests.support.scripted_web import failed, page, response
from tests.support.virtual_time import elapse, run

OPTIONS = EngineOptions(workers=8, linger_s=600.0, min_free=0)


def numbered(count: int) -> bytes:
    return page(*(f"/{n:03}" for n in range(count)))


def ok(origin: Origin, task: Task) -> FetchResult:
    return response(404 if task.kind is TaskKind.ROBOTS else 200)


# -- order


def test_within_a_host_priority_then_depth_then_age_decide() -> None:
    """As the store orders them."""

    async def main() -> None:
        urls = [("late", 0, 1), ("deep", 0, 2), ("first", -1, 9), ("last", 1, 0), ("later", 0, 1)]
        engine = Harness(scope=ScopeOptions(hosts=("a.test",)))
        await engine.open()
        found = [seed(f"https://a.test/{name}", priority=p, depth=d) for name, p, d in urls]
        engine.scheduler.discoveries_stored(await engine.frontier.add(found, now=engine.clock.now()))
        await engine.crawl.run()
        assert engine.web.page_urls == [f"https://a.test/{name}" for name in ("first", "late", "later", "deep", "last")]

    run(main())


def test_hosts_of_one_key_are_leased_in_rotation() -> None:
    """A host with a thousand URLs delays its neighbours by one request, not by a thousand."""

    async def main() -> None:
        engine = Harness("https://huge.a.test/", "https://small.a.test/", "https://tiny.a.test/")
        engine.web.pages = {
            "https://huge.a.test/": response(200, numbered(60)),
            "https://small.a.test/": response(200, numbered(4)),
        }
        await engine.run()
        last_small = max(n for n, url in enumerate(engine.web.page_urls) if "small" in url)
        assert last_small <= 3 + 2 * 4

    run(main())


def test_at_delay_0_a_huge_host_does_not_starve_small_ones() -> None:
    """Neither with every worker busy, nor while tasks are prefetched."""

    async def main() -> None:
        engine = Harness(
            "https://huge.test/",
            *(f"https://h{n}.test/" for n in range(20)),
            politeness=AT_ONCE,
            engine=replace(OPTIONS, workers=2),
        )
        engine.web.pages = {"https://huge.test/": response(200, numbered(900))}
        engine.web.other = ok
        await engine.run()
        others = [n for n, url in enumerate(engine.web.page_urls) if "huge" not in url]
        assert max(others) < 400

    run(main())


def test_under_full_load_tasks_are_still_prefetched() -> None:
    """There is always a key that is due, but a host found meanwhile does not wait until all buffers are empty."""

    async def main() -> None:
        huge = [f"https://huge{n}.test/" for n in range(4)]
        engine = Harness(*huge, politeness=AT_ONCE, engine=replace(OPTIONS, workers=2, lease_size=4))
        engine.web.pages = {url: response(200, numbered(400)) for url in huge}
        engine.web.pages[f"{huge[0]}001"] = response(200, page("https://late.test/"))
        engine.url_policy.scope = engine.url_policy.scope.widened("late.test")
        engine.web.other = ok
        await engine.run()
        found = engine.web.page_urls.index(f"{huge[0]}001")
        assert engine.web.page_urls.index("https://late.test/") < found + 120

    run(main())


# -- politeness


def test_with_a_delay_one_request_of_a_key_is_in_flight_and_the_next_waits() -> None:
    """Whatever connections_per_host says; the delay runs from the end of the response."""

    async def main() -> None:
        politeness = replace(POLITE, connections_per_host=4)
        engine = Harness("https://a.test/", "https://b.a.test/", politeness=politeness)
        engine.web.pages = {"https://a.test/": response(200, numbered(5))}
        await engine.run()
        asked = engine.web.requests
        assert len(asked) == 9
        for before, after in pairwise(asked):
            assert 1.0 + CLOCK_GUARD_S <= after.begin - before.end < 1.02 + CLOCK_GUARD_S

    run(main())


@pytest.mark.parametrize("width", [1, 3])
def test_at_delay_0_a_host_has_several_leases_of_several_tasks(width: int) -> None:
    """`lease_size` tasks at most on each of `connections_per_host` connections."""

    async def main() -> None:
        politeness = replace(AT_ONCE, connections_per_host=width)
        engine = Harness("https://a.test/", politeness=politeness, engine=replace(OPTIONS, lease_size=5))
        engine.web.pages = {"https://a.test/": response(200, numbered(100))}
        engine.web.other = ok
        sizes, most = [], 0

        def look(origin: Origin, task: Task) -> None:
            nonlocal most
            most = max(most, engine.host("a.test").leases)
            sizes.extend(len(lease.tasks) for lease in engine.scheduler.leases_out.values())

        engine.web.before = look
        await engine.run()
        assert len(engine.web.page_urls) == 101
        assert (most, max(sizes)) == (width, 5)

    run(main())


def test_while_all_workers_have_hosts_no_host_gets_a_second_connection() -> None:
    """It would make nothing faster and cost memory while it is idle; a host alone has as many as it may."""

    async def main() -> None:
        hosts = [f"https://h{n}.test/" for n in range(8)]
        politeness = replace(AT_ONCE, connections_per_host=4, connections_per_address=64, robots="ignore")
        engine = Harness(*hosts, politeness=politeness, engine=replace(OPTIONS, workers=8, lease_size=2))
        engine.web.pages = {url: response(200, numbered(40)) for url in hosts}
        engine.web.other = ok
        busiest_of_many, busiest_of_one, settled = 0, 0, 0

        def look(origin: Origin, task: Task) -> None:
            nonlocal busiest_of_many, busiest_of_one, settled
            found = [engine.host(f"h{n}.test") for n in range(8)]
            leases = [host.leases for host in found]
            if all(host.has_work for host in found):
                settled += 1
                if settled > 32:  # what was leased while the seeds were all there was has ended
                    busiest_of_many = max(busiest_of_many, *leases)
            elif sum(host.has_work or host.leases > 0 for host in found) == 1:
                busiest_of_one = max(busiest_of_one, *leases)

        engine.web.pages[hosts[0]] = response(200, numbered(400))
        engine.web.before = look
        await engine.run()
        assert busiest_of_many == 1
        assert busiest_of_one == 4

    run(main())


def test_with_an_address_delay_a_lease_has_one_task() -> None:
    """Others would only come back."""

    async def main() -> None:
        engine = Harness("https://a.test/", politeness=replace(AT_ONCE, address_delay_s=0.5))
        engine.web.pages = {"https://a.test/": response(200, numbered(9))}
        engine.web.other = ok
        await engine.run()
        begins = [one.begin for one in engine.web.requests]
        assert all(after - before >= 0.6 for before, after in pairwise(begins))
        assert engine.web.shut == 0

    run(main())


def test_a_429_holds_for_every_lease_that_is_out() -> None:
    """At delay 0 there are several connections: none of them sends another request."""

    async def main() -> None:
        engine = Harness("https://a.test/", "https://b.a.test/", politeness=AT_ONCE)
        engine.web.pages = {
            "https://a.test/": response(200, numbered(200)),
            "https://a.test/040": [response(429, retry_after="60"), response(200)],
        }
        engine.web.other = ok
        rng = random.Random(1)
        engine.web.takes_s = lambda origin, task: rng.uniform(0.05, 0.15)
        assert await engine.run() is StoppedBy.EMPTY
        at = next(one.end for one in engine.web.requests if one.url.endswith("/040"))
        assert not [one for one in engine.web.requests if at <= one.called < at + 60]
        assert set(engine.settled.values()) == {"done"}
        assert len(engine.settled) == 202

    run(main())


def test_a_crawl_delay_learned_late_holds_for_leases_that_are_out() -> None:
    """The robots.txt of a neighbour sets the delay of the whole key, at once."""

    async def main() -> None:
        engine = Harness("https://a.test/", politeness=AT_ONCE)
        engine.web.pages = {
            "https://a.test/": response(200, page("https://b.a.test/", *(f"/{n}" for n in range(80)))),
            "https://b.a.test/robots.txt": response(200, b"User-agent: *\nCrawl-delay: 10"),
        }
        engine.url_policy.scope = engine.url_policy.scope.widened("b.a.test")
        engine.web.other = ok
        engine.web.takes_s = lambda origin, task: 0.3 if "b.a" in task.url else 0.1
        engine.crawl._options = replace(OPTIONS, max_duration_s=100.0)
        await engine.run()
        added = next(one.end for one in engine.web.requests if one.url == "https://b.a.test/robots.txt")
        after = [one for one in engine.web.requests if one.called >= added]
        ends = [max(one.end for one in engine.web.requests if one.called < added), *(one.end for one in after)]
        assert len(after) > 5
        assert all(one.called >= end + 10.0 for end, one in zip(ends, after, strict=False))

    run(main())


def test_a_crawl_delay_counts_from_the_robots_txt_that_names_it() -> None:
    """The first page waits for it, too."""

    async def main() -> None:
        engine = Harness("https://a.test/", politeness=AT_ONCE)
        engine.web.pages = {"https://a.test/robots.txt": response(200, b"User-agent: *\nCrawl-delay: 10")}
        await engine.run()
        robots, first = engine.web.requests
        assert first.begin >= robots.end + 10.0

    run(main())


# -- robots.txt


def test_robots_txt_is_requested_first_and_nothing_else_before_its_verdict() -> None:
    """Even at delay 0, with many connections."""

    async def main() -> None:
        engine = Harness(*(f"https://a.test/{n}" for n in range(30)), politeness=AT_ONCE)
        engine.web.takes_s = lambda origin, task: 5.0 if task.kind is TaskKind.ROBOTS else 0.1
        engine.web.other = ok
        await engine.run()
        assert engine.web.urls[0] == "https://a.test/robots.txt"
        assert engine.web.urls.count("https://a.test/robots.txt") == 1
        assert min(one.called for one in engine.web.requests[1:]) >= 5.0

    run(main())


def test_a_redirected_robots_txt_keeps_the_delay_of_the_other_key() -> None:
    """Meanwhile the host that it is for waits."""

    async def main() -> None:
        engine = Harness("https://a.test/", "https://b.test/")
        engine.web.pages = {"https://a.test/robots.txt": response(301, location="https://b.test/robots.txt")}
        await engine.run()
        asked = [one for one in engine.web.requests if one.origin.host == "b.test"]
        assert [one.url for one in asked].count("https://b.test/robots.txt") == 2
        assert all(after.begin - before.end >= 1.0 for before, after in pairwise(asked))
        verdict = max(one.end for one in asked if one.task.redirects)
        [page_of_a] = [one for one in engine.web.requests if one.url == "https://a.test/"]
        assert page_of_a.called >= verdict

    run(main())


def test_robots_txt_is_requested_again_when_it_expires() -> None:
    """Pages wait for the new verdict."""

    async def main() -> None:
        engine = Harness(*(f"https://a.test/{n}" for n in range(4)))

        def age(origin: Origin, task: Task) -> None:
            host = engine.host("a.test")
            if task.url.endswith("/1") and host.robots is not None:
                host.robots = replace(host.robots, expires_at=engine.clock.now() + 0.5)

        engine.web.before = age
        await engine.run()
        assert [url.rpartition("/")[2] for url in engine.web.urls] == ["robots.txt", "0", "1", "robots.txt", "2", "3"]

    run(main())


def test_an_auxiliary_request_that_meets_a_closed_address_waits_for_it() -> None:
    """It waits in the address's queue and is tried exactly once more."""

    async def main() -> None:
        engine = Harness("https://a.test/", "https://b.test/", politeness=replace(POLITE, address_delay_s=1.0))
        engine.web.takes_s = lambda origin, task: 50.0 if origin.host == "a.test" else 0.1
        await engine.run()
        assert engine.web.shut <= 4
        assert engine.loop.rounds < 600
        assert len(engine.web.page_urls) == 2

    run(main())


def test_an_auxiliary_request_does_not_wait_for_that_of_a_host_that_backs_off() -> None:
    """A robots.txt that failed is requested after the back-off of its host; those of its neighbours meanwhile."""

    async def main() -> None:
        engine = Harness("https://bad.a.test/", "https://good.a.test/")
        engine.web.pages = {"https://bad.a.test/robots.txt": failed(ErrorType.CONNECT_REFUSED)}
        engine.crawl._options = replace(OPTIONS, max_duration_s=30.0)
        await engine.run()
        assert "https://good.a.test/" in engine.web.page_urls
        asked = [one.called for one in engine.web.requests if "bad" in one.url]
        assert len(asked) == 3  # at once, after 1 s and after 4 s: then 15 minutes
        assert "bad.a.test" not in "".join(engine.web.page_urls)

    run(main())


def test_an_auxiliary_request_waits_while_its_host_backs_off() -> None:
    """Also one that was added before: other connections of the host may have failed meanwhile."""

    async def main() -> None:
        engine = Harness("https://a.test/", "https://b.a.test/", politeness=AT_ONCE)
        await engine.open()
        host = engine.host("a.test")
        host.robots_pending = True
        host.politeness = host.politeness.backed_off(30.0, "reset")
        task = Task(0, "https://a.test/robots.txt", TaskKind.ROBOTS)
        host.key.auxiliary.append(AuxiliaryRequest(host, host.origin, task))
        assert await engine.crawl.run() is StoppedBy.EMPTY
        await engine.close()
        assert min(one.called for one in engine.web.requests if one.origin.host == "a.test") >= 30.0
        assert max(one.end for one in engine.web.requests if one.origin.host == "b.a.test") < 1.0
        assert engine.loop.rounds < 400

    run(main())


# -- addresses


@pytest.mark.parametrize("is_known", [True, False])
def test_the_address_of_a_redirected_robots_txt_is_not_that_of_its_host(is_known: bool) -> None:
    """The host's pages do not wait for that address, be it known from a lookup or learned over a connection."""

    async def main() -> None:
        engine = Harness("https://a.test/", "https://b.test/", politeness=replace(POLITE, address_delay_s=50.0))
        engine.web.addresses, engine.web.knows_addresses = {"a.test": "192.0.2.7"}, is_known
        engine.web.pages = {"https://a.test/robots.txt": response(301, location="https://b.test/robots.txt")}
        await engine.run()
        elsewhere = [one for one in engine.web.requests if one.address != "192.0.2.7"]
        verdict = next(one.end for one in elsewhere if one.task.redirects)
        [page_of_a] = [one for one in engine.web.requests if one.url == "https://a.test/"]
        assert (engine.web.shut > 0) is not is_known
        assert page_of_a.called < verdict + 1.0

    run(main())


@pytest.mark.parametrize("is_known", [True, False])
def test_many_hosts_on_one_address_are_requested_one_after_the_other_without_a_gap(is_known: bool) -> None:
    """Keys leave the wait queue in order: none polls, and no time is lost between two of them. A host whose address is
    known from a lookup has no connection before its request may leave.
    """

    async def main() -> None:
        engine = Harness(*(f"https://h{n}.test/" for n in range(150)), politeness=replace(POLITE, address_delay_s=0.25))
        engine.web.knows_addresses = is_known
        await engine.run()
        asked = engine.web.requests
        gaps = [after.begin - before.end for before, after in pairwise(asked)]
        assert len(asked) == 300
        assert min(gaps) >= 0.25 + CLOCK_GUARD_S
        assert max(gaps) < 0.251 + CLOCK_GUARD_S
        assert engine.web.shut <= (0 if is_known else 150)  # else each host learns its address once
        assert engine.loop.rounds < 60 * len(asked)

    run(main())


def test_hosts_that_refuse_connections_keep_their_address_for_its_delay_only() -> None:
    """As if a request had been sent, and the others of that address go on."""

    async def main() -> None:
        hosts = [f"dead{n}.test" for n in range(20)]
        politeness = replace(POLITE, address_delay_s=0.25)
        engine = Harness(*(f"https://{host}/" for host in hosts), "https://live.test/", politeness=politeness)
        engine.web.refused = set(hosts)
        await engine.run()
        first = {one.origin.host: one.called for one in reversed(engine.web.requests)}
        assert len(first) == 21
        assert 20 * 0.25 <= max(first.values()) - min(first.values()) < 21 * 0.3

    run(main())


def test_a_closed_address_delays_no_other() -> None:
    """It is not looked at in a loop either: during a request of ten minutes once a second at most."""

    async def main() -> None:
        politeness = replace(POLITE, address_delay_s=0.25)
        engine = Harness(
            "https://slow.test/",
            "https://beside.test/",
            *(f"https://h{n}.test/" for n in range(5)),
            politeness=politeness,
        )
        engine.web.addresses = {f"h{n}.test": f"192.0.2.1{n}" for n in range(5)}
        engine.web.takes_s = lambda origin, task: 600.0 if origin.host == "slow.test" else 0.1
        await engine.run()
        assert max(one.end for one in engine.web.requests if one.url.startswith("https://h")) < 5.0
        assert sorted(engine.web.page_urls[-2:]) == ["https://beside.test/", "https://slow.test/"]
        assert engine.loop.rounds < 20 * 1_300

    run(main())


def test_all_slots_of_an_address_that_become_free_are_used() -> None:
    """At delay 0 an address has several: those that become free together are used together."""

    async def main() -> None:
        politeness = replace(AT_ONCE, connections_per_host=1, connections_per_address=4, key="host", robots="ignore")
        seeds = [f"https://h{n}.test/" for n in range(40)]
        engine = Harness(*seeds, politeness=politeness, engine=replace(OPTIONS, workers=40))
        await engine.run()
        assert len(engine.web.requests) == 40
        assert max(one.end for one in engine.web.requests) < 40 / 4 * 0.1 + 0.05

    run(main())


# -- the store


def test_a_waiting_url_is_requested_when_it_is_due() -> None:
    """Not before, and not much later, though nothing else happens."""

    async def main() -> None:
        engine = Harness("https://a.test/")
        engine.web.pages = {
            "https://a.test/": [response(200, truncated=None, error_type=ErrorType.READ_TIMEOUT), response(200)]
        }
        assert await engine.run() is StoppedBy.EMPTY
        [first, second] = [one for one in engine.web.requests if one.task.kind is TaskKind.PAGE]
        assert 5.0 <= second.begin - first.end < 6.3
        assert (first.task.attempt, second.task.attempt) == (1, 2)

    run(main())


class FullStore(MemoryFrontier):
    """A store whose disk is full while `full` says so."""

    full = False
    refused = 0

    def _check_open(self) -> None:
        super()._check_open()
        if self.full:
            self.refused += 1
            raise FrontierFull("no room")


def test_after_a_full_disk_urls_are_promoted_and_prefetched_again() -> None:
    """Both are tried once a second, and nothing is lost."""

    async def main() -> None:
        store = FullStore()
        engine = Harness("https://a.test/", "https://b.test/", frontier=store)
        engine.web.pages = {
            "https://a.test/": [response(503), response(200, numbered(20))],
            "https://b.test/": response(200, numbered(20)),
        }

        async def fill_the_disk() -> None:
            await elapse(3.0)
            store.full = True
            await elapse(60.0)
            store.full = False

        async with asyncio.TaskGroup() as group:
            group.create_task(fill_the_disk())
            assert await engine.run() is StoppedBy.EMPTY
        assert store.refused < 200
        assert len(engine.settled) == 42
        assert set(engine.settled.values()) == {"done"}

    run(main())


# -- leases that come back


def test_unfinished_tasks_of_a_lease_go_back_to_the_front_once() -> None:
    """The next lease begins where the one before was broken off."""

    async def main() -> None:
        engine = Harness(
            *(f"https://a.test/{n:02}" for n in range(12)), politeness=replace(AT_ONCE, connections_per_host=1)
        )
        engine.web.pages = {"https://a.test/03": [response(503, retry_after="9"), response(200)]}
        engine.web.other = ok
        await engine.run()
        assert [url[-2:] for url in engine.web.page_urls] == [f"{n:02}" for n in (*range(12), 3)]

    run(main())


@pytest.mark.parametrize("responded", [True, False])
def test_stop_takes_back_what_waits_in_the_queues(responded: bool) -> None:
    """No lease is issued any more, and no URL stays reserved."""

    async def main() -> None:
        engine = Harness(
            *(f"https://h{n}.test/" for n in range(8)),
            engine=replace(OPTIONS, workers=4),
            first_contacts=4,
            politeness=replace(AT_ONCE, robots="ignore"),
        )
        await engine.open()
        await engine.scheduler.start()
        for host in engine.host_table.hosts.values():
            host.ever_responded = responded
        queue = engine.scheduler.queue if responded else engine.scheduler.first_contacts
        async with asyncio.TaskGroup() as group:
            group.create_task(engine.scheduler.run())
            await elapse(1.0)
            assert queue.qsize() == (1 if responded else 4)
            engine.scheduler.stop()
            await elapse(1.0)
            while not queue.empty():  # one that was put just then: workers end it
                lease = queue.get_nowait()
                engine.scheduler.lease_ended(lease, unfinished=lease.tasks, began=False)
        assert engine.scheduler.leases_out == {}
        assert engine.scheduler.url_limits.reserved == 0
        assert all(host.leases == 0 for host in engine.host_table.hosts.values())
        await engine.close()

    run(main())


# -- limits


@pytest.mark.parametrize("limit", [1, 2, 7, 40])
@pytest.mark.parametrize("politeness", [POLITE, AT_ONCE], ids=["delay", "at once"])
def test_max_urls_is_met_exactly(limit: int, politeness: PolitenessOptions) -> None:
    """Refusals by robots.txt do not count, nor do retries, nor robots.txt itself."""

    async def main() -> None:
        engine = Harness(
            "https://a.test/", "https://b.test/", politeness=politeness, scope=ScopeOptions(max_urls=limit)
        )
        engine.web.pages = {
            "https://a.test/robots.txt": response(200, b"User-agent: *\nDisallow: /00"),
            "https://a.test/": response(200, numbered(30)),
            "https://b.test/": [response(503, retry_after="2"), response(200, numbered(30))],
        }
        engine.web.other = ok
        assert await engine.run() is StoppedBy.MAX_URLS
        assert len(set(engine.web.page_urls)) == limit
        assert not any("/00" in url for url in engine.web.page_urls if "a.test" in url)
        assert engine.counters.life.urls_fetched == limit

    run(main())


def test_max_urls_per_host_is_met_exactly_by_each() -> None:
    """Refusals give their reservations back."""

    async def main() -> None:
        engine = Harness(
            "https://a.test/", "https://b.test/", politeness=AT_ONCE, scope=ScopeOptions(max_urls_per_host=12)
        )
        engine.web.pages = {
            "https://a.test/robots.txt": response(200, b"User-agent: *\nDisallow: /00"),
            "https://a.test/": response(200, numbered(40)),
            "https://b.test/": response(200, numbered(5)),
        }
        engine.web.other = ok
        assert await engine.run() is StoppedBy.MAX_URLS
        assert sum("a.test" in url for url in engine.web.page_urls) == 12
        assert sum("b.test" in url for url in engine.web.page_urls) == 6

    run(main())


def test_a_retry_goes_ahead_although_the_limit_is_reached() -> None:
    """Its URL was counted already; it may be behind others that the limit forbids."""

    async def main() -> None:
        engine = Harness("https://a.test/", scope=ScopeOptions(max_urls=3))
        engine.web.pages = {
            "https://a.test/": response(200, numbered(9)),
            "https://a.test/000": [response(503), response(200)],
        }
        assert await engine.run() is StoppedBy.MAX_URLS
        assert [url[-3:] for url in engine.web.page_urls] == ["st/", "000", "001", "000"]
        assert engine.settled["https://a.test/000"] == UrlState.DONE

    run(main())


def test_reservations_of_a_host_that_backs_off_are_used_by_others() -> None:
    """A limit is met although one host backs off for longer than the crawl waits."""

    async def main() -> None:
        engine = Harness("https://a.test/", "https://b.test/", politeness=AT_ONCE, scope=ScopeOptions(max_urls=20))
        engine.web.pages = {
            "https://a.test/": response(200, numbered(40)),
            "https://b.test/": response(200, numbered(40)),
            "https://a.test/000": response(503, retry_after="7200"),
        }
        engine.web.other = ok
        assert await engine.run() is StoppedBy.MAX_URLS
        assert len(set(engine.web.page_urls)) == 20

    run(main())


def test_a_url_found_by_many_links_is_requested_once() -> None:
    """Pages link to each other, and each is requested once."""

    async def main() -> None:
        names = [f"/{n:03}" for n in range(30)]
        engine = Harness("https://a.test/", politeness=AT_ONCE)
        every: Callable[[Origin, Task], FetchResult] = lambda origin, task: response(200, page("/", *names))  # noqa: E731
        engine.web.other = every
        engine.web.pages = {"https://a.test/robots.txt": response(404)}
        await engine.run()
        assert sorted(engine.web.page_urls) == sorted(f"https://a.test{name}" for name in ("/", *names))
        assert engine.visits[1][0].settlement.task.source is Source.SEED

    run(main())


@pytest.mark.parametrize(
    ("delay_s", "address_delay_s"),
    [(1.0, None), (0.25, None), (0.25, 0.25), (0.0, 0.25), (0.3, 1.0), (1.0, 0.5), (0.0, 0.0)],
)
@pytest.mark.parametrize("key", ["domain", "host"])
def test_keys_at_one_address_get_even_shares_and_so_do_hosts_of_one_key(
    key: str, delay_s: float, address_delay_s: float | None
) -> None:
    """Six busy hosts of one domain and two of others, all at one address: a key that comes at the right moment does not
    overtake those that wait, and the address is never idle. Without any delay a key may have several leases, so that
    one with many hosts gets more than others, but no more than twice as much.
    """
    politeness = PolitenessOptions(key=key, delay_s=delay_s, address_delay_s=address_delay_s, adaptive=False)
    names = [*(f"h{n}.one.test" for n in range(6)), "x.two.test", "y.three.test"]
    takes_s = 0.05

    async def main() -> None:
        engine = Harness(
            *(f"https://{name}/" for name in names),
            politeness=politeness,
            traps=TrapOptions(detect="off"),  # all pages are alike
            engine=EngineOptions(workers=16, linger_s=None, min_free=0),
        )

        def respond(origin: Origin, task: Task) -> FetchResult:
            if task.kind is TaskKind.ROBOTS:
                return response(404)
            return response(200, page(*(f"/{n}" for n in range(3_000))) if task.url.endswith("/") else page())

        engine.web.other = respond
        engine.web.takes_s = lambda origin, task: takes_s
        crawling = asyncio.ensure_future(engine.run())
        await elapse(60 if delay_s == address_delay_s == 0 else 120)
        engine.crawl.drain()
        await crawling
        requests = Counter(one.origin.host for one in engine.web.requests if one.begin > 20)
        by_key = Counter({politeness_key(name, politeness): 0 for name in names})
        for name, count in requests.items():
            by_key[politeness_key(name, politeness)] += count
        factor = 2.2 if delay_s == address_delay_s == 0 else 1.1
        assert max(by_key.values()) <= factor * min(by_key.values())
        of_one = [requests[name] for name in names[:6]]
        assert max(of_one) <= 1.2 * min(of_one)
        assert engine.web.shut < 50
        if factor > 2:
            assert sum(requests.values()) >= 0.95 * 40 * address_width(politeness) / takes_s
            return
        gap_s = address_delay(politeness) + CLOCK_GUARD_S + takes_s
        busiest_s = delay_s + CLOCK_GUARD_S + takes_s if delay_s else 0.0
        assert sum(requests.values()) >= 0.9 * min(100 / gap_s, len(by_key) * 100 / max(busiest_s, gap_s))

    run(main())
