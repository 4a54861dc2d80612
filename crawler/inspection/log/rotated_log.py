"""The parts of a log that rotates: which files belong to it, in order, and their whole lines in blocks.

The names are those that `obs.log_files` and logrotate give; a part may be compressed with gzip or zstd.
Invariant: a part that is renamed while it is read is read once and to the end it had when it was opened.
"""

import gzip
import os
import re
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final

import zstandard

_CODINGS: Final = frozenset((".gz", ".zst"))
BLOCK: Final = 1024 * 1024
_DAMAGE: Final = (EOFError, OSError, zlib.error, zstandard.ZstdError)
_ZSTD_CHUNK: Final = 16 * 1024  # compressed bytes; decoded, some hundred KiB of log
MAX_LINE: Final = 16 * 1024 * 1024  # a longer "line" is no log: it is cut, and its pieces are no JSON

# NAME, NAME.3, NAME-20261124, NAME.3.gz …: a number counts backwards from the present, a date forwards.
_SUFFIX: Final = re.compile(
    r"(?:\.(?P<number>\d{1,6})|[-.](?P<date>\d{8}(?:[-_T]?\d{2,10})?))?(?P<coding>\.(?:gz|zst))?"
)


@dataclass(slots=True)
class LogPart:
    """One file of a log, open. `size` is its bytes on the disk when it was opened; `coding` is ".gz" and the like, ""
    for plain text. `problem` is set where reading it ended early.
    """

    path: Path
    file: BinaryIO
    size: int
    coding: str
    modified_at: float
    problem: str = ""

    @property
    def is_plain(self) -> bool:
        return not self.coding

    def blocks(self, start: int = 0, end: int | None = None) -> Iterator[bytes]:
        """The lines that begin in [start, end), in blocks of whole lines; the last line of a file may lack its newline.

        Offsets are for plain parts; others are read whole.
        """
        if self.is_plain:
            yield from self._plain(start, self.size if end is None else end)
        else:
            yield from self._coded()

    def line_at(self, offset: int) -> tuple[int, bytes]:
        """The first line of a plain part that begins at `offset` or later, and where it begins; b"" at the end."""
        begins, rest = self._from_line(offset)
        while b"\n" not in rest and begins + len(rest) < self.size and len(rest) < MAX_LINE:
            rest += self._read(begins + len(rest), BLOCK)
        return begins, rest.partition(b"\n")[0]

    def _from_line(self, offset: int) -> tuple[int, bytes]:
        """The first start of a line at `offset` or later, and some bytes from there."""
        if offset <= 0:
            return 0, self._read(0, 4096)
        at = offset - 1
        while at < self.size:
            data = self._read(at, 4096)
            newline = data.find(b"\n")
            if newline >= 0:
                return at + newline + 1, data[newline + 1 :]
            if not data:
                break
            at += len(data)
        return self.size, b""

    def _read(self, at: int, count: int) -> bytes:
        return os.pread(self.file.fileno(), max(0, min(count, self.size - at)), at)

    def _plain(self, start: int, end: int) -> Iterator[bytes]:
        at, _ = self._from_line(start)
        stop = self.size if end >= self.size else self._from_line(end)[0]

        def read() -> bytes:
            nonlocal at
            data = os.pread(self.file.fileno(), min(BLOCK, stop - at), at)
            at += len(data)
            if not data and at < stop:
                self.problem = "became shorter while it was read"
            return data

        yield from _whole_lines(read)

    def _coded(self) -> Iterator[bytes]:
        self.file.seek(0)
        chunks = _zstd(self.file) if self.coding == ".zst" else _gzip(self.file)

        def read() -> bytes:
            try:
                return next(chunks, b"")
            except _DAMAGE as error:
                self.problem = f"cannot be read to its end: {error}"
                return b""

        yield from _whole_lines(read)


def _whole_lines(read: Callable[[], bytes]) -> Iterator[bytes]:
    """Cut what `read` returns, until it returns nothing, behind newlines."""
    carry = b""
    while data := read():
        whole = data.rfind(b"\n") + 1
        if whole:
            yield carry + data[:whole]
            carry = data[whole:]
        else:
            carry += data
            if len(carry) > MAX_LINE:
                yield carry
                carry = b""
    if carry:
        yield carry


def _gzip(file: BinaryIO) -> Iterator[bytes]:
    with gzip.GzipFile(fileobj=file, mode="rb") as stream:
        while data := stream.read1(BLOCK):  # as much as there is: what comes before damage is not lost with it
            yield data


def _zstd(file: BinaryIO) -> Iterator[bytes]:
    """All frames. zstandard's own reader takes a file that was cut for one that ended. Raises EOFError."""
    frame = zstandard.ZstdDecompressor().decompressobj()
    is_begun = False
    while data := file.read(_ZSTD_CHUNK):
        while data:
            if frame.eof:
                frame = zstandard.ZstdDecompressor().decompressobj()
            is_begun = True
            if decoded := frame.decompress(data):
                yield decoded
            data = frame.unused_data
    if is_begun and not frame.eof:
        raise EOFError("compressed file ended before the end of its last frame")


def names(log: Path) -> list[Path]:
    """The files of a log that are there, the youngest first. Raises OSError if the folder cannot be listed."""
    found: list[tuple[int, int, str, Path]] = []
    for entry in log.parent.iterdir():
        if not entry.name.startswith(log.name):
            continue
        match = _SUFFIX.fullmatch(entry.name[len(log.name) :])
        if match is None or (match["coding"] and entry.with_suffix("").exists()):  # its compression is not done yet
            continue
        number, date, coding = match["number"], match["date"], match["coding"]
        if number is None and date is None:
            if coding is None:
                found.append((0, 0, "", entry))
        elif number is not None:
            found.append((1, int(number), "", entry))
        else:
            assert date is not None
            # Dates sort the other way round: the complement of each digit does.
            found.append((2, 0, "".join(chr(ord("9") - int(d)) for d in date if d.isdigit()), entry))
    return [path for *_, path in sorted(found)]


def is_coded(path: Path) -> bool:
    """Whether a part's name says that it is compressed."""
    return path.suffix in _CODINGS


class RotatedLog:
    """The parts of one log, opened together; a context manager. `unreadable` says which could not be opened and why."""

    def __init__(self, log: Path) -> None:
        """Raises OSError if the folder cannot be listed or nothing that is there may be read."""
        self.youngest_first: list[LogPart] = []
        self.unreadable: list[str] = []
        seen: set[tuple[int, int]] = set()
        refused: OSError | None = None
        # A rotation renames parts towards older names: from the youngest on, one may be met twice but none is missed.
        for path in names(log):
            try:
                file = path.open("rb", buffering=0)
            except FileNotFoundError:
                continue
            except OSError as error:
                refused = refused or error
                self.unreadable.append(f"{path}: {error.strerror}")
                continue
            status = os.fstat(file.fileno())
            if (status.st_dev, status.st_ino) in seen:
                file.close()
                continue
            seen.add((status.st_dev, status.st_ino))
            coding = path.suffix if is_coded(path) else ""
            self.youngest_first.append(LogPart(path, file, status.st_size, coding, status.st_mtime))
        if refused is not None and not self.youngest_first:
            raise refused

    @property
    def oldest_first(self) -> list[LogPart]:
        return self.youngest_first[::-1]

    def problems(self) -> list[str]:
        """What could not be read, a sentence each."""
        return self.unreadable + [f"{part.path}: {part.problem}" for part in self.youngest_first if part.problem]

    def close(self) -> None:
        for part in self.youngest_first:
            part.file.close()

    def __enter__(self) -> "RotatedLog":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
