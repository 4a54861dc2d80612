"""Resolution of host names: by a table, by a cache, and by DNS through c-ares.

c-ares reads the hosts file and answers queries for `localhost` itself, as RFC 6761 §6.3 requires. It sorts addresses by
RFC 6724. If a name server fails or does not respond, it queries the next one, and remembers which one responded.

Invariant: a lookup calls `deliver` at most once.
"""

import asyncio
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, Protocol

import aiodns
import pycares
from aiodns.error import ARES_ENODATA, ARES_ENONAME, ARES_ENOTFOUND, ARES_ETIMEOUT

from crawler.core.clock import Clock
from crawler.core.enums import ErrorType
from crawler.core.url import is_ipv4
from crawler.fetch.net.errors import ResolveError
from crawler.fetch.options import NetworkOptions

# Some name servers answer queries for A and drop those for AAAA, or the other way round, and a query for both waits
# seconds for the missing one. After this time each type is queried by itself (RFC 8305 §3, "Resolution Delay").
SPLIT_AFTER_S: Final = 0.25
# c-ares waits for a name server five times as long as it usually takes, at least 250 ms, and twice as long at each
# further try. With two tries, a server that responds from its cache in a millisecond would have only 0.7 s for a name
# that is not in its cache. With five tries network.dns_timeout decides, and the next server is still queried within
# 350 ms.
_TRIES: Final = 5
_FIRST_TRY: Final = 1 / 15  # share of network.dns_timeout, for a server that has not responded yet
_ACCEPT_PARTIAL_AT: Final = 0.9  # share of network.dns_timeout: then AAAA alone is accepted
# A host name in a URL is complete. With the search list of resolv.conf, a name that does not exist would be looked up
# below this machine's own domain, and other pages would be taken for its own. EDNS is the default of c-ares.
_FLAGS: Final = pycares.ARES_FLAG_EDNS | pycares.ARES_FLAG_NOSEARCH | pycares.ARES_FLAG_NOALIASES

# The failure of a lookup that was made ahead of a request. Its own TTL may be over before the request can be made.
KEPT_S: Final = 60.0

_V4: Final = socket.AF_INET
_V6: Final = socket.AF_INET6
_FAMILIES: Final = {"any": socket.AF_UNSPEC, "ipv4": _V4, "ipv6": _V6}


class Resolver(Protocol):
    """Resolves host names, for the dialer."""

    async def resolve(self, host: str) -> tuple[str, ...]:
        """The addresses of a host (spelled as in URLs), at least one, the best first. Raises ResolveError."""


@dataclass(frozen=True, slots=True)
class DnsAnswer:
    """The addresses of a name, and the seconds for which they are valid."""

    addresses: tuple[str, ...]
    ttl_s: float


DnsResult = DnsAnswer | ResolveError


class Lookup(Protocol):
    """Looks names up without a cache. `deliver` is called at most once, on the event loop, with the result."""

    def start(self, host: str, deliver: Callable[[DnsResult], None]) -> None: ...

    async def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class _CachedLookup:
    result: DnsResult
    expires_mono: float
    kept_mono: float = 0.0  # a failure that was looked up ahead is kept for the next request until then

    def is_valid(self, mono: float) -> bool:
        return max(self.expires_mono, self.kept_mono) > mono


