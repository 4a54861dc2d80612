"""Limits of the client: open connections, bytes received a second in all and from one host, bytes of bodies in memory.

Invariant: `connections_within` leaves enough file descriptors for the store, the output files, the logs and the
crawler's own sockets, so that idle connections never prevent storing what was fetched.
"""

import asyncio
import resource
import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from crawler.fetch.options import FetchOptions, HostOptions

# About 30 were counted for the store and its readers, output files, logs, DNS, control socket and metrics. The rest is
# for spooled bodies and the connections of a client that is being replaced.
RESERVED_DESCRIPTORS: Final = 96


def raise_descriptor_limit(connections: int) -> None:
    """Raise the soft limit of file descriptors to what so many connections need, but not above the hard limit.

    Shells and service managers keep the soft limit low for programs that use select(2), which this one does not.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = connections + RESERVED_DESCRIPTORS
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return
    if hard != resource.RLIM_INFINITY:
        wanted = min(wanted, hard)
    with suppress(OSError, ValueError):  # a sandbox may forbid it: then there are fewer connections
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def descriptor_limit() -> int:
    """The soft limit of file descriptors; -1: none."""
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]


def connections_within(limit: int, connections: int) -> int:
    """The number of these connections for which a limit of file descriptors has room.

    At least 1, and a third of a limit that is too low for RESERVED_DESCRIPTORS: of 60 descriptors, half were one too
    many now and then, and an output file could not be opened.
    """
    if limit == resource.RLIM_INFINITY:
        return connections
    return max(1, min(connections, max(limit - RESERVED_DESCRIPTORS, limit // 3)))


def share_of_limit(limit: int, connections: int, first_contacts: int) -> tuple[int, int]:
    """Both numbers, if a limit of file descriptors has room for them: of too little room each has half, or what the
    other leaves.
    """
    room = connections_within(limit, connections + first_contacts)
    connections = max(1, min(connections, max(room // 2, room - first_contacts)))
    return connections, min(first_contacts, room - connections)


class TokenBucket:
    """A token bucket: `rate` tokens a second, and up to `burst` at once when it is full.

    Spending never fails, because the bytes have been received already: the bucket goes into debt, and `clear_mono` is
    the time at which the debt is paid. The state is one number: the time at which the bucket is full again.
    """

    __slots__ = ("_full_mono", "burst", "rate")

    def __init__(self, rate: float, burst: float) -> None:
        self.rate = rate
        self.burst = burst
        self._full_mono = 0.0

    def spend(self, amount: float, now_mono: float) -> float:
        """Take `amount` tokens out. Returns `clear_mono`."""
        self._full_mono = max(self._full_mono, now_mono) + amount / self.rate
        return self.clear_mono

    @property
    def clear_mono(self) -> float:
        """When the debt is paid; a time in the past if there is none."""
        return self._full_mono - self.burst / self.rate

    def is_full(self, now_mono: float) -> bool:
        """Whether the bucket is full, and so can be replaced by a new one."""
        return self._full_mono <= now_mono


_BURST_S: Final = 1.0  # a burst: so many seconds of the rate at once
_PRUNE_HOSTS: Final = 4_096


class Bandwidth:
    """Limits the bytes received, in all (`whole`) and from each host, in bytes a second; None: no limit. `hosts` has
    the limits of some hosts.
    """

    def __init__(self, whole: int | None = None, per_host: int | None = None, hosts: HostOptions | None = None) -> None:
        self._agents = 1
        self._whole_rate = whole
        self._whole: TokenBucket | None = None
        self._per_host: int | None = None
        self._limits_of: HostOptions | None = None
        self._hosts: dict[str, TokenBucket] = {}
        self._prune_at = _PRUNE_HOSTS
        self.limit(whole, per_host, hosts)

    @classmethod
    def of(cls, options: FetchOptions) -> "Bandwidth":
        bandwidth = cls()
        bandwidth.reconfigure(options)
        return bandwidth

    def reconfigure(self, options: FetchOptions) -> None:
        """Apply new options."""
        hosts = HostOptions(options) if any(one.bandwidth_per_host is not None for one in options.overrides) else None
        self.limit(options.bandwidth, options.bandwidth_per_host, hosts)

    def limit(self, whole: int | None, per_host: int | None, hosts: HostOptions | None = None) -> None:
        """Replace the limits; debts under the old ones are dropped."""
        self._whole_rate = whole
        self.share(self._agents)
        self._per_host = per_host
        self._limits_of = hosts
        self._hosts.clear()

    def share(self, agents: int) -> None:
        """Keep to one of so many equal shares of the limit of all hosts; its debt is dropped."""
        self._agents = agents
        rate = None if self._whole_rate is None else self._whole_rate / agents
        self._whole = None if rate is None else TokenBucket(rate, rate * _BURST_S)

    @property
    def is_limited(self) -> bool:
        return self._whole is not None or self._per_host is not None or self._limits_of is not None

    def spend(self, host: str, size: int, now_mono: float) -> float:
        """Count `size` bytes from `host`. Returns when reading from it may continue; a time in the past: at once."""
        until = 0.0 if self._whole is None else self._whole.spend(size, now_mono)
        bucket = self._hosts.get(host)
        if bucket is None and (rate := self._rate_of(host)) is not None:
            bucket = self._new_bucket(host, rate, now_mono)
        return until if bucket is None else max(until, bucket.spend(size, now_mono))

    def _rate_of(self, host: str) -> int | None:
        return self._per_host if self._limits_of is None else self._limits_of.of(host).bandwidth_per_host

    @property
    def opens_mono(self) -> float:
        """When a request may be sent under the limit of all hosts."""
        return 0.0 if self._whole is None else self._whole.clear_mono

    def host_opens_mono(self, host: str) -> float:
        """When a request may be sent under the limit of one host."""
        bucket = self._hosts.get(host)
        return 0.0 if bucket is None else bucket.clear_mono

    def _new_bucket(self, host: str, rate: int, now_mono: float) -> TokenBucket:
        if len(self._hosts) >= self._prune_at:
            self._hosts = {name: bucket for name, bucket in self._hosts.items() if not bucket.is_full(now_mono)}
            self._prune_at = max(_PRUNE_HOSTS, 2 * len(self._hosts))
        bucket = self._hosts[host] = TokenBucket(rate, rate * _BURST_S)
        return bucket


_CHECK_S: Final = 0.01  # `give` is called from any thread and cannot wake a reader, so we check while one waits
_MAX_STALLED_CHECKS: Final = 25  # so many checks without a byte given back let one response exceed the limit: 250 ms


_MOST_CHANGES: Final = 1_024  # that are not added up yet


class ByteBudget:
    """Counts the bytes of bodies in memory. The limit is soft: the read that exceeds it is still kept."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._held = 0
        self._changes: deque[int] = deque()  # appending is atomic; adding to an attribute from two threads is not
        self._adding = threading.Lock()
        self._waiting: deque[Callable[[bool], None]] = deque()
        self._is_finishing = False  # one response may exceed the limit, and is read to its end
        self._timer: asyncio.TimerHandle | None = None
        self._stalled = 0

    def take(self, n: int) -> None:
        self._changes.append(n)
        if len(self._changes) > _MOST_CHANGES:
            self._add_changes()

    def give(self, n: int) -> None:
        self.take(-n)

    def _add_changes(self) -> None:
        with self._adding:
            while self._changes:
                self._held += self._changes.popleft()

    @property
    def held(self) -> int:
        """Bytes in memory now."""
        self._add_changes()
        return self._held

    def is_spent(self) -> bool:
        return self.held >= self.limit

    def wait(self, resume: Callable[[bool], None]) -> None:
        """Have `resume` called once, when the caller may read on, in order of the calls. `resume(True)` allows the
        caller to exceed the limit until its response ends; it must then call `finished`.
        """
        self._waiting.append(resume)
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(_CHECK_S, self._check)

    def finished(self) -> None:
        """End the read that `resume(True)` allowed."""
        self._is_finishing = False

    def _check(self) -> None:
        self._timer = None
        before = self._held
        if self.held < before:
            self._stalled = 0
        else:
            self._stalled += 1
        if self._stalled >= _MAX_STALLED_CHECKS or not self.is_spent():
            # Only one reader resumes at each check, even if memory is free: all at once could fill it before the next
            # check. A reader that may exceed the limit reads to the end of its response: if all took turns, none would
            # end.
            finishes = self.is_spent() and not self._is_finishing
            self._is_finishing |= finishes
            self._stalled = 0
            self._waiting.popleft()(finishes)
        if self._waiting:
            self._timer = asyncio.get_running_loop().call_later(_CHECK_S, self._check)
