"""One fetch with everything about it: what `crawler fetch` shows. Composed here, of the crawl's own parts.

It keeps nothing and writes nothing. What is asked of a server is asked as a crawl asks it: robots.txt first, its
verdict obeyed, politeness.delay between the two. Invariant: a request is made for the page only if robots.txt allows it
or was not to be asked, and none at all to a host that the crawl's operator blocked; the scope's verdict is told and
stops nothing.
"""

import asyncio
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Final

import uvloop

from crawler.client import Client, make_client
from crawler.content.html.links import Link
from crawler.core.enums import Source, TaskKind
from crawler.core.models import (
    Denied,
    Failed,
    Fetched,
    FetchResult,
    Origin,
    Outcome,
    PageInfo,
    Redirected,
    RobotsRecord,
    Task,
)
from crawler.core.outcomes import RetryDecision, fate, is_connection_error, is_lasting, pushes_back, rests_origin
from crawler.core.politeness import CLOCK_GUARD_S, host_delay, politeness_key, rest_s, retry_after_s
from crawler.core.scope import Scope
from crawler.core.url import key_of, seed
from crawler.engine.pages import robots
from crawler.engine.pages.recent_urls import RecentKeys
from crawler.engine.pages.response_processor import ProcessedResponse, ResponseProcessor
from crawler.engine.pages.url_policy import RobotsCache, UrlPolicy
from crawler.engine.scheduling.blocklist import Blocklist
from crawler.engine.scheduling.host import Host, PolitenessKey
from crawler.engine.scheduling.rate_limits import AddressRateLimiter
from crawler.engine.system_clock import SystemClock
from crawler.fetch.fetcher import GateShut, OriginBlocked, blocked
from crawler.fetch.http1.message import Framing, RemoteProtocolError, body_framing, hop_fields, is_persistent
from crawler.fetch.net.address import AddressPolicy
from crawler.frontier.base import BlockedHost
from crawler.frontier.sqlite.store_reader import StoreReader as StoreReader
from crawler.inspection.place import owner
from crawler.settings.settings import Settings
from crawler.sinks.warc import mask_request
from crawler.trace.dial_observer import Dial, Tap, TappedDialer, TappedResolver

_REST_S: Final = 60.0  # stands in a robots verdict that is thrown away
_FOR_LONG: Final = 99  # strikes


@dataclass(frozen=True, slots=True)
class Hop:
    """One request for robots.txt and what came of it; more than one where it redirects."""

    url: str
    result: FetchResult
    took_s: float


@dataclass(frozen=True, slots=True)
class RobotsTrace:
    """`record` is the verdict a crawl would keep, None where robots.txt was not asked: `not_asked` says why."""

    hops: tuple[Hop, ...] = ()
    record: RobotsRecord | None = None
    denied: Denied | None = None
    not_asked: str = ""


@dataclass(frozen=True, slots=True)
class TracedLink:
    """A link of the page; `denied` is None if a crawl would queue it."""

    url: str
    source: Source | None
    reason: str = ""
    rule: str = ""


@dataclass(slots=True)
class Trace:
    """What happened. `result` is None where robots.txt forbade the request; `request` has its secrets masked."""

    url: str
    origin: Origin
    started_at: float
    task: Task
    scope_denied: Denied | None
    robots: RobotsTrace = field(default_factory=RobotsTrace)
    block: BlockedHost | None = None  # of the store that the configuration names: nothing was asked
    waited_s: float = 0.0
    total_s: float = 0.0
    verifies: bool = True
    dial: Dial | None = None
    result: FetchResult | None = None
    outcome: Outcome | None = None
    request: bytes = b""
    framing: Framing | None = None
    keeps_alive: bool = False
    page: PageInfo | None = None
    digest: str | None = None
    index: bool = True
    links_found: int = 0
    links: list[TracedLink] = field(default_factory=list)
    fate: RetryDecision | None = None
    rest_s: float | None = None  # how long the host would rest, being asked for the first time
    brings_in: str = ""  # the host that a seed's redirect would bring into scope

    @property
    def is_fine(self) -> bool:
        """Whether a crawl would ask for the URL, and got a whole answer with a status below 400."""
        refused = self.scope_denied is not None or self.robots.denied is not None
        if refused or not isinstance(self.result, Fetched):
            return False
        cut = self.result.truncated is not None or self.result.error_type is not None
        bomb = isinstance(self.outcome, Fetched) and self.outcome.error_type is not None
        return not cut and not bomb and self.result.head.status_code < 400


