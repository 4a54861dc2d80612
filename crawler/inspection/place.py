"""Where a crawl is: its store, its logs, whether it runs. Found by its output directory and the run.json in it.

It does not read the configuration (the command line does that and hands over what it says). A directory that was moved
is still the crawl's; a copy of it is a crawl of its own, whatever the run.json that came along says.
Invariant: looking takes no lock, so that a crawl may start at any moment.
"""

import errno
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import orjson

from crawler.core.formatting import count
from crawler.inspection.rules import Rules, load
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
            f"{frontier} {state}, but {output} holds {count(len(files), 'file')} of an "
            f"earlier crawl ({files[0].relative_to(output)}): put a backup in its place, or move warc/ and pages/ away "
            f"to begin anew"
        )


_USUAL: Final = {"frontier": "frontier.db", "socket": "control.sock", "logs": "logs"}  # under the output directory


@dataclass(frozen=True, slots=True)
class Place:
    """The paths of one crawl. `rules` are those of its last start or reload, None if it did not write any;
    `configuration` is the file it was given.
    """

    output: Path
    frontier: Path
    logs: Path
    socket: Path
    run_id: str | None = None
    configuration: str | None = None
    rules: Rules | None = None

    @property
    def fetch_log(self) -> Path:
        return self.logs / "fetch.jsonl"

    @property
    def events_log(self) -> Path:
        return self.logs / "events.jsonl"

    def pid(self) -> int | None:
        """The process that owns the store now, None if the crawl does not run."""
        return owner(self.frontier)


def find(output: Path, *, frontier: Path | None = None, logs: Path | None = None, socket: Path | None = None) -> Place:
    """The crawl of an output directory. Paths that are given are what the configuration says: they hold where there is
    no run.json. Raises OSError with a message for a person if there is nothing of a crawl.
    """
    run = _run_file(output / "run.json")
    said = _paths_of(run, output)
    place = Place(
        output,
        _path(said, "frontier", frontier, output),
        _path(said, "logs", logs, output),
        _path(said, "socket", socket, output),
        _text(run, "run_id"),
        _text(run, "configuration"),
        load(run.get("rules")),
    )
    if not (run or place.frontier.exists() or place.logs.is_dir()):
        if not output.exists():
            raise FileNotFoundError(errno.ENOENT, "no such directory, so no crawl to look at", str(output))
        if not output.is_dir():
            raise NotADirectoryError(errno.ENOTDIR, "not a directory, so no crawl to look at", str(output))
        os.scandir(output).close()  # what may not be read is another matter: PermissionError
        raise FileNotFoundError(errno.ENOENT, "holds no crawl: neither run.json, frontier.db nor logs/", str(output))
    return place


def _paths_of(run: dict[str, object], output: Path) -> dict[str, Path]:
    """Where a run.json says that things are, seen from the directory it lies in now.

    It was written for one directory. Found in another one, that was moved, or copied. It was moved if this still is the
    same directory by device and inode, or if there is no run.json any more where it was. What lay inside came along
    with it either way. What lay elsewhere stayed there and belongs to the original, which may be running: to the moved
    directory, therefore, and not to a copy.
    """
    said = {name: Path(value) for name in _USUAL if isinstance(value := run.get(name), str)}
    here = output.resolve()
    home = _written_for(run, said, here)
    if home is None or home == here:
        return said
    was_moved = run.get("inode") == inode_of(here) or not os.access(home / "run.json", os.F_OK)
    inside = {name: output / path.relative_to(home) for name, path in said.items() if path.is_relative_to(home)}
    return (said | inside) if was_moved else inside


def _written_for(run: dict[str, object], said: dict[str, Path], here: Path) -> Path | None:
    """The directory that a run.json was written for. An older version did not write that: then it is the one in which
    something has its usual name, if a crawl is there, or if this directory has the like. None: nothing tells.
    """
    if isinstance(written_for := run.get("output"), str):
        return Path(written_for)
    for name, path in said.items():
        usual = _USUAL[name]
        if path.name == usual:
            home = path.parent
            if home == here or (here / usual).exists() or os.access(home / "run.json", os.F_OK):
                return home
    return None


def inode_of(directory: Path) -> str | None:
    """What tells a directory from its copies, wherever it is moved within its file system; None if it is not there."""
    try:
        status = directory.stat()
    except OSError:
        return None
    return f"{status.st_dev}:{status.st_ino}"


def _path(said: dict[str, Path], name: str, configured: Path | None, output: Path) -> Path:
    """What run.json says, or else the configuration; unless it is not there and the usual place is."""
    usual = output / _USUAL[name]
    path = said.get(name) or configured or usual
    return usual if usual.exists() and not path.exists() else path


def _text(run: dict[str, object], name: str) -> str | None:
    value = run.get(name)
    return value if isinstance(value, str) else None


def _run_file(path: Path) -> dict[str, object]:
    """What run.json says; nothing, if it is missing or torn."""
    try:
        content = orjson.loads(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError, orjson.JSONDecodeError):
        return {}
    return content if isinstance(content, dict) else {}


def owner(frontier: Path) -> int | None:
    """The process that holds a store's lock, None if none does. Read from the lock file and the kernel's list of locks:
    trying the lock would refuse it to a crawl that starts at that moment.
    """
    lock = frontier.with_name(frontier.name + ".lock")
    try:
        pid = int(lock.read_bytes().strip() or b"0")
        inode = lock.stat().st_ino
    except (OSError, ValueError):
        return None
    if pid <= 0 or not Path(f"/proc/{pid}").exists():
        return None
    try:
        held = Path("/proc/locks").read_text(encoding="ascii", errors="replace")
    except OSError:
        return pid
    # A line of it: number, FLOCK, ADVISORY, WRITE, pid, MAJOR:MINOR:INODE, and the range (proc_locks(5)).
    is_held = any("FLOCK" in line and line.split()[5].endswith(f":{inode}") for line in held.splitlines())
    return pid if is_held else None
