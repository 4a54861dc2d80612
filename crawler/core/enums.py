"""Closed vocabularies: every word that has a fixed meaning in the log, the store, the metrics and the documentation.

A released word keeps its meaning, since operators' scripts match on it. The store keeps the text, not a number, so a
word may be added anywhere in its enumeration.
"""

from enum import StrEnum


class TaskKind(StrEnum):
    """The kind of resource that a task visits."""

    PAGE = "page"
    ROBOTS = "robots"
    SITEMAP = "sitemap"
    FEED = "feed"
    PROBE = "probe"  # a URL that should not exist, to see how the host reports that


class Source(StrEnum):
    """How a URL was found."""

    SEED = "seed"
    LINK = "link"  # a, area, iframe, frame, link rel=next
    REDIRECT = "redirect"  # Location, meta refresh
    REQUISITE = "requisite"  # what a page needs to be shown: images, styles, scripts
    CANONICAL = "canonical"
    ALTERNATE = "alternate"
    ROBOTS = "robots"  # a Sitemap line of robots.txt, or the usual URL of a sitemap
    INDEX = "index"  # a sitemap in an index of sitemaps
    SITEMAP = "sitemap"  # an entry of a sitemap
    FEED = "feed"  # a feed that a page names
    ENTRY = "entry"  # an entry of a feed


class UrlState(StrEnum):
    """The state of a stored URL."""

    QUEUED = "queued"  # may be leased now
    WAITING = "waiting"  # due at visit.next_at
    DONE = "done"  # it had a response with a final status
    DENIED = "denied"  # refused by robots or scope when leased
    GAVE_UP = "gave_up"  # attempts exhausted
    SUSPECT = "suspect"  # its template looks endless: it is fetched after all others of its host, or left
    FORGOTTEN = "forgotten"  # taken down: only its key is left, so that it is never stored again


class HostState(StrEnum):
    """Whether a host may get requests."""

    NEW = "new"  # robots.txt not read yet
    READY = "ready"
    BACKOFF = "backoff"  # after errors, 429 or 503
    HELD = "held"  # robots.txt is unreachable: nothing is fetched until it can be read
    BLOCKED = "blocked"  # by an operator: it gets no request


class RetryEffect(StrEnum):
    """What `crawler retry` did about a host."""

    WOKEN = "woken"  # it backed off
    ROBOTS = "robots_requested"  # it was held: its robots.txt is requested anew
    KEPT = "kept"  # the server itself said for how long it is not to be requested
    BLOCKED = "blocked"  # by the operator, or switched off by an override
    READY = "ready"  # it neither backs off nor is held


class OutcomeLabel(StrEnum):
    """How an attempt ended, for the log; see `core.outcomes.outcome_label`."""

    OK = "ok"
    NOT_MODIFIED = "not_modified"
    REDIRECT = "redirect"
    HTTP_ERROR = "http_error"
    ERROR = "error"
    TRUNCATED = "truncated"
    DENIED = "denied"


class Next(StrEnum):
    """What happens to the URL after an attempt."""

    DONE = "done"
    RETRY = "retry"
    REVISIT = "revisit"
    GAVE_UP = "gave_up"


class DenyReason(StrEnum):
    """Why a URL is not fetched. The rule that decided stands beside it (`Denied.rule`)."""

    ROBOTS = "robots"
    ROBOTS_UNREACHABLE = "robots_unreachable"
    SCOPE_SCHEME = "scope_scheme"
    SCOPE_HOST = "scope_host"
    SCOPE_INCLUDE = "scope_include"
    SCOPE_EXCLUDE = "scope_exclude"
    SCOPE_DEPTH = "scope_depth"
    NOFOLLOW = "nofollow"
    REQUISITES_OFF = "requisites_off"
    REDIRECT_LIMIT = "redirect_limit"
    CROSS_SITE = "cross_site"  # in a sitemap of another site, which the robots.txt of its own site does not name
    URL_INVALID = "url_invalid"
    URL_TOO_LONG = "url_too_long"
    PORT_BLOCKED = "port_blocked"
    TRAP_PATH = "trap_path"  # repeated folders, or too many folders or parameters


