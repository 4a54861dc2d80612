"""A frontier in memory: the model of the SQLite store in tests, and a store for tests of the engine.

Rows are in plain dictionaries, which are searched whole where the SQLite store has an index. Closing and opening the
same object again recovers what was settled.

Invariants: a batch is checked before any of it is applied, so it is stored whole or not at all. A key of a host has one
row for ever. The counts of a host are those of its rows.
"""

import os
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from typing import Any, Final

from crawler.core.enums import SinkFileState, Source, TaskKind, UrlState
from crawler.core.models import (
    UNTIL_EVENT,
    Backoff,
    Counters,
    Denied,
    Discovered,
    HostReadiness,
    HostRow,
    HostTemplates,
    KeyRow,
    Origin,
    RecordLocation,
    RobotsRecord,
    Round,
    RoundCounts,
    SampledPage,
    Settlement,
    SinkFile,
    SitemapHint,
    SlowResponse,
    Suspects,
    Task,
    TemplateRow,
)
from crawler.core.outcomes import OUTAGE_ERRORS
from crawler.core.url import every_key_of, key_of, name_hash, parse, registrable_domain, slot_of, target_of
from crawler.core.url_templates import ERROR_PAGE_LINKS
from crawler.frontier.base import (
    ROBOTS_VERSIONS_KEPT,
    Batch,
    BlockedHost,
    Entered,
    Forgotten,
    FoundHosts,
    FrontierLocked,
    HostCount,
    HostsBelow,
    HostSearch,
    Leaving,
    Receipt,
    Recovered,
    RobotsVersion,
    Sweep,
    Totals,
    UndatedPage,
    UrlPlace,
    UrlRow,
    UrlSelection,
    VisitedPage,
    Wanted,
)
from crawler.frontier.rows import (
    PAGES_SINK,
    WARC_SINK,
    HostChange,
    check_batch,
    history_of,
    robots_digest,
    sample_ranges,
    totals_from,
    visit_row,
)
from crawler.frontier.sqlite import writer

ENDS: Final = (UrlState.DONE, UrlState.GAVE_UP)  # states of a URL whose visit has ended


@dataclass(slots=True)
class KeptUrl:
    """A stored URL with its visits."""

    id: int
    host_id: int
    found: Discovered
    via: int | None
    state: UrlState = UrlState.QUEUED
    next_at: float | None = None
    attempts: int = 0
    etag: str | None = None
    last_modified: str | None = None
    last_status: int | None = None
    last_error: str | None = None
    record: RecordLocation | None = None  # of the last visit in the WARC
    content: RecordLocation | None = None  # the record with the content, if the last one has none
    line: RecordLocation | None = None  # of the last line in pages/
    visits: int = 0
    visited_at: float | None = None
    digest: str | None = None
    learned: tuple[Any, ...] = (None,) * 5  # the columns of rows.history_of
    hint: SitemapHint | None = None


@dataclass(slots=True)
class KeptHost:
    """A stored origin; `row` as it was when it was found."""

    row: HostRow
    counts: HostChange = field(default_factory=HostChange)
    robots: RobotsRecord | None = None
    robots_versions: list[RobotsVersion] = field(default_factory=list)  # newest first
    ready_at: float = 0.0
    parked: str | None = None
    failures: int = 0
    reason: str | None = None
    has_responded: bool = False

    @property
    def has_work(self) -> bool:
        return self.counts.queued + self.counts.suspects > 0

    def as_row(self) -> HostRow:
        row = self.row._replace(
            queued=self.counts.queued, fetched=self.counts.fetched, last_at=self.counts.last_at,
            has_suspects=self.counts.suspects > 0, ready_at=self.ready_at, parked=self.parked, failures=self.failures,
            reason=self.reason, has_responded=self.has_responded,
        )  # fmt: skip
        if self.robots is None:
            return row
        return row._replace(robots=replace(self.robots, body=None))


@dataclass(slots=True)
class KeptKey:
    """The scheduling state of a politeness key."""

    name: str
    requested_at: float | None = None
    open_at: float = 0.0
    is_active: bool = False


