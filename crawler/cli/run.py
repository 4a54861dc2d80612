"""`crawler run -c FILE`: the daemon, in the foreground, for systemd."""

import faulthandler
import os
from pathlib import Path

import click

from crawler.cli.failures import not_written, say
from crawler.cli.options import config_option, load_settings, override_option
from crawler.core.enums import Exit


@click.command(name="run")
@config_option(required=True)
@override_option
def command(config: Path, overrides: tuple[str, ...]) -> int:
    """Crawl until told to stop. The first SIGTERM drains, the second ends at once; SIGHUP reloads."""
    from crawler.daemon import note_hangups

    note_hangups()
    from crawler.app import View, run
    from crawler.settings.loading import load

    faulthandler.enable()  # the watchdog's SIGABRT then says on stderr where every thread stands
    settings = load_settings(config, overrides, "run").settings
    result = run(
        settings,
        mode="run",
        view=View(console=True, tell=say),
        configuration=str(config),
        read_again=lambda: load(config, overrides, os.environ, "run"),
    )
    if result.output_problems or result.gone:
        return not_written(result.output_problems, unstored=result.unstored, gone=result.gone)
    return Exit.OK
