"""What the writer keeps in memory is bounded and never ahead of the store."""

from collections.abc import Iterator
from pathlib import Path

import apsw
import pytest

from crawler.frontier import discoveries as module
from crawler.frontier.database import Database
from crawler.frontier.writer import Writer
from tests.support.frontiers import NOW, fast_folder, found


@pytest.fixture
def database() -> Iterator[Database]:
    with fast_folder() as folder:
        database = Database(Path(folder) / "frontier.db")
        yield database
        database.close()


def test_a_forgotten_host_is_found_again(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only so many are remembered; the others are looked up, not added anew."""
    monkeypatch.setattr(module, "HOSTS_REMEMBERED", 3)
    writer = Writer(database)
    for page in range(3):
        receipt = writer.add([found(f"https://h{n}.example/{page}") for n in range(10)], NOW)
        assert list(receipt.links_new) == [1] * 10
        assert len(receipt.hosts) == (10 if page == 0 else 0)
        assert len(writer.urls._host_ids) == 3
    assert writer.totals.hosts == 10


def test_a_host_of_a_failed_transaction_is_not_remembered(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its row is gone, and its number goes to the next."""
    writer = Writer(database)
    with monkeypatch.context() as patch:
        patch.setattr(database, "run_many", lambda *_, **__: database.run("INSERT INTO nowhere VALUES (1)"))
        with pytest.raises(apsw.SQLError):
            writer.add([found("https://a.example/")], NOW)
    assert writer.totals.hosts == 0
    assert [row.id for row in writer.add([found("https://b.example/")], NOW).hosts] == [1]
    assert [row.id for row in writer.add([found("https://a.example/")], NOW).hosts] == [2]
    assert writer.totals.hosts == 2
