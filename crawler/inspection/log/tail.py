"""New lines of a log as they are written, across its rotations.

Looks at the file a few times a second (its owner may be on another machine's disk, where no notification comes from).
It does not know what lines say. Invariant: a line that is written to the log while it is followed is yielded once, in
order, whatever the file is called when it is read; only parts that were deleted before they could be read are lost.
"""

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

from crawler.inspection.log.rotated_log import BLOCK, LogPart, is_coded, log_files


class Follower:
    """Follows the log at `path` from `part` on, behind the bytes that were there when it was opened; None: from the
    first file that appears.
    """

    def __init__(self, path: Path, part: LogPart | None) -> None:
        self._path = path
        self._file: BinaryIO | None = None
        self._at = 0
        self._carry = b""
        if part is not None and part.is_plain:
            self._file = os.fdopen(os.dup(part.file.fileno()), "rb", buffering=0)
            self._at = part.size
            self._drop_torn_begin(part)

    def _drop_torn_begin(self, part: LogPart) -> None:
        """A last line without its newline was not shown yet: it is read again with its end."""
        begins = self._at
        while begins > 0 and os.pread(part.file.fileno(), 1, begins - 1) != b"\n":
            begins -= 1
        self._at = begins

    def poll(self) -> Iterator[bytes]:
        """Blocks of whole lines that were written since the last call. Raises OSError."""
        if self._file is None:
            self._file = _open(self._path)
            if self._file is None:
                return
        yield from self._read()
        while (younger := self._younger()) is not None:
            # Rotation is a rename, and nothing is written to a file after it: what is left now is all.
            yield from self._read()
            if self._carry:
                yield self._carry
            self._file.close()
            self._file, self._at, self._carry = younger, 0, b""
            yield from self._read()

    def _read(self) -> Iterator[bytes]:
        assert self._file is not None
        descriptor = self._file.fileno()
        if os.fstat(descriptor).st_size < self._at:  # cut back in place
            self._at, self._carry = 0, b""
        while data := os.pread(descriptor, BLOCK, self._at):
            self._at += len(data)
            whole = data.rfind(b"\n") + 1
            if whole:
                yield self._carry + data[:whole]
                self._carry = data[whole:]
            else:
                self._carry += data

    def _younger(self) -> BinaryIO | None:
        """The next part behind the one that is read, open; None if that is the youngest."""
        assert self._file is not None
        status = os.fstat(self._file.fileno())
        mine = _identity(status)
        try:
            if _identity(self._path.stat()) == mine:
                return None
        except FileNotFoundError:
            return None  # between the two renames of a rotation, or moved away: a new one will come
        younger: BinaryIO | None = None
        for path in log_files(self._path):  # the youngest first
            file = _open(path) if not is_coded(path) else None
            if file is None:
                continue
            found = os.fstat(file.fileno())
            if _identity(found) == mine:
                file.close()
                break
            if found.st_mtime < status.st_mtime:  # the one that was read was deleted
                file.close()
                break
            if younger is not None:
                younger.close()
            younger = file
        return younger

    def close(self) -> None:
        if self._file is not None:
            self._file.close()


def follow(follower: Follower, wait: Callable[[], None]) -> Iterator[bytes]:
    """Blocks for ever; `wait` is called when there is nothing new."""
    while True:
        yield from follower.poll()
        wait()


def _identity(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino


def _open(path: Path) -> BinaryIO | None:
    try:
        return path.open("rb", buffering=0)
    except FileNotFoundError:
        return None
