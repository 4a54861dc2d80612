"""The resolver: its table, its cache, and shared queries."""

import asyncio

import pytest

from crawler.core.enums import ErrorType
from crawler.fetch.net.errors import ResolveError
from crawler.fetch.net.resolver import CachingResolver, DnsAnswer
from crawler.fetch.options import NetworkOptions
from tests.support.fetching import FakeClock, ScriptedLookup

A = DnsAnswer(("192.0.2.1", "2001:db8::1"), 300.0)


def resolver(lookup, clock=None, **options):
    return CachingResolver(lookup, NetworkOptions(**options), clock or FakeClock())


TABLE = (
    ("java.docs.test", ("127.0.0.1", "::1")),
    ("*.many.test", ("127.0.1.1",)),
    ("*.deep.many.test", ("127.0.1.2",)),
    ("one.many.test", ("127.0.1.3",)),
)


@pytest.mark.parametrize(
    ("host", "addresses"),
    [
        ("java.docs.test", ("127.0.0.1", "::1")),
        ("java.docs.test.", ("127.0.0.1", "::1")),
        ("a.many.test", ("127.0.1.1",)),
        ("a.b.many.test", ("127.0.1.1",)),
        ("a.deep.many.test", ("127.0.1.2",)),
        ("one.many.test", ("127.0.1.3",)),
        ("192.0.2.7", ("192.0.2.7",)),
        ("[2001:db8::7]", ("2001:db8::7",)),
    ],
)
async def test_the_table_and_addresses_need_no_query(host, addresses):
    """network.resolve comes first, exact names before the longest suffix; an address is its own result."""
    lookup = ScriptedLookup()
    assert await resolver(lookup, resolve=TABLE).resolve(host) == addresses
    assert lookup.asked == []


async def test_a_wildcard_is_not_its_own_parent():
    """ "*.many.test" does not cover many.test itself."""
    lookup = ScriptedLookup({"many.test": A})
    assert await resolver(lookup, resolve=TABLE).resolve("many.test") == A.addresses


async def test_answers_are_kept_for_their_ttl():
    """Within the TTL there is no other query; after it, one."""
    clock = FakeClock()
    lookup = ScriptedLookup({"a.test": A})
    r = resolver(lookup, clock)
    assert await r.resolve("a.test") == A.addresses
    clock.time += 299.0
    await r.resolve("a.test")
    await r.resolve("a.test.")
    assert lookup.asked == ["a.test"]
    clock.time += 2.0
    await r.resolve("a.test")
    assert lookup.asked == ["a.test", "a.test"]


@pytest.mark.parametrize(
    ("result", "kept_s"),
    [
        (DnsAnswer(("192.0.2.1",), 0.0), 60.0),
        (DnsAnswer(("192.0.2.1",), 1e9), 86_400.0),
        (ResolveError(ErrorType.DNS_NOT_FOUND, "NXDOMAIN"), 600.0),
        (ResolveError(ErrorType.DNS_FAILURE, "SERVFAIL"), 5.0),
        (ResolveError(ErrorType.DNS_TIMEOUT, "timeout"), 5.0),
    ],
)
async def test_ttls_and_failures_are_bounded(result, kept_s):
    """TTLs are bounded by the options; NXDOMAIN is cached long, other failures briefly."""
    clock = FakeClock()
    lookup = ScriptedLookup({"a.test": result})
    r = resolver(lookup, clock)

    async def ask():
        if isinstance(result, DnsAnswer):
            await r.resolve("a.test")
        else:
            with pytest.raises(ResolveError) as caught:
                await r.resolve("a.test")
            assert caught.value.error_type is result.error_type

    await ask()
    clock.time += kept_s - 0.5
    await ask()
    assert len(lookup.asked) == 1
    clock.time += 1.0
    await ask()
    assert len(lookup.asked) == 2


async def test_the_cache_is_bounded():
    """The oldest answer is dropped when the cache is full."""
    lookup = ScriptedLookup({f"{n}.test": A for n in "abc"})
    r = resolver(lookup, dns_cache_size=2)
    for name in ("a.test", "b.test", "c.test", "b.test", "c.test", "a.test"):
        await r.resolve(name)
    assert lookup.asked == ["a.test", "b.test", "c.test", "a.test"]


async def test_concurrent_lookups_share_one_query():
    """Ten lookups of one name at once cause one query and get the same answer."""
    lookup = ScriptedLookup()
    r = resolver(lookup)
    tasks = [asyncio.ensure_future(r.resolve("a.test")) for _ in range(10)]
    await asyncio.sleep(0)
    lookup.answer("a.test", A)
    assert await asyncio.gather(*tasks) == [A.addresses] * 10
    assert lookup.asked == ["a.test"]


