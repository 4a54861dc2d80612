"""Figures from logs: tallies, their halves, hosts with their states, the day's story and its page."""

import asyncio
import random
import statistics
from collections import Counter
from dataclasses import replace
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import Any

import orjson
import pytest

from crawler.cli.output import Pen
from crawler.cli.report import _host_text, _text
from crawler.core.enums import DenyReason, TaskKind, UrlState
from crawler.core.models import Backoff, Denied, Lease, RobotsRecord, Task
from crawler.core.options import PolitenessOptions
from crawler.engine.pages.worker import Worker
from crawler.engine.scheduling.host import Host
from crawler.frontier.base import BlockedHost
from crawler.frontier.sqlite.store import SqliteFrontier
from crawler.frontier.sqlite.store_reader import StoreReader
from crawler.inspection.explain.hosts import SORTS, views
from crawler.inspection.log import totals as tallies_module
from crawler.inspection.log.query import Matcher, Query
from crawler.inspection.log.rotated_log import RotatedLog, select
from crawler.inspection.log.totals import OTHER_HOSTS, Gathered, LogTotals, Spread, gather
from crawler.inspection.log.url_history import present_state
from crawler.inspection.report import EventTotals, HostReport, report, requests_to, total_events
from crawler.inspection.report_page import page
from crawler.obs.fetch_line import fetch_line
from tests.support.engine import Harness
from tests.support.frontiers import NOW, batch, found, visit
from tests.support.log_lines import fetch_lines, write
from tests.support.scripted_web import response
from tests.support.virtual_time import run

LINES = list(fetch_lines(4_000, hosts=30, per_s=2.0))


def tally_of(lines: list[dict[str, Any]]) -> LogTotals:
    tally = LogTotals(300)
    for line in lines:
        tally.add(line)
    return tally


def test_auxiliary_requests_are_counted_apart() -> None:
    """A robots.txt or sitemap that is not there says nothing against a host; with the outcomes, all attempts."""

    def line(path: str, outcome: str, status: int, **more: object) -> dict[str, Any]:
        url = f"https://a.example{path}"
        return {"ts": "2026-11-24T09:00:00.000Z", "outcome": outcome, "http_response_status_code": status,
                "server_address": "a.example", "url_full": url, **more}  # fmt: skip

    tally = tally_of(
        [
            line("/robots.txt", "http_error", 404, kind="robots"),
            line("/sitemap.xml", "http_error", 404, kind="sitemap"),
            line("/feed", "http_error", 502, kind="feed"),
            line("/", "ok", 200, next="done"),
            line("/bad", "http_error", 500, next="gave_up"),
        ]
    )
    assert tally.outcomes == {"ok": 1, "http_error": 1}
    assert tally.auxiliary == 3
    assert tally.lines == tally.outcomes.total() + tally.auxiliary
    host = tally.hosts["a.example"]
    assert (host.good, host.bad, host.errors) == (1, 2, {"502": 1, "500": 1})
    assert tally.nexts["gave_up"] == 1


def test_rates_are_of_the_time_that_the_crawl_ran() -> None:
    """Not of the pauses between runs, in which nothing could be requested. Lines may be a little disordered."""

    def line(run_id: str, ts: str) -> dict[str, Any]:
        return {"ts": f"2026-11-24T{ts}.000Z", "run_id": run_id, "outcome": "ok", "http_response_status_code": 200,
                "server_address": "a.example", "url_full": "https://a.example/", "next": "done"}  # fmt: skip

    lines = [
        line("a", "09:00:00"), line("a", "09:00:31"), line("a", "09:00:30"), line("a", "09:01:00"),
        line("b", "17:00:00"), line("b", "17:01:00"), line("c", "18:00:00"),
    ]  # fmt: skip
    tally, of_host = tally_of(lines), HostReport("a.example")
    for one in lines:
        of_host.add(one)
    found = report(tally, EventTotals(), None)
    assert (found["duration_s"], found["running_s"]) == (9 * 3_600.0, 120.0)
    assert found["totals"]["pages_per_s"] == round(7 / 120, 2)
    assert of_host.values()["requests_per_minute"] == 3.5
    assert "  9 h, of which it ran 2 min" in _text(found)[0]


