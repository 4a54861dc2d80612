"""Decodes the chunked transfer coding (RFC 9112 §7.1) as the bytes arrive.

Invariants: no byte of a chunk is returned before its size line was read to the end. Only CR LF ends a chunk or its size
line. At most one size line or trailer line is held in memory.
"""

import re
import sys
from typing import Final

from crawler.fetch.http1.message import (
    MAX_LENGTH,
    RemoteProtocolError,
    is_strict_field_line,
    is_tolerable_field_line,
    shown,
)

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
    """Decodes one body. `ended`: the last chunk was read; `done`: so was the empty line behind the trailers; `full`:
    there are more chunks than `max_chunks`, and the first of those is not read.
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
