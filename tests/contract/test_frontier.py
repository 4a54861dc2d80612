"""The contract of frontiers (crawler/frontier/base.py), tested on each of them."""

from collections.abc import Iterator, Sequence
from dataclasses import replace

import pytest

from crawler.core.enums import (
    DenyReason,
    ErrorType,
    SinkFileState,
    Source,
    TaskKind,
    TruncatedReason,
    UrlState,
)
from crawler.core.models import (
    Backoff,
    Counters,
    Denied,
    Discovered,
    Failed,
    HostReadiness,
    HostRow,
    HostTemplates,
    NotModified,
    Origin,
    Outcome,
    PageHistory,
    PageNote,
    RecordLocation,
    Redirected,
    RobotsRecord,
    Round,
    RoundCounts,
    SampledPage,
    SinkFile,
    SitemapHint,
    SlowResponse,
    Suspects,
    Task,
    TemplateRow,
)
from crawler.core.url import kind_key_of
from crawler.core.url_templates import ERROR_PAGE_LINKS
from crawler.engine.operations import requeue
from crawler.frontier.base import (
    Batch,
    BlockedHost,
    Forgotten,
    Frontier,
    FrontierLocked,
    HostsBelow,
    HostSearch,
    Leaving,
    Receipt,
    Sweep,
    Totals,
    UrlRow,
    UrlSelection,
    Wanted,
)
from tests.support.frontiers import (
    NOW,
    STORES,
    Store,
    batch,
    fast_folder,
    find_host,
    found,
    links,
    response,
    takedowns,
    visit,
)

A = Origin("https", "a.example", 443)
FAILED = Failed(ErrorType.READ_TIMEOUT, "no byte for 30 s", retryable=True)
DENIED = Denied(DenyReason.ROBOTS, "Disallow: /x")
WARC = SinkFile("warc", "a.warc.gz", SinkFileState.OPEN, 100)


@pytest.fixture(params=STORES)
def store(request: pytest.FixtureRequest) -> Iterator[Store]:
    with fast_folder() as folder:
        yield STORES[request.param](folder)


async def take(frontier: Frontier, host_id: int = 1, limit: int = 100, leased: tuple[int, ...] = ()) -> list[Task]:
    return await frontier.take(host_id, limit, leased=leased)


async def take_urls(frontier: Frontier, host_id: int = 1) -> list[str]:
    return [task.url for task in await take(frontier, host_id)]


async def add(frontier: Frontier, *urls: str) -> Receipt:
    return await frontier.add([found(url) for url in urls], now=NOW)


async def added(frontier: Frontier, *urls: str) -> list[Task]:
    """The tasks of URLs of one host, in the given order."""
    await add(frontier, *urls)
    tasks = {task.url: task for task in await frontier.take(1, 100, leased=())}
    return [tasks[url] for url in urls]


async def host(frontier: Frontier, origin: Origin = A) -> HostRow:
    row = await find_host(frontier, origin)
    assert row is not None
    return row


async def every_host(frontier: Frontier) -> list[HostRow]:
    return await frontier.host_rows(after=0, limit=100)


def slice_of(monkeypatch: pytest.MonkeyPatch, urls: int) -> None:
    """Let each slice of a long change have so many URLs."""
    for writer in ("sqlite.writer.REQUEUE_SLICE", "postgresql.maintenance.REQUEUE_SLICE"):
        monkeypatch.setattr(f"crawler.frontier.{writer}", urls)


# -- opening and closing


async def test_a_new_store_is_empty_and_clean(store: Store) -> None:
    """There is nothing to recover, and no key backs off."""
    async with store.opened() as (frontier, recovered):
        assert recovered.clean
        assert (recovered.hosts, recovered.backoffs, recovered.sink_files, recovered.scope_hosts) == (0, 0, (), ())
        assert recovered.counters == Counters()
        assert frontier.totals() == Totals(0, 0, 0, 0, 0, 0)
        assert await frontier.next_due() is None


@pytest.mark.parametrize("clean", [True, False])
async def test_the_next_open_tells_how_the_last_one_closed(store: Store, clean: bool) -> None:
    """`clean` is the argument of close."""
    async with store.opened(clean=clean):
        pass
    async with store.opened() as (_, recovered):
        assert recovered.clean is clean


async def test_a_second_owner_is_refused_with_the_name_of_the_first(store: Store) -> None:
    """Two crawlers on one store would undo each other's work."""
    async with store.opened():
        second = store.make()
        with pytest.raises((FrontierLocked, RuntimeError)):
            await second.open()


async def test_calls_need_an_open_frontier(store: Store) -> None:
    """Neither before open nor after close; closing again does nothing."""
    frontier = store.make()
    with pytest.raises(RuntimeError):
        await frontier.next_due()
    await frontier.open()
    await frontier.close(clean=True)
    await frontier.close(clean=True)
    with pytest.raises(RuntimeError):
        await take(frontier)


async def test_everything_is_there_after_reopening(store: Store) -> None:
    """URLs, hosts, robots, back-offs, files, counters and scope are as before."""
    robots = RobotsRecord("rules", 200, b"User-agent: *\nDisallow: /x\n", NOW, NOW + 86_400, 2.5, None)
    rest = Backoff("a.example", NOW + 60, 2, "429")
    counters = Counters(urls_fetched=1, bytes=25)
    async with store.opened() as (frontier, _):
        await add(frontier, "https://a.example/")
        (task,) = await take(frontier)
        await frontier.settle(
            batch(
                visit(task, discovered=links("https://a.example/b", "https://b.example/")),
                visit(Task(0, "https://a.example/robots.txt", TaskKind.ROBOTS), robots=robots),
                sink_files=[WARC],
                backoffs=[rest],
                counters=counters,
                scope_hosts=["www.a.example", "a.example"],
            )
        )
        totals = frontier.totals()
    async with store.opened() as (frontier, recovered):
        assert (
            frontier.totals()
            == totals
            == Totals(queued=2, waiting=0, done=1, denied=0, gave_up=0, hosts=2, hosts_with_work=2)
        )
        assert recovered.backoffs == 1
        assert recovered.hosts == 2
        assert recovered.sink_files == (WARC,)
        assert recovered.counters == counters
        assert recovered.scope_hosts == ("a.example", "www.a.example")
        first, second = await every_host(frontier)
        assert first == HostRow(1, A, first.slot, 1, 1, replace(robots, body=None), NOW)
        assert (second.id, second.origin.host, second.queued, second.robots) == (2, "b.example", 1, None)
        assert await take_urls(frontier) == ["https://a.example/b"]


# -- seeds and discoveries


async def test_a_seed_is_new_once(store: Store) -> None:
    """Twice in one call or again later: it counts once."""
    async with store.opened() as (frontier, _):
        receipt = await add(frontier, "https://a.example/", "https://b.example/", "https://a.example/")
        assert list(receipt.links_new) == [1, 1, 0]
        assert receipt.queued == {1: 1, 2: 1}
        assert [(row.id, row.origin.host, row.queued) for row in receipt.hosts] == [
            (1, "a.example", 1),
            (2, "b.example", 1),
        ]
        again = await add(frontier, "https://b.example/", "https://b.example/2")
        assert (list(again.links_new), again.queued, list(again.hosts)) == ([0, 1], {2: 1}, [])


async def test_an_origin_is_a_scheme_a_host_and_a_port(store: Store) -> None:
    """Each has a row of its own; one registrable domain has one slot."""
    async with store.opened() as (frontier, _):
        receipt = await add(frontier, "https://a.example/", "http://a.example/", "https://a.example:8443/")
        assert [row.id for row in receipt.hosts] == [1, 2, 3]
        assert {row.slot for row in receipt.hosts} == {receipt.hosts[0].slot}
        assert await take_urls(frontier, 3) == ["https://a.example:8443/"]
        assert await find_host(frontier, Origin("http", "a.example", 443)) is None
        assert (await host(frontier, Origin("http", "a.example", 80))).id == 2


async def test_the_same_key_on_two_hosts_is_two_urls(store: Store) -> None:
    """A key is unique within its origin."""
    async with store.opened() as (frontier, _):
        pair = [
            Discovered(f"https://{name}/", Origin("https", name, 443), 7, 0, "", Source.SEED)
            for name in ("a.example", "b.example")
        ]
        assert list((await frontier.add(pair, now=NOW)).links_new) == [1, 1]
        assert await take_urls(frontier, 2) == ["https://b.example/"]


@pytest.mark.parametrize("key", [-(1 << 63), (1 << 63) - 1, 0, -1])
async def test_every_64_bit_key_is_kept_exactly(store: Store, key: int) -> None:
    """A neighbouring key is another URL."""
    async with store.opened() as (frontier, _):
        keys = [key, key ^ 1, key]
        pages = [Discovered(f"https://a.example/{n}", A, k, 0, "", Source.SEED) for n, k in enumerate(keys)]
        assert list((await frontier.add(pages, now=NOW)).links_new) == [1, 1, 0]


async def test_a_link_counts_for_the_first_page_of_a_batch(store: Store) -> None:
    """`links_new` is exact for each settlement."""
    async with store.opened() as (frontier, _):
        await add(frontier, "https://a.example/1", "https://a.example/2", "https://a.example/3")
        one, two, three = await take(frontier)
        new, other = "https://a.example/new", "https://b.example/"
        receipt = await frontier.settle(
            batch(
                visit(one, discovered=links(new, "https://a.example/2", new)),
                visit(two, discovered=links(new, other, "https://a.example/4")),
                visit(three),
            )
        )
        assert list(receipt.links_new) == [1, 2, 0]
        assert receipt.queued == {1: 2, 2: 1}
        assert [(row.id, row.queued) for row in receipt.hosts] == [(2, 1)]


async def test_a_shorter_way_to_a_known_url_changes_nothing(store: Store) -> None:
    """It keeps its first depth and page."""
    async with store.opened() as (frontier, _):
        await frontier.add([found("https://a.example/deep", depth=5, source=Source.LINK)], now=NOW)
        await add(frontier, "https://a.example/deep")
        (task,) = await take(frontier)
        assert (task.depth, task.source, task.hop_path) == (5, Source.LINK, "LLLLL")


