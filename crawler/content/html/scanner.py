"""Scans a whole text with one pattern in one call of PCRE2, and returns what the groups captured.

Compiled to machine code this takes a quarter of the time of `re`, since no Python object is made for a match. If memory
may not be made executable (a unit with MemoryDenyWriteExecute), PCRE2 interprets the same pattern. Invariant: the
result does not depend on how the pattern is run; no other engine is used.
"""

import re
from collections.abc import Iterable
from contextlib import suppress
from functools import cached_property
from typing import Final, cast

# The layer below `pcre2.Pattern`, which costs 6 µs more a page, half of them to combine flags of an enumeration.
from pcre2 import LibraryError, _cy

_NUL: Final = b"\0"
_REPLACEMENT: Final = "\ufffd".encode()
_PIECE: Final = re.compile(r"[^\0]+")
_AT_ONCE: Final = 256 * 1024
_GROUPS: Final = b"\0${1:-}${2:-}"  # the replacement of each match: its groups alone
_EVERY_MATCH: Final = int(_cy.SubstituteOption.GLOBAL | _cy.SubstituteOption.UNSET_EMPTY)


_NO_CONTEXT: Final = _cy.create_match_context()


class ScanLimitError(Exception):
    """PCRE2 gave up on a text: a match took more steps (ten million, if it interprets) or stack than it allows."""


class _Pattern:
    """A pattern for PCRE2, compiled when it is first needed."""

    def __init__(self, pattern: str) -> None:
        self._pattern = pattern

    @cached_property
    def _compiled(self) -> "_cy.PCRE2Code":
        code = _cy.compile(self._pattern.encode("ascii"))
        with suppress(LibraryError):  # no executable memory: it is interpreted
            _cy.jit_compile(code)
        return code


class Occurrence(_Pattern):
    """A short pattern that occurs in a text or not. PCRE2 compares many bytes at a time, in 1 µs a page."""

    def is_in(self, data: bytes) -> bool:
        """Whether it occurs in these bytes."""
        return _cy.match(self._compiled, data, len(data), 0, _NO_CONTEXT, 0)[0] is not None


class Scanner(_Pattern):
    """Applies a pattern to a whole UTF-8 text, match after match. The pattern has to match any text up to its end.

    It matches bytes. Its result is what groups 1 and 2 capture; no match captures both.
    """

    def captured(self, data: bytes) -> bytes:
        """The captures in order, each after a NUL, empty for a match without captures. A NUL in the text counts as
        U+FFFD (HTML standard §13.2.5). Raises ScanLimitError.
        """
        if _NUL in data:
            data = data.replace(_NUL, _REPLACEMENT)
        try:
            return cast(bytes, _cy.substitute(self._compiled, _GROUPS, data, 0, _EVERY_MATCH)[0])
        except LibraryError as error:
            raise ScanLimitError(str(error)) from error

    def pieces(self, data: bytes) -> Iterable[str]:
        """The captures as text, with U+FFFD for bytes that are no UTF-8. Of a large text they are made one at a time: a
        list could take thirty times its size. Raises ScanLimitError, before it returns.
        """
        captured = str(self.captured(data), "utf-8", "replace")
        if len(captured) <= _AT_ONCE:
            return captured.split("\0")
        return (match[0] for match in _PIECE.finditer(captured))
