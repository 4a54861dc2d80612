"""The Bloom filters know the URLs of the store, whatever happened to their file."""

import random
import shutil
from collections.abc import Iterator
from pathlib import Path

import apsw
import pytest

from crawler.frontier.sqlite import insertions as module
from crawler.frontier.sqlite.database import Database
from crawler.frontier.sqlite.insertions import BloomFilters
from crawler.frontier.sqlite.store import SqliteFrontier
from tests.support.frontiers import NOW, FaultyFiles, fast_folder, found


@pytest.fixture(autouse=True)
def same_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same false positives in every run: with a random secret one run in a hundred has an unexpected one."""
    rng = random.Random(1)
    monkeypatch.setattr(module.secrets, "token_hex", lambda size: rng.randbytes(size).hex())


@pytest.fixture
def folder() -> Iterator[Path]:
    with fast_folder() as folder:
        yield folder


async def add(path: Path, first: int, last: int, *, duplicates: str = "filter", clean: bool = True) -> int:
    """Add the URLs with these numbers. Returns how many were new."""
    frontier = SqliteFrontier(path, duplicates=duplicates)
    await frontier.open()
    receipt = await frontier.add([found(f"https://a.example/{n}") for n in range(first, last)], now=NOW)
    await frontier.close(clean=clean)
    return sum(receipt.links_new)


@pytest.mark.parametrize("fate", ["kept", "gone", "torn", "damaged", "of another moment", "no filter"])
async def test_known_urls_do_not_depend_on_the_file(folder: Path, fate: str) -> None:
    """A valid file is read, otherwise the store: no known URL is stored twice."""
    path = folder / "frontier.db"
    kept = folder / "frontier.db.filter"
    assert await add(path, 0, 3_000) == 3_000
    old = kept.read_bytes()
    assert await add(path, 2_000, 5_000) == 2_000
    match fate:
        case "gone":
            kept.unlink()
        case "torn":
            kept.write_bytes(kept.read_bytes()[:-1_000])
        case "damaged":
            kept.write_bytes(old[:5_000] + b"\xff\xff" + old[5_002:])
        case "of another moment":
            kept.write_bytes(old)
        case "no filter":
            kept.write_bytes(b"something else\n")
    assert await add(path, 0, 5_500) == 500


async def test_rows_stored_after_the_last_save_are_added_at_the_start(folder: Path) -> None:
    """After a kill the file lacks the last URLs of the store."""
    path = folder / "frontier.db"
    await add(path, 0, 1_000)
    assert await add(path, 1_000, 2_000, clean=False) == 1_000
    assert await add(path, 0, 2_000) == 0


async def test_a_restored_backup_is_not_joined_with_a_newer_filter(folder: Path) -> None:
    """The filter knows URLs that the backup lacks: they would count as known and be lost."""
    path = folder / "frontier.db"
    await add(path, 0, 1_000)
    shutil.copy(path, folder / "backup.db")
    await add(path, 1_000, 2_000)
    shutil.copy(folder / "backup.db", path)
    assert await add(path, 0, 2_000) == 1_000


async def test_a_failed_transaction_does_not_change_the_filter(folder: Path) -> None:
    """Its URLs are still new afterwards."""
    files = FaultyFiles()
    frontier = SqliteFrontier(folder / "frontier.db", duplicates="filter", vfs=files.name)
    await frontier.open()
    urls = [found(f"https://a.example/{n}") for n in range(500)]
    files.fail("write", 1, (apsw.FullError, apsw.SQLITE_FULL))
    with pytest.raises(Exception, match="no room"):
        await frontier.add(urls, now=NOW)
    files.stop_failing()
    assert sum((await frontier.add(urls, now=NOW)).links_new) == 500
    await frontier.close(clean=True)
    files.unregister()


@pytest.mark.parametrize(("before", "after"), [("exact", "filter"), ("filter", "exact")])
async def test_a_store_may_change_between_exact_and_filter(folder: Path, before: str, after: str) -> None:
    """Known URLs stay known, and the index of the other kind is dropped."""
    path = folder / "frontier.db"
    await add(path, 0, 1_000, duplicates=before)
    assert await add(path, 0, 1_100, duplicates=after) == 100
    assert await add(path, 0, 1_200, duplicates=before) == 100
    database = Database(path)
    indexes = {name for (name,) in database.rows("SELECT name FROM sqlite_schema WHERE name LIKE 'url_%'")}
    assert ("url_key" in indexes, "url_settled" in indexes) == (before == "exact", before == "filter")
    database.close()


async def test_it_grows_by_parts_and_saves_itself(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A larger part follows a full one; the error rate of all parts stays within its bound."""
    monkeypatch.setattr(module, "FIRST_CAPACITY", 1_000)
    monkeypatch.setattr(module, "SAVE_EVERY", 2_500)
    path = folder / "frontier.db"
    frontier = SqliteFrontier(path, duplicates="filter")
    await frontier.open()
    for start in range(0, 6_000, 500):
        urls = [found(f"https://a.example/{n}") for n in range(start, start + 500)]
        assert sum((await frontier.add(urls, now=NOW)).links_new) == 500
    assert (folder / "frontier.db.filter").exists()  # before any close
    await frontier.close(clean=False)
    database = Database(path)
    seen = BloomFilters(folder / "frontier.db.filter", database)
    assert [part.capacity for part in seen._parts] == [1_000, 2_000, 4_000]
    assert sum(part.count for part in seen._parts) == 6_000
    # Keys of another host, equal to those stored, are not known.
    keys = [key for (key,) in database.rows("SELECT hash FROM url")]
    fresh: set[int] = set()
    assert all(seen.is_new(fresh, 2, key) for key in keys)
    assert not any(seen.is_new(set(), 1, key) for key in keys)
    database.close()


async def test_a_page_gives_the_same_new_links_as_one_by_one(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Known in either part, new, twice on the page, new on an earlier page, of another host, of a host taken down."""
    monkeypatch.setattr(module, "FIRST_CAPACITY", 100)
    path = folder / "frontier.db"
    await add(path, 0, 100)
    await add(path, 100, 250)
    database = Database(path)
    seen = BloomFilters(folder / "frontier.db.filter", database)
    assert len(seen._parts) == 2
    numbers = [3, 240, 1_000, 1_001, 1_000, 1_002, 7, 1_003]
    hosts = [1, 1, 1, 1, 1, 1, 2, 0]
    page = [found(f"https://a.example/{n}") for n in numbers]
    fresh: set[int] = set()
    assert seen.is_new(fresh, 1, page[5].key)
    one_by_one = set(fresh)
    new = seen.select(fresh, hosts, page)
    assert new == [(1, page[2]), (1, page[3]), (2, page[6])]
    assert new == [
        (host, one) for host, one in zip(hosts, page, strict=True) if host and seen.is_new(one_by_one, host, one.key)
    ]
    assert fresh == one_by_one
    database.close()
