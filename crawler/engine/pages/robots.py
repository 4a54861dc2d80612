"""What a response to a request for robots.txt means for its host (RFC 9309 §2.3.1)."""

from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import Final, NamedTuple, assert_never

from crawler.content.decode import decode
from crawler.content.robots_txt import RobotsTxt, RuleSet, policy_for_status
from crawler.core.clock import Clock
from crawler.core.enums import CodingFault, ErrorType, TaskKind, TruncatedReason
from crawler.core.models import (
    Denied,
    Discovered,
    Failed,
    Fetched,
    Lease,
    NotModified,
    Origin,
    Outcome,
    Redirected,
    RobotsRecord,
    Task,
)
from crawler.core.outcomes import backs_off_origin, is_throttled
from crawler.core.url import UrlError, check_href, target_of
from crawler.engine.observer import Observer
from crawler.engine.pages.response_processor import off_loop_if_large
from crawler.engine.pages.url_list_policy import UrlListPolicy
from crawler.engine.pages.url_policy import UrlPolicy
from crawler.engine.scheduling.host import Host
from crawler.engine.scheduling.scheduler import Scheduler
from crawler.fetch.options import FetchOptions
from crawler.frontier.base import Agents, FrontierFull

MAX_BYTES: Final = 500 * 1024  # RFC 9309 §2.5: at least this much is parsed
_CUT: Final = (CodingFault.TRUNCATED, CodingFault.DAMAGED)
MAX_HOPS: Final = 5  # §2.3.1.2
FRESH_S: Final = 86_400.0  # §2.4: a copy should not be used for more than a day
STALE_S: Final = 86_400.0  # and while the server fails, for a day more
GIVE_UP_S: Final = 30 * 86_400.0  # §2.3.1.4: "a reasonably long period of time (for example, 30 days)"
# After a failure without back-off (a 500, say), robots.txt is requested again after as long as it has failed so far,
# within these bounds.
MIN_RETRY_S: Final = 60.0
MAX_RETRY_S: Final = 3_600.0


class Verdict(NamedTuple):
    """A verdict and its rules. `rules` is None if the record has no text, or if the former rules still apply."""

    record: RobotsRecord
    rules: RuleSet | None = None


def redirect_of(task: Task, outcome: Outcome) -> tuple[Origin, Task] | None:
    """The request that follows a redirect of robots.txt; None: no redirect, more than MAX_HOPS, or a bad target."""
    if not isinstance(outcome, Redirected) or task.redirects >= MAX_HOPS:
        return None
    try:
        url, origin = check_href(outcome.target)
    except UrlError:
        return None
    return origin, replace(task, url=url, via=task.url, redirects=task.redirects + 1)


def verdict_of(
    outcome: Outcome,
    *,
    known: RobotsRecord | None,
    now: float,
    retry_s: float,
    token: str,
    limits: FetchOptions,
) -> Verdict:
    """Return the new verdict. `known` is the former one; after a failure robots.txt is requested again in `retry_s`."""
    match outcome:
        case Fetched():
            status = outcome.head.status_code
            if outcome.truncated not in (None, TruncatedReason.LENGTH):
                return Verdict(_unreachable(None, outcome.error_type or ErrorType.TRUNCATED, known, now, retry_s))
            policy = policy_for_status(status)
            if policy == "unreachable":
                return Verdict(_unreachable(status, None, known, now, retry_s))
            if policy == "allow":
                return Verdict(RobotsRecord("allow", status, None, now, now + FRESH_S))
            decoded = decode(
                outcome.payload,
                outcome.head.get_all("content-encoding"),
                keep=MAX_BYTES + 1,  # one more: then the parser knows that a line is cut, and drops it
                max_decoded=limits.max_decoded,
                max_expansion=limits.max_expansion,
            )
            text = decoded.data
            if outcome.truncated is not None or decoded.fault in _CUT:  # half a line may mean the opposite
                text = text[: max(text.rfind(b"\n"), text.rfind(b"\r")) + 1]
            parsed = RobotsTxt.parse(text)
            delay_s = parsed.crawl_delay(token)
            record = RobotsRecord("rules", status, text, now, now + FRESH_S, crawl_delay_s=delay_s)
            return Verdict(record, parsed.rules_for(token))
        case Redirected():  # more than MAX_HOPS: as if there were no robots.txt (§2.3.1.2)
            return Verdict(RobotsRecord("allow", outcome.fetched.head.status_code, None, now, now + FRESH_S))
        case Failed():
            return Verdict(_unreachable(None, outcome.error_type, known, now, retry_s))
        case NotModified() | Denied():
            return Verdict(_unreachable(None, None, known, now, retry_s))
        case _:
            assert_never(outcome)


