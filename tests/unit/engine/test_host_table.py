"""The host table: what responses and failures mean for a host and its politeness key."""

import asyncio
import random
from itertools import pairwise
from typing import Any

import pytest

from crawler.core.enums import ErrorType
from crawler.core.models import Backoff, HostRow, KeyRow, Lease, Origin, RobotsRecord
from crawler.core.options import PolitenessOptions
from crawler.core.politeness import CLOCK_GUARD_S
from crawler.engine.scheduling.host_table import HostTable
from crawler.frontier.base import BlockedHost, Leaving, Wanted
from tests.support.engine import Harness
from tests.support.fetching import FakeClock
from tests.support.memory_frontier import MemoryFrontier
from tests.support.scripted_web import page, response
from tests.support.virtual_time import elapse, run

A = Origin("https", "www.a.test", 443)
A2 = Origin("https", "static.a.test", 443)
B = Origin("https", "b.test", 443)
READ_AT = 1_700_000_000.0


class Case:
    """A host table with the hosts A, A2 (one key) and B."""

    def __init__(self, **options: Any) -> None:
        self.clock = FakeClock(1_000.0)
        self.transitions: list[tuple[object, object]] = []
        self.host_table = HostTable(
            politeness=PolitenessOptions(**options),
            clock=self.clock,
            rng=random.Random(1),
            on_event=lambda event, fields: self.transitions.append((fields.get("to", event), fields.get("reason"))),
        )
        self.rows = [HostRow(n, origin, 0, queued=100) for n, origin in enumerate((A, A2, B), 1)]
        self.host_table.admit(self.rows)
        self.a, self.a2, self.b = self.host_table.hosts.values()

    def restarted(
        self,
        *backoffs: Backoff,
        clean: bool = True,
        robots: RobotsRecord | None = None,
        requested_s_ago: float | None = None,
        response_s: float = 0.0,
    ) -> "Case":
        """Start again with what the store kept. `requested_s_ago`: when the last request of A's key ended."""
        table, now = self.host_table, self.clock.now()
        table.hosts.clear()
        table.keys.clear()
        table.start(now, clean=clean)
        delay_s = None if robots is None else robots.crawl_delay_s
        of_key = {one.key: one for one in backoffs}
        requested_at = None if requested_s_ago is None else now - requested_s_ago
        table.enter(KeyRow(1, "a.test", requested_at, 0.0, delay_s, of_key.get("a.test"), response_s, (), False))
        table.enter(KeyRow(2, "b.test", None, 0.0, delay_s, of_key.get("b.test"), 0.0, (), False))
        table.admit([HostRow(row.id, row.origin, 0, queued=1, robots=robots) for row in self.rows])
        self.a, self.a2, self.b = table.hosts.values()
        return self


def lease(host_id: int = 1, origin: Origin = A) -> Lease:
    return Lease(1, origin, host_id, ())


def robots(delay_s: float | None = None, verdict: str = "rules", **more: Any) -> RobotsRecord:
    return RobotsRecord(verdict, 200, b"", READ_AT, READ_AT + 86_400, crawl_delay_s=delay_s, **more)


# -- entering memory


@pytest.mark.parametrize(
    ("requested_s_ago", "clean", "opens_s"),
    [
        (20.0, True, 40.0),  # the delay ran while the key was in the store only
        (59.0, True, 1.0),
        (61.0, True, 0.0),
        (None, True, 0.0),  # it was never requested
        (20.0, False, 40.0),  # there was none since: it would have been too early
        (61.0, False, 60.0),  # there may have been one whose visit was not stored
        (None, False, 60.0),
        (-30.0, True, 60.0),  # later than now: not for longer than the delay
    ],
)
def test_a_key_that_enters_keeps_its_delay(requested_s_ago: float | None, clean: bool, opens_s: float) -> None:
    """From its last request on, or from the start if that is not known for certain. It holds for all its hosts."""
    case = Case(delay_s=1.0).restarted(clean=clean, robots=robots(60.0), requested_s_ago=requested_s_ago)
    assert case.a.key is case.a2.key
    wait_s = max(0.0, case.a.key.politeness.open_mono - 1_000.0)
    assert wait_s == pytest.approx(opens_s + CLOCK_GUARD_S * (opens_s > 0))
    assert max(0.0, case.b.key.politeness.open_mono - 1_000.0) == pytest.approx(0.0 if clean else 60.0 + CLOCK_GUARD_S)


