"""Full and failing disks, power cuts and kills: a settlement is stored whole or not at all."""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from itertools import count
from pathlib import Path

import apsw
import pytest

from crawler.core.enums import DenyReason, ErrorType, SinkFileState, UrlState
from crawler.core.models import Counters, Denied, Failed, RecordLocation, SinkFile
from crawler.frontier.base import Batch, FrontierError, FrontierFull, FrontierLocked, Totals
from crawler.frontier.sqlite.store import SqliteFrontier
from tests.support.frontiers import NOW, FaultyFiles, batch, copy_store, fast_folder, found, links, response, visit


@pytest.fixture
def path() -> Iterator[Path]:
    with fast_folder() as folder:
        yield folder / "frontier.db"


@pytest.fixture
def files() -> Iterator[FaultyFiles]:
    files = FaultyFiles()
    yield files
    files.unregister()


@asynccontextmanager
async def opened(path: Path, files: FaultyFiles) -> AsyncIterator[SqliteFrontier]:
    frontier = SqliteFrontier(path, vfs=files.name)
    await frontier.open()
    try:
        yield frontier
    finally:
        files.stop_failing()
        await frontier.close(clean=False)


async def seeded(frontier: SqliteFrontier) -> Batch:
    """Add a seed. Returns a batch that settles it and changes as many tables as possible."""
    await frontier.add([found("https://a.example/")], now=NOW)
    (task,) = await frontier.take(1, 1, leased=())
    discovered = links(*(f"https://{name}.example/{n}" for name in "ab" for n in range(400)))
    return batch(
        visit(task, discovered=discovered),
        written=[RecordLocation("w", 7)],
        sink_files=[SinkFile("warc", "w", SinkFileState.OPEN, 99)],
        counters=Counters(pages=1),
        scope_hosts=["b.example"],
    )


BEFORE = Totals(queued=1, waiting=0, done=0, denied=0, gave_up=0, hosts=1, hosts_with_work=1)
AFTER = Totals(queued=800, waiting=0, done=1, denied=0, gave_up=0, hosts=2, hosts_with_work=2)


async def audit(path: Path) -> Totals:
    """Open a store as a new process would, and compare its counters with its rows."""
    frontier = SqliteFrontier(path)
    recovered = await frontier.open()
    totals = frontier.totals()
    rows = await frontier.host_rows(after=0, limit=9)
    await frontier.close(clean=False)
    connection = apsw.Connection(str(path))
    assert connection.pragma("integrity_check") == "ok"
    counted = dict(connection.execute("SELECT state, count(*) FROM url GROUP BY state"))
    queued = dict(connection.execute("SELECT host, count(*) FROM url WHERE state = 'queued' GROUP BY host"))
    connection.close()
    assert totals == Totals(
        **{state: counted.get(state.value, 0) for state in UrlState},
        hosts=recovered.hosts,
        hosts_with_work=len(queued),
    )
    assert {row.id: row.queued for row in rows if row.queued} == queued
    # The parts of a settlement that stand in other tables came with it.
    is_settled = totals.done > 0
    assert recovered.counters == Counters(pages=int(is_settled))
    assert recovered.scope_hosts == (("b.example",) if is_settled else ())
    assert len(recovered.sink_files) == is_settled
    return totals


# -- failing disks

WRITE_ERROR = (apsw.IOError, apsw.SQLITE_IOERR_WRITE)
SYNC_ERROR = (apsw.IOError, apsw.SQLITE_IOERR_FSYNC)
FULL = (apsw.FullError, apsw.SQLITE_FULL)


@pytest.mark.parametrize(
    ("call", "error"), [("write", FULL), ("write", WRITE_ERROR), ("sync", SYNC_ERROR)], ids=["full", "write", "sync"]
)
async def test_a_commit_that_fails_at_any_call_stores_nothing_and_succeeds_later(
    path: Path, files: FaultyFiles, call: str, error: tuple[type[apsw.Error], int]
) -> None:
    """Neither in the open store nor after a crash at that moment."""
    async with opened(path, files) as frontier:
        settlement = await seeded(frontier)
        for nth in count(1):
            files.fail(call, nth, error)
            try:
                receipt = await frontier.settle(settlement)
            except FrontierFull as raised:
                assert "frontier.db" in str(raised)  # noqa: PT017 - the last round does not raise
            else:
                break
            assert frontier.totals() == BEFORE
            crashed = path.parent / f"crashed-{nth}" / path.name
            copy_store(path, crashed)
            assert await audit(crashed) == BEFORE
            files.stop_failing()
            assert [task.attempt for task in await frontier.take(1, 9, leased=())] == [1]
        assert nth > 1
        assert list(receipt.links_new) == [800]
        assert frontier.totals() == AFTER
    assert await audit(path) == AFTER


async def test_a_disk_that_stays_full_is_reported_each_time_and_loses_nothing(path: Path, files: FaultyFiles) -> None:
    """The crawler pauses and tries again; reading still works."""
    async with opened(path, files) as frontier:
        settlement = await seeded(frontier)
        files.fail("write", 1, FULL, for_ever=True)
        for _ in range(3):
            with pytest.raises(FrontierFull, match="no room left"):
                await frontier.settle(settlement)
            assert len(await frontier.take(1, 9, leased=())) == 1
        files.stop_failing()
        assert (await frontier.settle(settlement)).queued == {1: 400, 2: 400}


