"""Gives the URLs of a store that was made under older key rules the keys that they have by today's.

Two URLs that were taken for one have one row, under the address that was found first: that one keeps it, and the other
is new when it is found again. Of a forgotten URL only its key is left, which stays as it is (`first_mark`).
It runs at the start, in the thread that owns the connection. Invariant: a slice is one transaction, so a start that was
cut short goes on where it stood; a filter beside the store is used only if no key that it knows was changed.
"""

from typing import Final

import orjson

from crawler.core.enums import TaskKind
from crawler.core.models import Origin
from crawler.core.url import KEY_RULES, first_key_of, kind_key_of
from crawler.frontier import sql
from crawler.frontier.database import Database

RULES: Final = "key_rules"  # in `meta`
SLICE: Final = 20_000  # rows that are looked at
_DONE: Final = "rekeyed_to"


def bring_up(database: Database) -> None:
    """Bring every key of the store up to KEY_RULES; costs a pass over its URLs, once."""
    if database.get(sql.META, (RULES,)) == str(KEY_RULES):
        return
    after, last = int(database.get(sql.META, (_DONE,)) or 0), int(database.get(sql.LAST_URL))
    while after < last:
        changed = []
        for url_id, scheme, host, port, target, kind in orjson.loads(database.get(sql.QUERIES, (after, after + SLICE))):
            url = f"{Origin(scheme, host, port)}{target}"
            kind = TaskKind.PAGE if kind is None else TaskKind(kind)
            first = first_key_of(url, kind)
            if first is not None:
                changed.append((url_id, first, kind_key_of(url, kind)))
        after += SLICE
        with database.transaction():
            if changed:
                database.run(sql.REKEY, (orjson.dumps(changed).decode(),))
                database.run(sql.END_META, ("filter",))
            database.run(sql.PUT_META, (_DONE, str(after)))
    with database.transaction():
        database.run(sql.PUT_META, (RULES, str(KEY_RULES)))
        database.run(sql.END_META, (_DONE,))
