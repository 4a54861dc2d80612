"""Revisits: estimated change rates, intervals and the budget."""

import math
import random
from itertools import pairwise

import pytest

from crawler.core.models import PageHistory
from crawler.core.options import RecrawlOptions
from crawler.core.revisit import (
    DAY_S,
    GONE_AFTER,
    Allowance,
    PageClass,
    VisitResult,
    change_rate,
    classify,
    gone_interval_s,
    importance,
    interval_s,
    learn,
    solve_price,
    visit_rate,
)

OPTIONS = RecrawlOptions(enabled=True)
WEEKLY = 1 / (7 * DAY_S)


def test_the_change_rate_is_estimated() -> None:
    """For visits at any interval the estimate is close to the true rate, changes between two visits included."""
    rng = random.Random(1)
    for true_rate in (1 / (2 * DAY_S), 1 / (30 * DAY_S)):
        for every_s in (DAY_S / 2, 3 * DAY_S, 7 * DAY_S):
            history = learn(None, VisitResult.NEW, elapsed_s=0.0, content_at=0.0)
            for _ in range(400):
                changed = rng.random() < -math.expm1(-true_rate * every_s)
                finding = VisitResult.CHANGED if changed else VisitResult.SAME
                history = learn(history, finding, elapsed_s=every_s, content_at=0.0)
            assert true_rate / 2 < change_rate(history) < true_rate * 2


def test_a_page_that_always_changes_has_a_finite_rate() -> None:
    """It is visited more often, but its estimate is finite and its interval within the bounds."""
    history = learn(None, VisitResult.NEW, elapsed_s=0.0, content_at=0.0)
    for _ in range(2_000):
        history = learn(history, VisitResult.CHANGED, elapsed_s=DAY_S, content_at=0.0)
    assert math.isfinite(change_rate(history))
    assert interval_s(history, VisitResult.CHANGED, weight=1.0, price=1e-30, options=OPTIONS) == OPTIONS.min_interval_s


def test_the_history_after_a_visit() -> None:
    """New content sets the date, the same content keeps it, a failure changes nothing."""
    new = learn(None, VisitResult.NEW, elapsed_s=0.0, content_at=5.0)
    assert new == PageHistory(changed_at=5.0)
    same = learn(new, VisitResult.SAME, elapsed_s=100.0, content_at=9.0)
    assert (same.changed_at, same.change_a, same.change_t) == (5.0, 0.0, 100.0)
    changed = learn(same, VisitResult.CHANGED, elapsed_s=100.0, content_at=9.0)
    assert changed.changed_at == 9.0
    assert changed.change_a is not None
    assert changed.change_a >= 1.0
    assert learn(changed, VisitResult.FAILED, elapsed_s=100.0, content_at=0.0) == changed


def test_gone_is_counted_in_a_row() -> None:
    """A response with content ends the count."""
    history = learn(None, VisitResult.NEW, elapsed_s=0.0, content_at=0.0)
    for n in (1, 2, 3):
        history = learn(history, VisitResult.GONE, elapsed_s=DAY_S, content_at=0.0)
        assert history.gone_count == n
    assert learn(history, VisitResult.SAME, elapsed_s=DAY_S, content_at=0.0).gone_count == 0


def test_a_tombstone_is_tried_ever_more_rarely() -> None:
    """First soon, then seldom, in the end once a year."""
    waits = [gone_interval_s(n, OPTIONS.max_interval_s) for n in range(1, 40)]
    assert waits[:2] == [DAY_S, 3 * DAY_S]
    assert waits[GONE_AFTER - 1] == 7 * DAY_S
    assert all(later >= earlier for earlier, later in pairwise(waits))
    assert waits[-1] == 360 * DAY_S


