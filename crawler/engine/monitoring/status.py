"""How the running crawl stands, whole: what `status`, `top`, the status page and the metrics show.

Everything is read from counters that others keep, and nothing is changed or waited for. Invariant: a Status is a value
of its own: it shares nothing with the engine, and JSON can hold it as it is.
"""

import heapq
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from crawler.core.clock import Clock
from crawler.core.enums import HostState
from crawler.core.formatting import count, date_time, duration, local_time, rate, share, size
from crawler.core.models import Origin
from crawler.core.outage import PROBE_S
from crawler.engine.committer import Committer
from crawler.engine.crawl import Crawl
from crawler.engine.monitoring.counters import CrawlCounters
from crawler.engine.monitoring.rates import RateMeter, Rates
from crawler.engine.monitoring.summary import peak_rss_bytes, rss_bytes
from crawler.engine.pages.worker import Worker
from crawler.engine.scheduling.backlog import kept, told, unreadable
from crawler.engine.scheduling.host import Host
from crawler.engine.scheduling.host_table import HostTable
from crawler.engine.scheduling.ready_queue import NEVER
from crawler.engine.scheduling.scheduler import Scheduler
from crawler.fetch.connection import Exchange
from crawler.fetch.pool_statistics import PoolStats
from crawler.frontier.base import Totals

CPU_BOUND_PERCENT: Final = 85.0
_HOSTS_AT_LEAST_S: Final = 1.0  # counting hosts by state looks at each: not more often than this
_HOSTS_COST: Final = 50.0  # nor so often that it takes more than a fiftieth of the time


@dataclass(frozen=True, slots=True)
class InFlight:
    """A URL that a worker has. `stage` is connect, first_byte, body, read or store; `requests` counts those of the
    connection, this one included.
    """

    url: str
    kind: str
    attempt: int
    stage: str
    age_s: float
    conn_id: int | None = None
    requests: int | None = None
    received_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class Bounded:
    """A structure that must not grow beyond its limit. `unit` is bytes or entries; a limit of None: bounded by what is
    known of the web only.
    """

    name: str
    unit: str
    held: int
    limit: int | None


@dataclass(frozen=True, slots=True)
class Connections:
    """Counts since the start, and how things stand now."""

    open: int
    idle: int
    opening: int
    waiting: int
    opened: int
    failed: int
    requests: int
    requests_per_connection: float
    tls_handshakes: int
    tls_resumed: int
    closed: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Counts:
    """Of this run."""

    responses: int
    pages: int
    bytes: int
    errors: int
    denied: int
    links_found: int
    links_new: int
    answers: Mapping[str, int]
    auxiliary: int
    gave_up: int
    outcomes: Mapping[str, int]
    error_types: Mapping[str, int]
    deny_reasons: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Status:
    """`state` is crawling, idle, lingering, off_hours, outage, paused or draining; `bottleneck` one of
    obs.events.BOTTLENECKS, and `sentence` says the same to a person. `urls` counts the store's URLs by state, `hosts`
    the hosts. Times: `at` UTC epoch seconds, durations in seconds.
    """

    at: float
    elapsed_s: float
    state: str
    bottleneck: str
    sentence: str
    rates: Rates
    counts: Counts
    urls: Mapping[str, int]
    hosts: Mapping[str, int]
    connections: Connections
    in_flight: Sequence[InFlight]
    memory: Sequence[Bounded]
    rss_bytes: int
    max_rss_bytes: int
    uncommitted: int
    oldest_ready_s: float
    warnings: Sequence[Mapping[str, object]]
    log_dropped: int


