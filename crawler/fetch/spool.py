"""Collects the body of one response, in memory if it is small, else in a file without a name.

Invariants: a body is bytes in memory or one open file, never both. Bytes in memory are counted in the budget from their
arrival until the body is dropped. A spool file has no name, so that it disappears when the process ends, also in a
crash.
"""

import errno
import os
import tempfile
from collections.abc import Iterator
from typing import Final

from crawler.core.body import EMPTY, Body, BytesBody
from crawler.fetch.limits import ByteBudget

_PIECE: Final = 1024 * 1024  # the most that SpoolBody reads at once, as Body promises
_SMALL: Final = 4 * 1024  # smaller writes are joined: a list of tiny objects takes many times their bytes
_GATHERED: Final = 64 * 1024


class HeldBody(BytesBody):
    """A body in memory that returns its bytes to the budget when it is dropped."""

    __slots__ = ("_budget",)

    def __init__(self, data: bytes, budget: ByteBudget) -> None:
        super().__init__(data)
        self._budget = budget

    def __del__(self) -> None:
        self._budget.give(len(self._data))


class SpoolBody:
    """A body in an unlinked file, closed when the body is dropped. It reads by offset, so threads may share it."""

    __slots__ = ("_fd", "_size")

    def __init__(self, fd: int, size: int) -> None:
        """Takes over `fd`, open for reading, whose file holds `size` bytes."""
        self._fd = fd
        self._size = size

    @property
    def size(self) -> int:
        return self._size

    def prefix(self, limit: int) -> bytes:
        return b"".join(self._read(min(limit, self._size)))

    def chunks(self) -> Iterator[bytes]:
        return self._read(self._size)

    def _read(self, end: int) -> Iterator[bytes]:
        at = 0
        while at < end:
            piece = os.pread(self._fd, min(_PIECE, end - at), at)
            if not piece:
                raise OSError(errno.EIO, f"the spool file ends at {at} of {self._size} bytes")
            at += len(piece)
            yield piece

    def __del__(self) -> None:
        os.close(self._fd)

    def __repr__(self) -> str:
        return f"<SpoolBody {self._size} bytes>"


class BodySink:
    """Receives the body of one response: `write` takes it as received, `write_payload` without the transfer coding.

    If `write_payload` is never called (the response is not chunked), both are the same body. After the first call, even
    with no bytes, they are two. `directory` None: the system's folder for temporary files.
    """

    __slots__ = ("_budget", "_directory", "_payload", "_raw", "_spool_over")

    def __init__(self, spool_over: int, directory: str | None = None, budget: ByteBudget | None = None) -> None:
        self._spool_over = spool_over
        self._directory = directory
        self._budget = budget
        self._raw = self._buffer()
        self._payload: _BodyBuffer | None = None

    def _buffer(self) -> "_BodyBuffer":
        return _BodyBuffer(self._spool_over, self._directory, self._budget)

    def write(self, raw: bytes) -> None:
        """Raises OSError if the spool file cannot be made or written (disk, descriptors); then call `discard`."""
        self._raw.write(raw)

    def write_payload(self, data: bytes) -> None:
        """Raises OSError as `write` does."""
        if self._payload is None:
            self._payload = self._buffer()
        self._payload.write(data)

    def finish(self) -> tuple[Body, Body]:
        """Return the body as received and its payload, the same object unless `write_payload` was called. Call once."""
        raw = self._raw.finish()
        return raw, (raw if self._payload is None else self._payload.finish())

    def discard(self) -> None:
        """Drop the collected bytes. May be called at any time, also twice; after `finish` it has no effect."""
        self._raw.discard()
        if self._payload is not None:
            self._payload.discard()


class _BodyBuffer:
    """The bytes of a body that is being received: in memory (small pieces are joined), or all in a file."""

    __slots__ = ("_budget", "_directory", "_fd", "_gathered", "_held", "_over", "_pieces", "_size")

    def __init__(self, over: int, directory: str | None, budget: ByteBudget | None) -> None:
        self._over = over
        self._directory = directory
        self._budget = budget
        self._pieces: list[bytes] = []
        self._gathered = bytearray()
        self._size = 0
        self._held = 0  # bytes in memory, as reported to the budget
        self._fd: int | None = None

    def write(self, data: bytes) -> None:
        size = len(data)
        self._size += size
        if self._fd is None and self._size > self._over:
            self._spill()
        if size >= _SMALL or self._size == size:
            self._append_gathered()
            self._append(data)
        else:
            self._gathered += data
            self._hold(self._held + size)
            if len(self._gathered) >= _GATHERED:
                self._append_gathered()

    def _append(self, data: bytes) -> None:
        if self._fd is None:
            self._pieces.append(data)
            self._hold(self._held + len(data))
        else:
            _write_all(self._fd, data)

    def _append_gathered(self) -> None:
        if self._gathered:
            data = bytes(self._gathered)
            self._gathered = bytearray()
            self._hold(self._held - len(data))
            self._append(data)

    def _spill(self) -> None:
        """Move the bytes in memory to a file."""
        with tempfile.TemporaryFile(dir=self._directory, buffering=0) as file:  # O_TMPFILE where there is one
            self._fd = os.dup(file.fileno())
        pieces, self._pieces = self._pieces, []
        for piece in pieces:
            _write_all(self._fd, piece)
        self._hold(len(self._gathered))

    def _hold(self, n: int) -> None:
        """Report to the budget that `n` bytes are in memory now."""
        change = n - self._held
        self._held = n
        if self._budget is None or not change:
            return
        if change > 0:
            self._budget.take(change)
        else:
            self._budget.give(-change)

    def finish(self) -> Body:
        self._append_gathered()
        if self._fd is not None:
            fd, self._fd = self._fd, None
            return SpoolBody(fd, self._size)
        if not self._size:
            return EMPTY
        data = self._pieces[0] if len(self._pieces) == 1 else b"".join(self._pieces)
        self._pieces = []
        if self._budget is None:
            return BytesBody(data)
        self._held = 0  # from now on it is the body that returns them to the budget
        return HeldBody(data, self._budget)

    def discard(self) -> None:
        self._pieces, self._gathered = [], bytearray()
        self._hold(0)
        if self._fd is not None:
            fd, self._fd = self._fd, None
            os.close(fd)

    def __del__(self) -> None:
        self.discard()


def _write_all(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]
