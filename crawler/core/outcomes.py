"""What outcomes mean: labels, retry decisions, back-off of the host, outages of our own network, URLs by outcome."""

import dataclasses
import random
from collections.abc import Mapping
from typing import Final, assert_never

from crawler.core.enums import ErrorType, LeftReason, OutcomeLabel, TaskKind, UrlState
from crawler.core.formatting import count
from crawler.core.models import Denied, Failed, Fetched, NotModified, Outcome, Redirected, dataclass

RETRY_FIRST_S: Final = 5.0
RETRY_FACTOR: Final = 3.0

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

# No connection to the host was possible: its other URLs would fail as well, so the origin backs off.
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
# The cause is this URL or its host: the host backs off and the attempt counts for the URL.
_UNCLEAR_ERRORS: Final = frozenset(
    {
        ErrorType.FIRST_BYTE_TIMEOUT,
        ErrorType.SERVER_CLOSED,
        ErrorType.RESET,
        ErrorType.TLS_ALERT,
        ErrorType.TLS_BAD_RECORD,
        ErrorType.TRUNCATED,  # of a failure: the head itself was incomplete
    }
)
# Errors that are still there a few minutes later.
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
# Transient errors: RFC 9110 §15.5.9 and §15.6, RFC 8470 §5.2, and statuses of content delivery networks that cannot
# reach the server behind them. 501 and 505 to 511 are about the request and stay.
_TRANSIENT: Final = frozenset({408, 425, 500, 502, 504, *range(520, 528), 529, 530})
TEMPORARY_STATUSES: Final = tuple(sorted(_THROTTLED | _TRANSIENT))
TRANSIENT_ERRORS_IN_A_ROW: Final = 10  # of one host without another response between: then the host itself fails


def is_http_error(status_code: int) -> bool:
    """Whether a status means that there is no content: 4xx, 5xx, and a 304 to a request without conditions.

    A 304 to a conditional request is NotModified (RFC 9110 §15.4.5).
    """
    return status_code >= 400 or status_code == 304


# A noun, which has a plural, or what follows the number.
_OUTCOME_WORDS: Final[Mapping[OutcomeLabel, tuple[str, str]]] = {
    OutcomeLabel.OK: ("", " ok"), OutcomeLabel.NOT_MODIFIED: ("", " not modified"),
    OutcomeLabel.REDIRECT: ("redirect", ""), OutcomeLabel.HTTP_ERROR: ("HTTP error", ""),
    OutcomeLabel.ERROR: ("error", ""), OutcomeLabel.TRUNCATED: ("", " truncated"), OutcomeLabel.DENIED: ("", " denied"),
}  # fmt: skip