async def test_more_discoveries_than_one_statement_holds(store: Store) -> None:
    """A page with thousands of links loses none."""
    async with store.opened() as (frontier, _):
        await add(frontier, "https://a.example/")
        (task,) = await take(frontier)
        urls = [f"https://a.example/{n}" for n in range(4_321)]
        receipt = await frontier.settle(batch(visit(task, discovered=links(*urls))))
        assert list(receipt.links_new) == [4_321]
        assert [t.url for t in await take(frontier, limit=5_000)] == urls


# -- taking


async def test_a_task_has_all_fields_of_its_url(store: Store) -> None:
    """The fields of the discovery, and the URL that it was found on."""
    async with store.opened() as (frontier, _):
        await add(frontier, "https://a.example:8443/seed?q=1")
        (seed,) = await take(frontier)
        assert seed == Task(1, "https://a.example:8443/seed?q=1")
        link = found(
            "http://b.example/x?y=%2F", depth=1, source=Source.REDIRECT, hop_path="R", priority=-3, redirects=2
        )
        await frontier.settle(batch(visit(seed, discovered=(link,))))
        assert await take(frontier, 2) == [
            Task(
                2,
                "http://b.example/x?y=%2F",
                via="https://a.example:8443/seed?q=1",
                depth=1,
                hop_path="R",
                source=Source.REDIRECT,
                priority=-3,
                redirects=2,
            )
        ]


async def test_tasks_come_by_priority_then_depth_then_age(store: Store) -> None:
    """First the smaller priority, then the smaller depth, then the older URL."""
    async with store.opened() as (frontier, _):
        order = [(1, 0), (0, 2), (0, 1), (-1, 9), (0, 1), (1, 0)]
        await frontier.add(
            [found(f"https://a.example/{n}", priority=p, depth=d) for n, (p, d) in enumerate(order)], now=NOW
        )
        assert [url[-1] for url in await take_urls(frontier)] == ["3", "2", "4", "1", "0", "5"]
        assert [task.id for task in await take(frontier, limit=2)] == [4, 3]
        assert await take(frontier, limit=0) == []


async def test_leased_tasks_are_left_out(store: Store) -> None:
    """They do not count against the limit."""
    async with store.opened() as (frontier, _):
        await add(frontier, *(f"https://a.example/{n}" for n in range(5)))
        assert [task.id for task in await take(frontier, limit=2, leased=(1, 3, 99))] == [2, 4]
        assert await take(frontier, leased=(1, 2, 3, 4, 5)) == []


async def test_only_the_hosts_own_queued_urls_are_taken(store: Store) -> None:
    """No URL of another host, and no settled one."""
    async with store.opened() as (frontier, _):
        await add(frontier, *(f"https://a.example/{n}" for n in range(5)), "https://b.example/")
        tasks = await take(frontier)
        states = [UrlState.DONE, UrlState.DENIED, UrlState.GAVE_UP, UrlState.WAITING, UrlState.QUEUED]
        await frontier.settle(
            batch(*(visit(task, state=state, next_at=NOW + 9) for task, state in zip(tasks, states, strict=True)))
        )
        assert await take_urls(frontier) == ["https://a.example/4"]
        assert await take(frontier, 77) == []
        assert frontier.totals() == Totals(queued=2, waiting=1, done=1, denied=1, gave_up=1, hosts=2, hosts_with_work=2)
        assert (await host(frontier)).queued == 1


# -- visits


@pytest.mark.parametrize(
    ("outcome", "attempt"),
    [
        (response(), 2),
        (response(503), 2),
        (FAILED, 2),
        (Redirected(response(301), "https://b.example/"), 2),
        (DENIED, 1),
    ],
)
async def test_attempts_are_counted_without_refusals(store: Store, outcome: Outcome, attempt: int) -> None:
    """The next task has the number of its attempt."""
    async with store.opened() as (frontier, _):
        await add(frontier, "https://a.example/")
        (task,) = await take(frontier)
        await frontier.settle(batch(visit(task, outcome, state=UrlState.QUEUED)))
        (again,) = await take(frontier)
        assert (again.id, again.attempt) == (task.id, attempt)


ETAG = (("etag", '"2"'), ("last-modified", "Mon"))


@pytest.mark.parametrize(
    ("outcome", "validators"),
    [
        (response(200, fields=ETAG), ('"2"', "Mon")),
        (response(200), (None, None)),
        (response(200, fields=(("etag", "x" * 5_000),)), (None, None)),
        (NotModified(response(304)), ('"1"', "Sun")),
        (NotModified(response(304, fields=(("etag", '"2"'),))), ('"2"', "Sun")),
        (response(200, fields=ETAG, truncated=TruncatedReason.DISCONNECT), ('"1"', "Sun")),
        (response(503, fields=ETAG), ('"1"', "Sun")),
        (Redirected(response(302, fields=ETAG), "https://b.example/"), ('"1"', "Sun")),
        (FAILED, ('"1"', "Sun")),
        (DENIED, ('"1"', "Sun")),
    ],
)
async def test_validators_are_those_of_the_last_whole_page(
    store: Store, outcome: Outcome, validators: tuple[str | None, str | None]
) -> None:
    """Those of an error page or half a page would cause a false 304."""
    async with store.opened() as (frontier, _):
        await add(frontier, "https://a.example/")
        (task,) = await take(frontier)
        assert (task.etag, task.last_modified) == (None, None)
        known = response(fields=(("etag", '"1"'), ("last-modified", "Sun")))
        await frontier.settle(batch(visit(task, known, state=UrlState.QUEUED)))
        (task,) = await take(frontier)
        assert (task.etag, task.last_modified) == ('"1"', "Sun")
        await frontier.settle(batch(visit(task, outcome, state=UrlState.QUEUED)))
        (task,) = await take(frontier)
        assert (task.etag, task.last_modified) == validators


@pytest.mark.parametrize(
    ("outcome", "attempt", "kind", "fetched"),
    [
        (response(), 1, TaskKind.PAGE, 1),
        (FAILED, 1, TaskKind.PAGE, 1),
        (response(404), 1, TaskKind.PAGE, 1),
        (response(), 2, TaskKind.PAGE, 0),
        (DENIED, 1, TaskKind.PAGE, 0),
        (response(), 1, TaskKind.ROBOTS, 0),
    ],
)
async def test_a_host_counts_the_first_attempts_of_its_pages(
    store: Store, outcome: Outcome, attempt: int, kind: TaskKind, fetched: int
) -> None:
    """Retries, refusals and robots.txt do not count against a limit on URLs."""
    async with store.opened() as (frontier, _):
        await add(frontier, "https://a.example/")
        task = Task(0 if kind is TaskKind.ROBOTS else 1, "https://a.example/", kind, attempt=attempt)
        await frontier.settle(batch(visit(task, outcome)))
        assert (await host(frontier)).fetched == fetched


@pytest.mark.parametrize("verdict", ["rules", "allow", "unreachable"])
async def test_a_robots_verdict_is_kept_with_the_host(store: Store, verdict: str) -> None:
    """The newest counts, with all fields; its text is separate; no URL changes."""
    old = RobotsRecord("rules", 200, b"old", NOW - 9, NOW)
    text = b"\x00\xff" if verdict == "rules" else None
    new = RobotsRecord(verdict, 503, text, NOW, NOW + 5.5, 1.5, NOW - 1, "reset")
    async with store.opened() as (frontier, _):
        await add(frontier, "https://a.example/")
        task = Task(0, "https://a.example/robots.txt", TaskKind.ROBOTS)
        before = frontier.totals()
        await frontier.settle(batch(visit(task, robots=old), visit(task, FAILED, robots=new)))
        row = await host(frontier)
        assert row.robots == replace(new, body=None)
        assert await frontier.robots_body(row.id) == new.body
        assert (frontier.totals(), row.queued) == (before, 1)


async def test_the_text_of_robots_txt_stays_without_a_new_one(store: Store) -> None:
    """A record with verdict "rules" and no text keeps the stored text."""
    known = RobotsRecord("rules", 200, b"text", NOW - 9, NOW)
    stale = replace(known, body=None, expires_at=NOW + 60, failing_since=NOW)
    async with store.opened() as (frontier, _):
        await add(frontier, "https://a.example/")
        task = Task(0, "https://a.example/robots.txt", TaskKind.ROBOTS)
        await frontier.settle(batch(visit(task, robots=known)))
        await frontier.settle(batch(visit(task, FAILED, robots=stale)))
        row = await host(frontier)
        assert row.robots == stale
        assert await frontier.robots_body(row.id) == b"text"


async def test_a_backoff_is_kept_until_it_ends(store: Store) -> None:
    """Until then the last one counts, also after a restart."""
    async with store.opened() as (frontier, _):
        backoffs = [Backoff("a", NOW, 1, "503"), Backoff("b", NOW, 1, "429"), Backoff("a", NOW + 5, 2, "503")]
        await frontier.settle(batch(backoffs=backoffs))
    async with store.opened() as (frontier, recovered):
        assert recovered.backoffs == 2
        entered = await frontier.exchange(Leaving(), Wanted(names=["a", "b", "c"]))
        assert [one.backoff for one in entered.keys] == [backoffs[2], backoffs[1], None]
        await frontier.settle(batch(backoffs=[Backoff("a", 0, 0, ""), Backoff("never", 0, 0, "")]))
    async with store.opened() as (_, recovered):
        assert recovered.backoffs == 1


async def test_counters_stay_when_a_batch_has_none(store: Store) -> None:
    """A batch without counters does not reset them."""
    async with store.opened() as (frontier, _):
        await frontier.settle(batch(counters=Counters(pages=5)))
        await frontier.settle(batch())
    async with store.opened() as (_, recovered):
        assert recovered.counters == Counters(pages=5)


