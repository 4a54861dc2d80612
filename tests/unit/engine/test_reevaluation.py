"""Re-evaluation after the scope changed: allowed URLs are queued again, refused ones are denied, slice by slice, and a
crash loses nothing of it.
"""

import asyncio
from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import Any

import pytest

from crawler.core.enums import DenyReason, Source, TaskKind, UrlState
from crawler.core.models import Denied, RobotsRecord, Task
from crawler.core.options import ScopeOptions, ScopeRule
from crawler.core.scope import Scope
from crawler.engine.options import EngineOptions
from crawler.engine.reevaluation import SLICE
from crawler.frontier.base import UrlRow
from tests.support.engine import Harness, seed
from tests.support.frontiers import batch, visit
from tests.support.memory_frontier import MemoryFrontier
from tests.support.quick_frontier import QuickFrontier
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
    await engine.scheduler.workbench.exchange()
    tasks = await engine.frontier.take(1, count, leased=())
    refused = Denied(reason, "x")
    await engine.frontier.settle(batch(*(visit(task, refused, state=UrlState.DENIED) for task in tasks)))
    engine.scheduler.note_counts()


async def says_robots(engine: Harness, verdict: str, body: bytes | None = None) -> None:
    """The host's robots.txt, as if it had just been read."""
    record = RobotsRecord(verdict, 200, body, EPOCH, EPOCH + 86_400)
    task = Task(0, f"https://{HOST}/robots.txt", TaskKind.ROBOTS)
    receipt = await engine.frontier.settle(batch(visit(task, robots=record)))
    engine.host_table.learn_robots(engine.host_table.hosts[1], record)
    engine.reevaluation.robots_stored(receipt)


async def reevaluated(engine: Harness, to: Scope, name: str) -> dict[str, object]:
    """Apply another scope, and return the event at the end of the re-evaluation."""
    before = len(engine.events_named("reevaluation_over"))
    engine.url_policy.scope = to
    sweep = await engine.frontier.judge_by(name)
    assert sweep is not None
    engine.reevaluation.rules_changed(sweep)
    await until_idle(engine, before)
    return engine.events_named("reevaluation_over")[-1]


async def until_idle(engine: Harness, before: int) -> None:
    task = asyncio.ensure_future(engine.reevaluation.run())
    while len(engine.events_named("reevaluation_over")) == before:
        await elapse(0.01)
    task.cancel()


async def queued_urls(engine: Harness) -> set[str]:
    rows = await engine.frontier.url_rows(1, 1, UrlState.QUEUED, after=None, limit=100_000)
    return {row.url for row in rows}


def test_allowed_urls_are_queued_again_and_refused_ones_denied_over_many_slices() -> None:
    """For more than two slices. The scheduler has the right count, and the preview was right."""

    async def main() -> None:
        engine = Harness(scope=LISTED)
        await engine.frontier.open()
        count = 2 * SLICE + 10
        await denied(engine, count)
        for exclude, name in ((("/even/**",), "a"), ((), "b"), (("/odd/**", "/even/2*"), "c"), (("/odd/**",), "d")):
            preview = await engine.reevaluation.count(scope(*exclude))
            done = await reevaluated(engine, scope(*exclude), name)
            assert (done["denied"], done["queued"]) == (preview["queued_dropped"], preview["denied_back"])
            allowed = {
                url for url in urls(count) if scope(*exclude).judge(url, seed(url).origin, depth=0, hop_path="",
                                                                    source=seed(url).source) is None
            }  # fmt: skip
            assert await queued_urls(engine) == allowed
            assert engine.scheduler.host_table.hosts[1].queued == len(allowed)
        assert await engine.frontier.reevaluation_mark(1) == 0

    run(main())


