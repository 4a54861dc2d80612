"""What a crawl leaves on disk, read by others' tools and held to the server's own view."""

from collections import Counter
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.conftest import Whole
from tests.support.commands import Crawl
from tests.support.log_lines import problems
from tests.support.nginx import Nginx
from tests.support.site_crawls import OTHER, sections
from tests.support.warcs import (
    CHUNKED_COMPLAINT,
    Archived,
    checker_exit_code,
    parts_of,
    record_at,
    records,
    wrong_digests,
)

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def archive(whole: Whole) -> dict[Path, list[Archived]]:
    """Every record of every WARC of the whole crawl."""
    return {path: list(records(path)) for path in whole.crawl.warcs()}


@pytest.fixture(scope="module")
def responses(archive: dict[Path, list[Archived]]) -> list[Archived]:
    return [record for found in archive.values() for record in found if record.kind in ("response", "revisit")]


def test_all_files_are_finished(whole: Whole) -> None:
    """Nothing is .open or .orphan, and the archive rolled over at output.warc_size."""
    names = [path.name for folder in ("warc", "pages") for path in (whole.crawl.output / folder).iterdir()]
    assert all(name.endswith((".warc.gz", ".jsonl")) for name in names)
    sizes = [path.stat().st_size for path in whole.crawl.warcs()]
    assert len(sizes) == 1 or all(size >= 1_000_000 for size in sizes[:-1])


def test_warcio_has_no_complaint_but_the_known_one(archive: dict[Path, list[Archived]], capfd: Any) -> None:
    """It digests chunk framing as part of the payload (WARC 1.1 §6.3.2 does not): those records, and no others."""
    for path, found in archive.items():
        for record in found:
            if record.is_chunked:
                assert len(record.complaints) == 1
                assert record.complaints[0].startswith(CHUNKED_COMPLAINT)
            else:
                assert record.complaints == (), record.url
        assert checker_exit_code([path]) == int(any(record.is_chunked for record in found))
    assert any(record.is_chunked for found in archive.values() for record in found)
    capfd.readouterr()  # what the checker said


def test_without_chunked_responses_warcio_has_no_complaint(server: Nginx, tmp_path: Path) -> None:
    """The command `warcio check` ends with 0 on every file, however small they are made."""
    scope: dict[str, object] = {"exclude": ["/chunked/**", "/gz/**"]}
    crawl = Crawl.of(tmp_path, sections(server, OTHER, scope=scope, output={"warc_size": "20kB"}))
    assert crawl.run().code == 0
    assert len(crawl.warcs()) > 1
    assert checker_exit_code(crawl.warcs()) == 0
    stored = [record.url for path in crawl.warcs() for record in records(path) if record.kind == "response"]
    assert sorted(stored) == sorted(server.url(*request.place) for request in server.requests())


def test_every_digest_is_right(whole: Whole) -> None:
    """fastwarc computes them anew; those of chunked payloads are computed here, without the framing."""
    assert [wrong for path in whole.crawl.warcs() for wrong in wrong_digests(path)] == []


def test_every_response_is_archived_once(whole: Whole, responses: list[Archived]) -> None:
    """The URLs in the WARC are those that the server answered, robots.txt too."""
    answered = Counter(whole.server.url(*request.place) for request in whole.requests)
    answered[whole.server.url("www.alpha.test", "/robots.txt")] -= 1  # alpha.test's redirected there: its second visit
    archived = Counter(record.url for record in responses)
    archived[whole.server.url("www.alpha.test", "/robots.txt")] -= 1
    assert archived == answered
    assert len(responses) == sum(1 for line in whole.crawl.fetches() if "http_response_status_code" in line)


def test_payloads_are_what_the_server_has(whole: Whole, responses: list[Archived]) -> None:
    """Bytes, status and type, whichever coding they travelled in."""
    bodies = {whole.server.url(*place): body for place, body in whole.server.site.bodies.items()}
    checked = 0
    for record in responses:
        if record.status == 200:
            assert record.payload == bodies[record.url], record.url
            checked += 1
    assert checked == sum(request.status == 200 for request in whole.requests)


def test_every_place_in_the_logs_leads_to_its_record(whole: Whole) -> None:
    """warc_file and warc_offset, of fetch.jsonl and of pages/, seek to a response of that URL with that digest."""
    folder = whole.crawl.output / "warc"
    fetches = [line for line in whole.crawl.fetches() if "http_response_status_code" in line]
    for line in fetches:
        record = record_at(folder / line["warc_file"], line["warc_offset"])
        assert (record.kind, record.url) == ("response", line["url_full"])
        assert record.status == line["http_response_status_code"]
        assert record.payload_digest == line["content_digest"]
    for line in whole.crawl.page_lines():
        record = record_at(folder / line["warc_file"], line["warc_offset"])
        assert (record.url, record.status) == (line["url"], line["status"])
        assert record.payload_digest == line["digest"]


