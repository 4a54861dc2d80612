"""Times as people write them."""

import pytest

from crawler.inspection.log.ranges import parse_moment

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
    with pytest.raises(ValueError, match="is not a time"):
        parse_moment(text, NOW)
