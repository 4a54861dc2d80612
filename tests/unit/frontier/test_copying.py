"""Copies between a SQLite file and a database: both hold the same, and the crawl goes on with either."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import apsw
import pytest

from crawler.core.enums import DenyReason, ErrorType, SinkFileState, TaskKind, UrlState
from crawler.core.models import (
    Backoff,
    Counters,
    Denied,
    Failed,
    PageHistory,
    PageNote,
    RecordLocation,
    RobotsRecord,
    Round,
    RoundCounts,
    SinkFile,
    SitemapHint,
    SlowResponse,
    Task,
    TemplateRow,
)
from crawler.core.ownership import SLOT_BITS
from crawler.core.url import SLOTS, parse
from crawler.frontier.base import BlockedHost, Frontier, FrontierError, FrontierLocked, Leaving, Sweep, Wanted
from crawler.frontier.copying import copy_store, export_to
from crawler.frontier.postgresql.slots import slot_of_host
from crawler.frontier.postgresql.store import PostgresFrontier
from crawler.frontier.sqlite.snapshots import Auditor
from crawler.frontier.sqlite.store import SqliteFrontier
from crawler.frontier.sqlite.store_reader import StoreReader
from tests.support.frontiers import NOW, batch, fast_folder, found, links, visit
from tests.support.postgresql import Numbered, new_database, shared_server

WARC = SinkFile("warc", "a.warc.gz", SinkFileState.OPEN, 100)
PAGES = SinkFile("pages", "a.jsonl", SinkFileState.CLOSED, 50)


@pytest.fixture
def folder() -> Iterator[Path]:
    with fast_folder() as one:
        yield one


async def fill(frontier: Frontier) -> None:
    """Something in every table."""
    urls = [f"https://{name}.example/{n}" for name in ("a", "www.a", "b") for n in range(5)]
    await frontier.add([found(url) for url in urls], now=NOW)
    one, two, three, four, five = await frontier.take(1, 9, leased=())
    hinted = replace(links("https://c.example/new")[0], hint=SitemapHint(0.5, NOW - 9))
    robots = RobotsRecord("rules", 200, b"\x00Disallow: /x", NOW, NOW + 60, 2.5)
    await frontier.settle(
        batch(
            visit(one, discovered=(hinted, *links("https://d.example/")), digest="sha256:A", next_at=NOW + 9,
                  history=PageHistory(NOW, 1.5, 60.0, 0, 7), note=PageNote(b"\1\2\3\4", ("/**",))),
            visit(two, Failed(ErrorType.RESET, "x", retryable=True), state=UrlState.WAITING, next_at=NOW + 5),
            visit(three, Denied(DenyReason.ROBOTS, "Disallow: /x"), state=UrlState.DENIED),
            visit(Task(0, "https://a.example/robots.txt", TaskKind.ROBOTS), robots=robots),
            visit(Task(0, "https://a.example/robots.txt", TaskKind.ROBOTS), robots=replace(robots, body=b"other")),
            written=[RecordLocation(WARC.name, 7), *[None] * 4],
            lines=[RecordLocation(PAGES.name, 3), *[None] * 4],
            sink_files=[WARC, PAGES],
            backoffs=[Backoff("b.example", NOW + 60, 2, "429")],
            slow_responses=[SlowResponse("a.example", 2.5, NOW)],
            counters=Counters(pages=1),
            scope_hosts=["www.d.example"],
            templates=[TemplateRow(1, "/**", spent=3, since_at=NOW)],
            error_pages=[(2, b"\0e")],
            schedule_at=NOW + 1,
        )
    )  # fmt: skip
    await frontier.make_suspects(1, [(four.id, "/{n}")])
    await frontier.forget_url(five.url, now=NOW)
    await frontier.forget_url("https://e.example/never", now=NOW)
    await frontier.forget_host("gone.example", now=NOW)
    await frontier.block(BlockedHost("bad.example", "domain", NOW, "asked"))
    await frontier.store_value("in_links", b"\0kept")
    await frontier.judge_by("rules")
    await frontier.swept(Sweep(1, 2, 5), marked=[3])
    await frontier.put_round(Round(1, NOW, last_id=4, queued_to=3))
    await frontier.settle(batch(round_counts=RoundCounts(visited=1, unchanged=1)))
    await frontier.put_dates([], dated_to=6)


def rows_of(path: Path) -> dict[str, list[Any]]:
    """Every row of every table of a SQLite store, but for what only counts transactions."""
    connection = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READONLY)
    tables = [name for (name,) in connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")]
    found = {name: sorted(connection.execute(f"SELECT * FROM {name}"), key=repr) for name in tables}
    connection.close()
    return found


async def look(frontier: Frontier) -> list[Any]:
    """What both stores tell."""
    hosts = await frontier.host_rows(after=0, limit=99)
    tasks = [await frontier.take(row.id, 99, leased=()) for row in hosts]
    entered = await frontier.exchange(Leaving(), Wanted(ready_by=NOW + 99, places=99, hosts=9))
    keys = sorted((key.name, key.backoff, key.response_s, key.crawl_delay_s) for key in entered.keys if key.hosts)
    new = await frontier.add(
        [found(url) for url in ("https://a.example/4", "https://e.example/never", "https://f.example/")], now=NOW
    )
    due = await frontier.next_due(), await frontier.next_due(revisits=True)
    kept = await frontier.stored_value("in_links"), await frontier.sweep(), await frontier.dated_to()
    return [
        hosts, tasks, keys, list(new.links_new), frontier.totals(), due, kept, await frontier.suspects(),
        await frontier.templates_of_host(1), await frontier.templates_of_host(2), await frontier.blocks(),
        await frontier.robots_versions(1), sorted(await frontier.marked_hosts(after=0, limit=9)),
    ]  # fmt: skip


async def test_a_store_is_copied_there_and_back(folder: Path) -> None:
    """Table by table the same, and a crawl finds the same in each."""
    first, back = folder / "frontier.db", folder / "back.db"
    store = SqliteFrontier(first)
    await store.open()
    await fill(store)
    await store.close(clean=True)
    dsn = new_database()
    counts = await copy_store(str(folder), dsn)
    assert (counts["visit"], counts["sink_file"], counts["takedown"]) == (4, 2, 0)
    assert await copy_store(dsn, str(back)) == counts
    before, after = rows_of(first), rows_of(back)
    assert before.keys() == after.keys()
    for table, rows in before.items():
        assert after[table] == rows, table
    with Auditor(back, is_live=False) as auditor:
        auditor.begin()
        assert list(auditor.own_problems()) == []
    seen = []
    for frontier in (SqliteFrontier(first), Numbered(PostgresFrontier(dsn)), SqliteFrontier(back)):
        recovered = await frontier.open()
        last = recovered.last_round
        if last is not None and last.last_id > 1 << SLOT_BITS:  # URLs are named by their ids there
            last = replace(last, last_id=last.last_id >> SLOT_BITS, queued_to=(last.queued_to or 0) >> SLOT_BITS)
        seen.append((replace(recovered, last_round=last, now_at=None), await look(frontier)))  # type: ignore[arg-type]
        await frontier.close(clean=True)
    for other in seen[1:]:
        assert seen[0][0] == other[0]
        for one, two in zip(seen[0][1], other[1], strict=True):
            assert one == two


async def test_the_store_of_several_agents_is_copied_as_one(folder: Path) -> None:
    """What they counted together, with ids of its own for each host and URL, and what was on its way between them. Not
    while one of them is connected.
    """
    dsn, copied = new_database(), folder / "frontier.db"
    one, two = PostgresFrontier(dsn, agent="a1"), PostgresFrontier(dsn, agent="a2")
    await one.open()
    await two.open()
    given = range(0, SLOTS, 2)
    await one.agents.give_back(given)
    await two.agents.take(given)
    names = [f"https://host{n}.example/" for n in range(20)]
    ours, others = ([url for url in names if slot_of(url) % 2 == side] for side in (1, 0))
    for frontier, urls in ((one, ours), (two, others)):
        await frontier.add([found(url) for url in urls], now=NOW)  # each begins with number 1
    await one.add([found(f"{others[0]}more")], now=NOW)  # in the inbox of the other
    await one.record_sink_files([SinkFile("warc", "crawl-a1-1.warc.gz", SinkFileState.CLOSED, 100)])
    await two.record_sink_files([SinkFile("warc", "crawl-a2-1.warc.gz", SinkFileState.CLOSED, 200)])
    await one.close(clean=True)
    with pytest.raises(FrontierLocked, match="is in use by the agent a2: `crawler stop` ends each"):
        await copy_store(dsn, str(copied))
    with pytest.raises(FrontierLocked, match="has 1 URL on the way from one agent to another"):
        await export_to(copied, dsn)
    looked = folder / "look.db"
    await export_to(looked, dsn, names_agents=True)
    with StoreReader(looked, is_live=False) as reader:
        assert reader.totals()["queued"] == 20
        owners = set(reader.slot_agents().values())
        assert owners == {"a2", None}
    await two.close(clean=True)
    counts = await copy_store(dsn, str(copied))
    assert (counts["host"], counts["url"], counts["sink_file"]) == (20, 21, 2)
    with Auditor(copied, is_live=False) as auditor:
        auditor.begin()
        assert list(auditor.own_problems()) == []
        assert auditor.totals() == {"queued": 21, "hosts": 20, "hosts_with_work": 20}
    store = SqliteFrontier(copied)
    await store.open()
    assert [row.id for row in await store.host_rows(after=0, limit=99)] == list(range(1, 21))
    await store.close(clean=True)


def slot_of(url: str) -> int:
    return slot_of_host(parse(url)[1].host)


async def test_a_copy_overwrites_nothing(folder: Path) -> None:
    """Neither a database with a crawl nor a file."""
    store = SqliteFrontier(folder / "frontier.db")
    await store.open()
    await store.add([found("https://a.example/")], now=NOW)
    await store.close(clean=True)
    dsn = new_database()
    await copy_store(str(folder), dsn)
    with pytest.raises(FrontierError, match="has a crawl already"):
        await copy_store(str(folder), dsn)
    with pytest.raises(FileExistsError):
        await copy_store(dsn, str(folder))
    with pytest.raises(FrontierError, match="from a directory to a database"):
        await copy_store(dsn, dsn)


async def test_a_copy_that_differs_is_none(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A row that changes on the way is found by its digest, and nothing is stored."""
    store = SqliteFrontier(folder / "frontier.db")
    await store.open()
    await store.add([found("https://a.example/")], now=NOW)
    await store.close(clean=True)
    dsn = new_database()
    await copy_store(str(folder), dsn)
    shared_server().execute("UPDATE url SET depth = 7", dsn.partition("@/")[2].partition("?")[0])
    from crawler.frontier import copying

    read = copying._read_file

    def changed(database: Any, table: Any) -> Iterator[Any]:
        for row in read(database, table):
            yield row if table.name != "url" else (*row[:4], 9, *row[5:])

    monkeypatch.setattr(copying, "_read_file", changed)
    with pytest.raises(FrontierError, match="the copy is not whole: of url the source has 1 rows"):
        await copy_store(dsn, str(folder / "other.db"))
