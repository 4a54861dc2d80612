"""Durations and sizes as people write them: "1h30m", "250ms", "32MiB", "1GB".

Owns both directions, text to number and back; knows nothing of keys or files. Invariant: what `format_…` writes,
`parse_…` reads as the same number.
"""

import math
import re
from typing import Final

from crawler.settings.problems import RefusedValue

MAX_DURATION_S: Final = 3_650 * 86_400.0  # ten years: beyond that it is a slip, and timers lose their precision
MAX_SIZE: Final = 2**63 - 1  # what the store can hold

_SECONDS: Final = {"d": 86_400.0, "h": 3_600.0, "m": 60.0, "s": 1.0, "ms": 0.001}
_TERM = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|[dhms])\s*")
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([A-Za-z]*)")
_BYTES: Final[dict[str, int]] = {
    **{f"{letter}ib": 1024**power for power, letter in enumerate("kmgt", 1)},
    **{f"{letter}b": 1000**power for power, letter in enumerate("kmgt", 1)},
    "b": 1,
    "": 1,
}


def parse_duration(value: object) -> float:
    """Seconds for "500ms", "1.5s", "1h30m" (units d, h, m, s, ms; each once, the larger first) or a number of seconds.

    Raises RefusedValue.
    """
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise RefusedValue('must be a duration such as "500ms", "1s" or "1h30m"')
    seconds = _duration_of_text(value) if isinstance(value, str) else float(min(value, 2 * MAX_DURATION_S))
    if not math.isfinite(seconds) or seconds < 0:
        raise RefusedValue("must not be negative" if seconds < 0 else "must be a finite duration")
    if seconds > MAX_DURATION_S:
        raise RefusedValue(f"must be at most {format_duration(MAX_DURATION_S)}")
    return seconds


def _duration_of_text(text: str) -> float:
    stripped = text.strip()
    if stripped == "0":
        return 0.0
    total, position, smallest = 0.0, 0, math.inf
    while match := _TERM.match(stripped, position):
        scale = _SECONDS[match[2]]
        if scale >= smallest:
            break
        smallest = scale
        # Milliseconds are divided, not multiplied: 0.001 is no binary fraction, and "300ms" has to be 0.3.
        total += float(match[1]) / 1000 if match[2] == "ms" else float(match[1]) * scale
        position = match.end()
    if not stripped or position != len(stripped):
        hint = f'did you mean "{stripped}s"?' if re.fullmatch(r"\d+(\.\d+)?", stripped) else "units: d, h, m, s, ms"
        raise RefusedValue(f'must be a duration such as "500ms", "1s" or "1h30m", not "{text[:60]}"', hint)
    return total


def parse_size(value: object) -> int:
    """Bytes for "32MiB" (powers of 1024), "1GB" (powers of 1000), "64B", or a whole number. Raises RefusedValue."""
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise RefusedValue('must be a size such as "32MiB", "1GB" or a whole number of bytes')
    size = _size_of_text(value) if isinstance(value, str) else value
    if size < 0:
        raise RefusedValue("must not be negative")
    if size > MAX_SIZE:
        raise RefusedValue("must be less than 8388608TiB")
    return size


def _size_of_text(text: str) -> int:
    message = f'must be a size such as "32MiB", "1GB" or a whole number of bytes, not "{text[:60]}"'
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        raise RefusedValue(message)
    number, unit = match.groups()
    scale = _BYTES.get(unit.lower())
    if scale is None:
        one_letter = unit.upper() in ("K", "M", "G", "T")
        hint = f'did you mean "{number}{unit.upper()}iB" (1024) or "{number}{unit.upper()}B" (1000)?'
        raise RefusedValue(message, hint if one_letter else "units: B, KiB, MiB, GiB, TiB, kB, MB, GB, TB")
    if number.isdigit() and len(number) < 30:  # exactly; more digits are too much in any unit
        return int(number) * scale
    return round(min(float(number) * scale, 2.0**64))


def format_duration(seconds: float) -> str:
    """The shortest text that `parse_duration` reads as `seconds` (to the microsecond)."""
    if seconds == 0:
        return "0s"
    if seconds < 1:
        return f"{_plain(seconds * 1000)}ms"
    whole, rest = divmod(round(seconds, 6), 60)
    parts = []
    for unit, scale in (("d", 1_440), ("h", 60), ("m", 1)):
        count, whole = divmod(whole, scale)
        if count:
            parts.append(f"{int(count)}{unit}")
    if rest:
        parts.append(f"{_plain(rest)}s")
    return "".join(parts)


def _plain(number: float) -> str:
    return f"{number:.6f}".rstrip("0").rstrip(".")


def format_size(size: int) -> str:
    """The largest unit that divides `size`, 1024-based before 1000-based; below 1 KiB the number of bytes."""
    for base, suffix in ((1024, "iB"), (1000, "B")):
        for power, letter in ((4, "T"), (3, "G"), (2, "M"), (1, "K" if base == 1024 else "k")):
            if size and size % base**power == 0:
                return f"{size // base**power}{letter}{suffix}"
    return f"{size}B"
