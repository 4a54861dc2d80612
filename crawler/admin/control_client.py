"""The client of the control socket, for the commands: one request, one response, blocking.

Invariant: a daemon that is gone, hangs, or belongs to another user ends in Unreachable or NotAllowed with a message for
a person, within the timeout.
"""

import errno
import grp
import os
import pwd
import select
import socket
import stat
import struct
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from crawler.admin import unix_socket
from crawler.admin.unix_socket import MAX_RESPONSE, Malformed, decode_response, encode_request

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
