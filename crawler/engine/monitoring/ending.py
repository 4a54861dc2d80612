"""The end of a crawl: what is left, why, and whether the scheduler and the store agree about it.

Everything that says how a crawl ended, its table, `--json`, messages and exit code, is derived from one `Ending`.

Invariant: each URL that is left has one reason, and the reasons add up to what the store holds.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import assert_never

from crawler.core.enums import Exit, LeftReason, StoppedBy
from crawler.core.models import Suspects
from crawler.core.outcomes import UrlCounts
from crawler.engine.monitoring.backlog import LIMIT, Backlog, by_reason, reason
from crawler.engine.scheduling.host import Host
from crawler.frontier.base import Totals

_BY_OPERATOR = frozenset((LeftReason.BLOCKED, LeftReason.LIMIT))  # as the operator wants it


class Inconsistent(AssertionError):
    """Scheduler and store disagree, or URLs are queued that nothing keeps: a bug (exit 70)."""


@dataclass(frozen=True, slots=True)
class Ending:
    """How a crawl ended. `suspects` come with the name of their host; `left` has the largest number first."""

    stopped_by: StoppedBy
    urls: UrlCounts
    left: tuple[Backlog, ...]
    suspects: tuple[tuple[str, Suspects], ...] = ()

    @property
    def left_by(self) -> dict[str, int]:
        """How many URLs are left for each reason (`LeftReason`)."""
        sums: dict[str, int] = {}
        for one in self.left:
            sums[one.reason.value] = sums.get(one.reason.value, 0) + one.urls
        return sums

    @property
    def exit_code(self) -> int:
        """75 where URLs are left, unless it is a limit or a block of the operator's that leaves them."""
        match self.stopped_by:
            case StoppedBy.MAX_URLS | StoppedBy.MAX_DURATION:
                return Exit.OK
            case StoppedBy.WAITING | StoppedBy.TRAPS:
                return Exit.WAITING
            case StoppedBy.SIGNAL | StoppedBy.OPERATOR | StoppedBy.DISK:
                return Exit.WAITING if self.left else Exit.OK
            case StoppedBy.EMPTY:
                return Exit.WAITING if any(one.reason not in _BY_OPERATOR for one in self.left) else Exit.OK
            case _:
                assert_never(self.stopped_by)


def ending(
    stopped_by: StoppedBy,
    totals: Totals,
    hosts: Iterable[Host],
    suspects: Sequence[tuple[str, Suspects]],
    now_mono: float,
    *,
    is_settled: bool,
) -> Ending:
    """What the store and the scheduler say together. `is_settled`: everything that was fetched is stored, so that the
    two must agree. Raises Inconsistent.
    """
    counts: Mapping[str, int] = {name: getattr(totals, name) for name in Totals.__slots__}
    hosts = list(hosts)
    try:
        counted = UrlCounts.of(counts)
    except ValueError as error:
        raise Inconsistent(str(error)) from None
    for host in hosts:
        if host.queued < 0:
            raise Inconsistent(f"{host.origin}: {host.queued} URLs queued")
    otherwise = LIMIT if stopped_by is StoppedBy.MAX_URLS else (LeftReason.NOT_YET, "whose turn had not come")
    left = by_reason((host, host.queued, reason(host, now_mono) or otherwise) for host in hosts if host.queued)
    queued = sum(one.urls for one in left)
    if is_settled and queued != totals.queued:
        raise Inconsistent(f"the store has {totals.queued} URLs queued, the scheduler {queued}")
    if is_settled and stopped_by in (StoppedBy.EMPTY, StoppedBy.TRAPS):
        for one in left:
            if one.reason is LeftReason.NOT_YET:
                raise Inconsistent(f"the crawl ended with {one}, and nothing keeps them")
    if totals.waiting:
        left.append(Backlog(LeftReason.RETRY, "to be tried again later, after an error", totals.waiting))
    if totals.suspect:
        left.append(Backlog(LeftReason.TRAPS, "in parts of a site that look endless", totals.suspect))
    left.sort(key=lambda one: -one.urls)
    return Ending(stopped_by, counted, tuple(left), tuple(suspects))
