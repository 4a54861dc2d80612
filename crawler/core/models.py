"""Frozen values that pass between the packages.

Terms are those of RFC 3986, 6454, 9110, 9309 and WARC 1.1. Times end in `_at` (UTC, seconds since 1970), `_mono`
(monotonic seconds) or `_s` (a duration in seconds).
"""

from collections.abc import Iterator
from dataclasses import field
from typing import NamedTuple, Protocol

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
from crawler.core.frozen import dataclass


class Body(Protocol):
    """A finished run of bytes that may be read any number of times, from any thread."""

    @property
    def size(self) -> int:
        """Length in bytes."""

    def prefix(self, limit: int) -> bytes:
        """The first `limit` bytes, or all there are. Returns the stored object itself where that is the whole."""

    def chunks(self) -> Iterator[bytes]:
        """The whole, in order, in pieces of at most 1 MiB (a body in memory comes as it is)."""


class BytesBody:
    """A body held in memory."""

    __slots__ = ("_data",)

    def __init__(self, data: bytes) -> None:
        self._data = data

    @property
    def size(self) -> int:
        return len(self._data)

    def prefix(self, limit: int) -> bytes:
        data = self._data
        return data if len(data) <= limit else data[:limit]

    def chunks(self) -> Iterator[bytes]:
        if self._data:
            yield self._data

    def __repr__(self) -> str:
        return f"<BytesBody {len(self._data)} bytes>"


EMPTY = BytesBody(b"")


class Origin(NamedTuple):
    """Scheme, host and port (RFC 6454 §4). `host` is as the URL standard serialises it: IDNA-encoded, lower case, IPv6
    literals in brackets. A NamedTuple, not a dataclass, because it is a dictionary key on the hot path.
    """

    scheme: str
    host: str
    port: int

    def __str__(self) -> str:
        default = 443 if self.scheme == "https" else 80
        return f"{self.scheme}://{self.host}" + ("" if self.port == default else f":{self.port}")


@dataclass(frozen=True, slots=True)
class SitemapHint:
    """What a sitemap says of a URL: `priority` from 0 to 1, `lastmod` in UTC epoch seconds."""

    priority: float | None = None
    lastmod: float | None = None


@dataclass(frozen=True, slots=True)
class PageHistory:
    """What visits of a URL taught, as it stands after the last one; `core.revisit` decides by it.

    `change_a` and `change_t` are the estimate of its change rate: changes seen, time observed. `gone_count` counts 404
    and 410 in a row, `in_links` is an estimate.
    """

    changed_at: float | None = None
    change_a: float | None = None
    change_t: float | None = None
    gone_count: int = 0
    in_links: int = 0


@dataclass(frozen=True, slots=True)
class Discovered:
    """A URL worth storing: parsed, keyed and judged in scope.

    `url` is as it will be fetched; `key` is the 64-bit signed hash of its canonical form, unique within the origin
    (`core.url`). `depth` counts links from a seed; `hop_path` has a letter a hop: L link, R redirect, E requisite.
    A smaller `priority` goes first. A URL of another kind than page has `core.url.kind_key_of` for its key. A `hint` is
    stored for a known URL as well. `legacy_url`: the URL that the same link meant by the first version of the key
    rules, where that is another one; what was taken down under that version is known by it.
    """

    url: str
    origin: Origin
    key: int
    depth: int
    hop_path: str
    source: Source
    priority: int = 0
    redirects: int = 0
    kind: TaskKind = TaskKind.PAGE
    hint: SitemapHint | None = None
    legacy_url: str | None = None


@dataclass(frozen=True, slots=True)
class Task:
    """One URL to visit. `id` is its row in the frontier; 0 for a robots.txt, which has none.

    `visits` counts the visits that ended before: above 0 this is a revisit, `attempt` starts over, and the fields after
    it say what the last one left (`digest` as in the WARC).
    """

    id: int
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
    visits: int = 0
    visited_at: float | None = None
    digest: str | None = None
    history: PageHistory | None = None
    hint: SitemapHint | None = None

    @property
    def is_revisit(self) -> bool:
        return self.visits > 0

    @property
    def is_first(self) -> bool:
        """A page's first attempt: what limits on URLs count."""
        return self.attempt == 1 and self.visits == 0 and self.kind is TaskKind.PAGE


