"""What became of a stored URL, and what happens to it next and when.

Reads the verdicts of `why`, the URL's row and its last visit. Invariant: what is announced is what the crawl does by
itself; where nothing happens by itself, the text says so.
"""

from dataclasses import dataclass
from typing import Any, Final

from crawler.core.enums import DenyReason, UrlState
from crawler.core.formatting import ago, count, duration, wall_time
from crawler.core.options import Rules
from crawler.core.politeness import host_delay
from crawler.frontier.sqlite.store_reader import Row, StoreReader
from crawler.inspection.explain.answer import Case, Explanation, denial_words, reason_of

AHEAD_LIMIT: Final = 100_000  # queued URLs of the host that are counted: some 10 ms


@dataclass(slots=True)
class Outlook:
    """Headline and future of a URL that has a row."""

    answer: Explanation
    case: Case
    reader: StoreReader | None
    rules: Rules | None
    now: float
    is_live: bool

    def conclude(self) -> None:
        answer, visit, row = self.answer, self.case.visit, self.case.row
        assert row is not None
        answer.state = row["state"]
        answer.attempts = visit["attempts"] if visit is not None else 0
        answer.last_at = visit["last_at"] if visit is not None else None
        due = visit["next_at"] if visit is not None else None
        match row["state"]:
            case UrlState.DONE:
                self._done(due)
            case UrlState.DENIED:
                self._denied()
            case UrlState.GAVE_UP:
                answer.verdict = "gave_up"
                answer.headline = f"not fetched: given up after {count(answer.attempts, 'attempt')}: {self._error()}"
                answer.next_text = self._visited_again(due) if due else "nothing, unless `crawler requeue` queues it"
            case UrlState.WAITING:
                answer.verdict, answer.next_at = "waiting", due
                answer.headline = f"not fetched yet: attempt {answer.attempts} failed ({self._error()})"
                answer.next_text = self._comes(f"tried again {self._when(due)}" if due else "tried again")
            case UrlState.SUSPECT:
                answer.verdict = "suspect"
                answer.headline = "not fetched: it belongs to a part of its host that looks endless"
                answer.next_text = (
                    "fetched when its host has nothing else queued, unless others of its kind led to more pages of the "
                    f"kind; `crawler release {self.case.origin.host}` has it fetched in any case"
                )
            case "forgotten":
                answer.verdict = "forgotten"
                answer.headline = "not fetched: an operator took it down; it is never fetched again"
                answer.next_text = "nothing"
            case _:
                self._queued()
        if not self.is_live and not answer.next_text.startswith("nothing"):
            answer.next_text += "; no crawl runs now"

    def _done(self, due: float | None) -> None:
        answer, visit = self.answer, self.case.visit
        answer.verdict = "fetched"
        assert visit is not None
        when = f"{wall_time(visit['last_at'], self.now)}, {ago(self.now - visit['last_at'])}"
        error = f", {visit['last_error']}" if visit["last_error"] else ""
        answer.headline = f"fetched: status {visit['last_status']}{error} ({when})"
        if self.reader is not None and visit["warc_file"] is not None:
            file = self.reader.sink_file(visit["warc_file"])
            if file is not None:
                name = _name_of(file)
                content, facts = self._content(visit)
                text = f"warc/{name} at byte {count(visit['warc_offset'])}, {content or visit['digest'] or 'no digest'}"
                answer.add("archive", "", text,
                           file=file["name"], offset=visit["warc_offset"], digest=visit["digest"], **facts)  # fmt: skip
        answer.next_at = due
        answer.next_text = self._visited_again(due) if due else "nothing: it is fetched once"

    def _content(self, visit: Row) -> tuple[str, dict[str, Any]]:
        """Where the content is, if the last record is not the one that holds it."""
        file_id = visit.get("content_file")  # a store of an older version does not say
        if file_id is None or self.reader is None:
            return "", {}
        status = visit["last_status"] or 0
        kind = "a revisit record" if status == 304 or status < 300 else "the record of an error"
        file = self.reader.sink_file(file_id)
        if file is None:
            return f"{kind}: the content is in a file that the store no longer knows", {}
        name = _name_of(file)
        place = f"warc/{name} at byte {count(visit['content_offset'])}"
        facts = {"content_file": file["name"], "content_offset": visit["content_offset"]}
        return f"{kind}: the content is in {place}, {visit['digest'] or 'no digest'}", facts

    def _denied(self) -> None:
        answer, visit, case = self.answer, self.case.visit, self.case
        answer.verdict = "denied"
        stored = str(visit["last_error"]) if visit is not None and visit["last_error"] else ""
        rule = str(visit["last_rule"]) if visit is not None and visit["last_rule"] else ""
        answer.deny_reason = stored or None
        answer.headline = f"not fetched: {denial_words(reason_of(stored), rule)}"
        if not case.denials:
            was = wall_time(visit["last_at"], self.now) if visit is not None and visit["last_at"] else "then"
            answer.headline += f" ({was}; the rules now allow it)"
            answer.next_text = "judged again when the crawl applies its changed rules to the stored URLs"
            return
        if case.robots is not None and stored == DenyReason.ROBOTS:
            answer.next_at = case.robots["expires_at"]
            answer.next_text = f"robots.txt is requested again {self._when(answer.next_at)}"
        else:
            answer.next_text = "nothing while the rules stay as they are"

    def _queued(self) -> None:
        answer, case, row = self.answer, self.case, self.case.row
        assert row is not None
        answer.verdict = "queued"
        if case.denials:
            reason, rule = case.denials[0]
            answer.deny_reason = reason.value if reason else None
            answer.headline = f"not fetched: {denial_words(reason, rule)}"
            if reason is DenyReason.ROBOTS_UNREACHABLE and case.robots is not None:
                answer.next_at = case.robots["expires_at"]
                answer.next_text = f"robots.txt is requested again {self._when(answer.next_at)}; the URL stays queued"
            elif reason is None:
                answer.next_text = "it stays queued, and is fetched when that changes"
            else:
                answer.next_text = "it will be denied when it is due"
            return
        visits = self.case.visit["visits"] if self.case.visit is not None and "visits" in self.case.visit else 0
        if visits:
            answer.headline = f"fetched {count(visits, 'time')}; queued to be fetched again"
        elif answer.attempts:
            answer.headline = f"not fetched yet: queued for another attempt after {self._error()}"
        else:
            answer.headline = "not fetched yet: queued"
        ahead = self.reader.ahead(row, AHEAD_LIMIT) if self.reader is not None else 0
        many = "more than " if ahead >= AHEAD_LIMIT else ""
        text = f"after {many}{count(ahead, 'URL')} of its host" if ahead else "first in the queue of its host"
        wait = max(0.0, case.rest_until - self.now)
        if self.rules is not None:
            delay = host_delay(self.rules.politeness, case.robots["crawl_delay_s"] if case.robots is not None else None)
            wait += ahead * delay
            text += f", one every {duration(delay)}" if delay and ahead else ""
        if wait >= 1:
            answer.next_at = self.now + wait
            text += f": in {duration(wait)} at the earliest"
        if case.rest_until > self.now:
            answer.headline += f"; its host backs off ({case.rest_reason})"
        answer.next_text = text

    def _error(self) -> str:
        visit = self.case.visit
        if visit is None:
            return "no attempt is known"
        if visit["last_error"]:
            detail = f": {visit['last_rule']}" if visit["last_rule"] else ""
            return f"{visit['last_error']}{detail}"
        return f"status {visit['last_status']}"

    def _visited_again(self, due: float) -> str:
        self.answer.next_at = due
        return self._comes(f"fetched again {self._when(due)}")

    def _comes(self, text: str) -> str:
        """What is due, unless the rules of now forbid it: then the headline says so as well."""
        if not self.case.denials:
            return text
        answer = self.answer
        reason, rule = self.case.denials[0]
        answer.deny_reason = reason.value if reason else None
        answer.headline += f"; now {denial_words(reason, rule)}"
        if reason is DenyReason.ROBOTS_UNREACHABLE and self.case.robots is not None:
            answer.next_at = self.case.robots["expires_at"]
            return f"{text}, if robots.txt can be read by then; it is requested again {self._when(answer.next_at)}"
        answer.next_at = None
        if reason is None:
            return "nothing, until that changes"
        return "nothing while the rules stay as they are: when it is due it will be denied"

    def _when(self, at: float) -> str:
        if at <= self.now:
            return "as soon as politeness allows"
        return f"in {duration(at - self.now)} ({wall_time(at, self.now)})"


def _name_of(file: Row) -> str:
    """An output file's name as it is now."""
    more = {"open": ".open", "losing": " (lost)", "lost": " (lost)"}
    return str(file["name"]) + more.get(file["state"], "")
