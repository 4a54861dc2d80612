"""A crawl that comes back: scripted changes, found by visits that cost as little as can be."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from itertools import pairwise

import pytest

from crawler.core.enums import StoppedBy, TaskKind, UrlState
from crawler.core.models import FetchResult, Origin, Task
from crawler.core.options import ImportanceRule, Override, RecrawlOptions, ScopeOptions
from crawler.engine import crawl
from crawler.engine.options import EngineOptions
from crawler.engine.pages import revisits
from crawler.engine.pages.recent_urls import InLinks
from crawler.frontier.base import Frontier
from tests.support.engine import POLITE, Harness
from tests.support.memory_frontier import MemoryFrontier
from tests.support.scripted_web import SentRequest, page, response
from tests.support.virtual_time import EPOCH, run

ROOT = "https://a.test/"
ROBOTS = "https://a.test/robots.txt"
HOUR, DAY = 3_600.0, 86_400.0
RUN = EngineOptions(workers=4, linger_s=None, min_free=0, drain_s=5.0)


@pytest.fixture(autouse=True)
def _look_by_the_hour(monkeypatch: pytest.MonkeyPatch) -> None:
    """A crawl looks each second whether it is over: 86,400 times a day that jumps by."""
    monkeypatch.setattr(crawl, "_CHECK_S", HOUR)


def world(
    responses: dict[str, object],
    recrawl: RecrawlOptions,
    *,
    days: float,
    sitemaps: str = "named",
    scope: ScopeOptions | None = None,
    overrides: Sequence[Override] = (),
    agents: int = 1,
) -> Harness:
    """Crawl ROOT for so many days. `responses` maps a URL to a response, or to a function of the day and the task.
    `agents` share what may be done.
    """

    async def main() -> Harness:
        engine = Harness(
            ROOT,
            engine=replace(RUN, max_duration_s=days * DAY),
            recrawl=recrawl,
            sitemaps=sitemaps,
            scope=scope,
            overrides=overrides,
        )

        def other(origin: Origin, task: Task) -> FetchResult:
            found = responses.get(task.url, response(404))
            result = found(engine.clock.mono() / DAY, task) if callable(found) else found
            assert not isinstance(result, str)
            return replace(result, started_at=engine.clock.now()) if hasattr(result, "started_at") else result

        engine.web.other = other
        engine.scheduler.share_limits(agents)
        assert await engine.run() is StoppedBy.MAX_DURATION
        return engine

    return run(main())


def visits(engine: Harness, url: str) -> list[SentRequest]:
    return [each for each in engine.web.requests if each.url == url]


OFTEN = RecrawlOptions(enabled=True, min_interval_s=6 * HOUR, max_interval_s=10 * DAY, visits_per_day=10_000)


def test_a_page_is_visited_again_and_a_change_is_found() -> None:
    """Conditionally; what is new on it is crawled, what is not is not stored again."""

    def root(day: float, task: Task) -> FetchResult:
        version = int(day / 2)
        if task.etag == f'"{version}"':
            return response(304, etag=task.etag)
        return response(200, page(*(f"/{n}" for n in range(version + 1))), etag=f'"{version}"')

    leaf = response(200, b"<p>always the same")
    engine = world({ROOT: root, **{f"{ROOT}{n}": leaf for n in range(9)}}, OFTEN, days=7)
    asked = visits(engine, ROOT)
    assert len(asked) >= 20
    assert [each.task.visits for each in asked] == list(range(len(asked)))
    assert {each.task.attempt for each in asked} == {1}
    words = [each.result.head.status_code for each in asked]  # type: ignore[union-attr]
    assert words.count(200) == 4
    assert {each.url for each in engine.web.requests if each.task.kind is TaskKind.PAGE} == {
        ROOT, f"{ROOT}0", f"{ROOT}1", f"{ROOT}2", f"{ROOT}3",
    }  # fmt: skip
    gaps = [later.begin - earlier.begin for earlier, later in pairwise(asked)]
    assert min(gaps) >= 6 * HOUR
    assert engine.host("a.test").fetched == 5  # a revisit is no new URL
    assert engine.counters.life.urls_fetched == 5
    leaves = [v.settlement for v, _, _ in engine.visits if v.settlement.task.url == f"{ROOT}0"]
    assert len(leaves) > 2
    assert [s.record is not None and s.record.page is not None for s in leaves] == [True] + [False] * (len(leaves) - 1)
    assert {s.state for s in leaves} == {UrlState.DONE}
    assert leaves[-1].history is not None
    assert leaves[-1].history.changed_at == leaves[0].outcome.started_at  # type: ignore[union-attr]


def test_lively_and_important_pages_are_visited_more() -> None:
    """At the same budget, and the dull ones are still visited."""
    names = ("lively", "dull", "lively-news", "dull-news")

    def lively(day: float, task: Task) -> FetchResult:
        return response(200, f"<p>{int(day * 2)}".encode())

    responses: dict[str, object] = {ROOT: response(200, page(*(f"/{name}" for name in names)))}
    responses |= {f"{ROOT}{name}": lively if "lively" in name else response(200, b"<p>dull") for name in names}
    recrawl = RecrawlOptions(
        enabled=True, min_interval_s=HOUR, visits_per_day=4, importance=(ImportanceRule("/*-news", 8.0),)
    )
    engine = world(responses, recrawl, days=120)
    count = {name: len(visits(engine, f"{ROOT}{name}")) for name in names}
    assert count["lively-news"] > count["lively"] > count["dull"] >= 5
    assert count["lively-news"] > 1.5 * count["dull-news"]
    asked = [each for each in engine.web.requests if each.task.is_revisit]
    assert 0.5 * 4 * 120 < len(asked) <= 4 * 120 + 5


def test_the_budget_holds_when_more_is_due() -> None:
    """Over any day, whatever the pages deserve; who waited longest goes first, and nobody is forgotten."""
    responses: dict[str, object] = {ROOT: response(200, page(*(f"/{n}" for n in range(40))))}
    responses |= {f"{ROOT}{n}": lambda day, task: response(200, f"{day}".encode()) for n in range(40)}
    recrawl = RecrawlOptions(enabled=True, min_interval_s=HOUR, max_interval_s=2 * HOUR, visits_per_day=24)
    engine = world(responses, recrawl, days=10)
    begins = [each.begin for each in engine.web.requests if each.task.is_revisit]
    for begin in begins:
        assert sum(begin <= other < begin + DAY for other in begins) <= 24 + 2
    assert len(begins) > 24 * 9
    assert {each.url for each in engine.web.requests if each.task.is_revisit} >= {f"{ROOT}{n}" for n in range(40)}


def test_agents_share_the_budget() -> None:
    """Each has its part of it."""
    responses: dict[str, object] = {ROOT: response(200, page(*(f"/{n}" for n in range(40))))}
    responses |= {f"{ROOT}{n}": lambda day, task: response(200, f"{day}".encode()) for n in range(40)}
    recrawl = RecrawlOptions(enabled=True, min_interval_s=HOUR, max_interval_s=2 * HOUR, visits_per_day=24)
    engine = world(responses, recrawl, days=10, agents=2)
    asked = [each for each in engine.web.requests if each.task.is_revisit]
    assert 0.85 * 12 * 10 < len(asked) <= 12 * 10 + 26  # before the first price it does not know of the others


def test_gone_is_believed_slowly_and_forgiven() -> None:
    """Tried after a day, three more, then ever more rarely; what comes back is as good as before."""

    def gone(day: float, task: Task) -> FetchResult:
        return response(200, b"<p>here") if day < 1 or day > 40 else response(404 if day < 20 else 410)

    responses: dict[str, object] = {ROOT: response(200, page("/x")), f"{ROOT}x": gone}
    engine = world(responses, OFTEN, days=80)
    asked = visits(engine, f"{ROOT}x")
    first = next(i for i, each in enumerate(asked) if each.result.head.status_code == 404)  # type: ignore[union-attr]
    gaps = [(later.begin - earlier.begin) / DAY for earlier, later in pairwise(asked[first : first + 6])]
    assert gaps[:5] == pytest.approx([1, 3, 7, 14, 28], rel=0.06)
    settled = [v.settlement for v, _, _ in engine.visits if v.settlement.task.url == f"{ROOT}x"]
    counts = [s.history.gone_count for s in settled if s.history is not None]
    assert max(counts) == 5
    assert counts[-1] == 0
    back = settled[-1]
    assert back.digest == settled[0].digest
    assert back.record is not None
    assert back.record.page is None  # the very same content


def test_a_transient_error_is_nothing_against_a_page() -> None:
    """Retries, then a visit a day later; it is never counted as gone."""

    def root(day: float, task: Task) -> FetchResult:
        return response(500) if 2 < day < 5 else response(200, b"<p>here")

    engine = world({ROOT: root}, OFTEN, days=8)
    settled = [v.settlement for v, _, _ in engine.visits if v.settlement.task.url == ROOT]
    assert {s.history.gone_count for s in settled if s.history is not None} == {0}
    bad = [each.begin for each in visits(engine, ROOT) if 2 < each.begin / DAY < 5]
    assert 12 <= len(bad) <= 16  # four attempts a day
    assert settled[-1].digest == settled[0].digest


def test_a_sitemap_s_date_brings_a_visit_forward() -> None:
    """Without it the page would wait its turn."""

    def sitemap(day: float, task: Task) -> FetchResult:
        stamp = "2023-11-20T00:00:00Z" if day > 5 else "2023-01-01"  # the clock stands at 2023-11-14 when it begins
        return response(200, f"<urlset><url><loc>/x</loc><lastmod>{stamp}</lastmod></url></urlset>".encode())

    responses: dict[str, object] = {ROBOTS: response(200, b"Sitemap: /s.xml"), f"{ROOT}s.xml": sitemap}
    responses |= {ROOT: response(200), f"{ROOT}x": response(200, b"x")}
    recrawl = RecrawlOptions(enabled=True, min_interval_s=HOUR, max_interval_s=60 * DAY, visits_per_day=1)
    engine = world(responses, recrawl, days=12)
    days = [each.begin / DAY for each in visits(engine, f"{ROOT}x")]
    assert any(5 < day < 8 for day in days)
    assert len(visits(engine, f"{ROOT}s.xml")) >= 5
    assert EPOCH == 1_700_000_000.0


def test_a_sitemap_that_cries_wolf_is_not_heard() -> None:
    """Its dates are today's whenever it is asked."""

    def sitemap(day: float, task: Task) -> FetchResult:
        stamp = datetime.fromtimestamp(EPOCH + day * DAY, UTC).isoformat()
        urls = "".join(f"<url><loc>/{n}</loc><lastmod>{stamp}</lastmod></url>" for n in range(4))
        return response(200, f"<urlset>{urls}</urlset>".encode())

    responses: dict[str, object] = {
        ROBOTS: response(200, b"Sitemap: /s.xml"),
        f"{ROOT}s.xml": sitemap,
        ROOT: response(200),
    }
    responses |= {f"{ROOT}{n}": response(200, b"<p>the same") for n in range(4)}
    recrawl = RecrawlOptions(enabled=True, min_interval_s=HOUR, max_interval_s=30 * DAY)
    engine = world(responses, recrawl, days=60)
    late = [each for n in range(4) for each in visits(engine, f"{ROOT}{n}") if each.begin > 20 * DAY]
    assert len(late) < 4 * 40 / 2  # every day would be 160
    assert len(visits(engine, f"{ROOT}s.xml")) >= 50


