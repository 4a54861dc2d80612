"""The status page's server: over real sockets, for one client, for a hundred, and for those that do not read."""

import asyncio
import errno
import json
import logging
import re
import tempfile
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from crawler.admin import status_page
from crawler.admin.status_page import WebServer
from crawler.engine.engine import SystemClock
from tests.support.sockets import free_port


class StubCrawl:
    """A crawl that says what it is told to."""

    def __init__(self) -> None:
        self.made = 0
        self.stalled = ""
        self.ready = True
        self.filling = ""

    def status(self) -> Mapping[str, Any]:
        self.made += 1
        return {"state": "crawling", "filling": self.filling}

    def history(self) -> Mapping[str, Any]:
        return {"at": []}

    async def hosts(self, **search: Any) -> Mapping[str, Any]:
        return {"total": 1, "matching": 1, "hosts": [{"host": "https://a.test"}], "search": search}

    async def last_attempts(self, host: str) -> list[dict[str, Any]]:
        return [{"server_address": host}]

    def metrics(self) -> str:
        return "crawler_inflight 0\n"

    def stall(self) -> str:
        return self.stalled

    def is_ready(self) -> bool:
        return self.ready

    async def why(self, url: str) -> Mapping[str, Any]:
        return {"url": url}


@asynccontextmanager
async def serving(watched: StubCrawl) -> AsyncIterator[tuple[WebServer, int]]:
    port = free_port()
    server = WebServer(f"127.0.0.1:{port}", watched, SystemClock())
    await server.open()
    try:
        yield server, port
    finally:
        await server.close()


async def ask(port: int, target: str, host: str = "127.0.0.1", method: str = "GET") -> tuple[int, str, str]:
    """Status, head and body of one request."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(f"{method} {target} HTTP/1.1\r\nHost: {host}:{port}\r\nConnection: close\r\n\r\n".encode())
    head, _, body = (await reader.read()).partition(b"\r\n\r\n")
    writer.close()
    await writer.wait_closed()
    return int(head.split()[1]), head.decode(), body.decode()


async def test_everything_is_served() -> None:
    """The page and its parts, JSON, metrics, health."""
    async with serving(StubCrawl()) as (_, port):
        for target, kind, words in [
            ("/", "text/html", "<title>crawler</title>"),
            ("/static/page.js", "javascript", "EventSource"),
            ("/static/uplot.js", "javascript", "uPlot"),
            ("/api/status", "application/json", '"crawling"'),
            ("/api/history", "application/json", '"at"'),
            ("/api/hosts", "application/json", '[{"host":"https://a.test"}]'),
            ("/api/find_hosts?text=a&state=held&sort=queued&limit=500", "application/json", '"limit":500'),
            ("/api/attempts?host=a.test", "application/json", '[{"server_address":"a.test"}]'),
            ("/api/why?url=https://a.test/x%3Fy", "application/json", "https://a.test/x?y"),
            ("/metrics", "text/plain; version=0.0.4", "crawler_inflight"),
            ("/healthz", "text/plain", "ok"),
            ("/readyz", "text/plain", "ready"),
        ]:
            status, head, body = await ask(port, target)
            assert (status, target) == (200, target)
            assert kind in head
            assert words in body


async def test_the_page_comes_with_the_state() -> None:
    """One request is enough to see it; and what a crawl found on the web cannot end the element it stands in."""
    watched = StubCrawl()
    watched.filling = "</script><script>alert(1)</script><!-- {{first}}"
    async with serving(watched) as (_, port):
        _, _, page = await ask(port, "/?still")
    assert page.count("<script") == page.count("</script>") == 3
    found = re.search(r'<script type="application/json" id="first">([^<]*)</script>', page)
    assert found is not None
    first = json.loads(found.group(1))
    assert first == {
        "status": watched.status(),
        "history": watched.history(),
        "hosts": await watched.hosts(text="", state="", sort="broken", limit=20),
    }


async def test_health_and_readiness_are_two_things() -> None:
    """A crawl that stands still is ill, one that drains is not ready."""
    watched = StubCrawl()
    async with serving(watched) as (_, port):
        watched.stalled = "nothing has happened for 130 s: store"
        assert (await ask(port, "/healthz"))[::2] == (503, "nothing has happened for 130 s: store\n")
        assert (await ask(port, "/readyz"))[0] == 200
        watched.stalled, watched.ready = "", False
        assert (await ask(port, "/healthz"))[0] == 200
        assert (await ask(port, "/readyz"))[0] == 503


async def test_a_store_that_explains_no_url_is_named() -> None:
    """One in PostgreSQL, which only `crawler why` reads."""

    class WithoutFile(StubCrawl):
        async def why(self, url: str) -> Mapping[str, Any]:
            raise FileNotFoundError(errno.ENOENT, "the store is elsewhere", url)

    async with serving(WithoutFile()) as (_, port):
        status, _, body = await ask(port, "/api/why?url=https://a.test/")
        assert (status, body.strip()) == (404, "the store is elsewhere")


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE"])
async def test_it_is_read_only(method: str) -> None:
    """Nothing can be sent to it."""
    async with serving(StubCrawl()) as (_, port):
        for target in ("/", "/api/status", "/api/why?url=x"):
            assert (await ask(port, target, method=method))[0] == 405


async def test_a_name_that_was_made_to_lead_here_is_refused() -> None:
    """DNS rebinding: another page's script may not read what a local one may."""
    async with serving(StubCrawl()) as (_, port):
        assert (await ask(port, "/api/status", host="evil.example"))[0] == 403
        assert (await ask(port, "/api/events", host="evil.example"))[0] == 403
        assert (await ask(port, "/api/status", host="localhost"))[0] == 200


