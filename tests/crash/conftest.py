"""One real nginx for a process's crash tests: a site small enough to be crawled many times over."""

from collections.abc import Iterator

import pytest

from tests.support.nginx import Nginx, Site, nginx
from tests.support.site_crawls import DOCS, OTHER


@pytest.fixture(scope="session")
def running_server() -> Iterator[Nginx]:
    """250 pages on two hosts of two domains."""
    with nginx(Site({DOCS: 150, OTHER: 100})) as server:
        yield server


@pytest.fixture
def server(running_server: Nginx) -> Nginx:
    """The same, with an empty log."""
    running_server.forget()
    return running_server
