"""Positions of the keys and values of a TOML document, which tomli reports for syntax errors only.

A scanner for documents that tomli has accepted: it finds where values end, and does not parse them.
Invariant: for every path that `tomli.loads` yields, from tables down to
single elements of arrays, there is a Span, and its value's text means the same value.
"""

import re
from bisect import bisect_right
from dataclasses import dataclass
from itertools import accumulate, count
from typing import Final

import tomli

Path = tuple[str | int, ...]

_BLANK: Final = re.compile(r"(?:[ \t\n]+|#[^\n]*)*")
_COMMA: Final = re.compile(rf"{_BLANK.pattern},?{_BLANK.pattern}")
_KEY_PART: Final = re.compile(r'[ \t]*("(?:\\.|[^"\\\n])*"|\'[^\'\n]*\'|[^\s.=\]"\'#]+)[ \t]*(\.?)')
_OPENING: Final = re.compile(r"\[\[?")
_CLOSING: Final = re.compile(r"\]\]?")
_EQUALS: Final = re.compile(r"=[ \t]*")
# Anything that is no array and no inline table. A multi-line string may end in up to five quotes, two of them its own;
# a date may have one space before its time.
_SCALAR: Final = re.compile(
    r'"""(?:[^"\\]|\\[\s\S]|"(?!""))*"{3,5}'
    r"|'''(?:[^']|'(?!''))*'{3,5}"
    r'|"(?:\\.|[^"\\\n])*"'
    r"|'[^'\n]*'"
    r"|[^\s,\]}#]+(?: [0-9][^\s,\]}#]*)?"
)
_NO_KEY: Final = -1


@dataclass(frozen=True, slots=True)
class Span:
    """Offsets into the source: where the key begins (-1: an array element has none), where the value begins and ends.

    A table written with a header has the header as its key and an empty value.
    """

    key: int
    start: int
    end: int


class Positions:
    """The spans of a document, and lines and columns for them. `source` is valid TOML with LF line ends."""

    def __init__(self, source: str) -> None:
        self._line_starts = [0, *accumulate(len(line) + 1 for line in source.split("\n"))][:-1]
        self.spans: dict[Path, Span] = {(): Span(0, 0, 0), **_TomlScanner(source).document()}

    def key(self, path: Path) -> tuple[int, int]:
        """Line and column of the key at `path`, or of the nearest key above it."""
        while path not in self.spans or self.spans[path].key == _NO_KEY:
            path = path[:-1]
        return self._at(self.spans[path].key)

    def value(self, path: Path) -> tuple[int, int]:
        """Line and column of the value at `path`, or of the nearest one above it that has a position."""
        while path not in self.spans:
            path = path[:-1]
        span = self.spans[path]
        return self._at(span.start if span.end > span.start else span.key)

    def _at(self, offset: int) -> tuple[int, int]:
        line = bisect_right(self._line_starts, offset)
        return line, offset - self._line_starts[line - 1] + 1


class _TomlScanner:
    """One pass over the source."""

    def __init__(self, source: str) -> None:
        self._source = source
        self._offset = 0
        self._spans: dict[Path, Span] = {}
        self._table_counts: dict[Path, int] = {}  # of [[arrays of tables]], by the array's path

    def document(self) -> dict[Path, Span]:
        table: Path = ()
        self._skip(_BLANK)
        while self._offset < len(self._source):
            if self._source[self._offset] == "[":
                table = self._header()
            else:
                self._pair(table)
            self._skip(_BLANK)
        return self._spans

    def _skip(self, pattern: re.Pattern[str]) -> re.Match[str]:
        """Move past what `pattern` matches here."""
        match = pattern.match(self._source, self._offset)
        assert match is not None, f"no {pattern.pattern} at {self._offset}: the document was not checked first"
        self._offset = match.end()
        return match

    def _keys(self) -> list[tuple[str, int]]:
        """The parts of a dotted key and where each begins."""
        parts, dot = [], "."
        while dot:
            match = self._skip(_KEY_PART)
            text, dot = match.groups()
            parts.append((tomli.loads(f"k = {text}")["k"] if text[0] in "\"'" else text, match.start(1)))
        return parts

    def _header(self) -> Path:
        is_array = self._skip(_OPENING)[0] == "[["
        path: Path = ()
        keys = self._keys()
        for part, offset in keys:
            path += (part,)
            span = Span(offset, offset, offset)
            self._spans.setdefault(path, span)
            if is_array and offset == keys[-1][1]:
                self._table_counts[path] = self._table_counts.get(path, 0) + 1
            if path in self._table_counts:  # a header refers to the last table of an array
                path += (self._table_counts[path] - 1,)
                self._spans.setdefault(path, span)
        self._skip(_CLOSING)
        return path

    def _pair(self, path: Path) -> None:
        """`dotted.key = value` inside the table at `path`."""
        *above, (name, key) = self._keys()
        for part, offset in above:
            path += (part,)
            self._spans.setdefault(path, Span(offset, offset, offset))
        self._skip(_EQUALS)
        self._value((*path, name), key)

    def _value(self, path: Path, key: int = _NO_KEY) -> None:
        """Move past the value at `path` and record it, and what is inside it."""
        start = self._offset
        if self._source[start] not in "[{":
            self._skip(_SCALAR)
        else:
            self._offset += 1
            self._skip(_BLANK)
            for index in count():
                if self._source[self._offset] in "]}":
                    break
                if self._source[start] == "{":
                    self._pair(path)
                else:
                    self._value((*path, index))
                self._skip(_COMMA)
            self._offset += 1
        self._spans[path] = Span(key, start, self._offset)
