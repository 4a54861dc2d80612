"""Other options for a running crawl: all parts follow at once, or none does."""

import asyncio
from collections.abc import Iterator, Sequence
from dataclasses import replace

import pytest

from crawler.core.enums import StoppedBy
from crawler.core.models import Discovered, HostRow
from crawler.core.options import NameSet, PolitenessOptions, ScopeOptions, ScopeRule
from crawler.engine import engine as module
from crawler.engine.engine import Engine
from crawler.engine.options import EngineConfiguration, EngineOptions, SeedFile
from crawler.frontier.base import FrontierFull, Receipt, Sweep
from tests.support.engine import AT_ONCE, POLITE, Harness, seed
from tests.support.memory_frontier import MemoryFrontier
from tests.support.scripted_web import page, response
from tests.support.virtual_time import elapse, run

ROOT = "https://a.test/"
DAEMON = EngineOptions(workers=4, linger_s=None, min_free=0, drain_s=5.0)


def harness(frontier: MemoryFrontier | None = None, politeness: PolitenessOptions = POLITE) -> Harness:
    web = {ROOT: response(200, page(*(f"/{n}" for n in range(40))))}
    engine = Harness(ROOT, politeness=politeness, engine=DAEMON, web=web, frontier=frontier)
    engine.web.other = lambda origin, task: response(404 if task.url.endswith("robots.txt") else 200, page())
    return engine


def test_a_crawl_goes_on_under_other_options() -> None:
    """Seeds, scope, delay and limits are others from one moment on; what is queued is judged anew."""

    async def main() -> None:
        crawl = harness()
        engine = crawl.engine
        await crawl.open()
        running = asyncio.ensure_future(engine.run())
        await elapse(10.0)
        slow = len(crawl.web.requests)
        assert slow < 12
        options = replace(
            engine.options,
            seeds=(ROOT, "https://b.test/"),
            scope=ScopeOptions(exclude=(ScopeRule("/3*"),)),
            politeness=AT_ONCE,
            address_politeness=AT_ONCE,
        )
        assert [one.url for one in engine.new_seeds(options)] == ["https://b.test/"]
        preview = await engine.preview(options)
        assert (preview["hosts_come"], preview["hosts_go"]) == (["b.test"], [])
        await engine.reconfigure(options)
        await elapse(10.0)
        assert engine.status().urls["queued"] == 0
        assert len(crawl.web.requests) > 30
        assert "https://b.test/" in crawl.web.urls
        excluded = {f"{ROOT}3{n}" for n in range(10)}
        assert not excluded & {each.url for each in crawl.web.requests[slow + 1 :]}
        assert {crawl.settled.get(url, "denied") for url in excluded} == {"denied"}
        engine.drain()
        assert await running is StoppedBy.SIGNAL
        await crawl.close()

    run(main())


def test_a_preview_names_the_hosts_of_changed_files() -> None:
    """Those that come and those that go, whether the store has them or not."""

    async def main() -> None:
        names = [NameSet.of([f"{one}.test" for one in hosts]) for hosts in ("eb", "bcd")]
        before = replace(seed_file("1", "e.test", "https://b.test/x"), names=names[0])
        after = replace(seed_file("2", "b.test", "c.test", "d.test/y"), names=names[1])
        crawl = Harness(ROOT, seed_files=[before], engine=DAEMON)
        await crawl.open()
        preview = await crawl.engine.preview(replace(crawl.engine.options, seed_files=(after,)))
        assert (preview["hosts_come"], preview["hosts_go"]) == (["c.test", "d.test"], ["e.test"])
        unchanged = await crawl.engine.preview(replace(crawl.engine.options, seed_files=(replace(before, digest="3"),)))
        assert unchanged == {"scope_changes": False}
        await crawl.close()

    run(main())


