"""The time of a log line: ISO 8601 in UTC with milliseconds, "2026-11-23T09:00:00.123Z"."""

from datetime import UTC, datetime
from functools import lru_cache


def timestamp(at: float) -> str:
    """Write epoch seconds as text; milliseconds are cut, not rounded, so that a line never lies in the future."""
    second = int(at)
    return f"{_second(second)}.{int((at - second) * 1000):03d}Z"


@lru_cache(maxsize=8)  # lines of the same second share all but the milliseconds
def _second(second: int) -> str:
    return datetime.fromtimestamp(second, UTC).isoformat()[:19]
