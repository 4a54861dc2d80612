"""Names become addresses: the configured table, literals, then a lookup, cached for as long as the TTL says.

It asks no server (`lookup`), judges no address (`address`) and dials none (`dial`). Invariants: at most one query for a
name is under way, however many wait for it, and a waiter that is cancelled takes nothing from the others; the cache is
bounded.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from crawler.core.clock import Clock
from crawler.core.enums import ErrorType
from crawler.core.url import is_ipv4
from crawler.fetch.errors import ResolveError
from crawler.fetch.options import NetworkOptions


class Resolver(Protocol):
    """What a dialer needs of a resolver."""

    async def resolve(self, host: str) -> tuple[str, ...]:
        """The addresses of a host as URLs spell it, never none, best first. Raises ResolveError."""


@dataclass(frozen=True, slots=True)
class Found:
    """Addresses and for how many seconds they may be believed."""

    addresses: tuple[str, ...]
    ttl_s: float


class Lookup(Protocol):
    """One DNS query. `deliver` is called at most once, on the event loop, with what came of it."""

    def start(self, host: str, deliver: Callable[[Found | ResolveError], None]) -> None: ...

    async def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class _Entry:
    result: Found | ResolveError
    expires_mono: float


class CachingResolver:
    """Resolves through a table and a cache; misses go to `lookup`. Belongs to one event loop."""

    def __init__(self, lookup: Lookup, options: NetworkOptions, clock: Clock) -> None:
        self._lookup = lookup
        self._options = options
        self._clock = clock
        self._table = {name.lower().rstrip("."): addresses for name, addresses in options.resolve}
        self._cache: dict[str, _Entry] = {}
        self._flights: dict[str, asyncio.Future[Found | ResolveError]] = {}

    @property
    def cached(self) -> int:
        """Names whose answer is remembered."""
        return len(self._cache)

    @property
    def cache_limit(self) -> int:
        return self._options.dns_cache_size

    async def resolve(self, host: str) -> tuple[str, ...]:
        """The addresses of a host, best first. Raises ResolveError: not found, failed or timed out."""
        configured = self.configured(host)
        if configured is not None:
            return self._of_family(host, configured)
        name = host.rstrip(".")
        entry = self._cache.get(name)
        if entry is not None and entry.expires_mono > self._clock.mono():
            result = entry.result
        else:
            flight = self._flights.get(name)
            if flight is None:
                flight = self._start(name)
            result = await asyncio.shield(flight)
        if isinstance(result, ResolveError):
            raise ResolveError(
                result.error_type, result.detail
            )  # a fresh one: tracebacks must not pile up on one object
        return self._of_family(host, result.addresses)

    def configured(self, host: str) -> tuple[str, ...] | None:
        """What needs no DNS: a literal, or network.resolve (exact name first, then the longest suffix); else None."""
        if host.startswith("["):
            return (host[1:-1],)
        name = host.rstrip(".")
        table = self._table
        if table:
            if name in table:
                return table[name]
            rest = name
            while "." in rest:
                rest = rest.partition(".")[2]
                addresses = table.get(f"*.{rest}")
                if addresses is not None:
                    return addresses
        return (name,) if is_ipv4(name) else None

    async def close(self) -> None:
        """Drop the cache and end what is under way; those who wait get dns_failure."""
        for name in list(self._flights):
            self._land(name, ResolveError(ErrorType.DNS_FAILURE, "the resolver was closed"))
        self._cache.clear()
        await self._lookup.close()

    def _start(self, name: str) -> asyncio.Future[Found | ResolveError]:
        loop = asyncio.get_running_loop()
        flight: asyncio.Future[Found | ResolveError] = loop.create_future()
        self._flights[name] = flight
        timeout_s = self._options.dns_timeout_s
        late = ResolveError(ErrorType.DNS_TIMEOUT, f"no answer for {name} within {timeout_s:g} s")
        timer = loop.call_later(timeout_s, self._land_if, name, flight, late)
        flight.add_done_callback(lambda _: timer.cancel())
        self._lookup.start(name, lambda result: self._land_if(name, flight, result))
        return flight

    def _land_if(self, name: str, flight: asyncio.Future[Found | ResolveError], result: Found | ResolveError) -> None:
        if self._flights.get(name) is flight:  # else it has landed before, by the timer or the close
            self._land(name, result)

    def _land(self, name: str, result: Found | ResolveError) -> None:
        options = self._options
        if isinstance(result, Found):
            ttl_s = min(max(result.ttl_s, options.dns_min_ttl_s), options.dns_max_ttl_s)
        elif result.error_type is ErrorType.DNS_NOT_FOUND:
            ttl_s = options.dns_negative_ttl_s
        else:
            ttl_s = options.dns_failure_ttl_s
        cache = self._cache
        cache.pop(name, None)  # a refreshed name goes to the young end
        while len(cache) >= options.dns_cache_size:
            del cache[next(iter(cache))]
        cache[name] = _Entry(result, self._clock.mono() + ttl_s)
        flight = self._flights.pop(name)
        if not flight.done():
            flight.set_result(result)

    def _of_family(self, host: str, addresses: tuple[str, ...]) -> tuple[str, ...]:
        family = self._options.address_family
        if family == "any":
            kept = addresses
        else:
            kept = tuple(a for a in addresses if (":" in a) == (family == "ipv6"))
        if not kept:
            raise ResolveError(ErrorType.DNS_NOT_FOUND, f"{host} has no {family} address")
        return kept
