"""Following a log while it is written and rotated."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import orjson

from crawler.inspection.log.rotated_log import RotatedLog
from crawler.inspection.log.tail import Follower
from crawler.obs.log_files import RotatingFile


def lines(follower: Follower) -> list[bytes]:
    return [line for block in follower.poll() for line in block.splitlines()]


@contextmanager
def follower_of(log: Path) -> Iterator[Follower]:
    with RotatedLog(log) as parts:
        follower = Follower(log, parts.youngest_first[0] if parts.youngest_first else None)
    yield follower
    follower.close()


def test_every_line_is_seen_once_across_rotations(tmp_path: Path) -> None:
    """The program's own rotation, several times between two looks."""
    log = tmp_path / "fetch.jsonl"
    file = RotatingFile(log, rotate_size=200, keep=20)
    file.write(b"before\n")
    with follower_of(log) as follower:
        expected, seen = [], []
        for number in range(300):
            line = orjson.dumps({"n": number})
            expected.append(line)
            file.write(line + b"\n")
            if number % 37 == 0:
                seen += lines(follower)
        seen += lines(follower)
        assert seen == expected


def test_a_line_is_seen_when_it_is_whole(tmp_path: Path) -> None:
    """Half a line waits for its other half, also if it was there at the start."""
    log = tmp_path / "fetch.jsonl"
    log.write_bytes(b"1\n2")
    with follower_of(log) as follower:
        assert lines(follower) == []
        with log.open("ab") as file:
            file.write(b"2\n3")
        assert lines(follower) == [b"22"]
        with log.open("ab") as file:
            file.write(b"3\n")
        assert lines(follower) == [b"33"]


def test_a_log_that_appears_later_is_followed_from_its_beginning(tmp_path: Path) -> None:
    """The crawl may be started after who watches it."""
    log = tmp_path / "fetch.jsonl"
    with follower_of(log) as follower:
        assert lines(follower) == []
        log.write_bytes(b"1\n")
        assert lines(follower) == [b"1"]


def test_a_log_that_is_moved_away_is_read_to_its_end(tmp_path: Path) -> None:
    """logrotate renames first; the crawl goes on writing to the old file until it opens a new one."""
    log = tmp_path / "fetch.jsonl"
    log.write_bytes(b"1\n")
    with follower_of(log) as follower:
        moved = log.rename(tmp_path / "fetch.jsonl-20261125")
        with moved.open("ab") as file:
            file.write(b"2\n")
        assert lines(follower) == [b"2"]
        log.write_bytes(b"3\n")
        assert lines(follower) == [b"3"]


def test_a_log_that_is_emptied_in_place_is_read_anew(tmp_path: Path) -> None:
    """copytruncate, or an impatient operator."""
    log = tmp_path / "fetch.jsonl"
    log.write_bytes(b"1\n2\n3\n")
    with follower_of(log) as follower:
        log.write_bytes(b"4\n")
        assert lines(follower) == [b"4"]
