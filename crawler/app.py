"""The composition root: names concrete classes and gives each what it needs (the HTTP client: `client`).

`run` takes settings and returns what happened; every failure that is not a bug comes out as one of the exceptions named
here or by the rooms. What a command prints, and its exit code, is the cli's business.
"""

import gc
import os
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import uvloop

from crawler import __version__, daemon, descriptors
from crawler.assemble import assemble
from crawler.core.enums import Source, StoppedBy
from crawler.core.formatting import naming_key
from crawler.core.models import Discovered, Suspects
from crawler.core.scope import Scope
from crawler.core.url import UrlError, key_of, seed
from crawler.descriptors import connections_within
from crawler.engine.monitoring.ending import Ending, ending
from crawler.engine.monitoring.rates import SAMPLE_S
from crawler.engine.monitoring.status import Status
from crawler.engine.monitoring.summary import summarise
from crawler.engine.operations import FORGOTTEN_RULE
from crawler.engine.system_clock import SystemClock
from crawler.frontier.base import FrontierFull
from crawler.frontier.sqlite.store import SqliteFrontier
from crawler.inspection.place import insist_on_store
from crawler.inspection.rules import fingerprint
from crawler.obs.events import Event
from crawler.obs.fetch_line import redact_text
from crawler.obs.logs import Logs, configure
from crawler.parts import Parts
from crawler.rundir import prepare, rules_of, same_delays, write_run_file
from crawler.service import Service
from crawler.settings.loading import Loaded
from crawler.settings.settings import Mode, Settings
from crawler.systemd import Notifier, is_journal_stream

# Threads that hash, compress and commit give the GIL up several times a visit; each time they wait this long for the
# busy event loop to hand it back (CPython's default is 5 ms: docs/decisions/0004-threads.md).
SWITCH_INTERVAL_S: Final = 0.0005


# A page makes thousands of short-lived tuples and hardly a cycle: collecting at every 700 costs 3 % and finds nothing.
GC_THRESHOLD: Final = 50_000