def test_a_key_that_enters_later_after_an_unclean_end_does_not_wait_anew() -> None:
    """Its delay ran since the start."""
    case = Case(delay_s=1.0).restarted(clean=False)
    case.clock.time += 100.0
    key = case.host_table.enter(KeyRow(3, "c.test", None, 0.0, None, None, 0.0, (), False))
    assert key.politeness.open_mono == pytest.approx(1_001.0 + CLOCK_GUARD_S)


def test_a_clock_that_was_set_back_between_runs_neither_shortens_nor_lengthens_a_delay() -> None:
    """Schedule time goes on where the last run ended."""
    case = Case(delay_s=60.0)
    ended_at = case.clock.now() + 86_400.0
    case.host_table.keys.clear()
    case.host_table.start(ended_at, clean=True)
    key = case.host_table.enter(KeyRow(3, "c.test", ended_at - 20.0, 0.0, None, None, 0.0, (), False))
    assert key.politeness.open_mono == pytest.approx(1_040.0 + CLOCK_GUARD_S)


def test_what_a_host_learned_enters_with_it() -> None:
    """Its back-off with the failures before it, and that it responded once; nobody else's."""
    case = Case(delay_s=1.0)
    case.host_table.responded(lease(), 0.1, "192.0.2.1")
    delays_s = [case.host_table.origin_failed(lease(), ErrorType.RESET, permanent=False) for _ in range(2)]
    (stored,) = case.host_table.take_readiness()
    assert (stored.parked, stored.failures, stored.reason, stored.has_responded) == (None, 2, "reset", True)
    assert case.host_table.take_readiness() == []
    case.host_table.hosts.clear()
    row = HostRow(
        1, A, 0, queued=1, ready_at=stored.ready_at, parked=stored.parked, failures=2, reason="reset",
        has_responded=True,
    )  # fmt: skip
    (host,) = case.host_table.admit([row])
    assert host.politeness.open_mono == pytest.approx(1_000.0 + max(delays_s))
    assert (host.politeness.failures, host.politeness.reason, host.ever_responded) == (2, "reset", True)


def test_a_back_off_for_a_fault_of_the_host_outlives_an_outage() -> None:
    """An expired certificate has nothing to do with our network; back-offs for failures in the outage end with it. The
    key backs off after 429 and 503, and no outage changes that.
    """
    case = Case(delay_s=1.0, key="host")
    for number, origin in enumerate((A, A2, B), 1):
        case.host_table.responded(lease(number, origin), 0.1, "192.0.2.1")
    case.host_table.throttled(lease(2, A2), 503, 3_000.0)
    refused = case.a2.key.politeness
    for number, origin in enumerate((A, A2, B), 1):
        case.host_table.origin_failed(lease(number, origin), ErrorType.CONNECT_TIMEOUT, permanent=False)
    delay_s = case.host_table.origin_failed(lease(1, A), ErrorType.TLS_CERT_EXPIRED, permanent=True)
    case.clock.time += 5.0
    case.host_table.origin_failed(lease(3, B), ErrorType.CONNECT_TIMEOUT, permanent=False)
    case.host_table.origin_failed(lease(2, A2), ErrorType.CONNECT_TIMEOUT, permanent=False)
    assert case.host_table.outage.is_on
    case.clock.time += 5.0
    case.host_table.responded(lease(3, B), 0.1, "192.0.2.1")
    assert not case.host_table.outage.is_on
    assert case.a.politeness.open_mono == pytest.approx(1_000.0 + delay_s)
    assert delay_s > 900
    assert case.a2.politeness.open_mono <= case.clock.mono()
    assert case.b.politeness.open_mono <= case.clock.mono()
    assert case.a2.key.politeness == refused


