"""Where each key and value of a TOML document stands: tomli tells that for syntax errors only.

A scanner for documents that tomli has already accepted: it finds ends, it does not judge. It reads a value only as far
as its end and leaves the meaning to tomli. Invariant: for every path that `tomli.loads` yields, from tables down to
single elements of arrays, there is a Span, and its value's text means the same value.
"""

import re
from bisect import bisect_right
from dataclasses import dataclass
from itertools import accumulate
from typing import Final

import tomli

Path = tuple[str | int, ...]

_BLANK = re.compile(r"(?:[ \t\n]+|#[^\n]*)*")
_WS = re.compile(r"[ \t]*")
_KEY_PART = re.compile(r'"(?:\\.|[^"\\\n])*"|\'[^\'\n]*\'|[^\s.=\]"\'#]+')
# Anything that is no array and no inline table. A multi-line string may end in up to five quotes, two of them its own;
# a date may have one space before its time.
_SCALAR = re.compile(
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
        self.spans: dict[Path, Span] = _TomlScanner(source).document()

    def key(self, path: Path) -> tuple[int, int]:
        """Line and column of the key at `path`, or of the nearest key above it."""
        while path and (path not in self.spans or self.spans[path].key == _NO_KEY):
            path = path[:-1]
        return self.at(self.spans[path].key) if path else (1, 1)

    def value(self, path: Path) -> tuple[int, int]:
        """Line and column of the value at `path`, or of the nearest one above it that has a position."""
        while path and path not in self.spans:
            path = path[:-1]
        if not path:
            return (1, 1)
        span = self.spans[path]
        return self.at(span.start if span.end > span.start else span.key)

    def at(self, offset: int) -> tuple[int, int]:
        """Line and column, both from 1, of an offset."""
        line = bisect_right(self._line_starts, offset)
        return line, offset - self._line_starts[line - 1] + 1


class _TomlScanner:
    """One walk over the source."""

    def __init__(self, source: str) -> None:
        self._source = source
        self._offset = 0
        self._spans: dict[Path, Span] = {}
        self._table_counts: dict[Path, int] = {}  # of [[arrays of tables]], by the array's path

    def document(self) -> dict[Path, Span]:
        table: Path = ()
        while True:
            self._skip(_BLANK)
            if self._offset >= len(self._source):
                return self._spans
            if self._source[self._offset] == "[":
                table = self._header()
            else:
                self._pair(table)

    def _skip(self, pattern: re.Pattern[str]) -> None:
        match = pattern.match(self._source, self._offset)
        if match is not None:
            self._offset = match.end()

    def _keys(self) -> list[tuple[str, int]]:
        """The parts of a dotted key and where each begins."""
        parts = []
        while True:
            self._skip(_WS)
            match = _KEY_PART.match(self._source, self._offset)
            if match is None:
                raise ValueError(f"no key at offset {self._offset}: the document was not checked first")
            text = match[0]
            parts.append((tomli.loads(f"k = {text}")["k"] if text[0] in "\"'" else text, self._offset))
            self._offset = match.end()
            self._skip(_WS)
            if self._source[self._offset] != ".":
                return parts
            self._offset += 1

    def _header(self) -> Path:
        is_array = self._source.startswith("[[", self._offset)
        self._offset += 2 if is_array else 1
        path: Path = ()
        keys = self._keys()
        for number, (part, offset) in enumerate(keys, 1):
            path += (part,)
            span = Span(offset, offset, offset)
            self._spans.setdefault(path, span)
            if is_array and number == len(keys):
                self._table_counts[path] = self._table_counts.get(path, 0) + 1
            if path in self._table_counts:  # a header means the last table of an array on its way
                path += (self._table_counts[path] - 1,)
                self._spans.setdefault(path, span)
        self._offset += 2 if is_array else 1
        return path

    def _pair(self, table: Path) -> None:
        """`dotted.key = value` inside `table`."""
        path = table
        keys = self._keys()
        for part, offset in keys:
            path += (part,)
            if len(path) < len(table) + len(keys):
                self._spans.setdefault(path, Span(offset, offset, offset))
        self._offset += 1  # "="
        self._skip(_WS)
        start = self._offset
        self._value(path)
        self._spans[path] = Span(keys[-1][1], start, self._offset)

    def _value(self, path: Path) -> None:
        """Move past the value and record what is inside it."""
        opening = self._source[self._offset]
        if opening not in "[{":
            self._skip(_SCALAR)
            return
        closing = "]" if opening == "[" else "}"
        self._offset += 1
        index = 0
        self._skip(_BLANK)
        while self._source[self._offset] != closing:
            if opening == "{":
                self._pair(path)
            else:
                start = self._offset
                self._value((*path, index))
                self._spans[(*path, index)] = Span(_NO_KEY, start, self._offset)
                index += 1
            self._skip(_BLANK)
            if self._source[self._offset] == ",":
                self._offset += 1
                self._skip(_BLANK)
        self._offset += 1