@pytest.mark.parametrize(
    "target",
    ["/nothing", "/static/../web.py", "/static/%2e%2e/web.py", "/api/why", "/api/why?url=", "/api/attempts",
     "/api/find_hosts?state=ill", "/api/find_hosts?sort=x", "/api/find_hosts?limit=0", "/api/find_hosts?limit=x",
     "/api/find_hosts?limit=501", f"/api/find_hosts?text={'x' * 256}", f"/api/attempts?host={'x' * 256}"],
)  # fmt: skip
async def test_an_unknown_path_is_404(target: str) -> None:
    """No traceback, no file from elsewhere."""
    async with serving(StubCrawl()) as (_, port):
        status, _, body = await ask(port, target)
        assert status in (400, 403, 404)
        assert "Traceback" not in body
        assert "import" not in body


async def test_no_foreign_address_is_named() -> None:
    """Everything that is served comes from here; what uPlot's licence line names is not loaded."""
    for path in status_page.STATIC.iterdir():
        if path.suffix in (".html", ".css", ".js") and not path.name.startswith("uplot"):
            found = re.findall(r"""(?:https?:)?//[^\s"'`)]+""", path.read_text())
            assert [url for url in found if not url.startswith("// ") and "…" not in url] == [], path
    async with serving(StubCrawl()) as (_, port):
        assert "default-src 'self'" in (await ask(port, "/"))[1]


async def test_a_hundred_watchers_share_one_status(monkeypatch: pytest.MonkeyPatch) -> None:
    """However many look, a status is made once a second."""
    monkeypatch.setattr(status_page, "STREAM_INTERVAL_S", 0.05)
    watched = StubCrawl()
    async with serving(watched) as (server, port):
        watchers = [await watch(port) for _ in range(100)]
        for reader, _ in watchers:
            for _ in range(3):
                assert json.loads((await event(reader)).removeprefix(b"data: "))["state"] == "crawling"
        assert server.streams == 100
        assert watched.made <= 5
        for _, writer in watchers:
            writer.close()
        async with asyncio.timeout(20):
            while server.streams:
                await asyncio.sleep(0.01)


