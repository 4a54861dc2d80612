"""The observer of a crawl that writes to the log: attempts after their commit, refusals, robots verdicts, files, disk.

Invariant: nothing here waits for a disk; finished files are read in a thread.
"""

import asyncio
import shutil
from collections import Counter, OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, assert_never
from urllib.parse import urlsplit

from crawler.core.clock import Clock
from crawler.core.enums import FileLoss, Source, StoppedBy, TaskKind
from crawler.core.formatting import count, duration, timestamp
from crawler.core.models import Denied, Failed, Fetched, NotModified, RecordLocation, Settlement, SinkFile
from crawler.core.outcomes import failure_text, is_http_error
from crawler.engine.monitoring.counters import CrawlCounters
from crawler.engine.observer import Visited
from crawler.engine.pages.response_processor import SkippedLink
from crawler.engine.scheduling.host import Host
from crawler.frontier.base import Recovered
from crawler.obs.events import Event
from crawler.obs.fetch_line import fetch_line, host_of, redact
from crawler.obs.logs import Logs
from crawler.sinks.base import LostFile, SinkRecovered
from crawler.sinks.disk import ClosedFile, read_closed_file

MAX_LOGGED_REFUSALS: Final = 65_536  # pairs of host and reason in memory; when there are more, all are dropped
_FAILURES_KEPT: Final = 10
RECENT_ERRORS_KEPT: Final = 50  # kinds of errors by host
_NAMES_SHOWN: Final = 5


@dataclass(slots=True)
class RecentError:
    """An error of a host: its error type or "status 500", how often it came in this run, when and at which URL last."""

    host: str
    error: str
    times: int
    at: float
    url: str


