"""Standard output and terminal of the commands: writing data, colours, tables, and lines of the log for people.

Plain text with escape sequences: loading rich would cost more than the inspection commands themselves.
Invariant: text from outside reaches the terminal without control characters.
"""

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from crawler.core.enums import OutcomeLabel
from crawler.core.formatting import date_time, duration, event_fields, printable, size


class ReaderGone(Exception):
    """The reader of our output closed the pipe. Not an OSError: click would make exit code 1 of it."""


def occupy() -> None:
    """Put /dev/null where a standard stream was closed (`crawler … >&-`): the event loop aborts the process when a
    socket of its own gets a number below 3, and Python leaves None where the stream should be.
    """
    for fd in range(3):
        try:
            os.fstat(fd)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free, which is this one
    sys.stdout = sys.stdout or open(1, "w", closefd=False)  # noqa: SIM115 - as long as the process lives
    sys.stderr = sys.stderr or open(2, "w", closefd=False)  # noqa: SIM115


def write_data(data: bytes) -> None:
    """Write to stdout, at once. Raises OSError where it cannot take it (a full disk)."""
    try:
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # what is buffered must not fail again at exit
        if not isinstance(error, BrokenPipeError):
            raise


def write_lines(held: list[bytes]) -> None:
    """Write lines, given without their newlines, to stdout and empty the list.

    Raises ReaderGone when the reader closed the pipe: a command with a gigabyte of lines left should stop.
    """
    if not held:
        return
    held.append(b"")
    try:
        sys.stdout.buffer.write(b"\n".join(held))
        sys.stdout.buffer.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # what is buffered must not fail at exit
        raise ReaderGone from None
    held.clear()


_CODES: Final[Mapping[str, str]] = {
    "bold": "1", "dim": "2", "red": "31", "green": "32", "yellow": "33", "blue": "34", "cyan": "36",
}  # fmt: skip
OUTCOME_COLOURS: Final[Mapping[str, str]] = {
    OutcomeLabel.OK: "green",
    OutcomeLabel.NOT_MODIFIED: "green",
    OutcomeLabel.REDIRECT: "cyan",
    OutcomeLabel.HTTP_ERROR: "yellow",
    OutcomeLabel.TRUNCATED: "yellow",
    OutcomeLabel.ERROR: "red",
    OutcomeLabel.DENIED: "blue",
}


def is_terminal() -> bool:
    """Whether a person reads stdout."""
    return sys.stdout.isatty()


class Pen:
    """Colours text, or leaves it as it is."""

    def __init__(self, *, colour: bool | None = None) -> None:
        self._colour = (is_terminal() and not os.environ.get("NO_COLOR")) if colour is None else colour

    def __call__(self, text: str, *styles: str) -> str:
        codes = ";".join(_CODES[style] for style in styles if style)
        return f"\x1b[{codes}m{text}\x1b[0m" if self._colour and codes and text else text


def quantiles(p50_ms: float | None, p95_ms: float | None) -> str:
    """Median and 95th percentile in milliseconds, for a column: "2/17", "0.5/2.1"; "" where nothing is known."""
    if p50_ms is None or p95_ms is None:
        return ""
    digits = 1 if p95_ms < 10 else 0
    return f"{p50_ms:.{digits}f}/{p95_ms:.{digits}f}"


def table(
    head: Sequence[str],
    rows: Sequence[Sequence[str]],
    right: Sequence[bool],
    pen: Pen,
    styles: Sequence[Sequence[str]] = (),
) -> list[str]:
    """Lines of a table: columns as wide as their widest cell, the last of any length. `styles[i][j]` colours a cell."""
    widths = [max([len(head[i]), *(len(row[i]) for row in rows)]) for i in range(len(head))]
    last = len(head) - 1

    def cell(text: str, i: int) -> str:
        return text if i == last and not right[i] else text.rjust(widths[i]) if right[i] else text.ljust(widths[i])

    lines = [pen("  ".join(cell(text, i) for i, text in enumerate(head)).rstrip(), "bold")]
    for number, row in enumerate(rows):
        cells = [cell(text, i) for i, text in enumerate(row)]
        if styles:
            cells = [pen(text, styles[number][i]) for i, text in enumerate(cells)]
        lines.append("  ".join(cells).rstrip())
    return lines


def fetch_text(line: Mapping[str, Any], pen: Pen) -> str:
    """A line of fetch.jsonl for a person."""
    outcome = str(line.get("outcome", "?"))
    status = line.get("http_response_status_code")
    reason = line.get("error_type") or line.get("deny_reason")
    word = printable(f"denied {reason}" if outcome == OutcomeLabel.DENIED else str(reason or outcome))
    parts = [
        pen(_clock(line), "dim"),
        pen(f"{'---' if status is None else status!s:>3} {word:<18}", OUTCOME_COLOURS.get(outcome, "")),
        f"{_number(line, 'http_response_body_size', size):>10}",
        f"{_number(line, 'dur_ms', lambda ms: duration(ms / 1e3)):>7}",
        pen(f"{_connection(line):>9}", "dim"),
        printable(str(line.get("url_full", ""))),
    ]
    if "redirect_to" in line:
        parts.append(pen("→ " + printable(str(line["redirect_to"])), "cyan"))
    following = line.get("next")
    if following not in (None, "done"):
        due = date_time(str(line.get("next_at", "")))
        until = due and f" {due[11:] if due[:10] == str(line.get('ts', ''))[:10] else due}"
        parts.append(pen(f"[{following}{until}]", "dim"))
    return "  ".join(parts)


def event_text(line: Mapping[str, Any], pen: Pen) -> str:
    """A line of events.jsonl for a person."""
    colour = {"warning": "yellow", "error": "red", "critical": "red"}.get(str(line.get("level")), "")
    fields = " ".join(f"{pen(name + '=', 'dim')}{printable(text)}" for name, text in event_fields(line))
    event = f"{line.get('event', '?')!s:<13}"
    return f"{pen(_clock(line), 'dim')}  {pen(printable(event), colour or 'cyan')}  {fields}"


def _clock(line: Mapping[str, Any]) -> str:
    return str(line.get("ts", ""))[:23].replace("T", " ")


def _number(line: Mapping[str, Any], name: str, shown: Callable[[float], str]) -> str:
    value = line.get(name)
    return shown(value) if isinstance(value, int | float) else ""


def _connection(line: Mapping[str, Any]) -> str:
    return f"#{line['conn_id']}.{line.get('conn_request_n', '?')}" if "conn_id" in line else ""
