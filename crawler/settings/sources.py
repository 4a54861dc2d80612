"""Sources of values: TOML files, the environment, `-o`, files of seeds; each knows the location of its values.

Sources are read into Given keys; `loading` checks the values. Invariants: a source turns its faults into Problems with
the best location it knows, and does not stop at the first; the seeds of a file are never all in memory.
"""

import errno
import os
import re
import select
from codecs import BOM_UTF8
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from io import BytesIO, TextIOWrapper
from pathlib import Path
from stat import S_ISFIFO, S_ISREG
from typing import Final

import tomli
from xxhash import xxh3_128

from crawler.core import url
from crawler.core.formatting import count, shortened
from crawler.core.options import NameSet, hash_of
from crawler.core.scope import NO_NAMES, SEED_MODES, directory_of, name_in_scope
from crawler.engine.options import SeedFile
from crawler.obs.fetch_line import redact_text
from crawler.settings.configuration_errors import (
    ConfigurationError,
    KeyPath,
    Positions,
    Problem,
    did_you_mean,
    is_utf_16,
    syntax_hint,
    syntax_message,
)
from crawler.settings.schema import (
    OVERRIDE,
    SECTIONS,
    TABLES,
    ConfigurationKey,
    keys,
    table_keys,
    unknown_key,
    unknown_section,
    unknown_table_key,
)
from crawler.settings.value_types import KeyKind

ENVIRONMENT_PREFIX: Final = "CRAWLER_"
_COMMENT: Final = re.compile(r"(?:^\s*|[ \t])#.*")
PIPE_WAIT_S: Final = 5.0  # for a writer; a shell starts that of a process substitution at once
SEED_PROBLEMS: Final = 10  # shown of one file, the others are counted: the wrong file would fill the screen
# Values that may be credentials: a message shows the location, not the line.
_SECRET: Final = frozenset((("fetch", "headers"), ("network", "proxy"), ("frontier", "dsn")))


@dataclass(frozen=True, slots=True)
class ValueSource:
    """A source of values: one variable or one override, which have no lines; or a file.

    `name` is for messages, `short_name` for locations. Relative paths are resolved in `folder`; None: the current
    directory. Key paths begin with section and key and may continue into the value.
    """

    name: str
    short_name: str
    folder: Path | None = None

    def location(self, path: KeyPath) -> str:
        """The location of a value, as in "crawler.toml:14"."""
        return self.short_name

    def problem(self, path: KeyPath, message: str, hint: str = "", *, at_key: bool = False) -> Problem:
        """A problem with the value at `path`, or with its key."""
        return Problem(self.name, 0, 0, message, "", hint)


@dataclass(frozen=True, slots=True)
class Given:
    """One key that a source gave, its value not yet checked."""

    key: ConfigurationKey
    value: object
    source: ValueSource


@dataclass(frozen=True, slots=True)
class GivenTables:
    """The [[override]] or [[seed]] tables of one file, not yet checked. Problems with the names of their keys are
    known.
    """

    name: str
    tables: Sequence[Mapping[str, object]]
    source: ValueSource


@dataclass(frozen=True, slots=True, kw_only=True)
class TomlFile(ValueSource):
    """One parsed file. No problem of a secret one shows its line."""

    is_secret: bool
    lines: Sequence[str] = field(repr=False)
    positions: Positions = field(repr=False)
    data: Mapping[str, object] = field(repr=False)

    def location(self, path: KeyPath) -> str:
        line, _ = self.positions.value(path) if len(path) > 2 else self.positions.key(path)
        return f"{self.short_name}:{line}"

    def problem(self, path: KeyPath, message: str, hint: str = "", *, at_key: bool = False) -> Problem:
        line, column = self.positions.key(path) if at_key else self.positions.value(path)
        shown = (
            ""
            if self.is_secret or path[:2] in _SECRET or (path[:1], path[2:3]) == ((OVERRIDE,), ("headers",))
            else self.lines[line - 1]
        )
        return Problem(self.name, line, column, message, shown, hint)

    def given(self) -> Iterator[Given | GivenTables | Problem]:
        """Its keys in order, and problems with their names."""
        for section, table in self.data.items():
            if section in TABLES:
                yield from self._tables(section, table)
            elif section not in SECTIONS:
                yield self._misplaced(section, table)
            elif isinstance(table, list) and all(isinstance(item, dict) for item in table) and table:
                yield self.problem(
                    (section,), f"[{section}] must be one table, not an array of tables", f"write [{section}]"
                )
            elif not isinstance(table, dict):
                yield self.problem((section,), f"{section} must be a section, not a value", f"[{section}]")
            else:
                for name, value in table.items():
                    if unknown := unknown_key(section, name):
                        yield self.problem((section, name), *unknown, at_key=True)
                    else:
                        yield Given(keys()[f"{section}.{name}"], value, self)

    def _tables(self, name: str, tables: object) -> Iterator[GivenTables | Problem]:
        if not isinstance(tables, list) or not all(isinstance(table, dict) for table in tables):
            hint = f"write [[{name}]], once for each {'group of hosts' if name == OVERRIDE else 'seed'}"
            yield self.problem((name,), f"{name} must be an array of tables", hint, at_key=True)
            return
        for number, table in enumerate(tables):
            for key in (key for key in table if key not in table_keys(name)):
                yield self.problem((name, number, key), *unknown_table_key(name, key), at_key=True)
        yield GivenTables(name, tables, self)

    def _misplaced(self, name: str, value: object) -> Problem:
        if isinstance(value, dict):
            return self.problem((name,), *unknown_section(name), at_key=True)
        homes = [f"[{key.section}]" for key in keys().values() if key.name == name]
        hint = f"it belongs under {' or '.join(homes)}" if homes else ""
        return self.problem((name,), f'"{name}" is outside of any section', hint, at_key=True)


