"""The sink of pages/: one JSON line for each page, with what its content says and the location of its WARC record.

Invariant: every line is complete and ends with a line feed. Records that are no pages (`Record.page` is None) have no
line.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

import orjson

from crawler.core.models import PageInfo, Record, RecordLocation
from crawler.sinks.base import SinkOptions
from crawler.sinks.disk import EXTENSIONS, Disk, Naming
from crawler.sinks.files import SinkFiles, utc_text

LINE_BYTES = 65_536  # longer than usual lines: three URLs, tags, and a title of 512 characters, perhaps escaped


def page_line(record: Record, page: PageInfo, warc: RecordLocation | None) -> bytes:
    """The line of a page, UTF-8, with its line feed. `simhash` is always null: see docs/reference/files.md."""
    task, fetched = record.task, record.fetched
    line: dict[str, str | int | tuple[str, ...] | None] = {
        "url": task.url,
        "canonical": page.canonical,
        "via": task.via,
        "depth": task.depth,
        "tags": page.tags,
        "status": fetched.head.status_code,
        "content_type": page.content_type,
        "charset": page.charset,
        "title": page.title,
        "language": page.language,
        "digest": record.payload_digest,
        "simhash": None,
        "links": page.links_count,
        "fetched_at": utc_text(fetched.started_at),
        "warc_file": warc.name if warc else None,
        "warc_offset": warc.offset if warc else None,
    }
    try:
        return orjson.dumps(line, option=orjson.OPT_APPEND_NEWLINE)
    except orjson.JSONEncodeError:
        # A lone surrogate from the text of a page is no UTF-8. It must not stop the crawl.
        whole = {key: _without_surrogates(value) if isinstance(value, str) else value for key, value in line.items()}
        return orjson.dumps(whole, option=orjson.OPT_APPEND_NEWLINE)


def _without_surrogates(text: str) -> str:
    return text.encode("utf-8", "replace").decode("utf-8")


class PagesSink(SinkFiles):
    """Writes `directory`/pages/NAME-YYYYMMDDhhmmss-SERIAL.jsonl."""

    def __init__(
        self, options: SinkOptions, directory: Path, *, now: Callable[[], float], disk: Disk | None = None
    ) -> None:
        naming = Naming(options.name, EXTENSIONS["pages"])
        super().__init__("pages", directory / "pages", naming, limit=options.warc_size, now=now, disk=disk)

    def write(self, records: Sequence[Record], written: Sequence[RecordLocation | None]) -> list[RecordLocation | None]:
        """See `Sink.write`; `written`: the locations in the WARC."""
        self._finish_reset()
        locations = [self.buffer(record, warc) for record, warc in zip(records, written, strict=True)]
        self._flush_large()
        return locations

    def can_buffer(self, record: Record) -> bool:
        """See `Sink.can_buffer`."""
        file = self._open_file()
        return file is not None and self._has_room(file, LINE_BYTES)

    def buffer(self, record: Record, written: RecordLocation | None) -> RecordLocation | None:
        """See `Sink.buffer`; `written`: the location in the WARC."""
        if record.page is None:
            return None
        file = self._current_file()
        location = RecordLocation(file.name, file.size)
        self._append(file, page_line(record, record.page, written))
        file.count()
        return location
