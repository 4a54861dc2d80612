"""What every frontier promises (the contract suite in tests/contract holds each one to it).

A frontier stores what is known and what is due. It knows nothing of time passing, politeness or readiness: `now` is
passed in, and who may be asked next is the scheduler's business. Leases are not stored: after a crash, whatever was
not settled is simply still queued.

Invariant: `settle` is one transaction. Either a page, its discoveries, its output offsets and its host's counters are
all there after a crash, or none of them is.

A URL is known by (origin, key) for ever. Found again, it is left as it is, even where the new way to it is shorter:
queued URLs would have to move within the order, for a link that was found at most a few pages later.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple, Protocol

from crawler.core.enums import Source, UrlState
from crawler.core.models import (
    Backoff,
    Counters,
    Denied,
    Discovered,
    HostRow,
    HostTemplates,
    Origin,
    RecordLocation,
    Settlement,
    SinkFile,
    SlowResponse,
    Suspects,
    Task,
    TemplateRow,
)

ROBOTS_VERSIONS_KEPT: Final = 20  # of each host; 500 KB at most each, a few KB as a rule


class FrontierError(Exception):
    """The store could not do what it was asked; the message is for a person."""


class FrontierCorrupt(FrontierError):
    """The store is damaged, or is not one of ours (exit 65)."""


class FrontierVersion(FrontierError):
    """The store was written by a newer version (exit 65)."""


class FrontierLocked(FrontierError):
    """Another process owns the store (exit 75)."""


class FrontierFull(FrontierError):
    """The disk is full or failing; nothing of the transaction was stored, and it may be tried again."""


@dataclass(frozen=True, slots=True)
class Recovered:
    """What `open` found. `clean` is False when the last owner did not close: every key then rests first."""

    clean: bool
    hosts: tuple[HostRow, ...]
    backoffs: tuple[Backoff, ...]
    sink_files: tuple[SinkFile, ...]  # every one, closed ones too
    counters: Counters
    scope_hosts: tuple[str, ...]  # hosts that a seed's redirect brought into scope
    suspects: tuple[int, ...] = ()  # hosts of which some URLs are set aside
    slow_responses: tuple[SlowResponse, ...] = ()
    unswept: tuple[int, ...] = ()  # hosts whose rules changed, and whose URLs were not all judged anew (`swept`)
    is_copy: bool = False  # a backup put back, whose output files may have grown since (until `output_agrees`)


@dataclass(frozen=True, slots=True)
class Batch:
    """What one commit stores. `written[i]` is where the WARC holds `settlements[i]`, None if nothing was written;
    `lines[i]` where pages/ has its line (no `lines`: there are none).

    A task is settled once in a batch, or not at all; one without a row (`task.id` 0: robots.txt) changes only its host;
    what it discovers has no `via`, and counts for the first such settlement that discovers any. A rest whose `until_at`
    is 0 is over. A file of `written` or `lines` is in `sink_files` or known.

    A URL that is due for a revisit, and that a sitemap says has changed since its last visit (`SitemapHint.lastmod`),
    is due `hint_after_s` after that visit, if that is sooner; None: hints change no due time.
    """

    settlements: Sequence[Settlement]
    written: Sequence[RecordLocation | None]
    sink_files: Sequence[SinkFile] = ()
    backoffs: Sequence[Backoff] = ()
    counters: Counters | None = None
    scope_hosts: Sequence[str] = ()
    hint_after_s: float | None = None
    slow_responses: Sequence[SlowResponse] = ()  # response_s 0: the key is not slow any more
    templates: Sequence[TemplateRow] = ()  # all but their `pages`, which the notes of settlements add up to
    lines: Sequence[RecordLocation | None] = ()
    error_pages: Sequence[tuple[int, bytes]] = ()  # host ids, with what the engine keeps of their soft 404s


@dataclass(frozen=True, slots=True)
class Receipt:
    """What a commit changed. `links_new[i]` counts the discoveries of `settlements[i]` that were new to the store.

    A URL found on several pages of the batch counts for the first. `queued` maps host id → number of URLs first seen
    and queued there; `hosts` are the rows of hosts first seen, as stored: their `queued` includes those URLs already.
    """

    links_new: Sequence[int]
    queued: dict[int, int] = field(default_factory=dict)
    hosts: Sequence[HostRow] = ()
    robots_changed: Sequence[int] = ()  # hosts whose robots.txt says something else than it did; they are unswept now
    suspects: dict[int, list[str]] = field(default_factory=dict)  # host id → template of each URL set aside at once
    linked: Sequence[int] = ()  # host id of each URL that was a suspect for being linked from error pages only
    # URL id of a trial → what was new on it: URL id, host id, target
    trial_links: dict[int, list[tuple[int, int, str]]] = field(default_factory=dict)


class LearnedPage(NamedTuple):
    """A page that will be visited again. `priority` is a sitemap's; the last two are those of PageHistory."""

    url: str
    depth: int
    in_links: int
    priority: float | None
    change_a: float | None
    change_t: float | None


