"""From layers to Settings: defaults < file < conf.d < environment < `-o`.

Checks every value of every layer, also those that a later layer replaces, and reports all problems of one load
together. A later layer replaces a key whole; lists and tables are not joined. Invariant: what is returned has passed
every check, and the origin of each key is known.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from pydantic import ValidationError

from crawler.fetch.options import Secrets
from crawler.settings.checks import findings
from crawler.settings.configuration_errors import ConfigurationError, Problem, in_order
from crawler.settings.kinds import refusal
from crawler.settings.schema import SECTIONS, keys
from crawler.settings.secrets import CREDENTIALS_DIRECTORY, credentials_file, read_secrets
from crawler.settings.seeds import read_seed_file
from crawler.settings.settings import Mode, Settings
from crawler.settings.show import DEFAULT_ORIGIN, Shown, masked
from crawler.settings.sources import Given, Named, ValueSource, conf_d, from_environment, from_overrides, read_toml

# What says where a crawl is, and what its usual directory is named after.
_PLACE_KEYS: Final = frozenset(("output.directory", "frontier.path", "log.directory", "admin.socket"))
_USUAL_PLACE_KEYS: Final = frozenset(("crawl.name", "crawl.seeds", "crawl.seed_files"))


@dataclass(frozen=True, slots=True)
class Loaded:
    """The result of a load. `origins` has every key: "crawler.toml:14", "-o politeness.delay", "default"."""

    settings: Settings
    origins: dict[str, str]
    warnings: list[str] = field(default_factory=list)

    def masked(self) -> list[Shown]:
        """Every key as `config show` prints it, secrets masked, in the order of the file."""
        return masked(self.settings, self.origins)


def load(path: Path | None, overrides: Sequence[str], environ: Mapping[str, str], mode: Mode) -> Loaded:
    """Read and check the configuration. Raises ConfigurationError with everything that is wrong."""
    read = _read(path, overrides, environ, mode)
    if read.problems:
        raise ConfigurationError(in_order(read.problems))
    sources = read.sources
    origins = {key: sources[key].place(tuple(key.split("."))) if key in sources else DEFAULT_ORIGIN for key in keys()}
    return Loaded(read.settings, origins, read.warnings)


def load_place(
    path: Path | None, overrides: Sequence[str], environ: Mapping[str, str]
) -> tuple[Settings, list[Problem]]:
    """The configuration for who looks at a crawl or steers it: a mistake in it must not lock the operator out. Returns
    what else is wrong with it; if anything is, only the keys hold that say where the crawl is.

    Raises ConfigurationError where one of those cannot be read, nor a file whole, nor an override.
    """
    read = _read(path, overrides, environ, "crawl", with_secrets=False)
    problems = in_order(read.problems)
    needed = _PLACE_KEYS if "output.directory" in read.sources else _PLACE_KEYS | _USUAL_PLACE_KEYS
    is_unnamed = not needed.isdisjoint(read.bad)
    if not read.is_whole or is_unnamed or any(problem.file.startswith("-o ") for problem in problems):
        raise ConfigurationError(problems)
    return read.settings, problems


@dataclass(frozen=True, slots=True)
class _Read:
    """What became of the layers. `bad`: keys whose last value cannot be; `is_whole`: every file could be read."""

    settings: Settings
    sources: dict[str, ValueSource]
    bad: set[str]
    problems: list[Problem]
    warnings: list[str]
    is_whole: bool


def _read(
    path: Path | None, overrides: Sequence[str], environ: Mapping[str, str], mode: Mode, *, with_secrets: bool = True
) -> _Read:
    problems: list[Problem] = []
    unknown: list[Problem] = []
    given, all_read = _given(path, overrides, environ, problems, unknown)
    values: dict[str, object] = {}
    sources: dict[str, ValueSource] = {}
    bad: set[str] = set()
    for item in given:
        key = str(item)
        try:
            values[key] = _checked(item)
            sources[key] = item.source
            bad.discard(key)
        except ValidationError as error:
            problems += _problems_of(item, error)
            bad.add(key)
    seeds, seed_problems = _seeds(values, sources)
    problems += seed_problems
    if seed_problems:
        bad.add("crawl.seed_files")
    secrets, secret_problems = _secrets(values, sources) if with_secrets else (Secrets(), [])
    problems += secret_problems
    settings = _settings(values, sources, seeds, secrets)
    warnings = [problem.headline for problem in unknown]
    for finding in findings(settings, mode):
        # What rests on a value that could not be read would only be noise beside the real problem.
        if not all_read or not bad.isdisjoint(finding.keys):
            continue
        problem = _shown_at(finding.keys, finding.message, finding.hint, sources, path)
        if finding.is_warning:
            warnings.append(problem.headline + (f" ({finding.hint})" if finding.hint else ""))
        else:
            problems.append(problem)
    return _Read(settings, sources, bad, problems, warnings, all_read)


def _given(
    path: Path | None,
    overrides: Sequence[str],
    environ: Mapping[str, str],
    problems: list[Problem],
    warnings: list[Problem],
) -> tuple[list[Given], bool]:
    """What each layer gives, the weakest first, and whether every file could be read."""
    given: list[Given] = []
    unread = 0
    handed_over = credentials_file(environ)
    if handed_over is not None:
        place = f"environment {CREDENTIALS_DIRECTORY}"
        given.append(Given("identity", "secrets", str(handed_over), Named(place, place)))
    files: list[tuple[Path, str]] = []
    if path is not None:
        files.append((path, path.name))
        try:
            files += conf_d(path)
        except ConfigurationError as error:
            problems += error.problems
            unread += 1
    for file, short_name in files:
        try:
            given += read_toml(file, short_name).given(problems)
        except ConfigurationError as error:
            problems += error.problems
            unread += 1
    given += from_environment(environ, problems, warnings)
    given += from_overrides(overrides, problems)
    return given, not unread


def _checked(item: Given) -> object:
    """The value as the model keeps it. Raises pydantic's ValidationError."""
    model = SECTIONS[item.section].model_validate({item.name: item.value}, context=item.source.folder)
    value: object = getattr(model, keys()[str(item)].attribute)
    return value


