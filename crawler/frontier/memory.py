"""A frontier that is gone when its object is: for tests and benchmarks.

It keeps the same promises as the one on disk, within one process: closing and opening the same object again recovers
what was settled. It works on plain dictionaries and looks through all of them where the store has an index.

Invariant: a batch is checked whole before the first of it is applied, so it is stored whole or not at all.
"""

import os
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

from crawler.core.outage import SIGNS
from crawler.core.url import every_key_of, parse, registrable_domain, slot_of
from crawler.core.values import (
    Counters,
    Denied,
    Discovered,
    HostRow,
    Origin,
    Pace,
    Quarantine,
    Rest,
    RobotsRecord,
    Settlement,
    SinkFile,
    SitemapHint,
    Task,
    Written,
)
from crawler.core.vocabulary import SinkFileState, Source, TaskKind, UrlState
from crawler.frontier.base import (
    ROBOTS_VERSIONS_KEPT,
    Batch,
    Block,
    Forgotten,
    FrontierLocked,
    LearnedPage,
    Receipt,
    Recovered,
    RobotsVersion,
    Takedown,
    Totals,
    UrlRow,
)
from crawler.frontier.rows import (
    WARC_SINK,
    HostChange,
    check_batch,
    history_of,
    host_state,
    robots_digest,
    sample_ranges,
    totals_from,
    visit_row,
)

_ENDS: Final = (UrlState.DONE, UrlState.GAVE_UP)


@dataclass(slots=True)
class _Url:
    id: int
    host_id: int
    found: Discovered
    via: int | None
    state: UrlState = UrlState.QUEUED
    next_at: float | None = None
    attempts: int = 0
    etag: str | None = None
    last_modified: str | None = None
    last_error: str | None = None
    place: Written | None = None  # of the last record in the WARC
    visits: int = 0
    visited_at: float | None = None
    digest: str | None = None
    learned: tuple[Any, ...] = (None,) * 6  # the columns of rows.history_of
    hint: SitemapHint | None = None


@dataclass(slots=True)
class _Host:
    row: HostRow
    counts: HostChange = field(default_factory=HostChange)
    robots: RobotsRecord | None = None
    robots_versions: list[RobotsVersion] = field(default_factory=list)  # newest first

    def as_row(self) -> HostRow:
        row = replace(self.row, queued=self.counts.queued, fetched=self.counts.fetched)
        if self.robots is None:
            return row
        return replace(row, state=host_state(self.robots), robots=replace(self.robots, body=None))


