"""What holds a crawl up, for every view: its backlog, and its state and bottleneck as a word each with a sentence.

The backlog is the queued URLs that may not be requested now, by reason. Invariant: each host counts under one reason,
the one that would have to end first.

`assess` is a pure function of the `Conditions` at one instant. The first of these that holds is the bottleneck:
 1. the drain (network, or disk where nothing can be stored)
 2. the operator's pause
 3. a disk to which nothing can be written
 4. an outage
 5. closed fetch.hours
 6. visits that are made faster than they are stored (disk)
 7. nothing to do (empty)
 8. fetch.bandwidth
 9. the processor
10. requests in flight, names that are looked up, first contacts (network)
11. visits that must be stored first (disk)
12. blocks that cover most of the queue (operator)
13. delays and back-off (politeness)

The first five stop all requests. If several of them hold, the sentence names each.

`Health` says for the watchdog and /healthz whether the crawl makes progress or has a good reason to wait: a pause,
closed hours, a full disk, an outage, a long Crawl-delay. Invariant: any other wait is shorter than the limits here.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final

from crawler.core.clock import Clock
from crawler.core.enums import Bottleneck, CrawlState, LeftReason
from crawler.core.formatting import count, duration, local_time, share, size
from crawler.core.outcomes import OUTAGE_PROBE_S
from crawler.engine.committer import Committer
from crawler.engine.crawl import Crawl
from crawler.engine.monitoring.counters import CrawlCounters
from crawler.engine.pages.worker import Worker
from crawler.engine.scheduling.host import Host
from crawler.engine.scheduling.scheduler import Scheduler

CPU_BOUND_PERCENT: Final = 85.0
UNCOMMITTED_MANY: Final = 512  # visits; twice what one commit takes by default
NEVER: Final = math.inf
OWN_WORK_S: Final = 120.0  # the longest step that needs no server: reading a page, a commit, a lease
_SHOWN: Final = 3  # reasons of a backlog that are named

Reason = tuple[LeftReason, str]  # the text continues "3 URLs of 2 hosts …"
NOT_YET: Reason = (LeftReason.NOT_YET, "not requested yet")
BLOCKED: Reason = (LeftReason.BLOCKED, "blocked by the operator (`crawler unblock` ends the block)")
LIMIT: Reason = (LeftReason.LIMIT, "held back by a limit of scope (max_urls, max_urls_per_host)")


@dataclass(frozen=True, slots=True)
class Backlog:
    """URLs that wait for the same thing; `example` is one of their hosts."""

    reason: LeftReason
    text: str
    urls: int
    hosts: int = 0
    example: str = ""

    def __str__(self) -> str:
        hosts = self.example if self.hosts == 1 and self.example else count(self.hosts, "host")
        return f"{count(self.urls, 'URL')}{f' of {hosts}' if self.hosts else ''} {self.text}"


def reason(host: Host, now_mono: float) -> Reason | None:
    """Why the URLs of a host may not be requested; None if they may."""
    if host.is_blocked:
        return BLOCKED
    if host.is_held:
        return LeftReason.ROBOTS, f"whose {host.robots_problem}"
    for state in (host.politeness, host.key.politeness):
        if state.failures and state.open_mono > now_mono:
            return LeftReason.BACKOFF, f"backing off after {state.reason}"
    return LIMIT if host.limit_reached else None


def add_up(sums: dict[Reason | None, Backlog], host: Host, number: int, why: Reason | None) -> None:
    """Add URLs of a host to those that wait for the same thing; `why` None: for nothing."""
    so_far = sums.get(why) or Backlog(*(why or NOT_YET), 0, 0, str(host.origin))
    sums[why] = replace(so_far, urls=so_far.urls + number, hosts=so_far.hosts + 1)


def backlog_of(hosts: Iterable[Host], now_mono: float) -> list[Backlog]:
    """Queued URLs that may not be requested now, by reason; the largest number first."""
    sums: dict[Reason | None, Backlog] = {}
    for host in hosts:
        if host.backlog and (why := reason(host, now_mono)):
            add_up(sums, host, host.backlog, why)
    return sorted(sums.values(), key=lambda one: -one.urls)


def joined(parts: Iterable[Backlog]) -> list[Backlog]:
    """Those that wait for the same thing as one; the largest number first."""
    sums: dict[Reason, Backlog] = {}
    for one in parts:
        had = sums.get((one.reason, one.text))
        whole = one if had is None else replace(had, urls=had.urls + one.urls, hosts=had.hosts + one.hosts)
        sums[one.reason, one.text] = whole
    return sorted(sums.values(), key=lambda one: -one.urls)


def described(found: Sequence[Backlog]) -> list[str]:
    """The commonest reasons, one text each: "5,233 URLs of a.test blocked by the operator …"."""
    shown = len(found) if len(found) <= _SHOWN + 1 else _SHOWN  # "1 more" would be as long as the one
    lines = [str(one) for one in found[:shown]]
    if rest := found[shown:]:
        lines.append(f"{count(sum(one.urls for one in rest))} more for {count(len(rest), 'other reason')}")
    return lines


@dataclass(frozen=True, slots=True, kw_only=True)
class Conditions:
    """What the parts of the engine report at one instant. Durations in seconds.

    `outage` is the text about an outage, "" if there is none. `disk_reason` is the reason why nothing can be stored, ""
    if it can. `opens_at` is the time at which fetch.hours open (UTC), None while they are open. `requests` counts the
    requests whose response is not complete; the oldest was sent `oldest_s` ago. `lookups` counts names that are looked
    up, `contacts` hosts that never responded and wait for a first request. `hosts_with_work` counts hosts with
    URLs that neither a limit nor a block holds back; `hosts_delayed` counts those of them that have a delay and do not
    back off. Of these, `hosts_adaptive` have a longer delay since they respond slowly, at most `adaptive_s`, and
    `hosts_crawl_delay` by Crawl-delay, at most `crawl_delay_s`. `keys_at_addresses` counts the politeness keys that
    wait for one of `addresses` IP addresses. `places` is `engine.active_hosts` if so many hosts are in memory while
    others may be requested, else 0. `next_s` is the time until a host with work may be requested: 0 if it only waits
    for its delay, infinity if none has work. `is_quiet`: nothing is in flight, being stored or being read from the
    store.
    """

    is_draining: bool = False
    is_held: bool = False  # paused by the operator
    is_lingering: bool = False
    is_quiet: bool = False
    is_limited_by_bandwidth: bool = False  # `fetch.bandwidth` holds back requests
    disk_reason: str = ""
    outage: str = ""
    opens_at: float | None = None
    cpu_percent: float = 0.0
    bytes_per_s: float = 0.0
    uncommitted: int = 0
    in_flight: int = 0
    workers: int = 1
    requests: int = 0
    oldest_s: float = 0.0
    lookups: int = 0
    contacts: int = 0
    hosts_with_work: int = 0
    hosts_delayed: int = 0
    hosts_adaptive: int = 0
    adaptive_s: float = 0.0
    hosts_crawl_delay: int = 0
    crawl_delay_s: float = 0.0
    keys_at_addresses: int = 0
    addresses: int = 0
    places: int = 0
    next_s: float = NEVER
    backlog: Sequence[Backlog] = ()
    waiting: int = 0
    waiting_s: float | None = None  # until the first of them is due
    suspects: int = 0
    revisit_s: float = NEVER


def assess(conditions: Conditions) -> tuple[CrawlState, Bottleneck, str]:
    """Return state, bottleneck, and a sentence for people about what limits the crawl."""
    found = [*_stops(conditions)] or [_limit(conditions)]
    bottleneck = found[0][0]
    return _state(conditions, bottleneck), bottleneck, "; ".join(sentence for _, sentence in found)


def _state(c: Conditions, bottleneck: Bottleneck) -> CrawlState:
    if c.is_draining:
        return CrawlState.DRAINING
    if c.is_held or c.disk_reason:
        return CrawlState.PAUSED
    if c.outage:
        return CrawlState.OUTAGE
    if c.opens_at is not None:
        return CrawlState.OFF_HOURS
    if c.is_lingering:
        return CrawlState.LINGERING
    return CrawlState.IDLE if bottleneck is Bottleneck.EMPTY else CrawlState.CRAWLING


def _stops(c: Conditions) -> Iterator[tuple[Bottleneck, str]]:
    """The conditions that stop all requests, in the order in which they must end."""
    if c.is_draining:
        yield Bottleneck.DISK if c.disk_reason else Bottleneck.NETWORK, f"draining: {c.in_flight} in flight"
    elif c.is_held:
        yield Bottleneck.OPERATOR, "paused by the operator; `crawler resume` continues it"
    if c.disk_reason:
        yield Bottleneck.DISK, f"nothing can be stored: {c.disk_reason}"
    if c.is_draining:
        return
    if c.outage:
        is_probed = not (c.is_held or c.disk_reason or c.opens_at is not None)
        probes = f"; one request leaves every {duration(OUTAGE_PROBE_S)} until a host responds" if is_probed else ""
        yield Bottleneck.OUTAGE, f"outage {c.outage}{probes}"
    if c.opens_at is not None:
        yield Bottleneck.HOURS, f"outside fetch.hours, which open at {local_time(c.opens_at)}"


def _limit(c: Conditions) -> tuple[Bottleneck, str]:
    """What limits a crawl whose requests are not stopped."""
    if c.uncommitted > UNCOMMITTED_MANY:
        return Bottleneck.DISK, f"the disk: {count(c.uncommitted, 'visit')} not stored yet"
    has_work = c.next_s != NEVER
    if not has_work and c.is_quiet:
        return Bottleneck.EMPTY, f"nothing to do: {'; '.join(_later(c)) or 'no URL is queued'}"
    if c.is_limited_by_bandwidth:
        return Bottleneck.BANDWIDTH, f"fetch.bandwidth: {size(c.bytes_per_s)}/s are received"
    if c.cpu_percent > CPU_BOUND_PERCENT:
        return Bottleneck.CPU, f"the processor: {share(c.cpu_percent / 100)} of one core is in use"
    # While a worker is free, hosts with work that wait for nothing of the network wait for their delay.
    by_delay = max(1, c.hosts_delayed // 2) if c.hosts_delayed else 0
    by_network = c.requests + c.lookups + c.contacts
    if by_network and not (has_work and by_network <= by_delay and c.in_flight < c.workers):
        return Bottleneck.NETWORK, f"the network: {', '.join(_network(c))}"
    if not has_work:
        return Bottleneck.DISK, "the disk: what was fetched last is being stored"
    hosts = f"{count(c.hosts_with_work, 'host')} with work"
    if c.next_s <= 0:
        return Bottleneck.POLITENESS, f"politeness: {hosts}, limited by {_delays(c)}"
    next_one = f"the next request in {duration(c.next_s)}"
    blocked = sum(one.urls for one in c.backlog if one.reason is LeftReason.BLOCKED)
    if 2 * blocked > sum(one.urls for one in c.backlog):
        return Bottleneck.OPERATOR, f"{'; '.join(described(c.backlog))}; {next_one}"
    why = "; ".join(described([one for one in c.backlog if one.reason is not LeftReason.BLOCKED]))
    return Bottleneck.POLITENESS, f"politeness: {hosts}, all backing off; {next_one}{f': {why}' if why else ''}"


def _network(c: Conditions) -> Iterator[str]:
    """What is waited for that other machines have to do."""
    if c.requests:
        yield f"{count(c.requests, 'request')} in flight, the oldest for {duration(c.oldest_s)}"
    if c.lookups:
        yield f"{count(c.lookups, 'name')} to be looked up"
    if c.contacts:
        yield f"{count(c.contacts, 'new host')} waiting for others that do not respond (fetch.first_contacts)"


def _delays(c: Conditions) -> str:
    """What sets the delays of the hosts with work."""
    set_by = []
    if c.keys_at_addresses:
        where = "an IP address" if c.addresses == 1 else f"{count(c.addresses)} IP addresses"
        set_by.append(f"politeness.address_delay ({count(c.keys_at_addresses, 'politeness key')} waiting for {where})")
    if c.hosts_adaptive + c.hosts_crawl_delay + c.keys_at_addresses < max(1, c.hosts_delayed):
        set_by.append("politeness.delay")
    for hosts, key, delay_s, why in (
        (c.hosts_crawl_delay, "the Crawl-delay of robots.txt", c.crawl_delay_s, ""),
        (c.hosts_adaptive, "politeness.adaptive", c.adaptive_s, ": slow responses make the delay longer"),
    ):
        if hosts:
            of = "" if hosts == c.hosts_delayed else f" of {count(hosts, 'host')}"
            at_most = "up to " if hosts > 1 else ""
            set_by.append(f"{key}{of} ({at_most}{duration(delay_s)}{why})")
    if c.places:
        set_by.append(f"engine.active_hosts ({count(c.places)} hosts in memory, others are ready)")
    return " and ".join(set_by)


def _later(c: Conditions) -> Iterator[str]:
    """The work that can be done later, or after a command of the operator."""
    yield from described(c.backlog)
    if c.waiting_s is not None:
        yield f"{count(c.waiting)} due later, the first in {duration(c.waiting_s)}"
    if c.suspects:
        yield f"{count(c.suspects, 'URL')} set aside in parts that look endless (`crawler hosts` lists them)"
    if c.revisit_s != NEVER:
        yield f"the next revisit in {duration(c.revisit_s)}"


class Health:
    """Watches progress. `check` must be called every few seconds. `attempt_s` gives the longest time that one attempt
    may take (`fetch.total_timeout`).
    """

    def __init__(
        self,
        *,
        crawl: Crawl,
        scheduler: Scheduler,
        committer: Committer,
        workers: Sequence[Worker],
        counters: CrawlCounters,
        clock: Clock,
        attempt_s: Callable[[], float],
    ) -> None:
        self._crawl = crawl
        self._scheduler = scheduler
        self._committer = committer
        self._workers = workers
        self._counters = counters
        self._clock = clock
        self._attempt_s = attempt_s
        self._seen: tuple[int, int, int] = (-1, -1, -1)
        self.progress_mono = clock.mono()
        self.progress_at = clock.now()

    def check(self) -> None:
        """Record the time if there was progress since the last call, or a good reason for none."""
        seen = (sum(self._counters.outcomes.values()), self._counters.links_new, self._committer.commits)
        if seen != self._seen or self._has_reason_to_wait():
            self._seen = seen
            self.progress_mono, self.progress_at = self._clock.mono(), self._clock.now()

    def stall(self) -> str:
        """What has made no progress for too long; "" if all is well."""
        still_s = self._clock.mono() - self.progress_mono
        if still_s <= OWN_WORK_S or self._has_reason_to_wait():
            return ""
        stages = {worker.stage for worker in self._workers if worker.task is not None}
        if "fetch" in stages and still_s <= self._attempt_s() + OWN_WORK_S:
            return ""
        where = ", ".join(sorted(stages)) or "URLs that may be requested get no request"
        return f"nothing has happened for {duration(still_s)}: {where}"

    def _has_reason_to_wait(self) -> bool:
        """Whether there is a good reason for no progress."""
        crawl, scheduler = self._crawl, self._scheduler
        if crawl.why_not_stored or crawl.is_held or crawl.is_draining or scheduler.crawl_rate_limiter.closed_s() > 0:
            return True
        return not scheduler.leases_out and self._committer.is_idle and scheduler.oldest_ready_s() < 1.0
