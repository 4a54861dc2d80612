"""The transactions on a store: seeds, settlements, promotions, output files.

Everything here runs in the thread that owns the connection. The totals are also in memory. How URLs are inserted is in
`insertions`. Invariant: memory changes only after the commit that stores the same, so a failed transaction leaves no
trace in either.
"""

import contextlib
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any, Final

import orjson

from crawler.core.enums import SinkFileState, UrlState
from crawler.core.models import (
    Backoff,
    Denied,
    Discovered,
    Origin,
    RecordLocation,
    RobotsRecord,
    Round,
    Settlement,
    SinkFile,
    SlowResponse,
)
from crawler.core.outcomes import OUTAGE_ERRORS
from crawler.core.url import registrable_domain
from crawler.frontier.base import (
    ROBOTS_VERSIONS_KEPT,
    Batch,
    BlockedHost,
    Entered,
    HostCount,
    Leaving,
    Receipt,
    UrlPlace,
    UrlSelection,
    Wanted,
)
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
from crawler.frontier.sqlite import readiness, sql
from crawler.frontier.sqlite.database import BULK_CACHE_BYTES, CACHE_BYTES, Database, json_list
from crawler.frontier.sqlite.insertions import MANY, BloomFilters, Insertions

LOWEST: Final = -(1 << 63)  # before every cursor of a host's URLs
_ENDED: Final = (UrlState.DONE, UrlState.GAVE_UP)
WITH_WORK: Final = "hosts_with_work"  # in the totals
TIMES: Final = "times"  # in `meta`: of the last settlement, in schedule time and UTC
REQUEUE_SLICE: Final = 5_000  # URLs of one transaction, for which other calls wait
StateRow = tuple[int, int, str]  # id, host id and state of a URL


