"""Happy Eyeballs (RFC 8305): the order in which the addresses of a host are tried, and the race between them.

Invariants: an address that did not respond is tried after the others, but is never left out for good. So it is used
again when it responds. Every socket opened here is either returned or closed.
"""

import asyncio
import socket
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Final, TypeVar

from crawler.core.clock import Clock
from crawler.core.enums import ErrorType
from crawler.fetch.net.errors import connect_error

MAX_ADDRESSES: Final = 6  # tried for one connection, since a name may have very many
DEAD_S: Final = 600.0  # how long an address that did not respond is tried last
FAMILY_HEAD_START_S: Final = 0.25  # RFC 8305 §5: "Connection Attempt Delay", 250 ms recommended
NEXT_ADDRESS_S: Final = 2.0  # head start before another address of the same family: the host may just be slow
_MAX_CACHED: Final = 16_384  # hosts, and dead addresses

Connect = Callable[[str, int], Awaitable[socket.socket]]
_Attempt = asyncio.Task[socket.socket | OSError]  # a failure is a value: it must not end the other attempts
_Key = TypeVar("_Key")
_Value = TypeVar("_Value")


class HappyEyeballs:
    """Connects to the first address that responds. Remembers the address family that won, by host, and the addresses
    that did not respond, by port.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._v6_won: dict[str, bool] = {}
        self._dead_until: dict[tuple[str, int], float] = {}  # monotonic

    def order(self, host: str, port: int, addresses: Sequence[str]) -> list[str]:
        """The addresses to try, in order, at most MAX_ADDRESSES."""
        mixed = interleave(addresses, v6_first=self._v6_won.get(host))
        if self._dead_until:
            now = self._clock.mono()
            mixed.sort(key=lambda address: self._dead_until.get((address, port), 0.0) > now)
        return mixed[:MAX_ADDRESSES]

    async def race(self, host: str, port: int, addresses: Sequence[str], connect: Connect) -> tuple[socket.socket, str]:
        """Connect to the first address that responds. If none does, raises the OSError that explains it best.

        An attempt starts when the one before it fails, or when its head start is over. Source: RFC 8305 §5.
        """
        if len(addresses) == 1:
            return await connect(addresses[0], port), addresses[0]
        attempts: dict[_Attempt, str] = {}
        winner: socket.socket | None = None
        try:
            async with asyncio.TaskGroup() as group:
                pending: set[_Attempt] = set()
                for index, address in enumerate(addresses):
                    attempt = group.create_task(_attempt(connect, address, port))
                    attempts[attempt] = address
                    pending.add(attempt)
                    following = addresses[index + 1] if index + 1 < len(addresses) else None
                    head_start = None if following is None else _head_start(address, following)
                    winner = await _first_socket(pending, attempt, head_start)
                    if winner is not None:
                        break
                for attempt in pending:
                    attempt.cancel()
        except BaseException:
            winner = None
            raise
        finally:
            for attempt in attempts:  # close those that connected too late, or while the race was cancelled
                if attempt.done() and not attempt.cancelled() and attempt.exception() is None:
                    result = attempt.result()
                    if isinstance(result, socket.socket) and result is not winner:
                        result.close()
        results = [(address, None if a.cancelled() else a.result()) for a, address in attempts.items()]
        if winner is None:
            raise _best_explanation([result for _, result in results if isinstance(result, OSError)])
        at = next(n for n, (_, result) in enumerate(results) if result is winner)
        address = results[at][0]
        dead = [other for n, (other, result) in enumerate(results) if _is_dead(result, started_first=n < at)]
        self.finished(host, port, addresses, address, dead)
        return winner, address

    def finished(self, host: str, port: int, addresses: Sequence[str], winner: str, dead: Iterable[str]) -> None:
        """Remember the result of a race: `winner` connected, `dead` did not respond."""
        self._dead_until.pop((winner, port), None)
        until = self._clock.mono() + DEAD_S
        for address in dead:
            _remember(self._dead_until, (address, port), until)
        if len({":" in address for address in addresses}) == 2:
            _remember(self._v6_won, host, ":" in winner)


def interleave(addresses: Sequence[str], *, v6_first: bool | None) -> list[str]:
    """Alternate between the families (RFC 8305 §4). `v6_first` None: the family of the first address goes first."""
    v6 = [a for a in addresses if ":" in a]
    v4 = [a for a in addresses if ":" not in a]
    if v6_first is None:
        v6_first = ":" in addresses[0]
    first, second = (v6, v4) if v6_first else (v4, v6)
    shared = min(len(first), len(second))
    mixed = [a for pair in zip(first, second, strict=False) for a in pair]
    return mixed + first[shared:] + second[shared:]


def _remember(known: dict[_Key, _Value], key: _Key, value: _Value) -> None:
    """Set a value, and drop the oldest ones beyond _MAX_CACHED."""
    known.pop(key, None)
    while len(known) >= _MAX_CACHED:
        del known[next(iter(known))]
    known[key] = value


async def _attempt(connect: Connect, address: str, port: int) -> socket.socket | OSError:
    try:
        return await connect(address, port)
    except OSError as error:
        return error


async def _first_socket(pending: set[_Attempt], latest: _Attempt, head_start_s: float | None) -> socket.socket | None:
    """Wait until an attempt connects, the latest one fails, or its head start is over (None: until all have ended).

    Attempts that ended are removed from `pending`.
    """
    loop = asyncio.get_running_loop()
    until = None if head_start_s is None else loop.time() + head_start_s
    while pending:
        left = None if until is None else max(0.0, until - loop.time())
        done, _ = await asyncio.wait(pending, timeout=left, return_when=asyncio.FIRST_COMPLETED)
        pending -= done
        for attempt in done:
            result = attempt.result()
            if isinstance(result, socket.socket):
                return result
        if until is not None and (latest in done or not done):
            return None
    return None


def _head_start(address: str, following: str) -> float:
    return FAMILY_HEAD_START_S if (":" in address) != (":" in following) else NEXT_ADDRESS_S


def _is_dead(result: socket.socket | OSError | None, *, started_first: bool) -> bool:
    """Whether an attempt shows that its address does not respond: it failed (but not because descriptors ran out), or
    it started before the winner and had not ended (None).
    """
    if isinstance(result, OSError):
        return connect_error(result) is not ErrorType.NO_FILE_DESCRIPTORS
    return result is None and started_first


def _best_explanation(errors: Sequence[OSError]) -> OSError:
    """Of several errors, the first that is not about a missing route, which often means that we have no IPv6."""
    return next((e for e in errors if connect_error(e) is not ErrorType.CONNECT_UNREACHABLE), errors[0])
