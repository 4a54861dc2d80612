"""Lines of pages/ that are blanked: they keep their place, and a kill at any call is made good by the next time."""

import contextlib
import os
from collections.abc import Callable
from pathlib import Path

import orjson
import pytest

from crawler.core.models import PageInfo
from crawler.inspection.archive import takedown_list
from tests.support.records import make_record
from tests.support.sinks import make_pages

SECRET, OTHER = 'https://example.org/"secret\\é"?q=x', "https://example.org/other"


def written(directory: Path) -> Path:
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
    path = written(tmp_path)
    before = path.read_bytes().splitlines(keepends=True)
    assert blank_all(path.parent) == 1
    after = path.read_bytes().splitlines(keepends=True)
    assert [len(line) for line in after] == [len(line) for line in before]
    assert (after[0], after[2]) == (before[0], before[2])
    assert orjson.loads(after[1]) == {"url": None, "forgotten": True}
    assert blank_all(path.parent) == 0


class Killed(BaseException):
    """The process ends here."""


def test_a_kill_at_any_byte_is_made_good_by_the_next_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Half a write may have arrived: the line is recognised until nothing of it is left."""
    path = written(tmp_path)
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


def test_what_is_not_there_any_more_is_not_overwritten(tmp_path: Path) -> None:
    """A failed commit was cut off and others written in its place, or the file was completed meanwhile."""
    path = written(tmp_path)
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
