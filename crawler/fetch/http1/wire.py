"""Reads one HTTP/1.1 response, without I/O: bytes in, a head and a body out, and whether the connection may be reused.

A ResponseReader is fed what the server sends after one GET. It keeps the head, writes the body to a BodySink and says
when the response has ended. It reads one response and no more: a byte behind its end is a fault, not the next response.
A ChunkedDecoder removes the transfer coding of a chunked body as its bytes arrive.

Invariants:
- A connection is reusable only after a response that was framed strictly and read to its last byte.
- How the bytes were split on their way changes nothing, except how much is kept beyond a fault.
- Memory grows only with the bytes that came, never with a length that the server announces, and each kind of byte has
  a limit.
"""

import re
import sys
from collections.abc import Callable
from typing import Final

from crawler.core.enums import ErrorType, TruncatedReason
from crawler.core.models import Head
from crawler.fetch.http1.message import (
    MAX_LENGTH,
    NO_BODY,
    BodyEnd,
    RemoteProtocolError,
    body_framing,
    hop_fields,
    is_persistent,
    is_strict_field_line,
    is_tolerable_field_line,
    keep_alive_hints,
    parse_head,
    shown,
)
from crawler.fetch.options import KIB, FetchOptions
from crawler.fetch.spool import BodySink

# -- chunked bodies

_TOKEN: Final = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
_QUOTABLE: Final = rb"[\t \x21\x23-\x5b\x5d-\x7e\x80-\xff]*"
_QUOTED: Final = rb'"%b(?:\\[\t -~\x80-\xff]%b)*"' % (_QUOTABLE, _QUOTABLE)
_EXTENSION: Final = rb"[ \t]*;[ \t]*%b(?:[ \t]*=[ \t]*(?:%b|%b))?" % (_TOKEN, _TOKEN, _QUOTED)
# Some servers pad the size with spaces, and h11 accepts that too; extensions are ignored. The second group matches if
# the line breaks the grammar and is only tolerated.
_SIZE_LINE: Final = re.compile(rb"([0-9A-Fa-f]{1,16})(?:(?:%b)*\r\n|([ \t]*(?:;[^\x00\r\n]*)?\r\n))" % _EXTENSION)
_ONE_DIGIT_LINES: Final = {f"{size:{case}}\r\n".encode(): size for size in range(1, 16) for case in "xX"}
_MAX_KNOWN_LINES: Final = 64


