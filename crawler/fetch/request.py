"""Writes the bytes of a request. Owns what may stand in them; does not know which fields a crawler ought to send.

Invariant: the bytes hold exactly the fields that were given, one line each. Nothing in a URL or a configured header can
add a line, end the head or start a second request.
"""

import re
from collections.abc import Sequence
from functools import lru_cache
from typing import Final

_TOKEN: Final = r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
_TARGET: Final = r"[!-~]+"
_VALUE: Final = r"[\t -~\x80-\xff]*"
_REQUEST_LINE: Final = re.compile(rf"{_TOKEN} {_TARGET} HTTP/1\.1\r\n")
_FIELD_LINES: Final = re.compile(rf"(?:{_TOKEN}: {_VALUE}\r\n)*")


class LocalProtocolError(Exception):
    """We were asked to send what HTTP does not allow; says which part."""


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
    """The lines, which are the same for most requests to an origin; None if they are not fit to be sent."""
    text = "".join([f"{name}: {value}\r\n" for name, value in fields])
    # A CR LF smuggled into a value makes well-formed lines of its own: only the number of lines gives it away.
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
