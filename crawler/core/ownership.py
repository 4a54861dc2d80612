"""Which agent owns which slots of a database that several share: what one agent decides by what it sees. Pure.

A slot is a group of registrable domains (`core.url.slot_of`). An agent proves that it lives by a counter, its renewal,
which it raises several times within a lease. Every agent looks at all counters. No wall clock decides: times are
monotonic ones of the agent that decides.

Invariant: an agent sends requests only until `until_mono`, a lease less a margin after a time before its last
successful renewal. Others take its slots over only after they have seen its counter unchanged for a lease and a margin,
looking all the time, and only if it is still unchanged then. So nobody owns a slot whose former owner may still send,
whether that was stopped, cut off, or slow; the margins make up for monotonic clocks of different speed.
"""

import math
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from crawler.core.url import SLOTS

ONLY_AGENT: Final = "main"  # the name of an agent without a name
LEAST_LEASE_S: Final = 2.0
RENEWALS: Final = 3  # within a lease
LOOK_S: Final = 1.0  # between two looks at the other agents, at most, where the database answers
_MARGIN: Final = 5  # a fifth of the lease
SLOT_BITS: Final = 10  # an id of a host, a URL or a politeness key in a database has its slot in its lowest bits


def slot_in(id_: int) -> int:
    """The slot of an id."""
    return id_ & (SLOTS - 1)


class AgentSeen(NamedTuple):
    """Another agent, or this one, as the database has it. One that has left has no slots that are not free."""

    name: str
    incarnation: int
    renewal: int
    has_left: bool
    slots: int  # number of those that it owns


@dataclass(frozen=True, slots=True)
class Moves:
    """What an agent is to do: take the slots of `dead` agents away, take free slots, give back own ones."""

    dead: tuple[AgentSeen, ...] = ()
    take: tuple[int, ...] = ()
    give_back: tuple[int, ...] = ()


@dataclass(slots=True)
class _Watched:
    incarnation: int
    renewal: int
    since_mono: float  # when this agent first saw these values


@dataclass(slots=True)
class Ownership:
    """What the agent `name` knows. `lease_s` is the same for all agents."""

    name: str
    lease_s: float
    until_mono: float = -math.inf  # until then requests may be sent
    alive: int = 1  # number of agents that live, with this one
    _watched: dict[str, _Watched] = field(default_factory=dict)
    _looked_mono: float = -math.inf

    @property
    def margin_s(self) -> float:
        return self.lease_s / _MARGIN

    @property
    def renew_s(self) -> float:
        """Seconds between two renewals."""
        return self.lease_s / RENEWALS

    def renewed(self, begun_mono: float) -> None:
        """A renewal succeeded that was begun at `begun_mono`."""
        self.until_mono = max(self.until_mono, begun_mono + self.lease_s - self.margin_s)

    def may_send(self, mono: float) -> bool:
        """Whether requests may be sent."""
        return mono < self.until_mono

    def look(
        self, agents: Iterable[AgentSeen], free: Collection[int], own: Collection[int], begun_mono: float, mono: float
    ) -> Moves:
        """What to do after a look at the database that began at `begun_mono` and ended at `mono`. `own`: the slots of
        this agent that it does not give back already.
        """
        if begun_mono - self._looked_mono > self.renew_s + LOOK_S:  # the database may have been away for all of them
            self._watched.clear()
        self._looked_mono = mono
        others = {one.name: one for one in agents if one.name != self.name}
        dead = [one for one in others.values() if not one.has_left and self._is_dead(one, begun_mono, mono)]
        self._watched = {name: seen for name, seen in self._watched.items() if name in others}
        living = sorted({self.name, *(one.name for one in others.values() if not one.has_left and one not in dead)})
        self.alive = len(living)
        share = share_of(living.index(self.name), len(living))
        # Each begins elsewhere, so that two that come at once want different ones
        begin = living.index(self.name) * SLOTS // len(living)
        wanted = sorted(free, key=lambda slot: (slot - begin) % SLOTS)[: max(0, share - len(own))]
        surplus = sorted(own, key=lambda slot: (slot - begin) % SLOTS)[share:]
        return Moves(tuple(one for one in dead if one.slots), tuple(wanted), tuple(surplus))

    def _is_dead(self, one: AgentSeen, begun_mono: float, mono: float) -> bool:
        seen = self._watched.get(one.name)
        if seen is None or (seen.incarnation, seen.renewal) != (one.incarnation, one.renewal):
            self._watched[one.name] = _Watched(one.incarnation, one.renewal, mono)
            return False
        return begun_mono - seen.since_mono > self.lease_s + self.margin_s


def share_of(place: int, agents: int) -> int:
    """The fair number of slots of one agent, by its place in the order of names."""
    share, left = divmod(SLOTS, agents)
    return share + (place < left)


def is_over(owners: Mapping[str, bool], free: int, inbox: int) -> bool:
    """Whether a crawl of several agents is over, by one look: owner of slots → whether it has nothing left to do,
    number of slots without an owner, and of discoveries that no owner has taken yet.
    """
    return not free and not inbox and all(owners.values())