class ChunkedDecoder:
    """Decodes the chunked transfer coding of one body (RFC 9112 §7.1).

    - `ended`: the last chunk was read. `done`: the empty line behind the trailers was read too.
    - `full`: there are more chunks than `max_chunks`; the first of those is not read.
    - `tainted`: a line was not strictly valid.

    Invariants: no byte of a chunk is returned before its size line was read to the end. Only CR LF ends a chunk or its
    size line. At most one size line or trailer line is held in memory.
    """

    __slots__ = ("_at_chunk_end", "_chunks", "_line", "_max_chunks", "_max_line", "_max_trailers", "_remaining",
                 "_trailers", "done", "ended", "full", "tainted")  # fmt: skip

    def __init__(self, max_line: int, max_trailers: int, max_chunks: int = sys.maxsize) -> None:
        self._max_line = max_line
        self._max_chunks = max_chunks
        self._chunks = 0  # size lines read
        self._max_trailers = max_trailers
        self._line = bytearray()  # the beginning of a line
        self._remaining = 0  # bytes of the current chunk still to come
        self._at_chunk_end = False  # the CR LF behind a chunk's data comes next
        self._trailers = 0  # bytes of trailers so far
        self.ended = False
        self.done = False
        self.full = False
        self.tainted = False

    def feed(self, data: bytes, payload: list[bytes]) -> int:
        """Decode `data` and append its chunks to `payload`. Returns how many bytes were used: all, unless done or full.

        Raises RemoteProtocolError; `payload` then has what was decoded before the fault.
        """
        at = 0
        size = len(data)
        while at < size and not (self.done or self.full):
            if not (self._remaining or self._at_chunk_end or self._line or self.ended):
                before = len(payload)
                at = self._take_whole_chunks(data, at, payload)
                self._chunks += len(payload) - before
            if self._remaining:
                piece = data[at : at + self._remaining]
                payload.append(piece)
                at += len(piece)
                self._remaining -= len(piece)
                self._at_chunk_end = not self._remaining
                continue
            limit = 2 if self._at_chunk_end else self._max_trailers if self.ended else self._max_line
            end = data.find(b"\n", at) + 1
            piece = data[at : end or size]
            if len(self._line) + len(piece) > limit:
                raise RemoteProtocolError(self._too_long(limit, piece))
            if not end:
                self._line += piece
                return size
            at = end
            if self._line:
                piece = bytes(self._line) + piece
                self._line.clear()
            self._take_line(piece)
        return at

    def _take_whole_chunks(self, data: bytes, at: int, payload: list[bytes]) -> int:
        """Decode the chunks that are whole in `data`, from size line to CR LF. Returns where the first other one
        begins: it is not whole, is the last, or is faulty, and `feed` takes it. This makes a read full of one-byte
        chunks three times as fast.
        """
        append = payload.append
        lines: dict[bytes, tuple[int, bool]] = {}  # size lines of this read: small chunks repeat theirs
        for _ in range(self._max_chunks - self._chunks):
            size = _ONE_DIGIT_LINES.get(data[at : at + 3])
            start = at + 3
            if size is None:
                start = data.find(b"\n", at, at + self._max_line) + 1
                line = data[at:start]
                known = lines.get(line)
                if known is None:
                    match = _SIZE_LINE.fullmatch(line)
                    if match is None:
                        return at
                    known = int(match[1], 16), match.lastindex == 2
                    if len(lines) < _MAX_KNOWN_LINES:
                        lines[line] = known
                size, tolerated = known
            else:
                tolerated = False
            end = start + size
            if not size or data[end : end + 2] != b"\r\n":
                return at
            append(data[start:end])
            if tolerated:
                self.tainted = True
            at = end + 2
        return at

    def _take_line(self, line: bytes) -> None:
        if self._at_chunk_end:
            if line != b"\r\n":
                raise RemoteProtocolError(f"no CR LF after a chunk but {shown(line)}")
            self._at_chunk_end = False
        elif self.ended:
            self._take_trailer(line)
        else:
            match = _SIZE_LINE.fullmatch(line)
            if match is None or (size := int(match[1], 16)) > MAX_LENGTH:
                raise RemoteProtocolError(f"not a chunk size: {shown(line)}")
            if size and self._chunks >= self._max_chunks:
                self.full = True
                return
            self.tainted |= match[2] is not None
            self._chunks += 1
            self._remaining = size
            self.ended = not size

    def _take_trailer(self, line: bytes) -> None:
        """Check a trailer field and drop it: a client may not merge it into the head on its own (RFC 9110 §6.5.1)."""
        if line in (b"\r\n", b"\n"):
            self.tainted |= line == b"\n"
            self.done = True
            return
        if not is_strict_field_line(line):
            if not is_tolerable_field_line(line, may_continue=self._trailers > 0):
                raise RemoteProtocolError(f"not a trailer field: {shown(line)}")
            self.tainted = True
        self._trailers += len(line)
        if self._trailers > self._max_trailers:
            raise RemoteProtocolError(f"trailers over {self._max_trailers} bytes")

    def _too_long(self, limit: int, piece: bytes) -> str:
        if self._at_chunk_end:
            return f"no CR LF after a chunk but {shown(bytes(self._line) + piece)}"
        return f"trailers over {limit} bytes" if self.ended else f"a chunk's size line is over {limit} bytes"


# -- responses

_START: Final = b"HTTP/"
_HEAD_END: Final = re.compile(rb"\n\r?\n")
# Bytes of empty lines before a status line: some servers end a 1xx with one too many. Chromium skips 4 bytes too.
_MAX_BLANK: Final = 4
# An unwanted body of at most this size is read to its end, so that the connection can be reused: a new connection
# costs about as many bytes, and two round trips.
_MAX_DRAINED: Final = 16 * KIB


class _NullSink:
    """Drops an unwanted body."""

    def write(self, raw: bytes) -> None: ...

    def write_payload(self, data: bytes) -> None: ...


