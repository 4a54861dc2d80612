"""An HTTP proxy over real sockets: CONNECT tunnels, absolute-form requests, and credentials if it has any.

    async with proxy(credentials="user:pass") as p:
        ... p.port, p.connects, p.plain, p.heads

It resolves no names: every host is at 127.0.0.1, with the requested port. `answer` replaces its response to CONNECT.
The head of each request is kept as it came.
"""

import asyncio
import base64
import contextlib
from collections.abc import AsyncIterator
from urllib.parse import urlsplit

DENIED = b"HTTP/1.1 407 Proxy Authentication Required\r\nProxy-Authenticate: Basic\r\nContent-Length: 4\r\n\r\nno!\n"
OPENED = b"HTTP/1.1 200 Connection established\r\n\r\n"


class RunningProxy:
    def __init__(self, credentials: str | None, answer: bytes | None) -> None:
        encoded = None if credentials is None else base64.b64encode(credentials.encode())
        self._wanted = None if encoded is None else b"\r\nProxy-Authorization: Basic " + encoded + b"\r\n"
        self._answer = answer
        self._tasks: set[asyncio.Task[None]] = set()
        self.port = 0
        self.accepted = 0
        self.heads: list[bytes] = []

    @property
    def connects(self) -> list[str]:
        """The authorities of the requested tunnels."""
        return [head.split(b" ")[1].decode() for head in self.heads if head.startswith(b"CONNECT ")]

    @property
    def plain(self) -> list[str]:
        """The targets of the other requests."""
        return [head.split(b" ")[1].decode() for head in self.heads if not head.startswith(b"CONNECT ")]

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self.accepted += 1
        try:
            with contextlib.suppress(OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
                while await self._serve_one(reader, writer):
                    pass
        finally:
            writer.transport.abort()
            self._tasks.discard(task)

    async def _serve_one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        head = await reader.readuntil(b"\r\n\r\n")
        self.heads.append(head)
        method, target = head.split(b" ")[:2]
        if self._wanted is not None and self._wanted not in head:
            writer.write(DENIED)
            await writer.drain()
            return True
        if method == b"CONNECT":
            if self._answer is not None:
                writer.write(self._answer)
                await writer.drain()
                await reader.read(1)
                return False
            upstream = await asyncio.open_connection("127.0.0.1", int(target.rpartition(b":")[2]))
            writer.write(OPENED)
            await self._relay((reader, writer), upstream)
            return False
        url = urlsplit(target.decode())
        from_server, to_server = await asyncio.open_connection("127.0.0.1", url.port or 80)
        _, _, fields = head.partition(b"\r\n")
        kept = [f for f in fields.split(b"\r\n") if not f.lower().startswith(b"proxy-authorization:")]
        path = url.path + (f"?{url.query}" if url.query else "")
        to_server.write(b"GET " + path.encode() + b" HTTP/1.1\r\n" + b"\r\n".join(kept))
        answer = await from_server.readuntil(b"\r\n\r\n")
        length = next(int(f.split(b":")[1]) for f in answer.split(b"\r\n") if f.lower().startswith(b"content-length:"))
        writer.write(answer + await from_server.readexactly(length))
        await writer.drain()
        to_server.transport.abort()
        return True

    async def _relay(
        self,
        client: tuple[asyncio.StreamReader, asyncio.StreamWriter],
        server: tuple[asyncio.StreamReader, asyncio.StreamWriter],
    ) -> None:
        async def copy(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
            with contextlib.suppress(OSError):
                while data := await source.read(65_536):
                    sink.write(data)
                    await sink.drain()
                sink.write_eof()

        try:
            await asyncio.gather(copy(client[0], server[1]), copy(server[0], client[1]))
        finally:
            server[1].transport.abort()

    async def end(self) -> None:
        for task in list(self._tasks):
            task.cancel()
        if self._tasks:
            await asyncio.wait(list(self._tasks))


@contextlib.asynccontextmanager
async def proxy(*, credentials: str | None = None, answer: bytes | None = None) -> AsyncIterator[RunningProxy]:
    """A proxy on a free port of 127.0.0.1."""
    running = RunningProxy(credentials, answer)
    listener = await asyncio.start_server(running, "127.0.0.1", 0, backlog=128)
    running.port = listener.sockets[0].getsockname()[1]
    try:
        yield running
    finally:
        listener.close()
        await running.end()
        await listener.wait_closed()
