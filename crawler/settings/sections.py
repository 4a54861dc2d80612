"""The sections of the configuration: every key, its type, its default, and what it means.

A default is taken from the options class that has a field of the key's name (for a time with "_s"): `Settings` fills
that field with the key's value. Only what no options class has, has its default here.
Invariant: every field is made by `_key`, so each has a description and a reload tag.
"""

from dataclasses import dataclass, field
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field
from pydantic.config import JsonDict

from crawler.core.options import PolitenessOptions, RecrawlOptions, ScheduleOptions, ScopeOptions, TrapOptions
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
_SCHEDULE: Final = ScheduleOptions()
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
    """A key with what its type does not contain.

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
    seeds: t.ListOf[t.Seed] = _key((), "URLs to start from; https if they have no scheme.")
    seed_files: t.ListOf[t.Path] = _key((), 'Files with one seed per line; "#" begins a comment.')
    linger: t.Duration = _key(
        _ENGINE.linger_s,
        "How long `crawler crawl` waits for URLs that are due later; `crawler run` never ends by itself.",
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
    """Who you are. Say how to reach you: `crawler run` refuses a user_agent without a URL or an e-mail address."""

    user_agent: t.UserAgent = _key(_IDENTITY.user_agent, "Sent with every request.")
    robots_token: t.RobotsToken | None = _key(
        None,
        "The name by which groups of robots.txt are matched.",
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
        "TOML file with credentials, each for one origin only, and those for the proxy; not readable by "
        "everyone. docs/reference/configuration.md has its format.",
        restart=True,
        derived="$CREDENTIALS_DIRECTORY/secrets.toml, if it exists",
        example='"/etc/crawler/secrets.toml"',
    )


class ScopeSection(Section):
    """What may be fetched."""

    hosts: t.Hosts = _key(
        _SCOPE.hosts,
        '"seed-hosts", "seed-domains" (registrable domains of the seeds), "seed-prefix" (what is in the directories of '
        'the seeds or below), or a list of hosts; "*.example.org" for all below example.org.',
    )
    include: t.ListOf[t.Pattern] = _key(
        (),
        'If any are given, a URL must match one: globs ("*" within a path segment, "**" anything), or "re:" and a '
        "regular expression. A pattern is compared with the URL from its host on; with the whole URL if it "
        'contains "://"; with path and query if it begins with "/".',
    )
    exclude: t.ListOf[t.Pattern] = _key((), "A URL that matches one is not fetched, whatever `include` says.")
    max_depth: t.OrNoLimit[t.CountOrZero] = _key(_SCOPE.max_depth, "Links from a seed.", most=1_000_000)
    max_urls: t.OrNoLimit[t.Count] = _key(_SCOPE.max_urls, "URLs, over the life of the output directory.", most=10**12)
    max_urls_per_host: t.OrNoLimit[t.Count] = _key(_SCOPE.max_urls_per_host, "URLs of one host.", most=10**12)
    requisites: t.Flag = _key(
        _SCOPE.requisites, "Fetch images, styles and scripts of a page also if they are out of scope."
    )
    lazy: t.Flag = _key(
        _SCOPE.lazy,
        "Requisites are also what scripts load later (data-src, data-srcset and the like), and the preview images of a "
        "page (og:image, twitter:image).",
    )


class TrapsSection(Section):
    """Limits for parts of a site that have no end."""

    detect: Annotated[Literal["off", "report", "hold"], t.KeyKind.TEXT] = _key(
        _TRAPS.detect,
        '"hold": URLs of a template whose pages are all alike are fetched last, and left if there is no end; "report": '
        'such templates are logged, and fetched like others; "off": this section has no effect.',
    )
    max_path_segments: t.Count = _key(_TRAPS.max_path_segments, "Folders in a URL's path.", most=2_048)
    max_repeats: t.Count = _key(
        _TRAPS.max_repeats,
        "How often a folder, or a sequence of folders, may repeat in a path.",
        most=2_048,
    )
    max_parameters: t.Count = _key(_TRAPS.max_parameters, "Parameters in a URL's query.", most=2_048)
    max_pages_per_template: t.Count = _key(
        _TRAPS.max_pages_per_template,
        "HTML pages of one URL template (or below one top folder), however different they are; ten times as many of "
        "one host.",
        most=10**9,
    )
    soft_404: t.Flag = _key(
        _TRAPS.soft_404, "Request a page that should not exist from a host whose pages all have one title."
    )


class PolitenessSection(Section):
    """How often a host gets requests."""

    key: Annotated[Literal["domain", "host"], t.KeyKind.TEXT] = _key(
        _POLITENESS.key,
        '"domain": hosts of one registrable domain share the delay; "host": each has its own.',
        restart=True,
    )
    delay: t.Duration = _key(_POLITENESS.delay_s, "Time between two requests to one key.", most=_DAY)
    address_delay: t.Duration | None = _key(
        _POLITENESS.address_delay_s,
        "Time between two requests to one IP address.",
        derived="250ms, or delay if that is shorter",
        example='"250ms"',
        most=_DAY,
    )
    max_crawl_delay: t.Duration = _key(
        _POLITENESS.max_crawl_delay_s, "A longer Crawl-delay in robots.txt counts as this.", most=_DAY
    )
    connections_per_host: t.Count = _key(
        _POLITENESS.connections_per_host,
        "Connections to one origin; more than 1 has an effect only if the delay is 0.",
        most=1_000,
    )
    connections_per_address: t.Count | None = _key(
        _POLITENESS.connections_per_address,
        "Requests in flight to one IP address; if set, also the limit of open connections to it.",
        derived="4, or connections_per_host if that is more",
        example="4",
        most=10_000,
    )
    robots: Annotated[Literal["obey", "ignore"], t.KeyKind.TEXT] = _key(
        _POLITENESS.robots, '"obey" or "ignore" robots.txt.'
    )
    adaptive: t.Flag = _key(
        _POLITENESS.adaptive,
        "Use a longer delay while a host responds slowly: five times the duration of its last response, up to 30 s.",
    )


class FetchSection(Section):
    """Limits of one exchange, and of the pool of connections."""

    connections: t.Count = _key(
        _FETCH.connections,
        "Connections open at once, to all hosts; fewer if there are too few file descriptors.",
        most=100_000,
    )
    first_contacts: t.Count = _key(
        _FETCH.first_contacts,
        "Hosts that never responded, visited at once: beside engine.workers, over connections beside `connections`.",
        restart=True,
        most=20_000,
    )
    connect_timeout: t.PositiveDuration = _key(_FETCH.connect_timeout_s, "For the TCP connection.", most=_HOUR)
    tls_timeout: t.PositiveDuration = _key(_FETCH.tls_timeout_s, "For the TLS handshake.", most=_HOUR)
    first_byte_timeout: t.PositiveDuration = _key(
        _FETCH.first_byte_timeout_s, "From the request to the first byte of the response.", most=_HOUR
    )
    read_timeout: t.PositiveDuration = _key(_FETCH.read_timeout_s, "Between two reads of a response.", most=_HOUR)
    total_timeout: t.PositiveDuration = _key(_FETCH.total_timeout_s, "For one exchange as a whole.", most=7 * _DAY)
    min_rate: t.OrNoLimit[t.PositiveSize] = _key(
        _FETCH.min_rate, "Least bytes per second of a response on average, after a minute.", most=_GIB
    )
    max_head: t.PositiveSize = _key(
        _FETCH.max_head, "Of a response head; a longer one is a protocol error.", most=64 * _MIB
    )
    max_fields: t.Count = _key(
        _FETCH.max_fields, "Lines of a response head; more are a protocol error.", most=1_000_000
    )
    max_informational: t.CountOrZero = _key(
        _FETCH.max_informational, "1xx responses before the final one; more are a protocol error.", most=1_000
    )
    max_chunk_line: t.PositiveSize = _key(
        _FETCH.max_chunk_line,
        "Of a chunk's size line with its extensions; a longer one is a protocol error.",
        most=_MIB,
    )
    max_trailers: t.PositiveSize = _key(
        _FETCH.max_trailers, "Of the trailer fields after a chunked body; more are a protocol error.", most=64 * _MIB
    )
    max_chunks: t.Count = _key(
        _FETCH.max_chunks, "Chunks of a body; one with more is truncated and marked, as by max_body.", most=10**9
    )
    max_body: t.PositiveSize = _key(
        _FETCH.max_body,
        "Of a body as it is sent, with its content coding; a longer one is truncated and marked.",
        most=_TIB,
    )
    max_expansion: t.Count = _key(
        _FETCH.max_expansion,
        "Decoded bytes for each encoded one, checked beyond 1 MiB; more is a decompression bomb.",
        most=1_000_000,
    )
    max_decoded: t.PositiveSize = _key(
        _FETCH.max_decoded, "Of a body without its content codings; more is a decompression bomb.", most=_TIB
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
        _FETCH.max_requests_per_connection, "A connection is closed after this many requests.", most=10**9
    )
    encodings: t.Encodings = _key(_FETCH.encodings, "Content codings that are accepted: gzip, deflate, br, zstd.")
    headers: t.Headers = _key({}, "More header fields for every request; their values are masked in `config show`.")
    cookies: Annotated[Literal["off", "session"], t.KeyKind.TEXT] = _key(
        _FETCH.cookies,
        '"off", or "session": cookies are sent back to the sites that set them, and deleted when the process ends.',
        restart=True,
    )
    content_types: t.ListOf[t.ContentType] = _key(
        _FETCH.content_types,
        'Types of 2xx responses whose bodies are read, as in ["text/*", "application/*+xml"]; empty: all. Of other '
        "types the head alone is kept, outcome truncated; a response without a type is read.",
    )
    bandwidth: t.OrNoLimit[t.PositiveSize] = _key(
        _FETCH.bandwidth, "Bytes per second received from all hosts together, on average.", most=_TIB
    )
    bandwidth_per_host: t.OrNoLimit[t.PositiveSize] = _key(
        _FETCH.bandwidth_per_host, "The same from one host.", most=_TIB
    )
    hours: t.ListOf[t.Window] = _key(
        _ENGINE.hours,
        'When requests may leave, by the local clock (TZ): ["22:00-06:00"], ["Mon-Fri 19:00-07:00", "Sat,Sun '
        '00:00-24:00"]; empty: always. Days are those on which a window begins. Requests in flight at its end finish.',
    )


class ContentSection(Section):
    """Limits on what is read from a page."""

    max_html: t.PositiveSize = _key(
        _CONTENT.max_html,
        "Bytes read of a page; links after them are not found, and the line in the log has reading_fault.",
        most=_GIB,
    )
    max_links: t.Count = _key(_CONTENT.max_links, "Links kept of one page.", most=10_000_000)


class NetworkSection(Section):
    """Which addresses may be connected to, and how names are resolved."""

    allow_private: t.ListOf[t.Network] = _key(
        _NETWORK.allow_private, "Networks that may be connected to although they are not public, as in 10.1.0.0/16."
    )
    resolve: t.Resolve = _key(
        {}, 'Addresses of names, used instead of DNS: {"a.test" = ["127.0.0.1"], "*.b.test" = ["::1"]}.'
    )
    nameservers: t.ListOf[t.Nameserver] = _key(
        _NETWORK.nameservers, 'DNS servers, "192.0.2.1" or "192.0.2.1:5353"; empty: those of the system.'
    )
    ca_file: t.Path | None = _key(
        _NETWORK.ca_file,
        "PEM file of certificate authorities that are trusted besides the public ones.",
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
        "HTTP proxy for every connection; keep its credentials in identity.secrets. The proxy resolves the names, so "
        "the proxy must refuse private addresses.",
        restart=True,
        derived="connections are made directly",
        example='"http://proxy.example.org:3128"',
    )


class TlsSection(Section):
    """How servers are verified."""

    verify: t.Flag = _key(
        _TLS.verify, "Check certificates; without that, anybody on the network path can impersonate a server."
    )
    min_version: Annotated[Literal["1.2", "1.3"], t.KeyKind.TEXT] = _key(_TLS.min_version, '"1.2" or "1.3".')
    ciphers: t.Ciphers | None = _key(
        _TLS.ciphers,
        'Ciphers to offer up to TLS 1.2, as openssl-ciphers(1) names them. "DEFAULT" reaches older servers too, which '
        "know only CBC with SHA-1 (ECDHE-RSA-AES128-SHA) or the RSA key exchange.",
        derived="those of Python",
        example='"DEFAULT"',
    )


class RecrawlSection(Section):
    """Visiting pages again."""

    enabled: t.Flag | None = _key(
        None,
        "Visit pages again, each as often as its changes and its importance are worth.",
        derived="true for `crawler run`, false for `crawler crawl`",
        example="true",
    )
    min_interval: t.PositiveDuration = _key(
        _RECRAWL.min_interval_s, "Least time between two visits of a page.", most=10 * _YEAR
    )
    max_interval: t.PositiveDuration = _key(
        _RECRAWL.max_interval_s,
        "Most time between two visits of a page, except of those that are gone (404, 410).",
        most=10 * _YEAR,
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
        "The first pattern that matches counts; other pages have 1.",
    )


class ScheduleSection(Section):
    """Times at which `crawler run` visits anew, besides what [recrawl] plans."""

    at: t.ListOf[t.Calendar] = _key(
        _SCHEDULE.at,
        'Calendar expressions of systemd.time(7): ["daily"], ["Mon..Fri 06:00", "*-*-01 04:30 Europe/Berlin"], '
        '["*:0/15"]; by the local clock (TZ) where none names a time zone; empty: never. What was missed while no '
        "daemon ran is caught up once.",
    )
    what: Annotated[Literal["seeds", "all"], t.KeyKind.TEXT] = _key(
        _SCHEDULE.what,
        '"seeds": the seeds are visited anew, and new links on them followed. "all": everything that was visited '
        "before (a round, as by `crawler crawl --again`).",
    )


class FrontierSection(Section):
    """The store of URLs."""

    store: Annotated[Literal["sqlite", "postgresql"], t.KeyKind.TEXT] = _key(
        "sqlite",
        '"sqlite": a file. "postgresql": a PostgreSQL database of this crawl alone, which frontier.dsn names; '
        "several agents may share it (docs/guides/postgresql.md).",
        restart=True,
    )
    path: t.Path | None = _key(
        None, "The file.", restart=True, derived="<output>/frontier.db", example='"/var/lib/crawler/frontier.db"'
    )
    dsn: t.Dsn | None = _key(
        None,
        "The PostgreSQL database. A password is better kept in identity.secrets or in PGPASSFILE; one in the URI is "
        "masked in `config show`.",
        restart=True,
        derived="the environment: PGHOST, PGPORT, PGDATABASE, PGUSER …",
        example='"postgresql://crawler@/crawl"',
    )
    agent: t.FileNamePart = _key(
        "main",
        "The name of this process among those that share the database. Each has an output directory of its own.",
        restart=True,
    )
    lease: t.PositiveDuration = _key(
        15.0,
        "An agent that did not reach the database for so long, less a fifth, sends no more requests; after so long and "
        "a fifth more, others take its hosts over. The same for all agents.",
        most=3_600.0,
        restart=True,
    )
    duplicates: Annotated[Literal["exact", "filter"], t.KeyKind.TEXT] = _key(
        "exact",
        '"exact": known URLs are found by an index of the store. "filter": by Bloom filters in memory, 4 bytes a URL, '
        "wrong for at most two in a million (such a URL is never stored); for crawls of tens of millions in SQLite.",
        restart=True,
    )


class OutputSection(Section):
    """The output files."""

    directory: t.Path | None = _key(
        None,
        "The directory for all files. `crawler run` needs it.",
        restart=True,
        derived="for `crawl`, crawl.name/HOST, named for the first seed",
        example='"/var/lib/crawler"',
    )
    warc: t.Flag = _key(_SINK.warc, "Write WARC files.", restart=True)
    warc_size: t.PositiveSize = _key(
        _SINK.warc_size, "A WARC or pages file ends at this size.", restart=True, most=_PIB
    )
    pages: t.Flag = _key(_SINK.pages, "Write a JSON line for each page.", restart=True)
    min_free: t.Size = _key(_ENGINE.min_free, "The crawl pauses if less is free on the disk.", restart=True, most=_PIB)


class LogSection(Section):
    """The log files."""

    level: Annotated[Literal["debug", "info", "warning", "error"], t.KeyKind.TEXT] = _key(
        _LOG.level, '"debug", "info", "warning" or "error".'
    )
    directory: t.Path | None = _key(
        _LOG.directory,
        "The directory of the log files.",
        restart=True,
        derived="<output>/logs",
        example='"/var/log/crawler"',
    )
    stderr: Annotated[Literal["auto", "text", "json", "off"], t.KeyKind.TEXT] = _key(
        _LOG.stderr,
        'How events are shown on stderr: as "text" or "json" lines, or not at all ("off"). "auto" is for whoever reads '
        "it: a terminal, the journal, a file or a container's log.",
        restart=True,
    )
    rotate_size: t.PositiveSize = _key(_LOG.rotate_size, "A log file ends at this size.", most=_TIB)
    keep: t.CountOrZero = _key(_LOG.keep, "Rotated files kept of each log.", most=100_000)


class AdminSection(Section):
    """Access to the running daemon."""

    socket: t.Path | None = _key(
        None,
        "Unix socket for the commands.",
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
    actions: t.Flag = _key(
        False,
        "Whether the status page can pause and resume the crawl, queue URLs again and block hosts, with the token "
        "that `crawler status` shows.",
        restart=True,
    )


class EngineSection(Section):
    """Limits of work at one time."""

    active_hosts: t.Count = _key(
        _ENGINE.active_hosts,
        "Hosts in memory: those that can be requested soon. The others are in the store only.",
        restart=True,
        most=1_000_000,
    )
    workers: t.Count = _key(
        _ENGINE.workers, "Visits at once to hosts that have responded before.", restart=True, most=20_000
    )
    lease_size: t.Count = _key(
        _ENGINE.lease_size,
        "URLs of one origin fetched in sequence on one connection, if the delay is 0.",
        restart=True,
        most=10_000,
    )
    memory: t.PositiveSize = _key(_ENGINE.memory, "Bytes of bodies held at once.", restart=True, most=_TIB)
    drain: t.Duration = _key(_ENGINE.drain_s, "How long a stop waits for requests in flight.", restart=True, most=_DAY)


class OverrideSection(Section):
    """What some hosts, or some URLs, have instead of the options of the crawl."""

    hosts: t.ListOf[t.OverrideHost] = _key((), 'Names of hosts; "*.example.org" for all below example.org.')
    urls: t.ListOf[t.Pattern] = _key((), "Instead of hosts: patterns of URLs, as in scope.include.")
    enabled: t.Flag | None = _key(None, "false: nothing of these hosts is requested, and their URLs are denied.")
    delay: t.Duration | None = _key(None, "Instead of politeness.delay.", most=_DAY)
    max_crawl_delay: t.Duration | None = _key(None, "Instead of politeness.max_crawl_delay.", most=_DAY)
    connections_per_host: t.Count | None = _key(None, "Instead of politeness.connections_per_host.", most=1_000)
    robots: Annotated[Literal["obey", "ignore"] | None, t.KeyKind.TEXT] = _key(None, "Instead of politeness.robots.")
    adaptive: t.Flag | None = _key(None, "Instead of politeness.adaptive.")
    max_urls: t.OrNoLimit[t.Count] = _key(None, "Instead of scope.max_urls_per_host.", most=10**12)
    headers: t.Headers | None = _key(None, "Besides fetch.headers; a field replaces the one of its name there.")
    include: t.Flag | None = _key(
        None,
        "true: URLs that match are in scope, whatever scope.hosts, scope.include and scope.exclude say; false: they "
        "are not, unless they are seeds or requisites.",
    )
    exclude: t.Flag | None = _key(
        None, "true: URLs that match are not fetched; false: scope.exclude does not hold for them."
    )
    max_depth: t.OrNoLimit[t.CountOrZero] = _key(None, "Instead of scope.max_depth.", most=1_000_000)
    requisites: t.Flag | None = _key(
        None, "Instead of scope.requisites, for images, styles and scripts that are of these hosts or match."
    )
    recrawl: t.Flag | None = _key(None, "Instead of recrawl.enabled.")
    min_interval: t.PositiveDuration | None = _key(None, "Instead of recrawl.min_interval.", most=10 * _YEAR)
    max_interval: t.PositiveDuration | None = _key(None, "Instead of recrawl.max_interval.", most=10 * _YEAR)
    first_byte_timeout: t.PositiveDuration | None = _key(None, "Instead of fetch.first_byte_timeout.", most=_HOUR)
    read_timeout: t.PositiveDuration | None = _key(None, "Instead of fetch.read_timeout.", most=_HOUR)
    total_timeout: t.PositiveDuration | None = _key(None, "Instead of fetch.total_timeout.", most=7 * _DAY)
    min_rate: t.OrNoLimit[t.PositiveSize] = _key(None, "Instead of fetch.min_rate.", most=_GIB)
    max_body: t.PositiveSize | None = _key(None, "Instead of fetch.max_body.", most=_TIB)
    content_types: t.ListOf[t.ContentType] | None = _key(None, "Instead of fetch.content_types; empty: all.")
    bandwidth_per_host: t.OrNoLimit[t.PositiveSize] = _key(None, "Instead of fetch.bandwidth_per_host.", most=_TIB)


class SeedSection(Section):
    """One URL to start from, with options for what is in its place."""

    url: t.Seed = _key("", "URL to start from, as in crawl.seeds.")
    tags: t.Tags = _key((), "Words for the lines in pages/ of what is in the place of this seed.")
    max_depth: t.OrNoLimit[t.CountOrZero] = _key(None, "Instead of scope.max_depth.", most=1_000_000)
    scope: t.Hosts | None = _key(None, "Instead of scope.hosts, for what follows from this seed.")


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
    schedule: ScheduleSection = field(default_factory=ScheduleSection)
    frontier: FrontierSection = field(default_factory=FrontierSection)
    output: OutputSection = field(default_factory=OutputSection)
    log: LogSection = field(default_factory=LogSection)
    admin: AdminSection = field(default_factory=AdminSection)
    engine: EngineSection = field(default_factory=EngineSection)
