"""What came of an attempt: its word in the log, whether the URL is tried again, and what its host learns from it."""

import random
from collections.abc import Mapping
from typing import Final, assert_never

from crawler.core.enums import ErrorType, OutcomeLabel, TaskKind, UrlState
from crawler.core.frozen import dataclass
from crawler.core.models import Denied, Failed, Fetched, NotModified, Outcome, Redirected

# Only where the sentence of the failure does not say it.
_ADVICE: Final[Mapping[ErrorType, str]] = {
    ErrorType.DNS_FAILURE: "network.nameservers can name other DNS servers",
    ErrorType.DNS_TIMEOUT: "network.nameservers can name other DNS servers",
    ErrorType.ADDRESS_DENIED: "network.allow_private can list its network",
    ErrorType.CONNECT_TIMEOUT: "fetch.connect_timeout can allow more time",
    ErrorType.NO_FILE_DESCRIPTORS: "fetch.connections can be lowered, or ulimit -n raised",
    ErrorType.TLS_TIMEOUT: "fetch.tls_timeout can allow more time",
    ErrorType.TLS_SELF_SIGNED: "network.ca_file can name a certificate of your own",
    ErrorType.TLS_UNKNOWN_ISSUER: "network.ca_file can name a CA of your own",
    ErrorType.TLS_PROTOCOL_ERROR: "the server may speak plain HTTP on this port",
    ErrorType.TLS_CLIENT_CERTIFICATE: "the server requires a client certificate, and this crawler has none",
    ErrorType.PROXY_AUTH: "identity.secrets can hold them",
    ErrorType.FIRST_BYTE_TIMEOUT: "fetch.first_byte_timeout can allow more time",
    ErrorType.READ_TIMEOUT: "fetch.read_timeout can allow more time",
    ErrorType.TOTAL_TIMEOUT: "fetch.total_timeout can allow more time",
    ErrorType.TOO_SLOW: "fetch.min_rate can be lowered",
    ErrorType.TRUNCATED: "fewer bytes came than its framing promised",
    ErrorType.TOO_LARGE: "fetch.max_decoded and fetch.max_expansion can allow more",
}


def is_http_error(status_code: int) -> bool:
    """Whether a status says that there is no content to be had: 4xx, 5xx, and a 304 that nobody asked for. That of a
    conditional request is NotModified (RFC 9110 §15.4.5).
    """
    return status_code >= 400 or status_code == 304


def outcome_label(outcome: Outcome) -> OutcomeLabel:
    """One word a person can count by. A truncated answer is `truncated` whatever its status; one that came whole and
    could not be used, as a decompression bomb, is an `error`.
    """
    match outcome:
        case Fetched():
            if outcome.truncated is not None:
                return OutcomeLabel.TRUNCATED
            if outcome.error_type is not None:
                return OutcomeLabel.ERROR
            return OutcomeLabel.HTTP_ERROR if is_http_error(outcome.head.status_code) else OutcomeLabel.OK
        case NotModified():
            return OutcomeLabel.NOT_MODIFIED
        case Redirected():
            return OutcomeLabel.REDIRECT
        case Failed():
            return OutcomeLabel.ERROR
        case Denied():
            return OutcomeLabel.DENIED
        case _:
            assert_never(outcome)


def failure_text(error_type: ErrorType, detail: str) -> str:
    """What failed and which configuration key helps: "loopback (RFC 1122); network.allow_private can list …"."""
    return "; ".join(filter(None, (detail or error_type.replace("_", " "), _ADVICE.get(error_type))))


def response_of(outcome: Outcome) -> Fetched | None:
    """The response behind an outcome, if a head arrived."""
    match outcome:
        case Fetched():
            return outcome
        case NotModified() | Redirected():
            return outcome.fetched
        case Failed() | Denied():
            return None
        case _:
            assert_never(outcome)


RETRY_FIRST_S: Final = 5.0
RETRY_FACTOR: Final = 3.0

