"""The file system as sinks use it: its calls, the names of output files, and what is recorded of a finished file."""

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
    """Files are descriptors opened for appending; nothing is buffered here."""

    def create(self, path: Path) -> int:
        """Make a file that did not exist and open it."""
        return os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)

    def reopen(self, path: Path) -> int:
        return os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)

    def status(self, descriptor: int) -> os.stat_result:
        return os.fstat(descriptor)

    def is_at(self, status: os.stat_result, path: Path) -> bool:
        """Whether the file of this status lies at `path`."""
        try:
            return os.path.samestat(status, path.stat())
        except FileNotFoundError:
            return False

    def place(self, descriptor: int) -> str:
        """Where an open file lies now, "" if the system does not say."""
        try:
            return str(Path(f"/proc/self/fd/{descriptor}").readlink())
        except OSError:
            return ""

    def write(self, descriptor: int, data: memoryview) -> int:
        """Write at the file's end; returns how much of `data` was taken, which on a full disk may be less."""
        return os.write(descriptor, data)

    def copy(self, source: Path, descriptor: int, size: int) -> None:
        """Write the first `size` bytes of `source` at a file's end."""
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
        """Make the names in a folder durable: a new or renamed file survives a power cut only after this."""
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


# Sinks, their folders and what their files end in.
EXTENSIONS: Final = {"warc": "warc.gz", "pages": "jsonl"}


class FileName(NamedTuple):
    """What the name of an entry in a sink's folder says. `state` is "", "open", "orphan" or "part"."""

    stem: str  # without .open, .orphan or .part
    serial: int
    state: str


class Naming:
    """`PREFIX-YYYYMMDDhhmmss-SERIAL.EXTENSION`, the pattern WARC 1.1 annex B proposes, less the host's name."""

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
        """None where the entry is not one of this sink's. Any prefix counts: an operator may have renamed the crawl."""
        match = self._pattern.fullmatch(entry)
        if match is None:
            return None
        return FileName(match["stem"], int(match["serial"]), match["state"] or "")


def archived(output: Path) -> Sequence[Path]:
    """The files in an output directory that hold something stored: complete, or open and not empty. Raises OSError."""
    found = []
    for sink, extension in EXTENSIONS.items():
        folder = output / sink
        for path in sorted(folder.iterdir()) if folder.is_dir() else ():
            name = Naming("", extension).parse(path.name)
            if name is not None and name.state in ("", "open") and path.stat().st_size > 0:
                found.append(path)
    return found


_PIECE: Final = 32 * 1024  # what follows a member in its piece is copied for each member: small pieces, little copying
_INFLATED: Final = 256 * 1024  # at a time: 32 KiB of a body of one letter are 32 MiB


@dataclass(frozen=True, slots=True)
class ClosedFile:
    """`records` are gzip members in a WARC, lines in pages/."""

    bytes: int
    records: int
    sha256: str


def inspect(path: Path, records: int | None = None) -> ClosedFile:
    """Read `path` once. Raises OSError. `records`: their number, where who wrote them all says it; to count the members
    of a WARC file it has to be inflated, which costs a twentieth of a crawl.
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
    """Counts the members of a gzip file as it is read."""

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
            if len(inflated) < _INFLATED:  # not stopped by the limit: it needs more
                return
