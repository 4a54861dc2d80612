"""The store goes back to a backup, or goes away, beside output files that are newer: nothing is thrown away, and nobody
begins anew without a word.
"""

import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.commands import Crawl, command, environment, problems, run, running
from tests.support.nginx import Nginx
from tests.support.site_crawls import (
    DOCS,
    OTHER,
    SLOWLY,
    assert_everything_is_stored_once,
    sections,
    wait_for_event,
    wait_for_requests,
)
from tests.support.warcs import records

pytestmark = pytest.mark.e2e


def put_back(crawl: Crawl, backup: Path) -> None:
    """As docs/explanation/durability.md says it is done."""
    for path in crawl.output.glob("frontier.db*"):
        path.unlink()
    shutil.copy(backup, crawl.output / "frontier.db")


def archived(crawl: Crawl) -> set[str]:
    """URLs of all responses, in files that were set aside as well; what a kill cut off does not count."""
    files = [path for path in (crawl.output / "warc").iterdir() if not path.name.endswith(".open")]
    return {record.url for path in files for record in records(path) if record.kind == "response"}


def assert_verified(crawl: Crawl) -> None:
    checked = run("verify", crawl.output)
    assert (checked.code, checked.stdout) == (0, ""), checked.stderr


@pytest.mark.parametrize("how", ["ended", "killed"])
def test_a_backup_put_back_beside_newer_output(server: Nginx, tmp_path: Path, how: str) -> None:
    """A backup of the middle of a crawl; files that were open then are complete, or longer, or there are more of them.
    The crawl fetches again what the backup does not know, `verify` finds nothing, and what was there is still there.
    """
    keys = sections(server, DOCS, OTHER, output={"warc_size": "100kB"}, politeness=SLOWLY)
    crawl = Crawl.of(tmp_path, keys)
    backup = tmp_path / "backup.db"
    with running(*crawl.arguments()) as process:
        assert wait_for_requests(server, process, 60)
        assert run("backup", backup, "--output", crawl.output).code == 0
        if how == "killed":
            assert wait_for_requests(server, process, server.count() + 90)
            process.send_signal(signal.SIGKILL)
        process.wait()
    before = archived(crawl)
    log = crawl.output / "frontier.db-wal"
    if how == "killed":  # who forgets the log of the store that is replaced is told
        shutil.copy(backup, crawl.output / "frontier.db")
        assert log.stat().st_size > 0
        for arguments in (crawl.arguments(), ("verify", crawl.output), ("export", "urls", "--output", crawl.output)):
            refused = run(*arguments)
            assert (refused.code, refused.stdout) == (65, ""), arguments
            assert "frontier.db-wal beside it belongs to another store: move it away" in refused.stderr
    put_back(crawl, backup)
    again = crawl.run("-o", "politeness.delay=0")
    assert (again.code, again.summary["stopped_by"]) == (0, "empty")
    assert again.stderr.startswith("crawler: output files that the store does not know, or not to their end, were set")
    [recovered] = [line for line in crawl.events() if line["event"] == "recovered"]
    assert recovered["cut"], "no file was longer than the backup knows: nothing was tried"
    assert {path.name for path in crawl.output.glob("*/*.orphan*")} == set(recovered["orphans"])
    assert before <= archived(crawl)
    assert_verified(crawl)
    for path in crawl.output.glob("*/*.orphan*"):
        path.unlink()
    assert_everything_is_stored_once(server, crawl)
    assert problems(crawl.run().stderr) == ""  # it is a backup no more
    assert_verified(crawl)


def test_a_backup_put_in_an_empty_directory_goes_on(server: Nginx, tmp_path: Path) -> None:
    """The machine was lost, and with it the files that were open. What the backup knows as fetched stays so."""
    crawl = Crawl.of(tmp_path, sections(server, DOCS, OTHER, politeness=SLOWLY))
    with running(*crawl.arguments()) as process:
        assert wait_for_requests(server, process, 60)
        assert run("backup", tmp_path / "backup.db", "--output", crawl.output).code == 0
        process.kill()
    new = Crawl.of(tmp_path, sections(server, DOCS, OTHER), output=tmp_path / "new")
    new.output.mkdir()
    shutil.copy(tmp_path / "backup.db", new.output / "frontier.db")
    exported = run("export", "urls", "--state", "done", "--output", new.output).stdout.splitlines()
    assert len(exported) > 20
    again = new.run()
    assert (again.code, again.summary["stopped_by"]) == (0, "empty")
    assert "not there, and taken for complete and moved away since the backup: " in again.stderr
    assert again.summary["pages"] + len(exported) >= len(server.site.pages | server.site.requisites)
    assert_verified(new)


def take_the_store(crawl: Crawl, how: str) -> None:
    for path in crawl.output.glob("frontier.db*"):
        path.unlink()
    if how == "empty":
        (crawl.output / "frontier.db").touch()


