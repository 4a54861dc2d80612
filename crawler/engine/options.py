"""What the engine can be told. Times in seconds, sizes in bytes."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class EngineOptions:
    """`lease_size` tasks are one run at delay 0; `memory` bounds the bytes of bodies held at once; `drain_s` is how
    long a stop waits for what is in flight. The commit happens at whichever of its three bounds comes first.
    """

    workers: int = 256  # coroutines: a few hundred hosts that never answer must not keep the others waiting
    lease_size: int = 16
    memory: int = 128 * 1024 * 1024
    drain_s: float = 30.0
    commit_settlements: int = 256
    commit_bytes: int = 8 * 1024 * 1024
    commit_interval_s: float = 0.2
    max_attempts: int = 4  # of one URL, transient failures included
    linger_s: float | None = 600.0  # None: never end (`run`)
    max_duration_s: float | None = None
    min_free: int = 1024**3  # bytes left on the output's disk below which the crawl pauses
    hours: tuple[str, ...] = ()  # windows (`core.hours`, local time) in which requests may leave; empty: always
