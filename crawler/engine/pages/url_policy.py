"""May this URL be fetched? Scope first, then robots.txt, whose parsed rules are kept within a byte budget."""

from collections import OrderedDict
from dataclasses import dataclass
from typing import Final

from crawler.content.robots_txt import RobotsTxt, RuleSet
from crawler.core.enums import DenyReason, Source
from crawler.core.models import Denied, Origin, Redirected, Task
from crawler.core.scope import Scope
from crawler.core.url import UrlError, check_href
from crawler.engine.scheduling.host import Host

BUDGET_BYTES: Final = 16 * 1024 * 1024  # rules of 10,000 hosts with four rules each; one file has at most a few MB


class RobotsCache:
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


@dataclass(slots=True)
class UrlPolicy:
    """`obey` is politeness.robots."""

    scope: Scope
    rules: RobotsCache
    obey: bool

    def judge(self, task: Task, origin: Origin, host: Host) -> Denied | None:
        """The verdict on a leased task: rules may have changed since it was found."""
        denied = self.scope.judge(task.url, origin, depth=task.depth, hop_path=task.hop_path, source=task.source)
        return denied or self.judge_robots(task.url, host)

    def judge_robots(self, url: str, host: Host) -> Denied | None:
        """What robots.txt says of a URL of `host`, whose verdict is known and whose rules are at hand."""
        if not self.obey:
            return None
        if host.is_held:
            return Denied(DenyReason.ROBOTS_UNREACHABLE, "robots.txt could not be read")
        rules = self.rules.use(host)
        if rules is None:
            return None
        verdict = rules.judge(url)
        if verdict.allowed:
            return None
        line = f" line {verdict.line}" if verdict.line is not None else ""
        return Denied(DenyReason.ROBOTS, f'{host.origin}/robots.txt{line} "{verdict.rule}"')

    def widen(self, task: Task, outcome: Redirected) -> str | None:
        """Bring the host into scope that a seed redirects to: it is meant too. Returns that host, None if there is none
        or it is in scope already.
        """
        is_seed = task.source is Source.SEED or (task.source is Source.REDIRECT and not task.hop_path.strip("R"))
        if not is_seed or not self.scope.follows_seeds:
            return None
        try:
            host = check_href(outcome.target)[1].host
        except UrlError:
            return None
        if self.scope.has_host(host):
            return None
        self.scope = self.scope.with_host(host)
        return host
