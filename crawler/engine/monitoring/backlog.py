"""The backlog: queued URLs that may not be requested now, by reason.

Invariant: each host counts under one reason, the one that would have to end first.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from crawler.core.enums import LeftReason
from crawler.core.formatting import count
from crawler.engine.scheduling.host import Host

_SHOWN = 3
Reason = tuple[LeftReason, str]  # the text continues "3 URLs of 2 hosts …"
LIMIT: Reason = (LeftReason.LIMIT, "held back by a limit of scope (max_urls, max_urls_per_host)")


@dataclass(frozen=True, slots=True)
class Backlog:
    """URLs that wait for the same thing; `example` is one of their hosts."""

    reason: LeftReason
    text: str
    urls: int
    hosts: int = 0
    example: str = ""

    def __str__(self) -> str:
        hosts = self.example if self.hosts == 1 else count(self.hosts, "host")
        return f"{count(self.urls, 'URL')}{f' of {hosts}' if self.hosts else ''} {self.text}"


def reason(host: Host, now_mono: float) -> Reason | None:
    """Why the URLs of a host may not be requested; None if they may."""
    if host.is_blocked:
        return LeftReason.BLOCKED, "blocked by the operator (`crawler unblock` ends the block)"
    if host.is_held:
        return LeftReason.ROBOTS, f"whose {host.robots_problem}"
    for state in (host.politeness, host.key.politeness):
        if state.failures and state.open_mono > now_mono:
            return LeftReason.BACKOFF, f"backing off after {state.reason}"
    return LIMIT if host.limit_reached else None


def by_reason(urls: Iterable[tuple[Host, int, Reason]]) -> list[Backlog]:
    """Add up the numbers of URLs by reason; the largest first."""
    found: dict[Reason, Backlog] = {}
    for host, number, why in urls:
        so_far = found.get(why) or Backlog(*why, 0, 0, str(host.origin))
        found[why] = replace(so_far, urls=so_far.urls + number, hosts=so_far.hosts + 1)
    return sorted(found.values(), key=lambda one: -one.urls)


def backlog_of(hosts: Iterable[Host], now_mono: float) -> list[Backlog]:
    """Queued URLs that may not be requested now, by reason; the largest number first."""
    return by_reason((host, host.backlog, why) for host in hosts if host.backlog and (why := reason(host, now_mono)))


def described(found: Sequence[Backlog]) -> list[str]:
    """The commonest reasons, one text each: "5,233 URLs of a.test blocked by the operator …"."""
    shown = len(found) if len(found) <= _SHOWN + 1 else _SHOWN  # "1 more" would be as long as the one
    lines = [str(one) for one in found[:shown]]
    if rest := found[shown:]:
        lines.append(f"{count(sum(one.urls for one in rest))} more for {count(len(rest), 'other reason')}")
    return lines
