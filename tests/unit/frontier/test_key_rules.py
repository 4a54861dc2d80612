"""Stores of version 5, whose keys have older rules: merged URLs are separated, forgotten ones stay out."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from crawler.core.enums import TaskKind
from crawler.core.models import Discovered
from crawler.core.url import kind_key_of, respelled_key_of
from crawler.frontier.sqlite import maintenance
from crawler.frontier.sqlite.database import MIGRATIONS, Database
from crawler.frontier.sqlite.insertions import BloomFilters, use_index
from crawler.frontier.sqlite.snapshots import Auditor
from crawler.frontier.sqlite.store import SqliteFrontier
from crawler.frontier.sqlite.store_reader import StoreReader
from tests.support.frontiers import NOW, fast_folder, found

HERE = Path(__file__).parent
A = "https://a.example"
HASH, OTHER_HASH = "9f86d081884c7d659a2feaa0c55ad015", "60303ae22b998861bce3b28f33eec1be"

KNOWN = (
    found(f"{A}/?s=covid-19"), found(f"{A}/article.php?sid=20240131"), found(f"{A}/forum?sid={HASH}"),
    found(f"{A}/forum?sid={OTHER_HASH}"), found(f"{A}/forum"), found(f"{A}/plain"),
    found(f"{A}/tag?session_id=7&page=2"), found("http://a.example:8080/?s=2024-05-06"),
    replace(found(f"{A}/~jo"), key=respelled_key_of(f"{A}/~jo")),
    replace(found(f"{A}/map.xml?sid=20240131"), kind=TaskKind.SITEMAP,
            key=kind_key_of(f"{A}/map.xml?sid=20240131", TaskKind.SITEMAP)),
)  # fmt: skip
FORGOTTEN = (
    found(f"{A}/cut?sess=2024-term-1"), found(f"{A}/cut"), found(f"{A}/cut?sess=2024-term-2"),
    found(f"{A}/never?sid=20250101"), found(f"{A}/never"), found(f"{A}/never?sid=20250102"),
    replace(found(f"{A}/never?sid=20250101"), kind=TaskKind.FEED,
            key=kind_key_of(f"{A}/never?sid=20250101", TaskKind.FEED)),
    replace(found(f"{A}/s?q=%EF%F0"), legacy_url=f"{A}/s?q=%D0%BF%D1%80"),  # of a page in windows-1251
    found("https://b.example/x?sid=20240131"), found("https://b.example/y"),
)  # fmt: skip
# The others of the merged pairs, and what is like none of those that were known or forgotten.
NEW = (
    found(f"{A}/"), found(f"{A}/article.php?sid=20240201"), found(f"{A}/tag?session_id=8&page=2"),
    found(f"{A}/cut?page=2"),
    replace(found(f"{A}/s?q=%EF"), legacy_url=f"{A}/s?q=%D0%BF"), found(f"{A}/forum?sid=20240131"),
    found("http://a.example:8080/"),
)  # fmt: skip


@pytest.fixture
def folder() -> Iterator[Path]:
    with fast_folder() as folder:
        yield folder


def make_version_5(path: Path, *, duplicates: str = "exact") -> None:
    database = Database(path, migrations=MIGRATIONS[:5])
    with database.transaction():
        database.run((HERE / "store_5.sql").read_text())
    if duplicates == "filter":
        use_index(database, unique=False)
        BloomFilters(path.with_name(path.name + ".filter"), database).save()
    database.close()


async def links_new(frontier: SqliteFrontier, discovered: tuple[Discovered, ...]) -> list[int]:
    return list((await frontier.add(discovered, now=NOW)).links_new)


async def check_brought_up(frontier: SqliteFrontier) -> None:
    assert await links_new(frontier, KNOWN) == [0] * len(KNOWN)
    assert await links_new(frontier, FORGOTTEN) == [0] * len(FORGOTTEN)
    assert await frontier.forgotten((*KNOWN, *FORGOTTEN, *NEW)) == list(FORGOTTEN)
    assert await links_new(frontier, NEW) == [1] * len(NEW)
    assert await links_new(frontier, NEW) == [0] * len(NEW)
    totals = frontier.totals()
    assert (totals.queued, totals.forgotten) == (8 + len(NEW), 4)


@pytest.mark.parametrize("duplicates", ["exact", "filter"])
async def test_merged_urls_are_separated_and_forgotten_ones_stay_out(folder: Path, duplicates: str) -> None:
    """At the first start, and at the next."""
    path = folder / "frontier.db"
    make_version_5(path, duplicates=duplicates)
    frontier = SqliteFrontier(path, duplicates=duplicates)
    await frontier.open()
    await check_brought_up(frontier)
    await frontier.close(clean=True)
    auditor = Auditor(path, is_live=False)
    auditor.begin()
    assert list(auditor.own_problems()) == []
    auditor.close()
    await frontier.open()
    assert await links_new(frontier, (*KNOWN, *FORGOTTEN, *NEW)) == [0] * len((*KNOWN, *FORGOTTEN, *NEW))
    await frontier.close(clean=True)


@pytest.mark.parametrize("slices", [0, 1, 4, 8])
async def test_a_kill_between_two_slices_is_repaired(
    folder: Path, slices: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next start continues where this one ended."""
    monkeypatch.setattr(maintenance, "SLICE", 3)
    path = folder / "frontier.db"
    make_version_5(path)
    database = Database(path)
    left = slices

    def run_then_die(sql: str, values: tuple[object, ...] = ()) -> None:
        nonlocal left
        if values[:1] == ("rekeyed_to",):
            left -= 1
            if left < 0:
                raise KeyboardInterrupt
        Database.run(database, sql, values)

    monkeypatch.setattr(database, "run", run_then_die)
    with pytest.raises(KeyboardInterrupt):
        maintenance.upgrade_keys(database)
    database._connection.close()
    frontier = SqliteFrontier(path)
    await frontier.open()
    await check_brought_up(frontier)
    await frontier.close(clean=True)


