"""The composition root: makes the concrete parts of a crawl from its settings, runs it, and returns its result.

Every failure that is not a bug is one of the exceptions named here or in the packages; `cli` prints them.
"""

import gc
import os
import shlex
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Final

import uvloop

from crawler import __version__, daemon
from crawler.core.enums import Source, StoppedBy, UrlState
from crawler.core.formatting import count, naming_key, shortened, timestamp
from crawler.core.models import Round
from crawler.core.options import Rules, ScopeOptions
from crawler.core.scope import Scope, name_in_scope
from crawler.core.url import UrlError, parse_seed
from crawler.daemon import Notifier, is_journal_stream
from crawler.engine.engine import Engine, SystemClock
from crawler.engine.monitoring.counters import SAMPLE_S
from crawler.engine.monitoring.ending import Ending, round_fields, summarise
from crawler.engine.monitoring.event_log import EventLog, RecentError
from crawler.engine.monitoring.status import Status
from crawler.engine.rounds import begin_round
from crawler.fetch.http_client import HttpClient
from crawler.fetch.limits import connections_within, descriptor_limit
from crawler.frontier.base import Frontier, FrontierLocked, Totals
from crawler.frontier.sqlite.database import OwnerLock
from crawler.frontier.sqlite.store import SqliteFrontier
from crawler.obs.events import Event
from crawler.obs.fetch_line import redact_text
from crawler.obs.logs import LogOutput, Logs, Shown, configure
from crawler.output_directory import find_paths, prepare, require_same_crawl, require_store, write_run_file
from crawler.service import Service
from crawler.settings.loading import Loaded
from crawler.settings.settings import Mode, Settings
from crawler.sinks.base import Sink
from crawler.sinks.pages import PagesSink
from crawler.sinks.warc import WarcSink

# Threads that hash, compress and commit release the GIL several times a visit; each time they wait this long until the
# busy event loop releases it (CPython's default is 5 ms: docs/decisions/0004-threads.md).
SWITCH_INTERVAL_S: Final = 0.0005
# A page makes thousands of short-lived tuples and hardly a cycle: a collection after every 700 costs 3 % for nothing.
GC_THRESHOLD: Final = 50_000
VIEW_S: Final = 0.2  # between two updates of a live view, which cost half a percent of a core
_SEEDS_GONE_URLS: Final = 1_000  # of each host
_SEEDS_GONE_S: Final = 1.0  # for which URLs are counted that go with seeds
HOSTS_SHOWN: Final = 20  # of a summary's connections_by_host


@dataclass(frozen=True, slots=True)
class View:
    """How a crawl is shown: `on_status` is called several times a second, with the last error; `console` prints
    records of events on stderr, if `log.stderr` leaves it to us; `output` shows events otherwise.

    `on_start` gets the counts of the store before the first request. `on_seeds` is called while many seeds are stored,
    with how many are and how many there are. `tell` gets messages that a person needs at once;
    it is called if records of events are not printed.
    """

    on_status: Callable[[Status, RecentError | None], None] | None = None
    console: bool = False
    output: LogOutput | None = None
    on_start: Callable[[Totals], None] = lambda totals: None
    on_seeds: Callable[[int, int], None] | None = None
    tell: Callable[[str], None] = lambda words: None


@dataclass(frozen=True, slots=True)
class Result:
    """How a crawl ended. `summary` has the names of `crawl --json`.

    `seed_problems` has a reason for each seed, if none responded; `output_problems` says what could not be written;
    `opens_at` is when `fetch.hours` open, if they are closed.
    """

    ending: Ending
    summary: dict[str, object]
    details: dict[str, dict[str, int]]  # counts by word: error_types, deny_reasons, failures, skipped
    seed_problems: tuple[str, ...] = ()
    output_problems: tuple[str, ...] = ()
    opens_at: float | None = None
    unstored: int = 0  # visits that were made and could not be stored
    gone: tuple[Path, ...] = ()  # files and directories of the crawl that were removed
    seeds_refused: tuple[str, ...] = ()  # the first, if all responses to seeds were 4xx or 5xx
    visited_at: float | None = None  # end of the last visit, if this run made none


def run(
    settings: Settings,
    *,
    mode: Mode,
    view: View,
    configuration: str | None = None,
    read_again: Callable[[], Loaded] | None = None,
    again: bool = False,
) -> Result:
    """Crawl to the end. `configuration` is the path of the file, for run.json; `read_again` reads it for a reload;
    `again` visits everything anew that was visited before.

    Raises OutputUnusable, StoreMissing, OSError, EndedAtOnce, and what the frontier's and sinks' `open` raise.
    """
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    gc.freeze()  # objects of the start stay; the collector need not visit them
    gc.set_threshold(GC_THRESHOLD, 50, 100)
    return uvloop.run(_run(settings, mode, view, configuration, read_again, again))