def read_toml(path: Path, short_name: str, *, is_secret: bool = False) -> TomlFile:
    """Read and parse one file. Raises ConfigurationError with one problem, a syntax error at its line and column."""

    def refusal(message: str, before: str | None = None, shown: str = "", hint: str = "") -> ConfigurationError:
        """`before`: the text up to the fault."""
        line, column = (0, 0) if before is None else (before.count("\n") + 1, len(before) - before.rfind("\n"))
        return ConfigurationError([Problem(str(path), line, column, message, shown, hint)])

    try:
        content = path.read_bytes().removeprefix(BOM_UTF8)
    except OSError as error:
        raise refusal(f"cannot be read: {error.strerror}") from None
    if is_utf_16(content):
        raise refusal("not UTF-8 but UTF-16", hint="save it as UTF-8")
    try:
        text = content.decode().replace("\r\n", "\n")
        return TomlFile(
            name=str(path),
            short_name=short_name,
            folder=path.parent,
            is_secret=is_secret,
            data=tomli.loads(text),
            lines=text.split("\n"),
            positions=Positions(text),
        )
    except UnicodeDecodeError as error:
        raise refusal("not UTF-8", content[: error.start].decode()) from None
    except tomli.TOMLDecodeError as error:
        # A fault at the end of the document is shown after its last word, not on an empty line.
        before = error.doc[: error.pos] if error.pos < len(error.doc) else error.doc.rstrip()
        if error.msg.startswith('Expected "\'"'):  # found nowhere: the last one in the document begins the text
            before = error.doc[: error.doc.rfind("'")] + error.doc[error.doc.rfind("'") :].partition("\n")[0]
        shown = error.doc.split("\n")[before.count("\n")]
        hint = syntax_hint(error.msg, shown, len(before) - before.rfind("\n"))
        if is_secret or redact_text(shown) != shown:  # it has a URL with a password
            shown = hint = ""
        elif path.suffix != ".toml" and all(line[:1] in ("", "#") for line in map(str.strip, before.split("\n")[:-1])):
            hint = "this is no configuration (TOML)"
        raise refusal(f"not TOML: {syntax_message(error.msg)}", before, shown, hint) from None
    except RecursionError:
        raise refusal("not usable: nested too deeply") from None
    except ValueError:  # int() of thousands of digits
        raise refusal("not usable: a number has too many digits") from None


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


def from_environment(environ: Mapping[str, str]) -> Iterator[Given | Problem]:
    """The keys given as CRAWLER_SECTION__KEY, in the order of their names. A key with one underscore is an error, any
    other name that begins with a section a warning; other variables are left alone.
    """
    for variable in sorted(environ):
        if not variable.startswith(ENVIRONMENT_PREFIX):
            continue
        written = variable.removeprefix(ENVIRONMENT_PREFIX).lower()
        source = ValueSource(f"environment {variable}", f"environment {variable}")
        section, underscores, name = written.partition("__")
        if underscores:
            yield _from_text(section, name, environ[variable], source)
        elif meant := _with_one_underscore(written):
            right = f"{ENVIRONMENT_PREFIX}{meant.section.upper()}__{meant.name.upper()}"
            yield source.problem((), f"names no key: the variable for {meant} is {right}, with two underscores")
        elif any(written.startswith(f"{section}_") for section in SECTIONS):
            message = f"names no key and is ignored; keys are {ENVIRONMENT_PREFIX}SECTION__KEY"
            yield Problem(source.name, 0, 0, message, is_warning=True)


def _with_one_underscore(written: str) -> ConfigurationKey | None:
    """The key whose name with one underscore this is, or nearly is."""
    names = {f"{key.section}_{key.name}": key for key in keys().values()}
    close = [written] if written in names else get_close_matches(written, names, n=1, cutoff=0.9)
    return names[close[0]] if close else None


def from_overrides(overrides: Sequence[str]) -> Iterator[Given | Problem]:
    """The keys given as "section.key=value"."""
    for override in overrides:
        dotted, equals, text = override.partition("=")
        dotted = dotted.strip()
        section, _, name = dotted.partition(".")
        place = dotted if (section, name) in _SECRET else override
        source = ValueSource(shortened(f"-o {place}"), f"-o {dotted}")
        if equals and name:
            yield _from_text(section, name, text, source)
        else:
            home = next((str(key) for key in keys().values() if key.name == dotted), None)
            hint = f'did you mean "{home}"?' if home else did_you_mean(dotted, (key.name for key in keys().values()))
            yield source.problem((), "must be SECTION.KEY=VALUE", hint)