def _unreachable(
    status: int | None, error: str | None, known: RobotsRecord | None, now: float, retry_s: float
) -> RobotsRecord:
    since = now if known is None or known.failing_since is None else known.failing_since
    again_at = now + retry_s
    if known is not None and known.verdict != "unreachable" and now - known.fetched_at < FRESH_S + STALE_S:
        return replace(known, expires_at=again_at, failing_since=since, error=error)
    if now - since >= GIVE_UP_S:
        return RobotsRecord("allow", status, None, now, now + FRESH_S, failing_since=since, error=error)
    return RobotsRecord("unreachable", status, None, now, again_at, failing_since=since, error=error)


class RobotsResponses:
    """Processes responses to requests for robots.txt. All workers share one. `agents`: if others share the store."""

    def __init__(
        self,
        *,
        scheduler: Scheduler,
        url_policy: UrlPolicy,
        url_list_policy: UrlListPolicy,
        clock: Clock,
        limits: FetchOptions,
        observer: Observer,
        agents: Agents | None = None,
    ) -> None:
        self._agents = agents
        self._scheduler = scheduler
        self._url_policy = url_policy
        self._url_list_policy = url_list_policy
        self._clock = clock
        self._limits = limits
        self._observer = observer

    def reconfigure(self, limits: FetchOptions) -> None:
        """Apply other limits, from the next response on."""
        self._limits = limits

    async def process(
        self, lease: Lease, host: Host, task: Task, outcome: Outcome
    ) -> tuple[RobotsRecord | None, tuple[Discovered, ...]]:
        """Apply a response to its host. Return the verdict to store and the sitemaps that robots.txt names.

        The verdict is None after a redirect: its target is requested first.
        """
        now = self._clock.now()
        moved = redirect_of(task, outcome)
        found = None
        if moved is not None and isinstance(outcome, Redirected):
            found = await self._verdict_elsewhere(host, outcome.fetched.head.status_code, *moved, now)
        if moved is not None and found is None:
            self._scheduler.add_auxiliary(host, *moved)
            return None, ()
        verdict = partial(
            verdict_of,
            outcome,
            known=host.robots,
            now=now,
            retry_s=self._retry_s(lease, host, outcome),
            token=self._url_policy.rules.token,
            limits=self._limits,
        )
        robots, rules = await off_loop_if_large(outcome, verdict) if found is None else found
        if robots.verdict != "rules" or rules is not None:  # else the former rules still apply
            self._url_policy.rules.put(host, rules, stored=robots.body is None)
        sitemaps = self._url_list_policy.sitemaps_of(host.origin, robots, self._url_policy.scope)
        self._scheduler.learn_robots(host, robots)
        self._observer.robots(host)
        return robots, sitemaps

    async def _verdict_elsewhere(
        self, host: Host, status: int, origin: Origin, task: Task, now: float
    ) -> Verdict | None:
        """The verdict by the robots.txt of a host of another agent, which keeps the delay of that host.

        If that agent has not requested it yet, it is looked for once more in MIN_RETRY_S. None: it is to be requested
        here, since the host is ours, or that agent does not request it.
        """
        agents = self._agents
        if agents is None or agents.owns_host(origin.host) or target_of(task.url) != "/robots.txt":
            return None
        record = None
        with suppress(FrontierFull):
            record = await agents.stored_robots(origin)
        if record is None or record.verdict == "unreachable" or record.expires_at <= now:
            since = None if host.robots is None else host.robots.failing_since
            if since is not None and now - since >= MIN_RETRY_S:
                return None
            return Verdict(_unreachable(status, None, host.robots, now, MIN_RETRY_S))
        return Verdict(record, None if record.body is None else await self._url_policy.rules.parsed(record.body))

    def _retry_s(self, lease: Lease, host: Host, outcome: Outcome) -> float:
        """Seconds until robots.txt is requested again if this outcome is a failure."""
        if is_throttled(outcome) or (
            isinstance(outcome, Failed) and backs_off_origin(outcome.error_type, TaskKind.ROBOTS)
        ):
            key = self._scheduler.host_table.key_of(lease)
            return max(host.politeness.open_mono, key.politeness.open_mono) - self._clock.mono()
        since = host.robots.failing_since if host.robots is not None else None
        failing_s = 0.0 if since is None else self._clock.now() - since
        return min(max(MIN_RETRY_S, failing_s), MAX_RETRY_S)
