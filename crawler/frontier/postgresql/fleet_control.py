"""Commands of operators to the agents of a crawl: rows of the database, which each of them carries out and answers."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Any, Final

import asyncpg
import orjson

from crawler.frontier.postgresql import sql
from crawler.frontier.postgresql.connection import (
    CONNECTION_ERRORS,
    LOCK,
    SESSION_OF_READER,
    connect_failed,
    process_name,
)

ASK_S: Final = 0.1  # between two looks for answers
Answers = dict[str, dict[str, Any]]
Ask = Callable[..., Awaitable[Answers]]


async def ask(
    db: asyncpg.Connection, name: str, arguments: Mapping[str, object], *, agent: str | None, sent_by: str
) -> Answers:
    """Send a command, and wait for the answers of `agent`, or of all agents that are connected to the database. Returns
    the answers by agent.
    """
    await db.execute(sql.END_COMMANDS)
    number = await db.fetchval(sql.SEND, agent, name, orjson.dumps(dict(arguments)).decode(), sent_by)
    while True:
        answers = {row[0]: orjson.loads(row[1]) for row in await db.fetch(sql.ANSWERS, number)}
        awaited = [row[0] for row in await db.fetch(sql.LIVING, LOCK) if agent in (None, row[0])]
        if answers.keys() >= set(awaited):
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
    """A function that sends commands: name, arguments, and the agent if it is for one."""
    async with _connected(dsn, password) as db:

        async def send(name: str, arguments: Mapping[str, object], agent: str | None = None) -> Answers:
            return await ask(db, name, arguments, agent=agent, sent_by=process_name())

        yield send


async def living(dsn: str, password: str | None) -> list[str]:
    """The names of the agents that are connected to a database. Raises FrontierError."""
    async with _connected(dsn, password) as db:
        if not await db.fetchval("SELECT to_regclass('command') IS NOT NULL"):
            return []
        return [row[0] for row in await db.fetch(sql.LIVING, LOCK)]
