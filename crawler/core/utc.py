"""Seconds since 1970 as text, for lines and records that add what of a second they want."""

from datetime import UTC, datetime
from functools import lru_cache


@lru_cache(maxsize=8)  # what is written within a second shares it
def utc_second(second: int) -> str:
    """ISO 8601 in UTC, without a zone: "2026-11-23T09:00:00"."""
    return datetime.fromtimestamp(second, UTC).isoformat()[:19]
