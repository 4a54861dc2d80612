"""What is said of a finished file is what is in it."""

import gzip
import hashlib
import tracemalloc
from pathlib import Path

import pytest

from crawler.sinks.disk import ClosedFile, read_closed_file
from tests.support.sinks import make_record, make_warc


@pytest.mark.parametrize("sizes", [[], [0], [10], [10, 0, 70_000, 3, 200_000]])
def test_members_of_a_warc_are_counted(tmp_path: Path, sizes: list[int]) -> None:
    """A record is a gzip member, wherever the pieces it is read in begin."""
    data = b"".join(gzip.compress(bytes(n % 251 for n in range(size)), mtime=0) for size in sizes)
    path = tmp_path / "x.warc.gz"
    path.write_bytes(data)
    assert read_closed_file(path) == ClosedFile(len(data), len(sizes), hashlib.sha256(data).hexdigest())


def test_lines_of_pages_are_counted(tmp_path: Path) -> None:
    """A record of pages/ is a line."""
    path = tmp_path / "x.jsonl"
    path.write_bytes(b"{}\n" * 20_000)
    assert read_closed_file(path).records == 20_000


def test_a_file_that_was_moved_away_is_an_error(tmp_path: Path) -> None:
    """The caller decides that it does not matter."""
    with pytest.raises(FileNotFoundError):
        read_closed_file(tmp_path / "gone.warc.gz")


def test_what_inflates_hugely_is_counted_in_little_memory(tmp_path: Path) -> None:
    """Members of one letter, a thousand times as large inside: they are inflated piece by piece."""
    path = tmp_path / "a.warc.gz"
    path.write_bytes(gzip.compress(bytes(40_000_000)) * 2 + gzip.compress(b""))
    tracemalloc.start()
    found = read_closed_file(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert found.records == 3
    assert peak < 4_000_000


def test_the_sink_counts_what_is_in_the_file(tmp_path: Path) -> None:
    """What a reset took out does not count; whoever goes on with an earlier process's file does not know."""
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
