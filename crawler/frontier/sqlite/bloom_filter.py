"""Bloom filters of the known URLs of a store (`frontier.duplicates = "filter"`), in memory, in place of an index.

An index by key is written at random positions: once it is larger than the page cache, every new URL costs the write of
a page. The filters cost four bytes of memory per URL. At most two new URLs in a million are taken for known ones and
never stored. An item is the host and the key, combined with a secret of the store. So nobody can choose URLs of one
host that collide with those of another, and equal keys of two hosts are two items.

Invariant: the filters hold no URL that is not in the store. URLs are added after their transaction is committed. The
file of the filters and the store have the same token; URLs that are newer than the file are read from the store at the
start. A file with another token (after a crash between the two writes, or with a restored backup) is not used.
"""

import contextlib
import os
import secrets
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from operator import index
from pathlib import Path
from typing import Any, Final

import apsw
import orjson
from rbloom import Bloom
from xxhash import xxh3_128_digest

from crawler.core.models import Discovered
from crawler.frontier.base import FrontierError
from crawler.frontier.sqlite import sql
from crawler.frontier.sqlite.database import Database

FIRST_CAPACITY: Final = 8_000_000  # URLs of the first filter; each further one has twice the capacity …
FIRST_ERROR: Final = 1e-6  # … and half the error rate: 2e-6 at most for all together
SAVE_EVERY: Final = 2_000_000  # new URLs between two saves: after a crash they are read again in a few seconds
_MAGIC: Final = b"crawler filter 1\n"
_LEARN_ROWS: Final = 100_000  # of the store, read at a time


@dataclass(slots=True)
class _FilterPart:
    bloom: Bloom
    capacity: int
    count: int = 0


class BloomFilters:
    """The known URLs of a store. `path` is the file that keeps them between runs."""

    def __init__(self, path: Path, database: Database) -> None:
        """Load the file, or read all URLs from the store: about 20 seconds for ten million."""
        self._path = path
        self._db = database
        self._secret = self._secret_of_store()
        self._parts: list[_FilterPart] = []
        self._blooms: list[Bloom] = []
        self._unsaved = 0
        self._covered = self._load()
        self._learn_from_store()

    def is_new(self, fresh: set[int], host_id: int, key: int) -> bool:
        """Whether a URL is neither known nor in `fresh`. It is then added to `fresh`."""
        item = (host_id << 64) ^ key ^ self._secret
        if item in fresh or any(item in bloom for bloom in self._blooms):
            return False
        fresh.add(item)
        return True

    def select(
        self, fresh: set[int], host_ids: Sequence[int], page: Sequence[Discovered]
    ) -> list[tuple[int, Discovered]]:
        """Select the new links of a page, as `is_new` does, with their host ids. Links with host id 0 are dropped."""
        secret = self._secret
        items = [(host_id << 64) ^ one.key ^ secret for host_id, one in zip(host_ids, page, strict=True)]
        unknown: Iterable[int] = range(len(items))
        for bloom in self._blooms:  # most are known to the first
            unknown = [number for number in unknown if items[number] not in bloom]
        new = []
        for number in unknown:
            item = items[number]
            if item not in fresh and host_ids[number]:
                fresh.add(item)
                new.append((host_ids[number], page[number]))
        return new

    def learn(self, fresh: Collection[int]) -> None:
        """Add committed items, and save the file after every SAVE_EVERY of them."""
        if not fresh:
            return
        self._put(fresh)
        if self._unsaved >= SAVE_EVERY:
            self.save()

    def save(self) -> None:
        """Write the file. If that fails, the old file stays valid."""
        if self._unsaved == 0 and self._path.exists():
            return
        covered = self._db.get(sql.LAST_URL)
        token = secrets.token_hex(8)
        temporary = self._path.with_name(self._path.name + ".new")
        # The items are committed already, so an error here must not be reported as a failed commit.
        with contextlib.suppress(OSError, apsw.Error, FrontierError):
            with temporary.open("wb") as file:
                for piece in self._pieces(token, covered):
                    file.write(piece)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(self._path)
            with self._db.transaction():
                self._db.run(sql.PUT_META, ("filter", token))
            self._unsaved = 0

    def _pieces(self, token: str, covered: int) -> Iterator[bytes]:
        parts = []
        blobs = [part.bloom.save_bytes() for part in self._parts]
        for part, blob in zip(self._parts, blobs, strict=True):
            parts.append([part.capacity, part.count, len(blob), xxh3_128_digest(blob).hex()])
        yield _MAGIC
        yield orjson.dumps({"token": token, "covered": covered, "parts": parts}, option=orjson.OPT_APPEND_NEWLINE)
        yield from blobs

    def _load(self) -> int:
        """Load the file. Returns the row up to which it covers the store, 0 without a valid file."""
        token = self._db.get(sql.META, ("filter",))
        try:
            with self._path.open("rb") as file:
                if token is None or file.readline() != _MAGIC:
                    return 0
                header = orjson.loads(file.readline())
                if header["token"] != token:
                    return 0
                for capacity, count, size, digest in header["parts"]:
                    blob = file.read(size)
                    if xxh3_128_digest(blob).hex() != digest:
                        self._parts.clear()
                        return 0
                    self._parts.append(_FilterPart(Bloom.load_bytes(blob, index), capacity, count))
        except (FileNotFoundError, orjson.JSONDecodeError, KeyError, TypeError):
            self._parts.clear()
            return 0
        self._blooms = [part.bloom for part in self._parts]
        return int(header["covered"])

    def _learn_from_store(self) -> None:
        rows = self._db.rows(sql.KEYS_ABOVE, (self._covered,))
        while items := [(host << 64) ^ key ^ self._secret for host, key in islice(rows, _LEARN_ROWS)]:
            self._put(items)

    def _put(self, items: Collection[int]) -> None:
        if not self._parts or self._parts[-1].count + len(items) > self._parts[-1].capacity:
            self._grow()
        last = self._parts[-1]
        last.bloom.update(items)
        last.count += len(items)
        self._unsaved += len(items)

    def _grow(self) -> None:
        n = len(self._parts)
        capacity = FIRST_CAPACITY << n
        self._parts.append(_FilterPart(Bloom(capacity, FIRST_ERROR / (1 << n), index), capacity))
        self._blooms = [part.bloom for part in self._parts]

    def _secret_of_store(self) -> int:
        stored: Any = self._db.get(sql.META, ("filter_secret",))
        if stored is None:
            stored = secrets.token_hex(15)  # 120 bits: with the host's number above the key it fits in 128
            with self._db.transaction():
                self._db.run(sql.PUT_META, ("filter_secret", stored))
        return int(stored, 16)


def use_index(database: Database, *, unique: bool) -> None:
    """Create the index that the search for duplicates needs. `unique`: a unique index by key. Else, with filters, an
    index by host of the URLs that are not in the index url_queued, so that a new URL is in one index only.
    """
    has_key = database.get("SELECT 1 FROM sqlite_schema WHERE name = 'url_key'") is not None
    if has_key == unique:
        return
    with database.transaction():
        if unique:
            database.run("CREATE UNIQUE INDEX url_key ON url (host, hash)")
            database.run("DROP INDEX url_settled")
        else:
            database.run("CREATE INDEX url_settled ON url (host) WHERE state <> 'queued'")
            database.run("DROP INDEX url_key")
