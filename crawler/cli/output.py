"""Output of commands: messages, exit codes, data on stdout, colours, tables, lines of the log.

It writes plain text with escape sequences, because to load rich would take longer than most inspection commands.
Invariants: text from outside reaches the terminal without control characters. Messages that stderr does not take change
no exit code. An exception without an entry in the one table of exit codes (docs/reference/exit-codes.md) is a bug and
keeps its traceback.
"""

import errno
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from crawler.core.enums import Exit, OutcomeLabel
from crawler.core.formatting import count, date_time, duration, event_fields, printable, size


class ReaderGone(Exception):
    """The reader of our output closed the pipe. It is no OSError, because click would turn that into exit code 1."""


def open_standard_streams() -> None:
    """Open /dev/null in place of each closed standard stream (`crawler … >&-`). Otherwise the event loop would abort
    the process, because one of its sockets has a number below 3, and sys.stdout or sys.stderr would be None.
    """
    for fd in range(3):
        try:
            os.fstat(fd)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free, which is this one
    sys.stdout = sys.stdout or open(1, "w", closefd=False)  # noqa: SIM115 - as long as the process lives
    sys.stderr = sys.stderr or open(2, "w", closefd=False)  # noqa: SIM115


def write_data(data: bytes) -> None:
    """Write to stdout without buffering. Raises OSError, for example for a full disk; a closed pipe is ignored."""
    try:
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # what is buffered must not fail again at exit
        if not isinstance(error, BrokenPipeError):
            raise


