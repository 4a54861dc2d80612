"""That a store is there where its archive is: nobody begins anew beside what an earlier crawl stored.

It looks at names and sizes only. Invariant: a crawl that was killed before its first commit is not refused, because its
store has tables before the first output file is made.
"""

from pathlib import Path

from crawler.core.words import counted
from crawler.sinks.disk import archived


class StoreLost(Exception):
    """There is an archive, and not the store that it belongs to; the message is for a person (exit 65)."""


def insist_on_store(frontier: Path, output: Path) -> None:
    """Refuse to make a new store beside an archive: all that is in it would be fetched again.

    Raises StoreLost, OSError."""
    if frontier.exists() and frontier.stat().st_size > 0:
        return
    files = archived(output)
    if files:
        state = "is empty" if frontier.exists() else "is missing"
        raise StoreLost(
            f"{frontier} {state}, but {output} holds {counted(len(files), 'file')} of an "
            f"earlier crawl ({files[0].relative_to(output)}): put a backup in its place, or move warc/ and pages/ away "
            f"to begin anew"
        )
