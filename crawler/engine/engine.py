"""A crawl as one object: it makes and connects the parts, and its methods are what can be done to a crawl.

Options come in as values; the store, the output files and the HTTP client through protocols. What happens is reported
to an Observer.

Invariant: options are applied in one step that does not wait, so that no visit sees half of them; visits in flight
finish under the former ones. If new options are wrong, the former ones remain as they were.
"""

import asyncio
import random
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from itertools import chain, islice
from typing import Final, Protocol

import orjson

from crawler.core.calendar_expression import utc_offset_of
from crawler.core.clock import Clock, Hours
from crawler.core.enums import Source, StoppedBy
from crawler.core.models import Denied, Discovered, Origin, Suspects
from crawler.core.scope import Scope
from crawler.core.url import UrlError, key_of, parse_seed
from crawler.engine.committer import Committer
from crawler.engine.crawl import Crawl
from crawler.engine.fleet import Fleet
from crawler.engine.monitoring.bottleneck import Backlog, Health, Reason
from crawler.engine.monitoring.counters import CrawlCounters, LatencyMeters
from crawler.engine.monitoring.ending import Ending, ending, urls_left
from crawler.engine.monitoring.status import Bounded, Monitor, Status
from crawler.engine.observer import Observer
from crawler.engine.operations import FORGOTTEN_RULE
from crawler.engine.options import SEEDS_NAMED, EngineConfiguration, SeedFile, refused_text
from crawler.engine.pages.recent_urls import RecentKeys
from crawler.engine.pages.response_processor import LARGE_AT_ONCE, ResponseProcessor
from crawler.engine.pages.robots import RobotsResponses
from crawler.engine.pages.traps import TrapWatch
from crawler.engine.pages.url_list_policy import UrlListPolicy
from crawler.engine.pages.url_policy import BUDGET_BYTES as RULES_BYTES
from crawler.engine.pages.url_policy import RobotsCache, UrlPolicy
from crawler.engine.pages.worker import Fetches, Worker
from crawler.engine.reevaluation import Reevaluation
from crawler.engine.rounds import SEEDS_AT_ONCE, Rounds, Schedule
from crawler.engine.scheduling.prefetch import PREFETCH_TOTAL
from crawler.engine.scheduling.restrictions import Blocklist, CrawlRateLimiter
from crawler.engine.scheduling.scheduler import Scheduler
from crawler.fetch.connection import Exchange
from crawler.fetch.fetcher import AddressRateLimit, SendingPaused
from crawler.fetch.http_client import Generation
from crawler.fetch.limits import Bandwidth, descriptor_limit, share_of_limit
from crawler.fetch.options import ClientOptions
from crawler.fetch.pool_statistics import HostConnections, PoolStats
from crawler.frontier.base import Frontier, FrontierFull, Recovered
from crawler.obs.fetch_line import redact_text
from crawler.sinks.base import Sink

_SEEDS_LOOKED_UP: Final = 1_000  # whether they were taken down
_SEEDS_AT_START: Final = (
    20_000  # of a transaction; while a crawl runs they are SEEDS_AT_ONCE, since parsing holds it up
)
_SEEDS_SHOWN: Final = 100_000  # between two calls that show how far the seeds are
_STORED_FILES: Final = "seed_files"  # value in the store: digests of file and rules → messages, number of refused seeds
_SUSPECTS_SHOWN: Final = 100  # at the end
_ROWS_AT_ONCE: Final = 1_000  # hosts of one query of the store
_PREVIEW_S: Final = 1.0  # for which a preview compares hosts
_HOSTS_NAMED: Final = 20  # of those that come and go, in a preview


class SystemClock:
    """The machine's clocks, as a `core.clock.Clock`. Timers of the event loop use CLOCK_MONOTONIC as well.

    `boot` goes on while the machine is suspended.
    """

    mono = staticmethod(time.monotonic)
    boot = staticmethod(partial(time.clock_gettime, time.CLOCK_BOOTTIME))
    now = staticmethod(time.time)


