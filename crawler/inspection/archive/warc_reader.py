"""Reads WARC files record by record and checks each against its header: lengths and digests.

For archives larger than memory: a block is hashed while it is decompressed and never held whole.
Invariant: offset and length of a record are those of its gzip member, so records that follow each other without a gap
prove the boundaries.
"""

import base64
import hashlib
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, Final, cast

from isal import isal_zlib

from crawler.fetch.http1.message import RemoteProtocolError
from crawler.fetch.http1.wire import ChunkedDecoder

_CHUNK: Final = 256 * 1024  # compressed bytes read at a time …
_PIECE: Final = 1024 * 1024  # … and decompressed bytes at a time, also of a decompression bomb
_MAX_HEADER: Final = 64 * 1024  # of a record; ours have less than 8 KB
_MAX_HEAD: Final = 1024 * 1024  # of the HTTP response: fetch.max_head is 300 KiB
_MAX_LINE: Final = 1024 * 1024
_END: Final = b"\r\n\r\n"
_GZIP_ERROR: Final = cast(type[Exception], isal_zlib.error)  # its annotations call it an instance


@dataclass(slots=True)
class WarcRecord:
    """One record. `problems` are messages about it; after a `torn` one the file cannot be read further."""

    offset: int
    length: int = 0
    headers: dict[str, str] = field(default_factory=dict)  # names in lower case
    fields: dict[str, str] = field(default_factory=dict)  # of the block of a metadata record, if `deep`; likewise
    problems: list[str] = field(default_factory=list)
    torn: bool = False

    @property
    def kind(self) -> str:
        return self.headers.get("warc-type", "")

    @property
    def url(self) -> str:
        return self.headers.get("warc-target-uri", "")


def records(path: Path, end: int | None = None, *, deep: bool = True) -> Iterator[WarcRecord]:
    """The records of a file up to byte `end`. `deep`: check blocks and digests too, otherwise headers only."""
    with path.open("rb") as file:
        offset = 0
        size = os.fstat(file.fileno()).st_size if end is None else end  # the path may be renamed meanwhile
        while offset < size:
            record = _read(file, offset, size, deep)
            yield record
            if record.torn or record.length == 0:
                return
            offset += record.length


def _read(file: BinaryIO, offset: int, size: int, deep: bool) -> WarcRecord:
    record = WarcRecord(offset)
    block = _RecordBlock(record, deep)
    unpacked = bytearray()
    file.seek(offset)
    member = isal_zlib.decompressobj(31)
    taken = 0
    try:
        while not member.eof:
            data = member.unconsumed_tail or file.read(min(_CHUNK, size - offset - taken))
            if not data:
                return _torn(record, "the file ends within this record")
            if not member.unconsumed_tail:
                taken += len(data)
            piece = member.decompress(data, _PIECE)
            if block.begun:
                block.feed(piece)
                continue
            unpacked += piece
            end = unpacked.find(_END)
            if end < 0:
                if len(unpacked) > _MAX_HEADER:
                    return _torn(record, "no WARC record begins here")
                continue
            if not _parse_header(bytes(unpacked[:end]), record):
                return _torn(record, "no WARC record begins here")
            block.begin()
            block.feed(bytes(unpacked[end + 4 :]))
            unpacked.clear()
    except _GZIP_ERROR as error:
        return _torn(record, f"not a gzip member: {error}")
    if not block.begun:
        return _torn(record, "no WARC record begins here")
    record.length = taken - len(member.unused_data)
    block.finish()
    return record


def _torn(record: WarcRecord, problem: str) -> WarcRecord:
    record.torn = True
    record.problems.append(problem)
    return record


def _parse_header(text: bytes, record: WarcRecord) -> bool:
    first, _, lines = text.decode("utf-8", "replace").partition("\r\n")
    if not first.startswith("WARC/1."):
        return False
    record.headers = _fields(lines)
    return True


def _fields(text: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for line in text.split("\r\n"):
        name, colon, value = line.partition(":")
        if colon:
            found.setdefault(name.strip().lower(), value.strip())
    return found


class _RecordBlock:
    """The block of a record: checks its length, block digest and payload digest."""

    def __init__(self, record: WarcRecord, deep: bool) -> None:
        self._record = record
        self._deep = deep
        self.begun = False

    def begin(self) -> None:
        headers = self._record.headers
        self.begun = True
        self._hash = hashlib.sha256()
        self._seen = 0
        self._rest = b""  # the bytes after the block
        length = headers.get("content-length", "")
        self._length = int(length) if length.isdigit() else -1
        wants_payload = self._deep and self._record.kind == "response" and "warc-payload-digest" in headers
        self._payload = _Payload() if wants_payload else None
        self._fields = bytearray() if self._deep and self._record.kind == "metadata" else None

    def feed(self, data: bytes) -> None:
        inside = data[: max(0, self._length - self._seen)]
        self._seen += len(data)
        if self._deep:
            self._hash.update(inside)
            if self._payload is not None and inside:
                self._payload.feed(inside)
            if self._fields is not None and len(self._fields) < _MAX_HEADER:
                self._fields += inside[:_MAX_HEADER]
        self._rest = (self._rest + data[len(inside) :])[:5]

    def finish(self) -> None:
        record = self._record
        if self._length < 0:
            record.problems.append("no Content-Length")
        elif self._seen != self._length + len(_END) or self._rest != _END:
            record.problems.append("its block is not as long as its Content-Length says")
        if not self._deep or record.problems:
            return
        _compare(record, "warc-block-digest", self._hash.digest)
        if self._payload is not None and "warc-truncated" not in record.headers:
            _compare(record, "warc-payload-digest", self._payload.digest)
        if self._fields is not None:
            record.fields = _fields(self._fields.decode("utf-8", "replace"))


def _compare(record: WarcRecord, name: str, digest: Callable[[], bytes | None]) -> None:
    stated = record.headers.get(name)
    if stated is None:
        record.problems.append(f"no {name}")
        return
    found = digest()
    if found is None or stated != "sha256:" + base64.b32encode(found).decode():
        record.problems.append(f"{name} is not that of its bytes")


class _Payload:
    """The payload of a response: what follows its head, without transfer coding (WARC 1.1 §6.3.2)."""

    def __init__(self) -> None:
        self._hash = hashlib.sha256()
        self._head: bytearray | None = bytearray()
        self._decoder: ChunkedDecoder | None = None
        self._is_readable = True

    def feed(self, data: bytes) -> None:
        if self._head is not None:
            self._head += data
            ends = [at + len(mark) for mark in (b"\r\n\r\n", b"\n\n") if (at := self._head.find(mark)) >= 0]
            if not ends:
                self._is_readable = len(self._head) <= _MAX_HEAD
                return
            head, data = bytes(self._head[: min(ends)]), bytes(self._head[min(ends) :])
            self._head = None
            fields = [line.lower().partition(b":") for line in head.replace(b"\r", b"").split(b"\n")[1:]]
            codings = [value.strip() for name, _, value in fields if name.strip() == b"transfer-encoding"]
            if codings and codings[-1].endswith(b"chunked"):
                self._decoder = ChunkedDecoder(_MAX_LINE, _MAX_LINE)
        if self._decoder is None:
            self._hash.update(data)
        elif not self._decoder.done:
            pieces: list[bytes] = []
            try:
                self._decoder.feed(data, pieces)
            except RemoteProtocolError:
                self._is_readable = False
            for piece in pieces:
                self._hash.update(piece)

    def digest(self) -> bytes | None:
        return self._hash.digest() if self._is_readable else None
