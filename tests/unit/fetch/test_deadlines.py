"""The next deadline of an exchange, also after a pause in reading."""

import pytest

from crawler.core.enums import ErrorType
from crawler.fetch.connection import next_deadline
from crawler.fetch.options import FetchOptions

DEFAULT = FetchOptions(first_byte_timeout_s=30, read_timeout_s=20, total_timeout_s=600, min_rate=None)
RATED = FetchOptions(read_timeout_s=1000, total_timeout_s=6000, min_rate=100, min_rate_after_s=10)
HASTY = FetchOptions(first_byte_timeout_s=30, read_timeout_s=20, total_timeout_s=5)


@pytest.mark.parametrize(
    ("options", "at", "expected"),
    [
        (DEFAULT, {}, (130, ErrorType.FIRST_BYTE_TIMEOUT)),
        (DEFAULT, {"first": 110, "last": 115, "received": 1}, (135, ErrorType.READ_TIMEOUT)),
        (DEFAULT, {"first": 110, "last": 695, "received": 1}, (700, ErrorType.TOTAL_TIMEOUT)),
        (DEFAULT, {"first": 110, "last": 695, "received": 1, "paused_s": 50}, (715, ErrorType.READ_TIMEOUT)),
        (HASTY, {}, (105, ErrorType.TOTAL_TIMEOUT)),
        (RATED, {"first": 110, "last": 111, "received": 5}, (120, ErrorType.TOO_SLOW)),
        (RATED, {"first": 110, "last": 111, "received": 5_000}, (160, ErrorType.TOO_SLOW)),
        (RATED, {"first": 110, "last": 111, "received": 5_000, "paused_s": 7}, (167, ErrorType.TOO_SLOW)),
    ],
)
def test_the_nearest_deadline_counts(options, at, expected):
    """For a request sent at 100: when it fails if nothing more comes, and with which error type."""
    state = {"first": 0.0, "last": 100.0, "received": 0, "paused_s": 0.0} | at
    assert next_deadline(options, sent=100.0, **state) == expected
