"""The live view and the final table of `crawler crawl`."""

import io
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console, Group, RenderableType

from crawler.app import VIEW_S
from crawler.cli.progress import Progress, panel, summary_table
from crawler.core.enums import Bottleneck, CrawlState
from crawler.engine.monitoring.counters import Rates
from crawler.engine.monitoring.event_log import RecentError
from crawler.engine.monitoring.status import Counts, InFlight, Status
from tests.support.log_lines import problems_of_event
from tests.support.scripted_web import NO_CONNECTIONS

CONNECTIONS = replace(NO_CONNECTIONS, open=8, opened=35, requests=12_400, tls_handshakes=35, tls_resumed=19)
STATUS = Status(
    at=1_700_000_000.0, elapsed_s=80.0, state=CrawlState.CRAWLING, bottleneck=Bottleneck.NETWORK, sentence="",
    opens_at=None, rates=Rates(pages_per_s=148.2),
    counts=Counts(
        responses=12_345, pages=12_000, html=11_000, bytes=345_678_901, errors=2, denied=14, links_found=1_234_567,
        links_new=40_200, page_responses={}, auxiliary=0, gave_up=0,
        outcomes={"ok": 12_100, "redirect": 236, "http_error": 9, "error": 2, "denied": 14},
        error_types={}, deny_reasons={},
    ),
    urls={"queued": 28_345, "waiting": 12, "done": 12_030, "denied": 14, "gave_up": 0, "suspect": 0},
    held_back=0, eta_s=3_600.0,
    hosts={"total": 31, "with_work": 12, "new": 0, "ready": 29, "backoff": 2, "held": 0, "blocked": 0},
    connections=CONNECTIONS, in_flight=[InFlight("https://e.org/", "page", 1, "body", 0.1)] * 8, rss_bytes=1,
    max_rss_bytes=1, uncommitted=0, oldest_ready_s=0.0, last_url="https://e.org/a?token=s3cret",
)  # fmt: skip
SUMMARY: dict[str, object] = {
    "responses": 12_345, "pages": 12_000, "bytes": 345_678_901, "errors": 2, "http_errors": 7,
    "denied": 14, "links_found": 1_234_567,
    "links_new": 40_200, "hosts": 31, "connections_opened": 35, "requests_per_connection": 354.3, "tls_handshakes": 35,
    "tls_resumed": 19, "duration_s": 83.2, "pages_per_s": 144.2, "cpu_s": 12.3, "max_rss_bytes": 123_456_789,
    "output": "/srv/crawl", "stopped_by": "waiting", "page_responses": {"redirect": 200, "ok": 12_113},
    "auxiliary": 32, "gave_up": 2, "kinds": {"HTML": 11_000, "other": 1_000},
    "outcomes": {"ok": 12_138, "redirect": 200, "http_error": 7, "error": 2, "denied": 14},
    "failures": {"status 500": 1, "read_timeout": 1},
    "error_types": {"reset": 1, "read_timeout": 1}, "deny_reasons": {"robots": 14},
    "urls": {"found": 12_030, "fetched": 12_000, "refused": 14, "gave_up": 0, "left": 16, "taken_down": 0},
    "left_by": {"retry": 12, "backoff": 4},
}  # fmt: skip


def drawn(renderable: RenderableType, width: int = 80) -> list[str]:
    console = Console(file=io.StringIO(), width=width, color_system=None)
    console.print(Group(renderable))  # as the live display does: a bare Text would lose its "no wrap"
    output = console.file
    assert isinstance(output, io.StringIO)
    return [line.rstrip() for line in output.getvalue().splitlines()]


def test_the_panel() -> None:
    """Every figure stands once, in words a person knows; secrets are taken out of the last URL."""
    assert drawn(panel(STATUS)) == [
        "● crawling  1 min 20 s, 1 h left if no more is found",
        "  URLs         12,030 of 40,401 fetched · 14 denied, 28,357 left",
        "  pages        12,000 (11,000 HTML, 1,000 other) · 148/s now · 150/s mean",
        "  attempts     12,361: 12,100 ok, 236 redirects, 9 HTTP errors, 2 errors, 14 de…",
        "  received     329.7 MiB · 0 B/s now",
        "  queue        28,345 queued, 12 due later · 8 in flight",
        "  hosts        31, 12 with work, 2 in backoff",
        "  connections  8 open of 35 · 354 requests each · 35 TLS, 19 resumed",
        "  links        1,234,567 found · 40,200 new",
        "  last         https://e.org/a?token=***",
    ]
    error = RecentError("e.org", "read_timeout", 2, 0.0, "https://e.org/slow")
    assert drawn(panel(STATUS, error))[-1] == "  last error   read_timeout https://e.org/slow"


