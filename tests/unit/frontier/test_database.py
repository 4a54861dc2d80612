"""The file of a store: which files are opened, how the log grows, what errors mean."""

import errno
import shutil
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import apsw
import pytest

from crawler.core.enums import UrlState
from crawler.core.models import UNTIL_EVENT
from crawler.frontier.base import FrontierCorrupt, FrontierFull, FrontierVersion, UrlSelection
from crawler.frontier.sqlite import database as module
from crawler.frontier.sqlite import sql
from crawler.frontier.sqlite.database import APPLICATION_ID, MIGRATIONS, Database
from crawler.frontier.sqlite.snapshots import StoreBackup
from crawler.frontier.sqlite.store import SqliteFrontier
from crawler.frontier.sqlite.store_reader import StoreReader
from tests.support.frontiers import NOW, fast_folder, found


@pytest.fixture
def path() -> Iterator[Path]:
    with fast_folder() as folder:
        yield folder / "frontier.db"


async def make_store(path: Path, urls: int = 1) -> None:
    frontier = SqliteFrontier(path)
    await frontier.open()
    await frontier.add([found(f"https://a.example/{n}") for n in range(urls)], now=NOW)
    await frontier.close(clean=True)


# -- which files it opens


async def test_the_settings_of_the_connection(path: Path) -> None:
    """Each commit is durable, and a damaged disk is an error, not a signal."""
    database = Database(path)
    names = ("journal_mode", "synchronous", "page_size", "mmap_size", "application_id", "user_version")
    assert [database.get(f"PRAGMA {name}") for name in names] == ["wal", 2, 4_096, 0, APPLICATION_ID, len(MIGRATIONS)]
    database.close()


@pytest.mark.parametrize("content", [b"not a database, but long enough to look at" * 100, b"x", b"\0" * 8_192])
async def test_a_file_that_is_no_database_is_refused_and_left_alone(path: Path, content: bytes) -> None:
    """It may be somebody else's file."""
    path.write_bytes(content)
    with pytest.raises(FrontierCorrupt, match=r"frontier\.db"):
        await SqliteFrontier(path).open()
    assert path.read_bytes() == content


async def test_an_empty_file_is_a_new_store(path: Path) -> None:
    """A crash at the first start leaves one."""
    path.touch()
    await make_store(path)
    assert path.read_bytes().startswith(b"SQLite format 3\0")


async def test_another_programs_database_is_refused_and_left_alone(path: Path) -> None:
    """It has other tables."""
    connection = apsw.Connection(str(path))
    connection.execute("CREATE TABLE theirs (x)")
    connection.close()
    before = path.read_bytes()
    with pytest.raises(FrontierCorrupt, match="another program"):
        await SqliteFrontier(path).open()
    assert path.read_bytes() == before


async def test_a_newer_version_is_refused(path: Path) -> None:
    """It may have data that this program would damage."""
    await make_store(path)
    connection = apsw.Connection(str(path))
    connection.pragma("user_version", 99)
    connection.close()
    with pytest.raises(FrontierVersion, match="version 99"):
        await SqliteFrontier(path).open()


async def test_a_truncated_store_is_found_at_once(path: Path) -> None:
    """SQLite knows the length of its file."""
    await make_store(path, urls=1_000)
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size // 2 // 4_096 * 4_096)
    with pytest.raises(FrontierCorrupt):
        await SqliteFrontier(path).open()


async def test_damage_found_later_is_reported_as_damage(path: Path) -> None:
    """A page of the file is overwritten."""
    await make_store(path, urls=1_000)
    connection = apsw.Connection(str(path))
    root = connection.execute("SELECT rootpage FROM sqlite_schema WHERE name = 'url'").get
    connection.close()
    with path.open("r+b") as file:
        file.seek((root - 1) * 4_096)
        file.write(b"\xff" * 4_096)
    frontier = SqliteFrontier(path)
    await frontier.open()
    with pytest.raises(FrontierCorrupt):
        await frontier.take(1, 10, leased=())
    await frontier.close(clean=False)


