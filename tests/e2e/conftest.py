"""One real nginx for a process's tests, and one crawl of its whole site that many of them look at."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.crawls import Crawl, Ran, Sections
from tests.support.nginx import Nginx, Place, Request, Site, nginx

BARE, WWW, DOCS, OTHER, CDN = "alpha.test", "www.alpha.test", "docs.alpha.test", "beta.test", "cdn.gamma.test"
ADDRESS_OF = {BARE: "127.0.0.1", WWW: "127.0.0.1", DOCS: "127.0.0.2", OTHER: "127.0.0.1", CDN: "127.0.0.3"}


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


def sections(server: Nginx, *hosts: str, **keys: dict[str, object]) -> Sections:
    """A configuration that crawls `hosts` as fast as it can; `keys` are added to it, section by section."""
    base: dict[str, dict[str, object]] = {
        "crawl": {"seeds": [server.url(host) for host in hosts], "linger": "5s"},
        "scope": {},
        "politeness": {"delay": 0, "connections_per_host": 8},
        "network": {
            "allow_private": ["127.0.0.0/8"],
            "ca_file": server.ca_file,
            "resolve": {host: [address] for host, address in ADDRESS_OF.items()},
        },
    }
    return {name: base.get(name, {}) | keys.get(name, {}) for name in base | keys}


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
