"""The HTTP client: new options come into force, and requests in flight finish under the old ones."""

import asyncio
from dataclasses import replace

import pytest

from crawler.core.enums import CloseReason, ErrorType
from crawler.core.models import Failed, Fetched, Origin, Task
from crawler.fetch.http1.message import LocalProtocolError
from crawler.fetch.http_client import Generation, HttpClient
from crawler.fetch.options import ClientOptions, FetchOptions, IdentityOptions, NetworkOptions, ProxyOptions, TlsOptions
from tests.support.fetching import RecordingLimiter, SkewedClock
from tests.support.nameserver import Zone, nameserver
from tests.support.scripted_server import ok, serve, table

NETWORK = NetworkOptions(allow_private=("127.0.0.0/8",), resolve=(("*.test", ("127.0.0.1",)),))
OPTIONS = ClientOptions(identity=IdentityOptions("before/1"), network=NETWORK)
OTHER = replace(OPTIONS, identity=IdentityOptions("after/1"), fetch=FetchOptions(bandwidth=1_000_000))


def client_of(options: ClientOptions = OPTIONS, clock: SkewedClock | None = None) -> HttpClient:
    return HttpClient(options, clock=clock or SkewedClock(), address_limiter=RecordingLimiter(), memory=1 << 20)


def put_in_force(client: HttpClient, options: ClientOptions) -> None:
    generation = client.prepare(options)
    assert generation is not None
    client.reconfigure(generation)


async def test_the_next_request_has_the_new_options() -> None:
    """It has a new connection with the next id; idle ones are closed, and the counts are one sum."""
    async with serve(table({"/": ok()})) as server:
        client = client_of()
        origin = Origin("http", "a.test", server.port)
        first = await client.fetch(origin, Task(1, f"{origin}/"))
        put_in_force(client, OTHER)
        second = await client.fetch(origin, Task(2, f"{origin}/"))
        assert isinstance(first, Fetched)
        assert isinstance(second, Fetched)
        assert [b"before/1" in first.request_bytes, b"after/1" in second.request_bytes] == [True, True]
        assert [first.connection.id, second.connection.id] == [1, 2]
        stats = client.stats()
        assert (stats.opened, stats.requests, stats.open) == (2, 2, 1)
        assert stats.closed[CloseReason.EVICTED] == 1
        await client.close()


