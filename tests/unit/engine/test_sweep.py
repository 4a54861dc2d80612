"""Other rules for all: what they allow comes back, what they refuse is denied, slice by slice, and a crash loses
nothing of it.
"""

import asyncio
from collections.abc import Sequence

from crawler.core.enums import DenyReason, TaskKind, UrlState
from crawler.core.models import Denied, RobotsRecord, Task
from crawler.core.options import ScopeOptions, ScopeRule
from crawler.core.scope import Scope
from crawler.engine.reevaluation import SLICE
from tests.support.engine import Harness, seed
from tests.support.frontiers import batch, visit
from tests.support.memory_frontier import MemoryFrontier
from tests.support.virtual_time import EPOCH, elapse, run, virtual_loop

HOST = "a.test"
LISTED = ScopeOptions(hosts=(HOST,))


def scope(*exclude: str) -> Scope:
    return Scope(ScopeOptions(hosts=(HOST,), exclude=tuple(ScopeRule(pattern) for pattern in exclude)), [HOST])


def urls(count: int) -> list[str]:
    return [f"https://{HOST}/{'even' if n % 2 == 0 else 'odd'}/{n}" for n in range(count)]


async def denied(engine: Harness, count: int, reason: DenyReason = DenyReason.SCOPE_EXCLUDE) -> None:
    """Put `count` URLs of the host into the store, denied."""
    receipt = await engine.frontier.add([seed(url) for url in urls(count)], now=0.0)
    engine.scheduler.discoveries_stored(receipt)
    tasks = await engine.frontier.take(1, count, leased=())
    refused = Denied(reason, "x")
    await engine.frontier.settle(batch(*(visit(task, refused, state=UrlState.DENIED) for task in tasks)))
    engine.scheduler.host_table.hosts[1].queued = 0


async def says_robots(engine: Harness, verdict: str, body: bytes | None = None) -> None:
    """The host's robots.txt, as if it had just been read."""
    record = RobotsRecord(verdict, 200, body, EPOCH, EPOCH + 86_400)
    task = Task(0, f"https://{HOST}/robots.txt", TaskKind.ROBOTS)
    await engine.frontier.settle(batch(visit(task, robots=record)))
    engine.host_table.learn_robots(engine.host_table.hosts[1], record)


async def swept(engine: Harness, to: Scope, name: str) -> dict[str, object]:
    """Bring other rules into force, and say what the sweep said."""
    before = len(engine.said("swept"))
    engine.url_policy.scope = to
    engine.reevaluation.rules_changed(await engine.frontier.judge_by(name))
    await until_idle(engine, before)
    return engine.said("swept")[-1]


async def until_idle(engine: Harness, before: int) -> None:
    task = asyncio.ensure_future(engine.reevaluation.run())
    while len(engine.said("swept")) == before:
        await elapse(0.01)
    task.cancel()


async def queued_urls(engine: Harness) -> set[str]:
    rows = await engine.frontier.url_rows(1, UrlState.QUEUED, after=None, limit=100_000)
    return {row.url for row in rows}


def test_what_is_allowed_comes_back_and_what_is_refused_is_denied_over_many_slices() -> None:
    """Twice a slice and a bit; the scheduler knows how many wait; what the preview said is what happens."""

    async def main() -> None:
        engine = Harness(scope=LISTED)
        await engine.frontier.open()
        count = 2 * SLICE + 10
        await denied(engine, count)
        for exclude, name in ((("/even/**",), "a"), ((), "b"), (("/odd/**", "/even/2*"), "c"), (("/odd/**",), "d")):
            preview = await engine.reevaluation.count(scope(*exclude))
            done = await swept(engine, scope(*exclude), name)
            assert (done["denied"], done["queued"]) == (preview["queued_dropped"], preview["denied_back"])
            allowed = {
                url for url in urls(count) if scope(*exclude).judge(url, seed(url).origin, depth=0, hop_path="",
                                                                    source=seed(url).source) is None
            }  # fmt: skip
            assert await queued_urls(engine) == allowed
            assert engine.scheduler.host_table.hosts[1].queued == len(allowed)
        assert await engine.frontier.reevaluation_mark(1) == 0

    run(main())


def test_a_url_that_is_handed_out_is_left_alone() -> None:
    """It was judged when it was leased."""

    async def main() -> None:
        engine = Harness(scope=LISTED)
        await engine.frontier.open()
        await denied(engine, 4)
        await swept(engine, scope(), "a")
        host = engine.scheduler.host_table.hosts[1]
        (row, *_) = await engine.frontier.url_rows(1, UrlState.QUEUED, after=None, limit=1)
        host.leased.add(row.id)
        assert (await swept(engine, scope("/**"), "b"))["denied"] == 3
        assert await queued_urls(engine) == {row.url}

    run(main())