def test_a_url_in_a_lease_is_left_out() -> None:
    """It was judged when it was leased."""

    async def main() -> None:
        engine = Harness(scope=LISTED)
        await engine.frontier.open()
        await denied(engine, 4)
        await reevaluated(engine, scope(), "a")
        host = engine.scheduler.host_table.hosts[1]
        (row, *_) = await engine.frontier.url_rows(1, 1, UrlState.QUEUED, after=None, limit=1)
        host.leased.add(row.id)
        assert (await reevaluated(engine, scope("/**"), "b"))["denied"] == 3
        assert await queued_urls(engine) == {row.url}

    run(main())


def test_a_url_that_another_rule_refuses_remains_denied() -> None:
    """Where the scope allows all, robots.txt still refuses; the preview takes it into account."""

    async def main() -> None:
        engine = Harness(scope=LISTED)
        await engine.frontier.open()
        await denied(engine, 8)
        await says_robots(engine, "rules", b"User-agent: *\nDisallow: /odd/\n")
        assert (await engine.reevaluation.count(scope()))["denied_back"] == 4
        assert (await reevaluated(engine, scope(), "a"))["queued"] == 4
        assert all("/even/" in url for url in await queued_urls(engine))

    run(main())


def test_a_host_with_unreachable_robots_txt_is_judged_by_the_scope_and_later_by_all_rules() -> None:
    """The scope's refusals are applied at once; URLs that robots.txt denied before remain denied until it is read."""

    async def main() -> None:
        engine = Harness(scope=LISTED)
        await engine.frontier.open()
        await denied(engine, 8, DenyReason.ROBOTS)
        await says_robots(engine, "unreachable")
        more = [seed(f"https://{HOST}/more/{n}") for n in range(3)]
        engine.scheduler.discoveries_stored(await engine.frontier.add(more, now=0.0))
        done = await reevaluated(engine, scope("/more/**"), "a")
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


def test_after_a_crash_the_reevaluation_starts_again() -> None:
    """The store knows which hosts are still to be re-evaluated, and that the rules are the new ones."""

    async def main() -> None:
        frontier = MemoryFrontier()
        engine = Harness(scope=LISTED, frontier=frontier)
        await engine.frontier.open()
        count = 2 * SLICE + 10
        await denied(engine, count)
        real = frontier.queue_urls

        async def once(ids: Sequence[int], *, states: Collection[UrlState] = ()) -> dict[int, int]:
            if (frontier.totals()).queued:
                await asyncio.Event().wait()
            return await real(ids, states=states)

        frontier.queue_urls = once  # type: ignore[method-assign]
        engine.url_policy.scope = scope()
        engine.reevaluation.load(await frontier.judge_by(engine.engine.options.fingerprint))
        task = asyncio.ensure_future(engine.reevaluation.run())
        while not (frontier.totals()).queued:
            await asyncio.sleep(0)
        task.cancel()  # as kill -9 does
        assert (frontier.totals()).denied > 0
        await frontier.close(clean=False)
        frontier.queue_urls = real  # type: ignore[method-assign]
        again = Harness(scope=LISTED, frontier=frontier)
        await again.open()
        assert not await frontier.judge_by(again.engine.options.fingerprint)
        task = asyncio.ensure_future(again.reevaluation.run())
        await elapse(1)
        task.cancel()
        assert (frontier.totals()).denied == 0
        assert again.scheduler.host_table.hosts[1].queued == count
        assert await frontier.reevaluation_mark(1) == 0

    run(main())


def test_rules_that_are_stored_and_not_in_force_yet_are_not_applied() -> None:
    """A reload stores them first. A sweep that is under way waits for them, and begins anew then."""

    async def main() -> None:
        engine = Harness(scope=LISTED)
        await engine.frontier.open()
        await denied(engine, 8)
        first = await engine.frontier.judge_by("a")
        assert first is not None
        engine.url_policy.scope = scope("/**")
        engine.reevaluation.rules_changed(first)
        second = await engine.frontier.judge_by("b")
        assert second is not None
        task = asyncio.ensure_future(engine.reevaluation.run())
        await elapse(10.0)
        assert await engine.frontier.sweep() == second
        engine.url_policy.scope = scope()
        engine.reevaluation.rules_changed(second)
        await elapse(10.0)
        task.cancel()
        assert await queued_urls(engine) == set(urls(8))
        assert await engine.frontier.sweep() is None

    run(main())


