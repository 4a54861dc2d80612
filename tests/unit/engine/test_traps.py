"""Traps: what has no end costs a bounded number of fetches, and every honest page beside it is found, in any order and
with any interruption.
"""

import asyncio
import itertools
import random
from collections import Counter
from collections.abc import Callable, Collection

import pytest

from crawler.content.html.fingerprint import Fingerprint
from crawler.core.enums import DenyReason, StoppedBy, TaskKind
from crawler.core.models import Denied, FetchResult, Origin, PageInfo, Suspects, Task
from crawler.core.options import ScopeOptions, TrapOptions
from crawler.core.url import canonical, target_of
from crawler.core.url_templates import ERROR_PAGE_LINKS
from crawler.engine.operations import release
from crawler.engine.options import EngineOptions
from crawler.engine.pages.recent_urls import RecentKeys
from crawler.engine.pages.response_processor import ProcessedResponse
from crawler.engine.pages.traps import GOOD_TRIAL, PLAIN_TRIALS, PROBES, TRIALS, PageCheck, TrapWatch
from crawler.engine.scheduling.host import Host, PolitenessKey
from crawler.frontier.base import Frontier, Totals
from tests.support.engine import AT_ONCE, Harness
from tests.support.fetching import FakeClock
from tests.support.quick_frontier import QuickFrontier
from tests.support.scripted_web import page, response
from tests.support.trap_site import WORDS, TrapSite, prose
from tests.support.virtual_time import run

SITE = "https://trap.test"


Ask = Callable[[Origin, Task], FetchResult]


class ShuffledFrontier(QuickFrontier):
    """Hands queued URLs out in an order of chance."""

    def __init__(self, rng: random.Random) -> None:
        super().__init__()
        self._rng = rng

    async def take(self, host_id: int, limit: int, *, leased: Collection[int]) -> list[Task]:
        free = [url for url in self._queued[host_id].values() if url.id not in leased]
        return [self._task_of(url) for url in self._rng.sample(free, min(limit, len(free)))]


def trapped(
    frontier: Frontier,
    site: TrapSite | Ask,
    *,
    traps: TrapOptions | None = None,
    max_urls: int = 20_000,
    workers: int = 4,
    cache_bits: int = 10,
) -> Harness:
    engine = Harness(
        f"{SITE}/",
        politeness=AT_ONCE,
        scope=ScopeOptions(max_urls=max_urls, max_depth=None),
        engine=EngineOptions(workers=workers, lease_size=4, linger_s=60.0, min_free=0),
        frontier=frontier,
        traps=traps,
    )
    engine.processor._recent_keys = RecentKeys(cache_bits)

    def ask(origin: Origin, task: Task) -> FetchResult:
        if task.kind is TaskKind.ROBOTS:
            return response(404)
        return site.respond(target_of(task.url)) if isinstance(site, TrapSite) else site(origin, task)

    engine.web.other = ask
    return engine


def spent_on(urls: Collection[str]) -> Counter[str]:
    """How many requests went to each part of the trap site."""
    return Counter(target_of(url).strip("/").replace("?", "/").split("/")[0] for url in urls)


async def suspects_of(frontier: Frontier) -> dict[str, Suspects]:
    await frontier.open()
    found = {one.template: one for one in await frontier.suspects()}
    await frontier.close(clean=True)
    return found


def test_every_trap_costs_little_and_every_honest_page_is_found() -> None:
    """Calendar, facets, a maze, a loop, sessions and soft 404, with no limit on URLs that comes into play. Each may
    cost what shows it, and as many trials as show that it goes on.
    """

    async def main() -> None:
        site, frontier = TrapSite(), QuickFrontier()
        engine = trapped(frontier, site)
        assert await engine.run() is StoppedBy.TRAPS
        found = {canonical(url).removeprefix(SITE) for url in engine.web.page_urls}
        assert site.honest <= found
        spent = spent_on(engine.web.page_urls)
        assert spent["article"] == 60
        assert spent["item"] == 40
        assert spent["forum"] == 25
        assert spent["calendar"] <= 200 + TRIALS  # 320 to 380, by the order of the requests
        assert spent["shop"] <= 300 + TRIALS + 5 * GOOD_TRIAL
        assert spent["maze"] <= 500 + PLAIN_TRIALS
        assert spent["loop"] <= 120 + TRIALS
        assert spent["wiki"] <= 250 + PLAIN_TRIALS
        assert [line["soft_404"] for line in engine.events_named("probe")].count(True) >= 1
        told = {str(line["template"]) for line in engine.events_named("suspect")}
        assert {"/calendar/{date}", "/shop?…"} <= told
        assert not {template for template in told if template.startswith(("/article", "/item", "/forum"))}
        left = await suspects_of(frontier)
        assert {"/calendar/**{date}", "/shop?…", ERROR_PAGE_LINKS} <= left.keys()
        assert all(len(one.examples) == min(2, one.urls) for one in left.values())
        totals = await counts(frontier)
        assert (totals.queued, totals.waiting, totals.denied) == (0, 0, 0)
        assert totals.suspect == sum(one.urls for one in left.values())
        assert [(host.queued, len(host.leased)) for host in engine.host_table.hosts.values()] == [(0, 0)]

    run(main())


