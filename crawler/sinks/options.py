"""Options of the sinks."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class SinkOptions:
    """Options of the sinks."""

    name: str = "crawl"  # first part of every file name
    warc: bool = True
    warc_size: int = 1_000_000_000  # bytes after which a new WARC or pages file begins, between two visits
    pages: bool = True
    compression_level: int = 1  # of isal: 0 (fastest) to 3
