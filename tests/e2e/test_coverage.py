"""A crawl of a whole site, as the server's log tells it: everything once, nothing that is forbidden."""

from collections import Counter
from pathlib import Path

import pytest

from tests.e2e.conftest import Whole
from tests.support.commands import Crawl, run
from tests.support.nginx import Site, nginx
from tests.support.site_crawls import BARE, CDN, DOCS, OTHER, WWW, sections

pytestmark = pytest.mark.e2e

# docs/reference/commands.md: scripts rely on these names.
SUMMARY = {
    "responses", "pages", "page_responses", "auxiliary", "gave_up", "bytes", "errors", "http_errors", "denied",
    "unstored", "links_found", "links_new", "hosts", "urls", "left_by", "suspects",
    "connections_opened",
    "requests_per_connection", "connection_reuse_ratio", "connections_failed", "connections_closed",
    "connections_by_host", "tls_handshakes", "tls_resumed", "duration_s", "pages_per_s", "cpu_s", "max_rss_bytes",
    "output", "stopped_by", "round",
}  # fmt: skip


def test_everything_linked_is_fetched_exactly_once(whole: Whole) -> None:
    """Pages, redirects, broken links and requisites of every host; nothing else, and nothing twice."""
    asked = Counter(request.place for request in whole.requests if request.target != "/robots.txt")
    assert len(whole.server.site.pages) == 600
    assert set(asked) == whole.wanted
    assert max(asked.values()) == 1


def test_a_finished_crawl_ends_well(whole: Whole) -> None:
    """Exit 0, and not a word on stderr, which is no terminal here."""
    assert (whole.ran.code, whole.ran.stderr) == (0, "")
    assert whole.ran.summary["stopped_by"] == "empty"


def test_robots_txt_comes_first(whole: Whole) -> None:
    """On each host, the hosts of pictures and of redirects too, its answer ends before anything else is asked."""
    for host in (BARE, WWW, DOCS, OTHER, CDN):
        of_host = [request for request in whole.requests if request.host == host]
        assert of_host[0].target == "/robots.txt", host
        assert all(request.begin_ms >= of_host[0].end_ms for request in of_host if request.target != "/robots.txt")


def test_what_robots_txt_forbids_is_never_requested(whole: Whole) -> None:
    """It is logged as denied, with the rule that decided in the store."""
    forbidden = whole.server.site.forbidden
    assert forbidden
    assert not forbidden & {request.place for request in whole.requests}
    denied = {line["url_full"] for line in whole.crawl.fetches() if line["outcome"] == "denied"}
    assert denied == {whole.server.url(*place) for place in forbidden}
    assert whole.ran.summary["denied"] == len(forbidden)


def test_a_host_out_of_scope_gives_pictures_only(whole: Whole) -> None:
    """The front page of the picture host is linked, and not in scope: said once in the log."""
    targets = {request.target for request in whole.requests if request.host == CDN}
    assert "/" not in targets
    assert len(targets) == 13
    skipped = [line for line in whole.crawl.events() if line["event"] == "url_skipped"]
    of_host = [(line["url_full"], line["deny_reason"]) for line in skipped if CDN in line["url_full"]]
    assert of_host == [(whole.server.url(CDN), "scope_host")]


def test_the_redirect_of_a_seed_brings_its_host_in(whole: Whole) -> None:
    """alpha.test leads to www.alpha.test, which is crawled whole, with a line that says so."""
    assert sum(request.host == WWW for request in whole.requests) > 400
    widened = [line for line in whole.crawl.events() if line["event"] == "scope_widened"]
    assert [(line["server_address"], line["via"]) for line in widened] == [(WWW, whole.server.url(BARE))]


def test_the_summary_has_the_names_that_scripts_rely_on(whole: Whole) -> None:
    """Exactly these, in one object on one line."""
    assert set(whole.ran.summary) == SUMMARY
    assert whole.ran.stdout.count("\n") == 1


def test_the_summary_agrees_with_the_server(whole: Whole) -> None:
    """Responses, connections and handshakes are those that the server counted."""
    summary = whole.ran.summary
    connections = {request.connection: request.resumed for request in whole.requests}
    assert summary["responses"] == len(whole.requests)
    assert summary["connections_opened"] == summary["tls_handshakes"] == len(connections)
    assert summary["tls_resumed"] == sum(connections.values())
    assert summary["requests_per_connection"] == pytest.approx(len(whole.requests) / len(connections), abs=0.05)
    reused = len(whole.requests) - len(connections)
    assert summary["connection_reuse_ratio"] == pytest.approx(reused / len(whole.requests), abs=0.0001)
    assert sum(summary["connections_closed"].values()) == len(connections)
    by_host = summary["connections_by_host"]
    assert sum(host["connections"] for host in by_host) == len(connections)
    assert sum(host["requests"] for host in by_host) == len(whole.requests)
    assert {host["host"] for host in by_host} == {
        whole.server.url(name, "") for name in {r.host for r in whole.requests}
    }
    robots_found = sum(request.target == "/robots.txt" and request.status == 200 for request in whole.requests)
    assert summary["pages"] == sum(request.status == 200 for request in whole.requests) - robots_found
    assert summary["errors"] == 0
    assert summary["hosts"] == 5
    assert summary["output"] == str(whole.crawl.output)


def test_the_same_command_again_fetches_nothing(whole: Whole) -> None:
    """All is done, robots.txt is known: not one request, exit 0, and a sentence that says so."""
    whole.server.forget()
    again = whole.crawl.run()
    assert again.code == 0
    assert again.stderr.endswith("; `crawler crawl --again` visits them anew\n")
    assert again.summary["stopped_by"] == "empty"
    assert whole.server.requests() == []


def test_rounds_over_a_changed_site_leave_an_archive_that_verifies(tmp_path: Path) -> None:
    """A page is new, one has other content, one is gone for good, one is gone and there again."""
    with nginx(Site({OTHER: 20})) as server:
        www = server.ca_file.parent / "www" / OTHER
        changed, gone, back = (www / f"pages/{n}.html" for n in (6, 12, 18))
        crawl = Crawl.of(tmp_path, sections(server, OTHER))
        assert crawl.run().code == 0
        held = back.read_bytes()
        changed.write_bytes(b'<title>changed</title><a href="/pages/new.html">new</a>')
        (www / "pages/new.html").write_bytes(b"<title>new</title>")
        gone.unlink()
        back.unlink()
        missing = sum(host == OTHER for host, _ in server.site.missing)
        first = crawl.run("--again").summary["round"]
        assert (first["new"], first["changed"], first["gone"], first["failed"]) == (1, 1, missing + 2, 0)
        back.write_bytes(held)
        second = crawl.run("--again").summary["round"]
        assert (second["new"], second["gone"], second["failed"]) == (0, missing + 1, 0)
        assert second["visited"] == first["visited"] + 1
    checked = run("verify", crawl.output)
    assert (checked.code, checked.stdout) == (0, "")
