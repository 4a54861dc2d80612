"""Ownership of a store: an OS lock on a file beside it, so that two processes never write one crawl.

The lock is flock(2): the kernel frees it when the process ends, however it ends, and it also keeps two owners within
one process apart. The file itself stays; what it says (the owner's pid) is only for the message.
"""

import contextlib
import fcntl
import os
from pathlib import Path

from crawler.frontier.base import FrontierLocked


class OwnerLock:
    """Held between `acquire` and `release`."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._fd: int | None = None

    def acquire(self) -> None:
        """Raises FrontierLocked, naming the owner's pid, or OSError if the file cannot be opened."""
        fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            owner = os.read(fd, 32).decode("ascii", "replace").strip()
            os.close(fd)
            process = f"process {owner}" if owner else "another process"
            raise FrontierLocked(f"{self._path.with_suffix('')} is in use by {process}") from None
        except BaseException:
            os.close(fd)
            raise
        # On a full disk the lock holds all the same, without its message.
        with contextlib.suppress(OSError):
            os.ftruncate(fd, 0)
            os.pwrite(fd, b"%d\n" % os.getpid(), 0)
        self._fd = fd

    def release(self) -> None:
        """Let go, if held. The file stays: removing it could remove the lock of the next owner."""
        if self._fd is None:
            return
        fd, self._fd = self._fd, None
        with contextlib.suppress(OSError):
            os.ftruncate(fd, 0)
        os.close(fd)