class EventLog:
    """Writes what it observes to the log. `output` is the output directory, on whose disk `min_free` bytes stay free.

    `notify` is called with messages for people that must not wait for the end of the crawl.
    """

    def __init__(
        self,
        logs: Logs,
        clock: Clock,
        output: Path,
        *,
        min_free: int,
        notify: Callable[[str], None] = lambda words: None,
    ) -> None:
        self._logs = logs
        self._clock = clock
        self._output = output
        self._min_free = min_free
        self._notify = notify
        self._fetch_ids = 0
        self._logged_refusals: set[tuple[str, str]] = set()
        self._reading: set[asyncio.Future[None]] = set()
        self._disk_low_mono: float | None = None
        self._failures: dict[str, str] = {}
        self._seeds_served = False  # a seed had a response other than 4xx or 5xx
        self._seeds_refused: dict[str, str] = {}
        self.skipped: Counter[str] = Counter()
        self._recent_errors: OrderedDict[tuple[str, str], RecentError] = OrderedDict()  # the last one last

    @property
    def recent_errors(self) -> list[RecentError]:
        """The last errors and responses with status 4xx and 5xx, the newest first, those alike of a host as one."""
        return list(reversed(self._recent_errors.values()))

    @property
    def logged_refusals(self) -> int:
        """Number of pairs of host and reason in memory whose first refusal was logged."""
        return len(self._logged_refusals)

    def event(self, name: Event, fields: dict[str, object]) -> None:
        """Log an event with its fields unchanged. URLs denied or queued again by changed rules are a message too."""
        self._logs.emit(name, fields)
        match name, fields:
            case Event.REEVALUATION_OVER, {"denied": int(denied), "queued": int(queued)} if denied or queued:
                self._notify(
                    f"the rules were changed: {count(denied, 'queued URL')} denied now, "
                    f"{count(queued, 'denied URL')} queued again"
                )

    def stored(self, visited: Visited, links_new: int, written: RecordLocation | None) -> None:
        """Log an attempt after it was stored."""
        self._fetch_ids += 1
        if error := _error_of(visited.settlement):
            self._note_error(visited.settlement, error)
        if len(self._failures) < _FAILURES_KEPT:
            self._note_failure(visited)
        if visited.settlement.task.source is Source.SEED and not self._seeds_served:
            self._note_seed(visited)
        self._logs.fetch(
            fetch_line(
                visited.settlement,
                crawl=self._logs.crawl_name,
                run_id=self._logs.run_id,
                fetch_id=self._fetch_ids,
                links_found=visited.links_found,
                links_new=links_new,
                written=written,
                queue_ms=visited.queue_s * 1e3,
                politeness_ms=visited.lease.waited_s * 1e3,
                dur_ms=visited.dur_s * 1e3,
            )
        )

    def _note_error(self, settlement: Settlement, error: str) -> None:
        """Remember an error for the views."""
        url, recent = redact(settlement.task.url), self._recent_errors
        key = host_of(url), error
        before = recent.pop(key, None)
        recent[key] = RecentError(*key, 1 + (before.times if before else 0), settlement.finished_at, url)
        if len(recent) > RECENT_ERRORS_KEPT:
            recent.popitem(last=False)

    def _note_failure(self, visited: Visited) -> None:
        """Remember why the first URLs got no response, for a crawl in which no URL did."""
        task, outcome = visited.settlement.task, visited.settlement.outcome
        match outcome:
            case Failed():
                words = failure_text(outcome.error_type, outcome.detail)
                self._failures[task.url] = f"{task.url}: {outcome.error_type.value}: {words}"
            case Denied():
                self._failures[task.url] = f"{task.url}: denied by {outcome.rule}"
            case Fetched() if task.kind is TaskKind.ROBOTS and outcome.head.status_code >= 429:
                self._failures[task.url] = f"{task.url}: status {outcome.head.status_code}: nothing may be fetched"
            case _:
                return

    def first_failures(self) -> tuple[str, ...]:
        """The reasons why the first URLs got no response, a sentence each."""
        return tuple(self._failures.values())

    def _note_seed(self, visited: Visited) -> None:
        """Remember seeds with status 4xx or 5xx, until a seed has another status."""
        task, outcome = visited.settlement.task, visited.settlement.outcome
        if task.kind is TaskKind.ROBOTS:
            return
        if isinstance(outcome, Fetched) and is_http_error(outcome.head.status_code):
            if len(self._seeds_refused) < _FAILURES_KEPT:
                self._seeds_refused[task.url] = f"{task.url}: {_refusal(task.url, outcome.head.status_code)}"
        elif isinstance(outcome, Fetched | NotModified):
            self._seeds_served = True

    def seeds_refused(self) -> tuple[str, ...]:
        """The first ten seeds with status 4xx or 5xx, if no seed had another status."""
        return () if self._seeds_served else tuple(self._seeds_refused.values())

    def details(self, counters: CrawlCounters) -> dict[str, dict[str, int]]:
        """Counts by reason, for the table at the end."""
        return {
            "outcomes": {str(word): number for word, number in counters.outcomes.items()},
            "kinds": {"HTML": counters.html, "other": counters.pages - counters.html},
            "failures": dict(counters.gave_up),
            "error_types": dict(counters.error_types),
            "deny_reasons": dict(counters.deny_reasons),
            "skipped": dict(self.skipped),
        }

    def skip(self, skipped: Sequence[SkippedLink]) -> None:
        """Count refused links, and log the first for each host and reason."""
        for link in skipped:
            self.skipped[link.reason] += 1
            if (link.host, link.reason) in self._logged_refusals:
                continue
            if len(self._logged_refusals) >= MAX_LOGGED_REFUSALS:
                self._logged_refusals.clear()
            self._logged_refusals.add((link.host, link.reason))
            self._logs.event(Event.URL_SKIPPED, url_full=link.url, deny_reason=link.reason.value, rule=link.rule)

    def scope_widened(self, host: str, via: str) -> None:
        """Log a host that a seed's redirect brought into scope."""
        self._logs.event(Event.SCOPE_WIDENED, server_address=host, via=via)

    def robots(self, host: Host) -> None:
        """Log a robots verdict."""
        record = host.robots
        if record is None:
            return
        fields: dict[str, object] = {
            "server_address": host.origin.host,
            "server_port": host.origin.port,
            "verdict": record.verdict,
            "expires_at": timestamp(record.expires_at),
        }
        if record.status_code is not None:
            fields["status"] = record.status_code
        if record.error is not None:
            fields["error_type"] = record.error
        if record.crawl_delay_s is not None:
            fields["crawl_delay_s"] = record.crawl_delay_s
        self._logs.emit(Event.ROBOTS, fields)

    def file_closed(self, file: SinkFile) -> None:
        """Read a finished output file in a thread, and log its size, records and digest."""
        path = self._output / file.sink / file.name
        done = asyncio.ensure_future(self._report_closed(file, path))
        self._reading.add(done)
        done.add_done_callback(self._reading.discard)

    async def _report_closed(self, file: SinkFile, path: Path) -> None:
        try:
            found: ClosedFile = await asyncio.to_thread(read_closed_file, path, file.records)
        except OSError:  # the operator moved it already
            return
        self._logs.event(
            Event.FILE_CLOSED,
            name=file.name,
            sink=file.sink,
            bytes=found.bytes,
            records=found.records,
            sha256=found.sha256,
        )

    def file_lost(self, lost: LostFile, urls: int) -> None:
        """Log and report an output file that was deleted, moved or cut while it was written; `urls` were in it."""
        file, place = lost.file, lost.place
        fields: dict[str, object] = {"name": file.name, "sink": file.sink, "how": lost.how.value}
        fields |= {"bytes": file.committed_bytes, "urls": urls} | ({"place": place} if place else {})
        self._logs.emit(Event.FILE_LOST, fields)
        again = f"{count(urls, 'URL')} that {'was' if urls == 1 else 'were'} stored in it will be fetched again"
        again = again if urls else "no page was stored in it"
        match lost.how:
            case FileLoss.MOVED:
                words = f"was moved away while it was written: it is complete at {place or 'its new place'}"
            case FileLoss.DELETED:
                words = f"was deleted or replaced while it was written: {again}"
            case FileLoss.CUT:
                words = f"was cut short while it was written: {again}; what is left of it is {file.name}.orphan"
            case _:
                assert_never(lost.how)
        self._notify(f"{file.sink}/{file.name} {words}")

    async def finish(self) -> None:
        """Wait until the finished files are read."""
        if self._reading:
            await asyncio.gather(*self._reading)

    def recovered(self, recovered: Recovered, recovery: SinkRecovered) -> None:
        """Log a start after an unclean end, or with output files that had to be repaired."""
        if recovered.clean and recovery == SinkRecovered():
            return
        fields: dict[str, object] = {"clean": recovered.clean, "hosts": recovered.hosts}
        if recovered.backoffs:
            fields["backoffs"] = recovered.backoffs
        if recovery.truncated_bytes:
            fields["truncated_bytes"] = recovery.truncated_bytes
        if recovery.orphans:
            fields["orphans"] = list(recovery.orphans)
        if recovery.cut:
            fields["cut"] = list(recovery.cut)
        if recovery.missing:
            fields["missing"] = list(recovery.missing)
        self._logs.emit(Event.RECOVERED, fields)
        if recovery.finished:
            names = ", ".join(recovery.finished[:_NAMES_SHOWN]) + (
                " …" if len(recovery.finished) > _NAMES_SHOWN else ""
            )
            self._notify(f"output files that the store does not know, or not to their end, were set aside: {names}")
        if recovery.missing:
            names = ", ".join(recovery.missing)
            self._notify(f"not there, and taken for complete and moved away since the backup: {names}")

    def disk(self, reason: str | None) -> None:
        """Log and report that nothing can be written, and why. `reason` None: writing is possible again."""
        try:
            free = shutil.disk_usage(self._output).free
        except OSError:
            free = 0
        now = self._clock.mono()
        if reason is not None:
            self._disk_low_mono = now
            self._notify(f"nothing can be stored: {reason}; the crawl pauses, and tries again every second")
            self._logs.event(
                Event.DISK_LOW,
                path=str(self._output),
                free_bytes=free,
                min_free_bytes=self._min_free,
                detail=reason,
            )
        elif self._disk_low_mono is not None:
            self._notify(f"writing is possible again: the crawl continues after {duration(now - self._disk_low_mono)}")
            self._logs.event(
                Event.DISK_OK, path=str(self._output), free_bytes=free, paused_s=round(now - self._disk_low_mono, 1)
            )

    def hours(self, is_open: bool, until_at: float) -> None:
        """Log that `fetch.hours` opened or closed."""
        fields: dict[str, object] = {"open": is_open}
        if until_at != float("inf"):
            fields["until"] = timestamp(until_at)
        self._logs.emit(Event.HOURS, fields)

    def drain(self, reason: StoppedBy, in_flight: int) -> None:
        """Log that the crawl is ending."""
        self._logs.event(Event.DRAIN, reason=reason.value, in_flight=in_flight)


def _refusal(url: str, status: int) -> str:
    """A status of a seed, with what may have caused it: servers of TLS send 400 to who speaks plain HTTP."""
    parts = urlsplit(url)
    may_be_tls = status == 400 and parts.scheme == "http" and parts.port is not None
    hint = f"; the server may speak TLS on this port: try https://{parts.netloc}/" if may_be_tls else ""
    return f"status {status}{hint}"


def _error_of(settlement: Settlement) -> str:
    """The error of an attempt at a page, "" without one. A robots.txt or sitemap that is missing is none."""
    outcome = settlement.outcome
    if isinstance(outcome, Failed | Fetched) and outcome.error_type is not None:
        return outcome.error_type.value
    if not isinstance(outcome, Fetched) or not is_http_error(outcome.head.status_code):
        return ""
    is_missing = settlement.task.kind is not TaskKind.PAGE and outcome.head.status_code < 429
    return "" if is_missing else f"status {outcome.head.status_code}"
