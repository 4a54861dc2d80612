"""The options `-c FILE`, `-o KEY=VALUE` and `--output DIR` of the commands, the crawl that they name, and options that
are short for a key. Without -c and --output: which crawl, or configuration, a command means.

Invariants: a mistake in the configuration does not hide a crawl whose paths it still gives; if no daemon runs, the exit
code is 69, whatever is missing. What is taken without being named is printed on stderr. A command that steers or
changes a crawl takes $CRAWLER_CONFIG, and nothing that is only near: its error names the command that would do it. A
file is not taken if another user may have put it there.
"""

import asyncio
import os
import pwd
import shlex
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final, TypeVar

import click

from crawler.admin.control_socket import Control, Unreachable
from crawler.admin.fleet_commands import FleetControl
from crawler.cli.output import say
from crawler.core.formatting import count, shortened
from crawler.core.options import Rules
from crawler.fetch.options import Secrets
from crawler.output_directory import CrawlPaths, find_paths, outputs_running
from crawler.settings.configuration_errors import ConfigurationError, Problem
from crawler.settings.loading import Loaded, load, load_paths
from crawler.settings.schema import plain_toml
from crawler.settings.secrets import read_secrets
from crawler.settings.settings import Mode, Settings

VARIABLE: Final = "CRAWLER_CONFIG"
SYSTEM_CONFIGURATION: Final = Path("/etc/crawler/crawler.toml")
_CONFIGURATION: Final = Path("crawler.toml")
_CRAWLS: Final = Path("crawl")  # where `crawler crawl` puts crawls without output.directory
_LISTED: Final = 10

_NAME_IT: Final = "name the crawl by its configuration (-c FILE) or its output directory (--output DIR)"


@dataclass(frozen=True, slots=True)
class _Default:
    """A configuration or an output directory; `why` it, for a person."""

    config: Path | None
    output: Path | None
    why: str

    @property
    def options(self) -> list[str]:
        return ["-c", str(self.config)] if self.config is not None else ["--output", str(self.output)]


def default_crawl(
    config: Path | None, overrides: tuple[str, ...], output: Path | None, *, changes: bool = False, here: bool = False
) -> tuple[Path | None, Path | None]:
    """Configuration and output directory as given, or the default of one of the two.

    `changes`: the command steers or changes the crawl; `here`: all the same it takes the crawl in whose directory it is
    called, if that belongs to this user. Raises UsageError if there is no default.
    """
    if config is not None or output is not None:
        return config, output
    found = _from_environment()
    if found is None:
        is_named = any(one.partition("=")[0].strip() == "output.directory" for one in overrides)
        found = (None if is_named else _here()) or _configuration_file() or (None if is_named else _only_crawl())
        if found is None:
            raise click.UsageError(_NAME_IT)
        if changes and not (here and found.output == Path() and _stranger(Path("run.json")) is None):
            raise click.UsageError(f"{_NAME_IT}{_found_here(found)}")
    say(f"using {found.why}")
    return found.config, found.output


def default_configuration(config: Path | None) -> Path | None:
    """The configuration as given, or the default; None if there is none."""
    if config is not None:
        return config
    found = _from_environment() or _configuration_file()
    if found is None:
        return None
    say(f"using {found.why}")
    return found.config


def no_seeds(config: Path | None) -> click.UsageError:
    """The error of `crawler crawl` without a URL, with the command for the configuration that is here."""
    found = None if config is not None else _from_environment() or _configuration_file()
    return click.UsageError(
        "no URL: name one, or put crawl.seeds into the configuration (-c FILE)" + (_found_here(found) if found else "")
    )


def require_configuration(config: Path | None) -> Path:
    """The configuration as given, or the default. Raises UsageError if there is none."""
    found = default_configuration(config)
    if found is None:
        raise click.UsageError(
            f"name the configuration (-c FILE): ${VARIABLE} is not set, and there is neither ./{_CONFIGURATION} nor "
            f"{SYSTEM_CONFIGURATION} that can be read. `crawler init` writes one"
        )
    return found


def _found_here(found: _Default) -> str:
    return f". The one found here: {_with_options(found.options)}"


