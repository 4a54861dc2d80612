"""The SQLite file of a store: the lock of its owner, the thread that uses it, its transactions, and what errors mean.

Every call of `Database` comes from the one thread that owns the connection. Invariant: after `transaction` has raised,
nothing of that transaction is stored, not even after a crash, and the connection is usable again.
"""

import asyncio
import contextlib
import errno
import fcntl
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib.resources import files
from pathlib import Path
from typing import Any, Final, TypeVar

import apsw
import orjson

from crawler.frontier.base import FrontierCorrupt, FrontierError, FrontierFull, FrontierLocked, FrontierVersion
from crawler.frontier.sqlite.sql import ManyRows


class OwnerLock:
    """A lock file that one process holds between `acquire` and `release`."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._fd: int | None = None

    def acquire(self) -> None:
        """Raises FrontierLocked, naming the owner's pid, or OSError if the file cannot be opened."""
        fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            owner = os.read(fd, 32).decode("ascii", "replace").strip()
            os.close(fd)
            process = f"process {owner}" if owner else "another process"
            raise FrontierLocked(f"{self._path.with_suffix('')} is in use by {process}") from None
        except BaseException:
            os.close(fd)
            raise
        # On a full disk the lock holds without the owner's pid.
        with contextlib.suppress(OSError):
            os.ftruncate(fd, 0)
            os.pwrite(fd, b"%d\n" % os.getpid(), 0)
        self._fd = fd

    def release(self) -> None:
        """Release the lock, if held. The file stays: removing it could remove the lock of the next owner."""
        if self._fd is None:
            return
        fd, self._fd = self._fd, None
        with contextlib.suppress(OSError):
            os.ftruncate(fd, 0)
        os.close(fd)


T = TypeVar("T")


class OneThread:
    """A thread that runs jobs one after the other. A transaction is never cut off by the interpreter's exit: that waits
    for the jobs.
    """

    def __init__(self, name: str) -> None:
        self._executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix=name)

    async def run(self, job: Callable[[], T]) -> T:
        """Run a job after those before it. Returns or raises what it does; it runs even if this await is cancelled."""
        return await asyncio.shield(self._submit(job))

    async def finish(self, job: Callable[[], T]) -> T:
        """Run the last job, then end the thread. Both happen even if this await is cancelled."""
        last = self._submit(job)
        self._executor.shutdown(wait=False)
        result = await asyncio.shield(last)
        self._executor.shutdown()  # the thread has delivered its last result: this waits for microseconds
        return result

    def _submit(self, job: Callable[[], T]) -> "asyncio.Future[T]":
        return asyncio.get_running_loop().run_in_executor(self._executor, job)


APPLICATION_ID: Final = 0x4352574C  # "CRWL": tells our files from other SQLite files
# Step i brings a store from version i to i + 1. Released steps are never edited.
MIGRATIONS: Final[tuple[str, ...]] = tuple(
    files("crawler.frontier.sqlite").joinpath(name).read_text(encoding="utf-8")
    for name in ("schema.sql", *(f"schema_{version}.sql" for version in range(2, 11)))
)

# The block size of most file systems. A commit writes every page that it changed, mostly one row on each of many index
# pages, so larger pages would only write more.
PAGE_BYTES: Final = 4_096
CACHE_BYTES: Final = 16 * 1024 * 1024  # the upper levels of the indexes of ten million URLs, and warm leaves
# While lists of seeds are stored: a transaction of them changes pages all over the indexes of hosts, and what does not
# fit is written, and read again, more than once.
BULK_CACHE_BYTES: Final = 64 * 1024 * 1024
# A checkpoint writes each page once, however many commits changed it. 16 MiB of log avoid most repeated writes, and are
# copied within tenths of a second on a slow disk. SQLite's own default is 1,000 pages.
CHECKPOINT_PAGES: Final = 4_096
# While there always is a reader, the log cannot start over. From this size on a checkpoint waits for readers.
LOG_LIMIT_PAGES: Final = 16_384
BUSY_MS: Final = 2_000  # for other programs that read the file; we are its only writer
_COUNT_UNDONE: Final = (
    "INSERT INTO meta (name, value) VALUES ('undone_commits', '1') ON CONFLICT (name) DO UPDATE SET value = value + 1"
)
_RAISED_AFTER_WRITING: Final = frozenset(
    (apsw.SQLITE_IOERR_FSYNC, apsw.SQLITE_IOERR_SHMOPEN, apsw.SQLITE_IOERR_SHMSIZE, apsw.SQLITE_IOERR_SHMMAP)
)
_HEADER_BYTES: Final = 20  # of the file; byte 18 names the journal that it was last written with
_ROLLBACK_JOURNAL: Final = 1
MAX_BOUND: Final = 8_000  # values bound to one statement, with the interpreter's lock held for a millisecond or two
_MAX_TEXT: Final = 16_300  # characters of a statement: apsw caches those of up to 16,384


