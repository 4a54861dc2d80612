"""The client's side of HTTP/1.1 without I/O: bytes in, one response out, and whether the connection may live on.

A ResponseReader is fed what the server sends after one GET; it keeps the head, hands the body to a BodySink and says
when the response has ended. It knows neither sockets nor clocks: deadlines and the closing of connections are its
caller's. Not knowing more than one response is deliberate: a byte too many is not the next answer but a fault.

Invariants: a connection is called reusable only after a response framed to the letter and read to its last byte. How
the bytes were split on their way changes nothing (but how much beyond a fault is kept). Nothing is allocated on the
server's word: memory grows with the bytes that came, and each kind of byte has its cap.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Self

from crawler.core.enums import ErrorType, TruncatedReason
from crawler.core.models import Head
from crawler.fetch.http1.chunked import ChunkedDecoder
from crawler.fetch.http1.message import (
    BodyEnd,
    Framing,
    LocalProtocolError,
    RemoteProtocolError,
    body_framing,
    build_request,
    hop_fields,
    is_persistent,
    keep_alive_hints,
    parse_head,
    shown,
)
from crawler.fetch.options import KIB, MIB, FetchOptions
from crawler.fetch.spool import BodySink

__all__ = ["LocalProtocolError", "RemoteProtocolError", "ResponseReader", "WireLimits", "build_request"]

_START: Final = b"HTTP/"
_HEAD_END: Final = re.compile(rb"\n\r?\n")
# Empty lines before a status line, left over by servers that end a 1xx with one too many; Chromium skips 4 bytes too.
_MAX_BLANK: Final = 4
# So much of a body that is not wanted is read all the same, where that saves the connection: a new one costs about as
# many bytes and two round trips more.
_DRAINED: Final = 16 * KIB


@dataclass(frozen=True, slots=True)
class WireLimits:
    """What one response may cost. Sizes in bytes; `FetchOptions` has each one's precedent."""

    max_head: int = 300 * KIB  # of each head, its empty line included
    max_fields: int = 5_000  # lines, folded ones counted each
    max_informational: int = 8
    max_body: int = 64 * MIB  # as it came, transfer coding included
    max_chunk_line: int = 4 * KIB
    max_trailers: int = 8 * KIB
    max_chunks: int = 262_144

    @classmethod
    def from_options(cls, options: FetchOptions) -> Self:
        return cls(
            max_head=options.max_head,
            max_fields=options.max_fields,
            max_informational=options.max_informational,
            max_body=options.max_body,
            max_chunk_line=options.max_chunk_line,
            max_trailers=options.max_trailers,
            max_chunks=options.max_chunks,
        )


class _Nowhere:
    """Where a body goes that nobody wants."""

    def write(self, raw: bytes) -> None: ...

    def write_payload(self, data: bytes) -> None: ...


_NOWHERE: Final = _Nowhere()
_EMPTY: Final = Framing(BodyEnd.LENGTH, 0)


