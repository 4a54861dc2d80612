"""The life of a sink's files: named, appended to, synced, rolled over, renamed, and repaired after a crash.

It does not know what is in them; a sink derives from `SinkFiles` and adds `write`. A file has `.open` after its name
until the store has committed it as complete, so whatever lacks `.open` is finished and may be moved away.

Invariant: up to its committed length a file is never changed again; beyond it, nothing survives a restart.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from crawler.core.values import SinkFile
from crawler.core.vocabulary import SinkFileState
from crawler.sinks.base import SinkCorrupt
from crawler.sinks.disk import Disk

FLUSH_BYTES = 1 << 20  # how much is gathered in memory before it is written: bounds a batch of large bodies


def utc_text(at: float) -> str:
    """UTC epoch seconds as WARC 1.1 §5.4 wants a date: "2026-11-23T09:00:00.123456Z" (RFC 3339)."""
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="microseconds").removesuffix("+00:00") + "Z"


class FileName(NamedTuple):
    """What the name of an entry in a sink's folder says. `state` is "", "open" or "orphan"."""

    stem: str  # without .open or .orphan
    serial: int
    state: str


class Naming:
    """`PREFIX-YYYYMMDDhhmmss-SERIAL.EXTENSION`, the pattern WARC 1.1 annex B proposes, less the host's name."""

    def __init__(self, prefix: str, extension: str) -> None:
        self._prefix = prefix
        self._extension = extension
        self._pattern = re.compile(
            rf"(?P<stem>.+-\d{{14}}-(?P<serial>\d{{5,}})\.{re.escape(extension)})(?:\.(?P<state>open|orphan)(?:\.\d+)?)?"
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
        self.orphans: list[str] = []  # names given by the last `open`, for the log
        self._naming = naming
        self._limit = limit
        self._now = now
        self._disk = disk or Disk()
        self._files: list[OpenFile] = []
        self._next_serial = 0
        self._reset_due = False  # a reset was begun and did not come to its end

    def open(self, known: Sequence[SinkFile]) -> list[SinkFile]:
        """See `Sink.open`."""
        self._release()
        self._reset_due = False
        self.folder.mkdir(parents=True, exist_ok=True)
        self._disk.sync_folder(self.folder.parent)
        ours = {file.name: file for file in known if file.sink == self.name and file.state is not SinkFileState.CLOSED}
        changed = [file for name in sorted(ours) if (file := self._recover(ours[name])) is not None]
        self.orphans = self._take_stock(ours)
        # A rename found done may not be durable yet, and the store is about to hear that it is.
        self._disk.sync_folder(self.folder)
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
        if file.pending_bytes >= FLUSH_BYTES:
            self._flush(file)

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

    def _recover(self, file: SinkFile) -> SinkFile | None:
        """Bring one file the store knows into the state it says; returns what is different now, if anything."""
        closed = SinkFile(self.name, file.name, SinkFileState.CLOSED, file.committed_bytes)
        path, final = self._open_path(file.name), self.folder / file.name
        if not path.exists():
            # Renamed before the crash, and perhaps moved away by the operator since. One that was still open is
            # renamed by `close` alone: were it neither here nor there, data would be lost.
            if file.state is SinkFileState.OPEN and file.committed_bytes and not final.exists():
                raise SinkCorrupt(path, committed_bytes=file.committed_bytes, found_bytes=None)
            return closed
        descriptor = self._disk.reopen(path)
        opened = OpenFile(file.name, path, descriptor, records=None, synced_records=None, committed_records=None)
        self._files.append(opened)
        found = self._disk.size(descriptor)
        if found < file.committed_bytes:
            raise SinkCorrupt(path, committed_bytes=file.committed_bytes, found_bytes=found)
        if found > file.committed_bytes:
            self._disk.truncate(descriptor, file.committed_bytes)
            self._disk.sync(descriptor)
        opened.size = opened.synced_bytes = opened.committed_bytes = file.committed_bytes
        if file.state is SinkFileState.OPEN:
            return None
        if final.exists():
            raise FileExistsError(f"{path} is complete, but {final} exists: move one of them away")
        self._finish([opened])
        return closed

    def _take_stock(self, known: dict[str, SinkFile]) -> list[str]:
        """Find the next serial number, and set aside what was written but never committed. Returns the new names."""
        orphans = []
        for entry in sorted(path.name for path in self.folder.iterdir()):
            name = self._naming.parse(entry)
            if name is None:
                continue
            self._next_serial = max(self._next_serial, name.serial + 1)
            if name.state == "open" and name.stem not in known:
                orphan = self._free_orphan_name(name.stem)
                self._disk.rename(self.folder / entry, self.folder / orphan)
                orphans.append(orphan)
        for entry in known:  # one that was renamed and then moved away still counts
            name = self._naming.parse(entry)
            self._next_serial = max(self._next_serial, name.serial + 1 if name else 0)
        return orphans

    def _free_orphan_name(self, stem: str) -> str:
        orphan, n = f"{stem}.orphan", 0
        while (self.folder / orphan).exists():
            n += 1
            orphan = f"{stem}.orphan.{n}"
        return orphan

    def _open_path(self, name: str) -> Path:
        return self.folder / f"{name}.open"

    def _forget(self, file: OpenFile) -> None:
        self._files.remove(file)
        self._disk.close(file.descriptor)

    def _release(self) -> None:
        while self._files:
            self._forget(self._files[-1])
