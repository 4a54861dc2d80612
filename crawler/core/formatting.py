"""Numbers, sizes, times and logged values as text: the one place where they are written for people and for the log.

Every command, the status page's sentence, the reports and the messages use these functions, so that the same fact has
the same words in every view. Times are UTC unless the function says otherwise. What is read back (durations and sizes
of the configuration) is written in `settings/value_types.py`, beside its parser.
Invariant: nothing of the program's own language is seen in text for people: no None, no brackets of a list, no capital
True.
"""

import os
from collections.abc import Iterator, Mapping, Set
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, Final

# Fields of every line of events.jsonl, which views show otherwise or not at all.
COMMON_EVENT_FIELDS: Final = frozenset(("ts", "event", "level", "crawl", "run_id"))

# -- numbers


def count(number: float, noun: str = "") -> str:
    """A whole number with separators, and its noun in the singular or plural: "1,234,567", "1 URL", "0 hosts"."""
    return f"{number:,.0f}{noun and f' {noun}'}{'s' if noun and number != 1 else ''}"


def counts(by_word: Mapping[str, int]) -> str:
    """A count for each word, the largest first, without zeros: "1,204 ok, 12 redirect"; "" for none."""
    ordered = sorted(by_word.items(), key=lambda item: (-item[1], item[0]))
    return ", ".join(f"{count(number)} {word}" for word, number in ordered if number)


def average(number: float) -> str:
    """A mean, with a decimal where it means something: "0.0", "9.7", "99.9", "1,234"."""
    return f"{number:,.0f}" if number >= 99.95 else f"{number:.1f}"


def rate(per_s: float) -> str:
    """Things a second: "0.0/s", "13.2/s", "1,234/s"."""
    return f"{average(per_s)}/s"


def share(fraction: float) -> str:
    """A fraction in percent: "0 %", "85 %", "117 %"."""
    return f"{100 * fraction:.0f} %"


def size(number: float) -> str:
    """Bytes in binary units: "512 B", "1.5 KiB", "329.7 MiB", "5.0 GiB", "1,024.0 TiB"."""
    amount = float(number)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if amount < 1023.95:
            return f"{amount:.0f} B" if unit == "B" else f"{amount:.1f} {unit}"
        amount /= 1024
    return f"{amount:,.1f} TiB"


# -- times


def duration(seconds: float) -> str:
    """A length of time in its two largest units: "0.4 ms", "412 ms", "1.5 s", "42 s", "8 min 20 s", "2 h 05 min",
    "3 d 04 h". The smaller unit is left out where it is 0; a negative length is "0 s".
    """
    if seconds < 0.9995:
        milliseconds = max(0.0, 1_000 * seconds)
        shown = round(milliseconds, 1 if milliseconds < 9.95 else None)
        return f"{shown:g} ms" if shown else "0 s"
    if seconds < 9.95:
        return f"{round(seconds, 1):g} s"
    whole = round(seconds)
    for unit_s, unit, smaller_s, smaller in ((86_400, "d", 3_600, "h"), (3_600, "h", 60, "min"), (60, "min", 1, "s")):
        if whole >= unit_s:
            rest = whole % unit_s // smaller_s
            return f"{whole // unit_s:,} {unit}" + (f" {rest:02d} {smaller}" if rest else "")
    return f"{whole} s"


def ago(seconds: float) -> str:
    """A time since something, as text: "just now" for less than a second, "8 min 20 s ago"."""
    return f"{duration(seconds)} ago" if seconds >= 1 else "just now"


@lru_cache(maxsize=8)  # what is written within a second shares it
def utc_second(second: int) -> str:
    """Whole epoch seconds as ISO 8601 in UTC, without a zone: "2026-11-23T09:00:00"."""
    return datetime.fromtimestamp(second, UTC).isoformat()[:19]


def timestamp(at: float) -> str:
    """Epoch seconds as the log and JSON have them: "2026-11-23T09:00:00.123Z".

    Milliseconds are cut, not rounded, so that a line never lies in the future.
    """
    second = int(at)
    return f"{utc_second(second)}.{int((at - second) * 1000):03d}Z"


def date_time(moment: float | str) -> str:
    """Epoch seconds, or a `timestamp`, to the second: "2026-11-23T09:00:00Z". "" for ""."""
    text = moment if isinstance(moment, str) else utc_second(int(moment))
    return f"{text[:19]}Z" if text else ""


def wall_time(at: float, now: float) -> str:
    """The time of day, with the date where it is another day's: "09:44:10Z", "2026-11-24T09:44:10Z"."""
    text, today = date_time(at), date_time(now)
    return text[11:] if text[:10] == today[:10] else text


def local_time(at: float) -> str:
    """Weekday and time on this machine's clock, as `fetch.hours` is written: "Wed 22:00 CET"."""
    return datetime.fromtimestamp(at, UTC).astimezone().strftime("%a %H:%M %Z")


# -- values and messages


def printable(text: str) -> str:
    """Text from outside without its control characters, so that it cannot steer a terminal."""
    return text if text.isprintable() else "".join(char if char.isprintable() else "�" for char in text)


def shortened(text: str, most: int = 200) -> str:
    """At most so many characters of a text; "…" ends one that was longer."""
    return text if len(text) <= most else f"{text[: most - 1]}…"


def value_text(value: object) -> str:
    """A value of a log line or a request: "a, b" for a list, "true", "name: value" for a table, "" for None."""
    match value:
        case None:
            return ""
        case bool():
            return "true" if value else "false"
        case list() | tuple() | Set():
            return ", ".join(value_text(item) for item in value)
        case Mapping():
            return ", ".join(f"{name}: {value_text(item)}" for name, item in value.items())
        case _:
            return str(value)


def event_fields(line: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Names and texts of an event's own fields, those that are empty left out: ("pid", "17"), ("changed", "a, b")."""
    for name, value in line.items():
        if name not in COMMON_EVENT_FIELDS and (text := value_text(value)):
            yield name, text


def unreadable_robots(status: int | None, error: str | None) -> str:
    """Why a robots.txt cannot be read: "robots.txt cannot be read (status 503)", "… (tls_self_signed)"."""
    cause = f"status {status}" if status is not None else error
    return f"robots.txt cannot be read{f' ({cause})' if cause else ''}"


@contextmanager
def naming_key(key: str, place: object, failing: str = "") -> Iterator[None]:
    """Re-raise an OSError as "KEY PLACE: FAILING: reason" with its errno: the message names the configuration key."""
    try:
        yield
    except OSError as error:
        code = error.errno or 0
        reason = os.strerror(code) if code > 0 else error.strerror or str(error)
        raise OSError(code, f"{failing}: {reason}" if failing else reason, f"{key} {place}") from error