async def test_a_folder_that_is_not_there_is_an_os_error(tmp_path: Path) -> None:
    """It is not reported as a damaged store."""
    with pytest.raises(FileNotFoundError):
        await SqliteFrontier(tmp_path / "no" / "frontier.db").open()


async def test_a_folder_at_the_path_is_an_os_error(path: Path) -> None:
    """The message says that it is a folder."""
    path.mkdir()
    with pytest.raises(IsADirectoryError):
        await SqliteFrontier(path).open()


async def test_an_open_that_failed_can_be_repeated(path: Path) -> None:
    """It released its lock and its thread."""
    path.write_bytes(b"no database" * 1_000)
    frontier = SqliteFrontier(path)
    with pytest.raises(FrontierCorrupt):
        await frontier.open()
    path.unlink()
    assert (await frontier.open()).clean
    await frontier.close(clean=True)


# -- migrations

ADD_NOTE = "ALTER TABLE host ADD COLUMN note TEXT; UPDATE host SET note = 'was here';"


async def test_an_old_store_is_migrated_step_by_step(path: Path) -> None:
    """Its data stay."""
    await make_store(path)
    database = Database(path, migrations=(*MIGRATIONS, ADD_NOTE, "CREATE TABLE later (x)"))
    assert database.get("SELECT host, note FROM host") == ("a.example", "was here")
    assert database.get("PRAGMA user_version") == len(MIGRATIONS) + 2
    assert database.get("SELECT count(*) FROM later") == 0
    database.close()


async def test_a_step_that_fails_leaves_the_version_before_it(path: Path) -> None:
    """The steps before it are kept; with the step corrected the migration continues."""
    await make_store(path)
    with pytest.raises(apsw.SQLError):
        Database(path, migrations=(*MIGRATIONS, ADD_NOTE, "CREATE TABLE later (x); INSERT INTO nowhere VALUES (1)"))
    with pytest.raises(FrontierVersion):  # the step before it is stored
        Database(path)
    database = Database(path, migrations=(*MIGRATIONS, ADD_NOTE, "CREATE TABLE later (x)"))
    assert database.get("SELECT note FROM host") == "was here"
    database.close()


# -- the log


def fill(database: Database, rounds: int) -> None:
    for n in range(rounds):
        with database.transaction():
            database.run("INSERT OR REPLACE INTO meta VALUES (?, ?)", (str(n % 50), "x" * 20_000))


def log_bytes(path: Path) -> int:
    return path.with_name(path.name + "-wal").stat().st_size


