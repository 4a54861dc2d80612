"""`crawler completion SHELL`: the script that teaches a shell to complete this command.

The script asks the command itself at each tab (click's protocol), so it need not be written anew when options change.
"""

import click
from click.shell_completion import ShellComplete, get_completion_class

_VARIABLE = "_CRAWLER_COMPLETE"


@click.command(name="completion")
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def command(shell: str) -> int:
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
