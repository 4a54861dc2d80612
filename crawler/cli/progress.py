"""The output of `crawler crawl` on a terminal: a live panel while it runs, a table at its end.

The caller makes a `Progress` only for a terminal. Invariant: the panel is drawn when the caller passes a status, never
by a thread or a timer of its own.
"""

from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Final, Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from crawler.cli.status import hosts_text
from crawler.core.enums import CrawlState
from crawler.core.formatting import average, count, counts, duration, local_time, printable, rate, size
from crawler.core.outcomes import UrlCounts
from crawler.engine.monitoring.status import Status
from crawler.obs.fetch_line import redact

_LABEL_WIDTH: Final = 13
_STATES: Final[Mapping[str, tuple[str, str]]] = {
    "crawling": ("crawling", "green"),
    "idle": ("nothing to do", "yellow"),
    "lingering": ("waiting for what is due later", "yellow"),
    "off_hours": ("outside fetch.hours", "yellow"),
    "paused": ("paused", "yellow"),
    "outage": ("every host fails: an outage of our network?", "yellow"),
    "draining": ("stopping: finishing what is in flight (Ctrl-C again to stop at once)", "yellow"),
}
_STOPPED_BY: Final[Mapping[str, str]] = {
    "empty": "all that was found and allowed has been fetched",
    "traps": "what is left belongs to parts that look endless",
    "waiting": "the URLs that are left are not due yet",
    "max_urls": "scope.max_urls was reached",
    "max_duration": "the time limit was reached",
    "signal": "a signal stopped it",
    "operator": "`crawler stop` ended it",
    "disk": "nothing could be written; the same command resumes",
}


class Progress:
    """A panel on stderr. It stays below all other output there, and is removed at the end.

    `with Progress() as progress:` … `progress.update(status)`, a few times a second.
    """

    def __init__(self, console: Console | None = None) -> None:
        self._console = console if console is not None else Console(stderr=True)
        self._live = Live(console=self._console, auto_refresh=False, transient=True, redirect_stdout=False)

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._live.stop()

    def update(self, status: Status) -> None:
        """Draw the panel again. Takes less than a millisecond."""
        self._live.update(panel(status), refresh=True)


def panel(status: Status) -> Text:
    """The live view: a line for the state and one for each count, cut at the terminal's width.

    It is one Text without a box: rich needs 0.3 ms for its layout, and four times as much with a box.
    """
    s, run, connections = status, status.counts, status.connections
    mean = run.pages / s.elapsed_s if s.elapsed_s > 0 else 0.0
    state, colour = _STATES[s.state]
    if s.state is CrawlState.OFF_HOURS and s.opens_at is not None:
        state += f" until {local_time(s.opens_at)}"
    text = Text(no_wrap=True, overflow="ellipsis", end="")

    def line(label: str, *parts: tuple[str, str]) -> None:
        text.append(f"\n  {label:<{_LABEL_WIDTH}}", "dim")
        for part, style in parts:
            text.append(part, style or None)

    text.append("● ", colour)
    text.append(state, f"bold {colour}")
    text.append(f"  {duration(s.elapsed_s)}")
    line("pages", (count(run.pages), "bold"), (f"   {rate(s.rates.pages_per_s)} now · {rate(mean)} mean", ""))
    line(
        "responses",
        (f"{count(run.responses)} · {size(run.bytes)} · ", ""),
        (count(run.errors, "error"), "red" if run.errors else ""),
        (f" · {count(run.denied)} denied", ""),
    )
    due = s.urls["queued"] - s.held_back
    queue = f"{count(due)} due · {count(s.urls['waiting'])} later · {count(len(s.in_flight))} in flight"
    line(
        "queue",
        (queue, ""),
        (f" · {count(s.held_back)} held back by a limit or a block" if s.held_back else "", "yellow"),
    )
    line("hosts", (hosts_text(s.hosts), ""))
    line(
        "connections",
        (f"{count(connections.open)} open of {count(connections.opened)} · ", ""),
        (average(connections.requests_per_connection), "bold"),
        (f" requests each · {count(connections.tls_handshakes)} TLS, {count(connections.tls_resumed)} resumed", ""),
    )
    line("links", (f"{count(run.links_found)} found · {count(run.links_new)} new", ""))
    line("last", (printable(redact(s.last_url)), "dim"))
    return text


def summary_table(summary: Mapping[str, object]) -> RenderableType:
    """The table at the end of a crawl, from the object that `--json` prints.

    Besides the names of `--json`, `summary` may have `error_types`, `deny_reasons` and `failures` (of URLs given up):
    mappings from word to count, which are shown beside their sums.
    """
    s = summary
    table = Table.grid(padding=(0, 2))
    table.add_column(style="bold", no_wrap=True, min_width=_LABEL_WIDTH - 2)
    table.add_column(justify="right", no_wrap=True)
    table.add_column(overflow="fold")

    def number(name: str) -> float:
        value = s.get(name, 0)
        return value if isinstance(value, int | float) else 0

    def add(label: str, name: str, shown: Callable[[float], str], note: str = "") -> None:
        table.add_row(label, shown(number(name)), note)

    add("pages", "pages", count, f"{rate(number('pages_per_s'))} in {duration(number('duration_s'))}")
    others = number("auxiliary")
    more = f"{count(others)} auxiliary" if others else ""
    add("responses", "responses", count, ", ".join(filter(None, (_counts_text(s.get("answers")), more))))
    add("bytes", "bytes", size)
    add("errors", "errors", count, _counts_text(s.get("error_types")))
    add("HTTP errors", "http_errors", count, "responses with status 4xx and 5xx" if number("http_errors") else "")
    if number("gave_up"):
        table.add_row("given up", count(number("gave_up")), _counts_text(s.get("failures")))
    add("denied", "denied", count, _counts_text(s.get("deny_reasons")))
    urls, left_by = s.get("urls"), s.get("left_by")
    if isinstance(urls, Mapping) and isinstance(left_by, Mapping):
        table.add_row("URLs", count(urls["found"]), UrlCounts(**urls).text(left_by))
    if isinstance(current := s.get("round"), Mapping):
        found = {name: current[name] for name in ("unchanged", "changed", "gone", "failed", "new")}
        table.add_row("visited again", count(current["visited"]), _counts_text(found))
    add("links", "links_found", count, f"{count(number('links_new'))} new")
    add("hosts", "hosts", count)
    add("connections", "connections_opened", count, f"{average(number('requests_per_connection'))} requests each")
    add("handshakes", "tls_handshakes", count, f"{count(number('tls_resumed'))} resumed")
    add("CPU", "cpu_s", duration, f"{size(number('max_rss_bytes'))} memory at most")
    stopped_by = str(s.get("stopped_by", ""))
    ended = _STOPPED_BY.get(stopped_by, stopped_by)
    # Outside the table: a long path would otherwise be squeezed into its last column.
    return Group(
        table,
        Text.assemble((f"{'ended':<{_LABEL_WIDTH}}", "bold"), ended),
        Text.assemble((f"{'output':<{_LABEL_WIDTH}}", "bold"), printable(str(s.get("output", "")))),
    )


def _counts_text(by_word: object) -> str:
    return counts(by_word) if isinstance(by_word, Mapping) else ""
