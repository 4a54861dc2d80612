"""Changes of a whole store or host: takedowns, dates for revisits, hosts to re-evaluate, keys by the current rules.

URLs and hosts that an operator has forgotten are erased and never stored again. The row of a URL stays as a mark
without an address, so that the URL is recognised as known. Each other key that the URL may have gets a mark of its own,
which does not count as a URL. A host is recognised by its name. The table `takedown` lists the records that must be
removed from the output files. All functions run in the thread that owns the connection.

Invariant: once the first transaction of a host's takedown is stored, no URL of the host is inserted any more, and the
takedown will be finished, if need be at the next start.
"""

from collections import Counter
from collections.abc import Collection, Sequence
from typing import Any, Final

import orjson

from crawler.core.enums import TaskKind, UrlState
from crawler.core.models import Discovered, Origin
from crawler.core.url import KEY_RULES, every_key_of, key_of, kind_key_of, legacy_key_of
from crawler.frontier.base import Forgotten, Sweep, UndatedPage
from crawler.frontier.rows import FORGOTTEN_ERROR, KEY_RULES_MADE, PendingChange
from crawler.frontier.sqlite import sql
from crawler.frontier.sqlite.database import Database, json_list
from crawler.frontier.sqlite.writer import LOWEST, StateRow, Writer

_ALL: Final = "all"
SLICE: Final = 20_000  # rows of one transaction
ERASE_SLICE: Final = 2_000  # URLs of one transaction of a takedown; other calls wait for it some tens of milliseconds
_UNFINISHED: Final = "forgetting"  # in `meta`: hosts whose takedown is not finished
_DONE: Final = "rekeyed_to"
_SWEEP: Final = "sweep"  # in `meta`: generation, after, last


def dated_to(database: Database) -> int | None:
    """See Frontier.dated_to."""
    known = database.get(sql.META, ("dated",))
    return None if known == _ALL else int(known or 0)


def undated(database: Database, after: int, rows: int) -> tuple[list[UndatedPage], int | None]:
    """See Frontier.undated."""
    last_id = int(database.get(sql.LAST_URL))
    columns = orjson.loads(database.get(sql.UNDATED, (after + 1, after + rows)))
    return [UndatedPage(*row) for row in columns], after + rows if after + rows < last_id else None


def put_dates(database: Database, dates: Sequence[tuple[int, float]], mark: int | None) -> None:
    """See Frontier.put_dates."""
    flat: list[Any] = [value for date in dates for value in date]
    with database.transaction():
        database.run_many(sql.PUT_DATES, flat)
        database.run(sql.PUT_META, ("dated", _ALL if mark is None else str(mark)))


def judge_by(database: Database, rules: str) -> Sweep | None:
    """See Frontier.judge_by."""
    if database.get(sql.META, ("rules",)) == rules:
        return None
    before, last = sweep(database), int(database.get(sql.LAST_HOST))
    begun = Sweep(1 if before is None else before.generation + 1, 0, last) if last else None
    with database.transaction():
        database.run(sql.PUT_META, ("rules", rules))
        if begun is not None:
            _put_sweep(database, begun)
    return begun


def sweep(database: Database) -> Sweep | None:
    """See Frontier.sweep."""
    stored = database.get(sql.META, (_SWEEP,))
    return None if stored is None else Sweep(*orjson.loads(stored))


def swept(database: Database, done: Sweep, marked: Collection[int]) -> None:
    """See Frontier.swept."""
    known = sweep(database)
    with database.transaction():
        for host_id in marked:
            database.run(sql.PUT_TO_REEVALUATE, (host_id,))
        if known is not None and known.generation == done.generation:
            _put_sweep(database, done)


def _put_sweep(database: Database, done: Sweep) -> None:
    if done.after < done.last:
        database.run(sql.PUT_META, (_SWEEP, orjson.dumps([done.generation, done.after, done.last]).decode()))
    else:
        database.run(sql.END_META, (_SWEEP,))


