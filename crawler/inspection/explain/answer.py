"""What an answer to "why" is made of: verdicts in order, a headline, what comes next; and how its words are put.

Values only; who judges is `why`, what comes next is `outlook`'s.
"""

from dataclasses import dataclass, field
from typing import Any

from crawler.core.enums import DenyReason
from crawler.core.models import Origin
from crawler.frontier.sqlite.store_reader import Row
from crawler.obs.fetch_line import redact, redact_text


@dataclass(frozen=True, slots=True)
class Step:
    """One verdict. `verdict` is "ok", "DENY", "wait" or "" for what decides nothing; `facts` are for programs."""

    name: str
    verdict: str
    text: str
    facts: dict[str, Any] = field(default_factory=dict)


@dataclass(slots=True)
class Explanation:
    """All that is known. `verdict` is a word for programs: fetched, waiting, queued, denied, gave_up, would_fetch,
    would_deny, forgotten or blocked; `deny_reason` the log's word for a refusal.
    """

    asked: str
    url: str
    known: bool = False
    verdict: str = ""
    deny_reason: str | None = None
    headline: str = ""
    steps: list[Step] = field(default_factory=list)
    next_text: str = ""
    next_at: float | None = None
    attempts: int = 0
    last_at: float | None = None
    state: str | None = None

    def add(self, name: str, verdict: str, text: str, **facts: Any) -> None:
        self.steps.append(Step(name, verdict, text, facts))


@dataclass(slots=True)
class Case:
    """What is asked about, and what the store has on it."""

    url: str
    origin: Origin
    row: Row | None = None
    visit: Row | None = None
    host: Row | None = None
    robots: Row | None = None
    denials: list[tuple[DenyReason | None, str]] = field(default_factory=list)
    is_closed: bool = False  # the host is blocked or was taken down
    rest_until: float = 0.0
    rest_reason: str = ""


def table(answer: Explanation) -> dict[str, Any]:
    """The answer for programs, secrets in URLs masked as in the logs."""
    return {
        "url": redact(answer.url),
        "asked": redact(answer.asked),
        "known": answer.known,
        "verdict": answer.verdict,
        "deny_reason": answer.deny_reason,
        "headline": redact_text(answer.headline),
        "state": answer.state,
        "chain": [
            {"step": step.name, "verdict": step.verdict or None, "text": redact_text(step.text), **_masked(step.facts)}
            for step in answer.steps
        ],
        "attempts": answer.attempts,
        "next": answer.next_text,
        "next_at": answer.next_at,
    }


def _masked(facts: dict[str, Any]) -> dict[str, Any]:
    def mask(value: Any) -> Any:
        if isinstance(value, list):
            return [mask(item) for item in value]
        return redact_text(value) if isinstance(value, str) else value

    return {name: mask(value) for name, value in facts.items()}


def denial_words(reason: DenyReason | None, rule: str) -> str:
    """A refusal in words: who refused, then the rule."""
    match reason:
        case None:
            return rule
        case DenyReason.ROBOTS:
            return f"denied by robots.txt, {rule.partition('/robots.txt ')[2] or rule}"
        case DenyReason.ROBOTS_UNREACHABLE:
            return "robots.txt cannot be read, so nothing may be fetched"
        case _ if reason.value.startswith("scope_"):
            return f"out of scope: {rule}"
        case _:
            return f"denied by {reason.value}, {rule}" if rule else f"denied by {reason.value}"


def reason_of(word: str) -> DenyReason | None:
    try:
        return DenyReason(word)
    except ValueError:
        return None


def url_of(host: Row | None, row: Row) -> str:
    origin = "" if host is None else str(Origin(host["scheme"], host["host"], host["port"]))
    return f"{origin}{row['target']}"