def test_an_archived_page_can_be_shown(whole: Whole, responses: list[Archived]) -> None:
    """Every image, script and style sheet that an archived page names is archived, and whole."""
    bodies = {whole.server.url(*place): body for place, body in whole.server.site.bodies.items()}
    archived = {record.url: record for record in responses}
    pages = [record for record in responses if record.content_type == "text/html" and record.status == 200]
    assert len(pages) == 600
    for page in pages:
        parts = parts_of(page)
        assert len(parts) == 3
        for url in parts:
            part = archived[url]
            assert (part.status, part.payload) == (200, bodies[url])
    style = {"/css/more.css", "/img/paper.png"}  # what the style sheet asks for in turn
    assert all(whole.server.url(host, target) in archived for host in whole.server.site.hosts for target in style)


OF_A_PAGE = {
    "url", "canonical", "via", "depth", "tags", "status", "content_type", "charset", "title", "language", "digest",
    "simhash", "links", "fetched_at", "warc_file", "warc_offset",
}  # fmt: skip


def test_pages_has_a_line_for_every_page(whole: Whole) -> None:
    """Each 2xx answer that is no robots.txt, once, with what was read out of it."""
    lines = whole.crawl.page_lines()
    ok = {whole.server.url(*r.place) for r in whole.requests if r.status == 200 and r.target != "/robots.txt"}
    assert sorted(line["url"] for line in lines) == sorted(ok)
    assert len(lines) == whole.ran.summary["pages"]
    by_url = {line["url"]: line for line in lines}
    page = by_url[whole.server.url("docs.alpha.test", "/chunked/9.html")]
    assert page["title"] == "Page 9"
    assert page["content_type"] == "text/html"
    assert (page["charset"], page["language"], page["status"]) == ("utf-8", "en", 200)
    assert page["via"].endswith("/gz/1.html")
    assert page["depth"] == 2
    assert set(page) == OF_A_PAGE


# docs/reference/log-fields.md: what a line may hold, and what it always does.
ALWAYS = {
    "ts", "event", "level", "crawl", "run_id", "fetch_id", "url_full", "server_address", "depth", "hop_path",
    "source", "attempt", "outcome", "queue_ms", "politeness_ms", "dur_ms", "next",
}  # fmt: skip
WITH_A_RESPONSE = {
    "http_request_resend_count", "http_response_status_code", "http_response_body_size", "content_digest",
    "sent_at", "ttfb_ms", "body_ms", "conn_id", "conn_request_n", "network_peer_address", "tls_protocol_version",
    "tls_resumed", "links_found", "links_new", "warc_file", "warc_offset",
}  # fmt: skip
SOMETIMES = {
    "via", "error_type", "deny_reason", "content_size", "content_type", "redirect_to", "dns_ms", "connect_ms",
    "tls_ms", "next_at", "truncated", "tainted", "coding_fault", "reading_fault", "kind",
}  # fmt: skip


def test_fetch_lines_have_the_names_that_scripts_rely_on(whole: Whole) -> None:
    """None is missing and none is unknown; values are those that the server saw."""
    statuses = {whole.server.url(*request.place): request for request in whole.requests}
    lines = whole.crawl.fetches()
    assert Counter(line["outcome"] for line in lines).keys() == {"ok", "redirect", "http_error", "denied"}
    for line in lines:
        assert line["event"] == "fetch"
        expected = ALWAYS if line["outcome"] == "denied" else ALWAYS | WITH_A_RESPONSE
        assert expected <= set(line), line
        assert set(line) <= ALWAYS | WITH_A_RESPONSE | SOMETIMES, line
        if line["outcome"] != "denied":
            request = statuses[line["url_full"]]
            assert line["http_response_status_code"] == request.status
            assert line["network_peer_address"] == request.address
            assert line["tls_protocol_version"] == "1.3"
        else:
            assert line["deny_reason"] == "robots"
        if line["outcome"] == "redirect":
            assert line["redirect_to"].startswith("https://")


def test_links_add_up(whole: Whole) -> None:
    """links_new over all lines is what the summary says, and every URL but seeds and denied ones was new once."""
    lines = whole.crawl.fetches()
    assert sum(line.get("links_new", 0) for line in lines) == whole.ran.summary["links_new"]
    assert sum(line.get("links_found", 0) for line in lines) == whole.ran.summary["links_found"]
    seeds = 3
    assert whole.ran.summary["links_new"] + seeds == len(whole.wanted) + len(whole.server.site.forbidden)


def test_every_line_of_the_event_log_is_in_the_catalogue(whole: Whole) -> None:
    """Its fields too; it begins with start and ends with stop."""
    events = whole.crawl.events()
    assert [complaint for line in events for complaint in problems(line)] == []
    names = [line["event"] for line in events]
    assert names[0] == "start"
    assert "ready" in names
    assert "stop" in names


def test_the_log_vouches_for_every_finished_file(whole: Whole) -> None:
    """A file_closed for each, with its size, its checksum and the number of its records."""
    closed: Mapping[str, dict[str, Any]] = {
        line["name"]: line for line in whole.crawl.events() if line["event"] == "file_closed"
    }
    for path in (*whole.crawl.warcs(), *(whole.crawl.output / "pages").iterdir()):
        assert closed[path.name]["bytes"] == path.stat().st_size
        assert closed[path.name]["sha256"] == sha256(path.read_bytes()).hexdigest()
    assert sum(line["records"] for line in closed.values() if line["sink"] == "pages") == whole.ran.summary["pages"]
