"""The host table: the hosts and politeness keys in memory, and what responses and failures mean for them.

Times of a host or key that the store has are in schedule time. It begins at the wall clock's time, or where the last
run ended if the clock was set back since then, and goes on with the monotonic clock: a clock that is set makes no delay
shorter, and none longer. Agents that share a database begin at the time of its clock, so that all have the same.

A result may delay a key, make a host back off, or be a sign of an outage. Nothing here waits or does I/O.
"""

import math
import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Final, NamedTuple, assert_never

from crawler.core.clock import Clock
from crawler.core.enums import ErrorType, HostState, RetryEffect, TaskKind
from crawler.core.formatting import timestamp
from crawler.core.models import (
    UNTIL_EVENT,
    Backoff,
    Failed,
    Fetched,
    FetchResult,
    HostReadiness,
    HostRow,
    KeyRow,
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
from crawler.core.ownership import slot_in
from crawler.core.politeness import (
    ADAPTIVE_FACTOR,
    OPEN,
    PolitenessState,
    backoff_s,
    host_delay,
    overridden,
    politeness_key,
    retry_after_s,
    server_error_backoff_s,
    throttled_backoff_s,
)
from crawler.core.scope import Overrides
from crawler.engine.scheduling.host import Host, PolitenessKey
from crawler.engine.scheduling.restrictions import Blocklist
from crawler.obs.events import Event

OnEvent = Callable[[Event, dict[str, object]], None]
RETRY_AFTER: Final = "Retry-After"  # in the reason of a back-off for which the server gave one
_STORED_TOLERANCE = 0.8  # an adaptive delay within this factor of the stored one is not stored again
_ROUNDING_S = 1e-6  # an epoch time has a resolution of a quarter of that
_MAX_RECOVERED_BACKOFF_S = 86_400.0  # a stored back-off (UTC) may lie far ahead if the clock was set back


class Woken(NamedTuple):
    """What became of a host's waiting: its reason, and when it ends if it goes on (UTC)."""

    effect: RetryEffect
    reason: str = ""
    until_at: float | None = None


class HostTable:
    """Callbacks: `on_event` receives `host_state`, `clock_set` and `outage` events, `on_open` receives hosts that may
    be requested again, and `on_outage_over` receives the time at which the outage began (UTC). `is_crowded` tells
    whether a host that never responded can wait for long, since many others have work.
    """

    def __init__(
        self,
        *,
        politeness: PolitenessOptions,
        clock: Clock,
        rng: random.Random,
        on_event: OnEvent,
        blocklist: Blocklist | None = None,
        overrides: Overrides | None = None,
        on_open: Callable[[Sequence[Host]], None] = lambda hosts: None,
        on_outage_over: Callable[[float], None] = lambda since_at: None,
        is_crowded: Callable[[], bool] = lambda: False,
    ) -> None:
        self._politeness = politeness
        self._overrides = Overrides() if overrides is None else overrides
        self._clock = clock
        self._rng = rng
        self._on_event = on_event
        self._changed_backoffs: dict[str, Backoff] = {}
        self._changed_slow_responses: dict[str, SlowResponse] = {}
        self._changed_hosts: dict[int, Host] = {}
        self._requested_keys: dict[PolitenessKey, None] = {}
        self.hosts: dict[int, Host] = {}
        self.keys: dict[str, PolitenessKey] = {}
        self.keys_by_id: dict[int, PolitenessKey] = {}  # those whose state was read from the store
        self.without_hosts: dict[PolitenessKey, None] = {}  # those of them without hosts in memory
        self.blocklist = Blocklist() if blocklist is None else blocklist
        self.denied: set[Host] = set()  # robots.txt denies some of their URLs; it may change
        self._schedule_offset_s = clock.now() - clock.mono()  # schedule time less monotonic time
        self._unclean_mono: float | None = None
        self._rests: dict[int, float] = {}  # slot that another agent owned → when it was taken over
        self._started_at = clock.now()
        self.outage = OutageWatch()
        self._states_before_failures: dict[Host, PolitenessState] = {}  # of hosts that failed since the last response
        self._hosts_responded = 0
        self._on_open = on_open
        self._on_outage_over = on_outage_over
        self._is_crowded = is_crowded

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

    def start(self, schedule_at: float, *, clean: bool, now_at: float | None = None) -> None:
        """Begin schedule time, not before `schedule_at`, at `now_at` instead of the wall clock's time.

        If the last run did not end cleanly, requests may have been made that the store does not know. A key then waits
        for its delay from now on, unless its last stored request was within its delay: there was none after it.
        """
        mono = self._clock.mono()
        self._schedule_offset_s = max(self._clock.now() if now_at is None else now_at, schedule_at) - mono
        self._unclean_mono = None if clean else mono
        self._started_at = self._clock.now()

    def schedule_at(self, mono: float) -> float:
        """A monotonic time as schedule time."""
        return mono + self._schedule_offset_s

    def mono_of(self, schedule_at: float) -> float:
        """A schedule time as monotonic time."""
        return schedule_at - self._schedule_offset_s

    def rest(self, slots: Iterable[int]) -> None:
        """Have all politeness keys of these slots keep their delay from now on: another agent may just have sent a
        request.
        """
        mono = self._clock.mono()
        self._rests.update((slot, mono) for slot in slots)

    def enter(self, row: KeyRow) -> PolitenessKey:
        """Add a politeness key as the store knows it, without its hosts."""
        now, mono = self._clock.now(), self._clock.mono()
        key = self.keys.get(row.name)
        if key is None:
            key = self.keys[row.name] = PolitenessKey(row.name, 0.0)
        self.keys_by_id[row.id] = key
        if not key.members:
            self.without_hosts[key] = None
        key.id, key.crawl_delay_s, key.is_entering = row.id, row.crawl_delay_s, False
        key.more_mono = math.inf if row.more_at is None else self.mono_of(row.more_at)
        self._set_delay(key)
        politeness = self._politeness_of(row.name)
        if politeness.adaptive and row.response_s:
            key.adaptive_s = key.adaptive_stored_s = host_delay(politeness, None, row.response_s)
        key.last_end_mono = self.mono_of(row.requested_at) if row.requested_at else None
        if self._unclean_mono is not None and not _is_certain(key, self._unclean_mono):
            key.last_end_mono = max(key.last_end_mono or self._unclean_mono, self._unclean_mono)
        if self._rests and (rested_mono := self._rests.get(slot_in(row.id))) is not None:
            key.last_end_mono = max(key.last_end_mono or rested_mono, rested_mono)
        key.politeness = OPEN
        if key.last_end_mono is not None:
            delay_s = max(key.delay_s, key.adaptive_s)
            key.politeness = OPEN.began().ended(min(key.last_end_mono, mono), delay_s=delay_s)
        if row.open_at:  # later by an adaptive delay that is not stored, or by one that was longer
            opens_mono = min(self.mono_of(row.open_at) + _ROUNDING_S, mono + _MAX_RECOVERED_BACKOFF_S)
            key.politeness = replace(key.politeness, open_mono=max(key.politeness.open_mono, opens_mono))
        if row.backoff is not None:
            wait_s = min(max(0.0, row.backoff.until_at - now), _MAX_RECOVERED_BACKOFF_S)
            key.politeness = replace(
                key.politeness.backed_off(mono + wait_s + _ROUNDING_S, row.backoff.reason),
                failures=row.backoff.failures,
            )
        return key

    def admit(self, rows: Iterable[HostRow]) -> list[Host]:
        """Add those hosts that are not in memory, whose politeness keys are. Returns them."""
        return [self._admit(row) for row in rows if row.id not in self.hosts]

    def _admit(self, row: HostRow) -> Host:
        key = self.key_for(row.origin)
        is_first = not key.members
        key.members.add(row.id)
        self.without_hosts.pop(key, None)
        self.hosts[row.id] = host = self._made_of(row, key)
        if is_first and self._overrides:  # until now the delay was that of the key's name
            self._set_delay(key)
            self._delay_from_last_end(key)
        mono = self._clock.mono()
        if host.is_held and row.robots is not None and row.robots.fetched_at < self._started_at:
            _redate(host, self._clock.now(), lambda _: 0.0)  # after a restart robots.txt is requested at once
        if row.has_responded or (row.robots is not None and row.robots.status_code is not None):
            self._mark_responded(host)
        if row.failures:
            open_mono = min(self.mono_of(row.ready_at), mono + _MAX_RECOVERED_BACKOFF_S)
            host.politeness = PolitenessState(max(0.0, open_mono + _ROUNDING_S), 0, row.failures, row.reason or "")
        self._update_delay(host)
        return host

    def _made_of(self, row: HostRow, key: PolitenessKey) -> Host:
        host = Host(row.id, row.origin, key, queued=row.queued, fetched=row.fetched)
        host.override = self._overrides.of(row.origin.host)
        host.robots = row.robots
        host.retries = 1  # perhaps: the first tasks that are taken tell
        host.has_suspects = row.has_suspects  # assumed until its templates are loaded
        host.is_blocked = self.blocklist.covers(row.origin.host) is not None
        if _is_dated_ahead(host.robots, now := self._clock.now()):
            _redate(host, now, lambda _: 0.0)
        return host

    def outline(self, row: HostRow) -> Host:
        """A host as it is in memory, or as its row in the store tells it. The latter is for reports only."""
        host = self.hosts.get(row.id)
        if host is None:
            name = politeness_key(row.origin.host, self._politeness)
            host = self._made_of(row, self.keys.get(name) or self._new_key(name, row.origin))
            host.limit_reached = row.parked == "limit"
            host.ever_responded = row.has_responded
            if row.parked == "backoff":
                host.politeness = PolitenessState(self.mono_of(row.ready_at), 0, max(1, row.failures), row.reason or "")
        return host

    def remove(self, host: Host) -> None:
        """Remove a host from memory."""
        del self.hosts[host.id]
        host.key.members.discard(host.id)
        if not host.key.members:
            self.without_hosts[host.key] = None
        self.denied.discard(host)
        self._states_before_failures.pop(host, None)
        if host.ever_responded:
            self._hosts_responded -= 1
        self._changed_hosts.pop(host.id, None)

    def remove_key(self, key: PolitenessKey) -> None:
        """Remove a politeness key without hosts in memory."""
        self.keys.pop(key.name, None)
        self.keys_by_id.pop(key.id, None)
        self.without_hosts.pop(key, None)

    def add_unknown(self, key: PolitenessKey) -> None:
        """Add a key whose state must be read from the store before it may get a request."""
        key.is_entering = True
        self.keys[key.name] = key

    def is_suspected(self, host: Host) -> bool:
        """Whether its failures may be those of our own network: then the end of an outage undoes its back-off. One that
        never responded is no sign of it.
        """
        return host.ever_responded and host in self._states_before_failures

    def readiness(self, host: Host, *, leaves: bool) -> HostReadiness:
        """The state of a host, for the store. If it does not leave memory, it is not parked: after a restart it is
        looked at again, unless it backs off.
        """
        mono, now = self._clock.mono(), self._clock.now()
        state = max(host.politeness, host.key.politeness, key=lambda one: one.open_mono if one.failures else 0.0)
        parked, reason, ready_at = None, host.politeness.reason or None, self.schedule_at(mono)
        if state.failures and state.open_mono > mono and not (leaves and (host.is_blocked or host.limit_reached)):
            parked, reason = "backoff" if leaves else None, state.reason
            ready_at = max(ready_at, self.schedule_at(host.politeness.open_mono))
        elif not leaves:
            pass
        elif host.is_blocked:
            parked, ready_at = "blocked", UNTIL_EVENT
        elif host.limit_reached:
            parked, ready_at = "limit", UNTIL_EVENT
        elif host.is_held and host.robots is not None:
            parked = "robots"
            ready_at = self.schedule_at(max(host.politeness.open_mono, mono + host.robots.expires_at - now))
        elif not host.queued and not host.has_suspects:
            parked, ready_at = "traps", UNTIL_EVENT
        failures = host.politeness.failures
        return HostReadiness(host.id, ready_at, parked, failures, reason, host.ever_responded, host.queued)

    def known_key(self, origin: Origin) -> PolitenessKey | None:
        """The politeness key of an origin, if it is in memory and stays there."""
        key = self.keys.get(politeness_key(origin.host, self._politeness))
        return None if key is None or key.is_entering or key.is_leaving or key.is_given_back else key

    def key_for(self, origin: Origin) -> PolitenessKey:
        """The politeness key of an origin; if it is not in memory, it is added, and its state must be read."""
        name = politeness_key(origin.host, self._politeness)
        key = self.keys.get(name)
        if key is None:
            key = self._new_key(name, origin)
            self.add_unknown(key)
        return key

    def key_of(self, lease: Lease) -> PolitenessKey:
        """The politeness key of a lease: that of its host, or another if robots.txt was redirected."""
        host = self.hosts[lease.host_id]
        return host.key if lease.origin == host.origin else self.key_for(lease.origin)

    def _new_key(self, name: str, origin: Origin) -> PolitenessKey:
        return PolitenessKey(name, host_delay(self._politeness_of(origin.host), None))

    def _politeness_of(self, host: str) -> PolitenessOptions:
        """The options of a host, or of a politeness key that has no hosts in memory."""
        return overridden(self._politeness, self._overrides.of(host)) if self._overrides else self._politeness

    def _set_delay(self, key: PolitenessKey) -> None:
        """Set the delay of a key: the longest of those of its hosts in memory."""
        options = [self._politeness]
        if self._overrides:
            hosts = [self.hosts[host_id] for host_id in key.members]
            options = [overridden(self._politeness, host.override) for host in hosts]
            options = options or [self._politeness_of(key.name)]
        key.delay_s = max(host_delay(one, key.crawl_delay_s) for one in options)
        if not any(one.adaptive and one.delay_s > 0 for one in options):
            key.adaptive_s = 0.0

    @staticmethod
    def _delay_from_last_end(key: PolitenessKey) -> None:
        """Apply a new delay of a key after its last request too. The key does not open sooner than before."""
        if key.last_end_mono is not None and key.delay_s > 0:
            key.politeness = key.politeness.began().ended(key.last_end_mono, delay_s=key.delay_s)

    def _update_delay(self, host: Host) -> None:
        crawl_delay_s = host.robots.crawl_delay_s if host.robots is not None else None
        key = host.key
        if crawl_delay_s is not None:
            key.crawl_delay_s = max(crawl_delay_s, key.crawl_delay_s or 0.0)
        delay_s = host_delay(overridden(self._politeness, host.override), crawl_delay_s)
        if delay_s > key.delay_s:
            key.delay_s = delay_s
            self._delay_from_last_end(key)  # the last request was made before it was known

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

    def configured_delay_s(self, host: Host) -> float:
        """The delay of a host without Crawl-delay that responds fast."""
        return overridden(self._politeness, host.override).delay_s

    def reconfigure(self, politeness: PolitenessOptions, overrides: Overrides | None = None) -> None:
        """Apply new options, except `politeness.key`. A delay that has begun may become longer, but not shorter."""
        self._politeness = replace(politeness, key=self._politeness.key)
        self._overrides = Overrides() if overrides is None else overrides
        for host in self.hosts.values():
            host.override = self._overrides.of(host.origin.host)
        for key in self.keys.values():
            self._set_delay(key)
            self._delay_from_last_end(key)

    def wake(self, host: Host) -> Woken:
        """End the waiting of a host that backs off or is held. Its delay holds, and its failures still count. The
        back-off for which a server gave a Retry-After stays. The robots.txt of a held host is due.
        """
        mono, now, key = self._clock.mono(), self._clock.now(), host.key
        if host.is_blocked or host.is_disabled:
            return Woken(RetryEffect.BLOCKED)
        woken = Woken(RetryEffect.READY)
        if host.politeness.failures and host.politeness.open_mono > mono:
            woken = Woken(RetryEffect.WOKEN, host.politeness.reason)
            host.politeness = replace(host.politeness, open_mono=mono)
            self._changed_hosts[host.id] = host
        if host.is_held and host.robots is not None:
            woken = Woken(RetryEffect.ROBOTS, host.robots_problem)
            host.robots = replace(host.robots, expires_at=0.0)
        backs_off_s = key.politeness.open_mono - mono if key.politeness.failures else 0.0
        if backs_off_s > 0 and RETRY_AFTER in key.politeness.reason:
            return Woken(RetryEffect.KEPT, key.politeness.reason, now + backs_off_s)
        if backs_off_s > 0:
            woken = woken if woken.reason else Woken(RetryEffect.WOKEN, key.politeness.reason)
            delayed = OPEN.began().ended(key.last_end_mono or mono, delay_s=max(key.delay_s, key.adaptive_s))
            key.politeness = replace(key.politeness, open_mono=delayed.open_mono)
            self._changed_backoffs[key.name] = Backoff(key.name, now, key.politeness.failures, key.politeness.reason)
        if woken.effect is RetryEffect.WOKEN:
            self._log_state(host, HostState.BACKOFF, HostState.READY, "woken by the operator")
        return woken

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
            return max(0.0, self.key_of(lease).politeness.open_mono - self._clock.mono())
        if isinstance(outcome, Failed) and is_connection_error(outcome.error_type):
            return max(0.0, self.hosts[lease.host_id].politeness.open_mono - self._clock.mono())
        return after_s

    def responded(self, lease: Lease, response_s: float, peer: str) -> None:
        """A response of any status arrived: the origin can be reached."""
        host = self.hosts[lease.host_id]
        key = self.key_of(lease)
        politeness = self._politeness_of(lease.origin.host)
        if politeness.adaptive:
            self._update_adaptive_delay(key, response_s, politeness)
        if self._states_before_failures:
            self._end_outage()
        if host.origin != lease.origin:
            return
        host.peer = peer
        if not host.ever_responded:
            self._mark_responded(host)
            self._changed_hosts[host.id] = host
        if host.politeness.failures:
            self._log_state(host, HostState.BACKOFF, HostState.READY, "responded")
            host.politeness = host.politeness.recovered()
            self._changed_hosts[host.id] = host

    def _update_adaptive_delay(self, key: PolitenessKey, response_s: float, politeness: PolitenessOptions) -> None:
        """Compute the adaptive delay from a response time. The next commit stores it if it differs enough from the
        stored one; it is stored as 0 if it is not longer than the delay.
        """
        key.adaptive_s = delay_s = host_delay(politeness, None, response_s)
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
        key = self.key_of(lease)
        if key.politeness.failures:
            key.politeness = key.politeness.recovered()
            self._changed_backoffs[key.name] = Backoff(key.name, 0.0, 0, "")
            self._log_state(self.hosts[lease.host_id], HostState.BACKOFF, HostState.READY, "responded")

    def throttled(self, lease: Lease, status: int, wait_s: float | None) -> float:
        """Make the whole key back off after a 429 or 503, for `wait_s` if the server gave it. Returns the seconds."""
        key = self.key_of(lease)
        delay_s = throttled_backoff_s(key.politeness.failures, wait_s, self._rng)
        reason = f"{status}" + (f" {RETRY_AFTER} {wait_s:.0f}" if wait_s is not None else "")
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
        self._changed_hosts[host.id] = host
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
        is_long = permanent or (not host.ever_responded and self._is_crowded())
        failures = 99 if is_long else host.politeness.failures
        delay_s = backoff_s(failures, self._rng, ever_responded=host.ever_responded)
        from_state = HostState.BACKOFF if host.politeness.failures else HostState.READY
        host.politeness = host.politeness.backed_off(mono + delay_s, error)
        self._changed_hosts[host.id] = host
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
            self._changed_hosts[host.id] = host
        self._on_open(tuple(self._states_before_failures))

    # -- for the next commit

    def request_ended(self, key: PolitenessKey) -> None:
        """Have the next commit store when the last request of a key with a delay ended."""
        if key.delay_s > 0:
            self._requested_keys[key] = None

    def take_requested(self) -> list[tuple[int, float]]:
        """Remove and return the keys with requests since the last call: their ids, and when the last one ended."""
        keys, self._requested_keys = self._requested_keys, {}
        return [(key.id, self.schedule_at(key.last_end_mono)) for key in keys if key.last_end_mono is not None]

    def take_readiness(self) -> list[HostReadiness]:
        """Remove and return the states of hosts whose back-off changed."""
        changed, self._changed_hosts = self._changed_hosts, {}
        return [self.readiness(host, leaves=False) for host in changed.values()]

    def take_slow_responses(self) -> list[SlowResponse]:
        """Remove and return the slow responses of keys whose adaptive delay changed."""
        slow_responses = list(self._changed_slow_responses.values())
        self._changed_slow_responses.clear()
        return slow_responses

    def give_back(self, backoffs: Iterable[Backoff], slow_responses: Iterable[SlowResponse]) -> None:
        """Put back what was taken, and could not be stored."""
        self._changed_backoffs = {one.key: one for one in backoffs} | self._changed_backoffs
        self._changed_slow_responses = {one.key: one for one in slow_responses} | self._changed_slow_responses

    def take_slow_responses_of(self, keys: Iterable[PolitenessKey]) -> list[SlowResponse]:
        """The slow responses of keys that leave memory, exactly: those of commits may be a fifth too short. Those that
        changed since the last commit are removed and returned too.
        """
        changed = self.take_slow_responses()
        slow = [key for key in keys if key.adaptive_s > key.delay_s and key.adaptive_s != key.adaptive_stored_s]
        now = self._clock.now()
        return changed + [SlowResponse(key.name, key.adaptive_s / ADAPTIVE_FACTOR, now) for key in slow]

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


def _is_certain(key: PolitenessKey, mono: float) -> bool:
    """Whether the last stored request of a key was the last one before `mono`. There was none during its delay. After
    the delay there may have been one whose visit was lost in a crash.
    """
    idle_s = -1.0 if key.last_end_mono is None else mono - key.last_end_mono
    return 0 < idle_s < max(key.delay_s, _STORED_TOLERANCE * key.adaptive_s)
