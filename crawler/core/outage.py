"""Detects an outage of our own network: the hosts that responded before fail, and no host responds.

Pure: responses, failures and the monotonic time are passed in. Hosts that never responded do not count, so a list of
dead seeds is no outage.
"""

from dataclasses import dataclass, field
from typing import Final

from crawler.core.enums import ErrorType

HOSTS: Final = 4  # hosts that responded before and now fail (two, if there are no more) …
QUIET_S: Final = 1.0  # … while no host has responded for so long
PROBE_S: Final = 5.0  # between two requests during an outage

# The errors of a cut cable, a dead resolver or a lost route. A bad certificate or an unknown name is the host's own.
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
    """Whether a failure may come from our network."""
    return error in SIGNS


@dataclass(slots=True)
class OutageWatch:
    """The failures since the last response, and the outage that they amount to."""

    failing: dict[int, float] = field(default_factory=dict)  # host id → time of its first failure
    since_mono: float | None = None  # begin of the outage, which is the first of these failures; None: no outage
    last_error: ErrorType | None = None
    _quiet_mono: float = 0.0  # no host has responded since

    @property
    def is_on(self) -> bool:
        return self.since_mono is not None

    @property
    def is_suspected(self) -> bool:
        """Whether two hosts or more fail and none has responded since: too early to blame a URL."""
        return len(self.failing) > 1

    def failed(self, host_id: int, now_mono: float, error: ErrorType, *, good_hosts: int) -> bool:
        """Note a failure that may come from our network, of one of the `good_hosts` hosts that responded before.
        Returns whether an outage is now detected.
        """
        self.last_error = error
        if not self.failing:
            self._quiet_mono = now_mono
        self.failing.setdefault(host_id, now_mono)
        if self.is_on or len(self.failing) < max(2, min(HOSTS, good_hosts)) or now_mono - self._quiet_mono < QUIET_S:
            return False
        self.since_mono = min(self.failing.values())
        return True

    def responded(self, now_mono: float) -> float | None:
        """Note a response of any status. Returns the seconds that an outage lasted which it ends, None without one."""
        self.failing.clear()
        since, self.since_mono = self.since_mono, None
        return None if since is None else now_mono - since