def test_a_preview_of_many_hosts_compares_the_first() -> None:
    """It ends with its time, and says how far it came."""

    async def main() -> None:
        crawl = harness()
        engine, frontier = crawl.engine, crawl.frontier
        await crawl.open()
        await frontier.add([seed(f"https://h{n}.test/") for n in range(20)], now=0.0)
        host_rows, asked = frontier.host_rows, 0

        async def slow(*, after: int, limit: int, with_work: bool = False) -> list[HostRow]:
            nonlocal asked
            asked += 1
            await elapse(0.4)
            return await host_rows(after=after, limit=4, with_work=with_work)

        frontier.host_rows = slow  # type: ignore[method-assign]
        preview = await engine.preview(replace(engine.options, scope=ScopeOptions(hosts=("a.test", "h1.test"))))
        assert (preview["hosts"], preview["hosts_compared"], preview["complete"]) == (21, 12, False)
        assert asked <= 7
        await crawl.close()

    run(main())


def test_a_reload_to_the_directories_of_the_seeds_judges_stored_urls_anew() -> None:
    """What is outside of them is denied, and comes back under the scope before. What a redirect added stays."""

    async def main() -> None:
        docs = "https://a.test/docs/"
        pages = page(*(f"/docs/{n}" for n in range(9)), *(f"/{n}" for n in range(9)), "/docs/sub/")
        crawl = Harness(docs, web={docs: response(200, pages)}, engine=EngineOptions(linger_s=None, min_free=0))
        await crawl.open()
        running = asyncio.ensure_future(crawl.engine.run())
        await elapse(1.5)
        assert crawl.engine.status().urls["queued"] >= 18
        before = crawl.engine.options
        await crawl.engine.reconfigure(replace(before, scope=ScopeOptions(hosts=("seed-prefix",))))
        await elapse(60.0)
        assert sorted(crawl.web.page_urls) == sorted([docs, *(f"{docs}{n}" for n in range(9)), f"{docs}sub/"])
        await crawl.engine.reconfigure(before)
        await elapse(60.0)
        assert len(crawl.web.page_urls) == 20
        crawl.engine.drain()
        await running
        await crawl.close()

    run(main())


def test_a_scope_that_is_the_same_keeps_the_hosts_that_redirects_brought_in() -> None:
    """And so does another one that follows the seeds."""

    async def main() -> None:
        crawl = harness()
        await crawl.open()
        url_policy, engine = crawl.url_policy, crawl.engine
        url_policy.scope = url_policy.scope.widened("www.a.test")
        await engine.reconfigure(replace(engine.options, politeness=AT_ONCE))
        assert url_policy.scope.has_host("www.a.test")
        await engine.reconfigure(replace(engine.options, scope=ScopeOptions(max_depth=2)))
        assert url_policy.scope.has_host("www.a.test")
        assert url_policy.scope.has_host("a.test")
        await crawl.close()

    run(main())


class FullStore(MemoryFrontier):
    """Cannot take new URLs."""

    is_full = False

    async def judge_by(self, fingerprint: str) -> Sweep | None:
        if self.is_full:
            raise FrontierFull("no space left")
        return await super().judge_by(fingerprint)


def in_force(engine: Engine) -> tuple[EngineConfiguration, object, bool, float]:
    delays = {key.delay_s for key in engine.host_table.keys.values()}
    return engine.options, engine.url_policy.scope, engine.url_policy.obey, max(delays)


def test_options_that_the_store_cannot_take_change_nothing() -> None:
    """Those in force stay, in every part."""

    async def main() -> None:
        store = FullStore()
        crawl = harness(store)
        await crawl.open()
        engine = crawl.engine
        before = in_force(engine)
        store.is_full = True
        with pytest.raises(FrontierFull):
            await engine.reconfigure(
                replace(engine.options, scope=ScopeOptions(max_depth=0), politeness=replace(AT_ONCE, robots="ignore"))
            )
        assert in_force(engine) == before
        await crawl.close()

    run(main())


