"""Content codings: a `Layer` decodes one coding of one body, and pulls its input from the layer below.

A layer reads at most SLICE bytes at a time. Invariant: its output and its faults depend on the bytes alone, not on how
they are cut into pieces. A library returns nothing from the call in which it meets damage, so that call is repeated in
smaller steps: the layer has the whole body read anew (`RestartDecoding`). A sound body costs nothing more.
"""

from collections.abc import Callable, Iterator
from typing import Final, Protocol, cast

import brotli
import zstandard
from isal import igzip_lib, isal_zlib

from crawler.core.enums import CodingFault

PIECE: Final = 256 * 1024  # decoded bytes of one piece
MAX_WINDOW: Final = 8 * 1024 * 1024  # RFC 8878 §3.1.1.1.2, required of HTTP by RFC 9659


_GZIP: Final = 31  # window bits, as zlib counts them: a gzip member
ZLIB: Final = 15
RAW: Final = -15
_GZIP_FIXED: Final = 10  # bytes of the fixed part of a header
_FHCRC, _FEXTRA, _FNAME, _FCOMMENT, _RESERVED = 0x02, 0x04, 0x08, 0x10, 0xE0
MAX_GZIP_HEADER: Final = 80_000  # the extra field has up to 65,535 bytes; a file name is short
SLICE: Final = 64 * 1024  # coded bytes read at a time
LEAST_SLICE: Final = 256
STEPS: Final = {SLICE: 256, 256: 1}  # the call that met damage is repeated in steps of this size
_MAGIC: Final = 4  # bytes of the longest magic number
_SNIFFED: Final = 64  # bytes that show whether a stream without a magic number is coded


class _DamageError(Exception):
    """Damage found by a decoder of ours, as DAMAGE of the libraries."""


class BrokenError(Exception):
    """A coding ends early or is damaged, after it had output. `fault` is TRUNCATED or DAMAGED."""

    def __init__(self, fault: CodingFault, message: str) -> None:
        super().__init__(message)
        self.fault = fault


class RestartDecoding(Exception):
    """The body has to be read anew, now in another way. All output will come again."""


# -- coded streams


class Coder(Protocol):
    """A coded stream that is being read. At its end `finished` is set, and `unused` is what it was fed beyond that."""

    finished: bool
    unused: bytes

    def pieces(self, data: bytes) -> Iterator[bytes]:
        """Decode a slice. Yields pieces that are not empty. Raises one of DAMAGE."""


class Inflater:
    """A deflate stream, bare or in the format of zlib or gzip."""

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
            if len(piece) < PIECE:  # below the limit: it needs more data
                return


class Gzip(Inflater):
    """A member of a gzip file (RFC 1952 §2.3). The library gets the header in one piece: it fails if a header with
    several optional parts is cut.
    """

    def __init__(self) -> None:
        super().__init__(_GZIP)
        self._header: bytes | None = b""  # its bytes so far; None: it was passed on

    def pieces(self, data: bytes) -> Iterator[bytes]:
        if self._header is not None:
            data = self._header + data
            if not _has_gzip_header(data):
                self._header = data
                return
            self._header = None
        yield from super().pieces(data)


def _has_gzip_header(data: bytes) -> bool:
    """Whether the header is complete. Raises _DamageError for an invalid one."""
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
    """A brotli stream (RFC 7932). Its limit on output is soft: about 1.5 times as much may come.

    The library asks for more data while it still has output. It returns that when it is given no data.
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

    The library has no limit on output, so it is fed one block at a time: a block has at most 128 KiB (§3.1.1.2.4).
    """

    def __init__(self, decompressor: zstandard.ZstdDecompressor) -> None:
        self._stream = decompressor.decompressobj()
        self._held = b""
        self._inside = 0  # bytes of the current item that the library has not got yet
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
        """The length of the frame header, block or checksum at `start`; 0: more data is needed to know it."""
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


class SkippableFrame:
    """A skippable frame of zstd (RFC 8878 §3.1.2), which has no content."""

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


# -- layers


class _Input:
    """Coded bytes, to be peeked at and taken. An error of the layer below is raised after all its output is taken."""

    def __init__(self, pieces: Iterator[bytes], narrow_from: int | None, step: int) -> None:
        """From byte `narrow_from` on at most `step` bytes are taken at a time."""
        self._pieces = pieces
        self._narrow_from = narrow_from
        self._step = step
        self._held = b""
        self._at = 0  # in `_held`
        self._error: BrokenError | None = None
        self._limit = SLICE
        self.position = 0

    def peek(self, size: int) -> bytes:
        """The next `size` bytes, or all that are left, without taking them."""
        while len(self._held) - self._at < size and self._error is None:
            try:
                more = next(self._pieces, b"")
            except BrokenError as error:
                self._error = error
                break
            if not more:
                break
            self._held = self._held[self._at :] + more if self._at < len(self._held) else more
            self._at = 0
        return self._held[self._at : self._at + size]

    def take(self) -> bytes:
        """A slice; b"" at the end."""
        if not self.peek(1) and self._error is not None:
            raise self._error
        size = self._limit
        if self._narrow_from is not None:
            before = self._narrow_from - self.position
            size = self._step if before <= 0 else min(before, size)
        self._limit = min(SLICE, 2 * self._limit)
        piece = self._held[self._at : self._at + size]
        self._at += len(piece)
        self.position += len(piece)
        return piece

    def put_back(self, size: int) -> None:
        """Put back the last `size` bytes of the last slice. They are taken in small slices at first, since one slice
        may have thousands of members.
        """
        if size:
            self._limit = LEAST_SLICE
        self._at -= size
        self.position -= size