@pytest.mark.parametrize("how", ["empty", "missing"])
def test_an_archive_without_its_store_is_not_begun_anew(server: Nginx, tmp_path: Path, how: str) -> None:
    """Every command that would make a new store says what is wrong and what helps, with exit 65, and makes none."""
    crawl = Crawl.of(tmp_path, sections(server, DOCS, OTHER))
    assert crawl.run().code == 0
    take_the_store(crawl, how)
    asked = server.count()
    place = ("--output", crawl.output)
    agent = "identity.user_agent='test/1.0 (+https://example.org/bot)'"
    for arguments in (
        crawl.arguments(),
        ("run", "-c", crawl.config, "-o", f"output.directory={str(crawl.output)!r}", "-o", agent),
        ("add", "https://a.test/", "-c", crawl.config, *place),
        ("requeue", "--error-type", "reset", *place),
        ("forget", "https://a.test/", *place),
        ("block", "a.test", *place),
        ("backup", tmp_path / "backup.db", *place),
        ("verify", crawl.output),
    ):
        refused = run(*arguments, timeout=20)
        assert (refused.code, refused.stdout) == (65, ""), (arguments, refused.stderr)
        assert f"frontier.db is {how}, but {crawl.output} holds 2 files of an earlier crawl" in refused.stderr
        assert "put a backup of the store in its place, or move warc/ and pages/ away to begin" in refused.stderr
    assert server.count() == asked
    assert not (crawl.output / "frontier.db").exists() or (crawl.output / "frontier.db").stat().st_size == 0
    for folder in ("warc", "pages"):
        (crawl.output / folder).rename(tmp_path / folder)
    again = crawl.run()
    assert (again.code, again.stderr) == (0, "")
    assert_everything_is_stored_once(server, crawl)


def test_a_store_of_another_crawl_is_refused(server: Nginx, tmp_path: Path) -> None:
    """It has tables and URLs, and knows not one of the complete files that are there."""
    crawl = Crawl.of(tmp_path, sections(server, DOCS, OTHER))
    assert crawl.run().code == 0
    names = sorted(path.name for path in crawl.output.glob("*/*"))
    take_the_store(crawl, "missing")
    other = Crawl.of(tmp_path, sections(server, OTHER), output=tmp_path / "other")
    assert other.run("-o", "output.warc=false", "-o", "output.pages=false").code == 0
    shutil.copy(other.output / "frontier.db", crawl.output)
    refused = crawl.run()
    assert refused.code == 65
    assert "warc holds 1 complete file of which the store knows none: put a backup of their store" in refused.stderr
    assert sorted(path.name for path in crawl.output.glob("*/*")) == names


# Dies, as by kill -9, when the first output file is made and written and the store has not heard of it.
FIRST_FILE = """
import asyncio, os, signal, sys
from pathlib import Path
import crawler.sinks.files as files
sync = files.SinkFiles.sync
def die(self):
    sync(self)
    os.kill(os.getpid(), signal.SIGKILL)
files.SinkFiles.sync = die
from crawler.__main__ import main
sys.argv = sys.argv[1:]
main()
"""


def test_a_kill_before_the_first_commit_does_not_lock_anybody_out(server: Nginx, tmp_path: Path) -> None:
    """The first output file is there and synced, the store has its tables and knows of no file: the same command goes
    on. Twice, and after a kill at any earlier moment too.
    """
    crawl = Crawl.of(tmp_path, sections(server, DOCS, OTHER))
    for n in range(2):
        arguments = [str(part) for part in command(*crawl.arguments())[3:]]
        killed = subprocess.run(
            [sys.executable, "-c", FIRST_FILE, "crawler", *arguments],
            env=environment(),
            capture_output=True,
            check=False,
        )
        assert killed.returncode == -signal.SIGKILL, killed.stderr
        assert [path.suffix for path in (crawl.output / "warc").iterdir()].count(".open") == 1
        assert len(list((crawl.output / "warc").iterdir())) == n + 1
    for _ in range(3):
        with running(*crawl.arguments()) as process:
            wait_for_event(crawl, process, "start")
            process.kill()
    last = crawl.run()
    assert (last.code, problems(last.stderr), last.summary["stopped_by"]) == (0, "", "empty")
    for path in crawl.output.glob("*/*.orphan*"):
        path.unlink()
    assert_everything_is_stored_once(server, crawl)
    assert_verified(crawl)


def test_a_store_that_is_replaced_while_the_crawl_runs_is_noticed(server: Nginx, tmp_path: Path) -> None:
    """What is written to a deleted file is stored nowhere: the crawl pauses until it is back, and loses nothing."""
    crawl = Crawl.of(tmp_path, sections(server, DOCS, OTHER, politeness=SLOWLY))
    store, aside = crawl.output / "frontier.db", crawl.output / "moved.db"
    with running(*crawl.arguments()) as process:
        assert wait_for_requests(server, process, 30)
        store.rename(aside)
        assert wait_for_event(crawl, process, "disk_low")
        aside.rename(store)
        stdout, stderr = process.communicate(timeout=60)
    assert process.returncode == 0, stdout
    assert "frontier.db was deleted or replaced while it was in use: put it back" in stderr
    assert_everything_is_stored_once(server, crawl)
    assert_verified(crawl)
