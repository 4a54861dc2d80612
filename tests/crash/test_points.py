"""The whole program is killed at every named point where something becomes durable; nothing is lost, nothing doubled.

The sinks alone and the store alone are killed at every call in tests/contract and tests/unit/frontier; here it is both
and what joins them.
"""

import itertools
import shutil
import signal
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

import pytest

from tests.support.commands import Crawl, problems, run
from tests.support.kill_points import CALLS, POINTS, KillPoints
from tests.support.nginx import Nginx, Site, nginx
from tests.support.site_crawls import DOCS, OTHER, assert_everything_is_stored_once, sections
from tests.support.warcs import records

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def small_server() -> Iterator[Nginx]:
    with nginx(Site({DOCS: 25, OTHER: 15})) as server:
        yield server


@pytest.fixture(scope="module")
def points(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KillPoints]:
    with KillPoints(tmp_path_factory.mktemp("points")) as started:
        yield started


def crawl_of(server: Nginx, directory: Path) -> Crawl:
    """Files that are complete after a few pages, so that each point is met often."""
    return Crawl.of(directory, sections(server, DOCS, OTHER, output={"warc_size": "15kB"}))


def check(server: Nginx, crawl: Crawl, points: KillPoints) -> int:
    """Go on to the end, and look at everything. Returns how many files the log tells of: none if it was killed after
    the last commit, for then the lines of the last moments are missing.
    """
    assert points.run(crawl.arguments()) == 0, points.stderr
    assert problems(points.stderr) == ""
    assert_everything_is_stored_once(server, crawl)
    told = {line["name"]: line["sha256"] for line in crawl.events() if line["event"] == "file_closed"}
    files = {path.name: sha256(path.read_bytes()).hexdigest() for path in crawl.output.glob("*/crawl-*[lz]")}
    assert told.items() <= files.items(), "a file changed after it was said to be closed"
    checked = run("verify", crawl.output)
    assert (checked.code, checked.stdout) == (0, ""), checked.stderr
    return len(told)


def test_kills_at_every_named_point_in_turn(small_server: Nginx, points: KillPoints, tmp_path: Path) -> None:
    """In one crawl: each start recovers from the last kill, and is killed at the next point, or later at the same."""
    crawl = crawl_of(small_server, tmp_path)
    made = {
        (point, nth)
        for nth, point in itertools.product((1, 2, 3), POINTS)
        if points.run(crawl.arguments(), point, nth) == -signal.SIGKILL
    }
    assert {point for point, _ in made} == set(POINTS)
    assert len(made) >= 15
    assert check(small_server, crawl, points)


@pytest.mark.prove
@pytest.mark.timeout(1_800)
@pytest.mark.parametrize("point", POINTS)
def test_a_kill_at_each_call_of_a_point(small_server: Nginx, points: KillPoints, tmp_path: Path, point: str) -> None:
    """The first call, the second, and so on, each in a crawl of its own, until the crawl ends before it is reached."""
    for nth in itertools.count(1):
        directory = tmp_path / str(nth)
        directory.mkdir()
        crawl = crawl_of(small_server, directory)
        code = points.run(crawl.arguments(), point, nth)
        assert code in (0, -signal.SIGKILL), points.stderr
        told = check(small_server, crawl, points)
        if code == 0:
            break
    assert nth > 5
    assert told, "nobody killed the last crawl, and its log tells of no file"


def archived(output: Path) -> set[str]:
    """URLs of all responses, in files that were set aside as well."""
    return {record.url for path in output.glob("warc/*") for record in records(path) if record.kind == "response"}


def killed_restores(server: Nginx, points: KillPoints, tmp_path: Path, names: tuple[str, ...], upto: int) -> int:
    """A backup of the middle of a crawl is put back beside what the whole crawl left. The start after that is killed at
    each call; the next one mends the rest. Returns how many kills there were.
    """
    crawl = crawl_of(server, tmp_path)
    assert points.run(crawl.arguments(), "after commit", 7) == -signal.SIGKILL
    assert run("backup", tmp_path / "backup.db", "--output", crawl.output).code == 0
    assert points.run(crawl.arguments()) == 0
    everything = archived(crawl.output)
    for path in crawl.output.glob("frontier.db*"):
        path.unlink()
    shutil.copy(tmp_path / "backup.db", crawl.output / "frontier.db")
    pristine = crawl.output.rename(tmp_path / "pristine")
    kills = 0
    for name in names:
        for nth in range(1, upto + 1):
            shutil.rmtree(crawl.output, ignore_errors=True)
            shutil.copytree(pristine, crawl.output)
            code = points.run(crawl.arguments(), name, nth)
            assert code in (0, -signal.SIGKILL), points.stderr
            kills += code != 0
            assert points.run(crawl.arguments()) == 0, points.stderr
            assert archived(crawl.output) >= everything
            assert not list(crawl.output.glob("*/*.part"))
            for path in crawl.output.glob("*/*.orphan*"):
                path.unlink()
            assert_everything_is_stored_once(server, crawl)
            checked = run("verify", crawl.output)
            assert (checked.code, checked.stdout) == (0, ""), checked.stderr
            if code == 0:
                break
    return kills


def test_a_restore_that_is_killed_is_finished_by_the_next_start(
    small_server: Nginx, points: KillPoints, tmp_path: Path
) -> None:
    """Between any two renames of it."""
    assert killed_restores(small_server, points, tmp_path, ("rename",), 4) == 4


@pytest.mark.prove
@pytest.mark.timeout(1_800)
def test_a_restore_is_killed_at_each_call(small_server: Nginx, points: KillPoints, tmp_path: Path) -> None:
    """At each write, fsync and rename of it, and of the crawl that follows."""
    assert killed_restores(small_server, points, tmp_path, CALLS, 10) >= 40
