"""How many bytes of bodies are held in memory, and who has stopped reading because they are too many.

It does not hold the bytes (`spool`) nor the sockets (`connection`). Invariants: `take` and `give` may be called from
any thread; whoever waits is let on again, first come first served: when memory is free, or, where nothing has been
given back for a while because all of it is in half-read bodies, one at a time and to its end, so that they end.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Final

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

    @property
    def waiting(self) -> int:
        return len(self._waiting)

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
