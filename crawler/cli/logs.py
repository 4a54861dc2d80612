"""`crawler logs`: prints the lines of the logs that match, as text for people or as JSON."""

import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Final

import click

from crawler.cli.crawl_options import crawl_options, find_crawl
from crawler.cli.output import Pen, event_text, fetch_text, is_terminal, say, write_lines
from crawler.core.enums import DenyReason, ErrorType, Exit, OutcomeLabel
from crawler.core.formatting import timestamp
from crawler.core.scope import ScopePatternError
from crawler.inspection.log.query import Follower, Line, Matcher, Query, follow, host_names, last, matching
from crawler.inspection.log.rotated_log import RotatedLog, parse_moment
from crawler.obs.events import Event
from crawler.obs.fetch_line import redact

_POLL_S: Final = 0.2
_ON_TERMINAL: Final = 100  # lines shown without -n
_FLUSH_LINES: Final = 256


@click.command(name="logs")
@crawl_options
@click.option(
    "--host", "hosts", multiple=True, metavar="HOST", help='Only of this host; "*.example.org": of all below it.'
)
@click.option(
    "--outcome",
    "outcomes",
    multiple=True,
    type=click.Choice([str(word) for word in OutcomeLabel]),
    help="Only attempts that ended so. Repeatable.",
)
@click.option("--error-type", "error_types", multiple=True, metavar="WORD", help="E.g. first_byte_timeout.")
@click.option("--deny-reason", "deny_reasons", multiple=True, metavar="WORD", help="E.g. robots.")
@click.option("--status", "statuses", multiple=True, metavar="CODE", help='E.g. 404, or "5xx".')
@click.option("--url", metavar="PATTERN", help='Text in the URL, a pattern as in scope.include, or "re:…".')
@click.option("--since", metavar="TIME", help='"10m" (ago), "09:30", "yesterday", "2026-11-25T09:30"; UTC.')
@click.option("--until", metavar="TIME", help="The end of the period, in the same forms.")
@click.option("--events", "of_events", is_flag=True, help="Events (events.jsonl) instead of fetches.")
@click.option("--event", "events", multiple=True, metavar="WORD", help="Only these events, e.g. conn_close.")
@click.option("-n", "--lines", "lines", metavar="N", help='The last N; "all". On a terminal 100, otherwise all.')
@click.option(
    "-f", "--follow", "following", is_flag=True, help="Print new lines as they are written, across rotations."
)
@click.option("--json", "as_json", is_flag=True, help="The lines as they are in the log, also on a terminal.")
def command(
    config: Path | None,
    overrides: tuple[str, ...],
    output: Path | None,
    hosts: tuple[str, ...],
    outcomes: tuple[str, ...],
    error_types: tuple[str, ...],
    deny_reasons: tuple[str, ...],
    statuses: tuple[str, ...],
    url: str | None,
    since: str | None,
    until: str | None,
    of_events: bool,
    events: tuple[str, ...],
    lines: str | None,
    following: bool,
    as_json: bool,
) -> int:
    """Print lines of the logs, rotated and compressed parts included.

    On a terminal they are written for people; in a pipe, each line is the JSON object of the log.
    """
    now = time.time()
    query = Query(
        hosts=host_names(hosts),
        outcomes=outcomes,
        error_types=_words(error_types, ErrorType, "--error-type"),
        deny_reasons=_words(deny_reasons, DenyReason, "--deny-reason"),
        statuses=tuple(_status(status) for status in statuses),
        events=_words(events, Event, "--event"),
        url=_pattern(url),
        since=_timestamp(since, now, "--since"),
        until=_timestamp(until, now, "--until"),
    )
    limit = _limit(lines, on_terminal=is_terminal() and not as_json, following=following)
    paths = find_crawl(config, overrides, output).paths
    of_events = of_events or bool(events)
    log = paths.events_log if of_events else paths.fetch_log
    try:
        matcher = Matcher(query)
    except ScopePatternError as error:
        raise click.UsageError(f"--url: {error}") from None
    printer = _Printer(of_events=of_events, as_json=as_json or not is_terminal())
    with RotatedLog(log) as parts:
        if not parts.youngest_first and not following:
            say(f"{log}: there is no such log yet")
            return Exit.OK if paths.pid() is not None else Exit.IO
        printer.print(matching(parts, matcher) if limit is None else last(parts, matcher, limit))
        printer.flush()
        if not printer.printed and not following:
            say(f"{log.name}: no line matches")
        for problem in parts.problems() + matcher.problems(log.name):
            say(problem)
        if following:
            youngest = next((part for part in parts.youngest_first if part.path == log), None)
            follower = Follower(log, youngest)
            for block in follow(follower, lambda: _pause(printer)):
                printer.print(matcher.find(block))
    return Exit.OK


class _Printer:
    """Writes lines to stdout, many at once."""

    def __init__(self, *, of_events: bool, as_json: bool) -> None:
        self._pen = Pen()
        self._text = event_text if of_events else fetch_text
        self._as_json = as_json
        self._held: list[bytes] = []
        self.printed = False  # whether any line was printed

    def print(self, found: Iterable[tuple[bytes, Line]]) -> None:
        for raw, line in found:
            self.printed = True
            self._held.append(raw if self._as_json else self._text(line, self._pen).encode("utf-8", "replace"))
            if len(self._held) >= _FLUSH_LINES:
                self.flush()

    def flush(self) -> None:
        write_lines(self._held)


def _pause(printer: _Printer) -> None:
    printer.flush()
    time.sleep(_POLL_S)


def _limit(text: str | None, *, on_terminal: bool, following: bool) -> int | None:
    if text is None:
        return 10 if following else _ON_TERMINAL if on_terminal else None
    if text == "all":
        return None
    with suppress(ValueError):
        if int(text) >= 0:
            return int(text)
    raise click.UsageError(f'-n: "{text}" is neither a number nor "all"')


def _timestamp(text: str | None, now: float, option: str) -> str:
    if text is None:
        return ""
    try:
        return timestamp(parse_moment(text, now))
    except ValueError as error:
        raise click.UsageError(f"{option}: {error}") from None


def _status(text: str) -> str:
    word = text.strip().lower()
    if len(word) == 3 and word[0] in "12345" and (word.isdigit() or word[1:] == "xx"):
        return word
    raise click.UsageError(f'--status: "{text}" is neither a status code nor a class such as "4xx"')


def _words(words: tuple[str, ...], known: Iterable[str], option: str) -> tuple[str, ...]:
    """Return the words. Raises UsageError for a word that no line can have, with the nearest known word as a hint."""
    choices = [str(word) for word in known]
    for word in words:
        if word not in choices:
            from difflib import get_close_matches

            near = get_close_matches(word, choices, 1)
            hint = f'did you mean "{near[0]}"?' if near else f"the words are: {', '.join(choices)}"
            raise click.UsageError(f'{option}: no line has "{word}"; {hint}')
    return words


def _pattern(url: str | None) -> str:
    """The pattern of --url, with secrets masked as in the log."""
    return "" if url is None else url if url.startswith("re:") else redact(url)
