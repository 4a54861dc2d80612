"""A log that rotates: its files in order, their whole lines in blocks, and which ranges of them hold a period.

File names are those that `obs.log_files` and logrotate give; a part may be compressed with gzip or zstd. Lines stand in
the order of their commit, so their times are in order but for the length of a commit, unless the clock was set back.
Invariants: a part that is renamed while it is read is read once, to the end that it had when it was opened; a range
begins and ends at starts of lines, so that each line is in one range.
"""

import gzip
import os
import re
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import BinaryIO, Final

import orjson
import zstandard

_CODINGS: Final = frozenset((".gz", ".zst"))
BLOCK: Final = 1024 * 1024
_DAMAGE: Final = (EOFError, OSError, zlib.error, zstandard.ZstdError)
_ZSTD_CHUNK: Final = 16 * 1024  # compressed bytes; some hundred KiB of log when decompressed
MAX_LINE: Final = 16 * 1024 * 1024  # a longer "line" is cut, and its pieces are no JSON
SLACK_S: Final = 120.0  # how far lines may stand out of order
_LINES_TRIED: Final = 20  # to find one that has a time

# NAME, NAME.3, NAME-20261124, NAME.3.gz …: a number counts backwards from the present, a date forwards.
_SUFFIX: Final = re.compile(
    r"(?:\.(?P<number>\d{1,6})|[-.](?P<date>\d{8}(?:[-_T]?\d{2,10})?))?(?P<coding>\.(?:gz|zst))?"
)


@dataclass(slots=True)
class LogPart:
    """One open file of a log.

    `size` is its bytes on disk when it was opened; `coding` is ".gz", ".zst" or "" for plain text. `problem` is set if
    it could not be read to its end.
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

        Offsets are for plain parts; compressed ones are read whole.
        """
        if self.is_plain:
            yield from self._plain(start, self.size if end is None else end)
        else:
            yield from self._coded()

    def line_at(self, offset: int) -> tuple[int, bytes]:
        """The offset and content of the first line of a plain part that begins at `offset` or later; b"" at the end."""
        begins, rest = self._from_line(offset)
        while b"\n" not in rest and begins + len(rest) < self.size and len(rest) < MAX_LINE:
            rest += self._read(begins + len(rest), BLOCK)
        return begins, rest.partition(b"\n")[0]

    def _from_line(self, offset: int) -> tuple[int, bytes]:
        """The offset of the first line that begins at `offset` or later, and some bytes from there."""
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
    """Join what `read` returns, until it returns nothing, into blocks that end with a newline."""
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
        while data := stream.read1(BLOCK):  # what is there: so the data before a damaged place is returned
            yield data


def _zstd(file: BinaryIO) -> Iterator[bytes]:
    """Decompress all frames. Raises EOFError for a file that was cut, which zstandard's own reader does not notice."""
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


def log_files(log: Path) -> list[Path]:
    """The existing files of a log, the youngest first. Raises OSError if the folder cannot be listed."""
    found: list[tuple[int, int, str, Path]] = []
    for entry in log.parent.iterdir():
        if not entry.name.startswith(log.name):
            continue
        match = _SUFFIX.fullmatch(entry.name[len(log.name) :])
        if match is None or (match["coding"] and entry.with_suffix("").exists()):  # it is still being compressed
            continue
        number, date, coding = match["number"], match["date"], match["coding"]
        if number is None and date is None:
            if coding is None:
                found.append((0, 0, "", entry))
        elif number is not None:
            found.append((1, int(number), "", entry))
        else:
            assert date is not None
            # The complement of each digit, for the latest date comes first.
            found.append((2, 0, "".join(chr(ord("9") - int(d)) for d in date if d.isdigit()), entry))
    return [path for *_, path in sorted(found)]


def is_coded(path: Path) -> bool:
    """Whether a part's name says that it is compressed."""
    return path.suffix in _CODINGS


class RotatedLog:
    """The open parts of one log; a context manager. `unreadable` has a message for each that could not be opened."""

    def __init__(self, log: Path) -> None:
        """Raises OSError if the folder cannot be listed or none of the files may be read."""
        self.youngest_first: list[LogPart] = []
        self.unreadable: list[str] = []
        seen: set[tuple[int, int]] = set()
        refused: OSError | None = None
        # A rotation renames parts to older names: from the youngest on, a part may come twice, but none is missed.
        for path in log_files(log):
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
        """A message for each part that could not be read, or not to its end."""
        return self.unreadable + [f"{part.path}: {part.problem}" for part in self.youngest_first if part.problem]

    def close(self) -> None:
        for part in self.youngest_first:
            part.file.close()

    def __enter__(self) -> "RotatedLog":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


_AGO: Final = re.compile(r"(?:(\d+)d)?(?:(\d+)h)?(?:(\d+)m(?:in)?)?(?:(\d+)s)?")
_CLOCK: Final = re.compile(r"(\d{1,2}):(\d{2})(?::(\d{2}))?")


@dataclass(frozen=True, slots=True)
class LogRange:
    """The lines of a part that begin in [start, end); offsets count in plain parts only."""

    part: LogPart
    start: int
    end: int

    @property
    def size(self) -> int:
        return self.end - self.start