def test_back_offs_outlive_a_restart_with_their_failures() -> None:
    """The back-off after the next failure in a row is longer, as if there had been no restart."""
    case = Case().restarted(Backoff("a.test", case_now() + 300.0, 3, "503"))
    assert case.a.key.politeness.open_mono == pytest.approx(1_300.0)
    assert (case.a.key.politeness.failures, case.a.key.politeness.reason) == (3, "503")
    assert case.b.key.politeness.failures == 0
    assert case.host_table.throttled(lease(), 503, None) >= 5.0 * 3**3


def test_a_back_off_that_is_over_keeps_its_failures_only() -> None:
    """The first good response removes it from the store."""
    case = Case(delay_s=1.0).restarted(Backoff("a.test", case_now() - 10.0, 2, "429"))
    assert case.a.key.politeness.open_mono == pytest.approx(1_000.0)
    case.host_table.reset_failures(lease())
    assert case.host_table.take_backoffs() == [Backoff("a.test", 0.0, 0, "")]


def test_a_clock_set_back_does_not_make_a_back_off_endless() -> None:
    """A day at most."""
    case = Case().restarted(Backoff("a.test", case_now() + 9e6, 1, "429"))
    assert case.a.key.politeness.open_mono == pytest.approx(1_000.0 + 86_400.0)


def test_after_a_restart_the_robots_txt_of_a_held_host_is_requested_at_once() -> None:
    """The 30 days after which robots.txt counts as absent do not start again."""
    case = Case().restarted(robots=robots(verdict="unreachable", failing_since=5.0))
    assert case.a.is_held
    assert case.a.robots_due(case.clock.now())
    assert case.a.robots is not None
    assert case.a.robots.failing_since == 5.0


def case_now() -> float:
    return FakeClock(1_000.0).now()


# -- results


def test_a_key_belongs_to_its_domain_or_to_its_host() -> None:
    """As politeness.key says."""
    case = Case()
    assert case.a.key is case.a2.key
    by_host = Case(key="host")
    assert by_host.a.key is not by_host.a2.key


def test_a_crawl_delay_holds_for_the_key_and_for_requests_before_it_was_known() -> None:
    """It counts from the end of the last request, also that for robots.txt; the largest of the key's hosts holds."""
    case = Case(delay_s=0.0)
    case.a.key.last_end_mono = 999.0
    case.host_table.learn_robots(case.a, robots(10.0))
    assert case.a2.key.delay_s == 10.0
    assert case.a.key.politeness.open_mono == 1_009.0 + CLOCK_GUARD_S
    assert case.a.key.politeness.in_flight == 0
    case.host_table.learn_robots(case.a2, robots(2.0))
    assert case.a.key.delay_s == 10.0


@pytest.mark.parametrize(("wait_s", "least", "most"), [(30.0, 30.0, 30.0), (None, 5.0, 6.25), (0.0, 1.0, 1.0)])
def test_a_throttled_key_backs_off(wait_s: float | None, least: float, most: float) -> None:
    """For as long as the server said, else a few seconds; the next commit stores it."""
    case = Case()
    delay_s = case.host_table.throttled(lease(), 429, wait_s)
    assert least <= delay_s <= most
    assert case.a2.key.politeness.open_mono == 1_000.0 + delay_s
    [kept] = case.host_table.take_backoffs()
    assert (kept.key, kept.until_at, kept.failures) == ("a.test", case.clock.now() + delay_s, 1)
    assert case.host_table.take_backoffs() == []
    assert [to for to, _ in case.transitions] == ["backoff"]


def test_a_server_that_refuses_after_its_own_time_is_not_believed_again() -> None:
    """With Retry-After 0 for ever the back-offs are those without Retry-After; a longer one holds as it is."""
    case = Case()
    backoffs = [case.host_table.throttled(lease(), 429, 0.0) for _ in range(5)]
    assert backoffs[0] == 1.0
    for delay_s, base in zip(backoffs[1:], (5.0, 15.0, 45.0, 135.0), strict=True):
        assert base <= delay_s <= base * 1.25
    assert case.host_table.throttled(lease(), 429, 7_200.0) == 7_200.0