@pytest.mark.parametrize("finding", list(VisitResult))
@pytest.mark.parametrize("price", [0.0, 1e-12, 1e-3, 1.0, math.inf])
def test_intervals_keep_their_bounds(finding: VisitResult, price: float) -> None:
    """At any price."""
    options = RecrawlOptions(enabled=True, min_interval_s=100.0, max_interval_s=1_000.0)
    history = learn(None, VisitResult.NEW, elapsed_s=0.0, content_at=0.0)
    for weight in (1e-9, 1.0, 1e9):
        got = interval_s(history, finding, weight=weight, price=price, options=options)
        assert got >= 100.0
        assert got <= 1_000.0 or finding is VisitResult.GONE


def test_the_budget_is_met() -> None:
    """At the price, the visit rates of all pages add up to the budget."""
    rng = random.Random(2)
    pages = [(rng.lognormvariate(math.log(1 / (10 * DAY_S)), 1.5), rng.paretovariate(1.1)) for _ in range(5_000)]
    for per_page in (WEEKLY / 5, WEEKLY, WEEKLY * 10):
        price = solve_price(classify(pages), per_s=per_page * len(pages), options=OPTIONS)
        rates = [visit_rate(rate, weight, price) for rate, weight in pages]
        bounded = [min(1 / OPTIONS.min_interval_s, max(1 / OPTIONS.max_interval_s, rate)) for rate in rates]
        assert sum(bounded) == pytest.approx(per_page * len(pages), rel=0.05)  # of classes, not of single pages


def test_budgets_beyond_the_bounds() -> None:
    """Above the shortest intervals the price is 0; below the longest it is infinite."""
    classes = [PageClass(1 / DAY_S, 1.0, 10)]
    assert solve_price(classes, per_s=1.0, options=OPTIONS) == 0.0
    assert solve_price(classes, per_s=1e-9, options=OPTIONS) == math.inf
    assert solve_price([], per_s=1.0, options=OPTIONS) == 0.0


def test_more_important_and_more_lively_pages_come_first() -> None:
    """But no page is given up, even one that changes all the time."""
    base = visit_rate(1 / DAY_S, 1.0, 1e-6)
    assert visit_rate(1 / DAY_S, 4.0, 1e-6) > base
    assert visit_rate(4 / DAY_S, 1.0, 1e-6) > base
    rates = [visit_rate(n / DAY_S, 1.0, 1e-6) for n in (1, 10, 100, 1_000, 100_000)]
    assert all(later >= earlier for earlier, later in pairwise(rates))


def test_importance() -> None:
    """Depth, links, the sitemap's priority and the operator's factor."""
    assert importance(depth=0) == 1.0
    assert importance(depth=3) == 0.25
    assert importance(depth=0, sitemap_priority=1.0) == 2.0
    assert importance(depth=0, sitemap_priority=0.0) == 0.5
    assert importance(depth=0, factor=5.0) == 5.0
    assert importance(depth=1, in_links=1_000) > importance(depth=1, in_links=10) > importance(depth=1)


def test_classes_stand_for_their_pages() -> None:
    """No page is lost, and their rates add up."""
    rng = random.Random(3)
    pages = [(rng.lognormvariate(-12, 2), rng.paretovariate(1)) for _ in range(2_000)]
    classes = classify(pages)
    assert sum(one.pages for one in classes) == 2_000
    assert sum(one.rate * one.pages for one in classes) == pytest.approx(sum(rate for rate, _ in pages))
    assert len(classes) < 500


def test_the_allowance_fills_and_is_spent() -> None:
    """It never holds more than `most`, and does not fill while the clock stands still."""
    bucket = Allowance(per_s=2.0, most=10.0, level=0.0, at_mono=100.0)
    assert bucket.wait_s(100.0) == 0.5
    assert bucket.filled(101.0).level == 2.0
    assert bucket.filled(1_000.0).level == 10.0
    spent = bucket.filled(101.0).take(2)
    assert (spent.level, spent.filled(101.0).level) == (0.0, 0.0)
    assert Allowance(0.0, 10.0, 0.0, 0.0).wait_s(5.0) == math.inf
