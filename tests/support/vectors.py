"""Test data of other projects, if it is there."""

import os
from pathlib import Path

import pytest


def vectors(folder: str) -> Path:
    """The folder of that name under VECTORS_DIR. Skips the test without it."""
    root = os.environ.get("VECTORS_DIR")
    path = Path(root or "/nonexistent") / folder
    if not path.is_dir():
        pytest.skip(f"needs VECTORS_DIR with {folder}/ in it")
    return path
