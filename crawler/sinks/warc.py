"""warc/: every settled visit as WARC records, each in a gzip member of its own, so that an offset leads straight to it.

A visit is three records in a row and in one file: the response (or revisit), its request, its metadata. It does not
know what the records' headers say (`warc_record`) nor how files live and die (`files`).

Bodies over `STREAM_BYTES` are read twice in chunks, for the digest and for the record, and never held whole.
"""

import os
from collections.abc import Callable, Sequence
from hashlib import sha256
from pathlib import Path

from isal import isal_zlib

from crawler.core.models import BytesBody, Record, RecordLocation
from crawler.sinks.disk import Disk
from crawler.sinks.files import OpenFile, SinkFiles, utc_text
from crawler.sinks.naming import EXTENSIONS, Naming
from crawler.sinks.options import SinkOptions
from crawler.sinks.warc_record import (
    CONFORMS_TO,
    END,
    RecordIds,
    metadata_record,
    request_record,
    response_header,
    revisit_profile,
    warcinfo_record,
)

STREAM_BYTES = 1 << 20  # fetch.spool_over's default: above it a body is in a file
SMALL_BYTES = 2_048  # request and metadata records, and responses without much of a body
HEADERS_BYTES = 32_768  # more than the records of a visit take beside heads and body: URLs have 2 KiB at most
GZIP_WBITS = 31  # zlib's number for deflate in a gzip member


class WarcSink(SinkFiles):
    """Writes `directory`/warc/NAME-YYYYMMDDhhmmss-SERIAL.warc.gz.

    `info` goes into each warcinfo record: name and value pairs such as ("software", …), ("robots", "obey") and
    ("http-header-user-agent", …); `format` and `conformsTo` are added here.
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
        """See `Sink.write`. The place returned is that of the response or revisit record."""
        self._finish_reset()
        places: list[RecordLocation | None] = []
        for record in records:
            places.append(self._write_visit(record))
            self._flush_large()
        return places

    def can_gather(self, record: Record) -> bool:
        """See `Sink.can_gather`."""
        fetched, file = record.fetched, self._open_file()
        body = fetched.raw_body
        if file is None or not file.begun or not isinstance(body, BytesBody) or body.size > STREAM_BYTES:
            return False
        return self._has_room(file, body.size + len(fetched.raw_head) + len(fetched.request_bytes) + HEADERS_BYTES)

    def gather(self, record: Record, written: RecordLocation | None) -> RecordLocation | None:
        """See `Sink.gather`."""
        return self._write_visit(record)

    def _write_visit(self, record: Record) -> RecordLocation:
        file = self._current()
        if not file.begun:
            self._begin(file)
        place = RecordLocation(file.name, file.size)
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
        return place

    def _begin(self, file: OpenFile) -> None:
        """Describe what follows. A file reopened after a restart gets another warcinfo record where this process goes
        on with it (§6.2 lets one stand anywhere): the one at its start may speak of another version or user agent.
        """
        self._info_id = self._ids.take()
        date = utc_text(self._now())
        self._append_member(file, warcinfo_record(self._info, record_id=self._info_id, file_name=file.name, date=date))
        file.begun = True

    def _append_response(self, file: OpenFile, record: Record, response_id: str, date: str) -> None:
        """The usual case in as few calls as can be: hashing and compressing give up the interpreter lock, and beside a
        busy event loop it takes a switch interval to get it back each time.
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
        """The head alone, and where the payload stands that still holds."""
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
        """The same record, never whole in memory."""
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