async def counts(frontier: Frontier) -> Totals:
    await frontier.open()
    totals = frontier.totals()
    await frontier.close(clean=True)
    return totals


@pytest.mark.parametrize("seed", range(4))
def test_the_order_of_a_crawl_changes_nothing_about_honest_pages(seed: int) -> None:
    """Queued URLs are fetched in an order of chance, by one worker or many."""

    async def main() -> None:
        site = TrapSite()
        engine = trapped(ShuffledFrontier(random.Random(seed)), site, workers=1 if seed % 2 else 16)
        assert await engine.run() is StoppedBy.TRAPS
        assert site.honest <= {canonical(url).removeprefix(SITE) for url in engine.web.page_urls}

    run(main())


def test_a_host_that_enters_memory_again_has_no_suspects_that_may_not_be_tried() -> None:
    """Else it would be chosen for a request again and again, and never get one."""

    async def main() -> None:
        engine = trapped(QuickFrontier(), TrapSite())
        await engine.run()
        (known,) = engine.host_table.hosts.values()
        assert engine.frontier.totals().suspect > 0
        assert not known.has_suspects
        again = Host(known.id, known.origin, known.key, has_suspects=True)
        await engine.traps.load(again)
        assert not again.has_suspects

    run(main())


@pytest.mark.parametrize("detect", ["off", "report"])
def test_without_holding_suspects_only_the_limit_ends_it(detect: str) -> None:
    """Else the tests above would show nothing. "report" says what it sees, "off" does not."""

    async def main() -> None:
        engine = trapped(QuickFrontier(), TrapSite(), traps=TrapOptions(detect=detect), max_urls=2_000)
        assert await engine.run() is StoppedBy.MAX_URLS
        assert bool(engine.events_named("suspect")) is (detect == "report")
        assert {line["action"] for line in engine.events_named("suspect")} <= {"report"}

    run(main())


def test_a_verdict_outlives_a_restart_and_a_release_undoes_it() -> None:
    """Started again nothing of a trap is fetched, for its trials are spent; released, its URLs are."""

    async def main() -> None:
        frontier, site = QuickFrontier(), TrapSite()
        await trapped(frontier, site).run()
        again = trapped(frontier, site)
        assert await again.run() is StoppedBy.TRAPS
        assert again.web.page_urls == []
        third = trapped(frontier, site)
        await third.open()
        host = third.host("trap.test")
        third.scheduler.url_limits.reconfigure(ScopeOptions(max_urls=third.scheduler.url_limits.first_attempts + 50))
        released, queued = await release(frontier, {host.id}, "/calendar/**{date}", 1.0)
        assert released == {"/calendar/**{date}": queued[host.id]}
        assert queued[host.id] > 0
        await third.scheduler.reload_templates(host)
        third.scheduler.requeued(queued, are_retries=False)
        assert await third.crawl.run() is StoppedBy.MAX_URLS
        assert sum("/calendar/" in url for url in third.web.page_urls) == 50
        assert await release(frontier, {host.id}, "/calendar/**{date}", 1.0) == ({}, {})

    run(main())


def nth_of(task: Task) -> int:
    return int(target_of(task.url).strip("/").rpartition("/")[2] or 0)


