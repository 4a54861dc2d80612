"""The output directory as a place: that it can be one, and run.json, by which others find what runs there."""

import os
from dataclasses import replace
from pathlib import Path

import orjson

from crawler.core.url import seed
from crawler.inspect.rules import Rules, dump, load
from crawler.settings.settings import Settings


class OutputUnusable(Exception):
    """The output directory cannot be one; the message is for a person (exit 78)."""


def prepare(output: Path) -> Path:
    """Make the output directory. Raises OutputUnusable, OSError."""
    try:
        output.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        raise OutputUnusable(f"{output} is not a directory; output.directory must be one") from None
    return output


def at_usual_output(settings: Settings) -> Settings:
    """The same settings; without output.directory they get the one that `crawl` takes, named for the first seed."""
    if settings.output.directory or not settings.seeds:
        return settings
    directory = Path(settings.crawl.name) / str(seed(settings.seeds[0])[1]).partition("//")[2]
    return replace(settings, output=settings.output.model_copy(update={"directory": str(directory)}))


def write_run_file(settings: Settings, configuration: str | None, run_id: str) -> None:
    """run.json: how `--output DIR` finds the daemon, its logs and the rules in force. To be written again when they
    change (a reload).
    """
    path = settings.output_directory / "run.json"
    content = {
        "pid": os.getpid(),
        "run_id": run_id,
        "output": str(settings.output_directory.resolve()),  # a copy of the directory is known by it
        "configuration": configuration and str(Path(configuration).resolve()),
        "socket": str(settings.control_socket.resolve()),
        "logs": str(settings.log_directory.resolve()),
        "frontier": str(settings.frontier_path.resolve()),
        "rules": dump(rules_of(settings)),
    }
    temporary = path.with_suffix(".json.new")
    temporary.write_bytes(orjson.dumps(content, option=orjson.OPT_INDENT_2) + b"\n")
    temporary.replace(path)


def scope_changed(settings: Settings) -> bool:
    """Whether the last crawl in this directory judged URLs by another scope."""
    try:
        found = orjson.loads((settings.output_directory / "run.json").read_bytes())
    except (OSError, ValueError):
        return False
    before, now = load(found.get("rules") if isinstance(found, dict) else None), rules_of(settings)
    return before is not None and (before.scope, before.seed_hosts) != (now.scope, now.seed_hosts)


def rules_of(settings: Settings) -> Rules:
    """The rules by which these settings judge URLs, for those who explain a crawl."""
    network = settings.network_options()
    return Rules(
        scope=settings.scope_options(),
        politeness=settings.politeness_options(),
        traps=settings.trap_options(),
        seed_hosts=tuple(sorted({seed(text)[1].host for text in settings.seeds})),
        robots_token=settings.robots_token,
        allow_private=network.allow_private,
        resolve=network.resolve,
    )
