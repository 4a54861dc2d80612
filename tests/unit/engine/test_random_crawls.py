"""Random crawls with everything that changes when a request may leave, checked by when each request arrived.

Random hosts on few addresses send links, robots.txt files with and without Crawl-delay, redirects of robots.txt, 429,
503, 500 and broken connections, over hours of virtual time. A failure names the number of the crawl.
"""

import math
import multiprocessing
import os
import random
from bisect import bisect_left, bisect_right
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from itertools import zip_longest

import pytest

from crawler.core.enums import ErrorType, StoppedBy, TaskKind, UrlState
from crawler.core.models import Failed, Fetched, FetchResult, Origin, Task
from crawler.core.options import PolitenessOptions, ScopeOptions
from crawler.core.outcomes import backs_off_origin, is_outage_error
from crawler.core.politeness import CLOCK_GUARD_S, address_delay, politeness_key, retry_after_s
from crawler.engine.options import EngineOptions
from crawler.fetch.net.errors import ResolveError
from crawler.fetch.net.resolver import CachingResolver, DnsAnswer, DnsResult
from crawler.fetch.options import NetworkOptions
from crawler.obs.events import Event
from tests.support.engine import Harness
from tests.support.quick_frontier import QuickFrontier
from tests.support.scripted_web import ScriptedNames, SentRequest, failed, page, response
from tests.support.virtual_time import run

FAULTS = (
    ErrorType.CONNECT_REFUSED,
    ErrorType.FIRST_BYTE_TIMEOUT,
    ErrorType.READ_TIMEOUT,
    ErrorType.SERVER_CLOSED,
    ErrorType.TLS_FAILED,
)
FIRST_BACKOFF_S = {429: 5.0, 503: 5.0, None: 1.0}  # core.politeness: by status, None for a broken connection
CRAWL_DELAYS_S = (0.5, 2.0, 7.0)


@dataclass
class World:
    """`limit` is the number of pages, `faults` the share of bad responses."""

    rng: random.Random
    hosts: int
    limit: int
    faults: float
    made: int = 0
    crawl_delays: dict[Origin, float] = field(default_factory=dict)

    def name(self, n: int) -> str:
        return f"h{n}.d{n % (self.hosts // 3)}.test"

    def links(self) -> list[str]:
        wanted = min(self.rng.randrange(8), self.limit - self.made)
        self.made += wanted
        return [f"https://{self.name(self.rng.randrange(self.hosts))}/{self.made - n}" for n in range(wanted)]

    def respond(self, origin: Origin, task: Task) -> FetchResult:
        if self.rng.random() < self.faults:
            return self._fault()
        if task.kind is TaskKind.PAGE:
            return response(200, page(*self.links()), took_s=self.rng.random() ** 3)
        draw = self.rng.random()
        if draw < 0.2 and task.redirects < 3:
            return response(301, location=f"https://{self.name(self.rng.randrange(self.hosts))}/robots.txt")
        if draw < 0.4 and task.redirects == 0:
            delay_s = self.crawl_delays.setdefault(origin, self.rng.choice(CRAWL_DELAYS_S))
            rules = f"User-agent: *\nDisallow: /9\nCrawl-delay: {delay_s}\n"
            return response(200, rules.encode(), content_type="text/plain")
        return response(404)

    def _fault(self) -> FetchResult:
        match self.rng.randrange(6):
            case 0:
                return response(429, retry_after=str(self.rng.randrange(1, 40)))
            case 1:
                return response(503)
            case 2:
                return response(500)
            case _:
                return failed(self.rng.choice(FAULTS))


def name_lookup(rng: random.Random) -> tuple[DnsResult, float]:
    """The result of a name server that is slow or silent now and then."""
    if rng.random() < 0.9:
        return DnsAnswer(("192.0.2.1",), 0.0), rng.random() * 0.1
    return ResolveError(ErrorType.DNS_FAILURE, "SERVFAIL"), rng.choice((0.0, 3.0, math.inf))


def long_walk(number: int) -> int:
    """One of those for a million; at the top of the module for the sake of other processes."""
    return walk(number, urls=2_000)


