"""A full disk: the crawl pauses and says so, loses nothing, and goes on when there is room again."""

import os
import re
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

import pytest

from tests.support.commands import Crawl, ended, running
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

pytestmark = pytest.mark.e2e


def test_a_disk_below_min_free_pauses_the_crawl(server: Nginx, tmp_path: Path) -> None:
    """Nothing is stored, the log says why, and exit 74 when it stays so; with room again nothing was lost."""
    crawl = Crawl.of(tmp_path, sections(server, DOCS, OTHER))
    full = crawl.run("-o", "output.min_free=900TB", "-o", "crawl.linger=1s")
    assert (full.code, full.summary["stopped_by"], full.summary["pages"]) == (74, "disk", 0)
    assert "could not be written" in full.stderr
    assert "min_free" in full.stderr
    low = [line for line in crawl.events() if line["event"] == "disk_low"]
    assert [line["min_free_bytes"] for line in low] == [900 * 10**12]
    assert len(server.requests()) <= 10, "it went on asking although nothing could be kept"
    again = crawl.run()
    assert (again.code, again.summary["stopped_by"]) == (0, "empty")
    assert_everything_is_stored_once(server, crawl)


@contextmanager
def small_disk(directory: Path, size: str) -> Iterator[Path]:
    """A file system of `size` in memory. Skips the test where none may be mounted."""
    if os.geteuid() != 0 or shutil.which("mount") is None:
        pytest.skip("mounting a small file system needs root")
    place = directory / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(place)]
    tried = subprocess.run(mount, capture_output=True, text=True, check=False)
    if tried.returncode != 0:
        pytest.skip(f"no small file system can be mounted: {tried.stderr.strip()}")
    try:
        yield place
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True)


def enlarge(place: Path) -> None:
    subprocess.run(["mount", "-o", "remount,size=64m", str(place)], check=True)


def test_a_crawl_goes_on_by_itself_when_the_disk_has_room_again(server: Nginx, tmp_path: Path) -> None:
    """The file system is really full, in the middle of the crawl; enlarged, the same process ends with all stored."""
    with small_disk(tmp_path, "700k") as place:
        keys = sections(server, DOCS, OTHER, log={"directory": tmp_path / "logs"}, output={"min_free": 0})
        crawl = Crawl.of(tmp_path, keys, output=place / "out")
        with running(*crawl.arguments()) as process:
            assert wait_for_event(crawl, process, "disk_low")
            enlarge(place)
            done = ended(process)
        assert (done.code, done.summary["stopped_by"], done.summary["unstored"]) == (0, "empty", 0)
        told = done.stderr.splitlines()
        assert told[0].startswith("crawler: nothing can be stored: ")
        assert "No space left on device" in done.stderr or "disk is full" in done.stderr
        assert re.fullmatch(r"crawler: writing is possible again: the crawl continues after \d+ s", told[-1])
        assert len(told) == sum(line["event"] in ("disk_low", "disk_ok") for line in crawl.events())
        assert "disk_ok" in {line["event"] for line in crawl.events()}
        assert_everything_is_stored_once(server, crawl)


def test_a_crawl_ended_by_a_full_disk_can_be_resumed(server: Nginx, tmp_path: Path) -> None:
    """Exit 74 after the linger; its start on the disk that is still full is safe too; enlarged, nothing is missing."""
    with small_disk(tmp_path, "700k") as place:
        crawl = Crawl.of(tmp_path, sections(server, DOCS, OTHER, output={"min_free": 0}), output=place / "out")
        for _ in range(2):
            full = crawl.run("-o", "crawl.linger=1s")
            assert full.code == 74
            assert "Traceback" not in full.stderr
        enlarge(place)
        done = crawl.run()
        assert (done.code, done.stderr, done.summary["stopped_by"]) == (0, "", "empty")
        assert_everything_is_stored_once(server, crawl)


