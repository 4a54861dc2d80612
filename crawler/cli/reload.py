"""`crawler reload`: the running daemon reads its configuration again; `--dry-run` says what that would change."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click
import orjson

from crawler.admin.control_client import Unreachable
from crawler.cli.output import write_data
from crawler.cli.place import place_options, reach
from crawler.core.enums import Exit
from crawler.core.formatting import count
from crawler.settings.loading import load

RELOAD_S = 120.0  # a preview judges up to 200,000 URLs; the crawl goes on meanwhile


@click.command(name="reload")
@place_options
@click.option("--dry-run", is_flag=True, help="Say what would change, and change nothing.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object on stdout.")
def command(config: Path | None, overrides: tuple[str, ...], output: Path | None, dry_run: bool, as_json: bool) -> int:
    """Have the daemon read its configuration again. It comes into force whole, or not at all.

    -c and --output only find the daemon: it reads the file, and the -o, that it was started with. Exit code 78 if the
    file is wrong: the configuration in force then stays, and the daemon's log says so.
    """
    try:
        control = reach(config, overrides, output, quiet=True)  # the daemon says what is wrong with the file
    except Unreachable:
        if config is not None:
            load(config, overrides, os.environ, "run")  # raises for what nobody else is there to refuse
        raise
    with control:
        answer = control.call("reload", {"dry_run": dry_run}, timeout_s=RELOAD_S)
    if as_json:
        write_data(orjson.dumps(answer) + b"\n")
    else:
        click.echo("\n".join(lines(answer)))
    return Exit.OK


def lines(answer: Mapping[str, Any]) -> list[str]:
    """What changed, or would."""
    changed, restart = answer["changed"], answer["needs_restart"]
    would = "would change" if answer["dry_run"] else "changed"
    shown = [f"{would}: {one['key']} = {one['new']}   (was {one['old']})" for one in changed]
    if answer["new_seeds"]:
        shown.append(f"{'would add' if answer['dry_run'] else 'added'}: {count(answer['new_seeds'], 'seed')}")
    if not changed:
        shown.append("nothing would change" if answer["dry_run"] else "nothing changed")
    shown += [f"needs a restart: {key}" for key in restart]
    preview = answer.get("preview", {})
    if preview.get("scope_changes"):
        shown += _preview(preview)
    return shown


def _preview(preview: Mapping[str, Any]) -> list[str]:
    at_least = "" if preview["complete"] else f" among the first {count(preview['judged'])} judged"
    shown = [
        f"queued URLs that fall out of scope: {count(preview['queued_dropped'])}{at_least}",
        f"denied URLs that come back: {count(preview['denied_back'])}{at_least}",
    ]
    for verb, words in (("come", "hosts that come into scope"), ("go", "hosts that go out of scope")):
        hosts, named = preview[f"hosts_{verb}_count"], preview[f"hosts_{verb}"]
        more = f" and {count(hosts - len(named))} more" if hosts > len(named) else ""
        shown.append(f"{words}: {', '.join(named)}{more}" if hosts else f"{words}: none")
    return shown
