"""The lines of a log that a query selects: all of them in order, the last few, or new ones as they are written.

A log is followed by looking at the file a few times a second: it may be on a disk of another machine, from which no
notifications come. Invariants: memory is bounded by a block and the lines selected, not by the log. A line that is
written while the log is followed is yielded once, in order, whatever the name of the file when it is read; only parts
that were deleted before they were read are lost.
"""

import os
import re
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, Final

import orjson

from crawler.core.formatting import count, printable
from crawler.core.scope import compile_pattern
from crawler.core.url import parse_seed
from crawler.inspection.log.rotated_log import BLOCK, LogPart, RotatedLog, cut, epoch, is_coded, log_files, select

Line = dict[str, Any]

_WILD: Final = re.compile(r"[*?]")
_LITERAL: Final = re.compile(r"[A-Za-z0-9_.~/:-]+")  # characters that JSON never escapes
_BACK_BYTES: Final = 4 * 1024 * 1024  # searched at a time, from the end backwards


@dataclass(frozen=True, slots=True)
class Query:
    """What a line must match; an empty field matches all. Words of one field are alternatives.

    `hosts` are names, "*.name" for all below it; `statuses` "404" or "4xx"; `url` a glob or "re:…" as in the scope, or
    plain text that the URL must contain. `since` and `until` are timestamps as the log has them (until is excluded).
    """

    hosts: tuple[str, ...] = ()
    outcomes: tuple[str, ...] = ()
    error_types: tuple[str, ...] = ()
    deny_reasons: tuple[str, ...] = ()
    statuses: tuple[str, ...] = ()
    events: tuple[str, ...] = ()
    url: str = ""
    since: str = ""
    until: str = ""

    def needle(self) -> bytes:
        """Bytes that every matching line contains; b"" if there are none."""
        candidates = [f'"{words[0]}"' for words in (self.events, self.outcomes, self.deny_reasons, self.error_types)
                      if len(words) == 1]  # fmt: skip
        if len(self.hosts) == 1:
            host = self.hosts[0]
            candidates.append(f'{host[1:]}"' if host.startswith("*.") else f'"{host}"')
        if self.url and not self.url.startswith("re:"):
            candidates += _LITERAL.findall(_WILD.sub(" ", self.url))
        return max(candidates, key=len, default="").encode()

    def tests(self) -> list[Callable[[Line], bool]]:
        """The conditions, the cheap ones first. Raises ScopePatternError for a bad `url`."""
        tests: list[Callable[[Line], bool]] = []
        for name, words in (
            ("event", self.events), ("outcome", self.outcomes), ("error_type", self.error_types),
            ("deny_reason", self.deny_reasons),
        ):  # fmt: skip
            if words:
                tests.append(_word_test(name, frozenset(words)))
        if self.since or self.until:
            tests.append(_time_test(self.since, self.until))
        if self.statuses:
            tests.append(_status_test(self.statuses))
        if self.hosts:
            tests.append(_host_test(self.hosts))
        if self.url:
            tests.append(_url_test(self.url))
        return tests


def _word_test(name: str, words: frozenset[str]) -> Callable[[Line], bool]:
    return lambda line: line.get(name) in words


def _time_test(since: str, until: str) -> Callable[[Line], bool]:
    end = until or "~"  # sorts after every digit
    return lambda line: since <= str(line.get("ts", "")) < end


