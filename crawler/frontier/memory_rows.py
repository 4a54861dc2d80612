"""What a frontier in memory keeps: rows of URLs and hosts in dictionaries, and how a visit changes them.

It knows neither who asks nor whether the store is open: `memory` keeps the promises to callers.

Invariant: a key of a host has one row for good, and a host's counts are those of its rows.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

from crawler.core.url import registrable_domain, slot_of
from crawler.core.values import (
    Counters,
    Discovered,
    HostRow,
    Origin,
    Pace,
    Rest,
    RobotsRecord,
    Settlement,
    SinkFile,
    SitemapHint,
    Task,
    TemplateRow,
    Written,
)
from crawler.core.vocabulary import UrlState
from crawler.frontier.base import ROBOTS_VERSIONS_KEPT, Batch, Block, RobotsVersion, Takedown
from crawler.frontier.rows import PAGES_SINK, WARC_SINK, HostChange, history_of, host_state, robots_digest, visit_row

ENDS: Final = (UrlState.DONE, UrlState.GAVE_UP)  # a URL in one of them is visited again, if at all


@dataclass(slots=True)
class KeptUrl:
    """One URL, its visits included."""

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
    place: Written | None = None  # of the last record in the WARC
    content_place: Written | None = None  # of the one that holds the content, where the last does not
    line: Written | None = None  # of the last line in pages/
    visits: int = 0
    visited_at: float | None = None
    digest: str | None = None
    learned: tuple[Any, ...] = (None,) * 6  # the columns of rows.history_of
    hint: SitemapHint | None = None


@dataclass(slots=True)
class KeptHost:
    """One origin; `row` as it was when it was found."""

    row: HostRow
    counts: HostChange = field(default_factory=HostChange)
    robots: RobotsRecord | None = None
    robots_versions: list[RobotsVersion] = field(default_factory=list)  # newest first

    def as_row(self) -> HostRow:
        row = replace(self.row, queued=self.counts.queued, fetched=self.counts.fetched, last_at=self.counts.last_at)
        if self.robots is None:
            return row
        return replace(row, state=host_state(self.robots), robots=replace(self.robots, body=None))


class MemoryRows:
    """The tables; `MemoryFrontier` adds what may be asked of them."""

    def __init__(self) -> None:
        self._urls: dict[int, KeptUrl] = {}
        self._keys: dict[tuple[int, int], KeptUrl] = {}
        self._hosts: dict[Origin, KeptHost] = {}
        self._hosts_by_id: dict[int, KeptHost] = {}
        self._rests: dict[str, Rest] = {}
        self._sink_files: dict[tuple[str, str], SinkFile] = {}
        self._counters = Counters()
        self._scope_hosts: set[str] = set()
        self._seeds_added = False
        self._closed_hosts: set[str] = set()
        self._marks = 0  # forgotten rows that stand for no URL of their own
        self._takedowns: dict[tuple[str, int], Takedown] = {}
        self._blocks: dict[str, Block] = {}
        self._templates: dict[tuple[int, str], TemplateRow] = {}
        self._suspects: dict[int, str] = {}  # URL id → template
        self._samples: dict[int, bytes] = {}  # URL id → words
        self._unswept: Counter[int] = Counter()  # host id → how often it was marked
        self._rules: str | None = None
        self._dated_to: int | None = 0
        self._kept: dict[str, bytes] = {}
        self._error_pages: dict[int, bytes] = {}
        self._paces: dict[str, Pace] = {}
        self._robots_changed: list[int] = []

    def _check_known(self, batch: Batch) -> None:
        names = {(file.sink, file.name) for file in batch.sink_files} | set(self._sink_files)
        for sink, places in ((WARC_SINK, batch.written), (PAGES_SINK, batch.lines)):
            for place in places:
                if place is not None and (sink, place.name) not in names:
                    raise ValueError(f"no output file {place.name} is known")
        for settlement in batch.settlements:
            task, host_id = settlement.task, settlement.host_id
            if host_id not in self._hosts_by_id:
                raise ValueError(f"{task.url}: no host {host_id}")
            if task.id != 0 and (task.id not in self._urls or self._urls[task.id].host_id != host_id):
                raise ValueError(f"{task.url}: no url {task.id} of host {host_id}")

    def _insert(self, found: Discovered, via: int | None, new_hosts: list[KeptHost], queued: dict[int, int]) -> int:
        if found.origin.host in self._closed_hosts:
            return 0
        host = self._hosts.get(found.origin)
        if host is None:
            domain = registrable_domain(found.origin.host)
            row = HostRow(len(self._hosts) + 1, found.origin, domain, slot_of(domain), queued=0)
            host = self._hosts[found.origin] = self._hosts_by_id[row.id] = KeptHost(row)
            new_hosts.append(host)
        host_id = host.row.id
        known = self._keys.get((host_id, found.key))
        if known is not None:
            known.hint = found.hint or known.hint
            return 0
        url = KeptUrl(len(self._urls) + 1, host_id, found, via, hint=found.hint)
        self._urls[url.id] = self._keys[host_id, found.key] = url
        host.counts.queued += 1
        queued[host_id] = queued.get(host_id, 0) + 1
        return 1

    def _erase(self, url: KeptUrl, now: float) -> None:
        if url.place is not None:
            self._list_takedown(url.found.url, url.place, now)
        self._set_state(url, UrlState.FORGOTTEN)
        url.found, url.via = replace(url.found, url=str(url.found.origin)), None
        url.next_at = url.last_error = url.place = url.content_place = url.line = url.hint = None

    def _list_takedown(self, url: str, place: Written, at: float) -> None:
        self._takedowns.setdefault((place.name, place.offset), Takedown(url, place.name, place.offset, at))

    def _put_visit(self, settlement: Settlement, place: Written | None, line: Written | None) -> None:
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
            if place is not None:
                is_content = settlement.digest is not None and settlement.digest != url.digest
                url.content_place = None if is_content else url.content_place or url.place
            url.place, url.line = place or url.place, line or url.line
            self._set_state(url, settlement.state)
            (_, url.next_at, url.attempts, url.visited_at, url.last_status, url.last_error, _, url.etag,
             url.last_modified, digest, _, _, ended, *learned, _, _, _) = visit_row(settlement)  # fmt: skip
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
        is_as_it_was = robots.verdict == "rules" and robots.body is None  # a 304, or the like
        if is_as_it_was and host.robots is not None:
            robots = replace(robots, body=host.robots.body)
        host.robots = robots
        if is_as_it_was or robots.verdict == "unreachable":
            return
        digest = robots_digest(robots)
        if [digest] != [one.digest for one in host.robots_versions[:1]]:
            if host.robots_versions:
                self._robots_changed.append(host.row.id)
                self._unswept[host.row.id] += 1
            version = RobotsVersion(robots.fetched_at, robots.status_code, robots.verdict, digest, robots.body)
            host.robots_versions = [version, *host.robots_versions][:ROBOTS_VERSIONS_KEPT]

    def _set_state(self, url: KeptUrl, state: UrlState) -> None:
        counts = self._hosts_by_id[url.host_id].counts
        counts.queued += (state is UrlState.QUEUED) - (url.state is UrlState.QUEUED)
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
