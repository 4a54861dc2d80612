"""kill -9 in mid-crawl, over and over: nothing is lost, nothing is stored twice, nobody is asked too soon.

How much was asked is the server's view; what was settled is read from a copy of the store as the kill left it.
"""

import itertools
import random
import shutil
import signal
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import pytest

from tests.support.commands import Crawl, problems, run, running
from tests.support.nginx import Nginx, Place, Site, nginx
from tests.support.site_crawls import (
    DOCS,
    OTHER,
    SLOWLY,
    assert_everything_is_stored_once,
    sections,
    wait_for_requests,
    wait_until,
)
from tests.support.warcs import checker_exit_code

pytestmark = pytest.mark.e2e


def settled(crawl: Crawl, scratch: Path) -> set[Place]:
    """Host and target of every URL that the store holds as settled, from a copy: the original is not touched."""
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir()
    for path in crawl.output.glob("frontier.db*"):
        shutil.copy(path, scratch)
    if not (scratch / "frontier.db").exists():
        return set()
    with sqlite3.connect(scratch / "frontier.db") as store:
        tables = {name for (name,) in store.execute("SELECT name FROM sqlite_master")}
        if "url" not in tables:  # killed before the schema was committed
            return set()
        query = "SELECT host.host, target FROM url JOIN host ON host.id = url.host WHERE url.state = 'done'"
        found = set(store.execute(query))
    store.close()
    return found


def settled_in(dsn: str) -> set[Place]:
    """As `settled`, of a database."""
    from tests.support.postgresql import shared_server  # needs asyncpg, which is an extra

    name = dsn.partition("@/")[2].partition("?")[0]
    if not shared_server().execute("SELECT 1 FROM pg_class WHERE relname = 'url'", name):
        return set()
    query = "SELECT host.host, target FROM url JOIN host ON host.id = url.host WHERE url.state = 'done'"
    return {(host, target) for host, target in shared_server().execute(query, name)}


class Moment(NamedTuple):
    """When to kill: so many requests after the start, and then so many seconds."""

    requests: int
    seconds: float = 0.0


def killed_at(server: Nginx, crawl: Crawl, moment: Moment) -> bool:
    """Run the same command as ever, and kill it. False: it ended before the moment came."""
    asked = server.count()
    with running(*crawl.arguments()) as process:
        if not wait_for_requests(server, process, asked + moment.requests):
            return False
        time.sleep(moment.seconds)
        process.send_signal(signal.SIGKILL)
        return process.wait() == -signal.SIGKILL


def moments(rng: random.Random, kills: int) -> Iterator[Moment]:
    """Most in mid-crawl, in or between commits; one in six while the process starts."""
    for _ in range(kills):
        yield Moment(0, rng.uniform(0, 1.5)) if rng.random() < 1 / 6 else Moment(rng.randrange(30), rng.uniform(0, 0.3))


def kill_over_and_over(server: Nginx, directory: Path, kills: int, seed: int, dsn: str | None = None) -> int:
    """Crawl with `kills` kills at moments drawn from `seed`, then to the end, and look at everything. What the store
    holds as settled after a kill is never asked again, so that a kill costs no more than what was asked and not settled
    yet. Returns how many kills came before the end. `dsn`: of a database that has the store.
    """
    keys = sections(server, DOCS, OTHER, output={"warc_size": "100kB"}, politeness=SLOWLY)
    if dsn is not None:
        keys["frontier"] = {"store": "postgresql", "dsn": dsn}
    crawl = Crawl.of(directory, keys)
    done: set[Place] = set()
    asked = made = 0
    for moment in moments(random.Random(seed), kills):
        was_killed = killed_at(server, crawl, moment)
        places = server.places()
        assert not done & set(places[asked:]), f"settled before kill {made}, and asked again after it"
        made += was_killed
        done, asked = settled(crawl, directory / "copy") if dsn is None else settled_in(dsn), len(places)
        if made % 4 == 1 and done:
            assert_verified(crawl)  # as the kill left it, tails of unfinished commits and all
    last = crawl.run()
    assert (last.code, problems(last.stderr), last.summary["stopped_by"]) == (0, "", "empty")
    assert not done & set(server.places()[asked:])
    assert_everything_is_stored_once(server, crawl)
    assert_verified(crawl)
    return made


