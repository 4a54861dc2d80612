"""The contract of sinks (crawler/sinks/base.py), tested on each of them."""

import contextlib
import errno
import resource
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crawler.core.enums import SinkFileState
from crawler.core.models import PageInfo, Record, SinkFile
from crawler.sinks.base import Sink, SinkCorrupt, SinkForeign, SinkRecovered
from crawler.sinks.files import SinkFiles
from tests.support.faulty_disk import Crash, FaultyDisk
from tests.support.sinks import KINDS, Kind, Store, make_record


@pytest.fixture(scope="module", params=KINDS, ids=lambda kind: kind.label or kind.name)
def kind(request: pytest.FixtureRequest) -> Kind:
    return request.param


def make_records(first: int, count: int) -> list[Record]:
    return [
        make_record(f"https://example.org/{n}", b"body %d" % n, page=PageInfo(title=f"page {n}"))
        for n in range(first, first + count)
    ]


def urls(records: list[Record]) -> list[str]:
    return [record.task.url for record in records]


def write(sink: Sink, records: list[Record]) -> None:
    assert all(sink.write(records, [None] * len(records)))


def commit(sink: Sink, store: Store, records: list[Record]) -> None:
    """Commit one batch."""
    write(sink, records)
    store.commit(sink.sync())
    store.commit(sink.committed())


def folder_of(kind: Kind, directory: Path) -> Path:
    return directory / kind.name


def output(kind: Kind, directory: Path) -> list[str]:
    """URLs of the visits in all files except orphans, in the order of their serial numbers."""
    files = [path for path in folder_of(kind, directory).iterdir() if ".orphan" not in path.name]
    return [url for path in sorted(files) for url in kind.visits_in(path)]


def names(kind: Kind, directory: Path) -> list[str]:
    return sorted(path.name for path in folder_of(kind, directory).iterdir())


def test_a_visit_is_written_synced_committed_and_closed(kind: Kind, tmp_path: Path) -> None:
    """The usual order: the file is open until it is closed, with its whole length, then without .open."""
    sink, store = kind.make(tmp_path), Store()
    assert sink.open([]) == []
    records = make_records(0, 3)
    places = sink.write(records, [None] * 3)
    [offered] = sink.sync()
    path = folder_of(kind, tmp_path) / f"{offered.name}.open"
    assert offered == SinkFile(kind.name, offered.name, SinkFileState.OPEN, path.stat().st_size)
    assert [place.name for place in places if place] == [offered.name] * 3
    store.commit([offered])
    assert sink.committed() == []
    assert sink.close() == [SinkFile(kind.name, offered.name, SinkFileState.CLOSED, offered.committed_bytes)]
    assert names(kind, tmp_path) == [f"crawl-20261123090000-00000.{kind.extension}"]
    assert output(kind, tmp_path) == urls(records)


def test_nothing_written_touches_nothing(kind: Kind, tmp_path: Path) -> None:
    """A commit without records makes no file and syncs none."""
    disk = FaultyDisk()
    sink = kind.make(tmp_path, disk=disk)
    sink.open([])
    calls = disk.calls
    assert (sink.sync(), sink.committed(), sink.close()) == ([], [], [])
    assert (disk.calls, names(kind, tmp_path)) == (calls, [])


def test_buffering_touches_no_disk(kind: Kind, tmp_path: Path) -> None:
    """Only if a file exists and has room; buffered records are stored like others."""
    disk, store = FaultyDisk(), Store()
    sink = kind.make(tmp_path, disk=disk, limit=150_000)
    sink.open([])
    records = make_records(0, 40)
    assert not sink.can_buffer(records[0])
    commit(sink, store, records[:1])
    calls, places, taken = disk.calls, [], records[:1]
    for record in records[1:]:
        if not sink.can_buffer(record):
            break
        places.append(sink.buffer(record, None))
        taken.append(record)
    assert disk.calls == calls
    assert len(taken) > 1
    assert all(places)
    store.commit(sink.sync())
    store.commit(sink.committed())
    sink.close()
    assert output(kind, tmp_path) == urls(taken)


def test_sync_returns_the_same_until_it_is_committed(kind: Kind, tmp_path: Path) -> None:
    """A repeated transaction gets the same lengths; after the commit there are none."""
    sink = kind.make(tmp_path)
    sink.open([])
    write(sink, make_records(0, 1))
    first = sink.sync()
    assert sink.sync() == first
    sink.committed()
    assert sink.sync() == []


def test_a_full_file_is_closing_until_committed(kind: Kind, tmp_path: Path) -> None:
    """It is renamed only after it is stored as complete; the next visit opens the next serial number."""
    sink, store = kind.make(tmp_path, limit=1), Store()
    sink.open([])
    write(sink, make_records(0, 2))
    offered = sink.sync()
    assert [file.state for file in offered] == [SinkFileState.CLOSING] * 2
    assert all(name.endswith(".open") for name in names(kind, tmp_path))
    store.commit(offered)
    closed = sink.committed()
    assert [(file.name, file.committed_bytes) for file in closed] == [(f.name, f.committed_bytes) for f in offered]
    assert {file.state for file in closed} == {SinkFileState.CLOSED}
    commit(sink, store, make_records(2, 1))
    assert names(kind, tmp_path) == [f"crawl-20261123090000-{n:05d}.{kind.extension}" for n in range(3)]
    assert sink.close() == []


