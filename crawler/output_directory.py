"""The output directory of a crawl: whether it can be used, the paths of its files, and whether a crawl runs there.

run.json is written at each start and reload; by it other programs find the files of the crawl and the current rules. A
link in the runtime directory leads from the configuration to it. A directory that was moved still belongs to its crawl;
a copy is a crawl of its own, even though the copied run.json names the first one.

Invariants: reading takes no lock, so that a crawl may start at any moment. A link is a hint: it counts only if a crawl
with this configuration runs where it leads to.
"""

import contextlib
import errno
import os
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from stat import S_IMODE, S_ISDIR
from typing import Final

import orjson

from crawler.core.formatting import count, naming_key
from crawler.core.models import SinkFile
from crawler.core.options import NameSet, Rules, dump_rules, load_rules
from crawler.core.ownership import ONLY_AGENT
from crawler.sinks.disk import archive_files

_OF_A_CRAWL: Final = {"run.json", "frontier.db"}
_MAY_BE_FIRST: Final = {  # may exist before them
    "frontier.db.lock", "warc", "pages", "logs", "control.sock", "crawler.toml", "conf.d", "lost+found",
}  # fmt: skip
_DEFAULT_NAMES: Final = {"frontier": "frontier.db", "socket": "control.sock", "logs": "logs"}
_NAMES: Final = "seed-hosts-"  # followed by the digest of the names
_SERVICE: Final = Path("/run/crawler")  # RuntimeDirectory= of the unit; those of instances are below it


class OutputUnusable(Exception):
    """The path cannot be an output directory; the message is for a person (exit 78)."""


def prepare(output: Path) -> Path:
    """Make the output directory. Raises OutputUnusable, OSError."""
    try:
        with naming_key("output.directory", output, "cannot be made"):
            output.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        raise OutputUnusable(f"{output} is not a directory; output.directory must be one") from None
    return output


def other_files(output: Path, configuration: Path | None) -> list[str]:
    """The files of others in a directory that holds no crawl yet. The configuration and hidden files, such as the mark
    of the demo, do not count.
    """
    try:
        names = {path.name for path in output.iterdir() if not path.name.startswith(".")}
    except OSError:  # it does not exist yet, or opening it will fail with a message
        return []
    if configuration is not None and configuration.resolve().parent == output.resolve():
        names.discard(configuration.name)
    return [] if names & _OF_A_CRAWL else sorted(names - _MAY_BE_FIRST)


class StoreMissing(Exception):
    """There is an archive without its store; the message is for a person (exit 65)."""


def require_store(frontier: Path, output: Path) -> None:
    """Refuse to make a new store beside an archive: all that is in it would be fetched again.

    Raises StoreMissing, OSError.
    """
    if frontier.exists() and frontier.stat().st_size > 0:
        return
    files = archive_files(output)
    if files:
        state = "is empty" if frontier.exists() else "is missing"
        raise StoreMissing(
            f"{frontier} {state}, but {output} holds {count(len(files), 'file')} of an "
            f"earlier crawl ({files[0].relative_to(output)}): put a backup of the store in its place, or "
            "move warc/ and pages/ away to begin a new crawl"
        )


def require_same_crawl(known: Sequence[SinkFile], output: Path) -> None:
    """Refuse a database that is not of the crawl in this output directory: one knows output files, and the other has
    none. (A file that is open may be of a run that was killed before its first commit.) Raises StoreMissing, OSError.
    """
    files = archive_files(output)
    complete = [file for file in files if file.suffix != ".open"]
    written = [file for file in known if file.committed_bytes > 0]
    if complete and not known:
        raise StoreMissing(
            f"the database is empty, but {output} holds {count(len(complete), 'file')} of an earlier crawl "
            f"({complete[0].relative_to(output)}): name the database of that crawl in frontier.dsn, or move warc/ and "
            "pages/ away to begin a new crawl"
        )
    if written and not files:
        raise StoreMissing(
            f"the database is of a crawl with {count(len(written), 'output file')} ({written[0].name} …), and {output} "
            "has none of them: name its directory in output.directory, or another database in frontier.dsn"
        )


@dataclass(frozen=True, slots=True)
class CrawlPaths:
    """The paths of one crawl. `rules` are those of its last start or reload, None if unknown; `configuration` is the
    path of its configuration file. `is_database`: its store is in PostgreSQL, where `agent` is the one that this
    directory belongs to, and `frontier` only names its lock.
    """

    output: Path
    frontier: Path
    logs: Path
    socket: Path
    run_id: str | None = None
    configuration: str | None = None
    rules: Rules | None = None
    is_database: bool = False
    agent: str = ONLY_AGENT

    @property
    def fetch_log(self) -> Path:
        return self.logs / "fetch.jsonl"

    @property
    def events_log(self) -> Path:
        return self.logs / "events.jsonl"

    def pid(self) -> int | None:
        """The process that holds the lock of the store; None if the crawl does not run."""
        return lock_owner(self.frontier)


