"""A scripted HTTP client for the engine, and the responses that it gives."""

import asyncio
import math
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace

from crawler.core.body import BytesBody
from crawler.core.enums import ErrorType, TaskKind, TruncatedReason
from crawler.core.models import (
    ConnectionInfo,
    Failed,
    Fetched,
    FetchResult,
    Head,
    Origin,
    Task,
    Timings,
)
from crawler.fetch.connection import Connection, Exchange
from crawler.fetch.fetcher import AddressNotReady, AddressRateLimit
from crawler.fetch.http_client import Generation
from crawler.fetch.net.errors import ResolveError
from crawler.fetch.net.resolver import CachingResolver, DnsResult
from crawler.fetch.options import ClientOptions
from crawler.fetch.pool import Pool
from crawler.fetch.pool_statistics import REQUEST_BOUNDS, HostConnections, PoolStats
from tests.support.virtual_time import EPOCH, LoopClock

ADDRESS = "192.0.2.1"
NO_CONNECTIONS = PoolStats(
    opened=0, closed={}, failed=0, requests=0, reused=0, tls_handshakes=0, tls_resumed=0,
    requests_at_close=(0,) * (len(REQUEST_BOUNDS) + 1), requests_closed=0, open=0, idle=0, opening=0, waiting=0,
)  # fmt: skip


def page(*links: str, title: str = "t") -> bytes:
    anchors = "".join(f'<a href="{link}">x</a>' for link in links)
    return f"<html><head><title>{title}</title></head><body>{anchors}</body></html>".encode()


def response(
    status_code: int = 200,
    body: bytes = b"",
    *,
    content_type: str = "text/html",
    address: str = ADDRESS,
    took_s: float = 0.0,
    truncated: TruncatedReason | None = None,
    error_type: ErrorType | None = None,
    **fields: str,
) -> Fetched:
    """A response; `fields` by name, "_" for "-"."""
    head = [("content-type", content_type)] + [(name.replace("_", "-"), value) for name, value in fields.items()]
    payload = BytesBody(body)
    return Fetched(
        head=Head(status_code, "X", "1.1", tuple(head)),
        request_bytes=b"GET / HTTP/1.1\r\n\r\n",
        raw_head=b"h" * 20,
        raw_body=payload,
        payload=payload,
        timings=Timings(first_byte_s=took_s),
        connection=ConnectionInfo(1, 1, address),
        started_at=EPOCH,
        truncated=truncated,
        error_type=error_type,
    )


def failed(error_type: ErrorType, *, retryable: bool = True) -> Failed:
    return Failed(error_type, error_type.value, retryable)


class ScriptedNames:
    """A Lookup on the loop's own time. `answer` gives the result of a name and the seconds until it comes; infinity:
    it never comes. `asked` are the names, in order, with the time.
    """

    def __init__(self, answer: Callable[[str], tuple[DnsResult, float]]) -> None:
        self._answer = answer
        self.asked: list[tuple[str, float]] = []

    def start(self, host: str, deliver: Callable[[DnsResult], None]) -> None:
        loop = asyncio.get_running_loop()
        self.asked.append((host, loop.time()))
        result, after_s = self._answer(host)
        if after_s < math.inf:
            loop.call_later(after_s, deliver, result)

    async def close(self) -> None:
        return


@dataclass(frozen=True)
class SentRequest:
    """A request as the server saw it: times are monotonic, `called` is when `fetch` was called."""

    url: str
    origin: Origin
    task: Task
    address: str
    called: float
    begin: float
    end: float
    result: FetchResult


