"""The log's word for an outcome: a total function, closed by the type checker."""

from typing import assert_never

from crawler.core.values import Denied, Failed, Fetched, NotModified, Outcome, Redirected
from crawler.core.vocabulary import OutcomeWord


def is_http_error(status_code: int) -> bool:
    """Whether a status says that there is no content to be had: 4xx, 5xx, and a 304 that nobody asked for. That of a
    conditional request is NotModified (RFC 9110 §15.4.5).
    """
    return status_code >= 400 or status_code == 304


def outcome_word(outcome: Outcome) -> OutcomeWord:
    """One word a person can count by. A truncated answer is `truncated` whatever its status; one that came whole and
    could not be used, as a decompression bomb, is an `error`.
    """
    match outcome:
        case Fetched():
            if outcome.truncated is not None:
                return OutcomeWord.TRUNCATED
            if outcome.error_type is not None:
                return OutcomeWord.ERROR
            return OutcomeWord.HTTP_ERROR if is_http_error(outcome.head.status_code) else OutcomeWord.OK
        case NotModified():
            return OutcomeWord.NOT_MODIFIED
        case Redirected():
            return OutcomeWord.REDIRECT
        case Failed():
            return OutcomeWord.ERROR
        case Denied():
            return OutcomeWord.DENIED
        case _:
            assert_never(outcome)


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
