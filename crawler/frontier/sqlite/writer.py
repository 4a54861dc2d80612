"""Every transaction on the store: seeds, settlements, promotions, output files.

It runs in the thread that owns the connection. It keeps in memory the totals, which each transaction changes; how URLs
enter is in `discoveries`. It knows nothing of threads and awaiting.

Invariant: what is kept in memory changes only after the commit that stores the same, so a failed transaction leaves no
trace in either.
"""

import contextlib
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from typing import Any, Final

import orjson

from crawler.core.enums import SinkFileState, UrlState
from crawler.core.models import Backoff, Denied, Discovered, RecordLocation, RobotsRecord, Settlement, SinkFile
from crawler.core.outage import SIGNS
from crawler.frontier.base import ROBOTS_VERSIONS_KEPT, Batch, BlockedHost, EndedWith, Receipt
from crawler.frontier.sqlite import sql
from crawler.frontier.sqlite.bloom_filter import BloomFilters
from crawler.frontier.sqlite.database import Database
from crawler.frontier.sqlite.insertions import Insertions, PendingChange
from crawler.frontier.sqlite.rows import (
    MARKS,
    PAGES_SINK,
    WARC_SINK,
    HostChange,
    check_batch,
    clip,
    counters_text,
    host_state,
    robots_digest,
    totals_from,
    visit_row,
)

_ENDED: Final = (UrlState.DONE, UrlState.GAVE_UP)
REQUEUE_SLICE: Final = 5_000  # URLs that are looked at: other calls wait for one of these


