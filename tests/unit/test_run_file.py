"""How a crawl is found from outside: by its directory, by run.json, by who holds the lock."""

import os
import shutil
from pathlib import Path

import orjson
import pytest

from crawler.core.options import PolitenessOptions, Rules, ScopeOptions, ScopeRule, dump_rules, load_rules
from crawler.frontier.sqlite.database import OwnerLock
from crawler.output_directory import find_paths, inode_of, lock_owner

RULES = Rules(
    scope=ScopeOptions(
        hosts=("a.test", "*.b.test"),
        include=(ScopeRule("a.test/**", "crawler.toml:14"),),
        exclude=(ScopeRule("re:[?&]sort="),),
        max_depth=None,
        max_urls=7,
    ),
    politeness=PolitenessOptions(key="host", delay_s=0.5),
    seed_hosts=("a.test", "www.b.test"),
    robots_token="mybot",
    allow_private=("127.0.0.0/8",),
    resolve=(("a.test", ("127.0.0.1",)),),
)


def test_rules_come_back_as_they_were_written() -> None:
    """What run.json holds reads as the same rules."""
    assert load_rules(orjson.loads(orjson.dumps(dump_rules(RULES)))) == RULES


def test_fields_of_a_newer_version_are_passed_over() -> None:
    """A run.json with more in it is still understood."""
    table = dump_rules(RULES)
    table["colour"] = "blue"
    table["scope"]["mood"] = 3
    assert load_rules(table) == RULES


@pytest.mark.parametrize("table", [None, [], 3, {"scope": 3}, {"scope": {"include": [3]}}, {"politeness": "x"}])
def test_what_no_crawl_wrote_is_no_rules(table: object) -> None:
    """Nonsense in run.json is no rules, not a traceback."""
    assert load_rules(table) is None


def test_paths_come_from_run_json(tmp_path: Path) -> None:
    """Logs and store may lie outside the output directory."""
    (tmp_path / "elsewhere").mkdir()
    run = {"logs": str(tmp_path / "elsewhere"), "frontier": "/nowhere/f.db", "rules": dump_rules(RULES), "run_id": "r1"}
    (tmp_path / "run.json").write_bytes(orjson.dumps(run))
    paths = find_paths(tmp_path)
    assert (paths.logs, paths.frontier, paths.run_id) == (tmp_path / "elsewhere", Path("/nowhere/f.db"), "r1")
    assert paths.rules == RULES


def test_a_directory_that_was_moved_keeps_its_own_files(tmp_path: Path) -> None:
    """Where run.json names files that are gone, those beside it are meant."""
    (tmp_path / "frontier.db").touch()
    (tmp_path / "run.json").write_bytes(orjson.dumps({"frontier": "/old/frontier.db", "logs": "/old/logs"}))
    assert find_paths(tmp_path).frontier == tmp_path / "frontier.db"


def test_a_copy_is_not_taken_for_the_original(tmp_path: Path) -> None:
    """Whoever names the copy means the copy, though run.json came along with it and the original is still there."""
    original, copy = tmp_path / "a", tmp_path / "b"
    names = {"frontier": "frontier.db", "logs": "logs", "socket": "control.sock"}
    for folder in (original, copy):
        (folder / "logs").mkdir(parents=True)
        (folder / "frontier.db").touch()
        paths = {key: str(original / name) for key, name in names.items()}
        (folder / "run.json").write_bytes(orjson.dumps({"output": str(original), **paths}))
    assert find_paths(original).frontier == original / "frontier.db"
    found = find_paths(copy)
    assert (found.frontier, found.logs, found.socket) == tuple(copy / name for name in names.values())


def crawl_at(folder: Path, *, elsewhere: Path | None = None, older: bool = False) -> None:
    """What a crawl leaves: its store, its run.json, its logs in the directory or elsewhere."""
    logs = elsewhere or folder / "logs"
    logs.mkdir(parents=True, exist_ok=True)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "frontier.db").touch()
    run = {"frontier": str(folder / "frontier.db"), "logs": str(logs), "socket": str(folder / "control.sock")}
    if not older:
        run |= {"output": str(folder), "inode": str(inode_of(folder))}
    (folder / "run.json").write_bytes(orjson.dumps(run))