def walk(number: int, *, urls: int) -> int:
    """One walk; everything about it follows from its number. Returns how many requests were made."""
    rng = random.Random(number)
    hosts = rng.choice((6, 30, 120))
    delay_s = rng.choice((0.0, 0.3, 1.0))
    politeness = PolitenessOptions(
        key=rng.choice(("domain", "host")),
        delay_s=delay_s,
        address_delay_s=rng.choice((None, 0.0, 0.1)),
        connections_per_host=rng.choice((1, 4)),
        connections_per_address=rng.choice((None, 2)),
        adaptive=rng.random() < 0.5,
    )
    options = EngineOptions(
        workers=rng.choice((3, 24)),
        lease_size=6,
        linger_s=90_000.0,
        min_free=0,
        commit_settlements=rng.choice((4, 256)),
        max_attempts=3,
        active_hosts=rng.choice((2, 6, 10_000)),
    )
    world = World(rng, hosts, urls, faults=rng.choice((0.0, 0.05, 0.2)))

    async def main() -> int:
        engine = Harness(
            *(f"https://{world.name(n)}/" for n in range(4)),
            politeness=politeness,
            scope=ScopeOptions(hosts=("*.test",), max_depth=None),
            engine=options,
            frontier=QuickFrontier(partial(politeness_key, options=politeness)),
            rng_seed=number,
            first_contacts=rng.choice((1, 3, 24)),
        )
        web = engine.web
        web.other = world.respond
        web.addresses = {world.name(n): f"192.0.2.{n % 7}" for n in range(hosts)}
        web.dial_s = lambda origin: rng.choice((0.0, 0.0, 0.03))
        if rng.random() < 0.5:
            ttls = NetworkOptions(dns_min_ttl_s=rng.choice((0.5, 60.0)), dns_cache_size=rng.choice((2, 100)))
            web.resolver = CachingResolver(ScriptedNames(lambda name: name_lookup(rng)), ttls, engine.clock)
        web.takes_s = lambda origin, task: rng.random() * (6.0 if rng.random() < 0.05 else 0.2)

        assert await engine.run() is StoppedBy.EMPTY
        check_delays(web.requests, politeness)
        check_backoffs(web.requests, politeness, outages_of(engine))
        check_settled(engine)
        await check_nothing_left(engine)
        assert engine.loop.rounds < 40 * (len(web.requests) + web.shut) + 8 * engine.clock.mono(), "the loop spins"
        return len(web.requests)

    return run(main())


def check_delays(asked: list[SentRequest], politeness: PolitenessOptions) -> None:
    """No request came before the delay of its key and of its address had passed since the end of the one before."""
    delays: dict[str, float] = {}
    crawl_delays: list[tuple[float, str, float]] = []  # when a Crawl-delay was read, for which key
    for one in asked:
        if one.task.kind is TaskKind.ROBOTS and isinstance(one.result, Fetched) and one.result.payload.size:
            told = float(one.result.payload.prefix(1_000).split()[-1])
            crawl_delays.append((one.end, politeness_key(one.origin.host, politeness), told))
    crawl_delays.sort(reverse=True)
    ends: dict[str, float] = {}
    slow: dict[str, float] = {}
    for one in sorted(asked, key=lambda one: one.called):
        while crawl_delays and crawl_delays[-1][0] <= one.called:
            _, key, told = crawl_delays.pop()
            delays[key] = max(delays.get(key, 0.0), told)
        key = politeness_key(one.origin.host, politeness)
        delay_s = max(politeness.delay_s, delays.get(key, 0.0))
        if delay_s > 0:
            delay_s = max(delay_s, slow.get(key, 0.0))
            assert one.called >= ends.get(key, -99.0) + delay_s + CLOCK_GUARD_S - 1e-6, f"{key} was requested too early"
        ends[key] = max(ends.get(key, 0.0), one.end)
        if politeness.adaptive and politeness.delay_s > 0 and isinstance(one.result, Fetched):
            slow[key] = 5 * one.result.timings.first_byte_s
    if (delay_s := address_delay(politeness)) > 0:
        ends.clear()
        for one in sorted((one for one in asked if one.address), key=lambda one: one.begin):
            assert one.begin >= ends.get(one.address, -99.0) + delay_s, f"{one.address} was requested too early"
            ends[one.address] = one.end


def outages_of(engine: Harness) -> list[tuple[float, float]]:
    """When each outage was detected, and when it ended."""
    came = [(name, mono) for (name, _), mono in zip(engine.events, engine.events_mono, strict=True)]
    began = [mono for name, mono in came if name == Event.OUTAGE]
    ended = [mono for name, mono in came if name == Event.OUTAGE_OVER]
    return list(zip_longest(began, ended, fillvalue=math.inf))


