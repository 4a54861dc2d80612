"""Names of output files, and the calls to the disk."""

from pathlib import Path

import pytest

from crawler.core.models import PageInfo
from crawler.sinks.disk import FileName, Naming, archive_files
from tests.support.faulty_disk import FaultyDisk
from tests.support.sinks import make_pages, make_record, make_warc

STEM = "crawl-20261123090000-00007.warc.gz"


@pytest.mark.parametrize(
    ("entry", "parsed"),
    [
        (STEM, FileName(STEM, 7, "")),
        (f"{STEM}.open", FileName(STEM, 7, "open")),
        (f"{STEM}.orphan", FileName(STEM, 7, "orphan")),
        (f"{STEM}.orphan.12", FileName(STEM, 7, "orphan")),
        (f"{STEM}.part", FileName(STEM, 7, "part")),
        ("my-news-2-20261123090000-123456.warc.gz", FileName("my-news-2-20261123090000-123456.warc.gz", 123456, "")),
        ("crawl-20261123090000-00007.jsonl", None),
        ("crawl-20261123-00007.warc.gz", None),
        ("crawl-20261123090000-7.warc.gz", None),
        ("crawl-20261123090000-00007xwarc.gz", None),
        (f"{STEM}.opened", None),
        (f"{STEM}.sha256", None),
        ("", None),
    ],
)
def test_names_are_recognised(entry: str, parsed: FileName | None) -> None:
    """A name has any prefix, 14 digits of time, a serial of at least 5 digits and the sink's extension."""
    assert Naming("crawl", "warc.gz").parse(entry) == parsed


def test_an_archive_is_found_by_its_names(tmp_path: Path) -> None:
    """Complete and open files; no orphans, empty files or files of others."""
    (tmp_path / "warc").mkdir()
    (tmp_path / "pages").mkdir()
    assert list(archive_files(tmp_path)) == []
    for name in (STEM, STEM.replace("07", "08") + ".open", f"{STEM}.orphan", f"{STEM}.part", "notes.txt"):
        (tmp_path / "warc" / name).write_bytes(b"x")
    (tmp_path / "warc" / STEM.replace("07", "09")).touch()
    (tmp_path / "pages" / "crawl-20261123090000-00000.jsonl").write_bytes(b"{}\n")
    found = [path.relative_to(tmp_path).as_posix() for path in archive_files(tmp_path)]
    assert found == [f"warc/{STEM}", f"warc/{STEM.replace('07', '08')}.open", "pages/crawl-20261123090000-00000.jsonl"]


def test_a_generated_name_is_recognised() -> None:
    """Its time is UTC."""
    name = Naming("a.b-c", "jsonl").make(100_000, 0.0)
    assert name == "a.b-c-19700101000000-100000.jsonl"
    assert Naming("a.b-c", "jsonl").parse(name) == FileName(name, 100_000, "")


def test_a_batch_is_one_write_and_one_sync(tmp_path: Path) -> None:
    """For any number of records."""
    disk = FaultyDisk()
    calls: list[str] = []

    def note(number: int, name: str) -> None:
        calls.append(name)

    disk.fails = note
    page = PageInfo()
    records = [make_record(f"https://example.org/{n}", page=page) for n in range(100)]
    for sink in (make_warc(tmp_path, disk=disk), make_pages(tmp_path, disk=disk)):
        sink.open([])
        for _ in range(2):
            calls.clear()
            sink.write(records, [None] * 100)
            sink.sync()
            sink.committed()
        assert calls == ["write", "sync"]
        sink.close()


def test_a_write_that_is_taken_in_pieces_is_completed(tmp_path: Path) -> None:
    """The system may write less than requested without an error."""

    class Slow(FaultyDisk):
        def write(self, descriptor: int, data: memoryview) -> int:
            return super().write(descriptor, data[:100])

    sink = make_pages(tmp_path, disk=Slow())
    sink.open([])
    sink.write([make_record(f"https://example.org/{n}", page=PageInfo()) for n in range(20)], [None] * 20)
    [file] = sink.sync()
    data = (tmp_path / "pages" / f"{file.name}.open").read_bytes()
    assert (len(data), data.count(b"\n")) == (file.committed_bytes, 20)


def test_a_start_that_failed_may_be_repeated(tmp_path: Path) -> None:
    """If the disk fails during recovery, another try succeeds, and no descriptor stays open."""
    sink = make_warc(tmp_path)
    sink.open([])
    sink.write([make_record()], [None])
    known = sink.sync()
    sink.committed()
    torn = tmp_path / "warc" / f"{known[0].name}.open"
    with torn.open("ab") as stream:
        stream.write(b"torn")
    disk = FaultyDisk()
    again = make_warc(tmp_path, disk=disk)
    disk.fails = lambda number, name: OSError("broken") if name == "truncate" else None
    with pytest.raises(OSError, match="broken"):
        again.open(known)
    disk.fails = lambda number, name: None
    assert again.open(known) == []
    assert disk.open_descriptors == 1
    assert torn.stat().st_size == known[0].committed_bytes
    [closed] = again.close()
    assert closed.committed_bytes == known[0].committed_bytes
    assert disk.open_descriptors == 0


def test_a_new_folder_is_made_durable(tmp_path: Path) -> None:
    """Its own name too, since its files are lost with it."""

    class Watched(FaultyDisk):
        def __init__(self) -> None:
            super().__init__()
            self.folders: list[Path] = []

        def sync_folder(self, folder: Path) -> None:
            self.folders.append(folder)
            super().sync_folder(folder)

    disk = Watched()
    make_warc(tmp_path, disk=disk).open([])
    assert disk.folders == [tmp_path, tmp_path / "warc"]
