"""The PostgreSQL store: ownership, schema, lost connections and lost answers, and what its statements read."""

import asyncio
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

from crawler.core.enums import SinkFileState, UrlState
from crawler.core.models import RecordLocation, RobotsRecord, SinkFile, Task
from crawler.core.url import parse, registrable_domain, slot_of
from crawler.frontier.base import (
    Batch,
    FrontierCorrupt,
    FrontierFull,
    FrontierLocked,
    FrontierUnreachable,
    FrontierVersion,
    Leaving,
    Recovered,
    UrlSelection,
    Wanted,
)
from crawler.frontier.postgresql.connection import MIGRATIONS, address_of
from crawler.frontier.postgresql.store import PostgresFrontier
from tests.support.frontiers import NOW, batch, found, links, visit
from tests.support.postgresql import CuttingProxy, Server, cleared_database, new_database, shared_server

WARC = SinkFile("warc", "a.warc.gz", SinkFileState.OPEN, 100)


@pytest.fixture
def dsn() -> str:
    return cleared_database()


@pytest.fixture
async def frontier(dsn: str) -> AsyncIterator[PostgresFrontier]:
    one = PostgresFrontier(dsn)
    await one.open()
    try:
        yield one
    finally:
        await one.close(clean=True)


@pytest.fixture
async def new() -> AsyncIterator[tuple[PostgresFrontier, str]]:
    """An open frontier in a database of its own, which has counted nothing before, and its DSN."""
    dsn = new_database()
    one = PostgresFrontier(dsn)
    await one.open()
    try:
        yield one, dsn
    finally:
        await one.close(clean=True)


@pytest.fixture
def own_server() -> Iterator[Server]:
    """A server for one test, which may stop it."""
    shared_server()  # skips without one
    with TemporaryDirectory(prefix="crawler-pg-") as folder:
        server = Server(Path(folder))
        try:
            yield server
        finally:
            server.stop(at_once=True)


def name_of(dsn: str) -> str:
    return dsn.partition("@/")[2].partition("?")[0]


async def seeded(frontier: PostgresFrontier, *urls: str) -> list[Task]:
    receipt = await frontier.add([found(url) for url in urls or ("https://a.example/",)], now=NOW)
    return [task for row in receipt.hosts for task in await frontier.take(row.id, 100, leased=())]


def settling(task: Task, n: int = 1) -> Batch:
    """A visit of a page with three new links."""
    host_id = next(host for host, of in _HOSTS.items() if of == parse(task.url)[1].host)
    discovered = links(*(f"https://a.example/{n}/{m}" for m in range(3)))
    return batch(
        visit(task, host_id=host_id, discovered=discovered), written=[RecordLocation(WARC.name, n)], sink_files=[WARC]
    )


_HOSTS: dict[int, str] = {}


async def first_task(frontier: PostgresFrontier) -> Task:
    """A queued URL of the first host."""
    (row, *_) = await frontier.host_rows(after=0, limit=9)
    _HOSTS[row.id] = row.origin.host
    (task,) = await frontier.take(row.id, 1, leased=())
    return task


# -- opening


async def test_a_second_agent_is_refused_with_the_name_of_the_first(frontier: PostgresFrontier, dsn: str) -> None:
    """By its process, on whichever machine."""
    with pytest.raises(FrontierLocked, match=r"is in use by process \d+ on "):
        await PostgresFrontier(dsn).open()


async def test_a_database_of_a_newer_version_is_refused() -> None:
    """Nothing in it changes."""
    dsn = new_database()
    frontier = PostgresFrontier(dsn)
    await frontier.open()
    await frontier.close(clean=True)
    shared_server().execute("UPDATE crawler_version SET number = 99", name_of(dsn))
    with pytest.raises(FrontierVersion, match="has version 99"):
        await frontier.open()


async def test_a_database_of_another_program_is_refused() -> None:
    """No table is added to it."""
    dsn = new_database()
    shared_server().execute("CREATE TABLE theirs (id integer)", name_of(dsn))
    with pytest.raises(FrontierCorrupt, match="tables of another program"):
        await PostgresFrontier(dsn).open()
    tables = shared_server().execute(
        "SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace", name_of(dsn)
    )
    assert [row[0] for row in tables] == ["theirs"]


