"""Tells the log what the engine does: attempts after their commit, refusals, robots verdicts, files, disk.

It decides nothing. Invariant: nothing here waits for a disk; finished files are read back in a thread.
"""

import asyncio
import shutil
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, assert_never

from crawler.core.clock import Clock
from crawler.core.enums import FileLoss, Source, StoppedBy, TaskKind
from crawler.core.formatting import count, duration, timestamp
from crawler.core.models import Denied, Failed, Fetched, NotModified, RecordLocation, SinkFile
from crawler.core.outcomes import failure_text, is_http_error
from crawler.engine.monitoring.counters import CrawlCounters
from crawler.engine.observer import Visited
from crawler.engine.pages.response_processor import SkippedLink
from crawler.engine.scheduling.host import Host
from crawler.frontier.base import Recovered
from crawler.obs.events import Event
from crawler.obs.fetch_line import fetch_line
from crawler.obs.logs import Logs
from crawler.sinks.base import LostFile, SinkRecovered
from crawler.sinks.disk import ClosedFile, read_closed_file

REMEMBERED: Final = 65_536  # (host, reason) pairs whose first refusal was logged; then it starts anew
_FAILURES_KEPT: Final = 10
_NAMES_TOLD: Final = 5


class EventLog:
    """Tells the log what it observes. `output` is the directory that `output.min_free` is about; `tell` is said in
    words what nobody should learn only at the end.
    """

    def __init__(
        self,
        logs: Logs,
        clock: Clock,
        output: Path,
        *,
        min_free: int,
        tell: Callable[[str], None] = lambda words: None,
    ) -> None:
        self._logs = logs
        self._clock = clock
        self._output = output
        self._min_free = min_free
        self._tell = tell
        self._fetch_ids = 0
        self._told: set[tuple[str, str]] = set()
        self._reading: set[asyncio.Future[None]] = set()
        self._disk_low_mono: float | None = None
        self._failures: dict[str, str] = {}
        self._seeds_served = False  # a seed was answered with something of use
        self._seeds_refused: dict[str, str] = {}
        self.skipped: Counter[str] = Counter()

    @property
    def told(self) -> int:
        """How many (host, reason) pairs are remembered as told."""
        return len(self._told)

    def event(self, name: Event, fields: dict[str, object]) -> None:
        """An event that needs no words added."""
        self._logs.emit(name, fields)

    def stored(self, visited: Visited, links_new: int, written: RecordLocation | None) -> None:
        """An attempt is in the store: write its line."""
        self._fetch_ids += 1
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

    def _note_failure(self, visited: Visited) -> None:
        """Remember why the first URLs got no answer, for a crawl in which none did."""
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
        """Why the first URLs that were tried got no answer, a sentence each."""
        return tuple(self._failures.values())

    def _note_seed(self, visited: Visited) -> None:
        """Remember the seeds that were answered with status 4xx and 5xx, until one is served."""
        task, outcome = visited.settlement.task, visited.settlement.outcome
        if task.kind is TaskKind.ROBOTS:
            return
        if isinstance(outcome, Fetched) and is_http_error(outcome.head.status_code):
            if len(self._seeds_refused) < _FAILURES_KEPT:
                self._seeds_refused[task.url] = f"{task.url}: status {outcome.head.status_code}"
        elif isinstance(outcome, Fetched | NotModified):
            self._seeds_served = True

    def seeds_refused(self) -> tuple[str, ...]:
        """If no seed was served and one was answered with status 4xx or 5xx: the first ten of those."""
        return () if self._seeds_served else tuple(self._seeds_refused.values())

    def details(self, counters: CrawlCounters) -> dict[str, dict[str, int]]:
        """Counts by word, for the closing table."""
        return {
            "failures": dict(counters.gave_up),
            "error_types": dict(counters.error_types),
            "deny_reasons": dict(counters.deny_reasons),
            "skipped": dict(self.skipped),
        }

    def skip(self, skipped: Sequence[SkippedLink]) -> None:
        """Links that were refused: the first for each host and reason is logged, the others are counted."""
        for link in skipped:
            self.skipped[link.reason] += 1
            if (link.host, link.reason) in self._told:
                continue
            if len(self._told) >= REMEMBERED:
                self._told.clear()
            self._told.add((link.host, link.reason))
            self._logs.event(Event.URL_SKIPPED, url_full=link.url, deny_reason=link.reason.value, rule=link.rule)

    def scope_widened(self, host: str, via: str) -> None:
        """A seed's redirect brought a host in."""
        self._logs.event(Event.SCOPE_WIDENED, server_address=host, via=via)

    def robots(self, host: Host) -> None:
        """A robots verdict was reached."""
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
        """An output file is finished: read it back and say what it holds."""
        path = self._output / file.sink / file.name
        done = asyncio.ensure_future(self._tell_closed(file, path))
        self._reading.add(done)
        done.add_done_callback(self._reading.discard)

    async def _tell_closed(self, file: SinkFile, path: Path) -> None:
        try:
            found: ClosedFile = await asyncio.to_thread(read_closed_file, path, file.records)
        except OSError:  # moved away already: closed files are the operator's
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
        """An output file was deleted, moved or cut while it was written; `urls` are queued again for it."""
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
        self._tell(f"{file.sink}/{file.name} {words}")

    async def finish(self) -> None:
        """Wait for files that are being read back."""
        if self._reading:
            await asyncio.gather(*self._reading)

    def recovered(self, recovered: Recovered, recovery: SinkRecovered) -> None:
        """A start found something to say: the last run did not end by itself, or output files were in the way."""
        if recovered.clean and recovery == SinkRecovered():
            return
        fields: dict[str, object] = {"clean": recovered.clean, "hosts": len(recovered.hosts)}
        if recovered.backoffs:
            fields["rests"] = len(recovered.backoffs)
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
            names = ", ".join(recovery.finished[:_NAMES_TOLD]) + (" …" if len(recovery.finished) > _NAMES_TOLD else "")
            self._tell(f"output files that the store does not know, or not to their end, were set aside: {names}")
        if recovery.missing:
            names = ", ".join(recovery.missing)
            self._tell(f"not there, and taken for complete and moved away since the backup: {names}")

    def disk(self, reason: str | None) -> None:
        """Nothing can be written (`reason` says why), or it can again (None)."""
        try:
            free = shutil.disk_usage(self._output).free
        except OSError:
            free = 0
        now = self._clock.mono()
        if reason is not None:
            self._disk_low_mono = now
            self._tell(f"nothing can be stored: {reason}; the crawl pauses, and tries again every second")
            self._logs.event(
                Event.DISK_LOW,
                path=str(self._output),
                free_bytes=free,
                min_free_bytes=self._min_free,
                detail=reason,
            )
        elif self._disk_low_mono is not None:
            self._tell(f"it can be stored again: the crawl goes on after {duration(now - self._disk_low_mono)}")
            self._logs.event(
                Event.DISK_OK, path=str(self._output), free_bytes=free, paused_s=round(now - self._disk_low_mono, 1)
            )

    def hours(self, is_open: bool, until_at: float) -> None:
        """`fetch.hours` opened or closed."""
        fields: dict[str, object] = {"open": is_open}
        if until_at != float("inf"):
            fields["until"] = timestamp(until_at)
        self._logs.emit(Event.HOURS, fields)

    def drain(self, reason: StoppedBy, in_flight: int) -> None:
        """The crawl is ending."""
        self._logs.event(Event.DRAIN, reason=reason.value, in_flight=in_flight)