def parse_moment(text: str, now: float) -> float:
    """Epoch seconds of "90s", "10m", "2h", "1d12h" (ago), "09:30" (the last one), "today", "yesterday", "2026-11-25",
    "2026-11-25T09:30" (UTC, unless it has an offset). Raises ValueError.
    """
    text = text.strip()
    present = datetime.fromtimestamp(now, UTC)
    midnight = present.replace(hour=0, minute=0, second=0, microsecond=0)
    match text.lower():
        case "now":
            return now
        case "today":
            return midnight.timestamp()
        case "yesterday":
            return (midnight - timedelta(days=1)).timestamp()
    ago = _AGO.fullmatch(text.removesuffix("ago").strip())
    try:
        if ago is not None and any(ago.groups()):
            days, hours, minutes, seconds = (int(part or 0) for part in ago.groups())
            found = present - timedelta(days=days, hours=hours, minutes=minutes, seconds=seconds)
            return found.timestamp()
        if (clock := _CLOCK.fullmatch(text)) is not None:
            hour, minute, second = (int(part or 0) for part in clock.groups())
            at = midnight.replace(hour=hour, minute=minute, second=second).timestamp()
            return at if at <= now else at - 86_400
        found = datetime.fromisoformat(text)
        return (found if found.tzinfo is not None else found.replace(tzinfo=UTC)).astimezone(UTC).timestamp()
    except OverflowError:
        raise ValueError(f'"{text}" is before the year 1 or after 9999') from None
    except ValueError:
        raise ValueError(
            f'"{text}" is not a time such as "10m", "09:30", "yesterday" or "2026-11-25T09:30" (UTC)'
        ) from None


def epoch(text: str) -> float | None:
    """Epoch seconds of a timestamp in a log; None for other text."""
    try:
        return datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()
    except ValueError:
        return None


def time_at(part: LogPart, offset: int) -> float | None:
    """The time of the first of the next lines after `offset` of a plain part that has one; None if none has."""
    for _ in range(_LINES_TRIED):
        offset, raw = part.line_at(offset)
        if not raw and offset >= part.size:
            return None
        found = time_of(raw)
        if found is not None:
            return found
        offset += max(1, len(raw))
    return None


def time_of(raw: bytes) -> float | None:
    """The time of a line; None if it has none."""
    try:
        line = orjson.loads(raw)
    except orjson.JSONDecodeError:
        return None
    ts = line.get("ts") if isinstance(line, dict) else None
    return epoch(ts) if isinstance(ts, str) else None


def bracket(part: LogPart, at: float) -> tuple[int, int]:
    """Find `at` in a plain part by bisection: two offsets, at most 4 KiB apart. Lines before the first are earlier than
    `at`, lines from the second on are not, as far as lines are in order.
    """
    low, high = 0, part.size
    while high - low > 4096:
        middle = (low + high) // 2
        time = time_at(part, middle)
        if time is None or time >= at:
            high = middle
        else:
            low = middle
    return low, high


def select(parts: RotatedLog, since: float | None = None, until: float | None = None) -> list[LogRange]:
    """The ranges that may hold lines of [since, until), the oldest first. They hold some lines of other times, too."""
    ranges = []
    for part in parts.oldest_first:
        start, end = 0, part.size
        if since is not None and part.modified_at < since - SLACK_S:
            continue
        if part.is_plain:
            if since is not None:
                start, _ = bracket(part, since - SLACK_S)
            if until is not None:
                _, end = bracket(part, until + SLACK_S)
        if start < end:
            ranges.append(LogRange(part, start, end))
    return ranges


def newest(ranges: Sequence[LogRange], limit: int) -> list[LogRange]:
    """The last `limit` bytes of the ranges; more if the first is of a compressed part, which is taken whole."""
    kept: list[LogRange] = []
    for log_range in reversed(ranges):
        if limit <= 0:
            break
        if log_range.part.is_plain and log_range.size > limit:
            log_range = LogRange(log_range.part, log_range.end - limit, log_range.end)
        kept.append(log_range)
        limit -= log_range.size
    return kept[::-1]


def cut(ranges: Iterable[LogRange], size: int) -> list[LogRange]:
    """The same lines in ranges of at most `size` bytes; compressed parts stay whole."""
    pieces = []
    for log_range in ranges:
        if not log_range.part.is_plain:
            pieces.append(log_range)
            continue
        for start in range(log_range.start, log_range.end, size):
            pieces.append(LogRange(log_range.part, start, min(log_range.end, start + size)))
    return pieces


def last_time(parts: RotatedLog) -> float | None:
    """The time of the last line that has one; None for an empty log."""
    for part in parts.youngest_first:
        if not part.is_plain:
            last = b""
            for block in part.blocks():
                last = block
            found = _last_in(last)
        else:
            found = None
            for start in range(max(0, part.size - 65_536), -65_536, -65_536):
                found = _last_in(b"".join(part.blocks(max(0, start), part.size)))
                if found is not None or start <= 0:
                    break
        if found is not None:
            return found
    return None


def _last_in(block: bytes) -> float | None:
    for raw in reversed(block.split(b"\n")):
        if raw and (found := time_of(raw)) is not None:
            return found
    return None
