"""An HTTP client for tests, whose clock, lookup and rate limit tests control, and a dialer without a network."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace

from crawler.core.models import Origin, Task, Timings
from crawler.fetch.credentials import CookieJar, OriginCredentials
from crawler.fetch.fetcher import Fetcher
from crawler.fetch.limits import Bandwidth, ByteBudget
from crawler.fetch.net.address import AddressPolicy
from crawler.fetch.net.dial import Dialer, Dialled, NetworkDialer, Proxy
from crawler.fetch.net.errors import ResolveError
from crawler.fetch.net.resolver import CachingResolver, DnsAnswer, Lookup
from crawler.fetch.net.tls import TlsProfile
from crawler.fetch.options import FetchOptions, IdentityOptions, NetworkOptions, ProxyOptions, Secrets, TlsOptions
from crawler.fetch.pool import Pool


class FakeClock:
    """A clock that a test moves."""

    def __init__(self, mono: float = 1_000.0) -> None:
        self.time = mono

    def mono(self) -> float:
        return self.time

    def now(self) -> float:
        return 1_700_000_000.0 + self.time


class SkewedClock:
    """The real clock plus an offset that a test sets: timers are real, but ages need no waiting."""

    def __init__(self) -> None:
        self.offset = 0.0

    def mono(self) -> float:
        return time.monotonic() + self.offset

    def now(self) -> float:
        return time.time() + self.offset


class ScriptedLookup:
    """A Lookup that answers from a dictionary, or when the test calls `answer`. `asked`: the names, in order."""

    def __init__(self, answers: dict[str, DnsAnswer | ResolveError] | None = None) -> None:
        self.answers = answers or {}
        self.asked: list[str] = []
        self.waiting: dict[str, list] = {}
        self.closed = False

    def start(self, host, deliver) -> None:
        self.asked.append(host)
        if host in self.answers:
            deliver(self.answers[host])
        else:
            self.waiting.setdefault(host, []).append(deliver)

    def answer(self, host: str, result: DnsAnswer | ResolveError) -> None:
        for deliver in self.waiting.pop(host):
            deliver(result)

    async def close(self) -> None:
        self.closed = True


@dataclass
class RecordingLimiter:
    """An AddressRateLimit that records its calls. `shut`: address → when it opens."""

    shut: dict[str, float] = field(default_factory=dict)
    log: list[tuple[str, str]] = field(default_factory=list)

    def enter(self, address: str) -> float | None:
        until = self.shut.get(address)
        if until is None:
            self.log.append(("enter", address))
        return until

    def leave(self, address: str) -> None:
        self.log.append(("leave", address))

    @property
    def is_balanced(self) -> bool:
        entered = sorted(a for what, a in self.log if what == "enter")
        return entered == sorted(a for what, a in self.log if what == "leave")


@dataclass
class Client:
    fetcher: Fetcher
    pool: Pool
    address_limiter: RecordingLimiter
    clock: SkewedClock
    events: list[tuple[str, dict]]
    lookup: Lookup

    async def get(self, url: str, **task):
        """Fetch a URL `scheme://host:port/path`."""
        scheme, _, rest = url.partition("://")
        host, _, port = rest.partition("/")[0].rpartition(":")
        return await self.fetcher.fetch(Origin(scheme, host, int(port)), Task(1, url, **task))

    def closings(self) -> list[str]:
        return [fields["reason"] for name, fields in self.events if name == "conn_close"]


@contextlib.asynccontextmanager
async def client(
    *,
    fetch: FetchOptions | None = None,
    network: NetworkOptions | None = None,
    tls: TlsOptions | None = None,
    identity: IdentityOptions | None = None,
    ca_file: str | None = None,
    connections_per_host: int = 1,
    dialer: Dialer | None = None,
    budget: ByteBudget | None = None,
    bandwidth: Bandwidth | None = None,
    spool_directory: str | None = None,
    lookup: Lookup | None = None,
    secrets: Secrets | None = None,
    proxy: ProxyOptions | None = None,
) -> AsyncIterator[Client]:
    """A client that may dial loopback, and resolves "*.test" to 127.0.0.1. Its pool is closed at the end."""
    fetch = fetch or FetchOptions()
    if network is None:
        network = NetworkOptions(
            allow_private=("127.0.0.0/8", "::1/128"), resolve=(("*.test", ("127.0.0.1",)),), ca_file=ca_file
        )
    if proxy is not None:
        network = replace(network, proxy=proxy)
    clock = SkewedClock()
    address_limiter = RecordingLimiter()
    events: list[tuple[str, dict]] = []
    lookup = lookup or ScriptedLookup()
    if dialer is None:
        dialer = NetworkDialer(
            resolver=CachingResolver(lookup, network, clock),
            policy=AddressPolicy(network.allow_private),
            tls=TlsProfile(tls or TlsOptions(), network),
            options=fetch,
            network=network,
            clock=clock,
        )
    pool = Pool(
        dialer=dialer,
        options=fetch,
        clock=clock,
        connections_per_host=connections_per_host,
        on_event=lambda name, fields: events.append((name, fields)),
        budget=budget,
        bandwidth=bandwidth,
    )
    fetcher = Fetcher(
        pool=pool,
        options=fetch,
        identity=identity or IdentityOptions(user_agent="test/1"),
        address_limiter=address_limiter,
        clock=clock,
        budget=budget,
        spool_directory=spool_directory,
        credentials=OriginCredentials.of(
            secrets or Secrets(),
            cookies=CookieJar() if fetch.cookies == "session" else None,
            proxy=None if network.proxy is None else Proxy(network.proxy),
            clock=clock,
        ),
    )
    try:
        yield Client(fetcher, pool, address_limiter, clock, events, lookup)
    finally:
        await fetcher.close()


async def until(condition, turns: int = 2_000) -> None:
    """Wait until a condition holds, at most two seconds: I/O on loopback needs real time."""
    for _ in range(turns):
        if condition():
            return
        await asyncio.sleep(0.001)
    raise AssertionError("the condition never held")


# -- connections without a network


class RecordingTransport(asyncio.Transport):
    """A transport that only records calls. `closes_politely`: the peer answers close_notify."""

    def __init__(self, connection, closes_politely=True):
        super().__init__()
        self.connection = connection
        self.closes_politely = closes_politely
        self.calls = []

    def abort(self):
        self.calls.append("abort")
        asyncio.get_running_loop().call_soon(self.connection.connection_lost, None)

    def close(self):
        self.calls.append("close")
        if self.closes_politely:
            asyncio.get_running_loop().call_soon(self.connection.connection_lost, None)


class FakeDialer:
    """A dialer that opens connections at once, or when `gate` is set. `failures` are raised first."""

    def __init__(self):
        self.dialled = []
        self.failures = []
        self.gate = None
        self.ends_at_once = False
        self.closes_politely = True
        self.address = "192.0.2.1"

    async def dial(self, origin, factory):
        if self.gate is not None:
            await self.gate.wait()
        if self.failures:
            raise self.failures.pop(0)
        connection = factory()
        connection.connection_made(RecordingTransport(connection, self.closes_politely))
        if self.ends_at_once:
            connection.connection_lost(None)
        self.dialled.append(connection)
        return connection, Dialled(self.address, origin.port, Timings(), "1.3", False, None)

    def keep_session(self, origin, ssl_object):
        raise AssertionError("there is no TLS here")