def test_the_first_instant_divides_by_nothing() -> None:
    """No time passed, no connection opened: figures are zero."""
    lines = drawn(panel(replace(STATUS, elapsed_s=0.0, connections=NO_CONNECTIONS)))
    assert "0.0/s mean" in lines[2]
    assert "0.0 requests each" in lines[7]


def test_closed_hours_are_shown_with_their_end() -> None:
    """By the local clock, as they are configured."""
    until_at = time.mktime((2026, 11, 25, 22, 0, 0, 0, 0, -1))
    first = drawn(panel(replace(STATUS, state=CrawlState.OFF_HOURS, opens_at=until_at)))[0]
    assert first == f"● outside fetch.hours until Wed 22:00 {time.localtime(until_at).tm_zone}  1 min 20 s"


@pytest.mark.parametrize("width", [20, 40, 80, 200])
def test_a_long_url_never_wraps(width: int) -> None:
    """The panel keeps its ten lines at any width."""
    lines = drawn(panel(replace(STATUS, last_url="https://e.org/" + "x" * 2_000)), width)
    assert len(lines) == 10
    assert max(len(line) for line in lines) <= width


def test_a_url_cannot_steer_the_terminal() -> None:
    """Control characters are shown as such, and rich's markup is text."""
    lines = drawn(panel(replace(STATUS, last_url="https://e.org/\x1b[2J\n[red]")))
    assert lines[-1] == "  last         https://e.org/�[2J�[red]"


@pytest.mark.parametrize(
    ("state", "shown"),
    [
        (CrawlState.IDLE, "● nothing to do"),
        (CrawlState.LINGERING, "● waiting for what is due later"),
        (CrawlState.PAUSED, "● paused"),
        (CrawlState.OUTAGE, "● every host fails: an outage of our network?"),
        (CrawlState.OFF_HOURS, "● outside fetch.hours"),
        (CrawlState.DRAINING, "● stopping: finishing what is in flight (Ctrl-C again to stop at once)"),
    ],
)
def test_each_state_has_its_words(state: CrawlState, shown: str) -> None:
    """What the crawl is doing, for a person."""
    assert drawn(panel(replace(STATUS, state=state)))[0].startswith(shown)


def test_the_panel_is_redrawn_in_place_and_vanishes() -> None:
    """Each update moves up over the last one, the end erases it, and what is printed meanwhile stays above."""
    file = io.StringIO()
    console = Console(file=file, force_terminal=True, width=80, height=24, color_system=None, _environ={})
    with Progress(console) as progress:
        progress.update(STATUS)
        before = file.tell()
        progress.update(STATUS)
        second = file.getvalue()[before:]
        assert second.count("\x1b[1A") == 9
        sys.stderr.write("a warning\n")
        before = file.tell()
    last = file.getvalue()[before:]
    assert "a warning" in file.getvalue()
    assert last.count("\x1b[2K") >= 10


def test_no_color_draws_without_colours(monkeypatch: pytest.MonkeyPatch) -> None:
    """NO_COLOR leaves bold and dim, and no colour codes (no-color.org)."""

    def codes(environment: dict[str, str]) -> str:
        file = io.StringIO()
        console = Console(
            file=file, force_terminal=True, width=80, height=24, _environ={"TERM": "xterm", **environment}
        )
        with Progress(console) as progress:
            progress.update(STATUS)
        return file.getvalue()

    assert "\x1b[32m" in codes({})
    assert "\x1b[32m" not in codes({"NO_COLOR": "1"})


def test_updating_costs_less_than_one_percent() -> None:
    """CPU time of an update at the pace it is meant for; the best of five, as others use the machine too."""
    with Path("/dev/null").open("w") as nowhere:
        console = Console(file=nowhere, force_terminal=True, width=120, height=24, _environ={"TERM": "xterm-256color"})
        with Progress(console) as progress:
            progress.update(STATUS)
            best = 1.0
            for _ in range(5):
                begin = time.process_time()
                for _ in range(20):
                    progress.update(STATUS)
                best = min(best, (time.process_time() - begin) / 20)
    assert best / VIEW_S < 0.01


