"""Tells an outage of ours from hosts that are down: every host that answered before fails, and none answers.

Pure: it is told of answers and failures with the monotonic time and counts. What is done about an outage is the
engine's business. Hosts that never answered do not count: a list of dead seeds is no outage.
"""

from dataclasses import dataclass, field
from typing import Final

from crawler.core.enums import ErrorType

HOSTS: Final = 4  # that answered before and now fail, one after the other (two, if there are no more) …
QUIET_S: Final = 1.0  # … while none has answered for so long
PROBE_S: Final = 5.0  # during an outage one request leaves in so many seconds

# What a cut cable, a dead resolver or a lost route look like; a bad certificate or an unknown name is the host's own.
SIGNS: Final = frozenset(
    {
        ErrorType.DNS_FAILURE,
        ErrorType.DNS_TIMEOUT,
        ErrorType.CONNECT_REFUSED,
        ErrorType.CONNECT_TIMEOUT,
        ErrorType.CONNECT_UNREACHABLE,
        ErrorType.CONNECT_FAILED,
        ErrorType.TLS_TIMEOUT,
        ErrorType.TLS_FAILED,
        ErrorType.FIRST_BYTE_TIMEOUT,
        ErrorType.SERVER_CLOSED,
        ErrorType.RESET,
    }
)


def is_sign(error: ErrorType) -> bool:
    """Whether a failure may be one of our network."""
    return error in SIGNS


@dataclass(slots=True)
class OutageWatch:
    """`failing` are the hosts that failed since the last answer. `since_mono` is when the outage began, None without
    one: it began with the first of these failures. `last_error` is the last of them.
    """

    failing: dict[int, float] = field(default_factory=dict)  # host id → when it first failed
    since_mono: float | None = None
    last_error: ErrorType | None = None
    _quiet_mono: float = 0.0  # nobody has answered since

    @property
    def is_on(self) -> bool:
        return self.since_mono is not None

    @property
    def is_suspected(self) -> bool:
        """Nobody has answered since two hosts or more began to fail: too early to blame a URL."""
        return len(self.failing) > 1

    def failed(self, host_id: int, now_mono: float, error: ErrorType, *, good_hosts: int) -> bool:
        """One of `good_hosts`, which answered before, failed with a sign of an outage. Returns whether one was just
        detected.
        """
        self.last_error = error
        if not self.failing:
            self._quiet_mono = now_mono
        self.failing.setdefault(host_id, now_mono)
        if self.is_on or len(self.failing) < max(2, min(HOSTS, good_hosts)) or now_mono - self._quiet_mono < QUIET_S:
            return False
        self.since_mono = min(self.failing.values())
        return True

    def answered(self, now_mono: float) -> float | None:
        """A host answered, whatever it said. Returns for how many seconds an outage lasted that this ends."""
        self.failing.clear()
        since, self.since_mono = self.since_mono, None
        return None if since is None else now_mono - since
