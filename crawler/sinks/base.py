"""The `Sink` protocol and its values. The contract suite in tests/contract holds for every implementation.

Sinks block: they are called from the committer's thread, and never by two threads at once. Only `buffer`, which uses no
disk, is called from the event loop. A sink appends to files and returns their synced lengths. The frontier stores these
lengths in the transaction that stores the visits, and after a crash the sink cuts its files back to them.

Order of a commit: `write` or `buffer` … `sync` → the frontier's transaction, with the lengths `sync` returned →
`committed`, which renames complete files and returns their new states for the next transaction. After a failed `write`
or `sync`, or a transaction that stored nothing, `reset` is called, and the batch may be written again.

If somebody deletes, moves or truncates an open file, `sync` fails. After `reset`, `lost_files` returns that file. The
loss is stored first, then `set_aside` is called, and the batch is written to another file.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from crawler.core.enums import FileLoss
from crawler.core.formatting import count
from crawler.core.models import Record, RecordLocation, SinkFile


@dataclass(frozen=True, slots=True)
class SinkOptions:
    """Options of the sinks."""

    name: str = "crawl"  # first part of every file name
    warc: bool = True
    warc_size: int = 1_000_000_000  # bytes after which a new WARC or pages file begins, between two visits
    pages: bool = True
    compression_level: int = 1  # of isal: 0 (fastest) to 3


class SinkCorrupt(Exception):
    """An output file is shorter than its committed length (exit 65). The message is for people."""

    def __init__(self, path: Path, *, committed_bytes: int, found_bytes: int | None) -> None:
        found = "is missing" if found_bytes is None else f"has {count(found_bytes, 'byte')}"
        super().__init__(
            f"{path} {found}, but {count(committed_bytes, 'byte')} of it were committed: "
            "put the file back as it was, or have "
            f"`crawler requeue --file {path.parent.name}/{path.name.removesuffix('.open')}` fetch again what was in it"
        )


class SinkForeign(Exception):
    """The store knows none of the complete files in a sink's folder (exit 65). The message is for people."""

    def __init__(self, folder: Path, files: int) -> None:
        super().__init__(
            f"{folder} holds {count(files, 'complete file')} of which the store knows none: "
            f"put a backup of their store in its place, or move {folder} away to begin anew"
        )


@dataclass(frozen=True, slots=True)
class SinkRecovered:
    """The changes that `open` made so that the files agree with the store. File names are the new ones."""

    orphans: tuple[str, ...] = ()  # files that were set aside
    finished: tuple[str, ...] = ()  # orphans with more in them than the rest of an unfinished commit
    cut: tuple[
        str, ...
    ] = ()  # files that were longer than their committed length; the whole files are among the orphans
    missing: tuple[str, ...] = ()  # files that were open when the backup was made, and are not there
    truncated_bytes: int = 0  # of unfinished commits

    def __add__(self, other: "SinkRecovered") -> "SinkRecovered":
        return SinkRecovered(
            self.orphans + other.orphans,
            self.finished + other.finished,
            self.cut + other.cut,
            self.missing + other.missing,
            self.truncated_bytes + other.truncated_bytes,
        )


@dataclass(frozen=True, slots=True)
class LostFile:
    """An open file that somebody deleted, moved or truncated."""

    file: SinkFile  # its new state: CLOSED if it was moved, else LOSING; length 0: nothing was committed to it
    how: FileLoss
    place: str = ""  # where it was moved to, if known


class Sink(Protocol):
    """A writer of output files. Every method may raise OSError; unsynced data is then undefined until `reset`."""

    name: str  # in the store
    recovery: SinkRecovered  # what the last `open` did

    def open(self, known: Sequence[SinkFile], *, is_restored: bool = False) -> list[SinkFile]:
        """Make the folder agree with the store. `known`: all files in the store; those of other sinks are ignored.

        It finishes renames of `closing` files, truncates `open` files to their committed length, and renames files that
        the store does not know to `.orphan`. A complete file that is longer than its committed length is kept whole as
        `.orphan`, and a copy of the committed part takes its place. After a restore from a backup (`is_restored`) this
        holds for open files too, and a missing open file counts as completed and moved away.

        Returns changed states. Raises SinkCorrupt and SinkForeign. After an OSError it may be called again.
        """

    def write(self, records: Sequence[Record], written: Sequence[RecordLocation | None]) -> list[RecordLocation | None]:
        """Append records. `written`: their locations in an earlier sink. Returns their locations in this one, None for
        a record that it does not store.
        """

    def can_buffer(self, record: Record) -> bool:
        """Whether `buffer` takes this record: it is in memory, and its file exists and has room."""

    def buffer(self, record: Record, written: RecordLocation | None) -> RecordLocation | None:
        """Append one record as `write`, in memory only: `sync` writes it. Takes about 0.1 ms and raises nothing. Only
        allowed right after `can_buffer` returned True.
        """

    def sync(self) -> list[SinkFile]:
        """Make all written data durable. Returns each file whose length or state differs from what the store knows, and
        the same again if it is called again before `committed`. Raises OSError also if an open file is not at its path
        any more, or has another length than was written.
        """

    def committed(self) -> list[SinkFile]:
        """Called when the store has committed what `sync` returned: rename complete files. Returns their new states.
        Even after an OSError the lengths count as committed, and the next call tries the renames again.
        """

    def reset(self) -> None:
        """Truncate every open file to its committed length, after a failed write or commit. If that fails, the next
        `reset`, `write` or `sync` first finishes it.
        """

    def close(self) -> list[SinkFile]:
        """Complete the open files (rename). Returns their final states, for `record_sink_files`. A file that is longer
        than its committed length stays `.open`, and the next `open` recovers it.
        """

    def lost_files(self) -> list[LostFile]:
        """Close open files that somebody deleted, moved or truncated. Returns them and those that `reset` closed for
        this reason, each once. Not allowed between `write` and `committed`.
        """

    def set_aside(self, lost: LostFile) -> None:
        """Called when the loss of a file is stored: rename a file that is now at its path, if any, to `.orphan`."""
