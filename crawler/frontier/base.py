"""The `Frontier` protocol and its values. The contract suite in tests/contract holds for every implementation.

A frontier stores hosts, URLs and visits, and when URLs are due. The time is passed in, and the scheduler decides which
host has the next request. Leases are not stored: after a crash, URLs that were not settled are still queued.

Invariant: `settle` is one transaction. After a crash a page, the URLs found on it, the lengths of the output files and
the counters of its host are all stored, or none of them is.

A URL is known for ever by (origin, key). If it is found again, its row does not change, even if the new path to it is
shorter. Otherwise queued URLs would have to move within the order, for a link that was found only a few pages later.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple, Protocol

from crawler.core.enums import Source, UrlState
from crawler.core.models import (
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
    Settlement,
    SinkFile,
    SlowResponse,
    Suspects,
    Task,
    TemplateRow,
)
from crawler.core.ownership import AgentSeen

ROBOTS_VERSIONS_KEPT: Final = 20  # of each host; 500 KB each at most, mostly a few KB


class FrontierError(Exception):
    """An operation on the store failed. The message is for people."""


class FrontierCorrupt(FrontierError):
    """The store is damaged, or no store of this program (exit 65)."""


class FrontierVersion(FrontierError):
    """The store was written by a newer version (exit 65)."""


class FrontierLocked(FrontierError):
    """Another process owns the store (exit 75)."""


class FrontierFull(FrontierError):
    """The disk is full or failing, or the database is out of reach. Nothing of the transaction was stored; it may be
    tried again.
    """


class FrontierMismatch(FrontierError):
    """Other agents of the crawl have other rules, or another lease (exit 78)."""


class FrontierUnreachable(FrontierError):
    """The database cannot be opened: no server, no such database, a wrong password (exit 74)."""


@dataclass(frozen=True, slots=True)
class Recovered:
    """The contents of a store when it was opened."""

    clean: bool  # False if the last owner did not close the store: every politeness key then waits for its delay
    sink_files: tuple[SinkFile, ...]  # closed ones too
    counters: Counters
    scope_hosts: tuple[str, ...]  # what redirects of seeds added to the scope (`Scope.added`)
    schedule_at: float = 0.0  # the latest schedule time that the store knows
    now_at: float | None = None  # the time of its own clock, by which agents that share it go (UTC); None: it has none
    hosts: int = 0
    backoffs: int = 0  # politeness keys that back off
    last_visit_at: float | None = None  # end of the last stored visit (UTC); None: there was none
    last_round: Round | None = None  # None: there was none
    is_restored: bool = False  # from a backup: output files may have grown since, until `clear_restored`


@dataclass(frozen=True, slots=True)
class Batch:
    """The data that one transaction stores.

    A batch settles a task at most once. A task without a row (`task.id` 0: robots.txt) changes only its host; URLs
    that it discovers have no `via` and count for the first such settlement. Files of `written` and `lines` are in
    `sink_files` or known to the store.
    """

    settlements: Sequence[Settlement]
    written: Sequence[RecordLocation | None]  # of the record of each settlement; None: there is none
    sink_files: Sequence[SinkFile] = ()
    backoffs: Sequence[Backoff] = ()  # `until_at` 0: it is over
    counters: Counters | None = None
    scope_hosts: Sequence[str] = ()
    # A revisit that is due later becomes due so many seconds after the last visit, if a sitemap has a change since that
    # visit (`SitemapHint.lastmod`). None: hints do not change due times.
    hint_after_s: float | None = None
    slow_responses: Sequence[SlowResponse] = ()  # `response_s` 0: the key is not slow any more
    readiness: Sequence[HostReadiness] = ()  # of hosts whose back-off changed
    requested: Sequence[tuple[int, float]] = ()  # ids of politeness keys, and the end of their last request
    schedule_at: float = 0.0  # now, in schedule time, as are the ends of requests
    templates: Sequence[TemplateRow] = ()  # without `pages`: the notes of settlements add up to them
    lines: Sequence[RecordLocation | None] = ()  # of the line in pages/ of each settlement; empty: there are none
    error_pages: Sequence[tuple[int, bytes]] = ()  # host id and the engine's record of its soft 404s
    round_counts: RoundCounts | None = None  # of the round under way, with these settlements


@dataclass(frozen=True, slots=True)
class Receipt:
    """The changes of a transaction."""

    links_new: Sequence[int]  # new URLs of each settlement; a URL of several settlements counts for the first
    queued: dict[int, int] = field(default_factory=dict)  # host id → new URLs that are queued
    hosts: Sequence[HostRow] = ()  # new hosts; their `queued` includes these URLs
    robots_changed: Sequence[int] = ()  # ids of hosts with a changed robots.txt
    to_reevaluate: Sequence[int] = ()  # ids of these, and of marked hosts whose robots.txt can be read now
    suspects: dict[int, list[str]] = field(default_factory=dict)  # host id → template of each new suspect
    linked: Sequence[int] = ()  # host id of each URL that is no suspect any more: not only error pages link to it
    # id of a suspect → new URLs found on it: their ids, host ids and request targets
    trial_links: dict[int, list[tuple[int, int, str]]] = field(default_factory=dict)


class HostCount(NamedTuple):
    """How many URLs of a host are queued, after a change, and the id of its politeness key."""

    queued: int
    key_id: int


class HostsBelow(NamedTuple):
    """The hosts below a name: their ids, ascending, and the number of their names."""

    ids: Sequence[int]
    names: int


@dataclass(frozen=True, slots=True)
class HostSearch:
    """The hosts whose name has `text` in it, or whose origin has a `text` with a colon, that are in one of `states` at
    `at` (schedule time; values of HostState), and not in `without`: the first `limit` by `order` (broken, queued,
    fetched or host).
    """

    text: str
    states: Collection[str]
    order: str
    limit: int
    at: float
    without: Collection[int] = ()


class FoundHosts(NamedTuple):
    """A slice of a search: its first hosts in no order, the number of all that match, and the next `after`, None at the
    end.
    """

    rows: Sequence[HostRow]
    matching: int
    after: int | None


@dataclass(frozen=True, slots=True)
class Leaving:
    """Hosts and politeness keys that leave memory, or whose state is to be stored. Times are in schedule time."""

    hosts: Sequence[HostReadiness] = ()
    keys: Sequence[tuple[int, float | None, float]] = ()  # id, end of its last request (None: as stored), when it opens
    backoffs: Sequence[Backoff] = ()  # as in Batch
    slow_responses: Sequence[SlowResponse] = ()  # as in Batch


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is to enter memory: politeness keys that have work by `ready_by` (schedule time), the longest ready first,
    each with up to `hosts` of its hosts, until `places` hosts entered or a few more; the keys named `names`, whether
    they have work or not, and those of the hosts `host_ids`, with these; of keys in memory (`more`: id → ids of its
    hosts in memory) up to `hosts` others.
    """

    ready_by: float = 0.0
    places: int = 0
    hosts: int = 1
    names: Sequence[str] = ()
    host_ids: Sequence[int] = ()
    more: Mapping[int, Collection[int]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Entered:
    """What enters memory. A key of `keys` was not active. `more`: id of an active key → its hosts, and when another one
    has work, as `KeyRow.more_at`. `hosts` are those of `Wanted.host_ids`.
    """

    keys: Sequence[KeyRow]
    more: Mapping[int, tuple[Sequence[HostRow], float | None]]
    hosts: Sequence[HostRow]
    next_at: float | None  # when the next key that is not active has work (schedule time); None: none has any


class VisitedPage(NamedTuple):
    """A page that will be visited again, with the fields of PageHistory that decide when."""

    url: str
    depth: int
    in_links: int
    priority: float | None  # of a sitemap
    change_a: float | None
    change_t: float | None


class UndatedPage(NamedTuple):
    """A URL whose visit ended without a date for the next; fields as in VisitedPage and PageHistory."""

    id: int
    url: str
    kind: str | None  # None: a page
    depth: int
    in_links: int
    priority: float | None
    change_a: float | None
    change_t: float | None
    gone_count: int
    last_at: float | None
    state: str  # a value of UrlState


@dataclass(frozen=True, slots=True)
class RobotsVersion:
    """A version of a robots.txt, first fetched at `fetched_at`."""

    fetched_at: float
    status_code: int | None
    verdict: str  # as in RobotsRecord, but never "unreachable"
    digest: str  # of verdict and body
    body: bytes | None


@dataclass(frozen=True, slots=True)
class Forgotten:
    """The result of a takedown."""

    urls: int = 0
    queued: dict[int, int] = field(default_factory=dict)  # host id → erased URLs that were queued
    ids: tuple[int, ...] = ()  # of the URLs, if a URL was named
    host_ids: tuple[int, ...] = ()
    hosts: Sequence[HostRow] = ()  # hosts that were unknown before
    again: bool = False  # the target had been taken down before


@dataclass(frozen=True, slots=True)
class UrlSelection:
    """A selection of URLs that were visited, by their last visit. Empty and None select all.

    A URL that was denied after a response does not count as ended with its status.
    """

    states: tuple[UrlState, ...] = ()
    errors: tuple[str, ...] = ()  # error_type, deny_reason
    statuses: tuple[int, ...] = ()
    host_ids: tuple[int, ...] | None = None
    not_visited: tuple[float, float] | None = None  # from the first to the second time (UTC)


class UrlPlace(NamedTuple):
    """A URL and its host, by their ids."""

    id: int
    host_id: int


@dataclass(frozen=True, slots=True)
class UrlRow:
    """A stored URL with the fields that rules judge. URLs are in order of `host_id`, `priority`, `depth`, `id`."""

    id: int
    host_id: int
    url: str
    priority: int
    depth: int
    hop_path: str
    source: Source
    reason: str | None = None  # deny_reason or error_type of its last visit


@dataclass(frozen=True, slots=True)
class Sweep:
    """How far the re-evaluation of all hosts came, by the order of their ids."""

    generation: int  # of the rules that are applied
    after: int  # the last host that was re-evaluated
    last: int  # the last host that was known when the rules changed


@dataclass(frozen=True, slots=True)
class BlockedHost:
    """A host or domain that an operator blocked."""

    name: str
    kind: str  # "host": only this name; "domain": all names below it as well
    at: float
    reason: str

    def joined_with(self, had: "BlockedHost | None") -> "BlockedHost":
        """This block and an earlier one of the same name: the wider kind and the last given reason count. Only an
        unblock makes a block narrower.
        """
        if had is None:
            return self
        return BlockedHost(
            self.name, max(had.kind, self.kind, key=("host", "domain").index), had.at, self.reason or had.reason
        )


@dataclass(frozen=True, slots=True)
class Totals:
    """Numbers of URLs by state, and of hosts."""

    queued: int
    waiting: int
    done: int
    denied: int
    gave_up: int
    hosts: int
    forgotten: int = 0
    suspect: int = 0
    hosts_with_work: int = 0  # with URLs that are queued or suspects


class Look(NamedTuple):
    """How the agents of a crawl stand."""

    agents: Sequence[AgentSeen]
    free: Sequence[int]  # slots without an owner
    inbox: int  # rows of URLs that their owners have not taken yet
    inbox_urls: int


class Agents(Protocol):
    """What one agent does among others that share its store (`core/ownership.py`). What reads or changes slots, the
    inbox and totals goes through the store, after what was begun before; the lease, looks and commands do not wait for
    that. All raise FrontierFull if the store cannot be reached.
    """

    name: str
    lease_s: float

    async def renew(self, status: str | None = None) -> None:
        """Renew the lease. `status`: JSON for `crawler fleet`. Raises FrontierLocked if others took its slots over."""

    async def look(self) -> Look:
        """Read which agents there are, which slots are free, and how much is on its way between agents."""

    async def close(self) -> None:
        """Close the connection for what does not go through the store."""

    @property
    def own(self) -> Sequence[int]:
        """The slots from which work is read."""

    @property
    def owns_all(self) -> bool:
        """Whether no other agent owns a slot."""

    async def count(self) -> None:
        """Read what other agents have counted, for `totals`, and what they took down."""

    async def scope_hosts(self) -> list[str]:
        """What redirects of seeds added to the scope, at whichever agent (`Scope.added`)."""

    async def disown(self, agent: AgentSeen) -> bool:
        """Take the slots of an agent away that is gone. False: it renewed its lease meanwhile."""

    async def take(self, slots: Collection[int]) -> list[int]:
        """Own those of these slots that are free. Returns those that another agent owned last: their keys must rest."""

    def stop_reading(self, slots: Collection[int]) -> None:
        """Read no more work from own slots. What is in memory of them is still stored."""

    async def give_back(self, slots: Collection[int]) -> None:
        """Own slots no more. Nothing of them is in memory."""

    async def empty_inbox(self, *, now: float, hint_after_s: float | None) -> Receipt | None:
        """Store URLs that other agents found; None: there are none. `links_new` is one number."""

    @property
    def transactions(self) -> int:
        """The number of transactions of this agent so far."""

    async def rest(self, transactions: int) -> bool:
        """Store that nothing was left to do here after so many transactions, unless there were others since. Returns
        whether that holds for all agents: the crawl is over.
        """

    async def stored_robots(self, origin: Origin) -> RobotsRecord | None:
        """The robots.txt of a host of another agent, with its text; None if it is not known."""

    def owns_host(self, name: str) -> bool:
        """Whether a host of this name belongs to this agent."""

    async def commands(self) -> list[tuple[int, str, dict[str, Any]]]:
        """What operators told this agent and it has not answered: number, name and arguments of commands."""

    async def behind(self, number: int) -> set[int]:
        """The own slots for which this command was not carried out yet."""

    async def answer(self, number: int, result: Mapping[str, object], slots: Collection[int]) -> None:
        """Answer a command, which was carried out for these slots."""

    async def ask(
        self, name: str, arguments: Mapping[str, object], *, agent: str | None = None
    ) -> dict[str, dict[str, Any]]:
        """Have a command carried out by one agent, or by all that live. Returns their answers. Raises FrontierFull."""

    @property
    def began_after(self) -> int:
        """The number of the last command before others could see that this agent lives, 0 if there was none."""

    async def last_of(self, names: Sequence[str], bottleneck: str) -> str | None:
        """Which of these commands was sent last, if an agent that lives is held up by this."""

    @property
    def allotted(self) -> int:
        """The number of first attempts that this agent may make in all, by what is stored."""

    async def put_rules(self, rules: str) -> None:
        """Store the fingerprint of rules that are in force from now on."""

    async def allot(self, limit: int, wanted: int) -> int:
        """Have up to `wanted` more first attempts of the `limit` that all agents share, if so many are left. Returns
        how many this agent may make in all.
        """


class RowQueries(Protocol):
    """What a store tells about hosts and URLs, in slices: operators' verbs and reports are written once over it, and
    over the changes that `Frontier` makes.
    """

    async def hosts_named(self, host: str) -> list[HostRow]:
        """The origins of a host name, one for each scheme and port."""

    async def hosts_below(self, name: str) -> HostsBelow:
        """The hosts whose name ends with a dot and `name`. The store looks through all names, in slices."""

    async def search_hosts(self, search: HostSearch, *, after: int) -> FoundHosts:
        """Search the next slice of the hosts with an id above `after`. A block that is not stored with a host does not
        count for its state, and neither does a back-off of its politeness key.
        """

    async def host_rows(self, *, after: int, limit: int, with_work: bool = False) -> list[HostRow]:
        """Up to `limit` hosts with an id above `after`, in the order of their ids: all, or those that have work."""

    async def host_rows_of(self, host_ids: Collection[int]) -> list[HostRow]:
        """The hosts with these ids, as far as they are known."""

    async def parked(self) -> dict[str, tuple[int, int]]:
        """Numbers of parked hosts that have work, and of their queued URLs, by reason."""

    async def url_rows(
        self, first: int, last: int, state: UrlState, *, after: UrlRow | None, limit: int
    ) -> list[UrlRow]:
        """Up to `limit` URLs in state QUEUED or DENIED of the hosts with ids from `first` to `last`, by (host,
        priority, depth, age), from after `after` on.
        """

    async def settled_urls(
        self, selection: UrlSelection, *, after: int | None = None, host_id: int | None = None
    ) -> tuple[list[UrlPlace], int | None]:
        """A slice of the selected URLs that are not queued: of all, or of one host whose others are not read. Returns
        also the `after` of the next slice, None at the end. Without `host_id` it is the id up to which URLs were read.
        """

    async def known_ids(self, found: Sequence[Discovered]) -> list[int]:
        """Ids of those of `found` that are known and not forgotten."""

    async def forgotten(self, found: Sequence[Discovered]) -> list[Discovered]:
        """Those of `found` that were taken down, by themselves or with their host."""

    async def suspects(self, *, limit: int = 1_000) -> list[Suspects]:
        """Suspects by template, the largest numbers first, with examples."""

    async def templates_of_host(self, host_id: int) -> HostTemplates:
        """The URL templates of a host; its `suspects` have no examples."""

    async def blocks(self) -> list[BlockedHost]:
        """All blocks, by name."""

    async def robots_body(self, host_id: int) -> bytes | None:
        """The text of a host's robots.txt, which no HostRow has. To settle a RobotsRecord with verdict "rules" and
        without body does not change the text.
        """

    async def robots_versions(self, host_id: int) -> list[RobotsVersion]:
        """The last ROBOTS_VERSIONS_KEPT versions of a host's robots.txt, newest first."""

    def totals(self) -> Totals:
        """Numbers of URLs by state, as of the last transaction, also after `close`. It does not wait."""


class Frontier(RowQueries, Protocol):
    """A store of hosts, URLs and visits. Times are UTC epoch seconds.

    All methods but `open` and `totals` need an open frontier (RuntimeError). All but these and `close` raise
    FrontierFull while the disk is full or failing, and FrontierCorrupt. If a call is cancelled, it has stored all of
    its data or nothing.
    """

    @property
    def agents(self) -> Agents | None:
        """What it takes to share the store with other agents; None if that is not possible."""

    async def open(self) -> Recovered:
        """Take ownership, apply migrations and recover. A new store counts as clean.

        Raises FrontierLocked, FrontierCorrupt, FrontierVersion or OSError.
        """

    async def add(self, discovered: Sequence[Discovered], *, now: float) -> Receipt:
        """Store URLs that were not found on a page, such as seeds. Known ones do not change. `links_new`: 1 if new."""

    async def settle(self, batch: Batch) -> Receipt:
        """Store a batch in one transaction. URLs with a `Settlement.next_at` are due then.

        Raises FrontierFull if nothing was stored: the call may be repeated. Raises another FrontierError if it is
        unknown what was stored: only a restart helps. Raises ValueError, with nothing stored, for a batch that `Batch`
        does not allow, or that has URLs, hosts or files that the store does not know.
        """

    def take_counts(self) -> dict[int, HostCount]:
        """Host id → its count, for each host whose count changed since the last call. It does not wait."""

    async def exchange(self, leaving: Leaving, wanted: Wanted) -> Entered:
        """Read what is to enter memory, and store the state of what leaves it, in one transaction: nothing does both.

        A key is active from when it enters until it leaves, or until the next `open`. Only keys that are not active
        enter by `Wanted.keys`. When a key leaves, it has work from when it opens on, if one of its hosts has work then.
        """

    async def unpark(self, parked: str, *, at: float, host_ids: Collection[int] | None = None) -> int:
        """Make hosts that are parked for this reason ready at `at` (schedule time): all of them, or those of
        `host_ids`. It runs in slices. Returns their number.
        """

    async def take(self, host_id: int, limit: int, *, leased: Collection[int]) -> list[Task]:
        """Up to `limit` queued tasks of a host, by (priority, depth, age), without those whose id is in `leased`."""

    async def promote(self, *, now: float, limit: int = 1_000, revisits: bool = False) -> dict[int, int]:
        """Queue waiting URLs that are due at `now`, in the order of their due times; their attempts continue to count.
        Or those that are due for a revisit, whose attempts start over. Returns host id → number of URLs.
        """

    async def retry_now(self, *, since_at: float, now: float) -> None:
        """Make URLs due now that wait after a connection error, and failed in an outage since `since_at`."""

    async def clock_set_back(self, *, now: float, revisits_by: float) -> None:
        """Correct dates in the future, after the clock was set back to `now`. Such a visit is dated `now`. A waiting
        URL is due as long after its visit as before. So is a revisit that would be due after `revisits_by`.
        """

    async def next_due(self, *, revisits: bool = False) -> float | None:
        """When the next waiting URL, or the next revisit, is due; None if there is none."""

    async def visited_pages(self, *, blocks: int, rows: int, phase: float) -> list[VisitedPage]:
        """Visited pages that are not gone: all, or a sample of a store with more than `blocks` · `rows` URLs. A sample
        has `blocks` evenly spread runs of `rows` neighbouring URLs; `phase`, from 0 to 1, shifts where they begin.
        """

    async def dated_to(self) -> int | None:
        """The id of a URL up to which each visited URL has a date for its next visit; None: all have one."""

    async def undated(self, *, after: int, rows: int) -> tuple[list[UndatedPage], int | None]:
        """The URLs without a date among the `rows` ids after `after`, and the next `after`, None at the end."""

    async def put_dates(self, dates: Sequence[tuple[int, float]], *, dated_to: int | None) -> None:
        """Store dates for URLs (by id) that still have none, and the value for `dated_to`."""

    async def store_value(self, name: str, value: bytes) -> None:
        """Store a value of the engine, which replaces the last one of that name."""

    async def stored_value(self, name: str) -> bytes | None:
        """The value of that name; None if there is none."""

    async def record_sink_files(self, files: Sequence[SinkFile]) -> None:
        """Store the states of new or renamed output files, outside a settlement."""

    async def lose_file(self, sink: str, name: str) -> dict[int, int]:
        """Mark an output file as LOST, and queue again the URLs whose last record, content or line in pages/ was in it.

        Their attempts begin at 1 again, and their requests have no conditions. Denied URLs stay denied. Returns host id
        → number of URLs. It runs in slices; after a crash the next `open` finishes it.
        """

    async def clear_restored(self) -> None:
        """Clear the restored-from-backup flag: the output files now agree with the store."""

    async def queue_urls(self, ids: Sequence[int], *, states: Collection[UrlState] = ()) -> dict[int, int]:
        """Queue those of these URLs that are in one of `states`, or in any but QUEUED and FORGOTTEN. Their attempts
        start over. Returns host id → number of URLs.
        """

    async def block(self, block: BlockedHost) -> bool:
        """Store a block, joined with an earlier one of its name. Returns whether that changes anything."""

    async def unblock(self, name: str) -> bool:
        """Remove a block. Returns whether there was one."""

    async def deny(self, host_id: int, denied: Sequence[tuple[int, Denied]], *, now: float) -> int:
        """Deny those URLs of a host, by id, that are still queued. Returns their number."""

    async def judge_by(self, rules: str) -> Sweep | None:
        """Store the fingerprint of the rules by which URLs are judged from now on. If it changed and there are hosts, a
        sweep over all of them begins, and is returned.
        """

    async def sweep(self) -> Sweep | None:
        """How far the sweep over all hosts came; None: there is none."""

    async def swept(self, sweep: Sweep, *, marked: Collection[int] = ()) -> None:
        """Record how far the sweep came; at its last host it is over. Hosts of `marked` must still be re-evaluated. If
        another sweep began meanwhile, only the marks are stored.
        """

    async def marked_hosts(self, *, after: int, limit: int) -> list[int]:
        """Ids of hosts that must be re-evaluated by themselves, in an order of the store's own, after `after` (0: from
        the first on).
        """

    async def reevaluation_mark(self, host_id: int) -> int:
        """The mark to pass to `reevaluated`, read before the first URL is judged; 0: the host is not marked."""

    async def reevaluated(self, host_id: int, mark: int) -> None:
        """Record that all URLs of the host were judged by the rules that were valid when the mark was read. If the
        rules have changed since then, the host must still be re-evaluated.
        """

    async def make_suspects(self, host_id: int, suspects: Sequence[tuple[int, str]]) -> list[int]:
        """Make URLs of a host, by id, suspects of a template each, if they are still queued. Returns their ids."""

    async def queue_suspects(self, host_id: int, template: str, limit: int) -> list[int]:
        """Queue up to `limit` suspects of a template, those found first. Returns their ids."""

    async def put_round(self, one: Round) -> None:
        """Store a round, but for its counts: they come with `settle`, and another round begins with none."""

    async def last_url_id(self) -> int:
        """The id of the URL that was stored last; 0 if there is none. Ids ascend."""

    async def forget_url(self, url: str, *, now: float) -> Forgotten:
        """Erase a URL (as `parse` returns it), known or not. It is never stored again, whatever its kind.

        If a visit of it is settled later, only the location of its record is stored, for its removal.
        """

    async def forget_host(self, host: str, *, now: float) -> Forgotten:
        """Erase all URLs of a host, whatever their scheme and port. No URL of it is stored from the first transaction
        on.
        """

    async def close(self, *, clean: bool) -> None:
        """Give up ownership. `clean`: nothing was in flight. Closing a closed frontier does nothing."""