def _problems_of(item: Given, error: ValidationError) -> list[Problem]:
    problems = []
    for detail in error.errors(include_url=False):
        location = detail["loc"]
        refused = refusal(detail, keys()[str(item)].kind)
        at_key = location[-1] == "[key]"  # pydantic's word for a table's key, as against its value
        inner = tuple(location[:-1]) if at_key else tuple(location)
        subject = f"a key of {item}" if at_key else f"an entry of {item}" if len(inner) > 1 else str(item)
        place = (item.section, *inner)
        problems.append(item.source.problem(place, f"{subject} {refused}", refused.hint, at_key=at_key))
    return problems


def _seeds(values: Mapping[str, object], sources: Mapping[str, ValueSource]) -> tuple[list[str], list[Problem]]:
    seeds: list[str] = []
    problems: list[Problem] = []
    files = values.get("crawl.seed_files", ())
    for number, file in enumerate(files if isinstance(files, tuple) else ()):
        try:
            found, faults = read_seed_file(Path(file))
        except OSError as error:
            message = f"crawl.seed_files {file}: cannot be read: {error.strerror}"
            problems.append(sources["crawl.seed_files"].problem(("crawl", "seed_files", number), message))
        else:
            seeds += found
            problems += faults
    return seeds, problems


def _secrets(values: Mapping[str, object], sources: Mapping[str, ValueSource]) -> tuple[Secrets, list[Problem]]:
    path = values.get("identity.secrets")
    if not isinstance(path, str):
        return Secrets(), []
    try:
        return read_secrets(Path(path))
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        message = f"identity.secrets {path}: cannot be read: {getattr(error, 'strerror', None) or error}"
        return Secrets(), [sources["identity.secrets"].problem(("identity", "secrets"), message)]


def _settings(
    values: Mapping[str, object], sources: Mapping[str, ValueSource], seeds: Sequence[str], secrets: Secrets
) -> Settings:
    tables: dict[str, dict[str, object]] = {section: {} for section in SECTIONS}
    for dotted, value in values.items():
        key = keys()[dotted]
        tables[key.section][key.name] = value
    parts: dict[str, Any] = {section: model.model_validate(tables[section]) for section, model in SECTIONS.items()}
    places = {}
    for name in ("include", "exclude"):
        if source := sources.get(f"scope.{name}"):
            places[name] = tuple(source.place(("scope", name, i)) for i in range(len(getattr(parts["scope"], name))))
    return Settings(**parts, file_seeds=tuple(seeds), secrets=secrets, pattern_places=places)


def _shown_at(
    about: Sequence[str], message: str, hint: str, sources: Mapping[str, ValueSource], path: Path | None
) -> Problem:
    """At the first of the keys that was given; failing that, in the file as a whole."""
    for key in about:
        if key in sources:
            return sources[key].problem(tuple(key.split(".")), message, hint)
    return Named(str(path) if path is not None else "", "").problem((), message, hint)