def test_uncommitted_bytes_are_cut_off_at_the_start(kind: Kind, tmp_path: Path) -> None:
    """Half a visit is removed, and the file continues after the last whole visit."""
    store = Store()
    sink = kind.make(tmp_path)
    sink.open([])
    commit(sink, store, make_records(0, 2))
    [path] = folder_of(kind, tmp_path).iterdir()
    with path.open("ab") as stream:
        stream.write(b"\x1f\x8b torn")
    again = kind.make(tmp_path)
    assert again.open(store.everything()) == []
    commit(again, store, make_records(2, 1))
    store.commit(again.close())
    assert output(kind, tmp_path) == urls(make_records(0, 3))
    assert len(names(kind, tmp_path)) == 1


def test_a_file_shorter_than_committed_is_refused(kind: Kind, tmp_path: Path) -> None:
    """Committed data is missing: the message has the file and both lengths, and the file is not changed."""
    store = Store()
    sink = kind.make(tmp_path)
    sink.open([])
    commit(sink, store, make_records(0, 1))
    [path] = folder_of(kind, tmp_path).iterdir()
    committed = path.stat().st_size
    path.write_bytes(b"short")
    with pytest.raises(SinkCorrupt) as caught:
        kind.make(tmp_path).open(store.everything())
    assert all(part in str(caught.value) for part in (str(path), f"{committed:,}", "5 bytes"))
    assert path.read_bytes() == b"short"


def test_an_open_file_that_is_missing_is_refused(kind: Kind, tmp_path: Path) -> None:
    """Only the crawler renames a file that is still written."""
    store = Store()
    sink = kind.make(tmp_path)
    sink.open([])
    commit(sink, store, make_records(0, 1))
    [path] = folder_of(kind, tmp_path).iterdir()
    path.unlink()
    with pytest.raises(SinkCorrupt, match="is missing"):
        kind.make(tmp_path).open(store.everything())


def test_an_unknown_open_file_becomes_an_orphan(kind: Kind, tmp_path: Path) -> None:
    """It is renamed to a free name, not deleted, and its serial number is not used again."""
    folder = folder_of(kind, tmp_path)
    folder.mkdir()
    stem = f"old-20200101000000-00041.{kind.extension}"
    (folder / f"{stem}.open").write_bytes(b"new")
    (folder / f"{stem}.orphan").write_bytes(b"older")
    (folder / "notes.txt.open").write_bytes(b"not ours")
    sink = kind.make(tmp_path)
    assert sink.open([]) == []
    assert sink.recovery == SinkRecovered(orphans=(f"{stem}.orphan.1",))
    assert (folder / f"{stem}.orphan.1").read_bytes() == b"new"
    assert (folder / f"{stem}.orphan").read_bytes() == b"older"
    write(sink, make_records(0, 1))
    assert sink.sync()[0].name == f"crawl-20261123090000-00042.{kind.extension}"
    assert "notes.txt.open" in names(kind, tmp_path)


@pytest.mark.parametrize("renamed", [False, True])
def test_an_interrupted_rename_is_finished(kind: Kind, tmp_path: Path, renamed: bool) -> None:
    """The stored state is `closing`: renamed or not, the file is closed afterwards."""
    store = Store()
    sink = kind.make(tmp_path, limit=1)
    sink.open([])
    write(sink, make_records(0, 1))
    store.commit(sink.sync())
    if renamed:
        sink.committed()  # and the crash comes before the store learns of it
    again = kind.make(tmp_path, limit=1)
    store.commit(again.open(store.everything()))
    assert [file.state for file in store.files.values()] == [SinkFileState.CLOSED]
    assert output(kind, tmp_path) == urls(make_records(0, 1))
    assert not any(name.endswith(".open") for name in names(kind, tmp_path))


def test_a_rename_before_a_crash_is_made_durable(kind: Kind, tmp_path: Path) -> None:
    """A kill between the rename and the folder's sync, a start, and then a power cut."""
    disk, store = FaultyDisk(), Store()
    sink = kind.make(tmp_path, limit=1, disk=disk)
    sink.open([])
    write(sink, make_records(0, 1))
    store.commit(sink.sync())
    disk.fails = lambda number, name: Crash() if name == "sync_folder" else None
    with pytest.raises(Crash):
        sink.committed()
    disk.abandon()
    store.commit(kind.make(tmp_path, limit=1, disk=disk).open(store.everything()))
    assert store.unclosed() == []
    disk.cut_power(folder_of(kind, tmp_path))
    kind.make(tmp_path, limit=1).open(store.everything())
    assert names(kind, tmp_path) == list(store.files)
    assert output(kind, tmp_path) == urls(make_records(0, 1))