def _from_environment() -> _Default | None:
    given = os.environ.get(VARIABLE)
    return _Default(Path(given), None, f"{given} (${VARIABLE})") if given else None


def _here() -> _Default | None:
    if not Path("run.json").exists():
        return None
    return _Default(None, Path(), f"the crawl in this directory, {Path.cwd()}")


def _configuration_file() -> _Default | None:
    """The configuration in the current directory, or of the service. Raises UsageError for one of another user."""
    if _CONFIGURATION.exists():
        for path in (_CONFIGURATION, Path("conf.d")):
            if (stranger := _stranger(path)) is not None:
                raise click.UsageError(
                    f"./{path} belongs to {stranger}, neither to you nor to root, so it is used only if you name it: "
                    f"{_with_options(['-c', str(_CONFIGURATION)])}"
                )
        return _Default(_CONFIGURATION, None, f"./{_CONFIGURATION}")
    if os.access(SYSTEM_CONFIGURATION, os.R_OK):
        return _Default(SYSTEM_CONFIGURATION, None, str(SYSTEM_CONFIGURATION))
    return None


def _only_crawl() -> _Default | None:
    """The crawl below ./crawl. Raises UsageError if there are several."""
    try:
        crawls: dict[Path, Path] = {}
        for path in sorted((_CRAWLS, *_CRAWLS.iterdir()), key=lambda path: (path.is_symlink(), path)):
            if _is_crawl(path):
                crawls.setdefault(path.resolve(), path)  # a link to one of them is no other
        found = sorted(crawls.values())
    except OSError:
        return None
    if len(found) > 1:
        listed = ", ".join(map(str, found[:_LISTED])) + (", …" if found[_LISTED:] else "")
        example = _with_options(["--output", str(found[0])])
        raise click.UsageError(f"several crawls are here: {listed}. Name one with --output DIR, as in {example}")
    return _Default(None, found[0], f"{found[0]}, the only crawl in ./{_CRAWLS}") if found else None


def _is_crawl(path: Path) -> bool:
    return (path / "run.json").exists() or (path / "frontier.db").exists()


def _stranger(path: Path) -> str | None:
    """The owner of a file, or of the link to it, if that is neither this user nor root."""
    for status in (path.lstat, path.stat):
        try:
            owner = status().st_uid
        except FileNotFoundError:
            return None
        if owner not in (0, os.geteuid()):
            try:
                return f"user {pwd.getpwuid(owner).pw_name}"
            except KeyError:
                return f"user {owner}"
    return None


def _with_options(options: list[str]) -> str:
    """The command as it was called, with these options."""
    context = click.get_current_context()
    words = context.command_path.split()
    rest = list(context.find_root().obj or ())[len(words) - 1 :]
    return shlex.join([*words, *options, *rest])


Decorated = TypeVar("Decorated", bound=Callable[..., Any])


def config_option(function: Decorated) -> Decorated:
    """Add `-c FILE`."""
    return click.option("-c", "--config", "config", type=click.Path(path_type=Path), help="Configuration (TOML).")(
        function
    )


