"""What has become of every URL that a crawl found: one sum, the same in every view.

A URL of the store is in one of five classes, by its state: fetched, refused by a rule, given up, left, or taken down by
an operator. Links that a rule refused before they were stored are not among them.

Invariant: `found` is the sum of the classes.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from crawler.core.enums import UrlState
from crawler.core.formatting import count


@dataclass(frozen=True, slots=True)
class Balance:
    """Counts of URLs over the life of an output directory. `fetched` had a final answer, whatever its status; `left`
    may still be fetched: it is queued, waits for another attempt, or is a suspect.
    """

    found: int
    fetched: int
    refused: int
    gave_up: int
    left: int
    taken_down: int

    @classmethod
    def of(cls, counts: Mapping[str, int]) -> "Balance":
        """From how many URLs are in each state (`UrlState`). Raises ValueError for a negative count."""
        if wrong := {str(state): counts[state] for state in UrlState if counts.get(state, 0) < 0}:
            raise ValueError(f"negative counts of URLs: {wrong}")
        fetched, refused, gave_up, taken_down, *left = (
            counts.get(state, 0)
            for state in (
                UrlState.DONE, UrlState.DENIED, UrlState.GAVE_UP, UrlState.FORGOTTEN,
                UrlState.QUEUED, UrlState.WAITING, UrlState.SUSPECT,
            )
        )  # fmt: skip
        found = fetched + refused + gave_up + taken_down + sum(left)
        return cls(found, fetched, refused, gave_up, sum(left), taken_down)

    def words(self, left_by: Mapping[str, int] | None = None) -> str:
        """For a person, without the classes that are empty: "9 fetched, 2 left (2 retry)"."""
        reasons = ", ".join(f"{count(urls)} {why}" for why, urls in (left_by or {}).items())
        named = {
            "fetched": self.fetched,
            "refused by rules": self.refused,
            "given up": self.gave_up,
            f"left{f' ({reasons})' if reasons else ''}": self.left,
            "taken down": self.taken_down,
        }
        return ", ".join(f"{count(urls)} {word}" for word, urls in named.items() if urls)

    def as_dict(self) -> dict[str, int]:
        """By the names of `crawl --json` and `report --json`."""
        return {
            "found": self.found,
            "fetched": self.fetched,
            "refused": self.refused,
            "gave_up": self.gave_up,
            "left": self.left,
            "taken_down": self.taken_down,
        }
