"""One URL fetched as a crawl with the same configuration would fetch it, with a record of each step.

Its parts are those of a crawl: host table (delays, back-off), URL policy (scope, robots.txt), response processor, HTTP
client with its dialer and resolver. Nothing is stored. How a connection is opened is observed too: the addresses of a
name, the TCP attempts, TLS and the certificate.

Invariants: robots.txt is requested before the page and obeyed, unless it is left out; a blocked host gets no request at
all. The verdict of the scope is recorded, and stops nothing. Only after a failed TLS handshake a second one is made to
get the certificate of the server; no request is sent over it.
"""

import asyncio
import random
import socket
import ssl
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Final, TypeVar

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import dsa, ec, rsa

from crawler.core.clock import Clock
from crawler.core.enums import Source, Stage, TaskKind
from crawler.core.models import (
    Denied,
    Failed,
    Fetched,
    FetchResult,
    HostRow,
    Lease,
    Origin,
    Redirected,
    RobotsRecord,
    Task,
)
from crawler.core.outcomes import RetryDecision, is_connection_error, response_of, retry_decision
from crawler.core.url import parse_seed
from crawler.engine.engine import SystemClock
from crawler.engine.pages import robots
from crawler.engine.pages.recent_urls import RecentKeys
from crawler.engine.pages.response_processor import ProcessedResponse, ResponseProcessor
from crawler.engine.pages.url_list_policy import UrlListPolicy
from crawler.engine.pages.url_policy import RobotsCache, UrlPolicy
from crawler.engine.scheduling.host_table import HostTable
from crawler.engine.scheduling.restrictions import AddressRateLimiter, Blocklist
from crawler.fetch.fetcher import AddressNotReady, OriginBlocked, blocked
from crawler.fetch.http_client import HttpClient
from crawler.fetch.net.address import AddressDenied, AddressPolicy
from crawler.fetch.net.dial import Dialled, NetworkDialer
from crawler.fetch.net.errors import DialError, ResolveError, describe
from crawler.fetch.net.resolver import CachingResolver
from crawler.fetch.net.tls import server_name
from crawler.frontier.base import BlockedHost
from crawler.frontier.sqlite.store_reader import StoreReader
from crawler.output_directory import lock_owner
from crawler.settings.settings import Settings
from crawler.sinks.warc import mask_request

MAX_NAMES: Final = 100  # names kept of a certificate; some hold thousands
_SECOND_HANDSHAKE_S: Final = 5.0

_Protocol = TypeVar("_Protocol", bound=asyncio.Protocol)


@dataclass(slots=True)
class Dial:
    """The opening of one connection, which is `dialled` or `failed`. `resolved` names, TCP `attempts` and `certificate`
    are as `crawler fetch --json` has them.
    """

    origin: Origin
    resolved: list[dict[str, Any]] = field(default_factory=list)
    attempts: list[dict[str, Any]] = field(default_factory=list)
    certificate: dict[str, Any] = field(default_factory=dict)
    dialled: Dialled | None = None
    failed: DialError | None = None


