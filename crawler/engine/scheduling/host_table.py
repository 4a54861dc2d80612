"""The scheduler's books: every host and politeness key, what they have been asked, and what their answers earned them.

Answers come in here and change whose turn is when. Nothing here waits or does I/O.
"""

import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import assert_never

from crawler.core.clock import Clock
from crawler.core.enums import ErrorType, HostState, TaskKind
from crawler.core.formatting import timestamp
from crawler.core.models import (
    Backoff,
    Failed,
    Fetched,
    FetchResult,
    HostRow,
    Lease,
    Origin,
    Outcome,
    RobotsRecord,
    SlowResponse,
)
from crawler.core.options import PolitenessOptions
from crawler.core.outcomes import (
    OUTAGE_PROBE_S,
    TRANSIENT_ERRORS_IN_A_ROW,
    OutageWatch,
    backs_off_origin,
    is_connection_error,
    is_outage_error,
    is_permanent,
    is_throttled,
    is_transient,
)
from crawler.core.politeness import (
    OPEN,
    PolitenessState,
    backoff_s,
    host_delay,
    politeness_key,
    retry_after_s,
    server_error_backoff_s,
    throttled_backoff_s,
)
from crawler.engine.scheduling.blocklist import Blocklist
from crawler.engine.scheduling.host import Host, PolitenessKey
from crawler.frontier.base import Recovered
from crawler.obs.events import Event

OnEvent = Callable[[Event, dict[str, object]], None]
_SLOWNESS_SLACK = 0.8  # a pace that is as good as the stored one is not stored anew
_MAX_REST_S = 86_400.0  # what a clock set back may make of a rest kept in UTC


