"""Where values come from: TOML files, the environment, `-o`; each able to say where a value stands.

Reads the files and takes them apart into Given keys; whether a value is any good is decided in `loading`. Invariant:
a source turns its faults into Problems with the best place it knows, and never stops at the first.
"""

from codecs import BOM_UTF8
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Final, Protocol

import tomli

from crawler.obs.fetch_line import redact_text
from crawler.settings.configuration_errors import ConfigurationError, Problem, did_you_mean, is_utf_16, syntax_words
from crawler.settings.kinds import KeyKind
from crawler.settings.schema import SECTIONS, complaint_about, keys
from crawler.settings.toml_positions import Path as KeyPath
from crawler.settings.toml_positions import Positions
from crawler.settings.validators import SEED_WORDS

ENVIRONMENT_PREFIX: Final = "CRAWLER_"
# Values that may be credentials: a message shows the place, not the line.
_SECRET: Final = frozenset((("fetch", "headers"), ("network", "proxy")))


class ValueSource(Protocol):
    """A layer, or a part of one. Paths begin with section and key and may go on into the value."""

    @property
    def folder(self) -> Path | None:
        """What relative paths in its values are relative to; None: the current directory."""
        ...

    def place(self, path: KeyPath) -> str:
        """Short, for a person: "crawler.toml:14"."""
        ...

    def problem(self, path: KeyPath, message: str, hint: str = "", *, at_key: bool = False) -> Problem:
        """A problem with the value at `path`, or with its key."""
        ...


@dataclass(frozen=True, slots=True)
class Given:
    """One key that a source gave, known to exist, its value not yet checked."""

    section: str
    name: str
    value: object
    source: ValueSource

    def __str__(self) -> str:
        return f"{self.section}.{self.name}"


@dataclass(frozen=True, slots=True)
class TomlFile:
    """One parsed file. `short_name` is how places call it: relative to the folder of the main file."""

    path: Path
    short_name: str
    source: str = field(repr=False)
    positions: Positions = field(repr=False)
    data: Mapping[str, object] = field(repr=False)

    @property
    def folder(self) -> Path | None:
        return self.path.parent

    def place(self, path: KeyPath) -> str:
        line, _ = self.positions.value(path) if len(path) > 2 else self.positions.key(path)
        return f"{self.short_name}:{line}"

    def problem(self, path: KeyPath, message: str, hint: str = "", *, at_key: bool = False) -> Problem:
        line, column = self.positions.key(path) if at_key else self.positions.value(path)
        shown = "" if path[:2] in _SECRET else _line_of(self.source, line)
        return Problem(str(self.path), line, column, message, shown, hint)

    def given(self, problems: list[Problem]) -> Iterator[Given]:
        """Its keys, in order; unknown ones go to `problems`."""
        for section, table in self.data.items():
            if section not in SECTIONS:
                problems.append(self._misplaced(section, table))
            elif isinstance(table, list) and all(isinstance(item, dict) for item in table) and table:
                problems.append(self.problem((section,), f"[{section}] must be one table, not an array of tables"))
            elif not isinstance(table, dict):
                problems.append(self.problem((section,), f"{section} must be a section, not a value", f"[{section}]"))
            else:
                for name, value in table.items():
                    if complaint := complaint_about(section, name):
                        problems.append(self.problem((section, name), *complaint, at_key=True))
                    else:
                        yield Given(section, name, value, self)

    def _misplaced(self, name: str, value: object) -> Problem:
        if isinstance(value, dict):
            return self.problem((name,), f'unknown section "{name}"', did_you_mean(name, SECTIONS), at_key=True)
        homes = [f"[{key.section}]" for key in keys().values() if key.name == name]
        hint = f"it belongs under {' or '.join(homes)}" if homes else ""
        return self.problem((name,), f'"{name}" stands outside of any section', hint, at_key=True)


@dataclass(frozen=True, slots=True)
class Named:
    """A source without lines. `name` stands in messages, `short_name` in places."""

    name: str
    short_name: str

    @property
    def folder(self) -> Path | None:
        return None

    def place(self, path: KeyPath) -> str:
        return self.short_name

    def problem(self, path: KeyPath, message: str, hint: str = "", *, at_key: bool = False) -> Problem:
        return Problem(self.name, 0, 0, message, "", hint)


def _line_of(source: str, line: int) -> str:
    lines = source.split("\n")
    return lines[line - 1] if 0 < line <= len(lines) else ""