def test_alike_pages_of_a_finite_site_are_all_fetched() -> None:
    """Three thousand pages of one template that say little but come to an end, each linking to the next ones."""

    def ask(origin: Origin, task: Task) -> FetchResult:
        if task.kind is TaskKind.PROBE:
            return response(404)
        n = nth_of(task)
        return response(200, page(*[f"/{m}" for m in range(5 * n + 1, 5 * n + 6) if m < 3_000], title=f"Page {n}"))

    async def main() -> None:
        engine = trapped(QuickFrontier(), ask)
        assert await engine.run() is StoppedBy.EMPTY
        assert len(engine.web.page_urls) == 3_000
        assert len(engine.events_named("probe")) <= PROBES
        assert engine.events_named("suspect") != []

    run(main())


def test_good_pages_among_suspects_are_followed_to_their_end() -> None:
    """A gallery: a thousand pages without a word, each leading to the next one only, and to a picture of its own."""

    def ask(origin: Origin, task: Task) -> FetchResult:
        target = target_of(task.url)
        if target.startswith("/img/"):
            return response(200, target.encode(), content_type="image/png")
        n = nth_of(task)
        links = f'<a href="/photo/{n + 1}">next</a>' if n < 1_000 else ""
        return response(200, f'<title>Photo</title><img src="/img/{n}.png">{links}'.encode())

    async def main() -> None:
        engine = trapped(QuickFrontier(), ask, traps=TrapOptions(soft_404=False))
        engine.web.pages[f"{SITE}/"] = response(200, page("/photo/0"))
        assert await engine.run() is StoppedBy.EMPTY
        assert sum("/photo/" in url for url in engine.web.page_urls) == 1_001
        assert sum("/img/" in url for url in engine.web.page_urls) == 1_001

    run(main())


@pytest.mark.parametrize("beside", ["login", "picture", "goto", "another maze", "refused"])
def test_what_an_endless_part_leads_to_does_not_keep_it_alive(beside: str) -> None:
    """Each page of a calendar without events also leads to a URL of another kind that is new: a log-in that redirects,
    the same picture under another name, the next month through a redirect, a maze, what is refused.
    """

    def ask(origin: Origin, task: Task) -> FetchResult:
        target = target_of(task.url)
        if task.kind is TaskKind.PROBE:
            return response(404)
        match target.split("/")[1].partition("?")[0]:
            case "cal":
                n = nth_of(task)
                other = {
                    "login": f"/login?next=/cal/{n}", "goto": f"/goto?to={n + 1}", "refused": f"/add/{n}",
                    "another maze": f"/{WORDS[n % 4_000]}{n}/", "picture": "",
                }[beside]  # fmt: skip
                after = [] if beside == "goto" else [f"/cal/{n + 1}"]
                picture = f'<img src="/img/{n}.png">' if beside == "picture" else ""
                links = "".join(f'<a href="{link}">x</a>' for link in (*after, other) if link)
                return response(200, f"<title>Calendar</title>No events {picture}{links}".encode())
            case "img":
                return response(200, b"a picture", content_type="image/png")
            case "login":
                return response(302, location="/")
            case "goto":
                return response(302, location=f"/cal/{target.partition('=')[2]}")
            case "add":
                return response(403)
            case "":
                return response(200, page("/cal/0", title="Home"))
        return response(200, page(f"{target}{WORDS[len(target)]}/", title="Maze"))

    async def main() -> None:
        engine = trapped(QuickFrontier(), ask)
        assert await engine.run() is StoppedBy.TRAPS
        assert len(engine.web.page_urls) <= 3 * (PLAIN_TRIALS + 400)

    run(main())


def test_few_contents_under_many_urls_are_alike() -> None:
    """Sixty documents, each with a new session in the path wherever it is linked."""
    sessions = itertools.count(1)

    def session() -> str:
        return f"{random.Random(next(sessions)).getrandbits(128):032x}"

    def ask(origin: Origin, task: Task) -> FetchResult:
        if task.kind is TaskKind.PROBE:
            return response(404)
        if target_of(task.url) == "/":
            return response(200, page(*(f"/s/{session()}/doc/{n}" for n in range(60)), title="Documents"))
        n = nth_of(task)
        body = page(*(f"/s/{session()}/doc/{(n + m) % 60}" for m in (1, 2, 7)), title=f"Document {n}")
        return response(200, body.replace(b"</body>", f"{prose(str(n))}</body>".encode()))

    async def main() -> None:
        engine = trapped(QuickFrontier(), ask)
        assert await engine.run() is StoppedBy.TRAPS
        assert {url.rpartition("/")[2] for url in engine.web.page_urls} >= {str(n) for n in range(60)}
        assert len(engine.web.page_urls) <= 60 * GOOD_TRIAL + PLAIN_TRIALS + 1_200

    run(main())


