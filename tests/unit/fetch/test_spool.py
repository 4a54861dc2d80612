"""Bodies in memory and in files: the same bytes, counted while they are held, and no remains."""

import errno
import gc
import os
import random
import threading
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from crawler.core.body import EMPTY, Body, BytesBody
from crawler.fetch.spool import BodySink, SpoolBody

KIB = 1024


class Ledger:
    """A budget with a record of its highest value."""

    def __init__(self) -> None:
        self.held = 0
        self.most = 0
        self._lock = threading.RLock()

    def take(self, n: int) -> None:
        assert n > 0
        with self._lock:
            self.held += n
            self.most = max(self.most, self.held)

    def give(self, n: int) -> None:
        assert n > 0
        with self._lock:
            self.held -= n
            assert self.held >= 0


def contents(body: Body) -> bytes:
    return b"".join(body.chunks())


def descriptors() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


SIZES = {
    "one piece": [300],
    "one large piece": [50_000],
    "many small": [10] * 500,
    "many single": [1] * 9_000,
    "large, small, large": [8_000, 3, 9_000, 1, 1, 70_000],
    "small first": [1, 5_000],
    "gathered beyond its buffer": [4_000] * 40,
    "exactly the threshold": [100 * KIB],
    "one byte over": [100 * KIB, 1],
    "over by small pieces": [1_000] * 200,
    "over by large pieces": [64 * KIB] * 5,
    "over in one": [3 * KIB * KIB],
    "small pieces after the file": [120_000] + [7] * 20_000,
    "empty pieces": [0, 5, 0, 120_000, 0],
}


@pytest.mark.parametrize("sizes", SIZES.values(), ids=SIZES.keys())
@pytest.mark.parametrize("counted", [True, False])
def test_what_was_written_is_what_is_read(sizes: list[int], counted: bool, tmp_path: Path) -> None:
    """Any number of times, in memory up to the threshold and in a file above it, for any pieces."""
    ledger = Ledger()
    sink = BodySink(100 * KIB, str(tmp_path), ledger if counted else None)
    source = random.Random(1)
    written = [source.randbytes(size) for size in sizes]
    for piece in written:
        sink.write(piece)
    whole = b"".join(written)
    raw, payload = sink.finish()
    assert raw is payload
    assert isinstance(raw, SpoolBody) == (len(whole) > 100 * KIB)
    assert raw.size == len(whole)
    assert contents(raw) == contents(raw) == whole
    assert max(map(len, raw.chunks())) <= max(1024 * KIB, 100 * KIB)
    for limit in (0, 1, len(whole) - 1, len(whole), len(whole) + 1):
        assert raw.prefix(limit) == whole[:limit]


def test_a_single_piece_is_kept_as_it_is() -> None:
    """A body of one piece, which is usual, is not copied."""
    data = bytes(20_000)
    sink = BodySink(100 * KIB)
    sink.write(data)
    body, _ = sink.finish()
    assert body.prefix(100 * KIB) is data
    assert repr(body) == "<BytesBody 20000 bytes>"


def test_a_body_that_comes_in_tiny_pieces_costs_no_more_than_its_bytes() -> None:
    """A list of pieces of two bytes would take twenty times their size."""
    sink = BodySink(1024 * KIB)
    tracemalloc.start()
    try:
        for n in range(200_000):
            sink.write(n.to_bytes(3)[:2])
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert sink.finish()[0].size == 400_000
    assert peak < 800_000


def test_an_empty_body_is_the_empty_body() -> None:
    """Without bytes no memory is counted, for the raw body and for the payload of an empty chunked body."""
    assert BodySink(10).finish() == (EMPTY, EMPTY)
    sink = BodySink(10)
    sink.write(b"0\r\n\r\n")
    sink.write_payload(b"")
    raw, payload = sink.finish()
    assert contents(raw) == b"0\r\n\r\n"
    assert payload is EMPTY


def test_raw_and_payload_differ_from_the_first_payload_on(tmp_path: Path) -> None:
    """Each goes to a file by its own size."""
    sink = BodySink(10, str(tmp_path))
    sink.write(b"5\r\nhello\r\n0\r\n\r\n")
    sink.write_payload(b"hello")
    raw, payload = sink.finish()
    assert (contents(raw), contents(payload)) == (b"5\r\nhello\r\n0\r\n\r\n", b"hello")
    assert isinstance(raw, SpoolBody)
    assert isinstance(payload, BytesBody)


def test_the_budget_is_charged_from_arrival_to_the_last_reference() -> None:
    """A body in memory counts as long as it is referenced, not only until it is finished."""
    ledger = Ledger()
    sink = BodySink(100 * KIB, None, ledger)
    sink.write(bytes(10_000))
    assert ledger.held == 10_000
    sink.write(b"abc")
    assert ledger.held == 10_003
    body, same = sink.finish()
    del sink
    assert ledger.held == 10_003
    del body
    assert ledger.held == 10_003
    del same
    gc.collect()
    assert ledger.held == 0


