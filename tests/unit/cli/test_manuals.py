"""Completion scripts and the manual page, which are made from the commands."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from crawler.cli import cli
from crawler.cli.manuals import man_page, script
from tests.support.commands import command, environment, run


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_each_shell_has_its_script(shell: str) -> None:
    """The command prints what install-service writes."""
    ran = run("completion", shell)
    assert (ran.code, ran.stderr, ran.stdout) == (0, "", script(shell))
    assert f"_CRAWLER_COMPLETE={shell}_complete" in ran.stdout


@pytest.mark.skipif(shutil.which("bash") is None, reason="bash is not installed")
def test_bash_reads_its_script() -> None:
    """Without a complaint, and then knows how to complete `crawler`."""
    source = script("bash") + "\ncomplete -p crawler\n"
    ran = subprocess.run(
        ["bash", "--norc", "-e"], input=source, capture_output=True, text=True, check=False, timeout=60
    )
    assert (ran.returncode, ran.stderr) == (0, "")
    assert "crawler" in ran.stdout


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("crawler cra", {"crawl"}),
        ("crawler config ", {"show", "schema"}),
        ("crawler fetch --no", {"--no-robots"}),
        ("crawler crawl -o fetch.band", {"fetch.bandwidth=", "fetch.bandwidth_per_host="}),
        ("crawler completion z", {"zsh"}),
    ],
)
def test_a_tab_completes(words: str, expected: set[str]) -> None:
    """Commands, options, keys of the configuration, and what an argument may be."""
    env = environment(_CRAWLER_COMPLETE="bash_complete", COMP_WORDS=words, COMP_CWORD=str(words.count(" ")))
    ran = subprocess.run(command(), env=env, capture_output=True, text=True, check=False, timeout=60)
    assert ran.stderr == ""
    assert {line.partition(",")[2] for line in ran.stdout.splitlines()} == expected


def test_a_shell_that_is_not_known_is_refused() -> None:
    """With those that are."""
    ran = run("completion", "tcsh")
    assert (ran.code, ran.stdout) == (2, "")
    assert "bash" in ran.stderr


PAGE = Path(__file__).resolve().parents[3] / "docs" / "crawler.1"


def test_the_manual_page_is_current() -> None:
    """Write it anew with `make generated`."""
    assert PAGE.read_text(encoding="utf-8") == man_page()


def test_the_manual_page_is_written_by_a_module() -> None:
    """On stdout, nothing else."""
    arguments = [sys.executable, "-m", "crawler.cli.manuals"]
    ran = subprocess.run(arguments, cwd=PAGE.parents[1], capture_output=True, text=True, check=True, timeout=60)
    assert (ran.stdout, ran.stderr) == (man_page(), "")


def test_every_command_has_its_section() -> None:
    """Those of groups by their full names; and nothing stands there that is no command."""
    text = man_page()
    for name in cli.list_commands(None):
        assert f'.SS "{name}'.replace("-", r"\-") in text, name
    assert r".SS " + '"config show"' in text


def test_no_line_is_read_as_a_request() -> None:
    """What begins with a point or a quote is ours."""
    requests = {line.split(" ")[0] for line in man_page().splitlines() if line.startswith((".", "'"))}
    assert requests <= {".TH", ".SH", ".SS", ".PP", ".TP", ".BR"}


@pytest.mark.skipif(shutil.which("groff") is None, reason="groff is not installed")
def test_groff_gives_no_warning() -> None:
    """With every warning on, for terminals of both kinds."""
    for device in ("utf8", "ascii"):
        arguments = ["groff", "-man", f"-T{device}", "-ww", "-z"]
        ran = subprocess.run(arguments, input=man_page(), capture_output=True, text=True, check=False, timeout=60)
        assert (ran.returncode, ran.stderr) == (0, "")
