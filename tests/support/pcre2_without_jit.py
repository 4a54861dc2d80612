"""Patterns of `content.html.tags` as PCRE2 runs them without executable memory."""

import pytest
from pcre2 import LibraryError

from crawler.content.html import tags as scanning
from crawler.content.html.tags import Scanner


def _forbidden(*_args: object) -> None:
    raise LibraryError(-48)  # PCRE2_ERROR_NOMEMORY: there is no executable memory


def interpreted(scanner: Scanner) -> Scanner:
    """The same scanner, interpreted."""
    other = Scanner(scanner._pattern)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scanning._cy, "jit_compile", _forbidden)
        assert other._compiled
    return other