def test_a_close_that_was_not_stored_is_recognised(kind: Kind, tmp_path: Path) -> None:
    """`close` renames before the final states are stored; a crash in between loses nothing."""
    store = Store()
    sink = kind.make(tmp_path)
    sink.open([])
    commit(sink, store, make_records(0, 1))
    sink.close()
    [known] = store.unclosed()
    assert known.state is SinkFileState.OPEN
    [changed] = kind.make(tmp_path).open([known])
    assert changed == SinkFile(kind.name, known.name, SinkFileState.CLOSED, known.committed_bytes)


def test_closed_files_may_be_moved_away(kind: Kind, tmp_path: Path) -> None:
    """Also before they are stored as closed; serial numbers continue after theirs."""
    store = Store()
    sink = kind.make(tmp_path, limit=1)
    sink.open([])
    write(sink, make_records(0, 1))
    store.commit(sink.sync())
    sink.committed()
    [path] = folder_of(kind, tmp_path).iterdir()
    path.unlink()
    again = kind.make(tmp_path, limit=1)
    assert [file.state for file in again.open(store.everything())] == [SinkFileState.CLOSED]
    write(again, make_records(1, 1))
    assert again.sync()[0].name.endswith(f"-00001.{kind.extension}")


def test_a_finished_file_is_never_overwritten(kind: Kind, tmp_path: Path) -> None:
    """If both names exist, the operator has to decide."""
    store = Store()
    sink = kind.make(tmp_path, limit=1)
    sink.open([])
    write(sink, make_records(0, 1))
    store.commit(sink.sync())
    [path] = folder_of(kind, tmp_path).iterdir()
    final = path.with_suffix("")
    final.write_bytes(b"precious")
    with pytest.raises(FileExistsError, match="move one of them away"):
        kind.make(tmp_path, limit=1).open(store.everything())
    assert final.read_bytes() == b"precious"


def test_close_leaves_uncommitted_files_open(kind: Kind, tmp_path: Path) -> None:
    """Whether the transaction of a batch was stored is known at the next start."""
    store = Store()
    sink = kind.make(tmp_path)
    sink.open([])
    commit(sink, store, make_records(0, 1))
    write(sink, make_records(1, 1))
    offered = sink.sync()
    assert sink.close() == []
    again = kind.make(tmp_path)
    again.open(store.everything())
    assert output(kind, tmp_path) == urls(make_records(0, 1))
    assert offered[0].committed_bytes > store.unclosed()[0].committed_bytes


def test_an_unknown_complete_file_is_set_aside(kind: Kind, tmp_path: Path) -> None:
    """It is from elsewhere, or newer than a restored store."""
    sink, store = kind.make(tmp_path, limit=1), Store()
    sink.open([])
    commit(sink, store, make_records(0, 2))
    first, second = sorted(store.files)
    del store.files[second]
    again = kind.make(tmp_path)
    assert again.open(store.everything()) == []
    assert again.recovery == SinkRecovered(orphans=(f"{second}.orphan",), finished=(f"{second}.orphan",))
    assert names(kind, tmp_path) == [first, f"{second}.orphan"]
    write(again, make_records(2, 1))
    assert again.sync()[0].name.endswith(f"-00002.{kind.extension}"), "a serial number was used again"


def test_a_store_that_knows_no_file_of_an_archive_is_refused(kind: Kind, tmp_path: Path) -> None:
    """Somebody removed the store: nothing is renamed, and the message says what to do. A backup is accepted."""
    sink, store = kind.make(tmp_path), Store()
    sink.open([])
    commit(sink, store, make_records(0, 2))
    sink.close()
    before = names(kind, tmp_path)
    with pytest.raises(SinkForeign, match=r"1 complete file of which the store knows none: put a backup") as caught:
        kind.make(tmp_path).open([])
    assert str(folder_of(kind, tmp_path)) in str(caught.value)
    assert names(kind, tmp_path) == before
    restored = kind.make(tmp_path)
    assert restored.open([], is_restored=True) == []
    assert restored.recovery.orphans == (f"{before[0]}.orphan",)


def test_files_of_other_sinks_are_ignored(kind: Kind, tmp_path: Path) -> None:
    """The list of the store has the files of every sink."""
    assert kind.make(tmp_path).open([SinkFile("other", "x-20200101000000-00000", SinkFileState.OPEN, 7)]) == []


def test_closed_files_in_the_list_are_ignored(kind: Kind, tmp_path: Path) -> None:
    """There is nothing to do for them."""
    store = Store()
    sink = kind.make(tmp_path, limit=1)
    sink.open([])
    commit(sink, store, make_records(0, 1))
    assert kind.make(tmp_path).open(list(store.files.values())) == []


