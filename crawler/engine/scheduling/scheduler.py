"""Issues leases of queued URLs, each as soon as politeness allows, and takes them back when they end.

Politeness keys wait in the ready queue until they may be requested: no worker ever sleeps for politeness. The lease
selection then chooses one of the key's hosts. How a page is fetched or read is not known here.

Invariant: a lease is out from its issue to `lease_ended`, once, and its unfinished tasks go back where they came from.
"""

import asyncio
import random
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, suppress
from dataclasses import replace

from crawler.core.clock import Clock
from crawler.core.models import Denied, Lease, Origin, RobotsRecord, Settlement, Task
from crawler.core.outcomes import OUTAGE_PROBE_S
from crawler.core.politeness import CLOCK_GUARD_S
from crawler.engine.options import EngineConfiguration
from crawler.engine.pages.revisits import Revisits
from crawler.engine.pages.traps import TrapWatch
from crawler.engine.pages.url_policy import RobotsCache
from crawler.engine.scheduling.blocklist import Blocklist
from crawler.engine.scheduling.due_urls import DueUrls
from crawler.engine.scheduling.host import AuxiliaryRequest, Host, PolitenessKey
from crawler.engine.scheduling.host_table import HostTable, OnEvent
from crawler.engine.scheduling.lease_selection import LeaseSelection
from crawler.engine.scheduling.prefetch import Prefetch
from crawler.engine.scheduling.rate_limits import HOURS_RECHECK_S, AddressRateLimiter, CrawlRateLimiter
from crawler.engine.scheduling.ready_queue import NEVER, ReadyQueue
from crawler.engine.scheduling.url_limits import UrlLimits
from crawler.frontier.base import Frontier, Receipt, Recovered


