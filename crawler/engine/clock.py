"""The system's clocks."""

import time


class SystemClock:
    """`core.clock.Clock` as the machine keeps it. CLOCK_MONOTONIC, the clock of the event loop's timers too."""

    mono = staticmethod(time.monotonic)
    now = staticmethod(time.time)
