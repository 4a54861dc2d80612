"""The end of a crawl: every URL in one class, sums that add up, and what the store and the scheduler agree about.

The histories of chance are held against what the scripted server was asked: a site with redirects, errors, forbidden
pages and a trap, crawled with kills, limits and blocks.
"""

import asyncio
import random
from dataclasses import replace

import pytest

from crawler.core.enums import ErrorType, Exit, LeftReason, StoppedBy, TaskKind, UrlState
from crawler.core.models import FetchResult, Origin, RobotsRecord, Suspects, Task
from crawler.core.options import ScopeOptions
from crawler.core.outcomes import UrlCounts
from crawler.core.politeness import OPEN
from crawler.core.url import target_of
from crawler.engine.monitoring.bottleneck import LIMIT, Backlog
from crawler.engine.monitoring.ending import Ending, Inconsistent, ending, urls_left
from crawler.engine.options import EngineOptions
from crawler.engine.scheduling.host import Host, PolitenessKey
from crawler.frontier.base import BlockedHost, Totals
from tests.support.engine import AT_ONCE, Harness
from tests.support.quick_frontier import QuickFrontier
from tests.support.scripted_web import failed, page, response
from tests.support.trap_site import prose
from tests.support.virtual_time import run

NOW = 1_000.0
A, B = "https://a.test", "https://b.test"
RESTING = replace(OPEN, failures=1, open_mono=NOW + 60.0, reason="reset")
NOTHING = Totals(0, 0, 0, 0, 0, 0)


def host(number: int, queued: int, **fields: object) -> Host:
    name = f"h{number}.test"
    made = Host(number, Origin("https", name, 443), PolitenessKey(name, 1.0), queued=queued)
    for field, value in fields.items():
        setattr(made, field, value)
    return made


def end_of(
    stopped_by: StoppedBy,
    totals: Totals,
    *hosts: Host,
    parked: dict[str, tuple[int, int]] | None = None,
    is_settled: bool = True,
) -> Ending:
    sums = urls_left(hosts, parked or {}, totals, NOW)
    return ending(stopped_by, totals, sums, [("h1.test", Suspects(1, "/x", 1))], is_settled=is_settled)


@pytest.mark.parametrize(
    ("fields", "reason", "code"),
    [
        ({"is_blocked": True, "politeness": RESTING}, LeftReason.BLOCKED, Exit.OK),
        ({"robots": RobotsRecord("unreachable", 503, None, 0.0, 60.0)}, LeftReason.ROBOTS, Exit.WAITING),
        ({"politeness": RESTING}, LeftReason.BACKOFF, Exit.WAITING),
        ({"limit_reached": True}, LeftReason.LIMIT, Exit.OK),
    ],
)
def test_each_host_is_left_for_one_reason(fields: dict[str, object], reason: LeftReason, code: int) -> None:
    """The one that would have to go first; what the operator wants so is no failure."""
    end = end_of(StoppedBy.EMPTY, replace(NOTHING, queued=3), host(1, 3, **fields))
    assert end.left_by == {reason: 3}
    assert end.exit_code == code
    assert str(end.left[0]).startswith("3 URLs of https://h1.test ")


@pytest.mark.parametrize(
    ("stopped_by", "left", "code"),
    [
        (StoppedBy.EMPTY, 0, Exit.OK),
        (StoppedBy.MAX_URLS, 5, Exit.OK),
        (StoppedBy.MAX_DURATION, 5, Exit.OK),
        (StoppedBy.SIGNAL, 5, Exit.WAITING),
        (StoppedBy.SIGNAL, 0, Exit.OK),
        (StoppedBy.OPERATOR, 5, Exit.WAITING),
        (StoppedBy.WAITING, 5, Exit.WAITING),
        (StoppedBy.DISK, 5, Exit.WAITING),
    ],
)
def test_the_exit_code_follows_from_what_is_left(stopped_by: StoppedBy, left: int, code: int) -> None:
    """A limit that was asked for is no failure."""
    assert end_of(stopped_by, replace(NOTHING, queued=left), host(1, left)).exit_code == code


