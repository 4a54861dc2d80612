"""Shell completion: the scripts, and what they are answered."""

import shutil
import subprocess

import pytest

from crawler.cli.manuals import script
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
