"""The parts of a crawl, made and given to each other: concrete classes are named here. Part of the composition root.

Nothing here runs, opens or waits: what is returned does nothing until `app` starts it.
"""

import asyncio
import random
from collections.abc import Callable
from pathlib import Path

from crawler import __version__
from crawler.client import make_client
from crawler.clients import Clients
from crawler.core.hours import Hours
from crawler.core.models import Lease
from crawler.core.scope import Scope
from crawler.core.url import seed
from crawler.engine.committer import Committer
from crawler.engine.crawl import Crawl
from crawler.engine.monitoring.counters import CrawlCounters
from crawler.engine.monitoring.event_log import EventLog
from crawler.engine.pages.recent_urls import RecentKeys
from crawler.engine.pages.response_processor import LARGE_AT_ONCE, ResponseProcessor
from crawler.engine.pages.revisits import Revisits
from crawler.engine.pages.traps import TrapWatch
from crawler.engine.pages.url_list_policy import UrlListPolicy
from crawler.engine.pages.url_policy import RobotsCache, UrlPolicy
from crawler.engine.pages.worker import Worker
from crawler.engine.reevaluation import Reevaluation
from crawler.engine.scheduling.blocklist import Blocklist
from crawler.engine.scheduling.host_table import HostTable
from crawler.engine.scheduling.rate_limits import AddressRateLimiter, CrawlRateLimiter
from crawler.engine.scheduling.scheduler import Scheduler
from crawler.engine.system_clock import SystemClock, utc_offset_s
from crawler.frontier.sqlite.store import SqliteFrontier
from crawler.obs.events import Event
from crawler.obs.logs import Logs
from crawler.parts import Parts
from crawler.settings.settings import Mode, Settings
from crawler.sinks.base import Sink
from crawler.sinks.pages import PagesSink
from crawler.sinks.warc import WarcSink


def assemble(
    settings: Settings,
    mode: Mode,
    output: Path,
    frontier: SqliteFrontier,
    clock: SystemClock,
    logs: Logs,
    tell: Callable[[str], None],
) -> Parts:
    """Everything of one crawl. `tell` is said in words what nobody would see in the events. Raises LocalProtocolError
    and what TlsProfile raises.
    """
    rng = random.Random()  # noqa: S311 - jitter, not secrets
    politeness, scope_options = settings.politeness_options(), settings.scope_options()
    fetch, engine, identity = settings.fetch_options(), settings.engine_options(mode), settings.identity_options()
    tally = CrawlCounters()
    leases_out: Callable[[], int] = lambda: len(scheduler.leases_out)  # noqa: E731 - scheduler comes below
    reporter = EventLog(
        logs,
        clock,
        output,
        min_free=engine.min_free,
        in_flight=leases_out,
        tell=(lambda words: None) if logs.is_shown else tell,
    )
    gate = AddressRateLimiter(settings.address_politeness(), clock)
    blocks = Blocklist()
    client = make_client(
        settings,
        clock=clock,
        gate=gate,
        permits=blocks.permits,
        memory=engine.memory,
        spool_directory=str(output),
        on_event=lambda name, fields: reporter.event(Event(name), fields),
    )
    valve = CrawlRateLimiter(clock, Hours(engine.hours, utc_offset_s) if engine.hours else None, client.bandwidth)
    valve.on_hours = reporter.hours
    queue: asyncio.Queue[Lease] = asyncio.Queue(maxsize=engine.workers)
    books = HostTable(
        politeness=politeness, scope=scope_options, clock=clock, rng=rng, on_event=reporter.event, blocks=blocks
    )
    rules = RobotsCache(identity.robots_token)
    revisits = Revisits(settings.recrawl_options(mode), frontier=frontier, clock=clock, rng=rng)
    traps = TrapWatch(settings.trap_options(), frontier, clock, rng, reporter.event)
    scheduler = Scheduler(
        books=books,
        frontier=frontier,
        queue=queue,
        gate=gate,
        clock=clock,
        politeness=politeness,
        options=engine,
        rules=rules,
        traps=traps,
        valve=valve,
        revisits=revisits,
    )
    obeys = politeness.robots == "obey"
    seed_hosts = [seed(text)[1].host for text in settings.seeds]
    admission = UrlPolicy(Scope(scope_options, seed_hosts, settings.trap_options()), rules, obeys)
    rejudger = Reevaluation(
        frontier=frontier, scheduler=scheduler, admission=admission, clock=clock, on_event=reporter.event
    )
    seen = RecentKeys()
    reader = ResponseProcessor(
        content=settings.content_options(),
        fetch=fetch,
        token=identity.robots_token,
        obey=obeys,
        requisites=scope_options.requisites,
        lazy=scope_options.lazy,
        seen=seen,
        in_links=revisits.in_links if revisits.enabled else None,
    )
    listings = UrlListPolicy(
        mode=settings.sitemaps(mode), frontier=frontier, seen=seen, trusts_dates_of=revisits.trusts_dates_of
    )

    def on_disk(reason: str | None) -> None:
        reporter.disk(reason)
        crawl.disk(reason)

    committer = Committer(
        frontier=frontier,
        sinks=_sinks(settings, output, clock),
        scheduler=scheduler,
        tally=tally,
        clock=clock,
        options=engine,
        output=output,
        on_stored=reporter.stored,
        on_closed=reporter.file_closed,
        on_lost=reporter.file_lost,
        on_disk=on_disk,
    )

    def on_scope_host(host: str, via: str) -> None:
        committer.add_scope_host(host)
        reporter.scope_widened(host, via)

    large_pages = asyncio.Semaphore(LARGE_AT_ONCE)
    workers = [
        Worker(
            queue=queue,
            scheduler=scheduler,
            admission=admission,
            fetcher=client.fetcher,
            reader=reader,
            committer=committer,
            tally=tally,
            clock=clock,
            rng=rng,
            max_attempts=engine.max_attempts,
            limits=fetch,
            large_pages=large_pages,
            revisits=revisits,
            listings=listings,
            traps=traps,
            on_skipped=reporter.skip,
            on_scope_host=on_scope_host,
            on_robots=reporter.robots,
        )
        for _ in range(engine.workers)
    ]
    crawl = Crawl(
        scheduler=scheduler,
        workers=workers,
        committer=committer,
        clock=clock,
        options=engine,
        on_drain=reporter.drain,
        rejudger=rejudger,
    )
    return Parts(
        crawl, scheduler, books, gate, admission, committer, reporter, tally, Clients(client), reader, workers,
        blocks, valve, frontier, clock, logs, output, rejudger,
        revisits, listings, mode,
    )  # fmt: skip


def _sinks(settings: Settings, output: Path, clock: SystemClock) -> list[Sink]:
    options = settings.sink_options()
    info = (
        ("software", f"crawlerd/{__version__}"),
        ("http-header-user-agent", settings.identity_options().user_agent),
        ("robots", "classic" if settings.politeness_options().robots == "obey" else "ignore"),
    )
    sinks: list[Sink] = []
    if options.warc:
        sinks.append(WarcSink(options, output, info=info, now=clock.now))
    if options.pages:
        sinks.append(PagesSink(options, output, now=clock.now))
    return sinks