@dataclass(frozen=True, slots=True)
class Lease:
    """A run of tasks of one origin, handed to one worker. `host_id` is the frontier's row of the host it is done for:
    the origin itself, but for a robots.txt that redirects elsewhere.
    """

    id: int
    origin: Origin
    host_id: int
    tasks: tuple[Task, ...]
    leased_mono: float = 0.0
    waited_s: float = 0.0  # how long politeness held it back


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
        """The values of all Content-Type fields, as `media` reads them; None if there is none."""
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
    first_byte_s: float = 0.0  # from the request's last byte written to the answer's first
    body_s: float = 0.0  # from the first byte to the last


@dataclass(frozen=True, slots=True)
class ConnectionInfo:
    """Which connection answered, as the log shows it."""

    id: int
    request_n: int  # 1 for the first request on this connection
    peer_address: str
    tls_version: str | None = None  # "1.3"
    tls_resumed: bool = False


@dataclass(frozen=True, slots=True)
class Fetched:
    """A response whose head arrived whole.

    `raw_body` is what came on the wire after the head, transfer coding included; `payload` has the transfer coding
    removed and any content coding still on. They are one object where nothing was coded. `truncated` says that less
    was kept than was promised, `error_type` why when it was an error. A `tainted` response was framed leniently. A
    redirect that `session_began` set a cookie that the same request would now send.
    """

    head: Head
    request_bytes: bytes
    raw_head: bytes
    raw_body: Body
    payload: Body
    timings: Timings
    connection: ConnectionInfo
    started_at: float
    resend_count: int = 0
    tainted: bool = False
    truncated: TruncatedReason | None = None
    error_type: ErrorType | None = None
    session_began: bool = False


@dataclass(frozen=True, slots=True)
class Failed:
    """No usable answer. `detail` is for a person; `connection` is None when none was open."""

    error_type: ErrorType
    detail: str
    retryable: bool
    timings: Timings = Timings()
    connection: ConnectionInfo | None = None
    resend_count: int = 0


FetchResult = Fetched | Failed


@dataclass(frozen=True, slots=True)
class NotModified:
    """A conditional request was answered 304."""

    fetched: Fetched


@dataclass(frozen=True, slots=True)
class Redirected:
    """A 3xx with a usable Location. `target` is absolute; it enters the frontier as a discovery of its own."""

    fetched: Fetched
    target: str


@dataclass(frozen=True, slots=True)
class Denied:
    """No request was made. `rule` is what decided, in words a person can look up."""

    reason: DenyReason
    rule: str


Outcome = Fetched | Failed | NotModified | Redirected | Denied


@dataclass(frozen=True, slots=True)
class PageInfo:
    """What was read out of a page's content, for pages/."""

    canonical: str | None = None
    content_type: str | None = None
    charset: str | None = None
    title: str | None = None
    language: str | None = None
    links_count: int = 0
    content_size: int = 0  # bytes with every coding removed
    coding_fault: CodingFault | None = None
    reading_fault: ReadingFault | None = None


@dataclass(frozen=True, slots=True)
class Record:
    """What the sinks write for one settled visit. `page` is set for a 2xx page only: it then also goes to pages/."""

    task: Task
    fetched: Fetched
    payload_digest: str  # "sha256:<base32>"
    page: PageInfo | None = None


@dataclass(frozen=True, slots=True)
class RobotsRecord:
    """What is known of an origin's robots.txt. `body` is the raw text, None where the answer allows or forbids all.

    `verdict` is "rules" (parse the body), "allow" (4xx: everything is allowed) or "unreachable" (5xx, timeout …:
    nothing may be fetched, RFC 9309 §2.3.1.4). `error` is why it could not be read the last time, where no status says.
    """

    verdict: str
    status_code: int | None
    body: bytes | None
    fetched_at: float
    expires_at: float
    crawl_delay_s: float | None = None
    failing_since: float | None = None
    error: str | None = None


