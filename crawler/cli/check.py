"""`crawler check -c FILE`: is this configuration right?"""

import os
from pathlib import Path

import click

from crawler.cli.failures import say
from crawler.cli.look import counted
from crawler.cli.options import config_option, override_option


@click.command(name="check")
@config_option(required=True)
@override_option
@click.option("--no-environment", is_flag=True, help="Leave CRAWLER_… variables out.")
def command(config: Path, overrides: tuple[str, ...], no_environment: bool) -> int:
    """Validate a configuration as `crawler run` would read it."""
    from crawler.settings.loading import load

    loaded = load(config, overrides, {} if no_environment else os.environ, "run")
    for warning in loaded.warnings:
        say(f"warning: {warning}")
    click.echo(
        f"{config}: ok, {counted(len(loaded.settings.seeds), 'seed')}, output {loaded.settings.output_directory}"
    )
    return 0
