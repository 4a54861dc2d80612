"""The server of the control socket: reads requests, calls the commands, writes their responses.

Clients are not trusted: a request has a bounded length and must arrive in a bounded time, a response must be read in a
bounded time, and there are at most MAX_CLIENTS; for a new one the client that is idle longest is disconnected.
Invariant: no client can make the crawl wait.
"""

import asyncio
import os
import socket
import struct
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from crawler.admin import unix_socket
from crawler.admin.unix_socket import (
    MAX_REQUEST,
    CommandRefused,
    Malformed,
    decode_request,
    encode_refusal,
    encode_result,
)
from crawler.core.enums import Exit

MODE: Final = 0o660
MAX_CLIENTS: Final = 32
REQUEST_S: Final = 60.0  # for a whole line, and between two; `crawler top` sends one a second
RESPONSE_S: Final = 10.0  # for a response to be read

Arguments = Mapping[str, Any]
Command = Callable[[Arguments], Awaitable[object]]


@dataclass(frozen=True, slots=True)
class Caller:
    """The process at the other end, as the kernel says (SO_PEERCRED)."""

    pid: int
    uid: int


@dataclass(slots=True, eq=False)
class _ControlConnection:
    writer: asyncio.StreamWriter
    is_busy: bool = False


class ControlServer:
    """`commands` maps names to functions, which raise CommandRefused for what cannot be done. `on_command` is called
    after each request with its name, arguments and caller, and the reason if it was refused.
    """

    def __init__(
        self,
        path: Path,
        commands: Mapping[str, Command],
        *,
        on_command: Callable[[str, Arguments, Caller, str | None], None],
    ) -> None:
        self._path = path
        self._commands = commands
        self._on_command = on_command
        self._socket: socket.socket | None = None
        self._clients: dict[_ControlConnection, None] = {}  # the one that is idle longest first

    def open(self) -> None:
        """Listen; `run` serves. Raises SocketTaken, OSError."""
        self._socket = unix_socket.listen(self._path, mode=MODE, key="admin.socket")

    async def run(self) -> None:
        """Serve until cancelled. Raises what a command raises, but for CommandRefused: that is a bug."""
        assert self._socket is not None, "open comes first"
        async with asyncio.TaskGroup() as group:

            def on_connection(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
                group.create_task(self._serve(reader, writer))

            server = await asyncio.start_unix_server(on_connection, sock=self._socket, limit=MAX_REQUEST)
            try:
                await asyncio.get_running_loop().create_future()  # until cancelled
            finally:
                server.close()

    def close(self) -> None:
        """Remove the socket and close all connections, by which clients see that the daemon ends."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None
            unix_socket.remove(self._path)
        for client in list(self._clients):
            client.writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        client = _ControlConnection(writer)
        if len(self._clients) >= MAX_CLIENTS and not self._make_room():
            with suppress(OSError, TimeoutError):
                await self._write(client, encode_refusal(CommandRefused("too many clients", Exit.UNREACHABLE)))
            writer.transport.abort()
            return
        self._clients[client] = None
        try:
            caller = _caller_of(writer)
            while (line := await self._line(client, reader)) is not None:
                client.is_busy = True
                await self._write(client, await self._respond(line, caller))
                client.is_busy = False
                del self._clients[client]
                self._clients[client] = None
        except (OSError, TimeoutError):  # it is gone, or reads nothing
            pass
        finally:
            self._clients.pop(client, None)
            writer.transport.abort()

    def _make_room(self) -> bool:
        for client in self._clients:
            if not client.is_busy:
                client.writer.transport.abort()
                del self._clients[client]
                return True
        return False

    async def _line(self, client: _ControlConnection, reader: asyncio.StreamReader) -> bytes | None:
        """The next request; None at the end of the connection."""
        try:
            async with asyncio.timeout(REQUEST_S):
                return await reader.readuntil(b"\n")
        except asyncio.LimitOverrunError:
            await self._write(client, encode_refusal(CommandRefused(f"a request has {MAX_REQUEST} bytes at most")))
        except (asyncio.IncompleteReadError, TimeoutError):
            pass
        return None

    async def _respond(self, line: bytes, caller: Caller) -> bytes:
        try:
            request = decode_request(line)
        except Malformed as error:
            return encode_refusal(CommandRefused(str(error)))
        command = self._commands.get(request.command)
        if command is None:
            return encode_refusal(CommandRefused(f'no command "{request.command}"'))
        try:
            result = await command(request.arguments)
        except CommandRefused as refused:
            self._on_command(request.command, request.arguments, caller, str(refused))
            return encode_refusal(refused)
        self._on_command(request.command, request.arguments, caller, None)
        return encode_result(result)

    async def _write(self, client: _ControlConnection, response: bytes) -> None:
        """Raises TimeoutError if the client does not read."""
        client.writer.write(response)
        async with asyncio.timeout(RESPONSE_S):
            await client.writer.drain()


def _caller_of(writer: asyncio.StreamWriter) -> Caller:
    # uvloop's own socket objects have no getsockopt
    with socket.socket(fileno=os.dup(writer.get_extra_info("socket").fileno())) as sock:
        credentials = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    pid, uid, _gid = struct.unpack("3i", credentials)
    return Caller(pid, uid)
