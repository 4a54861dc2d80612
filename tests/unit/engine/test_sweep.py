"""The sweep: what a wider scope allows comes back, slice by slice, and nothing else does."""

import asyncio

from crawler.core.options import ScopeOptions, ScopeRule
from crawler.core.scope import Scope
from crawler.core.values import Denied
from crawler.core.vocabulary import DenyReason, UrlState
from crawler.engine.sweep import SLICE, Sweeper
from tests.support.engine import Engine, run, seed, virtual_loop
from tests.support.frontiers import batch, visit

HOST = "a.test"


def scope(*exclude: str) -> Scope:
    return Scope(ScopeOptions(exclude=tuple(ScopeRule(pattern) for pattern in exclude)), [HOST])


async def denied(engine: Engine, count: int, reason: DenyReason = DenyReason.SCOPE_EXCLUDE) -> None:
    """Put `count` URLs of the host into the store, denied."""
    urls = [f"https://{HOST}/{'even' if n % 2 == 0 else 'odd'}/{n}" for n in range(count)]
    receipt = await engine.frontier.add([seed(url) for url in urls], now=0.0)
    engine.scheduler.stored(receipt)
    tasks = await engine.frontier.take(1, count, leased=())
    refused = Denied(reason, "x")
    await engine.frontier.settle(batch(*(visit(task, refused, state=UrlState.DENIED) for task in tasks)))
    engine.scheduler.books.hosts[1].queued = 0


async def swept(engine: Engine, to: Scope) -> int:
    """Sweep once, and say how many came back."""
    done: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    sweeper = Sweeper(engine.frontier, engine.scheduler, done.set_result)
    task = asyncio.ensure_future(sweeper.run())
    sweeper.sweep(to)
    brought_back = await done
    task.cancel()
    return brought_back


def test_what_is_allowed_comes_back_over_many_slices() -> None:
    """Twice a slice and a bit; the scheduler knows how many wait."""

    async def main() -> None:
        engine = Engine()
        await engine.frontier.open()
        count = 2 * SLICE + 10
        await denied(engine, count)
        assert await swept(engine, scope("/even/**")) == count // 2
        assert engine.scheduler.books.hosts[1].queued == count // 2
        rows = await engine.frontier.url_rows(1, UrlState.QUEUED, after=None, limit=count)
        assert len(rows) == count // 2
        assert all("/odd/" in row.url for row in rows)
        assert await swept(engine, scope()) == count - count // 2
        assert await swept(engine, scope()) == 0

    run(main())


def test_what_robots_txt_denied_is_not_the_scopes_to_bring_back() -> None:
    """Another rule refused it."""

    async def main() -> None:
        engine = Engine()
        await engine.frontier.open()
        await denied(engine, 5, DenyReason.ROBOTS)
        assert await swept(engine, scope()) == 0

    run(main())


def test_a_preview_counts_and_changes_nothing() -> None:
    """Queued ones that would be dropped, denied ones that would come back."""

    async def main() -> None:
        engine = Engine()
        await engine.frontier.open()
        await denied(engine, 8)
        more = [seed(f"https://{HOST}/more/{n}") for n in range(6)] + [seed(f"https://{HOST}/even/new")]
        engine.scheduler.stored(await engine.frontier.add(more, now=0.0))
        before = await engine.frontier.totals()
        sweeper = Sweeper(engine.frontier, engine.scheduler, lambda _: None)
        # seeds are in scope wherever they lead, but for an exclude
        assert await sweeper.count(scope("/even/**")) == {
            "queued_dropped": 1, "denied_back": 4, "judged": 15, "complete": True,
        }  # fmt: skip
        assert await engine.frontier.totals() == before
        assert virtual_loop().time() < 1.0

    run(main())
