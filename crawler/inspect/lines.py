"""The lines of a log that a query asks for: all of them in order, or the last few.

Joins parts, stretches and matcher. Invariant: memory is bounded by a block and the lines asked for, not by the log.
"""

from collections import deque
from collections.abc import Iterator

from crawler.inspect.parts import Parts
from crawler.inspect.query import Line, Matcher
from crawler.inspect.ranges import cut, epoch, select

_BACK_BYTES = 4 * 1024 * 1024  # read at a time from the end backwards


def matching(parts: Parts, matcher: Matcher) -> Iterator[tuple[bytes, Line]]:
    """The lines as they stand and parsed, the oldest first."""
    for stretch in select(parts, epoch(matcher.query.since), epoch(matcher.query.until)):
        for block in stretch.part.blocks(stretch.start, stretch.end):
            yield from matcher.find(block)


def last(parts: Parts, matcher: Matcher, count: int) -> list[tuple[bytes, Line]]:
    """The last `count` of them, the oldest first; reads no further back than it has to."""
    groups: list[list[tuple[bytes, Line]]] = []
    found = 0
    stretches = select(parts, epoch(matcher.query.since), epoch(matcher.query.until))
    for stretch in reversed(cut(stretches, _BACK_BYTES)):
        if found >= count:
            break
        kept: deque[tuple[bytes, Line]] = deque(maxlen=count - found)
        for block in stretch.part.blocks(stretch.start, stretch.end):
            kept.extend(matcher.find(block))
        groups.append(list(kept))
        found += len(kept)
    return [line for group in reversed(groups) for line in group]
