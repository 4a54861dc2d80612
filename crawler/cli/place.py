"""Options that several commands share, and by which a command finds its crawl: `-c FILE`, `--output DIR`.

Invariants: a mistake in the configuration does not hide a crawl whose place it still names; a daemon that does not run
is exit code 69, whatever is missing.
"""

import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import click
import orjson

from crawler.admin.control_client import Control, Unreachable
from crawler.cli.output import say
from crawler.core.formatting import count
from crawler.core.options import Rules
from crawler.output_directory import Place, announced, find
from crawler.settings.configuration_errors import ConfigurationError, Problem
from crawler.settings.loading import Loaded, load, load_place
from crawler.settings.settings import Mode

Decorated = TypeVar("Decorated", bound=Callable[..., Any])


def config_option(*, required: bool = False) -> Callable[[Decorated], Decorated]:
    """`-c FILE`."""
    return click.option(
        "-c", "--config", "config", type=click.Path(path_type=Path), required=required, help="Configuration (TOML)."
    )


def _complete_key(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[str]:
    """The keys of the configuration, with the "=" that follows."""
    from crawler.settings.schema import keys

    return [f"{key}=" for key in keys() if key.startswith(incomplete)]


def override_option(function: Decorated) -> Decorated:
    """`-o KEY=VALUE`, repeatable."""
    return click.option(
        "-o",
        "overrides",
        metavar="KEY=VALUE",
        multiple=True,
        shell_complete=_complete_key,
        help='One value of it, e.g. -o politeness.delay="500ms".',
    )(function)


def load_settings(config: Path | None, overrides: tuple[str, ...], mode: Mode) -> Loaded:
    """Read the configuration; warnings go to stderr. Raises ConfigurationError."""
    loaded = load(config, overrides, os.environ, mode)
    for warning in loaded.warnings:
        say(f"warning: {warning}")
    return loaded


def refuse_files(urls: Iterable[str], instead: str) -> None:
    """Raise UsageError for a URL that is the name of a file here, unless it could be that of a host as well: its seeds
    were meant. `instead` says how they are named.
    """
    for text in urls:
        if "://" in text or not Path(text).is_file():
            continue
        from publicsuffixlist import PublicSuffixList  # some 100 ms, spent where there is such a file only

        host = text.partition("/")[0]
        if host.startswith(".") or PublicSuffixList(accept_unknown=False).publicsuffix(host) is None:
            raise click.UsageError(f"{text} is a file here: {instead.format(text)}; https://{text} would be a URL")
        say(f"warning: {text} is also the name of a file here; taken for a URL")


@dataclass(frozen=True, slots=True)
class Located:
    """A crawl that was found. `rules` are those to judge by, None if nothing tells them; `rules_from` says whose they
    are; `differs`: the file's are not those that the running crawl has in force.
    """

    place: Place
    rules: Rules | None
    rules_from: str
    differs: bool = False


def place_options(function: Decorated) -> Decorated:
    """`-c FILE`, `-o KEY=VALUE`, `--output DIR`."""
    output = click.option(
        "--output", type=click.Path(path_type=Path, readable=False), help="Output directory of the crawl."
    )
    decorated: Decorated = config_option()(override_option(output(function)))
    return decorated


def locate(
    config: Path | None, overrides: tuple[str, ...], output: Path | None, *, running: bool = False, quiet: bool = False
) -> Located:
    """Find the crawl. What is wrong with the configuration elsewhere is a warning on stderr, unless `quiet`. `running`:
    only one that runs is of any use.

    Raises UsageError if none is named, ConfigurationError where the configuration does not say where, OSError if there
    is none.
    """
    if config is None and output is None:
        raise click.UsageError("name the crawl by its configuration (-c FILE) or its output directory (--output DIR)")
    if config is None:
        assert output is not None
        return _as_it_left_it(find(output))
    if output is not None:
        overrides = (*overrides, f"output.directory={orjson.dumps(str(output)).decode()}")  # a JSON string is TOML too
    tell = (lambda _: None) if quiet else say
    is_named = output is not None or any(one.partition("=")[0].strip() == "output.directory" for one in overrides)
    try:
        settings, problems = load_place(config, overrides, os.environ)
    except ConfigurationError as error:
        place = find(output) if output is not None else None if is_named else _announced(config)
        if place is None:
            words = "so the place of the crawl is not known: name its directory with --output DIR"
            raise ConfigurationError([*error.problems, Problem("", 0, 0, words)]) from None
        tell(_warning(error.problems, config))
        return _as_it_left_it(place)
    try:
        settings = settings.at_usual_output()
        place = find(
            settings.output_directory,
            frontier=settings.frontier_path,
            logs=settings.log_directory,
            socket=settings.control_socket,
        )
    except OSError:
        place = None if is_named else _announced(config)
        if place is None:
            raise
        tell(f"{config} names {settings.output_directory}; the crawler that was started with it is in {place.output}")
    else:
        runs_here = place.pid() is not None and place.configuration == str(config.resolve())
        if running and not is_named and not runs_here and (other := _announced(config)) is not None:
            tell(f"{config} names {place.output}; the crawler that was started with it is in {other.output}")
            place = other
    if problems:
        tell(_warning(problems, config))
        return _as_it_left_it(place)
    said = settings.rules()
    if place.rules is not None and place.pid() is not None:
        return Located(place, place.rules, "the running crawl", differs=said != place.rules)
    return Located(place, said, config.name)


def _as_it_left_it(place: Place) -> Located:
    """By run.json alone."""
    return Located(place, place.rules, "run.json")


def _announced(config: Path) -> Place | None:
    """The crawl that the daemon with this configuration does, wherever that is. Raises UsageError if several do."""
    outputs = announced(config, os.environ)
    if len(outputs) > 1:
        named = " and ".join(str(one) for one in outputs)
        raise click.UsageError(f"several crawlers were started with {config}, in {named}: name one with --output DIR")
    return find(outputs[0]) if outputs else None


def _warning(problems: Sequence[Problem], config: Path) -> str:
    more = f", and {count(len(problems) - 1, 'mistake')} more" if len(problems) > 1 else ""
    return (
        f"warning: {problems[0].headline}{more} (crawler check -c {config} lists all); "
        "using what the crawl itself wrote at its last start or reload"
    )


def reach(config: Path | None, overrides: tuple[str, ...], output: Path | None, *, quiet: bool = False) -> Control:
    """A connection to the daemon; with neither a configuration nor a directory named, to that of this directory.
    `quiet`: what is wrong with the configuration has been said, or will be.

    Raises Unreachable, NotAllowed, and what `locate` raises.
    """
    if config is None and output is None and Path("run.json").exists():
        output = Path()
    try:
        place = locate(config, overrides, output, running=True, quiet=quiet).place
    except (FileNotFoundError, NotADirectoryError) as error:
        raise Unreachable(f"no crawler is running here: {error.filename}: {error.strerror}") from None
    return Control(place.socket)
