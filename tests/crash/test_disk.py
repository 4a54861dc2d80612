"""A full disk: the crawl pauses and says so, loses nothing, and goes on when there is room again."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.crawls import Crawl, ended, running
from tests.support.interrupted import SLOWLY, assert_everything_is_there_once, wait_for_event, wait_for_requests
from tests.support.nginx import Nginx
from tests.support.sites import DOCS, OTHER, sections

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
    assert_everything_is_there_once(server, crawl)


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
        assert (done.code, done.stderr, done.summary["stopped_by"]) == (0, "", "empty")
        assert "disk_ok" in {line["event"] for line in crawl.events()}
        assert_everything_is_there_once(server, crawl)


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
        assert_everything_is_there_once(server, crawl)


@pytest.mark.parametrize("lost", ["warc", "."], ids=["open archive", "whole directory"])
def test_output_that_somebody_deletes_is_not_lost_in_silence(server: Nginx, tmp_path: Path, lost: str) -> None:
    """Files that go away under a running crawl: exit 74 and a word on what could not be written, not a full disk."""
    crawl = Crawl.of(tmp_path, sections(server, OTHER, crawl={"linger": "1s"}, politeness=SLOWLY))
    with running(*crawl.arguments()) as process:
        assert wait_for_requests(server, process, 30)
        shutil.rmtree(crawl.output / lost)
        ran = ended(process)
    assert ran.code == 74
    assert "could not be written" in ran.stderr
    assert "Traceback" not in ran.stderr