def _complete_key(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[str]:
    """The keys of the configuration that begin so, each with "="."""
    from crawler.settings.schema import keys

    return [f"{key}=" for key in keys() if key.startswith(incomplete)]


def override_option(function: Decorated) -> Decorated:
    """Add `-o KEY=VALUE`, repeatable."""
    return click.option(
        "-o",
        "overrides",
        metavar="KEY=VALUE",
        multiple=True,
        shell_complete=_complete_key,
        help='One value of the configuration, e.g. -o politeness.delay="500ms".',
    )(function)


class _WholeNumber(click.IntRange):
    name = "whole number"  # as it stands in a message


# Options of `crawler crawl` that are short for -o, with their keys. The keys stand in their help too.
_SHORTHANDS: Final = {
    "limit": "scope.max_urls",
    "depth": "scope.max_depth",
    "delay": "politeness.delay",
    "include": "scope.include",
    "exclude": "scope.exclude",
}


def shorthand_options(function: Decorated) -> Decorated:
    """Add `--limit`, `--depth`, `--delay`, `--include` and `--exclude`."""
    options = (
        click.option(
            "--limit",
            type=_WholeNumber(min=1),
            metavar="N",
            help="At most N URLs, images and style sheets among them, without robots.txt and probes, over the life of "
            "the output directory: scope.max_urls.",
        ),
        click.option(
            "--depth",
            type=_WholeNumber(min=0),
            metavar="N",
            help="At most N links from a URL given: scope.max_depth.",
        ),
        click.option(
            "--delay", metavar="TIME", help='Time between two requests to a site, e.g. "2s": politeness.delay.'
        ),
        click.option(
            "--include",
            multiple=True,
            metavar="PATTERN",
            help='Only URLs that match one, e.g. "/docs/**": scope.include. Repeatable.',
        ),
        click.option(
            "--exclude", multiple=True, metavar="PATTERN", help="No URL that matches one: scope.exclude. Repeatable."
        ),
    )
    for option in reversed(options):
        function = option(function)
    return function


def shorthand_overrides(given: Mapping[str, Any], overrides: Sequence[str]) -> list[str]:
    """The values of `shorthand_options` as overrides. Raises UsageError if one of their keys is given by -o as well."""
    keys = {override.partition("=")[0].strip() for override in overrides}
    found = []
    for name, key in _SHORTHANDS.items():
        value = given[name]
        if value is None or value == ():
            continue
        if key in keys:
            raise click.UsageError(f"--{name} and -o {key} are the same: give one of them")
        found.append(f"{key}={plain_toml(value) if isinstance(value, tuple) else value}")
    return found


def _shorthand_names(shorthands: Sequence[str]) -> dict[str, str]:
    """The option that was given, by the override that was made of it."""
    keys = {**_SHORTHANDS, "max-duration": "crawl.max_duration"}
    return {
        shortened(f"-o {one}"): f"--{name}"
        for one in shorthands
        for name, key in keys.items()
        if one.startswith(f"{key}=")
    }


def load_settings(
    config: Path | None, overrides: tuple[str, ...], mode: Mode, *, shorthands: Sequence[str] = ()
) -> Loaded:
    """Read the configuration; print warnings on stderr. `shorthands`: the overrides that were made of other options,
    which a message names. Raises ConfigurationError.
    """
    names = _shorthand_names(shorthands)
    try:
        loaded = load(config, overrides, os.environ, mode)
    except ConfigurationError as error:
        problems = [replace(one, file=names.get(one.file, one.file)) for one in error.problems]
        raise ConfigurationError(problems) from None
    for warning in loaded.warnings:
        override = next((one for one in names if warning.startswith(f"{one}:")), "")
        say(f"warning: {names.get(override, '')}{warning.removeprefix(override)}")
    return loaded


def refuse_file_names(urls: Iterable[str], advice: str) -> None:
    """Raise UsageError for a URL without a scheme that is the name of a file here. `advice` says how to crawl the seeds
    in the file.
    """
    for text in urls:
        if "://" not in text and os.path.isfile(text):  # noqa: PTH113 - of a name that is too long, is_file raises
            raise click.UsageError(f"{text} is a file here: {advice.format(text)}; https://{text} would be a URL")


@dataclass(frozen=True, slots=True)
class FoundCrawl:
    """A crawl with its rules, None if unknown; `rules_from` says where they are from. `differs`: the running crawl has
    other rules than the configuration. `has_seed`: whether a URL is a seed of the configuration, if that was read.
    `database`: DSN and password of its store, if that is in PostgreSQL.
    """

    paths: CrawlPaths
    rules: Rules | None
    rules_from: str
    differs: bool = False
    has_seed: Callable[[str], bool] = lambda url: False
    database: tuple[str, str | None] | None = field(default=None, repr=False)

    def with_file(self, *, is_kept: bool = False) -> "FoundCrawl":
        """The same crawl with its store in a SQLite file: one in PostgreSQL is copied to a temporary file, which goes
        when the command ends. `is_kept`: a crawl may go on with a copy of it. Raises FrontierError.
        """
        if self.database is None:
            return self
        from crawler.frontier.copying import export_to  # its library is an extra

        folder = Path(click.get_current_context().with_resource(TemporaryDirectory(prefix="crawler-store-")))
        path, lock = folder / "frontier.db", self.paths.frontier.with_name(self.paths.frontier.name + ".lock")
        (folder / "frontier.db.lock").symlink_to(lock.absolute())  # tells whether the crawl runs
        dsn, password = self.database
        asyncio.run(export_to(path, dsn, password=password, names_agents=not is_kept))
        return replace(self, paths=replace(self.paths, frontier=path))


def crawl_options(function: Decorated) -> Decorated:
    """Add `-c FILE`, `-o KEY=VALUE` and `--output DIR`."""
    output = click.option(
        "--output", type=click.Path(path_type=Path, readable=False), help="Output directory of the crawl."
    )
    decorated: Decorated = config_option(override_option(output(function)))
    return decorated


def find_crawl(
    config: Path | None,
    overrides: tuple[str, ...],
    output: Path | None,
    *,
    changes: bool = False,
    running: bool = False,
    quiet: bool = False,
) -> FoundCrawl:
    """Find the crawl that the options name, or the default; with `running`, prefer one that runs. `changes`: the
    command changes the crawl, and takes no default that it would have to guess. Mistakes in the configuration that do
    not concern its paths are a warning on stderr, unless `quiet`.

    Raises UsageError if the options name none, ConfigurationError if its paths cannot be read, OSError if it does not
    exist.
    """
    config, output = default_crawl(config, overrides, output, changes=changes)
    if config is None:
        assert output is not None
        return by_run_file(find_paths(output))
    if output is not None:
        overrides = (*overrides, f"output.directory={plain_toml(str(output))}")
    warn = (lambda _: None) if quiet else say
    is_named = output is not None or any(one.partition("=")[0].strip() == "output.directory" for one in overrides)
    try:
        settings, problems = load_paths(config, overrides, os.environ)
    except ConfigurationError as error:
        paths = find_paths(output) if output is not None else None if is_named else _running_with(config)
        if paths is None:
            message = "so the directory of the crawl is not known: name it with --output DIR"
            raise ConfigurationError([*error.problems, Problem("", 0, 0, message)]) from None
        warn(_warning(error.problems, config))
        return by_run_file(paths)
    try:
        settings = settings.with_default_output()
        paths = find_paths(
            settings.output_directory,
            frontier=settings.frontier_path,
            logs=settings.log_directory,
            socket=settings.control_socket,
            agent=settings.frontier.agent,
        )
    except OSError:
        is_shared = settings.frontier.store == "postgresql"
        try:
            paths = None if is_named else _running_with(config)
        except click.UsageError:
            if not is_shared:
                raise
            paths = None
        if paths is None and is_shared:  # its agents have other directories, here or on other machines
            rules, has_seed = settings.rules(), settings.engine_configuration("run").has_seed
            return FoundCrawl(settings.paths(), rules, config.name, has_seed=has_seed, database=_database(settings))
        if paths is None:
            raise
        warn(f"{config} names {settings.output_directory}; the crawler that was started with it is in {paths.output}")
    else:
        runs_here = paths.pid() is not None and paths.configuration == str(config.resolve())
        if running and not is_named and not runs_here and (other := _running_with(config)) is not None:
            warn(f"{config} names {paths.output}; the crawler that was started with it is in {other.output}")
            paths = other
    if problems:
        warn(_warning(problems, config))
        return by_run_file(paths)
    rules, has_seed = settings.rules(), settings.engine_configuration("run").has_seed
    database = _database(settings)
    if paths.rules is not None and paths.pid() is not None:
        return FoundCrawl(
            paths, paths.rules, "the running crawl", differs=rules != paths.rules, has_seed=has_seed, database=database
        )
    return FoundCrawl(paths, rules, config.name, has_seed=has_seed, database=database)


def by_run_file(paths: CrawlPaths) -> FoundCrawl:
    """The crawl with the rules of its run.json. A database is that of its configuration, or of the environment."""
    database = None
    if paths.is_database:
        configuration = None if paths.configuration is None else Path(paths.configuration)
        with suppress(ConfigurationError, OSError):
            database = _database(load_paths(configuration, (), os.environ)[0])
        database = database or ("", None)
    return FoundCrawl(paths, paths.rules, "run.json", database=database)


def _database(settings: Settings) -> tuple[str, str | None] | None:
    """DSN and password of a store in PostgreSQL."""
    if settings.frontier.store != "postgresql":
        return None
    path = settings.identity.secrets
    secrets = read_secrets(Path(path))[0] if path is not None else Secrets()
    return settings.frontier.dsn or "", secrets.database_password


def find_database(config: Path | None, overrides: tuple[str, ...], output: Path | None) -> tuple[str, str | None]:
    """DSN and password of the database of the crawl that the options name, or the default: no directory is needed.

    Raises UsageError if its store is a file.
    """
    config, output = default_crawl(config, overrides, output)
    if config is not None:
        database = _database(load_paths(config, overrides, os.environ)[0])
    else:
        assert output is not None
        database = by_run_file(find_paths(output)).database
    if database is None:
        raise click.UsageError("the store of this crawl is a file: only in a PostgreSQL database there are agents")
    return database


def _running_with(config: Path) -> CrawlPaths | None:
    """The crawl of the daemon that was started with this configuration. Raises UsageError if there are several."""
    outputs = outputs_running(config, os.environ)
    if len(outputs) > 1:
        named = " and ".join(str(one) for one in outputs)
        raise click.UsageError(f"several crawlers were started with {config}, in {named}: name one with --output DIR")
    return find_paths(outputs[0]) if outputs else None


def _warning(problems: Sequence[Problem], config: Path) -> str:
    more = f", and {count(len(problems) - 1, 'mistake')} more" if len(problems) > 1 else ""
    return (
        f"warning: {problems[0].headline}{more} (crawler check -c {config} lists all); "
        "using the run.json that the crawl wrote at its last start or reload"
    )


def connect_to_daemon(
    config: Path | None, overrides: tuple[str, ...], output: Path | None, *, quiet: bool = False
) -> Control:
    """Connect to the daemon of the crawl, or of the default. `quiet`: mistakes in the configuration are reported by the
    caller. Raises Unreachable, NotAllowed, and what `find_crawl` raises.
    """
    crawl = _running(config, overrides, output, changes=False, quiet=quiet)
    try:
        return Control(crawl.paths.socket)
    except Unreachable as error:
        if isinstance(control_of(crawl), FleetControl):
            words = f"no agent runs in {crawl.paths.output}: --output DIR names one, `crawler fleet` shows all"
            raise Unreachable(words) from None
        raise error from None


def connect_to_crawl(
    config: Path | None, overrides: tuple[str, ...], output: Path | None, *, quiet: bool = False
) -> Control | FleetControl:
    """The same for commands that steer the crawl: they take no other default than $CRAWLER_CONFIG and the crawl of the
    current directory. If no daemon runs here, and other agents of its database do, these are meant.
    """
    crawl = _running(config, overrides, output, changes=True, quiet=quiet)
    control = control_of(crawl) if crawl.database is not None else None
    return Control(crawl.paths.socket) if control is None else control


def _running(
    config: Path | None, overrides: tuple[str, ...], output: Path | None, *, changes: bool, quiet: bool
) -> FoundCrawl:
    config, output = default_crawl(config, overrides, output, changes=changes, here=True)
    try:
        return find_crawl(config, overrides, output, running=True, quiet=quiet)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise Unreachable(f"no crawler is running here: {error.filename}: {error.strerror}") from None


def control_of(crawl: FoundCrawl) -> Control | FleetControl | None:
    """What carries out commands: the daemon that runs here, or the agents of its database that run elsewhere; None if
    none runs.
    """
    if crawl.paths.pid() is not None:
        return Control(crawl.paths.socket)
    if crawl.database is None:
        return None
    from crawler.frontier.postgresql.fleet_control import living  # its library is an extra

    return FleetControl(*crawl.database) if asyncio.run(living(*crawl.database)) else None
