"""Conversion between the values of `core` and the columns of a store, and what a transaction changes. Pure.

It decides what a settlement stores: the visit row and the counts of the host.
"""

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from hashlib import sha256
from typing import Any, Final, assert_never, overload

import orjson

from crawler.core.enums import HostState, OutcomeLabel, Source, TaskKind, UrlState
from crawler.core.models import (
    Counters,
    Denied,
    Failed,
    Fetched,
    Head,
    HostRow,
    NotModified,
    Origin,
    PageHistory,
    Redirected,
    RobotsRecord,
    Round,
    RoundCounts,
    Settlement,
    SitemapHint,
    Task,
)
from crawler.core.outcomes import outcome_label, response_of
from crawler.core.url import registrable_domain
from crawler.frontier.base import Batch, Receipt, Totals, UrlRow

MAX_VALIDATOR: Final = 1_024  # characters of an ETag or Last-Modified; a longer one is not stored
MAX_DETAIL: Final = 500  # characters stored of the detail of an error
FORGOTTEN_ERROR: Final = "forgotten"  # visit.last_error of a URL that was taken down
MARKS: Final = "forgotten_marks"  # in the table meta: see `totals_from`
ROUND: Final = "round"  # in the table meta: the last round, as JSON
ROUND_COUNTS: Final = "round_counts"  # in the table meta: its counts, as of the last settlement
KEY_RULES_MADE: Final = "key_rules"  # in the table meta: the version of core.url.KEY_RULES of the keys
WARC_SINK: Final = "warc"  # the sink of `Batch.written`
PAGES_SINK: Final = "pages"  # the sink of `Batch.lines`

# The name of the politeness key of a host, by `politeness.key`.
KEY_NAMES: Final[Mapping[str, Callable[[str], str]]] = {"domain": registrable_domain, "host": lambda host: host}

_ENDS: Final = frozenset((UrlState.DONE, UrlState.GAVE_UP))  # states of a URL whose visit has ended
_GOOD: Final = frozenset((OutcomeLabel.OK, OutcomeLabel.NOT_MODIFIED, OutcomeLabel.REDIRECT))


def check_batch(batch: Batch) -> None:
    """Raises ValueError for a batch that `Batch` does not allow."""
    if len(batch.settlements) != len(batch.written):
        raise ValueError("a batch needs one `written` for each settlement")
    if batch.lines and len(batch.settlements) != len(batch.lines):
        raise ValueError("a batch needs one of `lines` for each settlement, or none")
    seen: set[int] = set()
    for settlement in batch.settlements:
        task = settlement.task
        if settlement.state is UrlState.WAITING and settlement.next_at is None:
            raise ValueError(f"{task.url} waits for no time")
        if settlement.state is UrlState.FORGOTTEN:
            raise ValueError(f"{task.url}: a visit takes nothing down")
        if task.id in seen and task.id != 0:
            raise ValueError(f"{task.url} is settled twice in one batch")
        seen.add(task.id)


def visit_row(
    settlement: Settlement,
    warc_file: int | None = None,
    warc_offset: int | None = None,
    pages_file: int | None = None,
) -> tuple[Any, ...]:
    """The columns of sql.UPSERT_VISITS: url, next_at, attempts, last_at, last_status, last_error, last_rule,
    etag, last_modified, digest, warc_file, warc_offset, ended, changed_at, change_a, change_t, gone_count, in_links,
    visits (to add), pages_file. None after `last_modified` leaves the stored value as it is.
    """
    task, outcome = settlement.task, settlement.outcome
    response = response_of(outcome)
    error, rule = _error_of(settlement)
    etag, last_modified = _validators(task, outcome)
    history = settlement.history
    learned = (
        (None,) * 5
        if history is None
        else (history.changed_at, history.change_a, history.change_t, history.gone_count, history.in_links)
    )
    ended = int(settlement.state in _ENDS)
    return (
        task.id,
        None if settlement.state is UrlState.QUEUED else settlement.next_at,
        task.attempt - 1 if isinstance(outcome, Denied) else task.attempt,  # a refusal is no attempt
        settlement.finished_at,
        None if response is None else response.head.status_code,
        error,
        rule,
        etag,
        last_modified,
        settlement.digest,
        warc_file,
        warc_offset,
        ended,
        *learned,
        ended,  # visits
        pages_file,
    )


