"""The real engine with everything outside it faked, on an event loop whose time is ours: it jumps to the next timer.

`run` drives a coroutine on that loop. Nothing here sleeps for real: hours of politeness take milliseconds. A crawl that
waits for something that cannot happen (a lost wake-up) fails with `Stalled` instead of hanging.
"""

import asyncio
import heapq
import random
import selectors
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable, Collection, Coroutine, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

from crawler.core.body import BytesBody
from crawler.core.enums import ErrorType, SinkFileState, Source, StoppedBy, TaskKind, TruncatedReason, UrlState
from crawler.core.models import (
    ConnectionInfo,
    Discovered,
    Failed,
    Fetched,
    FetchResult,
    Head,
    Origin,
    Record,
    RecordLocation,
    Settlement,
    SinkFile,
    Task,
    Timings,
)
from crawler.core.options import PolitenessOptions, RecrawlOptions, ScopeOptions, TrapOptions
from crawler.core.url import key_of, parse
from crawler.engine.engine import Engine
from crawler.engine.observer import Visited
from crawler.engine.options import EngineConfiguration, EngineOptions
from crawler.engine.pages.response_processor import SkippedLink
from crawler.engine.scheduling.host import Host
from crawler.fetch.connection import Exchange
from crawler.fetch.fetcher import AddressNotReady, AddressRateLimit
from crawler.fetch.http_client import Generation
from crawler.fetch.limits import Bandwidth
from crawler.fetch.options import ClientOptions, IdentityOptions
from crawler.fetch.pool_statistics import REQUEST_BOUNDS, HostConnections, PoolStats
from crawler.frontier.base import Frontier, Recovered
from crawler.obs.events import Event
from crawler.sinks.base import LostFile, SinkRecovered
from tests.support.memory_frontier import MemoryFrontier

T = TypeVar("T")
EPOCH = 1_700_000_000.0
TOKEN = "testbot"
ADDRESS = "192.0.2.1"
NO_CONNECTIONS = PoolStats(
    opened=0, closed={}, failed=0, requests=0, reused=0, tls_handshakes=0, tls_resumed=0,
    requests_at_close=(0,) * (len(REQUEST_BOUNDS) + 1), requests_closed=0, open=0, idle=0, opening=0, waiting=0,
)  # fmt: skip


class Stalled(Exception):
    """The test waits for ever: nothing is due and no thread is at work, or the loop goes round without time passing."""


_SPINS = 20_000
_TURN_S = 1e-9  # time never stands quite still, or a timer that is due this very instant would never be past


class _JumpingSelector(selectors.DefaultSelector):
    """Real for what comes from threads and signals; where the loop would wait for a timer, time jumps."""

    def __init__(self) -> None:
        super().__init__()
        self.time = 0.0
        self.turns = 0
        self.threads = 0
        self._turns_now = 0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        self.turns += 1
        self.time += _TURN_S
        self._turns_now += 1
        if self._turns_now > _SPINS:
            self._turns_now = 0
            raise Stalled(f"the loop went round {_SPINS} times at {self.time}")
        ready = super().select(0)
        if ready or timeout == 0:
            return ready
        if self.threads:  # a thread's result is due at this very instant: wait for it, not for the timer
            ready = super().select(20)
            if not ready:
                raise Stalled("a thread has not answered for 20 s")
            return ready
        if timeout is None:
            raise Stalled("nothing is due, and nothing can happen any more")
        self.time += timeout
        self._turns_now = 0
        return ready


class VirtualLoop(asyncio.SelectorEventLoop):
    """`turns` counts how often the loop went round; `clock_skew` is what the wall clock was set forward by."""

    def __init__(self) -> None:
        self._jumping = _JumpingSelector()
        super().__init__(self._jumping)
        self._clock_resolution = 0.0
        self.clock_skew = 0.0
        self.runs_inline = False  # what is meant for a thread runs here and now: twice as fast, for long walks

    def time(self) -> float:
        return self._jumping.time

    @property
    def turns(self) -> int:
        return self._jumping.turns

    def run_in_executor(  # type: ignore[override]
        self, executor: Executor | None, func: Callable[..., Any], *args: Any
    ) -> "asyncio.Future[Any]":
        if self.runs_inline:
            done = self.create_future()
            try:
                done.set_result(func(*args))
            except Exception as error:
                done.set_exception(error)
            return done
        self._jumping.threads += 1
        future = super().run_in_executor(executor, func, *args)
        future.add_done_callback(self._thread_done)
        return future

    def _thread_done(self, _: "asyncio.Future[Any]") -> None:
        self._jumping.threads -= 1

    async def shutdown_default_executor(self, *timeout: Any) -> None:  # from CPython 3.12 on there is one
        await self.in_thread(super().shutdown_default_executor(*timeout))

    async def in_thread(self, call: Awaitable[T]) -> T:
        """Await something that a thread of its own will answer."""
        self._jumping.threads += 1
        try:
            return await call
        finally:
            self._jumping.threads -= 1


