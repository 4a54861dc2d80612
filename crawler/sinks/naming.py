"""Names of output files: made, recognised, and found in an output directory.

It knows nothing of what is in them. A file has `.open` after its name while it is written, `.orphan` (and a number, if
need be) once it was set aside, `.part` while it is copied.
"""

import re
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, NamedTuple

# Sinks, their folders and what their files end in.
EXTENSIONS: Final = {"warc": "warc.gz", "pages": "jsonl"}


class FileName(NamedTuple):
    """What the name of an entry in a sink's folder says. `state` is "", "open", "orphan" or "part"."""

    stem: str  # without .open, .orphan or .part
    serial: int
    state: str


class Naming:
    """`PREFIX-YYYYMMDDhhmmss-SERIAL.EXTENSION`, the pattern WARC 1.1 annex B proposes, less the host's name."""

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
        """None where the entry is not one of this sink's. Any prefix counts: an operator may have renamed the crawl."""
        match = self._pattern.fullmatch(entry)
        if match is None:
            return None
        return FileName(match["stem"], int(match["serial"]), match["state"] or "")


def archived(output: Path) -> Sequence[Path]:
    """The files in an output directory that hold something stored: complete, or open and not empty. Raises OSError."""
    found = []
    for sink, extension in EXTENSIONS.items():
        folder = output / sink
        for path in sorted(folder.iterdir()) if folder.is_dir() else ():
            name = Naming("", extension).parse(path.name)
            if name is not None and name.state in ("", "open") and path.stat().st_size > 0:
                found.append(path)
    return found
