"""The scheduling state of hosts and politeness keys: which of them may be requested next, and what they left behind.

A key is active while the crawl has it in memory. Of the other keys, those that have work stand in an index by the time
at which one of their hosts may be requested, and the hosts of a key in another. Both are kept up by the transactions
that change what is queued. All functions run in the thread that owns the connection.

Invariants: a key that is not active and has a host with work that is not parked for an event is in the index of ready
keys. Nothing here takes time in proportion to the number of hosts, except `assign_keys` after a change of
politeness.key.
"""

import itertools
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any, Final

import orjson

from crawler.core.models import UNTIL_EVENT, Backoff, HostReadiness, HostRow, KeyRow
from crawler.core.url import name_hash
from crawler.frontier.base import Entered, Leaving, Wanted
from crawler.frontier.rows import KEY_NAMES, host_row
from crawler.frontier.sqlite import sql
from crawler.frontier.sqlite.database import Database, json_list

_MODE: Final = "politeness_key"  # in `meta`: what `host.key` was made by
_ASSIGNED: Final = "keys_assigned_to"  # in `meta`: up to this host, while they are assigned
SLICE: Final = 20_000  # hosts of one transaction
UNPARK_SLICE: Final = 2_000
KEYS_AT_ONCE: Final = 64  # whose hosts are read in one statement


def assign_keys(database: Database, mode: str | None) -> Callable[[str], str]:
    """Give every host its politeness key: for a store of an older version, or after politeness.key was changed to
    `mode` (None: as it is). Returns the function that makes the name of a key of a host name.
    """
    stored = database.get(sql.META, (_MODE,))
    mode = mode or stored or "domain"
    name_of = KEY_NAMES[mode]
    if stored == mode:
        return name_of
    if database.get(sql.META, (_ASSIGNED + mode,)) is None:
        with database.transaction():
            for statement in sql.DROP_KEYS:
                database.run(statement)
            database.run(sql.PUT_META, (_ASSIGNED + mode, "0"))
    after = int(database.get(sql.META, (_ASSIGNED + mode,)))
    while hosts := orjson.loads(database.get(sql.HOST_NAMES, (after, SLICE))):
        after = hosts[-1][0]
        with database.transaction():
            database.run(sql.PUT_HOST_KEYS, (json_list([(id_, name_hash(name_of(host))) for id_, host in hosts]),))
            database.run(sql.PUT_META, (_ASSIGNED + mode, str(after)))
    with database.transaction():
        for statement in sql.MAKE_KEYS:
            database.run(statement)
        for name in KEY_NAMES:
            database.run(sql.END_META, (_ASSIGNED + name,))
        database.run(sql.PUT_META, (_MODE, mode))
    return name_of


def end_activity(database: Database) -> None:
    """No key is active any more: those that were get their place in the index back."""
    with database.transaction():
        database.run(sql.END_ACTIVITY)


def wake_keys(database: Database, host_ids: Collection[int]) -> None:
    """Put the keys of hosts that have new work into the index of ready keys, unless they are active."""
    database.run(sql.WAKE_KEYS, (json_list(list(host_ids)), UNTIL_EVENT))


def put_readiness(database: Database, hosts: Iterable[HostReadiness]) -> None:
    """Store when hosts may be requested."""
    flat: list[Any] = []
    for one in hosts:
        flat += (one.host_id, one.ready_at, one.parked, one.failures, one.reason, int(one.has_responded), one.queued)
    database.run_many(sql.PUT_READINESS, flat)


def exchange(database: Database, leaving: Leaving, wanted: Wanted, name_of: Callable[[str], str]) -> Entered:
    """Read what enters memory, make its keys active, and store what leaves: none that leaves enters."""
    keys, more, named = _enter(database, wanted, name_of)
    put_readiness(database, leaving.hosts)
    database.run_many(sql.LEAVE_KEYS, [value for key in leaving.keys for value in key])
    return Entered(keys, more, named, database.get(sql.NEXT_READY))


_More = dict[int, tuple[tuple[HostRow, ...], float | None]]


