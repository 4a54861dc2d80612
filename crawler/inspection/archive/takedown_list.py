"""takedown.jsonl: the WARC records that must be removed for a takedown, and the lines of pages/ that were blanked.

The store knows the last record of each URL and the records written after the takedown. A scan of the WARC files finds
the others: earlier visits, requests, metadata. No record is removed here, because that must be done in all copies of
the files. Lines of pages/ are listed first and then blanked.
Invariants: the file is replaced as a whole, and has each record and line once.
"""

import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol

import orjson

from crawler.core.models import Origin
from crawler.core.url import UrlError, canonical, parse
from crawler.frontier.sqlite.snapshots import StoreBackup
from crawler.inspection.archive.warc_reader import WarcRecord, records
from crawler.output_directory import CrawlPaths

BLANK: Final = b'{"url":null,"forgotten":true}'
_HEAD: Final = re.compile(rb'\{"url":("(?:[^"\\]|\\.)*")')
_FILE: Final = re.compile(r".+\.jsonl(?:\.open|\.orphan(?:\.\d+)?)?")


@dataclass(frozen=True, slots=True)
class PageLine:
    """A line of pages/: `offset` and `length` in bytes without the line feed; `head` are its first bytes, with the URL.

    `url` is None for a line that was only half blanked when the process was killed.
    """

    offset: int
    length: int
    head: bytes
    url: str | None


def files(folder: Path) -> list[Path]:
    """The files of pages/: complete, open, and set aside as orphans."""
    return [path for path in sorted(folder.iterdir()) if _FILE.fullmatch(path.name)] if folder.is_dir() else []


def find(path: Path, matches: Callable[[str], bool], problems: list[str]) -> list[PageLine]:
    """Find the lines whose URL `matches`, and half blanked lines. An unreadable file is added to `problems`."""
    try:
        with path.open("rb") as file:
            return list(_page_lines(file, matches))
    except FileNotFoundError:  # complete by now, and therefore renamed
        whole = path.with_name(path.name.removesuffix(".open"))
        return find(whole, matches, problems) if whole != path else []
    except OSError as error:
        problems.append(f"{path}: {error.strerror or error}")
        return []


def _page_lines(file: Iterator[bytes], matches: Callable[[str], bool]) -> Iterator[PageLine]:
    offset = 0
    for line in file:
        head = _HEAD.match(line)
        if line.endswith(b"\n"):
            url = str(orjson.loads(head[1])) if head is not None else None
            length = len(line) - 1
            if url is not None and head is not None and matches(url):
                yield PageLine(offset, length, head[0], url)
            elif url is None and line.endswith(b" \n") and line.rstrip() != BLANK:
                yield PageLine(offset, length, b"", None)
        offset += len(line)


