"""The connection of an agent to its database: ownership, schema, transactions, and what errors mean.

Jobs run one after the other on one connection. Each transaction has a number, which is stored with it: when the answer
to a COMMIT is lost, the number tells after a reconnection whether the transaction is stored.

Invariants: after `transaction` has raised, nothing of that transaction is stored. No transaction of an incarnation is
stored once a later one was begun. No message has the password of the DSN.
"""

import asyncio
import contextlib
import os
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from importlib.resources import files
from pathlib import Path
from typing import Any, Final, TypeVar
from urllib.parse import urlsplit

import asyncpg
import orjson

from crawler.frontier.base import (
    FrontierCorrupt,
    FrontierError,
    FrontierFull,
    FrontierLocked,
    FrontierMismatch,
    FrontierUnreachable,
    FrontierVersion,
)
from crawler.frontier.postgresql import sql

T = TypeVar("T")
Row = Sequence[Any]

# Step i brings a database from version i to i + 1. Released steps are never edited.
MIGRATIONS: Final[tuple[str, ...]] = tuple(
    files("crawler.frontier.postgresql").joinpath(name).read_text(encoding="utf-8")
    for name in ("schema.sql", "agents.sql")
)
LOCK: Final = 0x4352574C  # "CRWL": first key of our advisory locks; the second is 0 for migrations, else of the agent
CONNECT_S: Final = 10.0
OWNER_GONE_S: Final = 5.0  # after the end of a process the server may take so long to release its lock
GONE_AFTER: Final = 1.2  # leases: an agent with other rules that does not renew its own is taken for gone
DOUBT_S: Final = 60.0  # how long a database is tried again that did not say whether the last COMMIT is stored
LEASE_S: Final = 15.0
_RETRY_S: Final = 0.5
_POLL_S: Final = 0.02
# Statements are look-ups in indexes, planned once for tables of any size.
_SESSION: Final = {
    "plan_cache_mode": "force_generic_plan",
    "enable_seqscan": "off",
    "enable_bitmapscan": "off",
    "enable_hashjoin": "off",
    "enable_mergejoin": "off",
    "jit": "off",
    "statement_timeout": "0",
    "idle_in_transaction_session_timeout": "60s",
    "tcp_keepalives_idle": "10",
    "tcp_keepalives_interval": "5",
    "tcp_keepalives_count": "3",
}
# Of one that reads everything, beside the crawl.
SESSION_OF_READER: Final = {"application_name": "crawler copy", "jit": "off"}
_LOST: Final = (
    OSError,
    asyncpg.PostgresConnectionError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,  # a connection that ended in the middle of an answer
    asyncpg.AdminShutdownError,
    asyncpg.CrashShutdownError,
    asyncpg.CannotConnectNowError,
    asyncpg.IdleInTransactionSessionTimeoutError,
    asyncpg.ReadOnlySQLTransactionError,  # a server that became a standby
)

# What a program beside the crawl meets that cannot connect, may not read, or loses its connection.
CONNECTION_ERRORS: Final = (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError)


@dataclass(frozen=True, slots=True)
class AgentState:
    """The row of an agent in the table `settled`: what its last transaction left, and the number of that."""

    number: int = 0
    last_host: int = 0  # sequence numbers
    last_url: int = 0
    clean: bool = True
    marks: int = 0
    schedule_at: float = 0.0
    last_visit_at: float | None = None
    totals: str | None = None  # JSON, as the next
    counters: str | None = None
    is_idle: bool = False
    allotted: int = 0

    @property
    def counts(self) -> dict[str, int]:
        counts: dict[str, int] = {} if self.totals is None else orjson.loads(self.totals)
        return counts


def address_of(dsn: str) -> str:
    """A name of the database for messages, without password and options."""
    if not dsn:
        return "the database of the environment (PGHOST, PGDATABASE …)"
    try:
        parts = urlsplit(dsn)
    except ValueError:
        return "the database of frontier.dsn"
    host = parts.netloc.rpartition("@")[2]
    return f"the database {parts.path.strip('/') or '(default)'} at {host or '(default)'}"


