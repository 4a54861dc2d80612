"""What the sinks can be told."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class SinkOptions:
    """`warc_size` bytes is when a WARC (or pages file) rolls over, at a visit's boundary."""

    name: str = "crawl"  # first part of every file name
    warc: bool = True
    warc_size: int = 1_000_000_000
    pages: bool = True
    compression_level: int = 1  # of isal: 0 (fastest) to 3
