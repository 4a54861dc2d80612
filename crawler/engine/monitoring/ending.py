"""The end of a crawl: which URLs are left, why, whether scheduler and store agree, and the summary.

Every report about the end (table, `--json`, messages, exit code) is made from one `Ending`.

Invariant: each URL that is left has one reason, and the reasons add up to what the store holds.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import assert_never

from crawler.core.enums import Exit, LeftReason, OutcomeLabel, StoppedBy
from crawler.core.formatting import timestamp
from crawler.core.models import Origin, Round, Suspects
from crawler.core.outcomes import UrlCounts
from crawler.engine.monitoring.bottleneck import LIMIT, NOT_YET, Backlog, Reason, add_up, reason
from crawler.engine.monitoring.counters import CrawlCounters, cpu_s, peak_rss_bytes
from crawler.engine.monitoring.status import PARKED
from crawler.engine.scheduling.host import Host
from crawler.fetch.pool_statistics import HostConnections, PoolStats
from crawler.frontier.base import Totals

_BY_OPERATOR = frozenset((LeftReason.BLOCKED, LeftReason.LIMIT))  # the operator asked for these


class Inconsistent(AssertionError):
    """Scheduler and store disagree, or queued URLs were not requested for no reason: a bug (exit 70)."""


@dataclass(frozen=True, slots=True)
class Ending:
    """How a crawl ended. `left`: the largest number first. `suspects`: each with the name of its host."""

    stopped_by: StoppedBy
    urls: UrlCounts
    left: tuple[Backlog, ...]
    suspects: tuple[tuple[str, Suspects], ...] = ()

    @property
    def left_by(self) -> dict[str, int]:
        """The number of URLs left for each reason (`LeftReason`)."""
        sums: dict[str, int] = {}
        for one in self.left:
            sums[one.reason.value] = sums.get(one.reason.value, 0) + one.urls
        return sums

    @property
    def exit_code(self) -> int:
        """75 where URLs are left, unless only limits and blocks of the operator keep them. A limit on the time keeps
        all of them.
        """
        match self.stopped_by:
            case StoppedBy.MAX_DURATION:
                return Exit.OK
            case StoppedBy.WAITING | StoppedBy.TRAPS:
                return Exit.WAITING
            case StoppedBy.SIGNAL | StoppedBy.OPERATOR | StoppedBy.DISK:
                return Exit.WAITING if self.left else Exit.OK
            case StoppedBy.EMPTY | StoppedBy.MAX_URLS:
                return Exit.WAITING if any(one.reason not in _BY_OPERATOR for one in self.left) else Exit.OK
            case _:
                assert_never(self.stopped_by)


def urls_left(
    hosts: Iterable[Host], parked: Mapping[str, tuple[int, int]], totals: Totals, now_mono: float
) -> dict[Reason | None, Backlog]:
    """Which URLs are queued, by what keeps them (None: nothing does): of the hosts in memory, of those that the store
    has parked (`Frontier.parked`), and of others.
    """
    sums: dict[Reason | None, Backlog] = {}
    for host in hosts:
        if host.queued:
            add_up(sums, host, host.queued, reason(host, now_mono))
    for name, (number, urls) in parked.items():
        why, _ = PARKED[name]
        known = sums.get(why, Backlog(*why, 0))
        sums[why] = Backlog(*why, known.urls + urls, known.hosts + number)
    others = totals.queued - sum(one.urls for one in sums.values())
    if others > 0 and totals.hosts_with_work > sum(one.hosts for one in sums.values()):
        known = sums.get(None, Backlog(*NOT_YET, 0))
        sums[None] = Backlog(*NOT_YET, known.urls + others)  # of hosts whose number is not known
    return sums


def ending(
    stopped_by: StoppedBy,
    totals: Totals,
    sums: Mapping[Reason | None, Backlog],
    suspects: Sequence[tuple[str, Suspects]],
    *,
    is_settled: bool,
) -> Ending:
    """Make the Ending from the totals of the store and from `urls_left`. Raises Inconsistent.

    `is_settled`: all visits are stored, so that the two must agree.
    """
    counts: Mapping[str, int] = {name: getattr(totals, name) for name in Totals.__slots__}
    try:
        counted = UrlCounts.of(counts)
    except ValueError as error:
        raise Inconsistent(str(error)) from None
    otherwise = LIMIT if stopped_by is StoppedBy.MAX_URLS else NOT_YET
    left = list(_with_reasons(sums, otherwise))
    queued = sum(one.urls for one in left)
    if is_settled and queued != totals.queued:
        raise Inconsistent(f"the store has {totals.queued} URLs queued, its hosts {queued}")
    if is_settled and stopped_by in (StoppedBy.EMPTY, StoppedBy.TRAPS):
        for one in left:
            if one.reason is LeftReason.NOT_YET:
                raise Inconsistent(f"the crawl ended with {one}, and nothing holds them back")
    if totals.waiting:
        left.append(Backlog(LeftReason.RETRY, "due later, after an error", totals.waiting))
    if totals.suspect:
        left.append(Backlog(LeftReason.TRAPS, "set aside in parts of a site that look endless", totals.suspect))
    left.sort(key=lambda one: -one.urls)
    return Ending(stopped_by, counted, tuple(left), tuple(suspects))


def _with_reasons(sums: Mapping[Reason | None, Backlog], otherwise: Reason) -> Iterator[Backlog]:
    """The sums, of which those without a reason get `otherwise`."""
    both = [sums[why] for why in (None, otherwise) if why in sums]
    if both:
        hosts = sum(one.hosts for one in both) if all(one.hosts for one in both) else 0
        urls = sum(one.urls for one in both)
        yield Backlog(*otherwise, urls, hosts, both[0].example)
    yield from (one for why, one in sums.items() if why not in (None, otherwise))


def summarise(
    counters: CrawlCounters,
    stats: PoolStats,
    hosts: int,
    output: Path,
    end: Ending,
    duration_s: float,
    *,
    most_opened: Sequence[tuple[Origin, HostConnections]] = (),
    unstored: int = 0,
    current_round: Round | None = None,
) -> dict[str, object]:
    """The summary of this run. Its names are those of `crawl --json`, which scripts rely on.

    `most_opened`: the hosts whose connection counts are included.
    """
    return {
        "responses": counters.responses,
        "pages": counters.pages,
        "bytes": counters.bytes,
        "errors": counters.errors,
        "page_responses": {str(word): number for word, number in sorted(counters.page_responses.items()) if number},
        "auxiliary": counters.auxiliary,
        "http_errors": counters.page_responses[OutcomeLabel.HTTP_ERROR],
        "gave_up": counters.gave_up.total(),
        "denied": counters.denied,
        "unstored": unstored,
        "urls": asdict(end.urls),
        "left_by": end.left_by,
        "suspects": [
            {"host": host, "template": one.template, "urls": one.urls, "examples": list(one.examples)}
            for host, one in end.suspects
        ],
        "links_found": counters.links_found,
        "links_new": counters.links_new,
        "hosts": hosts,
        "connections_opened": stats.opened,
        "requests_per_connection": stats.requests_per_connection,
        "connection_reuse_ratio": round(stats.reuse_ratio, 4),
        "connections_failed": stats.failed,
        "connections_closed": {reason.value: count for reason, count in sorted(stats.closed.items())},
        "connections_by_host": [_connections_of(origin, host) for origin, host in most_opened],
        "tls_handshakes": stats.tls_handshakes,
        "tls_resumed": stats.tls_resumed,
        "duration_s": round(duration_s, 3),
        "pages_per_s": round(counters.pages / duration_s, 1) if duration_s > 0 else 0.0,
        "cpu_s": round(cpu_s(), 3),
        "max_rss_bytes": peak_rss_bytes(),
        "output": str(output),
        "stopped_by": end.stopped_by.value,
        "round": None if current_round is None else _round_summary(current_round),
    }


def round_fields(current: Round | None) -> dict[str, object]:
    """The fields of `stop` for a round: its number, whether it is over, and what its visits found in all its runs."""
    if current is None:
        return {}
    return {"round": current.number, "round_ended": not current.is_under_way} | asdict(current.counts)


def _round_summary(current: Round) -> dict[str, object]:
    return {
        "number": current.number,
        "started_at": timestamp(current.started_at),
        "ended": not current.is_under_way,
    } | asdict(current.counts)


def _connections_of(origin: Origin, host: HostConnections) -> dict[str, object]:
    return {
        "host": str(origin),
        "connections": host.opened,
        "requests": host.requests,
        "reuse_ratio": round(host.reuse_ratio, 4),
        "tls_handshakes": host.tls_handshakes,
        "tls_resumed": host.tls_resumed,
    }
