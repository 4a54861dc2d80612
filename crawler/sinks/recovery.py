"""Recovery of a sink's folder at the start: names and lengths of the files are made to agree with the store.

Nothing that may have been acknowledged is deleted. A file that the store does not know is renamed to `.orphan`. A file
that is longer than the store knows, because the store was restored from a backup, is kept whole as `.orphan`, and a
copy of the committed part takes its place.

Invariant: if a kill or a power cut interrupts it at any system call, the next start has the same result.
"""

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Final

from crawler.core.enums import SinkFileState
from crawler.core.models import SinkFile
from crawler.sinks.base import SinkCorrupt, SinkForeign, SinkRecovered
from crawler.sinks.disk import Disk, Naming

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
