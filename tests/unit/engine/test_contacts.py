"""Lookups ahead of leases, and first contacts: dead names and silent hosts do not slow down the others."""

import asyncio
import math
from collections import Counter
from dataclasses import replace

import pytest

from crawler.core.enums import ErrorType, StoppedBy, TaskKind
from crawler.core.models import FetchResult, Origin, Task
from crawler.core.options import PolitenessOptions, ScopeOptions, TrapOptions
from crawler.core.url import parse
from crawler.engine.options import EngineOptions
from crawler.engine.scheduling import prefetch
from crawler.engine.scheduling.restrictions import block_of
from crawler.fetch.net.errors import ResolveError
from crawler.fetch.net.resolver import CachingResolver, DnsAnswer, DnsResult
from crawler.fetch.options import NetworkOptions
from tests.support.engine import POLITE, Harness, seed
from tests.support.scripted_web import ScriptedNames, failed, page, response
from tests.support.virtual_time import elapse, run

FOUND = DnsAnswer(("192.0.2.1",), 300.0)
DEAD_S = 5.0  # a lookup of a dead name; network.dns_timeout is a little longer
SILENT_S = 30.0  # until a request to a silent host times out
LIVE_S = 1.0  # until another host responds
SLOW = replace(POLITE, delay_s=10.0)
ENGINE = EngineOptions(workers=16, linger_s=None, min_free=0, drain_s=0.0)


def answer(name: str) -> tuple[DnsResult, float]:
    """ "dead…" does not exist, "mute…" gets no answer."""
    if name.startswith("dead"):
        return ResolveError(ErrorType.DNS_NOT_FOUND, f"{name} does not exist"), DEAD_S
    return FOUND, math.inf if name.startswith("mute") else 0.02


def respond(origin: Origin, task: Task) -> FetchResult:
    """ "silent…" does not respond; the others have pages without end."""
    if origin.host.startswith("silent"):
        return failed(ErrorType.CONNECT_TIMEOUT)
    if task.kind is not TaskKind.PAGE:
        return response(404)
    number = int(task.url.rpartition("/")[2] or 0)
    return response(200, page(f"/{number + 1}", f"/{number + 2}"))


class Broad(Harness):
    """A crawl of hosts whose names are looked up, by `names`."""

    def __init__(
        self,
        *hosts: str,
        engine: EngineOptions = ENGINE,
        politeness: PolitenessOptions = SLOW,
        cache_size: int = 65_536,
        first_contacts: int = 64,
    ) -> None:
        super().__init__(
            *(f"https://{host}/" for host in hosts),
            politeness=politeness,
            scope=ScopeOptions(max_depth=None),
            engine=engine,
            traps=TrapOptions(detect="off"),
            first_contacts=first_contacts,
        )
        self.names = ScriptedNames(answer)
        network = NetworkOptions(dns_timeout_s=DEAD_S + 0.1, dns_cache_size=cache_size)
        self.resolver = self.web.resolver = CachingResolver(self.names, network, self.clock)
        self.web.addresses = {host: f"192.0.2.{n}" for n, host in enumerate(hosts)}
        self.web.takes_s = lambda origin, task: SILENT_S if origin.host.startswith("silent") else LIVE_S
        self.web.other = respond

    async def add(self, *hosts: str) -> None:
        """Add hosts to the running crawl."""
        self.web.addresses |= {host: f"198.51.100.{n}" for n, host in enumerate(hosts)}
        seeds = [seed(f"https://{host}/") for host in hosts]
        self.scheduler.discoveries_stored(await self.frontier.add(seeds, now=self.clock.now()))

    def first_requests(self, kind: str) -> list[float]:
        """When the first request to each host of a kind began."""
        first: dict[str, float] = {}
        for one in self.web.requests:
            if one.origin.host.startswith(kind):
                first[one.origin.host] = min(first.get(one.origin.host, math.inf), one.begin)
        return sorted(first.values())


def broad_list(hosts: int) -> list[str]:
    """A third of them dead, a tenth silent."""
    kinds = ("dead" if n % 3 == 0 else "silent" if n % 10 == 1 else "live" for n in range(hosts))
    return [f"{kind}{n}.test" for n, kind in enumerate(kinds)]


def pages_of_live_hosts(hosts: list[str], lasts_s: float) -> int:
    async def main() -> int:
        harness = Broad(*hosts, engine=replace(ENGINE, max_duration_s=lasts_s))
        await harness.run()
        assert max(waited_s for _, waited_s in harness.web.waited_s) < 0.01, "a worker waited for a name server"
        return sum("//live" in url for url in harness.web.page_urls)

    return run(main())


