"""A crawl from start to end: its tasks, the reasons for its end, and how the tasks stop.

All tasks run in one TaskGroup, so that a bug in one ends the process. Draining only saves work: because of recovery at
the next start, a stop is correct at any instant.
"""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from contextlib import suppress
from typing import Final

from crawler.core.clock import Clock
from crawler.core.enums import StoppedBy
from crawler.engine.committer import Committer
from crawler.engine.observer import Observer
from crawler.engine.options import EngineOptions
from crawler.engine.pages.worker import Worker
from crawler.engine.reevaluation import Reevaluation
from crawler.engine.rounds import Rounds
from crawler.engine.scheduling.ready_queue import NEVER
from crawler.engine.scheduling.scheduler import Scheduler
from crawler.frontier.base import FrontierFull

CLOCK_STEP_S: Final = 1.0  # smaller steps of the wall clock are ignored: NTP slews by less, and it slews both clocks
_CHECK_S: Final = 1.0  # whether the crawl has ended is checked at least this often
# The crawl has done what it can: what is left is kept by a host, a limit or traps, and a round of it is over.
_BY_ITSELF: Final = (StoppedBy.EMPTY, StoppedBy.TRAPS, StoppedBy.WAITING, StoppedBy.MAX_URLS)
_IDLE_S: Final = 60.0  # a daemon that has nothing to do for so long has done a round
_OTHERS_S: Final = 0.5  # until other agents are asked again whether they have something left to do
_FINISH_S: Final = 5.0  # for the last commit, if draining took all of `drain_s`


