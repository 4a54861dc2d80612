"""Times as a person writes them, and which stretches of a log's parts hold them: by time, or from the newest backwards.

Lines stand in the order of their commit, so their times are in order but for a commit's length, unless the clock was
set back. Invariant: a stretch is cut at starts of lines only, so that each line is in one stretch.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

import orjson

from crawler.inspection.log.rotated_log import LogPart, RotatedLog

SLACK_S: Final = 120.0  # how far lines may stand out of order
_LINES_TRIED: Final = 20  # for one that has a time
_AGO: Final = re.compile(r"(?:(\d+)d)?(?:(\d+)h)?(?:(\d+)m(?:in)?)?(?:(\d+)s)?")
_CLOCK: Final = re.compile(r"(\d{1,2}):(\d{2})(?::(\d{2}))?")


@dataclass(frozen=True, slots=True)
class Stretch:
    """The lines of a part that begin in [start, end); offsets count in plain parts only."""

    part: LogPart
    start: int
    end: int

    @property
    def size(self) -> int:
        return self.end - self.start


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


def epoch(text: str) -> float | None:
    """The epoch seconds of a timestamp in a log; None if it is none."""
    try:
        return datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()
    except ValueError:
        return None


def time_at(part: LogPart, offset: int) -> float | None:
    """The time of the first line that begins at `offset` of a plain part, or soon after; None if none there has one."""
    for _ in range(_LINES_TRIED):
        offset, raw = part.line_at(offset)
        if not raw and offset >= part.size:
            return None
        found = time_of(raw)
        if found is not None:
            return found
        offset += max(1, len(raw))
    return None


def time_of(raw: bytes) -> float | None:
    """The time of a line; None if it has none."""
    try:
        line = orjson.loads(raw)
    except orjson.JSONDecodeError:
        return None
    ts = line.get("ts") if isinstance(line, dict) else None
    return epoch(ts) if isinstance(ts, str) else None


def bracket(part: LogPart, at: float) -> tuple[int, int]:
    """Two offsets close together in a plain part: lines that begin before the first are earlier than `at`, lines from
    the second on are not, as far as lines are in order.
    """
    low, high = 0, part.size
    while high - low > 4096:
        middle = (low + high) // 2
        time = time_at(part, middle)
        if time is None or time >= at:
            high = middle
        else:
            low = middle
    return low, high


def select(parts: RotatedLog, since: float | None = None, until: float | None = None) -> list[Stretch]:
    """The stretches that may hold lines of [since, until), the oldest first. Times outside still have to be refused."""
    stretches = []
    for part in parts.oldest_first:
        start, end = 0, part.size
        if since is not None and part.modified_at < since - SLACK_S:
            continue
        if part.is_plain:
            if since is not None:
                start, _ = bracket(part, since - SLACK_S)
            if until is not None:
                _, end = bracket(part, until + SLACK_S)
        if start < end:
            stretches.append(Stretch(part, start, end))
    return stretches


def newest(stretches: Sequence[Stretch], limit: int) -> list[Stretch]:
    """The last `limit` bytes of them, a little more where a compressed part is cut into: those are taken whole."""
    kept: list[Stretch] = []
    for stretch in reversed(stretches):
        if limit <= 0:
            break
        if stretch.part.is_plain and stretch.size > limit:
            stretch = Stretch(stretch.part, stretch.end - limit, stretch.end)
        kept.append(stretch)
        limit -= stretch.size
    return kept[::-1]


def cut(stretches: Iterable[Stretch], size: int) -> list[Stretch]:
    """The same lines in stretches of at most `size` bytes; compressed parts stay whole."""
    pieces = []
    for stretch in stretches:
        if not stretch.part.is_plain:
            pieces.append(stretch)
            continue
        for start in range(stretch.start, stretch.end, size):
            pieces.append(Stretch(stretch.part, start, min(stretch.end, start + size)))
    return pieces


def last_time(parts: RotatedLog) -> float | None:
    """The time of the last line of the youngest part that has one; None for an empty log."""
    for part in parts.youngest_first:
        if not part.is_plain:
            last = b""
            for block in part.blocks():
                last = block
            found = _last_in(last)
        else:
            found = None
            for start in range(max(0, part.size - 65_536), -65_536, -65_536):
                found = _last_in(b"".join(part.blocks(max(0, start), part.size)))
                if found is not None or start <= 0:
                    break
        if found is not None:
            return found
    return None


def _last_in(block: bytes) -> float | None:
    for raw in reversed(block.split(b"\n")):
        if raw and (found := time_of(raw)) is not None:
            return found
    return None
