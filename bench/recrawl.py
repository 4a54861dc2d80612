"""`python -m bench.recrawl`: how fresh a crawl stays under one budget of visits, by four ways of spending it.

A simulation, no network: pages change by a Poisson process each, rates log-normal, importance Pareto; the policy is
`core.revisit` itself, as the engine uses it. Freshness is the share of time in which the stored copy is the current
one, weighted by importance, after a quarter of the time has passed for learning. Deterministic for a seed.
"""

import argparse
import heapq
import math
import random
from collections.abc import Callable
from dataclasses import dataclass

from crawler.core.models import PageHistory
from crawler.core.options import RecrawlOptions
from crawler.core.revisit import DAY_S, VisitResult, change_rate, classify, importance, interval_s, learn, solve_price

SOLVE_EVERY_S = 3 * DAY_S


@dataclass(slots=True)
class Page:
    """`rate` is the true change rate, which no policy knows. `weight` is the true importance, `believed` that of the
    policy. `clean_until` is when the copy of the last visit goes stale.
    """

    rate: float
    weight: float
    believed: float
    history: PageHistory | None = None
    last_at: float = 0.0
    clean_until: float = 0.0
    interval: float = 0.0
    visits: int = 0
    fresh_s: float = 0.0
    ever_changed: bool = False


@dataclass
class World:
    """The state of one run. `budget` is visits a second."""

    pages: list[Page]
    rng: random.Random
    options: RecrawlOptions
    budget: float
    price: float = math.inf


@dataclass(frozen=True)
class Result:
    """`freshness` weighted by importance; `plain` not; `fewest_visits` is of any page."""

    freshness: float
    plain: float
    visits_per_page_week: float
    never_visited: int
    fewest_visits: int


Policy = Callable[[World, Page, VisitResult, float], float]  # seconds until the next visit


def fixed(world: World, page: Page, finding: VisitResult, elapsed_s: float) -> float:
    """The same interval for every page."""
    return len(world.pages) / world.budget


def _stepping(up: float, down: float, most_s: float) -> Policy:
    """A longer interval after a visit without a change, a shorter one after a change."""

    def policy(world: World, page: Page, finding: VisitResult, elapsed_s: float) -> float:
        base = page.interval or len(world.pages) / world.budget
        if finding is not VisitResult.NEW:
            base *= down if finding is VisitResult.CHANGED else up
        page.interval = min(most_s, max(world.options.min_interval_s, base))
        return page.interval

    return policy


def learned(world: World, page: Page, finding: VisitResult, elapsed_s: float) -> float:
    """The engine's policy."""
    page.history = learn(page.history, finding, elapsed_s=elapsed_s, content_at=0.0)
    return interval_s(page.history, finding, weight=page.believed, price=world.price, options=world.options)


def unweighted(world: World, page: Page, finding: VisitResult, elapsed_s: float) -> float:
    """The engine's policy without importance."""
    page.history = learn(page.history, finding, elapsed_s=elapsed_s, content_at=0.0)
    return interval_s(page.history, finding, weight=1.0, price=world.price, options=world.options)


POLICIES: dict[str, Policy] = {
    "fixed interval": fixed,
    "x1.5 / x0.5, 14 days at most": _stepping(1.5, 0.5, 14 * DAY_S),
    "x1.4 / x0.8": _stepping(1.4, 0.8, 90 * DAY_S),
    "learned, importance ignored": unweighted,
    "learned, by importance": learned,
}


def world_of(pages: int, seed: int, *, visits_per_page_week: float = 1.0) -> World:
    """Rates log-normal around a change in two weeks, spread over three orders of magnitude; Pareto importance."""
    rng = random.Random(seed)
    made = []
    for _ in range(pages):
        rate, weight = rng.lognormvariate(math.log(1 / (11 * DAY_S)), 1.6), rng.paretovariate(1.1)
        made.append(Page(rate, weight, weight))
    budget = pages * visits_per_page_week / (7 * DAY_S)
    return World(made, rng, RecrawlOptions(enabled=True), budget)


