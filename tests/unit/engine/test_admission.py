"""Admission: what is kept of robots.txt to judge by."""

import pytest

from crawler.core.options import ScopeOptions
from crawler.core.scope import Scope
from crawler.core.values import Origin, RobotsRecord
from crawler.core.vocabulary import DenyReason
from crawler.engine import admission as admission_module
from crawler.engine.admission import Admission
from crawler.engine.clock import SystemClock
from crawler.engine.hosts import Host, Key


def host(n: int, body: bytes) -> Host:
    origin = Origin("https", f"h{n}.test", 443)
    return Host(n, origin, Key(origin.host, 0.0), robots=RobotsRecord("rules", 200, body, 0.0, 1e12))


def test_rules_of_hosts_not_asked_lately_are_let_go(monkeypatch: pytest.MonkeyPatch) -> None:
    """Parsed rules are bounded; a host whose rules were let go is judged by them all the same."""
    monkeypatch.setattr(admission_module, "PARSED_BYTES", 100)
    admission = Admission(Scope(ScopeOptions(), []), "bot", obey=True)
    hosts = [host(n, b"User-agent: *\nDisallow: /private # 34 bytes") for n in range(5)]
    for _ in range(2):
        for each in hosts:
            denied = admission.judge_robots(f"{each.origin}/private", each)
            assert denied is not None
            assert denied.reason is DenyReason.ROBOTS
            assert sum(one.rules is not None for one in hosts) <= 2


def test_the_clock_follows_steps_forwards_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """A wall clock set back by a day must not put off by a day what waits for it."""
    wall = [1_000_000.0]
    monkeypatch.setattr("crawler.engine.clock.time.time", lambda: wall[0])
    clock = SystemClock()
    begun = clock.now()
    wall[0] -= 86_400.0
    assert begun <= clock.now() < begun + 60.0
    wall[0] += 2 * 86_400.0
    assert clock.now() >= begun + 86_000.0