async def test_every_output_file_is_known_after_a_start(store: Store) -> None:
    """Each with its last state and length; closed ones too, or they would count as unknown."""
    async with store.opened() as (frontier, _):
        opened = [SinkFile(sink, "1", SinkFileState.OPEN, 0) for sink in ("warc", "pages")]
        await frontier.record_sink_files(opened)
        closing = SinkFile("warc", "1", SinkFileState.CLOSING, 70)
        await frontier.settle(batch(sink_files=[closing]))
    async with store.opened() as (frontier, recovered):
        assert recovered.sink_files == (closing, opened[1])
        closed = SinkFile("warc", "1", SinkFileState.CLOSED, 70)
        await frontier.record_sink_files([closed])
    async with store.opened() as (frontier, recovered):
        assert recovered.sink_files == (closed, opened[1])
        assert not recovered.is_restored
        await frontier.clear_restored()


# -- waiting


async def test_waiting_urls_are_queued_when_due_the_longest_due_first(store: Store) -> None:
    """`next_due` is the time of the next one; an earlier call promotes nothing."""
    async with store.opened() as (frontier, _):
        await add(frontier, *(f"https://a.example/{n}" for n in range(3)), "https://b.example/")
        tasks = [*await take(frontier), *await take(frontier, 2)]
        due = [NOW + 30, NOW + 10, NOW + 20, NOW + 10.5]
        await frontier.settle(
            batch(
                *(
                    visit(task, FAILED, host_id=1 + (task.id == 4), state=UrlState.WAITING, next_at=at)
                    for task, at in zip(tasks, due, strict=True)
                )
            )
        )
        assert await frontier.next_due() == NOW + 10
        assert await frontier.promote(now=NOW + 9.9) == {}
        assert await frontier.promote(now=NOW + 10) == {1: 1}
        assert [(t.id, t.attempt) for t in await take(frontier)] == [(2, 2)]
        assert (await host(frontier)).queued == 1
        assert await frontier.next_due() == NOW + 10.5
        assert await frontier.promote(now=NOW + 99, limit=2) == {1: 1, 2: 1}
        assert await frontier.next_due() == NOW + 30
        assert await frontier.promote(now=NOW + 99) == {1: 1}
        assert await frontier.next_due() is None
        assert frontier.totals() == Totals(queued=4, waiting=0, done=0, denied=0, gave_up=0, hosts=2, hosts_with_work=2)


async def test_a_queued_url_is_never_due(store: Store) -> None:
    """It may be taken now; a due time would queue it twice."""
    async with store.opened() as (frontier, _):
        await add(frontier, "https://a.example/")
        (task,) = await take(frontier)
        await frontier.settle(batch(visit(task, state=UrlState.QUEUED, next_at=NOW)))
        assert await frontier.next_due() is None
        assert await frontier.promote(now=NOW + 99) == {}


# -- revisits

LEARNED_WELL = PageHistory(change_a=1.5, change_t=86_400.0, in_links=7)
VISITED_PAGES = PageHistory(changed_at=NOW - 9, change_a=1.5, change_t=86_400.0, gone_count=1, in_links=7)


@pytest.mark.parametrize("state", [UrlState.DONE, UrlState.GAVE_UP])
async def test_a_revisit_has_the_results_of_earlier_visits(store: Store, state: UrlState) -> None:
    """Attempts start over; the task has validators, digest and history."""
    first = response(fields=(("etag", '"1"'), ("last-modified", "Mon")))
    async with store.opened() as (frontier, _):
        await add(frontier, "https://a.example/")
        (task,) = await take(frontier)
        assert (task.is_revisit, task.visits, task.history, task.digest) == (False, 0, None, None)
        await frontier.settle(batch(visit(task, FAILED, state=UrlState.WAITING, next_at=NOW)))
        await frontier.promote(now=NOW)
        (task,) = await take(frontier)
        assert (task.attempt, task.is_revisit, task.visited_at) == (2, False, None)
        await frontier.settle(
            batch(visit(task, first, state=state, next_at=NOW + 60, digest="sha256:A", history=VISITED_PAGES))
        )
        assert (await host(frontier)).queued == 0
        assert (await frontier.next_due(), await frontier.next_due(revisits=True)) == (None, NOW + 60)
        assert await frontier.promote(now=NOW + 60) == {}
        assert await frontier.promote(now=NOW + 60, limit=0, revisits=True) == {}
        assert await frontier.promote(now=NOW + 60, limit=9, revisits=True) == {1: 1}
        assert await frontier.next_due(revisits=True) is None
        assert (await host(frontier)).queued == 1
    async with store.opened() as (frontier, _):
        (task,) = await take(frontier)
        assert (task.is_revisit, task.visits, task.attempt, task.visited_at) == (True, 1, 1, NOW)
        assert (task.etag, task.last_modified, task.digest, task.history) == ('"1"', "Mon", "sha256:A", VISITED_PAGES)
        changed = PageHistory(change_a=2.0, in_links=8)
        await frontier.settle(batch(visit(task, next_at=NOW + 90, history=changed)))
        await frontier.promote(now=NOW + 90, limit=9, revisits=True)
        (task,) = await take(frontier)
        assert (task.visits, task.digest, task.etag) == (2, "sha256:A", None)
        assert task.history == PageHistory(NOW - 9, 2.0, 86_400.0, 0, 8)  # what is None stays


async def test_a_revisit_is_no_new_url(store: Store) -> None:
    """`fetched` of its host counts URLs: revisits do not count against limits on URLs."""
    async with store.opened() as (frontier, _):
        await add(frontier, "https://a.example/")
        for n in range(3):
            (task,) = await take(frontier)
            await frontier.settle(batch(visit(task, next_at=NOW + n)))
            await frontier.promote(now=NOW + n, limit=9, revisits=True)
        assert (await host(frontier)).fetched == 1


async def test_a_url_without_a_due_time_is_not_revisited(store: Store) -> None:
    """So a single crawl ends."""
    async with store.opened() as (frontier, _):
        await add(frontier, "https://a.example/")
        (task,) = await take(frontier)
        await frontier.settle(batch(visit(task)))
        assert await frontier.next_due(revisits=True) is None
        assert await frontier.promote(now=NOW + 99, limit=9, revisits=True) == {}


async def test_a_url_is_known_once_for_each_kind(store: Store) -> None:
    """/sitemap.xml may be linked as a page too."""
    url = "https://a.example/sitemap.xml"
    kinds = list(TaskKind)
    urls = [replace(found(url), kind=kind, key=kind_key_of(url, kind)) for kind in kinds]
    async with store.opened() as (frontier, _):
        assert list((await frontier.add([*urls, *urls], now=NOW)).links_new) == [1] * len(kinds) + [0] * len(kinds)
    async with store.opened() as (frontier, _):
        assert [(task.kind, task.url) for task in await take(frontier)] == [(kind, url) for kind in kinds]


async def test_a_task_has_the_hints_of_a_sitemap(store: Store) -> None:
    """Of a new URL and of a known one; the newest is kept, and a link without hints changes none."""
    if not store.hints_known_urls:
        pytest.skip("a filter cannot find the row of a known URL")
    first, second = SitemapHint(0.8, NOW - 99), SitemapHint(None, NOW - 9)
    async with store.opened() as (frontier, _):
        await add(frontier, "https://a.example/", "https://a.example/no")
        (task, *_) = await take(frontier)
        hinted = [replace(one, hint=first) for one in links("https://a.example/new", "https://a.example/")]
        await frontier.settle(batch(visit(task, discovered=tuple(hinted), next_at=NOW + 1)))
        await frontier.add([replace(hinted[1], hint=second), *links("https://a.example/new")], now=NOW)
        await frontier.promote(now=NOW + 1, limit=9, revisits=True)
        assert {task.url[17:]: task.hint for task in await take(frontier)} == {"/": second, "/no": None, "/new": first}


async def test_a_sitemap_brings_a_revisit_forward(store: Store) -> None:
    """If the page changed after its last visit, and no sooner than `hint_after_s` after that."""
    if not store.hints_known_urls:
        pytest.skip("a filter cannot find the row of a known URL")
    names = ("changed", "old", "future", "silent", "sooner", "new")
    urls = [f"https://a.example/{name}" for name in names]
    async with store.opened() as (frontier, _):
        await add(frontier, "https://a.example/", *urls[:-1])
        root, *tasks = await take(frontier)
        due = [NOW + 50 if task.url.endswith("sooner") else NOW + 9_000 for task in tasks]
        await frontier.settle(batch(*(visit(task, next_at=at) for task, at in zip(tasks, due, strict=True))))
        says = dict(zip(names, (NOW + 1, NOW - 1, NOW + 1e9, None, NOW + 1, NOW + 1), strict=True))
        hinted = [replace(one, hint=SitemapHint(None, says[one.url[18:]])) for one in links(*urls)]
        told = replace(batch(replace(visit(root, discovered=tuple(hinted)), finished_at=NOW + 10)), hint_after_s=100.0)
        assert (await frontier.settle(told)).links_new == [1]
        assert await frontier.next_due(revisits=True) == NOW + 50
        await frontier.promote(now=NOW + 100, limit=9, revisits=True)
        assert {task.url[18:] for task in await take(frontier) if task.is_revisit} == {"changed", "future", "sooner"}
        assert await frontier.next_due(revisits=True) == NOW + 9_000


async def test_hints_bring_nothing_forward_without_hint_after_s(store: Store) -> None:
    """Without recrawl they are stored only."""
    async with store.opened() as (frontier, _):
        await add(frontier, "https://a.example/", "https://a.example/x")
        root, task = await take(frontier)
        await frontier.settle(batch(visit(task, next_at=NOW + 9_000)))
        (link,) = links("https://a.example/x")
        await frontier.settle(batch(visit(root, discovered=(replace(link, hint=SitemapHint(None, NOW + 1)),))))
        assert await frontier.next_due(revisits=True) == NOW + 9_000


async def test_urls_of_a_robots_txt_are_stored_with_it(store: Store) -> None:
    """They have no `via`, since a robots.txt has no row."""
    robots = Task(0, "https://a.example/robots.txt", TaskKind.ROBOTS)
    async with store.opened() as (frontier, _):
        await add(frontier, "https://a.example/")
        named = links("https://a.example/sitemap.xml", "https://b.example/s.xml")
        receipt = await frontier.settle(batch(visit(robots), visit(robots, discovered=named)))
        assert (receipt.links_new, receipt.queued) == ([0, 2], {1: 1, 2: 1})
        assert {task.via for task in await take(frontier)} == {None}


