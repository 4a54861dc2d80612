"""In which order the addresses of a host are tried: the family that won last time first, those that were dead last.

It connects to nothing and checks no address (`dial`). Invariant: every address stays in the order; one that was dead is
only tried behind the others, so it is found again once it answers, or once nothing else does.
"""

from collections.abc import Iterable, Sequence
from typing import Final, TypeVar

from crawler.core.clock import Clock

MAX_ADDRESSES: Final = 6  # tried for one connection; more is a name's way of making us knock everywhere
DEAD_S: Final = 600.0  # for how long an address that did not answer is tried last
_REMEMBERED: Final = 16_384  # hosts, and dead addresses

_Key = TypeVar("_Key")
_Value = TypeVar("_Value")


class AddressOrder:
    """Remembers, per host, which address family works, and per address and port, that nothing answered there."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._v6_won: dict[str, bool] = {}
        self._dead_until: dict[tuple[str, int], float] = {}  # monotonic

    def of(self, host: str, port: int, addresses: Sequence[str]) -> list[str]:
        """The addresses to try, in order, at most MAX_ADDRESSES."""
        mixed = interleave(addresses, v6_first=self._v6_won.get(host))
        if self._dead_until:
            now = self._clock.mono()
            mixed.sort(key=lambda address: self._dead_until.get((address, port), 0.0) > now)
        return mixed[:MAX_ADDRESSES]

    def raced(self, host: str, port: int, addresses: Sequence[str], winner: str, dead: Iterable[str]) -> None:
        """`winner` connected; `dead` failed, or had not connected although they were tried before it."""
        self._dead_until.pop((winner, port), None)
        until = self._clock.mono() + DEAD_S
        for address in dead:
            _remember(self._dead_until, (address, port), until)
        if len({":" in address for address in addresses}) == 2:
            _remember(self._v6_won, host, ":" in winner)


def _remember(known: dict[_Key, _Value], key: _Key, value: _Value) -> None:
    known.pop(key, None)
    while len(known) >= _REMEMBERED:
        del known[next(iter(known))]
    known[key] = value


def interleave(addresses: Sequence[str], *, v6_first: bool | None) -> list[str]:
    """Alternate between the families (RFC 8305 §4), keeping each one's order. `v6_first` None: as the first one is."""
    v6 = [a for a in addresses if ":" in a]
    v4 = [a for a in addresses if ":" not in a]
    if v6_first is None:
        v6_first = ":" in addresses[0]
    first, second = (v6, v4) if v6_first else (v4, v6)
    shared = min(len(first), len(second))
    mixed = [a for pair in zip(first, second, strict=False) for a in pair]
    return mixed + first[shared:] + second[shared:]
