"""Calendar expressions: what systemd-analyze says of them is what they mean."""

import itertools
import os
import re
import shutil
import subprocess
import time
from collections.abc import Sequence
from datetime import UTC, datetime

import pytest

from crawler.core.calendar_expression import MAX_LENGTH, CalendarError, first_after, parse_calendar, utc_offset_of

BASES = (
    "2026-11-30 03:00:00",
    "2026-03-28 23:59:59",  # the night in which European clocks are set forward
    "2026-03-29 00:30:00",
    "2026-10-24 22:10:00",  # the night in which they are set back
    "2026-10-25 00:20:00",
    "2026-10-25 01:20:00",
    "2026-12-31 23:59:59",
    "2028-02-28 12:00:00",
)
EXPRESSIONS = """
minutely; hourly; daily; weekly; monthly; quarterly; semiannually; yearly; annually; Daily
Mon..Fri *-*-* 06:00; Mon-Fri 10:00; mon,fri *-1/3-1,3 *:30:45; Sat,Sun 12-05 08:05:40; Wed..Sat,Tue 10-15 1:2:3; Sunday
*:0/15; *:2/3; 5/3:0; 0/6:30; *:0..59/7; *:10..50/20; *-*-* 00,06,12,18:05; 08:05:40; 23:59:59; *:*:0/20; *-*-* 8..18:00
*-*-01; *-*-31 12:00; *-02-29; Mon *-02-29; *-02-30; *-*-1..7; Mon *-*-1..7 04:00; *-2/5-10; 1..3,7..9-1; *-*-1/10
*-*-25/2; *-*~*; *-*~01; *-*~03; Mon *-05~07/1; *-*~1..3; *-02~01 23:00; *-*~07/3; *-*~2,5
2026-12-24; 2030..2040/4-7-1; 2024/4-02-29 12:00; 2026..2027-*-1; 27-1-1; 30..34-6-6; 99-1-1; 2026-*-1/7 6:0:0
*-*-* 02:30; *-*-* 02:00:00; 02..03:15; *-*-* 03:00
""".replace("\n", "; ").split("; ")
ZONES = ("UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Africa/Cairo", "Asia/Kolkata")
WRONG = (
    "", " ", "*", "x", "24:00", "00:60", "*/2:0", "10-", ":20", "Fri..Mon", "Fri-Mon", "1..3,8 *", "0..59/7:0",
    "*-13-1", "*-*-32", "*-*-0", "*-*~29", "5..3:00", "*:0/0", "06:00 Mon", "*-*-* *:*:*:*", "1:2:3:4",
)  # fmt: skip


def epoch(text: str) -> float:
    return datetime.strptime(text, "%Y-%m-%d %H:%M:%S").replace(tzinfo=UTC).timestamp()


def by_systemd(expressions: Sequence[str], base: str, iterations: int) -> list[list[float]] | None:
    """The next times of each by systemd-analyze, None if it refuses one."""
    command = ["systemd-analyze", "calendar", f"--base-time={base} UTC", f"--iterations={iterations}", *expressions]
    ran = subprocess.run(
        command, capture_output=True, text=True, check=False, timeout=60, env=os.environ | {"TZ": "UTC", "LC_ALL": "C"}
    )
    if ran.returncode:
        return None
    parts = ran.stdout.split("Normalized form")[1:]
    return [
        [epoch(found) for found in re.findall(r"(?:elapse|#[0-9]+): ... ([0-9: -]{19}) UTC", part)] for part in parts
    ]


def ours(expression: str, base: str, iterations: int) -> list[float]:
    parsed = parse_calendar(expression)
    found, at = [], epoch(base)
    for _ in range(iterations):
        following = parsed.next_after(at, utc_offset_of(parsed.zone or "UTC"))
        if following is None:
            break
        assert following > at
        found.append(following)
        at = following
    return found


def cases() -> dict[str, list[str]]:
    """Expressions for each base: all with one of them, plain and with a time zone, and some with all."""
    found: dict[str, list[str]] = {base: [] for base in BASES}
    for number, expression in enumerate(filter(None, (each.strip() for each in EXPRESSIONS))):
        found[BASES[number % len(BASES)]].append(expression)
        found[BASES[(number + 3) % len(BASES)]].append(f"{expression} {ZONES[number % len(ZONES)]}")
    for listed, zone in itertools.product(found.values(), ZONES):
        for expression in ("*:0/15", "02:30", "hourly", "daily", "Sun *-*-* 02:00", "*-*-* 01..03:00/30"):
            listed.append(f"{expression} {zone}")
    return found


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed")
@pytest.mark.parametrize("base", BASES)
def test_each_expression_means_what_it_means_to_systemd(base: str) -> None:
    expressions = cases()[base]
    expected = by_systemd(expressions, base, 6)
    assert expected is not None
    assert len(expected) == len(expressions) > 40
    assert dict(zip(expressions, expected, strict=True)) == {each: ours(each, base, 6) for each in expressions}


@pytest.mark.parametrize("text", WRONG)
def test_what_is_no_expression_is_refused(text: str) -> None:
    with pytest.raises(CalendarError):
        parse_calendar(text)


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed")
@pytest.mark.parametrize("text", WRONG)
def test_systemd_refuses_the_same(text: str) -> None:
    assert by_systemd([text], BASES[0], 1) is None


def test_parsing_and_searching_are_bounded() -> None:
    """A long text, and a day that never comes."""
    with pytest.raises(CalendarError):
        parse_calendar("1," * MAX_LENGTH + "1:00")
    begun = time.perf_counter()
    assert parse_calendar("Mon *-02-30 *:*:*").next_after(0.0, lambda at: 0.0) is None
    assert parse_calendar("2026-01-01 *:*:59").next_after(epoch("2026-01-01 23:59:59"), lambda at: 0.0) is None
    assert time.perf_counter() - begun < 2.0


def test_without_a_time_zone_the_clock_of_the_machine_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first of several expressions counts."""
    monkeypatch.setenv("TZ", "Asia/Kolkata")
    time.tzset()
    try:
        at = epoch("2026-11-30 03:00:00")
        assert first_after(["10:00", "daily Europe/Berlin"], at) == epoch("2026-11-30 04:30:00")
        assert first_after(["2020-01-01"], at) is None
        assert first_after([], at) is None
    finally:
        monkeypatch.undo()
        time.tzset()
