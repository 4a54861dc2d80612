"""When a page is visited again: its change rate, estimated from visits, and the visit rate that follows.

Visit rates r maximise Σ w·ln(r/(λ+r)) for importance w and change rate λ within a budget Σ r. They solve r(r+λ) = wλ/μ
with one price μ for all pages (`solve_price`). Because of the logarithm no page is given up: even one that changes all
the time gets its share. After Kolobov et al., "Staying up to date with online content changes", NeurIPS 2019 (harmonic
staleness); measured by `python -m bench.recrawl`.

Pure. Rates are per second, times in seconds. Invariant: an interval is never shorter than `min_interval_s`, and never
longer than `max_interval_s` except for pages that are gone.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from typing import Final, NamedTuple

from crawler.core.models import PageHistory
from crawler.core.options import RecrawlOptions

DAY_S: Final = 86_400.0
# The prior before a page was seen twice, in changes and seconds: one change in three weeks, so weak that a few visits
# outweigh it.
PRIOR_CHANGES: Final = 0.5
PRIOR_S: Final = 10.5 * DAY_S
MEMORY: Final = 0.98  # weight of the earlier visits, applied at each visit: change rates change

GONE_AFTER: Final = 3  # so many 404 or 410 in a row make a tombstone
GONE_FIRST_S: Final = DAY_S  # after the first of them; then three times as long each time
GONE_WEEK_S: Final = 7 * DAY_S  # a tombstone's first interval; each is twice the one before …
GONE_MAX_FACTOR: Final = 4  # … up to so many times max_interval
FAILED_S: Final = DAY_S  # after a visit without a usable response


class VisitResult(Enum):
    """The result of a visit."""

    NEW = "new"  # the first visit
    CHANGED = "changed"
    SAME = "same"
    GONE = "gone"  # 404 or 410
    FAILED = "failed"  # attempts exhausted, or a server error


def learn(history: PageHistory | None, result: VisitResult, *, elapsed_s: float, content_at: float) -> PageHistory:
    """The history after a visit, `elapsed_s` after the last one. `content_at`: capture time of the content.

    One observed change counts as x/(1-e^-x) changes, x = λ·elapsed, since there may have been more between two visits
    (the maximum-likelihood correction for a Poisson process).
    """
    if history is None and result is VisitResult.NEW:  # nearly every visit of a young crawl
        return PageHistory(content_at)
    known = history or PageHistory()
    match result:
        case VisitResult.NEW:
            return replace(known, changed_at=content_at, gone_count=0)
        case VisitResult.GONE:
            return replace(known, gone_count=known.gone_count + 1)
        case VisitResult.FAILED:
            return known
        case VisitResult.CHANGED | VisitResult.SAME:
            a, t = known.change_a or 0.0, known.change_t or 0.0
            changed = result is VisitResult.CHANGED
            seen = _changes(change_rate(known) * elapsed_s) if changed else 0.0
            return replace(
                known,
                changed_at=content_at if changed else known.changed_at,
                change_a=MEMORY * a + seen,
                change_t=MEMORY * t + elapsed_s,
                gone_count=0,
            )


def _changes(x: float) -> float:
    return 1.0 + x / 2 if x < 1e-6 else x / -math.expm1(-x)


def change_rate(history: PageHistory | None) -> float:
    """λ: estimated changes a second."""
    if history is None:
        return PRIOR_CHANGES / PRIOR_S
    return ((history.change_a or 0.0) + PRIOR_CHANGES) / ((history.change_t or 0.0) + PRIOR_S)


def importance(*, depth: int, in_links: int = 0, sitemap_priority: float | None = None, factor: float = 1.0) -> float:
    """w: how important it is that a page is fresh; 1 for a seed without in-links and sitemap. `factor`: the operator's.

    A page twice as deep is half as important. In-links count by their logarithm. A sitemap's priority changes it by a
    factor from a half to two.
    """
    hinted = 1.0 if sitemap_priority is None else 4.0 ** (sitemap_priority - 0.5)
    return factor * hinted * (1.0 + math.log1p(max(0, in_links))) / (1 + max(0, depth))


def visit_rate(rate: float, weight: float, price: float) -> float:
    """r for a page that changes at `rate` (> 0): the positive root of r² + λr = wλ/μ. Infinite if visits are free."""
    if price <= 0:
        return math.inf
    return (math.sqrt(rate * rate + 4 * weight * rate / price) - rate) / 2


class PageClass(NamedTuple):
    """A number of similar pages and the means of their change rates and importance."""

    rate: float
    weight: float
    pages: float


def classify(pages: Iterable[tuple[float, float]]) -> list[PageClass]:
    """Group pages (rate, weight) by half powers of two of both: a few hundred classes stand for any number of pages."""
    sums: dict[tuple[int, int], list[float]] = {}
    for rate, weight in pages:
        key = (round(2 * math.log2(rate)), round(2 * math.log2(weight)))
        entry = sums.setdefault(key, [0.0, 0.0, 0])
        entry[0] += rate
        entry[1] += weight
        entry[2] += 1
    return [PageClass(rates / count, weights / count, count) for rates, weights, count in sums.values()]


def solve_price(classes: Sequence[PageClass], *, per_s: float, options: RecrawlOptions) -> float:
    """μ: the price at which all pages together need `per_s` visits a second, each within its bounds.

    0 if visits at `min_interval` need no more, infinite if visits at `max_interval` need no less.
    """
    slowest, fastest = 1 / options.max_interval_s, 1 / options.min_interval_s
    count = sum(one.pages for one in classes)
    if per_s >= count * fastest:
        return 0.0
    if per_s <= count * slowest:
        return math.inf

    def needed(price: float) -> float:
        return sum(one.pages * min(fastest, max(slowest, visit_rate(one.rate, one.weight, price))) for one in classes)

    low, high = -100.0, 200.0  # logarithms of prices beyond those of any page
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if needed(math.exp(middle)) > per_s else (low, middle)
    return math.exp((low + high) / 2)


def interval_s(
    history: PageHistory, result: VisitResult, *, weight: float, price: float, options: RecrawlOptions
) -> float:
    """Seconds from a visit with this result to the next one."""
    least, most = options.min_interval_s, options.max_interval_s
    if result is VisitResult.GONE:
        return max(least, gone_interval_s(history.gone_count, most))
    if result is VisitResult.FAILED:
        return max(least, min(FAILED_S, most))
    rate = visit_rate(change_rate(history), weight, price)
    return min(most, max(least, 1 / rate if rate > 0 else most))


def gone_interval_s(gone_count: int, max_interval_s: float) -> float:
    """Seconds to the next visit of a page that gave 404 or 410 for the `gone_count`-th time in a row."""
    if gone_count < GONE_AFTER:
        return GONE_FIRST_S * 3.0 ** (gone_count - 1)
    return min(GONE_WEEK_S * 2.0 ** min(gone_count - GONE_AFTER, 30), GONE_MAX_FACTOR * max_interval_s)


@dataclass(frozen=True, slots=True)
class Allowance:
    """A token bucket of revisits that may begin, filled at `per_s` up to `most`. Frozen: `take` returns a new one."""

    per_s: float
    most: float
    level: float
    at_mono: float

    def filled(self, mono: float) -> "Allowance":
        level = min(self.most, self.level + max(0.0, mono - self.at_mono) * self.per_s)
        return replace(self, level=level, at_mono=mono)

    def take(self, count: int) -> "Allowance":
        return replace(self, level=self.level - count)

    def wait_s(self, mono: float) -> float:
        """Seconds until one more revisit may begin."""
        short = 1.0 - self.filled(mono).level
        return 0.0 if short <= 0 else short / self.per_s if self.per_s > 0 else math.inf
