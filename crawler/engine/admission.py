"""May this URL be fetched? A pure chain of verdicts: scope, robots.

The one mutable thing here is which scope snapshot is in force; visits in flight finish under the one they began with.
"""

from dataclasses import dataclass

from crawler.core.scope import Scope
from crawler.core.values import Denied, Origin, Task
from crawler.core.vocabulary import DenyReason, Source
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

    def brings_host_in(self, task: Task, target: Origin) -> bool:
        """A seed's redirect to a host that is not in scope yet: that host is meant too."""
        is_seed = task.source is Source.SEED or (task.source is Source.REDIRECT and not task.hop_path.strip("R"))
        return is_seed and self.scope.follows_seeds and not self.scope.has_host(target.host)
