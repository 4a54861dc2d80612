"""Options of content."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ContentOptions:
    """Bounds of what is read of a page."""

    max_html: int = 8 * 1024 * 1024  # bytes
    max_links: int = 10_000  # different references
