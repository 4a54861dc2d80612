"""Which hosts' URLs are still to be judged by the rules in force: marks in the store that outlive a crash.

It runs in the thread that owns the connection, and knows rules by a fingerprint only. A mark counts how often it was
set, so that whoever judged a host takes away the mark that was there when the judging began, and no later one.

Invariant: the fingerprint of other rules is stored in the transaction that marks every host.
"""

from collections.abc import Sequence

import orjson

from crawler.frontier import sql
from crawler.frontier.database import Database


def judge_by(database: Database, rules: str) -> list[int]:
    """See Frontier.judge_by."""
    if database.get(sql.META, ("rules",)) == rules:
        return []
    with database.transaction():
        database.run(sql.PUT_META, ("rules", rules))
        database.run(sql.ALL_UNSWEPT)
    host_ids: list[int] = orjson.loads(database.get(sql.HOST_IDS))
    return host_ids


def mark(database: Database, host_ids: Sequence[int]) -> None:
    """See Frontier.unswept."""
    with database.transaction():
        for host_id in host_ids:
            database.run(sql.PUT_UNSWEPT, (host_id,))


def mark_of(database: Database, host_id: int) -> int:
    """See Frontier.sweep_mark."""
    return int(database.get(sql.SWEEP_MARK, (host_id,)) or 0)


def swept(database: Database, host_id: int, found_mark: int) -> None:
    """See Frontier.swept."""
    if found_mark:
        with database.transaction():
            database.run(sql.SWEPT, (host_id, found_mark))
