"""Lines of the logs about one URL and its host, found without reading the logs whole.

The store knows when the last attempt ended: its line is found by bisection. Earlier ones are searched from there
backwards, within a budget of bytes. Invariant: the result says what was not searched.
"""

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Final

import orjson

from crawler.inspection.log.query import Line
from crawler.inspection.log.rotated_log import LogRange, RotatedLog, bracket, cut, epoch, newest, select
from crawler.obs.fetch_line import host_of, redact

EVENTS_SEARCHED: Final = 64 * 1024 * 1024
_SOUGHT: Final = (b'"host_state"', b'"conn_open"', b'"conn_close"')


@dataclass(slots=True)
class PresentState:
    """`states` maps (host, port) to the fields of the last `host_state`, with `until_at` as epoch seconds. `open`
    counts the open connections by host, a lower bound: events before the last EVENTS_SEARCHED bytes are not read.
    """

    states: dict[tuple[str, int], dict[str, Any]] = field(default_factory=dict)
    open: Counter[str] = field(default_factory=Counter)


def present_state(parts: RotatedLog, run_id: str | None) -> PresentState:
    """The present state of hosts and connections, by the events of a run."""
    found = PresentState()
    hosts: dict[int, str] = {}
    for log_range in newest(select(parts), EVENTS_SEARCHED):
        for block in log_range.part.blocks(log_range.start, log_range.end):
            for raw in block.split(b"\n"):
                if not any(word in raw for word in _SOUGHT):
                    continue
                try:
                    line = orjson.loads(raw)
                except orjson.JSONDecodeError:
                    continue
                if not isinstance(line, dict) or (run_id is not None and line.get("run_id") != run_id):
                    continue
                host = str(line.get("server_address", ""))
                match line.get("event"):
                    case "host_state":
                        line["until_at"] = epoch(str(line.get("until", ""))) or 0.0
                        found.states[host, line.get("server_port", 0)] = line
                    case "conn_open":
                        hosts[line.get("conn_id", 0)] = host
                    case "conn_close":
                        hosts.pop(line.get("conn_id", 0), None)
    found.open.update(hosts.values())
    return found


BUDGET: Final = 64 * 1024 * 1024  # bytes searched for earlier attempts, in a tenth of a second if cached
EVENTS_BUDGET: Final = 16 * 1024 * 1024
_PIECE: Final = 4 * 1024 * 1024
_COMMIT_S: Final = 10.0  # a line is written at the commit after its attempt, and there are some commits a second


@dataclass(slots=True)
class UrlHistory:
    """Lines of fetch.jsonl about a URL, the oldest first; `searched` describes what was searched, "" for all."""

    lines: list[Line] = field(default_factory=list)
    searched: str = ""


def attempts(parts: RotatedLog, url: str, *, wanted: int | None, last_at: float | None, whole: bool) -> UrlHistory:
    """The attempts at `url`. `wanted` is their number by the store, `last_at` the end of the last (None: unknown).

    With `whole` everything is searched, however long that takes.
    """
    url = redact(url)
    needle = orjson.dumps(url)
    if whole:
        return UrlHistory([line for log_range in select(parts) for line in _about(log_range, needle, url)])
    found: dict[tuple[str, str], Line] = {}

    def add(lines: Iterable[Line]) -> bool:
        """Add lines; True if all are found."""
        for line in lines:
            found[str(line.get("run_id")), str(line.get("fetch_id"))] = line
        return wanted is not None and len(found) >= wanted

    if wanted == 0:
        return UrlHistory()
    around = _around(parts, last_at) if last_at is not None else []
    is_done = any(add(_about(log_range, needle, url)) for log_range in around)
    searched = ""
    if not is_done:
        before = select(parts, None, last_at)
        budget = newest(before, BUDGET)
        for log_range in reversed(cut(budget, _PIECE)):
            if not log_range.part.is_plain:
                searched = "the parts that are not compressed"
                break
            if add(_about(log_range, needle, url)):
                is_done = True
                break
        if not is_done and sum(log_range.size for log_range in budget) < sum(log_range.size for log_range in before):
            searched = f"the last {BUDGET // 2**20} MiB before the last attempt" if last_at else "the newest lines"
    lines = sorted(found.values(), key=lambda line: str(line.get("ts")))
    return UrlHistory(lines, "" if is_done else searched)


def _around(parts: RotatedLog, at: float) -> list[LogRange]:
    """The ranges in which the line of an attempt that ended at `at` should be."""
    ranges = []
    for part in parts.oldest_first:
        if part.is_plain and part.modified_at >= at - _COMMIT_S:
            start, _ = bracket(part, at - _COMMIT_S)
            _, end = bracket(part, at + _COMMIT_S)
            if start < end:
                ranges.append(LogRange(part, start, end))
    return ranges


def _about(log_range: LogRange, needle: bytes, url: str) -> list[Line]:
    found = []
    for block in log_range.part.blocks(log_range.start, log_range.end):
        at = block.find(needle)
        while at >= 0:
            begins = block.rfind(b"\n", 0, at) + 1
            ends = block.find(b"\n", at)
            ends = len(block) if ends < 0 else ends
            line = _parsed(block[begins:ends])
            if line is not None and line.get("url_full") == url:
                found.append(line)
            at = block.find(needle, ends)
    return found


def last_attempts(parts: RotatedLog, host: str, limit: int) -> list[Line]:
    """The last lines about a host among the newest EVENTS_BUDGET bytes of fetch.jsonl, the newest first."""
    needle = orjson.dumps(host)
    found: list[Line] = []
    for log_range in reversed(cut(newest(select(parts), EVENTS_BUDGET), _PIECE)):
        if len(found) >= limit or not log_range.part.is_plain:
            break
        lines = [
            line
            for block in log_range.part.blocks(log_range.start, log_range.end)
            for raw in (block.split(b"\n") if needle in block else ())
            if needle in raw and (line := _parsed(raw)) is not None and line.get("server_address") == host
        ]
        found += reversed(lines)
    return found[:limit]


def last_host_state(parts: RotatedLog, host: str, port: int) -> Line | None:
    """The last `host_state` event of an origin among the newest events."""
    return _last_event(parts, "host_state", f'"{host}"', lambda line: line.get("server_port") == port)


def skipped_of_host(parts: RotatedLog, host: str, reason: str) -> Line | None:
    """The last `url_skipped` event of a host for this reason; each run logs the first such link."""

    def is_wanted(line: Line) -> bool:
        return line.get("deny_reason") == reason and host_of(str(line.get("url_full", ""))) == host.strip("[]")

    return _last_event(parts, "url_skipped", f"//{host}", is_wanted)


def _last_event(parts: RotatedLog, event: str, needle: str, test: Callable[[Line], bool]) -> Line | None:
    sought = needle.encode()
    for log_range in reversed(cut(newest(select(parts), EVENTS_BUDGET), _PIECE)):
        if not log_range.part.is_plain:
            break
        last: Line | None = None
        for block in log_range.part.blocks(log_range.start, log_range.end):
            if sought not in block:
                continue
            for raw in block.split(b"\n"):
                if sought in raw and event.encode() in raw:
                    line = _parsed(raw)
                    if line is not None and line.get("event") == event and test(line):
                        last = line
        if last is not None:
            return last
    return None


def _parsed(raw: bytes) -> Line | None:
    try:
        line = orjson.loads(raw)
    except orjson.JSONDecodeError:
        return None
    return line if isinstance(line, dict) else None


def time_of_field(line: Line, name: str) -> float | None:
    """A field that holds a timestamp, as epoch seconds."""
    value = line.get(name)
    return epoch(value) if isinstance(value, str) else None