def test_pages_of_which_little_is_their_own_are_followed() -> None:
    """A book: a thousand chapters in a row, each with thirty words of its own among thousands that all have."""
    common = " ".join(WORDS[:2_000])

    def ask(origin: Origin, task: Task) -> FetchResult:
        if task.kind is TaskKind.PROBE:
            return response(404)
        n = nth_of(task)
        own = " ".join(f"word{n}of{m}" for m in range(30))
        links = [f"/book/{n + 1}"] if n < 1_000 else []
        return response(200, page(*links, title="A book").replace(b"</body>", f"{common} {own}</body>".encode()))

    async def main() -> None:
        engine = trapped(QuickFrontier(), ask)
        engine.web.pages[f"{SITE}/"] = response(200, page("/book/0"))
        assert await engine.run() is StoppedBy.EMPTY
        assert sum("/book/" in url for url in engine.web.page_urls) == 1_001

    run(main())


def test_an_error_page_with_nothing_new_is_no_bug() -> None:
    """Every URL is answered with one page, whose links are known after a while."""

    def ask(origin: Origin, task: Task) -> FetchResult:
        return response(200, page("/a", "/b", "x/y", "z/", "../about", title="Welcome"))

    async def main() -> None:
        assert await trapped(QuickFrontier(), ask).run() in (StoppedBy.TRAPS, StoppedBy.EMPTY)

    run(main())


def test_different_text_is_never_suspected() -> None:
    """Two thousand pages with dates and identifiers in their URLs, each found on the one before."""

    def ask(origin: Origin, task: Task) -> FetchResult:
        n = nth_of(task)
        links = [f"/2026/11/{n + 1}"] if n < 2_000 else []
        return response(200, page(*links, title="The news").replace(b"</body>", f"{prose(str(n))}</body>".encode()))

    async def main() -> None:
        engine = trapped(QuickFrontier(), ask, traps=TrapOptions(soft_404=False))
        assert await engine.run() is StoppedBy.EMPTY
        assert len(engine.web.page_urls) == 2_001
        assert engine.events_named("suspect") == []

    run(main())


def test_a_maze_of_different_text_is_bounded_by_the_pages_of_a_template() -> None:
    """And by nothing else. Pages before the first verdict are not counted."""

    def ask(origin: Origin, task: Task) -> FetchResult:
        path = target_of(task.url).rstrip("/")
        below = [f"{path}/{name}/" for name in random.Random(path).sample(WORDS, 3)] if path else ["/maze/", "/about"]
        below = [] if path == "/about" else below
        return response(200, page(*below, title=path).replace(b"</body>", f"{prose(path)}</body>".encode()))

    async def main() -> None:
        frontier = QuickFrontier()
        options = TrapOptions(max_pages_per_template=300, soft_404=False)
        engine = trapped(frontier, ask, traps=options)
        assert await engine.run() is StoppedBy.TRAPS
        fetched = sum("/maze/" in url for url in engine.web.page_urls)
        assert 300 <= fetched <= 300 + 3 * 256
        assert [(line["template"], line["why"]) for line in engine.events_named("suspect")] == [
            ("/maze/**", "max_pages")
        ]
        assert set(await suspects_of(frontier)) == {"/maze/**"}

    run(main())


def test_links_of_error_pages_come_last_and_honest_ones_among_them_are_found() -> None:
    """What an error page leads to is fetched once another page links to it, or when nothing else is left."""

    def ask(origin: Origin, task: Task) -> FetchResult:
        target = target_of(task.url)
        if target == "/":
            return response(200, page(*[f"/wiki/missing{n}" for n in range(20)], "/late", title="Wiki"))
        if target == "/late":
            return response(200, page("/wiki/real1", title="Late").replace(b"</body>", b"some words of its own</body>"))
        if target.startswith("/wiki/real"):
            return response(200, page(title=target).replace(b"</body>", f"{prose(target)}</body>".encode()))
        links = ["/wiki/real1", "/wiki/real2", f"{target}x"]
        return response(200, page(*links, title="Nothing here").replace(b"</body>", b"<p>Nothing is called that</p>"))

    async def main() -> None:
        frontier = QuickFrontier()
        engine = trapped(frontier, ask)
        assert await engine.run() is StoppedBy.TRAPS
        urls = engine.web.page_urls
        assert {f"{SITE}/wiki/real1", f"{SITE}/wiki/real2", f"{SITE}/late"} <= set(urls)
        assert len(urls) <= 60 + TRIALS
        left = await suspects_of(frontier)
        assert left.keys() <= {ERROR_PAGE_LINKS}

    run(main())