def assert_verified(crawl: Crawl) -> None:
    """The program's own check of the directory finds nothing wrong."""
    checked = run("verify", crawl.output)
    assert (checked.code, checked.stdout) == (0, ""), checked.stderr


def test_ten_kills_lose_nothing_and_store_nothing_twice(server: Nginx, tmp_path: Path) -> None:
    """And no URL that was settled when it died is asked again."""
    assert kill_over_and_over(server, tmp_path, kills=10, seed=1) >= 8


def test_kills_lose_nothing_of_a_store_in_postgresql(server: Nginx, tmp_path: Path) -> None:
    """The same with a database, which outlives the process."""
    from tests.support.postgresql import new_database

    assert kill_over_and_over(server, tmp_path, kills=8, seed=2, dsn=new_database()) >= 6


def test_a_crawl_waits_for_a_database_that_is_away(server: Nginx, tmp_path: Path) -> None:
    """The server of the database crashes twice under a crawl and comes back: the same process goes on to the end."""
    from tests.support.postgresql import Server, shared_server

    shared_server()  # skips without one
    with TemporaryDirectory(prefix="crawler-pg-") as short:  # a socket's path has at most 107 bytes
        database = Server(Path(short))
        try:
            database.execute("CREATE DATABASE crawl")
            keys = sections(server, DOCS, OTHER, politeness=SLOWLY)
            keys["crawl"]["linger"] = "60s"
            keys["frontier"] = {"store": "postgresql", "dsn": database.dsn("crawl")}
            crawl = Crawl.of(tmp_path, keys)
            with running(*crawl.arguments()) as process:
                for requests in (30, 120):
                    assert wait_for_requests(server, process, requests)
                    database.stop(at_once=True)
                    said = len([line for line in crawl.events() if line["event"] == "disk_low"])
                    assert wait_until(
                        lambda said=said: len([one for one in crawl.events() if one["event"] == "disk_low"]) > said,
                        process,
                    )
                    database.start()
                assert process.wait(timeout=120) == 0
            assert_everything_is_stored_once(server, crawl)
            assert_verified(crawl)
        finally:
            database.stop(at_once=True)


@pytest.fixture
def large_server() -> Iterator[Nginx]:
    """1,800 pages: enough for twenty kills."""
    with nginx(Site({DOCS: 1_100, OTHER: 700})) as server:
        yield server


@pytest.mark.prove
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("seed", range(10))
def test_two_hundred_kills_lose_nothing_and_store_nothing_twice(large_server: Nginx, tmp_path: Path, seed: int) -> None:
    """Twenty in each of ten crawls, at other moments each time."""
    assert kill_over_and_over(large_server, tmp_path, kills=20, seed=100 + seed) == 20


def test_politeness_holds_across_kills(server: Nginx, tmp_path: Path) -> None:
    """No request of the next process begins before the delay is over, whatever the one before it had in flight."""
    delay_ms = 200
    keys = sections(
        server,
        DOCS,
        scope={"max_urls": 13, "requisites": False},
        politeness={"delay": f"{delay_ms}ms", "connections_per_host": 1},
    )
    crawl = Crawl.of(tmp_path, keys)
    assert all(killed_at(server, crawl, Moment(count)) for count in (3, 1, 4, 2))
    last = crawl.run()
    assert (last.code, last.summary["stopped_by"]) == (0, "max_urls")
    requests = sorted(server.requests(), key=lambda request: request.begin_ms)
    assert len(requests) > 13
    gaps = [after.begin_ms - before.end_ms for before, after in itertools.pairwise(requests)]
    assert min(gaps) >= delay_ms


def test_an_archive_cut_off_by_a_kill_is_readable_at_once(server: Nginx, tmp_path: Path) -> None:
    """What was committed can be read from the open file; the next run cuts off the rest."""
    crawl = Crawl.of(tmp_path, sections(server, OTHER, scope={"exclude": ["/chunked/**", "/gz/**"]}))
    assert killed_at(server, crawl, Moment(60))
    assert [path.suffix for path in crawl.warcs()] == [".open"]
    assert crawl.run().code == 0
    assert checker_exit_code(crawl.warcs()) == 0
