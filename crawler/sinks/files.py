"""The files of a sink: append, sync, roll over and rename. `SinkRecovery` repairs them after a crash.

A sink derives from `SinkFiles` and adds `write`. A file name ends in `.open` until the store has committed the file as
complete, so a file without `.open` is finished and may be moved away.

Invariants: a file is never changed up to its committed length, and a restart cuts off what follows. A file that
somebody put in the place of ours is never written, moved or removed.
"""

import errno
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, NamedTuple

from crawler.core.enums import FileLoss, SinkFileState
from crawler.core.formatting import utc_second
from crawler.core.models import SinkFile
from crawler.sinks.base import LostFile, SinkRecovered
from crawler.sinks.disk import UNFINISHED, Disk, Naming, SinkRecovery, rename_to_orphan

FLUSH_BYTES = 1 << 20  # buffered bytes that are written early: bounds a batch of large bodies

_VANISHED: Final = "it was deleted, moved or cut while it was written"


def utc_text(at: float) -> str:
    """UTC epoch seconds as a date of WARC 1.1 §5.4: "2026-11-23T09:00:00.123456Z" (RFC 3339)."""
    second, microsecond = divmod(round(at * 1e6), 1_000_000)
    return f"{utc_second(second)}.{microsecond:06d}Z"


class Extent(NamedTuple):
    """The length of a file, whether it is full, and the number of its records."""

    bytes: int = 0
    is_full: bool = False
    records: int | None = 0


_NOTHING: Final = Extent()


@dataclass(slots=True)
class OpenFile:
    """A file being written."""

    name: str
    path: Path
    descriptor: int
    size: int = 0  # including the pending bytes
    is_cut: bool = False  # somebody truncated it: records appended since are at wrong offsets
    begun: bool = False  # this process has written a record to it
    records: int | None = 0  # None: not known, since an earlier process began the file
    pending: list[bytes] = field(default_factory=list)
    pending_bytes: int = 0
    synced: Extent = _NOTHING  # what the last `sync` returned
    committed: Extent = _NOTHING  # what the store has committed

    def count(self) -> None:
        """Count an appended record."""
        if self.records is not None:
            self.records += 1


