"""What logging can be told."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class LogOptions:
    """`rotate_size` bytes end a log file; `keep` old ones stay beside it."""

    level: str = "info"
    directory: str | None = None  # None: <output>/logs
    rotate_size: int = 256 * 1024 * 1024
    keep: int = 10
