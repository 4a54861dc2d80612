"""One real nginx for a process's tests, and one crawl of its whole site that many of them look at."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.commands import Crawl, Ran
from tests.support.nginx import Nginx, Place, Request, Site, nginx
from tests.support.site_crawls import BARE, CDN, DOCS, OTHER, WWW, sections


@pytest.fixture(scope="session")
def running_server() -> Iterator[Nginx]:
    """600 pages on three hosts, two of them of one domain, two at one address; pictures from a fourth."""
    site = Site({WWW: 400, DOCS: 120, OTHER: 80}, assets=CDN)
    with nginx(site, redirecting={BARE: WWW}) as server:
        yield server


@pytest.fixture
def server(running_server: Nginx) -> Nginx:
    """The same, with an empty log."""
    running_server.forget()
    return running_server


@dataclass(frozen=True)
class Whole:
    """A crawl of everything, from the seed that redirects, and the server's log of it."""

    server: Nginx
    crawl: Crawl
    ran: Ran
    requests: list[Request]

    @property
    def wanted(self) -> set[Place]:
        return self.server.site.wanted() | {(BARE, "/")}


@pytest.fixture(scope="session")
def whole(running_server: Nginx, tmp_path_factory: pytest.TempPathFactory) -> Whole:
    """Made once a process: nothing in it is changed by those who look."""
    running_server.forget()
    directory: Path = tmp_path_factory.mktemp("whole")
    crawl = Crawl.of(directory, sections(running_server, BARE, DOCS, OTHER, output={"warc_size": "1MB"}))
    ran = crawl.run()
    return Whole(running_server, crawl, ran, running_server.requests())
