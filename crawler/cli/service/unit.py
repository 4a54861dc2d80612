"""The unit of systemd that runs a configuration, and what of the configuration it does not allow.

Reads the unit and its drop-ins as systemd.unit(5) has them, as far as the unit of the crawler goes: line breaks within
quotes, user units and most specifiers are left out. No service manager is needed. The configuration is then compared
with the unit: directories to write to, files to read, secrets.
Invariant: nothing is written, and what cannot be known is no refusal.
"""

import grp
import os
import pwd
import re
import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Final

from crawler.settings.configuration_errors import Problem
from crawler.settings.loading import Loaded
from crawler.settings.secrets import FILE_NAME, read_secrets
from crawler.settings.settings import DEFAULT_ORIGIN
from crawler.settings.sources import conf_d

# Earlier ones win over later ones (systemd.unit(5), "Unit File Load Path").
_FOLDERS: Final = ("etc/systemd/system", "run/systemd/system", "usr/local/lib/systemd/system", "usr/lib/systemd/system")
_CREATED: Final = {"State": "/var/lib", "Cache": "/var/cache", "Logs": "/var/log", "Runtime": "/run"}  # …Directory=
_HOMES: Final = ("/home", "/root", "/run/user")  # ProtectHome=
_TEMPORARY: Final = ("/tmp", "/var/tmp")  # noqa: S108 - PrivateTmp=: named, not used
_TRUE: Final = ("1", "yes", "true", "on")
_FIRST_FREE_PORT: Final = Path("/proc/sys/net/ipv4/ip_unprivileged_port_start")


@dataclass(frozen=True, slots=True)
class Unit:
    """A service, its specifiers filled in. `values` has each key of [Service] with its values in order."""

    name: str
    values: Mapping[str, Sequence[str]]
    arguments: Sequence[str]  # of ExecStart=

    def last(self, key: str) -> str:
        """The last value of a key, which is the one that counts; "" if it is not given."""
        return "".join(self.values.get(key, ())[-1:])

    def words(self, key: str) -> list[str]:
        """The words of all values of a key."""
        return [word for value in self.values.get(key, ()) for word in _split(value)]

    @property
    def environment(self) -> dict[str, str]:
        """Environment=."""
        return dict(word.partition("=")[::2] for word in self.words("Environment") if "=" in word)

    @property
    def overrides(self) -> tuple[str, ...]:
        """The values of -o in the command."""
        return tuple(value for name, value in pairwise(self.arguments) if name == "-o")

    @property
    def is_strict(self) -> bool:
        """Whether the service may write to named directories only."""
        return self.last("ProtectSystem") == "strict"

    def writable(self) -> list[Path]:
        """The directories that it may write to: those that systemd creates, and those that must exist."""
        created = [
            Path(top) / word.partition(":")[0]
            for kind, top in _CREATED.items()
            for word in self.words(f"{kind}Directory")
        ]
        return [*created, *self.granted()]

    def granted(self) -> list[Path]:
        """Directories that it may write to and that systemd does not create."""
        return [Path(word.lstrip("-+")) for word in self.words("ReadWritePaths")]

    @property
    def credential(self) -> Path | None:
        """The file that systemd passes to the service as secrets.toml."""
        for value in self.values.get("LoadCredential", ()):
            name, _, path = value.partition(":")
            if name == FILE_NAME and path.startswith("/"):
                return Path(path)
        return None


def unit_of(config: Path, root: Path = Path("/")) -> Unit | None:
    """The unit that runs a configuration: crawler.service, or an instance of crawler@.service. It is an instance of
    crawler-again@.service if its timer is enabled, or if there is no other.
    """
    config = config.resolve()
    files: dict[str, Path] = {}
    for folder in _FOLDERS:
        files = {path.name: path for path in (root / folder).glob("crawler*.service")} | files
    enabled = {link.name for link in (root / _FOLDERS[0]).glob("*.wants/crawler-again@*.timer")}
    units = [unit for path in files.values() if (unit := _unit_if_it_runs(path, config, root)) is not None]

    def order(unit: Unit) -> tuple[int, str]:
        if not unit.name.startswith("crawler-again@"):
            return 1, unit.name
        return 0 if unit.name.replace(".service", ".timer") in enabled else 2, unit.name

    return min(units, key=order, default=None)


