"""A server that runs a script of the test for each connection, over TLS or plain TCP, in the test's event loop.

    async def script(c: Accepted) -> None:      # runs once for each accepted connection
        while await c.request():                # one request's path, "" at the end of the stream
            await c.send(ok(b"hello"))

    async with serve(script, tls=certificates.server("a.test")) as server:
        ... server.port, server.accepted[0].requests, server.accepted[0].session_reused

A connection whose script returns is closed in order (close_notify, FIN). `table` makes a script from paths. Nothing
here sleeps: scripts wait for an asyncio.Event of the test, or for the client.
"""

import asyncio
import contextlib
import datetime
import fcntl
import socket
import ssl
import struct
import termios
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from pathlib import Path

import trustme


def ok(body: bytes = b"hello", *fields: str, status: str = "200 OK") -> bytes:
    """A response with Content-Length."""
    head = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *fields, "", ""]
    return "\r\n".join(head).encode() + body


def chunked(*chunks: bytes, end: bytes = b"0\r\n\r\n") -> bytes:
    """A chunked response; `end` replaces the last chunk."""
    body = b"".join(b"%x\r\n%s\r\n" % (len(chunk), chunk) for chunk in chunks)
    return b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + body + end


class Accepted:
    """One connection, as the server sees it. `requests` are the heads that came, as bytes."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self.requests: list[bytes] = []
        self.ended = asyncio.Event()  # the script returned and the connection is gone
        ssl_object = writer.get_extra_info("ssl_object")
        self.session_reused: bool | None = None if ssl_object is None else ssl_object.session_reused
        self.tls_version: str | None = None if ssl_object is None else ssl_object.version()

    @property
    def paths(self) -> list[str]:
        return [head.split(b" ", 2)[1].decode() for head in self.requests]

    async def request(self) -> str:
        """Read one request; its path, or "" if the client closed instead."""
        try:
            head = await self.reader.readuntil(b"\r\n\r\n")
        except (asyncio.IncompleteReadError, ConnectionError):
            return ""
        self.requests.append(head)
        return self.paths[-1]

    async def send(self, *pieces: bytes) -> None:
        """Write pieces, each in its own TLS record."""
        for piece in pieces:
            self.writer.write(piece)
            await self.flush()

    async def flush(self) -> None:
        """Wait until the kernel has everything: uvloop writes at the end of an iteration of its loop."""
        with contextlib.suppress(ConnectionError):
            await self.writer.drain()
        for _ in range(3):
            await asyncio.sleep(0)
        while self.writer.transport.get_write_buffer_size():
            await asyncio.sleep(0)

    async def arrived(self) -> None:
        """Wait until the client's kernel has acknowledged everything (SIOCOUTQ, tcp(7)). On a busy machine that may be
        long after it was sent.
        """
        await self.flush()
        sock = self.writer.get_extra_info("socket")
        while not self.writer.transport.is_closing():  # after a reset, bytes in flight stay counted
            if not struct.unpack("i", fcntl.ioctl(sock.fileno(), termios.TIOCOUTQ, bytes(4)))[0]:
                return
            await asyncio.sleep(0.001)

    async def client_closed(self) -> bytes:
        """Wait until the client ends the connection. Returns what else it sent."""
        with contextlib.suppress(ConnectionError):
            return await self.reader.read()
        return b""

    async def cut(self) -> None:
        """End the TCP stream (FIN) without TLS close_notify."""
        await self.flush()
        self.writer.transport.abort()

    async def reset(self) -> None:
        """End the TCP stream with RST."""
        await self.flush()
        sock = self.writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()


Script = Callable[[Accepted], Awaitable[None]]
Response = bytes | Callable[[Accepted], Awaitable[None]]


def table(responses: Mapping[str, Response]) -> Script:
    """A script that responds to each path with bytes or by calling its function; other paths get a 404.

    A callable that closes the connection (`cut`, `reset`) ends it.
    """

    async def script(c: Accepted) -> None:
        while path := await c.request():
            response = responses.get(path, ok(b"", status="404 Not Found"))
            if isinstance(response, bytes):
                await c.send(response)
            else:
                await response(c)
            if c.writer.transport.is_closing():
                return

    return script


class Server:
    """A listening server. `accepted` grows by one for each connection whose TLS handshake, if any, succeeded."""

    def __init__(self, script: Script) -> None:
        self._script = script
        self._tasks: set[asyncio.Task[None]] = set()
        self.accepted: list[Accepted] = []
        self.port = 0
        self.failure: BaseException | None = None

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        connection = Accepted(reader, writer)
        self.accepted.append(connection)
        try:
            await self._script(connection)
        except (ConnectionError, asyncio.CancelledError):
            pass
        except BaseException as error:  # raised when the server is closed: a failed script fails the test
            self.failure = error
        finally:
            writer.close()
            # a client may abort, or never answer close_notify
            with contextlib.suppress(OSError, asyncio.CancelledError, TimeoutError):
                async with asyncio.timeout(1):
                    await writer.wait_closed()
            writer.transport.abort()
            connection.ended.set()
            self._tasks.discard(task)

    @property
    def requests(self) -> list[bytes]:
        """The heads of all requests, in the order of their connections."""
        return [head for connection in self.accepted for head in connection.requests]

    async def end(self) -> None:
        for task in list(self._tasks):
            task.cancel()
        if self._tasks:
            await asyncio.wait(list(self._tasks))
        if self.failure is not None:
            raise self.failure


@contextlib.asynccontextmanager
async def serve(
    script: Script, *, tls: ssl.SSLContext | None = None, host: str = "127.0.0.1", port: int = 0
) -> AsyncIterator[Server]:
    """A server that runs `script` on every connection, on a free port unless one is given."""
    server = Server(script)
    listener = await asyncio.start_server(server, host, port, ssl=tls, backlog=128)
    server.port = listener.sockets[0].getsockname()[1]
    try:
        yield server
    finally:
        listener.close()
        await server.end()
        await listener.wait_closed()


class Certificates:
    """A certificate authority for tests. `ca_file` is what a client must trust."""

    def __init__(self, directory: Path) -> None:
        self.ca = trustme.CA()
        self.ca_file = str(directory / "ca.pem")
        self.ca.cert_pem.write_to_path(self.ca_file)

    def server(
        self,
        *names: str,
        since_days: int | None = None,
        until_days: int | None = None,
        max_version: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3,
    ) -> ssl.SSLContext:
        """A server's context with a certificate for `names`, valid between days counted from today."""
        now = datetime.datetime.now(datetime.UTC)
        since = None if since_days is None else now + datetime.timedelta(days=since_days)
        until = None if until_days is None else now + datetime.timedelta(days=until_days)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.maximum_version = max_version
        self.ca.issue_cert(*names, not_before=since, not_after=until).configure_cert(context)
        return context
