"""One loan of a connection: it begins and ends with an `async with`, and what was lent comes back.

It does not know which connection it gets, nor what becomes of it afterwards (`pool`). Invariant: a connection that was
acquired is released exactly once, or replaced by one that is.
"""

import asyncio
from types import TracebackType
from typing import Protocol

from crawler.core.models import Origin
from crawler.fetch.connection import Connection


class Lender(Protocol):
    """The pool, as far as a loan needs it; see there."""

    async def acquire(self, origin: Origin) -> Connection: ...

    def release(self, connection: Connection, *, cancelled: bool = False) -> None: ...

    async def replace(self, connection: Connection) -> Connection: ...


class Loan:
    """One connection, lent for as long as its `async with` lasts."""

    __slots__ = ("_connection", "_origin", "_pool")

    def __init__(self, pool: Lender, origin: Origin) -> None:
        self._pool = pool
        self._origin = origin
        self._connection: Connection | None = None

    async def __aenter__(self) -> Connection:
        self._connection = connection = await self._pool.acquire(self._origin)
        return connection

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            self._pool.release(connection, cancelled=kind is not None and issubclass(kind, asyncio.CancelledError))

    async def replace(self) -> Connection:
        """Close the lent connection and lend a fresh one in its place. Raises DialError; nothing is lent then."""
        connection, self._connection = self._connection, None
        assert connection is not None
        self._connection = await self._pool.replace(connection)
        return self._connection
