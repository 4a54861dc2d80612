"""Bodies of messages, and their digests as WARC files write them (WARC 1.1 §5.8)."""

from collections.abc import Iterator
from hashlib import sha256
from typing import Final, Protocol


class Body(Protocol):
    """The bytes of a body. They may be read any number of times, from any thread."""

    @property
    def size(self) -> int:
        """Length in bytes."""

    def prefix(self, limit: int) -> bytes:
        """The first `limit` bytes, or all. Returns the stored object itself if it is no longer than that."""

    def chunks(self) -> Iterator[bytes]:
        """All bytes in order, in pieces of at most 1 MiB. A body in memory is one piece."""


class BytesBody:
    """A body held in memory."""

    __slots__ = ("_data",)

    def __init__(self, data: bytes) -> None:
        self._data = data

    @property
    def size(self) -> int:
        return len(self._data)

    def prefix(self, limit: int) -> bytes:
        data = self._data
        return data if len(data) <= limit else data[:limit]

    def chunks(self) -> Iterator[bytes]:
        if self._data:
            yield self._data

    def __repr__(self) -> str:
        return f"<BytesBody {len(self._data)} bytes>"


EMPTY = BytesBody(b"")


# -- digests

_LETTERS: Final = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567".ljust(256)


def _spreading() -> tuple[tuple[int, int, int], ...]:
    """The steps that spread 320 bits over 64 bytes, five each: every step halves the lanes and parts the halves."""
    steps = []
    lane, bits = 512, 320
    while bits > 5:
        lane, bits = lane // 2, bits // 2
        low = sum(((1 << bits) - 1) << at for at in range(0, 512, 2 * lane))
        steps.append((low << bits, lane - bits, low))
    return tuple(steps)


_SPREADING: Final = _spreading()


def digest_text(digest: bytes) -> str:
    """A SHA-256 digest as "sha256:" and base 32, upper case and padded (RFC 4648 §6).

    It uses the arithmetic of long integers: it runs four times a visit, when the processor's cache holds the page and
    no table of letters.
    """
    bits = int.from_bytes(digest) << 64
    for high, shift, low in _SPREADING:
        bits = (bits & high) << shift | bits & low
    return "sha256:" + bits.to_bytes(64).translate(_LETTERS)[:52].decode() + "===="


def payload_digest(payload: Body) -> str:
    """The `digest_text` of a payload, as warcio and fastwarc verify it."""
    digest = sha256()
    for chunk in payload.chunks():
        digest.update(chunk)
    return digest_text(digest.digest())