class Mortal(QuickFrontier):
    """Hangs before the last of `steps_left` steps of a sweep, as if the process were killed there."""

    steps_left: float = float("inf")

    async def _step(self) -> None:
        self.steps_left -= 1
        if self.steps_left <= 0:
            await asyncio.Event().wait()

    async def url_rows(self, *args: Any, **kwargs: Any) -> list[UrlRow]:
        await self._step()
        return await super().url_rows(*args, **kwargs)

    async def deny(self, *args: Any, **kwargs: Any) -> int:
        await self._step()
        return await super().deny(*args, **kwargs)

    async def swept(self, *args: Any, **kwargs: Any) -> None:
        await self._step()
        await super().swept(*args, **kwargs)


@pytest.mark.parametrize("steps", [0, 1, 4, 12, 13, 50, 100, 170, 171])
def test_a_sweep_over_many_hosts_reads_those_that_change_and_survives_kills(steps: int) -> None:
    """What was done before the kill is not done again, but for a slice."""

    async def main() -> None:
        frontier, count = Mortal(), 2 * SLICE + 40
        names = [f"h{n}.{'odd' if n % 20 == 0 else 'even'}.test" for n in range(count)]
        links = [replace(seed(f"https://{name}/{n}"), source=Source.LINK, depth=1) for name in names for n in (1, 2)]
        few = EngineOptions(workers=8, linger_s=600.0, min_free=0, active_hosts=10)
        engine = Harness(scope=ScopeOptions(hosts=("*.test",)), frontier=frontier, engine=few)
        await engine.open()
        await frontier.add(links, now=0.0)
        await frontier.close(clean=True)
        fewer = ScopeOptions(hosts=("*.test",), exclude=(ScopeRule("https://*.odd.test/**"),))
        hosts = 0
        for dies_after in (steps, float("inf")) if steps else (float("inf"),):
            frontier.steps_left = dies_after
            engine = Harness(scope=fewer, frontier=frontier, engine=few)
            await engine.open()
            task = asyncio.ensure_future(engine.reevaluation.run())
            while frontier.steps_left > 0 and not engine.reevaluation.is_idle:
                await elapse(0.01)
            task.cancel()
            await asyncio.wait({task})
            await frontier.close(clean=False)
            hosts += engine.reevaluation._totals.hosts
            assert len(engine.host_table.hosts) < 2 * count / 20
        refused = {row.url for row in await frontier.url_rows(1, count, UrlState.DENIED, after=None, limit=9_999)}
        assert refused == {link.url for link in links if ".odd." in link.url}
        assert await frontier.sweep() is None
        assert hosts == count
        (over,) = engine.events_named("reevaluation_over")
        if not steps:
            assert over == {"hosts": count, "denied": len(refused), "queued": 0}

    run(main())


def test_a_preview_changes_nothing() -> None:
    """It counts queued URLs that would be denied, and denied ones that would be queued."""

    async def main() -> None:
        engine = Harness(scope=LISTED)
        await engine.frontier.open()
        await denied(engine, 8)
        more = [seed(f"https://{HOST}/more/{n}") for n in range(6)] + [seed(f"https://{HOST}/even/new")]
        engine.scheduler.discoveries_stored(await engine.frontier.add(more, now=0.0))
        before = engine.frontier.totals()
        # seeds are in scope wherever they lead, but for an exclude
        assert await engine.reevaluation.count(scope("/even/**")) == {
            "queued_dropped": 1, "denied_back": 4, "judged": 15, "complete": True,
        }  # fmt: skip
        assert engine.frontier.totals() == before
        assert virtual_loop().time() < 1.0

    run(main())
