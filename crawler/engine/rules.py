"""The robots.txt rules that are kept ready: parsed, for our token only, within a byte budget.

The texts are in the store; what was not asked for longest is let go and read again when its host has a turn
(`engine.stock`). Invariant: rules that the store has not got yet, or that a lease is out for, are never let go.
"""

from collections import OrderedDict
from typing import Final

from crawler.content.robots_txt import RobotsTxt, RuleSet
from crawler.engine.hosts import Host

BUDGET_BYTES: Final = 16 * 1024 * 1024  # rules of 10,000 hosts with four rules each; one file has at most a few MB


class RulesCache:
    """`token` is the product token that groups are matched with."""

    def __init__(self, token: str, budget_bytes: int = BUDGET_BYTES) -> None:
        self.token = token
        self._budget = budget_bytes
        self._sizes: OrderedDict[Host, int] = OrderedDict()  # least lately used first
        self._unstored: dict[Host, int] = {}
        self.bytes = 0

    def parse(self, body: bytes) -> RuleSet:
        """The rules of a file. For a large one this takes a quarter of a second: not for the event loop."""
        return RobotsTxt.parse(body).rules_for(self.token)

    def put(self, host: Host, rules: RuleSet | None, *, stored: bool) -> None:
        """Put rules in force; None: there are none. `stored`: the store has the text they are from."""
        if not stored:
            self._unstored[host] = self._unstored.get(host, 0) + 1
        host.rules = rules
        self.bytes -= self._sizes.pop(host, 0)
        if rules is not None:
            self._sizes[host] = rules.size_bytes
            self.bytes += rules.size_bytes
            self._let_go()

    def stored(self, host: Host) -> None:
        """The store has the text now."""
        left = self._unstored.pop(host, 0) - 1
        if left > 0:
            self._unstored[host] = left
        self._let_go()

    def use(self, host: Host) -> RuleSet | None:
        """The rules of a host that has them."""
        if host in self._sizes:
            self._sizes.move_to_end(host)
            self._let_go()
        return host.rules

    def _let_go(self) -> None:
        if self.bytes <= self._budget:
            return
        for host in list(self._sizes)[:-1]:
            if host.leases or host in self._unstored:
                continue
            host.rules = None
            self.bytes -= self._sizes.pop(host)
            if self.bytes <= self._budget:
                return
