"""The file system as sinks use it: system calls, names of output files, the checksum of a finished file, and recovery.

Recovery, at the start, makes names and lengths of the files in a sink's folder agree with the store. Nothing that may
have been acknowledged is deleted. A file that the store does not know is renamed to `.orphan`. A file that is longer
than the store knows, because the store was restored from a backup, is kept whole as `.orphan`, and a copy of the
committed part takes its place.

Invariant: if a kill or a power cut interrupts the recovery at any system call, the next start has the same result.
"""

import errno
import hashlib
import os
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, NamedTuple

from isal import isal_zlib

from crawler.core.enums import SinkFileState
from crawler.core.models import SinkFile
from crawler.sinks.base import SinkCorrupt, SinkForeign, SinkRecovered

_COPY_BYTES: Final = 1024 * 1024  # at a time


class Disk:
    """System calls on files. Files are descriptors opened for appending; nothing is buffered here."""

    def create(self, path: Path) -> int:
        """Create a file that did not exist and open it."""
        return os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)

    def reopen(self, path: Path) -> int:
        return os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)

    def status(self, descriptor: int) -> os.stat_result:
        return os.fstat(descriptor)

    def is_at(self, status: os.stat_result, path: Path) -> bool:
        """Whether the file with this status is at `path`."""
        try:
            return os.path.samestat(status, path.stat())
        except FileNotFoundError:
            return False

    def place(self, descriptor: int) -> str:
        """The present path of an open file, "" if the system does not know it."""
        try:
            return str(Path(f"/proc/self/fd/{descriptor}").readlink())
        except OSError:
            return ""

    def write(self, descriptor: int, data: memoryview) -> int:
        """Append data. Returns how many bytes were written, which on a full disk may be fewer."""
        return os.write(descriptor, data)

    def copy(self, source: Path, descriptor: int, size: int) -> None:
        """Append the first `size` bytes of `source`."""
        with source.open("rb") as file:
            while size:
                rest = memoryview(file.read(min(size, _COPY_BYTES)))
                if not rest:
                    raise OSError(errno.EIO, "the file became shorter while it was copied", str(source))
                size -= len(rest)
                while rest:
                    rest = rest[self.write(descriptor, rest) :]

    def sync(self, descriptor: int) -> None:
        os.fsync(descriptor)

    def truncate(self, descriptor: int, size: int) -> None:
        os.ftruncate(descriptor, size)

    def close(self, descriptor: int) -> None:
        os.close(descriptor)

    def rename(self, old: Path, new: Path) -> None:
        old.rename(new)

    def unlink(self, path: Path) -> None:
        path.unlink(missing_ok=True)

    def sync_folder(self, folder: Path) -> None:
        """Make the names in a folder durable. A new or renamed file survives a power cut only after this."""
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


# Sink and folder → extension of its files.
EXTENSIONS: Final = {"warc": "warc.gz", "pages": "jsonl"}


class FileName(NamedTuple):
    """The parts of a file name in a sink's folder."""

    stem: str  # without .open, .orphan or .part
    serial: int
    state: str  # "", "open", "orphan" or "part"


class Naming:
    """File names `PREFIX-YYYYMMDDhhmmss-SERIAL.EXTENSION`, as WARC 1.1 annex B proposes, without the host name."""

    def __init__(self, prefix: str, extension: str) -> None:
        self._prefix = prefix
        self._extension = extension
        self._pattern = re.compile(
            rf"(?P<stem>.+-\d{{14}}-(?P<serial>\d{{5,}})\.{re.escape(extension)})"
            r"(?:\.(?P<state>open|orphan|part)(?:\.\d+)?)?"
        )

    def make(self, serial: int, at: float) -> str:
        stamp = datetime.fromtimestamp(at, UTC).strftime("%Y%m%d%H%M%S")
        return f"{self._prefix}-{stamp}-{serial:05d}.{self._extension}"

    def parse(self, entry: str) -> FileName | None:
        """The parts of a file name; None if the file is not of this sink. Any prefix is accepted, because an operator
        may have renamed the crawl.
        """
        match = self._pattern.fullmatch(entry)
        if match is None:
            return None
        return FileName(match["stem"], int(match["serial"]), match["state"] or "")