def find_paths(
    output: Path,
    *,
    frontier: Path | None = None,
    logs: Path | None = None,
    socket: Path | None = None,
    agent: str = ONLY_AGENT,
) -> CrawlPaths:
    """The paths of the crawl in an output directory. Those that are given come from the configuration, as the name of
    the agent does; they are used if run.json has none. Raises OSError with a message for a person if there is no crawl.
    """
    run = _run_file(output / "run.json")
    recorded = _paths_of(run, output)
    paths = CrawlPaths(
        output,
        _path(recorded, "frontier", frontier, output),
        _path(recorded, "logs", logs, output),
        _path(recorded, "socket", socket, output),
        _text(run, "run_id"),
        _text(run, "configuration"),
        load_rules(run.get("rules"), lambda digest: _read_names(output, digest)),
        run.get("store") == "postgresql",
        _text(run, "agent") or agent,
    )
    if not (run or paths.frontier.exists() or paths.logs.is_dir()):
        if not output.exists():
            raise FileNotFoundError(errno.ENOENT, "no such directory, so no crawl to look at", str(output))
        if not output.is_dir():
            raise NotADirectoryError(errno.ENOTDIR, "not a directory, so no crawl to look at", str(output))
        os.scandir(output).close()  # raises PermissionError for one that may not be read
        raise FileNotFoundError(errno.ENOENT, "holds no crawl: neither run.json, frontier.db nor logs/", str(output))
    return paths


def _paths_of(run: dict[str, object], output: Path) -> dict[str, Path]:
    """The paths in a run.json, corrected for the directory that it lies in now.

    If it was written for another directory, that one was moved or copied. It was moved if device and inode are the
    same, or if there is no run.json any more where it was. Files inside moved along either way. Files elsewhere belong
    to the original, which may be running: they are those of a moved directory, but not those of a copy.
    """
    recorded = {name: Path(value) for name in _DEFAULT_NAMES if isinstance(value := run.get(name), str)}
    here = output.resolve()
    home = _written_for(run, recorded, here)
    if home is None or home == here:
        return recorded
    was_moved = run.get("inode") == inode_of(here) or not os.access(home / "run.json", os.F_OK)
    inside = {name: output / path.relative_to(home) for name, path in recorded.items() if path.is_relative_to(home)}
    return (recorded | inside) if was_moved else inside


def _written_for(run: dict[str, object], recorded: dict[str, Path], here: Path) -> Path | None:
    """The directory that a run.json was written for; None if unknown.

    An older version did not record it. Then it is the parent of a path with its default name, if a crawl is there or if
    that name exists here.
    """
    if isinstance(written_for := run.get("output"), str):
        return Path(written_for)
    for name, path in recorded.items():
        usual = _DEFAULT_NAMES[name]
        if path.name == usual:
            home = path.parent
            if home == here or (here / usual).exists() or os.access(home / "run.json", os.F_OK):
                return home
    return None


def inode_of(directory: Path) -> str | None:
    """Device and inode: they stay when a directory is moved in its file system, a copy has others. None without one."""
    try:
        status = directory.stat()
    except OSError:
        return None
    return f"{status.st_dev}:{status.st_ino}"


def _path(recorded: dict[str, Path], name: str, configured: Path | None, output: Path) -> Path:
    """The path in run.json or the configuration; the default if there is none, or if only the default exists."""
    usual = output / _DEFAULT_NAMES[name]
    path = recorded.get(name) or configured or usual
    return usual if usual.exists() and not path.exists() else path


def _text(run: dict[str, object], name: str) -> str | None:
    value = run.get(name)
    return value if isinstance(value, str) else None


def _run_file(path: Path) -> dict[str, object]:
    """The content of run.json; empty if it is missing or incomplete."""
    try:
        content = orjson.loads(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError, orjson.JSONDecodeError):
        return {}
    return content if isinstance(content, dict) else {}