def outcome_label(outcome: Outcome) -> OutcomeLabel:
    """The label that attempts are counted by.

    A truncated response is `truncated` whatever its status. One that is complete but unusable, such as a decompression
    bomb, is an `error`.
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


def outcomes_text(outcomes: Mapping[str, int]) -> str:
    """Attempts by outcome, for people, without what is 0: "84 ok, 3 redirects, 1 HTTP error"."""
    return ", ".join(
        f"{count(number, noun)}{adjective}"
        for label, (noun, adjective) in _OUTCOME_WORDS.items()
        if (number := outcomes.get(label, 0))
    )


def failure_text(error_type: ErrorType, detail: str) -> str:
    """The failure and the configuration key that helps, as text: "loopback (RFC 1122); network.allow_private can list
    …".
    """
    return "; ".join(filter(None, (detail or error_type.replace("_", " "), _ADVICE.get(error_type))))


def response_of(outcome: Outcome) -> Fetched | None:
    """The response of an attempt, None if no complete head arrived."""
    match outcome:
        case Fetched():
            return outcome
        case NotModified() | Redirected():
            return outcome.fetched
        case Failed() | Denied():
            return None
        case _:
            assert_never(outcome)


def is_connection_error(error: ErrorType) -> bool:
    """Whether there was no connection, so that the attempt says nothing about the URL."""
    return error in _CONNECTION_ERRORS


def backs_off_origin(error: ErrorType, kind: TaskKind = TaskKind.PAGE) -> bool:
    """Whether the whole origin backs off, not only the URL. For a robots.txt it does so after a protocol error as well:
    all URLs of the origin wait for that file.
    """
    if error in _CONNECTION_ERRORS or error in _UNCLEAR_ERRORS:
        return True
    return error is ErrorType.PROTOCOL_ERROR and kind is TaskKind.ROBOTS


def is_permanent(error: ErrorType) -> bool:
    """Whether another attempt within minutes would fail as well."""
    return error in _PERMANENT_ERRORS


def is_throttled(outcome: Outcome) -> bool:
    """Whether the server refused for now: 429 or 503 (RFC 6585 §4, RFC 9110 §15.6.4)."""
    return isinstance(outcome, Fetched) and outcome.head.status_code in _THROTTLED


def is_transient(outcome: Outcome) -> bool:
    """Whether the status is of a temporary error, which mostly concerns this one URL."""
    return isinstance(outcome, Fetched) and outcome.head.status_code in _TRANSIENT


@dataclass(frozen=True, slots=True)
class RetryDecision:
    """The state of a URL after an attempt."""

    state: UrlState
    after_s: float | None = None  # seconds until a waiting URL is due; None for a final state


def retry_decision(outcome: Outcome, *, attempt: int, max_attempts: int, rng: random.Random) -> RetryDecision:
    """Decide whether and when a page is fetched again after attempt number `attempt`.

    Most statuses are final. So is a redirect, unless it began a session. After a transient error, such as status 500 or
    502, the URL waits, longer each time, and is given up after `max_attempts`. After an error of the host alone, such
    as 429 or 503, it is never given up.
    """
    wait = RETRY_FIRST_S * RETRY_FACTOR ** min(attempt - 1, 8) * (1 + rng.random() / 4)
    match outcome:
        case Redirected() if outcome.fetched.session_began and attempt < max_attempts:
            return RetryDecision(UrlState.WAITING, 0.0)  # with its cookie the response may differ
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
                return RetryDecision(UrlState.WAITING, wait)  # an error of the host, not of the URL
            # a body cut at one of our limits would be cut there again; after a fault, a retry may receive it whole
            if outcome.error_type is None and not is_transient(outcome):
                return RetryDecision(UrlState.DONE)
            transient = outcome.error_type not in (ErrorType.TOO_LARGE, ErrorType.CONTENT_ERROR)
        case _:
            assert_never(outcome)
    if not transient or attempt >= max_attempts:
        return RetryDecision(UrlState.GAVE_UP)
    return RetryDecision(UrlState.WAITING, wait)


# -- outages of our own network

OUTAGE_HOSTS: Final = 4  # hosts that responded before and now fail (2 if there are no more) …
OUTAGE_QUIET_S: Final = 1.0  # … while no host has responded for so long
OUTAGE_PROBE_S: Final = 5.0  # between two requests during an outage

# The errors of a cut cable, a dead resolver or a lost route. A bad certificate or an unknown name is the host's own.
OUTAGE_ERRORS: Final = frozenset(
    {
        ErrorType.DNS_FAILURE,
        ErrorType.DNS_TIMEOUT,
        ErrorType.CONNECT_REFUSED,
        ErrorType.CONNECT_TIMEOUT,
        ErrorType.CONNECT_UNREACHABLE,
        ErrorType.CONNECT_FAILED,
        ErrorType.TLS_TIMEOUT,
        ErrorType.TLS_FAILED,
        ErrorType.FIRST_BYTE_TIMEOUT,
        ErrorType.SERVER_CLOSED,
        ErrorType.RESET,
    }
)


def is_outage_error(error: ErrorType) -> bool:
    """Whether a failure may come from our network."""
    return error in OUTAGE_ERRORS


@dataclasses.dataclass(slots=True)
class OutageWatch:
    """Detects an outage of our own network: hosts that responded before fail, and no host responds.

    Responses, failures and the monotonic time are passed in. Hosts that never responded do not count, so a list of dead
    seeds is no outage.
    """

    failing: dict[int, float] = dataclasses.field(default_factory=dict)  # host id → time of its first failure
    since_mono: float | None = None  # begin of the outage: the first of these failures; None: no outage
    last_error: ErrorType | None = None
    _quiet_mono: float = 0.0  # no host has responded since

    @property
    def is_on(self) -> bool:
        return self.since_mono is not None

    @property
    def is_suspected(self) -> bool:
        """Whether two hosts or more fail, and none has responded since, so that the fault may not be the URL's."""
        return len(self.failing) > 1

    def failed(self, host_id: int, now_mono: float, error: ErrorType, *, good_hosts: int) -> bool:
        """Note a failure that may come from our network. `good_hosts`: the number of hosts that responded before, of
        which this host is one. Returns whether an outage is now detected.
        """
        self.last_error = error
        if not self.failing:
            self._quiet_mono = now_mono
        self.failing.setdefault(host_id, now_mono)
        enough = max(2, min(OUTAGE_HOSTS, good_hosts))
        if self.is_on or len(self.failing) < enough or now_mono - self._quiet_mono < OUTAGE_QUIET_S:
            return False
        self.since_mono = min(self.failing.values())
        return True

    def responded(self, now_mono: float) -> float | None:
        """Note a response of any status. If it ends an outage, returns the seconds that the outage lasted."""
        self.failing.clear()
        since, self.since_mono = self.since_mono, None
        return None if since is None else now_mono - since