def test_a_tally_counts_what_is_in_the_lines() -> None:
    """Every sum is the one that a look at all lines gives."""
    tally = tally_of(LINES)
    answered = [line for line in LINES if "http_response_status_code" in line]
    assert tally.lines == len(LINES)
    assert tally.outcomes == Counter(line["outcome"] for line in LINES)
    assert tally.statuses == Counter(line["http_response_status_code"] for line in answered)
    assert tally.bytes == sum(line["http_response_body_size"] for line in answered)
    assert tally.opened == sum(line["conn_request_n"] == 1 for line in answered)
    assert tally.error_types == Counter(line["error_type"] for line in LINES if "error_type" in line)
    assert sum(host.attempts for host in tally.hosts.values()) == len(LINES)
    assert sum(sum(one.outcomes.values()) for one in tally.bins.values()) == len(LINES)
    slowest = max(answered, key=lambda line: line["ttfb_ms"] + line["body_ms"])
    assert max(tally.slowest)[1] == slowest["url_full"]
    assert len(tally.slowest) == 10


def test_a_quantile_is_right_within_a_tenth() -> None:
    """Buckets are as narrow as they should be."""
    rng = random.Random(5)
    values = [rng.lognormvariate(4, 1) for _ in range(20_000)]
    spread = Spread()
    for value in values:
        spread.note(value)
    for share, place in ((0.5, 49), (0.95, 94)):
        exact = statistics.quantiles(values, n=100)[place]
        assert spread.quantile(share) == pytest.approx(exact, rel=0.1)
    assert Spread().quantile(0.5) is None


def test_hosts_beyond_the_limit_share_an_entry(monkeypatch: pytest.MonkeyPatch) -> None:
    """A crawl of a million hosts does not fill the memory of who looks at it."""
    monkeypatch.setattr(tallies_module, "HOSTS_KEPT", 5)
    tally = tally_of(LINES)
    assert len(tally.hosts) == 6
    assert sum(host.attempts for host in tally.hosts.values()) == len(LINES)
    assert tally.hosts[OTHER_HOSTS].attempts > 0


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("log")
    write(folder / "fetch.jsonl.1", iter(LINES[:2500]))
    write(folder / "fetch.jsonl", iter(LINES[2500:]))
    return folder / "fetch.jsonl"


def gathered(log: Path) -> Gathered:
    with RotatedLog(log) as parts:
        return gather(parts, select(parts), Query(), bin_s=300, name=log.name)


def test_all_parts_are_counted(log: Path) -> None:
    """A log in two parts is counted as the whole."""
    tally, expected = gathered(log).tally, tally_of(LINES)
    tally.slowest.sort()
    expected.slowest.sort()
    assert tally == expected


EVENTS = [
    {"event": "start", "version": "0.1.0", "pid": 1},
    {"event": "conn_open", "conn_id": 1, "server_address": "a.test"},
    {"event": "conn_open", "conn_id": 2, "server_address": "a.test"},
    {"event": "conn_close", "conn_id": 1, "server_address": "a.test", "reason": "idle_timeout", "requests": 9},
    {"event": "conn_fail", "stage": "tls", "error_type": "tls_cert_expired"},
    {"event": "url_skipped", "url_full": "https://x.test/?token=1", "deny_reason": "scope_host"},
    {"event": "url_skipped", "url_full": "https://y.test/", "deny_reason": "scope_host"},
    {"event": "url_skipped", "url_full": "https://x.test/again", "deny_reason": "scope_host"},
    {"event": "host_state", "server_address": "b.test", "server_port": 443, "from": "ready", "to": "backoff",
     "reason": "connect_refused", "until": "2026-11-23T09:10:00.000Z"},
]  # fmt: skip


def event_log(folder: Path, run_id: str = "r1") -> Path:
    path = folder / "events.jsonl"
    lines = [{"ts": f"2026-11-23T08:00:0{i}.000Z", "run_id": run_id, **event} for i, event in enumerate(EVENTS)]
    path.write_bytes(b"".join(orjson.dumps(line) + b"\n" for line in lines))
    return path


