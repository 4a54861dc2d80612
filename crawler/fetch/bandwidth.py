"""How many bytes a second may come, in all and from one host: who has read too much stops reading for a while.

It reads nothing (`connection` does, and pauses) and starts nothing (`engine.valve` asks it). Bytes are counted once
they have come, so a limit is kept on average: what is over it is waited for afterwards. Invariant: hosts whose debt is
paid are forgotten before there are many.
"""

from typing import Final

from crawler.core.bucket import TokenBucket

_BURST_S: Final = 1.0  # of its rate, what may come at once after rest
_HOSTS: Final = 4_096


class Bandwidth:
    """`whole` and `per_host` in bytes a second, None: no limit."""

    def __init__(self, whole: int | None = None, per_host: int | None = None) -> None:
        self._whole: TokenBucket | None = None
        self._per_host: int | None = None
        self._hosts: dict[str, TokenBucket] = {}
        self._prune_at = _HOSTS
        self.limit(whole, per_host)

    def limit(self, whole: int | None, per_host: int | None) -> None:
        """Put other limits in force; debts under the old ones are forgotten."""
        self._whole = None if whole is None else TokenBucket(whole, whole * _BURST_S)
        self._per_host = per_host
        self._hosts.clear()

    @property
    def is_limited(self) -> bool:
        return self._whole is not None or self._per_host is not None

    def spend(self, host: str, size: int, now_mono: float) -> float:
        """`size` bytes came from `host`. Returns when reading from it may go on; not after now: at once."""
        until = 0.0 if self._whole is None else self._whole.spend(size, now_mono)
        if self._per_host is not None:
            bucket = self._hosts.get(host)
            if bucket is None:
                bucket = self._admit(host, self._per_host, now_mono)
            until = max(until, bucket.spend(size, now_mono))
        return until

    @property
    def opens_mono(self) -> float:
        """When a request may leave, as far as all hosts together go."""
        return 0.0 if self._whole is None else self._whole.clear_mono

    def host_opens_mono(self, host: str) -> float:
        """The same for one host alone."""
        bucket = self._hosts.get(host)
        return 0.0 if bucket is None else bucket.clear_mono

    def _admit(self, host: str, rate: int, now_mono: float) -> TokenBucket:
        if len(self._hosts) >= self._prune_at:
            self._hosts = {name: bucket for name, bucket in self._hosts.items() if not bucket.is_full(now_mono)}
            self._prune_at = max(_HOSTS, 2 * len(self._hosts))
        bucket = self._hosts[host] = TokenBucket(rate, rate * _BURST_S)
        return bucket
