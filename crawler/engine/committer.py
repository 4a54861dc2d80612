"""Makes visits durable: sinks written and synced, then one frontier transaction, then the log lines.

Settlements gather until there are enough of them, they are large or old enough, or workers would idle without the URLs
they bring. A commit that fails (full disk) is undone in the sinks and tried again until it succeeds; nothing is taken
from the pending ones before it is stored.

Invariant: what the frontier holds as settled is on disk in the sinks, exactly once.
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
from crawler.engine.scheduling.scheduler import Scheduler
from crawler.frontier.base import Batch, Frontier, FrontierFull, Receipt
from crawler.sinks.base import LostFile, Sink, SinkRecovered

GATHER_S: Final = 0.004  # how long records are made before others have a turn on the loop
RETRY_S: Final = 1.0  # between attempts to commit on a full disk
LAST_ATTEMPTS: Final = 3  # of one commit, once the crawl is to end


class _GivenUp(Exception):
    """A commit of a crawl that is to end failed time and again."""


class Committer:
    """`on_disk` is told why nothing can be written, and None when it works again; `on_rules` gets the hosts whose
    robots.txt changed with a commit. `quiet` is set when nothing is left to commit, or when `run` gives up.
    """

    def __init__(
        self,
        *,
        frontier: Frontier,
        sinks: Sequence[Sink],
        scheduler: Scheduler,
        counters: CrawlCounters,
        meters: LatencyMeters,
        clock: Clock,
        options: EngineOptions,
        output: Path,
        quiet: asyncio.Event,
        observer: Observer,
        on_disk: Callable[[str | None], None],
        on_rules: Callable[[Sequence[int]], None],
    ) -> None:
        self._frontier = frontier
        self._sinks = sinks
        self._scheduler = scheduler
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
        self._processing = 0  # responses of leases that ended, which are no visits yet
        self.commits = 0  # so far
        self._closing = False
        self._attempts: int | None = None  # of each commit; None: for as long as it takes
        self._turned_away = 0  # visits that found no room until the end
        self.has_given_up = False  # `run` ended, and not everything is stored
        self._lost: list[tuple[Sink, LostFile]] = []  # output files that the store has yet to give up
        self._storing = asyncio.Lock()
        self.lost_at_end = False  # some vanished after the last look for them; known after `close`
        self._poke = asyncio.Event()
        self._arrived = asyncio.Event()
        self._room = asyncio.Event()
        self._room.set()
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="sinks")
        self._new_scope_hosts: list[str] = []
        self._unrecorded: list[SinkFile] = []  # states the store has yet to learn

    # -- from workers

    async def put(self, visited: Visited) -> None:
        """Hand over a visit. Waits while what is uncommitted, the batch being stored included, passes a quarter of
        `engine.memory`, or 4 commits' worth.
        """
        while not self._room.is_set():
            try:
                await self._room.wait()
            except asyncio.CancelledError:
                self._turned_away += 1
                raise
        self._pending.append(visited)
        self._pending_bytes += visited.held_bytes
        options = self._options
        uncommitted_bytes = self._pending_bytes + self._committing_bytes
        if uncommitted_bytes > options.memory // 4 or len(self._pending) > 4 * options.commit_settlements:
            self._room.clear()
        self._arrived.set()
        if len(self._pending) >= options.commit_settlements or self._pending_bytes >= options.commit_bytes:
            self._poke.set()
        else:
            self.nudge()

    def nudge(self, *, now: bool = False) -> None:
        """Commit at once if workers wait for the URLs that pending visits found, or if told so."""
        if self._pending and (now or self._scheduler.lacks_urls):
            self._poke.set()

    def add_scope_host(self, host: str) -> None:
        """A host that a seed's redirect brought in, for the next commit."""
        self._new_scope_hosts.append(host)

    def processing_began(self) -> None:
        """A response of a lease that ended is processed; a visit follows."""
        self._processing += 1

    def processing_ended(self) -> None:
        """It is processed, or the worker was cancelled."""
        self._processing -= 1
        if not self._processing and not self._scheduler.leases_out:
            self._quiet.set()

    @property
    def is_processing(self) -> bool:
        """Whether a response of a lease that ended is still processed."""
        return self._processing > 0

    @property
    def is_idle(self) -> bool:
        """Whether there is nothing to store, unless a lease that is out brings it."""
        return not self._pending and not self._committing and not self._processing

    @property
    def uncommitted(self) -> int:
        """Visits fetched and not stored yet."""
        return len(self._pending)

    @property
    def unstored(self) -> int:
        """Visits that were made and not stored, after the end: their URLs are still queued in the store."""
        return len(self._pending) + self._turned_away

    @property
    def uncommitted_bytes(self) -> int:
        """What the visits cost that wait for the next commit."""
        return self._pending_bytes

    # -- the loop

    async def open(self, known: Sequence[SinkFile], *, is_restored: bool = False) -> SinkRecovered:
        """Make the sinks agree with the store; returns what that took. Raises OSError, or the sink's own error for a
        damaged file.
        """
        recovery = SinkRecovered()
        for sink in self._sinks:
            ours = [file for file in known if file.sink == sink.name]
            changed = await self._in_thread(partial(sink.open, ours, is_restored=is_restored))
            if changed:
                await self._frontier.record_sink_files(changed)
            self._say_closed(changed)  # once more, perhaps: who crashed may have said it already
            recovery += sink.recovery
        if is_restored:
            await self._frontier.clear_restored()
        return recovery

    async def run(self) -> None:
        """Commit until `finish` was called and everything is stored, or cannot be."""
        while True:
            if not self._pending:
                self._quiet.set()
                if self._closing:
                    return
                self._arrived.clear()
                await self._arrived.wait()
                continue
            await self._gather()
            batch = self._pending
            self._pending, self._pending_bytes, self._committing_bytes = [], 0, self._pending_bytes
            self._committing = True
            try:
                async with self._storing:
                    await self._commit(batch)
            except BaseException as error:  # cancelled: what is not stored is not forgotten
                self._pending = batch + self._pending
                if not isinstance(error, _GivenUp):
                    raise
                self.has_given_up = True
                self._quiet.set()
                return
            finally:
                self._committing = False
                self._committing_bytes = 0
            self._room.set()

    async def _gather(self) -> None:
        if not self._closing:
            with suppress(TimeoutError):
                async with asyncio.timeout(self._options.commit_interval_s):
                    await self._poke.wait()
        self._poke.clear()

    def hasten(self) -> None:
        """The crawl is to end: who cannot store something now need not try for ever. What is not stored is still queued
        in the store, and is fetched again.
        """
        self._attempts = LAST_ATTEMPTS

    def finish(self) -> None:
        """Store what is pending and end `run`."""
        self._closing = True
        self._arrived.set()
        self._poke.set()

    async def close(self) -> list[str]:
        """After `run` has ended: end the output files. Returns what went wrong, in words: what is committed is safe
        all the same, and the next start finishes a rename, if the file is still there.
        """
        problems = []
        try:
            self.lost_at_end = await self._give_up_lost_files()
            if rows := self._scheduler.traps.take_rows():  # what the last commit taught
                await self._frontier.settle(Batch([], [], templates=rows))
        except (OSError, FrontierFull) as error:
            problems.append(_words(error))
        for sink in self._sinks:
            try:
                files = await self._in_thread(sink.close)
                await self._frontier.record_sink_files([*self._unrecorded, *files])
                self._unrecorded = []
            except (OSError, FrontierFull) as error:
                problems.append(f"{sink.name}: {_words(error)}")
            else:
                self._say_closed(files)
        self._thread.shutdown(wait=True)
        return problems

    async def look_for_files(self) -> bool:
        """Whether every open output file is in its place; what was in one that is not is queued again. True, without a
        look, while something is to be stored: that looks itself.
        """
        if self._pending or self._committing:
            return True
        async with self._storing:
            try:
                return not await self._give_up_lost_files()
            except (OSError, FrontierFull):  # the next commit tells, or the end
                return True

    async def _give_up_lost_files(self) -> bool:
        """Tell the store which output files somebody deleted, moved or cut. Returns whether there were any. Raises
        OSError, FrontierFull: then the rest is told the next time.
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
        changes = Batch(
            settlements,
            (),
            backoffs=self._scheduler.host_table.take_backoffs(),
            counters=life,
            scope_hosts=scope_hosts,
            hint_after_s=self._scheduler.revisits.hint_after_s,
            slow_responses=self._scheduler.host_table.take_slow_responses(),
            templates=self._scheduler.traps.take_rows(),
            error_pages=self._scheduler.traps.take_error_pages(),
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
        self.commits += 1
        self._unrecorded = []
        self._stored(batch, *stored)
        self._on_rules(stored[0].robots_changed)
        await self._rename_complete()

    async def _store(self, changes: Batch) -> tuple[Receipt, list[RecordLocation | None]] | str:
        """One attempt, and another at once where output files vanished. Returns why nothing was stored, in words, if
        the disk is to blame.
        """
        while True:
            try:
                if (reason := self._disk_low()) is not None:
                    return reason
                written, lines, files = await self._write_sinks([each.record for each in changes.settlements])
                batch = replace(changes, written=written, lines=lines, sink_files=self._unrecorded + files)
                return await self._frontier.settle(batch), written
            except (OSError, FrontierFull) as error:
                for sink in self._sinks:
                    with suppress(OSError):  # on a dying disk this fails too; the next attempt resets again
                        await self._in_thread(sink.reset)
                with suppress(OSError, FrontierFull):
                    if await self._give_up_lost_files():
                        continue
                return _words(error)

    async def _rename_complete(self) -> None:
        """The batch is stored: nothing here may undo it. What fails is taken up by the next commit or start."""
        renamed = await self._in_thread(self._commit_sinks)
        self._unrecorded.extend(renamed)  # their new states go with the next commit
        self._say_closed(renamed)

    def _disk_low(self) -> str | None:
        stat = os.statvfs(self._output)
        free = stat.f_bavail * stat.f_frsize
        if free >= self._options.min_free:
            return None
        return f"{free} bytes free, output.min_free is {self._options.min_free}"

    async def _write_sinks(
        self, records: list[Record | None]
    ) -> tuple[list[RecordLocation | None], list[RecordLocation | None], list[SinkFile]]:
        """Returns where the WARC holds each record, where pages/ its line, and the files' lengths.

        What needs no disk is done here: a thread that hashes and compresses beside a busy loop spends as much again on
        getting the interpreter lock back (docs/decisions/0004-threads.md).
        """
        written: list[RecordLocation | None] = [None] * len(records)
        lines: list[RecordLocation | None] = []
        for sink in self._sinks:
            places = await self._write_sink(sink, records, written)
            if sink.name == "warc":
                written = places
            else:
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
            if self._clock.mono() - begun_mono > GATHER_S:
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
        """On the sinks' thread. Every sink must hear of the commit, whatever became of the others' renames."""
        renamed: list[SinkFile] = []
        for sink in self._sinks:
            with suppress(OSError):
                renamed.extend(sink.committed())
        return renamed

    def _stored(self, batch: list[Visited], receipt: Receipt, written: Sequence[RecordLocation | None]) -> None:
        counters, scheduler = self._counters, self._scheduler
        scheduler.discoveries_stored(receipt)
        for visited, links_new, place in zip(batch, receipt.links_new, written, strict=True):
            settlement = visited.settlement
            counters.links_new += links_new
            counters.stored(settlement)
            self._meters.attempted(settlement.outcome, visited.dur_s)
            scheduler.visit_stored(settlement, receipt.trial_links.get(settlement.task.id, ()))
            self._observer.stored(visited, links_new, place)

    def _say_closed(self, files: Sequence[SinkFile]) -> None:
        for file in files:
            if file.state is SinkFileState.CLOSED:
                self._observer.file_closed(file)

    async def _in_thread(self, function: Callable[..., Any], *args: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._thread, function, *args)


def _words(error: OSError | FrontierFull) -> str:
    if isinstance(error, FrontierFull) or not error.filename:
        return str(error)
    return f"{error.filename}: {error.strerror}"
