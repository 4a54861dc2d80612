"""Numbers that belong together add up in every view, at any moment of a random crawl and at its end: the status, the
panel, the hosts of the status page, the summary, and the report from the log.
"""

import asyncio
import random
import re
from pathlib import Path

import pytest

from crawler.cli.progress import panel, summary_table
from crawler.core.enums import ErrorType, HostState, StoppedBy, TaskKind, TruncatedReason
from crawler.core.models import FetchResult, Task
from crawler.core.options import PolitenessOptions, ScopeOptions
from crawler.core.outcomes import outcomes_text
from crawler.engine.monitoring.ending import summarise
from crawler.engine.monitoring.event_log import EventLog
from crawler.engine.monitoring.status import Status
from crawler.engine.options import EngineOptions
from crawler.inspection.log.totals import LogTotals
from crawler.inspection.report import EventTotals, report
from crawler.inspection.report_page import page as report_page
from crawler.obs.fetch_line import fetch_line
from tests.support.engine import Harness
from tests.support.scripted_web import failed, page, response
from tests.support.virtual_time import run

STATES = tuple(map(str, HostState))
HOSTS = 9


def answer(rng: random.Random, task: Task) -> FetchResult:
    """Anything that a host may say."""
    if task.kind is not TaskKind.PAGE:
        rules = b"User-agent: *\nDisallow: /3\n"
        known = response(200, rules, content_type="text/plain")
        return rng.choice((known, known, response(404), response(503), failed(ErrorType.READ_TIMEOUT)))
    match rng.randrange(14):
        case 0:
            return response(rng.choice((404, 410, 500, 503, 429)))
        case 1:
            return response(301, location=f"https://h{rng.randrange(HOSTS)}.test/{rng.randrange(40)}")
        case 2:
            return failed(rng.choice((ErrorType.CONNECT_REFUSED, ErrorType.RESET, ErrorType.TLS_FAILED)))
        case 3:
            return response(200, b"x" * 99, truncated=TruncatedReason.LENGTH)
        case 4:
            return response(200, b"x", truncated=TruncatedReason.DISCONNECT, error_type=ErrorType.TRUNCATED)
        case 5:
            return response(200, b"x", error_type=ErrorType.CONTENT_ERROR)
        case 6 | 7:
            return response(200, b"GIF89a", content_type="image/gif")
        case _:
            links = [f"https://h{rng.randrange(HOSTS + 1)}.test/{rng.randrange(60)}" for _ in range(5)]
            return response(200, page(*links, "https://elsewhere.example/"))


async def check_status(engine: Harness, status: Status) -> None:
    counts = status.counts
    attempts = sum(counts.outcomes.values())
    assert counts.responses == sum(counts.page_responses.values()) + counts.auxiliary
    assert counts.errors == sum(counts.error_types.values())
    assert counts.denied == sum(counts.deny_reasons.values()) == counts.outcomes.get("denied", 0)
    without_response = attempts - counts.responses - counts.denied
    assert 0 <= without_response <= counts.outcomes.get("error", 0)
    assert 0 <= counts.html <= counts.pages <= counts.responses
    assert all(number >= 0 for number in counts.outcomes.values())

    hosts = status.hosts
    assert sum(hosts[state] for state in STATES) == hosts["total"]
    found = [await engine.monitor.find_hosts(text="", state=state, sort="broken", limit=500) for state in STATES]
    rows = [row for one in found for row in one["hosts"]]  # type: ignore[attr-defined]  # a list in a dict
    assert sum(one["matching"] for one in found) == len(rows) == hosts["total"]  # type: ignore[misc]  # the same
    assert sum(row["in_flight"] for row in rows) <= len(status.in_flight) or not status.in_flight
    assert status.held_back <= status.urls["queued"]

    shown = panel(status).plain
    assert f"attempts     {attempts:,}: " in shown
    assert numbers(outcomes_text(counts.outcomes)) == attempts
    fetched, every, *rest = map(int, re.findall(r"\d+", re.search(r"URLs .*", shown)[0].replace(",", "")))  # type: ignore[index]  # it is there
    assert fetched + sum(rest) == every == sum(status.urls.values())
    pages, html, other = (int(n) for n in re.search(r"pages +(\d+) \((\d+) HTML, (\d+) other", shown).groups())  # type: ignore[union-attr]  # it is there
    assert pages == html + other


