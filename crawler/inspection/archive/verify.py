"""Check of output directories: the store, WARC files, pages/ and logs, each by itself and against the others.

The store has the committed length of each file. Bytes beyond it are no fault: they are of a commit that did not finish.
Closed files may be moved away. If a file vanished while it was open, its records that were not stored again since are
reported. Of several agents that share a database, each has a directory: one is checked by itself, or all of them
together, and then nothing that the database has as stored may be missing.
Invariants: nothing is changed. Memory is bounded by one record and one block of lines, because comparisons are made in
a table on disk.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import orjson

from crawler.core.enums import TaskKind
from crawler.core.formatting import count
from crawler.core.url import UrlError, key_of, parse
from crawler.frontier.sqlite.snapshots import Auditor
from crawler.inspection.archive.warc_reader import records
from crawler.inspection.log.rotated_log import RotatedLog
from crawler.output_directory import CrawlPaths

_GATHER: Final = 2_000  # records given to the store at a time
_READ: Final = 1024 * 1024
_UNSTORED: Final = (TaskKind.ROBOTS, TaskKind.PROBE)  # their URLs are not in the store


@dataclass(slots=True)
class Checked:
    """Counts of a check. `away`: closed files that were moved away. `lost`: files that vanished while they were
    written. `uncommitted`: bytes beyond the committed lengths. `torn_lines`: log lines without valid JSON.
    `elsewhere`: URLs whose last record is in a file of an agent whose directory is not checked.
    """

    files: int = 0
    records: int = 0
    pages: int = 0
    log_lines: int = 0
    away: int = 0
    lost: int = 0
    uncommitted: int = 0
    torn_lines: int = 0
    elsewhere: int = 0
    archive: dict[str, tuple[int, int]] = field(default_factory=dict)  # WARC file name → id, committed bytes


def verify(crawls: Sequence[CrawlPaths], checked: Checked) -> Iterator[str]:
    """Yield a message for every fault, and count in `checked`. `crawls`: an output directory, or those of several
    agents of one crawl; the store is that of the first. Raises the errors of StoreReader.
    """
    first = crawls[0]
    with Auditor(first.frontier, is_live=first.pid() is not None) as store:
        store.begin([one.agent for one in crawls])
        yield from store.own_problems()
        for paths in crawls:
            yield from _files(store, paths, checked)
        yield from store.cross_problems()
        yield from store.lost_problems()
        for agent, urls in store.elsewhere():
            checked.elsewhere += urls
            if len(crawls) > 1:
                yield f"{count(urls, 'URL')} in files of the agent {agent}, whose directory is not checked"
        for paths in crawls:
            yield from _log(store, paths, checked)


def _files(store: Auditor, paths: CrawlPaths, checked: Checked) -> Iterator[str]:
    """Check the output files of a directory."""
    pages: list[tuple[str, int]] = []
    known: dict[str, set[str]] = {"warc": set(), "pages": set()}
    for file_id, sink, name, state, size in store.sink_files(paths.agent):
        known.setdefault(sink, set()).add(name)
        path, problem = _file(paths.output / sink, name, state, size, checked)
        if problem is not None:
            yield problem
        if path is None:
            continue
        if sink == "warc":
            checked.archive[name] = (file_id, size)
            yield from _warc(store, file_id, name, path, size, checked)
        else:
            pages.append((name, size))
    for sink, names in known.items():
        yield from _unknown_files(paths.output / sink, names)
    for name, size in pages:
        path = _path(paths.output / "pages", name)  # looked up again, because a running crawl renames full files
        if path is not None:
            yield from _pages(store, name, path, size, checked)


def _file(folder: Path, name: str, state: str, size: int, checked: Checked) -> tuple[Path | None, str | None]:
    """The path of a file, and a message if its length is wrong."""
    if state in ("losing", "lost"):
        checked.lost += 1
        return None, None
    path = _path(folder, name)
    where = f"{folder.name}/{name}"
    if path is None:
        checked.away += state == "closed"
        return (
            None,
            None if state == "closed" or size == 0 else f"{where}: is missing, but the store has it as {state}",
        )
    found = path.stat().st_size
    if found < size:
        return None, f"{where}: has {count(found, 'byte')}, {count(size)} were committed"
    checked.files += 1
    if found > size and path.name == name and state == "closed":
        return path, f"{where}: has {count(found - size, 'byte')} beyond the {count(size)} it was closed with"
    checked.uncommitted += found - size
    return path, None


def _path(folder: Path, name: str) -> Path | None:
    return next((path for path in (folder / f"{name}.open", folder / name) if path.exists()), None)


def _unknown_files(folder: Path, names: set[str]) -> Iterator[str]:
    """Yield complete files that are not in the store. (Open ones are set aside at the next start of the crawl.)"""
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        name = path.name.removesuffix(".open")
        if name not in names and name == path.name and name.endswith((".warc.gz", ".jsonl")):
            yield f"{folder.name}/{path.name}: unknown to the store"


def _warc(store: Auditor, file_id: int, name: str, path: Path, size: int, checked: Checked) -> Iterator[str]:
    rows: list[tuple[int, int, str, str | None, str, str, int, int, bool]] = []
    response_id = ""  # of the last row; its metadata record, which follows, has the kind of the request
    end = 0
    for record in records(path, size):
        checked.records += 1
        end = record.offset + record.length
        for problem in record.problems:
            yield f"warc/{name} at byte {record.offset}: {problem}" + (f" ({record.url})" if record.url else "")
        if record.torn:
            return
        if record.kind in ("response", "revisit"):
            try:
                href, origin = parse(record.url)
            except UrlError as error:
                yield f"warc/{name} at byte {record.offset}: {error}"
                continue
            digest = record.headers.get("warc-payload-digest")
            if len(rows) == _GATHER:
                store.gather(rows)
                rows.clear()
            host = (origin.scheme, origin.host, origin.port)
            rows.append((file_id, record.offset, record.url, digest, *host, key_of(href), False))
            response_id = record.headers.get("warc-record-id", "")
        elif (
            rows and record.fields.get("kind") in _UNSTORED and record.headers.get("warc-concurrent-to") == response_id
        ):
            rows[-1] = (*rows[-1][:-1], True)
    store.gather(rows)
    if end != size:
        yield f"warc/{name}: its records end at byte {end}, {size} bytes were committed"
    else:
        store.hold(file_id)


def _pages(store: Auditor, name: str, path: Path, size: int, checked: Checked) -> Iterator[str]:
    with path.open("rb") as file:
        at = 0
        while at < size:
            line = file.readline(min(size - at, 16 * _READ))
            where = f"pages/{name} at byte {at}"
            at += len(line)
            checked.pages += 1
            page = _object(line)
            if page is None or not line.endswith(b"\n"):
                yield f"{where}: not a complete JSON line"
                continue
            yield from (f"{where}: {problem}" for problem in _page(store, page, checked))


def _page(store: Auditor, page: dict[str, Any], checked: Checked) -> Iterator[str]:
    file_id, _ = checked.archive.get(str(page.get("warc_file")), (0, 0))
    if not store.is_held(file_id):
        return  # there is no archive, or it was moved away, or its damage was reported
    found = store.record(file_id, int(page.get("warc_offset") or 0), by_page=True)
    if found is None:
        yield f"{page.get('url')}: no response begins at byte {page.get('warc_offset')} of {page['warc_file']}"
        return
    url, digest, lines = found
    if url != page.get("url"):
        yield f"{page.get('url')}: {page['warc_file']} has {url} at byte {page['warc_offset']}"
    elif digest is not None and digest != page.get("digest"):
        yield f"{url}: its digest is not that of the WARC file"
    elif lines == 2:
        yield f"{url}: more than one line for one record"


def _log(store: Auditor, paths: CrawlPaths, checked: Checked) -> Iterator[str]:
    """Check the lines of the log against the archive. Lines may be missing, because the log is written without sync."""
    with RotatedLog(paths.fetch_log) as parts:
        for part in parts.oldest_first:
            for block in part.blocks():
                for line in block.splitlines():
                    checked.log_lines += 1
                    entry = _object(line)
                    if entry is None:
                        checked.torn_lines += 1  # a kill may cut a line
                        continue
                    name, at = str(entry.get("warc_file")), int(entry.get("warc_offset") or 0)
                    file_id, size = checked.archive.get(name, (0, 0))
                    if at >= size or not store.is_held(file_id):  # a line may be of a commit after our snapshot
                        continue
                    found = store.record(file_id, at)
                    if found is None:
                        yield f"fetch.jsonl: {entry.get('url_full')}: no response begins at byte {at} of {name}"
                    elif entry.get("content_digest") not in (None, found[1]) and found[1] is not None:
                        yield f"fetch.jsonl: {entry.get('url_full')}: its digest is not that of the WARC file"


def _object(line: bytes) -> dict[str, Any] | None:
    try:
        value = orjson.loads(line)
    except orjson.JSONDecodeError:
        return None
    return value if isinstance(value, dict) else None
