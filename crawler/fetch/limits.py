"""Limits on what a client takes in: bytes a second, in all and from one host, and bytes of bodies held in memory."""

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Final


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


_BURST_S: Final = 1.0  # of its rate, what may come at once after rest
_HOSTS: Final = 4_096


class Bandwidth:
    """`whole` and `per_host` in bytes a second, None: no limit."""

    def __init__(self, whole: int | None = None, per_host: int | None = None) -> None:
        self._whole: TokenBucket | None = None
        self._per_host: int | None = None
        self._hosts: dict[str, TokenBucket] = {}
        self._prune_at = _HOSTS
        self.limit(whole, per_host)

    def limit(self, whole: int | None, per_host: int | None) -> None:
        """Put other limits in force; debts under the old ones are forgotten."""
        self._whole = None if whole is None else TokenBucket(whole, whole * _BURST_S)
        self._per_host = per_host
        self._hosts.clear()

    @property
    def is_limited(self) -> bool:
        return self._whole is not None or self._per_host is not None

    def spend(self, host: str, size: int, now_mono: float) -> float:
        """`size` bytes came from `host`. Returns when reading from it may go on; not after now: at once."""
        until = 0.0 if self._whole is None else self._whole.spend(size, now_mono)
        if self._per_host is not None:
            bucket = self._hosts.get(host)
            if bucket is None:
                bucket = self._admit(host, self._per_host, now_mono)
            until = max(until, bucket.spend(size, now_mono))
        return until

    @property
    def opens_mono(self) -> float:
        """When a request may leave, as far as all hosts together go."""
        return 0.0 if self._whole is None else self._whole.clear_mono

    def host_opens_mono(self, host: str) -> float:
        """The same for one host alone."""
        bucket = self._hosts.get(host)
        return 0.0 if bucket is None else bucket.clear_mono

    def _admit(self, host: str, rate: int, now_mono: float) -> TokenBucket:
        if len(self._hosts) >= self._prune_at:
            self._hosts = {name: bucket for name, bucket in self._hosts.items() if not bucket.is_full(now_mono)}
            self._prune_at = max(_HOSTS, 2 * len(self._hosts))
        bucket = self._hosts[host] = TokenBucket(rate, rate * _BURST_S)
        return bucket


_LOOK_S: Final = 0.01  # `give` comes from any thread and can wake nobody, so while someone waits we look
_STALLED_LOOKS: Final = 25  # looks without a byte given back, a quarter of a second, before one is let on regardless


class ByteBudget:
    """Counts bytes against `limit`. A soft limit: what is under way when it is reached is still taken."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._held = 0
        self._changes: deque[int] = deque()  # appending is atomic; adding to an attribute from two threads is not
        self._waiting: deque[Callable[[bool], None]] = deque()
        self._is_finishing = False  # one may read on to the end of its body, whatever is held
        self._timer: asyncio.TimerHandle | None = None
        self._stalled = 0

    def take(self, n: int) -> None:
        self._changes.append(n)

    def give(self, n: int) -> None:
        self._changes.append(-n)

    @property
    def held(self) -> int:
        """Bytes in memory now. Call it from the event loop's thread only."""
        changes = self._changes
        while changes:
            self._held += changes.popleft()
        return self._held

    def is_spent(self) -> bool:
        return self.held >= self.limit

    def wait(self, resume: Callable[[bool], None]) -> None:
        """Have `resume` called once, later, when its turn has come. Called with True, it may read its body to the end
        without looking at the budget again, and must call `finished` then.
        """
        self._waiting.append(resume)
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(_LOOK_S, self._look)

    def finished(self) -> None:
        """Who was let on to finish has finished."""
        self._is_finishing = False

    def _look(self) -> None:
        self._timer = None
        before = self._held
        if self.held < before:
            self._stalled = 0
        else:
            self._stalled += 1
        if self._stalled >= _STALLED_LOOKS or not self.is_spent():
            # one a look even when memory is free: all at once would spend it again before the next look
            # One that is let on against the budget gets through: a piece each in turn would end none of them.
            finishes = self.is_spent() and not self._is_finishing
            self._is_finishing |= finishes
            self._stalled = 0
            self._waiting.popleft()(finishes)
        if self._waiting:
            self._timer = asyncio.get_running_loop().call_later(_LOOK_S, self._look)
