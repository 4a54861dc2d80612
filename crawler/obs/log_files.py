"""JSON Lines files that rotate themselves, written through a buffer by a thread.

Invariant: a file has complete lines only. A line that a full disk or a crash cut is removed, or ended with a newline,
before the next line is written.
"""

import errno
import json
import os
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

import orjson

KIB: Final = 1024
FLUSH_INTERVAL_S: Final = 0.2
BUFFER: Final = 64 * KIB  # bytes that are written before the interval has passed
PENDING_LIMIT: Final = 4096 * KIB  # bytes kept for a blocked destination: seconds of a crawl at full speed
CLOSE_TIMEOUT_S: Final = 5.0
IDLE_S: Final = 5.0  # the thread wakes at least so often: a line from a finaliser may come just before it sleeps
FILE_MODE: Final = 0o640  # only the service's group may read the logs (systemd/crawler.service)
_FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT})


@dataclass(frozen=True, slots=True)
class LogOptions:
    """Options of the log. Sizes in bytes."""

    level: str = "info"
    directory: str | None = None  # None: <output>/logs
    stderr: str = "auto"  # how events are shown on stderr: auto, text, json, off
    rotate_size: int = 256 * 1024 * 1024  # a file of this size is rotated
    keep: int = 10  # rotated files


class Destination(Protocol):
    """Where lines go. Both methods are called from the thread of the LineWriter only."""

    def write(self, data: bytes) -> None:
        """Write complete lines, all or none. Raises OSError if none was written; a later write may work again."""

    def close(self) -> None:
        """Close it. Raises OSError."""


class LineWriter:
    """A buffer for a destination, with a thread that writes it. `append` may be called from any thread.

    `on_recovered(n)` is called from that thread when lines are written again after `n` were dropped. Times in seconds,
    sizes in bytes.
    """

    def __init__(
        self,
        destination: Destination,
        *,
        name: str,
        flush_interval_s: float = FLUSH_INTERVAL_S,
        buffer: int = BUFFER,
        pending_limit: int = PENDING_LIMIT,
        on_recovered: Callable[[int], None] | None = None,
    ) -> None:
        self._destination = destination
        self._flush_interval_s = flush_interval_s
        self._buffer = buffer
        self._pending_limit = pending_limit
        self._on_recovered = on_recovered
        # One lock for both conditions: taking it directly costs a quarter of entering a Condition. It is reentrant
        # because a finaliser may run at any allocation, and its warning is logged here as well.
        self._lock = threading.RLock()
        self._work = threading.Condition(self._lock)
        self._idle = threading.Condition(self._lock)
        self._pending: list[bytes] = []
        self._pending_bytes = 0
        self._is_writing = False
        self._flushes = 0  # callers that wait in flush()
        self._is_closing = False
        self._dropped = 0
        self._reported = 0
        # A daemon, so that a write that never returns does not keep the process alive.
        self._thread = threading.Thread(target=self._run, name=f"log-{name}", daemon=True)
        self._thread.start()

    @property
    def dropped(self) -> int:
        """Lines dropped since the start."""
        return self._dropped

    @property
    def pending_bytes(self) -> int:
        """Bytes of lines that are not written yet."""
        return self._pending_bytes

    def append(self, line: bytes) -> None:
        """Take one line, with its newline. It is dropped and counted if the destination is too far behind."""
        with self._lock:
            before = self._pending_bytes
            after = before + len(line)
            if self._is_closing or after > self._pending_limit:
                self._dropped += 1
                return
            self._pending.append(line)
            self._pending_bytes = after
            if before == 0 or before < self._buffer <= after:
                self._work.notify()

    def flush(self, timeout_s: float = CLOSE_TIMEOUT_S) -> bool:
        """Wait until all lines so far are written or dropped. Returns False if that takes too long."""
        with self._lock:
            self._flushes += 1
            self._work.notify()
            try:
                return self._idle.wait_for(lambda: not self._pending and not self._is_writing, timeout_s)
            finally:
                self._flushes -= 1

    def close(self, timeout_s: float = CLOSE_TIMEOUT_S) -> None:
        """Write what is pending and end the thread. Waits at most `timeout_s` for a blocked destination."""
        with self._lock:
            self._is_closing = True
            self._work.notify()
        self._thread.join(timeout_s)

    def _run(self) -> None:
        while True:
            with self._lock:
                if not self._work.wait_for(lambda: self._pending or self._is_closing, IDLE_S):
                    continue
                self._work.wait_for(self._is_urgent, self._flush_interval_s)
                lines, self._pending = self._pending, []
                self._pending_bytes = 0
                is_last = self._is_closing
                self._is_writing = True
            is_written = self._write(lines)
            with self._lock:
                self._is_writing = False
                self._idle.notify_all()
                lost = self._dropped - self._reported if is_written else 0
                self._reported += lost
            if lost and self._on_recovered is not None:
                self._on_recovered(lost)
            if is_last:
                self._close()
                return

    def _is_urgent(self) -> bool:
        return self._pending_bytes >= self._buffer or self._is_closing or self._flushes > 0

    def _write(self, lines: list[bytes]) -> bool:
        """Write lines. Returns whether they were written."""
        if not lines:
            return False
        try:
            self._destination.write(b"".join(lines))
        except OSError:  # counted, and reported once a write works again
            with self._lock:
                self._dropped += len(lines)
            return False
        return True

    def _close(self) -> None:
        try:
            self._destination.close()
        except OSError:  # the written lines are as durable as a log needs
            return


