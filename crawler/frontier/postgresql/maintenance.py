"""Changes of a whole store or host: takedowns, lost files, URLs to queue again, blocks, sweeps, dates for revisits.

How a takedown works is in `sqlite.maintenance`. Invariant: once the first transaction of a host's takedown is stored,
no URL of the host is inserted any more, and the takedown will be finished, if need be at the next start.
"""

from collections import Counter
from collections.abc import Collection, Sequence
from typing import Final

import orjson

from crawler.core.enums import SinkFileState, UrlState
from crawler.core.models import Discovered, Origin
from crawler.core.ownership import SLOT_BITS, slot_in
from crawler.core.url import every_key_of, key_of
from crawler.frontier.base import BlockedHost, Forgotten, Sweep, UndatedPage, UrlPlace, UrlSelection
from crawler.frontier.postgresql import sql
from crawler.frontier.postgresql.connection import columns
from crawler.frontier.postgresql.slots import ALL_SLOTS, DATED_ALL, LOWEST, end_of, made_id, slot_of_host
from crawler.frontier.postgresql.writer import PostgresWriter, StateRow, by_host, without_nul
from crawler.frontier.rows import FORGOTTEN_ERROR, PendingChange

REQUEUE_SLICE: Final = 5_000  # URLs of one transaction, for which other calls wait
ERASE_SLICE: Final = 2_000  # URLs of one transaction of a takedown
_ENDED: Final = (UrlState.DONE, UrlState.GAVE_UP)
_UNFINISHED: Final = "forgetting"  # a value of the crawl: hosts whose takedown is not finished, as JSON


