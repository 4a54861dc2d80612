"""Parse a time as a person writes it: "10m", "09:30", "yesterday". All in UTC, like the log."""

import re
from datetime import UTC, datetime, timedelta
from typing import Final

_AGO: Final = re.compile(r"(?:(\d+)d)?(?:(\d+)h)?(?:(\d+)m(?:in)?)?(?:(\d+)s)?")
_CLOCK: Final = re.compile(r"(\d{1,2}):(\d{2})(?::(\d{2}))?")


def parse_moment(text: str, now: float) -> float:
    """Epoch seconds of "90s", "10m", "2h", "1d12h" (so long ago), "09:30" (today; yesterday if that is still to come),
    "today", "yesterday", "2026-11-25", "2026-11-25T09:30" (with an offset if one is given). Raises ValueError.
    """
    text = text.strip()
    present = datetime.fromtimestamp(now, UTC)
    midnight = present.replace(hour=0, minute=0, second=0, microsecond=0)
    match text.lower():
        case "now":
            return now
        case "today":
            return midnight.timestamp()
        case "yesterday":
            return (midnight - timedelta(days=1)).timestamp()
    ago = _AGO.fullmatch(text.removesuffix("ago").strip())
    if ago is not None and any(ago.groups()):
        days, hours, minutes, seconds = (int(part or 0) for part in ago.groups())
        try:
            return now - timedelta(days=days, hours=hours, minutes=minutes, seconds=seconds).total_seconds()
        except OverflowError:
            raise ValueError(f'"{text}" is too long ago') from None
    clock = _CLOCK.fullmatch(text)
    try:
        if clock is not None:
            hour, minute, second = (int(part or 0) for part in clock.groups())
            at = midnight.replace(hour=hour, minute=minute, second=second).timestamp()
            return at if at <= now else at - 86_400
        found = datetime.fromisoformat(text)
    except ValueError:
        raise ValueError(
            f'"{text}" is not a time such as "10m", "09:30", "yesterday" or "2026-11-25T09:30" (UTC)'
        ) from None
    return (found if found.tzinfo is not None else found.replace(tzinfo=UTC)).timestamp()
