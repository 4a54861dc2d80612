"""A Unix socket at a path of any length: bound, found stale, connected to.

The kernel takes 107 bytes of path (unix(7), sun_path); a longer one is reached through its folder's descriptor in
/proc/self/fd. Invariant: nothing but a socket that nobody listens on is ever removed.
"""

import contextlib
import errno
import os
import socket
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from crawler.core.formatting import naming_key

MAX_PATH: Final = 107  # bytes
_BACKLOG: Final = 128


class SocketTaken(Exception):
    """The path cannot be bound; the message is for a person."""


@contextlib.contextmanager
def _address(path: Path) -> Iterator[str]:
    """What to give to bind or connect for `path`. Raises OSError."""
    if len(os.fsencode(path)) <= MAX_PATH:
        yield str(path)
        return
    folder = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{folder}/{path.name}"
    finally:
        os.close(folder)


def listen(path: Path, *, mode: int, key: str) -> socket.socket:
    """A listening socket at `path` with these permissions, in place of one that nobody listens on any more.

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
        before = os.umask(0o777 & ~mode)  # from the first instant: chmod would come after others could connect
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
    """Connected, with this timeout for everything that follows. Raises OSError."""
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
    """Take our own socket away; gone already is gone."""
    with contextlib.suppress(OSError):
        path.unlink()


def _remove_stale(path: Path, key: str) -> None:
    try:
        found = path.lstat()
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(found.st_mode):
        raise SocketTaken(f"{path} is there and is no socket; {key} must name a path of its own")
    try:
        connect(path, 1.0).close()
    except OSError as error:
        if error.errno not in (errno.ECONNREFUSED, errno.ENOENT):
            raise SocketTaken(f"{key} {path}: it belongs to somebody else: {error.strerror or error}") from None
    else:
        raise SocketTaken(f"{key} {path}: another program listens there")
