"""What the logs say of one URL and of its host, found without reading them whole.

The store knows when the last attempt ended: the line about it is found by bisection. Earlier ones are looked for from
there backwards, within a budget of bytes. Invariant: what was not looked through is said.
"""

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Final

import orjson

from crawler.inspection.log.query import Line
from crawler.inspection.log.rotated_log import LogRange, RotatedLog, bracket, cut, epoch, newest, select
from crawler.obs.fetch_line import redact

EVENTS_SEARCHED: Final = 64 * 1024 * 1024
_SOUGHT: Final = (b'"host_state"', b'"conn_open"', b'"conn_close"')


@dataclass(slots=True)
class Present:
    """`states` maps (host, port) to the fields of the last `host_state`, with `until_at` as epoch seconds. `open`
    counts the open connections by host; those opened before the budget's reach are missing, so it is a lower bound.
    """

    states: dict[tuple[str, int], dict[str, Any]] = field(default_factory=dict)
    open: Counter[str] = field(default_factory=Counter)


def present(parts: RotatedLog, run_id: str | None) -> Present:
    """How things stand by the events of a run."""
    found = Present()
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


BUDGET: Final = 64 * 1024 * 1024  # bytes looked through for earlier attempts: a tenth of a second, warm
EVENTS_BUDGET: Final = 16 * 1024 * 1024
_PIECE: Final = 4 * 1024 * 1024
_COMMIT_S: Final = 10.0  # a line follows its attempt by a commit, and commits are a few a second


@dataclass(slots=True)
class UrlHistory:
    """Lines of fetch.jsonl about a URL, the oldest first; `searched` is how far was looked, in words, "" for all."""

    lines: list[Line] = field(default_factory=list)
    searched: str = ""


def attempts(parts: RotatedLog, url: str, *, wanted: int | None, last_at: float | None, whole: bool) -> UrlHistory:
    """The attempts at `url`. `wanted` is how many the store knows of, `last_at` when the last ended (None: not known).

    `whole` looks through everything, however long that takes.
    """
    url = redact(url)
    needle = orjson.dumps(url)
    if whole:
        return UrlHistory([line for log_range in select(parts) for line in _about(log_range, needle, url)])
    found: dict[tuple[str, str], Line] = {}

    def keep(lines: Iterable[Line]) -> bool:
        """Whether all are found."""
        for line in lines:
            found[str(line.get("run_id")), str(line.get("fetch_id"))] = line
        return wanted is not None and len(found) >= wanted

    if wanted == 0:
        return UrlHistory()
    around = _around(parts, last_at) if last_at is not None else []
    is_done = any(keep(_about(log_range, needle, url)) for log_range in around)
    searched = ""
    if not is_done:
        before = select(parts, None, last_at)
        budget = newest(before, BUDGET)
        for log_range in reversed(cut(budget, _PIECE)):
            if not log_range.part.is_plain:
                searched = "the parts that are not compressed"
                break
            if keep(_about(log_range, needle, url)):
                is_done = True
                break
        if not is_done and sum(log_range.size for log_range in budget) < sum(log_range.size for log_range in before):
            searched = f"the last {BUDGET // 2**20} MiB before the last attempt" if last_at else "the newest lines"
    lines = sorted(found.values(), key=lambda line: str(line.get("ts")))
    return UrlHistory(lines, "" if is_done else searched)


def _around(parts: RotatedLog, at: float) -> list[LogRange]:
    """Where the line of an attempt that ended at `at` should stand."""
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


def last_host_state(parts: RotatedLog, host: str, port: int) -> Line | None:
    """The last `host_state` event of an origin among the newest events."""
    return _last_event(parts, "host_state", f'"{host}"', lambda line: line.get("server_port") == port)


def skipped_of_host(parts: RotatedLog, host: str, reason: str) -> Line | None:
    """A link to a host that was refused for this reason while a page was read: the log has the first of each run."""
    return _last_event(
        parts, "url_skipped", f"//{host}", lambda line: _host_of(line) == host and line.get("deny_reason") == reason
    )


def _host_of(line: Line) -> str:
    return str(line.get("url_full", "")).partition("://")[2].partition("/")[0].partition(":")[0]


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
