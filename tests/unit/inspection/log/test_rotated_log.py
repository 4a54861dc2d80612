"""The files of a rotated log, read across compressions and damage; times as people write them."""

import gzip
import os
from collections.abc import Callable
from pathlib import Path

import pytest
import zstandard

from crawler.core.formatting import timestamp
from crawler.inspection.log import rotated_log as parts_module
from crawler.inspection.log.rotated_log import RotatedLog, log_files, parse_moment

NOW = 1_795_598_410.5  # 2026-11-25T09:20:10.5Z


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("now", 0), ("90s", 90), ("10m", 600), ("10min", 600), ("2h", 7200), ("1d12h", 129_600), ("1h30m ago", 5400),
        ("09:20", 10.5), ("9:20:05", 5.5), ("09:30", 86_400 - 589.5), ("today", 33_610.5), ("yesterday", 120_010.5),
        ("2026-11-25T09:20:10", 0.5), ("2026-11-25", 33_610.5), ("2026-11-25T10:20:10+01:00", 0.5),
        ("2026-11-25T09:20:10.500Z", 0),
    ],
)  # fmt: skip
def test_a_moment_is_understood(text: str, seconds: float) -> None:
    """`seconds` before now."""
    assert NOW - parse_moment(text, NOW) == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["", "soon", "25:00", "2026-13-01", "10x", "-5m", "ago"])
def test_text_that_is_no_time_is_refused(text: str) -> None:
    """The message shows what a time looks like."""
    with pytest.raises(ValueError, match="is not a time"):
        parse_moment(text, NOW)


@pytest.mark.parametrize(
    "text",
    ["800000d", "99999999999d", "9" * 400 + "h", "0001-01-01T00:00+14:00", "9999-12-31T23:00-05:00"],
)
def test_a_time_that_no_calendar_has_is_refused(text: str) -> None:
    """What is returned can be written as a time."""
    with pytest.raises(ValueError, match="is before the year 1 or after 9999"):
        parse_moment(text, NOW)
    assert timestamp(parse_moment("0001-01-01", NOW)) == "0001-01-01T00:00:00.000Z"


def lines_of(parts: RotatedLog) -> list[bytes]:
    return [line for part in parts.oldest_first for block in part.blocks() for line in block.splitlines()]


def test_parts_are_read_oldest_first_whatever_names_them(tmp_path: Path) -> None:
    """Numbers of ours, numbers and dates of logrotate, compressed or not, have one order."""
    log = tmp_path / "fetch.jsonl"
    log.write_bytes(b"8\n")
    (tmp_path / "fetch.jsonl.1").write_bytes(b"7\n")
    (tmp_path / "fetch.jsonl.2.gz").write_bytes(gzip.compress(b"6\n"))
    (tmp_path / "fetch.jsonl.10.gz").write_bytes(gzip.compress(b"5\n"))
    (tmp_path / "fetch.jsonl-20261124.zst").write_bytes(zstandard.compress(b"4\n"))
    (tmp_path / "fetch.jsonl-20261123.gz").write_bytes(gzip.compress(b"3\n"))
    (tmp_path / "fetch.jsonl-20261122").write_bytes(b"2\n")
    for other in ("fetch.jsonl.new", "fetch.jsonl.1.gz.tmp", "fetch.json", "events.jsonl", "fetch.jsonl.1.gz"):
        (tmp_path / other).write_bytes(b"not ours\n")
    with RotatedLog(log) as parts:
        assert lines_of(parts) == [b"2", b"3", b"4", b"5", b"6", b"7", b"8"]
        assert parts.problems() == []


def test_a_part_whose_compression_is_not_done_is_read_once(tmp_path: Path) -> None:
    """While gzip writes NAME.1.gz, NAME.1 is still there and is the whole of it."""
    (tmp_path / "fetch.jsonl.1").write_bytes(b"1\n")
    (tmp_path / "fetch.jsonl.1.gz").write_bytes(gzip.compress(b"1\n")[:9])
    assert [path.name for path in log_files(tmp_path / "fetch.jsonl")] == ["fetch.jsonl.1"]