def run(settings: Settings, text: str, *, robots: bool, on_wait: Callable[[float, str], None]) -> Trace:
    """`trace`, on an event loop of its own."""
    return uvloop.run(trace(settings, text, robots=robots, on_wait=on_wait))


async def trace(settings: Settings, text: str, *, robots: bool, on_wait: Callable[[float, str], None]) -> Trace:
    """Fetch one URL. `on_wait` is told of each pause that politeness asks for, in seconds, and why.

    Raises UrlError for what is no URL, and what opening the store raises if the configuration names one that is there;
    what the network and the server do is in the Trace.
    """
    url, origin = seed(text)
    return await _Tracer(settings, url, origin, robots, on_wait).run()


class _Tracer:
    def __init__(
        self, settings: Settings, url: str, origin: Origin, robots: bool, on_wait: Callable[[float, str], None]
    ) -> None:
        self._settings = settings
        self._origin = origin
        self._robots = robots
        self._on_wait = on_wait
        self._clock = SystemClock()
        self._politeness = settings.politeness_options()
        self._obeys = self._politeness.robots == "obey"
        self._token = settings.robots_token
        self._ended_mono: dict[str, float] = {}  # by politeness key
        self._blocks = _blocks_of(settings)
        seeds = [seed(text) for text in settings.seeds] or [(url, origin)]
        is_seed = key_of(url) in {key_of(known) for known, _ in seeds}
        source = Source.SEED if is_seed else Source.LINK
        task = Task(0, url, depth=0 if is_seed else 1, hop_path="" if is_seed else "L", source=source)
        scope = Scope(settings.scope_options(), [known.host for _, known in seeds], settings.trap_options())
        self._admission = UrlPolicy(scope, RobotsCache(self._token), self._obeys)
        denied = scope.judge(url, origin, depth=task.depth, hop_path=task.hop_path, source=source)
        self._trace = Trace(url, origin, self._clock.now(), task, denied, verifies=settings.tls_options().verify)
        self._reader = ResponseProcessor(
            content=settings.content_options(),
            fetch=settings.fetch_options(),
            token=self._token,
            obey=self._obeys,
            requisites=settings.scope_options().requisites,
            lazy=settings.scope_options().lazy,
            seen=RecentKeys(),
        )

    async def run(self) -> Trace:
        trace, clock = self._trace, self._clock
        trace.block = self._blocks.covers(self._origin.host)
        if trace.block is not None:
            trace.robots = RobotsTrace(not_asked="the host is blocked")
            return trace
        begun = clock.mono()
        network = self._settings.network_options()
        tap = Tap(AddressPolicy(network.allow_private), clock, proxied=network.proxy is not None)
        client = make_client(
            self._settings,
            clock=clock,
            gate=AddressRateLimiter(self._settings.address_politeness(), clock),
            memory=self._settings.engine_options("crawl").memory,
            spool_directory=None,
            permits=self._blocks.permits,
            tap_resolver=lambda resolver: TappedResolver(resolver, tap, clock),
            dialer_class=partial(TappedDialer, tap=tap),
        )
        try:
            trace.request = mask_request(client.fetcher.request_for(self._origin, trace.task))
            result = await self._ask_robots(client)
            if result is None and trace.robots.denied is None:
                result = await self._fetch(client, self._origin, trace.task)
            trace.total_s = clock.mono() - begun
            trace.dial = next((dial for dial in reversed(tap.dials) if dial.origin == self._origin), None)
            if result is not None:
                self._tell(result)
        finally:
            await client.close()
        return trace

    # -- asking

    async def _ask_robots(self, client: Client) -> FetchResult | None:
        """Fill `trace.robots`. Returns a failure to connect to the page's own origin: the page would fare the same."""
        trace = self._trace
        if not self._obeys:
            trace.robots = RobotsTrace(not_asked='politeness.robots = "ignore"')
            return None
        if not self._robots:
            trace.robots = RobotsTrace(not_asked="--no-robots")
            return None
        origin, task = self._origin, Task(0, f"{self._origin}/robots.txt", TaskKind.ROBOTS)
        hops: list[Hop] = []
        while True:
            begun = self._clock.mono()
            result = await self._fetch(client, origin, task)
            hops.append(Hop(task.url, result, self._clock.mono() - begun))
            if isinstance(result, Failed) and origin == self._origin and is_connection_error(result.error_type):
                trace.robots = RobotsTrace(tuple(hops), not_asked="no connection")
                return result
            outcome = self._reader.outcome_of(task, result)
            moved = robots.redirect_of(task, outcome)
            if moved is None:
                break
            origin, task = moved
        record, rules = robots.verdict_of(
            outcome,
            known=None,
            now=self._clock.now(),
            rest_s=_REST_S,
            token=self._token,
            limits=self._settings.fetch_options(),
        )
        host = Host(0, self._origin, PolitenessKey(self._origin.host, 0.0))
        host.robots = record
        self._admission.rules.put(host, rules, stored=True)
        trace.robots = RobotsTrace(tuple(hops), record, self._admission.judge_robots(trace.url, host))
        return None

    async def _fetch(self, client: Client, origin: Origin, task: Task) -> FetchResult:
        key = politeness_key(origin.host, self._politeness)
        if key in self._ended_mono:
            await self._rest(key)
        while True:
            try:
                return await client.fetcher.fetch(origin, task)
            except OriginBlocked:  # where robots.txt redirects to
                return blocked(origin)
            except GateShut as shut:
                await self._wait(shut.until_mono - self._clock.mono(), "politeness.address_delay")
            finally:
                self._ended_mono[key] = self._clock.mono()

    async def _rest(self, key: str) -> None:
        record = self._trace.robots.record
        crawl_delay_s = record.crawl_delay_s if record is not None else None
        delay_s = host_delay(self._politeness, crawl_delay_s)
        if delay_s > 0:
            why = "politeness.delay" if delay_s == self._politeness.delay_s else "Crawl-delay of robots.txt"
            await self._wait(self._ended_mono[key] + delay_s + CLOCK_GUARD_S - self._clock.mono(), why)

    async def _wait(self, seconds: float, why: str) -> None:
        if seconds > 0:
            self._trace.waited_s += seconds
            self._on_wait(seconds, why)
            await asyncio.sleep(seconds)

    # -- telling what came of it

    def _tell(self, result: FetchResult) -> None:
        trace, task = self._trace, self._trace.task
        trace.result = result
        trace.outcome = outcome = self._reader.outcome_of(task, result)
        if isinstance(result, Fetched):
            hop = hop_fields(result.head)
            trace.keeps_alive = is_persistent(result.head, hop)
            try:
                trace.framing = body_framing(result.head, hop)
            except RemoteProtocolError:  # the detail of the failure says it
                trace.framing = None
            trace.request = mask_request(result.request_bytes)
            reading, links = self._reader.read(task, outcome)
            trace.outcome = outcome = reading.outcome
            self._tell_reading(reading, links)
        trace.fate = fate(
            outcome,
            attempt=1,
            max_attempts=self._settings.engine_options("crawl").max_attempts,
            rng=random.Random(0),  # noqa: S311
        )
        trace.rest_s = self._rest_s(outcome)

    def _rest_s(self, outcome: Outcome) -> float | None:
        """For how long the host would rest that was never asked before (as `engine.scheduling.host_table` has it);
        None: not at all.
        """
        rng = random.Random(0)  # noqa: S311 - jitter
        if isinstance(outcome, Fetched) and pushes_back(outcome):
            wait_s = retry_after_s(outcome.head, self._clock.now())
            return wait_s if wait_s is not None else rest_s(0, rng, ever_answered=True)
        if isinstance(outcome, Failed) and rests_origin(outcome.error_type):
            return rest_s(_FOR_LONG if is_lasting(outcome.error_type) else 0, rng, ever_answered=False)
        return None

    def _tell_reading(self, reading: ProcessedResponse, links: list[Link]) -> None:
        trace = self._trace
        if isinstance(reading.outcome, Redirected):
            trace.brings_in = self._admission.widen(trace.task, reading.outcome) or ""
        self._reader.judge(trace.task, reading, links, self._admission.scope)
        trace.page, trace.digest, trace.index = reading.page, reading.payload_digest, reading.index
        trace.links_found = reading.links_found
        sources = {link.url: link.source for link in links}
        trace.links = [TracedLink(found.url, found.source) for found in reading.discovered]
        trace.links += [
            TracedLink(skipped.url, sources.get(skipped.url), skipped.reason.value, skipped.rule)
            for skipped in reading.skipped
        ]


def _blocks_of(settings: Settings) -> Blocklist:
    """The blocks of the crawl that the configuration is of; none if it names no store, or one that is not there yet."""
    blocks = Blocklist()
    named = settings.output.directory is not None or settings.frontier.path is not None
    if named and settings.frontier_path.exists():
        with StoreReader(settings.frontier_path, is_live=owner(settings.frontier_path) is not None) as reader:
            blocks.load(reader.blocks())
    return blocks