SEEDS_TOLD: Final = 1_000  # of so many it is looked up whether they were taken down
VIEW_S: Final = 0.2  # how often a view is drawn: it reads as live, for half a percent of a core
HOSTS_SHOWN: Final = 20  # of a summary's connections_by_host
SUSPECTS_SHOWN: Final = 100  # of its suspects


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

    Raises OutputUnusable, StoreLost, OSError, EndedAtOnce, and what the frontier's and sinks' `open` raise.
    """
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    gc.freeze()  # what start-up made stays; the collector need not walk it again
    gc.set_threshold(GC_THRESHOLD, 50, 100)
    return uvloop.run(_run(settings, mode, view, configuration, read_again))


def _say_descriptors(settings: Settings, logs: Logs, view: View) -> None:
    """Where there are too few, the crawl is a narrower one than was asked for."""
    wanted, limit = settings.fetch.connections, descriptors.limit()
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
    insist_on_store(settings.frontier_path, output)
    clock = SystemClock()
    frontier = SqliteFrontier(settings.frontier_path, duplicates=settings.frontier.duplicates)
    started_mono = clock.mono()
    recovered = await frontier.open()  # takes the lock: only then may logs and sinks be touched
    clean = False
    try:
        logs = open_logs(settings, console=view.console)
        try:
            parts = assemble(settings, mode, output, frontier, clock, logs, view.tell)
            logs.event(
                Event.START,
                version=__version__,
                pid=os.getpid(),
                config=configuration,
                output=str(output),
                agent=settings.identity_options().user_agent,
                python=sys.version.split()[0],
                proxy=_proxy_place(settings),
            )
            if not settings.tls_options().verify:
                logs.event(Event.TLS_VERIFY_OFF)
            _say_descriptors(settings, logs, view)
            mended = await parts.committer.open(recovered.sink_files, store_is_copy=recovered.is_copy)
            parts.reporter.recovered(recovered, mended)
            parts.admission.scope = _with_hosts(parts.admission.scope, recovered.scope_hosts)
            parts.blocks.load(await frontier.blocks())
            parts.books.load(recovered, same_delays=same_delays(settings))
            parts.rejudger.want(recovered.unswept)
            if recovered.hosts:
                parts.gate.rest_all()
            parts.tally.life = recovered.counters
            if unswept := await frontier.judge_by(fingerprint(rules_of(settings))):
                parts.rejudger.rules_changed(unswept)
            seeds, refused = _seeds(settings, parts.admission.scope)
            parts.scheduler.stored(await frontier.add(seeds, now=clock.now()))
            taken_down = await frontier.forgotten(seeds[:SEEDS_TOLD])
            for one in taken_down:
                refused.append(f"{redact_text(one.url)}: {FORGOTTEN_RULE}")
                view.tell(f"seed {refused[-1]}")
            write_run_file(settings, configuration, logs.run_id)
            totals = await frontier.totals()
            logs.event(
                Event.READY, queued=totals.queued, waiting=totals.waiting, hosts=totals.hosts,
                socket=str(settings.control_socket), admin=settings.admin.listen or None,
                dur_ms=round((clock.mono() - started_mono) * 1e3, 1),
            )  # fmt: skip
            service = Service(settings, mode, parts, configuration=configuration, read_again=read_again)
            monitor = service.monitor
            await service.open()
            await monitor.sample()
            beats: list[daemon.Beat] = [
                (SAMPLE_S, service.beat),
                (daemon.PROGRESS_S, lambda: logs.emit(Event.PROGRESS, monitor.status().as_progress())),
            ]
            if (on_status := view.on_status) is not None:
                beats.append((VIEW_S, lambda: on_status(monitor.status())))
            try:
                stopped_by = await daemon.serve(
                    parts.crawl,
                    notifier=Notifier(os.environ),
                    status=lambda: monitor.status().as_line(),
                    drain_s=settings.engine_options(mode).drain_s,
                    services=service.services,
                    on_hangup=None if read_again is None else service.reloader.on_hangup,
                    beats=beats,
                    is_alive=lambda: not service.health.stall(),
                )
            finally:
                await service.close()
            disk_reason = parts.crawl.disk_reason
            output_problems = ([disk_reason] if disk_reason else []) + await parts.committer.close()
            await parts.reporter.finish()
            await parts.clients.close()
            clean = parts.committer.is_idle
            end = await _ending(frontier, parts, stopped_by, clock.mono())
            summary = summarise(
                parts.tally,
                parts.clients.stats(),
                len(parts.books.hosts),
                output,
                end,
                clock.mono() - started_mono,
                most_opened=parts.clients.current.pool.most_opened(HOSTS_SHOWN),
                unstored=parts.committer.unstored,
            )
            gone = [path for path in (output, settings.frontier_path) if not path.exists()][:1]
            logs.event(
                Event.STOP, reason=stopped_by.value, responses=parts.tally.responses, pages=parts.tally.pages,
                bytes=parts.tally.bytes, errors=parts.tally.errors, dur_ms=round((clock.mono() - started_mono) * 1e3),
            )  # fmt: skip
            answered = parts.tally.page_responses > 0 or recovered.counters.pages > 0
            problems = () if answered else (*parts.reporter.first_failures(), *refused)
            return Result(
                end,
                summary,
                parts.reporter.details(parts.tally),
                problems,
                tuple(output_problems),
                parts.valve.closed_until_at,
                parts.committer.unstored,
                tuple(gone),
                () if recovered.counters.pages else parts.reporter.seeds_refused(),
            )
        finally:
            logs.close()
    finally:
        await frontier.close(clean=clean)


async def _ending(frontier: SqliteFrontier, parts: Parts, stopped_by: StoppedBy, now_mono: float) -> Ending:
    hosts = parts.books.hosts
    suspects: list[tuple[str, Suspects]] = []
    with suppress(FrontierFull):  # on a failing disk the rest is said all the same
        found = await frontier.suspects(limit=SUSPECTS_SHOWN)
        suspects = [(hosts[one.host_id].origin.host, one) for one in found]
    totals = await frontier.totals()
    is_settled = parts.committer.is_idle and not parts.scheduler.is_busy and not parts.committer.unstored
    is_settled = is_settled and not parts.committer.lost_at_end
    return ending(stopped_by, totals, hosts.values(), suspects, now_mono, is_settled=is_settled)


def _proxy_place(settings: Settings) -> str | None:
    proxy = settings.network_options().proxy
    return None if proxy is None else str(proxy)


def _with_hosts(scope: Scope, hosts: tuple[str, ...]) -> Scope:
    for host in hosts:
        scope = scope.with_host(host)
    return scope


def _seeds(settings: Settings, scope: Scope) -> tuple[list[Discovered], list[str]]:
    """The seeds to store, and of those that the scope refuses why, in words."""
    found, refused = [], []
    for text in settings.seeds:
        url, origin = seed(text)
        denied = scope.judge(url, origin, depth=0, hop_path="", source=Source.SEED)
        if denied is None:
            found.append(Discovered(url, origin, key_of(url), 0, "", Source.SEED))
        else:
            refused.append(f"{redact_text(url)}: denied by {denied.rule}")
    return found, refused


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
            seed(text)
        except UrlError as error:
            raise UrlError(error.reason, f"seed {redact_text(text)!r}: {error}") from None
    return replace(settings, crawl=settings.crawl.model_copy(update={"seeds": tuple(seeds)}), file_seeds=())