async def test_each_host_is_in_the_most_severe_state_that_holds(tmp_path: Path) -> None:
    """Rest, failed robots.txt, back-off told by the log, and those that are ready."""
    frontier = SqliteFrontier(tmp_path / "frontier.db")
    await frontier.open()
    names = ("a.test", "b.test", "held.test", "rests.test", "new.test", "www.evil.test")
    await frontier.add([found(f"https://{name}/{n}") for name in names for n in range(2)], now=NOW)
    await frontier.block(BlockedHost("evil.test", "domain", NOW, "a complaint"))
    ready = RobotsRecord("rules", 200, b"User-agent: *\nCrawl-delay: 3\n", NOW, NOW + 9999, crawl_delay_s=3.0)
    down = RobotsRecord("unreachable", 503, None, NOW, NOW + 60, failing_since=NOW)
    robots = [(1, ready), (2, ready), (3, down), (4, ready)]
    await frontier.settle(
        batch(
            *(
                visit(
                    Task(id=0, url=f"https://{names[i - 1]}/robots.txt", kind=TaskKind.ROBOTS), host_id=i, robots=record
                )
                for i, record in robots
            ),
            backoffs=[Backoff("rests.test", NOW + 480, 1, "429 Retry-After 480")],
        )
    )
    await frontier.close(clean=True)
    with RotatedLog(event_log(tmp_path)) as parts:
        happening = present_state(parts, "r1")
        assert present_state(parts, "another run").open == {}
    with StoreReader(tmp_path / "frontier.db", is_live=False) as reader:
        tallies = tally_of([line | {"server_address": "a.test"} for line in LINES[:50]]).hosts
        rows = views(reader, PolitenessOptions(key="host"), tallies, happening.states, happening.open, now=NOW)
    by_name = {row.host: row for row in rows}
    assert {name: (row.state, row.why) for name, row in by_name.items()} == {
        "a.test": ("waiting", "Crawl-delay 3 s"),
        "b.test": ("backoff", "connect_refused"),
        "held.test": ("held", "robots.txt cannot be read (status 503)"),
        "rests.test": ("backoff", "429 Retry-After 480"),
        "new.test": ("new", ""),
        "www.evil.test": ("blocked", "a complaint"),
    }
    assert by_name["rests.test"].until_at == NOW + 480
    assert by_name["a.test"].connections_open == 1
    assert by_name["a.test"].queued == 2
    p50_ms = by_name["a.test"].p50_ms
    assert p50_ms is not None
    assert p50_ms == round(p50_ms, 2)
    order = sorted(rows, key=SORTS["state"])
    assert [row.state for row in order] == ["blocked", "held", "backoff", "backoff", "waiting", "new"]
    assert all(sorted(rows, key=key) for key in SORTS.values())


def story(log: Path) -> tuple[dict[str, Any], LogTotals]:
    tally = gathered(log).tally
    with RotatedLog(event_log(log.parent)) as parts:
        events, problems = total_events(parts, Query())
    assert problems == []
    return report(tally, events, None), tally


def test_the_story_adds_up(log: Path) -> None:
    """What belongs together has one sum, wherever it stands."""
    told, _ = story(log)
    assert orjson.loads(orjson.dumps(told)) == told
    assert sum(told["outcomes"].values()) == told["totals"]["attempts"] == len(LINES)
    assert sum(told["statuses"].values()) == told["totals"]["responses"]
    connections = told["connections"]
    assert connections["requests"] == connections["full_handshakes_saved"] + (
        connections["tls_handshakes"] - connections["tls_resumed"]
    )
    assert connections["closed"] == {"idle_timeout": 1}
    assert told["refused_links"] == {"scope_host": {"hosts": 2, "sample": "https://x.test/?token=***"}}
    assert told["connect_failures"] == {"tls: tls_cert_expired": 1}
    assert told["backoffs"] == {"backoff: connect_refused": 1}
    assert [line["event"] for line in told["events"]] == ["start"]
    faulty = told["faultiest_hosts"]
    assert [one["throttled"] for one in faulty] == sorted((one["throttled"] for one in faulty), reverse=True)


