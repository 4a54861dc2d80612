"""The list of licences is that of the locked packages, and none of them asks more than to be named."""

import re
from importlib.metadata import version
from pathlib import Path

import pytest

from release.licenses import expression, page, pinned

ROOT = Path(__file__).parents[2]
ALLOWED = {"Apache-2.0", "BSD-2-Clause", "BSD-3-Clause", "MIT", "MIT-0", "MPL-2.0", "PSF-2.0", "Zlib"}


def test_the_list_is_in_step_with_the_lock_file() -> None:
    """Write it anew with `make generated`."""
    assert (ROOT / "docs/LICENSES.md").read_text() == page()
    assert len(pinned()) > 30


@pytest.mark.parametrize("package", pinned())
def test_each_is_installed_and_may_be_used(package: str) -> None:
    """In the version of the lock file, so that what was read is what is shipped."""
    assert version(package) == pinned()[package]
    assert set(re.findall(r"[\w.-]+", expression(package))) - {"AND", "OR", "WITH"} <= ALLOWED
