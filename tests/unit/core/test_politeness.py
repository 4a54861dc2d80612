"""Politeness: transitions of the state, with the time passed in."""

import random
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crawler.core import politeness as p
from crawler.core.models import Head
from crawler.core.options import PolitenessOptions
from crawler.core.politeness import PolitenessState

INF = float("inf")


def test_with_a_delay_one_request_is_in_flight() -> None:
    """The next may begin a delay after the end of the one before it."""
    turn = PolitenessState()
    assert turn.opens_at(0, delay_s=1, width=8) is None
    turn = turn.began()
    assert turn.opens_at(5, delay_s=1, width=8) == INF
    turn = turn.ended(5, delay_s=1)
    assert turn.opens_at(5.9, delay_s=1, width=8) == pytest.approx(6 + p.CLOCK_GUARD_S)
    assert turn.opens_at(6 + p.CLOCK_GUARD_S, delay_s=1, width=8) is None


def test_without_a_delay_the_width_counts() -> None:
    """Without a delay, `width` requests are in flight at once, and no guard is added."""
    turn = PolitenessState()
    for _ in range(8):
        assert turn.opens_at(0, delay_s=0, width=8) is None
        turn = turn.began()
    assert turn.opens_at(0, delay_s=0, width=8) == INF
    assert turn.ended(3, delay_s=0).opens_at(3, delay_s=0, width=8) is None


def test_an_abandoned_request_costs_no_delay() -> None:
    """A request that was not sent starts no delay."""
    assert PolitenessState().began().abandoned() == PolitenessState()


def test_backoffs_add_up_and_end() -> None:
    """A back-off never ends before an earlier one; a good response clears the failures."""
    turn = PolitenessState().backed_off(100, "429").backed_off(50, "503")
    assert (turn.open_mono, turn.failures, turn.reason) == (100, 2, "503")
    assert turn.recovered().failures == 0
    assert turn.recovered().open_mono == 100


@settings(max_examples=200, deadline=None, derandomize=True)
@given(st.lists(st.tuples(st.floats(0, 5), st.floats(0.001, 3), st.booleans()), max_size=40), st.floats(0.01, 5))
def test_no_request_begins_within_the_delay(steps: list[tuple[float, float, bool]], delay_s: float) -> None:
    """For any pauses, durations and throttling, a request begins at least the delay after the one before ended."""
    turn, now, last_end = PolitenessState(), 0.0, None
    for pause, duration, pushed in steps:
        now += pause
        opens = turn.opens_at(now, delay_s=delay_s, width=4)
        if opens is not None:
            assert opens != INF
            now = opens
        assert last_end is None or now - last_end >= delay_s
        turn = turn.began()
        now += duration
        if pushed:
            turn = turn.backed_off(now + 2 * delay_s, "503")
        turn = turn.ended(now, delay_s=delay_s)
        last_end = now


@pytest.mark.parametrize(
    ("options", "crawl_delay", "response_s", "expected"),
    [
        (PolitenessOptions(), None, 0, 1.0),
        (PolitenessOptions(), 7, 0, 7.0),
        (PolitenessOptions(), 0.1, 0, 1.0),
        (PolitenessOptions(), 9_999, 0, 60.0),
        (PolitenessOptions(robots="ignore"), 7, 0, 1.0),
        (PolitenessOptions(), None, 2, 10.0),
        (PolitenessOptions(), None, 999, 30.0),
        (PolitenessOptions(adaptive=False), None, 2, 1.0),
        (PolitenessOptions(delay_s=0), None, 2, 0.0),
        (PolitenessOptions(delay_s=0), 3, 0, 3.0),
    ],
)
def test_host_delay(options: PolitenessOptions, crawl_delay: float | None, response_s: float, expected: float) -> None:
    """The longest of our delay, the host's Crawl-delay (bounded) and the delay for its slowness."""
    assert p.host_delay(options, crawl_delay, response_s) == expected


def test_address_limits_follow_those_of_hosts_if_not_set() -> None:
    """Defaults follow the values for hosts; configured values for addresses count."""
    assert p.address_delay(PolitenessOptions()) == 0.25
    assert p.address_delay(PolitenessOptions(delay_s=0)) == 0
    assert p.address_delay(PolitenessOptions(delay_s=0, address_delay_s=2)) == 2
    assert p.address_width(PolitenessOptions()) == 4
    assert p.address_width(PolitenessOptions(connections_per_host=8)) == 8
    assert p.address_width(PolitenessOptions(connections_per_host=8, connections_per_address=2)) == 2


