"""A round is killed at its transactions: each slice that queues URLs, each commit. It goes on, and no URL that the
store has as visited in it is requested again.
"""

import itertools
import json
import shutil
import signal
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.support.commands import Crawl, run
from tests.support.kill_points import COMMITS, KillPoints
from tests.support.nginx import Nginx, Place, Site, nginx
from tests.support.site_crawls import DOCS, OTHER, SLOWLY, sections

pytestmark = pytest.mark.e2e
SLICE = 5  # URLs


@pytest.fixture(scope="module")
def small_server() -> Iterator[Nginx]:
    with nginx(Site({DOCS: 15, OTHER: 10})) as server:
        yield server


@pytest.fixture(scope="module")
def points(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KillPoints]:
    with KillPoints(tmp_path_factory.mktemp("points")) as started:
        yield started


class RoundState(NamedTuple):
    is_over: bool
    has_rest: bool  # something is left of it: killed before its end was stored, it may have none
    visited: set[Place]  # since it began
    counts: dict[str, int]


def state_of(crawl: Crawl, scratch: Path) -> RoundState:
    """What the store says, from a copy."""
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir()
    for path in crawl.output.glob("frontier.db*"):
        shutil.copy(path, scratch)
    with sqlite3.connect(scratch / "frontier.db") as store:
        meta = dict(store.execute("SELECT name, value FROM meta"))
        begun = json.loads(meta.get("round", '{"started_at": 1e12, "ended_at": null}'))
        query = """SELECT host.host, target FROM visit JOIN url ON url.id = visit.url JOIN host ON host.id = url.host
                   WHERE url.state = 'done' AND visit.last_at >= ?"""
        visited = set(store.execute(query, (begun["started_at"],)))
        (queued,) = store.execute("SELECT count(*) FROM url WHERE state IN ('queued', 'waiting')").fetchone()
    store.close()
    has_rest = queued > 0 or begun.get("queued_to", 0) < begun.get("last_id", 1)
    return RoundState(begun["ended_at"] is not None, has_rest, visited, json.loads(meta.get("round_counts", "{}")))


@pytest.mark.parametrize("point", COMMITS)
def test_a_round_that_is_killed_goes_on(small_server: Nginx, points: KillPoints, tmp_path: Path, point: str) -> None:
    """Killed over and over, each time a few transactions later in the run."""
    keys = sections(small_server, DOCS, OTHER, politeness=SLOWLY)
    crawl = Crawl.of(tmp_path, keys)
    assert points.run(crawl.arguments()) == 0, points.stderr
    small_server.forget()
    now, requested, kills = RoundState(False, True, set(), {}), 0, 0
    for nth in itertools.count(2):
        code = points.run(crawl.arguments("--again"), point, nth, slice_urls=SLICE)
        places = small_server.places()
        assert not now.visited & set(places[requested:]), f"visited in the round before run {nth - 2}, and again in it"
        now, requested = state_of(crawl, tmp_path / "copy"), len(places)
        if now.is_over or not now.has_rest:
            break
        assert code == -signal.SIGKILL, points.stderr
        kills += 1
    assert kills >= 3
    assert points.run(crawl.arguments()) == 0, points.stderr  # a plain crawl has nothing left to do
    if now.is_over:
        assert "`crawler crawl --again` visits them anew" in points.stderr
    else:  # killed when only its end was not stored: that is done now
        now = state_of(crawl, tmp_path / "copy")
        assert now.is_over
    assert len(small_server.places()) == requested
    fetched = json.loads(points.stdout)["urls"]["fetched"]
    assert (now.counts["visited"], now.counts["new"], now.counts["changed"]) == (fetched, 0, 0)
    assert small_server.site.wanted(DOCS, OTHER) <= set(small_server.places())
    checked = run("verify", crawl.output)
    assert (checked.code, checked.stdout) == (0, ""), checked.stderr
    assert points.run(crawl.arguments("--again"), slice_urls=SLICE) == 0
    assert json.loads(points.stdout)["round"]["number"] == 2