class CrawlClient(Fetches, Protocol):
    """The HTTP client, as the engine sees it (`fetch.http_client`)."""

    def needs_lookup(self, origin: Origin) -> bool: ...

    def is_connected(self, origin: Origin) -> bool: ...

    def first_address(self, origin: Origin) -> str | None: ...

    async def look_up(self, origin: Origin) -> bool: ...

    def prepare(self, options: ClientOptions) -> Generation | None: ...

    def reconfigure(self, generation: Generation) -> None: ...

    async def run(self) -> None: ...

    async def close(self) -> None: ...

    def cut(self, covers: Callable[[Origin], bool]) -> int: ...

    def forget_failure(self, host: str) -> None: ...

    def stats(self) -> PoolStats: ...

    def exchanges(self) -> dict[Origin, list[Exchange]]: ...

    def most_opened(self, limit: int) -> list[tuple[Origin, HostConnections]]: ...

    def held(self) -> Sequence[tuple[str, str, int, int]]: ...


class MakesClient(Protocol):
    """Makes the client, which enters `address_limiter` before each request, checks `permits` and obeys `bandwidth`. For
    a new connection it closes idle ones of which `is_wanted` is false before others.
    """

    def __call__(
        self,
        *,
        address_limiter: AddressRateLimit,
        permits: Callable[[Origin], bool],
        is_wanted: Callable[[Origin], bool],
        bandwidth: Bandwidth,
    ) -> CrawlClient: ...


