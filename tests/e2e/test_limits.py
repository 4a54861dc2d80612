"""Limits on URLs are exact, however many workers race for the last place, and hold over the directory's life."""

from collections import Counter
from pathlib import Path

import pytest

from tests.support.commands import Crawl, run
from tests.support.nginx import Nginx
from tests.support.site_crawls import DOCS, OTHER, WWW, sections

pytestmark = pytest.mark.e2e


def test_max_urls_is_exact_and_counts_over_the_directorys_life(server: Nginx, tmp_path: Path) -> None:
    """37 URLs and not one more, robots.txt apart; again: none; with 60 allowed: 23 others."""
    crawl = Crawl.of(tmp_path, sections(server, WWW, DOCS, OTHER))
    first = crawl.run("-o", "scope.max_urls=37")
    assert (first.code, first.summary["stopped_by"]) == (0, "max_urls")
    assert len(server.places()) == 37
    again = crawl.run("-o", "scope.max_urls=37")
    assert (again.code, again.summary["stopped_by"]) == (0, "max_urls")
    assert len(server.places()) == 37
    more = crawl.run("-o", "scope.max_urls=60")
    assert (more.code, more.summary["stopped_by"]) == (0, "max_urls")
    assert len(server.places()) == 60
    assert max(Counter(server.places()).values()) == 1


def test_max_urls_per_host_is_exact_for_each(server: Nginx, tmp_path: Path) -> None:
    """Seven URLs of every host, though they race."""
    keys = sections(
        server,
        WWW,
        DOCS,
        OTHER,
        scope={"max_urls_per_host": 7, "requisites": False},
        politeness={"delay": 0, "connections_per_host": 8, "key": "host"},
    )
    ran = Crawl.of(tmp_path, keys).run()
    assert (ran.code, ran.summary["stopped_by"]) == (0, "max_urls")
    assert Counter(host for host, _ in server.places()) == {WWW: 7, DOCS: 7, OTHER: 7}


def test_what_was_denied_takes_no_place(server: Nginx, tmp_path: Path) -> None:
    """URLs that robots.txt forbids are not requests: as many others are fetched as the limit says."""
    crawl = Crawl.of(tmp_path, sections(server, WWW, scope={"max_urls": 300}))
    summary = crawl.run().summary
    assert summary["denied"] > 0
    assert len(server.places()) == 300


def test_max_depth_bounds_links_from_the_seed(server: Nginx, tmp_path: Path) -> None:
    """At depth 1: the seed and what it links to."""
    crawl = Crawl.of(tmp_path, sections(server, OTHER, scope={"max_depth": 1, "requisites": False}))
    assert crawl.run().code == 0
    targets = {target for _, target in server.places()}
    assert targets == {"/", "/gz/1.html", "/packed/2.html", "/chunked/3.html", "/pages/4.html", "/pages/5.html"}


def test_include_and_exclude_are_kept(server: Nginx, tmp_path: Path) -> None:
    """Only pages under /pages/ and the seed, but none that ends in a 4."""
    scope: dict[str, object] = {"include": ["/", "/pages/**"], "exclude": ["re:4\\.html$"], "requisites": False}
    crawl = Crawl.of(tmp_path, sections(server, OTHER, scope=scope))
    assert crawl.run().code == 0
    targets = {target for _, target in server.places()}
    assert "/pages/5.html" in targets
    assert all(target == "/" or target.startswith("/pages/") for target in targets)
    assert not any(target.endswith("4.html") for target in targets)


def test_max_duration_ends_a_crawl_that_goes_on(server: Nginx, tmp_path: Path) -> None:
    """It stops after the time given and can be resumed; what it fetched is whole."""
    keys = sections(server, WWW, politeness={"delay": "100ms", "connections_per_host": 1})
    crawl = Crawl.of(tmp_path, keys)
    ran = crawl.run("--max-duration", "700ms")
    assert ran.summary["stopped_by"] == "max_duration"
    assert 2 <= len(server.places()) <= 9
    assert len(crawl.page_lines()) == ran.summary["pages"]


def test_parts_of_sites_have_limits_of_their_own(server: Nginx, tmp_path: Path) -> None:
    """A seed its directory and its tags, some URLs are excluded, and one host has a depth. The server's log shows it,
    and `why` names each rule.
    """
    seed, directory = server.url(WWW, "/pages/4.html"), server.url(WWW, "/pages/")
    crawl = Crawl.of(tmp_path, sections(server, DOCS, OTHER, scope={"requisites": False}))
    tables = f"""
[[seed]]
url = "{seed}"
tags = ["pages"]
scope = "seed-prefix"
[[override]]
urls = ["{DOCS}*/gz/**"]
exclude = true
[[override]]
hosts = ["{OTHER}"]
max_depth = 0
"""
    crawl.config.write_text(crawl.config.read_text() + tables)
    assert crawl.run().code == 0
    requested = Counter(server.places())
    of = {host: {target for name, target in requested if name == host} - {"/robots.txt"} for host in (WWW, DOCS, OTHER)}
    assert len(of[WWW]) > 3
    assert all(target.startswith("/pages/") for target in of[WWW])
    assert len(of[DOCS]) > 10
    assert not any(target.startswith("/gz/") for target in of[DOCS])
    assert of[OTHER] == {"/"}
    tags = {(line["url"].startswith(directory), tuple(line["tags"])) for line in crawl.page_lines()}
    assert tags == {(True, ("pages",)), (False, ())}
    for url, rule in (
        (server.url(WWW, "/other"), "scope.hosts = seed-hosts"),
        (server.url(DOCS, "/gz/x"), "exclude = true"),
        (server.url(OTHER, "/x"), f'override "{OTHER}" max_depth = 0'),
        (f"{directory}new", "seed scope = seed-prefix"),
    ):
        assert rule in run("why", url, "-c", crawl.config, "--output", crawl.output).stdout, url
