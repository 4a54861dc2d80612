"""What is not read, not asked now, and not asked faster: content types, hours and bandwidth of whole crawls."""

import json
import time
from pathlib import Path

import pytest

from tests.support.commands import Crawl, run, running
from tests.support.nginx import Nginx
from tests.support.site_crawls import WWW, sections
from tests.support.warcs import record_at

pytestmark = pytest.mark.e2e


def test_bodies_of_other_types_are_not_read(server: Nginx, tmp_path: Path) -> None:
    """Pictures and styles are answered and logged, and neither the archive nor pages/ has their bodies."""
    keys = sections(server, WWW, fetch={"content_types": ["text/html"]}, scope={"max_urls": 120})
    crawl = Crawl.of(tmp_path, keys)
    ran = crawl.run()
    assert (ran.code, ran.summary["errors"]) == (0, 0)
    fetches = [line for line in crawl.fetches() if line.get("http_response_status_code") == 200]
    others = [line for line in fetches if line["content_type"] != "text/html" and "/robots.txt" not in line["url_full"]]
    assert len(others) > 5
    for line in others:
        assert (line["outcome"], line["truncated"], line["next"]) == ("truncated", "content_type", "done")
        assert "error_type" not in line
        assert line["http_response_body_size"] == 0
    for line in others[:3]:
        archived = record_at(crawl.output / "warc" / line["warc_file"], line["warc_offset"])
        assert (archived.status, archived.payload) == (200, b"")
    urls = {line["url_full"] for line in others}
    assert not urls & {line["url"] for line in crawl.page_lines()}
    assert ran.summary["pages"] == len(crawl.page_lines())


def test_a_crawl_outside_its_hours_asks_nothing(server: Nginx, tmp_path: Path) -> None:
    """It ends as one that has to wait, says so, and goes on when the hours are others."""
    far = (time.localtime().tm_wday + 3) % 7
    day = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")[far]
    crawl = Crawl.of(tmp_path, sections(server, WWW, scope={"max_urls": 5}))
    ran = crawl.run("-o", f"fetch.hours=['{day} 12:00-13:00']")
    assert (ran.code, ran.summary["stopped_by"], ran.summary["responses"]) == (75, "waiting", 0)
    assert f"fetch.hours are closed until {day} 12:00 " in ran.stderr
    assert "; 1 URL is left" in ran.stderr
    assert server.requests() == []
    told = [line for line in crawl.events() if line["event"] == "hours"]
    assert [line["open"] for line in told] == [False]
    assert told[0]["until"] > told[0]["ts"]
    ran = crawl.run("-o", "fetch.hours=['00:00-24:00']")
    assert (ran.code, ran.summary["stopped_by"]) == (0, "max_urls")


def test_a_daemon_outside_its_hours_shows_until_when(server: Nginx, tmp_path: Path) -> None:
    """It is up, asks nothing, and `status` names the hours as what it waits for."""
    day = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")[(time.localtime().tm_wday + 3) % 7]
    keys = sections(
        server,
        WWW,
        fetch={"hours": [f"{day} 12:00-13:00"]},
        identity={"user_agent": "test/1 (+https://test.test/)"},
        output={"directory": str(tmp_path / "out")},
    )
    crawl = Crawl.of(tmp_path, keys)
    with running("run", "-c", crawl.config):
        deadline = time.monotonic() + 60
        status = run("status", "-c", crawl.config, "--json")
        while status.code != 0 and time.monotonic() < deadline:
            status = run("status", "-c", crawl.config, "--json")
        found = json.loads(status.stdout)
    assert (found["state"], found["bottleneck"]) == ("off_hours", "hours")
    assert found["sentence"].startswith("outside fetch.hours, which open at ")
    assert server.requests() == []


def test_bandwidth_is_kept_by_the_servers_log(server: Nginx, tmp_path: Path) -> None:
    """From the first request to the last, the server sent no more than the rate and one burst allow."""
    rate = 40_000
    crawl = Crawl.of(tmp_path, sections(server, WWW, scope={"max_urls": 150}, fetch={"bandwidth": rate}))
    ran = crawl.run()
    assert (ran.code, ran.summary["stopped_by"]) == (0, "max_urls")
    size = ran.summary["bytes"]
    assert size > 2 * rate  # else it proves nothing
    in_flight = 8 * max(line.get("http_response_body_size", 0) for line in crawl.fetches())
    assert ran.summary["duration_s"] >= (size - rate - in_flight) / rate
