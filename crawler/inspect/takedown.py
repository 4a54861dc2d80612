"""takedown.jsonl: which records of the WARC files a takedown wants removed.

What the store knows of (the last record of each URL, and those written after the takedown) and what a walk through the
WARC files finds beside it: earlier visits, requests, metadata. Nothing is removed here: whoever holds copies of the
files must do that in all of them.
Invariant: the file is replaced whole; a record stands in it once.
"""

import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol

import orjson

from crawler.core.url import UrlError, canonical, parse
from crawler.core.values import Origin
from crawler.frontier.copy import Copier
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


def write_list(place: Place, scanned: Sequence[Target], *, now: float) -> Listed:
    """Bring the file up to date; the WARC files are walked through for `scanned`, if there is any."""
    path = place.output / "takedown.jsonl"
    found: dict[tuple[str, int], dict[str, Any]] = {}
    for line in _lines(path):
        found[line["warc_file"], line["warc_offset"]] = line
    before = len(found)
    with Copier(place.frontier, is_live=place.pid() is not None) as store:
        for url, warc_file, offset, at in store.takedowns():
            found.setdefault((warc_file, offset), _line(url, warc_file, offset, None, "response", at))
    problems: list[str] = []
    if scanned:
        for one in _scan(place.output / "warc", scanned, problems, now):
            found[one["warc_file"], one["warc_offset"]] = one
    temporary = path.with_suffix(".jsonl.new")
    with temporary.open("wb") as file:
        for key in sorted(found):
            file.write(orjson.dumps(found[key], option=orjson.OPT_APPEND_NEWLINE))
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
    return Listed(path, len(found), len(found) - before, problems)


def _line(url: str, name: str, offset: int, length: int | None, kind: str, at: float) -> dict[str, Any]:
    return {"url": url, "warc_file": name, "warc_offset": offset, "length": length, "record": kind, "forgotten_at": at}


def _lines(path: Path) -> Iterable[dict[str, Any]]:
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return []
    return [orjson.loads(line) for line in content.splitlines()]


def _scan(folder: Path, targets: Sequence[Target], problems: list[str], now: float) -> Iterable[dict[str, Any]]:
    hosts = {target.host for target in targets if target.url is None}
    urls = {canonical(target.url) for target in targets if target.url is not None}
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        name = path.name.removesuffix(".open")
        if not name.endswith(".warc.gz") and not _ORPHAN.search(name):
            continue
        for record in _records_of(path, path.with_name(name), problems):
            parsed = _parse(record.url)
            if parsed is not None and (parsed[1].host in hosts or canonical(parsed[0]) in urls):
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
