"""May this URL be fetched? A pure chain of verdicts: scope, then robots.

The one mutable thing here is which scope snapshot is in force; visits in flight finish under the one they began with.
"""

from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Final

from crawler.core.scope import Scope
from crawler.core.values import Denied, Origin, Task
from crawler.core.vocabulary import DenyReason, Source
from crawler.engine.hosts import Host

# Bytes of robots.txt whose rules are kept parsed; parsed they take up to 28 times as much.
PARSED_BYTES: Final = 2 * 1024 * 1024


@dataclass(slots=True)
class Admission:
    """`token` is the product token that robots.txt groups are matched with; `obey` is politeness.robots."""

    scope: Scope
    token: str
    obey: bool
    _parsed: OrderedDict[Host, int] = field(default_factory=OrderedDict)  # least lately used first
    _parsed_bytes: int = 0

    @property
    def parsed_bytes(self) -> int:
        """Bytes of robots.txt whose rules are kept parsed."""
        return self._parsed_bytes

    def judge(self, task: Task, origin: Origin, host: Host) -> Denied | None:
        """The verdict on a leased task: rules may have changed since it was found."""
        denied = self.scope.judge(task.url, origin, depth=task.depth, hop_path=task.hop_path, source=task.source)
        return denied or self.judge_robots(task.url, host)

    def judge_robots(self, url: str, host: Host) -> Denied | None:
        """What robots.txt says of a URL of `host`, whose verdict is known."""
        if not self.obey:
            return None
        if host.is_held:
            return Denied(DenyReason.ROBOTS_UNREACHABLE, "robots.txt could not be read")
        rules = host.parsed_robots()
        if rules is None:
            return None
        self._keep_parsed(host)
        verdict = rules.allows(url, self.token)
        if verdict.allowed:
            return None
        line = f" line {verdict.line}" if verdict.line is not None else ""
        return Denied(DenyReason.ROBOTS, f'{host.origin}/robots.txt{line} "{verdict.rule}"')

    def _keep_parsed(self, host: Host) -> None:
        """Let the rules go that were not asked for longest; their text is parsed again when it is needed."""
        size = len(host.robots.body or b"") if host.robots is not None else 0
        self._parsed_bytes += size - self._parsed.pop(host, 0)
        self._parsed[host] = size
        while self._parsed_bytes > PARSED_BYTES and len(self._parsed) > 1:
            oldest, freed = self._parsed.popitem(last=False)
            oldest.rules = None
            self._parsed_bytes -= freed

    def brings_host_in(self, task: Task, target: Origin) -> bool:
        """A seed's redirect to a host that is not in scope yet: that host is meant too."""
        is_seed = task.source is Source.SEED or (task.source is Source.REDIRECT and not task.hop_path.strip("R"))
        return is_seed and self.scope.follows_seeds and not self.scope.has_host(target.host)