async def test_a_cancelled_waiter_takes_nothing_from_the_others():
    """The query goes on when the lookup that started it is cancelled."""
    lookup = ScriptedLookup()
    r = resolver(lookup)
    first = asyncio.ensure_future(r.resolve("a.test"))
    second = asyncio.ensure_future(r.resolve("a.test"))
    await asyncio.sleep(0)
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    assert not second.done()
    lookup.answer("a.test", A)
    assert await second == A.addresses
    assert lookup.asked == ["a.test"]


async def test_an_answer_without_waiters_is_cached():
    """If all waiters are cancelled, the late answer or failure is cached."""
    lookup = ScriptedLookup()
    r = resolver(lookup)
    for name, result in (("a.test", A), ("b.test", ResolveError(ErrorType.DNS_FAILURE, "SERVFAIL"))):
        only = asyncio.ensure_future(r.resolve(name))
        await asyncio.sleep(0)
        only.cancel()
        await asyncio.gather(only, return_exceptions=True)
        lookup.answer(name, result)
    assert await r.resolve("a.test") == A.addresses
    with pytest.raises(ResolveError):
        await r.resolve("b.test")
    assert lookup.asked == ["a.test", "b.test"]


async def test_silence_is_a_timeout():
    """A lookup without an answer ends after dns_timeout; a later answer changes nothing."""
    lookup = ScriptedLookup()
    r = resolver(lookup, dns_timeout_s=0.02)
    with pytest.raises(ResolveError) as caught:
        await r.resolve("a.test")
    assert caught.value.error_type is ErrorType.DNS_TIMEOUT
    lookup.answer("a.test", A)
    with pytest.raises(ResolveError):
        await r.resolve("a.test")


@pytest.mark.parametrize(("family", "addresses"), [("ipv4", ("192.0.2.1",)), ("ipv6", ("2001:db8::1",))])
async def test_only_the_configured_family_is_used(family, addresses):
    """network.address_family leaves the other family's addresses out."""
    assert await resolver(ScriptedLookup({"a.test": A}), address_family=family).resolve("a.test") == addresses


async def test_no_address_of_the_family_is_not_found():
    """A host without an address of the configured family counts as not found."""
    with pytest.raises(ResolveError, match="no ipv6 address") as caught:
        await resolver(ScriptedLookup(), address_family="ipv6").resolve("192.0.2.1")
    assert caught.value.error_type is ErrorType.DNS_NOT_FOUND


async def test_a_failure_can_be_forgotten():
    """For who has mended the name server: the name is looked up again at once. An answer stays."""
    lookup = ScriptedLookup({"a.test": A, "b.test": ResolveError(ErrorType.DNS_NOT_FOUND, "NXDOMAIN")})
    r = resolver(lookup)
    for host in ("a.test", "b.test.", "c.test"):
        r.forget_failure(host)
    assert await r.resolve("a.test") == A.addresses
    for _ in range(2):
        with pytest.raises(ResolveError):
            await r.resolve("b.test")
    assert lookup.asked == ["a.test", "b.test"]
    lookup.answers["b.test"] = A
    for host in ("a.test", "b.test."):
        r.forget_failure(host)
        assert await r.resolve(host) == A.addresses
    assert lookup.asked == ["a.test", "b.test", "b.test"]


async def test_close_ends_what_is_under_way():
    """Closing the resolver ends all lookups."""
    lookup = ScriptedLookup()
    r = resolver(lookup)
    waiting = asyncio.ensure_future(r.resolve("a.test"))
    await asyncio.sleep(0)
    await r.close()
    with pytest.raises(ResolveError):
        await waiting
    assert lookup.closed


async def test_a_failure_that_was_looked_up_ahead_is_there_for_the_next_request_and_then_expires():
    """The first request does not wait for the name server again, however short the TTL of a failure is."""
    clock = FakeClock()
    lookup = ScriptedLookup({"a.test": ResolveError(ErrorType.DNS_TIMEOUT, "timeout"), "b.test": A})
    r = resolver(lookup, clock)
    assert not r.is_known("a.test")
    assert [await r.look_up("a.test"), await r.look_up("b.test."), await r.look_up("192.0.2.7")] == [False, True, True]
    clock.time += 59.0
    assert r.is_known("a.test.")
    with pytest.raises(ResolveError):
        await r.resolve("a.test.")
    assert lookup.asked == ["a.test", "b.test"]
    assert not r.is_known("a.test")
    clock.time += 300.0
    assert not r.is_known("b.test")


async def test_failures_count_for_the_bound_of_the_cache():
    """A list of dead names does not grow it."""
    lookup = ScriptedLookup({f"{n}.test": ResolveError(ErrorType.DNS_NOT_FOUND, "NXDOMAIN") for n in range(50)})
    r = resolver(lookup, dns_cache_size=8)
    for n in range(50):
        assert not await r.look_up(f"{n}.test")
    assert r.cached == 8