class StepWatch:
    """Detects that the wall clock was set, by comparing it with the monotonic clock."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._ahead_s = clock.now() - clock.mono()

    def step_s(self) -> float:
        """Seconds by which the wall clock was set since the last call: positive forward, negative back, 0 if it was
        not.

        After a suspend of the machine it looks like a step forward, because CLOCK_MONOTONIC stands still meanwhile.
        """
        ahead_s = self._clock.now() - self._clock.mono()
        step_s = ahead_s - self._ahead_s
        if abs(step_s) < CLOCK_STEP_S:
            return 0.0
        self._ahead_s = ahead_s
        return step_s


class Crawl:
    """Runs until nothing is left to do within `engine.linger_s`, or until `drain`.

    The other parts set `quiet` when there may be nothing left to do. `background` tasks run until draining begins.
    `is_over`: whether the crawl is over for all agents that share the store, when it is over here.
    """

    def __init__(
        self,
        *,
        scheduler: Scheduler,
        workers: Sequence[Worker],
        committer: Committer,
        reevaluation: Reevaluation,
        rounds: Rounds,
        clock: Clock,
        options: EngineOptions,
        quiet: asyncio.Event,
        observer: Observer,
        background: Sequence[Callable[[], Coroutine[None, None, None]]] = (),
        is_over: Callable[[Callable[[], bool], bool], Awaitable[bool]] | None = None,
    ) -> None:
        self._is_over = is_over
        self._scheduler = scheduler
        self._workers = workers
        self._committer = committer
        self._clock = clock
        self._options = options
        self._observer = observer
        self._reevaluation = reevaluation
        self._rounds = rounds
        self._wall_clock = StepWatch(clock)
        self._quiet = quiet
        self._background = (reevaluation.run, rounds.run, scheduler.revisits.run, *background)
        self._stop: StoppedBy | None = None
        self.disk_reason = ""  # why nothing can be stored; "" if it can
        self._disk_mono = 0.0  # since when
        self.is_held = False  # paused by the operator
        self.is_lingering = False  # it waits for URLs that are due within `engine.linger_s`
        self._has_ended = False

    @property
    def why_not_stored(self) -> str:
        """Why nothing can be stored, or handed on to other agents; "" if it can."""
        return self.disk_reason or self._scheduler.pause_reason()

    @property
    def is_draining(self) -> bool:
        """No request begins any more; what is in flight is finished and stored."""
        return self._stop is not None or self._has_ended

    @property
    def is_quiet(self) -> bool:
        """Nothing is in flight, being stored, or being read from the store."""
        is_done = self._scheduler.is_quiet and self._committer.is_idle and self._reevaluation.is_idle
        return is_done and not self._scheduler.revisits.is_dating and not self._rounds.is_queueing

    @property
    def _is_shut(self) -> bool:
        """Whether no request may begin at all: the hours are closed, or the network is out."""
        scheduler = self._scheduler
        is_open = scheduler.crawl_rate_limiter.closed_s() <= 0 and not scheduler.pause_reason()
        return not is_open or scheduler.host_table.outage.since_mono is not None

    def drain(self, reason: StoppedBy = StoppedBy.SIGNAL) -> None:
        """Finish what is in flight, then end."""
        if self._stop is None:
            self._stop = reason
        self._quiet.set()

    def disk(self, reason: str | None) -> None:
        """Pause while nothing can be written, for `reason`; None: continue."""
        self.disk_reason, self._disk_mono = reason or "", self._clock.mono()
        self._pause_or_go_on()

    def hold(self, held: bool) -> None:
        """Pause for the operator: no request begins, requests in flight are finished. False: continue."""
        self.is_held = held
        self._pause_or_go_on()

    def _pause_or_go_on(self) -> None:
        self.is_lingering = False
        self._scheduler.paused = self.is_held or bool(self.disk_reason)
        self._scheduler.wake()
        self._quiet.set()

    async def run(self) -> StoppedBy:
        """Crawl, and return why it ended. Everything that was fetched is then committed, unless the disk is full: URLs
        of visits that could not be stored are still queued.
        """
        async with asyncio.TaskGroup() as group:
            workers = [group.create_task(worker.run(), name=f"worker-{n}") for n, worker in enumerate(self._workers)]
            group.create_task(self._scheduler.run(), name="scheduler")
            committing = group.create_task(self._committer.run(), name="committer")
            background = [group.create_task(run()) for run in self._background]
            reason = await self._until_done()
            with suppress(FrontierFull):  # a database that is away just now
                if reason is StoppedBy.EMPTY and await self._scheduler.is_limited():
                    reason = StoppedBy.MAX_URLS
            if reason is StoppedBy.EMPTY and await self._scheduler.suspects_left():
                reason = StoppedBy.TRAPS
            is_interrupted = reason not in _BY_ITSELF or (reason is not StoppedBy.EMPTY and self._is_shut)
            self._has_ended = True
            self._observer.drain(reason, len(self._scheduler.leases_out))
            self._scheduler.stop()
            self._committer.limit_attempts()
            for task in background:
                task.cancel()
            # The crawl waited for the disk for `crawl.linger` already: it does not wait again.
            deadline = self._clock.mono() + (0.0 if reason is StoppedBy.DISK else self._options.drain_s)
            await self._drained(workers, deadline)
            self._committer.finish()
            with suppress(TimeoutError):
                async with asyncio.timeout(max(_FINISH_S, deadline - self._clock.mono())):
                    await asyncio.wait({committing})
            committing.cancel()  # work is left only if the disk is still full
        with suppress(FrontierFull):
            await self._scheduler.revisits.store_in_links()
            await self._scheduler.workbench.store_all()
            if not is_interrupted and not self._committer.has_given_up:
                await self._rounds.end(self._clock.now())
        return reason

    async def _drained(self, workers: list[asyncio.Task[None]], deadline: float) -> None:
        scheduler, committer = self._scheduler, self._committer
        with suppress(TimeoutError):
            async with asyncio.timeout(max(0.0, deadline - self._clock.mono())):
                while (scheduler.leases_out or committer.is_processing) and not committer.has_given_up:
                    self._quiet.clear()
                    await self._quiet.wait()
        for worker in workers:
            worker.cancel()
        await asyncio.wait(workers)

    async def _until_done(self) -> StoppedBy:
        started = self._clock.mono()
        max_s = self._options.max_duration_s
        while self._stop is None:
            self._quiet.clear()
            if step_s := self._wall_clock.step_s():
                self._scheduler.clock_was_set(step_s)
            if max_s is not None and self._clock.mono() - started >= max_s:
                return StoppedBy.MAX_DURATION
            reason = self._ended()
            if reason is not None and await self._others_go_on(reason):
                reason = None
                await asyncio.sleep(_OTHERS_S)
            if reason is not None:
                if await self._committer.check_files():  # one may have vanished since the last commit
                    return reason
                continue
            if self._rounds.is_under_way and self._options.linger_s is None and self._has_nothing_due():
                with suppress(FrontierFull):
                    await self._rounds.end(self._clock.now())
            left_s = _CHECK_S if max_s is None else min(_CHECK_S, max(0.0, started + max_s - self._clock.mono()))
            with suppress(TimeoutError):
                async with asyncio.timeout(left_s):
                    await self._quiet.wait()
        return self._stop

    async def _others_go_on(self, reason: StoppedBy) -> bool:
        """Whether other agents that share the store may still find something for this one. If it can do nothing more,
        it leaves its hosts to them.
        """
        if self._is_over is None:
            return False
        leaves = reason is StoppedBy.DISK or self._scheduler.host_table.outage.since_mono is not None
        try:
            return not await self._is_over(lambda: self._ended() is not None, leaves)
        except FrontierFull:
            return True

    def _has_nothing_due(self) -> bool:
        """Whether a daemon has nothing to do within _IDLE_S that is not kept by a host or a limit."""
        if self.is_held or self.disk_reason or not self.is_quiet or self._is_shut:
            return False
        next_at = self._scheduler.due_urls.next_at
        retry_s = NEVER if next_at is None else next_at - self._clock.now()
        return min(retry_s, self._scheduler.next_request_s(enough_s=_CHECK_S)) > _IDLE_S

    def _ended(self) -> StoppedBy | None:
        """Why there is nothing left to do; None while there is."""
        linger_s = self._options.linger_s
        outage = self._scheduler.host_table.outage
        if linger_s is None:
            return None
        if outage.since_mono is not None:
            return StoppedBy.WAITING if self._clock.mono() - outage.since_mono > linger_s else None
        if self._scheduler.pause_reason():
            return None
        if self.disk_reason:
            return StoppedBy.DISK if self._clock.mono() - self._disk_mono > linger_s else None
        if self.is_held:
            return None
        self.is_lingering = False
        if not self.is_quiet:
            return None
        wait_s = self._scheduler.next_request_s(enough_s=min(_CHECK_S, linger_s))
        if self._scheduler.due_urls.next_at is not None:
            wait_s = min(wait_s, self._scheduler.due_urls.next_at - self._clock.now())
        again_s = self._scheduler.revisits.due_s()
        if again_s <= linger_s:  # a crawl does not wait for a later revisit
            wait_s = min(wait_s, again_s)
        if wait_s < NEVER:
            wait_s = max(wait_s, self._scheduler.crawl_rate_limiter.closed_s())
        if wait_s <= linger_s:
            self.is_lingering = wait_s > _CHECK_S
            return None
        if self._scheduler.url_limits.is_reached:
            return StoppedBy.MAX_URLS
        return StoppedBy.EMPTY if wait_s == NEVER else StoppedBy.WAITING
