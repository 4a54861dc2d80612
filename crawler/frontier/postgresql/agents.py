"""An agent among others that share its database: its lease, and what it takes over and gives back (`base.Agents`).

Renewals and looks have a connection of their own, so that they wait for no settlement. `read_fleet` is for programs
beside the crawl, of any machine that reaches the database.
"""

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeVar

import asyncpg
import orjson

from crawler.core.ownership import AgentSeen, is_over
from crawler.frontier.base import FrontierError, FrontierLocked, FrontierUnreachable, Look, Receipt, Totals
from crawler.frontier.postgresql import sql
from crawler.frontier.postgresql.connection import (
    CONNECTION_ERRORS,
    SESSION_OF_READER,
    PostgresConnection,
    address_of,
    connect_failed,
    session_of,
)
from crawler.frontier.postgresql.fleet_control import ask
from crawler.frontier.postgresql.inbox import inbox_urls
from crawler.frontier.postgresql.writer import PostgresWriter, slot_of_host
from crawler.frontier.rows import totals_from

T = TypeVar("T")
_ANSWER_S: Final = 5.0  # a server that takes longer for a look is as good as away
_COUNT_MS: Final = 3_000  # the queued URLs of each agent are counted for so long


class PostgresAgents:
    """See `base.Agents`. `writer` returns the writer of the open store."""

    def __init__(self, connection: PostgresConnection, lease_s: float, writer: Callable[[], PostgresWriter]) -> None:
        self.name = connection.agent
        self.lease_s = lease_s
        self._db = connection
        self._writer = writer
        self._connection: asyncpg.Connection | None = None
        self._lock = asyncio.Lock()
        self._obeyed: int | None = None  # the last command that was carried out for all own slots
        self._answered = 0
        self._takes = 0  # how often slots were taken

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
            if isinstance(error, (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError)):
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

    async def scope_hosts(self) -> list[str]:
        return await self._asked(self._scope_hosts)

    @staticmethod
    async def _scope_hosts(db: asyncpg.Connection) -> list[str]:
        return [row[0] for row in await db.fetch(sql.SCOPE_HOSTS)]

    async def disown(self, agent: AgentSeen) -> bool:
        writer = self._writer()
        # What it has begun holds the row of its agent.
        session = session_of(agent.name, agent.incarnation)
        seen = agent.name, agent.incarnation, agent.renewal
        await self._job(lambda: self._db.run(sql.END_BACKENDS, session, *seen))
        return await self._job(lambda: writer.disown(*seen))

    async def take(self, slots: Collection[int]) -> list[int]:
        foreign = await self._job(lambda: self._writer().take_slots(sorted(slots)))
        self._takes, self._obeyed = self._takes + 1, None  # they may have been without an owner when a command came
        return foreign

    def stop_reading(self, slots: Collection[int]) -> None:
        self._writer().stop_reading(slots)

    async def give_back(self, slots: Collection[int]) -> None:
        await self._job(lambda: self._writer().give_back(sorted(slots)))

    async def empty_inbox(self, *, now: float, hint_after_s: float | None) -> Receipt | None:
        return await self._job(lambda: self._writer().empty_inbox(now, hint_after_s))

    @property
    def transactions(self) -> int:
        return self._db.state.number

    async def rest(self, transactions: int) -> bool:
        async def is_done() -> bool:
            if self._db.state.number != transactions:
                return False
            await self._writer().rest()
            rows = await self._db.rows(sql.WHO_IS_IDLE)
            owners = {agent: is_idle for agent, is_free, is_idle, *_ in rows if not is_free}
            return is_over(owners, sum(slots for _, is_free, _, slots, _ in rows if is_free), rows[0][4])

        return await self._job(is_done)

    def owns_host(self, name: str) -> bool:
        return slot_of_host(name) in self._writer().owned

    async def commands(self) -> list[tuple[int, str, dict[str, Any]]]:
        async def read(db: asyncpg.Connection) -> list[tuple[int, str, dict[str, Any]]]:
            takes, after = self._takes, self._obeyed
            if after is None:
                of_slots = await db.fetchval(sql.OBEYED, self.name)
                after = max(self._answered, self._db.began_after)
                after = after if of_slots is None else min(after, of_slots)
                if takes == self._takes:
                    self._obeyed = after
            rows = await db.fetch(sql.COMMANDS, self.name, after)
            return [(number, name, orjson.loads(arguments)) for number, name, arguments in rows]

        return await self._asked(read)

    async def answer(self, number: int, result: Mapping[str, object], slots: Collection[int]) -> None:
        async def write(db: asyncpg.Connection) -> None:
            async with db.transaction():
                await db.execute(sql.ANSWER, number, self.name, orjson.dumps(dict(result)).decode())
                await db.execute(sql.OBEY, self.name, self._db.incarnation, number, list(slots))

        await self._asked(write)
        self._answered = max(self._answered, number)
        if self._obeyed is not None:  # else slots were taken meanwhile
            self._obeyed = number

    async def ask(
        self, name: str, arguments: Mapping[str, object], *, agent: str | None = None
    ) -> dict[str, dict[str, Any]]:
        try:
            connection = await self._db.open_another()
            try:
                return await ask(connection, name, arguments, agent=agent, sent_by=self.name)
            finally:
                connection.terminate()
        except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
            raise self._db.unreachable(error) from None

    async def last_command(self) -> int:
        return self._db.began_after

    async def last_of(self, names: Sequence[str]) -> str | None:
        return await self._asked(lambda db: db.fetchval(sql.LAST_OF, list(names)))

    async def put_rules(self, rules: str) -> None:
        await self._asked(lambda db: db.execute(sql.PUT_RULES, self.name, self._db.incarnation, rules))

    @property
    def allotted(self) -> int:
        return self._db.state.allotted

    async def allot(self, limit: int, wanted: int) -> int:
        return await self._job(lambda: self._writer().allot(limit, wanted))

    async def _job(self, job: Callable[[], Awaitable[T]]) -> T:
        return await self._db.job(job)


