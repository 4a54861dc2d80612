"""The calls sinks make on the file system, in one place so that a test can make any of them fail.

It knows neither names nor records. Every method raises OSError; nothing is retried here.
"""

import errno
import os
from pathlib import Path
from typing import Final

_COPY_BYTES: Final = 1024 * 1024  # at a time


class Disk:
    """Files are descriptors opened for appending; nothing is buffered here."""

    def create(self, path: Path) -> int:
        """Make a file that did not exist and open it."""
        return os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)

    def reopen(self, path: Path) -> int:
        return os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)

    def status(self, descriptor: int) -> os.stat_result:
        return os.fstat(descriptor)

    def is_at(self, status: os.stat_result, path: Path) -> bool:
        """Whether the file of this status lies at `path`."""
        try:
            return os.path.samestat(status, path.stat())
        except FileNotFoundError:
            return False

    def place(self, descriptor: int) -> str:
        """Where an open file lies now, "" if the system does not say."""
        try:
            return str(Path(f"/proc/self/fd/{descriptor}").readlink())
        except OSError:
            return ""

    def write(self, descriptor: int, data: memoryview) -> int:
        """Write at the file's end; returns how much of `data` was taken, which on a full disk may be less."""
        return os.write(descriptor, data)

    def copy(self, source: Path, descriptor: int, size: int) -> None:
        """Write the first `size` bytes of `source` at a file's end."""
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
        """Make the names in a folder durable: a new or renamed file survives a power cut only after this."""
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