def numbers(text: str) -> int:
    return sum(int(number.replace(",", "")) for number in re.findall(r"\d[\d,]*", text))


@pytest.mark.parametrize("number", range(12))
def test_numbers_add_up(number: int, tmp_path: Path) -> None:
    """Also after responses that were judged again when they were read."""
    rng = random.Random(number)

    async def main() -> None:
        engine = Harness(
            *(f"https://h{n}.test/" for n in range(3)),
            politeness=PolitenessOptions(delay_s=rng.choice((0.0, 0.2)), address_delay_s=0.0),
            scope=ScopeOptions(hosts=("*.test",), max_urls=rng.choice((None, 60))),
            engine=EngineOptions(workers=8, linger_s=rng.choice((0.0, 900.0)), min_free=0, max_attempts=2),
            rng_seed=number,
        )
        engine.web.other = lambda origin, task: answer(rng, task)
        engine.web.takes_s = lambda origin, task: rng.random() / 4
        await engine.open()
        crawling = asyncio.ensure_future(engine.engine.run())
        while not crawling.done():
            await engine.monitor.sample()
            await check_status(engine, engine.monitor.status())
            await asyncio.wait([crawling], timeout=rng.choice((0.3, 2.0, 60.0)))
        await engine.close()
        await check_end(engine, crawling.result(), tmp_path)

    run(main())


async def check_end(engine: Harness, stopped_by: StoppedBy, output: Path) -> None:
    """The summary, and the report from the lines of the log, once everything is stored."""
    await engine.frontier.open()
    await engine.monitor.sample()
    status, end = engine.monitor.status(), await engine.engine.ending(stopped_by)
    counters = engine.counters
    summary = summarise(counters, engine.web.stats(), len(engine.host_table.hosts), output, end, 1.0)
    urls = end.urls
    assert urls.found == urls.fetched + urls.refused + urls.gave_up + urls.left + urls.taken_down
    assert sum(end.left_by.values()) == urls.left
    assert summary["gave_up"] == sum(counters.gave_up.values())
    details = EventLog.details(_Log(engine), counters)  # type: ignore[arg-type]  # of which it needs one field
    assert sum(details["kinds"].values()) == summary["pages"] == counters.pages
    assert sum(details["outcomes"].values()) == sum(status.counts.outcomes.values())
    assert summary_table(summary | details)

    totals = LogTotals()
    for fetch_id, (visited, links_new, written) in enumerate(engine.visits):
        totals.add(
            fetch_line(
                visited.settlement, crawl="c", run_id="r", fetch_id=fetch_id, links_found=visited.links_found,
                links_new=links_new, written=written,
            )
        )  # fmt: skip
    found = report(totals, EventTotals(), None)
    attempts = sum(counters.outcomes.values())
    assert found["totals"]["attempts"] == attempts
    assert sum(found["outcomes"].values()) + found["totals"]["auxiliary"] == attempts
    assert found["totals"]["responses"] == sum(found["statuses"].values()) == counters.responses
    assert found["totals"]["pages"] == counters.pages
    assert sum(found["refusals"].values()) == counters.denied
    table = report_page(found, totals)
    rows = table[table.index("<summary>Attempts by outcome") :].partition("</table>")[0].split("<tr>")[2:]
    assert sum(numbers(cell) for row in rows for cell in re.findall("<td class=n>([^<]*)", row)) == attempts
    await engine.frontier.close(clean=True)


class _Log:
    """What `EventLog.details` reads of an event log."""

    def __init__(self, engine: Harness) -> None:
        self.skipped = {link.reason: 1 for link in engine.skipped}
