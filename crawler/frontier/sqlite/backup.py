"""Backup and export of a store: a consistent copy, or its URLs and hosts row by row, beside a crawl or without one.

It takes no lock and changes nothing. Invariant: a copy or list is the store as it was at one moment.
"""

import errno
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import apsw

from crawler.frontier.sqlite.sql import COPIED_AT, PUT_META, TAKEDOWNS
from crawler.frontier.sqlite.store_reader import StoreReader

COPY_PAGES: Final = 4_096  # of one step: 16 MiB between two calls of `progress`

URL_FIELDS: Final = (
    "url", "state", "kind", "depth", "priority", "source", "hop_path", "via", "found_at", "attempts", "visits",
    "last_at", "last_status", "last_error", "last_rule", "next_at", "etag", "last_modified", "digest", "warc_file",
    "warc_offset",
)  # fmt: skip
HOST_FIELDS: Final = (
    "origin", "domain", "state", "queued", "fetched", "ok", "errors", "bytes", "found_at", "last_at", "robots",
    "robots_fetched_at", "crawl_delay_s",
)  # fmt: skip

_ORIGIN: Final = """{0}.scheme || '://' || {0}.host ||
  CASE WHEN {0}.port = iif({0}.scheme = 'https', 443, 80) THEN '' ELSE ':' || {0}.port END"""
_URLS: Final = f"""
SELECT {_ORIGIN.format("h")} || u.target, u.state, {{kind}}, u.depth, u.priority, u.source, u.hop_path,
       {_ORIGIN.format("vh")} || vu.target, u.found_at, coalesce(v.attempts, 0), {{visits}}, v.last_at, v.last_status,
       v.last_error, v.last_rule, v.next_at, v.etag, v.last_modified, v.digest, f.name, v.warc_offset
FROM url AS u CROSS JOIN host AS h ON h.id = u.host LEFT JOIN visit AS v ON v.url = u.id
LEFT JOIN url AS vu ON vu.id = u.via LEFT JOIN host AS vh ON vh.id = vu.host
LEFT JOIN sink_file AS f ON f.id = v.warc_file
WHERE u.state <> 'forgotten' AND (?1 IS NULL OR u.state = ?1) ORDER BY u.id"""  # noqa: S608 - put together from what stands here
_HOSTS: Final = f"""
SELECT {_ORIGIN.format("h")}, domain, state, queued, fetched, ok, errors, bytes, found_at, last_at, r.verdict,
       r.fetched_at, r.crawl_delay_s
FROM host AS h LEFT JOIN robots AS r ON r.host = h.id ORDER BY h.id"""  # noqa: S608 - the same


class StoreBackup(StoreReader):
    """A store reader that copies or lists everything. Raises what StoreReader does."""

    def urls(self, state: str | None = None) -> Iterator[tuple[Any, ...]]:
        """The values of URL_FIELDS of every URL that was not taken down, in the order in which they were found."""
        new = self.version >= 2
        kind, visits = ("coalesce(u.kind, 'page')", "coalesce(v.visits, 0)") if new else ("'page'", "0")
        yield from self._execute(_URLS.format(kind=kind, visits=visits), (state,))

    def takedowns(self) -> Iterator[tuple[Any, ...]]:
        """Records to remove: URL, WARC file, offset, and time of the takedown (UTC)."""
        if "takedown" in self._tables:
            yield from self._execute(TAKEDOWNS)

    def hosts_listed(self) -> Iterator[tuple[Any, ...]]:
        """The values of HOST_FIELDS of every host."""
        yield from self._execute(_HOSTS)

    def backup(self, target: Path, progress: Callable[[int, int], None]) -> None:
        """Copy the store as it is now to `target`, which must not exist. `progress` gets pages done and pages in all.

        A read transaction is held meanwhile: the crawl goes on, and its write-ahead log grows. The copy is marked as
        not cleanly closed, so that a crawl resumed from it waits for every host's delay first; and as restored, so that
        nothing of output files that have grown since is lost. Raises FileExistsError, OSError.
        """
        if target.exists():
            raise FileExistsError(errno.EEXIST, "exists already: a backup overwrites nothing", str(target))
        partial = target.with_name(target.name + ".partial")
        partial.unlink(missing_ok=True)
        try:
            self._copy(partial, progress)
            with partial.open("rb") as file:
                os.fsync(file.fileno())
            os.link(partial, target)  # unlike a rename, it fails if the target exists by now
        finally:
            for suffix in ("", "-journal", "-wal"):
                partial.with_name(partial.name + suffix).unlink(missing_ok=True)
        folder = os.open(target.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

    def _copy(self, partial: Path, progress: Callable[[int, int], None]) -> None:
        try:
            copy = apsw.Connection(str(partial))
        except apsw.CantOpenError:
            raise FileNotFoundError(errno.ENOENT, "cannot be written there", str(partial)) from None
        try:
            with self._explained():
                # With a snapshot, a commit of the owner does not restart the copy.
                self._connection.execute("BEGIN; SELECT count(*) FROM meta").get  # noqa: B018 - takes the snapshot
                try:
                    with copy.backup("main", self._connection, "main") as backup:
                        while not backup.done:
                            backup.step(COPY_PAGES)
                            progress(backup.page_count - backup.remaining, backup.page_count)
                finally:
                    self._connection.execute("COMMIT")
            copy.pragma("journal_mode", "delete")
            copy.execute(PUT_META, ("clean", "0")).get  # noqa: B018 - runs it
            copy.execute(PUT_META, (COPIED_AT, str(int(time.time())))).get  # noqa: B018 - runs it
        except apsw.FullError as error:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(partial)) from error
        finally:
            copy.close()
