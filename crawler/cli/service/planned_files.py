"""The files that `crawler install-service` installs: planned as a whole, then written.

Invariants: a file that somebody else made or changed is overwritten only with --force, and then kept beside the new
one; the configuration, and another program of the name `crawler`, are never overwritten; each file appears whole or not
at all. Nothing is started.
"""

import compileall
import errno
import os
import re
import shlex
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from hashlib import sha256
from pathlib import Path
from typing import Final

import tomli

_FILE: Final = re.compile(r"([0-9a-f]{64})  (/.*)")
_LINK: Final = re.compile(r"# (/.*) -> (.*)")


@dataclass(frozen=True, slots=True)
class InstallList:
    """What earlier installations wrote: digests of files and targets of links, by their paths on the target machine.

    `earlier` are digests of the files of versions that wrote no list.
    """

    files: Mapping[str, str]
    links: Mapping[str, str]
    earlier: frozenset[str] = frozenset()

    def is_ours(self, place: str, content: bytes, as_template: str) -> bool:
        """Whether a file is unchanged since its installation. `as_template` is its content without the paths of this
        machine.
        """
        return self.files.get(place) == sha256(content).hexdigest() or digest(as_template) in self.earlier

    def text(self, files: Iterable[tuple[str, str]], links: Iterable[tuple[str, str]]) -> str:
        """The text of the list with these files and links added."""
        digests = dict(self.files) | {place: digest(content) for place, content in files}
        targets = dict(self.links) | dict(links)
        lines = ["# What crawler install-service wrote; `sha256sum -c` says what was changed since"]
        lines += [f"{digests[place]}  {place}" for place in sorted(digests)]
        lines += [f"# {place} -> {targets[place]}" for place in sorted(targets)]
        return "\n".join(lines) + "\n"


def read_written(path: Path, earlier: Path) -> InstallList:
    """Read the list at `path`, empty if there is none. Raises OSError."""
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
    return InstallList(files, links, frozenset(known))


def digest(text: str) -> str:
    return sha256(text.encode()).hexdigest()


SHARE: Final = Path("usr/local/share")
COMMAND: Final = Path("usr/local/bin/crawler")  # a link to the program, so that a shell finds it
LIST: Final = SHARE / "crawler/installed.sha256"  # the installed files, for the next installation
OLD: Final = ".old"  # suffix of a file that --force replaced
STEPS_SINCE: Final = 254  # systemd's version that has RestartSteps= (systemd.service(5))
_HIDDEN: Final = ("/home", "/root", "/run/user", "/tmp", "/var/tmp")  # noqa: S108 - ProtectHome=, PrivateTmp=
_INSTANCE = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
_UNIT_PROGRAM: Final = "/opt/crawler/.venv/bin/crawler"  # as the units in systemd/ have it
_EARLIER_DOCUMENTATION: Final = (
    "Documentation=file:///opt/crawler/docs/OPERATIONS.md"  # as systemd/earlier.sha256 has it
)
_RESTART: Final = "\nRestartSec=5\n"
_RESTART_IN_STEPS: Final = "\nRestartSec=1\nRestartSteps=8\nRestartMaxDelaySec=5min\n"
_ALL_SERVICES: Final = "crawler 'crawler@*' 'crawler-again@*.service'"  # in a shell
# What differs in a unit whose crawl ends: patterns of crawler@.service, and what takes their places.
_AGAIN: Final = (
    (re.compile(r"^(Description=.*)$", re.MULTILINE), r"\1: everything anew"),
    (re.compile(r"^(ExecStart=\S+) run (.*)$", re.MULTILINE), r"\1 crawl \2 --again"),
    (re.compile(r"^# .*\nExecReload=.*\n", re.MULTILINE), ""),
    (
        re.compile(r"^# .*\nRestartPreventExitStatus=.*\n", re.MULTILINE),
        "# 75: something is left for the next time, as when a host does not respond: no failure. At a start: the\n"
        "# directory is taken, which is a failure, and not tried again every few seconds\n"
        "RestartPreventExitStatus=75\n",
    ),
    (re.compile(r"^# .*\nRestartForceExitStatus=.*\n", re.MULTILINE), ""),
    (re.compile(r"^# .*\nSuccessExitStatus=130 143$", re.MULTILINE), "SuccessExitStatus=75 130 143"),
    (
        re.compile(r"^Restart=on-failure$", re.MULTILINE),
        "# Killed, for want of memory or by the watchdog, it goes on; after other failures, the next time\n"
        "Restart=on-abnormal",
    ),
    (re.compile(r"\n\[Install\]\nWantedBy=.*\n", re.MULTILINE), ""),
)


