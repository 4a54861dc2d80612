"""Why URLs are left: each host under the reason that would have to go first, and words for a person."""

from dataclasses import replace

import pytest

from crawler.core.enums import LeftReason
from crawler.core.models import Origin, RobotsRecord
from crawler.core.politeness import OPEN
from crawler.engine.monitoring.bottleneck import backlog_of, described
from crawler.engine.scheduling.host import Host, PolitenessKey

NOW = 1_000.0
UNREADABLE = RobotsRecord("unreachable", None, None, 0.0, 60.0)


def host(number: int, queued: int, **fields: object) -> Host:
    name = f"h{number}.test"
    made = Host(number, Origin("https", name, 443), PolitenessKey(name, 1.0), queued=queued)
    for field, value in fields.items():
        setattr(made, field, value)
    return made


RESTING = replace(OPEN, failures=1, open_mono=NOW + 60.0, reason="reset")


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"is_blocked": True}, "5 URLs of https://h1.test blocked by the operator (`crawler unblock` ends the block)"),
        ({"robots": UNREADABLE}, "5 URLs of https://h1.test whose robots.txt cannot be read"),
        (
            {"robots": replace(UNREADABLE, status_code=503)},
            "5 URLs of https://h1.test whose robots.txt cannot be read (status 503)",
        ),
        (
            {"robots": UNREADABLE, "politeness": replace(RESTING, reason="dns_not_found")},
            "5 URLs of https://h1.test whose robots.txt cannot be read (dns_not_found)",
        ),
        ({"politeness": RESTING}, "5 URLs of https://h1.test backing off after reset"),
        ({"limit_reached": True},
         "5 URLs of https://h1.test held back by a limit of scope (max_urls, max_urls_per_host)"),
        ({"limit_reached": True, "is_blocked": True, "politeness": RESTING},
         "5 URLs of https://h1.test blocked by the operator (`crawler unblock` ends the block)"),
    ],
)  # fmt: skip
def test_what_keeps_a_host_is_said(fields: dict[str, object], said: str) -> None:
    """One reason a host, with its cause where that is known."""
    assert described(backlog_of([host(1, 5, **fields)], NOW)) == [said]


def test_what_an_operator_keeps_is_told_from_the_rest() -> None:
    """By its reason: a daemon that waits for its operator above all says so."""
    found = backlog_of([host(1, 5, is_blocked=True), host(2, 4, politeness=RESTING)], NOW)
    assert [one.reason for one in found] == [LeftReason.BLOCKED, LeftReason.BACKOFF]


def test_the_rest_of_a_key_keeps_its_hosts() -> None:
    """A 503 rests the whole domain."""
    made = host(1, 1)
    made.key.politeness = replace(RESTING, reason="503 Retry-After 60")
    assert described(backlog_of([made], NOW)) == ["1 URL of https://h1.test backing off after 503 Retry-After 60"]


def test_who_may_be_asked_is_left_out() -> None:
    """So is a rest that is over, and a host without URLs."""
    over = replace(RESTING, open_mono=NOW - 1.0)
    assert backlog_of([host(1, 5), host(2, 5, politeness=over), host(3, 0, is_blocked=True)], NOW) == []


def test_the_commonest_reasons_come_first_and_three_are_told() -> None:
    """What many hosts share is one line; the others are counted."""
    hosts = [host(n, 10, politeness=replace(RESTING, reason="reset")) for n in range(3)]
    hosts += [host(n, n, politeness=replace(RESTING, reason=f"cause {n}")) for n in (11, 12, 13, 14)]
    assert described(backlog_of(hosts, NOW)) == [
        "30 URLs of 3 hosts backing off after reset",
        "14 URLs of https://h14.test backing off after cause 14",
        "13 URLs of https://h13.test backing off after cause 13",
        "23 more for 2 other reasons",
    ]
    assert (
        described(backlog_of(hosts[:-3] + hosts[-2:], NOW))[-1]
        == "11 URLs of https://h11.test backing off after cause 11"
    )
