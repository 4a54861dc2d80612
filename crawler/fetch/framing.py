"""Decides from a response's head how its body ends and whether the connection may go on. Pure; reads no bytes.

Invariant: everything that says where a response ends is decided here, from the head alone. Where two fields disagree
in a way RFC 9112 gives a rule for, the rule is followed and the framing marked faulty; otherwise the head is refused.
"""

import re
from enum import Enum, auto
from typing import Final, NamedTuple

from crawler.core.models import Head
from crawler.fetch.headfields import RemoteProtocolError, shown

# Chromium and Go keep lengths in a signed 64-bit number; a longer one is an attack or an overflow at the other end.
MAX_LENGTH: Final = 2**63 - 1
_HOP_FIELDS: Final = frozenset(("connection", "content-length", "keep-alive", "transfer-encoding"))
_DIGITS: Final = re.compile(r"[0-9]{1,19}")
_KEEP_ALIVE: Final = re.compile(r"(?:^|[,;\s])(timeout|max)\s*=\s*\"?([0-9]{1,9})(?![0-9])", re.IGNORECASE)


class BodyEnd(Enum):
    """What ends a body."""

    LENGTH = auto()
    LAST_CHUNK = auto()
    CLOSE = auto()


class Framing(NamedTuple):
    """How the content of a response ends. `length` is for BodyEnd.LENGTH; `faulty` taints the response."""

    end: BodyEnd
    length: int = 0
    faulty: bool = False


_NO_BODY: Final = Framing(BodyEnd.LENGTH, 0)
_CHUNKED: Final = Framing(BodyEnd.LAST_CHUNK)
_CHUNKED_FAULTY: Final = Framing(BodyEnd.LAST_CHUNK, faulty=True)


def hop_fields(head: Head) -> dict[str, list[str]]:
    """The values of the fields that concern the connection, by name: one pass for all who ask."""
    found: dict[str, list[str]] = {}
    for name, value in head.fields:
        if name in _HOP_FIELDS:
            found.setdefault(name, []).append(value)
    return found


def body_framing(head: Head, hop: dict[str, list[str]]) -> Framing:
    """Decide how the content of a response to GET ends.

    Raises RemoteProtocolError for a transfer coding other than `chunked` and `identity`, and for a Content-Length that
    is not one number below 2^63. Source: RFC 9112 §6.1 and §6.3; what is read although it is at fault is read as curl
    and Chromium do (docs/decisions/0034-odd-heads.md).
    """
    if head.status_code in (204, 304):
        return _NO_BODY
    lengths = hop.get("content-length")
    codings = hop.get("transfer-encoding")
    if codings is not None:
        items = _list_items(codings)
        if items == ["chunked"]:
            # §6.1: in HTTP/1.0, or beside a length, it is an error or an attack; it wins, the connection closes.
            return _CHUNKED_FAULTY if lengths is not None or head.http_version == "1.0" else _CHUNKED
        # We never send TE, so no coding but chunked may be used (RFC 9112 §7.4). Named twice it is meant once (§6.1);
        # `identity`, of RFC 2616, is no coding.
        named = set(items) - {"identity"}
        if named == {"chunked"}:
            return _CHUNKED_FAULTY
        if named:
            raise RemoteProtocolError(f"cannot read the transfer coding {shown(', '.join(codings))}")
    faulty = codings is not None
    if lengths is not None:
        return Framing(BodyEnd.LENGTH, _content_length(lengths), faulty)
    return Framing(BodyEnd.CLOSE, faulty=faulty)


def _content_length(values: list[str]) -> int:
    """One number from every Content-Length value. The same number twice is one number (RFC 9110 §8.6)."""
    text = values[0]
    if len(values) > 1 or "," in text:
        distinct = {item.strip(" \t") for value in values for item in value.split(",")}
        text = distinct.pop() if len(distinct) == 1 else ""
    if _DIGITS.fullmatch(text) is None or (length := int(text)) > MAX_LENGTH:
        raise RemoteProtocolError(f"not a Content-Length: {shown(', '.join(values))}")
    return length


def _list_items(values: list[str]) -> list[str]:
    """The elements, in lower case, of a list spread over fields, without the empty ones (RFC 9110 §5.6.1)."""
    return [item.lower() for value in values for part in value.split(",") if (item := part.strip(" \t"))]


def is_persistent(head: Head, hop: dict[str, list[str]]) -> bool:
    """Whether the server means to keep the connection open after this response. Source: RFC 9112 §9.3."""
    options = _list_items(hop.get("connection", []))
    return "close" not in options and (head.http_version != "1.0" or "keep-alive" in options)


def keep_alive_hints(hop: dict[str, list[str]]) -> tuple[float | None, int | None]:
    """`timeout` (seconds) and `max` (further requests) of the Keep-Alive field, None where not said.

    A number is at most nine digits; what cannot be read says nothing. Source: RFC 2068 §19.7.1.1, as servers use it.
    """
    said = {name.lower(): int(number) for name, number in _KEEP_ALIVE.findall(", ".join(hop.get("keep-alive", [])))}
    timeout = said.get("timeout")
    return (None if timeout is None else float(timeout)), said.get("max")
