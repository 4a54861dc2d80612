"""Commands that the running daemon obeys: pause, resume, stop. They speak over its control socket.

What each does is in `admin/commands.py`; here are its options and the words for its answer.
"""

from pathlib import Path

import click

from crawler.cli.daemon import reach
from crawler.cli.failures import say
from crawler.cli.place import place_options
from crawler.core.enums import Exit

STOP_S = 3_600.0  # `stop --wait`: longer than any drain


@click.command(name="pause")
@place_options
def pause(config: Path | None, overrides: tuple[str, ...], output: Path | None) -> int:
    """Ask for nothing new until `crawler resume`; what is in flight is finished. A restart ends the pause."""
    with reach(config, overrides, output) as control:
        answer = control.call("pause")
    click.echo("paused" if answer["changed"] else "it was paused already")
    return Exit.OK


@click.command(name="resume")
@place_options
def resume(config: Path | None, overrides: tuple[str, ...], output: Path | None) -> int:
    """Go on after `crawler pause`."""
    with reach(config, overrides, output) as control:
        answer = control.call("resume")
    if answer["state"] == "paused":
        click.echo("resumed; it stays paused until it can write again: see `crawler status`")
    else:
        click.echo("resumed" if answer["changed"] else "it was not paused")
    return Exit.OK


@click.command(name="stop")
@place_options
@click.option("--wait", is_flag=True, help="Return when it has ended.")
def stop(config: Path | None, overrides: tuple[str, ...], output: Path | None, wait: bool) -> int:
    """Finish what is in flight, store it, and end: what SIGTERM does."""
    with reach(config, overrides, output) as control:
        answer = control.call("stop")
        if not answer["changed"]:
            say("it is stopping already")
        if wait and not control.wait_for_end(STOP_S):
            say("it has not ended")
            return Exit.UNREACHABLE
    click.echo("stopped" if wait else f"stopping; {answer['in_flight']} in flight")
    return Exit.OK