class MemoryFrontier:
    """A `Frontier` in memory. `key_name` makes the name of a politeness key of a host name."""

    agents = None

    def __init__(self, key_name: Callable[[str], str] = registrable_domain) -> None:
        self._key_name = key_name
        self._politeness_keys: dict[int, KeptKey] = {}
        self._changed: set[int] = set()
        # Host id → its queued URLs and suspects before the transaction, and how many are queued again.
        self._in_transaction: dict[int, list[int]] = {}
        self._schedule_at = 0.0
        self._last_visit_at: float | None = None
        self._urls: dict[int, KeptUrl] = {}
        self._keys: dict[tuple[int, int], KeptUrl] = {}
        self._hosts: dict[Origin, KeptHost] = {}
        self._hosts_by_id: dict[int, KeptHost] = {}
        self._backoffs: dict[str, Backoff] = {}
        self._sink_files: dict[tuple[str, str], SinkFile] = {}
        self._counters = Counters()
        self._scope_hosts: set[str] = set()
        self._closed_hosts: set[str] = set()
        self._marks = 0  # forgotten rows that do not count as URLs
        self.takedowns: dict[tuple[str, int], tuple[str, str, int, float]] = {}  # as rows of the store on disk
        self._blocks: dict[str, BlockedHost] = {}
        self._templates: dict[tuple[int, str], TemplateRow] = {}
        self._suspects: dict[int, str] = {}  # URL id → template
        self._samples: dict[int, bytes] = {}  # URL id → words
        self._to_reevaluate: Counter[int] = Counter()  # host id → how often it was marked
        self._readable: list[int] = []  # marked hosts whose robots.txt can be read now
        self._sweep: Sweep | None = None
        self._rules: str | None = None
        self._dated_to: int | None = 0
        self._kept: dict[str, bytes] = {}
        self._error_pages: dict[int, bytes] = {}
        self._slow_responses: dict[str, SlowResponse] = {}
        self._robots_changed: list[int] = []
        self._round: Round | None = None
        self._is_open = False
        self._clean = True

    async def open(self) -> Recovered:
        if self._is_open:
            raise FrontierLocked(f"this frontier is in use by process {os.getpid()}")
        self._is_open = True
        for key in self._politeness_keys.values():
            key.is_active = False
        clean, self._clean = self._clean, False
        for sink, name in [key for key, file in self._sink_files.items() if file.state is SinkFileState.LOSING]:
            await self.lose_file(sink, name)
        return Recovered(
            clean=clean,
            sink_files=tuple(self._sink_files.values()),
            counters=self._counters,
            scope_hosts=tuple(sorted(self._scope_hosts)),
            schedule_at=self._schedule_at,
            hosts=len(self._hosts),
            backoffs=len(self._backoffs),
            last_visit_at=self._last_visit_at,
            last_round=self._round,
        )

    async def close(self, *, clean: bool) -> None:
        self._clean = clean if self._is_open else self._clean
        self._is_open = False

    async def add(self, discovered: Sequence[Discovered], *, now: float) -> Receipt:
        self._check_open()
        new_hosts: list[KeptHost] = []
        queued: Counter[int] = Counter()
        self._commit()
        links_new = [self._insert(one, None, new_hosts, queued) for one in discovered]
        self._commit()
        return Receipt(links_new, queued, [host.as_row() for host in new_hosts])

    async def settle(self, batch: Batch) -> Receipt:
        self._check_open()
        check_batch(batch)
        self._check_known(batch)
        self._put_sink_files(batch.sink_files)
        new_hosts: list[KeptHost] = []
        queued: Counter[int] = Counter()
        self._commit()
        last_id = len(self._urls)
        links_new = []
        self._schedule_at = max(self._schedule_at, batch.schedule_at)
        self._put_readiness(batch.readiness)
        for key_id, at in batch.requested:
            key = self._politeness_keys[key_id]
            key.requested_at = max(at, key.requested_at or 0.0)
        ends = [one.finished_at for one in batch.settlements]
        before = [] if self._last_visit_at is None else [self._last_visit_at]
        self._last_visit_at = max(ends + before, default=None)
        lines = batch.lines or (None,) * len(batch.settlements)
        for settlement, record, line in zip(batch.settlements, batch.written, lines, strict=True):
            self._put_visit(settlement, record, line)
        for settlement in batch.settlements:
            via = settlement.task.id or None
            links_new.append(sum(self._insert(one, via, new_hosts, queued) for one in settlement.discovered))
            if batch.hint_after_s is not None:
                self._bring_forward(settlement, batch.hint_after_s)
        self._put_backoffs(batch.backoffs, batch.slow_responses)
        self._counters = batch.counters or self._counters
        if batch.round_counts is not None and self._round is not None:
            self._round = replace(self._round, counts=batch.round_counts)
        self._scope_hosts.update(batch.scope_hosts)
        self._error_pages.update(batch.error_pages)
        for one in batch.templates:
            pages = self._templates.get((one.host_id, one.template), TemplateRow(0, "")).pages
            self._templates[one.host_id, one.template] = replace(one, pages=pages)
        suspects, linked, trial_links = self._put_notes(batch.settlements, last_id, queued)
        self._commit()
        changed, self._robots_changed = self._robots_changed, []
        readable, self._readable = self._readable, []
        rows = [host.as_row() for host in new_hosts]
        return Receipt(links_new, queued, rows, changed, readable, suspects, linked, trial_links)

    def _put_notes(
        self, settlements: Sequence[Settlement], last_id: int, queued: Counter[int]
    ) -> tuple[dict[int, list[str]], list[int], dict[int, list[tuple[int, int, str]]]]:
        suspects: dict[int, list[str]] = {}
        linked: list[int] = []
        trial_links: dict[int, list[tuple[int, int, str]]] = {}
        new = [self._urls[url_id] for url_id in range(last_id + 1, len(self._urls) + 1)]
        for settlement in settlements:
            note, url_id, host_id = settlement.note, settlement.task.id, settlement.host_id
            on_page = [url for url in new if url.via == url_id] if url_id else []
            if note is not None:
                if note.words is not None:
                    self._samples[url_id] = note.words
                for template in note.counted:
                    row = self._templates.get((host_id, template), TemplateRow(host_id, template))
                    self._templates[host_id, template] = replace(row, pages=row.pages + 1)
                if note.trial is not None:
                    trial_links[url_id] = [(url.id, url.host_id, target_of(url.found.url)) for url in on_page]
                if note.is_error_page:
                    for url in on_page:
                        if url.host_id == host_id:
                            self._set_state(url, UrlState.SUSPECT)
                            self._suspects[url.id] = ERROR_PAGE_LINKS
                            suspects.setdefault(host_id, []).append(ERROR_PAGE_LINKS)
                            queued[host_id] -= 1
        for settlement in settlements:
            if settlement.note is not None and settlement.note.is_error_page:
                continue
            for one in settlement.discovered:
                host = self._hosts.get(one.origin)
                known = None if host is None else self._keys.get((host.row.id, one.key))
                if known is None or known.host_id != settlement.host_id:
                    continue
                if self._suspects.get(known.id) == ERROR_PAGE_LINKS:
                    self._set_state(known, UrlState.QUEUED)
                    linked.append(known.host_id)
                    queued[known.host_id] += 1
        return suspects, linked, trial_links

    def _put_backoffs(self, backoffs: Sequence[Backoff], slow_responses: Sequence[SlowResponse]) -> None:
        for backoff in backoffs:
            self._backoffs[backoff.key] = backoff
            if backoff.until_at == 0:
                del self._backoffs[backoff.key]
        for slow in slow_responses:
            self._slow_responses[slow.key] = slow
            if slow.response_s == 0:
                del self._slow_responses[slow.key]

    # -- hosts and keys in memory

    def take_counts(self) -> dict[int, HostCount]:
        self._commit()
        changed, self._changed = self._changed, set()
        return {id_: HostCount(self._hosts_by_id[id_].counts.queued, self._key_id(id_)) for id_ in changed}

    def _key_id(self, host_id: int) -> int:
        return name_hash(self._key_name(self._hosts_by_id[host_id].row.origin.host))

    def _put_readiness(self, hosts: Sequence[HostReadiness]) -> None:
        for one in hosts:
            host = self._hosts_by_id[one.host_id]
            is_outdated = one.parked in ("limit", "traps") and host.counts.queued != one.queued
            host.ready_at, host.parked = (0.0, None) if is_outdated else (one.ready_at, one.parked)
            host.failures = one.failures
            host.reason, host.has_responded = one.reason, one.has_responded

    async def exchange(self, leaving: Leaving, wanted: Wanted) -> Entered:
        self._check_open()
        self._commit()
        self._put_backoffs(leaving.backoffs, leaving.slow_responses)
        named = [self._hosts_by_id[host_id] for host_id in wanted.host_ids if host_id in self._hosts_by_id]
        names = [*wanted.names, *(self._key_name(one.row.origin.host) for one in named)]
        entering: dict[int, None] = {}
        for name in names:
            key_id = name_hash(name)
            if not self._politeness_keys.setdefault(key_id, KeptKey(name)).is_active:
                entering[key_id] = None
        places = wanted.places
        for ready_at, key_id in sorted((at, key_id) for key_id, at in self._ready_keys() if key_id not in entering):
            if ready_at > wanted.ready_by or places <= 0:
                break
            entering[key_id] = None
            places -= len(self._hosts_of(key_id, (), wanted.hosts)[0])
        keys = [self._key_row(key_id, wanted.hosts) for key_id in entering]
        more = {key_id: self._hosts_of(key_id, known, wanted.hosts) for key_id, known in wanted.more.items()}
        rows = [host.as_row() for host in named]
        for row in chain(rows, *(key.hosts for key in keys), *(found for found, _ in more.values())):
            host = self._hosts_by_id[row.id]
            host.ready_at = 0.0 if host.parked is not None and host.ready_at >= UNTIL_EVENT else host.ready_at
            host.parked = None
        self._put_readiness(leaving.hosts)
        for key_id, requested_at, open_at in leaving.keys:
            key = self._politeness_keys[key_id]
            key.is_active, key.open_at = False, open_at
            key.requested_at = key.requested_at if requested_at is None else requested_at
        return Entered(keys, more, rows, min((at for _, at in self._ready_keys()), default=None))

    def _ready_keys(self) -> Iterator[tuple[int, float]]:
        """The keys that are not active and have work, and when one of their hosts may be requested."""
        ready: dict[int, float] = {}
        for host_id, host in self._hosts_by_id.items():
            if host.has_work and host.ready_at < UNTIL_EVENT:
                key_id = self._key_id(host_id)
                ready[key_id] = min(ready.get(key_id, UNTIL_EVENT), host.ready_at)
        for key_id, at in ready.items():
            if not self._politeness_keys[key_id].is_active:
                yield key_id, max(at, self._politeness_keys[key_id].open_at)

    def _key_row(self, key_id: int, limit: int) -> KeyRow:
        key = self._politeness_keys[key_id]
        key.is_active = True
        slow = self._slow_responses.get(key.name)
        delays = [
            host.robots.crawl_delay_s
            for host in self._hosts.values()
            if self._key_name(host.row.origin.host) == key.name
            and host.robots is not None
            and host.robots.crawl_delay_s is not None
        ]
        return KeyRow(
            key_id, key.name, key.requested_at, key.open_at, max(delays, default=None), self._backoffs.get(key.name),
            0.0 if slow is None else slow.response_s, *self._hosts_of(key_id, (), limit),
        )  # fmt: skip

    def _hosts_of(self, key_id: int, known: Collection[int], limit: int) -> tuple[tuple[HostRow, ...], float | None]:
        ready = (
            (id_, host) for id_, host in self._hosts_by_id.items() if host.has_work and host.ready_at < UNTIL_EVENT
        )
        found = [host for id_, host in ready if self._key_id(id_) == key_id and id_ not in known]
        found.sort(key=lambda host: (host.ready_at, host.row.id))
        more_at = found[limit].ready_at if len(found) > limit else None
        return tuple(host.as_row() for host in found[:limit]), more_at

    async def unpark(self, parked: str, *, at: float, host_ids: Collection[int] | None = None) -> int:
        self._commit()
        found = [
            host
            for host_id, host in self._hosts_by_id.items()
            if host.parked == parked and (host_ids is None or host_id in host_ids)
        ]
        for host in found:
            host.parked, host.ready_at = None, at
        return len(found)

    async def parked(self) -> dict[str, tuple[int, int]]:
        self._commit()
        found: dict[str, tuple[int, int]] = {}
        for host in self._hosts.values():
            if host.parked is not None and host.counts.queued:
                hosts, urls = found.get(host.parked, (0, 0))
                found[host.parked] = hosts + 1, urls + host.counts.queued
        return found

    async def hosts_named(self, host: str) -> list[HostRow]:
        self._commit()
        return [one.as_row() for origin, one in self._hosts.items() if origin.host == host]

    async def hosts_below(self, name: str) -> HostsBelow:
        below = [one.row for origin, one in self._hosts.items() if origin.host.endswith(f".{name}")]
        return HostsBelow(sorted(row.id for row in below), len({row.origin.host for row in below}))

    async def search_hosts(self, search: HostSearch, *, after: int) -> FoundHosts:
        def state(row: HostRow) -> str:
            if row.parked == "blocked":
                return "blocked"
            if row.parked == "robots" or (row.robots is not None and row.robots.verdict == "unreachable"):
                return "held"
            if row.parked == "backoff" and row.ready_at > search.at:
                return "backoff"
            return "new" if row.robots is None and not row.has_responded else "ready"

        orders: dict[str, Callable[[HostRow], tuple[Any, ...]]] = {
            "broken": lambda row: ({"held": 0, "backoff": 1, "blocked": 2}.get(state(row), 3), -row.queued),
            "queued": lambda row: (-row.queued, row.id),
            "fetched": lambda row: (-row.fetched, row.id),
            "host": lambda row: (row.origin.host, row.id),
        }
        rows = [one.as_row() for one in self._hosts.values()]
        found = [
            row
            for row in rows
            if row.id > after and row.id not in search.without and state(row) in search.states
            and (search.text in row.origin.host or (":" in search.text and search.text in str(row.origin)))
        ]  # fmt: skip
        return FoundHosts(sorted(found, key=orders[search.order])[: search.limit], len(found), None)

    async def host_rows(self, *, after: int, limit: int, with_work: bool = False) -> list[HostRow]:
        self._commit()
        found = [
            one for host_id, one in self._hosts_by_id.items() if host_id > after and (one.has_work or not with_work)
        ]
        return [one.as_row() for one in found[:limit]]

    async def host_rows_of(self, host_ids: Collection[int]) -> list[HostRow]:
        self._commit()
        return [one.as_row() for host_id, one in self._hosts_by_id.items() if host_id in host_ids]

    async def take(self, host_id: int, limit: int, *, leased: Collection[int]) -> list[Task]:
        self._check_open()
        queued = (url for url in self._urls.values() if url.host_id == host_id and url.state is UrlState.QUEUED)
        free = [url for url in queued if url.id not in leased]
        free.sort(key=lambda url: (url.found.priority, url.found.depth, url.id))
        return [self._task_of(url) for url in free[: max(0, limit)]]

    async def promote(self, *, now: float, limit: int = 1_000, revisits: bool = False) -> dict[int, int]:
        due = [(at, url.id) for url, at in self._due(revisits=revisits) if at <= now]
        promoted: Counter[int] = Counter()
        for _, url_id in sorted(due)[: max(0, limit)]:
            url = self._urls[url_id]
            if revisits:
                url.attempts = 0
            self._set_state(url, UrlState.QUEUED)
            url.next_at = None
            promoted[url.host_id] += 1
        return promoted

    async def retry_now(self, *, since_at: float, now: float) -> None:
        for url in self._urls.values():
            failed_then = url.last_error in OUTAGE_ERRORS and (url.visited_at or 0.0) >= since_at
            if url.state is UrlState.WAITING and failed_then and url.next_at is not None:
                url.next_at = min(url.next_at, now)

    async def clock_set_back(self, *, now: float, revisits_by: float) -> None:
        for revisits, bound in ((False, now), (True, revisits_by)):
            for url, due_at in list(self._due(revisits=revisits)):
                if url.visited_at is not None and url.visited_at > now and due_at > bound:
                    url.next_at, url.visited_at = due_at - (url.visited_at - now), now

    async def next_due(self, *, revisits: bool = False) -> float | None:
        self._check_open()
        return min((at for _, at in self._due(revisits=revisits)), default=None)

    def _due(self, *, revisits: bool) -> Iterator[tuple[KeptUrl, float]]:
        for url in self._urls.values():
            if url.next_at is not None and (url.state in ENDS) is revisits:
                yield url, url.next_at

    async def visited_pages(self, *, blocks: int, rows: int, phase: float) -> list[VisitedPage]:
        found = []
        for first, last in sample_ranges(len(self._urls), blocks=blocks, rows=rows, phase=phase):
            for url in map(self._urls.__getitem__, range(first, last + 1)):
                _, change_a, change_t, gone_count, in_links = url.learned
                if url.state in ENDS and not gone_count and url.found.kind is TaskKind.PAGE:
                    priority = None if url.hint is None else url.hint.priority
                    found.append(
                        VisitedPage(url.found.url, url.found.depth, in_links or 0, priority, change_a, change_t)
                    )
        return found

    async def dated_to(self) -> int | None:
        return self._dated_to

    async def undated(self, *, after: int, rows: int) -> tuple[list[UndatedPage], int | None]:
        found = []
        for url in (self._urls[url_id] for url_id in range(after + 1, min(after + rows, len(self._urls)) + 1)):
            if url.state not in ENDS or url.next_at is not None:
                continue
            _, change_a, change_t, gone_count, in_links = url.learned
            kind = None if url.found.kind is TaskKind.PAGE else url.found.kind.value
            priority = None if url.hint is None else url.hint.priority
            found.append(
                UndatedPage(
                    url.id, url.found.url, kind, url.found.depth, in_links or 0, priority, change_a, change_t,
                    gone_count or 0, url.visited_at, url.state.value,
                )
            )  # fmt: skip
        return found, after + rows if after + rows < len(self._urls) else None

    async def put_dates(self, dates: Sequence[tuple[int, float]], *, dated_to: int | None) -> None:
        for url_id, at in dates:
            url = self._urls[url_id]
            if url.state in ENDS and url.next_at is None:
                url.next_at = at
        self._dated_to = dated_to

    async def store_value(self, name: str, value: bytes) -> None:
        self._kept[name] = value

    async def stored_value(self, name: str) -> bytes | None:
        return self._kept.get(name)

    async def clear_restored(self) -> None:
        pass  # there are no files to agree with

    async def record_sink_files(self, files: Sequence[SinkFile]) -> None:
        self._put_sink_files(files)

    async def lose_file(self, sink: str, name: str) -> dict[int, int]:
        file = self._sink_files.get((sink, name))
        if file is None:
            return {}
        self._sink_files[sink, name] = replace(file, state=SinkFileState.LOST)
        queued: Counter[int] = Counter()
        for url in self._urls.values():
            locations = [url.line] if sink == PAGES_SINK else [url.record, url.content]
            if url.state is UrlState.FORGOTTEN or name not in [one.name for one in locations if one is not None]:
                continue
            url.etag = url.last_modified = url.digest = None
            if url.state in ENDS:
                url.attempts = 0 if url.visits else min(url.attempts, 1)
                url.next_at = None
                self._set_state(url, UrlState.QUEUED)
                queued[url.host_id] += 1
        return queued

    async def settled_urls(
        self, selection: UrlSelection, *, after: int | None = None, host_id: int | None = None
    ) -> tuple[list[UrlPlace], int | None]:
        first, last = after or 0, len(self._urls)
        end = min(first + writer.REQUEUE_SLICE, last)
        found = [
            UrlPlace(url.id, url.host_id)
            for url in (self._urls[url_id] for url_id in range(first + 1, end + 1))
            if url.state not in (UrlState.QUEUED, UrlState.FORGOTTEN) and _matches(url, selection)
        ]
        return [one for one in found if host_id in (None, one.host_id)], end if end < last else None

    async def known_ids(self, found: Sequence[Discovered]) -> list[int]:
        keys = [(self._hosts[one.origin].row.id, one.key) for one in found if one.origin in self._hosts]
        urls = [self._keys[key] for key in keys if key in self._keys]
        return [url.id for url in urls if url.state is not UrlState.FORGOTTEN]

    async def queue_urls(self, ids: Sequence[int], *, states: Collection[UrlState] = ()) -> dict[int, int]:
        queued: Counter[int] = Counter()
        for url in (self._urls[url_id] for url_id in ids if url_id in self._urls):
            if url.state in (states or set(UrlState) - {UrlState.QUEUED, UrlState.FORGOTTEN}):
                if url.state is UrlState.DENIED:
                    url.last_error = None
                url.attempts = 0 if url.visits else min(url.attempts, 1)
                url.next_at = None
                self._set_state(url, UrlState.QUEUED)
                queued[url.host_id] += 1
        return dict(queued)

    async def put_round(self, one: Round) -> None:
        before = self._round
        counts = before.counts if before is not None and before.number == one.number else RoundCounts()
        self._round = replace(one, counts=counts)

    async def last_url_id(self) -> int:
        return len(self._urls)

    async def forget_url(self, url: str, *, now: float) -> Forgotten:
        href, origin = parse(url)
        if origin.host in self._closed_hosts:
            return Forgotten(again=True)
        new_hosts: list[KeptHost] = []
        marks = [Discovered(href, origin, key, 0, "", Source.SEED) for key in every_key_of(href)]
        erased: list[int] = []
        queued = new = 0
        known = self._hosts.get(origin)
        own = None if known is None else self._keys.get((known.row.id, key_of(href)))
        was_forgotten = own is not None and own.state is UrlState.FORGOTTEN
        for mark in marks:
            is_new = self._insert(mark, None, new_hosts, Counter())
            row = self._keys[self._hosts[origin].row.id, mark.key]
            if not is_new and row.state is not UrlState.FORGOTTEN:
                erased.append(row.id)
                queued += row.state is UrlState.QUEUED
            new += is_new
            self._erase(row, now)
        self._marks += len(erased) + new - (not was_forgotten)
        host_id = self._hosts[origin].row.id
        rows = [host.as_row() for host in new_hosts]
        queued_of = {host_id: queued} if queued else {}
        return Forgotten(len(erased), queued_of, tuple(sorted(erased)), (host_id,), rows, was_forgotten)

    async def forget_host(self, host: str, *, now: float) -> Forgotten:
        again = host in self._closed_hosts
        self._closed_hosts.add(host)
        known = [one for origin, one in self._hosts.items() if origin.host == host]
        ids = {one.row.id for one in known}
        erased = [url for url in self._urls.values() if url.host_id in ids and url.state is not UrlState.FORGOTTEN]
        queued = Counter(url.host_id for url in erased if url.state is UrlState.QUEUED)
        for url in erased:
            self._erase(url, now)
        for one in known:
            one.robots, one.robots_versions = None, []
        return Forgotten(len(erased), dict(queued), host_ids=tuple(sorted(ids)), again=again)

    async def forgotten(self, found: Sequence[Discovered]) -> list[Discovered]:
        gone = []
        for one in found:
            host = self._hosts.get(one.origin)
            url = None if host is None else self._keys.get((host.row.id, one.key))
            if one.origin.host in self._closed_hosts or (url is not None and url.state is UrlState.FORGOTTEN):
                gone.append(one)
        return gone

    async def robots_versions(self, host_id: int) -> list[RobotsVersion]:
        host = self._hosts_by_id.get(host_id)
        return [] if host is None else list(host.robots_versions)

    async def url_rows(
        self, first: int, last: int, state: UrlState, *, after: UrlRow | None, limit: int
    ) -> list[UrlRow]:
        found = [
            UrlRow(url.id, url.host_id, url.found.url, url.found.priority, url.found.depth, url.found.hop_path,
                   url.found.source, url.last_error)
            for url in self._urls.values()
            if first <= url.host_id <= last and url.state is state
        ]  # fmt: skip
        found.sort(key=_position)
        behind = found if after is None else [row for row in found if _position(row) > _position(after)]
        return behind[:limit]

    async def blocks(self) -> list[BlockedHost]:
        return [self._blocks[name] for name in sorted(self._blocks)]

    async def block(self, block: BlockedHost) -> bool:
        had = self._blocks.get(block.name)
        self._blocks[block.name] = block.joined_with(had)
        return self._blocks[block.name] != had

    async def unblock(self, name: str) -> bool:
        return self._blocks.pop(name, None) is not None

    async def robots_body(self, host_id: int) -> bytes | None:
        host = self._hosts_by_id.get(host_id)
        return None if host is None or host.robots is None else host.robots.body

    async def deny(self, host_id: int, denied: Sequence[tuple[int, Denied]], *, now: float) -> int:
        refused = [(self._urls[url_id], verdict) for url_id, verdict in denied]
        refused = [(url, verdict) for url, verdict in refused if url.state is UrlState.QUEUED]
        for url, verdict in refused:
            self._set_state(url, UrlState.DENIED)
            url.last_error = verdict.reason.value
        return len(refused)

    async def judge_by(self, rules: str) -> Sweep | None:
        before, self._rules = self._rules, rules
        if before == rules or not self._hosts_by_id:
            return None
        generation = 1 if self._sweep is None else self._sweep.generation + 1
        self._sweep = Sweep(generation, 0, max(self._hosts_by_id))
        return self._sweep

    async def sweep(self) -> Sweep | None:
        return self._sweep

    async def swept(self, sweep: Sweep, *, marked: Collection[int] = ()) -> None:
        self._to_reevaluate.update(marked)
        if self._sweep is not None and self._sweep.generation == sweep.generation:
            self._sweep = sweep if sweep.after < sweep.last else None

    async def marked_hosts(self, *, after: int, limit: int) -> list[int]:
        return [host_id for host_id in sorted(self._to_reevaluate) if host_id > after][:limit]

    async def reevaluation_mark(self, host_id: int) -> int:
        return self._to_reevaluate[host_id]

    async def reevaluated(self, host_id: int, mark: int) -> None:
        if self._to_reevaluate[host_id] == mark:
            del self._to_reevaluate[host_id]

    async def make_suspects(self, host_id: int, suspects: Sequence[tuple[int, str]]) -> list[int]:
        found = [(self._urls[url_id], template) for url_id, template in suspects]
        found = [(url, template) for url, template in found if url.state is UrlState.QUEUED]
        for url, template in found:
            self._set_state(url, UrlState.SUSPECT)
            self._suspects[url.id] = template
        return [url.id for url, _ in found]

    async def queue_suspects(self, host_id: int, template: str, limit: int) -> list[int]:
        found = sorted(
            url_id
            for url_id, one in self._suspects.items()
            if one == template and self._urls[url_id].host_id == host_id
        )[:limit]
        for url_id in found:
            self._set_state(self._urls[url_id], UrlState.QUEUED)
        return found

    async def templates_of_host(self, host_id: int) -> HostTemplates:
        samples = [(self._urls[url_id], words) for url_id, words in self._samples.items()]
        return HostTemplates(
            tuple(SampledPage(target_of(url.found.url), words) for url, words in samples if url.host_id == host_id),
            tuple(row for row in self._templates.values() if row.host_id == host_id),
            tuple(replace(one, examples=()) for one in await self.suspects() if one.host_id == host_id),
            self._error_pages.get(host_id, b""),
        )

    async def suspects(self, *, limit: int = 1_000) -> list[Suspects]:
        found: dict[tuple[int, str], list[int]] = {}
        for url_id in sorted(self._suspects):
            found.setdefault((self._urls[url_id].host_id, self._suspects[url_id]), []).append(url_id)
        summed = [
            Suspects(host_id, template, len(ids), tuple(self._urls[url_id].found.url for url_id in ids[:2]))
            for (host_id, template), ids in found.items()
        ]
        return sorted(summed, key=lambda one: (-one.urls, one.host_id, one.template))[:limit]

    def totals(self) -> Totals:
        with_work = sum(host.has_work for host in self._hosts.values())
        counts = Counter({"hosts": len(self._hosts), "hosts_with_work": with_work})
        for url in self._urls.values():
            counts[url.state] += 1
        return totals_from(counts, self._marks)

    def _check_open(self) -> None:
        if not self._is_open:
            raise RuntimeError("the frontier is not open")

    def _check_known(self, batch: Batch) -> None:
        names = {(file.sink, file.name) for file in batch.sink_files} | set(self._sink_files)
        for sink, locations in ((WARC_SINK, batch.written), (PAGES_SINK, batch.lines)):
            for location in locations:
                if location is not None and (sink, location.name) not in names:
                    raise ValueError(f"no output file {location.name} is known")
        for settlement in batch.settlements:
            task, host_id = settlement.task, settlement.host_id
            if host_id not in self._hosts_by_id:
                raise ValueError(f"{task.url}: no host {host_id}")
            if task.id != 0 and (task.id not in self._urls or self._urls[task.id].host_id != host_id):
                raise ValueError(f"{task.url}: no url {task.id} of host {host_id}")

    def _insert(self, found: Discovered, via: int | None, new_hosts: list[KeptHost], queued: Counter[int]) -> int:
        if found.origin.host in self._closed_hosts:
            return 0
        host = self._hosts.get(found.origin)
        if host is None:
            row = HostRow(len(self._hosts) + 1, found.origin, slot_of(registrable_domain(found.origin.host)), queued=0)
            host = self._hosts[found.origin] = self._hosts_by_id[row.id] = KeptHost(row)
            name = self._key_name(found.origin.host)
            self._politeness_keys.setdefault(name_hash(name), KeptKey(name))
            new_hosts.append(host)
        host_id = host.row.id
        known = self._keys.get((host_id, found.key))
        if known is not None:
            known.hint = found.hint or known.hint
            return 0
        url = KeptUrl(len(self._urls) + 1, host_id, found, via, hint=found.hint)
        self._urls[url.id] = self._keys[host_id, found.key] = url
        self._count(host_id, queued=1)
        queued[host_id] += 1
        return 1

    def _count(self, host_id: int, *, queued: int = 0, suspects: int = 0, again: bool = False) -> None:
        """Count a change of what a host has to do, within a transaction."""
        host = self._hosts_by_id[host_id]
        before = self._in_transaction.setdefault(host_id, [host.counts.queued, host.counts.suspects, 0])
        before[2] += again
        host.counts.queued += queued
        host.counts.suspects += suspects

    def _commit(self) -> None:
        """End a transaction: a host with new work is ready, unless it backs off or waits for an event."""
        for host_id, (queued, suspects, again) in self._in_transaction.items():
            host = self._hosts_by_id[host_id]
            more = host.counts.queued - queued
            if more or host.counts.suspects != suspects:
                self._changed.add(host_id)
            if (more > 0 and host.parked == "traps") or (again and host.parked == "limit"):
                host.parked, host.ready_at = None, self._schedule_at
            elif host.has_work and not queued + suspects and more + host.counts.suspects - suspects > 0:
                host.ready_at = max(host.ready_at, self._schedule_at)
        self._in_transaction.clear()

    def _erase(self, url: KeptUrl, now: float) -> None:
        if url.record is not None:
            self._list_takedown(url.found.url, url.record, now)
        self._set_state(url, UrlState.FORGOTTEN)
        url.found, url.via = replace(url.found, url=str(url.found.origin)), None
        url.next_at = url.last_error = url.record = url.content = url.line = url.hint = None

    def _list_takedown(self, url: str, record: RecordLocation, at: float) -> None:
        self.takedowns.setdefault((record.name, record.offset), (url, record.name, record.offset, at))

    def _put_visit(self, settlement: Settlement, record: RecordLocation | None, line: RecordLocation | None) -> None:
        host = self._hosts_by_id[settlement.host_id]
        host.counts.add(settlement)
        if settlement.robots is not None:
            self._put_robots(host, settlement.robots)
        if settlement.task.id != 0:
            url = self._urls[settlement.task.id]
            if url.state is UrlState.FORGOTTEN:
                if record is not None:
                    self._list_takedown(settlement.task.url, record, settlement.finished_at)
                return
            if record is not None:
                is_content = settlement.digest is not None and settlement.digest != url.digest
                url.content = None if is_content else url.content or url.record
            url.record, url.line = record or url.record, line or url.line
            self._set_state(url, settlement.state)
            (_, url.next_at, url.attempts, url.visited_at, url.last_status, url.last_error, _, url.etag,
             url.last_modified, digest, _, _, ended, *learned, _, _) = visit_row(settlement)  # fmt: skip
            url.digest = digest if digest is not None else url.digest
            url.visits += ended
            url.learned = tuple(old if new is None else new for old, new in zip(url.learned, learned, strict=True))

    def _bring_forward(self, settlement: Settlement, after_s: float) -> None:
        now = settlement.finished_at
        for found in settlement.discovered:
            if found.origin.host in self._closed_hosts:
                continue
            url = self._keys[self._hosts[found.origin].row.id, found.key]
            lastmod = found.hint.lastmod if found.hint is not None else None
            if lastmod is None or url.next_at is None or url.visited_at is None or url.state not in ENDS:
                continue
            if min(lastmod, now) > url.visited_at:
                url.next_at = min(url.next_at, max(url.visited_at + after_s, now))

    def _put_robots(self, host: KeptHost, robots: RobotsRecord) -> None:
        is_unchanged = robots.verdict == "rules" and robots.body is None  # a 304, or the like
        if is_unchanged and host.robots is not None:
            robots = replace(robots, body=host.robots.body)
        host.robots = robots
        if robots.verdict == "unreachable":
            return
        digest = robots_digest(robots)
        if not is_unchanged and [digest] != [one.digest for one in host.robots_versions[:1]]:
            if host.robots_versions:
                self._robots_changed.append(host.row.id)
                self._to_reevaluate[host.row.id] += 1
            version = RobotsVersion(robots.fetched_at, robots.status_code, robots.verdict, digest, robots.body)
            host.robots_versions = [version, *host.robots_versions][:ROBOTS_VERSIONS_KEPT]
        if self._to_reevaluate[host.row.id]:
            self._readable.append(host.row.id)

    def _set_state(self, url: KeptUrl, state: UrlState) -> None:
        if state is not url.state:
            self._count(
                url.host_id,
                queued=(state is UrlState.QUEUED) - (url.state is UrlState.QUEUED),
                suspects=(state is UrlState.SUSPECT) - (url.state is UrlState.SUSPECT),
                again=state is UrlState.QUEUED,
            )
        url.state = state
        self._suspects.pop(url.id, None)

    def _put_sink_files(self, files: Sequence[SinkFile]) -> None:
        for file in files:
            self._sink_files[file.sink, file.name] = file

    def _task_of(self, url: KeptUrl) -> Task:
        found = url.found
        return Task(
            id=url.id,
            url=found.url,
            kind=found.kind,
            via=None if url.via is None else self._urls[url.via].found.url,
            depth=found.depth,
            hop_path=found.hop_path,
            source=found.source,
            priority=found.priority,
            redirects=found.redirects,
            attempt=url.attempts + 1,
            etag=url.etag,
            last_modified=url.last_modified,
            visits=url.visits,
            visited_at=url.visited_at if url.visits else None,
            digest=url.digest if url.visits else None,
            history=history_of(*url.learned) if url.visits else None,
            hint=url.hint,
        )


def _position(row: UrlRow) -> tuple[int, int, int, int]:
    return row.host_id, row.priority, row.depth, row.id


def _matches(url: KeptUrl, wanted: UrlSelection) -> bool:
    return (
        url.visited_at is not None
        and (not wanted.states or url.state in wanted.states)
        and (not wanted.errors or url.last_error in wanted.errors)
        and (not wanted.statuses or (url.last_status in wanted.statuses and url.state is not UrlState.DENIED))
        and (wanted.host_ids is None or url.host_id in wanted.host_ids)
        and (wanted.not_visited is None or not wanted.not_visited[0] <= url.visited_at <= wanted.not_visited[1])
    )
