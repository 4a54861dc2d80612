"""The log as a whole: which line goes where."""

import asyncio
import errno
import io
import json
import logging
import os
import sys
import warnings
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from crawler.obs.events import CATALOGUE, Event
from crawler.obs.log_files import LogOptions, RotatingFile
from crawler.obs.logs import Logs, Shown, configure
from tests.support.log_lines import problems

AT = 1_795_424_400.5


def make(directory: Path, shown: Shown = "off", **options: object) -> Logs:
    return configure(
        LogOptions(**options),  # type: ignore[arg-type]
        directory, shown=shown, crawl_name="news", run_id="r1", now=lambda: AT,
    )  # fmt: skip


@pytest.fixture
def logs(tmp_path: Path) -> Iterator[Logs]:
    made = make(tmp_path)
    yield made
    made.close()


def events_in(directory: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in (directory / "events.jsonl").read_text().splitlines()]


def test_an_event_is_one_line_with_the_common_fields(logs: Logs, tmp_path: Path) -> None:
    """Time, name, level, crawl and run come first."""
    logs.event(Event.DRAIN, in_flight=3)
    logs.close()
    assert (tmp_path / "events.jsonl").read_text() == (
        '{"ts":"2026-11-23T09:00:00.500Z","event":"drain","level":"info","crawl":"news","run_id":"r1","in_flight":3}\n'
    )


def test_a_fetch_line_goes_to_its_own_file(logs: Logs, tmp_path: Path) -> None:
    """fetch.jsonl takes the line as it was built."""
    logs.fetch({"event": "fetch", "n": 1})
    logs.close()
    assert (tmp_path / "fetch.jsonl").read_text() == '{"event":"fetch","n":1}\n'
    assert events_in(tmp_path) == []


def test_a_field_named_like_a_keyword(logs: Logs, tmp_path: Path) -> None:
    """`from_` is written as `from`."""
    logs.event(Event.HOST_STATE, server_address="e.org", from_="ready", to="backoff", reason="429")
    logs.close()
    (event,) = events_in(tmp_path)
    assert event["from"] == "ready"
    assert problems(event) == []


def test_secrets_never_reach_an_event(logs: Logs, tmp_path: Path) -> None:
    """URLs are redacted in every field."""
    logs.event(Event.RELOAD_OK, changed=["https://u:p@e.org/"], needs_restart="see https://e.org/?key=1")
    logs.close()
    text = (tmp_path / "events.jsonl").read_text()
    assert "https://***@e.org/" in text
    assert "?key=***" in text


def test_the_level_leaves_events_out(tmp_path: Path) -> None:
    """At "warning" an info event is not written; the level may change while running."""
    logs = make(tmp_path, level="warning")
    logs.event(Event.DRAIN)
    logs.event(Event.DISK_LOW, path="/x", free_bytes=1, min_free_bytes=2)
    logs.reload(LogOptions(level="info"))
    logs.event(Event.DRAIN)
    logs.close()
    assert [(event["event"], event["level"]) for event in events_in(tmp_path)] == [
        ("disk_low", "warning"),
        ("drain", "info"),
    ]


def test_records_of_libraries_become_events(tmp_path: Path) -> None:
    """Logging and warnings of others become events while the log is open, and only then."""
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        logs = make(tmp_path)
        logging.getLogger("some.library").warning("careful with %s", "https://u:p@e.org/")
        logging.getLogger("some.library").info("chatter")
        logging.getLogger("some.library").log(35, "between two levels")
        warnings.warn("old thing", DeprecationWarning, stacklevel=1)
        logs.close()
        logging.getLogger("some.library").warning("afterwards")
    seen = [(event["logger"], event["level"], event["message"]) for event in events_in(tmp_path)]
    assert seen[:2] == [
        ("some.library", "warning", "careful with https://***@e.org/"),
        ("some.library", "warning", "between two levels"),
    ]
    assert seen[2][0] == "py.warnings"
    assert "DeprecationWarning: old thing" in str(seen[2][2])
    assert len(seen) == 3
    assert all(problems(event) == [] for event in events_in(tmp_path))


async def test_an_exception_nobody_awaited_is_logged(logs: Logs, tmp_path: Path) -> None:
    """asyncio's message is logged with its traceback."""
    asyncio.get_running_loop().call_exception_handler({"message": "lost", "exception": ValueError("boom")})
    logs.close()
    (event,) = events_in(tmp_path)
    assert (event["event"], event["logger"], event["level"]) == ("library", "asyncio", "error")
    assert "ValueError: boom" in str(event["exception"])


