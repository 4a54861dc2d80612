"""Inserts URLs: the rows of their hosts, their own rows, and the hints of sitemaps. Recognises those that are known.

It writes within a transaction of `writer`. It keeps in memory the ids of recently used hosts, the names of hosts that
were taken down, and the legacy keys of URLs that were taken down. Invariant: all of this was committed.

Known URLs are recognised by an index, or by Bloom filters in memory (`frontier.duplicates = "filter"`). An index by key
is written at random positions: once it is larger than the page cache, every new URL costs the write of a page. The
filters cost four bytes of memory per URL. At most two new URLs in a million are taken for known ones and never stored.
An item is the host and the key, combined with a secret of the store. So nobody can choose URLs of one host that collide
with those of another, and equal keys of two hosts are two items.

Invariant: the filters hold no URL that is not in the store. URLs are added after their transaction is committed. The
file of the filters and the store have the same token; URLs that are newer than the file are read from the store at the
start. A file with another token (after a crash between the two writes, or with a restored backup) is not used.
"""

import contextlib
import os
import secrets
from collections import Counter, OrderedDict, defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import compress, islice
from operator import index, itemgetter
from pathlib import Path
from typing import Any, Final, cast

import apsw
import orjson
from rbloom import Bloom
from xxhash import xxh3_128_digest

from crawler.core.enums import TaskKind, UrlState
from crawler.core.models import Discovered, Origin, Settlement
from crawler.core.url import kind_key_of, legacy_key_of, name_hash, registrable_domain, slot_of, target_of
from crawler.core.url_templates import ERROR_PAGE_LINKS
from crawler.frontier.base import FrontierError
from crawler.frontier.rows import PendingChange
from crawler.frontier.sqlite import sql
from crawler.frontier.sqlite.database import Database, json_list

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


HOSTS_CACHED: Final = 65_536  # origins whose id is in memory; some 20 MiB when full
MANY: Final = 5_000  # URLs or hosts of one transaction, from which on they are a part of a list of seeds
_Hint = tuple[int, int, float | None, float | None, float]  # the columns of sql.PUT_HINTS