class Writer:
    """`totals` may be read from any thread: it is replaced, never changed."""

    def __init__(self, database: Database, seen: BloomFilters | None = None) -> None:
        """`seen` knows every URL of the store; without one the index does."""
        self.seen = seen
        self.database = self._db = database
        self.urls = Insertions(database, seen)
        stored = database.get(sql.META, ("totals",))
        self._counts: dict[str, int] = {} if stored is None else orjson.loads(stored)
        marks = database.get(sql.META, (MARKS,))
        if marks is None and self._counts.get(UrlState.FORGOTTEN):  # of an older version: stored with the next change
            self._marks, self._marks_stored = int(database.get(sql.COUNT_MARKS)), False
        else:
            self._marks, self._marks_stored = int(marks or 0), True
        self._files: dict[str, int] = {}  # ids of the output files that the last visits are in
        self.totals = totals_from(self._counts, self._marks)

    # -- the transactions

    def add(self, discovered: Sequence[Discovered], now: float) -> Receipt:
        """See Frontier.add."""
        with self.change() as change:
            links_new = self.urls.put(discovered, now, change)
        return change.receipt(links_new)

    def settle(self, batch: Batch) -> Receipt:
        """See Frontier.settle. Raises ValueError, with nothing stored, for a batch no correct caller sends."""
        check_batch(batch)
        with self.change() as change:
            self._put_sink_files(batch.sink_files)
            self._put_visits(batch.settlements, batch.written, batch.lines or (None,) * len(batch.written), change)
            links_new = self.urls.put_found(batch.settlements, batch.hint_after_s, change)
            for settlement in batch.settlements:
                if settlement.robots is not None:
                    self._put_robots(settlement.host_id, settlement.robots, change)
            self._put_backoffs(batch.backoffs)
            if batch.counters is not None:
                change.counters = counters_text(batch.counters)
            added_at = max((settlement.finished_at for settlement in batch.settlements), default=0.0)
            for host in batch.scope_hosts:
                self._db.run(sql.PUT_SCOPE_HOST, (host, added_at))
            for slow in batch.slow_responses:
                if slow.response_s > 0:
                    self._db.run(sql.PUT_SLOW_RESPONSE, (slow.key, slow.response_s, slow.updated_at))
                else:
                    self._db.run(sql.END_SLOW_RESPONSE, (slow.key,))
            self._put_notes(batch.settlements)
            for one in batch.templates:
                self._db.run(
                    sql.PUT_TEMPLATE,
                    (one.host_id, one.template, one.spent, one.good, one.since_at, one.released_at),
                )
            for error_pages in batch.error_pages:
                self._db.run(sql.PUT_ERROR_PAGES, error_pages)
        return change.receipt(links_new)

    def deny(self, host_id: int, denied: Sequence[tuple[int, Denied]], now: float) -> int:
        """See Frontier.deny."""
        ids = orjson.dumps([url_id for url_id, _ in denied]).decode()
        with self.change() as change:
            states = {url_id: state for url_id, _, state in orjson.loads(self._db.get(sql.STATES, (ids,)))}
            refused = [(url_id, verdict) for url_id, verdict in denied if states.get(url_id) == UrlState.QUEUED]
            self._db.run(sql.SET_STATE, (UrlState.DENIED, orjson.dumps([url_id for url_id, _ in refused]).decode()))
            flat = [value for url_id, verdict in refused for value in (url_id, now, verdict.reason, clip(verdict.rule))]
            self._db.run_many(*sql.DENY, flat, width=sql.DENY_WIDTH)
            for _ in refused:
                change.move(host_id, UrlState.QUEUED, UrlState.DENIED)
        return len(refused)

    def set_aside(self, host_id: int, suspects: Sequence[tuple[int, str]]) -> list[int]:
        """See Frontier.set_aside."""
        ids = orjson.dumps([url_id for url_id, _ in suspects]).decode()
        with self.change() as change:
            states = {url_id: state for url_id, _, state in orjson.loads(self._db.get(sql.STATES, (ids,)))}
            found = [(url_id, template) for url_id, template in suspects if states.get(url_id) == UrlState.QUEUED]
            self._db.run(sql.SET_STATE, (UrlState.SUSPECT, orjson.dumps([url_id for url_id, _ in found]).decode()))
            flat = [value for url_id, template in found for value in (url_id, host_id, template)]
            self._db.run_many(sql.PUT_SUSPECTS, "", flat, width=sql.SUSPECT_WIDTH)
            for _ in found:
                change.move(host_id, UrlState.QUEUED, UrlState.SUSPECT)
        return [url_id for url_id, _ in found]

    def queue_suspects(self, host_id: int, template: str, limit: int) -> list[int]:
        """See Frontier.queue_suspects."""
        ids = self._db.get(sql.SUSPECTS_OF, (host_id, template, limit))
        url_ids: list[int] = orjson.loads(ids)
        if url_ids:
            with self.change() as change:
                self._db.run(sql.SET_STATE, (UrlState.QUEUED, ids))
                self._db.run(sql.END_SUSPECTS, (ids,))
                for _ in url_ids:
                    change.move(host_id, UrlState.SUSPECT, UrlState.QUEUED)
        return url_ids

    def hasten(self, since_at: float, now: float) -> None:
        """See Frontier.hasten."""
        with self._db.transaction():
            self._db.run(sql.HASTEN, (now, orjson.dumps(sorted(SIGNS)).decode(), since_at))

    def redate(self, now: float, revisits_by: float) -> None:
        """See Frontier.redate."""
        with self._db.transaction():
            self._db.run(sql.REDATE_WAITING, (now, now))
            self._db.run(sql.REDATE_REVISITS, (now, revisits_by))

    def promote(self, now: float, limit: int, *, revisits: bool = False) -> dict[int, int]:
        """See Frontier.promote and promote_revisits."""
        due = orjson.loads(self._db.get(sql.DUE_AGAIN if revisits else sql.DUE, (now, max(0, limit))))
        if not due:
            return {}
        ids = orjson.dumps([url_id for url_id, _, _ in due]).decode()
        promoted: dict[int, int] = {}
        with self.change() as change:
            self._db.run(sql.SET_STATE, (UrlState.QUEUED, ids))
            self._db.run(sql.NOT_DUE, (ids,))
            if revisits:
                self._db.run(sql.START_OVER, (ids,))
            for _, host_id, state in due:
                change.move(host_id, state, UrlState.QUEUED)
                promoted[host_id] = promoted.get(host_id, 0) + 1
        return promoted

    def requeue(self, ending: EndedWith, after: int, *, dry_run: bool) -> tuple[dict[int, int], int | None]:
        """A slice of Frontier.requeue, from behind URL `after` on; returns also its end, None if it was the last."""
        end = after + REQUEUE_SLICE
        statement, values = sql.requeuable(ending.errors, ending.statuses, ending.host_ids)
        found = orjson.loads(self._db.get(statement, (after, end, *values)))
        requeued: dict[int, int] = {}
        for _, host_id, _ in found:
            requeued[host_id] = requeued.get(host_id, 0) + 1
        if found and not dry_run:
            ids = orjson.dumps([url_id for url_id, _, _ in found]).decode()
            with self.change() as change:
                self._db.run(sql.SET_STATE, (UrlState.QUEUED, ids))
                self._db.run(sql.START_AGAIN, (ids,))
                self._db.run(sql.END_SUSPECTS, (ids,))
                for _, host_id, state in found:
                    change.move(host_id, state, UrlState.QUEUED)
        return requeued, end if end < self._db.get(sql.LAST_URL) else None

    def queue_again(self, ids: Sequence[int]) -> dict[int, int]:
        """See Frontier.queue_again."""
        rows = orjson.loads(self._db.get(sql.STATES, (orjson.dumps(list(ids)).decode(),)))
        denied = [(url_id, host_id) for url_id, host_id, state in rows if state == UrlState.DENIED]
        if not denied:
            return {}
        again = orjson.dumps([url_id for url_id, _ in denied]).decode()
        queued: dict[int, int] = {}
        with self.change() as change:
            self._db.run(sql.SET_STATE, (UrlState.QUEUED, again))
            self._db.run(sql.NO_ERROR, (again,))
            for _, host_id in denied:
                change.move(host_id, UrlState.DENIED, UrlState.QUEUED)
                queued[host_id] = queued.get(host_id, 0) + 1
        return queued

    def block(self, block: BlockedHost) -> bool:
        """See Frontier.block."""
        columns = self._db.get(sql.BLOCK_OF, (block.name,))
        had = None if columns is None else BlockedHost(*columns)
        after = block.beside(had)
        if after == had:
            return False
        with self._db.transaction():
            self._db.run(sql.BLOCK, (after.name, after.kind, after.at, after.reason))
        return True

    def unblock(self, name: str) -> bool:
        """See Frontier.unblock."""
        if self._db.get(sql.IS_BLOCKED, (name,)) is None:
            return False
        with self._db.transaction():
            self._db.run(sql.UNBLOCK, (name,))
        return True

    def keep(self, name: str, value: bytes) -> None:
        """See Frontier.keep."""
        with self._db.transaction():
            self._db.run(sql.PUT_META, (f"kept:{name}", value))

    def record_sink_files(self, sink_files: Sequence[SinkFile]) -> None:
        """See Frontier.record_sink_files."""
        with self._db.transaction():
            self._put_sink_files(sink_files)

    def begin_losing(self, sink: str, name: str) -> int | None:
        """The first transaction of Frontier.lose: from now on the rest is done, by the next start if need be. Returns
        the file's id, None if there is none of that name.
        """
        file_id: int | None = self._db.get(sql.SINK_FILE_ID, (sink, name))
        if file_id is not None:
            with self._db.transaction():
                self._db.run(sql.SET_FILE_STATE, (SinkFileState.LOSING, file_id))
        return file_id

    def lose_slice(self, file_id: int, after: int) -> tuple[dict[int, int], int | None]:
        """Queue URLs behind URL `after` again that are in a file; as `requeue`."""
        end = after + REQUEUE_SLICE
        found = orjson.loads(self._db.get(sql.IN_FILE, (after, end, file_id)))
        queued: dict[int, int] = {}
        if found:
            again = [(url_id, host_id, state) for url_id, host_id, state in found if state in _ENDED]
            ids = orjson.dumps([url_id for url_id, _, _ in again]).decode()
            with self.change() as change:
                self._db.run(sql.NOTHING_HELD, (orjson.dumps([url_id for url_id, _, _ in found]).decode(),))
                self._db.run(sql.SET_STATE, (UrlState.QUEUED, ids))
                self._db.run(sql.START_AGAIN, (ids,))
                for _, host_id, state in again:
                    change.move(host_id, state, UrlState.QUEUED)
                    queued[host_id] = queued.get(host_id, 0) + 1
        return queued, end if end < self._db.get(sql.LAST_URL) else None

    def end_losing(self, file_id: int) -> None:
        """The last transaction of Frontier.lose."""
        with self._db.transaction():
            self._db.run(sql.SET_FILE_STATE, (SinkFileState.LOST, file_id))

    def finish_losing(self) -> None:
        """Go on with what a crash cut short."""
        for file_id in orjson.loads(self._db.get(sql.LOSING_FILES)):
            after: int | None = 0
            while after is not None:
                _, after = self.lose_slice(file_id, after)
            self.end_losing(file_id)

    def output_agrees(self) -> None:
        """See Frontier.output_agrees."""
        with self._db.transaction():
            self._db.run(sql.END_META, (sql.COPIED_AT,))

    def set_clean(self, clean: bool) -> None:
        """Whether the store was left with nothing in flight."""
        with self._db.transaction():
            self._db.run(sql.PUT_META, ("clean", str(int(clean))))

    # -- their parts

    @contextlib.contextmanager
    def change(self) -> Iterator[PendingChange]:
        change = PendingChange(dict(self._counts))
        with self._db.transaction():
            yield change
            self._add_to_hosts(change.hosts)
            marks = self._marks + change.marks
            if change.marks or not self._marks_stored:
                self._db.run(sql.PUT_META, (MARKS, str(marks)))
            totals = ("totals", orjson.dumps({str(k): n for k, n in change.counts.items()}).decode())
            if change.counters is None:
                self._db.run(sql.PUT_META, totals)
            else:  # as few statements as will do: see Database.run_many
                self._db.run(sql.PUT_META_TWICE, (*totals, "counters", change.counters))
        self._counts = change.counts
        self._marks, self._marks_stored = marks, True
        self._files = change.files or self._files
        self.totals = totals_from(change.counts, marks)
        self.urls.committed(change)

    def _put_visits(
        self,
        settlements: Sequence[Settlement],
        written: Sequence[RecordLocation | None],
        lines: Sequence[RecordLocation | None],
        change: PendingChange,
    ) -> None:
        ids = orjson.dumps([settlement.task.id for settlement in settlements]).decode()
        before = {url_id: (host, state) for url_id, host, state in orjson.loads(self._db.get(sql.STATES, (ids,)))}
        moves: defaultdict[UrlState, list[int]] = defaultdict(list)
        flat: list[Any] = []
        for settlement, place, line in zip(settlements, written, lines, strict=True):
            task, host_id = settlement.task, settlement.host_id
            change.hosts[host_id].add(settlement)
            if task.id == 0:
                if self._db.get(sql.HOST_EXISTS, (host_id,)) is None:
                    raise ValueError(f"{task.url}: no host {host_id}")
                continue
            stored_host_id, state = before.get(task.id, (None, None))
            if stored_host_id != host_id:
                raise ValueError(f"{task.url}: no url {task.id} of host {host_id}")
            if state == UrlState.FORGOTTEN:  # while it was fetched
                if place is not None:
                    at = settlement.finished_at
                    self._file_id(WARC_SINK, place.name, change)
                    self._db.run(sql.PUT_TAKEDOWN, (task.url, place.name, place.offset, at))
                continue
            if state != settlement.state:
                moves[settlement.state].append(task.id)
                change.move(host_id, state, settlement.state)
            warc_file = None if place is None else self._file_id(WARC_SINK, place.name, change)
            pages_file = None if line is None else self._file_id(PAGES_SINK, line.name, change)
            flat += visit_row(settlement, warc_file, None if place is None else place.offset, pages_file)
        for new_state, moved in moves.items():
            self._db.run(sql.SET_STATE, (new_state, orjson.dumps(moved).decode()))
        self._db.run_many(*sql.UPSERT_VISITS, flat, width=sql.VISIT_WIDTH)

    def _put_notes(self, settlements: Sequence[Settlement]) -> None:
        """What pages are for the judgement of their templates."""
        samples: list[Any] = []
        counts: Counter[tuple[int, str]] = Counter()
        for settlement in settlements:
            if (note := settlement.note) is None:
                continue
            if note.words is not None:
                samples += (settlement.task.id, settlement.host_id, note.words)
            counts.update((settlement.host_id, template) for template in note.counted)
        self._db.run_many(sql.PUT_SAMPLES, "", samples, width=sql.SAMPLE_WIDTH)
        flat = [value for (host_id, template), count in counts.items() for value in (host_id, template, count)]
        self._db.run_many(*sql.ADD_TO_TEMPLATES, flat, width=sql.TEMPLATE_WIDTH)

    def _add_to_hosts(self, changes: dict[int, HostChange]) -> None:
        flat: list[Any] = []
        for host_id, one in changes.items():
            flat += (host_id, one.queued, one.fetched, one.ok, one.errors, one.bytes, one.last_at)
        self._db.run_many(*sql.ADD_TO_HOSTS, flat, width=sql.HOST_CHANGE_WIDTH)

    def _put_robots(self, host_id: int, robots: RobotsRecord, change: PendingChange) -> None:
        self._db.run(
            sql.PUT_ROBOTS,
            (host_id, robots.verdict, robots.status_code, robots.body, robots.fetched_at, robots.expires_at,
             robots.crawl_delay_s, robots.failing_since, robots.error),
        )  # fmt: skip
        self._db.run(sql.SET_HOST_STATE, (host_state(robots), host_id))
        if robots.verdict == "unreachable" or (robots.verdict == "rules" and robots.body is None):
            return
        digest = robots_digest(robots)
        before = self._db.get(sql.LAST_ROBOTS_DIGEST, (host_id,))
        if digest != before:
            if before is not None:
                change.robots_changed.append(host_id)
                self._db.run(sql.PUT_UNSWEPT, (host_id,))
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