def _from_text(section: str, name: str, text: str, source: ValueSource) -> Given | Problem:
    """A key with the value of `text`: as TOML if that is of the kind of the key, else as text.

    So names need no quotes ("crawl.name=2026", "tls.min_version=1.3"), and one item is a list of one.
    """
    if unknown := unknown_key(section, name):
        return source.problem((), *unknown)
    key = keys()[f"{section}.{name}"]
    value = _toml_value(text)
    match key.kind:
        case KeyKind.TEXT | KeyKind.PATH:
            value = value if isinstance(value, str) else text
        case KeyKind.LIST if not isinstance(value, list):
            value = [value if isinstance(value, str) else text]
        case KeyKind.HOSTS if not isinstance(value, list) and value not in SEED_MODES:
            value = [value if isinstance(value, str) else text]
    return Given(key, value, source)


def _toml_value(text: str) -> object:
    try:
        parsed = tomli.loads(f"value = {text}")
    except (ValueError, RecursionError):
        return text
    return parsed["value"] if len(parsed) == 1 else text


_HASHES_HELD: Final = 1 << 20  # bytes


def check_seed_file(path: Path, hosts_in_scope: str) -> tuple[SeedFile, list[Problem]]:
    """Read a file with one URL per line and find its problems, and what of its seeds the scope follows from:
    `hosts_in_scope` is the first word of scope.hosts. Raises OSError.

    A comment begins with "#" at the beginning of a line or after a blank. Empty lines are left out. What is no regular
    file (a pipe) is kept in memory, since it cannot be read again; the writer of a FIFO has PIPE_WAIT_S to open it.
    """
    with open(path, "rb", opener=_open_without_waiting) as file:
        mode = os.fstat(file.fileno()).st_mode
        begun = _begin_pipe(file.fileno()) if S_ISFIFO(mode) else b""
        os.set_blocking(file.fileno(), True)
        content = None if S_ISREG(mode) else begun + file.read()
        start = file.read(2) if content is None else content[:2]

    def read() -> Iterator[str]:
        return (text for _, _, text in _seed_lines(path, content))

    if is_utf_16(start):
        problem = Problem(str(path), 0, 0, "not UTF-8 but UTF-16", "", "save it as UTF-8")
        return SeedFile(str(path), "", 0, "", NO_NAMES, read), [problem]
    problems: list[Problem] = []
    hashes, host, at_most = bytearray(), "", _HASHES_HELD
    directories: set[str] = set()
    digest = xxh3_128()
    seeds = wrong = first_more = 0
    first = ""
    for number, line, text in _seed_lines(path, content):
        try:
            href, origin = url.parse_seed(text)
        except url.UrlError as error:
            wrong += 1
            if wrong <= SEED_PROBLEMS:
                column = len(line) - len(line.lstrip()) + 1
                shown = line.rstrip().encode(errors="surrogateescape").decode(errors="replace")
                problems.append(Problem(str(path), number, column, f"no seed: {error}", shown))
            elif not first_more:
                first_more = number
        else:
            digest.update(text.encode())
            digest.update(b"\n")
            seeds += 1
            first = first or text
            if hosts_in_scope in SEED_MODES and origin.host != host:
                host = origin.host
                hashes += hash_of(name_in_scope(host, hosts_in_scope))
                if len(hashes) >= at_most:  # hosts may have many seeds
                    hashes = bytearray(NameSet.of_hashes(hashes).content())
                    at_most = max(_HASHES_HELD, 2 * len(hashes))
            if hosts_in_scope == "seed-prefix":
                directories.add(directory_of(href))
    if first_more:
        more = wrong - SEED_PROBLEMS
        words = f"{count(more, 'more line')} {'is no seed' if more == 1 else 'are no seeds'}"
        problems.append(Problem(str(path), first_more, 1, words))
    found = NameSet.of_hashes(hashes), read, frozenset(directories)
    return SeedFile(str(path), digest.hexdigest(), seeds, first, *found), problems


def _open_without_waiting(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK)  # a FIFO would wait for its writer


def _begin_pipe(descriptor: int) -> bytes:
    """Wait until something may be read of a pipe, or until somebody writes to it. Returns what was read meanwhile.
    Raises OSError if nobody does.
    """
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    if poll.poll(PIPE_WAIT_S * 1_000):
        return b""
    try:
        begun = os.read(descriptor, 65_536)
    except BlockingIOError:  # its writer takes its time
        return b""
    if not begun:
        raise OSError(errno.ENXIO, "it is a pipe, and nobody writes to it")
    return begun


def _seed_lines(path: Path, content: bytes | None) -> Iterator[tuple[int, str, str]]:
    """The lines of a file of seeds with their numbers, as written and without comments; not the empty ones."""
    binary = path.open("rb") if content is None else BytesIO(content)
    with TextIOWrapper(binary, encoding="utf-8-sig", errors="surrogateescape") as lines:
        for number, line in enumerate(lines, 1):
            text = (_COMMENT.sub("", line) if "#" in line else line).strip()
            if text:
                yield number, line, text