class Scheduler:
    """Leases go into `queue`, whose bound is the back-pressure. `quiet` is set when there may be nothing left to do."""

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
    ) -> None:
        self.host_table = HostTable(
            politeness=options.politeness,
            clock=clock,
            rng=rng,
            on_event=on_event,
            blocklist=blocklist,
            on_open=self._let_go_on,
            on_outage_over=self._outage_over,
        )
        self.url_limits = UrlLimits(options.scope)
        self._frontier = frontier
        self.queue: asyncio.Queue[Lease] = asyncio.Queue(maxsize=options.engine.workers)
        self._clock = clock
        self.crawl_rate_limiter = crawl_rate_limiter
        self.revisits = Revisits(options.recrawl, frontier=frontier, clock=clock, rng=rng, on_date=self.visit_again_at)
        self._wake = asyncio.Event()
        self._quiet = quiet
        self._ready_queue = ReadyQueue(options.address_politeness, clock, self._wake.set)
        self._prefetch = Prefetch(
            host_table=self.host_table,
            url_limits=self.url_limits,
            frontier=frontier,
            rules=rules,
            traps=traps,
            lease_size=options.engine.lease_size,
            on_ready=self._prefetched,
        )
        self.traps = traps
        self._lease_selection = LeaseSelection(
            host_table=self.host_table,
            ready_queue=self._ready_queue,
            prefetch=self._prefetch,
            crawl_rate_limiter=crawl_rate_limiter,
            clock=clock,
            politeness=options.politeness,
            options=options.engine,
        )
        self.due_urls = DueUrls(frontier, self.revisits, clock)
        self.leases_out: dict[int, Lease] = {}
        self._probe_id = 0  # during an outage only this lease may begin …
        self._probe_mono = 0.0  # … and the next may be issued then
        self._readings = 0
        self.stopping = False
        self.paused = False

    @property
    def address_limiter(self) -> AddressRateLimiter:
        """To be entered before each request."""
        return self._ready_queue.address_limiter

    def load(self, recovered: Recovered, *, same_delays: bool) -> None:
        """Take over what the store knew. `same_delays`: the earlier run kept to the options of this one."""
        self.host_table.load(recovered, same_delays=same_delays)
        self.url_limits.first_attempts = recovered.counters.urls_fetched
        if recovered.hosts:
            self.address_limiter.delay_all()

    async def start(self) -> None:
        """After `load`: schedule every host with work."""
        await self.due_urls.start(has_future_dates=self.host_table.has_future_dates)
        for host in self.host_table.hosts.values():
            self._lease_selection.schedule_host(host)

    def stored(self, receipt: Receipt) -> None:
        """The store took discoveries: hosts may be new, and have more to do."""
        self.host_table.admit([replace(row, queued=0) for row in receipt.hosts])
        for host_id, count in receipt.queued.items():
            host = self.host_table.hosts[host_id]
            host.queued += count
            self._lease_selection.schedule_host(host)
        for host_id, templates in receipt.suspects.items():
            self.traps.suspects_set_aside(self.host_table.hosts[host_id], templates)
        for host_id in receipt.linked:
            self.traps.error_link_queued(self.host_table.hosts[host_id])

    def queued_again(self, counts: Mapping[int, int]) -> None:
        """The store queued URLs that were known: host id → how many."""
        for host_id, count in counts.items():
            host = self.host_table.hosts[host_id]
            host.queued += count
            self.url_limits.reopen(host)
            self._lease_selection.schedule_host(host)

    def reconfigure(self, options: EngineConfiguration, suspects: Iterable[int]) -> None:
        """Put other options in force. `suspects` are the hosts that have any, as far as is known before their templates
        are looked at anew.
        """
        self.host_table.reconfigure(options.politeness)
        self.url_limits.reconfigure(options.scope)
        self.address_limiter.reconfigure(options.address_politeness)
        self.traps.reconfigure(options.traps)
        self.revisits.reconfigure(options.recrawl)
        self._lease_selection.reconfigure(options.politeness)
        for host_id in suspects:
            self.host_table.hosts[host_id].has_suspects = True
        for host in self.host_table.hosts.values():
            self._lease_selection.schedule_host(host)
        self._wake.set()

    def blocklist_changed(self) -> int:
        """Blocks came or went: hosts that are covered get no turn, others go on. Returns how many changed."""
        changed = self.host_table.apply_blocklist()
        for host in changed:
            self._lease_selection.schedule_host(host)
        self._wake.set()
        return len(changed)

    def clock_was_set(self, step_s: float) -> None:
        """The wall clock was set by so much. What became due by it is promoted, and politeness spreads it as ever."""
        self.host_table.clock_was_set(step_s)
        if step_s < 0:
            self.due_urls.clock_set_back()
        self._wake.set()

    def due_at(self, when: float) -> None:
        """A URL waits until `when` (UTC)."""
        if self.due_urls.due_at(when):
            self._wake.set()

    def visit_again_at(self, when: float) -> None:
        """A URL that was visited is to be visited again then (UTC)."""
        if self.revisits.enabled:
            self.revisits.due_at(when)
            self._wake.set()

    # -- the loop

    async def run(self) -> None:
        """Lease until `stop`."""
        async with asyncio.TaskGroup() as group:
            while not self.stopping:
                self._wake.clear()
                if self._due_s() <= 0:
                    async for counts in self.due_urls.promote():
                        self._requeued(counts)
                wait_s = await self._lease_ready()
                self._prefetch.start(group)
                if self.revisits.wants_price:
                    group.create_task(self.revisits.solve(), name="price")
                if self.is_quiet:
                    self._quiet.set()
                await self._sleep(wait_s)

    async def _sleep(self, wait_s: float) -> None:
        wait_s = min(wait_s, self._due_s())
        with suppress(TimeoutError):
            async with asyncio.timeout(None if wait_s == NEVER else wait_s):
                await self._wake.wait()

    def stop(self) -> None:
        """Issue nothing more; what waits in the queue goes back."""
        self.stopping = True
        while not self.queue.empty():
            lease = self.queue.get_nowait()
            self.lease_ended(lease, unfinished=lease.tasks, began=False)
        self._wake.set()

    def wake(self) -> None:
        """Look again: something outside changed."""
        self._wake.set()

    def _due_s(self) -> float:
        """Seconds until URLs are to be queued that wait for a retry or a revisit."""
        return NEVER if self.paused else self.due_urls.wait_s()

    def _outage_over(self, since_at: float) -> None:
        self.due_urls.outage_over(since_at)
        self._wake.set()

    def _requeued(self, queued: Mapping[int, int]) -> None:
        for host_id, count in queued.items():
            host = self.host_table.hosts[host_id]
            host.queued += count
            host.retries += count
            self.url_limits.reopen(host)
            self._lease_selection.schedule_host(host)

    async def _lease_ready(self) -> float:
        """Lease from every key that is due. Returns seconds until the next one."""
        while not self.stopping and not self.paused:
            closed_s = self.crawl_rate_limiter.closed_s()
            if closed_s > 0:
                return min(closed_s, HOURS_RECHECK_S)
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
                await self.queue.put(lease)
                if self._prefetch.has_unstarted or self._due_s() <= 0:  # under load there is always a key that is ready
                    return 0.0
        return NEVER

    def _prefetched(self, host: Host) -> None:
        self._lease_selection.schedule_host(host)
        self._wake.set()

    # -- what comes back

    def may_begin(self, lease: Lease, *, first: bool) -> bool:
        """Whether the next request of a lease may leave: a rest or a Crawl-delay that came up since it was issued holds
        for it too, and so do hours and bandwidth. `first`: none of it has left yet.
        """
        if self.paused or (self.host_table.outage.is_on and lease.id != self._probe_id):
            return False
        host = self.host_table.hosts[lease.host_id]
        if host.is_blocked:
            return False
        key = self._key_of(lease, host)
        now = self._clock.mono()
        if key.politeness.open_mono > now or host.politeness.open_mono > now:
            return False
        if self.crawl_rate_limiter.closed_s() > 0 or self.crawl_rate_limiter.host_opens_mono(lease.origin.host) > now:
            return False
        return key.delay_s == 0 or (first and key.politeness.in_flight == 1)

    def _key_of(self, lease: Lease, host: Host) -> PolitenessKey:
        return host.key if lease.origin == host.origin else self.host_table.key_for(lease.origin)

    def lease_ended(self, lease: Lease, *, unfinished: Iterable[Task] = (), began: bool = True) -> None:
        """The last request of a lease ended; `unfinished` tasks go back. `began`: at least one request left."""
        del self.leases_out[lease.id]
        self._ready_queue.lease_ended(lease.id)
        host = self.host_table.hosts[lease.host_id]
        key = self._key_of(lease, host)
        now = self._clock.mono()
        host.leases -= 1
        if began:
            key.ended(now)
        else:
            key.politeness = key.politeness.abandoned()
        for task in reversed(tuple(unfinished)):
            if task.id == 0:
                key.auxiliary.appendleft(AuxiliaryRequest(host, lease.origin, task))
            else:
                host.buffer.appendleft(task)
                self.url_limits.unreserve(host, task)
                # while it may not be requested, its share of the limit is of use to others
                if max(key.politeness.open_mono, host.politeness.open_mono) > now:
                    self._let_go_on(self.url_limits.reopen_all())
        self._lease_selection.schedule_host(host)
        if key.hosts or key.auxiliary:
            self._ready_queue.schedule(key, max(key.politeness.open_mono, now))
        self._visit_ended()

    def reading_began(self) -> None:
        """An answer is still read although its lease ended: the crawl is not over."""
        self._readings += 1

    def reading_ended(self) -> None:
        """The committer has it."""
        self._readings -= 1
        self._visit_ended()

    def _visit_ended(self) -> None:
        if not self.is_busy:
            self._wake.set()
            if self.stopping:
                self._quiet.set()

    def gate_was_shut(self, lease: Lease, address: str, until_mono: float) -> None:
        """A worker found the address taken: remember it, so that we look before we lease."""
        host = self.host_table.hosts[lease.host_id]
        key = self._key_of(lease, host)
        if lease.tasks[0].id == 0:
            key.auxiliary_open_mono = NEVER  # until it is called
            self._ready_queue.wait_for_address(key, address, until_mono)
        elif host.peer == address:
            self._ready_queue.wait_for_address(key, address, until_mono, goes_first=True)
        if lease.origin == host.origin:
            host.peer = address

    def page_settled(self, settlement: Settlement, new_links: Sequence[tuple[int, int, str]] = ()) -> None:
        """A page's settlement is in the store, which first found `new_links` on it if it is a suspect's."""
        host = self.host_table.hosts[settlement.host_id]
        fetched = not isinstance(settlement.outcome, Denied)
        host.leased.discard(settlement.task.id)
        host.queued -= 1
        self._let_go_on(self.url_limits.attempt_stored(host, settlement.task, fetched=fetched))
        if self.traps.page_stored(host, settlement, new_links):
            self._prefetch.drop_suspects(host)
        if host.has_suspects and not host.leased:
            self._lease_selection.schedule_host(host)

    async def reload_templates(self, host: Host) -> None:
        """The store has other rows of the host's templates. Raises FrontierFull."""
        self.traps.unload(host)
        host.has_suspects = True
        await self.traps.load(host)
        self._lease_selection.schedule_host(host)
        self._wake.set()

    def without_prefetch(self, hosts: Iterable[Host]) -> AbstractAsyncContextManager[None]:
        """While the store changes what is queued of these hosts, nothing of them is on its way from it."""
        return self._prefetch.without_prefetch(hosts)

    def _let_go_on(self, hosts: Iterable[Host]) -> None:
        for host in hosts:
            self._lease_selection.schedule_host(host)

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

    def robots_stored(self, host_id: int) -> None:
        """The store has the host's robots.txt."""
        self._prefetch.rules.stored(self.host_table.hosts[host_id])

    async def load_rules(self, host: Host) -> None:
        """Have the rules of a host at hand when this returns, until something else is awaited."""
        await self._prefetch.load_rules(host)

    # -- questions

    async def suspects_left(self) -> int:
        """URLs that are set aside."""
        return (await self._frontier.totals()).suspect

    @property
    def is_busy(self) -> bool:
        """Requests are handed out, or answers not handed on yet."""
        return bool(self.leases_out) or self._readings > 0

    @property
    def is_quiet(self) -> bool:
        """Nothing handed out, nothing on its way from the store."""
        return not self.is_busy and self._prefetch.is_quiet and self.due_urls.is_quiet

    @property
    def is_hungry(self) -> bool:
        """Workers idle for want of URLs: a commit now would give them some."""
        return self.queue.empty() and not any(
            self.host_table.hosts[lease.host_id].has_work for lease in self.leases_out.values()
        )

    def oldest_ready_s(self) -> float:
        """For how many seconds the key that is due longest has been: free workers leave it at next to nothing."""
        first = self._ready_queue.first_mono
        return 0.0 if first == NEVER else max(0.0, self._clock.mono() - first)

    def next_turn_s(self, *, enough_s: float = 0.0) -> float:
        """Seconds until some key with work has rested; 0 where it only keeps its delay, infinity when none has work.
        One that may be asked within `enough_s` is enough: the others are then not looked at.
        """
        mono, now = self._clock.mono(), self._clock.now()
        first = NEVER
        if self._ready_queue.first_mono - mono <= enough_s:
            return max(0.0, self._ready_queue.first_mono - mono)
        for key in self.host_table.keys.values():
            opens = [key.auxiliary_open_mono] if key.auxiliary else []
            for host in key.hosts:
                if host.has_work:
                    held_s = host.robots.expires_at - now if host.robots is not None and host.is_held else 0.0
                    opens.append(max(host.politeness.open_mono, mono + held_s))
            if opens:
                wait_s = max(key.politeness.open_mono, min(opens)) - mono
                only_delay = wait_s <= max(key.delay_s, key.adaptive_s) + CLOCK_GUARD_S
                first = min(first, 0.0 if only_delay else wait_s)
        return first
