"""The policy of revisits compared with simpler ones, in the simulation of bench/recrawl.py."""

import pytest

from bench.recrawl import POLICIES, simulate, world_of


def test_importance_buys_freshness_at_the_same_budget() -> None:
    """More than a fixed interval or stepwise intervals, and every page is visited."""
    results = {name: simulate(world_of(600, 1), policy, days=240) for name, policy in POLICIES.items()}
    ours = results["learned, by importance"]
    assert all(got.visits_per_page_week <= 1.01 for got in results.values())
    assert ours.freshness > results["fixed interval"].freshness + 0.08
    assert ours.freshness > results["x1.5 / x0.5, 14 days at most"].freshness + 0.08
    assert ours.freshness > results["learned, importance ignored"].freshness + 0.08
    assert ours.never_visited == 0
    assert ours.fewest_visits >= 3


@pytest.mark.prove
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_the_figures(seed: int) -> None:
    """20,000 pages for a year: freshness .80, with a fixed interval .67."""
    ours = simulate(world_of(20_000, seed), POLICIES["learned, by importance"], days=365)
    fixed = simulate(world_of(20_000, seed), POLICIES["fixed interval"], days=365)
    assert ours.freshness >= 0.80
    assert fixed.freshness == pytest.approx(0.67, abs=0.03)
    assert ours.never_visited == 0
