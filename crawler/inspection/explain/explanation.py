"""The explanation of one URL: verdicts in order, a headline, and the next step.

`why` judges and adds the verdicts. The headline and the next step of a stored URL are concluded here, from the
verdicts, its row and its last visit. Requests for robots.txt, sitemaps and feeds are in the store; probes, and a
robots.txt to which another host redirects, are in the log only. Invariant: the next step is what the crawl does without
a command. If it does nothing, the text says so.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

from crawler.core.calendar_expression import first_after
from crawler.core.enums import DenyReason, Source, TaskKind, UrlState
from crawler.core.formatting import ago, count, duration, wall_time
from crawler.core.models import Origin
from crawler.core.options import Rules, ScheduleOptions
from crawler.core.politeness import host_delay, overridden
from crawler.core.scope import Overrides
from crawler.core.url import kind_key_of, target_of
from crawler.frontier.sqlite.store_reader import Row, StoreReader
from crawler.inspection.log.query import Line
from crawler.inspection.log.rotated_log import epoch
from crawler.obs.fetch_line import redact, redact_text


@dataclass(frozen=True, slots=True)
class Step:
    """One verdict. `verdict` is "ok", "DENY" or "wait", or "" if it decides nothing. `facts` are for programs."""

    name: str
    verdict: str
    text: str
    facts: dict[str, Any] = field(default_factory=dict)


@dataclass(slots=True)
class Explanation:
    """All that is known about a URL; `typed` is the URL as the user typed it.

    `verdict` is a word for programs: fetched, waiting, queued, denied, gave_up, suspect, would_fetch, would_deny or
    forgotten. `deny_reason` is the reason of a refusal as the log has it. Of agents that share a database, `agent` owns
    the host, and `log_agent` has the last attempt in its log, None if that is the one whose directory is looked at.
    """

    typed: str
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
    agent: str | None = None
    log_agent: str | None = None

    def add(self, name: str, verdict: str, text: str, **facts: Any) -> None:
        self.steps.append(Step(name, verdict, text, facts))

    def as_json(self) -> dict[str, Any]:
        """The explanation for programs, secrets in URLs masked as in the logs."""
        return {
            "url": redact(self.url),
            "typed": redact(self.typed),
            "known": self.known,
            "verdict": self.verdict,
            "deny_reason": self.deny_reason,
            "headline": redact_text(self.headline),
            "state": self.state,
            "agent": self.agent,
            "log_agent": self.log_agent,
            "chain": [
                {"step": one.name, "verdict": one.verdict or None, "text": redact_text(one.text), **_masked(one.facts)}
                for one in self.steps
            ],
            "attempts": self.attempts,
            "next": self.next_text,
            "next_at": self.next_at,
        }


@dataclass(slots=True)
class Case:
    """A URL with its rows in the store. `denials` are the reasons and rules by which it is refused now."""

    url: str
    origin: Origin
    row: Row | None = None
    visit: Row | None = None
    host: Row | None = None
    robots: Row | None = None
    is_unseen_seed: bool = False  # of the configuration, and not stored
    denials: list[tuple[DenyReason | None, str]] = field(default_factory=list)
    backoff_until: float = 0.0
    backoff_reason: str = ""


def _masked(facts: dict[str, Any]) -> dict[str, Any]:
    def mask(value: Any) -> Any:
        if isinstance(value, list):
            return [mask(item) for item in value]
        return redact_text(value) if isinstance(value, str) else value

    return {name: mask(value) for name, value in facts.items()}


def denial_text(reason: DenyReason | None, rule: str) -> str:
    """A refusal as text: by what it was refused, then the rule."""
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


AHEAD_LIMIT: Final = 100_000  # queued URLs of the host that are counted: some 10 ms


@dataclass(slots=True)
class Conclusion:
    """Sets headline and next step of a URL that has a row."""

    explanation: Explanation
    case: Case
    reader: StoreReader | None
    rules: Rules | None
    now: float
    is_live: bool

    def conclude(self) -> None:
        explanation, visit, row = self.explanation, self.case.visit, self.case.row
        assert row is not None
        explanation.state = row["state"]
        explanation.attempts = visit["attempts"] if visit is not None else 0
        explanation.last_at = visit["last_at"] if visit is not None else None
        due = visit["next_at"] if visit is not None else None
        match row["state"]:
            case UrlState.DONE:
                self._done(due)
            case UrlState.DENIED:
                self._denied()
            case UrlState.GAVE_UP:
                explanation.verdict = "gave_up"
                explanation.headline = (
                    f"not fetched: given up after {count(explanation.attempts, 'attempt')}: {self._error()}"
                )
                explanation.next_text = self._next_visit(due) or "nothing, unless `crawler requeue` queues it"
            case UrlState.WAITING:
                explanation.verdict, explanation.next_at = "waiting", due
                explanation.headline = (
                    f"not fetched yet: due later, attempt {explanation.attempts} failed ({self._error()})"
                )
                explanation.next_text = self._unless_denied(f"tried again {self._when(due)}" if due else "tried again")
            case UrlState.SUSPECT:
                explanation.verdict = "suspect"
                explanation.headline = "not fetched yet: set aside, it belongs to a part of its host that looks endless"
                explanation.next_text = (
                    "fetched when its host has nothing else queued, unless suspects like it led to more such pages; "
                    f"`crawler release {self.case.origin.host}` has it fetched in any case"
                )
            case "forgotten":
                explanation.verdict = "forgotten"
                explanation.headline = "not fetched: an operator took it down; it is never fetched again"
                explanation.next_text = "nothing"
            case _:
                self._queued()
        if not self.is_live and not explanation.next_text.startswith("nothing"):
            explanation.next_text += "; no crawl runs now"

    def _done(self, due: float | None) -> None:
        explanation, visit = self.explanation, self.case.visit
        explanation.verdict = "fetched"
        assert visit is not None
        when = f"{wall_time(visit['last_at'], self.now)}, {ago(self.now - visit['last_at'])}"
        error = f", {visit['last_error']}" if visit["last_error"] else ""
        explanation.headline = f"fetched: status {visit['last_status']}{error} ({when})"
        if self.reader is not None and visit["warc_file"] is not None:
            file = self.reader.sink_file(visit["warc_file"])
            if file is not None:
                name = _file_name(file)
                content, facts = self._content(visit)
                text = f"warc/{name} at byte {count(visit['warc_offset'])}, {content or visit['digest'] or 'no digest'}"
                explanation.add("archive", "", text,
                           file=file["name"], offset=visit["warc_offset"], digest=visit["digest"], **facts)  # fmt: skip
        explanation.next_text = self._next_visit(due) or "nothing: it is fetched once"

    def _content(self, visit: Row) -> tuple[str, dict[str, Any]]:
        """The record that holds the content, if that is not the last one."""
        file_id = visit.get("content_file")  # not in stores of an older version
        if file_id is None or self.reader is None:
            return "", {}
        status = visit["last_status"] or 0
        kind = "a revisit record" if status == 304 or status < 300 else "the record of an error"
        file = self.reader.sink_file(file_id)
        if file is None:
            return f"{kind}: the content is in a file that the store no longer knows", {}
        name = _file_name(file)
        where = f"warc/{name} at byte {count(visit['content_offset'])}"
        facts = {"content_file": file["name"], "content_offset": visit["content_offset"]}
        return f"{kind}: the content is in {where}, {visit['digest'] or 'no digest'}", facts

    def _denied(self) -> None:
        explanation, visit, case = self.explanation, self.case.visit, self.case
        explanation.verdict = "denied"
        stored = str(visit["last_error"]) if visit is not None and visit["last_error"] else ""
        rule = str(visit["last_rule"]) if visit is not None and visit["last_rule"] else ""
        explanation.deny_reason = stored or None
        explanation.headline = f"not fetched: {denial_text(reason_of(stored), rule)}"
        if not case.denials:
            was = wall_time(visit["last_at"], self.now) if visit is not None and visit["last_at"] else "then"
            explanation.headline += f" ({was}; the rules now allow it)"
            explanation.next_text = "judged again when the crawl applies its changed rules to the stored URLs"
            return
        if case.robots is not None and stored == DenyReason.ROBOTS:
            explanation.next_at = case.robots["expires_at"]
            explanation.next_text = f"robots.txt is requested again {self._when(explanation.next_at)}"
        else:
            explanation.next_text = "nothing while the rules stay as they are"

    def _queued(self) -> None:
        explanation, case, row = self.explanation, self.case, self.case.row
        assert row is not None
        explanation.verdict = "queued"
        if case.denials:
            reason, rule = case.denials[0]
            explanation.deny_reason = reason.value if reason else None
            explanation.headline = f"not fetched: {denial_text(reason, rule)}"
            if reason is DenyReason.ROBOTS_UNREACHABLE and case.robots is not None:
                explanation.next_at = case.robots["expires_at"]
                explanation.next_text = (
                    f"robots.txt is requested again {self._when(explanation.next_at)}; the URL stays queued"
                )
            elif reason is None:
                explanation.next_text = "it stays queued and is fetched when that changes"
            else:
                explanation.next_text = "it will be denied when it is due"
            return
        visits = self.case.visit["visits"] if self.case.visit is not None and "visits" in self.case.visit else 0
        if visits:
            explanation.headline = f"fetched {count(visits, 'time')}; queued to be fetched again"
        elif explanation.attempts:
            explanation.headline = f"not fetched yet: queued for another attempt after {self._error()}"
        else:
            explanation.headline = "not fetched yet: queued"
        ahead = self.reader.ahead(row, AHEAD_LIMIT) if self.reader is not None else 0
        many = "more than " if ahead >= AHEAD_LIMIT else ""
        text = f"after {many}{count(ahead, 'URL')} of its host" if ahead else "first in the queue of its host"
        wait = max(0.0, case.backoff_until - self.now)
        if self.rules is not None:
            politeness = overridden(self.rules.politeness, Overrides(self.rules.overrides).of(case.origin.host))
            delay = host_delay(politeness, case.robots["crawl_delay_s"] if case.robots is not None else None)
            wait += ahead * delay
            text += f", one every {duration(delay)}" if delay and ahead else ""
        if wait >= 1:
            explanation.next_at = self.now + wait
            text += f": in {duration(wait)} at the earliest"
        if case.backoff_until > self.now:
            explanation.headline += f"; its host backs off ({case.backoff_reason})"
        explanation.next_text = text

    def _error(self) -> str:
        visit = self.case.visit
        if visit is None:
            return "no attempt is known"
        if visit["last_error"]:
            detail = f": {visit['last_rule']}" if visit["last_rule"] else ""
            return f"{visit['last_error']}{detail}"
        return f"status {visit['last_status']}"

    def _next_visit(self, due: float | None) -> str:
        """When the URL is visited again, by its due date or by the schedule, whichever comes first; "": never."""
        by = ""
        schedule = self.rules.schedule if self.rules is not None else ScheduleOptions()
        is_seed = self.case.row is not None and self.case.row["source"] == Source.SEED
        if schedule.what == "all" or is_seed:
            then = first_after(schedule.at, self.now)
            if then is not None and (due is None or then < due):
                due, by = then, ", by [schedule]" + ("" if schedule.what == "all" else " if it is one of crawl.seeds")
        self.explanation.next_at = due
        return "" if due is None else self._unless_denied(f"fetched again {self._when(due)}{by}")

    def _unless_denied(self, text: str) -> str:
        """`text`, the next step, unless the present rules forbid it; then the headline says so as well."""
        if not self.case.denials:
            return text
        explanation = self.explanation
        reason, rule = self.case.denials[0]
        explanation.deny_reason = reason.value if reason else None
        explanation.headline += f"; now {denial_text(reason, rule)}"
        if reason is DenyReason.ROBOTS_UNREACHABLE and self.case.robots is not None:
            explanation.next_at = self.case.robots["expires_at"]
            return f"{text}, if robots.txt can be read by then; it is requested again {self._when(explanation.next_at)}"
        explanation.next_at = None
        if reason is None:
            return "nothing, until that changes"
        return "nothing while the rules stay as they are: when it is due it will be denied"

    def _when(self, at: float) -> str:
        if at <= self.now:
            return "as soon as politeness allows"
        return f"in {duration(at - self.now)} ({wall_time(at, self.now)})"


def _file_name(file: Row) -> str:
    """The present name of an output file."""
    more = {"open": ".open", "losing": " (lost)", "lost": " (lost)"}
    return str(file["name"]) + more.get(file["state"], "")


_AUXILIARY: Final = {
    TaskKind.ROBOTS: "robots.txt",
    TaskKind.SITEMAP: "a sitemap",
    TaskKind.FEED: "a feed",
    TaskKind.PROBE: "a page that should not exist (traps.soft_404)",
}
_URL_LISTS: Final = (TaskKind.SITEMAP, TaskKind.FEED)


class AuxiliaryVisit(NamedTuple):
    """One request for robots.txt, a sitemap, a feed or a probe; `at` is None if it was not made yet."""

    kind: TaskKind
    result: str
    at: float | None
    facts: dict[str, Any]


def stored_auxiliary(reader: StoreReader, case: Case) -> list[AuxiliaryVisit]:
    """The auxiliary requests for a URL that the store knows, by look-ups in indexes."""
    found = []
    if case.robots is not None and target_of(case.url) == "/robots.txt":
        at, status = case.robots["fetched_at"], case.robots["status_code"]
        result = f"status {status}" if status is not None else "no response"
        found.append(AuxiliaryVisit(TaskKind.ROBOTS, f"{result}, {case.robots['verdict']}", at, {"status": status}))
    for kind in _URL_LISTS if case.host is not None else ():
        assert case.host is not None
        row = reader.url(case.host["id"], kind_key_of(case.url, kind))
        if row is None or row["state"] == "forgotten":
            continue
        visit = reader.visit(row["id"])
        if visit is None or not visit["attempts"]:
            refused = "" if visit is None else f": {visit['last_error']}"
            found.append(AuxiliaryVisit(kind, f"{row['state']}{refused}", None, {"state": row["state"]}))
            continue
        result = f"status {visit['last_status']}" if visit["last_status"] is not None else "no response"
        result += f", {visit['last_error']}" if visit["last_error"] else ""
        facts = {"state": row["state"], "status": visit["last_status"], "next_at": visit["next_at"]}
        found.append(AuxiliaryVisit(kind, result, visit["last_at"], facts))
    return found


def logged_auxiliary(lines: Iterable[Line]) -> list[AuxiliaryVisit]:
    """The last auxiliary request of each kind among lines of the log."""
    last: dict[TaskKind, AuxiliaryVisit] = {}
    for line in lines:
        if line.get("kind") not in tuple(TaskKind):
            continue
        kind = TaskKind(str(line["kind"]))
        status = line.get("http_response_status_code")
        result = f"status {status}" if status is not None else str(line.get("error_type") or line.get("outcome"))
        last[kind] = AuxiliaryVisit(
            kind, result, epoch(str(line["ts"])), {"status": status, "fetch_id": line.get("fetch_id")}
        )
    return list(last.values())


def add_auxiliary(explanation: Explanation, visits: Iterable[AuxiliaryVisit], now: float) -> None:
    """Add a step for each kind that has none yet. Of a URL that was never a page the headline begins with it."""
    known = {step.facts["kind"] for step in explanation.steps if step.name == "requested"}
    for one in visits:
        if one.kind in known:
            continue
        when = "not yet" if one.at is None else f"{wall_time(one.at, now)}, {ago(now - one.at)}"
        name = _AUXILIARY.get(one.kind, one.kind.value)
        explanation.add(
            "requested", "", f"as {name}: {one.result} ({when})", kind=one.kind.value, at=one.at, **one.facts
        )
        if (
            not explanation.known
            and not known
            and not explanation.headline.startswith(("requested as", "to be requested as"))
        ):
            verb = "to be requested" if one.at is None else "requested"
            explanation.headline = (
                f"{verb} as {name}, not as a page: {one.result} ({when}); as a page {explanation.headline}"
            )
