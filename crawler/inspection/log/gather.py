"""Tallies a log, in two processes where it is large.

Knows stretches, matcher and tally, and joins them. The child shares the open files and hands its tally back through a
pipe; one that dies is an error, not a smaller result. It must not be used where threads run (fork): the status page
asks for one process.
"""

import os
import pickle
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from crawler.inspection.log.query import Matcher, Query
from crawler.inspection.log.ranges import Stretch, shares
from crawler.inspection.log.rotated_log import RotatedLog
from crawler.inspection.log.totals import LogTotals

WORTH_FORKING: Final = 32 * 1024 * 1024  # bytes: a quarter of a second of work


class GatherFailed(Exception):
    """The process that read half of the log ended without a result."""


@dataclass(slots=True)
class Gathered:
    """A tally, and what could not be read."""

    tally: LogTotals
    problems: list[str] = field(default_factory=list)


def gather(
    parts: RotatedLog, stretches: Sequence[Stretch], query: Query, *, bin_s: int, name: str, processes: int
) -> Gathered:
    """Count the lines of a query in these stretches. `name` is the log's, for messages. Raises GatherFailed."""
    total = sum(stretch.size for stretch in stretches)
    runs = shares(stretches, processes) if processes > 1 and total > WORTH_FORKING else [list(stretches)]
    children = [_fork(run, query, bin_s) for run in runs[1:]]
    tally, matcher = _count(runs[0] if runs else [], query, bin_s)
    malformed, first = matcher.malformed, matcher.first_malformed
    problems: list[str] = []
    for child in children:
        found, count, sample, said = _result(child)
        tally.merge(found)
        first = first or sample
        malformed += count
        problems += said
    matcher.malformed, matcher.first_malformed = malformed, first
    return Gathered(tally, parts.problems() + problems + matcher.said(name))


def _count(stretches: Sequence[Stretch], query: Query, bin_s: int) -> tuple[LogTotals, Matcher]:
    tally, matcher = LogTotals(bin_s), Matcher(query)
    for stretch in stretches:
        for block in stretch.part.blocks(stretch.start, stretch.end):
            for _, line in matcher.find(block):
                tally.add(line)
    return tally, matcher


def _fork(stretches: Sequence[Stretch], query: Query, bin_s: int) -> tuple[int, int]:
    """Start a process that counts; returns its pid and the pipe its result comes through."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid:
        os.close(writing)
        return pid, reading
    status = 1
    try:
        os.close(reading)
        tally, matcher = _count(stretches, query, bin_s)
        problems = [f"{s.part.path}: {s.part.problem}" for s in stretches if s.part.problem]
        with os.fdopen(writing, "wb") as pipe:
            pickle.dump((tally, matcher.malformed, matcher.first_malformed, problems), pipe)
        status = 0
    finally:
        os._exit(status)  # nothing of the parent's is to run or be flushed here


def _result(child: tuple[int, int]) -> tuple[LogTotals, int, bytes, list[str]]:
    pid, reading = child
    with os.fdopen(reading, "rb") as pipe:
        data = pipe.read()
    _, status = os.waitpid(pid, 0)
    if status != 0 or not data:
        raise GatherFailed(
            f"the process that read half of the log ended with status {os.waitstatus_to_exitcode(status)}"
        )
    result: tuple[LogTotals, int, bytes, list[str]] = pickle.loads(data)  # noqa: S301 - from our own child
    return result
