"""What one transaction is about to make of the sums that are kept in memory: nothing counts before it is committed.

It knows neither SQL nor the store.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from crawler.core.enums import UrlState
from crawler.core.models import HostRow, Origin
from crawler.frontier.base import Receipt
from crawler.frontier.rows import HostChange


@dataclass(slots=True)
class Change:
    """`counts` has the words of UrlState, and "hosts"."""

    counts: dict[str, int]
    hosts: defaultdict[int, HostChange] = field(default_factory=lambda: defaultdict(HostChange))
    ids: dict[Origin, int] = field(default_factory=dict)  # of origins that were not remembered
    new_hosts: list[HostRow] = field(default_factory=list)
    queued: dict[int, int] = field(default_factory=dict)  # host id → URLs first seen
    fresh: set[int] = field(default_factory=set)  # what a SeenFilter is to learn
    robots_changed: list[int] = field(default_factory=list)
    files: dict[str, int] = field(default_factory=dict)  # ids, by name, of output files that visits are in
    counters: str | None = None  # what the directory's counters come to, as they are stored
    suspects: dict[int, list[str]] = field(default_factory=dict)  # host id → templates of URLs set aside at once
    linked: list[int] = field(default_factory=list)  # hosts, once for each URL that is no suspect any more
    trial_links: dict[int, list[tuple[int, int, str]]] = field(default_factory=dict)  # as in Receipt
    marks: int = 0  # forgotten rows beside the one that counts for its URL

    def move(self, host_id: int, before: str, after: str) -> None:
        """A URL goes from one state to another."""
        self.counts[before] -= 1
        self.counts[after] = self.counts.get(after, 0) + 1
        self.hosts[host_id].queued += (after == UrlState.QUEUED) - (before == UrlState.QUEUED)

    def insert(self, host_id: int, count: int) -> None:
        """URLs were seen for the first time."""
        self.counts[UrlState.QUEUED] = self.counts.get(UrlState.QUEUED, 0) + count
        self.hosts[host_id].queued += count
        self.queued[host_id] = self.queued.get(host_id, 0) + count

    def set_aside(self, host_id: int, template: str, count: int) -> None:
        """URLs that were seen for the first time are suspects."""
        if not count:
            return
        for _ in range(count):
            self.move(host_id, UrlState.QUEUED, UrlState.SUSPECT)
        self.queued[host_id] -= count
        self.suspects.setdefault(host_id, []).extend([template] * count)

    def queue_again(self, host_id: int, before: str) -> None:
        """A known URL is queued."""
        self.move(host_id, before, UrlState.QUEUED)
        self.queued[host_id] = self.queued.get(host_id, 0) + 1

    def add(self, state: UrlState, count: int) -> None:
        """URLs came to be in a state in which nothing is due."""
        self.counts[state] = self.counts.get(state, 0) + count

    def receipt(self, links_new: Sequence[int]) -> Receipt:
        rows = [replace(row, queued=self.hosts[row.id].queued) for row in self.new_hosts]
        return Receipt(links_new, self.queued, rows, self.robots_changed, self.suspects, self.linked, self.trial_links)