def test_a_crawl_that_ends_does_not_wait_for_revisits() -> None:
    """They are nothing left to do; the next run with recrawl goes on with them."""

    async def main() -> None:
        engine = Harness(ROOT, recrawl=OFTEN)
        engine.web.other = lambda _, task: response(200) if task.url == ROOT else response(404)
        assert await engine.run() is StoppedBy.EMPTY
        assert engine.settled == {ROOT: "done"}
        again = Harness(ROOT, frontier=engine.frontier, recrawl=OFTEN, engine=replace(RUN, max_duration_s=DAY))
        again.web.other = engine.web.other
        await again.run()
        assert again.web.page_urls.count(ROOT) >= 2
        never = Harness(ROOT, frontier=engine.frontier, engine=replace(RUN, max_duration_s=DAY))
        never.web.other = engine.web.other
        await never.run()
        assert never.web.page_urls == []

    run(main())


def test_limits_on_urls_leave_revisits_alone() -> None:
    """All places are taken by the first visits."""
    responses: dict[str, object] = {ROOT: response(200, page("/x", "/y", "/z"))}
    responses |= {f"{ROOT}{name}": response(200) for name in "xyz"}
    engine = world(responses, OFTEN, days=3, scope=ScopeOptions(max_urls=2))
    asked = {each.url for each in engine.web.requests if each.task.kind is TaskKind.PAGE}
    assert asked == {ROOT, f"{ROOT}x"}
    assert len(visits(engine, f"{ROOT}x")) > 5


