"""Bounds on what is read out of content."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ContentOptions:
    """`max_html` bytes of a page are read; `max_links` are kept."""

    max_html: int = 8 * 1024 * 1024
    max_links: int = 10_000
