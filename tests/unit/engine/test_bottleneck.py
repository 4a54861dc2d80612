"""What a crawl does and what holds it up: each state, and which of two reasons is named."""

import math
import time
from typing import Any

import pytest

from crawler.core.enums import Bottleneck, CrawlState, LeftReason
from crawler.core.formatting import local_time
from crawler.engine.monitoring.bottleneck import UNCOMMITTED_MANY, Backlog, Conditions, assess

FULL: dict[str, Any] = {"disk_reason": "no space left"}
OUTAGE: dict[str, Any] = {"outage": "since 09:00Z: 4 hosts that responded before fail and none responds"}
HOURS: dict[str, Any] = {"opens_at": 1_700_000_000.0}
CLOSED = f"outside fetch.hours, which open at {local_time(1_700_000_000.0)}"
BUSY: dict[str, Any] = {"cpu_percent": 97.0}
BEHIND: dict[str, Any] = {"uncommitted": UNCOMMITTED_MANY + 1}
POLITE: dict[str, Any] = {"next_s": 0.0, "hosts_with_work": 3, "hosts_delayed": 3, "workers": 8}
AT_ONCE: dict[str, Any] = POLITE | {"hosts_delayed": 0}
NOTHING: dict[str, Any] = {"next_s": math.inf, "is_quiet": True}
LAST: dict[str, Any] = {"next_s": math.inf, "in_flight": 1}
ONE_ADAPTIVE: dict[str, Any] = {"hosts_with_work": 1, "hosts_delayed": 1, "hosts_adaptive": 1, "adaptive_s": 1.1}
BACKOFF = Backlog(LeftReason.BACKOFF, "backing off after reset", 4, 1, "h.test")
BLOCKED = Backlog(LeftReason.BLOCKED, "blocked", 5, 1, "b.test")
RESTING: dict[str, Any] = {"next_s": 60.0, "hosts_with_work": 1, "backlog": [BACKOFF]}


def asking(requests: int, in_flight: int | None = None) -> dict[str, Any]:
    return {"requests": requests, "in_flight": requests if in_flight is None else in_flight, "oldest_s": 0.4}


