"""Test data from elsewhere, where there is any."""

import os
from pathlib import Path

import pytest


def vectors(folder: str) -> Path:
    """The folder of that name under VECTORS_DIR; skips the test where it is absent."""
    root = os.environ.get("VECTORS_DIR")
    path = Path(root or "/nonexistent") / folder
    if not path.is_dir():
        pytest.skip(f"needs VECTORS_DIR with {folder}/ in it")
    return path
