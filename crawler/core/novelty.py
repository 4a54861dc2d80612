"""Whether the pages of one URL template differ from each other, judged by the words of a sample.

Pages are sampled by a hash of their request target, not by the time of their fetch. The sample of a template is the
SAMPLE pages with the smallest hashes. A page is alike if at most OWN_WORDS of its words are on no other page of the
sample. A template is alike if nearly all pages of its sample are. Words of a page's own URL do not count
(`content.html.fingerprint`).

Invariant: a verdict depends on the set of settled pages alone: not on their order, nor on where a crawl was stopped.

Source: bottom-k sketches, Cohen and Kaplan 2007.
"""

from array import array
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

from xxhash import xxh3_64_intdigest, xxh32_intdigest

SAMPLE: Final = 32  # pages of a template that are compared
LEAST: Final = 16  # pages needed for a verdict …
FEW: Final = 4  # … and for a first impression (`seems_different`)
WORDS: Final = 64  # words of each page: those with the smallest hashes
OWN_WORDS: Final = 2  # that an alike page may have: the name of a month, a counter in words
ALIKE_SHARE: Final = 0.8  # of the sample
LEARNED: Final = 65_536  # words of trials that are remembered; after that no word counts as new
PAIRS: Final = 4  # pairs of equal pages in a sample: they show that few contents have many URLs …
COPIES: Final = 4  # … at least so many each on average
PLAIN_BITS: Final = 4  # one in 2^4 pages is sampled …
SUSPICIOUS_BITS: Final = 2  # … and one in 2^2 of those with a suspicious URL (`url_templates.is_suspicious`)


class PageSample(NamedTuple):
    """A sampled page: the hash that it is sampled by, and the 32-bit hashes of its words, WORDS at most."""

    rank: int
    words: "array[int]"


def rank_of(target: str) -> int:
    """The hash that a page is sampled by."""
    return xxh3_64_intdigest(target.encode())


def is_sampled(rank: int, *, suspicious: bool) -> bool:
    """Whether a page with this hash is sampled."""
    return rank & ((1 << (SUSPICIOUS_BITS if suspicious else PLAIN_BITS)) - 1) == 0


def sketch(words: Iterable[bytes]) -> "array[int]":
    """The WORDS smallest hashes of a page's distinct words."""
    return array("I", sorted(hashes_of(words))[:WORDS])


def hashes_of(words: Iterable[bytes]) -> list[int]:
    """The 32-bit hashes of words."""
    return list(map(xxh32_intdigest, words))


class TemplateSample:
    """The sample of one template and its verdict."""

    __slots__ = ("_counts", "_is_alike", "_learned", "_pairs", "_seems_different", "pages", "seen")

    def __init__(self) -> None:
        self.pages: list[PageSample] = []
        self.seen = 0  # sampled pages so far, also those no longer in the sample
        self._is_alike: bool | None = False  # None: to be computed anew
        self._seems_different: bool | None = None  # None: to be computed anew
        self._pairs = 0  # pairs of pages with the same words, at the last verdict
        self._learned: set[int] = set()
        self._counts: Counter[int] = Counter()  # word → pages that have it; kept from the LEAST-th page on

    def add(self, page: PageSample) -> bool:
        """Add a page if it belongs to the sample. Returns whether the sample changed."""
        pages = self.pages
        at = bisect_left(pages, (page.rank,))
        if at < len(pages) and pages[at].rank == page.rank:  # known already
            return False
        self.seen += 1
        if len(pages) == SAMPLE:
            if page.rank >= pages[-1].rank:
                if self._pairs >= PAIRS:
                    self._is_alike = None  # `seen` has grown
                return False
            self._counts.subtract(pages.pop().words)
        pages.insert(at, page)
        self._seems_different = None
        if len(pages) < LEAST:
            return True
        for one in pages if len(pages) == LEAST else (page,):
            self._counts.update(one.words)
        self._is_alike = None
        return True

    @property
    def has_verdict(self) -> bool:
        return len(self.pages) >= LEAST

    @property
    def seems_different(self) -> bool:
        """Whether the first few pages differ. No verdict, but enough not to be judged by a more general template."""
        if self._seems_different is None:
            pages = self.pages
            counts = Counter(word for page in pages for word in page.words)
            alike = sum(sum([counts[word] == 1 for word in page.words]) <= OWN_WORDS for page in pages)
            self._seems_different = FEW <= len(pages) < LEAST and 2 * alike < len(pages)
        return self._seems_different

    @property
    def is_alike(self) -> bool:
        """Whether the pages of the template are alike, as far as the sample shows."""
        if self._is_alike is None:
            self._is_alike = self._says_the_same or self._has_copies
        return self._is_alike

    @property
    def _says_the_same(self) -> bool:
        """Whether `alike_count` is at least ALIKE_SHARE of the sample. If pages differ, the first few decide."""
        counts = self._counts
        others = len(self.pages) - ALIKE_SHARE * len(self.pages)
        for page in self.pages:
            if sum([counts[word] == 1 for word in page.words]) > OWN_WORDS:
                others -= 1
                if others < 0:
                    return False
        return True

    @property
    def _has_copies(self) -> bool:
        """Whether few contents have many URLs, as with a session in the path. Estimates the number of contents from the
        pairs of equal pages in the sample (birthday problem).
        """
        same = Counter(page.words.tobytes() for page in self.pages)
        self._pairs = pairs = sum(n * (n - 1) // 2 for n in same.values())
        if pairs < PAIRS:
            return False
        contents = len(self.pages) * (len(self.pages) - 1) / 2 / pairs
        return COPIES * contents < self.seen << SUSPICIOUS_BITS

    @property
    def alike_count(self) -> int:
        """Pages of the sample with at most OWN_WORDS words of their own."""
        counts = self._counts
        return sum(sum([counts[word] == 1 for word in page.words]) <= OWN_WORDS for page in self.pages)

    def learns_one(self, content: bytes) -> bool:
        """Remember a content without words. Returns whether it is new."""
        before = len(self._learned)
        if before < LEARNED:
            self._learned.add(xxh32_intdigest(content))
        return len(self._learned) > before

    def learns(self, words: Sequence[int]) -> bool:
        """Remember the words of a page; the verdict stays. Returns whether more than OWN_WORDS of them are new."""
        counts, learned = self._counts, self._learned
        new = [word for word in words if not counts[word] and word not in learned]
        if len(learned) + len(new) > LEARNED:
            return False
        learned.update(new)
        return len(new) > OWN_WORDS
