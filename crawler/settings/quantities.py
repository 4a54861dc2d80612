"""Durations and sizes as people write them: "1h30m", "250ms", "32MiB", "1GB".

Owns both directions, text to number and back; knows nothing of keys or files. Invariant: what `format_…` writes,
`parse_…` reads as the same number.
"""

import math
import re
from typing import Final

from crawler.settings.configuration_errors import RefusedValue

_NUMBER: Final = r"(\d+(?:\.\d+)?)\s*"
# For the JSON schema too, whose dialect of regular expressions has them in common with Python's.
DURATION: Final = (
    r"^\s*(?=\S)" + "".join(rf"(?:{_NUMBER}{unit}\s*)?" for unit in ("d", "h", "m", "s", "ms")) + r"$|^\s*0\s*$"
)
SIZE: Final = rf"^\s*{_NUMBER}([kKmMgGtT][iI]?[bB]|[bB])?\s*$"

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
    message = 'must be a duration such as "500ms", "1s" or "1h30m"'
    if isinstance(value, str):
        if (match := re.fullmatch(DURATION, value)) is None:
            bare = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*", value)
            hint = f'did you mean "{bare[1]}s"?' if bare else "units: d, h, m, s, ms"
            raise RefusedValue(f'{message}, not "{value[:60]}"', hint)
        days, hours, minutes, seconds, milliseconds = (float(part or 0) for part in match.groups())
        # Milliseconds are divided, not multiplied: 0.001 is no binary fraction, and "300ms" has to be 0.3.
        return days * 86_400 + hours * 3_600 + minutes * 60 + seconds + milliseconds / 1000
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise RefusedValue(message)
    if value < 0:
        raise RefusedValue("must not be negative")
    if math.isnan(value):
        raise RefusedValue("must be a finite duration")
    return float(min(value, 1e18))  # beyond that an integer may be too large for a float


def parse_size(value: object) -> int:
    """Bytes for "32MiB" (powers of 1024), "1GB" (powers of 1000), "64B", or a whole number. Raises RefusedValue."""
    if isinstance(value, str):
        return _size_of_text(value)
    if isinstance(value, bool) or not isinstance(value, int):
        raise RefusedValue('must be a size such as "32MiB", "1GB" or a whole number of bytes')
    if value < 0:
        raise RefusedValue("must not be negative")
    return value


def _size_of_text(text: str) -> int:
    message = f'must be a size such as "32MiB", "1GB" or a whole number of bytes, not "{text[:60]}"'
    match = re.fullmatch(rf"\s*{_NUMBER}([A-Za-z]*)\s*", text)
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
