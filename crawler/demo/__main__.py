"""`python -m crawler.demo [ARGS]`: start the demo site, then run the real `crawler crawl` on it.

Owns the choice of where the output goes. The server's port changes with every start, and with it every URL, so an old
crawl cannot be resumed: ./crawl/demo is emptied first. With an `--output` of your own nothing is removed.
Invariant: only a folder that bears the mark of an earlier demo, and that no demo is using, is ever emptied.
"""

import fcntl
import json
import shutil
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Final

import click

from crawler.cli import main as crawler
from crawler.core.enums import Exit
from crawler.demo.server import ADDRESS, DemoServer
from crawler.demo.site import BARE, DOCS

OUTPUT: Final = Path("crawl/demo")
MARK: Final = ".made-by-crawler-demo"
DELAY: Final = "50ms"  # between requests: slow enough to watch, and done in seconds


class OutputTaken(Exception):
    """The folder may not be emptied by the demo. `exit_code` is that of the command."""

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code


def run(arguments: Sequence[str]) -> int:
    """Serve the site, crawl it, and return the crawl's exit code."""
    has_output = any(argument == "--output" or argument.startswith("--output=") for argument in arguments)
    try:
        with nullcontext() if has_output else fresh_output(OUTPUT), DemoServer() as server:
            own = [] if has_output else ["--output", str(OUTPUT)]
            command = [*crawl_command(server), *own, *arguments]
            _say(f"A small site is served here over TLS, on {ADDRESS}:{server.port}.")
            code = _exit_code(command)
            if code == Exit.WAITING and not has_output:
                _say("But this is the demo, which starts afresh each time: its server will be on another port.")
            return code
    except OutputTaken as error:
        _say(f"crawler.demo: {error}")
        return error.exit_code


def crawl_command(server: DemoServer) -> list[str]:
    """The arguments with which `crawler` finds, trusts and crawls what `server` serves."""
    table = ", ".join(f"{json.dumps(host)} = {json.dumps(found)}" for host, found in server.resolve_table().items())
    return [
        "crawl",
        server.url(BARE),  # redirects to www.demo.test, which brings that host into scope
        server.url(DOCS),
        "-o",
        f"network.resolve={{{table}}}",
        "-o",
        'network.allow_private=["127.0.0.0/8"]',
        "-o",
        f"network.ca_file={json.dumps(server.ca_file)}",
        "-o",
        f'politeness.delay="{DELAY}"',
    ]


@contextmanager
def fresh_output(directory: Path) -> Iterator[None]:
    """Lock `directory` for one demo and empty it of an earlier one. Raises OutputTaken."""
    mark = directory / MARK
    if directory.exists() and not mark.exists() and (not directory.is_dir() or any(directory.iterdir())):
        raise OutputTaken(f"{directory} was not made by an earlier demo; pass --output DIR", Exit.USAGE)
    directory.mkdir(parents=True, exist_ok=True)
    with mark.open("a") as held:
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise OutputTaken(f"{directory} is in use by another demo; pass --output DIR", Exit.WAITING) from None
        for path in directory.iterdir():
            if path.name == MARK:
                continue
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink()
        yield


def _exit_code(command: list[str]) -> int:
    """What the `crawler` command would exit with, without ending this process before the server stops."""
    try:
        crawler(command)
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else Exit.USAGE
    return Exit.OK


def _say(line: str) -> None:
    click.echo(line, err=True)


if __name__ == "__main__":
    sys.exit(run(sys.argv[1:]))