class InstallState(Enum):
    """The state of a planned file compared with the one on disk."""

    NEW = "new"
    SAME = "unchanged"
    OUTDATED = "outdated"  # written by an earlier installation
    DIFFERS = "differs"  # somebody else made or changed it
    KEPT = "kept"  # the configuration of the operator, or another program of this name


class NoTemplates(Exception):
    """The program was installed without its service files; the message says where they were searched."""


@dataclass(frozen=True, slots=True)
class Planned:
    """One file: path below the root, content, and state. A symbolic link has no content; `link_to` is its target."""

    path: Path
    content: str
    state: InstallState
    link_to: Path | None = None


def templates() -> Path:
    """The folder with systemd/ and config/: in the installed package, or in the source tree.

    Raises NoTemplates.
    """
    package = Path(__file__).resolve().parents[2]
    for place in (package / "share", package.parent):
        if (place / "systemd" / "crawler.service").is_file():
            return place
    raise NoTemplates(f"the service's files are neither in {package / 'share'} nor in {package.parent}")


def is_instance(name: str) -> bool:
    """Whether a name is allowed for an instance: it becomes part of paths and of the name of a unit."""
    return _INSTANCE.fullmatch(name) is not None


def hidden(program: Path) -> str:
    """The directory ("/home") that the unit hides and the program is in; "" if none."""
    return next((top for top in _HIDDEN if program.is_relative_to(top)), "")


def systemd_version() -> int:
    """The version of systemd on this machine; 0 if unknown."""
    program = shutil.which("systemctl")
    if program is None:
        return 0
    try:
        version = subprocess.run(  # noqa: S603 - no input of others in it
            [program, "--version"], capture_output=True, text=True, timeout=10, check=False
        ).stdout
    except (OSError, subprocess.TimeoutExpired):
        return 0
    found = re.match(r"systemd (\d+)", version)
    return int(found[1]) if found else 0


def plan(
    *,
    root: Path,
    instance: str | None,
    program: Path,
    completions: Callable[[str], str],
    man_page: str,
    systemd: int = 0,
) -> list[Planned]:
    """Every file in the order of writing. `systemd` is the version for the units, 0 for any. An earlier unit of ours,
    also of the other kind (service or instance), is updated.

    Raises NoTemplates, OSError.
    """
    source = templates()
    written = read_written(root / LIST, source / "systemd" / "earlier.sha256")
    text = _read(source / "systemd" / "crawler.service")
    if systemd >= STEPS_SINCE:
        text = text.replace(_RESTART, _RESTART_IN_STEPS)
    folder = Path("etc/systemd/system")
    service = {folder / "crawler.service": _with_program(text, program)}
    of_instances = {
        folder / "crawler@.service": _with_program(instance_unit(text), program),
        folder / "crawler-again@.service": _with_program(again_unit(text), program),
        folder / "crawler-again@.timer": _read(source / "systemd" / "crawler-again@.timer"),
    }
    units, others = (service, of_instances) if instance is None else (of_instances, service)
    files: list[tuple[Path, str]] = [
        *units.items(),
        (Path("etc/sysusers.d/crawler.conf"), _read(source / "systemd" / "crawler.sysusers")),
        (Path("etc/crawler/crawler.schema.json"), _read(source / "config" / "crawler.schema.json")),
        (
            Path("etc/crawler") / f"{instance or 'crawler'}.toml",
            configuration(_read(source / "config" / "crawler.toml"), instance),
        ),
        (SHARE / "bash-completion/completions/crawler", completions("bash")),
        (SHARE / "zsh/site-functions/_crawler", completions("zsh")),
        (SHARE / "fish/vendor_completions.d/crawler.fish", completions("fish")),
        (SHARE / "man/man1/crawler.1", man_page),
    ]
    for path in sorted((source / "config").glob("*.lnav.json")):
        files.append((Path("etc/lnav/formats/crawler") / path.name, _read(path)))
    planned = [_planned(root, place, content, written) for place, content in files]
    beside = [_planned(root, place, content, written) for place, content in others.items()]
    planned += [file for file in beside if file.state is InstallState.OUTDATED]
    if program != Path("/") / COMMAND:
        planned.append(_planned_link(root, COMMAND, program, written))
    return [*planned, _planned_list(root, planned, written)]


