"""The `crawler` command. Each subcommand has a file of its own, imported only when it is called.

Invariants: data goes to stdout, messages to stderr; a user's mistake gets a message and an exit code, never a
traceback.
"""

import gc
import importlib
import sys
import traceback
from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from typing import Any, Final, NamedTuple

import click
from click.shell_completion import CompletionItem

from crawler import __version__
from crawler.cli.output import exit_for, messages_may_fail, open_standard_streams
from crawler.core.enums import Exit


class Entry(NamedTuple):
    """A command: its module, or module:attribute (without one, the module's `command`); the first sentence of its help,
    so that the list is shown without importing it; and examples for the end of its help.
    """

    module: str
    summary: str
    examples: tuple[str, ...]


GROUPS: Final = {
    "Crawl": {
        "crawl": Entry(
            "crawler.cli.crawl:crawl_command",
            "Crawl from URLs until nothing is left to do.",
            (
                "crawler crawl https://example.org/ --limit 100 --depth 3",
                "crawler crawl -c site.toml --json",
            ),
        ),
        "run": Entry(
            "crawler.cli.crawl:run_command",
            "Crawl until stopped, and visit pages again, each as often as it changes.",
            ("crawler run -c /etc/crawler/crawler.toml",),
        ),
        "fetch": Entry(
            "crawler.cli.crawl:fetch_command",
            "Fetch one URL and show every step of it, and what a crawl would do with the response.",
            (
                "crawler fetch https://example.org/page",
                "crawler fetch https://example.org/ -c site.toml --links",
            ),
        ),
    },
    "Look": {
        "status": Entry(
            "crawler.cli.status",
            "Show the status of the running crawl.",
            (
                "crawler status",
                "crawler status -c site.toml --json",
            ),
        ),
        "fleet": Entry(
            "crawler.cli.status:fleet_command",
            "Show all agents that share the database of a crawl.",
            ("crawler fleet -c /etc/crawler/crawler.toml",),
        ),
        "top": Entry("crawler.cli.top", "Watch the running crawl.", ("crawler top --interval 5",)),
        "hosts": Entry(
            "crawler.cli.explain:hosts_command",
            "List the hosts of a crawl.",
            (
                "crawler hosts --state backoff --sort errors",
                "crawler hosts --host '*.example.org'",
            ),
        ),
        "why": Entry(
            "crawler.cli.explain:why_command",
            "Explain why URL was fetched or not, or what would happen to it.",
            ("crawler why https://example.org/private/x",),
        ),
        "logs": Entry(
            "crawler.cli.logs",
            "Print lines of the logs, rotated and compressed parts included.",
            (
                "crawler logs --outcome error --outcome http_error --since yesterday",
                "crawler logs --events --event host_state -f",
            ),
        ),
        "report": Entry(
            "crawler.cli.report",
            "Report on a day: totals, errors, denied requests, slow and failing hosts, connections, seeds not reached.",
            (
                "crawler report --since yesterday --html report.html",
                "crawler report --host example.org",
            ),
        ),
    },
    "Steer": {
        "pause": Entry(
            "crawler.cli.steering:pause",
            "Start no new request until `crawler resume`; those in flight are finished.",
            ("crawler pause -c site.toml",),
        ),
        "resume": Entry(
            "crawler.cli.steering:resume", "Go on after `crawler pause`.", ("crawler resume -c site.toml",)
        ),
        "stop": Entry(
            "crawler.cli.steering:stop",
            "Finish what is in flight, store it, and end: what SIGTERM does.",
            ("crawler stop -c site.toml --wait",),
        ),
        "reload": Entry(
            "crawler.cli.steering:reload",
            "Have the daemon read its configuration again.",
            ("crawler reload -c site.toml --dry-run",),
        ),
        "block": Entry(
            "crawler.cli.steering:block",
            "Stop every request to HOST and all hosts below it, now and after every restart.",
            (
                "crawler block example.org --reason 'complaint of 3 May' -c site.toml",
                "crawler block --list",
            ),
        ),
        "unblock": Entry(
            "crawler.cli.steering:unblock",
            "Allow requests to a blocked HOST again.",
            ("crawler unblock example.org -c site.toml",),
        ),
        "release": Entry(
            "crawler.cli.steering:release",
            "Fetch the URLs of HOST that were set aside as endless.",
            ("crawler release example.org -c site.toml",),
        ),
        "retry": Entry(
            "crawler.cli.steering:retry",
            "Request hosts again that back off or are held, as soon as their delay allows.",
            (
                "crawler retry example.org -c site.toml",
                "crawler retry '*.example.org' -c site.toml",
            ),
        ),
        "add": Entry(
            "crawler.cli.store_commands:add",
            "Queue URLs as seeds: from arguments, files, or standard input (-).",
            (
                "crawler add https://example.org/new -c site.toml",
                "crawler add - -c site.toml < urls.txt",
            ),
        ),
        "requeue": Entry(
            "crawler.cli.store_commands:requeue",
            "Queue URLs again whose last attempt ended in an error or with a status, with all their attempts before "
            "them.",
            (
                "crawler requeue --status 5xx --dry-run -c site.toml",
                "crawler requeue --error-type connect_timeout --host example.org -c site.toml",
            ),
        ),
    },
    "Archive": {
        "export": Entry(
            "crawler.cli.store_commands:export",
            "Write every URL or host of a crawl to standard output; times are UTC epoch seconds.",
            (
                "crawler export urls --state gave_up",
                "crawler export hosts --format csv > hosts.csv",
            ),
        ),
        "verify": Entry(
            "crawler.cli.store_commands:verify_command",
            "Check an output directory, also while the crawl runs.",
            ("crawler verify crawl/example.org",),
        ),
        "backup": Entry(
            "crawler.cli.store_commands:backup",
            "Copy the store to FILE as it stands at this moment.",
            ("crawler backup frontier-copy.db -c site.toml",),
        ),
        "frontier": Entry(
            "crawler.cli.store_commands:frontier_group",
            "Move the store of a crawl.",
            ("crawler frontier copy archive postgresql://crawler@/crawl",),
        ),
        "forget": Entry(
            "crawler.cli.store_commands:forget",
            "Take down a URL or a whole host: erase it from the store and never fetch it again.",
            ("crawler forget https://example.org/page -c site.toml",),
        ),
    },
    "Set up": {
        "init": Entry(
            "crawler.cli.config:init",
            "Write a first configuration to FILE, crawler.toml if none is named.",
            (
                "crawler init",
                "crawler init site.toml --url https://example.org/ --contact bot@example.org --output archive",
            ),
        ),
        "check": Entry(
            "crawler.cli.config:check",
            "Validate a configuration as `crawler run` would read it.",
            ("crawler check -c site.toml",),
        ),
        "config": Entry(
            "crawler.cli.config:config_group",
            "Look at the configuration.",
            (
                "crawler config show -c site.toml --origin",
                "crawler config show --default > crawler.toml",
            ),
        ),
        "install-service": Entry(
            "crawler.cli.service",
            "Install the systemd unit, and completions, manual page and log formats.",
            ("crawler install-service --dry-run",),
        ),
        "completion": Entry(
            "crawler.cli.manuals:completion",
            "Print the completion script for a shell.",
            ("crawler completion bash > ~/.local/share/bash-completion/completions/crawler",),
        ),
    },
}
COMMANDS: Final = {name: entry for group in GROUPS.values() for name, entry in group.items()}

