"""Counts and logged values in words, as every message and view has them. It knows neither colours nor layout.

Invariant: nothing of the program's own language is seen: no None, no brackets of a list, no capital True.
"""

from collections.abc import Iterator, Mapping, Set
from typing import Any, Final

# What every line of events.jsonl has, and a view of it says otherwise or not at all.
OF_EVERY_EVENT: Final = frozenset(("ts", "event", "level", "crawl", "run_id"))


def counted(number: float, noun: str) -> str:
    """A number and its noun, in the singular for one: "1 URL", "1,234 hosts"."""
    return f"{number:,.0f} {noun}{'' if number == 1 else 's'}"


def worded(value: object) -> str:
    """A value of a log line or a request: items with commas, true and false, nothing for what is not there."""
    match value:
        case None:
            return ""
        case bool():
            return "true" if value else "false"
        case list() | tuple() | Set():
            return ", ".join(worded(item) for item in value)
        case Mapping():
            return ", ".join(f"{name}: {worded(item)}" for name, item in value.items())
        case _:
            return str(value)


def fields_of(line: Mapping[str, Any], left_out: Set[str] = OF_EVERY_EVENT) -> Iterator[tuple[str, str]]:
    """Names and values of an event that say something: what is empty or not there is passed over."""
    for name, value in line.items():
        if name not in left_out and (text := worded(value)):
            yield name, text


def unreadable_robots(status: int | None, error: str | None) -> str:
    """What every view says of a robots.txt that cannot be read: "robots.txt cannot be read (tls_self_signed)"."""
    cause = f"status {status}" if status is not None else error
    return f"robots.txt cannot be read{f' ({cause})' if cause else ''}"
