"""Whether a URL template still brings anything new: the ledger of one template of one host.

A template is watched by samples. After so many pages it learns the words of some, then judges some: a page is known if
it has hardly a word that was not seen before, or the SimHash of another, and leads to nothing outside its template. If
nearly all are known, and yet lead to more of the same, the template has no end worth reaching. Otherwise it is let
alone until it has doubled. Pure: it is told what pages said and led to.

Invariant: a template is never condemned by pages that brought new words or new links, nor one that finds no more of
itself: what is finite is fetched to its end.
"""

from collections import deque
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from typing import Final

from crawler.core.options import TrapOptions
from crawler.core.trapshape import TrapKind

LEARNED: Final = 40  # pages whose words are learned, where `suspect_after` leaves room for them …
JUDGED: Final = 20  # … before so many are judged
LEAST_SHARE: Final = 0.5  # of those that were to be judged: some are no HTML, or still being read when the sample ends
KNOWN_SHARE: Final = 0.75  # of the judged ones that must be known: a link forgotten lately may look like a new one
BRED_SHARE: Final = 0.25  # new URLs of the same template for each judged page
MAX_WORDS: Final = 20_000  # learned; a template that has more is rich enough
NEAR_BITS: Final = 3  # of 64, for web pages: Manku et al. 2007
_NEW_WORDS: Final = 2  # a page may have, or one in fifty, and still be known


@dataclass(frozen=True, slots=True)
class Evidence:
    """Why a template was condemned, for a person."""

    kind: TrapKind
    fetched: int
    judged: int
    known: int
    near_duplicates: int
    bred: int

    def as_dict(self) -> dict[str, object]:
        return {
            "kind": self.kind.value,
            "fetched": self.fetched,
            "judged": self.judged,
            "known": self.known,
            "near_duplicates": self.near_duplicates,
            "led_to_more": self.bred,
        }


@dataclass(slots=True)
class Ledger:
    """`fetched` counts pages; the rest is the sample under way."""

    kind: TrapKind
    fetched: int = 0
    check_at: int = 0  # the sample ends at this count
    _words: set[bytes] = field(default_factory=set)
    _hashes: deque[int] = field(default_factory=lambda: deque(maxlen=LEARNED + JUDGED))
    _judged: int = 0
    _known: int = 0
    _near: int = 0
    _bred: int = 0
    _ended: bool = False  # until the next sample begins

    @classmethod
    def resumed(cls, kind: TrapKind, fetched: int, check_at: int, options: TrapOptions) -> "Ledger":
        """Go on from what was counted before a restart. The words of a sample that was under way are gone: it is taken
        anew.
        """
        ledger = cls(kind, fetched, check_at)
        size = sum(ledger._sample(options))
        if fetched < check_at < fetched + size:
            ledger.check_at = fetched + size
        return ledger

    def count(self, kind: TrapKind, options: TrapOptions) -> bool:
        """Another page was fetched. Returns whether what it says is to be looked at (`judge`)."""
        self.fetched += 1
        if kind is not self.kind and self.kind is TrapKind.PLAIN:
            self.kind, self.check_at = kind, 0
        learned, judged = self._sample(options)
        if self.check_at < self.fetched:
            first = options.patience if self.kind is TrapKind.PLAIN else options.suspect_after
            self.check_at = max(first, self._next(first) if self.check_at else self.fetched + learned + judged - 1)
            self._begin()
        return self.fetched > self.check_at - learned - judged

    def _next(self, first: int) -> int:
        """A template that shows a sign of having no end is looked at more often."""
        grown = 2 * self.check_at if self.kind is TrapKind.PLAIN else self.check_at + self.check_at // 2
        return max(grown, self.check_at + first // 2)

    def _begin(self) -> None:
        self._ended = False
        self._words = set()
        self._hashes.clear()
        self._judged = self._known = self._near = self._bred = 0

    def _sample(self, options: TrapOptions) -> tuple[int, int]:
        """How many are learned and judged; fewer where patience is short."""
        first = options.patience if self.kind is TrapKind.PLAIN else options.suspect_after
        return max(1, min(LEARNED, first // 2)), max(1, min(JUDGED, first // 4))

    def judge(
        self, words: AbstractSet[bytes], simhash: int, *, leads_out: bool, bred: int, options: TrapOptions
    ) -> Evidence | None:
        """Look at a page that `count` asked for. `leads_out`: it has new links to other templates; `bred` counts its
        new links to its own. Returns evidence if the template has shown that it has no end.
        """
        if self._ended:  # read in a thread, it comes after the sample it was counted for
            return None
        fresh = words - self._words
        judged = self._sample(options)[1]
        if self.check_at - self.fetched < judged:
            near = any((simhash ^ other).bit_count() <= NEAR_BITS for other in self._hashes)
            is_known = not leads_out and (near or len(fresh) <= max(_NEW_WORDS, len(words) // 50))
            self._judged += 1
            self._near += near
            self._known += is_known
            self._bred += bred
        if len(self._words) < MAX_WORDS:
            self._words |= fresh
        self._hashes.append(simhash)
        if self.fetched < self.check_at:
            return None
        condemned = (
            self._judged >= LEAST_SHARE * judged
            and self._known >= KNOWN_SHARE * self._judged
            and self._bred >= BRED_SHARE * self._judged
        )
        evidence = Evidence(self.kind, self.fetched, self._judged, self._known, self._near, self._bred)
        self._begin()
        self._ended = True
        return evidence if condemned else None