# Words that other programs have for a command, where no name is near.
_SYNONYMS: Final = {
    "agents": "fleet", "allow": "unblock", "ban": "block", "continue": "resume", "curl": "fetch", "delete": "forget",
    "download": "fetch", "dump": "export", "enqueue": "add", "explain": "why", "fsck": "verify", "get": "fetch",
    "help": "--help", "info": "status", "kill": "stop", "list": "hosts", "log": "logs", "ls": "hosts", "new": "init",
    "ps": "status", "quit": "stop", "remove": "forget", "rm": "forget", "scrape": "crawl", "seed": "add",
    "setup": "init", "show": "status", "start": "crawl run", "stats": "report", "tail": "logs", "test": "check",
    "unpause": "resume", "validate": "check", "version": "--version", "wake": "retry", "watch": "top",
}  # fmt: skip
_NEAR: Final = 0.75  # of get_close_matches: a slip of a finger, not a word that shares some letters


def _near(word: str, names: Iterable[str]) -> list[str]:
    """The names that somebody may have meant, the nearest first: those that begin so, or are a slip away."""
    bare = {name.lstrip("-"): name for name in names}
    word = word.lstrip("-")
    begun = [name for name in bare if len(word) > 1 and name.startswith(word)]
    return [bare[name] for name in begun or get_close_matches(word, list(bare), cutoff=_NEAR)]


# Imports make hundreds of thousands of objects that stay: the default collection after every 700 costs a tenth of a
# start.
_COLLECT_AFTER: Final = 50_000


class _Lazy(click.Group):
    """A group whose commands are imported when they are called, so that `--help` and completion are fast."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Show the commands in groups, each with its whole first sentence; click would shorten it to the line."""
        width = max(map(len, COMMANDS))
        for group, commands in GROUPS.items():
            with formatter.section(group):
                formatter.write_dl([(name.ljust(width), entry.summary) for name, entry in commands.items()])

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """The commands that begin so, then the options, as click does."""
        names = [name for name in COMMANDS if name.startswith(incomplete)]
        items = [CompletionItem(name, help=COMMANDS[name].summary) for name in names]
        return items + click.Command.shell_complete(self, ctx, incomplete)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Suggest the command that was meant by an unknown one; click does that for options only."""
        if args and args[0] not in COMMANDS:
            meant = _SYNONYMS[args[0]].split() if args[0] in _SYNONYMS else _near(args[0], COMMANDS)
            hint = f" Did you mean {' or '.join(map(repr, meant))}?" if meant else ""
            ctx.fail(f"No such command {args[0]!r}.{hint}")
        return super().resolve_command(ctx, args)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        entry = COMMANDS[cmd_name]
        module, _, attribute = entry.module.partition(":")
        command: click.Command = getattr(importlib.import_module(module), attribute or "command")
        command.epilog = "\b\n" + "\n".join(("Examples:", *(f"  {example}" for example in entry.examples)))
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
        if isinstance(error, click.NoSuchOption):
            near = _near(error.option_name, error.possibilities or ())
            error = click.NoSuchOption(error.option_name, possibilities=near, ctx=error.ctx)
        with messages_may_fail():
            error.show()
        return error.exit_code
    except SystemExit:  # how click ends if the reader of our output closed the pipe
        return Exit.OK
    except click.Abort:
        return 130
    except Exception as error:
        code = exit_for(error)
        if code is None:
            with messages_may_fail():
                traceback.print_exc()
            return Exit.BUG
        return code
    return result if isinstance(result, int) else 0
