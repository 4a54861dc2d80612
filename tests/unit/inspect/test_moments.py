"""Times in words."""

import pytest

from crawler.inspection.log.moments import at_text, parse_moment, span_text

NOW = 1_795_598_410.5  # 2026-11-25T09:20:10.5Z


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("now", 0), ("90s", 90), ("10m", 600), ("10min", 600), ("2h", 7200), ("1d12h", 129_600), ("1h30m ago", 5400),
        ("09:20", 10.5), ("9:20:05", 5.5), ("09:30", 86_400 - 589.5), ("today", 33_610.5), ("yesterday", 120_010.5),
        ("2026-11-25T09:20:10", 0.5), ("2026-11-25", 33_610.5), ("2026-11-25T10:20:10+01:00", 0.5),
        ("2026-11-25T09:20:10.500Z", 0),
    ],
)  # fmt: skip
def test_a_moment_is_understood(text: str, seconds: float) -> None:
    """`seconds` before now."""
    assert NOW - parse_moment(text, NOW) == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["", "soon", "25:00", "2026-13-01", "10x", "-5m", "ago"])
def test_what_is_no_time_is_refused_in_words(text: str) -> None:
    """The message shows what would be one."""
    with pytest.raises(ValueError, match="is no time"):
        parse_moment(text, NOW)


def test_times_and_spans_are_short() -> None:
    """As little as says it."""
    assert at_text(NOW, NOW) == "09:20:10"
    assert at_text(NOW - 86_400, NOW) == "11-24 09:20:10"
    assert at_text(NOW - 400 * 86_400, NOW) == "2025-10-21 09:20"
    spans = [0, 0.42, 9, 42, 59.9, 480, 500, 3_600, 7_500, 86_400, 100_000]
    assert [span_text(span) for span in spans] == [
        "0s", "0.4s", "9s", "42s", "1m", "8m", "8m 20s", "1h", "2h 05m", "1d", "1d 3h",
    ]  # fmt: skip