class ErrorType(StrEnum):
    """Why an attempt got no complete response."""

    DNS_NOT_FOUND = "dns_not_found"  # NXDOMAIN, or no address records
    DNS_FAILURE = "dns_failure"  # SERVFAIL, REFUSED, malformed
    DNS_TIMEOUT = "dns_timeout"
    ADDRESS_DENIED = "address_denied"
    CONNECT_REFUSED = "connect_refused"
    CONNECT_TIMEOUT = "connect_timeout"
    CONNECT_UNREACHABLE = "connect_unreachable"
    CONNECT_FAILED = "connect_failed"
    NO_FILE_DESCRIPTORS = "no_file_descriptors"
    TLS_TIMEOUT = "tls_timeout"
    TLS_CERT_EXPIRED = "tls_cert_expired"
    TLS_CERT_NOT_YET_VALID = "tls_cert_not_yet_valid"
    TLS_HOST_MISMATCH = "tls_host_mismatch"
    TLS_SELF_SIGNED = "tls_self_signed"
    TLS_UNKNOWN_ISSUER = "tls_unknown_issuer"
    TLS_CERT_INVALID = "tls_cert_invalid"  # verification failed for another reason
    TLS_NO_SHARED_PROTOCOL = "tls_no_shared_protocol"
    TLS_PROTOCOL_ERROR = "tls_protocol_error"  # the bytes that came instead of a handshake are no TLS
    TLS_CLIENT_CERTIFICATE = "tls_client_certificate"  # the server requires a client certificate
    TLS_ALERT = "tls_alert"  # the server ended an open connection with a fatal alert
    TLS_BAD_RECORD = "tls_bad_record"  # bytes on an open connection cannot be decrypted
    TLS_FAILED = "tls_failed"
    PROXY_FAILED = "proxy_failed"  # the proxy is unreachable, or speaks no HTTP
    PROXY_REFUSED = "proxy_refused"  # the proxy did not open the tunnel
    PROXY_AUTH = "proxy_auth"  # the proxy wants credentials, or other ones
    FIRST_BYTE_TIMEOUT = "first_byte_timeout"
    READ_TIMEOUT = "read_timeout"
    TOTAL_TIMEOUT = "total_timeout"
    TOO_SLOW = "too_slow"  # below fetch.min_rate
    SERVER_CLOSED = "server_closed"  # closed before the first byte of the response
    RESET = "reset"
    TRUNCATED = "truncated"  # fewer bytes than the framing promised
    PROTOCOL_ERROR = "protocol_error"
    TOO_LARGE = "too_large"
    CONTENT_ERROR = "content_error"
    LOCAL_IO = "local_io"  # a body could not be spooled to our own disk


class Stage(StrEnum):
    """The step of opening a connection that failed (`conn_fail`)."""

    RESOLVE = "resolve"
    ADDRESS = "address"
    CONNECT = "connect"
    PROXY = "proxy"
    TLS = "tls"


class CloseReason(StrEnum):
    """Why a connection was closed."""

    IDLE_TIMEOUT = "idle_timeout"
    MAX_REQUESTS = "max_requests"
    MAX_AGE = "max_age"
    SERVER_CLOSE = "server_close"  # announced (Connection: close, HTTP/1.0) or an orderly end
    RESET = "reset"
    TIMEOUT = "timeout"
    PROTOCOL_ERROR = "protocol_error"
    UNSOLICITED = "unsolicited"
    UNREAD = "unread"  # the rest of a body was not needed
    EVICTED = "evicted"
    BLOCKED = "blocked"  # an operator blocked the host
    SHUTDOWN = "shutdown"


class TruncatedReason(StrEnum):
    """Why a record is shorter than the response: the values of WARC-Truncated (WARC 1.1 §5.13)."""

    LENGTH = "length"
    TIME = "time"
    DISCONNECT = "disconnect"
    UNSPECIFIED = "unspecified"
    CONTENT_TYPE = "content_type"  # not in fetch.content_types; §5.13 allows more reasons


