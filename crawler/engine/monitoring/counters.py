"""Counters of events, for the views, the summary and the store; histograms of durations, for the metrics; rates of the
last seconds, delay of the event loop, points of the last hour for plots, CPU time and memory.

Counters are updated on the event loop only, for every page. `RateMeter` samples them once a second, so that it costs
nothing per page.
"""

import resource
from bisect import bisect_left
from collections import Counter, deque
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from crawler.core.clock import Clock
from crawler.core.enums import ErrorType, OutcomeLabel, TaskKind, TruncatedReason, UrlState
from crawler.core.media_types import XHTML, mime_type
from crawler.core.models import Counters, Denied, Failed, Fetched, NotModified, Outcome, Redirected, Settlement
from crawler.core.outcomes import outcome_label, response_of
from crawler.fetch.pool_statistics import PoolStats

BOUNDS_S: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 600.0)
PHASES: Final = ("resolve", "connect", "tls", "first_byte", "body")


@dataclass(slots=True)
class CrawlCounters:
    """Counts of this run. `life` has the counts of the output directory over all runs, up to the last commit.

    `responses` counts response heads: of pages (`page_responses`, by outcome), and of robots.txt, sitemaps, feeds and
    probes (`auxiliary`). `pages` counts stored 2xx responses of pages. `outcomes` counts all attempts, by outcome.
    `gave_up` counts URLs that are not tried again, by their last failure ("read_timeout", "status 500").
    """

    responses: int = 0
    pages: int = 0
    html: int = 0
    bytes: int = 0
    errors: int = 0
    denied: int = 0
    links_found: int = 0
    links_new: int = 0
    page_responses: Counter[str] = field(default_factory=Counter)
    auxiliary: int = 0
    gave_up: Counter[str] = field(default_factory=Counter)
    outcomes: Counter[str] = field(default_factory=Counter)
    error_types: Counter[str] = field(default_factory=Counter)
    deny_reasons: Counter[str] = field(default_factory=Counter)
    last_url: str = ""
    life: Counters = field(default_factory=Counters)

    def attempted(self, outcome: Outcome, kind: TaskKind, url: str) -> None:
        """Count an attempt that ended."""
        self.last_url = url
        word = outcome_label(outcome)
        self.outcomes[word] += 1
        response = response_of(outcome)
        if response is not None:
            self.responses += 1
            self.bytes += len(response.raw_head) + response.raw_body.size
            if kind is TaskKind.PAGE:
                self.page_responses[word] += 1
            else:
                self.auxiliary += 1
        if isinstance(outcome, Failed):
            self.errors += 1
            self.error_types[outcome.error_type] += 1
        elif isinstance(outcome, Denied):
            self.denied += 1
            self.deny_reasons[outcome.reason] += 1
        elif isinstance(outcome, Fetched) and outcome.error_type is not None:
            self.errors += 1
            self.error_types[outcome.error_type] += 1

    def reconsidered(self, before: Outcome, after: Outcome, kind: TaskKind) -> None:
        """Correct the count of an attempt whose outcome was changed by processing the response."""
        for counts in (self.outcomes, self.page_responses) if kind is TaskKind.PAGE else (self.outcomes,):
            counts[outcome_label(before)] -= 1
            counts[outcome_label(after)] += 1
        if isinstance(after, Fetched) and after.error_type is not None:
            self.errors += 1
            self.error_types[after.error_type] += 1

    def stored(self, settlement: Settlement) -> None:
        """Count a stored visit."""
        if is_stored_page(settlement):
            self.pages += 1
            self.html += _is_html(settlement.outcome)
        if settlement.state is UrlState.GAVE_UP and settlement.task.kind is TaskKind.PAGE:
            self.gave_up[_failure(settlement.outcome)] += 1

    def life_with(self, settlements: list[Settlement]) -> Counters:
        """Return what `life` will be once `settlements` are stored."""
        life = self.life
        fetched = responses = pages = size = errors = denied = 0
        for settlement in settlements:
            response = response_of(settlement.outcome)
            if settlement.task.is_first and not isinstance(settlement.outcome, Denied):
                fetched += 1
            if response is not None:
                responses += 1
                size += len(response.raw_head) + response.raw_body.size
                pages += is_stored_page(settlement)
            errors += isinstance(settlement.outcome, Failed)
            denied += isinstance(settlement.outcome, Denied)
        return Counters(
            life.urls_fetched + fetched,
            life.responses + responses,
            life.pages + pages,
            life.bytes + size,
            life.errors + errors,
            life.denied + denied,
        )