def _enter(
    database: Database, wanted: Wanted, name_of: Callable[[str], str]
) -> tuple[list[KeyRow], _More, list[HostRow]]:
    """The parts of Entered but `next_at`."""
    named: list[HostRow] = []
    if wanted.host_ids:
        rows_of = orjson.loads(database.get(sql.HOSTS_OF_IDS, (json_list(list(wanted.host_ids)),)))
        named = [host_row(columns) for columns in rows_of]
    names = {name_hash(name): name for name in (*wanted.names, *(name_of(row.origin.host) for row in named))}
    if names:
        active = set(orjson.loads(database.get(sql.ACTIVE_KEYS, (json_list(list(names)),))))
        names = {id_: name for id_, name in names.items() if id_ not in active}
        database.run(sql.ADD_KEYS, (json_list(list(names)),))
    hosts_of = _hosts_of(database, dict.fromkeys(names, ()), wanted.hosts, name_of)
    places = wanted.places
    ready = orjson.loads(database.get(sql.READY_KEYS, (wanted.ready_by, places + len(names)))) if places else []
    ready = [id_ for id_ in ready if id_ not in names]
    while ready and places > 0:
        some, ready = ready[:KEYS_AT_ONCE], ready[KEYS_AT_ONCE:]
        for id_, (hosts, more_at) in _hosts_of(database, dict.fromkeys(some, ()), wanted.hosts, name_of).items():
            if places <= 0:
                break
            hosts_of[id_] = hosts, more_at
            if hosts:
                places -= len(hosts)
                names[id_] = name_of(hosts[0].origin.host)
    ids = json_list(list(names))
    rows = {row[0]: row for row in orjson.loads(database.get(sql.KEYS, (ids,)))}
    if rows:
        database.run(sql.ACTIVATE_KEYS, (ids,))
    found = json_list(list(names.values()))
    backoffs = {row[0]: Backoff(*row) for row in orjson.loads(database.get(sql.BACKOFFS_OF, (found,)))}
    slow: dict[str, float] = dict(orjson.loads(database.get(sql.SLOW_RESPONSES_OF, (found,))))
    keys = []
    for id_, name in names.items():
        _, requested_at, open_at, crawl_delay_s = rows[id_]
        hosts, more_at = hosts_of[id_]
        response_s = slow.get(name, 0.0)
        keys.append(
            KeyRow(id_, name, requested_at, open_at, crawl_delay_s, backoffs.get(name), response_s, hosts, more_at)
        )
    if empty := [id_ for id_ in hosts_of if id_ not in names]:  # their hosts have no work any more
        database.run_many(sql.LEAVE_KEYS, [value for id_ in empty for value in (id_, None, 0.0)])
    more = _hosts_of(database, wanted.more, wanted.hosts, name_of)
    entering = itertools.chain(named, *(hosts for hosts, _ in (*hosts_of.values(), *more.values())))
    if parked := [row.id for row in entering if row.parked is not None]:
        database.run(sql.ENTER_HOSTS, (UNTIL_EVENT, json_list(parked)))
    return keys, more, named


def _hosts_of(
    database: Database, wanted: Mapping[int, Collection[int]], limit: int, name_of: Callable[[str], str]
) -> _More:
    """The hosts of each key that are first to be requested, but for those in `wanted`, and when another one has work.
    All keys at once: beside a busy event loop each statement waits for the interpreter's lock.
    """
    if not wanted:
        return {}
    pairs = orjson.dumps([[id_, list(known)] for id_, known in wanted.items()]).decode()
    of_key: dict[int, list[HostRow]] = {id_: [] for id_ in wanted}
    for columns in orjson.loads(database.get(sql.READY_HOSTS, (pairs, UNTIL_EVENT, limit + 1))):
        row = host_row(columns)
        of_key[name_hash(name_of(row.origin.host))].append(row)
    found: _More = {}
    for id_, rows in of_key.items():
        rows.sort(key=lambda row: row.ready_at)
        found[id_] = tuple(rows[:limit]), rows[limit].ready_at if len(rows) > limit else None
    return found


def unpark_slice(database: Database, after: int, *, parked: str, at: float, ids: Sequence[int] | None) -> list[int]:
    """Make up to UNPARK_SLICE parked hosts ready. Returns their ids."""
    values = (parked, after, UNPARK_SLICE) if ids is None else (parked, json_list(ids), UNPARK_SLICE)
    found: list[int] = orjson.loads(database.get(sql.PARKED if ids is None else sql.PARKED_OF, values))
    if found:
        with database.transaction():
            database.run(sql.UNPARK, (at, json_list(found)))
            wake_keys(database, found)
    return found