async def test_two_that_come_at_once_make_one_schema() -> None:
    """One of them waits for the other's tables, and one owns the database."""
    dsn = new_database()
    frontiers = [PostgresFrontier(dsn) for _ in range(2)]
    opened = await asyncio.gather(*(one.open() for one in frontiers), return_exceptions=True)
    are_open = [one.connection.is_open for one in frontiers]
    for one in frontiers:
        await one.close(clean=True)
    assert sorted(are_open) == [False, True]
    assert [type(one) for one in opened if not isinstance(one, Recovered)] == [FrontierLocked]
    versions = shared_server().execute("SELECT number FROM crawler_version", name_of(dsn))
    assert [row[0] for row in versions] == [len(MIGRATIONS)]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda dsn: dsn.replace("@/", "@/no_"), "there is no such database"),
        (lambda dsn: dsn.replace("crawler@", "stranger:geheim@"), "user or password is wrong"),
        (lambda dsn: dsn.partition("?")[0].replace("crawler@", "crawler:geheim@127.0.0.1:1"), "refused"),
        (lambda dsn: "postgresql://crawler:geheim@/x?host=/nonexistent", "No such file"),
    ],
)
async def test_what_is_wrong_with_a_dsn_is_said_without_its_password(dsn: str, change: Any, reason: str) -> None:
    """No server, no database, a wrong user."""
    with pytest.raises(FrontierUnreachable) as raised:
        await PostgresFrontier(change(dsn)).open()
    assert reason in str(raised.value)
    assert "geheim" not in f"{raised.value!r} {raised.value.__cause__!r} {raised.value.__suppress_context__}"


def test_a_dsn_is_named_without_its_password() -> None:
    """Nor its options."""
    assert address_of("postgresql://me:geheim@db.example:5433/crawl?sslmode=require") == (
        "the database crawl at db.example:5433"
    )
    assert "PGHOST" in address_of("")


# -- lost connections


@pytest.mark.parametrize("cut", ["before", "after"])
async def test_a_commit_without_an_answer_is_stored_once(dsn: str, tmp_path: Path, cut: str) -> None:
    """Whether the server had it or not: it is read back, and repeated only if it is not there."""
    async with CuttingProxy(shared_server(), tmp_path).running() as proxy:
        frontier = PostgresFrontier(proxy.dsn(dsn))
        await frontier.open()
        await seeded(frontier)
        for n in range(1, 4):
            task = await first_task(frontier)
            before = proxy.commits
            proxy.cut = cut
            receipt = await frontier.settle(settling(task, n))
            assert proxy.cut is None
            assert proxy.commits - before == (2 if cut == "before" else 1)
            assert list(receipt.links_new) == [3]
        totals, number = frontier.totals(), frontier.connection.state.number
        assert (totals.done, totals.queued) == (3, 7)
        await frontier.close(clean=True)
    again = PostgresFrontier(dsn)
    recovered = await again.open()
    assert (again.totals(), recovered.clean) == (totals, True)
    assert again.connection.state.number > number
    assert [row.fetched for row in await again.host_rows(after=0, limit=9)] == [3]
    await again.close(clean=True)


async def test_a_server_that_is_away_stores_nothing_and_comes_back(own_server: Server) -> None:
    """A call fails as on a full disk, and the same call succeeds when the server is there again."""
    own_server.execute("CREATE DATABASE crawl")
    frontier = PostgresFrontier(own_server.dsn("crawl"))
    await frontier.open()
    await seeded(frontier)
    task = await first_task(frontier)
    own_server.stop(at_once=True)
    for _ in range(2):
        with pytest.raises(FrontierFull, match="cannot be reached"):
            await frontier.settle(settling(task))
    with pytest.raises(FrontierFull):
        await frontier.next_due()
    own_server.start()
    receipt = await frontier.settle(settling(task))
    assert list(receipt.links_new) == [3]
    assert (frontier.totals().done, frontier.totals().queued) == (1, 3)
    await frontier.close(clean=True)


async def test_a_database_that_is_renamed_is_away_until_it_is_back() -> None:
    frontier = PostgresFrontier(dsn := new_database())
    await frontier.open()
    await seeded(frontier)
    task, server = await first_task(frontier), shared_server()
    server.execute(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name_of(dsn)}'")
    server.execute(f"ALTER DATABASE {name_of(dsn)} RENAME TO away")
    with pytest.raises(FrontierFull, match="does not exist"):
        await frontier.settle(settling(task))
    server.execute(f"ALTER DATABASE away RENAME TO {name_of(dsn)}")
    await frontier.settle(settling(task))
    assert frontier.totals().done == 1
    await frontier.close(clean=True)