def _failure(outcome: Outcome) -> str:
    if isinstance(outcome, Failed | Fetched) and outcome.error_type is not None:
        return outcome.error_type.value
    response = response_of(outcome)
    return "" if response is None else f"status {response.head.status_code}"


def _is_html(outcome: Outcome) -> bool:
    return isinstance(outcome, Fetched) and mime_type(outcome.head.content_type) in ("text/html", XHTML)


def is_stored_page(settlement: Settlement) -> bool:
    """Whether a settlement is the last attempt at a page, and has a 2xx response."""
    outcome = settlement.outcome
    return (
        isinstance(outcome, Fetched)
        and settlement.task.kind is TaskKind.PAGE
        and settlement.state in (UrlState.DONE, UrlState.GAVE_UP)
        and 200 <= outcome.head.status_code < 300
        and outcome.error_type is not ErrorType.TOO_LARGE
        and outcome.truncated is not TruncatedReason.CONTENT_TYPE
    )


class LatencyMeters:
    """Histograms of durations. `duration` has all attempts; each of `phases` has the attempts with that phase."""

    def __init__(self) -> None:
        self.duration = Histogram()
        self.phases = {name: Histogram() for name in PHASES}

    def attempted(self, outcome: Outcome, dur_s: float) -> None:
        """Add an attempt that ended; denied ones took no time."""
        if isinstance(outcome, Denied):
            return
        self.duration.add(dur_s)
        timings = (outcome.fetched if isinstance(outcome, Redirected | NotModified) else outcome).timings
        phases = self.phases
        if timings.resolve_s:
            phases["resolve"].add(timings.resolve_s)
        if timings.connect_s:
            phases["connect"].add(timings.connect_s)
        if timings.tls_s:
            phases["tls"].add(timings.tls_s)
        if timings.first_byte_s:
            phases["first_byte"].add(timings.first_byte_s)
            phases["body"].add(timings.body_s)


class Histogram:
    """A histogram: counts by bucket, and the sum of all values. Adding a value is a bisection without allocation.

    A bucket counts the values up to and including its bound, as in Prometheus. The last bucket counts the values above
    all bounds.
    """

    __slots__ = ("counts", "total_s")

    def __init__(self) -> None:
        self.counts = [0] * (len(BOUNDS_S) + 1)
        self.total_s = 0.0

    def add(self, value_s: float) -> None:
        self.counts[bisect_left(BOUNDS_S, value_s)] += 1
        self.total_s += value_s


def quantile_s(counts: list[int], share: float) -> float | None:
    """Estimate the value below which a share of the values lies, from counts by bucket; None if there are none."""
    total = sum(counts)
    if not total:
        return None
    wanted, seen = share * total, 0
    for place, count in enumerate(counts):
        if count and seen + count >= wanted:
            low = BOUNDS_S[place - 1] if place else 0.0
            high = BOUNDS_S[min(place, len(BOUNDS_S) - 1)]
            return low + (high - low) * (wanted - seen) / count
        seen += count
    return BOUNDS_S[-1]


SAMPLE_S: Final = 1.0
RATES_OVER_S: Final = 5.0
POINT_S: Final = 10.0  # from one point of a plot to the next
POINTS: Final = 360


@dataclass(frozen=True, slots=True)
class Rates:
    """Means over the last RATES_OVER_S. `cpu_percent` is of one core; `loop_lag_s` is the largest delay of a sample."""

    pages_per_s: float = 0.0
    responses_per_s: float = 0.0
    bytes_per_s: float = 0.0
    cpu_percent: float = 0.0
    loop_lag_s: float = 0.0


@dataclass(frozen=True, slots=True)
class _Sample:
    """Counters at one instant. All but the lag are sums since the start."""

    mono: float
    lag_s: float
    cpu_s: float
    pages: int
    responses: int
    bytes: int
    outcomes: tuple[int, ...]  # in the order of OutcomeLabel
    durations: tuple[int, ...]  # attempts by bucket of their duration
    requests: int
    opened: int