class LoopClock:
    """The crawler's clock on a `VirtualLoop`."""

    def __init__(self, loop: VirtualLoop) -> None:
        self.mono = loop.time
        self._loop = loop

    def now(self) -> float:
        return EPOCH + self._loop.time() + self._loop.clock_skew


def run(main: Coroutine[Any, Any, T]) -> T:
    """Run to the end on a `VirtualLoop`. Raises Stalled."""
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(main)


def virtual_loop() -> VirtualLoop:
    loop = asyncio.get_running_loop()
    assert isinstance(loop, VirtualLoop)
    return loop


async def elapse(seconds: float) -> None:
    """Let so much of the loop's own time pass: on a `VirtualLoop` that takes none, and nothing depends on how fast the
    machine is.
    """
    virtual_loop()
    await asyncio.sleep(seconds)


class InThread:
    """A frontier that answers from a thread of its own, on a `VirtualLoop`."""

    def __init__(self, frontier: Frontier) -> None:
        self._frontier = frontier

    def __getattr__(self, name: str) -> Callable[..., Awaitable[Any]]:
        method = getattr(self._frontier, name)
        return lambda *args, **kwargs: virtual_loop().in_thread(method(*args, **kwargs))


class QuickFrontier(MemoryFrontier):
    """The same promises, with what is queued and waiting at hand: for walks of many thousand URLs."""

    def __init__(self) -> None:
        super().__init__()
        self._queued: defaultdict[int, dict[int, Any]] = defaultdict(dict)
        self._waiting: dict[int, Any] = {}

    def _insert(self, found: Discovered, via: int | None, new_hosts: list[Any], queued: Counter[int]) -> int:
        inserted = super()._insert(found, via, new_hosts, queued)
        if inserted:
            url = self._urls[len(self._urls)]
            self._queued[url.host_id][url.id] = url
        return inserted

    def _set_state(self, url: Any, state: UrlState) -> None:
        super()._set_state(url, state)
        if state is UrlState.QUEUED:
            self._queued[url.host_id][url.id] = url
        else:
            self._queued[url.host_id].pop(url.id, None)
        self._waiting.pop(url.id, None)

    def _put_visit(self, settlement: Settlement, place: RecordLocation | None, line: RecordLocation | None) -> None:
        super()._put_visit(settlement, place, line)
        url = self._urls.get(settlement.task.id)
        if url is not None and url.next_at is not None:
            self._waiting[url.id] = url

    async def take(self, host_id: int, limit: int, *, leased: Collection[int]) -> list[Task]:
        free = [url for url in self._queued[host_id].values() if url.id not in leased]
        first = heapq.nsmallest(limit, free, key=lambda url: (url.found.priority, url.found.depth, url.id))
        return [self._task_of(url) for url in first]

    async def promote(self, *, now: float, limit: int = 1_000) -> dict[int, int]:
        everything, self._urls = self._urls, self._waiting
        try:
            return await super().promote(now=now, limit=limit)
        finally:
            self._urls = everything

    async def next_due(self) -> float | None:
        return min((url.next_at for url in self._waiting.values() if url.state is UrlState.WAITING), default=None)


# -- answers


def page(*links: str, title: str = "t") -> bytes:
    anchors = "".join(f'<a href="{link}">x</a>' for link in links)
    return f"<html><head><title>{title}</title></head><body>{anchors}</body></html>".encode()