def refused(files: list[Planned]) -> list[Planned]:
    """The files that somebody changed, which only --force overwrites."""
    return [file for file in files if file.state is InstallState.DIFFERS]


def write(files: list[Planned]) -> Iterator[tuple[Planned, str]]:
    """Write new and changed files; yield each file with what was done. Raises OSError."""
    for file in files:
        match file.state:
            case InstallState.SAME | InstallState.KEPT:
                yield file, file.state.value
            case InstallState.NEW:
                _put(file)
                yield file, "written"
            case InstallState.OUTDATED:
                _put(file)
                yield file, "updated"
            case InstallState.DIFFERS:
                old = file.path.with_name(file.path.name + OLD)
                file.path.replace(old)
                _put(file)
                yield file, f"replaced; the old file is {old.name}"


def next_steps(instance: str | None, files: Sequence[Planned], configuration: Path, command: str) -> list[str]:
    """The commands that are left to the operator. `command` is the name or path of the crawler."""
    name = "crawler" if instance is None else f"crawler@{instance}"
    is_kept = any(file.state is InstallState.KEPT and file.link_to is None for file in files)
    edit = [] if is_kept else [f"${{EDITOR:-vi}} {configuration}    # identity.user_agent and crawl.seeds"]
    restart = [] if files[0].state is InstallState.NEW else [f"systemctl try-restart {_ALL_SERVICES}"]
    nightly = "" if instance is None else f"    # or crawler-again@{instance}.timer: a round every night"
    check = f"{command} check -c {configuration}"
    return [
        *edit,
        check,
        "systemd-sysusers",
        "systemctl daemon-reload",
        *restart,
        f"systemctl enable --now {name}{nightly}",
    ]


def program_folders() -> list[Path]:
    """The folders of the program's modules; in a virtual environment those of its libraries as well, for not every
    installer compiles them.
    """
    own = Path(__file__).resolve().parents[2]
    return [own] if sys.prefix == sys.base_prefix else [own, Path(sysconfig.get_path("purelib"))]


def compile_program(folders: Sequence[Path]) -> None:
    """Compile modules: the service may not write beside them and would compile them at each start. Folders that cannot
    be written to are left out.
    """
    for folder in folders:
        compileall.compile_dir(folder, quiet=2)


def command_of(files: Sequence[Planned], program: Path, *, root: Path) -> str:
    """The crawler in a shell: its name if that is this program, else its path."""
    link = next((file for file in files if file.path == root / COMMAND), None)
    is_named = root == Path("/") and (link is None or link.state is not InstallState.KEPT)
    return "crawler" if is_named else shlex.quote(str(program))


def configuration(text: str, instance: str | None) -> str:
    """The example configuration with the two directories that systemd creates for the service."""
    below = "" if instance is None else f"/{instance}"
    for section, directory in (("output", "/var/lib/crawler"), ("log", "/var/log/crawler")):
        before, header, after = text.partition(f"\n[{section}]\n")
        line = f'directory = "{directory}{below}"'  # an instance's name has no backslash
        after, found = re.subn(r"^#directory = .*$", line, after, count=1, flags=re.MULTILINE)
        if not found:
            raise NoTemplates(f"the example configuration has no {section}.directory")
        text = before + header + after
    return text


def missing_directories(files: Sequence[Planned]) -> str | None:
    """A message if the existing configuration names no directory that the service may write to."""
    for file in files:
        if file.state is InstallState.KEPT and file.link_to is None:
            try:
                directory = tomli.loads(file.path.read_bytes().decode()).get("output", {}).get("directory")
            except (ValueError, AttributeError):
                return None  # `crawler check` reports it
            if not isinstance(directory, str) or not Path(directory).is_absolute():
                wanted = re.findall(r'^directory = "(.*)"$', file.content, re.MULTILINE)
                return (
                    f"{file.path}: the service needs absolute directories: set output.directory = "
                    f'"{wanted[0]}" and log.directory = "{wanted[1]}"'
                )
    return None


def instance_unit(text: str) -> str:
    """crawler@.service, made of crawler.service: each instance has a configuration and directories of its own."""
    text = re.sub(r"^(Description=.*)$", r"\1 %i", text, count=1, flags=re.MULTILINE)
    text = re.sub(r"^((?:State|Logs|Runtime)Directory=crawler)$", r"\1/%i", text, flags=re.MULTILINE)
    text = re.sub(r"(/var/lib/crawler|/var/log/crawler|/run/crawler)(?![\w-])", r"\1/%i", text)
    text = text.replace("/etc/crawler/crawler.toml", "/etc/crawler/%i.toml")
    return text.replace("/etc/crawler/secrets.toml", "/etc/crawler/%i.secrets.toml")