@pytest.mark.parametrize(
    ("totals", "hosts", "code"),
    [
        (replace(NOTHING, queued=5), [host(1, 2, limit_reached=True), host(2, 3, is_blocked=True)], Exit.OK),
        (replace(NOTHING, queued=5, waiting=1), [host(1, 5, limit_reached=True)], Exit.WAITING),
        (replace(NOTHING, queued=5), [host(1, 4, limit_reached=True), host(2, 1, politeness=RESTING)], Exit.WAITING),
        (replace(NOTHING, queued=5, suspect=1), [host(1, 5, limit_reached=True)], Exit.WAITING),
    ],
)
def test_what_a_limit_does_not_hold_decides_the_exit_code(totals: Totals, hosts: list[Host], code: int) -> None:
    """A later run has something to do, whatever the limit holds back."""
    assert end_of(StoppedBy.MAX_URLS, totals, *hosts).exit_code == code
    duration = end_of(StoppedBy.MAX_DURATION, totals, *hosts)
    assert duration.exit_code == Exit.OK


def test_retries_and_suspects_are_left_too() -> None:
    """They are in nobody's queue; the largest number comes first."""
    end = end_of(StoppedBy.TRAPS, Totals(0, 2, 7, 1, 1, 1, suspect=9))
    assert [(one.reason, one.urls) for one in end.left] == [(LeftReason.TRAPS, 9), (LeftReason.RETRY, 2)]
    assert end.urls == UrlCounts(20, 7, 1, 1, 11, 0)
    assert end.exit_code == Exit.WAITING


@pytest.mark.parametrize(
    ("stopped_by", "totals", "hosts"),
    [
        (StoppedBy.EMPTY, replace(NOTHING, queued=1), [host(1, 1)]),  # nothing keeps it
        (StoppedBy.TRAPS, replace(NOTHING, queued=1, suspect=1), [host(1, 1)]),
        (StoppedBy.SIGNAL, replace(NOTHING, queued=2), [host(1, 1)]),  # they disagree
        (StoppedBy.SIGNAL, replace(NOTHING, done=-1), []),
    ],
)
def test_what_cannot_be_is_a_bug(stopped_by: StoppedBy, totals: Totals, hosts: list[Host]) -> None:
    """URLs that nothing keeps, counts that differ or are negative; visits that were not stored explain some of it."""
    with pytest.raises(Inconsistent):
        end_of(stopped_by, totals, *hosts)


def test_hosts_that_are_not_in_memory_count_too() -> None:
    """Those that the store has parked, by their reason; of the others nothing is known but the number of their URLs."""
    held = {"limit": (3, 30), "robots": (1, 4)}
    totals = replace(NOTHING, queued=45, hosts_with_work=8)
    end = end_of(StoppedBy.SIGNAL, totals, host(1, 5), host(2, 2, limit_reached=True), parked=held)
    assert end.left_by == {"limit": 32, "not_yet": 9, "robots_unreachable": 4}
    assert Backlog(*LIMIT, 32, 4) in end.left
    assert [str(one) for one in end.left][1] == "9 URLs not requested yet"
    end = end_of(StoppedBy.MAX_URLS, totals, host(1, 5), host(2, 2, limit_reached=True), parked=held)
    assert end.left_by == {"limit": 41, "robots_unreachable": 4}
    with pytest.raises(Inconsistent):
        end_of(StoppedBy.EMPTY, totals, host(2, 2, limit_reached=True), parked=held)
    with pytest.raises(Inconsistent):
        end_of(StoppedBy.SIGNAL, replace(totals, queued=35), host(2, 2), parked=held)


def test_visits_that_were_not_stored_excuse_a_difference() -> None:
    """Their URLs are still queued in the store."""
    assert end_of(StoppedBy.DISK, replace(NOTHING, queued=2), host(1, 1), is_settled=False).left_by == {"not_yet": 1}


class ChanceSite:
    """Two hosts of pages that link to each other by chance, some of which fail, and an endless calendar."""

    def __init__(self, rng: random.Random) -> None:
        self.links = {
            f"{origin}/page/{n}": [
                f"{rng.choice((A, A, B))}/{rng.choice(('page', 'page', 'page', 'private', 'gone'))}/{rng.randrange(60)}"
                for _ in range(rng.randrange(5))
            ]
            for origin in (A, B)
            for n in range(60)
        }
        self.links[f"{A}/"] = [f"{A}/page/0", f"{B}/page/1", f"{A}/calendar/2026/1"]
        self.fate = {url: rng.choice(("ok",) * 8 + ("moved", "reset", "error", "late")) for url in self.links}
        self.fate[f"{A}/"] = "ok"
        self.times: dict[str, int] = {}

    def respond(self, origin: Origin, task: Task) -> FetchResult:
        if task.kind is TaskKind.ROBOTS:
            return response(200, b"User-agent: *\nDisallow: /private/", content_type="text/plain")
        target = target_of(task.url)
        if task.kind is TaskKind.PROBE:
            return response(404)
        if target.startswith("/calendar/"):
            year, month = int(target.split("/")[2]), int(target.split("/")[3])
            after = f"/calendar/{year + month // 12}/{month % 12 + 1}"
            return response(200, page(after, title="Calendar"))
        times = self.times[task.url] = self.times.get(task.url, 0) + 1
        match self.fate.get(task.url, "gone"):
            case "gone":
                return response(404)
            case "moved":
                return response(301, location=f"{task.url}/")
            case "reset":
                return failed(ErrorType.RESET)
            case "error":
                return response(500)
            case "late" if times < 3:
                return failed(ErrorType.READ_TIMEOUT)
        return response(200, page(*self.links[task.url]).replace(b"</body>", f"{prose(task.url)}</body>".encode()))

    def found_from(self, fetched: set[str]) -> set[str]:
        """Every URL that links of these pages lead to, the calendar aside."""
        found = {f"{A}/"}
        for url in fetched:
            if self.fate.get(url) == "moved":
                found.add(f"{url}/")
            elif self.fate.get(url) in ("ok", "late"):
                found |= set(self.links[url])
        return {url for url in found if "/calendar/" not in url}


