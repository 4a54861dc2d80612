"""Servers that never stop: each kind of byte ends at its limit, in little memory and linear time."""

import sys
import time
import tracemalloc
from collections.abc import Callable
from itertools import chain, repeat

import pytest

from crawler.core.enums import TruncatedReason
from crawler.fetch.http1.message import RemoteProtocolError
from crawler.fetch.http1.wire import ResponseReader
from crawler.fetch.options import FetchOptions
from crawler.fetch.spool import BodySink
from tests.support.responses import read, single_bytes

MIB = 1024 * 1024
OK = b"HTTP/1.1 200 OK\r\n"
CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n"
LIMITS = FetchOptions()
LINES = b"a: b\r\n" * 10_000


class Flood:
    """`start`, then `forever` repeated for 80 MiB. `taken`: the bytes read; `peak`: the most memory."""

    def __init__(self, start: bytes, forever: bytes) -> None:
        self.start = start
        self.forever = forever
        self.taken = 0
        self.peak = 0

    def pour(self, reader: ResponseReader) -> None:
        tracemalloc.start()
        try:
            for piece in chain([self.start], repeat(self.forever, 80 * MIB // len(self.forever))):
                reader.feed(piece)
                self.taken += len(piece)
                if reader.complete:
                    return
        finally:
            self.peak = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()


@pytest.mark.parametrize(
    ("start", "forever", "cap", "message"),
    [
        (OK + b"A: ", b"b" * 65_536, LIMITS.max_head, "the head is over 307200 bytes"),
        (OK, LINES, LIMITS.max_head, "the head is over 307200 bytes"),
        (OK, b"a:" * 30_000, LIMITS.max_head, "the head is over 307200 bytes"),
        (OK + b"A: b\r\n", b" c\r\n" * 10_000, LIMITS.max_head, "the head is over 307200 bytes"),
        (b"", b"HTTP/1.1 100 Continue\r\n\r\n" * 200_000, 0, "over 8 informational responses"),
        (b"", b"\r\n" * 32_768, 0, "not an HTTP/1 response"),
        (b"", b"\x00" * 65_536, 0, "not an HTTP/1 response"),
        (CHUNKED, b"0" * 65_536, LIMITS.max_chunk_line, "a chunk's size line is over 4096 bytes"),
        (CHUNKED + b"5;a=", b"b" * 65_536, LIMITS.max_chunk_line, "a chunk's size line is over 4096 bytes"),
        (CHUNKED + b"5;", b"a;" * 32_768, LIMITS.max_chunk_line, "a chunk's size line is over 4096 bytes"),
        (CHUNKED + b"5 ", b" " * 65_536, LIMITS.max_chunk_line, "a chunk's size line is over 4096 bytes"),
        (CHUNKED + b"0\r\n", LINES, LIMITS.max_trailers, "trailers over 8192 bytes"),
        (CHUNKED + b"0\r\nA: ", b"b" * 65_536, LIMITS.max_trailers, "trailers over 8192 bytes"),
        (CHUNKED + b"0\r\nA: b\r\n", b" c\n" * 20_000, LIMITS.max_trailers, "trailers over 8192 bytes"),
    ],
)
def test_a_flood_ends_at_its_limit(start: bytes, forever: bytes, cap: int, message: str) -> None:
    """No piece beyond the limit is read, and memory is bounded by the limit and some pieces."""
    flood = Flood(start, forever)
    with pytest.raises(RemoteProtocolError, match=message):
        flood.pour(ResponseReader(LIMITS, BodySink(MIB)))
    assert flood.taken <= cap + len(start) + len(forever)
    assert flood.peak < 2 * MIB + len(forever)


BLOCK = b"x" * 65_536


@pytest.mark.parametrize(
    ("start", "forever"),
    [
        (OK + b"\r\n", BLOCK),
        (OK + b"Content-Length: 9223372036854775807\r\n\r\n", BLOCK),
        (CHUNKED, b"10000\r\n" + BLOCK + b"\r\n"),
        (CHUNKED + b"7fffffffffffffff\r\n", BLOCK),
    ],
)
def test_an_endless_body_is_cut_at_the_limit_and_kept(start: bytes, forever: bytes) -> None:
    """max_body bytes are kept and marked; a length that the server announces allocates nothing."""
    sink = BodySink(MIB)
    reader = ResponseReader(FetchOptions(max_body=4 * MIB), sink)
    flood = Flood(start, forever)
    flood.pour(reader)
    assert (reader.truncated, reader.error_type, reader.reusable) == (TruncatedReason.LENGTH, None, False)
    raw, payload = sink.finish()
    assert raw.size == 4 * MIB
    assert payload.size > 3.9 * MIB
    assert flood.peak < 4 * MIB


HOSTILE = {
    "head of one field": OK + b"A: " + b"b" * 280_000 + b"\r\nContent-Length: 0\r\n\r\n",
    "head of 4,000 fields": OK + b"a: b\r\n" * 4_000 + b"Content-Length: 0\r\n\r\n",
    "head of 4,000 folds": OK + b"a: b\r\n" + b" c\r\n" * 4_000 + b"Content-Length: 0\r\n\r\n",
    "head of colons": OK + b"a:" + b":" * 280_000 + b"\r\nContent-Length: 0\r\n\r\n",
    "head of spaces": OK + b"a:" + b" " * 280_000 + b"\x01\r\nContent-Length: 0\r\n\r\n",
    "length said 4,000 times": OK + b"Content-Length: 0\r\n" * 4_000 + b"\r\n",
    "Connection of commas": OK + b"Connection: " + b"," * 280_000 + b"\r\nContent-Length: 0\r\n\r\n",
    "Keep-Alive of almosts": OK + b"Keep-Alive: " + b"timeout =" * 30_000 + b"\r\nContent-Length: 0\r\n\r\n",
    "Keep-Alive of spaces": OK + b"Keep-Alive: timeout" + b" " * 280_000 + b"x\r\nContent-Length: 0\r\n\r\n",
    "chunks of one byte": CHUNKED + b"1\r\nx\r\n" * 43_000 + b"0\r\n\r\n",
    "chunks of one byte, extended": CHUNKED + b"1;a\r\nx\r\n" * 32_000 + b"0\r\n\r\n",
    "chunks of one byte, padded": CHUNKED + b"1 \r\nx\r\n" * 37_000 + b"0\r\n\r\n",
    "chunks with long extensions": CHUNKED + (b"1;" + b"a" * 4_000 + b"\r\nx\r\n") * 16 + b"0\r\n\r\n",
    "chunks with quotes": CHUNKED + (b'1;a="' + b"\\a" * 2_000 + b"\r\nx\r\n") * 16 + b"0\r\n\r\n",
}


def quickest_s(act: Callable[[], object]) -> float:
    """The least CPU time of five runs: a busy machine only ever adds to it."""
    spent = []
    for _ in range(5):
        before = time.thread_time()
        act()
        spent.append(time.thread_time() - before)
    return min(spent)


@pytest.mark.skipif(sys.gettrace() is not None, reason="times mean nothing while every line is traced")
@pytest.mark.parametrize("data", HOSTILE.values(), ids=HOSTILE.keys())
def test_hostile_responses_take_no_longer_than_a_callback_may(data: bytes) -> None:
    """In one piece, the most expensive response within the limits takes less than 50 ms, more on a slower machine."""
    reading = read([data])
    assert reading.error is None
    assert reading.words - {"tainted"} <= {"reusable"}
    slowness = quickest_s(lambda: sum(n & 1 for n in range(250_000))) / 0.012  # where the 50 ms were laid down
    assert quickest_s(lambda: read([data])) < 0.05 * max(1.0, slowness)


@pytest.mark.parametrize("name", ["head of one field", "head of 4,000 folds", "chunks with long extensions"])
def test_single_bytes_take_linear_time(name: str) -> None:
    """A quadratic reader would take minutes for these, a linear one takes less than a second."""
    before = time.thread_time()
    reading = read(single_bytes(HOSTILE[name]))
    assert reading.error is None
    assert time.thread_time() - before < 5


@pytest.mark.parametrize("piece", [1, 7, 4_096, 1 << 20])
def test_a_body_of_too_many_chunks_is_cut_after_the_last_allowed(piece: int) -> None:
    """However its bytes are split: what came is kept and marked, and the connection is not used again."""
    limits = FetchOptions(max_chunks=100)
    sink = BodySink(MIB)
    reader = ResponseReader(limits, sink)
    stream = CHUNKED + b"".join(b"1\r\n%c\r\n" % (97 + n % 26) for n in range(300))
    for at in range(0, len(stream), piece):
        reader.feed(stream[at : at + piece])
        if reader.complete:
            break
    _, payload = sink.finish()
    assert payload.prefix(1_000) == bytes(97 + n % 26 for n in range(100))
    assert (reader.truncated, reader.error_type) == (TruncatedReason.LENGTH, None)
    assert not reader.reusable


def test_the_greatest_number_of_chunks_is_no_fault() -> None:
    """The last chunk does not count."""
    sink = BodySink(MIB)
    reader = ResponseReader(FetchOptions(max_chunks=100), sink)
    reader.feed(CHUNKED + b"1\r\nx\r\n" * 100 + b"0\r\n\r\n")
    assert reader.reusable
    assert sink.finish()[1].size == 100
