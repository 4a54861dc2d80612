"""Patterns of `content.scan` as PCRE2 runs them where machine code is forbidden."""

import pytest
from pcre2 import LibraryError

from crawler.content import scan
from crawler.content.scan import Scanner


def _forbidden(*_args: object) -> None:
    raise LibraryError(-48)  # PCRE2_ERROR_NOMEMORY: what a JIT gets that may have no executable memory


def interpreted(scanner: Scanner) -> Scanner:
    """The same without machine code."""
    other = Scanner(scanner._pattern)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scan._cy, "jit_compile", _forbidden)
        assert other._compiled
    return other