class PostgresConnection:
    """The connection of the agent named `agent`. `dsn`: a URI of libpq; empty: all is in the environment. `password`:
    if it is in neither.
    """

    def __init__(
        self, dsn: str, agent: str, *, password: str | None = None, rules: str = "", lease_s: float = LEASE_S
    ) -> None:
        self._dsn = dsn
        self._password = password
        self._rules, self._lease_s = rules, lease_s
        self.agent = agent
        self.address = address_of(dsn)
        self._connection: asyncpg.Connection | None = None
        self._backend: tuple[Any, ...] = ()  # process id and start of the server's process
        self.incarnation = 0
        self.began_after = 0  # the last command before others could see that this agent lives
        self._jobs = asyncio.Lock()
        self._running: set[asyncio.Task[Any]] = set()
        self.state = AgentState()
        self.is_open = False

    # -- open and close

    async def open(self) -> None:
        """Connect, apply migrations and take the agent over.

        Raises FrontierUnreachable, FrontierVersion, FrontierCorrupt, FrontierLocked.
        """
        try:
            await self._connect()
            await self._migrate()
            await self._own(is_ours=False)
            await self._check_rules()
            while not await self._join():  # an agent with other rules came at the same time
                await self._check_rules()
            await self.run(sql.NAME_SESSION, session_of(self.agent, self.incarnation))
            await self._load()
        except BaseException as error:
            await self._disconnect()
            if isinstance(error, FrontierError) or not isinstance(error, Exception):
                raise
            raise self._explain_opening(error) from None
        self.is_open = True

    async def _join(self) -> bool:
        """Take the agent over, unless another one has other rules. Of two that come at once the second sees the
        first.
        """
        async with self._begun():
            await self.run("SELECT pg_advisory_xact_lock($1::integer, 0)", LOCK)
            if await self.rows(sql.OTHER_RULES, self.agent, self._rules, self._lease_s):
                return False
            self.incarnation = await self.fetchval(
                sql.TAKE_AGENT, self.agent, process_name(), self._rules, self._lease_s
            )
            self.began_after = await self.fetchval(sql.LAST_COMMAND)
            await self.run(sql.ADD_SETTLED, self.agent)
            await self.run(sql.HOLD_SLOTS, self.agent, self.incarnation)
        return True

    async def disown(self, agent: str, incarnation: int, renewal: int) -> bool:
        """Take the slots of an agent away that is gone, unless it renewed its lease meanwhile, as a part of a
        transaction. Returns whether it was so.
        """
        if await self.fetchval(sql.DISOWN, agent, incarnation, renewal) is None:
            return False
        await self.run(sql.FREE_ALL, agent)
        await self.run(sql.END_ALLOTMENT, agent)
        return True

    async def _check_rules(self) -> None:
        """Raises FrontierMismatch if another agent has other rules or another lease."""
        async for name, *_, has_rules in self._others(sql.OTHER_RULES, self.agent, self._rules, self._lease_s):
            what = "another frontier.lease" if has_rules else "other rules of scope or politeness"
            raise FrontierMismatch(
                f"the agent {name} of {self.address} has {what}: all agents of a crawl have the same"
            )

    async def require_alone(self) -> None:
        """Raises FrontierLocked if another agent has not left, and is not gone."""
        async for name, *_ in self._others(sql.OTHERS, self.agent):
            raise FrontierLocked(f"{self.address} is in use by the agent {name}")

    async def _others(self, statement: str, *values: Any) -> AsyncIterator[tuple[Any, ...]]:
        """The first agent that a statement finds: name, incarnation, renewal, lease and more. Those that do not renew
        their lease are gone, and found no more.
        """
        loop = asyncio.get_running_loop()
        before: tuple[Any, ...] = ()
        end = 0.0
        while rows := await self.rows(statement, *values):
            other = tuple(rows[0])
            if other[:1] == before[:1] and other != before:
                yield other
                return
            if other != before:
                before, end = other, loop.time() + other[3] * GONE_AFTER
            elif loop.time() > end:
                async with self._begun():
                    await self.disown(*other[:3])
            else:
                await asyncio.sleep(_RETRY_S)

    async def open_another(self) -> asyncpg.Connection:
        """Another connection of this agent, for what must not wait for jobs."""
        return await self._dial()

    async def close(self) -> None:
        """End the connection, after the job that runs."""
        self.is_open = False
        async with self._jobs:
            await self._disconnect()

    async def _connect(self) -> None:
        self._connection = await self._dial()
        self._backend = tuple(await self._opened().fetchrow(sql.BACKEND) or ())
        # A server may confirm commits before they are on its disk, but output files are cut back to what is stored.
        if await self.fetchval("SELECT current_setting('synchronous_commit')") == "off":
            await self.run("SET synchronous_commit = on")

    async def _dial(self) -> asyncpg.Connection:
        return await asyncpg.connect(
            self._dsn or None, password=self._password, timeout=CONNECT_S, statement_cache_size=500,
            max_cached_statement_lifetime=0, max_cacheable_statement_size=0,
            server_settings=_SESSION | {"application_name": session_of(self.agent, self.incarnation)},
        )  # fmt: skip

    async def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        if connection is None:
            return
        with contextlib.suppress(Exception):
            await connection.close(timeout=2)
        if not connection.is_closed():
            connection.terminate()

    async def _own(self, *, is_ours: bool) -> None:
        """Take the lock that only one process of an agent has. It ends with its connection, which may take the server a
        moment after a process was killed, or if it `is_ours` and was lost.
        """
        end = asyncio.get_running_loop().time() + OWNER_GONE_S
        while not await self.fetchval(sql.TRY_LOCK, LOCK, self.agent):
            owner = await self.fetchval(sql.OWNER, self.agent) or "another process"
            if asyncio.get_running_loop().time() > end or not (is_ours or _has_ended(owner)):
                raise FrontierLocked(f"{self.address} is in use by {owner}")
            await asyncio.sleep(_POLL_S)

    async def _migrate(self) -> None:
        async with self._begun():
            await self.run("SELECT pg_advisory_xact_lock($1::integer, 0)", LOCK)
            known = await self.fetchval("SELECT to_regclass('crawler_version') IS NOT NULL")
            if known:
                version = await self.fetchval("SELECT number FROM crawler_version")
            elif await self.fetchval(sql.HAS_TABLES):
                raise FrontierCorrupt(f"{self.address} has tables of another program: create a database for the crawl")
            else:
                version = 0
                await self.run("CREATE TABLE crawler_version (number integer NOT NULL)")
                await self.run("INSERT INTO crawler_version VALUES (0)")
            if version > len(MIGRATIONS):
                raise FrontierVersion(
                    f"{self.address} has version {version}, this program knows up to {len(MIGRATIONS)}: "
                    "use the newer program"
                )
            for step in MIGRATIONS[version:]:
                await self._opened().execute(step)
            if version < len(MIGRATIONS):
                await self.run("UPDATE crawler_version SET number = $1", len(MIGRATIONS))

    async def _load(self) -> None:
        row = await self._opened().fetchrow(sql.SETTLED, self.agent)
        self.state = AgentState(*row) if row is not None else AgentState()

    # -- jobs

    async def job(self, job: Callable[[], Awaitable[T]]) -> T:
        """Run a job with at most one transaction, after those before it; once more if the connection is lost. It runs
        to its end even if this await is cancelled. Raises FrontierFull, with nothing stored, and FrontierError.
        """
        if not self.is_open:
            raise RuntimeError("the frontier is not open")
        task = asyncio.ensure_future(self._job(job))
        self._running.add(task)
        task.add_done_callback(self._ended)
        return await asyncio.shield(task)

    def _ended(self, task: "asyncio.Task[Any]") -> None:
        self._running.discard(task)
        if not task.cancelled():
            task.exception()  # one that nobody waits for any more

    async def _job(self, job: Callable[[], Awaitable[T]]) -> T:
        async with self._jobs:
            for is_last in (False, True):
                try:
                    if self._connection is None or self._connection.is_closed():
                        await self._reconnect()
                    return await job()
                except _LOST as error:
                    if isinstance(error, ValueError):  # a value that the statement does not take
                        raise
                    await self._disconnect()
                    if is_last:
                        raise self.unreachable(error) from None
                except asyncpg.PostgresError as error:
                    raise self._explain(error) from error
        raise AssertionError("unreachable")

    async def _reconnect(self) -> None:
        """Connect again as the same incarnation. Raises FrontierLocked if a later one took the agent over."""
        await self._disconnect()
        before = self._backend
        await self._connect()
        await self.run(sql.END_BACKEND, *before)  # the server may not know yet that its client is gone
        await self._own(is_ours=True)
        await self._check_fence()

    # -- transactions

    @contextlib.asynccontextmanager
    async def _begun(self) -> AsyncIterator[None]:
        async with self._opened().transaction():
            yield

    @contextlib.asynccontextmanager
    async def transaction(self) -> AsyncIterator["PendingState"]:
        """Commit what the block does, with the state that it leaves; undo it if the block or the commit raises.

        Raises FrontierError if the connection is lost and it cannot be found out whether the transaction is stored.
        """
        pending = PendingState(replace(self.state, number=self.state.number + 1, is_idle=False))
        await self._opened().execute("BEGIN")
        try:
            await self._check_fence()
            yield pending
            one = pending.state
            await self.run(
                sql.SETTLE, self.agent, self.incarnation, one.number, one.last_host, one.last_url, one.clean,
                one.marks, one.schedule_at, one.last_visit_at, one.totals, one.counters, one.is_idle, one.allotted,
            )  # fmt: skip
        except BaseException:
            with contextlib.suppress(*_LOST, asyncpg.PostgresError):
                await self._opened().execute("ROLLBACK")
            raise
        try:
            await self._opened().execute("COMMIT")
        except _LOST as error:
            if not await self._was_stored(pending.state.number, error):
                raise
        self.state = pending.state

    async def _was_stored(self, number: int, lost: BaseException) -> bool:
        """Whether a transaction is stored whose COMMIT got no answer. Reading its row waits until the server has ended
        the transaction.
        """
        end = asyncio.get_running_loop().time() + DOUBT_S
        while True:
            try:
                await self._reconnect()
                return bool(await self.fetchval(sql.LAST_NUMBER, self.agent) == number)
            except (*_LOST, asyncpg.PostgresError) as error:
                if asyncio.get_running_loop().time() > end:
                    raise FrontierError(
                        f"it is unknown whether {self.address} stored the last commit ({_words(lost)}), and it cannot "
                        f"be reached: {_words(error)}"
                    ) from None
            await asyncio.sleep(_RETRY_S)

    async def _check_fence(self) -> None:
        """Raises FrontierLocked if a later incarnation took the agent over. None does while a transaction runs."""
        if await self.fetchval(sql.FENCE, self.agent, self.incarnation) is None:
            raise FrontierLocked(f"another process took {self.address} over")

    # -- statements

    def _opened(self) -> asyncpg.Connection:
        if self._connection is None:
            raise asyncpg.InterfaceError("not connected")
        return self._connection

    async def run(self, statement: str, *values: Any) -> None:
        """Run a statement without results."""
        await self._opened().fetch(statement, *values)

    async def fetchval(self, statement: str, *values: Any) -> Any:
        """The first column of the first row, None without one."""
        return await self._opened().fetchval(statement, *values)

    async def rows(self, statement: str, *values: Any) -> list[Row]:
        found: list[Row] = await self._opened().fetch(statement, *values)
        return found

    async def copy(self, table: str, columns: Sequence[str], records: Sequence[Sequence[Any]]) -> None:
        """Insert many rows by COPY."""
        if records:
            await self._opened().copy_records_to_table(table, records=records, columns=columns)

    # -- what errors mean

    def unreachable(self, error: Exception) -> FrontierFull:
        return FrontierFull(f"{self.address} cannot be reached: {_words(error)}")

    def _explain(self, error: Exception) -> Exception:
        match error:
            case asyncpg.InsufficientResourcesError() | asyncpg.PostgresSystemError():
                return FrontierFull(f"{self.address} cannot store: {_words(error)}")
            case asyncpg.TransactionRollbackError() | asyncpg.QueryCanceledError():
                return FrontierFull(f"{self.address} did not store: {_words(error)}")
            case (
                asyncpg.InvalidCatalogNameError()  # it was dropped or renamed
                | asyncpg.InvalidAuthorizationSpecificationError()  # of which a wrong password is one
                | asyncpg.InsufficientPrivilegeError()
            ):
                return FrontierFull(f"{self.address} cannot be used: {_words(error)}")
            case asyncpg.DataCorruptedError() | asyncpg.IndexCorruptedError() | asyncpg.UndefinedTableError():
                return FrontierCorrupt(f"{self.address} is damaged: {_words(error)}")
            case _:
                return error

    def _explain_opening(self, error: Exception) -> Exception:
        match error:
            case asyncpg.InvalidPasswordError() | asyncpg.InvalidAuthorizationSpecificationError():
                reason = "user or password is wrong"
            case asyncpg.InvalidCatalogNameError():
                reason = "there is no such database"
            case asyncpg.InsufficientPrivilegeError():
                reason = f"the user may not do that: {_words(error)}"
            case asyncpg.PostgresError():
                explained = self._explain(error)
                if isinstance(explained, FrontierError):
                    return explained
                reason = _words(error)
            case OSError() | asyncpg.InterfaceError():
                reason = _words(error)
            case _:
                return error
        return FrontierUnreachable(f"{self.address} cannot be used: {reason}")


