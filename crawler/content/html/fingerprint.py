"""Fingerprints that near-duplicate pages share: the words of a page, and 64 bits of them (SimHash).

A fingerprint takes 0.2 ms for a page of 26 KB, so only sampled pages get one (`core.url_templates`). The words of the
page's own URL are left out: error pages and calendars repeat them.

Source: Charikar 2002.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from typing import Final

from xxhash import xxh3_64_digest

from crawler.content.html.tags import Scanner

MAX_TEXT: Final = 256 * 1024  # bytes of the page that are read: some begin with 100 KB of navigation
MAX_WORDS: Final = 8_192
NEAR_BITS: Final = 3  # of 64, for web pages: Manku et al. 2007

# The text of a page in lower case. Scripts, styles, markup and character references separate its runs.
_TEXT: Final = Scanner(
    r"(?:<script\b[^<]*+(?:<(?!/script)[^<]*+)*+|<style\b[^<]*+(?:<(?!/style)[^<]*+)*+"
    r"|<[^<>]*+>|&#?+[0-9a-z_]{1,32}+;|[<&])*+(?:([^<&]++)|\z)()"
)
_OF_WORDS: Final = b"0123456789abcdefghijklmnopqrstuvwxyz" + bytes(range(0x80, 0x100))
_WORDS: Final = bytes(byte if byte in _OF_WORDS else 0x20 for byte in range(256))  # all other bytes are spaces
_BITS: Final = tuple(bytes(byte >> bit & 1 for byte in range(256)) for bit in range(8))  # one bit of each byte


@dataclass(frozen=True)
class Fingerprint:
    """The distinct words of a page, without those of its URL."""

    words: frozenset[bytes]

    @cached_property
    def simhash(self) -> int:
        """64 bits of the words, unsigned."""
        return simhash(self.words)

    def is_near(self, other: "Fingerprint") -> bool:
        """Whether the two have the same words, up to one in ten."""
        if (self.simhash ^ other.simhash).bit_count() <= NEAR_BITS:
            return True
        common = len(self.words & other.words)
        return common > 0 and 10 * common >= 9 * len(self.words | other.words)

    def as_bytes(self) -> bytes:
        """The form to store. Words have no spaces and no line ends."""
        return self.simhash.to_bytes(8) + b" ".join(sorted(self.words))

    @classmethod
    def from_bytes(cls, stored: bytes) -> "Fingerprint":
        """The fingerprint of a result of `as_bytes`."""
        return cls(frozenset(stored[8:].split()))


def fingerprint(html: bytes, url: str) -> Fingerprint:
    """The fingerprint of a page in UTF-8. Raises ScanLimitError."""
    words = dict.fromkeys(_TEXT.captured(html[:MAX_TEXT].lower()).translate(_WORDS).split())
    own = url.lower().encode().translate(_WORDS).split()
    kept = frozenset(islice(words, MAX_WORDS)).difference(own)
    return Fingerprint(kept)


def pack(fingerprints: Iterable[Fingerprint]) -> bytes:
    """Join fingerprints to one value to store: each after its length in 4 bytes."""
    stored = [one.as_bytes() for one in fingerprints]
    return b"".join(len(one).to_bytes(4) + one for one in stored)


def unpack(packed: bytes) -> list[Fingerprint]:
    """The fingerprints of a result of `pack`."""
    found, at = [], 0
    while at < len(packed):
        start, at = at + 4, at + 4 + int.from_bytes(packed[at : at + 4])
        found.append(Fingerprint.from_bytes(packed[start:at]))
    return found


def simhash(words: Iterable[bytes]) -> int:
    """64 bits that differ little for sets that share most of their words."""
    hashes = b"".join(map(xxh3_64_digest, words))
    count = len(hashes) // 8
    columns = [hashes[at::8] for at in range(8)]
    ones = [column.translate(bits).count(1) for column in columns for bits in _BITS]
    return sum([1 << bit for bit, n in enumerate(ones) if 2 * n > count])
