"""The SQLite frontier and the one in memory return the same for the same calls."""

import asyncio
from dataclasses import replace
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from crawler.core.enums import DenyReason, ErrorType, SinkFileState, Source, TaskKind, UrlState
from crawler.core.models import (
    UNTIL_EVENT,
    Backoff,
    Counters,
    Denied,
    Failed,
    HostReadiness,
    NotModified,
    Outcome,
    PageHistory,
    RecordLocation,
    Redirected,
    RobotsRecord,
    Settlement,
    SinkFile,
    SitemapHint,
    Task,
)
from crawler.core.url import kind_key_of, name_hash, registrable_domain
from crawler.engine.operations import requeue
from crawler.frontier.base import Entered, Frontier, HostCount, Leaving, UrlSelection, Wanted
from crawler.frontier.sqlite.store import SqliteFrontier
from tests.support.frontiers import (
    NOW,
    batch,
    fast_folder,
    find_host,
    found,
    postgresql_store,
    response,
    takedowns,
    visit,
)
from tests.support.memory_frontier import MemoryFrontier

HOSTS = ("a.example", "b.example", "www.b.example", "192.0.2.7")
TIMES = st.integers(0, 20).map(lambda n: NOW + n)
URLS = st.builds(
    lambda scheme, host, page, depth, priority, source, kind, hint: replace(
        found(f"{scheme}://{host}/{page}", depth=depth, priority=priority, source=source),
        kind=kind,
        key=kind_key_of(f"{scheme}://{host}/{page}", kind),
        hint=hint,
    ),
    st.sampled_from(("https", "http")),
    st.sampled_from(HOSTS),
    st.integers(0, 15),
    st.integers(0, 2),
    st.integers(-1, 1),
    st.sampled_from(Source),
    st.sampled_from((TaskKind.PAGE, TaskKind.PAGE, TaskKind.SITEMAP)),
    st.sampled_from((None, None, SitemapHint(0.5, NOW), SitemapHint(None, NOW + 1))),
)
HISTORIES = st.one_of(
    st.none(),
    st.builds(
        PageHistory,
        st.one_of(st.none(), TIMES),
        st.sampled_from((None, 0.5)),
        st.sampled_from((None, 60.0)),
        st.integers(0, 2),
        st.integers(0, 2),
    ),
)
STATES = [state for state in UrlState if state is not UrlState.FORGOTTEN]
OUTCOMES: st.SearchStrategy[Outcome] = st.sampled_from(
    (
        response(),
        response(fields=(("etag", '"1"'), ("last-modified", "Mon"))),
        response(404),
        NotModified(response(304, fields=(("etag", '"2"'),))),
        Redirected(response(301), "https://b.example/1"),
        Failed(ErrorType.RESET, "gone \udce4", retryable=True),
        Denied(DenyReason.SCOPE_HOST, "not in scope"),
    )
)
ROBOTS = st.builds(
    RobotsRecord,
    st.sampled_from(("rules", "allow", "unreachable")),
    st.sampled_from((200, None)),
    st.sampled_from((b"\xff\x00", None)),
    TIMES,
    TIMES,
)
# Of the tasks taken at that moment, the one at this place (modulo their number) ends so.
VISITS = st.tuples(
    st.integers(0, 30),
    OUTCOMES,
    st.sampled_from(STATES),
    TIMES,
    st.lists(URLS, max_size=4),
    st.booleans(),
    st.sampled_from((None, "sha256:A", "sha256:B")),
    HISTORIES,
)
PARKED = (None, "blocked", "limit", "traps", "backoff", "robots")
NAMES = st.lists(st.sampled_from(("b.example", "never.example")), max_size=1)
STEPS = st.one_of(
    st.tuples(st.just("add"), st.lists(URLS, max_size=6)),
    st.tuples(
        st.just("settle"),
        st.lists(VISITS, max_size=5),
        st.one_of(st.none(), ROBOTS),
        st.lists(
            st.builds(Backoff, st.sampled_from(HOSTS), st.sampled_from((0, NOW)), st.integers(1, 3), st.just("503")),
            max_size=3,
        ),
        TIMES,
    ),
    st.tuples(
        st.just("requeue"),
        st.sampled_from(
            (
                UrlSelection(errors=("reset",)),
                UrlSelection(errors=("scope_host",)),
                UrlSelection(statuses=(404,)),
                UrlSelection(statuses=(200, 304), host_ids=(1, 3)),
                UrlSelection(("reset", "scope_host"), host_ids=()),
            )
        ),
        st.booleans(),
    ),
    st.tuples(st.just("forget"), URLS, st.sampled_from((False, False, True))),
    st.tuples(st.just("promote"), TIMES, st.integers(1, 4), st.booleans()),
    st.tuples(st.just("file"), st.sampled_from("12"), st.sampled_from(SinkFileState), st.integers(0, 99)),
    st.tuples(st.just("refused"), st.integers(0, 30)),
    st.tuples(
        st.just("exchange"),
        st.builds(Wanted, TIMES, st.integers(0, 3), st.integers(1, 2), NAMES, st.lists(st.integers(1, 5), max_size=1)),
        st.lists(st.tuples(st.integers(0, 9), TIMES, st.sampled_from(PARKED)), max_size=2),  # keys that leave
        st.integers(0, 9),  # a key that stays, and whose other hosts are to enter
    ),
    st.tuples(st.just("unpark"), st.sampled_from(PARKED[1:]), TIMES, st.sampled_from((None, (1, 3)))),
    st.tuples(st.just("reopen"), st.booleans()),
)


