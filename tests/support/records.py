"""Builds `Record`s for tests: one call, everything with a sensible default."""

import base64
import hashlib
from collections.abc import Iterator

from crawler.core.body import BytesBody
from crawler.core.enums import Source, TruncatedReason
from crawler.core.models import ConnectionInfo, Fetched, Head, PageInfo, Record, Task, Timings

STARTED_AT = 1_795_424_400.123456  # 2026-11-23T09:00:00.123456Z


class ChunkedReads:
    """A body that is only ever handed out in pieces, like a spool file. `largest_prefix` is the most ever asked for."""

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
    """As `Record.payload_digest` has it."""
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
    """A visit that answered `payload`. `streamed` hides the body behind `ChunkedReads`."""
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
