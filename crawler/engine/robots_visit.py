"""What an answer to a request for robots.txt means for its host (RFC 9309 §2.3.1).

Pure: outcome, the copy known so far (without its text, which the store has), and `now` in; a new record out, and the
rules it holds for us. A record with verdict "rules" and no text means the text that is known.
"""

from dataclasses import replace
from typing import Final, NamedTuple, assert_never

from crawler.content.decode import decode
from crawler.content.robots_txt import RobotsTxt, RuleSet, policy_for_status
from crawler.core.enums import CodingFault, ErrorType, TruncatedReason
from crawler.core.models import Denied, Failed, Fetched, NotModified, Origin, Outcome, Redirected, RobotsRecord, Task
from crawler.core.url import UrlError, checked
from crawler.fetch.options import FetchOptions

MAX_BYTES: Final = 500 * 1024  # RFC 9309 §2.5: at least this much is parsed
_CUT: Final = (CodingFault.TRUNCATED, CodingFault.DAMAGED)
MAX_HOPS: Final = 5  # §2.3.1.2
FRESH_S: Final = 86_400.0  # §2.4: a copy should not be used for more than a day
STALE_S: Final = 86_400.0  # and while the server fails, for a day more
GIVE_UP_S: Final = 30 * 86_400.0  # §2.3.1.4: "a reasonably long period of time (for example, 30 days)"


class Verdict(NamedTuple):
    """`rules` are those of the record's text; None where it has none, or where the copy known so far stays in force."""

    record: RobotsRecord
    rules: RuleSet | None = None


def redirect_of(task: Task, outcome: Outcome) -> tuple[Origin, Task] | None:
    """The request that follows a redirect of robots.txt; None for any other outcome, too many hops or a bad target."""
    if not isinstance(outcome, Redirected) or task.redirects >= MAX_HOPS:
        return None
    try:
        url, origin = checked(outcome.target)
    except UrlError:
        return None
    return origin, replace(task, url=url, via=task.url, redirects=task.redirects + 1)


def verdict_of(
    outcome: Outcome,
    *,
    known: RobotsRecord | None,
    now: float,
    rest_s: float,
    token: str,
    limits: FetchOptions,
) -> Verdict:
    """The verdict in force from now on. `rest_s` is how long to wait after a failure before asking again."""
    match outcome:
        case Fetched():
            status = outcome.head.status_code
            if outcome.truncated not in (None, TruncatedReason.LENGTH):
                return Verdict(_unreachable(None, outcome.error_type or ErrorType.TRUNCATED, known, now, rest_s))
            policy = policy_for_status(status)
            if policy == "unreachable":
                return Verdict(_unreachable(status, None, known, now, rest_s))
            if policy == "allow":
                return Verdict(RobotsRecord("allow", status, None, now, now + FRESH_S))
            decoded = decode(
                outcome.payload,
                outcome.head.get_all("content-encoding"),
                keep=MAX_BYTES + 1,  # so that the parser sees that there was more, and drops the line cut through
                max_decoded=limits.max_decoded,
                max_expansion=limits.max_expansion,
            )
            text = decoded.data
            if outcome.truncated is not None or decoded.fault in _CUT:  # half a line may say the opposite of the whole
                text = text[: max(text.rfind(b"\n"), text.rfind(b"\r")) + 1]
            parsed = RobotsTxt.parse(text)
            delay_s = parsed.crawl_delay(token)
            record = RobotsRecord("rules", status, text, now, now + FRESH_S, crawl_delay_s=delay_s)
            return Verdict(record, parsed.rules_for(token))
        case Redirected():  # too many hops: as if there were none (§2.3.1.2)
            return Verdict(RobotsRecord("allow", outcome.fetched.head.status_code, None, now, now + FRESH_S))
        case Failed():
            return Verdict(_unreachable(None, outcome.error_type, known, now, rest_s))
        case NotModified() | Denied():
            return Verdict(_unreachable(None, None, known, now, rest_s))
        case _:
            assert_never(outcome)


def _unreachable(
    status: int | None, error: str | None, known: RobotsRecord | None, now: float, rest_s: float
) -> RobotsRecord:
    since = now if known is None or known.failing_since is None else known.failing_since
    again_at = now + rest_s
    if known is not None and known.verdict != "unreachable" and now - known.fetched_at < FRESH_S + STALE_S:
        return replace(known, expires_at=again_at, failing_since=since, error=error)
    if now - since >= GIVE_UP_S:
        return RobotsRecord("allow", status, None, now, now + FRESH_S, failing_since=since, error=error)
    return RobotsRecord("unreachable", status, None, now, again_at, failing_since=since, error=error)