def _unit_if_it_runs(path: Path, config: Path, root: Path) -> Unit | None:
    stem, at, _ = path.name.removesuffix(".service").partition("@")
    if not at:
        return _unit(path, path.name, "", config, root)
    named = _value_of("-c", _command(_service(_lines([path]))))
    pattern = re.escape(named).replace(re.escape("%i"), "([^/]+)", 1)
    found = re.fullmatch(pattern.replace(re.escape("%i"), r"\1"), str(config))
    if found is None or not found.groups():
        return None
    return _unit(path, f"{stem}@{found[1]}.service", found[1], config, root)


def _unit(path: Path, name: str, instance: str, config: Path, root: Path) -> Unit | None:
    drop_ins: dict[str, Path] = {}
    for one in dict.fromkeys((path.name, name)):
        for folder in reversed(_FOLDERS):
            drop_ins |= {file.name: file for file in (root / folder / f"{one}.d").glob("*.conf")}
    files = [path, *(drop_ins[key] for key in sorted(drop_ins))]
    specifiers = {
        "%i": instance,
        "%I": instance,
        "%n": name,
        "%S": "/var/lib",
        "%L": "/var/log",
        "%t": "/run",
        "%%": "%",
    }
    values = {
        key: [re.sub(r"%.", lambda found: specifiers.get(found[0], found[0]), value) for value in given]
        for key, given in _service(_lines(files)).items()
    }
    arguments = _command(values)
    named = _value_of("-c", arguments)
    return Unit(name, values, arguments) if named and Path(named).resolve() == config else None


def _lines(files: Iterable[Path]) -> Iterator[str]:
    for file in files:
        yield "[]"  # a section ends with its file
        with suppress(OSError):  # a file that may not be read counts as empty
            yield from file.read_text(encoding="utf-8", errors="replace").replace("\\\n", " ").splitlines()


def _service(lines: Iterable[str]) -> dict[str, list[str]]:
    """The keys of [Service]; an empty value removes all before it."""
    values: dict[str, list[str]] = {}
    section = ""
    for line in map(str.strip, lines):
        if line.startswith("["):
            section = line
        elif section == "[Service]" and "=" in line and line[0] not in "#;":
            key, _, value = line.partition("=")
            values[key.strip()] = [*values.get(key.strip(), []), value.strip()] if value.strip() else []
    return values


def _command(values: Mapping[str, Sequence[str]]) -> list[str]:
    return _split("".join(values.get("ExecStart", ())[-1:]))


def _split(text: str) -> list[str]:
    try:
        return shlex.split(text)
    except ValueError:  # a quote is not closed: systemd refuses the line
        return []


def _value_of(name: str, arguments: Sequence[str]) -> str:
    return next((value for one, value in pairwise(arguments) if one == name), "")


@dataclass(frozen=True, slots=True)
class Account:
    """The user that a service runs as."""

    name: str
    group: str
    uid: int
    gids: frozenset[int]

    def may(self, path: Path, wanted: int) -> bool:
        """Whether the permission bits (4 read, 2 write, 1 search) of `path` and of the directories above it allow it.

        Access control lists are left out. Raises OSError.
        """
        return all(self._has(one, 1) for one in path.parents) and self._has(path, wanted)

    def _has(self, path: Path, wanted: int) -> bool:
        status = path.stat()
        shift = 6 if status.st_uid == self.uid else 3 if status.st_gid in self.gids else 0
        return self.uid == 0 or (status.st_mode >> shift) & wanted == wanted