def lock_owner(frontier: Path) -> int | None:
    """The process that holds the lock of a store, None if none does.

    Read from the lock file and the kernel's list of locks: trying the lock could make the start of a crawl fail.
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


def write_run_file(paths: CrawlPaths, *, run_id: str, configuration: str | None, rules: Rules) -> None:
    """Write run.json, by which `--output DIR` finds the daemon, its logs and the current rules. Called again when
    these change (a reload). The names of seeds in files are in a file beside it that has their digest in its name, so
    one of them and run.json always belong together. Raises OSError.
    """
    names = rules.seed_names
    names_file = paths.output / f"{_NAMES}{names.digest}"
    if names:
        _replace(names_file, names.content())
    path = paths.output / "run.json"
    content = {
        "pid": os.getpid(),
        "run_id": run_id,
        "output": str(paths.output.resolve()),  # by these two a copy differs from a moved directory
        "inode": inode_of(paths.output),
        "configuration": configuration and str(Path(configuration).resolve()),
        "socket": str(paths.socket.resolve()),
        "logs": str(paths.logs.resolve()),
        "frontier": str(paths.frontier.resolve()),
        "store": "postgresql" if paths.is_database else "sqlite",
        "agent": paths.agent,
        "rules": dump_rules(rules),
    }
    _replace(path, orjson.dumps(content, option=orjson.OPT_INDENT_2) + b"\n")
    for other in paths.output.glob(f"{_NAMES}*"):
        if other != names_file or not names:
            other.unlink(missing_ok=True)


def _replace(path: Path, content: bytes) -> None:
    temporary = path.with_name(path.name + ".new")
    temporary.write_bytes(content)
    temporary.replace(path)


def _read_names(output: Path, digest: str) -> NameSet | None:
    """The names of the seeds in files; None if their file is missing or damaged."""
    try:
        names = NameSet((output / f"{_NAMES}{digest}").read_bytes())
    except (FileNotFoundError, ValueError):
        return None
    return names if names.digest == digest else None


def link_configuration(configuration: str, output: Path, environ: Mapping[str, str]) -> Path | None:
    """Make a link from the configuration to the output directory, for the time the daemon runs: `-c FILE` then finds it
    even if the file names another directory now or cannot be read. Returns the link; None if there is no safe directory
    for it.
    """
    folder = _runtime_directory(environ)
    if folder is None:
        return None
    target = output.resolve() / "run.json"
    link = folder / f"{_link_prefix(configuration)}{sha256(os.fsencode(target)).hexdigest()[:8]}"
    try:
        for old in folder.iterdir():  # left by kill -9, and its target is gone
            if old.is_symlink() and not old.exists():
                old.unlink(missing_ok=True)
        temporary = link.with_suffix(f".{os.getpid()}")
        temporary.unlink(missing_ok=True)
        temporary.symlink_to(target)
        temporary.replace(link)
    except OSError:
        return None
    return link


def unlink_configuration(link: Path | None) -> None:
    """Remove the link."""
    if link is not None:
        with contextlib.suppress(OSError):
            link.unlink(missing_ok=True)


def outputs_running(configuration: Path, environ: Mapping[str, str]) -> list[Path]:
    """The output directories of the daemons that run this configuration now, as far as we may see them."""
    name, resolved = _link_prefix(str(configuration)), str(configuration.resolve())
    found = set()
    for folder in _runtime_directories(environ):
        for link in folder.glob(f"{name}*"):
            with contextlib.suppress(OSError):
                output = link.readlink().parent
                paths = find_paths(output)
                if paths.configuration == resolved and paths.pid() is not None:
                    found.add(output)
    return sorted(found)


def _link_prefix(configuration: str) -> str:
    return sha256(os.fsencode(Path(configuration).resolve())).hexdigest()[:24] + "-"


def _runtime_directory(environ: Mapping[str, str]) -> Path | None:
    """The directory for our link: that of systemd for a service, that of the user, or a new one that nobody else may
    write to.
    """
    if given := environ.get("RUNTIME_DIRECTORY"):
        return Path(given.partition(":")[0])
    folder = _user_directory(environ)
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError:
        return None
    return folder if _is_ours(folder) else None


def _user_directory(environ: Mapping[str, str]) -> Path:
    if given := environ.get("XDG_RUNTIME_DIR"):
        return Path(given) / "crawler"
    return Path(tempfile.gettempdir()) / f"crawler-{os.geteuid()}"


def _runtime_directories(environ: Mapping[str, str]) -> Iterable[Path]:
    """The directories that may hold links. A user has several: a daemon is started from a session, by sudo or cron."""
    if given := environ.get("RUNTIME_DIRECTORY"):
        yield Path(given.partition(":")[0])
    yield _SERVICE
    with contextlib.suppress(OSError):
        yield from (folder for folder in _SERVICE.iterdir() if folder.is_dir())
    own = {_user_directory(environ), _user_directory({}), Path(f"/run/user/{os.geteuid()}/crawler")}
    yield from (folder for folder in sorted(own) if _is_ours(folder))


def _is_ours(folder: Path) -> bool:
    """Whether only we may write to a directory: in /tmp another user may have made it, with links to another crawl."""
    try:
        status = folder.lstat()
    except OSError:
        return False
    return S_ISDIR(status.st_mode) and status.st_uid == os.geteuid() and not S_IMODE(status.st_mode) & 0o022