async def test_an_fsync_that_keeps_failing_does_not_bring_the_commit_back(path: Path, files: FaultyFiles) -> None:
    """The log had all of it; the transaction that overwrites it may be stored or not."""
    async with opened(path, files) as frontier:
        settlement = await seeded(frontier)
        files.fail("sync", 1, SYNC_ERROR, for_ever=True)
        with pytest.raises(FrontierFull):
            await frontier.settle(settlement)
        crashed = path.parent / "crashed" / path.name
        copy_store(path, crashed)
        assert await audit(crashed) == BEFORE


async def test_a_commit_of_unknown_result_has_an_error_of_its_own(path: Path, files: FaultyFiles) -> None:
    """Repeating it could be wrong, so it is not FrontierFull."""
    async with opened(path, files) as frontier:
        settlement = await seeded(frontier)
        files.fail("sync", 1, SYNC_ERROR, for_ever=True)
        files.on_failure = lambda: files.fail("write", 1, WRITE_ERROR, for_ever=True)
        with pytest.raises(FrontierError, match="unknown") as raised:
            await frontier.settle(settlement)
        assert not isinstance(raised.value, FrontierFull)


async def test_a_lock_of_another_program_is_waited_for_then_reported(path: Path, files: FaultyFiles) -> None:
    """Nothing is stored, and it may be tried again."""
    async with opened(path, files) as frontier:
        settlement = await seeded(frontier)
        frontier._database._connection.set_busy_timeout(1)  # type: ignore[union-attr]
        other = apsw.Connection(str(path))
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(FrontierFull, match="another program"):
            await frontier.settle(settlement)
        other.execute("ROLLBACK")
        other.close()
        await frontier.settle(settlement)


@pytest.mark.parametrize("call", ["write", "sync"])
async def test_opening_on_a_failing_disk_is_an_os_error_and_harms_nothing(
    path: Path, files: FaultyFiles, call: str
) -> None:
    """For a failure at any call, of a new or an old store; without the failure it opens."""
    for _ in ("new", "old"):
        for nth in count(1):
            frontier = SqliteFrontier(path, vfs=files.name)
            files.fail(call, nth, FULL if call == "write" else SYNC_ERROR)
            try:
                await frontier.open()
            except OSError:
                files.stop_failing()
                continue
            files.stop_failing()
            break
        assert nth > 1
        assert frontier.totals() == Totals(0, 0, 0, 0, 0, 0)
        await frontier.close(clean=False)


async def test_closing_on_a_full_disk_ends_unclean(path: Path, files: FaultyFiles) -> None:
    """The next start then waits for every delay first; nothing is lost."""
    frontier = SqliteFrontier(path, vfs=files.name)
    await frontier.open()
    await frontier.settle(await seeded(frontier))
    files.fail("write", 1, FULL, for_ever=True)
    await frontier.close(clean=True)
    files.stop_failing()
    again = SqliteFrontier(path)
    assert not (await again.open()).clean
    await again.close(clean=True)
    assert await audit(path) == AFTER


# -- crashes


async def test_a_crash_at_any_write_leaves_all_or_nothing(path: Path, files: FaultyFiles) -> None:
    """The store is checked as it was before each write and sync of one settlement."""
    crashed: list[Path] = []

    def crash(_call: str) -> None:
        crashed.append(path.parent / f"crashed-{len(crashed)}" / path.name)
        copy_store(path, crashed[-1])

    async with opened(path, files) as frontier:
        settlement = await seeded(frontier)
        files.before = crash
        await frontier.settle(settlement)
        files.before = None
        crash("after")
    found_in = [await audit(one) for one in crashed]
    assert len(crashed) > 5
    assert set(found_in) <= {BEFORE, AFTER}
    assert (found_in[0], found_in[-1]) == (BEFORE, AFTER)


async def test_what_was_acknowledged_survives_a_power_cut(path: Path, files: FaultyFiles) -> None:
    """Only the synced bytes of each file are left."""
    synced: dict[str, bytes] = {}
    files.synced = lambda name: synced.__setitem__(name, Path(name).read_bytes())
    async with opened(path, files) as frontier:
        await frontier.settle(await seeded(frontier))
        dark = path.parent / "dark"
        dark.mkdir()
        for name, content in synced.items():
            if Path(name).exists():  # a removal is synced with its folder
                (dark / Path(name).name).write_bytes(content)
    assert await audit(dark / path.name) == AFTER


CHILD = """
import asyncio, sys
from pathlib import Path
from crawler.frontier.sqlite.store import SqliteFrontier
from tests.support.frontiers import NOW, batch, found, links, visit

async def main():
    frontier = SqliteFrontier(Path(sys.argv[1]))
    await frontier.open()
    await frontier.add([found("https://a.example/")], now=NOW)
    print("open", flush=True)
    n = 0
    while True:
        (task,) = await frontier.take(1, 1, leased=())
        n += 1
        urls = [f"https://a.example/{n}/{m}" for m in range(300)]
        await frontier.settle(batch(visit(task, discovered=links(*urls))))
        print(task.id, flush=True)

asyncio.run(main())
"""


