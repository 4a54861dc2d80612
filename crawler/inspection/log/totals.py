"""Totals of lines of fetch.jsonl: for each host, for each interval of time, and in all.

Invariant: memory is bounded by hosts (HOSTS_KEPT of them, the others share one entry) and by intervals, never by the
number of lines.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from heapq import heappush, heappushpop
from math import exp, log
from typing import Final

from crawler.core.enums import ErrorType, Next, OutcomeLabel, TaskKind, TruncatedReason
from crawler.inspection.log.query import Line, Matcher, Query
from crawler.inspection.log.rotated_log import LogRange, RotatedLog, epoch

HOSTS_KEPT: Final = 50_000
OTHER_HOSTS: Final = "(other hosts)"
_SLOWEST_KEPT: Final = 10
_STEP: Final = 10.0  # buckets for each factor of e, so that quantiles are exact to a tenth
_GOOD: Final = frozenset((OutcomeLabel.OK, OutcomeLabel.NOT_MODIFIED, OutcomeLabel.REDIRECT))
_SERVER_ERROR: Final = 500
_THROTTLED: Final = frozenset((429, 503))


class Spread(dict[int, int]):
    """Histogram of durations: counts by bucket. Each bucket is a tenth wider than the one before."""

    __slots__ = ()

    def note(self, value_ms: float) -> None:
        bucket = int(log(value_ms) * _STEP) if value_ms > 0.01 else -46
        self[bucket] = self.get(bucket, 0) + 1

    def merge(self, other: "Spread") -> None:
        for bucket, count in other.items():
            self[bucket] = self.get(bucket, 0) + count

    def quantile(self, share: float) -> float | None:
        """The value in milliseconds below which a `share` of the values lies; None if there are none."""
        left = share * sum(self.values())
        for bucket in sorted(self):
            left -= self[bucket]
            if left <= 0:
                return exp((bucket + 0.5) / _STEP)
        return None

    def mean(self, share: float) -> float | None:
        """The mean in milliseconds of the lowest `share` of the values; None if there are none."""
        total = left = share * sum(self.values())
        weighed = 0.0
        for bucket in sorted(self):
            taken = min(left, self[bucket])
            weighed += taken * exp((bucket + 0.5) / _STEP)
            left -= taken
            if left <= 0:
                break
        return weighed / total if total else None


@dataclass(slots=True)
class RunningTime:
    """The time for which a crawl ran, from the lines of its log: from the first to the last line of each run, without
    the pauses between runs. Lines of a run stand together, in about the order of their times.
    """

    _ended_s: float = 0.0  # of the runs before
    _run_id: str | None = None
    _first_ts: str = ""
    _last_ts: str = ""

    def add(self, run_id: str, ts: str) -> None:
        if run_id != self._run_id:
            self._ended_s = self.seconds
            self._run_id, self._first_ts, self._last_ts = run_id, ts, ts
        elif ts > self._last_ts:
            self._last_ts = ts
        elif ts < self._first_ts:
            self._first_ts = ts

    @property
    def seconds(self) -> float:
        first, last = epoch(self._first_ts), epoch(self._last_ts)
        return self._ended_s + (max(0.0, last - first) if first is not None and last is not None else 0.0)


@dataclass(slots=True)
class HostTally:
    """The totals of one host. `requests` counts attempts that got a connection, `opened` the connections opened for
    them, `throttled` the responses 429 and 503, `bytes` the bytes of bodies. `gaps` has the times between the ends of
    two requests in succession; `last_at` is the end of the last one.
    """

    attempts: int = 0
    good: int = 0
    bad: int = 0  # errors, truncated responses, status 5xx, and 4xx of pages
    throttled: int = 0
    requests: int = 0
    opened: int = 0
    bytes: int = 0
    spread: Spread = field(default_factory=Spread)
    errors: Counter[str] = field(default_factory=Counter)
    gaps: Spread = field(default_factory=Spread)
    last_at: float | None = None

    def note_end(self, at: float) -> None:
        if self.last_at is not None:
            self.gaps.note((at - self.last_at) * 1e3)
        self.last_at = at if self.last_at is None else max(self.last_at, at)


@dataclass(slots=True)
class Bin:
    """The totals of one interval of time."""

    outcomes: Counter[str] = field(default_factory=Counter)
    bytes: int = 0
    requests: int = 0
    opened: int = 0
    spread: Spread = field(default_factory=Spread)

    def merge(self, other: "Bin") -> None:
        self.outcomes.update(other.outcomes)
        self.bytes += other.bytes
        self.requests += other.requests
        self.opened += other.opened
        self.spread.merge(other.spread)


@dataclass(slots=True)
class LogTotals:
    """All totals. `bin_s` is the length of an interval in seconds; keys of `bins` count such intervals since 1970."""

    bin_s: int = 300
    lines: int = 0
    first_ts: str = ""
    last_ts: str = ""
    running: RunningTime = field(default_factory=RunningTime)
    pages: int = 0  # stored 2xx responses to requests for pages, as the crawl counts them
    auxiliary: int = 0  # attempts at robots.txt, sitemaps, feeds and probes; `outcomes` counts the others
    robots: int = 0
    responses: int = 0
    bytes: int = 0
    links_found: int = 0
    links_new: int = 0
    requests: int = 0
    opened: int = 0
    handshakes: int = 0
    resumed: int = 0
    resent: int = 0
    retries: int = 0  # attempts after the first
    spread: Spread = field(default_factory=Spread)
    outcomes: Counter[str] = field(default_factory=Counter)
    statuses: Counter[int] = field(default_factory=Counter)
    error_types: Counter[str] = field(default_factory=Counter)
    deny_reasons: Counter[str] = field(default_factory=Counter)
    content_types: Counter[str] = field(default_factory=Counter)
    content_bytes: Counter[str] = field(default_factory=Counter)
    nexts: Counter[str] = field(default_factory=Counter)
    hosts: dict[str, HostTally] = field(default_factory=dict)
    bins: dict[int, Bin] = field(default_factory=dict)
    slowest: list[tuple[float, str]] = field(default_factory=list)  # a heap of (milliseconds, URL)
    _minutes: dict[str, int] = field(default_factory=dict)
    _minute: tuple[str, float | None] = field(default=("", None), compare=False)  # the last minute seen, and its start

    def add(self, line: Line) -> None:
        """Count a line of fetch.jsonl. Costs some 5 µs."""
        get = line.get
        ts = get("ts")
        outcome = get("outcome")
        if not isinstance(ts, str) or not isinstance(outcome, str):
            return
        self.lines += 1
        if not self.first_ts or ts < self.first_ts:
            self.first_ts = ts
        if ts > self.last_ts:
            self.last_ts = ts
        self.running.add(str(get("run_id", "")), ts)
        is_page = get("kind", TaskKind.PAGE) == TaskKind.PAGE and not get("url_full", "").endswith("/robots.txt")
        if is_page:
            self.outcomes[outcome] += 1
        else:
            self.auxiliary += 1
        here = self._bin_of(ts)
        here.outcomes[outcome] += 1
        host = self._host_of(str(get("server_address", "")))
        host.attempts += 1
        self.nexts[str(get("next", ""))] += is_page
        if get("attempt", 1) != 1:
            self.retries += 1
        if outcome == OutcomeLabel.DENIED:
            self.deny_reasons[str(get("deny_reason", "?"))] += 1
            return
        status = get("http_response_status_code")
        if outcome in _GOOD:
            host.good += 1
        elif is_page or outcome != OutcomeLabel.HTTP_ERROR or (status or 0) >= _SERVER_ERROR:
            # (4xx for robots.txt, a sitemap, a feed or a probe is no fault)
            host.bad += 1
            error = get("error_type")
            if error is not None:
                self.error_types[error] += 1
                host.errors[error] += 1
        if "conn_id" in line:
            self._add_connection(line, host, here)
            at = self._moment(ts)
            if at is not None:
                host.note_end(at)
        if status is not None:
            self._add_response(line, status, host, here, is_page=is_page)

    def _add_connection(self, line: Line, host: HostTally, here: Bin) -> None:
        self.requests += 1
        host.requests += 1
        here.requests += 1
        if line.get("conn_request_n") == 1:
            self.opened += 1
            host.opened += 1
            here.opened += 1
            if "tls_protocol_version" in line:
                self.handshakes += 1
                self.resumed += bool(line.get("tls_resumed"))
        self.resent += line.get("http_request_resend_count", 0)

    def _add_response(self, line: Line, status: int, host: HostTally, here: Bin, *, is_page: bool) -> None:
        get = line.get
        self.responses += 1
        self.statuses[status] += 1
        size = get("http_response_body_size", 0)
        self.bytes += size
        host.bytes += size
        here.bytes += size
        if status in _THROTTLED:
            host.throttled += 1
            host.errors[str(status)] += 1
        elif status >= _SERVER_ERROR or (
            is_page and get("outcome") == OutcomeLabel.HTTP_ERROR
        ):  # also for a 304 to an unconditional request
            host.errors[str(status)] += 1
        url = get("url_full", "")
        if url.endswith("/robots.txt"):
            self.robots += 1
        elif 200 <= status < 300 and is_page and _is_stored(line):
            self.pages += 1
        content_type = get("content_type") or "(none)"
        self.content_types[content_type] += 1
        self.content_bytes[content_type] += size
        self.links_found += get("links_found", 0)
        self.links_new += get("links_new", 0)
        taken_ms = get("ttfb_ms", 0) + get("body_ms", 0)
        self.spread.note(taken_ms)
        host.spread.note(taken_ms)
        here.spread.note(taken_ms)
        self._note_slow(taken_ms, url)

    def _note_slow(self, taken_ms: float, url: str) -> None:
        slowest = self.slowest
        if len(slowest) < _SLOWEST_KEPT:
            heappush(slowest, (taken_ms, url))
        elif taken_ms > slowest[0][0]:
            heappushpop(slowest, (taken_ms, url))

    def _moment(self, ts: str) -> float | None:
        """Epoch seconds of a timestamp; None for other text."""
        if ts[:16] != self._minute[0]:
            self._minute = (ts[:16], epoch(ts[:16] + ":00"))
        begin = self._minute[1]
        try:
            return None if begin is None else begin + float(ts[17:23])
        except ValueError:
            return None

    def _bin_of(self, ts: str) -> Bin:
        minute = ts[:16]
        number = self._minutes.get(minute)
        if number is None:
            at = epoch(ts[:19])
            number = 0 if at is None else int(at // self.bin_s)
            if self.bin_s >= 60:  # a minute lies in one interval
                self._minutes[minute] = number
        found = self.bins.get(number)
        if found is None:
            found = self.bins[number] = Bin()
        return found

    def _host_of(self, name: str) -> HostTally:
        found = self.hosts.get(name)
        if found is None:
            if len(self.hosts) >= HOSTS_KEPT:
                name = OTHER_HOSTS
                found = self.hosts.get(name)
            if found is None:
                found = self.hosts[name] = HostTally()
        return found


@dataclass(slots=True)
class Gathered:
    """Totals, and messages about what could not be read."""

    tally: LogTotals
    problems: list[str] = field(default_factory=list)


def gather(parts: RotatedLog, ranges: Sequence[LogRange], query: Query, *, bin_s: int, name: str) -> Gathered:
    """Count the lines in these ranges that match the query. `name` is the name of the log, for messages."""
    tally, matcher = LogTotals(bin_s), Matcher(query)
    for log_range in ranges:
        for block in log_range.part.blocks(log_range.start, log_range.end):
            for _, line in matcher.find(block):
                tally.add(line)
    return Gathered(tally, parts.problems() + matcher.problems(name))


def _is_stored(line: Line) -> bool:
    """Whether a 2xx response was the last of its attempts, and had a body that may be stored as a page."""
    return (
        line.get("next") != Next.RETRY
        and line.get("error_type") != ErrorType.TOO_LARGE
        and line.get("truncated") != TruncatedReason.CONTENT_TYPE
    )