@pytest.mark.parametrize(
    ("conditions", "state", "bottleneck", "sentence"),
    [
        # each by itself
        (POLITE, "crawling", "politeness", "politeness: 3 hosts with work, limited by politeness.delay"),
        (RESTING, "crawling", "politeness",
         "politeness: 1 host with work, all backing off; the next request in 1 min: "
         "4 URLs of h.test backing off after reset"),
        (POLITE | {"keys_at_addresses": 3, "addresses": 1}, "crawling", "politeness",
         "politeness: 3 hosts with work, limited by politeness.address_delay (3 politeness keys waiting for an IP "
         "address)"),
        (POLITE | {"keys_at_addresses": 2, "addresses": 2, "places": 60}, "crawling", "politeness",
         "politeness: 3 hosts with work, limited by politeness.address_delay (2 politeness keys waiting for 2 IP "
         "addresses) and politeness.delay and engine.active_hosts (60 hosts in memory, others are ready)"),
        (POLITE | asking(2), "crawling", "network", "the network: 2 requests in flight, the oldest for 400 ms"),
        (POLITE | BUSY, "crawling", "cpu", "the processor: 97 % of one core is in use"),
        (POLITE | {"is_limited_by_bandwidth": True, "bytes_per_s": 4_000.0}, "crawling", "bandwidth",
         "fetch.bandwidth: 3.9 KiB/s are received"),
        (POLITE | BEHIND, "crawling", "disk", "the disk: 513 visits not stored yet"),
        (POLITE | FULL, "paused", "disk", "nothing can be stored: no space left"),
        (POLITE | OUTAGE, "outage", "outage",
         "outage since 09:00Z: 4 hosts that responded before fail and none responds; one request leaves every 5 s "
         "until a host responds"),
        (POLITE | HOURS, "off_hours", "hours", CLOSED),
        (POLITE | {"is_held": True}, "paused", "operator", "paused by the operator; `crawler resume` continues it"),
        (POLITE | {"is_draining": True} | asking(3), "draining", "network", "draining: 3 in flight"),
        (NOTHING, "idle", "empty", "nothing to do: no URL is queued"),
        (RESTING | {"backlog": [BLOCKED, BACKOFF]}, "crawling", "operator",
         "5 URLs of b.test blocked; 4 URLs of h.test backing off after reset; the next request in 1 min"),
        # what lets no request leave, before what makes it slow
        (POLITE | HOURS | BUSY, "off_hours", "hours", CLOSED),
        (NOTHING | HOURS, "off_hours", "hours", CLOSED),
        (POLITE | OUTAGE | BUSY | asking(9), "outage", "outage", None),
        (RESTING | OUTAGE, "outage", "outage", None),
        (POLITE | FULL | BEHIND | BUSY, "paused", "disk", "nothing can be stored: no space left"),
        # several of them: the first is the bottleneck, the sentence names all
        (POLITE | FULL | {"is_held": True}, "paused", "operator",
         "paused by the operator; `crawler resume` continues it; nothing can be stored: no space left"),
        (POLITE | OUTAGE | HOURS, "outage", "outage",
         f"outage since 09:00Z: 4 hosts that responded before fail and none responds; {CLOSED}"),
        (POLITE | FULL | OUTAGE | HOURS, "paused", "disk", None),
        (POLITE | OUTAGE | {"is_held": True}, "paused", "operator",
         "paused by the operator; `crawler resume` continues it; outage since 09:00Z: 4 hosts that responded before "
         "fail and none responds"),
        (POLITE | FULL | {"is_draining": True, "is_held": True}, "draining", "disk",
         "draining: 0 in flight; nothing can be stored: no space left"),
        (POLITE | OUTAGE | HOURS | {"is_draining": True}, "draining", "network", "draining: 0 in flight"),
        # nothing to do: neither the processor nor a limit keeps it from anything
        (NOTHING | BUSY, "idle", "empty", None),
        (NOTHING | {"is_limited_by_bandwidth": True}, "idle", "empty", None),
        (NOTHING | {"is_lingering": True, "waiting": 12, "waiting_s": 90.0}, "lingering", "empty",
         "nothing to do: 12 due later, the first in 1 min 30 s"),
        (RESTING | {"is_lingering": True}, "lingering", "politeness", None),
        (NOTHING | {"backlog": [BACKOFF], "suspects": 2, "revisit_s": 7_200.0}, "idle", "empty",
         "nothing to do: 4 URLs of h.test backing off after reset; 2 URLs set aside in parts that look endless "
         "(`crawler hosts` lists them); the next revisit in 2 h"),
        # the last URLs, of which each may lead to more (suspects that are tried one by one): not idle
        (LAST | asking(1), "crawling", "network", "the network: 1 request in flight, the oldest for 400 ms"),
        (LAST, "crawling", "disk", "the disk: what was fetched last is being stored"),
        (LAST | {"in_flight": 0}, "crawling", "disk", "the disk: what was fetched last is being stored"),
        # politeness or the network: it depends on how many hosts keep their delay, and on free workers
        (POLITE | asking(1), "crawling", "politeness", None),
        (POLITE | {"hosts_delayed": 200, "workers": 256} | asking(80), "crawling", "politeness", None),
        (POLITE | {"hosts_delayed": 200, "workers": 256} | asking(120), "crawling", "network", None),
        (POLITE | {"hosts_delayed": 200, "workers": 80} | asking(80), "crawling", "network", None),
        (AT_ONCE | asking(1), "crawling", "network", None),
        # the key that sets the delay, or what else does
        (POLITE | ONE_ADAPTIVE, "crawling", "politeness",
         "politeness: 1 host with work, limited by politeness.adaptive (1.1 s: slow responses make the delay longer)"),
        (POLITE | ONE_ADAPTIVE | {"hosts_with_work": 4, "hosts_delayed": 4}, "crawling", "politeness",
         "politeness: 4 hosts with work, limited by politeness.delay and politeness.adaptive of 1 host (1.1 s: slow "
         "responses make the delay longer)"),
        (POLITE | {"hosts_with_work": 2, "hosts_delayed": 2, "hosts_crawl_delay": 2, "crawl_delay_s": 10.0},
         "crawling", "politeness",
         "politeness: 2 hosts with work, limited by the Crawl-delay of robots.txt (up to 10 s)"),
        # a limit before what it causes
        (POLITE | BUSY | {"is_limited_by_bandwidth": True}, "crawling", "bandwidth", None),
        (POLITE | BUSY | asking(9), "crawling", "cpu", None),
    ],
)  # fmt: skip
def test_what_holds_a_crawl_up(conditions: dict[str, Any], state: str, bottleneck: str, sentence: str | None) -> None:
    """State and bottleneck in one word each, and the sentence where it is given."""
    found = assess(Conditions(**conditions))
    assert found[:2] == (state, bottleneck)
    assert sentence is None or found[2] == sentence


def test_every_word_comes_up() -> None:
    """The table above has each state and each bottleneck."""
    marks = [mark for mark in test_what_holds_a_crawl_up.pytestmark if mark.name == "parametrize"]
    rows = marks[0].args[1]
    assert {row[1] for row in rows} == set(CrawlState)
    assert {row[2] for row in rows} == set(Bottleneck)


def test_it_costs_next_to_nothing() -> None:
    """The terminal view asks five times a second."""
    conditions = Conditions(**(RESTING | {"backlog": [BLOCKED, BACKOFF] * 10}))
    begin = time.process_time()
    for _ in range(1_000):
        assess(conditions)
    assert time.process_time() - begin < 1.0