def read_toml(path: Path, short_name: str) -> TomlFile:
    """Read and parse one file. Raises ConfigurationError with one problem, a syntax error at its line and column."""

    def refuse(message: str, line: int = 0, column: int = 0, source: str = "", hint: str = "") -> ConfigurationError:
        shown = _line_of(source, line)
        if redact_text(shown) != shown:  # a URL with a password in it
            shown = ""
        return ConfigurationError([Problem(str(path), line, column, message, shown, hint)])

    try:
        content = path.read_bytes().removeprefix(BOM_UTF8)
    except (OSError, ValueError) as error:
        raise refuse(f"cannot be read: {error.strerror if isinstance(error, OSError) else error}") from None
    if is_utf_16(content):
        raise refuse("not UTF-8 but UTF-16", hint="save it as UTF-8")
    try:
        source = content.decode().replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        before = content[: error.start].decode()
        raise refuse("not UTF-8", before.count("\n") + 1, len(before) - before.rfind("\n")) from None
    try:
        data = tomli.loads(source)
        return TomlFile(path, short_name, source, Positions(source), data)
    except tomli.TOMLDecodeError as error:
        # What is missing at the end of the document is shown behind its last word, not on an empty line.
        before = source[: error.pos] if error.pos < len(source) else source.rstrip()
        line, column = before.count("\n") + 1, len(before) - before.rfind("\n")
        hint = "is a quote missing?" if source[error.pos : error.pos + 1] == "\n" and "character" in error.msg else ""
        raise refuse(f"not TOML: {syntax_words(error.msg)}", line, column, source, hint) from None
    except RecursionError:
        raise refuse("not usable: nested too deeply") from None
    except ValueError:  # int() of thousands of digits
        raise refuse("not usable: a number has too many digits") from None


def conf_d(path: Path) -> list[tuple[Path, str]]:
    """The files of `conf.d` beside the main file, in name order, with their short names; hidden ones do not count."""
    folder = path.parent / "conf.d"
    try:
        found = sorted(item for item in folder.iterdir() if item.suffix == ".toml" and not item.name.startswith("."))
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise ConfigurationError([Problem(str(folder), 0, 0, f"cannot be read: {error.strerror}")]) from None
    return [(item, f"conf.d/{item.name}") for item in found]


def from_environment(environ: Mapping[str, str], problems: list[Problem], warnings: list[Problem]) -> Iterator[Given]:
    """The keys given as CRAWLER_SECTION__KEY, in the order of their names. A key with one underscore is a problem, what
    only begins as one a warning; other variables are left alone.
    """
    for variable in sorted(environ):
        if not variable.startswith(ENVIRONMENT_PREFIX):
            continue
        if "__" not in variable:
            _one_underscore(variable, problems, warnings)
            continue
        section, _, name = variable.removeprefix(ENVIRONMENT_PREFIX).lower().partition("__")
        source = Named(f"environment {variable}", f"environment {variable}")
        if complaint := complaint_about(section, name):
            problems.append(source.problem((), *complaint))
        else:
            yield Given(section, name, _read(section, name, environ[variable]), source)


def _one_underscore(variable: str, problems: list[Problem], warnings: list[Problem]) -> None:
    written = variable.removeprefix(ENVIRONMENT_PREFIX).lower()
    names = {f"{key.section}_{key.name}": key for key in keys().values()}
    close = get_close_matches(written, names, n=1, cutoff=0.9)
    source = Named(f"environment {variable}", f"environment {variable}")
    if written in names or close:
        key = names[written if written in names else close[0]]
        right = f"{ENVIRONMENT_PREFIX}{key.section.upper()}__{key.name.upper()}"
        problems.append(source.problem((), f"names no key: the variable for {key} is {right}, with two underscores"))
    elif any(written.startswith(f"{section}_") for section in SECTIONS):
        message = f"names no key and counts for nothing; keys are {ENVIRONMENT_PREFIX}SECTION__KEY"
        warnings.append(source.problem((), message))


def from_overrides(overrides: Sequence[str], problems: list[Problem]) -> Iterator[Given]:
    """The keys given as "section.key=value"."""
    for override in overrides:
        dotted, equals, text = override.partition("=")
        dotted = dotted.strip()
        section, _, name = dotted.partition(".")
        shown = f"-o {dotted}" if (section, name) in _SECRET else f"-o {override}"
        source = Named(shown, f"-o {dotted}")
        if not equals or not name:
            hint = did_you_mean(dotted, (key.name for key in keys().values()))
            homes = [str(key) for key in keys().values() if key.name == dotted]
            hint = f'did you mean "{homes[0]}"?' if homes else hint
            problems.append(source.problem((), "must be SECTION.KEY=VALUE", hint))
        elif complaint := complaint_about(section, name):
            problems.append(source.problem((), *complaint))
        else:
            yield Given(section, name, _read(section, name, text), source)


def _read(section: str, name: str, text: str) -> object:
    """The value that `text` means for this key: TOML if it is TOML of the kind the key holds, else text.

    So names need no quotes ("crawl.name=2026", "tls.min_version=1.3"), and one item may stand for a list of one.
    """
    value = _toml_value(text)
    match keys()[f"{section}.{name}"].kind:
        case KeyKind.TEXT | KeyKind.PATH:
            return value if isinstance(value, str) else text
        case KeyKind.LIST:
            return value if isinstance(value, list) else [value if isinstance(value, str) else text]
        case KeyKind.HOSTS:
            item = value if isinstance(value, str | list) else text
            return item if isinstance(item, list) or item in SEED_WORDS else [item]
        case _:
            return value


def _toml_value(text: str) -> object:
    try:
        parsed = tomli.loads(f"value = {text}")
    except (ValueError, RecursionError):
        return text
    return parsed["value"] if len(parsed) == 1 else text
