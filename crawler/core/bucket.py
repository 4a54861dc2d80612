"""A token bucket: how much may pass in a time, with times passed in.

It counts in whatever unit its caller does and knows nobody who waits. Invariant: over any stretch of time, what was
spent while the bucket was not in debt is at most `rate` times that stretch plus `burst`.
"""


class TokenBucket:
    """`rate` a second; after rest, `burst` may be spent at once.

    Spending never fails, since what is counted has happened already (bytes that came): it runs into debt, and
    `clear_mono` says when the debt is paid. Kept as one number, the time at which the bucket would be full again.
    """

    __slots__ = ("_full_mono", "burst", "rate")

    def __init__(self, rate: float, burst: float) -> None:
        self.rate = rate
        self.burst = burst
        self._full_mono = 0.0

    def spend(self, amount: float, now_mono: float) -> float:
        """Take `amount` out; returns `clear_mono`."""
        self._full_mono = max(self._full_mono, now_mono) + amount / self.rate
        return self.clear_mono

    @property
    def clear_mono(self) -> float:
        """When it is out of debt; not after now: it is."""
        return self._full_mono - self.burst / self.rate

    def is_full(self, now_mono: float) -> bool:
        """Whether nothing it remembers matters any more."""
        return self._full_mono <= now_mono
