"""Loading of the configuration in layers: defaults < file < conf.d < environment < `-o`.

Every value of every layer is checked, also those that a later layer replaces, and all problems are reported together. A
later layer replaces a key whole; lists and tables are not joined. Invariant: the result has passed every check, and the
origin of each key is known.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from pydantic import ValidationError

from crawler.core.url import parse_seed
from crawler.engine.options import SeedFile
from crawler.fetch.options import Secrets
from crawler.settings.checks import findings
from crawler.settings.configuration_errors import ConfigurationError, KeyPath, Problem, in_order
from crawler.settings.schema import OVERRIDE, SECTIONS, SEED, TABLES, ConfigurationKey, keys, table_keys
from crawler.settings.secrets import CREDENTIALS_DIRECTORY, credentials_file, read_secrets
from crawler.settings.sections import OverrideSection, Section, SeedSection
from crawler.settings.settings import DEFAULT_ORIGIN, Mode, Settings, ShownKey, masked, masked_for
from crawler.settings.sources import (
    Given,
    GivenTables,
    ValueSource,
    check_seed_file,
    conf_d,
    from_environment,
    from_overrides,
    read_toml,
)
from crawler.settings.value_types import refusal

# Keys with the paths of a crawl, and keys by which its default directory is named.
_PATH_KEYS: Final = frozenset(("output.directory", "frontier.path", "log.directory", "admin.socket"))
_DEFAULT_PATH_KEYS: Final = frozenset(("crawl.name", "crawl.seeds", "crawl.seed_files", SEED))


@dataclass(frozen=True, slots=True)
class Loaded:
    """The result of a load. `origins` has every key: "crawler.toml:14", "-o politeness.delay", "default"."""

    settings: Settings
    origins: dict[str, str]
    warnings: list[str] = field(default_factory=list)

    def masked(self) -> list[ShownKey]:
        """Every key as `config show` prints it, secrets masked, in the order of the file."""
        return masked(self.settings, self.origins)

    def masked_for(self, url: str) -> list[ShownKey]:
        """The keys that overrides may change, with their values for one URL."""
        return masked_for(self.settings, self.origins, url)


def load(path: Path | None, overrides: Sequence[str], environ: Mapping[str, str], mode: Mode) -> Loaded:
    """Read and check the configuration. Raises ConfigurationError with everything that is wrong."""
    layers = _Layers()
    settings = layers.read(path, overrides, environ, mode)
    if errors := layers.errors():
        raise ConfigurationError(errors)
    origins = {
        key: layers.sources[key].location(_path(key)) if key in layers.sources else DEFAULT_ORIGIN for key in keys()
    }
    warnings = [one.headline + (f" ({one.hint})" if one.hint else "") for one in layers.problems]
    return Loaded(settings, origins, warnings)


def load_paths(
    path: Path | None, overrides: Sequence[str], environ: Mapping[str, str]
) -> tuple[Settings, list[Problem]]:
    """Read the configuration for its paths only, for commands that inspect or steer a crawl: a mistake elsewhere must
    not stop them. Returns the errors too; if there are any, only the keys with paths are valid.

    Raises ConfigurationError if one of those keys, an override or a whole file cannot be read.
    """
    layers = _Layers()
    settings = layers.read(path, overrides, environ, "crawl", with_secrets=False)
    errors = layers.errors()
    needed = _PATH_KEYS if "output.directory" in layers.sources else _PATH_KEYS | _DEFAULT_PATH_KEYS
    if not (layers.is_whole and layers.refused.isdisjoint(needed)) or any(one.file.startswith("-o ") for one in errors):
        raise ConfigurationError(errors)
    return settings, errors


def _path(key: str) -> KeyPath:
    return tuple(key.split("."))


@dataclass(slots=True)
class _Layers:
    """The layers read so far.

    `sections` have the valid values, `sources` where they are from, by key; `refused`: keys whose last value is not
    valid; `is_whole`: every file could be read.
    """

    sections: dict[str, Any] = field(default_factory=lambda: {name: model() for name, model in SECTIONS.items()})
    sources: dict[str, ValueSource] = field(default_factory=dict)
    refused: set[str] = field(default_factory=set)
    problems: list[Problem] = field(default_factory=list)
    is_whole: bool = True
    tables: dict[str, list[Section]] = field(default_factory=lambda: {name: [] for name in TABLES})

    def errors(self) -> list[Problem]:
        return in_order([problem for problem in self.problems if not problem.is_warning])

    def read(
        self,
        path: Path | None,
        overrides: Sequence[str],
        environ: Mapping[str, str],
        mode: Mode,
        *,
        with_secrets: bool = True,
    ) -> Settings:
        """Read every layer, the weakest first, and the files that values name, and check values against each other."""
        if (credentials := credentials_file(environ)) is not None:
            name = f"environment {CREDENTIALS_DIRECTORY}"
            self._take([Given(keys()["identity.secrets"], str(credentials), ValueSource(name, name))])
        if path is not None:
            self._take_files(path)
        self._take(from_environment(environ))
        self._take(from_overrides(overrides))
        settings = Settings(
            **self.sections,
            file_seeds=self._seeds(),
            secrets=self._secrets() if with_secrets else Secrets(),
            overrides=tuple(one for one in self.tables[OVERRIDE] if isinstance(one, OverrideSection)),
            override_places=self._places(OVERRIDE),
            seed_tables=tuple(one for one in self.tables[SEED] if isinstance(one, SeedSection)),
            seed_places=self._places(SEED),
            pattern_places=dict(self._locations_of_patterns()),
        )
        self._take_findings(settings, mode, path)
        return settings

    def _take(self, layer: Iterable[Given | GivenTables | Problem]) -> None:
        for item in layer:
            if isinstance(item, Problem):
                self.problems.append(item)
                continue
            if isinstance(item, GivenTables):
                self._take_tables(item)
                continue
            key, value, folder = item.key, item.value, item.source.folder
            try:
                checked = SECTIONS[key.section].model_validate({key.name: value}, context=folder)
            except ValidationError as error:
                self.problems += _problems_of((key.section,), item.source, {key.name: key}, error)
                self.refused.add(str(key))
            else:
                update = {key.attribute: getattr(checked, key.attribute)}
                self.sections[key.section] = self.sections[key.section].model_copy(update=update)
                self.sources[str(key)] = item.source
                self.refused.discard(str(key))

    def _take_tables(self, given: GivenTables) -> None:
        """Check the tables of a file, which replace those of that name of the files before."""
        source, name = given.source, given.name
        found: list[Section] = []
        for number, table in enumerate(given.tables):
            path: KeyPath = (name, number)
            if name == OVERRIDE:
                self.problems += _problems_of_override(table, path, source)
            elif "url" not in table:
                self.problems.append(source.problem(path, "this seed has no url", 'as in url = "https://example.org/"'))
                self.refused.add(name)
                continue
            try:
                known = {key: value for key, value in table.items() if key in table_keys(name)}
                found.append(TABLES[name].model_validate(known, context=source.folder))
            except ValidationError as error:
                self.problems += _problems_of(path, source, table_keys(name), error)
                self.refused.add(name)
        self.problems += _twice(name, found, source)
        self.tables[name], self.sources[name] = found, source

    def _places(self, name: str) -> tuple[str, ...]:
        """Where the tables of a name are."""
        source = self.sources.get(name)
        return () if source is None else tuple(source.location((name, n)) for n in range(len(self.tables[name])))

    def _take_files(self, path: Path) -> None:
        files = [(path, path.name)]
        try:
            files += conf_d(path)
        except ConfigurationError as error:
            self.problems += error.problems
            self.is_whole = False
        for file, short_name in files:
            try:
                self._take(read_toml(file, short_name).given())
            except ConfigurationError as error:
                self.problems += error.problems
                self.is_whole = False

    def _seeds(self) -> tuple[SeedFile, ...]:
        files: list[SeedFile] = []
        for number, file in enumerate(self.sections["crawl"].seed_files):
            try:
                found, problems = check_seed_file(Path(file), self.sections["scope"].hosts[0])
                files.append(found)
            except OSError as error:
                problems = [self._unreadable("crawl.seed_files", file, error, number)]
            self.problems += problems
            self.refused |= {"crawl.seed_files"} if problems else set()
        return tuple(files)

    def _secrets(self) -> Secrets:
        file = self.sections["identity"].secrets
        if file is None:
            return Secrets()
        try:
            secrets, problems = read_secrets(Path(file))
        except OSError as error:
            secrets, problems = Secrets(), [self._unreadable("identity.secrets", file, error)]
        self.problems += problems
        return secrets

    def _unreadable(self, key: str, file: str, error: OSError, *inner: int) -> Problem:
        message = f"{key} {file}: cannot be read: {error.strerror}"
        return self.sources[key].problem((*_path(key), *inner), message)

    def _locations_of_patterns(self) -> Iterator[tuple[str, tuple[str, ...]]]:
        for name in ("include", "exclude"):
            if source := self.sources.get(f"scope.{name}"):
                patterns = getattr(self.sections["scope"], name)
                yield name, tuple(source.location(("scope", name, number)) for number in range(len(patterns)))

    def _take_findings(self, settings: Settings, mode: Mode, path: Path | None) -> None:
        for finding in findings(settings, mode):
            # Findings about refused values would only repeat the problem.
            if self.is_whole and self.refused.isdisjoint(finding.keys):
                # It is located at the first key that was given, or else in the file as a whole.
                key = next((key for key in finding.keys if key in self.sources), "")
                source = self.sources.get(key) or ValueSource(str(path or ""), "")
                problem = source.problem((*_path(key), *finding.inner), finding.message, finding.hint)
                self.problems.append(replace(problem, is_warning=finding.is_warning))


def _twice(name: str, tables: Sequence[Section], source: ValueSource) -> Iterator[Problem]:
    """Problems with what is in two tables, and may be in one only."""
    places: dict[str, str] = {}
    given: list[tuple[str, tuple[str | int, ...]]]
    for number, table in enumerate(tables):
        match table:
            case OverrideSection():
                given = [(pattern, ("hosts", index)) for index, pattern in enumerate(table.hosts)]
            case SeedSection(url=url):
                given = [(parse_seed(url)[0], ("url",))]
            case _:
                given = []
        for value, inner in given:
            path = (name, number, *inner)
            if value in places:
                subject = f"an entry of {name}.{inner[0]}" if len(inner) > 1 else f"{name}.{inner[0]}"
                where = "an override" if name == OVERRIDE else "a seed"
                message = f'{subject}, "{value}", is in {where} before ({places[value]})'
                yield source.problem(path, message, f"put its keys into one {name}")
            places.setdefault(value, source.location(path))


# Why keys of [[override]] are not for URLs.
_A_DELAY: Final = "a delay is between two requests to one host, whatever their URLs"
_OF_A_HOST: Final = {
    "enabled": "it switches whole hosts off",
    "delay": _A_DELAY,
    "max_crawl_delay": _A_DELAY,
    "connections_per_host": _A_DELAY,
    "adaptive": _A_DELAY,
    "robots": "a robots.txt is that of a whole host",
    "max_urls": "it is the number of URLs of a host",
    "headers": "they are sent to whole hosts",
    **dict.fromkeys(
        ("first_byte_timeout", "read_timeout", "total_timeout", "min_rate", "max_body", "content_types"),
        "exchanges with a host have the same limits",
    ),
    "bandwidth_per_host": "it is that of a whole host",
}
_OF_A_URL: Final = {"include": "scope.hosts lists the hosts in scope", "exclude": "for hosts write enabled = false"}


def _problems_of_override(table: Mapping[str, object], path: KeyPath, source: ValueSource) -> Iterator[Problem]:
    """Problems of one [[override]] with what it is for, and with keys that are not for that."""
    if "hosts" in table and "urls" in table:
        hint = 'write two overrides; a pattern of urls may begin with a host, as in "example.org/archive/**"'
        yield source.problem((*path, "urls"), "an override is for hosts or for urls, not for both", hint, at_key=True)
        return
    if "urls" in table and not table["urls"]:
        hint = 'as in ["example.org/archive/**", "**.pdf"]'
        yield source.problem((*path, "urls"), "override.urls must have at least one pattern", hint)
    elif "urls" not in table and "hosts" not in table:
        message, hint = "this override names neither hosts nor urls", 'as in hosts = ["example.org", "*.example.org"]'
        yield source.problem(path, message, hint)
    elif "urls" not in table and not table["hosts"]:
        message, hint = "override.hosts must name at least one host", 'as in ["example.org", "*.example.org"]'
        yield source.problem((*path, "hosts"), message, hint)
    kind, others = ("urls", _OF_A_HOST) if "urls" in table else ("hosts", _OF_A_URL)
    for name in (name for name in table if name in others):
        message = f"override.{name} is for urls" if kind == "hosts" else f"override.{name} is for hosts: {others[name]}"
        yield source.problem((*path, name), message, others[name] if kind == "hosts" else _hint(name), at_key=True)
    if table.keys() == {kind}:
        names = ", ".join(name for name in table_keys(OVERRIDE) if name not in ("hosts", "urls", *others))
        yield source.problem(path, "this override changes nothing", f"its keys are {names}")
    if table.get("include") is True and table.get("exclude") is True:
        hint = "leave one of them out"
        yield source.problem(
            (*path, "exclude"), "override.include and override.exclude are both true", hint, at_key=True
        )


def _hint(name: str) -> str:
    return "for urls write exclude = true" if name == "enabled" else "give it in an [[override]] with hosts"


def _problems_of(
    above: KeyPath, source: ValueSource, named: Mapping[str, ConfigurationKey], error: ValidationError
) -> list[Problem]:
    """The problems of the table at the path `above`, whose keys are `named`."""
    problems = []
    for detail in error.errors(include_url=False):
        location = detail["loc"]
        key = named[str(location[0])]
        refused = refusal(detail, key.kind)
        at_key = location[-1] == "[key]"  # how pydantic marks the key of a table
        inner = location[:-1] if at_key else location
        subject = f"a key of {key}" if at_key else f"an entry of {key}" if len(inner) > 1 else str(key)
        problems.append(source.problem((*above, *inner), f"{subject} {refused}", refused.hint, at_key=at_key))
    return problems
