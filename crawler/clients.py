"""The HTTP client in force, and those that still finish what they began when another took their place.

Part of the composition root. A client is replaced whole: a request in flight ends under the options it began with, and
the counts of all clients are one sum. Invariant: a client is closed once nothing is lent from it, and never before.
"""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import fields
from typing import Any, Final

from crawler.client import Client
from crawler.core.models import Origin
from crawler.fetch.connection import Exchange
from crawler.fetch.pool_statistics import PoolStats

_LOOK_S: Final = 0.25  # how often a replaced client is looked at


class Clients:
    """`run` closes what was replaced; it is to run beside the crawl."""

    def __init__(self, first: Client) -> None:
        self.current = first
        self._finishing: list[Client] = []
        self._gone: dict[str, Any] | None = None  # the counts of those closed
        self._replaced = asyncio.Event()

    def replace(self, client: Client) -> None:
        """Put a client in force; the one before finishes what it has lent."""
        before, self.current = self.current, client
        before.pool.close_idle()
        self._finishing.append(before)
        self._replaced.set()

    async def run(self) -> None:
        """Close replaced clients as they finish, until cancelled."""
        while True:
            await self._replaced.wait()
            for client in list(self._finishing):
                client.pool.close_idle()
                stats = client.pool.stats()
                if not (stats.open or stats.opening or stats.waiting):
                    self._finishing.remove(client)
                    await self._close(client)
            if not self._finishing:
                self._replaced.clear()
            else:
                await asyncio.sleep(_LOOK_S)

    async def close(self) -> None:
        """Close all of them."""
        for client in (*self._finishing, self.current):
            await client.close()

    async def _close(self, client: Client) -> None:
        await client.close()
        self._gone = _sum(self._gone, client.pool.stats())

    def cut(self, covers: Callable[[Origin], bool]) -> int:
        """Close the connections to these origins at once. Returns how many."""
        return sum(client.pool.cut(covers) for client in (*self._finishing, self.current))

    @property
    def finishing(self) -> int:
        """Replaced clients with requests in flight."""
        return len(self._finishing)

    def stats(self) -> PoolStats:
        """Over all clients since the start."""
        if self._gone is None and not self._finishing:
            return self.current.pool.stats()
        total = self._gone
        for client in (*self._finishing, self.current):
            total = _sum(total, client.pool.stats())
        assert total is not None
        return PoolStats(**total)

    def exchanges(self) -> dict[Origin, list[Exchange]]:
        """The requests under way, as Pool.exchanges."""
        found = self.current.pool.exchanges()
        for client in self._finishing:
            for origin, exchanges in client.pool.exchanges().items():
                found[origin] = exchanges + found.get(origin, [])
        return found


def _sum(total: dict[str, Any] | None, stats: PoolStats) -> dict[str, Any]:
    found = {one.name: getattr(stats, one.name) for one in fields(PoolStats)}
    if total is None:
        return found
    return {name: _add(total[name], value) for name, value in found.items()}


def _add(one: Any, other: Any) -> Any:
    if isinstance(one, Mapping):
        return {key: one.get(key, 0) + other.get(key, 0) for key in {**one, **other}}
    if isinstance(one, tuple):
        return tuple(a + b for a, b in zip(one, other, strict=True))
    return one + other
