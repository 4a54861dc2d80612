"""How a command reaches the running daemon: where `cli/place.py` finds the crawl, its control socket is.

It does not know what is asked of the daemon. Invariant: a daemon that is not there is exit 69, whatever is missing.
"""

from pathlib import Path

from crawler.admin.control_client import Control, Unreachable
from crawler.cli.place import locate


def reach(config: Path | None, overrides: tuple[str, ...], output: Path | None, *, quiet: bool = False) -> Control:
    """A connection to the daemon; with neither a configuration nor a directory named, to that of this directory.
    `quiet`: what is wrong with the configuration has been said, or will be.

    Raises Unreachable, NotAllowed, and what `locate` raises.
    """
    if config is None and output is None and Path("run.json").exists():
        output = Path()
    try:
        place = locate(config, overrides, output, running=True, quiet=quiet).place
    except (FileNotFoundError, NotADirectoryError) as error:
        raise Unreachable(f"no crawler is running here: {error.filename}: {error.strerror}") from None
    return Control(place.socket)