def _text(statement: ManyRows, rows: int) -> str:
    row = "(" + ",".join("?" * statement.width) + ")"
    return f"{statement.head} VALUES {','.join([row] * rows)} {statement.tail}"


def json_list(values: Sequence[Any]) -> str:
    """Values as JSON, for json_each in a statement."""
    return orjson.dumps(values).decode()


@contextlib.contextmanager
def explained(explain: Callable[[apsw.Error], Exception]) -> Iterator[None]:
    """Raise what `explain` makes of SQLite's errors in place of them."""
    try:
        yield
    except apsw.Error as error:
        meaning = explain(error)
        if meaning is error:
            raise
        raise meaning from error


def check_version(path: Path, application_id: int, version: int, *, newest: int = len(MIGRATIONS)) -> None:
    """Raises FrontierCorrupt for a file of another program, FrontierVersion for one of a newer version."""
    if application_id != APPLICATION_ID or version < 1:
        raise FrontierCorrupt(f"{path} is a database of another program")
    if version > newest:
        raise FrontierVersion(f"{path} has version {version}, this program knows up to {newest}: use the newer program")


def refuse_foreign_log(path: Path) -> None:
    """Refuse a backup with a write-ahead log beside it. The log belongs to the store that the backup replaces, and
    SQLite would apply it. Raises FrontierCorrupt.

    Do not call it while this process has the store open: closing a file releases all locks that the process has on it
    (fcntl(2)), SQLite's too.
    """
    log = path.with_name(path.name + "-wal")
    try:
        if log.stat().st_size == 0:
            return
        with path.open("rb") as file:
            header = file.read(_HEADER_BYTES)
    except OSError:
        return  # there is no log or no store; other errors occur again when it is opened
    if len(header) == _HEADER_BYTES and header[18] == _ROLLBACK_JOURNAL:
        raise FrontierCorrupt(f"{path} is a backup, and {log.name} beside it belongs to another store: move it away")