class InMemory:
    """A frontier, and which keys and hosts its crawl has in memory: id of a key → ids of its hosts."""

    def __init__(self, frontier: Frontier) -> None:
        self.frontier = frontier
        self.keys: dict[int, set[int]] = {}
        self.counts: dict[int, HostCount] = {}

    def take_counts(self) -> dict[int, HostCount]:
        """The hosts with queued URLs, by what was taken so far."""
        self.counts |= self.frontier.take_counts()
        return {host_id: count for host_id, count in self.counts.items() if count.queued}

    async def exchange(self, wanted: Wanted, leaves: list[tuple[int, float, str | None]], stays: int) -> Entered:
        hosts: list[HostReadiness] = []
        keys: dict[int, tuple[int, float | None, float]] = {}
        needed = {name_hash(registrable_domain(row.origin.host))
                  for row in await self.frontier.host_rows_of(wanted.host_ids)}  # fmt: skip
        active = sorted(self.keys.keys() - needed)
        for place, at, parked in leaves if active else ():
            key_id = active[place % len(active)]
            if key_id in keys:
                continue
            ready_at = UNTIL_EVENT if parked in ("blocked", "limit", "traps") else at
            hosts += [HostReadiness(id_, ready_at, parked, place % 2, "reset", place > 4) for id_ in self.keys[key_id]]
            keys[key_id] = (key_id, at if place % 3 else None, at)
        others = sorted(self.keys.keys() - keys.keys())
        more = {} if not others else {(key_id := others[stays % len(others)]): sorted(self.keys[key_id])}
        entered = await self.frontier.exchange(Leaving(hosts, list(keys.values())), replace(wanted, more=more))
        for key_id in keys:
            del self.keys[key_id]
        for key in entered.keys:
            self.keys[key.id] = {row.id for row in key.hosts}
        for key_id, (rows, _) in entered.more.items():
            self.keys[key_id] |= {row.id for row in rows}
        for row in entered.hosts:
            self.keys[name_hash(registrable_domain(row.origin.host))].add(row.id)
        return replace(entered, keys=sorted(entered.keys, key=lambda key: key.id), more=dict(entered.more))


async def taken(frontier: Frontier) -> list[tuple[int, Task]]:
    hosts = (frontier.totals()).hosts
    return [
        (host_id, task) for host_id in range(1, hosts + 1) for task in await frontier.take(host_id, 9, leased=(2, 5))
    ]


