"""Every transaction on the store: seeds, settlements, promotions, output files.

It runs in the thread that owns the connection. It keeps in memory what each transaction needs and what each changes:
totals, and the ids of hosts met lately. It knows nothing of threads and awaiting.

Invariant: what is kept in memory changes only after the commit that stores the same, so a failed transaction leaves no
trace in either.
"""

import contextlib
from collections import OrderedDict, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final, cast

import orjson

from crawler.core.outage import SIGNS
from crawler.core.url import registrable_domain, slot_of, target_of
from crawler.core.values import Denied, Discovered, HostRow, Origin, Rest, RobotsRecord, Settlement, SinkFile, Written
from crawler.core.vocabulary import Source, TaskKind, UrlState
from crawler.frontier import sql
from crawler.frontier.base import ROBOTS_VERSIONS_KEPT, Batch, Block, Receipt
from crawler.frontier.database import Database
from crawler.frontier.filter import SeenFilter
from crawler.frontier.rows import (
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

REQUEUE_SLICE: Final = 5_000
HOSTS_REMEMBERED: Final = 65_536  # origins whose id needs no look-up; some 20 MiB when full


@dataclass(slots=True)
class Change:
    """What one transaction is about to make of the sums. `counts` has the words of UrlState, and "hosts"."""

    counts: dict[str, int]
    hosts: defaultdict[int, HostChange] = field(default_factory=lambda: defaultdict(HostChange))
    ids: dict[Origin, int] = field(default_factory=dict)  # of origins that were not remembered
    new_hosts: list[HostRow] = field(default_factory=list)
    queued: dict[int, int] = field(default_factory=dict)  # host id → URLs first seen
    fresh: set[int] = field(default_factory=set)  # what a SeenFilter is to learn
    robots_changed: list[int] = field(default_factory=list)

    def move(self, host_id: int, before: str, after: str) -> None:
        """A URL goes from one state to another."""
        self.counts[before] -= 1
        self.counts[after] = self.counts.get(after, 0) + 1
        self.hosts[host_id].queued += (after == UrlState.QUEUED) - (before == UrlState.QUEUED)

    def insert(self, host_id: int, count: int) -> None:
        """URLs were seen for the first time."""
        self.counts[UrlState.QUEUED] = self.counts.get(UrlState.QUEUED, 0) + count
        self.hosts[host_id].queued += count
        self.queued[host_id] = self.queued.get(host_id, 0) + count

    def add(self, state: UrlState, count: int) -> None:
        """URLs came to be in a state in which nothing is due."""
        self.counts[state] = self.counts.get(state, 0) + count

    def receipt(self, links_new: Sequence[int]) -> Receipt:
        rows = [replace(row, queued=self.hosts[row.id].queued) for row in self.new_hosts]
        return Receipt(links_new, self.queued, rows, self.robots_changed)


class Writer:
    """`totals` may be read from any thread: it is replaced, never changed."""

    def __init__(self, database: Database, seen: SeenFilter | None = None) -> None:
        """`seen` knows every URL of the store; without one the index does."""
        self.seen = seen
        self.database = self._db = database
        self._host_ids: OrderedDict[Origin, int] = OrderedDict()
        self._closed_hosts = {host for (host,) in database.rows(sql.FORGOTTEN_HOSTS)}  # as many as operators typed
        stored = database.get(sql.META, ("totals",))
        self._counts: dict[str, int] = {} if stored is None else orjson.loads(stored)
        self.totals = totals_from(self._counts)

    # -- the transactions

    def add(self, discovered: Sequence[Discovered], now: float) -> Receipt:
        """See Frontier.add."""
        with self.change() as change:
            last_id = self._db.get(sql.LAST_URL)
            flat: list[Any] = []
            hints: list[Any] = []
            self._bind_urls(flat, hints, discovered, None, now, change)
            self._db.run_many(sql.INSERT_URLS, "", flat, width=sql.URL_WIDTH)
            self._put_hints(hints, last_id)
            new = {(host_id, key) for host_id, key in orjson.loads(self._db.get(sql.NEW_KEYS, (last_id,)))}
            links_new: list[int] = []
            for one in discovered:
                host_id = change.ids.get(one.origin)
                known_as = (self._host_ids[one.origin] if host_id is None else host_id, one.key)
                links_new.append(int(known_as in new))
                new.discard(known_as)  # the first of several gets the credit
                if links_new[-1]:
                    change.insert(known_as[0], 1)
            if any(n and one.source is Source.SEED for n, one in zip(links_new, discovered, strict=True)):
                self._db.run(sql.PUT_META, ("seeds_added", "1"))
        return change.receipt(links_new)

    def settle(self, batch: Batch) -> Receipt:
        """See Frontier.settle. Raises ValueError, with nothing stored, for a batch no correct caller sends."""
        check_batch(batch)
        with self.change() as change:
            self._put_sink_files(batch.sink_files)
            self._put_visits(batch.settlements, batch.written, change)
            links_new = self._put_discoveries(batch.settlements, batch.hint_after_s, change)
            for settlement in batch.settlements:
                if settlement.robots is not None:
                    self._put_robots(settlement.host_id, settlement.robots, change)
            self._put_rests(batch.rests)
            if batch.counters is not None:
                self._db.run(sql.PUT_META, ("counters", counters_text(batch.counters)))
            added_at = max((settlement.finished_at for settlement in batch.settlements), default=0.0)
            for host in batch.scope_hosts:
                self._db.run(sql.PUT_SCOPE_HOST, (host, added_at))
            for pace in batch.paces:
                if pace.response_s > 0:
                    self._db.run(sql.PUT_PACE, (pace.key, pace.response_s, pace.updated_at))
                else:
                    self._db.run(sql.END_PACE, (pace.key,))
            for one in batch.quarantines:
                self._db.run(
                    sql.PUT_QUARANTINE,
                    (one.host_id, one.template, one.reason, one.evidence, one.since_at, one.released_at),
                )
                self._db.run(sql.PUT_UNSWEPT, (one.host_id,))
            counts = [value for count in batch.trap_counts for value in count]
            self._db.run_many(sql.PUT_TRAP_COUNTS, "", counts, width=sql.TRAP_COUNT_WIDTH)
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

    def hasten(self, since_at: float, now: float) -> None:
        """See Frontier.hasten."""
        with self._db.transaction():
            self._db.run(sql.HASTEN, (now, orjson.dumps(sorted(SIGNS)).decode(), since_at))

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

    def requeue(self, error: str, after: int) -> tuple[dict[int, int], int | None]:
        """A slice of Frontier.requeue, from behind URL `after` on; returns also its end, None if there was nothing."""
        found = orjson.loads(self._db.get(sql.REQUEUABLE, (error, after, REQUEUE_SLICE)))
        requeued: dict[int, int] = {}
        if not found:
            return requeued, None
        ids = orjson.dumps([url_id for url_id, _, _ in found]).decode()
        with self.change() as change:
            self._db.run(sql.SET_STATE, (UrlState.QUEUED, ids))
            self._db.run(sql.START_AGAIN, (ids,))
            for _, host_id, state in found:
                change.move(host_id, state, UrlState.QUEUED)
                requeued[host_id] = requeued.get(host_id, 0) + 1
        return requeued, found[-1][0]

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

    def block(self, block: Block) -> bool:
        """See Frontier.block."""
        if self._db.get(sql.IS_BLOCKED, (block.name,)) is not None:
            return False
        with self._db.transaction():
            self._db.run(sql.BLOCK, (block.name, block.kind, block.at, block.reason))
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

    def close_host(self, host: str) -> None:
        """Store nothing of this host any more (it is in forgotten_host)."""
        self._closed_hosts.add(host)
        for origin in [origin for origin in self._host_ids if origin.host == host]:
            del self._host_ids[origin]

    def set_clean(self, clean: bool) -> None:
        """Whether the store was left with nothing in flight."""
        with self._db.transaction():
            self._db.run(sql.PUT_META, ("clean", str(int(clean))))

    # -- their parts

    @contextlib.contextmanager
    def change(self) -> Iterator[Change]:
        change = Change(dict(self._counts))
        with self._db.transaction():
            yield change
            self._add_to_hosts(change.hosts)
            self._db.run(sql.PUT_META, ("totals", orjson.dumps({str(k): n for k, n in change.counts.items()}).decode()))
        self._counts = change.counts
        self.totals = totals_from(change.counts)
        self._host_ids.update(change.ids)
        if self.seen is not None:
            self.seen.learn(change.fresh)
        while len(self._host_ids) > HOSTS_REMEMBERED:
            self._host_ids.popitem(last=False)

    def _put_visits(self, settlements: Sequence[Settlement], written: Sequence[Written | None], change: Change) -> None:
        ids = orjson.dumps([settlement.task.id for settlement in settlements]).decode()
        before = {url_id: (host, state) for url_id, host, state in orjson.loads(self._db.get(sql.STATES, (ids,)))}
        moves: defaultdict[UrlState, list[int]] = defaultdict(list)
        warc_files: dict[str, int] = {}
        flat: list[Any] = []
        for settlement, place in zip(settlements, written, strict=True):
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
                    self._warc_file_id(place.name)
                    self._db.run(sql.PUT_TAKEDOWN, (task.url, place.name, place.offset, at))
                continue
            if state != settlement.state:
                moves[settlement.state].append(task.id)
                change.move(host_id, state, settlement.state)
            if place is None:
                flat += visit_row(settlement, None, None)
                continue
            if place.name not in warc_files:
                warc_files[place.name] = self._warc_file_id(place.name)
            flat += visit_row(settlement, warc_files[place.name], place.offset)
        for new_state, moved in moves.items():
            self._db.run(sql.SET_STATE, (new_state, orjson.dumps(moved).decode()))
        self._db.run_many(*sql.UPSERT_VISITS, flat, width=sql.VISIT_WIDTH)

    def _put_discoveries(
        self, settlements: Sequence[Settlement], hint_after_s: float | None, change: Change
    ) -> list[int]:
        """Returns how many were new, a number for each settlement; the first of several gets the credit."""
        links_new = [0] * len(settlements)
        flat: list[Any] = []
        hints: list[Any] = []
        places: dict[int | None, int] = {}
        for place, settlement in enumerate(settlements):
            if settlement.discovered:
                via = settlement.task.id or None
                self._bind_urls(flat, hints, settlement.discovered, via, settlement.finished_at, change)
                places.setdefault(via, place)
        if not flat:
            return links_new
        last_id = self._db.get(sql.LAST_URL)
        self._db.run_many(sql.INSERT_URLS, "", flat, width=sql.URL_WIDTH)
        self._put_hints(hints, last_id)
        if hint_after_s is not None and hints and self.seen is None:
            self._bring_forward(hints, hint_after_s)
        for host_id, via, count in orjson.loads(self._db.get(sql.NEW_BY_VIA, (last_id,))):
            links_new[places[via]] += count
            change.insert(host_id, count)
        return links_new

    def _bind_urls(
        self,
        flat: list[Any],
        hints: list[Any],
        discovered: Sequence[Discovered],
        via: int | None,
        found_at: float,
        change: Change,
    ) -> None:
        """Append the columns of sql.INSERT_URLS to `flat` and those of sql.PUT_HINTS to `hints`."""
        found_second = round(found_at)  # SQLite stores it in four bytes instead of eight
        host_ids = self._ids_of(discovered, found_at, change)
        found: Iterable[tuple[int, Discovered]] = zip(host_ids, discovered, strict=True)
        if self.seen is not None:
            found = self.seen.select(change.fresh, host_ids, discovered)
        for host_id, one in found:
            if host_id == 0:
                continue
            flat += (host_id, one.key, one.priority, one.depth, target_of(one.url),
                     via, one.source, one.hop_path, one.redirects, found_second,
                     None if one.kind is TaskKind.PAGE else one.kind)  # fmt: skip
            if one.hint is not None:
                hints += (host_id, one.key, one.hint.priority, one.hint.lastmod, found_at)

    def _ids_of(self, discovered: Sequence[Discovered], found_at: float, change: Change) -> list[int]:
        """The host of each, made if need be; 0 for one that was taken down."""
        remembered, ids = self._host_ids.get, change.ids
        known = [remembered(one.origin) for one in discovered]
        if None not in known:
            return cast(list[int], known)
        whole: list[int] = []
        for host_id, one in zip(known, discovered, strict=True):
            if host_id is None:
                host_id = ids.get(one.origin)
            if host_id is None:
                host_id = ids[one.origin] = self.host_id(one.origin, found_at, change)
            whole.append(host_id)
        return whole

    def _put_hints(self, hints: list[Any], last_id: int) -> None:
        if self.seen is None:
            self._db.run_many(*sql.PUT_HINTS, hints, width=sql.HINT_WIDTH)
            return
        if not hints:
            return
        ids = {(host, key): url_id for url_id, host, key in orjson.loads(self._db.get(sql.NEW_IDS, (last_id,)))}
        flat: list[Any] = []
        for at in range(0, len(hints), sql.HINT_WIDTH):
            host_id, key, *hint = hints[at : at + sql.HINT_WIDTH]
            flat += (ids[host_id, key], *hint)
        self._db.run_many(*sql.PUT_HINTS_BY_ID, flat, width=sql.HINT_WIDTH - 1)

    def _bring_forward(self, hints: list[Any], after_s: float) -> None:
        """`hints` are the columns of sql.PUT_HINTS."""
        flat: list[Any] = []
        for at in range(0, len(hints), sql.HINT_WIDTH):
            host_id, key, _, lastmod, seen_at = hints[at : at + sql.HINT_WIDTH]
            if lastmod is not None:
                flat += (host_id, key, min(lastmod, seen_at), after_s, seen_at)
        self._db.run_many(*sql.BRING_FORWARD, flat, width=sql.BRING_FORWARD_WIDTH)

    def host_id(self, origin: Origin, found_at: float, change: Change) -> int:
        """The row of an origin, made if need be; 0 for one whose host was taken down."""
        host_id = self._host_ids.get(origin)
        if host_id is None and origin.host in self._closed_hosts:
            return 0
        if host_id is None:
            host_id = self._db.get(sql.HOST_ID, (origin.host, origin.scheme, origin.port))
        if host_id is not None:
            return int(host_id)
        domain = registrable_domain(origin.host)
        row = HostRow(self._db.get(sql.LAST_HOST) + 1, origin, domain, slot_of(domain), queued=0)
        self._db.run(sql.INSERT_HOST, (row.id, row.slot, origin.scheme, origin.host, origin.port, domain, found_at))
        change.new_hosts.append(row)
        change.counts["hosts"] = change.counts.get("hosts", 0) + 1
        return row.id

    def _add_to_hosts(self, changes: dict[int, HostChange]) -> None:
        flat: list[Any] = []
        for host_id, one in changes.items():
            flat += (host_id, one.queued, one.fetched, one.ok, one.errors, one.bytes, one.last_at)
        self._db.run_many(*sql.ADD_TO_HOSTS, flat, width=sql.HOST_CHANGE_WIDTH)

    def _put_robots(self, host_id: int, robots: RobotsRecord, change: Change) -> None:
        self._db.run(
            sql.PUT_ROBOTS,
            (host_id, robots.verdict, robots.status_code, robots.body, robots.fetched_at, robots.expires_at,
             robots.crawl_delay_s, robots.failing_since),
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

    def _put_rests(self, rests: Sequence[Rest]) -> None:
        for rest in rests:
            if rest.until_at == 0:
                self._db.run(sql.END_REST, (rest.key,))
            else:
                self._db.run(sql.PUT_REST, (rest.key, rest.until_at, rest.strikes, rest.reason))

    def _put_sink_files(self, sink_files: Sequence[SinkFile]) -> None:
        for file in sink_files:
            self._db.run(sql.PUT_SINK_FILE, (file.sink, file.name, file.state, file.committed_bytes))

    def _warc_file_id(self, name: str) -> int:
        file_id = self._db.get(sql.SINK_FILE_ID, (WARC_SINK, name))
        if file_id is None:
            raise ValueError(f"no output file {name} is known")
        return int(file_id)