_Maker = Callable[[], Coder]
_Form = Callable[[bytes], _Maker | None]  # the decoder of a stream with this beginning; None: it has another form


def _gzip_form(head: bytes) -> _Maker | None:
    """A member of a gzip file (RFC 1952)."""
    return Gzip if _begins(head, b"\x1f\x8b") else None


def _zstd_form() -> _Form:
    """A frame of a zstd stream (RFC 8878 §3). All frames of a body share one decompressor."""
    decompressor = zstandard.ZstdDecompressor(max_window_size=MAX_WINDOW)

    def form(head: bytes) -> _Maker | None:
        if _begins(head, b"\x28\xb5\x2f\xfd"):
            return lambda: Zstd(decompressor)
        if len(head) >= 4 and head[0] & 0xF0 == 0x50 and head[1:4] == b"\x2a\x4d\x18":
            return SkippableFrame
        return None

    return form


def _zlib_form(head: bytes) -> _Maker | None:
    """A zlib stream (RFC 1950), the meaning of "deflate"."""
    is_zlib = len(head) >= 2 and head[0] & 0x0F == 8 and int.from_bytes(head[:2], "big") % 31 == 0
    return (lambda: Inflater(ZLIB)) if is_zlib else None


def _raw_form(head: bytes) -> _Maker | None:
    """A bare deflate stream (RFC 1951), which some servers send. Text is none, even if it can be decoded."""
    return None if _is_text(head[:_SNIFFED]) else lambda: Inflater(RAW)


def _brotli_form(head: bytes) -> _Maker | None:
    """A brotli stream (RFC 7932)."""
    return None if _is_text(head[:_SNIFFED]) else Brotli


def _begins(head: bytes, magic: bytes) -> bool:
    return head.startswith(magic) or (bool(head) and magic.startswith(head))


def _is_text(data: bytes) -> bool:
    """Whether bytes are UTF-8 or mostly ASCII, without control characters. 8 or more coded bytes practically never
    are.
    """
    if len(data) < 8 or any(byte < 0x20 and byte not in b"\t\n\f\r" for byte in data):
        return False
    if len(data) >= 32 and 4 * sum(byte < 0x7F for byte in data) >= 3 * len(data):
        return True
    try:
        data.decode()
    except UnicodeDecodeError as error:
        return len(data) == _SNIFFED and error.reason == "unexpected end of data"  # a character is cut
    return b"\x7f" not in data


# Coding → the forms to try one after the other, and whether several streams may follow each other.
_FORMS: Final[dict[str, tuple[Callable[[], tuple[_Form, ...]], bool]]] = {
    "gzip": (lambda: (_gzip_form,), True),
    "x-gzip": (lambda: (_gzip_form,), True),  # RFC 9110 §8.4.1.3
    "deflate": (lambda: (_zlib_form, _raw_form), False),
    "br": (lambda: (_brotli_form,), False),
    "zstd": (lambda: (_zstd_form(),), True),
}
NAMES: Final = frozenset(_FORMS)


class Layer:
    """One coding of one body. `not_coded`: the bytes do not have this coding and pass unchanged. `trailing`: there are
    bytes after the end of the coding, which are ignored as in browsers. Both apply to what was read so far.
    """

    def __init__(self, name: str) -> None:
        """`name` is one of NAMES."""
        self.name = name
        self.not_coded = False
        self.trailing = False
        make_forms, self._has_members = _FORMS[name]
        self._forms = make_forms()
        self._form = 0
        self._narrow_from: int | None = None  # begin of the call that met damage, to be repeated in steps of `_step`
        self._step = SLICE

    def read(self, pieces: Iterator[bytes]) -> Iterator[bytes]:
        """The output from the beginning. Raises BrokenError after the output before the damage, and RestartDecoding."""
        source = _Input(pieces, self._narrow_from, self._step)
        make = self._maker(source.peek(_SNIFFED))
        if make is None:
            yield from iter(source.take, b"")
            return
        given = False
        while make is not None:
            coder = make()
            while not coder.finished:
                at = source.position
                data = source.take()
                if not data:
                    raise BrokenError(CodingFault.TRUNCATED, f"{self.name} ends early")
                try:
                    for piece in coder.pieces(data):
                        given = True
                        yield piece
                except DAMAGE as damage:
                    self._retry(at, len(data), given)
                    raise BrokenError(CodingFault.DAMAGED, f"{self.name} is damaged: {damage}") from None
            source.put_back(len(coder.unused))
            make = self._forms[self._form](source.peek(_MAGIC)) if self._has_members else None
        self.trailing = bool(source.take())

    def _maker(self, head: bytes) -> _Maker | None:
        """The decoder of a body with this beginning; None: it is empty or not coded, and passes unchanged."""
        while head and self._form < len(self._forms):
            make = self._forms[self._form](head)
            if make is not None:
                return make
            self._form += 1
        self.not_coded = bool(head)
        return None

    def _retry(self, at: int, size: int, given: bool) -> None:
        """A call for `size` bytes at `at` met damage. Raises RestartDecoding if there is another way to read them."""
        if size > 1:
            self._narrow_from, self._step = at, STEPS.get(self._step, 1)
            raise RestartDecoding
        if not given:  # there never was output: the body has another form
            self._form += 1
            self._narrow_from, self._step = None, SLICE
            raise RestartDecoding
