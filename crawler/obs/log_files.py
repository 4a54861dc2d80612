"""JSON Lines files that rotate themselves.

Owns a log file on disk: opening, repairing, rotating and reopening it. It does not know what the lines say; the buffer
and the thread are `writer`'s.
Invariant: a file holds whole lines only. What a full disk or a crash tore is cut off or closed with a newline before
the next line is written.
"""

import errno
import json
import os
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final, Protocol

import orjson

KIB: Final = 1024
FLUSH_INTERVAL_S: Final = 0.2
BUFFER: Final = 64 * KIB  # bytes that are written without waiting for the interval
PENDING_LIMIT: Final = 4096 * KIB  # bytes held for a destination that is stuck: seconds of a crawl at full speed
CLOSE_TIMEOUT_S: Final = 5.0
IDLE_S: Final = 5.0  # looks again even if not woken: a finaliser's line may come between the look and the sleep


class Destination(Protocol):
    """Where lines go. Both methods are called from the writer's thread alone."""

    def write(self, data: bytes) -> None:
        """Take whole lines, all or none. Raises OSError: none was taken, and a later write may work again."""

    def close(self) -> None:
        """Let go of what is open. Raises OSError."""


class LineWriter:
    """A buffer before a destination. `append` may be called from any thread.

    `on_recovered(n)` is called from the writer's thread when lines are written again after `n` were dropped. Times in
    seconds, sizes in bytes.
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
        # One lock under both conditions: taking it directly costs a quarter of entering a Condition. Reentrant, because
        # a finaliser may run at any allocation, and what it warns of is logged here too.
        self._lock = threading.RLock()
        self._work = threading.Condition(self._lock)
        self._idle = threading.Condition(self._lock)
        self._pending: list[bytes] = []
        self._pending_bytes = 0
        self._is_writing = False
        self._flushes = 0  # callers waiting in flush()
        self._is_closing = False
        self._dropped = 0
        self._reported = 0
        # A daemon, so that a write that never returns cannot keep the process from ending.
        self._thread = threading.Thread(target=self._run, name=f"log-{name}", daemon=True)
        self._thread.start()

    @property
    def dropped(self) -> int:
        """Lines lost since the start."""
        return self._dropped

    @property
    def pending_bytes(self) -> int:
        """Bytes held and not yet handed on."""
        return self._pending_bytes

    def append(self, line: bytes) -> None:
        """Take one line, its newline included; dropped and counted if the destination is too far behind."""
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
        """Wait until all that was appended is written or dropped. Returns False if that took too long."""
        with self._lock:
            self._flushes += 1
            self._work.notify()
            try:
                return self._idle.wait_for(lambda: not self._pending and not self._is_writing, timeout_s)
            finally:
                self._flushes -= 1

    def close(self, timeout_s: float = CLOSE_TIMEOUT_S) -> None:
        """Write what is pending and end the thread, waiting no longer than `timeout_s` for a destination that hangs."""
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
        """Hand lines on. Returns whether any were taken."""
        if not lines:
            return False
        try:
            self._destination.write(b"".join(lines))
        except OSError:  # counted, and reported once a write works: there is nowhere to report it to now
            with self._lock:
                self._dropped += len(lines)
            return False
        return True

    def _close(self) -> None:
        try:
            self._destination.close()
        except OSError:  # what was written is as durable as a log needs to be
            return


FILE_MODE: Final = 0o640  # the service's group may read the logs (systemd/crawler.service), nobody else
_FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT})


def encode_line(line: Mapping[str, object]) -> bytes:
    """One JSON object and a newline. Never raises: what orjson refuses (lone surrogates, integers over 64 bits, other
    types) is written by the standard library, unknown objects as their repr.
    """
    try:
        return orjson.dumps(line, option=orjson.OPT_APPEND_NEWLINE)
    except TypeError:
        return json.dumps(line, default=repr).encode() + b"\n"


class RotatingFile:
    """NAME, with older parts beside it: NAME.1 the youngest, NAME.`keep` the oldest. Sizes in bytes.

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
        """Append whole lines, all or none. Raises OSError; the next write then starts by opening the file again."""
        if self._is_stale:
            self._is_stale = False
            self.close()
        if self._fd is None:
            self._open()
        if self._size > 0 and self._size + len(data) > self.rotate_size:
            self._rotate()
        assert self._fd is not None
        try:
            _write_all(self._fd, data)
        except OSError:
            self._cut_back()
            raise
        self._size += len(data)

    def reopen(self) -> None:
        """Open the path anew before the next write: somebody may have moved the file away. From any thread."""
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
        """After a failed write: take its first bytes off again. If even that fails, opening repairs the torn line."""
        assert self._fd is not None
        try:
            os.ftruncate(self._fd, self._size)
            self.close()
        except OSError:
            self._fd = None

    def _rotate(self) -> None:
        """Shift the parts by one and start a new file. Each step is one rename: a crash between two leaves a gap in the
        numbers, which the next rotation fills.
        """
        self.close()
        for number in range(self.keep + 1, self.keep + 1_000):  # parts that an earlier, larger `keep` left
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


class JsonlFile:
    """A rotating file of JSON objects, one a line, that takes lines at memory speed.

    `on_recovered(n)`: see `LineWriter`. Raises OSError when made, as `RotatingFile` does.
    """

    def __init__(
        self,
        path: Path,
        *,
        rotate_size: int,
        keep: int,
        flush_interval_s: float = FLUSH_INTERVAL_S,
        buffer: int = BUFFER,
        pending_limit: int = PENDING_LIMIT,
        on_recovered: Callable[[int], None] | None = None,
    ) -> None:
        self._file = RotatingFile(path, rotate_size=rotate_size, keep=keep)
        self._writer = LineWriter(
            self._file,
            name=path.name,
            flush_interval_s=flush_interval_s,
            buffer=buffer,
            pending_limit=pending_limit,
            on_recovered=on_recovered,
        )

    @property
    def dropped(self) -> int:
        """Lines lost since the start."""
        return self._writer.dropped

    @property
    def pending_bytes(self) -> int:
        """Bytes of lines not yet written."""
        return self._writer.pending_bytes

    def append(self, line: Mapping[str, object]) -> None:
        """Take one object. Never raises, never waits for the disk."""
        self._writer.append(encode_line(line))

    def flush(self, timeout_s: float = 5.0) -> bool:
        """Wait until the lines so far are in the file or dropped; False if that took too long."""
        return self._writer.flush(timeout_s)

    def reopen(self, *, rotate_size: int, keep: int) -> None:
        """Take new limits, and open the path anew before the next write."""
        self._file.rotate_size = rotate_size
        self._file.keep = keep
        self._file.reopen()

    def close(self) -> None:
        """Write what is pending and close the file."""
        self._writer.close()


def _write_all(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]
