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
from click.shell_completion import CompletionItem

from crawler import __version__
from crawler.cli.output import exit_for, open_standard_streams
from crawler.core.enums import Exit

# Command → module, or module:attribute (without one, the module's `command` is the click command), and the first
# sentence of its help: the list of commands is shown without importing them.
COMMANDS: Final = {
    "crawl": ("crawler.cli.crawl:crawl_command", "Crawl from URLs until nothing is left to do."),
    "run": ("crawler.cli.crawl:run_command", "Crawl until stopped."),
    "fetch": (
        "crawler.cli.crawl:fetch_command",
        "Fetch one URL and show every step of it, and what a crawl would do with the response.",
    ),
    "init": ("crawler.cli.init", "Write a first configuration to FILE, crawler.toml if none is named."),
    "check": ("crawler.cli.config:check", "Validate a configuration as `crawler run` would read it."),
    "config": ("crawler.cli.config:config_group", "Look at the configuration."),
    "completion": ("crawler.cli.manuals:completion", "Print the completion script for a shell."),
    "install-service": (
        "crawler.cli.service.install",
        "Install the systemd unit, and completions, manual page and log formats.",
    ),
    "logs": ("crawler.cli.logs", "Print lines of the logs, rotated and compressed parts included."),
    "status": ("crawler.cli.status", "Show the status of the running crawl."),
    "pause": (
        "crawler.cli.steering:pause",
        "Start no new request until `crawler resume`; those in flight are finished.",
    ),
    "resume": ("crawler.cli.steering:resume", "Go on after `crawler pause`."),
    "stop": ("crawler.cli.steering:stop", "Finish what is in flight, store it, and end: what SIGTERM does."),
    "why": ("crawler.cli.why", "Explain why URL was fetched or not, or what would happen to it."),
    "hosts": ("crawler.cli.hosts", "List the hosts of a crawl."),
    "report": (
        "crawler.cli.report",
        "Report on a day: totals, errors, denied requests, slow and failing hosts, connections, seeds not reached.",
    ),
    "top": ("crawler.cli.top", "Watch the running crawl."),
    "add": ("crawler.cli.store_commands:add", "Queue URLs as seeds: from arguments, files, or standard input (-)."),
    "requeue": (
        "crawler.cli.store_commands:requeue",
        "Queue URLs again whose last attempt ended in an error or with a status, with all their attempts before them.",
    ),
    "forget": (
        "crawler.cli.store_commands:forget",
        "Take down a URL or a whole host: erase it from the store and never fetch it again.",
    ),
    "export": (
        "crawler.cli.store_commands:export",
        "Write every URL or host of a crawl to standard output; times are UTC epoch seconds.",
    ),
    "backup": ("crawler.cli.store_commands:backup", "Copy the store to FILE as it stands at this moment."),
    "verify": ("crawler.cli.store_commands:verify_command", "Check an output directory, also while the crawl runs."),
    "reload": ("crawler.cli.steering:reload", "Have the daemon read its configuration again."),
    "release": ("crawler.cli.steering:release", "Fetch the URLs of HOST that were set aside as endless."),
    "block": (
        "crawler.cli.steering:block",
        "Stop every request to HOST and all hosts below it, now and after every restart.",
    ),
    "unblock": ("crawler.cli.steering:unblock", "Allow requests to a blocked HOST again."),
}


# Imports make hundreds of thousands of objects that stay: the default collection after every 700 costs a tenth of a
# start.
_COLLECT_AFTER: Final = 50_000


class _Lazy(click.Group):
    """A group whose commands are imported when they are called, so that `--help` and completion are fast."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Show the whole first sentence of each command; click would shorten it to the line."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, summary) for name, (_, summary) in COMMANDS.items()])

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """The commands that begin so, then the options, as click does."""
        names = [name for name in COMMANDS if name.startswith(incomplete)]
        items = [CompletionItem(name, help=COMMANDS[name][1]) for name in names]
        return items + click.Command.shell_complete(self, ctx, incomplete)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Suggest the nearest command for an unknown one; click does that for options only."""
        if args and args[0] not in COMMANDS and (close := get_close_matches(args[0], list(COMMANDS), n=1)):
            ctx.fail(f"No such command {args[0]!r}. Did you mean {close[0]!r}?")
        return super().resolve_command(ctx, args)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module, _, attribute = COMMANDS[cmd_name][0].partition(":")
        command: click.Command = getattr(importlib.import_module(module), attribute or "command")
        return command


@click.group(cls=_Lazy, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="crawler")
def cli() -> None:
    """A polite, durable web crawler."""


def main(args: Sequence[str] | None = None, *, standalone_mode: bool = True) -> int:
    """Run the command line. Returns the exit code, or exits with it if `standalone_mode`."""
    open_standard_streams()
    gc.set_threshold(_COLLECT_AFTER)
    code = _run(args)
    if standalone_mode:
        sys.exit(code)
    return code


def _run(args: Sequence[str] | None) -> int:
    try:
        words = sys.argv[1:] if args is None else list(args)
        result: Any = cli.main(args=list(words), prog_name="crawler", standalone_mode=False, obj=words)
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
