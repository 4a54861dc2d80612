"""Slots, the ids that carry theirs, which of them this agent has, and the values of the crawl.

An id is a sequence number and, in its lowest bits, the slot of its host. Of a politeness key it is a hash of the name.
"""

from collections.abc import Collection, Iterable
from typing import Final

from crawler.core.ownership import ONLY_AGENT, SLOT_BITS, slot_in
from crawler.core.url import SLOTS, name_hash, registrable_domain, slot_of
from crawler.frontier.postgresql import sql
from crawler.frontier.postgresql.connection import PostgresConnection

ALL_SLOTS: Final = list(range(SLOTS))
CRAWL: Final = 0  # the slot of values of the whole crawl
LOWEST: Final = -(1 << 63)  # before every key of a host's URLs
DATED_ALL: Final = b"all"  # the value "dated", when all pages have dates for revisits


def slot_of_host(host: str) -> int:
    """The slot of a host name, and of the name of a politeness key."""
    return slot_of(registrable_domain(host))


def made_id(number: int, slot: int) -> int:
    return number << SLOT_BITS | slot


def end_of(number: int) -> int:
    """An id after all with this sequence number, and before the next."""
    return made_id(number, (1 << SLOT_BITS) - 1)


def key_id_of(name: str) -> int:
    """The id of the politeness key of that name."""
    return name_hash(name) >> SLOT_BITS << SLOT_BITS | slot_of_host(name)


class OwnSlots:
    """The slots of this agent: rows of those in `owned` may be changed; work is read from those in `read`, which are
    not to be given back.
    """

    def __init__(self) -> None:
        self.owned: set[int] = set()
        self.read: list[int] = []

    def take(self, slots: Collection[int]) -> None:
        self.owned.update(slots)
        self.read = sorted({*self.read, *slots})

    def stop_reading(self, slots: Collection[int]) -> None:
        """Read no more work from slots that are to be given back."""
        given = set(slots)
        self.read = [slot for slot in self.read if slot not in given]

    def give_back(self, slots: Collection[int]) -> None:
        """Own slots no more, from which no work is read already."""
        self.owned.difference_update(slots)

    @property
    def owns_all(self) -> bool:
        return len(self.owned) == SLOTS

    def ours(self, ids: Iterable[int]) -> list[int]:
        """Those of these ids that are in slots of this agent."""
        return list(ids) if self.owns_all else [id_ for id_ in ids if slot_in(id_) in self.owned]


class CrawlValues:
    """Values by name: of the whole crawl, of one slot, or of each agent for itself."""

    def __init__(self, connection: PostgresConnection) -> None:
        self._db = connection

    def named(self, name: str) -> str:
        """The name of a value that each agent has for itself."""
        return self.named_of(self._db.agent, name)

    @staticmethod
    def named_of(agent: str, name: str) -> str:
        return name if agent == ONLY_AGENT else f"{name}@{agent}"

    async def get(self, name: str, slot: int = CRAWL) -> bytes | None:
        found: bytes | None = await self._db.fetchval(sql.VALUE, slot, name)
        return found

    async def put(self, name: str, value: bytes | None, slot: int = CRAWL) -> None:
        """Store a value, as a part of a transaction; None removes it."""
        if value is None:
            await self._db.run(sql.END_VALUE, slot, name)
        else:
            await self._db.run(sql.PUT_VALUE, slot, name, value)

    async def store(self, name: str, value: bytes | None) -> None:
        """Store a value of the crawl in a transaction of its own; None removes it."""
        async with self._db.transaction():
            await self.put(name, value)
