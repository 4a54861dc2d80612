"""Options of the HTTP client, with units, defaults and the precedent of each bound."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

from crawler.core.models import Origin
from crawler.core.options import Override
from crawler.core.scope import Overrides

KIB = 1024
MIB = 1024 * KIB


@dataclass(frozen=True, slots=True)
class IdentityOptions:
    """Who the crawler is. `user_agent` is sent with every request; groups of robots.txt are for `robots_token`."""

    user_agent: str = "crawlerd/0.1"
    robots_token: str = "crawlerd"
    from_address: str | None = None


@dataclass(frozen=True, slots=True)
class FetchOptions:
    """Limits of one exchange and of the pool. Times in seconds, sizes in bytes, None: no limit."""

    connections: int = 2_048  # open at once, all hosts
    # Connections beside them, to hosts that never responded: 340 new hosts a second, if a tenth of them takes 30 s.
    first_contacts: int = 1_024
    connect_timeout_s: float = 10.0
    tls_timeout_s: float = 10.0
    first_byte_timeout_s: float = 30.0
    read_timeout_s: float = 30.0  # between two reads of a body
    total_timeout_s: float = 600.0
    min_rate: int | None = 240  # bytes a second, averaged from the first byte on: Kestrel's MinDataRate, IIS's limit
    min_rate_after_s: float = 60.0  # a younger response is not checked for its rate: two read timeouts
    max_head: int = 300 * KIB  # of a response head: curl, MAX_HTTP_RESP_HEADER_SIZE (Chromium: 256 KiB)
    max_fields: int = 5_000  # lines of a response head: curl, MAX_HTTP_RESP_HEADER_COUNT
    max_informational: int = 8  # 1xx responses before the final one; Go's net/http stopped after 5
    max_chunk_line: int = 4 * KIB  # a chunk's size line with its extensions: Go's net/http, maxLineLength
    max_trailers: int = 8 * KIB  # all trailer fields of a chunked body: Tomcat's maxTrailerSize
    # A body of max_body has that many of 256 bytes. HTTP/2 knows a flood of small frames as "data dribble"
    # (CVE-2019-9517); of clients for HTTP/1.1 none is known that bounds the number of chunks.
    max_chunks: int = 262_144
    max_robots: int = (
        576 * KIB
    )  # of a robots.txt, instead of max_body: RFC 9309 §2.5, 500 KiB, and room for its framing
    max_body: int = 64 * MIB  # as it comes on the wire, content coding on; Nutch cuts at 1 MiB, Heritrix at none
    max_expansion: int = 100  # decoded bytes for each encoded one, judged beyond 1 MiB
    max_decoded: int = 256 * MIB
    spool_over: int = 1 * MIB
    receive_buffer: int = 64 * KIB  # SO_RCVBUF; what one read brings is what a TLS connection keeps room for
    idle_timeout_s: float = 60.0
    max_connection_age_s: float | None = None
    max_requests_per_connection: int | None = None
    encodings: tuple[str, ...] = ("gzip", "deflate", "br", "zstd")
    headers: tuple[tuple[str, str], ...] = ()
    host_headers: tuple[tuple[str, tuple[tuple[str, str], ...]], ...] = ()  # by name or "*.name": besides `headers`
    cookies: str = "off"  # or "session": kept in memory while the process lives
    content_types: tuple[str, ...] = ()  # globs; empty: all
    bandwidth: int | None = None  # bytes a second, all hosts together
    bandwidth_per_host: int | None = None
    overrides: tuple[Override, ...] = ()  # of some hosts


FETCH_OVERRIDES: Final = (
    "first_byte_timeout_s", "read_timeout_s", "total_timeout_s", "min_rate", "max_body", "content_types",
    "bandwidth_per_host",
)  # fmt: skip


class HostOptions:
    """The options of exchanges with one host."""

    def __init__(self, options: FetchOptions) -> None:
        self._options = options
        self._overrides = Overrides(options.overrides)

    def of(self, host: str) -> FetchOptions:
        if not self._overrides:
            return self._options
        one = self._overrides.of(host)
        given: dict[str, Any] = {
            name: None if value == 0 else value for name in FETCH_OVERRIDES if (value := getattr(one, name)) is not None
        }
        return replace(self._options, **given) if given else self._options


@dataclass(frozen=True, slots=True)
class ProxyOptions:
    """An HTTP proxy that everything goes through. `host` as URLs spell it; `authorization` is the value of
    Proxy-Authorization, never shown.
    """

    host: str
    port: int
    authorization: str | None = field(default=None, repr=False)

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Secrets:
    """Values of Authorization by origin, and of Proxy-Authorization, and the password of the database; never shown."""

    authorization: Mapping[Origin, str] = field(default_factory=dict, repr=False)
    proxy_authorization: str | None = field(default=None, repr=False)
    database_password: str | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class NetworkOptions:
    """Which addresses may be dialled, and how names become addresses."""

    allow_private: tuple[str, ...] = ()  # networks, "127.0.0.0/8"
    resolve: tuple[tuple[str, tuple[str, ...]], ...] = ()  # name or "*.suffix" → addresses
    nameservers: tuple[str, ...] = ()  # empty: the system's
    ca_file: str | None = None
    bind_address: str | None = None
    address_family: str = "any"  # "any", "ipv4", "ipv6"
    proxy: ProxyOptions | None = None
    dns_timeout_s: float = 5.0
    dns_min_ttl_s: float = 60.0
    dns_max_ttl_s: float = 86_400.0
    dns_negative_ttl_s: float = 600.0  # a name that does not exist
    dns_failure_ttl_s: float = 5.0  # SERVFAIL and timeouts: long enough not to hammer, never "dead"
    dns_cache_size: int = 65_536


@dataclass(frozen=True, slots=True)
class TlsOptions:
    """How servers are verified."""

    verify: bool = True
    min_version: str = "1.2"
    ciphers: str | None = None  # up to TLS 1.2, as openssl-ciphers(1) names them; None: Python's


@dataclass(frozen=True, slots=True)
class ClientOptions:
    """Everything that an HTTP client is made from. `connections_per_address` None: no limit of its own."""

    identity: IdentityOptions = field(default_factory=IdentityOptions)
    fetch: FetchOptions = field(default_factory=FetchOptions)
    network: NetworkOptions = field(default_factory=NetworkOptions)
    tls: TlsOptions = field(default_factory=TlsOptions)
    secrets: Secrets = field(default_factory=Secrets)
    connections_per_host: int = 1
    connections_per_address: int | None = None
