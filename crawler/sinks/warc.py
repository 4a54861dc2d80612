"""The sink of warc/: every settled visit as WARC 1.1 records. Section numbers are those of WARC 1.1.

A visit is three records in a row in one file: the response (or revisit), its request and its metadata. Each record is a
gzip member of its own, so that it can be read from its offset. Bodies over `STREAM_BYTES` are read twice in chunks, for
the digest and for the record, and are never in memory whole.
"""

import os
import re
from collections.abc import Callable, Iterable, Sequence
from hashlib import sha256
from pathlib import Path

from isal import isal_zlib

from crawler.core.body import BytesBody, digest_text
from crawler.core.models import Fetched, Record, RecordLocation, Timings
from crawler.sinks.base import SinkOptions
from crawler.sinks.disk import EXTENSIONS, Disk, Naming
from crawler.sinks.files import OpenFile, SinkFiles, utc_text

END = b"\r\n\r\n"  # after every block
CONFORMS_TO = "http://iipc.github.io/warc-specifications/specifications/warc-format/warc-1.1/"
SAME_PAYLOAD_PROFILE = "http://netpreserve.org/warc/1.1/revisit/identical-payload-digest"  # §6.7.2
NOT_MODIFIED_PROFILE = "http://netpreserve.org/warc/1.1/revisit/server-not-modified"  # §6.7.3
STREAM_BYTES = 1 << 20  # fetch.spool_over's default: above it a body is in a file
SMALL_BYTES = 2_048  # request and metadata records, and responses without much of a body
HEADERS_BYTES = 32_768  # more than the records of a visit take beside heads and body: URLs have 2 KiB at most
GZIP_WBITS = 31  # zlib's number for deflate in a gzip member

_IDS_AT_ONCE = 256
_SECRET_LINE = re.compile(rb"^((?:proxy-)?authorization|cookie):[^\r\n]*", re.IGNORECASE | re.MULTILINE)


class RecordIds:
    """Makes record identifiers (§5.2): version 4 UUIDs. It gets random bytes for many at once, since a system call for
    each would cost more than the rest of a header.
    """

    def __init__(self, random_bytes: Callable[[int], bytes]) -> None:
        self._random_bytes = random_bytes
        self._ready: list[str] = []

    def take(self) -> str:
        """The next identifier, in its angle brackets."""
        if not self._ready:
            digits = self._random_bytes(16 * _IDS_AT_ONCE).hex()
            self._ready = [_record_id(digits[at : at + 32]) for at in range(0, len(digits), 32)]
        return self._ready.pop()


def _record_id(x: str) -> str:
    """A version 4 UUID of 32 hexadecimal digits; version and variant replace six bits (RFC 9562 §5.4)."""
    return f"<urn:uuid:{x[:8]}-{x[8:12]}-4{x[13:16]}-{'89ab'[int(x[16], 16) & 3]}{x[17:20]}-{x[20:]}>"


def revisit_profile(record: Record) -> str | None:
    """The revisit profile of a record whose payload is stored already: a 304 to a conditional request, or the same
    payload as an earlier visit. None: a response record.
    """
    task, fetched = record.task, record.fetched
    status = fetched.head.status_code
    if status == 304:
        return NOT_MODIFIED_PROFILE if task.etag is not None or task.last_modified is not None else None
    if task.digest is None or task.digest != record.payload_digest or not task.is_revisit:
        return None
    is_whole = 200 <= status < 300 and fetched.truncated is None and fetched.payload.size > 0
    return SAME_PAYLOAD_PROFILE if is_whole else None


def mask_request(request: bytes) -> bytes:
    """The request with the values of Authorization, Proxy-Authorization and Cookie replaced. Without such fields, as
    usual, returns the same object.
    """
    lower = request.lower()
    if b"\nauthorization:" in lower or b"\nproxy-authorization:" in lower or b"\ncookie:" in lower:
        return _SECRET_LINE.sub(rb"\1: masked", request)
    return request


def warcinfo_record(fields: Iterable[tuple[str, str]], *, record_id: str, file_name: str, date: str) -> bytes:
    """The record that describes those after it (§6.2). `fields` are its block."""
    block = _fields_block(fields)
    return _whole(
        f"WARC/1.1\r\nWARC-Type: warcinfo\r\nWARC-Record-ID: {record_id}\r\nWARC-Filename: {file_name}\r\n"
        f"WARC-Date: {date}\r\nContent-Type: application/warc-fields\r\n",
        block,
    )