class Outline(HTMLParser):
    """Elements that are open, those that were seen, and every attribute that could lead elsewhere."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: Counter[str] = Counter()
        self.leads: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen[tag] += 1
        self.leads += [value or "" for name, value in attrs if name in ("src", "href", "srcset", "action", "data")]


def test_the_page_is_whole_in_itself(log: Path) -> None:
    """No script, no address, four plots, and text from the web is text."""
    told, tally = story(log)
    told["slowest_urls"][0]["url"] = 'https://e.test/"><script>alert(1)</script>'
    html = page(told, tally)
    outline = Outline()
    outline.feed(html)
    assert outline.seen["svg"] == 4
    assert outline.seen["script"] == 0
    assert outline.leads == ["data:,"]
    assert "@import" not in html
    assert "url(" not in html
    assert f"{told['totals']['pages']:,}" in html


def test_a_page_without_fetches_says_so() -> None:
    """An empty log has no plots."""
    tally = LogTotals()
    html = page(report(tally, EventTotals(), None), tally)
    assert "Nothing was fetched" in html
    assert "<svg" not in html


def test_requests_to_a_host_are_shown_line_by_line(log: Path) -> None:
    """Every request, and the shortest rest between two."""
    host = LINES[0]["server_address"]
    wanted = [line for line in LINES if line["server_address"] == host]
    with RotatedLog(log) as parts:
        told = list(requests_to(parts, Matcher(Query(hosts=(host,))), host))
    assert [line for _, line, _ in told] == wanted
    values = told[-1][2].values()
    assert values["requests"] + values["denied"] == len(wanted)
    assert values["shortest_gap_s"] is not None


def test_the_shortest_gap_is_that_of_the_server(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also if the first pages take long to process, so that they come last in the log."""
    process = Worker._process_page

    async def slow(worker: Worker, lease: Lease, host: Host, task: Task, *more: Any) -> None:
        await asyncio.sleep({"1": 30.0, "3": 8.3}.get(task.url[-1], 0.0))
        await process(worker, lease, host, task, *more)

    monkeypatch.setattr(Worker, "_process_page", slow)
    urls = [f"https://a.test/{number}" for number in range(6)]

    async def main() -> Harness:
        engine = Harness(*urls)
        engine.web.takes_s = lambda origin, task: 0.25
        engine.web.other = lambda origin, task: replace(response(took_s=0.25), started_at=engine.clock.now() - 0.25)
        await engine.run()
        return engine

    engine = run(main())
    figures = HostReport("a.test")
    logged = []
    for number, (visited, _, _) in enumerate(engine.visits):
        line = fetch_line(
            visited.settlement, crawl="c", run_id="r", fetch_id=number, links_found=0, links_new=0, written=None
        )
        logged.append(str(line["url_full"]))
        figures.add(line)
    requests = [one for one in engine.web.requests if one.task.kind is TaskKind.PAGE]
    assert sorted(logged[1:]) == sorted(one.url for one in requests)
    assert logged[1:] != [one.url for one in requests]
    gaps = [after.begin - before.end for before, after in pairwise(engine.web.requests)]
    assert figures.values()["shortest_gap_s"] == pytest.approx(min(gaps), abs=0.002)


async def test_a_host_s_denied_urls_are_those_of_the_log_and_of_the_store(tmp_path: Path) -> None:
    """URLs that changed rules denied have no line in the log."""
    frontier = SqliteFrontier(tmp_path / "frontier.db")
    await frontier.open()
    urls = [f"https://{host}/{n}" for host in ("a.test", "b.test") for n in range(3)]
    await frontier.add([found(url) for url in urls], now=NOW)
    denied = Denied(DenyReason.ROBOTS, "Disallow: /")
    tasks = [Task(id=n, url=urls[n - 1]) for n in (2, 3)]
    await frontier.settle(batch(*(visit(task, outcome=denied, state=UrlState.DENIED) for task in tasks)))
    await frontier.close(clean=True)
    with StoreReader(tmp_path / "frontier.db", is_live=False) as reader:
        assert [reader.denied_of(host) for host in ("a.test", "b.test", "c.test")] == [2, 0, 0]
    figures = HostReport("a.test")
    figures.add(next(line for line in LINES if line["outcome"] == "ok"))
    shown = "\n".join(_host_text(figures.values(), Pen(), 2))
    assert "0 URLs when due, by robots.txt or the crawl's own rules; 2 in the store now" in shown


def test_lines_that_make_no_sense_do_not_stop_a_tally() -> None:
    """A line of another program, or of a later version, is ignored."""
    tally = LogTotals()
    for line in ({}, {"ts": 3}, {"ts": "x", "outcome": None}, {"ts": "rubbish", "outcome": "ok"}):
        tally.add(line)
    assert tally.lines == 1


def test_pages_that_are_not_there_make_no_host_rude() -> None:
    """404 is an answer; 429, 5xx and errors are what the list is about."""
    usual = LINES[0] | {"outcome": "http_error", "attempt": 1}
    usual.pop("error_type", None)
    tally = tally_of(
        [usual | {"server_address": f"h{code}", "http_response_status_code": code} for code in (404, 429, 500)]
    )
    assert [one["host"] for one in report(tally, EventTotals(), None)["faultiest_hosts"]] == ["h429", "h500"]