async def watch(port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1 << 16)
    writer.write(b"GET /api/events HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
    head = await reader.readuntil(b"\r\n\r\n")
    assert b"text/event-stream" in head
    return reader, writer


async def event(reader: asyncio.StreamReader) -> bytes:
    while not (line := await reader.readline()).startswith(b"data: "):
        assert line
    return line


async def test_a_watcher_that_does_not_read_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """What it does not take is not kept for it; others are served meanwhile."""
    monkeypatch.setattr(status_page, "WRITE_TIMEOUT_S", 0.2)
    monkeypatch.setattr(status_page, "STREAM_INTERVAL_S", 0.001)
    watched = StubCrawl()
    watched.filling = "x" * 1_000_000
    async with serving(watched) as (server, port):
        _, writer = await watch(port)
        writer.transport.pause_reading()
        async with asyncio.timeout(20):
            while server.streams:
                assert (await ask(port, "/healthz"))[0] == 200
        writer.close()


async def test_more_watchers_than_places_are_sent_away(monkeypatch: pytest.MonkeyPatch) -> None:
    """And the page's other parts go on."""
    monkeypatch.setattr(status_page, "MAX_STREAMS", 2)
    async with serving(StubCrawl()) as (_, port):
        watchers = [await watch(port) for _ in range(2)]
        assert (await ask(port, "/api/events"))[0] == 503
        assert (await ask(port, "/api/status"))[0] == 200
        for _, writer in watchers:
            writer.close()


async def test_it_listens_on_a_unix_socket_too() -> None:
    """Mode 0660; there no name is asked for."""
    with tempfile.TemporaryDirectory(prefix="web") as folder:
        path = Path(folder) / "page.sock"
        server = WebServer(str(path), StubCrawl(), SystemClock())
        await server.open()
        reader, writer = await asyncio.open_unix_connection(str(path))
        writer.write(b"GET /healthz HTTP/1.1\r\nHost: anything\r\nConnection: close\r\n\r\n")
        assert (await reader.read()).startswith(b"HTTP/1.1 200 OK")
        assert path.stat().st_mode & 0o777 == 0o660
        writer.close()
        await server.close()
        assert not path.exists()


async def test_a_head_that_never_ends_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """Dripped or not begun; what is asked meanwhile is answered, and a connection may ask again within the time."""
    monkeypatch.setattr(status_page, "HEAD_TIMEOUT_S", 0.3)
    async with serving(StubCrawl()) as (_, port), asyncio.timeout(20):
        silent, silent_writer = await asyncio.open_connection("127.0.0.1", port)
        slow, slow_writer = await asyncio.open_connection("127.0.0.1", port)
        slow_writer.write(b"GET /healthz HTTP/1.1\r\n")
        while not (slow.at_eof() or slow_writer.is_closing()):
            slow_writer.write(b"X: y\r\n")
            assert (await ask(port, "/healthz"))[0] == 200
            with suppress(TimeoutError, ConnectionError):
                async with asyncio.timeout(0.05):
                    await slow.read(1)
        assert await silent.read() == b""
        silent_writer.close()
        slow_writer.close()


async def test_more_connections_than_places_are_hung_up_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those that are there go on; a place that is given back is taken."""
    monkeypatch.setattr(status_page, "MAX_CONNECTIONS", 3)
    async with serving(StubCrawl()) as (_, port), asyncio.timeout(20):
        held = [await asyncio.open_connection("127.0.0.1", port) for _ in range(3)]
        held[0][1].write(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert await held[0][0].readline() == b"HTTP/1.1 200 OK\r\n"
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        with suppress(ConnectionError):
            assert await reader.read() == b""
        writer.close()
        held[1][1].close()
        status = 0
        while status != 200:
            with suppress(IndexError, ConnectionError):  # until the server has seen it go
                status, _, _ = await ask(port, "/healthz")
        for _, one in held:
            one.close()


async def test_a_page_that_is_not_taken_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """It held its connection and the whole page for ever."""
    monkeypatch.setattr(status_page, "WRITE_TIMEOUT_S", 0.1)
    watched = StubCrawl()
    watched.filling = "x" * 20_000_000
    async with serving(watched) as (server, port), asyncio.timeout(30):
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.transport.pause_reading()
        writer.write(b"GET /api/status HTTP/1.1\r\nHost: localhost\r\n\r\n")
        while not server.connections:
            await asyncio.sleep(0)
        while server.connections:
            await asyncio.sleep(0.01)
        assert (await ask(port, "/healthz"))[0] == 200  # others are served
        writer.close()


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"GET /" + b"x" * 100_000 + b" HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"y" * 100_000 + b"\r\n\r\n",
        b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * 5_000 + b"\r\n",
        b"\x16\x03\x01\x02\x00" + b"\x00" * 50 + b"\r\n\r\n",
        b"GET / HTTP/1.1\r\nno colon\r\n\r\n",
    ],
)
async def test_a_request_that_is_none_is_its_sender_s_fault(
    request_bytes: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    """It is answered 400, and there is no traceback among the crawl's warnings."""
    async with serving(StubCrawl()) as (_, port), asyncio.timeout(20):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(request_bytes)
        with suppress(ConnectionError):
            assert (await reader.read()).startswith(b"HTTP/1.0 400")
        writer.close()
        assert (await ask(port, "/healthz"))[0] == 200
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


async def test_a_fault_of_ours_is_logged(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    """With its traceback; the page goes on."""
    watched = StubCrawl()
    monkeypatch.setattr(watched, "metrics", lambda: 1 / 0)
    async with serving(watched) as (_, port):
        assert (await ask(port, "/metrics"))[0] == 500
        assert (await ask(port, "/healthz"))[0] == 200
    assert any(record.exc_info for record in caplog.records if record.levelno >= logging.ERROR)
