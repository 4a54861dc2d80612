"""The power fails: unsynced writes of the store are lost, or torn, or there. What was acknowledged is there."""

import random
from collections.abc import Iterator
from pathlib import Path

import apsw
import pytest

from crawler.core.enums import UrlState
from crawler.frontier.base import FrontierError
from crawler.frontier.sqlite import database as module
from crawler.frontier.sqlite.store import SqliteFrontier
from tests.support.frontiers import NOW, batch, fast_folder, found, links, visit
from tests.support.powercut import UnsafeFiles

ROUNDS = 12  # settlements in one life of the store
LINKS = 40


@pytest.fixture
def files() -> Iterator[UnsafeFiles]:
    vfs = UnsafeFiles()
    yield vfs
    vfs.unregister()


async def live_and_cut(folder: Path, files: UnsafeFiles, rng: random.Random, cuts: int) -> list[tuple[Path, int, int]]:
    """Settle page after page; at random writes and syncs the power fails. Returns for each cut the folder it left, how
    many settlements were acknowledged by then, and how many more were begun.
    """
    left: list[tuple[Path, int, int]] = []
    acknowledged = begun = 0

    def perhaps() -> None:
        if len(left) < cuts and rng.random() < 0.06:
            left.append((folder / f"cut-{len(left)}", acknowledged, begun))
            files.cut(left[-1][0], rng)

    path = folder / "frontier.db"
    frontier = SqliteFrontier(path, vfs=files.name)
    await frontier.open()
    await frontier.add([found(f"https://a.example/seed-{n}") for n in range(ROUNDS)], now=NOW)
    files.before = perhaps
    for task in await frontier.take(1, ROUNDS, leased=()):
        begun += 1
        discovered = links(*(f"https://a.example/{task.id}/{n}" for n in range(LINKS)))
        await frontier.settle(batch(visit(task, discovered=discovered)))
        acknowledged += 1
    await frontier.close(clean=True)
    files.before = lambda: None
    files.disks.clear()
    return left


async def check(left: Path, acknowledged: int, begun: int) -> None:
    """The store opens; it holds all acknowledged settlements, and each of them whole."""
    with apsw.Connection(str(left / "frontier.db")) as connection:
        assert connection.execute("PRAGMA integrity_check").get == "ok"
    connection.close()
    frontier = SqliteFrontier(left / "frontier.db")
    await frontier.open()
    totals = frontier.totals()
    assert acknowledged <= totals.done <= begun
    assert totals.queued == ROUNDS - totals.done + LINKS * totals.done
    assert [row.queued for row in await frontier.host_rows(after=0, limit=9)] == [totals.queued]
    tasks = await frontier.take(1, 10_000, leased=())
    assert len(tasks) == totals.queued
    assert sorted(t.url for t in tasks if "seed" in t.url) == sorted(
        f"https://a.example/seed-{n}" for n in range(totals.done, ROUNDS)
    )
    again = await frontier.settle(batch(visit(tasks[0], state=UrlState.DONE)))
    assert list(again.links_new) == [0]
    await frontier.close(clean=True)


async def lose_power(files: UnsafeFiles, seeds: range, cuts: int, monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(module, "CHECKPOINT_PAGES", 60)  # so that the file itself is written in mid-life, too
    made = 0
    for seed in seeds:
        with fast_folder() as folder:
            for left, acknowledged, begun in await live_and_cut(folder, files, random.Random(seed), cuts):
                await check(left, acknowledged, begun)
                made += 1
    return made


async def test_a_power_cut_loses_nothing_that_was_acknowledged(
    files: UnsafeFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At any write or sync, whichever of the unsynced sectors reached the disk."""
    assert await lose_power(files, range(6), 10, monkeypatch) >= 30


@pytest.mark.prove
@pytest.mark.timeout(1800)
async def test_a_thousand_power_cuts_lose_nothing_that_was_acknowledged(
    files: UnsafeFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same, more often."""
    assert await lose_power(files, range(100, 220), 12, monkeypatch) >= 1_000


async def test_a_disk_that_ignores_syncs_is_told_from_one_that_does_not(
    files: UnsafeFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    """This suite can fail: where syncs do nothing, acknowledged settlements are lost."""
    monkeypatch.setattr("tests.support.powercut._UnsafeFile.xSync", lambda self, flags: self._files.before())
    with pytest.raises((AssertionError, apsw.Error, FrontierError)):
        await lose_power(files, range(6), 10, monkeypatch)
