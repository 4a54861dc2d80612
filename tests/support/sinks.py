"""What sink tests share: a store that remembers lengths, readers, one face for both sinks, and a sink in memory."""

import io
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import orjson
from warcio.archiveiterator import ArchiveIterator

from crawler.core.enums import SinkFileState
from crawler.core.models import Record, RecordLocation, SinkFile
from crawler.sinks.base import LostFile, SinkOptions, SinkRecovered
from crawler.sinks.disk import Disk
from crawler.sinks.files import SinkFiles
from crawler.sinks.pages import PagesSink
from crawler.sinks.warc import WarcSink
from tests.support.records import STARTED_AT

WARC_INFO = (
    ("software", "crawler/test"),
    ("robots", "obey"),
    ("http-header-user-agent", "test (+https://example.org)"),
)


class _Gathering:
    """Before a sink: takes what it is given as the committer hands it over, each record gathered that can be."""

    def write(
        self: Any, records: Sequence[Record], written: Sequence[RecordLocation | None]
    ) -> list[RecordLocation | None]:
        places: list[RecordLocation | None] = []
        for record, place in zip(records, written, strict=True):
            if self.can_buffer(record):
                places.append(self.buffer(record, place))
            else:
                places += super().write([record], [place])  # type: ignore[misc] - the sink that comes after this
        return places


class GatheringWarc(_Gathering, WarcSink): ...


class GatheringPages(_Gathering, PagesSink): ...


def make_warc(
    directory: Path,
    *,
    limit: int = 1_000_000_000,
    disk: Disk | None = None,
    name: str = "crawl",
    kind: type[WarcSink] = WarcSink,
) -> WarcSink:
    options = SinkOptions(name=name, warc_size=limit)
    return kind(options, directory, info=WARC_INFO, now=lambda: STARTED_AT, disk=disk)


def make_pages(
    directory: Path, *, limit: int = 1_000_000_000, disk: Disk | None = None, kind: type[PagesSink] = PagesSink
) -> PagesSink:
    return kind(SinkOptions(warc_size=limit), directory, now=lambda: STARTED_AT, disk=disk)


def read_warc(path: Path) -> list[dict[str, Any]]:
    """Every record: its headers by lower-case name, `block` as stored, and `problems` warcio's checker has with it."""
    records = []
    with path.open("rb") as stream:
        for record in ArchiveIterator(stream, check_digests=True):
            headers = {name.lower(): value for name, value in record.rec_headers.headers}
            head = record.http_headers.to_bytes() if record.http_headers else b""
            headers["block"] = head + record.raw_stream.read()
            headers["problems"] = list(record.digest_checker.problems)
            records.append(headers)
    return records


def visits_in_warc(path: Path) -> list[str]:
    """URLs of the visits in a file, each with all of its records; an incomplete one fails."""
    records = [record for record in read_warc(path) if record["warc-type"] != "warcinfo"]
    groups = [records[at : at + 3] for at in range(0, len(records), 3)]
    for group in groups:
        assert [record["warc-type"] for record in group] == ["response", "request", "metadata"]
        assert len({record["warc-target-uri"] for record in group}) == 1
        assert all(not record["problems"] for record in group)
    return [group[0]["warc-target-uri"] for group in groups]


def visits_in_pages(path: Path) -> list[str]:
    data = path.read_bytes()
    assert not data or data.endswith(b"\n")
    return [orjson.loads(line)["url"] for line in io.BytesIO(data)]


@dataclass
class Kind:
    """One kind of sink, as the contract suite sees it. `limit` makes a file full after a few records."""

    name: str
    make: Callable[..., SinkFiles]
    visits_in: Callable[[Path], list[str]]
    extension: str
    limit: int
    label: str = ""


KINDS = (
    Kind("warc", make_warc, visits_in_warc, "warc.gz", 3_000),
    Kind("pages", make_pages, visits_in_pages, "jsonl", 900),
    Kind("warc", partial(make_warc, kind=GatheringWarc), visits_in_warc, "warc.gz", 3_000, "warc, gathered"),
    Kind("pages", partial(make_pages, kind=GatheringPages), visits_in_pages, "jsonl", 900, "pages, gathered"),
)


@dataclass
class Store:
    """The part of a frontier that remembers output files."""

    files: dict[str, SinkFile] = field(default_factory=dict)

    def commit(self, files: Iterable[SinkFile]) -> None:
        self.files.update({file.name: file for file in files})

    def everything(self) -> list[SinkFile]:
        """What `open` of a sink is told."""
        return list(self.files.values())

    def known(self) -> list[SinkFile]:
        """What is not closed."""
        return [file for file in self.files.values() if file.state is not SinkFileState.CLOSED]


class ListSink:
    """A sink that keeps URLs in a list, and fails where a test says: set `fails` to a function of the call's name that
    returns what to raise, or None. `calls` are the names, in order; `full_at` records end a file.
    """

    def __init__(self, name: str = "warc", *, full_at: int = 1_000_000) -> None:
        self.name = name
        self.calls: list[str] = []
        self.stored: list[str] = []
        self.tail: list[str] = []
        self.fails: Callable[[str], BaseException | None] = lambda call: None
        self.recovery = SinkRecovered()
        self._full_at = full_at
        self._serial = 0
        self._in_file = 0

    def _call(self, name: str) -> None:
        self.calls.append(name)
        error = self.fails(name)
        if error is not None:
            raise error

    def _file(self, state: SinkFileState) -> SinkFile:
        return SinkFile(self.name, f"{self._serial}.{self.name}", state, len(self.stored) + len(self.tail))

    def open(self, known: Sequence[SinkFile], *, is_restored: bool = False) -> list[SinkFile]:
        self._call("open")
        return []

    def lost_files(self) -> list[LostFile]:
        return []

    def set_aside(self, lost: LostFile) -> None:
        raise AssertionError("nothing vanishes here")

    def write(self, records: Sequence[Record], written: Sequence[RecordLocation | None]) -> list[RecordLocation | None]:
        places: list[RecordLocation | None] = []
        for record in records:
            places.append(RecordLocation(f"{self._serial}.{self.name}", len(self.stored) + len(self.tail)))
            self.tail.append(record.task.url)
        self._call("write")
        return places

    def can_buffer(self, record: Record) -> bool:
        return False

    def buffer(self, record: Record, written: RecordLocation | None) -> RecordLocation | None:
        raise AssertionError("nobody may gather here")

    def sync(self) -> list[SinkFile]:
        self._call("sync")
        return [self._file(SinkFileState.OPEN)]

    def committed(self) -> list[SinkFile]:
        self.stored += self.tail
        self._in_file += len(self.tail)
        self.tail = []
        self._call("settled")
        if self._in_file < self._full_at:
            return []
        closed = self._file(SinkFileState.CLOSED)
        self._serial += 1
        self._in_file = 0
        return [closed]

    def reset(self) -> None:
        self.tail = []
        self._call("reset")

    def close(self) -> list[SinkFile]:
        self._call("close")
        return [self._file(SinkFileState.CLOSED)]
