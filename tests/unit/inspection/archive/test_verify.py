"""What `verify` makes of records that are no visits of URLs, on a store and an archive made here."""

import sqlite3
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from crawler.core.enums import TaskKind
from crawler.core.models import Record
from crawler.frontier.sqlite import snapshots
from crawler.frontier.sqlite.snapshots import Auditor
from crawler.frontier.sqlite.store import SqliteFrontier
from crawler.inspection.archive import verify as verifying
from crawler.inspection.archive.verify import Checked, verify
from crawler.output_directory import CrawlPaths
from tests.support.frontiers import NOW, found
from tests.support.sinks import make_record, make_warc

PAGE = "https://example.org/"


def visit(url: str, kind: TaskKind) -> Record:
    record = make_record(url)
    return replace(record, task=replace(record.task, kind=kind))


async def findings_of(output: Path, records: Sequence[Record]) -> list[str]:
    """Of a crawl that knows one page and a robots.txt linked as one, and has these records in its archive."""
    frontier = SqliteFrontier(output / "frontier.db")
    await frontier.open()
    await frontier.add([found(PAGE), found("https://example.org/robots.txt")], now=NOW)
    await frontier.close(clean=True)
    sink = make_warc(output)
    sink.open([])
    sink.write(records, [None] * len(records))
    sink.sync()
    sink.committed()
    (file,) = sink.close()
    with sqlite3.connect(output / "frontier.db") as connection:
        connection.execute(
            "INSERT INTO sink_file (sink, name, state, committed_bytes) VALUES (?, ?, ?, ?)",
            (file.sink, file.name, file.state, file.committed_bytes),
        )
    connection.close()
    (output / "logs").mkdir()
    paths = CrawlPaths(
        output=output, frontier=output / "frontier.db", logs=output / "logs", socket=output / "control.sock"
    )
    return list(verify([paths], Checked()))


@pytest.mark.parametrize("gathered", [1, 2_000])
async def test_errands_are_not_missed_in_the_store(
    tmp_path: Path, gathered: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A probe, where robots.txt redirects to, and a robots.txt that is linked as well, read time and again."""
    monkeypatch.setattr(verifying, "_GATHER", gathered)
    robots = visit("https://example.org/robots.txt", TaskKind.ROBOTS)
    records = [
        visit("https://example.org/no-such-page-7f3a", TaskKind.PROBE),
        visit("https://example.org/rules", TaskKind.ROBOTS),
        robots,
        visit(PAGE, TaskKind.PAGE),
        robots,
    ]
    assert await findings_of(tmp_path, records) == []


@pytest.mark.parametrize("statement", ["_TWICE", "_UNKNOWN"])
async def test_the_host_of_a_record_is_found_by_its_name(tmp_path: Path, statement: str) -> None:
    """Comparing each record with each host would take hours in a broad crawl."""
    frontier = SqliteFrontier(tmp_path / "frontier.db")
    await frontier.open()
    await frontier.close(clean=True)
    with Auditor(tmp_path / "frontier.db", is_live=False) as auditor:
        auditor.begin()
        plan = [row[3] for row in auditor._execute("EXPLAIN QUERY PLAN " + getattr(snapshots, statement))]
    (step,) = [step for step in plan if " h " in step]
    assert step.startswith("SEARCH h USING COVERING INDEX sqlite_autoindex_host_1 (host=? AND scheme=? AND port=?)")


@pytest.mark.parametrize("url", ["https://example.org/lost", "https://example.org/lost/robots.txt"])
async def test_a_page_that_the_store_does_not_know_is_found_beside_errands(tmp_path: Path, url: str) -> None:
    """Whatever it is called."""
    records = [visit("https://example.org/probe", TaskKind.PROBE), visit(url, TaskKind.PAGE)]
    (finding,) = await findings_of(tmp_path, records)
    assert finding.startswith(f"{url}: archived in ")
    assert finding.endswith(", and unknown to the store")
