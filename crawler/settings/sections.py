"""The sections of the configuration: every key, its type, its default, and what it means.

A default is taken from the options class that has a field of the key's name (for a time with "_s"): `Settings` fills
that field with the key's value. Only what no options class has, has its default here.
Invariant: every field is made by `_key`, so each has a description and a reload tag.
"""

from dataclasses import dataclass, field
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field
from pydantic.config import JsonDict

from crawler.core.options import PolitenessOptions, RecrawlOptions, ScopeOptions, TrapOptions
from crawler.engine.options import ContentOptions, EngineOptions
from crawler.fetch.options import FetchOptions, IdentityOptions, NetworkOptions, TlsOptions
from crawler.obs.log_files import LogOptions
from crawler.settings import value_types as t
from crawler.sinks.base import SinkOptions

_CONTENT: Final = ContentOptions()
_ENGINE: Final = EngineOptions()
_FETCH: Final = FetchOptions()
_IDENTITY: Final = IdentityOptions()
_LOG: Final = LogOptions()
_NETWORK: Final = NetworkOptions()
_POLITENESS: Final = PolitenessOptions()
_RECRAWL: Final = RecrawlOptions()
_SCOPE: Final = ScopeOptions()
_SINK: Final = SinkOptions()
_TLS: Final = TlsOptions()
_TRAPS: Final = TrapOptions()

_HOUR: Final = 3_600.0
_DAY: Final = 86_400.0
_YEAR: Final = 365 * _DAY
_MIB, _GIB, _TIB, _PIB = 1024**2, 1024**3, 1024**4, 1024**5


def _key(
    default: object,
    description: str,
    *,
    most: float | None = None,
    restart: bool = False,
    derived: str = "",
    example: str = "",
    alias: str | None = None,
) -> Any:
    """A key and what its type cannot say.

    `most`: the largest value of a number; every number has one, for what lies beyond is a slip. `restart`: a reload
    does not bring it into force. `derived`: in words, what None stands for where that is worked out from other keys.
    `example`: a value for the annotated file where the default cannot be written down.
    """
    extra: JsonDict = {"most": most, "restart": restart, "derived": derived, "example": example}
    return Field(default=default, description=description, alias=alias, le=most, json_schema_extra=extra)


