"""Real DNS over UDP on loopback: name servers that answer, fail or are silent, also for one family only."""

import asyncio
import contextlib
import gc
import time
from collections import Counter

import pytest

from crawler.core.enums import ErrorType
from crawler.fetch.net.errors import ResolveError
from crawler.fetch.net.resolver import SPLIT_AFTER_S, AresLookup, CachingResolver, _NameQuery
from crawler.fetch.options import NetworkOptions
from tests.support.fetching import FakeClock
from tests.support.nameserver import NXDOMAIN, REFUSED, SERVFAIL, Zone, nameserver

V4, V4B, V6 = "192.0.2.5", "192.0.2.6", "2001:db8::5"
LOOP_TIME_S = 0.01  # how much earlier a timer may end: the loop reads the clock once a turn


@contextlib.asynccontextmanager
async def resolver(*servers, timeout_s=5.0, clock=None, **options):
    """A resolver with these name servers, in order."""
    lookup = AresLookup([s.address for s in servers], timeout_s=timeout_s, family=options.get("address_family", "any"))
    r = CachingResolver(lookup, NetworkOptions(dns_timeout_s=timeout_s, **options), clock or FakeClock())
    try:
        yield r
    finally:
        await r.close()


async def error_of(r, name):
    with pytest.raises(ResolveError) as caught:
        await r.resolve(name)
    assert name in caught.value.detail
    return caught.value.error_type


async def test_addresses_and_ttl_come_from_the_configured_nameserver():
    """Both families are queried at once; within the TTL there is no other query; localhost needs no server."""
    clock = FakeClock()
    async with nameserver({"a.example": Zone([V4, V4B, V6], ttl=120)}) as ns, resolver(ns, clock=clock) as r:
        assert sorted(await r.resolve("a.example")) == [V4, V4B, V6]
        assert set(ns.queries) == {("a.example", 4), ("a.example", 6)}
        asked = len(ns.queries)
        clock.time += 119.0
        await r.resolve("a.example")
        assert "127.0.0.1" in await r.resolve("localhost")
        assert len(ns.queries) == asked


async def test_a_missing_name_differs_from_a_failed_query():
    """NXDOMAIN, no records: not found, cached long. SERVFAIL, REFUSED: failed, cached briefly. Silence: a timeout."""
    answers = {
        "none.example": NXDOMAIN,
        "empty.example": Zone(),
        "bad.example": SERVFAIL,
        "refused.example": REFUSED,
        "mute.example": None,
    }
    words = {
        "none.example": ErrorType.DNS_NOT_FOUND,
        "empty.example": ErrorType.DNS_NOT_FOUND,
        "bad.example": ErrorType.DNS_FAILURE,
        "refused.example": ErrorType.DNS_FAILURE,
        "mute.example": ErrorType.DNS_TIMEOUT,
    }
    clock = FakeClock()
    async with nameserver(answers) as ns, resolver(ns, clock=clock, timeout_s=0.4) as r:

        def asked():
            """How often each name was asked for, but for the silent one: for that c-ares goes on for a while."""
            return Counter(name for name, _ in ns.queries if name != "mute.example")

        assert {name: await error_of(r, name) for name in words} == words
        first = asked()
        for _ in range(3):
            assert {name: await error_of(r, name) for name in words} == words
        assert asked() == first, "failures were not kept"
        clock.time += 6.0
        assert {name: await error_of(r, name) for name in words} == words
        assert set(asked() - first) == {"bad.example", "refused.example"}
        clock.time += 600.0
        await error_of(r, "none.example")
        assert asked()["none.example"] > first["none.example"]


async def test_a_failing_server_gets_one_query():
    """One failure of the only server: one query a family until the failure expires."""
    async with nameserver({"bad.example": SERVFAIL, "no.example": REFUSED}) as ns, resolver(ns) as r:
        for name in ("bad.example", "no.example"):
            for _ in range(5):
                assert await error_of(r, name) is ErrorType.DNS_FAILURE
            assert 2 <= len([query for query in ns.queries if query[0] == name]) <= 4  # a slow machine asks again


async def test_a_slow_name_of_a_quick_server_is_waited_for():
    """A server that is usually quick has time for a name that is not in its cache."""
    async with nameserver({"*.example": Zone([V4], ttl=0)}) as ns, resolver(ns, dns_min_ttl_s=0.0) as r:
        for n in range(30):  # c-ares learns how quick it is
            await r.resolve(f"quick{n}.example")
        found_out = time.monotonic() + 1.2
        ns.answers = {"slow.example": lambda name, family: Zone([V4]) if time.monotonic() >= found_out else None}
        assert await r.resolve("slow.example") == (V4,)


async def test_a_name_resolves_again_when_its_server_does():
    """A failure expires."""
    up = False
    clock = FakeClock()
    answers = {"a.example": lambda name, family: Zone([V4]) if up else SERVFAIL}
    async with nameserver(answers) as ns, resolver(ns, clock=clock) as r:
        assert await error_of(r, "a.example") is ErrorType.DNS_FAILURE
        up = True
        clock.time += 5.1
        assert await r.resolve("a.example") == (V4,)


@pytest.mark.parametrize("answer", [NXDOMAIN, SERVFAIL, Zone()])
async def test_one_family_is_enough(answer):
    """A host with A records has an address whatever the query for AAAA gives, and the other way round."""
    answers = {
        "four.example": lambda name, family: Zone([V4]) if family == 4 else answer,
        "six.example": lambda name, family: Zone([V6]) if family == 6 else answer,
    }
    async with nameserver(answers) as ns, resolver(ns) as r:
        assert await r.resolve("four.example") == (V4,)
        assert await r.resolve("six.example") == (V6,)


