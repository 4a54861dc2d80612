"""Traps: what has no end costs a bounded number of fetches, and every honest page beside it is found."""

import asyncio
from collections import Counter

import pytest

from crawler.core.options import ScopeOptions, TrapOptions
from crawler.core.url import canonical, target_of
from crawler.core.vocabulary import DenyReason, StoppedBy, TaskKind
from crawler.engine.options import EngineOptions
from crawler.engine.traps import PROBES
from crawler.frontier.base import Frontier
from tests.support.engine import AT_ONCE, Engine, QuickFrontier, answer, page, run
from tests.support.trapsite import TrapSite

SITE = "https://trap.test"


def trapped(frontier: Frontier, site: TrapSite, *, traps: TrapOptions | None = None, max_urls: int = 20_000) -> Engine:
    engine = Engine(
        f"{SITE}/",
        politeness=AT_ONCE,
        scope=ScopeOptions(max_urls=max_urls),
        engine=EngineOptions(workers=4, lease_size=4, linger_s=60.0, min_free=0),
        frontier=frontier,
        traps=traps,
    )

    def ask(origin: object, task: object) -> object:
        target = target_of(task.url)  # type: ignore[attr-defined]
        return answer(404) if target == "/robots.txt" else site.answer(target)

    engine.web.other = ask  # type: ignore[assignment]
    return engine


def test_every_trap_costs_little_and_every_honest_page_is_found() -> None:
    """Calendar, facets, a maze, a loop, sessions and soft 404, with no limit on URLs that comes into play."""

    async def main() -> None:
        site = TrapSite()
        engine = trapped(QuickFrontier(), site)
        assert await engine.run() is StoppedBy.EMPTY
        targets = [target_of(url) for url in engine.web.page_urls]
        found = {canonical(SITE + target).removeprefix(SITE) for target in targets}
        assert site.honest <= found
        spent = Counter(target.strip("/").replace("?", "/").split("/")[0] for target in targets)
        assert spent["article"] == 60
        assert spent["item"] == 40
        assert spent["forum"] == 25
        assert spent["calendar"] <= 150
        assert spent["shop"] <= 300
        assert spent["maze"] <= 500
        assert spent["loop"] <= 20
        assert spent["wiki"] <= 250
        quarantined = {str(line["template"]): line for line in engine.said("quarantine")}
        assert {"/calendar/{date}", "/shop?…"} <= quarantined.keys()
        assert all(int(str(line["known"])) > 0 for line in quarantined.values())
        assert [line["soft_404"] for line in engine.said("probe")].count(True) >= 1
        assert not {template for template in quarantined if template.startswith(("/article", "/item", "/forum"))}

    run(main())


def test_without_detection_only_the_limit_ends_it() -> None:
    """Else the test above would show nothing."""

    async def main() -> None:
        engine = trapped(QuickFrontier(), TrapSite(), traps=TrapOptions(detect=False), max_urls=2_000)
        assert await engine.run() is StoppedBy.MAX_URLS

    run(main())


def test_a_quarantine_is_kept_and_a_release_undoes_it() -> None:
    """After a restart nothing of the template is fetched; released, its URLs are queued again and fetched."""

    async def main() -> None:
        frontier, site = QuickFrontier(), TrapSite()
        engine = trapped(frontier, site)
        await engine.run()
        before = engine.settled
        assert len({url for url, state in before.items() if "/calendar/" in url and state == "done"}) <= 250
        again = trapped(frontier, site, traps=TrapOptions(soft_404=False))
        await again.open()
        host = again.host("trap.test")
        known = [one.template for one in again.traps.quarantined(host)]
        assert "/calendar/{date}" in known
        denied = again.admission.traps.judge(f"{SITE}/calendar/1999/1", host)
        assert denied is not None
        assert denied.reason is DenyReason.TRAP_QUARANTINE
        assert again.traps.release(host, "/calendar/{date}") == ["/calendar/{date}"]
        assert again.admission.traps.judge(f"{SITE}/calendar/1999/1", host) is None
        waiting = (await frontier.totals()).denied
        again.rejudger.want([host.id])
        again.books._max_urls = again.books.first_attempts + 50
        assert await again.crawl.run() is StoppedBy.MAX_URLS
        assert sum("/calendar/" in url for url in again.web.urls) >= 45
        assert (await frontier.totals()).denied < waiting
        assert [line["queued"] for line in again.said("rejudged")] != []

    run(main())


