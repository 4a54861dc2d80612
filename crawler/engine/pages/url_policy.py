"""The URL policy: may this URL be requested? The scope decides first, then robots.txt.

The parsed rules of robots.txt files are cached within a budget of bytes.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, NamedTuple

from crawler.content.robots_txt import RobotsTxt, RuleSet
from crawler.core.enums import DenyReason, Source
from crawler.core.models import Denied, Origin, Redirected, Task
from crawler.core.scope import SEED_MODES, Scope, directory_of
from crawler.core.url import UrlError, check_href
from crawler.engine.scheduling.host import Host

BUDGET_BYTES: Final = 16 * 1024 * 1024  # rules of 10,000 hosts with four rules each; one file has at most a few MB
PARSE_IN_THREAD_OVER: Final = 16 * 1024  # bytes of a robots.txt


class RobotsCache:
    """Rules of robots.txt files, by host; the least recently used are dropped beyond `budget_bytes`.

    Rules are not dropped while their host has a lease, or while their text is not stored and could not be read again.
    `token` is the product token that is matched with the groups of a file.
    """

    def __init__(self, token: str, budget_bytes: int = BUDGET_BYTES) -> None:
        self.token = token
        self._budget = budget_bytes
        self._sizes: OrderedDict[Host, int] = OrderedDict()  # the least recently used first
        self._unstored: dict[Host, int] = {}  # how many of a host's texts are not stored yet
        self.bytes = 0

    async def parsed(self, body: bytes) -> RuleSet:
        """Parse a file to the rules for `token`. A large one takes a quarter of a second, and is parsed in a thread."""
        if len(body) > PARSE_IN_THREAD_OVER:
            return await asyncio.to_thread(self._parse, body)
        return self._parse(body)

    def _parse(self, body: bytes) -> RuleSet:
        return RobotsTxt.parse(body).rules_for(self.token)

    def put(self, host: Host, rules: RuleSet | None, *, stored: bool) -> None:
        """Set the rules of a host; None: there are none. `stored`: the store has their text."""
        if not stored:
            self._unstored[host] = self._unstored.get(host, 0) + 1
        host.rules = rules
        self.bytes -= self._sizes.pop(host, 0)
        if rules is not None:
            self._sizes[host] = rules.size_bytes
            self.bytes += rules.size_bytes
            self._evict()

    def stored(self, host: Host) -> None:
        """Note that a text of a host is in the store."""
        left = self._unstored.pop(host, 0) - 1
        if left > 0:
            self._unstored[host] = left
        self._evict()

    def use(self, host: Host) -> RuleSet | None:
        """Return the rules of a host, and mark them as most recently used."""
        if host in self._sizes:
            self._sizes.move_to_end(host)
            self._evict()
        return host.rules

    def _evict(self) -> None:
        if self.bytes <= self._budget:
            return
        for host in list(self._sizes)[:-1]:
            if host.leases or host in self._unstored:
                continue
            host.rules = None
            self.bytes -= self._sizes.pop(host)
            if self.bytes <= self._budget:
                return


class Widened(NamedTuple):
    """What the redirect of a seed added to the scope."""

    host: str
    place: str  # of `Scope.added`
    is_new: bool  # False: it was in scope, and has the options of the seed now


@dataclass(slots=True)
class UrlPolicy:
    """Scope and robots.txt. `obey`: politeness.robots is obey; an override of a host counts more."""

    scope: Scope
    rules: RobotsCache
    obey: bool

    def obeys_robots_of(self, host: Host) -> bool:
        """Whether the robots.txt of a host is obeyed."""
        return host.obeys_robots("obey" if self.obey else "ignore")

    def judge(self, task: Task, origin: Origin, host: Host) -> Denied | None:
        """Judge a leased task; None: it may be requested. The rules may have changed since it was found."""
        denied = self.scope.judge(task.url, origin, depth=task.depth, hop_path=task.hop_path, source=task.source)
        return denied or self.judge_robots(task.url, host)

    def judge_robots(self, url: str, host: Host) -> Denied | None:
        """Judge a URL by robots.txt; None: it is allowed. The verdict of `host` must be known and its rules loaded."""
        if not self.obeys_robots_of(host):
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

    def widen(self, task: Task, outcome: Redirected) -> Widened | None:
        """Add the target of a seed's redirect to the scope: the operator who gave the seed means that place too. The
        options of the seed hold there as well.

        None if the redirect is not of a seed, or changes nothing.
        """
        scope = self.scope
        is_seed = task.source is Source.SEED or (task.source is Source.REDIRECT and not task.hop_path.strip("R"))
        if not is_seed:
            return None
        try:
            url, origin = check_href(outcome.target)
        except UrlError:
            return None
        if scope.overrides.disabled_by(origin.host) is not None:
            return None
        seeds = scope.seeds.of(task.url, check_href(task.url)[1].host)[:1]
        follows = seeds[0].scope[:1] if seeds and seeds[0].scope else scope.options.hosts[:1]
        is_new = follows[0] in SEED_MODES and not scope.covers(url, origin.host)
        if not is_new and not (seeds and not scope.seeds.of(url, origin.host)):
            return None
        widened = Widened(origin.host, f"{directory_of(url)} {directory_of(task.url)}", is_new)
        self.scope = scope.widened(widened.place)
        return widened

    def learn_places(self, places: Iterable[str]) -> None:
        """Add what redirects of seeds added to the scope elsewhere (`Scope.added`)."""
        if new := set(places).difference(self.scope.added):
            self.scope = self.scope.widened(*sorted(new))
