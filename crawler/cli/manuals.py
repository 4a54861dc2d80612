"""Texts made from the commands: completion scripts for shells, and the manual page
(`python -m crawler.cli.manuals > docs/crawler.1`).
"""

import sys
from collections.abc import Iterator
from typing import Final

import click
from click.shell_completion import ShellComplete, get_completion_class

from crawler.core.enums import Exit

_VARIABLE = "_CRAWLER_COMPLETE"


@click.command(name="completion")
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> int:
    """Print the completion script for a shell.

    For bash, for this user: crawler completion bash > ~/.local/share/bash-completion/completions/crawler
    """
    click.echo(script(shell), nl=False)
    return 0


def script(shell: str) -> str:
    """The script for "bash", "zsh" or "fish"."""
    from crawler.cli import cli

    kind = get_completion_class(shell)
    if kind is None:
        raise ValueError(f"no completion for {shell}")
    # Not kind.source(): for bash that runs a bash to see its version.
    return ShellComplete.source(kind(cli, {}, "crawler", _VARIABLE)).strip() + "\n"


_EXIT_STATUS: Final = (
    (Exit.OK, "Done, or a limit was reached."),
    (Exit.FINDINGS, "No seed responded; or a command that looks for faults found some."),
    (Exit.USAGE, "Usage, or a seed that is no URL."),
    (Exit.STATE_CORRUPT, "The store or an output file is damaged, or written by a newer version."),
    (Exit.UNREACHABLE, "The daemon cannot be reached."),
    (Exit.BUG, "A bug: the traceback is on stderr."),
    (Exit.IO, "The disk is full, or another I/O error."),
    (Exit.WAITING, "Another crawler holds the output directory, or URLs are left."),
    (Exit.PERMISSION, "Permission denied."),
    (Exit.CONFIGURATION, "The configuration is wrong."),
)
_ENVIRONMENT: Final = (
    ("CRAWLER_CONFIG", "The configuration of commands that have neither -c nor --output."),
    ("CRAWLER_SECTION__KEY", "The value of a key of the configuration, stronger than the files and weaker than -o."),
    ("CREDENTIALS_DIRECTORY", "Where systemd puts secrets.toml, read if identity.secrets is not set."),
    ("RUNTIME_DIRECTORY, XDG_RUNTIME_DIR", "Where `run` makes a link by which -c FILE finds it."),
    ("NO_COLOR", "If not empty, output has no colours."),
    ("TZ", "The time zone of fetch.hours."),
)
_FILES: Final = (
    ("/etc/crawler/crawler.toml", "The service's configuration; conf.d/*.toml beside it is read as well."),
    ("/var/lib/crawler", "Frontier, WARC files and pages of the service; those of crawler@NAME below it."),
    ("/var/log/crawler", "Its logs."),
    ("/run/crawler", "Links from configurations to the output directories of daemons that run."),
)


def man_page() -> str:
    """The whole page, as roff with the man macros."""
    from crawler.cli import cli

    context = click.Context(cli, info_name="crawler")
    return "\n".join(_page(cli, context)) + "\n"


def _page(cli: click.Group, context: click.Context) -> Iterator[str]:
    yield '.TH CRAWLER 1 "" "crawlerd" "User Commands"'
    yield ".SH NAME"
    yield rf"crawler \- {_text(_first_line(cli).rstrip('.').lower())}"
    yield ".SH SYNOPSIS"
    yield r"\fBcrawler\fR \fICOMMAND\fR [\fIOPTION\fR]... [\fIARGUMENT\fR]..."
    yield ".SH DESCRIPTION"
    yield _text(
        "Crawls web sites for weeks over a few kept connections to each host, stores what it found and fetched so that "
        "a kill at any instant loses nothing, and writes WARC files and detailed logs. Each command has "
        "--help. Data goes to stdout, messages to stderr."
    )
    yield ".SH COMMANDS"
    for name, command, inner in _commands(cli, context, "crawler"):
        yield from _command(name, command, inner)
    yield ".SH EXIT STATUS"
    yield from _terms((str(code), words) for code, words in _EXIT_STATUS)
    yield ".SH ENVIRONMENT"
    yield from _terms(_ENVIRONMENT)
    yield ".SH FILES"
    yield from _terms(_FILES)
    yield ".SH SEE ALSO"
    yield _text("crawler config show --default prints every key of the configuration with its meaning and its default.")
    yield ".PP"
    yield r".BR systemd.service (5)"


def _commands(
    group: click.Group, context: click.Context, prefix: str
) -> Iterator[tuple[str, click.Command, click.Context]]:
    """Every command that does something, with its full name, in the order of `--help`."""
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        if command is None or command.hidden:
            continue
        inner = click.Context(command, info_name=name, parent=context)
        if isinstance(command, click.Group):
            yield from _commands(command, inner, f"{prefix} {name}")
        else:
            yield f"{prefix} {name}", command, inner


def _command(name: str, command: click.Command, context: click.Context) -> Iterator[str]:
    usage = " ".join(command.collect_usage_pieces(context))
    yield rf'.SS "{_text(name.removeprefix("crawler "))}"'
    yield rf"\fB{_text(name)}\fR {_text(usage)}"
    for paragraph in (command.help or "").split("\n\n"):
        yield ".PP"
        yield _text(" ".join(paragraph.split()))
    for parameter in command.get_params(context):
        record = None if "--help" in parameter.opts else parameter.get_help_record(context)
        if record is not None and record[1]:  # an argument without help is in the usage line
            yield ".TP"
            yield rf"\fB{_text(record[0])}\fR"
            yield _text(" ".join(record[1].split()))
    for example in (command.epilog or "").splitlines()[2:]:  # after the mark of click and the heading
        yield ".PP"
        yield rf"\fB{_text(example.strip())}\fR"


def _terms(pairs: Iterator[tuple[str, str]] | tuple[tuple[str, str], ...]) -> Iterator[str]:
    for term, words in pairs:
        yield ".TP"
        yield rf"\fB{_text(term)}\fR"
        yield _text(words)


def _first_line(command: click.Command) -> str:
    return (command.help or "").strip().split("\n")[0]


def _text(words: str) -> str:
    """Plain text as roff, with requests and escapes quoted. Source: groff_char(7)."""
    escaped = words.replace("\\", r"\(rs").replace("-", r"\-").replace("'", r"\(aq").replace('"', r"\(dq")
    escaped = escaped.replace("`", r"\(ga").replace("^", r"\(ha").replace("~", r"\(ti")
    escaped = escaped.replace("…", "...")
    escaped = "".join(char if char.isascii() else rf"\[u{ord(char):04X}]" for char in escaped)
    return rf"\&{escaped}" if escaped.startswith(".") else escaped


if __name__ == "__main__":
    sys.stdout.write(man_page())
