"""The scheduler: issues leases of queued URLs, each as soon as politeness allows, and takes them back when they end.

Politeness keys wait in the ready queue until they may be requested, so that no worker sleeps for politeness. The lease
selection then chooses one of the key's hosts.

A worker takes a lease from `queue`, or from `first_contacts` if it is one of those for hosts that never responded.
Before each request it calls `may_send`, after it `host_table.learn_result`, and at the end `lease_ended`. After a
commit the committer calls `discoveries_stored`, and `visit_stored` for each visit.

Invariant: a lease is out from its issue to `lease_ended`, once, and its unfinished tasks go back where they came from.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, suppress
from typing import Final

from crawler.core.clock import Clock
from crawler.core.enums import RetryEffect, TaskKind, UrlState
from crawler.core.models import Denied, Lease, Origin, RobotsRecord, Settlement, Task
from crawler.core.outcomes import OUTAGE_PROBE_S
from crawler.core.politeness import CLOCK_GUARD_S
from crawler.engine.options import EngineConfiguration
from crawler.engine.pages.revisits import Revisits
from crawler.engine.pages.traps import TrapWatch
from crawler.engine.pages.url_policy import RobotsCache
from crawler.engine.scheduling.due_urls import DueUrls
from crawler.engine.scheduling.host import AuxiliaryRequest, Host, PolitenessKey
from crawler.engine.scheduling.host_table import HostTable, OnEvent, Woken
from crawler.engine.scheduling.lease_selection import LeaseSelection
from crawler.engine.scheduling.prefetch import Contacts, Prefetch
from crawler.engine.scheduling.ready_queue import NEVER, ReadyQueue
from crawler.engine.scheduling.restrictions import (
    HOURS_RECHECK_S,
    AddressRateLimiter,
    Blocklist,
    CrawlRateLimiter,
    UrlLimits,
)
from crawler.engine.scheduling.workbench import Workbench
from crawler.fetch.fetcher import AddressNotReady
from crawler.frontier.base import Frontier, Receipt, Recovered

LEASE_RECHECK_S: Final = 0.1  # until it is looked again whether an agent has renewed its lease
QUEUED_SHARE: Final = 8  # leases that wait for a worker, at most: an eighth of the number of workers


class Scheduler:
    """Puts leases into `queue` while it has room. Sets `quiet` when there may be nothing left to do."""

    def __init__(
        self,
        options: EngineConfiguration,
        *,
        frontier: Frontier,
        clock: Clock,
        rng: random.Random,
        rules: RobotsCache,
        traps: TrapWatch,
        crawl_rate_limiter: CrawlRateLimiter,
        blocklist: Blocklist,
        quiet: asyncio.Event,
        on_event: OnEvent,
        needs_lookup: Callable[[Origin], bool],
        look_up: Callable[[Origin], Awaitable[bool]],
        is_connected: Callable[[Origin], bool],
        first_address: Callable[[Origin], str | None],
    ) -> None:
        self.host_table = HostTable(
            politeness=options.politeness,
            clock=clock,
            rng=rng,
            on_event=on_event,
            blocklist=blocklist,
            overrides=options.overrides,
            on_open=self._schedule_hosts,
            on_outage_over=self._outage_over,
            is_crowded=lambda: self.contacts.waiting > 0 or self._lease_selection.has_many_hosts,
        )
        self.url_limits = UrlLimits(options.scope)
        self._frontier = frontier
        self.workers = options.engine.workers
        # Few leases wait for a worker: one for a host with an open connection, which is due soon, goes ahead of others
        self.queue: asyncio.Queue[Lease] = asyncio.Queue(maxsize=max(1, self.workers // QUEUED_SHARE))
        self.first_contacts: asyncio.Queue[Lease] = asyncio.Queue()  # bounded by `contacts`
        self._clock = clock
        self.crawl_rate_limiter = crawl_rate_limiter
        self.revisits = Revisits(
            options.recrawl, options.overrides, frontier=frontier, clock=clock, rng=rng, on_date=self._revisit_at
        )
        self._wake = asyncio.Event()
        self._quiet = quiet
        self._ready_queue = ReadyQueue(options.address_politeness, clock, self._wake.set, is_connected)
        self._prefetch = Prefetch(
            host_table=self.host_table,
            url_limits=self.url_limits,
            frontier=frontier,
            rules=rules,
            traps=traps,
            lease_size=options.engine.lease_size,
            on_ready=self._prefetched,
            note_counts=self.note_counts,
        )
        self.contacts = Contacts(
            needs_lookup=needs_lookup,
            look_up=look_up,
            at_once=options.client.fetch.first_contacts,
            clock=clock,
            schedule=self._ready_queue.schedule,
        )
        self.traps = traps
        self._lease_selection = LeaseSelection(
            host_table=self.host_table,
            ready_queue=self._ready_queue,
            prefetch=self._prefetch,
            contacts=self.contacts,
            crawl_rate_limiter=crawl_rate_limiter,
            clock=clock,
            politeness=options.politeness,
            options=options.engine,
            first_address=first_address,
            on_unknown_key=self._need_key,
            on_short=self._is_short,
        )
        self.workbench = Workbench(
            host_table=self.host_table,
            ready_queue=self._ready_queue,
            lease_selection=self._lease_selection,
            url_limits=self.url_limits,
            rules=rules,
            frontier=frontier,
            clock=clock,
            active_hosts=options.engine.active_hosts,
            on_change=self._wake.set,
        )
        self.due_urls = DueUrls(frontier, self.revisits, clock)
        self.leases_out: dict[int, Lease] = {}
        self._probe_id = 0  # in an outage only this lease may send requests …
        self._probe_mono = 0.0  # … and then the next one is issued
        self._has_future_dates = False  # the store has visits dated later than now: the clock was set back
        self.stopping = False
        self.paused = False
        # Why an agent of several may send no requests now; "": it may
        self.pause_reason: Callable[[], str] = lambda: ""

    @property
    def address_limiter(self) -> AddressRateLimiter:
        """The rate limiter of addresses, which every request enters and leaves."""
        return self._ready_queue.address_limiter

    def load(self, recovered: Recovered) -> None:
        """Take over the counters of the store, and the time at which the last run ended."""
        self.host_table.start(recovered.schedule_at, clean=recovered.clean, now_at=recovered.now_at)
        self.url_limits.first_attempts = recovered.counters.urls_fetched
        self._has_future_dates = (recovered.last_visit_at or 0.0) > self._clock.now()
        if recovered.hosts:
            self.address_limiter.delay_all()

    async def start(self) -> None:
        """After `load`: read what is due, and the first hosts."""
        await self.due_urls.start(has_future_dates=self._has_future_dates)
        self.workbench.start()
        await self.workbench.exchange()

    def reconfigure(self, options: EngineConfiguration, suspects: Iterable[int]) -> None:
        """Apply new options. `suspects` are the hosts that are assumed to have suspects until their templates are
        loaded again.
        """
        self.host_table.reconfigure(options.politeness, options.overrides)
        self.url_limits.reconfigure(options.scope)
        self.address_limiter.reconfigure(options.address_politeness)
        self.traps.reconfigure(options.traps)
        self.revisits.reconfigure(options.recrawl, options.overrides)
        self._lease_selection.reconfigure(options.politeness)
        for host_id in suspects:
            if (host := self.host_table.hosts.get(host_id)) is not None:
                host.has_suspects = True
        for host in self.host_table.hosts.values():
            self._lease_selection.schedule_host(host)
        self._wake.set()

    async def unpark(self, parked: str, host_ids: Collection[int] | None = None) -> int:
        """Make hosts ready that are parked in the store for this reason: all, or those of `host_ids`. Returns their
        number. Raises FrontierFull.
        """
        at = self.host_table.schedule_at(self._clock.mono())
        number = await self._frontier.unpark(parked, at=at, host_ids=host_ids)
        self.workbench.start()
        self._wake.set()
        return number

    async def limit_raised(self) -> None:
        """`max_urls` allows more first attempts: release the hosts that it held back. Raises FrontierFull."""
        self._schedule_hosts(self.url_limits.reopen_all())
        await self.unpark("limit")

    def share_limits(self, agents: int) -> None:
        """Keep to one of so many equal shares of what all agents together may do: the rate at one IP address,
        `fetch.bandwidth`, and from the next price on the budget of revisits.
        """
        self.address_limiter.share(agents)
        self.crawl_rate_limiter.share(agents)
        self.revisits.agents = agents
        self._wake.set()

    def retry(self, host: Host) -> Woken:
        """Have a host that backs off or is held requested as soon as its delay allows."""
        woken = self.host_table.wake(host)
        if woken.effect is RetryEffect.ROBOTS:
            self.request_robots(host)
        self._lease_selection.schedule_host(host)
        self._lease_selection.schedule_key(host.key)
        self._wake.set()
        return woken

    def blocklist_changed(self) -> int:
        """Apply a changed blocklist: hosts that it covers have no leases from now on. Returns how many changed."""
        changed = self.host_table.apply_blocklist()
        for host in changed:
            self._lease_selection.schedule_host(host)
        self._wake.set()
        return len(changed)

    def clock_was_set(self, step_s: float) -> None:
        """Adapt to a wall clock that was set by `step_s`. URLs that are due now are queued; politeness spreads them."""
        self.host_table.clock_was_set(step_s)
        if step_s < 0:
            self.due_urls.clock_set_back()
        self._wake.set()

    # -- the loop

    async def run(self) -> None:
        """Issue leases until `stop`."""
        async with asyncio.TaskGroup() as group:
            while not self.stopping:
                self._wake.clear()
                if self._due_s() <= 0:
                    async for counts in self.due_urls.promote():
                        self.requeued(counts)
                wait_s = await self._lease_ready()
                self._prefetch.start(group)
                if not self.paused:
                    self.contacts.start(group)
                self.contacts.fill(is_idle=wait_s > 0)
                self.workbench.start_if_due(group, paused=self.paused)
                if self.revisits.wants_price:
                    group.create_task(self.revisits.solve(), name="price")
                if self.is_quiet:
                    self._quiet.set()
                await self._sleep(wait_s)
            self.contacts.stop()

    async def _sleep(self, wait_s: float) -> None:
        if not self.paused:
            wait_s = min(wait_s, self.workbench.wait_s(), self.contacts.wait_s())
        wait_s = min(wait_s, self._due_s())
        with suppress(TimeoutError):
            async with asyncio.timeout(None if wait_s == NEVER else wait_s):
                await self._wake.wait()

    def stop(self) -> None:
        """Issue no more leases, and take back those in `queue`."""
        self.stopping = True
        for queue in (self.queue, self.first_contacts):
            while not queue.empty():
                lease = queue.get_nowait()
                self.lease_ended(lease, unfinished=lease.tasks, began=False)
        self._wake.set()

    def wake(self) -> None:
        """Have the loop check again whether leases can be issued, after a change elsewhere."""
        self._wake.set()

    def _due_s(self) -> float:
        """Seconds until the next URL that waits for a retry or a revisit is to be queued."""
        return NEVER if self.paused else self.due_urls.wait_s()

    async def _lease_ready(self) -> float:
        """Issue a lease for every key that is due. Returns the seconds until the next key is due."""
        while not self.stopping and not self.paused:
            closed_s = self.crawl_rate_limiter.closed_s()
            if closed_s > 0:
                return min(closed_s, HOURS_RECHECK_S)
            if self.pause_reason():
                return LEASE_RECHECK_S
            if self.host_table.outage.is_on and (wait_s := self._probe_mono - self._clock.mono()) > 0:
                return wait_s
            due = self._ready_queue.take_due()
            if not isinstance(due, PolitenessKey):
                return due
            lease = self._lease_selection.next_lease(due)
            if lease is not None:
                self.leases_out[lease.id] = lease
                if self.host_table.outage.is_on:
                    self._probe_id, self._probe_mono = lease.id, self._clock.mono() + OUTAGE_PROBE_S
                is_first = self.contacts.is_first(lease) and not self.host_table.outage.is_on
                await (self.first_contacts if is_first else self.queue).put(lease)
                is_wanted = self._prefetch.has_unstarted or self.contacts.has_unstarted
                if is_wanted or min(self._due_s(), self.workbench.wait_s(), self.contacts.wait_s()) <= 0:
                    return 0.0  # under full load `take_due` never ends
        return NEVER

    # -- one lease, in the order of its life

    def may_send(self, lease: Lease, *, first: bool) -> bool:
        """Whether the next request of a lease may be sent; `first`: none was sent before. A back-off, a Crawl-delay or
        closed hours may have begun after the lease was issued.
        """
        if self.stopping or self.paused or self.pause_reason():
            return False
        if self.host_table.outage.is_on and lease.id != self._probe_id:
            return False
        host = self.host_table.hosts[lease.host_id]
        if host.is_blocked:
            return False
        key = self.host_table.key_of(lease)
        now = self._clock.mono()
        if key.politeness.open_mono > now or host.politeness.open_mono > now:
            return False
        limiter = self.crawl_rate_limiter
        if limiter.closed_s() > 0 or limiter.host_opens_mono(lease.origin.host) > now:
            return False
        return key.delay_s == 0 or (first and key.politeness.in_flight == 1)

    def lease_ended(
        self,
        lease: Lease,
        *,
        unfinished: Iterable[Task] = (),
        began: bool = True,
        closed: AddressNotReady | None = None,
    ) -> None:
        """End a lease after its last request. `unfinished` tasks go back where they came from. `began`: at least one
        request was sent. `closed`: the address of the next request was not open.
        """
        host = self.host_table.hosts[lease.host_id]
        key = self.host_table.key_of(lease)
        if closed is not None:
            self._wait_for_address(lease, host, key, closed)
        del self.leases_out[lease.id]
        self.contacts.lease_ended(lease)
        self._ready_queue.lease_ended(key, lease.id)
        now = self._clock.mono()
        host.leases -= 1
        if began:
            key.ended(now)
            self.host_table.request_ended(key)
        else:
            key.politeness = key.politeness.abandoned()
        for task in reversed(tuple(unfinished)):
            if task.id == 0:
                key.auxiliary.appendleft(AuxiliaryRequest(host, lease.origin, task))
            else:
                host.buffer.appendleft(task)
                self.url_limits.unreserve(host, task)
                # While it may not be requested, other hosts may use its share of the limit.
                if max(key.politeness.open_mono, host.politeness.open_mono) > now:
                    self._schedule_hosts(self.url_limits.reopen_all())
        self._lease_selection.schedule_host(host)
        if key.hosts or key.auxiliary:
            self._ready_queue.schedule(key, max(key.politeness.open_mono, now))
        if not self.leases_out:
            self.workbench.look_again()
            self._wake.set()
            if self.stopping:
                self._quiet.set()

    def _wait_for_address(self, lease: Lease, host: Host, key: PolitenessKey, closed: AddressNotReady) -> None:
        """Remember the address of the host, so that its next lease is issued when that address is open."""
        if lease.tasks[0].id == 0:
            key.auxiliary_open_mono = NEVER  # until the address is reserved for the key
            self._ready_queue.wait_for_address(key, closed.address, closed.until_mono)
        elif host.peer == closed.address:
            self._ready_queue.wait_for_address(key, closed.address, closed.until_mono, goes_first=True)
        if lease.origin == host.origin:
            host.peer = closed.address

    def wants_connection(self, origin: Origin) -> bool:
        """Whether an idle connection to the origin will serve a request soon, ahead of keys without one."""
        key = self.host_table.known_key(origin)
        if key is None or not key.goes_ahead:
            return False
        hosts = (self.host_table.hosts[host_id] for host_id in key.members)
        return any(host.has_work or host.leased for host in hosts)  # a page that is not stored yet may have links

    def visit_stored(self, settlement: Settlement, new_links: Sequence[tuple[int, int, str]] = ()) -> None:
        """Count a stored visit. `new_links`: URLs that were first found on its page, if the URL was a suspect."""
        host, task = self.host_table.hosts[settlement.host_id], settlement.task
        if task.id == 0:
            if settlement.robots is not None and settlement.robots.body is not None:
                self._prefetch.rules.stored(host)
            host.auxiliary -= 1
            return
        if settlement.next_at is not None:
            if settlement.state is UrlState.WAITING:
                if self.due_urls.due_at(settlement.next_at):
                    self._wake.set()
            else:
                self._revisit_at(settlement.next_at)
        if settlement.discovered and task.kind is not TaskKind.PAGE:
            self._revisit_at(settlement.finished_at)  # a URL that it lists may be due sooner now
        host.leased.discard(task.id)
        fetched = not isinstance(settlement.outcome, Denied)
        self._schedule_hosts(self.url_limits.attempt_stored(host, task, fetched=fetched))
        if self.traps.page_stored(host, settlement, new_links):
            self._prefetch.drop_suspects(host)
        self._lease_selection.schedule_host(host)

    def _revisit_at(self, when: float) -> None:
        if self.revisits.enabled:
            self.revisits.due_at(when)
            self._wake.set()

    # -- what hosts have to do

    def note_counts(self) -> None:
        """Take over from the store which URLs are queued now, after any change of it."""
        self.workbench.note_counts()
        self._wake.set()

    def discoveries_stored(self, receipt: Receipt) -> None:
        """Schedule the hosts of stored discoveries: new hosts, and known hosts with new URLs."""
        self.workbench.note_counts(receipt.hosts)
        hosts = self.host_table.hosts
        for host_id, templates in receipt.suspects.items():
            if host_id in hosts:
                self.traps.suspects_set_aside(hosts[host_id], templates)
        for host_id in receipt.linked:
            if host_id in hosts:
                self.traps.error_link_queued(hosts[host_id])
        self._wake.set()

    def requeued(self, counts: Mapping[int, int], *, are_retries: bool = True) -> None:
        """The store queued known URLs: host id → how many. Limits on URLs hold for them unless they are retries."""
        for host_id, count in counts.items():
            if (host := self.host_table.hosts.get(host_id)) is not None:
                if are_retries:
                    host.retries += count
                self.url_limits.reopen(host)
        if are_retries and self.url_limits.is_full:
            self.workbench.need_hosts(counts)
        self.note_counts()

    async def reload_templates(self, host: Host) -> None:
        """Read the templates of a host again: their rows in the store changed. Raises FrontierFull."""
        self.traps.unload(host)
        host.has_suspects = True
        await self.traps.load(host)
        self._lease_selection.schedule_host(host)
        self._wake.set()

    def without_prefetch(self, hosts: Iterable[Host]) -> AbstractAsyncContextManager[None]:
        """Hold off prefetches of these hosts while the store changes what is queued of them."""
        return self._prefetch.without_prefetch(hosts)

    def learn_robots(self, host: Host, record: RobotsRecord) -> None:
        """A robots verdict was reached: pages of the host may be leased by it."""
        self.host_table.learn_robots(host, record)
        self._lease_selection.schedule_host(host)

    def request_robots(self, host: Host) -> None:
        """Request the host's robots.txt, unless it is requested already."""
        self._lease_selection.request_robots(host)

    def add_auxiliary(self, host: Host, origin: Origin, task: Task) -> None:
        """Request something for a host that has no row in the store, under the politeness of `origin`."""
        self._lease_selection.add_auxiliary(host, origin, task)

    async def load_rules(self, host: Host) -> None:
        """Load the rules of a host's robots.txt. They may be dropped again at the next await."""
        await self._prefetch.load_rules(host)

    def _need_key(self, key: PolitenessKey) -> None:
        self.workbench.need_key(key)
        self._wake.set()

    def _is_short(self, key: PolitenessKey) -> None:
        self.workbench.is_short(key)
        self._wake.set()

    def _schedule_hosts(self, hosts: Iterable[Host]) -> None:
        for host in hosts:
            self._lease_selection.schedule_host(host)

    def _prefetched(self, host: Host) -> None:
        self._lease_selection.schedule_host(host)
        self._wake.set()

    def _outage_over(self, since_at: float) -> None:
        self.due_urls.outage_over(since_at)
        self._wake.set()

    # -- how it stands

    async def suspects_left(self) -> int:
        """Number of suspects."""
        return (self._frontier.totals()).suspect

    async def is_limited(self) -> bool:
        """Whether a limit on URLs holds back queued URLs, of hosts that are not in memory too."""
        if self.url_limits.is_reached or "limit" in await self._frontier.parked():
            return True
        return self.url_limits.is_full and (self._frontier.totals()).queued > 0

    @property
    def is_quiet(self) -> bool:
        """Whether no lease is out and nothing is being read from the store."""
        is_read = (
            self._prefetch.is_quiet
            and not self.contacts.lookups
            and self.due_urls.is_quiet
            and (self.paused or self.workbench.is_quiet)
        )
        return not self.leases_out and is_read

    @property
    def lacks_urls(self) -> bool:
        """Whether workers are idle for lack of URLs: a commit now may bring some."""
        return self.queue.empty() and not any(
            self.host_table.hosts[lease.host_id].has_work for lease in self.leases_out.values()
        )

    @property
    def keys_at_addresses(self) -> tuple[int, int]:
        """Numbers of politeness keys that wait for IP addresses, and of those addresses."""
        return self._ready_queue.keys_at_addresses

    def oldest_ready_s(self) -> float:
        """For how many seconds the first key in the ready queue has been due; next to 0 while workers are free."""
        first = self._ready_queue.first_mono
        return 0.0 if first == NEVER else max(0.0, self._clock.mono() - first)

    def next_request_s(self, *, enough_s: float = 0.0) -> float:
        """Seconds until the first back-off of a key or host with work ends: 0 if one only keeps its delay, infinity if
        none has work. If one may be requested within `enough_s`, the others are not looked at.
        """
        mono, now = self._clock.mono(), self._clock.now()
        first = NEVER
        if self._ready_queue.first_mono - mono <= enough_s:
            return max(0.0, self._ready_queue.first_mono - mono)
        for key in self.host_table.keys.values():
            opens = [key.auxiliary_open_mono] if key.auxiliary else []
            if key.more_mono < NEVER:  # of hosts that are not in memory
                opens.append(max(mono, key.more_mono))
            for host in key.hosts:
                if host.has_work:
                    held_s = host.robots.expires_at - now if host.robots is not None and host.is_held else 0.0
                    opens.append(max(host.politeness.open_mono, mono + held_s))
            if opens:
                wait_s = max(key.politeness.open_mono, min(opens)) - mono
                is_only_delay = wait_s <= max(key.delay_s, key.adaptive_s) + CLOCK_GUARD_S
                first = min(first, 0.0 if is_only_delay else wait_s)
        return min(first, max(0.0, self.workbench.next_mono - mono))
