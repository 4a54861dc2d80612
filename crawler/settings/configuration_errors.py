"""Problems of a configuration: where they are, and their text for a person.

tomli reports positions for syntax errors only, so a scanner for documents that tomli has accepted finds those of keys
and values. It finds where values end, and does not parse them.
Invariants: one ConfigurationError carries every problem of one load, in the order of the layers. For every path that
`tomli.loads` yields, from tables down to single elements of arrays, there is a Span, and its value's text means the
same value.
"""

import re
import unicodedata
from bisect import bisect_right
from codecs import BOM_UTF16_BE, BOM_UTF16_LE
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date, time
from difflib import get_close_matches
from itertools import accumulate, count
from typing import Final

import tomli

_SHOWN_WIDTH: Final = 120  # columns of a source line; a longer one is cut around the caret


@dataclass(frozen=True, slots=True)
class Problem:
    """One problem. `file` may be "-o key=value" or "environment NAME"; line and column count from 1, 0 where unknown.

    `source_line` is the line as written, empty where there is none; `hint` is a sentence or empty. A warning does not
    refuse the configuration.
    """

    file: str
    line: int
    column: int
    message: str
    source_line: str = ""
    hint: str = ""
    is_warning: bool = False

    @property
    def location(self) -> str:
        """As in "crawler.toml:14:9"; without line and column if unknown."""
        return f"{self.file}:{self.line}:{self.column}" if self.line else self.file

    @property
    def headline(self) -> str:
        """`file:line:column: message`, one line."""
        return f"{self.location}: {self.message}" if self.location else self.message

    def __str__(self) -> str:
        """The headline, the line with a caret below the column, and the hint."""
        lines = [self.headline]
        if self.line and self.source_line.strip():
            shown, caret = _with_caret(self.source_line, self.column)
            lines += [f"    {shown}", f"    {caret}"]
        if self.hint:
            lines.append(f"    {self.hint}")
        return "\n".join(lines)