class ResponseReader:
    """Reads one response to one GET.

    - `started`: a byte came. `head`, `raw_head`: the final head (not a 1xx) and its exact bytes, once it is whole.
    - `complete`: there is a head and the response has ended, whole or not; nothing more is read into it. Where the
      server closed before a whole head it stays False: `error_type` says SERVER_CLOSED (no byte came) or TRUNCATED.
    - `truncated`: less was kept than was sent or promised; `error_type` is set too where that is an error. After
      RemoteProtocolError it is PROTOCOL_ERROR, and the sink still holds the body as far as it came.
    - `unwanted`: `wants` did not want the body. None of it is kept, and a long one is not read to its end.
    - `tainted`: framed leniently. `extra`: bytes came beyond the response's end; the response stands.
    - `closes`: the server announced the close, in a field, by HTTP/1.0 or by leaving the end of the body to it.
    - `pieces`: of how many chunks, whole or not, the last feed was made; 0 if the body is not chunked.
    - `keep_alive_timeout_s`, `keep_alive_max`: what the Keep-Alive field says, if anything.
    """

    __slots__ = ("_chunks", "_end", "_informational", "_limits", "_pending", "_room", "_scanned", "_sink", "_wants",
                 "_whole", "closes", "complete", "error_type", "extra", "head", "keep_alive_max",
                 "keep_alive_timeout_s", "pieces", "raw_head", "started", "tainted", "truncated",
                 "unwanted")  # fmt: skip

    def __init__(self, limits: WireLimits, sink: BodySink, wants: Callable[[Head], bool] | None = None) -> None:
        self._limits = limits
        self._sink: BodySink | _Nowhere = sink
        self._wants = wants
        self._pending = bytearray()  # a head that has begun
        self._scanned = 0  # bytes of it known not to begin its end
        self._informational = 0
        self._end = BodyEnd.CLOSE
        self._room = 0  # bytes of body that may still be kept; of a sized body, those still to come
        self._whole = True  # of a sized body: all of it fits
        self._chunks: ChunkedDecoder | None = None
        self.head: Head | None = None
        self.raw_head = b""
        self.started = False
        self.complete = False
        self.tainted = False
        self.extra = False
        self.unwanted = False
        self.closes = False
        self.pieces = 0
        self.truncated: TruncatedReason | None = None
        self.error_type: ErrorType | None = None
        self.keep_alive_timeout_s: float | None = None
        self.keep_alive_max: int | None = None

    @property
    def reusable(self) -> bool:
        """Whether the connection may carry another request. Source: RFC 9112 §9.3, and stricter."""
        return (
            self.complete
            and self.truncated is None
            and self.error_type is None
            and not (self.tainted or self.extra or self.closes)
        )

    def feed(self, data: bytes) -> None:
        """Take what the server sent. Raises RemoteProtocolError, and OSError from a spool that cannot be written."""
        if not data:
            return
        if self.complete:
            # What follows a response we stopped reading is the rest of it, not a surplus.
            self.extra = self.extra or self.truncated is None
            return
        self.started = True
        try:
            body = data if self.head is not None else self._feed_head(data)
            if body is not None and not self.complete:
                self._feed_body(body)
        except RemoteProtocolError:
            self._give_up(ErrorType.PROTOCOL_ERROR, TruncatedReason.UNSPECIFIED)
            raise

    def feed_eof(self, *, clean: bool) -> None:
        """The server closed. `clean`: by close_notify under TLS, by FIN without it; otherwise the end proves nothing.

        Source: RFC 9112 §8 (incomplete messages), §9.8 (TLS closure).
        """
        if self.complete:
            return
        self.closes = True
        if self.head is None:
            self._give_up(ErrorType.TRUNCATED if self.started else ErrorType.SERVER_CLOSED, TruncatedReason.DISCONNECT)
        elif self._end is BodyEnd.CLOSE and clean:
            self.complete = True
        elif self._chunks is not None and self._chunks.ended:
            # The last chunk was read, so the content is whole; only trailers, which we drop, are missing.
            self.complete = self.tainted = True
        else:
            self._give_up(ErrorType.TRUNCATED, TruncatedReason.DISCONNECT)

    def _give_up(self, error_type: ErrorType, reason: TruncatedReason) -> None:
        self.complete = self.head is not None
        self.error_type = error_type
        self.truncated = reason

    def _feed_head(self, data: bytes) -> bytes | None:
        """Look for the final head. Sets `head` and returns what follows it, or keeps what came and returns None."""
        buffer: bytes | bytearray = data
        if self._pending:
            self._pending += data
            buffer = self._pending
        limits = self._limits
        begin = 0
        while (start := self._head_start(buffer, begin)) is not None:
            scan_from = max(start, begin + self._scanned)
            match = _HEAD_END.search(buffer, scan_from, start + limits.max_head)
            if match is None:
                if len(buffer) - start >= limits.max_head:
                    raise RemoteProtocolError(f"the head is over {limits.max_head} bytes")
                break
            end = match.end()
            if buffer.count(b"\n", start, end) - 2 > limits.max_fields:
                raise RemoteProtocolError(f"the head has over {limits.max_fields} fields")
            raw = bytes(buffer[start:end])
            head, tainted = parse_head(raw)
            self.tainted |= tainted or start > begin
            if head.status_code >= 200:
                self.head = head
                self.raw_head = raw
                rest = bytes(buffer[end:])
                self._pending = bytearray()
                self._begin_body(head)
                return rest
            self._skip_informational(head)
            begin = end
            self._scanned = 0
        if buffer is data:
            self._pending = bytearray(data[begin:])
        else:
            del self._pending[:begin]
        self._scanned = max(0, len(self._pending) - 2)
        return None

    def _head_start(self, buffer: bytes | bytearray, begin: int) -> int | None:
        """Where the status line starts, or None while too little is there to tell."""
        if buffer.startswith(_START, begin):
            return begin
        blank = bytes(buffer[begin : begin + _MAX_BLANK])
        start = begin + len(blank) - len(blank.lstrip(b"\r\n"))
        there = bytes(buffer[start : start + len(_START)])
        if there == _START:
            return start
        if not _START.startswith(there):
            raise RemoteProtocolError(f"not an HTTP/1 response: begins with {shown(bytes(buffer[begin : begin + 80]))}")
        return None

    def _skip_informational(self, head: Head) -> None:
        """Pass over a 1xx (RFC 9110 §15.2). 101 answers an Upgrade that we never send."""
        if head.status_code == 101:
            raise RemoteProtocolError("101 Switching Protocols without having been asked")
        self._informational += 1
        if self._informational > self._limits.max_informational:
            raise RemoteProtocolError(f"over {self._limits.max_informational} informational responses")

    def _begin_body(self, head: Head) -> None:
        limits = self._limits
        hop = hop_fields(head)
        self.closes = not is_persistent(head, hop)
        if "keep-alive" in hop:
            self.keep_alive_timeout_s, self.keep_alive_max = keep_alive_hints(hop)
        framing = body_framing(head, hop)
        self.tainted |= framing.faulty
        self._end = framing.end
        max_body = limits.max_body
        if self._wants is not None and framing != _EMPTY and not self._wants(head):
            self._refuse()
            max_body = min(_DRAINED, max_body)
            if framing.end is BodyEnd.CLOSE or framing.length > max_body:
                self.complete = True
                self.truncated = TruncatedReason.CONTENT_TYPE
                return
        self._room = max_body
        if framing.end is BodyEnd.LENGTH:
            self._whole = framing.length <= max_body
            self._room = min(framing.length, max_body)
        elif framing.end is BodyEnd.LAST_CHUNK:
            self._chunks = ChunkedDecoder(limits.max_chunk_line, limits.max_trailers, limits.max_chunks)
            self._sink.write_payload(b"")
        else:
            self.closes = True

    def _refuse(self) -> None:
        self.unwanted = True
        self._sink = _NOWHERE

    def _feed_body(self, data: bytes) -> None:
        kept = data if len(data) <= self._room else data[: self._room]
        if self._chunks is not None:
            used = self._feed_chunks(self._chunks, kept)
            if self._chunks.done:
                self.complete = True
                self.extra = used < len(data)
                return
            if self._chunks.full:
                self.complete = True
                self.truncated = TruncatedReason.LENGTH
                return
        elif kept:
            self._sink.write(kept)
        self._room -= len(kept)
        if self._end is BodyEnd.LENGTH and self._whole:
            self.complete = not self._room
            self.extra = len(kept) < len(data)
        elif len(kept) < len(data) or (self._end is BodyEnd.LENGTH and not self._room):
            self.complete = True
            self.truncated = TruncatedReason.LENGTH

    def _feed_chunks(self, chunks: ChunkedDecoder, data: bytes) -> int:
        """Decode, and keep both the bytes as they came and what they carry, also where they turn out to be faulty."""
        payload: list[bytes] = []
        used = len(data)
        try:
            used = chunks.feed(data, payload)
        finally:
            self.tainted |= chunks.tainted
            self._sink.write(data if used == len(data) else data[:used])
            self.pieces = len(payload)
            if payload:
                self._sink.write_payload(payload[0] if len(payload) == 1 else b"".join(payload))
        return used

    def __repr__(self) -> str:
        status = self.head.status_code if self.head else None
        flags = [name for name in ("started", "complete", "tainted", "extra", "closes") if getattr(self, name)]
        return f"<ResponseReader {status} {' '.join([*flags, self.truncated or ''])}".rstrip() + ">"
