"""The interface by which all parts of the engine report what happens: to the log in a crawl, to a list in tests.

Invariant: every method returns at once and changes nothing in the engine.
"""

from collections.abc import Sequence
from typing import Protocol

from crawler.core.enums import StoppedBy
from crawler.core.models import Lease, RecordLocation, Settlement, SinkFile, dataclass
from crawler.core.outcomes import response_of
from crawler.engine.pages.response_processor import SkippedLink
from crawler.engine.scheduling.host import Host
from crawler.frontier.base import Recovered
from crawler.obs.events import Event
from crawler.sinks.base import LostFile, SinkRecovered

_BYTES_A_DISCOVERY = 400  # a URL of 60 characters and what is known of it


@dataclass(frozen=True, slots=True)
class Visited:
    """A settlement to be stored, with figures for its log line. Durations in seconds."""

    settlement: Settlement
    lease: Lease
    queue_s: float
    dur_s: float
    links_found: int = 0

    @property
    def held_bytes(self) -> int:
        """An estimate of its memory."""
        response = response_of(self.settlement.outcome)
        body = 0 if response is None else len(response.raw_head) + response.raw_body.size
        return 512 + body + _BYTES_A_DISCOVERY * len(self.settlement.discovered)


class Observer(Protocol):
    """Receives the events of the engine. `engine.monitoring.event_log` writes them to the log."""

    def event(self, name: Event, fields: dict[str, object]) -> None:
        """An event with the fields of its log line."""

    def recovered(self, recovered: Recovered, recovery: SinkRecovered) -> None:
        """The crawl starts: the contents of the store, and the recovery of the output files."""

    def stored(self, visited: Visited, links_new: int, written: RecordLocation | None) -> None:
        """A visit was stored. `links_new` of its links were new; `written` is its place in the WARC files."""

    def skip(self, skipped: Sequence[SkippedLink]) -> None:
        """Links of a page that were refused."""

    def scope_widened(self, host: str, via: str) -> None:
        """A seed (`via`) redirected to a host, which is in scope from now on."""

    def robots(self, host: Host) -> None:
        """A robots verdict was reached."""

    def file_closed(self, file: SinkFile) -> None:
        """An output file is finished."""

    def file_lost(self, lost: LostFile, urls: int) -> None:
        """Somebody deleted, moved or cut an output file while it was written; `urls` are queued again for it."""

    def disk(self, reason: str | None) -> None:
        """The reason why nothing can be written; None: it works again."""

    def hours(self, is_open: bool, until_at: float) -> None:
        """`fetch.hours` opened or closed, until `until_at` (UTC; infinity: without end)."""

    def drain(self, reason: StoppedBy, in_flight: int) -> None:
        """The crawl is ending, with `in_flight` leases that have not ended."""
