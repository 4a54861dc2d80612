"""The options by which a command finds a crawl: `-c FILE`, `--output DIR`.

Joins what the configuration says with what the crawl itself left in run.json. It does not look into either's store.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import click
import orjson

from crawler.cli.options import config_option, override_option
from crawler.inspect.place import Place, find
from crawler.inspect.rules import Rules

F = TypeVar("F", bound=Callable[..., Any])


@dataclass(frozen=True, slots=True)
class Located:
    """A crawl that was found. `rules` are those to judge by, None if nothing tells them; `rules_from` says whose they
    are; `differs`: the file's are not those that the running crawl has in force.
    """

    place: Place
    rules: Rules | None
    rules_from: str
    differs: bool = False


def place_options(function: F) -> F:
    """`-c FILE`, `-o KEY=VALUE`, `--output DIR`."""
    output = click.option("--output", type=click.Path(path_type=Path), help="Output directory of the crawl.")
    decorated: F = config_option()(override_option(output(function)))
    return decorated


def locate(config: Path | None, overrides: tuple[str, ...], output: Path | None) -> Located:
    """Find the crawl. Raises UsageError if none is named, ConfigurationError, OSError if there is none."""
    if config is None and output is None:
        raise click.UsageError("which crawl? Name its configuration (-c FILE) or its output directory (--output DIR)")
    if config is None:
        assert output is not None
        place = find(output)
        return Located(place, place.rules, "run.json")
    from crawler.rundir import at_usual_output, rules_of
    from crawler.settings.loading import load

    if output is not None:
        overrides = (*overrides, f"output.directory={orjson.dumps(str(output)).decode()}")  # a JSON string is TOML too
    # Its warnings were told to who started the crawl; who looks at one has other worries.
    settings = at_usual_output(load(config, overrides, os.environ, "crawl").settings)
    place = find(
        settings.output_directory,
        frontier=settings.frontier_path,
        logs=settings.log_directory,
        socket=settings.control_socket,
    )
    said = rules_of(settings)
    if place.rules is not None and place.pid() is not None:
        return Located(place, place.rules, "the running crawl", differs=said != place.rules)
    return Located(place, said, config.name)
