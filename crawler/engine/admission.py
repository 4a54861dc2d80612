"""May this URL be fetched? A pure chain of verdicts: scope, robots.

The one mutable thing here is which scope snapshot is in force; visits in flight finish under the one they began with.
"""

from dataclasses import dataclass

from crawler.core.enums import DenyReason, Source
from crawler.core.models import Denied, Origin, Redirected, Task
from crawler.core.scope import Scope
from crawler.core.url import UrlError, checked
from crawler.engine.hosts import Host
from crawler.engine.rules import RulesCache


@dataclass(slots=True)
class Admission:
    """`obey` is politeness.robots."""

    scope: Scope
    rules: RulesCache
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
            host = checked(outcome.target)[1].host
        except UrlError:
            return None
        if self.scope.has_host(host):
            return None
        self.scope = self.scope.with_host(host)
        return host
