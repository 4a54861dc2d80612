"""Time as a parameter: the Clock protocol, and dates as servers write them in fields and feeds."""

from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import Final, Protocol


class Clock(Protocol):
    """Passed in through constructors, so that a test can hold time still."""

    def mono(self) -> float:
        """Seconds on a clock that never jumps; meaningless outside this process."""

    def now(self) -> float:
        """UTC, epoch seconds, as the wall clock says: it may be set, forward and back."""


_MAX_CHARS: Final = 64  # the longest form is "Wednesday, 06-Nov-94 08:49:37 GMT"


def http_date(text: str) -> float | None:
    """UTC epoch seconds of a date; None if it is none.

    All three forms of RFC 9110 §5.6.7, and the dates of e-mail with an offset. One that names no zone is GMT, as
    asctime's must be: never the machine's own.
    """
    if len(text) > _MAX_CHARS:
        return None
    try:
        when = parsedate_to_datetime(text)
        return (when if when.tzinfo is not None else when.replace(tzinfo=UTC)).timestamp()
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