def _error_of(settlement: Settlement) -> tuple[str | None, str | None]:
    match settlement.outcome:
        case Denied(reason=reason, rule=rule):
            return reason.value, clip(rule)
        case Failed(error_type=error_type, detail=detail):
            return error_type.value, clip(detail)
        case Fetched(error_type=error_type) if error_type is not None:
            return error_type.value, None
        case Fetched() | NotModified() | Redirected():
            return None, None
        case _:
            assert_never(settlement.outcome)


def clip(text: str) -> str:
    # Messages of the system may contain lone surrogates for bytes that are no text; SQLite refuses those.
    return text[:MAX_DETAIL].encode("utf-8", "replace").decode()


def _validators(
    task: Task, outcome: Fetched | NotModified | Redirected | Failed | Denied
) -> tuple[str | None, str | None]:
    """ETag and Last-Modified for the conditions of the next request: those of the last complete 2xx, or of a 304
    after it (RFC 9110 §15.4.5). Those of an error page or a truncated body would cause a false 304.
    """
    match outcome:
        case Fetched(head=head, truncated=None, error_type=None) if 200 <= head.status_code < 300:
            return _field(head, "etag"), _field(head, "last-modified")
        case NotModified(fetched=fetched):
            head = fetched.head
            return _field(head, "etag") or task.etag, _field(head, "last-modified") or task.last_modified
        case _:
            return task.etag, task.last_modified


def _field(head: Head, name: str) -> str | None:
    value = head.get(name)
    return value if value is not None and len(value) <= MAX_VALIDATOR else None


@dataclass(slots=True)
class HostChange:
    """The change of a host's counters by one batch."""

    queued: int = 0
    fetched: int = 0
    ok: int = 0
    errors: int = 0
    bytes: int = 0
    last_at: float | None = None  # None: there was no request
    suspects: int = 0
    again: int = 0  # known URLs that were queued

    def add(self, settlement: Settlement) -> None:
        """Count an attempt. `ok` and `errors` count pages only: a robots.txt has its own verdict."""
        task, outcome = settlement.task, settlement.outcome
        word = outcome_label(outcome)
        if word is OutcomeLabel.DENIED:
            return
        if task.kind is TaskKind.PAGE:
            self.fetched += task.attempt == 1 and not task.is_revisit
            self.ok += word in _GOOD
            self.errors += word not in _GOOD
        response = response_of(outcome)
        if response is not None:
            self.bytes += len(response.raw_head) + response.raw_body.size
        if self.last_at is None or settlement.finished_at > self.last_at:
            self.last_at = settlement.finished_at


# A host whose row is to be inserted: origin, slot, domain, id of its politeness key, time at which it was found.
NewHost = tuple[Origin, int, str, int, float]


