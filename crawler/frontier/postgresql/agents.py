"""An agent among others that share its database: its lease, and what it takes over and gives back (`base.Agents`).

Renewals and looks have a connection of their own, so that they wait for no settlement.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Collection, Sequence
from typing import Final, TypeVar

import asyncpg

from crawler.core.ownership import AgentSeen, is_over
from crawler.frontier.base import FrontierLocked, Look, Receipt
from crawler.frontier.postgresql import sql
from crawler.frontier.postgresql.connection import PostgresConnection
from crawler.frontier.postgresql.writer import PostgresWriter

T = TypeVar("T")
_ANSWER_S: Final = 5.0  # a server that takes longer for a look is as good as away


class PostgresAgents:
    """See `base.Agents`. `writer` returns the writer of the open store."""

    def __init__(self, connection: PostgresConnection, lease_s: float, writer: Callable[[], PostgresWriter]) -> None:
        self.name = connection.agent
        self.lease_s = lease_s
        self._db = connection
        self._writer = writer
        self._connection: asyncpg.Connection | None = None
        self._lock = asyncio.Lock()

    async def renew(self, status: str | None = None) -> None:
        await self._asked(lambda db: self._renew(db, status))

    async def _renew(self, db: asyncpg.Connection, status: str | None) -> None:
        if await db.fetchval(sql.RENEW, self.name, self._db.incarnation, status) is None:
            raise FrontierLocked(f"other agents took over the hosts of {self.name}, which did not renew its lease")

    async def look(self) -> Look:
        async def read(db: asyncpg.Connection) -> Look:
            agents = [AgentSeen(*row) for row in await db.fetch(sql.AGENTS)]
            free = [row[0] for row in await db.fetch(sql.FREE_SLOTS)]
            rows, urls = await db.fetchrow(sql.INBOX)
            return Look(agents, free, rows, urls)

        return await self._asked(read)

    async def _asked(self, ask: Callable[[asyncpg.Connection], Awaitable[T]]) -> T:
        try:
            async with asyncio.timeout(_ANSWER_S), self._lock:
                if self._connection is None:
                    self._connection = await self._db.open_another()
                return await ask(self._connection)
        except FrontierLocked:
            raise
        except BaseException as error:
            await self.close()
            if isinstance(error, (OSError, asyncpg.PostgresError, asyncpg.InterfaceError)):
                raise self._db.unreachable(error) from None
            raise

    async def close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            with contextlib.suppress(Exception):
                connection.terminate()

    @property
    def own(self) -> Sequence[int]:
        return self._writer().slots

    @property
    def owns_all(self) -> bool:
        return self._writer().owns_all

    async def count(self) -> None:
        await self._job(lambda: self._writer().count_others())

    async def disown(self, agent: AgentSeen) -> bool:
        writer = self._writer()
        # What it has begun holds the row of its agent.
        await self._job(lambda: self._db.run(sql.END_BACKENDS, f"crawler {agent.name}"[:63]))
        return await self._job(lambda: writer.disown(agent.name, agent.incarnation, agent.renewal))

    async def take(self, slots: Collection[int]) -> list[int]:
        return await self._job(lambda: self._writer().take_slots(sorted(slots)))

    def stop_reading(self, slots: Collection[int]) -> None:
        self._writer().stop_reading(slots)

    async def give_back(self, slots: Collection[int]) -> None:
        await self._job(lambda: self._writer().give_back(sorted(slots)))

    async def empty_inbox(self, *, now: float, hint_after_s: float | None) -> Receipt | None:
        return await self._job(lambda: self._writer().empty_inbox(now, hint_after_s))

    async def rest(self) -> bool:
        async def is_done() -> bool:
            await self._writer().rest()
            rows = await self._db.rows(sql.WHO_IS_IDLE)
            owners = {agent: is_idle for agent, is_free, is_idle, *_ in rows if not is_free}
            return is_over(owners, sum(slots for _, is_free, _, slots, _ in rows if is_free), rows[0][4])

        return await self._job(is_done)

    async def allot(self, limit: int, wanted: int) -> int:
        return await self._job(lambda: self._writer().allot(limit, wanted))

    async def _job(self, job: Callable[[], Awaitable[T]]) -> T:
        return await self._db.job(job)
