"""Distributions for the metrics: how long fetches and their phases took. Told of each stored attempt, once.

Counting costs a bisection a value and no allocation: it is on the path of every page. What a bucket means is
Prometheus's: values up to and including its bound, in seconds.
"""

from bisect import bisect_left
from typing import Final

from crawler.core.models import Denied, NotModified, Outcome, Redirected

BOUNDS_S: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 600.0)
PHASES: Final = ("resolve", "connect", "tls", "first_byte", "body")


class Histogram:
    """Counts by bucket (the last one: beyond every bound), and the sum of all values."""

    __slots__ = ("counts", "total_s")

    def __init__(self) -> None:
        self.counts = [0] * (len(BOUNDS_S) + 1)
        self.total_s = 0.0

    def add(self, value_s: float) -> None:
        self.counts[bisect_left(BOUNDS_S, value_s)] += 1
        self.total_s += value_s


def quantile_s(counts: list[int], share: float) -> float | None:
    """The value below which that share lies, by its bucket, in the middle of it; None if there were none."""
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


class LatencyMeters:
    """`duration` is of whole attempts, whatever their end; `phases` of those that had the phase."""

    def __init__(self) -> None:
        self.duration = Histogram()
        self.phases = {name: Histogram() for name in PHASES}

    def attempted(self, outcome: Outcome, dur_s: float) -> None:
        """An attempt ended. What was denied took no time."""
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