def test_what_judges_urls_alike_has_one_fingerprint() -> None:
    """Limits on how many, the place of a rule and the order of seeds make no difference; what judges does."""
    first = EngineConfiguration(
        seeds=(ROOT, "https://b.test/"), scope=ScopeOptions(exclude=(ScopeRule("/x", "crawler.toml:4"),))
    )
    same = replace(
        first,
        seeds=("https://b.test/", ROOT),
        scope=ScopeOptions(exclude=(ScopeRule("/x", "crawler.toml:9"),), max_urls=3),
    )
    assert first.fingerprint == same.fingerprint
    others = [
        replace(first, seeds=(ROOT,)),
        replace(first, scope=ScopeOptions()),
        replace(first, politeness=PolitenessOptions(robots="ignore")),
        replace(first, traps=replace(first.traps, detect="off")),
    ]
    assert len({first.fingerprint, *(one.fingerprint for one in others)}) == 5


# -- files of seeds


class SlicesCounted(MemoryFrontier):
    """Keeps how many URLs each transaction added."""

    def __init__(self) -> None:
        super().__init__()
        self.slices: list[int] = []

    async def add(self, discovered: Sequence[Discovered], *, now: float) -> Receipt:
        self.slices.append(len(discovered))
        return await super().add(discovered, now=now)


def seed_file(digest: str, *lines: str) -> SeedFile:
    return SeedFile("seeds.txt", digest, len(lines), lines[0], NameSet(), lambda: iter(lines))