class UndatedPage(NamedTuple):
    """A URL whose visit ended and left no date for the next. `kind` None: a page; `state` is a word of UrlState; the
    rest is as in LearnedPage and PageHistory.
    """

    id: int
    url: str
    kind: str | None
    depth: int
    in_links: int
    priority: float | None
    change_a: float | None
    change_t: float | None
    gone_count: int
    last_at: float | None
    state: str


@dataclass(frozen=True, slots=True)
class RobotsVersion:
    """A robots.txt as it was from `fetched_at` on. `digest` is of verdict and body; `verdict` as in RobotsRecord, never
    "unreachable".
    """

    fetched_at: float
    status_code: int | None
    verdict: str
    digest: str
    body: bytes | None


@dataclass(frozen=True, slots=True)
class Forgotten:
    """What a takedown erased: how many URLs, their ids if they were named one by one, and the ids of the hosts they
    belong to. `queued` maps host id → how many of them were queued; `hosts` are the rows of hosts first seen by it.
    `again`: the target itself had been taken down before.
    """

    urls: int = 0
    queued: dict[int, int] = field(default_factory=dict)
    ids: tuple[int, ...] = ()
    host_ids: tuple[int, ...] = ()
    hosts: Sequence[HostRow] = ()
    again: bool = False


@dataclass(frozen=True, slots=True)
class EndedWith:
    """How last visits ended, to choose URLs by: in one of `errors` (error_type, deny_reason) and with one of
    `statuses`, as far as any are named, and of one of `host_ids` if those are. What was denied since it was answered
    did not end in its status.
    """

    errors: tuple[str, ...] = ()
    statuses: tuple[int, ...] = ()
    host_ids: tuple[int, ...] | None = None


@dataclass(frozen=True, slots=True)
class UrlRow:
    """A stored URL as rules judge it. `priority`, `depth` and `id` are its place in the order of its host; `reason` is
    the deny_reason or error_type of its last visit.
    """

    id: int
    url: str
    priority: int
    depth: int
    hop_path: str
    source: Source
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class BlockedHost:
    """A host or domain that may not be asked. `kind` is "host" (that name alone) or "domain" (and all below it)."""

    name: str
    kind: str
    at: float
    reason: str

    def beside(self, had: "BlockedHost | None") -> "BlockedHost":
        """What holds where this is asked for and `had` of the same name held: the wider of both, and the last reason
        that was given. A block never becomes narrower but by an unblock.
        """
        if had is None:
            return self
        return BlockedHost(
            self.name, max(had.kind, self.kind, key=("host", "domain").index), had.at, self.reason or had.reason
        )


@dataclass(frozen=True, slots=True)
class Totals:
    """URLs in the store by state, and hosts."""

    queued: int
    waiting: int
    done: int
    denied: int
    gave_up: int
    hosts: int
    forgotten: int = 0
    suspect: int = 0