@dataclass(slots=True)
class PendingChange:
    """The changes of a transaction to what is kept in memory. They are applied after its commit."""

    counts: dict[str, int]  # URLs by UrlState, and "hosts"
    hosts: defaultdict[int, HostChange] = field(default_factory=lambda: defaultdict(HostChange))
    ids: dict[Origin, int] = field(default_factory=dict)  # ids of origins that were not in memory
    new_hosts: dict[int, NewHost] = field(default_factory=dict)  # by their ids
    queued: dict[int, int] = field(default_factory=dict)  # host id → URLs first seen, or queued again
    fresh: set[int] = field(default_factory=set)  # to be added to the Bloom filters
    robots_changed: list[int] = field(default_factory=list)
    to_reevaluate: list[int] = field(default_factory=list)
    files: dict[str, int] = field(default_factory=dict)  # output files of the visits: name → id
    counters: str | None = None  # the totals of the output directory as stored
    suspects: dict[int, list[str]] = field(default_factory=dict)  # host id → templates of new suspects
    linked: list[int] = field(default_factory=list)  # host id of each URL that is no suspect any more
    trial_links: dict[int, list[tuple[int, int, str]]] = field(default_factory=dict)  # as in Receipt
    marks: int = 0  # rows of taken-down URLs that do not count as a URL
    schedule_at: float = 0.0  # when hosts with new work are ready, at the earliest
    last_visit_at: float | None = None  # end of its last visit

    def move(self, host_id: int, before: str, after: str) -> None:
        """Count a URL that changes its state."""
        self.counts[before] = self.counts.get(before, 0) - 1  # of another agent it may be the first
        self.counts[after] = self.counts.get(after, 0) + 1
        self.hosts[host_id].queued += (after == UrlState.QUEUED) - (before == UrlState.QUEUED)
        self.hosts[host_id].again += after == UrlState.QUEUED
        self.hosts[host_id].suspects += (after == UrlState.SUSPECT) - (before == UrlState.SUSPECT)

    def insert(self, inserted: Mapping[int, int]) -> None:
        """Count URLs that were inserted as queued: host id → how many."""
        self.counts[UrlState.QUEUED] = self.counts.get(UrlState.QUEUED, 0) + sum(inserted.values())
        hosts, queued = self.hosts, self.queued
        for host_id, count in inserted.items():
            hosts[host_id].queued += count
            queued[host_id] = queued.get(host_id, 0) + count

    def make_suspects(self, host_id: int, template: str, count: int) -> None:
        """Count URLs that were just inserted and become suspects."""
        if not count:
            return
        for _ in range(count):
            self.move(host_id, UrlState.QUEUED, UrlState.SUSPECT)
        self.queued[host_id] -= count
        self.suspects.setdefault(host_id, []).extend([template] * count)

    def queue_again(self, host_id: int, before: str) -> None:
        """Count a known URL that is queued again."""
        self.move(host_id, before, UrlState.QUEUED)
        self.queued[host_id] = self.queued.get(host_id, 0) + 1

    def add(self, state: UrlState, count: int) -> None:
        """Count URLs that were inserted in another state than queued."""
        self.counts[state] = self.counts.get(state, 0) + count

    def receipt(self, links_new: Sequence[int]) -> Receipt:
        return Receipt(
            links_new, self.queued, NewRows(self), self.robots_changed, self.to_reevaluate, self.suspects, self.linked,
            self.trial_links,
        )  # fmt: skip


class NewRows(Sequence[HostRow]):
    """The rows of the new hosts of a transaction. They are made when one is read: of a list of seeds none is."""

    def __init__(self, change: PendingChange) -> None:
        self._new, self._hosts, self._schedule_at = change.new_hosts, change.hosts, change.schedule_at

    def __len__(self) -> int:
        return len(self._new)

    def __iter__(self) -> Iterator[HostRow]:
        for host_id, (origin, slot, *_) in self._new.items():
            queued = self._hosts[host_id].queued
            yield HostRow(host_id, origin, slot, queued, ready_at=self._schedule_at if queued else 0.0)

    @overload
    def __getitem__(self, index: int) -> HostRow: ...

    @overload
    def __getitem__(self, index: slice) -> Sequence[HostRow]: ...

    def __getitem__(self, index: int | slice) -> HostRow | Sequence[HostRow]:
        return list(self)[index]


def host_state(robots: RobotsRecord) -> HostState:
    """The state of a host with this robots verdict (RFC 9309 §2.3.1)."""
    return HostState.HELD if robots.verdict == "unreachable" else HostState.READY


