"""Takedowns that a crash interrupts."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from crawler.frontier.sqlite import maintenance
from crawler.frontier.sqlite.database import Database
from crawler.frontier.sqlite.snapshots import Auditor
from crawler.frontier.sqlite.store import SqliteFrontier
from crawler.frontier.sqlite.writer import Writer
from tests.support.frontiers import NOW, fast_folder, found


@pytest.fixture
def path() -> Iterator[Path]:
    with fast_folder() as folder:
        yield folder / "frontier.db"


@pytest.mark.parametrize("slices", [0, 1, 2])
async def test_a_takedown_of_a_host_is_finished_by_the_next_start(
    path: Path, slices: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From the first transaction on the host is closed: no URL of it is taken again."""
    monkeypatch.setattr(maintenance, "ERASE_SLICE", 3)
    frontier = SqliteFrontier(path)
    await frontier.open()
    await frontier.add([found(f"https://a.example/{n}") for n in range(8)] + [found("https://b.example/")], now=NOW)
    await frontier.close(clean=True)
    database = Database(path)
    writer = Writer(database)
    (host_id,) = maintenance.forget_host(writer, "a.example", NOW).host_ids
    after: int | None = maintenance.LOWEST
    for _ in range(slices):
        assert after is not None
        erased: list[int] = []
        queued, after = maintenance.forget_slice(writer, after, host_id=host_id, now=NOW, erased=erased)
        assert (erased, queued) == ([3], {host_id: 3})
    database._connection.close()  # the process ends here
    await frontier.open()
    totals = frontier.totals()
    assert (totals.queued, totals.forgotten) == (1, 8)
    assert await frontier.take(host_id, 9, leased=()) == []
    assert list((await frontier.add([found("http://a.example/new")], now=NOW)).links_new) == [0]
    await frontier.close(clean=True)
    database = Database(path)
    assert database.get("SELECT count(*) FROM url WHERE target <> ''") == 1
    assert database.get("SELECT value FROM meta WHERE name = 'forgetting'") == "[]"
    database.close()


async def test_forgotten_urls_of_an_older_store_count_once(path: Path) -> None:
    """It did not store the number of marks: readers count them, and so does the next
    start, and neither finds fault with it.
    """
    frontier = SqliteFrontier(path)
    await frontier.open()
    await frontier.add([found(f"https://a.example/{n}") for n in range(3)], now=NOW)
    for n in (1, 2, 9):  # the last was never known
        await frontier.forget_url(f"https://a.example/{n}", now=NOW + n)
    await frontier.close(clean=True)
    database = Database(path)
    assert int(database.get("SELECT value FROM meta WHERE name = 'forgotten_marks'")) > 10
    database.run("DELETE FROM meta WHERE name = 'forgotten_marks'", ())
    database.close()
    for forgotten, by in ((3, "the older version"), (4, "this one")):
        auditor = Auditor(path, is_live=False)
        auditor.begin()
        assert list(auditor.own_problems()) == [], by
        assert (auditor.totals()["queued"], auditor.totals()["forgotten"]) == (1, forgotten)
        auditor.close()
        await frontier.open()
        assert (frontier.totals()).forgotten == forgotten
        await frontier.forget_url(f"https://a.example/more-{by}", now=NOW + 20)
        assert (frontier.totals()).forgotten == forgotten + 1
        await frontier.close(clean=True)
