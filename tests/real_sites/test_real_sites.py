"""Sites that nobody here wrote are fetched whole, however a crawl is interrupted: no page that is linked is missing.

They are documentation of other projects as Debian packages it (`tests/support/real_sites.py`), served by nginx; which
pages there are is what an independent follower of links finds in the files.
"""

import random
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.nginx import Nginx
from tests.support.real_sites import (
    SITES,
    TIMEOUT_S,
    closure,
    crawl_of,
    folder,
    interrupted,
    missing,
    real_sites,
    run_small,
)

pytestmark = pytest.mark.e2e


@pytest.fixture
def server(request: pytest.FixtureRequest) -> Iterator[Nginx]:
    with real_sites(request.param) as server:
        yield server


def check_whole(server: Nginx, site: str, code: int, stderr: str) -> None:
    """The server was asked for every page, and the crawl says that it is done."""
    assert not missing(server, site)
    assert (code, stderr) == (0, "")


@pytest.mark.timeout(240)
@pytest.mark.parametrize("server", ["gtk"], indirect=True)
def test_a_site_is_whole_after_two_interruptions(server: Nginx, tmp_path: Path) -> None:
    """One SIGTERM and one SIGKILL at moments of chance; the same command goes on."""
    pages = len(closure(folder("gtk")))
    signals = (signal.SIGTERM, signal.SIGKILL)
    made, ran = interrupted(server, crawl_of(server, tmp_path, "gtk"), pages, signals, random.Random(1))
    check_whole(server, "gtk", ran.code, ran.stderr)
    assert made > 0


WAYS = ("whole", "terminated", "killed", "small caches", "one worker", "64 workers")


@pytest.mark.prove
@pytest.mark.timeout(4_000)
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(("server", "site"), [(site, site) for site in SITES], indirect=["server"], ids=list(SITES))
def test_every_site_is_whole_in_every_way(server: Nginx, site: str, way: str, tmp_path: Path) -> None:
    """In one go, with three interruptions, with caches far too small, with one worker and with many."""
    workers = {"one worker": 1, "64 workers": 64}.get(way)
    crawl = crawl_of(server, tmp_path, site, workers=workers)
    pages = len(closure(folder(site)))
    match way:
        case "terminated" | "killed":
            number = signal.SIGTERM if way == "terminated" else signal.SIGKILL
            _, ran = interrupted(server, crawl, pages, [number] * 3, random.Random(f"{site} {way}"))
        case "small caches":
            ran = run_small(crawl)
        case _:
            ran = crawl.run(timeout=TIMEOUT_S)
    check_whole(server, site, ran.code, ran.stderr)
