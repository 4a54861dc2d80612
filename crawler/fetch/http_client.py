"""The HTTP client: a resolver, dialer, pool and fetcher made from options, which may be replaced at any time.

A crawl and `crawler fetch` use the same client, so `crawler fetch` shows what a crawl does. After a change of options a
new generation of these parts serves new requests. A request in flight ends under the options that it began with. Counts
are sums over all generations.

Invariants: no address is dialled that the options do not allow. A generation is closed when it has no lent connections,
and not before.
"""

import asyncio
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, Final

from crawler.core.clock import Clock
from crawler.core.models import FetchResult, Origin, Task
from crawler.fetch.connection import Exchange
from crawler.fetch.credentials import CookieJar, OriginCredentials
from crawler.fetch.fetcher import AddressRateLimit, Fetcher
from crawler.fetch.limits import Bandwidth, ByteBudget, descriptor_limit, raise_descriptor_limit, share_of_limit
from crawler.fetch.net.address import AddressPolicy
from crawler.fetch.net.dial import NetworkDialer, Proxy
from crawler.fetch.net.resolver import AresLookup, CachingResolver
from crawler.fetch.net.tls import TlsProfile
from crawler.fetch.options import ClientOptions
from crawler.fetch.pool import Pool
from crawler.fetch.pool_statistics import HostConnections, OnEvent, PoolStats

_CHECK_S: Final = 0.25  # between two looks at a replaced generation


@dataclass(frozen=True, slots=True)
class Generation:
    """The parts that were made from one set of options."""

    resolver: CachingResolver
    dialer: NetworkDialer
    pool: Pool
    fetcher: Fetcher
    options: ClientOptions

    async def close(self) -> None:
        """Close every connection, then the resolver."""
        await self.fetcher.close()
        await self.resolver.close()


