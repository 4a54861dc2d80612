"""How new URLs and their hosts come into a database, and how they reach the agent that owns their slot.

A URL in a slot of this agent is looked up, and inserted if it is unknown. One in a slot of another goes, in the same
transaction, into the table `inbox`, from where that agent takes it in.
"""

from collections import Counter, OrderedDict, defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from typing import Any, Final

import orjson

from crawler.core.enums import Source, TaskKind, UrlState
from crawler.core.models import Discovered, Origin, Settlement, SitemapHint
from crawler.core.ownership import slot_in
from crawler.core.url import kind_key_of, legacy_key_of, registrable_domain, slot_of, target_of
from crawler.core.url_templates import ERROR_PAGE_LINKS
from crawler.frontier.base import HostCount
from crawler.frontier.postgresql import sql
from crawler.frontier.postgresql.connection import PostgresConnection, columns
from crawler.frontier.postgresql.slots import ALL_SLOTS, OwnSlots, key_id_of, made_id, slot_of_host
from crawler.frontier.rows import PendingChange

HOSTS_CACHED: Final = 65_536  # origins whose id is in memory
WITH_WORK: Final = "hosts_with_work"  # in the totals
INBOX_AT_ONCE: Final = 256  # rows of one transaction, of which each has the URLs that one transaction found in a slot
Found = tuple[int, int | None, float, Discovered]  # a number, the id of the page, when it was found, the URL


class DatabaseChange(PendingChange):
    """The changes of a transaction, with the sequence numbers that it uses."""

    __slots__ = ("error_page_hosts", "last_host", "last_url")

    def __init__(self, counts: dict[str, int], *, last_host: int, last_url: int) -> None:
        super().__init__(counts)
        self.last_host = last_host
        self.last_url = last_url
        self.error_page_hosts: set[int] = set()  # with new suspects that only error pages link to

    def add_hosts(self, count: int) -> None:
        self.counts["hosts"] = self.counts.get("hosts", 0) + count


