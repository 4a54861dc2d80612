"""A web of honest and hostile hosts in a thread of the test's process, each host at an address of its own.

It has what each kind of hostile host sends, and a log of requests with their times. The name of a host has its kind:
"honest-3.web.test", "bomb-gzip-1.web.test".
"""

import asyncio
import contextlib
import gzip
import threading
import time
import zlib
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import brotli
import uvloop
import zstandard

from tests.support.scripted_server import Accepted, Certificates, Server, ok, serve

HTML = "Content-Type: text/html"
ZEROS = 64 * 1024 * 1024
PIECE = 64 * 1024


def page(n: int, pages: int) -> bytes:
    links = "".join(f'<a href="/{m}.html">x</a>' for m in range(1, pages)) if n == 0 else ""
    return f"<!doctype html><title>{n}</title>{links}<p>{'An honest line of text. ' * 40}".encode()


def _coded(coding: str, body: bytes) -> bytes:
    return ok(body, HTML, f"Content-Encoding: {coding}")


def _zstd(data: bytes) -> bytes:
    return zstandard.ZstdCompressor(level=1).compress(data)


def bombs() -> dict[str, bytes]:
    """Complete responses that are small on the wire and decode to 64 MiB."""
    zeros = bytes(ZEROS)
    packed = gzip.compress(zeros, 1)
    return {
        "bomb-gzip": _coded("gzip", packed),
        "bomb-gzip-twice": _coded("gzip, gzip", gzip.compress(packed)),
        "bomb-deflate": _coded("deflate", zlib.compress(zeros, 1)),
        "bomb-br": _coded("br", brotli.compress(zeros, quality=1)),
        "bomb-zstd": _coded("zstd", _zstd(zeros)),
    }


_START = b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n"
_CHUNKED = _START + b"Transfer-Encoding: chunked\r\n\r\n"
# What is sent first, and what is then sent for ever.
FLOODS: dict[str, tuple[bytes, bytes]] = {
    "flood-fields": (_START, b"a: b\r\n" * 10_000),
    "flood-field": (_START + b"A: ", b"b" * PIECE),
    "flood-informational": (b"", b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" * 1_000),
    "flood-body": (_START + b"\r\n", b"<a href=/x>x</a>" * 4_096),
    "flood-length": (_START + b"Content-Length: 9223372036854775807\r\n\r\n", b"y" * PIECE),
    "flood-chunks": (_CHUNKED, b"1\r\nx\r\n" * 10_000),
    "flood-extended-chunks": (_CHUNKED, b"1;a=b\r\nx\r\n" * 6_000),
    "flood-padded-chunks": (_CHUNKED, b"1 ;\r\nx\r\n" * 7_000),
    "flood-extension": (_CHUNKED + b"5;a=", b"b" * PIECE),
    "flood-trailers": (_CHUNKED + b"0\r\n", b"a: b\r\n" * 10_000),
    "flood-tags": (_START + b"\r\n", b"<a b c d e" * 6_000),
}


async def _flood(a: Accepted, start: bytes, forever: bytes) -> None:
    a.writer.write(start)
    for _ in range(4_000):
        if a.writer.transport.is_closing():
            return
        a.writer.write(forever)
        await a.writer.drain()
        await asyncio.sleep(0)


async def _drip(a: Accepted) -> None:
    a.writer.write(_START + b"Content-Length: 999\r\n\r\n")
    while not a.writer.transport.is_closing():
        a.writer.write(b"x")
        await asyncio.sleep(1)  # the case itself: a byte a second


async def _silence(a: Accepted) -> None:
    await a.client_closed()


async def _half(a: Accepted) -> None:
    await a.send(_START + b"Content-Length: 999\r\n\r\nhalf")
    await a.cut()


async def _reset(a: Accepted) -> None:
    await a.reset()


async def _garbage(a: Accepted) -> None:
    await a.send(b"SSH-2.0-OpenSSH_9.2\r\n")


MANNERS: dict[str, Callable[[Accepted], Awaitable[None]]] = {
    "silent": _silence, "dripping": _drip, "half": _half, "reset": _reset, "garbage": _garbage
}  # fmt: skip


@dataclass
class Web:
    """`asked`: (host, path, monotonic time of the response) of each request."""

    pages: int
    largest: bytes = b""
    bombs: dict[str, bytes] = field(default_factory=dict)
    asked: list[tuple[str, str, float]] = field(default_factory=list)
    port: int = 0

    def url(self, host: str) -> str:
        return f"https://{host}:{self.port}/"

    def times(self, kind: str) -> list[float]:
        """The times of responses of hosts of a kind, without robots.txt, in order."""
        return sorted(at for host, path, at in self.asked if host.startswith(kind) and path != "/robots.txt")

    async def __call__(self, a: Accepted) -> None:
        while path := await a.request():
            lines = a.requests[-1].decode("latin-1").split("\r\n")
            host = next(line[6:] for line in lines if line.lower().startswith("host: ")).partition(":")[0]
            kind = host.partition(".")[0].rpartition("-")[0]
            self.asked.append((host, path, time.monotonic()))
            if path == "/robots.txt":
                await a.send(ok(b"User-agent: *\nDisallow:\n", "Content-Type: text/plain"))
            elif kind == "honest":
                n = int(path[1:].partition(".")[0] or 0)
                await a.send(ok(page(n, self.pages), HTML))
            elif kind == "largest":
                a.writer.write(ok(self.largest, HTML))
                await a.flush()
            elif kind in self.bombs:
                await a.send(self.bombs[kind])
            elif kind in FLOODS:
                await _flood(a, *FLOODS[kind])
                return
            else:
                await MANNERS[kind](a)
                return


def address_of(number: int) -> str:
    """An address of its own for each host, so that politeness by address changes nothing."""
    return f"127.1.{number // 200}.{number % 200 + 1}"


@contextlib.contextmanager
def web_in_a_thread(directory: Path, web: Web) -> Iterator[str]:
    """Serve `web` on every address. Yields the file of the CA."""
    certificates = Certificates(directory)
    tls = certificates.server("*.web.test")
    loop = uvloop.new_event_loop()
    started, ended = threading.Event(), asyncio.Event()

    async def main() -> None:
        server: Server
        async with serve(web, tls=tls, host="0.0.0.0") as server:
            web.port = server.port
            started.set()
            await ended.wait()

    thread = threading.Thread(target=loop.run_until_complete, args=(main(),))
    thread.start()
    assert started.wait(20)
    try:
        yield certificates.ca_file
    finally:
        loop.call_soon_threadsafe(ended.set)
        thread.join()
        loop.close()