def test_a_body_in_a_file_costs_the_budget_little(tmp_path: Path) -> None:
    """Once it is spooled only the bytes of the next write are counted, and at the end none."""
    ledger = Ledger()
    sink = BodySink(100 * KIB, str(tmp_path), ledger)
    for _ in range(40):
        sink.write(bytes(10_000))
        sink.write(bytes(100))
    assert ledger.held <= 100
    body, _ = sink.finish()
    assert ledger.held == 0
    assert ledger.most <= 200 * KIB
    assert body.size == 404_000


@pytest.mark.parametrize("sizes", [[5_000, 10], [200_000, 10], []])
def test_what_is_discarded_is_given_back(sizes: list[int], tmp_path: Path) -> None:
    """Budget and descriptor are given back at once; a second or late discard does nothing."""
    ledger = Ledger()
    before = descriptors()
    sink = BodySink(100 * KIB, str(tmp_path), ledger)
    for size in sizes:
        sink.write(bytes(size))
        sink.write_payload(bytes(size))
    sink.discard()
    sink.discard()
    assert ledger.held == 0
    assert descriptors() == before


@pytest.mark.parametrize("size", [5_000, 200_000])
def test_a_discard_after_finish_leaves_the_bodies_alone(size: int, tmp_path: Path) -> None:
    """Returned bodies belong to the caller."""
    ledger = Ledger()
    sink = BodySink(100 * KIB, str(tmp_path), ledger)
    sink.write(bytes(size))
    body, _ = sink.finish()
    sink.discard()
    assert contents(body) == bytes(size)
    assert ledger.held == (size if size < 100 * KIB else 0)


def test_a_sink_that_is_dropped_leaves_nothing(tmp_path: Path) -> None:
    """A cancelled exchange may drop its sink."""
    ledger = Ledger()
    before = descriptors()
    sink = BodySink(100 * KIB, str(tmp_path), ledger)
    sink.write(bytes(200_000))
    sink.write(bytes(10))
    sink.write_payload(bytes(10))
    assert descriptors() == before + 1
    del sink
    gc.collect()
    assert (ledger.held, descriptors()) == (0, before)


def test_a_spool_file_has_no_name_and_goes_with_its_body(tmp_path: Path) -> None:
    """The folder stays empty, and the descriptor is closed without a warning when the body is dropped."""
    before = descriptors()
    sink = BodySink(10, str(tmp_path))
    sink.write(bytes(1_000))
    assert list(tmp_path.iterdir()) == []
    body, same = sink.finish()
    assert repr(body) == "<SpoolBody 1000 bytes>"
    assert descriptors() == before + 1
    chunks = same.chunks()
    del body, same, sink
    assert b"".join(chunks) == bytes(1_000)
    del chunks
    gc.collect()
    assert descriptors() == before


def test_threads_read_one_spool_file_without_disturbing_each_other(tmp_path: Path) -> None:
    """They read by offset, so no reader moves another's position."""
    data = random.Random(2).randbytes(3 * 1024 * KIB + 5)
    sink = BodySink(10, str(tmp_path))
    sink.write(data)
    body, _ = sink.finish()
    with ThreadPoolExecutor(4) as threads:
        assert all(threads.map(lambda _: contents(body) == data, range(16)))


def test_a_truncated_spool_file_is_an_error(tmp_path: Path) -> None:
    """Fewer bytes than were written is an I/O error."""
    with (tmp_path / "spool").open("w+b") as file:
        file.write(b"abc")
        file.flush()
        body = SpoolBody(os.dup(file.fileno()), 5)
    with pytest.raises(OSError, match="ends at 3 of 5 bytes") as caught:
        contents(body)
    assert caught.value.errno == errno.EIO


def test_an_unwritable_folder_raises(tmp_path: Path) -> None:
    """The error reaches the writer; discarding afterwards leaves the budget as it was."""
    ledger = Ledger()
    sink = BodySink(10, str(tmp_path / "missing"), ledger)
    sink.write(b"12345")
    with pytest.raises(FileNotFoundError):
        sink.write(bytes(6))
    sink.discard()
    assert ledger.held == 0


def test_a_full_disk_raises_and_gives_the_descriptor_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Short writes continue until the error, which reaches the writer."""
    before = descriptors()
    real_write = os.write
    room = 50

    def write(fd: int, data: memoryview) -> int:
        nonlocal room
        if not room:
            raise OSError(errno.ENOSPC, "No space left on device")
        done = real_write(fd, data[:room])
        room -= done
        return done

    monkeypatch.setattr(os, "write", write)
    sink = BodySink(10, str(tmp_path))
    sink.write(bytes(30))
    with pytest.raises(OSError, match="No space left"):
        sink.write(bytes(5_000))
    sink.discard()
    assert descriptors() == before
