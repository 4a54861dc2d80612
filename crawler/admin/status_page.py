"""HTTP server of the status page, its JSON, the metrics and the health checks: on loopback or a Unix socket, read-only
without `admin.actions`.

aiohttp serves; it takes no signals and is imported only where `admin.listen` is set.
Invariants: nothing but the actions changes the crawl. A status is made at most once a second, however many clients
there are. There are at most MAX_CONNECTIONS. A client that has not sent the head of a request within HEAD_TIMEOUT_S, or
reads nothing for twice WRITE_TIMEOUT_S, is disconnected. No address but our own is named in what is served.

The actions are some commands of the control socket over HTTP, for who has the token. The token is new at each start and
is in a file that only the daemon's user can read. A request is a POST that bears it in `Authorization`, which no page
elsewhere can make a browser send; there is no cookie, so that none can be misused.
Invariants: nothing is done without the token, nor for a request that a page of another origin made; each action is
logged, and so are refused requests, those of one reason at most twice in REFUSALS_S, with their number. The token is
never logged.
"""

import asyncio
import hmac
import logging
import math
import os
import secrets
from collections.abc import Awaitable, Callable, Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, Protocol

import orjson
from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

from crawler.admin import metrics, unix_socket
from crawler.admin.control_socket import Arguments, Command
from crawler.admin.unix_socket import CommandRefused
from crawler.core.clock import Clock
from crawler.core.enums import HostState
from crawler.core.formatting import count, duration, naming_key
from crawler.engine.monitoring.status import HOST_SORTS
from crawler.frontier.base import FrontierFull

REFUSALS_S: Final = 60.0  # refused requests after the first of a reason are logged together after so long
ACTIONS: Final = ("pause", "resume", "requeue", "release", "block", "unblock")


