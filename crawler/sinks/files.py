"""The life of a sink's files: appended to, synced, rolled over, renamed; `mend` repairs them after a crash.

It does not know what is in them; a sink derives from `SinkFiles` and adds `write`. A file has `.open` after its name
until the store has committed it as complete, so whatever lacks `.open` is finished and may be moved away.

Invariant: up to its committed length a file is never changed again; beyond it, nothing survives a restart. What lies
under the name of a file that somebody deleted, moved or replaced is not ours: it is never written, moved or removed.
"""

import errno
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from crawler.core.enums import FileLoss, SinkFileState
from crawler.core.formatting import utc_second
from crawler.core.models import SinkFile
from crawler.sinks.base import SinkRecovered, Vanished
from crawler.sinks.disk import Disk, Naming
from crawler.sinks.recovery import UNFINISHED, SinkRecovery, set_aside

FLUSH_BYTES = 1 << 20  # how much is gathered in memory before it is written: bounds a batch of large bodies

_VANISHED: Final = "it was deleted, moved or cut while it was written"


def utc_text(at: float) -> str:
    """UTC epoch seconds as WARC 1.1 §5.4 wants a date: "2026-11-23T09:00:00.123456Z" (RFC 3339)."""
    second, microsecond = divmod(round(at * 1e6), 1_000_000)
    return f"{utc_second(second)}.{microsecond:06d}Z"


@dataclass(slots=True)
class OpenFile:
    """A file being written. `size` counts what is still in `pending`."""

    name: str
    path: Path
    descriptor: int
    size: int = 0
    is_cut: bool = False  # by somebody else: what was appended since is not in its place
    begun: bool = False  # what a file starts with was written by this process
    records: int | None = 0  # written into it; None: an earlier process began it, and did not say
    pending: list[bytes] = field(default_factory=list)
    pending_bytes: int = 0
    # The last two commits this file took part in: what `sync` offered, and what the store took.
    synced_bytes: int = 0
    synced_full: bool = False
    synced_records: int | None = 0
    committed_bytes: int = 0
    committed_full: bool = False
    committed_records: int | None = 0

    def count(self) -> None:
        """A record was appended whole."""
        if self.records is not None:
            self.records += 1