class ResponseReader:
    """Reads one response to one GET. `limits` bound its size; `wants(head)` says whether its body is wanted.

    - `started`: a byte came. `head`, `raw_head`: the final head (not a 1xx) and its exact bytes, once it is whole.
    - `complete`: there is a head and the response has ended, whole or not; nothing more is read into it. If the server
      closed before the end of the head it stays False, and `error_type` is SERVER_CLOSED (no byte came) or TRUNCATED.
    - `truncated`: less was kept than was sent or announced; `error_type` is also set if that is an error. After a
      RemoteProtocolError it is PROTOCOL_ERROR, and the sink still has the body as far as it came.
    - `unwanted`: `wants` refused the body. None of it is kept, and a long one is not read to its end.
    - `tainted`: the framing was read leniently. `extra`: bytes came behind the end of the response, which stands.
    - `closes`: the server announced that it closes: in a field, by HTTP/1.0, or because only the close ends the body.
    - `pieces`: the number of chunks, whole or not, in the last feed; 0 if the body is not chunked.
    - `keep_alive_timeout_s`, `keep_alive_max`: from the Keep-Alive field, if it has them.
    """

    __slots__ = ("_chunks", "_end", "_fits", "_informational", "_limits", "_pending", "_room", "_scanned", "_sink",
                 "_wants", "closes", "complete", "error_type", "extra", "head", "keep_alive_max",
                 "keep_alive_timeout_s", "pieces", "raw_head", "started", "tainted", "truncated",
                 "unwanted")  # fmt: skip

    def __init__(self, limits: FetchOptions, sink: BodySink, wants: Callable[[Head], bool] | None = None) -> None:
        self._limits = limits
        self._sink: BodySink | _NullSink = sink
        self._wants = wants
        self._pending = bytearray()  # the beginning of a head
        self._scanned = 0  # bytes of it that were searched for its end
        self._informational = 0
        self._end = BodyEnd.CLOSE
        self._room = 0  # bytes of body that may still be kept; with a Content-Length, those still to come
        self._fits = True  # a body with a Content-Length is within max_body
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
            # What follows a response that we stopped reading is the rest of it, not extra bytes.
            self.extra = self.extra or self.truncated is None
            return
        self.started = True
        try:
            body = data if self.head is not None else self._feed_head(data)
            if body is not None and not self.complete:
                self._feed_body(body)
        except RemoteProtocolError:
            self._end_early(ErrorType.PROTOCOL_ERROR, TruncatedReason.UNSPECIFIED)
            raise

    def feed_eof(self, *, clean: bool) -> None:
        """The server closed. `clean`: by close_notify under TLS, or by FIN without it; else more may have been sent.

        Source: RFC 9112 §8 (incomplete messages), §9.8 (TLS closure).
        """
        if self.complete:
            return
        self.closes = True
        if self.head is None:
            self._end_early(
                ErrorType.TRUNCATED if self.started else ErrorType.SERVER_CLOSED, TruncatedReason.DISCONNECT
            )
        elif self._end is BodyEnd.CLOSE and clean:
            self.complete = True
        elif self._chunks is not None and self._chunks.ended:
            # The last chunk was read, so the content is whole. Only trailers are missing, which we drop anyway.
            self.complete = self.tainted = True
        else:
            self._end_early(ErrorType.TRUNCATED, TruncatedReason.DISCONNECT)

    def _end_early(self, error_type: ErrorType, reason: TruncatedReason) -> None:
        self.complete = self.head is not None
        self.error_type = error_type
        self.truncated = reason

    def _feed_head(self, data: bytes) -> bytes | None:
        """Look for the final head. Sets `head` and returns the bytes behind it, or keeps the bytes and returns None."""
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
        """Where the status line starts; None as long as too few bytes have come to know."""
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
        """Skip a 1xx (RFC 9110 §15.2). A 101 answers an Upgrade field, which we never send."""
        if head.status_code == 101:
            raise RemoteProtocolError("101 Switching Protocols to a request without Upgrade")
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
        if self._wants is not None and framing != NO_BODY and not self._wants(head):
            self.unwanted = True
            self._sink = _NullSink()
            max_body = min(_MAX_DRAINED, max_body)
            if framing.end is BodyEnd.CLOSE or framing.length > max_body:
                self.complete = True
                self.truncated = TruncatedReason.CONTENT_TYPE
                return
        self._room = max_body
        if framing.end is BodyEnd.LENGTH:
            self._fits = framing.length <= max_body
            self._room = min(framing.length, max_body)
        elif framing.end is BodyEnd.LAST_CHUNK:
            self._chunks = ChunkedDecoder(limits.max_chunk_line, limits.max_trailers, limits.max_chunks)
            self._sink.write_payload(b"")
        else:
            self.closes = True

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
        if self._end is BodyEnd.LENGTH and self._fits:
            self.complete = not self._room
            self.extra = len(kept) < len(data)
        elif len(kept) < len(data) or (self._end is BodyEnd.LENGTH and not self._room):
            self.complete = True
            self.truncated = TruncatedReason.LENGTH

    def _feed_chunks(self, chunks: ChunkedDecoder, data: bytes) -> int:
        """Decode, and keep the bytes as they came and their payload, also if they turn out to be faulty."""
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