def test_live_hosts_keep_their_rate_among_dead_names_and_silent_hosts() -> None:
    """At least 90 % of what they reach alone, where they keep all workers busy, and no worker waits for a name."""
    hosts = broad_list(400)
    alone = pages_of_live_hosts([host for host in hosts if host.startswith("live")], 300.0)
    assert alone > 0.9 * ENGINE.workers * 300.0 / LIVE_S
    assert pages_of_live_hosts(hosts, 300.0) >= 0.9 * alone


def test_silent_name_servers_hold_up_no_other_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lookups are bounded, and every one ends."""
    monkeypatch.setattr(prefetch, "LOOKUPS_AT_ONCE", 20)

    async def main() -> None:
        mute, live = [f"mute{n}.test" for n in range(60)], [f"live{n}.test" for n in range(5)]
        harness = Broad(*mute, *live, "silent0.test", engine=replace(ENGINE, max_duration_s=120.0))
        await harness.run()
        asked = Counter(int(at_s // (DEAD_S + 0.1)) for _, at_s in harness.names.asked)
        assert 20 <= asked[0] <= 20 + len(live) + 1
        # 66 names, 20 at once, each for 5 s: every one was looked up, and the living ones were requested
        assert {name for name, _ in harness.names.asked} == {*mute, *live, "silent0.test"}
        assert len(harness.first_requests("live")) == len(live)
        assert max(harness.first_requests("live")) < 4 * DEAD_S

    run(main())


def test_a_name_without_an_address_is_a_failure_of_its_host_as_ever() -> None:
    """The host backs off, its URL waits, and neither is looked up in vain."""

    async def main() -> None:
        harness = Broad("dead.test", engine=replace(ENGINE, linger_s=60.0))
        assert await harness.run() is StoppedBy.WAITING
        backoff, _ = harness.events_named("host_state")  # then it is held, without robots.txt
        assert (backoff["to"], backoff["reason"]) == ("backoff", "dns_not_found")
        assert [one.result.error_type for one in harness.web.requests] == [ErrorType.DNS_NOT_FOUND]
        assert [name for name, _ in harness.names.asked] == ["dead.test"]
        assert harness.web.requests[0].begin == pytest.approx(DEAD_S, abs=0.01)

    run(main())


def test_a_host_does_not_wait_for_a_dead_name_of_its_politeness_key() -> None:
    """Nor for a silent host that has no room yet."""

    async def main() -> None:
        harness = Broad("live.a.test", first_contacts=4, politeness=replace(SLOW, delay_s=2.0))
        await harness.open()
        async with asyncio.TaskGroup() as group:
            group.create_task(harness.engine.run())
            await elapse(LIVE_S + 0.5)
            await harness.add(*(f"silent{n}.test" for n in range(4)))
            await elapse(0.5)
            await harness.add("dead.a.test", "mute.a.test", "silent.a.test")
            await elapse(SILENT_S - 1.0)
            harness.engine.drain()
        began = [one.begin for one in harness.web.requests if one.origin.host == "live.a.test"]
        # a failure of a dead name counts as a request of the key, as ever: two of its delays
        assert len(began) >= SILENT_S / (2.0 + LIVE_S) - 3
        assert len(harness.first_requests("dead")) == len(harness.first_requests("mute")) == 1
        await harness.close()

    run(main())


def test_every_host_has_its_first_contact_in_time() -> None:
    """In order, `first_contacts` at a time; hosts that responded have workers meanwhile."""

    async def main() -> None:
        silent = [f"silent{n}.test" for n in range(40)]
        harness = Broad("live.test", *silent, engine=replace(ENGINE, max_duration_s=400.0), first_contacts=4)
        most = 0

        def count(origin: Origin, task: Task) -> None:
            nonlocal most
            most = max(most, harness.web.in_flight)

        harness.web.before = count
        await harness.run()
        first = harness.first_requests("silent")
        assert len(first) == 40
        assert most <= 4 + 1
        # two requests each, the second after a second: no host waits for more than the others' two requests
        assert first[-1] <= 2 * 40 / 4 * SILENT_S
        assert len(harness.first_requests("live")) == 1
        assert sum("//live" in url for url in harness.web.page_urls) >= 400.0 // (SLOW.delay_s + LIVE_S) - 8

    run(main())


@pytest.mark.parametrize("silent", [0, 20])
def test_few_first_contacts_are_made_at_once_until_they_turn_out_silent(
    silent: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They do not delay the requests to hosts that responded; silent ones hold up no other for longer than a second."""
    monkeypatch.setattr(prefetch, "FRESH_AT_ONCE", 5)

    async def main() -> None:
        hosts = [*(f"silent{n}.test" for n in range(silent)), *(f"live{n}.test" for n in range(60))]
        harness = Broad(*hosts, engine=replace(ENGINE, max_duration_s=100.0))
        harness.web.takes_s = lambda origin, task: SILENT_S if origin.host.startswith("silent") else 0.5
        await harness.run()
        first: dict[str, tuple[float, float]] = {}
        for one in harness.web.requests:
            first[one.origin.host] = min(first.get(one.origin.host, (math.inf, 0.0)), (one.begin, one.end))
        assert len(first) == len(hosts)
        begins = sorted(begin for begin, _ in first.values())
        for begin, _ in first.values():
            fresh = sum(other <= begin < min(end, other + prefetch.FRESH_S) for other, end in first.values())
            assert fresh <= 5
        assert begins[-1] - begins[0] <= silent / 5 * prefetch.FRESH_S + 60 / 5 * 0.5 + 2.0

    run(main())