def test_records_after_a_sync_are_not_committed(kind: Kind, tmp_path: Path) -> None:
    """`committed` is about what `sync` returned; later records belong to the next commit."""
    sink, store = kind.make(tmp_path), Store()
    sink.open([])
    write(sink, make_records(0, 1))
    store.commit(sink.sync())
    write(sink, make_records(1, 1))
    store.commit(sink.committed())
    sink.reset()
    store.commit(sink.close())
    assert output(kind, tmp_path) == urls(make_records(0, 1))


def test_reset_removes_uncommitted_records(kind: Kind, tmp_path: Path) -> None:
    """After a failed transaction the batch is written again, and is stored once."""
    sink, store = kind.make(tmp_path, limit=kind.limit), Store()
    sink.open([])
    commit(sink, store, make_records(0, 1))
    batch = make_records(1, 9)  # rolls over, so that files the store never heard of are among it
    for _ in range(2):
        write(sink, batch)
        assert len(sink.sync()) > 1
        sink.reset()
    commit(sink, store, batch)
    store.commit(sink.close())
    assert output(kind, tmp_path) == urls(make_records(0, 10))
    assert sorted(names(kind, tmp_path)) == sorted(store.files)


@pytest.mark.parametrize("room", [0, 1, 100, 400, 1_000])
def test_a_full_disk_leaves_no_partial_record(kind: Kind, tmp_path: Path, room: int) -> None:
    """A short write, then an error; after `reset`, with room again, the batch is stored."""
    disk = FaultyDisk()
    sink, store = kind.make(tmp_path, disk=disk), Store()
    sink.open([])
    commit(sink, store, make_records(0, 1))
    batch = make_records(1, 20)
    disk.room = room
    with pytest.raises(OSError, match="No space left") as caught:
        commit(sink, store, batch)
    assert caught.value.errno == errno.ENOSPC
    sink.reset()
    assert output(kind, tmp_path) == urls(make_records(0, 1))
    disk.room = None
    commit(sink, store, batch)
    store.commit(sink.close())
    assert output(kind, tmp_path) == urls(make_records(0, 21))


