"""The status of a running crawl, as one value from which every view is made.

The terminal view, `progress` events, `status`, `top`, the status page and the metrics all show a `Status`. It is made
from counters of other parts, without a wait.

Invariant: a Status shares nothing with the engine, and can be written as JSON.
"""

import asyncio
import heapq
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from typing import Any, Final

from crawler.core.clock import Clock
from crawler.core.enums import Bottleneck, CrawlState, HostState, LeftReason
from crawler.core.formatting import count, date_time, rate, timestamp
from crawler.core.models import Origin
from crawler.engine.committer import Committer
from crawler.engine.crawl import Crawl
from crawler.engine.fleet import FleetFigures
from crawler.engine.monitoring.bottleneck import (
    BLOCKED,
    LIMIT,
    Backlog,
    Conditions,
    Reason,
    assess,
    backlog_of,
    joined,
    reason,
)
from crawler.engine.monitoring.counters import CrawlCounters, LatencyMeters, RateMeter, Rates, peak_rss_bytes, rss_bytes
from crawler.engine.pages.worker import Worker
from crawler.engine.rounds import Schedule
from crawler.engine.scheduling.host import Host, PolitenessKey
from crawler.engine.scheduling.scheduler import Scheduler
from crawler.fetch.connection import Exchange
from crawler.fetch.pool_statistics import PoolStats
from crawler.frontier.base import Frontier, FrontierFull, HostSearch, Totals

_HOSTS_COST: Final = 50.0  # counting all hosts takes at most a fiftieth of the time
_HOSTS_AT_ONCE: Final = 2_000  # of a search in memory: two milliseconds
_BLOCKS_AT_MOST: Final = 200  # whose hosts a search looks up by name
SEARCHED_AT_MOST: Final = 1_000_000  # hosts of the store that a search looks through: half a second
BROKEN: Final = (HostState.HELD, HostState.BACKOFF, HostState.BLOCKED)
_SEVERITY: Final = {state: place for place, state in enumerate(BROKEN)}
HOST_SORTS: Final[Mapping[str, Callable[[Host, HostState], tuple[Any, ...]]]] = {
    "broken": lambda host, state: (_SEVERITY.get(state, len(BROKEN)), -host.queued, host.id),
    "busy": lambda host, state: (-host.leases, -host.queued, host.id),
    "queued": lambda host, state: (-host.queued, host.id),
    "fetched": lambda host, state: (-host.fetched, host.id),
    "host": lambda host, state: (host.origin.host, host.id),
}
_CONNECTIONS: Final = (
    "open", "idle", "opening", "waiting", "opened", "failed", "requests", "requests_per_connection", "tls_handshakes",
    "tls_resumed",
)  # fmt: skip


# Hosts that the store has parked (`HostReadiness.parked`): what their URLs wait for, and their state.
PARKED: Final[Mapping[str, tuple[Reason, HostState]]] = {
    "blocked": (BLOCKED, HostState.BLOCKED),
    "limit": (LIMIT, HostState.READY),
    "backoff": ((LeftReason.BACKOFF, "backing off after errors"), HostState.BACKOFF),
    "robots": ((LeftReason.ROBOTS, "whose robots.txt cannot be read"), HostState.HELD),
    "traps": ((LeftReason.TRAPS, "in parts of a site that look endless"), HostState.READY),
}