@asynccontextmanager
async def child(path: Path) -> AsyncIterator[subprocess.Popen[str]]:
    """A process that owns the store, settles page after page and prints what is acknowledged."""
    process = subprocess.Popen([sys.executable, "-c", CHILD, str(path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert await asyncio.to_thread(process.stdout.readline) == "open\n"
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


async def test_a_killed_process_loses_nothing_acknowledged(path: Path) -> None:
    """After kill -9 during settlements the store opens at once, as unclean, with exact counters."""
    async with child(path) as process:
        assert process.stdout is not None
        acknowledged = [int(process.stdout.readline()) for _ in range(20)]
        process.send_signal(signal.SIGKILL)
        acknowledged += [int(line) for line in process.stdout.read().split()]
    frontier = SqliteFrontier(path)
    recovered = await frontier.open()
    totals = frontier.totals()
    (row,) = await frontier.host_rows(after=0, limit=9)
    await frontier.close(clean=True)
    assert not recovered.clean
    assert totals.done - len(acknowledged) in (0, 1)  # one may have been stored and not yet told
    connection = apsw.Connection(str(path))
    done = {row[0] for row in connection.execute("SELECT id FROM url WHERE state = 'done'")}
    rows = connection.execute("SELECT count(*) FROM url").get
    connection.close()
    assert done >= set(acknowledged)
    assert rows == totals.queued + totals.done == 1 + 300 * totals.done
    assert row.queued == totals.queued


async def test_a_second_process_is_refused_until_the_first_is_killed(path: Path) -> None:
    """The message names the owner; the kernel releases the lock of a dead process."""
    async with child(path) as process:
        with pytest.raises(FrontierLocked, match=f"frontier.db is in use by process {process.pid}$"):
            await SqliteFrontier(path).open()
    frontier = SqliteFrontier(path)
    await frontier.open()
    assert path.with_name("frontier.db.lock").read_text() == f"{os.getpid()}\n"
    await frontier.close(clean=True)


# -- cancellation


async def test_a_cancelled_settlement_is_stored_whole_and_the_frontier_goes_on(path: Path) -> None:
    """Only its result is lost."""
    frontier = SqliteFrontier(path)
    await frontier.open()
    settlement = await seeded(frontier)
    settling = asyncio.ensure_future(frontier.settle(settlement))
    await asyncio.sleep(0)  # handed to the thread
    settling.cancel()
    with pytest.raises(asyncio.CancelledError):
        await settling
    assert len(await frontier.take(2, 1_000, leased=())) == 400
    assert frontier.totals() == AFTER
    await frontier.close(clean=True)
    assert await audit(path) == AFTER


async def test_a_cancelled_open_releases_the_store(path: Path) -> None:
    """The next open succeeds."""
    first = SqliteFrontier(path)
    opening = asyncio.ensure_future(first.open())
    await asyncio.sleep(0)
    opening.cancel()
    with pytest.raises(asyncio.CancelledError):
        await opening
    second = SqliteFrontier(path)
    await second.open()
    await second.close(clean=True)


# -- what stands in the tables


async def test_the_row_of_a_visit(path: Path) -> None:
    """`why` and recrawls read it; a failure keeps the last record and digest."""
    frontier = SqliteFrontier(path)
    await frontier.open()
    await frontier.add([found("https://a.example/x?y")], now=NOW)
    warc = SinkFile("warc", "w", SinkFileState.OPEN, 0)
    seen = []
    reader = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READONLY)
    for outcome, state, place in (
        (response(404), UrlState.QUEUED, RecordLocation("w", 70)),
        (Failed(ErrorType.RESET, "gone " + "x" * 999, retryable=True), UrlState.QUEUED, None),
        (Denied(DenyReason.ROBOTS, "Disallow: /x"), UrlState.DENIED, None),
    ):
        (task,) = await frontier.take(1, 1, leased=())
        digest = "sha256:A" if place else None
        await frontier.settle(
            batch(visit(task, outcome, state=state, digest=digest), written=[place], sink_files=[warc])
        )
        seen.append(
            reader.execute(
                """SELECT attempts, last_status, last_error, substr(last_rule, 1, 12), length(last_rule), last_at,
                          digest, name, warc_offset, next_at
                   FROM visit LEFT JOIN sink_file ON sink_file.id = warc_file"""
            ).get
        )
    host = reader.execute("SELECT fetched, ok, errors, bytes, last_at, found_at FROM host").get
    target, via = reader.execute("SELECT target, via FROM url").get
    reader.close()
    await frontier.close(clean=True)
    kept = (NOW, "sha256:A", "w", 70, None)
    assert seen == [
        (1, 404, None, None, None, *kept),
        (2, None, "reset", "gone xxxxxxx", 500, *kept),
        (2, None, "robots", "Disallow: /x", 12, *kept),
    ]
    assert host == (1, 0, 2, 25, NOW, NOW)
    assert (target, via) == ("/x?y", None)
