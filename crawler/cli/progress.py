"""The output of `crawler crawl` on a terminal: sentences, below them a live panel while it runs, a table at its end.

The caller makes a `Progress` only for a terminal. Invariants: the panel is drawn when the caller passes a status, never
by a thread or a timer of its own; the parts of a number add up to it.
"""

import shlex
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any, Final, Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from crawler.cli.status import hosts_text, warning_text
from crawler.core.enums import CrawlState
from crawler.core.formatting import average, count, counts, duration, local_time, printable, rate, size
from crawler.core.outcomes import UrlCounts, outcomes_text, queue_text
from crawler.engine.monitoring.event_log import RecentError
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
# Events that the panel shows, or that a message says already.
_SHOWN_OTHERWISE: Final = frozenset(
    ("start", "ready", "progress", "drain", "stop", "disk_low", "disk_ok", "file_lost", "descriptors_few",
     "reevaluation_over")
)  # fmt: skip


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

    def update(self, status: Status, last_error: RecentError | None = None) -> None:
        """Draw the panel again. Takes less than a millisecond."""
        self._live.update(panel(status, last_error), refresh=True)

    def say(self, sentence: str, style: str = "") -> None:
        """Print a sentence above the panel."""
        self._console.print(Text(printable(sentence), style))

    def show(self, event: Mapping[str, Any]) -> None:
        """Print an event of the log as a sentence, if the panel does not show it."""
        if event["event"] not in _SHOWN_OTHERWISE:
            self.say(_sentence(event), "" if event["level"] in ("debug", "info") else "yellow")


def _sentence(event: Mapping[str, Any]) -> str:
    match event["event"]:
        case "scope_widened":
            return f"{event['server_address']} is crawled too: {event['via']} redirects to it."
        case "recovered" if not event["clean"]:
            return "The last run was not ended cleanly: what it had not stored is fetched again."
        case "control":
            arguments = event.get("arguments", "")
            return f"`crawler {event['command']}` was received{f' ({arguments})' if arguments else ''}."
        case "reload_ok":
            changed = ", ".join(event["changed"]) or "nothing"
            restart = f"; {', '.join(event['needs_restart'])}: from the next start" if event["needs_restart"] else ""
            return f"The configuration was read again; changed: {changed}{restart}."
        case "reload_failed":
            return f"The configuration was not changed: {event['message']}"
        case "hours":
            until = f" until {event['until'][:16].replace('T', ' ')} UTC" if "until" in event else ""
            return f"fetch.hours are {'open' if event['open'] else 'closed'}{until}."
        case "suspect":
            return f"URLs of {event['server_address']} like {event['template']} look endless; others come first."
        case "slots":
            return f"This agent owns {count(event['own'])} of 1,024 slots of domains."
        case "agent_gone":
            return f"The agent {event['agent']} is gone: the others take over its {count(event['slots'], 'slot')}."
        case "outage":
            return f"No host responds any more ({count(event['hosts'])} that did fail): is it this machine's network?"
        case "outage_over":
            return f"Hosts respond again, after {duration(event['outage_s'])}."
        case "loop_lag":
            return f"The crawl stood still for {duration(event['lag_ms'] / 1e3)}: this machine is busy."
        case "tls_verify_off":
            return "Certificates are not verified (tls.verify = false)."
        case "log_dropped":
            return f"{count(event['lines'], 'line')} of {event['file']} could not be written."
        case _:
            return warning_text(event)


def panel(status: Status, last_error: RecentError | None = None) -> Text:
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
    if s.eta_s is not None and s.state is CrawlState.CRAWLING:
        text.append(f", {duration(s.eta_s)} left if no more is found", "dim")
    urls = UrlCounts.of(s.urls)
    line("URLs", (f"{count(urls.fetched)} of {count(urls.found)} fetched", "bold"), (f" · {_rest(urls)}", ""))
    line("pages", (count(run.pages), "bold"), (f" {_kinds(run.html, run.pages)}", ""),
         (f" · {rate(s.rates.pages_per_s)} now · {rate(mean)} mean", ""))  # fmt: skip
    line("attempts", (count(sum(run.outcomes.values())), "bold"), (f": {outcomes_text(run.outcomes) or 'none'}", ""))
    line("received", (f"{size(run.bytes)} · {size(s.rates.bytes_per_s)}/s now", ""))
    line(
        "queue",
        (queue_text(s.urls, s.held_back_by), "yellow" if s.held_back else ""),
        (f" · {count(len(s.in_flight))} in flight", ""),
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
    if last_error is not None:
        line("last error", (last_error.error, "red"), (f" {printable(last_error.url)}", "dim"))
    return text


def _rest(urls: UrlCounts) -> str:
    """What became of the URLs that were not fetched: "2 denied, 15 left"."""
    return UrlCounts(0, 0, urls.refused, urls.gave_up, urls.left, urls.taken_down).text() or "none left"


def _kinds(html: int, pages: int) -> str:
    return f"({count(html)} HTML, {count(pages - html)} other)"


def summary_table(summary: Mapping[str, object]) -> RenderableType:
    """The table at the end of a crawl, from the object that `--json` prints.

    Besides the names of `--json`, `summary` may have `outcomes` (of attempts), `kinds` (of pages), `error_types`,
    `deny_reasons` and `failures` (of URLs given up): mappings from word to count, which are shown beside their sums.
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

    urls, left_by = s.get("urls"), s.get("left_by")
    if isinstance(urls, Mapping) and isinstance(left_by, Mapping):
        table.add_row("URLs", count(urls["found"]), UrlCounts(**urls).text(left_by))
    speed = f"{rate(number('pages_per_s'))} in {duration(number('duration_s'))}"
    add("pages", "pages", count, "; ".join(filter(None, (_counts_text(s.get("kinds")), speed))))
    if isinstance(outcomes := s.get("outcomes"), Mapping):
        table.add_row("attempts", count(sum(outcomes.values())), outcomes_text(outcomes))
    to_pages = count(number("responses") - number("auxiliary"))
    auxiliary = (
        f", {count(number('auxiliary'))} to robots.txt, sitemaps, feeds and probes" if number("auxiliary") else ""
    )
    add("responses", "responses", count, f"{to_pages} to pages{auxiliary}")
    add("bytes", "bytes", size)
    add("errors", "errors", count, _counts_text(s.get("error_types")))
    if number("gave_up"):
        table.add_row("given up", count(number("gave_up")), _counts_text(s.get("failures")))
    add("denied", "denied", count, _counts_text(s.get("deny_reasons")))
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
        *_next_steps(str(s.get("output", ""))),
    )


def _next_steps(output: str) -> list[Text]:
    """What to do with the crawl now."""
    directory = shlex.quote(printable(output))
    steps = (
        (f"crawler report --output {directory}", "totals, errors, hosts"),
        (f"crawler why URL --output {directory}", "fetched, or why not"),
    )
    shown = [("look", "bold"), ("", "")]
    return [
        Text.assemble((f"{label:<{_LABEL_WIDTH}}", style), command, (f"  {words}", "dim"))
        for (label, style), (command, words) in zip(shown, steps, strict=True)
    ]


def _counts_text(by_word: object) -> str:
    return counts(by_word) if isinstance(by_word, Mapping) else ""
