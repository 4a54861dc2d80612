"""The secrets file: credentials by origin, those for the proxy, and the password of the database.

    [origin."https://intranet.example.org"]
    username = "reader"
    password = "…"

    [origin."https://api.example.org:8443"]
    bearer = "…"

    [proxy]
    username = "crawler"
    password = "…"

    [postgresql]
    password = "…"

The values of header fields are checked by `fetch.credentials`. Invariants: a file that everyone may read or write is
refused before it is read; no message quotes more of it than the names of its tables.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from stat import S_IMODE, S_IROTH, S_ISREG, S_IWOTH
from typing import Final

from crawler.core import url
from crawler.core.models import Origin
from crawler.fetch.credentials import BadCredential, basic, bearer
from crawler.fetch.options import Secrets
from crawler.settings.configuration_errors import ConfigurationError, KeyPath, Problem, did_you_mean
from crawler.settings.sources import TomlFile, read_toml

CREDENTIALS_DIRECTORY: Final = "CREDENTIALS_DIRECTORY"  # systemd.exec(5), LoadCredential=
FILE_NAME: Final = "secrets.toml"
MAX_BYTES: Final = 1 << 20
_TABLES: Final = ("origin", "proxy", "postgresql")
_KEYS: Final = ("username", "password", "bearer")


def credentials_file(environ: Mapping[str, str]) -> Path | None:
    """The file that systemd passed as a credential, if any. A directory that we may not read counts as none: systemd
    252 names it to ExecReload= too, but lets only ExecStart= read it.
    """
    directory = environ.get(CREDENTIALS_DIRECTORY)
    if not directory:
        return None
    path = Path(directory) / FILE_NAME
    try:
        return path if path.exists() else None
    except PermissionError:
        return None


def read_secrets(path: Path) -> tuple[Secrets, list[Problem]]:
    """The secrets in a file, and its problems. Raises OSError."""
    try:
        _check_permissions(path)
        file = read_toml(path, path.name, is_secret=True)
    except ConfigurationError as error:
        return Secrets(), error.problems
    reader = _SecretsReader(file)
    return reader.secrets(), reader.problems


def _check_permissions(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)  # a FIFO must not block the start
    try:
        status = os.fstat(descriptor)
    finally:
        os.close(descriptor)
    problem, hint = "", ""
    if not S_ISREG(status.st_mode):
        problem = "is not a regular file"
    elif status.st_mode & (S_IROTH | S_IWOTH):
        what = "read" if status.st_mode & S_IROTH else "changed"
        problem, hint = f"may be {what} by everyone (mode {S_IMODE(status.st_mode):04o})", f"chmod o-rw {path}"
    elif status.st_size > MAX_BYTES:
        problem = f"is larger than {MAX_BYTES} bytes"
    if problem:
        raise ConfigurationError([Problem(str(path), 0, 0, problem, "", hint)])


@dataclass(slots=True)
class _SecretsReader:
    file: TomlFile
    problems: list[Problem] = field(default_factory=list)

    def secrets(self) -> Secrets:
        origins: dict[Origin, str] = {}
        proxy = database = None
        for name, table in self.file.data.items():
            if name not in _TABLES:
                self._refuse((name,), f'unknown table "{name}"', did_you_mean(name, _TABLES))
            elif not isinstance(table, dict):
                self._refuse((name,), f"{name} must be a table")
            elif name == "proxy":
                proxy = self._authorization((name,), table)
            elif name == "postgresql":
                database = self._database_password((name,), table)
            else:
                origins |= self._origins(table)
        return Secrets(origins, proxy, database)

    def _database_password(self, path: KeyPath, table: Mapping[str, object]) -> str | None:
        match table:
            case {"password": str(password), **others} if password and not others:
                return password
        self._refuse(path, "must have a password, text in quotes, and nothing else")
        return None

    def _origins(self, tables: Mapping[str, object]) -> dict[Origin, str]:
        found: dict[Origin, str] = {}
        for text, table in tables.items():
            path = ("origin", text)
            origin = self._origin(path, text)
            if not isinstance(table, dict):
                self._refuse(path, 'must be a table, as in [origin."https://example.org"]')
                continue
            authorization = self._authorization(path, table)
            if origin in found:
                self._refuse(path, f"a second table for {origin}")
            elif origin is not None and authorization is not None:
                found[origin] = authorization
        return found

    def _origin(self, path: KeyPath, text: str) -> Origin | None:
        try:
            href, origin = url.parse(text)
        except url.UrlError as error:
            hint = 'as in [origin."https://example.org"]; a name with dots stands in quotes'
            self._refuse(path, f"must be an origin: {error}", hint)
            return None
        if href != f"{origin}/" or "@" in text or "#" in text:
            self._refuse(path, f'must be an origin alone, as "{origin}"')
            return None
        return origin

    def _authorization(self, path: KeyPath, table: Mapping[str, object]) -> str | None:
        before = len(self.problems)
        for name, value in table.items():
            if name not in _KEYS:
                self._refuse((*path, name), f'unknown key "{name}"', did_you_mean(name, _KEYS))
            elif not isinstance(value, str) or (not value and name != "password"):
                self._refuse((*path, name), f"{name} must be text in quotes, not empty")
        if len(self.problems) > before:
            return None
        try:
            match table:
                case {"bearer": str(token), **others} if not others:
                    return bearer(token)
                case {"username": str(username), "password": str(password), **others} if not others:
                    return basic(username, password)
        except BadCredential as error:
            self._refuse(path, str(error))
        else:
            self._refuse(path, "must have either username and password, or bearer")
        return None

    def _refuse(self, path: KeyPath, message: str, hint: str = "") -> None:
        self.problems.append(self.file.problem(path, message, hint, at_key=True))