class Engine:
    """One crawl and its parts. Build it inside the running event loop with an open frontier. Call `open`, then `run`,
    then `close`.
    """

    def __init__(
        self,
        options: EngineConfiguration,
        frontier: Frontier,
        sinks: Sequence[Sink],
        client: MakesClient,
        observer: Observer,
        clock: Clock,
        rng: random.Random | None = None,
    ) -> None:
        self.options = options
        self.frontier = frontier
        self.clock = clock
        self._observer = observer
        rng = rng or random.Random()  # noqa: S311 - jitter, not secrets
        fetch, engine = options.client.fetch, options.engine
        quiet = asyncio.Event()
        bandwidth = Bandwidth.of(fetch)
        self.counters, self.meters = CrawlCounters(), LatencyMeters()
        self.blocklist = Blocklist()
        rules = RobotsCache(options.robots_token)
        # Whose seeds are in the store: the fingerprint of the rules that refused some of them, "" if none did
        self._stored_files: dict[SeedFile, str] = {}
        self.crawl_rate_limiter = CrawlRateLimiter(clock, _hours_of(options), bandwidth, observer.hours)
        self.traps = TrapWatch(options.traps, frontier, clock, rng, observer.event)
        self.scheduler = Scheduler(
            options,
            frontier=frontier,
            clock=clock,
            rng=rng,
            rules=rules,
            traps=self.traps,
            crawl_rate_limiter=self.crawl_rate_limiter,
            blocklist=self.blocklist,
            quiet=quiet,
            on_event=observer.event,
            needs_lookup=lambda origin: self.client.needs_lookup(origin),
            look_up=lambda origin: self.client.look_up(origin),
            is_connected=lambda origin: self.client.is_connected(origin),
            first_address=lambda origin: self.client.first_address(origin),
        )
        self.host_table, self.revisits = self.scheduler.host_table, self.scheduler.revisits
        self.client = client(
            address_limiter=self.scheduler.address_limiter,
            permits=self._permits,
            is_wanted=self.scheduler.wants_connection,
            bandwidth=bandwidth,
        )
        first_contacts = share_of_limit(descriptor_limit(), fetch.connections, fetch.first_contacts)[1]
        self.scheduler.contacts.at_once = max(1, first_contacts)  # the client has raised the limit
        self.url_policy = UrlPolicy(options.judging_scope(), rules, options.obeys_robots)
        self.reevaluation = Reevaluation(
            frontier=frontier,
            scheduler=self.scheduler,
            url_policy=self.url_policy,
            clock=clock,
            on_event=observer.event,
        )
        self.rounds = Rounds(frontier, self.scheduler, clock, observer.event)
        self.schedule = Schedule(
            options.schedule,
            seeds=self._seeds_in_scope,
            frontier=frontier,
            scheduler=self.scheduler,
            rounds=self.rounds,
            clock=clock,
            on_event=observer.event,
        )
        recent_keys = RecentKeys()
        self.processor = ResponseProcessor(
            options, recent_keys=recent_keys, in_links=self.revisits.in_links if self.revisits.enabled else None
        )
        self.url_list_policy = UrlListPolicy(
            mode=options.sitemaps,
            frontier=frontier,
            recent_keys=recent_keys,
            trusts_dates_of=self.revisits.trusts_dates_of,
        )
        self.committer = Committer(
            frontier=frontier,
            sinks=sinks,
            scheduler=self.scheduler,
            rounds=self.rounds,
            counters=self.counters,
            meters=self.meters,
            clock=clock,
            options=engine,
            output=options.output,
            quiet=quiet,
            observer=observer,
            on_disk=self._on_disk,
            on_rules=self.reevaluation.robots_stored,
        )
        self.robots = RobotsResponses(
            scheduler=self.scheduler,
            url_policy=self.url_policy,
            url_list_policy=self.url_list_policy,
            clock=clock,
            limits=fetch,
            observer=observer,
            agents=frontier.agents,
        )
        large_pages = asyncio.Semaphore(LARGE_AT_ONCE)
        self.workers = [
            Worker(
                queue=queue,
                scheduler=self.scheduler,
                url_policy=self.url_policy,
                client=self.client,
                processor=self.processor,
                robots=self.robots,
                committer=self.committer,
                counters=self.counters,
                clock=clock,
                rng=rng,
                max_attempts=engine.max_attempts,
                large_pages=large_pages,
                url_list_policy=self.url_list_policy,
                observer=observer,
            )
            for queue, number in (
                (self.scheduler.queue, engine.workers),
                (self.scheduler.first_contacts, fetch.first_contacts),
            )
            for _ in range(number)
        ]
        self.fleet: Fleet | None = None
        if frontier.agents is not None:
            self.fleet = Fleet(
                frontier.agents,
                frontier=frontier,
                scheduler=self.scheduler,
                reevaluation=self.reevaluation,
                url_policy=self.url_policy,
                counters=self.counters,
                clock=clock,
                lease_clock=clock.boot if isinstance(clock, SystemClock) else clock.mono,
                on_event=observer.event,
                on_slots=self.rounds.look_again,
                status=self._status_text,
            )
            self.scheduler.pause_reason = self.fleet.pause_reason
        self.crawl = Crawl(
            scheduler=self.scheduler,
            workers=self.workers,
            committer=self.committer,
            reevaluation=self.reevaluation,
            rounds=self.rounds,
            clock=clock,
            options=engine,
            quiet=quiet,
            observer=observer,
            background=[
                self.client.run,
                *([self.schedule.run] if engine.linger_s is None else []),
                *([self.fleet.run, self.fleet.obey] if self.fleet is not None else []),
            ],
            is_over=self.fleet.is_over if self.fleet is not None else None,
        )
        self.monitor = Monitor(
            crawl=self.crawl,
            scheduler=self.scheduler,
            committer=self.committer,
            workers=self.workers,
            counters=self.counters,
            meters=self.meters,
            pool_stats=self.client.stats,
            exchanges=self.client.exchanges,
            frontier=frontier,
            clock=clock,
            schedule=self.schedule,
            fleet=self.fleet.figures if self.fleet is not None else None,
        )
        self.health = Health(
            crawl=self.crawl,
            scheduler=self.scheduler,
            committer=self.committer,
            workers=self.workers,
            counters=self.counters,
            clock=clock,
            attempt_s=lambda: self.options.client.fetch.total_timeout_s,
        )

    # -- from start to end

    async def open(
        self, recovered: Recovered, *, on_seeds: Callable[[int, int], None] | None = None
    ) -> tuple[list[str], list[str]]:
        """Load what the frontier recovered, open the output files, and store the seeds. `on_seeds` is called with the
        number of seeds stored and of all, if there are many.

        Return messages about seeds that the scope refuses, and about seeds that were taken down. Raises the errors of
        opening a sink, and OSError if a file of seeds cannot be read any more.
        """
        if self.fleet is not None:
            await self.fleet.open()
        recovery = await self.committer.open(recovered.sink_files, is_restored=recovered.is_restored)
        self._observer.recovered(recovered, recovery)
        self.url_policy.scope = self.url_policy.scope.widened(*recovered.scope_hosts)
        self.blocklist.load(await self.frontier.blocks())
        self.scheduler.load(recovered)
        self.rounds.load(recovered.last_round)
        self.counters.life = recovered.counters
        await self.frontier.judge_by(self.options.fingerprint)
        self.reevaluation.load(await self.frontier.sweep())
        refused, looked_up = await self._store_seeds(on_seeds)
        await self._unpark(self.options)
        await self.scheduler.start()
        taken_down = await self.frontier.forgotten(looked_up)
        self.health.check()
        return refused, [f"{redact_text(one.url)}: {FORGOTTEN_RULE}" for one in taken_down]

    async def _store_seeds(self, on_seeds: Callable[[int, int], None] | None) -> tuple[list[str], list[Discovered]]:
        """Store the seeds in slices, but for files that an earlier run stored by the same rules. Returns messages about
        those that the scope refuses, and the first seeds that it does not refuse.
        """
        total = len(self.options.seeds) + sum(file.count for file in self.options.seed_files)
        known = orjson.loads(await self.frontier.stored_value(_STORED_FILES) or b"{}")
        stored: dict[str, tuple[list[str], int]] = {}
        refused, number, first = await self._store_seeds_of(self.options.seeds, 0, total, on_seeds)
        done = len(self.options.seeds)
        for file in self.options.seed_files:
            name = f"{file.digest} {self.options.fingerprint}"
            if name in known:
                found = known[name]
                first += self._in_scope(_parsed(islice(file.read(), _SEEDS_LOOKED_UP - len(first))))
            else:
                *found, others = await self._store_seeds_of(file.read(), done, total, on_seeds)
                first += others[: _SEEDS_LOOKED_UP - len(first)]
            stored[name] = found
            self._stored_files[file] = self.options.fingerprint if found[1] else ""
            refused += found[0][: SEEDS_NAMED - len(refused)]
            number, done = number + found[1], done + file.count
            if name not in known:
                await self.frontier.store_value(_STORED_FILES, orjson.dumps(known | stored))
        if known.keys() - stored.keys():
            await self.frontier.store_value(_STORED_FILES, orjson.dumps(stored))
        return refused_text(refused, number), first

    async def _store_seeds_of(
        self, texts: Iterable[str], done: int, total: int, on_seeds: Callable[[int, int], None] | None
    ) -> tuple[list[str], int, list[Discovered]]:
        """Returns the first messages about refused seeds, the number of refused seeds, and the first of the others."""
        refused: list[str] = []
        first: list[Discovered] = []
        number = 0
        seeds = _parsed(texts)
        while part := list(islice(seeds, _SEEDS_AT_START)):
            in_scope: list[Discovered] = []
            for one in part:
                if (denied := _judge_seed(one, self.url_policy.scope)) is None:
                    in_scope.append(one)
                    continue
                number += 1
                if number <= SEEDS_NAMED:
                    refused.append(f"{redact_text(one.url)}: denied by {denied.rule}")
            self.scheduler.discoveries_stored(await self.frontier.add(in_scope, now=self.clock.now()))
            first += in_scope[: _SEEDS_LOOKED_UP - len(first)]
            before, done = done, done + len(part)
            if on_seeds is not None and done // _SEEDS_SHOWN > before // _SEEDS_SHOWN:
                on_seeds(done, total)
        return refused, number, first

    async def run(self) -> StoppedBy:
        """Crawl until nothing is left to do, or until `drain`. Returns why it ended."""
        return await self.crawl.run()

    def drain(self, reason: StoppedBy = StoppedBy.SIGNAL) -> None:
        """Finish the requests in flight, then end."""
        self.crawl.drain(reason)

    async def close(self) -> list[str]:
        """Close the output files and all connections, after `run`. Return the problems as text."""
        reason = self.crawl.disk_reason
        problems = ([reason] if reason else []) + await self.committer.close()
        await self.client.close()
        if self.fleet is not None:
            await self.fleet.close()
        return problems

    async def ending(self, stopped_by: StoppedBy) -> Ending:
        """How the crawl ended, and which URLs are left. Raises Inconsistent."""
        suspects: list[tuple[str, Suspects]] = []
        left: dict[Reason | None, Backlog] = {}
        with suppress(FrontierFull):  # on a failing disk they are left out
            found = await self.frontier.suspects(limit=_SUSPECTS_SHOWN)
            rows = await self.frontier.host_rows_of({one.host_id for one in found})
            names = {row.id: row.origin.host for row in rows}
            suspects = [(names[one.host_id], one) for one in found]
            hosts, parked = self.host_table.hosts.values(), await self.frontier.parked()
            left = urls_left(hosts, parked, self.frontier.totals(), self.clock.mono())
        committer = self.committer
        is_settled = committer.is_idle and not self.scheduler.leases_out and not committer.unstored
        # What other agents hold back is not known
        owns_all = self.frontier.agents is None or self.frontier.agents.owns_all
        return ending(
            stopped_by,
            self.frontier.totals(),
            left,
            suspects,
            is_settled=is_settled and owns_all and not committer.lost_at_end,
        )

    def _seeds_in_scope(self) -> Iterator[Discovered]:
        return self._in_scope(_parsed(self.options.all_seeds()))

    def _in_scope(self, seeds: Iterable[Discovered]) -> Iterator[Discovered]:
        return (one for one in seeds if _judge_seed(one, self.url_policy.scope) is None)

    def _permits(self, origin: Origin) -> bool:
        """Whether requests to an origin are allowed: it is not blocked, and not switched off. Raises SendingPaused."""
        if self.fleet is not None and not self.fleet.may_send():
            raise SendingPaused
        return self.blocklist.permits(origin) and self.url_policy.scope.overrides.disabled_by(origin.host) is None

    def _on_disk(self, reason: str | None) -> None:
        self._observer.disk(reason)
        self.crawl.disk(reason)

    def _status_text(self) -> str:
        status = self.monitor.status()
        return orjson.dumps(status.as_progress() | {"state": status.state}, default=str).decode()

    # -- other options

    async def reconfigure(self, options: EngineConfiguration) -> None:
        """Apply new options. Options that need a restart must be unchanged.

        Raises OSError, LocalProtocolError and FrontierFull: the former options then stay.
        """
        generation = self.client.prepare(options.client)
        try:
            if seeds := self.new_seeds(options):
                self.scheduler.discoveries_stored(await self.frontier.add(seeds, now=self.clock.now()))
            await self.revisits.prepare(options.recrawl, options.overrides)
            suspects = await self.frontier.suspects(limit=len(self.host_table.hosts))
            sweep = await self.frontier.judge_by(options.fingerprint)
        except FrontierFull:
            if generation is not None:
                await generation.close()
            raise
        # Only now: during the calls of the store, the redirect of a seed may have added a host to the scope.
        self.url_policy.scope = self._scope_under(options)
        self.url_policy.obey = options.obeys_robots
        self.processor.reconfigure(options)
        self.robots.reconfigure(options.client.fetch)
        if generation is not None:
            self.client.reconfigure(generation)
        self.crawl_rate_limiter.set_hours(_hours_of(options))
        self.url_list_policy.mode = options.sitemaps
        self.scheduler.reconfigure(options, [one.host_id for one in suspects])
        self.schedule.reconfigure(options.schedule)
        if sweep is not None:
            self.reevaluation.rules_changed(sweep)
        self.options = options
        with suppress(FrontierFull):  # then the next start or reload does it
            await self._unpark(options)

    async def _unpark(self, options: EngineConfiguration) -> None:
        """Make hosts ready that other options held back, in this run or the last one. Raises FrontierFull."""
        scope, politeness, overrides = options.scope, options.politeness, options.overrides.all
        for parked, name, holding in (
            ("limit", "limits", (scope.max_urls, scope.max_urls_per_host, [(o.hosts, o.max_urls) for o in overrides])),
            ("robots", "robots_rules", (politeness.robots, [(o.hosts, o.robots) for o in overrides])),
        ):
            value = repr(holding).encode()
            if await self.frontier.stored_value(name) != value:
                await self.scheduler.unpark(parked)
                await self.frontier.store_value(name, value)

    def new_seeds(self, options: EngineConfiguration) -> list[Discovered]:
        """The seeds that new options add, or let in that were refused; without those of files."""
        scope, before = self._scope_under(options), set(self.options.seeds)
        new = _parsed(text for text in options.seeds if text not in before)
        known = _parsed(text for text in options.seeds if text in before) if scope is not self.url_policy.scope else ()
        let_in = (one for one in known if _judge_seed(one, self.url_policy.scope) is not None)
        return [one for one in chain(new, let_in) if _judge_seed(one, scope) is None]

    def changed_files(self, options: EngineConfiguration) -> list[SeedFile]:
        """The files of seeds that are not in the store as they are, or of which other rules refused some."""
        stored = self._stored_files
        return [file for file in options.seed_files if stored.get(file) not in ("", options.fingerprint)]

    async def add_seed_files(self) -> int:
        """Store the seeds of changed files, after `reconfigure`. Returns the number of new URLs.

        Raises OSError and FrontierFull: what was stored stays, and the next call begins with the same file.
        """
        new = 0
        for file in self.changed_files(self.options):
            seeds, refused_by = _parsed(file.read()), ""
            while part := list(islice(seeds, SEEDS_AT_ONCE)):
                in_scope = list(self._in_scope(part))
                if len(in_scope) < len(part):
                    refused_by = self.options.fingerprint
                receipt = await self.frontier.add(in_scope, now=self.clock.now())
                self.scheduler.discoveries_stored(receipt)
                new += sum(receipt.links_new)
            self._stored_files[file] = refused_by
        self._stored_files = {file: self._stored_files[file] for file in self.options.seed_files}
        return new

    async def preview(self, options: EngineConfiguration) -> dict[str, object]:
        """The known hosts that the scope of new options would add and remove, and how many URLs that would change.
        `hosts_compared` of `hosts` were compared, in _PREVIEW_S.
        """
        old, new = self.url_policy.scope, self._scope_under(options)
        if new is old:
            return {"scope_changes": False}
        of_seeds = (parse_seed(one.directory)[1].host for one in (*options.seed_options, *self.options.seed_options))
        known = {*options.seed_hosts, *self.options.seed_hosts, *of_seeds}
        after = hosts = 0
        end_mono = self.clock.mono() + _PREVIEW_S
        for file in {*options.seed_files}.symmetric_difference(self.options.seed_files):
            with suppress(OSError):  # its hosts that are in the store are compared below
                for host in (one.origin.host for one in _parsed(file.read())):
                    if new.has_host(host) != old.has_host(host):
                        known.add(host)
                    if self.clock.mono() >= end_mono:
                        break
        while rows := await self.frontier.host_rows(after=after, limit=_ROWS_AT_ONCE):
            after, hosts = rows[-1].id, hosts + len(rows)
            known |= {row.origin.host for row in rows if new.has_host(row.origin.host) != old.has_host(row.origin.host)}
            if self.clock.mono() >= end_mono:
                break
        come = sorted(host for host in known if new.has_host(host) and not old.has_host(host))
        go = sorted(host for host in known if old.has_host(host) and not new.has_host(host))
        return {
            "scope_changes": True,
            "hosts": self.frontier.totals().hosts,
            "hosts_compared": hosts,
            "hosts_come": come[:_HOSTS_NAMED],
            "hosts_come_count": len(come),
            "hosts_go": go[:_HOSTS_NAMED],
            "hosts_go_count": len(go),
            **await self.reevaluation.count(new),
        }

    def _scope_under(self, new: EngineConfiguration) -> Scope:
        """The scope of new options, with what redirects of seeds added."""
        scope, old = self.url_policy.scope, self.options
        if all(
            getattr(old, name) == getattr(new, name)
            for name in ("scope", "traps", "seed_hosts", "seed_directories", "seed_names", "seed_options", "overrides")
        ):
            return scope
        return new.judging_scope(scope.added)

    # -- status

    def status(self) -> Status:
        """The status now."""
        return self.monitor.status()

    def bounded(self) -> list[Bounded]:
        """The sizes of the parts in memory, with their limits."""
        buffered = sum(len(host.buffer) for host in self.host_table.hosts.values())
        recent_keys_bytes = self.processor.recent_keys_bytes
        return [
            *(Bounded(*one) for one in self.client.held()),
            Bounded("uncommitted", "bytes", self.committer.uncommitted_bytes, self.options.engine.memory // 2),
            Bounded("parsed robots.txt", "bytes", self.url_policy.rules.bytes, RULES_BYTES),
            Bounded("recent URL keys", "bytes", recent_keys_bytes, recent_keys_bytes),
            Bounded("URLs ready", "entries", buffered, PREFETCH_TOTAL),
            Bounded("first contacts", "entries", self.scheduler.contacts.in_flight, self.scheduler.contacts.at_once),
            Bounded("hosts", "entries", len(self.host_table.hosts), self.options.engine.active_hosts),
        ]


def _hours_of(options: EngineConfiguration) -> Hours | None:
    return Hours(options.engine.hours, utc_offset_of(None)) if options.engine.hours else None


def _parsed(texts: Iterable[str]) -> Iterator[Discovered]:
    for text in texts:
        with suppress(UrlError):  # a line that was changed after its file was checked
            url, origin = parse_seed(text)
            yield Discovered(url, origin, key_of(url), 0, "", Source.SEED)


def _judge_seed(one: Discovered, scope: Scope) -> Denied | None:
    return scope.judge(one.url, one.origin, depth=0, hop_path="", source=Source.SEED)
