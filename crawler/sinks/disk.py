"""The file system as sinks use it: system calls, names of output files, and the checksum of a finished file."""

import errno
import hashlib
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, NamedTuple

from isal import isal_zlib

_COPY_BYTES: Final = 1024 * 1024  # at a time


class Disk:
    """System calls on files. Files are descriptors opened for appending; nothing is buffered here."""

    def create(self, path: Path) -> int:
        """Create a file that did not exist and open it."""
        return os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)

    def reopen(self, path: Path) -> int:
        return os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)

    def status(self, descriptor: int) -> os.stat_result:
        return os.fstat(descriptor)

    def is_at(self, status: os.stat_result, path: Path) -> bool:
        """Whether the file with this status is at `path`."""
        try:
            return os.path.samestat(status, path.stat())
        except FileNotFoundError:
            return False

    def place(self, descriptor: int) -> str:
        """The present path of an open file, "" if the system does not know it."""
        try:
            return str(Path(f"/proc/self/fd/{descriptor}").readlink())
        except OSError:
            return ""

    def write(self, descriptor: int, data: memoryview) -> int:
        """Append data. Returns how many bytes were written, which on a full disk may be fewer."""
        return os.write(descriptor, data)

    def copy(self, source: Path, descriptor: int, size: int) -> None:
        """Append the first `size` bytes of `source`."""
        with source.open("rb") as file:
            while size:
                rest = memoryview(file.read(min(size, _COPY_BYTES)))
                if not rest:
                    raise OSError(errno.EIO, "the file became shorter while it was copied", str(source))
                size -= len(rest)
                while rest:
                    rest = rest[self.write(descriptor, rest) :]

    def sync(self, descriptor: int) -> None:
        os.fsync(descriptor)

    def truncate(self, descriptor: int, size: int) -> None:
        os.ftruncate(descriptor, size)

    def close(self, descriptor: int) -> None:
        os.close(descriptor)

    def rename(self, old: Path, new: Path) -> None:
        old.rename(new)

    def unlink(self, path: Path) -> None:
        path.unlink(missing_ok=True)

    def sync_folder(self, folder: Path) -> None:
        """Make the names in a folder durable. A new or renamed file survives a power cut only after this."""
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


# Sink and folder → extension of its files.
EXTENSIONS: Final = {"warc": "warc.gz", "pages": "jsonl"}


class FileName(NamedTuple):
    """The parts of a file name in a sink's folder."""

    stem: str  # without .open, .orphan or .part
    serial: int
    state: str  # "", "open", "orphan" or "part"


class Naming:
    """File names `PREFIX-YYYYMMDDhhmmss-SERIAL.EXTENSION`, as WARC 1.1 annex B proposes, without the host name."""

    def __init__(self, prefix: str, extension: str) -> None:
        self._prefix = prefix
        self._extension = extension
        self._pattern = re.compile(
            rf"(?P<stem>.+-\d{{14}}-(?P<serial>\d{{5,}})\.{re.escape(extension)})"
            r"(?:\.(?P<state>open|orphan|part)(?:\.\d+)?)?"
        )

    def make(self, serial: int, at: float) -> str:
        stamp = datetime.fromtimestamp(at, UTC).strftime("%Y%m%d%H%M%S")
        return f"{self._prefix}-{stamp}-{serial:05d}.{self._extension}"

    def parse(self, entry: str) -> FileName | None:
        """The parts of a file name; None if the file is not of this sink. Any prefix is accepted, because an operator
        may have renamed the crawl.
        """
        match = self._pattern.fullmatch(entry)
        if match is None:
            return None
        return FileName(match["stem"], int(match["serial"]), match["state"] or "")


def archive_files(output: Path) -> Sequence[Path]:
    """The output files with content, complete or open, in an output directory. Raises OSError."""
    found = []
    for sink, extension in EXTENSIONS.items():
        folder = output / sink
        for path in sorted(folder.iterdir()) if folder.is_dir() else ():
            name = Naming("", extension).parse(path.name)
            if name is not None and name.state in ("", "open") and path.stat().st_size > 0:
                found.append(path)
    return found


_PIECE: Final = 32 * 1024  # small, because the rest of a piece is copied for each gzip member in it
_INFLATED: Final = 256 * 1024  # bytes of one step: 32 KiB of a body of one letter inflate to 32 MiB


@dataclass(frozen=True, slots=True)
class ClosedFile:
    """The facts about a finished file that are logged."""

    bytes: int
    records: int  # gzip members of a WARC file, lines of a pages/ file
    sha256: str


def read_closed_file(path: Path, records: int | None = None) -> ClosedFile:
    """Read a finished file once. Raises OSError. `records` is the number of its records, if known. Otherwise they are
    counted, for which a WARC file must be inflated: a twentieth of the cost of a crawl.
    """
    digest = hashlib.sha256()
    size = 0
    counter = _Members() if path.name.endswith(".gz") else _LineCounter()
    with path.open("rb") as file:
        while piece := file.read(_PIECE):
            digest.update(piece)
            size += len(piece)
            if records is None:
                counter.feed(piece)
    return ClosedFile(size, counter.count if records is None else records, digest.hexdigest())


class _LineCounter:
    def __init__(self) -> None:
        self.count = 0

    def feed(self, data: bytes) -> None:
        self.count += data.count(b"\n")


class _Members:
    """Counts the members of a gzip file while it is read."""

    def __init__(self) -> None:
        self.count = 0
        self._member = isal_zlib.decompressobj(wbits=31)

    def feed(self, data: bytes) -> None:
        while True:
            inflated = self._member.decompress(data, _INFLATED)
            if self._member.eof:
                self.count += 1
                data = self._member.unused_data
                self._member = isal_zlib.decompressobj(wbits=31)
                if not data:
                    return
                continue
            data = self._member.unconsumed_tail
            if len(inflated) < _INFLATED:  # below the limit: it needs more data
                return
