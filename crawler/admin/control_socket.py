"""The control socket: the server in the daemon, which calls the commands, and the client of the command line.

Clients are not trusted: a request has a bounded length and must arrive in a bounded time, a response must be read in a
bounded time, and there are at most MAX_CLIENTS; for a new one the client that is idle longest is disconnected.
The client blocks: one request, one response.
Invariants: no client can make the crawl wait; a daemon that is gone, hangs, or belongs to another user ends in
Unreachable or NotAllowed with a message for a person, within the timeout.
"""

import asyncio
import errno
import grp
import os
import pwd
import select
import socket
import stat
import struct
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from crawler.admin import unix_socket
from crawler.admin.unix_socket import (
    MAX_REQUEST,
    MAX_RESPONSE,
    CommandRefused,
    Malformed,
    decode_request,
    decode_response,
    encode_refusal,
    encode_request,
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


CALL_S: Final = 10.0
_WITHOUT_IT: Final = "; `crawler report` and `crawler hosts` show what is left"


class Unreachable(Exception):
    """No daemon responds (exit 69); the message is for a person."""


class NotAllowed(Exception):
    """We have no permission for the socket (exit 77)."""


class Control:
    """A connection to the daemon that listens on `path`. `with Control(path) as control: control.call("status")`.

    Raises Unreachable, NotAllowed.
    """

    def __init__(self, path: Path, *, timeout_s: float = CALL_S) -> None:
        self._path = path
        try:
            self._socket = unix_socket.connect(path, timeout_s)
        except OSError as error:
            raise _explained(path, error) from None
        self._received = b""

    def call(self, command: str, arguments: Mapping[str, object] | None = None, *, timeout_s: float = CALL_S) -> Any:
        """The command's result. Raises CommandRefused, Malformed, Unreachable."""
        request = encode_request(command, arguments or {})
        self._socket.settimeout(timeout_s)
        try:
            self._socket.sendall(request)
            return decode_response(self._read_line())
        except TimeoutError:
            raise Unreachable(f"the crawler at {self._path} has not responded for {timeout_s:g} seconds") from None
        except OSError as error:
            raise Unreachable(f"the crawler at {self._path} closed the connection: {error.strerror or error}") from None

    def wait_for_end(self, timeout_s: float | None) -> bool:
        """Wait until the daemon's process has ended; False if it has not after `timeout_s`."""
        credentials = self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
        try:
            process = os.pidfd_open(struct.unpack("3i", credentials)[0])
        except ProcessLookupError:
            return True
        try:
            poll = select.poll()
            poll.register(process, select.POLLIN)
            return bool(poll.poll(None if timeout_s is None else timeout_s * 1e3))
        finally:
            os.close(process)

    def close(self) -> None:
        self._socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _read_line(self) -> bytes:
        parts = [self._received]
        size = len(self._received)
        while b"\n" not in parts[-1]:
            chunk = self._socket.recv(1 << 18)
            if not chunk:
                raise Unreachable(f"the crawler at {self._path} closed the connection without a response")
            parts.append(chunk)
            size += len(chunk)
            if size > MAX_RESPONSE:
                raise Malformed(f"the response has more than {MAX_RESPONSE} bytes")
        line, _, self._received = b"".join(parts).partition(b"\n")
        return line


def _explained(path: Path, error: OSError) -> Exception:
    if isinstance(error, TimeoutError | socket.timeout):
        return Unreachable(f"the program that listens on {path} does not respond")
    match error.errno:
        case errno.ENOENT | errno.ENOTDIR:
            return Unreachable(f"no crawler is running here: there is no {path}{_WITHOUT_IT}")
        case errno.ECONNREFUSED:
            return Unreachable(f"no crawler is running here: nobody listens on {path} any more{_WITHOUT_IT}")
        case errno.EACCES | errno.EPERM:
            return NotAllowed(f"permission denied: {path}{_owner_of(path)}")
        case errno.EAGAIN:
            return Unreachable(f"the crawler at {path} has too many clients waiting")
        case _:
            return Unreachable(f"{path}: {error.strerror or error}")


def _owner_of(path: Path) -> str:
    """The owner of the socket, if we may read it."""
    with suppress(OSError, KeyError):
        found = path.lstat()
        if not stat.S_ISSOCK(found.st_mode):
            return " is no socket"
        owner, group = pwd.getpwuid(found.st_uid).pw_name, grp.getgrgid(found.st_gid).gr_name
        return f" belongs to user {owner}, and is open to group {group}" if found.st_uid != os.getuid() else ""
    return ""