def test_lost_lines_are_reported_when_writing_works_again(
    logs: Logs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A full disk drops fetch lines; `log_dropped` has their number."""

    def full(self: RotatingFile, data: bytes) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as broken:
        broken.setattr(RotatingFile, "write", full)
        logs.fetch({"n": 1})
        logs.fetch({"n": 2})
        assert logs.flush()
    assert logs.dropped == 2
    logs.fetch({"n": 3})
    logs.close()
    (event,) = events_in(tmp_path)
    assert (event["event"], event["file"], event["lines"]) == ("log_dropped", "fetch.jsonl", 2)
    assert problems(event) == []
    assert (tmp_path / "fetch.jsonl").read_text() == '{"n":3}\n'


def test_the_console_shows_lifecycle_and_warnings(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without events of connections, and without escape codes if stderr is no terminal."""
    logs = make(tmp_path, shown="console")
    logs.event(Event.CONN_CLOSE, conn_id=1, requests=2, age_ms=3, bytes=4, reason="idle_timeout")
    logs.event(Event.READY, queued=2)
    logs.event(Event.DISK_LOW, path="/x", free_bytes=1, min_free_bytes=2)
    logs.close()
    assert capsys.readouterr().err.splitlines() == [
        "09:00:00Z [info] ready queued=2",
        "09:00:00Z [warning] disk_low path=/x free_bytes=1 min_free_bytes=2",
    ]


def test_the_console_shows_all_at_debug(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """At level debug all events are shown."""
    logs = make(tmp_path, shown="console", level="debug")
    logs.event(Event.CONN_CLOSE, conn_id=1, requests=2, age_ms=3, bytes=4, reason="idle_timeout")
    logs.close()
    assert "conn_close" in capsys.readouterr().err


def test_a_terminal_that_is_gone_is_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The crawl goes on, and the file has the line."""
    logs = make(tmp_path, shown="console")
    closed = io.StringIO()
    closed.close()
    with monkeypatch.context() as gone:
        gone.setattr(sys, "stderr", closed)
        logs.event(Event.READY, queued=2)
    logs.close()
    assert len(events_in(tmp_path)) == 1


def test_the_journal_gets_priorities_and_fields(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """One line for each event, whatever it contains; only lifecycle events and warnings."""
    logs = make(tmp_path, shown="journal")
    logs.event(Event.CONN_CLOSE, conn_id=1, requests=2, age_ms=3, bytes=4, reason="idle_timeout")
    logs.event(Event.RELOAD_OK, changed=["scope.include", "log.level"], needs_restart=[])
    logs.event(Event.LIBRARY, logger="x", message="two\nlines\r= and more")
    logs.close()
    assert capfd.readouterr().err.splitlines() == [
        "<6>reload_ok crawl=news run_id=r1 changed=scope.include,log.level needs_restart=",
        '<4>library crawl=news run_id=r1 logger=x message="two\\nlines\\\\r= and more"',
    ]


def test_a_redirected_stderr_gets_plain_lines(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """With time and level, without escape codes and priorities."""
    logs = make(tmp_path, shown="text")
    logs.event(Event.CONN_CLOSE, conn_id=1, requests=2, age_ms=3, bytes=4, reason="idle_timeout")
    values = {"old": {"network.proxy": "http://a:b@c.test"}, "new": {"network.proxy": ""}}
    logs.event(Event.RELOAD_OK, changed=["scope.include", "log.level"], needs_restart=[], **values)
    logs.event(Event.LIBRARY, logger="x", message="two\nlines")
    logs.close()
    lines = capfd.readouterr().err.splitlines()
    moments, texts = zip(*(line.split(" ", 1) for line in lines), strict=True)
    assert texts == (
        'info reload_ok changed=scope.include,log.level needs_restart= old="network.proxy: http://***@c.test" '
        'new="network.proxy: "',
        r"warning library logger=x message=two\nlines",
    )
    assert all(datetime.fromisoformat(moment).tzinfo == UTC for moment in moments)


@pytest.mark.parametrize("shown", ["text", "journal", "console"])
def test_text_from_outside_does_not_steer_a_terminal(
    shown: Shown, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    logs = make(tmp_path, shown=shown)
    logs.event(Event.LIBRARY, logger="x", message="red \x1b[31m, bell \x07, reversed \u202e")
    logs.event(Event.RELOAD_OK, changed=["a\x1b]0;title\x07"], needs_restart=[])
    logs.close()
    assert [char for char in capfd.readouterr().err if not char.isprintable() and char != "\n"] == []


def test_events_are_lines_of_json_where_that_is_set(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """The lines of events.jsonl, of the same choice as everywhere."""
    logs = make(tmp_path, shown="json")
    logs.event(Event.CONN_CLOSE, conn_id=1, requests=2, age_ms=3, bytes=4, reason="idle_timeout")
    logs.event(Event.DRAIN, in_flight=3)
    logs.close()
    assert capfd.readouterr().err.splitlines() == (tmp_path / "events.jsonl").read_text().splitlines()[1:]


@pytest.mark.parametrize(
    ("shown", "path"),
    [("text", "/archive/\ufffd"), ("json", "/archive/\\udcff"), ("journal", "/archive/\ufffd")],
)
def test_bytes_that_are_not_utf_8_are_shown_as_well(
    shown: Shown, path: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """A path may have any bytes: a line about it has something in their place, and there is no error."""
    logs = make(tmp_path, shown=shown)
    logs.event(Event.DISK_LOW, path="/archive/\udcff", free_bytes=1, min_free_bytes=2)
    logs.close()
    (line,) = capfd.readouterr().err.splitlines()
    assert "disk_low" in line
    assert path in line


def test_what_is_not_shown_as_records_goes_to_the_view(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Messages for people are then printed beside it."""
    seen: list[str] = []

    class View:
        def show(self, event: Mapping[str, Any]) -> None:
            seen.append(event["event"])

    logs = configure(LogOptions(), tmp_path, output=View(), crawl_name="c", run_id="r")
    logs.event(Event.DRAIN, in_flight=3)
    logs.close()
    assert (seen, capfd.readouterr().err, logs.is_shown) == (["drain"], "", False)


def test_the_journal_stalling_does_not_stall_the_caller(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """stderr is a full pipe without a reader: logging goes on."""
    read_end, write_end = os.pipe()

    class Stderr:
        def fileno(self) -> int:
            return write_end

    with monkeypatch.context() as piped:
        piped.setattr(sys, "stderr", Stderr())
        logs = make(tmp_path, shown="journal")
    for _ in range(200):
        logs.event(Event.LIBRARY, logger="x", message="y" * 1_000)
    assert logs.flush()
    assert len(events_in(tmp_path)) == 200
    os.close(read_end)  # the write that hangs fails, so that its thread can end
    logs.close()
    os.close(write_end)


def test_every_event_is_in_the_catalogue() -> None:
    """Every event has a specification, and every specification an event."""
    assert set(CATALOGUE) == set(Event)
    assert all(not spec.required & spec.optional for spec in CATALOGUE.values())


@pytest.mark.parametrize(
    ("changes", "found"),
    [
        ({}, []),
        ({"event": "conn_opened"}, ["unknown event 'conn_opened'"]),
        ({"reason": "bored"}, ["conn_close: reason is 'bored'"]),
        ({"colour": "red"}, ["conn_close: unknown field colour"]),
        ({"requests": None}, ["conn_close: no requests"]),
    ],
)
def test_the_catalogue_finds_what_is_wrong(changes: dict[str, object], found: list[str]) -> None:
    """Unknown names, values and fields, and missing fields (None: left out)."""
    line = {
        "ts": "", "event": "conn_close", "level": "info", "crawl": "", "run_id": "",
        "conn_id": 1, "requests": 2, "age_ms": 3, "bytes": 4, "reason": "idle_timeout",
    } | changes  # fmt: skip
    assert problems({key: value for key, value in line.items() if value is not None}) == found


def test_fields_may_come_as_a_mapping(logs: Logs, tmp_path: Path) -> None:
    """Any field name is possible then, and a field called `name` is in both ways."""
    fields = {"name": "a.warc.gz", "bytes": 1, "records": 2, "sha256": "00"}
    logs.emit(Event.FILE_CLOSED, fields)
    logs.event(Event.FILE_CLOSED, **fields)  # type: ignore[arg-type]
    logs.close()
    first, second = events_in(tmp_path)
    assert first == second
    assert problems(first) == []


def test_a_field_that_does_not_apply_is_left_out(logs: Logs, tmp_path: Path) -> None:
    """It is not null, so that counting fields counts values."""
    logs.event(Event.START, version="1", pid=7, config=None, proxy=None)
    logs.close()
    (event,) = events_in(tmp_path)
    assert (event["pid"], "config" in event, "proxy" in event) == (7, False, False)