def test_a_stop_on_a_full_disk_does_not_wait_for_what_cannot_be(server: Nginx, tmp_path: Path) -> None:
    """It is said when the disk is full, not only at the end. After SIGTERM the last commit is tried a few times, not
    for all of `engine.drain` (30 s); what was not stored is counted, and the next start fetches it again.
    """
    with small_disk(tmp_path, "700k") as place:
        keys = sections(server, DOCS, OTHER, log={"directory": tmp_path / "logs"}, output={"min_free": 0})
        crawl = Crawl.of(tmp_path, keys, output=place / "out")
        with running(*crawl.arguments(), bufsize=1) as process:
            assert process.stderr is not None
            assert "nothing can be stored" in process.stderr.readline()
            process.send_signal(signal.SIGTERM)
            stopped = ended(process, timeout=25)
        [began] = [line["ts"] for line in crawl.events() if line["event"] == "drain"]
        [end] = [line["ts"] for line in crawl.events() if line["event"] == "stop"]
        assert (datetime.fromisoformat(end) - datetime.fromisoformat(began)).total_seconds() < 10
        assert (stopped.code, stopped.summary["stopped_by"]) == (74, "signal")
        unstored = stopped.summary["unstored"]
        assert unstored > 0
        words = f"the last {unstored} visits were not stored: their URLs are still queued, and will be fetched again"
        assert unstored == 1 or words in stopped.stderr
        assert "not stored" in stopped.stderr
        assert "the same command continues from there" in stopped.stderr
        enlarge(place)
        done = crawl.run()
        assert (done.code, done.stderr, done.summary["stopped_by"]) == (0, "", "empty")
        assert_everything_is_stored_once(server, crawl)


def test_a_disk_that_comes_back_while_the_crawl_ends_for_it_is_no_success(server: Nginx, tmp_path: Path) -> None:
    """Nothing could be stored for longer than crawl.linger, so it ends; that the last commit then succeeds after all
    does not make the URLs that are left unsaid.
    """
    keys = sections(
        server, DOCS, OTHER, crawl={"linger": "1s"}, log={"directory": tmp_path / "logs"}, politeness=SLOWLY
    )
    crawl = Crawl.of(tmp_path, keys)
    store, away = crawl.output / "frontier.db", tmp_path / "away"
    with running(*crawl.arguments()) as process:
        assert wait_for_requests(server, process, 30)
        store.rename(away)
        assert wait_for_event(crawl, process, "drain")
        away.rename(store)
        ran = ended(process)
    assert (ran.code, ran.summary["stopped_by"], ran.summary["unstored"]) == (75, "disk", 0), ran.stderr
    assert re.search(r"could be stored for as long as crawl.linger; \d+ URLs are left, the same command", ran.stderr)
    done = crawl.run("-o", "politeness.delay=0")
    assert (done.code, done.summary["stopped_by"]) == (0, "empty"), done.stderr
    assert_everything_is_stored_once(server, crawl)


@pytest.mark.parametrize("lost", ["frontier.db", "."], ids=["store", "whole directory"])
def test_output_that_somebody_deletes_is_not_lost_in_silence(server: Nginx, tmp_path: Path, lost: str) -> None:
    """Files that go away under a running crawl: exit 74, and what is gone is named. Nobody is told that it is safe."""
    crawl = Crawl.of(tmp_path, sections(server, OTHER, crawl={"linger": "1s"}, politeness=SLOWLY))
    with running(*crawl.arguments()) as process:
        assert wait_for_requests(server, process, 30)
        place = crawl.output / lost
        if place.is_dir():
            shutil.rmtree(place)
        else:
            place.unlink()
        ran = ended(process)
    assert ran.code == 74
    assert "could not be written" in ran.stderr
    assert re.search(
        rf"{crawl.output / lost}\S* is gone: it was deleted or moved away while the crawl ran\n", ran.stderr
    )
    assert "what it held is lost unless you put it back" in ran.stderr
    assert "safe" not in ran.stderr
    assert "Traceback" not in ran.stderr