class PostgresInsertions:
    """Inserts URLs and hosts. In memory are the ids of recently used hosts, what was taken down by name, and hosts with
    suspects that only error pages link to.
    """

    def __init__(self, connection: PostgresConnection, slots: OwnSlots) -> None:
        self._db = connection
        self._slots = slots
        self.key_name: Callable[[str], str] = registrable_domain  # makes the name of a politeness key of a host name
        self._host_ids: OrderedDict[Origin, int] = OrderedDict()
        self._forgotten_hosts: set[str] = set()
        self._legacy_marks: set[tuple[int, int]] = set()
        self._error_page_hosts: set[int] = set()

    async def load(self) -> None:
        """Read what is kept in memory."""
        await self.load_forgotten_hosts()
        self._legacy_marks = {(row[0], row[1]) for row in await self._db.rows(sql.LEGACY_MARKS, ALL_SLOTS)}
        self.know_error_pages(await self.error_page_hosts(self._slots.read))

    async def load_forgotten_hosts(self) -> None:
        self._forgotten_hosts = {row[0] for row in await self._db.rows(sql.FORGOTTEN_HOSTS, ALL_SLOTS)}

    async def error_page_hosts(self, slots: Sequence[int]) -> set[int]:
        """The hosts of these slots with suspects that only error pages link to."""
        return {row[0] for row in await self._db.rows(sql.ERROR_PAGE_HOSTS, slots, ERROR_PAGE_LINKS)}

    def know_error_pages(self, host_ids: Collection[int]) -> None:
        self._error_page_hosts.update(host_ids)

    def learn(self, change: DatabaseChange) -> None:
        """Keep in memory what a transaction has stored."""
        self._error_page_hosts |= change.error_page_hosts
        self._host_ids.update(change.ids)
        while len(self._host_ids) > HOSTS_CACHED:
            self._host_ids.popitem(last=False)

    # -- what was taken down

    @property
    def has_forgotten_hosts(self) -> bool:
        return bool(self._forgotten_hosts)

    def is_forgotten_host(self, host: str) -> bool:
        return host in self._forgotten_hosts

    def forget_host(self, host: str) -> None:
        """Insert no URL of a host any more."""
        self._forgotten_hosts.add(host)
        for origin in [origin for origin in self._host_ids if origin.host == host]:
            del self._host_ids[origin]

    def was_forgotten(self, host_id: int, one: Discovered) -> bool:
        """Whether the URL was taken down under a legacy key."""
        keys = [legacy_key_of(one.url, one.kind)]
        if one.legacy_url is not None:
            keys += [kind_key_of(one.legacy_url, one.kind), legacy_key_of(one.legacy_url, one.kind)]
        return any(key is not None and (host_id, key) in self._legacy_marks for key in keys)

    # -- new URLs

    async def put_found(
        self, settlements: Sequence[Settlement], hint_after_s: float | None, change: DatabaseChange
    ) -> list[int]:
        """Insert the URLs that visits discovered, with the visited URL as `via`. Returns the number of new URLs of each
        settlement; a URL that several of them found counts for the first.
        """
        links_new = [0] * len(settlements)
        found = [
            (index, settlement.task.id or None, settlement.finished_at, one)
            for index, settlement in enumerate(settlements)
            for one in settlement.discovered
        ]
        if not found:
            return links_new
        first_by_via: dict[int | None, int] = {}
        for index, via, _, _ in found:
            first_by_via.setdefault(via, index)
        new = await self.insert(found, change, hint_after_s)
        new_on: defaultdict[int, list[tuple[int, int, str]]] = defaultdict(list)  # URL id → as in Receipt.trial_links
        for number, url_id, host_id in new:
            _, via, _, one = found[number]
            links_new[first_by_via[via]] += 1
            if via is not None:
                new_on[via].append((url_id, host_id, target_of(one.url)))
        await self._note_suspects(settlements, new_on, change)
        return links_new

    async def _note_suspects(
        self,
        settlements: Sequence[Settlement],
        new_on: dict[int, list[tuple[int, int, str]]],
        change: DatabaseChange,
    ) -> None:
        """Make new URLs of error pages suspects, and note the new URLs of trials in `change.trial_links`."""
        for settlement in settlements:
            note, url_id, host_id = settlement.note, settlement.task.id, settlement.host_id
            if note is None or not settlement.discovered:
                continue
            new = new_on.get(url_id, [])
            if note.trial is not None:
                change.trial_links[url_id] = list(new)
            if note.is_error_page:
                ids = [id_ for id_, host, _ in new if host == host_id]
                change.error_page_hosts.add(host_id)
                if ids:
                    await self._db.run(sql.SET_STATES, ids, [UrlState.SUSPECT.value] * len(ids))
                    await self._db.run(
                        sql.PUT_SUSPECTS, ids, [host_id] * len(ids), [ERROR_PAGE_LINKS] * len(ids)
                    )  # fmt: skip
                    change.make_suspects(host_id, ERROR_PAGE_LINKS, len(ids))
        hosts = self._error_page_hosts | change.error_page_hosts
        links = {
            (host_id, one.key)
            for settlement in settlements
            if (host_id := settlement.host_id) in hosts
            and (settlement.note is None or not settlement.note.is_error_page)
            for one in settlement.discovered
            if (self._host_ids.get(one.origin) or change.ids.get(one.origin)) == host_id
        }
        if not links:
            return
        linked = await self._db.rows(sql.LINKED_SUSPECTS, *columns(list(links), 2), ERROR_PAGE_LINKS)
        ids = [row[0] for row in linked]
        if ids:
            await self._db.run(sql.SET_STATES, ids, [UrlState.QUEUED.value] * len(ids))
            await self._db.run(sql.END_SUSPECTS, ids)
        for _, host_id in linked:
            change.queue_again(host_id, UrlState.SUSPECT)
            change.linked.append(host_id)

    async def insert(
        self,
        found: Sequence[Found],
        change: DatabaseChange,
        hint_after_s: float | None,
    ) -> list[tuple[int, int, int]]:
        """Insert those URLs that are unknown: a number, the id of the page, a time and the URL of each. Returns index
        in `found`, id and host id of those.
        """
        at = found[0][2] if found else 0.0
        origins = {one.origin for *_, one in found} if self._slots.owns_all else await self._send_foreign(found)
        ids = await self.ids_of([one.origin for *_, one in found if one.origin in origins], at, change)
        first: dict[tuple[int, int], int] = {}  # host id and key → index of the first
        hosts: list[int] = []
        for index, (*_, one) in enumerate(found):
            host_id = ids.get(one.origin, 0)
            if host_id and self._legacy_marks and self.was_forgotten(host_id, one):
                host_id = 0
            hosts.append(host_id)
            if host_id:
                first.setdefault((host_id, one.key), index)
        asked = [pair for pair in first if pair[0] not in change.new_hosts]
        rows = await self._db.rows(sql.KNOWN, *columns(asked, 2)) if asked else []
        known = {asked[row[0] - 1]: row[1] for row in rows}
        new: list[tuple[int, int, int]] = []
        records: list[tuple[Any, ...]] = []
        for (host_id, key), index in first.items():
            if (host_id, key) in known:
                continue
            _, via, found_at, one = found[index]
            change.last_url += 1
            slot = slot_in(host_id)
            url_id = known[host_id, key] = made_id(change.last_url, slot)
            records.append(
                (slot, url_id, host_id, key, via, one.priority, one.depth, one.redirects, float(int(found_at)),
                 "queued", one.source.value, one.hop_path, None if one.kind is TaskKind.PAGE else one.kind.value,
                 target_of(one.url))
            )  # fmt: skip
            new.append((index, url_id, host_id))
        change.insert(Counter(host_id for *_, host_id in new))
        await self._db.copy("url", sql.URL_COLUMNS, records)
        await self._put_hints(found, hosts, known, hint_after_s)
        return new

    async def _put_hints(
        self,
        found: Sequence[Found],
        hosts: Sequence[int],
        known: dict[tuple[int, int], int],
        after_s: float | None,
    ) -> None:
        """Store what sitemaps say, and make URLs due sooner that have changed since their last visit."""
        hints: dict[int, tuple[Any, ...]] = {}
        for (_, _, seen_at, one), host_id in zip(found, hosts, strict=True):
            if one.hint is not None and host_id:
                url_id = known[host_id, one.key]
                hints[url_id] = (url_id, one.hint.priority, one.hint.lastmod, seen_at)
        if not hints:
            return
        await self._db.run(sql.PUT_HINTS, *columns(list(hints.values()), 4))
        if after_s is not None:
            dated = [(url_id, min(lastmod, at), at) for url_id, _, lastmod, at in hints.values() if lastmod is not None]
            urls, changed, seen = columns(dated, 3)
            await self._db.run(sql.BRING_FORWARD, urls, changed, after_s, seen)

    # -- hosts

    async def ids_of(self, origins: Iterable[Origin], found_at: float, change: DatabaseChange) -> dict[Origin, int]:
        """The id of each origin, whose host is inserted if need be; 0 if its host was taken down."""
        ids: dict[Origin, int] = {}
        missing: list[Origin] = []
        for origin in origins:
            if origin not in ids:
                known = self._host_ids.get(origin) or change.ids.get(origin)
                if known is None and origin.host not in self._forgotten_hosts:
                    missing.append(origin)
                ids[origin] = known or 0
        if not missing:
            return ids
        stored = await self.stored_ids(missing)
        for origin in missing:
            host_id = stored.get(origin)
            if host_id is None:
                domain = registrable_domain(origin.host)
                slot = slot_of(domain)
                change.last_host += 1
                host_id = made_id(change.last_host, slot)
                change.new_hosts[host_id] = (origin, slot, domain, key_id_of(self.key_name(origin.host)), found_at)
                change.add_hosts(1)
            ids[origin] = change.ids[origin] = host_id
        return ids

    async def stored_ids(self, origins: Sequence[Origin]) -> dict[Origin, int]:
        """The ids of those origins that have a row."""
        names = [(slot_of_host(origin.host), origin.host, origin.scheme, origin.port) for origin in origins]
        rows = await self._db.rows(sql.HOST_IDS_OF, *columns(names, 4))
        return {origins[number - 1]: host_id for number, host_id in rows}

    async def add_to_hosts(self, change: DatabaseChange) -> dict[int, HostCount]:
        """Store the changes of hosts. Returns the counts of those whose queue changed."""
        change.schedule_at = now = max(self._db.state.schedule_at, change.schedule_at)
        await self._insert_hosts(change, now)
        counts: dict[int, HostCount] = {}
        flat: list[tuple[Any, ...]] = []
        for host_id, one in change.hosts.items():
            if host_id in change.new_hosts:
                if one.queued or one.suspects:
                    counts[host_id] = HostCount(one.queued, change.new_hosts[host_id][3])
                    change.counts[WITH_WORK] = change.counts.get(WITH_WORK, 0) + 1
                continue
            flat.append((host_id, one.queued, one.fetched, one.ok, one.errors, one.bytes, one.last_at, one.suspects,
                         one.again))  # fmt: skip
        if not flat:
            return counts
        woken: list[int] = []
        for host_id, queued, suspects, key_id in await self._db.rows(sql.ADD_TO_HOSTS, *columns(flat, 9), now):
            one = change.hosts[host_id]
            if not (one.queued or one.suspects):
                continue
            has_work, had_work = queued + suspects > 0, queued + suspects > one.queued + one.suspects
            change.counts[WITH_WORK] = change.counts.get(WITH_WORK, 0) + has_work - had_work
            counts[host_id] = HostCount(queued, key_id)
            if one.queued > 0 or (has_work and not had_work):
                woken.append(host_id)
        if woken:
            await self._db.run(sql.WAKE_KEYS, woken)
        return counts

    async def _insert_hosts(self, change: DatabaseChange, now: float) -> None:
        """Insert the rows of new hosts and of their politeness keys, when all their URLs are counted."""
        if not change.new_hosts:
            return
        records: list[tuple[Any, ...]] = []
        keys: dict[int, float | None] = {}
        for host_id, (origin, slot, domain, key, found_at) in change.new_hosts.items():
            counted = change.hosts.get(host_id)
            queued, suspects = (counted.queued, counted.suspects) if counted is not None else (0, 0)
            has_work = queued + suspects > 0
            records.append(
                (slot, host_id, origin.scheme, origin.host, origin.port, domain, found_at, key, queued, suspects,
                 has_work, now if has_work else 0.0)
            )  # fmt: skip
            if has_work or key not in keys:
                keys[key] = now if has_work else None
        await self._db.copy("host", sql.HOST_COLUMNS, records)
        await self._db.run(sql.PUT_NEW_KEYS, list(keys), list(keys.values()))

    # -- URLs in slots of other agents

    async def _send_foreign(self, found: Sequence[Found]) -> set[Origin]:
        """Put URLs in slots of others in their inbox. Returns the origins of all other URLs."""
        slots = {one.origin: slot_of_host(one.origin.host) for *_, one in found}
        ours = {origin for origin, slot in slots.items() if slot in self._slots.owned}
        foreign = [
            (slots[one[3].origin], one)
            for one in found
            if one[3].origin not in ours and one[3].origin.host not in self._forgotten_hosts
        ]
        if foreign:
            await self._db.run(sql.PUT_IN_INBOX, *columns(inbox_rows(foreign), 3))
        return ours


