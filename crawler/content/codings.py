"""The content codings themselves (RFC 9110 §8.4.1): gzip, deflate, br and zstd, each a decoder that takes slices in and
gives pieces out.

A decoder is for one stream: a gzip member, a zstd frame. It gives at most about PIECE bytes at a time, and raises one
of DAMAGE for what its library does not take; how such streams make up a body is the business of `layer`. Invariant: fed
byte by byte, it gives all that can be decoded before damage.
"""

from collections.abc import Iterator
from typing import Final, Protocol, cast

import brotli
import zstandard
from isal import igzip_lib, isal_zlib

PIECE: Final = 256 * 1024  # decoded bytes given at a time
MAX_WINDOW: Final = 8 * 1024 * 1024  # RFC 8878 §3.1.1.1.2, required of HTTP by RFC 9659


class _DamageError(Exception):
    """What a decoder of ours raises where a library raises its own."""


_GZIP: Final = 31  # window bits, as zlib counts them: a gzip member
ZLIB: Final = 15
RAW: Final = -15
_GZIP_FIXED: Final = 10  # bytes of every header
_FHCRC, _FEXTRA, _FNAME, _FCOMMENT, _RESERVED = 0x02, 0x04, 0x08, 0x10, 0xE0
MAX_GZIP_HEADER: Final = 80_000  # the extra field has up to 65,535 bytes, a name is one of a file


class Coder(Protocol):
    """One coded stream being read. `finished` is set at its end, `unused` is then what was fed beyond it."""

    finished: bool
    unused: bytes

    def pieces(self, data: bytes) -> Iterator[bytes]:
        """Take a slice in and give what it holds, in pieces that are not empty. Raises one of DAMAGE."""


class Inflater:
    """A deflate stream: bare, or in the wrapping of zlib or gzip."""

    def __init__(self, window: int) -> None:
        self._stream = isal_zlib.decompressobj(window)
        self.finished = False
        self.unused = b""

    def pieces(self, data: bytes) -> Iterator[bytes]:
        stream = self._stream
        while True:
            piece = stream.decompress(data, PIECE)
            if piece:
                yield piece
            if stream.eof:
                self.finished, self.unused = True, stream.unused_data
                return
            data = stream.unconsumed_tail
            if len(piece) < PIECE:  # not stopped by the limit: it needs more
                return


class Gzip(Inflater):
    """A member of a gzip file (RFC 1952 §2.3). The library gets its header in one piece: where a header that has more
    than one of the optional parts is cut, it loses its way.
    """

    def __init__(self) -> None:
        super().__init__(_GZIP)
        self._header: bytes | None = b""  # as far as it is there; None: it was passed on

    def pieces(self, data: bytes) -> Iterator[bytes]:
        if self._header is not None:
            data = self._header + data
            if not _has_gzip_header(data):
                self._header = data
                return
            self._header = None
        yield from super().pieces(data)


def _has_gzip_header(data: bytes) -> bool:
    """Whether the whole header is there. Raises _DamageError for one that no decoder takes."""
    if len(data) < _GZIP_FIXED:
        return False
    flags = data[3]
    if flags & _RESERVED:
        raise _DamageError("unknown flags in the header")
    end = _GZIP_FIXED
    if flags & _FEXTRA:
        end += 2 + int.from_bytes(data[end : end + 2], "little")
    for flag in (_FNAME, _FCOMMENT):
        if flags & flag and end <= len(data):
            end = data.find(b"\0", end) + 1 or len(data) + 1
    if min(end, len(data)) > MAX_GZIP_HEADER:
        raise _DamageError("its header does not end")
    return len(data) >= end + (2 if flags & _FHCRC else 0)


class Brotli:
    """A brotli stream (RFC 7932). Its limit on output is a soft one: about 1.5 times as much may come.

    The library asks for more data while it still holds output: what it holds comes when it is given nothing.
    """

    def __init__(self) -> None:
        self._stream = brotli.Decompressor()
        self.finished = False
        self.unused = b""

    def pieces(self, data: bytes) -> Iterator[bytes]:
        stream = self._stream
        piece = stream.process(data, output_buffer_limit=PIECE)
        while True:
            if piece:
                yield piece
            self.finished = stream.is_finished()
            if self.finished or (not piece and stream.can_accept_more_data()):
                return
            piece = stream.process(b"", output_buffer_limit=PIECE)


class Zstd:
    """One zstd frame (RFC 8878 §3.1.1).

    The library has no limit on output, so it is fed one block at a time: a block holds at most 128 KiB (§3.1.1.2.4).
    """

    def __init__(self, decompressor: zstandard.ZstdDecompressor) -> None:
        self._stream = decompressor.decompressobj()
        self._held = b""
        self._inside = 0  # bytes of the current item that the library has not seen
        self._in_header = True
        self._checksum = 0  # its length
        self._is_last = False
        self.finished = False
        self.unused = b""

    def pieces(self, data: bytes) -> Iterator[bytes]:
        data = self._held + data if self._held else data
        position = 0
        while position < len(data):
            if not self._inside:
                self._inside = self._next_item(data, position)
                if not self._inside:
                    break
            step = min(self._inside, len(data) - position)
            piece = self._stream.decompress(data[position : position + step])
            position += step
            self._inside -= step
            if piece:
                yield piece
            if self._stream.eof:
                self.finished, self.unused = True, data[position:]
                return
        self._held = data[position:]

    def _next_item(self, data: bytes, start: int) -> int:
        """The length of the frame header, block or checksum that begins at `start`; 0: too little is there to say."""
        if self._in_header:
            if len(data) < start + 5:
                return 0
            self._in_header = False
            descriptor = data[start + 4]
            single_segment = bool(descriptor & 0x20)
            size_bytes = (1 if single_segment else 0, 2, 4, 8)[descriptor >> 6]
            self._checksum = 4 if descriptor & 0x04 else 0
            return 5 + (not single_segment) + (0, 1, 2, 4)[descriptor & 3] + size_bytes
        if self._is_last:  # by itself: a wrong checksum costs no block
            return self._checksum
        if len(data) < start + 3:
            return 0
        header = int.from_bytes(data[start : start + 3], "little")
        self._is_last = bool(header & 1)
        is_rle = header >> 1 & 3 == 1
        return 3 + (1 if is_rle else header >> 3)


class Skipped:
    """A skippable frame of zstd (RFC 8878 §3.1.2): it holds nothing."""

    def __init__(self) -> None:
        self._head = b""
        self._left = -1
        self.finished = False
        self.unused = b""

    def pieces(self, data: bytes) -> Iterator[bytes]:
        if self._left < 0:
            data = self._head + data
            if len(data) < 8:
                self._head = data
                return
            self._left = int.from_bytes(data[4:8], "little")
            data = data[8:]
        self.finished, self.unused = len(data) >= self._left, data[self._left :]
        self._left -= min(self._left, len(data))
        yield from ()


# isal's stubs declare its exception class as an instance.
DAMAGE: Final = (cast("type[Exception]", igzip_lib.IsalError), brotli.error, zstandard.ZstdError, _DamageError)
