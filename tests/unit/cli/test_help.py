"""Help: groups, examples that work, and what is suggested for a word that is no command or option."""

import re
import shlex

import click
import pytest

from crawler.cli import _SYNONYMS, COMMANDS, GROUPS, cli, main

EXAMPLES = [(name, example) for name, entry in COMMANDS.items() for example in entry.examples]


def printed(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    main(words, standalone_mode=False)
    out, err = capsys.readouterr()
    return str(out + err)


def test_commands_are_listed_in_groups(capsys: pytest.CaptureFixture[str]) -> None:
    """Each once, below the name of its group."""
    text = printed(capsys, "--help")
    for group, commands in GROUPS.items():
        section = text.partition(f"\n{group}:\n")[2].partition("\n\n")[0]
        assert re.findall(r"^  ([a-z-]+) ", section, re.MULTILINE) == list(commands)


@pytest.mark.parametrize(("name", "example"), EXAMPLES, ids=[example for _, example in EXAMPLES])
def test_examples_can_be_called(name: str, example: str) -> None:
    """Each is of its command, and has only options and arguments that there are."""
    words = shlex.split(re.split(" [<>] ", example)[0])
    assert words[:2] == ["crawler", name]
    context = click.Context(cli)
    command, rest = cli.get_command(context, name), words[2:]
    if isinstance(command, click.Group):
        command, rest = command.get_command(context, rest[0]), rest[1:]
    assert command is not None
    command.make_context(name, rest)


def test_help_ends_with_the_examples(capsys: pytest.CaptureFixture[str]) -> None:
    """A line each, not wrapped."""
    assert printed(capsys, "hosts", "--help").endswith(
        "\n  Examples:\n    crawler hosts --state backoff --sort errors\n    crawler hosts --host '*.example.org'\n"
    )


@pytest.mark.parametrize(
    ("words", "meant"),
    [
        (("statsu",), "'status'"),
        (("hots",), "'hosts'"),
        (("rep",), "'report'"),
        (("re",), "'report' or 'resume' or 'reload' or 'release' or 'retry' or 'requeue'"),
        (("ls",), "'hosts'"),
        (("list",), "'hosts'"),
        (("start",), "'crawl' or 'run'"),
        (("rm", "https://a.test/"), "'forget'"),
        (("hosts", "--stats"), "'--state'"),
        (("crawl", "--max-dur", "1m"), "'--max-duration'"),
    ],
)
def test_what_is_near_is_suggested(capsys: pytest.CaptureFixture[str], words: tuple[str, ...], meant: str) -> None:
    text = printed(capsys, *words)
    assert text.splitlines()[-1].endswith(f"Did you mean {meant}?")


@pytest.mark.parametrize("words", [("zzz",), ("x",), ("hosts", "--fetch"), ("status", "--pause")])
def test_what_is_not_near_is_not(capsys: pytest.CaptureFixture[str], words: tuple[str, ...]) -> None:
    """A word that shares some letters helps nobody."""
    assert "Did you mean" not in printed(capsys, *words)


def test_synonyms_lead_to_commands() -> None:
    """And none hides one."""
    meant = {word for text in _SYNONYMS.values() for word in text.split()}
    assert meant <= COMMANDS.keys() | {"--help", "--version"}
    assert COMMANDS.keys().isdisjoint(_SYNONYMS)