async def test_an_agent_that_was_taken_over_stores_nothing_more(frontier: PostgresFrontier, dsn: str) -> None:
    """Its transactions fail."""
    await seeded(frontier)
    task = await first_task(frontier)
    shared_server().execute("UPDATE agent SET incarnation = incarnation + 1", name_of(dsn))
    with pytest.raises(FrontierLocked, match="took"):
        await frontier.settle(settling(task))
    assert frontier.totals().done == 0
    assert shared_server().execute("SELECT count(*) FROM visit", name_of(dsn))[0][0] == 0


async def test_a_cancelled_settlement_is_stored_whole(frontier: PostgresFrontier) -> None:
    """Only its result is lost."""
    await seeded(frontier)
    settle = asyncio.ensure_future(frontier.settle(settling(await first_task(frontier))))
    await asyncio.sleep(0)
    settle.cancel()
    with pytest.raises(asyncio.CancelledError):
        await settle
    await frontier.next_due()
    assert (frontier.totals().done, frontier.totals().queued) == (1, 3)


CHILD = """
import asyncio, sys
from crawler.frontier.postgresql.store import PostgresFrontier
from tests.support.frontiers import NOW, batch, found, links, visit

async def main():
    frontier = PostgresFrontier(sys.argv[1])
    await frontier.open()
    receipt = await frontier.add([found("https://a.example/")], now=NOW)
    host_id = receipt.hosts[0].id
    print("open", flush=True)
    n = 0
    while True:
        (task,) = await frontier.take(host_id, 1, leased=())
        n += 1
        urls = [f"https://a.example/{n}/{m}" for m in range(300)]
        await frontier.settle(batch(visit(task, host_id=host_id, discovered=links(*urls))))
        print(task.id, flush=True)

asyncio.run(main())
"""