def blank(path: Path, lines: Sequence[PageLine], problems: list[str]) -> None:
    """Overwrite lines that `find` found."""
    if not lines:
        return
    for one in (path, path.with_name(path.name.removesuffix(".open"))):
        try:
            descriptor = os.open(one, os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            continue
        except OSError as error:
            problems.append(f"{one}: its lines of forgotten URLs could not be blanked: {error.strerror or error}")
            return
        try:
            # After `find`, a failed commit may have been cut off, and other lines written in its place.
            there = [line for line in lines if os.pread(descriptor, len(line.head), line.offset) == line.head]
            for line in there:
                kept = len(line.head)
                os.pwrite(descriptor, b" " * (line.length - kept), line.offset + kept)
            os.fsync(descriptor)
            for line in there:
                os.pwrite(descriptor, BLANK.ljust(line.length), line.offset)
            os.fsync(descriptor)
        except OSError as error:
            problems.append(f"{one}: its lines of forgotten URLs could not be blanked: {error.strerror or error}")
        finally:
            os.close(descriptor)
        return


_ORPHAN: Final = re.compile(r"\.warc\.gz\.orphan(\.\d+)?$")  # set aside at a start; its records are complete


class ForgottenTarget(Protocol):
    """A takedown: one URL, or all of a host."""

    @property
    def host(self) -> str: ...
    @property
    def url(self) -> str | None: ...


@dataclass(frozen=True, slots=True)
class Listed:
    """A result of `write_list`: the number of records in the file, those `new` in this run, and `problems`: messages
    about files that could not be read to their end.
    """

    path: Path
    records: int
    new: int
    problems: Sequence[str] = ()


def write_list(
    paths: CrawlPaths, scanned: Sequence[ForgottenTarget], *, forgotten: Sequence[ForgottenTarget], now: float
) -> Listed:
    """Update the file. WARC files are scanned for the targets in `scanned`. Lines in pages/ of `forgotten` and of all
    takedowns in the store are listed, then blanked.
    """
    path = paths.output / "takedown.jsonl"
    found: dict[tuple[str, int], dict[str, Any]] = {_key(line): line for line in _lines(path)}
    before = len(found)
    listed: list[ForgottenTarget] = [*forgotten]
    with StoreBackup(paths.frontier, is_live=paths.pid() is not None) as store:
        for url, warc_file, offset, at in store.takedowns():
            found.setdefault((warc_file, offset), _line(url, warc_file, offset, None, "response", at))
            listed.append(_Url(url))
    problems: list[str] = []
    if scanned:
        for one in _scan(paths.output / "warc", scanned, problems, now):
            found[one["warc_file"], one["warc_offset"]] = one
    matches = _matcher(listed)
    lines = {pages: find(pages, matches, problems) for pages in files(paths.output / "pages")}
    for pages, its in lines.items():
        name = pages.name.removesuffix(".open")
        for page in its:
            if page.url is not None:
                found.setdefault((name, page.offset), _page_line(page.url, name, page.offset, page.length, now))
    temporary = path.with_suffix(".jsonl.new")
    with temporary.open("wb") as file:
        for key in sorted(found):
            file.write(orjson.dumps(found[key], option=orjson.OPT_APPEND_NEWLINE))
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
    for pages, its in lines.items():
        blank(pages, its, problems)
    return Listed(path, len(found), len(found) - before, problems)


def _line(url: str, name: str, offset: int, length: int | None, kind: str, at: float) -> dict[str, Any]:
    return {"url": url, "warc_file": name, "warc_offset": offset, "length": length, "record": kind, "forgotten_at": at}


def _page_line(url: str, name: str, offset: int, length: int, at: float) -> dict[str, Any]:
    return {"url": url, "pages_file": name, "pages_offset": offset, "length": length, "record": "page",
            "forgotten_at": at}  # fmt: skip


def _key(line: dict[str, Any]) -> tuple[str, int]:
    """File and offset, which are unique: names in warc/ and in pages/ end differently."""
    if "pages_file" in line:
        return line["pages_file"], line["pages_offset"]
    return line["warc_file"], line["warc_offset"]


@dataclass(frozen=True, slots=True)
class _Url:
    url: str | None
    host: str = ""


def _matcher(targets: Sequence[ForgottenTarget]) -> Callable[[str], bool]:
    """Return a predicate: does a URL belong to one of the targets?"""
    hosts = {target.host for target in targets if target.url is None}
    urls = {canonical(target.url) for target in targets if target.url is not None}

    def matches(url: str) -> bool:
        parsed = _parse(url)
        return parsed is not None and (parsed[1].host in hosts or canonical(parsed[0]) in urls)

    return matches


def _lines(path: Path) -> Iterable[dict[str, Any]]:
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return []
    return [orjson.loads(line) for line in content.splitlines()]


def _scan(
    folder: Path, targets: Sequence[ForgottenTarget], problems: list[str], now: float
) -> Iterable[dict[str, Any]]:
    matches = _matcher(targets)
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        name = path.name.removesuffix(".open")
        if not name.endswith(".warc.gz") and not _ORPHAN.search(name):
            continue
        for record in _records_of(path, path.with_name(name), problems):
            if matches(record.url):
                yield _line(record.url, name, record.offset, record.length, record.kind, now)


def _records_of(path: Path, complete: Path, problems: list[str]) -> Iterable[WarcRecord]:
    """The records of one file. A running crawl may have completed and renamed it to `complete` meanwhile."""
    for one in dict.fromkeys((path, complete)):
        try:
            for record in records(one, deep=False):
                if record.torn and one.name.endswith(".warc.gz"):  # others may end with a partial record
                    problems.append(f"{one}: at byte {record.offset}: {record.problems[-1]}")
                yield record
        except FileNotFoundError:  # renamed, or moved away by the operator
            continue
        except OSError as error:  # the other files are listed all the same
            problems.append(f"{one}: {error.strerror or error}")
        return


def _parse(url: str) -> tuple[str, Origin] | None:
    try:
        return parse(url) if url else None
    except UrlError:
        return None
