"""The transactions on a database: seeds, settlements, promotions, output files.

How URLs are inserted is in `insertions`, and what is changed by operators in `maintenance`. The totals are also in
memory, as are the ids of output files. Invariant: memory changes only after the commit that stores the same, so a
failed transaction leaves no trace in either, and a job may be run again.
"""

import contextlib
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from typing import Any

import orjson

from crawler.core.enums import UrlState
from crawler.core.models import Denied, Discovered, RecordLocation, RobotsRecord, Round, Settlement, SinkFile
from crawler.core.outcomes import OUTAGE_ERRORS
from crawler.core.ownership import slot_in
from crawler.frontier.base import ROBOTS_VERSIONS_KEPT, Batch, HostCount, Receipt
from crawler.frontier.postgresql import sql
from crawler.frontier.postgresql.connection import PendingState, PostgresConnection, columns
from crawler.frontier.postgresql.insertions import DatabaseChange, PostgresInsertions
from crawler.frontier.postgresql.readiness import Readiness
from crawler.frontier.postgresql.slots import CrawlValues, OwnSlots
from crawler.frontier.rows import (
    MARKS,
    PAGES_SINK,
    ROUND,
    ROUND_COUNTS,
    WARC_SINK,
    PendingChange,
    check_batch,
    clip,
    host_state,
    robots_digest,
    round_from,
    round_text,
    totals_from,
    visit_row,
)

StateRow = tuple[int, int, str]  # id, host id and state of a URL


def without_nul(value: str | None) -> str | None:
    """A text of a server as the database takes it: without NUL."""
    return value.replace("\0", "") if value is not None and "\0" in value else value


def by_host(rows: Sequence[StateRow]) -> dict[int, int]:
    """Host id → number of URLs."""
    return dict(Counter(host_id for _, host_id, _ in rows))