def test_silent_hosts_hold_up_no_other_under_full_load(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hosts that responded keep all workers busy, so that some key is always due. First contacts go on beside them."""
    monkeypatch.setattr(prefetch, "FRESH_AT_ONCE", 5)

    async def main() -> None:
        busy = (f"live{n}.test" for n in range(20))
        politeness, options = replace(SLOW, delay_s=1.0), replace(ENGINE, workers=1)
        harness = Broad(*busy, engine=options, politeness=politeness)
        harness.web.takes_s = lambda origin, task: SILENT_S if origin.host.startswith("silent") else 0.1
        contacted = set[str]()
        harness.web.before = lambda origin, task: contacted.add(origin.host)
        await harness.open()
        async with asyncio.TaskGroup() as group:
            group.create_task(harness.engine.run())
            await elapse(10.0)
            await harness.add(*(f"{kind}{n}.test" for n in range(25) for kind in ("silent", "new")))
            await elapse(SILENT_S - 5.0)
            harness.engine.drain()
        assert len(contacted) == 20 + 2 * 25
        assert sum("//live" in url for url in harness.web.urls) > 0.9 * (SILENT_S + 5.0) / 0.1
        await harness.close()

    run(main())


def test_a_silent_host_is_not_tried_again_at_once_beside_many_others() -> None:
    """With few others it has three tries within seconds of each other, in case that it was about to start."""

    def tries(*hosts: str) -> Counter[str]:
        async def main() -> Counter[str]:
            harness = Broad(*hosts, engine=replace(ENGINE, max_duration_s=200.0), first_contacts=2)
            await harness.run()
            return Counter(one.origin.host for one in harness.web.requests)

        return run(main())

    assert set(tries("silent0.test", "silent1.test").values()) == {3}
    many = tries(*(f"silent{n}.test" for n in range(12)))
    assert len(many) == 12
    assert sorted(many.values())[:10] == [1] * 10  # the last two have the room to themselves
    beside = tries("silent.test", *(f"live{n}.test" for n in range(ENGINE.workers + 2)))
    assert beside["silent.test"] == 1


def test_room_that_a_host_does_not_take_goes_to_the_next() -> None:
    """A block, a back-off or a delay may have begun while it waited for the room."""

    async def main() -> None:
        silent = [f"silent{n}.test" for n in range(6)]
        harness = Broad(*silent, "live.test", first_contacts=1)
        await harness.open()
        async with asyncio.TaskGroup() as group:
            running = group.create_task(harness.engine.run())
            await elapse(1.0)
            in_flight = {lease.origin.host for lease in harness.scheduler.leases_out.values()}
            for name in {*silent} - in_flight:
                harness.engine.blocklist.add(block_of(name, host_only=True, reason="", at=0.0))
            harness.scheduler.blocklist_changed()
            await elapse(SILENT_S + 1.0)
            harness.engine.drain()
        assert running.done()
        assert {one.origin.host for one in harness.web.requests} == in_flight | {"live.test"}
        await harness.close()

    run(main())


def test_neither_blocked_nor_paused_hosts_are_looked_up() -> None:
    """A name server learns nothing of them."""

    async def main() -> None:
        harness = Broad("live.test", "blocked.test")
        await harness.open()
        harness.engine.blocklist.add(block_of("blocked.test", host_only=False, reason="", at=0.0))
        harness.scheduler.blocklist_changed()
        harness.crawl.hold(True)
        async with asyncio.TaskGroup() as group:
            running = group.create_task(harness.engine.run())
            await elapse(20.0)
            assert harness.names.asked == []
            harness.crawl.hold(False)
            await elapse(20.0)
            assert [name for name, _ in harness.names.asked] == ["live.test"]
            harness.engine.drain()
        assert running.done()
        await harness.close()

    run(main())


def test_a_pause_begins_no_lookup(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those under way end, those that waited for a place go on with the crawl."""
    monkeypatch.setattr(prefetch, "LOOKUPS_AT_ONCE", 2)

    async def main() -> None:
        hosts = [f"dead{n}.test" for n in range(5)]
        harness = Broad(*hosts)
        await harness.open()
        async with asyncio.TaskGroup() as group:
            group.create_task(harness.engine.run())
            await elapse(1.0)
            harness.crawl.hold(True)
            await elapse(60.0)
            assert len(harness.names.asked) == 2
            harness.crawl.hold(False)
            await elapse(60.0)
            assert sorted(name for name, _ in harness.names.asked) == hosts
            harness.engine.drain()
        await harness.close()

    run(main())


def test_a_known_name_is_not_looked_up_again_until_its_answer_expires() -> None:
    """One lookup for each TTL, ahead of a lease as well."""

    async def main() -> None:
        harness = Broad("live.test", engine=replace(ENGINE, max_duration_s=2.5 * FOUND.ttl_s))
        await harness.run()
        assert len(harness.names.asked) == 3
        assert max(waited_s for _, waited_s in harness.web.waited_s) < 0.01

    run(main())


def test_a_small_cache_costs_lookups_but_stops_nothing() -> None:
    """An answer that left the cache before its lease is looked up by the worker; the cache stays within its bound."""

    async def main() -> None:
        hosts = broad_list(60)
        harness = Broad(*hosts, engine=replace(ENGINE, max_duration_s=200.0), cache_size=3)
        await harness.run()
        assert harness.resolver.cached <= 3
        assert {one.origin.host for one in harness.web.requests} == set(hosts)

    run(main())


def test_a_stop_does_not_wait_for_a_name_server() -> None:
    """Lookups under way end at once."""

    async def main() -> None:
        harness = Broad("mute.test", "live.test")
        await harness.open()
        async with asyncio.TaskGroup() as group:
            group.create_task(harness.engine.run())
            await elapse(2.5)
            harness.engine.drain()
        assert harness.clock.mono() < 2.6
        await harness.close()

    run(main())


def test_status_says_that_names_and_first_contacts_hold_the_crawl_up() -> None:
    """The reason, and the key that changes it."""

    async def main() -> None:
        hosts = [*(f"mute{n}.test" for n in range(30)), *(f"silent{n}.test" for n in range(10))]
        harness = Broad(*hosts, first_contacts=4)
        await harness.open()
        async with asyncio.TaskGroup() as group:
            group.create_task(harness.engine.run())
            await elapse(2.0)
            status = harness.engine.status()
            assert (status.bottleneck, status.sentence) == (
                "network",
                "the network: 4 requests in flight, the oldest for 2 s, 30 names to be looked up, "
                "6 new hosts waiting for others that do not respond (fetch.first_contacts)",
            )
            harness.engine.drain()
        await harness.close()

    run(main())


def test_every_key_that_waits_for_a_lookup_of_a_host_goes_on_after_it() -> None:
    """Its robots.txt is to be requested from another origin while its own name is looked up."""

    async def main() -> None:
        engine = Broad("live1.test", "live2.test", engine=replace(ENGINE, linger_s=600.0), politeness=POLITE)
        engine.web.other = lambda origin, task: response(200, page()) if task.kind is TaskKind.PAGE else response(404)
        await engine.open()
        host = engine.host("live1.test")
        host.ever_responded = host.robots_pending = True
        other = parse("https://live3.test/")[1]
        probe = Task(0, "https://live1.test/no-such-page", TaskKind.PROBE)
        engine.scheduler.add_auxiliary(host, host.origin, probe)
        moved = Task(0, "https://live3.test/robots.txt", TaskKind.ROBOTS, redirects=1)
        engine.scheduler.add_auxiliary(host, other, moved)
        assert await engine.crawl.run() is StoppedBy.EMPTY
        assert "https://live3.test/robots.txt" in engine.web.urls
        assert "https://live1.test/" in engine.web.page_urls
        await engine.close()

    run(main())
