"""The last hour, for plots: a point every ten seconds, taken from counters that others keep.

Bounded by its length. It is told to take a point and knows no timer.
"""

from collections import deque
from dataclasses import dataclass, field
from typing import Final

from crawler.core.enums import OutcomeWord
from crawler.engine.monitoring.counters import CrawlCounters
from crawler.engine.monitoring.latency import LatencyMeters, quantile_s
from crawler.fetch.pool_statistics import PoolStats

POINT_S: Final = 10.0
POINTS: Final = 360


@dataclass(frozen=True, slots=True)
class Point:
    """What happened since the point before, a second. `outcomes` in the order of OutcomeWord; `p50_s` and `p95_s` of
    whole attempts, None where there were none; `reuse` requests for each connection opened, None where none was.
    """

    at: float
    outcomes: tuple[float, ...]
    bytes_per_s: float
    p50_s: float | None
    p95_s: float | None
    connections: int
    reuse: float | None
    queued: int


@dataclass(slots=True)
class _Before:
    mono: float
    outcomes: tuple[int, ...]
    bytes: int
    durations: list[int] = field(default_factory=list)
    requests: int = 0
    opened: int = 0


class RateHistory:
    """`points` are the oldest first."""

    def __init__(self, tally: CrawlCounters, meters: LatencyMeters, now_mono: float) -> None:
        self._tally = tally
        self._meters = meters
        self._before = _Before(now_mono, self._outcomes(), tally.bytes, list(meters.duration.counts))
        self.points: deque[Point] = deque(maxlen=POINTS)

    def take(self, *, now: float, now_mono: float, stats: PoolStats, queued: int) -> None:
        """Add a point."""
        before, outcomes, durations = self._before, self._outcomes(), list(self._meters.duration.counts)
        spent_s = max(1e-9, now_mono - before.mono)
        taken = [new - old for new, old in zip(durations, before.durations, strict=True)]
        requests, opened = stats.requests - before.requests, stats.opened - before.opened
        self.points.append(
            Point(
                round(now, 1),
                tuple(round((n - old) / spent_s, 3) for n, old in zip(outcomes, before.outcomes, strict=True)),
                round((self._tally.bytes - before.bytes) / spent_s),
                quantile_s(taken, 0.5),
                quantile_s(taken, 0.95),
                stats.open,
                round(requests / opened, 2) if opened > 0 else None,
                queued,
            )
        )
        self._before = _Before(now_mono, outcomes, self._tally.bytes, durations, stats.requests, stats.opened)

    def _outcomes(self) -> tuple[int, ...]:
        return tuple(self._tally.outcomes[word] for word in OutcomeWord)

    def columns(self) -> dict[str, object]:
        """As plots take it: a list for each series, all of one length."""
        points = list(self.points)
        return {
            "at": [point.at for point in points],
            "outcomes": {str(word): [p.outcomes[n] for p in points] for n, word in enumerate(OutcomeWord)},
            "bytes_per_s": [point.bytes_per_s for point in points],
            "p50_s": [point.p50_s for point in points],
            "p95_s": [point.p95_s for point in points],
            "connections": [point.connections for point in points],
            "reuse": [point.reuse for point in points],
            "queued": [point.queued for point in points],
        }
