"""`crawler block HOST` and `crawler unblock HOST`: for complaints. The running daemon obeys at once, and remembers."""

from pathlib import Path

import click
import orjson

from crawler.cli.daemon import reach
from crawler.cli.failures import say
from crawler.cli.place import place_options
from crawler.cli.streams import write_data
from crawler.core.vocabulary import Exit


@click.command(name="block")
@click.argument("name", metavar="HOST", required=False)
@place_options
@click.option("--reason", default="", help="Why, for whoever asks later.")
@click.option("--host-only", is_flag=True, help="This host alone, and not what is below it.")
@click.option("--list", "as_list", is_flag=True, help="Print what is blocked, a JSON object a line.")
def block(
    config: Path | None,
    overrides: tuple[str, ...],
    output: Path | None,
    name: str | None,
    reason: str,
    host_only: bool,
    as_list: bool,
) -> int:
    """Stop every request to HOST and all hosts below it, now and after every restart.

    What is in flight is cut off. URLs of it stay in the store, and are fetched should it be unblocked.
    """
    if as_list == (name is not None):
        raise click.UsageError("name one HOST, or ask for the --list")
    with reach(config, overrides, output) as control:
        if as_list:
            for one in control.call("blocks"):
                write_data(orjson.dumps(one) + b"\n")
            return Exit.OK
        answer = control.call("block", {"name": name, "reason": reason, "host_only": host_only})
    below = " and all below it" if answer["kind"] == "domain" else ""
    if not answer["new"]:
        say(f"{answer['name']} was blocked already")
    click.echo(f"blocked {answer['name']}{below}: {answer['hosts']} hosts, {answer['connections_cut']} connections cut")
    return Exit.OK


@click.command(name="unblock")
@click.argument("name", metavar="HOST")
@place_options
def unblock(config: Path | None, overrides: tuple[str, ...], output: Path | None, name: str) -> int:
    """Let a blocked HOST be asked again. Exit code 1 if it was not blocked."""
    with reach(config, overrides, output) as control:
        answer = control.call("unblock", {"name": name})
    click.echo(f"unblocked {answer['name']}: {answer['hosts']} hosts go on")
    return Exit.OK