@dataclass(frozen=True, slots=True)
class TemplateRow:
    """What is known of a URL template of a host (`core.url_templates`). `pages` counts its settled HTML pages, for
    `traps.max_pages_per_template`; `spent` its suspects whose fetching made it grow with more of the same, `good` those
    that brought something new (`engine.pages.traps`). `since_at` is when it was first suspected, `released_at` when an
    operator let it be fetched for good.
    """

    host_id: int
    template: str
    pages: int = 0
    spent: int = 0
    good: int = 0
    since_at: float | None = None
    released_at: float | None = None


@dataclass(frozen=True, slots=True)
class PageNote:
    """What a settled HTML page is for the judgement of its templates.

    `words` is its sketch if it is sampled (`core.novelty`), `counted` the templates whose `pages` it adds to. `trial`
    is the template that it was a suspect of, and `is_good` whether it said something new for one. What is first found
    on an error page in disguise is a suspect at once.
    """

    words: bytes | None = None
    counted: tuple[str, ...] = ()
    trial: str | None = None
    is_good: bool = False
    is_error_page: bool = False


class SampledPage(NamedTuple):
    """A page of a host's sample as stored: its target and its sketch."""

    target: str
    words: bytes


@dataclass(frozen=True, slots=True)
class Suspects:
    """URLs of one template that are kept back; `examples` are two of them at most."""

    host_id: int
    template: str
    urls: int
    examples: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class HostTemplates:
    """What the store knows of the templates of a host. `error_pages` is what the engine keeps of its soft 404s."""

    pages: tuple[SampledPage, ...] = ()
    rows: tuple[TemplateRow, ...] = ()
    suspects: tuple[Suspects, ...] = ()
    error_pages: bytes = b""


@dataclass(frozen=True, slots=True)
class Settlement:
    """Everything one visit changed, committed at once.

    `next_at` is when the URL is due again: a must for WAITING, a revisit for DONE and GAVE_UP. Where `history` or
    `digest` is None, what is stored stays.
    """

    task: Task
    host_id: int
    outcome: Outcome
    state: UrlState
    discovered: tuple[Discovered, ...] = ()
    record: Record | None = None
    next_at: float | None = None
    robots: RobotsRecord | None = None
    digest: str | None = None
    finished_at: float = 0.0
    history: PageHistory | None = None
    note: PageNote | None = None


@dataclass(frozen=True, slots=True)
class HostRow:
    """A host (an origin) as the frontier knows it. `fetched` counts URLs whose first attempt was made; `last_at` is the
    end of the last visit that is stored, robots.txt included.
    """

    id: int
    origin: Origin
    slot: int
    queued: int
    fetched: int = 0
    robots: RobotsRecord | None = None
    last_at: float | None = None


@dataclass(frozen=True, slots=True)
class Backoff:
    """A politeness key that may not be asked before `until_at`, kept across restarts. `failures` counts failures in a
    row.
    """

    key: str
    until_at: float
    failures: int
    reason: str


@dataclass(frozen=True, slots=True)
class SlowResponse:
    """How long the last answer of a politeness key took, where that makes it rest longer than its delay."""

    key: str
    response_s: float
    updated_at: float


@dataclass(frozen=True, slots=True)
class SinkFile:
    """How much of an output file is committed. `name` is relative to the sink's folder, without `.open`. `records` is
    what a sink may say of a closed one; the store does not keep it.
    """

    sink: str
    name: str
    state: SinkFileState
    committed_bytes: int
    records: int | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True)
class RecordLocation:
    """Where a sink put a record."""

    name: str
    offset: int


@dataclass(frozen=True, slots=True)
class Counters:
    """What has happened over the directory's life; kept in the store with each commit."""

    urls_fetched: int = 0  # pages whose first attempt was made: what scope.max_urls limits
    responses: int = 0
    pages: int = 0
    bytes: int = 0
    errors: int = 0
    denied: int = 0