class PageActions:
    """`commands` are those of the control socket. `on_action` is called with the name, the arguments, and the reason if
    it was refused.
    """

    def __init__(
        self,
        token_file: Path,
        commands: Mapping[str, Command],
        on_action: Callable[[str, Arguments, str | None], None],
    ) -> None:
        self.token_file = token_file
        self._commands = {name: commands[name] for name in ACTIONS}
        self._on_action = on_action
        self._token = ""
        self._refusals: dict[str, int] = {}  # since the first of a reason was logged; the reasons are few
        self._timers: dict[str, asyncio.TimerHandle] = {}

    def open(self) -> None:
        """Write a new token. Raises OSError."""
        token = secrets.token_urlsafe(32)
        with suppress(FileNotFoundError):
            self.token_file.unlink()  # one of an earlier run, or a link that somebody put there
        descriptor = os.open(self.token_file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(f"{token}\n")
        self._token = token

    def close(self) -> None:
        self._token = ""
        for problem in list(self._refusals):
            self._log_refusals(problem)
        with suppress(OSError):
            self.token_file.unlink()

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """`{"action": "block", "arguments": {"name": "example.org"}}`: its result as JSON, 409 if it cannot be done."""
        if problem := self._problem(request):
            raise self.refused(problem)
        try:
            name, arguments = await self._read(request)
        except web.HTTPRequestEntityTooLarge:
            self._note_refusal("the request is too large")
            raise
        except web.HTTPBadRequest as malformed:
            self._note_refusal((malformed.text or "").strip())
            raise
        command = self._commands.get(name)
        if command is None:
            self._on_action(name[:100], {}, "no such action")
            raise web.HTTPBadRequest(text=f"action is one of {', '.join(ACTIONS)}\n")
        try:
            result = await command(arguments)
        except CommandRefused as refused:
            self._on_action(name, arguments, str(refused))
            raise web.HTTPConflict(text=f"{refused}\n") from None
        self._on_action(name, arguments, None)
        return web.Response(body=orjson.dumps(result), content_type="application/json")

    def refused(self, problem: str) -> web.HTTPForbidden:
        """The response to a request that nothing is done for, which is logged."""
        self._note_refusal(problem)
        return web.HTTPForbidden(text=f"{problem}\n")

    def _note_refusal(self, problem: str) -> None:
        """Log the first refusal of a reason, and count others until REFUSALS_S are over: anybody can cause thousands a
        second.
        """
        if problem in self._refusals:
            self._refusals[problem] += 1
            return
        self._on_action("action", {}, problem)
        self._refusals[problem] = 0
        loop = asyncio.get_running_loop()
        self._timers[problem] = loop.call_later(REFUSALS_S, self._log_refusals, problem)

    def _log_refusals(self, problem: str) -> None:
        """Log how many refusals came after the first of a reason."""
        self._timers.pop(problem).cancel()
        if number := self._refusals.pop(problem):
            more = f"{count(number, 'other request')} within {duration(REFUSALS_S)}"
            self._on_action("action", {}, f"{problem} ({more})")

    def _problem(self, request: web.Request) -> str:
        """Why a request is refused, "" if it is not."""
        own = (f"http://{request.host}", f"https://{request.host}")  # https: a proxy before a Unix socket
        is_own = request.headers.get("Origin") in own
        if not is_own or request.headers.get("Sec-Fetch-Site", "same-origin") != "same-origin":
            return "the request was not made by the status page"
        scheme, _, token = request.headers.get("Authorization", "").partition(" ")
        if scheme != "Bearer" or not self._token or not hmac.compare_digest(_bytes(token), self._token.encode()):
            return "the token is missing or wrong: `crawler status` shows it"
        return ""

    async def _read(self, request: web.Request) -> tuple[str, Mapping[str, Any]]:
        """The name of an action and its arguments. Raises HTTPBadRequest, HTTPRequestEntityTooLarge."""
        try:
            body = await request.read()
            found = orjson.loads(body)
        except (orjson.JSONDecodeError, web.RequestPayloadError):
            body, found = b"", None
        if self._token.encode() in body:  # pasted into the wrong field: its arguments are logged
            raise web.HTTPBadRequest(text="the token is no argument\n")
        match found:
            case {"action": str(name), "arguments": dict(arguments)}:
                return name, arguments
        raise web.HTTPBadRequest(text='{"action": …, "arguments": {…}} is expected\n')


def _bytes(field: str) -> bytes:
    """The bytes of a field, also of one that is no UTF-8."""
    return field.encode(errors="surrogateescape")


KEY: Final = "admin.listen"
STATIC: Final = Path(__file__).parent / "static"
STATUS_MAX_AGE_S: Final = 1.0
STREAM_INTERVAL_S: Final = 2.0
WRITE_TIMEOUT_S: Final = 10.0
HEAD_TIMEOUT_S: Final = 20.0  # for the whole head of a request, and between two on one connection
MAX_CONNECTIONS: Final = 512
MAX_STREAMS: Final = 200
MAX_URL_LENGTH: Final = 4_096  # characters, of /api/why
MAX_HOST_LENGTH: Final = 255
HOSTS_SHOWN: Final = 20  # of a search, if it names no limit
MOST_HOSTS: Final = 500
BUSIEST_SHOWN: Final = 50
HOST_STATES: Final = ("", "broken", *HostState)
INITIAL_DATA: Final = b"{{first}}"  # placeholder in index.html
_LOCAL: Final = frozenset({"localhost", "127.0.0.1", "[::1]"})
_FAULTS_OF_SENDERS: Final = (HttpProcessingError, web.RequestPayloadError, ConnectionResetError)
_HEADERS: Final = {
    "Content-Security-Policy": "default-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; "
    "frame-ancestors 'none'; base-uri 'none'; form-action 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}


class MonitoredCrawl(Protocol):
    """What the server shows of the crawl."""

    def status(self) -> Mapping[str, Any]:
        """As `crawler status --json`."""

    def history(self) -> Mapping[str, Any]:
        """Series of the last hour."""

    async def hosts(self, *, text: str, state: str, sort: str, limit: int) -> Mapping[str, Any]:
        """The first hosts of a search: `hosts`, and how many are `matching` of the `total`."""

    async def last_attempts(self, host: str) -> list[dict[str, Any]]:
        """The last lines of fetch.jsonl about a host, the newest first."""

    def metrics(self) -> str:
        """In Prometheus's text format."""

    def stall(self) -> str:
        """What makes no progress, "" while all is well."""

    def is_ready(self) -> bool:
        """Whether it crawls: not while it drains."""

    async def why(self, url: str) -> Mapping[str, Any]:
        """As `crawler why URL --json`."""


class _ConnectionRefused(asyncio.Protocol):
    """Closes a connection at once."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        transport.close()


def _logger() -> logging.Logger:
    """aiohttp's logger, without requests that are no HTTP, too large or broken off: faults of their senders."""
    logger = logging.getLogger("crawler.admin.status_page")
    if not logger.filters:
        logger.addFilter(_is_our_fault)
    return logger


def _is_our_fault(record: logging.LogRecord) -> bool:
    return not (record.exc_info and isinstance(record.exc_info[1], _FAULTS_OF_SENDERS))


class WebServer:
    """`listen` is "127.0.0.1:9090", "[::1]:9090", "localhost:9090" or the path of a Unix socket."""

    def __init__(self, listen: str, crawl: MonitoredCrawl, clock: Clock, actions: PageActions | None = None) -> None:
        self._listen = listen
        self._crawl = crawl
        self._clock = clock
        self._status_json = b""
        self._status_mono = -math.inf
        self._searching = asyncio.Lock()  # one search at a time, however many clients there are
        self._closing = asyncio.Event()
        self._server: asyncio.Server | None = None
        self._aborting: asyncio.Task[None] | None = None
        self.streams = 0  # clients of the event stream
        application = web.Application(middlewares=[self._loopback_only], client_max_size=1_024)
        routes = {
            "/": self._page,
            "/api/status": self._status,
            "/api/history": self._history,
            "/api/hosts": self._busiest_hosts,
            "/api/find_hosts": self._find_hosts,
            "/api/attempts": self._last_attempts,
            "/api/why": self._why,
            "/api/events": self._events,
            "/metrics": self._metrics,
            "/healthz": self._healthz,
            "/readyz": self._readyz,
        }
        application.add_routes([web.get(path, handler) for path, handler in routes.items()])
        self._actions = actions
        if actions is not None:
            application.add_routes([web.post("/api/action", actions.handle)])
        application.router.add_static("/static/", STATIC)
        self._runner = web.AppRunner(
            application,
            handle_signals=False,
            access_log=None,
            shutdown_timeout=0.5,
            keepalive_timeout=HEAD_TIMEOUT_S,
            logger=_logger(),
        )

    @property
    def connections(self) -> list[web.RequestHandler]:
        """Those that are open."""
        return list(self._runner.server.connections) if self._runner.server is not None else []

    async def open(self) -> None:
        """Listen and serve. Raises OSError, SocketTaken."""
        if self._actions is not None:
            self._actions.open()
        await self._runner.setup()
        loop = asyncio.get_running_loop()
        if self._listen.startswith("/"):
            sock = unix_socket.listen(Path(self._listen), mode=0o660, key=KEY)
            self._server = await loop.create_unix_server(self._accept, sock=sock)
        else:
            host, _, port = self._listen.rpartition(":")
            with naming_key(KEY, self._listen):
                self._server = await loop.create_server(
                    self._accept, host.strip("[]"), int(port), backlog=MAX_CONNECTIONS
                )
        self._aborting = loop.create_task(self._abort_stalled(), name="web-abort-stalled")

    def _accept(self) -> asyncio.Protocol:
        """The protocol of a new connection; beyond MAX_CONNECTIONS it is closed at once."""
        server = self._runner.server
        return _ConnectionRefused() if server is None or len(self.connections) >= MAX_CONNECTIONS else server()

    async def _abort_stalled(self) -> None:
        """Disconnect clients that read nothing: the data buffered for them is the same after WRITE_TIMEOUT_S."""
        before: dict[object, int] = {}
        while True:
            await asyncio.sleep(WRITE_TIMEOUT_S)
            now: dict[object, int] = {}
            for one in self.connections:
                buffered = one.transport.get_write_buffer_size() if one.transport is not None else 0
                if buffered and before.get(one) == buffered and one.transport is not None:
                    one.transport.abort()
                elif buffered:
                    now[one] = buffered
            before = now

    async def close(self) -> None:
        self._closing.set()
        if self._actions is not None:
            self._actions.close()
        if self._server is not None:
            self._server.close()
        if self._aborting is not None:
            self._aborting.cancel()
        await self._runner.cleanup()
        if self._server is not None and self._listen.startswith("/"):
            unix_socket.remove(Path(self._listen))

    @web.middleware
    async def _loopback_only(
        self, request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        """Refuse requests that do not name us by a loopback name: a page elsewhere whose name resolves to us (DNS
        rebinding) may not read what is served.
        """
        if not self._listen.startswith("/"):
            name = request.host.rpartition(":")[0] if request.host.rpartition(":")[2].isdigit() else request.host
            if name.lower() not in _LOCAL:
                problem = "only requests to a loopback name are served: a proxy must send Host: 127.0.0.1"
                if self._actions is not None and request.method == "POST":
                    raise self._actions.refused(problem)
                raise web.HTTPForbidden(text=f"{problem}\n")
        response = await handler(request)
        if not response.prepared:
            response.headers.update(_HEADERS)
        return response

    async def _page(self, _: web.Request) -> web.StreamResponse:
        """The page with the data of this moment in it, so that one request shows the whole of it."""
        hosts = await self._crawl.hosts(text="", state="", sort="broken", limit=HOSTS_SHOWN)
        data = b'{"status":%b,"history":%b,"hosts":%b}' % (
            self._status_bytes(), orjson.dumps(self._crawl.history()), orjson.dumps(hosts),
        )  # fmt: skip
        page = (STATIC / "index.html").read_bytes().replace(INITIAL_DATA, in_script(data))
        return web.Response(body=page, content_type="text/html", charset="utf-8")

    async def _status(self, _: web.Request) -> web.StreamResponse:
        return _json(self._status_bytes())

    def _status_bytes(self) -> bytes:
        now = self._clock.mono()
        if now - self._status_mono >= STATUS_MAX_AGE_S:
            self._status_json, self._status_mono = orjson.dumps(self._crawl.status()), now
        return self._status_json

    async def _history(self, _: web.Request) -> web.StreamResponse:
        return _json(orjson.dumps(self._crawl.history()))

    async def _busiest_hosts(self, _: web.Request) -> web.StreamResponse:
        try:
            found = await self._crawl.hosts(text="", state="", sort="busy", limit=BUSIEST_SHOWN)
        except FrontierFull as error:
            raise web.HTTPServiceUnavailable(text=f"{error}\n") from None
        return _json(orjson.dumps(found["hosts"]))

    async def _find_hosts(self, request: web.Request) -> web.StreamResponse:
        query = request.query
        text, state, sort = query.get("text", ""), query.get("state", ""), query.get("sort", "broken")
        limit = query.get("limit", str(HOSTS_SHOWN))
        if state not in HOST_STATES or sort not in HOST_SORTS or len(text) > MAX_HOST_LENGTH:
            raise web.HTTPBadRequest(text=f"state is one of {_words(HOST_STATES)}; sort one of {_words(HOST_SORTS)}\n")
        if not (limit.isascii() and limit.isdigit() and 1 <= int(limit[:9]) <= MOST_HOSTS):
            raise web.HTTPBadRequest(text=f"limit is a number from 1 to {MOST_HOSTS}\n")
        try:
            async with self._searching:
                return _json(orjson.dumps(await self._crawl.hosts(text=text, state=state, sort=sort, limit=int(limit))))
        except FrontierFull as error:  # a database that is away
            raise web.HTTPServiceUnavailable(text=f"{error}\n") from None

    async def _last_attempts(self, request: web.Request) -> web.StreamResponse:
        host = request.query.get("host", "")
        if not host or len(host) > MAX_HOST_LENGTH:
            raise web.HTTPBadRequest(text=f"/api/attempts?host=…, of at most {MAX_HOST_LENGTH} characters\n")
        async with self._searching:
            return _json(orjson.dumps(await self._crawl.last_attempts(host)))

    async def _why(self, request: web.Request) -> web.StreamResponse:
        url = request.query.get("url", "")
        if not url or len(url) > MAX_URL_LENGTH:
            raise web.HTTPBadRequest(text=f"/api/why?url=…, of at most {MAX_URL_LENGTH} characters\n")
        try:
            return _json(orjson.dumps(await self._crawl.why(url)))
        except FileNotFoundError as error:  # the crawl has no file to look into
            raise web.HTTPNotFound(text=f"{error.strerror}\n") from None

    async def _metrics(self, _: web.Request) -> web.StreamResponse:
        return web.Response(body=self._crawl.metrics().encode(), headers={"Content-Type": metrics.CONTENT_TYPE})

    async def _healthz(self, _: web.Request) -> web.StreamResponse:
        """A response shows that the event loop runs; its status, that the crawl makes progress."""
        stall = self._crawl.stall()
        return web.Response(status=503 if stall else 200, text=f"{stall or 'ok'}\n")

    async def _readyz(self, _: web.Request) -> web.StreamResponse:
        ready = self._crawl.is_ready()
        return web.Response(status=200 if ready else 503, text="ready\n" if ready else "draining\n")

    async def _events(self, request: web.Request) -> web.StreamResponse:
        """Server-sent events: the status every STREAM_INTERVAL_S. A slow client misses some; one that stops reading is
        disconnected.
        """
        if self.streams >= MAX_STREAMS:
            raise web.HTTPServiceUnavailable(text="too many clients of the event stream\n")
        response = web.StreamResponse(headers=_HEADERS | {"Content-Type": "text/event-stream"})
        self.streams += 1
        try:
            await response.prepare(request)
            while not self._closing.is_set():
                async with asyncio.timeout(WRITE_TIMEOUT_S):
                    await response.write(b"data: " + self._status_bytes() + b"\n\n")
                await asyncio.sleep(STREAM_INTERVAL_S)
        except (ConnectionError, TimeoutError):
            if request.transport is not None:
                request.transport.abort()  # drops what is buffered for it
        finally:
            self.streams -= 1
        return response


def in_script(json: bytes) -> bytes:
    """The same JSON without "<": URLs and texts of others in it could end the script element around it."""
    return json.replace(b"<", b"\\u003c")


def _words(words: Iterable[str]) -> str:
    return ", ".join(filter(None, words))


def _json(body: bytes) -> web.Response:
    return web.Response(body=body, content_type="application/json")
