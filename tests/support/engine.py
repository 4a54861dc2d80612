"""The real engine with everything outside it replaced: a scripted web, a store in memory, time that jumps."""

import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from crawler.core.enums import Source, StoppedBy, TaskKind
from crawler.core.models import Discovered, FetchResult, Origin, RecordLocation, SinkFile
from crawler.core.options import Override, PolitenessOptions, RecrawlOptions, ScopeOptions, TrapOptions
from crawler.core.politeness import politeness_key
from crawler.core.scope import Overrides
from crawler.core.url import key_of, parse
from crawler.engine.engine import Engine
from crawler.engine.observer import Visited
from crawler.engine.options import EngineConfiguration, EngineOptions, SeedFile
from crawler.engine.pages.response_processor import SkippedLink
from crawler.engine.scheduling.host import Host
from crawler.fetch.fetcher import AddressRateLimit
from crawler.fetch.limits import Bandwidth
from crawler.fetch.options import ClientOptions, FetchOptions, IdentityOptions
from crawler.frontier.base import Frontier, Recovered
from crawler.obs.events import Event
from crawler.sinks.base import LostFile, SinkRecovered
from tests.support.log_lines import problems_of_event
from tests.support.memory_frontier import MemoryFrontier
from tests.support.scripted_web import Web
from tests.support.virtual_time import LoopClock, virtual_loop

TOKEN = "testbot"


def seed(url: str, **more: Any) -> Discovered:
    href, origin = parse(url)
    return Discovered(href, origin, key_of(href), more.pop("depth", 0), "", more.pop("source", Source.SEED), **more)


class RecordingObserver:
    """An observer that keeps what it is told."""

    def __init__(self, clock: LoopClock) -> None:
        self.clock = clock
        self.events: list[tuple[str, dict[str, object]]] = []
        self.events_mono: list[float] = []  # when each of them came
        self.visits: list[tuple[Visited, int, RecordLocation | None]] = []
        self.closed: list[SinkFile] = []
        self.disk_reasons: list[str | None] = []
        self.skipped: list[SkippedLink] = []
        self.scope_hosts: list[tuple[str, str]] = []
        self.drained_for: list[StoppedBy] = []
        self.robots_seen: list[Host] = []

    def event(self, name: Event, fields: dict[str, object]) -> None:
        assert problems_of_event(name, fields) == []
        self.events.append((name.value, dict(fields)))
        self.events_mono.append(self.clock.mono())

    def recovered(self, recovered: Recovered, recovery: SinkRecovered) -> None:
        return

    def stored(self, visited: Visited, links_new: int, written: RecordLocation | None) -> None:
        self.visits.append((visited, links_new, written))

    def skip(self, skipped: Sequence[SkippedLink]) -> None:
        self.skipped += skipped

    def scope_widened(self, host: str, via: str) -> None:
        self.scope_hosts.append((host, via))

    def robots(self, host: Host) -> None:
        self.robots_seen.append(host)

    def file_closed(self, file: SinkFile) -> None:
        self.closed.append(file)

    def file_lost(self, lost: LostFile, urls: int) -> None:
        return

    def disk(self, reason: str | None) -> None:
        self.disk_reasons.append(reason)

    def hours(self, is_open: bool, until_at: float) -> None:
        return

    def drain(self, reason: StoppedBy, in_flight: int) -> None:
        self.drained_for.append(reason)


POLITE = PolitenessOptions(delay_s=1.0, address_delay_s=0.0, adaptive=False)
AT_ONCE = PolitenessOptions(delay_s=0.0, address_delay_s=0.0, connections_per_host=4, connections_per_address=1_000)
CLIENT = ClientOptions(IdentityOptions(robots_token=TOKEN))
FIRST_CONTACTS = 24  # at once


class Harness(RecordingObserver):
    """The engine around a `Web` and a frontier, and its parts by their names. Build it inside `run`."""

    def __init__(
        self,
        *seeds: str,
        politeness: PolitenessOptions = POLITE,
        scope: ScopeOptions | None = None,
        engine: EngineOptions | None = None,
        frontier: Frontier | None = None,
        seed_files: Sequence[SeedFile] = (),
        sinks: Sequence[Any] = (),
        output: Path = Path("/"),
        rng_seed: int = 1,
        traps: TrapOptions | None = None,
        recrawl: RecrawlOptions | None = None,
        sitemaps: str = "named",
        overrides: Sequence[Override] = (),
        web: dict[str, FetchResult | Sequence[FetchResult]] | None = None,
        first_contacts: int = FIRST_CONTACTS,
    ) -> None:
        self.options = engine or EngineOptions(workers=8, linger_s=600.0, min_free=0, drain_s=5.0)
        self.loop = virtual_loop()
        super().__init__(LoopClock(self.loop))
        key_name = partial(politeness_key, options=politeness)
        self.frontier: Any = frontier if frontier is not None else MemoryFrontier(key_name)
        self.web = Web(self.clock, pages=web or {})

        def make_client(
            *,
            address_limiter: AddressRateLimit,
            permits: object,
            is_wanted: Callable[[Origin], bool],
            bandwidth: Bandwidth,
        ) -> Web:
            self.web.address_limiter, self.web.is_wanted = address_limiter, is_wanted
            self.bandwidth = bandwidth
            return self.web

        self.engine = crawl = Engine(
            EngineConfiguration(
                seeds=seeds,
                seed_files=seed_files,
                scope=scope or ScopeOptions(),
                politeness=politeness,
                address_politeness=politeness,
                traps=traps or TrapOptions(),
                recrawl=recrawl or RecrawlOptions(),
                client=replace(CLIENT, fetch=FetchOptions(first_contacts=first_contacts)),
                overrides=Overrides(overrides),
                engine=self.options,
                sitemaps=sitemaps,
                output=output,
            ),
            self.frontier,
            sinks,
            make_client,
            self,
            self.clock,
            random.Random(rng_seed),
        )
        self.crawl, self.scheduler, self.committer = crawl.crawl, crawl.scheduler, crawl.committer
        self.host_table, self.traps = crawl.host_table, crawl.traps
        self.url_policy, self.processor, self.url_list_policy = crawl.url_policy, crawl.processor, crawl.url_list_policy
        self.reevaluation, self.revisits, self.counters = crawl.reevaluation, crawl.revisits, crawl.counters
        self.workers, self.monitor = crawl.workers, crawl.monitor

    async def open(self) -> None:
        """As the composition root does."""
        await self.engine.open(await self.frontier.open())

    async def close(self, *, clean: bool = True) -> None:
        await self.engine.close()
        await self.frontier.close(clean=clean)

    async def run(self) -> StoppedBy:
        """A whole crawl: open, run, close."""
        await self.open()
        stopped_by = await self.engine.run()
        await self.close()
        return stopped_by

    # -- what a test looks at

    def host(self, name: str) -> Host:
        return next(host for host in self.host_table.hosts.values() if host.origin.host == name)

    @property
    def settled(self) -> dict[str, str]:
        """The last stored state of each page."""
        return {
            visited.settlement.task.url: visited.settlement.state.value
            for visited, _, _ in self.visits
            if visited.settlement.task.kind is TaskKind.PAGE
        }

    def events_named(self, event: str) -> list[dict[str, object]]:
        """The fields of each event of that name, in order."""
        return [fields for name, fields in self.events if name == event]