def archive_files(output: Path) -> Sequence[Path]:
    """The output files with content, complete or open, in an output directory. Raises OSError."""
    found = []
    for sink, extension in EXTENSIONS.items():
        folder = output / sink
        for path in sorted(folder.iterdir()) if folder.is_dir() else ():
            name = Naming("", extension).parse(path.name)
            if name is not None and name.state in ("", "open") and path.stat().st_size > 0:
                found.append(path)
    return found


_PIECE: Final = 32 * 1024  # small, because the rest of a piece is copied for each gzip member in it
_INFLATED: Final = 256 * 1024  # bytes of one step: 32 KiB of a body of one letter inflate to 32 MiB


@dataclass(frozen=True, slots=True)
class ClosedFile:
    """The facts about a finished file that are logged."""

    bytes: int
    records: int  # gzip members of a WARC file, lines of a pages/ file
    sha256: str


def read_closed_file(path: Path, records: int | None = None) -> ClosedFile:
    """Read a finished file once. Raises OSError. `records` is the number of its records, if known. Otherwise they are
    counted, for which a WARC file must be inflated: a twentieth of the cost of a crawl.
    """
    digest = hashlib.sha256()
    size = 0
    counter = _Members() if path.name.endswith(".gz") else _LineCounter()
    with path.open("rb") as file:
        while piece := file.read(_PIECE):
            digest.update(piece)
            size += len(piece)
            if records is None:
                counter.feed(piece)
    return ClosedFile(size, counter.count if records is None else records, digest.hexdigest())


class _LineCounter:
    def __init__(self) -> None:
        self.count = 0

    def feed(self, data: bytes) -> None:
        self.count += data.count(b"\n")


class _Members:
    """Counts the members of a gzip file while it is read."""

    def __init__(self) -> None:
        self.count = 0
        self._member = isal_zlib.decompressobj(wbits=31)

    def feed(self, data: bytes) -> None:
        while True:
            inflated = self._member.decompress(data, _INFLATED)
            if self._member.eof:
                self.count += 1
                data = self._member.unused_data
                self._member = isal_zlib.decompressobj(wbits=31)
                if not data:
                    return
                continue
            data = self._member.unconsumed_tail
            if len(inflated) < _INFLATED:  # below the limit: it needs more data
                return


UNFINISHED: Final = frozenset((SinkFileState.OPEN, SinkFileState.CLOSING))


def rename_to_orphan(disk: Disk, path: Path, stem: str) -> str:
    """Rename a file to `stem`.orphan, or to the first free `stem`.orphan.N. Returns the new name."""
    orphan, n = f"{stem}.orphan", 0
    while path.with_name(orphan).exists():
        n += 1
        orphan = f"{stem}.orphan.{n}"
    disk.rename(path, path.with_name(orphan))
    return orphan


