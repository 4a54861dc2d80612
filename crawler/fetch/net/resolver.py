"""DNS through c-ares: A and AAAA asked for at once, and neither waits for ever for the other.

It caches nothing (`resolve`). c-ares reads the hosts file and answers `localhost` itself, as RFC 6761 §6.3 wants, and
sorts by RFC 6724; of several nameservers it asks the next when one fails or does not answer, and remembers which did.
Invariant: `deliver` is called at most once for each `start`.
"""

import asyncio
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

import aiodns
import pycares
from aiodns.error import ARES_ENODATA, ARES_ENONAME, ARES_ENOTFOUND, ARES_ETIMEOUT

from crawler.core.clock import Clock
from crawler.core.enums import ErrorType
from crawler.core.url import is_ipv4
from crawler.fetch.net.errors import ResolveError
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
class _CachedLookup:
    result: Found | ResolveError
    expires_mono: float


class CachingResolver:
    """Resolves through a table and a cache; misses go to `lookup`. Belongs to one event loop."""

    def __init__(self, lookup: Lookup, options: NetworkOptions, clock: Clock) -> None:
        self._lookup = lookup
        self._options = options
        self._clock = clock
        self._table = {name.lower().rstrip("."): addresses for name, addresses in options.resolve}
        self._cache: dict[str, _CachedLookup] = {}
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
        cache[name] = _CachedLookup(result, self._clock.mono() + ttl_s)
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


# Some nameservers answer for A and drop AAAA, or the other way round, and a lookup of both waits seconds for the silent
# one: after this long each is asked for on its own (RFC 8305 §3, "Resolution Delay").
SPLIT_AFTER_S: Final = 0.25
# c-ares waits for a nameserver five times as long as it usually takes, at least 250 ms, and twice that for each further
# try: a server that answers from its cache in a millisecond would have 0.7 s for a name it has to find out, with two
# tries. With five, network.dns_timeout decides, and the next server still has its turn in a third of a second.
_TRIES: Final = 5
_FIRST_TRY: Final = 1 / 15  # of network.dns_timeout, for a server of which nothing is known yet
_MAKE_DO_AT: Final = 0.9  # of network.dns_timeout: AAAA alone is better than nothing
# A name in a URL is a whole name: with the search list of resolv.conf, one that does not exist would be looked for
# below this machine's own domain, and somebody else's pages taken for its own. EDNS is c-ares' default.
_FLAGS: Final = pycares.ARES_FLAG_EDNS | pycares.ARES_FLAG_NOSEARCH | pycares.ARES_FLAG_NOALIASES

_V4: Final = socket.AF_INET
_V6: Final = socket.AF_INET6
_FAMILIES: Final = {"any": socket.AF_UNSPEC, "ipv4": _V4, "ipv6": _V6}

Result = Found | ResolveError


class AresLookup:
    """`Lookup` by aiodns.

    `nameservers` as "9.9.9.9", "9.9.9.9:5353" or "[2620:fe::fe]:53"; empty: the system's. Build it inside the running
    event loop.
    """

    def __init__(self, nameservers: Sequence[str] = (), *, family: str = "any", timeout_s: float = 5.0) -> None:
        self._family = _FAMILIES[family]
        self._timeout_s = timeout_s
        # a failure is no reason to ask the same server again at once, where there is no other
        flags = _FLAGS | (pycares.ARES_FLAG_NOCHECKRESP if len(nameservers) == 1 else 0)
        self._dns = aiodns.DNSResolver(
            nameservers=list(nameservers) or None, timeout=timeout_s * _FIRST_TRY, tries=_TRIES, flags=flags
        )
        self._open: set[_Question] = set()

    def start(self, host: str, deliver: Callable[[Result], None]) -> None:
        def ended(result: Result) -> None:
            self._open.discard(question)
            deliver(result)

        question = _Question(host, self._dns, self._family, ended)
        self._open.add(question)
        question.ask(self._family)
        if self._family == socket.AF_UNSPEC:
            question.split_later(self._timeout_s)

    async def close(self) -> None:
        """Drop every question; their answers are delivered to nobody."""
        for question in self._open:
            question.drop()
        self._open.clear()
        await self._dns.close()


class _Question:
    """One name, and the answers so far: to the question for everything, and after a while to those for each family."""

    def __init__(self, host: str, dns: aiodns.DNSResolver, main: int, deliver: Callable[[Result], None]) -> None:
        self._host = host
        self._dns = dns
        self._main = main
        self._deliver = deliver
        self._answers: dict[int, Result] = {}
        self._timers: list[asyncio.TimerHandle] = []
        self._is_over = False

    def ask(self, family: int) -> None:
        future = self._dns.getaddrinfo(self._host, family=socket.AddressFamily(family), type=socket.SOCK_STREAM)
        future.add_done_callback(lambda done: self._came(family, done))

    def split_later(self, timeout_s: float) -> None:
        loop = asyncio.get_running_loop()
        self._timers = [
            loop.call_later(SPLIT_AFTER_S, self._split),
            loop.call_later(timeout_s * _MAKE_DO_AT, self._make_do),
        ]

    def _split(self) -> None:
        for family in (_V4, _V6):
            self.ask(family)

    def _came(self, family: int, done: asyncio.Future[Any]) -> None:
        if done.cancelled():
            return
        error = done.exception()
        answer = _found(self._host, done.result()) if error is None else _failure(self._host, error)
        self._answers[family] = answer
        if self._is_over:
            return
        singly = self._singly()
        if family == self._main:
            self._end(answer if isinstance(answer, Found) or singly is None else singly)
        elif singly is not None and _V4 in self._answers:
            self._end(singly)
        # AAAA alone is not enough yet: many machines that are told of IPv6 addresses have no way there

    def _make_do(self) -> None:
        singly = self._singly()
        if singly is not None:
            self._end(singly)
        # else whoever asked has a timeout of its own

    def _singly(self) -> Found | None:
        """What the questions for one family have found."""
        found = [answer for family in (_V4, _V6) if isinstance(answer := self._answers.get(family), Found)]
        if not found or self._main != socket.AF_UNSPEC:
            return None
        addresses = tuple(address for answer in found for address in answer.addresses)
        return Found(addresses, min(answer.ttl_s for answer in found))

    def _end(self, result: Result) -> None:
        self.drop()
        self._deliver(result)

    def drop(self) -> None:
        """Deliver nothing from now on."""
        self._is_over = True
        for timer in self._timers:
            timer.cancel()


def _found(host: str, answer: Any) -> Result:
    """Read a pycares AddrInfoResult. The TTL is the smallest of the chain; entries of the hosts file have 0."""
    addresses = tuple(dict.fromkeys(node.addr[0].decode("ascii") for node in answer.nodes))
    if not addresses:
        return ResolveError(ErrorType.DNS_NOT_FOUND, f"{host} has no address records")
    ttl_s = min(record.ttl for record in (*answer.nodes, *answer.cnames))
    return Found(addresses, float(ttl_s))


def _failure(host: str, error: BaseException) -> ResolveError:
    if not isinstance(error, aiodns.error.DNSError):
        raise error
    code = error.args[0]
    if code in (ARES_ENOTFOUND, ARES_ENODATA, ARES_ENONAME):
        return ResolveError(ErrorType.DNS_NOT_FOUND, f"{host}: {error.args[1]}")
    if code == ARES_ETIMEOUT:
        return ResolveError(ErrorType.DNS_TIMEOUT, f"{host}: {error.args[1]}")
    return ResolveError(ErrorType.DNS_FAILURE, f"{host}: {error.args[1]}")
