"""The unit of systemd that runs a configuration, with its drop-ins.

Reads the files as systemd.unit(5) has them, as far as the crawler's unit goes: what is left out of it are line breaks
within quotes, user units and most specifiers. It asks no service manager, which need not run. It does not judge what it
reads.
"""

import re
import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Final

from crawler.settings.secrets import FILE_NAME

# Earlier ones win over later ones (systemd.unit(5), "Unit File Load Path").
_FOLDERS: Final = ("etc/systemd/system", "run/systemd/system", "usr/local/lib/systemd/system", "usr/lib/systemd/system")
_MADE: Final = {"State": "/var/lib", "Cache": "/var/cache", "Logs": "/var/log", "Runtime": "/run"}  # …Directory=


@dataclass(frozen=True, slots=True)
class Unit:
    """A service that is not a template any more. `values` has each key of [Service] with its values in order."""

    name: str
    values: Mapping[str, Sequence[str]]
    arguments: Sequence[str]  # of ExecStart=

    def last(self, key: str) -> str:
        """The value that holds of a key that has one; "" if it is not given."""
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
        """The -o of the command."""
        return tuple(value for name, value in pairwise(self.arguments) if name == "-o")

    @property
    def is_strict(self) -> bool:
        """Whether it may write only to places that are named."""
        return self.last("ProtectSystem") == "strict"

    def writable(self) -> list[Path]:
        """The places that are named: those that systemd makes, and those that must be there."""
        made = [
            Path(top) / word.partition(":")[0] for kind, top in _MADE.items() for word in self.words(f"{kind}Directory")
        ]
        return [*made, *self.granted()]

    def granted(self) -> list[Path]:
        """Places that it may write to and that systemd does not make."""
        return [Path(word.lstrip("-+")) for word in self.words("ReadWritePaths")]

    @property
    def credential(self) -> Path | None:
        """The file that is handed over as secrets.toml."""
        for value in self.values.get("LoadCredential", ()):
            name, _, path = value.partition(":")
            if name == FILE_NAME and path.startswith("/"):
                return Path(path)
        return None


def unit_of(config: Path, root: Path = Path("/")) -> Unit | None:
    """The unit that runs a configuration: crawler.service, or an instance of crawler@.service."""
    config = config.resolve()
    seen = set()
    for folder in _FOLDERS:
        for path in sorted((root / folder).glob("crawler*.service")):
            if path.name not in seen:
                seen.add(path.name)
                if (unit := _if_it_runs(path, config, root)) is not None:
                    return unit
    return None


def _if_it_runs(path: Path, config: Path, root: Path) -> Unit | None:
    stem, at, _ = path.name.removesuffix(".service").partition("@")
    if not at:
        return _unit(path, path.name, "", config, root)
    named = _value_of("-c", _command(_service(_lines([path]))))
    pattern = re.escape(named).replace(re.escape("%i"), "(.+)", 1)
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
        yield "[]"  # no section goes on from one file into the next
        with suppress(OSError):  # what may not be read says nothing
            yield from file.read_text(encoding="utf-8", errors="replace").replace("\\\n", " ").splitlines()


def _service(lines: Iterable[str]) -> dict[str, list[str]]:
    """The keys of [Service]; an empty value takes back all before it."""
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
    except ValueError:  # a quote without its other: systemd refuses the line
        return []


def _value_of(name: str, arguments: Sequence[str]) -> str:
    return next((value for one, value in pairwise(arguments) if one == name), "")
