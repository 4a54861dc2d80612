"""`python -m bench.trips`: how much time a warmed pool saves if every round trip takes 100 ms.

A TLS server is behind a relay that delays every byte by half a round trip each way, and a new connection by one more
(the TCP handshake, which takes no time on loopback). 1,000 pages are fetched three times: one by one over fresh
connections, 50 at a time over fresh connections, and through a warmed pool of 50 connections. All three use this
program's own pool; a fresh connection serves one request.
"""

import argparse
import asyncio
import json
import ssl
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import trustme
import uvloop

from crawler.core.models import Fetched, Origin, Task
from crawler.engine.engine import SystemClock
from crawler.fetch.http_client import HttpClient
from crawler.settings.loading import load

TRIP_S = 0.1
BODY = b"<html><body>" + b"x" * 8_000 + b"</body></html>"
RESPONSE = b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: %d\r\n\r\n" % len(BODY) + BODY


class NoRateLimit:
    """No politeness: the server is ours."""

    def enter(self, address: str) -> float | None:
        return None

    def leave(self, address: str) -> None:
        return None


async def _serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while await reader.readuntil(b"\r\n\r\n"):
            writer.write(RESPONSE)
            await writer.drain()
    except (asyncio.IncompleteReadError, ConnectionError, ssl.SSLError):
        pass
    finally:
        writer.transport.abort()


async def _delay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, first_s: float) -> None:
    """Pass bytes on half a round trip after they came, and the first ones `first_s` later than that."""
    loop = asyncio.get_running_loop()
    extra_s = first_s
    while data := await reader.read(1 << 16):
        loop.call_later(TRIP_S / 2 + extra_s, writer.write, data)
        extra_s = 0.0
        if first_s:
            await asyncio.sleep(first_s)  # later bytes must not overtake the first
            first_s = 0.0
    loop.call_later(TRIP_S / 2, writer.transport.abort)


@asynccontextmanager
async def slow_server(folder: Path) -> AsyncIterator[int]:
    """Yields the relay's port; the CA is folder/ca.pem."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(folder / "ca.pem")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(context)
    server = await asyncio.start_server(_serve, "127.0.0.1", 0, ssl=context, backlog=1024)
    behind = server.sockets[0].getsockname()[1]

    async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        back_reader, back_writer = await asyncio.open_connection("127.0.0.1", behind)
        await asyncio.gather(
            _delay(reader, back_writer, TRIP_S), _delay(back_reader, writer, 0.0), return_exceptions=True
        )

    front = await asyncio.start_server(relay, "127.0.0.1", 0, backlog=1024)
    async with server, front:
        yield front.sockets[0].getsockname()[1]


async def fetch_all(client: HttpClient, origin: Origin, pages: int, at_once: int) -> float:
    """Fetch so many pages. Returns the seconds; fails for an incomplete response."""
    numbers = iter(range(pages))

    async def work() -> None:
        for n in numbers:
            result = await client.fetch(origin, Task(n, f"{origin}/{n}"))
            if not isinstance(result, Fetched) or result.payload.size != len(BODY):
                raise SystemExit(f"a fetch failed: {result}")

    begun = time.monotonic()
    async with asyncio.TaskGroup() as group:
        for _ in range(at_once):
            group.create_task(work())
    return time.monotonic() - begun


def client_for(folder: Path, *, at_once: int, fresh: bool) -> HttpClient:
    """A client of this program. `fresh`: a connection serves one request."""
    options = [
        'crawl.seeds=["https://localhost/"]',
        'network.allow_private=["127.0.0.0/8"]',
        'network.resolve={"localhost"=["127.0.0.1"]}',
        f"network.ca_file={json.dumps(str(folder / 'ca.pem'))}",
        "politeness.delay=0",
        f"politeness.connections_per_host={at_once}",
        f"politeness.connections_per_address={at_once}",
    ]
    if fresh:
        options.append("fetch.max_requests_per_connection=1")
    settings = load(None, options, {}, "crawl").settings
    return HttpClient(settings.client_options(), clock=SystemClock(), address_limiter=NoRateLimit(), memory=64 << 20)


async def measure(pages: int, alone: int) -> None:
    """Print the times of all three, and their ratios."""
    with tempfile.TemporaryDirectory(prefix="crawler-bench-") as name:
        folder = Path(name)
        async with slow_server(folder) as port:
            origin = Origin("https", "localhost", port)
            seconds: dict[str, float] = {}
            for words, count, at_once, fresh in (
                ("one by one, fresh connections", alone, 1, True),
                ("50 at a time, fresh connections", pages, 50, True),
                ("warmed pool of 50", pages, 50, False),
            ):
                client = client_for(folder, at_once=at_once, fresh=fresh)
                if not fresh:
                    await fetch_all(client, origin, 50, 50)
                taken = await fetch_all(client, origin, count, at_once)
                seconds[words] = taken * pages / count
                await client.close()
                scaled = "" if count == pages else f" (scaled from {count})"
                print(f"{words:34} {seconds[words]:7.2f} s for {pages} pages{scaled}", flush=True)
            warmed = seconds["warmed pool of 50"]
            for words, taken in seconds.items():
                print(f"the warmed pool is {taken / warmed:6.1f} times as fast as {words}")


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.trips", description=__doc__)
    parser.add_argument("--pages", type=int, default=1_000)
    parser.add_argument("--alone", type=int, default=100, help="pages of the one-by-one run, scaled to --pages")
    chosen = parser.parse_args(argv)
    uvloop.run(measure(chosen.pages, min(chosen.alone, chosen.pages)))


if __name__ == "__main__":
    main()
