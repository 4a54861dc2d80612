"""The output directory of a crawl: that it can be one, what lies where in it, and whether a crawl runs there.

run.json is written at each start and reload; by it others find the crawl's files and the rules in force. For who knows
only the configuration there is a link in the runtime directory. A directory that was moved is still the crawl's; a copy
of it is a crawl of its own, whatever the run.json that came along says.

Invariants: looking takes no lock, so that a crawl may start at any moment. A link is a hint: what it leads to counts
only if a crawl runs there, and with this configuration.
"""

import contextlib
import errno
import os
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from stat import S_IMODE, S_ISDIR
from typing import Final

import orjson

from crawler.core.formatting import count, naming_key
from crawler.core.options import PolitenessOptions, Rules, dump_rules, load_rules
from crawler.sinks.disk import archive_files

_OF_A_CRAWL: Final = {"run.json", "frontier.db"}
_BESIDE_IT: Final = {"frontier.db.lock", "warc", "pages", "logs", "control.sock"}  # there first, perhaps
_SERVICE: Final = Path("/run/crawler")  # RuntimeDirectory= of the unit; of instances, one below


class OutputUnusable(Exception):
    """The output directory cannot be one; the message is for a person (exit 78)."""


def prepare(output: Path) -> Path:
    """Make the output directory. Raises OutputUnusable, OSError."""
    try:
        with naming_key("output.directory", output, "cannot be made"):
            output.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        raise OutputUnusable(f"{output} is not a directory; output.directory must be one") from None
    return output


def strangers(output: Path) -> list[str]:
    """What lies in a directory that holds no crawl yet, and is not ours: the crawl's files will stand among it. Hidden
    files, such as the demo's mark, are nobody's work that could be mixed up with it.
    """
    try:
        names = {path.name for path in output.iterdir() if not path.name.startswith(".")}
    except OSError:  # not there yet, or whoever opens it will say why it cannot
        return []
    return [] if names & _OF_A_CRAWL else sorted(names - _BESIDE_IT)


class StoreLost(Exception):
    """There is an archive, and not the store that it belongs to; the message is for a person (exit 65)."""


def insist_on_store(frontier: Path, output: Path) -> None:
    """Refuse to make a new store beside an archive: all that is in it would be fetched again.

    Raises StoreLost, OSError."""
    if frontier.exists() and frontier.stat().st_size > 0:
        return
    files = archive_files(output)
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
        load_rules(run.get("rules")),
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


def write_run_file(place: Place, *, run_id: str, configuration: str | None, rules: Rules) -> None:
    """Write run.json, by which `--output DIR` finds the daemon, its logs and the rules in force. Called again when
    these change (a reload). Raises OSError.
    """
    path = place.output / "run.json"
    content = {
        "pid": os.getpid(),
        "run_id": run_id,
        "output": str(place.output.resolve()),  # by these two a copy is told from what was moved
        "inode": inode_of(place.output),
        "configuration": configuration and str(Path(configuration).resolve()),
        "socket": str(place.socket.resolve()),
        "logs": str(place.logs.resolve()),
        "frontier": str(place.frontier.resolve()),
        "rules": dump_rules(rules),
    }
    temporary = path.with_suffix(".json.new")
    temporary.write_bytes(orjson.dumps(content, option=orjson.OPT_INDENT_2) + b"\n")
    temporary.replace(path)


def same_delays(output: Path, politeness: PolitenessOptions) -> bool:
    """Whether the last run in this directory kept to these politeness options."""
    try:
        before = find(output).rules
    except OSError:
        return False
    return before is not None and before.politeness == politeness


def announce(configuration: str, output: Path, environ: Mapping[str, str]) -> Path | None:
    """Leave a link from the configuration to the output directory, as long as the daemon runs: `-c FILE` then finds it
    when the file names another directory by now, or cannot be read. Returns the link; None if there is no good place.
    """
    folder = _runtime_directory(environ)
    if folder is None:
        return None
    target = output.resolve() / "run.json"
    link = folder / f"{_name_of(configuration)}{sha256(os.fsencode(target)).hexdigest()[:8]}"
    try:
        for old in folder.iterdir():  # left by kill -9, and what it led to is gone
            if old.is_symlink() and not old.exists():
                old.unlink(missing_ok=True)
        temporary = link.with_suffix(f".{os.getpid()}")
        temporary.unlink(missing_ok=True)
        temporary.symlink_to(target)
        temporary.replace(link)
    except OSError:
        return None
    return link


def withdraw(link: Path | None) -> None:
    """Take the link away again."""
    if link is not None:
        with contextlib.suppress(OSError):
            link.unlink(missing_ok=True)


def announced(configuration: Path, environ: Mapping[str, str]) -> list[Path]:
    """The output directories of the daemons that run this configuration now, as far as they may be seen from here."""
    name, said = _name_of(str(configuration)), str(configuration.resolve())
    found = set()
    for folder in _runtime_directories(environ):
        for link in folder.glob(f"{name}*"):
            with contextlib.suppress(OSError):
                output = link.readlink().parent
                place = find(output)
                if place.configuration == said and place.pid() is not None:
                    found.add(output)
    return sorted(found)


def _name_of(configuration: str) -> str:
    return sha256(os.fsencode(Path(configuration).resolve())).hexdigest()[:24] + "-"


def _runtime_directory(environ: Mapping[str, str]) -> Path | None:
    """Where this process may leave a link: systemd's for the service, the user's, or one of our own, which nobody else
    may write to.
    """
    if given := environ.get("RUNTIME_DIRECTORY"):
        return Path(given.partition(":")[0])
    folder = _of_the_user(environ)
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError:
        return None
    return folder if _is_ours(folder) else None


def _of_the_user(environ: Mapping[str, str]) -> Path:
    if given := environ.get("XDG_RUNTIME_DIR"):
        return Path(given) / "crawler"
    return Path(tempfile.gettempdir()) / f"crawler-{os.geteuid()}"


def _runtime_directories(environ: Mapping[str, str]) -> Iterable[Path]:
    """Where links may lie. The user's own depend on how the daemon was started: from a session, by sudo, by cron."""
    if given := environ.get("RUNTIME_DIRECTORY"):
        yield Path(given.partition(":")[0])
    yield _SERVICE
    with contextlib.suppress(OSError):
        yield from (folder for folder in _SERVICE.iterdir() if folder.is_dir())
    own = {_of_the_user(environ), _of_the_user({}), Path(f"/run/user/{os.geteuid()}/crawler")}
    yield from (folder for folder in sorted(own) if _is_ours(folder))


def _is_ours(folder: Path) -> bool:
    """In /tmp anybody may have made it: links of somebody else would lead to somebody else's crawl."""
    try:
        status = folder.lstat()
    except OSError:
        return False
    return S_ISDIR(status.st_mode) and status.st_uid == os.geteuid() and not S_IMODE(status.st_mode) & 0o022
