"""The `crawler` command. Each subcommand has a file of its own, imported only when it is called.

Invariants: data goes to stdout, messages to stderr; a user's mistake gets a message and an exit code, never a
traceback.
"""

import gc
import importlib
import sys
import traceback
from collections.abc import Sequence
from difflib import get_close_matches
from typing import Any, Final

import click

from crawler import __version__
from crawler.cli.failures import exit_for
from crawler.cli.output import occupy
from crawler.core.enums import Exit

# Command → module, or module:attribute; without one, the module's `command` is the click command.
_COMMANDS: Final = {
    "crawl": "crawler.cli.crawl:crawl_command",
    "run": "crawler.cli.crawl:run_command",
    "fetch": "crawler.cli.fetch",
    "check": "crawler.cli.config:check",
    "config": "crawler.cli.config:config_group",
    "completion": "crawler.cli.manuals:completion",
    "install-service": "crawler.cli.service.install",
    "logs": "crawler.cli.logs",
    "status": "crawler.cli.status",
    "pause": "crawler.cli.steering:pause",
    "resume": "crawler.cli.steering:resume",
    "stop": "crawler.cli.steering:stop",
    "why": "crawler.cli.why",
    "hosts": "crawler.cli.hosts",
    "report": "crawler.cli.report",
    "top": "crawler.cli.top",
    "add": "crawler.cli.store_commands:add",
    "requeue": "crawler.cli.store_commands:requeue",
    "forget": "crawler.cli.store_commands:forget",
    "export": "crawler.cli.export:export",
    "backup": "crawler.cli.export:backup",
    "verify": "crawler.cli.verify",
    "reload": "crawler.cli.reload",
    "release": "crawler.cli.steering:release",
    "block": "crawler.cli.steering:block",
    "unblock": "crawler.cli.steering:unblock",
}


# Importing makes hundreds of thousands of objects that stay: the usual look at them after every 700 new ones costs a
# tenth of a start.
_COLLECT_AFTER: Final = 50_000


class _Lazy(click.Group):
    """A group whose commands are imported when asked for, so that `--help` and completion stay quick."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The whole first sentence of each: click cuts it to what is left of the line."""
        rows = [
            (name, command.get_short_help_str(limit=500))
            for name in self.list_commands(ctx)
            if (command := self.get_command(ctx, name)) is not None
        ]
        with formatter.section("Commands"):
            formatter.write_dl(rows)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """click suggests options, but no commands."""
        if args and args[0] not in _COMMANDS and (close := get_close_matches(args[0], list(_COMMANDS), n=1)):
            ctx.fail(f"No such command {args[0]!r}. Did you mean {close[0]!r}?")
        return super().resolve_command(ctx, args)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        where = _COMMANDS.get(cmd_name)
        if where is None:
            return None
        module, _, attribute = where.partition(":")
        command: click.Command = getattr(importlib.import_module(module), attribute or "command")
        return command


@click.group(cls=_Lazy, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="crawler")
def cli() -> None:
    """A polite, durable web crawler."""


def main(args: Sequence[str] | None = None, *, standalone_mode: bool = True) -> int:
    """Run the command line. Returns the exit code, or exits with it if `standalone_mode`."""
    occupy()
    gc.set_threshold(_COLLECT_AFTER)
    code = _run(args)
    if standalone_mode:
        sys.exit(code)
    return code


def _run(args: Sequence[str] | None) -> int:
    try:
        result: Any = cli.main(args=None if args is None else list(args), prog_name="crawler", standalone_mode=False)
    except click.exceptions.Exit as ended:
        return ended.exit_code
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except click.Abort:
        return 130
    except Exception as error:
        code = exit_for(error)
        if code is None:
            traceback.print_exc()
            return Exit.BUG
        return code
    return result if isinstance(result, int) else 0