def linked_world_of(pages: int, seed: int, *, of_eight: int, kept: float) -> World:
    """Importance as `core.revisit` makes it of depth and in-links, whose number is Pareto. The policy knows those of
    `of_eight` pages in eight, and of what was counted the share `kept`: a page's count is lost whole or not at all.
    """
    rng = random.Random(seed)
    made = []
    for _ in range(pages):
        rate, depth = rng.lognormvariate(math.log(1 / (11 * DAY_S)), 1.6), rng.randrange(1, 7)
        in_links = min(int(rng.paretovariate(0.7)), 20_000)
        counted = 8 * sum(rng.randrange(8) < of_eight for _ in range(in_links)) // max(1, of_eight)
        known = counted if rng.random() < kept else 0
        weight, believed = (importance(depth=depth, in_links=n) for n in (in_links, known))
        made.append(Page(rate, weight, believed))
    return World(made, rng, RecrawlOptions(enabled=True), pages / (7 * DAY_S))


# Links are counted on every eighth page, until the page they lead to is visited.
LINKED: dict[str, tuple[int, float]] = {
    "every in-link known": (8, 1.0),
    "counted on every eighth page": (1, 1.0),
    "the same, a tenth lost": (1, 0.9),
    "the same, half lost": (1, 0.5),
    "no in-link known": (0, 1.0),
}


def simulate(world: World, policy: Policy, *, days: float) -> Result:
    """Visit by visit, `days` long. A policy that plans more visits than the budget is held to it, as the engine is."""
    rng, pages, end_s = world.rng, world.pages, days * DAY_S
    count_from_s = end_s / 4
    due = [(rng.random() * len(pages) / world.budget, index) for index in range(len(pages))]
    heapq.heapify(due)
    next_solve = 0.0
    free_at = 0.0
    while due:
        at, index = heapq.heappop(due)
        at = max(at, free_at)
        if at >= end_s:
            break
        free_at = at + 1 / world.budget  # visits beyond the budget wait in order, whatever the policy planned
        if at >= next_solve:
            _solve(world, policy)
            next_solve = at + SOLVE_EVERY_S
        page = pages[index]
        _count_fresh(page, at, count_from_s)
        elapsed = at - page.last_at
        finding = (
            VisitResult.NEW if not page.visits else VisitResult.CHANGED if at >= page.clean_until else VisitResult.SAME
        )
        page.visits += 1
        page.last_at = at
        if finding is not VisitResult.SAME:
            page.clean_until = at + rng.expovariate(page.rate)
        wait = policy(world, page, finding, elapsed)
        heapq.heappush(due, (at + wait, index))
    for page in pages:
        _count_fresh(page, end_s, count_from_s)
    span = end_s - count_from_s
    weights = sum(page.weight for page in pages)
    return Result(
        freshness=sum(page.weight * page.fresh_s for page in pages) / span / weights,
        plain=sum(page.fresh_s for page in pages) / span / len(pages),
        visits_per_page_week=sum(page.visits for page in pages) / len(pages) / (days / 7),
        never_visited=sum(page.visits == 0 for page in pages),
        fewest_visits=min(page.visits for page in pages),
    )


def _solve(world: World, policy: Policy) -> None:
    if policy in (learned, unweighted):
        blind = policy is unweighted
        known = ((change_rate(page.history), 1.0 if blind else page.believed) for page in world.pages)
        world.price = solve_price(classify(known), per_s=world.budget, options=world.options)


def _count_fresh(page: Page, until: float, from_s: float) -> None:
    """Time since the last visit in which its copy was current."""
    if page.visits:
        page.fresh_s += max(0.0, min(until, page.clean_until) - max(from_s, page.last_at))


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.recrawl", description=__doc__)
    parser.add_argument("--pages", type=int, default=20_000)
    parser.add_argument("--days", type=float, default=365)
    parser.add_argument("--seed", type=int, default=1)
    chosen = parser.parse_args()
    print(f"{chosen.pages} pages, {chosen.days:g} days, one visit a page and week, seed {chosen.seed}")
    print(f"{'':32}{'freshness':>10}{'unweighted':>12}{'visits/week':>13}{'fewest':>8}{'never':>7}")
    for name, policy in POLICIES.items():
        show(name, simulate(world_of(chosen.pages, chosen.seed), policy, days=chosen.days))
    print("\nimportance by depth and in-links")
    for name, (of_eight, kept) in LINKED.items():
        world = linked_world_of(chosen.pages, chosen.seed, of_eight=of_eight, kept=kept)
        show(name, simulate(world, learned, days=chosen.days))


def show(name: str, got: Result) -> None:
    print(
        f"{name:32}{got.freshness:>10.3f}{got.plain:>12.3f}{got.visits_per_page_week:>13.3f}"
        f"{got.fewest_visits:>8}{got.never_visited:>7}",
        flush=True,
    )


if __name__ == "__main__":
    main()
