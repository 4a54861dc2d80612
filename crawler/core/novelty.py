"""Whether the pages of one URL template differ from each other: judged by a sample of their words.

A page is sampled by a hash of its target, not by when it was fetched, and the sample of a template is its SAMPLE pages
with the smallest hashes. A page is alike if hardly a word of its own is on no other page of the sample; a template is
alike if nearly all of its sample is. Words of a page's own URL never count (`content.html.fingerprint`).

Invariant: a verdict is a function of the set of pages that were settled: not of their order, nor of what was fetched
when the crawl was stopped.

Source: bottom-k sketches, Cohen and Kaplan 2007.
"""

from array import array
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

from xxhash import xxh3_64_intdigest, xxh32_intdigest

SAMPLE: Final = 32  # pages of a template that are compared
LEAST: Final = 16  # of them before a verdict is reached …
FEW: Final = 4  # … or before they count at all
WORDS: Final = 64  # kept of each page: those with the smallest hashes
OWN_WORDS: Final = 2  # that an alike page may have: the name of a month, a counter spelt out
ALIKE_SHARE: Final = 0.8  # of the sample
LEARNED: Final = 65_536  # words of trials that are remembered; then none counts as new
PAIRS: Final = 4  # of pages in a sample with the same words, which show that few contents have many URLs …
COPIES: Final = 4  # … if each has so many on average
PLAIN_BITS: Final = 4  # one in 2^4 pages is sampled …
SUSPICIOUS_BITS: Final = 2  # … one in 2^2 of those whose URL shows a sign (`trapshape.is_suspicious`)


class PageSample(NamedTuple):
    """`rank` is the hash it was chosen by; `words` are hashes of 32 bits, WORDS at most."""

    rank: int
    words: "array[int]"


def rank_of(target: str) -> int:
    """The hash by which a page is sampled."""
    return xxh3_64_intdigest(target.encode())


def is_sampled(rank: int, *, suspicious: bool) -> bool:
    """Whether the page of this rank is to be compared."""
    return rank & ((1 << (SUSPICIOUS_BITS if suspicious else PLAIN_BITS)) - 1) == 0


def sketch(words: Iterable[bytes]) -> "array[int]":
    """The WORDS smallest hashes of a page's distinct words."""
    return array("I", sorted(hashes_of(words))[:WORDS])


def hashes_of(words: Iterable[bytes]) -> list[int]:
    """Hashes of 32 bits."""
    return list(map(xxh32_intdigest, words))


class TemplateSample:
    """The sample of one template, and the verdict on it."""

    __slots__ = ("_counts", "_is_alike", "_learned", "_pairs", "_seems_different", "pages", "seen")

    def __init__(self) -> None:
        self.pages: list[PageSample] = []
        self.seen = 0  # sampled pages, those included that have no place in the sample
        self._is_alike: bool | None = False  # None: not computed since the last change
        self._seems_different: bool | None = None  # None: as above
        self._pairs = 0  # of pages with the same words, at the last verdict
        self._learned: set[int] = set()
        self._counts: Counter[int] = Counter()  # pages that have a word, from the LEAST-th page on

    def add(self, page: PageSample) -> bool:
        """Take a page in, if it belongs to the sample. Returns whether the sample changed."""
        pages = self.pages
        at = bisect_left(pages, (page.rank,))
        if at < len(pages) and pages[at].rank == page.rank:  # it is in
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
        """Whether the few pages that there are differ: not enough for a verdict, but for not being judged by others."""
        if self._seems_different is None:
            pages = self.pages
            counts = Counter(word for page in pages for word in page.words)
            alike = sum(sum([counts[word] == 1 for word in page.words]) <= OWN_WORDS for page in pages)
            self._seems_different = FEW <= len(pages) < LEAST and 2 * alike < len(pages)
        return self._seems_different

    @property
    def is_alike(self) -> bool:
        """Whether the template's pages say the same, as far as the sample shows."""
        if self._is_alike is None:
            self._is_alike = self._says_the_same or self._has_copies
        return self._is_alike

    @property
    def _says_the_same(self) -> bool:
        """Whether `alike_count` is ALIKE_SHARE of the sample: known after its first few pages where all differ."""
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
        """Whether few contents stand under many URLs, as with a session in the path: so many pages of the sample are
        the same that there are far fewer contents than pages (birthday problem).
        """
        same = Counter(page.words.tobytes() for page in self.pages)
        self._pairs = pairs = sum(n * (n - 1) // 2 for n in same.values())
        if pairs < PAIRS:
            return False
        contents = len(self.pages) * (len(self.pages) - 1) / 2 / pairs
        return COPIES * contents < self.seen << SUSPICIOUS_BITS

    @property
    def alike_count(self) -> int:
        """How many pages of the sample have hardly a word of their own."""
        counts = self._counts
        return sum(sum([counts[word] == 1 for word in page.words]) <= OWN_WORDS for page in self.pages)

    def learns_one(self, content: bytes) -> bool:
        """The same for a content that has no words: whether it was not met before."""
        before = len(self._learned)
        if before < LEARNED:
            self._learned.add(xxh32_intdigest(content))
        return len(self._learned) > before

    def learns(self, words: Sequence[int]) -> bool:
        """Whether a page says more than the sample and the pages learned before. The verdict is not changed by it."""
        counts, learned = self._counts, self._learned
        new = [word for word in words if not counts[word] and word not in learned]
        if len(learned) + len(new) > LEARNED:
            return False
        learned.update(new)
        return len(new) > OWN_WORDS
