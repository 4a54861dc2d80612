"""JSON Lines files: buffering, rotation, cut lines, full and blocked disks."""

import errno
import json
import os
import threading
from pathlib import Path

import pytest

from crawler.obs import log_files
from crawler.obs.log_files import JsonlFile, LineWriter, RotatingFile, encode_line


class Disk:
    """A destination that can block and fail, and keeps what is written."""

    def __init__(self) -> None:
        self.writes: list[bytes] = []
        self.is_full = False
        self.open_gate = threading.Event()
        self.open_gate.set()
        self.entered = threading.Semaphore(0)
        self.is_closed = False

    def write(self, data: bytes) -> None:
        self.entered.release()
        assert self.open_gate.wait(10)
        if self.is_full:
            raise OSError(errno.ENOSPC, "No space left on device")
        self.writes.append(data)

    def close(self) -> None:
        self.is_closed = True


def lines_of(path: Path) -> list[int]:
    return [json.loads(line)["n"] for line in path.read_text().splitlines()]


def test_lines_arrive_in_order(tmp_path: Path) -> None:
    """After a flush the file has what was appended, one object a line."""
    file = JsonlFile(tmp_path / "a.jsonl", rotate_size=1 << 20, keep=2)
    for n in range(1_000):
        file.append_json({"n": n})
    assert file.flush()
    assert lines_of(tmp_path / "a.jsonl") == list(range(1_000))
    file.close()


def test_a_line_is_written_without_a_flush_after_the_interval() -> None:
    """One line is written without others."""
    disk = Disk()
    writer = LineWriter(disk, name="t", flush_interval_s=0.01)
    writer.append(b"one\n")
    assert disk.entered.acquire(timeout=10)
    writer.close()
    assert disk.writes == [b"one\n"]


def test_a_full_buffer_does_not_wait_for_the_interval() -> None:
    """64 KiB are written at once."""
    disk = Disk()
    writer = LineWriter(disk, name="t", flush_interval_s=3_600, buffer=10)
    writer.append(b"12345\n")
    writer.append(b"12345\n")
    assert disk.entered.acquire(timeout=10)
    writer.close()
    assert b"".join(disk.writes) == b"12345\n12345\n"
    assert disk.is_closed


def test_a_blocked_disk_drops_lines_and_delays_nothing() -> None:
    """While a write blocks, lines up to the limit are kept; others are dropped, counted and reported afterwards."""
    disk = Disk()
    disk.open_gate.clear()
    reported: list[int] = []
    writer = LineWriter(
        disk, name="t", flush_interval_s=0, buffer=4, pending_limit=8, on_recovered=lambda n: reported.append(n)
    )
    writer.append(b"1234\n")
    assert disk.entered.acquire(timeout=10)
    writer.append(b"567\n")
    writer.append(b"89a\n")
    for _ in range(3):
        writer.append(b"lost\n")
    assert writer.dropped == 3
    disk.open_gate.set()
    assert writer.flush()
    writer.close()
    assert disk.writes == [b"1234\n", b"567\n89a\n"]
    assert reported == [3]


def test_a_full_disk_is_reported_once_it_has_room() -> None:
    """A failed write drops its lines; after the next successful one their number is reported."""
    disk = Disk()
    disk.is_full = True
    reported: list[int] = []
    writer = LineWriter(disk, name="t", flush_interval_s=0, on_recovered=lambda n: reported.append(n))
    for _ in range(5):
        writer.append(b"lost\n")
        assert writer.flush()
    assert (writer.dropped, reported) == (5, [])
    disk.is_full = False
    writer.append(b"kept\n")
    assert writer.flush()
    writer.close()
    assert (writer.dropped, reported, disk.writes) == (5, [5], [b"kept\n"])


def test_closing_does_not_wait_for_ever() -> None:
    """A blocked disk does not keep the process alive."""
    disk = Disk()
    disk.open_gate.clear()
    writer = LineWriter(disk, name="t", flush_interval_s=0)
    writer.append(b"x\n")
    assert disk.entered.acquire(timeout=10)
    writer.close(timeout_s=0.01)
    assert not writer.flush(timeout_s=0.01)
    disk.open_gate.set()


def test_logging_from_a_finaliser_does_not_deadlock() -> None:
    """A line appended during another append of the same thread is taken too."""
    disk = Disk()
    writer = LineWriter(disk, name="t", flush_interval_s=0)

    class Nosy(bytes):
        """Its length is asked for under the lock: there the garbage collector might as well run."""

        def __len__(self) -> int:
            writer.append(b"inner\n")
            return super().__len__()

    appending = threading.Thread(target=writer.append, args=(Nosy(b"outer\n"),), daemon=True)
    appending.start()
    appending.join(10)
    assert not appending.is_alive()
    assert writer.flush()
    writer.close()
    assert sorted(b"".join(disk.writes).splitlines()) == [b"inner", b"outer"]