class MemoryFrontier:
    """A `Frontier` (base.py)."""

    def __init__(self) -> None:
        self._is_open = False
        self._clean = True
        self._urls: dict[int, _Url] = {}
        self._keys: dict[tuple[int, int], _Url] = {}
        self._hosts: dict[Origin, _Host] = {}
        self._hosts_by_id: dict[int, _Host] = {}
        self._rests: dict[str, Rest] = {}
        self._sink_files: dict[tuple[str, str], SinkFile] = {}
        self._counters = Counters()
        self._scope_hosts: set[str] = set()
        self._seeds_added = False
        self._closed_hosts: set[str] = set()
        self._takedowns: dict[tuple[str, int], Takedown] = {}
        self._blocks: dict[str, Block] = {}
        self._quarantines: dict[tuple[int, str], Quarantine] = {}
        self._unswept: set[int] = set()
        self._paces: dict[str, Pace] = {}
        self._robots_changed: list[int] = []

    async def open(self) -> Recovered:
        if self._is_open:
            raise FrontierLocked(f"this frontier is in use by process {os.getpid()}")
        self._is_open = True
        clean, self._clean = self._clean, False
        return Recovered(
            clean=clean,
            hosts=tuple(host.as_row() for host in self._hosts.values()),
            rests=tuple(self._rests[key] for key in sorted(self._rests)),
            sink_files=tuple(f for f in self._sink_files.values() if f.state is not SinkFileState.CLOSED),
            counters=self._counters,
            scope_hosts=tuple(sorted(self._scope_hosts)),
            seeds_added=self._seeds_added,
            quarantines=tuple(await self.quarantines()),
            paces=tuple(self._paces[key] for key in sorted(self._paces)),
            unswept=tuple(sorted(self._unswept)),
        )

    async def close(self, *, clean: bool) -> None:
        self._clean = clean if self._is_open else self._clean
        self._is_open = False

    async def add(self, discovered: Sequence[Discovered], *, now: float) -> Receipt:
        self._check_open()
        new_hosts: list[_Host] = []
        queued: dict[int, int] = {}
        links_new = [self._insert(one, None, new_hosts, queued) for one in discovered]
        if any(n and one.source is Source.SEED for n, one in zip(links_new, discovered, strict=True)):
            self._seeds_added = True
        return Receipt(links_new, queued, [host.as_row() for host in new_hosts])

    async def settle(self, batch: Batch) -> Receipt:
        self._check_open()
        check_batch(batch)
        self._check_known(batch)
        self._put_sink_files(batch.sink_files)
        new_hosts: list[_Host] = []
        queued: dict[int, int] = {}
        links_new = []
        for settlement, place in zip(batch.settlements, batch.written, strict=True):
            self._put_visit(settlement, place)
        for settlement in batch.settlements:
            via = settlement.task.id or None
            links_new.append(sum(self._insert(one, via, new_hosts, queued) for one in settlement.discovered))
            if batch.hint_after_s is not None:
                self._bring_forward(settlement, batch.hint_after_s)
        for rest in batch.rests:
            self._rests[rest.key] = rest
            if rest.until_at == 0:
                del self._rests[rest.key]
        self._counters = batch.counters or self._counters
        self._scope_hosts.update(batch.scope_hosts)
        for pace in batch.paces:
            self._paces[pace.key] = pace
            if pace.response_s == 0:
                del self._paces[pace.key]
        for one in batch.quarantines:
            self._quarantines[one.host_id, one.template] = one
            self._unswept.add(one.host_id)
        changed, self._robots_changed = self._robots_changed, []
        return Receipt(links_new, queued, [host.as_row() for host in new_hosts], changed)

    async def take(self, host_id: int, limit: int, *, leased: Collection[int]) -> list[Task]:
        self._check_open()
        queued = (url for url in self._urls.values() if url.host_id == host_id and url.state is UrlState.QUEUED)
        free = [url for url in queued if url.id not in leased]
        free.sort(key=lambda url: (url.found.priority, url.found.depth, url.id))
        return [self._task_of(url) for url in free[: max(0, limit)]]

    async def promote(self, *, now: float, limit: int = 1_000) -> dict[int, int]:
        self._check_open()
        return self._promote(now, limit, revisits=False)

    async def promote_revisits(self, *, now: float, limit: int) -> dict[int, int]:
        self._check_open()
        return self._promote(now, limit, revisits=True)

    def _promote(self, now: float, limit: int, *, revisits: bool) -> dict[int, int]:
        due = [(at, url.id) for url, at in self._due(revisits=revisits) if at <= now]
        promoted: dict[int, int] = {}
        for _, url_id in sorted(due)[: max(0, limit)]:
            url = self._urls[url_id]
            if revisits:
                url.attempts = 0
            self._set_state(url, UrlState.QUEUED)
            url.next_at = None
            promoted[url.host_id] = promoted.get(url.host_id, 0) + 1
        return promoted

    async def hasten(self, *, since_at: float, now: float) -> None:
        self._check_open()
        for url in self._urls.values():
            failed_then = url.last_error in SIGNS and (url.visited_at or 0.0) >= since_at
            if url.state is UrlState.WAITING and failed_then and url.next_at is not None:
                url.next_at = min(url.next_at, now)

    async def next_due(self) -> float | None:
        self._check_open()
        return min((at for _, at in self._due(revisits=False)), default=None)

    async def next_revisit(self) -> float | None:
        self._check_open()
        return min((at for _, at in self._due(revisits=True)), default=None)

    def _due(self, *, revisits: bool) -> Iterator[tuple[_Url, float]]:
        for url in self._urls.values():
            if url.next_at is not None and (url.state in _ENDS) is revisits:
                yield url, url.next_at

    async def learned(self, *, blocks: int, rows: int, phase: float) -> list[LearnedPage]:
        self._check_open()
        found = []
        for first, last in sample_ranges(len(self._urls), blocks=blocks, rows=rows, phase=phase):
            for url in map(self._urls.__getitem__, range(first, last + 1)):
                _, change_a, change_t, gone_count, in_links, _ = url.learned
                is_again = url.next_at is not None and url.state in _ENDS
                if is_again and not gone_count and url.found.kind is TaskKind.PAGE:
                    priority = None if url.hint is None else url.hint.priority
                    found.append(
                        LearnedPage(url.found.url, url.found.depth, in_links or 0, priority, change_a, change_t)
                    )
        return found

    async def record_sink_files(self, files: Sequence[SinkFile]) -> None:
        self._check_open()
        self._put_sink_files(files)

    async def requeue(self, error: str) -> dict[int, int]:
        self._check_open()
        requeued: dict[int, int] = {}
        for url in self._urls.values():
            if url.last_error != error or url.state in (UrlState.QUEUED, UrlState.FORGOTTEN):
                continue
            url.attempts = 0 if url.visits else min(url.attempts, 1)
            url.next_at = None
            self._set_state(url, UrlState.QUEUED)
            requeued[url.host_id] = requeued.get(url.host_id, 0) + 1
        return requeued

    async def forget_url(self, url: str, *, now: float) -> Forgotten:
        self._check_open()
        href, origin = parse(url)
        new_hosts: list[_Host] = []
        marks = [Discovered(href, origin, key, 0, "", Source.SEED) for key in every_key_of(href)]
        erased: list[int] = []
        queued = 0
        for mark in marks:
            is_new = self._insert(mark, None, new_hosts, {})
            host = self._hosts.get(origin)
            if host is None:
                return Forgotten()
            row = self._keys[host.row.id, mark.key]
            if not is_new and row.state is not UrlState.FORGOTTEN:
                erased.append(row.id)
                queued += row.state is UrlState.QUEUED
            self._erase(row, now)
        host_id = self._hosts[origin].row.id
        rows = [host.as_row() for host in new_hosts]
        return Forgotten(len(erased), {host_id: queued} if queued else {}, tuple(sorted(erased)), (host_id,), rows)

    async def forget_host(self, host: str, *, now: float) -> Forgotten:
        self._check_open()
        self._closed_hosts.add(host)
        known = [one for origin, one in self._hosts.items() if origin.host == host]
        ids = {one.row.id for one in known}
        erased = [url for url in self._urls.values() if url.host_id in ids and url.state is not UrlState.FORGOTTEN]
        queued = Counter(url.host_id for url in erased if url.state is UrlState.QUEUED)
        for url in erased:
            self._erase(url, now)
        for one in known:
            one.robots, one.robots_versions = None, []
        return Forgotten(len(erased), dict(queued), host_ids=tuple(sorted(ids)))

    async def takedowns(self) -> list[Takedown]:
        self._check_open()
        return list(self._takedowns.values())

    async def robots_versions(self, host_id: int) -> list[RobotsVersion]:
        self._check_open()
        host = self._hosts_by_id.get(host_id)
        return [] if host is None else list(host.robots_versions)

    async def url_rows(self, host_id: int, state: UrlState, *, after: UrlRow | None, limit: int) -> list[UrlRow]:
        self._check_open()
        found = [
            UrlRow(url.id, url.found.url, url.found.priority, url.found.depth, url.found.hop_path, url.found.source,
                   url.last_error)
            for url in self._urls.values()
            if url.host_id == host_id and url.state is state
        ]  # fmt: skip
        found.sort(key=_place)
        behind = found if after is None else [row for row in found if _place(row) > _place(after)]
        return behind[:limit]

    async def queue_again(self, ids: Sequence[int]) -> dict[int, int]:
        self._check_open()
        queued: dict[int, int] = {}
        for url in (self._urls[url_id] for url_id in ids if url_id in self._urls):
            if url.state is UrlState.DENIED:
                self._set_state(url, UrlState.QUEUED)
                url.last_error = None
                queued[url.host_id] = queued.get(url.host_id, 0) + 1
        return queued

    async def blocks(self) -> list[Block]:
        self._check_open()
        return [self._blocks[name] for name in sorted(self._blocks)]

    async def block(self, block: Block) -> bool:
        self._check_open()
        return self._blocks.setdefault(block.name, block) is block

    async def unblock(self, name: str) -> bool:
        self._check_open()
        return self._blocks.pop(name, None) is not None

    async def robots_body(self, host_id: int) -> bytes | None:
        self._check_open()
        host = self._hosts_by_id.get(host_id)
        return None if host is None or host.robots is None else host.robots.body

    async def deny(self, host_id: int, denied: Sequence[tuple[int, Denied]], *, now: float) -> int:
        self._check_open()
        refused = [(self._urls[url_id], verdict) for url_id, verdict in denied]
        refused = [(url, verdict) for url, verdict in refused if url.state is UrlState.QUEUED]
        for url, verdict in refused:
            self._set_state(url, UrlState.DENIED)
            url.last_error = verdict.reason.value
        return len(refused)

    async def unswept(self, host_ids: Collection[int]) -> None:
        self._check_open()
        self._unswept.update(host_ids)

    async def swept(self, host_id: int) -> None:
        self._check_open()
        self._unswept.discard(host_id)

    async def quarantines(self) -> list[Quarantine]:
        self._check_open()
        by_name = sorted(self._quarantines.values(), key=lambda one: (one.host_id, one.template))
        return sorted(by_name, key=lambda one: -one.since_at)

    async def totals(self) -> Totals:
        self._check_open()
        counts = {"hosts": len(self._hosts)}
        for url in self._urls.values():
            counts[url.state] = counts.get(url.state, 0) + 1
        return totals_from(counts)

    async def find_host(self, origin: Origin) -> HostRow | None:
        self._check_open()
        host = self._hosts.get(origin)
        return None if host is None else host.as_row()

    # -- parts

    def _check_open(self) -> None:
        if not self._is_open:
            raise RuntimeError("the frontier is not open")

    def _check_known(self, batch: Batch) -> None:
        names = {file.name for file in batch.sink_files if file.sink == WARC_SINK}
        names |= {name for sink, name in self._sink_files if sink == WARC_SINK}
        for settlement, place in zip(batch.settlements, batch.written, strict=True):
            task, host_id = settlement.task, settlement.host_id
            if host_id not in self._hosts_by_id:
                raise ValueError(f"{task.url}: no host {host_id}")
            if task.id != 0 and (task.id not in self._urls or self._urls[task.id].host_id != host_id):
                raise ValueError(f"{task.url}: no url {task.id} of host {host_id}")
            if place is not None and place.name not in names:
                raise ValueError(f"no output file {place.name} is known")

    def _insert(self, found: Discovered, via: int | None, new_hosts: list[_Host], queued: dict[int, int]) -> int:
        if found.origin.host in self._closed_hosts:
            return 0
        host = self._hosts.get(found.origin)
        if host is None:
            domain = registrable_domain(found.origin.host)
            row = HostRow(len(self._hosts) + 1, found.origin, domain, slot_of(domain), queued=0)
            host = self._hosts[found.origin] = self._hosts_by_id[row.id] = _Host(row)
            new_hosts.append(host)
        host_id = host.row.id
        known = self._keys.get((host_id, found.key))
        if known is not None:
            known.hint = found.hint or known.hint
            return 0
        url = _Url(len(self._urls) + 1, host_id, found, via, hint=found.hint)
        self._urls[url.id] = self._keys[host_id, found.key] = url
        host.counts.queued += 1
        queued[host_id] = queued.get(host_id, 0) + 1
        return 1

    def _erase(self, url: _Url, now: float) -> None:
        if url.place is not None:
            self._list_takedown(url.found.url, url.place, now)
        self._set_state(url, UrlState.FORGOTTEN)
        url.found, url.via = replace(url.found, url=str(url.found.origin)), None
        url.next_at = url.last_error = url.place = url.hint = None

    def _list_takedown(self, url: str, place: Written, at: float) -> None:
        self._takedowns.setdefault((place.name, place.offset), Takedown(url, place.name, place.offset, at))

    def _put_visit(self, settlement: Settlement, place: Written | None) -> None:
        host = self._hosts_by_id[settlement.host_id]
        host.counts.add(settlement)
        if settlement.robots is not None:
            self._put_robots(host, settlement.robots)
        if settlement.task.id != 0:
            url = self._urls[settlement.task.id]
            if url.state is UrlState.FORGOTTEN:
                if place is not None:
                    self._list_takedown(settlement.task.url, place, settlement.finished_at)
                return
            url.place = place or url.place
            self._set_state(url, settlement.state)
            (_, url.next_at, url.attempts, url.visited_at, _, url.last_error, _, url.etag, url.last_modified,
             digest, _, _, ended, *learned, _, _) = visit_row(settlement, None, None)  # fmt: skip
            url.digest = digest if digest is not None else url.digest
            url.visits += ended
            url.learned = tuple(old if new is None else new for old, new in zip(url.learned, learned, strict=True))

    def _bring_forward(self, settlement: Settlement, after_s: float) -> None:
        now = settlement.finished_at
        for found in settlement.discovered:
            url = self._keys[self._hosts[found.origin].row.id, found.key]
            lastmod = found.hint.lastmod if found.hint is not None else None
            if lastmod is None or url.next_at is None or url.visited_at is None or url.state not in _ENDS:
                continue
            if min(lastmod, now) > url.visited_at:
                url.next_at = min(url.next_at, max(url.visited_at + after_s, now))

    def _put_robots(self, host: _Host, robots: RobotsRecord) -> None:
        if robots.verdict == "rules" and robots.body is None and host.robots is not None:
            robots = replace(robots, body=host.robots.body)
        host.robots = robots
        digest = robots_digest(robots)
        if robots.verdict != "unreachable" and [digest] != [one.digest for one in host.robots_versions[:1]]:
            if host.robots_versions:
                self._robots_changed.append(host.row.id)
                self._unswept.add(host.row.id)
            version = RobotsVersion(robots.fetched_at, robots.status_code, robots.verdict, digest, robots.body)
            host.robots_versions = [version, *host.robots_versions][:ROBOTS_VERSIONS_KEPT]

    def _set_state(self, url: _Url, state: UrlState) -> None:
        counts = self._hosts_by_id[url.host_id].counts
        counts.queued += (state is UrlState.QUEUED) - (url.state is UrlState.QUEUED)
        url.state = state

    def _put_sink_files(self, files: Sequence[SinkFile]) -> None:
        for file in files:
            self._sink_files[file.sink, file.name] = file

    def _task_of(self, url: _Url) -> Task:
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


def _place(row: UrlRow) -> tuple[int, int, int]:
    return row.priority, row.depth, row.id
