"""Time as a parameter: the Clock protocol, the dates of header fields and feeds, and time windows of the week.

Windows such as "22:00-06:00" or "Mon-Fri 08:00-18:00" follow the wall clock: an hour occurs twice in the night in which
clocks are set back, and is missing in the night in which they are set forward.
"""

import re
from bisect import bisect_right
from collections.abc import Callable, Iterable
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import Final, Protocol


class Clock(Protocol):
    """The time, passed in through constructors so that tests control it."""

    def mono(self) -> float:
        """Monotonic seconds; meaningless outside this process."""

    def now(self) -> float:
        """UTC epoch seconds of the wall clock, which may be set forward and back."""


_MAX_CHARS: Final = 64  # the longest form is "Wednesday, 06-Nov-94 08:49:37 GMT"


def http_date(text: str) -> float | None:
    """Parse a date to UTC epoch seconds; None if it is none.

    It takes the three forms of RFC 9110 §5.6.7 and the dates of e-mail with an offset. A date without a zone is GMT.
    """
    if len(text) > _MAX_CHARS:
        return None
    try:
        when = parsedate_to_datetime(text)
        return (when if when.tzinfo is not None else when.replace(tzinfo=UTC)).timestamp()
    except (ValueError, TypeError, IndexError, OverflowError):
        return None


DAYS: Final = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
NEVER: Final = float("inf")
_DAY_MIN: Final = 1_440
_WEEK_MIN: Final = 7 * _DAY_MIN
_SEARCH_S: Final = 9 * 86_400  # a week, and two days more because clocks may be set
_EPOCH_WEEKDAY: Final = 3  # 1970-01-01 was a Thursday

_WINDOW = re.compile(
    r"(?:(?P<days>[A-Za-z][A-Za-z, -]*)\s)?\s*(?P<start>\d\d?:\d\d)\s*-\s*(?P<end>\d\d?:\d\d)", re.ASCII
)


class HoursError(ValueError):
    """An invalid window. The message is for people."""


class Hours:
    """The union of several windows. `utc_offset_s` gives the seconds that the local clock is ahead of UTC at a time.

    Invariant: `is_open` is the same from `at` up to `changes_at(at)`, and changes there. Raises HoursError.
    """

    def __init__(self, windows: Iterable[str], utc_offset_s: Callable[[float], float]) -> None:
        self._utc_offset_s = utc_offset_s
        edges: list[int] = []  # minutes of the week, in pairs: open, closed
        for start, end in sorted(span for text in windows for span in spans(text)):
            if edges and start <= edges[-1]:
                edges[-1] = max(edges[-1], end)
            else:
                edges += [start, end]
        self._edges = edges

    def is_open(self, at: float) -> bool:
        """Whether `at` (UTC) lies in a window."""
        return bisect_right(self._edges, self._minute(at)) % 2 == 1

    def changes_at(self, at: float) -> float:
        """The next time (UTC) at which `is_open` changes after `at`; NEVER if it is open all week."""
        if not self._edges:
            return NEVER
        was_open = self.is_open(at)
        then = at - (at + self._utc_offset_s(at)) % 60
        while then < at + _SEARCH_S:
            then = self._next_candidate(then)
            if self.is_open(then) is not was_open:
                return then
        return NEVER

    def _next_candidate(self, at: float) -> float:
        """The next whole minute at which it may open or close, or at which the clocks are set."""
        minute = self._minute(at)
        then = at + 60 * min((edge - minute) % _WEEK_MIN or _WEEK_MIN for edge in self._edges)
        offset_s = self._utc_offset_s(at)
        if self._utc_offset_s(then) == offset_s:
            return then
        before = at
        while then - before > 60:
            middle = before + (then - before) // 120 * 60
            if self._utc_offset_s(middle) == offset_s:
                before = middle
            else:
                then = middle
        return then

    def _minute(self, at: float) -> int:
        """The minute of the local week, which begins on Monday at 00:00."""
        days, second = divmod(int(at + self._utc_offset_s(at)), 86_400)
        return (days + _EPOCH_WEEKDAY) % 7 * _DAY_MIN + second // 60


def spans(text: str) -> list[tuple[int, int]]:
    """Parse a window to begins and ends in minutes from Monday 00:00.

    A window is `[days] HH:MM-HH:MM`, with days such as "Mon-Fri" or "Sat,Sun", all if none are named. It begins on
    these days: an end that is not after the begin is on the next day. Raises HoursError.
    """
    match = _WINDOW.fullmatch(text.strip())
    if match is None:
        raise HoursError('write it as in "22:00-06:00" or "Mon-Fri 08:00-18:00"')
    start, end = _minutes(match["start"]), _minutes(match["end"])
    if start in (end, _DAY_MIN):
        raise HoursError('it is empty; the whole day is "00:00-24:00"')
    found = []
    for day in _days(match["days"]) if match["days"] else range(7):
        begin = day * _DAY_MIN + start
        until = begin + (end - start) % _DAY_MIN if end != _DAY_MIN or start else begin + _DAY_MIN
        found.append((begin, min(until, _WEEK_MIN)))
        if until > _WEEK_MIN:
            found.append((0, until - _WEEK_MIN))
    return found


def _minutes(text: str) -> int:
    hour, minute = map(int, text.split(":"))
    if minute > 59 or hour * 60 + minute > _DAY_MIN:
        raise HoursError(f'"{text}" is no time of day')
    return hour * 60 + minute


def _days(text: str) -> set[int]:
    found: set[int] = set()
    for part in text.split(","):
        first, dash, last = part.partition("-")
        begin = _day(first)
        length = (_day(last) - begin) % 7 if dash else 0
        found |= {(begin + n) % 7 for n in range(length + 1)}
    return found


def _day(text: str) -> int:
    name = text.strip().capitalize()
    if name not in DAYS:
        raise HoursError(f'"{text.strip()}" is no day: {", ".join(DAYS)}')
    return DAYS.index(name)
