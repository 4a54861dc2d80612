"""SQLite's files on a disk that may lose power: bytes that were not synced are there, or not, or in part.

Any of the writes since the last sync of a file may have reached the disk, in whole sectors, and so may a new length.
Invariant: bytes from before a sync of their file are always there.
"""

import random
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import apsw

SECTOR = 512


@dataclass
class _Disk:
    """One file: what is durable, and what was done since (a write with its data, or a new size without)."""

    durable: bytearray = field(default_factory=bytearray)
    pending: list[tuple[int, bytes | None]] = field(default_factory=list)

    def apply(self, offset: int, data: bytes | None) -> None:
        _apply(self.durable, offset, data)


def _apply(content: bytearray, offset: int, data: bytes | None) -> None:
    if data is None:
        if len(content) > offset:
            del content[offset:]
        else:
            content.extend(bytes(offset - len(content)))
        return
    if len(content) < offset:
        content.extend(bytes(offset - len(content)))
    content[offset : offset + len(data)] = data


class UnsafeFiles(apsw.VFS):
    """`before` is called before each write and sync. `cut` writes the disk as a power cut would leave it."""

    def __init__(self) -> None:
        self.name = f"unsafe-{id(self)}"
        self.disks: dict[str, _Disk] = {}
        self.before: Any = lambda: None
        super().__init__(self.name, "")

    def xOpen(self, name: Any, flags: list[int]) -> apsw.VFSFile:
        return _UnsafeFile(self, name, flags)

    def xDelete(self, filename: str, syncdir: bool) -> None:
        super().xDelete(filename, syncdir)
        self.disks.pop(filename, None)

    def cut(self, folder: Path, rng: random.Random) -> None:
        """Write what remains of each file into `folder`."""
        folder.mkdir()
        for path, disk in self.disks.items():
            content = bytearray(disk.durable)
            for offset, data in disk.pending:
                fate = rng.random()
                if fate < 1 / 3:
                    continue
                if data is None or fate < 2 / 3:
                    _apply(content, offset, data)
                    continue
                for start in range(0, len(data), SECTOR):  # torn: some sectors of it
                    if rng.random() < 0.5:
                        _apply(content, offset + start, data[start : start + SECTOR])
            (folder / Path(path).name).write_bytes(content)


class _UnsafeFile(apsw.VFSFile):
    def __init__(self, files: UnsafeFiles, name: Any, flags: list[int]) -> None:
        self._files = files
        path = name.filename() if isinstance(name, apsw.URIFilename) else name
        super().__init__("", name, flags)
        self._disk = files.disks.setdefault(path, _Disk()) if path else _Disk()

    def xWrite(self, data: Any, offset: int) -> None:
        self._files.before()
        super().xWrite(data, offset)
        self._disk.pending.append((offset, bytes(data)))

    def xTruncate(self, newsize: int) -> None:
        self._files.before()
        super().xTruncate(newsize)
        self._disk.pending.append((newsize, None))

    def xSync(self, flags: int) -> None:
        self._files.before()
        super().xSync(flags)
        for offset, data in self._disk.pending:
            self._disk.apply(offset, data)
        self._disk.pending.clear()
