"""`crawler check -c FILE`: is this configuration right, and may the service that runs it do what it says?"""

import os
import sys
from pathlib import Path

import click

from crawler.cli.failures import say
from crawler.cli.options import config_option, override_option
from crawler.core.enums import Exit
from crawler.core.formatting import count


@click.command(name="check")
@config_option(required=True)
@override_option
@click.option("--no-environment", is_flag=True, help="Leave CRAWLER_… variables out.")
def command(config: Path, overrides: tuple[str, ...], no_environment: bool) -> int:
    """Validate a configuration as `crawler run` would read it.

    Where a unit of systemd runs this configuration, also say what the unit does not let the service do, and how it
    would: directories to write to, files to read, the secrets that it is handed.
    """
    from crawler.cli.refusals import refusals
    from crawler.cli.unit import unit_of
    from crawler.settings.loading import load

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
            say(f"to let it, `systemctl edit {unit.name}` with these lines, then `systemctl daemon-reload`:")
            print("\n".join(f"    {line}" for line in ("[Service]", *found.drop_in)), file=sys.stderr)  # noqa: T201
        for line in found.commands:
            say(f"to let it: {line}")
        return Exit.CONFIGURATION
    click.echo(
        f"{config}: ok, {count(len(loaded.settings.seeds), 'seed')}, output {loaded.settings.output_directory}"
        + (f", run by {unit.name}" if unit is not None else "")
    )
    return Exit.OK
