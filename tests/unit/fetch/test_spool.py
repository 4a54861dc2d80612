"""Bodies in memory and in files: the same bytes either way, counted while they are held, and nothing left behind."""

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
    """A budget that remembers the most it ever held."""

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
    """Any number of times, in memory up to the threshold and in a file beyond it, whatever the pieces."""
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
    """The usual response comes in one piece, and is not copied."""
    data = bytes(20_000)
    sink = BodySink(100 * KIB)
    sink.write(data)
    body, _ = sink.finish()
    assert body.prefix(100 * KIB) is data
    assert repr(body) == "<BytesBody 20000 bytes>"


def test_a_body_that_comes_in_tiny_pieces_costs_no_more_than_its_bytes() -> None:
    """Kept one by one, pieces of two bytes would take twenty times their size."""
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
    """Nothing written is nothing held, for the raw bytes and for the payload of an empty chunked body."""
    assert BodySink(10).finish() == (EMPTY, EMPTY)
    sink = BodySink(10)
    sink.write(b"0\r\n\r\n")
    sink.write_payload(b"")
    raw, payload = sink.finish()
    assert contents(raw) == b"0\r\n\r\n"
    assert payload is EMPTY


def test_raw_and_payload_are_told_apart_from_the_first_payload_on(tmp_path: Path) -> None:
    """Each goes to a file by its own size."""
    sink = BodySink(10, str(tmp_path))
    sink.write(b"5\r\nhello\r\n0\r\n\r\n")
    sink.write_payload(b"hello")
    raw, payload = sink.finish()
    assert (contents(raw), contents(payload)) == (b"5\r\nhello\r\n0\r\n\r\n", b"hello")
    assert isinstance(raw, SpoolBody)
    assert isinstance(payload, BytesBody)


def test_the_budget_is_charged_from_arrival_to_the_last_reference() -> None:
    """A body in memory counts while somebody holds it, not only until it is finished."""
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
    """Once it is spooled only what is gathered for the next write is counted, and at the end nothing."""
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
    """Budget and descriptor return at once, and a second discard, or a late one, harms nothing."""
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
    """What was handed out belongs to whoever holds it."""
    ledger = Ledger()
    sink = BodySink(100 * KIB, str(tmp_path), ledger)
    sink.write(bytes(size))
    body, _ = sink.finish()
    sink.discard()
    assert contents(body) == bytes(size)
    assert ledger.held == (size if size < 100 * KIB else 0)


def test_a_sink_that_is_dropped_unfinished_leaves_nothing(tmp_path: Path) -> None:
    """A cancelled exchange may just forget its sink."""
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
    """Nothing shows in the folder, and the descriptor is closed, without a warning, when the body is dropped."""
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
    """Reads are by offset: no reader moves another's place."""
    data = random.Random(2).randbytes(3 * 1024 * KIB + 5)
    sink = BodySink(10, str(tmp_path))
    sink.write(data)
    body, _ = sink.finish()
    with ThreadPoolExecutor(4) as threads:
        assert all(threads.map(lambda _: contents(body) == data, range(16)))


def test_a_spool_file_cut_by_someone_else_is_an_error_not_an_endless_read(tmp_path: Path) -> None:
    """Fewer bytes than were written is an I/O error."""
    with (tmp_path / "spool").open("w+b") as file:
        file.write(b"abc")
        file.flush()
        body = SpoolBody(os.dup(file.fileno()), 5)
    with pytest.raises(OSError, match="ends at 3 of 5 bytes") as caught:
        contents(body)
    assert caught.value.errno == errno.EIO


def test_a_folder_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    """The error reaches the writer; discarding afterwards leaves the budget as it was."""
    ledger = Ledger()
    sink = BodySink(10, str(tmp_path / "missing"), ledger)
    sink.write(b"12345")
    with pytest.raises(FileNotFoundError):
        sink.write(bytes(6))
    sink.discard()
    assert ledger.held == 0


def test_a_full_disk_is_said_and_the_descriptor_given_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Short writes are carried on until the error comes, and the error reaches the writer."""
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