class DialObserver(NetworkDialer):
    """A dialer that records what it does in `dials`. It is its own resolver, to see the results of the real one."""

    def __init__(self, *, dials: list[Dial], resolver: CachingResolver, clock: Clock, **more: Any) -> None:
        super().__init__(resolver=self, clock=clock, **more)
        self._dials = dials
        self._names = resolver

    async def dial(self, origin: Origin, factory: Callable[[], _Protocol]) -> tuple[_Protocol, Dialled]:
        """See NetworkDialer."""
        dial = Dial(origin)
        self._dials.append(dial)
        try:
            protocol, dial.dialled = await super().dial(origin, factory)
        except DialError as error:
            dial.failed = error
            if error.stage is Stage.TLS and error.peer is not None:
                dial.certificate = await self._repeat_handshake(origin, error.peer)
            raise
        if dial.dialled.ssl_object is not None:
            dial.certificate = _certificate_of(dial.dialled.ssl_object)
        return protocol, dial.dialled

    async def resolve(self, host: str) -> tuple[str, ...]:
        """See Resolver."""
        note: dict[str, Any] = {"name": host, "source": "dns", "addresses": [], "failed": None}
        if (configured := self._names.configured(host)) is not None:
            note["source"] = "literal" if configured == (host.strip("[]").rstrip("."),) else "network.resolve"
        self._dials[-1].resolved.append(note)
        begun_mono = self._clock.mono()
        try:
            addresses = await self._names.resolve(host)
        except ResolveError as error:
            note["failed"] = f"{error.error_type.value}: {error.detail}"
            raise
        finally:
            note["ms"] = round((self._clock.mono() - begun_mono) * 1e3, 2)
        note["addresses"] = [self._judge(address) for address in addresses]
        return addresses

    async def connect_socket(self, address: str, port: int) -> socket.socket:
        """See NetworkDialer."""
        note = {"address": address, "port": port, "failed": None}
        self._dials[-1].attempts.append(note)
        begun_mono = self._clock.mono()
        try:
            return await super().connect_socket(address, port)
        except asyncio.CancelledError:
            note["failed"] = "given up: another address was faster, or it took too long"
            raise
        except OSError as error:
            note["failed"] = describe(error)
            raise
        finally:
            note["ms"] = round((self._clock.mono() - begun_mono) * 1e3, 2)

    def _judge(self, address: str) -> dict[str, Any]:
        """Whether an address may be dialled, and why."""
        if self._proxy is not None:
            return {"address": address, "allowed": True, "why": "the proxy's, not checked"}
        refused = _refusal(self._policy, address)
        why = "network.allow_private" if _refusal(AddressPolicy(), address) else "public"
        return {"address": address, "allowed": not refused, "why": refused or why}

    async def _repeat_handshake(self, origin: Origin, peer: tuple[str, int]) -> dict[str, Any]:
        """Get the certificate of a server whose handshake failed; nothing is sent over the connection."""
        if self._proxy is not None:
            return {"not_shown": "not read: the server is behind a proxy"}
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE  # only the certificate is wanted
        try:
            async with asyncio.timeout(_SECOND_HANDSHAKE_S):
                sock = await super().connect_socket(*peer)
                transport, _ = await asyncio.get_running_loop().create_connection(
                    asyncio.Protocol, sock=sock, ssl=context, server_hostname=server_name(origin.host)
                )
        except TimeoutError:
            return {"not_shown": f"none was shown within {_SECOND_HANDSHAKE_S:g} s"}
        except OSError as error:
            return {"not_shown": f"none was shown: {describe(error)}"}
        certificate = _certificate_of(transport.get_extra_info("ssl_object"))
        transport.abort()
        return certificate


def _refusal(policy: AddressPolicy, address: str) -> str:
    try:
        policy.check(address)
    except AddressDenied as denied:
        return str(denied)
    return ""


def _certificate_of(ssl_object: ssl.SSLObject) -> dict[str, Any]:
    """What the server's certificate says, verified or not; or why it is `not_shown`."""
    der = ssl_object.getpeercert(binary_form=True)
    if not der:
        return {"not_shown": "none was shown"}
    try:
        found = x509.load_der_x509_certificate(der)
        extensions = [extension.value for extension in found.extensions]
        names = [name for one in extensions if isinstance(one, x509.SubjectAlternativeName) for name in one]
        return {
            "subject": found.subject.rfc4514_string(),
            "issuer": found.issuer.rfc4514_string(),
            "names": [str(name.value) for name in names[:MAX_NAMES]],
            "not_before": found.not_valid_before_utc.isoformat(),
            "not_after": found.not_valid_after_utc.isoformat(),
            "serial": f"{found.serial_number:x}",
            "sha256": found.fingerprint(hashes.SHA256()).hex(),
            "key": _key_name(found.public_key()),
        }
    except Exception as error:  # the parser has many exceptions of its own
        return {"not_shown": f"cannot be read: {describe(error)}"}


def _key_name(key: object) -> str:
    match key:
        case rsa.RSAPublicKey():
            return f"RSA {key.key_size}"
        case dsa.DSAPublicKey():
            return f"DSA {key.key_size}"
        case ec.EllipticCurvePublicKey():
            return f"ECDSA {key.curve.name}"
        case _:  # Ed25519, Ed448
            return type(key).__name__.removesuffix("PublicKey")


_HOST_ID: Final = 1

OnWait = Callable[[float, str], None]


