"""The writer's memory is bounded and never ahead of the store."""

from collections.abc import Iterator
from pathlib import Path

import apsw
import pytest

from crawler.core.enums import SinkFileState
from crawler.core.models import Counters, RecordLocation, SinkFile
from crawler.engine.operations import requeue
from crawler.frontier.base import UrlSelection
from crawler.frontier.rows import counters_from
from crawler.frontier.sqlite import insertions as module
from crawler.frontier.sqlite import store as store_module
from crawler.frontier.sqlite import writer as writer_module
from crawler.frontier.sqlite.database import Database
from crawler.frontier.sqlite.store import SqliteFrontier
from crawler.frontier.sqlite.writer import Writer
from tests.support.frontiers import NOW, batch, fast_folder, found, visit


@pytest.fixture
def database() -> Iterator[Database]:
    with fast_folder() as folder:
        database = Database(Path(folder) / "frontier.db")
        yield database
        database.close()


def test_a_host_dropped_from_the_cache_is_found_again(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """The cache is bounded; other hosts are looked up, not inserted again."""
    monkeypatch.setattr(module, "HOSTS_CACHED", 3)
    writer = Writer(database)
    for page in range(3):
        receipt = writer.add([found(f"https://h{n}.example/{page}") for n in range(10)], NOW)
        assert list(receipt.links_new) == [1] * 10
        assert len(receipt.hosts) == (10 if page == 0 else 0)
        assert len(writer.urls._host_ids) == 3
    assert writer.totals.hosts == 10


def test_a_host_of_a_failed_transaction_is_not_cached(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its row does not exist, and its id goes to the next host."""
    writer = Writer(database)
    with monkeypatch.context() as patch:
        patch.setattr(database, "run_many", lambda *_, **__: database.run("INSERT INTO nowhere VALUES (1)"))
        with pytest.raises(apsw.SQLError):
            writer.add([found("https://a.example/")], NOW)
    assert writer.totals.hosts == 0
    assert [row.id for row in writer.add([found("https://b.example/")], NOW).hosts] == [1]
    assert [row.id for row in writer.add([found("https://a.example/")], NOW).hosts] == [2]
    assert writer.totals.hosts == 2


def test_many_new_hosts_take_as_many_statements_as_few(database: Database) -> None:
    """A list of seeds may name a new host on each line."""
    writer = Writer(database)
    counts = []
    for name, hosts in (("few", 10), ("many", 600)):
        statements: list[str] = []
        database._connection.exec_trace = lambda _cursor, text, _values, into=statements: into.append(text) or True
        writer.add([found(f"https://{name}{n}.example/") for n in range(hosts)], NOW)
        counts.append(len(statements))
    database._connection.exec_trace = None
    assert counts[0] == counts[1]
    assert writer.totals.hosts == 610


def test_new_hosts_and_their_keys_are_ready_at_schedule_time(database: Database) -> None:
    """A key that is active, or that backs off, stays as it is: its host waits for it."""
    writer = Writer(database)
    writer.schedule_at = 50.0
    writer.add([found(f"https://{name}.example/") for name in ("a", "b", "c")], NOW)
    database.run("UPDATE politeness_key SET active = 1, ready_at = NULL WHERE id = (SELECT key FROM host WHERE id = 2)")
    database.run(
        "UPDATE politeness_key SET open_at = 90, ready_at = NULL WHERE id = (SELECT key FROM host WHERE id = 3)"
    )
    receipt = writer.add([found(f"https://{name}.example:8443/") for name in ("a", "b", "c")], NOW)
    rows = database.rows(
        "SELECT ready_at, queued, key = (SELECT key FROM host AS h WHERE h.id = host.id - 3) FROM host ORDER BY id"
    )
    assert list(rows) == [(50.0, 1, None)] * 3 + [(50.0, 1, 1)] * 3
    of_keys = "SELECT k.active, k.ready_at FROM host JOIN politeness_key AS k ON k.id = key"
    keys = database.rows(f"{of_keys} WHERE host.id > 3 ORDER BY host.id")
    assert list(keys) == [(0, 50.0), (1, None), (0, 90.0)]
    assert [(row.id, row.queued) for row in receipt.hosts] == [(4, 1), (5, 1), (6, 1)]


async def test_the_loss_of_a_file_is_finished_by_the_next_start() -> None:
    """A crash after any of its transactions: the counters of hosts at the next start include it."""
    lost = SinkFile("warc", "lost.warc.gz", SinkFileState.OPEN, 9)
    for slices in range(3):
        with fast_folder() as folder:
            frontier = SqliteFrontier(folder / "frontier.db")
            await frontier.open()
            await frontier.add([found(f"https://a.example/{n}") for n in range(3)], now=NOW)
            tasks = await frontier.take(1, 9, leased=())
            places = [RecordLocation(lost.name, n) for n in range(3)]
            await frontier.settle(batch(*map(visit, tasks), written=places, sink_files=[lost]))
            _, writer = frontier._opened()

            def begin(writer: Writer = writer, slices: int = slices) -> None:
                file_id = writer.begin_losing("warc", lost.name)
                assert file_id is not None
                for _ in range(slices):
                    writer.lose_slice(0, file_id=file_id)

            await frontier._run(lambda _, begin=begin: begin())
            await frontier.close(clean=False)
            recovered = await frontier.open()
            assert [host.queued for host in await frontier.host_rows(after=0, limit=9)] == [3]
            assert [file.state for file in recovered.sink_files] == [SinkFileState.LOST]
            assert (frontier.totals()).queued == 3
            await frontier.close(clean=True)


def test_counters_of_an_older_version_are_read() -> None:
    """It stored a field `extra`, which was always empty."""
    assert counters_from('{"urls_fetched":7,"pages":6,"extra":{}}') == Counters(urls_fetched=7, pages=6)
    assert counters_from(None) == Counters()


async def test_hosts_below_a_name_are_the_same_in_slices_of_any_size(monkeypatch: pytest.MonkeyPatch) -> None:
    """Slices end between names, and no origin is left out or found twice."""
    urls = [f"https://{'x' * (n % 4)}{n // 8}.a.example:{1000 + n}/" for n in range(40)]
    with fast_folder() as folder:
        frontier = SqliteFrontier(folder / "frontier.db")
        await frontier.open()
        await frontier.add([found(url) for url in (*urls, "https://b.example/")], now=NOW)
        whole = await frontier.hosts_below("a.example")
        assert (list(whole.ids), whole.names) == (list(range(1, 41)), 20)
        for size in (1, 2, 3, 7):
            monkeypatch.setattr(store_module, "_NAMES_AT_ONCE", size)
            assert await frontier.hosts_below("a.example") == whole
        await frontier.close(clean=True)


@pytest.mark.parametrize("duplicates", ["exact", "filter"])
async def test_the_urls_of_one_host_are_queued_again_in_slices(
    duplicates: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many one has; those of other hosts are not read."""
    with fast_folder() as folder:
        frontier = SqliteFrontier(folder / "frontier.db", duplicates=duplicates)
        await frontier.open()
        await frontier.add([found(f"https://{'ab'[n % 2]}.example/{n}") for n in range(12)], now=NOW)
        for host_id in (1, 2):
            tasks = await frontier.take(host_id, 5, leased=())
            await frontier.settle(batch(*(visit(task, host_id=host_id) for task in tasks)))
        for size in (1, 2, 5, 6, 7):
            monkeypatch.setattr(writer_module, "REQUEUE_SLICE", size)
            ending = UrlSelection(statuses=(200,), host_ids=(1,))
            assert await requeue(frontier, ending, dry_run=True) == {1: 5}
        assert await requeue(frontier, ending) == {1: 5}
        assert frontier.totals().queued == 7
        await frontier.close(clean=True)
