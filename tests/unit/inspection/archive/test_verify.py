"""What `verify` makes of records that are no visits of URLs, on a store and an archive made here."""

import sqlite3
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from crawler.core.enums import TaskKind
from crawler.core.models import Record, RecordLocation, SinkFile
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


def archived(output: Path, agent: str, urls: Sequence[str]) -> tuple[CrawlPaths, SinkFile, list[RecordLocation]]:
    """The directory of an agent with a WARC file of these pages, and where their records are."""
    (output / "logs").mkdir(parents=True)
    sink = make_warc(output)
    sink.open([])
    locations = [one for one in sink.write([make_record(url) for url in urls], [None] * len(urls)) if one is not None]
    sink.sync()
    sink.committed()
    (file,) = sink.close()
    name = f"{agent}-{file.name}"
    (output / "warc" / file.name).rename(output / "warc" / name)
    paths = CrawlPaths(
        output, output.parent / "frontier.db", output / "logs", output / "control.sock", is_database=True, agent=agent
    )
    return paths, replace(file, name=name), locations


async def test_what_several_agents_stored_is_all_in_their_directories_and_once(tmp_path: Path) -> None:
    """Of three agents: a directory that is left out is a finding, and so is a page that two of them have stored."""
    urls = [f"https://host{n}.example/" for n in range(3)]
    frontier = SqliteFrontier(tmp_path / "frontier.db")
    await frontier.open()
    await frontier.add([found(url) for url in urls], now=NOW)
    await frontier.close(clean=True)
    agents = {"a1": [urls[0]], "a2": [urls[1], urls[0]], "a3": [urls[2]]}
    crawls = []
    with sqlite3.connect(tmp_path / "frontier.db") as connection:  # as a copy of a database is
        connection.execute("CREATE TABLE slot_agent (id INTEGER PRIMARY KEY, agent TEXT)")
        connection.execute("CREATE TABLE agent_file (id INTEGER PRIMARY KEY, agent TEXT)")
        for file_id, (agent, stored) in enumerate(agents.items(), 1):
            paths, file, locations = archived(tmp_path / agent, agent, stored)
            crawls.append(paths)
            connection.execute(
                "INSERT INTO sink_file (id, sink, name, state, committed_bytes) VALUES (?, ?, ?, ?, ?)",
                (file_id, file.sink, file.name, file.state, file.committed_bytes),
            )
            connection.execute("INSERT INTO agent_file VALUES (?, ?)", (file_id, agent))
            connection.execute(
                "INSERT INTO visit (url, attempts, visits, last_at, last_status, ended, warc_file, warc_offset) "
                "VALUES (?, 1, 1, ?, 200, 1, ?, ?)",
                (file_id, NOW, file_id, locations[0].offset),
            )
    connection.close()
    checked = Checked()
    assert list(verify(crawls[:1], checked)) == []
    assert (checked.records > 0, checked.elsewhere) == (True, 2)
    twice = f"{urls[0]}: archived 2 times, fetched 1 time"
    assert list(verify(crawls[:2], Checked())) == [
        twice, "1 URL in files of the agent a3, whose directory is not checked",
    ]  # fmt: skip
    assert list(verify(crawls, Checked())) == [twice]
