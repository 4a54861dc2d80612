"""DNS as it is: nameservers that answer, fail, keep silent, or do so for one family only. All over UDP on loopback."""

import asyncio
import contextlib
import time
from collections import Counter

import pytest

from crawler.core.enums import ErrorType
from crawler.fetch.net.errors import ResolveError
from crawler.fetch.net.resolver import SPLIT_AFTER_S, AresLookup, CachingResolver
from crawler.fetch.options import NetworkOptions
from tests.support.fetching import FakeClock
from tests.support.nameserver import NXDOMAIN, REFUSED, SERVFAIL, Zone, nameserver

V4, V4B, V6 = "192.0.2.5", "192.0.2.6", "2001:db8::5"


@contextlib.asynccontextmanager
async def resolver(*servers, timeout_s=5.0, clock=None, **options):
    """A resolver that asks these servers, in order."""
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
    """Both families are asked for at once; within the TTL nobody is asked again; localhost needs no server."""
    clock = FakeClock()
    async with nameserver({"a.example": Zone([V4, V4B, V6], ttl=120)}) as ns, resolver(ns, clock=clock) as r:
        assert sorted(await r.resolve("a.example")) == [V4, V4B, V6]
        assert set(ns.queries) == {("a.example", 4), ("a.example", 6)}
        asked = len(ns.queries)
        clock.time += 119.0
        await r.resolve("a.example")
        assert "127.0.0.1" in await r.resolve("localhost")
        assert len(ns.queries) == asked


async def test_a_name_that_does_not_exist_is_told_from_one_that_could_not_be_asked_for():
    """NXDOMAIN and no records: not found, kept long. SERVFAIL, REFUSED: a failure, kept briefly. Silence: a timeout."""
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


async def test_a_failing_server_is_not_asked_over_and_over():
    """One nameserver, one failure: one query a family, until the failure is forgotten."""
    async with nameserver({"bad.example": SERVFAIL, "no.example": REFUSED}) as ns, resolver(ns) as r:
        for name in ("bad.example", "no.example"):
            for _ in range(5):
                assert await error_of(r, name) is ErrorType.DNS_FAILURE
            assert 2 <= len([query for query in ns.queries if query[0] == name]) <= 4  # a slow machine asks again


async def test_a_name_that_takes_its_server_long_is_waited_for():
    """A server that is quick as a rule is not given up early for a name it first has to find out."""
    async with nameserver({"*.example": Zone([V4], ttl=0)}) as ns, resolver(ns, dns_min_ttl_s=0.0) as r:
        for n in range(30):  # c-ares learns how quick it is
            await r.resolve(f"quick{n}.example")
        found_out = time.monotonic() + 1.2
        ns.answers = {"slow.example": lambda name, family: Zone([V4]) if time.monotonic() >= found_out else None}
        assert await r.resolve("slow.example") == (V4,)


async def test_a_name_comes_back_when_its_server_does():
    """A failure is never the last word."""
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
    """Whatever is said of AAAA, a host with A records has an address; and the other way round."""
    answers = {
        "four.example": lambda name, family: Zone([V4]) if family == 4 else answer,
        "six.example": lambda name, family: Zone([V6]) if family == 6 else answer,
    }
    async with nameserver(answers) as ns, resolver(ns) as r:
        assert await r.resolve("four.example") == (V4,)
        assert await r.resolve("six.example") == (V6,)


async def test_a_nameserver_that_drops_aaaa_costs_a_quarter_of_a_second():
    """The lookup of both goes on; the answer for A alone is used meanwhile."""
    async with nameserver({"a.example": Zone([V4, V6], mute=frozenset({6}))}) as ns, resolver(ns) as r:
        began = time.monotonic()
        assert await r.resolve("a.example") == (V4,)
        assert SPLIT_AFTER_S <= time.monotonic() - began < 1.2  # alone c-ares takes 1.67 s
        assert ns.queries.count(("a.example", 6)) == 2


async def test_a_nameserver_that_drops_a_leaves_aaaa():
    """Just before the time is over, AAAA alone must do."""
    async with nameserver({"a.example": Zone([V4, V6], mute=frozenset({4}))}) as ns, resolver(ns, timeout_s=0.8) as r:
        assert await r.resolve("a.example") == (V6,)


async def test_slow_answers_for_both_are_joined():
    """Where both families answer only when asked on their own, both are used."""
    asked = {4: 0, 6: 0}

    def second_time(name, family):
        asked[family] += 1
        return Zone([V4, V6]) if asked[family] > 1 else None

    async with nameserver({"a.example": second_time}) as ns, resolver(ns) as r:
        addresses = await r.resolve("a.example")
        assert V4 in addresses
        assert ns.queries.count(("a.example", 6)) == 2


@pytest.mark.parametrize("dead", [None, SERVFAIL, REFUSED])
async def test_the_next_nameserver_is_asked_when_one_is_no_use(dead):
    """Silent, failing or refusing: the second one answers, and the silent one is not waited for again."""
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


async def test_a_nameserver_nobody_runs_is_passed_over():
    """A closed port answers by ICMP; the next server is asked at once."""
    async with nameserver({}) as gone:
        address = gone.address
    async with nameserver({"a.example": Zone([V4])}) as second:
        lookup = AresLookup([address, second.address])
        r = CachingResolver(lookup, NetworkOptions(), FakeClock())
        assert await r.resolve("a.example") == (V4,)
        await r.close()


@pytest.mark.parametrize(("family", "kinds"), [("ipv4", {4}), ("ipv6", {6})])
async def test_only_the_configured_family_is_asked_for(family, kinds):
    """No query is wasted on addresses that would not be used."""
    async with nameserver({"a.example": Zone([V4, V6])}) as ns, resolver(ns, address_family=family) as r:
        assert await r.resolve("a.example") == ((V4,) if family == "ipv4" else (V6,))
        assert {kind for _, kind in ns.queries} == kinds


async def test_a_name_is_looked_for_where_it_says_and_nowhere_else(monkeypatch):
    """This machine's search list is left alone: a name that does not exist does not become one of our own domain."""
    monkeypatch.setenv("LOCALDOMAIN", "corp.example")  # resolv.conf(5): replaces the search list
    async with nameserver({"*.corp.example": Zone([V4])}) as ns, resolver(ns) as r:
        for name in ("gone.example", "intranet"):
            assert await error_of(r, name) is ErrorType.DNS_NOT_FOUND
        assert {name for name, _ in ns.queries} == {"gone.example", "intranet"}


async def test_closing_leaves_no_query_behind():
    """Whoever waits is told, and no timer asks a closed channel for more."""
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


async def test_what_is_no_name_is_not_found():
    """Names that DNS cannot carry fail like names that do not exist, or as a failure, never as a bug."""
    async with nameserver({}) as ns, resolver(ns) as r:
        for name in ("a..example", "x" * 64 + ".example", ".".join(["a" * 60] * 5)):
            assert await error_of(r, name) in (ErrorType.DNS_NOT_FOUND, ErrorType.DNS_FAILURE)
