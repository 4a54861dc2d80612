"""The life of a sink's files: appended to, synced, rolled over, renamed; `mend` repairs them after a crash.

It does not know what is in them; a sink derives from `SinkFiles` and adds `write`. A file has `.open` after its name
until the store has committed it as complete, so whatever lacks `.open` is finished and may be moved away.

Invariant: up to its committed length a file is never changed again; beyond it, nothing survives a restart.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from crawler.core.utc import utc_second
from crawler.core.values import SinkFile
from crawler.core.vocabulary import SinkFileState
from crawler.sinks.base import Mended
from crawler.sinks.disk import Disk
from crawler.sinks.mend import Mender
from crawler.sinks.naming import Naming

FLUSH_BYTES = 1 << 20  # how much is gathered in memory before it is written: bounds a batch of large bodies


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
        self.mended = Mended()
        self._naming = naming
        self._limit = limit
        self._now = now
        self._disk = disk or Disk()
        self._files: list[OpenFile] = []
        self._next_serial = 0
        self._reset_due = False  # a reset was begun and did not come to its end

    def open(self, known: Sequence[SinkFile], *, store_is_copy: bool = False) -> list[SinkFile]:
        """See `Sink.open`."""
        self._release()
        self._reset_due = False
        self.mended = Mended()
        self.folder.mkdir(parents=True, exist_ok=True)
        self._disk.sync_folder(self.folder.parent)
        ours = {file.name: file for file in known if file.sink == self.name}
        mender = Mender(self.folder, ours, naming=self._naming, disk=self._disk, store_is_copy=store_is_copy)
        mender.refuse_strangers()
        changed = []
        for name in sorted(ours):
            file = ours[name]
            if file.state is not SinkFileState.CLOSED:
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
        return touched

    def settled(self) -> list[SinkFile]:
        """See `Sink.settled`."""
        for file in self._files:
            file.committed_bytes, file.committed_full = file.synced_bytes, file.synced_full
            file.committed_records = file.synced_records
        return self._finish([file for file in self._files if file.committed_full])

    def reset(self) -> None:
        """See `Sink.reset`. A file the store never heard of goes again: nothing in it counts."""
        self._reset_due = True
        for file in self._files[:]:
            file.pending.clear()
            file.pending_bytes = 0
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
            return self._finish([file for file in self._files if file.size == file.committed_bytes > 0])
        finally:
            self._release()

    def gone(self) -> list[Path]:
        """See `Sink.gone`."""
        return [file.path for file in self._files if file.committed_bytes and not file.path.exists()]

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
        file = OpenFile(name, path, self._disk.create(path))
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
        while rest:
            rest = rest[self._disk.write(file.descriptor, rest) :]
        file.pending.clear()
        file.pending_bytes = 0

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