class StatusView:
    """`totals` are the store's counts as last seen, `disk_reason` why nothing can be written ("" if it can), `bounded`
    the structures to be watched, `warnings` the last ones logged, `log_dropped` the lines lost.
    """

    def __init__(
        self,
        *,
        crawl: Crawl,
        scheduler: Scheduler,
        committer: Committer,
        workers: Sequence[Worker],
        tally: CrawlCounters,
        pool_stats: Callable[[], PoolStats],
        exchanges: Callable[[], dict[Origin, list[Exchange]]],
        pace: RateMeter,
        clock: Clock,
        totals: Callable[[], Totals],
        disk_reason: Callable[[], str],
        bounded: Callable[[], Sequence[Bounded]],
        warnings: Callable[[], Sequence[Mapping[str, object]]],
        log_dropped: Callable[[], int],
    ) -> None:
        self._crawl = crawl
        self._scheduler = scheduler
        self._committer = committer
        self._workers = workers
        self._tally = tally
        self._pool_stats = pool_stats
        self._exchanges = exchanges
        self._pace = pace
        self._clock = clock
        self._totals = totals
        self._disk_reason = disk_reason
        self._bounded = bounded
        self._warnings = warnings
        self._log_dropped = log_dropped
        self._started_mono = clock.mono()
        self._hosts: dict[str, int] = {}
        self._hosts_again_mono = 0.0

    def status(self) -> Status:
        """How things stand now."""
        tally, totals, now = self._tally, self._totals(), self._clock.mono()
        rates = self._pace.rates()
        in_flight = self._in_flight(now)
        bottleneck, sentence = self._bottleneck(rates, in_flight, now)
        return Status(
            at=round(self._clock.now(), 3),
            elapsed_s=round(now - self._started_mono, 3),
            state="idle" if bottleneck == "empty" and self._state() == "crawling" else self._state(),
            bottleneck=bottleneck,
            sentence=sentence,
            rates=rates,
            counts=Counts(
                tally.responses, tally.pages, tally.bytes, tally.errors, tally.denied, tally.links_found,
                tally.links_new, _plain(tally.answers), tally.auxiliary, tally.gave_up.total(), _plain(tally.outcomes),
                _plain(tally.error_types), _plain(tally.deny_reasons),
            ),
            urls={
                "queued": sum(host.queued for host in self._books.hosts.values()), "waiting": totals.waiting,
                "done": totals.done, "denied": totals.denied, "gave_up": totals.gave_up, "suspect": totals.suspect,
            },
            hosts=self.hosts_by_state(),
            connections=connections_of(self._pool_stats()),
            in_flight=in_flight,
            memory=self._bounded(),
            rss_bytes=rss_bytes(),
            max_rss_bytes=peak_rss_bytes(),
            uncommitted=self._committer.uncommitted,
            oldest_ready_s=round(self._scheduler.oldest_ready_s(), 3),
            warnings=self._warnings(),
            log_dropped=self._log_dropped(),
        )  # fmt: skip

    def line(self) -> str:
        """The status in one line, for a service manager."""
        now = self.status()
        state = "" if now.sentence.startswith(now.state) else f"{now.state}: "
        return (
            f"{state}{now.sentence}; {count(now.counts.pages, 'page')}, {rate(now.rates.pages_per_s)}, "
            f"{count(now.urls['queued'])} queued, {count(now.hosts['total'], 'host')}, "
            f"{count(now.counts.errors, 'error')}"
        )

    @property
    def state(self) -> str:
        return self._state()

    def _state(self) -> str:
        closed = self._scheduler.valve.closed_until_at is not None
        return "off_hours" if closed and self._crawl.state in ("crawling", "lingering") else self._crawl.state

    @property
    def _books(self) -> HostTable:
        return self._scheduler.books

    def hosts_by_state(self) -> dict[str, int]:
        """Hosts by the words of HostState, those with queued URLs as `with_work`, and all of them as `total`."""
        began = self._clock.mono()
        if began >= self._hosts_again_mono:
            now = began
            counts = Counter({str(state): 0 for state in HostState})
            counts.update(state_of(host, now) for host in self._books.hosts.values())
            counts["total"] = len(self._books.hosts)
            counts["with_work"] = sum(1 for host in self._books.hosts.values() if host.has_work)
            self._hosts = _plain(counts)
            took_s = self._clock.mono() - began
            self._hosts_again_mono = began + max(_HOSTS_AT_LEAST_S, _HOSTS_COST * took_s)
        return self._hosts

    def busiest_hosts(self, limit: int) -> list[dict[str, object]]:
        """The hosts with the most to do, those being asked first."""
        now, now_at = self._clock.mono(), self._clock.now()
        hosts = heapq.nlargest(limit, self._books.hosts.values(), key=lambda host: (host.leases, host.queued))
        found: list[dict[str, object]] = []
        for host in hosts:
            turns = [turn for turn in (host.turn, host.key.turn) if turn.strikes and turn.open_mono > now]
            open_mono = max((turn.open_mono for turn in turns), default=None)
            found.append(
                {
                    "host": str(host.origin), "state": str(state_of(host, now)), "queued": host.queued,
                    "fetched": host.fetched, "in_flight": host.leases, "delay_s": host.key.delay_s,
                    "until_at": None if open_mono is None else round(now_at + open_mono - now, 1),
                    "why": self._why(host, [str(turn.reason) for turn in turns if turn.open_mono == open_mono]),
                }
            )  # fmt: skip
        return found

    def _why(self, host: Host, rests: Sequence[str]) -> str:
        """Why a host is not asked, `rests` being for what it rests; "" if it is."""
        if (block := self._books.blocks.covers(host.origin.host)) is not None:
            return block.reason or "by command"
        return unreadable(host) if host.is_held else next(iter(rests), "")

    def _in_flight(self, now: float) -> list[InFlight]:
        """The oldest first. A worker's request is told from the others of its origin by the order in which they were
        sent: pairs may be crossed, the stages and the numbers of them are right.
        """
        exchanges = self._exchanges()
        found = []
        for worker in sorted(self._workers, key=lambda one: one.since_mono):
            task = worker.task
            if task is None:
                continue
            stage, exchange = worker.stage, None
            if stage == "fetch":
                of_origin = exchanges.get(worker.origin) if worker.origin is not None else None
                exchange = of_origin.pop(0) if of_origin else None
                stage = "connect" if exchange is None else "body" if exchange.received_bytes else "first_byte"
            age_s = round(max(0.0, now - worker.since_mono), 3)
            if exchange is None:
                found.append(InFlight(task.url, task.kind, task.attempt, stage, age_s))
            else:
                of_connection = exchange.conn_id, exchange.request_n, exchange.received_bytes
                found.append(InFlight(task.url, task.kind, task.attempt, stage, age_s, *of_connection))
        return found

    def _bottleneck(self, rates: Rates, in_flight: Sequence[InFlight], now: float) -> tuple[str, str]:
        """What a faster crawl would have to wait less for: the word, and a sentence."""
        if (reason := self._disk_reason()) or self._committer.uncommitted > 512:
            unstored = count(self._committer.uncommitted, "visit")
            return "disk", f"paused: {reason}" if reason else f"the disk: {unstored} unstored"
        if self._crawl.is_held:
            return "operator", "paused by its operator; `crawler resume` goes on"
        if self._crawl.is_draining:
            return "network", f"draining: {len(in_flight)} in flight"
        if (until_at := self._scheduler.valve.closed_until_at) is not None:
            return "hours", f"outside fetch.hours, which open at {local_time(until_at)}"
        if self._books.outage.is_on:
            return "outage", self._outage_words(now)
        if rates.cpu_percent > CPU_BOUND_PERCENT:
            return "cpu", f"the processor: {share(rates.cpu_percent / 100)} of one core is in use"
        if self._scheduler.valve.is_throttled:
            return "bandwidth", f"fetch.bandwidth: {size(rates.bytes_per_s)}/s come, and no more may"
        asked = [one for one in in_flight if one.stage in ("connect", "first_byte", "body")]
        if len(asked) > 1:
            slowest = asked[0]
            return (
                "network",
                f"the network: {count(len(asked), 'request')} wait for answers, "
                f"the oldest for {duration(slowest.age_s)}",
            )
        wait_s = self._scheduler.next_turn_s()
        if wait_s == NEVER and not in_flight:
            return "empty", self._empty_words()
        with_work = self.hosts_by_state().get("with_work", 0)
        hosts = count(with_work, "host")
        if wait_s == NEVER or wait_s <= 0:
            return "politeness", f"politeness: {hosts} with work, limited by politeness.delay"
        found = kept(self._books.hosts.values(), now)
        next_turn = f"the next may be asked in {duration(wait_s)}"
        blocked = sum(one.urls for one in found if one.by_operator)
        if 2 * blocked > sum(one.urls for one in found):
            return "operator", f"{'; '.join(told(found))}; {next_turn}"
        why = "; ".join(told([one for one in found if not one.by_operator]))
        return "politeness", f"politeness: {hosts} with work, all resting; {next_turn}{f': {why}' if why else ''}"

    def _outage_words(self, now: float) -> str:
        outage = self._books.outage
        since = date_time(self._clock.now() - (now - (outage.since_mono or now)))
        why = f" ({outage.last_error})" if outage.last_error else ""
        hosts = count(len(outage.failing), "host")
        return (
            f"outage since {since} UTC: {hosts} that answered before fail{why} and none answers; one request leaves "
            f"every {duration(PROBE_S)} until one does"
        )

    def _empty_words(self) -> str:
        due, now_at = self._scheduler.next_due_at, self._clock.now()
        reasons = told(kept(self._books.hosts.values(), self._clock.mono()))
        waiting = self._totals().waiting
        if due is not None:
            reasons.append(f"{count(waiting)} due later, the first in {duration(due - now_at)}")
        if suspects := self._totals().suspect:
            reasons.append(f"{count(suspects, 'suspect')} left in parts that look endless (`crawler hosts` has them)")
        if (again_s := self._scheduler.revisit_s()) != NEVER:
            reasons.append(f"the next revisit in {duration(again_s)}")
        return "nothing to do: " + ("; ".join(reasons) or "no URL is queued")


def state_of(host: Host, now_mono: float) -> HostState:
    """Whether a host may be asked."""
    if host.is_blocked:
        return HostState.BLOCKED
    if host.is_held:
        return HostState.HELD
    if (
        max(
            host.turn.open_mono if host.turn.strikes else 0.0, host.key.turn.open_mono if host.key.turn.strikes else 0.0
        )
        > now_mono
    ):
        return HostState.BACKOFF
    return HostState.NEW if host.robots is None and not host.ever_answered else HostState.READY


def connections_of(stats: PoolStats) -> Connections:
    return Connections(
        stats.open, stats.idle, stats.opening, stats.waiting, stats.opened, stats.failed, stats.requests,
        round(stats.requests / stats.opened, 1) if stats.opened else 0.0, stats.tls_handshakes, stats.tls_resumed,
        _plain(stats.closed),
    )  # fmt: skip


def _plain(counts: Mapping[Any, int]) -> dict[str, int]:
    """A copy with words for keys, not members of an enumeration: JSON knows no such keys."""
    return {str(word): count for word, count in counts.items()}
