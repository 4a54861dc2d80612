"""takedown.jsonl: which records of the WARC files a takedown wants removed, and which lines of pages/ it blanked.

What the store knows of (the last record of each URL, and those written after the takedown) and what a walk through the
WARC files finds beside it: earlier visits, requests, metadata. No record is removed here: whoever holds copies of the
files must do that in all of them. Lines of pages/ are blanked (`pagelines`) once they are listed.
Invariant: the file is replaced whole; a record or line stands in it once.
"""

import os
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol

import orjson

from crawler.core.models import Origin
from crawler.core.url import UrlError, canonical, parse
from crawler.frontier.sqlite.backup import StoreBackup
from crawler.inspect import pagelines
from crawler.inspect.place import Place
from crawler.inspect.warcs import WarcRecord, records

_ORPHAN: Final = re.compile(r"\.warc\.gz\.orphan(\.\d+)?$")  # set aside by a start; its records are whole all the same


class Target(Protocol):
    """What was forgotten: one URL, or all of a host."""

    @property
    def host(self) -> str: ...
    @property
    def url(self) -> str | None: ...


@dataclass(frozen=True, slots=True)
class Listed:
    """What stands in the file now, `new` of it since the last time. `problems`: WARC files not read to their end."""

    path: Path
    records: int
    new: int
    problems: Sequence[str] = ()


def write_list(place: Place, scanned: Sequence[Target], *, forgotten: Sequence[Target], now: float) -> Listed:
    """Bring the file up to date; the WARC files are walked through for `scanned`, if there is any. Lines in pages/ of
    `forgotten`, and of whatever the store took down, are listed and then blanked.
    """
    path = place.output / "takedown.jsonl"
    found: dict[tuple[str, int], dict[str, Any]] = {_key(line): line for line in _lines(path)}
    before = len(found)
    listed: list[Target] = [*forgotten]
    with StoreBackup(place.frontier, is_live=place.pid() is not None) as store:
        for url, warc_file, offset, at in store.takedowns():
            found.setdefault((warc_file, offset), _line(url, warc_file, offset, None, "response", at))
            listed.append(_Url(url))
    problems: list[str] = []
    if scanned:
        for one in _scan(place.output / "warc", scanned, problems, now):
            found[one["warc_file"], one["warc_offset"]] = one
    matches = _test(listed)
    lines = {pages: pagelines.find(pages, matches, problems) for pages in pagelines.files(place.output / "pages")}
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
        pagelines.blank(pages, its, problems)
    return Listed(path, len(found), len(found) - before, problems)


def _line(url: str, name: str, offset: int, length: int | None, kind: str, at: float) -> dict[str, Any]:
    return {"url": url, "warc_file": name, "warc_offset": offset, "length": length, "record": kind, "forgotten_at": at}


def _page_line(url: str, name: str, offset: int, length: int, at: float) -> dict[str, Any]:
    return {"url": url, "pages_file": name, "pages_offset": offset, "length": length, "record": "page",
            "forgotten_at": at}  # fmt: skip


def _key(line: dict[str, Any]) -> tuple[str, int]:
    """File and offset: names of files in warc/ and in pages/ end differently."""
    if "pages_file" in line:
        return line["pages_file"], line["pages_offset"]
    return line["warc_file"], line["warc_offset"]


@dataclass(frozen=True, slots=True)
class _Url:
    url: str | None
    host: str = ""


def _test(targets: Sequence[Target]) -> Callable[[str], bool]:
    """Whether a URL is among what was forgotten."""
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


def _scan(folder: Path, targets: Sequence[Target], problems: list[str], now: float) -> Iterable[dict[str, Any]]:
    matches = _test(targets)
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        name = path.name.removesuffix(".open")
        if not name.endswith(".warc.gz") and not _ORPHAN.search(name):
            continue
        for record in _records_of(path, path.with_name(name), problems):
            if matches(record.url):
                yield _line(record.url, name, record.offset, record.length, record.kind, now)


def _records_of(path: Path, complete: Path, problems: list[str]) -> Iterable[WarcRecord]:
    """The records of one file, which a running crawl may complete, and so rename, before it is opened here."""
    for one in dict.fromkeys((path, complete)):
        try:
            for record in records(one, deep=False):
                if record.torn and one.name.endswith(".warc.gz"):  # others may end in what was being written
                    problems.append(f"{one}: at byte {record.offset}: {record.problems[-1]}")
                yield record
        except FileNotFoundError:  # renamed; or moved away by its owner, who has to look there himself
            continue
        except OSError as error:  # what is known of the other files is written all the same
            problems.append(f"{one}: {error.strerror or error}")
        return


def _parse(url: str) -> tuple[str, Origin] | None:
    try:
        return parse(url) if url else None
    except UrlError:
        return None
