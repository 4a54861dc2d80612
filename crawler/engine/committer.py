"""Commits visits in batches: sinks are written and synced, then one transaction of the frontier, then the log lines.

A batch is committed when it has enough visits or bytes, when it is old enough, or when workers need the URLs that it
discovered. A commit that fails (full disk) is undone in the sinks and tried again until it succeeds.

Invariant: each visit that the frontier has as settled is on disk in the sinks, exactly once.
"""

import asyncio
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Final

from crawler.core.clock import Clock
from crawler.core.enums import SinkFileState
from crawler.core.models import (
    Record,
    RecordLocation,
    SinkFile,
)
from crawler.engine.monitoring.counters import CrawlCounters, LatencyMeters
from crawler.engine.observer import Observer, Visited
from crawler.engine.options import EngineOptions
from crawler.engine.rounds import Rounds
from crawler.engine.scheduling.scheduler import Scheduler
from crawler.frontier.base import Batch, Frontier, FrontierFull, Receipt
from crawler.sinks.base import LostFile, Sink, SinkRecovered

BUFFER_S: Final = 0.004  # the longest time for which records are made on the event loop without a break
RETRY_S: Final = 1.0  # between attempts to commit on a full disk
LAST_ATTEMPTS: Final = 3  # of one commit, when the crawl is to end


class _GivenUp(Exception):
    """LAST_ATTEMPTS attempts of a commit failed, and the crawl is to end."""


