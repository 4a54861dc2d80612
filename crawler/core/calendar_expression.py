"""Calendar expressions of systemd.time(7), as timers have them: "daily", "Mon..Fri 06:00", "*:0/15 Europe/Berlin".

As for systemd, a time of day that the clocks skip does not come that day, and one that they show twice comes the first
time. Left out are fractions of seconds and seconds since the epoch (@…). Parsing is pure; `first_after` reads the rules
of time zones from the machine.
"""

import re
from bisect import bisect_left
from calendar import monthrange, timegm
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Final, NamedTuple
from zoneinfo import ZoneInfo

MAX_LENGTH: Final = 200  # characters of an expression
SEARCH_YEARS: Final = 50  # how far ahead is searched: 29 February is a Monday every 28 or 40 years
_DAY_S: Final = 86_400
_SHORTHANDS: Final = {
    "minutely": "*-*-* *:*:00",
    "hourly": "*-*-* *:00:00",
    "daily": "*-*-* 00:00:00",
    "weekly": "Mon *-*-* 00:00:00",
    "monthly": "*-*-01 00:00:00",
    "quarterly": "*-01,04,07,10-01 00:00:00",
    "semiannually": "*-01,07-01 00:00:00",
    "semi-annually": "*-01,07-01 00:00:00",
    "yearly": "*-01-01 00:00:00",
    "annually": "*-01-01 00:00:00",
    "anually": "*-01-01 00:00:00",
    "bi-annually": "*-01,07-01 00:00:00",
    "biannually": "*-01,07-01 00:00:00",
}
_WEEKDAYS: Final = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
_DAY_NAME: Final = "(?:" + "|".join(f"{name[:3]}(?:{name[3:]})?" for name in _WEEKDAYS) + ")"
_DAYS: Final = re.compile(rf"{_DAY_NAME}(?:(?:,|\.\.|-){_DAY_NAME})*", re.IGNORECASE)
_PART: Final = r"[0-9][0-9.,/]*"
_DATE: Final = re.compile(rf"(?:(?P<year>\*|{_PART})-)?(?P<month>\*|{_PART})(?P<from_end>[-~])(?P<day>\*|{_PART})")
_TIME: Final = re.compile(rf"(?P<hour>\*|{_PART}):(?P<minute>\*|{_PART})(?::(?P<second>\*|{_PART}))?")
_ZONE: Final = re.compile(r"[A-Za-z][A-Za-z0-9_+/-]*")
_ITEM: Final = re.compile(r"(?P<start>[0-9]{1,4})(?:\.\.(?P<stop>[0-9]{1,4}))?(?:/(?P<step>[0-9]{1,4}))?")


class CalendarError(ValueError):
    """A text is no calendar expression. The message is for people."""


class Repetition(NamedTuple):
    """`start`, and every `step` after it up to `stop`, or without end."""

    start: int
    stop: int | None
    step: int

    def values(self, most: int) -> range:
        """The values up to `most`."""
        return range(self.start, (most if self.stop is None else min(most, self.stop)) + 1, self.step)