class SinkFiles:
    """Everything of a sink but `write`. A file is full from `limit` bytes on; the next record then opens another."""

    name: str

    def __init__(
        self, name: str, folder: Path, naming: Naming, *, limit: int, now: Callable[[], float], disk: Disk | None = None
    ) -> None:
        self.name = name
        self.folder = folder
        self.mended = SinkRecovered()
        self._naming = naming
        self._limit = limit
        self._now = now
        self._disk = disk or Disk()
        self._files: list[OpenFile] = []
        self._next_serial = 0
        self._reset_due = False  # a reset was begun and did not come to its end
        self._vanished: list[Vanished] = []  # let go, and not told yet
        self._home: os.stat_result | None = None  # of the output directory

    def open(self, known: Sequence[SinkFile], *, is_restored: bool = False) -> list[SinkFile]:
        """See `Sink.open`."""
        self._release()
        self._reset_due = False
        self.mended = SinkRecovered()
        self.folder.mkdir(parents=True, exist_ok=True)
        self._disk.sync_folder(self.folder.parent)
        self._home = self.folder.parent.stat()
        ours = {file.name: file for file in known if file.sink == self.name}
        mender = SinkRecovery(self.folder, ours, naming=self._naming, disk=self._disk, is_restored=is_restored)
        mender.refuse_strangers()
        changed = []
        for name in sorted(ours):
            file = ours[name]
            if file.state in UNFINISHED:
                path = mender.ready(file)
                final = _closed(file) if path is None else self._take_up(file, path)
                changed += [] if final is None else [final]
        self._next_serial = max(self._next_serial, mender.set_strangers_aside())
        # A rename found done may not be durable yet, and the store is about to hear that it is.
        self._disk.sync_folder(self.folder)
        self.mended = mender.done
        return changed

    def sync(self) -> list[SinkFile]:
        """See `Sink.sync`."""
        self._finish_reset()
        touched = []
        for file in self._files:
            full = file.size >= self._limit
            if file.size == file.committed_bytes and full == file.committed_full:
                continue
            self._flush(file)
            self._disk.sync(file.descriptor)
            file.synced_bytes, file.synced_full, file.synced_records = file.size, full, file.records
            state = SinkFileState.CLOSING if full else SinkFileState.OPEN
            touched.append(SinkFile(self.name, file.name, state, file.size))
        for file in self._files:
            if self._loss(file) is not None:
                raise OSError(errno.ESTALE, _VANISHED, str(file.path))
        return touched

    def settled(self) -> list[SinkFile]:
        """See `Sink.settled`."""
        for file in self._files:
            file.committed_bytes, file.committed_full = file.synced_bytes, file.synced_full
            file.committed_records = file.synced_records
        return self._finish([file for file in self._files if file.committed_full and self._loss(file) is None])

    def reset(self) -> None:
        """See `Sink.reset`. A file the store never heard of goes again: nothing in it counts."""
        self._reset_due = True
        for file in self._files[:]:
            file.pending.clear()
            file.pending_bytes = 0
            if (how := self._loss(file)) is not None:
                self._let_go(file, how)
                continue
            if file.committed_bytes == 0:
                self._disk.unlink(file.path)
                self._forget(file)
                continue
            self._disk.truncate(file.descriptor, file.committed_bytes)
            file.size = file.synced_bytes = file.committed_bytes
            file.synced_full = file.committed_full
            file.records = file.synced_records = file.committed_records
            file.begun = False
        self._reset_due = False

    def close(self) -> list[SinkFile]:
        """See `Sink.close`."""
        try:
            whole = [file for file in self._files if file.size == file.committed_bytes > 0]
            return self._finish([file for file in whole if self._loss(file) is None])
        finally:
            self._release()

    def vanished(self) -> list[Vanished]:
        """See `Sink.vanished`."""
        for file in self._files[:]:
            if (how := self._loss(file)) is not None:
                self._let_go(file, how)
        found, self._vanished = self._vanished, []
        return found

    def put_aside(self, vanished: Vanished) -> None:
        """See `Sink.put_aside`."""
        path = self._open_path(vanished.file.name)
        if path.exists():
            set_aside(self._disk, path, vanished.file.name)
            self._disk.sync_folder(self.folder)

    def _loss(self, file: OpenFile) -> FileLoss | None:
        """What somebody did to an open file, if anything: two system calls for each at each commit."""
        status = self._disk.status(file.descriptor)
        if status.st_nlink == 0:
            return FileLoss.DELETED
        if not self._disk.is_at(status, file.path):
            return FileLoss.MOVED
        return FileLoss.CUT if file.is_cut or status.st_size < file.committed_bytes else None

    def _let_go(self, file: OpenFile, how: FileLoss) -> None:
        """Raises OSError where the output directory itself is not at its place: then no file of it is lost yet."""
        if self._home is None or not self._disk.is_at(self._home, self.folder.parent):
            raise OSError(errno.ENOENT, "the directory was moved away or replaced", str(self.folder.parent))
        place = ""
        if how is FileLoss.MOVED:  # who has it now gets what counts
            self._disk.truncate(file.descriptor, file.committed_bytes)
            self._disk.sync(file.descriptor)
            place = self._disk.place(file.descriptor)
        state = SinkFileState.CLOSED if how is FileLoss.MOVED else SinkFileState.LOSING
        self._forget(file)
        self._vanished.append(Vanished(SinkFile(self.name, file.name, state, file.committed_bytes), how, place))

    def _finish_reset(self) -> None:
        """What comes after a reset that failed half-way may not be put behind what it was to cut."""
        if self._reset_due:
            self.reset()

    def _current(self) -> OpenFile:
        """The file the next record goes to, made if need be. Whoever gets it back not `begun` begins it."""
        for file in self._files:
            if file.size < self._limit:
                return file
        name = self._naming.make(self._next_serial, self._now())
        path = self._open_path(name)
        try:
            descriptor = self._disk.create(path)
        except FileNotFoundError:  # the folder was moved away or deleted, the output directory was not
            self.folder.mkdir()
            self._disk.sync_folder(self.folder.parent)
            descriptor = self._disk.create(path)
        file = OpenFile(name, path, descriptor)
        self._next_serial += 1
        self._files.append(file)
        # The name must be durable before the store can speak of it.
        self._disk.sync_folder(self.folder)
        return file

    def _append(self, file: OpenFile, data: bytes) -> None:
        file.pending.append(data)
        file.pending_bytes += len(data)
        file.size += len(data)

    def _flush_large(self) -> None:
        """Write what was gathered, if it is much."""
        for file in self._files:
            if file.pending_bytes >= FLUSH_BYTES:
                self._flush(file)

    def _open_file(self) -> OpenFile | None:
        """The file the next record goes to, if it is there and nothing has to be cut from it first."""
        return None if self._reset_due else next((file for file in self._files if file.size < self._limit), None)

    def _has_room(self, file: OpenFile, size: int) -> bool:
        """Whether so many bytes leave a file below its limit."""
        return file.size + size < self._limit

    def _flush(self, file: OpenFile) -> None:
        """Hand what was gathered to the system in one write, or more where it takes less than it was given."""
        rest = memoryview(b"".join(file.pending))
        self._insist_on_size(file, file.size - file.pending_bytes)
        while rest:
            rest = rest[self._disk.write(file.descriptor, rest) :]
        self._insist_on_size(file, file.size)
        file.pending.clear()
        file.pending_bytes = 0

    def _insist_on_size(self, file: OpenFile, size: int) -> None:
        """What is appended to a file of another size is not where the store will say."""
        found = self._disk.status(file.descriptor).st_size
        if found != size:
            file.is_cut = found < size
            raise OSError(errno.ESTALE, _VANISHED if file.is_cut else "somebody else wrote to it", str(file.path))

    def _finish(self, files: list[OpenFile]) -> list[SinkFile]:
        """Take `.open` off files that are complete. May be repeated after an error at any step."""
        for file in files:
            final = self.folder / file.name
            self._disk.rename(file.path, final)  # on itself, when repeated: that does nothing
            file.path = final
        if files:
            self._disk.sync_folder(self.folder)
        for file in files:
            self._forget(file)
        return [
            SinkFile(self.name, file.name, SinkFileState.CLOSED, file.committed_bytes, file.committed_records)
            for file in files
        ]

    def _take_up(self, file: SinkFile, path: Path) -> SinkFile | None:
        """Go on with a file that lies at `path`, as long as it is committed. Returns its state if it changes."""
        opened = OpenFile(
            file.name, path, self._disk.reopen(path), records=None, synced_records=None, committed_records=None
        )
        self._files.append(opened)
        opened.size = opened.synced_bytes = opened.committed_bytes = file.committed_bytes
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