async def test_a_killed_process_loses_nothing_acknowledged(dsn: str) -> None:
    """After kill -9 during settlements the store opens at once, as unclean, with exact counters."""
    process = subprocess.Popen([sys.executable, "-c", CHILD, dsn], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert await asyncio.to_thread(process.stdout.readline) == "open\n"
    acknowledged = [int(await asyncio.to_thread(process.stdout.readline)) for _ in range(10)]
    process.send_signal(signal.SIGKILL)
    acknowledged += [int(line) for line in process.stdout.read().split()]
    process.wait()
    process.stdout.close()
    frontier = PostgresFrontier(dsn)
    recovered = await frontier.open()
    totals = frontier.totals()
    (row,) = await frontier.host_rows(after=0, limit=9)
    await frontier.close(clean=True)
    assert not recovered.clean
    assert totals.done - len(acknowledged) in (0, 1)  # one may have been stored and not yet told
    rows = shared_server().execute("SELECT id, state FROM url", name_of(dsn))
    assert {id_ for id_, state in rows if state == "done"} >= set(acknowledged)
    assert len(rows) == totals.queued + totals.done == 1 + 300 * totals.done
    assert row.queued == totals.queued


# -- slots


async def test_ids_have_their_slot_and_grow(frontier: PostgresFrontier) -> None:
    """All hosts of a registrable domain are in one slot, with their URLs and their politeness key."""
    urls = ["https://a.example/", "https://www.a.example/", "http://b.example/", "https://192.0.2.7/"]
    receipt = await frontier.add([found(url) for url in urls], now=NOW)
    ids = [row.id for row in receipt.hosts]
    assert ids == sorted(ids)
    assert [id_ & 1023 for id_ in ids] == [row.slot for row in receipt.hosts]
    assert receipt.hosts[0].slot == receipt.hosts[1].slot == slot_of(registrable_domain("a.example"))
    entered = await frontier.exchange(Leaving(), Wanted(ready_by=NOW, places=9, hosts=2))
    assert {key.name: key.id & 1023 for key in entered.keys} == {
        registrable_domain(row.origin.host): row.slot for row in receipt.hosts
    }


async def scans(frontier: PostgresFrontier, dsn: str) -> dict[str, tuple[int, int]]:
    """Of each table, how often it was read whole and by an index so far, as the server counts."""
    await frontier.connection.job(lambda: frontier.connection.run("SELECT pg_stat_force_next_flush()"))
    await frontier.next_due()  # the counts are there when the next statement ends
    await frontier.next_due()
    rows = shared_server().execute(
        "SELECT relname, seq_scan, coalesce(idx_scan, 0) FROM pg_stat_user_tables", name_of(dsn)
    )
    return {name: (whole, by_index) for name, whole, by_index in rows}


def more_scans(before: dict[str, tuple[int, int]], after: dict[str, tuple[int, int]]) -> tuple[set[str], set[str]]:
    """The tables that were read whole between two counts, and those that were read at all."""
    whole = {name for name, counts in after.items() if counts[0] > before[name][0]}
    return whole, {name for name, counts in after.items() if counts != before[name]}


async def test_a_crawl_of_one_host_reads_the_partitions_of_its_slot(new: tuple[PostgresFrontier, str]) -> None:
    """And no table is read from end to end. (Counted by the server.)"""
    frontier, dsn = new
    await seeded(frontier)
    (row,) = await frontier.host_rows(after=0, limit=9)
    before = await scans(frontier, dsn)
    await frontier.exchange(Leaving(), Wanted(host_ids=[row.id], hosts=4))
    for n in range(8):
        (task,) = await frontier.take(row.id, 1, leased=())
        robots = RobotsRecord("rules", 200, b"#%d" % n, NOW, NOW + 60, float(n))
        settlements = [
            visit(task, host_id=row.id, discovered=links(*(f"https://a.example/{n}/{m}" for m in range(3)))),
            visit(Task(0, "https://a.example/robots.txt"), host_id=row.id, robots=robots),
        ]
        await frontier.settle(batch(*settlements, sink_files=[WARC]))
    whole, used = more_scans(before, await scans(frontier, dsn))
    (partition,) = shared_server().execute("SELECT tableoid::regclass::text FROM url LIMIT 1", name_of(dsn))[0]
    suffix = partition.removeprefix("url")
    tables = ("url", "visit", "robots", "robots_version", "host", "reevaluation")
    assert {name for name in used if name.rpartition("_")[0] in tables} == {
        *(f"{name}{suffix}" for name in tables if name != "visit"),
        *(f"visit_{n}" for n in range(16)),  # `scans` asks for the next due URL of all slots
    }
    assert not {name for name in whole if name[-1].isdigit()}


async def test_long_walks_read_no_table_from_end_to_end(new: tuple[PostgresFrontier, str]) -> None:
    """Each slice is a range of an index."""
    frontier, dsn = new
    tasks = await seeded(frontier, *(f"https://{name}.example/{n}" for name in "abcd" for n in range(5)))
    for task in tasks:
        row = (await frontier.hosts_named(parse(task.url)[1].host))[0]
        await frontier.settle(batch(visit(task, host_id=row.id)))
    before = await scans(frontier, dsn)
    places, _ = await frontier.settled_urls(UrlSelection(states=(UrlState.DONE,)))
    assert len(places) == 20
    assert len((await frontier.undated(after=0, rows=100))[0]) == 20
    assert len(await frontier.visited_pages(blocks=1, rows=100, phase=0.0)) == 20
    assert len(await frontier.host_rows(after=0, limit=9)) == 4
    assert (await frontier.hosts_below("example")).names == 4
    await frontier.promote(now=NOW)
    await frontier.next_due(revisits=True)
    await frontier.parked()
    await frontier.unpark("backoff", at=NOW)
    whole, _ = more_scans(before, await scans(frontier, dsn))
    assert not {name for name in whole if name[-1].isdigit()}


async def test_text_that_postgresql_cannot_store_is_stored_without_it(frontier: PostgresFrontier) -> None:
    """A NUL byte in the message of an error, or a lone surrogate."""
    from crawler.core.enums import DenyReason
    from crawler.core.models import Denied

    (task,) = await seeded(frontier)
    (row,) = await frontier.host_rows(after=0, limit=9)
    assert await frontier.deny(row.id, [(task.id, Denied(DenyReason.ROBOTS, "a\0b\udc80"))], now=NOW) == 1