@pytest.mark.parametrize("missing", [response(404), response(200, page("/x", title="A page of another kind"))])
def test_a_host_that_says_that_a_page_is_missing_keeps_its_links(missing: FetchResult) -> None:
    """The probe found no error page that looks like the others."""

    def ask(origin: Origin, task: Task) -> FetchResult:
        if task.kind is not TaskKind.PAGE:
            return missing
        n = nth_of(task)
        return response(200, page(f"/{n + 1}", f"/{n + 2}", title="One title") if n < 90 else page(title="One title"))

    async def main() -> None:
        engine = trapped(QuickFrontier(), ask)
        assert await engine.run() is StoppedBy.EMPTY
        assert len(engine.events_named("probe")) == 1
        assert len(engine.web.page_urls) == 92

    run(main())


def killed_every(pages: int, frontier: Frontier, site: TrapSite) -> Counter[str]:
    """Crawl the site with a kill after so many requests, over and over, until nothing is left. Returns what each part
    of it cost.
    """

    async def main() -> Counter[str]:
        spent: Counter[str] = Counter()
        for _ in range(200):
            engine = trapped(frontier, site)
            enough = asyncio.Event()

            def count(_: object, task: object, *, engine: Harness = engine, enough: asyncio.Event = enough) -> None:
                if len(engine.web.requests) >= pages:
                    enough.set()

            engine.web.before = count
            crawling = asyncio.ensure_future(engine.run())
            killing = asyncio.ensure_future(enough.wait())
            await asyncio.wait({crawling, killing}, return_when=asyncio.FIRST_COMPLETED)
            is_done = crawling.done()
            for task in (crawling, killing):
                task.cancel()
            await asyncio.wait({crawling, killing})
            spent.update(spent_on(engine.web.page_urls))
            if is_done:
                return spent
            await frontier.close(clean=False)
        raise AssertionError("it never ends")

    return run(main())


def test_a_trap_does_not_get_its_budget_anew_with_each_restart() -> None:
    """Killed every few hundred pages it costs what it costs in one go, and what was not stored yet."""
    spent = killed_every(250, QuickFrontier(), TrapSite())
    assert spent["article"] >= 60
    assert spent["calendar"] <= 200 + TRIALS
    assert spent["shop"] <= 400 + TRIALS
    assert spent["maze"] <= 600 + PLAIN_TRIALS
    assert spent["wiki"] <= 300 + PLAIN_TRIALS


def test_every_template_with_a_sample_in_memory_is_counted() -> None:
    """The bound on templates in memory holds by this count, also for a trial of a template that was unloaded."""
    watch = TrapWatch(TrapOptions(), QuickFrontier(), FakeClock(), random.Random(1), lambda name, fields: None)
    host = Host(1, Origin("https", "trap.test", 443), PolitenessKey("trap.test", 0.0))
    task = Task(7, f"{SITE}/calendar/2026-11-25")
    for fingerprint, page_info in (
        (Fingerprint(frozenset({b"word"})), None),
        (None, PageInfo(content_type="image/png")),
    ):
        watch.trials_queued(host, "/calendar/{date}", [task.id])
        processed = ProcessedResponse(Denied(DenyReason.ROBOTS, ""), fingerprint=fingerprint, page=page_info)
        processed.payload_digest = "sha256:A"
        check = PageCheck(needs_words=True, trial="/calendar/{date}")
        assert watch.note_page(host, task, check, processed, is_error_page=False).trial == "/calendar/{date}"
        assert watch._templates == len(watch._hosts[host.id].samples) == 1
        watch.unload(host)
        assert watch._templates == len(watch._hosts[host.id].samples) == 0
