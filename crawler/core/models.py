"""Frozen values that pass between the packages.

Terms are those of RFC 3986, 6454, 9110, 9309 and WARC 1.1. Times end in `_at` (UTC, seconds since 1970), `_mono`
(monotonic seconds) or `_s` (a duration in seconds).
"""

from dataclasses import dataclass as standard_dataclass
from dataclasses import field
from typing import TYPE_CHECKING, Final, NamedTuple

from crawler.core.body import Body
from crawler.core.enums import (
    CodingFault,
    DenyReason,
    ErrorType,
    ReadingFault,
    SinkFileState,
    Source,
    TaskKind,
    TruncatedReason,
    UrlState,
)

if TYPE_CHECKING:
    from dataclasses import dataclass as dataclass
else:

    def dataclass(*, frozen, slots):
        """The standard decorator with `frozen=True, slots=True`, except that only the type checker refuses assignments.

        A dataclass that is frozen at run time sets each field through `object.__setattr__`: to make one with eight
        fields takes 2.3 µs instead of 0.4 µs, and a dozen are made for each page.
        """
        assert frozen
        return standard_dataclass(slots=slots, unsafe_hash=True)


class Origin(NamedTuple):
    """Scheme, host and port (RFC 6454 §4). A NamedTuple, not a dataclass: it is a dictionary key on the hot path."""

    scheme: str
    host: str  # as the URL standard serialises it: IDNA-encoded, lower case, IPv6 literals in brackets
    port: int

    def __str__(self) -> str:
        default = 443 if self.scheme == "https" else 80
        return f"{self.scheme}://{self.host}" + ("" if self.port == default else f":{self.port}")


@dataclass(frozen=True, slots=True)
class SitemapHint:
    """Priority and date of a URL in a sitemap."""

    priority: float | None = None  # 0 to 1
    lastmod: float | None = None  # UTC epoch seconds


@dataclass(frozen=True, slots=True)
class PageHistory:
    """Results of the visits of a URL so far, from which `core.revisit` decides when to visit it again."""

    changed_at: float | None = None
    change_a: float | None = None  # number of changes seen; `change_a` and `change_t` give the change rate
    change_t: float | None = None  # seconds observed
    gone_count: int = 0  # responses 404 and 410 in succession
    in_links: int = 0  # estimated number of links to it


@dataclass(frozen=True, slots=True)
class Discovered:
    """A URL to store: parsed, with its key, and in scope."""

    url: str  # as it will be fetched
    origin: Origin
    key: int  # 64-bit signed hash of the canonical form, unique within the origin: `core.url.kind_key_of`
    depth: int  # links from a seed
    hop_path: str  # a letter for each hop: L link, R redirect, E requisite
    source: Source
    priority: int = 0  # the smallest is fetched first
    redirects: int = 0
    kind: TaskKind = TaskKind.PAGE
    hint: SitemapHint | None = None  # stored for a known URL as well
    # The URL that the first version of the key rules made of the same link, if another: a takedown may have its key.
    legacy_url: str | None = None


@dataclass(frozen=True, slots=True)
class Task:
    """One URL to visit."""

    id: int  # its row in the frontier; 0 for a robots.txt, which has none
    url: str
    kind: TaskKind = TaskKind.PAGE
    via: str | None = None
    depth: int = 0
    hop_path: str = ""
    source: Source = Source.SEED
    priority: int = 0
    redirects: int = 0
    attempt: int = 1
    etag: str | None = None
    last_modified: str | None = None
    visits: int = (
        0  # ended visits; above 0 this is a revisit, `attempt` begins at 1 again, and the fields below are set
    )
    visited_at: float | None = None
    digest: str | None = None  # of the payload, as in the WARC
    history: PageHistory | None = None
    hint: SitemapHint | None = None

    @property
    def is_revisit(self) -> bool:
        return self.visits > 0

    @property
    def is_first(self) -> bool:
        """Whether this is the first attempt of a page: limits on URLs count those."""
        return self.attempt == 1 and self.visits == 0 and self.kind is TaskKind.PAGE


@dataclass(frozen=True, slots=True)
class Lease:
    """Tasks of one origin, handed to one worker."""

    id: int
    origin: Origin
    host_id: int  # the host that the tasks are for; not that of `origin` if its robots.txt redirects to another
    tasks: tuple[Task, ...]
    leased_mono: float = 0.0
    waited_s: float = 0.0  # for politeness


@dataclass(frozen=True, slots=True)
class Head:
    """Status line and fields of a response. Names are lower case, values latin-1 text without outer white space."""

    status_code: int
    reason: str
    http_version: str  # "1.1"
    fields: tuple[tuple[str, str], ...]

    def get(self, name: str) -> str | None:
        """The first value of a field, by its lower-case name."""
        for key, value in self.fields:
            if key == name:
                return value
        return None

    @property
    def content_type(self) -> str | None:
        """The values of all Content-Type fields, as `core.media_types` reads them; None if there is none."""
        values = self.get_all("content-type")
        return values[0] if len(values) == 1 else ", ".join(values) or None

    def get_all(self, name: str) -> list[str]:
        return [value for key, value in self.fields if key == name]