class Committer:
    """Takes visits from workers (`put`) and commits them (`run`).

    `on_disk` is called with the reason why nothing can be written, and with None when writing works again. `on_rules`
    is called with the hosts whose robots.txt changed in a commit. `quiet` is set when nothing is left to commit, or
    when `run` gives up.
    """

    def __init__(
        self,
        *,
        frontier: Frontier,
        sinks: Sequence[Sink],
        scheduler: Scheduler,
        rounds: Rounds,
        counters: CrawlCounters,
        meters: LatencyMeters,
        clock: Clock,
        options: EngineOptions,
        output: Path,
        quiet: asyncio.Event,
        observer: Observer,
        on_disk: Callable[[str | None], None],
        on_rules: Callable[[Receipt], None],
    ) -> None:
        self._frontier = frontier
        self._sinks = sinks
        self._scheduler = scheduler
        self._rounds = rounds
        self._counters = counters
        self._meters = meters
        self._clock = clock
        self._options = options
        self._output = output
        self._quiet = quiet
        self._observer = observer
        self._on_disk = on_disk
        self._on_rules = on_rules
        self._pending: list[Visited] = []
        self._pending_bytes = 0
        self._committing_bytes = 0
        self._committing = False
        self._processing = 0  # responses of ended leases that are being processed
        self.commits = 0  # so far
        self._closing = False
        self._attempts: int | None = None  # of each commit; None: no limit
        self._cancelled_puts = 0  # visits that waited for room when the crawl ended
        self.has_given_up = False  # `run` ended without storing all visits
        self._lost: list[tuple[Sink, LostFile]] = []  # lost output files that the store does not know of yet
        self._commit_lock = asyncio.Lock()
        self.lost_at_end = False  # output files were lost after the last check; known after `close`
        self._commit_now = asyncio.Event()
        self._has_pending = asyncio.Event()
        self._has_room = asyncio.Event()
        self._has_room.set()
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="sinks")
        self._new_scope_hosts: list[str] = []
        self._unrecorded: list[SinkFile] = []  # states of files that the store does not know yet

    # -- from workers

    async def put(self, visited: Visited) -> None:
        """Hand over a visit. Waits while the uncommitted visits take more than a quarter of `engine.memory`, or are
        more than those of four commits.
        """
        while not self._has_room.is_set():
            try:
                await self._has_room.wait()
            except asyncio.CancelledError:
                self._cancelled_puts += 1
                raise
        self._pending.append(visited)
        self._pending_bytes += visited.held_bytes
        options = self._options
        uncommitted_bytes = self._pending_bytes + self._committing_bytes
        if uncommitted_bytes > options.memory // 4 or len(self._pending) > 4 * options.commit_settlements:
            self._has_room.clear()
        self._has_pending.set()
        if len(self._pending) >= options.commit_settlements or self._pending_bytes >= options.commit_bytes:
            self._commit_now.set()
        else:
            self.request_commit()

    def request_commit(self, *, now: bool = False) -> None:
        """Commit at once if workers wait for the URLs that pending visits found, or if `now`."""
        if self._pending and (now or self._scheduler.lacks_urls):
            self._commit_now.set()

    def add_scope_host(self, place: str) -> None:
        """Store a place with the next commit that the redirect of a seed added to the scope (`Scope.added`)."""
        self._new_scope_hosts.append(place)

    def processing_began(self) -> None:
        """Note that a response of an ended lease is being processed, and that its visit follows."""
        self._processing += 1

    def processing_ended(self) -> None:
        """Note that such a response is processed, or that its worker was cancelled."""
        self._processing -= 1
        if not self._processing and not self._scheduler.leases_out:
            self._quiet.set()

    @property
    def is_processing(self) -> bool:
        """Whether a response of an ended lease is still being processed."""
        return self._processing > 0

    @property
    def is_idle(self) -> bool:
        """Whether there is nothing to store, apart from visits of leases that have not ended."""
        return not self._pending and not self._committing and not self._processing

    @property
    def uncommitted(self) -> int:
        """Number of visits that wait for the next commit."""
        return len(self._pending)

    @property
    def unstored(self) -> int:
        """Number of visits that could not be stored before the end: their URLs are still queued in the store."""
        return len(self._pending) + self._cancelled_puts

    @property
    def uncommitted_bytes(self) -> int:
        """Memory of the visits that wait for the next commit."""
        return self._pending_bytes

    # -- from start to end

    async def open(self, known: Sequence[SinkFile], *, is_restored: bool = False) -> SinkRecovered:
        """Open the sinks and make them agree with the store. Return the changes that this took.

        Raises OSError, or the sink's own error for a damaged file.
        """
        recovery = SinkRecovered()
        for sink in self._sinks:
            ours = [file for file in known if file.sink == sink.name]
            changed = await self._in_thread(partial(sink.open, ours, is_restored=is_restored))
            if changed:
                await self._frontier.record_sink_files(changed)
            self._report_closed(changed)  # perhaps for the second time, if the run before crashed
            recovery += sink.recovery
        if is_restored:
            await self._frontier.clear_restored()
        return recovery

    async def run(self) -> None:
        """Commit until `finish` was called and all visits are stored, or until a commit is given up."""
        while True:
            if not self._pending:
                self._quiet.set()
                if self._closing:
                    return
                self._has_pending.clear()
                await self._has_pending.wait()
                continue
            await self._await_batch()
            batch = self._pending
            self._pending, self._pending_bytes, self._committing_bytes = [], 0, self._pending_bytes
            self._committing = True
            try:
                async with self._commit_lock:
                    await self._commit(batch)
            except BaseException as error:  # cancelled: what is not stored remains pending
                self._pending = batch + self._pending
                if not isinstance(error, _GivenUp):
                    raise
                self.has_given_up = True
                self._quiet.set()
                return
            finally:
                self._committing = False
                self._committing_bytes = 0
            self._has_room.set()

    async def _await_batch(self) -> None:
        if not self._closing:
            with suppress(TimeoutError):
                async with asyncio.timeout(self._options.commit_interval_s):
                    await self._commit_now.wait()
        self._commit_now.clear()

    def limit_attempts(self) -> None:
        """From now on give up a commit after LAST_ATTEMPTS. URLs of visits that are not stored are requested again."""
        self._attempts = LAST_ATTEMPTS

    def finish(self) -> None:
        """Let `run` commit the pending visits and then end."""
        self._closing = True
        self._has_pending.set()
        self._commit_now.set()

    async def close(self) -> list[str]:
        """Close the output files, after `run`. Return the problems as text.

        Committed visits are safe in any case. A rename that failed is repeated at the next start.
        """
        problems = []
        try:
            self.lost_at_end = await self._record_lost_files()
            if rows := self._scheduler.traps.take_rows():  # changed by the last commit
                await self._frontier.settle(Batch([], [], templates=rows))
        except (OSError, FrontierFull) as error:
            problems.append(_error_text(error))
        for sink in self._sinks:
            try:
                files = await self._in_thread(sink.close)
                await self._frontier.record_sink_files([*self._unrecorded, *files])
                self._unrecorded = []
            except (OSError, FrontierFull) as error:
                problems.append(f"{sink.name}: {_error_text(error)}")
            else:
                self._report_closed(files)
        self._thread.shutdown(wait=True)
        return problems

    async def check_files(self) -> bool:
        """Check that every open output file is in its place. URLs of pages in a lost file are queued again.

        While visits are pending nothing is checked (True), because the commit does it.
        """
        if self._pending or self._committing:
            return True
        async with self._commit_lock:
            try:
                return not await self._record_lost_files()
            except (OSError, FrontierFull):  # the next commit reports it, or `close`
                return True

    async def _record_lost_files(self) -> bool:
        """Record in the store the output files that somebody deleted, moved or cut. Return whether there were any.

        Raises OSError, FrontierFull: then the next call continues.
        """
        for sink in self._sinks:
            self._lost += [(sink, one) for one in await self._in_thread(sink.lost_files)]
        had_any = bool(self._lost)
        while self._lost:
            sink, one = self._lost[0]
            queued: dict[int, int] = {}
            if one.file.state is SinkFileState.CLOSED:
                await self._frontier.record_sink_files([one.file])
            elif one.file.committed_bytes:
                queued = await self._frontier.lose_file(one.file.sink, one.file.name)
            del self._lost[0]
            self._unrecorded = [file for file in self._unrecorded if file.name != one.file.name]
            with suppress(OSError):  # the next start does it
                await self._in_thread(sink.set_aside, one)
            self._scheduler.requeued(queued)
            self._observer.file_lost(one, sum(queued.values()))
        return had_any

    async def _commit(self, batch: list[Visited]) -> None:
        scope_hosts, self._new_scope_hosts = self._new_scope_hosts, []
        settlements = [visited.settlement for visited in batch]
        life = self._counters.life_with(settlements)
        round_counts = self._rounds.counts_with(settlements)
        changes = Batch(
            settlements,
            (),
            backoffs=self._scheduler.host_table.take_backoffs(),
            counters=life,
            scope_hosts=scope_hosts,
            hint_after_s=self._scheduler.revisits.hint_after_s,
            slow_responses=self._scheduler.host_table.take_slow_responses(),
            requested=self._scheduler.host_table.take_requested(),
            readiness=self._scheduler.host_table.take_readiness(),
            schedule_at=self._scheduler.host_table.schedule_at(self._clock.mono()),
            templates=self._scheduler.traps.take_rows(),
            error_pages=self._scheduler.traps.take_error_pages(),
            round_counts=round_counts,
        )
        waited = False
        failures = 0
        while isinstance(stored := await self._store(changes), str):
            if not waited:
                self._on_disk(stored)
            waited = True
            if self._attempts is not None:
                failures += 1
                if failures == self._attempts:
                    raise _GivenUp
            await asyncio.sleep(RETRY_S)
        if waited:
            self._on_disk(None)
        self._counters.life = life
        self._rounds.stored(round_counts)
        self.commits += 1
        self._unrecorded = []
        self._report_stored(batch, *stored)
        self._on_rules(stored[0])
        await self._rename_complete()

    async def _store(self, changes: Batch) -> tuple[Receipt, list[RecordLocation | None]] | str:
        """Try to commit, and again if output files were lost. If the disk fails, return the reason as text."""
        while True:
            try:
                if (reason := self._disk_low()) is not None:
                    return reason
                written, lines, files = await self._write_sinks([each.record for each in changes.settlements])
                batch = replace(changes, written=written, lines=lines, sink_files=self._unrecorded + files)
                return await self._frontier.settle(batch), written
            except (OSError, FrontierFull) as error:
                for sink in self._sinks:
                    with suppress(OSError):  # on a failing disk this may fail too; the next attempt resets again
                        await self._in_thread(sink.reset)
                with suppress(OSError, FrontierFull):
                    if await self._record_lost_files():
                        continue
                return _error_text(error)

    async def _rename_complete(self) -> None:
        """Rename complete files after a commit. A failure does not undo the commit: the next commit, or the next start,
        repeats the renames.
        """
        renamed = await self._in_thread(self._commit_sinks)
        self._unrecorded.extend(renamed)  # their new states go with the next commit
        self._report_closed(renamed)

    def _disk_low(self) -> str | None:
        stat = os.statvfs(self._output)
        free = stat.f_bavail * stat.f_frsize
        if free >= self._options.min_free:
            return None
        return f"{free} bytes free, output.min_free is {self._options.min_free}"

    async def _write_sinks(
        self, records: list[Record | None]
    ) -> tuple[list[RecordLocation | None], list[RecordLocation | None], list[SinkFile]]:
        """Write and sync records. Return the location of each in the WARC files, the location of its line in pages/,
        and the new lengths of all files.

        Hashing and compression run on the event loop, because in a thread the interpreter lock would cost as much time
        again (docs/decisions/0004-threads.md).
        """
        written: list[RecordLocation | None] = [None] * len(records)
        lines: list[RecordLocation | None] = []
        for sink in self._sinks:
            places = await self._write_sink(sink, records, written)
            if sink.name == "warc":
                written = places
            elif sink.name == "pages":
                lines = places
        return written, lines, await self._in_thread(self._sync_sinks)

    async def _write_sink(
        self, sink: Sink, records: Sequence[Record | None], written: Sequence[RecordLocation | None]
    ) -> list[RecordLocation | None]:
        places: list[RecordLocation | None] = [None] * len(records)
        left: list[int] = []  # for the thread
        begun_mono = self._clock.mono()
        for i, record in enumerate(records):
            if record is None:
                continue
            if not sink.can_buffer(record):
                left.append(i)
                continue
            places[i] = sink.buffer(record, written[i])
            if self._clock.mono() - begun_mono > BUFFER_S:
                await asyncio.sleep(0)
                begun_mono = self._clock.mono()
        if left:
            chosen = [record for i in left if (record := records[i]) is not None]
            put = await self._in_thread(sink.write, chosen, [written[i] for i in left])
            for i, place in zip(left, put, strict=True):
                places[i] = place
        return places

    def _sync_sinks(self) -> list[SinkFile]:
        """On the sinks' thread."""
        return [file for sink in self._sinks for file in sink.sync()]

    def _commit_sinks(self) -> list[SinkFile]:
        """On the sinks' thread. `committed` of every sink must be called, also if a rename of another one failed."""
        renamed: list[SinkFile] = []
        for sink in self._sinks:
            with suppress(OSError):
                renamed.extend(sink.committed())
        return renamed

    def _report_stored(self, batch: list[Visited], receipt: Receipt, written: Sequence[RecordLocation | None]) -> None:
        counters, scheduler = self._counters, self._scheduler
        scheduler.discoveries_stored(receipt)
        for visited, links_new, place in zip(batch, receipt.links_new, written, strict=True):
            settlement = visited.settlement
            counters.links_new += links_new
            counters.stored(settlement)
            self._meters.attempted(settlement.outcome, visited.dur_s)
            scheduler.visit_stored(settlement, receipt.trial_links.get(settlement.task.id, ()))
            self._observer.stored(visited, links_new, place)

    def _report_closed(self, files: Sequence[SinkFile]) -> None:
        for file in files:
            if file.state is SinkFileState.CLOSED:
                self._observer.file_closed(file)

    async def _in_thread(self, function: Callable[..., Any], *args: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._thread, function, *args)


def _error_text(error: OSError | FrontierFull) -> str:
    if isinstance(error, FrontierFull) or not error.filename:
        return str(error)
    return f"{error.filename}: {error.strerror}"