def host_row(columns: list[Any]) -> HostRow:
    """From one row of sql.HOSTS."""
    (id_, scheme, host, port, slot, queued, fetched, last_at, has_suspects, ready_at, parked, failures, reason,
     has_responded, *robots) = columns  # fmt: skip
    record = None if robots[0] is None else RobotsRecord(*robots)
    return HostRow(
        id_, Origin(scheme, host, port), slot, queued, fetched, record, last_at, bool(has_suspects), ready_at, parked,
        failures, reason, bool(has_responded),
    )  # fmt: skip


def task_of(columns: list[Any]) -> Task:
    """From one row of sql.TAKE."""
    (id_, priority, depth, target, scheme, host, port, source, hop_path, redirects,
     via_target, via_scheme, via_host, via_port,
     kind, attempts, etag, last_modified, history, hint) = columns  # fmt: skip
    visits, visited_at, digest, *learned = (0, None, None) if history is None else history
    return Task(
        id=id_,
        url=f"{Origin(scheme, host, port)}{target}",
        kind=TaskKind.PAGE if kind is None else TaskKind(kind),
        via=None if via_target is None else f"{Origin(via_scheme, via_host, via_port)}{via_target}",
        depth=depth,
        hop_path=hop_path,
        source=Source(source),
        priority=priority,
        redirects=redirects,
        attempt=(attempts or 0) + 1,
        etag=etag,
        last_modified=last_modified,
        visits=visits,
        visited_at=visited_at,
        digest=digest,
        history=history_of(*learned) if learned else None,
        hint=None if hint is None else SitemapHint(*hint),
    )


def history_of(
    changed_at: float | None,
    change_a: float | None,
    change_t: float | None,
    gone_count: int | None,
    in_links: int | None,
) -> PageHistory:
    """The history in the columns of a visit; NULL: no settlement had a value."""
    return PageHistory(changed_at, change_a, change_t, gone_count or 0, in_links or 0)


def sample_ranges(last_id: int, *, blocks: int, rows: int, phase: float) -> list[tuple[int, int]]:
    """First and last row of the runs that Frontier.visited_pages reads."""
    if last_id <= blocks * rows:
        return [(at, min(at + rows - 1, last_id)) for at in range(1, last_id + 1, rows)]
    step = (last_id - rows) / blocks
    firsts = (1 + int((n + min(max(phase, 0.0), 1.0)) * step) for n in range(blocks))
    return [(first, first + rows - 1) for first in firsts]


def robots_digest(robots: RobotsRecord) -> str:
    """A digest that differs between versions of a robots.txt, by their verdict or text."""
    return sha256(robots.verdict.encode() + b"\n" + (robots.body or b"")).hexdigest()


def counters_from(text: str | None) -> Counters:
    fields = {} if text is None else orjson.loads(text)
    fields.pop("extra", None)  # older versions stored it, always empty
    return Counters(**fields)


def round_text(one: Round) -> str:
    """The value of ROUND."""
    stored = {name: getattr(one, name) for name in Round.__slots__ if name != "counts"}
    return orjson.dumps(stored).decode()


def round_from(text: str | None, counts: str | None) -> Round | None:
    """From the values of ROUND and ROUND_COUNTS."""
    if text is None:
        return None
    return Round(**orjson.loads(text), counts=RoundCounts() if counts is None else RoundCounts(**orjson.loads(counts)))


def totals_from(counts: dict[str, int], marks: int = 0) -> Totals:
    """Totals of the counts by UrlState, and of "hosts". A URL that is taken down has a row for each key that it may
    have; `marks` is the number of those rows that do not count as a URL.
    """
    totals = Totals(**{name: counts.get(name, 0) for name in Totals.__slots__})
    return replace(totals, forgotten=totals.forgotten - marks) if marks else totals


def url_row_of(prefix: str, columns: list[Any]) -> UrlRow:
    """From one row of sql.URL_ROWS; `prefix` is the origin as text."""
    host_id, id_, target, priority, depth, hop_path, source, reason = columns
    return UrlRow(id_, host_id, f"{prefix}{target}", priority, depth, hop_path, Source(source), reason)