class CachingResolver:
    """Resolves names from network.resolve and a cache; others go to `lookup`. Belongs to one event loop."""

    def __init__(self, lookup: Lookup, options: NetworkOptions, clock: Clock) -> None:
        self._lookup = lookup
        self._options = options
        self._clock = clock
        self._table = {name.lower().rstrip("."): addresses for name, addresses in options.resolve}
        self._cache: dict[str, _CachedLookup] = {}
        self._lookups: dict[str, asyncio.Future[DnsResult]] = {}

    @property
    def cached(self) -> int:
        """The number of names in the cache."""
        return len(self._cache)

    @property
    def cache_limit(self) -> int:
        return self._options.dns_cache_size

    def is_known(self, host: str) -> bool:
        """Whether `resolve` would return or raise at once."""
        entry = self._cache.get(host.rstrip("."))
        return (entry is not None and entry.is_valid(self._clock.mono())) or self.configured(host) is not None

    def known(self, host: str) -> tuple[str, ...]:
        """The addresses that `resolve` would return at once; empty if it would wait or raise."""
        addresses = self.configured(host)
        if addresses is None:
            entry = self._cache.get(host.rstrip("."))
            if entry is None or not entry.is_valid(self._clock.mono()) or isinstance(entry.result, ResolveError):
                return ()
            addresses = entry.result.addresses
        return self._kept(addresses)

    async def look_up(self, host: str) -> bool:
        """Look a host up ahead of a request: `resolve` has the result at once. Returns whether there is an address."""
        try:
            await self.resolve(host)
        except ResolveError:
            name = host.rstrip(".")
            entry = self._cache.get(name)
            if entry is not None and isinstance(entry.result, ResolveError):
                self._cache[name] = replace(entry, kept_mono=self._clock.mono() + KEPT_S)
            return False
        return True

    async def resolve(self, host: str) -> tuple[str, ...]:
        """The addresses of a host, best first. Raises ResolveError: not found, failed or timed out."""
        configured = self.configured(host)
        if configured is not None:
            return self._in_family(host, configured)
        name = host.rstrip(".")
        entry = self._cache.get(name)
        if entry is not None and entry.is_valid(self._clock.mono()):
            result = entry.result
            if entry.kept_mono:
                self._cache[name] = replace(entry, kept_mono=0.0)
        else:
            future = self._lookups.get(name)
            if future is None:
                future = self._start(name)
            result = await asyncio.shield(future)
        if isinstance(result, ResolveError):
            raise ResolveError(
                result.error_type, result.detail
            )  # a new error, because a cached one would collect tracebacks
        return self._in_family(host, result.addresses)

    def forget_failure(self, host: str) -> None:
        """Have a name looked up again that could not be resolved."""
        name = host.rstrip(".")
        entry = self._cache.get(name)
        if entry is not None and isinstance(entry.result, ResolveError):
            del self._cache[name]

    def configured(self, host: str) -> tuple[str, ...] | None:
        """The addresses of a host that is an address, or a name in network.resolve (the exact name first, then the
        longest suffix). None: DNS is needed.
        """
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
        """Drop the cache and end the lookups under way with dns_failure."""
        for name in list(self._lookups):
            self._finish(name, ResolveError(ErrorType.DNS_FAILURE, "the resolver was closed"))
        self._cache.clear()
        await self._lookup.close()

    def _start(self, name: str) -> asyncio.Future[DnsResult]:
        loop = asyncio.get_running_loop()
        future: asyncio.Future[DnsResult] = loop.create_future()
        self._lookups[name] = future
        timeout_s = self._options.dns_timeout_s
        late = ResolveError(ErrorType.DNS_TIMEOUT, f"no answer for {name} within {timeout_s:g} s")
        timer = loop.call_later(timeout_s, self._deliver, name, future, late)
        future.add_done_callback(lambda _: timer.cancel())
        self._lookup.start(name, lambda result: self._deliver(name, future, result))
        return future

    def _deliver(self, name: str, future: asyncio.Future[DnsResult], result: DnsResult) -> None:
        if self._lookups.get(name) is future:  # else it ended before, by the timer or by `close`
            self._finish(name, result)

    def _finish(self, name: str, result: DnsResult) -> None:
        options = self._options
        if isinstance(result, DnsAnswer):
            ttl_s = min(max(result.ttl_s, options.dns_min_ttl_s), options.dns_max_ttl_s)
        elif result.error_type is ErrorType.DNS_NOT_FOUND:
            ttl_s = options.dns_negative_ttl_s
        else:
            ttl_s = options.dns_failure_ttl_s
        cache = self._cache
        cache.pop(name, None)  # the name becomes the youngest
        while len(cache) >= options.dns_cache_size:
            del cache[next(iter(cache))]
        cache[name] = _CachedLookup(result, self._clock.mono() + ttl_s)
        future = self._lookups.pop(name)
        if not future.done():
            future.set_result(result)

    def _in_family(self, host: str, addresses: tuple[str, ...]) -> tuple[str, ...]:
        kept = self._kept(addresses)
        if not kept:
            raise ResolveError(ErrorType.DNS_NOT_FOUND, f"{host} has no {self._options.address_family} address")
        return kept

    def _kept(self, addresses: tuple[str, ...]) -> tuple[str, ...]:
        family = self._options.address_family
        return addresses if family == "any" else tuple(a for a in addresses if (":" in a) == (family == "ipv6"))


