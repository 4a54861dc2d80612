"""Takedowns that a crash cuts short."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from crawler.frontier import forget
from crawler.frontier.database import Database
from crawler.frontier.sqlite import SqliteFrontier
from crawler.frontier.writer import Writer
from tests.support.frontiers import NOW, fast_folder, found


@pytest.fixture
def path() -> Iterator[Path]:
    with fast_folder() as folder:
        yield folder / "frontier.db"


@pytest.mark.parametrize("slices", [0, 1, 2])
async def test_a_takedown_of_a_host_is_finished_by_the_next_start(
    path: Path, slices: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The host is closed from the first transaction on; nothing of it is ever taken again."""
    monkeypatch.setattr(forget, "SLICE", 3)
    frontier = SqliteFrontier(path)
    await frontier.open()
    await frontier.add([found(f"https://a.example/{n}") for n in range(8)] + [found("https://b.example/")], now=NOW)
    await frontier.close(clean=True)
    database = Database(path)
    writer = Writer(database)
    (host_id,) = forget.forget_host(writer, "a.example", NOW).host_ids
    after: int | None = forget.LOWEST
    for _ in range(slices):
        assert after is not None
        erased, after = forget.forget_slice(writer, host_id, after, NOW)
        assert (erased.urls, erased.queued) == (3, {host_id: 3})
    database._connection.close()  # the process ends here
    await frontier.open()
    totals = await frontier.totals()
    assert (totals.queued, totals.forgotten) == (1, 8)
    assert await frontier.take(host_id, 9, leased=()) == []
    assert list((await frontier.add([found("http://a.example/new")], now=NOW)).links_new) == [0]
    await frontier.close(clean=True)
    database = Database(path)
    assert database.get("SELECT count(*) FROM url WHERE target <> ''") == 1
    assert database.get("SELECT value FROM meta WHERE name = 'forgetting'") == "[]"
    database.close()
