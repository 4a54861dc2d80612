"""The composition root: names concrete classes and gives each what it needs.

`run` takes settings and returns what happened; every failure that is not a bug comes out as one of the exceptions named
here or by the rooms. What a command prints, and its exit code, is the cli's business.
"""

import gc
import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Final

import uvloop

from crawler import __version__, daemon
from crawler.core.enums import StoppedBy
from crawler.core.formatting import naming_key
from crawler.core.url import UrlError, parse_seed
from crawler.daemon import Notifier, is_journal_stream
from crawler.engine.engine import Engine, SystemClock
from crawler.engine.monitoring.ending import Ending, summarise
from crawler.engine.monitoring.event_log import EventLog
from crawler.engine.monitoring.rates import SAMPLE_S
from crawler.engine.monitoring.status import Status
from crawler.fetch.http_client import HttpClient
from crawler.fetch.limits import connections_within, descriptor_limit
from crawler.frontier.sqlite.store import SqliteFrontier
from crawler.obs.events import Event
from crawler.obs.fetch_line import redact_text
from crawler.obs.logs import Logs, configure
from crawler.output_directory import prepare, require_store, same_delays, write_run_file
from crawler.service import Service
from crawler.settings.loading import Loaded
from crawler.settings.settings import Mode, Settings
from crawler.sinks.base import Sink
from crawler.sinks.pages import PagesSink
from crawler.sinks.warc import WarcSink

# Threads that hash, compress and commit give the GIL up several times a visit; each time they wait this long for the
# busy event loop to hand it back (CPython's default is 5 ms: docs/decisions/0004-threads.md).
SWITCH_INTERVAL_S: Final = 0.0005


# A page makes thousands of short-lived tuples and hardly a cycle: collecting at every 700 costs 3 % and finds nothing.
GC_THRESHOLD: Final = 50_000


VIEW_S: Final = 0.2  # how often a view is drawn: it reads as live, for half a percent of a core
HOSTS_SHOWN: Final = 20  # of a summary's connections_by_host


@dataclass(frozen=True, slots=True)
class View:
    """Who watches: `on_status` is called several times a second; `console` shows events on stderr as well. Where
    nobody sees the events, `tell` is said in words what has to be known at once.
    """

    on_status: Callable[[Status], None] | None = None
    console: bool = False
    tell: Callable[[str], None] = lambda words: None


@dataclass(frozen=True, slots=True)
class Result:
    """How a crawl ended. `summary` has the names of `crawl --json`; `seed_problems` says of each seed that was not
    answered why, when none was; `output_problems` why something could not be written; `opens_at` when `fetch.hours`
    open, if they are closed.
    """

    ending: Ending
    summary: dict[str, object]
    details: dict[str, dict[str, int]]  # counts by word: error_types, deny_reasons, failures, skipped
    seed_problems: tuple[str, ...] = ()
    output_problems: tuple[str, ...] = ()
    opens_at: float | None = None
    unstored: int = 0  # visits that were made and could not be stored
    gone: tuple[Path, ...] = ()  # what was stored and is not there any more
    seeds_refused: tuple[str, ...] = ()  # every seed that was answered was answered with 4xx or 5xx: the first of them


def run(
    settings: Settings,
    *,
    mode: Mode,
    view: View,
    configuration: str | None = None,
    read_again: Callable[[], Loaded] | None = None,
) -> Result:
    """Crawl to the end. `configuration` is the file's path, for run.json; `read_again` reads it anew, for a reload.

    Raises OutputUnusable, StoreMissing, OSError, EndedAtOnce, and what the frontier's and sinks' `open` raise.
    """
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    gc.freeze()  # what start-up made stays; the collector need not walk it again
    gc.set_threshold(GC_THRESHOLD, 50, 100)
    return uvloop.run(_run(settings, mode, view, configuration, read_again))


def _say_descriptors(settings: Settings, logs: Logs, view: View) -> None:
    """Where there are too few, the crawl is a narrower one than was asked for."""
    wanted, limit = settings.fetch.connections, descriptor_limit()
    room = connections_within(limit, wanted)
    if room == wanted:
        return
    logs.event(Event.DESCRIPTORS_FEW, limit=limit, connections=room, wanted=wanted)
    if not logs.is_shown:
        view.tell(
            f"{limit} file descriptors (ulimit -n) have room for {room} connections at once, not for the "
            f"{wanted} of fetch.connections"
        )


