"""An outage of ours: every host fails at once, and none is the worse for it afterwards."""

import asyncio

import pytest

from crawler.core.enums import ErrorType, StoppedBy, TaskKind
from crawler.core.models import FetchResult, Origin, Task
from crawler.core.options import PolitenessOptions, ScopeOptions
from crawler.core.outcomes import OUTAGE_PROBE_S
from crawler.engine.options import EngineOptions
from tests.support.engine import Harness
from tests.support.scripted_web import failed, page, response
from tests.support.virtual_time import elapse, run

POLITE = PolitenessOptions(key="host", delay_s=1.0, address_delay_s=0.0, adaptive=False)
BEGIN, END = 60.0, 1_860.0
HOSTS, PAGES = 12, 150


def engine_with_outage(
    *errors: ErrorType, hosts: int = HOSTS, linger_s: float | None = 7_200.0, end: float = END
) -> Harness:
    """Hosts of many pages; from BEGIN to `end` no host responds, and each request fails after two seconds."""
    engine = Harness(
        *(f"https://h{n}.test/" for n in range(hosts)),
        politeness=POLITE,
        scope=ScopeOptions(hosts=("*.test",)),
        engine=EngineOptions(workers=16, linger_s=linger_s, min_free=0, max_attempts=2),
    )

    def is_out() -> bool:
        return BEGIN <= engine.clock.mono() < end

    def respond(origin: Origin, task: Task) -> FetchResult:
        if is_out():
            return failed(errors[len(task.url) % len(errors)])
        if task.kind is TaskKind.ROBOTS:
            return response(404)
        return response(200, page(*(f"/{n}" for n in range(PAGES))) if task.url.endswith("/") else page())

    engine.web.other = respond
    engine.web.takes_s = lambda origin, task: 2.0 if is_out() else 0.05
    return engine


@pytest.mark.parametrize(
    "errors",
    [
        (ErrorType.CONNECT_TIMEOUT,),
        (ErrorType.DNS_FAILURE, ErrorType.DNS_TIMEOUT),
        (ErrorType.RESET, ErrorType.FIRST_BYTE_TIMEOUT, ErrorType.CONNECT_UNREACHABLE),
    ],
)
def test_an_outage_of_ours_marks_nothing_dead_and_ends_at_once(errors: tuple[ErrorType, ...]) -> None:
    """It is detected within seconds; then one request leaves every few; when it is over the rate is back in a minute,
    and every page is fetched.
    """

    async def main() -> None:
        engine = engine_with_outage(*errors)
        assert await engine.run() is StoppedBy.EMPTY
        (began,), (over,) = engine.events_named("outage"), engine.events_named("outage_over")
        assert 4 <= int(str(began["hosts"])) <= HOSTS
        assert END - BEGIN - 15 < float(str(over["outage_s"])) < END - BEGIN + OUTAGE_PROBE_S + 3
        begins = [one.begin for one in engine.web.requests]
        during = sum(BEGIN + 30 <= begin < END for begin in begins)
        assert 0.8 * (END - BEGIN - 30) / OUTAGE_PROBE_S < during <= (END - BEGIN - 30) / OUTAGE_PROBE_S + 1
        before = sum(BEGIN - 20 <= begin < BEGIN for begin in begins)
        after = sum(END + 40 <= begin < END + 60 for begin in begins)
        assert after >= 0.95 * before > 0
        pages = [state for url, state in engine.settled.items()]
        assert pages == ["done"] * (HOSTS * (PAGES + 1))

    run(main())


def test_one_dead_host_among_others_is_no_outage() -> None:
    """Nor are two: the others respond in between."""

    async def main() -> None:
        engine = engine_with_outage(ErrorType.CONNECT_REFUSED, end=BEGIN)
        respond = engine.web.other

        def some(origin: Origin, task: Task) -> FetchResult:
            dead = origin.host in ("h0.test", "h1.test") and engine.clock.mono() > BEGIN
            return failed(ErrorType.CONNECT_REFUSED) if dead else respond(origin, task)

        engine.web.other = some
        crawling = asyncio.ensure_future(engine.run())
        await elapse(150)
        engine.crawl.drain()
        await crawling
        assert engine.events_named("outage") == []
        assert engine.host("h0.test").politeness.failures > 1

    run(main())


def test_hosts_that_never_answered_are_no_outage() -> None:
    """A list of seeds of which none exists any more."""

    async def main() -> None:
        engine = engine_with_outage(ErrorType.CONNECT_TIMEOUT, linger_s=60.0)
        engine.web.other = lambda origin, task: failed(ErrorType.CONNECT_TIMEOUT)
        assert await engine.run() is StoppedBy.WAITING
        assert engine.events_named("outage") == []

    run(main())


def test_a_crawl_that_may_end_does_not_wait_for_ever() -> None:
    """An outage that outlasts `crawl.linger` ends it, with the URLs waiting; until then its state says why."""

    async def main() -> None:
        engine = engine_with_outage(ErrorType.CONNECT_TIMEOUT, linger_s=120.0, end=1e9)
        crawling = asyncio.ensure_future(engine.run())
        await elapse(BEGIN + 60)
        assert engine.monitor.status().state == "outage"
        assert await crawling is StoppedBy.WAITING
        assert engine.clock.mono() < BEGIN + 200

    run(main())


def test_every_view_says_outage_while_one_lasts() -> None:
    """Not politeness, which has nothing to do with it; and what the failures are."""

    async def main() -> None:
        engine = engine_with_outage(ErrorType.CONNECT_TIMEOUT)
        monitor = engine.monitor
        crawling = asyncio.ensure_future(engine.run())
        await elapse(BEGIN + 60)
        found = monitor.status()
        assert (found.state, found.bottleneck, found.as_progress()["bottleneck"]) == ("outage", "outage", "outage")
        assert found.sentence.startswith("outage since 2023-11-14T22:14:")
        assert "hosts that responded before fail (connect_timeout) and none responds" in found.sentence
        assert "politeness" not in found.sentence
        assert found.as_line().startswith("outage since ")
        assert await crawling is StoppedBy.EMPTY
        assert monitor.status().bottleneck != "outage"

    run(main())


@pytest.mark.parametrize("hosts", [2, 3])
def test_an_outage_is_seen_with_few_hosts_too(hosts: int) -> None:
    """When all of them fail."""

    async def main() -> None:
        engine = engine_with_outage(ErrorType.CONNECT_TIMEOUT, hosts=hosts)
        assert await engine.run() is StoppedBy.EMPTY
        assert len(engine.events_named("outage")) == 1
        assert set(engine.settled.values()) == {"done"}

    run(main())