def test_rotation_keeps_the_youngest_parts(tmp_path: Path) -> None:
    """Parts are shifted, the oldest is removed, and no file exceeds the size."""
    file = RotatingFile(tmp_path / "a", rotate_size=20, keep=2)
    for n in range(1, 9):
        file.write(b'{"n":%d}\n' % n)  # 8 bytes: two fit
    file.close()
    assert {path.name: lines_of(path) for path in sorted(tmp_path.iterdir())} == {
        "a": [7, 8],
        "a.1": [5, 6],
        "a.2": [3, 4],
    }


def test_a_line_larger_than_the_size_has_a_file_of_its_own(tmp_path: Path) -> None:
    """No line is split, and an empty file is not rotated."""
    file = RotatingFile(tmp_path / "a", rotate_size=4, keep=5)
    file.write(b'{"n":1}\n')
    file.write(b'{"n":2}\n')
    file.close()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "a.1"]


def test_keep_zero_keeps_no_old_part(tmp_path: Path) -> None:
    """The file starts again, empty."""
    file = RotatingFile(tmp_path / "a", rotate_size=8, keep=0)
    file.write(b'{"n":1}\n')
    file.write(b'{"n":2}\n')
    file.close()
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
    assert lines_of(tmp_path / "a") == [2]


def test_a_smaller_keep_removes_more_parts(tmp_path: Path) -> None:
    """Parts beyond `keep` are removed at the next rotation."""
    for n in (1, 2, 3, 4):
        (tmp_path / f"a.{n}").write_text("old\n")
    file = RotatingFile(tmp_path / "a", rotate_size=8, keep=2)
    file.write(b'{"n":1}\n')
    file.write(b'{"n":2}\n')
    file.close()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "a.1", "a.2"]
    assert lines_of(tmp_path / "a.1") == [1]


def test_a_gap_left_by_a_crash_is_filled_before_a_part_is_lost(tmp_path: Path) -> None:
    """If .1 is missing, a rotation moves and loses no other part."""
    (tmp_path / "a.2").write_text("old\n")
    file = RotatingFile(tmp_path / "a", rotate_size=8, keep=2)
    file.write(b'{"n":1}\n')
    file.write(b'{"n":2}\n')
    file.close()
    assert (tmp_path / "a.2").read_text() == "old\n"
    assert lines_of(tmp_path / "a.1") == [1]


def test_a_line_cut_by_a_crash_is_ended(tmp_path: Path) -> None:
    """The next object begins on a new line."""
    (tmp_path / "a").write_bytes(b'{"n":1}\n{"n":')
    file = RotatingFile(tmp_path / "a", rotate_size=1 << 20, keep=1)
    file.write(b'{"n":3}\n')
    file.close()
    assert (tmp_path / "a").read_bytes() == b'{"n":1}\n{"n":\n{"n":3}\n'


def test_a_half_written_buffer_is_cut_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If the disk becomes full during a write, its bytes are removed; the next write is whole."""
    file = RotatingFile(tmp_path / "a", rotate_size=1 << 20, keep=1)
    file.write(b'{"n":1}\n')
    real_write = os.write
    answers = iter([3])

    def write(fd: int, data: bytes) -> int:
        for size in answers:
            return real_write(fd, bytes(data)[:size])
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(log_files.os, "write", write)
    with pytest.raises(OSError, match="No space"):
        file.write(b'{"n":2}\n')
    monkeypatch.undo()
    assert (tmp_path / "a").read_bytes() == b'{"n":1}\n'
    file.write(b'{"n":3}\n')
    file.close()
    assert lines_of(tmp_path / "a") == [1, 3]


def test_starting_on_a_full_disk_is_safe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A full disk is no error; the file is opened when there is room."""

    def full(*_args: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(log_files.os, "open", full)
    file = RotatingFile(tmp_path / "a", rotate_size=1 << 20, keep=1)
    monkeypatch.undo()
    file.write(b'{"n":1}\n')
    file.close()
    assert lines_of(tmp_path / "a") == [1]


def test_a_log_that_cannot_be_opened_is_an_error(tmp_path: Path) -> None:
    """A directory at its path is the operator's mistake."""
    (tmp_path / "a").mkdir()
    with pytest.raises(IsADirectoryError):
        JsonlFile(tmp_path / "a", rotate_size=1, keep=1)


def test_reopen_follows_a_file_that_was_moved_away(tmp_path: Path) -> None:
    """After logrotate has moved the file, lines go to a new one."""
    file = JsonlFile(tmp_path / "a", rotate_size=1 << 20, keep=1)
    file.append_json({"n": 1})
    assert file.flush()
    (tmp_path / "a").rename(tmp_path / "moved")
    file.reopen(rotate_size=1 << 20, keep=1)
    file.append_json({"n": 2})
    file.close()
    assert (lines_of(tmp_path / "moved"), lines_of(tmp_path / "a")) == ([1], [2])


@pytest.mark.parametrize(
    "value",
    ["plain", "lone \udcff surrogate", 2**70, object, Path("x"), float("nan"), "tab\tnewline\n"],
    ids=str,
)
def test_any_value_becomes_one_line_of_json(value: object) -> None:
    """Encoding never raises, and a line has exactly one newline, at its end."""
    line = encode_line({"value": value})
    assert line.count(b"\n") == 1
    assert line.endswith(b"}\n")
    assert "value" in json.loads(line)