class CodingFault(StrEnum):
    """A fault in the content coding of a body that could be used in spite of it."""

    TRUNCATED = "truncated"  # it ends early: what came before is used
    DAMAGED = "damaged"  # it is damaged, or its checksum is wrong: what came before is used
    TRAILING = "trailing"  # bytes after its end are ignored
    NOT_CODED = "not_coded"  # the bytes do not have the coding that a header names: they are used as they came
    UNKNOWN = "unknown"  # an unknown coding, or too many codings: nothing was decoded


class ReadingFault(StrEnum):
    """Why a complete page was read in part only."""

    MAX_HTML = "max_html"  # longer than content.max_html: the rest was not read
    MAX_LINKS = "max_links"  # more references than content.max_links
    LIMIT = "limit"  # it takes more steps than PCRE2 allows: the links of its beginning count, of a style sheet none


class CrawlState(StrEnum):
    """What a running crawl does."""

    CRAWLING = "crawling"
    IDLE = "idle"  # nothing to do now
    LINGERING = "lingering"  # it waits for what is due within crawl.linger
    OFF_HOURS = "off_hours"  # outside fetch.hours
    OUTAGE = "outage"  # every host that responded before fails
    PAUSED = "paused"  # by the operator, or because nothing can be stored
    DRAINING = "draining"  # it finishes what is in flight, then ends


class Bottleneck(StrEnum):
    """What would have to change for a running crawl to be faster; `engine.monitoring.bottleneck` decides."""

    OPERATOR = "operator"  # a pause, or blocks that cover most of the queue
    DISK = "disk"  # nothing can be stored, or storing takes longer than fetching
    OUTAGE = "outage"
    HOURS = "hours"  # fetch.hours
    EMPTY = "empty"  # nothing to do
    BANDWIDTH = "bandwidth"  # fetch.bandwidth
    CPU = "cpu"
    NETWORK = "network"  # responses are waited for
    POLITENESS = "politeness"  # delays and back-off


class StoppedBy(StrEnum):
    """Why `crawl` ended."""

    EMPTY = "empty"
    TRAPS = "traps"  # the URLs left belong to parts of sites that look endless
    WAITING = "waiting"
    MAX_URLS = "max_urls"
    MAX_DURATION = "max_duration"
    SIGNAL = "signal"
    OPERATOR = "operator"  # `crawler stop`
    DISK = "disk"


class LeftReason(StrEnum):
    """Why URLs are left at the end of a crawl."""

    NOT_YET = "not_yet"  # the crawl ended before they were fetched
    RETRY = "retry"  # an attempt failed, the next is due later
    BACKOFF = "backoff"  # of their host or domain, after errors, 429 or 503
    ROBOTS = "robots_unreachable"
    BLOCKED = "blocked"  # by an operator
    LIMIT = "limit"  # scope.max_urls, scope.max_urls_per_host
    TRAPS = "traps"  # they belong to parts of sites that look endless


class SinkFileState(StrEnum):
    """The state of an output file, on the disk and in the store."""

    OPEN = "open"
    CLOSING = "closing"  # complete and synced; about to be renamed
    CLOSED = "closed"
    LOSING = "losing"  # lost while it was written; the URLs in it are being queued again
    LOST = "lost"  # the URLs in it are queued again


class FileLoss(StrEnum):
    """How an output file was lost while it was written."""

    DELETED = "deleted"  # or replaced by another file of that name
    MOVED = "moved"  # all its bytes are under another name
    CUT = "cut"  # it is shorter than what was committed to it


class Exit:
    """Exit codes of the command; 65 and above follow sysexits(3)."""

    OK = 0
    FINDINGS = 1
    USAGE = 2
    STATE_CORRUPT = 65
    UNREACHABLE = 69
    BUG = 70
    IO = 74
    WAITING = 75
    PERMISSION = 77
    CONFIGURATION = 78
