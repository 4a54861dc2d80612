"""The scheduling state of hosts and politeness keys: what enters and leaves memory, and what it leaves behind.

A key is active while an agent has it in memory. Of the other keys, those that have work are in an index by the time at
which one of their hosts may be requested. Invariant: a key that is not active and has a host with work that is not
parked for an event is in that index.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Final

from crawler.core.models import Backoff, HostReadiness, HostRow, KeyRow, SlowResponse
from crawler.core.ownership import slot_in
from crawler.core.url import registrable_domain
from crawler.frontier.base import Entered, Leaving, Wanted
from crawler.frontier.postgresql import sql
from crawler.frontier.postgresql.connection import PostgresConnection, columns
from crawler.frontier.postgresql.slots import ALL_SLOTS, CrawlValues, OwnSlots, key_id_of, slot_of_host
from crawler.frontier.rows import KEY_NAMES, host_row

KEY_MODE: Final = "politeness_key"  # a value of the crawl: what the keys of hosts were made by
UNPARK_SLICE: Final = 2_000
_HOST_SLICE: Final = 20_000  # hosts of one statement
_KEYS_AT_ONCE: Final = 64  # of one statement that reads hosts that enter memory


class Readiness:
    """Lets hosts and keys enter and leave memory. Methods `put_…` are parts of other transactions."""

    def __init__(self, connection: PostgresConnection, slots: OwnSlots, values: CrawlValues) -> None:
        self._db = connection
        self._slots = slots
        self._values = values
        self.key_name: Callable[[str], str] = registrable_domain  # makes the name of a politeness key of a host name

    async def assign_keys(self, mode: str | None) -> Callable[[str], str]:
        """Give every host its politeness key anew, if politeness.key was changed to `mode` (None: as it is). Returns
        the function that makes the name of a key of a host name.
        """
        db = self._db
        stored = await self._values.get(KEY_MODE)
        before = None if stored is None else stored.decode()
        mode = mode or before or "domain"
        self.key_name = name_of = KEY_NAMES[mode]
        if mode == before:
            return name_of
        async with db.transaction():
            after = 0
            while hosts := await db.rows(sql.HOST_NAMES, ALL_SLOTS, after, _HOST_SLICE):
                after = hosts[-1][0]
                keys = [key_id_of(name_of(host)) for _, host in hosts]
                await db.run(sql.PUT_HOST_KEYS, [id_ for id_, _ in hosts], keys)
            for statement in sql.MAKE_KEYS:
                await db.run(statement, ALL_SLOTS)
            await self._values.put(KEY_MODE, mode.encode())
        return name_of

    # -- what enters and leaves memory

    async def exchange(self, leaving: Leaving, wanted: Wanted) -> Entered:
        """See Frontier.exchange."""
        async with self._db.transaction():
            await self.put_backoffs(leaving.backoffs)
            await self.put_slow_responses(leaving.slow_responses)
            keys, more, named = await self._enter(wanted)
            await self.put_readiness(leaving.hosts)
            if keys_left := [one for one in leaving.keys if slot_in(one[0]) in self._slots.owned]:
                await self._db.run(sql.LEAVE_KEYS, *columns(keys_left, 3))
            return Entered(keys, more, named, await self._db.fetchval(sql.NEXT_READY, self._slots.read))

    async def _enter(
        self, wanted: Wanted
    ) -> tuple[list[KeyRow], dict[int, tuple[tuple[HostRow, ...], float | None]], list[HostRow]]:
        """The parts of Entered but `next_at`."""
        db = self._db
        named: list[HostRow] = []
        if wanted.host_ids:
            ours = self._slots.ours(set(wanted.host_ids))
            named = [host_row(list(row)) for row in await db.rows(sql.HOSTS_OF_IDS, ours)]
        names = {key_id_of(name): name for name in (*wanted.names, *(self.key_name(row.origin.host) for row in named))}
        foreign = {id_: name for id_, name in names.items() if slot_in(id_) not in self._slots.owned}
        names = {id_: name for id_, name in names.items() if id_ not in foreign}
        if names:
            active = {row[0] for row in await db.rows(sql.ACTIVE_KEYS, list(names))}
            names = {id_: name for id_, name in names.items() if id_ not in active}
            await db.run(sql.ADD_KEYS, list(names))
        hosts_of = await self._hosts_of(list(names), (), wanted.hosts)
        places = wanted.places
        if places > 0:
            rows = await db.rows(sql.READY_KEYS, self._slots.read, wanted.ready_by, places + len(names))
            ready = [row[0] for row in rows if row[0] not in names]
            while ready and places > 0:
                some, ready = ready[:_KEYS_AT_ONCE], ready[_KEYS_AT_ONCE:]
                for id_, found in (await self._hosts_of(some, (), wanted.hosts)).items():
                    if places <= 0:
                        break
                    hosts_of[id_] = found
                    if hosts := found[0]:
                        places -= len(hosts)
                        names[id_] = self.key_name(hosts[0].origin.host)
        keys = [*await self._keys(names, hosts_of), *await self._foreign_keys(foreign)]
        if empty := [id_ for id_ in hosts_of if id_ not in names]:  # their hosts have no work any more
            await db.run(sql.LEAVE_KEYS, empty, [None] * len(empty), [0.0] * len(empty))
        known = [host_id for ids in wanted.more.values() for host_id in ids]
        more = await self._hosts_of(list(wanted.more), known, wanted.hosts) if wanted.more else {}
        entering = [*named, *(row for hosts, _ in (*hosts_of.values(), *more.values()) for row in hosts)]
        if parked := [row.id for row in entering if row.parked is not None]:
            await db.run(sql.ENTER_HOSTS, parked)
        return keys, more, named

    async def _keys(
        self, names: dict[int, str], hosts_of: dict[int, tuple[tuple[HostRow, ...], float | None]]
    ) -> list[KeyRow]:
        """Make keys active, and read them."""
        if not names:
            return []
        db = self._db
        ids = list(names)
        rows = {row[0]: row for row in await db.rows(sql.KEYS, ids)}
        await db.run(sql.ACTIVATE_KEYS, ids)
        slots = [slot_in(id_) for id_ in ids]
        backoffs = {row[0]: Backoff(*row) for row in await db.rows(sql.BACKOFFS_OF, slots, list(names.values()))}
        slow = {row[0]: row[1] for row in await db.rows(sql.SLOW_RESPONSES_OF, slots, list(names.values()))}
        return [
            KeyRow(
                id_,
                name,
                rows[id_][1],
                rows[id_][2],
                rows[id_][3],
                backoffs.get(name),
                slow.get(name, 0.0),
                *hosts_of[id_],
            )
            for id_, name in names.items()
        ]

    async def _foreign_keys(self, names: dict[int, str]) -> list[KeyRow]:
        """Keys of another agent's slots, to which a robots.txt was redirected: as they are, without hosts."""
        rows = {row[0]: row for row in await self._db.rows(sql.KEYS, list(names))} if names else {}
        found = [(id_, name, rows.get(id_, (id_, None, 0.0, None))) for id_, name in names.items()]
        return [KeyRow(id_, name, row[1], row[2], row[3], None, 0.0, (), None) for id_, name, row in found]

    async def _hosts_of(
        self, key_ids: Sequence[int], known: Sequence[int], limit: int
    ) -> dict[int, tuple[tuple[HostRow, ...], float | None]]:
        """Of each key, the hosts that are first to be requested, and when another one has work."""
        found: dict[int, list[HostRow]] = {id_: [] for id_ in key_ids}
        if key_ids:
            for key_id, *row in await self._db.rows(sql.READY_HOSTS, list(key_ids), list(known), limit + 1):
                found[key_id].append(host_row(row))
        return {
            id_: (tuple(rows[:limit]), rows[limit].ready_at if len(rows) > limit else None)
            for id_, rows in found.items()
        }

    async def unpark_slice(self, parked: str, at: float, after: int, ids: Sequence[int] | None) -> list[int]:
        """Make up to UNPARK_SLICE parked hosts ready. Returns their ids."""
        if ids is None:
            rows = await self._db.rows(sql.PARKED, self._slots.read, parked, after, UNPARK_SLICE)
        else:
            rows = await self._db.rows(sql.PARKED_OF, ids, parked, UNPARK_SLICE)
        found = [row[0] for row in rows]
        if found:
            async with self._db.transaction():
                await self._db.run(sql.UNPARK, found, at)
                await self._db.run(sql.WAKE_KEYS, found)
        return found

    # -- parts of transactions

    async def put_backoffs(self, backoffs: Sequence[Backoff]) -> None:
        last = {one.key: one for one in backoffs}
        put = [(slot_of_host(one.key), one.key, one.until_at, one.failures, one.reason)
               for one in last.values() if one.until_at != 0]  # fmt: skip
        ended = [(slot_of_host(one.key), one.key) for one in last.values() if one.until_at == 0]
        if put:
            await self._db.run(sql.PUT_BACKOFFS, *columns(put, 5))
        if ended:
            await self._db.run(sql.END_BACKOFFS, *columns(ended, 2))

    async def put_slow_responses(self, slow_responses: Sequence[SlowResponse]) -> None:
        last = {one.key: one for one in slow_responses}
        put = [(slot_of_host(one.key), one.key, one.response_s, one.updated_at)
               for one in last.values() if one.response_s > 0]  # fmt: skip
        ended = [(slot_of_host(one.key), one.key) for one in last.values() if one.response_s <= 0]
        if put:
            await self._db.run(sql.PUT_SLOW_RESPONSES, *columns(put, 4))
        if ended:
            await self._db.run(sql.END_SLOW_RESPONSES, *columns(ended, 2))

    async def put_readiness(self, hosts: Iterable[HostReadiness]) -> None:
        rows = {
            one.host_id: (one.host_id, one.ready_at, one.parked, one.failures, one.reason, int(one.has_responded),
                          one.queued)
            for one in hosts
        }  # fmt: skip
        if rows:
            await self._db.run(sql.PUT_READINESS, *columns(list(rows.values()), 7))