@dataclass(frozen=True, slots=True)
class Timings:
    """Seconds spent in each phase; the first three are 0 on a connection that was already open."""

    resolve_s: float = 0.0
    connect_s: float = 0.0
    tls_s: float = 0.0
    first_byte_s: float = 0.0  # from the last byte of the request to the first of the response
    body_s: float = 0.0  # from the first byte to the last


@dataclass(frozen=True, slots=True)
class ConnectionInfo:
    """The connection that a response came from, as the log shows it."""

    id: int
    request_n: int  # 1 for the first request on this connection
    peer_address: str
    tls_version: str | None = None  # "1.3"
    tls_resumed: bool = False


@dataclass(frozen=True, slots=True)
class Fetched:
    """A response with a complete head."""

    head: Head
    request_bytes: bytes
    raw_head: bytes
    raw_body: Body  # as received, with the transfer coding
    payload: Body  # without the transfer coding, with the content coding; `raw_body` if there is no transfer coding
    timings: Timings
    connection: ConnectionInfo
    started_at: float  # when the request was sent
    resend_count: int = 0
    tainted: bool = False  # its framing was accepted leniently
    truncated: TruncatedReason | None = None  # the body is shorter than its framing promised
    error_type: ErrorType | None = None  # the error that made it truncated or unusable
    session_began: bool = False  # a redirect that set a cookie, so that the same request would now differ


@dataclass(frozen=True, slots=True)
class Failed:
    """An attempt without a usable response."""

    error_type: ErrorType
    detail: str  # for people
    retryable: bool
    timings: Timings = Timings()
    connection: ConnectionInfo | None = None  # None if none was open
    started_at: float = 0.0  # when the request was sent; only with a connection
    resend_count: int = 0


FetchResult = Fetched | Failed


@dataclass(frozen=True, slots=True)
class NotModified:
    """A 304 to a conditional request."""

    fetched: Fetched


@dataclass(frozen=True, slots=True)
class Redirected:
    """A 3xx with a usable Location."""

    fetched: Fetched
    target: str  # absolute; stored as a discovered URL


@dataclass(frozen=True, slots=True)
class Denied:
    """A URL that is not requested."""

    reason: DenyReason
    rule: str  # the rule that decided, for people: 'scope.max_depth = 3'


Outcome = Fetched | Failed | NotModified | Redirected | Denied


@dataclass(frozen=True, slots=True)
class PageInfo:
    """Facts from the content of a page, for pages/."""

    canonical: str | None = None
    content_type: str | None = None
    charset: str | None = None
    title: str | None = None
    language: str | None = None
    links_count: int = 0
    content_size: int = 0  # bytes with every coding removed
    coding_fault: CodingFault | None = None
    reading_fault: ReadingFault | None = None
    tags: tuple[str, ...] = ()  # of the seed in whose place it is


@dataclass(frozen=True, slots=True)
class Record:
    """The record that the sinks write for one settled visit."""

    task: Task
    fetched: Fetched
    payload_digest: str  # "sha256:<base32>"
    page: PageInfo | None = None  # of a 2xx page, which also gets a line in pages/


@dataclass(frozen=True, slots=True)
class RobotsRecord:
    """The robots.txt of an origin: verdict, text and dates."""

    # "rules": parse the body. "allow": 4xx, everything is allowed. "unreachable": 5xx, timeout …, nothing may be
    # fetched (RFC 9309 §2.3.1.4).
    verdict: str
    status_code: int | None
    body: bytes | None  # raw; only with "rules"
    fetched_at: float
    expires_at: float
    crawl_delay_s: float | None = None
    failing_since: float | None = None
    error: str | None = None  # of the last attempt to read it, if there was no status


@dataclass(frozen=True, slots=True)
class TemplateRow:
    """A URL template of a host (`core.url_templates`) as the store knows it."""

    host_id: int
    template: str
    pages: int = 0  # settled HTML pages, for traps.max_pages_per_template
    spent: int = 0  # suspects that were fetched and led to more pages like them (`engine.pages.traps`)
    good: int = 0  # suspects that were fetched and had something new
    since_at: float | None = None  # when it was first suspected
    released_at: float | None = None  # when an operator released it for good


@dataclass(frozen=True, slots=True)
class PageNote:
    """The part of a settled HTML page in the verdict on its templates."""

    words: bytes | None = None  # its sketch, if it is sampled (`core.url_templates.sketch`)
    counted: tuple[str, ...] = ()  # templates whose `pages` it adds to
    trial: str | None = None  # the template that it was a suspect of
    is_good: bool = False  # a trial that had something new
    is_error_page: bool = False  # with a good status: URLs first found on it are suspects at once


class SampledPage(NamedTuple):
    """A sampled page as stored: request target and sketch."""

    target: str
    words: bytes