def inbox_rows(found: Iterable[tuple[int, Found]]) -> list[tuple[int, int, bytes]]:
    """URLs with their slots as rows: slot, number of URLs, and these."""
    by_slot: defaultdict[int, list[Sequence[object]]] = defaultdict(list)
    for slot, (_, via, at, one) in found:
        hint = None if one.hint is None else (one.hint.priority, one.hint.lastmod)
        by_slot[slot].append(
            (via, at, one.url, one.origin.scheme, one.origin.host, one.origin.port, one.key, one.depth, one.hop_path,
             one.source.value, one.priority, one.redirects, one.kind.value, hint, one.legacy_url)
        )  # fmt: skip
    return [(slot, len(urls), orjson.dumps(urls)) for slot, urls in by_slot.items()]


def inbox_urls(text: bytes) -> Iterator[Found]:
    """The URLs of a row."""
    for (
        via,
        at,
        url,
        scheme,
        host,
        port,
        key,
        depth,
        hop_path,
        source,
        priority,
        redirects,
        kind,
        hint,
        legacy,
    ) in orjson.loads(text):
        yield (
            0,
            via,
            at,
            Discovered(
                url, Origin(scheme, host, port), key, depth, hop_path, Source(source), priority, redirects,
                TaskKind(kind), None if hint is None else SitemapHint(*hint), legacy,
            ),
        )  # fmt: skip
