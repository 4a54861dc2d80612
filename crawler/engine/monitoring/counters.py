"""Counters of events, for the views, the summary and the store; histograms of durations, for the metrics.

They are updated on the event loop only, for every page.
"""

from bisect import bisect_left
from collections import Counter
from dataclasses import dataclass, field
from typing import Final

from crawler.core.enums import ErrorType, TaskKind, TruncatedReason, UrlState
from crawler.core.media_types import XHTML, mime_type
from crawler.core.models import Counters, Denied, Failed, Fetched, NotModified, Outcome, Redirected, Settlement
from crawler.core.outcomes import outcome_label, response_of

BOUNDS_S: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 600.0)
PHASES: Final = ("resolve", "connect", "tls", "first_byte", "body")


@dataclass(slots=True)
class CrawlCounters:
    """Counts of this run. `life` has the counts of the output directory over all runs, up to the last commit.

    `responses` counts response heads: of pages (`page_responses`, by outcome), and of robots.txt, sitemaps, feeds and
    probes (`auxiliary`). `pages` counts stored 2xx responses of pages. `outcomes` counts all attempts, by outcome.
    `gave_up` counts URLs that are not tried again, by their last failure ("read_timeout", "status 500").
    """

    responses: int = 0
    pages: int = 0
    html: int = 0
    bytes: int = 0
    errors: int = 0
    denied: int = 0
    links_found: int = 0
    links_new: int = 0
    page_responses: Counter[str] = field(default_factory=Counter)
    auxiliary: int = 0
    gave_up: Counter[str] = field(default_factory=Counter)
    outcomes: Counter[str] = field(default_factory=Counter)
    error_types: Counter[str] = field(default_factory=Counter)
    deny_reasons: Counter[str] = field(default_factory=Counter)
    last_url: str = ""
    life: Counters = field(default_factory=Counters)

    def attempted(self, outcome: Outcome, kind: TaskKind, url: str) -> None:
        """Count an attempt that ended."""
        self.last_url = url
        word = outcome_label(outcome)
        self.outcomes[word] += 1
        response = response_of(outcome)
        if response is not None:
            self.responses += 1
            self.bytes += len(response.raw_head) + response.raw_body.size
            if kind is TaskKind.PAGE:
                self.page_responses[word] += 1
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
        """Correct the count of an attempt whose outcome was changed by processing the response."""
        for counts in (self.outcomes, self.page_responses) if kind is TaskKind.PAGE else (self.outcomes,):
            counts[outcome_label(before)] -= 1
            counts[outcome_label(after)] += 1
        if isinstance(after, Fetched) and after.error_type is not None:
            self.errors += 1
            self.error_types[after.error_type] += 1

    def stored(self, settlement: Settlement) -> None:
        """Count a stored visit."""
        if is_stored_page(settlement):
            self.pages += 1
            self.html += _is_html(settlement.outcome)
        if settlement.state is UrlState.GAVE_UP and settlement.task.kind is TaskKind.PAGE:
            self.gave_up[_failure(settlement.outcome)] += 1

    def life_with(self, settlements: list[Settlement]) -> Counters:
        """Return what `life` will be once `settlements` are stored."""
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


def _is_html(outcome: Outcome) -> bool:
    return isinstance(outcome, Fetched) and mime_type(outcome.head.content_type) in ("text/html", XHTML)


def is_stored_page(settlement: Settlement) -> bool:
    """Whether a settlement is the last attempt at a page, and has a 2xx response."""
    outcome = settlement.outcome
    return (
        isinstance(outcome, Fetched)
        and settlement.task.kind is TaskKind.PAGE
        and settlement.state in (UrlState.DONE, UrlState.GAVE_UP)
        and 200 <= outcome.head.status_code < 300
        and outcome.error_type is not ErrorType.TOO_LARGE
        and outcome.truncated is not TruncatedReason.CONTENT_TYPE
    )


class LatencyMeters:
    """Histograms of durations. `duration` has all attempts; each of `phases` has the attempts with that phase."""

    def __init__(self) -> None:
        self.duration = Histogram()
        self.phases = {name: Histogram() for name in PHASES}

    def attempted(self, outcome: Outcome, dur_s: float) -> None:
        """Add an attempt that ended; denied ones took no time."""
        if isinstance(outcome, Denied):
            return
        self.duration.add(dur_s)
        timings = (outcome.fetched if isinstance(outcome, Redirected | NotModified) else outcome).timings
        phases = self.phases
        if timings.resolve_s:
            phases["resolve"].add(timings.resolve_s)
        if timings.connect_s:
            phases["connect"].add(timings.connect_s)
        if timings.tls_s:
            phases["tls"].add(timings.tls_s)
        if timings.first_byte_s:
            phases["first_byte"].add(timings.first_byte_s)
            phases["body"].add(timings.body_s)


class Histogram:
    """A histogram: counts by bucket, and the sum of all values. Adding a value is a bisection without allocation.

    A bucket counts the values up to and including its bound, as in Prometheus. The last bucket counts the values above
    all bounds.
    """

    __slots__ = ("counts", "total_s")

    def __init__(self) -> None:
        self.counts = [0] * (len(BOUNDS_S) + 1)
        self.total_s = 0.0

    def add(self, value_s: float) -> None:
        self.counts[bisect_left(BOUNDS_S, value_s)] += 1
        self.total_s += value_s


def quantile_s(counts: list[int], share: float) -> float | None:
    """Estimate the value below which a share of the values lies, from counts by bucket; None if there are none."""
    total = sum(counts)
    if not total:
        return None
    wanted, seen = share * total, 0
    for place, count in enumerate(counts):
        if count and seen + count >= wanted:
            low = BOUNDS_S[place - 1] if place else 0.0
            high = BOUNDS_S[min(place, len(BOUNDS_S) - 1)]
            return low + (high - low) * (wanted - seen) / count
        seen += count
    return BOUNDS_S[-1]