class AresLookup:
    """Looks names up with aiodns, for A and AAAA at once. Build it inside the running event loop.

    `nameservers` are "9.9.9.9", "9.9.9.9:5353" or "[2620:fe::fe]:53"; empty: the system's.
    """

    def __init__(self, nameservers: Sequence[str] = (), *, family: str = "any", timeout_s: float = 5.0) -> None:
        self._family = _FAMILIES[family]
        self._timeout_s = timeout_s
        # With only one server, a failure is no reason to query it again at once.
        flags = _FLAGS | (pycares.ARES_FLAG_NOCHECKRESP if len(nameservers) == 1 else 0)
        self._dns = aiodns.DNSResolver(
            nameservers=list(nameservers) or None, timeout=timeout_s * _FIRST_TRY, tries=_TRIES, flags=flags
        )
        self._queries: set[_NameQuery] = set()

    def start(self, host: str, deliver: Callable[[DnsResult], None]) -> None:
        def ended(result: DnsResult) -> None:
            self._queries.discard(query)
            deliver(result)

        query = _NameQuery(host, self._dns, self._family, ended)
        self._queries.add(query)
        query.send(self._family)
        if self._family == socket.AF_UNSPEC:
            query.split_later(self._timeout_s)

    async def close(self) -> None:
        """Stop every query without a result."""
        for query in self._queries:
            query.stop()
        self._queries.clear()
        await self._dns.close()


class _NameQuery:
    """The queries for one name, and their answers by address family. The first query is for all families; after
    SPLIT_AFTER_S there is one for each family.
    """

    def __init__(self, host: str, dns: aiodns.DNSResolver, family: int, deliver: Callable[[DnsResult], None]) -> None:
        self._host = host
        self._dns = dns
        self._family = family
        self._deliver = deliver
        self._answers: dict[int, DnsResult] = {}
        self._timers: list[asyncio.TimerHandle] = []
        self._is_over = False

    def send(self, family: int) -> None:
        future = self._dns.getaddrinfo(self._host, family=socket.AddressFamily(family), type=socket.SOCK_STREAM)
        future.add_done_callback(lambda done: self._received(family, done))

    def split_later(self, timeout_s: float) -> None:
        loop = asyncio.get_running_loop()
        self._timers = [
            loop.call_later(SPLIT_AFTER_S, self._split),
            loop.call_later(timeout_s * _ACCEPT_PARTIAL_AT, self._accept_partial),
        ]

    def _split(self) -> None:
        for family in (_V4, _V6):
            self.send(family)

    def _received(self, family: int, done: asyncio.Future[Any]) -> None:
        if done.cancelled():
            return
        error = done.exception()
        answer = _found(self._host, done.result()) if error is None else _failure(self._host, error)
        self._answers[family] = answer
        if self._is_over:
            return
        combined = self._combined()
        if family == self._family:
            self._end(answer if isinstance(answer, DnsAnswer) or combined is None else combined)
        elif combined is not None and _V4 in self._answers:
            self._end(combined)
        # AAAA alone is not enough yet: many machines have no route to the IPv6 addresses that they resolve

    def _accept_partial(self) -> None:
        combined = self._combined()
        if combined is not None:
            self._end(combined)
        # else the resolver has a timeout of its own

    def _combined(self) -> DnsAnswer | None:
        """The answers of the queries for one family, joined; None if there is none."""
        found = [answer for family in (_V4, _V6) if isinstance(answer := self._answers.get(family), DnsAnswer)]
        if not found or self._family != socket.AF_UNSPEC:
            return None
        addresses = tuple(address for answer in found for address in answer.addresses)
        return DnsAnswer(addresses, min(answer.ttl_s for answer in found))

    def _end(self, result: DnsResult) -> None:
        deliver = self._deliver
        self.stop()
        deliver(result)

    def stop(self) -> None:
        """Deliver nothing from now on. Then nothing refers to the query, as far as it can tell: what only the garbage
        collector frees is a part of the memory of a broad crawl.
        """
        self._is_over = True
        for timer in self._timers:
            timer.cancel()
        self._timers.clear()
        self._deliver = _ignore


def _ignore(_result: DnsResult) -> None:
    """For a query that is over."""


def _found(host: str, answer: Any) -> DnsResult:
    """Convert a pycares AddrInfoResult. The TTL is the smallest of the chain; entries of the hosts file have 0."""
    addresses = tuple(dict.fromkeys(node.addr[0].decode("ascii") for node in answer.nodes))
    if not addresses:
        return ResolveError(ErrorType.DNS_NOT_FOUND, f"{host} has no address records")
    ttl_s = min(record.ttl for record in (*answer.nodes, *answer.cnames))
    return DnsAnswer(addresses, float(ttl_s))


def _failure(host: str, error: BaseException) -> ResolveError:
    if not isinstance(error, aiodns.error.DNSError):
        raise error
    code, detail = error.args[0], f"{host}: {error.args[1]}"
    if code in (ARES_ENOTFOUND, ARES_ENODATA, ARES_ENONAME):
        return ResolveError(ErrorType.DNS_NOT_FOUND, detail)
    return ResolveError(ErrorType.DNS_TIMEOUT if code == ARES_ETIMEOUT else ErrorType.DNS_FAILURE, detail)
