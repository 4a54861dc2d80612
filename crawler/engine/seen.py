"""Keys of URLs stored lately: spares the store most of the links that it already knows.

A direct-mapped table: a new key takes the place of the one that was there. Forgetting is harmless (the store's own
index decides); remembering wrongly is not, so the whole 64-bit key is kept.
"""

from array import array
from typing import Final

SLOT_BITS: Final = 20  # 2^20 keys of 8 bytes: 8 MiB, and as fast as a set that would take 89 MiB


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