def _with_caret(line: str, column: int) -> tuple[str, str]:
    start = max(0, column - _SHOWN_WIDTH * 3 // 4) if len(line) > _SHOWN_WIDTH else 0
    cut_left, cut_right = "…" if start else "", "…" if len(line) > start + _SHOWN_WIDTH else ""
    before = cut_left + line[start : column - 1]
    # Tabs stay tabs and wide characters take two columns, so that the caret stands where the terminal puts the text.
    pad = "".join("\t" if c == "\t" else "  " if unicodedata.east_asian_width(c) in "WF" else " " for c in before)
    return cut_left + line[start : start + _SHOWN_WIDTH].rstrip() + cut_right, pad + "^"


class RefusedValue(ValueError):
    """A value that its key cannot hold. The message continues the name of the key; `hint` is a sentence or empty."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


class ConfigurationError(Exception):
    """The configuration cannot be used; `problems` holds every reason, never none."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        super().__init__("\n".join(str(problem) for problem in problems))
        self.problems = list(problems)


def in_order(problems: Sequence[Problem]) -> list[Problem]:
    """Sorted by file in order of first occurrence, then by line; problems without a line come last."""
    files = list(dict.fromkeys(problem.file for problem in problems))
    return sorted(problems, key=lambda p: (files.index(p.file), p.line == 0, p.line, p.column))


def shown(value: object) -> str:
    """A value as quoted in a message, at most 60 characters."""
    match value:
        case bool():
            return "true" if value else "false"
        case str():
            text = value[:60].encode(errors="replace").decode()  # other bytes than UTF-8 cannot be printed
            text = re.sub(r"[\0-\x1f\x7f]", lambda found: f"\\u{ord(found[0]):04x}", text)
            return f'"{text}…"' if len(value) > 60 else f'"{text}"'
        case list() | tuple():
            return "a list"
        case dict():
            return "a table"
        case date() | time():
            return "a date or time"
        case _:
            return str(value)[:60]


def is_utf_16(content: bytes) -> bool:
    """Whether a text file is in UTF-16 or UTF-32, by its byte order mark or NULs."""
    return content[:2] in (BOM_UTF16_LE, BOM_UTF16_BE) or 0 in content[:2]


# Messages of tomli in terms of Python, as patterns, and plain ones; {0} is the group of the pattern.
_SYNTAX: Final = (
    (re.compile(r"Cannot overwrite a value"), "this key or table is already defined"),
    (re.compile(r"Cannot declare \((.*)\) twice"), "the table [{0}] is already defined"),
    (re.compile(r"Cannot mutate immutable namespace \((.*)\)"), "{0} is already defined and cannot be extended"),
    (re.compile(r"Duplicate inline table key '(.*)'"), "the key {0} is twice in one table"),
    (re.compile(r"Illegal character '\\n'"), "a text must end on the line on which it begins"),
    (re.compile(r"Illegal character '(.*)'"), "the character {0} is not allowed here"),
)


def syntax_message(message: str) -> str:
    """A message of tomli in plain words."""
    for pattern, plain in _SYNTAX:
        if (match := pattern.fullmatch(message)) is not None:
            caught = match[1] if match.groups() else ""
            if "', '" in caught or caught.endswith(","):  # parts of a dotted name
                caught = ".".join(part.strip("', ") for part in caught.split(", "))
            caught = re.sub(r"\\[xuU]([0-9a-f]+)", lambda code: f"U+{code[1].upper():0>4}", caught.strip("',"))
            return plain.format(caught)
    return f"{message[:1].lower()}{message[1:]}"


_STATEMENT: Final = re.compile(r"\s*(?P<key>[\w.-]+)\s*(?P<sign>[=:]?)\s*(?P<value>.*?)\s*")
# Words that are often written for true and false.
FLAG_WORDS: Final = {
    "true": "true", "yes": "true", "on": "true", "1": "true", "false": "false", "no": "false", "off": "false",
    "0": "false",
}  # fmt: skip


def syntax_hint(message: str, line: str, column: int) -> str:
    """What to write instead of a line that is not TOML, or "". `message` is tomli's; `column` counts from 1."""
    code = line.partition("#")[0]
    if any(quote in code for quote in "“”„‘’«»"):
        return 'write plain quotes, as in "text"'
    if re.match(r"\s*(//|;)", code) or re.match(r"\s*(//|;)", code[column - 1 :]):
        return 'a comment begins with "#"'
    if message.startswith("Unescaped '\\'"):
        return "write each backslash twice, or the text in single quotes: 're:\\d+'"
    if message.startswith("Unclosed array"):
        return 'is a comma or a "]" missing before this?'
    if message.startswith("Cannot declare"):
        return "put the keys of both tables below one of the two headings"
    if message.startswith(("Cannot overwrite", "Duplicate")):
        return "delete one of the two"
    if column > len(line) and ("character" in message or message.startswith("Expected \"'")):
        return "is a quote missing?"
    if code.lstrip().startswith("["):
        return 'put what follows the "]" on a line of its own' if code.partition("]")[2].strip() else ""
    if (found := _STATEMENT.fullmatch(code)) is None:
        return ""
    return _statement_hint(**found.groupdict())


def _statement_hint(key: str, sign: str, value: str) -> str:
    if not value:
        return f'a value is missing behind "{sign}"' if sign else f"write {key} = VALUE"
    if sign != "=":
        return f"write {key} = {value}"
    if value.lower() in FLAG_WORDS:
        return f"write {FLAG_WORDS[value.lower()]}"
    if re.fullmatch(r"\d{1,3}(,\d{3})+", value):
        return f"write {value.replace(',', '')}"
    if re.fullmatch(r"0\d+", value):
        return f"write {value.lstrip('0') or '0'}"
    if value[0] not in "\"'[{":
        return (
            f'write {key} = "{value}"'
            if re.fullmatch(r"[^\s\"\\]+", value)
            else "text, and a duration or size with its unit, stands in quotes"
        )
    return 'the texts of a list stand in quotes, as in ["a", "b"]' if value[0] == "[" else ""


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """A hint naming the nearest known word, or ""."""
    bare = {one.lower(): one for one in known}
    close = get_close_matches(word.lower(), list(bare), n=1, cutoff=0.6)
    return f'did you mean "{bare[close[0]]}"?' if close else ""


KeyPath = tuple[str | int, ...]

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
        self.spans: dict[KeyPath, Span] = {(): Span(0, 0, 0), **_TomlScanner(source).document()}

    def key(self, path: KeyPath) -> tuple[int, int]:
        """Line and column of the key at `path`, or of the nearest key above it."""
        while path not in self.spans or self.spans[path].key == _NO_KEY:
            path = path[:-1]
        return self._at(self.spans[path].key)

    def value(self, path: KeyPath) -> tuple[int, int]:
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
        self._spans: dict[KeyPath, Span] = {}
        self._table_counts: dict[KeyPath, int] = {}  # of [[arrays of tables]], by the array's path

    def document(self) -> dict[KeyPath, Span]:
        table: KeyPath = ()
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

    def _header(self) -> KeyPath:
        is_array = self._skip(_OPENING)[0] == "[["
        path: KeyPath = ()
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

    def _pair(self, path: KeyPath) -> None:
        """`dotted.key = value` inside the table at `path`."""
        *above, (name, key) = self._keys()
        for part, offset in above:
            path += (part,)
            self._spans.setdefault(path, Span(offset, offset, offset))
        self._skip(_EQUALS)
        self._value((*path, name), key)

    def _value(self, path: KeyPath, key: int = _NO_KEY) -> None:
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
