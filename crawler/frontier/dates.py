"""When visited URLs are due again that were left without a date: those of a crawl that did not come back to pages.

It runs in the thread that owns the connection. How far all have dates is remembered as the id of a URL, so that they
can be given slice by slice, beside the crawl and across restarts.

Invariant: every URL whose visit ended, and whose id is at or below that mark, has a date.
"""

from collections.abc import Sequence
from typing import Any

import orjson

from crawler.frontier import sql
from crawler.frontier.base import UndatedPage
from crawler.frontier.database import Database

_ALL = "all"


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
        database.run_many(*sql.PUT_DATES, flat, width=sql.DATE_WIDTH)
        database.run(sql.PUT_META, ("dated", _ALL if mark is None else str(mark)))
