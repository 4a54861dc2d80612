"""The time of a log line: ISO 8601 in UTC with milliseconds, "2026-11-23T09:00:00.123Z"."""

from crawler.core.utc import utc_second


def timestamp(at: float) -> str:
    """Write epoch seconds as text; milliseconds are cut, not rounded, so that a line never lies in the future."""
    second = int(at)
    return f"{utc_second(second)}.{int((at - second) * 1000):03d}Z"
