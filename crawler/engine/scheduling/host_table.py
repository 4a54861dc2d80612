"""The host table: every host and politeness key in memory, and what responses and failures mean for them.

A result may delay a key, make a host back off, or be a sign of an outage. Nothing here waits or does I/O.
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
_STORED_TOLERANCE = 0.8  # an adaptive delay within this factor of the stored one is not stored again
_MAX_RECOVERED_BACKOFF_S = 86_400.0  # a stored back-off (UTC) may lie far ahead if the clock was set back


class HostTable:
    """Callbacks: `on_event` receives `host_state`, `clock_set` and `outage` events, `on_open` receives hosts that may
    be requested again, and `on_outage_over` receives the time at which the outage began (UTC).
    """

    def __init__(
        self,
        *,
        politeness: PolitenessOptions,
        clock: Clock,
        rng: random.Random,
        on_event: OnEvent,
        blocklist: Blocklist | None = None,
        on_open: Callable[[Sequence[Host]], None] = lambda hosts: None,
        on_outage_over: Callable[[float], None] = lambda since_at: None,
    ) -> None:
        self._politeness = politeness
        self._clock = clock
        self._rng = rng
        self._on_event = on_event
        self._changed_backoffs: dict[str, Backoff] = {}
        self._changed_slow_responses: dict[str, SlowResponse] = {}
        self.hosts: dict[int, Host] = {}
        self.keys: dict[str, PolitenessKey] = {}
        self.blocklist = Blocklist() if blocklist is None else blocklist
        self.denied: set[Host] = set()  # robots.txt denies some of their URLs; it may change
        self.has_future_dates = False  # the store has visits dated later than now: the clock was set back
        self.outage = OutageWatch()
        self._states_before_failures: dict[Host, PolitenessState] = {}  # of hosts that failed since the last response
        self._hosts_responded = 0
        self._on_open = on_open
        self._on_outage_over = on_outage_over

    # -- the wall clock

    def clock_was_set(self, step_s: float) -> None:
        """Adapt to a wall clock that was set by `step_s`. Delays and back-offs use monotonic time and do not change. If
        a robots.txt was fetched later than the new time, its expiry moves with the clock: no host waits longer than
        before.
        """
        self._on_event(Event.CLOCK_SET, {"step_s": round(step_s, 3)})
        now = self._clock.now()
        ahead = [host for host in self.hosts.values() if _is_dated_ahead(host.robots, now)]
        for host in ahead:
            _redate(host, now, lambda expires_at: expires_at + step_s)
        self._on_open(ahead)

    # -- hosts and keys

    def load(self, recovered: Recovered, *, same_delays: bool = False) -> None:
        """Add the hosts and back-offs of the store. Each key waits for its delay first. The delay counts from the last
        stored response if there was certainly no later one, else from now. `same_delays`: the earlier run had the same
        politeness options.
        """
        now, mono = self._clock.now(), self._clock.mono()
        self.admit(recovered.hosts)
        self.has_future_dates = any((row.last_at or 0.0) > now for row in recovered.hosts)
        for host in self.hosts.values():
            if host.is_held or _is_dated_ahead(host.robots, now):
                _redate(host, now, lambda _: 0.0)  # after a restart robots.txt is requested at once
        for host_id in recovered.suspects:
            self.hosts[host_id].has_suspects = True  # assumed until its templates are loaded
        backoffs = {backoff.key: backoff for backoff in recovered.backoffs}
        for name in backoffs.keys() - self.keys.keys():  # only another host's robots.txt redirected there
            self.keys[name] = PolitenessKey(name, host_delay(self._politeness, None))
        for stored in recovered.slow_responses if self._politeness.adaptive else ():
            if (key := self.keys.get(stored.key)) is not None:
                key.adaptive_s = key.adaptive_stored_s = host_delay(self._politeness, None, stored.response_s)
        last_at: dict[PolitenessKey, float] = {}
        for row in recovered.hosts if same_delays else ():
            key = self.hosts[row.id].key
            last_at[key] = max(last_at.get(key, 0.0), row.last_at or 0.0)
        for key in self.keys.values():
            idle_s = _certain_idle_s(key, now - last_at.get(key, 0.0))
            if idle_s > 0:
                key.last_end_mono = mono - idle_s
            key.politeness = OPEN.began().ended(mono - idle_s, delay_s=max(key.delay_s, key.adaptive_s))
            if (backoff := backoffs.get(key.name)) is not None:
                wait_s = min(max(0.0, backoff.until_at - now), _MAX_RECOVERED_BACKOFF_S)
                key.politeness = replace(
                    key.politeness.backed_off(mono + wait_s, backoff.reason), failures=backoff.failures
                )

    def admit(self, rows: Sequence[HostRow]) -> None:
        """Add the hosts that are not known yet."""
        for row in rows:
            if row.id not in self.hosts:
                key = self.key_for(row.origin)
                self.hosts[row.id] = host = Host(row.id, row.origin, key, queued=row.queued, fetched=row.fetched)
                host.robots = row.robots
                host.is_blocked = self.blocklist.covers(row.origin.host) is not None
                if row.robots is not None and row.robots.status_code is not None:
                    self._mark_responded(host)
                self._update_delay(host)

    def key_for(self, origin: Origin) -> PolitenessKey:
        """The politeness key of an origin."""
        name = politeness_key(origin.host, self._politeness)
        key = self.keys.get(name)
        if key is None:
            key = self.keys[name] = PolitenessKey(name, host_delay(self._politeness, None))
        return key

    def _update_delay(self, host: Host) -> None:
        crawl_delay_s = host.robots.crawl_delay_s if host.robots is not None else None
        key = host.key
        delay_s = host_delay(self._politeness, crawl_delay_s)
        if delay_s > key.delay_s:
            key.delay_s = delay_s
            if key.last_end_mono is not None:  # it also applies after the last request, made before it was known
                key.politeness = key.politeness.began().ended(key.last_end_mono, delay_s=delay_s)

    def learn_robots(self, host: Host, record: RobotsRecord) -> None:
        """Record a robots verdict, without the text."""
        was_held = host.is_held
        host.robots = replace(record, body=None)
        host.robots_pending = False
        self._update_delay(host)
        if host.is_held:
            self._log_state(host, HostState.READY, HostState.HELD, host.robots_problem, record.expires_at)
        elif was_held:
            self._log_state(host, HostState.HELD, HostState.READY, "robots.txt read")

    @property
    def configured_delay_s(self) -> float:
        """The delay of a host without Crawl-delay that responds fast."""
        return host_delay(self._politeness, None)

    def reconfigure(self, politeness: PolitenessOptions) -> None:
        """Apply new options, except `politeness.key`. A delay that has begun may become longer, but not shorter."""
        self._politeness = replace(politeness, key=self._politeness.key)
        has_adaptive_delay = politeness.adaptive and politeness.delay_s > 0
        for key in self.keys.values():
            key.delay_s = host_delay(self._politeness, None)
            if not has_adaptive_delay:
                key.adaptive_s = 0.0
        for host in self.hosts.values():
            self._update_delay(host)
        for key in self.keys.values():
            if key.last_end_mono is not None and key.delay_s > 0:
                key.politeness = key.politeness.began().ended(key.last_end_mono, delay_s=key.delay_s)

    def apply_blocklist(self) -> list[Host]:
        """The blocklist changed: mark the hosts that it covers. Returns those that changed."""
        changed = []
        for host in self.hosts.values():
            is_blocked = self.blocklist.covers(host.origin.host) is not None
            if is_blocked is not host.is_blocked:
                host.is_blocked = is_blocked
                changed.append(host)
        return changed

    # -- results of requests

    def learn_result(self, lease: Lease, kind: TaskKind, result: FetchResult) -> bool:
        """Record what a response or failure means for its host. False: the host or its key backs off from now on."""
        match result:
            case Fetched():
                timings = result.timings
                self.responded(lease, timings.first_byte_s + timings.body_s, result.connection.peer_address)
                if is_throttled(result):
                    wait_s = retry_after_s(result.head, self._clock.now())
                    self.throttled(lease, result.head.status_code, wait_s)
                    return False
                if is_transient(result):
                    return not self.failed_transiently(lease, result.head.status_code)
                self.reset_failures(lease)
                return True
            case Failed():
                if backs_off_origin(result.error_type, kind):
                    self.origin_failed(lease, result.error_type, permanent=is_permanent(result.error_type))
                    return False
                return True
            case _:
                assert_never(result)

    def due_in_s(self, lease: Lease, outcome: Outcome, after_s: float) -> float:
        """Seconds until a failed URL is due again: the rest of its key's back-off if it was throttled, the rest of its
        host's back-off after a connection error, else `after_s`.
        """
        if is_throttled(outcome):
            return max(0.0, self.key_for(lease.origin).politeness.open_mono - self._clock.mono())
        if isinstance(outcome, Failed) and is_connection_error(outcome.error_type):
            return max(0.0, self.hosts[lease.host_id].politeness.open_mono - self._clock.mono())
        return after_s

    def responded(self, lease: Lease, response_s: float, peer: str) -> None:
        """A response of any status arrived: the origin can be reached."""
        host = self.hosts[lease.host_id]
        key = self.key_for(lease.origin)
        if self._politeness.adaptive:
            self._update_adaptive_delay(key, response_s)
        if self._states_before_failures:
            self._end_outage()
        if host.origin != lease.origin:
            return
        host.peer = peer
        if not host.ever_responded:
            self._mark_responded(host)
        if host.politeness.failures:
            self._log_state(host, HostState.BACKOFF, HostState.READY, "responded")
            host.politeness = host.politeness.recovered()

    def _update_adaptive_delay(self, key: PolitenessKey, response_s: float) -> None:
        """Compute the adaptive delay from a response time. The next commit stores it if it differs enough from the
        stored one; it is stored as 0 if it is not longer than the delay.
        """
        key.adaptive_s = delay_s = host_delay(self._politeness, None, response_s)
        delay_s = delay_s if delay_s > key.delay_s else 0.0
        stored_s = key.adaptive_stored_s
        if not _STORED_TOLERANCE * stored_s <= delay_s <= stored_s / _STORED_TOLERANCE:
            key.adaptive_stored_s = delay_s
            self._changed_slow_responses[key.name] = SlowResponse(
                key.name, response_s if delay_s else 0.0, self._clock.now()
            )

    def reset_failures(self, lease: Lease) -> None:
        """Reset the failure counts after a response that was neither throttled nor a server error. A back-off that
        has begun still runs to its end.
        """
        self.hosts[lease.host_id].transient_failures = 0
        key = self.key_for(lease.origin)
        if key.politeness.failures:
            key.politeness = key.politeness.recovered()
            self._changed_backoffs[key.name] = Backoff(key.name, 0.0, 0, "")
            self._log_state(self.hosts[lease.host_id], HostState.BACKOFF, HostState.READY, "responded")

    def throttled(self, lease: Lease, status: int, wait_s: float | None) -> float:
        """Make the whole key back off after a 429 or 503, for `wait_s` if the server gave it. Returns the seconds."""
        key = self.key_for(lease.origin)
        delay_s = throttled_backoff_s(key.politeness.failures, wait_s, self._rng)
        reason = f"{status}" + (f" Retry-After {wait_s:.0f}" if wait_s is not None else "")
        key.politeness = key.politeness.backed_off(self._clock.mono() + delay_s, reason)
        until_at = self._clock.now() + delay_s
        self._changed_backoffs[key.name] = Backoff(key.name, until_at, key.politeness.failures, reason)
        self._log_state(self.hosts[lease.host_id], HostState.READY, HostState.BACKOFF, reason, until_at)
        return delay_s

    def failed_transiently(self, lease: Lease, status: int) -> bool:
        """Count a 500 or a similar status, which usually concerns one URL. The host backs off after every
        TRANSIENT_ERRORS_IN_A_ROW of them without another response in between. Returns whether it does.
        """
        host = self.hosts[lease.host_id]
        host.transient_failures += 1
        if host.transient_failures % TRANSIENT_ERRORS_IN_A_ROW:
            return False
        delay_s = server_error_backoff_s(host.transient_failures // TRANSIENT_ERRORS_IN_A_ROW)
        host.politeness = host.politeness.backed_off(self._clock.mono() + delay_s, str(status))
        self._log_state(host, HostState.READY, HostState.BACKOFF, str(status), self._clock.now() + delay_s)
        return True

    def origin_failed(self, lease: Lease, error: ErrorType, *, permanent: bool) -> float:
        """Make an origin that could not be reached back off, unless there is an outage. Returns the seconds to wait."""
        host = self.hosts[lease.host_id]
        mono = self._clock.mono()
        if is_outage_error(error):
            self._states_before_failures.setdefault(host, host.politeness)
            if host.ever_responded and self.outage.failed(host.id, mono, error, good_hosts=self._hosts_responded):
                self._begin_outage(error)
            if self.outage.is_on:
                return OUTAGE_PROBE_S
        elif (before := self._states_before_failures.pop(host, None)) is not None:
            host.politeness = before  # this failure is the host's own: the end of an outage does not undo it
        failures = 99 if permanent else host.politeness.failures
        delay_s = backoff_s(failures, self._rng, ever_responded=host.ever_responded)
        from_state = HostState.BACKOFF if host.politeness.failures else HostState.READY
        host.politeness = host.politeness.backed_off(mono + delay_s, error)
        self._log_state(host, from_state, HostState.BACKOFF, error, self._clock.now() + delay_s)
        return delay_s

    # -- an outage of our own network

    def _mark_responded(self, host: Host) -> None:
        host.ever_responded = True
        self._hosts_responded += 1

    def _begin_outage(self, error: ErrorType) -> None:
        """Undo the back-offs after the latest failures, which are not the hosts' fault."""
        since_mono = self.outage.since_mono or 0.0
        since_at = self._clock.now() - (self._clock.mono() - since_mono)
        self._on_event(
            Event.OUTAGE, {"hosts": len(self.outage.failing), "since": timestamp(since_at), "error_type": error.value}
        )
        self._undo_backoffs()

    def _end_outage(self) -> None:
        """A host responded. If there was an outage, it is over: undo the back-offs of its failures. If there was none,
        the failures so far were the hosts' own, and their back-offs stay.
        """
        lasted_s = self.outage.responded(self._clock.mono())
        if lasted_s is not None:
            since_at = self._clock.now() - lasted_s
            for host in self.hosts.values():
                robots = host.robots
                if robots is not None and robots.failing_since is not None and robots.failing_since >= since_at:
                    host.robots = replace(robots, expires_at=0.0)
                    self._states_before_failures.setdefault(host, host.politeness)
            self._on_event(
                Event.OUTAGE_OVER, {"hosts": len(self._states_before_failures), "outage_s": round(lasted_s, 1)}
            )
            self._undo_backoffs()
            self._on_outage_over(since_at)
        self._states_before_failures.clear()

    def _undo_backoffs(self) -> None:
        for host, before in self._states_before_failures.items():
            host.politeness = before
        self._on_open(tuple(self._states_before_failures))

    # -- for the next commit

    def take_slow_responses(self) -> list[SlowResponse]:
        """Remove and return the slow responses of keys whose adaptive delay changed."""
        slow_responses = list(self._changed_slow_responses.values())
        self._changed_slow_responses.clear()
        return slow_responses

    def take_backoffs(self) -> list[Backoff]:
        """Remove and return the back-offs that changed."""
        backoffs = list(self._changed_backoffs.values())
        self._changed_backoffs.clear()
        return backoffs

    def _log_state(
        self, host: Host, before: HostState, after: HostState, reason: str, until_at: float | None = None
    ) -> None:
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
    """Change the expiry of a host's robots.txt. Its other dates become `now` if they are later."""
    if (robots := host.robots) is not None:
        since = None if robots.failing_since is None else min(robots.failing_since, now)
        host.robots = replace(
            robots,
            fetched_at=min(robots.fetched_at, now),
            failing_since=since,
            expires_at=expires_at(robots.expires_at),
        )


def _certain_idle_s(key: PolitenessKey, since_s: float) -> float:
    """Seconds for which a key has certainly had no request, if its last stored response ended `since_s` ago. There was
    none during its delay. After the delay there may have been one whose visit was lost in a crash.
    """
    return since_s if 0 < since_s < max(key.delay_s, _STORED_TOLERANCE * key.adaptive_s) else 0.0
