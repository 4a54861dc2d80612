"""The content codings themselves (RFC 9110 §8.4.1): gzip, deflate, br and zstd, each a layer that pulls pieces from the
one below.

A layer takes at most SLICE bytes in and gives at most about PIECE bytes out at a time. It does not know how many layers
there are, nor how much may come out of them (`decode`). Invariant: for what the bytes are a layer raises nothing but
BrokenError, and that only after it gave what came before the damage.
"""

from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from itertools import chain
from typing import Final, Protocol, cast

import brotli
import zstandard
from isal import igzip_lib, isal_zlib

SLICE: Final = 64 * 1024  # coded bytes taken at a time
PIECE: Final = 256 * 1024  # decoded bytes given at a time
MAX_WINDOW: Final = 8 * 1024 * 1024  # RFC 8878 §3.1.1.1.2, required of HTTP by RFC 9659

# Yields pieces, returns what was read beyond the end.
_Pieces = Generator[bytes, None, bytes]


class BrokenError(Exception):
    """A coding ended early or is damaged, after something came out of it."""


@dataclass(slots=True)
class Faults:
    """What the layers found on the way that does not end the reading."""

    not_coded: str | None = None


def _sliced(pieces: Iterator[bytes]) -> Iterator[bytes]:
    """The same bytes in slices of at most SLICE."""
    for piece in pieces:
        if len(piece) <= SLICE:
            yield piece
        else:
            for start in range(0, len(piece), SLICE):
                yield piece[start : start + SLICE]


def _as_it_came(name: str, first: bytes, rest: Iterator[bytes], faults: Faults) -> Iterator[bytes]:
    faults.not_coded = f"not {name}"
    return chain((first,), rest)


class _Coder(Protocol):
    """One coded stream being read. `finished` is set at its end, `unused` is then what was fed beyond it."""

    finished: bool
    unused: bytes

    def pieces(self, data: bytes) -> Iterator[bytes]:
        """Take a slice in and give what it holds. Raises one of _DAMAGE."""


class _Inflater:
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


class _Brotli:
    """A brotli stream (RFC 7932). Its limit on output is a soft one: about 1.5 times as much may come."""

    def __init__(self) -> None:
        self._stream = brotli.Decompressor()
        self.finished = False
        self.unused = b""

    def pieces(self, data: bytes) -> Iterator[bytes]:
        stream = self._stream
        yield stream.process(data, output_buffer_limit=PIECE)
        while not stream.can_accept_more_data():
            yield stream.process(b"", output_buffer_limit=PIECE)
        self.finished = stream.is_finished()


_ZSTD_MAGIC: Final = b"\x28\xb5\x2f\xfd"


class _Zstd:
    """One zstd frame (RFC 8878 §3.1.1).

    The library has no limit on output, so it is fed one block at a time: a block holds at most 128 KiB (§3.1.1.2.4).
    """

    def __init__(self) -> None:
        self._stream = zstandard.ZstdDecompressor(max_window_size=MAX_WINDOW).decompressobj()
        self._held = b""
        self._inside = 0  # bytes of the current item that the library has not seen
        self._in_header = True
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
            return 5 + (not single_segment) + (0, 1, 2, 4)[descriptor & 3] + size_bytes
        if len(data) < start + 3:
            return 0
        header = int.from_bytes(data[start : start + 3], "little")
        is_rle = header >> 1 & 3 == 1
        length = 3 + (1 if is_rle else header >> 3)
        return length + 4 if header & 1 else length  # behind the last block a checksum may stand


# isal's stubs declare its exception class as an instance.
_DAMAGE: Final = (cast("type[Exception]", igzip_lib.IsalError), brotli.error, zstandard.ZstdError)


class _NothingError(Exception):
    """Not one byte came out of the first slice: this is no such coding."""


def _run(make: Callable[[], _Coder], data: bytes, source: Iterator[bytes], name: str) -> _Pieces:
    """Yield what one stream holds, beginning with `data`; returns what was read beyond its end.

    Raises _NothingError if the first slice holds nothing (`source` is then untouched), BrokenError if the stream ends
    early or is damaged, after what came before the damage.
    """
    coder = make()
    first = True
    given = False
    while True:
        try:
            for piece in coder.pieces(data):
                given = given or bool(piece)
                yield piece
        except _DAMAGE as damage:
            if first and not given:
                # A library gives nothing from the call in which it meets damage: ask again in small steps.
                for piece in _before_damage(make(), data):
                    given = given or bool(piece)
                    yield piece
                if not given:
                    raise _NothingError from None
            raise BrokenError(f"{name} is damaged: {damage}") from None
        if coder.finished:
            return coder.unused
        data = next(source, b"")
        if not data:
            raise BrokenError(f"{name} ends early")
        first = False


