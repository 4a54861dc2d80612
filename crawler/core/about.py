"""Errors of the system that name the key of the configuration which helps."""

import os
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def about(key: str, place: object, failing: str = "") -> Iterator[None]:
    """An OSError raised within is raised as "KEY PLACE: FAILING: what the system says", with its errno."""
    try:
        yield
    except OSError as error:
        code = error.errno or 0
        said = os.strerror(code) if code > 0 else error.strerror or str(error)
        raise OSError(code, f"{failing}: {said}" if failing else said, f"{key} {place}") from error
