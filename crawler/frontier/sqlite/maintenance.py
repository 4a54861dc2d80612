"""Maintenance of a whole store: dates for revisits, hosts to re-evaluate, and the upgrade of keys to current rules."""

from collections.abc import Collection, Sequence
from typing import Any, Final

import orjson

from crawler.core.enums import TaskKind
from crawler.core.models import Origin
from crawler.core.url import KEY_RULES, kind_key_of, legacy_key_of
from crawler.frontier.base import Sweep, UndatedPage
from crawler.frontier.sqlite import sql
from crawler.frontier.sqlite.database import Database, json_list

_ALL: Final = "all"
RULES: Final = "key_rules"  # in `meta`
SLICE: Final = 20_000  # rows of one transaction
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
    if database.get(sql.META, (RULES,)) == str(KEY_RULES):
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
        database.run(sql.PUT_META, (RULES, str(KEY_RULES)))
        database.run(sql.END_META, (_DONE,))