class PendingState:
    """The state of an agent that a transaction under way will leave."""

    __slots__ = ("state",)

    def __init__(self, state: AgentState) -> None:
        self.state = state

    def replace(self, **changes: Any) -> None:
        self.state = replace(self.state, **changes)


def session_of(agent: str, incarnation: int) -> str:
    """The name of the connections of an agent, by which others end those that it does not use any more."""
    return f"crawler {agent[-40:]} {incarnation}"


def columns(rows: Sequence[Sequence[Any]], width: int) -> list[list[Any]]:
    """Rows as one list for each column."""
    return [list(column) for column in zip(*rows, strict=True)] if rows else [[] for _ in range(width)]


def connect_failed(dsn: str, error: Exception) -> FrontierUnreachable:
    """What a program says that cannot connect to a database."""
    return FrontierUnreachable(f"{address_of(dsn)} cannot be used: {_words(error)}")


def process_name() -> str:
    return f"process {os.getpid()} on {socket.gethostname()}"


def _has_ended(owner: str) -> bool:
    """Whether an owner was a process of this machine that has ended."""
    words = owner.split()
    return words[3:] == [socket.gethostname()] and not Path(f"/proc/{words[1]}").exists()


def _words(error: BaseException) -> str:
    """The message of an error; those of the server have no password in them, those of asyncpg no more than a host."""
    if isinstance(error, TimeoutError):
        return "no answer"
    if isinstance(error, OSError) and error.errno is not None:
        return os.strerror(error.errno) if error.errno > 0 else (error.strerror or str(error))
    return str(error).splitlines()[0] if str(error) else type(error).__name__