@dataclass(slots=True)
class Trace:
    """The course of one fetch. Durations in seconds; `request` has its secrets masked.

    `hops` are the requests for robots.txt, more than one where it redirects, and `robots` is the verdict that a crawl
    would keep, None if `robots_skipped` says why robots.txt was not requested. `result` and `response` are None where
    no request was made for the page. `backoff` is how long the host would get no request, and why.
    """

    url: str
    started_at: float
    task: Task
    verifies: bool
    scope_denied: Denied | None
    block: BlockedHost | None
    request: bytes = b""
    hops: list[tuple[str, FetchResult]] = field(default_factory=list)
    robots: RobotsRecord | None = None
    robots_denied: Denied | None = None
    robots_skipped: str = ""
    waited_s: float = 0.0
    total_s: float = 0.0
    dial: Dial | None = None
    result: FetchResult | None = None
    response: ProcessedResponse | None = None
    link_sources: dict[str, Source] = field(default_factory=dict)  # by URL
    retry: RetryDecision | None = None
    backoff: tuple[float, str] | None = None
    added_host: str | None = None  # brought into scope by a seed's redirect

    @property
    def is_fine(self) -> bool:
        """Whether a crawl would request the URL, and a whole response with a status below 400 came."""
        if self.scope_denied is not None or not isinstance(self.result, Fetched):
            return False
        is_whole = self.result.truncated is None and self.result.error_type is None
        return is_whole and self.result.head.status_code < 400


async def trace(settings: Settings, text: str, *, robots: bool, on_wait: OnWait) -> Trace:
    """Fetch one URL. `robots` is False to leave robots.txt out. `on_wait` is called with each wait for politeness, in
    seconds, and the key or field that causes it.

    Raises UrlError if `text` is no URL, and what opening the store of the configuration raises. Failures of the network
    and the server are in the result.
    """
    url, origin = parse_seed(text)
    return await _Tracer(settings, url, origin, on_wait, await _blocklist(settings)).run(robots=robots)


