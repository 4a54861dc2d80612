"""What of a configuration the service that runs it would be refused, and what would let it.

Holds the configuration against its unit: where it may write, what it may read, the secrets that it is handed.
Invariant: nothing is written, and what cannot be told is no refusal.
"""

import grp
import os
import pwd
import re
import shlex
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from crawler.cli.service.unit import Unit
from crawler.settings.configuration_errors import Problem
from crawler.settings.loading import Loaded
from crawler.settings.secrets import read_secrets
from crawler.settings.show import DEFAULT_ORIGIN
from crawler.settings.sources import conf_d

_HOMES: Final = ("/home", "/root", "/run/user")  # ProtectHome=
_TEMPORARY: Final = ("/tmp", "/var/tmp")  # noqa: S108 - PrivateTmp=: named, not used
_TRUE: Final = ("1", "yes", "true", "on")
_FIRST_FREE_PORT: Final = Path("/proc/sys/net/ipv4/ip_unprivileged_port_start")


@dataclass(frozen=True, slots=True)
class Account:
    """The user that a service runs as."""

    name: str
    group: str
    uid: int
    gids: frozenset[int]

    def may(self, path: Path, wanted: int) -> bool:
        """Whether permission bits (4 read, 2 write, 1 search) let it, on the way too. Access control lists are not
        looked at. Raises OSError.
        """
        return all(self._has(one, 1) for one in path.parents) and self._has(path, wanted)

    def _has(self, path: Path, wanted: int) -> bool:
        status = path.stat()
        shift = 6 if status.st_uid == self.uid else 3 if status.st_gid in self.gids else 0
        return self.uid == 0 or (status.st_mode >> shift) & wanted == wanted


def account_of(unit: Unit) -> Account | None:
    """None: it is not there yet, as before `systemd-sysusers`."""
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
    """`problems` keep the service from working; lines of a `drop_in` and `commands` would let it."""

    problems: list[Problem]
    warnings: list[str]
    drop_in: list[str]
    commands: list[str]


def refusals(unit: Unit, loaded: Loaded, config: Path) -> Refusals:
    """Hold a configuration against the unit that runs it."""
    found = Refusals([], [], [], [])
    account = account_of(unit)
    for key, place in _written(loaded):
        _judge_written(unit, account, key, place, loaded, found)
    for key, file in _read(loaded, config):
        _judge_read(unit, account, key, file, loaded, found)
    if loaded.settings.identity.secrets is None and unit.credential is not None:
        _judge_credential(unit.credential, found)
    _judge_port(unit, loaded, found)
    return found


def _written(loaded: Loaded) -> Iterator[tuple[str, Path]]:
    """The directories that it writes to, by the keys that name them."""
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


def _judge_written(unit: Unit, account: Account | None, key: str, place: Path, loaded: Loaded, found: Refusals) -> None:
    path = place.resolve()
    if unit.last("PrivateTmp") in _TRUE and _is_below(path, _TEMPORARY):
        words = f"is in a directory of {unit.name}'s own (PrivateTmp=), which is emptied when it ends: name another"
        found.problems.append(_problem(key, path, words, loaded))
        return
    homes = unit.last("ProtectHome") if _is_below(path, _HOMES) else ""
    is_hidden = homes in (*_TRUE, "tmpfs")
    is_named = _is_below(path, unit.writable())
    if is_hidden or (not is_named and (unit.is_strict or homes == "read-only")):
        found.problems.append(_problem(key, path, f"{unit.name} may not write there", loaded))
        if is_hidden:
            _once(found.drop_in, "ProtectHome=read-only")
        if not is_named:
            _once(found.drop_in, f"ReadWritePaths={_quoted(path)}")
        if not _is_directory(path) or (account is not None and not _may(account, path, 3)):
            _once(found.commands, _making(path, account, unit))
        return
    if is_named and not _is_below(path, unit.granted()):
        return  # systemd makes it, and gives it to the service
    if not _is_directory(path):
        found.problems.append(_problem(key, path, f"is not there, and {unit.name} cannot make it", loaded))
        _once(found.commands, _making(path, account, unit))
    elif account is not None and not _may(account, path, 3):
        found.problems.append(_problem(key, path, f"user {account.name} of {unit.name} may not write there", loaded))
        _once(found.commands, _making(path, account, unit))


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
            _once(found.commands, f"chmod o+r {shlex.quote(str(path))}")
        elif unit.credential is None or unit.credential == path:
            found.commands.append(f"leave identity.secrets out: systemd hands {unit.credential or path} over")
        else:
            _once(
                found.commands,
                f"chgrp {account.group} {shlex.quote(str(path))} && chmod g+r,o= {shlex.quote(str(path))}",
            )


def _judge_credential(path: Path, found: Refusals) -> None:
    """The file that systemd reads as root and hands over: for the service its permissions are as they should be."""
    try:
        if not path.exists():
            return
        _, problems = read_secrets(path)
    except PermissionError:
        found.warnings.append(f"{path} cannot be read by you, so it was not checked; the service gets it")
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
        found.problems.append(Problem(_place("admin.listen", loaded), 0, 0, f"admin.listen {listen}: {words}"))


def _problem(key: str, path: Path, words: str, loaded: Loaded) -> Problem:
    subject = f"{key} {path}" if key else str(path)
    return Problem(_place(key, loaded), 0, 0, f"{subject}: {words}")


def _place(key: str, loaded: Loaded) -> str:
    origin = loaded.origins.get(key, DEFAULT_ORIGIN)
    return "" if origin == DEFAULT_ORIGIN else origin


def _may(account: Account, path: Path, wanted: int) -> bool:
    try:
        return account.may(path.resolve(), wanted)
    except OSError:  # whoever asks may not look there: nothing can be said
        return True


def _is_directory(path: Path) -> bool:
    try:
        return path.is_dir()
    except OSError:  # as in `_may`
        return True


def _is_below(path: Path, places: Iterable[Path | str]) -> bool:
    return any(path.is_relative_to(Path(place).resolve()) for place in places)


def _making(path: Path, account: Account | None, unit: Unit) -> str:
    user = account.name if account else unit.last("User") or "root"
    group = account.group if account else unit.last("Group") or user
    return f"install -d -o {user} -g {group} -m 0750 {shlex.quote(str(path))}"


def _quoted(path: Path) -> str:
    text = str(path).replace("%", "%%")
    return f'"{text}"' if re.search(r"\s", text) else text


def _once(lines: list[str], line: str) -> None:
    if line not in lines:
        lines.append(line)
