"""Feeds bytes to a ResponseReader in any pieces and says in one value what came of them."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from itertools import pairwise

from crawler.core.models import Head
from crawler.fetch.http1.message import RemoteProtocolError
from crawler.fetch.http1.wire import ResponseReader
from crawler.fetch.options import FetchOptions
from crawler.fetch.spool import BodySink

LIMITS = FetchOptions()


@dataclass(frozen=True)
class Reading:
    """What a reader says at the end. `words` are its flags, `error` the message of a RemoteProtocolError."""

    head: Head | None
    raw_head: bytes
    raw_body: bytes
    payload: bytes
    one_object: bool
    words: frozenset[str]
    keep_alive: tuple[float | None, int | None]
    error: str | None

    def whatever_the_pieces(self) -> "Reading":
        """This, less what may depend on how the bytes were split: of a faulty response, the words of the complaint and
        how much beyond the fault was kept.
        """
        return self if self.error is None else replace(self, error="", raw_body=b"")


def words_of(reader: ResponseReader) -> frozenset[str]:
    words = {name for name in ("reusable", "tainted", "extra", "closes") if getattr(reader, name)}
    if not reader.complete:
        words.add("incomplete")
    if reader.truncated is not None:
        words.add(f"cut:{reader.truncated}")
    if reader.error_type is not None:
        words.add(str(reader.error_type))
    return frozenset(words)


def read(pieces: Iterable[bytes], *, eof: bool | None = None, limits: FetchOptions = LIMITS) -> Reading:
    """Feed `pieces`, then an end of stream: clean (True), unclean (False) or none (None)."""
    sink = BodySink(1 << 20)
    reader = ResponseReader(limits, sink)
    error = None
    try:
        for piece in pieces:
            reader.feed(piece)
        if eof is not None:
            reader.feed_eof(clean=eof)
    except RemoteProtocolError as caught:
        error = str(caught)
    raw_body, payload = sink.finish()
    return Reading(
        head=reader.head,
        raw_head=reader.raw_head,
        raw_body=b"".join(raw_body.chunks()),
        payload=b"".join(payload.chunks()),
        one_object=raw_body is payload,
        words=words_of(reader),
        keep_alive=(reader.keep_alive_timeout_s, reader.keep_alive_max),
        error=error,
    )


def single_bytes(data: bytes) -> list[bytes]:
    return [data[i : i + 1] for i in range(len(data))]


def split_at(data: bytes, *places: int) -> list[bytes]:
    """`data` cut at each of `places` (in any order, empty pieces included)."""
    edges = [0, *sorted(places), len(data)]
    return [data[a:b] for a, b in pairwise(edges)]
