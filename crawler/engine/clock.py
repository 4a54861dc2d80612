"""The system's clocks."""

import time


class SystemClock:
    """`core.clock.Clock` as the machine keeps it; CLOCK_MONOTONIC is the clock of the event loop's timers too.

    UTC follows the wall clock forwards, never back: what is due by it would wait as much longer as it was set back.
    """

    mono = staticmethod(time.monotonic)

    def __init__(self) -> None:
        self._ahead_s = time.time() - time.monotonic()

    def now(self) -> float:
        mono = time.monotonic()
        self._ahead_s = max(self._ahead_s, time.time() - mono)
        return mono + self._ahead_s


def utc_offset_s(at: float) -> float:
    """How far the machine's local clock (TZ, /etc/localtime) is ahead of UTC at a time (UTC)."""
    return float(time.localtime(at).tm_gmtoff)