def _status_test(statuses: tuple[str, ...]) -> Callable[[Line], bool]:
    exact = frozenset(int(status) for status in statuses if status.isdigit())
    classes = frozenset(int(status[0]) for status in statuses if not status.isdigit())

    def test(line: Line) -> bool:
        code = line.get("http_response_status_code", line.get("status"))
        return isinstance(code, int) and (code in exact or code // 100 in classes)

    return test


def host_names(hosts: Sequence[str]) -> tuple[str, ...]:
    """Host names that a person typed ("*.name": all below it), spelled as in the store and the logs, but without the
    brackets of an IPv6 address. Raises UrlError for what is neither a name nor an address.
    """
    names = []
    for text in hosts:
        bare = text.strip().removeprefix("*.")
        names.append(text.strip()[: -len(bare)] + parse_seed(bare)[1].host.strip("[]"))
    return tuple(names)


def host_test(hosts: tuple[str, ...]) -> Callable[[str], bool]:
    """A test whether a host name is one of `hosts`, or below a "*.name" of them."""
    exact = frozenset(host.lower() for host in hosts if not host.startswith("*."))
    suffixes = tuple(host[1:].lower() for host in hosts if host.startswith("*."))
    return lambda host: host in exact or (bool(suffixes) and host.endswith(suffixes))


def _host_test(hosts: tuple[str, ...]) -> Callable[[Line], bool]:
    is_one = host_test(hosts)
    return lambda line: is_one(str(line.get("server_address", "")).strip("[]"))


def _url_test(pattern: str) -> Callable[[Line], bool]:
    if not pattern.startswith("re:") and not _WILD.search(pattern):
        return lambda line: pattern in str(line.get("url_full", ""))
    search = compile_pattern(pattern).search
    return lambda line: search(str(line.get("url_full", ""))) is not None


@dataclass(slots=True)
class Matcher:
    """Finds the lines of a query in blocks of whole lines, and counts what it could not read."""

    query: Query
    malformed: int = 0
    first_malformed: bytes = b""
    _needle: bytes = field(init=False)
    _tests: list[Callable[[Line], bool]] = field(init=False)

    def __post_init__(self) -> None:
        self._needle = self.query.needle()
        self._tests = self.query.tests()

    def find(self, block: bytes) -> Iterator[tuple[bytes, Line]]:
        """The matching lines, each as its bytes (without newline) and parsed."""
        tests = self._tests
        loads = orjson.loads
        for raw in _lines_with(block, self._needle) if self._needle else block.split(b"\n"):
            if not raw:
                continue
            try:
                line = loads(raw)
            except orjson.JSONDecodeError:
                self.note_malformed(raw)
                continue
            if not isinstance(line, dict):
                self.note_malformed(raw)
                continue
            for test in tests:
                if not test(line):
                    break
            else:
                yield raw, line

    def note_malformed(self, raw: bytes) -> None:
        """Count a line that is no JSON object."""
        if not self.malformed:
            self.first_malformed = raw[:200]
        self.malformed += 1

    def problems(self, name: str) -> list[str]:
        """A message about the lines that could not be read, if there are any."""
        if not self.malformed:
            return []
        sample = printable(self.first_malformed[:60].decode("utf-8", "replace"))
        return [f"{name}: left out {count(self.malformed, 'line')} without valid JSON, the first: {sample}"]


def _lines_with(block: bytes, needle: bytes) -> Iterator[bytes]:
    """The lines of a block that contain `needle`."""
    at = block.find(needle)
    while at >= 0:
        begins = block.rfind(b"\n", 0, at) + 1
        ends = block.find(b"\n", at)
        if ends < 0:
            yield block[begins:]
            return
        yield block[begins:ends]
        at = block.find(needle, ends + 1)


def matching(parts: RotatedLog, matcher: Matcher) -> Iterator[tuple[bytes, Line]]:
    """All matching lines, each as its bytes and parsed, the oldest first."""
    for log_range in select(parts, epoch(matcher.query.since), epoch(matcher.query.until)):
        for block in log_range.part.blocks(log_range.start, log_range.end):
            yield from matcher.find(block)


def last(parts: RotatedLog, matcher: Matcher, count: int) -> list[tuple[bytes, Line]]:
    """The last `count` matching lines, the oldest first. Reads no further back than necessary."""
    groups: list[list[tuple[bytes, Line]]] = []
    found = 0
    ranges = select(parts, epoch(matcher.query.since), epoch(matcher.query.until))
    for log_range in reversed(cut(ranges, _BACK_BYTES)):
        if found >= count:
            break
        kept: deque[tuple[bytes, Line]] = deque(maxlen=count - found)
        for block in log_range.part.blocks(log_range.start, log_range.end):
            kept.extend(matcher.find(block))
        groups.append(list(kept))
        found += len(kept)
    return [line for group in reversed(groups) for line in group]


class Follower:
    """Follows the log at `path` from the end that `part` had when it was opened; with None from the beginning of the
    first file that appears.
    """

    def __init__(self, path: Path, part: LogPart | None) -> None:
        self._path = path
        self._file: BinaryIO | None = None
        self._at = 0
        self._carry = b""
        if part is not None and part.is_plain:
            self._file = os.fdopen(os.dup(part.file.fileno()), "rb", buffering=0)
            self._at = part.size
            self._go_back_to_line_start(part)

    def _go_back_to_line_start(self, part: LogPart) -> None:
        """A last line without newline was not shown yet: read it again when it is complete."""
        begins = self._at
        while begins > 0 and os.pread(part.file.fileno(), 1, begins - 1) != b"\n":
            begins -= 1
        self._at = begins

    def poll(self) -> Iterator[bytes]:
        """Blocks of whole lines that were written since the last call. Raises OSError."""
        if self._file is None:
            self._file = _open(self._path)
            if self._file is None:
                return
        yield from self._read()
        while (younger := self._open_younger()) is not None:
            # Nothing is written to a file after the rename of a rotation: what is read now is its end.
            yield from self._read()
            if self._carry:
                yield self._carry
            self._file.close()
            self._file, self._at, self._carry = younger, 0, b""
            yield from self._read()

    def _read(self) -> Iterator[bytes]:
        assert self._file is not None
        descriptor = self._file.fileno()
        if os.fstat(descriptor).st_size < self._at:  # it was truncated in place
            self._at, self._carry = 0, b""
        while data := os.pread(descriptor, BLOCK, self._at):
            self._at += len(data)
            whole = data.rfind(b"\n") + 1
            if whole:
                yield self._carry + data[:whole]
                self._carry = data[whole:]
            else:
                self._carry += data

    def _open_younger(self) -> BinaryIO | None:
        """Open the next younger part; None if the one that is read is the youngest."""
        assert self._file is not None
        status = os.fstat(self._file.fileno())
        mine = _identity(status)
        try:
            if _identity(self._path.stat()) == mine:
                return None
        except FileNotFoundError:
            return None  # between the two renames of a rotation, or moved away: the crawl will make a new one
        younger: BinaryIO | None = None
        for path in log_files(self._path):  # the youngest first
            file = _open(path) if not is_coded(path) else None
            if file is None:
                continue
            found = os.fstat(file.fileno())
            if _identity(found) == mine:
                file.close()
                break
            if found.st_mtime < status.st_mtime:  # our part was deleted
                file.close()
                break
            if younger is not None:
                younger.close()
            younger = file
        return younger

    def close(self) -> None:
        if self._file is not None:
            self._file.close()


def follow(follower: Follower, wait: Callable[[], None]) -> Iterator[bytes]:
    """Blocks of new lines without end; calls `wait` whenever there is none."""
    while True:
        yield from follower.poll()
        wait()


def _identity(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino


def _open(path: Path) -> BinaryIO | None:
    try:
        return path.open("rb", buffering=0)
    except FileNotFoundError:
        return None