class _Tracer:
    def __init__(self, settings: Settings, url: str, origin: Origin, on_wait: OnWait, blocklist: Blocklist) -> None:
        options = settings.engine_configuration("crawl")
        self._options = options = options if options.seed_files else replace(options, seeds=options.seeds or (url,))
        self._origin = origin
        self._on_wait = on_wait
        self._clock = SystemClock()
        self._rng = random.Random(0)  # noqa: S311 - jitter
        self._hosts = HostTable(
            politeness=options.politeness,
            clock=self._clock,
            rng=self._rng,
            on_event=lambda name, fields: None,
            blocklist=blocklist,
            overrides=options.overrides,
        )
        self._hosts.admit([HostRow(_HOST_ID, origin, slot=0, queued=1)])
        recent_keys = RecentKeys()
        self._policy = UrlPolicy(options.judging_scope(), RobotsCache(options.robots_token), options.obeys_robots)
        self._processor = ResponseProcessor(options, recent_keys=recent_keys)
        self._url_lists = UrlListPolicy(
            mode=options.sitemaps, frontier=None, recent_keys=recent_keys, trusts_dates_of=lambda host_id, url: False
        )
        task = Task(0, url, depth=1, hop_path="L", source=Source.LINK)
        if options.has_seed(url):
            task = Task(0, url)
        denied = self._policy.scope.judge(url, origin, depth=task.depth, hop_path=task.hop_path, source=task.source)
        block = self._hosts.blocklist.covers(origin.host)
        self._trace = Trace(url, self._clock.now(), task, options.client.tls.verify, denied, block)

    async def run(self, *, robots: bool) -> Trace:
        """Make the requests. `robots` False leaves robots.txt out."""
        trace = self._trace
        if trace.block is not None:
            trace.robots_skipped = "the host is blocked"
            return trace
        begun_mono = self._clock.mono()
        dials: list[Dial] = []
        client = HttpClient(
            self._options.client,
            clock=self._clock,
            address_limiter=AddressRateLimiter(self._options.address_politeness, self._clock),
            memory=self._options.engine.memory,
            permits=self._hosts.blocklist.permits,
            dialer_class=partial(DialObserver, dials=dials),
        )
        try:
            trace.request = mask_request(client.request_for(self._origin, trace.task))
            if not self._policy.obeys_robots_of(host := self._hosts.hosts[_HOST_ID]):
                by = "politeness.robots" if host.override.robots is None else "override: robots"
                trace.robots_skipped = f'{by} = "ignore"'
            elif not robots:
                trace.robots_skipped = "--no-robots"
            else:
                trace.result = await self._fetch_robots(client)
            if trace.result is None and trace.robots_denied is None:
                trace.result = await self._fetch(client, self._origin, trace.task)
        finally:
            await client.close()
        trace.total_s = self._clock.mono() - begun_mono
        trace.dial = next((dial for dial in reversed(dials) if dial.origin == self._origin), None)
        if trace.result is not None:
            await self._process(trace.result)
        return trace

    async def _fetch_robots(self, client: HttpClient) -> FetchResult | None:
        """Record the verdict of robots.txt. Returns a failure to connect: the page would have the same."""
        trace = self._trace
        origin, task = self._origin, Task(0, f"{self._origin}/robots.txt", TaskKind.ROBOTS)
        while True:
            result = await self._fetch(client, origin, task)
            trace.hops.append((task.url, result))
            if isinstance(result, Failed) and origin == self._origin and is_connection_error(result.error_type):
                trace.robots_skipped = "no connection"
                return result
            outcome = self._processor.outcome_of(task, result)
            target = robots.redirect_of(task, outcome)
            if target is None:
                break
            origin, task = target
        trace.robots, rules = robots.verdict_of(
            outcome,
            known=None,
            now=self._clock.now(),
            retry_s=0.0,
            token=self._policy.rules.token,
            limits=self._options.client.fetch,
        )
        host = self._hosts.hosts[_HOST_ID]
        self._policy.rules.put(host, rules, stored=True)
        self._hosts.learn_robots(host, trace.robots)
        trace.robots_denied = self._policy.judge_robots(trace.url, host)
        return None

    async def _fetch(self, client: HttpClient, origin: Origin, task: Task) -> FetchResult:
        """Send a request once politeness allows it, and learn from its result."""
        key = self._hosts.key_for(origin)
        host = self._hosts.hosts[_HOST_ID]
        configured = "politeness.delay" if host.override.delay_s is None else "override: delay"
        is_configured = key.delay_s == self._hosts.configured_delay_s(host)
        why = configured if is_configured else "Crawl-delay of robots.txt"
        await self._wait(key.politeness.open_mono, "politeness.adaptive" if key.adaptive_s > key.delay_s else why)
        key.politeness = key.politeness.began()
        result: FetchResult | None = None
        while result is None:
            try:
                result = await client.fetch(origin, task)
            except AddressNotReady as shut:
                await self._wait(shut.until_mono, "politeness.address_delay")
            except OriginBlocked:  # another host, to which robots.txt redirects
                result = blocked(origin)
        key.ended(self._clock.mono())
        self._hosts.learn_result(Lease(0, origin, _HOST_ID, (task,)), task.kind, result)
        return result

    async def _wait(self, until_mono: float, why: str) -> None:
        seconds = until_mono - self._clock.mono()
        if seconds > 0:
            self._trace.waited_s += seconds
            self._on_wait(seconds, why)
            await asyncio.sleep(seconds)

    async def _process(self, result: FetchResult) -> None:
        """Record what a crawl would do with the result."""
        trace, task = self._trace, self._trace.task
        if isinstance(result, Fetched):
            trace.request = mask_request(result.request_bytes)
        trace.response, links = self._processor.process(task, self._processor.outcome_of(task, result))
        outcome = trace.response.outcome
        trace.result = response_of(outcome) or result  # a decompression bomb has its error type only now
        if isinstance(outcome, Redirected):
            widened = self._policy.widen(task, outcome)
            trace.added_host = widened.host if widened is not None and widened.is_new else None
        self._processor.judge_links(task, trace.response, links, self._policy.scope)
        await self._url_lists.judge(task, _HOST_ID, trace.response, self._policy.scope)
        trace.link_sources = {link.url: link.source for link in links}
        attempts = self._options.engine.max_attempts
        trace.retry = retry_decision(outcome, attempt=1, max_attempts=attempts, rng=self._rng)
        states = (self._hosts.key_for(self._origin).politeness, self._hosts.hosts[_HOST_ID].politeness)
        longest = max(states, key=lambda state: state.open_mono if state.reason else 0.0)
        if longest.reason:
            trace.backoff = longest.open_mono - self._clock.mono(), longest.reason


async def _blocklist(settings: Settings) -> Blocklist:
    """The blocks in the store of the configuration; none if it names no store, or one that does not exist yet."""
    blocks = Blocklist()
    if settings.frontier.store == "postgresql":
        from crawler.frontier.copying import blocks_of  # its library is an extra

        blocks.load(await blocks_of(settings.frontier.dsn or "", password=settings.secrets.database_password))
        return blocks
    is_named = settings.output.directory is not None or settings.frontier.path is not None
    if is_named and settings.frontier_path.exists():
        with StoreReader(settings.frontier_path, is_live=lock_owner(settings.frontier_path) is not None) as reader:
            blocks.load(reader.blocks())
    return blocks
