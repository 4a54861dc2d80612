"""Unix sockets at a path of any length, and the messages of the control socket: one JSON request a line, one JSON
response a line, in order.

    {"command": "block", "arguments": {"name": "example.org"}}
    {"ok": true, "result": {…}}
    {"ok": false, "exit": 2, "message": "…", "details": {…}}

The kernel takes 107 bytes of path (unix(7), sun_path); a longer one is reached through the descriptor of its folder in
/proc/self/fd.
Invariants: only a socket that nobody listens on is ever removed; whatever the other side sends, the outcome is a value
or one of the exceptions named here.
"""

import contextlib
import errno
import os
import socket
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import orjson

from crawler.core.enums import Exit
from crawler.core.formatting import naming_key

MAX_REQUEST: Final = 1024 * 1024  # bytes of a line; `add` sends longer lists in several requests
MAX_RESPONSE: Final = 64 * 1024 * 1024  # bytes that a client reads before it gives up


@dataclass(frozen=True, slots=True)
class ControlRequest:
    """A command and its arguments."""

    command: str
    arguments: Mapping[str, Any] = field(default_factory=dict)


class Malformed(Exception):
    """The message does not follow the protocol; the text is for a person."""


class CommandRefused(Exception):
    """The command was understood and cannot be done.

    `exit_code` is that of the command line, `details` are for programs.
    """

    def __init__(self, message: str, exit_code: int = Exit.USAGE, details: Mapping[str, object] | None = None) -> None:
        super().__init__(message)
        self.exit_code = exit_code
        self.details = dict(details or {})


def encode_request(command: str, arguments: Mapping[str, object]) -> bytes:
    """The line of a request. Raises Malformed if it is too long, CommandRefused if an argument is not UTF-8."""
    try:
        line = orjson.dumps({"command": command, "arguments": dict(arguments)}) + b"\n"
    except TypeError:  # half a surrogate pair: so Python represents bytes of a command line that are not UTF-8
        raise CommandRefused("an argument is not UTF-8") from None
    if len(line) > MAX_REQUEST:
        raise Malformed(f"a request has {MAX_REQUEST} bytes at most")
    return line


def decode_request(line: bytes) -> ControlRequest:
    """The request in a line. Raises Malformed."""
    try:
        found = orjson.loads(line)
    except ValueError:
        raise Malformed("not a line of JSON") from None
    if not isinstance(found, dict) or not isinstance(command := found.get("command"), str):
        raise Malformed('a request is {"command": "…", "arguments": {…}}')
    arguments = found.get("arguments", {})
    if not isinstance(arguments, dict):
        raise Malformed('"arguments" must be an object')
    return ControlRequest(command, arguments)


def encode_result(result: object) -> bytes:
    return orjson.dumps({"ok": True, "result": result}) + b"\n"


def encode_refusal(refused: CommandRefused) -> bytes:
    response = {"ok": False, "exit": refused.exit_code, "message": str(refused), "details": refused.details}
    return orjson.dumps(response) + b"\n"


def decode_response(line: bytes) -> Any:
    """The result in a response. Raises CommandRefused, Malformed."""
    try:
        found = orjson.loads(line)
    except ValueError:
        raise Malformed("the response is not a line of JSON") from None
    if not isinstance(found, dict) or not isinstance(found.get("ok"), bool):
        raise Malformed("the response does not follow the protocol")
    if found["ok"]:
        return found.get("result")
    exit_code, details = found.get("exit"), found.get("details")
    raise CommandRefused(
        str(found.get("message", "")),
        exit_code if isinstance(exit_code, int) else Exit.BUG,
        details if isinstance(details, dict) else {},
    )


MAX_PATH: Final = 107  # bytes
_BACKLOG: Final = 128


class SocketTaken(Exception):
    """The path is in use; the message is for a person."""


@contextlib.contextmanager
def _address(path: Path) -> Iterator[str]:
    """The address to bind or connect to for `path`. Raises OSError."""
    if len(os.fsencode(path)) <= MAX_PATH:
        yield str(path)
        return
    folder = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{folder}/{path.name}"
    finally:
        os.close(folder)


def listen(path: Path, *, mode: int, key: str) -> socket.socket:
    """Listen at `path` with these permissions; replaces a socket that nobody listens on.

    Raises SocketTaken and OSError, which name the `key` of the configuration.
    """
    with naming_key(key, path):
        return _listen(path, mode, key)


def _listen(path: Path, mode: int, key: str) -> socket.socket:
    _remove_stale(path, key)
    new = path.with_name(f"{path.name}.new")  # whoever sees `path` can connect to it
    new.unlink(missing_ok=True)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        before = os.umask(0o777 & ~mode)  # before bind: with chmod others could connect first
        try:
            with _address(new) as address:
                sock.bind(address)
        finally:
            os.umask(before)
        sock.listen(_BACKLOG)
        new.replace(path)
        sock.setblocking(False)
    except BaseException:
        sock.close()
        raise
    return sock


def connect(path: Path, timeout_s: float) -> socket.socket:
    """Connect; the timeout holds for all later operations too. Raises OSError."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        sock.settimeout(timeout_s)
        with _address(path) as address:
            sock.connect(address)
    except BaseException:
        sock.close()
        raise
    return sock


def remove(path: Path) -> None:
    """Remove our socket, if it is still there."""
    with contextlib.suppress(OSError):
        path.unlink()


def _remove_stale(path: Path, key: str) -> None:
    try:
        found = path.lstat()
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(found.st_mode):
        raise SocketTaken(f"{path} exists and is no socket; {key} must name another path")
    try:
        connect(path, 1.0).close()
    except OSError as error:
        if error.errno not in (errno.ECONNREFUSED, errno.ENOENT):
            raise SocketTaken(
                f"{key} {path}: it cannot be connected to or replaced: {error.strerror or error}"
            ) from None
    else:
        raise SocketTaken(f"{key} {path}: another program listens there")