def _before_damage(coder: _Coder, data: bytes) -> Iterator[bytes]:
    try:
        for start in range(0, len(data), _SALVAGE_STEP):
            yield from coder.pieces(data[start : start + _SALVAGE_STEP])
    except _DAMAGE:
        return


_SALVAGE_STEP: Final = 64

_GZIP: Final = 31  # window bits, as zlib counts them: a gzip member
_ZLIB: Final = 15
_RAW: Final = -15


def _gzip(pieces: Iterator[bytes], faults: Faults) -> Iterator[bytes]:
    """Every member of a gzip file (RFC 1952)."""
    return _members(pieces, faults, "gzip", b"\x1f\x8b", lambda: _Inflater(_GZIP))


def _zstd(pieces: Iterator[bytes], faults: Faults) -> Iterator[bytes]:
    """Every frame of a zstd stream (RFC 8878 §3)."""
    return _members(pieces, faults, "zstd", _ZSTD_MAGIC, _Zstd)


def _members(
    pieces: Iterator[bytes], faults: Faults, name: str, magic: bytes, make: Callable[[], _Coder]
) -> Iterator[bytes]:
    """Streams one behind the other, each with its magic number. What follows the last is ignored, as browsers do."""
    source = _sliced(pieces)
    data = _at_least(len(magic), source)
    is_first = True
    while data.startswith(magic) or (is_first and magic.startswith(data)):
        try:
            unused = yield from _run(make, data, source, name)
        except _NothingError:
            if is_first:
                break
            return
        is_first = False
        data = _at_least(len(magic), source, unused)
    if is_first:
        yield from _as_it_came(name, data, source, faults)


def _deflate(pieces: Iterator[bytes], faults: Faults) -> Iterator[bytes]:
    """A zlib stream (RFC 1950), as the standard says, or a bare deflate stream (RFC 1951), as some servers send."""
    source = _sliced(pieces)
    data = _at_least(2, source)
    if len(data) >= 2 and data[0] & 0x0F == 8 and int.from_bytes(data[:2], "big") % 31 == 0:
        try:
            yield from _run(lambda: _Inflater(_ZLIB), data, source, "deflate")
        except _NothingError:
            pass
        else:
            return
    yield from _unmarked(lambda: _Inflater(_RAW), data, source, "deflate", faults)


def _br(pieces: Iterator[bytes], faults: Faults) -> Iterator[bytes]:
    """A brotli stream (RFC 7932)."""
    source = _sliced(pieces)
    data = next(source, b"")
    yield from _unmarked(_Brotli, data, source, "br", faults)


def _unmarked(
    make: Callable[[], _Coder], data: bytes, source: Iterator[bytes], name: str, faults: Faults
) -> Iterator[bytes]:
    """A stream without a magic number. Text is none, even where its first bytes happen to decode to something."""
    if not _is_text(data[:64]):
        try:
            yield from _run(make, data, source, name)
        except _NothingError:
            pass
        else:
            return
    yield from _as_it_came(name, data, source, faults)


def _is_text(data: bytes) -> bool:
    """Whether all bytes are printable ASCII or white space; 8 or more coded bytes practically never are."""
    return len(data) >= 8 and all(0x20 <= byte < 0x7F or byte in b"\t\n\f\r" for byte in data)


def _at_least(size: int, source: Iterator[bytes], data: bytes = b"") -> bytes:
    """`data` and slices behind it, until there are `size` bytes or no more come."""
    while len(data) < size:
        more = next(source, b"")
        if not more:
            break
        data = data + more if data else more
    return data


LAYERS: Final[dict[str, Callable[[Iterator[bytes], Faults], Iterator[bytes]]]] = {
    "gzip": _gzip,
    "x-gzip": _gzip,  # RFC 9110 §8.4.1.3
    "deflate": _deflate,
    "br": _br,
    "zstd": _zstd,
}
