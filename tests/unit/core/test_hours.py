"""Time windows of the week, also when clocks are set."""

import random
from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest

from crawler.core.clock import NEVER, Hours, HoursError, spans

MONDAY = datetime(2026, 11, 23, tzinfo=UTC).timestamp()


def utc(_: float) -> float:
    return 0.0


def zone(name: str):
    info = ZoneInfo(name)
    return lambda at: datetime.fromtimestamp(at, info).utcoffset().total_seconds()


def at(text: str, name: str = "UTC") -> float:
    return datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(name)).timestamp()


def day(n: int, clock: str = "00:00") -> int:
    hour, minute = map(int, clock.split(":"))
    return n * 1_440 + hour * 60 + minute


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Mon 08:00-18:00", [(day(0, "08:00"), day(0, "18:00"))]),
        ("mon 8:00 - 18:00", [(day(0, "08:00"), day(0, "18:00"))]),
        ("Wed 22:00-06:00", [(day(2, "22:00"), day(3, "06:00"))]),
        ("Sun 22:00-06:00", [(day(6, "22:00"), day(7)), (0, day(0, "06:00"))]),
        ("Sat,Sun 00:00-24:00", [(day(5), day(6)), (day(6), day(7))]),
        ("Fri-Mon 12:00-13:00", [(day(n, "12:00"), day(n, "13:00")) for n in (0, 4, 5, 6)]),
        ("Tue 18:00-24:00", [(day(1, "18:00"), day(2))]),
        ("Tue 18:00-00:00", [(day(1, "18:00"), day(2))]),
        ("12:00-13:00", [(day(n, "12:00"), day(n, "13:00")) for n in range(7)]),
    ],
)
def test_a_window_is_parsed_to_minutes_of_the_week(text: str, expected: list[tuple[int, int]]) -> None:
    """Its days are those on which it begins; it may go on after midnight."""
    assert spans(text) == expected


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "write it as in"),
        ("22-6", "write it as in"),
        ("22:00-06:00 UTC", "write it as in"),
        ("08:00-08:00", "it is empty"),
        ("24:00-06:00", "it is empty"),
        ("25:00-06:00", '"25:00" is no time of day'),
        ("08:60-09:00", '"08:60" is no time of day'),
        ("24:01-06:00", '"24:01" is no time of day'),
        ("Mo 08:00-09:00", '"Mo" is no day'),
        ("Mon-Foo 08:00-09:00", '"Foo" is no day'),
        ("Mon,,Tue 08:00-09:00", '"" is no day'),
        ("Mon08:00-09:00", "write it as in"),
    ],
)
def test_an_invalid_window_is_refused_with_a_reason(text: str, why: str) -> None:
    """The message continues the name of the key."""
    with pytest.raises(HoursError, match=why):
        spans(text)


def test_a_night_is_open_until_the_morning() -> None:
    """Its first moment is in the window, its end is not."""
    hours = Hours(["22:00-06:00"], utc)
    closed, opened, shut = MONDAY + 12 * 3600, MONDAY + 22 * 3600, MONDAY + 30 * 3600
    assert [hours.is_open(t) for t in (closed, opened - 1, opened, shut - 1, shut)] == [False, False, True, True, False]
    assert hours.changes_at(closed) == hours.changes_at(opened - 0.5) == opened
    assert hours.changes_at(opened) == hours.changes_at(shut - 1) == shut


def test_windows_that_meet_are_one() -> None:
    """Also at the end of the week."""
    hours = Hours(["Sun 12:00-24:00", "Mon 00:00-06:00", "Sun 10:00-13:00"], utc)
    sunday = MONDAY + 6 * 86_400
    assert hours.changes_at(sunday + 10 * 3600) == sunday + 30 * 3600


def test_a_week_without_gaps_never_changes() -> None:
    """Neither does one that consists of single days."""
    for windows in (["00:00-24:00"], ["Mon-Fri 00:00-24:00", "Sat-Sun 00:00-24:00"], ["06:00-22:00", "22:00-06:00"]):
        hours = Hours(windows, utc)
        assert hours.is_open(MONDAY)
        assert hours.changes_at(MONDAY) == NEVER


def test_the_local_clock_counts() -> None:
    """22:00 in Berlin in winter is 21:00 UTC."""
    hours = Hours(["22:00-06:00"], zone("Europe/Berlin"))
    assert hours.changes_at(at("2026-11-25T12:00", "Europe/Berlin")) == at("2026-11-25T21:00")


@pytest.mark.parametrize(
    ("window", "begin", "changes"),
    [
        # 2026-03-29: 02:00 becomes 03:00. 2026-10-25: 03:00 becomes 02:00.
        ("22:00-06:00", "2026-03-28T23:00", ["2026-03-29T06:00", "2026-03-29T22:00"]),
        ("02:30-06:00", "2026-03-29T01:00", ["2026-03-29T03:00", "2026-03-29T06:00"]),
        ("02:10-02:50", "2026-03-29T01:00", ["2026-03-30T02:10", "2026-03-30T02:50"]),
        ("22:00-06:00", "2026-10-24T23:00", ["2026-10-25T06:00", "2026-10-25T22:00"]),
    ],
)
def test_windows_follow_the_clocks_when_they_are_set(window: str, begin: str, changes: list[str]) -> None:
    """A window follows the wall clock; what is in the missing hour is missing."""
    hours = Hours([window], zone("Europe/Berlin"))
    then = at(begin, "Europe/Berlin")
    for expected in changes:
        then = hours.changes_at(then)
        assert then == at(expected, "Europe/Berlin")


def test_an_hour_that_comes_twice_is_open_twice() -> None:
    """Until 02:30 on the night in which 03:00 becomes 02:00: open, closed, open again, closed."""
    hours = Hours(["22:00-02:30"], zone("Europe/Berlin"))
    then, lengths = at("2026-10-24T22:00", "Europe/Berlin"), []
    for _ in range(3):
        following = hours.changes_at(then)
        lengths.append((following - then) / 60)
        then = following
    assert lengths == [270, 30, 30]


@pytest.mark.parametrize("name", ["UTC", "Europe/Berlin", "Australia/Lord_Howe", "America/St_Johns"])
def test_is_open_changes_only_at_changes_at(name: str) -> None:
    """Compared at every minute, in zones whose clocks are set by an hour, half an hour or odd amounts."""
    rng = random.Random(name)
    offset_s = zone(name)
    for _ in range(12):
        start, length = rng.randrange(1_440), rng.randrange(1, 1_440)
        end = (start + length) % 1_440
        hours = Hours([f"{start // 60:02}:{start % 60:02}-{end // 60:02}:{end % 60:02}"], offset_s)
        begin = at(f"2026-{rng.choice(('03-29', '10-24', '04-04', '10-03', '03-07'))}T18:00", name) + rng.randrange(60)
        then = hours.changes_at(begin)
        minutes = (then - t * 60 for t in range(1, int((then - begin) // 60)))
        assert all(hours.is_open(t) is hours.is_open(begin) for t in minutes)
        assert hours.is_open(then) is not hours.is_open(begin)
