"""Requests and answers of the demo server: reading the one, writing the other.

It does not know what is answered (`site`) or when the connection ends (`server`).
"""

import gzip
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import Final, Self

import brotli

_REASONS: Final = {
    200: "OK", 301: "Moved Permanently", 302: "Found", 304: "Not Modified", 400: "Bad Request",
    404: "Not Found", 405: "Method Not Allowed", 429: "Too Many Requests", 500: "Internal Server Error",
    503: "Service Unavailable",
}  # fmt: skip
CHUNK: Final = 1_000


class Framing(Enum):
    """How an answer says where it ends (RFC 9112 §6.3)."""

    LENGTH = "length"
    CHUNKED = "chunked"
    CLOSE = "close"  # no length: the end of the connection is the end of the body


@dataclass(frozen=True, slots=True)
class Request:
    """A request without a body. `host` is without its port; field names are lower case."""

    method: str
    target: str
    host: str
    fields: dict[str, str]

    @classmethod
    def parse(cls, head: bytes) -> Self:
        """Read a head up to its empty line. Raises ValueError for what is no request."""
        start, *lines = head.decode("latin-1").rstrip("\r\n").split("\r\n")
        method, target, version = start.split(" ")
        if version != "HTTP/1.1":
            raise ValueError(f"{version} is not spoken here")
        fields: dict[str, str] = {}
        for line in lines:
            name, colon, value = line.partition(":")
            if not colon:
                raise ValueError(f"not a field: {line!r}")
            fields[name.lower()] = value.strip()
        return cls(method, target, fields["host"].rpartition(":")[0] or fields["host"], fields)


@dataclass(frozen=True, slots=True)
class Answer:
    """A response. `coding` is a content coding the client must accept to get it: "gzip" or "br"."""

    body: bytes = b""
    status: int = 200
    content_type: str | None = "text/html; charset=utf-8"
    fields: tuple[tuple[str, str], ...] = field(default=())
    framing: Framing = Framing.LENGTH
    coding: str | None = None

    def coded_for(self, request: Request) -> "Answer":
        """The same with the content coding applied, if there is one and the client takes it (RFC 9110 §12.5.3)."""
        accepted = {item.partition(";")[0].strip() for item in request.fields.get("accept-encoding", "").split(",")}
        if self.coding is None or self.coding not in accepted:
            return self
        body = gzip.compress(self.body, mtime=0) if self.coding == "gzip" else brotli.compress(self.body, quality=5)
        fields = (*self.fields, ("Content-Encoding", self.coding), ("Vary", "Accept-Encoding"))
        return replace(self, body=body, fields=fields, coding=None)

    def encode(self, *, close: bool) -> bytes:
        """The bytes on the wire. `close` announces the end of the connection."""
        lines = [f"HTTP/1.1 {self.status} {_REASONS.get(self.status, '')}", "Server: crawler-demo"]
        lines += [f"{name}: {value}" for name, value in self.fields]
        if self.content_type is not None:
            lines.append(f"Content-Type: {self.content_type}")
        body = self.body
        if self.status == 304:  # has no body, and says no length of one (RFC 9110 §15.4.5)
            body = b""
        elif self.framing is Framing.CHUNKED:
            lines.append("Transfer-Encoding: chunked")
            body = _chunked(body)
        elif self.framing is Framing.LENGTH:
            lines.append(f"Content-Length: {len(body)}")
        lines.append("Connection: close" if close else "Connection: keep-alive")
        return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1") + body


def _chunked(body: bytes) -> bytes:
    pieces = [body[start : start + CHUNK] for start in range(0, len(body), CHUNK)]
    return b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"