def response_header(
    record: Record,
    *,
    record_id: str,
    info_id: str,
    date: str,
    block_digest: bytes,
    block_bytes: int,
    profile: str | None = None,
    refers_to_date: str | None = None,
) -> bytes:
    """The header of a `response` record or, with a `profile`, of a `revisit` record (§6.3, §6.7), with the empty line
    after it.

    `block_digest` is the SHA-256 of the block. `refers_to_date` is the WARC-Date of the record with the payload, if
    known.
    """
    fetched = record.fetched
    connection = fetched.connection
    if profile is not None:
        kind = "revisit"
        about = f"WARC-Profile: {profile}\r\nWARC-Refers-To-Target-URI: {record.task.url}\r\n"
        if refers_to_date is not None:
            about += f"WARC-Refers-To-Date: {refers_to_date}\r\n"
        if profile == SAME_PAYLOAD_PROFILE:  # that of the empty payload of a 304 would be misleading
            about += f"WARC-Payload-Digest: {record.payload_digest}\r\n"
    else:
        kind = "response"
        about = f"WARC-Payload-Digest: {record.payload_digest}\r\n"
    if fetched.truncated is not None:
        about += f"WARC-Truncated: {fetched.truncated.value}\r\n"
    if connection.tls_version is not None:
        # An adopted extension; the version of HTTP is in the block.
        about += f"WARC-Protocol: tls/{connection.tls_version}\r\n"
    return (
        f"WARC/1.1\r\nWARC-Type: {kind}\r\nWARC-Record-ID: {record_id}\r\nWARC-Warcinfo-ID: {info_id}\r\n"
        f"WARC-Target-URI: {record.task.url}\r\nWARC-Date: {date}\r\nWARC-IP-Address: {connection.peer_address}\r\n"
        f"{about}WARC-Block-Digest: {digest_text(block_digest)}\r\n"
        f"Content-Type: application/http;msgtype=response\r\nContent-Length: {block_bytes}\r\n\r\n"
    ).encode()


def request_record(record: Record, *, record_id: str, response_id: str, info_id: str, date: str) -> bytes:
    """The `request` record (§6.5) of a response, with masked secrets."""
    fetched = record.fetched
    return _whole(
        f"WARC/1.1\r\nWARC-Type: request\r\nWARC-Record-ID: {record_id}\r\nWARC-Warcinfo-ID: {info_id}\r\n"
        f"WARC-Concurrent-To: {response_id}\r\nWARC-Target-URI: {record.task.url}\r\nWARC-Date: {date}\r\n"
        f"WARC-IP-Address: {fetched.connection.peer_address}\r\nContent-Type: application/http;msgtype=request\r\n",
        mask_request(fetched.request_bytes),
    )


def metadata_record(record: Record, *, record_id: str, response_id: str, info_id: str, date: str) -> bytes:
    """The `metadata` record (§6.6) of a response: how its URL was found and how long it took."""
    return _whole(
        f"WARC/1.1\r\nWARC-Type: metadata\r\nWARC-Record-ID: {record_id}\r\nWARC-Warcinfo-ID: {info_id}\r\n"
        f"WARC-Concurrent-To: {response_id}\r\nWARC-Target-URI: {record.task.url}\r\nWARC-Date: {date}\r\n"
        "Content-Type: application/warc-fields\r\n",
        _metadata_block(record, record.fetched),
    )


def _metadata_block(record: Record, fetched: Fetched) -> bytes:
    task = record.task
    found = f"via: {task.via}\r\nhopsFromSeed: {task.hop_path}\r\n" if task.via is not None else ""
    lenient = "framing: lenient\r\n" if fetched.tainted else ""
    return (
        f"{found}source: {task.source.value}\r\nkind: {task.kind.value}\r\n"
        f"fetchTimeMs: {_duration_ms(fetched.timings)}\r\n{lenient}"
    ).encode()


def _duration_ms(timings: Timings) -> int:
    total_s = timings.resolve_s + timings.connect_s + timings.tls_s + timings.first_byte_s + timings.body_s
    return round(total_s * 1000)


def _fields_block(fields: Iterable[tuple[str, str]]) -> bytes:
    """A block of type `application/warc-fields` (§4). Line breaks in a value of the configuration become spaces."""
    return "".join(f"{name}: {' '.join(value.split())}\r\n" for name, value in fields).encode()


def _whole(header: str, block: bytes) -> bytes:
    """A record with a small block: header with digest and length, block, end."""
    rest = f"WARC-Block-Digest: {digest_text(sha256(block).digest())}\r\nContent-Length: {len(block)}\r\n\r\n"
    return b"".join(((header + rest).encode(), block, END))


