"""Limits on URLs: never one more than allowed, and no URL held back that may be fetched."""

from typing import Any

from crawler.core.enums import StoppedBy
from crawler.core.models import Origin, Task
from crawler.core.options import ScopeOptions
from crawler.engine.scheduling.host import Host, PolitenessKey
from crawler.engine.scheduling.restrictions import UrlLimits
from tests.support.engine import AT_ONCE, Harness
from tests.support.memory_frontier import MemoryFrontier
from tests.support.scripted_web import page, response
from tests.support.virtual_time import run

FIRST, RETRY = Task(1, "u"), Task(1, "u", attempt=2)


def host(number: int) -> Host:
    name = f"h{number}.test"
    return Host(number, Origin("https", name, 443), PolitenessKey(name, 1.0), queued=100)


def case(**limits: Any) -> tuple[UrlLimits, Host, Host]:
    return UrlLimits(ScopeOptions(**limits)), host(1), host(2)


def test_max_urls_counts_what_is_leased_and_what_was_fetched() -> None:
    """Never one more, whatever mix of both there is."""
    limits, a, b = case(max_urls=3)
    limits.first_attempts = 1
    assert [limits.reserve(a, FIRST), limits.reserve(b, FIRST), limits.reserve(a, FIRST)] == [True, True, False]
    limits.attempt_stored(a, FIRST, fetched=True)
    assert not limits.reserve(b, FIRST)


def test_a_reservation_given_back_may_be_used_by_any_host() -> None:
    """A task that came back without an attempt does not count."""
    limits, a, b = case(max_urls=1)
    assert limits.reserve(a, FIRST)
    limits.unreserve(a, FIRST)
    assert limits.reserve(b, FIRST)


def test_a_refusal_gives_its_reservation_back_and_reopens_other_hosts() -> None:
    """A URL that robots.txt denies was not fetched."""
    limits, a, b = case(max_urls=1)
    assert limits.reserve(a, FIRST)
    limits.hold(b)
    assert limits.is_reached
    assert not b.has_work
    assert limits.attempt_stored(a, FIRST, fetched=False) == (b,)
    assert not limits.is_reached
    assert b.has_work
    assert limits.reserve(b, FIRST)


def test_max_urls_per_host_does_not_hold_others() -> None:
    """Each host has its own count."""
    limits, a, b = case(max_urls_per_host=2)
    assert [limits.reserve(a, FIRST) for _ in range(3)] == [True, True, False]
    assert limits.reserve(b, FIRST)


def test_retries_need_no_reservation() -> None:
    """The URL was counted at its first attempt."""
    limits, a, _ = case(max_urls=1)
    assert limits.reserve(a, FIRST)
    assert limits.reserve(a, RETRY)
    limits.attempt_stored(a, RETRY, fetched=True)
    assert (limits.first_attempts, limits.reserved) == (0, 1)


def test_a_wider_limit_lets_hosts_go_on_that_had_reached_it() -> None:
    """And it holds from now on."""
    limits, a, _ = case(max_urls_per_host=1)
    assert limits.reserve(a, FIRST)
    assert not limits.reserve(a, FIRST)
    limits.hold(a)
    limits.reconfigure(ScopeOptions(max_urls_per_host=2))
    assert a.has_work
    assert limits.reserve(a, FIRST)
    assert not limits.reserve(a, FIRST)


def test_the_count_goes_on_where_the_directory_left_it() -> None:
    """Limits hold over its life."""

    async def main() -> None:
        frontier = MemoryFrontier()
        for limit, fetched in ((2, 2), (3, 1)):
            engine = Harness(
                "https://a.test/", politeness=AT_ONCE, scope=ScopeOptions(max_urls=limit), frontier=frontier
            )
            engine.web.other = lambda origin, task: response(200, page("/1", "/2", "/3"))
            assert await engine.run() is StoppedBy.MAX_URLS
            assert len(engine.web.page_urls) == fetched

    run(main())
