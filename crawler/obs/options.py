"""Options of the log."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class LogOptions:
    """Options of the log. Sizes in bytes."""

    level: str = "info"
    directory: str | None = None  # None: <output>/logs
    rotate_size: int = 256 * 1024 * 1024  # a file of this size is rotated
    keep: int = 10  # rotated files
