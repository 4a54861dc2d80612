"""The control socket: takes requests, hands them to the commands, writes their answers.

It knows the protocol and the limits, not what a command does. Clients are strangers: each has a line of bounded length
and a bounded time for it, answers are written within a bounded time or not at all, and there are so many at once; the
one that has been idle longest makes room for a new one. Invariant: no client can make the crawl wait.
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

from crawler.admin import socket_path
from crawler.admin.protocol import (
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
REQUEST_S: Final = 60.0  # for a whole line, also between two: a client that watches asks every second or so
ANSWER_S: Final = 10.0  # for an answer to be taken

Arguments = Mapping[str, Any]
Command = Callable[[Arguments], Awaitable[object]]


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks, as the kernel says (SO_PEERCRED)."""

    pid: int
    uid: int


@dataclass(slots=True, eq=False)
class _ControlConnection:
    writer: asyncio.StreamWriter
    is_busy: bool = False


class ControlServer:
    """`commands` maps a name to what it does; it raises Refused for what cannot be done. `on_command` is told of every
    request that is done or refused: its name, its arguments, who asked, and why it was refused, if it was.
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
        self._clients: dict[_ControlConnection, None] = {}  # the longest idle first

    def open(self) -> None:
        """Listen; `run` answers. Raises SocketTaken, OSError."""
        self._socket = socket_path.listen(self._path, mode=MODE, key="admin.socket")

    async def run(self) -> None:
        """Answer until cancelled. A command that raises anything but Refused is a bug, and comes out here."""
        assert self._socket is not None, "open comes first"
        async with asyncio.TaskGroup() as group:

            def arrived(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
                group.create_task(self._serve(reader, writer))

            server = await asyncio.start_unix_server(arrived, sock=self._socket, limit=MAX_REQUEST)
            try:
                await asyncio.get_running_loop().create_future()  # until cancelled
            finally:
                server.close()

    def close(self) -> None:
        """Take the socket away and hang up on everybody: whoever waits for the end of the daemon sees it."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None
            socket_path.remove(self._path)
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
                await self._write(client, await self._answer(line, caller))
                client.is_busy = False
                del self._clients[client]
                self._clients[client] = None
        except (OSError, TimeoutError):  # it went away, or takes nothing
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
        """The next request; None when there is none to come."""
        try:
            async with asyncio.timeout(REQUEST_S):
                return await reader.readuntil(b"\n")
        except asyncio.LimitOverrunError:
            await self._write(client, encode_refusal(CommandRefused(f"a request has {MAX_REQUEST} bytes at most")))
        except (asyncio.IncompleteReadError, TimeoutError):
            pass
        return None

    async def _answer(self, line: bytes, caller: Caller) -> bytes:
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

    async def _write(self, client: _ControlConnection, answer: bytes) -> None:
        """Raises TimeoutError if it is not taken."""
        client.writer.write(answer)
        async with asyncio.timeout(ANSWER_S):
            await client.writer.drain()


def _caller_of(writer: asyncio.StreamWriter) -> Caller:
    # uvloop's own socket objects have no getsockopt
    with socket.socket(fileno=os.dup(writer.get_extra_info("socket").fileno())) as sock:
        credentials = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    pid, uid, _gid = struct.unpack("3i", credentials)
    return Caller(pid, uid)
