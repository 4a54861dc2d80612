"""What a start of the command line imports."""

import subprocess
import sys

import click
import pytest

from crawler.cli import COMMANDS, cli

HEAVY = {
    "aiodns", "aiohttp", "apsw", "asyncio", "cryptography", "isal", "orjson", "pydantic", "rich", "ssl", "structlog",
    "uvloop", "zstandard",
}  # fmt: skip


@pytest.mark.parametrize("arguments", [["--version"], ["--help"], ["-h"], []])
def test_the_list_of_commands_is_shown_without_importing_them(arguments: list[str]) -> None:
    """Neither the commands nor what they need: it takes a twentieth of a second instead of half a second."""
    program = (
        "import sys\n"
        "from crawler.cli import main\n"
        f"main({arguments!r}, standalone_mode=False)\n"
        "print(*sys.modules, file=sys.stderr)\n"
    )
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    imported = set(ran.stderr.splitlines()[-1].split())
    assert HEAVY.isdisjoint(imported)
    assert not {name for name in imported if name.startswith("crawler.")} - {
        "crawler.cli", "crawler.cli.output", "crawler.core", "crawler.core.enums",
        "crawler.core.formatting",
    }  # fmt: skip


@pytest.mark.parametrize("name", COMMANDS)
def test_the_list_has_the_first_sentence_of_each_help(name: str) -> None:
    command = cli.get_command(click.Context(cli), name)
    assert command is not None
    assert COMMANDS[name].summary == command.get_short_help_str(limit=500)
