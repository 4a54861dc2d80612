"""Seeds with a depth, a scope and tags of their own, in a crawl."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from crawler.core.enums import Source
from crawler.core.options import ANY_DEPTH, Override, Rules, ScopeOptions, SeedOptions
from crawler.core.scope import Overrides, Scope
from crawler.core.url import parse
from crawler.engine.options import EngineConfiguration, EngineOptions
from tests.support.engine import Harness
from tests.support.memory_frontier import MemoryFrontier
from tests.support.scripted_web import page, response
from tests.support.virtual_time import elapse, run

DAEMON = EngineOptions(workers=4, linger_s=None, min_free=0, drain_s=5.0)
DOCS, SITE = "https://a.test/docs/", "https://a.test/"


def judged(scope: Scope, url: str, depth: int = 1) -> str:
    """The rule of a refusal; "" for none."""
    href, origin = parse(url)
    denied = scope.judge(href, origin, depth=depth, hop_path="L", source=Source.LINK)
    return "" if denied is None else denied.rule


def scope_of(*seeds: SeedOptions, hosts: tuple[str, ...] = ("seed-hosts",), added: Sequence[str] = ()) -> Scope:
    return Scope.by(Rules(scope=ScopeOptions(hosts=hosts, max_depth=5), seed_hosts=("c.test",), seeds=seeds), added)


@pytest.mark.parametrize(
    ("scope", "in_scope"),
    [
        (("seed-prefix",), [True, False, False, False, False]),
        (("seed-hosts",), [True, True, False, False, False]),
        (("seed-domains",), [True, True, True, False, False]),
        (("*.a.test", "d.test"), [False, False, True, True, False]),
    ],
)
@pytest.mark.parametrize("hosts", [("seed-hosts",), ("seed-domains",), ("c.test",)])
def test_the_scope_of_a_seed_is_besides_that_of_the_crawl(
    hosts: tuple[str, ...], scope: tuple[str, ...], in_scope: list[bool]
) -> None:
    """Whichever of the four the crawl has."""
    rules = scope_of(SeedOptions(DOCS, scope=scope), hosts=hosts)
    urls = [f"{DOCS}x", f"{SITE}x", "https://www.a.test/", "https://d.test/", "https://e.test/"]
    assert [judged(rules, url) == "" for url in urls] == in_scope
    assert judged(rules, "https://c.test/") == ""
    assert [rules.has_host(host) for host in ("a.test", "www.a.test", "d.test", "e.test")] == [
        any(in_scope[:2]), *in_scope[2:],
    ]  # fmt: skip


def test_the_most_specific_seed_that_gives_an_option_decides() -> None:
    """Its directory, its host, its domain; then the crawl. An override decides before it."""
    seeds = [
        SeedOptions(DOCS, "c:1", ("docs",), 1, ("seed-prefix",)),
        SeedOptions(f"{DOCS}deep/", "c:2", (), ANY_DEPTH, ("seed-prefix",)),
        SeedOptions(SITE, "c:3", ("site",), 2, ("seed-hosts",)),
        SeedOptions("https://www.a.test/x/", "c:4", ("all",), None, ("seed-domains",)),
    ]
    for given in (seeds, seeds[::-1]):
        scope = scope_of(*given)
        assert judged(scope, f"{DOCS}x", 2) == "c:1  seed max_depth = 1"
        assert judged(scope, f"{DOCS}deep/x", 99) == ""
        assert judged(scope, f"{SITE}x", 3) == "c:3  seed max_depth = 2"
        assert judged(scope, "https://b.a.test/", 6) == "scope.max_depth = 5"
        urls = (f"{DOCS}x", f"{DOCS}deep/x", f"{SITE}x", "https://b.a.test/", "https://c.test/")
        tags = [scope.tags_of(url, parse(url)[1].host) for url in urls]
        assert tags == [("docs",), ("docs",), ("site",), ("all",), ()]
    overridden = Scope(
        ScopeOptions(),
        (),
        seeds=seeds,
        overrides=Overrides([Override(urls=("a.test/docs/**",), place="c:9", max_depth=0)]),
    )
    assert judged(overridden, f"{DOCS}deep/x") == 'c:9  override "a.test/docs/**" max_depth = 0'


def test_seeds_of_one_place_have_their_tags_in_common() -> None:
    """And the larger depth."""
    scope = scope_of(SeedOptions(SITE, tags=("a", "b"), max_depth=1), SeedOptions(DOCS, tags=("b", "c"), max_depth=3))
    (place,) = scope.seeds.of(f"{SITE}x", "a.test")
    assert (place.tags, place.max_depth) == (("a", "b", "c"), 3)
    endless = scope_of(SeedOptions(SITE, max_depth=ANY_DEPTH), SeedOptions(DOCS, max_depth=3))
    assert endless.seeds.of(SITE, "a.test")[0].max_depth == ANY_DEPTH


def test_what_a_redirect_of_a_seed_leads_to_has_its_options() -> None:
    """Over several hops, in whichever order the store gives them; the scope of the crawl is not made wider."""
    seed = SeedOptions(DOCS, "c:1", ("docs",), 1, ("seed-prefix",))
    hops = [f"https://www.a.test/docs/ {DOCS}", "https://b.test/en/ https://www.a.test/docs/"]
    one_by_one = scope_of(seed).widened(hops[0]).widened(hops[1])
    for scope in (scope_of(seed, added=hops), scope_of(seed, added=hops[::-1]), one_by_one):
        assert judged(scope, "https://b.test/en/x") == ""
        assert judged(scope, "https://b.test/en/x", 2) == "c:1  seed max_depth = 1"
        assert scope.tags_of("https://www.a.test/docs/x", "www.a.test") == ("docs",)
        assert judged(scope, "https://b.test/x") == "scope.hosts = seed-hosts"
        assert [scope.has_host(host) for host in ("b.test", "d.test")] == [True, False]
    as_the_crawl = scope_of(replace(seed, scope=()), added=hops)
    assert judged(as_the_crawl, "https://b.test/x", 2) == "c:1  seed max_depth = 1"
    assert judged(as_the_crawl, "https://b.test/x") == ""


def crawl_of(seeds: Sequence[SeedOptions], urls: Sequence[str], web: dict[str, Any], **more: Any) -> Harness:
    crawl = Harness(*urls, web=web, engine=DAEMON, **more)
    scoped = frozenset(url for url, seed in zip(urls, seeds, strict=True) if seed.scope)
    crawl.engine.options = replace(crawl.engine.options, seed_options=tuple(seeds), scoped_seeds=scoped)
    crawl.url_policy.scope = crawl.engine.options.judging_scope()
    return crawl


def test_a_seed_is_crawled_within_its_scope_and_depth_and_its_pages_have_its_tags() -> None:
    """Also where it redirects to. Pages of other seeds have none."""

    async def main() -> None:
        www = "https://www.a.test/docs/"
        web: dict[str, Any] = {
            DOCS: response(301, location=www),
            www: response(200, page("/docs/1", "/other", "https://b.test/1")),
            f"{www}1": response(200, page("/docs/2")),
            "https://b.test/": response(200, page("/1")),
            "https://b.test/1": response(200, page("/2")),
        }
        docs = SeedOptions(DOCS, "c:1", ("docs",), 1, ("seed-prefix",))
        crawl = crawl_of([docs, SeedOptions("https://b.test/")], [DOCS, "https://b.test/"], web)
        await crawl.open()
        running = asyncio.ensure_future(crawl.engine.run())
        await elapse(60.0)
        assert sorted(crawl.web.page_urls) == sorted(
            [DOCS, www, f"{www}1", *(f"https://b.test/{n}" for n in ("", 1, 2))]
        )
        records = [visited.settlement.record for visited, _, _ in crawl.visits]
        kept = [(one.task.url, one.page.tags) for one in records if one is not None and one.page is not None]
        assert {url for url, tags in kept if tags == ("docs",)} == {www, f"{www}1"}
        assert all(tags == () for url, tags in kept if url.startswith("https://b.test/"))
        assert crawl.scope_hosts == [("www.a.test", DOCS)]
        crawl.engine.drain()
        await running
        await crawl.close()

    run(main())


def test_the_place_of_a_redirect_is_kept_over_a_restart() -> None:
    """The store has it, with the seed that it is of."""

    async def main() -> None:
        www = "https://www.a.test/docs/"
        frontier = MemoryFrontier()
        docs = SeedOptions(DOCS, "c:1", ("docs",), None, ("seed-prefix",))
        for turn in range(2):
            pages = [f"/docs/{n}" for n in range(50)]
            web: dict[str, Any] = {DOCS: response(301, location=www), www: response(200, page(*pages))}
            web |= {f"{www}{n}": response(200, page("/")) for n in range(50)}
            crawl = crawl_of([docs], [DOCS], web, frontier=frontier)
            await crawl.open()
            assert bool(crawl.url_policy.scope.tags_of(f"{www}7", "www.a.test")) is bool(turn)
            running = asyncio.ensure_future(crawl.engine.run())
            await elapse(10.0)
            crawl.engine.drain()
            await running
            await crawl.close()
        assert f"{www}12" in crawl.web.page_urls

    run(main())


def test_a_reload_of_seeds_judges_stored_urls_anew() -> None:
    """A seed that gets a scope of its own is crawled no further than that; new ones are added."""

    async def main() -> None:
        pages = page(*(f"/docs/{n}" for n in range(5)), *(f"/{n}" for n in range(9)))
        crawl = Harness(DOCS, web={DOCS: response(200, pages), "https://b.test/": response(200, page())}, engine=DAEMON)
        await crawl.open()
        running = asyncio.ensure_future(crawl.engine.run())
        await elapse(1.5)
        before = crawl.engine.options
        narrow: EngineConfiguration = replace(
            before,
            seeds=(DOCS, "https://b.test/"),
            seed_options=(
                SeedOptions(DOCS, "c:1", ("docs",), None, ("seed-prefix",)),
                SeedOptions("https://b.test/", "c:2", scope=("seed-hosts",)),
            ),
            scoped_seeds=frozenset([DOCS, "https://b.test/"]),
        )
        assert narrow.fingerprint != before.fingerprint
        preview = await crawl.engine.preview(narrow)
        assert (preview["hosts_come"], preview["hosts_go"]) == (["b.test"], [])
        await crawl.engine.reconfigure(narrow)
        await elapse(60.0)
        outside = [url for url in crawl.web.page_urls if url.startswith(SITE) and not url.startswith(DOCS)]
        assert len(outside) <= 1  # requested before the reload
        assert len([url for url in crawl.web.page_urls if url.startswith(DOCS)]) == 6
        assert "https://b.test/" in crawl.web.page_urls
        crawl.engine.drain()
        await running
        await crawl.close()

    run(main())
