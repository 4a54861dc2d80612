"""The guides' commands do what they say: each guide's are run in order, on a site served here under example.org."""

import re
import shutil
from pathlib import Path

import pytest

from tests.e2e.test_readme import ROOT, environment, run

__all__ = ["environment"]  # a fixture
pytestmark = pytest.mark.e2e
GUIDES = [path for path in sorted((ROOT / "docs/guides").glob("*.md")) if "```sh\n" in path.read_text()]
SITE = """
[crawl]
seeds = ["https://example.org/"]
[output]
directory = "archive"
"""


def blocks(text: str, language: str) -> list[str]:
    """The fenced blocks of exactly this language: "sh system" changes the machine, and is tried in tests/systemd and
    tests/packaging.
    """
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.DOTALL | re.MULTILINE)


@pytest.mark.parametrize("guide", GUIDES, ids=lambda guide: guide.stem)
def test_every_command_of_a_guide_runs(guide: Path, tmp_path: Path, environment: dict[str, str]) -> None:
    """Its configuration is site.toml; where it only looks at a crawl, one was made by it."""
    if shutil.which("jq") is None:
        pytest.skip("jq is not installed: the guides read the logs with it")
    text = guide.read_text()
    commands = [line for block in blocks(text, "sh") for line in block.splitlines()]
    configurations = [toml for toml in blocks(text, "toml") if toml.startswith("[crawl]")]
    (tmp_path / "site.toml").write_text(configurations[0] if configurations else SITE)
    (tmp_path / "seeds.txt").write_text("https://example.org/\n")
    if not any(command.startswith("crawler crawl") for command in commands):
        commands.insert(0, "crawler crawl -c site.toml")
    if any(command.startswith("crawler init site.toml") for command in commands):
        (tmp_path / "site.toml").unlink()
    for command in commands:
        assert command.split()[0] in ("crawler", "jq"), command
        done = run(command, tmp_path, environment)
        assert done.returncode == 0, (command, done.stdout, done.stderr)
    assert (tmp_path / "crawl").exists() or any(tmp_path.glob("*/frontier.db"))
