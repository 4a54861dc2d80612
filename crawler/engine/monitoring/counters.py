"""Counts of what happened, for the progress view, the summary and the store.

One mutable object, changed on the event loop only. `life` is what the directory has seen, kept with each commit; the
rest is this run's.
"""

from collections import Counter
from dataclasses import dataclass, field

from crawler.core.enums import ErrorType, TaskKind, TruncatedReason, UrlState
from crawler.core.models import Counters, Denied, Failed, Fetched, Outcome, Settlement
from crawler.core.outcomes import outcome_label, response_of


@dataclass(slots=True)
class CrawlCounters:
    """`responses` are heads received: `answers` by how they ended, and `auxiliary` ones, to robots.txt, sitemaps, feeds
    and probes. `pages` are 2xx answers to pages that were stored; `outcomes` all attempts by how they ended; `gave_up`
    URLs that failed in the end, by the last failure ("read_timeout", "status 500").
    """

    responses: int = 0
    pages: int = 0
    bytes: int = 0
    errors: int = 0
    denied: int = 0
    links_found: int = 0
    links_new: int = 0
    page_responses: int = 0
    answers: Counter[str] = field(default_factory=Counter)
    auxiliary: int = 0
    gave_up: Counter[str] = field(default_factory=Counter)
    outcomes: Counter[str] = field(default_factory=Counter)
    error_types: Counter[str] = field(default_factory=Counter)
    deny_reasons: Counter[str] = field(default_factory=Counter)
    last_url: str = ""
    life: Counters = field(default_factory=Counters)

    def attempted(self, outcome: Outcome, kind: TaskKind, url: str) -> None:
        """An attempt ended."""
        self.last_url = url
        word = outcome_label(outcome)
        self.outcomes[word] += 1
        response = response_of(outcome)
        if response is not None:
            self.responses += 1
            self.bytes += len(response.raw_head) + response.raw_body.size
            if kind is TaskKind.PAGE:
                self.page_responses += 1
                self.answers[word] += 1
            else:
                self.auxiliary += 1
        if isinstance(outcome, Failed):
            self.errors += 1
            self.error_types[outcome.error_type] += 1
        elif isinstance(outcome, Denied):
            self.denied += 1
            self.deny_reasons[outcome.reason] += 1
        elif isinstance(outcome, Fetched) and outcome.error_type is not None:
            self.errors += 1
            self.error_types[outcome.error_type] += 1

    def reconsidered(self, before: Outcome, after: Outcome, kind: TaskKind) -> None:
        """What counted as one outcome turned out, on being read, to be an error."""
        for counts in (self.outcomes, self.answers) if kind is TaskKind.PAGE else (self.outcomes,):
            counts[outcome_label(before)] -= 1
            counts[outcome_label(after)] += 1
        if isinstance(after, Fetched) and after.error_type is not None:
            self.errors += 1
            self.error_types[after.error_type] += 1

    def stored(self, settlement: Settlement) -> None:
        """A visit is in the store."""
        self.pages += is_stored_page(settlement)
        if settlement.state is UrlState.GAVE_UP and settlement.task.kind is TaskKind.PAGE:
            self.gave_up[_failure(settlement.outcome)] += 1

    def life_with(self, settlements: list[Settlement]) -> Counters:
        """The directory's counters once `settlements` are stored."""
        life = self.life
        fetched = responses = pages = size = errors = denied = 0
        for settlement in settlements:
            response = response_of(settlement.outcome)
            if settlement.task.is_first and not isinstance(settlement.outcome, Denied):
                fetched += 1
            if response is not None:
                responses += 1
                size += len(response.raw_head) + response.raw_body.size
                pages += is_stored_page(settlement)
            errors += isinstance(settlement.outcome, Failed)
            denied += isinstance(settlement.outcome, Denied)
        return Counters(
            life.urls_fetched + fetched,
            life.responses + responses,
            life.pages + pages,
            life.bytes + size,
            life.errors + errors,
            life.denied + denied,
        )


def _failure(outcome: Outcome) -> str:
    if isinstance(outcome, Failed | Fetched) and outcome.error_type is not None:
        return outcome.error_type.value
    response = response_of(outcome)
    return "" if response is None else f"status {response.head.status_code}"


def is_stored_page(settlement: Settlement) -> bool:
    """A 2xx answer to a page that ended the visit."""
    outcome = settlement.outcome
    return (
        isinstance(outcome, Fetched)
        and settlement.task.kind is TaskKind.PAGE
        and settlement.state in (UrlState.DONE, UrlState.GAVE_UP)
        and 200 <= outcome.head.status_code < 300
        and outcome.error_type is not ErrorType.TOO_LARGE
        and outcome.truncated is not TruncatedReason.CONTENT_TYPE
    )
