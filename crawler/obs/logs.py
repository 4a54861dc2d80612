"""The program's log: one object that writes logs/fetch.jsonl and logs/events.jsonl, and shows events to people.

Events go to the console or the journal as well, and what libraries log becomes an event. Invariant: logging never
raises into the crawl and never waits for a disk or the journal. Lines that cannot be written are counted and reported
as `log_dropped`. Secrets in URLs are removed from every event.
"""

import logging
import os
import sys
import time
import traceback
from collections import deque
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Final, Literal, Protocol

import structlog
from structlog.typing import EventDict

from crawler.core.formatting import printable, timestamp, value_text
from crawler.obs.events import CATALOGUE, Event
from crawler.obs.fetch_line import redact_text
from crawler.obs.log_files import JsonlFile, LineWriter, LogOptions, encode_line, write_all

FETCH_FILE: Final = "fetch.jsonl"
EVENTS_FILE: Final = "events.jsonl"
WARNINGS_KEPT: Final = 50  # for the status
_LEVEL_NAMES: Final = {at: logging.getLevelName(at).lower() for at in logging.getLevelNamesMapping().values()}
# sd-daemon(3): a "<N>" at the start of a line on stderr is its syslog priority
_PRIORITY: Final = {"debug": 7, "info": 6, "warning": 4, "error": 3, "critical": 2}


class LogOutput(Protocol):
    """Shows an event to people. Called on the thread that logs."""

    def show(self, event: EventDict) -> None: ...


class Logs:
    """The program's log, made by `configure`. Every method may be called from any thread."""

    def __init__(
        self,
        options: LogOptions,
        directory: Path,
        *,
        output: LogOutput | None,
        crawl_name: str,
        run_id: str,
        now: Callable[[], float],
    ) -> None:
        self.crawl_name = crawl_name
        self.run_id = run_id
        self._output = output
        self._now = now
        self._level = logging.INFO
        self._warnings: deque[EventDict] = deque(maxlen=WARNINGS_KEPT)
        self._fetches = self._open(directory / FETCH_FILE, options)
        self._events = self._open(directory / EVENTS_FILE, options)
        self._handler = _LibraryHandler(self)
        self.set_level(options.level)

    @property
    def dropped(self) -> int:
        """Lines dropped since the start, of both files."""
        return self._fetches.dropped + self._events.dropped

    @property
    def is_shown(self) -> bool:
        """Whether records of events are shown: as lines on a terminal or in a file, or in the journal."""
        return isinstance(self._output, _Console | _Lines)

    @property
    def warnings(self) -> list[EventDict]:
        """The last warnings and errors, oldest first."""
        return list(self._warnings)

    @property
    def pending_bytes(self) -> int:
        """Bytes of lines that are not written yet, of both files."""
        return self._fetches.pending_bytes + self._events.pending_bytes

    def fetch(self, line: Mapping[str, object]) -> None:
        """Log an attempt, at any level. `line`: a result of `fetch_line.fetch_line`."""
        self._fetches.append_json(line)

    def event(self, name: Event, /, *, level: int | None = None, **fields: object) -> None:
        """Log an event with the fields of the catalogue, at its usual level or `level`. A field that is a Python
        keyword gets an underscore: `from_=`.
        """
        if "from_" in fields:
            fields["from"] = fields.pop("from_")
        self.emit(name, fields, level=level)

    def emit(self, name: Event, fields: Mapping[str, object], *, level: int | None = None) -> None:
        """Log an event with its fields in a mapping, the common fields first, without fields that are None."""
        at = CATALOGUE[name].level if level is None else level
        if at < self._level:
            return
        event: EventDict = {
            "ts": timestamp(self._now()),
            "event": name.value,
            "level": _LEVEL_NAMES[at],
            "crawl": self.crawl_name,
            "run_id": self.run_id,
        }
        for field, value in fields.items():
            if value is not None:
                event[field] = _redacted(value)
        self._events.append_json(event)
        if event["level"] not in ("debug", "info"):
            self._warnings.append(event)
        if self._output is not None and self._is_shown(event):
            self._output.show(event)

    def set_level(self, level: str) -> None:
        """Log no events below "debug", "info", "warning" or "error"."""
        self._level = logging.getLevelNamesMapping()[level.upper()]

    def reload(self, options: LogOptions) -> None:
        """Take new options and open the files anew. The directory stays: it changes with a restart only."""
        self.set_level(options.level)
        self._fetches.reopen(rotate_size=options.rotate_size, keep=options.keep)
        self._events.reopen(rotate_size=options.rotate_size, keep=options.keep)

    def capture_libraries(self) -> None:
        """Route warnings and the standard library's logging (asyncio's exceptions among them) into this log."""
        logging.captureWarnings(True)
        logging.getLogger().addHandler(self._handler)

    def flush(self) -> bool:
        """Wait until all lines so far are written or dropped. Returns False if a destination is blocked."""
        return self._fetches.flush() and self._events.flush()

    def close(self) -> None:
        """Write what is pending, close the files and release the standard library's logging."""
        if self._handler in logging.getLogger().handlers:
            logging.getLogger().removeHandler(self._handler)
            logging.captureWarnings(False)
        self._fetches.close()
        self._events.close()
        if isinstance(self._output, _Lines):
            self._output.close()

    def _open(self, path: Path, options: LogOptions) -> JsonlFile:
        def report(lines: int) -> None:
            self.event(Event.LOG_DROPPED, file=path.name, lines=lines, lines_total=self.dropped)

        return JsonlFile(path, rotate_size=options.rotate_size, keep=options.keep, on_recovered=report)

    def _is_shown(self, event: EventDict) -> bool:
        """Whether an event is shown: warnings and lifecycle events, at level debug all."""
        is_lifecycle = CATALOGUE[Event(event["event"])].lifecycle
        return is_lifecycle or event["level"] not in ("debug", "info") or self._level <= logging.DEBUG