# -- URLs by outcome

# Words for people, the same in every view; the glossary of docs/reference/commands.md explains them.
STATE_TEXTS: Final[Mapping[str, str]] = {
    UrlState.QUEUED: "queued",
    UrlState.WAITING: "due later",
    UrlState.SUSPECT: "set aside",
    UrlState.DONE: "fetched",
    UrlState.DENIED: "denied",
    UrlState.GAVE_UP: "given up",
    UrlState.FORGOTTEN: "taken down",
}
_LEFT_TEXTS: Final[Mapping[LeftReason, str]] = {
    LeftReason.NOT_YET: "not requested yet",
    LeftReason.RETRY: "due later",
    LeftReason.BACKOFF: "backing off",
    LeftReason.ROBOTS: "without a readable robots.txt",
    LeftReason.BLOCKED: "blocked",
    LeftReason.LIMIT: "held back by a limit",
    LeftReason.TRAPS: "set aside",
}


def queue_text(by_state: Mapping[str, int], held_back_by: Mapping[str, int] | None = None) -> str:
    """The URLs that are left, by state: "39 queued (5 held back by a block), 2 due later, 1 set aside"."""
    causes = ((LeftReason.LIMIT, "a limit"), (LeftReason.BLOCKED, "a block"))
    numbers = [(cause, (held_back_by or {}).get(reason, 0)) for reason, cause in causes]
    parts = ", ".join(f"{count(number)} held back by {cause}" for cause, number in numbers if number)
    held = f" ({parts})" if parts else ""
    suspects = by_state.get(UrlState.SUSPECT, 0)
    return (
        f"{count(by_state.get(UrlState.QUEUED, 0))} queued{held}, {count(by_state.get(UrlState.WAITING, 0))} due later"
        + (f", {count(suspects)} set aside" if suspects else "")
    )


@dataclass(frozen=True, slots=True)
class UrlCounts:
    """Numbers of URLs by outcome, over the life of an output directory. They are the same in every view.

    Links that a rule refused before they were stored are not counted. Invariant: `found` is the sum of the others.
    """

    found: int
    fetched: int  # had a final response, whatever its status
    refused: int  # by a rule
    gave_up: int
    left: int  # may still be fetched: queued, waiting for another attempt, or suspects
    taken_down: int  # by an operator

    @classmethod
    def of(cls, by_state: Mapping[str, int]) -> "UrlCounts":
        """Sum up the number of URLs in each `UrlState`. Raises ValueError for a negative number."""
        if wrong := {str(state): by_state[state] for state in UrlState if by_state.get(state, 0) < 0}:
            raise ValueError(f"negative counts of URLs: {wrong}")
        fetched, refused, gave_up, taken_down, *left = (
            by_state.get(state, 0)
            for state in (
                UrlState.DONE, UrlState.DENIED, UrlState.GAVE_UP, UrlState.FORGOTTEN,
                UrlState.QUEUED, UrlState.WAITING, UrlState.SUSPECT,
            )
        )  # fmt: skip
        found = fetched + refused + gave_up + taken_down + sum(left)
        return cls(found, fetched, refused, gave_up, sum(left), taken_down)

    def text(self, left_by: Mapping[str, int] | None = None) -> str:
        """The numbers as text for people, without zeros: "9 fetched, 2 left (2 due later)"."""
        reasons = ", ".join(f"{count(urls)} {_LEFT_TEXTS[LeftReason(why)]}" for why, urls in (left_by or {}).items())
        named = {
            "fetched": self.fetched,
            "denied": self.refused,
            "given up": self.gave_up,
            f"left{f' ({reasons})' if reasons else ''}": self.left,
            "taken down": self.taken_down,
        }
        return ", ".join(f"{count(urls)} {name}" for name, urls in named.items() if urls)


def urls_text(by_state: Mapping[str, int], held_back_by: Mapping[str, int] | None = None) -> str:
    """All URLs, by what became of them: "67 found: 16 fetched, 3 denied, 48 queued, 0 due later"."""
    urls = UrlCounts.of(by_state)
    ended = dataclasses.replace(urls, left=0).text()
    return f"{count(urls.found)} found: {f'{ended}, ' if ended else ''}{queue_text(by_state, held_back_by)}"