# The host could not be spoken to at all: its other URLs would fare the same, so the origin rests.
_CONNECTION_ERRORS: Final = frozenset(
    {
        ErrorType.DNS_NOT_FOUND,
        ErrorType.DNS_FAILURE,
        ErrorType.DNS_TIMEOUT,
        ErrorType.ADDRESS_DENIED,
        ErrorType.CONNECT_REFUSED,
        ErrorType.CONNECT_TIMEOUT,
        ErrorType.CONNECT_UNREACHABLE,
        ErrorType.CONNECT_FAILED,
        ErrorType.TLS_TIMEOUT,
        ErrorType.TLS_CERT_EXPIRED,
        ErrorType.TLS_CERT_NOT_YET_VALID,
        ErrorType.TLS_HOST_MISMATCH,
        ErrorType.TLS_SELF_SIGNED,
        ErrorType.TLS_UNKNOWN_ISSUER,
        ErrorType.TLS_CERT_INVALID,
        ErrorType.TLS_NO_SHARED_PROTOCOL,
        ErrorType.TLS_PROTOCOL_ERROR,
        ErrorType.TLS_CLIENT_CERTIFICATE,
        ErrorType.TLS_FAILED,
        ErrorType.PROXY_FAILED,
        ErrorType.PROXY_REFUSED,
        ErrorType.PROXY_AUTH,
        ErrorType.NO_FILE_DESCRIPTORS,
    }
)
# May be this one URL's fault or the host's; the host rests as well, the URL's attempts count.
_DOUBTFUL_ERRORS: Final = frozenset(
    # TRUNCATED: only of a failure, where not even the head came whole
    {
        ErrorType.FIRST_BYTE_TIMEOUT,
        ErrorType.SERVER_CLOSED,
        ErrorType.RESET,
        ErrorType.TLS_ALERT,
        ErrorType.TLS_BAD_RECORD,
        ErrorType.TRUNCATED,
    }
)
# Nothing that waiting a few seconds could mend.
_PERMANENT_ERRORS: Final = frozenset(
    {
        ErrorType.PROTOCOL_ERROR,  # what a server sends that speaks no HTTP/1.1, it sends again
        ErrorType.DNS_NOT_FOUND,
        ErrorType.ADDRESS_DENIED,
        ErrorType.TLS_CERT_EXPIRED,
        ErrorType.TLS_CERT_NOT_YET_VALID,
        ErrorType.TLS_HOST_MISMATCH,
        ErrorType.TLS_SELF_SIGNED,
        ErrorType.TLS_UNKNOWN_ISSUER,
        ErrorType.TLS_CERT_INVALID,
        ErrorType.TLS_NO_SHARED_PROTOCOL,
        ErrorType.TLS_CLIENT_CERTIFICATE,
        ErrorType.PROXY_AUTH,
    }
)
_THROTTLED: Final = frozenset({429, 503})
# Faults of the moment: RFC 9110 §15.5.9 and §15.6, RFC 8470 §5.2, and what content delivery networks say when they
# cannot reach the server behind them. 501 and 505 to 511 speak of the request, not of the moment.
_TRANSIENT: Final = frozenset({408, 425, 500, 502, 504, *range(520, 528), 529, 530})
TRANSIENT_ERRORS_IN_A_ROW: Final = 10  # from one host with no other answer between: it is the host that fails


def is_connection_error(error: ErrorType) -> bool:
    """Whether no connection came about, so that the attempt says nothing about the URL."""
    return error in _CONNECTION_ERRORS


def backs_off_origin(error: ErrorType, kind: TaskKind = TaskKind.PAGE) -> bool:
    """Whether the whole origin should rest, not only the URL. On its robots.txt every URL of the origin waits."""
    if error in _CONNECTION_ERRORS or error in _DOUBTFUL_ERRORS:
        return True
    return error is ErrorType.PROTOCOL_ERROR and kind is TaskKind.ROBOTS


def is_permanent(error: ErrorType) -> bool:
    """Whether trying again within minutes is pointless."""
    return error in _PERMANENT_ERRORS


def is_throttled(outcome: Outcome) -> bool:
    """Whether the server asked for rest: 429 or 503 (RFC 6585 §4, RFC 9110 §15.6.4)."""
    return isinstance(outcome, Fetched) and outcome.head.status_code in _THROTTLED


def is_transient(outcome: Outcome) -> bool:
    """Whether a status says that the same request may be answered well in a moment; mostly the one URL's own matter."""
    return isinstance(outcome, Fetched) and outcome.head.status_code in _TRANSIENT


@dataclass(frozen=True, slots=True)
class RetryDecision:
    """`after_s` is when a waiting URL is due, in seconds from now; None for a final state."""

    state: UrlState
    after_s: float | None = None


def retry_decision(outcome: Outcome, *, attempt: int, max_attempts: int, rng: random.Random) -> RetryDecision:
    """Where a page's URL stands after attempt number `attempt`.

    Most statuses are an answer and final, and so is a redirect, unless it began a session. A transient failure, a
    status as 500 or 502 among them, waits, longer each time, and is given up after `max_attempts`; one that is the
    host's alone, as 429 and 503, is never given up.
    """
    wait = RETRY_FIRST_S * RETRY_FACTOR ** min(attempt - 1, 8) * (1 + rng.random() / 4)
    match outcome:
        case Redirected() if outcome.fetched.session_began and attempt < max_attempts:
            return RetryDecision(UrlState.WAITING, 0.0)  # with its cookie it may get another answer
        case NotModified() | Redirected():
            return RetryDecision(UrlState.DONE)
        case Denied():
            return RetryDecision(UrlState.DENIED)
        case Failed():
            if is_connection_error(outcome.error_type):
                return RetryDecision(UrlState.WAITING, wait)
            transient = outcome.retryable
        case Fetched():
            if outcome.head.status_code in _THROTTLED:
                return RetryDecision(UrlState.WAITING, wait)  # the host was busy; the URL did nothing
            # a body cut at a limit of ours will be cut again; one that a fault cut short may come whole
            if outcome.error_type is None and not is_transient(outcome):
                return RetryDecision(UrlState.DONE)
            transient = outcome.error_type not in (ErrorType.TOO_LARGE, ErrorType.CONTENT_ERROR)
        case _:
            assert_never(outcome)
    if not transient or attempt >= max_attempts:
        return RetryDecision(UrlState.GAVE_UP)
    return RetryDecision(UrlState.WAITING, wait)