def test_in_links_are_counted_by_sample() -> None:
    """Every eighth page stands for eight; a counter is emptied by who is visited, and never runs over."""
    links = InLinks(4)
    for _ in range(16):
        if links.wants_page():
            links.note([3, 5])
    assert (links.take(3), links.take(3), links.take(5)) == (16, 0, 16)
    for _ in range(70_000):
        links.note([1])
    assert 60_000 < links.take(1) <= 0xFFFF


@pytest.mark.parametrize("enabled", [False, True])
def test_what_is_learnt_is_kept_either_way(enabled: bool) -> None:
    """A first visit's date is what a later revisit record refers to."""

    async def main() -> None:
        engine = Harness(ROOT, recrawl=RecrawlOptions(enabled=enabled))
        engine.web.other = lambda _, task: response(200, b"x")
        await engine.run()
        settlement = next(v.settlement for v, _, _ in engine.visits if v.settlement.task.url == ROOT)
        assert settlement.history is not None
        assert settlement.history.changed_at == EPOCH
        assert (settlement.next_at is not None) is enabled

    run(main())


NEWS = Override(urls=("a.test/news/**",), recrawl=True, min_interval_s=DAY, max_interval_s=2 * DAY)
PARTS: dict[str, object] = {ROOT: response(200, page("/news/1", "/old/1", "/x"))} | {
    f"{ROOT}{name}": response(200, name.encode()) for name in ("news/1", "old/1", "x")
}