def write_lines(held: list[bytes]) -> None:
    """Write lines, given without their newlines, to stdout and empty the list.

    Raises ReaderGone if the reader closed the pipe, so that the command stops even if many lines are left.
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


@contextmanager
def messages_may_fail() -> Iterator[None]:
    """Drop what is printed on stderr if it takes nothing, because its disk is full or its reader is gone."""
    try:
        yield
    except OSError:
        fd = sys.stderr.fileno()
        kept, null = os.dup(fd), os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, fd)
        sys.stderr.flush()  # what is buffered must not fail again at exit
        os.dup2(kept, fd)  # the disk may have room again later
        os.close(kept)
        os.close(null)


def say(message: str) -> None:
    """Print a message on stderr."""
    print_message(f"crawler: {message}")


def print_message(text: object) -> None:
    """Print on stderr what has its own form, for example "file:line:column: message"; it may have lines and tabs."""
    lines = ("\t".join(map(printable, line.split("\t"))) for line in str(text).split("\n"))
    with messages_may_fail():
        print("\n".join(lines), file=sys.stderr)  # noqa: T201 - messages of the command line


def not_written(problems: Iterable[str], *, unstored: int = 0, gone: Sequence[Path] = ()) -> int:
    """Print what could not be written and what to do; returns the exit code. `unstored` counts visits that were made
    and not stored; `gone` are directories or files of the crawl that were removed while it ran.
    """
    for problem in problems:
        say(f"could not be written: {problem}")
    if gone:
        for path in gone:
            say(f"{path} is gone: it was deleted or moved away while the crawl ran")
        say("what it held is lost unless you put it back, or a backup of it")
        return Exit.IO
    if unstored:
        one = "the last visit was not stored: its URL is"
        more = f"the last {count(unstored)} visits were not stored: their URLs are"
        say(f"{one if unstored == 1 else more} still queued, and will be fetched again")
    say("what was committed is safe; the same command continues from there")
    return Exit.IO


_EXTRAS: Final = {"asyncpg": "postgresql"}  # libraries that only some commands need, by the extra that has them


def exit_for(error: BaseException) -> int | None:
    """Print an expected failure and return its exit code; None for a bug."""
    # Imported here: a command that fails early must not pay for all packages.
    from crawler.core.url import UrlError
    from crawler.settings.configuration_errors import ConfigurationError

    if isinstance(error, ConfigurationError):
        print_message(error)  # file:line:column: message, for editors to parse
        return Exit.CONFIGURATION
    if isinstance(error, UrlError):
        say(str(error))
        return Exit.USAGE
    if isinstance(error, BrokenPipeError | ReaderGone):
        return Exit.OK  # the reader of our output needs no more
    if isinstance(error, ModuleNotFoundError) and (extra := _EXTRAS.get(error.name or "")) is not None:
        say(f"the library {error.name} is not installed: pip install 'crawlerd[{extra}]'")
        return Exit.CONFIGURATION
    found = _code_of_crawl_error(error)
    if found is not None:
        return found
    if isinstance(error, OSError):
        return _code_of_os_error(error)
    return None


def _code_of_crawl_error(error: BaseException) -> int | None:
    from crawler.admin.control_socket import NotAllowed, Unreachable
    from crawler.admin.unix_socket import CommandRefused, Malformed, SocketTaken
    from crawler.daemon import EndedAtOnce
    from crawler.fetch.http1.message import LocalProtocolError
    from crawler.frontier.base import FrontierError, FrontierFull, FrontierLocked, FrontierMismatch, FrontierUnreachable
    from crawler.frontier.sqlite.store_reader import StoreUnreadable
    from crawler.output_directory import OutputUnusable, StoreMissing
    from crawler.sinks.base import SinkCorrupt, SinkForeign

    if isinstance(error, BaseExceptionGroup) and error.split(FrontierError)[1] is None:
        while isinstance(error, BaseExceptionGroup):  # of the tasks of a running crawl; they fail alike
            error = error.exceptions[0]
    if isinstance(error, EndedAtOnce):
        say(f"{error}: ended at once; what was committed is safe, the same command continues from there")
        return 128 + error.number
    if isinstance(error, CommandRefused):
        say(str(error))
        return error.exit_code
    codes: list[tuple[type[BaseException], int]] = [
        (Unreachable, Exit.UNREACHABLE),
        (Malformed, Exit.UNREACHABLE),
        (NotAllowed, Exit.PERMISSION),
        (SocketTaken, Exit.CONFIGURATION),
        (OutputUnusable, Exit.CONFIGURATION),
        (LocalProtocolError, Exit.CONFIGURATION),
        (FrontierLocked, Exit.WAITING),
        (FrontierFull, Exit.IO),
        (FrontierMismatch, Exit.CONFIGURATION),
        (FrontierUnreachable, Exit.IO),
        (StoreUnreadable, Exit.PERMISSION),
        (FrontierError, Exit.STATE_CORRUPT),
        (SinkCorrupt, Exit.STATE_CORRUPT),
        (SinkForeign, Exit.STATE_CORRUPT),
        (StoreMissing, Exit.STATE_CORRUPT),
    ]
    for kind, code in codes:
        if isinstance(error, kind):
            say(str(error))
            return code
    return None


def _code_of_os_error(error: OSError) -> int:
    place = f"{error.filename}: " if error.filename else ""
    say(f"{place}{error.strerror or error}")
    return Exit.PERMISSION if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS) else Exit.IO


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
    """Whether stdout is a terminal."""
    return sys.stdout.isatty()


class Pen:
    """Colours text if stdout is a terminal and NO_COLOR is not set, or as `colour` says."""

    def __init__(self, *, colour: bool | None = None) -> None:
        self._colour = (is_terminal() and not os.environ.get("NO_COLOR")) if colour is None else colour

    def __call__(self, text: str, *styles: str) -> str:
        codes = ";".join(_CODES[style] for style in styles if style)
        return f"\x1b[{codes}m{text}\x1b[0m" if self._colour and codes and text else text


def quantiles(p50_ms: float | None, p95_ms: float | None) -> str:
    """Median and 95th percentile in milliseconds, for a column: "2/17", "0.5/2.1"; "" if one is unknown."""
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


def tsv(head: Sequence[str], rows: Iterable[Sequence[object]]) -> bytes:
    """A table for programs: values separated by tabs, names in the first line, nothing where a value is unknown."""
    lines = ["\t".join(head)]
    for row in rows:
        lines.append("\t".join("" if value is None else printable(str(value)) for value in row))
    return ("\n".join(lines) + "\n").encode("utf-8", "replace")


def fetch_text(line: Mapping[str, Any], pen: Pen) -> str:
    """A line of fetch.jsonl as text for a terminal."""
    outcome = str(line.get("outcome", "?"))
    status = line.get("http_response_status_code")
    reason = line.get("error_type") or line.get("deny_reason")
    word = printable(f"denied {reason}" if outcome == OutcomeLabel.DENIED else str(reason or outcome))
    parts = [
        pen(_time(line), "dim"),
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
    """A line of events.jsonl as text for a terminal."""
    colour = {"warning": "yellow", "error": "red", "critical": "red"}.get(str(line.get("level")), "")
    fields = " ".join(f"{pen(name + '=', 'dim')}{printable(text)}" for name, text in event_fields(line))
    event = f"{line.get('event', '?')!s:<13}"
    return f"{pen(_time(line), 'dim')}  {pen(printable(event), colour or 'cyan')}  {fields}"


def _time(line: Mapping[str, Any]) -> str:
    return str(line.get("ts", ""))


def _number(line: Mapping[str, Any], name: str, shown: Callable[[float], str]) -> str:
    value = line.get(name)
    return shown(value) if isinstance(value, int | float) else ""


def _connection(line: Mapping[str, Any]) -> str:
    return f"#{line['conn_id']}.{line.get('conn_request_n', '?')}" if "conn_id" in line else ""
