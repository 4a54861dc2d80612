"""`crawler fetch URL`: one URL fetched as a crawl with this configuration would fetch it, with every step shown."""

import sys
from pathlib import Path

import click
import orjson

from crawler.cli.output import say, write_data
from crawler.cli.place import config_option, load_settings, override_option
from crawler.core.enums import Exit
from crawler.core.formatting import duration


@click.command(name="fetch")
@click.argument("url")
@config_option()
@override_option
@click.option("--no-robots", is_flag=True, help="Do not ask for robots.txt: fetch the URL whatever it says.")
@click.option("--links", "all_links", is_flag=True, help="List every link; without, the first few.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object on stdout.")
def command(
    url: str, config: Path | None, overrides: tuple[str, ...], no_robots: bool, all_links: bool, as_json: bool
) -> int:
    """Fetch one URL and show every step of it, and what a crawl would make of the answer.

    robots.txt is asked first and obeyed. Nothing is stored. Exit code 1: no whole answer with a status below 400 came,
    or a crawl with this configuration would not ask for it.
    """
    import uvloop

    from crawler.trace.facts import facts
    from crawler.trace.terminal import show
    from crawler.trace.tracer import trace

    settings = load_settings(config, overrides, "crawl").settings

    def on_wait(seconds: float, why: str) -> None:
        if sys.stderr.isatty():
            say(f"waiting {duration(seconds)} ({why})")

    found = facts(uvloop.run(trace(settings, url, robots=not no_robots, on_wait=on_wait)))
    if as_json:
        write_data(orjson.dumps(found) + b"\n")
    else:
        show(found, all_links=all_links)
    return Exit.OK if found["is_fine"] else Exit.FINDINGS
