"""What an operator should look at: nothing while all is well, else each cause once, the serious ones first."""

from typing import Any

import pytest

from crawler.admin.attention import attention

WELL: dict[str, Any] = {
    "state": "crawling", "bottleneck": "politeness", "sentence": "politeness: 3 hosts with work",
    "hosts": {"held": 0, "backoff": 0, "blocked": 0, "total": 3}, "held_back_by": {"limit": 0, "blocked": 0},
    "urls": {"suspect": 0}, "warnings": [], "log_dropped": 0,
    "memory": [
        {"name": "uncommitted", "unit": "bytes", "held": 1, "limit": 10},
        {"name": "recent URL keys", "unit": "bytes", "held": 10, "limit": 10},
        {"name": "hosts", "unit": "entries", "held": 7, "limit": None},
    ],
}  # fmt: skip


def test_nothing_while_all_is_well() -> None:
    assert attention(WELL, "", 10_000, 1_000) == []


@pytest.mark.parametrize(
    ("changes", "level", "text", "show"),
    [
        ({"state": "paused", "bottleneck": "operator", "sentence": "paused by its operator"}, "bad", "paused", ""),
        ({"state": "paused", "bottleneck": "disk", "sentence": "nothing can be stored: full"}, "bad", "full", ""),
        ({"state": "draining", "bottleneck": "disk", "sentence": "draining: 3 in flight"}, "bad", "draining", ""),
        ({"state": "outage", "bottleneck": "outage", "sentence": "outage since 03:00"}, "bad", "outage since", ""),
        ({"hosts": {"held": 1, "backoff": 0, "blocked": 0}}, "warn", "1 host is held", "hosts:held"),
        ({"hosts": {"held": 0, "backoff": 2, "blocked": 0}}, "warn", "2 hosts are backing off", "hosts:backoff"),
        ({"hosts": {"held": 0, "backoff": 0, "blocked": 1}}, "warn", "1 host is blocked", "hosts:blocked"),
        ({"held_back_by": {"limit": 7, "blocked": 0}}, "warn", "7 queued URLs are held back by a limit", ""),
        ({"held_back_by": {"limit": 0, "blocked": 1}}, "warn", "1 queued URL is held back by a block", ""),
        ({"urls": {"suspect": 1}}, "warn", "1 URL is set aside", ""),
        ({"log_dropped": 2}, "bad", "2 log lines could not", ""),
        ({"memory": [{"name": "store", "unit": "bytes", "held": 900, "limit": 1_000}]}, "warn", "900 B of", "memory"),
        ({"warnings": [{"ts": "2026-11-30T02:59:00.000Z", "event": "disk_low", "level": "error", "path": "/x"}]},
         "bad", "disk_low at 2026-11-30T02:59:00Z, path=/x", "warnings"),
    ],
)  # fmt: skip
def test_each_cause_is_told(changes: dict[str, Any], level: str, text: str, show: str) -> None:
    """With what to do about it."""
    (one,) = attention(WELL | changes, "", None, 0)
    assert (one["level"], one["show"]) == (level, show)
    assert text in one["text"]
    assert one["advice"]


def test_the_serious_ones_come_first() -> None:
    """A crawl that makes no progress before hosts that are held."""
    found = attention(
        WELL | {"hosts": {"held": 1, "backoff": 0, "blocked": 0}}, "nothing has happened for 130 s", 10, 20
    )
    assert [one["level"] for one in found] == ["bad", "warn"]


def test_a_disk_that_is_nearly_full_is_told_before_the_crawl_pauses() -> None:
    """After that the pause itself is."""
    (one,) = attention(WELL, "", 1_500, 1_000)
    assert one["text"] == "1.5 KiB are free on the disk of the output"
    assert attention(WELL, "", 999, 1_000) == []
