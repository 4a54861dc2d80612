"""The output directory: how a crawl is found in it, by run.json, its lock, and the links of running daemons."""

import os
import shutil
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from unittest.mock import Mock

import click
import orjson
import pytest

from crawler import output_directory
from crawler.cli.crawl_options import find_crawl
from crawler.core.enums import SinkFileState
from crawler.core.models import SinkFile
from crawler.core.options import NameSet, PolitenessOptions, Rules, ScopeOptions, ScopeRule, dump_rules, load_rules
from crawler.core.scope import Scope
from crawler.frontier.sqlite.database import OwnerLock
from crawler.output_directory import (
    CrawlPaths,
    StoreMissing,
    find_paths,
    inode_of,
    link_configuration,
    lock_owner,
    other_files,
    outputs_running,
    require_same_crawl,
    unlink_configuration,
    write_run_file,
)

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


def test_fields_of_a_newer_version_are_ignored() -> None:
    """A run.json with more in it is still understood."""
    table = dump_rules(RULES)
    table["colour"] = "blue"
    table["scope"]["mood"] = 3
    assert load_rules(table) == RULES


@pytest.mark.parametrize("table", [None, [], 3, {"scope": 3}, {"scope": {"include": [3]}}, {"politeness": "x"}])
def test_malformed_rules_are_ignored(table: object) -> None:
    """Nonsense in run.json is no rules, not a traceback."""
    assert load_rules(table) is None


def test_names_of_seeds_in_files_are_beside_run_json(tmp_path: Path) -> None:
    """Those of the current rules only. If they are lost or damaged the rules are not known."""
    paths = CrawlPaths(tmp_path, tmp_path / "frontier.db", tmp_path / "logs", tmp_path / "control.sock")
    many = NameSet.of(f"h{n}.test" for n in range(1_000))
    for names in (NameSet.of(["a.test"]), many, NameSet(), many):
        rules = replace(RULES, seed_names=names)
        write_run_file(paths, run_id="r", configuration=None, rules=rules)
        files = {path.name: path.stat().st_size for path in tmp_path.glob("seed-hosts-*")}
        assert files == ({f"seed-hosts-{names.digest}": 16 * len(names)} if names else {})
        assert find_paths(tmp_path).rules == rules
    assert (tmp_path / "run.json").stat().st_size < 3_000
    file = tmp_path / f"seed-hosts-{many.digest}"
    for content in (many.content()[:-16], many.content()[:-1]):
        file.write_bytes(content)
        assert find_paths(tmp_path).rules is None
    file.unlink()
    assert find_paths(tmp_path).rules is None
    assert find_paths(tmp_path).run_id == "r"


def test_a_start_killed_before_run_json_is_written_leaves_the_rules_of_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The names of both are there then."""
    paths = CrawlPaths(tmp_path, tmp_path / "frontier.db", tmp_path / "logs", tmp_path / "control.sock")
    before, after = (replace(RULES, seed_names=NameSet.of([name])) for name in ("a.test", "b.test"))
    write_run_file(paths, run_id="r", configuration=None, rules=before)
    with monkeypatch.context() as patch:
        patch.setattr("crawler.output_directory.dump_rules", Mock(side_effect=RuntimeError))
        with pytest.raises(RuntimeError):
            write_run_file(paths, run_id="s", configuration=None, rules=after)
    assert len(list(tmp_path.glob("seed-hosts-*"))) == 2
    assert find_paths(tmp_path).rules == before
    write_run_file(paths, run_id="s", configuration=None, rules=after)
    assert find_paths(tmp_path).rules == after


def test_rules_of_an_earlier_version_have_all_hosts_of_seeds(tmp_path: Path) -> None:
    """Those of seeds in files too."""
    table = dump_rules(replace(RULES, scope=ScopeOptions()))
    del table["seed_names"]
    (tmp_path / "run.json").write_bytes(orjson.dumps({"rules": table}))
    rules = find_paths(tmp_path).rules
    assert rules is not None
    assert [Scope.by(rules).has_host(host) for host in ("a.test", "www.b.test", "c.test")] == [True, True, False]


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
def test_a_moved_directory_keeps_files_elsewhere(tmp_path: Path, *, older: bool) -> None:
    """Its logs are still where they were; its store and its socket came along."""
    logs, moved = tmp_path / "log", tmp_path / "b"
    crawl_at(tmp_path / "a", elsewhere=logs, older=older)
    (tmp_path / "a").rename(moved)
    found = find_paths(moved)
    assert (found.frontier, found.socket, found.logs) == (moved / "frontier.db", moved / "control.sock", logs)


def test_a_moved_directory_is_known_though_another_crawl_has_its_old_path(tmp_path: Path) -> None:
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


def test_an_incomplete_run_json_is_ignored(tmp_path: Path) -> None:
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


@pytest.mark.parametrize(
    ("name", "known", "is_refused"),
    [
        (None, [], False),
        ("crawl-20261130090000-00000.warc.gz.open", [], False),  # a run that was killed before its first commit
        ("crawl-20261130090000-00000.warc.gz.orphan", [], False),
        ("crawl-20261130090000-00000.warc.gz", [], True),
        ("crawl-20261130090000-00000.warc.gz", [7], False),
        ("crawl-20261130090000-00000.warc.gz.open", [7], False),
        (None, [0], False),
        (None, [7], True),
    ],
)
def test_a_database_that_is_not_of_the_directory_is_refused(
    tmp_path: Path, name: str | None, known: list[int], *, is_refused: bool
) -> None:
    """One has output files, and the other has none."""
    if name is not None:
        (tmp_path / "warc").mkdir()
        (tmp_path / "warc" / name).write_bytes(b"content")
    files = [SinkFile("warc", "crawl-20261130090000-00000.warc.gz", SinkFileState.OPEN, length) for length in known]
    with pytest.raises(StoreMissing) if is_refused else nullcontext():
        require_same_crawl(files, tmp_path)


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


@pytest.fixture
def environ(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """A runtime directory of our own, and nothing of this machine's."""
    (tmp_path / "runtime").mkdir(mode=0o700)
    monkeypatch.setattr(output_directory, "_SERVICE", tmp_path / "service")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "runtime"))
    monkeypatch.delenv("RUNTIME_DIRECTORY", raising=False)
    return {"XDG_RUNTIME_DIR": str(tmp_path / "runtime")}


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "crawler.toml"
    path.write_text("[output]\ndirectory = 'gone'\n")
    return path