def test_some_pages_are_visited_again_and_others_are_not() -> None:
    """By their URL or host, whether revisits are on for the others or off, and within the bounds of theirs."""
    often = RecrawlOptions(enabled=True, min_interval_s=HOUR, max_interval_s=10 * DAY, visits_per_day=100)
    some = [NEWS, Override(urls=("**/old/**",), recrawl=False)]
    on = world(PARTS, often, days=20, overrides=some)
    assert {one.url for one in on.web.requests if one.task.is_revisit} == set(PARTS) - {f"{ROOT}old/1"}
    gaps = [(b.begin - a.begin) / DAY for a, b in pairwise(visits(on, f"{ROOT}news/1"))]
    assert len(gaps) >= 9
    assert all(0.99 <= gap <= 2.2 for gap in gaps)
    off = world(PARTS, replace(often, enabled=False), days=20, overrides=some)
    assert {one.url for one in off.web.requests if one.task.is_revisit} == {f"{ROOT}news/1"}
    host = world(PARTS, often, days=20, overrides=[Override(("a.test",), recrawl=False), NEWS])
    assert {one.url for one in host.web.requests if one.task.is_revisit} == {f"{ROOT}news/1"}


def test_a_sitemap_s_date_does_not_shorten_the_interval_of_an_override() -> None:
    """The store knows the shortest interval of all pages only."""

    def sitemap(day: float, task: Task) -> FetchResult:
        stamp = datetime.fromtimestamp(EPOCH + day * DAY, UTC).isoformat()
        urls = "".join(f"<url><loc>/{name}</loc><lastmod>{stamp}</lastmod></url>" for name in ("news/1", "x"))
        return response(200, f"<urlset>{urls}</urlset>".encode())

    responses = PARTS | {ROBOTS: response(200, b"Sitemap: /s.xml"), f"{ROOT}s.xml": sitemap}
    responses[f"{ROOT}x"] = lambda day, task: response(200, str(day).encode())
    often = RecrawlOptions(enabled=True, min_interval_s=HOUR, max_interval_s=30 * DAY)
    rarely = replace(NEWS, min_interval_s=7 * DAY, max_interval_s=8 * DAY)
    crawled = world(responses, often, days=30, overrides=[rarely])
    gaps = [(b.begin - a.begin) / DAY for a, b in pairwise(visits(crawled, f"{ROOT}news/1"))]
    assert 3 <= len(gaps) <= 4
    assert all(gap >= 6.99 for gap in gaps)
    assert len(visits(crawled, f"{ROOT}x")) > 10


# -- over restarts


def ran(
    frontier: Frontier,
    recrawl: RecrawlOptions,
    responses: dict[str, object],
    *,
    days: float,
    overrides: Sequence[Override] = (),
) -> Harness:
    """One run of so many days on a store that others go on with."""

    async def main() -> Harness:
        engine = Harness(
            ROOT,
            engine=replace(RUN, max_duration_s=days * DAY),
            recrawl=recrawl,
            frontier=frontier,
            politeness=POLITE,
            overrides=overrides,
        )
        engine.web.other = lambda origin, task: responses.get(task.url, response(404))  # type: ignore[assignment, return-value]
        assert await engine.run() is StoppedBy.MAX_DURATION
        return engine

    return run(main())


