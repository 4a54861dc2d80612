"""What every sink promises (the contract suite in tests/contract holds each one to it).

Sinks block: they are called from the committer's one thread, never from the event loop and never by two threads.
A sink appends, and can say up to which byte what it holds is whole. The frontier stores that length in the same
transaction as the visits, so after a crash the sink cuts its files back to what the frontier knows.

Order of a commit: `write` … `sync` → the frontier's transaction, with the lengths `sync` returned → `settled`, which
renames files that are complete and returns their new states for the next transaction.
"""

from collections.abc import Sequence
from typing import Protocol

from crawler.core.values import Record, SinkFile, Written


class Sink(Protocol):
    """`name` is the sink's word in the store. Every method may raise OSError; what was not synced is then undefined
    until `reset`.
    """

    name: str

    def open(self, known: Sequence[SinkFile]) -> list[SinkFile]:
        """Make the folder agree with the store: finish renames of `closing` files, cut `open` ones to their committed
        length, rename files of ours that the store does not know to `.orphan`. Returns changed states.
        """

    def write(self, records: Sequence[Record], written: Sequence[Written | None]) -> list[Written | None]:
        """Append records. `written[i]` is where an earlier sink put record i. Returns where this one did (None: it has
        no use for that record).
        """

    def sync(self) -> list[SinkFile]:
        """Make everything written durable; returns the files touched with their whole lengths and states."""

    def settled(self) -> list[SinkFile]:
        """The store has committed what `sync` returned: rename what is complete. Returns new states, often none."""

    def reset(self) -> None:
        """After a failed write or commit: cut every open file back to its last committed length."""

    def close(self) -> list[SinkFile]:
        """End the open files (sync, rename). Returns their final states, for `record_sink_files`."""
