"""Reads finished WARC files with common readers, and replays archived pages.

It knows nothing of the crawler. Payloads are without transfer and content coding, as a browser gets them.
"""

import base64
import hashlib
from argparse import Namespace
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import urljoin

import brotli
from fastwarc.warc import ArchiveIterator as FastIterator
from warcio.archiveiterator import ArchiveIterator  # type: ignore[import-untyped]
from warcio.bufferedreaders import ChunkedDataReader  # type: ignore[import-untyped]
from warcio.checker import Checker  # type: ignore[import-untyped]

CHUNKED_COMPLAINT = "payload digest failed"


@dataclass(frozen=True)
class Archived:
    """One record. Of no HTTP response, `status` is None and `payload` the block. `complaints`: warcio's problems."""

    kind: str
    url: str
    offset: int
    status: int | None
    content_type: str
    is_chunked: bool
    payload_digest: str | None
    payload: bytes
    complaints: tuple[str, ...]


def records(path: Path) -> Iterator[Archived]:
    """Every record of a file, by warcio, its digests checked."""
    with path.open("rb") as stream:
        reader = ArchiveIterator(stream, check_digests=True)
        for record in reader:
            yield _archived(record, reader.get_record_offset)


def record_at(path: Path, offset: int) -> Archived:
    """The record that begins at `offset`, found without reading what is before it."""
    with path.open("rb") as stream:
        stream.seek(offset)
        return _archived(next(iter(ArchiveIterator(stream))), lambda: offset)


def _archived(record: Any, offset: Callable[[], int]) -> Archived:
    headers, http = record.rec_headers, record.http_headers
    is_response = record.rec_type in ("response", "revisit")
    payload = _payload(record)
    coding = (http.get_header("transfer-encoding") or "") if is_response else ""
    content_type = (http.get_header("content-type") or "") if is_response else ""
    return Archived(
        kind=record.rec_type,
        url=headers.get_header("WARC-Target-URI") or "",
        offset=offset(),
        status=int(http.get_statuscode()) if is_response else None,
        content_type=content_type.partition(";")[0],
        is_chunked=coding.lower() == "chunked",
        payload_digest=headers.get_header("WARC-Payload-Digest"),
        payload=payload,
        complaints=tuple(record.digest_checker.problems),
    )


def _payload(record: Any) -> bytes:
    """Without codings. warcio's brotli reader does not work with the brotli of today, so that one is undone here."""
    http = record.http_headers
    if http is None or (http.get_header("content-encoding") or "").lower() != "br":
        return bytes(record.content_stream().read())
    is_chunked = (http.get_header("transfer-encoding") or "").lower() == "chunked"
    coded = ChunkedDataReader(record.raw_stream, decomp_type=None) if is_chunked else record.raw_stream
    return bytes(brotli.decompress(coded.read()))


def checker_exit_code(paths: Iterable[Path]) -> int:
    """What `warcio check` ends with. It prints its complaints."""
    code: int = Checker(Namespace(inputs=[str(path) for path in paths], verbose=False)).process_all()
    return code


def wrong_digests(path: Path) -> list[str]:
    """URLs of records whose block digest is missing or wrong, and of those whose payload digest is, by fastwarc; for a
    chunked payload the digest is held to the payload without its framing (WARC 1.1 §6.3.2).
    """
    wrong = []
    with path.open("rb") as stream:
        for record in FastIterator(stream, parse_http=False):
            if record.headers.get("WARC-Type") != "warcinfo" and not record.verify_block_digest():
                wrong.append(f"block of {record.headers.get('WARC-Target-URI')}")
    with path.open("rb") as stream:
        for record in FastIterator(stream):
            stated = record.headers.get("WARC-Payload-Digest")
            if stated is None:
                continue
            if (record.http_headers.get("Transfer-Encoding") or "").lower() == "chunked":
                right = _digest(ChunkedDataReader(record.reader, decomp_type=None).read()) == stated
            else:
                right = record.verify_payload_digest()
            if not right:
                wrong.append(f"payload of {record.headers.get('WARC-Target-URI')}")
    return wrong


def _digest(payload: bytes) -> str:
    return "sha256:" + base64.b32encode(hashlib.sha256(payload).digest()).decode()


class _Parts(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        if tag in ("img", "script"):
            self.found.append(given.get("src") or "")
        elif tag == "link" and given.get("rel") == "stylesheet":
            self.found.append(given.get("href") or "")


def parts_of(page: Archived) -> list[str]:
    """The absolute URLs of what an archived page needs to be shown: images, scripts and style sheets."""
    parser = _Parts()
    parser.feed(page.payload.decode())
    return [urljoin(page.url, part) for part in parser.found if part]
