"""When a page is worth another visit: what visits teach about how often it changes, and how often it is then asked.

The rates r that maximise Σ w·ln(r/(λ+r)), importance w and change rate λ given, under a budget Σ r solve r(r+λ) = wλ/μ
with one price μ for all (`solve_price`). The logarithm is what keeps any page from being given up: one that changes all
the time still gets its share. After Kolobov et al., "Staying up to date with online content changes", NeurIPS 2019
(harmonic staleness); measured here by `python -m bench.recrawl`.

Pure: no clock, no store. Rates are per second, times in seconds. Invariant: an interval is never shorter than
`min_interval_s` nor, but for pages that are gone, longer than `max_interval_s`.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from typing import Final, NamedTuple

from crawler.core.models import PageHistory
from crawler.core.options import RecrawlOptions

DAY_S: Final = 86_400.0
# What is believed of a page before it was seen twice, in changes and seconds: one change in three weeks, held so weakly
# that a few visits overrule it.
PRIOR_CHANGES: Final = 0.5
PRIOR_S: Final = 10.5 * DAY_S
MEMORY: Final = 0.98  # of what was learnt, kept at each visit: pages change their ways

GONE_AFTER: Final = 3  # 404 or 410 so many times in a row: a tombstone
GONE_FIRST_S: Final = DAY_S  # between the first of them; then three times as long
GONE_WEEK_S: Final = 7 * DAY_S  # a tombstone's first interval; each is twice the one before …
GONE_MAX_FACTOR: Final = 4  # … up to so many times max_interval
FAILED_S: Final = DAY_S  # after a visit that got no answer worth the name


class VisitResult(Enum):
    """What a visit found."""

    NEW = "new"  # it was the first
    CHANGED = "changed"
    SAME = "same"
    GONE = "gone"  # 404 or 410
    FAILED = "failed"  # attempts exhausted, or a server error


def learn(history: PageHistory | None, finding: VisitResult, *, elapsed_s: float, content_at: float) -> PageHistory:
    """What is known after a visit `elapsed_s` after the last one. `content_at` is when its content was captured.

    A change that was seen stands for x/(1-e^-x) changes, x = λ·elapsed: more than one may have gone by between two
    looks (the maximum-likelihood correction for a Poisson process).
    """
    if history is None and finding is VisitResult.NEW:  # nearly every visit of a crawl that is young
        return PageHistory(content_at)
    known = history or PageHistory()
    match finding:
        case VisitResult.NEW:
            return replace(known, changed_at=content_at, gone_count=0)
        case VisitResult.GONE:
            return replace(known, gone_count=known.gone_count + 1)
        case VisitResult.FAILED:
            return known
        case VisitResult.CHANGED | VisitResult.SAME:
            a, t = known.change_a or 0.0, known.change_t or 0.0
            changed = finding is VisitResult.CHANGED
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
    """λ: changes a second, as far as is known."""
    if history is None:
        return PRIOR_CHANGES / PRIOR_S
    return ((history.change_a or 0.0) + PRIOR_CHANGES) / ((history.change_t or 0.0) + PRIOR_S)


def importance(*, depth: int, in_links: int = 0, sitemap_priority: float | None = None, factor: float = 1.0) -> float:
    """w: how much it matters that a page is fresh; 1 for a seed that nothing speaks for. `factor` is the operator's.

    A page twice as deep matters half as much, in-links count by their logarithm, and a sitemap's priority moves it
    between a half and twice.
    """
    hinted = 1.0 if sitemap_priority is None else 4.0 ** (sitemap_priority - 0.5)
    return factor * hinted * (1.0 + math.log1p(max(0, in_links))) / (1 + max(0, depth))


def visit_rate(rate: float, weight: float, price: float) -> float:
    """r for a page that changes at `rate` (> 0): the positive root of r² + λr = wλ/μ. Infinite if visits are free."""
    if price <= 0:
        return math.inf
    return (math.sqrt(rate * rate + 4 * weight * rate / price) - rate) / 2


class PageClass(NamedTuple):
    """Pages that are alike: so many of them, with these rates and importance on average."""

    rate: float
    weight: float
    pages: float


def classify(pages: Iterable[tuple[float, float]]) -> list[PageClass]:
    """Group pages (rate, weight) by the half powers of two of both: a few hundred classes stand for any number."""
    sums: dict[tuple[int, int], list[float]] = {}
    for rate, weight in pages:
        key = (round(2 * math.log2(rate)), round(2 * math.log2(weight)))
        entry = sums.setdefault(key, [0.0, 0.0, 0])
        entry[0] += rate
        entry[1] += weight
        entry[2] += 1
    return [PageClass(rates / count, weights / count, count) for rates, weights, count in sums.values()]


def solve_price(classes: Sequence[PageClass], *, per_s: float, options: RecrawlOptions) -> float:
    """μ: the price at which all pages together ask for `per_s` visits a second, each within its bounds.

    0 where even visits at `min_interval` are fewer, infinite where even those at `max_interval` are more.
    """
    slowest, fastest = 1 / options.max_interval_s, 1 / options.min_interval_s
    count = sum(one.pages for one in classes)
    if per_s >= count * fastest:
        return 0.0
    if per_s <= count * slowest:
        return math.inf

    def asked(price: float) -> float:
        return sum(one.pages * min(fastest, max(slowest, visit_rate(one.rate, one.weight, price))) for one in classes)

    low, high = -100.0, 200.0  # logarithms of prices no page's numbers come near
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if asked(math.exp(middle)) > per_s else (low, middle)
    return math.exp((low + high) / 2)


def interval_s(
    history: PageHistory, finding: VisitResult, *, weight: float, price: float, options: RecrawlOptions
) -> float:
    """Seconds from a visit that found this to the next."""
    least, most = options.min_interval_s, options.max_interval_s
    if finding is VisitResult.GONE:
        return max(least, gone_interval_s(history.gone_count, most))
    if finding is VisitResult.FAILED:
        return max(least, min(FAILED_S, most))
    rate = visit_rate(change_rate(history), weight, price)
    return min(most, max(least, 1 / rate if rate > 0 else most))


def gone_interval_s(gone_count: int, max_interval_s: float) -> float:
    """How long to leave a page alone that answered 404 or 410 for the `gone_count`-th time in a row."""
    if gone_count < GONE_AFTER:
        return GONE_FIRST_S * 3.0 ** (gone_count - 1)
    return min(GONE_WEEK_S * 2.0 ** min(gone_count - GONE_AFTER, 30), GONE_MAX_FACTOR * max_interval_s)


@dataclass(frozen=True, slots=True)
class Allowance:
    """How many revisits may begin: a bucket that fills at `per_s` and holds `most`. Frozen: `take` makes the next."""

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
        """Seconds until one more may begin."""
        short = 1.0 - self.filled(mono).level
        return 0.0 if short <= 0 else short / self.per_s if self.per_s > 0 else math.inf
