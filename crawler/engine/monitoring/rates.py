"""How fast the crawl goes, and how late its event loop is: a sample a second, rates over the last few.

It is told to sample and reads counters that others keep; nothing on the path of a fetch knows of it.
"""

import resource
from collections import deque
from dataclasses import dataclass
from typing import Final

from crawler.core.clock import Clock
from crawler.engine.monitoring.counters import CrawlCounters

SAMPLE_S: Final = 1.0
_OVER_S: Final = 5.0


@dataclass(frozen=True, slots=True)
class Rates:
    """A second, over the last few seconds. `cpu_percent` of one core; `loop_lag_s` is the worst of them."""

    pages_per_s: float = 0.0
    responses_per_s: float = 0.0
    bytes_per_s: float = 0.0
    cpu_percent: float = 0.0
    loop_lag_s: float = 0.0


@dataclass(frozen=True, slots=True)
class _Sample:
    mono: float
    pages: int
    responses: int
    bytes: int
    cpu_s: float
    lag_s: float


def cpu_s() -> float:
    """Seconds of CPU time that this process has used."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


class RateMeter:
    """`sample` is to be called every SAMPLE_S."""

    def __init__(self, tally: CrawlCounters, clock: Clock) -> None:
        self._tally = tally
        self._clock = clock
        self._samples: deque[_Sample] = deque()
        self.sample()

    def sample(self) -> float:
        """Take a sample. Returns by how many seconds it is late: so long nothing else could run either."""
        tally, now = self._tally, self._clock.mono()
        lag_s = max(0.0, now - self._samples[-1].mono - SAMPLE_S) if self._samples else 0.0
        self._samples.append(_Sample(now, tally.pages, tally.responses, tally.bytes, cpu_s(), lag_s))
        while len(self._samples) > 2 and now - self._samples[0].mono > _OVER_S:
            self._samples.popleft()
        return lag_s

    def rates(self) -> Rates:
        """As of the last sample."""
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