def test_seeds_of_files_are_stored_in_slices(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the scope refuses is named up to a limit, and then counted; a line that became garbage is left out."""
    monkeypatch.setattr(module, "_SEEDS_AT_START", 3)
    monkeypatch.setattr(module, "_SEEDS_SHOWN", 4)
    monkeypatch.setattr(module, "SEEDS_NAMED", 1)
    monkeypatch.setattr("crawler.engine.options.SEEDS_NAMED", 1)

    async def main() -> None:
        frontier = SlicesCounted()
        file = seed_file("1", *(f"https://h{n}.test/" for n in range(6)), "no seed", *(f"no{n}.test" for n in range(3)))
        scope = ScopeOptions(exclude=(ScopeRule("https://no*.test/**"),))
        crawl = Harness(ROOT, seed_files=[file], engine=DAEMON, frontier=frontier, scope=scope)
        shown: list[tuple[int, int]] = []
        refused, taken_down = await crawl.engine.open(
            await frontier.open(), on_seeds=lambda *figures: shown.append(figures)
        )
        assert frontier.slices == [1, 3, 3, 0]
        assert shown == [(4, 11), (10, 11)]
        assert [refused[0].partition(":")[0], *refused[1:]] == ["seed https", "2 other seeds: denied by the scope"]
        assert taken_down == []
        assert frontier.totals().queued == 7
        await crawl.close()

    run(main())


def test_a_file_of_seeds_is_stored_once_for_the_same_rules() -> None:
    """A start after that reads only its first lines, and says the same; a kill in between stores it whole."""

    async def main() -> None:
        frontier = SlicesCounted()
        lines = [*(f"https://h{n}.test/" for n in range(6)), "https://no.test/"]
        file, other = seed_file("1", *lines), seed_file("2", "https://other.test/")
        scope = ScopeOptions(exclude=(ScopeRule("https://no*.test/**"),))

        async def start(*files: SeedFile, scope: ScopeOptions = scope) -> tuple[list[int], list[str], list[str]]:
            crawl = Harness(ROOT, seed_files=files, engine=DAEMON, frontier=frontier, scope=scope)
            frontier.slices = []
            refused, taken_down = await crawl.engine.open(await frontier.open())
            await frontier.close(clean=False)
            return frontier.slices, refused, taken_down

        def dies() -> Iterator[str]:
            yield from lines[:2]
            raise OSError("killed")

        with pytest.raises(OSError, match="killed"):
            await start(replace(file, read=dies))
        await frontier.close(clean=False)
        first = await start(file)
        assert (first[0], len(first[1])) == ([1, 6], 1)
        assert await start(file) == ([1], first[1], [])
        assert (await start(file, other))[0] == [1, 1]
        assert (await start(file, scope=ScopeOptions()))[:2] == ([1, 7], [])
        await frontier.open()
        await frontier.forget_url("https://h2.test/", now=0.0)
        await frontier.close(clean=True)
        slices, refused, taken_down = await start(file, scope=ScopeOptions())
        assert (slices, refused, len(taken_down)) == ([1], [], 1)
        assert (await start(file))[0] == [1, 6]  # the rules of the last run count

    run(main())


def test_a_reload_stores_the_seeds_that_it_lets_in() -> None:
    """Seeds of the configuration, and of files that are as they were."""

    async def main() -> None:
        frontier = SlicesCounted()
        file, whole = seed_file("1", "https://no.one.test/", "https://a.test/1"), seed_file("2", "https://a.test/2")
        scope = ScopeOptions(exclude=(ScopeRule("https://no.*.test/**"),))
        crawl = Harness(
            "https://no.two.test/", ROOT, seed_files=[file, whole], engine=DAEMON, frontier=frontier, scope=scope
        )
        await crawl.open()
        engine, frontier.slices = crawl.engine, []
        same = replace(engine.options, politeness=AT_ONCE)
        assert (engine.new_seeds(same), engine.changed_files(same)) == ([], [])
        wider = replace(same, scope=ScopeOptions())
        assert [one.url for one in engine.new_seeds(wider)] == ["https://no.two.test/"]
        assert engine.changed_files(wider) == [file]
        await engine.reconfigure(wider)
        assert await engine.add_seed_files() == 1
        assert (frontier.slices, engine.changed_files(wider)) == ([1, 2], [])
        assert frontier.totals().queued == 5
        await crawl.close()

    run(main())


def test_a_reload_stores_the_new_seeds_of_changed_files(monkeypatch: pytest.MonkeyPatch) -> None:
    """In slices; known ones are not counted. A file that is as it was is not read."""
    monkeypatch.setattr(module, "SEEDS_AT_ONCE", 2)

    async def main() -> None:
        frontier = SlicesCounted()
        before, same = seed_file("1", "https://b.test/"), seed_file("2", "https://c.test/")
        crawl = Harness(ROOT, seed_files=[before, same], engine=DAEMON, frontier=frontier)
        await crawl.open()
        frontier.slices.clear()
        after = seed_file("3", "https://b.test/", *(f"https://d{n}.test/" for n in range(4)))
        options = replace(crawl.engine.options, seed_files=[after, same])
        assert crawl.engine.new_seeds(options) == []
        assert crawl.engine.changed_files(options) == [after]
        await crawl.engine.reconfigure(options)
        assert await crawl.engine.add_seed_files() == 4
        assert frontier.slices == [2, 2, 1]
        assert await crawl.engine.add_seed_files() == 0
        assert crawl.engine.changed_files(options) == []
        await crawl.close()

    run(main())


def test_a_seed_file_that_could_not_be_stored_is_read_again_at_the_next_reload() -> None:
    """It is gone, or the disk is full."""

    async def main() -> None:
        crawl = harness()
        await crawl.open()
        whole = seed_file("1", "https://b.test/")

        def gone() -> Iterator[str]:
            raise FileNotFoundError(2, "No such file or directory", "seeds.txt")

        await crawl.engine.reconfigure(replace(crawl.engine.options, seed_files=[replace(whole, read=gone)]))
        with pytest.raises(FileNotFoundError):
            await crawl.engine.add_seed_files()
        await crawl.engine.reconfigure(replace(crawl.engine.options, seed_files=[whole]))
        assert await crawl.engine.add_seed_files() == 1
        await crawl.close()

    run(main())