@pytest.mark.parametrize("block", [1, 2, 3, 7, 1024])
def test_every_cut_gives_every_line_once(tmp_path: Path, block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Wherever a file is cut in two, each line is in the half in which it begins."""
    monkeypatch.setattr(parts_module, "BLOCK", block)
    log = tmp_path / "fetch.jsonl"
    content = b"a\n\nbcd\nefghij\nk"
    log.write_bytes(content)
    with RotatedLog(log) as parts:
        (part,) = parts.youngest_first
        for at in range(len(content) + 1):
            first, second = b"".join(part.blocks(0, at)), b"".join(part.blocks(at, len(content)))
            assert first + second == content, at
            assert first == b"" or first.endswith(b"\n") or second == b"", at


def test_the_line_at_an_offset_is_the_next_that_begins(tmp_path: Path) -> None:
    """A binary search lands inside lines; it is given the next whole one."""
    log = tmp_path / "fetch.jsonl"
    long = b"x" * 10_000
    log.write_bytes(b"ab\n" + long + b"\nc\n")
    with RotatedLog(log) as parts:
        (part,) = parts.youngest_first
        assert part.line_at(0) == (0, b"ab")
        assert part.line_at(1) == part.line_at(3) == (3, long)
        assert part.line_at(4) == part.line_at(10_004) == (10_004, b"c")
        assert part.line_at(10_005) == (part.size, b"")


@pytest.mark.parametrize(
    ("suffix", "compress"),
    [(".gz", gzip.compress), (".zst", zstandard.compress)],
)
def test_a_compressed_part_that_was_cut_is_read_as_far_as_it_goes(
    tmp_path: Path, suffix: str, compress: Callable[[bytes], bytes]
) -> None:
    """Whole lines are read, and the damage is reported."""
    content = os.urandom(600_000).hex().encode() + b"\n"
    lines = b"".join(b"%d\n" % n for n in range(2_000)) + content
    (tmp_path / f"fetch.jsonl.1{suffix}").write_bytes(compress(lines)[:-100])
    with RotatedLog(tmp_path / "fetch.jsonl") as parts:
        found = lines_of(parts)
        (problem,) = parts.problems()
    assert found[:2] == [b"0", b"1"]
    assert f"fetch.jsonl.1{suffix}: cannot be read to its end" in problem


def test_a_part_that_is_not_compressed_as_named_is_reported(tmp_path: Path) -> None:
    """The other parts are still read."""
    (tmp_path / "fetch.jsonl").write_bytes(b"1\n")
    (tmp_path / "fetch.jsonl.1.gz").write_bytes(b"not gzip")
    with RotatedLog(tmp_path / "fetch.jsonl") as parts:
        assert lines_of(parts) == [b"1"]
        assert len(parts.problems()) == 1


def test_a_part_that_is_renamed_while_it_is_read_is_read_once(tmp_path: Path) -> None:
    """A rotation between listing and reading neither doubles nor loses a line."""
    log = tmp_path / "fetch.jsonl"
    log.write_bytes(b"2\n")
    (tmp_path / "fetch.jsonl.1").write_bytes(b"1\n")
    with RotatedLog(log) as parts:
        (tmp_path / "fetch.jsonl.1").rename(tmp_path / "fetch.jsonl.2")
        log.rename(tmp_path / "fetch.jsonl.1")
        log.write_bytes(b"3\n")
        assert lines_of(parts) == [b"1", b"2"]


def test_a_file_that_is_cut_while_it_is_read_ends_early(tmp_path: Path) -> None:
    """The log was emptied: the message says so."""
    log = tmp_path / "fetch.jsonl"
    log.write_bytes(b"1\n2\n")
    with RotatedLog(log) as parts:
        os.truncate(log, 2)
        assert lines_of(parts) == [b"1"]
        assert "shorter" in parts.problems()[0]


def test_a_missing_folder_is_an_error_of_the_system(tmp_path: Path) -> None:
    """The error names the folder."""
    with pytest.raises(FileNotFoundError):
        RotatedLog(tmp_path / "logs" / "fetch.jsonl")