LEAVES = 150
SITE: dict[str, object] = {ROOT: response(200, page(*(f"/{n}" for n in range(LEAVES))))} | {
    f"{ROOT}{n}": response(200, f"<p>{n}".encode()) for n in range(LEAVES)
}


def test_what_a_crawl_without_revisits_left_is_visited_again_within_the_budget() -> None:
    """Every page, spread over the interval; then as often as any other. A run without revisits in between leaves its
    pages to the next one.
    """
    frontier = MemoryFrontier()
    first = ran(frontier, RecrawlOptions(enabled=False), SITE, days=1)
    assert len(first.web.page_urls) == LEAVES + 1
    weekly = RecrawlOptions(enabled=True, min_interval_s=HOUR)
    again = ran(frontier, weekly, SITE, days=21)
    asked = [one for one in again.web.requests if one.task.kind is TaskKind.PAGE]
    assert {one.url for one in asked} == set(SITE)
    assert all(one.task.is_revisit for one in asked)
    per_day = LEAVES / 7
    for day in range(1, 21):
        assert sum(day - 1 <= one.begin / DAY < day for one in asked) <= 1.5 * per_day + 5
    assert sum(one.begin < 7 * DAY for one in asked) > 0.5 * LEAVES
    assert run(opened(frontier)) is None
    ran(frontier, RecrawlOptions(enabled=False), SITE, days=1)
    assert run(opened(frontier)) == 0


async def opened(frontier: MemoryFrontier) -> int | None:
    """Up to which URL all have a date."""
    await frontier.open()
    try:
        return await frontier.dated_to()
    finally:
        await frontier.close(clean=True)


def test_pages_get_dates_when_the_override_that_switched_them_off_is_gone() -> None:
    """Also those of a run before."""
    frontier = MemoryFrontier()
    weekly = RecrawlOptions(enabled=True, min_interval_s=HOUR)
    off = Override(urls=("a.test/1*",), recrawl=False)
    first = ran(frontier, weekly, SITE, days=21, overrides=[off])
    without = {url for url in SITE if url.startswith(f"{ROOT}1")}
    assert {one.url for one in first.web.requests if one.task.is_revisit} == set(SITE) - without
    second = ran(frontier, weekly, SITE, days=21)
    assert {one.url for one in second.web.requests if one.task.is_revisit} >= without


def test_dating_goes_on_where_a_crash_cut_it_off(monkeypatch: pytest.MonkeyPatch) -> None:
    """Slice by slice, each stored with how far that came."""
    monkeypatch.setattr(revisits, "DATING_ROWS", 20)
    monkeypatch.setattr(revisits, "DATING_PAUSE_S", HOUR)
    frontier = MemoryFrontier()
    ran(frontier, RecrawlOptions(enabled=False), SITE, days=1)
    weekly = RecrawlOptions(enabled=True, min_interval_s=HOUR)
    ran(frontier, weekly, SITE, days=0.1)
    dated_to = run(opened(frontier))
    assert dated_to is not None
    assert 0 < dated_to < LEAVES
    again = ran(frontier, weekly, SITE, days=21)
    assert {one.url for one in again.web.requests if one.task.is_revisit} == set(SITE)


def test_in_links_counted_before_a_restart_count_after_it() -> None:
    """They wait in memory for the visit of the page they lead to; the store keeps what memory held."""
    frontier = MemoryFrontier()
    hub: dict[str, object] = {f"{ROOT}{n}": response(200, page("/popular", "/")) for n in range(16)}
    responses = {ROOT: response(200, page(*(f"/{n}" for n in range(16)))), **hub}
    yearly = RecrawlOptions(enabled=True, min_interval_s=20 * DAY, max_interval_s=30 * DAY)
    responses[f"{ROOT}popular"] = response(200, b"<p>popular")
    first = ran(frontier, yearly, responses, days=1)
    counted = first.revisits.in_links.dump()
    assert any(counted)
    again = ran(frontier, yearly, responses, days=40)
    assert again.revisits.in_links.dump() != counted
    learned = [v.settlement for v, _, _ in again.visits if v.settlement.task.url == ROOT and v.settlement.history]
    assert learned[0].history is not None
    assert learned[0].history.in_links > 0
