"""Disks that fail where a test says, and that lose power."""

import errno
import os
from collections.abc import Callable
from pathlib import Path

from crawler.sinks.disk import Disk


class Crash(BaseException):
    """The process dies here: nothing catches it."""


class FaultyDisk(Disk):
    """A real folder whose calls can be made to fail, and whose state after a power cut can be had.

    `calls` counts. Set `fails` to a function of the call's number and name that returns what to raise, or None. Set
    `room` to the bytes that can still be written: beyond it writes come out short, then fail as on a full disk.
    """

    def __init__(self) -> None:
        self.calls = 0
        self.fails: Callable[[int, str], BaseException | None] = lambda number, name: None
        self.room: int | None = None
        self._descriptors: dict[int, Path] = {}
        self._durable_bytes: dict[int, int] = {}  # by inode
        self._undo: list[Callable[[], object]] = []  # of names not yet durable

    @property
    def open_descriptors(self) -> int:
        return len(self._descriptors)

    def abandon(self) -> None:
        """The process is gone: its descriptors close, the system keeps what it was given."""
        self.fails = lambda number, name: None
        self.room = None
        for descriptor in list(self._descriptors):
            self.close(descriptor)

    def cut_power(self, folder: Path) -> None:
        """Names and bytes that were not synced are lost."""
        self.abandon()
        for undo in reversed(self._undo):
            undo()
        self._undo.clear()
        for path in folder.iterdir():
            status = path.stat()
            os.truncate(path, min(status.st_size, self._durable_bytes.get(status.st_ino, 0)))

    def create(self, path: Path) -> int:
        self._call("create")
        descriptor = super().create(path)
        self._descriptors[descriptor] = path
        self._durable_bytes[os.fstat(descriptor).st_ino] = 0
        self._undo.append(lambda: path.unlink(missing_ok=True))
        return descriptor

    def reopen(self, path: Path) -> int:
        self._call("reopen")
        descriptor = super().reopen(path)
        self._descriptors[descriptor] = path
        return descriptor

    def write(self, descriptor: int, data: memoryview) -> int:
        if self.room is not None:
            data = data[: self.room]
            if not data:
                raise OSError(errno.ENOSPC, "No space left on device")
            self.room -= len(data)
        try:
            self._call("write")
        except Crash:
            super().write(descriptor, data[: len(data) // 2])
            raise
        return super().write(descriptor, data)

    def sync(self, descriptor: int) -> None:
        self._call("sync")
        super().sync(descriptor)
        status = os.fstat(descriptor)
        self._durable_bytes[status.st_ino] = status.st_size

    def truncate(self, descriptor: int, size: int) -> None:
        self._call("truncate")
        super().truncate(descriptor, size)

    def close(self, descriptor: int) -> None:
        self._descriptors.pop(descriptor, None)
        super().close(descriptor)

    def rename(self, old: Path, new: Path) -> None:
        self._call("rename")
        super().rename(old, new)
        self._undo.append(lambda: new.rename(old))

    def unlink(self, path: Path) -> None:
        self._call("unlink")
        super().unlink(path)

    def sync_folder(self, folder: Path) -> None:
        self._call("sync_folder")
        super().sync_folder(folder)
        self._undo.clear()

    def _call(self, name: str) -> None:
        self.calls += 1
        error = self.fails(self.calls, name)
        if error is not None:
            raise error