class WarcSink(SinkFiles):
    """Writes `directory`/warc/NAME-YYYYMMDDhhmmss-SERIAL.warc.gz.

    `info`: names and values of the warcinfo records, such as ("software", …), ("robots", "obey") and
    ("http-header-user-agent", …). `format` and `conformsTo` are added here.
    """

    def __init__(
        self,
        options: SinkOptions,
        directory: Path,
        *,
        info: Sequence[tuple[str, str]],
        now: Callable[[], float],
        random_bytes: Callable[[int], bytes] = os.urandom,
        disk: Disk | None = None,
    ) -> None:
        naming = Naming(options.name, EXTENSIONS["warc"])
        super().__init__("warc", directory / "warc", naming, limit=options.warc_size, now=now, disk=disk)
        self._info = (*info, ("format", "WARC File Format 1.1"), ("conformsTo", CONFORMS_TO))
        self._info_id = ""
        self._level = options.compression_level
        self._ids = RecordIds(random_bytes)

    def write(self, records: Sequence[Record], written: Sequence[RecordLocation | None]) -> list[RecordLocation | None]:
        """See `Sink.write`. The returned location is that of the response or revisit record."""
        self._finish_reset()
        locations: list[RecordLocation | None] = []
        for record in records:
            locations.append(self._write_visit(record))
            self._flush_large()
        return locations

    def can_buffer(self, record: Record) -> bool:
        """See `Sink.can_buffer`."""
        fetched, file = record.fetched, self._open_file()
        body = fetched.raw_body
        if file is None or not file.begun or not isinstance(body, BytesBody) or body.size > STREAM_BYTES:
            return False
        return self._has_room(file, body.size + len(fetched.raw_head) + len(fetched.request_bytes) + HEADERS_BYTES)

    def buffer(self, record: Record, written: RecordLocation | None) -> RecordLocation | None:
        """See `Sink.buffer`."""
        return self._write_visit(record)

    def _write_visit(self, record: Record) -> RecordLocation:
        file = self._current_file()
        if not file.begun:
            self._begin(file)
        location = RecordLocation(file.name, file.size)
        response_id = self._ids.take()
        date = utc_text(record.fetched.started_at)
        profile = revisit_profile(record)
        if profile is not None:
            self._append_revisit(file, record, response_id, date, profile)
        elif record.fetched.raw_body.size <= STREAM_BYTES:
            self._append_response(file, record, response_id, date)
        else:
            self._stream_response(file, record, response_id, date)
        for make in (request_record, metadata_record):
            self._append_member(
                file,
                make(record, record_id=self._ids.take(), response_id=response_id, info_id=self._info_id, date=date),
            )
        return location

    def _begin(self, file: OpenFile) -> None:
        """Append a warcinfo record. A file that was open before a restart gets another one where this process continues
        it (§6.2 allows one anywhere): version or user agent may have changed.
        """
        self._info_id = self._ids.take()
        date = utc_text(self._now())
        self._append_member(file, warcinfo_record(self._info, record_id=self._info_id, file_name=file.name, date=date))
        file.begun = True

    def _append_response(self, file: OpenFile, record: Record, response_id: str, date: str) -> None:
        """The usual case, in as few calls as possible: hashing and compressing release the interpreter lock, and
        beside a busy event loop it takes a switch interval to get it back.
        """
        head = record.fetched.raw_head
        body = record.fetched.raw_body.prefix(STREAM_BYTES)
        digest = sha256(head)
        digest.update(body)
        header = response_header(
            record,
            record_id=response_id,
            info_id=self._info_id,
            date=date,
            block_digest=digest.digest(),
            block_bytes=len(head) + len(body),
        )
        self._append_member(file, b"".join((header, head, body, END)))

    def _append_revisit(self, file: OpenFile, record: Record, response_id: str, date: str, profile: str) -> None:
        """The head alone, with a reference to the record of the payload."""
        head = record.fetched.raw_head
        history = record.task.history
        captured_at = None if history is None else history.changed_at
        header = response_header(
            record,
            record_id=response_id,
            info_id=self._info_id,
            date=date,
            block_digest=sha256(head).digest(),
            block_bytes=len(head),
            profile=profile,
            refers_to_date=None if captured_at is None else utc_text(captured_at),
        )
        self._append_member(file, b"".join((header, head, END)))

    def _stream_response(self, file: OpenFile, record: Record, response_id: str, date: str) -> None:
        """A response record that is never whole in memory."""
        head, body = record.fetched.raw_head, record.fetched.raw_body
        digest = sha256(head)
        for chunk in body.chunks():
            digest.update(chunk)
        header = response_header(
            record,
            record_id=response_id,
            info_id=self._info_id,
            date=date,
            block_digest=digest.digest(),
            block_bytes=len(head) + body.size,
        )
        member = isal_zlib.compressobj(self._level, isal_zlib.DEFLATED, GZIP_WBITS)
        self._append(file, member.compress(header + head))
        for chunk in body.chunks():
            self._append(file, member.compress(chunk))
            self._flush_large()
        self._append(file, member.compress(END))
        self._append(file, member.flush())
        file.count()

    def _append_member(self, file: OpenFile, data: bytes) -> None:
        # Making a Huffman table for a few hundred bytes costs ten times what coding them with a fixed one does (17 µs,
        # 2 µs), and saves 140 of them.
        level = self._level if len(data) > SMALL_BYTES else 0
        self._append(file, isal_zlib.compress(data, level, GZIP_WBITS))
        file.count()
