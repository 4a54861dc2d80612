"""The logged figures of finished files."""

import gzip
import hashlib
import tracemalloc
from pathlib import Path

import pytest

from crawler.sinks.disk import ClosedFile, read_closed_file
from tests.support.sinks import make_record, make_warc


@pytest.mark.parametrize("sizes", [[], [0], [10], [10, 0, 70_000, 3, 200_000]])
def test_members_of_a_warc_are_counted(tmp_path: Path, sizes: list[int]) -> None:
    """A record is a gzip member, however the file is read in pieces."""
    data = b"".join(gzip.compress(bytes(n % 251 for n in range(size)), mtime=0) for size in sizes)
    path = tmp_path / "x.warc.gz"
    path.write_bytes(data)
    assert read_closed_file(path) == ClosedFile(len(data), len(sizes), hashlib.sha256(data).hexdigest())


def test_lines_of_pages_are_counted(tmp_path: Path) -> None:
    """In pages/ a record is a line."""
    path = tmp_path / "x.jsonl"
    path.write_bytes(b"{}\n" * 20_000)
    assert read_closed_file(path).records == 20_000


def test_a_file_that_was_moved_away_is_an_error(tmp_path: Path) -> None:
    """The caller may ignore it."""
    with pytest.raises(FileNotFoundError):
        read_closed_file(tmp_path / "gone.warc.gz")


def test_highly_compressed_members_are_counted_in_little_memory(tmp_path: Path) -> None:
    """Members that inflate to a thousand times their size are inflated piece by piece."""
    path = tmp_path / "a.warc.gz"
    path.write_bytes(gzip.compress(bytes(40_000_000)) * 2 + gzip.compress(b""))
    tracemalloc.start()
    found = read_closed_file(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert found.records == 3
    assert peak < 4_000_000


def test_the_sink_counts_its_records(tmp_path: Path) -> None:
    """Records that a reset removed do not count; for a file of an earlier process the number is unknown."""
    sink = make_warc(tmp_path)
    sink.open([])
    for committed in (True, False, True):
        sink.write([make_record("https://example.org/x")], [None])
        kept = sink.sync()
        if committed:
            sink.committed()
        else:
            sink.reset()
    again = make_warc(tmp_path)
    again.open(kept)
    (found,) = again.close()
    assert found.records is None
    (tmp_path / "warc" / found.name).rename(tmp_path / "warc" / f"{found.name}.open")
    (told,) = sink.close()
    path = tmp_path / "warc" / told.name
    # two visits of three records, and a warcinfo before the first and after the reset
    assert told.records == read_closed_file(path).records == 8
    assert read_closed_file(path, told.records) == read_closed_file(path)