def test_a_key_throttled_again_backs_off_longer_until_a_good_response() -> None:
    """Failures count until a response that is not throttled; the back-off that runs still holds."""
    case = Case()
    first, second = (case.host_table.throttled(lease(), 503, None) for _ in range(2))
    assert second >= 3 * 5.0 > first / 1.25
    case.host_table.reset_failures(lease())
    assert case.a.key.politeness.failures == 0
    assert case.a.key.politeness.open_mono == 1_000.0 + second
    assert case.host_table.take_backoffs() == [Backoff("a.test", 0.0, 0, "")]


def test_after_a_broken_connection_the_origin_alone_backs_off() -> None:
    """Its neighbours under the same key go on."""
    case = Case()
    case.host_table.responded(lease(), 0.1, "192.0.2.1")
    delay_s = case.host_table.origin_failed(lease(), "reset", permanent=False)
    assert delay_s >= 5.0
    assert case.a.politeness.open_mono == 1_000.0 + delay_s
    assert case.a2.politeness.open_mono == case.a.key.politeness.open_mono == 0.0
    case.host_table.responded(lease(), 0.1, "192.0.2.1")
    assert case.a.politeness.failures == 0
    assert [to for to, _ in case.transitions] == ["backoff", "ready"]


def test_after_a_permanent_failure_the_first_back_off_is_long() -> None:
    """A wrong certificate is not corrected within minutes."""
    case = Case()
    assert case.host_table.origin_failed(lease(), "tls_cert_expired", permanent=True) >= 900.0


def test_a_slow_response_lengthens_the_delay_until_the_next() -> None:
    """Adaptive: five times what it took, 30 s at most; at delay 0 never."""
    case = Case(delay_s=1.0)
    case.host_table.responded(lease(), 2.0, "192.0.2.1")
    assert case.a.key.adaptive_s == 10.0
    case.host_table.responded(lease(), 60.0, "192.0.2.1")
    assert case.a.key.adaptive_s == 30.0
    case.host_table.responded(lease(), 0.01, "192.0.2.1")
    assert case.a.key.adaptive_s == 1.0
    free = Case(delay_s=0.0)
    free.host_table.responded(lease(), 2.0, "192.0.2.1")
    assert free.a.key.adaptive_s == 0.0


def test_a_response_of_another_origin_says_nothing_of_the_host() -> None:
    """A redirected robots.txt comes from another origin: the response concerns the key of that one."""
    case = Case(delay_s=1.0)
    case.host_table.responded(lease(1, B), 2.0, "192.0.2.9")
    assert case.a.peer is None
    assert not case.a.ever_responded
    assert (case.a.key.adaptive_s, case.b.key.adaptive_s) == (0.0, 10.0)


def test_an_event_says_that_a_host_is_held_and_that_it_is_ready_again() -> None:
    """The operator sees why nothing is fetched."""
    case = Case()
    case.host_table.learn_robots(case.a, robots(verdict="unreachable"))
    case.host_table.learn_robots(case.a, robots())
    assert case.transitions == [("held", "robots.txt cannot be read (status 200)"), ("ready", "robots.txt read")]


def test_the_back_off_of_a_key_without_hosts_outlives_a_restart() -> None:
    """A host that was requested only for another's robots.txt may have sent a 429 as well."""
    case = Case()
    key = case.host_table.key_for(Origin("https", "other.test", 443))
    assert key.is_entering
    backoff = Backoff("other.test", case.clock.now() + 600.0, 1, "429 Retry-After 600")
    assert case.host_table.enter(KeyRow(3, "other.test", None, 0.0, None, backoff, 0.0, (), False)) is key
    assert key.politeness.open_mono == pytest.approx(case.clock.mono() + 600.0)
    assert not key.is_entering


# -- other options come into force


