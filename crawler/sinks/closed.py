"""What is said of a finished output file: size, records and checksum, for those who move it elsewhere.

Read back from the disk, so that it speaks of what is there rather than of what was meant. Blocking; for a thread.
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from isal import isal_zlib

_PIECE: Final = 32 * 1024  # what follows a member in its piece is copied for each member: small pieces, little copying
_INFLATED: Final = 256 * 1024  # at a time: 32 KiB of a body of one letter are 32 MiB


@dataclass(frozen=True, slots=True)
class ClosedFile:
    """`records` are gzip members in a WARC, lines in pages/."""

    bytes: int
    records: int
    sha256: str


def inspect(path: Path, records: int | None = None) -> ClosedFile:
    """Read `path` once. Raises OSError. `records`: their number, where who wrote them all says it; to count the members
    of a WARC file it has to be inflated, which costs a twentieth of a crawl.
    """
    digest = hashlib.sha256()
    size = 0
    counter = _Members() if path.name.endswith(".gz") else _Lines()
    with path.open("rb") as file:
        while piece := file.read(_PIECE):
            digest.update(piece)
            size += len(piece)
            if records is None:
                counter.feed(piece)
    return ClosedFile(size, counter.count if records is None else records, digest.hexdigest())


class _Lines:
    def __init__(self) -> None:
        self.count = 0

    def feed(self, data: bytes) -> None:
        self.count += data.count(b"\n")


class _Members:
    """Counts the members of a gzip file as it is read."""

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
            if len(inflated) < _INFLATED:  # not stopped by the limit: it needs more
                return
