"""The output directory as a place: that it can be one, and run.json, by which others find what runs there."""

import os
from pathlib import Path

import orjson

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


def write_run_file(settings: Settings, configuration: str | None, run_id: str) -> None:
    """run.json: how `--output DIR` finds the daemon and its logs."""
    path = settings.output_directory / "run.json"
    content = {
        "pid": os.getpid(),
        "run_id": run_id,
        "configuration": configuration and str(Path(configuration).resolve()),
        "socket": str(settings.control_socket.resolve()),
        "logs": str(settings.log_directory.resolve()),
        "frontier": str(settings.frontier_path.resolve()),
    }
    temporary = path.with_suffix(".json.new")
    temporary.write_bytes(orjson.dumps(content, option=orjson.OPT_INDENT_2) + b"\n")
    temporary.replace(path)