async def _run(
    settings: Settings, mode: Mode, view: View, configuration: str | None, read_again: Callable[[], Loaded] | None
) -> Result:
    output = prepare(settings.output_directory)
    require_store(settings.frontier_path, output)
    clock = SystemClock()
    frontier = SqliteFrontier(settings.frontier_path, duplicates=settings.frontier.duplicates)
    started_mono = clock.mono()
    recovered = await frontier.open()  # takes the lock: only then may logs and sinks be touched
    clean = False
    try:
        logs = open_logs(settings, console=view.console)
        try:
            options = settings.engine_configuration(mode)
            tell = (lambda words: None) if logs.is_shown else view.tell  # what is shown need not be told as well
            reporter = EventLog(logs, clock, output, min_free=options.engine.min_free, notify=tell)
            client = partial(
                HttpClient,
                options.client,
                clock=clock,
                memory=options.engine.memory,
                spool_directory=str(output),
                on_event=lambda name, fields: reporter.event(Event(name), fields),
            )
            engine = Engine(options, frontier, _sinks(settings, output, clock), client, reporter, clock)
            _say_start(settings, logs, view, configuration)
            refused, taken_down = await engine.open(recovered, same_delays=same_delays(output, options.politeness))
            for words in taken_down:
                view.tell(f"seed {words}")
            write_run_file(settings.paths(), run_id=logs.run_id, configuration=configuration, rules=settings.rules())
            totals = await frontier.totals()
            logs.event(
                Event.READY, queued=totals.queued, waiting=totals.waiting, hosts=totals.hosts,
                socket=str(settings.control_socket), admin=settings.admin.listen or None,
                dur_ms=round((clock.mono() - started_mono) * 1e3, 1),
            )  # fmt: skip
            service = Service(
                settings, mode, engine, reporter, logs, configuration=configuration, read_again=read_again
            )
            stopped_by = await _serve(settings, mode, view, engine, service, logs)
            output_problems = await engine.close()
            await reporter.finish()
            clean = engine.committer.is_idle
            end, counters, duration_s = await engine.ending(stopped_by), engine.counters, clock.mono() - started_mono
            summary = summarise(
                counters,
                engine.client.stats(),
                len(engine.host_table.hosts),
                output,
                end,
                duration_s,
                most_opened=engine.client.most_opened(HOSTS_SHOWN),
                unstored=engine.committer.unstored,
            )
            gone = [path for path in (output, settings.frontier_path) if not path.exists()][:1]
            logs.event(
                Event.STOP, reason=stopped_by.value, responses=counters.responses, pages=counters.pages,
                bytes=counters.bytes, errors=counters.errors, dur_ms=round(duration_s * 1e3),
            )  # fmt: skip
            answered = counters.page_responses > 0 or recovered.counters.pages > 0
            return Result(
                end,
                summary,
                reporter.details(counters),
                () if answered else (*reporter.first_failures(), *refused, *taken_down),
                tuple(output_problems),
                engine.crawl_rate_limiter.closed_until_at,
                engine.committer.unstored,
                tuple(gone),
                () if recovered.counters.pages else reporter.seeds_refused(),
            )
        finally:
            logs.close()
    finally:
        await frontier.close(clean=clean)


def _say_start(settings: Settings, logs: Logs, view: View, configuration: str | None) -> None:
    logs.event(
        Event.START,
        version=__version__,
        pid=os.getpid(),
        config=configuration,
        output=str(settings.output_directory),
        agent=settings.identity_options().user_agent,
        python=sys.version.split()[0],
        proxy=_proxy_address(settings),
    )
    if not settings.tls_options().verify:
        logs.event(Event.TLS_VERIFY_OFF)
    _say_descriptors(settings, logs, view)


async def _serve(settings: Settings, mode: Mode, view: View, engine: Engine, service: Service, logs: Logs) -> StoppedBy:
    """Run the crawl with everything that stands around it."""
    monitor = engine.monitor
    await service.open()
    await monitor.sample()
    periodic: list[daemon.Periodic] = [
        (SAMPLE_S, service.sample),
        (daemon.PROGRESS_S, lambda: logs.emit(Event.PROGRESS, monitor.status().as_progress())),
    ]
    if (on_status := view.on_status) is not None:
        periodic.append((VIEW_S, lambda: on_status(monitor.status())))
    try:
        return await daemon.serve(
            engine,
            notifier=Notifier(os.environ),
            status=lambda: monitor.status().as_line(),
            drain_s=settings.engine_options(mode).drain_s,
            services=[service.control.run],
            on_hangup=service.on_hangup,
            periodic=periodic,
            is_alive=lambda: not engine.health.stall(),
        )
    finally:
        await service.close()


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


def _proxy_address(settings: Settings) -> str | None:
    proxy = settings.network_options().proxy
    return None if proxy is None else str(proxy)


def open_logs(settings: Settings, *, console: bool) -> Logs:
    """Set logging up for a crawl. Raises OSError."""
    directory = settings.log_directory
    with naming_key("log.directory", directory, "cannot be made"):
        directory.mkdir(parents=True, exist_ok=True)
    journal = is_journal_stream(os.environ, 2)
    run_id = f"{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}-{os.urandom(2).hex()}"
    return configure(
        settings.log_options(),
        directory,
        console=console and not journal,
        journal=journal,
        plain=console and not journal and not sys.stderr.isatty(),
        crawl_name=settings.crawl.name,
        run_id=run_id,
    )


def with_seeds(settings: Settings, seeds: list[str]) -> Settings:
    """The same settings with other seeds. Raises UrlError, naming the seed, for one that is no URL."""
    for text in seeds:
        try:
            parse_seed(text)
        except UrlError as error:
            raise UrlError(error.reason, f"seed {redact_text(text)!r}: {error}") from None
    return replace(settings, crawl=settings.crawl.model_copy(update={"seeds": tuple(seeds)}), file_seeds=())
