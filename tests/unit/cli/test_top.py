"""`crawler top`: what fits on a screen, and a daemon that goes and comes back."""

import os
import sys
from typing import Any

import pytest

from crawler.admin.control_socket import Unreachable
from crawler.cli.output import ReaderGone
from crawler.cli.top import _piped, _StatusPoller, frame, sparkline
from crawler.inspection.explain.hosts import HostView

STATUS: dict[str, Any] = {
    "crawl": "news", "pid": 4711, "elapsed_s": 3_700.0, "state": "crawling", "output": "/x",
    "sentence": "politeness: 3 hosts with work, limited by politeness.delay",
    "rates": {"pages_per_s": 4.0, "responses_per_s": 4.5, "bytes_per_s": 66_000, "cpu_percent": 3.0,
              "loop_lag_s": 0.01},
    "counts": {"responses": 9, "pages": 8_123, "bytes": 1, "errors": 1, "denied": 1,
               "page_responses": {"http_error": 13}, "auxiliary": 1,
               "outcomes": {"http_error": 13, "error": 1, "denied": 1}},
    "urls": {"queued": 2_395, "waiting": 1, "done": 3_008, "denied": 0, "gave_up": 4, "suspect": 0},
    "held_back_by": {},
    "hosts": {"new": 0, "ready": 2, "backoff": 1, "held": 0, "blocked": 0, "total": 3, "with_work": 3},
    "connections": {"open": 2, "idle": 1, "requests_per_connection": 12.4, "tls_handshakes": 3, "tls_resumed": 1},
    "in_flight": [
        {"url": f"https://e.org/\x1b[31m{n}", "stage": "first_byte", "age_s": 30.0 - n, "conn_id": n, "requests": 5}
        for n in range(40)
    ],
    "memory": [{"name": "bodies", "unit": "bytes", "held": 1, "limit": 1_024}],
    "rss_bytes": 1,
    "attention": [{"level": "warn", "text": "1 host is backing off", "advice": "it goes on by itself", "show": ""}] * 4,
    "warnings": [{"ts": "2026-11-25T09:00:00.000Z", "event": "loop_lag", "lag_ms": 300, "level": "warning"}] * 5,
}  # fmt: skip
HOST = HostView("slow.edu", "https://slow.edu", "backoff", 1_480.0, 1_203, 9, 778, 136, 5, 900.0, "429 Retry-After 480")


def shown(status: dict[str, Any] | None = STATUS, problem: str = "", *, height: int = 40, hosts: int = 5) -> list[str]:
    lines = frame(status, [1.0, 2.0, 4.5], [HOST] * hosts, problem, height=height, width=100, now=1_000.0)
    return ["".join(piece for piece, _ in line) for line in lines]


def test_a_screen_shows_the_bottleneck_and_requests_in_flight() -> None:
    """State, the sentence that names the bottleneck, the oldest flights with age and stage, hosts, warnings."""
    text = "\n".join(shown())
    for words in (
        "news is crawling  up 1 h", "politeness: 3 hosts with work", "8,123 in this run, ",
        "9 (1 to robots.txt, sitemaps, feeds and probes), ",
        "12.4 requests each",
        "13 HTTP errors, 1 error, 1 denied", "1 in backoff",
        "  attention    look: 1 host is backing off; it goes on by itself",
        "5,408 found: 3,008 fetched, 4 given up, 2,395 queued, 1 due later",
        "30 s  first_byte       #0.5", "backoff 8 min", "429 Retry-After 480", "09:00:00Z  loop_lag lag_ms=300",
    ):  # fmt: skip
        assert words in text, words
    assert "\x1b" not in text


@pytest.mark.parametrize("height", [10, 14, 20, 24, 50, 200])
def test_whatever_the_height_it_fits(height: int) -> None:
    """The head is always whole; what is left is shared."""
    lines = shown(height=height)
    assert len(lines) <= height
    assert "news is crawling" in lines[0]
    if height >= 24:
        assert any("look: 1 host is backing off" in line for line in lines)
        assert any("slow.edu" in line for line in lines)
        assert any("first_byte" in line for line in lines)


def test_a_daemon_that_is_gone_is_reported_and_tried_again() -> None:
    """The last status stays on the screen, marked; the next look connects anew."""

    class Gone:
        def call(self, _: str) -> Any:
            raise Unreachable("it hung up")

        def close(self) -> None:
            return

    class There:
        def call(self, _: str) -> Any:
            return STATUS

    answers: list[Any] = [Gone(), There()]
    poller = _StatusPoller(lambda: answers.pop(0))
    assert poller.poll() is None
    assert "it hung up" in shown(problem=poller.problem)[0]
    assert poller.poll() is STATUS
    assert poller.problem == ""
    assert shown(None, "nobody answers") == ["● nobody answers"]


def test_a_line_of_sparkline_follows_its_values() -> None:
    """The highest is full, zero is flat."""
    assert sparkline([0.0, 1.0, 2.0, 4.0]) == "▁▂▄█"
    assert sparkline([0.0, 0.0]) == "▁▁"
    assert sparkline([]) == ""


@pytest.mark.parametrize("as_json", [True, False])
def test_it_ends_when_the_reader_of_its_output_is_gone(as_json: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """`crawler top | head -1` prints one status and does not go on for nobody."""
    status = STATUS | {"scheduled_at": None, "log_dropped": 0}
    statuses = iter([status])

    class Poller(_StatusPoller):
        def poll(self) -> dict[str, Any]:
            return next(statuses)

    read_end, write_end = os.pipe()
    os.close(read_end)
    with os.fdopen(write_end, "w") as output:
        monkeypatch.setattr(sys, "stdout", output)
        with pytest.raises(ReaderGone):
            _piped(Poller(lambda: pytest.fail("no connection is needed")), 0.0, None, as_json=as_json)
