"""The manual page: made of the commands, and fit for the formatter."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from crawler.cli import cli
from crawler.cli.manuals import man_page

PAGE = Path(__file__).resolve().parents[3] / "docs" / "crawler.1"


def test_the_page_is_what_the_commands_say() -> None:
    """Write it anew with `make generated`."""
    assert PAGE.read_text(encoding="utf-8") == man_page()


def test_the_page_is_written_by_a_command() -> None:
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
def test_groff_has_nothing_to_complain_about() -> None:
    """With every warning on, for terminals of both kinds."""
    for device in ("utf8", "ascii"):
        arguments = ["groff", "-man", f"-T{device}", "-ww", "-z"]
        ran = subprocess.run(arguments, input=man_page(), capture_output=True, text=True, check=False, timeout=60)
        assert (ran.returncode, ran.stderr) == (0, "")