def test_the_summary() -> None:
    """The contracted names with human units, and why it ended in words."""
    assert drawn(summary_table(SUMMARY)) == [
        "URLs            12,030  12,000 fetched, 14 denied, 16 left (12 due later, 4",
        "                        backing off)",
        "pages           12,000  11,000 HTML, 1,000 other; 144/s in 1 min 23 s",
        "attempts        12,361  12,138 ok, 200 redirects, 7 HTTP errors, 2 errors, 14",
        "                        denied",
        "responses       12,345  12,313 to pages, 32 to robots.txt, sitemaps, feeds and",
        "                        probes",
        "bytes        329.7 MiB",
        "errors               2  1 read_timeout, 1 reset",
        "given up             2  1 read_timeout, 1 status 500",
        "denied              14  14 robots",
        "links        1,234,567  40,200 new",
        "hosts               31",
        "connections         35  354 requests each",
        "handshakes          35  19 resumed",
        "CPU               12 s  117.7 MiB memory at most",
        "ended        the URLs that are left are not due yet",
        "output       /srv/crawl",
        "look         crawler report --output /srv/crawl  totals, errors, hosts",
        "             crawler why URL --output /srv/crawl  fetched, or why not",
    ]


def test_a_summary_without_lists() -> None:
    """The lists are optional, and an unknown word is shown as it is."""
    bare = {name: value for name, value in SUMMARY.items() if not isinstance(value, dict)}
    lines = drawn(summary_table({**bare, "stopped_by": "boredom"}))
    assert lines[0] == "pages           12,000  144/s in 1 min 23 s"
    assert lines[-4] == "ended        boredom"


EVENTS: list[tuple[str, dict[str, object], str]] = [
    ("scope_widened", {"server_address": "www.e.org", "via": "https://e.org/"},
     "www.e.org is crawled too: https://e.org/ redirects to it."),
    ("recovered", {"clean": False, "hosts": 3},
     "The last run was not ended cleanly: what it had not stored is fetched again."),
    ("control", {"command": "pause", "pid": 7, "uid": 0}, "`crawler pause` was received."),
    ("control", {"command": "block", "arguments": "name=e.org", "pid": 7, "uid": 0},
     "`crawler block` was received (name=e.org)."),
    ("reload_ok", {"changed": ["politeness.delay"], "needs_restart": ["engine.workers"]},
     "The configuration was read again; changed: politeness.delay; engine.workers: from the next start."),
    ("reload_failed", {"message": "unknown section"}, "The configuration was not changed: unknown section"),
    ("hours", {"open": False, "until": "2026-11-25T22:00:00.000Z"},
     "fetch.hours are closed until 2026-11-25 22:00 UTC."),
    ("hours", {"open": True}, "fetch.hours are open."),
    ("suspect", {"server_address": "e.org", "template": "/c/{date}", "why": "alike", "action": "hold"},
     "URLs of e.org like /c/{date} look endless; others come first."),
    ("outage", {"hosts": 9, "since": "2026-11-25T22:00:00.000Z", "error_type": "dns_timeout"},
     "No host responds any more (9 that did fail): is it this machine's network?"),
    ("slots", {"taken": 512, "given_back": 0, "own": 512}, "This agent owns 512 of 1,024 slots of domains."),
    ("agent_gone", {"agent": "b", "slots": 1}, "The agent b is gone: the others take over its 1 slot."),
    ("outage_over", {"hosts": 9, "outage_s": 62.0}, "Hosts respond again, after 1 min 02 s."),
    ("loop_lag", {"lag_ms": 1_500}, "The crawl stood still for 1.5 s: this machine is busy."),
    ("tls_verify_off", {}, "Certificates are not verified (tls.verify = false)."),
    ("log_dropped", {"file": "fetch.jsonl", "lines": 1}, "1 line of fetch.jsonl could not be written."),
    ("clock_set", {"step_s": -3.0}, "clock_set step_s=-3.0"),
]  # fmt: skip


def test_events_are_told_in_sentences_above_the_panel() -> None:
    """Those that the panel shows, or that a message tells, are not told again."""
    file = io.StringIO()
    common = {"ts": "2026-11-25T21:00:00.000Z", "level": "warning", "crawl": "c", "run_id": "r"}
    progress = Progress(Console(file=file, width=120, color_system=None))
    for name, fields, _ in EVENTS:
        assert problems_of_event(name, fields) == []
        progress.show(common | {"event": name} | fields)
    for name in ("start", "ready", "progress", "drain", "stop", "reevaluation_over"):
        progress.show(common | {"event": name, "level": "info"})
    assert file.getvalue().splitlines() == [sentence for _, _, sentence in EVENTS]