def account_of(unit: Unit) -> Account | None:
    """The account of the unit; None if it does not exist yet, as before `systemd-sysusers`."""
    name = unit.last("User") or "root"
    try:
        found = pwd.getpwnam(name)
        group = unit.last("Group")
        gid = grp.getgrnam(group).gr_gid if group else found.pw_gid
        return Account(name, grp.getgrgid(gid).gr_name, found.pw_uid, frozenset({gid, *os.getgrouplist(name, gid)}))
    except KeyError:
        return None


@dataclass(slots=True)
class Refusals:
    """`problems` keep the service from working; the lines of `drop_in` and the `commands` remove them."""

    problems: list[Problem]
    warnings: list[str]
    drop_in: list[str]
    commands: list[str]


def refusals(unit: Unit, loaded: Loaded, config: Path) -> Refusals:
    """Compare a configuration with the unit that runs it."""
    found = Refusals([], [], [], [])
    account = account_of(unit)
    for key, directory in _written(loaded):
        _judge_written(unit, account, key, directory, loaded, found)
    for key, file in _read(loaded, config):
        _judge_read(unit, account, key, file, loaded, found)
    if loaded.settings.identity.secrets is None and unit.credential is not None:
        _judge_credential(unit.credential, found)
    _judge_port(unit, loaded, found)
    return found


def _written(loaded: Loaded) -> Iterator[tuple[str, Path]]:
    """The directories that the crawl writes to, each with the key that names it."""
    settings = loaded.settings
    yield "output.directory", settings.output_directory
    if settings.log.directory:
        yield "log.directory", settings.log_directory
    if settings.frontier.path:
        yield "frontier.path", settings.frontier_path.parent
    if settings.admin.socket:
        yield "admin.socket", settings.control_socket.parent
    if str(settings.admin.listen or "").startswith("/"):
        yield "admin.listen", Path(str(settings.admin.listen)).parent


def _read(loaded: Loaded, config: Path) -> Iterator[tuple[str, Path]]:
    settings = loaded.settings
    yield "", config
    yield from (("", path) for path, _ in conf_d(config))
    if settings.identity.secrets:
        yield "identity.secrets", Path(settings.identity.secrets)
    if settings.network.ca_file:
        yield "network.ca_file", Path(settings.network.ca_file)
    yield from (("crawl.seed_files", Path(file)) for file in settings.crawl.seed_files)


def _judge_written(
    unit: Unit, account: Account | None, key: str, directory: Path, loaded: Loaded, found: Refusals
) -> None:
    path = directory.resolve()
    if unit.last("PrivateTmp") in _TRUE and _is_below(path, _TEMPORARY):
        words = f"is in a directory that {unit.name} loses when it ends (PrivateTmp=): name another"
        found.problems.append(_problem(key, path, words, loaded))
        return
    homes = unit.last("ProtectHome") if _is_below(path, _HOMES) else ""
    is_hidden = homes in (*_TRUE, "tmpfs")
    is_named = _is_below(path, unit.writable())
    if is_hidden or (not is_named and (unit.is_strict or homes == "read-only")):
        found.problems.append(_problem(key, path, f"{unit.name} may not write there", loaded))
        if is_hidden:
            _add_once(found.drop_in, "ProtectHome=read-only")
        if not is_named:
            _add_once(found.drop_in, f"ReadWritePaths={_quoted(path)}")
        if not _is_directory(path) or (account is not None and not _may(account, path, 3)):
            _add_once(found.commands, _command_to_create(path, account, unit))
        return
    if is_named and not _is_below(path, unit.granted()):
        return  # systemd creates it, owned by the service
    if not _is_directory(path):
        found.problems.append(_problem(key, path, f"does not exist, and {unit.name} cannot create it", loaded))
        _add_once(found.commands, _command_to_create(path, account, unit))
    elif account is not None and not _may(account, path, 3):
        found.problems.append(_problem(key, path, f"user {account.name} of {unit.name} may not write there", loaded))
        _add_once(found.commands, _command_to_create(path, account, unit))


