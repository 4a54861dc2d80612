"""For programs beside the crawl, of any machine that reaches the database: commands of operators, and how agents stand.

A command is a row of the database, which each agent carries out and answers.
"""

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import asyncpg
import orjson

from crawler.frontier.base import FrontierError, Totals
from crawler.frontier.postgresql import sql
from crawler.frontier.postgresql.connection import (
    CONNECTION_ERRORS,
    LOCK,
    SESSION_OF_READER,
    address_of,
    connect_failed,
    process_name,
)
from crawler.frontier.postgresql.insertions import inbox_urls
from crawler.frontier.rows import totals_from

ASK_S: Final = 0.1  # between two looks for answers
_COUNT_MS: Final = 3_000  # the queued URLs of each agent are counted for so long
Answers = dict[str, dict[str, Any]]
Ask = Callable[..., Awaitable[Answers]]


# -- commands


async def ask(
    db: asyncpg.Connection, name: str, arguments: Mapping[str, object], *, agent: str | None, sent_by: str
) -> Answers:
    """Send a command, and wait for the answers of `agent`, or of all agents that are connected to the database. Returns
    the answers by agent. A command that nobody answers is taken back: whoever sent it sends it again.
    """
    await db.execute(sql.END_COMMANDS)
    async with db.transaction():
        # Commands are stored in the order of their numbers: agents look for those after the last one
        await db.execute("SELECT pg_advisory_xact_lock($1::integer, 4)", LOCK)
        number = await db.fetchval(sql.SEND, agent, name, orjson.dumps(dict(arguments)).decode(), sent_by)
    while True:
        answers = {row[0]: orjson.loads(row[1]) for row in await db.fetch(sql.ANSWERS, number)}
        awaited = [one for one in await _living(db) if agent in (None, one)]
        if answers.keys() >= set(awaited):
            if not answers:
                await db.execute(sql.TAKE_BACK, number)
            return answers
        await asyncio.sleep(ASK_S)


@contextlib.asynccontextmanager
async def _connected(dsn: str, password: str | None) -> AsyncIterator[asyncpg.Connection]:
    try:
        db = await asyncpg.connect(dsn or None, password=password, timeout=10, server_settings=SESSION_OF_READER)
    except CONNECTION_ERRORS as error:
        raise connect_failed(dsn, error) from None
    try:
        yield db
    except CONNECTION_ERRORS as error:
        raise connect_failed(dsn, error) from None
    finally:
        await db.close()


@contextlib.asynccontextmanager
async def session(dsn: str, password: str | None) -> AsyncIterator[Ask]:
    """A function that sends a command by its name and arguments to all agents, or `by_one` to any that lives."""
    async with _connected(dsn, password) as db:

        async def send(name: str, arguments: Mapping[str, object], *, by_one: bool = False) -> Answers:
            agent = None
            if by_one:
                alive = await _living(db)
                if not alive:
                    return {}
                agent = alive[0]
            return await ask(db, name, arguments, agent=agent, sent_by=process_name())

        yield send


async def living(dsn: str, password: str | None) -> list[str]:
    """The names of the agents that are connected to a database. Raises FrontierError."""
    async with _connected(dsn, password) as db:
        if not await db.fetchval("SELECT to_regclass('command') IS NOT NULL"):
            return []
        return await _living(db)


async def _living(db: asyncpg.Connection) -> list[str]:
    return [row[0] for row in await db.fetch(sql.LIVING, LOCK)]


# -- how agents stand


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
async def snapshot(dsn: str, password: str | None) -> AsyncIterator[asyncpg.Connection]:
    """A connection that reads a database as it is at one moment, also while a crawl runs. Raises FrontierError."""
    async with _connected(dsn, password) as connection:
        try:
            async with connection.transaction(isolation="repeatable_read", readonly=True):
                yield connection
        except asyncpg.UndefinedTableError:
            raise FrontierError(f"{address_of(dsn)} has no crawl") from None
        except asyncpg.UndefinedColumnError:
            raise FrontierError(f"{address_of(dsn)} is of an older version: start its crawl once") from None


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