def again_unit(text: str) -> str:
    """crawler-again@.service, made of crawler.service: a crawl of an instance that ends, started by its timer."""
    text = instance_unit(text)
    for pattern, value in _AGAIN:
        text, found = pattern.subn(value, text, count=1)
        if not found:
            raise NoTemplates(f"crawler.service has no line like {pattern.pattern}")
    return text


def _read(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def _with_program(text: str, program: Path) -> str:
    """The unit with the path of the program. Source: systemd.service(5), "Command lines"."""
    quoted = str(program).replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%").replace("$", "$$")
    if re.search(r"[\s'\"\\;]", str(program)):
        quoted = f'"{quoted}"'
    return text.replace(_UNIT_PROGRAM, quoted)


def _as_template(text: str) -> str:
    """A unit as versions without a list had it in systemd/; other texts unchanged."""
    found = re.search(r'^ExecStart=("(?:[^"\\]|\\.)*"|\S+) run ', text, re.MULTILINE)
    if found is None:
        return text
    text = re.sub(r"^Documentation=.*$", _EARLIER_DOCUMENTATION, text, flags=re.MULTILINE)
    return text.replace(found[1], _UNIT_PROGRAM)


def _is_operators(path: Path) -> bool:
    """Whether a file is a configuration, which is written only once."""
    return path.parent.name == "crawler" and path.suffix == ".toml"


def _planned(root: Path, place: Path, content: str, written: InstallList) -> Planned:
    path = root / place
    try:
        there = path.read_bytes()
    except FileNotFoundError:
        return Planned(path, content, InstallState.NEW)
    if there == content.encode():
        return Planned(path, content, InstallState.SAME)
    if _is_operators(path):
        return Planned(path, content, InstallState.KEPT)
    is_ours = written.is_ours(f"/{place}", there, _as_template(there.decode(errors="replace")))
    return Planned(path, content, InstallState.OUTDATED if is_ours else InstallState.DIFFERS)


def _planned_link(root: Path, place: Path, target: Path, written: InstallList) -> Planned:
    """Plan a link. A file that is no link is another program and stays."""
    path = root / place
    try:
        leads_to = path.readlink()
    except FileNotFoundError:
        state = InstallState.NEW
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        state = InstallState.KEPT
    else:
        is_ours = written.links.get(f"/{place}") == str(leads_to)
        state = InstallState.SAME if leads_to == target else InstallState.OUTDATED if is_ours else InstallState.DIFFERS
    return Planned(path, "", state, target)


def _planned_list(root: Path, planned: Sequence[Planned], written: InstallList) -> Planned:
    """Plan the list of installed files, which is always overwritten."""
    ours = [file for file in planned if not _is_operators(file.path) and file.state is not InstallState.KEPT]
    files = [(f"/{file.path.relative_to(root)}", file.content) for file in ours if file.link_to is None]
    links = [(f"/{file.path.relative_to(root)}", str(file.link_to)) for file in ours if file.link_to is not None]
    text = written.text(files, links)
    path = root / LIST
    try:
        state = InstallState.SAME if path.read_text(encoding="utf-8") == text else InstallState.OUTDATED
    except FileNotFoundError:
        state = InstallState.NEW
    return Planned(path, text, state)


def _put(file: Planned) -> None:
    """Write a temporary file, sync it and rename it: a reader sees the old file or the whole new one."""
    file.path.parent.mkdir(parents=True, exist_ok=True)
    if file.link_to is not None:
        temporary = file.path.with_name(f".{file.path.name}.{os.getpid()}")
        temporary.unlink(missing_ok=True)
        temporary.symlink_to(file.link_to)
        temporary.replace(file.path)
        return
    with tempfile.NamedTemporaryFile(
        "w", encoding="utf-8", prefix=f".{file.path.name}.", dir=file.path.parent, delete=False
    ) as stream:
        temporary = Path(stream.name)
        try:
            os.fchmod(stream.fileno(), 0o644)
            stream.write(file.content)
            stream.flush()
            os.fsync(stream.fileno())
            temporary.replace(file.path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise


if __name__ == "__main__":
    make = {"crawler@.service": instance_unit, "crawler-again@.service": again_unit}[sys.argv[1]]
    sys.stdout.write(make(_read(templates() / "systemd" / "crawler.service")))