async def test_visited_pages_with_their_histories(store: Store) -> None:
    """Those that are not gone, with a date or without: all of a small store, a sample of a large one."""
    async with store.opened() as (frontier, _):
        await add(frontier, *(f"https://a.example/{n}" for n in range(100)))
        tasks = await take(frontier, limit=100)
        visits = [visit(task, next_at=NOW + 9, history=LEARNED_WELL) for task in tasks[:90]]
        gone = visit(tasks[90], next_at=NOW + 9, history=PageHistory(gone_count=1))
        await frontier.settle(batch(*visits, gone, visit(tasks[91])))
        found = await frontier.visited_pages(blocks=4, rows=50, phase=0.0)
        assert {page.url for page in found} == {f"https://a.example/{n}" for n in (*range(90), 91)}
        assert found[0] == ("https://a.example/0", 0, 7, None, 1.5, 86_400.0)
        some = await frontier.visited_pages(blocks=4, rows=5, phase=0.5)
        assert 10 <= len(some) <= 20
        assert len({page.url for page in some}) == len(some)


async def test_pages_without_a_date_get_one(store: Store) -> None:
    """Only those whose visit ended; the position is stored."""
    async with store.opened() as (frontier, _):
        assert await frontier.dated_to() == 0
        await add(frontier, *(f"https://a.example/{n}" for n in range(6)))
        first, second, third, fourth, fifth, _ = await take(frontier)
        ends = [
            visit(first, history=LEARNED_WELL),
            visit(second, next_at=NOW + 50),
            visit(third, state=UrlState.GAVE_UP, history=PageHistory(gone_count=2)),
            visit(fourth, DENIED, state=UrlState.DENIED),
            visit(fifth),
        ]
        await frontier.settle(batch(*ends))
        pages, on = await frontier.undated(after=0, rows=3)
        assert on == 3
        found = [(page.id, page.state, page.in_links, page.gone_count) for page in pages]
        assert found == [(first.id, "done", 7, 0), (third.id, "gave_up", 0, 2)]
        assert (pages[0].url, pages[0].kind, pages[0].change_a) == (first.url, None, 1.5)
        await frontier.put_dates([(first.id, NOW + 7), (second.id, NOW), (fourth.id, NOW)], dated_to=on)
        assert await frontier.next_due(revisits=True) == NOW + 7
    async with store.opened() as (frontier, _):
        assert await frontier.dated_to() == 3
        pages, on = await frontier.undated(after=3, rows=3)
        assert ([page.id for page in pages], on) == ([fifth.id], None)
        await frontier.put_dates([], dated_to=on)
        assert await frontier.dated_to() is None
        assert await frontier.promote(now=NOW + 60, limit=9, revisits=True) == {1: 2}


async def test_values_of_the_engine_are_there_after_a_restart(store: Store) -> None:
    """The last one of each name."""
    async with store.opened() as (frontier, _):
        assert await frontier.stored_value("in_links") is None
        await frontier.store_value("in_links", b"\x00one")
        await frontier.store_value("in_links", b"\x00two")
    async with store.opened() as (frontier, _):
        assert await frontier.stored_value("in_links") == b"\x00two"
        assert await frontier.stored_value("other") is None


# -- templates and suspects


async def test_the_notes_on_url_templates_are_stored(store: Store) -> None:
    """Words of pages, numbers of pages, results of trials; only the store counts pages."""
    row = TemplateRow(1, "/a/{n}", pages=99, spent=3, good=1, since_at=NOW)
    async with store.opened() as (frontier, _):
        tasks = await added(frontier, "https://a.example/a/1", "https://a.example/a/2", "https://a.example/b")
        notes = [PageNote(words=b"\1\2\3\4", counted=("/a/**", "/**")), PageNote(counted=("/a/**", "/**")), PageNote()]
        visits = [visit(task, note=note) for task, note in zip(tasks, notes, strict=True)]
        await frontier.settle(replace(batch(*visits), templates=[row], error_pages=[(1, b"\0a")]))
        await frontier.settle(replace(batch(), templates=[replace(row, spent=4)]))
    async with store.opened() as (frontier, _):
        known = await frontier.templates_of_host(1)
        assert known.pages == (SampledPage("/a/1", b"\1\2\3\4"),)
        assert set(known.rows) == {
            TemplateRow(1, "/a/**", pages=2), TemplateRow(1, "/**", pages=2), replace(row, pages=0, spent=4)
        }  # fmt: skip
        assert (known.suspects, known.error_pages) == ((), b"\0a")
        assert await frontier.templates_of_host(7) == HostTemplates()


async def test_suspects_are_set_aside_and_queued_again_in_order(store: Store) -> None:
    """They are in no queue and have a count of their own; only queued URLs become suspects."""
    async with store.opened() as (frontier, _):
        tasks = await added(frontier, *(f"https://a.example/{n}" for n in range(5)))
        await frontier.settle(batch(visit(tasks[0])))
        aside = await frontier.make_suspects(
            1, [(task.id, "/{n}" if task.id != tasks[4].id else "/**") for task in tasks]
        )
        assert aside == [task.id for task in tasks[1:]]
        totals = frontier.totals()
        assert (totals.queued, totals.suspect, totals.done) == (0, 4, 1)
        assert await frontier.take(1, 10, leased=()) == []
    async with store.opened() as (frontier, _):
        (row,) = await every_host(frontier)
        assert (row.has_suspects, row.queued) == (True, 0)
        assert await frontier.suspects() == [
            Suspects(1, "/{n}", 3, ("https://a.example/1", "https://a.example/2")),
            Suspects(1, "/**", 1, ("https://a.example/4",)),
        ]
        assert await frontier.queue_suspects(1, "/{n}", 2) == [tasks[1].id, tasks[2].id]
        assert await frontier.queue_suspects(1, "/nothing", 2) == []
        assert [task.id for task in await frontier.take(1, 10, leased=())] == [tasks[1].id, tasks[2].id]
        assert {one.template: one.urls for one in (await frontier.templates_of_host(1)).suspects} == {
            "/{n}": 1,
            "/**": 1,
        }
        totals = frontier.totals()
        assert (totals.queued, totals.suspect) == (2, 2)


async def test_a_suspect_can_be_taken_down(store: Store) -> None:
    """It is no suspect afterwards."""
    async with store.opened() as (frontier, _):
        tasks = await added(frontier, "https://a.example/1", "https://a.example/2")
        await frontier.make_suspects(1, [(task.id, "/{n}") for task in tasks])
        await frontier.forget_url("https://a.example/1", now=NOW)
        assert [one.urls for one in await frontier.suspects()] == [1]
        await frontier.forget_host("a.example", now=NOW)
        assert await frontier.suspects() == []
        assert (frontier.totals()).suspect == 0


async def test_urls_found_on_error_pages_only_are_suspects(store: Store) -> None:
    """If they are of the same host. The receipt has new suspects and those that are none any more."""
    async with store.opened() as (frontier, _):
        first, second = await added(frontier, "https://a.example/error", "https://a.example/good")
        found_there = links("https://a.example/x", "https://a.example/y", "https://b.example/z")
        receipt = await frontier.settle(batch(visit(first, discovered=found_there, note=PageNote(is_error_page=True))))
        assert receipt.suspects == {1: [ERROR_PAGE_LINKS] * 2}
        assert {host_id: n for host_id, n in receipt.queued.items() if n} == {2: 1}
        assert receipt.links_new == [3]
        receipt = await frontier.settle(batch(visit(second, discovered=links("https://a.example/x"))))
        if store.hints_known_urls:
            assert (list(receipt.linked), receipt.queued) == ([1], {1: 1})
        left = 1 if store.hints_known_urls else 2
        assert [one.urls for one in await frontier.suspects()] == [left]
        assert (frontier.totals()).suspect == left


async def test_an_error_page_without_new_links_changes_nothing(store: Store) -> None:
    """Alone in its batch or with others."""
    async with store.opened() as (frontier, _):
        first, second = await added(frontier, "https://a.example/error", "https://a.example/good")
        known = links("https://a.example/good")
        receipt = await frontier.settle(batch(visit(first, discovered=known, note=PageNote(is_error_page=True))))
        assert (receipt.suspects, receipt.queued) == ({}, {})
        await frontier.settle(batch(visit(second)))
        assert (frontier.totals()).suspect == 0


async def test_the_receipt_has_the_new_links_of_a_trial(store: Store) -> None:
    """With their hosts: the engine decides what they mean."""
    async with store.opened() as (frontier, _):
        (task,) = await added(frontier, "https://a.example/1")
        note = PageNote(trial="/{n}")
        new = links("https://a.example/1", "https://a.example/2", "https://b.example/3?x=1")
        receipt = await frontier.settle(batch(visit(task, discovered=new, note=note)))
        assert [tuple(one[1:]) for one in receipt.trial_links[task.id]] == [(1, "/2"), (2, "/3?x=1")]
        assert receipt.suspects == {}


# -- history of robots.txt


async def test_each_version_of_a_robots_txt_is_kept(store: Store) -> None:
    """The same text or a failure is no new version; their number is bounded."""

    def says(n: int, verdict: str = "rules") -> RobotsRecord:
        body = f"Disallow: /{n}".encode() if verdict == "rules" else None
        return RobotsRecord(verdict, 200, body, NOW + n, NOW + n + 86_400)

    async def tell(frontier: Frontier, record: RobotsRecord, host_id: int = 1) -> None:
        task = Task(0, "https://a.example/robots.txt", TaskKind.ROBOTS)
        await frontier.settle(batch(visit(task, robots=record, host_id=host_id)))

    async with store.opened() as (frontier, _):
        await add(frontier, "https://a.example/", "https://b.example/")
        assert await frontier.robots_versions(1) == []
        await tell(frontier, says(0))
        await tell(frontier, replace(says(0), fetched_at=NOW + 50))
        await tell(frontier, says(1, "unreachable"))
        await tell(frontier, replace(says(0), fetched_at=NOW + 51))
        await tell(frontier, says(2, "allow"))
        await tell(frontier, says(3), host_id=2)
        newest, oldest = await frontier.robots_versions(1)
        assert (newest.verdict, newest.body, newest.fetched_at) == ("allow", None, NOW + 2)
        assert (oldest.verdict, oldest.body, oldest.fetched_at) == ("rules", b"Disallow: /0", NOW)
        assert oldest.digest != newest.digest
        for n in range(3, 40):
            await tell(frontier, says(n))
    async with store.opened() as (frontier, _):
        kept = await frontier.robots_versions(1)
        assert [version.fetched_at for version in kept] == [NOW + n for n in range(39, 19, -1)]
        assert len(await frontier.robots_versions(2)) == 1


