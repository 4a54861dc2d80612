"""The lines in which those stand who wait for a connection, and what one origin holds. The pool decides; this orders.

Invariant: a line is in order of arrival, whichever way its members came into it.
"""

import asyncio
from collections import deque
from dataclasses import dataclass, field

from crawler.core.models import Origin
from crawler.fetch.connection import Connection


@dataclass(slots=True, eq=False)
class Waiter:
    """Someone at a cap. Granted is a connection, or None: a place in which to open one."""

    origin: Origin
    granted: asyncio.Future[Connection | None]
    number: int  # order of arrival


class Line:
    """Waiters, first come first served. Those whose wait is over by themselves, cancelled, do not count."""

    __slots__ = ("_waiters",)

    def __init__(self) -> None:
        self._waiters: deque[Waiter] = deque()

    def join(self, waiter: Waiter) -> None:
        """Stand where one's arrival entitles one to."""
        waiters = self._waiters
        at = len(waiters)
        while at and waiters[at - 1].number > waiter.number:
            at -= 1
        waiters.insert(at, waiter)

    def first(self) -> Waiter | None:
        waiters = self._waiters
        while waiters and waiters[0].granted.done():
            waiters.popleft()
        return waiters[0] if waiters else None

    def pop(self) -> Waiter:
        """Take the first out; there must be one."""
        return self._waiters.popleft()

    def leave(self, waiter: Waiter) -> None:
        if waiter in self._waiters:
            self._waiters.remove(waiter)

    def drain(self) -> list[Waiter]:
        """Everyone who still waits, taken out."""
        waiting = [waiter for waiter in self._waiters if not waiter.granted.done()]
        self._waiters.clear()
        return waiting

    def __len__(self) -> int:
        return len(self._waiters)


@dataclass(slots=True, eq=False)
class Places:
    """One origin's share. `taken` counts places: idle, lent and opening connections. Someone waits here only while all
    of the origin's places are taken.
    """

    taken: int = 0
    idle: list[Connection] = field(default_factory=list)
    line: Line = field(default_factory=Line)