class SinkFiles:
    """A sink without `write`. A file is full from `limit` bytes on; the next record goes to a new one."""

    name: str

    def __init__(
        self, name: str, folder: Path, naming: Naming, *, limit: int, now: Callable[[], float], disk: Disk | None = None
    ) -> None:
        self.name = name
        self.folder = folder
        self.recovery = SinkRecovered()
        self._naming = naming
        self._limit = limit
        self._now = now
        self._disk = disk or Disk()
        self._files: list[OpenFile] = []
        self._next_serial = 0
        self._reset_due = False  # an unfinished reset
        self._lost: list[LostFile] = []  # not yet returned by `lost_files`
        self._home: os.stat_result | None = None  # of the output directory

    def open(self, known: Sequence[SinkFile], *, is_restored: bool = False) -> list[SinkFile]:
        """See `Sink.open`."""
        self._release()
        self._reset_due = False
        self.recovery = SinkRecovered()
        self.folder.mkdir(parents=True, exist_ok=True)
        self._disk.sync_folder(self.folder.parent)
        self._home = self.folder.parent.stat()
        ours = {file.name: file for file in known if file.sink == self.name}
        recovery = SinkRecovery(self.folder, ours, naming=self._naming, disk=self._disk, is_restored=is_restored)
        recovery.refuse_foreign()
        changed = []
        for name in sorted(ours):
            file = ours[name]
            if file.state in UNFINISHED:
                path = recovery.ready(file)
                final = _closed(file) if path is None else self._continue(file, path)
                changed += [] if final is None else [final]
        self._next_serial = max(self._next_serial, recovery.set_unknown_aside())
        # A rename before the crash may not be durable yet, and its result is stored next.
        self._disk.sync_folder(self.folder)
        self.recovery = recovery.done
        return changed

    def sync(self) -> list[SinkFile]:
        """See `Sink.sync`."""
        self._finish_reset()
        touched = []
        for file in self._files:
            extent = Extent(file.size, file.size >= self._limit, file.records)
            if extent[:2] == file.committed[:2]:
                continue
            self._flush(file)
            self._disk.sync(file.descriptor)
            file.synced = extent
            state = SinkFileState.CLOSING if extent.is_full else SinkFileState.OPEN
            touched.append(SinkFile(self.name, file.name, state, file.size))
        for file in self._files:
            if self._loss(file) is not None:
                raise OSError(errno.ESTALE, _VANISHED, str(file.path))
        return touched

    def committed(self) -> list[SinkFile]:
        """See `Sink.committed`."""
        for file in self._files:
            file.committed = file.synced
        return self._finish([file for file in self._files if file.committed.is_full and self._loss(file) is None])

    def reset(self) -> None:
        """See `Sink.reset`. A file without committed bytes is removed: the store does not know it."""
        self._reset_due = True
        for file in self._files[:]:
            file.pending.clear()
            file.pending_bytes = 0
            if (how := self._loss(file)) is not None:
                self._record_loss(file, how)
                continue
            if file.committed.bytes == 0:
                self._disk.unlink(file.path)
                self._forget(file)
                continue
            self._disk.truncate(file.descriptor, file.committed.bytes)
            file.synced = file.committed
            file.size, file.records = file.committed.bytes, file.committed.records
            file.begun = False
        self._reset_due = False

    def close(self) -> list[SinkFile]:
        """See `Sink.close`."""
        try:
            whole = [file for file in self._files if file.size == file.committed.bytes > 0]
            return self._finish([file for file in whole if self._loss(file) is None])
        finally:
            self._release()

    def lost_files(self) -> list[LostFile]:
        """See `Sink.lost_files`."""
        for file in self._files[:]:
            if (how := self._loss(file)) is not None:
                self._record_loss(file, how)
        found, self._lost = self._lost, []
        return found

    def set_aside(self, lost: LostFile) -> None:
        """See `Sink.set_aside`."""
        path = self._open_path(lost.file.name)
        if path.exists():
            rename_to_orphan(self._disk, path, lost.file.name)
            self._disk.sync_folder(self.folder)

    def _loss(self, file: OpenFile) -> FileLoss | None:
        """How an open file was lost, None if it was not. Two system calls for each file at each commit."""
        status = self._disk.status(file.descriptor)
        if status.st_nlink == 0:
            return FileLoss.DELETED
        if not self._disk.is_at(status, file.path):
            return FileLoss.MOVED
        return FileLoss.CUT if file.is_cut or status.st_size < file.committed.bytes else None

    def _record_loss(self, file: OpenFile, how: FileLoss) -> None:
        """Close a lost file and record its loss. Raises OSError if the output directory itself was moved: then no file
        counts as lost.
        """
        if self._home is None or not self._disk.is_at(self._home, self.folder.parent):
            raise OSError(errno.ENOENT, "the directory was moved away or replaced", str(self.folder.parent))
        place = ""
        if how is FileLoss.MOVED:  # wherever it is now, it keeps its committed part
            self._disk.truncate(file.descriptor, file.committed.bytes)
            self._disk.sync(file.descriptor)
            place = self._disk.place(file.descriptor)
        state = SinkFileState.CLOSED if how is FileLoss.MOVED else SinkFileState.LOSING
        self._forget(file)
        self._lost.append(LostFile(SinkFile(self.name, file.name, state, file.committed.bytes), how, place))

    def _finish_reset(self) -> None:
        """Finish a failed reset: nothing may be appended after data that it has to cut off."""
        if self._reset_due:
            self.reset()

    def _current_file(self) -> OpenFile:
        """The file for the next record, created if need be. If it is not `begun`, the caller begins it."""
        for file in self._files:
            if file.size < self._limit:
                return file
        name = self._naming.make(self._next_serial, self._now())
        path = self._open_path(name)
        try:
            descriptor = self._disk.create(path)
        except FileNotFoundError:  # the folder was moved or deleted, not the output directory
            self.folder.mkdir()
            self._disk.sync_folder(self.folder.parent)
            descriptor = self._disk.create(path)
        file = OpenFile(name, path, descriptor)
        self._next_serial += 1
        self._files.append(file)
        # The name must be durable before the store knows it.
        self._disk.sync_folder(self.folder)
        return file

    def _append(self, file: OpenFile, data: bytes) -> None:
        file.pending.append(data)
        file.pending_bytes += len(data)
        file.size += len(data)

    def _flush_large(self) -> None:
        """Write the buffered bytes of files that have FLUSH_BYTES of them."""
        for file in self._files:
            if file.pending_bytes >= FLUSH_BYTES:
                self._flush(file)

    def _open_file(self) -> OpenFile | None:
        """The file of the next record, if it exists and no reset is due."""
        return None if self._reset_due else next((file for file in self._files if file.size < self._limit), None)

    def _has_room(self, file: OpenFile, size: int) -> bool:
        """Whether a file stays below its limit with `size` more bytes."""
        return file.size + size < self._limit

    def _flush(self, file: OpenFile) -> None:
        """Write the buffered bytes, in one system call if the system takes them all."""
        rest = memoryview(b"".join(file.pending))
        self._check_size(file, file.size - file.pending_bytes)
        while rest:
            rest = rest[self._disk.write(file.descriptor, rest) :]
        self._check_size(file, file.size)
        file.pending.clear()
        file.pending_bytes = 0

    def _check_size(self, file: OpenFile, size: int) -> None:
        """Raises OSError for a file of another size: appended records would not be at their offsets."""
        found = self._disk.status(file.descriptor).st_size
        if found != size:
            file.is_cut = found < size
            raise OSError(errno.ESTALE, _VANISHED if file.is_cut else "somebody else wrote to it", str(file.path))

    def _finish(self, files: list[OpenFile]) -> list[SinkFile]:
        """Remove `.open` from the names of complete files. It may be repeated after an error at any step."""
        for file in files:
            final = self.folder / file.name
            self._disk.rename(file.path, final)  # when repeated, to itself, which does nothing
            file.path = final
        if files:
            self._disk.sync_folder(self.folder)
        for file in files:
            self._forget(file)
        return [
            SinkFile(self.name, file.name, SinkFileState.CLOSED, file.committed.bytes, file.committed.records)
            for file in files
        ]

    def _continue(self, file: SinkFile, path: Path) -> SinkFile | None:
        """Continue the file at `path`, which has its committed length. Returns its state if that changes."""
        extent = Extent(file.committed_bytes, records=None)
        descriptor = self._disk.reopen(path)
        opened = OpenFile(file.name, path, descriptor, extent.bytes, records=None, synced=extent, committed=extent)
        self._files.append(opened)
        return None if file.state is SinkFileState.OPEN else self._finish([opened])[0]

    def _open_path(self, name: str) -> Path:
        return self.folder / f"{name}.open"

    def _forget(self, file: OpenFile) -> None:
        self._files.remove(file)
        self._disk.close(file.descriptor)

    def _release(self) -> None:
        while self._files:
            self._forget(self._files[-1])


def _closed(file: SinkFile) -> SinkFile:
    return SinkFile(file.sink, file.name, SinkFileState.CLOSED, file.committed_bytes)
