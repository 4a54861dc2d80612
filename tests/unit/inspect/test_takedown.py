"""The list of records that a takedown wants removed, made beside a crawl that goes on writing."""

from dataclasses import dataclass
from pathlib import Path

from crawler.inspection.archive.takedown_list import _scan
from tests.support.records import make_record
from tests.support.sinks import make_warc

URL = "https://example.org/x"


@dataclass(frozen=True)
class Host:
    """All of one host."""

    host: str = "example.org"
    url: str | None = None


def written(directory: Path) -> Path:
    """A WARC file with one visit, complete."""
    directory.mkdir()
    sink = make_warc(directory)
    sink.open([])
    sink.write([make_record(URL)], [None])
    sink.sync()
    sink.committed()
    (file,) = sink.close()
    return directory / "warc" / file.name


def test_a_file_that_is_completed_during_the_scan_is_read_under_its_new_name(tmp_path: Path) -> None:
    """Its records are listed like those of the others, and nothing went wrong."""
    folder = tmp_path / "warc"
    folder.mkdir()
    content = written(tmp_path / "made").read_bytes()
    first, second = folder / "a-1.warc.gz", folder / "a-2.warc.gz"
    first.write_bytes(content)
    (folder / "a-2.warc.gz.open").write_bytes(content)
    problems: list[str] = []
    lines = iter(_scan(folder, [Host()], problems, 1.0))
    found = [next(lines)]
    (folder / "a-2.warc.gz.open").rename(second)
    found += lines
    assert [line["warc_file"] for line in found].count(first.name) == 3
    assert [line["warc_file"] for line in found].count(second.name) == 3
    assert problems == []


def test_a_file_that_cannot_be_read_is_told_and_the_others_are_listed(tmp_path: Path) -> None:
    """What is known is not lost over it."""
    folder = tmp_path / "warc"
    folder.mkdir()
    (folder / "a-1.warc.gz").mkdir()
    (folder / "a-2.warc.gz").write_bytes(written(tmp_path / "made").read_bytes())
    problems: list[str] = []
    found = list(_scan(folder, [Host()], problems, 1.0))
    assert [line["warc_file"] for line in found] == ["a-2.warc.gz"] * 3
    assert [problem.partition(": ")[2] for problem in problems] == ["Is a directory"]


def test_files_that_were_set_aside_are_listed_too(tmp_path: Path) -> None:
    """Under the names they have; where a kill cut one off there is nothing wrong."""
    folder = tmp_path / "warc"
    folder.mkdir()
    content = written(tmp_path / "made").read_bytes()
    (folder / "a-1.warc.gz.orphan").write_bytes(content)
    (folder / "a-1.warc.gz.orphan.1").write_bytes(content + content[:50])
    (folder / "a-2.warc.gz.part").write_bytes(content)
    problems: list[str] = []
    found = [line["warc_file"] for line in _scan(folder, [Host()], problems, 1.0)]
    assert found == ["a-1.warc.gz.orphan"] * 3 + ["a-1.warc.gz.orphan.1"] * 3
    assert problems == []