@dataclass
class Web:
    """A scripted fetcher. `pages` maps a URL to its result, or to several (each once, then the last for ever);
    `other` gives the result of any other URL. `addresses` maps a host to its address. A request takes `dial_s` before
    it enters the rate limit of its address, and `takes_s` after it. `resolver`: how names are looked up; None: they are
    known. `waited_s` is the time that each request waited for it. `pool` lends connections; None: there are none. Hosts
    in `refused` refuse connections.
    """

    clock: LoopClock
    address_limiter: AddressRateLimit | None = None
    pages: dict[str, FetchResult | Sequence[FetchResult]] = field(default_factory=dict)
    other: Callable[[Origin, Task], FetchResult] = lambda origin, task: response(404)
    addresses: dict[str, str] = field(default_factory=dict)
    dial_s: Callable[[Origin], float] = lambda origin: 0.0
    takes_s: Callable[[Origin, Task], float] = lambda origin, task: 0.1
    requests: list[SentRequest] = field(default_factory=list)
    forgotten: list[str] = field(default_factory=list)  # hosts whose names are to be looked up again
    shut: int = 0
    in_flight: int = 0
    resolver: CachingResolver | None = None
    pool: Pool | None = None
    refused: set[str] = field(default_factory=set)
    knows_addresses: bool = True  # whether the address of a host is known before there is a connection
    is_wanted: Callable[[Origin], bool] = lambda origin: False  # for `pool`
    waited_s: list[tuple[str, float]] = field(default_factory=list)
    before: Callable[[Origin, Task], None] = lambda origin, task: None
    _times: Counter[str] = field(default_factory=Counter)

    async def fetch(self, origin: Origin, task: Task) -> FetchResult:
        self.before(origin, task)
        called = self.clock.mono()
        address = self.addresses.get(origin.host, ADDRESS)
        if self.resolver is not None:
            try:
                await self.resolver.resolve(origin.host)
            except ResolveError as error:
                result = failed(error.error_type)
                self.requests.append(SentRequest(task.url, origin, task, "", called, called, self.clock.mono(), result))
                return result
            finally:
                self.waited_s.append((origin.host, self.clock.mono() - called))
        dial_s = self.dial_s(origin)
        if dial_s:
            await asyncio.sleep(dial_s)
        if origin.host in self.refused:
            result, mono = failed(ErrorType.CONNECT_REFUSED), self.clock.mono()
            self.requests.append(SentRequest(task.url, origin, task, address, called, mono, mono, result))
            return result
        async with self._connection(origin) as connection:
            return await self._exchange(origin, task, address, called, connection)

    async def _exchange(
        self, origin: Origin, task: Task, address: str, called: float, connection: Connection | None
    ) -> FetchResult:
        if self.address_limiter is not None and (until := self.address_limiter.enter(address)) is not None:
            self.shut += 1
            raise AddressNotReady(address, until)
        begin = self.clock.mono()
        self.in_flight += 1
        if connection is not None:
            connection.requests += 1
        try:
            takes_s = self.takes_s(origin, task)
            if takes_s:
                await asyncio.sleep(takes_s)
            result = self._respond(origin, task)
            if isinstance(result, Fetched):
                result = replace(result, connection=replace(result.connection, peer_address=address))
        finally:
            self.in_flight -= 1
            if self.address_limiter is not None:
                self.address_limiter.leave(address)
        self.requests.append(SentRequest(task.url, origin, task, address, called, begin, self.clock.mono(), result))
        return result

    @asynccontextmanager
    async def _connection(self, origin: Origin) -> AsyncIterator[Connection | None]:
        if self.pool is None:
            yield None
            return
        connection = await self.pool.acquire(origin)
        try:
            yield connection
        finally:
            connection.idle_since_mono = self.clock.mono()
            self.pool.release(connection)

    def _respond(self, origin: Origin, task: Task) -> FetchResult:
        scripted = self.pages.get(task.url)
        if scripted is None:
            return self.other(origin, task)
        if isinstance(scripted, Fetched | Failed):
            return scripted
        self._times[task.url] += 1
        return scripted[min(self._times[task.url], len(scripted)) - 1]

    def needs_lookup(self, origin: Origin) -> bool:
        return self.resolver is not None and not self.resolver.is_known(origin.host)

    def is_connected(self, origin: Origin) -> bool:
        return self.pool is not None and self.pool.has_idle(origin)

    def first_address(self, origin: Origin) -> str | None:
        return self.addresses.get(origin.host, ADDRESS) if self.knows_addresses else None

    async def look_up(self, origin: Origin) -> bool:
        assert self.resolver is not None
        return await self.resolver.look_up(origin.host)

    # -- what else the engine calls of its client

    def prepare(self, options: ClientOptions) -> None:
        """Nothing to do: the scripted web has no options."""

    def reconfigure(self, generation: Generation) -> None:
        raise AssertionError("nothing was prepared")

    async def run(self) -> None:
        return

    async def close(self) -> None:
        if self.pool is not None:
            await self.pool.close()

    def cut(self, covers: Callable[[Origin], bool]) -> int:
        return 0

    def forget_failure(self, host: str) -> None:
        self.forgotten.append(host)

    def stats(self) -> PoolStats:
        return NO_CONNECTIONS

    def exchanges(self) -> dict[Origin, list[Exchange]]:
        return {}

    def most_opened(self, limit: int) -> list[tuple[Origin, HostConnections]]:
        return []

    def held(self) -> Sequence[tuple[str, str, int, int]]:
        return []

    @property
    def urls(self) -> list[str]:
        """The URLs requested, in the order of their responses."""
        return [each.url for each in self.requests]

    @property
    def page_urls(self) -> list[str]:
        return [each.url for each in self.requests if each.task.kind is TaskKind.PAGE]