def cpu_s() -> float:
    """CPU time of this process so far, in seconds."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def peak_rss_bytes() -> int:
    """The most memory that this process has held. Not ru_maxrss, which includes the process it was forked from."""
    return _memory("VmHWM:")


def rss_bytes() -> int:
    """The memory this process holds now."""
    return _memory("VmRSS:")


def _memory(name: str) -> int:
    with suppress(OSError), Path("/proc/self/status").open() as lines:
        for line in lines:
            if line.startswith(name):
                return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


class RateMeter:
    """`sample` is to be called every SAMPLE_S."""

    def __init__(self, counters: CrawlCounters, meters: LatencyMeters, clock: Clock) -> None:
        self._counters = counters
        self._meters = meters
        self._clock = clock
        self._last_point_sample = self._sampled(None, 0.0)
        self._samples = deque([self._last_point_sample])
        self._points: deque[dict[str, Any]] = deque(maxlen=POINTS)

    def sample(self, stats: PoolStats, queued: int) -> float:
        """Take a sample, and a point every POINT_S.

        Return the seconds by which the sample is late: the time for which the event loop was blocked.
        """
        now = self._sampled(stats, self._samples[-1].mono + SAMPLE_S)
        self._samples.append(now)
        while len(self._samples) > 2 and now.mono - self._samples[0].mono > RATES_OVER_S:
            self._samples.popleft()
        if now.mono - self._last_point_sample.mono > POINT_S - SAMPLE_S / 2:
            self._points.append(self._point(self._last_point_sample, now, stats.open, queued))
            self._last_point_sample = now
        return now.lag_s

    def _sampled(self, stats: PoolStats | None, expected_mono: float) -> _Sample:
        counters, mono = self._counters, self._clock.mono()
        return _Sample(
            mono=mono,
            lag_s=0.0 if stats is None else max(0.0, mono - expected_mono),
            cpu_s=cpu_s(),
            pages=counters.pages,
            responses=counters.responses,
            bytes=counters.bytes,
            outcomes=tuple(counters.outcomes[word] for word in OutcomeLabel),
            durations=tuple(self._meters.duration.counts),
            requests=0 if stats is None else stats.requests,
            opened=0 if stats is None else stats.opened,
        )

    def _point(self, before: _Sample, now: _Sample, connections: int, queued: int) -> dict[str, Any]:
        """Rates between two samples. Quantiles are of whole attempts, `reuse` is requests per opened connection; None
        where there were none.
        """
        spent_s = now.mono - before.mono
        taken = [new - old for new, old in zip(now.durations, before.durations, strict=True)]
        opened = now.opened - before.opened
        return {
            "at": round(self._clock.now(), 1),
            "outcomes": [round((n - m) / spent_s, 3) for n, m in zip(now.outcomes, before.outcomes, strict=True)],
            "bytes_per_s": round((now.bytes - before.bytes) / spent_s),
            "p50_s": quantile_s(taken, 0.5),
            "p95_s": quantile_s(taken, 0.95),
            "connections": connections,
            "reuse": round((now.requests - before.requests) / opened, 2) if opened > 0 else None,
            "queued": queued,
        }

    def rates(self) -> Rates:
        """The rates at the last sample."""
        first, last = self._samples[0], self._samples[-1]
        spent_s = last.mono - first.mono
        if spent_s <= 0:
            return Rates()
        return Rates(
            pages_per_s=round((last.pages - first.pages) / spent_s, 2),
            responses_per_s=round((last.responses - first.responses) / spent_s, 2),
            bytes_per_s=round((last.bytes - first.bytes) / spent_s),
            cpu_percent=round(100 * (last.cpu_s - first.cpu_s) / spent_s, 1),
            loop_lag_s=round(max(sample.lag_s for sample in self._samples), 4),
        )

    def history(self) -> dict[str, Any]:
        """The points as series for plots: lists of equal length, the oldest point first."""
        names = ("at", "bytes_per_s", "p50_s", "p95_s", "connections", "reuse", "queued")
        columns: dict[str, Any] = {name: [point[name] for point in self._points] for name in names}
        by_word = {str(word): [p["outcomes"][n] for p in self._points] for n, word in enumerate(OutcomeLabel)}
        return columns | {"outcomes": by_word}
