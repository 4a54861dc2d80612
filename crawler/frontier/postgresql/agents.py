"""An agent among others that share its database: its lease, and what it takes over and gives back (`base.Agents`).

Renewals, looks and commands have a connection of their own, so that they wait for no settlement.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from typing import Any, Final, TypeVar

import asyncpg
import orjson

from crawler.core.models import Origin, RobotsRecord
from crawler.core.ownership import AgentSeen, is_over
from crawler.frontier.base import FrontierLocked, Look, Receipt
from crawler.frontier.postgresql import sql
from crawler.frontier.postgresql.connection import CONNECTION_ERRORS, LOCK, PostgresConnection, columns, session_of
from crawler.frontier.postgresql.fleet_control import ask
from crawler.frontier.postgresql.insertions import INBOX_AT_ONCE, inbox_urls
from crawler.frontier.postgresql.slots import ALL_SLOTS, DATED_ALL, slot_of_host
from crawler.frontier.postgresql.writer import PostgresWriter
from crawler.frontier.rows import counters_from

T = TypeVar("T")
_ANSWER_S: Final = 5.0  # a server that takes longer for a look is as good as away


class SlotTransactions:
    """The transactions about slots, the inbox and what agents share: jobs of `PostgresConnection.job`."""

    def __init__(self, writer: PostgresWriter) -> None:
        self._writer = writer
        self._db = writer.db
        self.slots = writer.slots
        self._urls = writer.urls
        self._values = writer.values

    async def is_alone(self) -> bool:
        """Whether all other agents have left."""
        return all(row[3] for row in await self._db.rows(sql.AGENTS) if row[0] != self._db.agent)

    async def take(self, slots: Sequence[int]) -> list[int]:
        """Own those of these slots that are free. Returns those that another agent owned last.

        Ids that are made from now on are above all others, so that they are above those of the slots.
        """
        db = self._db
        async with db.transaction() as pending:
            rows = await db.rows(sql.TAKE_SLOTS, db.agent, db.incarnation, list(slots))
            taken = [row[0] for row in rows]
            await db.run(sql.END_ACTIVITY, taken)
            last_host, last_url, schedule_at = (await db.rows(sql.HIGHEST))[0]
            state = db.state
            pending.replace(
                last_host=max(state.last_host, last_host),
                last_url=max(state.last_url, last_url),
                schedule_at=max(state.schedule_at, schedule_at),
            )
            await self._urls.load_forgotten_hosts()
            error_page_hosts = await self._urls.error_page_hosts(taken)
            for before in {row[2] for row in rows if not row[1]}:
                await self._go_on_for(before)
        self.slots.take(taken)
        self._urls.know_error_pages(error_page_hosts)
        return [slot for slot, was_ours, _ in rows if not was_ours]

    async def _go_on_for(self, before: str) -> None:
        """Begin what the former owner of slots may not have ended in them: re-evaluation by new rules, and dates for
        revisits.
        """
        rules = await self._values.get(self._values.named("rules"))
        is_swept = await self._value_of(before, "rules") == rules
        if rules is not None and not (is_swept and await self._value_of(before, "sweep") is None):
            stored = await self._values.get(self._values.named("sweep"))
            generation = 1 + (0 if stored is None else orjson.loads(stored)[0])
            last = await self._db.fetchval(sql.LAST_HOST_ID, ALL_SLOTS) or 0
            await self._values.put(self._values.named("sweep"), orjson.dumps((generation, 0, last)))
        has_dates = await self._values.get(self._values.named("dated")) is not None
        if has_dates and await self._value_of(before, "dated") != DATED_ALL:
            await self._values.put(self._values.named("dated"), b"0")

    async def _value_of(self, agent: str, name: str) -> bytes | None:
        return await self._values.get(self._values.named_of(agent, name))

    async def give_back(self, slots: Sequence[int]) -> None:
        """Own these slots no more. Nothing of them is in memory."""
        async with self._db.transaction():
            await self._db.run(sql.END_ACTIVITY, list(slots))
            await self._db.run(sql.FREE, self._db.agent, list(slots))
        self.slots.give_back(slots)

    async def disown(self, agent: str, incarnation: int, renewal: int) -> bool:
        """See PostgresConnection.disown."""
        async with self._db.transaction():
            return await self._db.disown(agent, incarnation, renewal)

    async def leave(self, *, clean: bool) -> None:
        """Give up all slots, as the last transaction. `clean`: nothing was in flight."""
        db = self._db
        async with db.transaction() as pending:
            pending.replace(clean=clean)
            await db.run(sql.END_ACTIVITY, list(self.slots.owned))
            await db.run(sql.FREE_ALL, db.agent)
            await db.run(sql.LEAVE, db.agent, db.incarnation)
            used = counters_from(db.state.counters).urls_fetched
            pending.replace(allotted=min(db.state.allotted, used))

    async def rest(self) -> None:
        """Store that this agent has nothing left to do."""
        if not self._db.state.is_idle:
            async with self._db.transaction() as pending:
                used = counters_from(self._db.state.counters).urls_fetched
                pending.replace(is_idle=True, allotted=min(self._db.state.allotted, used))

    async def allot(self, limit: int, wanted: int) -> int:
        """Have up to `wanted` more of the first attempts of `limit` (scope.max_urls), which all agents share. Returns
        the number that this agent may make in all.
        """
        async with self._db.transaction() as pending:
            await self._db.run("SELECT pg_advisory_xact_lock($1::integer, 2)", LOCK)
            left = limit - (await self._db.fetchval(sql.ALLOTTED) or 0)
            used = max(self._db.state.allotted, counters_from(self._db.state.counters).urls_fetched)
            granted = max(0, min(wanted, left))  # with more it has something left to do
            pending.replace(allotted=used + granted, is_idle=self._db.state.is_idle and not granted)
        return self._db.state.allotted

    async def empty_inbox(self, now: float, hint_after_s: float | None) -> Receipt | None:
        """Store URLs that other agents found in slots of this one. None: there were none."""
        rows = await self._db.rows(sql.TAKE_INBOX, self.slots.read, INBOX_AT_ONCE)
        if not rows:
            return None
        found = [one for row in rows for one in inbox_urls(row[2])]
        async with self._writer.change() as change:
            new = await self._urls.insert(found, change, hint_after_s)
            await self._db.run(sql.END_INBOX, *columns([(row[0], row[1]) for row in rows], 2))
        return change.receipt([len(new)])

    async def count_others(self) -> None:
        """Read the totals of other agents, and what was taken down by name."""
        await self._writer.count_others()
        await self._urls.load_forgotten_hosts()


class PostgresAgents:
    """See `base.Agents`. `transactions` returns those of the open store."""

    def __init__(
        self, connection: PostgresConnection, lease_s: float, transactions: Callable[[], SlotTransactions]
    ) -> None:
        self.name = connection.agent
        self.lease_s = lease_s
        self._db = connection
        self._of_store = transactions
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
            seen = await db.fetch(sql.AGENTS)
            _, _, _, _, _, free, rows, urls = seen[0]
            return Look([AgentSeen(*row[:5]) for row in seen], free, rows, urls)

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
            if isinstance(error, CONNECTION_ERRORS):
                raise self._db.unreachable(error) from None
            raise

    async def close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            with contextlib.suppress(Exception):
                connection.terminate()

    @property
    def own(self) -> Sequence[int]:
        return self._of_store().slots.read

    @property
    def owns_all(self) -> bool:
        return self._of_store().slots.owns_all

    async def count(self) -> None:
        await self._db.job(lambda: self._of_store().count_others())

    async def scope_hosts(self) -> list[str]:
        return await self._asked(self._scope_hosts)

    @staticmethod
    async def _scope_hosts(db: asyncpg.Connection) -> list[str]:
        return [row[0] for row in await db.fetch(sql.SCOPE_HOSTS)]

    async def disown(self, agent: AgentSeen) -> bool:
        store = self._of_store()
        # What it has begun holds the row of its agent.
        session = session_of(agent.name, agent.incarnation)
        seen = agent.name, agent.incarnation, agent.renewal
        await self._db.job(lambda: self._db.run(sql.END_BACKENDS, session, *seen))
        return await self._db.job(lambda: store.disown(*seen))

    async def take(self, slots: Collection[int]) -> list[int]:
        foreign = await self._db.job(lambda: self._of_store().take(sorted(slots)))
        self._takes, self._obeyed = self._takes + 1, None  # they may have been without an owner when a command came
        return foreign

    def stop_reading(self, slots: Collection[int]) -> None:
        self._of_store().slots.stop_reading(slots)

    async def give_back(self, slots: Collection[int]) -> None:
        await self._db.job(lambda: self._of_store().give_back(sorted(slots)))

    async def empty_inbox(self, *, now: float, hint_after_s: float | None) -> Receipt | None:
        return await self._db.job(lambda: self._of_store().empty_inbox(now, hint_after_s))

    @property
    def transactions(self) -> int:
        return self._db.state.number

    async def rest(self, transactions: int) -> bool:
        async def is_done() -> bool:
            if self._db.state.number != transactions:
                return False
            await self._of_store().rest()
            rows = await self._db.rows(sql.WHO_IS_IDLE)
            owners = {agent: is_idle for agent, is_free, is_idle, *_ in rows if not is_free}
            return is_over(owners, sum(slots for _, is_free, _, slots, _ in rows if is_free), rows[0][4])

        return await self._db.job(is_done)

    async def stored_robots(self, origin: Origin) -> RobotsRecord | None:
        place = slot_of_host(origin.host), origin.host, origin.scheme, origin.port
        rows = await self._asked(lambda db: db.fetch(sql.ROBOTS_OF, *place))
        return RobotsRecord(*rows[0]) if rows else None

    def owns_host(self, name: str) -> bool:
        return slot_of_host(name) in self._of_store().slots.owned

    async def commands(self) -> list[tuple[int, str, dict[str, Any]]]:
        async def read(db: asyncpg.Connection) -> list[tuple[int, str, dict[str, Any]]]:
            takes, after = self._takes, self._obeyed
            if after is None:
                of_slots = await db.fetchval(sql.OBEYED, self.name)
                after = max(self._answered, self.began_after)
                after = after if of_slots is None else min(after, of_slots)
                if takes == self._takes:
                    self._obeyed = after
            rows = await db.fetch(sql.COMMANDS, self.name, after)
            return [(number, name, orjson.loads(arguments)) for number, name, arguments in rows]

        return await self._asked(read)

    async def behind(self, number: int) -> set[int]:
        rows = await self._asked(lambda db: db.fetch(sql.BEHIND, self.name, number))
        return {row[0] for row in rows}

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
        except CONNECTION_ERRORS as error:
            raise self._db.unreachable(error) from None

    @property
    def began_after(self) -> int:
        return self._db.began_after

    async def last_of(self, names: Sequence[str], bottleneck: str) -> str | None:
        return await self._asked(lambda db: db.fetchval(sql.LAST_OF, LOCK, list(names), bottleneck))

    async def put_rules(self, rules: str) -> None:
        await self._asked(lambda db: db.execute(sql.PUT_RULES, self.name, self._db.incarnation, rules))

    @property
    def allotted(self) -> int:
        return self._db.state.allotted

    async def allot(self, limit: int, wanted: int) -> int:
        return await self._db.job(lambda: self._of_store().allot(limit, wanted))
