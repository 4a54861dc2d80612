"""Takes answers to requests for robots.txt: the verdict goes to the books, the rules to their cache; or it is asked for
where it redirects.

What an answer means is `robots_visit`'s to say; storing it is the worker's. Invariant: a host waits for its verdict
until one was reached, and then no longer.
"""

from collections.abc import Callable
from functools import partial
from typing import Final

from crawler.core.clock import Clock
from crawler.core.enums import TaskKind
from crawler.core.models import Discovered, Failed, Lease, Outcome, RobotsRecord, Task
from crawler.core.outcomes import pushes_back, rests_origin
from crawler.engine import robots_visit
from crawler.engine.admission import Admission
from crawler.engine.hosts import Host
from crawler.engine.large import off_loop_if_large
from crawler.engine.listings import Listings
from crawler.engine.scheduler import Scheduler
from crawler.fetch.options import FetchOptions

# After a robots.txt that failed in a way that rests nobody (a 500, say): as long as it has failed so far, within these.
ROBOTS_AGAIN_S: Final = 60.0
ROBOTS_AGAIN_MAX_S: Final = 3_600.0


class RobotsAnswers:
    """`on_robots` gets a host whose verdict was reached."""

    def __init__(
        self,
        *,
        scheduler: Scheduler,
        admission: Admission,
        listings: Listings,
        clock: Clock,
        limits: FetchOptions,
        on_robots: Callable[[Host], None],
    ) -> None:
        self._scheduler = scheduler
        self._admission = admission
        self._listings = listings
        self._clock = clock
        self._limits = limits
        self._on_robots = on_robots

    def reconfigure(self, limits: FetchOptions) -> None:
        """Other limits are in force, from the next answer on."""
        self._limits = limits

    async def take(
        self, lease: Lease, host: Host, task: Task, outcome: Outcome
    ) -> tuple[RobotsRecord | None, tuple[Discovered, ...]]:
        """The verdict to store, None where another host is asked first, and the sitemaps that robots.txt names."""
        now = self._clock.now()
        moved = robots_visit.redirect_of(task, outcome)
        if moved is not None:
            self._scheduler.robots_moved(lease.host_id, *moved)
            return None, ()
        verdict = partial(
            robots_visit.verdict_of,
            outcome,
            known=host.robots,
            now=now,
            rest_s=self._rest_s(lease, host, outcome),
            token=self._admission.rules.token,
            limits=self._limits,
        )
        robots, rules = await off_loop_if_large(outcome, verdict)
        if robots.verdict != "rules" or rules is not None:  # else the copy known so far stays in force
            self._admission.rules.put(host, rules, stored=robots.body is None)
        sitemaps = self._listings.named(host.origin, robots, self._admission.scope)
        self._scheduler.books.learn_robots(host, robots)
        self._scheduler.robots_settled(lease.host_id)
        self._on_robots(host)
        return robots, sitemaps

    def _rest_s(self, lease: Lease, host: Host, outcome: Outcome) -> float:
        """How long to wait before robots.txt is asked for again, should this answer be no verdict."""
        if pushes_back(outcome) or (isinstance(outcome, Failed) and rests_origin(outcome.error_type, TaskKind.ROBOTS)):
            key = self._scheduler.books.key_for(lease.origin)
            return max(host.turn.open_mono, key.turn.open_mono) - self._clock.mono()
        since = host.robots.failing_since if host.robots is not None else None
        failing_s = 0.0 if since is None else self._clock.now() - since
        return min(max(ROBOTS_AGAIN_S, failing_s), ROBOTS_AGAIN_MAX_S)
