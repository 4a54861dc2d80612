"""What goes over the control socket: one JSON request a line, one JSON answer a line, in order.

Pure: bytes in, values out, for the server's side and the client's. Invariant: whatever the other side sends, the
outcome is a value or one of the two exceptions named here.

    {"command": "block", "arguments": {"name": "example.org"}}
    {"ok": true, "result": {…}}
    {"ok": false, "exit": 2, "message": "…", "details": {…}}
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import orjson

from crawler.core.enums import Exit

MAX_REQUEST: Final = 1024 * 1024  # bytes of a line; `add` sends longer lists in several requests
MAX_ANSWER: Final = 64 * 1024 * 1024  # bytes that a client reads before it gives up


@dataclass(frozen=True, slots=True)
class ControlRequest:
    """A command and what it is to be done to."""

    command: str
    arguments: Mapping[str, Any] = field(default_factory=dict)


class Malformed(Exception):
    """Not of this protocol; the message is for a person."""


class CommandRefused(Exception):
    """The command was understood and cannot be done. `exit_code` is that of the command line, `details` are for
    programs.
    """

    def __init__(self, message: str, exit_code: int = Exit.USAGE, details: Mapping[str, object] | None = None) -> None:
        super().__init__(message)
        self.exit_code = exit_code
        self.details = dict(details or {})


def encode_request(command: str, arguments: Mapping[str, object]) -> bytes:
    """Raises Malformed if the line would be too long, Refused for an argument that is no UTF-8."""
    try:
        line = orjson.dumps({"command": command, "arguments": dict(arguments)}) + b"\n"
    except TypeError:  # half a surrogate pair: how Python holds bytes of a command line that are no UTF-8
        raise CommandRefused("an argument is not UTF-8") from None
    if len(line) > MAX_REQUEST:
        raise Malformed(f"a request has {MAX_REQUEST} bytes at most")
    return line


def decode_request(line: bytes) -> ControlRequest:
    """Raises Malformed."""
    try:
        found = orjson.loads(line)
    except ValueError:
        raise Malformed("not a line of JSON") from None
    if not isinstance(found, dict) or not isinstance(command := found.get("command"), str):
        raise Malformed('a request is {"command": "…", "arguments": {…}}')
    arguments = found.get("arguments", {})
    if not isinstance(arguments, dict):
        raise Malformed('"arguments" must be an object')
    return ControlRequest(command, arguments)


def encode_result(result: object) -> bytes:
    return orjson.dumps({"ok": True, "result": result}) + b"\n"


def encode_refusal(refused: CommandRefused) -> bytes:
    answer = {"ok": False, "exit": refused.exit_code, "message": str(refused), "details": refused.details}
    return orjson.dumps(answer) + b"\n"


def decode_answer(line: bytes) -> Any:
    """The result. Raises Refused, Malformed."""
    try:
        found = orjson.loads(line)
    except ValueError:
        raise Malformed("the answer is not a line of JSON") from None
    if not isinstance(found, dict) or not isinstance(found.get("ok"), bool):
        raise Malformed("the answer is not of this protocol")
    if found["ok"]:
        return found.get("result")
    exit_code, details = found.get("exit"), found.get("details")
    raise CommandRefused(
        str(found.get("message", "")),
        exit_code if isinstance(exit_code, int) else Exit.BUG,
        details if isinstance(details, dict) else {},
    )
