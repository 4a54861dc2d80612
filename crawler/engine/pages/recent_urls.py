"""Keys of URLs stored lately: spares the store most of the links that it already knows. And how often URLs are linked.

A direct-mapped table: a new key takes the place of the one that was there. Forgetting is harmless (the store's own
index decides); remembering wrongly is not, so the whole 64-bit key is kept.
"""

import sys
from array import array
from collections.abc import Iterable
from typing import Final

SLOT_BITS: Final = 20  # 2^20 keys of 8 bytes: 8 MiB, and as fast as a set that would take 89 MiB

IN_LINK_BITS: Final = 20  # 2^20 counters of two bytes
IN_LINK_PAGES: Final = 8  # the links of every eighth page are counted, eight times each


class RecentKeys:
    """A bounded memory of signed 64-bit keys. Key 0 is never remembered (it is the mark of an empty slot)."""

    __slots__ = ("_mask", "_slots")

    def __init__(self, bits: int = SLOT_BITS) -> None:
        self._slots = array("q", bytes(8 << bits))
        self._mask = (1 << bits) - 1

    def has(self, key: int) -> bool:
        return self._slots[key & self._mask] == key and key != 0

    def add(self, key: int) -> None:
        self._slots[key & self._mask] = key

    @property
    def size_bytes(self) -> int:
        return len(self._slots) * self._slots.itemsize


MAX_URLS: Final = 32_768


class RecentUrls(set[str]):
    """URLs whose keys are known to be stored: a plain set, for it is asked for every link of every page.

    Emptied when it is full, which is harmless and rare.
    """

    __slots__ = ()

    def add(self, url: str, /) -> None:
        if len(self) >= MAX_URLS:
            self.clear()
        super().add(url)


class InLinks:
    """How often URLs were linked since their last visit: an estimate, by key, in a fixed table. Two keys that share a
    counter are told apart by nobody; whoever is visited first gets what both have.
    """

    def __init__(self, bits: int = IN_LINK_BITS) -> None:
        self._counts = array("H", bytes(2 << bits))
        self._mask = (1 << bits) - 1
        self._pages = 0
        self.is_dirty = False  # counted since `dump`, which whoever stores it sets back

    def dump(self) -> bytes:
        """All counters, to be stored."""
        counts = self._counts[:]
        if sys.byteorder == "big":
            counts.byteswap()
        return counts.tobytes()

    def load(self, dumped: bytes) -> None:
        """Go on from what was stored; a table of another size is worth nothing."""
        if len(dumped) == self._counts.itemsize * len(self._counts):
            self._counts = array("H", dumped)
            if sys.byteorder == "big":
                self._counts.byteswap()

    def wants_page(self) -> bool:
        """Whether the next page's links are to be counted."""
        self._pages += 1
        return self._pages % IN_LINK_PAGES == 1

    def note(self, keys: Iterable[int]) -> None:
        """A page links to each of these once."""
        counts, mask = self._counts, self._mask
        self.is_dirty = True
        for key in keys:
            at = key & mask
            if counts[at] <= 0xFFFF - IN_LINK_PAGES:
                counts[at] += IN_LINK_PAGES

    def take(self, key: int) -> int:
        """What was counted for a URL; its counter begins anew."""
        at = key & self._mask
        count, self._counts[at] = self._counts[at], 0
        return count
