"""What time it is, as a parameter: durations on the monotonic clock, due times in UTC."""

from typing import Protocol


class Clock(Protocol):
    """Passed in through constructors, so that a test can hold time still."""

    def mono(self) -> float:
        """Seconds on a clock that never jumps; meaningless outside this process."""

    def now(self) -> float:
        """UTC, epoch seconds, as the wall clock says: it may be set, forward and back."""