class HostTable:
    """`on_event` gets `host_state` lines, `on_open` hosts that may be requested again, `on_outage_over` when the outage
    began (UTC).
    """

    def __init__(
        self,
        *,
        politeness: PolitenessOptions,
        clock: Clock,
        rng: random.Random,
        on_event: OnEvent,
        blocks: Blocklist | None = None,
        on_open: Callable[[Sequence[Host]], None] = lambda hosts: None,
        on_outage_over: Callable[[float], None] = lambda since_at: None,
    ) -> None:
        self._politeness = politeness
        self._clock = clock
        self._rng = rng
        self._on_event = on_event
        self._dirty_backoffs: dict[str, Backoff] = {}
        self._dirty_slow_responses: dict[str, SlowResponse] = {}
        self.hosts: dict[int, Host] = {}
        self.keys: dict[str, PolitenessKey] = {}
        self.blocks = Blocklist() if blocks is None else blocks
        self.denied: set[Host] = set()  # robots.txt keeps us from some of their URLs: it may say something else one day
        self.is_dated_ahead = False  # the store has visits that the clock of its time dated later than now
        self.outage = OutageWatch()
        self._before: dict[
            Host, PolitenessState
        ] = {}  # turns of those that failed since the last answer, as they were before
        self._good_hosts = 0
        self._on_open = on_open
        self._on_outage_over = on_outage_over

    # -- the wall clock

    def clock_was_set(self, step_s: float) -> None:
        """The wall clock was set by so much. Delays and rests do not know it; dates of robots.txt that a clock gave
        which was ahead are moved back with it, so that nobody waits the longer for them.
        """
        self._on_event(Event.CLOCK_SET, {"step_s": round(step_s, 3)})
        now = self._clock.now()
        ahead = [host for host in self.hosts.values() if _is_dated_ahead(host.robots, now)]
        for host in ahead:
            _redate(host, now, lambda expires_at: expires_at + step_s)
        self._on_open(ahead)

    # -- hosts and keys

    def load(self, recovered: Recovered, *, same_delays: bool = False) -> None:
        """Take over hosts and rests. Every key first rests its delay, from its last answer on if that is
        known to have been the last, else from now on. `same_delays`: the earlier run kept to the options of this one.
        """
        now, mono = self._clock.now(), self._clock.mono()
        self.admit(recovered.hosts)
        self.is_dated_ahead = any((row.last_at or 0.0) > now for row in recovered.hosts)
        for host in self.hosts.values():
            if host.is_held or _is_dated_ahead(host.robots, now):
                # the operator has started us again: ask now, not when the old rest ends
                _redate(host, now, lambda _: 0.0)
        for host_id in recovered.suspects:
            self.hosts[host_id].has_suspects = True  # as far as is known before its templates are read
        backoffs = {rest.key: rest for rest in recovered.backoffs}
        for name in backoffs.keys() - self.keys.keys():  # of a host asked only for another's robots.txt
            self.keys[name] = PolitenessKey(name, host_delay(self._politeness, None))
        for stored in recovered.slow_responses if self._politeness.adaptive else ():
            if (slow := self.keys.get(stored.key)) is not None:
                slow.slow_s = slow.slow_stored_s = host_delay(self._politeness, None, stored.response_s)
        asked_at: dict[PolitenessKey, float] = {}
        for row in recovered.hosts if same_delays else ():
            key = self.hosts[row.id].key
            asked_at[key] = max(asked_at.get(key, 0.0), row.last_at or 0.0)
        for key in self.keys.values():
            unasked_s = _unasked_s(key, now - asked_at.get(key, 0.0))
            if unasked_s > 0:
                key.last_end_mono = mono - unasked_s
            key.politeness = OPEN.began().ended(mono - unasked_s, delay_s=max(key.delay_s, key.slow_s))
            if (rest := backoffs.get(key.name)) is not None:
                rested = key.politeness.backed_off(mono + min(max(0.0, rest.until_at - now), _MAX_REST_S), rest.reason)
                key.politeness = replace(rested, failures=rest.failures)

    def admit(self, rows: Sequence[HostRow]) -> None:
        """Open a page for each host not known yet."""
        for row in rows:
            if row.id not in self.hosts:
                key = self.key_for(row.origin)
                self.hosts[row.id] = host = Host(row.id, row.origin, key, queued=row.queued, fetched=row.fetched)
                host.robots = row.robots
                host.is_blocked = self.blocks.covers(row.origin.host) is not None
                if row.robots is not None and row.robots.status_code is not None:
                    self._has_answered(host)
                self._learn_delay(host)

    def key_for(self, origin: Origin) -> PolitenessKey:
        """The politeness key that pays for an origin."""
        name = politeness_key(origin.host, self._politeness)
        key = self.keys.get(name)
        if key is None:
            key = self.keys[name] = PolitenessKey(name, host_delay(self._politeness, None))
        return key

    def _learn_delay(self, host: Host) -> None:
        crawl_delay_s = host.robots.crawl_delay_s if host.robots is not None else None
        key = host.key
        delay_s = host_delay(self._politeness, crawl_delay_s)
        if delay_s > key.delay_s:
            key.delay_s = delay_s
            if key.last_end_mono is not None:  # it holds already for what was asked before it was known
                key.politeness = key.politeness.began().ended(key.last_end_mono, delay_s=delay_s)

    def learn_robots(self, host: Host, record: RobotsRecord) -> None:
        """A robots verdict was reached. Its text is not kept."""
        was_held = host.is_held
        host.robots = replace(record, body=None)
        host.robots_pending = False
        self._learn_delay(host)
        if host.is_held:
            self._say(host, HostState.READY, HostState.HELD, host.robots_problem, record.expires_at)
        elif was_held:
            self._say(host, HostState.HELD, HostState.READY, "robots.txt read")

    def reconfigure(self, politeness: PolitenessOptions) -> None:
        """Other options are in force. What was asked before keeps the rest it earned, or gets a longer one: no delay
        becomes shorter for a request that was made under the longer one. `politeness.key` stays as it was.
        """
        self._politeness = replace(politeness, key=self._politeness.key)
        for key in self.keys.values():
            key.delay_s, key.slow_s = host_delay(self._politeness, None), min(key.slow_s, self._slowest_s())
        for host in self.hosts.values():
            self._learn_delay(host)
        for key in self.keys.values():
            if key.last_end_mono is not None and key.delay_s > 0:
                key.politeness = key.politeness.began().ended(key.last_end_mono, delay_s=key.delay_s)

    def _slowest_s(self) -> float:
        return float("inf") if self._politeness.adaptive and self._politeness.delay_s > 0 else 0.0

    def look_at_blocks(self) -> list[Host]:
        """Blocks came or went: mark the hosts. Returns those that changed."""
        changed = []
        for host in self.hosts.values():
            is_blocked = self.blocks.covers(host.origin.host) is not None
            if is_blocked is not host.is_blocked:
                host.is_blocked = is_blocked
                changed.append(host)
        return changed

    # -- results of requests

    def learn_result(self, lease: Lease, kind: TaskKind, result: FetchResult) -> bool:
        """Note how the host answered a request, or that it did not. False: the host rests from now on."""
        match result:
            case Fetched():
                timings = result.timings
                self.answered(lease, timings.first_byte_s + timings.body_s, result.connection.peer_address)
                if is_throttled(result):
                    wait_s = retry_after_s(result.head, self._clock.now())
                    self.throttled(lease, result.head.status_code, wait_s)
                    return False
                if is_transient(result):
                    return not self.failed_transiently(lease, result.head.status_code)
                self.calmed(lease)
                return True
            case Failed():
                if backs_off_origin(result.error_type, kind):
                    self.origin_failed(lease, result.error_type, permanent=is_permanent(result.error_type))
                    return False
                return True
            case _:
                assert_never(result)

    def due_in_s(self, lease: Lease, outcome: Outcome, after_s: float) -> float:
        """Seconds until a failed URL is due again: as long as its host rests, where the host alone was to blame, else
        `after_s`.
        """
        if is_throttled(outcome):
            return max(0.0, self.key_for(lease.origin).politeness.open_mono - self._clock.mono())
        if isinstance(outcome, Failed) and is_connection_error(outcome.error_type):
            return max(0.0, self.hosts[lease.host_id].politeness.open_mono - self._clock.mono())
        return after_s

    def answered(self, lease: Lease, response_s: float, peer: str) -> None:
        """A response arrived: the origin is alive, whatever it said."""
        host = self.hosts[lease.host_id]
        key = self.key_for(lease.origin)
        if self._politeness.adaptive:
            key.slow_s = slow_s = host_delay(self._politeness, None, response_s)
            slow_s = slow_s if slow_s > key.delay_s else 0.0
            if not _SLOWNESS_SLACK * key.slow_stored_s <= slow_s <= 1.25 * key.slow_stored_s:
                key.slow_stored_s = slow_s
                response_s = response_s if slow_s else 0.0
                self._dirty_slow_responses[key.name] = SlowResponse(key.name, response_s, self._clock.now())
        if self._before:
            self._somebody_answered()
        if host.origin != lease.origin:
            return
        host.peer = peer
        if not host.ever_responded:
            self._has_answered(host)
        if host.politeness.failures:
            self._say(host, HostState.BACKOFF, HostState.READY, "answered")
            host.politeness = host.politeness.recovered()

    def calmed(self, lease: Lease) -> None:
        """An answer that did not push back: the key's strikes are forgotten."""
        self.hosts[lease.host_id].transient_failures = 0
        key = self.key_for(lease.origin)
        if key.politeness.failures:
            key.politeness = key.politeness.recovered()
            self._dirty_backoffs[key.name] = Backoff(key.name, 0.0, 0, "")
            self._say(self.hosts[lease.host_id], HostState.BACKOFF, HostState.READY, "answered")

    def throttled(self, lease: Lease, status: int, wait_s: float | None) -> float:
        """429 or 503: the whole key rests, `wait_s` if the server said so. Returns for how many seconds."""
        key = self.key_for(lease.origin)
        rest = throttled_backoff_s(key.politeness.failures, wait_s, self._rng)
        reason = f"{status}" + (f" Retry-After {wait_s:.0f}" if wait_s is not None else "")
        key.politeness = key.politeness.backed_off(self._clock.mono() + rest, reason)
        until_at = self._clock.now() + rest
        self._dirty_backoffs[key.name] = Backoff(key.name, until_at, key.politeness.failures, reason)
        self._say(self.hosts[lease.host_id], HostState.READY, HostState.BACKOFF, reason, until_at)
        return rest

    def failed_transiently(self, lease: Lease, status: int) -> bool:
        """A 500 or its like, which is mostly one URL's own. After each PASSING_IN_A_ROW of them, with no other answer
        of the host between, the host rests for a while. Returns whether it does.
        """
        host = self.hosts[lease.host_id]
        host.transient_failures += 1
        if host.transient_failures % TRANSIENT_ERRORS_IN_A_ROW:
            return False
        rest = server_error_backoff_s(host.transient_failures // TRANSIENT_ERRORS_IN_A_ROW)
        host.politeness = host.politeness.backed_off(self._clock.mono() + rest, str(status))
        self._say(host, HostState.READY, HostState.BACKOFF, str(status), self._clock.now() + rest)
        return True

    def origin_failed(self, lease: Lease, error: ErrorType, *, permanent: bool) -> float:
        """The origin could not be spoken to: it rests, unless nobody can be. Returns for how many seconds."""
        host = self.hosts[lease.host_id]
        mono = self._clock.mono()
        if is_outage_error(error):
            self._before.setdefault(host, host.politeness)
            if host.ever_responded and self.outage.failed(host.id, mono, error, good_hosts=self._good_hosts):
                self._outage_began(error)
            if self.outage.is_on:
                return OUTAGE_PROBE_S
        elif (turn := self._before.pop(host, None)) is not None:
            host.politeness = turn  # what it rests for now is its own, and no outage's end lifts it
        failures = 99 if permanent else host.politeness.failures
        rest = backoff_s(failures, self._rng, ever_responded=host.ever_responded)
        before = HostState.BACKOFF if host.politeness.failures else HostState.READY
        host.politeness = host.politeness.backed_off(mono + rest, error)
        self._say(host, before, HostState.BACKOFF, error, self._clock.now() + rest)
        return rest

    # -- an outage of ours

    def _has_answered(self, host: Host) -> None:
        host.ever_responded = True
        self._good_hosts += 1

    def _outage_began(self, error: ErrorType) -> None:
        """The failures of late are nobody's fault: whoever rests for one may be asked, one at a time."""
        since_mono = self.outage.since_mono or 0.0
        since_at = self._clock.now() - (self._clock.mono() - since_mono)
        self._on_event(
            Event.OUTAGE, {"hosts": len(self.outage.failing), "since": timestamp(since_at), "error_type": error.value}
        )
        self._reopen_failed()

    def _somebody_answered(self) -> None:
        lasted_s = self.outage.responded(self._clock.mono())
        if lasted_s is not None:
            since_at = self._clock.now() - lasted_s
            for host in self.hosts.values():
                robots = host.robots
                if robots is not None and robots.failing_since is not None and robots.failing_since >= since_at:
                    host.robots = replace(robots, expires_at=0.0)
                    self._before.setdefault(host, host.politeness)
            self._on_event(Event.OUTAGE_OVER, {"hosts": len(self._before), "outage_s": round(lasted_s, 1)})
            self._reopen_failed()
            self._on_outage_over(since_at)
        self._before.clear()

    def _reopen_failed(self) -> None:
        for host, turn in self._before.items():
            host.politeness = turn
        self._on_open(tuple(self._before))

    def take_slow_responses(self) -> list[SlowResponse]:
        """How slow keys are, where that changed since last asked, for the next commit."""
        slow_responses = list(self._dirty_slow_responses.values())
        self._dirty_slow_responses.clear()
        return slow_responses

    def take_backoffs(self) -> list[Backoff]:
        """Rests that changed since last asked, for the next commit."""
        backoffs = list(self._dirty_backoffs.values())
        self._dirty_backoffs.clear()
        return backoffs

    def _say(self, host: Host, before: HostState, after: HostState, reason: str, until_at: float | None = None) -> None:
        fields: dict[str, object] = {
            "server_address": host.origin.host,
            "server_port": host.origin.port,
            "from": before.value,
            "to": after.value,
            "reason": reason,
        }
        if until_at is not None:
            fields["until"] = timestamp(until_at)
        self._on_event(Event.HOST_STATE, fields)


def _is_dated_ahead(robots: RobotsRecord | None, now: float) -> bool:
    return robots is not None and max(robots.fetched_at, robots.failing_since or 0.0) > now


def _redate(host: Host, now: float, expires_at: Callable[[float], float]) -> None:
    """Give a host's robots.txt another date of expiry, and no date later than now beside it."""
    if (robots := host.robots) is not None:
        since = None if robots.failing_since is None else min(robots.failing_since, now)
        host.robots = replace(
            robots,
            fetched_at=min(robots.fetched_at, now),
            failing_since=since,
            expires_at=expires_at(robots.expires_at),
        )


def _unasked_s(key: PolitenessKey, since_s: float) -> float:
    """For how long a key has certainly not been asked, if its last answer that is stored ended `since_s` ago. While the
    delay ran nobody may have asked; later somebody may, whose answer was not stored before a crash.
    """
    return since_s if 0 < since_s < max(key.delay_s, _SLOWNESS_SLACK * key.slow_s) else 0.0