class Insertions:
    """Inserts URLs. Known URLs are recognised by `seen`, or by the index of the store if it is None."""

    def __init__(self, database: Database, seen: BloomFilters | None, key_name: Callable[[str], str]) -> None:
        """`key_name` makes the name of a politeness key of a host name."""
        self._db = database
        self.seen = seen
        self._key_name = key_name
        self._keys_are_domains = key_name is registrable_domain
        self._host_ids: OrderedDict[Origin, int] = OrderedDict()
        # Hosts with suspects that only error pages link to: most stores have none.
        self._error_page_hosts = {host_id for (host_id,) in database.rows(sql.ERROR_PAGE_HOSTS, (ERROR_PAGE_LINKS,))}
        self._forgotten_hosts = {
            host for (host,) in database.rows(sql.FORGOTTEN_HOSTS)
        }  # few: each was named by an operator
        self._legacy_marks = set(database.rows(sql.LEGACY_MARKS))  # a few for each URL named by an operator

    def put(self, discovered: Sequence[Discovered], found_at: float, change: PendingChange) -> list[int]:
        """Insert URLs that were not found on a page. Returns 1 for each new URL, 0 for known and repeated ones."""
        last_id = self._db.get(sql.LAST_URL)
        flat: list[Any] = []
        hints: list[_Hint] = []
        host_ids = self._bind_urls(flat, hints, discovered, None, found_at, change)
        self._db.run_many(sql.INSERT_URLS, flat)
        self._put_hints(hints, last_id)
        if self._db.get(sql.COUNT_NEW, (last_id,)) == len(discovered):
            links_new = [1] * len(discovered)
        else:
            new = {(host_id, key) for host_id, key in orjson.loads(self._db.get(sql.NEW_KEYS, (last_id,)))}
            links_new = []
            for host_id, one in zip(host_ids, discovered, strict=True):
                links_new.append(int((host_id, one.key) in new))
                new.discard((host_id, one.key))
        change.insert(Counter(compress(host_ids, links_new)))
        return links_new

    def put_found(
        self, settlements: Sequence[Settlement], hint_after_s: float | None, change: PendingChange
    ) -> list[int]:
        """Insert the URLs that visits discovered, with the visited URL as `via`. Returns the number of new URLs of each
        settlement; a URL that several of them found counts for the first.
        """
        links_new = [0] * len(settlements)
        flat: list[Any] = []
        hints: list[_Hint] = []
        index_by_via: dict[int | None, int] = {}
        for place, settlement in enumerate(settlements):
            if settlement.discovered:
                via = settlement.task.id or None
                self._bind_urls(flat, hints, settlement.discovered, via, settlement.finished_at, change)
                index_by_via.setdefault(via, place)
        if not flat:
            return links_new
        last_id = self._db.get(sql.LAST_URL)
        self._db.run_many(sql.INSERT_URLS, flat)
        self._put_hints(hints, last_id)
        if hint_after_s is not None and hints and self.seen is None:
            self._bring_forward(hints, hint_after_s)
        for host_id, via, count in orjson.loads(self._db.get(sql.NEW_BY_VIA, (last_id,))):
            links_new[index_by_via[via]] += count
            change.insert({host_id: count})
        self._note_suspects(settlements, last_id, change)
        return links_new

    def _note_suspects(self, settlements: Sequence[Settlement], last_id: int, change: PendingChange) -> None:
        """Make new URLs of error pages suspects, and note the new URLs of trials in `change.trial_links`."""
        for settlement in settlements:
            note, url_id, host_id = settlement.note, settlement.task.id, settlement.host_id
            if note is None or not settlement.discovered:
                continue
            if note.trial is not None:
                change.trial_links[url_id] = orjson.loads(self._db.get(sql.NEW_ON, (last_id, url_id)))
            if note.is_error_page:
                ids = self._db.get(sql.NEW_IDS_ON, (last_id, url_id, host_id))
                new = orjson.loads(ids)
                self._db.run(sql.SET_STATE, (UrlState.SUSPECT, ids))
                flat = [value for id_ in new for value in (id_, host_id, ERROR_PAGE_LINKS)]
                self._db.run_many(sql.PUT_SUSPECTS, flat)
                change.make_suspects(host_id, ERROR_PAGE_LINKS, len(new))
                self._error_page_hosts.add(host_id)
        if self._error_page_hosts and self.seen is None:
            self._queue_linked(settlements, change)

    def _queue_linked(self, settlements: Sequence[Settlement], change: PendingChange) -> None:
        """Queue suspects from error pages that another page links to."""
        links: list[tuple[int, int]] = []
        for settlement in settlements:
            host_id = settlement.host_id
            if host_id in self._error_page_hosts and (settlement.note is None or not settlement.note.is_error_page):
                links += [(host_id, one.key) for one in settlement.discovered if self._id_of(one, change) == host_id]
        if not links:
            return
        found = orjson.loads(self._db.get(sql.LINKED_SUSPECTS, (json_list(links), ERROR_PAGE_LINKS)))
        ids = json_list([url_id for url_id, _ in found])
        self._db.run(sql.SET_STATE, (UrlState.QUEUED, ids))
        self._db.run(sql.END_SUSPECTS, (ids,))
        for _, host_id in found:
            change.queue_again(host_id, UrlState.SUSPECT)
            change.linked.append(host_id)

    def _id_of(self, one: Discovered, change: PendingChange) -> int | None:
        known = self._host_ids.get(one.origin)
        return change.ids.get(one.origin) if known is None else known

    def host_id(self, origin: Origin, found_at: float, change: PendingChange) -> int:
        """The id of an origin's row, which `insert_hosts` inserts if need be; 0 if its host was taken down."""
        host_id = self._host_ids.get(origin)
        if host_id is None:
            host_id = change.ids.get(origin)
        return self._stored_ids([origin], found_at, change)[origin] if host_id is None else host_id

    def _stored_ids(self, origins: Sequence[Origin], found_at: float, change: PendingChange) -> dict[Origin, int]:
        """The ids of different origins that are not in memory, as `host_id` returns them."""
        ids = dict.fromkeys(origins, 0)
        if len(origins) >= MANY:  # in order of the index of names: what is next to each other is written together
            origins = sorted(origins, key=itemgetter(1))
        if self._forgotten_hosts:
            origins = [origin for origin in origins if origin.host not in self._forgotten_hosts]
        of_port: defaultdict[tuple[str, int], list[Origin]] = defaultdict(list)
        for origin in origins:
            of_port[origin.scheme, origin.port].append(origin)
        for (scheme, port), group in of_port.items():
            names = json_list([origin.host for origin in group])
            for number, host_id in orjson.loads(self._db.get(sql.HOST_IDS_OF, (names, scheme, port))):
                ids[group[number]] = host_id
        new = [origin for origin in origins if not ids[origin]]
        if new:
            first_id = self._db.get(sql.LAST_HOST) + len(change.new_hosts) + 1
            for host_id, origin in enumerate(new, first_id):
                host = origin[1]
                domain = registrable_domain(host)
                key = domain if self._keys_are_domains else self._key_name(host)
                ids[origin] = host_id
                change.new_hosts[host_id] = origin, slot_of(domain), domain, name_hash(key), found_at
            change.counts["hosts"] = change.counts.get("hosts", 0) + len(new)
        return ids

    def insert_hosts(self, change: PendingChange, now: float) -> None:
        """Insert the rows of new hosts and of their politeness keys, when all their URLs are counted.

        A list of seeds has a new host on each line: each row is written once, not inserted and then updated. `now` is
        schedule time: when hosts with work are ready.
        """
        flat: list[Any] = []
        keys: dict[int, float | None] = {}
        for host_id, (origin, slot, domain, key, found_at) in change.new_hosts.items():
            counted = change.hosts.get(host_id)
            queued, suspects = (counted.queued, counted.suspects) if counted is not None else (0, 0)
            ready_at = now if queued + suspects > 0 else None
            flat += (host_id, slot, origin.scheme, origin.host, origin.port, domain, found_at, key,
                     queued, suspects, ready_at or 0.0)  # fmt: skip
            if ready_at is not None or key not in keys:
                keys[key] = ready_at
        self._db.run_many(sql.INSERT_HOSTS, flat)
        self._db.run_many(sql.PUT_NEW_KEYS, [value for key in sorted(keys) for value in (key, keys[key])])

    @property
    def has_forgotten_hosts(self) -> bool:
        """Whether any host was taken down."""
        return bool(self._forgotten_hosts)

    def is_forgotten_host(self, host: str) -> bool:
        """Whether a host was taken down."""
        return host in self._forgotten_hosts

    def forget_host(self, host: str) -> None:
        """Insert no more URLs of a host that was taken down (it is in the table forgotten_host)."""
        self._forgotten_hosts.add(host)
        for origin in [origin for origin in self._host_ids if origin.host == host]:
            del self._host_ids[origin]

    def committed(self, change: PendingChange) -> None:
        """Keep the hosts and URLs of a committed transaction in memory."""
        if len(change.ids) < MANY:  # those of a list of seeds would push out all others
            self._host_ids.update(change.ids)
        if self.seen is not None:
            self.seen.learn(change.fresh)
        while len(self._host_ids) > HOSTS_CACHED:
            self._host_ids.popitem(last=False)

    def _bind_urls(
        self,
        flat: list[Any],
        hints: list[_Hint],
        discovered: Sequence[Discovered],
        via: int | None,
        found_at: float,
        change: PendingChange,
    ) -> list[int]:
        """Append the columns of sql.INSERT_URLS to `flat` and those of sql.PUT_HINTS to `hints`. Returns the host id of
        each URL, 0 for what was taken down.
        """
        found_second = int(found_at)  # not later than the fetch; it takes four bytes instead of eight
        host_ids = self._ids_of(discovered, found_at, change)
        if self._legacy_marks:
            host_ids = [0 if self.was_forgotten(*pair) else pair[0] for pair in zip(host_ids, discovered, strict=True)]
        found: Iterable[tuple[int, Discovered]] = zip(host_ids, discovered, strict=True)
        if self.seen is not None:
            found = self.seen.select(change.fresh, host_ids, discovered)
        for host_id, one in found:
            if host_id == 0:
                continue
            flat += (host_id, one.key, one.priority, one.depth, target_of(one.url),
                     via, one.source, one.hop_path, one.redirects, found_second,
                     None if one.kind is TaskKind.PAGE else one.kind)  # fmt: skip
            if one.hint is not None:
                hints.append((host_id, one.key, one.hint.priority, one.hint.lastmod, found_at))
        return host_ids

    def was_forgotten(self, host_id: int | None, one: Discovered) -> bool:
        """Whether the URL was taken down under a legacy key."""
        first = legacy_key_of(one.url, one.kind)
        if first is not None and (host_id, first) in self._legacy_marks:
            return True
        if one.legacy_url is None:
            return False
        keys = (kind_key_of(one.legacy_url, one.kind), legacy_key_of(one.legacy_url, one.kind))
        return any((host_id, key) in self._legacy_marks for key in keys)

    def _ids_of(self, discovered: Sequence[Discovered], found_at: float, change: PendingChange) -> list[int]:
        """The host id of each URL; hosts are inserted if need be. 0 for a host that was taken down."""
        cached_id, ids = self._host_ids.get, change.ids
        known = [cached_id(one.origin) for one in discovered]
        if None not in known:
            return cast(list[int], known)
        missing = dict.fromkeys(
            one.origin
            for host_id, one in zip(known, discovered, strict=True)
            if host_id is None and one.origin not in ids
        )
        if missing:
            ids.update(self._stored_ids(list(missing), found_at, change))
        return [ids[one.origin] if host_id is None else host_id for host_id, one in zip(known, discovered, strict=True)]

    def _put_hints(self, hints: Sequence[_Hint], last_id: int) -> None:
        if self.seen is None:
            self._db.run_many(sql.PUT_HINTS, [value for hint in hints for value in hint])
        elif hints:
            ids = {(host, key): url_id for url_id, host, key in orjson.loads(self._db.get(sql.NEW_IDS, (last_id,)))}
            flat = [value for host_id, key, *hint in hints for value in (ids[host_id, key], *hint)]
            self._db.run_many(sql.PUT_HINTS_BY_ID, flat)

    def _bring_forward(self, hints: Sequence[_Hint], after_s: float) -> None:
        """Make URLs due sooner that, by a sitemap's lastmod, have changed since their last visit."""
        flat = [
            value
            for host_id, key, _, lastmod, seen_at in hints
            if lastmod is not None
            for value in (host_id, key, min(lastmod, seen_at), after_s, seen_at)
        ]
        self._db.run_many(sql.BRING_FORWARD, flat)