class Maintenance:
    """Changes by the transactions of `writer`. Each public method is a job of `PostgresConnection.job`."""

    def __init__(self, writer: PostgresWriter) -> None:
        self._writer = writer
        self._db = writer.db
        self._slots = writer.slots
        self._urls = writer.urls
        self._values = writer.values

    # -- URLs to queue again, and blocks

    async def settled_urls(
        self, selection: UrlSelection, after: int | None, host_id: int | None
    ) -> tuple[list[UrlPlace], int | None]:
        """See Frontier.settled_urls. Of one host, `after` is the key of a URL."""
        if host_id is None:
            first = after or 0
            end = end_of((first >> SLOT_BITS) + REQUEUE_SLICE)
            statement, values = sql.settled(selection, by_ids=False)
            found = await self._db.rows(statement, self._slots.read, first, end, *values)
            return [UrlPlace(*row) for row in found], self._unless_last(end)
        slot, key = slot_in(host_id), LOWEST if after is None else after
        rows = await self._db.rows(sql.URLS_OF_HOST, slot, host_id, key, REQUEUE_SLICE)
        statement, values = sql.settled(selection, by_ids=True)
        found = await self._db.rows(statement, [row[0] for row in rows], *values)
        return [UrlPlace(*row) for row in found], rows[-1][1] if len(rows) == REQUEUE_SLICE else None

    async def queue_urls(self, ids: Sequence[int], states: Collection[UrlState]) -> dict[int, int]:
        """See Frontier.queue_urls."""
        kept = (UrlState.QUEUED, UrlState.FORGOTTEN)
        rows = [row for row in await self._writer.states(ids) if (row[2] in states if states else row[2] not in kept)]
        if rows:
            async with self._writer.change() as change:
                queued = await self._writer.set_state(rows, UrlState.QUEUED, change)
                await self._db.run(sql.START_AGAIN, queued)
                await self._db.run(sql.END_SUSPECTS, queued)
                await self._db.run(sql.NO_ERROR, [row[0] for row in rows if row[2] == UrlState.DENIED])
        return by_host(rows)

    async def block(self, block: BlockedHost) -> bool:
        """See Frontier.block."""
        rows = await self._db.rows(sql.BLOCK_OF, block.name)
        had = BlockedHost(*rows[0]) if rows else None
        after = block.joined_with(had)
        if after != had:
            async with self._db.transaction():
                await self._db.run(sql.BLOCK, after.name, after.kind, after.at, without_nul(after.reason))
        return after != had

    async def unblock(self, name: str) -> bool:
        """See Frontier.unblock."""
        is_blocked = bool(await self._db.rows(sql.BLOCK_OF, name))
        if is_blocked:
            async with self._db.transaction():
                await self._db.run(sql.UNBLOCK, name)
        return is_blocked

    # -- sweeps and dates

    async def judge_by(self, rules: str) -> Sweep | None:
        """See Frontier.judge_by."""
        if await self._values.get(self._values.named("rules")) == rules.encode():
            return None
        before, last_host = await self.sweep(), await self._db.fetchval(sql.LAST_HOST_ID, ALL_SLOTS) or 0
        begun = Sweep(1 if before is None else before.generation + 1, 0, last_host) if last_host else None
        async with self._db.transaction():
            await self._values.put(self._values.named("rules"), rules.encode())
            if begun is not None:
                await self._put_sweep(begun)
        return begun

    async def sweep(self) -> Sweep | None:
        """See Frontier.sweep."""
        stored = await self._values.get(self._values.named("sweep"))
        return None if stored is None else Sweep(*orjson.loads(stored))

    async def swept(self, done: Sweep, marked: Collection[int]) -> None:
        """See Frontier.swept."""
        known = await self.sweep()
        async with self._db.transaction():
            if marked:
                await self._db.run(sql.MARK_HOSTS, list(marked))
            if known is not None and known.generation == done.generation:
                await self._put_sweep(done)

    async def _put_sweep(self, done: Sweep) -> None:
        text = orjson.dumps((done.generation, done.after, done.last)) if done.after < done.last else None
        await self._values.put(self._values.named("sweep"), text)

    async def reevaluated(self, host_id: int, mark: int) -> None:
        """See Frontier.reevaluated."""
        async with self._db.transaction():
            await self._db.run(sql.REEVALUATED, slot_in(host_id), host_id, mark)

    async def dated_to(self) -> int | None:
        """See Frontier.dated_to."""
        known = await self._values.get(self._values.named("dated"))
        return None if known == DATED_ALL else int(known or 0)

    async def undated(self, after: int, rows: int) -> tuple[list[UndatedPage], int | None]:
        """See Frontier.undated."""
        end = end_of((after >> SLOT_BITS) + rows)
        found = await self._db.rows(sql.UNDATED, self._slots.read, after, end)
        return [UndatedPage(*row) for row in found], self._unless_last(end)

    async def put_dates(self, dates: Sequence[tuple[int, float]], dated_to: int | None) -> None:
        """See Frontier.put_dates."""
        async with self._db.transaction():
            await self._db.run(sql.PUT_DATES, *columns(dates, 2))
            mark = DATED_ALL if dated_to is None else str(dated_to).encode()
            await self._values.put(self._values.named("dated"), mark)

    # -- lost files

    async def begin_losing(self, sink: str, name: str) -> int | None:
        """The first transaction of Frontier.lose_file. From now on the next start finishes it if need be. Returns the
        id of the file, None if it is unknown.
        """
        files = await self._db.rows(sql.SINK_FILES, self._db.agent)
        file_id = next((row[4] for row in files if (row[0], row[1]) == (sink, name)), None)
        if file_id is not None:
            await self.set_file_state(file_id, SinkFileState.LOSING)
        return file_id

    async def lose_slice(self, after: int, file_id: int) -> tuple[dict[int, int], int | None]:
        """A slice of Frontier.lose_file, as `settled_urls`."""
        end = end_of((after >> SLOT_BITS) + REQUEUE_SLICE)
        found = await self._writer.state_rows(sql.IN_FILE, self._slots.read, after, end, file_id)
        ended = [row for row in found if row[2] in _ENDED]
        if found:
            async with self._writer.change() as change:
                await self._db.run(sql.NOTHING_HELD, [url_id for url_id, *_ in found])
                await self._db.run(sql.START_AGAIN, await self._writer.set_state(ended, UrlState.QUEUED, change))
        return by_host(ended), self._unless_last(end)

    async def set_file_state(self, file_id: int, state: SinkFileState) -> None:
        async with self._db.transaction():
            await self._db.run(sql.SET_FILE_STATE, file_id, state.value)

    async def finish_losing(self, file_id: int) -> None:
        """Finish what a crash interrupted."""
        after: int | None = 0
        while after is not None:
            _, after = await self.lose_slice(after, file_id)
        await self.set_file_state(file_id, SinkFileState.LOST)

    # -- takedowns

    async def forget_url(self, url: str, origin: Origin, now: float) -> Forgotten:
        """See Frontier.forget_url. Of a host of another agent nothing changes, as with the next."""
        db = self._db
        if slot_of_host(origin.host) not in self._slots.owned:
            return Forgotten()
        async with self._writer.change() as change:
            host_id = (await self._urls.ids_of([origin], now, change))[origin]
            if host_id == 0:
                return Forgotten(again=True)
            keys = list(dict.fromkeys(every_key_of(url)))
            known = [(keys[n - 1], url_id, state) for n, url_id, state in
                     await db.rows(sql.KNOWN, [host_id] * len(keys), keys)]  # fmt: skip
            rows: list[StateRow] = [(id_, host_id, state) for _, id_, state in known if state != UrlState.FORGOTTEN]
            await self._erase(rows, now, change)
            new = [key for key in keys if key not in {known_key for known_key, *_ in known}]
            records = []
            for key in new:
                change.last_url += 1
                records.append(
                    (slot_in(host_id), made_id(change.last_url, slot_in(host_id)), host_id, key, None, 0, 0, 0, now,
                     UrlState.FORGOTTEN.value, "", "", None, "")
                )  # fmt: skip
            await db.copy("url", sql.URL_COLUMNS, records)
            change.add(UrlState.FORGOTTEN, len(new))
            was_forgotten = any(key == key_of(url) and state == UrlState.FORGOTTEN for key, _, state in known)
            change.marks += len(rows) + len(new) - (not was_forgotten)
        ids = tuple(sorted(url_id for url_id, *_ in rows))
        return Forgotten(len(rows), _queued(rows), ids, (host_id,), list(change.receipt(()).hosts), was_forgotten)

    async def forget_host(self, host: str, now: float) -> Forgotten:
        """The first transaction of Frontier.forget_host."""
        if slot_of_host(host) not in self._slots.owned:
            return Forgotten()
        async with self._db.transaction():
            await self._db.run(sql.PUT_FORGOTTEN_HOST, slot_of_host(host), host, now)
            unfinished = {*await self._unfinished(), host}
            await self._values.put(_UNFINISHED, orjson.dumps(sorted(unfinished)))
        again = self._urls.is_forgotten_host(host)
        self._urls.forget_host(host)
        return Forgotten(host_ids=tuple(await self.host_ids(host)), again=again)

    async def host_ids(self, host: str) -> list[int]:
        """The ids of the origins of a host name."""
        return [row[0] for row in await self._db.rows(sql.IDS_OF_HOST_NAME, slot_of_host(host), host)]

    async def forget_slice(
        self, after: int, host_id: int, now: float, erased: list[int]
    ) -> tuple[dict[int, int], int | None]:
        """Erase up to ERASE_SLICE URLs of a host after the key `after`; their number is added to `erased`."""
        rows = await self._db.rows(sql.URLS_OF_HOST, slot_in(host_id), host_id, after, ERASE_SLICE)
        stored: list[StateRow] = [(url_id, host_id, state) for url_id, _, state in rows if state != UrlState.FORGOTTEN]
        async with self._writer.change() as change:
            await self._erase(stored, now, change)
        erased.append(len(stored))
        return _queued(stored), rows[-1][1] if len(rows) == ERASE_SLICE else None

    async def finish_host(self, host: str) -> None:
        """The last transaction of Frontier.forget_host: erase what is known about the host itself."""
        async with self._db.transaction():
            for host_id in await self.host_ids(host):
                for statement in sql.ERASE_HOST:
                    await self._db.run(statement, slot_in(host_id), host_id)
                await self._values.put(f"error_pages:{host_id}", None, slot_in(host_id))
            left = [name for name in await self._unfinished() if name != host]
            await self._values.put(_UNFINISHED, orjson.dumps(left))

    async def finish_all(self) -> None:
        """Finish takedowns in slots of this agent that a crash interrupted."""
        for host in await self._unfinished():
            if slot_of_host(host) in self._slots.owned:
                now = await self._db.fetchval(sql.FORGOTTEN_AT, slot_of_host(host), host)
                for host_id in await self.host_ids(host):
                    after: int | None = LOWEST
                    while after is not None:
                        _, after = await self.forget_slice(after, host_id, now, [])
                await self.finish_host(host)

    async def _unfinished(self) -> list[str]:
        """Hosts whose takedown is not finished."""
        stored = await self._values.get(_UNFINISHED)
        return [] if stored is None else list(orjson.loads(stored))

    async def forgotten(self, found: Sequence[Discovered]) -> list[Discovered]:
        """See Frontier.forgotten."""
        if not self._writer.totals.forgotten and not self._urls.has_forgotten_hosts:
            return []
        rows, ids = await self._known(found)
        gone = {number for number, (_, state) in rows.items() if state == UrlState.FORGOTTEN}
        return [
            one
            for number, one in enumerate(found)
            if self._urls.is_forgotten_host(one.origin.host)
            or number in gone
            or self._urls.was_forgotten(ids.get(one.origin, 0), one)
        ]

    async def known_ids(self, found: Sequence[Discovered]) -> list[int]:
        """See Frontier.known_ids."""
        rows, _ = await self._known(found)
        return list({url_id for url_id, state in rows.values() if state != UrlState.FORGOTTEN})

    async def _known(self, found: Sequence[Discovered]) -> tuple[dict[int, tuple[int, str]], dict[Origin, int]]:
        """Number in `found` → id and state of those that are known, and the ids of their origins."""
        ids = await self._urls.stored_ids(list(dict.fromkeys(one.origin for one in found)))
        hosts = [ids.get(one.origin, 0) for one in found]
        rows = await self._db.rows(sql.KNOWN, hosts, [one.key for one in found])
        return {number - 1: (url_id, state) for number, url_id, state in rows}, ids

    async def _erase(self, rows: Sequence[StateRow], now: float, change: PendingChange) -> None:
        """List the records of URLs in the table `takedown`, then erase all about the URLs except their keys."""
        if not rows:
            return
        ids = [url_id for url_id, *_ in rows]
        await self._db.run(sql.LIST_TAKEDOWNS, ids, now)
        for statement in sql.ERASE_URLS:
            await self._db.run(statement, ids)
        await self._db.run(sql.PUT_FORGOTTEN_VISITS, ids, now, FORGOTTEN_ERROR)
        for _, host_id, state in rows:
            change.move(host_id, state, UrlState.FORGOTTEN)

    def _unless_last(self, end: int) -> int | None:
        """`end`, None if no URL comes after it."""
        return end if end >> SLOT_BITS < self._db.state.last_url else None


def _queued(rows: Sequence[StateRow]) -> dict[int, int]:
    return dict(Counter(host_id for _, host_id, state in rows if state == UrlState.QUEUED))