async def test_a_nameserver_that_drops_aaaa_costs_250_ms():
    """The answer for A alone is used while the query for both goes on."""
    async with nameserver({"a.example": Zone([V4, V6], mute=frozenset({6}))}) as ns, resolver(ns) as r:
        began = time.monotonic()
        assert await r.resolve("a.example") == (V4,)
        took_s = time.monotonic() - began
        assert SPLIT_AFTER_S - LOOP_TIME_S <= took_s < 1.2  # alone c-ares takes 1.67 s
        assert ns.queries.count(("a.example", 6)) == 2


async def test_a_nameserver_that_drops_a_leaves_aaaa():
    """Just before the timeout AAAA alone is used."""
    async with nameserver({"a.example": Zone([V4, V6], mute=frozenset({4}))}) as ns, resolver(ns, timeout_s=0.8) as r:
        assert await r.resolve("a.example") == (V6,)


async def test_slow_answers_for_both_are_joined():
    """If the families are answered only in queries of their own, both are used."""
    asked = {4: 0, 6: 0}

    def second_time(name, family):
        asked[family] += 1
        return Zone([V4, V6]) if asked[family] > 1 else None

    async with nameserver({"a.example": second_time}) as ns, resolver(ns) as r:
        addresses = await r.resolve("a.example")
        assert V4 in addresses
        assert ns.queries.count(("a.example", 6)) == 2


@pytest.mark.parametrize("dead", [None, SERVFAIL, REFUSED])
async def test_the_next_nameserver_is_used_when_one_fails(dead):
    """The first is silent, fails or refuses: the second answers, and a silent one is not waited for again."""
    async with (
        nameserver({"*.example": dead}) as first,
        nameserver({"*.example": Zone([V4])}) as second,
        resolver(first, second, timeout_s=1.0) as r,
    ):
        assert await r.resolve("a.example") == (V4,)
        assert first.queries
        asked = len(first.queries)
        assert await r.resolve("b.example") == (V4,)
        assert dead is not None or len(first.queries) == asked


async def test_a_closed_port_of_a_nameserver_is_skipped():
    """ICMP reports a closed port; the next server gets the query at once."""
    async with nameserver({}) as gone:
        address = gone.address
    async with nameserver({"a.example": Zone([V4])}) as second:
        lookup = AresLookup([address, second.address])
        r = CachingResolver(lookup, NetworkOptions(), FakeClock())
        assert await r.resolve("a.example") == (V4,)
        await r.close()


@pytest.mark.parametrize(("family", "kinds"), [("ipv4", {4}), ("ipv6", {6})])
async def test_only_the_configured_family_is_queried(family, kinds):
    """There are no queries for addresses that would not be used."""
    async with nameserver({"a.example": Zone([V4, V6])}) as ns, resolver(ns, address_family=family) as r:
        assert await r.resolve("a.example") == ((V4,) if family == "ipv4" else (V6,))
        assert {kind for _, kind in ns.queries} == kinds


async def test_the_search_list_is_not_used(monkeypatch):
    """A name that does not exist is not looked up below this machine's own domain."""
    monkeypatch.setenv("LOCALDOMAIN", "corp.example")  # resolv.conf(5): replaces the search list
    async with nameserver({"*.corp.example": Zone([V4])}) as ns, resolver(ns) as r:
        for name in ("gone.example", "intranet"):
            assert await error_of(r, name) is ErrorType.DNS_NOT_FOUND
        assert {name for name, _ in ns.queries} == {"gone.example", "intranet"}


async def test_closing_leaves_no_query_behind():
    """Waiting lookups end, and no timer uses a closed channel."""
    async with nameserver({"a.example": None}) as ns:
        lookup = AresLookup([ns.address])
        r = CachingResolver(lookup, NetworkOptions(), FakeClock())
        waiting = asyncio.ensure_future(r.resolve("a.example"))
        while not ns.queries:
            await asyncio.sleep(0.001)
        timers = [timer for query in lookup._queries for timer in query._timers]
        assert len(timers) == 2
        await r.close()
        with pytest.raises(ResolveError):
            await waiting
        assert all(timer.cancelled() for timer in timers)
        assert not lookup._queries


async def test_a_query_that_is_over_needs_no_garbage_collector():
    """Among a million names what waits for it would be a part of the memory."""
    zones = {f"{n}.example": Zone([V4], ttl=120) for n in range(20)} | {f"no{n}.example": NXDOMAIN for n in range(20)}
    async with nameserver(zones) as ns, resolver(ns) as r:
        gc.collect()
        gc.disable()
        try:
            for name in zones:
                await r.look_up(name)
            await asyncio.sleep(0)
            assert not [one for one in gc.get_objects() if isinstance(one, _NameQuery)]
        finally:
            gc.enable()


async def test_invalid_names_are_not_found():
    """Names that DNS cannot carry are not found or fail; they raise nothing else."""
    async with nameserver({}) as ns, resolver(ns) as r:
        for name in ("a..example", "x" * 64 + ".example", ".".join(["a" * 60] * 5)):
            assert await error_of(r, name) in (ErrorType.DNS_NOT_FOUND, ErrorType.DNS_FAILURE)