async def run(memory: InMemory, step: tuple[Any, ...]) -> Any:
    """Run one step. Returns all that a caller can see of it."""
    frontier = memory.frontier
    match step:
        case ("exchange", wanted, leaves, stays):
            entered = await memory.exchange(wanted, leaves, stays)
            return entered.keys, entered.more, list(entered.hosts), entered.next_at
        case ("unpark", parked, at, host_ids):
            return await frontier.unpark(parked, at=at, host_ids=host_ids)
        case ("add", urls):
            receipt = await frontier.add(urls, now=NOW)
            return list(receipt.links_new), receipt.queued, list(receipt.hosts)
        case ("settle", visits, robots, backoffs, schedule_at):
            tasks = await taken(frontier)
            settled: dict[int, Settlement] = {}
            written: dict[int, RecordLocation | None] = {}
            for place, outcome, state, at, urls, is_written, digest, history in visits if tasks else ():
                host_id, task = tasks[place % len(tasks)]
                settled[task.id] = visit(
                    task,
                    outcome,
                    host_id=host_id,
                    state=state,
                    next_at=at,
                    discovered=tuple(urls),
                    finished_at=at,
                    digest=digest,
                    history=history,
                )
                written[task.id] = RecordLocation("w", place) if is_written else None
            if robots is not None and (frontier.totals()).hosts:
                settled[0] = visit(Task(0, "robots", TaskKind.ROBOTS), robots=robots)
                written[0] = None
            receipt = await frontier.settle(
                batch(
                    *settled.values(),
                    written=written.values(),
                    backoffs=backoffs,
                    sink_files=[SinkFile("warc", "w", SinkFileState.OPEN, len(visits))],
                    counters=Counters(pages=len(visits)) if visits else None,
                    scope_hosts=[backoff.key for backoff in backoffs],
                    hint_after_s=5.0 if len(visits) % 2 else None,
                    schedule_at=schedule_at,
                    requested=[(key_id, schedule_at) for key_id in sorted(memory.keys)[:1]],
                )
            )
            return list(receipt.links_new), receipt.queued, list(receipt.hosts)
        case ("requeue", ending, dry_run):
            return await requeue(frontier, ending, dry_run=dry_run)
        case ("forget", one, whole_host):
            if whole_host:
                return await frontier.forget_host(one.origin.host, now=NOW)
            return await frontier.forget_url(one.url, now=NOW), await takedowns(frontier)
        case ("promote", now, limit, revisits):
            return await frontier.promote(now=now, limit=limit, revisits=revisits)
        case ("file", name, state, size):
            return await frontier.record_sink_files([SinkFile("pages", name, state, size)])
        case ("refused", place):
            tasks = await taken(frontier)
            good = [visit(task, host_id=host_id) for host_id, task in tasks[place % len(tasks) :][:1]] if tasks else []
            bad = visit(Task(1_000, "https://a.example/no"))
            try:
                await frontier.settle(batch(*good, bad, backoffs=[Backoff("r", NOW, 1, "429")]))
            except ValueError:
                return "refused"
        case ("reopen", clean):
            await frontier.close(clean=clean)
            memory.keys.clear()
            return await frontier.open()
    raise AssertionError(step)


async def look(memory: InMemory) -> Any:
    """The results of calls that are possible at any time."""
    frontier = memory.frontier
    origins = [found(f"{scheme}://{host}/").origin for scheme in ("http", "https") for host in HOSTS]
    hosts = [await find_host(frontier, origin) for origin in origins]
    versions = [await frontier.robots_versions(host_id) for host_id in range(1, 9)]
    due = await frontier.next_due(), await frontier.next_due(revisits=True)
    learned = await frontier.visited_pages(blocks=2, rows=2, phase=0.5)
    counts = memory.take_counts(), await frontier.parked()
    return frontier.totals(), counts, due, await taken(frontier), hosts, versions, learned


async def compare(store: Frontier, steps: list[tuple[Any, ...]]) -> None:
    frontiers: tuple[Frontier, Frontier] = (store, MemoryFrontier())
    for frontier in frontiers:
        await frontier.open()
    try:
        crawls = [InMemory(frontier) for frontier in frontiers]
        for step in [*steps, ("reopen", True)]:
            stored, memory = [(await run(crawl, step), await look(crawl)) for crawl in crawls]
            assert stored == memory, step
    finally:
        for frontier in frontiers:
            await frontier.close(clean=True)


@settings(deadline=None, max_examples=120, derandomize=True)
@given(st.lists(STEPS, max_size=25))
def test_both_frontiers_return_the_same(steps: list[tuple[Any, ...]]) -> None:
    """For any sequence of adding, settling, promoting, refusals and reopening."""
    with fast_folder() as folder:
        asyncio.run(compare(SqliteFrontier(folder / "frontier.db"), steps))


@settings(deadline=None, max_examples=12, derandomize=True)
@given(st.lists(STEPS, max_size=12))
def test_a_database_returns_the_same(steps: list[tuple[Any, ...]]) -> None:
    """As the frontier in memory, which the other one is compared with."""
    with fast_folder() as folder:
        asyncio.run(compare(postgresql_store(folder).make(), steps))
