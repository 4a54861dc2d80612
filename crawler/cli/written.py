"""What an installation wrote: by this a file of ours that nobody touched is told from one that somebody changed.

Each installation leaves a list of its files with their digests, which `sha256sum -c` reads too; links are comments in
it. Files of versions that left no list are known by the digests in systemd/earlier.sha256. Invariant: what is not known
is somebody else's.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Final

_FILE: Final = re.compile(r"([0-9a-f]{64})  (/.*)")
_LINK: Final = re.compile(r"# (/.*) -> (.*)")


@dataclass(frozen=True, slots=True)
class Written:
    """Digests of files and targets of links, by where they are on the machine that they are for; `earlier` are digests
    of files of versions that left no list.
    """

    files: Mapping[str, str]
    links: Mapping[str, str]
    earlier: frozenset[str] = frozenset()

    def is_ours(self, place: str, content: bytes, as_template: str) -> bool:
        """Whether a file is as an installation left it. `as_template`: the same without what differs from machine to
        machine.
        """
        return self.files.get(place) == sha256(content).hexdigest() or digest(as_template) in self.earlier

    def text(self, files: Iterable[tuple[str, str]], links: Iterable[tuple[str, str]]) -> str:
        """The list with these files and links in it, beside what it had."""
        digests = dict(self.files) | {place: digest(content) for place, content in files}
        targets = dict(self.links) | dict(links)
        lines = ["# What crawler install-service wrote; `sha256sum -c` says what was changed since"]
        lines += [f"{digests[place]}  {place}" for place in sorted(digests)]
        lines += [f"# {place} -> {targets[place]}" for place in sorted(targets)]
        return "\n".join(lines) + "\n"


def read_written(path: Path, earlier: Path) -> Written:
    """The list at `path`; none is an empty one. Raises OSError."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        text = ""
    files, links = {}, {}
    for line in text.splitlines():
        if found := _FILE.fullmatch(line):
            files[found[2]] = found[1]
        elif found := _LINK.fullmatch(line):
            links[found[1]] = found[2]
    known = (line.partition(" ")[0] for line in earlier.read_text(encoding="utf-8").splitlines())
    return Written(files, links, frozenset(known))


def digest(text: str) -> str:
    return sha256(text.encode()).hexdigest()
