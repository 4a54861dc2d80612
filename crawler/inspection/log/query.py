"""The lines of a log that a query asks for: all of them in order, or the last few.

Joins parts, ranges and matcher. Invariant: memory is bounded by a block and the lines asked for, not by the log.
"""

import re
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import orjson

from crawler.core.formatting import count, printable
from crawler.core.scope import compile_pattern
from crawler.core.url import parse_seed
from crawler.inspection.log.rotated_log import RotatedLog, cut, epoch, select

Line = dict[str, Any]

_WILD: Final = re.compile(r"[*?]")
_LITERAL: Final = re.compile(r"[A-Za-z0-9_.~/:-]+")  # what stands in a log as it stands in a pattern, never escaped


@dataclass(frozen=True, slots=True)
class Query:
    """What a line must be; an empty field asks nothing. Words of one field are alternatives.

    `hosts` are names, "*.name" for all below it; `statuses` "404" or "4xx"; `url` a glob or "re:…" as in the scope, or
    plain text that the URL must hold. `since` and `until` are timestamps as the log has them (until is excluded).
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
        """Bytes that every line asked for holds; b"" if nothing is certain."""
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
    end = until or "~"  # behind every digit
    return lambda line: since <= str(line.get("ts", "")) < end


def _status_test(statuses: tuple[str, ...]) -> Callable[[Line], bool]:
    exact = frozenset(int(status) for status in statuses if status.isdigit())
    classes = frozenset(int(status[0]) for status in statuses if not status.isdigit())

    def test(line: Line) -> bool:
        code = line.get("http_response_status_code", line.get("status"))
        return isinstance(code, int) and (code in exact or code // 100 in classes)

    return test


def host_names(hosts: Sequence[str]) -> tuple[str, ...]:
    """Hosts that a person names, "*.name" for all below it, as the store and the logs spell them but for the brackets
    of an IPv6 address. Raises UrlError for what is neither a name nor an address.
    """
    names = []
    for text in hosts:
        bare = text.strip().removeprefix("*.")
        host = parse_seed(f"[{bare}]" if bare.count(":") > 1 and "/" not in bare and "[" not in bare else bare)[1].host
        names.append(text.strip()[: -len(bare)] + host.strip("[]"))
    return tuple(names)


def host_test(hosts: tuple[str, ...]) -> Callable[[str], bool]:
    """Whether a host name is one of `hosts`, or below a "*.name" of them."""
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
        """The lines asked for, as they stand (without newline) and parsed."""
        tests = self._tests
        loads = orjson.loads
        for raw in _holding(block, self._needle) if self._needle else block.split(b"\n"):
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

    def said(self, name: str) -> list[str]:
        """What a person is told of lines that could not be read; nothing if all could."""
        if not self.malformed:
            return []
        sample = printable(self.first_malformed[:60].decode("utf-8", "replace"))
        return [f"{name}: left out {count(self.malformed, 'line')} without valid JSON, the first: {sample}"]


def _holding(block: bytes, needle: bytes) -> Iterator[bytes]:
    """The lines of a block that hold `needle`."""
    at = block.find(needle)
    while at >= 0:
        begins = block.rfind(b"\n", 0, at) + 1
        ends = block.find(b"\n", at)
        if ends < 0:
            yield block[begins:]
            return
        yield block[begins:ends]
        at = block.find(needle, ends + 1)


_BACK_BYTES = 4 * 1024 * 1024  # read at a time from the end backwards


def matching(parts: RotatedLog, matcher: Matcher) -> Iterator[tuple[bytes, Line]]:
    """The lines as they stand and parsed, the oldest first."""
    for log_range in select(parts, epoch(matcher.query.since), epoch(matcher.query.until)):
        for block in log_range.part.blocks(log_range.start, log_range.end):
            yield from matcher.find(block)


def last(parts: RotatedLog, matcher: Matcher, count: int) -> list[tuple[bytes, Line]]:
    """The last `count` of them, the oldest first; reads no further back than it has to."""
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
