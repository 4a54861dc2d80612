"""Command-line options that several commands share."""

import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, TypeVar

import click

from crawler.cli.failures import say
from crawler.settings.loading import Loaded, load
from crawler.settings.settings import Mode

F = TypeVar("F", bound=Callable[..., Any])


def config_option(*, required: bool = False) -> Callable[[F], F]:
    """`-c FILE`."""
    return click.option(
        "-c", "--config", "config", type=click.Path(path_type=Path), required=required, help="Configuration (TOML)."
    )


def _complete_key(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[str]:
    """The keys of the configuration, with the "=" that follows."""
    from crawler.settings.schema import keys

    return [f"{key}=" for key in keys() if key.startswith(incomplete)]


def override_option(function: F) -> F:
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
