"""Commands about the configuration: `crawler check` validates it, `crawler config` shows it and writes its schema."""

import os
import sys
from pathlib import Path

import click
import orjson

from crawler.cli.crawl_options import config_option, load_settings, override_option
from crawler.cli.default_crawl import default_configuration, require_configuration
from crawler.cli.output import say, write_data
from crawler.core.enums import Exit
from crawler.core.formatting import count


@click.command(name="check")
@config_option
@override_option
@click.option("--no-environment", is_flag=True, help="Leave CRAWLER_… variables out.")
def check(config: Path | None, overrides: tuple[str, ...], no_environment: bool) -> int:
    """Validate a configuration as `crawler run` would read it.

    If a unit of systemd runs this configuration, also check what the unit allows: directories to write to, files to
    read, secrets. What is not allowed is printed with the lines and commands that allow it.
    """
    from crawler.cli.service.unit import refusals, unit_of
    from crawler.settings.loading import load

    config = require_configuration(config)
    environ = {} if no_environment else dict(os.environ)
    unit = unit_of(config)
    if unit is not None:
        environ |= unit.environment
        overrides = (*unit.overrides, *overrides)
    loaded = load(config, overrides, environ, "run")
    found = None if unit is None else refusals(unit, loaded, config)
    for warning in [*loaded.warnings, *(found.warnings if found else ())]:
        say(f"warning: {warning}")
    if unit is not None and found is not None and found.problems:
        print("\n".join(map(str, found.problems)), file=sys.stderr)  # noqa: T201 - as a ConfigurationError is shown
        if found.drop_in:
            say(f"to allow it, `systemctl edit {unit.name}` with these lines, then `systemctl daemon-reload`:")
            print("\n".join(f"    {line}" for line in ("[Service]", *found.drop_in)), file=sys.stderr)  # noqa: T201
        for line in found.commands:
            say(f"to allow it: {line}")
        return Exit.CONFIGURATION
    click.echo(
        f"{config}: ok, {count(len(loaded.settings.seeds), 'seed')}, output {loaded.settings.output_directory}"
        + (f", run by {unit.name}" if unit is not None else "")
    )
    return Exit.OK


@click.group(name="config")
def config_group() -> None:
    """Look at the configuration."""


@config_group.command(name="show")
@config_option
@override_option
@click.option("--default", is_flag=True, help="The annotated file with every key at its default.")
@click.option("--origin", is_flag=True, help="Say where each value came from.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a key.")
def show(config: Path | None, overrides: tuple[str, ...], default: bool, origin: bool, as_json: bool) -> int:
    """Print the effective values; secrets are masked."""
    if default:
        from crawler.settings.schema import example_text

        click.echo(example_text(), nl=False)
        return 0
    section = ""
    for shown in load_settings(default_configuration(config), overrides, "crawl").masked():
        if as_json:
            fields = {"key": shown.key, "value": shown.value, "origin": shown.origin, "restart": shown.restart}
            write_data(orjson.dumps(fields) + b"\n")
            continue
        head, _, name = shown.key.partition(".")
        if head != section:
            click.echo(f"{chr(10) if section else ''}[{head}]")
            section = head
        comment = "  # " + ", ".join(part for part in (shown.origin if origin else "", shown.note) if part)
        # what is not set has no value that TOML could hold: as a comment, the output stays a configuration
        line = f"{name} = {shown.text}" if shown.text else f"#{name} ="
        click.echo(f"{line}{comment if len(comment) > 4 else ''}")
    return 0


@config_group.command(name="schema")
def schema() -> int:
    """Print the JSON schema of the configuration, for editors."""
    from crawler.settings.schema import schema_text

    click.echo(schema_text(), nl=False)
    return 0