def test_pages_of_a_large_honest_site_are_all_fetched() -> None:
    """Three thousand pages of one template that say little but are finite, each linking to the next ones."""

    async def main() -> None:
        engine = trapped(QuickFrontier(), TrapSite())

        def ask(origin: object, task: object) -> object:
            if task.kind is TaskKind.ROBOTS:  # type: ignore[attr-defined]
                return answer(404)
            if task.kind is TaskKind.PROBE:  # type: ignore[attr-defined]
                return answer(404)
            n = int(target_of(task.url).strip("/") or 0)  # type: ignore[attr-defined]
            links = [f"/{m}" for m in range(5 * n + 1, 5 * n + 6) if m < 3_000]
            return answer(200, page(*links, title=f"Page {n}"))

        engine.web.other = ask  # type: ignore[assignment]
        assert await engine.run() is StoppedBy.EMPTY
        assert len(engine.web.page_urls) == 3_000
        assert engine.said("quarantine") == []
        assert len(engine.said("probe")) <= PROBES

    run(main())


@pytest.mark.parametrize("answers", [answer(404), answer(200, page("/x", title="A page of another kind"))])
def test_a_host_that_says_that_a_page_is_missing_keeps_its_links(answers: object) -> None:
    """The probe found no error page that looks like the others."""

    async def main() -> None:
        engine = trapped(QuickFrontier(), TrapSite())

        def ask(origin: object, task: object) -> object:
            if task.kind is not TaskKind.PAGE:  # type: ignore[attr-defined]
                return answers
            n = int(target_of(task.url).strip("/") or 0)  # type: ignore[attr-defined]
            return answer(200, page(f"/{n + 1}", f"/{n + 2}", title="One title") if n < 90 else page(title="One title"))

        engine.web.other = ask  # type: ignore[assignment]
        engine.web.pages[f"{SITE}/robots.txt"] = answer(404)
        assert await engine.run() is StoppedBy.EMPTY
        assert len(engine.said("probe")) == 1
        assert len(engine.web.page_urls) > 20

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

            def count(origin: object, task: object, *, engine: Engine = engine, enough: asyncio.Event = enough) -> None:
                if len(engine.web.asked) >= pages:
                    enough.set()

            engine.web.before = count
            crawling = asyncio.ensure_future(engine.run())
            killing = asyncio.ensure_future(enough.wait())
            await asyncio.wait({crawling, killing}, return_when=asyncio.FIRST_COMPLETED)
            is_done = crawling.done()
            for task in (crawling, killing):
                task.cancel()
            await asyncio.wait({crawling, killing})
            spent.update(target_of(url).strip("/").replace("?", "/").split("/")[0] for url in engine.web.page_urls)
            if is_done:
                return spent
            await frontier.close(clean=False)
        raise AssertionError("it never ends")

    return run(main())


def test_a_trap_does_not_get_its_budget_anew_with_each_restart() -> None:
    """Killed every few hundred pages it costs what it costs in one go, and what samples begun anew take; were nothing
    kept, maze and wiki would take some ten thousand each.
    """
    spent = killed_every(250, QuickFrontier(), TrapSite())
    assert spent["article"] >= 60
    assert spent["calendar"] <= 300
    assert spent["shop"] <= 300
    assert spent["maze"] <= 800
    assert spent["wiki"] <= 600
