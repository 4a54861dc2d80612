"""Apply one pattern to a whole text in one call of PCRE2, and return what its groups held.

Compiled to machine code it does so in a quarter of the time `re` takes, for it makes no Python object of any match.
Where memory may not be made executable (a unit with MemoryDenyWriteExecute) PCRE2 interprets the same pattern. It knows
nothing of HTML. Invariant: what is captured does not depend on how the pattern is run, and is never of another engine.
"""

import re
from collections.abc import Iterable
from contextlib import suppress
from functools import cached_property
from typing import Final, cast

# The layer below `pcre2.Pattern`, for which a page costs 6 µs more, half of them for combining flags of an enumeration.
from pcre2 import LibraryError, _cy

_NUL: Final = b"\0"
_REPLACEMENT: Final = "\ufffd".encode()
_PIECE: Final = re.compile(r"[^\0]+")
_AT_ONCE: Final = 256 * 1024
_GROUPS: Final = b"\0${1:-}${2:-}"  # what stands for each match: nothing but its groups
_EVERY_MATCH: Final = int(_cy.SubstituteOption.GLOBAL | _cy.SubstituteOption.UNSET_EMPTY)


_NO_CONTEXT: Final = _cy.create_match_context()


class Occurrence:
    """Says whether a short pattern occurs in a text; PCRE2 looks at many bytes at a time, 1 µs a page."""

    def __init__(self, pattern: str) -> None:
        self._pattern = pattern

    @cached_property
    def _compiled(self) -> "_cy.PCRE2Code":
        code = _cy.compile(self._pattern.encode("ascii"))
        with suppress(LibraryError):
            _cy.jit_compile(code)
        return code

    def is_in(self, data: bytes) -> bool:
        """Whether it occurs in these bytes."""
        return _cy.match(self._compiled, data, len(data), 0, _NO_CONTEXT, 0)[0] is not None


class ScanLimitError(Exception):
    """PCRE2 gave a text up: a match took more steps (ten million, where it interprets) or stack than it allows."""


class Scanner:
    """Scans UTF-8 texts with a pattern that takes every text to its end, match by match, whatever it says.

    The pattern speaks of bytes; what it captures in groups 1 and 2 is what is wanted, and no match captures both. It is
    compiled when it is first needed.
    """

    def __init__(self, pattern: str) -> None:
        self._pattern = pattern

    @cached_property
    def _compiled(self) -> "_cy.PCRE2Code":
        code = _cy.compile(self._pattern.encode("ascii"))
        with suppress(LibraryError):  # no executable memory: it is interpreted
            _cy.jit_compile(code)
        return code

    def captured(self, data: bytes) -> bytes:
        """What was captured, in order, a NUL before each; nothing behind it where a match captured nothing. A NUL in
        the text counts as U+FFFD (HTML standard §13.2.5). Raises ScanLimitError.
        """
        if _NUL in data:
            data = data.replace(_NUL, _REPLACEMENT)
        try:
            return cast(bytes, _cy.substitute(self._compiled, _GROUPS, data, 0, _EVERY_MATCH)[0])
        except LibraryError as error:
            raise ScanLimitError(str(error)) from error

    def pieces(self, data: bytes) -> Iterable[str]:
        """The same one by one, as text; bytes that are no UTF-8 count as U+FFFD too. A large text gives them one after
        the other: a list of all could take thirty times its size. Raises ScanLimitError, before it returns.
        """
        captured = str(self.captured(data), "utf-8", "replace")
        if len(captured) <= _AT_ONCE:
            return captured.split("\0")
        return (match[0] for match in _PIECE.finditer(captured))
