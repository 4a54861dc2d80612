"""Takes the chunked transfer coding off a body as its bytes arrive. Knows nothing of heads, limits on bodies or sinks.

Invariant: no byte of a chunk is given out before the line that announced it was read whole, and nothing but CR LF
ends a chunk or its size line. What is held back is never more than one such line or one trailer line.
"""

import re
import sys
from typing import Final

from crawler.fetch.http1.message import RemoteProtocolError, is_strict_field_line, is_tolerable_field_line, shown

_TOKEN: Final = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
_QUOTABLE: Final = rb"[\t \x21\x23-\x5b\x5d-\x7e\x80-\xff]*"
_QUOTED: Final = rb'"%b(?:\\[\t -~\x80-\xff]%b)*"' % (_QUOTABLE, _QUOTABLE)
_EXTENSION: Final = rb"[ \t]*;[ \t]*%b(?:[ \t]*=[ \t]*(?:%b|%b))?" % (_TOKEN, _TOKEN, _QUOTED)
# Some servers pad the size with spaces, and h11 accepts that too; what is inside an extension is nothing to us. Where
# the line is only so tolerable, the second group matches.
_SIZE_LINE: Final = re.compile(rb"([0-9A-Fa-f]{1,16})(?:(?:%b)*\r\n|([ \t]*(?:;[^\x00\r\n]*)?\r\n))" % _EXTENSION)
_ONE_DIGIT_LINES: Final = {f"{size:{case}}\r\n".encode(): size for size in range(1, 16) for case in "xX"}
_LINES_KNOWN: Final = 64
_MAX_SIZE: Final = 2**63 - 1


class ChunkedDecoder:
    """Decodes one body. `done` once its empty line was read; `ended` once the last chunk was (RFC 9112 §8); `full` when
    there is one more than `max_chunks`, which is not read.
    """

    __slots__ = ("_at_chunk_end", "_chunks", "_line", "_max_chunks", "_max_line", "_max_trailers", "_remaining",
                 "_trailers", "done", "ended", "full", "tainted")  # fmt: skip

    def __init__(self, max_line: int, max_trailers: int, max_chunks: int = sys.maxsize) -> None:
        self._max_line = max_line
        self._max_chunks = max_chunks
        self._chunks = 0  # whose size line was read
        self._max_trailers = max_trailers
        self._line = bytearray()  # a line that has begun
        self._remaining = 0  # bytes of the current chunk still to come
        self._at_chunk_end = False  # the CR LF behind a chunk's data comes next
        self._trailers = 0  # bytes of trailers so far
        self.ended = False
        self.done = False
        self.full = False
        self.tainted = False

    def feed(self, data: bytes, payload: list[bytes]) -> int:
        """Decode `data` and append what it carries to `payload`. Returns how many bytes were used: all, unless done or
        full.

        Raises RemoteProtocolError; what was decoded before the fault is in `payload` then. Source: RFC 9112 §7.1.
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
        """Decode the chunks that lie in `data` from their size line to their CR LF. Returns where the first that does
        not, or is the last, or is at fault begins: `feed` sees to it. Without this, a read full of one-byte chunks
        would hold the event loop three times as long.
        """
        append = payload.append
        lines: dict[bytes, tuple[int, bool]] = {}  # size lines met in this read: small chunks repeat theirs
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
                    if len(lines) < _LINES_KNOWN:
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
            if match is None or (size := int(match[1], 16)) > _MAX_SIZE:
                raise RemoteProtocolError(f"not a chunk size: {shown(line)}")
            if size and self._chunks >= self._max_chunks:
                self.full = True
                return
            self.tainted |= match[2] is not None
            self._chunks += 1
            self._remaining = size
            self.ended = not size

    def _take_trailer(self, line: bytes) -> None:
        """Check a trailer field and forget it: none may be merged into the head unasked (RFC 9110 §6.5.1)."""
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
