"""What `crawler install-service` puts where: the files, worked out before any of them is written.

It starts nothing and asks no service manager. Invariants: a file of somebody else's making is never overwritten unless
it was said to be, and then kept beside the new one; the configuration, and a program that has the command's name, are
never overwritten at all; each file appears whole or not at all.
"""

import errno
import os
import re
import shlex
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Final

import tomli

SHARE: Final = Path("usr/local/share")
COMMAND: Final = Path("usr/local/bin/crawler")  # a link to the program, so that a shell finds it
OLD: Final = ".old"  # what was there before --force
_HIDDEN: Final = ("/home", "/root", "/run/user", "/tmp", "/var/tmp")  # noqa: S108 - ProtectHome=, PrivateTmp=
_INSTANCE = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
_UNIT_PROGRAM: Final = "/opt/crawler/.venv/bin/crawler"  # as the units in systemd/ have it
_UNIT_DOCUMENTATION: Final = "file:///opt/crawler/docs/OPERATIONS.md"


class State(Enum):
    """How a file stands to what is there."""

    NEW = "new"
    SAME = "unchanged"
    DIFFERS = "differs"  # from what somebody put there
    KEPT = "kept"  # the configuration, which is the operator's; a command of this name that is another program


class NoTemplates(Exception):
    """The program was installed without its service files; the message says where they were looked for."""


@dataclass(frozen=True, slots=True)
class Planned:
    """One file: where it goes (under the root that was given), what it holds, how that stands to what is there. A
    symbolic link holds nothing: `link_to` is what it leads to.
    """

    path: Path
    content: str
    state: State
    link_to: Path | None = None


def templates() -> Path:
    """The folder with systemd/ and config/: in the package as it is installed, or the source tree it runs from.

    Raises NoTemplates.
    """
    package = Path(__file__).resolve().parent.parent
    for place in (package / "share", package.parent):
        if (place / "systemd" / "crawler.service").is_file():
            return place
    raise NoTemplates(f"the service's files are neither in {package / 'share'} nor in {package.parent}")


def is_instance(name: str) -> bool:
    """Whether a name can be that of an instance: it becomes part of paths and of a unit's name."""
    return _INSTANCE.fullmatch(name) is not None


def hidden(program: Path) -> str:
    """Which directory above the program the unit hides from it ("/home"), "" if none."""
    return next((top for top in _HIDDEN if program.is_relative_to(top)), "")


def plan(
    *, root: Path, instance: str | None, program: Path, completions: Callable[[str], str], man_page: str
) -> list[Planned]:
    """Every file, in the order in which it is written. Raises NoTemplates, OSError."""
    source = templates()
    unit = "crawler.service" if instance is None else "crawler@.service"
    text = _read(source / "systemd" / "crawler.service")
    files: list[tuple[Path, str]] = [
        (
            Path("etc/systemd/system") / unit,
            _where_it_is(text if instance is None else instance_unit(text), program, source),
        ),
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
    planned = [_planned(root / place, content) for place, content in files]
    if program != Path("/") / COMMAND:
        planned.append(_planned_link(root / COMMAND, program))
    return planned


def refused(files: list[Planned]) -> list[Planned]:
    """Those that would be overwritten although somebody changed them."""
    return [file for file in files if file.state is State.DIFFERS]


def write(files: list[Planned]) -> Iterator[tuple[Planned, str]]:
    """Write what is new or differs, and yield each file with a word for what was done. Raises OSError."""
    for file in files:
        match file.state:
            case State.SAME | State.KEPT:
                yield file, file.state.value
            case State.NEW:
                _put(file)
                yield file, "written"
            case State.DIFFERS:
                old = file.path.with_name(file.path.name + OLD)
                file.path.replace(old)
                _put(file)
                yield file, f"replaced; what was there is {old.name}"


def next_steps(instance: str | None, configuration: Path, command: str) -> list[str]:
    """What is left to the operator: each a command, as it is to be typed. `command` is the crawler's."""
    name = "crawler" if instance is None else f"crawler@{instance}"
    return [
        f"${{EDITOR:-vi}} {configuration}    # identity.user_agent and crawl.seeds",
        f"{command} check -c {configuration}",
        "systemd-sysusers",
        "systemctl daemon-reload",
        f"systemctl enable --now {name}",
    ]


def command_of(files: Sequence[Planned], program: Path, *, root: Path) -> str:
    """How the crawler is called from a shell: by its name where that is this program, else by its path."""
    link = next((file for file in files if file.path == root / COMMAND), None)
    is_named = root == Path("/") and (link is None or link.state is not State.KEPT)
    return "crawler" if is_named else shlex.quote(str(program))


def configuration(text: str, instance: str | None) -> str:
    """The example configuration, with the two directories that systemd makes for the service written in it."""
    below = "" if instance is None else f"/{instance}"
    for section, directory in (("output", "/var/lib/crawler"), ("log", "/var/log/crawler")):
        before, header, after = text.partition(f"\n[{section}]\n")
        line = f'directory = "{directory}{below}"'  # an instance's name has no backslash
        after, found = re.subn(r"^#directory = .*$", line, after, count=1, flags=re.MULTILINE)
        if not found:
            raise NoTemplates(f"the example configuration has no {section}.directory")
        text = before + header + after
    return text


def nowhere(files: Sequence[Planned]) -> str | None:
    """What is to be told of a configuration that was there already and names no place where the service may write."""
    for file in files:
        if file.state is State.KEPT and file.link_to is None:
            try:
                said = tomli.loads(file.path.read_bytes().decode()).get("output", {}).get("directory")
            except (ValueError, AttributeError):
                return None  # `check` says what is wrong with it
            if not isinstance(said, str) or not Path(said).is_absolute():
                wanted = re.findall(r'^directory = "(.*)"$', file.content, re.MULTILINE)
                return (
                    f"{file.path}: the unit does not say where the crawl is; give output.directory = "
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


def _read(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def _where_it_is(text: str, program: Path, source: Path) -> str:
    """The unit with the program and its documentation where they are. Source: systemd.service(5), "Command lines"."""
    quoted = str(program).replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%").replace("$", "$$")
    if re.search(r"[\s'\"\\;]", str(program)):
        quoted = f'"{quoted}"'
    documentation = source / "docs" / "OPERATIONS.md"
    if documentation.is_file():
        text = text.replace(_UNIT_DOCUMENTATION, documentation.as_uri().replace("%", "%%"))
    else:
        text = text.replace(_UNIT_DOCUMENTATION, "man:crawler(1)")
    return text.replace(_UNIT_PROGRAM, quoted)


def _planned(path: Path, content: str) -> Planned:
    try:
        there = path.read_bytes()
    except FileNotFoundError:
        return Planned(path, content, State.NEW)
    if there == content.encode():
        return Planned(path, content, State.SAME)
    return Planned(
        path, content, State.KEPT if path.parent.name == "crawler" and path.suffix == ".toml" else State.DIFFERS
    )


def _planned_link(path: Path, target: Path) -> Planned:
    """A link of another target may be one that an earlier installation left. What is no link is somebody else's
    program, and not ours to move away.
    """
    try:
        state = State.SAME if path.readlink() == target else State.DIFFERS
    except FileNotFoundError:
        state = State.NEW
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        state = State.KEPT
    return Planned(path, "", state, target)


def _put(file: Planned) -> None:
    """Write beside, sync, rename: whoever reads sees the old file or the whole new one."""
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
    sys.stdout.write(instance_unit(_read(templates() / "systemd" / "crawler.service")))