# -- for programs beside the crawl


@dataclass(frozen=True, slots=True)
class AgentView:
    """An agent. `renewed_s`: age of its last renewal. `queued`: URLs of its slots, None if counting them takes long.
    `inbox_urls`: what others found for it and it did not take in yet. `status`: its last `progress`, and the `state` of
    its crawl.
    """

    name: str
    process: str
    has_left: bool
    lease_s: float
    renewed_s: float
    slots: int
    inbox_urls: int
    queued: int | None
    status: Mapping[str, Any]

    @property
    def lives(self) -> bool:
        return not self.has_left and self.renewed_s <= self.lease_s


@dataclass(frozen=True, slots=True)
class FleetView:
    """All agents of a database. `inbox_waits_s`: age of the first URL in the inbox. `pages`: since the crawl began."""

    address: str
    agents: Sequence[AgentView]
    free_slots: int
    inbox_urls: int
    inbox_waits_s: float
    totals: Totals
    pages: int


@contextlib.asynccontextmanager
async def snapshot(dsn: str, password: str | None) -> "AsyncIterator[asyncpg.Connection]":
    """A connection that reads a database as it is at one moment, also while a crawl runs. Raises FrontierError."""
    try:
        connection = await asyncpg.connect(dsn or None, password=password, server_settings=SESSION_OF_READER)
    except CONNECTION_ERRORS as error:
        words = str(error).splitlines()[0] if not isinstance(error, asyncpg.InvalidPasswordError) else "wrong password"
        raise FrontierUnreachable(f"{address_of(dsn)} cannot be used: {words}") from None
    try:
        async with connection.transaction(isolation="repeatable_read", readonly=True):
            yield connection
    except asyncpg.UndefinedTableError:
        raise FrontierError(f"{address_of(dsn)} has no crawl") from None
    except asyncpg.UndefinedColumnError:
        raise FrontierError(f"{address_of(dsn)} is of an older version: start its crawl once") from None
    except CONNECTION_ERRORS as error:
        raise connect_failed(dsn, error) from None
    finally:
        await connection.close()


def summed(texts: Iterable[str]) -> Counter[str]:
    """Counts as JSON, added up by their names."""
    counts: Counter[str] = Counter()
    for text in texts:
        counts.update(orjson.loads(text))
    return counts


async def read_fleet(dsn: str, password: str | None = None) -> FleetView:
    """Read how the agents of a database stand. Raises FrontierError."""
    async with snapshot(dsn, password) as connection:
        rows = await connection.fetch(sql.AGENT_VIEWS)
        free = await connection.fetchval(sql.SLOTS_FREE)
        _, urls = await connection.fetchrow(sql.INBOX)
        first = await connection.fetchrow(sql.INBOX_FIRST)
        settled = await connection.fetch(sql.ALL_SETTLED)
        queued: dict[str, int] | None = None
        with contextlib.suppress(asyncpg.QueryCanceledError):
            async with connection.transaction():
                await connection.execute(f"SET LOCAL statement_timeout = {_COUNT_MS}")
                queued = dict(await connection.fetch(sql.QUEUED_OF_AGENTS))
    waits_s = 0.0 if first is None else max(0.0, first[1] - min(found[2] for found in inbox_urls(first[0])))
    counts = summed(totals for totals, *_ in settled if totals is not None)
    return FleetView(
        address_of(dsn),
        [
            AgentView(
                name,
                process,
                has_left,
                lease_s,
                renewed_s,
                slots,
                inbox,
                None if queued is None else queued.get(name, 0),
                orjson.loads(status or "{}"),
            )
            for name, process, has_left, lease_s, renewed_s, slots, inbox, status in rows
        ],
        free,
        urls,
        waits_s,
        totals_from(dict(counts), sum(marks for *_, marks in settled)),
        summed(counters for _, counters, _ in settled if counters is not None)["pages"],
    )