async def test_a_takedown_today_is_of_one_url_alone(folder: Path) -> None:
    """Neither the page that it was merged with nor another value of that parameter is forgotten."""
    path = folder / "frontier.db"
    make_version_5(path)
    frontier = SqliteFrontier(path)
    await frontier.open()
    assert (await frontier.forget_url(f"{A}/?s=covid-19", now=NOW)).urls == 1
    assert await links_new(frontier, (found(f"{A}/?s=covid-19"), found(f"{A}/"), found(f"{A}/?s=flu-2020"))) == [
        0,
        1,
        1,
    ]
    await frontier.close(clean=True)


async def test_a_new_store_has_the_current_rules(folder: Path) -> None:
    frontier = SqliteFrontier(folder / "frontier.db")
    await frontier.open()
    assert await links_new(frontier, (*NEW, *KNOWN[:3])) == [1] * (len(NEW) + 3)
    await frontier.close(clean=True)
    with StoreReader(folder / "frontier.db", is_live=False) as reader:
        assert reader.meta("key_rules") == "2"


async def test_a_reader_finds_urls_of_an_older_store(folder: Path) -> None:
    """By their legacy keys before a crawl has upgraded it; afterwards only forgotten URLs."""
    path = folder / "frontier.db"
    make_version_5(path)
    with StoreReader(path, is_live=False) as reader:
        row = reader.url_by_legacy_key(1, f"{A}/article.php?sid=20240201")
        assert row is not None
        assert row["target"] == "/article.php?sid=20240131"
        assert reader.url_by_legacy_key(1, f"{A}/plain") is None
    frontier = SqliteFrontier(path)
    await frontier.open()
    await links_new(frontier, NEW)
    await frontier.close(clean=True)
    with StoreReader(path, is_live=False) as reader:
        assert reader.url_by_legacy_key(1, f"{A}/?s=covid-19") is None
        row = reader.url_by_legacy_key(1, f"{A}/never?sid=20250102")
        assert row is not None
        assert row["state"] == "forgotten"
