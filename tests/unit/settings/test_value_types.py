"""Durations and sizes, read and written."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crawler.settings.configuration_errors import RefusedValue
from crawler.settings.value_types import format_duration, format_size, parse_duration, parse_size


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("500ms", 0.5),
        ("300ms", 0.3),
        ("1s", 1.0),
        ("1h30m", 5_400.0),
        ("1h 30m", 5_400.0),
        ("90d", 7_776_000.0),
        ("1.5s", 1.5),
        ("1m1s1ms", 61.001),
        ("0", 0.0),
        (" 2s ", 2.0),
        (0, 0.0),
        (2, 2.0),
        (0.25, 0.25),
        ("3650d", 3_650 * 86_400.0),
    ],
)
def test_a_duration_is_read_as_seconds(value: object, seconds: float) -> None:
    """Units add up, a number is seconds."""
    assert parse_duration(value) == pytest.approx(seconds, rel=1e-15)


NO_DURATION = 'must be a duration such as "500ms", "1s" or "1h30m"'


@pytest.mark.parametrize(
    ("value", "message", "hint"),
    [
        ("", f'{NO_DURATION}, not ""', "units: d, h, m, s, ms"),
        ("500", f'{NO_DURATION}, not "500"', 'a unit is missing: "500ms" or "500s"'),
        ("2.5", f'{NO_DURATION}, not "2.5"', 'did you mean "2.5s"?'),
        ("10 sec", f'{NO_DURATION}, not "10 sec"', 'did you mean "10s"?'),
        ("5min", f'{NO_DURATION}, not "5min"', 'did you mean "5m"?'),
        ("1m1h", f'{NO_DURATION}, not "1m1h"', "units: d, h, m, s, ms"),
        ("1s1s", f'{NO_DURATION}, not "1s1s"', "units: d, h, m, s, ms"),
        ("-1s", 'must not be negative, as "-1s" is', ""),
        ("2 weeks", f'{NO_DURATION}, not "2 weeks"', 'did you mean "14d"?'),
        ("0,5s", f'{NO_DURATION}, not "0,5s"', 'did you mean "0.5s"?'),
        ("1S", f'{NO_DURATION}, not "1S"', 'did you mean "1s"?'),
        (True, NO_DURATION, ""),
        (None, NO_DURATION, ""),
        ([1], NO_DURATION, ""),
        (-1, "must not be negative", ""),
        (-0.5, "must not be negative", ""),
        (math.nan, "must be a finite duration", ""),
    ],
)
def test_what_is_no_duration_is_refused_in_words(value: object, message: str, hint: str) -> None:
    """The message names the form expected, the hint the nearest one."""
    with pytest.raises(RefusedValue) as caught:
        parse_duration(value)
    assert (message, hint) == (str(caught.value), caught.value.hint)


@pytest.mark.parametrize(
    ("value", "size"),
    [
        ("32MiB", 32 * 1024**2),
        ("300KiB", 300 * 1024),
        ("1GB", 10**9),
        ("1gb", 10**9),
        ("1.5 GiB", 3 * 1024**3 // 2),
        ("2TB", 2 * 10**12),
        ("64B", 64),
        ("64", 64),
        ("0", 0),
        (0, 0),
        (4096, 4096),
    ],
)
def test_a_size_is_read_as_bytes(value: object, size: int) -> None:
    """…iB counts in 1024, …B in 1000."""
    assert parse_size(value) == size


NO_SIZE = 'must be a size such as "32MiB", "1GB" or a whole number of bytes'


@pytest.mark.parametrize(
    ("value", "message", "hint"),
    [
        ("32M", f'{NO_SIZE}, not "32M"', 'did you mean "32MiB" (1024) or "32MB" (1000)?'),
        ("1k", f'{NO_SIZE}, not "1k"', 'did you mean "1KiB" (1024) or "1KB" (1000)?'),
        ("1XB", f'{NO_SIZE}, not "1XB"', "units: B, KiB, MiB, GiB, TiB, kB, MB, GB, TB"),
        ("many", f'{NO_SIZE}, not "many"', "units: B, KiB, MiB, GiB, TiB, kB, MB, GB, TB"),
        ("1MB/s", f'{NO_SIZE}, not "1MB/s"', 'did you mean "1MB"?'),
        ("-1MiB", 'must not be negative, as "-1MiB" is', ""),
        ("", f'{NO_SIZE}, not ""', "units: B, KiB, MiB, GiB, TiB, kB, MB, GB, TB"),
        (1.5, NO_SIZE, ""),
        (False, NO_SIZE, ""),
        (-1, "must not be negative", ""),
    ],
)
def test_what_is_no_size_is_refused_in_words(value: object, message: str, hint: str) -> None:
    """An ambiguous unit is asked about, not guessed."""
    with pytest.raises(RefusedValue) as caught:
        parse_size(value)
    assert (message, hint) == (str(caught.value), caught.value.hint)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0s"),
        (0.25, "250ms"),
        (0.0005, "0.5ms"),
        (1.5, "1.5s"),
        (60, "1m"),
        (5_400, "1h30m"),
        (86_461, "1d1m1s"),
        (59.9999999, "1m"),
    ],
)
def test_a_duration_is_written_shortly(seconds: float, text: str) -> None:
    """Only the units that are needed appear."""
    assert format_duration(seconds) == text


@pytest.mark.parametrize(
    ("size", "text"),
    [(0, "0B"), (999, "999B"), (1024, "1KiB"), (307_200, "300KiB"), (10**9, "1GB"), (1500, "1500B"), (2000, "2kB")],
)
def test_a_size_is_written_in_the_largest_unit_that_divides_it(size: int, text: str) -> None:
    """Nothing is rounded."""
    assert format_size(size) == text


@settings(deadline=None, max_examples=200, derandomize=True)
@given(st.integers(0, 3_650 * 86_400_000), st.integers(0, 2**63 - 1))
def test_what_is_written_reads_back(milliseconds: int, size: int) -> None:
    """Writing and reading are inverse, to the millisecond and to the byte."""
    assert round(parse_duration(format_duration(milliseconds / 1000)) * 1000) == milliseconds
    assert parse_size(format_size(size)) == size