def marked_hosts(database: Database, after: int, limit: int) -> list[int]:
    """See Frontier.marked_hosts. They are in the order of the text of their ids."""
    host_ids: list[int] = orjson.loads(database.get(sql.MARKED_HOSTS, (after, limit)))
    return host_ids


def reevaluation_mark(database: Database, host_id: int) -> int:
    """See Frontier.reevaluation_mark."""
    return int(database.get(sql.REEVALUATION_MARK, (host_id,)) or 0)


def reevaluated(database: Database, host_id: int, found_mark: int) -> None:
    """See Frontier.reevaluated."""
    if found_mark:
        with database.transaction():
            database.run(sql.REEVALUATED, (host_id, found_mark))


def upgrade_keys(database: Database) -> None:
    """Replace keys that were made by older rules, in one pass over all URLs. KEY_RULES is the current version."""
    if database.get(sql.META, (KEY_RULES_MADE,)) == str(KEY_RULES):
        return
    after, last = int(database.get(sql.META, (_DONE,)) or 0), int(database.get(sql.LAST_URL))
    while after < last:
        changed = []
        for url_id, scheme, host, port, target, kind in orjson.loads(database.get(sql.QUERIES, (after, after + SLICE))):
            url = f"{Origin(scheme, host, port)}{target}"
            kind = TaskKind.PAGE if kind is None else TaskKind(kind)
            first = legacy_key_of(url, kind)
            if first is not None:
                changed.append((url_id, first, kind_key_of(url, kind)))
        after += SLICE
        with database.transaction():
            if changed:
                database.run(sql.REKEY, (json_list(changed),))
                database.run(sql.END_META, ("filter",))
            database.run(sql.PUT_META, (_DONE, str(after)))
    with database.transaction():
        database.run(sql.PUT_META, (KEY_RULES_MADE, str(KEY_RULES)))
        database.run(sql.END_META, (_DONE,))


def forget_url(writer: Writer, url: str, origin: Origin, now: float) -> Forgotten:
    """See Frontier.forget_url."""
    database = writer.database
    with writer.change() as change:
        host_id = writer.urls.host_id(origin, now, change)
        if host_id == 0:
            return Forgotten(again=True)
        statement = sql.KNOWN_AS if writer.seen is None else sql.KNOWN_AS_OF_HOST
        known = orjson.loads(database.get(statement, (host_id, json_list(every_key_of(url)))))
        rows = [(url_id, host_id, state) for url_id, _, state in known if state != UrlState.FORGOTTEN]
        _erase(writer, rows, now, change)
        kept = {key for _, key, _ in known}
        flat: list[Any] = []
        for key in every_key_of(url):
            if key not in kept:
                if writer.seen is not None:
                    writer.seen.is_new(change.fresh, host_id, key)
                flat += (host_id, key, 0, 0, "", None, "", "", 0, now, None)
        new = len(flat) // sql.INSERT_URLS.width
        change.add(UrlState.FORGOTTEN, new)
        was_forgotten = any(key == key_of(url) and state == UrlState.FORGOTTEN for _, key, state in known)
        change.marks += len(rows) + new - (not was_forgotten)
        last_id = database.get(sql.LAST_URL)
        database.run_many(sql.INSERT_URLS, flat)
        database.run(sql.MARK_FORGOTTEN_ABOVE, (last_id,))
    ids = tuple(sorted(url_id for url_id, _, _ in rows))
    return Forgotten(len(rows), _queued(rows), ids, (host_id,), list(change.receipt(()).hosts), was_forgotten)


def forget_host(writer: Writer, host: str, now: float) -> Forgotten:
    """The first transaction of Frontier.forget_host."""
    database = writer.database
    with writer.change():
        database.run(sql.PUT_FORGOTTEN_HOST, (host, now))
        unfinished = {*_unfinished(writer), host}
        database.run(sql.PUT_META, (_UNFINISHED, json_list(sorted(unfinished))))
    again = writer.urls.is_forgotten_host(host)
    writer.urls.forget_host(host)
    ids: Sequence[int] = orjson.loads(database.get(sql.IDS_OF_HOST_NAME, (host,)))
    return Forgotten(host_ids=tuple(ids), again=again)