async def test_no_count_is_missing_while_a_generation_closes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its figures stand somewhere at every moment: counters never go back."""
    close, during = Generation.close, []

    async def closing(self: Generation) -> None:
        during.append(client.stats().requests)
        await close(self)
        await asyncio.sleep(0)
        during.append(client.stats().requests)

    monkeypatch.setattr(Generation, "close", closing)

    async def script(c):
        await c.request()
        await c.send(ok(b"whole"))
        await c.client_closed()

    async with serve(script) as server:
        client = client_of()
        origin = Origin("http", "a.test", server.port)
        assert isinstance(await client.fetch(origin, Task(1, f"{origin}/")), Fetched)
        put_in_force(client, OTHER)
        replacing = asyncio.ensure_future(client.run())
        while len(during) < 2:
            await asyncio.sleep(0)
        replacing.cancel()
        await client.close()
    assert set(during) == {1}


async def test_a_request_in_flight_finishes_and_then_its_connection_closes() -> None:
    """A reload cuts nothing off; both generations are in the status, and their connections can be cut."""
    arrived, go_on = asyncio.Event(), asyncio.Event()

    async def script(c):
        await c.request()
        arrived.set()
        await go_on.wait()
        await c.send(ok(b"whole"))
        await c.client_closed()

    async with serve(script) as server:
        client = client_of()
        replacing = asyncio.ensure_future(client.run())
        origin = Origin("http", "a.test", server.port)
        fetching = asyncio.ensure_future(client.fetch(origin, Task(1, f"{origin}/")))
        await arrived.wait()
        put_in_force(client, OTHER)
        assert [len(found) for found in client.exchanges().values()] == [1]
        go_on.set()
        result = await fetching
        assert isinstance(result, Fetched)
        assert b"".join(result.payload.chunks()) == b"whole"
        while client.stats().open:
            await asyncio.sleep(0.01)
        assert client.stats().requests == 1
        assert client.cut(lambda origin: True) == 0
        replacing.cancel()
        await client.close()


@pytest.mark.parametrize(
    ("options", "error"),
    [
        (replace(OPTIONS, identity=IdentityOptions("broken\nagent")), LocalProtocolError),
        (replace(OPTIONS, network=replace(NETWORK, ca_file="/nonexistent.pem")), OSError),
    ],
)
async def test_options_that_cannot_be_used_change_nothing(options: ClientOptions, error: type[Exception]) -> None:
    """They are refused before anything changes."""
    async with serve(table({"/": ok()})) as server:
        client = client_of()
        with pytest.raises(error):
            client.prepare(options)
        origin = Origin("http", "a.test", server.port)
        result = await client.fetch(origin, Task(1, f"{origin}/"))
        assert isinstance(result, Fetched)
        assert b"before/1" in result.request_bytes
        await client.close()


async def test_the_same_options_replace_nothing() -> None:
    """A reload of other options keeps connections and DNS answers."""
    client = client_of()
    assert client.prepare(replace(OPTIONS, tls=TlsOptions())) is None
    await client.close()


async def test_the_status_has_amounts_in_memory_with_limits() -> None:
    """A cookie jar is in it only if cookies are kept."""
    client = client_of(replace(OPTIONS, fetch=FetchOptions(cookies="session", connections=7, first_contacts=4)))
    held = {name: (unit, amount, limit) for name, unit, amount, limit in client.held()}
    assert list(held) == ["cookies", "bodies", "connections", "DNS answers"]
    assert held["bodies"] == ("bytes", 0, 1 << 20)
    assert held["connections"] == ("entries", 0, 7 + 4)
    await client.close()


async def test_a_lookup_is_needed_for_an_unknown_name_without_a_connection() -> None:
    """Not while a connection is idle, not for names that are known not to exist, and not through a proxy."""
    async with nameserver({"a.test": Zone(["127.0.0.1"], ttl=1)}) as ns, serve(table({"/": ok()})) as server:
        network = NetworkOptions(allow_private=("127.0.0.0/8",), nameservers=(ns.address,), dns_min_ttl_s=1.0)
        clock = SkewedClock()
        client = client_of(replace(OPTIONS, network=network), clock)
        known, dead = Origin("http", "a.test", server.port), Origin("http", "dead.test", server.port)
        assert client.needs_lookup(known)
        assert client.first_address(known) is None
        assert [await client.look_up(known), await client.look_up(dead)] == [True, False]
        assert not client.needs_lookup(known)
        assert not client.needs_lookup(dead)
        assert [client.first_address(known), client.first_address(dead)] == ["127.0.0.1", None]
        assert client.first_address(Origin("http", "[::1]", 80)) == "::1"
        queries = len(ns.queries)
        result = await client.fetch(dead, Task(1, f"{dead}/"))
        assert isinstance(result, Failed)
        assert result.error_type is ErrorType.DNS_NOT_FOUND
        assert isinstance(await client.fetch(known, Task(2, f"{known}/")), Fetched)
        assert len(ns.queries) == queries
        clock.offset += 30.0  # the answer has expired, the connection is idle
        assert not client.needs_lookup(known)
        client.cut(lambda origin: True)
        assert client.needs_lookup(known)
        await client.close()
        proxied = client_of(replace(OPTIONS, network=replace(network, proxy=ProxyOptions("proxy.test", 3128))))
        assert not proxied.needs_lookup(known)
        assert proxied.first_address(Origin("http", "[::1]", 80)) is None
        await proxied.close()
