"""The address gate: how often one IP address may be asked, whatever names it has.

It is asked with the address of the connection at hand, just before the request is written; no name is looked up here.
Invariant: every granted `enter` is followed by exactly one `leave`.
"""

from collections.abc import Callable
from typing import Final

from crawler.core.clock import Clock
from crawler.core.options import PolitenessOptions
from crawler.core.politeness import OPEN, PolitenessState, address_delay, address_width

_PRUNE_OVER: Final = 4_096  # addresses remembered before those whose delay is over are dropped


class AddressGate:
    """`on_leave` is told which address became free and when it opens (monotonic)."""

    def __init__(self, options: PolitenessOptions, clock: Clock) -> None:
        self._clock = clock
        self._delay_s = address_delay(options)
        self._width = address_width(options)
        self._turns: dict[str, PolitenessState] = {}
        self._unknown = OPEN  # the turn of an address not asked since the start
        self._prune_at = _PRUNE_OVER
        self.on_leave: Callable[[str, float], None] = lambda address, opens_mono: None

    def reconfigure(self, options: PolitenessOptions) -> None:
        """Other options are in force. Rests that run keep the end they have."""
        self._delay_s = address_delay(options)
        self._width = address_width(options)

    def rest_all(self) -> None:
        """An earlier run may have asked any address a moment ago: each rests its delay first."""
        self._unknown = OPEN.began().ended(self._clock.mono(), delay_s=self._delay_s)

    @property
    def width(self) -> int:
        """Requests in flight to one address where it has no delay."""
        return self._width

    @property
    def has_delay(self) -> bool:
        return self._delay_s > 0

    def opens_at(self, address: str) -> float | None:
        """None: open now. Otherwise the monotonic time it opens; infinity while what is in flight must end first."""
        turn = self._turns.get(address, self._unknown)
        return turn.opens_at(self._clock.mono(), delay_s=self._delay_s, width=self._width)

    def enter(self, address: str) -> float | None:
        """Take the address, or say when to come back."""
        opens = self.opens_at(address)
        if opens is None:
            self._turns[address] = self._turns.get(address, self._unknown).began()
        return opens

    def leave(self, address: str) -> None:
        """The request to the address ended, however."""
        now = self._clock.mono()
        turn = self._turns[address].ended(now, delay_s=self._delay_s)
        self._turns[address] = turn
        if len(self._turns) > self._prune_at:
            self._turns = {a: t for a, t in self._turns.items() if t.in_flight or t.open_mono > now}
            self._prune_at = max(_PRUNE_OVER, 2 * len(self._turns))
        self.on_leave(address, turn.open_mono)
