"""Heads of HTTP/1.1 messages (RFC 9112), without I/O: how a request is written, how the head of a response is read, and
what the head says about the end of the body and the reuse of the connection.

A response is tainted if its head is read although it breaks the grammar, as curl and Chromium read it
(docs/decisions/0015-odd-heads.md). A connection is never reused after a tainted response.
"""

import re
from collections.abc import Sequence
from enum import Enum, auto
from functools import lru_cache
from typing import Final, NamedTuple

from crawler.core.models import Head

# -- requests

_TOKEN: Final = r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
_TARGET: Final = r"[!-~]+"
_VALUE: Final = r"[\t -~\x80-\xff]*"
_REQUEST_LINE: Final = re.compile(rf"{_TOKEN} {_TARGET} HTTP/1\.1\r\n")
_FIELD_LINES: Final = re.compile(rf"(?:{_TOKEN}: {_VALUE}\r\n)*")


class LocalProtocolError(Exception):
    """HTTP does not allow a part of the request; the message says which."""


def build_request(method: str, target: str, fields: Sequence[tuple[str, str]]) -> bytes:
    """The head of a request without content, from its request line to the empty line.

    `target` is the request-target as sent ("/a?b"); `fields` keep their order and their spelling. Raises
    LocalProtocolError for an empty or ill-formed method, target or name, a control character (CR, LF and NUL among
    them), or a character outside latin-1. Source: RFC 9112 §3, RFC 9110 §5.5.
    """
    line = f"{method} {target} HTTP/1.1\r\n"
    lines = _field_lines(tuple(fields))
    if lines is None or _REQUEST_LINE.fullmatch(line) is None:
        raise LocalProtocolError(_fault(method, target, fields))
    return f"{line}{lines}\r\n".encode("latin-1")


@lru_cache(256)
def _field_lines(fields: tuple[tuple[str, str], ...]) -> str | None:
    """The field lines, which are the same for most requests to an origin; None if they must not be sent."""
    text = "".join([f"{name}: {value}\r\n" for name, value in fields])
    # A value with CR LF in it makes well-formed lines of its own: only the number of lines shows it.
    return text if text.count("\n") == len(fields) and _FIELD_LINES.fullmatch(text) is not None else None


def _fault(method: str, target: str, fields: Sequence[tuple[str, str]]) -> str:
    if re.fullmatch(_TOKEN, method) is None:
        return f"not a method: {method!r}"
    if re.fullmatch(_TARGET, target) is None:
        return f"not a request target: {target!r}"
    for name, value in fields:
        if re.fullmatch(_TOKEN, name) is None:
            return f"not a field name: {name!r}"
        if re.fullmatch(_VALUE, value) is None:
            return f"not a value for the field {name}: {value!r}"
    raise AssertionError("every part is well-formed, yet the request is not")  # pragma: no cover - a bug of ours


# -- heads of responses

_TOLERATED_VALUE: Final = r"[^\x00\r\n]*"

# The space after the status code may be missing: servers that send no reason often leave it out, and h11 and llhttp
# accept that. Minor versions above 1 are read as 1.1 (RFC 9110 §2.5). Some servers send the status 999.
_STATUS: Final = r"HTTP/(1\.[0-9]) ([1-9][0-9][0-9])(?: ({}))?"

_STRICT_HEAD: Final = re.compile(_STATUS.format(_VALUE) + rf"\r\n(?:{_TOKEN}:{_VALUE}\r\n)*\r\n")
_FIELD: Final = re.compile(r"\n([^:\r]+):[\t ]*([^\r]*)")  # of a strict head
_TOLERATED_STATUS: Final = re.compile(_STATUS.format(_TOLERATED_VALUE))
_TOLERATED_FIELD: Final = re.compile(rf"({_TOKEN}):({_TOLERATED_VALUE})")
_NO_FIELD: Final = re.compile(rf"(?![ \t]|{_TOKEN}[ \t]+:)[^\x00\r\n]+")
_OF_FRAMING: Final = re.compile(r"content-length|transfer-encoding", re.IGNORECASE)
_STRICT_LINE: Final = re.compile(rf"{_TOKEN}:{_VALUE}\r\n")


class RemoteProtocolError(Exception):
    """The server broke HTTP/1.1; the message says how."""


def parse_head(raw: bytes) -> tuple[Head, bool]:
    """Parse a head, from the status line to the empty line. Returns it and whether it is tainted.

    The caller bounds its bytes and lines. Raises RemoteProtocolError. Source: RFC 9112 §4, §5, §2.2.
    """
    text = raw.decode("latin-1")
    match = _STRICT_HEAD.fullmatch(text)
    if match is None:
        return _parse_tolerantly(text), True
    version, code, reason = match.groups("")
    fields = tuple([(name.lower(), value.rstrip(" \t")) for name, value in _FIELD.findall(text, text.index("\n"))])
    return Head(int(code), reason.strip(" \t"), version, fields), False