async def test_the_log_starts_over_once_it_is_copied(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The log of a long crawl stays bounded."""
    monkeypatch.setattr(module, "CHECKPOINT_PAGES", 100)
    database = Database(path)
    fill(database, 100)
    assert log_bytes(path) < 130 * 4_200
    database.close()
    assert not path.with_name(path.name + "-wal").exists()


async def test_a_reader_does_not_make_the_log_grow_for_ever(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While it reads, the log grows; the next commit after it truncates the file."""
    monkeypatch.setattr(module, "CHECKPOINT_PAGES", 100)
    monkeypatch.setattr(module, "LOG_LIMIT_PAGES", 200)
    monkeypatch.setattr(module, "BUSY_MS", 1)
    database = Database(path)
    reader = apsw.Connection(str(path))
    reader.execute("BEGIN; SELECT count(*) FROM meta").get  # noqa: B018 - takes a snapshot
    fill(database, 100)
    assert log_bytes(path) > 500 * 4_096
    reader.execute("COMMIT")
    fill(database, 100)
    assert log_bytes(path) <= 230 * 4_200
    reader.close()
    database.close()


async def test_overlapping_readers_do_not_make_the_log_grow_for_ever(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There is a reader at each commit; now and then a checkpoint waits for one."""
    monkeypatch.setattr(module, "CHECKPOINT_PAGES", 100)
    monkeypatch.setattr(module, "LOG_LIMIT_PAGES", 200)
    database = Database(path)
    waits: list[int] = []
    readers: list[apsw.Connection] = []

    def wait(calls: int) -> bool:
        waits.append(calls)
        readers[0].execute("COMMIT")
        return True

    database._connection.set_busy_handler(wait)
    for _ in range(200):
        readers.append(apsw.Connection(str(path)))
        readers[-1].execute("BEGIN; SELECT count(*) FROM meta").get  # noqa: B018 - takes a snapshot
        if len(readers) > 1:
            readers.pop(0).close()
        fill(database, 1)
        assert log_bytes(path) < 500 * 4_200
    assert 0 < len(waits) < 20
    readers[0].close()
    database.close()


# -- plans


@pytest.mark.parametrize(
    ("statement", "values"),
    [
        ("NEW_BY_VIA", (1,)),
        ("NEW_KEYS", (1,)),
        ("STATES", ("[1]",)),
        ("SET_STATE", ("done", "[1]")),
        ("TAKE", (1, "[]", 10)),
        ("DUE", (NOW, 10)),
        ("NOT_DUE", ("[1]",)),
        ("NEXT_DUE", ()),
        ("LAST_URL", ()),
        ("START_AGAIN", ("[1]",)),
        ("KNOWN_AS", (1, "[1]")),
        ("URLS_OF_HOST", (1, 0, 10)),
        ("LIST_TAKEDOWNS", (NOW, "[1]")),
        ("HOST_ID", ("a", "https", 443)),
        ("COMPUTE_CRAWL_DELAY", (1,)),
    ],
)
async def test_no_statement_scans_a_whole_table(path: Path, statement: str, values: tuple[object, ...]) -> None:
    """Each finds its rows by an index."""
    await make_store(path, urls=1_000)
    database = Database(path)
    plan = [row[3] for row in database.rows("EXPLAIN QUERY PLAN " + getattr(sql, statement), values)]
    walked = [step for step in plan if step.startswith("SCAN") and "json_each" not in step and "subquery" not in step]
    assert walked == []
    assert any(step.startswith("SEARCH") for step in plan)
    database.close()


@pytest.mark.parametrize(
    "selection",
    [
        UrlSelection(errors=("reset",)),
        UrlSelection(statuses=(404, 503)),
        UrlSelection(errors=("reset",), statuses=(404,), host_ids=(1, 2)),
        UrlSelection((UrlState.DONE,), not_visited=(NOW, NOW + 9)),
    ],
)
async def test_settled_urls_are_searched_in_one_range_of_ids(path: Path, selection: UrlSelection) -> None:
    """Each slice costs the same, since other calls wait for it."""
    await make_store(path, urls=1_000)
    database = Database(path)
    statement, values = sql.settled(selection)
    plan = [row[3] for row in database.rows("EXPLAIN QUERY PLAN " + statement, (0, 10, *values))]
    walked = [step for step in plan if step.startswith("SCAN") and "json_each" not in step and "subquery" not in step]
    assert walked == []
    assert any(step.startswith("SEARCH v USING") for step in plan), plan
    database.close()


async def test_tasks_are_read_from_the_index_in_order(path: Path) -> None:
    """There is no sorting, so a host with a million URLs costs as much as one with ten."""
    await make_store(path, urls=1_000)
    database = Database(path)
    plan = "\n".join(row[3] for row in database.rows("EXPLAIN QUERY PLAN " + sql.TAKE, (1, "[]", 10)))
    assert "SEARCH u USING INDEX url_queued (host=?)" in plan
    assert "TEMP B-TREE" not in plan
    database.close()


async def test_statements_are_compiled_once(path: Path) -> None:
    """Not anew for other values."""
    await make_store(path, urls=10)
    database = Database(path)
    compiled = Counter[str]()

    def note(event: dict[str, Any]) -> None:
        compiled[event["sql"]] += event["stmt_status"]["SQLITE_STMTSTATUS_REPREPARE"]

    database._connection.trace_v2(apsw.SQLITE_TRACE_PROFILE, note)
    for host in range(1, 9):
        database.get(sql.TAKE, (host, f"[{host}]", 4))
        database.run(sql.WAKE_KEYS, (f"[{host}]", UNTIL_EVENT))
    assert dict(compiled) == {sql.TAKE: 0, sql.WAKE_KEYS: 0}
    database.close()


# -- errors


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (apsw.FullError("x"), OSError),
        (apsw.IOError("x"), OSError),
        (apsw.ReadOnlyError("x"), PermissionError),
        (apsw.NotADBError("x"), FrontierCorrupt),
        (apsw.SQLError("a bug"), apsw.SQLError),
    ],
)
async def test_errors_while_opening(path: Path, error: apsw.Error, expected: type) -> None:
    """A failing disk is an OSError, damage a FrontierCorrupt, anything else a bug."""
    database = Database(path)
    assert type(database.explain_opening(error)) is expected
    database.close()


async def test_a_full_disk_has_its_errno(path: Path) -> None:
    """So that the caller can distinguish it from a broken disk."""
    database = Database(path)
    full = database.explain_opening(apsw.FullError("x"))
    assert isinstance(full, OSError)
    assert full.errno == errno.ENOSPC
    database.close()


# -- a store that is not where it was


async def test_a_log_of_another_store_beside_a_backup_is_refused(path: Path) -> None:
    """SQLite would apply it. A killed store with its own log is opened."""
    await make_store(path, 5)
    backup = path.with_name("backup.db")
    with StoreBackup(path, is_live=False) as store:
        store.backup(backup, lambda done, total: None)
    newer = Database(path)
    newer.run("CREATE TABLE more (x)")
    log = path.with_name("frontier.db-wal")
    killed = path.with_name("killed.db")
    shutil.copy(path, killed)
    shutil.copy(log, killed.with_name("killed.db-wal"))
    saved = log.read_bytes()
    newer.close()
    Database(killed).close()
    backup.replace(path)
    log.write_bytes(saved)
    before = path.read_bytes()
    for look in (lambda: Database(path), lambda: StoreReader(path, is_live=False)):
        with pytest.raises(FrontierCorrupt, match=r"frontier\.db-wal beside it belongs to another store"):
            look()
    assert (path.read_bytes(), log.read_bytes()) == (before, saved)
    log.unlink()
    frontier = SqliteFrontier(path)
    recovered = await frontier.open()
    assert (recovered.is_restored, (frontier.totals()).queued) == (True, 5)
    await frontier.clear_restored()
    await frontier.close(clean=True)
    again = SqliteFrontier(path)
    assert not (await again.open()).is_restored
    await again.close(clean=True)


async def test_nothing_is_stored_in_a_file_that_was_deleted_or_replaced(path: Path) -> None:
    """A commit would be acknowledged and lost. When the file is back, commits are stored again."""
    await make_store(path)
    frontier = SqliteFrontier(path)
    await frontier.open()
    aside = path.with_name("aside.db")
    path.rename(aside)
    for _ in range(2):  # deleted, then replaced
        with pytest.raises(FrontierFull, match="was deleted or replaced while it was in use: put it back"):
            await frontier.add([found("https://a.example/more")], now=NOW)
        shutil.copy(aside, path)
    aside.replace(path)
    assert list((await frontier.add([found("https://a.example/more")], now=NOW)).links_new) == [1]
    await frontier.close(clean=True)


def test_inspecting_an_open_store_releases_no_lock(path: Path) -> None:
    """Closing a file releases all locks of the process on it, so no code may open and close it besides SQLite."""

    def locks() -> list[str]:
        lines = Path("/proc/locks").read_text().splitlines()
        return [line.split()[2:] for line in lines if f":{path.stat().st_ino} " in line]  # type: ignore[misc]

    database = Database(path)
    with database.transaction():
        database.run(sql.PUT_META, ("x", "1"))
    assert path.with_name("frontier.db-wal").stat().st_size > 0
    before = locks()
    assert before, "SQLite holds no lock: nothing was tried"
    with StoreReader(path, is_live=True) as reader:
        assert reader.meta("x") == "1"
        assert locks() != []
        with database.transaction():
            database.run(sql.PUT_META, ("x", "2"))
    database.close()
