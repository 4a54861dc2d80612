"""Why queued URLs are not fetched now: which hosts keep them, for what, and how to say it to a person.

Read from the scheduler's books; it decides nothing. Invariant: each host counts under one reason, the one that would
have to go first.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from crawler.core.formatting import count, unreadable_robots
from crawler.engine.scheduling.host import Host

_SHOWN = 3


@dataclass(frozen=True, slots=True)
class Backlog:
    """URLs that wait for the same thing. `why` continues "URLs of 3 hosts …"; `example` is one of the hosts.
    `by_operator`: they are blocked.
    """

    why: str
    urls: int
    hosts: int
    example: str
    by_operator: bool = False


def kept(hosts: Iterable[Host], now_mono: float) -> list[Backlog]:
    """What keeps the URLs that no worker has, the largest number first. Hosts that may be asked are left out."""
    found: dict[str, Backlog] = {}
    for host in hosts:
        if host.backlog and (why := _why(host, now_mono)):
            so_far = found.get(why)
            found[why] = (
                Backlog(why, host.backlog, 1, str(host.origin), host.is_blocked)
                if so_far is None
                else Backlog(why, so_far.urls + host.backlog, so_far.hosts + 1, so_far.example, so_far.by_operator)
            )
    return sorted(found.values(), key=lambda one: -one.urls)


def _why(host: Host, now_mono: float) -> str:
    if host.is_blocked:
        return "blocked by the operator (`crawler unblock` lets them go on)"
    if host.is_held:
        return f"whose {unreadable(host)}"
    for turn in (host.turn, host.key.turn):
        if turn.strikes and turn.open_mono > now_mono:
            return f"backing off after {turn.reason}"
    return "kept by a limit of scope (max_urls, max_urls_per_host)" if host.limit_reached else ""


def unreadable(host: Host) -> str:
    """What is known of a robots.txt that could not be read: "robots.txt cannot be read (dns_not_found)"."""
    robots, rests_for = host.robots, host.turn.reason if host.turn.strikes else None
    return unreadable_robots(None if robots is None else robots.status_code, (robots and robots.error) or rests_for)


def told(found: Sequence[Backlog]) -> list[str]:
    """A line for each of the commonest reasons: "5,233 URLs of 1 host blocked by the operator …"."""
    shown = len(found) if len(found) <= _SHOWN + 1 else _SHOWN  # a line saying "1 more" would take the place of the one
    lines = [f"{count(one.urls, 'URL')} of {_hosts(one)} {one.why}" for one in found[:shown]]
    if rest := found[shown:]:
        lines.append(f"{count(sum(one.urls for one in rest))} more for {count(len(rest), 'other reason')}")
    return lines


def _hosts(one: Backlog) -> str:
    return one.example if one.hosts == 1 else count(one.hosts, "host")
