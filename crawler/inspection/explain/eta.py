"""When the queue of a host is expected to be done, at the pace that it is asked at now.

Two lower bounds, the longer one counts: what the delay allows, and what the log shows of the gap between requests.
Hosts that share a politeness key, and origins that share a host name, take turns. It does not guess what is still to be
found.
Invariant: a time is told only where a delay or a gap is known; None is "not known", never "at once".
"""

from bisect import bisect_left
from collections.abc import Iterable
from itertools import accumulate

from crawler.core.options import PolitenessOptions
from crawler.core.politeness import CLOCK_GUARD_S, host_delay


class HostTurns:
    """Queues that take turns, one request each."""

    __slots__ = ("_lengths", "_sums")

    def __init__(self, lengths: Iterable[int]) -> None:
        self._lengths = sorted(lengths)
        self._sums = list(accumulate(self._lengths, initial=0))

    def until_done(self, queued: int) -> int:
        """Requests until one of them, of this length, is empty: its own, and as many of each other, or all it has."""
        shorter = bisect_left(self._lengths, queued)
        return self._sums[shorter] + (len(self._lengths) - shorter) * queued


def gap_of(politeness: PolitenessOptions, crawl_delay_s: float | None, response_s: float) -> float:
    """Seconds from request to request that the delay makes, 0 without one. `response_s` as learned, 0 if it was not."""
    delay_s = host_delay(politeness, crawl_delay_s, response_s)
    return delay_s + CLOCK_GUARD_S + response_s if delay_s > 0 else 0.0


def eta_s(queued: int, by_delay_s: float, by_log_s: float, rest_s: float) -> float | None:
    """Seconds until a queue is done, after a rest of `rest_s`; either bound is 0 where it is not known."""
    if queued <= 0:
        return 0.0
    longer_s = max(by_delay_s, by_log_s)
    return round(max(0.0, rest_s) + longer_s, 1) if longer_s > 0 else None