@dataclass(frozen=True, slots=True)
class InFlight:
    """A URL that a worker visits. `stage` is connect, first_byte, body, read or store. `requests` is the number of
    requests over the connection, including this one.
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
    """A structure in memory, and its limit in `unit` (bytes or entries); None: it grows with the number of hosts."""

    name: str
    unit: str
    held: int
    limit: int | None


@dataclass(frozen=True, slots=True)
class Counts:
    """Counts of this run (`CrawlCounters`)."""

    responses: int
    pages: int
    html: int
    bytes: int
    errors: int
    denied: int
    links_found: int
    links_new: int
    page_responses: Mapping[str, int]
    auxiliary: int
    gave_up: int
    outcomes: Mapping[str, int]
    error_types: Mapping[str, int]
    deny_reasons: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Status:
    """The status of a crawl. `sentence` says for people what limits it. `urls` counts the store's URLs by state,
    `hosts` the hosts. `held_back` counts queued URLs that a limit or a block holds back. `eta_s` estimates the time
    until all other queued URLs are requested, if no more are found; None if unknown, or if there are none. `opens_at`
    is the time at which fetch.hours open, None while they are open. Times `*_at` and `at` are UTC epoch seconds.
    """

    at: float
    elapsed_s: float
    state: CrawlState
    bottleneck: Bottleneck
    sentence: str
    opens_at: float | None
    rates: Rates
    counts: Counts
    urls: Mapping[str, int]
    held_back: int
    eta_s: float | None
    hosts: Mapping[str, int]
    connections: PoolStats
    in_flight: Sequence[InFlight]
    rss_bytes: int
    max_rss_bytes: int
    uncommitted: int
    oldest_ready_s: float
    last_url: str
    scheduled_at: float | None = None  # when the schedule visits next
    held_back_by: Mapping[str, int] = field(default_factory=dict)  # parts of `held_back`: blocked, limit
    fleet: FleetFigures | None = None  # None: the store is this crawl's alone

    def as_json(self) -> dict[str, Any]:
        """The status with the names of `crawler status --json`."""
        stats = self.connections
        connections = {name: getattr(stats, name) for name in _CONNECTIONS} | {"closed": _plain(stats.closed)}
        return asdict(self) | {"connections": connections}

    def as_progress(self) -> dict[str, object]:
        """The fields of a `progress` event."""
        rates, counts = self.rates, self.counts
        return {
            "responses_per_s": rates.responses_per_s,
            "pages_per_s": rates.pages_per_s,
            "bytes_per_s": rates.bytes_per_s,
            "queued": self.urls["queued"],
            "waiting": self.urls["waiting"],
            "hosts": self.hosts["total"],
            "responses": counts.responses,
            "pages": counts.pages,
            "bytes": counts.bytes,
            "errors": counts.errors,
            "denied": counts.denied,
            "in_flight": len(self.in_flight),
            "connections": self.connections.open,
            "cpu_percent": round(rates.cpu_percent),
            "max_rss_bytes": self.max_rss_bytes,
            "bottleneck": self.bottleneck,
            **({} if self.opens_at is None else {"open_at": timestamp(self.opens_at)}),
        }

    def as_line(self) -> str:
        """One line, for a service manager."""
        state = "" if self.sentence.startswith(self.state) else f"{self.state}: "
        return (
            f"{state}{self.sentence}; {count(self.counts.pages, 'page')}, {rate(self.rates.pages_per_s)}, "
            f"{count(self.urls['queued'])} queued, {count(self.hosts['total'], 'host')}, "
            f"{count(self.counts.errors, 'error')}"
        )


@dataclass(frozen=True, slots=True)
class _HostFigures:
    """Figures from counting all hosts."""

    by_state: dict[str, int]  # keys are values of HostState, `total` and `with_work`
    totals: Totals
    held_back: Mapping[LeftReason, int]  # by a limit, or a block
    delayed: int  # with work, a delay and no back-off
    adaptive: Sequence[float]  # the delays of those of them that respond slowly
    crawl_delays: Sequence[float]  # the delays of those of them that have a longer one by Crawl-delay
    held: int  # queued URLs whose robots.txt cannot be read
    slowest_s: float  # until the last queue of a politeness key is empty, by back-off and delay
    backlog: list[Backlog]
    next_mono: float  # when one with work may be requested


class Monitor:
    """Makes the status of a crawl. `sample` is to be called every SAMPLE_S."""

    def __init__(
        self,
        *,
        crawl: Crawl,
        scheduler: Scheduler,
        committer: Committer,
        workers: Sequence[Worker],
        counters: CrawlCounters,
        meters: LatencyMeters,
        pool_stats: Callable[[], PoolStats],
        exchanges: Callable[[], dict[Origin, list[Exchange]]],
        frontier: Frontier,
        clock: Clock,
        schedule: Schedule,
        fleet: Callable[[], FleetFigures] | None = None,
    ) -> None:
        self._crawl = crawl
        self._fleet = fleet
        self._schedule = schedule
        self._scheduler = scheduler
        self._host_table = scheduler.host_table
        self._committer = committer
        self._workers = workers
        self._counters = counters
        self._pool_stats = pool_stats
        self._exchanges = exchanges
        self._frontier = frontier
        self._clock = clock
        self._rates = RateMeter(counters, meters, clock)
        self._started_mono = clock.mono()
        self._parked: dict[
            str, tuple[int, int]
        ] = {}  # hosts in the store that may not be requested now, and their URLs
        self._parked_again_mono = 0.0
        self._hosts: _HostFigures | None = None
        self._hosts_again_mono = 0.0
        self.history = self._rates.history

    async def sample(self) -> float:
        """Read the store's counts, and sample the rates. Return the seconds by which the call is late."""
        mono = self._clock.mono()
        if mono >= self._parked_again_mono:
            with suppress(FrontierFull):  # a database that is away: the counts stay as they were
                self._parked = await self._frontier.parked()
            self._parked_again_mono = mono + _HOSTS_COST * (self._clock.mono() - mono)
        return self._rates.sample(self._pool_stats(), self._frontier.totals().queued)

    def status(self) -> Status:
        """The status now."""
        counters, now = self._counters, self._clock.mono()
        hosts, rates, in_flight = self._host_figures(now), self._rates.rates(), self._in_flight(now)
        totals = hosts.totals
        conditions = self._conditions(hosts, rates, in_flight, now)
        state, bottleneck, sentence = assess(conditions)
        return Status(
            at=round(self._clock.now(), 3),
            elapsed_s=round(now - self._started_mono, 3),
            state=state,
            bottleneck=bottleneck,
            sentence=sentence,
            opens_at=conditions.opens_at,
            rates=rates,
            counts=Counts(
                counters.responses, counters.pages, counters.html, counters.bytes, counters.errors, counters.denied,
                counters.links_found, counters.links_new, _plain(counters.page_responses), counters.auxiliary,
                counters.gave_up.total(), _plain(counters.outcomes), _plain(counters.error_types),
                _plain(counters.deny_reasons),
            ),
            urls={
                "queued": totals.queued, "waiting": totals.waiting, "done": totals.done, "denied": totals.denied,
                "gave_up": totals.gave_up, "suspect": totals.suspect,
            },
            held_back=sum(hosts.held_back.values()),
            eta_s=self._eta_s(hosts, rates),
            hosts=hosts.by_state,
            connections=self._pool_stats(),
            in_flight=in_flight,
            rss_bytes=rss_bytes(),
            max_rss_bytes=peak_rss_bytes(),
            uncommitted=conditions.uncommitted,
            oldest_ready_s=round(self._scheduler.oldest_ready_s(), 3),
            last_url=counters.last_url,
            scheduled_at=self._schedule.next_at,
            held_back_by=_plain(hosts.held_back),
            fleet=None if self._fleet is None else self._fleet(),
        )  # fmt: skip

    def _conditions(self, hosts: _HostFigures, rates: Rates, in_flight: Sequence[InFlight], now: float) -> Conditions:
        crawl, scheduler, now_at = self._crawl, self._scheduler, self._clock.now()
        ages_s = [one.age_s for one in in_flight if one.stage in ("connect", "first_byte", "body")]
        due_at = scheduler.due_urls.next_at
        keys_at_addresses, addresses = scheduler.keys_at_addresses
        return Conditions(
            is_draining=crawl.is_draining,
            is_held=crawl.is_held,
            is_lingering=crawl.is_lingering,
            is_quiet=crawl.is_quiet,
            is_limited_by_bandwidth=scheduler.crawl_rate_limiter.is_limited_by_bandwidth,
            disk_reason=crawl.why_not_stored,
            outage=self._outage(now),
            opens_at=scheduler.crawl_rate_limiter.closed_until_at,
            cpu_percent=rates.cpu_percent,
            bytes_per_s=rates.bytes_per_s,
            uncommitted=self._committer.uncommitted,
            in_flight=len(in_flight),
            workers=scheduler.workers + scheduler.contacts.in_flight,
            requests=len(ages_s),
            oldest_s=max(ages_s, default=0.0),
            lookups=scheduler.contacts.lookups,
            contacts=scheduler.contacts.waiting,
            hosts_with_work=hosts.by_state["with_work"],
            hosts_delayed=hosts.delayed,
            hosts_adaptive=len(hosts.adaptive),
            adaptive_s=max(hosts.adaptive, default=0.0),
            hosts_crawl_delay=len(hosts.crawl_delays),
            crawl_delay_s=max(hosts.crawl_delays, default=0.0),
            keys_at_addresses=keys_at_addresses,
            addresses=addresses,
            places=scheduler.workbench.places_missing,
            next_s=max(0.0, hosts.next_mono - now),
            backlog=hosts.backlog,
            waiting=hosts.totals.waiting,
            waiting_s=None if due_at is None else due_at - now_at,
            suspects=hosts.totals.suspect,
            revisit_s=scheduler.revisits.due_s(),
        )

    def _outage(self, now: float) -> str:
        """When the outage began, and how many hosts fail; "" without an outage."""
        outage = self._host_table.outage
        if outage.since_mono is None:
            return ""
        since = date_time(self._clock.now() - (now - outage.since_mono))
        why = f" ({outage.last_error})" if outage.last_error else ""
        hosts = count(len(outage.failing), "host")
        return f"since {since}: {hosts} that responded before fail{why} and none responds"

    def _host_figures(self, now: float) -> _HostFigures:
        """Count the hosts, or return the last figures: they may be as old as 50 times the time that counting takes."""
        if self._hosts is None or now >= self._hosts_again_mono:
            hosts = self._host_table.hosts.values()
            by_state = dict.fromkeys(map(str, HostState), 0)
            delayed = held = without_work = 0
            held_back = {LeftReason.BLOCKED: 0, LeftReason.LIMIT: 0}
            done_s: dict[PolitenessKey, float] = {}
            adaptive, crawl_delays = [], []
            for host in hosts:
                state = state_of(host, now)
                by_state[state] += 1
                if host.limit_reached or host.is_blocked:
                    held_back[LeftReason.BLOCKED if host.is_blocked else LeftReason.LIMIT] += host.backlog
                    without_work += host.queued > 0
                elif host.has_work:
                    if state is HostState.HELD:
                        held += host.backlog
                    else:
                        backoff_s = max(0.0, host.key.politeness.open_mono - now, host.politeness.open_mono - now)
                        done_s[host.key] = max(done_s.get(host.key, 0.0), backoff_s) + host.backlog * host.key.delay_s
                    if host.key.delay_s > 0 and state in (HostState.NEW, HostState.READY):
                        delayed += 1
                        if host.key.adaptive_s > host.key.delay_s:
                            adaptive.append(host.key.adaptive_s)
                        elif host.key.delay_s > self._host_table.configured_delay_s(host):
                            crawl_delays.append(host.key.delay_s)
            backlog = backlog_of(hosts, now)
            for parked, (number, urls) in self._parked.items():
                why, state = PARKED[parked]
                by_state[state] += number
                if why[0] in held_back:
                    held_back[why[0]] += urls
                    without_work += number
                elif why[0] is LeftReason.ROBOTS:
                    held += urls
                backlog.append(Backlog(*why, urls, number))
            totals = self._frontier.totals()
            by_state[HostState.READY] += max(0, totals.hosts - sum(by_state.values()))  # those in the store
            by_state |= {
                "total": sum(by_state.values()), "with_work": max(0, totals.hosts_with_work - without_work)
            }  # fmt: skip
            next_mono = now + self._scheduler.next_request_s()
            slowest_s = max(done_s.values(), default=0.0)
            self._hosts = _HostFigures(
                by_state,
                totals,
                held_back,
                delayed,
                adaptive,
                crawl_delays,
                held,
                slowest_s,
                joined(backlog),
                next_mono,
            )
            self._hosts_again_mono = now + _HOSTS_COST * (self._clock.mono() - now)
        return self._hosts

    def _eta_s(self, hosts: _HostFigures, rates: Rates) -> float | None:
        """Seconds until all that may be requested is: by the present rate, or by the last host's back-off and delay."""
        due = hosts.totals.queued - sum(hosts.held_back.values()) - hosts.held
        by_rate_s = due / rates.responses_per_s if due > 0 and rates.responses_per_s > 0 else 0.0
        return round(max(by_rate_s, hosts.slowest_s), 1) or None

    async def find_hosts(self, *, text: str, state: str, sort: str, limit: int) -> dict[str, object]:
        """The first `limit` hosts in order of `sort` whose name has `text` in it, or whose origin has a `text` with a
        colon, and that are in `state` ("" for any, "broken" for BROKEN), how many match, and how many were `searched`:
        those in memory, and SEARCHED_AT_MOST of those in the store. Other tasks run meanwhile.
        """
        key, text = HOST_SORTS[sort], text.lower()
        wanted = BROKEN if state == "broken" else (state,) if state else tuple(HostState)
        table, first, matching = self._host_table, _First(key, limit), 0

        def is_named(host: Host) -> bool:
            return text in host.origin.host or (":" in text and text in str(host.origin))

        looked_at = dict(table.hosts)
        if HostState.BLOCKED in wanted:  # a host in the store is parked as blocked when it would have been requested
            for block in table.blocklist.all()[:_BLOCKS_AT_MOST]:
                for row in await self._frontier.hosts_named(block.name):
                    looked_at.setdefault(row.id, table.outline(row))
        hosts = list(looked_at.values())
        for start in range(0, len(hosts), _HOSTS_AT_ONCE):
            now, some = self._clock.mono(), filter(is_named, hosts[start : start + _HOSTS_AT_ONCE])
            found = [(host, its_state) for host in some if (its_state := state_of(host, now)) in wanted]
            matching += len(found)
            first.add(found)
            await asyncio.sleep(0)
        search = HostSearch(
            text, [str(one) for one in wanted], "queued" if sort == "busy" else sort, limit,
            table.schedule_at(self._clock.mono()), looked_at.keys(),
        )  # fmt: skip
        after: int | None = 0
        while after is not None and after < SEARCHED_AT_MOST:
            rows, matching_rows, after = await self._frontier.search_hosts(search, after=after)
            now = self._clock.mono()
            outlines = [(host, state_of(host, now)) for host in map(table.outline, rows)]
            found = [(host, its_state) for host, its_state in outlines if its_state in wanted]
            matching += matching_rows - (len(outlines) - len(found))  # the store does not know back-offs of keys
            first.add(found)
        total = (self._frontier.totals()).hosts
        searched = total if after is None else min(total, after + len(looked_at))
        return {
            "total": total, "matching": matching, "searched": searched,
            "hosts": [self._host_row(host) for host in first.hosts],
        }  # fmt: skip

    def _host_row(self, host: Host) -> dict[str, object]:
        now, now_at = self._clock.mono(), self._clock.now()
        backoffs = [
            state for state in (host.politeness, host.key.politeness) if state.failures and state.open_mono > now
        ]
        last = max(backoffs, key=lambda state: state.open_mono, default=None)
        return {
            "host": str(host.origin), "state": str(state_of(host, now)), "queued": host.queued,
            "fetched": host.fetched, "in_flight": host.leases, "delay_s": host.key.delay_s,
            "until_at": None if last is None else round(now_at + last.open_mono - now, 1),
            "failures": max(host.politeness.failures, host.transient_failures),
            "why": self._why(host, "" if last is None else str(last.reason)),
        }  # fmt: skip

    def _why(self, host: Host, backing_off_after: str) -> str:
        """The reason why no request is sent to a host; "" if requests are sent."""
        if (block := self._host_table.blocklist.covers(host.origin.host)) is not None:
            return block.reason or "by command"
        return host.robots_problem if host.is_held else backing_off_after

    def _in_flight(self, now: float) -> list[InFlight]:
        """The URLs in flight, the oldest first. Requests and connections of one origin are paired in the order in which
        they were sent: a pair may be wrong, the number of URLs at each stage is right.
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
            of_connection = () if exchange is None else (exchange.conn_id, exchange.request_n, exchange.received_bytes)
            age_s = round(max(0.0, now - worker.since_mono), 3)
            found.append(InFlight(task.url, task.kind, task.attempt, stage, age_s, *of_connection))
        return found


class _First:
    """The first `limit` hosts in order of `key`, of those that were added."""

    def __init__(self, key: Callable[[Host, HostState], tuple[Any, ...]], limit: int) -> None:
        self._key, self._limit = key, limit
        self._found: list[tuple[tuple[Any, ...], Host]] = []

    def add(self, hosts: Iterable[tuple[Host, HostState]]) -> None:
        """Add hosts, with their states."""
        found = [*self._found, *((self._key(host, state), host) for host, state in hosts)]
        self._found = heapq.nsmallest(self._limit, found, key=lambda one: one[0])

    @property
    def hosts(self) -> list[Host]:
        return [host for _, host in self._found]


def state_of(host: Host, now_mono: float) -> HostState:
    """Whether a host may be requested."""
    match reason(host, now_mono):
        case (LeftReason.BLOCKED, _):
            return HostState.BLOCKED
        case (LeftReason.ROBOTS, _):
            return HostState.HELD
        case (LeftReason.BACKOFF, _):
            return HostState.BACKOFF
        case _:
            return HostState.NEW if host.robots is None and not host.ever_responded else HostState.READY


def _plain(counts: Mapping[Any, int]) -> dict[str, int]:
    """A copy with plain strings as keys, as JSON needs them, instead of members of an enumeration."""
    return {str(word): number for word, number in counts.items()}
