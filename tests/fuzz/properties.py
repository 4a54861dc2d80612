"""What must hold for any bytes at all, of the response reader and of the decoder: the fuzzers' targets, as functions.

They know nothing of the fuzzer. Each takes what it was given apart (how to split, which coding) and the bytes proper,
and raises AssertionError, or whatever the code under test raised, where something does not hold. `pack_*` makes the
input that leads to given bytes: so seeds, and crashes, can be written down as rows of a table.
"""

import gzip
import zlib
from collections.abc import Iterator, Sequence
from typing import Final

from crawler.content.decode import Decoded, decode
from crawler.core.body import BytesBody
from crawler.fetch.options import FetchOptions
from tests.support.responses import Reading, read, single_bytes, split_at

LIMITS: Final = FetchOptions(max_head=2_000, max_fields=40, max_informational=3, max_body=3_000, max_trailers=200)
_ENDS: Final = (None, True, False)

CODINGS: Final = (("gzip",), ("deflate",), ("br",), ("zstd",), ("gzip", "gzip"), ("br, zstd",), ("deflate", "gzip"))
KEEP: Final = 10_000
MAX_DECODED: Final = 4 * 1024 * 1024
MAX_EXPANSION: Final = 100
_FREE: Final = 1024 * 1024


def pack_response(data: bytes, *, eof: bool | None = None, places: Sequence[int] = (7, 40)) -> bytes:
    """The input that makes `check_response` read `data`."""
    return bytes((_ENDS.index(eof), places[0] % 256, places[1] % 256)) + data


def check_response(given: bytes) -> Reading | None:
    """Read a response whole, in pieces and byte by byte. Returns the reading, for those who want to look at it."""
    if len(given) < 3:
        return None
    eof, data = _ENDS[given[0] % 3], given[3:]
    whole = read([data], eof=eof, limits=LIMITS)
    expected = whole.independent_of_pieces()
    places = [place * (len(data) + 1) // 256 for place in given[1:3]]
    assert expected == read(split_at(data, *places), eof=eof, limits=LIMITS).independent_of_pieces()
    if len(data) <= 400:
        assert expected == read(single_bytes(data), eof=eof, limits=LIMITS).independent_of_pieces()
    _check_reading(whole, data)
    return whole


def _check_reading(reading: Reading, data: bytes) -> None:
    words = reading.words
    assert len(reading.raw_head) <= LIMITS.max_head
    assert len(reading.raw_body) <= LIMITS.max_body
    assert len(reading.payload) <= len(reading.raw_body)
    assert ("protocol_error" in words) == (reading.error is not None)
    if reading.head is None:
        assert not reading.raw_body
        return
    # the record is a piece of what came, in one run (but for what a faulty split may add)
    if reading.error is None:
        assert reading.raw_head + reading.raw_body in data
    if "reusable" in words:
        # what a connection is reused after is a response that anybody reads alike: alone, it is the same again
        assert words == {"reusable"}
        again = read([reading.raw_head + reading.raw_body], limits=LIMITS)
        assert (again.words, again.payload, again.head) == (words, reading.payload, reading.head)
        assert data.endswith(reading.raw_head + reading.raw_body)


class _Pieces:
    """A body that comes in pieces of one size, as from a spool file."""

    def __init__(self, data: bytes, step: int) -> None:
        self._data, self._step = data, step

    @property
    def size(self) -> int:
        return len(self._data)

    def prefix(self, limit: int) -> bytes:
        return self._data[:limit]

    def chunks(self) -> Iterator[bytes]:
        for start in range(0, len(self._data), self._step):
            yield self._data[start : start + self._step]


def pack_coded(data: bytes, codings: Sequence[str], *, step: int = 5) -> bytes:
    """The input that makes `check_coded` decode `data`."""
    return bytes((CODINGS.index(tuple(codings)), step)) + data


def check_coded(given: bytes) -> Decoded | None:
    """Decode under one of CODINGS, from memory and in pieces: the same comes out, within its limits, and as zlib has
    it.
    """
    if len(given) < 2:
        return None
    codings, step, data = CODINGS[given[0] % len(CODINGS)], given[1] or 1, given[2:]
    found = decode(BytesBody(data), codings, keep=KEEP, max_decoded=MAX_DECODED, max_expansion=MAX_EXPANSION)
    pieces = decode(_Pieces(data, step), codings, keep=KEEP, max_decoded=MAX_DECODED, max_expansion=MAX_EXPANSION)
    for one in (found, pieces):
        assert len(one.data) == min(KEEP, one.size)
        assert one.size <= max(min(MAX_DECODED, max(_FREE, MAX_EXPANSION * len(data))), len(data))
        assert (one.fault is None) == (one.error is None or one.bomb)
    assert found == pieces
    if codings == ("gzip",):
        _check_against_zlib(data, found)
    return found


def _check_against_zlib(data: bytes, found: Decoded) -> None:
    try:
        whole = gzip.decompress(data)
    except (OSError, EOFError, zlib.error):
        return
    if data and not found.bomb:
        assert found.data == whole[:KEEP]
        assert found.size == len(whole)
