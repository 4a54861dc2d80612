"""The status page, its JSON, the metrics and the health checks over HTTP: on loopback or a Unix socket, read-only.

aiohttp serves; it takes no signals and is imported only where `admin.listen` is set. A status is made at most once a
second, however many watch. Invariants: nothing here changes the crawl; there are MAX_CONNECTIONS at most; a head that
is not there after HEAD_S is given up, and so is a reader that does not read after twice WRITE_S; no address but our own
is named in what is served.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any, Final, Protocol

import orjson
from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

from crawler.admin import metrics, socket_path
from crawler.core.clock import Clock
from crawler.core.formatting import naming_key

KEY: Final = "admin.listen"
STATIC: Final = Path(__file__).parent / "static"
FRESH_S: Final = 1.0
EVERY_S: Final = 2.0
WRITE_S: Final = 10.0
HEAD_S: Final = 20.0  # for the whole head of a request, and between two on one connection
MAX_CONNECTIONS: Final = 512
MAX_STREAMS: Final = 200
FIRST: Final = b"{{first}}"  # where it stands in the page
MAX_ASKED: Final = 4_096  # characters of a URL in the why box
_LOCAL: Final = frozenset({"localhost", "127.0.0.1", "[::1]"})
_HEADERS: Final = {
    "Content-Security-Policy": "default-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; "
    "frame-ancestors 'none'; base-uri 'none'; form-action 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}


class Watched(Protocol):
    """The crawl, as the page sees it."""

    def status(self) -> Mapping[str, Any]:
        """As `crawler status --json`."""

    def history(self) -> Mapping[str, Any]:
        """Columns of the last hour."""

    def hosts(self) -> list[dict[str, Any]]:
        """The busiest hosts."""

    def metrics(self) -> str:
        """In Prometheus's text format."""

    def trouble(self) -> str:
        """What stands still; "" while all is well."""

    def is_ready(self) -> bool:
        """Whether it crawls: not while it drains."""

    async def why(self, url: str) -> Mapping[str, Any]:
        """As `crawler why URL --json`."""