@pytest.mark.parametrize("older", [False, True], ids=["this version", "one that wrote no output"])
def test_a_copy_never_acts_on_its_original(tmp_path: Path, *, older: bool) -> None:
    """Not its store, not its socket, and not its logs, wherever those are kept."""
    original, copy, logs = tmp_path / "a", tmp_path / "b", tmp_path / "log"
    crawl_at(original, elsewhere=logs, older=older)
    shutil.copytree(original, copy)
    found = find_paths(copy)
    assert (found.frontier, found.socket, found.logs) == (copy / "frontier.db", copy / "control.sock", copy / "logs")
    kept = find_paths(original)
    assert (kept.frontier, kept.socket, kept.logs) == (original / "frontier.db", original / "control.sock", logs)


@pytest.mark.parametrize("older", [False, True], ids=["this version", "one that wrote no output"])
def test_a_moved_directory_keeps_what_lies_elsewhere(tmp_path: Path, *, older: bool) -> None:
    """Its logs are still where they were; its store and its socket came along."""
    logs, moved = tmp_path / "log", tmp_path / "b"
    crawl_at(tmp_path / "a", elsewhere=logs, older=older)
    (tmp_path / "a").rename(moved)
    found = find_paths(moved)
    assert (found.frontier, found.socket, found.logs) == (moved / "frontier.db", moved / "control.sock", logs)


def test_what_was_moved_is_known_though_another_crawl_has_its_old_place(tmp_path: Path) -> None:
    """By device and inode: an archive that was put aside before the next crawl began."""
    logs, moved = tmp_path / "log", tmp_path / "b"
    crawl_at(tmp_path / "a", elsewhere=logs)
    (tmp_path / "a").rename(moved)
    crawl_at(tmp_path / "a", elsewhere=tmp_path / "log2")
    assert find_paths(moved).logs == logs
    assert find_paths(moved).frontier == moved / "frontier.db"
    assert find_paths(tmp_path / "a").logs == tmp_path / "log2"


def test_a_copy_of_a_crawl_whose_store_is_elsewhere_has_none(tmp_path: Path) -> None:
    """The store belongs to the original; what a configuration says of the copy holds."""
    original, copy, store = tmp_path / "a", tmp_path / "b", tmp_path / "fast.db"
    crawl_at(original)
    run = orjson.loads((original / "run.json").read_bytes()) | {"frontier": str(store)}
    (original / "run.json").write_bytes(orjson.dumps(run))
    (original / "frontier.db").unlink()
    store.touch()
    shutil.copytree(original, copy)
    assert find_paths(original).frontier == store
    assert find_paths(copy).frontier == copy / "frontier.db"
    assert find_paths(copy, frontier=tmp_path / "other.db").frontier == tmp_path / "other.db"


def test_a_torn_run_json_is_as_good_as_none(tmp_path: Path) -> None:
    """The usual places hold where run.json cannot be read."""
    (tmp_path / "logs").mkdir()
    (tmp_path / "run.json").write_text('{"logs": "/x')
    assert find_paths(tmp_path).logs == tmp_path / "logs"


def test_a_directory_without_a_crawl_is_refused(tmp_path: Path) -> None:
    """A missing directory, a file and an empty directory each get words of their own."""
    with pytest.raises(FileNotFoundError, match="no such directory"):
        find_paths(tmp_path / "gone")
    (tmp_path / "file").touch()
    with pytest.raises(NotADirectoryError, match="not a directory"):
        find_paths(tmp_path / "file")
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match="holds no crawl"):
        find_paths(tmp_path / "empty")


def test_the_lock_owner_is_found_without_taking_the_lock(tmp_path: Path) -> None:
    """The pid of a running crawl is known; afterwards, and after a kill, there is none."""
    frontier = tmp_path / "frontier.db"
    assert lock_owner(frontier) is None
    lock = OwnerLock(tmp_path / "frontier.db.lock")
    lock.acquire()
    assert lock_owner(frontier) == os.getpid()
    lock.release()
    assert lock_owner(frontier) is None
    (tmp_path / "frontier.db.lock").write_text(f"{os.getpid()}\n")  # left by a kill; the number is in use again
    assert lock_owner(frontier) is None