class Section(BaseModel):
    """One table of the file. `from_address` and the like are written with their alias."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class CrawlSection(Section):
    """What is crawled, and when `crawler crawl` ends."""

    name: t.FileNamePart = _key(_SINK.name, "First part of the name of every output file.")
    seeds: t.ListOf[t.Seed] = _key((), "URLs to begin with; without a scheme, https.")
    seed_files: t.ListOf[t.Path] = _key((), 'Files of seeds, one a line; "#" begins a comment.')
    linger: t.Duration = _key(
        _ENGINE.linger_s,
        "How long `crawler crawl` waits for what is due later; `crawler run` never ends by itself.",
        most=10 * _YEAR,
    )
    sitemaps: Annotated[Literal["off", "named", "probe"] | None, t.KeyKind.TEXT] = _key(
        None,
        'Sitemaps that are read: "named" in robots.txt; "probe": where none is named, /sitemap.xml as well; "off".',
        derived='"probe" for `crawler run`, "named" for `crawler crawl`',
        example='"probe"',
    )
    max_duration: t.OrNoLimit[t.PositiveDuration] = _key(
        _ENGINE.max_duration_s, "How long one run of `crawler crawl` may take.", most=10 * _YEAR
    )


class IdentitySection(Section):
    """Who asks. Say how to reach you: `crawler run` refuses a user_agent without a URL or an e-mail address."""

    user_agent: t.UserAgent = _key(_IDENTITY.user_agent, "Sent with every request.")
    robots_token: t.RobotsToken | None = _key(
        None,
        "The name that groups of robots.txt are matched with.",
        restart=True,
        derived="the first product in user_agent",
        example='"crawlerd"',
    )
    from_address: t.Mailbox | None = _key(
        _IDENTITY.from_address,
        "E-mail address for the From header.",
        derived="not sent",
        example='"operator@example.org"',
        alias="from",
    )
    secrets: t.Path | None = _key(
        None,
        "TOML file of credentials, each for one origin and for no other, and of those for the proxy; not readable by "
        "everyone. Its form is in docs/OPERATIONS.md.",
        restart=True,
        derived="$CREDENTIALS_DIRECTORY/secrets.toml, if it is there",
        example='"/etc/crawler/secrets.toml"',
    )


class ScopeSection(Section):
    """What may be fetched."""

    hosts: t.Hosts = _key(
        _SCOPE.hosts,
        '"seed-hosts", "seed-domains" (registrable domains of the seeds), or a list of hosts; "*.example.org" for all '
        "below example.org.",
    )
    include: t.ListOf[t.Pattern] = _key(
        (),
        'If any are given, a URL must match one: globs ("*" within a path segment, "**" anything), or "re:" and a '
        "regular expression. A pattern is compared with the URL from its host on, with all of it if it holds "
        '"://", with path and query if it begins with "/".',
    )
    exclude: t.ListOf[t.Pattern] = _key((), "A URL that matches one is not fetched, whatever `include` says.")
    max_depth: t.OrNoLimit[t.CountOrZero] = _key(_SCOPE.max_depth, "Links from a seed.", most=1_000_000)
    max_urls: t.OrNoLimit[t.Count] = _key(_SCOPE.max_urls, "URLs, over the life of the output directory.", most=10**12)
    max_urls_per_host: t.OrNoLimit[t.Count] = _key(_SCOPE.max_urls_per_host, "URLs of one host.", most=10**12)
    requisites: t.Flag = _key(
        _SCOPE.requisites, "Images, styles and scripts of a page are fetched even where they are out of scope."
    )
    lazy: t.Flag = _key(
        _SCOPE.lazy,
        "Requisites are also what scripts put in place (data-src, data-srcset and the like), and the images that a "
        "page names for previews (og:image, twitter:image).",
    )


class TrapsSection(Section):
    """Parts of a site that have no end: how much is taken from them."""

    detect: Annotated[Literal["off", "report", "hold"], t.KeyKind.TEXT] = _key(
        _TRAPS.detect,
        '"hold": URLs of a template whose pages are all alike are fetched last, and left if that never ends; "report": '
        'such templates are told and fetched like others; "off": nothing of this section holds.',
    )
    max_path_segments: t.Count = _key(_TRAPS.max_path_segments, "Folders in a URL's path.", most=2_048)
    max_repeats: t.Count = _key(
        _TRAPS.max_repeats,
        "How often a folder, or a run of folders, may stand in a path one behind the other.",
        most=2_048,
    )
    max_parameters: t.Count = _key(_TRAPS.max_parameters, "Parameters in a URL's query.", most=2_048)
    max_pages_per_template: t.Count = _key(
        _TRAPS.max_pages_per_template,
        "HTML pages of one URL template (as all below one first folder), however different they are; ten times as many "
        "of a host in all.",
        most=10**9,
    )
    soft_404: t.Flag = _key(
        _TRAPS.soft_404, "Ask a host whose pages have one title for all for a page that should not exist."
    )


class PolitenessSection(Section):
    """How often a host may be asked."""

    key: Annotated[Literal["domain", "host"], t.KeyKind.TEXT] = _key(
        _POLITENESS.key,
        '"domain": hosts of one registrable domain share the delay; "host": each has its own.',
        restart=True,
    )
    delay: t.Duration = _key(_POLITENESS.delay_s, "Rest between two requests to one key.", most=_DAY)
    address_delay: t.Duration | None = _key(
        _POLITENESS.address_delay_s,
        "Rest between two requests to one IP address.",
        derived="250ms, or delay if that is shorter",
        example='"250ms"',
        most=_DAY,
    )
    max_crawl_delay: t.Duration = _key(
        _POLITENESS.max_crawl_delay_s, "A longer Crawl-delay in robots.txt counts as this.", most=_DAY
    )
    connections_per_host: t.Count = _key(
        _POLITENESS.connections_per_host,
        "Connections to one origin; more than 1 counts only where the delay is 0.",
        most=1_000,
    )
    connections_per_address: t.Count | None = _key(
        _POLITENESS.connections_per_address,
        "Requests in flight at one IP address; set here, also the connections kept open to it.",
        derived="4, or connections_per_host if that is more",
        example="4",
        most=10_000,
    )
    robots: Annotated[Literal["obey", "ignore"], t.KeyKind.TEXT] = _key(
        _POLITENESS.robots, '"obey" or "ignore" robots.txt.'
    )
    adaptive: t.Flag = _key(_POLITENESS.adaptive, "Rest longer while a host answers slowly or with errors.")


class FetchSection(Section):
    """Limits of one exchange, and of the pool of connections."""

    connections: t.Count = _key(
        _FETCH.connections,
        "Connections open at once, to all hosts; fewer where file descriptors are few.",
        most=100_000,
    )
    connect_timeout: t.PositiveDuration = _key(_FETCH.connect_timeout_s, "For the TCP connection.", most=_HOUR)
    tls_timeout: t.PositiveDuration = _key(_FETCH.tls_timeout_s, "For the TLS handshake.", most=_HOUR)
    first_byte_timeout: t.PositiveDuration = _key(
        _FETCH.first_byte_timeout_s, "From the request sent to the first byte of the answer.", most=_HOUR
    )
    read_timeout: t.PositiveDuration = _key(_FETCH.read_timeout_s, "Between two reads of an answer.", most=_HOUR)
    total_timeout: t.PositiveDuration = _key(
        _FETCH.total_timeout_s, "For one exchange, everything included.", most=7 * _DAY
    )
    min_rate: t.OrNoLimit[t.PositiveSize] = _key(
        _FETCH.min_rate, "Bytes a second that an answer must bring on average, judged after a minute.", most=_GIB
    )
    max_head: t.PositiveSize = _key(
        _FETCH.max_head, "Of a response head; a longer one is a protocol error.", most=64 * _MIB
    )
    max_fields: t.Count = _key(
        _FETCH.max_fields, "Lines of a response head; more are a protocol error.", most=1_000_000
    )
    max_informational: t.CountOrZero = _key(
        _FETCH.max_informational, "1xx responses before the one that counts; more are a protocol error.", most=1_000
    )
    max_chunk_line: t.PositiveSize = _key(
        _FETCH.max_chunk_line,
        "Of a chunk's size line with its extensions; a longer one is a protocol error.",
        most=_MIB,
    )
    max_trailers: t.PositiveSize = _key(
        _FETCH.max_trailers, "Of the fields behind a chunked body; more are a protocol error.", most=64 * _MIB
    )
    max_chunks: t.Count = _key(
        _FETCH.max_chunks, "Chunks of a chunked body; one of more is cut and marked, as by max_body.", most=10**9
    )
    max_body: t.PositiveSize = _key(
        _FETCH.max_body, "Of a body as it comes, content coding on; a longer one is cut and marked.", most=_TIB
    )
    max_expansion: t.Count = _key(
        _FETCH.max_expansion,
        "Decoded bytes for each encoded one, judged beyond 1 MiB; more is a decompression bomb.",
        most=1_000_000,
    )
    max_decoded: t.PositiveSize = _key(
        _FETCH.max_decoded, "Of a body with its content codings off; more is a decompression bomb.", most=_TIB
    )
    spool_over: t.Size = _key(_FETCH.spool_over, "A longer body goes to a temporary file.", most=16 * _GIB)
    receive_buffer: t.PositiveSize = _key(
        _FETCH.receive_buffer,
        "The kernel's buffer of a connection (SO_RCVBUF). More is faster over long distances, and costs each open "
        "connection up to twice as much memory.",
        most=_GIB,
    )
    idle_timeout: t.PositiveDuration = _key(
        _FETCH.idle_timeout_s, "An idle connection is closed after this.", most=7 * _DAY
    )
    max_connection_age: t.OrNoLimit[t.PositiveDuration] = _key(
        _FETCH.max_connection_age_s, "An older connection is not used again.", most=_YEAR
    )
    max_requests_per_connection: t.OrNoLimit[t.Count] = _key(
        _FETCH.max_requests_per_connection, "A connection is closed after so many requests.", most=10**9
    )
    encodings: t.Encodings = _key(_FETCH.encodings, "Content codings asked for: gzip, deflate, br, zstd.")
    headers: t.Headers = _key({}, "More header fields for every request; their values are masked in `config show`.")
    cookies: Annotated[Literal["off", "session"], t.KeyKind.TEXT] = _key(
        _FETCH.cookies,
        '"off", or "session": cookies are sent back where they belong, and forgotten when the process ends.',
        restart=True,
    )
    content_types: t.ListOf[t.ContentType] = _key(
        _FETCH.content_types,
        'Types of 2xx answers whose bodies are read, as in ["text/*", "application/*+xml"]; empty: all. Of another '
        "type the head alone is kept, outcome truncated; an answer that does not say its type is read.",
    )
    bandwidth: t.OrNoLimit[t.PositiveSize] = _key(
        _FETCH.bandwidth, "Bytes a second that may come, from all hosts together, on average.", most=_TIB
    )
    bandwidth_per_host: t.OrNoLimit[t.PositiveSize] = _key(
        _FETCH.bandwidth_per_host, "The same from one host.", most=_TIB
    )
    hours: t.ListOf[t.Window] = _key(
        _ENGINE.hours,
        'When requests may leave, by the local clock (TZ): ["22:00-06:00"], ["Mon-Fri 19:00-07:00", "Sat,Sun '
        '00:00-24:00"]; empty: always. Days are those on which a window begins. Outside, what is in flight finishes.',
    )


class ContentSection(Section):
    """Bounds on what is read out of a page."""

    max_html: t.PositiveSize = _key(
        _CONTENT.max_html,
        "So much of a page is read; links behind it are not found, and its line in the log has reading_fault.",
        most=_GIB,
    )
    max_links: t.Count = _key(_CONTENT.max_links, "Links kept of one page.", most=10_000_000)


class NetworkSection(Section):
    """Which addresses may be dialled, and how names become addresses."""

    allow_private: t.ListOf[t.Network] = _key(
        _NETWORK.allow_private, "Networks that may be dialled although they are not public, as in 10.1.0.0/16."
    )
    resolve: t.Resolve = _key(
        {}, 'Addresses of names that DNS is not asked for: {"a.test" = ["127.0.0.1"], "*.b.test" = ["::1"]}.'
    )
    nameservers: t.ListOf[t.Nameserver] = _key(
        _NETWORK.nameservers, 'DNS servers, "192.0.2.1" or "192.0.2.1:5353"; empty: those of the system.'
    )
    ca_file: t.Path | None = _key(
        _NETWORK.ca_file,
        "PEM file of certificate authorities that are trusted as well.",
        derived="none but the public ones",
        example='"ca.pem"',
    )
    bind_address: t.Address | None = _key(
        _NETWORK.bind_address,
        "Local address of outgoing connections.",
        derived="the system chooses",
        example='"192.0.2.10"',
    )
    address_family: Annotated[Literal["any", "ipv4", "ipv6"], t.KeyKind.TEXT] = _key(
        _NETWORK.address_family, '"any", "ipv4" or "ipv6".'
    )
    proxy: t.Proxy | None = _key(
        None,
        "HTTP proxy that every connection goes through; its credentials are best kept in identity.secrets. It resolves "
        "the names, so it is the proxy that must refuse private addresses.",
        restart=True,
        derived="connections are made directly",
        example='"http://proxy.example.org:3128"',
    )


class TlsSection(Section):
    """How servers are verified."""

    verify: t.Flag = _key(_TLS.verify, "Check certificates; without, anybody on the way can answer for a server.")
    min_version: Annotated[Literal["1.2", "1.3"], t.KeyKind.TEXT] = _key(_TLS.min_version, '"1.2" or "1.3".')
    ciphers: t.Ciphers | None = _key(
        _TLS.ciphers,
        'Ciphers to offer up to TLS 1.2, as openssl-ciphers(1) names them. "DEFAULT" reaches older servers too, which '
        "know only CBC with SHA-1 (ECDHE-RSA-AES128-SHA) or the RSA key exchange.",
        derived="those of Python",
        example='"DEFAULT"',
    )


class RecrawlSection(Section):
    """Coming back to pages."""

    enabled: t.Flag | None = _key(
        None,
        "Visit pages again, each as often as its changes and its importance are worth.",
        derived="true for `crawler run`, false for `crawler crawl`",
        example="true",
    )
    min_interval: t.PositiveDuration = _key(
        _RECRAWL.min_interval_s, "No page is visited sooner again.", most=10 * _YEAR
    )
    max_interval: t.PositiveDuration = _key(
        _RECRAWL.max_interval_s, "No page is left longer, but for those that are gone (404, 410).", most=10 * _YEAR
    )
    visits_per_day: t.Count | None = _key(
        _RECRAWL.visits_per_day,
        "Revisits a day, all hosts together; first visits do not count.",
        derived="a seventh of the pages known: each once a week on average",
        example="10000",
        most=10**10,
    )
    importance: t.Importance = _key(
        {},
        'Pages of greater or lesser importance, by patterns as in scope.include: {"/news/**" = 5, "/old/**" = 0.2}. '
        "The first that matches counts; 1 for all others.",
    )


class FrontierSection(Section):
    """Where the URLs are kept."""

    store: Annotated[Literal["sqlite"], t.KeyKind.TEXT] = _key("sqlite", '"sqlite".', restart=True)
    path: t.Path | None = _key(
        None, "The database.", restart=True, derived="<output>/frontier.db", example='"/var/lib/crawler/frontier.db"'
    )
    duplicates: Annotated[Literal["exact", "filter"], t.KeyKind.TEXT] = _key(
        "exact",
        '"exact": a URL is known by an index of the store. "filter": by Bloom filters in memory, four bytes a URL, '
        "wrong for two in a million at most (a URL that is never stored); for crawls of tens of millions.",
        restart=True,
    )


class OutputSection(Section):
    """What is written."""

    directory: t.Path | None = _key(
        None,
        "Everything is written below it. `crawler run` needs it.",
        restart=True,
        derived="for `crawl`, crawl.name/HOST after the first seed",
        example='"/var/lib/crawler"',
    )
    warc: t.Flag = _key(_SINK.warc, "Write WARC files.", restart=True)
    warc_size: t.PositiveSize = _key(
        _SINK.warc_size, "A WARC or pages file ends at this size.", restart=True, most=_PIB
    )
    pages: t.Flag = _key(_SINK.pages, "Write a JSON line for each page.", restart=True)
    min_free: t.Size = _key(_ENGINE.min_free, "With less left on the disk, the crawl pauses.", restart=True, most=_PIB)


class LogSection(Section):
    """What is logged, and how long it is kept."""

    level: Annotated[Literal["debug", "info", "warning", "error"], t.KeyKind.TEXT] = _key(
        _LOG.level, '"debug", "info", "warning" or "error".'
    )
    directory: t.Path | None = _key(
        _LOG.directory, "The log files.", restart=True, derived="<output>/logs", example='"/var/log/crawler"'
    )
    rotate_size: t.PositiveSize = _key(_LOG.rotate_size, "A log file ends at this size.", most=_TIB)
    keep: t.CountOrZero = _key(_LOG.keep, "Old files kept of each log.", most=100_000)


class AdminSection(Section):
    """How the running daemon is reached."""

    socket: t.Path | None = _key(
        None,
        "Unix socket for control; its path has 107 bytes at most.",
        restart=True,
        derived="<output>/control.sock",
        example='"/run/crawler/control.sock"',
    )
    listen: t.Listen | None = _key(
        None,
        'Status page, metrics and health checks over HTTP: "127.0.0.1:9090", or the path of a Unix socket.',
        restart=True,
        derived="off",
        example='"127.0.0.1:9090"',
    )


class EngineSection(Section):
    """How much is done at once."""

    workers: t.Count = _key(_ENGINE.workers, "Visits at once.", restart=True, most=20_000)
    lease_size: t.Count = _key(
        _ENGINE.lease_size,
        "URLs of one origin fetched in a run on one connection, where the delay is 0.",
        restart=True,
        most=10_000,
    )
    memory: t.PositiveSize = _key(_ENGINE.memory, "Bytes of bodies held at once.", restart=True, most=_TIB)
    drain: t.Duration = _key(_ENGINE.drain_s, "How long a stop waits for what is in flight.", restart=True, most=_DAY)


@dataclass(frozen=True, slots=True)
class Sections:
    """The whole file, section by section."""

    crawl: CrawlSection = field(default_factory=CrawlSection)
    identity: IdentitySection = field(default_factory=IdentitySection)
    scope: ScopeSection = field(default_factory=ScopeSection)
    traps: TrapsSection = field(default_factory=TrapsSection)
    politeness: PolitenessSection = field(default_factory=PolitenessSection)
    fetch: FetchSection = field(default_factory=FetchSection)
    content: ContentSection = field(default_factory=ContentSection)
    network: NetworkSection = field(default_factory=NetworkSection)
    tls: TlsSection = field(default_factory=TlsSection)
    recrawl: RecrawlSection = field(default_factory=RecrawlSection)
    frontier: FrontierSection = field(default_factory=FrontierSection)
    output: OutputSection = field(default_factory=OutputSection)
    log: LogSection = field(default_factory=LogSection)
    admin: AdminSection = field(default_factory=AdminSection)
    engine: EngineSection = field(default_factory=EngineSection)