def test_a_longer_delay_holds_after_a_request_before_it() -> None:
    """A delay that runs becomes longer, never shorter."""
    case = Case(delay_s=1.0, adaptive=False)
    key = case.a.key
    key.politeness = key.politeness.began().ended(case.clock.mono(), delay_s=1.0)
    key.last_end_mono = case.clock.mono()
    case.host_table.reconfigure(PolitenessOptions(delay_s=5.0, adaptive=False))
    assert key.politeness.open_mono == pytest.approx(case.clock.mono() + 5.0 + CLOCK_GUARD_S)
    assert key.delay_s == 5.0
    case.host_table.reconfigure(PolitenessOptions(delay_s=0.5, adaptive=False))
    assert key.politeness.open_mono == pytest.approx(case.clock.mono() + 5.0 + CLOCK_GUARD_S)
    assert key.delay_s == 0.5


def test_a_crawl_delay_outlives_other_options() -> None:
    """It still holds, up to the new maximum."""
    case = Case(delay_s=1.0)
    case.host_table.learn_robots(case.a, RobotsRecord("rules", 200, b"", 0.0, 1e12, crawl_delay_s=30.0))
    case.host_table.reconfigure(PolitenessOptions(delay_s=2.0, max_crawl_delay_s=20.0))
    assert (case.a.key.delay_s, case.b.key.delay_s) == (20.0, 2.0)


def test_a_back_off_outlives_other_options() -> None:
    """So does its number of failures."""
    case = Case(delay_s=1.0)
    lease = Lease(1, A, case.a.id, (), 0.0)
    case.host_table.throttled(lease, 429, 100.0)
    before = case.a.key.politeness
    case.host_table.reconfigure(PolitenessOptions(delay_s=0.0))
    assert case.a.key.politeness.open_mono == before.open_mono
    assert case.a.key.politeness.failures == before.failures


def test_a_blocked_host_has_no_work() -> None:
    """Until it is unblocked; its queue stays."""
    case = Case()
    case.host_table.blocklist.add(BlockedHost("a.test", "domain", 0.0, ""))
    assert case.host_table.apply_blocklist() == [case.a, case.a2]
    assert (case.a.has_work, case.a2.has_work, case.b.has_work) == (False, False, True)
    case.host_table.blocklist.remove("a.test")
    assert case.host_table.apply_blocklist() == [case.a, case.a2]
    assert case.a.has_work
    assert case.a.queued == 100


def test_the_adaptive_delay_of_a_slow_host_outlives_a_restart() -> None:
    """It is stored with a commit, once, and runs at the start of the next run."""

    async def main() -> None:
        frontier = MemoryFrontier()
        polite = PolitenessOptions(delay_s=1.0, address_delay_s=0.0)
        last: list[float] = []
        for _ in range(2):
            engine = Harness("https://a.test/", politeness=polite, frontier=frontier)
            links = [f"/{n}" for n in range(9)]
            engine.web.other = lambda origin, task, links=links: response(200, page(*links), took_s=3.0)
            crawling = asyncio.ensure_future(engine.run())
            await elapse(50)
            engine.crawl.drain()
            await crawling
            begins = [one.begin for one in engine.web.requests]
            assert all(after - before >= 15.0 for before, after in pairwise(last + begins))
            last = begins[-1:]
        await frontier.open()
        entered = await frontier.exchange(Leaving(), Wanted(names=["a.test"]))
        assert [key.response_s for key in entered.keys] == [3.0]

    run(main())


def test_an_adaptive_delay_leaves_memory_exactly() -> None:
    """Commits store it only if it changed by a fifth: a key that entered with that one would be requested too early."""
    case = Case(delay_s=1.0)
    case.host_table.responded(lease(), 2.0, "192.0.2.1")
    assert len(case.host_table.take_slow_responses()) == 1
    case.host_table.responded(lease(), 2.25, "192.0.2.1")
    assert case.host_table.take_slow_responses() == []
    (slow,) = case.host_table.take_slow_responses_of([case.a.key, case.b.key])
    assert (slow.key, slow.response_s) == ("a.test", pytest.approx(2.25))
    key = case.host_table.enter(KeyRow(1, "a.test", None, 0.0, None, None, slow.response_s, (), False))
    assert key.adaptive_s == pytest.approx(case.a.key.adaptive_s) == pytest.approx(11.25)