def test_what_another_rule_keeps_out_stays_out() -> None:
    """A scope that allows all does not speak for robots.txt; the preview knows as much."""

    async def main() -> None:
        engine = Harness(scope=LISTED)
        await engine.frontier.open()
        await denied(engine, 8)
        await says_robots(engine, "rules", b"User-agent: *\nDisallow: /odd/\n")
        assert (await engine.reevaluation.count(scope()))["denied_back"] == 4
        assert (await swept(engine, scope(), "a"))["queued"] == 4
        assert all("/even/" in url for url in await queued_urls(engine))

    run(main())


def test_a_host_whose_robots_txt_cannot_be_read_is_judged_by_the_scope_and_later_by_the_rest() -> None:
    """What the scope refuses is denied at once; what robots.txt refused when it could be read waits for it."""

    async def main() -> None:
        engine = Harness(scope=LISTED)
        await engine.frontier.open()
        await denied(engine, 8, DenyReason.ROBOTS)
        await says_robots(engine, "unreachable")
        more = [seed(f"https://{HOST}/more/{n}") for n in range(3)]
        engine.scheduler.discoveries_stored(await engine.frontier.add(more, now=0.0))
        done = await swept(engine, scope("/more/**"), "a")
        assert (done["denied"], done["queued"]) == (3, 0)
        assert await engine.frontier.reevaluation_mark(1) == 1  # a restart would go on with it
        assert engine.reevaluation.is_idle
        await says_robots(engine, "rules", b"User-agent: *\nDisallow: /odd/\n")
        assert not engine.reevaluation.is_idle
        task = asyncio.ensure_future(engine.reevaluation.run())
        await elapse(10)
        task.cancel()
        assert await queued_urls(engine) == {url for url in urls(8) if "/even/" in url}
        assert await engine.frontier.reevaluation_mark(1) == 0

    run(main())


def test_a_sweep_that_a_crash_cut_off_goes_on_with_the_next_start() -> None:
    """The store knows which hosts are still to be swept, and that the rules are the new ones already."""

    async def main() -> None:
        frontier = MemoryFrontier()
        engine = Harness(scope=LISTED, frontier=frontier)
        await engine.frontier.open()
        count = 2 * SLICE + 10
        await denied(engine, count)
        real = frontier.queue_again

        async def once(ids: Sequence[int]) -> dict[int, int]:
            if (await frontier.totals()).queued:
                await asyncio.Event().wait()
            return await real(ids)

        frontier.queue_again = once  # type: ignore[method-assign]
        engine.url_policy.scope = scope()
        engine.reevaluation.rules_changed(await frontier.judge_by(engine.engine.options.fingerprint))
        sweeping = asyncio.ensure_future(engine.reevaluation.run())
        while not (await frontier.totals()).queued:
            await asyncio.sleep(0)
        sweeping.cancel()  # as kill -9 does: nothing is told to anybody
        assert (await frontier.totals()).denied > 0
        await frontier.close(clean=False)
        frontier.queue_again = real  # type: ignore[method-assign]
        again = Harness(scope=LISTED, frontier=frontier)
        await again.open()
        assert await frontier.judge_by(again.engine.options.fingerprint) == []
        sweeping = asyncio.ensure_future(again.reevaluation.run())
        await elapse(1)
        sweeping.cancel()
        assert (await frontier.totals()).denied == 0
        assert again.scheduler.host_table.hosts[1].queued == count
        assert await frontier.reevaluation_mark(1) == 0

    run(main())


def test_a_preview_changes_nothing() -> None:
    """Queued ones that would be dropped, denied ones that would come back."""

    async def main() -> None:
        engine = Harness(scope=LISTED)
        await engine.frontier.open()
        await denied(engine, 8)
        more = [seed(f"https://{HOST}/more/{n}") for n in range(6)] + [seed(f"https://{HOST}/even/new")]
        engine.scheduler.discoveries_stored(await engine.frontier.add(more, now=0.0))
        before = await engine.frontier.totals()
        # seeds are in scope wherever they lead, but for an exclude
        assert await engine.reevaluation.count(scope("/even/**")) == {
            "queued_dropped": 1, "denied_back": 4, "judged": 15, "complete": True,
        }  # fmt: skip
        assert await engine.frontier.totals() == before
        assert virtual_loop().time() < 1.0

    run(main())