Shown = Literal["console", "journal", "text", "json", "off"]


def configure(
    options: LogOptions,
    directory: Path,
    *,
    shown: Shown = "off",
    output: LogOutput | None = None,
    crawl_name: str,
    run_id: str,
    now: Callable[[], float] = time.time,
) -> Logs:
    """Open the log. Events are shown on stderr: for a terminal ("console"), as lines of text or JSON for a file, for
    systemd ("journal"). If they are "off", `output` shows them.

    Raises OSError if a log file cannot be opened. A full disk is no error yet.
    """
    if shown != "off":
        output = _OUTPUTS[shown]()
    logs = Logs(options, directory, output=output, crawl_name=crawl_name, run_id=run_id, now=now)
    logs.capture_libraries()
    return logs


class _Console:
    """structlog's console renderer on stderr. `sys.stderr` is looked up for each line, because a live display replaces
    it.
    """

    def __init__(self) -> None:
        is_coloured = sys.stderr.isatty() and "NO_COLOR" not in os.environ
        self._render = structlog.dev.ConsoleRenderer(
            colors=is_coloured,
            timestamp_key="ts",
            sort_keys=False,
            pad_event_to=0,
            pad_level=False,
            exception_formatter=structlog.dev.plain_traceback,
        )

    def show(self, event: EventDict) -> None:
        shown = {key: _on_console(value) for key, value in event.items() if key not in ("crawl", "run_id")}
        shown["ts"] = f"{event['ts'][11:19]}Z"
        try:
            sys.stderr.write(str(self._render(None, "", shown)) + "\n")
            sys.stderr.flush()
        except (OSError, ValueError):  # the terminal is gone; the file has the line
            return


def _on_console(value: object) -> object:
    """A value for the console: collections and flags as text, no control characters but line breaks."""
    if isinstance(value, list | tuple | bool | Mapping):
        value = value_text(value)
    return "\n".join(map(printable, value.split("\n"))) if isinstance(value, str) else value


class _Lines:
    """Lines on stderr, written by a thread, since the reader may stall (journald for 105-156 ms, a pipe for ever).
    `line` makes the line of an event, with its newline.
    """

    def __init__(self, line: Callable[[EventDict], bytes]) -> None:
        self._line = line
        self._writer = LineWriter(_Descriptor(sys.stderr.fileno()), name="stderr", flush_interval_s=0)

    def show(self, event: EventDict) -> None:
        self._writer.append(self._line(event))

    def close(self) -> None:
        self._writer.close()


_LOGFMT: Final = structlog.processors.LogfmtRenderer()


def _key_values(event: EventDict, left_out: Collection[str]) -> str:
    """The event's name, and its fields as key=value, without control characters."""
    shown = {key: _plain(value) for key, value in event.items() if key not in left_out}
    name = shown.pop("event")
    return printable(f"{name} {_LOGFMT(None, '', shown)}")


def _journal_line(event: EventDict) -> bytes:
    """With a priority for systemd."""
    line = f"<{_PRIORITY.get(event['level'], 6)}>{_key_values(event, ('ts', 'level'))}\n"
    return line.encode(errors="backslashreplace")


def _text_line(event: EventDict) -> bytes:
    """With time (UTC) and level, for a file or a log collector."""
    fields = _key_values(event, ("ts", "level", "crawl", "run_id"))
    return f"{event['ts'][:19]}Z {event['level']} {fields}\n".encode(errors="backslashreplace")


_OUTPUTS: Final[Mapping[str, Callable[[], LogOutput]]] = {
    "console": _Console,
    "journal": lambda: _Lines(_journal_line),
    "text": lambda: _Lines(_text_line),
    "json": lambda: _Lines(encode_line),
}


class _Descriptor:
    """A destination that is not ours to close."""

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def write(self, data: bytes) -> None:
        write_all(self._fd, data)

    def close(self) -> None:
        return


class _LibraryHandler(logging.Handler):
    """Logs the records of the standard library's logging as events."""

    def __init__(self, logs: Logs) -> None:
        super().__init__(logging.WARNING)
        self._logs = logs

    def emit(self, record: logging.LogRecord) -> None:
        try:
            message = record.getMessage()
        except (TypeError, ValueError):  # a library's own mistake in its format
            message = str(record.msg)
        fields: dict[str, object] = {"logger": record.name, "message": message.strip()}
        if record.exc_info is not None and record.exc_info[0] is not None:
            fields["exception"] = "".join(traceback.format_exception(*record.exc_info)).rstrip()
        self._logs.event(Event.LIBRARY, level=min(record.levelno // 10 * 10, logging.CRITICAL), **fields)


def _redacted(value: object) -> object:
    """The value of a field without secrets in URLs."""
    if isinstance(value, str):
        return redact_text(value) if "://" in value else value
    if isinstance(value, list | tuple):
        return [redact_text(item) if isinstance(item, str) else item for item in value]
    if isinstance(value, Mapping):
        return {name: redact_text(item) if isinstance(item, str) else item for name, item in value.items()}
    return value


def _plain(value: object) -> object:
    """A value for logfmt: collections with commas, without any line breaks."""
    if isinstance(value, Mapping):
        value = value_text(value)
    elif isinstance(value, list | tuple | set | frozenset):
        value = ",".join(value_text(item) for item in value)
    return value.replace("\r", "\\r") if isinstance(value, str) else value