def _judge_read(unit: Unit, account: Account | None, key: str, file: Path, loaded: Loaded, found: Refusals) -> None:
    path = file.resolve()
    is_home = unit.last("ProtectHome") in (*_TRUE, "tmpfs") and _is_below(path, _HOMES)
    is_temporary = unit.last("PrivateTmp") in _TRUE and _is_below(path, _TEMPORARY)
    if is_home or is_temporary:
        setting = "ProtectHome=" if is_home else "PrivateTmp="
        found.problems.append(_problem(key, path, f"{unit.name} does not see it ({setting}): put it elsewhere", loaded))
    elif account is not None and not _may(account, path, 4):
        found.problems.append(_problem(key, path, f"user {account.name} of {unit.name} may not read it", loaded))
        if key != "identity.secrets":
            _add_once(found.commands, f"chmod o+r {shlex.quote(str(path))}")
        elif unit.credential is None or unit.credential == path:
            found.commands.append(
                f"leave identity.secrets out: systemd passes {unit.credential or path} to the service"
            )
        else:
            _add_once(
                found.commands,
                f"chgrp {account.group} {shlex.quote(str(path))} && chmod g+r,o= {shlex.quote(str(path))}",
            )


def _judge_credential(path: Path, found: Refusals) -> None:
    """Check the file that systemd reads as root and passes on. Its permissions are the unit's business."""
    try:
        if not path.exists():
            return
        _, problems = read_secrets(path)
    except PermissionError:
        found.warnings.append(f"{path} cannot be read by you, so it was not checked; systemd passes it to the service")
        return
    except OSError as error:
        problems = [Problem(str(path), 0, 0, f"cannot be read: {error.strerror}")]
    found.problems += problems


def _judge_port(unit: Unit, loaded: Loaded, found: Refusals) -> None:
    listen = str(loaded.settings.admin.listen or "")
    port = listen.rpartition(":")[2]
    if listen.startswith("/") or not port.isdecimal() or unit.last("User") in ("", "root"):
        return
    try:
        first_free = int(_FIRST_FREE_PORT.read_text())
    except (OSError, ValueError):
        return
    if int(port) < first_free and "CAP_NET_BIND_SERVICE" not in unit.words("AmbientCapabilities"):
        words = f"{unit.name} may not listen on a port below {first_free}: name another"
        found.problems.append(Problem(_origin_of("admin.listen", loaded), 0, 0, f"admin.listen {listen}: {words}"))


def _problem(key: str, path: Path, words: str, loaded: Loaded) -> Problem:
    subject = f"{key} {path}" if key else str(path)
    return Problem(_origin_of(key, loaded), 0, 0, f"{subject}: {words}")


def _origin_of(key: str, loaded: Loaded) -> str:
    origin = loaded.origins.get(key, DEFAULT_ORIGIN)
    return "" if origin == DEFAULT_ORIGIN else origin


def _may(account: Account, path: Path, wanted: int) -> bool:
    try:
        return account.may(path.resolve(), wanted)
    except OSError:  # we may not look there: nothing is known
        return True


def _is_directory(path: Path) -> bool:
    try:
        return path.is_dir()
    except OSError:  # as in `_may`
        return True


def _is_below(path: Path, directories: Iterable[Path | str]) -> bool:
    return any(path.is_relative_to(Path(one).resolve()) for one in directories)


def _command_to_create(path: Path, account: Account | None, unit: Unit) -> str:
    user = account.name if account else unit.last("User") or "root"
    group = account.group if account else unit.last("Group") or user
    return f"install -d -o {user} -g {group} -m 0750 {shlex.quote(str(path))}"


def _quoted(path: Path) -> str:
    text = str(path).replace("%", "%%")
    return f'"{text}"' if re.search(r"\s", text) else text


def _add_once(lines: list[str], line: str) -> None:
    if line not in lines:
        lines.append(line)
