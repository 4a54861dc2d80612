"""The output directory as a place: that it can be one, and by what others find the daemon that runs there: run.json in
it, and for who knows only the configuration a link in the runtime directory.

Invariant: a link is a hint. What it leads to counts only if a crawl runs there, and with this configuration.
"""

import contextlib
import os
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from stat import S_IMODE, S_ISDIR
from typing import Final

import orjson

from crawler.core.formatting import naming_key
from crawler.core.url import parse_seed
from crawler.inspection.place import find, inode_of
from crawler.inspection.rules import Rules, dump
from crawler.settings.settings import Settings

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


def at_usual_output(settings: Settings) -> Settings:
    """The same settings; without output.directory they get the one that `crawl` takes, named for the first seed."""
    if settings.output.directory or not settings.seeds:
        return settings
    directory = Path(settings.crawl.name) / str(parse_seed(settings.seeds[0])[1]).partition("//")[2]
    return replace(settings, output=settings.output.model_copy(update={"directory": str(directory)}))


def write_run_file(settings: Settings, configuration: str | None, run_id: str) -> None:
    """run.json: how `--output DIR` finds the daemon, its logs and the rules in force. To be written again when they
    change (a reload).
    """
    path = settings.output_directory / "run.json"
    content = {
        "pid": os.getpid(),
        "run_id": run_id,
        "output": str(settings.output_directory.resolve()),  # by these two a copy is told from what was moved
        "inode": inode_of(settings.output_directory),
        "configuration": configuration and str(Path(configuration).resolve()),
        "socket": str(settings.control_socket.resolve()),
        "logs": str(settings.log_directory.resolve()),
        "frontier": str(settings.frontier_path.resolve()),
        "rules": dump(rules_of(settings)),
    }
    temporary = path.with_suffix(".json.new")
    temporary.write_bytes(orjson.dumps(content, option=orjson.OPT_INDENT_2) + b"\n")
    temporary.replace(path)


def same_delays(settings: Settings) -> bool:
    """Whether the last run in this directory kept to the politeness of these settings."""
    try:
        before = find(settings.output_directory).rules
    except OSError:
        return False
    return before is not None and before.politeness == settings.politeness_options()


def rules_of(settings: Settings) -> Rules:
    """The rules by which these settings judge URLs, for those who explain a crawl."""
    network = settings.network_options()
    return Rules(
        scope=settings.scope_options(),
        politeness=settings.politeness_options(),
        traps=settings.trap_options(),
        seed_hosts=tuple(sorted({parse_seed(text)[1].host for text in settings.seeds})),
        robots_token=settings.robots_token,
        allow_private=network.allow_private,
        resolve=network.resolve,
    )


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