@dataclass(frozen=True, slots=True)
class Suspects:
    """The suspects of one template: URLs that are fetched last, if at all."""

    host_id: int
    template: str
    urls: int
    examples: tuple[str, ...] = ()  # two at most


@dataclass(frozen=True, slots=True)
class HostTemplates:
    """The templates of a host as the store knows them."""

    pages: tuple[SampledPage, ...] = ()
    rows: tuple[TemplateRow, ...] = ()
    suspects: tuple[Suspects, ...] = ()
    error_pages: bytes = b""  # the engine's record of soft 404s


@dataclass(frozen=True, slots=True)
class Settlement:
    """The result of one visit, stored as a whole. If `history` or `digest` is None, the stored value stays."""

    task: Task
    host_id: int
    outcome: Outcome
    state: UrlState
    discovered: tuple[Discovered, ...] = ()
    record: Record | None = None
    next_at: float | None = None  # when the URL is due again: required for WAITING, a revisit for DONE and GAVE_UP
    robots: RobotsRecord | None = None
    digest: str | None = None
    finished_at: float = 0.0
    history: PageHistory | None = None
    note: PageNote | None = None


class HostRow(NamedTuple):
    """A host (an origin) as the store knows it. A NamedTuple, not a dataclass: a list of seeds makes millions."""

    id: int
    origin: Origin
    slot: int
    queued: int
    fetched: int = 0  # URLs that had their first attempt
    robots: RobotsRecord | None = None
    last_at: float | None = None  # end of the last stored visit, robots.txt included
    has_suspects: bool = False
    ready_at: float = 0.0  # when it may be requested, apart from its politeness key (schedule time)
    parked: str | None = None  # why not before that
    failures: int = 0  # connection errors in a row
    reason: str | None = None  # of its back-off
    has_responded: bool = False  # once


@dataclass(frozen=True, slots=True)
class Backoff:
    """A politeness key that gets no request before `until_at`; it survives restarts."""

    key: str
    until_at: float
    failures: int  # in a row
    reason: str


@dataclass(frozen=True, slots=True)
class SlowResponse:
    """The time of the last response of a politeness key, if it makes the adaptive delay longer than the delay."""

    key: str
    response_s: float
    updated_at: float


@dataclass(frozen=True, slots=True)
class HostReadiness:
    """When a host may be requested again, and why not before; stored with a commit, or when it leaves memory."""

    host_id: int
    ready_at: float  # schedule time; UNTIL_EVENT: not by itself
    parked: str | None = None
    failures: int = 0
    reason: str | None = None
    has_responded: bool = False
    queued: int = 0  # its queued URLs; with another number in the store "limit" and "traps" do not hold


UNTIL_EVENT: Final = 9e99  # a time that never comes


@dataclass(frozen=True, slots=True)
class KeyRow:
    """A politeness key that enters memory, with those of its hosts that are first to be requested."""

    id: int
    name: str
    requested_at: float | None  # end of its last request (schedule time)
    open_at: float  # when its delay or back-off ends
    crawl_delay_s: float | None  # the longest of its hosts
    backoff: "Backoff | None"
    response_s: float  # of its last response, if the adaptive delay is longer than the delay; else 0
    hosts: tuple[HostRow, ...]
    more_at: float | None  # when another of its hosts has work (schedule time); None: none has any


@dataclass(frozen=True, slots=True)
class SinkFile:
    """An output file and how much of it is committed."""

    sink: str
    name: str  # relative to the sink's folder, without `.open`
    state: SinkFileState
    committed_bytes: int
    records: int | None = field(default=None, compare=False)  # of a closed file, if the sink knows; not stored


@dataclass(frozen=True, slots=True)
class RecordLocation:
    """The file and offset of a record."""

    name: str
    offset: int


@dataclass(frozen=True, slots=True)
class Counters:
    """Totals over the life of an output directory, stored with each commit."""

    urls_fetched: int = 0  # pages whose first attempt was made, which scope.max_urls limits
    responses: int = 0
    pages: int = 0
    bytes: int = 0
    errors: int = 0
    denied: int = 0


@dataclass(frozen=True, slots=True)
class RoundCounts:
    """Results of the visits of a round. Invariant: `visited` is the sum of the four after it."""

    visited: int = 0  # URLs that had been visited before the round
    unchanged: int = 0
    changed: int = 0
    gone: int = 0  # 404 or 410
    failed: int = 0  # attempts exhausted, or a server error
    new: int = 0  # URLs that were visited for the first time


@dataclass(frozen=True, slots=True)
class Round:
    """A visit of every URL that had been visited before it. The store has the last one."""

    number: int  # 1 for the first of the store
    started_at: float
    last_id: int  # of the URLs that were known when it began
    queued_to: int = 0  # up to this id its URLs are queued, or visited already
    ended_at: float | None = None
    counts: RoundCounts = RoundCounts()

    @property
    def is_under_way(self) -> bool:
        return self.ended_at is None

    @property
    def is_queued(self) -> bool:
        """Whether all its URLs are queued, or visited already."""
        return self.queued_to >= self.last_id
