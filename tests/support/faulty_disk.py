"""A disk whose calls a test lets fail, and which loses power."""

import errno
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from crawler.sinks.disk import Disk


class Crash(BaseException):
    """The process dies here: no code catches it."""


@dataclass(frozen=True)
class _Renaming:
    """A change of names in a folder that is not durable yet: one is removed, one is added, or both."""

    folder: Path
    inode: int
    goes: str | None = None
    comes: str | None = None


class FaultyDisk(Disk):
    """A real folder whose calls can be made to fail, and which can lose power.

    `calls` counts. Set `fails` to a function of the call's number and name that returns what to raise, or None. Set
    `room` to the bytes that can still be written: beyond it writes come out short, then fail as on a full disk.
    """

    def __init__(self) -> None:
        self.calls = 0
        self.fails: Callable[[int, str], BaseException | None] = lambda number, name: None
        self.room: int | None = None
        self._descriptors: dict[int, Path] = {}
        self._durable_bytes: dict[int, int] = {}  # by inode
        self._durable_names: dict[Path, dict[str, int]] = {}  # of each folder: name → inode
        self._renamings: list[_Renaming] = []  # since then
        self._unlinked: dict[int, bytes] = {}  # by inode: if that was not durable the file is back

    @property
    def open_descriptors(self) -> int:
        return len(self._descriptors)

    def abandon(self) -> None:
        """The process ends: its descriptors are closed, and written bytes stay."""
        self.fails = lambda number, name: None
        self.room = None
        for descriptor in list(self._descriptors):
            self.close(descriptor)

    def cut_power(self, folder: Path, *, keeps_last: bool = False) -> None:
        """Lose names and bytes that were not synced. `keeps_last`: the last change of a name is durable without those
        before it, which shows a missing sync between two changes.
        """
        self.abandon()
        content = {path.stat().st_ino: path.read_bytes() for path in folder.iterdir()} | self._unlinked
        names = dict(self._durable_names.get(folder, _names_in(folder)))
        for one in [one for one in self._renamings if one.folder == folder][-1:] if keeps_last else ():
            if one.goes is not None and names.get(one.goes) == one.inode:
                del names[one.goes]
            if one.comes is not None:
                names[one.comes] = one.inode
        for path in folder.iterdir():
            path.unlink()
        for name, inode in names.items():
            whole = content[inode]
            (folder / name).write_bytes(whole[: self._durable_bytes.get(inode, len(whole))])
        self._renamings.clear()
        self._unlinked.clear()
        self._durable_bytes.clear()  # what is there now is
        self._durable_names[folder] = _names_in(folder)

    def _renaming(self, path: Path, *, goes: str | None = None, comes: str | None = None) -> None:
        """Record a change that is about to happen (`comes` alone: that has happened)."""
        if path.parent not in self._durable_names:
            self._durable_names[path.parent] = _names_in(path.parent)
            if goes is None and comes is not None:
                del self._durable_names[path.parent][comes]
        self._renamings.append(_Renaming(path.parent, path.stat().st_ino, goes, comes))

    def create(self, path: Path) -> int:
        self._call("create")
        descriptor = super().create(path)
        self._descriptors[descriptor] = path
        inode = os.fstat(descriptor).st_ino
        if self._unlinked.pop(inode, None) is not None:  # its number is used again: it cannot come back
            self._renamings = [one for one in self._renamings if one.inode != inode]
            for folder, names in self._durable_names.items():
                self._durable_names[folder] = {name: number for name, number in names.items() if number != inode}
        self._durable_bytes[inode] = 0
        self._renaming(path, comes=path.name)
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
        if old != new:
            assert not new.exists(), "a file was overwritten by another's name"
            self._renaming(old, goes=old.name, comes=new.name)
        super().rename(old, new)

    def unlink(self, path: Path) -> None:
        self._call("unlink")
        if path.exists():
            self._renaming(path, goes=path.name)
            self._unlinked[path.stat().st_ino] = path.read_bytes()
        super().unlink(path)

    def sync_folder(self, folder: Path) -> None:
        self._call("sync_folder")
        super().sync_folder(folder)
        self._renamings = [one for one in self._renamings if one.folder != folder]
        self._durable_names[folder] = _names_in(folder)

    def _call(self, name: str) -> None:
        self.calls += 1
        error = self.fails(self.calls, name)
        if error is not None:
            raise error


def _names_in(folder: Path) -> dict[str, int]:
    return {path.name: path.stat().st_ino for path in folder.iterdir()}
