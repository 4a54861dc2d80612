"""Records that a takedown wants removed: the list of them, and lines of pages/ that are blanked in place."""

import contextlib
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import orjson
import pytest

from crawler.core.models import PageInfo
from crawler.inspection.archive import takedown_list
from crawler.inspection.archive.takedown_list import _scan
from tests.support.sinks import make_pages, make_record, make_warc

URL = "https://example.org/x"


@dataclass(frozen=True)
class Host:
    """All of one host."""

    host: str = "example.org"
    url: str | None = None


def warc_file(directory: Path) -> Path:
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
    content = warc_file(tmp_path / "made").read_bytes()
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


def test_a_file_that_cannot_be_read_is_reported_and_the_others_are_listed(tmp_path: Path) -> None:
    """What is known is not lost over it."""
    folder = tmp_path / "warc"
    folder.mkdir()
    (folder / "a-1.warc.gz").mkdir()
    (folder / "a-2.warc.gz").write_bytes(warc_file(tmp_path / "made").read_bytes())
    problems: list[str] = []
    found = list(_scan(folder, [Host()], problems, 1.0))
    assert [line["warc_file"] for line in found] == ["a-2.warc.gz"] * 3
    assert [problem.partition(": ")[2] for problem in problems] == ["Is a directory"]


def test_files_that_were_set_aside_are_listed_too(tmp_path: Path) -> None:
    """Under the names they have; where a kill cut one off there is nothing wrong."""
    folder = tmp_path / "warc"
    folder.mkdir()
    content = warc_file(tmp_path / "made").read_bytes()
    (folder / "a-1.warc.gz.orphan").write_bytes(content)
    (folder / "a-1.warc.gz.orphan.1").write_bytes(content + content[:50])
    (folder / "a-2.warc.gz.part").write_bytes(content)
    problems: list[str] = []
    found = [line["warc_file"] for line in _scan(folder, [Host()], problems, 1.0)]
    assert found == ["a-1.warc.gz.orphan"] * 3 + ["a-1.warc.gz.orphan.1"] * 3
    assert problems == []


SECRET, OTHER = 'https://example.org/"secret\\é"?q=x', "https://example.org/other"


def open_pages_file(directory: Path) -> Path:
    """An open file with three lines, the middle one secret."""
    sink = make_pages(directory)
    sink.open([])
    records = [make_record(url, page=PageInfo(title="its title")) for url in (OTHER, SECRET, OTHER)]
    sink.write(records, [None] * 3)
    sink.sync()
    sink.committed()
    [path] = (directory / "pages").iterdir()
    return path


def is_secret(url: str) -> bool:
    return url == SECRET


def blank_all(folder: Path) -> int:
    problems: list[str] = []
    found = 0
    for path in takedown_list.files(folder):
        lines = takedown_list.find(path, is_secret, problems)
        found += len(lines)
        takedown_list.blank(path, lines, problems)
    assert problems == []
    return found


def test_a_line_is_blanked_where_it_stands(tmp_path: Path) -> None:
    """As JSON of the same length; the others are as they were, and a second time there is nothing to do."""
    path = open_pages_file(tmp_path)
    before = path.read_bytes().splitlines(keepends=True)
    assert blank_all(path.parent) == 1
    after = path.read_bytes().splitlines(keepends=True)
    assert [len(line) for line in after] == [len(line) for line in before]
    assert (after[0], after[2]) == (before[0], before[2])
    assert orjson.loads(after[1]) == {"url": None, "forgotten": True}
    assert blank_all(path.parent) == 0


class Killed(BaseException):
    """The process ends here."""


def test_the_next_run_completes_what_a_kill_at_any_byte_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Half a write may have arrived: the line is recognised until nothing of it is left."""
    path = open_pages_file(tmp_path)
    whole = path.read_bytes()
    real: Callable[[int, bytes, int], int] = os.pwrite
    for cut in range(0, 700, 3):
        path.write_bytes(whole)
        left = cut

        def pwrite(descriptor: int, data: bytes, offset: int) -> int:
            nonlocal left
            if left < len(data):
                real(descriptor, data[:left], offset)
                raise Killed
            left -= len(data)
            return real(descriptor, data, offset)

        monkeypatch.setattr(os, "pwrite", pwrite)
        with contextlib.suppress(Killed):
            blank_all(path.parent)
        monkeypatch.setattr(os, "pwrite", real)
        blank_all(path.parent)
        content = path.read_bytes()
        assert b"secret" not in content
        assert [orjson.loads(line)["url"] for line in content.splitlines()] == [OTHER, None, OTHER]
        assert len(content) == len(whole)


def test_a_line_that_moved_is_not_overwritten(tmp_path: Path) -> None:
    """A failed commit was cut off and others written in its place, or the file was completed meanwhile."""
    path = open_pages_file(tmp_path)
    problems: list[str] = []
    lines = takedown_list.find(path, is_secret, problems)
    other = path.read_bytes().replace(b"secret", b"public")
    path.write_bytes(other)
    takedown_list.blank(path, lines, problems)
    assert path.read_bytes() == other
    path.write_bytes(other.replace(b"public", b"secret"))
    final = path.rename(path.with_suffix(""))
    takedown_list.blank(path, lines, problems)
    assert b"secret" not in final.read_bytes()
    assert problems == []
