"""What else than a page a URL was asked for as: robots.txt, a sitemap, a feed, a page that should not exist.

The store knows the first three, the log all of them: a robots.txt that another host's redirects to, and a probe, leave
nothing else. Pure but for the reader it asks; every question is a look-up in an index.
"""

from collections.abc import Iterable
from typing import Any, Final, NamedTuple

from crawler.core.enums import TaskKind
from crawler.core.formatting import ago, wall_time
from crawler.core.url import kind_key_of, target_of
from crawler.frontier.sqlite.store_reader import StoreReader
from crawler.inspection.explain.answer import Case, Explanation
from crawler.inspection.log.query import Line
from crawler.inspection.log.ranges import epoch

_WORDS: Final = {
    TaskKind.ROBOTS: "robots.txt",
    TaskKind.SITEMAP: "a sitemap",
    TaskKind.FEED: "a feed",
    TaskKind.PROBE: "a page that should not exist (traps.soft_404)",
}
_LISTINGS: Final = (TaskKind.SITEMAP, TaskKind.FEED)


class AuxiliaryVisit(NamedTuple):
    """`said` is what came of it; `at` when, None if it was not asked for yet."""

    kind: TaskKind
    said: str
    at: float | None
    facts: dict[str, Any]


def stored(reader: StoreReader, case: Case) -> list[AuxiliaryVisit]:
    """What the store knows."""
    found = []
    if case.robots is not None and target_of(case.url) == "/robots.txt":
        at, status = case.robots["fetched_at"], case.robots["status_code"]
        said = f"status {status}" if status is not None else "no response"
        found.append(AuxiliaryVisit(TaskKind.ROBOTS, f"{said}, {case.robots['verdict']}", at, {"status": status}))
    for kind in _LISTINGS if case.host is not None else ():
        assert case.host is not None
        row = reader.url(case.host["id"], kind_key_of(case.url, kind))
        if row is None or row["state"] == "forgotten":
            continue
        visit = reader.visit(row["id"])
        if visit is None or not visit["attempts"]:
            refused = "" if visit is None else f": {visit['last_error']}"
            found.append(AuxiliaryVisit(kind, f"{row['state']}{refused}", None, {"state": row["state"]}))
            continue
        said = f"status {visit['last_status']}" if visit["last_status"] is not None else "no response"
        said += f", {visit['last_error']}" if visit["last_error"] else ""
        facts = {"state": row["state"], "status": visit["last_status"], "next_at": visit["next_at"]}
        found.append(AuxiliaryVisit(kind, said, visit["last_at"], facts))
    return found


def logged(lines: Iterable[Line]) -> list[AuxiliaryVisit]:
    """What the log knows: the last of each kind."""
    last: dict[TaskKind, AuxiliaryVisit] = {}
    for line in lines:
        if line.get("kind") not in tuple(TaskKind):
            continue
        kind = TaskKind(str(line["kind"]))
        status = line.get("http_response_status_code")
        said = f"status {status}" if status is not None else str(line.get("error_type") or line.get("outcome"))
        last[kind] = AuxiliaryVisit(
            kind, said, epoch(str(line["ts"])), {"status": status, "fetch_id": line.get("fetch_id")}
        )
    return list(last.values())


def tell(answer: Explanation, errands: Iterable[AuxiliaryVisit], now: float) -> None:
    """Add what is not told yet; of a URL that was never a page the headline says it first."""
    told = {step.facts["kind"] for step in answer.steps if step.name == "asked"}
    for one in errands:
        if one.kind in told:
            continue
        when = "not yet" if one.at is None else f"{wall_time(one.at, now)}, {ago(now - one.at)}"
        words = _WORDS.get(one.kind, one.kind.value)
        answer.add(
            "asked", "", f"requested as {words}: {one.said} ({when})", kind=one.kind.value, at=one.at, **one.facts
        )
        if not answer.known and not told and not answer.headline.startswith(("requested as", "to be requested as")):
            verb = "to be requested" if one.at is None else "requested"
            answer.headline = f"{verb} as {words}, not as a page: {one.said} ({when}); as a page {answer.headline}"
