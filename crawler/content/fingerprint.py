"""What a page says, reduced to what near-duplicates share: its words, and 64 bits of them (SimHash).

Half a millisecond for a page of 26 KB, so it is only asked for pages of a template under suspicion (`core.novelty`).
Words of the page's own URL are left out: an error page or a calendar repeats what it was asked for. It does not know
what the page is compared with.

Source: Charikar 2002.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from xxhash import xxh3_64_digest

from crawler.core.novelty import NEAR_BITS

MAX_TEXT: Final = 64 * 1024  # bytes of the page looked at
MAX_WORDS: Final = 1_024

_MARKUP: Final = re.compile(rb"<[^<>]*>|&#?\w{1,32};")
_UNSEEN: Final = re.compile(rb"<(script|style)\b")
_WORD: Final = re.compile(rb"[0-9a-z\x80-\xff]+")
_LANES: Final = 16  # bits to count up to 65,535 words in

# For each value of a byte, its bits spread to one lane each: adding these numbers counts eight columns at once.
_SPREAD: Final = tuple(sum((value >> bit & 1) << (_LANES * bit) for bit in range(8)) for value in range(256))


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """`simhash` is unsigned; `words` are those of the page, each once, less those of its URL."""

    simhash: int
    words: frozenset[bytes]

    def is_near(self, other: "Fingerprint") -> bool:
        """Whether the two say the same, give or take a word in ten."""
        if (self.simhash ^ other.simhash).bit_count() <= NEAR_BITS:
            return True
        common = len(self.words & other.words)
        return common > 0 and 10 * common >= 9 * len(self.words | other.words)

    def as_bytes(self) -> bytes:
        """To be stored; words hold neither spaces nor line ends."""
        return self.simhash.to_bytes(8) + b" ".join(sorted(self.words))

    @classmethod
    def from_bytes(cls, stored: bytes) -> "Fingerprint":
        """What `as_bytes` gave."""
        return cls(int.from_bytes(stored[:8]), frozenset(stored[8:].split()))


def fingerprint(html: bytes, url: str) -> Fingerprint:
    """Of a page's bytes in UTF-8."""
    text = _MARKUP.sub(b" ", _without_scripts(html[:MAX_TEXT].lower()))
    own = set(_WORD.findall(url.lower().encode()))
    words = list(dict.fromkeys(_WORD.findall(text)))[:MAX_WORDS]
    kept = frozenset(words) - own
    return Fingerprint(simhash(kept), kept)


def _without_scripts(html: bytes) -> bytes:
    kept, at = [], 0
    while (begin := _UNSEEN.search(html, at)) is not None:
        kept.append(html[at : begin.start()])
        end = html.find(b"</" + begin[1], begin.end())
        if end < 0:
            return b"".join(kept)
        at = end
    return b"".join((*kept, html[at:]))


def simhash(words: Iterable[bytes]) -> int:
    """64 bits; sets of words that share most differ in few."""
    columns = [0] * 8
    count = 0
    for word in words:
        count += 1
        for index, byte in enumerate(xxh3_64_digest(word)):
            columns[index] += _SPREAD[byte]
    result = 0
    mask = (1 << _LANES) - 1
    for index, sums in enumerate(columns):
        for bit in range(8):
            if 2 * (sums >> (_LANES * bit) & mask) > count:
                result |= 1 << (8 * index + bit)
    return result
