"""What every sink promises (the contract suite in tests/contract holds each one to it).

Sinks block: they are called from the committer's one thread, never from the event loop and never by two threads.
A sink appends, and can say up to which byte what it holds is whole. The frontier stores that length in the same
transaction as the visits, so after a crash the sink cuts its files back to what the frontier knows.

Order of a commit: `write` … `sync` → the frontier's transaction, with the lengths `sync` returned → `settled`, which
renames files that are complete and returns their new states for the next transaction. After a failed `write` or `sync`,
or a transaction that surely stored nothing: `reset`, and the batch may be written again.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from crawler.core.values import Record, SinkFile, Written


class SinkCorrupt(Exception):
    """An output file holds less than the store says was committed to it (exit 65). The message is for a person."""

    def __init__(self, path: Path, *, committed_bytes: int, found_bytes: int | None) -> None:
        found = "is missing" if found_bytes is None else f"has {found_bytes} bytes"
        super().__init__(
            f"{path} {found}, but {committed_bytes} bytes of it were committed: put the file back as it was"
        )
        self.path = path
        self.committed_bytes = committed_bytes
        self.found_bytes = found_bytes


class Sink(Protocol):
    """`name` is the sink's word in the store. Every method may raise OSError; what was not synced is then undefined
    until `reset`.
    """

    name: str

    def open(self, known: Sequence[SinkFile]) -> list[SinkFile]:
        """Make the folder agree with the store: finish renames of `closing` files, cut `open` ones to their committed
        length, rename files of ours that the store does not know to `.orphan`. Files of other sinks in `known` are
        passed over. Returns changed states. Raises SinkCorrupt; after an OSError it may be called again.
        """

    def write(self, records: Sequence[Record], written: Sequence[Written | None]) -> list[Written | None]:
        """Append records. `written[i]` is where an earlier sink put record i. Returns where this one did (None: it has
        no use for that record).
        """

    def sync(self) -> list[SinkFile]:
        """Make everything written durable. Returns every file whose length or state differs from what the store knows;
        the same again if called again before `settled`.
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
