"""The system's clocks, and who notices that the wall clock was set."""

import time
from typing import Final

from crawler.core.clock import Clock

STEP_S: Final = 1.0  # a smaller step is no news: NTP slews by less, and it slews both clocks


class SystemClock:
    """`core.clock.Clock` as the machine keeps it; CLOCK_MONOTONIC is the clock of the event loop's timers too."""

    mono = staticmethod(time.monotonic)
    now = staticmethod(time.time)


class StepWatch:
    """Compares the wall clock with the monotonic one, from its making on."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._ahead_s = clock.now() - clock.mono()

    def step_s(self) -> float:
        """By how many seconds the wall clock was set since this was last asked: above 0 forward, below 0 back, 0 not.

        A machine that slept looks like a step forward: CLOCK_MONOTONIC stands still meanwhile.
        """
        ahead_s = self._clock.now() - self._clock.mono()
        step_s = ahead_s - self._ahead_s
        if abs(step_s) < STEP_S:
            return 0.0
        self._ahead_s = ahead_s
        return step_s


def utc_offset_s(at: float) -> float:
    """How far the machine's local clock (TZ, /etc/localtime) is ahead of UTC at a time (UTC)."""
    return float(time.localtime(at).tm_gmtoff)
