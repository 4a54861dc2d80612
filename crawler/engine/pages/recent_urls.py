"""URLs stored lately, so that most links are not sent to the store again, and how often URLs are linked.

To lose a key is harmless, because the index of the store decides. A false match would lose a URL, so keys are compared
in full.
"""

import sys
from array import array
from collections.abc import Iterable
from typing import Final

SLOT_BITS: Final = 20  # 2^20 keys of 8 bytes: 8 MiB, and as fast as a set that would take 89 MiB

IN_LINK_BITS: Final = 20  # 2^20 counters of two bytes
IN_LINK_PAGES: Final = 8  # the links of every eighth page are counted, each eight times
MAX_URLS: Final = 32_768


class RecentKeys:
    """A fixed table of signed 64-bit keys, direct-mapped: a new key replaces the one in its slot.

    Key 0 marks an empty slot, and is never found.
    """

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


class RecentUrls(set[str]):
    """URLs that are known to be stored: a plain set, since every link of every page is looked up.

    It is emptied when it has MAX_URLS.
    """

    __slots__ = ()

    def add(self, url: str, /) -> None:
        if len(self) >= MAX_URLS:
            self.clear()
        super().add(url)


class InLinks:
    """How often URLs were linked since their last visit: estimates by key, in a fixed table of counters.

    Keys may share a counter: the URL visited first then gets the count of both.
    """

    def __init__(self, bits: int = IN_LINK_BITS) -> None:
        self._counts = array("H", bytes(2 << bits))
        self._mask = (1 << bits) - 1
        self._pages = 0
        self.is_dirty = False  # something was counted since; cleared by the caller that stores a `dump`

    def dump(self) -> bytes:
        """Return all counters, to be stored."""
        counts = self._counts[:]
        if sys.byteorder == "big":
            counts.byteswap()
        return counts.tobytes()

    def load(self, dumped: bytes) -> None:
        """Continue from stored counters; a table of another size is ignored."""
        if len(dumped) == self._counts.itemsize * len(self._counts):
            self._counts = array("H", dumped)
            if sys.byteorder == "big":
                self._counts.byteswap()

    def wants_page(self) -> bool:
        """Whether the next page's links are to be counted."""
        self._pages += 1
        return self._pages % IN_LINK_PAGES == 1

    def note(self, keys: Iterable[int]) -> None:
        """Count one link of a page to each of these keys."""
        counts, mask = self._counts, self._mask
        self.is_dirty = True
        for key in keys:
            at = key & mask
            if counts[at] <= 0xFFFF - IN_LINK_PAGES:
                counts[at] += IN_LINK_PAGES

    def take(self, key: int) -> int:
        """Return the count of a URL, and set it to 0."""
        at = key & self._mask
        count, self._counts[at] = self._counts[at], 0
        return count