class Database:
    """An open connection. `vfs`: an apsw VFS, for tests with failing disks."""

    def __init__(self, path: Path, *, vfs: str | None = None, migrations: Sequence[str] = MIGRATIONS) -> None:
        """Open or create. Raises FrontierCorrupt, FrontierVersion or OSError."""
        self._path = path
        self._next_wait_pages = LOG_LIMIT_PAGES
        self._cache_bytes = 0
        flags = apsw.SQLITE_OPEN_READWRITE | apsw.SQLITE_OPEN_CREATE
        refuse_foreign_log(path)
        with explained(self.explain_opening):
            self._connection = apsw.Connection(str(path), flags=flags, vfs=vfs)
            try:
                self._set_up(migrations)
                # A path descriptor: closing another one would release SQLite's locks.
                self._file = os.open(path, os.O_PATH | os.O_CLOEXEC)
            except BaseException:
                self._connection.close()
                raise

    def _set_up(self, migrations: Sequence[str]) -> None:
        connection = self._connection
        connection.set_busy_timeout(BUSY_MS)
        version = self._identify(newest=len(migrations))
        if version == 0:
            connection.pragma("page_size", PAGE_BYTES)
        if connection.pragma("journal_mode", "wal") != "wal":
            raise OSError(
                errno.ENOTSUP, "this file system has no shared memory, which SQLite's log needs", str(self._path)
            )
        # A few group commits a second cost as many fsyncs; NORMAL could lose the last ones to a power cut.
        connection.pragma("synchronous", "full")
        self.resize_cache(CACHE_BYTES)
        # With mapped pages a bad sector would be a SIGBUS instead of an error.
        connection.pragma("mmap_size", 0)
        connection.pragma("temp_store", "memory")
        # The only writer keeps its references valid; checking would cost a look-up for each new URL.
        connection.pragma("foreign_keys", "off")
        # Else a statement with a WHERE is compiled again when other values are bound to it, since statistics (STAT4)
        # might give another plan, and there are none: `take` took 68 µs instead of 10.
        connection.config(apsw.SQLITE_DBCONFIG_ENABLE_QPSG, 1)
        connection.pragma("journal_size_limit", LOG_LIMIT_PAGES * PAGE_BYTES)
        connection.set_wal_hook(self._committed)
        for step in range(version, len(migrations)):
            connection.execute("BEGIN IMMEDIATE")  # one transaction for each step; a failure closes the connection
            try:
                self.run(migrations[step])
                connection.pragma("application_id", APPLICATION_ID)
                connection.pragma("user_version", step + 1)
                connection.execute("COMMIT")
            except BaseException:
                self._roll_back()
                raise

    def resize_cache(self, size: int) -> None:
        """Let the pages in memory have up to `size` bytes; those beyond are let go."""
        if size != self._cache_bytes:
            self._connection.pragma("cache_size", -size // 1024)
            self._cache_bytes = size

    def _identify(self, *, newest: int) -> int:
        """The schema version of the file; 0 for an empty one."""
        connection = self._connection
        application_id, version = connection.pragma("application_id"), connection.pragma("user_version")
        if application_id == 0 and version == 0 and connection.execute("SELECT count(*) FROM sqlite_schema").get == 0:
            if connection.pragma("page_count") == 0 and self._path.stat().st_size > 0:
                raise FrontierCorrupt(f"{self._path} is damaged or no database: it is shorter than a page")
            return 0
        check_version(self._path, application_id, version, newest=newest)
        return int(version)

    # -- statements

    def run(self, sql: str, values: Sequence[Any] = ()) -> None:
        """Run statements without results."""
        self._connection.execute(sql, values).get  # noqa: B018 - reads to the end

    def commit(self, sql: str, values: Sequence[Any] = ()) -> None:
        """Run one statement as a transaction of its own."""
        with self.transaction():
            self.run(sql, values)

    def get(self, sql: str, values: Sequence[Any] = ()) -> Any:
        """One value, one row, or None. Reads beside a busy event loop aggregate to one JSON value: each row would take
        the interpreter's lock anew.
        """
        return self._connection.execute(sql, values).get

    def rows(self, sql: str, values: Sequence[Any] = ()) -> Iterator[tuple[Any, ...]]:
        return iter(self._connection.execute(sql, values))

    def run_many(self, statement: ManyRows, flat: Sequence[Any]) -> None:
        """Run a statement for many rows; `flat` has their values one after the other.

        It runs as few statements as possible: each one waits for the interpreter's lock beside a busy event loop.
        Binding was 2.5 times as fast as passing JSON to json_each.
        """
        width, full_text = statement.width, ""
        at_most = min(MAX_BOUND // width, (_MAX_TEXT - len(_text(statement, 0))) // (2 * width + 2))
        for start in range(0, len(flat), at_most * width):
            part = flat[start : start + at_most * width]
            if is_full := len(part) == at_most * width:
                text = full_text = full_text or _text(statement, at_most)
            else:
                text = _text(statement, len(part) // width)
            # Others differ in length each time: caching them would push useful statements out of the cache.
            self._connection.execute(text, part, can_cache=is_full)

    # -- transactions

    @contextlib.contextmanager
    def transaction(self) -> Iterator[None]:
        """Commit what the block does; undo it if the block or the commit raises.

        Raises FrontierError if a failing disk leaves it unknown whether the transaction is stored, and FrontierFull if
        the file was moved or deleted.
        """
        connection = self._connection
        if not self._is_in_place():
            raise FrontierFull(f"{self._path} was deleted or replaced while it was in use: put it back")
        connection.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            self._roll_back()
            raise
        try:
            connection.execute("COMMIT")
        except apsw.Error as error:
            self._roll_back()
            if isinstance(error, apsw.IOError) and _extended(error) != apsw.SQLITE_IOERR_WRITE:
                self._overwrite_failed_commit()
            raise

    def _is_in_place(self) -> bool:
        try:
            return os.path.samestat(os.fstat(self._file), self._path.stat())
        except OSError:
            return False

    def _roll_back(self) -> None:
        if self._connection.in_transaction:
            with contextlib.suppress(apsw.Error):  # after a failed write SQLite may have rolled back by itself
                self._connection.execute("ROLLBACK")

    def _overwrite_failed_commit(self) -> None:
        """Make sure that a failed commit stays undone.

        If only the fsync failed, all its pages may be in the log. This connection ignores them, but the recovery after
        a crash would find and apply them. The next transaction overwrites them, so one is written now.
        """
        try:
            self._connection.execute("BEGIN IMMEDIATE")
            self._connection.execute(_COUNT_UNDONE)
            self._connection.execute("COMMIT")
        except apsw.Error as error:
            self._roll_back()
            if _extended(error) not in _RAISED_AFTER_WRITING:
                raise FrontierError(
                    f"{self._path}: it is unknown whether the last commit is stored: {error}"
                ) from error

    def _committed(self, _connection: apsw.Connection, _name: str, pages: int) -> int:
        """Run a checkpoint if the log is long. A failure does not matter to the commit: the log has everything,
        and the next commit tries again.
        """
        with contextlib.suppress(apsw.Error):
            if pages >= self._next_wait_pages:
                self._next_wait_pages = pages + LOG_LIMIT_PAGES  # each wait delays a commit: not at every one
                self._connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)
            elif pages >= CHECKPOINT_PAGES:
                self._connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_PASSIVE)
        if pages < CHECKPOINT_PAGES:
            self._next_wait_pages = LOG_LIMIT_PAGES
        return apsw.SQLITE_OK

    def close(self) -> None:
        """Copy the whole log into the file and close both."""
        # What cannot be copied stays in the log for the next start.
        with contextlib.suppress(apsw.Error):
            self._connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)
        with contextlib.suppress(apsw.Error):
            self._connection.close()
        os.close(self._file)

    # -- what errors mean

    def explain(self, error: apsw.Error) -> Exception:
        """The frontier's error for one of SQLite's; `error` itself if it is a bug."""
        match error:
            case apsw.NotADBError() | apsw.CorruptError() | apsw.FormatError():
                return FrontierCorrupt(f"{self._path} is damaged or no database: {error}")
            case apsw.FullError():
                return FrontierFull(f"no room left for {self._path}: {error}")
            case apsw.IOError() | apsw.CantOpenError() | apsw.ReadOnlyError():
                return FrontierFull(f"cannot read or write {self._path}: {error}")
            case apsw.BusyError() | apsw.LockedError() | apsw.ProtocolError():
                return FrontierFull(f"another program keeps {self._path} locked: {error}")
            case _:
                return error

    def explain_opening(self, error: apsw.Error) -> Exception:
        """As `explain`, but an unusable disk is an OSError: there is no open store yet that could try again."""
        path = str(self._path)
        if self._path.is_dir():
            return IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), path)
        if isinstance(error, apsw.ReadOnlyError | apsw.PermissionsError) or (
            self._path.exists() and not os.access(path, os.R_OK | os.W_OK)
        ):
            return PermissionError(errno.EACCES, os.strerror(errno.EACCES), path)
        explained = self.explain(error)
        if isinstance(explained, FrontierFull):
            code = errno.ENOSPC if isinstance(error, apsw.FullError) else errno.EIO
            return OSError(code, str(explained), path)
        return explained


def _extended(error: apsw.Error) -> int:
    return int(getattr(error, "extendedresult", 0))  # apsw's annotations leave it out