class HttpClient:
    """Belongs to the event loop that runs when it is made. `run` closes replaced generations.

    `memory` bounds the bytes of bodies in memory. `permits` is called before each request, `is_wanted` by
    the pool. `dialer_class` lets `crawler fetch` watch the dialing. Raises LocalProtocolError for fields that cannot be
    sent, and what TlsProfile raises; so does `prepare`.
    """

    def __init__(
        self,
        options: ClientOptions,
        *,
        clock: Clock,
        address_limiter: AddressRateLimit,
        memory: int,
        spool_directory: str | None = None,
        on_event: OnEvent | None = None,
        permits: Callable[[Origin], bool] = lambda origin: True,
        is_wanted: Callable[[Origin], bool] = lambda origin: False,
        bandwidth: Bandwidth | None = None,
        dialer_class: Callable[..., NetworkDialer] = NetworkDialer,
    ) -> None:
        self._clock = clock
        self._address_limiter = address_limiter
        self._spool_directory = spool_directory
        self._on_event = on_event
        self._permits = permits
        self._is_wanted = is_wanted
        self._dialer_class = dialer_class
        self._budget = ByteBudget(memory)
        self._bandwidth = bandwidth or Bandwidth.of(options.fetch)
        self._cookies: CookieJar | None = None
        self._current = self._generation(options, first_id=1)
        self._finishing: list[Generation] = []
        self._closed_counts: dict[str, Any] | None = None  # of closed generations
        self._replaced = asyncio.Event()

    def _generation(self, options: ClientOptions, *, first_id: int) -> Generation:
        network = options.network
        fetch = options.fetch
        raise_descriptor_limit(fetch.connections + fetch.first_contacts)
        connections, first_contacts = share_of_limit(descriptor_limit(), fetch.connections, fetch.first_contacts)
        fetch = replace(fetch, connections=connections, first_contacts=first_contacts)
        lookup = AresLookup(network.nameservers, family=network.address_family, timeout_s=network.dns_timeout_s)
        resolver = CachingResolver(lookup, network, self._clock)
        dialer = self._dialer_class(
            resolver=resolver,
            policy=AddressPolicy(network.allow_private),
            tls=TlsProfile(options.tls, network),
            options=fetch,
            network=network,
            clock=self._clock,
        )
        pool = Pool(
            dialer=dialer,
            options=fetch,
            clock=self._clock,
            connections_per_host=options.connections_per_host,
            connections_per_address=options.connections_per_address,
            budget=self._budget,
            bandwidth=self._bandwidth,
            on_event=self._on_event,
            first_id=first_id,
            first_contacts=first_contacts,
            is_wanted=self._is_wanted,
        )
        if self._cookies is None and fetch.cookies == "session":
            self._cookies = CookieJar()
        fetcher = Fetcher(
            pool=pool,
            options=fetch,
            identity=options.identity,
            address_limiter=self._address_limiter,
            clock=self._clock,
            budget=self._budget,
            spool_directory=self._spool_directory,
            permits=self._permits,
            credentials=OriginCredentials.of(
                options.secrets,
                cookies=self._cookies,
                proxy=None if network.proxy is None else Proxy(network.proxy),
                clock=self._clock,
            ),
        )
        return Generation(resolver, dialer, pool, fetcher, options)

    # -- requests

    def fetch(self, origin: Origin, task: Task) -> Coroutine[None, None, FetchResult]:
        """Get one URL of `origin`, as `Fetcher.fetch`."""
        return self._current.fetcher.fetch(origin, task)

    def needs_lookup(self, origin: Origin) -> bool:
        """Whether a request to the origin would wait for a name server. Through a proxy none does: it has the names."""
        current = self._current
        if current.pool.has_idle(origin) or current.options.network.proxy is not None:
            return False
        return not current.resolver.is_known(origin.host)

    def is_connected(self, origin: Origin) -> bool:
        """Whether an idle connection to the origin is open, so that a request needs no new one."""
        return self._current.pool.has_idle(origin)

    def first_address(self, origin: Origin) -> str | None:
        """The IP address to which the next connection to the origin would be tried first; None if it is not known, and
        through a proxy.
        """
        current = self._current
        addresses = () if current.options.network.proxy is not None else current.resolver.known(origin.host)
        return current.dialer.first_of(origin, addresses) if addresses else None

    async def look_up(self, origin: Origin) -> bool:
        """Look the name of the origin up, for the next request. Returns whether it has an address."""
        return await self._current.resolver.look_up(origin.host)

    def request_for(self, origin: Origin, task: Task) -> bytes:
        """The bytes of the request that `fetch` would send."""
        return self._current.fetcher.request_for(origin, task)

    # -- change of options

    def prepare(self, options: ClientOptions) -> Generation | None:
        """Make a generation from new options, for `reconfigure`. None if they are the current options."""
        if options == self._current.options:
            return None
        return self._generation(options, first_id=self._current.pool.next_id)

    def reconfigure(self, generation: Generation) -> None:
        """Apply new options. The former generation keeps its lent connections until they are given back."""
        before, self._current = self._current, generation
        before.pool.close_idle()
        self._finishing.append(before)
        self._bandwidth.reconfigure(generation.options.fetch)
        self._replaced.set()

    async def run(self) -> None:
        """Close replaced generations as they finish, until cancelled."""
        while True:
            await self._replaced.wait()
            for generation in list(self._finishing):
                generation.pool.close_idle()
                stats = generation.pool.stats()
                if not (stats.open or stats.opening or stats.waiting):
                    await generation.close()
                    self._finishing.remove(generation)  # without a wait before it is counted elsewhere
                    self._closed_counts = _sum(self._closed_counts, generation.pool.stats())
            if not self._finishing:
                self._replaced.clear()
            else:
                await asyncio.sleep(_CHECK_S)

    async def close(self) -> None:
        """Close every connection."""
        for generation in (*self._finishing, self._current):
            await generation.close()

    def cut(self, covers: Callable[[Origin], bool]) -> int:
        """Close the connections to these origins at once. Returns how many."""
        return sum(generation.pool.cut(covers) for generation in (*self._finishing, self._current))

    def forget_failure(self, host: str) -> None:
        """Have the name of a host looked up again that could not be resolved."""
        self._current.resolver.forget_failure(host)

    # -- status

    def stats(self) -> PoolStats:
        """The statistics of all generations since the start."""
        if self._closed_counts is None and not self._finishing:
            return self._current.pool.stats()
        total = self._closed_counts
        for generation in (*self._finishing, self._current):
            total = _sum(total, generation.pool.stats())
        assert total is not None
        return PoolStats(**total)

    def exchanges(self) -> dict[Origin, list[Exchange]]:
        """The requests under way, as `Pool.exchanges`."""
        found = self._current.pool.exchanges()
        for generation in self._finishing:
            for origin, exchanges in generation.pool.exchanges().items():
                found[origin] = exchanges + found.get(origin, [])
        return found

    def most_opened(self, limit: int) -> list[tuple[Origin, HostConnections]]:
        """The origins that took the most connections of the current generation, most first."""
        return self._current.pool.most_opened(limit)

    def held(self) -> list[tuple[str, str, int, int]]:
        """The sizes of what is kept in memory: name, unit (bytes or entries), amount and limit."""
        jar, resolver, fetch = self._cookies, self._current.resolver, self._current.options.fetch
        return [
            *([] if jar is None else [("cookies", "bytes", jar.held_bytes, jar.limit_bytes)]),
            ("bodies", "bytes", self._budget.held, self._budget.limit),
            ("connections", "entries", self.stats().open, fetch.connections + fetch.first_contacts),
            ("DNS answers", "entries", resolver.cached, resolver.cache_limit),
        ]


def _sum(total: dict[str, Any] | None, stats: PoolStats) -> dict[str, Any]:
    found = {one.name: getattr(stats, one.name) for one in fields(PoolStats)}
    if total is None:
        return found
    return {name: _add(total[name], value) for name, value in found.items()}


def _add(one: Any, other: Any) -> Any:
    if isinstance(one, Mapping):
        return {key: one.get(key, 0) + other.get(key, 0) for key in {**one, **other}}
    if isinstance(one, tuple):
        return tuple(a + b for a, b in zip(one, other, strict=True))
    return one + other
