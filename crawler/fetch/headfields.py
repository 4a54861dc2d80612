"""Reads the head of a response: the status line and the field lines, given whole. Knows nothing of bodies or streams.

Invariant: a head is `tainted` exactly when it does not follow the grammar of RFC 9112 to the letter. What is tolerated
(a bare LF at a line's end, folded lines, control characters in a value) cannot change where a field begins; what could
(NUL, a CR inside a line, space before the colon) is refused. A line that is no field, since it has no colon or no name
before it, is ignored as browsers ignore it, unless it speaks of a length or a transfer coding.
"""

import re
from typing import Final

from crawler.core.models import Head

_TOKEN: Final = r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
_VALUE: Final = r"[\t -~\x80-\xff]*"
_TOLERATED_VALUE: Final = r"[^\x00\r\n]*"

# The space after the status code may be missing: servers that send no reason often leave it out, and h11 and llhttp
# accept it. Minor versions above 1 are read as 1.1 (RFC 9110 §2.5). 999 is used in the wild, so codes end there.
_STATUS: Final = r"HTTP/(1\.[0-9]) ([1-9][0-9][0-9])(?: ({}))?"

_STRICT_HEAD: Final = re.compile(_STATUS.format(_VALUE) + rf"\r\n(?:{_TOKEN}:{_VALUE}\r\n)*\r\n")
_FIELD: Final = re.compile(r"\n([^:\r]+):[\t ]*([^\r]*)")  # of a strict head
_TOLERATED_STATUS: Final = re.compile(_STATUS.format(_TOLERATED_VALUE))
_TOLERATED_FIELD: Final = re.compile(rf"({_TOKEN}):({_TOLERATED_VALUE})")
_NO_FIELD: Final = re.compile(rf"(?![ \t]|{_TOKEN}[ \t]+:)[^\x00\r\n]+")
_OF_FRAMING: Final = re.compile(r"content-length|transfer-encoding", re.IGNORECASE)
_STRICT_LINE: Final = re.compile(rf"{_TOKEN}:{_VALUE}\r\n")


class RemoteProtocolError(Exception):
    """The server did not speak HTTP/1.1; says how, for a person."""


def parse_head(raw: bytes) -> tuple[Head, bool]:
    """Read a head from its status line to its empty line. Returns it and whether it is tainted.

    The caller has bounded its bytes and its lines. Raises RemoteProtocolError. Source: RFC 9112 §4, §5, §2.2.
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
        elif _may_be_ignored(line):
            unfolded.append(("", []))
        else:
            raise RemoteProtocolError(f"not a header field: {shown(line)}")
    # RFC 9112 §5.2: each fold is replaced with a space before the value is interpreted.
    fields = tuple([(name, " ".join(parts).strip(" \t")) for name, parts in unfolded if name])
    return Head(int(code), reason.strip(" \t"), version, fields)


def _may_be_ignored(line: str) -> bool:
    """Whether a line that is no field leaves no doubt about the others, nor about where the body ends."""
    return _NO_FIELD.fullmatch(line) is not None and _OF_FRAMING.search(line) is None


def _continuation(line: str) -> str:
    if "\x00" in line or "\r" in line:
        raise RemoteProtocolError(f"not a header field: {shown(line)}")
    return line.strip(" \t")


def is_strict_field_line(line: bytes) -> bool:
    """Whether a line, its CR LF included, is a field line to the letter (used for trailers)."""
    return _STRICT_LINE.fullmatch(line.decode("latin-1")) is not None


def is_tolerable_field_line(line: bytes, *, may_continue: bool) -> bool:
    """Whether a line that is not strict may pass, tainted. `may_continue`: a field line came before it."""
    text = line.decode("latin-1").removesuffix("\n").removesuffix("\r")
    if may_continue and text[:1] in (" ", "\t"):
        return "\x00" not in text and "\r" not in text
    return _TOLERATED_FIELD.fullmatch(text) is not None or _may_be_ignored(text)


def shown(text: str | bytes) -> str:
    """The beginning of something a server sent, fit for a log line."""
    return repr(text[:80])