def test_the_backoff_grows_and_is_bounded() -> None:
    """It is longer after each failure in a row, at most an hour and a quarter."""
    rng = random.Random(1)
    rests = [p.backoff_s(n, rng, ever_responded=True) for n in range(40)]
    assert 5 <= rests[0] <= 6.25
    assert all(5 * 3**n <= rests[n] <= 5 * 3**n * 1.25 for n in range(6))
    assert max(rests) <= 4_500


def test_a_host_that_never_responded_is_tried_soon_then_seldom() -> None:
    """A mistyped seed ends the crawl in seconds, not minutes."""
    rng = random.Random(1)
    assert [p.backoff_s(n, rng, ever_responded=False) for n in (0, 1)] == [1.0, 4.0]
    assert 900 <= p.backoff_s(2, rng, ever_responded=False) <= 1_125


NEW_YEAR_2027 = 1_798_761_600.0


def head(*retry_after: str, date: str | None = None) -> Head:
    fields = [("retry-after", value) for value in retry_after] + ([] if date is None else [("date", date)])
    return Head(503, "", "1.1", tuple(fields))


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("120", 120.0),
        (" 0 ", 0.0),
        ("0000000000000120", 120.0),
        ("120.5", 121.0),
        ("120.", 120.0),
        ("0.2", 1.0),
        ("999999999999999999", 86_400.0),
        ("9" * 400, 86_400.0),
        ("Fri, 01 Jan 2027 00:01:00 GMT", 60.0),
        ("Friday, 01-Jan-27 00:01:00 GMT", 60.0),
        ("Fri Jan  1 00:01:00 2027", 60.0),
        ("Fri, 01 Jan 2027 00:01:00", 60.0),
        ("Fri, 01 Jan 2027 01:01:00 +0100", 60.0),
        ("Fri, 01 Jan 2021 00:00:00 GMT", 0.0),
        ("Fri, 01 Jan 2099 00:00:00 GMT", 86_400.0),
        ("soon", None),
        ("-5", None),
        ("1.5.2", None),
        (".", None),
        ("\u0661\u0662", None),
        ("", None),
        ("Fri, 99 Jan 2027 00:01:00 GMT", None),
        ("Fri, 01 Jan 2027 00:01:00 GMT" + " " * 9_999 + "x", None),
    ],
)
@pytest.mark.parametrize("zone", ["UTC", "Asia/Tokyo", "America/Los_Angeles"])
def test_retry_after(value: str, expected: float | None, zone: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Seconds or a date, at most a day, in any zone of the machine; anything else is ignored."""
    monkeypatch.setenv("TZ", zone)
    time.tzset()
    try:
        assert p.retry_after_s(head(value), NEW_YEAR_2027) == expected
    finally:
        monkeypatch.undo()
        time.tzset()


@pytest.mark.parametrize(
    ("date", "expected"),
    [
        ("Thu, 31 Dec 2026 23:50:00 GMT", 60.0),  # its clock is ten minutes behind
        ("Thu Dec 31 23:50:00 2026", 60.0),
        ("Fri, 01 Jan 2027 08:00:00 GMT", 0.0),
        ("Mon, 01 Jan 1990 00:00:00 GMT", 86_400.0),
        ("yesterday", 0.0),  # then by ours
        ("", 0.0),
    ],
)
def test_a_date_in_retry_after_counts_from_the_date_of_the_response(date: str, expected: float) -> None:
    """Both dates are by the server's clock; a number of seconds needs no clock."""
    assert p.retry_after_s(head("Thu, 31 Dec 2026 23:51:00 GMT", date=date), NEW_YEAR_2027) == expected
    assert p.retry_after_s(head("7", date=date), NEW_YEAR_2027) == 7.0


def test_the_longest_valid_wait_counts() -> None:
    """None without a valid one."""
    assert p.retry_after_s(head("soon", "5", "60", "7"), 0.0) == 60.0
    assert p.retry_after_s(head(), 0.0) is None


def test_politeness_key() -> None:
    """It is the registrable domain by default, or the host."""
    assert p.politeness_key("a.e.org", PolitenessOptions()) == "e.org"
    assert p.politeness_key("a.e.org", PolitenessOptions(key="host")) == "a.e.org"