class _HttpRefusal(asyncio.Protocol):
    """Hangs up at once."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        transport.close()


def _logger() -> logging.Logger:
    """aiohttp's, without what it says of requests that are no HTTP or too large: those are their senders' faults."""
    logger = logging.getLogger("crawler.admin.status_page")
    if not logger.filters:
        logger.addFilter(_is_ours)
    return logger


def _is_ours(record: logging.LogRecord) -> bool:
    return not (record.exc_info and isinstance(record.exc_info[1], HttpProcessingError))


class WebServer:
    """`listen` is "127.0.0.1:9090", "[::1]:9090", "localhost:9090" or the path of a Unix socket."""

    def __init__(self, listen: str, watched: Watched, clock: Clock) -> None:
        self._listen = listen
        self._watched = watched
        self._clock = clock
        self._made_mono = -1e9
        self._made = b""
        self._streams = 0
        self._closing = asyncio.Event()
        self._runner: web.AppRunner | None = None
        self._server: asyncio.Server | None = None
        self._sweeping: asyncio.Task[None] | None = None

    @property
    def streams(self) -> int:
        """How many watch the event stream."""
        return self._streams

    @property
    def connections(self) -> int:
        """How many are open."""
        return 0 if self._runner is None or self._runner.server is None else len(self._runner.server.connections)

    async def open(self) -> None:
        """Listen and serve. Raises OSError, SocketTaken."""
        application = web.Application(middlewares=[self._guarded], client_max_size=1_024)
        for path, handler in self._routes().items():
            application.router.add_get(path, handler)
        application.router.add_static("/static/", STATIC)
        self._runner = runner = web.AppRunner(
            application,
            handle_signals=False,
            access_log=None,
            shutdown_timeout=0.5,
            keepalive_timeout=HEAD_S,
            logger=_logger(),
        )
        await runner.setup()
        loop = asyncio.get_running_loop()
        if self._listen.startswith("/"):
            sock = socket_path.listen(Path(self._listen), mode=0o660, key=KEY)
            self._server = await loop.create_unix_server(self._accept, sock=sock)
        else:
            host, _, port = self._listen.rpartition(":")
            with naming_key(KEY, self._listen):
                self._server = await loop.create_server(
                    self._accept, host.strip("[]"), int(port), backlog=MAX_CONNECTIONS
                )
        self._sweeping = loop.create_task(self._sweep(), name="web-sweep")

    def _accept(self) -> asyncio.Protocol:
        """The protocol of a new connection; beyond MAX_CONNECTIONS one that hangs up."""
        server = self._runner.server if self._runner is not None else None
        return _HttpRefusal() if server is None or len(server.connections) >= MAX_CONNECTIONS else server()

    async def _sweep(self) -> None:
        """Give up readers that take nothing: what is written to them has not moved for WRITE_S."""
        before: dict[object, int] = {}
        while True:
            await asyncio.sleep(WRITE_S)
            now: dict[object, int] = {}
            server = self._runner.server if self._runner is not None else None
            for one in server.connections if server is not None else ():
                held = one.transport.get_write_buffer_size() if one.transport is not None else 0
                if held and before.get(one) == held and one.transport is not None:
                    one.transport.abort()
                elif held:
                    now[one] = held
            before = now

    async def close(self) -> None:
        self._closing.set()
        if self._sweeping is not None:
            self._sweeping.cancel()
        if self._server is not None:
            self._server.close()
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None
            if self._listen.startswith("/"):
                socket_path.remove(Path(self._listen))

    def _routes(self) -> dict[str, Callable[[web.Request], Awaitable[web.StreamResponse]]]:
        return {
            "/": self._page,
            "/api/status": self._status,
            "/api/history": self._history,
            "/api/hosts": self._hosts,
            "/api/why": self._why,
            "/api/events": self._events,
            "/metrics": self._metrics,
            "/healthz": self._healthz,
            "/readyz": self._readyz,
        }

    @web.middleware
    async def _guarded(
        self, request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        """Only for those who name us by a loopback name: a page elsewhere whose name was made to lead here (DNS
        rebinding) may not read what is served.
        """
        if not self._listen.startswith("/"):
            name = request.host.rpartition(":")[0] if request.host.rpartition(":")[2].isdigit() else request.host
            if name.lower() not in _LOCAL:
                raise web.HTTPForbidden(text="ask by a loopback name\n")
        response = await handler(request)
        if not response.prepared:
            response.headers.update(_HEADERS)
        return response

    async def _page(self, _: web.Request) -> web.StreamResponse:
        """With the state of this moment in it: whoever looks once sees it, without a second request."""
        first = b'{"status":%b,"history":%b,"hosts":%b}' % (
            self._status_bytes(), orjson.dumps(self._watched.history()), orjson.dumps(self._watched.hosts()),
        )  # fmt: skip
        page = (STATIC / "index.html").read_bytes().replace(FIRST, in_script(first))
        return web.Response(body=page, content_type="text/html", charset="utf-8")

    async def _status(self, _: web.Request) -> web.StreamResponse:
        return _json(self._status_bytes())

    def _status_bytes(self) -> bytes:
        now = self._clock.mono()
        if now - self._made_mono >= FRESH_S:
            self._made, self._made_mono = orjson.dumps(self._watched.status()), now
        return self._made

    async def _history(self, _: web.Request) -> web.StreamResponse:
        return _json(orjson.dumps(self._watched.history()))

    async def _hosts(self, _: web.Request) -> web.StreamResponse:
        return _json(orjson.dumps(self._watched.hosts()))

    async def _why(self, request: web.Request) -> web.StreamResponse:
        url = request.query.get("url", "")
        if not url or len(url) > MAX_ASKED:
            raise web.HTTPBadRequest(text=f"/api/why?url=…, of {MAX_ASKED} characters at most\n")
        return _json(orjson.dumps(await self._watched.why(url)))

    async def _metrics(self, _: web.Request) -> web.StreamResponse:
        return web.Response(body=self._watched.metrics().encode(), headers={"Content-Type": metrics.CONTENT_TYPE})

    async def _healthz(self, _: web.Request) -> web.StreamResponse:
        """That this is answered shows that the loop turns; what it says, that the crawl goes on."""
        trouble = self._watched.trouble()
        return web.Response(status=503 if trouble else 200, text=f"{trouble or 'ok'}\n")

    async def _readyz(self, _: web.Request) -> web.StreamResponse:
        ready = self._watched.is_ready()
        return web.Response(status=200 if ready else 503, text="ready\n" if ready else "draining\n")

    async def _events(self, request: web.Request) -> web.StreamResponse:
        """Server-sent events: the status every EVERY_S. Whoever falls behind misses some; whoever stops reading is
        given up.
        """
        if self._streams >= MAX_STREAMS:
            raise web.HTTPServiceUnavailable(text="too many watch already\n")
        response = web.StreamResponse(headers=_HEADERS | {"Content-Type": "text/event-stream"})
        self._streams += 1
        try:
            await response.prepare(request)
            while not self._closing.is_set():
                async with asyncio.timeout(WRITE_S):
                    await response.write(b"data: " + self._status_bytes() + b"\n\n")
                await asyncio.sleep(EVERY_S)
        except (ConnectionError, TimeoutError):
            if request.transport is not None:
                request.transport.abort()  # what is buffered for it is dropped
        finally:
            self._streams -= 1
        return response


def in_script(json: bytes) -> bytes:
    """The same JSON without a character that could end the script element around it: URLs and reasons are others'."""
    return json.replace(b"<", b"\\u003c")


def _json(body: bytes) -> web.Response:
    return web.Response(body=body, content_type="application/json")