@pytest.fixture
def file_size_limit() -> Iterator[int]:
    """The system refuses files larger than this many bytes, with a short write before the error."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (700, hard))
    yield 700
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_file_size_limit_leaves_no_partial_record(kind: Kind, tmp_path: Path, file_size_limit: int) -> None:
    """The same with RLIMIT_FSIZE instead of a faulty disk."""
    sink, store = kind.make(tmp_path), Store()
    sink.open([])
    with pytest.raises(OSError, match="File too large") as caught:
        commit(sink, store, make_records(0, 20))
    assert caught.value.errno == errno.EFBIG
    [path] = folder_of(kind, tmp_path).iterdir()
    assert path.stat().st_size == file_size_limit
    sink.reset()
    assert names(kind, tmp_path) == []
    hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
    resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
    commit(sink, store, make_records(0, 20))
    store.commit(sink.close())
    assert output(kind, tmp_path) == urls(make_records(0, 20))


@pytest.mark.parametrize("call", ["truncate", "unlink"])
def test_a_reset_that_fails_is_finished_by_the_next_write(kind: Kind, tmp_path: Path, call: str) -> None:
    """A failing disk may refuse that too: nothing is written after bytes that have to be cut off."""
    disk = FaultyDisk()
    sink, store = kind.make(tmp_path, limit=kind.limit, disk=disk), Store()
    sink.open([])
    commit(sink, store, make_records(0, 1))
    batch = make_records(1, 9)
    write(sink, batch)
    sink.sync()
    disk.fails = lambda number, name: OSError(errno.EIO, "broken") if name == call else None
    with pytest.raises(OSError, match="broken"):
        sink.reset()
    with pytest.raises(OSError, match="broken"):
        write(sink, batch)
    with pytest.raises(OSError, match="broken"):
        sink.sync()
    disk.fails = lambda number, name: None
    commit(sink, store, batch)
    store.commit(sink.close())
    assert output(kind, tmp_path) == urls(make_records(0, 10))


def test_a_rename_that_fails_is_tried_again(kind: Kind, tmp_path: Path) -> None:
    """The lengths count as committed: `reset` does not cut them off."""
    disk = FaultyDisk()
    sink, store = kind.make(tmp_path, limit=1, disk=disk), Store()
    sink.open([])
    for failing in ("rename", "sync_folder"):
        write(sink, make_records(len(store.files), 1))
        store.commit(sink.sync())
        disk.fails = lambda number, name, failing=failing: OSError(errno.EIO, "broken") if name == failing else None
        with pytest.raises(OSError, match="broken"):
            sink.committed()
        disk.fails = lambda number, name: None
        sink.reset()
        store.commit(sink.committed())
    assert {file.state for file in store.files.values()} == {SinkFileState.CLOSED}
    assert output(kind, tmp_path) == urls(make_records(0, 2))


def run_until(sink: SinkFiles, store: Store, committed: list[str], batches: list[list[Record]]) -> None:
    """Commit batches one by one; `committed` and `store` have what a frontier would have stored."""
    store.commit(sink.open(store.everything()))
    for batch in batches:
        if set(urls(batch)) <= set(committed):
            continue
        write(sink, batch)
        offered = sink.sync()
        store.commit(offered)  # one transaction: the lengths and the visits
        committed.extend(urls(batch))
        store.commit(sink.committed())
    store.commit(sink.close())


@pytest.mark.parametrize("power", ["cut", "cut, the last name kept", "kept"])
def test_a_crash_at_any_call_loses_and_duplicates_nothing(kind: Kind, tmp_path: Path, power: str) -> None:
    """The process dies at the n-th call to the disk, for every n, once more while it recovers, and starts again."""
    batches = [make_records(n, 2) for n in range(0, 12, 2)]
    expected = [url for batch in batches for url in urls(batch)]
    crashes = 0
    for number in range(1, 1_000):
        directory = tmp_path / str(number)
        directory.mkdir()
        disk, store, committed = FaultyDisk(), Store(), []
        crashed = False
        # The second number strikes in the recovery from the first.
        for strike in (number, 1 + number % 5, 0):
            disk.calls = 0
            disk.fails = lambda calls, name, strike=strike: Crash() if calls == strike else None
            try:
                run_until(kind.make(directory, limit=kind.limit, disk=disk), store, committed, batches)
            except Crash:
                crashed = True
                if power != "kept" and folder_of(kind, directory).exists():
                    disk.cut_power(folder_of(kind, directory), keeps_last="last" in power)
                disk.abandon()
            else:
                break
        assert (committed, output(kind, directory)) == (expected, expected)
        assert store.unclosed() == []
        if not crashed:
            break
        crashes += 1
    assert crashes > 20


ACTIONS = st.lists(
    st.one_of(
        st.tuples(st.just("write"), st.integers(1, 6)),
        st.tuples(st.sampled_from(["commit", "crash", "power", "reset", "close", "close unheard"]), st.just(0)),
        st.tuples(st.sampled_from(["sync then crash", "commit then crash", "commit then power"]), st.just(0)),
        st.tuples(st.sampled_from(["sync fails", "settle fails", "reset fails"]), st.just(0)),
        st.tuples(st.just("disk full"), st.integers(0, 1_500)),
    ),
    max_size=25,
)


class Model:
    """A sink, and the list of visits that a frontier has committed."""

    def __init__(self, kind: Kind, directory: Path) -> None:
        self.kind, self.directory = kind, directory
        self.store = Store()
        self.disk = FaultyDisk()
        self.written = 0
        self.staged: list[str] = []
        self.committed: list[str] = []
        self.start()

    def start(self) -> None:
        self.sink = self.kind.make(self.directory, limit=self.kind.limit, disk=self.disk)
        self.store.commit(self.sink.open(self.store.everything()))
        self.staged = []
        assert output(self.kind, self.directory) == self.committed

    def write(self, count: int) -> None:
        batch = make_records(self.written, count)
        self.written += count
        write(self.sink, batch)
        self.staged += urls(batch)

    def transaction(self) -> None:
        """`sync` and what the frontier does with it."""
        self.store.commit(self.sink.sync())
        self.committed += self.staged
        self.staged = []

    def reset(self) -> None:
        self.sink.reset()
        self.staged = []

    def die(self, *, power: bool) -> None:
        if power:
            self.disk.cut_power(folder_of(self.kind, self.directory))
        self.disk.abandon()
        self.start()

    def act(self, action: str, number: int) -> None:
        match action:
            case "write":
                self.write(number)
            case "commit":
                self.transaction()
                self.store.commit(self.sink.committed())
            case "crash" | "power":
                self.die(power=action == "power")
            case "sync then crash":
                self.sink.sync()
                self.die(power=False)
            case "commit then crash" | "commit then power":
                self.transaction()
                self.die(power=action.endswith("power"))
            case "reset":
                self.reset()
            case "close":
                self.store.commit(self.sink.close())
                self.start()
            case "close unheard":
                self.sink.close()
                self.start()
            case "disk full":
                self.disk.room = number
                with contextlib.suppress(OSError):
                    self.write(6)
                    self.sink.sync()
                self.disk.room = None
                self.reset()
            case "sync fails":
                self.disk.fails = lambda calls, name: OSError(errno.EIO, "broken") if name == "sync" else None
                with contextlib.suppress(OSError):
                    self.sink.sync()
                self.disk.fails = lambda calls, name: None
                self.reset()
            case "reset fails":
                self.disk.fails = lambda calls, name: OSError(errno.EIO, "broken") if name == "truncate" else None
                with contextlib.suppress(OSError):
                    self.sink.reset()
                self.disk.fails = lambda calls, name: None
                self.staged = []
            case "settle fails":
                self.transaction()
                self.disk.fails = lambda calls, name: OSError(errno.EIO, "broken") if name == "rename" else None
                with contextlib.suppress(OSError):
                    self.sink.committed()
                self.disk.fails = lambda calls, name: None
            case _:
                raise AssertionError(action)


@settings(deadline=None, max_examples=60, derandomize=True)
@given(actions=ACTIONS)
def test_any_sequence_of_events_leaves_each_committed_visit_once(
    kind: Kind, tmp_path_factory: pytest.TempPathFactory, actions: list[tuple[str, int]]
) -> None:
    """Random events compared with a model: after every start the files have the committed visits, in order."""
    model = Model(kind, tmp_path_factory.mktemp("sink"))
    for action, number in actions:
        model.act(action, number)
    model.act("commit", 0)
    model.store.commit(model.sink.close())
    assert output(kind, model.directory) == model.committed
    assert not any(name.endswith(".open") for name in names(kind, model.directory))
    assert model.store.unclosed() == []
    serials = [name for name in names(kind, model.directory) if ".orphan" not in name]
    assert serials == sorted(model.store.files)


# -- a backup of the store is put back


class Restored:
    """A sink's folder, and the state of the store from before the last of what is in it: `before` and `after` are the
    visits that each knows. The files that were open then are complete now, or longer.
    """

    def __init__(self, kind: Kind, directory: Path, disk: FaultyDisk, *, ended: bool) -> None:
        self.kind, self.directory, self.disk = kind, directory, disk
        sink, store = kind.make(directory, limit=kind.limit, disk=disk), Store()
        sink.open([])
        self.after: list[str] = []
        self.backup: dict[str, SinkFile] = {}
        for n in range(20):
            commit(sink, store, make_records(n, 1))
            self.after += urls(make_records(n, 1))
            if n >= 5 and not self.backup and any(file.state is SinkFileState.OPEN for file in store.files.values()):
                self.backup, self.before = dict(store.files), self.after[:]
        if ended:
            sink.close()
        else:
            disk.abandon()
        assert self.backup

    def start(self) -> tuple[SinkFiles, Store]:
        """What a start does with the backup."""
        sink, store = self.kind.make(self.directory, limit=self.kind.limit, disk=self.disk), Store(dict(self.backup))
        store.commit(sink.open(store.everything(), is_restored=True))
        return sink, store

    def check(self, sink: SinkFiles, store: Store) -> None:
        """What the backup knows is there, once; what it does not know was set aside, whole; and it goes on."""
        assert output(self.kind, self.directory) == self.before
        folder = folder_of(self.kind, self.directory)
        aside = [url for path in sorted(folder.glob("*.orphan*")) for url in self.kind.visits_in(path)]
        assert set(aside) >= set(self.after) - set(self.before)
        assert not list(folder.glob("*.part"))
        commit(sink, store, make_records(100, 3))
        store.commit(sink.close())
        assert output(self.kind, self.directory) == [*self.before, *urls(make_records(100, 3))]
        assert store.unclosed() == []
        sizes = {path.name: path.stat().st_size for path in folder.iterdir() if ".orphan" not in path.name}
        assert sizes == {file.name: file.committed_bytes for file in store.files.values()}


@pytest.mark.parametrize("ended", [True, False], ids=["complete", "open"])
def test_a_restored_backup_deletes_nothing(kind: Kind, tmp_path: Path, ended: bool) -> None:
    """Open files are cut to their stored length, with a whole copy kept; newer files are kept too."""
    restored = Restored(kind, tmp_path, FaultyDisk(), ended=ended)
    [opened] = [file for file in restored.backup.values() if file.state is SinkFileState.OPEN]
    path = folder_of(kind, tmp_path) / opened.name
    whole = path.read_bytes()  # complete by now in both cases: it was rolled over
    sink, store = restored.start()
    assert sink.recovery.cut == (opened.name,)
    assert f"{opened.name}.orphan" in sink.recovery.orphans
    assert set(sink.recovery.finished) == set(sink.recovery.orphans)
    assert path.with_name(f"{opened.name}.orphan").read_bytes() == whole
    assert path.read_bytes() == whole[: opened.committed_bytes]
    restored.check(sink, store)


@pytest.mark.parametrize("power", ["cut", "cut, the last name kept", "kept"])
def test_a_crash_at_any_call_of_a_restore_loses_nothing(kind: Kind, tmp_path: Path, power: str) -> None:
    """The process dies at the n-th call to the disk, for every n, once more in the start after that; the third ends."""
    crashes = 0
    for number in range(1, 200):
        directory = tmp_path / str(number)
        directory.mkdir()
        disk = FaultyDisk()
        restored = Restored(kind, directory, disk, ended=number % 2 == 0)
        folder = folder_of(kind, directory)
        crashed = False
        for strike in (number, 1 + number % 7, 0):
            disk.calls = 0
            disk.fails = lambda calls, name, strike=strike: Crash() if calls == strike else None
            try:
                sink, store = restored.start()
            except Crash:
                crashed = True
                if power != "kept":
                    disk.cut_power(folder, keeps_last="last" in power)
                disk.abandon()
                held = {url for path in folder.iterdir() if path.suffix != ".part" for url in kind.visits_in(path)}
                assert held == set(restored.after)
            else:
                break
        disk.fails = lambda calls, name: None
        restored.check(sink, store)
        if not crashed:
            break
        crashes += 1
    assert crashes > 8


def test_a_restore_on_a_full_disk_changes_nothing(kind: Kind, tmp_path: Path) -> None:
    """There must be room for the copy; half a copy is removed."""
    disk = FaultyDisk()
    restored = Restored(kind, tmp_path, disk, ended=True)
    before = {path.name: path.read_bytes() for path in folder_of(kind, tmp_path).iterdir()}
    disk.room = 100
    with pytest.raises(OSError, match=r"No space left on device: \d+ bytes of crawl-\S+ are to be copied"):
        restored.start()
    assert {path.name: path.read_bytes() for path in folder_of(kind, tmp_path).iterdir()} == before
    assert disk.open_descriptors == 0
    disk.room = None
    restored.check(*restored.start())


def test_an_open_file_is_kept_whole_only_for_a_backup(kind: Kind, tmp_path: Path) -> None:
    """Bytes after the stored length are usually an unfinished commit; after a restore they may be acknowledged."""
    sink, store = kind.make(tmp_path), Store()
    sink.open([])
    commit(sink, store, make_records(0, 1))
    backup = dict(store.files)
    commit(sink, store, make_records(1, 1))
    [path] = folder_of(kind, tmp_path).iterdir()
    whole = path.read_bytes()
    restored = kind.make(tmp_path)
    [closed] = restored.open(list(backup.values()), is_restored=True)
    assert (closed.name, closed.state) == (path.stem, SinkFileState.CLOSED), "the log tells of records behind the cut"
    assert restored.recovery == SinkRecovered((f"{path.stem}.orphan",), (f"{path.stem}.orphan",), (path.stem,))
    assert path.with_name(f"{path.stem}.orphan").read_bytes() == whole
    assert path.with_name(path.stem).read_bytes() == whole[: backup[path.stem].committed_bytes]
    path.with_name(path.stem).unlink()
    again = kind.make(tmp_path)
    path.write_bytes(whole)
    again.open(list(backup.values()))
    assert again.recovery == SinkRecovered(truncated_bytes=len(whole) - backup[path.stem].committed_bytes)
    assert output(kind, tmp_path) == urls(make_records(0, 1))


def test_a_backup_may_be_restored_without_its_open_files(kind: Kind, tmp_path: Path) -> None:
    """They were completed and moved since, or lost: the start reports them. Only for a backup."""
    sink, store = kind.make(tmp_path), Store()
    sink.open([])
    commit(sink, store, make_records(0, 1))
    [known] = store.everything()
    [path] = folder_of(kind, tmp_path).iterdir()
    path.unlink()
    restored = kind.make(tmp_path)
    [closed] = restored.open([known], is_restored=True)
    assert (closed.name, closed.state) == (known.name, SinkFileState.CLOSED)
    assert restored.recovery == SinkRecovered(missing=(known.name,))
    with pytest.raises(SinkCorrupt, match="is missing"):
        kind.make(tmp_path).open([known])


def test_a_finished_file_beside_the_open_one_is_set_aside(kind: Kind, tmp_path: Path) -> None:
    """Otherwise it would be overwritten when the open one is complete."""
    sink, store = kind.make(tmp_path), Store()
    sink.open([])
    commit(sink, store, make_records(0, 1))
    [path] = folder_of(kind, tmp_path).iterdir()
    path.with_suffix("").write_bytes(b"precious")
    again = kind.make(tmp_path)
    again.open(store.everything())
    store.commit(again.close())
    assert path.with_name(f"{path.stem}.orphan").read_bytes() == b"precious"
    assert output(kind, tmp_path) == urls(make_records(0, 1))


def test_a_complete_file_shorter_than_committed_is_refused(kind: Kind, tmp_path: Path) -> None:
    """Like an open one."""
    sink, store = kind.make(tmp_path), Store()
    sink.open([])
    commit(sink, store, make_records(0, 1))
    backup = list(store.files.values())
    sink.close()
    [path] = folder_of(kind, tmp_path).iterdir()
    path.write_bytes(b"short")
    with pytest.raises(SinkCorrupt, match="has 5 bytes"):
        kind.make(tmp_path).open(backup)


def cut(path: Path) -> None:
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size - 1)


def replace_by_another(path: Path) -> None:
    """Like an editor or sed -i."""
    other = path.with_name("other")
    other.write_bytes(b"precious")
    other.rename(path)


@pytest.mark.parametrize("how", ["deleted", "replaced", "moved", "cut"])
def test_an_open_file_that_vanishes_fails_the_sync_and_is_given_up(kind: Kind, tmp_path: Path, how: str) -> None:
    """The kind of loss is reported, the batch goes to another file, and a file in its place is set aside unchanged.
    What was moved is whole up to what was committed.
    """
    sink, store = kind.make(tmp_path), Store()
    sink.open([])
    commit(sink, store, make_records(0, 2))
    [before] = store.files.values()
    [path] = folder_of(kind, tmp_path).iterdir()
    committed = path.read_bytes()
    assert sink.lost_files() == []
    write(sink, make_records(2, 2))
    away = tmp_path / "away"
    {"deleted": Path.unlink, "replaced": replace_by_another, "moved": lambda it: it.rename(away), "cut": cut}[how](path)
    with pytest.raises(OSError, match="deleted, moved or cut"):
        sink.sync()
    sink.reset()
    [one] = sink.lost_files()
    assert one.how == ("deleted" if how == "replaced" else how)
    state = SinkFileState.CLOSED if how == "moved" else SinkFileState.LOSING
    assert one.file == replace(before, state=state)
    assert one.place == (str(away) if how == "moved" else "")
    assert sink.lost_files() == []
    store.commit([one.file])
    sink.set_aside(one)
    commit(sink, store, make_records(2, 2))
    store.commit(sink.close())
    if how == "moved":
        assert away.read_bytes() == committed
    orphans = [path for path in folder_of(kind, tmp_path).iterdir() if path.name.endswith(".orphan")]
    left = {"replaced": [b"precious"], "cut": [committed[:-1]]}.get(how, [])
    assert [path.read_bytes() for path in orphans] == left
    assert output(kind, tmp_path) == urls(make_records(2, 2))
    again = kind.make(tmp_path)
    assert again.open(store.everything()) == []
    assert again.recovery == SinkRecovered()
    assert output(kind, tmp_path) == urls(make_records(2, 2))


def test_a_file_that_was_never_committed_to_may_vanish(kind: Kind, tmp_path: Path) -> None:
    """Nothing is lost; another file of its name is not removed."""
    sink, store = kind.make(tmp_path), Store()
    sink.open([])
    write(sink, make_records(0, 1))
    [path] = folder_of(kind, tmp_path).iterdir()
    replace_by_another(path)
    with pytest.raises(OSError, match="deleted, moved or cut"):
        sink.sync()
    sink.reset()
    [one] = sink.lost_files()
    assert (one.how, one.file.committed_bytes) == ("deleted", 0)
    assert path.read_bytes() == b"precious"
    sink.set_aside(one)
    commit(sink, store, make_records(0, 1))
    store.commit(sink.close())
    assert output(kind, tmp_path) == urls(make_records(0, 1))


def test_a_file_that_vanishes_between_commit_and_rename_is_not_replaced(kind: Kind, tmp_path: Path) -> None:
    """Another file of its name is never renamed to a complete file."""
    sink, store = kind.make(tmp_path, limit=1), Store()
    sink.open([])
    write(sink, make_records(0, 1))
    store.commit(sink.sync())
    [path] = folder_of(kind, tmp_path).iterdir()
    replace_by_another(path)
    assert sink.committed() == []
    assert path.read_bytes() == b"precious"
    assert [one.how for one in sink.lost_files()] == ["deleted"]


def test_a_folder_that_vanishes_is_made_again(kind: Kind, tmp_path: Path) -> None:
    """If the output directory exists. If that was moved, nothing counts as lost: it may come back."""
    sink, store = kind.make(tmp_path / "out"), Store()
    (tmp_path / "out").mkdir()
    sink.open([])
    commit(sink, store, make_records(0, 1))
    (tmp_path / "out").rename(tmp_path / "away")
    write(sink, make_records(1, 1))
    with pytest.raises(OSError, match="deleted, moved or cut"):
        sink.sync()
    with pytest.raises(OSError, match="moved away or replaced"):
        sink.reset()
    with pytest.raises(OSError, match="moved away or replaced"):
        sink.lost_files()
    (tmp_path / "away").rename(tmp_path / "out")
    assert sink.lost_files() == []
    commit(sink, store, make_records(1, 1))
    folder_of(kind, tmp_path / "out").rename(tmp_path / "folder")
    [one] = sink.lost_files()
    assert one.how == "moved"
    store.commit([one.file])
    commit(sink, store, make_records(2, 1))
    store.commit(sink.close())
    assert output(kind, tmp_path / "out") == urls(make_records(2, 1))
    [moved] = (tmp_path / "folder").iterdir()
    assert kind.visits_in(moved) == urls(make_records(0, 2))


def test_bytes_of_others_are_cut_off_before_the_next_commit(kind: Kind, tmp_path: Path) -> None:
    """Records after them would not be at their stored offsets."""
    sink, store = kind.make(tmp_path), Store()
    sink.open([])
    commit(sink, store, make_records(0, 1))
    [path] = folder_of(kind, tmp_path).iterdir()
    with path.open("ab") as file:
        file.write(b"noise")
    write(sink, make_records(1, 1))
    with pytest.raises(OSError, match="somebody else wrote to it"):
        sink.sync()
    sink.reset()
    assert sink.lost_files() == []
    commit(sink, store, make_records(1, 1))
    store.commit(sink.close())
    assert output(kind, tmp_path) == urls(make_records(0, 2))