def _warn_few_descriptors(settings: Settings, logs: Logs, view: View) -> None:
    """Log that there are too few file descriptors for fetch.connections and fetch.first_contacts."""
    wanted, limit = settings.fetch.connections + settings.fetch.first_contacts, descriptor_limit()
    room = connections_within(limit, wanted)
    if room == wanted:
        return
    logs.event(Event.DESCRIPTORS_FEW, limit=limit, connections=room, wanted=wanted)
    if not logs.is_shown:
        view.tell(
            f"{limit} file descriptors (ulimit -n) allow {room} connections at once, not the {wanted} of "
            "fetch.connections and fetch.first_contacts"
        )


async def _run(
    settings: Settings,
    mode: Mode,
    view: View,
    configuration: str | None,
    read_again: Callable[[], Loaded] | None,
    again: bool,
) -> Result:
    output = prepare(settings.output_directory)
    is_database = settings.frontier.store == "postgresql"
    if not is_database:
        require_store(settings.frontier_path, output)
    clock = SystemClock()
    frontier = make_frontier(settings)
    started_mono = clock.mono()
    try:
        recovered = await frontier.open()  # takes the lock: before that, logs and sinks belong to another crawl
    except FrontierLocked as error:
        at = f"--output {shlex.quote(str(output))}"
        raise FrontierLocked(
            f"{error}: `crawler status {at}` shows it, `crawler reload {at}` has it read a changed configuration, "
            f"`crawler stop {at}` ends it"
        ) from None
    clean = False
    try:
        if is_database:
            require_same_crawl(recovered.sink_files, output)
        logs = open_logs(settings, view)
        try:
            options = settings.engine_configuration(mode)
            tell = (lambda words: None) if logs.is_shown else view.tell  # printed events need no messages
            reporter = EventLog(logs, clock, output, min_free=options.engine.min_free, notify=tell)
            client = partial(
                HttpClient,
                options.client,
                clock=clock,
                memory=options.engine.memory,
                spool_directory=str(output),
                on_event=lambda name, fields: reporter.event(Event(name), fields),
            )
            if again:
                begun = await begin_round(frontier, recovered.last_round, now=clock.now())
                recovered = replace(recovered, last_round=begun)
            engine = Engine(options, frontier, _sinks(settings, output, clock), client, reporter, clock)
            _log_start(settings, logs, view, configuration, recovered.last_round)
            refused, taken_down = await engine.open(recovered, on_seeds=view.on_seeds)
            for words in (*refused, *(f"seed {one}" for one in taken_down)):
                view.tell(words)
            rules = settings.rules(mode)
            if words := await _seeds_gone(output, rules, engine):
                view.tell(words)
            write_run_file(settings.paths(), run_id=logs.run_id, configuration=configuration, rules=rules)
            totals = frontier.totals()
            logs.event(
                Event.READY, queued=totals.queued, waiting=totals.waiting, hosts=totals.hosts,
                socket=str(settings.control_socket), admin=settings.admin.listen or None,
                dur_ms=round((clock.mono() - started_mono) * 1e3, 1),
            )  # fmt: skip
            view.on_start(totals)
            service = Service(
                settings, mode, engine, reporter, logs, configuration=configuration, read_again=read_again
            )
            stopped_by = await _serve(settings, mode, view, engine, service, reporter, logs)
            output_problems = await engine.close()
            await reporter.finish()
            clean = engine.committer.is_idle
            end, counters, duration_s = await engine.ending(stopped_by), engine.counters, clock.mono() - started_mono
            summary = summarise(
                counters,
                engine.client.stats(),
                (frontier.totals()).hosts,
                output,
                end,
                duration_s,
                most_opened=engine.client.most_opened(HOSTS_SHOWN),
                unstored=engine.committer.unstored,
                current_round=engine.rounds.current,
            )
            needed = (output,) if is_database else (output, settings.frontier_path)
            gone = [path for path in needed if not path.exists()][:1]
            fields = {
                "reason": stopped_by.value, "responses": counters.responses, "pages": counters.pages,
                "bytes": counters.bytes, "errors": counters.errors, "dur_ms": round(duration_s * 1e3),
            }  # fmt: skip
            logs.emit(Event.STOP, fields | round_fields(engine.rounds.current))
            responded = counters.page_responses.total() > 0 or recovered.counters.pages > 0
            return Result(
                end,
                summary,
                reporter.details(counters),
                () if responded else (*reporter.first_failures(), *refused, *taken_down),
                tuple(output_problems),
                engine.crawl_rate_limiter.closed_until_at,
                engine.committer.unstored,
                tuple(gone),
                () if recovered.counters.pages and engine.rounds.current is None else reporter.seeds_refused(),
                None if counters.outcomes else recovered.last_visit_at,
            )
        finally:
            logs.close()
    finally:
        await frontier.close(clean=clean)


def make_frontier(settings: Settings) -> Frontier:
    """The store that `frontier.store` names."""
    path = settings.frontier_path
    if settings.frontier.store == "postgresql":
        from crawler.frontier.postgresql.store import PostgresFrontier  # its library is an extra

        return PostgresFrontier(
            settings.frontier.dsn or "",
            password=settings.secrets.database_password,
            politeness_key=settings.politeness.key,
            agent=settings.frontier.agent,
            rules=settings.shared_rules(),
            lease_s=settings.frontier.lease,
            lock=OwnerLock(path.with_name(path.name + ".lock")),
        )
    return SqliteFrontier(path, duplicates=settings.frontier.duplicates, politeness_key=settings.politeness.key)