class Frontier(Protocol):
    """All methods but `open` need an open frontier (RuntimeError). Times are UTC epoch seconds.

    Cancelling a call gives up its result only: what it was to store may be stored or not, but never in part. All but
    `open` and `close` raise FrontierFull while the disk is full or failing, and FrontierCorrupt.
    """

    async def open(self) -> Recovered:
        """Take ownership, apply migrations, recover. A new store counts as clean.

        Raises FrontierLocked, FrontierCorrupt, FrontierVersion or OSError.
        """

    async def add(self, discovered: Sequence[Discovered], *, now: float) -> Receipt:
        """Store URLs that no page led to: seeds. Known ones are left alone. `links_new` has a 1 or 0 for each URL."""

    async def settle(self, batch: Batch) -> Receipt:
        """Store a batch in one transaction.

        A URL that is not queued is promoted at `Settlement.next_at`, if it has one. Raises FrontierFull with nothing
        stored: it may be tried again. Raises another FrontierError if it cannot tell: then only a new start can. Raises
        ValueError, with nothing stored, for a batch that `Batch` does not allow or that names URLs, hosts or files
        unknown to the store.
        """

    async def take(self, host_id: int, limit: int, *, leased: Collection[int]) -> list[Task]:
        """Up to `limit` queued tasks of a host, by (priority, depth, age), none whose id is in `leased`."""

    async def promote(self, *, now: float, limit: int = 1_000) -> dict[int, int]:
        """Queue waiting URLs that are due at `now`, the longest due first: they go on with their attempts. Returns host
        id → how many.
        """

    async def hasten(self, *, since_at: float, now: float) -> None:
        """Make URLs due now that wait because a connection failed in an outage that began at `since_at`."""

    async def redate(self, *, now: float, revisits_by: float) -> None:
        """The clock was set back to `now`: a visit that is dated later was dated by a wrong clock. It counts as of now,
        and a waiting URL is due as long after it as before; so is a revisit that would be due after `revisits_by`.
        """

    async def next_due(self) -> float | None:
        """When the next waiting URL is due, None if none waits."""

    async def promote_revisits(self, *, now: float, limit: int) -> dict[int, int]:
        """The same for URLs whose visit had ended: a new one begins, and attempts start over."""

    async def next_revisit(self) -> float | None:
        """When the next URL is due whose visit had ended, None if none is to be visited again."""

    async def learned(self, *, blocks: int, rows: int, phase: float) -> list[LearnedPage]:
        """What is known of pages that were visited, those that are gone left out: all of them, or, where the store has
        more URLs than `blocks` · `rows`, `blocks` runs of `rows` neighbouring URLs, evenly spread; `phase`
        from 0 to 1 shifts where they begin.
        """

    async def dated_to(self) -> int | None:
        """Up to which URL (its id) all whose visit ended have a date for the next; None: all have."""

    async def undated(self, *, after: int, rows: int) -> tuple[list[UndatedPage], int | None]:
        """Those that have none among the `rows` URLs behind `after`, by id; and where to go on, None at the end."""

    async def put_dates(self, dates: Sequence[tuple[int, float]], *, dated_to: int | None) -> None:
        """Give URLs (their ids) a date, if they still have none, and remember up to where all have one."""

    async def keep(self, name: str, value: bytes) -> None:
        """Store something of the engine's own that is worth having after a restart, in place of the one before."""

    async def kept(self, name: str) -> bytes | None:
        """What was stored under this name."""

    async def record_sink_files(self, files: Sequence[SinkFile]) -> None:
        """Store the state of output files outside a settlement (a new file, a renamed one)."""

    async def lose(self, sink: str, name: str) -> dict[int, int]:
        """An output file is lost: LOST from now on. Queue again, with their attempts before them, the URLs whose last
        record, content or line in pages/ was in it, so that they are asked for unconditionally. What is denied stays
        so. Returns host id → how many. Made in slices: what a crash cuts short, the next `open` brings to its end.
        """

    async def output_agrees(self) -> None:
        """The output files are as this store says: it is no copy any more."""

    async def robots_versions(self, host_id: int) -> list[RobotsVersion]:
        """What a host's robots.txt said, newest first: the last ROBOTS_VERSIONS_KEPT times that it changed."""

    async def url_rows(self, host_id: int, state: UrlState, *, after: UrlRow | None, limit: int) -> list[UrlRow]:
        """A slice of a host's URLs that are QUEUED or DENIED, by (priority, depth, age), behind `after`."""

    async def queue_again(self, ids: Sequence[int]) -> dict[int, int]:
        """Queue denied URLs that the rules allow again; those that are not denied stay. Returns host id → how many."""

    async def blocks(self) -> list[BlockedHost]:
        """What an operator blocked, by name."""

    async def block(self, block: BlockedHost) -> bool:
        """Remember a block for good, beside what holds for its name (`BlockedHost.beside`). False if that changes
        nothing.
        """

    async def unblock(self, name: str) -> bool:
        """Forget a block. False if there was none of that name."""

    async def robots_body(self, host_id: int) -> bytes | None:
        """The text of a host's robots.txt, which no HostRow carries. A settled RobotsRecord with verdict "rules" and no
        body leaves it as it is.
        """

    async def deny(self, host_id: int, denied: Sequence[tuple[int, Denied]], *, now: float) -> int:
        """Deny URLs of a host, by id; those that are not queued any more stay. Returns how many were."""

    async def judge_by(self, rules: str) -> list[int]:
        """Remember the fingerprint of the rules by which URLs are judged from now on. If they were others before, or
        are not known, every host is unswept: returns the ids of all.
        """

    async def sweep_mark(self, host_id: int) -> int:
        """What to give `swept` once the URLs of a host were judged, asked before the first of them is; 0: it is no
        host that is unswept.
        """

    async def swept(self, host_id: int, mark: int) -> None:
        """All URLs of the host were judged by the rules that held when `sweep_mark` said `mark`. If it was made unswept
        again since, it stays so.
        """

    async def set_aside(self, host_id: int, suspects: Sequence[tuple[int, str]]) -> list[int]:
        """Make queued URLs of a host, by id, suspects of a template each. Returns those that were still queued."""

    async def queue_suspects(self, host_id: int, template: str, limit: int) -> list[int]:
        """Queue up to `limit` suspects of a template, those found first. Returns their ids."""

    async def templates_of_host(self, host_id: int) -> HostTemplates:
        """What is known of a host's URL templates; its `suspects` without examples."""

    async def suspects(self, *, limit: int = 1_000) -> list[Suspects]:
        """What is set aside, the largest numbers first, with examples."""

    async def totals(self) -> Totals:
        """Counts by state, maintained with each commit: cheap."""

    async def find_host(self, origin: Origin) -> HostRow | None:
        """The row of an origin, if it is known."""

    async def requeue(self, ending: EndedWith, *, dry_run: bool = False) -> dict[int, int]:
        """Queue, with their attempts before them, URLs that last ended so and are not queued already. Returns host id →
        how many; `dry_run`: how many it would be. Made in slices: after a crash some may be queued and others not.
        """

    async def forget_url(self, url: str, *, now: float) -> Forgotten:
        """Erase a URL (as `parse` returns it), known or not: it is never stored again, as whatever kind.

        A visit of it that is settled afterwards leaves only the place of its record, which is to be removed.
        """

    async def forget_host(self, host: str, *, now: float) -> Forgotten:
        """The same for every URL of a host, whatever its scheme and port. Closed from the first transaction on."""

    async def forgotten(self, found: Sequence[Discovered]) -> list[Discovered]:
        """Those of `found` that were taken down, by themselves or with their host."""

    async def close(self, *, clean: bool) -> None:
        """Give up ownership. `clean` says that nothing was in flight. Closing what is not open does nothing."""