@dataclass(frozen=True, slots=True)
class CalendarExpression:
    """Days, and times of each. `zone` is None for the machine's time zone; months and times are in order."""

    text: str
    weekdays: frozenset[int]  # 0: Monday
    years: frozenset[int]
    months: tuple[int, ...]
    days: tuple[Repetition, ...]
    from_end: bool  # `days` count from the end of the month: 1 is its last day
    hours: tuple[int, ...]
    minutes: tuple[int, ...]
    seconds: tuple[int, ...]
    zone: str | None = None

    def next_after(self, at: float, utc_offset_s: Callable[[float], float]) -> float | None:
        """The first time after `at` (UTC); None if there is none within SEARCH_YEARS. `utc_offset_s`: by how many
        seconds the clocks of the zone are ahead of UTC at a time (UTC).
        """
        local = int((at + utc_offset_s(at)) // 1) + 1  # as if the clocks showed UTC
        for then in self._local_times(local):
            for moment in _moments(then, utc_offset_s):
                if moment > at:
                    return moment
        return None

    def _local_times(self, first: int) -> Iterator[int]:
        start, second = divmod(first, _DAY_S)
        first_day = datetime.fromtimestamp(start * _DAY_S, UTC).date()
        for day in self._days_from(first_day):
            midnight = timegm(day.timetuple())
            for of_day in self._times_of_day(second if day == first_day else 0):
                yield midnight + of_day

    def _days_from(self, first: date) -> Iterator[date]:
        for year in range(first.year, first.year + SEARCH_YEARS):
            if year not in self.years:
                continue
            for month in self.months:
                if (year, month) < (first.year, first.month):
                    continue
                for number in self._days_of(year, month):
                    day = date(year, month, number)
                    if day >= first and day.weekday() in self.weekdays:
                        yield day

    def _days_of(self, year: int, month: int) -> list[int]:
        last = monthrange(year, month)[1]
        found: set[int] = set()
        for one in self.days:
            if self.from_end:
                start, stop = last + 1 - one.start, None if one.stop is None else last + 1 - one.stop
                ends = [start] if stop is None else sorted((start, stop))
                found.update(range(ends[0], (last if stop is None else ends[1]) + 1, one.step))
            else:
                found.update(one.values(last))
        return sorted(found)

    def _times_of_day(self, first: int) -> Iterator[int]:
        for hour in self.hours[bisect_left(self.hours, first // 3_600) :]:
            for minute in self.minutes:
                for second in self.seconds:
                    if (of_day := hour * 3_600 + minute * 60 + second) >= first:
                        yield of_day


def _moments(local: int, utc_offset_s: Callable[[float], float]) -> list[float]:
    """When (UTC) the clocks show this: once, twice when they are set back, not at all when that hour is skipped."""
    offsets = {utc_offset_s(local - _DAY_S), utc_offset_s(local + _DAY_S)}
    return sorted(local - offset for offset in offsets if utc_offset_s(local - offset) == offset)


def parse_calendar(text: str) -> CalendarExpression:
    """Parse `[weekdays] [date] [time] [time zone]`, or a word such as "daily". Raises CalendarError."""
    if len(text) > MAX_LENGTH:
        raise CalendarError(f"it is longer than {MAX_LENGTH} characters")
    words = text.split()
    zone = None
    if len(words) > 1 and _ZONE.fullmatch(words[-1]) and not _DAYS.fullmatch(words[-1]):
        zone = words.pop()
        zone = "UTC" if zone.upper() == "UTC" else zone
    if len(words) == 1 and words[0].lower() in _SHORTHANDS:
        words = _SHORTHANDS[words[0].lower()].split()
    days = words.pop(0) if words and _DAYS.fullmatch(words[0]) else None
    on = _DATE.fullmatch(words[0]) if words else None
    if on is not None:
        del words[0]
    time = _TIME.fullmatch(words[0]) if words else None
    if time is not None:
        del words[0]
    if words or (days is None and on is None and time is None):
        raise CalendarError('write it as in "daily", "Mon..Fri 06:00", "*-*-01 04:30" or "*:0/15"')
    year, month, day = ("*", "*", "*") if on is None else (on["year"] or "*", on["month"], on["day"])
    hour, minute, second = ("0", "0", "0") if time is None else (time["hour"], time["minute"], time["second"] or "0")
    from_end = on is not None and on["from_end"] == "~" and day != "*"
    return CalendarExpression(
        text,
        weekdays=frozenset(range(7)) if days is None else _weekdays(days),
        years=frozenset(_values(year, 1970, 2199, is_year=True)),
        months=_values(month, 1, 12),
        days=tuple(_parse(day, 1, 28 if from_end else 31)),
        from_end=from_end,
        hours=_values(hour, 0, 23),
        minutes=_values(minute, 0, 59),
        seconds=_values(second, 0, 59),
        zone=zone,
    )


def _weekdays(text: str) -> frozenset[int]:
    found: set[int] = set()
    for part in text.lower().split(","):
        begin, *end = (_WEEKDAYS.index(_full_name(name)) for name in re.split(r"\.\.|-", part))
        if len(end) > 1 or (end and end[0] < begin):
            raise CalendarError(f'"{part}" is no range of days: the first comes before the last, Monday is the first')
        found.update(range(begin, (end or [begin])[0] + 1))
    return frozenset(found)


def _full_name(name: str) -> str:
    return next(full for full in _WEEKDAYS if full.startswith(name))


def _values(text: str, least: int, most: int, *, is_year: bool = False) -> tuple[int, ...]:
    """All values that a part names, in order."""
    repetitions = _parse(text, least, most, is_year=is_year)
    return tuple(sorted({value for one in repetitions for value in one.values(most)}))


def _parse(text: str, least: int, most: int, *, is_year: bool = False) -> list[Repetition]:
    if text == "*":
        return [Repetition(least, None, 1)]
    found = []
    for item in text.split(","):
        match = _ITEM.fullmatch(item)
        if match is None:
            raise CalendarError(f'"{item}" is neither a number, a range as 1..5 nor a repetition as 0/15')
        start = _number(match["start"], is_year=is_year)
        stop = start if match["step"] is None else None
        if match["stop"] is not None:
            stop = _number(match["stop"], is_year=is_year)
        step = 1 if match["step"] is None else int(match["step"])
        if not least <= start <= most or (stop is not None and not start <= stop <= most) or step < 1:
            raise CalendarError(f'"{item}" is out of range: {least} to {most}')
        found.append(Repetition(start, stop, step))
    return found


def _number(text: str, *, is_year: bool) -> int:
    """Years of two digits are those from 1970 to 2069, as for systemd."""
    value = int(text)
    if is_year and value < 100:
        return value + (1900 if value >= 70 else 2000)
    return value


def first_after(expressions: Iterable[str], at: float) -> float | None:
    """The first time after `at` (UTC) at which one of them comes, None if none does. Raises CalendarError,
    ZoneInfoNotFoundError.
    """
    parsed = map(parse_calendar, expressions)
    found = (one.next_after(at, utc_offset_of(one.zone)) for one in parsed)
    return min((then for then in found if then is not None), default=None)


def utc_offset_of(zone: str | None) -> Callable[[float], float]:
    """Seconds by which the clocks of a time zone are ahead of UTC at a time (UTC); None: the machine's own (TZ,
    /etc/localtime). Raises ZoneInfoNotFoundError.
    """
    info = None if zone is None else ZoneInfo(zone)
    return lambda at: (datetime.fromtimestamp(at, UTC).astimezone(info).utcoffset() or timedelta()).total_seconds()
