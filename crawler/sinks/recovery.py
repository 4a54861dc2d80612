"""Brings a sink's folder into agreement with the store: what a start does before anything is written.

It knows names and lengths, not what is in the files. Nothing that may have been acknowledged is deleted: a file that
the store does not know is renamed `.orphan`. One that is longer than the store knows, because the store is a backup put
back, is kept whole as `.orphan`, and a copy of what counts takes its place.

Invariant: stopped at any call to the disk, by a kill or a power cut, and begun again, it comes to the same end.
"""

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Final

from crawler.core.enums import SinkFileState
from crawler.core.models import SinkFile
from crawler.sinks.base import SinkCorrupt, SinkRecovered, SinkStrange
from crawler.sinks.disk import Disk, Naming

UNFINISHED: Final = frozenset((SinkFileState.OPEN, SinkFileState.CLOSING))


def set_aside(disk: Disk, path: Path, stem: str) -> str:
    """Rename a file to `stem`.orphan, or the first such name that is free. Returns it."""
    orphan, n = f"{stem}.orphan", 0
    while path.with_name(orphan).exists():
        n += 1
        orphan = f"{stem}.orphan.{n}"
    disk.rename(path, path.with_name(orphan))
    return orphan


class SinkRecovery:
    """`known` are the files of this sink that the store knows, closed ones too, by name. `is_restored`: the store is
    a backup put back, so what lies beyond a committed length may have been acknowledged by the one it replaced.
    """

    def __init__(
        self, folder: Path, known: Mapping[str, SinkFile], *, naming: Naming, disk: Disk, is_restored: bool
    ) -> None:
        self._folder = folder
        self._known = known
        self._naming = naming
        self._disk = disk
        self._is_restored = is_restored
        self._orphans: list[str] = []
        self._finished: list[str] = []
        self._cut: list[str] = []
        self._missing: list[str] = []
        self._truncated_bytes = 0

    @property
    def done(self) -> SinkRecovered:
        """What was done so far, for the log."""
        return SinkRecovered(
            tuple(self._orphans), tuple(self._finished), tuple(self._cut), tuple(self._missing), self._truncated_bytes
        )

    def refuse_strangers(self) -> None:
        """Raises SinkStrange where the store knows not one of the complete files that are there: it is not theirs."""
        if self._known or self._is_restored:
            return
        names = [self._naming.parse(path.name) for path in self._folder.iterdir()]
        complete = sum(name is not None and name.state == "" for name in names)
        if complete:
            raise SinkStrange(self._folder, complete)

    def ready(self, file: SinkFile) -> Path | None:
        """Make one file that the store holds for unfinished as long as the store says, under one name. Returns it if it
        is there with `.open`; None: it is complete, and perhaps moved away. Raises SinkCorrupt, FileExistsError.
        """
        path, final, part = (self._folder / f"{file.name}{end}" for end in (".open", "", ".part"))
        if part.exists():
            if path.exists() or final.exists():
                self._disk.unlink(part)  # a copy that was not finished: what it was made of is there
            else:
                self._disk.rename(part, final)  # killed after the whole file was set aside
        if not path.exists():
            if final.exists():
                if self._length(final, file) > file.committed_bytes:
                    self._keep_whole(final, file)
            # Renamed before the crash, and perhaps moved away by the operator since. One that was still open is
            # renamed by `close` alone: were it neither here nor there, data would be lost. When a backup was made it
            # was open, and has had time to be completed and moved.
            elif file.state is SinkFileState.OPEN and file.committed_bytes:
                if self._is_restored:
                    self._missing.append(file.name)
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
            self._truncated_bytes += beyond
        return path

    def set_strangers_aside(self) -> int:
        """Rename what the store does not know. Returns the lowest serial number that no file has had."""
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
            elif name.state == "part":  # of a restore that was cut short, before another store was put in
                self._disk.unlink(self._folder / entry)  # what it was made of is there whole
        for entry in self._known:  # one that was renamed and then moved away still counts
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
        """Set a file aside, and put a copy of what counts in its place, complete: the log tells of records behind that,
        and nothing else may come to lie where it says.

        Each step is durable before the next: there is always the whole file under one name, and from the moment that it
        loses its own the copy is there, whole. (Who called makes the last step durable, before the store hears.)
        """
        part = self._folder / f"{file.name}.part"
        descriptor = self._disk.create(part)
        try:
            self._disk.copy(path, descriptor, file.committed_bytes)
            self._disk.sync(descriptor)
        except OSError as error:
            with suppress(OSError):  # on a full disk the half of a copy is in the way
                self._disk.unlink(part)
            needed = f"{error.strerror}: {file.committed_bytes} bytes of {path.name} are to be copied"
            raise OSError(error.errno, needed, str(part)) from error
        finally:
            self._disk.close(descriptor)
        self._disk.sync_folder(self._folder)
        self._set_aside(path, file.name)
        self._disk.sync_folder(self._folder)
        self._disk.rename(part, self._folder / file.name)
        self._cut.append(file.name)

    def _set_aside(self, path: Path, stem: str) -> None:
        orphan = set_aside(self._disk, path, stem)
        self._orphans.append(orphan)
        if path.name == stem or self._is_restored:
            self._finished.append(orphan)
