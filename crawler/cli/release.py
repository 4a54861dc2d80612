"""`crawler release HOST`: suspects of a host are fetched after all, and their templates never suspected again."""

import time
from pathlib import Path
from typing import Any

import click

from crawler.admin.control_client import Control
from crawler.cli.failures import say
from crawler.cli.look import counted
from crawler.cli.place import locate, place_options
from crawler.cli.upkeep import with_store
from crawler.core.enums import Exit
from crawler.engine import operations
from crawler.engine.scheduling.blocklist import blocked_name
from crawler.frontier.base import Frontier, Recovered


@click.command(name="release")
@click.argument("name", metavar="HOST")
@click.option("--template", help="This one only, as `crawler hosts` and the log name it; else all of the host.")
@place_options
def release(
    config: Path | None, overrides: tuple[str, ...], output: Path | None, name: str, template: str | None
) -> int:
    """Fetch what looks like an endless part of HOST after all. Exit code 1 if there is none."""
    located = locate(config, overrides, output)
    host = blocked_name(name)
    if located.place.pid() is not None:
        with Control(located.place.socket) as control:
            answer = control.call("release", {"name": host} | ({} if template is None else {"template": template}))
    else:

        async def store(frontier: Frontier, recovered: Recovered) -> dict[str, Any]:
            host_ids = {row.id for row in recovered.hosts if row.origin.host == host}
            released, _ = await operations.release(frontier, host_ids, template, time.time())
            return {"templates": released}

        answer = with_store(located, store)
    for one, urls in answer["templates"].items():
        click.echo(f"released {one}: {counted(urls, 'URL')} queued")
    if not answer["templates"]:
        say(f"no URL template of {host} is suspected" if template is None else f"{template} is not suspected")
    return Exit.OK if answer["templates"] else Exit.FINDINGS