def check_backoffs(asked: list[SentRequest], politeness: PolitenessOptions, outages: list[tuple[float, float]]) -> None:
    """After 429 and 503 the key backs off, after a broken connection the origin does. Once an outage is detected, there
    is no back-off for failures during it and those since the last response before it. A name that is known not to
    resolve fails in no time, perhaps for several requests at once.
    """
    answered = sorted(one.end for one in asked if isinstance(one.result, Fetched))
    suspect: dict[Origin, list[tuple[float, float]]] = {}  # failures that may be ours: end, end of the back-off

    def is_excused(end: float, now: float) -> bool:
        for began, over in outages:
            if began <= now and end <= over and bisect_left(answered, began) <= bisect_right(answered, end):
                return True
        return False

    closed: dict[str | Origin, float] = {}
    ended = sorted(asked, key=lambda one: one.end, reverse=True)
    for one in sorted(asked, key=lambda one: one.called):
        while ended and (ended[-1].end < one.called or ended[-1].called < ended[-1].end == one.called):
            before = ended.pop()
            result, until = before.result, before.end
            if isinstance(result, Fetched) and result.head.status_code in (429, 503):
                key = politeness_key(before.origin.host, politeness)
                told = retry_after_s(result.head, 0.0)
                until += FIRST_BACKOFF_S[result.head.status_code] if told is None else told
                closed[key] = max(closed.get(key, 0.0), until)
            elif isinstance(result, Failed) and backs_off_origin(result.error_type) and not before.task.redirects:
                until += FIRST_BACKOFF_S[None]
                if is_outage_error(result.error_type):
                    suspect.setdefault(before.origin, []).append((before.end, until))
                else:
                    closed[before.origin] = max(closed.get(before.origin, 0.0), until)
        key = politeness_key(one.origin.host, politeness)
        assert one.called >= closed.get(key, 0.0), f"{key} was requested while it backed off"
        if not one.task.redirects:  # a redirected robots.txt does not wait for this origin
            backoffs = [until for end, until in suspect.get(one.origin, ()) if not is_excused(end, one.called)]
            until = max([closed.get(one.origin, 0.0), *backoffs])
            assert one.called >= until, f"{one.origin} was requested while it backed off"


def check_settled(engine: Harness) -> None:
    """Every page has exactly one final state, and had as many requests as attempts."""
    states: dict[str, list[UrlState]] = {}
    for visited, _, _ in engine.visits:
        settlement = visited.settlement
        if settlement.task.kind is TaskKind.PAGE:
            states.setdefault(settlement.task.url, []).append(settlement.state)
    for url, each in states.items():
        assert all(state is UrlState.WAITING for state in each[:-1]), url
        assert each[-1] in (UrlState.DONE, UrlState.DENIED, UrlState.GAVE_UP), url
    stored = Counter(v.settlement.task.url for v, _, _ in engine.visits if v.settlement.state is not UrlState.DENIED)
    assert stored == Counter(engine.web.urls)


async def check_nothing_left(engine: Harness) -> None:
    """No host has anything left, and neither has the store."""
    await engine.frontier.open()
    totals = engine.frontier.totals()
    await engine.frontier.close(clean=True)
    assert totals.queued == totals.waiting == 0
    assert engine.scheduler.url_limits.reserved == 0
    for host in engine.host_table.hosts.values():
        assert (host.queued, len(host.leased), len(host.buffer), host.leases, host.reserved) == (0, 0, 0, 0, 0)
    assert all(key.politeness.in_flight == 0 and not key.auxiliary for key in engine.host_table.keys.values())


@pytest.mark.parametrize("number", range(20))
def test_no_request_comes_too_early_and_every_page_has_one_end(number: int) -> None:
    """With any responses and any delays."""
    walk(number, urls=400)


@pytest.mark.prove
@pytest.mark.timeout(3_600)
def test_a_million_requests() -> None:
    """The same, a million times: ten minutes on one core."""
    with ProcessPoolExecutor(os.cpu_count(), mp_context=multiprocessing.get_context("spawn")) as pool:
        asked = sum(pool.map(long_walk, range(1_000, 1_500)))
    assert asked > 1_000_000
