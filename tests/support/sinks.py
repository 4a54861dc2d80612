"""Support for tests of sinks: records, a store that remembers lengths, readers, kinds of sinks, a sink in memory."""

import base64
import hashlib
import io
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import orjson
from warcio.archiveiterator import ArchiveIterator

from crawler.core.body import BytesBody
from crawler.core.enums import SinkFileState, Source, TruncatedReason
from crawler.core.models import ConnectionInfo, Fetched, Head, PageInfo, Record, RecordLocation, SinkFile, Task, Timings
from crawler.sinks.base import LostFile, SinkOptions, SinkRecovered
from crawler.sinks.disk import Disk
from crawler.sinks.files import SinkFiles
from crawler.sinks.pages import PagesSink
from crawler.sinks.warc import WarcSink

# -- records

STARTED_AT = 1_795_424_400.123456  # 2026-11-23T09:00:00.123456Z


class ChunkedReads:
    """A body that is read in pieces, like a spool file. `largest_prefix` is the largest limit of `prefix`."""

    def __init__(self, data: bytes, piece: int = 64 * 1024) -> None:
        self._data = data
        self._piece = piece
        self.largest_prefix = 0
        self.passes = 0

    @property
    def size(self) -> int:
        return len(self._data)

    def prefix(self, limit: int) -> bytes:
        self.largest_prefix = max(self.largest_prefix, limit)
        return self._data[:limit]

    def chunks(self) -> Iterator[bytes]:
        self.passes += 1
        for at in range(0, len(self._data), self._piece):
            yield self._data[at : at + self._piece]


def digest_of(payload: bytes) -> str:
    """The digest of a payload, as in `Record.payload_digest`."""
    return "sha256:" + base64.b32encode(hashlib.sha256(payload).digest()).decode()


def chunk_framed(payload: bytes, piece: int = 1000) -> bytes:
    """The payload in the chunked transfer coding (RFC 9112 §7.1)."""
    framed = b"".join(
        b"%x\r\n%b\r\n" % (len(part), part)
        for part in (payload[at : at + piece] for at in range(0, len(payload), piece))
    )
    return framed + b"0\r\n\r\n"


def make_record(
    url: str = "https://example.org/",
    payload: bytes = b"<title>hello</title>",
    *,
    status_code: int = 200,
    chunked: bool = False,
    streamed: bool = False,
    truncated: TruncatedReason | None = None,
    tainted: bool = False,
    request: bytes | None = None,
    page: PageInfo | None = None,
    via: str | None = None,
    etag: str | None = None,
    started_at: float = STARTED_AT,
    peer_address: str = "192.0.2.1",
    tls_version: str | None = "1.3",
    depth: int = 0,
    hop_path: str = "",
) -> Record:
    """A visit whose response has this payload. `streamed`: the body is a `ChunkedReads`."""
    raw = chunk_framed(payload) if chunked else payload
    framing = ("transfer-encoding", "chunked") if chunked else ("content-length", str(len(payload)))
    fields = (("content-type", "text/html"), framing)
    raw_head = f"HTTP/1.1 {status_code} X\r\n" + "".join(f"{name}: {value}\r\n" for name, value in fields) + "\r\n"
    raw_body = ChunkedReads(raw) if streamed else BytesBody(raw)
    fetched = Fetched(
        head=Head(status_code, "X", "1.1", fields),
        request_bytes=request or b"GET / HTTP/1.1\r\nhost: example.org\r\nuser-agent: test\r\n\r\n",
        raw_head=raw_head.encode(),
        raw_body=raw_body,
        payload=BytesBody(payload),
        timings=Timings(first_byte_s=0.02, body_s=0.003),
        connection=ConnectionInfo(id=1, request_n=1, peer_address=peer_address, tls_version=tls_version),
        started_at=started_at,
        truncated=truncated,
        tainted=tainted,
    )
    task = Task(
        id=1,
        url=url,
        via=via,
        etag=etag,
        depth=depth,
        hop_path=hop_path,
        source=Source.SEED if via is None else Source.LINK,
    )
    return Record(task, fetched, digest_of(payload), page)


# -- sinks

WARC_INFO = (
    ("software", "crawler/test"),
    ("robots", "obey"),
    ("http-header-user-agent", "test (+https://example.org)"),
)


class _Buffering:
    """A mixin for sinks: `write` buffers each record that can be buffered, as the committer does."""

    def write(
        self: Any, records: Sequence[Record], written: Sequence[RecordLocation | None]
    ) -> list[RecordLocation | None]:
        locations: list[RecordLocation | None] = []
        for record, location in zip(records, written, strict=True):
            if self.can_buffer(record):
                locations.append(self.buffer(record, location))
            else:
                locations += super().write([record], [location])  # type: ignore[misc] - the sink is the next base class
        return locations


class BufferingWarc(_Buffering, WarcSink): ...


class BufferingPages(_Buffering, PagesSink): ...


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
    """Every record: its headers by lower-case name, its `block` as stored, and the `problems` that warcio finds."""
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
    """URLs of the visits in a file. Fails for a visit without all of its records."""
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
    Kind("warc", partial(make_warc, kind=BufferingWarc), visits_in_warc, "warc.gz", 3_000, "warc, buffered"),
    Kind("pages", partial(make_pages, kind=BufferingPages), visits_in_pages, "jsonl", 900, "pages, buffered"),
)


@dataclass
class Store:
    """The part of a frontier that remembers output files."""

    files: dict[str, SinkFile] = field(default_factory=dict)

    def commit(self, files: Iterable[SinkFile]) -> None:
        self.files.update({file.name: file for file in files})

    def everything(self) -> list[SinkFile]:
        """All files, as passed to `open` of a sink."""
        return list(self.files.values())

    def unclosed(self) -> list[SinkFile]:
        """The files that are not closed."""
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