class PostgresWriter:
    """Runs transactions. Each public method is a job of `PostgresConnection.job`, or a part of one."""

    def __init__(self, connection: PostgresConnection) -> None:
        self.db = connection
        self.slots = OwnSlots()
        self.values = CrawlValues(connection)
        self.urls = PostgresInsertions(connection, self.slots)
        self.readiness = Readiness(connection, self.slots, self.values)
        self._changed: dict[int, HostCount] = {}  # since `take_counts`
        self._files: dict[str, int] = {}  # ids of output files by name; names of two sinks end differently
        self._counts: dict[str, int] = {}
        self._others: Counter[str] = Counter()  # the counts of other agents, as of the last look
        self.totals = totals_from({})

    async def load(self, key_mode: str | None) -> None:
        """Read what is kept in memory, and give hosts the keys of `key_mode` (None: as they have)."""
        db = self.db
        self._counts = db.state.counts
        await self.count_others()
        self.slots.take([row[0] for row in await db.rows(sql.OWN_SLOTS, db.agent)])
        await self.urls.load()
        self.urls.key_name = await self.readiness.assign_keys(key_mode)
        async with db.transaction() as pending:
            pending.replace(clean=False)
            await db.run(sql.END_ACTIVITY, self.slots.read)

    def take_counts(self) -> dict[int, HostCount]:
        """See Frontier.take_counts."""
        changed, self._changed = self._changed, {}
        return changed

    async def count_others(self) -> None:
        self._others = Counter()
        for totals, marks in await self.db.rows(sql.TOTALS_OF_OTHERS, self.db.agent):
            self._others.update({} if totals is None else orjson.loads(totals))
            self._others[MARKS] += marks
        self._add_up()

    def _add_up(self) -> None:
        """What one agent stored as queued another may have fetched: only the sum of all is a number of URLs."""
        counts = self._others.copy()
        counts.update(self._counts)
        self.totals = totals_from(counts, self.db.state.marks + self._others[MARKS])

    # -- the transactions

    async def add(self, discovered: Sequence[Discovered], now: float) -> Receipt:
        """See Frontier.add."""
        async with self.change() as change:
            found = [(number, None, now, one) for number, one in enumerate(discovered)]
            new = await self.urls.insert(found, change, None)
        links_new = [0] * len(discovered)
        for number, *_ in new:
            links_new[number] = 1
        return change.receipt(links_new)

    async def settle(self, batch: Batch) -> Receipt:
        """See Frontier.settle."""
        check_batch(batch)
        async with self.change() as change:
            await self._put_sink_files(batch.sink_files, change)
            await self._put_visits(batch, change)
            links_new = await self.urls.put_found(batch.settlements, batch.hint_after_s, change)
            await self._put_robots(batch.settlements, change)
            await self.readiness.put_backoffs(batch.backoffs)
            await self.readiness.put_readiness(batch.readiness)
            if batch.requested:
                last = dict(sorted(batch.requested, key=lambda one: one[1]))
                await self.db.run(sql.PUT_REQUESTED, list(last), list(last.values()))
            change.schedule_at = batch.schedule_at
            change.last_visit_at = max((one.finished_at for one in batch.settlements), default=None)
            if batch.counters is not None:
                change.counters = orjson.dumps(batch.counters).decode()
            if batch.scope_hosts:
                added_at = max((settlement.finished_at for settlement in batch.settlements), default=0.0)
                await self.db.run(sql.PUT_SCOPE_HOSTS, list(batch.scope_hosts), added_at)
            await self.readiness.put_slow_responses(batch.slow_responses)
            await self._put_notes(batch.settlements)
            if batch.templates:
                rows = {(one.host_id, one.template): one for one in batch.templates}
                flat = [(one.host_id, one.template, one.spent, one.good, one.since_at, one.released_at)
                        for one in rows.values()]  # fmt: skip
                await self.db.run(sql.PUT_TEMPLATES, *columns(flat, 6))
            for host_id, value in batch.error_pages:
                await self.values.put(f"error_pages:{host_id}", value, slot_in(host_id))
            if batch.round_counts is not None:
                await self.values.put(self.values.named(ROUND_COUNTS), orjson.dumps(batch.round_counts))
        return change.receipt(links_new)

    async def deny(self, denied: Sequence[tuple[int, Denied]], now: float) -> int:
        """See Frontier.deny."""
        async with self.change() as change:
            ids = await self._unqueue([url_id for url_id, _ in denied], UrlState.DENIED, change)
            rows = [(url_id, verdict.reason.value, without_nul(clip(verdict.rule))) for url_id, verdict in denied
                    if url_id in ids]  # fmt: skip
            urls, errors, rules = columns(rows, 3)
            await self.db.run(sql.DENY, urls, now, errors, rules)
        return len(rows)

    async def make_suspects(self, host_id: int, suspects: Sequence[tuple[int, str]]) -> list[int]:
        """See Frontier.make_suspects."""
        async with self.change() as change:
            ids = await self._unqueue([url_id for url_id, _ in suspects], UrlState.SUSPECT, change)
            found = [(url_id, host_id, template) for url_id, template in suspects if url_id in ids]
            await self.db.run(sql.PUT_SUSPECTS, *columns(found, 3))
        return [url_id for url_id, *_ in found]

    async def queue_suspects(self, host_id: int, template: str, limit: int) -> list[int]:
        """See Frontier.queue_suspects."""
        rows = await self.db.rows(sql.SUSPECTS_OF, slot_in(host_id), host_id, template, limit)
        ids = [row[0] for row in rows]
        if ids:
            async with self.change() as change:
                await self.set_state([(id_, host_id, UrlState.SUSPECT) for id_ in ids], UrlState.QUEUED, change)
                await self.db.run(sql.END_SUSPECTS, ids)
        return ids

    async def retry_now(self, since_at: float, now: float) -> None:
        """See Frontier.retry_now."""
        async with self.db.transaction():
            await self.db.run(sql.RETRY_NOW, self.slots.read, now, sorted(OUTAGE_ERRORS), since_at)

    async def clock_set_back(self, now: float, revisits_by: float) -> None:
        """See Frontier.clock_set_back."""
        async with self.db.transaction():
            await self.db.run(sql.REDATE_WAITING, self.slots.read, now, now)
            await self.db.run(sql.REDATE_REVISITS, self.slots.read, now, revisits_by)

    async def promote(self, now: float, limit: int, *, revisits: bool) -> dict[int, int]:
        """See Frontier.promote."""
        due = await self.state_rows(sql.DUE_AGAIN if revisits else sql.DUE_FIRST, self.slots.read, now, max(0, limit))
        if due:
            async with self.change() as change:
                ids = await self.set_state(due, UrlState.QUEUED, change)
                await self.db.run(sql.START_OVER if revisits else sql.NOT_DUE, ids)
        return by_host(due)

    async def last_round(self) -> Round | None:
        """The last round, None if there was none."""
        texts = [await self.values.get(self.values.named(name)) for name in (ROUND, ROUND_COUNTS)]
        return round_from(*(None if text is None else text.decode() for text in texts))

    async def put_round(self, one: Round) -> None:
        """See Frontier.put_round."""
        before = await self.last_round()
        async with self.db.transaction():
            await self.values.put(self.values.named(ROUND), round_text(one).encode())
            if before is None or before.number != one.number:
                await self.values.put(self.values.named(ROUND_COUNTS), None)

    async def record_sink_files(self, files: Sequence[SinkFile]) -> None:
        """See Frontier.record_sink_files."""
        async with self.change() as change:
            await self._put_sink_files(files, change)

    # -- parts of transactions

    @contextlib.asynccontextmanager
    async def change(self) -> AsyncIterator[DatabaseChange]:
        """A transaction that changes totals. They are stored with it, and kept in memory after it."""
        before = self.db.state
        change = DatabaseChange(dict(self._counts), last_host=before.last_host, last_url=before.last_url)
        async with self.db.transaction() as pending:
            yield change
            changed = await self.urls.add_to_hosts(change)
            self._fill(pending, change)
        self._changed |= changed
        self._counts = change.counts
        self._files |= change.files
        self._add_up()
        self.urls.learn(change)

    def _fill(self, pending: PendingState, change: DatabaseChange) -> None:
        """The state of the agent after a change."""
        before = self.db.state
        ends = [at for at in (change.last_visit_at, before.last_visit_at) if at is not None]
        pending.replace(
            last_host=change.last_host,
            last_url=change.last_url,
            marks=before.marks + change.marks,
            schedule_at=max(before.schedule_at, change.schedule_at),
            last_visit_at=max(ends, default=None),
            totals=orjson.dumps({str(word): n for word, n in change.counts.items()}).decode(),
            counters=change.counters or before.counters,
        )

    async def state_rows(self, statement: str, *values: Any) -> list[StateRow]:
        return [(row[0], row[1], row[2]) for row in await self.db.rows(statement, *values)]

    async def states(self, ids: Sequence[int]) -> list[StateRow]:
        ours = self.slots.ours(dict.fromkeys(ids))
        return await self.state_rows(sql.STATES, ours) if ours else []

    async def set_state(self, rows: Sequence[StateRow], state: UrlState, change: PendingChange) -> list[int]:
        """Give URLs another state. Returns their ids."""
        ids = [url_id for url_id, *_ in rows]
        await self.db.run(sql.SET_STATES, ids, [state.value] * len(ids))
        for _, host_id, before in rows:
            change.move(host_id, before, state)
        return ids

    async def _unqueue(self, ids: Sequence[int], state: UrlState, change: PendingChange) -> set[int]:
        """Give another state to those URLs that are still queued. Returns their ids."""
        queued = [row for row in await self.states(ids) if row[2] == UrlState.QUEUED]
        return set(await self.set_state(queued, state, change))

    async def _put_visits(self, batch: Batch, change: DatabaseChange) -> None:
        if not batch.settlements:
            return
        await self._check_hosts(batch.settlements)
        before = {row[0]: row for row in await self.states([one.task.id for one in batch.settlements if one.task.id])}
        moved: list[tuple[int, str]] = []
        rows: list[tuple[Any, ...]] = []
        gone: list[tuple[Any, ...]] = []
        lines = batch.lines or (None,) * len(batch.written)
        for settlement, record, line in zip(batch.settlements, batch.written, lines, strict=True):
            task, host_id = settlement.task, settlement.host_id
            change.hosts[host_id].add(settlement)
            if task.id == 0:
                continue
            _, stored_host_id, state = before.get(task.id, (0, None, ""))
            if stored_host_id != host_id:
                raise ValueError(f"{task.url}: no url {task.id} of host {host_id}")
            if state == UrlState.FORGOTTEN:  # taken down while it was fetched
                if record is not None:
                    self._file_id(WARC_SINK, record, change)
                    gone.append((slot_in(host_id), record.name, record.offset, task.url, settlement.finished_at))
                continue
            if state != settlement.state:
                moved.append((task.id, settlement.state.value))
                change.move(host_id, state, settlement.state)
            warc_file = None if record is None else self._file_id(WARC_SINK, record, change)
            pages_file = None if line is None else self._file_id(PAGES_SINK, line, change)
            rows.append(visit_row(settlement, warc_file, None if record is None else record.offset, pages_file))
        if moved:
            await self.db.run(sql.SET_STATES, *columns(moved, 2))
        if rows:
            values = columns(rows, 20)
            for texts in (values[6], values[7], values[8]):  # last_rule, etag, last_modified
                texts[:] = map(without_nul, texts)
            await self.db.run(sql.UPSERT_VISITS, *values)
        if gone:
            await self.db.run(sql.PUT_TAKEDOWNS, *columns(gone, 5))

    async def _check_hosts(self, settlements: Sequence[Settlement]) -> None:
        """Raises ValueError for a host without a row. (Of URLs their rows tell.)"""
        ids = {settlement.host_id for settlement in settlements if settlement.task.id == 0}
        if ids:
            known = {row[0] for row in await self.db.rows(sql.KNOWN_HOSTS, list(ids))}
            if unknown := ids - known:
                raise ValueError(f"no host {unknown.pop()}")

    async def _put_robots(self, settlements: Sequence[Settlement], change: PendingChange) -> None:
        """Store verdicts; those of one host one after the other."""
        found = [(one.host_id, one.robots) for one in settlements if one.robots is not None]
        while found:
            wave: dict[int, RobotsRecord] = {}
            later: list[tuple[int, RobotsRecord]] = []
            for host_id, robots in found:
                if host_id in wave:
                    later.append((host_id, robots))
                else:
                    wave[host_id] = robots
            await self._put_robots_of(wave, change)
            found = later

    async def _put_robots_of(self, records: dict[int, RobotsRecord], change: PendingChange) -> None:
        db = self.db
        before = {row[0]: row for row in await db.rows(sql.ROBOTS_BEFORE, list(records))}
        rows = [
            (host_id, one.verdict, one.status_code, one.body, one.fetched_at, one.expires_at, one.crawl_delay_s,
             one.failing_since, one.error)
            for host_id, one in records.items()
        ]  # fmt: skip
        await db.run(sql.PUT_ROBOTS, *columns(rows, 9))
        await db.run(sql.SET_HOST_STATES, list(records), [host_state(one).value for one in records.values()])
        raised: list[tuple[int, float]] = []
        lowered: list[int] = []
        versions: list[tuple[Any, ...]] = []
        marked: list[int] = []
        for host_id, one in records.items():
            _, before_s, digest_before, number, mark = before[host_id]
            if (one.crawl_delay_s or 0.0) < (before_s or 0.0):
                lowered.append(host_id)
            elif one.crawl_delay_s is not None:
                raised.append((host_id, one.crawl_delay_s))
            if one.verdict == "unreachable":
                continue
            is_marked = mark is not None
            if one.verdict != "rules" or one.body is not None:
                digest = robots_digest(one)
                if digest != digest_before:
                    if digest_before is not None:
                        change.robots_changed.append(host_id)
                        marked.append(host_id)
                        is_marked = True
                    versions.append((host_id, (number or 0) + 1, one.fetched_at, one.status_code, one.verdict, digest,
                                     one.body))  # fmt: skip
            if is_marked:
                change.to_reevaluate.append(host_id)
        if raised:
            await db.run(sql.RAISE_CRAWL_DELAYS, *columns(raised, 2))
        if lowered:
            await db.run(sql.COMPUTE_CRAWL_DELAYS, lowered)
        if versions:
            await db.run(sql.ADD_ROBOTS_VERSIONS, *columns(versions, 7))
            hosts, numbers = columns([row[:2] for row in versions], 2)
            await db.run(sql.CUT_ROBOTS_VERSIONS, hosts, numbers, ROBOTS_VERSIONS_KEPT)
        if marked:
            await db.run(sql.MARK_HOSTS, marked)

    async def _put_notes(self, settlements: Sequence[Settlement]) -> None:
        """Store what pages contribute to the verdicts on their templates."""
        samples: list[tuple[Any, ...]] = []
        counts: Counter[tuple[int, str]] = Counter()
        for settlement in settlements:
            if (note := settlement.note) is None:
                continue
            if note.words is not None:
                samples.append((settlement.task.id, settlement.host_id, note.words))
            counts.update((settlement.host_id, template) for template in note.counted)
        if samples:
            await self.db.run(sql.PUT_SAMPLES, *columns(samples, 3))
        if counts:
            flat = [(host_id, template, n) for (host_id, template), n in counts.items()]
            await self.db.run(sql.ADD_TO_TEMPLATES, *columns(flat, 3))

    async def _put_sink_files(self, files: Sequence[SinkFile], change: PendingChange) -> None:
        last = {(file.sink, file.name): file for file in files}
        if last:
            rows = [(file.sink, file.name, file.state.value, file.committed_bytes) for file in last.values()]
            stored = await self.db.rows(sql.PUT_SINK_FILES, self.db.agent, *columns(rows, 4))
            change.files.update((name, file_id) for name, file_id in stored)

    def _file_id(self, sink: str, place: RecordLocation, change: PendingChange) -> int:
        file_id = change.files.get(place.name) or self._files.get(place.name)
        if file_id is None:
            raise ValueError(f"no output file {place.name} is known")
        return file_id

    def know_files(self, rows: Sequence[Any]) -> None:
        """Keep the ids of output files (rows of sql.SINK_FILES)."""
        self._files = {row[1]: row[4] for row in rows}
