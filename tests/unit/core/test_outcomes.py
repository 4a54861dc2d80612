"""Retry decisions, error classes and labels of outcomes."""

import random
from dataclasses import replace

import pytest

from crawler.core import outcomes
from crawler.core.body import EMPTY
from crawler.core.enums import DenyReason, ErrorType, OutcomeLabel, TaskKind, TruncatedReason, UrlState
from crawler.core.models import (
    ConnectionInfo,
    Denied,
    Failed,
    Fetched,
    Head,
    NotModified,
    Outcome,
    Redirected,
    Timings,
)
from crawler.core.outcomes import outcome_label, response_of


def response(status: int, *, error: ErrorType | None = None, truncated: TruncatedReason | None = None) -> Fetched:
    head = Head(status, "", "1.1", ())
    connection = ConnectionInfo(1, 1, "127.0.0.1")
    return Fetched(head, b"", b"", EMPTY, EMPTY, Timings(), connection, 0.0, truncated=truncated, error_type=error)


def failed(error: ErrorType, *, retryable: bool = True) -> Failed:
    return Failed(error, "", retryable)


CUT = response(200, error=ErrorType.RESET, truncated=TruncatedReason.DISCONNECT)
BEGAN = Redirected(replace(response(302), session_began=True), "https://e.org/")
CASES: list[tuple[Outcome, int, UrlState]] = [
    (response(200), 1, UrlState.DONE),
    (response(404), 1, UrlState.DONE),
    (response(501), 1, UrlState.DONE),
    (response(500), 1, UrlState.WAITING),
    (response(500), 4, UrlState.GAVE_UP),
    (response(500, error=ErrorType.TOO_LARGE), 1, UrlState.GAVE_UP),
    *((response(status), 3, UrlState.WAITING) for status in (408, 425, 502, 504, 520, 527, 529, 530)),
    (response(200, truncated=TruncatedReason.LENGTH), 1, UrlState.DONE),
    (response(200, error=ErrorType.TOO_LARGE), 1, UrlState.GAVE_UP),
    (response(200, error=ErrorType.TOO_LARGE, truncated=TruncatedReason.LENGTH), 1, UrlState.GAVE_UP),
    (response(503), 1, UrlState.WAITING),
    (response(429), 99, UrlState.WAITING),
    (CUT, 1, UrlState.WAITING),
    (CUT, 4, UrlState.GAVE_UP),
    (failed(ErrorType.FIRST_BYTE_TIMEOUT), 3, UrlState.WAITING),
    (failed(ErrorType.FIRST_BYTE_TIMEOUT), 4, UrlState.GAVE_UP),
    (failed(ErrorType.PROTOCOL_ERROR, retryable=False), 1, UrlState.GAVE_UP),
    (failed(ErrorType.CONNECT_REFUSED), 99, UrlState.WAITING),
    (failed(ErrorType.DNS_NOT_FOUND, retryable=False), 99, UrlState.WAITING),
    (Denied(DenyReason.ROBOTS, "line 1"), 1, UrlState.DENIED),
    (NotModified(response(304)), 1, UrlState.DONE),
    (Redirected(response(301), "https://e.org/"), 1, UrlState.DONE),
    (BEGAN, 1, UrlState.WAITING),
    (BEGAN, 4, UrlState.DONE),  # a server that makes up a new cookie each time is followed in the end
]


@pytest.mark.parametrize(("outcome", "attempt", "state"), CASES)
def test_the_retry_decision(outcome: Outcome, attempt: int, state: UrlState) -> None:
    """A response is final; after a transient error the URL waits, up to four attempts; errors of a host cost none."""
    decision = outcomes.retry_decision(outcome, attempt=attempt, max_attempts=4, rng=random.Random(1))
    assert decision.state is state
    assert (decision.after_s is not None) == (state is UrlState.WAITING)


def test_retries_wait_longer_each_time() -> None:
    """5, 15, 45 seconds, with up to a quarter of jitter."""
    waits = [
        outcomes.retry_decision(CUT, attempt=n, max_attempts=9, rng=random.Random(1)).after_s or 0 for n in (1, 2, 3)
    ]
    for wait, base in zip(waits, (5, 15, 45), strict=True):
        assert base <= wait <= base * 1.25


def test_the_classes_of_errors_are_consistent() -> None:
    """All connection errors back off the origin. Permanent errors are connection errors, except that of one URL."""
    connection = {error for error in ErrorType if outcomes.is_connection_error(error)}
    assert connection < {error for error in ErrorType if outcomes.backs_off_origin(error)}
    assert {error for error in ErrorType if outcomes.is_permanent(error)} - connection == {ErrorType.PROTOCOL_ERROR}
    assert not outcomes.backs_off_origin(ErrorType.PROTOCOL_ERROR)
    assert outcomes.backs_off_origin(ErrorType.PROTOCOL_ERROR, TaskKind.ROBOTS)
    assert ErrorType.RESET not in connection
    assert ErrorType.TLS_CERT_EXPIRED in connection


@pytest.mark.parametrize(
    ("outcome", "word"),
    [
        (response(200), OutcomeLabel.OK),
        (response(304), OutcomeLabel.HTTP_ERROR),
        (response(404), OutcomeLabel.HTTP_ERROR),
        (CUT, OutcomeLabel.TRUNCATED),
        (response(200, error=ErrorType.TOO_LARGE), OutcomeLabel.ERROR),
        (failed(ErrorType.RESET), OutcomeLabel.ERROR),
        (NotModified(response(304)), OutcomeLabel.NOT_MODIFIED),
        (Redirected(response(302), "https://e.org/"), OutcomeLabel.REDIRECT),
        (Denied(DenyReason.ROBOTS, ""), OutcomeLabel.DENIED),
    ],
)
def test_labels_of_outcomes(outcome: Outcome, word: OutcomeLabel) -> None:
    """Each outcome has one label in the log."""
    assert outcome_label(outcome) is word
    assert (response_of(outcome) is None) == isinstance(outcome, Failed | Denied)
