"""Stores of older versions are migrated whole or not at all."""

from collections.abc import Iterator
from pathlib import Path

import apsw
import pytest

from crawler.engine.operations import requeue
from crawler.frontier.base import Leaving, UrlSelection, Wanted
from crawler.frontier.sqlite.database import MIGRATIONS, Database
from crawler.frontier.sqlite.store import SqliteFrontier
from tests.support.frontiers import NOW, FaultyFiles, copy_store, fast_folder, found

# A store as version 1 left it: one URL of each state, a host with its counts.
VERSION_1 = """
INSERT INTO host (id, slot, scheme, host, port, domain, queued, fetched, found_at)
  VALUES (1, 7, 'https', 'a.example', 443, 'a.example', 1, 4, 1.0);
INSERT INTO url (id, host, hash, depth, state, target, source, found_at) VALUES
  (1, 1, 11, 0, 'done', '/1', 'seed', 1.0), (2, 1, 12, 0, 'gave_up', '/2', 'seed', 1.0),
  (3, 1, 13, 0, 'waiting', '/3', 'seed', 1.0), (4, 1, 14, 0, 'denied', '/4', 'seed', 1.0),
  (5, 1, 15, 0, 'queued', '/5', 'seed', 1.0);
INSERT INTO visit (url, next_at, attempts, last_at, last_error, digest) VALUES
  (1, NULL, 1, 5.0, NULL, 'sha256:A'), (2, NULL, 4, 5.0, 'reset', NULL), (3, 9.0, 1, 5.0, 'reset', NULL),
  (4, NULL, 0, 5.0, 'robots', NULL);
INSERT INTO meta VALUES
  ('totals', '{"queued":1,"waiting":1,"done":1,"denied":1,"gave_up":1,"hosts":1}'), ('clean', '1');
"""


@pytest.fixture
def folder() -> Iterator[Path]:
    with fast_folder() as folder:
        yield folder


@pytest.fixture
def files() -> Iterator[FaultyFiles]:
    vfs = FaultyFiles()
    yield vfs
    vfs.unregister()


def make_version_1(path: Path) -> None:
    database = Database(path, migrations=MIGRATIONS[:1])
    database.run(VERSION_1)
    database.close()


async def check_upgraded(path: Path, *, was_opened: bool = False) -> None:
    """The store has the newest version, and nothing is lost. `was_opened`: it may have been opened, and not closed."""
    frontier = SqliteFrontier(path)
    recovered = await frontier.open()
    assert recovered.clean or was_opened
    assert [(row.queued, row.fetched) for row in await frontier.host_rows(after=0, limit=9)] == [(1, 4)]
    (key,) = (await frontier.exchange(Leaving(), Wanted(places=9))).keys
    assert [(key.name, row.id, row.queued) for row in key.hosts] == [("a.example", 1, 1)]
    assert [task.id for task in await frontier.take(1, 9, leased=())] == [5]
    assert await requeue(frontier, UrlSelection(errors=("reset",))) == {1: 2}
    tasks = {task.id: (task.visits, task.attempt) for task in await frontier.take(1, 9, leased=())}
    assert tasks == {2: (1, 1), 3: (0, 2), 5: (0, 1)}
    await frontier.close(clean=True)
    database = Database(path)
    assert database.get("PRAGMA user_version") == len(MIGRATIONS)
    assert database.get("PRAGMA integrity_check") == "ok"
    assert database.get("SELECT visits, digest FROM visit WHERE url = 1") == (1, "sha256:A")
    assert database.get("SELECT count(*) FROM sqlite_schema WHERE name = 'template'") == 0
    database.close()


async def test_a_kill_at_any_write_of_a_migration_loses_nothing(folder: Path, files: FaultyFiles) -> None:
    """The store as it was before each write and sync opens, and the migration continues."""
    path = folder / "frontier.db"
    make_version_1(path)
    crashed: list[Path] = []

    def crash(_call: str) -> None:
        crashed.append(folder / f"crashed-{len(crashed)}" / path.name)
        copy_store(path, crashed[-1])

    files.before = crash
    frontier = SqliteFrontier(path, vfs=files.name)
    await frontier.open()
    files.before = None
    await frontier.close(clean=True)
    assert len(crashed) > 15
    for one in [*crashed, path]:
        await check_upgraded(one, was_opened=True)


async def test_another_politeness_key_is_given_to_all_hosts_after_a_kill_at_any_write(
    folder: Path, files: FaultyFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    """politeness.key was changed: whichever it is at the next start, every host with work is found by it."""
    monkeypatch.setattr("crawler.frontier.sqlite.readiness.SLICE", 2)
    path = folder / "frontier.db"
    urls = [found(f"https://{host}.{domain}.example/") for host in "xyz" for domain in "ab"]
    frontier = SqliteFrontier(path, politeness_key="domain")
    await frontier.open()
    await frontier.add(urls, now=NOW)
    await frontier.close(clean=True)
    crashed: list[Path] = []

    def crash(_call: str) -> None:
        crashed.append(folder / f"crashed-{len(crashed)}" / path.name)
        copy_store(path, crashed[-1])

    files.before = crash
    frontier = SqliteFrontier(path, politeness_key="host", vfs=files.name)
    await frontier.open()
    files.before = None
    await frontier.close(clean=True)
    for number, one in enumerate([*crashed, path]):
        mode, keys = ("host", 6) if number % 2 else ("domain", 2)
        frontier = SqliteFrontier(one, politeness_key=mode)
        await frontier.open()
        entered = await frontier.exchange(Leaving(), Wanted(NOW, places=9, hosts=9))
        assert (len(entered.keys), sum(len(key.hosts) for key in entered.keys)) == (keys, 6)
        await frontier.close(clean=True)


@pytest.mark.parametrize("call", ["write", "sync"])
async def test_a_migration_that_fails_at_any_call_can_be_repeated(folder: Path, files: FaultyFiles, call: str) -> None:
    """It succeeds when the disk works again."""
    nth = 0
    while True:
        nth += 1
        path = folder / f"{nth}" / "frontier.db"
        path.parent.mkdir()
        make_version_1(path)
        files.fail(call, nth, (apsw.FullError, apsw.SQLITE_FULL))
        try:
            Database(path, vfs=files.name).close()
            has_failed = False
        except OSError:
            has_failed = True
        left, _ = files._left, files.stop_failing()
        await check_upgraded(path)
        if not has_failed and left > 0:
            break
    assert nth > 1