async def history(rng: random.Random) -> None:
    """One crawl of chance to its end, and what it says of itself."""
    site, frontier = ChanceSite(rng), QuickFrontier()
    asked: dict[str, int] = {}
    settled: dict[str, str] = {}
    limit = rng.choice((None, None, rng.randrange(5, 150)))
    end: Ending | None = None
    for _ in range(20):
        engine = Harness(
            f"{A}/",
            politeness=AT_ONCE,
            scope=ScopeOptions(hosts=("a.test", "b.test"), max_urls=limit, max_depth=None),
            engine=EngineOptions(
                workers=rng.choice((1, 4)), lease_size=4, linger_s=7_200.0, min_free=0, max_attempts=3
            ),
            frontier=frontier,
            rng_seed=rng.randrange(1_000),
        )
        engine.web.other = site.respond
        await engine.open()
        if rng.random() < 0.2:
            block = BlockedHost("b.test", "host", 0.0, "")
            engine.host_table.blocklist.add(block)
            engine.scheduler.blocklist_changed()
        crawling = asyncio.ensure_future(engine.crawl.run())
        if is_killed := rng.random() < 0.5:
            await asyncio.sleep(rng.uniform(0.1, 30.0))
            is_killed = not crawling.done()
        if is_killed:
            crawling.cancel()
            await asyncio.wait({crawling})
            await frontier.close(clean=False)
        else:
            stopped_by = await crawling
            end = await engine.engine.ending(stopped_by)
            await engine.close()
        for url in engine.web.page_urls:
            asked[url] = asked.get(url, 0) + 1
        settled |= engine.settled
        if end is not None:
            break
    assert end is not None
    rows = {url.found.url: url for url in frontier._urls.values() if url.found.kind is TaskKind.PAGE}
    by_state = {state: {url for url, row in rows.items() if row.state is state} for state in UrlState}
    # Each URL is in one class, and the classes are those that the crawl tells.
    assert end.urls.found == len(rows)
    assert end.urls.fetched == len(by_state[UrlState.DONE])
    assert end.urls.refused == len(by_state[UrlState.DENIED])
    assert end.urls.left == sum(end.left_by.values()) == sum(one.urls for one in end.left)
    assert end.left_by.get("traps", 0) == len(by_state[UrlState.SUSPECT]) == sum(one.urls for _, one in end.suspects)
    # What the server says of it.
    assert by_state[UrlState.DONE] | by_state[UrlState.GAVE_UP] <= set(asked)
    assert not by_state[UrlState.SUSPECT] & set(asked)
    assert all("/private/" in url for url in by_state[UrlState.DENIED])
    assert not any("/private/" in url for url in asked)
    assert all(settled.get(url) == "gave_up" for url in by_state[UrlState.GAVE_UP])
    # Whatever links of fetched pages lead to is there, in some class.
    assert site.found_from(by_state[UrlState.DONE]) <= set(rows)
    if end.stopped_by in (StoppedBy.EMPTY, StoppedBy.TRAPS) and not end.left_by.keys() & {"blocked", "backoff"}:
        assert end.left_by.keys() <= {"traps"}
    assert (end.exit_code == Exit.OK) is (
        end.stopped_by is StoppedBy.MAX_URLS or not set(end.left_by) - {"blocked", "limit"}
    )


@pytest.mark.parametrize("seed", range(12))
def test_histories_of_chance_end_with_every_url_in_one_class(seed: int) -> None:
    """Kills, limits, blocks, errors, redirects, what is forbidden, and a trap."""
    run(history(random.Random(seed)))