def _parse_tolerantly(text: str) -> Head:
    lines = [line.removesuffix("\r") for line in text.split("\n")[:-2]]
    status = _TOLERATED_STATUS.fullmatch(lines[0])
    if status is None:
        raise RemoteProtocolError(f"not a status line: {shown(lines[0])}")
    version, code, reason = status.groups("")
    unfolded: list[tuple[str, list[str]]] = []
    for line in lines[1:]:
        if line[0] in " \t" and unfolded:
            unfolded[-1][1].append(_continuation(line))
            continue
        field = _TOLERATED_FIELD.fullmatch(line)
        if field is not None:
            unfolded.append((field[1].lower(), [field[2].strip(" \t")]))
        elif _is_ignorable(line):
            unfolded.append(("", []))
        else:
            raise RemoteProtocolError(f"not a header field: {shown(line)}")
    # RFC 9112 §5.2: each fold is replaced with a space before the value is interpreted.
    fields = tuple([(name, " ".join(parts).strip(" \t")) for name, parts in unfolded if name])
    return Head(int(code), reason.strip(" \t"), version, fields)


def _is_ignorable(line: str) -> bool:
    """Whether a line that is no field can be left out: no other field and not the framing can be meant by it."""
    return _NO_FIELD.fullmatch(line) is not None and _OF_FRAMING.search(line) is None


def _continuation(line: str) -> str:
    if "\x00" in line or "\r" in line:
        raise RemoteProtocolError(f"not a header field: {shown(line)}")
    return line.strip(" \t")


def is_strict_field_line(line: bytes) -> bool:
    """Whether a line, with its CR LF, is a field line by the grammar (for trailers)."""
    return _STRICT_LINE.fullmatch(line.decode("latin-1")) is not None


def is_tolerable_field_line(line: bytes, *, may_continue: bool) -> bool:
    """Whether a line that is not strict is accepted as tainted. `may_continue`: a field line came before it."""
    text = line.decode("latin-1").removesuffix("\n").removesuffix("\r")
    if may_continue and text[:1] in (" ", "\t"):
        return "\x00" not in text and "\r" not in text
    return _TOLERATED_FIELD.fullmatch(text) is not None or _is_ignorable(text)


def shown(text: str | bytes) -> str:
    """The beginning of something a server sent, in quotes and escaped: "SSH-2.0-x\\r\\n"."""
    start = text[:80] if isinstance(text, str) else text[:80].decode("latin-1")
    return f'"{start.encode("unicode_escape").decode()}"'


# -- framing

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
    """How the body of a response ends. `length` belongs to BodyEnd.LENGTH; `faulty` taints the response."""

    end: BodyEnd
    length: int = 0
    faulty: bool = False


NO_BODY: Final = Framing(BodyEnd.LENGTH, 0)
_CHUNKED: Final = Framing(BodyEnd.LAST_CHUNK)
_CHUNKED_FAULTY: Final = Framing(BodyEnd.LAST_CHUNK, faulty=True)


def hop_fields(head: Head) -> dict[str, list[str]]:
    """The values of the fields that concern the connection, by name; collected in one pass for the functions below."""
    found: dict[str, list[str]] = {}
    for name, value in head.fields:
        if name in _HOP_FIELDS:
            found.setdefault(name, []).append(value)
    return found


def body_framing(head: Head, hop: dict[str, list[str]]) -> Framing:
    """Decide how the body of a response to GET ends.

    Raises RemoteProtocolError for a transfer coding other than `chunked` and `identity`, and for a Content-Length that
    is not one number below 2^63. Source: RFC 9112 §6.1 and §6.3.
    """
    if head.status_code in (204, 304):
        return NO_BODY
    lengths = hop.get("content-length")
    codings = hop.get("transfer-encoding")
    if codings is not None:
        items = _list_items(codings)
        if items == ["chunked"]:
            # §6.1: in HTTP/1.0, or with a length, it is an error or an attack. It wins, and the connection is closed.
            return _CHUNKED_FAULTY if lengths is not None or head.http_version == "1.0" else _CHUNKED
        # We never send TE, so only chunked may be used (RFC 9112 §7.4). If it is named twice, it was applied once
        # (§6.1). `identity`, of RFC 2616, is no coding.
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
    """The one number in all Content-Length values; it may be repeated (RFC 9110 §8.6)."""
    text = values[0]
    if len(values) > 1 or "," in text:
        distinct = {item.strip(" \t") for value in values for item in value.split(",")}
        text = distinct.pop() if len(distinct) == 1 else ""
    if _DIGITS.fullmatch(text) is None or (length := int(text)) > MAX_LENGTH:
        raise RemoteProtocolError(f"not a Content-Length: {shown(', '.join(values))}")
    return length


def _list_items(values: list[str]) -> list[str]:
    """The elements of a list in one or several fields, in lower case, without empty ones (RFC 9110 §5.6.1)."""
    return [item.lower() for value in values for part in value.split(",") if (item := part.strip(" \t"))]


def is_persistent(head: Head, hop: dict[str, list[str]]) -> bool:
    """Whether the server keeps the connection open after this response. Source: RFC 9112 §9.3."""
    options = _list_items(hop.get("connection", []))
    return "close" not in options and (head.http_version != "1.0" or "keep-alive" in options)


def keep_alive_hints(hop: dict[str, list[str]]) -> tuple[float | None, int | None]:
    """`timeout` (seconds) and `max` (further requests) of the Keep-Alive field, each None if it is missing.

    Numbers have at most nine digits; others are ignored. Source: RFC 2068 §19.7.1.1, as servers use it.
    """
    hints = {name.lower(): int(number) for name, number in _KEEP_ALIVE.findall(", ".join(hop.get("keep-alive", [])))}
    timeout = hints.get("timeout")
    return (None if timeout is None else float(timeout)), hints.get("max")