def encode_line(line: Mapping[str, object]) -> bytes:
    """One JSON object and a newline. Never raises: what orjson refuses (lone surrogates, integers over 64 bits, other
    types) is encoded by the standard library, unknown objects by their repr.
    """
    try:
        return orjson.dumps(line, option=orjson.OPT_APPEND_NEWLINE)
    except TypeError:
        return json.dumps(line, default=repr).encode() + b"\n"


class RotatingFile:
    """A file NAME and its older parts: NAME.1 is the newest, NAME.`keep` the oldest. Sizes in bytes.

    Raises OSError when made, if the file cannot be opened; a full disk is not an error yet.
    """

    def __init__(self, path: Path, *, rotate_size: int, keep: int) -> None:
        self.rotate_size = rotate_size
        self.keep = keep
        self._path = path
        self._fd: int | None = None
        self._size = 0
        self._is_stale = False
        try:
            self._open()
        except OSError as error:
            if error.errno not in _FULL:
                raise

    def write(self, data: bytes) -> None:
        """Append complete lines, all or none. Raises OSError; the next write then opens the file again."""
        if self._is_stale:
            self._is_stale = False
            self.close()
        if self._fd is None:
            self._open()
        if self._size > 0 and self._size + len(data) > self.rotate_size:
            self._rotate()
        assert self._fd is not None
        try:
            write_all(self._fd, data)
        except OSError:
            self._cut_back()
            raise
        self._size += len(data)

    def reopen(self) -> None:
        """Open the path anew before the next write, since somebody may have moved the file. From any thread."""
        self._is_stale = True

    def close(self) -> None:
        """Close the file; the next write opens it again."""
        fd, self._fd = self._fd, None
        if fd is not None:
            os.close(fd)

    def _open(self) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        fd = os.open(self._path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, FILE_MODE)
        try:
            size = os.fstat(fd).st_size
            if size > 0 and os.pread(fd, 1, size - 1) != b"\n":
                size += os.write(fd, b"\n")
        except OSError:
            os.close(fd)
            raise
        self._fd, self._size = fd, size

    def _cut_back(self) -> None:
        """Remove what a failed write has written. If that fails too, the next opening repairs the line."""
        assert self._fd is not None
        try:
            os.ftruncate(self._fd, self._size)
            self.close()
        except OSError:
            self._fd = None

    def _rotate(self) -> None:
        """Shift the parts by one and start a new file. Each step is one rename. A crash between two leaves a gap in the
        numbers, which the next rotation fills.
        """
        self.close()
        for number in range(self.keep + 1, self.keep + 1_000):  # parts of an earlier, larger `keep`
            part = self._part(number)
            if not part.exists():
                break
            part.unlink()
        if self.keep == 0:
            self._path.unlink(missing_ok=True)
        else:
            free = next((n for n in range(1, self.keep) if not self._part(n).exists()), self.keep)
            for number in range(free, 1, -1):
                self._part(number - 1).replace(self._part(number))
            self._path.replace(self._part(1))
        self._open()

    def _part(self, number: int) -> Path:
        return self._path.with_name(f"{self._path.name}.{number}")


class JsonlFile(LineWriter):
    """A rotating file of JSON objects, one on each line, that takes lines at memory speed.

    The other parameters are those of LineWriter. Raises OSError when made, as `RotatingFile` does.
    """

    def __init__(
        self,
        path: Path,
        *,
        rotate_size: int,
        keep: int,
        flush_interval_s: float = FLUSH_INTERVAL_S,
        on_recovered: Callable[[int], None] | None = None,
    ) -> None:
        self._file = RotatingFile(path, rotate_size=rotate_size, keep=keep)
        super().__init__(self._file, name=path.name, flush_interval_s=flush_interval_s, on_recovered=on_recovered)

    def append_json(self, line: Mapping[str, object]) -> None:
        """Take one object. Never raises, never waits for the disk."""
        self.append(encode_line(line))

    def reopen(self, *, rotate_size: int, keep: int) -> None:
        """Take new limits, and open the path anew before the next write."""
        self._file.rotate_size = rotate_size
        self._file.keep = keep
        self._file.reopen()


def write_all(fd: int, data: bytes) -> None:
    """Write all of `data`, in as many system calls as it takes."""
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]
