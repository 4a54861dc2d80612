"""Feeds bytes to a ResponseReader in any pieces, or to h11, and returns the result as one value."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from itertools import pairwise

import h11

from crawler.core.models import Head
from crawler.fetch.http1.message import RemoteProtocolError
from crawler.fetch.http1.wire import ResponseReader
from crawler.fetch.options import FetchOptions
from crawler.fetch.spool import BodySink

LIMITS = FetchOptions()


@dataclass(frozen=True)
class Reading:
    """The result of a reader. `words` are its flags, `error` is the message of a RemoteProtocolError."""

    head: Head | None
    raw_head: bytes
    raw_body: bytes
    payload: bytes
    one_object: bool
    words: frozenset[str]
    keep_alive: tuple[float | None, int | None]
    error: str | None

    def independent_of_pieces(self) -> "Reading":
        """The result without what may depend on how the bytes were split: for a faulty response, the message and the
        number of bytes kept beyond the fault.
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


# -- h11, as a second opinion


def whole_by_h11(data: bytes, eof: bool | None) -> tuple[int, bytes] | None:
    """Status and payload of the response to one GET; None if h11 refuses it or it is incomplete."""
    connection = h11.Connection(h11.CLIENT, max_incomplete_event_size=1 << 20)
    connection.send(h11.Request(method="GET", target="/", headers=[("Host", "a")]))
    connection.send(h11.EndOfMessage())
    status, payload = 0, bytearray()
    try:
        connection.receive_data(data)
        if eof is not None:
            connection.receive_data(b"")
        while True:
            event = connection.next_event()
            if isinstance(event, h11.Response):
                status = event.status_code
            elif isinstance(event, h11.Data):
                payload += event.data
            elif isinstance(event, h11.EndOfMessage):
                return status, bytes(payload)
            elif not isinstance(event, h11.InformationalResponse):
                return None
    except h11.RemoteProtocolError:
        return None