class Writer:
    """Runs transactions. `totals` may be read from any thread: it is replaced, never changed."""

    def __init__(
        self, database: Database, seen: BloomFilters | None = None, key_name: Callable[[str], str] = registrable_domain
    ) -> None:
        """`seen` knows every URL of the store; without it the index does. `key_name` makes the name of a politeness key
        of a host name.
        """
        self.seen = seen
        self.database = self._db = database
        self.urls = Insertions(database, seen, key_name)
        self.key_name = key_name
        stored = database.get(sql.META, ("totals",))
        self._counts: dict[str, int] = {} if stored is None else orjson.loads(stored)
        if WITH_WORK not in self._counts:  # a store of an older version
            self._counts[WITH_WORK] = int(database.get(sql.COUNT_WITH_WORK))
        times = database.get(sql.META, (TIMES,))
        self.schedule_at: float = 0.0
        self.last_visit_at: float | None
        if times is None:
            self.last_visit_at = database.get(sql.LAST_VISIT_AT)
        else:
            self.schedule_at, self.last_visit_at = orjson.loads(times)
        self._changed: dict[int, HostCount] = {}  # since `take_counts`
        marks = database.get(sql.META, (MARKS,))
        if marks is None and self._counts.get(UrlState.FORGOTTEN):  # of an older version: the next change stores it
            self._marks, self._marks_stored = int(database.get(sql.COUNT_MARKS)), False
        else:
            self._marks, self._marks_stored = int(marks or 0), True
        self._files: dict[str, int] = {}  # ids of the output files that the last visits are in
        self.totals = totals_from(self._counts, self._marks)

    def take_counts(self) -> dict[int, HostCount]:
        """See Frontier.take_counts. It may be called in any thread."""
        changed, self._changed = self._changed, {}
        return changed

    # -- the transactions

    def add(self, discovered: Sequence[Discovered], now: float) -> Receipt:
        """See Frontier.add."""
        self._db.resize_cache(BULK_CACHE_BYTES if len(discovered) >= MANY else CACHE_BYTES)
        with self.change() as change:
            links_new = self.urls.put(discovered, now, change)
        return change.receipt(links_new)

    def settle(self, batch: Batch) -> Receipt:
        """See Frontier.settle."""
        check_batch(batch)
        self._db.resize_cache(CACHE_BYTES)
        with self.change() as change:
            self._put_sink_files(batch.sink_files)
            self._put_visits(batch.settlements, batch.written, batch.lines or (None,) * len(batch.written), change)
            links_new = self.urls.put_found(batch.settlements, batch.hint_after_s, change)
            for settlement in batch.settlements:
                if settlement.robots is not None:
                    self._put_robots(settlement.host_id, settlement.robots, change)
            self._put_backoffs(batch.backoffs)
            readiness.put_readiness(self._db, batch.readiness)
            self._db.run_many(sql.PUT_REQUESTED, [value for key in batch.requested for value in key])
            change.schedule_at = batch.schedule_at
            change.last_visit_at = max((one.finished_at for one in batch.settlements), default=None)
            if batch.counters is not None:
                change.counters = orjson.dumps(batch.counters).decode()
            added_at = max((settlement.finished_at for settlement in batch.settlements), default=0.0)
            for host in batch.scope_hosts:
                self._db.run(sql.PUT_SCOPE_HOST, (host, added_at))
            self._put_slow_responses(batch.slow_responses)
            self._put_notes(batch.settlements)
            for one in batch.templates:
                self._db.run(
                    sql.PUT_TEMPLATE,
                    (one.host_id, one.template, one.spent, one.good, one.since_at, one.released_at),
                )
            for error_pages in batch.error_pages:
                self._db.run(sql.PUT_ERROR_PAGES, error_pages)
            if batch.round_counts is not None:
                self._db.run(sql.PUT_META, (ROUND_COUNTS, orjson.dumps(batch.round_counts).decode()))
        return change.receipt(links_new)

    def exchange(self, leaving: Leaving, wanted: Wanted) -> Entered:
        """See Frontier.exchange."""
        with self._db.transaction():
            self._put_backoffs(leaving.backoffs)
            self._put_slow_responses(leaving.slow_responses)
            return readiness.exchange(self._db, leaving, wanted, self.key_name)

    def deny(self, host_id: int, denied: Sequence[tuple[int, Denied]], now: float) -> int:
        """See Frontier.deny."""
        with self.change() as change:
            ids = self._unqueue([url_id for url_id, _ in denied], UrlState.DENIED, change)
            refused = [(url_id, verdict) for url_id, verdict in denied if url_id in ids]
            flat = [value for url_id, verdict in refused for value in (url_id, now, verdict.reason, clip(verdict.rule))]
            self._db.run_many(sql.DENY, flat)
        return len(refused)

    def make_suspects(self, host_id: int, suspects: Sequence[tuple[int, str]]) -> list[int]:
        """See Frontier.make_suspects."""
        with self.change() as change:
            ids = self._unqueue([url_id for url_id, _ in suspects], UrlState.SUSPECT, change)
            found = [(url_id, template) for url_id, template in suspects if url_id in ids]
            flat = [value for url_id, template in found for value in (url_id, host_id, template)]
            self._db.run_many(sql.PUT_SUSPECTS, flat)
        return [url_id for url_id, _ in found]

    def queue_suspects(self, host_id: int, template: str, limit: int) -> list[int]:
        """See Frontier.queue_suspects."""
        ids: list[int] = orjson.loads(self._db.get(sql.SUSPECTS_OF, (host_id, template, limit)))
        if ids:
            with self.change() as change:
                listed = self._set_state(
                    [(url_id, host_id, UrlState.SUSPECT) for url_id in ids], UrlState.QUEUED, change
                )
                self._db.run(sql.END_SUSPECTS, (listed,))
        return ids

    def retry_now(self, since_at: float, now: float) -> None:
        """See Frontier.retry_now."""
        self._db.commit(sql.RETRY_NOW, (now, json_list(sorted(OUTAGE_ERRORS)), since_at))

    def clock_set_back(self, now: float, revisits_by: float) -> None:
        """See Frontier.clock_set_back."""
        with self._db.transaction():
            self._db.run(sql.REDATE_WAITING, (now, now))
            self._db.run(sql.REDATE_REVISITS, (now, revisits_by))

    def promote(self, now: float, limit: int, *, revisits: bool = False) -> dict[int, int]:
        """See Frontier.promote."""
        due: list[StateRow] = orjson.loads(self._db.get(sql.DUE_AGAIN if revisits else sql.DUE, (now, max(0, limit))))
        if due:
            with self.change() as change:
                ids = self._set_state(due, UrlState.QUEUED, change)
                self._db.run(sql.NOT_DUE, (ids,))
                if revisits:
                    self._db.run(sql.START_OVER, (ids,))
        return _by_host(due)

    def settled_urls(
        self, selection: UrlSelection, after: int | None, host_id: int | None
    ) -> tuple[list[UrlPlace], int | None]:
        """See Frontier.settled_urls. Of one host, `after` is a cursor of `sql.URLS_OF_HOST`."""
        if host_id is None:
            first = after or 0
            statement, values = sql.settled(selection)
            found = orjson.loads(self._db.get(statement, (first, first + REQUEUE_SLICE, *values)))
            end = self._unless_last(first + REQUEUE_SLICE)
        else:
            of_host = sql.URLS_OF_HOST if self.seen is None else sql.URLS_OF_HOST_BY_ID
            rows = orjson.loads(self._db.get(of_host, (host_id, LOWEST if after is None else after, REQUEUE_SLICE)))
            statement, values = sql.settled(selection, by_ids=True)
            found = orjson.loads(self._db.get(statement, (json_list([row[0] for row in rows]), *values)))
            end = rows[-1][1] if len(rows) == REQUEUE_SLICE else None
        return [UrlPlace(*row) for row in found], end

    def queue_urls(self, ids: Sequence[int], states: Collection[UrlState]) -> dict[int, int]:
        """See Frontier.queue_urls."""
        kept = (UrlState.QUEUED, UrlState.FORGOTTEN)
        rows = [row for row in self._states(ids) if (row[2] in states if states else row[2] not in kept)]
        if rows:
            with self.change() as change:
                queued = self._set_state(rows, UrlState.QUEUED, change)
                self._db.run(sql.START_AGAIN, (queued,))
                self._db.run(sql.END_SUSPECTS, (queued,))
                self._db.run(sql.NO_ERROR, (json_list([row[0] for row in rows if row[2] == UrlState.DENIED]),))
        return _by_host(rows)

    def known_ids(self, found: Sequence[Discovered]) -> list[int]:
        """See Frontier.known_ids."""
        statement = sql.KNOWN_AS if self.seen is None else sql.KNOWN_AS_OF_HOST
        keys: defaultdict[Origin, list[int]] = defaultdict(list)
        for one in found:
            keys[one.origin].append(one.key)
        ids: list[int] = []
        for origin, keys_of_host in keys.items():
            host_id = self._db.get(sql.HOST_ID, (origin.host, origin.scheme, origin.port))
            rows = orjson.loads(self._db.get(statement, (host_id, json_list(keys_of_host))))
            ids += [url_id for url_id, _, state in rows if state != UrlState.FORGOTTEN]
        return ids

    def last_round(self) -> Round | None:
        """The last round, None if there was none."""
        return round_from(self._db.get(sql.META, (ROUND,)), self._db.get(sql.META, (ROUND_COUNTS,)))

    def put_round(self, one: Round) -> None:
        """See Frontier.put_round."""
        before = self.last_round()
        with self._db.transaction():
            self._db.run(sql.PUT_META, (ROUND, round_text(one)))
            if before is None or before.number != one.number:
                self._db.run(sql.END_META, (ROUND_COUNTS,))

    def block(self, block: BlockedHost) -> bool:
        """See Frontier.block."""
        columns = self._db.get(sql.BLOCK_OF, (block.name,))
        had = None if columns is None else BlockedHost(*columns)
        after = block.joined_with(had)
        if after != had:
            self._db.commit(sql.BLOCK, (after.name, after.kind, after.at, after.reason))
        return after != had

    def unblock(self, name: str) -> bool:
        """See Frontier.unblock."""
        is_blocked = self._db.get(sql.BLOCK_OF, (name,)) is not None
        if is_blocked:
            self._db.commit(sql.UNBLOCK, (name,))
        return is_blocked

    def record_sink_files(self, sink_files: Sequence[SinkFile]) -> None:
        """See Frontier.record_sink_files."""
        with self._db.transaction():
            self._put_sink_files(sink_files)

    def begin_losing(self, sink: str, name: str) -> int | None:
        """The first transaction of Frontier.lose_file. From now on the next start finishes it if need be. Returns the
        id of the file, None if it is unknown.
        """
        file_id: int | None = self._db.get(sql.SINK_FILE_ID, (sink, name))
        if file_id is not None:
            self._db.commit(sql.SET_FILE_STATE, (SinkFileState.LOSING, file_id))
        return file_id

    def lose_slice(self, after: int, *, file_id: int) -> tuple[dict[int, int], int | None]:
        """A slice of Frontier.lose_file, as `requeue`."""
        end = after + REQUEUE_SLICE
        found: list[StateRow] = orjson.loads(self._db.get(sql.IN_FILE, (after, end, file_id)))
        ended = [row for row in found if row[2] in _ENDED]
        if found:
            with self.change() as change:
                self._db.run(sql.NOTHING_HELD, (json_list([url_id for url_id, _, _ in found]),))
                self._db.run(sql.START_AGAIN, (self._set_state(ended, UrlState.QUEUED, change),))
        return _by_host(ended), self._unless_last(end)

    def end_losing(self, file_id: int) -> None:
        """The last transaction of Frontier.lose_file."""
        self._db.commit(sql.SET_FILE_STATE, (SinkFileState.LOST, file_id))

    def finish_losing(self) -> None:
        """Finish what a crash interrupted."""
        for file_id in orjson.loads(self._db.get(sql.LOSING_FILES)):
            after: int | None = 0
            while after is not None:
                _, after = self.lose_slice(after, file_id=file_id)
            self.end_losing(file_id)

    def set_clean(self, clean: bool) -> None:
        """Store whether the store was left with nothing in flight."""
        self._db.commit(sql.PUT_META, ("clean", str(int(clean))))

    # -- parts of transactions

    @contextlib.contextmanager
    def change(self) -> Iterator[PendingChange]:
        """A transaction that changes totals. They are stored with it, and kept in memory after it."""
        change = PendingChange(dict(self._counts))
        with self._db.transaction():
            yield change
            changed = self._add_to_hosts(change)
            marks = self._marks + change.marks
            if change.marks or not self._marks_stored:
                self._db.run(sql.PUT_META, (MARKS, str(marks)))
            times = max(self.schedule_at, change.schedule_at), self.last_visit_at
            if change.last_visit_at is not None:
                times = times[0], max(change.last_visit_at, self.last_visit_at or 0.0)
            if times != (self.schedule_at, self.last_visit_at):
                self._db.run(sql.PUT_META, (TIMES, json_list(times)))
            totals = ("totals", orjson.dumps({str(k): n for k, n in change.counts.items()}).decode())
            if change.counters is None:
                self._db.run(sql.PUT_META, totals)
            else:  # one statement: see Database.run_many
                self._db.run(sql.PUT_META_TWICE, (*totals, "counters", change.counters))
        self.schedule_at, self.last_visit_at = times
        self._changed = self._changed | changed  # replaced, since `take_counts` runs in another thread
        self._counts = change.counts
        self._marks, self._marks_stored = marks, True
        self._files = change.files or self._files
        self.totals = totals_from(change.counts, marks)
        self.urls.committed(change)

    def _states(self, ids: Sequence[int]) -> list[StateRow]:
        rows: list[StateRow] = orjson.loads(self._db.get(sql.STATES, (json_list(ids),)))
        return rows

    def _set_state(self, rows: Sequence[StateRow], state: UrlState, change: PendingChange) -> str:
        """Give URLs another state. Returns their ids as a JSON list."""
        ids = json_list([url_id for url_id, _, _ in rows])
        self._db.run(sql.SET_STATE, (state, ids))
        for _, host_id, before in rows:
            change.move(host_id, before, state)
        return ids

    def _unqueue(self, ids: Sequence[int], state: UrlState, change: PendingChange) -> set[int]:
        """Give another state to those URLs that are still queued. Returns their ids."""
        queued = [row for row in self._states(ids) if row[2] == UrlState.QUEUED]
        self._set_state(queued, state, change)
        return {url_id for url_id, _, _ in queued}

    def _unless_last(self, end: int) -> int | None:
        """`end`, None if no URL comes after it."""
        return end if end < self._db.get(sql.LAST_URL) else None

    def _put_visits(
        self,
        settlements: Sequence[Settlement],
        written: Sequence[RecordLocation | None],
        lines: Sequence[RecordLocation | None],
        change: PendingChange,
    ) -> None:
        ids = [settlement.task.id for settlement in settlements]
        before = {url_id: (host, state) for url_id, host, state in self._states(ids)}
        moves: defaultdict[UrlState, list[int]] = defaultdict(list)
        flat: list[Any] = []
        for settlement, record, line in zip(settlements, written, lines, strict=True):
            task, host_id = settlement.task, settlement.host_id
            change.hosts[host_id].add(settlement)
            if task.id == 0:
                if self._db.get(sql.HOST_EXISTS, (host_id,)) is None:
                    raise ValueError(f"{task.url}: no host {host_id}")
                continue
            stored_host_id, state = before.get(task.id, (None, ""))
            if stored_host_id != host_id:
                raise ValueError(f"{task.url}: no url {task.id} of host {host_id}")
            if state == UrlState.FORGOTTEN:  # taken down while it was fetched
                if record is not None:
                    at = settlement.finished_at
                    self._file_id(WARC_SINK, record.name, change)
                    self._db.run(sql.PUT_TAKEDOWN, (task.url, record.name, record.offset, at))
                continue
            if state != settlement.state:
                moves[settlement.state].append(task.id)
                change.move(host_id, state, settlement.state)
            warc_file = None if record is None else self._file_id(WARC_SINK, record.name, change)
            pages_file = None if line is None else self._file_id(PAGES_SINK, line.name, change)
            flat += visit_row(settlement, warc_file, None if record is None else record.offset, pages_file)
        for new_state, moved in moves.items():
            self._db.run(sql.SET_STATE, (new_state, json_list(moved)))
        self._db.run_many(sql.UPSERT_VISITS, flat)

    def _put_notes(self, settlements: Sequence[Settlement]) -> None:
        """Store what pages contribute to the verdicts on their templates."""
        samples: list[Any] = []
        counts: Counter[tuple[int, str]] = Counter()
        for settlement in settlements:
            if (note := settlement.note) is None:
                continue
            if note.words is not None:
                samples += (settlement.task.id, settlement.host_id, note.words)
            counts.update((settlement.host_id, template) for template in note.counted)
        self._db.run_many(sql.PUT_SAMPLES, samples)
        flat = [value for (host_id, template), count in counts.items() for value in (host_id, template, count)]
        self._db.run_many(sql.ADD_TO_TEMPLATES, flat)

    def _add_to_hosts(self, change: PendingChange) -> dict[int, HostCount]:
        """Store the changes of hosts. Returns the counts of those whose queue changed."""
        change.schedule_at = now = max(self.schedule_at, change.schedule_at)
        new = change.new_hosts
        if new:
            self.urls.insert_hosts(change, now)
        flat: list[Any] = []
        for host_id, one in change.hosts.items():
            if host_id in new:
                continue
            flat += (host_id, one.queued, one.fetched, one.ok, one.errors, one.bytes, one.last_at, one.suspects,
                     one.again, now)  # fmt: skip
        self._db.run_many(sql.ADD_TO_HOSTS, flat)
        counts: dict[int, HostCount] = {}
        moved: list[int] = []
        for host_id, one in change.hosts.items():
            if not (one.queued or one.suspects):
                continue
            if host_id in new:
                counts[host_id] = HostCount(one.queued, new[host_id][3])
            else:
                moved.append(host_id)
        change.counts[WITH_WORK] += len(counts)
        if not moved:
            return counts
        woken: list[int] = []
        for host_id, queued, suspects, key_id in orjson.loads(self._db.get(sql.COUNTS, (json_list(moved),))):
            one = change.hosts[host_id]
            has_work, had_work = queued + suspects > 0, queued + suspects > one.queued + one.suspects
            change.counts[WITH_WORK] += has_work - had_work
            counts[host_id] = HostCount(queued, key_id)
            if one.queued > 0 or (has_work and not had_work):
                woken.append(host_id)
        if woken:
            readiness.wake_keys(self._db, woken)
        return counts

    def _put_robots(self, host_id: int, robots: RobotsRecord, change: PendingChange) -> None:
        before_s = self._db.get(sql.CRAWL_DELAY_OF, (host_id,))
        self._db.run(
            sql.PUT_ROBOTS,
            (host_id, robots.verdict, robots.status_code, robots.body, robots.fetched_at, robots.expires_at,
             robots.crawl_delay_s, robots.failing_since, robots.error),
        )  # fmt: skip
        self._db.run(sql.SET_HOST_STATE, (host_state(robots), host_id))
        if (robots.crawl_delay_s or 0.0) < (before_s or 0.0):
            self._db.run(sql.COMPUTE_CRAWL_DELAY, (host_id,))
        elif robots.crawl_delay_s is not None:
            self._db.run(sql.RAISE_CRAWL_DELAY, (host_id, robots.crawl_delay_s))
        if robots.verdict == "unreachable":
            return
        if robots.verdict != "rules" or robots.body is not None:
            self._put_robots_version(host_id, robots, change)
        if self._db.get(sql.REEVALUATION_MARK, (host_id,)) is not None:
            change.to_reevaluate.append(host_id)

    def _put_robots_version(self, host_id: int, robots: RobotsRecord, change: PendingChange) -> None:
        digest = robots_digest(robots)
        before = self._db.get(sql.LAST_ROBOTS_DIGEST, (host_id,))
        if digest == before:
            return
        if before is not None:
            change.robots_changed.append(host_id)
            self._db.run(sql.PUT_TO_REEVALUATE, (host_id,))
        self._db.run(
            sql.ADD_ROBOTS_VERSION,
            (host_id, robots.fetched_at, robots.status_code, robots.verdict, digest, robots.body),
        )
        self._db.run(sql.CUT_ROBOTS_VERSIONS, (host_id, ROBOTS_VERSIONS_KEPT))

    def _put_backoffs(self, backoffs: Sequence[Backoff]) -> None:
        for backoff in backoffs:
            if backoff.until_at == 0:
                self._db.run(sql.END_BACKOFF, (backoff.key,))
            else:
                self._db.run(sql.PUT_BACKOFF, (backoff.key, backoff.until_at, backoff.failures, backoff.reason))

    def _put_slow_responses(self, slow_responses: Sequence[SlowResponse]) -> None:
        for slow in slow_responses:
            if slow.response_s > 0:
                self._db.run(sql.PUT_SLOW_RESPONSE, (slow.key, slow.response_s, slow.updated_at))
            else:
                self._db.run(sql.END_SLOW_RESPONSE, (slow.key,))

    def _put_sink_files(self, sink_files: Sequence[SinkFile]) -> None:
        for file in sink_files:
            self._db.run(sql.PUT_SINK_FILE, (file.sink, file.name, file.state, file.committed_bytes))

    def _file_id(self, sink: str, name: str, change: PendingChange) -> int:
        file_id = change.files.get(name) or self._files.get(name)  # names of two sinks end differently
        if file_id is None:
            file_id = self._db.get(sql.SINK_FILE_ID, (sink, name))
            if file_id is None:
                raise ValueError(f"no output file {name} is known")
        change.files[name] = file_id
        return int(file_id)


def _by_host(rows: Sequence[StateRow]) -> dict[int, int]:
    """Host id → number of URLs."""
    return dict(Counter(host_id for _, host_id, _ in rows))