class SinkRecovery:
    """Recovery of one sink. `known`: the files of this sink in the store, closed ones too, by name. `is_restored`: the
    store was restored from a backup, so that the files may have more committed visits than it knows.
    """

    def __init__(
        self, folder: Path, known: Mapping[str, SinkFile], *, naming: Naming, disk: Disk, is_restored: bool
    ) -> None:
        self._folder = folder
        self._known = known
        self._naming = naming
        self._disk = disk
        self._is_restored = is_restored
        self.done = SinkRecovered()  # so far

    def refuse_foreign(self) -> None:
        """Raises SinkForeign if there are complete files and the store knows none: it is another crawl's store."""
        if self._known or self._is_restored:
            return
        names = [self._naming.parse(path.name) for path in self._folder.iterdir()]
        complete = sum(name is not None and name.state == "" for name in names)
        if complete:
            raise SinkForeign(self._folder, complete)

    def ready(self, file: SinkFile) -> Path | None:
        """Make one file ready that is unfinished in the store: one name, and its committed length. Returns its path if
        it is `.open`; None: it is complete, or was moved away. Raises SinkCorrupt, FileExistsError.
        """
        path, final, part = (self._folder / f"{file.name}{end}" for end in (".open", "", ".part"))
        if part.exists():
            if path.exists() or final.exists():
                self._disk.unlink(part)  # an unfinished copy: the original is there
            else:
                self._disk.rename(part, final)  # interrupted after the original was set aside
        if not path.exists():
            if final.exists():
                if self._length(final, file) > file.committed_bytes:
                    self._keep_whole(final, file)
            # It was renamed before the crash, and the operator may have moved it away. An open file is only renamed by
            # `close`, so if it is missing, data is lost. After a restore, however, a file that was open at the backup
            # may have been completed and moved.
            elif file.state is SinkFileState.OPEN and file.committed_bytes:
                if self._is_restored:
                    self.done += SinkRecovered(missing=(file.name,))
                    return None
                raise SinkCorrupt(path, committed_bytes=file.committed_bytes, found_bytes=None)
            return None
        if final.exists() and file.state is not SinkFileState.OPEN:
            raise FileExistsError(f"{path} is complete, but {final} exists: move one of them away")
        beyond = self._length(path, file) - file.committed_bytes
        if final.exists():
            self._set_aside(final, file.name)
        if beyond and self._is_restored:
            self._keep_whole(path, file)
            return None
        if beyond:
            self._cut_off(path, file)
            self.done += SinkRecovered(truncated_bytes=beyond)
        return path

    def set_unknown_aside(self) -> int:
        """Rename files that the store does not know. Returns the lowest serial number that no file has had."""
        free = 0
        for entry in sorted(path.name for path in self._folder.iterdir()):
            name = self._naming.parse(entry)
            if name is None:
                continue
            free = max(free, name.serial + 1)
            known = self._known.get(name.stem)
            is_open = known is not None and known.state in UNFINISHED
            if (name.state == "open" and not is_open) or (name.state == "" and known is None):
                self._set_aside(self._folder / entry, name.stem)
            elif name.state == "part":  # an unfinished copy of an earlier restore; the original is there
                self._disk.unlink(self._folder / entry)
        for entry in self._known:  # also of files that were moved away
            name = self._naming.parse(entry)
            free = max(free, name.serial + 1 if name else 0)
        return free

    def _length(self, path: Path, file: SinkFile) -> int:
        found = path.stat().st_size
        if found < file.committed_bytes:
            raise SinkCorrupt(path, committed_bytes=file.committed_bytes, found_bytes=found)
        return found

    def _cut_off(self, path: Path, file: SinkFile) -> None:
        descriptor = self._disk.reopen(path)
        try:
            self._disk.truncate(descriptor, file.committed_bytes)
            self._disk.sync(descriptor)
        finally:
            self._disk.close(descriptor)

    def _keep_whole(self, path: Path, file: SinkFile) -> None:
        """Set a file aside and put a copy of its committed part, as a complete file, in its place. The log names
        records after that part: nothing else may be written at their offsets.

        Each step is durable before the next. The whole file always has a name, and once it loses its own the copy is
        complete. (The caller makes the last step durable before it is stored.)
        """
        part = self._folder / f"{file.name}.part"
        descriptor = self._disk.create(part)
        try:
            self._disk.copy(path, descriptor, file.committed_bytes)
            self._disk.sync(descriptor)
        except OSError as error:
            with suppress(OSError):  # an incomplete copy takes space on a full disk
                self._disk.unlink(part)
            needed = f"{error.strerror}: {file.committed_bytes} bytes of {path.name} are to be copied"
            raise OSError(error.errno, needed, str(part)) from error
        finally:
            self._disk.close(descriptor)
        self._disk.sync_folder(self._folder)
        self._set_aside(path, file.name)
        self._disk.sync_folder(self._folder)
        self._disk.rename(part, self._folder / file.name)
        self.done += SinkRecovered(cut=(file.name,))

    def _set_aside(self, path: Path, stem: str) -> None:
        orphan = rename_to_orphan(self._disk, path, stem)
        is_finished = path.name == stem or self._is_restored
        self.done += SinkRecovered(orphans=(orphan,), finished=(orphan,) if is_finished else ())