# -- an operator's commands


@pytest.mark.parametrize("count", [3, 7])
async def test_urls_that_ended_in_an_error_are_queued_again(
    store: Store, count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """URLs that were given up or wait, with all attempts; others stay as they are."""
    slice_of(monkeypatch, 3)
    async with store.opened() as (frontier, _):
        await add(
            frontier, *(f"https://a.example/{n}" for n in range(count)), "https://b.example/", "https://c.example/"
        )
        tasks = await take(frontier)
        last = tasks.pop()
        (other,), (third,) = await take(frontier, 2), await take(frontier, 3)
        await frontier.settle(
            batch(
                *(visit(replace(task, attempt=4), FAILED, state=UrlState.GAVE_UP) for task in tasks),
                visit(last, Failed(ErrorType.RESET, "", retryable=True), state=UrlState.GAVE_UP),
                visit(replace(other, attempt=3), FAILED, host_id=2, state=UrlState.WAITING, next_at=NOW + 60),
                visit(third, DENIED, host_id=3, state=UrlState.DENIED),
            )
        )
        assert await requeue(frontier, UrlSelection(errors=("read_timeout",))) == {1: count - 1, 2: 1}
        assert await requeue(frontier, UrlSelection(errors=("read_timeout",))) == {}
        assert await frontier.next_due() is None
        assert [task.attempt for task in await take(frontier)] == [1] * (count - 1)
        assert [task.attempt for task in await take(frontier, 2)] == [2]
        assert frontier.totals() == Totals(
            queued=count, waiting=0, done=0, denied=1, gave_up=1, hosts=3, hosts_with_work=2
        )
        assert await requeue(frontier, UrlSelection(errors=("robots",))) == {3: 1}
        assert await requeue(frontier, UrlSelection(errors=("no_such_word",))) == {}
        fetched = (await host(frontier)).fetched
        await frontier.settle(batch(*(visit(task) for task in await take(frontier))))
        assert (await host(frontier)).fetched == fetched  # no URL counts twice


async def test_urls_are_queued_again_by_their_last_status(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """On all hosts or on some, also as a dry run. Tombstones are queued too, and a queued URL has no later revisit.
    URLs that were denied since, are queued already or were taken down stay as they are.
    """
    slice_of(monkeypatch, 2)
    gone = PageHistory(gone_count=3)
    async with store.opened() as (frontier, _):
        await add(frontier, *(f"https://a.example/{n}" for n in range(6)), "https://b.example/")
        one, two, three, four, five, six = await take(frontier)
        (other,) = await take(frontier, 2)
        await frontier.settle(
            batch(
                visit(one, response(404), next_at=NOW + 60, history=gone),
                visit(two, response(403)),
                visit(three),
                visit(four, response(404)),
                visit(five, response(503), state=UrlState.WAITING, next_at=NOW + 60),
                visit(six, response(404)),
                visit(other, response(410), host_id=2),
            )
        )
        assert await requeue(frontier, UrlSelection(statuses=(404,), host_ids=(1,))) == {1: 3}
        tasks = {task.id: task for task in await take(frontier)}
        assert {task.attempt for task in tasks.values()} == {1}
        assert tasks[one.id].history == gone
        await frontier.deny(1, [(four.id, DENIED)], now=NOW)
        await frontier.settle(batch(visit(tasks[one.id], response(404), next_at=NOW + 60, history=gone)))
        await frontier.forget_url(six.url, now=NOW)
        every = UrlSelection(statuses=tuple(range(400, 600)))
        before = frontier.totals()
        assert await requeue(frontier, every, dry_run=True) == {1: 3, 2: 1}
        assert frontier.totals() == before
        assert await requeue(frontier, every) == {1: 3, 2: 1}
        assert {task.id for task in await take(frontier)} == {one.id, two.id, five.id}
        assert (await frontier.next_due(), await frontier.next_due(revisits=True)) == (None, None)
        assert await requeue(frontier, every) == {}
        assert (
            await requeue(frontier, UrlSelection(errors=("robots",), statuses=(404,))) == {}
        )  # denied since it was answered
        assert await requeue(frontier, UrlSelection(statuses=(200,), host_ids=())) == {}
    async with store.opened() as (frontier, _):
        assert {task.id for task in await take(frontier)} == {one.id, two.id, five.id}


async def test_urls_in_a_lost_file_are_queued_again(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """URLs whose last record, content or line was in it, without conditions and with all attempts. Denied URLs, and
    those stored elsewhere since, stay as they are; URLs in flight or waiting lose their conditions too.
    """
    slice_of(monkeypatch, 2)
    lost, other, lines = (SinkFile("warc", name, SinkFileState.OPEN, 9) for name in ("lost.gz", "other.gz", "l.jsonl"))
    lines = replace(lines, sink="pages")
    tagged = response(fields=(("etag", '"1"'),))
    async with store.opened() as (frontier, _):
        await add(frontier, *(f"https://a.example/{n}" for n in range(6)))
        tasks = await take(frontier)
        places = [RecordLocation(lost.name, n) for n in range(5)] + [RecordLocation(other.name, 1)]
        visits = [visit(task, tagged, digest="sha256:1") for task in tasks]
        visits[4] = visit(tasks[4], DENIED, state=UrlState.DENIED)
        named = [None] * 5 + [RecordLocation(lines.name, 7)]
        await frontier.settle(batch(*visits, written=places, lines=named, sink_files=[lost, other, lines]))
        await requeue(frontier, UrlSelection(statuses=(200,)))
        tasks = await take(frontier)
        unchanged = visit(tasks[1], NotModified(response(304)))
        changed = visit(tasks[2], tagged, digest="sha256:2")
        waits = visit(tasks[3], response(503), state=UrlState.WAITING, next_at=NOW + 5)
        ended = [visit(tasks[0], tagged, digest="sha256:1"), unchanged, changed, waits, visit(tasks[4])]
        elsewhere = RecordLocation(other.name, 2)
        await frontier.settle(batch(*ended, written=[None, elsewhere, elsewhere, None, None]))
        assert await frontier.lose_file("warc", "unknown.gz") == {}
        assert await frontier.lose_file("warc", lost.name) == {1: 2}
        again = await take(frontier)
        assert [task.url[-1] for task in again] == ["0", "1"]
        assert [(task.etag, task.digest, task.attempt) for task in again] == [(None, None, 1)] * 2
        assert await frontier.lose_file("pages", lines.name) == {1: 1}
        assert [task.url[-1] for task in await take(frontier)] == ["0", "1", "5"]
        assert (frontier.totals()).denied == 1
    async with store.opened() as (frontier, recovered):
        states = {file.name: file.state for file in recovered.sink_files}
        assert states == {"lost.gz": SinkFileState.LOST, "other.gz": SinkFileState.OPEN, "l.jsonl": SinkFileState.LOST}
        assert await frontier.promote(now=NOW + 9) == {1: 1}
        [waited] = [task for task in await take(frontier) if task.url[-1] == "3"]
        assert (waited.etag, waited.digest) == (None, None)


async def test_settled_urls_are_selected_in_slices(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those that are not queued or forgotten, by state, error, status, host, and when they were visited."""
    slice_of(monkeypatch, 3)
    async with store.opened() as (frontier, _):
        await add(frontier, *(f"https://a.example/{n}" for n in range(7)), "https://b.example/")
        one, two, three, four, five, six, _ = await take(frontier)
        (other,) = await take(frontier, 2)
        settlements = [
            visit(one, next_at=NOW + 60),
            visit(two, FAILED, state=UrlState.GAVE_UP),
            visit(three, DENIED, state=UrlState.DENIED),
            visit(four, response(503), state=UrlState.WAITING, next_at=NOW + 60),
            visit(five),
            visit(six, finished_at=NOW + 11),
            visit(other, host_id=2, finished_at=NOW + 900),
        ]
        await frontier.settle(batch(*settlements))
        await frontier.forget_url(five.url, now=NOW)

        async def select(selection: UrlSelection, host_id: int | None = None) -> list[int]:
            after, ids = None, []
            for _ in range(9):
                found, after = await frontier.settled_urls(selection, after=after, host_id=host_id)
                ids += [place.id for place in found]
                assert {place.host_id for place in found} <= {1, 2}
                if after is None:
                    return sorted(ids)
            raise AssertionError("it has no end")

        assert await select(UrlSelection()) == [one.id, two.id, three.id, four.id, six.id, other.id]
        assert await select(UrlSelection(), host_id=1) == [one.id, two.id, three.id, four.id, six.id]
        ended = UrlSelection((UrlState.DONE, UrlState.GAVE_UP))
        assert await select(ended) == [one.id, two.id, six.id, other.id]
        assert await select(replace(ended, host_ids=(2,))) == [other.id]
        assert await select(replace(ended, not_visited=(NOW + 10, NOW + 20))) == [one.id, two.id, other.id]
        assert await select(replace(ended, not_visited=(NOW + 10, NOW + 999))) == [one.id, two.id]
        assert await select(UrlSelection(errors=("read_timeout",))) == [two.id]
        assert await select(UrlSelection(statuses=(503,)), host_id=1) == [four.id]
        assert await frontier.last_url_id() > other.id  # marks of what was forgotten


async def test_urls_are_queued_by_their_ids_with_all_attempts_before_them(store: Store) -> None:
    """Those in the states that are named, or in any; queued and forgotten ones stay as they are."""
    tagged = response(fields=(("etag", '"1"'),))
    async with store.opened() as (frontier, _):
        assert await frontier.last_url_id() == 0
        urls = [f"https://a.example/{n}" for n in range(6)]
        one, two, three, four, five, six = await added(frontier, *urls)
        settlements = [
            visit(one, tagged, next_at=NOW + 60),
            visit(two, FAILED, state=UrlState.GAVE_UP),
            visit(three, DENIED, state=UrlState.DENIED),
            visit(four, response(503), state=UrlState.WAITING, next_at=NOW + 60),
            visit(five),
        ]
        await frontier.settle(batch(*settlements))
        await frontier.forget_url(five.url, now=NOW)
        ids = [one.id, two.id, three.id, four.id, five.id, six.id, 999]
        assert await frontier.queue_urls(ids, states=(UrlState.DONE, UrlState.GAVE_UP)) == {1: 2}
        assert await frontier.queue_urls(ids, states=(UrlState.DONE, UrlState.GAVE_UP)) == {}
        tasks = {task.id: task for task in await take(frontier)}
        assert [(tasks[task.id].attempt, tasks[task.id].visits) for task in (one, two)] == [(1, 1), (1, 1)]
        assert tasks[one.id].etag == '"1"'
        assert await frontier.next_due(revisits=True) is None
        assert (frontier.totals().waiting, frontier.totals().denied) == (1, 1)
        assert await frontier.queue_urls(ids) == {1: 2}
        assert await frontier.next_due() is None
        assert await frontier.queue_urls([]) == {}


async def test_urls_are_known_by_their_names(store: Store) -> None:
    """In whatever state, but for those that were taken down."""
    async with store.opened() as (frontier, _):
        urls = [f"https://a.example/{n}" for n in range(3)]
        one, two, three = await added(frontier, *urls)
        await add(frontier, "https://b.example/")
        await frontier.settle(batch(visit(two)))
        await frontier.forget_url(three.url, now=NOW)
        named = [found(url) for url in [*urls, "https://b.example/", "https://a.example/no", "https://c.example/"]]
        assert sorted(await frontier.known_ids(named)) == sorted([one.id, two.id, (await take(frontier, 2))[0].id])


async def test_the_last_round_is_stored(store: Store) -> None:
    """With the counts of the transactions that store its visits; another round has none."""
    found = RoundCounts(visited=2, unchanged=1, failed=1, new=1)
    async with store.opened() as (frontier, recovered):
        assert recovered.last_round is None
        [task] = await added(frontier, "https://a.example/")
        await frontier.put_round(Round(1, NOW, last_id=7))
        await frontier.settle(batch(visit(task), round_counts=found))
        await frontier.put_round(Round(1, NOW, last_id=7, queued_to=3))  # its counts are those of another moment
    async with store.opened() as (frontier, recovered):
        assert recovered.last_round == Round(1, NOW, last_id=7, queued_to=3, counts=found)
        await frontier.put_round(replace(recovered.last_round, ended_at=NOW + 9))
    async with store.opened() as (frontier, recovered):
        assert recovered.last_round == Round(1, NOW, last_id=7, queued_to=3, ended_at=NOW + 9, counts=found)
        await frontier.put_round(Round(2, NOW + 20, last_id=8))
    async with store.opened() as (frontier, recovered):
        assert recovered.last_round == Round(2, NOW + 20, last_id=8)


async def test_a_forgotten_url_is_erased_and_never_stored_again(store: Store) -> None:
    """Neither as a link, a seed or a sitemap nor after a restart; its record is listed for removal."""
    url, sitemap = "https://a.example/secret?x", TaskKind.SITEMAP
    again = [found(url), replace(found(url), kind=sitemap, key=kind_key_of(url, sitemap))]
    async with store.opened() as (frontier, _):
        await add(frontier, url, "https://a.example/other")
        secret, other = await take(frontier)
        found_there = links("https://a.example/child")
        await frontier.settle(
            batch(visit(secret, discovered=found_there, next_at=NOW + 9), written=[RecordLocation("a.warc.gz", 7)],
                  sink_files=[WARC])
        )  # fmt: skip
        forgotten = await frontier.forget_url(url + "#part", now=NOW + 1)
        assert (forgotten.urls, forgotten.ids, forgotten.host_ids) == (1, (secret.id,), (1,))
        assert await frontier.forget_url(url, now=NOW + 2) == replace(forgotten, urls=0, ids=(), again=True)
        assert await frontier.promote(now=NOW + 99, limit=9, revisits=True) == {}
        assert list((await frontier.add(again, now=NOW)).links_new) == [0, 0]
        assert await requeue(frontier, UrlSelection(errors=("forgotten",))) == {}
    async with store.opened() as (frontier, _):
        receipt = await frontier.settle(batch(visit(other, discovered=tuple(again))))
        assert list(receipt.links_new) == [0]
        (child,) = await take(frontier)
        assert child.via == "https://a.example"  # the page it was found on has no address any more
        assert await takedowns(frontier) == [(url, "a.warc.gz", 7, NOW + 1)]
        totals = frontier.totals()
        assert (totals.queued, totals.done, (await host(frontier)).queued) == (1, 1, 1)


async def test_a_forgotten_url_counts_once(store: Store) -> None:
    """For any number of its keys: known or not, as a page and a sitemap, again, or after its host."""
    page, sitemap = "https://a.example/x", TaskKind.SITEMAP
    async with store.opened() as (frontier, _):
        await add(frontier, page, "https://a.example/y", "https://b.example/1", "https://b.example/2")
        await frontier.add([replace(found(page), kind=sitemap, key=kind_key_of(page, sitemap))], now=NOW)
        for url, count in (
            (page, 1),
            (page, 1),
            ("https://a.example/y", 2),
            ("https://a.example/never-seen", 3),
            ("https://a.example/never-seen", 3),
        ):
            await frontier.forget_url(url, now=NOW)
            assert (frontier.totals()).forgotten == count, url
        await frontier.forget_host("b.example", now=NOW)
        assert (frontier.totals()).forgotten == 5
        await frontier.forget_url("https://b.example/1", now=NOW + 1)
        assert frontier.totals() == Totals(queued=0, waiting=0, done=0, denied=0, gave_up=0, hosts=2, forgotten=5)
    async with store.opened() as (frontier, _):
        assert (frontier.totals()).forgotten == 5


async def test_a_url_can_be_forgotten_before_it_is_known(store: Store) -> None:
    """Its host becomes known, and nothing of it is queued."""
    async with store.opened() as (frontier, _):
        forgotten = await frontier.forget_url("https://new.example/x", now=NOW)
        assert (forgotten.urls, [row.id for row in forgotten.hosts]) == (0, [1])
        assert list((await add(frontier, "https://new.example/x", "https://new.example/y")).links_new) == [0, 1]
        assert not forgotten.again
        assert (await frontier.forget_url("https://new.example/x", now=NOW)).again


async def test_which_urls_were_taken_down(store: Store) -> None:
    """By themselves or with their host; unknown URLs were not."""
    urls = ["https://a.example/1", "https://a.example/2", "https://b.example/1", "https://c.example/1"]
    async with store.opened() as (frontier, _):
        await add(frontier, *urls[:2])
        await frontier.forget_url(urls[0], now=NOW)
        await frontier.forget_host("b.example", now=NOW)
        assert [one.url for one in await frontier.forgotten([found(url) for url in urls])] == [urls[0], urls[2]]
        assert await frontier.forgotten([]) == []


async def test_a_visit_of_a_forgotten_url_leaves_only_the_location_of_its_record(store: Store) -> None:
    """So that the record can be removed; the settlement itself is no error."""
    async with store.opened() as (frontier, _):
        await add(frontier, "https://a.example/1", "https://a.example/2")
        tasks = await take(frontier)
        await frontier.forget_url(tasks[0].url, now=NOW)
        visits = [visit(task, next_at=NOW + 1) for task in tasks]
        await frontier.settle(batch(*visits, written=[RecordLocation("a.warc.gz", 5), None], sink_files=[WARC]))
        assert await takedowns(frontier) == [(tasks[0].url, "a.warc.gz", 5, NOW)]
        assert await frontier.promote(now=NOW + 1, limit=9, revisits=True) == {1: 1}
        assert [task.id for task in await take(frontier)] == [tasks[1].id]


async def test_a_forgotten_host_is_closed_under_every_scheme_and_port(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its URLs are erased, in slices; no URL of it is stored again, also after a restart."""
    monkeypatch.setattr("crawler.frontier.sqlite.maintenance.ERASE_SLICE", 3)
    monkeypatch.setattr("crawler.frontier.postgresql.maintenance.ERASE_SLICE", 3)
    ours = [*(f"https://a.example/{n}" for n in range(7)), "http://a.example/", "https://a.example:8443/"]
    robots = RobotsRecord("allow", 404, None, NOW, NOW + 60)
    async with store.opened() as (frontier, _):
        await add(frontier, *ours, "https://b.example/")
        first, *_rest = await take(frontier)
        await frontier.settle(
            batch(visit(first, robots=robots), written=[RecordLocation("a.warc.gz", 5)], sink_files=[WARC])
        )
        forgotten = await frontier.forget_host("a.example", now=NOW)
        assert (forgotten.urls, forgotten.host_ids, forgotten.queued) == (9, (1, 2, 3), {1: 6, 2: 1, 3: 1})
        assert [url for url, *_ in await takedowns(frontier)] == ["https://a.example/0"]
        assert [await take(frontier, host_id) for host_id in (1, 2, 3)] == [[], [], []]
        assert await frontier.robots_versions(1) == []
    async with store.opened() as (frontier, _):
        assert [row.queued for row in await every_host(frontier)] == [0, 0, 0, 1]
        more = ["https://a.example/0", "https://a.example/new", "http://a.example:81/", "https://c.example/"]
        assert list((await add(frontier, *more)).links_new) == [0, 0, 0, 1]
        totals = frontier.totals()
        assert (totals.queued, totals.forgotten, totals.hosts) == (2, 9, 5)
        assert await frontier.forget_host("unheard.example", now=NOW) == Forgotten()
        assert await frontier.forget_host("unheard.example", now=NOW) == Forgotten(again=True)
        assert (await frontier.forget_url("https://unheard.example/x", now=NOW)).again
        assert list((await add(frontier, "https://unheard.example/")).links_new) == [0]


# -- all or nothing


def _bad_batches(task: Task, good: Task) -> dict[str, Batch]:
    first = visit(good, discovered=links("https://a.example/found", "https://new.example/"))
    more = {"backoffs": [Backoff("a", NOW, 1, "503")], "counters": Counters(pages=1), "sink_files": [WARC]}
    robots = Task(0, "https://a.example/robots.txt", TaskKind.ROBOTS)
    return {
        "an unknown url": batch(first, visit(Task(99, "https://a.example/no")), **more),
        "a url of another host": batch(first, visit(task, host_id=2), **more),
        "an unknown host": batch(first, visit(robots, host_id=99), **more),
        "an unknown file": batch(first, visit(task), written=[None, RecordLocation("no.warc.gz", 0)], **more),
        "one task twice": batch(first, visit(task), visit(task), **more),
        "taken down by a visit": batch(first, visit(task, state=UrlState.FORGOTTEN), **more),
        "waiting for nothing": batch(first, visit(task, state=UrlState.WAITING), **more),
        "a place too few": Batch([first, visit(task)], [None], **more),
    }


@pytest.mark.parametrize("fault", _bad_batches(Task(2, ""), Task(1, "")))
async def test_an_invalid_batch_stores_nothing(store: Store, fault: str) -> None:
    """Its valid settlements are not stored either; the store goes on."""
    async with store.opened() as (frontier, _):
        await add(frontier, "https://a.example/1", "https://a.example/2", "https://b.example/")
        good, task = await take(frontier)
        before = frontier.totals(), await host(frontier), await take(frontier)
        with pytest.raises(ValueError):
            await frontier.settle(_bad_batches(task, good)[fault])
        assert (frontier.totals(), await host(frontier), await take(frontier)) == before
        assert await find_host(frontier, Origin("https", "new.example", 443)) is None
        receipt = await frontier.settle(batch(visit(good, discovered=links("https://new.example/"))))
        assert (list(receipt.links_new), receipt.queued) == ([1], {3: 1})
    async with store.opened() as (frontier, recovered):
        assert (recovered.backoffs, recovered.counters, recovered.sink_files) == (0, Counters(), ())
        assert [row.id for row in await every_host(frontier)] == [1, 2, 3]


# -- judging stored URLs again


async def test_rows_are_returned_in_slices_and_in_order(store: Store) -> None:
    """Each queued or denied row of the host once, by (priority, depth, age)."""
    async with store.opened() as (frontier, _):
        urls = [found(f"https://a.example/{n}", depth=n % 3, priority=n % 2, source=Source.LINK) for n in range(10)]
        await frontier.add([*urls, found("https://b.example/")], now=NOW)
        tasks = {task.url: task for task in await take(frontier)}
        denied = visit(tasks["https://a.example/4"], Denied(DenyReason.SCOPE_EXCLUDE, "x"), state=UrlState.DENIED)
        await frontier.settle(batch(denied))
        rows = []
        while slice_ := await frontier.url_rows(1, 1, UrlState.QUEUED, after=rows[-1] if rows else None, limit=4):
            rows += slice_
        assert [row.id for row in rows] == [task.id for task in await take(frontier)]
        assert {row.url for row in rows} == {one.url for one in urls} - {"https://a.example/4"}
        assert {(row.depth, row.priority, row.source) for row in rows} >= {(0, 0, Source.LINK), (2, 1, Source.LINK)}
        (row,) = await frontier.url_rows(1, 1, UrlState.DENIED, after=None, limit=4)
        assert (row.url, row.reason) == ("https://a.example/4", "scope_exclude")
        assert await frontier.url_rows(9, 9, UrlState.QUEUED, after=None, limit=4) == []


async def test_denied_urls_are_queued_again_and_nothing_else_is(store: Store) -> None:
    """Queued, done and unknown ids change nothing; the counts are exact, also after a restart."""
    async with store.opened() as (frontier, _):
        await add(frontier, "https://a.example/1", "https://a.example/2", "https://a.example/3")
        first, second, third = await take(frontier)
        await frontier.settle(batch(visit(first, DENIED, state=UrlState.DENIED), visit(second)))
        assert await frontier.queue_urls([first.id, second.id, third.id, 999], states=(UrlState.DENIED,)) == {1: 1}
        assert await frontier.queue_urls([first.id], states=(UrlState.DENIED,)) == {}
        totals = frontier.totals()
        assert (totals.queued, totals.denied, totals.done) == (2, 0, 1)
    async with store.opened() as (frontier, _):
        assert [task.id for task in await take(frontier)] == [first.id, third.id]
        assert await frontier.url_rows(1, 1, UrlState.DENIED, after=None, limit=9) == []


async def test_blocks_are_kept_until_they_are_removed(store: Store) -> None:
    """A second block of a name may widen it and change its reason, never narrow it; its time stays."""
    block = BlockedHost("a.example", "host", NOW, "")
    wide = replace(block, kind="domain", reason="asked to")
    async with store.opened() as (frontier, _):
        assert await frontier.block(block)
        assert not await frontier.block(replace(block, at=NOW + 5.0))
        assert await frontier.block(replace(wide, at=NOW + 9.0))
        assert await frontier.block(replace(block, name="0.example"))
    async with store.opened() as (frontier, _):
        assert await frontier.blocks() == [replace(block, name="0.example"), wide]
        assert not await frontier.block(block)
        assert await frontier.block(replace(block, reason="asked again"))
        assert (await frontier.blocks())[1] == replace(wide, reason="asked again")
        assert await frontier.unblock("0.example")
        assert not await frontier.unblock("0.example")
        assert await frontier.blocks() == [replace(wide, reason="asked again")]


async def test_hosts_below_a_name_are_found_by_it(store: Store) -> None:
    """A name ends where its labels do, and has several origins; the name itself is not below itself."""
    async with store.opened() as (frontier, _):
        assert await frontier.hosts_below("a.example") == HostsBelow([], 0)
        urls = ["x.a.example", "a.example", "ba.example", "y.x.a.example", "x.a.example:8443", "0.a.example", "example"]
        await add(frontier, *(f"https://{name}/" for name in urls))
        assert await frontier.hosts_below("a.example") == HostsBelow([1, 4, 5, 6], 3)
        assert (await frontier.hosts_below("example")).names == 5
        assert await frontier.hosts_below("com") == HostsBelow([], 0)


async def test_hosts_are_searched_by_text_and_state(store: Store) -> None:
    """By the state that the store knows; those of `without` are left out, and the number of all is counted."""
    async with store.opened() as (frontier, _):
        names = ["a", "b", "c", "d", "e"]
        for n, name in enumerate(names):
            await add(frontier, *(f"https://{name}.example/{m}" for m in range(n + 1)))
        await add(frontier, "http://a.example:8080/")
        held = RobotsRecord("unreachable", 503, None, NOW, NOW + 9)
        await frontier.settle(
            batch(visit(Task(0, "https://b.example/robots.txt", TaskKind.ROBOTS), robots=held, host_id=2))
        )
        parked = [HostReadiness(3, NOW + 60, "backoff", 1, "x", has_responded=True), HostReadiness(4, 9e99, "blocked")]
        await frontier.exchange(Leaving(hosts=[*parked, HostReadiness(5, NOW, has_responded=True)]), Wanted())
        states = {"new": [1, 6], "held": [2], "backoff": [3], "blocked": [4], "ready": [5]}

        async def searched(
            text: str = "",
            *wanted: str,
            order: str = "host",
            limit: int = 9,
            at: float = NOW,
            without: Sequence[int] = (),
        ) -> tuple[list[int], int]:
            search = HostSearch(text, wanted or tuple(states), order, limit, at, without)
            found, matching, after = await frontier.search_hosts(search, after=0)
            assert after is None
            return sorted(row.id for row in found), matching

        for state, ids in states.items():
            assert await searched("", state) == (ids, len(ids))
        assert await searched("", "ready", at=NOW + 61) == ([3, 5], 2)
        assert await searched("example") == ([1, 2, 3, 4, 5, 6], 6)
        assert await searched("example", without=[1, 5]) == ([2, 3, 4, 6], 4)
        for text, ids in {"b.": [2], "p://a": [6], "s://a.example": [1], ":8080": [6], "https": [], "%": []}.items():
            assert await searched(text) == (ids, len(ids))
        for order, first in {"broken": [2, 3], "queued": [4, 5], "fetched": [1, 2], "host": [1, 6]}.items():
            assert await searched(order=order, limit=2) == (first, 6)
        assert (await frontier.search_hosts(HostSearch("", ("new",), "host", 9, NOW), after=1)).matching == 1


async def test_urls_that_failed_in_an_outage_are_due_after_it(store: Store) -> None:
    """Only failures since its begin that our network may have caused."""
    async with store.opened() as (frontier, _):
        await add(frontier, *(f"https://a.example/{n}" for n in range(4)))
        tasks = await frontier.take((await host(frontier)).id, 9, leased=())
        ends = [
            (Failed(ErrorType.CONNECT_TIMEOUT, "", True), NOW + 5),
            (Failed(ErrorType.CONNECT_TIMEOUT, "", True), NOW - 5),
            (Failed(ErrorType.TLS_CERT_EXPIRED, "", True), NOW + 5),
        ]
        for task, (outcome, at) in zip(tasks, ends, strict=False):
            settlement = visit(task, outcome, state=UrlState.WAITING, next_at=NOW + 900)
            await frontier.settle(batch(replace(settlement, finished_at=at)))
        await frontier.retry_now(since_at=NOW, now=NOW + 60)
        assert await frontier.next_due() == NOW + 60
        assert sum((await frontier.promote(now=NOW + 60)).values()) == 1
        assert await frontier.next_due() == NOW + 900


async def test_visits_dated_later_than_now_count_as_of_now(store: Store) -> None:
    """URLs that wait since then wait as long as before, and so do revisits that would be late; others stay."""
    async with store.opened() as (frontier, _):
        await add(frontier, *(f"https://a.example/{n}" for n in range(5)))
        tasks = await frontier.take((await host(frontier)).id, 9, leased=())
        ends = [
            (UrlState.WAITING, NOW + 900, 20.0),
            (UrlState.WAITING, NOW - 5, 50.0),
            (UrlState.DONE, NOW + 900, 3_600.0),
            (UrlState.DONE, NOW + 50, 60.0),
            (UrlState.DONE, NOW - 5, 9_000.0),
        ]
        for task, (state, at, wait_s) in zip(tasks, ends, strict=True):
            settlement = visit(
                task, FAILED if state is UrlState.WAITING else response(200), state=state, next_at=at + wait_s
            )
            await frontier.settle(batch(replace(settlement, finished_at=at)))
        for _ in range(2):  # a second time changes nothing
            await frontier.clock_set_back(now=NOW, revisits_by=NOW + 3_000)
            assert await frontier.next_due() == NOW + 20
            assert await frontier.next_due(revisits=True) == NOW + 110
        assert sum((await frontier.promote(now=NOW + 45)).values()) == 2
        assert sum((await frontier.promote(now=NOW + 3_599, limit=9, revisits=True)).values()) == 1
        assert await frontier.next_due(revisits=True) == NOW + 3_600
        again = await frontier.promote(now=NOW + 8_995, limit=9, revisits=True)
        assert sum(again.values()) == 2


async def test_slow_responses_are_kept_until_they_end(store: Store) -> None:
    """The last value counts; 0 removes it."""
    async with store.opened() as (frontier, _):
        slow_responses = [SlowResponse("a", 2.5, NOW), SlowResponse("b", 1.0, NOW), SlowResponse("a", 3.5, NOW + 1)]
        await frontier.settle(replace(batch(), slow_responses=slow_responses))
    async with store.opened() as (frontier, _):
        entered = await frontier.exchange(Leaving(), Wanted(names=["a", "b", "c"]))
        assert [one.response_s for one in entered.keys] == [3.5, 1.0, 0.0]
        await frontier.settle(replace(batch(), slow_responses=[SlowResponse("a", 0.0, NOW + 2)]))
    async with store.opened() as (frontier, _):
        entered = await frontier.exchange(Leaving(), Wanted(names=["a", "b"]))
        assert [one.response_s for one in entered.keys] == [0.0, 1.0]


async def settle_robots(frontier: Frontier, verdict: str, *bodies: bytes | None) -> list[list[int]]:
    """Store each as the robots.txt of https://a.example, and return which hosts are to be re-evaluated then."""
    task = Task(0, "https://a.example/robots.txt", TaskKind.ROBOTS)
    records = [RobotsRecord(verdict, 200, body, NOW, NOW + 9) for body in bodies]
    return [list((await frontier.settle(batch(visit(task, robots=one)))).to_reevaluate) for one in records]


async def test_a_key_that_leaves_with_work_is_the_next(store: Store) -> None:
    """Even if all others enter with the same call."""
    async with store.opened() as (frontier, _):
        await add(frontier, "https://a.example/", "https://b.example/")
        entered = await frontier.exchange(Leaving(), Wanted(ready_by=NOW, places=1))
        (key,) = entered.keys
        leaving = Leaving([HostReadiness(key.hosts[0].id, 7.0, queued=1)], [(key.id, None, 0.0)])
        entered = await frontier.exchange(leaving, Wanted(ready_by=NOW, places=1))
        assert [one.id == key.id for one in entered.keys] == [False]
        assert entered.next_at == 7.0


async def test_what_is_queued_while_a_host_leaves_lifts_what_parked_it(store: Store) -> None:
    """A limit, or that it had nothing to do; what it backs off for stays."""
    async with store.opened() as (frontier, _):
        await add(frontier, "https://a.example/1", "https://a.example/2")
        for parked, queued, ready_at in (
            ("traps", 0, 0.0), ("limit", 1, 0.0), ("limit", 2, None), ("backoff", 0, 50.0), ("traps", 1, 0.0)
        ):  # fmt: skip
            entered = await frontier.exchange(Leaving(), Wanted(host_ids=[1]))
            (key,) = entered.keys
            state = HostReadiness(1, 50.0 if parked == "backoff" else 9e99, parked, queued=queued)
            entered = await frontier.exchange(Leaving([state], [(key.id, None, 0.0)]), Wanted())
            assert entered.next_at == ready_at, (parked, queued)


async def test_changed_rules_begin_a_sweep_over_the_hosts_that_are_known(store: Store) -> None:
    """It goes on after a restart, and begins anew when the rules change again."""
    async with store.opened() as (frontier, _):
        assert not await frontier.judge_by("first")  # no host is known
        await add(frontier, "https://a.example/", "https://b.example/", "https://c.example/")
        assert not await frontier.judge_by("first")
        assert await frontier.sweep() is None
        assert await frontier.judge_by("second") == Sweep(1, 0, 3)
        await add(frontier, "https://d.example/")  # by the new rules
        sweep = await frontier.sweep()
        assert sweep == Sweep(1, 0, 3)
        await frontier.swept(replace(sweep, after=2))
    async with store.opened() as (frontier, _):
        assert not await frontier.judge_by("second")
        assert await frontier.sweep() == Sweep(1, 2, 3)
        assert await frontier.judge_by("first") == Sweep(2, 0, 4)
        await frontier.swept(Sweep(1, 3, 3), marked=[1])  # of the one before
        assert await frontier.sweep() == Sweep(2, 0, 4)
        await frontier.swept(Sweep(2, 4, 4))
    async with store.opened() as (frontier, _):
        assert await frontier.sweep() is None
        assert await frontier.marked_hosts(after=0, limit=9) == [1]


async def test_a_marked_host_is_to_be_reevaluated_until_it_was(store: Store) -> None:
    """Also after a restart, and if it is marked again meanwhile. They are read in slices."""
    async with store.opened() as (frontier, _):
        await add(frontier, *(f"https://{n}.example/" for n in "abcdefghijkl"))
        assert await frontier.marked_hosts(after=0, limit=9) == []
        assert await settle_robots(frontier, "rules", b"", b"", b"Disallow: /") == [[], [], [1]]
        mark = await frontier.reevaluation_mark(1)
        await settle_robots(frontier, "rules", b"Disallow: /a")
        await frontier.reevaluated(1, mark)
        await frontier.judge_by("others")
        await frontier.swept(Sweep(1, 12, 12), marked=[2, 3, 10, 11, 12])
    async with store.opened() as (frontier, _):
        found: list[int] = []
        while some := await frontier.marked_hosts(after=found[-1] if found else 0, limit=4):
            found += some
        assert sorted(found) == [1, 2, 3, 10, 11, 12]
        for host_id in (1, 3, 11):
            await frontier.reevaluated(host_id, await frontier.reevaluation_mark(host_id))
        assert [await frontier.reevaluation_mark(host_id) > 0 for host_id in (1, 2)] == [False, True]
        assert sorted(await frontier.marked_hosts(after=0, limit=9)) == [2, 10, 12]


async def test_a_marked_host_is_told_when_its_robots_txt_can_be_read(store: Store) -> None:
    """Even if it is the same as before."""
    async with store.opened() as (frontier, _):
        await add(frontier, "https://a.example/")
        await settle_robots(frontier, "rules", b"Disallow: /")
        await frontier.judge_by("others")
        await frontier.judge_by("more")
        await settle_robots(frontier, "unreachable", None)
        await frontier.swept(Sweep(1, 1, 1), marked=[1])
        assert await settle_robots(frontier, "unreachable", None) == [[]]
        assert await settle_robots(frontier, "rules", b"Disallow: /", None) == [[1], [1]]
        await frontier.reevaluated(1, await frontier.reevaluation_mark(1))
        assert await settle_robots(frontier, "rules", b"Disallow: /", None) == [[], []]


async def test_the_urls_of_many_hosts_are_read_in_slices(store: Store) -> None:
    """In order of their hosts, with the id of each; hosts without such URLs do not cost a slice."""
    async with store.opened() as (frontier, _):
        urls = [f"https://{host}.example/{n}" for n in range(3) for host in "abcd"]
        await add(frontier, *urls)
        rows: list[UrlRow] = []
        while some := await frontier.url_rows(2, 3, UrlState.QUEUED, after=rows[-1] if rows else None, limit=4):
            rows += some
        assert [(row.host_id, row.url) for row in rows] == [
            (host_id, f"https://{name}.example/{n}") for host_id, name in ((2, "b"), (3, "c")) for n in range(3)
        ]
        assert await frontier.url_rows(1, 4, UrlState.DENIED, after=None, limit=9) == []


async def test_queued_urls_are_denied_with_their_rule(store: Store) -> None:
    """URLs that were settled meanwhile stay as they are."""
    async with store.opened() as (frontier, _):
        await add(frontier, "https://a.example/1", "https://a.example/2", "https://a.example/3")
        first, second, third = await take(frontier)
        await frontier.settle(batch(visit(second)))
        assert await frontier.deny(1, [(first.id, DENIED), (second.id, DENIED)], now=NOW) == 1
        totals = frontier.totals()
        assert (totals.queued, totals.denied, totals.done) == (1, 1, 1)
        assert [task.id for task in await take(frontier)] == [third.id]
        (row,) = await frontier.url_rows(1, 1, UrlState.DENIED, after=None, limit=9)
        assert (row.id, row.reason) == (first.id, "robots")
        assert (await host(frontier)).queued == 1


async def test_the_receipt_names_hosts_with_a_changed_robots_txt(store: Store) -> None:
    """Not the first one, nor one with the same text or without text."""
    async with store.opened() as (frontier, _):
        await add(frontier, "https://a.example/")
        task = Task(0, "https://a.example/robots.txt", TaskKind.ROBOTS)
        changed = []
        for verdict, body in (
            ("rules", b"a"),
            ("rules", b"a"),
            ("unreachable", None),
            ("rules", b"b"),
            ("allow", None),
        ):
            record = RobotsRecord(verdict, 200, body, NOW, NOW + 9)
            receipt = await frontier.settle(batch(visit(task, robots=record)))
            changed.append(list(receipt.robots_changed))
        assert changed == [[], [], [], [1], [1]]
