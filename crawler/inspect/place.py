"""Where a crawl is: its store, its logs, whether it runs. Found by its output directory and the run.json in it.

It does not read the configuration (the command line does that and hands over what it says).
Invariant: looking takes no lock, so that a crawl may start at any moment.
"""

import errno
import os
from dataclasses import dataclass
from pathlib import Path

import orjson

from crawler.inspect.rules import Rules, load


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
    paths = run if _is_of(run, output) else {}
    place = Place(
        output,
        _path(paths, "frontier", frontier or output / "frontier.db", output / "frontier.db"),
        _path(paths, "logs", logs or output / "logs", output / "logs"),
        _path(paths, "socket", socket or output / "control.sock", output / "control.sock"),
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


def _is_of(run: dict[str, object], output: Path) -> bool:
    """Whether a run.json was written for this directory. In a copy it names the paths of the original, which may still
    be there, and running: nobody who names the copy means those.
    """
    written_for = run.get("output")
    return not isinstance(written_for, str) or Path(written_for) == output.resolve()


def _path(run: dict[str, object], name: str, configured: Path, usual: Path) -> Path:
    """What run.json says; unless it is not there (the directory was moved) and the usual place is."""
    said = run.get(name)
    path = Path(said) if isinstance(said, str) else configured
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