def answer(
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


@dataclass(frozen=True)
class Asked:
    """A request as the server saw it: monotonic times, `called` when the fetcher was told; the result is the answer."""

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
    """A scripted fetcher. `pages` maps a URL to what is answered (each in turn, then the last for ever); what is not
    in it is asked of `other`. `addresses` maps a host to its address. A request takes `dial_s` before the gate and
    `takes_s` after it.
    """

    clock: LoopClock
    gate: AddressRateLimit | None = None
    pages: dict[str, FetchResult | Sequence[FetchResult]] = field(default_factory=dict)
    other: Callable[[Origin, Task], FetchResult] = lambda origin, task: answer(404)
    addresses: dict[str, str] = field(default_factory=dict)
    dial_s: Callable[[Origin], float] = lambda origin: 0.0
    takes_s: Callable[[Origin, Task], float] = lambda origin, task: 0.1
    asked: list[Asked] = field(default_factory=list)
    shut: int = 0
    in_flight: int = 0
    before: Callable[[Origin, Task], None] = lambda origin, task: None
    _times: Counter[str] = field(default_factory=Counter)

    async def fetch(self, origin: Origin, task: Task) -> FetchResult:
        self.before(origin, task)
        called = self.clock.mono()
        address = self.addresses.get(origin.host, ADDRESS)
        dial_s = self.dial_s(origin)
        if dial_s:
            await asyncio.sleep(dial_s)
        if self.gate is not None and (until := self.gate.enter(address)) is not None:
            self.shut += 1
            raise AddressNotReady(address, until)
        begin = self.clock.mono()
        self.in_flight += 1
        try:
            takes_s = self.takes_s(origin, task)
            if takes_s:
                await asyncio.sleep(takes_s)
            result = self._answer(origin, task)
            if isinstance(result, Fetched):
                result = replace(result, connection=replace(result.connection, peer_address=address))
        finally:
            self.in_flight -= 1
            if self.gate is not None:
                self.gate.leave(address)
        self.asked.append(Asked(task.url, origin, task, address, called, begin, self.clock.mono(), result))
        return result

    def _answer(self, origin: Origin, task: Task) -> FetchResult:
        scripted = self.pages.get(task.url)
        if scripted is None:
            return self.other(origin, task)
        if isinstance(scripted, Fetched | Failed):
            return scripted
        self._times[task.url] += 1
        return scripted[min(self._times[task.url], len(scripted)) - 1]

    # -- what else the engine asks of its client

    def prepare(self, options: ClientOptions) -> None:
        """It has no options."""

    def reconfigure(self, generation: Generation) -> None:
        raise AssertionError("nothing was prepared")

    async def run(self) -> None:
        return

    async def close(self) -> None:
        return

    def cut(self, covers: Callable[[Origin], bool]) -> int:
        return 0

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
        """What was asked, in the order of the answers."""
        return [each.url for each in self.asked]

    @property
    def page_urls(self) -> list[str]:
        return [each.url for each in self.asked if each.task.kind is TaskKind.PAGE]


class ListSink:
    """A sink that keeps URLs in a list, and fails where a test says: set `fails` to a function of the call's name that
    returns what to raise, or None. `calls` are the names, in order; `full_at` records end a file.
    """

    def __init__(self, name: str = "warc", *, full_at: int = 1_000_000) -> None:
        self.name = name
        self.calls: list[str] = []
        self.stored: list[str] = []
        self.tail: list[str] = []
        self.fails: Callable[[str], BaseException | None] = lambda call: None
        self.recovery = SinkRecovered()
        self._full_at = full_at
        self._serial = 0
        self._in_file = 0

    def _call(self, name: str) -> None:
        self.calls.append(name)
        error = self.fails(name)
        if error is not None:
            raise error

    def _file(self, state: SinkFileState) -> SinkFile:
        return SinkFile(self.name, f"{self._serial}.{self.name}", state, len(self.stored) + len(self.tail))

    def open(self, known: Sequence[SinkFile], *, is_restored: bool = False) -> list[SinkFile]:
        self._call("open")
        return []

    def lost_files(self) -> list[LostFile]:
        return []

    def set_aside(self, lost: LostFile) -> None:
        raise AssertionError("nothing vanishes here")

    def write(self, records: Sequence[Record], written: Sequence[RecordLocation | None]) -> list[RecordLocation | None]:
        places: list[RecordLocation | None] = []
        for record in records:
            places.append(RecordLocation(f"{self._serial}.{self.name}", len(self.stored) + len(self.tail)))
            self.tail.append(record.task.url)
        self._call("write")
        return places

    def can_buffer(self, record: Record) -> bool:
        return False

    def buffer(self, record: Record, written: RecordLocation | None) -> RecordLocation | None:
        raise AssertionError("nobody may gather here")

    def sync(self) -> list[SinkFile]:
        self._call("sync")
        return [self._file(SinkFileState.OPEN)]

    def committed(self) -> list[SinkFile]:
        self.stored += self.tail
        self._in_file += len(self.tail)
        self.tail = []
        self._call("settled")
        if self._in_file < self._full_at:
            return []
        closed = self._file(SinkFileState.CLOSED)
        self._serial += 1
        self._in_file = 0
        return [closed]

    def reset(self) -> None:
        self.tail = []
        self._call("reset")

    def close(self) -> list[SinkFile]:
        self._call("close")
        return [self._file(SinkFileState.CLOSED)]


def seed(url: str, **more: Any) -> Discovered:
    href, origin = parse(url)
    return Discovered(href, origin, key_of(href), more.pop("depth", 0), "", more.pop("source", Source.SEED), **more)


class Noted:
    """An observer that keeps what it is told."""

    def __init__(self, clock: LoopClock) -> None:
        self.clock = clock
        self.events: list[tuple[str, dict[str, object]]] = []
        self.events_mono: list[float] = []  # when each of them came
        self.visits: list[tuple[Visited, int, RecordLocation | None]] = []
        self.closed: list[SinkFile] = []
        self.disk_reasons: list[str | None] = []
        self.skipped: list[SkippedLink] = []
        self.scope_hosts: list[tuple[str, str]] = []
        self.drained_for: list[StoppedBy] = []
        self.robots_seen: list[Host] = []

    def event(self, name: Event, fields: dict[str, object]) -> None:
        self.events.append((name.value, dict(fields)))
        self.events_mono.append(self.clock.mono())

    def recovered(self, recovered: Recovered, recovery: SinkRecovered) -> None:
        return

    def stored(self, visited: Visited, links_new: int, written: RecordLocation | None) -> None:
        self.visits.append((visited, links_new, written))

    def skip(self, skipped: Sequence[SkippedLink]) -> None:
        self.skipped += skipped

    def scope_widened(self, host: str, via: str) -> None:
        self.scope_hosts.append((host, via))

    def robots(self, host: Host) -> None:
        self.robots_seen.append(host)

    def file_closed(self, file: SinkFile) -> None:
        self.closed.append(file)

    def file_lost(self, lost: LostFile, urls: int) -> None:
        return

    def disk(self, reason: str | None) -> None:
        self.disk_reasons.append(reason)

    def hours(self, is_open: bool, until_at: float) -> None:
        return

    def drain(self, reason: StoppedBy, in_flight: int) -> None:
        self.drained_for.append(reason)


POLITE = PolitenessOptions(delay_s=1.0, address_delay_s=0.0, adaptive=False)
AT_ONCE = PolitenessOptions(delay_s=0.0, address_delay_s=0.0, connections_per_host=4, connections_per_address=1_000)
CLIENT = ClientOptions(IdentityOptions(robots_token=TOKEN))


class Harness(Noted):
    """The engine around a `Web` and a frontier, and its parts by their names. Build it inside `run`."""

    def __init__(
        self,
        *seeds: str,
        politeness: PolitenessOptions = POLITE,
        scope: ScopeOptions | None = None,
        engine: EngineOptions | None = None,
        frontier: Frontier | None = None,
        sinks: Sequence[Any] = (),
        output: Path = Path("/"),
        rng_seed: int = 1,
        gated: bool = True,
        traps: TrapOptions | None = None,
        recrawl: RecrawlOptions | None = None,
        sitemaps: str = "named",
        web: dict[str, FetchResult | Sequence[FetchResult]] | None = None,
    ) -> None:
        self.options = engine or EngineOptions(workers=8, linger_s=600.0, min_free=0, drain_s=5.0)
        self.loop = virtual_loop()
        super().__init__(LoopClock(self.loop))
        self.frontier: Any = frontier if frontier is not None else MemoryFrontier()
        self.web = Web(self.clock, pages=web or {})

        def make_client(*, gate: AddressRateLimit, permits: object, bandwidth: Bandwidth) -> Web:
            self.web.gate = gate if gated else None
            self.bandwidth = bandwidth
            return self.web

        self.engine = crawl = Engine(
            EngineConfiguration(
                seeds=seeds,
                scope=scope or ScopeOptions(),
                politeness=politeness,
                address_politeness=politeness,
                traps=traps or TrapOptions(),
                recrawl=recrawl or RecrawlOptions(),
                client=CLIENT,
                engine=self.options,
                sitemaps=sitemaps,
                output=output,
            ),
            self.frontier,
            sinks,
            make_client,
            self,
            self.clock,
            random.Random(rng_seed),
        )
        self.crawl, self.scheduler, self.committer = crawl.crawl, crawl.scheduler, crawl.committer
        self.host_table, self.gate, self.traps = crawl.host_table, crawl.scheduler.address_limiter, crawl.traps
        self.admission, self.reader, self.listings = crawl.admission, crawl.reader, crawl.listings
        self.rejudger, self.revisits, self.tally = crawl.rejudger, crawl.revisits, crawl.tally
        self.workers, self.monitor = crawl.workers, crawl.monitor

    async def open(self) -> None:
        """As the composition root does."""
        await self.engine.open(await self.frontier.open())

    async def close(self, *, clean: bool = True) -> None:
        await self.engine.close()
        await self.frontier.close(clean=clean)

    async def run(self) -> StoppedBy:
        """A whole crawl: open, run, close."""
        await self.open()
        stopped_by = await self.engine.run()
        await self.close()
        return stopped_by

    # -- what a test looks at

    def host(self, name: str) -> Host:
        return next(host for host in self.host_table.hosts.values() if host.origin.host == name)

    @property
    def settled(self) -> dict[str, str]:
        """The last stored state of each page."""
        return {
            visited.settlement.task.url: visited.settlement.state.value
            for visited, _, _ in self.visits
            if visited.settlement.task.kind is TaskKind.PAGE
        }

    def said(self, event: str) -> list[dict[str, object]]:
        return [fields for name, fields in self.events if name == event]
