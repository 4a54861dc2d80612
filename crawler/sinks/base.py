"""What every sink promises (the contract suite in tests/contract holds each one to it).

Sinks block: they are called from the committer's one thread, and never by two threads at once. `gather` alone touches
no disk, and is called from the event loop.
A sink appends, and can say up to which byte what it holds is whole. The frontier stores that length in the same
transaction as the visits, so after a crash the sink cuts its files back to what the frontier knows.

Order of a commit: `write` or `gather` … `sync` → the frontier's transaction, with the lengths `sync` returned →
`settled`, which renames files that are complete and returns their new states for the next transaction. After a failed
`write` or `sync`, or a transaction that surely stored nothing: `reset`, and the batch may be written again.

An open file that somebody deletes, moves or cuts makes `sync` fail. After the `reset` that follows, `vanished` tells
what became of it; the store is told, then the sink (`put_aside`), and the batch is written to another file.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from crawler.core.enums import FileLoss
from crawler.core.formatting import count
from crawler.core.models import Record, RecordLocation, SinkFile


class SinkCorrupt(Exception):
    """An output file holds less than the store says was committed to it (exit 65). The message is for a person."""

    def __init__(self, path: Path, *, committed_bytes: int, found_bytes: int | None) -> None:
        found = "is missing" if found_bytes is None else f"has {count(found_bytes, 'byte')}"
        super().__init__(
            f"{path} {found}, but {count(committed_bytes, 'byte')} of it were committed: "
            "put the file back as it was, or have "
            f"`crawler requeue --file {path.parent.name}/{path.name.removesuffix('.open')}` fetch again what was in it"
        )


class SinkStrange(Exception):
    """The store knows none of the complete files in a sink's folder (exit 65). The message is for a person."""

    def __init__(self, folder: Path, files: int) -> None:
        super().__init__(
            f"{folder} holds {count(files, 'complete file')} of which the store knows none: "
            f"put a backup of their store in its place, or move {folder} away to begin anew"
        )


@dataclass(frozen=True, slots=True)
class SinkRecovered:
    """What `open` had to do. `orphans`: files that were set aside, as they are called now; `finished` are those among
    them that were no mere remains of a commit. `cut`: files that were longer than the store knows, and are whole among
    the orphans. `missing`: files that were open when a backup was made, and are not there. `truncated_bytes`: of
    commits that did not come to their end.
    """

    orphans: tuple[str, ...] = ()
    finished: tuple[str, ...] = ()
    cut: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    truncated_bytes: int = 0

    def __add__(self, other: "SinkRecovered") -> "SinkRecovered":
        return SinkRecovered(
            self.orphans + other.orphans,
            self.finished + other.finished,
            self.cut + other.cut,
            self.missing + other.missing,
            self.truncated_bytes + other.truncated_bytes,
        )


@dataclass(frozen=True, slots=True)
class Vanished:
    """An open file that the sink had to let go. `file` is what the store is to know of it from now on: CLOSED if it was
    moved (to `place`, "" if that is not known), else LOSING; nothing was committed to it if its length is 0.
    """

    file: SinkFile
    how: FileLoss
    place: str = ""


class Sink(Protocol):
    """`name` is the sink's word in the store. Every method may raise OSError; what was not synced is then undefined
    until `reset`. `mended`: what the last `open` did.
    """

    name: str
    mended: SinkRecovered

    def open(self, known: Sequence[SinkFile], *, is_restored: bool = False) -> list[SinkFile]:
        """Make the folder agree with the store: finish renames of `closing` files, cut `open` ones to their committed
        length, rename files of ours that the store does not know to `.orphan`. `known` are all files that the store
        knows; those of other sinks are passed over. A complete file that is longer than its committed length is kept
        whole as `.orphan`, and a copy of what counts takes its place. With `is_restored` (a backup was put back) so
        is an open one, and one that is not there is taken for complete and moved away.

        Returns changed states. Raises SinkCorrupt, SinkStrange; after an OSError it may be called again.
        """

    def write(self, records: Sequence[Record], written: Sequence[RecordLocation | None]) -> list[RecordLocation | None]:
        """Append records. `written[i]` is where an earlier sink put record i. Returns where this one did (None: it has
        no use for that record).
        """

    def can_gather(self, record: Record) -> bool:
        """Whether `gather` takes this record: it is in memory, and the file that it goes to is there and has room."""

    def gather(self, record: Record, written: RecordLocation | None) -> RecordLocation | None:
        """As `write`, for one record, without touching a disk: `sync` does the rest. Costs some 0.1 ms and raises
        nothing. Only right after `can_gather` has said yes.
        """

    def sync(self) -> list[SinkFile]:
        """Make everything written durable. Returns every file whose length or state differs from what the store knows;
        the same again if called again before `settled`. Raises OSError, too, where an open file is not at its place any
        more, or not as long as it was made.
        """

    def settled(self) -> list[SinkFile]:
        """The store has committed what `sync` returned: rename what is complete. Returns new states, often none. After
        an OSError the lengths count as committed all the same, and the renames are tried again by the next call.
        """

    def reset(self) -> None:
        """After a failed write or commit: cut every open file back to its last committed length. If this fails too,
        the next `reset`, `write` or `sync` first brings it to its end.
        """

    def close(self) -> list[SinkFile]:
        """End the open files (rename). Returns their final states, for `record_sink_files`. A file that holds more than
        was settled stays `.open`: only the store can say what of it counts, at the next `open`.
        """

    def vanished(self) -> list[Vanished]:
        """Let go of open files that somebody deleted, moved or cut, and return them and those that `reset` let go. Each
        is returned once. Not between `write` and `settled`.
        """

    def put_aside(self, vanished: Vanished) -> None:
        """The store knows that a file is lost: rename what lies in its place, if anything, to `.orphan`."""