def forgotten(writer: Writer, found: Sequence[Discovered]) -> list[Discovered]:
    """See Frontier.forgotten."""
    if not writer.totals.forgotten and not writer.urls.has_forgotten_hosts:
        return []
    statement = sql.KNOWN_AS if writer.seen is None else sql.KNOWN_AS_OF_HOST
    by_origin: dict[Origin, list[Discovered]] = {}
    for one in found:
        by_origin.setdefault(one.origin, []).append(one)
    gone: set[int] = set()
    for origin, ours in by_origin.items():
        host_id = writer.database.get(sql.HOST_ID, (origin.host, origin.scheme, origin.port))
        keys = json_list([one.key for one in ours])
        known = orjson.loads(writer.database.get(statement, (host_id, keys)))
        marks = {key for _, key, state in known if state == UrlState.FORGOTTEN}
        gone.update(one.key for one in ours if one.key in marks or writer.urls.was_forgotten(host_id, one))
    return [one for one in found if writer.urls.is_forgotten_host(one.origin.host) or one.key in gone]


def forget_slice(
    writer: Writer, after: int, *, host_id: int, now: float, erased: list[int]
) -> tuple[dict[int, int], int | None]:
    """Erase up to ERASE_SLICE URLs of a host after cursor `after` (LOWEST at first); their number is added to `erased`.

    Returns how many of them were queued, by host, and the next cursor, None at the end.
    """
    database = writer.database
    statement = sql.URLS_OF_HOST if writer.seen is None else sql.URLS_OF_HOST_BY_ID
    rows = orjson.loads(database.get(statement, (host_id, after, ERASE_SLICE)))
    with writer.change() as change:
        stored = [(url_id, host_id, state) for url_id, _, state in rows if state != UrlState.FORGOTTEN]
        _erase(writer, stored, now, change)
    erased.append(len(stored))
    return _queued(stored), rows[-1][1] if len(rows) == ERASE_SLICE else None


def finish_host(writer: Writer, host: str) -> None:
    """The last transaction of Frontier.forget_host: erase what is known about the host itself."""
    database = writer.database
    with writer.change():
        for host_id in orjson.loads(database.get(sql.IDS_OF_HOST_NAME, (host,))):
            for statement in sql.ERASE_HOST:
                database.run(statement, (host_id,))
        left = [name for name in _unfinished(writer) if name != host]
        database.run(sql.PUT_META, (_UNFINISHED, json_list(left)))


def finish_all(writer: Writer) -> None:
    """Finish takedowns that a crash interrupted."""
    for host in _unfinished(writer):
        now = writer.database.get(sql.FORGOTTEN_AT, (host,))
        for host_id in orjson.loads(writer.database.get(sql.IDS_OF_HOST_NAME, (host,))):
            after: int | None = LOWEST
            while after is not None:
                _, after = forget_slice(writer, after, host_id=host_id, now=now, erased=[])
        finish_host(writer, host)


def _queued(rows: Sequence[StateRow]) -> dict[int, int]:
    return dict(Counter(host_id for _, host_id, state in rows if state == UrlState.QUEUED))


def _unfinished(writer: Writer) -> list[str]:
    stored = writer.database.get(sql.META, (_UNFINISHED,))
    return [] if stored is None else list(orjson.loads(stored))


def _erase(writer: Writer, rows: Sequence[StateRow], now: float, change: PendingChange) -> None:
    """List the records of URLs in the table `takedown`, then erase all about the URLs except their keys."""
    if not rows:
        return
    database = writer.database
    ids = json_list([url_id for url_id, _, _ in rows])
    database.run(sql.LIST_TAKEDOWNS, (now, ids))
    for statement in sql.ERASE_URLS:
        database.run(statement, (ids,))
    database.run(sql.PUT_FORGOTTEN_VISITS, (now, FORGOTTEN_ERROR, ids))
    for _, host_id, state in rows:
        change.move(host_id, state, UrlState.FORGOTTEN)
