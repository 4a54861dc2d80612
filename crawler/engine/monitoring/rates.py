"""Rates of the last seconds, delay of the event loop, points of the last hour for plots, CPU time and memory.

`RateMeter` samples the counters once a second, so that it costs nothing per page.
"""

import resource
from collections import deque
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from crawler.core.clock import Clock
from crawler.core.enums import OutcomeLabel
from crawler.engine.monitoring.counters import CrawlCounters, LatencyMeters, quantile_s
from crawler.fetch.pool_statistics import PoolStats

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