@pytest.fixture
def outputs(tmp_path: Path, config: Path) -> Iterator[list[Path]]:
    """Two crawls of one configuration, both running: this process holds their locks."""
    found, locks = [], []
    for name in ("one", "two"):
        output = tmp_path / name
        output.mkdir()
        (output / "frontier.db").touch()
        (output / "run.json").write_bytes(orjson.dumps({"output": str(output), "configuration": str(config)}))
        locks.append(OwnerLock(output / "frontier.db.lock"))
        locks[-1].acquire()
        found.append(output)
    yield found
    for lock in locks:
        lock.release()


def test_a_daemon_is_found_by_its_configuration_while_it_runs(
    config: Path, outputs: list[Path], environ: dict[str, str]
) -> None:
    """Under any spelling of the path; not by another file, and not once the link is taken away."""
    link = link_configuration(str(config), outputs[0], environ)
    assert outputs_running(config, environ) == [outputs[0]]
    assert outputs_running(config.parent / "x" / ".." / config.name, environ) == [outputs[0]]
    assert outputs_running(config.with_name("other.toml"), environ) == []
    assert find_crawl(config, (), None).paths.output == outputs[0]
    unlink_configuration(link)
    assert outputs_running(config, environ) == []
    unlink_configuration(link)


def test_a_link_is_only_a_hint(config: Path, outputs: list[Path], environ: dict[str, str]) -> None:
    """After a kill it is still there: what it leads to has to run, and with this configuration."""
    link_configuration(str(config), outputs[0], environ)
    run = outputs[0] / "run.json"
    said = run.read_bytes()
    run.write_bytes(orjson.dumps(orjson.loads(said) | {"configuration": "/etc/other.toml"}))
    assert outputs_running(config, environ) == []
    run.write_bytes(said)
    (outputs[0] / "frontier.db.lock").unlink()
    assert outputs_running(config, environ) == []
    run.unlink()
    link_configuration(str(config), outputs[1], environ)  # takes away what leads nowhere
    assert len(list(Path(environ["XDG_RUNTIME_DIR"], "crawler").iterdir())) == 1


def test_several_daemons_are_refused(config: Path, outputs: list[Path], environ: dict[str, str]) -> None:
    """The operator says which."""
    for output in outputs:
        link_configuration(str(config), output, environ)
    assert outputs_running(config, environ) == outputs
    with pytest.raises(click.UsageError, match="name one with --output DIR"):
        find_crawl(config, (), None)


def test_the_services_links_are_found_by_everyone(
    tmp_path: Path, config: Path, outputs: list[Path], environ: dict[str, str]
) -> None:
    """systemd names the directory to the daemon alone: /run/crawler, and one below it for each instance."""
    for folder, output in zip((tmp_path / "service", tmp_path / "service/news"), outputs, strict=True):
        folder.mkdir()
        assert link_configuration(str(config), output, {"RUNTIME_DIRECTORY": str(folder)}) is not None
    assert outputs_running(config, environ) == outputs


def test_links_in_a_folder_that_others_may_write_to_are_ignored(
    config: Path, outputs: list[Path], tmp_path: Path, environ: dict[str, str]
) -> None:
    """In the directory for temporary files anybody may have made it."""
    own = tmp_path / f"crawler-{os.geteuid()}"
    link = link_configuration(str(config), outputs[0], {})
    assert link is not None
    assert link.parent == own
    assert outputs_running(config, environ) == [outputs[0]]
    own.chmod(0o777)
    assert outputs_running(config, environ) == []
    assert link_configuration(str(config), outputs[1], {}) is None


def test_other_files_in_the_directory_are_found(tmp_path: Path) -> None:
    """Not hidden files, nor anything once a crawl is there."""
    assert other_files(tmp_path / "nowhere", None) == []
    (tmp_path / ".made-by-crawler-demo").touch()
    (tmp_path / "logs").mkdir()
    assert other_files(tmp_path, None) == []
    (tmp_path / "thesis.doc").touch()
    assert other_files(tmp_path, None) == ["thesis.doc"]
    (tmp_path / "frontier.db").touch()
    assert other_files(tmp_path, None) == []
