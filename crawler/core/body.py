"""What a response carried: bytes in memory, or (in `fetch`) a spool file behind the same face."""

from collections.abc import Iterator
from typing import Protocol


class Body(Protocol):
    """A finished run of bytes that may be read any number of times, from any thread."""

    @property
    def size(self) -> int:
        """Length in bytes."""

    def prefix(self, limit: int) -> bytes:
        """The first `limit` bytes, or all there are. Returns the stored object itself where that is the whole."""

    def chunks(self) -> Iterator[bytes]:
        """The whole, in order, in pieces of at most 1 MiB (a body in memory comes as it is)."""


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