def _log_start(settings: Settings, logs: Logs, view: View, configuration: str | None, last_round: Round | None) -> None:
    under_way = last_round if last_round is not None and last_round.is_under_way else None
    logs.event(
        Event.START,
        version=__version__,
        pid=os.getpid(),
        config=configuration,
        output=str(settings.output_directory),
        agent=settings.identity_options().user_agent,
        python=sys.version.split()[0],
        proxy=_proxy_address(settings),
        round=None if under_way is None else under_way.number,
        round_started_at=None if under_way is None else timestamp(under_way.started_at),
    )
    if not settings.tls_options().verify:
        logs.event(Event.TLS_VERIFY_OFF)
    _warn_few_descriptors(settings, logs, view)


async def _seeds_gone(output: Path, rules: Rules, engine: Engine) -> str:
    """A message about queued URLs that are out of scope because seeds of the last run are none now; "" without any."""
    before = find_paths(output).rules
    if before is None:
        return ""
    old = Scope(ScopeOptions(before.scope.hosts), before.seed_hosts, seed_names=before.seed_names)
    new = engine.url_policy.scope

    def has_seed(host: str) -> bool:
        return host in rules.seed_hosts or name_in_scope(host, rules.scope.hosts[0]) in rules.seed_names

    gone = {host for host in before.seed_hosts if not has_seed(host)}
    if not ((gone or before.seed_names != rules.seed_names) and new.follows_seeds):
        return ""
    urls = after = 0
    end_mono, at_least = engine.clock.mono() + _SEEDS_GONE_S, ""
    while rows := await engine.frontier.host_rows(after=after, limit=1_000, with_work=True):
        after = rows[-1].id
        for row in rows:
            if old.has_host(row.origin.host) and not new.has_host(row.origin.host):
                queued = await engine.frontier.url_rows(
                    row.id, row.id, UrlState.QUEUED, after=None, limit=_SEEDS_GONE_URLS
                )
                urls += (found := sum(one.source is not Source.SEED for one in queued))  # seeds stay in scope
                if found and not gone and not has_seed(row.origin.host):
                    gone = {row.origin.host}
                at_least = "at least " if len(queued) == _SEEDS_GONE_URLS else at_least
        if engine.clock.mono() >= end_mono:
            at_least = "at least "
            break
    if not (urls and gone):
        return ""
    named = min(gone) + (f" and {count(len(gone) - 1, 'other host')}" if len(gone) > 1 else "")
    return (
        f"the last run in {output} had a seed on {named}, this one has none there: URLs found there are out of scope "
        f"now ({at_least}{count(urls)} queued); with that seed named too they come back"
    )


async def _serve(
    settings: Settings, mode: Mode, view: View, engine: Engine, service: Service, reporter: EventLog, logs: Logs
) -> StoppedBy:
    """Run the crawl with its control socket, its status page and what is called regularly."""
    monitor = engine.monitor
    periodic: list[daemon.Periodic] = [
        (SAMPLE_S, service.sample),
        (daemon.PROGRESS_S, lambda: logs.emit(Event.PROGRESS, monitor.status().as_progress())),
    ]
    if (on_status := view.on_status) is not None:
        periodic.append((VIEW_S, lambda: on_status(monitor.status(), next(iter(reporter.recent_errors), None))))
    try:
        await service.open()
        await monitor.sample()
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


def open_logs(settings: Settings, view: View) -> Logs:
    """Set logging up for a crawl. Raises OSError."""
    directory = settings.log_directory
    with naming_key("log.directory", directory, "cannot be made"):
        directory.mkdir(parents=True, exist_ok=True)
    run_id = f"{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}-{os.urandom(2).hex()}"
    return configure(
        settings.log_options(),
        directory,
        shown=_shown(settings, view),
        output=view.output,
        crawl_name=settings.crawl.name,
        run_id=run_id,
    )


def _shown(settings: Settings, view: View) -> Shown:
    """How records of events are shown on stderr."""
    if settings.log.stderr != "auto":
        return settings.log.stderr
    if is_journal_stream(os.environ, 2):
        return "journal"
    if not view.console:
        return "off"
    return "console" if sys.stderr.isatty() else "text"


def with_seeds(settings: Settings, seeds: list[str]) -> Settings:
    """The same settings with other seeds. Raises UrlError, naming the seed, for one that is no URL."""
    for text in seeds:
        try:
            parse_seed(text)
        except UrlError as error:
            raise UrlError(error.reason, f"seed {shortened(redact_text(text))!r}: {error}") from None
    crawl = settings.crawl.model_copy(update={"seeds": tuple(seeds)})
    return replace(settings, crawl=crawl, file_seeds=(), seed_tables=(), seed_places=())
