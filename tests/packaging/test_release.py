"""`make release` builds nothing of a commit that is not to be released."""

import subprocess
from pathlib import Path

import pytest

from crawler import __version__
from tests.support.distributions import ROOT, checked

AUTHOR = ("-c", "user.name=tested", "-c", "user.email=tested@example.org")


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """A clone of this repository, with its environment."""
    if not (ROOT / ".git").exists():
        pytest.skip("this is no clone")
    clone = tmp_path / "clone"
    checked(["git", "clone", "--quiet", "--depth=1", ROOT.as_uri(), clone])
    (clone / ".venv").symlink_to(ROOT / ".venv")
    (clone / ".git/info/exclude").write_text(".venv\n")
    return clone


def refusal(clone: Path) -> str:
    command = [ROOT / "release/release", "dist", "--untested"]
    done = subprocess.run(command, cwd=clone, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1, done.stderr
    assert not (clone / "dist").exists()
    return done.stderr


def test_uncommitted_changes_are_refused(clone: Path) -> None:
    (clone / "README.md").write_text("changed")
    assert "uncommitted changes" in refusal(clone)


def test_a_changelog_of_another_version_is_refused(clone: Path) -> None:
    """Also one whose changes are not released yet."""
    for heading in ("Unreleased", f"{__version__}1 - 2026-01-01"):
        (clone / "CHANGELOG.md").write_text(f"# Changelog\n\n## {heading}\n")
        checked(["git", *AUTHOR, "commit", "--quiet", "--all", "-m", heading], cwd=clone)
        assert f'"## {__version__} - DATE"' in refusal(clone)
